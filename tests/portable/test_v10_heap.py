"""The steady path of AMQP 1.0 does not allocate: MicroPython's heap is locked meanwhile.

Transfer -> exchange -> queue -> transfer -> disposition, through the engines of a sender and of a
receiver, by prepared octets in buffers made before. On CPython the same messages are counted.
"""

import wire
import wire10
from amqp_lite.v10.performatives import ACCEPTED, uint
from clients10 import ask, receiver, sender, session
from world import World

try:
    from micropython import heap_lock, heap_unlock
except ImportError:

    def heap_lock():
        pass

    heap_unlock = heap_lock

LONG = 0x10000  # a number that takes all five octets


class Flow:
    """A sender and a receiver with all their octets ready."""

    def __init__(self, target, payload, durable=False, settled=False):
        self.world = World()
        self.broker = self.world.broker
        other = self.world.client()
        other.queue("q", durable=durable)
        other.ask(wire.bind_queue(1, "q", "amq.topic", "sensors.#"))
        other.vanish()
        self.sender = session(self.world)
        sender(self.sender, target)
        self.receiver = session(self.world)
        receiver(self.receiver, "q", 0x20000, settle=settled and 1)
        self.settled = settled
        octets = wire10.transfer(payload, LONG, settled=settled)
        self.transfer = view = memoryview(bytearray(octets))
        # What the receive buffer takes at once.
        size = self.world.profile["receive_buffer"]
        self.pieces = [view[k : k + size] for k in range(0, len(octets), size)]
        self.at = octets.index(b"\x70\0\1\0\0") + 1
        octets = wire10.disposition(LONG, None, ACCEPTED)
        self.disposition = memoryview(bytearray(octets))
        self.settled_at = octets.index(b"\x70\0\1\0\0") + 1
        self.before = self.world.free()

    def run(self, first, count):
        """Send *count* messages around. Nothing here may allocate."""
        source = self.sender.engine
        sink = self.receiver.engine
        broker = self.broker
        transfer = self.transfer  # its pieces are views of it
        disposition = self.disposition
        for k in range(first, first + count):
            transfer[self.at + 1] = 0
            transfer[self.at + 2] = k >> 8
            transfer[self.at + 3] = k & 0xFF
            for piece in self.pieces:
                source.feed(piece, len(piece))
            broker.committed = broker.store.commit()
            broker.freed = False
            source.pump()
            source.output.sent(source.output.pending)
            sink.pump()
            while sink.output.pending:  # a long one takes several
                sink.output.sent(sink.output.pending)
                sink.pump()
            if not self.settled:
                disposition[self.settled_at + 1] = 0
                disposition[self.settled_at + 2] = k >> 8
                disposition[self.settled_at + 3] = k & 0xFF
                sink.feed(disposition, len(disposition))
                sink.pump()
                sink.output.sent(sink.output.pending)

    def check(self, count=500):
        """Send two around with the heap open, and *count* more."""
        self.run(0, 2)
        heap_lock()
        try:
            self.run(2, count)
        finally:
            heap_unlock()
        metrics = self.broker.metrics
        assert metrics.delivered == 2 + count
        if not self.settled:
            assert metrics.acknowledged == metrics.confirmed == 2 + count
        self.broker.store.tick()
        after = self.world.free()
        assert after == self.before or "stored" in after


def payload(size, **more):
    return wire10.message(bytes(size), subject="sensors.7", **more)


def test_the_octets_are_where_they_are_written():
    flow = Flow("q", payload(20))
    assert bytes(flow.transfer[flow.at : flow.at + 4]) == b"\0\1\0\0"
    assert wire10.split(bytes(flow.disposition))[0][0][2][1] == LONG
    assert uint(LONG).code == 0x70


def test_messages_to_a_queue():
    Flow("/queues/q", payload(20)).check()


def test_messages_over_a_topic_exchange():
    Flow("/exchanges/amq.topic/sensors.7.temperature", payload(200)).check()


def test_messages_with_all_sections():
    Flow("q", payload(100, ttl=60000, headers={"k": 1}, user=b"guest")).check()


def test_settled_messages():
    Flow("q", payload(20), settled=True).check()


def test_durable_messages():
    Flow("q", payload(100, durable=True), durable=True).check(300)


def test_messages_longer_than_the_buffers():
    Flow("q", payload(3000)).check(200)


def test_one_after_the_other_is_all_there_is():
    flow = Flow("q", payload(20))
    flow.run(0, 40)
    assert ask(flow.sender, b"") == [] and flow.broker.queues[b"q"].unacked == 0
