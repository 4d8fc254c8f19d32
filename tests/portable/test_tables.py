"""Field tables: wire octets and values, in both directions.

The octets are written down by hand from AMQP 0-9-1 §4.2.5.5 and rabbitmq.com "AMQP 0-9-1 Errata"
§3.
"""

import wire
from amqp_lite.errors import SyntaxFailure
from amqp_lite.v091 import codec

# type letter, octets, value
FIELDS = (
    ("t", b"\x01", True),
    ("t", b"\x00", False),
    ("b", b"\x80", -128),
    ("b", b"\x7f", 127),
    ("B", b"\xff", 255),
    ("s", b"\x80\x00", -32768),
    ("U", b"\xff\xff", -1),
    ("u", b"\xff\xff", 65535),
    ("I", b"\xff\xff\xff\xfe", -2),
    ("I", b"\x7f\xff\xff\xff", 2147483647),
    ("i", b"\xff\xff\xff\xff", 4294967295),
    ("l", b"\xff\xff\xff\xff\xff\xff\xff\xff", -1),
    ("l", b"\x7f\xff\xff\xff\xff\xff\xff\xff", 9223372036854775807),
    ("L", b"\x80\x00\x00\x00\x00\x00\x00\x00", -9223372036854775808),
    ("f", b"\x3f\xc0\x00\x00", 1.5),
    ("d", b"\xbf\xf8\x00\x00\x00\x00\x00\x00", -1.5),
    ("D", b"\x02\x00\x00\x01\x00", b"\x02\x00\x00\x01\x00"),
    ("S", b"\x00\x00\x00\x03a\xff\x00", b"a\xff\x00"),
    ("S", b"\x00\x00\x00\x00", b""),
    ("x", b"\x00\x00\x00\x02\x00\x01", b"\x00\x01"),
    ("T", b"\xff\xff\xff\xff\xff\xff\xff\xff", 18446744073709551615),
    ("V", b"", None),
    ("A", b"\x00\x00\x00\x00", []),
    ("A", b"\x00\x00\x00\x05Vt\x01b\xff", [None, True, -1]),
    ("F", b"\x00\x00\x00\x00", {}),
    ("F", b"\x00\x00\x00\x04\x01at\x01", {b"a": True}),
    ("F", b"\x00\x00\x00\x02\x00V", {b"": None}),
    ("A", b"\x00\x00\x00\x09F\x00\x00\x00\x04\x01at\x01", [{b"a": True}]),
)


def read(octets):
    """The table that *octets* are, read from the middle of a larger buffer."""
    buf = memoryview(b"?" + octets + b"?")
    assert codec.check_table(buf, 1, 1 + len(octets)) == 1 + len(octets)
    table, stop = codec.read_table(buf, 1)
    assert stop == 1 + len(octets)
    return table


def refused(octets):
    try:
        codec.check_table(memoryview(octets), 0, len(octets))
    except SyntaxFailure:
        return True
    return False


def test_every_type_is_read():
    for letter, octets, value in FIELDS:
        table = read(wire.table(wire.field("name", letter, octets)))
        assert table == {b"name": value}, letter
        assert isinstance(table[b"name"], bool) == isinstance(value, bool), letter


def test_every_type_is_passed_over():
    for letter, octets, _ in FIELDS:
        buf = b"?" + letter.encode() + octets + b"?"
        assert codec.skip_value(memoryview(buf), 1) == len(buf) - 1, letter


def test_all_types_stand_beside_each_other():
    octets = b"".join([
        wire.field("f%d" % k, FIELDS[k][0], FIELDS[k][1]) for k in range(len(FIELDS))
    ])  # fmt: skip
    table = read(wire.table(octets))
    assert len(table) == len(FIELDS)
    for k in range(len(FIELDS)):
        assert table[b"f%d" % k] == FIELDS[k][2]


def test_every_type_cut_short_is_refused():
    for letter, octets, _ in FIELDS:
        whole = wire.field("name", letter, octets)
        for n in range(1, len(whole)):
            assert refused(wire.table(whole[:n])), (letter, n)


def test_every_letter_that_is_no_type_is_refused():
    known = "tbBsUuIilLfdDSxTVAF"
    for octet in range(256):
        if octet not in known.encode():
            assert refused(wire.table(b"\x01a" + bytes([octet]) + bytes(40))), octet


def test_what_is_written_is_read_again():
    # (value, octets)
    for value, octets in (
        (True, b"t\x01"),
        (False, b"t\x00"),
        (None, b"V"),
        (0, b"I\x00\x00\x00\x00"),
        (-1, b"I\xff\xff\xff\xff"),
        (2147483647, b"I\x7f\xff\xff\xff"),
        (-2147483648, b"I\x80\x00\x00\x00"),
        (2147483648, b"l\x00\x00\x00\x00\x80\x00\x00\x00"),
        (-2147483649, b"l\xff\xff\xff\xff\x7f\xff\xff\xff"),
        (1.5, b"d\x3f\xf8\x00\x00\x00\x00\x00\x00"),
        ("\u00e9", b"S\x00\x00\x00\x02\xc3\xa9"),
        (b"\x00\xff", b"S\x00\x00\x00\x02\x00\xff"),
        ([], b"A\x00\x00\x00\x00"),
        ([1, [True]], b"A\x00\x00\x00\x0cI\x00\x00\x00\x01A\x00\x00\x00\x02t\x01"),
        ({}, b"F\x00\x00\x00\x00"),
        ({"a": {"b": b""}}, b"F\x00\x00\x00\x0e\x01aF\x00\x00\x00\x07\x01bS\x00\x00\x00\x00"),
    ):
        assert codec.write_value(value) == octets, value
        again, stop = codec.read_value(memoryview(octets), 0)
        assert stop == len(octets)
        if not isinstance(value, (str, list, dict)):
            assert again == value
        table = codec.write_table({"k": value})
        assert table == wire.table(b"\x01k" + octets)


def test_the_tables_of_the_two_codecs_agree():
    table = {
        "a": 1,
        "b": "text",
        "c": True,
        "d": None,
        "e": [1, "2", {"f": False}],
        "g": {"h": -5},
    }
    expected = {b"a": 1, b"b": b"text", b"c": True, b"d": None, b"e": [1, b"2", {b"f": False}],
                b"g": {b"h": -5}}  # fmt: skip
    assert read(wire.table(table)) == expected
    assert read(codec.write_table(table)) == expected
