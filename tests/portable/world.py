"""A broker in memory: its clients without sockets, its time by hand.

World is what the reactor is to the real one: it feeds the engines, resumes, commits, pumps and
carries octets away, as long as anything moves. Peer is one client and the engine that serves it.
"""

import struct

import wire
from amqp_lite.access import Access
from amqp_lite.broker.broker import Broker
from amqp_lite.broker.durable import Durable
from amqp_lite.broker.table import Table
from amqp_lite.compat import ticks_add
from amqp_lite.log import log
from amqp_lite.store.ring import Ring
from amqp_lite.v091.channel import Channel
from amqp_lite.v091.codec import match_headers, read_table, translated, write_table
from amqp_lite.v091.connection import Connection
from ramflash import RamFlash

# A Pico W's.
PROFILE = {
    "heap": 128000, "connections": 4, "unauthenticated": 2, "channels": 8,
    "receive_buffer": 1024, "send_buffer": 2048, "frame_max": 8192, "heartbeat": 60,
    "amqp10": 1,
    "auto_declare": 0,
    "exchanges": 12, "queues": 16, "bindings": 32, "consumers": 16, "messages": 64,
    "deliveries": 96, "block_size": 128, "blocks": 192, "message_max": 8192, "routes": 16,
    "stored_max": 16384,
    "route_key": 64, "output_budget": 6000, "stack_send": 6400, "login_bytes": 4096,
    "login_ms": 10000, "log_lines": 16,
}  # fmt: skip
_ALL = ["*"]
USERS = {
    "guest": {  # the password is guest
        "password_hash": "c2FsdDRwMuw4kgNZhm0cEYx1m4NAR6BCdplxDdFbnDjbRIKq",
        "configure": _ALL, "write": _ALL, "read": _ALL,
    },
    "sensor": {  # the password is secret
        "password_hash": "c2FsdL7ekDhtRQzqi3e4IviIcGXk5avxMsL53M/Mf71Mul41",
        "configure": ["sensors.*"], "write": ["sensors.*", "amq.topic"], "read": ["sensors.a"],
    },
}  # fmt: skip


class World:
    """
    users      rows of the configuration
    flash      the device under the store; None: a new one in RAM
    anonymous, keys  as in the configuration
    numbers    of the profile, where a test needs others
    """

    def __init__(self, users=USERS, flash=None, anonymous=None, keys=None, **numbers):
        self.numbers = numbers
        self.keys = keys
        self.profile = dict(PROFILE)
        self.profile.update(numbers)
        self.flash = flash or RamFlash(16, 1024, 64)
        store = Durable(Ring(self.flash), write_table, read_table)
        self.broker = Broker(self.profile, store, match_headers, translated)
        self.broker.now = 1000
        self.broker.restore()
        self.access = Access(users, anonymous, keys)
        self.channels = Table(Channel, self.profile["channels"], "channel")
        self.engines = []  # idle ones
        for _ in range(self.profile["connections"]):
            self.engines.append(
                Connection(self.broker, self.access, self.profile, self.channels, (b"/", b"edge"))
            )
        self.peers = []
        log.configure("error", 16)

    def connect(self, address="127.0.0.1", subject=None):
        """A peer that has sent its protocol header and nothing more.

        subject  of its certificate
        """
        peer = Peer(self, self.engines.pop())
        self.peers.append(peer)
        deadline = ticks_add(self.broker.now, self.profile["login_ms"])
        peer.engine.open(address, deadline, subject)
        self.run()
        return peer

    def client(self, **options):
        """A peer that is logged in and has channel 1 open."""
        return self.connect().login(**options).open(1)

    def run(self):
        """Step until nothing moves."""
        moved = True
        while moved:
            moved = False
            for peer in self.peers:
                if peer.write_some():
                    moved = True
            if self.broker.freed:
                self.broker.freed = False
                moved = True
                for peer in self.peers:
                    if peer.engine.stalled:
                        peer.engine.resume()
            self.broker.committed = self.broker.store.commit()
            if self.broker.behind and self.broker.committed:
                self.broker.catch_up()
            for peer in list(self.peers):
                peer.engine.pump()
                if peer.read_some():
                    moved = True
                if peer.engine.stalled:
                    peer.engine.resume()
                if peer.engine.closed and not peer.engine.output.pending:
                    peer.vanish()

    def wait(self, ms):
        """Let time pass, with a look at all deadlines four times a second."""
        while ms > 0:
            self.broker.now = ticks_add(self.broker.now, min(ms, 250))
            ms -= 250
            for peer in list(self.peers):
                peer.engine.tick()
            self.broker.tick()
            self.run()

    def free(self):
        """All there is a fixed number of, and how much of it is free."""
        broker = self.broker
        pool = broker.pool
        seen = bytearray(pool.blocks)
        block = pool._free
        for _ in range(pool.available):
            assert not seen[block], "the chain of free blocks is broken"
            seen[block] = 1
            block = pool._next[block]
        return {
            "blocks": pool.available, "messages": pool.messages.free,
            "entries": broker.entries.free, "promised": broker.promised,
            "consumers": broker.consumers.free,
            "queues": broker.queue_table.free, "exchanges": broker.exchange_table.free,
            "bindings": broker.bindings.free, "channels": self.channels.free,
            "stored": self.stored(), "names": (len(broker.queues), len(broker.exchanges)),
        }  # fmt: skip


    def stored(self):
        """Slots of the store's pending records, but for the clock's one."""
        store = self.broker.store
        ring = store.ring
        ring.mark()
        clock = 0
        if store._clock_order and ring.locate(store._clock_order, store._clock_slot):
            clock = ring.used  # more than one slot, when it was moved
        return sum(ring.live) - clock

    def restart(self):
        """The same broker after a power cut: another world on the same flash. This one is over."""
        for peer in self.peers:
            peer.engine = None  # a board has memory for one
        self.broker = self.access = self.channels = self.engines = None
        return World(flash=self.flash, keys=self.keys, **self.numbers)


class Peer:
    def __init__(self, world, engine):
        self.world = world
        self.engine = engine
        self.step = 0  # octets given to the engine at once; 0 = as many as it takes
        self.reading = True
        self.gone = False  # the broker hung up, or the peer did
        self.inbox = b""
        self._outbox = b""  # not taken by the engine yet, from _taken
        self._taken = 0

    # --- octets ---

    def send(self, data):
        """Send octets, let everybody act on them, and return the peer for one more call."""
        self._outbox = self._outbox[self._taken :] + data if self.unsent() else data
        self._taken = 0
        self.world.run()
        return self

    def write_some(self):
        n = min(self.engine.room(), self.unsent(), self.step or 0xFFFFFF)
        if not n or self.gone or self.engine.closed:
            return False
        start = self._taken
        self._taken += n
        self.engine.feed(memoryview(self._outbox)[start : start + n], n)
        return True

    def read_some(self, most=0xFFFFFF):
        output = self.engine.output
        n = min(most, output.pending)
        if not n or not self.reading:
            return False
        self.inbox += bytes(output.view[:n])
        output.sent(n)
        return True

    def unsent(self):
        """Octets the engine has not taken yet."""
        return len(self._outbox) - self._taken

    def vanish(self):
        """The connection is gone, without a word."""
        if not self.gone:
            self.gone = True
            self.world.peers.remove(self)
            self.world.engines.append(self.engine)
            self.engine.lost()
            self.world.run()

    # --- frames ---

    def take(self):
        """The frames that came since the last call, as wire.split() gives them."""
        frames, self.inbox = wire.split(self.inbox)
        return frames

    def ask(self, data):
        """Send octets; the frames that came since the last call."""
        return self.send(data).take()

    def names(self, data=b""):
        """Send octets; the names of the frames that came since the last call."""
        return [name for _, name, _ in self.ask(data)]

    def refused(self, data):
        """Send octets that are answered with channel.close or connection.close: (scope, code)."""
        for _, name, payload in self.ask(data):
            if name in ("channel.close", "connection.close"):
                return name[:-6], struct.unpack(">H", payload[:2])[0]
        return None

    def contents(self, data=b""):
        """Send octets; the contents that came since the last call, see contents()."""
        return contents(self.ask(data))

    def bodies(self, data=b""):
        """Send octets; the bodies of what came since the last call."""
        return [content[4] for content in self.contents(data)]

    # --- the usual ---

    def login(self, user="guest", password="guest", heartbeat=0, **more):
        frames = self.ask(wire.start_ok("\0%s\0%s" % (user, password), **more))
        assert [name for _, name, _ in frames] == ["connection.start", "connection.tune"], frames
        tune = struct.unpack(">HIH", frames[1][2])
        assert self.names(wire.tune_ok(tune[0], tune[1], heartbeat)) == []
        assert self.names(wire.open_connection()) == ["connection.open-ok"]
        return self

    def open(self, channel):
        assert self.names(wire.open_channel(channel)) == ["channel.open-ok"]
        return self

    def queue(self, name, **options):
        """Declare a queue on channel 1; its name. What came before is taken, too."""
        frames = self.ask(wire.declare_queue(1, name, **options))
        assert frames[-1][1] == "queue.declare-ok", frames
        return wire.strings(frames[-1][2], 0, 1)[0]

    def works(self):
        """Whether a message still goes around through this peer's connection, on channel 1."""
        self.take()
        self.send(wire.declare_queue(1, "works", exclusive=1))
        self.send(wire.publish(1, "", "works", "still"))
        names = self.names(wire.get(1, "works", no_ack=1) + wire.delete_queue(1, "works"))
        return names == ["queue.declare-ok", "basic.get-ok", "header", "body", "queue.delete-ok"]


def contents(frames):
    """The whole contents among *frames*: (method name, arguments, channel, properties, body)."""
    found = []
    under_way = {}  # channel -> [name, arguments, properties, octets to come, body]
    for channel, name, payload in frames:
        if name in ("basic.deliver", "basic.get-ok", "basic.return"):
            assert channel not in under_way, "content inside of content"
            under_way[channel] = row = [name, payload, None, 0, b""]
        elif name == "header":
            row = under_way[channel]
            assert payload[:4] == b"\x00\x3c\x00\x00"
            row[3] = struct.unpack(">Q", payload[4:12])[0]
            row[2] = payload[12:]
        elif name == "body":
            row = under_way[channel]
            row[4] += payload
            row[3] -= len(payload)
            assert row[3] >= 0, "more body than announced"
        else:
            assert channel not in under_way, "%s inside of content" % name
            continue
        if row[2] is not None and not row[3]:
            del under_way[channel]
            found.append((row[0], row[1], channel, row[2], row[4]))
    assert not under_way, "half a content"
    return found


def tag_of(content):
    """The delivery tag of a content from contents()."""
    i = 0 if content[0] == "basic.get-ok" else 1 + content[1][0]
    return struct.unpack(">Q", content[1][i : i + 8])[0]


def is_redelivered(content):
    i = 0 if content[0] == "basic.get-ok" else 1 + content[1][0]
    return content[1][i + 8] == 1
