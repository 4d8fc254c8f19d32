"""Field tables that lie: in arguments, in client properties, in the headers of a message."""

import wire
from amqp_lite.errors import SyntaxFailure
from amqp_lite.v091.codec import check_table
from arena import Arena

# Each is the inside of a table, without its length.
LIES = (
    ("a length beyond the end", wire.field("a", "S", b"\x00\x00\x00\x09short")),
    ("a length of -1", wire.field("a", "S", b"\xff\xff\xff\xff")),
    ("a table of -1", wire.field("a", "F", b"\xff\xff\xff\xff")),
    ("an array of -1", wire.field("a", "A", b"\xff\xff\xff\xff")),
    ("octets of -1", wire.field("a", "x", b"\xff\xff\xff\xff")),
    ("a length cut off", wire.field("a", "S", b"\x00\x00")),
    ("a number cut off", wire.field("a", "l", b"\x00\x00\x00")),
    ("an unknown type", wire.field("a", "?", b"\x00\x00\x00\x00")),
    ("type 0", wire.field("a", b"\0", b"")),
    ("a name longer than the table", b"\xff" + b"n" * 20),
    ("a name and nothing else", b"\x01a"),
    ("a table that ends inside of one", wire.field("a", "F", b"\x00\x00\x00\x05\x01bS\x00\x00")),
    ("an array that ends inside of a value", wire.field("a", "A", b"\x00\x00\x00\x03I\x00\x00")),
    ("an inner table longer than the outer", wire.field("a", "F", b"\x00\x00\x01\x00\x01bV")),
    ("the same name twice", wire.field("a", "t", b"\1") + wire.field("a", "t", b"\1")),
    ("the same name again", wire.field("a", "t", b"\1") + wire.field("b", "V", b"")
     + wire.field("a", "S", b"\0\0\0\0")),
    ("the same name twice inside", wire.field("t", "F", wire.table(
        wire.field("a", "t", b"\1") + wire.field("a", "t", b"\1")))),
)  # fmt: skip


def nested(depth, kind):
    """The inside of a table that holds *depth* tables or arrays, one in the other."""
    octets = b""
    for _ in range(depth):
        octets = (wire.field("t", "F", wire.table(octets)) if kind == "F"
                  else b"A" + wire.long(octets))  # fmt: skip
    return octets if kind == "F" else b"\x01a" + octets


def in_arguments(table):
    return wire.declare_queue(1, "q", arguments=table)


def in_headers(table):
    return wire.publish_method(1, "", "q") + wire.header(1, 5, b"\x20\x00" + wire.long(table))


def in_client_properties(table):
    return wire.method(0, "connection.start-ok", wire.long(table), wire.short("PLAIN"),
                       wire.long("\0guest\0guest"), wire.short("en_US"))  # fmt: skip


def test_every_lie_in_arguments_is_a_syntax_error():
    arena = Arena()
    for name, table in LIES:
        assert arena.answers(in_arguments(table)) == "connection 502", name


def test_every_lie_in_headers_is_a_syntax_error():
    arena = Arena()
    for name, table in LIES:
        assert arena.answers(in_headers(table)) == "connection 502", name


def test_every_lie_in_client_properties_is_a_syntax_error():
    arena = Arena()
    for name, table in LIES:
        answer = arena.answers(in_client_properties(table), login=False)
        assert answer == "connection 502", name


def test_a_table_longer_than_its_frame_is_a_syntax_error():
    arena = Arena()
    for length in (1, 5, 0x3FFFFFFF, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        lying = length.to_bytes(4, "big")
        octets = wire.method(1, "queue.declare", b"\0\0", wire.short("q"), wire.bits(0), lying)
        assert arena.answers(octets) == "connection 502", length
        octets = wire.header(1, 5, b"\x20\x00" + lying)
        assert arena.answers(wire.publish_method(1, "", "q") + octets) == "connection 502", length


def test_tables_nest_eight_deep_and_no_deeper():
    arena = Arena()
    for kind in "FA":
        for depth in (1, 7, 8):
            table = nested(depth, kind)
            assert arena.answers(in_headers(table) + wire.body(1, b"12345")) is None, depth
            assert arena.answers(in_arguments(table)) is None, depth
        for depth in (9, 10, 60, 120):
            table = nested(depth, kind)
            assert arena.answers(in_headers(table)) == "connection 502", depth
            assert arena.answers(in_arguments(table)) == "connection 502", depth
            answer = arena.answers(in_client_properties(table), login=False)
            assert answer == "connection 502", depth


def test_arrays_of_tables_of_arrays_are_values_like_others():
    arena = Arena()
    table = wire.field("a", "A", wire.long(b"F" + wire.table(
        wire.field("b", "A", wire.long(b"A\0\0\0\0" * 20)) + wire.field("c", "V", b"")
    ) + b"t\1"))  # fmt: skip
    assert arena.answers(in_headers(table) + wire.body(1, b"12345")) is None
    assert arena.answers(in_arguments(table)) is None


def test_more_than_1024_entries_are_too_many():
    arena = Arena(receive_buffer=5000, connections=2, messages=8, deliveries=8, blocks=40,
                  queues=3)  # fmt: skip
    octets = bytearray(b"\x02..V" * 1025)
    for k in range(1025):
        octets[4 * k + 1] = k >> 8
        octets[4 * k + 2] = k & 0xFF
    octets = bytes(octets)
    for many in (octets, b"\x01aA" + wire.long(b"V" * 1025), b"\x01aA" + wire.long(b"V" * 4800)):
        assert arena.answers(in_headers(many)) == "connection 502"
        assert arena.answers(in_arguments(many)) == "connection 502"
    # As many can be read; to keep them is another thing.
    assert arena.answers(in_arguments(octets[: 4 * 400])) == "channel 406"


def test_10000_entries_are_too_many():
    octets = wire.table(b"\x01aA" + wire.long(b"V" * 10000))
    try:
        check_table(memoryview(octets), 0, len(octets))
    except SyntaxFailure:
        return
    assert False


def test_many_entries_with_names_of_their_own_are_read():
    arena = Arena()
    octets = b"".join([b"\x02" + k.to_bytes(2, "big") + b"t\1" for k in range(180)])
    assert arena.answers(in_headers(octets) + wire.body(1, b"12345")) is None
    assert arena.answers(in_arguments(octets)) == "channel 406"
    for k in (0, 90, 179):
        again = octets + b"\x02" + k.to_bytes(2, "big") + b"V"
        assert arena.answers(in_headers(again)) == "connection 502", k
