"""Publishing and subscribing on the broker's own machine, without a socket."""

import wire
from amqp_lite.errors import AMQPError
from amqp_lite.local import Subscriber, publish
from world import World


class Setting:
    def __init__(self, **numbers):
        self.world = World(**numbers)
        self.broker = self.world.broker
        self.peer = self.world.client()
        self.peer.queue("q")
        self.before = self.world.free()
        self.got = []

    def publish(self, body, key="q", exchange="", **properties):
        return publish(self.broker, exchange, key, body, properties)

    def error(self, body, **options):
        try:
            self.publish(body, **options)
        except AMQPError as error:
            return error.code
        return None

    def subscribe(self, callback=None):
        queue = self.broker.queue(b"q")
        return Subscriber(self.broker, queue, callback or self.got.append)


def test_what_is_published_here_arrives_there():
    s = Setting()
    assert s.publish(b"21.5", message_id="m", headers={"unit": "C"}, delivery_mode=2) == 1
    content = s.peer.contents(wire.get(1, "q", no_ack=1))[0]
    assert content[3] == wire.properties(message_id="m", headers={"unit": "C"}, delivery_mode=2)
    assert content[4] == b"21.5"
    assert s.world.free() == s.before


def test_text_is_published_as_utf_8():
    s = Setting()
    s.publish("21\u00b0")
    assert s.peer.bodies(wire.get(1, "q")) == ["21\u00b0".encode()]


def test_the_number_of_queues_is_told():
    s = Setting()
    s.peer.queue("r")
    for name in "qr":
        s.peer.ask(wire.bind_queue(1, name, "amq.topic", "a.#"))
    assert s.publish(b"x", "a.b", "amq.topic") == 2
    assert s.publish(b"x", "b", "amq.topic") == 0
    assert s.publish(b"") == 1


def test_a_callback_gets_what_is_in_the_queue():
    s = Setting()
    subscriber = s.subscribe()
    s.publish(b"1", headers={"a": 1}, timestamp=1700000000)
    s.peer.send(wire.publish(1, "", "q", "2", wire.properties(content_type="text/plain")))
    assert s.got == []
    subscriber.pump()
    assert [message.body for message in s.got] == [b"1", b"2"]
    assert s.got[0].properties == {"headers": {b"a": 1}, "timestamp": 1700000000}
    assert s.got[1].properties == {"content_type": b"text/plain"}
    assert (s.got[0].exchange, s.got[0].routing_key, s.got[0].redelivered) == ("", "q", False)
    assert s.broker.pool.available == s.before["blocks"]


def test_a_callback_that_publishes_is_not_called_inside_itself():
    s = Setting()
    depth = []

    def again(message):
        assert not depth
        depth.append(1)
        if len(s.got) < 50:
            s.got.append(message.body)
            s.publish(message.body + b"+")
        depth.pop()

    subscriber = s.subscribe(again)
    s.publish(b"0")
    for _ in range(60):
        subscriber.pump()
    assert len(s.got) == 50
    assert s.broker.pool.available == s.before["blocks"]


def test_one_step_calls_back_a_bounded_number_of_times():
    s = Setting()
    subscriber = s.subscribe()
    for k in range(40):
        s.publish(b"%d" % k)
    assert subscriber.pump()
    assert 0 < len(s.got) < 40
    while subscriber.pump():
        pass
    assert [int(message.body) for message in s.got] == list(range(40))


def test_a_callback_that_fails_gets_the_message_once_more_and_then_no_more():
    s = Setting()

    def fail(message):
        s.got.append((message.body, message.redelivered))
        if message.body == b"bad":
            raise ValueError("expected by the test")

    subscriber = s.subscribe(fail)
    s.publish(b"bad")
    s.publish(b"good")
    for _ in range(4):
        subscriber.pump()
    assert s.got == [(b"bad", False), (b"bad", True), (b"good", False)]
    assert s.broker.metrics.callback_errors == 2
    assert s.broker.pool.available == s.before["blocks"]


def test_a_subscriber_whose_queue_is_deleted_rests():
    s = Setting()
    subscriber = s.subscribe()
    s.publish(b"x")
    s.peer.ask(wire.delete_queue(1, "q"))
    assert not subscriber.pump()
    assert s.got == []


def test_a_subscriber_and_a_client_share_a_queue():
    s = Setting()
    subscriber = s.subscribe()
    s.peer.ask(wire.consume(1, "q", "c", no_ack=1))
    for k in range(10):
        s.publish(b"%d" % k)
        subscriber.pump()
        s.world.run()
    assert len(s.got) + len(s.peer.bodies()) == 10


def test_what_cannot_be_published_leaves_nothing_behind():
    s = Setting(messages=6)
    assert s.error(b"x", exchange="no") == 404
    assert s.error(b"x" * 30000) == 311
    assert s.error(b"x", headers={"k": "v" * 2000}) == 311
    assert s.error(b"x", colour="red") == 502
    assert s.error(b"x", message_id="m" * 256) == 502
    assert s.error(b"x", key="k" * 256) == 502
    for expiration in ("-1", "soon", -1, ""):
        assert s.error(b"x", expiration=expiration) == 406, expiration
    assert s.world.free() == s.before
    for _ in range(6):
        s.publish(b"x")
    assert s.error(b"x") == 506


def test_a_queue_that_refuses_is_told():
    s = Setting()
    s.peer.queue("small", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    assert s.publish(b"1", "small") == 1
    assert s.error(b"2", key="small") == 506


def test_an_expiration_counts_here_as_well():
    s = Setting()
    s.publish(b"old", expiration=100)
    s.publish(b"new", expiration="100000")
    s.broker.now += 101
    assert s.peer.bodies(wire.get(1, "q")) == [b"new"]
