"""A simulated network stack that behaves like lwIP on a board, and clients behind it.

Sent octets stay in one small memory until the client's TCP acknowledges them. A write that finds
it full blocks, up to 10 s; then it claims success, and the octets are lost. Time stands still but
for what this file lets pass, so that seconds take microseconds.
"""

import wire
from amqp_lite.compat import POLLIN, POLLOUT
from amqp_lite.log import log
from amqp_lite.net import reactor as reactor_module
from amqp_lite.net.reactor import Reactor
from world import World

MEMORY = 6500  # octets of output the stack holds for all connections together
STACK_SEND = 6400  # and for one
HEARTBEAT = 10  # seconds


class Client:
    """A socket of the broker, the network, and the client at its other end.

    delay   ms one way
    reads   False: its TCP acknowledges nothing any more, and it says nothing, as when the power is
            gone
    react   function(client, channel, name, payload) for each frame that arrives
    """

    def __init__(self, stack, delay=2, react=None):
        self.stack = stack
        self.delay = delay
        self.reads = True
        self.react = react
        self.held = 0  # octets in the stack
        self.closed = False  # by the broker
        self.hole = False  # octets were lost
        self.raw = False  # keep octets as they come in `seen`, they are no frames
        self.seen = b""
        self.names = []
        self.bodies = []  # the first octets of each
        self.to_broker = []  # [due, octets]
        self.to_client = []  # [due, octets]
        self.acks = []  # [due, octets acknowledged]
        self._beat_at = 0  # ticks of the next heartbeat
        self._inbox = b""
        self._size = 0  # of the body under way
        self._body = b""

    def send(self, octets):
        self.to_broker.append([self.stack.now + self.delay, octets])

    def turn(self, now):
        """Let arrive what is due."""
        if self._beat_at and self.reads and now >= self._beat_at:
            self._beat_at = now + 1000 * HEARTBEAT // 2
            self.send(wire.HEARTBEAT)
        while self.acks and self.acks[0][0] <= now:
            self.held -= self.acks.pop(0)[1]
        while self.reads and self.to_client and self.to_client[0][0] <= now:
            octets = self.to_client.pop(0)[1]
            self.acks.append([now + self.delay, len(octets)])
            if self.raw:
                self.seen += octets
                continue
            frames, self._inbox = wire.split(self._inbox + octets)
            for channel, name, payload in frames:
                self._arrived(channel, name, payload)

    def _arrived(self, channel, name, payload):
        self.names.append(name)
        if name == "header":
            self._size = int.from_bytes(payload[4:12], "big")
            self._body = b""
        elif name == "body":
            self._body += payload
        if name in ("header", "body") and len(self._body) == self._size:
            self.bodies.append(self._body[:8])
            name = "message"
        if self.react is not None:
            self.react(self, channel, name, payload)

    # --- the socket, as the broker has it ---

    def close(self):
        self.closed = True

    def hang_up(self):
        """The client's side ends."""
        self.send(b"")


class Stack:
    """
    lingers  ms the stack keeps the octets of a connection that was closed with some unacknowledged
    """

    def __init__(self, lingers=0):
        self.now = 1000
        self.lingers = lingers
        self.clients = []
        self.blocked = 0  # ms writes have blocked, all together
        self.slowest = 0  # the longest one
        self.lost = 0  # octets
        self.peak = 0  # octets held at once

    def held(self):
        return sum([client.held for client in self.clients])

    def advance(self, ms):
        self.now += ms
        for client in self.clients:
            client.turn(self.now)

    def closed(self, client):
        """The broker closed this one."""
        if self.lingers and not client.reads:
            client.acks = [[self.now + self.lingers, client.held]]
        else:
            client.held = 0
            client.acks = []

    # --- in place of compat's functions ---

    def ticks_ms(self):
        return self.now

    def transmit(self, client, view, i, n):
        n = min(n, STACK_SEND - client.held)
        waited = 0
        while self.held() + n > MEMORY:
            if waited >= 10000:
                client.hole = True
                self.lost += n
                return n
            self.advance(50)
            waited += 50
            self.blocked += 50
            self.slowest = max(self.slowest, waited)
        if n:
            client.held += n
            client.to_client.append([self.now + client.delay, bytes(view[i : i + n])])
            self.peak = max(self.peak, self.held())
        return n

    def receive(self, client, view, n):
        if not client.to_broker or client.to_broker[0][0] > self.now:
            return -1
        octets = client.to_broker[0][1]
        view[: len(octets[:n])] = octets[:n]
        if len(octets) > n:
            client.to_broker[0][1] = octets[n:]
        else:
            client.to_broker.pop(0)
        return min(n, len(octets))


class Poller:
    """What the reactor polls; waiting lets time pass until somebody is ready."""

    stack = None  # set before a reactor is made

    def __init__(self):
        self._stack = Poller.stack
        self._wanted = {}
        self.ready = []
        self.events = []

    def add(self, client, who):
        self._wanted[id(client)] = [client, who, True, False]

    def want(self, client, who, reading, writing):
        self._wanted[id(client)] = [client, who, reading, writing]

    def remove(self, client):
        del self._wanted[id(client)]
        self._stack.closed(client)

    def wait(self, timeout_ms):
        stack = self._stack
        stack.advance(1)  # the step itself takes time
        end = stack.now + timeout_ms
        while True:
            found = []
            for client, who, reading, writing in self._wanted.values():
                can_read = reading and client.to_broker and client.to_broker[0][0] <= stack.now
                can_write = writing and client.held < STACK_SEND
                if can_read or can_write:
                    found.append(
                        (who, (POLLIN if can_read else 0) | (POLLOUT if can_write else 0))
                    )
            if found or stack.now >= end:
                break
            stack.advance(1)
        self.ready = [who for who, _ in found]
        self.events = [events for _, events in found]
        return len(found)


class _Listener:
    tls = None

    def __init__(self, client):
        self._client = client

    def accept(self):
        client, self._client = self._client, None
        return client and (client, "127.0.0.1")


class Board:
    """A reactor with its broker on a simulated stack."""

    def __init__(self, lingers=0, bridges=0, **numbers):
        self.stack = Stack(lingers)
        world = World(**numbers)
        profile = world.profile
        self.broker = world.broker
        Poller.stack = self.stack
        reactor_module.Poller = Poller
        reactor_module.transmit = self.stack.transmit
        reactor_module.receive = self.stack.receive
        reactor_module.ticks_ms = self.stack.ticks_ms
        self.reactor = Reactor(
            self.broker, world.engines[bridges:], None, profile["unauthenticated"],
            profile["receive_buffer"], profile["login_ms"], profile["output_budget"],
            profile["stack_send"],
        )  # fmt: skip
        log.configure("error", 8)

    def connect(self, **options):
        """A client that has said nothing yet."""
        client = Client(self.stack, **options)
        self.stack.clients.append(client)
        self.reactor._accept(_Listener(client))
        return client

    def client(self, *octets, **options):
        """A client that logs in, opens channel 1 and sends *octets*."""
        client = self.connect(**options)
        client.send(wire.HEADER + wire.start_ok("\0guest\0guest") + wire.tune_ok(0, 0, HEARTBEAT)
                    + wire.open_connection() + wire.open_channel(1))  # fmt: skip
        self.run(2000, lambda: "channel.open-ok" in client.names)
        assert client.names[-1] == "channel.open-ok", client.names
        client._beat_at = self.stack.now
        if octets:
            client.send(b"".join(octets))
            self.run(150 + 4 * client.delay)
        return client

    def run(self, ms, until=None):
        """Turn the reactor for *ms*, or until *until*() says so: the ms that took."""
        start = self.stack.now
        while self.stack.now - start < ms and not (until and until()):
            self.reactor.step(20)
        return self.stack.now - start
