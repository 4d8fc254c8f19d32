"""Addresses of AMQP 1.0: what each form means, what is refused, and addresses made from names."""

from amqp_lite.errors import AMQPError, NotAllowed
from amqp_lite.v10.address import (
    ANONYMOUS,
    DECLARED,
    EXCHANGE,
    PLAIN,
    QUEUE,
    exchange_address,
    parse_source,
    parse_target,
    queue_address,
)
from amqp_lite.v10.conditions import InvalidField, condition_of

# Forms that mean the same as a target and as a source: (kind, exchange, key, queue).
BOTH = {
    "/queues/q": (QUEUE, b"", b"q", b"q"),
    "/queues/my%2Fqueue": (QUEUE, b"", b"my/queue", b"my/queue"),
    "/queues/%F0%9F%8E%88": (QUEUE, b"", b"\xf0\x9f\x8e\x88", b"\xf0\x9f\x8e\x88"),
    "/queues/a%20b%25%41%c3%a9+": (QUEUE, b"", b"a b%A\xc3\xa9+", b"a b%A\xc3\xa9+"),
    "/queues/%2525": (QUEUE, b"", b"%25", b"%25"),  # decoded once
    "/amq/queue/q": (QUEUE, b"", b"q", b"q"),
    "/amq/queue/amq.gen-1": (QUEUE, b"", b"amq.gen-1", b"amq.gen-1"),
    "/queue/q": (DECLARED, b"", b"q", b"q"),
    "/exchange/e/a.*.b": (EXCHANGE, b"e", b"a.*.b", None),
    "/exchange/e": (EXCHANGE, b"e", None, None),
    "/exchange/e/": (EXCHANGE, b"e", None, None),
    "/topic/a.#": (EXCHANGE, b"amq.topic", b"a.#", None),
    "/queue//queues/a%20b": (QUEUE, b"", b"a b", b"a b"),
    "/topic//exchange/e/k": (EXCHANGE, b"e", b"k", None),
    "q": (PLAIN, b"q", None, b"q"),
    "queues": (PLAIN, b"queues", None, b"queues"),
    "e/a.b": (PLAIN, b"e", b"a.b", b"e/a.b"),
    "e/a/b": (PLAIN, b"e", b"a/b", b"e/a/b"),  # Broker-J splits at the first one
    "e/": (PLAIN, b"e", None, b"e/"),
}
TARGETS = {
    "/exchanges/e/k": (EXCHANGE, b"e", b"k", None),
    "/exchanges/amq.direct/my-routing_key%2F123": (
        EXCHANGE, b"amq.direct", b"my-routing_key/123", None,
    ),
    "/exchanges/my%2fexchange/%20": (EXCHANGE, b"my/exchange", b" ", None),
    "/exchanges/e": (EXCHANGE, b"e", b"", None),
    "/exchanges/e/": (EXCHANGE, b"e", b"", None),
    "/queue": (EXCHANGE, b"", None, None),
}  # fmt: skip
BAD = [
    "", "/", "//", "//q", "/q", "/foo/q", "/queues", "/queues/", "/queue/", "/exchanges",
    "/exchanges/", "/exchanges//", "/exchanges//k", "/exchange", "/exchange/", "/exchange//k",
    "/topic", "/topic/", "/amq", "/amq/", "/amq/queue", "/amq/queue/", "/amq/queues/q",
    "/exchanges/amq.default", "/exchanges/amq.default/k", "/exchanges/%61mq.default/k",
    "/exchange/amq.default/k", "/management", "/temp-queue/q", "/Queues/q",
    # too many parts
    "/queues/a/b", "/queues/a/", "/exchanges/e/k/l", "/queue/a/b", "/exchange/e/k/l",
    "/topic/a/b", "/amq/queue/a/b",
]  # fmt: skip
BAD_ENCODINGS = ["%", "%4", "%zz", "a%", "%%41", "%4%31", "%+4", "% 4", "%4 ", "%é", "%0x41"]
NOT_UTF_8 = ["%FF", "%C3", "%80", "%C3A9", "a%E2%82", "é%A9"]


def refused(parse, address, kind=InvalidField):
    try:
        found = parse(address)
    except AMQPError as error:
        assert type(error) is kind, error
        assert "\n" not in error.text and 20 < len(error.text) < 200, error.text
        return error.text
    raise AssertionError("%r is %s" % (address, found))


def test_what_each_form_means_as_a_target():
    for forms in (BOTH, TARGETS):
        for address in forms:
            assert parse_target(address) == forms[address], address


def test_what_each_form_means_as_a_source():
    for address in BOTH:
        assert parse_source(address) == BOTH[address], address


def test_the_fields_have_names():
    found = parse_target("/exchange/e/k")
    assert (found.kind, found.exchange, found.key, found.queue) == (EXCHANGE, b"e", b"k", None)
    assert parse_source("/queue/q").queue == b"q"


def test_null_is_the_anonymous_terminus_as_a_target_only():
    assert parse_target(None) == (ANONYMOUS, None, None, None)
    assert refused(parse_source, None) == "a source without an address"


def test_what_is_no_address_is_refused():
    for address in BAD:
        for parse in (parse_target, parse_source):
            text = refused(parse, address)
            assert text.startswith("address '%s' " % address), text


def test_forms_of_targets_are_no_sources():
    for address in TARGETS:
        refused(parse_source, address)
    assert "/exchange/:exchange/:binding-key" in refused(parse_source, "/exchanges/e/k")


def test_bad_percent_encodings_are_refused_in_v2():
    for form in ("/queues/%s", "/exchanges/%s", "/exchanges/%s/k", "/exchanges/e/%s"):
        for part in BAD_ENCODINGS:
            assert "hexadecimal" in refused(parse_target, form % part), part
        for part in NOT_UTF_8:
            assert "UTF-8" in refused(parse_target, form % part), part


def test_what_v2_should_have_encoded_stands_for_itself():
    assert parse_target("/queues/é 1?#").queue == "é 1?#".encode()


def test_v1_and_plain_names_know_the_escape_of_a_slash_only():
    # As rabbit_routing_util of RabbitMQ 3.10.8 answers.
    for form in ("/queue/%s", "/amq/queue/%s", "%s"):
        assert parse_source(form % "a%2Fb").queue == b"a/b"
        for name in ("a%20b", "a%2fb", "50%", "%zz", "%FF"):
            assert parse_source(form % name).queue == name.encode()
    assert parse_target("/exchange/a%2Fb/c%2Fd") == (EXCHANGE, b"a/b", b"c/d", None)
    assert parse_target("/topic/a%2Fb").key == b"a/b"
    assert parse_target("a%2Fb") == (PLAIN, b"a/b", None, b"a/b")
    assert parse_target("a%2Fb/c%2Fd") == (PLAIN, b"a/b", b"c/d", b"a/b/c/d")


def test_a_part_has_255_octets_at_most():
    longest = "é" * 127 + "x"
    name = longest.encode()
    assert len(name) == 255
    for form in ("/queues/%s", "/queue/%s", "/amq/queue/%s", "%s"):
        assert parse_target(form % longest).queue == name
        assert "256 octets" in refused(parse_target, form % (longest + "y"))
    for form in ("/exchanges/e/%s", "/exchange/e/%s", "/topic/%s"):
        assert parse_target(form % longest).key == name
        assert "256 octets" in refused(parse_target, form % (longest + "y"))
    for form in ("/exchanges/%s/k", "/exchanges/%s", "/exchange/%s"):
        assert parse_target(form % longest).exchange == name
        refused(parse_target, form % (longest + "y"))
    # What is decoded counts, and in a plain address the whole.
    assert parse_target(queue_address(b"/" * 255)).queue == b"/" * 255
    assert parse_target("e/" + "k" * 253).key == b"k" * 253
    refused(parse_target, "e/" + "k" * 254)


def test_an_address_of_a_host_is_not_allowed():
    for address in ("amqp://host/q", "amqps://host:5671/queues/q", "AMQP://host", "amqp://"):
        for parse in (parse_target, parse_source):
            text = refused(parse, address, NotAllowed)
            assert text.startswith("address '%s' names a host" % address), text
    assert parse_target("amqp:/q").kind == PLAIN
    assert parse_target("amqpx://q").kind == PLAIN


def test_errors_quote_60_letters_of_the_address_in_one_line():
    text = refused(parse_target, "/queues/" + "é" * 52 + "/x")
    assert text.startswith("address '/queues/" + "é" * 52 + "...' has"), text
    text = refused(parse_target, "/foo/" + "x" * 55)
    assert text.startswith("address '/foo/" + "x" * 55 + "' begins"), text
    assert refused(parse_target, "/a\r\nb\0").startswith("address '/a??b?' "), text


def test_errors_have_a_condition():
    for address, condition in (("/foo", "invalid-field"), ("amqp://host/q", "not-allowed")):
        try:
            parse_target(address)
        except AMQPError as error:
            assert condition_of(error) == "amqp:" + condition


def test_addresses_are_made_with_percent_encoding():
    assert queue_address(b"q") == "/queues/q"
    assert queue_address(b"a/b c%") == "/queues/a%2Fb%20c%25"
    assert queue_address("é🎈".encode()) == "/queues/%C3%A9%F0%9F%8E%88"
    assert queue_address(bytearray(b"q:1")) == "/queues/q%3A1"
    assert exchange_address(b"e") == exchange_address(b"e", b"") == "/exchanges/e"
    assert exchange_address(b"amq.topic", b"a.*.#") == "/exchanges/amq.topic/a.%2A.%23"
    assert exchange_address(b"e/f", b"/") == "/exchanges/e%2Ff/%2F"
    assert exchange_address(b"", b"q") == "/queues/q"
    # RFC 3986 §2.3
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
    assert queue_address(plain) == "/queues/" + str(plain, "utf-8")
    for octet in range(256):
        if octet not in plain:
            assert queue_address(bytes((octet,))) == "/queues/%%%02X" % octet


def test_names_come_back_from_the_addresses_made_of_them():
    names = [bytes((octet,)) for octet in range(128)]
    names += [(chr(k) + chr(k * 3)).encode() for k in (0x80, 0x7FF, 0x800, 0x1FFF)]
    names += [chr(k).encode() for k in (0xD7FF, 0xE000, 0xFFFD, 0x10000, 0x10FFFF)]
    names += [bytes(range(128)), "%2F/%25".encode(), b"%", "äöü ✓".encode()]
    for name in names:
        assert parse_target(queue_address(name)) == (QUEUE, b"", name, name)
        assert parse_source(queue_address(name)) == (QUEUE, b"", name, name)
        assert parse_target(exchange_address(name)) == (EXCHANGE, name, b"", None)
        for key in (b"k", name, b"/" + name):
            assert parse_target(exchange_address(name, key)) == (EXCHANGE, name, key, None)
