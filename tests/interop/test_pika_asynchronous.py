"""pika, SelectConnection: callbacks, and the order of what the broker sends."""

import pytest

from interop_support import client_library

pika = client_library("pika")


@pytest.fixture
def run(parameters, fresh):
    """run(script): a SelectConnection that works until the script calls finish(), at most 15 s.

    script(channel, events, finish) gets the first channel and starts the work. What it appends
    to *events* is what run() returns; the last event tells how the connection was closed.
    """

    def run(script):
        events = []

        def finish():
            if not connection.is_closing and not connection.is_closed:
                connection.close()

        def on_open(opened):
            opened.ioloop.call_later(15, lambda: (events.append("15 s have passed"), finish()))
            opened.channel(on_open_callback=lambda channel: script(channel, events, finish))

        def on_closed(closed, reason):
            events.append(("connection", getattr(reason, "reply_code", repr(reason))))
            closed.ioloop.stop()

        connection = pika.SelectConnection(
            parameters(),
            on_open_callback=on_open,
            on_close_callback=on_closed,
            on_open_error_callback=on_closed,
        )
        connection.ioloop.start()
        return events

    return run


def test_publish_and_consume(run):
    def script(channel, events, finish):
        def declared(frame):
            channel.basic_consume(
                frame.method.queue, delivered, callback=lambda _frame: publish(frame.method.queue)
            )

        def publish(queue):
            events.append("consuming")
            channel.basic_publish("", queue, b"hello")

        def delivered(_channel, method, _properties, body):
            events.append(body)
            channel.basic_ack(method.delivery_tag)
            channel.basic_cancel(method.consumer_tag, callback=lambda _frame: finish())

        channel.queue_declare("", exclusive=True, callback=declared)

    assert run(script) == ["consuming", b"hello", ("connection", 200)]


def test_a_return_comes_before_its_confirm(run):
    def script(channel, events, finish):
        def confirmed(frame):
            events.append((frame.method.NAME, frame.method.delivery_tag))
            finish()

        def selected(_frame):
            channel.basic_publish("", "there-is-no-such-queue", b"body", mandatory=True)

        channel.add_on_return_callback(
            lambda _ch, method, _properties, body: events.append((method.reply_code, body))
        )
        channel.confirm_delivery(confirmed, callback=selected)

    assert run(script) == [(312, b"body"), ("Basic.Ack", 1), ("connection", 200)]


def test_every_publish_of_a_stream_is_confirmed_once(run, limits):
    """Publishes with a window of unconfirmed messages, while a consumer takes them out."""
    total, window = 10 * limits.burst, limits.burst
    persistent = pika.BasicProperties(delivery_mode=2)
    unconfirmed, got = set(), []

    def script(channel, events, finish):
        sent = 0

        def more(queue):
            nonlocal sent
            while sent < total and len(unconfirmed) < window and sent - len(got) < window:
                sent += 1
                unconfirmed.add(sent)
                channel.basic_publish("", queue, b"%08d" % sent * 25, persistent)
            if len(got) == total and not unconfirmed:
                finish()

        def confirmed(frame, queue):
            tag, multiple = frame.method.delivery_tag, frame.method.multiple
            assert frame.method.NAME == "Basic.Ack"
            assert tag in unconfirmed, "confirmed twice, or never published: %d" % tag
            unconfirmed.difference_update(
                [n for n in unconfirmed if n <= tag] if multiple else [tag]
            )
            more(queue)

        def delivered(_channel, method, _properties, body, queue):
            got.append(int(body[:8]))
            channel.basic_ack(method.delivery_tag)
            more(queue)

        def declared(frame):
            queue = frame.method.queue
            channel.basic_qos(prefetch_count=max(1, window // 2))
            channel.basic_consume(queue, lambda *message: delivered(*message, queue=queue))
            channel.confirm_delivery(
                lambda frame: confirmed(frame, queue), callback=lambda _frame: more(queue)
            )

        channel.queue_declare("", exclusive=True, callback=declared)

    assert run(script) == [("connection", 200)]
    assert got == list(range(1, total + 1))
    assert not unconfirmed


def test_a_channel_closed_by_the_broker_leaves_the_connection_open(run):
    def script(channel, events, finish):
        def closed(_channel, reason):
            events.append(("channel", reason.reply_code))
            channel.connection.channel(
                on_open_callback=lambda _channel: (events.append("a new channel"), finish())
            )

        channel.add_on_close_callback(closed)
        channel.queue_declare("there-is-no-such-queue", passive=True)

    assert run(script) == [("channel", 404), "a new channel", ("connection", 200)]


def test_a_consumer_hears_that_its_queue_is_deleted(run, fresh):
    queue = fresh.queue()

    def script(channel, events, finish):
        def cancelled(frame):
            events.append((frame.method.NAME, frame.method.consumer_tag))
            finish()

        channel.add_on_cancel_callback(cancelled)
        channel.queue_declare(queue)
        channel.basic_consume(
            queue,
            lambda *_: None,
            consumer_tag="mine",
            callback=lambda _frame: channel.connection.channel(on_open_callback=delete),
        )

    def delete(other):
        other.queue_delete(queue)

    assert run(script) == [("Basic.Cancel", "mine"), ("connection", 200)]


def test_messages_published_while_a_channel_closes_are_not_lost(run, fresh, connect, limits):
    queue = fresh.queue()
    bodies = [b"%d" % n for n in range(limits.burst)]

    def script(channel, events, finish):
        def declared(_frame):
            for body in bodies:
                channel.basic_publish("", queue, body)
            channel.add_on_close_callback(lambda *_: finish())
            channel.close()

        channel.queue_declare(queue, callback=declared)

    assert run(script) == [("connection", 200)]
    channel = connect().channel()
    assert [channel.basic_get(queue, auto_ack=True)[2] for _ in bodies] == bodies
