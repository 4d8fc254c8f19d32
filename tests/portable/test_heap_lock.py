"""The steady path does not allocate: messages go around with MicroPython's heap locked.

Publish -> exchange -> queue -> deliver -> ack, through the engines of a publisher and a consumer,
by prepared octets in buffers made before. CPython has no such lock; there the same messages are
counted.
"""

import wire
from world import World

try:
    from micropython import heap_lock, heap_unlock
except ImportError:

    def heap_lock():
        pass

    def heap_unlock():
        pass


class Flow:
    """A publisher and a consumer with all their octets ready."""

    def __init__(self, publishes, queue=None, exchange="amq.topic", pattern="sensors.#", no_ack=0):
        self.world = World()
        self.broker = self.world.broker
        self.consumer = self.world.client()
        self.publisher = self.world.client()
        self.consumer.queue("q", **(queue or {}))
        if exchange:
            self.consumer.ask(wire.bind_queue(1, "q", exchange, pattern))
        self.consumer.ask(wire.consume(1, "q", "c", no_ack=no_ack))
        self.no_ack = no_ack
        self.inputs = [memoryview(bytearray(octets)) for octets in publishes]
        self.ack = memoryview(bytearray(wire.ack(1, 0)))
        self.before = self.world.free()

    def run(self, count):
        """Send *count* messages around. Nothing here may allocate."""
        publisher = self.publisher.engine
        consumer = self.consumer.engine
        broker = self.broker
        inputs = self.inputs
        kinds = len(inputs)
        ack = self.ack
        for k in range(count):
            octets = inputs[k % kinds]
            publisher.feed(octets, len(octets))
            broker.store.commit()
            broker.freed = False
            publisher.pump()
            publisher.output.sent(publisher.output.pending)
            consumer.pump()
            consumer.output.sent(consumer.output.pending)
            if not self.no_ack:
                # The tag of delivery k, in the octets of the prepared frame.
                tag = k + 1
                ack[18] = tag & 0xFF
                ack[17] = tag >> 8
                consumer.feed(ack, len(ack))
                consumer.pump()

    def check(self, count=1000):
        """Send one around with the heap open, when permissions are looked up, and *count* more."""
        self.run(1)
        self.consumer.engine.channels[1]._delivery_tag = 0
        heap_lock()
        try:
            self.run(count)
        finally:
            heap_unlock()
        assert self.broker.metrics.delivered == 1 + count
        if not self.no_ack:
            assert self.broker.metrics.acknowledged == 1 + count
        assert self.world.free() == self.before


BODY = "x" * 200


def test_the_ack_is_where_the_flow_writes_it():
    octets = wire.ack(1, 0x0102)
    assert octets[17:19] == b"\x01\x02"
    assert octets[11:17] == b"\0" * 6


def test_messages_over_a_topic_exchange():
    Flow([wire.publish(1, "amq.topic", "sensors.7.temperature", BODY)]).check()


def test_messages_with_confirms():
    flow = Flow([wire.publish(1, "amq.topic", "sensors.7.temperature", BODY)])
    flow.publisher.ask(wire.select_confirms(1))
    flow.check()
    assert flow.broker.metrics.confirmed == 1001


def test_persistent_messages_of_a_durable_queue_with_confirms():
    octets = wire.publish(1, "amq.topic", "sensors.a", BODY, wire.properties(delivery_mode=2))
    flow = Flow([octets], queue={"durable": 1})
    flow.publisher.ask(wire.select_confirms(1))
    flow.check()


def test_messages_under_many_routing_keys():
    # More keys than the route cache has places: most are resolved anew.
    keys = ["sensors.%d.value%d" % (k, k * k) for k in range(50)]
    Flow([wire.publish(1, "amq.topic", key, BODY) for key in keys]).check()


def test_messages_over_other_exchanges():
    Flow([wire.publish(1, "amq.direct", "k", BODY)], exchange="amq.direct", pattern="k").check()


def test_messages_over_a_fanout_exchange():
    Flow([wire.publish(1, "amq.fanout", "k%d" % k, BODY) for k in range(30)],
         exchange="amq.fanout").check()  # fmt: skip


def test_messages_over_the_default_exchange():
    Flow([wire.publish(1, "", "q", BODY)], exchange="").check()


def test_messages_without_acknowledgement():
    Flow([wire.publish(1, "amq.topic", "sensors.a", BODY)], no_ack=1).check()


def test_messages_with_properties():
    given = wire.properties(content_type="text/plain", message_id="m" * 36, timestamp=1700000000,
                            app_id="app", headers={"unit": "C", "n": 1})  # fmt: skip
    Flow([wire.publish(1, "amq.topic", "sensors.a", BODY, given)]).check()


def test_messages_larger_than_the_send_buffer():
    flow = Flow([wire.publish(1, "amq.topic", "sensors.a", "x" * 900, piece=300)])
    flow.check()


def test_messages_in_a_queue_with_a_time_to_live_and_a_length():
    Flow([wire.publish(1, "amq.topic", "sensors.a", BODY)],
         queue={"arguments": {"x-message-ttl": 60000, "x-max-length": 10}}).check()  # fmt: skip


def test_messages_in_pieces_of_a_few_octets():
    octets = wire.publish(1, "amq.topic", "sensors.a", BODY)
    flow = Flow([octets])
    flow.run(1)
    flow.inputs = [memoryview(bytearray(octets[i : i + 7])) for i in range(0, len(octets), 7)]
    engine = flow.publisher.engine
    heap_lock()
    try:
        for _ in range(50):
            for part in flow.inputs:
                engine.feed(part, len(part))
    finally:
        heap_unlock()
    assert flow.broker.metrics.published == 51
