"""Matching of headers exchanges: all, any and their -with-x forms."""

import wire
from amqp_lite.broker.arguments import check_binding
from amqp_lite.broker.exchange import HEADERS
from amqp_lite.errors import PreconditionFailed
from amqp_lite.v091.codec import match_headers


class Binding:
    def __init__(self, arguments):
        self.arguments = arguments


def matches(arguments, headers, **more):
    octets = b"##" + wire.properties(headers=headers, **more)
    return match_headers(Binding(arguments), memoryview(octets), 2, len(octets))


def test_all_asks_for_every_header():
    rule = {b"x-match": b"all", b"a": b"1", b"b": 2}
    assert matches(rule, {"a": "1", "b": 2, "c": 3})
    assert not matches(rule, {"a": "1"})
    assert not matches(rule, {"a": "1", "b": 3})
    assert not matches(rule, {})
    assert not matches(rule, None)


def test_all_is_what_is_meant_without_x_match():
    assert matches({b"a": b"1"}, {"a": "1"})
    assert not matches({b"a": b"1", b"b": b"1"}, {"a": "1"})
    assert matches({}, None)
    assert matches({b"x-match": b"all"}, {"a": 1})


def test_any_asks_for_one_header():
    rule = {b"x-match": b"any", b"a": b"1", b"b": 2}
    assert matches(rule, {"a": "1"})
    assert matches(rule, {"b": 2, "a": "2"})
    assert not matches(rule, {"a": "2", "b": 3})
    assert not matches(rule, None)
    assert not matches({b"x-match": b"any"}, {"a": 1})


def test_headers_that_begin_with_x_count_only_when_asked_for():
    for mode, others in ((b"all", {}), (b"any", {b"a": b"1"})):
        rule = dict(others)
        rule[b"x-kind"] = b"hot"
        rule[b"x-match"] = mode
        assert matches(rule, {"a": "1"}), mode
    assert not matches({b"x-match": b"any", b"x-kind": b"hot"}, {"x-kind": "hot"})
    assert not matches({b"x-match": b"all-with-x", b"x-kind": b"hot"}, {"a": "1"})
    assert matches({b"x-match": b"all-with-x", b"x-kind": b"hot"}, {"x-kind": "hot"})
    assert matches({b"x-match": b"any-with-x", b"x-kind": b"hot", b"a": 1}, {"x-kind": "hot"})
    assert not matches({b"x-match": b"any-with-x", b"x-kind": b"hot"}, {"x-kind": "cold"})


def test_a_void_asks_only_that_the_header_is_there():
    assert matches({b"a": None}, {"a": "anything"})
    assert matches({b"a": None}, {"a": 0})
    assert not matches({b"a": None}, {"b": 0})
    assert matches({b"x-match": b"any", b"a": None, b"b": 1}, {"a": [1]})


def test_values_of_other_types_are_other_values():
    assert not matches({b"a": 1}, {"a": True})
    assert not matches({b"a": True}, {"a": 1})
    assert matches({b"a": True}, {"a": True})
    assert not matches({b"a": True}, {"a": False})
    assert not matches({b"a": b"1"}, {"a": 1})
    assert not matches({b"a": 1}, {"a": "1"})
    assert not matches({b"a": b""}, {"a": None})
    assert matches({b"a": b""}, {"a": ""})
    assert matches({b"a": {b"b": [1, b"2"]}}, {"a": {"b": [1, "2"]}})
    assert not matches({b"a": {b"b": [1, b"2"]}}, {"a": {"b": [1]}})


def test_integers_of_any_width_compare_by_value():
    table = wire.field("a", "l", b"\0\0\0\0\0\0\0\x07") + wire.field("b", "B", b"\x07")
    assert matches({b"a": 7, b"b": 7}, table)
    assert not matches({b"a": 7, b"b": 8}, table)
    table = wire.field("a", "d", b"\x40\x1c\0\0\0\0\0\0")  # 7.0
    assert matches({b"a": 7}, table)


def test_names_are_compared_whole():
    assert not matches({b"a": 1}, {"ab": 1})
    assert not matches({b"ab": 1}, {"a": 1})
    assert not matches({b"a": 1}, {"A": 1})
    assert matches({b"": 1}, {"": 1})


def test_headers_are_found_behind_other_properties():
    assert matches({b"a": 1}, {"a": 1}, content_type="text/plain", content_encoding="utf-8",
                   app_id="z", priority=3)  # fmt: skip
    assert not matches({b"a": 1}, None, content_type="text/plain", app_id="a")


def test_an_unknown_x_match_is_refused():
    for good in (b"all", b"any", b"all-with-x", b"any-with-x"):
        check_binding({b"x-match": good}, HEADERS)
    check_binding({}, HEADERS)
    for bad in (b"", b"ALL", b"none", 1, None, True):
        try:
            check_binding({b"x-match": bad}, HEADERS)
        except PreconditionFailed:
            continue
        assert False, bad
