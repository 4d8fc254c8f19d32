"""python-qpid-proton: AMQP 1.0 as the library behind many of its clients speaks it."""

import time

import pytest

import interop_broker
from interop_support import client_library, drain, publish, ready, settle, wait_for

proton = client_library("proton")

from proton import ConnectionException, Delivery, Described, Message, symbol  # noqa: E402
from proton.handlers import MessagingHandler, TransactionHandler  # noqa: E402
from proton.reactor import AtLeastOnce, AtMostOnce, DurableSubscription  # noqa: E402
from proton.utils import (  # noqa: E402
    LinkDetached,
    SendException,
)

SECONDS = 5


@pytest.fixture(scope="session")
def broker(v10_broker):
    return v10_broker


@pytest.fixture
def connection(link_up, broker):
    return link_up(broker)


@pytest.fixture
def queue(channel, fresh):
    """The name of a queue; 0-9-1 has declared it."""
    name = fresh.queue()
    channel.queue_declare(name)
    return name


def address(queue):
    return "/queues/" + queue


def receive(receiver, outcome=Delivery.ACCEPTED):
    """The next message, settled with *outcome*."""
    message = receiver.receive()
    receiver.settle(outcome)
    return message


def nothing_comes(receiver):
    """Whatever waits for *receiver* has come when its credit is drained."""
    receiver.link.drain(1)
    receiver.connection.wait(lambda: not receiver.link.credit)
    return not receiver.fetcher.has_message


def turn_for(connection, seconds):
    """Let *connection* do its work meanwhile."""
    until = time.monotonic() + seconds
    connection.container.timeout = seconds
    while time.monotonic() < until:
        connection.container.process()
    connection.container.timeout = SECONDS


class Gatherer(MessagingHandler):
    """Keeps what comes, and gives no credit of its own accord."""

    def __init__(self, prefetch=0):
        super().__init__(prefetch=prefetch, auto_accept=prefetch > 0)
        self.bodies = []

    def on_message(self, event):
        body = event.message.body
        self.bodies.append(bytes(body) if isinstance(body, memoryview) else body)


def gather(connection, address, credit, prefetch=0):
    """(receiver, the bodies that come) with this *credit* and, if *prefetch*, always so much."""
    handler = Gatherer(prefetch)
    receiver = connection.create_receiver(address, credit=credit, handler=handler)
    return receiver, handler.bodies


# --- messages ---


def test_every_section_comes_as_it_was_sent(connection, queue):
    sent = Message(
        id="id-1", user_id=b"guest", subject="subject", reply_to="/queues/answers",
        correlation_id=7, content_type=symbol("text/plain"), content_encoding=symbol("utf-8"),
        expiry_time=4000000000.0, creation_time=1700000000.123, group_id="group",
        group_sequence=5, reply_to_group_id="other", durable=True, priority=9, ttl=60.0,
        annotations={symbol("x-opt-note"): [1, "two", {"three": 3}]},
        properties={"s": "grüß", "n": -5, "u": proton.ulong(5), "b": True, "f": 0.5, "z": None,
                    "o": b"\0\xff"},
        body={"list": [1, None, "x"], "nested": {"deep": Described(symbol("a:b"), 1)}},
    )  # fmt: skip
    connection.create_sender(address(queue)).send(sent)
    got = receive(connection.create_receiver(address(queue)))
    for field in (
        "id", "user_id", "subject", "reply_to", "correlation_id", "content_type",
        "content_encoding", "expiry_time", "creation_time", "group_id", "group_sequence",
        "reply_to_group_id", "durable", "priority", "ttl", "annotations", "properties", "body",
    ):  # fmt: skip
        assert getattr(got, field) == getattr(sent, field), field
    assert got.delivery_count == 0


@pytest.mark.parametrize("body", ["text", b"octets", None, 5, [], ["a", 1], {"k": b"v"}])
def test_bodies(connection, queue, body):
    inferred = isinstance(body, (bytes, list))  # data, amqp-sequence: else amqp-value
    connection.create_sender(address(queue)).send(Message(body=body, inferred=inferred))
    assert receive(connection.create_receiver(address(queue))).body == body


def test_a_long_body_in_many_frames(link_up, broker, queue, limits):
    body = bytes(k * 7 % 251 for k in range(limits.body - 100))
    link_up(broker).create_sender(address(queue)).send(Message(body=body, inferred=True))
    receiver = link_up(broker, max_frame_size=512).create_receiver(address(queue))
    assert receive(receiver).body == body


def test_a_message_sent_piece_by_piece(connection, queue):
    sender = connection.create_sender(address(queue))
    octets = Message(body=b"piece " * 300, inferred=True).encode()
    delivery = sender.link.delivery("tag")
    for k in range(0, len(octets), 400):
        sender.link.stream(octets[k : k + 400])
        turn_for(connection, 0.01)
    sender.link.advance()
    connection.wait(lambda: delivery.settled)
    assert delivery.remote_state == Delivery.ACCEPTED
    assert receive(connection.create_receiver(address(queue))).body == b"piece " * 300


def test_an_aborted_message_never_was(connection, queue):
    sender = connection.create_sender(address(queue))
    delivery = sender.link.delivery("tag")
    sender.link.stream(Message(body=b"x" * 900, inferred=True).encode()[:500])
    turn_for(connection, 0.01)
    delivery.abort()
    sender.send(Message(body="whole"))
    receiver = connection.create_receiver(address(queue))
    assert receive(receiver).body == "whole"
    assert nothing_comes(receiver)


def test_a_thousand_messages_under_way_at_once(link_up, broker, queue):
    connection = link_up(broker)
    reading = link_up(broker)
    _receiver, bodies = gather(reading, address(queue), 0, prefetch=10)
    sender = connection.create_sender(address(queue))
    connection.container.timeout = reading.container.timeout = 0
    under_way = []
    most = sent = 0
    while sent < 1000 or under_way:
        while sent < 1000 and sender.link.credit:
            under_way.append(sender.link.send(Message(body=sent)))
            sent += 1
        most = max(most, len(under_way))
        connection.container.process()
        reading.container.process()
        for delivery in [d for d in under_way if d.settled]:
            assert delivery.remote_state == Delivery.ACCEPTED
            under_way.remove(delivery)
            delivery.settle()
    assert most > 1
    reading.wait(lambda: len(bodies) == 1000)
    assert bodies == list(range(1000))


def test_presettled_both_ways(connection, queue):
    sender = connection.create_sender(address(queue), options=AtMostOnce())
    for k in range(5):
        sender.send(Message(body=k))
    receiver = connection.create_receiver(address(queue), credit=5, options=AtMostOnce())
    assert [receiver.receive().body for _ in range(5)] == list(range(5))
    receiver.close()
    assert nothing_comes(connection.create_receiver(address(queue), credit=1))


# --- outcomes ---


def test_a_released_message_is_as_before(connection, queue):
    connection.create_sender(address(queue)).send(Message(body="a"))
    receiver = connection.create_receiver(address(queue))
    receive(receiver, Delivery.RELEASED)
    again = receive(receiver)
    assert (again.body, again.delivery_count) == ("a", 0)


def test_a_modified_message_has_been_tried_once_more(connection, queue):
    connection.create_sender(address(queue)).send(Message(body="a"))
    receiver = connection.create_receiver(address(queue))
    receiver.receive()
    delivery = receiver.fetcher.unsettled[-1]
    delivery.local.failed = True
    receiver.settle(Delivery.MODIFIED)
    again = receive(receiver)
    assert (again.body, again.delivery_count, again.first_acquirer) == ("a", 1, False)


def test_a_rejected_message_is_gone(connection, queue, channel):
    connection.create_sender(address(queue)).send(Message(body="a"))
    receiver = connection.create_receiver(address(queue))
    receive(receiver, Delivery.REJECTED)
    assert nothing_comes(receiver)
    assert ready(channel, queue) == 0


def test_what_was_not_settled_comes_again(link_up, broker, queue, channel):
    connection = link_up(broker)
    connection.create_sender(address(queue)).send(Message(body="a"))
    connection.create_receiver(address(queue)).receive()
    assert ready(channel, queue) == 0
    connection.close()
    settle(channel, queue, 1)
    again = receive(link_up(broker).create_receiver(address(queue)))
    assert (again.body, again.first_acquirer) == ("a", False)


def test_an_unroutable_message_is_released(connection, fresh):
    sender = connection.create_sender("/exchanges/amq.direct/" + fresh.name("key"))
    with pytest.raises(SendException) as caught:
        sender.send(Message(body="a"))
    assert caught.value.state == Delivery.RELEASED


def test_a_message_for_a_full_queue_is_rejected(connection, channel, fresh):
    full = fresh.queue("full")
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    channel.queue_declare(full, arguments=arguments)
    sender = connection.create_sender(address(full))
    sender.send(Message(body="a"))
    with pytest.raises(SendException) as caught:
        sender.send(Message(body="b"))
    assert caught.value.state == Delivery.REJECTED


# --- flow ---


def test_no_more_messages_come_than_credit(connection, queue, channel):
    publish(channel, queue, *[b"%d" % k for k in range(10)])
    receiver, bodies = gather(connection, address(queue), 3)
    connection.wait(lambda: len(bodies) == 3)
    turn_for(connection, 0.1)
    assert len(bodies) == 3
    assert ready(channel, queue) == 7
    receiver.link.flow(2)
    connection.wait(lambda: len(bodies) == 5)


def test_drain_gives_the_credit_back(connection, queue, channel):
    publish(channel, queue, b"a", b"b")
    receiver, bodies = gather(connection, address(queue), 0)
    receiver.link.drain(10)
    connection.wait(lambda: not receiver.link.credit)
    assert bodies == [b"a", b"b"]
    publish(channel, queue, b"c")
    settle(channel, queue, 1)  # there is no credit left that would bring it
    receiver.link.flow(1)
    connection.wait(lambda: len(bodies) == 3)


def test_sessions_and_links_have_credit_of_their_own(connection, channel, fresh):
    queues = [fresh.queue() for _ in range(2)]
    receivers = []
    for name in queues:
        channel.queue_declare(name)
        session = connection.conn.session()
        session.open()
        for _ in range(2):
            link = session.receiver(fresh.name("link"))
            link.source.address = address(name)
            link.open()
            receivers.append(link)
    connection.wait(lambda: all(link.remote_source.address for link in receivers))
    receivers[1].flow(1)
    receivers[2].flow(2)
    for name in queues:
        publish(channel, name, b"a", b"b", b"c")
    connection.wait(lambda: receivers[1].queued == 1 and receivers[2].queued == 2)
    assert [link.queued for link in receivers] == [0, 1, 2, 0]
    assert [ready(channel, name) for name in queues] == [2, 1]
    receivers[1].session.close()
    turn_for(connection, 0.05)
    settle(channel, queues[0], 3)
    assert ready(channel, queues[1]) == 1


def test_many_links_on_one_session(connection, queue, broker):
    count = 16 if broker.runtime == "micropython" else 100
    senders = [
        connection.create_sender(address(queue), name="link-%d" % k) for k in range(count - 1)
    ]
    for k, sender in enumerate(senders):
        sender.send(Message(body=k))
    receiver = connection.create_receiver(address(queue), credit=count)
    assert [receive(receiver).body for _ in senders] == list(range(count - 1))


# --- nodes ---


def test_links_without_a_target_send_everywhere(connection, channel, fresh):
    queues = [fresh.queue() for _ in range(2)]
    for name in queues:
        channel.queue_declare(name)
    sender = connection.create_sender(None)
    for name in queues:
        sender.send(Message(address=address(name), body=name))
    for name in queues:
        assert receive(connection.create_receiver(address(name))).body == name
    with pytest.raises(SendException) as caught:
        sender.send(Message(address=address(fresh.name("nothing"))))
    assert caught.value.state in (Delivery.REJECTED, Delivery.RELEASED)
    sender.send(Message(address=address(queues[0]), body="the link lives on"))


def test_a_service_answers_to_a_dynamic_node(link_up, broker, queue):
    client = link_up(broker)
    answers = client.create_receiver(None, dynamic=True)
    reply_to = answers.link.remote_source.address
    requests = client.create_sender(address(queue))
    service = link_up(broker)
    taken = service.create_receiver(address(queue))
    answering = service.create_sender(None)
    for k in range(3):
        requests.send(Message(id=k, reply_to=reply_to, body="question %d" % k))
        request = receive(taken)
        answer = Message(address=request.reply_to, correlation_id=request.id)
        answer.body = "answer to " + request.body
        answering.send(answer)
        got = receive(answers)
        assert (got.correlation_id, got.body) == (k, "answer to question %d" % k)
    answers.close()
    with pytest.raises(SendException):
        answering.send(Message(address=reply_to))


def test_a_topic_by_its_binding_key(connection, fresh):
    key = fresh.name("room")
    receiver = connection.create_receiver("/exchange/amq.topic/%s.*" % key, credit=5)
    sender = connection.create_sender("/exchanges/amq.topic/%s.heat" % key)
    sender.send(Message(body="hot"))
    with pytest.raises(SendException):
        connection.create_sender("/exchanges/amq.topic/%s.a.b" % key).send(Message(body="deep"))
    assert receive(receiver).body == "hot"


def test_a_queue_of_a_plain_name(connection, queue):
    connection.create_sender(queue).send(Message(body="a"))
    assert receive(connection.create_receiver(queue)).body == "a"


def test_an_unknown_address_ends_the_link_alone(connection, queue, fresh):
    for make in (connection.create_sender, connection.create_receiver):
        with pytest.raises(LinkDetached) as caught:
            make(address(fresh.name("nothing")))
        assert caught.value.condition == "amqp:not-found"
    connection.create_sender(address(queue)).send(Message(body="a"))


def test_a_queue_that_is_deleted_ends_its_links(connection, channel, queue):
    receiver = connection.create_receiver(address(queue), credit=1)
    channel.queue_delete(queue)
    with pytest.raises(LinkDetached):
        receiver.receive()


# --- connections ---


def test_a_silent_broker_is_heard_in_time(link_up, broker, queue):
    connection = link_up(broker, heartbeat=2)  # proton tells the broker one second
    turn_for(connection, 2.5)
    connection.create_sender(address(queue)).send(Message(body="a"))


def test_a_wrong_password(link_up, broker):
    with pytest.raises(ConnectionException) as caught:
        link_up(broker, password="wrong")
    assert "amqp:unauthorized-access" in str(caught.value)
    link_up(broker)


def test_a_durable_subscription_outlives_the_broker(link_up, broker, fresh, tmp_path):
    if broker.process is None:
        pytest.skip("not ours to restart")

    def subscribe(running):
        connection = link_up(running, container_id="edge-7")
        options = [DurableSubscription()]
        return connection.create_receiver("/topic/room.*", name="heat", options=options)

    running = interop_broker.start_again(broker, tmp_path)
    receiver = subscribe(running)
    publisher = link_up(running).create_sender("/topic/room.7")
    publisher.send(Message(body="a", durable=True))
    assert receive(receiver).body == "a"
    receiver.detach()
    publisher.send(Message(body="b", durable=True))
    for connection in (receiver.connection, publisher.connection):
        connection.close()
    running.stop()
    running = interop_broker.start_again(broker, tmp_path)
    receiver = subscribe(running)
    publisher = link_up(running).create_sender("/exchanges/amq.topic/room.8")
    publisher.send(Message(body="c", durable=True))
    bodies = [receive(receiver).body for _ in "bc"]
    if bodies[0] == "a":  # that it was accepted was not on flash yet when the broker was stopped
        bodies = [*bodies[1:], receive(receiver).body]
    assert bodies == ["b", "c"]
    receiver.close()
    with pytest.raises(SendException):
        publisher.send(Message(body="d"))
    for connection in (receiver.connection, publisher.connection):
        connection.close()
    running.stop()


def test_durable_messages_outlive_the_broker(link_up, broker, fresh, tmp_path):
    if broker.process is None:
        pytest.skip("not ours to restart")
    name = "durable"
    running = interop_broker.start_again(broker, tmp_path)
    connection = link_up(running)
    management = connection.create_sender("/queue/" + name)  # declares it, durable
    body = b"x" * 3000
    for k in range(3):
        sent = Message(id=k, body=body, inferred=True, properties={"k": k}, durable=k < 2)
        management.send(sent)
    connection.close()
    running.stop()
    running = interop_broker.start_again(broker, tmp_path)
    receiver = link_up(running).create_receiver(address(name), credit=3)
    for k in range(2):
        got = receive(receiver)
        assert (got.id, got.body, got.properties, got.durable) == (k, body, {"k": k}, True)
    assert nothing_comes(receiver)
    receiver.connection.close()
    running.stop()


# --- transactions ---


class Transactions(TransactionHandler):
    """The one that goes on, and how the last one ended."""

    def __init__(self):
        super().__init__()
        self.current = self.ended = None

    def on_transaction_declared(self, event):
        self.current = event.transaction

    def on_transaction_committed(self, event):
        self.ended = "committed"

    def on_transaction_aborted(self, event):
        self.ended = "aborted"


def test_transactions(connection, queue, channel):
    handler = Transactions()

    def transaction():
        handler.current = None
        connection.container.declare_transaction(connection.conn, handler)
        connection.wait(lambda: handler.current is not None)
        return handler.current

    def ends(how):
        handler.ended = None
        getattr(handler.current, how)()
        connection.wait(lambda: handler.ended is not None)
        return handler.ended

    sender = connection.create_sender(address(queue))
    transaction().send(sender.link, Message(body="never"))
    turn_for(connection, 0.05)
    assert ends("abort") == "aborted"
    for k in range(2):
        transaction().send(sender.link, Message(body=k))
        turn_for(connection, 0.05)
        assert ready(channel, queue) == k
        assert ends("commit") == "committed"
    settle(channel, queue, 2)

    receiver = connection.create_receiver(address(queue))
    for how, first in (("abort", 0), ("commit", 0), ("commit", 1)):
        assert receiver.receive().body == first
        transaction().accept(receiver.fetcher.unsettled.popleft())
        assert ends(how).startswith(how)
    assert nothing_comes(receiver)
    assert ready(channel, queue) == 0


# --- both protocols ---


def test_what_0_9_1_publishes_proton_reads_and_the_other_way_round(connection, channel, queue):
    publish(channel, queue, b"old")
    assert receive(connection.create_receiver(address(queue))).body == b"old"
    sender = connection.create_sender(address(queue), options=AtLeastOnce())
    sender.send(Message(body=b"new", inferred=True))
    wait_for(lambda: ready(channel, queue) == 1, "the message")
    assert drain(channel, queue) == [b"new"]
