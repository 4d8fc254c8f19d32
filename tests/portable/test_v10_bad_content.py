"""AMQP 1.0 deliveries that are not as they should be, or that do not end."""

import wire
import wire10
from amqp_lite.v10 import performatives as performative
from amqp_lite.v10.frames import AMQP
from amqp_lite.v10.performatives import (
    ACCEPTED,
    REJECTED,
    RELEASED,
    described,
    frame,
    uint,
)
from amqp_lite.v10.values import Described, Typed, write_value
from arena10 import Arena10
from clients10 import ask, deliveries, names, outcomes, sender
from wire10 import message, transfer

SENDER = wire10.attach_sender("up", "q")
INVALID = "connection amqp:invalid-field"
NOT_ALLOWED = "connection amqp:not-allowed"


def section(code, value):
    return write_value(Described(Typed(0x53, code), value))


DATA = section(0x75, b"x")
SEQUENCE = section(0x76, [1])
VALUE = section(0x77, "v")
FOOTER = section(0x78, {})
HEADER = described(performative.HEADER, True)
PROPERTIES = described(performative.PROPERTIES, None, None, None, "s")


def raw_transfer(*fields):
    return frame(AMQP, 0, described(performative.TRANSFER, *fields) + DATA)


def test_first_transfers_that_miss_something():
    arena = Arena10()
    for octets, answer in (
        (raw_transfer(uint(0), None, b"t"), INVALID),
        (raw_transfer(uint(0), uint(0)), INVALID),
        (raw_transfer(uint(0), uint(0), b"t" * 33), INVALID),
        (raw_transfer(uint(0), uint(0), b"t" * 300), INVALID),
        (raw_transfer(uint(0), uint(0), "t"), INVALID),
        (raw_transfer(uint(0), uint(0), b"t" * 32), None),
        (raw_transfer(uint(0), uint(0), b""), None),
    ):
        assert arena.answers(octets, SENDER) == answer, octets
    assert outcomes(arena.found) == [(0, 0, True, ACCEPTED)]


def test_delivery_ids_that_jump():
    arena = Arena10()
    first = SENDER + transfer(DATA, 5)
    for number in (5, 4, 7, 0, 0x80000005, 0xFFFFFFFF):
        assert arena.answers(transfer(DATA, number), first) == NOT_ALLOWED, number
    assert arena.answers(transfer(DATA, 6), first) is None
    # They count over all links of a session, also over one that has ended on our side.
    other = wire10.attach_sender("other", "q", 1) + transfer(DATA, 6, 1)
    assert arena.answers(transfer(DATA, 7), first + other) is None
    stolen = wire10.attach_sender("up", "q", 2) + transfer(DATA, 6) + transfer(DATA, 7)
    assert arena.answers(transfer(DATA, 8, 2), first + stolen) is None
    assert outcomes(arena.found) == [(8, 8, True, ACCEPTED)]
    large = transfer(DATA, 6, more=True)
    large += transfer(section(0x75, b"y" * 8000), None, tag=None, more=True)
    large += transfer(section(0x75, b"y" * 500), None, tag=None) + transfer(DATA, 7, 3)
    assert arena.answers(wire10.attach_sender("x", "q", 3) + large, first) == (
        "link amqp:link:message-size-exceeded"
    )
    assert outcomes(arena.found) == [(7, 7, True, ACCEPTED)]


def test_delivery_ids_wrap_around():
    arena = Arena10()
    for first in (0xFFFFFFFD, 0x3FFFFFFD, 0x7FFFFFFD):
        octets = b"".join([transfer(DATA, first + k & 0xFFFFFFFF) for k in range(6)])
        assert arena.answers(octets, SENDER) is None
        # The range of a disposition may be one around the end.
        numbers = []
        for low, high, settled, state in outcomes(arena.found):
            assert settled and state == ACCEPTED
            numbers += [low + k & 0xFFFFFFFF for k in range((high - low & 0xFFFFFFFF) + 1)]
        assert numbers == [first + k & 0xFFFFFFFF for k in range(6)], numbers


def test_deliveries_within_each_other():
    arena = Arena10()
    half = SENDER + transfer(DATA[:4], 0, more=True, tag=b"one")
    for octets, answer in (
        (transfer(DATA[4:], 1, tag=b"one"), NOT_ALLOWED),
        (transfer(DATA[4:], 1, tag=b"two"), NOT_ALLOWED),
        (transfer(DATA[4:], 0, tag=b"two"), NOT_ALLOWED),
        (transfer(DATA[4:], None, tag=b"two"), NOT_ALLOWED),
        (transfer(DATA[4:], None, tag=b""), NOT_ALLOWED),
        (transfer(DATA[4:], 0, tag=b"one"), None),
        (transfer(DATA[4:], None, tag=b"one"), None),
        (transfer(DATA[4:], None, tag=None), None),
    ):
        assert arena.answers(octets, half) == answer, octets
        if answer is None:
            assert outcomes(arena.found) == [(0, 0, True, ACCEPTED)]
    # Of two links they may be.
    other = wire10.attach_sender("other", "q", 1) + transfer(DATA[:3], 1, 1, more=True)
    octets = transfer(DATA[4:], None, tag=None) + transfer(DATA[3:], None, 1, tag=None)
    assert arena.answers(octets, half + other) is None
    assert outcomes(arena.found) == [(0, 1, True, ACCEPTED)]


def test_aborted_deliveries():
    arena = Arena10()
    half = SENDER + transfer(DATA[:4], 0, more=True)
    for settled in (None, False, True):
        for more in (None, True):
            octets = transfer(b"rest", None, tag=None, aborted=True, settled=settled, more=more)
            assert arena.answers(octets + transfer(DATA, 1), half) is None
            assert outcomes(arena.found) == [(1, 1, True, ACCEPTED)], (settled, more)
    octets = transfer(b"all", 0, aborted=True, more=True) + transfer(DATA, 1)
    assert arena.answers(octets, SENDER) is None
    assert outcomes(arena.found) == [(1, 1, True, ACCEPTED)]


def test_messages_without_an_end():
    arena = Arena10()
    peer = arena.peer()
    sender(peer, "q")
    found = ask(peer, transfer(DATA, 0, more=True))
    for _ in range(200):
        if names(found):
            break
        found = ask(peer, transfer(section(0x75, b"y" * 90), None, tag=None, more=True))
    assert wire10.error_of(found[-1]) == "amqp:link:message-size-exceeded", found
    for _ in range(50):
        assert ask(peer, transfer(DATA, None, tag=None, more=True)) == []
    assert peer.loops[0].works() and peer.loops[1].works()
    arena.leave(peer)
    # Of nothing at all, it costs nothing.
    octets = transfer(DATA, 0, more=True) + transfer(b"", None, tag=None, more=True) * 500
    assert arena.answers(octets, SENDER) is None and arena.found == []
    # Nor when nobody wants it.
    octets = (
        transfer(DATA[1:], 0, more=True) + transfer(b"y" * 900, None, tag=None, more=True) * 50
    )
    assert arena.answers(octets, SENDER) is None and arena.found == []


def test_messages_that_are_none():
    arena = Arena10()
    for octets in (
        b"",  # no section
        FOOTER,
        PROPERTIES + HEADER + DATA,  # in another order
        section(0x74, {}) + PROPERTIES + DATA,
        HEADER + HEADER + DATA,
        DATA + SEQUENCE,  # two bodies
        DATA + VALUE,
        VALUE + VALUE,
        SEQUENCE + DATA,
        DATA + HEADER,  # behind the body
        DATA + section(0x74, {}),
        DATA + FOOTER + DATA,
        DATA + FOOTER + FOOTER,
        FOOTER + DATA,
        DATA[:-1],
        DATA + b"\0",
        DATA + b"\0\x53",
        DATA + b"x",
        b"\x40",
        b"\0\x53\x79\x45",  # no such section
        b"\0\xa3\x10amqp:data:binarx\xa0\1x",
        b"\0\0\x53\x75\x40\xa0\1x",
        section(0x75, "text"),
        section(0x76, {}),
        section(0x72, []) + DATA,
        section(0x78, []),
        b"\0\x53\x70\xc0\xff\1\x41" + DATA,
        b"\0\x53\x75\xb0\xff\xff\xff\xffx",  # four gigabytes
        b"\0\x53\x72\xd1\xff\xff\xff\xff\0\0\0\0" + DATA,
        b"\0\x53\x74\xd1\0\0\0\x04\xff\xff\xff\xff" + DATA,
        b"\0\x53\x74\xd1\0\0\0\x0d\0\0\0\2\x40\xf0\0\0\0\5\xff\xff\xff\xff\x40" + DATA,
        b"\0\x53\x70" + b"\xc0\3\2\x41\x70" + DATA,
        described(performative.HEADER, 5) + DATA,
        described(performative.PROPERTIES, None, None, 7) + DATA,
        section(0x74, {"k": "x" * 2000}) + DATA,  # longer than what is here at once
    ):
        assert arena.answers(transfer(octets, 0) + transfer(DATA, 1), SENDER) is None, octets
        assert outcomes(arena.found) == [(0, 0, True, REJECTED), (1, 1, True, ACCEPTED)], octets
        conditions = [
            row[2][4].value[0].value[0].text for row in arena.found
            if row[0] == "disposition" and row[2][4].descriptor == REJECTED
        ]  # fmt: skip
        assert len(conditions) == 1
        assert conditions[0] in (
            "amqp:decode-error", "amqp:invalid-field", "amqp:resource-limit-exceeded"
        ), (octets, conditions)  # fmt: skip
        # The same in pieces.
        if octets:
            pieces = b"".join([
                transfer(octets[k : k + 9], None if k else 0, tag=None if k else b"t",
                         more=k + 9 < len(octets)) for k in range(0, min(len(octets), 90), 9)
            ])  # fmt: skip
            assert arena.answers(pieces, SENDER) is None, octets
            assert [row[3] for row in outcomes(arena.found)] in ([REJECTED], []), octets


def test_messages_that_are_odd():
    """What the specification allows is passed on, whatever one may think of it."""
    arena = Arena10()
    for octets in (
        DATA * 20,
        SEQUENCE * 3 + FOOTER,
        VALUE + FOOTER,
        section(0x75, b""),
        section(0x77, None),
        section(0x77, Described(Typed(0x53, 1), [1])),
        section(0x76, []),
        described(performative.HEADER) + DATA,
        described(performative.HEADER, False, Typed(0x50, 255), uint(0xFFFFFFFF), True, uint(0))
        + DATA,
        section(0x72, {}) + section(0x74, {}) + DATA,
        section(0x77, "v" * 300),
    ):
        peer = arena.peer()
        sender(peer, "q")
        assert outcomes(ask(peer, transfer(octets, 0))) == [(0, 0, True, ACCEPTED)], octets
        found = ask(peer, wire10.attach_receiver("down", "q", 1) + wire10.credit(1, 1))
        assert [row[2] for row in deliveries(found)] == [octets], octets
        ask(peer, wire10.disposition(deliveries(found)[0][0]))
        arena.leave(peer)


def test_messages_for_nobody_on_a_link_without_an_address():
    arena = Arena10()
    anonymous = wire10.attach_sender("any", None)
    for octets, state in (
        (DATA, REJECTED),
        (message(b"x", to="/queues/none"), REJECTED),
        (message(b"x", to="/queues/%"), REJECTED),
        (message(b"x", to="amqp://host/q"), REJECTED),
        (message(b"x", to="/exchanges/amq.topic/nobody"), RELEASED),
        (message(b"x", to="q", user=b"somebody"), REJECTED),
        (message(b"x", to="q"), ACCEPTED),
    ):
        assert arena.answers(transfer(octets, 0), anonymous) is None
        assert [row[3] for row in outcomes(arena.found)] == [state], octets


# --- memory that half messages hold ---


def half(peer, size, number=0, handle=0, channel=0):
    """Begin a message of *size* octets that goes on."""
    octets = section(0x75, bytes(6000))
    parts = [octets[k : k + 500] for k in range(0, size, 500)]
    found = ask(peer, b"".join([
        transfer(parts[k], None if k else number, handle, channel, tag=None if k else b"t",
                 more=True) for k in range(len(parts))
    ]))  # fmt: skip
    assert found == [], found


def rest(peer, size, handle=0, channel=0):
    """The end of it, behind its first *size* octets."""
    octets = section(0x75, bytes(6000))
    return b"".join([
        transfer(octets[k : k + 500], None, handle, channel, tag=None, more=k + 500 < len(octets))
        for k in range(size, len(octets), 500)
    ])  # fmt: skip


SMALL = {"blocks": 80, "messages": 20}  # 10240 octets


def test_a_message_whose_sender_stalls_is_given_up():
    arena = Arena10()
    peer = arena.peer()
    sender(peer, "q")
    half(peer, 3000)
    held = arena.before["blocks"] - arena.world.broker.pool.available
    assert held > 20
    arena.wait(110000, peer)
    assert arena.world.broker.pool.available == arena.before["blocks"] - held
    arena.wait(20000, peer)
    assert arena.world.broker.pool.available == arena.before["blocks"]
    assert arena.world.broker.promised == 0
    # The link goes on: what comes of it is passed over, and then refused.
    assert peer.loops[0].works() and peer.loops[1].works()
    found = ask(peer, rest(peer, 3000))
    assert outcomes(found) == [(0, 0, True, REJECTED)]
    row = [row for row in found if row[0] == "disposition"][0]
    assert row[2][4].value[0].value[0].text == "amqp:resource-limit-exceeded"
    arena.leave(peer)


def test_a_message_that_goes_on_slowly_is_not_given_up():
    arena = Arena10()
    peer = arena.peer()
    sender(peer, "q")
    half(peer, 1000)
    for k in range(1000, 6000, 500):
        arena.wait(100000)
        octets = section(0x75, bytes(6000))
        assert ask(peer, transfer(octets[k : k + 500], None, tag=None, more=True)) == []
    octets = transfer(section(0x75, bytes(6000))[6000:], None, tag=None)
    assert outcomes(ask(peer, octets)) == [(0, 0, True, ACCEPTED)]
    arena.leave(peer)


def test_two_half_messages_do_not_wait_for_each_other_for_ever():
    arena = Arena10(**SMALL)
    first = arena.peer()
    second = arena.peer()
    for peer in (first, second):
        sender(peer, "q")
        half(peer, 4500)
    # The first waits from now on, and the second a second later.
    first.send(rest(first, 4500))
    assert first.engine.stalled
    arena.world.wait(1000)
    second.send(rest(second, 4500))
    assert second.engine.stalled
    arena.world.wait(9500)
    assert first.engine.stalled and second.engine.stalled
    assert arena.world.broker.longest_waiting is first.engine.sessions[0].links[0]
    arena.world.wait(2000)
    assert not first.engine.stalled and not second.engine.stalled
    assert outcomes(ask(first, b"")) == [(0, 0, True, ACCEPTED)]
    assert outcomes(ask(second, b"")) == [(0, 0, True, REJECTED)]
    # The second tries once more.
    arena.world.broker.queues[b"q"].purge()
    half(second, 4500, 1)
    assert outcomes(ask(second, rest(second, 4500))) == [(1, 1, True, ACCEPTED)]
    for peer in (first, second):
        assert peer.loops[0].works() and peer.loops[1].works()
        peer.vanish()
    arena.leave(second)


def test_the_one_that_waits_alone_goes_on_waiting():
    """For consumers, as a publisher does that found no memory for the whole of it."""
    arena = Arena10(**SMALL)
    other = arena.world.client()
    peer = arena.peer()
    sender(peer, "q")
    half(peer, 4500)
    other.send(wire.publish(1, "", "q", bytes(4700)))
    peer.send(rest(peer, 4500))
    assert peer.engine.stalled
    arena.wait(200000)
    assert peer.engine.stalled and not peer.gone and not peer.inbox
    other.send(wire.purge_queue(1, "q"))
    assert outcomes(ask(peer, b"")) == [(0, 0, True, ACCEPTED)]
    other.vanish()
    arena.leave(peer)


def test_two_links_of_one_connection():
    """What would end the first message is behind what waits for its memory."""
    arena = Arena10(**SMALL)
    for channel, handle in ((0, 1), (1, 0)):
        peer = arena.peer()
        sender(peer, "q")
        ask(peer, wire10.attach_sender("other", "q", handle, channel))
        half(peer, 5500)
        half(peer, 3500, 1 - channel, handle, channel)
        peer.send(rest(peer, 3500, handle, channel) + rest(peer, 5500))
        assert peer.engine.stalled
        arena.world.wait(9000)
        assert peer.engine.stalled and arena.neighbour.peer.engine.stalled is False
        arena.world.wait(2000)
        assert not peer.engine.stalled
        found = ask(peer, b"")
        states = {(row[1], row[2][1]): row[2][4].descriptor for row in found
                  if row[0] == "disposition"}  # fmt: skip
        assert states == {(0, 0): REJECTED, (channel, 1 - channel): ACCEPTED}, states
        assert peer.loops[0].works() and peer.loops[1].works()
        arena.leave(peer)


def test_a_transfer_that_waits_for_what_its_connection_holds():
    """Its dispositions are behind it: nobody but itself can give it memory."""
    arena = Arena10(blocks=40, message_max=2000)
    peer = arena.peer()
    sender(peer, "q")
    for k in range(2):
        ask(peer, transfer(section(0x75, bytes(1900)), k))
    found = ask(peer, wire10.attach_receiver("down", "q", 1) + wire10.credit(1, 5))
    assert len(deliveries(found)) == 2
    peer.send(transfer(section(0x75, bytes(1900)), 2) + wire10.disposition(0, 1))
    assert peer.engine.stalled
    arena.wait(110000)
    assert not peer.gone
    arena.wait(20000)
    assert peer.gone
    arena.leave(peer)


def test_rejections_that_nobody_reads():
    """They are bounded by the send buffer: no more transfers are read than answers find room."""
    arena = Arena10()
    peer = arena.peer()
    sender(peer, "q")
    peer.reading = False
    octets = b"".join([transfer(b"\x40", k) for k in range(400)])
    peer.send(octets)
    assert peer.engine.stalled and peer.unsent()
    assert len(peer.engine.output.later) < 4
    assert arena.neighbour.works()
    peer.reading = True
    found = ask(peer, b"")
    while peer.unsent() or peer.engine.stalled:
        found += ask(peer, b"")
    assert [row[1] for row in outcomes(found)] == list(range(400))
    arena.leave(peer)


def test_acceptances_that_nobody_reads():
    arena = Arena10()
    peer = arena.peer()
    ask(peer, wire10.attach_sender("any", None))
    peer.reading = False
    # Every second one settled, so that they do not become one range.
    for first in range(0, 300, 20):
        peer.send(b"".join([
            transfer(message(b"x", to="/queues/q"), k, settled=k & 1 == 1)
            for k in range(first, first + 20)
        ]))  # fmt: skip
        arena.world.broker.queues[b"q"].purge()
        arena.world.run()
    assert arena.neighbour.works()
    assert len(peer.engine.sessions[0]._accepted) < 60
    peer.reading = True
    found = ask(peer, b"")
    while peer.unsent() or peer.engine.stalled:
        arena.world.broker.queues[b"q"].purge()
        found += ask(peer, b"")
    assert [row[1] for row in outcomes(found)] == list(range(0, 300, 2))
    arena.leave(peer)
