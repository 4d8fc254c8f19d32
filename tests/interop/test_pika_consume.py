"""pika: get, consume, cancel, and who gets how many messages."""

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
)

pika = client_library("pika")


class Consumer:
    """basic.consume into a list of (delivery tag, body)."""

    def __init__(self, channel, queue, **options):
        self.channel = channel
        self.queue = queue
        self.got = []
        self.tag = channel.basic_consume(queue, self._on_message, **options)

    def _on_message(self, _channel, method, _properties, body):
        assert method.consumer_tag == self.tag
        self.got.append((method.delivery_tag, body))

    @property
    def bodies(self):
        return [body for _tag, body in self.got]

    def has(self, count):
        pump(self.channel.connection, lambda: len(self.got) >= count, "%d deliveries" % count)
        assert len(self.got) == count
        return self.got


def shares(published, waiting, *consumers):
    """How many of the *published* messages each consumer got, when *waiting* are left over."""
    channel, queue = consumers[0].channel, consumers[0].queue
    settle(channel, queue, waiting)
    pump(
        channel.connection,
        lambda: sum(len(consumer.got) for consumer in consumers) == published - waiting,
        "%d deliveries" % (published - waiting),
    )
    return [len(consumer.got) for consumer in consumers]


def test_get_answers_one_message_and_how_many_are_left(channel):
    queue = exclusive_queue(channel)
    publish(channel, queue, b"1", b"2", b"3")
    method, _properties, body = channel.basic_get(queue, auto_ack=True)
    assert (method.message_count, method.routing_key, method.redelivered, body) == (
        2,
        queue,
        False,
        b"1",
    )


def test_get_of_an_empty_queue_is_get_empty(channel):
    assert channel.basic_get(exclusive_queue(channel)) == (None, None, None)


def test_get_and_consume_of_an_absent_queue_are_404(connect):
    connection = connect()
    with channel_closes(404):
        connection.channel().basic_get("there-is-no-such-queue")
    with channel_closes(404):
        connection.channel().basic_consume("there-is-no-such-queue", lambda *_: None)


def test_messages_come_in_the_order_they_were_published(channel):
    queue = exclusive_queue(channel)
    bodies = [b"%d" % n for n in range(20)]
    publish(channel, queue, *bodies[:10])
    consumer = Consumer(channel, queue, auto_ack=True)
    publish(channel, queue, *bodies[10:])
    consumer.has(20)
    assert consumer.bodies == bodies
    assert [tag for tag, _body in consumer.got] == list(range(1, 21))


def test_a_cancelled_consumer_gets_nothing_more(channel):
    queue = exclusive_queue(channel)
    consumer = Consumer(channel, queue, auto_ack=True)
    publish(channel, queue, b"1")
    consumer.has(1)
    channel.basic_cancel(consumer.tag)
    publish(channel, queue, b"2")
    assert drain(channel, queue) == [b"2"]
    assert consumer.bodies == [b"1"]


def test_what_a_cancelled_consumer_holds_can_still_be_acknowledged(channel):
    queue = exclusive_queue(channel)
    publish(channel, queue, b"1", b"2")
    consumer = Consumer(channel, queue)
    (first, _), (second, _) = consumer.has(2)
    channel.basic_cancel(consumer.tag)
    assert ready(channel, queue) == 0
    channel.basic_ack(first)
    channel.basic_reject(second, requeue=True)
    assert take(channel, queue)[1:] == (True, b"2")


def test_consumers_take_turns(channel):
    queue = exclusive_queue(channel)
    first, second = Consumer(channel, queue, auto_ack=True), Consumer(
        channel, queue, auto_ack=True
    )
    publish(channel, queue, *[b"%d" % n for n in range(10)])
    pump(channel.connection, lambda: len(first.got) + len(second.got) == 10, "ten deliveries")
    assert (len(first.got), len(second.got)) == (5, 5)
    assert sorted(first.bodies + second.bodies) == [b"%d" % n for n in range(10)]


def test_an_exclusive_consumer_lets_no_other_in(connect, fresh):
    queue = fresh.queue()
    connection, other = connect(), connect()
    channel = connection.channel()
    channel.queue_declare(queue)
    consumer = Consumer(channel, queue, exclusive=True)
    with channel_closes(403):
        other.channel().basic_consume(queue, lambda *_: None)
    channel.basic_cancel(consumer.tag)
    second = Consumer(other.channel(), queue)
    with channel_closes(403):
        channel.basic_consume(queue, lambda *_: None, exclusive=True)
    second.channel.basic_cancel(second.tag)


def test_deleting_the_queue_cancels_its_consumers(connect, fresh):
    queue = fresh.queue()
    channel, other = connect().channel(), connect().channel()
    channel.queue_declare(queue)
    cancelled = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tags = [Consumer(channel, queue).tag, Consumer(channel, queue).tag]
    other.queue_delete(queue)
    pump(channel.connection, lambda: len(cancelled) == 2, "basic.cancel from the broker")
    assert sorted(cancelled) == sorted(tags)
    assert channel.is_open


def test_prefetch_limits_each_consumer(channel):
    queue = exclusive_queue(channel)
    publish(channel, queue, *[b"%d" % n for n in range(8)])
    channel.basic_qos(prefetch_count=2)
    first = Consumer(channel, queue)
    assert shares(8, 6, first) == [2]
    second = Consumer(channel, queue)
    assert shares(8, 4, first, second) == [2, 2]
    assert (first.bodies, second.bodies) == ([b"0", b"1"], [b"2", b"3"])
    channel.basic_ack(first.got[0][0])
    assert shares(8, 3, first, second) == [3, 2]
    assert first.bodies[2] == b"4"


def test_prefetch_of_the_channel_limits_all_its_consumers_together(channel):
    queue = exclusive_queue(channel)
    publish(channel, queue, *[b"%d" % n for n in range(8)])
    channel.basic_qos(prefetch_count=3, global_qos=True)
    first, second = Consumer(channel, queue), Consumer(channel, queue)
    assert sum(shares(8, 5, first, second)) == 3
    assert sorted(first.bodies + second.bodies) == [b"0", b"1", b"2"]
    channel.basic_ack(3, multiple=True)
    assert sum(shares(8, 2, first, second)) == 6


def test_both_prefetch_limits_hold_at_once(channel):
    queue = exclusive_queue(channel)
    publish(channel, queue, *[b"%d" % n for n in range(8)])
    channel.basic_qos(prefetch_count=2)  # in the other order RabbitMQ forgets the channel's
    channel.basic_qos(prefetch_count=3, global_qos=True)
    first = Consumer(channel, queue)
    assert shares(8, 6, first) == [2]
    second = Consumer(channel, queue)
    assert shares(8, 5, first, second) == [2, 1]


def test_a_new_prefetch_limits_new_consumers_only(channel):
    queue = exclusive_queue(channel)
    channel.basic_qos(prefetch_count=1)
    early = Consumer(channel, queue)
    channel.basic_qos(prefetch_count=3)
    late = Consumer(channel, queue)
    publish(channel, queue, *[b"%d" % n for n in range(6)])
    assert shares(6, 2, early, late) == [1, 3]


def test_prefetch_counts_neither_get_nor_auto_ack(channel):
    queue = exclusive_queue(channel)
    channel.basic_qos(prefetch_count=1)
    publish(channel, queue, *[b"%d" % n for n in range(6)])
    for _ in range(3):
        take(channel, queue)
    consumer = Consumer(channel, queue, auto_ack=True)
    consumer.has(3)


def test_prefetch_zero_is_no_limit(channel):
    queue = exclusive_queue(channel)
    publish(channel, queue, *[b"%d" % n for n in range(12)])
    channel.basic_qos(prefetch_count=1)
    channel.basic_qos(prefetch_count=0)
    Consumer(channel, queue).has(12)


def test_a_message_goes_to_the_consumer_with_room(connect, fresh):
    queue = fresh.queue()
    busy_channel, free_channel = connect().channel(), connect().channel()
    busy_channel.queue_declare(queue)
    for channel in (busy_channel, free_channel):
        channel.basic_qos(prefetch_count=1)
    busy, free = Consumer(busy_channel, queue), Consumer(free_channel, queue)
    publish(busy_channel, queue, b"1", b"2")
    busy.has(1)
    tag, _body = free.has(1)[0]
    free_channel.basic_ack(tag)
    publish(free_channel, queue, b"3")
    assert free.has(2)[1][1] == b"3"
