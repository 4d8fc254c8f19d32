"""rabbitmq-amqp-python-client: RabbitMQ's own AMQP 1.0 client, which manages through /management.

It connects to brokers called RabbitMQ alone, of version 4 or later. Ours says what it is, so that
these tests, and who wants to use this client, have to silence that check.
"""

import pytest

from interop_support import client_library, ready, settle, wait_for

client = client_library("rabbitmq_amqp_python_client")

from rabbitmq_amqp_python_client.publisher import SendException  # noqa: E402

CONNECTION = client.Connection


@pytest.fixture(scope="session")
def broker(v10_broker):
    return v10_broker


@pytest.fixture
def connection(broker, fresh, monkeypatch):
    monkeypatch.setattr(CONNECTION, "_validate_server_properties", lambda self: None)
    monkeypatch.setattr(CONNECTION, "_is_server_version_gte", lambda self, version: True)
    environment = client.Environment(uri=broker.url)
    opened = environment.connection()
    opened.dial()
    yield opened
    opened.close()


@pytest.fixture
def management(connection):
    opened = connection.management()
    yield opened
    opened.close()


@pytest.fixture
def queue(management, fresh):
    """The name of a queue that it has declared."""
    name = fresh.queue("rabbit mq/1")
    management.declare_queue(client.ClassicQueueSpecification(name=name))
    return name


def message(body):
    """With an annotation: this client reads no message that has none, as RabbitMQ adds some."""
    return client.Message(body=body, annotations={client.symbol("x-opt-note"): "n"})


def publish(connection, address, *bodies):
    publisher = connection.publisher(address)
    for body in bodies:
        delivery = publisher.publish(message(body))
        assert delivery.remote_state == client.OutcomeState.ACCEPTED
    publisher.close()


class Done(Exception):
    """The handler has had enough."""


def consume(connection, queue, *how, **options):
    """The bodies of as many messages as *how* tells what to do with."""
    bodies = []

    class Handler(client.AMQPMessagingHandler):
        def on_amqp_message(self, event):
            bodies.append(bytes(event.message.body))
            if how[len(bodies) - 1] is not None:
                getattr(self.delivery_context, how[len(bodies) - 1])(event)
            if len(bodies) == len(how):
                raise Done

    address = client.AddressHelper.queue_address(queue)
    consumer = connection.consumer(address, message_handler=Handler(), **options)
    with pytest.raises(Done):
        consumer.run()
    consumer.close()
    return bodies


def test_it_is_told_whom_it_talks_to(broker, fresh):
    connection = client.Environment(uri=broker.url).connection()
    with pytest.raises(client.ValidationCodeException, match="got 'amqp_lite'"):
        connection.dial()
    connection.close()


def test_a_queue_is_declared_described_and_deleted(management, channel, fresh):
    name = fresh.queue("rabbit mq/1")
    specification = client.ClassicQueueSpecification(name=name, max_len=100)
    for _ in range(2):
        management.declare_queue(specification)
    channel.basic_publish("", name, b"a")
    wait_for(lambda: ready(channel, name) == 1, "the message")
    info = management.queue_info(name)
    assert (info.name, info.is_durable, info.is_exclusive) == (name, True, False)
    assert (info.message_count, info.consumer_count) == (1, 0)
    assert info.queue_type == client.QueueType.classic
    assert info.arguments["x-max-length"] == 100
    management.delete_queue(name)
    with pytest.raises(client.ValidationCodeException, match="404"):
        management.queue_info(name)


def test_another_declaration_of_a_queue_is_refused(management, queue):
    with pytest.raises(client.ValidationCodeException, match="ErrPreconditionFailed"):
        management.declare_queue(client.ClassicQueueSpecification(name=queue, max_len=5))


def test_queues_of_other_types_are_refused(management, fresh):
    for specification in (client.QuorumQueueSpecification, client.StreamSpecification):
        with pytest.raises(client.ValidationCodeException):
            management.declare_queue(specification(name=fresh.queue()))


def test_bindings(management, connection, queue, fresh):
    exchange, upper = fresh.exchange("rabbit mq/x"), fresh.exchange()
    for name in (exchange, upper):
        management.declare_exchange(
            client.ExchangeSpecification(name=name, exchange_type=client.ExchangeType.topic)
        )
    path = management.bind(
        client.ExchangeToQueueBindingSpecification(
            source_exchange=exchange, destination_queue=queue, binding_key="room.*"
        )
    )
    between = client.ExchangeToExchangeBindingSpecification(
        source_exchange=upper, destination_exchange=exchange, binding_key="#"
    )
    management.bind(between)
    publish(connection, client.AddressHelper.exchange_address(exchange, "room.1"), b"a")
    publish(connection, client.AddressHelper.exchange_address(upper, "room.2"), b"b")
    assert consume(connection, queue, "accept", "accept") == [b"a", b"b"]
    management.unbind(path)
    management.unbind(between)
    publisher = connection.publisher(client.AddressHelper.exchange_address(exchange, "room.1"))
    with pytest.raises(SendException):
        publisher.publish(message(b"c"))
    for name in (exchange, upper):
        management.delete_exchange(name)


def test_a_queue_is_purged(management, connection, queue):
    publish(connection, client.AddressHelper.queue_address(queue), b"a", b"b", b"c")
    assert management.purge_queue(queue) == 3
    assert management.queue_info(queue).message_count == 0


def test_each_message_says_where_it_goes(connection, queue):
    publisher = connection.publisher()
    addressed = client.AddressHelper.message_to_address_helper(
        message(b"a"), client.AddressHelper.queue_address(queue)
    )
    assert publisher.publish(addressed).remote_state == client.OutcomeState.ACCEPTED
    assert consume(connection, queue, "accept") == [b"a"]


def test_what_a_consumer_does_with_messages(connection, queue, channel):
    publish(connection, client.AddressHelper.queue_address(queue), b"a", b"b", b"c")
    bodies = consume(connection, queue, "accept", "discard", "requeue", "accept")
    assert bodies == [b"a", b"b", b"c", b"c"]
    settle(channel, queue, 0)


def test_messages_that_are_settled_when_they_come(connection, queue, channel):
    publish(connection, client.AddressHelper.queue_address(queue), b"a", b"b")
    strategy = client.ConsumerSettleStrategy.PreSettled
    options = client.ConsumerOptions(settle_strategy=strategy)
    assert consume(connection, queue, None, None, consumer_options=options) == [b"a", b"b"]
    settle(channel, queue, 0)


def test_direct_reply_to(connection, channel):
    strategy = client.ConsumerSettleStrategy.DirectReplyTo
    answers = []

    class Handler(client.AMQPMessagingHandler):
        def on_amqp_message(self, event):
            answers.append(bytes(event.message.body))
            raise Done

    consumer = connection.consumer(
        message_handler=Handler(),
        consumer_options=client.ConsumerOptions(settle_strategy=strategy),
    )
    assert consumer.address.startswith("/queues/")
    # Whoever answers may speak 0-9-1.
    channel.basic_publish("", consumer.address[len("/queues/") :], b"the answer")
    with pytest.raises(Done):
        consumer.run()
    assert answers == [b"the answer"]
    consumer.close()


def test_a_full_queue_rejects(management, connection, fresh):
    name = fresh.queue()
    management.declare_queue(
        client.ClassicQueueSpecification(name=name, max_len=1, overflow_behaviour="reject-publish")
    )
    publisher = connection.publisher(client.AddressHelper.queue_address(name))
    publisher.publish(message(b"a"))
    with pytest.raises(client.AmqpMessageRejectedException):
        publisher.publish(message(b"b"))
