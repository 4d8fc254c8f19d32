"""Conversion between the protocols, row by row of the table at rabbitmq.com/docs/conversions.

1.0 octets are written by hand or with write_value(), 0-9-1 ones with wire.py or by hand; the
values of headers are compared as octets, type letter first.
"""

import struct

import amqp_lite.convert as convert
import chance
import wire
from amqp_lite.errors import AMQPError, PreconditionFailed
from amqp_lite.v091 import codec as v091
from amqp_lite.v091.properties import read_properties, write_properties
from amqp_lite.v10.codec import check_value
from amqp_lite.v10.performatives import HEADER, PROPERTIES, Fields, described, uint
from amqp_lite.v10.values import Described, Symbol, Typed, read_value, write_value

DATA, SEQUENCE, VALUE = convert.DATA, convert.AMQP_SEQUENCE, convert.AMQP_VALUE
UUID = b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"
URN = b"urn:uuid:00112233-4455-6677-8899-aabbccddeeff"
GRUSS = "gr\u00fc\u00df"
BAD = b"\xff\xfe"  # no UTF-8


def section(code, value):
    return bytes((0, 0x53, code)) + write_value(value)


def annotations(value):
    return section(0x72, value)


def applications(value):
    return section(0x74, value)


def listed(**fields):
    """A properties section with these fields only."""
    names = (
        "message_id", "user_id", "to", "subject", "reply_to", "correlation_id", "content_type",
        "content_encoding", "absolute_expiry_time", "creation_time", "group_id",
        "group_sequence", "reply_to_group_id",
    )  # fmt: skip
    for name in fields:
        assert name in names
    return described(PROPERTIES, *[fields.get(name) for name in names])


def is_same(value, other):
    return type(value) is type(other) and value == other


def v091_of(sections, encoded=False):
    """The properties that *sections* become, as a dict; they pass the check for any client's."""
    octets = convert.to_v091(sections, encoded)
    v091.Properties().scan(octets, 0, len(octets))
    assert convert.to_v091(memoryview(b"?" + sections)[1:], encoded) == octets
    return read_properties(octets, 0)


def fields_of(sections, encoded=False):
    """The headers that *sections* become: fields by name, type letter first."""
    octets = convert.to_v091(sections, encoded)
    v091.Properties().scan(octets, 0, len(octets))
    i = v091.find_headers(octets, 0, len(octets))
    fields = {}
    if i >= 0:
        stop = i + 4 + struct.unpack(">I", octets[i : i + 4])[0]
        i += 4
        while i < stop:
            at = i + 1 + octets[i]
            name = octets[i + 1 : at]
            i = v091.skip_value(octets, at)
            fields[name] = octets[at:i]
    return fields


def field_of(value):
    """What *value*, as write_value() takes it, becomes in a header; None: nothing."""
    fields = fields_of(applications({"k": value}))
    annotated = fields_of(annotations({Symbol("x-k"): value}))
    assert annotated.get(b"x-k") == fields.get(b"k")
    return fields.get(b"k")


def sections_of(octets):
    """1.0 sections by their codes, as read_value() tells them; all are checked."""
    found = {}
    last = i = 0
    while i < len(octets):
        stop = check_value(octets, i, len(octets))
        code = octets[i + 2]
        assert octets[i : i + 2] == b"\0\x53" and last < code
        if code == HEADER or code == PROPERTIES:
            assert Fields().scan(octets, i, len(octets)) == stop
        found[code] = read_value(octets, i)[0].value
        last = code
        i = stop
    return found


def v10_of(properties, exchange=b"", routing_key=b"", tries=0):
    """The sections of a 0-9-1 message with these *properties*, octets or a dict."""
    if isinstance(properties, dict):
        properties = write_properties(properties)
    octets = convert.to_v10(properties, exchange, routing_key, tries)
    view = memoryview(b"?" + properties)[1:]
    assert convert.to_v10(view, exchange, routing_key, tries) == octets
    return sections_of(octets)


def with_headers(*fields):
    """A 0-9-1 property list with these headers only: name, field with its type letter."""
    parts = [wire.short(fields[k]) + fields[k + 1] for k in range(0, len(fields), 2)]
    octets = b"\x20\0" + wire.long(b"".join(parts))
    v091.Properties().scan(octets, 0, len(octets))
    return octets


def property_of(name, value, k):
    """Field *k* of the properties section that one 0-9-1 property becomes; None: none."""
    fields = v10_of({name: value}).get(PROPERTIES, [])
    return fields[k] if k < len(fields) else None


def value_of(field):
    """The octets of the 1.0 value a header's *field* becomes; None: none."""
    octets = convert.to_v10(with_headers("k", field), b"", b"")
    assert len(sections_of(octets)) < 4
    at = octets.find(b"\0\x53\x74")
    if at < 0:
        return None
    # its map: constructor, size, count, then the key "k" in three octets
    at += 3
    return octets[at + (9 if octets[at] == 0xD1 else 3) + 3 :]


def annotation_of(field):
    """The same for an annotation, as read_value() tells it."""
    return v10_of(with_headers("x-k", field))[0x72].get(Symbol("x-k"))


# --- 1.0 to 0-9-1: header and properties ---


def test_durable_is_delivery_mode_2():
    assert v091_of(described(HEADER, True)) == {"delivery_mode": 2}
    assert v091_of(described(HEADER, False)) == {"delivery_mode": 1}
    assert v091_of(described(HEADER, None, Typed(0x50, 3)))["delivery_mode"] == 1


def test_without_a_header_a_message_is_not_persistent():
    assert convert.to_v091(b"", False) == b"\x10\0\1"


def test_priority_is_priority():
    for priority in (0, 9, 255):
        found = v091_of(described(HEADER, None, Typed(0x50, priority)))
        assert found == {"delivery_mode": 1, "priority": priority}


def test_ttl_is_expiration():
    for ttl in (0, 5, 60000, 0x1FFFFFFF):
        found = v091_of(described(HEADER, None, None, uint(ttl)))
        assert found["expiration"] == str(ttl).encode()


def test_the_longest_ttl_keeps_every_digit():
    octets = convert.to_v091(described(HEADER, None, None, uint(0xFFFFFFFF)), False)
    assert read_properties(octets, 0)["expiration"] == b"4294967295"


def test_string_ids_are_ids():
    found = v091_of(listed(message_id="m" * 255, correlation_id=GRUSS))
    assert found["message_id"] == b"m" * 255 and found["correlation_id"] == GRUSS.encode()
    assert "headers" not in found


def test_long_ids_are_headers():
    fields = fields_of(listed(message_id="m" * 256, correlation_id="\0c"))
    assert fields == {
        b"x-message-id": b"S" + wire.long("m" * 256), b"x-correlation-id": b"S" + wire.long("\0c"),
    }  # fmt: skip
    assert "message_id" not in v091_of(listed(message_id="m" * 256))


def test_uuid_ids_are_urns():
    found = v091_of(listed(message_id=Typed(0x98, UUID), correlation_id=Typed(0x98, UUID)))
    assert found["message_id"] == found["correlation_id"] == URN


def test_ulong_ids_are_digits():
    for code, value in ((0x44, 0), (0x53, 255), (0x80, 0xFFFFFFFFFFFFFFFF)):
        found = v091_of(listed(message_id=Typed(code, value), correlation_id=Typed(code, value)))
        assert found["message_id"] == found["correlation_id"] == str(value).encode()


def test_binary_ids_are_headers():
    fields = fields_of(listed(message_id=b"abc", correlation_id=BAD))
    assert fields == {
        b"x-message-id": b"x\0\0\0\3abc", b"x-correlation-id": b"x\0\0\0\2" + BAD,
    }  # fmt: skip


def test_an_annotation_with_the_name_of_an_id_stays_the_only_one():
    octets = annotations({Symbol("x-message-id"): "first"}) + listed(message_id=b"second")
    assert fields_of(octets + applications({"x-message-id": "third"})) == {
        b"x-message-id": b"S\0\0\0\5first"
    }


def test_user_id_is_user_id_when_it_is_text():
    assert v091_of(listed(user_id=b"guest"))["user_id"] == b"guest"
    for wrong in (BAD, b"a\0b", b"u" * 256):
        assert v091_of(listed(user_id=wrong)) == {"delivery_mode": 1}


def test_a_reply_to_that_is_a_queue_is_its_name():
    for address, name in (
        ("/queues/q", b"q"), ("/queues/a%2Fb%20c", b"a/b c"), ("/queues/gr%C3%BC", b"gr\xc3\xbc"),
        ("/queues/" + "%2F" * 255, b"/" * 255),
    ):  # fmt: skip
        assert v091_of(listed(reply_to=address))["reply_to"] == name


def test_another_reply_to_stays_what_it_is():
    for address in ("q", "/exchanges/e/k", "/topic/k", "/queue", ""):
        assert v091_of(listed(reply_to=address))["reply_to"] == address.encode()


def test_a_reply_to_of_jms_is_a_queue():
    assert v091_of(listed(reply_to="/queue/a%2Fb"))["reply_to"] == b"a/b"


def test_a_reply_to_that_is_none_is_left_out():
    for address in (
        "/queues/%zz", "/queues/%ff", "/queues/a/b", "/queues/%00", "/queues/", "a" * 256,
    ):  # fmt: skip
        assert "reply_to" not in v091_of(listed(reply_to=address)), address


def test_content_type_and_encoding_are_the_same():
    found = v091_of(listed(content_type=Symbol("text/plain"), content_encoding=Symbol("gzip")))
    assert (found["content_type"], found["content_encoding"]) == (b"text/plain", b"gzip")
    assert v091_of(listed(content_type=Symbol("t" * 256))) == {"delivery_mode": 1}


def test_creation_time_is_a_timestamp_in_seconds():
    for ms in (0, 1999, 1700000000999, 2**63 - 1):
        assert v091_of(listed(creation_time=Typed(0x83, ms)))["timestamp"] == ms // 1000
    assert "timestamp" not in v091_of(listed(creation_time=Typed(0x83, -1)))


def test_group_id_is_app_id():
    assert v091_of(listed(group_id="g"))["app_id"] == b"g"
    assert "app_id" not in v091_of(listed(group_id="g" * 256))


def test_the_other_properties_are_dropped():
    octets = listed(
        to="/queues/q", subject="s", absolute_expiry_time=Typed(0x83, 5), group_sequence=uint(7),
        reply_to_group_id="r",
    )  # fmt: skip
    assert v091_of(octets) == {"delivery_mode": 1}


# --- 1.0 to 0-9-1: headers ---


def test_application_properties_are_headers():
    octets = applications({"a": "1", GRUSS: "2", "x-c": "3", "": "4", "n" * 255: "5"})
    assert v091_of(octets)["headers"] == {
        b"a": b"1", GRUSS.encode(): b"2", b"x-c": b"3", b"": b"4", b"n" * 255: b"5",
    }  # fmt: skip


def test_application_properties_without_a_name_for_it_are_left_out():
    octets = applications({"n" * 256: 1, "a\0": 2, 5: 3, "good": "g"})
    assert fields_of(octets) == {b"good": b"S\0\0\0\1g"}
    assert fields_of(applications(Typed(0xC1, [(b"b", 1)]))) == {}
    assert fields_of(b"\0\x53\x74\xc1\x06\2\xa1\2" + BAD + b"\x41") == {}


def test_x_annotations_are_headers_and_the_others_are_not():
    octets = annotations({Symbol("x-opt-a"): "1", Symbol("b"): "2", Symbol("x-" + "n" * 254): 3})
    assert v091_of(octets)["headers"] == {b"x-opt-a": b"1"}


def test_the_annotations_of_a_broker_are_left_out():
    names = ("x-exchange", "x-routing-key", "x-death", "x-basic-priority", "x-basic-type")
    assert v091_of(annotations({Symbol(name): 1 for name in names})) == {"delivery_mode": 1}


def test_x_cc_is_the_header_cc():
    assert v091_of(annotations({Symbol("x-cc"): ["a", "b"]}))["headers"] == {b"CC": [b"a", b"b"]}


def test_x_basic_type_is_the_type():
    found = v091_of(annotations({Symbol("x-basic-type"): "t"}))
    assert found == {"delivery_mode": 1, "type": b"t"}
    assert "type" not in v091_of(annotations({Symbol("x-basic-type"): "t" * 256}))


def test_delivery_annotations_and_what_nobody_knows_are_skipped():
    octets = section(0x71, {Symbol("x-a"): 1}) + section(0x7F, "?") + described(HEADER, True)
    assert v091_of(octets) == {"delivery_mode": 2}


def test_every_type_has_its_field():
    for value, field in (
        ("text", b"S\0\0\0\4text"), ("", b"S\0\0\0\0"), ("t" * 300, b"S\0\0\1\x2c" + b"t" * 300),
        (Symbol("s"), b"S\0\0\0\1s"), (b"\0\xff", b"x\0\0\0\2\0\xff"), (None, b"V"),
        (True, b"t\1"), (False, b"t\0"), (Typed(0x56, True), b"t\1"), (Typed(0x56, False), b"t\0"),
        (Typed(0x50, 200), b"B\xc8"), (Typed(0x51, -2), b"b\xfe"),
        (Typed(0x60, 50000), b"u\xc3\x50"), (Typed(0x61, -2), b"s\xff\xfe"),
        (Typed(0x70, 0xFFFFFFFE), b"i\xff\xff\xff\xfe"),
        (Typed(0x52, 200), b"i\0\0\0\xc8"), (Typed(0x43, 0), b"i\0\0\0\0"),
        (Typed(0x71, -2), b"I\xff\xff\xff\xfe"), (Typed(0x54, -2), b"I\xff\xff\xff\xfe"),
        (Typed(0x54, 2), b"I\0\0\0\2"), (Typed(0x55, -2), b"l" + b"\xff" * 7 + b"\xfe"),
        (Typed(0x55, 2), b"l" + b"\0" * 7 + b"\2"), (Typed(0x81, 2**40), b"l\0\0\1\0\0\0\0\0"),
        (Typed(0x80, 2**63 - 1), b"l\x7f" + b"\xff" * 7),
        (Typed(0x53, 200), b"l" + b"\0" * 7 + b"\xc8"),
        (Typed(0x44, 0), b"l" + b"\0" * 8), (Typed(0x72, 1.5), b"f\x3f\xc0\0\0"),
        (Typed(0x82, 1.5), b"d\x3f\xf8\0\0\0\0\0\0"), (Typed(0x83, 1999), b"T\0\0\0\0\0\0\0\1"),
    ):  # fmt: skip
        assert field_of(value) == field, value


def test_a_double_keeps_all_its_bits():
    octets = b"\0\x53\x74\xc1\x0d\2\xa1\1k\x82\x3f\xb9\x99\x99\x99\x99\x99\x9a"
    assert fields_of(octets) == {b"k": b"d\x3f\xb9\x99\x99\x99\x99\x99\x9a"}


def test_types_without_a_field_are_left_out():
    for value in (
        Typed(0x80, 2**63), Typed(0x83, -1), Typed(0x73, "c"), Typed(0x74, b"1234"),
        Typed(0x84, b"12345678"), Typed(0x94, UUID), Typed(0x98, UUID), Typed(0xA1, BAD),
        Described(Symbol("d"), "x"),
    ):  # fmt: skip
        assert field_of(value) is None, value
        assert field_of([value, True]) == b"A\0\0\0\2t\1", value
        assert field_of({"a": value}) == b"F\0\0\0\0", value


def test_lists_and_maps_are_arrays_and_tables():
    assert field_of([]) == b"A\0\0\0\0"
    assert field_of(Typed(0xD0, [True, None])) == b"A\0\0\0\3t\1V"
    assert field_of({Symbol("k"): ["v"]}) == b"F\0\0\0\x0d\1kA\0\0\0\6S\0\0\0\1v"
    assert field_of({5: True, "n" * 256: True}) == b"F\0\0\0\0"
    twice = Typed(0xC1, [("k", True), (Symbol("k"), False)])
    assert field_of(twice) == b"F\0\0\0\4\1kt\1"


def test_arrays_are_arrays():
    for items, of, fields in (
        ([1, 2**32 - 1], b"\x70", b"i\0\0\0\1i\xff\xff\xff\xff"),
        ([True, True], b"\x41", b"t\1t\1"),
        (["a", ""], b"\xa1", b"S\0\0\0\1aS\0\0\0\0"), ([None, None], b"\x40", b"VV"),
        (["a", "bc"], b"\xb3", b"S\0\0\0\1aS\0\0\0\2bc"),
        ([-1, 5], b"\x54", b"I\xff\xff\xff\xffI\0\0\0\5"),
        ([2**63, 5], b"\x80", b"l\0\0\0\0\0\0\0\5"), (["a"], b"\0\xa3\1d\xa1", b""),
        ([], None, b""),
    ):  # fmt: skip
        for code in (0xE0, 0xF0):
            array = Typed(code, items, of)
            assert field_of(array) == b"A" + wire.long(fields), array
    inner = [Typed(0xE0, [1], b"\x50"), Typed(0xE0, [2, 3], b"\x50")]
    field = b"A\0\0\0\x10A\0\0\0\2B\1A\0\0\0\4B\2B\3"
    assert field_of(Typed(0xE0, inner, b"\xe0")) == field


def test_the_deepest_values_convert_both_ways():
    value = True
    field = b"t\1"
    for _ in range(7):
        value = [value]
        field = b"A" + wire.long(field)
    assert field_of(value) == field
    assert is_same(annotation_of(field), value)
    # Arrays of 0-9-1 may be one deeper: the innermost is left out then.
    value = []
    for _ in range(6):
        value = [value]
    assert is_same(annotation_of(b"A" + wire.long(field)), value)


def test_sections_may_be_described_by_names_and_long_numbers():
    octets = (
        write_value(Described(Symbol("amqp:header:list"), [True]))
        + write_value(Described(Symbol("amqp:message-annotations:map"), {Symbol("x-a"): 1}))
        + b"\0\x80\0\0\0\0\0\0\0\x73" + write_value([None, b"guest"])
        + write_value(Described(Typed(0xB3, "amqp:application-properties:map"), {"k": 1}))
    )  # fmt: skip
    found = v091_of(octets)
    assert found["delivery_mode"] == 2 and found["user_id"] == b"guest"
    assert found["headers"] == {b"x-a": 1, b"k": 1}


# --- bodies ---


def find_body(body):
    """find_body() of *body*, which is asked for few octets at a time."""

    def read(i, n):
        assert n <= convert.SPAN_HEAD and i + n <= len(body)
        return body[i : i + n]

    return convert.find_body(read, len(body))


def test_one_data_section_is_its_octets():
    for payload in (b"", b"p", b"p" * 255, b"p" * 256, b"p" * 70000):
        for descriptor in (
            Typed(0x53, DATA), Symbol("amqp:data:binary"), Typed(0xB3, "amqp:data:binary"),
            Typed(0x80, DATA),
        ):  # fmt: skip
            body = write_value(Described(descriptor, payload))
            at, n = find_body(body)
            assert body[at : at + n] == payload and at + n == len(body)


def test_a_footer_behind_data_is_dropped():
    body = section(DATA, b"one") + section(0x78, {Symbol("f"): 1})
    at, n = find_body(body)
    assert body[at : at + n] == b"one"


def test_all_else_stays_encoded_and_says_so():
    footer = section(0x78, {Symbol("f"): 1})
    for body in (
        section(VALUE, "text"), section(VALUE, {"k": 1}) + footer, section(VALUE, b""),
        section(SEQUENCE, [1]) + section(SEQUENCE, ["x"]),
        section(DATA, b"one") + section(DATA, b"") + section(DATA, b"two" * 100),
    ):  # fmt: skip
        assert find_body(body) is None
    assert v091_of(b"", True) == {"delivery_mode": 1, "type": b"amqp-1.0"}
    assert v091_of(annotations({Symbol("x-basic-type"): "t"}), True)["type"] == b"amqp-1.0"


def test_a_plain_body_never_says_that_it_is_encoded():
    assert v091_of(annotations({Symbol("x-basic-type"): "amqp-1.0"})) == {"delivery_mode": 1}


def test_a_plain_body_becomes_one_data_section():
    assert convert.data_head(0) == b"\0\x53\x75\xa0\0"
    assert convert.data_head(255) == b"\0\x53\x75\xa0\xff"
    assert convert.data_head(256) == b"\0\x53\x75\xb0\0\0\1\0"
    assert convert.data_head(3) + b"abc" == section(DATA, b"abc")


def test_the_type_says_whether_a_body_is_encoded():
    assert convert.is_encoded(write_properties({"type": "amqp-1.0", "headers": {"a": 1}}))
    for properties in ({}, {"type": "amqp-1"}, {"app_id": "amqp-1.0"}):
        assert not convert.is_encoded(write_properties(properties))


def test_an_encoded_body_is_a_body_of_1_0():
    footer = section(0x78, {Symbol("f"): 1})
    data, value = section(DATA, b"one"), section(VALUE, None)
    sequence = section(SEQUENCE, [1])
    for body in (
        data, data + data, data + footer, value, value + footer, sequence + sequence + footer,
        write_value(Described(Symbol("amqp:amqp-value:*"), "v")),
        section(SEQUENCE, Typed(0x45, [])),
    ):  # fmt: skip
        assert convert.is_body(b"?" + body + b"?", 1, 1 + len(body)), body
    for body in (
        b"", footer, b"plain text", data + value, value + value, value + data, sequence + data,
        footer + data, data + footer + footer, data + footer + data, section(DATA, "text"),
        section(SEQUENCE, {}), described(HEADER, True) + data, data + b"\0", b"\0", b"\0\x53",
        b"\0\x53\x75", section(0x78, [1]), write_value(Described("amqp:data:binary", b"x")),
        write_value(Described(Typed(0x52, DATA), b"x")), write_value(b"x"), data[:-1],
    ):  # fmt: skip
        assert not convert.is_body(b"?" + body + b"?", 1, 1 + len(body)), body


# --- 0-9-1 to 1.0 ---


def test_a_message_without_properties_has_a_header_and_where_it_went():
    sections = v10_of({}, b"amq.topic", b"a.b")
    assert sections == {
        HEADER: [False, None, None, True],
        0x72: {Symbol("x-exchange"): "amq.topic", Symbol("x-routing-key"): "a.b"},
    }  # fmt: skip


def test_exchange_and_routing_key_that_are_not_text_are_left_out():
    sections = v10_of({}, BAD, b"")
    assert sections[0x72] == {Symbol("x-routing-key"): ""}
    assert v10_of({}, BAD, BAD) == {HEADER: [False, None, None, True]}


def test_delivery_mode_2_is_durable():
    for mode, durable in ((2, True), (1, False), (0, False), (3, False)):
        assert v10_of({"delivery_mode": mode})[HEADER][0] is durable


def test_priority_is_priority_again():
    for priority in (0, 9, 255):
        assert v10_of({"priority": priority})[HEADER][1] == priority


def test_expiration_is_ttl():
    for expiration, ttl in (("0", 0), ("60000", 60000), ("007", 7), ("x", None), ("", None),
                            ("-1", None), ("1.5", None), ("4294967296", None)):  # fmt: skip
        assert v10_of({"expiration": expiration})[HEADER][2] == ttl, expiration


def test_redelivered_is_not_first_acquirer():
    header = v10_of({}, tries=3)[HEADER]
    assert header[3] is False and header[4] == 3


def test_ids_are_uuids_or_strings():
    for name, k in (("message_id", 0), ("correlation_id", 5)):
        assert property_of(name, URN, k) == UUID
        assert property_of(name, b"urn:uuid:" + URN[9:].upper(), k) == UUID
        for text in (b"", b"m" * 255, GRUSS.encode(), b"12", URN[:-1], URN + b"0",
                     URN[:-1] + b"g", URN[:9], URN.replace(b"-", b"0")):  # fmt: skip
            assert is_same(property_of(name, text, k), str(text, "utf-8")), text
        for wrong in (BAD, b"a\0"):
            assert property_of(name, wrong, k) is None


def test_user_id_is_binary():
    assert property_of("user_id", b"guest", 1) == b"guest"
    assert property_of("user_id", BAD, 1) == BAD


def test_reply_to_is_the_address_of_a_queue():
    for name, address in ((b"q", "/queues/q"), (b"a/b c", "/queues/a%2Fb%20c"),
                          (b"amq.rabbitmq.reply-to.g2", "/queues/amq.rabbitmq.reply-to.g2"),
                          (GRUSS.encode(), "/queues/gr%C3%BC%C3%9F"), (BAD, None)):  # fmt: skip
        assert property_of("reply_to", name, 4) == address


def test_content_type_and_encoding_are_symbols():
    assert property_of("content_type", b"text/plain", 6) == Symbol("text/plain")
    assert property_of("content_encoding", b"gzip", 7) == Symbol("gzip")
    assert property_of("content_type", GRUSS.encode(), 6) is None
    assert property_of("content_encoding", BAD, 7) is None


def test_a_timestamp_is_a_creation_time_in_milliseconds():
    for seconds in (0, 1700000000, (2**63 - 1) // 1000):
        assert property_of("timestamp", seconds, 9) == seconds * 1000
    for seconds in ((2**63 - 1) // 1000 + 1, 2**64 - 1):
        assert property_of("timestamp", seconds, 9) is None


def test_app_id_is_group_id():
    assert property_of("app_id", b"a", 10) == "a"
    assert property_of("app_id", BAD, 10) is None


def test_type_is_the_annotation_x_basic_type():
    for kind in ("t", "amqp-1.0"):
        assert v10_of({"type": kind})[0x72][Symbol("x-basic-type")] == kind
    assert Symbol("x-basic-type") not in v10_of({"type": BAD})[0x72]


def test_cluster_id_is_dropped():
    assert sorted(v10_of({"cluster_id": "c"})) == [HEADER, 0x72]


def test_headers_are_application_properties():
    sections = v10_of({"headers": {"a": "1", GRUSS: True, "": 1, "X-c": None}})
    assert sections[0x74] == {"a": "1", GRUSS: True, "": 1, "X-c": None}
    assert 0x74 not in v10_of({"headers": {BAD: "1", b"a\0": "2"}})
    assert 0x74 not in v10_of({"headers": {}})


def test_x_headers_are_annotations():
    headers = {"x-a": "1", "x-list": [1, {"k": ["v"]}], "x-\u00fc": "no ASCII"}
    sections = v10_of({"headers": headers})
    assert 0x74 not in sections
    assert sections[0x72] == {
        Symbol("x-exchange"): "", Symbol("x-routing-key"): "", Symbol("x-a"): "1",
        Symbol("x-list"): [1, {Symbol("k"): ["v"]}],
    }  # fmt: skip


def test_tables_and_arrays_are_no_application_properties():
    assert 0x74 not in v10_of({"headers": {"list": [1], "map": {"a": 1}}})


def test_cc_is_the_annotation_x_cc():
    sections = v10_of({"headers": {"CC": ["a", "b"], "BCC": ["c"]}})
    assert sections[0x72][Symbol("x-cc")] == ["a", "b"] and 0x74 not in sections
    assert v10_of({"headers": {"CC": "no array"}})[0x74] == {"CC": "no array"}


def test_a_publisher_cannot_say_where_a_message_went():
    headers = {"x-exchange": "lie", "x-routing-key": "lie", "x-basic-type": "lie"}
    found = v10_of({"headers": headers, "type": "t"}, b"e", b"k")[0x72]
    assert sorted(found.values()) == ["e", "k", "t"] and len(found) == 3


def test_every_field_has_its_value():
    eight = b"\x81\2\3\4\5\6\7\x08"
    for field, value in (
        (b"t\0", b"\x42"), (b"t\1", b"\x41"), (b"t\5", b"\x41"), (b"b\xfe", b"\x51\xfe"),
        (b"B\xfe", b"\x50\xfe"), (b"s\xff\xfe", b"\x61\xff\xfe"), (b"U\xff\xfe", b"\x61\xff\xfe"),
        (b"u\xff\xfe", b"\x60\xff\xfe"), (b"I\xff\0\0\1", b"\x71\xff\0\0\1"),
        (b"i\xff\0\0\1", b"\x70\xff\0\0\1"), (b"l" + eight, b"\x81" + eight),
        (b"L" + eight, b"\x81" + eight), (b"f\x3f\xc0\0\0", b"\x72\x3f\xc0\0\0"),
        (b"d" + eight, b"\x82" + eight), (b"V", b"\x40"),
        (b"T\0\0\0\0\0\0\0\2", b"\x83\0\0\0\0\0\0\7\xd0"), (b"T" + b"\xff" * 8, None),
        (b"D\2\0\0\0\1", None), (b"S\0\0\0\1a", b"\xa1\1a"), (b"S\0\0\0\0", b"\xa1\0"),
        (b"S\0\0\0\2" + BAD, b"\xa0\2" + BAD), (b"S\0\0\0\1\0", b"\xa0\1\0"),
        (b"S\0\0\0\xff" + b"a" * 255, b"\xa1\xff" + b"a" * 255),
        (b"S\0\0\1\0" + b"a" * 256, b"\xb0\0\0\1\0" + b"a" * 256), (b"x\0\0\0\1a", b"\xa0\1a"),
    ):  # fmt: skip
        assert value_of(field) == value, field


def test_arrays_and_tables_in_annotations_are_lists_and_maps():
    assert is_same(annotation_of(b"A\0\0\0\0"), [])
    assert is_same(annotation_of(b"F\0\0\0\0"), {})
    assert annotation_of(b"A\0\0\0\x09t\1D\2\0\0\0\1V") == [True, None]
    long_one = annotation_of(b"A" + wire.long(b"V" * 300))
    assert long_one == [None] * 300
    fields = b"\1at\1" + b"\2\xc3\xbct\0" + b"\2" + BAD + b"V" + b"\1dD\0\0\0\0\0"
    found = annotation_of(b"F" + wire.long(fields))
    assert found == {Symbol("a"): True, "\u00fc": False}


# --- there and back ---


def test_0_9_1_comes_back_but_for_the_cluster():
    properties = {
        "content_type": b"text/plain", "content_encoding": b"gzip", "delivery_mode": 2,
        "priority": 9, "correlation_id": URN, "reply_to": b"reply/to", "expiration": b"1000",
        "message_id": b"m", "timestamp": 1700000000, "type": b"t", "user_id": b"guest",
        "app_id": b"app", "cluster_id": b"lost",
        "headers": {b"s": b"text", b"n": -5, b"big": 2**40, b"v": None, b"t": True, b"d": 1.5,
                    b"x-list": [1, [b"a"], {b"k": False}], b"CC": [b"a"]},
    }  # fmt: skip
    back = v091_of(convert.to_v10(write_properties(properties), b"e", b"k"))
    del properties["cluster_id"]
    assert back == properties


def test_0_9_1_loses_this():
    lost = {
        "headers": {b"table": {b"a": 1}, b"array": [1], b"x-\xc3\xbc": 1, BAD: 1},
        "content_type": GRUSS.encode(), "app_id": BAD, "timestamp": 2**64 - 1,
    }  # fmt: skip
    back = v091_of(convert.to_v10(write_properties(lost), b"e", b"k"))
    assert back == {"delivery_mode": 1}
    # Absent is 1; a long or odd long string comes back as octets; letters of a uuid are small.
    octets = with_headers("k", b"S\0\0\1\0" + b"a" * 256)
    assert fields_of(convert.to_v10(octets, b"", b"")) == {b"k": b"x\0\0\1\0" + b"a" * 256}
    shout = write_properties({"message_id": b"urn:uuid:" + URN[9:].upper()})
    assert v091_of(convert.to_v10(shout, b"", b""))["message_id"] == URN


def test_1_0_comes_back_octet_for_octet():
    header = described(HEADER, True, Typed(0x50, 7), Typed(0x70, 5000), True)
    rest = listed(
        message_id=Typed(0x98, UUID), user_id=b"guest", reply_to="/queues/a%2Fb",
        correlation_id="c", content_type=Symbol("t"), creation_time=Typed(0x83, 5000),
        group_id="g",
    ) + b"\0\x53\x74\xc1\x0a\4\xa1\1a\x50\x07\xa1\1b\x40"  # fmt: skip
    octets = convert.to_v10(convert.to_v091(header + rest, False), b"", b"")
    start = b"\0\x53\x72"
    assert octets.startswith(header + start) and octets.endswith(rest)


def test_1_0_loses_this():
    octets = (
        annotations({Symbol("not-x"): 1, Symbol("x-a"): Symbol("s")})
        + listed(message_id=Typed(0x53, 7), to="t", subject="s", correlation_id=b"c",
                 creation_time=Typed(0x83, 1999), group_sequence=uint(1), user_id=BAD)
        + applications({"symbol": Symbol("s"), "uuid": Typed(0x98, UUID), "small": 5})
    )  # fmt: skip
    back = sections_of(convert.to_v10(convert.to_v091(octets, False), b"", b""))
    # A ulong id is a string then, a binary one an annotation; symbols are strings.
    assert back[0x72][Symbol("x-a")] == "s" and back[0x72][Symbol("x-correlation-id")] == b"c"
    assert back[PROPERTIES] == ["7"] + [None] * 8 + [1000]
    assert back[0x74] == {"symbol": "s", "small": 5}


def test_an_encoded_body_goes_back_to_what_it_was():
    body = section(VALUE, {"k": [1, 2]}) + section(0x78, {Symbol("f"): 1})
    assert find_body(body) is None
    properties = convert.to_v091(b"", True)
    assert convert.is_encoded(properties) and convert.is_body(body, 0, len(body))


# --- hostile input ---


def test_random_sections_that_pass_the_checks_are_converted_or_refused():
    random = chance.seeded()
    good = (
        described(HEADER, True, Typed(0x50, 4), uint(70000))
        + annotations({Symbol("x-a"): [1, {"k": "v"}], Symbol("x-cc"): ["q"]})
        + listed(message_id="m", user_id=b"u", reply_to="/queues/q", group_id="g",
                 correlation_id=Typed(0x53, 7), creation_time=Typed(0x83, 5))
        + applications({"a": "text", "b": Typed(0xE0, [1, 2], b"\x70"), "c": Typed(0x82, 1.5)})
    )  # fmt: skip
    fields = Fields()
    converted = 0
    for _ in range(400):
        octets = bytearray(good)
        for _ in range(random.getrandbits(2) + 1):
            octets[random.getrandbits(16) % len(octets)] = random.getrandbits(8)
        try:  # what a link does before it stores them
            i = 0
            while i < len(octets):
                stop = check_value(octets, i, len(octets))
                assert octets[i : i + 2] == b"\0\x53"
                if octets[i + 2] in (HEADER, PROPERTIES):
                    fields.scan(octets, i, len(octets))
                i = stop
        except (AMQPError, AssertionError):
            continue
        made = convert.to_v091(octets, False)
        try:
            v091.Properties().scan(made, 0, len(made))
        except PreconditionFailed:
            continue  # a ttl longer than this broker keeps anything
        sections_of(convert.to_v10(made, b"", b""))
        converted += 1
    assert converted > 20


def test_random_property_lists_that_pass_the_check_are_converted():
    random = chance.seeded()
    good = write_properties({
        "content_type": "t", "headers": {"a": [1, {"k": "v"}], "x-b": [1, {"k": "v"}], "c": 1.5},
        "message_id": URN, "correlation_id": "c", "expiration": "500", "timestamp": 5, "type": "t",
        "reply_to": "r", "user_id": "u", "app_id": "a",
    })  # fmt: skip
    converted = 0
    for _ in range(400):
        octets = bytearray(good)
        for _ in range(random.getrandbits(2) + 1):
            octets[random.getrandbits(16) % len(octets)] = random.getrandbits(8)
        try:
            v091.Properties().scan(octets, 0, len(octets))
        except AMQPError:
            continue
        made = convert.to_v10(octets, chance.octets(random, 3), chance.octets(random, 3))
        sections_of(made)
        again = convert.to_v091(made, False)
        v091.Properties().scan(again, 0, len(again))
        converted += 1
    assert converted > 20


def test_random_and_cut_bodies_are_refused_without_an_error():
    random = chance.seeded()
    one = section(SEQUENCE, [1, "a"])
    good = one + section(SEQUENCE, [{"k": b"v"}])
    for n in range(len(good)):
        assert convert.is_body(good, 0, n) == (n == len(one))
    for _ in range(300):
        octets = bytearray(good)
        octets[random.getrandbits(16) % len(octets)] = random.getrandbits(8)
        assert convert.is_body(octets, 0, len(octets)) in (True, False)
        assert convert.is_body(chance.octets(random, 40), 0, 40) in (True, False)


def test_sections_that_should_be_maps_and_are_none_are_empty():
    for value in ([1], [1, 2, 3], None, "x", 5):
        octets = section(0x72, value) + section(0x74, value)
        assert v091_of(octets) == {"delivery_mode": 1}


def test_ten_thousand_octets_of_text_pass():
    text = "t" * 10000
    assert field_of(text) == b"S" + wire.long(text)
    assert value_of(b"S" + wire.long(text)) == b"\xb0\0\0\x27\x10" + text.encode()
