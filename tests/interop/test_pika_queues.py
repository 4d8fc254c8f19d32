"""pika: declaring, binding, purging and deleting queues."""

import pytest

from interop_support import (
    channel_closes,
    client_library,
    drain,
    exclusive_queue,
    publish,
    ready,
    take,
    wait_for,
)

pika = client_library("pika")


def absent(connection, queue):
    """True when no queue has this name. Asks on a channel of its own: the 404 closes it."""
    channel = connection.channel()
    try:
        channel.queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker as error:
        assert error.reply_code == 404, error
        return True
    channel.close()
    return False


def test_declare_answers_name_and_counts(channel, fresh):
    queue = fresh.queue()
    declared = channel.queue_declare(queue).method
    assert (declared.queue, declared.message_count, declared.consumer_count) == (queue, 0, 0)
    publish(channel, queue, b"1", b"2", b"3")
    take(channel, queue)
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue, lambda *_: None)
    wait_for(lambda: ready(channel, queue) == 1, "one taken, one delivered, one left")
    assert channel.queue_declare(queue).method.consumer_count == 1


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "transient"])
def test_a_queue_outlives_its_connection(connect, fresh, durable):
    queue = fresh.queue()
    first = connect()
    channel = first.channel()
    channel.queue_declare(queue, durable=durable)
    publish(channel, queue, b"kept")
    first.close()
    assert drain(connect().channel(), queue) == [b"kept"]


def test_passive_finds_a_queue_and_answers_404_without_one(channel, fresh):
    queue = fresh.queue()
    channel.queue_declare(queue, durable=True)
    channel.queue_declare(queue, passive=True)  # passive ignores the other flags
    with channel_closes(404):
        channel.queue_declare(queue + "x", passive=True)


@pytest.mark.parametrize(
    "change",
    [{"durable": True}, {"auto_delete": True}, {"arguments": {"x-max-length": 5}}],
    ids=lambda change: "-".join(change),
)
def test_declaring_again_with_another_property_is_406(connect, fresh, change):
    connection = connect()
    channel = connection.channel()
    queue = fresh.queue()
    channel.queue_declare(queue)
    channel.queue_declare(queue)
    with channel_closes(406):
        channel.queue_declare(queue, **change)
    assert not absent(connection, queue)


def test_declaring_again_with_another_argument_value_is_406(channel, fresh):
    queue = fresh.queue()
    channel.queue_declare(queue, arguments={"x-max-length": 5})
    channel.queue_declare(queue, arguments={"x-max-length": 5})
    with channel_closes(406):
        channel.queue_declare(queue, arguments={"x-max-length": 6})


def test_the_server_names_a_queue(channel):
    first, second = exclusive_queue(channel), exclusive_queue(channel)
    assert first.startswith("amq.gen") and second.startswith("amq.gen")
    assert first != second


def test_an_empty_name_means_the_channels_last_queue(channel):
    """AMQP 0-9-1 spec, queue.bind and others: "the last declared queue on the channel"."""
    queue = exclusive_queue(channel)
    channel.queue_bind("", "amq.direct", queue)
    channel.basic_publish("amq.direct", queue, b"found")
    assert drain(channel, "") == [b"found"]
    assert channel.queue_delete("").method.message_count == 0


def test_names_beginning_with_amq_are_reserved(channel):
    with channel_closes(403):
        channel.queue_declare("amq.mine")


def test_an_exclusive_queue_is_locked_for_other_connections(connect, channel, fresh):
    queue = fresh.name("mine")
    channel.queue_declare(queue, exclusive=True)
    other = connect()
    for attempt in (
        lambda ch: ch.queue_declare(queue, passive=True),
        lambda ch: ch.queue_declare(queue, exclusive=True),
        lambda ch: ch.basic_get(queue),
        lambda ch: ch.queue_bind(queue, "amq.direct", "key"),
        lambda ch: ch.queue_purge(queue),
        lambda ch: ch.queue_delete(queue),
        lambda ch: ch.basic_consume(queue, lambda *_: None),
    ):
        with channel_closes(405):
            attempt(other.channel())
    channel.queue_declare(queue, exclusive=True)  # its own connection may say so again
    publish(channel, queue, b"still here")
    assert drain(channel, queue) == [b"still here"]


def test_everybody_may_publish_to_an_exclusive_queue(connect, channel):
    queue = exclusive_queue(channel)
    other = connect().channel()
    other.confirm_delivery()
    other.basic_publish("", queue, b"for you", mandatory=True)
    assert drain(channel, queue) == [b"for you"]


def test_an_exclusive_queue_goes_with_its_connection(connect):
    owner, other = connect(), connect()
    queue = exclusive_queue(owner.channel())
    owner.close()
    wait_for(lambda: absent(other, queue), "the exclusive queue is gone")


def test_an_auto_delete_queue_goes_with_its_last_consumer(connect, fresh):
    connection = connect()
    channel, queue = connection.channel(), fresh.queue()
    channel.queue_declare(queue, auto_delete=True)
    first = channel.basic_consume(queue, lambda *_: None)
    second = channel.basic_consume(queue, lambda *_: None)
    channel.basic_cancel(first)
    assert not absent(connection, queue)
    channel.basic_cancel(second)
    wait_for(lambda: absent(connection, queue), "the auto-delete queue is gone")


def test_an_auto_delete_queue_without_a_consumer_yet_stays(connect, fresh):
    queue = fresh.queue()
    first = connect()
    first.channel().queue_declare(queue, auto_delete=True)
    first.close()
    assert not absent(connect(), queue)


def test_a_binding_ends_with_unbind(channel, fresh):
    exchange, queue = fresh.exchange(), exclusive_queue(channel)
    channel.exchange_declare(exchange, "direct")
    channel.queue_bind(queue, exchange, "key")
    channel.basic_publish(exchange, "key", b"bound")
    channel.queue_unbind(queue, exchange, "key")
    channel.queue_unbind(queue, exchange, "key")  # nothing left to unbind is no error
    channel.basic_publish(exchange, "key", b"unbound")
    assert drain(channel, queue) == [b"bound"]


def test_binding_what_is_not_there_is_404(connect):
    connection = connect()
    queue = exclusive_queue(connection.channel())
    with channel_closes(404):
        connection.channel().queue_bind(queue, "there-is-no-such-exchange", "key")
    with channel_closes(404):
        connection.channel().queue_bind("there-is-no-such-queue", "amq.direct", "key")


def test_purge_empties_a_queue_but_for_the_unacknowledged(channel):
    queue = exclusive_queue(channel)
    publish(channel, queue, b"1", b"2", b"3", b"4")
    tag, _redelivered, _body = take(channel, queue)
    assert channel.queue_purge(queue).method.message_count == 3
    assert drain(channel, queue) == []
    channel.basic_reject(tag, requeue=True)
    assert drain(channel, queue) == [b"1"]


def test_delete_answers_how_many_messages_went_with_the_queue(connect, fresh):
    connection = connect()
    channel, queue = connection.channel(), fresh.queue()
    channel.queue_declare(queue)
    publish(channel, queue, b"1", b"2")
    assert channel.queue_delete(queue).method.message_count == 2
    assert absent(connection, queue)
    assert channel.queue_delete(queue).method.message_count == 0  # nothing left: no error


def test_delete_if_empty_spares_a_queue_with_messages(connect, fresh):
    connection = connect()
    channel, queue = connection.channel(), fresh.queue()
    channel.queue_declare(queue)
    publish(channel, queue, b"1")
    with channel_closes(406):
        channel.queue_delete(queue, if_empty=True)
    channel = connection.channel()
    assert drain(channel, queue) == [b"1"]
    channel.queue_delete(queue, if_empty=True)


def test_delete_if_unused_spares_a_queue_with_consumers(connect, fresh):
    connection = connect()
    channel, queue = connection.channel(), fresh.queue()
    channel.queue_declare(queue)
    tag = channel.basic_consume(queue, lambda *_: None)
    with channel_closes(406):
        connection.channel().queue_delete(queue, if_unused=True)
    channel.basic_cancel(tag)
    channel.queue_delete(queue, if_unused=True)
    assert absent(connection, queue)


def test_a_name_of_255_octets_is_a_name(channel, fresh):
    queue = fresh.queue().ljust(255, "x")
    fresh.queues.append(queue)
    assert channel.queue_declare(queue).method.queue == queue
    publish(channel, queue, b"found")
    assert drain(channel, queue) == [b"found"]
