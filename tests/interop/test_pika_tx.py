"""pika: transactions, which take effect together or not at all."""

import pytest

from interop_support import (
    channel_closes,
    client_library,
    connection_closes,
    drain,
    exclusive_queue,
    publish,
    pump,
    ready,
    take,
)

pika = client_library("pika")


@pytest.fixture
def work(channel):
    """(channel in a transaction, queue, another channel)."""
    queue = exclusive_queue(channel)
    other = channel.connection.channel()
    channel.tx_select()
    return channel, queue, other


def test_publishes_come_with_the_commit(work):
    channel, queue, other = work
    publish(channel, queue, b"1", b"2")
    assert ready(other, queue) == 0
    channel.tx_commit()
    assert drain(other, queue) == [b"1", b"2"]


def test_a_rollback_drops_them(work):
    channel, queue, other = work
    publish(channel, queue, b"1")
    channel.tx_rollback()
    publish(channel, queue, b"2")
    channel.tx_commit()
    assert drain(other, queue) == [b"2"]


def test_acknowledgements_come_with_the_commit(work):
    channel, queue, other = work
    publish(other, queue, b"1", b"2", b"3")
    pump(channel.connection, lambda: ready(other, queue) == 3, "three messages")
    tags = [take(channel, queue)[0] for _ in range(3)]
    channel.basic_ack(tags[0])
    channel.tx_rollback()
    channel.basic_ack(tags[1])
    channel.basic_nack(tags[2])
    channel.tx_commit()
    assert drain(other, queue) == [b"3"]
    channel.close()
    pump(other.connection, lambda: ready(other, queue) == 1, "what was not acknowledged")
    assert drain(other, queue) == [b"1"]


def test_a_full_queue_refuses_all_of_it(channel, fresh):
    queue, few = fresh.queue(), fresh.queue()
    channel.queue_declare(queue)
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    channel.queue_declare(few, arguments=arguments)
    other = channel.connection.channel()
    channel.tx_select()
    publish(channel, queue, b"1")
    publish(channel, few, b"2", b"3")
    with channel_closes(406):
        channel.tx_commit()
    assert ready(other, queue) == ready(other, few) == 0


def test_it_excludes_confirms(work):
    channel, _queue, _other = work
    with channel_closes(406):
        channel.confirm_delivery()


def test_returns_come_before_the_commit_is_confirmed(work):
    channel, _queue, _other = work
    returned = []
    channel.add_on_return_callback(lambda *given: returned.append(given[3]))
    channel.basic_publish("", "nowhere", b"1", mandatory=True)
    channel.tx_commit()
    pump(channel.connection, lambda: returned, "the message")
    assert returned == [b"1"]


def test_more_than_a_transaction_may_hold(broker, channel):
    if broker.runtime == "external":
        pytest.skip("a limit of this broker")
    queue = exclusive_queue(channel)
    channel.tx_select()
    with connection_closes(506):
        for _ in range(1000):
            publish(channel, queue, b"x")
        channel.tx_commit()
