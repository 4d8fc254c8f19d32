"""What a peer that has put a token may send, by the grammar or nearly: nothing escapes, and
nothing stays behind.

ROUNDS and SEED in the environment: see rounds.py.
"""

import random

import wire10
from amqp_lite.v10.performatives import TRANSFER, described, described_value, frame, uint
from amqp_lite.v10.servicebus import deferred
from amqp_lite.v10.servicebus.envelope import number_of
from amqp_lite.v10.values import Described, Symbol, Typed
from clients10 import ask, take
from rounds import play_rounds
from stored import SMALL
from test_v10_fuzz import (
    live_disposition,
    octets_of,
    some_octets,
    some_section,
    some_text,
    some_value,
)
from test_v10_servicebus import UUID, attach_second, bus, token, world

FRAMES = 60


def some_token():
    text = token(random.choice(("", "q")))
    if random.getrandbits(1):
        i = random.randrange(len(text))
        text = text[:i] + random.choice(("", "%", "&", "=", "x", "%zz", "\u00fc")) + text[i + 1 :]
    return random.choice((text, text, some_value()))


def some_locks(session):
    found = [session.tag + tag.to_bytes(4, "big") for tag in session.locks]
    found += [row[1] for row in deferred.rows if row[1] is not None]
    if not found or random.randrange(5) == 0:
        return random.choice((Typed(0xE0, [some_octets(16)], b"\x98"), [], some_value(1)))
    first = random.randrange(len(found))
    return Typed(0xE0, found[first : first + random.choice((1, 1, 2))], b"\x98")


def some_body(session):
    body = {}
    for key in (
        "from-sequence-number", "message-count", "lock-tokens", "sequence-numbers",
        "receiver-settle-mode", "disposition-status", "deadletter-reason",
    ):  # fmt: skip
        if random.randrange(9) == 0:
            body[key] = some_value(1)
        elif key == "lock-tokens":
            body[key] = some_locks(session)
        elif key == "sequence-numbers":
            numbers = [number_of(row[0]) for row in deferred.rows]
            body[key] = random.choice((numbers[:1], numbers[:2], numbers[:1], [2**62], []))
        elif key == "disposition-status":
            body[key] = random.choice(("completed", "abandoned", "suspended", "defered", "x"))
        elif key == "deadletter-reason":
            body[key] = random.choice((None, "", "why"))
        else:
            body[key] = random.choice((0, 1, 5, -1, 2**62, -(2**63)))
    return body


def some_request(session, is_token):
    operation = random.choice(
        ("peek-message", "renew-lock", "receive-by-sequence-number", "update-disposition", "x")
    )
    properties = {"operation": "put-token" if is_token else "com.microsoft:" + operation}
    if random.randrange(20) == 0:
        properties = some_value()
    number = random.choice((UUID, UUID, None, some_value(1)))
    reply = random.choice((None, None, "back", "back", some_text()))
    body = some_token() if is_token else some_body(session)
    return b"".join((
        octets_of(described_value(0x73, number, None, None, None, reply)),
        octets_of(Described(Typed(0x53, 0x74), properties)),
        octets_of(Described(Typed(0x53, 0x77), body)),
    ))  # fmt: skip


def some_message():
    if random.randrange(3) == 0:
        return b"".join([octets_of(some_section()) for _ in range(random.randrange(5))])
    octets = wire10.message(
        some_octets(random.choice((0, 5, 400))), random.choice((None, True, False)),
        random.choice((None, 1, 9000)), None, random.choice((None, "s")),
        headers=random.choice((None, {"k": some_value(1)}, {"DeadLetterReason": 7})),
    ) if random.getrandbits(1) else wire10.message(b"x" * 40)  # fmt: skip
    if random.randrange(3) == 0:
        name = random.choice(("x-opt-scheduled-enqueue-time", "x-opt-sequence-number", "x"))
        octets = octets_of(Described(Typed(0x53, 0x72), {Symbol(name): some_value(1)})) + octets
    return octets


def some_batch():
    octets = b""
    for _ in range(random.randrange(4)):
        octets += octets_of(Described(Typed(0x53, 0x75), some_message()))
    return octets + (octets_of(some_section()) if random.randrange(4) == 0 else b"")


def some_transfer(session, link):
    layout = random.choice((0, 0x80013700, 1))
    if link.node is not None:
        octets = some_request(session, link.node == "$cbs")
    else:
        octets = some_batch() if layout == 0x80013700 else some_message()
    first = not link._amid
    return frame(0, 0, described(
        TRANSFER, uint(link.handle), uint(max(0, session.due_id)) if first else None,
        b"t" if first else None, uint(layout), random.choice((None, None, True)),
        random.choice((None,) * 6 + (True,)), None, None, None,
        random.choice((None,) * 20 + (True,)),
    ) + octets)  # fmt: skip


LINKS = (
    lambda: wire10.attach_sender("up", "amqps://h/q", 0), lambda: attach_second("down", "q", 1),
    lambda: attach_second("all", "q", 2, settle=1), lambda: wire10.attach_sender("m", "$cbs", 3),
    lambda: wire10.attach_receiver("back", "$cbs", 4),
    lambda: wire10.attach_sender("m", "q/$management", 5),
    lambda: wire10.attach_receiver("back", "q/$management", 6),
    lambda: attach_second("dead", "q/$DeadLetterQueue", 7),
)  # fmt: skip


def some_frame(session):
    links = session.links
    handle = random.randrange(len(LINKS))
    if handle not in links:
        return LINKS[handle]()
    link = links[handle]
    kind = random.randrange(20)
    if kind == 0:
        return wire10.detach(handle)
    if not link.to_peer:
        return some_transfer(session, link)
    if kind < 12:
        return live_disposition(session)
    return wire10.credit(
        handle, random.choice((0, 1, 5, 50)), link._count, drain=random.choice((None, True))
    )


def play(made):
    peer = bus(made)
    ask(peer, b"".join([link() for link in LINKS]))
    ask(peer, wire10.credit(1, 9) + wire10.credit(4, 50) + wire10.credit(6, 50))
    for _ in range(FRAMES):
        if peer.gone or peer.engine.deaf or not peer.engine.sessions:
            break
        ask(peer, some_frame(peer.engine.sessions[0]))
        if random.randrange(10) == 0:
            made.wait(random.choice((1000, 20000)))
    take(peer)
    peer.vanish()
    made.run()


def test_peers_with_a_token():
    made = world(**SMALL)
    keys = ("blocks", "messages", "entries", "promised", "consumers", "exchanges")
    free = made.free()

    def one(_):
        play(made)
        for row in list(deferred.rows):
            deferred.rows.remove(row)
            row[0].queue.settle(row[0])
        for name in made.broker.queues:
            made.broker.queues[name].purge()
        made.wait(2000)
        left = made.free()
        assert [left[key] for key in keys] == [free[key] for key in keys]

    play_rounds(6, one)
