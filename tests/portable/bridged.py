"""An edge broker and its upstream in memory, joined by a bridge: no sockets, time by hand."""

import wire
from amqp_lite.bridge.client091 import Client
from amqp_lite.bridge.upstream import Upstream
from amqp_lite.compat import ticks_add
from amqp_lite.config import load
from amqp_lite.v091.properties import read_properties
from world import World

CLOUD = {
    "receive_buffer": 4096, "send_buffer": 8192, "frame_max": 16384, "blocks": 512,
    "messages": 400, "deliveries": 600, "message_max": 16384,
}  # fmt: skip
BOOTS = (b"0000beef", b"0000cafe")


class Bridged:
    """
    uplinks, downlinks  rows of the configuration
    more                of the row of `bridges`
    """

    def __init__(self, uplinks=(), downlinks=(), **more):
        row = {"name": "cloud", "hosts": ["up"], "uplinks": uplinks, "downlinks": downlinks}
        row.update(more)
        self.settings = load({"bridges": [row]})["bridges"][0]
        self.cloud = World(**CLOUD)
        self.cloud_user = self.cloud.client()
        self.most = 0xFFFFFF  # octets carried at once, each way
        self._set_edge(World())

    def _set_edge(self, edge):
        self.edge = edge
        self.user = edge.client()
        self.upstream = self.client = None
        self.engine = None  # the cloud's, while there is a connection

    @property
    def online(self):
        return self.engine is not None

    def start(self):
        """Make the bridge, after the queues it needs were declared."""
        edge = self.edge
        for link in self.settings["uplinks"]:
            if link["refused"] == "park":
                edge.broker.own_queue(link["queue"].encode() + b".parked", True)
        self.upstream = Upstream(edge.broker, self.settings, "edge-1", BOOTS)
        self.client = Client(edge.broker, self.upstream, edge.profile, self.settings, "edge-1")
        self.connect()
        return self

    def connect(self):
        self.engine = self.cloud.engines.pop()
        self.engine.open("127.0.0.1", ticks_add(self.cloud.broker.now, 10000))
        self.client.open("up:5672", ticks_add(self.edge.broker.now, 10000))
        self.client.output.sent(8)  # the header, which the listener reads
        self.run()

    def cut(self, why="cut"):
        """The connection is gone, for both."""
        engine = self.engine
        self.engine = None
        if engine is not None:
            self.cloud.engines.append(engine)
            engine.lost()
        self.client.lost(why)
        self.run()

    def run(self):
        """Until nothing moves."""
        moved = True
        while moved:
            moved = False
            self.edge.run()
            self.cloud.run()
            if self.engine is None:
                continue
            self.engine.pump()
            self.client.pump()
            moved = carry(self.client, self.engine, self.most)
            moved = carry(self.engine, self.client, self.most) or moved
            for engine in (self.client, self.engine):
                if engine.stalled:
                    engine.resume()
            if (self.client.closed and not self.client.output.pending) or (
                self.engine.closed and not self.engine.output.pending
            ):
                self.cut(None)
                moved = True

    def wait(self, ms, step=100):
        """Let time pass, on both sides."""
        while ms > 0:
            n = min(ms, step)
            ms -= n
            for world in (self.edge, self.cloud):
                world.broker.now = ticks_add(world.broker.now, n)
            if self.engine is not None:
                self.client.tick()
            if self.engine is not None:
                self.engine.tick()
            for world in (self.edge, self.cloud):
                for peer in list(world.peers):
                    peer.engine.tick()
                world.broker.tick()
            self.run()

    def restart(self):
        """A power cut at the edge, and the broker again; start() brings the bridge."""
        if self.engine is not None:
            self.cloud.engines.append(self.engine)
            self.engine.lost()
            self.cloud.run()
        self._set_edge(self.edge.restart())

    # --- the usual ---

    def queue(self, name, **options):
        """A durable queue of the edge."""
        self.user.queue(name, durable=1, **options)

    def publish(self, name, *bodies, **options):
        """Persistent messages to a queue of the edge."""
        options.setdefault("given", wire.properties(delivery_mode=2))
        self.user.send(b"".join([wire.publish(1, "", name, body, **options) for body in bodies]))
        self.run()

    def arrived(self, name):
        """(body, properties) of all that is in a queue of the cloud, which is emptied."""
        found = []
        while True:
            got = self.cloud_user.contents(wire.get(1, name, no_ack=1))
            if not got:
                self.run()
                return found
            found.append((got[0][4], read_properties(got[0][3], 0)))

    def bodies(self, name):
        return [body for body, _ in self.arrived(name)]

    def status(self, name="telemetry"):
        return self.upstream.status("open")["uplinks"][name]


def carry(sender, taker, most):
    """Move octets from one engine to the other: whether there were some."""
    n = min(sender.output.pending, taker.room(), most)
    if not n or taker.closed:
        if taker.closed and sender.output.pending:
            sender.output.sent(sender.output.pending)
        return False
    octets = bytes(sender.output.view[:n])
    sender.output.sent(n)
    taker.feed(memoryview(octets), n)
    return True
