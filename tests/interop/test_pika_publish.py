"""pika: what may be published, and what the publisher is told."""

import datetime
import decimal

import pytest

from interop_support import (
    channel_closes,
    client_library,
    drain,
    exclusive_queue,
    publish,
    pump,
    settle,
)

pika = client_library("pika")

FRAME = 4096  # agreed frame_max, octets of the whole frame
PAYLOAD = FRAME - 8  # octets of body in one frame


@pytest.mark.parametrize("size", [0, 1, PAYLOAD - 1, PAYLOAD, PAYLOAD + 1, 2 * PAYLOAD, "largest"])
def test_a_body_comes_back_as_it_was_sent(connect, limits, size):
    channel = connect(frame_max=FRAME).channel()
    queue = exclusive_queue(channel)
    size = limits.body if size == "largest" else min(size, limits.body)
    body = (b"%09d\n" * (size // 10 + 1) % tuple(range(size // 10 + 1)))[:size]
    channel.confirm_delivery()
    channel.basic_publish("", queue, body, mandatory=True)
    assert drain(channel, queue) == [body]


def test_a_large_body_is_delivered_in_frames_of_the_default_size_too(channel, limits):
    queue = exclusive_queue(channel)
    body = bytes(range(256)) * (limits.body // 256)
    got = []
    channel.basic_consume(
        queue, lambda _ch, _method, _properties, body: got.append(body), auto_ack=True
    )
    publish(channel, queue, body, b"", body)
    pump(channel.connection, lambda: len(got) == 3, "three deliveries")
    assert got == [body, b"", body]


def test_a_body_beyond_the_limit_is_311_and_costs_one_channel(connect, limits):
    if limits.over is None:
        pytest.skip("RabbitMQ takes 128 MB")
    connection = connect()
    channel, healthy = connection.channel(), connection.channel()
    queue = exclusive_queue(healthy)
    channel.confirm_delivery()
    with channel_closes(311):
        channel.basic_publish("", queue, b"x" * limits.over)
    publish(healthy, queue, b"small")
    assert drain(healthy, queue) == [b"small"]


def test_every_property_arrives_as_it_was_sent(channel, broker):
    queue = exclusive_queue(channel)
    sent = pika.BasicProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        delivery_mode=2,
        priority=255,
        correlation_id="c-1",
        reply_to="answers",
        expiration="60000",
        message_id="m-1",
        timestamp=2**40,
        type="measurement",
        user_id=broker.user,
        app_id="interop",
        cluster_id="nobody uses it",
        headers={
            "text": "è",
            "small": 1,
            "negative": -5,
            "long": 2**40,
            "yes": True,
            "nothing": None,
            "bytes": b"\x00\xff",
            "list": [1, "two", [3], {"four": 4}],
            "table": {"in": {"side": 1}},
            "price": decimal.Decimal("12.50"),
            "when": datetime.datetime(2024, 2, 29, 12, 30, 0, tzinfo=datetime.timezone.utc),
        },
    )
    channel.basic_publish("", queue, b"body", sent)
    _method, got, body = channel.basic_get(queue, auto_ack=True)
    assert body == b"body"
    assert got.headers["when"].replace(tzinfo=datetime.timezone.utc) == sent.headers["when"]
    got.headers["when"] = sent.headers["when"]
    assert vars(got) == vars(sent)


def test_a_message_without_properties_arrives_without(channel):
    queue = exclusive_queue(channel)
    channel.basic_publish("", queue, b"body")
    _method, got, _body = channel.basic_get(queue, auto_ack=True)
    assert vars(got) == vars(pika.BasicProperties())


@pytest.mark.parametrize(
    "key",
    ["k" * 255, "a." * 127 + "z", "été." * 40, " ", "a b", "#.*"],
    ids=["255", "128-words", "utf-8", "space", "two-words", "wildcards"],
)
@pytest.mark.parametrize("kind", ["direct", "topic"])
def test_long_and_odd_routing_keys_work(channel, fresh, kind, key):
    exchange, queue = fresh.exchange(), exclusive_queue(channel)
    channel.exchange_declare(exchange, kind)
    channel.queue_bind(queue, exchange, key)
    channel.basic_publish(exchange, key, b"body")
    method, _properties, body = channel.basic_get(queue, auto_ack=True)
    assert (method.routing_key, body) == (key, b"body")


def test_a_mandatory_message_without_a_queue_is_returned_as_it_was(channel, fresh):
    exchange = fresh.exchange()
    channel.exchange_declare(exchange, "direct")
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.UnroutableError) as caught:
        channel.basic_publish(
            exchange,
            "nowhere",
            b"come back",
            pika.BasicProperties(message_id="m-7"),
            mandatory=True,
        )
    (returned,) = caught.value.messages
    assert (returned.method.reply_code, returned.method.reply_text) == (312, "NO_ROUTE")
    assert (returned.method.exchange, returned.method.routing_key) == (exchange, "nowhere")
    assert (returned.properties.message_id, returned.body) == ("m-7", b"come back")


def test_a_large_mandatory_message_is_returned_whole(connect, limits):
    channel = connect(frame_max=FRAME).channel()
    channel.confirm_delivery()
    body = b"ab" * (limits.body // 2)
    with pytest.raises(pika.exceptions.UnroutableError) as caught:
        channel.basic_publish("", "there-is-no-such-queue", body, mandatory=True)
    assert caught.value.messages[0].body == body


def test_returns_come_without_confirms_too(channel):
    returned = []
    channel.add_on_return_callback(
        lambda _ch, method, _properties, body: returned.append((method.reply_code, body))
    )
    channel.basic_publish("", "there-is-no-such-queue", b"back", mandatory=True)
    channel.basic_publish("", "there-is-no-such-queue", b"gone", mandatory=False)
    pump(channel.connection, lambda: returned, "basic.return")
    channel.connection.channel()  # a round trip: nothing else is on its way
    assert returned == [(312, b"back")]


def test_an_unroutable_message_is_confirmed(channel):
    channel.confirm_delivery()
    channel.basic_publish("", "there-is-no-such-queue", b"dropped")


def test_many_small_persistent_messages_are_confirmed_one_by_one(channel, limits):
    queue = exclusive_queue(channel)
    channel.confirm_delivery()
    persistent = pika.BasicProperties(delivery_mode=2)
    step = max(1, limits.burst // 4)
    for start in range(0, 10 * step, step):
        sent = [b"%06d" % n * 30 for n in range(start, start + step)]
        for body in sent:
            channel.basic_publish("", queue, body, persistent, mandatory=True)
        assert drain(channel, queue) == sent


def test_a_burst_waits_in_order(channel, limits):
    queue = exclusive_queue(channel)
    sent = [b"%06d" % n + b"." * 194 for n in range(limits.burst)]
    publish(channel, queue, *sent)
    settle(channel, queue, len(sent))
    assert drain(channel, queue) == sent


def test_a_true_user_id_is_taken_and_a_false_one_is_406(connect, broker):
    connection = connect()
    channel = connection.channel()
    queue = exclusive_queue(channel)
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"mine", pika.BasicProperties(user_id=broker.user))
    with channel_closes(406):
        channel.basic_publish("", queue, b"forged", pika.BasicProperties(user_id="somebody-else"))
    assert drain(connection.channel(), queue) == [b"mine"]
