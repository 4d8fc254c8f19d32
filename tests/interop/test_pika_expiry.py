"""pika: messages and queues that expire, and queues that are full."""

import pytest

from interop_support import (
    channel_closes,
    client_library,
    drain,
    exclusive_queue,
    publish,
    pump,
    ready,
    settle,
    take,
    wait_for,
)

pika = client_library("pika")


def ages(milliseconds):
    return pika.BasicProperties(expiration=str(milliseconds))


def test_messages_expire_after_the_queues_x_message_ttl(channel):
    queue = exclusive_queue(channel, x_message_ttl=300)
    publish(channel, queue, b"1", b"2")
    settle(channel, queue, 2)
    settle(channel, queue, 0)
    assert drain(channel, queue) == []


def test_a_message_expires_after_its_own_expiration(channel):
    queue = exclusive_queue(channel)
    channel.basic_publish("", queue, b"stale", ages(300))
    publish(channel, queue, b"fresh")
    settle(channel, queue, 2)
    settle(channel, queue, 1)
    assert drain(channel, queue) == [b"fresh"]


def test_nobody_gets_a_message_past_its_age(channel):
    queue = exclusive_queue(channel)
    channel.basic_publish("", queue, b"stale", ages(100))
    channel.connection.sleep(0.2)
    assert channel.basic_get(queue) == (None, None, None)


def test_a_message_lives_its_whole_age_though_the_broker_was_idle(channel):
    queue = exclusive_queue(channel)
    for _ in range(3):
        channel.connection.sleep(0.6)
        channel.basic_publish("", queue, b"fresh", ages(250))
        channel.connection.channel().close()  # two round trips
        assert drain(channel, queue) == [b"fresh"]


@pytest.mark.parametrize("queue_ttl, expiration", [(300, 60000), (60000, 300)])
def test_the_shorter_of_the_two_ages_counts(channel, queue_ttl, expiration):
    queue = exclusive_queue(channel, x_message_ttl=queue_ttl)
    channel.basic_publish("", queue, b"body", ages(expiration))
    settle(channel, queue, 1)
    settle(channel, queue, 0)


def test_expiration_zero_reaches_a_waiting_consumer_and_nobody_else(channel):
    queue = exclusive_queue(channel)
    channel.basic_publish("", queue, b"too late", ages(0))
    got = []
    channel.basic_consume(
        queue, lambda _ch, _method, _properties, body: got.append(body), auto_ack=True
    )
    channel.basic_publish("", queue, b"in time", ages(0))
    pump(channel.connection, lambda: got, "the delivery")
    assert got == [b"in time"]


def test_an_unacknowledged_message_does_not_expire_and_a_requeued_one_does(channel):
    queue = exclusive_queue(channel, x_message_ttl=300)
    publish(channel, queue, b"held")
    tag, _redelivered, _body = take(channel, queue)
    publish(channel, queue, b"clock")
    settle(channel, queue, 1)
    settle(channel, queue, 0)
    channel.basic_reject(tag, requeue=True)
    assert drain(channel, queue) == []


def test_an_unused_queue_expires_after_x_expires(connect):
    connection = connect()
    channel = connection.channel()
    queue = exclusive_queue(channel, x_expires=200, x_max_length=1)
    channel.confirm_delivery()

    def gone():  # publishing is no use of the queue; declaring it, passive or not, would be
        try:
            channel.basic_publish("", queue, b"anybody?", mandatory=True)
        except pika.exceptions.UnroutableError:
            return True

    assert not gone()
    channel.queue_purge(queue)
    wait_for(lambda: connection.process_data_events(0.05) or gone(), "the queue has expired")
    with channel_closes(404):
        channel.queue_declare(queue, passive=True)


def test_a_consumer_keeps_a_queue_from_expiring(channel):
    kept, clock = exclusive_queue(channel, x_expires=100), exclusive_queue(
        channel, x_message_ttl=300
    )
    channel.basic_consume(kept, lambda *_: None)
    publish(channel, clock, b"300 ms")
    settle(channel, clock, 1)
    settle(channel, clock, 0)
    assert ready(channel, kept) == 0  # 404 if it were gone


@pytest.mark.parametrize("expiration", ["", "soon", "-1", "1.5", "99999999999999999999"])
def test_an_expiration_that_is_no_age_is_406(channel, expiration):
    queue = exclusive_queue(channel)
    channel.confirm_delivery()
    with channel_closes(406):
        channel.basic_publish("", queue, b"body", pika.BasicProperties(expiration=expiration))


def test_a_full_queue_drops_its_oldest(channel):
    queue = exclusive_queue(channel, x_max_length=3)
    publish(channel, queue, *[b"%d" % n for n in range(7)])
    assert drain(channel, queue) == [b"4", b"5", b"6"]


def test_unacknowledged_messages_do_not_fill_a_queue(channel):
    queue = exclusive_queue(channel, x_max_length=2)
    publish(channel, queue, b"0", b"1")
    take(channel, queue)
    publish(channel, queue, b"2")
    assert drain(channel, queue) == [b"1", b"2"]


def test_a_full_queue_rejects_with_a_nack_when_told_so(channel):
    queue = exclusive_queue(channel, x_max_length=2, x_overflow="reject-publish")
    channel.confirm_delivery()
    for body in (b"0", b"1"):
        channel.basic_publish("", queue, body)
    with pytest.raises(pika.exceptions.NackError):
        channel.basic_publish("", queue, b"2")
    assert take(channel, queue)[2] == b"0"
    channel.basic_publish("", queue, b"3")
    assert drain(channel, queue) == [b"1", b"3"]


def test_x_max_length_bytes_counts_bodies(channel):
    queue = exclusive_queue(channel, x_max_length_bytes=250)
    publish(channel, queue, b"a" * 100, b"b" * 100, b"c" * 100)
    assert drain(channel, queue) == [b"b" * 100, b"c" * 100]


@pytest.mark.parametrize(
    "argument, value",
    [
        ("x-message-ttl", -1),
        ("x-message-ttl", "soon"),
        ("x-expires", 0),
        ("x-max-length", -1),
        ("x-max-length-bytes", -1),
        ("x-overflow", "sideways"),
    ],
)
def test_a_senseless_argument_is_406(channel, fresh, argument, value):
    with channel_closes(406):
        channel.queue_declare(fresh.queue(), arguments={argument: value})
