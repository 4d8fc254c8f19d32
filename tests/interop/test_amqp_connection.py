"""py-amqp: what the server says of itself, how one logs in, errors that close a connection."""

import socket

import pytest

from interop_support import client_library, wait_for

amqp = client_library("amqp")

# The capabilities a client may rely on, and no others: what is claimed is true.
CAPABILITIES = {
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
}


@pytest.fixture
def connect(broker, fresh):
    """Opens py-amqp connections, closed when the test ends."""
    opened = []

    def open_one(**options):
        options = dict(
            {"connect_timeout": 5, "read_timeout": 10, "write_timeout": 10},
            userid=broker.user, **dict({"password": broker.password}, **options))
        opened.append(amqp.Connection("%s:%d" % (broker.host, broker.port), **options))
        opened[-1].connect()
        return opened[-1]

    yield open_one
    for connection in opened:
        if connection.connected:
            connection.close()


def test_the_server_claims_what_it_can_do(connect, broker):
    claimed = connect().server_properties["capabilities"]
    true = {name for name, value in claimed.items() if value}
    if broker.runtime == "external":
        assert CAPABILITIES | {"consumer_priorities"} == true  # RabbitMQ has these as well
    else:
        assert CAPABILITIES == true


def test_the_server_says_what_it_is(connect):
    connection = connect()
    for key in ("product", "version", "platform"):
        assert connection.server_properties[key], key
    assert (connection.version_major, connection.version_minor) == (0, 9)
    mechanisms = [
        str(name, "ascii") if isinstance(name, bytes) else name for name in connection.mechanisms
    ]
    assert {"PLAIN", "AMQPLAIN"} <= set(mechanisms)


@pytest.mark.parametrize("mechanism", ["PLAIN", "AMQPLAIN"])
def test_one_logs_in_with(connect, mechanism):
    connection = connect(login_method=mechanism)
    assert connection.channel().queue_declare("", exclusive=True).queue


@pytest.mark.parametrize("mechanism", ["PLAIN", "AMQPLAIN"])
def test_a_wrong_password_is_refused_with(connect, mechanism):
    with pytest.raises(amqp.exceptions.AccessRefused) as caught:
        connect(login_method=mechanism, password="not the password")
    assert caught.value.code == 403
    assert connect(login_method=mechanism).connected


def test_a_consumer_tag_used_twice_is_530(connect):
    connection = connect()
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).queue
    channel.basic_consume(queue, consumer_tag="mine", callback=lambda _message: None)
    with pytest.raises(amqp.exceptions.NotAllowed) as caught:
        channel.basic_consume(queue, consumer_tag="mine", callback=lambda _message: None)
    assert caught.value.code == 530


def test_a_consumer_tag_serves_again_after_cancel_and_on_every_channel(connect):
    connection = connect()
    one, two = connection.channel(), connection.channel()
    queue = one.queue_declare("", exclusive=True).queue
    for channel in (one, two):
        channel.basic_consume(queue, consumer_tag="mine")
    one.basic_cancel("mine")
    one.basic_consume(queue, consumer_tag="mine")


def test_immediate_is_540(connect):
    connection = connect()
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).queue
    channel.basic_publish(amqp.Message("body"), "", queue, immediate=True)
    with pytest.raises(amqp.exceptions.AMQPNotImplementedError) as caught:
        channel.queue_declare(queue, passive=True)
    assert caught.value.code == 540


def test_an_error_of_the_connection_spares_its_neighbours(connect):
    neighbour = connect().channel()
    queue = neighbour.queue_declare("", exclusive=True).queue
    broken = connect()
    broken.channel().basic_publish(amqp.Message("body"), "", queue, immediate=True)
    with pytest.raises(amqp.exceptions.AMQPNotImplementedError):
        broken.drain_events(timeout=5)
    neighbour.basic_publish(amqp.Message("body"), "", queue)
    assert neighbour.basic_get(queue, no_ack=True).body == "body"


def test_heartbeats_go_both_ways(connect):
    connection = connect(heartbeat=1)
    before = connection.bytes_recv  # counts frames

    def three_beats():
        try:
            connection.drain_events(timeout=0.1)
        except socket.timeout:
            pass
        connection.heartbeat_tick()  # sends ours, and raises when the broker's stay away
        return connection.bytes_recv >= before + 3

    wait_for(three_beats, "three heartbeats from the broker", 8)
    assert connection.channel().queue_declare("", exclusive=True).queue


def test_channel_flow_is_answered(connect):
    connect().channel().flow(True)
