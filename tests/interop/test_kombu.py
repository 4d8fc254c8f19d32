"""kombu: what Celery stands on; its high-level classes used as their documentation does."""

import socket

import pytest

from interop_support import client_library, wait_for

kombu = client_library("kombu")


@pytest.fixture
def connection(broker, fresh):
    with kombu.Connection(broker.url, connect_timeout=5, heartbeat=30) as opened:
        yield opened


def drain_until(connection, condition, what):
    def turn():
        try:
            connection.drain_events(timeout=0.05)
        except socket.timeout:
            pass
        return condition()

    wait_for(turn, what)


def test_a_producer_and_a_consumer_pass_objects(connection, fresh):
    exchange = kombu.Exchange(fresh.name("exchange"), "topic", durable=False, auto_delete=True)
    queue = kombu.Queue(fresh.name("queue"), exchange, "video.#", durable=False, auto_delete=True)
    got = []

    def on_task(body, message):
        got.append((body, message.delivery_info["routing_key"], message.headers.get("n")))
        message.ack()

    with connection.Consumer(queue, callbacks=[on_task], accept=["json"], prefetch_count=2):
        producer = connection.Producer(serializer="json")
        for n in range(5):
            producer.publish(
                {"name": "é", "n": [n]},
                exchange=exchange,
                routing_key="video.%d" % n,
                headers={"n": n},
                declare=[exchange],
                delivery_mode=2,
            )
        drain_until(connection, lambda: len(got) == 5, "five objects")
    assert got == [({"name": "é", "n": [n]}, "video.%d" % n, n) for n in range(5)]


def test_a_simple_queue_puts_gets_and_counts_compressed_objects(connection, fresh):
    with connection.SimpleQueue(fresh.queue()) as box:
        fresh.exchanges.append(box.queue.exchange.name)
        for n in range(3):
            box.put({"n": n, "text": "x" * 5000}, serializer="json", compression="zlib")
        wait_for(lambda: box.qsize() == 3, "three messages")
        for n in range(3):
            message = box.get(timeout=5)
            assert message.payload == {"n": n, "text": "x" * 5000}
            message.ack()
        with pytest.raises(box.Empty):
            box.get_nowait()


def test_a_confirming_producer_hears_of_a_full_queue(broker, fresh):
    with kombu.Connection(broker.url, transport_options={"confirm_publish": True}) as connection:
        queue = kombu.Queue(
            fresh.queue(),
            max_length=1,
            queue_arguments={"x-overflow": "reject-publish"},
            channel=connection.default_channel,
            durable=False,
        )
        queue.declare()
        producer = connection.Producer()
        producer.publish("1", routing_key=queue.name, timeout=5)
        with pytest.raises(Exception) as caught:
            producer.publish("2", routing_key=queue.name, timeout=5)
        assert type(caught.value).__name__ == "MessageNacked"


def test_message_ttl_and_expires_are_understood(connection, fresh):
    queue = kombu.Queue(
        fresh.queue(),
        message_ttl=0.3,
        expires=60,
        max_length=10,
        channel=connection.default_channel,
        durable=False,
    )
    queue.declare()
    connection.Producer().publish("stale", routing_key=queue.name)
    count = lambda: queue.queue_declare(passive=True).message_count  # noqa: E731
    wait_for(lambda: count() == 1, "the message is in")
    wait_for(lambda: count() == 0, "the message has expired")


def test_an_error_of_a_channel_is_recoverable(connection):
    with pytest.raises(connection.channel_errors) as caught:
        kombu.Queue("there-is-no-such-queue", channel=connection.channel()).queue_declare(
            passive=True
        )
    assert caught.value.code == 404
    assert connection.connected
    connection.channel().close()


def test_ensure_connection_and_a_pool(broker, fresh):
    connection = kombu.Connection(broker.url, connect_timeout=5)
    connection.ensure_connection(max_retries=1, timeout=5)
    name = fresh.queue()
    pool = connection.Pool(limit=2)
    with pool.acquire(block=True) as first, pool.acquire(block=True) as second:
        kombu.Queue(name, channel=first.default_channel, durable=False).declare()
        second.Producer().publish("hello", routing_key=name)
        wait_for(
            lambda: kombu.Queue(name, channel=first.default_channel).get(no_ack=True),
            "the message",
        )
    pool.force_close_all()
    connection.release()


def test_kombus_heartbeat_check(broker):
    with kombu.Connection(broker.url, heartbeat=2) as connection:
        connection.connect()
        assert connection.get_heartbeat_interval() == 2
        seen = connection.connection.bytes_recv
        drain_until(
            connection,
            lambda: connection.heartbeat_check() or connection.connection.bytes_recv > seen,
            "a heartbeat from the broker",
        )
        assert connection.connected
