"""Content properties: wire octets and values, in both directions (AMQP 0-9-1 §4.2.6.1)."""

import wire
from amqp_lite.broker.message import MAX_TTL_MS
from amqp_lite.errors import PreconditionFailed, SyntaxFailure
from amqp_lite.v091 import codec
from amqp_lite.v091.properties import read_properties, write_properties

# name, value as it is read, octets by hand
ONE_BY_ONE = (
    ("content_type", b"text/plain", b"\x80\x00\x0atext/plain"),
    ("content_encoding", b"utf-8", b"\x40\x00\x05utf-8"),
    ("headers", {b"a": True}, b"\x20\x00\x00\x00\x00\x04\x01at\x01"),
    ("delivery_mode", 2, b"\x10\x00\x02"),
    ("priority", 9, b"\x08\x00\x09"),
    ("correlation_id", b"c", b"\x04\x00\x01c"),
    ("reply_to", b"r", b"\x02\x00\x01r"),
    ("expiration", b"60000", b"\x01\x00\x0560000"),
    ("message_id", b"m", b"\x00\x80\x01m"),
    ("timestamp", 1700000000, b"\x00\x40\x00\x00\x00\x00\x65\x53\xf1\x00"),
    ("type", b"t", b"\x00\x20\x01t"),
    ("user_id", b"guest", b"\x00\x10\x05guest"),
    ("app_id", b"a", b"\x00\x08\x01a"),
    ("cluster_id", b"", b"\x00\x04\x00"),
)


def scan(octets):
    """The Properties of *octets*, which stand in a larger buffer."""
    found = codec.Properties()
    buf = memoryview(b"?" + octets + b"\xff\xff\xff")
    found.scan(buf, 1, 1 + len(octets))
    return found


def error_of(octets):
    try:
        scan(octets)
    except (SyntaxFailure, PreconditionFailed) as error:
        return error.code
    return None


def test_each_property_alone():
    for name, value, octets in ONE_BY_ONE:
        assert write_properties({name: value}) == octets, name
        assert read_properties(memoryview(octets), 0) == {name: value}, name
        assert error_of(octets) is None, name
        for n in range(2, len(octets)):
            assert error_of(octets[:n]) == 502, (name, n)
        assert error_of(octets + b"\0") == 502, name


def test_all_properties_together():
    every = {name: value for name, value, _ in ONE_BY_ONE}
    octets = b"\xff\xfc" + b"".join([row[2][2:] for row in ONE_BY_ONE])
    assert write_properties(every) == octets
    assert wire.properties(**every) == octets
    assert read_properties(memoryview(octets), 0) == every
    found = scan(octets)
    assert found.persistent
    assert found.ttl_ms == 60000
    assert octets[found.reply_to - 1 :][:2] == b"\x01r"
    assert octets[found.user_id - 1 :][:6] == b"\x05guest"


def test_no_properties_are_properties():
    assert write_properties({}) == b"\0\0"
    assert read_properties(memoryview(b"\0\0"), 0) == {}
    found = scan(b"\0\0")
    assert not found.persistent
    assert (found.ttl_ms, found.reply_to, found.user_id) == (-1, -1, -1)


def test_nothing_is_left_of_the_scan_before():
    found = codec.Properties()
    octets = write_properties({name: value for name, value, _ in ONE_BY_ONE})
    found.scan(memoryview(octets), 0, len(octets))
    found.scan(memoryview(b"\0\0"), 0, 2)
    assert not found.persistent
    assert (found.ttl_ms, found.reply_to, found.user_id) == (-1, -1, -1)


def test_only_delivery_mode_2_is_persistent():
    for mode in range(8):
        assert scan(wire.properties(delivery_mode=mode)).persistent == (mode == 2), mode


def test_a_number_where_a_string_belongs_is_written_as_digits():
    assert write_properties({"expiration": 5000}) == b"\x01\x00\x045000"
    assert write_properties({"correlation_id": 7}) == b"\x04\x00\x017"


def test_strings_of_255_octets_fit_and_longer_ones_do_not():
    octets = write_properties({"message_id": "m" * 255})
    assert read_properties(memoryview(octets), 0) == {"message_id": b"m" * 255}
    try:
        write_properties({"message_id": "m" * 256})
    except SyntaxFailure:
        return
    assert False


def test_a_name_that_is_no_property_is_refused():
    try:
        write_properties({"colour": "red"})
    except SyntaxFailure as error:
        assert "colour" in error.text
        return
    assert False


def test_flags_that_go_on_for_ever_are_refused():
    assert error_of(b"\x00\x01") == 502
    assert error_of(b"\x00\x01" * 20) == 502
    assert error_of(b"\x00\x02") == 502
    assert error_of(b"\xff\xff" + bytes(40)) == 502


def test_expirations_are_milliseconds_as_digits():
    for good in ("0", "1", "60000", "007", "%d" % MAX_TTL_MS):
        assert scan(wire.properties(expiration=good)).ttl_ms == int(good)
    for bad in ("", "-1", "+1", "1e9", "1.5", " 1", "1 ", "0x10", "99999999999999999999",
                "%d" % (MAX_TTL_MS + 1), "9" * 255, "\u0661"):  # fmt: skip
        assert error_of(wire.properties(expiration=bad)) == 406, bad


def test_a_broken_headers_table_is_refused():
    assert error_of(b"\x20\x00" + b"\xff\xff\xff\xff") == 502
    assert error_of(b"\x20\x00" + b"\x00\x00\x00\x05\x01at\x01") == 502
    assert error_of(b"\x20\x00" + wire.table(b"\x01a?\x01")) == 502
