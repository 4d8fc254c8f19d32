"""What the other tests stand on: pika finds a broker in RabbitMQ, the proxy and the script."""

import threading
import time

import pika
import pika.exceptions
import pytest

import scripted as scripts
from interop_support import wait_for


def connect(port, **options):
    options = dict({"heartbeat": 0, "stack_timeout": 5}, **options)
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, **options))


def confirming(connection):
    channel = connection.channel()
    channel.confirm_delivery()
    return channel


def test_the_script_takes_publishes_and_confirms_them(scripted):
    upstream = scripted()
    connection = connect(upstream.port)
    channel = confirming(connection)
    properties = pika.BasicProperties(headers={"n": 1, "s": "two"}, message_id="m-1")
    for size in (0, 5, 300000):
        channel.basic_publish("amq.topic", "a.b", b"x" * size, properties, mandatory=True)
    assert [len(m.body) for m in upstream.messages] == [0, 5, 300000]
    message = upstream.messages[1]
    assert (message.exchange, message.routing_key, message.tag) == ("amq.topic", "a.b", 2)
    assert message.headers == {"n": 1, "s": "two"} and message.properties.message_id == "m-1"
    assert message.mandatory and message.outcome == "ack"
    assert len(upstream.confirmed()) == 3
    connection.close()
    assert upstream.names()[-1] == "connection.close"


@pytest.mark.parametrize("confirms", [scripts.Multiple(4), scripts.OutOfOrder(4)])
def test_the_script_confirms_late_and_in_any_order(scripted, confirms):
    upstream = scripted(confirms=confirms)
    answers = []
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", upstream.port))
    channel = connection.channel()
    # Below the blocking channel, which waits for each confirm.
    channel._impl.confirm_delivery(lambda frame: answers.append(frame.method))
    connection.process_data_events(0.1)
    for k in range(6):
        channel._impl.basic_publish("", "q", b"%d" % k)
    many = 6 if isinstance(confirms, scripts.OutOfOrder) else 2
    wait_for(lambda: connection.process_data_events(0.02) or len(answers) >= many, "confirms")
    if isinstance(confirms, scripts.OutOfOrder):
        assert [answer.delivery_tag for answer in answers] == [4, 3, 2, 1, 6, 5]
    else:
        assert [(a.delivery_tag, a.multiple) for a in answers] == [(4, True), (6, True)]
    connection.close()


def test_the_script_nacks_returns_and_closes_channels(scripted):
    upstream = scripted(routable=lambda message: message.routing_key != "nowhere")
    upstream.confirms = scripts.Judge(
        lambda message: {b"bad": "nack", b"406": (406, "PRECONDITION_FAILED")}.get(
            message.body, "ack"
        )
    )
    upstream.missing.add("gone")
    connection = connect(upstream.port)
    channel = confirming(connection)
    with pytest.raises(pika.exceptions.NackError):
        channel.basic_publish("", "q", b"bad")
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish("", "nowhere", b"x", mandatory=True)
    channel.basic_publish("", "q", b"good")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        channel.basic_publish("", "q", b"406")
    assert caught.value.reply_code == 406
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        confirming(connection).basic_publish("gone", "", b"x")
    assert caught.value.reply_code == 404
    with pytest.raises(pika.exceptions.ChannelClosedByBroker):
        connection.channel().queue_declare("gone", passive=True)
    assert [(m.outcome, m.returned) for m in upstream.messages] == [
        ("nack", False), ("ack", True), ("ack", False), ("close", False), ("close", False)
    ]  # fmt: skip
    assert [m.body for m in upstream.confirmed()] == [b"good"]
    connection.close()


def test_the_script_delivers_as_the_prefetch_allows_and_again_after_a_cut(scripted):
    upstream = scripted()
    for k in range(5):
        upstream.deliver("q", b"%d" % k, correlation_id="c%d" % k)
    connection = connect(upstream.port)
    channel = connection.channel()
    channel.basic_qos(prefetch_count=2)
    got = []
    channel.basic_consume("q", lambda _c, method, p, body: got.append((method, p, body)))
    wait_for(lambda: connection.process_data_events(0.02) or len(got) == 2, "two deliveries")
    connection.process_data_events(0.1)
    assert [body for _, _, body in got] == [b"0", b"1"] and got[1][1].correlation_id == "c1"
    channel.basic_ack(got[0][0].delivery_tag)
    wait_for(lambda: connection.process_data_events(0.02) or len(got) == 3, "the third one")
    assert upstream.settled == [(1, "ack", False, False)]
    upstream.cancel_consumers("q")
    wait_for(lambda: connection.process_data_events(0.02) or not channel.consumer_tags, "cancel")
    upstream.cut()
    with pytest.raises(pika.exceptions.AMQPError):
        while True:
            connection.process_data_events(0.02)
    channel = connect(upstream.port).channel()
    again = []
    channel.basic_consume("q", lambda _c, m, p, body: again.append((body, m.redelivered)))
    wait_for(lambda: channel.connection.process_data_events(0.02) or len(again) == 4, "the rest")
    assert again == [(b"1", True), (b"2", True), (b"3", False), (b"4", False)]
    channel.connection.close()


def test_the_script_refuses_logins_and_offers_what_it_likes(scripted):
    upstream = scripted(refusals={"connection.start-ok": (403, "ACCESS_REFUSED")})
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        connect(upstream.port)
    upstream.refusals = {"connection.open": (320, "CONNECTION_FORCED")}
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        connect(upstream.port)
    upstream.refusals = {}
    upstream.tune = (1, 4096, 1)
    connection = connect(upstream.port, heartbeat=1)
    channel = confirming(connection)
    channel.basic_publish("", "q", b"x" * 10000)
    assert len(upstream.messages[0].body) == 10000
    connection.process_data_events(2.5)  # heartbeats both ways
    channel.basic_publish("", "q", b"x")
    connection.close()
    upstream.greeting = b"AMQP\0\1\0\0"
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        connect(upstream.port)


def test_the_script_notices_who_sends_no_heartbeats(scripted):
    upstream = scripted(tune=(10, 131072, 1))
    connection = connect(upstream.port, heartbeat=1)
    time.sleep(3)  # pika does nothing meanwhile
    assert upstream.silent == [1]
    with pytest.raises(pika.exceptions.AMQPError):
        connection.process_data_events(1)
        connection.channel()


def test_half_an_ack_is_none(scripted):
    upstream = scripted(confirms=scripts.HalfAck(2))
    channel = confirming(connect(upstream.port))
    channel.basic_publish("", "q", b"1")
    with pytest.raises(pika.exceptions.AMQPError):
        channel.basic_publish("", "q", b"2")
    assert [m.outcome for m in upstream.messages] == ["ack", None]


def test_the_proxy_between_pika_and_rabbitmq(rabbitmq, cloud, proxied):
    network = proxied(rabbitmq.port)
    channel = confirming(connect(network.port))

    def publish(body=b"x", by=channel):
        begin = time.monotonic()
        by.basic_publish("", cloud.queue, body)
        return time.monotonic() - begin

    publish(b"y" * 3000000)
    assert (network.accepted, network.open()) == (1, 1) and network.octets["up"] > 3000000
    network.delay = 0.1
    assert publish() > 0.2
    network.delay = 0
    network.chunk = 1
    publish(b"z" * 300)
    network.chunk = 0
    network.stalled = {"down"}
    threading.Timer(0.4, network.stalled.clear).start()
    assert publish() > 0.35

    # Half a confirm and the end: the message is there all the same.
    happened = network.trap(reset=True)
    with pytest.raises(pika.exceptions.AMQPError):
        publish()
    assert happened.wait(2)
    wait_for(lambda: cloud.count() == 5, "it in the queue")

    channel = confirming(connect(network.port))
    network.refuse()
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        connect(network.port)
    publish(by=channel)
    network.admit()
    assert network.vanish() == 1
    other = confirming(connect(network.port))
    publish(by=other)
    assert network.cut() == 1
    with pytest.raises(pika.exceptions.AMQPError):
        publish(by=other)


def test_rabbitmq_blocks_who_publishes(rabbitmq, cloud):
    connection = connect(rabbitmq.port)
    told = []
    connection.add_on_connection_blocked_callback(lambda *_: told.append("blocked"))
    connection.add_on_connection_unblocked_callback(lambda *_: told.append("unblocked"))
    rabbitmq.set_memory_blocked(True)
    connection.channel().basic_publish("", cloud.queue, b"x")
    wait_for(lambda: connection.process_data_events(0.02) or told == ["blocked"], "blocked")
    rabbitmq.set_memory_blocked(False)
    wait_for(lambda: connection.process_data_events(0.02) or len(told) == 2, "unblocked")
    assert told == ["blocked", "unblocked"]
    connection.close()
