"""The store's steady path does not allocate: many turns of the ring with the heap locked.

Append, commit, read-back, delivery from RAM and from flash, acks, marks, new sectors, merges. The
octets of the clients are made before, as in test_heap_lock.py.
"""

import wire
from stored import PERSISTENT, kept
from test_heap_lock import heap_lock, heap_unlock
from world import World

BOARD = {"messages": 12, "deliveries": 16, "blocks": 48}


class Line:
    """A publisher with confirms and consumers of durable queues, who may be behind.

    publishes  octets, sent one after the other
    queues     names, each bound to amq.fanout and with one consumer
    """

    def __init__(self, publishes, queues=("q",), prefetch=1, arguments=None, no_ack=0, **profile):
        numbers = dict(BOARD)
        numbers.update(profile)
        self.world = World(**numbers)
        self.broker = self.world.broker
        self.publisher = self.world.client()
        self.publisher.ask(wire.select_confirms(1))
        self.consumers = []
        self.no_ack = no_ack
        for name in queues:
            peer = self.world.client()
            peer.queue(name, durable=1, arguments=arguments)
            peer.ask(wire.bind_queue(1, name, "amq.fanout"))
            peer.ask(wire.qos(1, prefetch) + wire.consume(1, name, "c", no_ack=no_ack))
            self.consumers.append(peer.engine)
        self.inputs = []
        for octets in publishes:
            # In pieces, as sockets give them.
            pieces = [octets[i : i + 512] for i in range(0, len(octets), 512)]
            self.inputs.append([memoryview(bytearray(piece)) for piece in pieces])
        self.acks = [memoryview(bytearray(wire.ack(1, 0))) for _ in queues]
        self.nacks = [memoryview(bytearray(wire.nack(1, 0))) for _ in queues]
        self.before = self.world.free()

    def turn_wheel(self):
        """What the reactor does in each step, but for sockets."""
        broker = self.broker
        broker.committed = broker.store.commit()
        if broker.behind:
            broker.catch_up()
        engine = self.publisher.engine
        engine.pump()
        engine.output.sent(engine.output.pending)
        for engine in self.consumers:
            engine.pump()
            while engine.output.pending:
                engine.output.sent(engine.output.pending)
                engine.pump()
        if broker.freed:
            broker.freed = False

    def publish(self, k):
        engine = self.publisher.engine
        for piece in self.inputs[k % len(self.inputs)]:
            engine.feed(piece, len(piece))
        self.turn_wheel()

    def settle(self, i, frames):
        """Consumer *i* settles the oldest it holds, by its one of *frames*. False: it has none."""
        engine = self.consumers[i]
        channel = engine.channels[1]
        entry = channel.unacked.head
        if entry is None:
            return False
        frame = frames[i]
        tag = entry.tag
        frame[17] = tag >> 8
        frame[18] = tag & 0xFF
        engine.feed(frame, len(frame))
        self.turn_wheel()
        return True

    def run(self, rounds, many):
        """In each round, publish *many*; then everybody takes what there is. Nothing allocates."""
        k = 0
        consumers = len(self.consumers)
        for _ in range(rounds):
            for _ in range(many):
                self.publish(k)
                k += 1
            for i in range(consumers):
                while self.settle(i, self.acks):
                    pass
            self.broker.now += 1000
            self.broker.store.tick()

    def check(self, rounds, many, turns=5):
        """*rounds* with the heap locked, which have to be *turns* of the ring; counts them all."""
        self.run(2, many)
        for engine in self.consumers:
            engine.channels[1]._delivery_tag = 0
        metrics = self.broker.metrics
        published = metrics.published
        confirmed = metrics.confirmed
        delivered = metrics.delivered
        newest = self.broker.store.ring.newest
        heap_lock()
        try:
            self.run(rounds, many)
        finally:
            heap_unlock()
        count = rounds * many
        assert metrics.published - published == count
        assert metrics.confirmed - confirmed == count, "nothing was refused"
        assert metrics.delivered - delivered == count * len(self.consumers)
        assert self.broker.store.ring.newest - newest >= turns * 16, "too few turns"
        assert kept(self.world) == 0
        now = self.world.free()
        # A merge makes definitions longer.
        now["stored"] = self.before["stored"]
        assert now == self.before


def message(size, exchange="amq.fanout", **given):
    given["delivery_mode"] = 2
    return wire.publish(1, exchange, "q", "x" * size, wire.properties(**given))


def test_consumers_who_keep_up():
    line = Line([message(200)], prefetch=0)
    line.check(420, 1)


def test_a_consumer_who_lags():
    line = Line([message(200)])
    line.check(15, 28)
    assert line.broker.metrics.dropped_store_full == 0


def test_a_consumer_without_acknowledgement():
    Line([message(200)], no_ack=1, prefetch=0).check(420, 1)


def test_several_queues_of_each_message():
    line = Line([message(200), message(30), message(300)], queues=("a", "b", "c"), connections=5)
    line.check(25, 25)


def test_messages_to_one_queue_each_by_the_default_exchange():
    Line([message(150, ""), message(400, "")], prefetch=3).check(18, 24)


def test_messages_that_expire_one_day():
    line = Line([message(200, expiration="86400000"), message(200)],
                arguments={"x-message-ttl": 90000000})  # fmt: skip
    # An expiration is a number to be read: that allocates, in the engine and not in the store.
    del line.inputs[0]
    line.check(20, 25)


def test_a_queue_that_drops_its_head():
    line = Line([message(200)], arguments={"x-max-length": 20})
    line.run(2, 40)
    newest = line.broker.store.ring.newest
    heap_lock()
    try:
        line.run(12, 40)
    finally:
        heap_unlock()
    assert line.broker.store.ring.newest - newest >= 5 * 16
    # One is with the consumer when the others come, and 20 wait.
    assert line.broker.metrics.dropped_max_length == 14 * 19
    assert kept(line.world) == 0


def test_messages_that_are_given_back():
    line = Line([message(200)])

    def run(rounds):
        for _ in range(rounds):
            for k in range(20):
                line.publish(k)
            for _ in range(20):
                for _ in range(3):
                    line.settle(0, line.nacks)
                line.settle(0, line.acks)

    run(1)
    newest = line.broker.store.ring.newest
    heap_lock()
    try:
        run(21)
    finally:
        heap_unlock()
    assert line.broker.store.ring.newest - newest >= 5 * 16
    assert line.broker.metrics.redelivered == 22 * 60
    assert line.broker.metrics.delivered == 22 * 80
    assert kept(line.world) == 0


def test_messages_of_several_records():
    # Between a third of a sector and what is streamed: in one record or in parts.
    line = Line([message(380), message(700), message(350)])
    line.check(22, 12)


def test_large_bodies():
    line = Line([message(3000), message(100), message(2000)], messages=16)
    line.check(25, 5)


def test_messages_while_others_wait_on_flash_for_ever():
    # Sectors with few of them are merged, those that never wear are moved.
    line = Line([message(200)])
    peer = line.world.client()
    peer.queue("archive", durable=1)
    for k in range(20):
        peer.send(wire.publish(1, "amq.fanout", "", b"%d" % k * 100, PERSISTENT))
        if k % 4 == 0:
            peer.send(wire.publish(1, "", "archive", b"%d" % k * 50, PERSISTENT))
        line.settle(0, line.acks)
    line.run(2, 5)
    line.consumers[0].channels[1]._delivery_tag = 0
    ring = line.broker.store.ring
    newest = ring.newest
    heap_lock()
    try:
        line.run(30, 20)
    finally:
        heap_unlock()
    assert ring.newest - newest >= 5 * 16
    assert ring.merges + ring.copies > 0
    assert kept(line.world) == 5
    bodies = []
    while True:
        found = peer.bodies(wire.get(1, "archive", no_ack=1))
        if not found:
            break
        bodies += found
    assert bodies == [b"%d" % k * 50 for k in range(0, 20, 4)]
