"""pika, BlockingConnection: the life of connections and channels, and what survives whom."""

import threading

import pytest

from interop_support import (
    channel_closes,
    client_library,
    drain,
    exclusive_queue,
    publish,
    pump,
    ready,
    take,
    wait_for,
)

pika = client_library("pika")


def test_one_program_publishes_and_another_consumes(connect, fresh):
    queue = fresh.queue("telemetry")
    consumer = connect().channel()
    consumer.queue_declare(queue)

    publisher = connect().channel()
    publisher.basic_publish("", queue, b"21.5")

    for method, properties, body in consumer.consume(queue, inactivity_timeout=5):
        assert body == b"21.5"
        assert (method.exchange, method.routing_key, method.redelivered) == ("", queue, False)
        assert properties.delivery_mode is None
        consumer.basic_ack(method.delivery_tag)
        break
    consumer.cancel()
    assert ready(consumer, queue) == 0


def test_pika_finds_what_it_asks_the_server_for(connect):
    connection = connect()
    assert connection.publisher_confirms_supported
    assert connection.basic_nack_supported
    assert connection.consumer_cancel_notify_supported
    assert connection.exchange_exchange_bindings_supported


def test_a_connection_closes_cleanly(connect):
    connection = connect()
    connection.channel()
    connection.close()
    assert connection.is_closed


def test_channels_open_and_close_and_their_numbers_serve_again(connect):
    connection = connect()
    for _ in range(20):
        channel = connection.channel(channel_number=1)
        queue = exclusive_queue(channel)
        channel.queue_delete(queue)
        channel.close()
    first, second = connection.channel(), connection.channel()
    assert {first.channel_number, second.channel_number} == {1, 2}


def test_a_channel_error_costs_one_channel_only(connect):
    connection = connect()
    broken, healthy = connection.channel(), connection.channel()
    queue = exclusive_queue(healthy)
    publish(healthy, queue, b"before")
    with channel_closes(404):
        broken.queue_declare("there-is-no-such-queue", passive=True)
    publish(healthy, queue, b"after")
    assert drain(healthy, queue) == [b"before", b"after"]
    again = connection.channel(channel_number=broken.channel_number)
    assert ready(again, queue) == 0


def test_the_unacknowledged_messages_of_a_closed_channel_come_back_in_order(connect):
    connection = connect()
    channel = connection.channel()
    queue = exclusive_queue(channel)
    publish(channel, queue, b"1", b"2", b"3", b"4")
    for _ in range(3):
        take(channel, queue)
    channel.close()
    other = connection.channel()
    wait_for(lambda: ready(other, queue) == 4, "all four messages wait again")
    taken = [take(other, queue)[1:] for _ in range(4)]
    assert taken == [(True, b"1"), (True, b"2"), (True, b"3"), (False, b"4")]


def test_the_unacknowledged_messages_of_a_closed_connection_come_back(connect, fresh):
    queue = fresh.queue()
    leaver, stayer = connect(), connect().channel()
    stayer.queue_declare(queue)
    publish(stayer, queue, b"kept")
    take(leaver.channel(), queue)
    leaver.close()
    wait_for(lambda: ready(stayer, queue) == 1, "the message waits again")
    assert take(stayer, queue)[1:] == (True, b"kept")


def test_a_small_frame_max_is_agreed_on(connect):
    channel = connect(frame_max=4096).channel()
    queue = exclusive_queue(channel)
    body = bytes(range(256)) * 20  # two frames
    publish(channel, queue, body)
    assert drain(channel, queue) == [body]


def test_two_clients_work_in_parallel(parameters, fresh, limits):
    first, second = fresh.queue("first"), fresh.queue("second")
    rounds, step = 10, max(1, limits.burst // 8)
    results = {}

    def client(own, other):
        """Declares its own queue, then sends to the other's and reads its own in turn."""

        def catch_up(count):
            pump(connection, lambda: len(got) >= count, "%d messages of the other client" % count)

        connection = pika.BlockingConnection(parameters())
        channel = connection.channel()
        channel.queue_declare(own)
        channel.confirm_delivery()
        got = []
        channel.basic_consume(
            own, lambda _ch, _method, _properties, body: got.append(body), auto_ack=True
        )
        both_declared.wait(10)
        for n in range(rounds * step):
            channel.basic_publish("", other, b"%s %d" % (own.encode(), n))
            if (n + 1) % step == 0:
                catch_up(n + 1)
        results[own] = got
        connection.close()

    both_declared = threading.Barrier(2)
    threads = [
        threading.Thread(target=client, args=pair, daemon=True)
        for pair in ((first, second), (second, first))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for own, other in ((first, second), (second, first)):
        assert results.get(own) == [b"%s %d" % (other.encode(), n) for n in range(rounds * step)]


@pytest.mark.parametrize(
    "name", ["amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match"]
)
def test_the_standard_exchanges_are_there(channel, name):
    channel.exchange_declare(name, passive=True)
