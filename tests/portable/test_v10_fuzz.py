"""Recorded AMQP 1.0 sessions, bent and broken: nothing escapes, and nothing stays behind.

ROUNDS and SEED in the environment: see rounds.py. A round bends eight frames or so, and makes up
twenty more that fit the state of their peer but for their values.
"""

import random

import sessions10
import wire
import wire10
from amqp_lite.broker.transaction import Ledger
from amqp_lite.compat import MICROPYTHON, ticks_add
from amqp_lite.errors import SyntaxFailure
from amqp_lite.v10 import performatives as performative
from amqp_lite.v10.connection import Connection
from amqp_lite.v10.coordinator import Coordinator
from amqp_lite.v10.frames import AMQP, SASL
from amqp_lite.v10.performatives import frame, uint
from amqp_lite.v10.values import Described, Symbol, Typed, write_value
from bending import (
    flip_bits,
    insert,
    put,
    remove,
    repeat,
    some_octets,
    swap,
    truncate,
)
from rounds import clear, mingle, play_rounds
from wire10 import LISTS
from world import Peer, World

SESSIONS = sessions10.ALL
# Numbers that are often taken for others.
SIZES = (0, 1, 7, 8, 9, 16, 255, 256, 511, 512, 1016, 1024, 1025, 8192, 8193, 0xFFFF, 0x10000,
         0x3FFFFFFF, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF)  # fmt: skip
CODES = (0x00, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x50, 0x52, 0x53, 0x56, 0x60, 0x70, 0x73, 0x80,
         0x83, 0x98, 0xA0, 0xA1, 0xA3, 0xB0, 0xB1, 0xB3, 0xC0, 0xC1, 0xD0, 0xD1, 0xE0, 0xF0,
         0xFF)  # fmt: skip
NEIGHBOUR_EVERY = 10  # rounds


def reframed(octets, body):
    """The frame *octets* with another body, and the size of that."""
    return (4 + 4 + len(body)).to_bytes(4, "big") + octets[4:8] + body


# --- values and performatives of any kind ---


def some_uint():
    return uint(random.choice((0, 0, 0, 1, 1, 2, 3, 5, 9, 16, 255, 1000) + SIZES[-7:]))


def some_text():
    return random.choice(
        ("", "q", "down", "up", "/queue/q", "/queues/q", "/queues/%", "/exchanges/amq.topic/a",
         "/topic/#", "amq.fanout", "amqp://h/q", "/queue/\u00fc", "x" * 300, "/" * 40, "/queue",
         "/exchange/amq.default", "/queues/a/b", "%", "/amq/queue/q", "/exchange/amq.topic/#",
         "/management", "amq.headers", "/exchange/amq.headers")
    )  # fmt: skip


def some_value(depth=0):
    """A value of any type; now and then one that does not exist."""
    kind = random.randrange(16)
    if kind < 2:
        return some_uint()
    if kind == 2:
        return some_text()
    if kind == 3:
        return random.choice((None, True, False))
    if kind == 4:
        return Symbol(random.choice(("", "x", "amqp:accepted:list", "never", "s" * 200)))
    if kind == 5:
        return some_octets(random.choice((0, 1, 4, 32, 33, 200)))
    if kind == 6:
        return random.choice(
            (Typed(0x60, 7), Typed(0x50, random.randrange(256)), Typed(0x44), Typed(0x80, 2**63),
             Typed(0x83, 5), Typed(0x73, "x"), Typed(0x72, 1.5), Typed(0x98, bytes(16)))
        )  # fmt: skip
    if kind == 7:
        return random.choice((-1, 0, 2**40, 1.5))
    if kind == 8:
        return Typed(0xF0, [Symbol("a"), Symbol("b")] * random.choice((0, 1, 20)), b"\xa3")
    if kind == 9:
        # An array of nothing at all.
        return Typed(0xF0, [None] * random.choice((0, 1, 100)), b"\x40")
    if depth > 2:
        return None
    if kind == 10:
        return [some_value(depth + 1) for _ in range(random.randrange(5))]
    if kind == 11:
        return {some_text(): some_value(depth + 1) for _ in range(random.randrange(4))}
    if kind == 12:
        return Described(some_value(depth + 1), some_value(depth + 1))
    return some_list(random.choice(tuple(LISTS)), depth + 1)


def of_type(letter, depth):
    """A value of the type that a field's *letter* stands for."""
    letter = chr(letter).lower()
    if letter == "u":
        return some_uint()
    if letter == "b":
        return random.choice((True, False))
    if letter == "s":
        return some_text()
    if letter == "*":
        return random.choice((None, some_text()))
    if letter == "x":
        return some_octets(random.choice((0, 1, 4, 32, 33)))
    if letter == "c":
        return Typed(0x50, random.choice((0, 1, 2, 3, 255)))
    if letter == "h":
        return Typed(0x60, random.choice((0, 1, 7, 8, 0xFFFF)))
    if letter == "l":
        return Typed(0x80, random.choice((0, 8192, 2**64 - 1)))
    if letter == "m":
        return {some_text(): some_value(depth + 1)}
    if letter == "t":
        return Typed(0x83, 2**40)
    if letter == "d":
        codes = (0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x30, 0x34, 0x1D)
        return some_list(random.choice(codes), depth + 1)
    return Symbol("y")


def some_filters():
    descriptors = (
        sessions10.KEY, sessions10.TABLE, sessions10.SELECTOR, Symbol("other"),
        Typed(0x80, 0x468C00000000), Typed(0x80, 0x468C00000002), Typed(0x80, 0x468C00000004), 5,
    )  # fmt: skip
    found = {}
    for _ in range(random.randrange(3)):
        value = random.choice((
            some_value(2), some_text(), {"k": some_value(2)}, [some_text(), some_value(2)],
            "k = 1 OR NOT (l LIKE '%a_' ESCAPE '_')", "(" * 40, "a BETWEEN 1 AND", "k IN ('a')",
        ))  # fmt: skip
        found[some_text()] = Described(random.choice(descriptors), value)
    return found


def some_list(code, depth=0):
    """A described list of this *code*, most of its fields as they have to be."""
    letters = LISTS[code][1]
    fields = []
    for letter in letters[: random.choice((len(letters), random.randrange(len(letters) + 1)))]:
        choice = random.randrange(20)
        if choice == 0 and depth < 3:
            fields.append(some_value(depth + 1))
        elif choice < 8 and not 0x41 <= letter <= 0x5A or depth > 3:
            fields.append(None)
        else:
            fields.append(of_type(letter, depth))
    if random.randrange(40) == 0:
        fields.append(some_value(depth + 1))
    if code == performative.SOURCE and len(fields) > 7 and random.getrandbits(1):
        fields[7] = some_filters()
    return performative.described_value(code, *fields)


def some_section():
    code = random.choice((0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x75, 0x75, 0x76, 0x77, 0x78))
    if code in LISTS:
        return some_list(code)
    value = some_value()
    if random.randrange(4):
        if code == 0x75:
            value = some_octets(random.choice((0, 5, 300)))
        elif code == 0x76:
            value = [some_value(1)]
        elif code != 0x77:
            value = {some_text(): some_value(1)}
    return Described(Typed(0x53, code), value)


def octets_of(value):
    """The octets of *value*; those of null when it is too deep to be written."""
    try:
        return write_value(value)
    except Exception:
        return b"\x40"


def some_frame():
    """A frame that is one, with a performative by the grammar or nearly."""
    if random.randrange(12) == 0:
        code = random.choice(tuple(LISTS))
    else:
        code = random.choice((0x11, 0x12, 0x12, 0x13, 0x13, 0x14, 0x14, 0x15, 0x15, 0x16, 0x17))
    body = octets_of(some_list(code))
    if code == performative.TRANSFER:
        for _ in range(random.randrange(5)):
            body += octets_of(some_section())
    return frame(AMQP if random.randrange(30) else SASL, random.choice((0, 0, 0, 1, 2)), body)


# --- frames that fit where the peer is, but for their values ---


def live_attach(handle, channel):
    """Of a receiver mostly, with something that may be wanted of a source."""
    name = random.choice(("up", "down", "sub", "m", "l", "n" * 200))
    address = random.choice(
        ("/queue/q", "/queue/r", "amq.topic", "amq.headers", "/topic/a.*", "/exchange/amq.headers",
         "/management", some_text(), None)
    )  # fmt: skip
    if random.randrange(3) == 0:
        return wire10.attach_sender(name, address, handle, channel, random.choice((None, 0, 1, 2)))
    options = {}
    for key, values in (
        ("durable", (0, 1, 2, 9)), ("expiry", ("never", "link-detach", "x")),
        ("timeout", (0, 5, 2**32 - 1)), ("dynamic", (True,)), ("mode", ("copy", "move", "x")),
        ("filter", None), ("default", None), ("capability", ("topic", "queue")),
    ):  # fmt: skip
        if random.randrange(3) == 0:
            options[key] = random.choice(values) if values else None
    if "filter" in options:
        options["filter"] = some_filters()
    if "default" in options:
        options["default"] = some_list(random.choice((0x24, 0x25, 0x26, 0x27, 0x27, 0x23)))
    if random.randrange(20) == 0:
        address = wire10.NO_SOURCE
    return wire10.attach_receiver(
        name, address, handle, channel, random.choice((None, None, 0, 1, 2)), **options
    )


def live_request():
    """The octets of a request to /management, or nearly."""
    method = random.choice(("GET", "PUT", "PUT", "POST", "DELETE", "x"))
    path = random.choice(
        ("/queues/q", "/queues/", "/queues/q/messages", "/exchanges/e", "/exchanges/amq.topic",
         "/bindings", "/bindings?src=e&dstq=q&key=k", "/bindings?%", "/auth/tokens", "/queues/%zz",
         "/bindings/src=e;dstq=q;key=k;args=", some_text())
    )  # fmt: skip
    body = some_value()
    if random.randrange(4):
        body = {}
        for key in (
            "durable", "auto_delete", "exclusive", "internal", "type", "arguments", "source",
            "destination_queue", "destination_exchange", "binding_key",
        ):  # fmt: skip
            if random.getrandbits(1):
                body[key] = random.choice(
                    (True, False, "q", "e", "amq.topic", "headers", "x" * 300, some_value(1),
                     {"x-max-length": 5}, {some_text(): some_value(1)}, {"k": some_value(1)})
                )  # fmt: skip
    number = random.choice((1, "id", b"id", None, some_value(1)))
    reply = random.choice(("$me", "$me", None, "m", "/management"))
    octets = octets_of(performative.described_value(0x73, number, None, path, method, reply))
    return octets + octets_of(Described(Typed(0x53, 0x77), body))


def some_work(engine):
    """The txn-id of a transaction, perhaps a wrong one; None: none is meant."""
    if not engine.works or random.randrange(3) == 0:
        return None
    return random.choice(sorted(engine.works) + [sessions10.WORK])


def live_transfer(session, link):
    work = some_work(session.connection)
    if isinstance(link, Coordinator):
        if work is None:
            octets = sessions10.order(performative.DECLARE)
        else:
            fail = random.choice((None, False, True))
            octets = sessions10.order(performative.DISCHARGE, work, fail)
    elif link.node is not None:
        octets = live_request()
    elif random.getrandbits(1):
        octets = b"".join([octets_of(some_section()) for _ in range(random.randrange(5))])
    else:
        octets = wire10.message(
            bytes(random.choice((0, 1, 40, 500, 3000))), random.choice((None, True)),
            random.choice((None, 1, 9000)), random.choice((None, "q", "/queues/r", some_text())),
            random.choice((None, "s", "a.b")), random.choice((None, b"guest", b"x")),
            random.choice((None, {"k": some_value(1)})),
        )  # fmt: skip
    first = not link._amid
    return wire10.transfer(
        octets, max(0, session.due_id) if first else None, link.handle, session.channel,
        random.choice((None, True, False)), random.choice((None, None, True)),
        b"t" if first else None, aborted=random.choice((None,) * 9 + (True,)),
        state=work and sessions10.state(work),
    )  # fmt: skip


def live_disposition(session):
    tags = []
    entry = session.unsettled.head
    while entry is not None:
        tags.append(entry.tag)
        entry = entry.next
    first = random.choice(tags) if tags else random.randrange(10)
    body = [
        True,
        uint(first),
        random.choice((None, uint(first + 3))),
        random.choice((True, False)),
    ]
    state = some_list(random.choice((0x24, 0x25, 0x26, 0x27, 0x27, 0x23, 0x34)))
    work = some_work(session.connection)
    if work is not None:
        state = sessions10.state(work, random.choice((None, 0x24, 0x24, 0x25, 0x26, 0x27)))
    body.append(random.choice((None, state)))
    return frame(AMQP, session.channel, octets_of(performative.described_value(0x15, *body)))


def live_frame(engine):
    """A frame that this peer might send now."""
    if not engine.sessions:
        return some_frame()
    channel = random.choice(sorted(engine.sessions))
    session = engine.sessions[channel]
    handles = sorted(session.links)
    kind = random.randrange(16)
    if kind == 15:
        return sessions10.coordinator(9, channel)
    if kind < 3 or not handles:
        return live_attach(random.randrange(10), channel)
    if kind == 3:
        return wire10.detach(random.choice(handles), channel, random.choice((None, True)))
    if kind == 4:
        return random.choice((wire10.end(channel), wire10.begin(channel + 1), some_frame()))
    link = session.links[random.choice(handles)]
    if not link.to_peer:
        return live_transfer(session, link)
    if kind < 9:
        return live_disposition(session)
    work = some_work(engine)
    if work is not None and kind == 9:
        return sessions10.acquire(
            work, link.handle, random.choice((0, 1, 5)), link._count, channel
        )
    return wire10.credit(
        link.handle, random.choice((0, 1, 2, 50, 2**32 - 1)), link._count, channel,
        random.choice((None, None, True)), random.choice((None, True)),
    )  # fmt: skip


# --- the ways to bend a session: function(list of frames) ---


def set_octets(frames):
    k = random.randrange(len(frames))
    i = random.randrange(len(frames[k]))
    part = random.choice((b"\0", b"\xff", b"\x7f", bytes([random.choice(CODES)]), some_octets(4)))
    frames[k] = put(frames[k], i, part)


def set_size(frames):
    """Change the size of a frame, or octets that may be one inside of it."""
    k = random.randrange(len(frames))
    i = 0 if random.randrange(4) == 0 else random.randrange(len(frames[k]))
    part = random.choice(SIZES).to_bytes(4, "big")
    frames[k] = put(frames[k], i, part if random.getrandbits(1) else part[3:])


def set_body(frames):
    """Cut, stretch or replace a body; the frame around it stays right."""
    k = random.randrange(len(frames))
    octets = frames[k]
    body = octets[8:]
    i = random.randrange(len(body) + 1)
    choice = random.randrange(4)
    if choice == 0:
        body = body[:i]
    elif choice == 1:
        body = body[:i] + some_octets(random.randrange(1, 20)) + body[i:]
    elif choice == 2:
        body = put(body, i, some_octets(random.randrange(1, 9)))
    else:
        body = body[:i] + octets_of(some_value()) + body[i + random.randrange(9) :]
    frames[k] = reframed(octets, body)


def set_channel(frames):
    k = random.randrange(len(frames))
    channel = random.choice((0, 1, 2, 3, 7, 8, 255, 0xFFFF))
    frames[k] = put(frames[k], 6, channel.to_bytes(2, "big"))


def set_descriptor(frames):
    """Put another performative's descriptor in front of the fields."""
    k = random.randrange(len(frames))
    code = random.choice(tuple(LISTS))
    name = b"amqp:" + LISTS[code][0] + b":list"
    other = random.choice(
        (b"\0\x53" + bytes((code,)), b"\0\x80" + code.to_bytes(8, "big"),
         b"\0\xa3" + bytes((len(name),)) + name, b"\0\0\x53" + bytes((code,)))
    )  # fmt: skip
    frames[k] = reframed(frames[k], other + frames[k][11:])


def widen(frames):
    """An extended header."""
    k = random.randrange(len(frames))
    words = random.randrange(1, 9)
    frames[k] = (
        (len(frames[k]) + 4 * words).to_bytes(4, "big") + bytes((2 + words,)) + frames[k][5:8]
        + some_octets(4 * words) + frames[k][8:]
    )  # fmt: skip


def splice(frames):
    """Go on in the middle of another frame."""
    k = random.randrange(len(frames))
    other = random.choice(random.choice(SESSIONS))
    i = random.randrange(min(len(frames[k]), len(other)))
    frames[k] = frames[k][:i] + other[i:]


def borrow(frames):
    """Put a few frames of another session in."""
    other = random.choice(SESSIONS)
    m = random.randrange(len(other))
    k = random.randrange(len(frames) + 1)
    frames[k:k] = other[m : m + random.randrange(1, 5)]


def make_up(frames):
    """Put in frames that are right as such."""
    k = random.randrange(len(frames) + 1)
    frames[k:k] = [some_frame() for _ in range(random.randrange(1, 4))]


BENDS = (flip_bits, set_octets, set_size, set_body, set_body, set_channel, set_descriptor, widen,
         truncate, insert, repeat, remove, swap, splice, borrow, make_up, make_up)  # fmt: skip


def bend(world):
    """A session with something wrong, from a random state on."""
    frames = list(random.choice(SESSIONS))
    first = random.choice((0, 1, 2, 3, 4, 4, 4, 5, 6, 8))
    rest = frames[first:]
    for _ in range(random.choice((0, 1, 2, 3, 4, 6, 9, 12))):
        if rest and min([len(octets) for octets in rest]):
            random.choice(BENDS)(rest)
            world.bent += 1
    return frames[:first] + rest


# --- rounds ---


class Visitor(Peer):
    """A 1.0 peer on one of the world's spare engines."""

    def vanish(self):
        if not self.gone:
            Peer.vanish(self)
            self.world.engines.remove(self.engine)
            self.world.spare.append(self.engine)

    def check(self):
        """What came is whole frames, none larger than was agreed."""
        octets = self.inbox
        assert b"out of memory" not in octets
        assert len(self.engine.output.later) < 120, "more answers wait than it may cause"
        most = max(512, self.engine.output.frame_max)
        i = 0
        while len(octets) - i >= 8:
            if octets[i : i + 4] == b"AMQP":
                i += 8
                continue
            size = int.from_bytes(octets[i : i + 4], "big")
            assert 8 <= size <= most, (size, most)
            assert octets[i + 4] == 2 and octets[i + 5] < 2
            if size > len(octets) - i:
                break
            i += size
        _, self.inbox = wire10.split(octets)


def visit(world):
    visitor = Visitor(world, world.spare.pop())
    world.peers.append(visitor)
    visitor.engine.open("127.0.0.1", ticks_add(world.broker.now, world.profile["login_ms"]))
    world.run()
    return visitor


def play(world):
    """One round: a few peers at once, each with a session of its own, in pieces of any size."""
    peers = []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        peer = visit(world)
        peer.step = random.choice((0, 0, 0, random.randrange(60, 2000)))
        if random.randrange(30) == 0:
            peer.step = random.choice((1, 7, 30))
        peers.append((peer, bend(world)))

    def between(peer):
        while not peer.gone and random.randrange(3):
            try:
                octets = live_frame(peer.engine)
            except SyntaxFailure:  # values deeper than we write
                octets = some_frame()
            peer.send(octets)
            peer.check()
            world.bent += 1
        if random.randrange(8) == 0:
            disturb(world)
        if random.randrange(40) == 0:
            world.wait(random.choice((250, 3000, 12000, 130000)))

    mingle(peers, Visitor.check, between)
    world.neighbour.take()


def disturb(world):
    """Let the neighbour work with q in the other protocol's words, or q become another queue."""
    broker = world.broker
    if b"q" not in broker.queues or world.neighbour.engine.stalled:
        return
    # On a channel that may be closed for it.
    other = wire.get(2, "q", no_ack=1)
    if random.getrandbits(1):
        properties = wire.properties(headers={"k": 1}, delivery_mode=random.choice((1, 2)))
        other = wire.publish(2, "", "q", "x" * random.choice((0, 10, 1500)), properties)
    if random.randrange(6) == 0:
        # Others may have the object of the queue that was there.
        broker.delete_queue(broker.queues[b"q"])
        for name in (b"other", b"q")[: broker.queue_table.free]:
            if name not in broker.queues:
                broker.declare_queue(name, True, None, False, {})
    world.neighbour.send(wire.open_channel(2) + other + wire.close_channel(2))
    world.neighbour.take()


def idle(broker):
    """Whether no transaction holds anything, and no stored body is under way."""
    chains = broker.store.bodies._chains
    ledger = broker.transactions
    if ledger is not None:
        new = Ledger(broker)
        if (ledger.alive, ledger.messages, ledger.blocks) != (new.alive, new.messages, new.blocks):
            return False
    return chains.free == chains.size


def fuzz(**numbers):
    """Play rounds on one broker with these *numbers* of the profile."""
    world = World(**numbers)
    world.bent = 0
    world.spare = [
        Connection(world.broker, world.access, world.profile, "edge-1", (b"/", b"edge"))
        for _ in range(3)
    ]
    world.neighbour = world.client()
    before = world.free()

    def one(k):
        play(world)
        clear(world)
        assert world.free() == before, (world.free(), before)
        assert world.broker.longest_waiting is None
        assert idle(world.broker), "transactions or bodies are left"
        if k % NEIGHBOUR_EVERY == 0:
            assert world.neighbour.works(), "the neighbour"

    play_rounds(
        40 if MICROPYTHON else 250,
        one,
        lambda: (world.bent, "bent", sorted(world.broker.metrics.snapshot().items())),
    )


def test_bent_sessions_cost_nobody_anything():
    fuzz()


def test_bent_sessions_where_there_is_little_room():
    fuzz(messages=6, blocks=40, deliveries=8, queues=6, bindings=4, consumers=3, exchanges=8,
         routes=2, send_buffer=1536, message_max=2500, channels=3)  # fmt: skip


def test_the_sessions_are_good_ones():
    """As they are, they end with a close that is answered by one without an error."""
    world = World()
    world.bent = 0
    world.spare = [
        Connection(world.broker, world.access, world.profile, "edge-1", (b"/", b"edge"))
    ]
    before = world.free()
    for frames in SESSIONS:
        visitor = visit(world)
        for octets in frames:
            visitor.send(octets)
        found, rest = wire10.split(visitor.inbox)
        assert found[-1] == ["close", 0, []] and not rest, found
        names = [row[0] for row in found if isinstance(row, list)]
        assert names.count("detach") <= 4 and "end" in names, found
        assert "transfer" in names or frames is sessions10.SENDER
        visitor.vanish()
        clear(world)
        assert world.free() == before
