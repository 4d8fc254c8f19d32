"""py-amqp: publish, consume, acknowledge, and the errors of a channel by their class."""

import socket

import pytest

from interop_support import client_library, wait_for

amqp = client_library("amqp")
errors = amqp.exceptions


@pytest.fixture
def connection(broker, fresh):
    with amqp.Connection(
        "%s:%d" % (broker.host, broker.port),
        userid=broker.user,
        password=broker.password,
        connect_timeout=5,
        read_timeout=10,
        write_timeout=10,
        confirm_publish=True,
    ) as opened:
        yield opened


@pytest.fixture
def channel(connection):
    return connection.channel()


def drain_until(connection, condition, what):
    """Let py-amqp call its callbacks until *condition* holds."""

    def turn():
        try:
            connection.drain_events(timeout=0.05)
        except socket.timeout:
            pass
        return condition()

    wait_for(turn, what)


def test_publish_consume_acknowledge(channel, connection, fresh):
    exchange, queue = fresh.exchange(), channel.queue_declare("", exclusive=True).queue
    channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)
    channel.queue_bind(queue, exchange, "sensor.#")
    got = []

    def on_message(message):
        got.append((message.body, message.properties["message_id"], message.headers["n"]))
        channel.basic_ack(message.delivery_tag)

    tag = channel.basic_consume(queue, callback=on_message)
    assert tag  # the server's choice
    for n in range(5):
        channel.basic_publish(
            amqp.Message(
                "reading %d" % n,
                message_id="m%d" % n,
                application_headers={"n": n},
                delivery_mode=2,
            ),
            exchange,
            "sensor.%d" % n,
        )
    drain_until(connection, lambda: len(got) == 5, "five messages")
    assert got == [("reading %d" % n, "m%d" % n, n) for n in range(5)]
    channel.basic_cancel(tag)
    assert channel.queue_delete(queue) == 0


def test_get_and_its_acknowledgements(channel):
    queue = channel.queue_declare("", exclusive=True).queue
    assert channel.basic_get(queue) is None
    for body in ("1", "2", "3"):
        channel.basic_publish(amqp.Message(body), "", queue)
    first, second = channel.basic_get(queue), channel.basic_get(queue)
    assert (
        first.body,
        first.delivery_info["redelivered"],
        first.delivery_info["message_count"],
    ) == ("1", False, 2)
    channel.basic_reject(second.delivery_tag, requeue=True)
    channel.basic_ack(first.delivery_tag)
    again = channel.basic_get(queue)
    assert (again.body, again.delivery_info["redelivered"]) == ("2", True)
    channel.basic_recover(requeue=True)
    assert channel.basic_get(queue).body == "2"


def test_global_qos_limits_the_channel(channel, connection):
    queue = channel.queue_declare("", exclusive=True).queue
    for n in range(4):
        channel.basic_publish(amqp.Message(str(n)), "", queue)
    channel.basic_qos(0, 2, True)
    got = []
    for _ in range(2):
        channel.basic_consume(queue, callback=got.append)
    drain_until(
        connection,
        lambda: channel.queue_declare(queue, passive=True).message_count == 2,
        "two are delivered",
    )
    assert sorted(message.body for message in got) == ["0", "1"]
    channel.basic_ack(got[1].delivery_tag, multiple=True)
    drain_until(connection, lambda: len(got) == 4, "the other two")


def test_a_return_reaches_the_publisher(channel, connection):
    returned = []
    channel.events["basic_return"].add(lambda *parts: returned.append(parts))
    channel.basic_publish(amqp.Message("back"), "", "there-is-no-such-queue", mandatory=True)
    drain_until(connection, lambda: returned, "basic.return")
    error, exchange, routing_key, message = returned[0]
    assert (error.reply_code, exchange, routing_key, message.body) == (
        312,
        "",
        "there-is-no-such-queue",
        "back",
    )


def test_a_nack_reaches_the_publisher(channel):
    queue = channel.queue_declare(
        "", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    ).queue
    channel.basic_publish(amqp.Message("1"), "", queue)
    with pytest.raises(errors.MessageNacked):
        channel.basic_publish(amqp.Message("2"), "", queue)


def test_a_deleted_queue_cancels_its_consumer(channel, connection):
    queue = channel.queue_declare("", exclusive=True).queue
    cancelled = []
    tag = channel.basic_consume(queue, on_cancel=cancelled.append)
    connection.channel().queue_delete(queue)
    drain_until(connection, lambda: cancelled, "basic.cancel from the broker")
    assert cancelled == [tag]


def test_exchange_bindings(channel, fresh):
    source, destination = fresh.exchange(), fresh.exchange()
    queue = channel.queue_declare("", exclusive=True).queue
    for name in (source, destination):
        channel.exchange_declare(name, "fanout", auto_delete=False)
    channel.queue_bind(queue, destination)
    channel.exchange_bind(destination, source)
    channel.basic_publish(amqp.Message("through"), source)
    channel.exchange_unbind(destination, source)
    channel.basic_publish(amqp.Message("cut"), source)
    assert channel.basic_get(queue, no_ack=True).body == "through"
    assert channel.basic_get(queue, no_ack=True) is None


def test_body_sizes(channel, limits):
    queue = channel.queue_declare("", exclusive=True).queue
    for size in (0, 1, limits.body):
        body = b"\xff" * size
        channel.basic_publish(amqp.Message(body), "", queue)
        got = channel.basic_get(queue, no_ack=True).body
        assert (got.encode("latin-1") if isinstance(got, str) else got) == body


ATTEMPTS = {
    "no-queue": (404, errors.NotFound, lambda channel, _queue: channel.queue_declare(
        "there-is-no-such-queue", passive=True)),
    "no-exchange": (404, errors.NotFound, lambda channel, _queue: channel.exchange_declare(
        "there-is-no-such-exchange", "direct", passive=True)),
    "reserved": (403, errors.AccessRefused, lambda channel, _queue: channel.queue_declare(
        "amq.mine")),
    "redeclare": (406, errors.PreconditionFailed, lambda channel, queue: channel.queue_declare(
        queue, exclusive=True, arguments={"x-max-length": 1})),
    "unknown-tag": (406, errors.PreconditionFailed, lambda channel, _queue: (
        channel.basic_ack(77), channel.basic_qos(0, 1, False))),
}


@pytest.mark.parametrize("code, error, attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_an_error_closes_the_channel_only(connection, code, error, attempt, fresh):
    channel, queue = connection.channel(), fresh.name("mine")
    channel.queue_declare(queue, exclusive=True)
    with pytest.raises(error) as caught:
        attempt(channel, queue)
    assert caught.value.code == code
    again = connection.channel()
    assert again.queue_declare(queue, passive=True).message_count == 0


def test_an_exclusive_queue_is_405_for_others(broker, channel, fresh):
    queue = fresh.name("mine")
    channel.queue_declare(queue, exclusive=True)
    with amqp.Connection(
        "%s:%d" % (broker.host, broker.port), userid=broker.user, password=broker.password
    ) as other:
        with pytest.raises(errors.ResourceLocked) as caught:
            other.channel().queue_declare(queue, exclusive=True)
    assert caught.value.code == 405
