"""Octets that are no AMQP 1.0 frames, and frames whose performatives are none.

What goes wrong before the connection is open is in test_v10_connection.py, the values themselves
are in test_v10_codec.py: here is what a peer hears, and that its neighbours do not.
"""

import wire10
from amqp_lite.v10 import performatives as performative
from amqp_lite.v10.frames import AMQP, SASL
from amqp_lite.v10.performatives import described, described_value, frame, uint
from amqp_lite.v10.values import Symbol, Typed
from arena10 import Arena10
from clients10 import ask, client, connect, names, take
from wire10 import HEADER

FRAMING = "connection amqp:connection:framing-error"
DECODE = "connection amqp:decode-error"
INVALID = "connection amqp:invalid-field"


def head(size, doff=2, kind=0, channel=0):
    """The first eight octets of a frame."""
    return size.to_bytes(4, "big") + bytes((doff, kind, channel >> 8, channel & 255))


def wide(octets, words):
    """The same frame with an extended header of so many words."""
    size = int.from_bytes(octets[:4], "big") + 4 * words
    return (
        size.to_bytes(4, "big") + bytes((2 + words,)) + octets[5:8] + b"e" * 4 * words + octets[8:]
    )


def body_of(code, fields):
    """A performative of fields that are octets already."""
    fields = b"".join(fields) if isinstance(fields, (list, tuple)) else fields
    return b"\0\x53" + bytes((code,)) + fields


def list_of(count, octets, size=None):
    return b"\xc0" + bytes((1 + len(octets) if size is None else size, count)) + octets


def test_sizes_and_data_offsets():
    arena = Arena10()
    for octets in (
        head(0), head(7), head(8, 0), head(8, 1), head(8, 3), head(12, 4), head(1016, 255),
    ):  # fmt: skip
        assert arena.answers(octets + b"\0" * 20) == FRAMING, octets


def test_an_extended_header_is_skipped():
    arena = Arena10()
    for words in (1, 2, 100, 200):
        echo = wire10.flow(0, uint(0), uint(9), uint(0), uint(9), *[None] * 5, True)
        assert arena.answers(wide(echo, words)) is None
        assert names(arena.found) == ["flow"], words
        assert arena.answers(wide(head(8), words)) is None
    # The longest there is, 1020 octets, where the buffer holds it and the performative.
    arena = Arena10(receive_buffer=1100)
    assert arena.answers(wide(echo, 253)) is None and names(arena.found) == ["flow"]


def test_frames_larger_than_agreed():
    arena = Arena10()
    for size in (8193, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        assert arena.answers(head(size)) == FRAMING, size
    for size in (513, 8192, 0xFFFFFFFF):
        peer = connect(arena.world)
        ask(peer, wire10.init() + HEADER)
        found = ask(peer, head(size))
        assert names(found) == ["open", "close"], found
        assert wire10.error_of(found[1]) == "amqp:connection:framing-error"
        arena.leave(peer)


def test_frame_types():
    arena = Arena10()
    for kind in (1, 2, 7, 255):
        assert arena.answers(head(8, 2, kind)) == FRAMING, kind
    assert arena.answers(wire10.init()) == FRAMING
    peer = connect(arena.world)
    take(peer)
    assert ask(peer, head(8, 2, 0)) == [["sasl-outcome", 0, [1]]]
    arena.leave(peer)


def test_a_login_is_tried_once():
    """Neither a second init nor responses that nobody asked for are a second try."""
    arena = Arena10()
    response = frame(SASL, 0, described(wire10.SASL_RESPONSE, b"\0guest\0guest"))
    challenge = frame(SASL, 0, described(wire10.SASL_CHALLENGE, b"x"))
    bad = wire10.init(b"\0guest\0wrong")
    for octets in (
        bad + wire10.init() + HEADER,
        bad * 3 + wire10.init() + HEADER,
        bad + response * 50,
        response * 50,
        challenge * 50,
    ):
        peer = connect(arena.world)
        take(peer)
        peer.send(octets)
        arena.world.wait(3000)
        assert take(peer) == [["sasl-outcome", 0, [1]]] and peer.gone, octets
        arena.world.access._failures.clear()
        arena.leave(peer)


def test_performatives_that_are_none():
    arena = Arena10()
    flow = [b"\x43"] * 4
    for body, answer in (
        (b"\0\x53\x19\x45", DECODE),  # no such descriptor
        (b"\0\x53\x00\x45", DECODE),
        (b"\0\x80\0\0\0\1\0\0\0\x13" + list_of(4, b"\x43" * 4), DECODE),
        (b"\0\xa3\x0eamqp:flaw:list" + list_of(4, b"\x43" * 4), DECODE),
        (b"\0\x52\x13" + list_of(4, b"\x43" * 4), DECODE),  # a descriptor that is a uint
        (b"\0\0\x53\x13\x45\x45", DECODE),  # a descriptor that is described
        (b"\0" * 300, DECODE),
        (b"\0\x53\x13\xc1\3\2\x43\x43", DECODE),  # a map
        (b"\0\x53\x13\x40", DECODE),
        (b"\x45", DECODE),
        (b"\0", DECODE),
        (
            body_of(0x13, list_of(12, b"\x43" * 4 + b"\x40" * 8)),
            DECODE,
        ),  # more fields than defined
        (body_of(0x13, list_of(4, b"\x43" * 5)), DECODE),  # a count that is too small
        (body_of(0x13, list_of(5, b"\x43" * 4)), DECODE),  # too large
        (body_of(0x13, list_of(4, b"\x43" * 4, 4)), DECODE),  # a size that is too small
        (body_of(0x13, list_of(4, b"\x43" * 4, 6)), DECODE),  # too large
        (body_of(0x13, list_of(4, b"\x43" * 4, 255)), DECODE),
        (body_of(0x13, b"\xd0\xff\xff\xff\xff\0\0\0\4\x43\x43\x43\x43"), DECODE),
        (body_of(0x13, b"\xd0\0\0\0\x08\xff\xff\xff\xff\x43\x43\x43\x43"), DECODE),
        (body_of(0x13, list_of(4, b"".join(flow[:3]) + b"\x40")), INVALID),  # mandatory, and null
        (body_of(0x13, b"\x45"), INVALID),
        (body_of(0x13, list_of(4, b"\x43\x43\x43\x41")), INVALID),  # another type
        (body_of(0x12, list_of(3, b"\xa3\1l\x43\x41")), INVALID),
        (body_of(0x15, list_of(2, b"\x41\x44")), INVALID),
        (body_of(0x14, list_of(1, b"\x40")), INVALID),
        (body_of(0x16, list_of(2, b"\x43\x43")), INVALID),
    ):
        assert arena.answers(frame(AMQP, 0, body)) == answer, body
    # Octets behind what is no transfer.
    assert arena.answers(frame(AMQP, 0, body_of(0x13, list_of(4, b"\x43" * 4)) + b"x")) == FRAMING


def begin_with(value):
    """A begin on channel 2 with *value* (octets) in its properties."""
    fields = b"\x40\x43\x43\x43\x40\x40\x40" + value
    body = b"\0\x53\x11\xd0" + (4 + len(fields)).to_bytes(4, "big") + b"\0\0\0\x08" + fields
    return frame(AMQP, 2, body)


def capable(value):
    """The same with *value* in its capabilities."""
    fields = b"\x40\x43\x43\x43\x40" + value
    return frame(AMQP, 2, body_of(0x11, list_of(6, fields)))


def map_of(*values):
    octets = b"".join(values)
    return b"\xd1" + (4 + len(octets)).to_bytes(4, "big") + len(values).to_bytes(4, "big") + octets


def test_values_in_a_performative_that_are_none():
    arena = Arena10()
    key = b"\xa3\1k"
    deep = b"\x40"
    for _ in range(9):
        deep = map_of(key, deep)
    arrays = b"\xe0\2\1\x40"
    for _ in range(9):
        arrays = b"\xf0" + (5 + len(arrays) - 1).to_bytes(4, "big") + b"\0\0\0\1" + arrays
    for value in (
        b"\xd1\0\0\0\x04\xff\xff\xff\xff",  # counts of four billions
        b"\xd1\0\0\0\x06\xff\xff\xff\xfe\x40\x40",
        map_of(key, b"\xd0\0\0\0\4\xff\xff\xff\xff"),
        map_of(key, b"\xf0\0\0\0\5\xff\xff\xff\xff\x70"),
        map_of(key, b"\xf0\0\0\0\5\xff\xff\xff\xff\x40"),  # of null, true, list0: no octet each
        map_of(key, b"\xf0\0\0\0\5\xff\xff\xff\xff\x41"),
        map_of(key, b"\xf0\0\0\0\5\xff\xff\xff\xff\x45"),
        map_of(key, b"\xf0\0\0\0\5\0\0\x10\0\x40"),
        map_of(*[key, b"\xf0\0\0\0\5\0\0\4\0\x43"] * 5),  # many of them
        b"\xc1\5\1\xa3\1k\x40",  # keys without values
        b"\xc1\7\3\xa3\1k\x40\x40\x40",
        map_of(key, b"\xe0\6\1\0\0\x53\1\x53\1"),  # an array with a described descriptor
        map_of(key, b"\xe0\4\1\0\xc0\0"),
        deep,
        map_of(key, arrays),
        map_of(key, b"\0" * 600),
        map_of(key, b"\x73" + b"\0\0"),  # cut off
        map_of(key, b"\xb0\xff\xff\xff\xffabc"),  # a length of four gigabytes
        map_of(key, b"\xb0\0\0\0\4abc"),
        map_of(key, b"\xa1\4abc"),
        map_of(key, b"\x56\2"),  # a boolean of two
        map_of(key, b"\xfe\1\1"),
        map_of(key, b"\x46"),
    ):
        assert arena.answers(begin_with(value)) == DECODE, value
    # What is odd, and can be read.
    for value in (
        map_of(key, b"\x40", key, b"\x40"),  # keys that are there twice: nobody reads these
        map_of(key, b"\xf0\0\0\0\5\0\0\0\x08\x40"),
        map_of(key, b"\xe0\x06\1\0\x53\1\x53\1"),
        map_of(b"\x40", b"\x40"),
        map_of(),
    ):
        assert arena.answers(begin_with(value)) is None, value
        assert names(arena.found) == ["begin"]
    assert arena.answers(capable(b"\xa1\1x")) == INVALID
    assert arena.answers(capable(b"\xe0\3\1\xa3\5")) == DECODE


def test_texts_that_are_none():
    arena = Arena10()

    def attach(name=b"\xa1\1l", address=b"\xa1\1q"):
        source = body_of(performative.SOURCE, list_of(1, b"\xa1\1s"))
        target = body_of(performative.TARGET, list_of(1, address))
        fields = name + b"\x43\x42\x40\x40" + source + target + b"\x40\x40\x43"
        return frame(AMQP, 0, body_of(performative.ATTACH, list_of(10, fields)))

    assert arena.answers(attach()) is None and names(arena.found) == ["attach", "flow"]
    assert arena.answers(attach(name=b"\xa1\2\xff\xfe")) == DECODE
    assert arena.answers(attach(name=b"\xa1\1\xc3")) == DECODE
    assert arena.answers(attach(address=b"\xa1\2q\xff")) == DECODE
    assert arena.answers(attach(address=b"\xa0\1q")) == "link amqp:invalid-field"
    assert arena.answers(attach(address=list_of(1, b"\x43"))) == "link amqp:invalid-field"
    assert arena.answers(attach(name=b"\xa3\1l")) == INVALID
    peer = connect(arena.world)
    take(peer)
    mechanism = body_of(performative.SASL_INIT, list_of(2, b"\xa3\5PLA\xffN\xa0\0"))
    assert ask(peer, frame(SASL, 0, mechanism)) == [["sasl-outcome", 0, [1]]]
    arena.leave(peer)


def test_characters_that_do_not_exist():
    """Where nobody reads it, a value is passed on as it is; where somebody does, it is refused."""
    arena = Arena10()
    value = map_of(b"\xa3\1k", b"\x73\0\x11\0\0")
    assert arena.answers(begin_with(value)) is None


def test_performatives_of_another_state_or_scope():
    arena = Arena10()
    for body, channel, answer in (
        (described(performative.OPEN, "again"), 0, "connection amqp:not-allowed"),
        (described(performative.BEGIN, None, uint(0), uint(1), uint(1)), 0,
         "connection amqp:not-allowed"),
        (described(performative.BEGIN, None, uint(0), uint(1), uint(1)), 8, FRAMING),
        (described(performative.BEGIN, None, uint(0), uint(1), uint(1)), 0xFFFF, FRAMING),
        (described(performative.END), 5, "connection amqp:not-allowed"),
        (described(performative.ACCEPTED), 0, "connection amqp:not-allowed"),
        (described(performative.SASL_OUTCOME, Typed(0x50, 0)), 0, "connection amqp:not-allowed"),
        (described(performative.SOURCE), 0, "connection amqp:not-allowed"),
    ):  # fmt: skip
        assert arena.answers(frame(AMQP, channel, body)) == answer, body


def test_a_flood_of_empty_frames_is_life_and_nothing_more():
    arena = Arena10(heartbeat=10)
    peer = arena.peer()
    quiet = client(arena.world)
    for _ in range(40):
        peer.send(head(8) * 500)
        arena.world.wait(1000)
        arena.neighbour.peer.send(head(8))
    assert quiet.gone and not peer.gone
    assert peer.loops[0].works() and peer.loops[1].works()
    arena.leave(peer)
    # One buffer's worth is read at once, whatever there is; it costs the peer nothing to send
    # and us no answer.
    peer = arena.peer()
    assert peer.engine.room() == arena.world.profile["receive_buffer"]
    assert ask(peer, head(8) * 5000) == []
    arena.leave(peer)


def error(size):
    return described_value(performative.ERROR, Symbol("x:y"), "e" * size)


def test_errors_with_long_texts():
    arena = Arena10()
    for size in (0, 100, 700):
        bodies = (
            (described(performative.DETACH, uint(8), True, error(size)), "detach"),
            (described(performative.END, error(size)), "end"),
            (described(performative.CLOSE, error(size)), "close"),
        )
        for body, name in bodies:
            peer = arena.peer()
            assert names(ask(peer, frame(AMQP, 0, body))) == [name]
            assert peer.loops[1].works() == (name != "close")
            arena.leave(peer)
    # What the receive buffer does not hold is refused; what no frame may be, too.
    for size, answer in ((2000, "connection amqp:resource-limit-exceeded"), (65536, FRAMING)):
        for code in (performative.DETACH, performative.END, performative.CLOSE):
            fields = (uint(8), True) if code == performative.DETACH else ()
            octets = frame(AMQP, 0, described(code, *fields, error(2000)))
            # Of the longer one the beginning says enough.
            octets = (size + 60).to_bytes(4, "big") + octets[4:]
            assert arena.answers(octets) == answer, (size, code)


def test_our_own_errors_are_short():
    arena = Arena10()
    name = "n" * 700
    assert arena.answers(wire10.attach_sender("l", name)) == "link amqp:invalid-field"
    assert len(arena.found[1][2][2].value[1]) <= 200
    peer = arena.peer()
    found = ask(peer, wire10.attach_sender("l", "/queues/" + "\u00fc" * 120))
    assert wire10.error_of(found[1]) == "amqp:not-found"
    arena.leave(peer)


def test_a_peer_that_never_answers():
    """Our close is followed by the end of the connection, whatever the peer says or reads; our
    end and our detach hold nothing."""
    arena = Arena10()
    peer = arena.peer()
    peer.reading = False
    peer.send(head(7))
    arena.world.wait(1500)
    assert not peer.gone and arena.neighbour.works()
    arena.world.wait(1000)
    assert peer.gone
    arena.leave(peer)
    peer = arena.peer()
    peer.reading = False
    peer.send(wire10.close())
    arena.world.wait(2500)
    assert peer.gone
    arena.leave(peer)
    # It goes on as if it had not heard.
    peer = arena.peer()
    attach = wire10.attach_sender("up", "q")
    found = ask(peer, attach + wire10.detach(5))
    assert wire10.error_of(found[-1]) == "amqp:session:unattached-handle"
    transfers = [wire10.transfer(wire10.message(b"x"), k) for k in range(50)]
    assert ask(peer, b"".join(transfers) + attach) == []
    assert peer.loops[1].works()
    assert arena.world.free()["consumers"] == arena.before["consumers"] - 1
    arena.leave(peer)


def test_a_filter_deeper_than_values_may_be():
    arena = Arena10()
    filters = b"\0\x44" * 300 + b"\x40"
    source = b"\xa1\1q" + b"\x40" * 6 + map_of(b"\xa3\1f", filters)
    source = b"\0\x53\x28\xd0" + (4 + len(source)).to_bytes(4, "big") + b"\0\0\0\x08" + source
    fields = b"\xa1\1l\x43\x41\x40\x40" + source + b"\0\x53\x29\x45"
    body = b"\0\x53\x12\xd0" + (4 + len(fields)).to_bytes(4, "big") + b"\0\0\0\x07" + fields
    assert arena.answers(frame(AMQP, 0, body)) == "connection amqp:decode-error"
