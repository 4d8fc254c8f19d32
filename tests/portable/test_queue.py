"""A queue by itself: order, expiry, length limits, consumers. No protocol is involved."""

from amqp_lite.errors import AccessRefused, PreconditionFailed
from world import World


class Sink:
    """Takes what it is given, as long as it has room."""

    def __init__(self, room=1000):
        self.room = room
        self.entries = []
        self.was_cancelled = False

    def accepts(self, consumer, message):
        return len(self.entries) < self.room

    def deliver(self, consumer, entry):
        self.entries.append(entry)
        if consumer.no_ack:
            entry.queue.settle(entry)

    def cancelled(self, consumer):
        self.was_cancelled = True


class Bench:
    """One broker with one queue, driven by the model's own methods."""

    def __init__(self, durable=False, auto_delete=False, **arguments):
        self.world = World()
        self.broker = self.world.broker
        self.before = self.world.free()
        self.queue = self.broker.declare_queue(
            b"q", durable, None, auto_delete,
            {b"x-" + key.replace("_", "-").encode(): arguments[key] for key in arguments},
        )  # fmt: skip

    def put(self, body, ttl_ms=-1, persistent=False):
        """Publish one message: -1 when the queue refused it."""
        head = memoryview(b"\x00\x01q\0\0" + body)
        route = self.broker.route(head, 0, 3)
        message = self.broker.pool.begin(len(head))
        self.broker.pool.write(message, head, 0, len(head))
        message.head = 3
        message.properties = 2
        message.body = len(body)
        message.ttl_ms = ttl_ms
        message.flags = 1 if persistent else 0
        queues = self.broker.publish(message, route, route.stamp)
        self.broker.pool.release(message)
        return queues

    def body(self, entry):
        octets = bytearray(entry.message.body)
        self.broker.pool.read_at(entry.message, 5, entry.message.body, octets, 0)
        return bytes(octets)

    def waiting(self):
        """The bodies in the queue, in order."""
        bodies = []
        entry = self.queue.first()
        while entry is not None:
            bodies.append(self.body(entry))
            entry = entry.next
        return bodies

    def get(self):
        entry = self.queue.first()
        self.queue.take(entry, None)
        return entry

    def consume(self, sink, no_ack=False, exclusive=False, prefetch=0):
        return self.queue.subscribe(sink, b"c", no_ack, exclusive, prefetch)


def test_messages_leave_in_the_order_they_came():
    bench = Bench()
    for body in (b"1", b"2", b"3"):
        assert bench.put(body) == 1
    assert bench.waiting() == [b"1", b"2", b"3"]
    for body in (b"1", b"2", b"3"):
        entry = bench.get()
        assert bench.body(entry) == body
        bench.queue.settle(entry)
    bench.broker.delete_queue(bench.queue)
    assert bench.world.free() == bench.before


def test_requeued_messages_go_back_to_their_old_place():
    bench = Bench()
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)):
        for k in range(6):
            bench.put(b"%d" % k)
        entries = [bench.get() for _ in range(4)]
        for k in order:
            bench.queue.requeue(entries[k])
        assert bench.waiting() == [b"0", b"1", b"2", b"3", b"4", b"5"], order
        entries = [bench.get() for _ in range(6)]
        assert [entry.tries > 0 for entry in entries] == [True] * 4 + [False] * 2
        for entry in entries:
            bench.queue.settle(entry)


def test_old_places_hold_where_the_count_of_positions_wraps():
    bench = Bench()
    bench.queue._position = 0x3FFFFFFF - 2
    for k in range(6):
        bench.put(b"%d" % k)
    entries = [bench.get() for _ in range(5)]
    for k in (4, 0, 2, 1, 3):
        bench.queue.requeue(entries[k])
    assert bench.waiting() == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_a_message_lives_for_its_expiration_by_the_clock():
    bench = Bench()
    bench.put(b"short", ttl_ms=100)
    bench.put(b"long")
    bench.broker.now += 100
    assert bench.waiting() == [b"short", b"long"]
    bench.broker.now += 1
    assert bench.waiting() == [b"long"]
    assert bench.broker.metrics.dropped_expired == 1


def test_a_life_of_0_ms_is_for_those_who_wait_already():
    bench = Bench()
    bench.put(b"nobody waits", ttl_ms=0)
    bench.put(b"stays")
    assert bench.waiting() == [b"stays"]
    sink = Sink()
    bench.consume(sink)
    bench.queue.dispatch()
    bench.put(b"somebody waits", ttl_ms=0)
    assert [bench.body(entry) for entry in sink.entries] == [b"stays", b"somebody waits"]


def test_the_shorter_one_of_message_and_queue_ttl_counts():
    bench = Bench(message_ttl=200)
    bench.put(b"by the message", ttl_ms=100)
    bench.put(b"by the queue", ttl_ms=300)
    bench.broker.now += 101
    assert bench.waiting() == [b"by the queue"]
    bench.broker.now += 100
    assert bench.waiting() == []


def test_expired_messages_are_not_delivered():
    bench = Bench()
    bench.put(b"old", ttl_ms=10)
    bench.put(b"new")
    bench.broker.now += 11
    sink = Sink()
    bench.consume(sink)
    bench.queue.dispatch()
    assert [bench.body(entry) for entry in sink.entries] == [b"new"]


def test_the_broker_drops_the_expired_by_and_by():
    bench = Bench(message_ttl=50)
    bench.put(b"1")
    bench.broker.now += 51
    bench.broker.tick()
    assert bench.queue.ready.count == 0
    assert bench.queue.octets == 0


def test_a_full_queue_drops_its_head():
    bench = Bench(max_length=2)
    for body in (b"1", b"2", b"3"):
        assert bench.put(body) == 1
    assert bench.waiting() == [b"2", b"3"]
    assert bench.broker.metrics.dropped_max_length == 1


def test_a_queue_full_of_octets_drops_as_many_as_it_must():
    bench = Bench(max_length_bytes=10)
    bench.put(b"1234")
    bench.put(b"5678")
    bench.put(b"123456789")
    assert bench.waiting() == [b"123456789"]
    bench.put(b"longer than all")
    assert bench.waiting() == []
    assert bench.queue.octets == 0


def test_a_full_queue_may_refuse_instead():
    bench = Bench(max_length=1, overflow=b"reject-publish")
    assert bench.put(b"1") == 1
    assert bench.put(b"2") == -1
    assert bench.waiting() == [b"1"]
    assert bench.broker.metrics.refused_max_length == 1
    bench.queue.settle(bench.get())
    assert bench.put(b"3") == 1


def test_length_zero_is_for_those_who_wait_already():
    bench = Bench(max_length=0)
    bench.put(b"nobody waits")
    assert bench.waiting() == []
    sink = Sink()
    bench.consume(sink)
    bench.put(b"somebody waits")
    assert [bench.body(entry) for entry in sink.entries] == [b"somebody waits"]


def test_consumers_take_turns():
    bench = Bench()
    sinks = [Sink(), Sink(room=1), Sink()]
    for sink in sinks:
        bench.consume(sink)
    for k in range(7):
        bench.put(b"%d" % k)
    assert [[bench.body(entry) for entry in sink.entries] for sink in sinks] == [
        [b"0", b"3", b"5"], [b"1"], [b"2", b"4", b"6"],
    ]  # fmt: skip


def test_a_consumer_holds_no_more_than_its_prefetch():
    bench = Bench()
    sink = Sink()
    consumer = bench.consume(sink, prefetch=2)
    for k in range(4):
        bench.put(b"%d" % k)
    assert consumer.unacked == len(sink.entries) == 2
    bench.queue.settle(sink.entries[0])
    bench.queue.dispatch()
    assert consumer.unacked == 2 and len(sink.entries) == 3


def test_an_exclusive_consumer_is_the_only_one():
    bench = Bench()
    first = bench.consume(Sink(), exclusive=True)
    for exclusive in (False, True):
        try:
            bench.consume(Sink(), exclusive=exclusive)
        except AccessRefused:
            continue
        assert False
    bench.queue.unsubscribe(first)
    bench.consume(Sink())
    try:
        bench.consume(Sink(), exclusive=True)
    except AccessRefused:
        return
    assert False


def test_an_auto_delete_queue_goes_with_its_last_consumer():
    bench = Bench(auto_delete=True)
    bench.put(b"1")
    first = bench.consume(Sink(room=0))
    second = bench.consume(Sink(room=0))
    bench.queue.unsubscribe(first)
    assert b"q" in bench.broker.queues
    bench.queue.unsubscribe(second)
    assert bench.world.free() == bench.before
    assert bench.broker.metrics.dropped_queue_deleted == 1


def test_an_unused_queue_expires():
    bench = Bench(expires=1000)
    bench.broker.now += 900
    bench.broker.declare_queue(b"q", False, None, False, {b"x-expires": 1000})
    bench.broker.now += 900
    bench.broker.tick()
    assert b"q" in bench.broker.queues
    consumer = bench.consume(Sink())
    bench.broker.now += 5000
    bench.broker.tick()
    assert b"q" in bench.broker.queues
    bench.queue.unsubscribe(consumer)
    bench.broker.now += 1001
    bench.broker.tick()
    assert b"q" not in bench.broker.queues


def test_held_messages_of_a_deleted_queue_die_when_they_are_settled():
    bench = Bench()
    sink = Sink()
    bench.consume(sink)
    for body in (b"1", b"2", b"3"):
        bench.put(body)
    bench.broker.delete_queue(bench.queue)
    assert sink.was_cancelled
    bench.queue.settle(sink.entries[0])
    bench.queue.requeue(sink.entries[1])
    assert bench.world.free() != bench.before
    bench.queue.settle(sink.entries[2])
    assert bench.world.free() == bench.before


def test_the_store_has_persistent_messages_of_durable_queues_only():
    bench = Bench(durable=True)
    definition = bench.world.stored()
    bench.put(b"transient")
    assert bench.world.stored() == definition
    bench.put(b"persistent", persistent=True)
    assert bench.world.stored() > definition
    bench.queue.purge()
    assert bench.world.stored() == definition


def test_arguments_that_would_be_promises_nobody_keeps_are_refused():
    bench = Bench()
    for key, value in (
        ("message_ttl", -1), ("message_ttl", b"1"), ("message_ttl", True),
        ("message_ttl", 1 << 40),
        ("expires", 0), ("expires", 1.5), ("max_length", -1), ("max_length_bytes", None),
        ("overflow", b"reject-publish-dlx"), ("overflow", 1), ("queue_type", b"quorum"),
        ("max_priority", 5), ("dead_letter_exchange", b"x"), ("single_active_consumer", True),
    ):  # fmt: skip
        try:
            bench.broker.declare_queue(
                b"other", False, None, False, {b"x-" + key.replace("_", "-").encode(): value}
            )
        except PreconditionFailed as error:
            assert key.replace("_", "-") in error.text
            continue
        assert False, (key, value)
