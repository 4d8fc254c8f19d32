"""AMQP 1.0 links and sessions at their limits: handles, names, credit, windows, flows, storms."""

import struct

import wire
import wire10
from amqp_lite.v10 import performatives as performative
from amqp_lite.v10.frames import AMQP
from amqp_lite.v10.performatives import (
    ACCEPTED,
    MODIFIED,
    RECEIVED,
    described,
    described_value,
    frame,
    uint,
)
from amqp_lite.v10.values import Described, Symbol, Typed, write_value
from arena10 import Arena10
from clients10 import ask, deliveries, names, outcomes, receiver, sender, session
from wire10 import message, transfer

INVALID = "connection amqp:invalid-field"
NOT_ALLOWED = "connection amqp:not-allowed"
MOST = 0xFFFFFFFF


def attach(*fields):
    """Fields of an attach from the first on."""
    return frame(AMQP, 0, described(performative.ATTACH, *fields))


def terminus(code, *fields):
    return described_value(code, *fields)


SOURCE = terminus(performative.SOURCE, "q")
TARGET = terminus(performative.TARGET, "q")


def test_handles():
    arena = Arena10()
    sender = wire10.attach_sender("up", "q")
    for octets, answer in (
        (wire10.attach_sender("l", "q", 16), "connection amqp:connection:framing-error"),
        (wire10.attach_sender("l", "q", MOST), "connection amqp:connection:framing-error"),
        (wire10.attach_receiver("l", "q", 16), "connection amqp:connection:framing-error"),
        (wire10.attach_sender("l", "q"), "session amqp:session:handle-in-use"),
        (wire10.attach_receiver("l", "q"), "session amqp:session:handle-in-use"),
        (transfer(message(b"x"), 0, 7), "session amqp:session:unattached-handle"),
        (transfer(message(b"x"), 0, MOST), "session amqp:session:unattached-handle"),
        (wire10.credit(7, 1), "session amqp:session:unattached-handle"),
        (wire10.detach(7), "session amqp:session:unattached-handle"),
        (wire10.detach(0) + wire10.detach(0), "session amqp:session:unattached-handle"),
    ):
        assert arena.answers(octets, sender) == answer, octets
    assert arena.answers(wire10.attach_sender("l", "q", 15), sender) is None


def test_as_many_handles_as_there_are():
    arena = Arena10()
    octets = b"".join([wire10.attach_sender("l%d" % k, "q", k) for k in range(8)])
    octets += b"".join([wire10.attach_sender("l%d" % k, "q", k) for k in range(10, 16)])
    assert arena.answers(octets) is None
    assert names(arena.found).count("attach") == 14


def test_a_link_of_the_same_name_takes_over():
    """Also in another session; but not from a link of the other direction."""
    for channel in (0, 1):
        for to_peer in (False, True):
            arena = Arena10()
            peer = arena.peer()
            make = wire10.attach_receiver if to_peer else wire10.attach_sender
            ask(peer, wire10.attach_sender("l", "q", 0) + wire10.attach_receiver("l", "q", 1))
            found = ask(peer, make("l", "q", 2, channel))
            assert names(found)[:2] == ["detach", "attach"], found
            assert wire10.error_of(found[0]) == "amqp:link:stolen"
            assert found[0][1] == 0 and found[0][2][0] == (1 if to_peer else 0)
            # The other one lives, and the new one does.
            if to_peer:
                ask(peer, transfer(message(b"x"), 0, 0))
                got = deliveries(ask(peer, wire10.credit(2, 5, 0, channel)))
            else:
                ask(peer, transfer(message(b"x"), 0, 2, channel))
                got = deliveries(ask(peer, wire10.credit(1, 5)))
            assert [row[2] for row in got] == [message(b"x")]
            ask(peer, wire10.disposition(got[0][0], channel=channel if to_peer else 0))
            assert peer.loops[0].works() and peer.loops[1].works()
            arena.leave(peer)


def attach_unsettled(entries, incomplete, claimed=None):
    """The attach of a sender with so many entries, tag -> null, in `unsettled`."""
    octets = b"\xd1" + struct.pack(">II", 4 + 3 * entries, 2 * entries) + b"\xa0\0\x40" * entries
    octets = (
        b"\xa1\1l\x43\x42\x40\x40" + write_value(SOURCE) + write_value(TARGET) + octets
        + (b"\x41" if incomplete else b"\x42") + b"\x43"
    )  # fmt: skip
    body = b"\0\x53\x12\xd0" + struct.pack(">II", 4 + len(octets), 10) + octets
    return struct.pack(">IBBH", claimed or 8 + len(body), 2, AMQP, 0) + body


def test_unsettled_maps():
    """Nothing is resumed here: they are passed over, and the answer has none."""
    arena = Arena10(receive_buffer=8000, send_buffer=9000)
    decode = "connection amqp:decode-error"
    for entries, answer in ((0, None), (1, None), (1000, None), (1200, decode), (2000, decode)):
        for incomplete in (False, True):
            assert arena.answers(attach_unsettled(entries, incomplete)) == answer, entries
            if answer is None:
                assert names(arena.found) == ["attach", "flow"]
                assert arena.found[0][2][7:9] == [None, None]
    # Where the receive buffer is smaller than the map, or than ten thousand entries.
    arena = Arena10()
    octets = attach_unsettled(400, True)
    assert arena.answers(octets) == "connection amqp:resource-limit-exceeded"
    octets = attach_unsettled(400, True, 60000)
    assert arena.answers(octets) == "connection amqp:connection:framing-error"


def test_attaches_with_fields_that_cannot_be():
    arena = Arena10()
    for fields, answer in (
        (("l", uint(0), False, None, None, SOURCE, TARGET), "link amqp:invalid-field"),
        (("l", uint(0), False, Typed(0x50, 9), None, SOURCE, TARGET, None, None, uint(0)),
         "link amqp:invalid-field"),
        (("l", uint(0), True, Typed(0x50, 3), None, SOURCE, TARGET), "link amqp:invalid-field"),
        (("l", uint(0), True, None, Typed(0x50, 2), SOURCE, TARGET), "link amqp:invalid-field"),
        (("l", uint(0), True, Typed(0x50, 255), Typed(0x50, 255), SOURCE, TARGET),
         "link amqp:invalid-field"),
        (("l", uint(0), True), "link amqp:not-found"),  # no source: which it had is asked
        (("l", uint(0), False, None, None, SOURCE, None, None, None, uint(0)),
         "link amqp:invalid-field"),
        (("l", uint(0), True, None, None, TARGET, TARGET), "link amqp:invalid-field"),
        (("l", uint(0), True, None, None, SOURCE, SOURCE), "link amqp:invalid-field"),
        (("l", uint(0), True, None, None, terminus(performative.SOURCE), TARGET),
         "link amqp:invalid-field"),
        (("l", uint(0), True, None, None, terminus(ACCEPTED), TARGET), "link amqp:invalid-field"),
        (("l", uint(0), True, None, None, terminus(performative.SOURCE, "q", None, None, None,
         True), TARGET), "link amqp:invalid-field"),  # dynamic, with an address
        (("l", uint(0), True, None, None, Described(Typed(0x53, 0x28), 5), TARGET),
         "connection amqp:decode-error"),
        (("l", uint(0), True, None, None, terminus(performative.SOURCE, "q", "x"), TARGET),
         "link amqp:invalid-field"),
        (("l", uint(0)), INVALID),
        ((None, uint(0), True), INVALID),
        (("l", None, True), INVALID),
        (("l", uint(0), None), INVALID),
        (("l", uint(0), True, uint(9)), INVALID),
    ):  # fmt: skip
        assert arena.answers(attach(*fields)) == answer, fields


def test_transfers_against_the_direction_of_the_link():
    arena = Arena10()
    down = wire10.attach_receiver("down", "q")
    assert arena.answers(transfer(message(b"x"), 0), down) == NOT_ALLOWED


def test_transfers_beyond_the_credit():
    arena = Arena10()
    peer = arena.peer()
    sender(peer, "q")
    # It gets new credit before it runs out, so that somebody has to take it away.
    link = peer.engine.sessions[0].links[0]
    link.credit = 1
    link._grant = lambda: None
    two = transfer(message(b"a"), 0) + transfer(message(b"b"), 1) + transfer(message(b"c"), 2)
    assert arena.answers(two, peer=peer) == "link amqp:link:transfer-limit-exceeded"
    assert outcomes(arena.found) == [(0, 0, True, ACCEPTED)]


def test_transfers_beyond_the_window():
    arena = Arena10()
    peer = arena.peer()
    sender(peer, "q")
    peer.engine.sessions[0]._incoming_window = 1
    peer.engine.sessions[0].flow = lambda: None
    two = transfer(message(b"a"), 0) + transfer(message(b"b"), 1)
    assert arena.answers(two, peer=peer) == "session amqp:session:window-violation"
    # Likewise on a link that has ended.
    peer = arena.peer()
    sender(peer, "q")
    peer.engine.sessions[0].cancel(peer.engine.sessions[0].links[0], performative.InvalidField(""))
    peer.engine.sessions[0]._incoming_window = 0
    assert arena.answers(two, peer=peer) == "session amqp:session:window-violation"


def test_dispositions_of_what_is_not_there():
    arena = Arena10()
    peer = arena.peer()
    sender(peer, "q")
    ask(peer, b"".join([transfer(message(b"%d" % k), k) for k in range(4)]))
    got = receiver(peer, "q", 4)
    assert len(got) == 4
    queue = arena.world.broker.queues[b"q"]
    for octets in (
        wire10.disposition(100),  # never sent
        wire10.disposition(4, 0x1FFFFFFF),
        wire10.disposition(0, 3, None, False),  # that says nothing
        wire10.disposition(0, 3, RECEIVED, False, 0, uint(0), Typed(0x44)),
        # The peer's own deliveries, which are settled.
        frame(AMQP, 0, described(performative.DISPOSITION, False, uint(0), uint(9), True)),
    ):
        assert ask(peer, octets) == [], octets
        assert queue.unacked == 4
    # All there is, by a range that is as long as one can be; and once more, otherwise.
    assert ask(peer, wire10.disposition(0, 0x1FFFFFFF)) == []
    assert queue.unacked == 0
    assert ask(peer, wire10.disposition(0, 3, MODIFIED, True, 0, True)) == []
    assert queue.waiting() == 0
    assert peer.loops[0].works() and peer.loops[1].works()
    arena.leave(peer)


def test_dispositions_that_cannot_be():
    arena = Arena10()
    for octets in (
        wire10.disposition(3, 2),  # last before first
        wire10.disposition(0, MOST),  # likewise, in serial numbers
        wire10.disposition(5, 4, MODIFIED),
        wire10.disposition(0, 3, performative.SOURCE),  # no state
        wire10.disposition(0, 0, performative.ERROR, True, 0, Symbol("x")),
    ):
        assert arena.answers(octets) == INVALID, octets
    body = described(
        performative.DISPOSITION, True, uint(0), None, True, Described(Symbol("x"), 5)
    )
    assert arena.answers(frame(AMQP, 0, body)) == "connection amqp:decode-error"


def test_credit_without_an_end():
    """Messages that wait are all that comes of it."""
    arena = Arena10()
    peer = arena.peer()
    sender(peer, "q")
    ask(peer, b"".join([transfer(message(b"%d" % k), k) for k in range(10)]))
    down = wire10.attach_receiver("down", "q", 1)
    found = ask(peer, down + wire10.credit(1, MOST) * 30)
    assert len(deliveries(found)) == 10
    assert names(found) == ["attach"] + ["transfer"] * 10
    ask(peer, wire10.disposition(0, 9))
    # A delivery-count of the peer's own invention leaves no credit, or some.
    for count in (0, 5, 11, 0x3FFFFFFF, MOST):
        assert ask(peer, wire10.credit(1, 7, count)) == []
    assert peer.loops[0].works() and peer.loops[1].works()
    arena.leave(peer)


def echo(handle=None, **options):
    if handle is None:
        return wire10.flow(0, uint(0), uint(9), uint(0), uint(9), *[None] * 5, True)
    return wire10.credit(handle, 5, echo=True, **options)


def test_echoes_are_answered_once_a_poll():
    arena = Arena10()
    peer = arena.peer()
    ask(peer, wire10.attach_sender("up", "q", 0) + wire10.attach_receiver("down", "q", 1))
    for octets in (echo(), echo(0), echo(1)):
        assert names(ask(peer, octets)) == ["flow"]
        # What the receive buffer holds at once is one poll.
        many = 1000 // len(octets)
        found = ask(peer, octets * many)
        assert names(found) == ["flow"], found
        assert len(ask(peer, octets * many * 10)) <= 12
    found = ask(peer, echo(1) * 3 + echo(0) * 3 + echo() * 3)
    assert sorted([row[2][4] if len(row[2]) > 4 else -1 for row in found]) == [-1, 0, 1]
    # Ours never want one: two brokers would go on for ever.
    assert all(len(row[2]) <= 9 or not row[2][9] for row in found)
    arena.leave(peer)


def test_an_echo_that_finds_no_room_is_answered_later():
    arena = Arena10()
    peer = arena.peer()
    ask(peer, wire10.attach_receiver("down", "q", 1))
    peer.reading = False
    for _ in range(200):
        peer.send(echo(1))
    assert not peer.engine.output.later or len(peer.engine.output.later) < 4
    assert arena.neighbour.works()
    peer.reading = True
    assert set(names(ask(peer, b""))) == {"flow"}
    arena.leave(peer)


def test_drain_on_and_off():
    arena = Arena10()
    peer = arena.peer()
    ask(peer, wire10.attach_receiver("down", "q", 1))
    # The last one said counts, once a poll.
    found = ask(peer, (wire10.credit(1, 5, drain=True) + wire10.credit(1, 5)) * 5)
    assert found == []
    found = ask(peer, (wire10.credit(1, 5) + wire10.credit(1, 5, drain=True)) * 5)
    assert names(found) == ["flow"] and found[0][2][4:9] == [1, 5, 0, 0, True]
    count = 5
    for _ in range(100):
        found = ask(peer, wire10.credit(1, 3, count, drain=True))
        count += 3
        assert names(found) == ["flow"] and found[0][2][4:9] == [1, count, 0, 0, True]
        assert ask(peer, wire10.credit(1, 3, count)) == []
    # It did no harm: the credit it gave last is there.
    sender(peer, "q")
    found = ask(peer, transfer(message(b"x"), 0))
    assert len(deliveries(found)) == 1
    arena.leave(peer)


def attach_dynamic(k, handle):
    return wire10.attach_receiver("d%d" % k, None, handle, dynamic=True)


def test_a_storm_of_dynamic_nodes():
    arena = Arena10()  # of 16 queues one is q, and one the neighbour's
    peer = session(arena.world)
    found = ask(peer, b"".join([attach_dynamic(k, k) for k in range(6)]))
    assert names(found) == ["attach"] * 4 + ["attach", "detach"] * 2
    assert [wire10.error_of(row) for row in found if row[0] == "detach"] == [
        "amqp:resource-limit-exceeded"] * 2  # fmt: skip
    assert arena.world.broker.queue_table.free == arena.before["queues"] - 4
    # Again and again nothing is left of those that were refused.
    for k in range(50):
        found = ask(peer, wire10.detach(4) + attach_dynamic(k + 9, 4))
        assert names(found) == ["attach", "detach"]
    ask(peer, wire10.detach(0))
    assert names(ask(peer, attach_dynamic(99, 0))) == ["attach"]
    # Queues bound to an exchange count as well.
    octets = wire10.attach_receiver("x", "/exchange/amq.topic/a", 6)
    assert wire10.error_of(ask(peer, octets)[1]) == "amqp:resource-limit-exceeded"
    assert arena.world.broker.bindings.free == arena.before["bindings"]
    # Others have theirs.
    other = session(arena.world)
    assert names(ask(other, attach_dynamic(0, 0))) == ["attach"]
    arena.world.client().queue("another")
    arena.world.broker.delete_queue(arena.world.broker.queues[b"another"])
    other.vanish()
    arena.world.peers[-1].vanish()
    arena.leave(peer)


def test_a_storm_of_dynamic_nodes_where_a_table_is_full():
    """Whichever is full: a refused link leaves nothing behind."""
    for numbers in ({"queues": 6}, {"consumers": 3}, {"bindings": 2, "queues": 40}):
        arena = Arena10(**numbers)
        peer = session(arena.world)
        other = arena.world.client()
        for k in range(4 if "queues" in numbers and "bindings" not in numbers else 0):
            other.send(wire.declare_queue(1, "full%d" % k, exclusive=1))
        before = arena.world.free()
        for _ in range(3):
            taken = []
            for handle in range(7):
                octets = wire10.attach_receiver(
                    "b%d" % handle, "/exchange/amq.topic/%d" % handle, handle
                )
                if "bindings" not in numbers:
                    octets = attach_dynamic(handle, handle)
                found = ask(peer, octets)
                if names(found) == ["attach"]:
                    taken.append(handle)
                else:
                    assert wire10.error_of(found[1]) == "amqp:resource-limit-exceeded", found
            assert len(taken) == {"queues": 0, "consumers": 2, "bindings": 2}[sorted(numbers)[0]]
            ask(peer, b"".join([wire10.detach(handle) for handle in range(7)]))
            assert arena.world.free() == before
        other.vanish()
        arena.leave(peer)


def test_storms_of_links_and_sessions():
    arena = Arena10()
    # Consumers of one connection: the table's end is the link's.
    peer = arena.peer()
    octets = b"".join([wire10.attach_receiver("c%d" % k, "q", k) for k in range(8)])
    octets += b"".join([wire10.attach_receiver("d%d" % k, "q", k, 1) for k in range(8)])
    found = ask(peer, octets)
    errors = [wire10.error_of(row) for row in found if row[0] == "detach"]
    assert len(errors) == 3 and set(errors) == {"amqp:resource-limit-exceeded"}, errors
    assert arena.world.broker.consumers.free == 0
    assert peer.loops[0].works() and peer.loops[1].works()
    arena.leave(peer)
    # Sessions: as many as channels.
    peer = session(arena.world)
    found = ask(peer, b"".join([wire10.begin(k) for k in range(1, 8)]))
    assert names(found) == ["begin"] * 7
    found = ask(peer, wire10.begin(8))
    assert wire10.error_of(found[0]) == "amqp:connection:framing-error"
    arena.leave(peer)
    # Attached and detached, begun and ended, all the time.
    peer = arena.peer()
    for _ in range(100):
        found = ask(peer, wire10.attach_receiver("c", "q") + wire10.detach(0) + wire10.begin(2)
                    + wire10.end(2))  # fmt: skip
        assert names(found) == ["attach", "detach", "begin", "end"]
    assert peer.loops[0].works() and peer.loops[1].works()
    arena.leave(peer)


def test_unknown_filters_are_left_out_of_the_answer():
    arena = Arena10()
    unknown = {
        Symbol("apache.org:no-such-filter:string"): Described(Symbol("a:b"), "x"),
        Symbol("plain"): "value",
    }
    for expiry in (None, Symbol("never"), Symbol("link-detach"), Symbol("x:y")):
        source = terminus(
            performative.SOURCE, "q", None, expiry, None, None, {Symbol("lifetime"): 1}, None,
            unknown, None, Symbol("amqp:accepted:list"), Symbol("queue"),
        )  # fmt: skip
        octets = attach("l", uint(0), True, None, None, source, TARGET)
        assert arena.answers(octets) is None
        fields = arena.found[0][2][5].value
        assert fields[0] == "q" and len(fields) < 8 or not fields[7], fields


def test_filters_of_odd_values():
    """The arguments of a binding are such as a header of 0-9-1 may have."""
    arena = Arena10()
    for value, answer in (
        ({"k": 1, "l": "x", "m": None, "n": True, "o": 1.5, "p": b"x", "q": Symbol("y")}, None),
        (["k", 1], None),  # no map: unknown
        ("k", None),
        ({"k": [1]}, "link amqp:invalid-field"),
        ({"k": {}}, "link amqp:invalid-field"),
        ({"k": Described(5, 6)}, "link amqp:invalid-field"),
        ({"k": Typed(0x80, 2**64 - 1)}, "link amqp:invalid-field"),
        ({"k" * 256: 1}, "link amqp:invalid-field"),
        ({5: 6}, "link amqp:invalid-field"),
        ({"x-match": 5}, "link amqp:precondition-failed"),
    ):
        name = Symbol("apache.org:legacy-amqp-headers-binding:map")
        for options in ({}, {"durable": 2, "expiry": "never"}):
            octets = wire10.attach_receiver(
                "l", "amq.headers", filter={Symbol("f"): Described(name, value)}, **options
            ) + (wire10.detach(0) if answer is None else b"")
            assert arena.answers(octets) == answer, value


def test_an_attach_that_is_refused_leaves_nothing():
    # No consumer free: neither the subscription's queue nor its binding stay.
    arena = Arena10(consumers=3)
    octets = wire10.attach_receiver("sub", "/topic/a", durable=2, expiry="never")
    assert arena.answers(octets) == "link amqp:resource-limit-exceeded"
    # An answer that is longer than the peer's frames: its name and address are long.
    arena = Arena10()
    for octets in (
        wire10.attach_receiver("n" * 200, "/exchange/amq.topic/" + "k" * 250),
        wire10.attach_receiver("n" * 200, "/topic/" + "k" * 250, expiry="never"),
        wire10.attach_sender("n" * 200, "/exchange/amq.topic/" + "k" * 250),
    ):
        peer = arena.peer(frame_max=512)
        queues = arena.world.free()["queues"]
        assert arena.answers(octets, peer=peer) == "link amqp:resource-limit-exceeded"
        peer = arena.peer(frame_max=512)
        found = ask(peer, octets)
        assert names(found) == ["attach", "detach"]
        assert arena.world.free()["queues"] == queues
        arena.leave(peer)
    peer = arena.peer(frame_max=512)
    octets = wire10.attach_sender("n" * 600, "q")
    assert arena.answers(octets, peer=peer) == "session amqp:resource-limit-exceeded"


def test_a_window_that_is_closed_within_a_message():
    """What opens it again, or gives up, is read and answered although the message is under way."""
    for octets in (
        wire10.flow(0, uint(2), uint(50), uint(0), uint(9)),
        wire10.detach(1),
        wire10.end(),
        wire10.close(),
        wire10.attach_sender("another", "q", 3),
        echo(1),
        transfer(message(b"x"), 1),
        b"",
    ):
        arena = Arena10()
        peer = session(arena.world, frame_max=512)
        ask(peer, wire10.end() + wire10.begin(window=2))
        sender(peer, "q")
        ask(peer, transfer(message(b"x" * 3000), 0))
        found = ask(peer, wire10.attach_receiver("down", "q", 1) + wire10.flow(
            0, uint(0), uint(2), uint(0), uint(9), uint(1), uint(0), uint(5)))  # fmt: skip
        assert names(found) == ["attach", "transfer", "transfer"], found
        assert arena.neighbour.works()
        found = ask(peer, octets)
        assert not peer.unsent() and not peer.engine.stalled, octets
        assert found or not octets or octets == echo(1), octets
        arena.leave(peer)
