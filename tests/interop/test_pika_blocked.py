"""pika: a broker whose memory is full says so (connection.blocked) and loses nothing."""

import pytest

from interop_support import client_library, exclusive_queue, pika_parameters, pump

pika = client_library("pika")


@pytest.fixture
def connect(tight_broker):
    """Opens pika BlockingConnections to a broker with small tables."""
    if tight_broker.runtime == "external":
        pytest.skip("RabbitMQ blocks publishers when its host is short of memory or disk")
    opened = []

    def open_one():
        opened.append(pika.BlockingConnection(pika_parameters(tight_broker)))
        return opened[-1]

    yield open_one
    for connection in opened:
        if connection.is_open:
            connection.close()
    tight_broker.check()


def test_a_publisher_hears_that_memory_is_full_and_that_there_is_room_again(connect, tight_broker):
    consuming, publishing = connect(), connect()
    consumer, publisher = consuming.channel(), publishing.channel()
    queue = exclusive_queue(consumer)
    events, got, sent = [], [], 0
    publishing.add_on_connection_blocked_callback(lambda *_: events.append("blocked"))
    publishing.add_on_connection_unblocked_callback(lambda *_: events.append("unblocked"))

    while not events:
        assert sent < 16 * tight_broker.limits.burst, (
            "%d messages and no connection.blocked" % sent
        )
        publisher.basic_publish("", queue, b"%06d" % sent + b"." * 194)
        publishing.process_data_events(0.005)       # the broker is slower than we are
        sent += 1
    assert events == ["blocked"]

    def take():
        _method, _properties, body = consumer.basic_get(queue, auto_ack=True)
        if body is not None:
            got.append(int(body[:6]))
        return len(got) == sent and events[-1] == "unblocked"

    pump(publishing, take, "every message, and connection.unblocked", 10)
    assert got == list(range(sent))
    assert consumer.basic_get(queue) == (None, None, None)
