"""pika: ack, nack, reject, recover, and what comes back in which order."""

import pytest

from interop_support import (
    client_library,
    drain,
    exclusive_queue,
    next_answer_closes,
    publish,
    pump,
    ready,
    take,
)

pika = client_library("pika")


@pytest.fixture
def held(channel):
    """(channel, queue, delivery tags): "1" to "4" published, the first three taken."""
    queue = exclusive_queue(channel)
    publish(channel, queue, b"1", b"2", b"3", b"4")
    return channel, queue, [take(channel, queue)[0] for _ in range(3)]


def returned(channel, queue):
    """What is left: (redelivered, body) of everything that can be taken."""
    left = []
    while True:
        method, _properties, body = channel.basic_get(queue)
        if method is None:
            return left
        left.append((method.redelivered, body))


def comes_back(channel, queue):
    """Close the channel and see on another one what it gave back."""
    connection = channel.connection
    channel.close()
    other = connection.channel()
    pump(connection, lambda: ready(other, queue), "messages given back")
    return returned(other, queue)


def test_an_acknowledged_message_does_not_come_back(held):
    channel, queue, (first, second, _third) = held
    channel.basic_ack(second)
    channel.basic_ack(first)
    assert comes_back(channel, queue) == [(True, b"3"), (False, b"4")]


def test_ack_multiple_takes_all_up_to_the_tag(held):
    channel, queue, (_first, second, _third) = held
    channel.basic_ack(second, multiple=True)
    assert comes_back(channel, queue) == [(True, b"3"), (False, b"4")]


def test_ack_multiple_of_tag_zero_takes_all(held):
    channel, queue, _tags = held
    channel.basic_ack(0, multiple=True)
    assert comes_back(channel, queue) == [(False, b"4")]


def test_a_requeued_message_returns_to_its_place(held):
    channel, queue, (_first, second, third) = held
    channel.basic_nack(third, requeue=True)
    channel.basic_nack(second, requeue=True)
    assert returned(channel, queue) == [(True, b"2"), (True, b"3"), (False, b"4")]


def test_nack_multiple_requeues_all_up_to_the_tag(held):
    channel, queue, (_first, second, _third) = held
    channel.basic_nack(second, multiple=True, requeue=True)
    assert returned(channel, queue) == [(True, b"1"), (True, b"2"), (False, b"4")]


def test_nack_without_requeue_drops(held):
    channel, queue, (_first, second, _third) = held
    channel.basic_nack(second, multiple=True, requeue=False)
    assert comes_back(channel, queue) == [(True, b"3"), (False, b"4")]


def test_reject_requeues_or_drops_one(held):
    channel, queue, (first, second, _third) = held
    channel.basic_reject(first, requeue=False)
    channel.basic_reject(second, requeue=True)
    assert returned(channel, queue) == [(True, b"2"), (False, b"4")]


def test_recover_requeues_all_that_is_unacknowledged(held):
    channel, queue, (first, _second, _third) = held
    channel.basic_ack(first)
    channel.basic_recover(requeue=True)
    assert returned(channel, queue) == [(True, b"2"), (True, b"3"), (False, b"4")]


def test_a_consumer_gets_a_rejected_message_again(channel):
    queue = exclusive_queue(channel)
    seen = []

    def on_message(_channel, method, _properties, body):
        seen.append((method.redelivered, body))
        if method.redelivered:
            channel.basic_ack(method.delivery_tag)
        else:
            channel.basic_reject(method.delivery_tag, requeue=True)

    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue, on_message)
    publish(channel, queue, b"1", b"2")
    pump(channel.connection, lambda: len(seen) == 4, "each message twice")
    assert seen == [(False, b"1"), (True, b"1"), (False, b"2"), (True, b"2")]


@pytest.mark.parametrize(
    "answer",
    [
        lambda channel, tag: channel.basic_ack(tag),
        lambda channel, tag: channel.basic_ack(tag, multiple=True),
        lambda channel, tag: channel.basic_nack(tag),
        lambda channel, tag: channel.basic_reject(tag),
    ],
    ids=["ack", "ack-multiple", "nack", "reject"],
)
def test_an_unknown_delivery_tag_is_406(connect, answer):
    connection = connect()
    channel = connection.channel()
    queue = exclusive_queue(channel)
    publish(channel, queue, b"1")
    tag = take(channel, queue)[0]
    answer(channel, tag + 1)
    next_answer_closes(channel, 406)
    assert take(connection.channel(), queue)[1:] == (True, b"1")


def test_a_second_ack_is_406(held):
    channel, queue, (first, _second, _third) = held
    channel.basic_ack(first)
    channel.basic_ack(first)
    next_answer_closes(channel, 406)


def test_tag_zero_without_multiple_is_406(held):
    channel, queue, _tags = held
    channel.basic_ack(0)
    next_answer_closes(channel, 406)


def test_what_needed_no_ack_cannot_be_acknowledged(channel):
    queue = exclusive_queue(channel)
    publish(channel, queue, b"1")
    method, _properties, _body = channel.basic_get(queue, auto_ack=True)
    channel.basic_ack(method.delivery_tag)
    next_answer_closes(channel, 406)


def test_delivery_tags_belong_to_their_channel(connect):
    connection = connect()
    one, two = connection.channel(), connection.channel()
    queue = exclusive_queue(one)
    publish(one, queue, b"1", b"2")
    assert take(one, queue)[0] == 1
    assert take(two, queue)[0] == 1
    one.basic_ack(1)
    two.basic_ack(1)
    assert drain(one, queue) == []
