"""pika: the exchange types, and the rules for declaring and deleting exchanges."""

import pytest

from interop_support import (
    channel_closes,
    client_library,
    connection_closes,
    drain,
    exclusive_queue,
    publish,
)

pika = client_library("pika")

# The empty key is no word at all: "*" has nothing to match. Two dots have an empty word between.
KEYS = ["", "a", "a.b", "a.b.c", "b", "b.a", "a..b", "x.a.b"]
PATTERNS = {
    "#": KEYS,
    "*": ["a", "b"],
    "a": ["a"],
    "a.*": ["a.b"],
    "a.#": ["a", "a.b", "a.b.c", "a..b"],
    "#.b": ["a.b", "b", "a..b", "x.a.b"],
    "*.b": ["a.b"],
    "*.*.*": ["a.b.c", "a..b", "x.a.b"],
    "#.a.#": ["a", "a.b", "a.b.c", "b.a", "a..b", "x.a.b"],
    "a.*.#": ["a.b", "a.b.c", "a..b"],
    "#.#": KEYS,
    "a.b.c.d": [],
}


def test_direct_takes_the_equal_key(channel, fresh):
    exchange, queue = fresh.exchange(), exclusive_queue(channel)
    channel.exchange_declare(exchange, "direct")
    channel.queue_bind(queue, exchange, "red")
    channel.queue_bind(queue, exchange, "green")
    for key in ("red", "green", "blue", "re", "red.x", "RED"):
        channel.basic_publish(exchange, key, key.encode())
    assert drain(channel, queue) == [b"red", b"green"]


def test_fanout_takes_every_key(channel, fresh):
    exchange = fresh.exchange()
    channel.exchange_declare(exchange, "fanout")
    queues = [exclusive_queue(channel) for _ in range(3)]
    for n, queue in enumerate(queues):
        channel.queue_bind(queue, exchange, "key-%d" % n)
    for key in ("", "key-0", "other"):
        channel.basic_publish(exchange, key, key.encode())
    assert [drain(channel, queue) for queue in queues] == [[b"", b"key-0", b"other"]] * 3


def test_topic_matches_words_and_wildcards(channel, fresh):
    exchange, queue = fresh.exchange(), exclusive_queue(channel)
    channel.exchange_declare(exchange, "topic")
    for pattern, matching in PATTERNS.items():
        channel.queue_bind(queue, exchange, pattern)
        for key in KEYS:
            channel.basic_publish(exchange, key, key.encode())
        assert drain(channel, queue) == [key.encode() for key in matching], pattern
        channel.queue_unbind(queue, exchange, pattern)


def test_a_queue_bound_several_times_gets_one_copy(channel, fresh):
    exchange, queue = fresh.exchange(), exclusive_queue(channel)
    channel.exchange_declare(exchange, "topic")
    for pattern in ("#", "a.*", "a.b", "a.b"):
        channel.queue_bind(queue, exchange, pattern)
    channel.basic_publish(exchange, "a.b", b"once")
    assert drain(channel, queue) == [b"once"]


def test_the_default_exchange_routes_by_queue_name(channel):
    queue = exclusive_queue(channel)
    publish(channel, queue, b"by name")
    channel.basic_publish("", queue + "x", b"elsewhere")
    assert drain(channel, queue) == [b"by name"]


def test_the_default_exchange_takes_no_bindings(connect):
    connection = connect()
    channel = connection.channel()
    queue = exclusive_queue(channel)
    with channel_closes(403):
        channel.queue_bind(queue, "", "key")
    with channel_closes(403):
        connection.channel().queue_unbind(queue, "", queue)
    with channel_closes(403):
        connection.channel().exchange_delete("")


def test_passive_finds_an_exchange_and_answers_404_without_one(channel, fresh):
    exchange = fresh.exchange()
    channel.exchange_declare(exchange, "direct")
    channel.exchange_declare(exchange, passive=True)
    with channel_closes(404):
        channel.exchange_declare(exchange + "x", passive=True)


def test_publishing_to_an_absent_exchange_is_404(channel):
    channel.confirm_delivery()
    with channel_closes(404):
        channel.basic_publish("there-is-no-such-exchange", "key", b"body")


def test_an_internal_exchange_refuses_publishers_with_403(channel, fresh):
    exchange = fresh.exchange()
    channel.exchange_declare(exchange, "fanout", internal=True)
    channel.confirm_delivery()
    with channel_closes(403):
        channel.basic_publish(exchange, "key", b"body")


@pytest.mark.parametrize(
    "change",
    [
        {"exchange_type": "topic"},
        {"durable": True},
        {"auto_delete": True},
        {"internal": True},
        {"arguments": {"alternate-exchange": "amq.fanout"}},
    ],
    ids=lambda change: "-".join(change),
)
def test_declaring_again_with_another_property_is_406(channel, fresh, change):
    exchange = fresh.exchange()
    channel.exchange_declare(exchange, "direct")
    channel.exchange_declare(exchange, "direct")
    with channel_closes(406):
        channel.exchange_declare(exchange, **dict({"exchange_type": "direct"}, **change))


def test_an_unknown_type_is_503(channel, fresh):
    with connection_closes(503):
        channel.exchange_declare(fresh.exchange(), "x-there-is-no-such-type")


def test_names_beginning_with_amq_are_reserved(connect):
    connection = connect()
    with channel_closes(403):
        connection.channel().exchange_declare("amq.mine", "direct")
    connection.channel().exchange_declare(
        "amq.direct", "direct", durable=True
    )  # no change asked for


def test_a_deleted_exchange_is_gone_with_its_bindings(connect, fresh):
    connection = connect()
    channel = connection.channel()
    exchange, queue = fresh.exchange(), exclusive_queue(channel)
    channel.exchange_declare(exchange, "fanout")
    channel.queue_bind(queue, exchange)
    channel.exchange_delete(exchange)
    channel.exchange_declare(exchange, "fanout")
    channel.basic_publish(exchange, "", b"unbound")
    assert drain(channel, queue) == []
    channel.exchange_delete(exchange)
    channel.exchange_delete(exchange)  # nothing left to delete is no error
    with channel_closes(404):
        channel.exchange_declare(exchange, passive=True)


def test_delete_if_unused_spares_a_bound_exchange(connect, fresh):
    connection = connect()
    channel = connection.channel()
    exchange, queue = fresh.exchange(), exclusive_queue(channel)
    channel.exchange_declare(exchange, "fanout")
    channel.queue_bind(queue, exchange)
    with channel_closes(406):
        channel.exchange_delete(exchange, if_unused=True)
    channel = connection.channel()
    channel.queue_unbind(queue, exchange)
    channel.exchange_delete(exchange, if_unused=True)


def test_an_auto_delete_exchange_goes_with_its_last_binding(channel, fresh):
    exchange, queue = fresh.exchange(), exclusive_queue(channel)
    channel.exchange_declare(exchange, "direct", auto_delete=True)
    channel.queue_bind(queue, exchange, "one")
    channel.queue_bind(queue, exchange, "two")
    channel.queue_unbind(queue, exchange, "one")
    channel.exchange_declare(exchange, passive=True)
    channel.queue_unbind(queue, exchange, "two")
    with channel_closes(404):
        channel.exchange_declare(exchange, passive=True)
