"""Live consumers: new messages go ahead of a backlog, and both streams stay in order.

A line has one durable queue and one sink, which is what an uplink is to the model.
"""

import chance
import wire
from ramflash import RamFlash
from stored import SMALL, kept
from test_durable_heap import Line, message
from test_heap_lock import heap_lock, heap_unlock
from world import World

# Memory for some messages: the first few stay in it, most wait on flash.
FEW = {"messages": 16, "deliveries": 16, "blocks": 64}


class Sink:
    """Takes what it is given, as long as it holds less than *room*."""

    def __init__(self, pool, room=1000):
        self.pool = pool
        self.room = room
        self.held = []  # entries
        self.ahead = []  # numbers of what came ahead,
        self.in_order = []  # and of what did not
        self.on_delivery = None  # called with number and entry

    def accepts(self, consumer, message):
        return len(self.held) < self.room

    def deliver(self, consumer, entry):
        number = number_of(self.pool, entry)
        (self.ahead if entry.ahead else self.in_order).append(number)
        if self.on_delivery is not None:
            self.on_delivery(number, entry)
        if consumer.no_ack:
            entry.queue.settle(entry)
        else:
            self.held.append(entry)

    def cancelled(self, consumer):
        self.leave(consumer)

    def leave(self, consumer):
        for entry in self.held:
            if entry.consumer is consumer:
                entry.consumer = None

    def holds(self, ahead):
        return [number_of(self.pool, entry) for entry in self.held if entry.ahead == ahead]

    def settle(self, *numbers):
        for entry in self._take(numbers):
            entry.queue.settle(entry)

    def requeue(self, *numbers):
        for entry in self._take(numbers):
            entry.queue.requeue(entry)

    def _take(self, numbers):
        entries = [entry for entry in self.held if number_of(self.pool, entry) in numbers]
        for entry in entries:
            self.held.remove(entry)
        return entries


def number_of(pool, entry):
    """It is the message-id, the last property: a body may be in the store."""
    octets = bytearray(4)
    message = entry.message
    pool.read_at(message, message.head + message.properties - 4, 4, octets, 0)
    return int(octets)


class Uplink:
    """A broker with the durable queue `q` and one sink, turned by hand."""

    def __init__(self, numbers=FEW, world=None, **arguments):
        self.world = world or World(**numbers)
        self.broker = self.world.broker
        self.store = self.broker.store
        self.sink = Sink(self.broker.pool)
        self.consumer = None
        if b"q" not in self.broker.queues:
            arguments = {
                b"x-" + key.replace("_", "-").encode(): arguments[key] for key in arguments
            }
            self.broker.declare_queue(b"q", True, None, False, arguments)
        self.queue = self.broker.queue(b"q")
        self.free = self.world.free()

    def put(self, number, persistent=True, size=4, ttl_ms=-1, exchange=b""):
        """Publish one message: -1 refused, -2 no memory for it now."""
        head = bytes((len(exchange),)) + exchange + b"\x01q"
        octets = memoryview(head + b"\0\x80\x04%04d" % number + b"x" * size)
        route = self.broker.route(octets, 0, len(head))
        message = self.broker.pool.begin(len(octets))
        if message is None:
            return -2
        self.broker.pool.write(message, octets, 0, len(octets))
        message.head = len(head)
        message.properties = 7
        message.body = size
        message.ttl_ms = ttl_ms
        message.flags = 1 if persistent else 0
        queues = self.broker.publish(message, route, route.stamp)
        self.broker.pool.release(message)
        return queues

    def fill(self, first, behind, **more):
        for number in range(first, behind):
            assert self.put(number, **more) > 0
        self.turn()
        return self

    def subscribe(self, live=0, prefetch=2, room=1000, no_ack=False):
        self.sink.room = room
        self.consumer = self.queue.subscribe(self.sink, b"c", no_ack, False, prefetch)
        self.queue.set_live(self.consumer, live)
        self.turn()
        return self

    def turn(self):
        """What the reactor does."""
        broker = self.broker
        broker.committed = broker.store.commit()
        if broker.behind and broker.committed:
            broker.catch_up()
        broker.freed = False
        self.queue.dispatch()

    def lose(self):
        """The connection is gone."""
        self.sink.leave(self.consumer)
        self.queue.unsubscribe(self.consumer)
        self.consumer = None
        while self.sink.held:
            self.queue.requeue(self.sink.held.pop())

    def drain(self):
        """Settle what comes, in order, until nothing does: the numbers of what came in order."""
        self.sink.in_order = self.sink.holds(False)
        while self.sink.held:
            entry = self.sink.held.pop(0)
            self.queue.settle(entry)
            self.turn()
        return self.sink.in_order

    def is_empty(self):
        """Whether all that there is a fixed number of is back, on flash, too."""
        queue = self.queue
        assert (queue.waiting(), queue.octets, queue.unacked) == (0, 0, 0)
        assert self.store.ahead.count == 0
        if self.consumer is not None:
            assert self.consumer.unacked == self.consumer.ahead == 0
            self.queue.unsubscribe(self.consumer)
        now = self.world.free()
        now["stored"] = self.free["stored"]  # a merge makes definitions longer
        assert now == self.free, (now, self.free)
        return kept(self.world) == 0

    def restart(self, marked=True):
        if marked:
            self.store.ring.mark()
        return Uplink(world=self.world.restart())


def numbers(first, behind):
    return list(range(first, behind))


def backlog(live=3, count=40, profile=FEW, **arguments):
    """An uplink whose consumer holds 0 and 1, while all others up to *count* wait."""
    uplink = Uplink(profile, **arguments).subscribe(0).fill(0, count)
    uplink.queue.set_live(uplink.consumer, live)
    assert uplink.sink.holds(False) == [0, 1]
    assert uplink.queue.waiting() == count - 2
    return uplink


def test_new_messages_go_ahead_as_many_as_may():
    uplink = backlog()
    uplink.fill(40, 45)
    assert uplink.sink.ahead == [40, 41, 42]
    assert uplink.queue.waiting() == 40
    assert (uplink.consumer.ahead, uplink.consumer.unacked) == (3, 2)
    uplink.sink.settle(41)
    uplink.fill(45, 47)
    assert uplink.sink.ahead == [40, 41, 42, 45]
    # The backlog's own stream is neither stopped nor let further by them.
    assert uplink.sink.in_order == [0, 1]
    uplink.sink.settle(0)
    uplink.turn()
    assert uplink.sink.in_order == [0, 1, 2]
    assert uplink.drain() == numbers(1, 40) + [43, 44, 46]
    assert uplink.is_empty()


def test_without_it_nothing_goes_ahead():
    uplink = backlog(live=0).fill(40, 60)
    uplink.fill(60, 62, persistent=False)
    assert uplink.drain() == numbers(0, 62)
    assert uplink.sink.ahead == []
    assert uplink.is_empty()


def test_it_can_be_changed_and_ends_with_its_consumer():
    uplink = backlog(live=0)
    uplink.fill(40, 41)
    uplink.queue.set_live(uplink.consumer, 2)
    uplink.fill(41, 44)
    uplink.queue.set_live(uplink.consumer, 1)
    uplink.sink.settle(41)
    uplink.fill(44, 45)
    uplink.sink.settle(42)
    uplink.fill(45, 47)
    assert uplink.sink.ahead == [41, 42, 45]
    uplink.lose()
    assert uplink.broker.live == 0
    uplink.fill(47, 48).subscribe()
    assert uplink.drain() == numbers(0, 41) + [43, 44] + numbers(45, 48)
    assert uplink.is_empty()


def test_who_waits_in_ram_is_passed_too():
    for persistent in (False, True):
        uplink = Uplink({})
        uplink.subscribe(2).fill(0, 3, persistent=persistent)
        assert uplink.queue.backlog == 0
        uplink.fill(3, 6, persistent=persistent)
        assert uplink.sink.ahead == [3, 4]
        assert uplink.store.ahead.count == 0, "no backlog, nothing to pass over"
        uplink.sink.requeue(3)
        uplink.sink.settle(4)
        assert uplink.drain() == [0, 1, 2, 3, 5]
        assert uplink.is_empty()


def test_nobody_goes_ahead_when_nothing_waits():
    uplink = Uplink({}).subscribe(2, prefetch=0).fill(0, 4)
    assert uplink.sink.ahead == []
    assert uplink.drain() == numbers(0, 4)


def test_a_sink_may_refuse():
    uplink = backlog()
    uplink.sink.room = 3
    uplink.fill(40, 42)
    assert uplink.sink.ahead == [40]
    uplink.sink.room = 1000
    uplink.fill(42, 43)
    assert uplink.sink.ahead == [40, 42]
    assert uplink.drain() == numbers(0, 40) + [41]


def test_settled_ones_are_passed_over_whether_marked_or_not():
    for marked in (False, True):
        uplink = backlog(count=20)
        for number in range(20, 30):
            uplink.fill(number, number + 1)
            uplink.sink.settle(number)
            if marked:
                uplink.store.ring.mark()
        uplink.fill(30, 35)
        assert uplink.sink.ahead == numbers(20, 33)
        assert uplink.drain() == numbers(0, 20) + [33, 34]
        assert uplink.is_empty()


def test_one_that_comes_back_before_its_turn_waits_in_the_store():
    uplink = backlog(count=20).fill(20, 24)
    octets = uplink.queue.octets
    stored = uplink.queue.backlog
    free = uplink.broker.entries.free
    uplink.sink.requeue(21)
    assert uplink.queue.backlog == stored + 1
    assert uplink.queue.octets == octets + 4
    assert uplink.broker.entries.free == free + 1
    assert uplink.consumer.ahead == 2
    uplink.fill(24, 25)  # in its stead
    assert uplink.sink.ahead == [20, 21, 22, 24]
    tries = {}

    def note(number, entry):
        tries[number] = entry.tries

    uplink.sink.on_delivery = note
    assert uplink.drain() == numbers(0, 20) + [21, 23]
    assert [number for number in tries if tries[number]] == [21]
    assert uplink.is_empty()


def test_one_that_comes_back_later_is_the_next():
    uplink = backlog(count=10).fill(10, 14)
    while uplink.sink.in_order[-1] != 13:  # 10 to 12 were passed
        uplink.sink.settle(uplink.sink.holds(False)[0])
        uplink.turn()
    uplink.fill(14, 24)
    ready = uplink.queue.ready.count
    uplink.sink.requeue(11, 12)
    assert uplink.queue.ready.count == ready + 2
    assert uplink.drain() == [9, 13, 11, 12] + numbers(14, 24)
    assert uplink.is_empty()


def test_a_lost_connection_brings_all_back_in_order():
    uplink = backlog(count=20).fill(20, 26)
    uplink.lose()
    assert uplink.queue.waiting() == 26
    assert uplink.store.ahead.count == 0
    uplink.subscribe(3)
    assert uplink.drain() == numbers(0, 26)
    assert uplink.is_empty()


def test_a_restart_brings_back_once_what_was_not_settled():
    for marked in (False, True):
        uplink = backlog(count=20).fill(20, 24)
        uplink.sink.settle(21)
        if marked:
            uplink.store.ring.mark()
        uplink.fill(24, 25)
        uplink = uplink.restart(marked)
        assert uplink.queue.waiting() == 24 + (not marked)
        uplink.subscribe(3)
        right = numbers(0, 25)
        if marked:
            right.remove(21)
        assert uplink.drain() == right


def test_transient_ones_go_ahead_and_come_back():
    uplink = backlog(count=10)
    uplink.fill(10, 12, persistent=False)
    uplink.fill(12, 14)
    assert uplink.sink.ahead == [10, 11, 12]
    ready = uplink.queue.ready.count
    uplink.sink.requeue(10)
    assert uplink.queue.ready.count == ready + 1
    assert uplink.drain() == numbers(0, 11) + [13]
    assert uplink.is_empty()


def test_a_consumer_without_acknowledgement():
    uplink = Uplink(FEW).fill(0, 30).subscribe(2, room=0, no_ack=True)
    uplink.fill(30, 32)
    uplink.sink.room = 1
    uplink.queue.consumers[0].prefetch = 1
    uplink.consumer.unacked = 1  # it takes nothing in order now
    uplink.fill(32, 50)
    uplink.consumer.unacked = 0
    uplink.turn()
    while uplink.queue.waiting():
        uplink.turn()
    joined = [number for number in uplink.sink.in_order if number >= 32]
    assert uplink.sink.in_order == numbers(0, 32) + joined
    assert sorted(uplink.sink.ahead + joined) == numbers(32, 50)
    assert len(uplink.sink.ahead) >= 8, "the table has room for so many"
    assert uplink.is_empty()


def test_purge_leaves_what_is_held():
    uplink = backlog(count=20).fill(20, 24)
    assert uplink.queue.purge() == 19
    uplink.fill(24, 26)
    uplink.sink.requeue(20)
    uplink.sink.settle(21)
    assert uplink.drain() == [0, 1, 20, 24, 25]
    assert uplink.is_empty()


def test_deletion_takes_what_is_held_and_the_next_queue_has_none_of_it():
    uplink = backlog(count=20).fill(20, 24)
    broker = uplink.broker
    broker.delete_queue(uplink.queue)
    assert kept(uplink.world) == 0
    again = broker.declare_queue(b"q", True, None, False, {})
    uplink.sink.requeue(20, 0)
    uplink.sink.settle(1, 21, 22)
    uplink.queue = again
    uplink.fill(30, 50).subscribe(1)
    assert uplink.sink.in_order[2:] == [30, 31]
    assert uplink.drain() == numbers(30, 50)
    assert uplink.is_empty()


def test_a_length_limit_counts_what_waits():
    uplink = backlog(count=12, max_length=10)
    uplink.fill(12, 17)
    assert uplink.sink.ahead == [12, 13, 14]
    assert uplink.broker.metrics.dropped_max_length == 2
    uplink.sink.requeue(13)
    assert uplink.queue.waiting() == 11
    uplink.fill(17, 19)
    assert uplink.sink.ahead == [12, 13, 14, 17]
    assert uplink.queue.waiting() == 10
    assert uplink.drain() == [0, 1] + numbers(6, 12) + [13, 15, 16, 18]
    assert uplink.is_empty()


def test_a_full_queue_that_refuses_also_refuses_these():
    uplink = backlog(count=12, max_length=10, overflow=b"reject-publish")
    assert uplink.put(12) == -1
    uplink.sink.settle(0)
    uplink.turn()
    assert uplink.put(13) == 1
    assert uplink.sink.ahead == [13]
    assert uplink.drain() == numbers(1, 12)


def test_one_that_came_back_expires_like_the_others():
    uplink = backlog(count=20)
    uplink.fill(20, 22, ttl_ms=5000)
    uplink.sink.requeue(20)
    for _ in range(6):
        uplink.broker.now += 1000
        uplink.broker.tick()
    uplink.fill(22, 23)
    assert uplink.drain() == numbers(0, 20)
    assert uplink.broker.metrics.dropped_expired == 1
    assert uplink.sink.ahead == [20, 21, 22]
    assert uplink.is_empty()


def test_when_there_is_no_place_to_note_another_it_waits():
    uplink = backlog(count=20, live=100)
    places = len(uplink.store.ahead._slot)
    assert places == FEW["deliveries"]
    uplink.store.ring.mark()
    number = 20
    while uplink.queue.waiting() == 18:
        uplink.fill(number, number + 1)
        uplink.sink.settle(number)
        number += 1
    assert uplink.sink.ahead == numbers(20, 20 + places)
    assert uplink.sink.in_order == [0, 1]
    # When flash says that they are done with, their places are free for others.
    uplink.store.ring.mark()
    for k in range(number, number + 100):
        uplink.fill(k, k + 1)
        uplink.sink.settle(k)
        if k % 4 == 0:
            uplink.store.ring.mark()
    assert uplink.sink.ahead == numbers(20, number - 1) + numbers(number, number + 100)
    assert uplink.drain() == numbers(0, 20) + [number - 1]
    assert uplink.is_empty()


def test_one_that_is_not_on_flash_yet_keeps_its_place():
    uplink = backlog(count=20, live=100)
    for number in range(20, 25):
        assert uplink.put(number) == 1  # and no commit
    assert uplink.store.ring.tail_slot % 4, "a page is not programmed yet"
    assert uplink.store.ahead.count > 1
    for _ in range(10):
        assert uplink.store.ahead._marked() < 0
    assert uplink.drain()[:20] == numbers(0, 20)


def test_marks_that_flash_refuses():
    uplink = backlog(count=20)
    ring = uplink.store.ring
    ring.mark()
    ring._mark_sector = lambda sector: False
    ring.copy_sector = lambda sector, marking: False
    for number in range(20, 25):
        uplink.fill(number, number + 1)
        uplink.sink.settle(number)
        ring.mark()
    assert ring.refused == 5
    assert uplink.drain() == numbers(0, 20)
    assert (uplink.queue.waiting(), uplink.queue.octets) == (0, 0)


def test_a_store_that_fails_loses_nothing_that_is_held():
    uplink = backlog(count=20)
    uplink.fill(20, 22)
    assert uplink.put(22) == 1
    uplink.store.fail()
    assert uplink.put(23) == -1
    ready = uplink.queue.ready.count
    uplink.sink.requeue(20, 22)
    assert uplink.queue.ready.count == ready + 2
    uplink.sink.settle(21)
    assert uplink.drain() == numbers(0, 20) + [20, 22]


def test_publishers_are_not_held_up_by_what_is_not_settled():
    for profile in (SMALL, FEW, {}):
        for prefetch in (0, 2):
            uplink = Uplink(profile).fill(0, 20).subscribe(100, prefetch)
            for number in range(20, 150):
                uplink.fill(number, number + 1)
            assert uplink.sink.ahead or not prefetch
            uplink.lose()
            uplink.subscribe(prefetch=1)
            assert uplink.drain() == numbers(0, 150)
            assert uplink.is_empty()


def test_neither_stream_takes_all_memory():
    # What waits holds all it may, and one can still go ahead.
    uplink = Uplink(FEW).fill(0, 60).subscribe(100, prefetch=0)
    assert uplink.sink.ahead == []
    number = 60
    for _ in range(20):
        uplink.fill(number, number + 1)
        assert uplink.sink.ahead[-1] == number
        uplink.sink.settle(number)
        uplink.store.ring.mark()
        uplink.turn()
        number += 1
    # And the other way round.
    uplink = Uplink(FEW).fill(0, 60).subscribe(100, prefetch=0)
    number = 60
    ahead = uplink.sink.ahead
    for _ in range(40):
        if uplink.put(number) > 0 and number in ahead:
            uplink.sink.settle(*uplink.sink.holds(False)[:1])
        number += 1
        uplink.turn()
    before = len(uplink.sink.in_order)
    for _ in range(10):
        uplink.sink.settle(*uplink.sink.holds(False)[:1])
        uplink.turn()
    assert len(uplink.sink.in_order) >= before + 10


def test_several_consumers():
    uplink = backlog(count=30, live=1)
    other = Sink(uplink.broker.pool)
    consumer = uplink.queue.subscribe(other, b"d", False, False, 1)
    uplink.queue.set_live(consumer, 2)
    uplink.turn()
    uplink.fill(30, 35)
    assert sorted(uplink.sink.ahead + other.ahead) == [30, 31, 32]
    assert (len(uplink.sink.ahead), len(other.ahead)) == (1, 2)
    uplink.queue.unsubscribe(uplink.consumer)
    uplink.sink.leave(uplink.consumer)
    uplink.sink.requeue(0, 1, uplink.sink.ahead[0])
    assert uplink.broker.live == 2
    uplink.consumer = consumer
    uplink.sink = other
    assert sorted(uplink.drain() + other.ahead) == numbers(0, 35)
    assert uplink.is_empty()


def test_they_leave_entries_for_others():
    uplink = backlog(count=20, live=100, profile={"messages": 40, "deliveries": 8, "blocks": 160})
    uplink.fill(20, 60)
    assert uplink.sink.ahead
    broker = uplink.broker
    assert broker.has_entries(0) and broker.entries.free == broker.spare_entries
    uplink.queue.set_live(uplink.consumer, 0)
    uplink.sink.settle(*uplink.sink.holds(False))
    uplink.turn()
    assert len(uplink.sink.holds(False)) == 2
    assert uplink.drain()[:18] == numbers(2, 20)


def test_a_body_in_the_store_waits():
    uplink = backlog(count=20)
    peer = uplink.world.client()
    given = wire.properties(delivery_mode=2, message_id="0020")
    peer.send(wire.publish(1, "", "q", "x" * 4000, given))
    uplink.fill(21, 22)
    assert uplink.sink.ahead == [21]
    assert uplink.drain() == numbers(0, 21)


def test_other_queues_of_the_same_record_are_not_concerned():
    uplink = Uplink()
    broker = uplink.broker
    fanout = broker.exchange(b"amq.fanout")
    other = broker.declare_queue(b"other", True, None, False, {})
    for queue in (uplink.queue, other):
        broker.bind(fanout, queue, b"", {})
    uplink.fill(0, 20, exchange=b"amq.fanout").subscribe(3)
    uplink.fill(20, 24, exchange=b"amq.fanout")
    assert uplink.sink.ahead == [20, 21, 22]
    sink = Sink(broker.pool)
    consumer = other.subscribe(sink, b"d", False, False, 2)
    while other.waiting():
        uplink.turn()
        other.dispatch()
        sink.settle(*sink.holds(False))
    assert sink.in_order == numbers(0, 24)
    other.unsubscribe(consumer)
    assert uplink.drain() == numbers(0, 20) + [23]
    assert kept(uplink.world) == 0


# --- what is not committed yet, with or without live consumers ---


def test_a_transient_one_does_not_pass_what_is_not_committed():
    uplink = Uplink().fill(0, 12).subscribe(prefetch=0)
    assert uplink.sink.in_order == numbers(0, 12)
    assert uplink.put(12) == 1
    assert uplink.queue.backlog == 1
    assert uplink.put(13, persistent=False) == 1
    uplink.turn()
    assert uplink.sink.in_order == numbers(0, 14)


def test_looking_for_what_is_not_committed_finds_nothing_twice():
    uplink = Uplink()
    for number in range(12):
        assert uplink.put(number) == 1
    queue = uplink.queue
    assert queue.backlog and queue.ready.count
    uplink.consumer = queue.subscribe(uplink.sink, b"c", False, False, 0)
    queue.dispatch()
    assert uplink.sink.in_order == numbers(0, queue.unacked)
    assert uplink.drain() == numbers(0, 12)
    assert uplink.is_empty()


# --- all of it at random, against a list ---


class Model:
    """What waits: [number, persistent, seen, size], in order. Checks each delivery."""

    def __init__(self):
        self.waiting = []
        self.held = {}  # number -> row
        self.settled = {}  # place -> row, of those that may come back
        self.publishing = -1
        self.ahead = 0

    def on_delivery(self, number, entry):
        if entry.ahead:
            row = self.waiting.pop()
            assert number == self.publishing and self.waiting, "nothing to go ahead of"
            self.ahead += 1
        else:
            row = self.waiting.pop(0)
        assert number == row[0], (number, row, entry.share)
        assert (entry.tries > 0) == row[2], row
        self.held[number] = row

    def give_back(self, number):
        row = self.held.pop(number)
        row[2] = True
        self.waiting.append(row)
        self.waiting.sort()


def random_walk(steps, profile, **arguments):
    below = chance.seeded().randrange
    uplink = Uplink(profile, World(flash=RamFlash(8, 1024, 64), **profile), **arguments)
    # Few messages of another queue in each sector, so that sectors are merged.
    uplink.broker.declare_queue(b"archive", True, None, False, {})
    fanout = uplink.broker.exchange(b"amq.fanout")
    for name in (b"q", b"archive"):
        uplink.broker.bind(fanout, uplink.broker.queue(name), b"", {})
    model = Model()
    most = arguments.get("max_length", 1000)
    number = merges = refused = 0
    uplink.sink.on_delivery = model.on_delivery
    for step in range(steps):
        act = below(24)
        sink = uplink.sink
        if act < 10:
            rows = len(model.waiting)
            persistent = below(6) > 0
            if rows > 60 or (not persistent and (rows > 6 or uplink.broker.entries.free < 4)):
                continue
            size = 4 + below(60 if below(10) else 700)
            if not persistent:
                size = 4 + below(40)
            row = [number, persistent, False, size]
            model.waiting.append(row)
            model.publishing = number
            archived = below(12) == 0
            ahead = model.ahead
            exchange = b"amq.fanout" if archived else b""
            done = uplink.put(number, persistent, size, -1, exchange)
            model.publishing = -1
            if done < 0:
                model.waiting.remove(row)
                refused += 1
            elif ahead == model.ahead:
                while len(model.waiting) > most:
                    model.waiting.pop(0)
                    uplink.store.ring.mark()
            number += 1
        elif act < 15:
            uplink.turn()
        elif act < 19 and sink.held:
            entry = sink.held[below(len(sink.held)) if below(3) else 0]
            done = number_of(sink.pool, entry)
            if entry.share >= 0:
                place = (entry.order, entry.position)
                model.settled[place] = model.held[done]
            del model.held[done]
            sink.settle(done)
        elif act < 21 and sink.held:
            entry = sink.held[below(len(sink.held))]
            back = number_of(sink.pool, entry)
            model.give_back(back)
            sink.requeue(back)
        elif act == 21 or (act == 22 and uplink.consumer is None):
            if uplink.consumer is None:
                uplink.subscribe(below(5), below(5), 1 + below(8))
            elif below(3) == 0:
                for back in list(model.held):
                    model.give_back(back)
                uplink.lose()
            else:
                uplink.queue.set_live(uplink.consumer, below(5))
        elif act == 22:
            uplink.broker.now += 1000 * below(2)
            uplink.broker.tick()
        elif below(9) == 0:
            merges += uplink.store.ring.merges
            ring = uplink.store.ring
            uplink.store.commit()
            unmarked = [
                (ring._ack_order[k], ring._ack_slot[k], ring._ack_share[k])
                for k in range(ring.acks)
            ]
            uplink = uplink.restart(marked=False)
            for back in list(model.held):
                model.give_back(back)
            for place in model.settled:
                # The share of `q`, which is declared first, is the first one.
                if place + (0,) in unmarked:
                    model.waiting.append(model.settled[place])
            model.settled.clear()
            model.waiting = sorted([row for row in model.waiting if row[1]])
            for row in model.waiting:
                row[2] = True
            uplink.sink.on_delivery = model.on_delivery
        elif below(4) == 0:
            uplink.queue.purge()
            uplink.store.ring.mark()
            model.waiting.clear()
            if below(2):
                uplink.broker.queue(b"archive").purge()
        queue = uplink.queue
        assert queue.waiting() == len(model.waiting), (step, act)
        assert queue.octets == sum([row[3] for row in model.waiting]), (step, act)
        assert queue.unacked == len(model.held)
        assert queue.backlog or not uplink.store.ahead.count
        if uplink.consumer is not None:
            assert uplink.consumer.ahead == len(uplink.sink.holds(True))
            assert uplink.consumer.unacked == len(uplink.sink.holds(False))
    if uplink.consumer is not None:
        uplink.lose()
        for back in list(model.held):
            model.give_back(back)
    left = [row[0] for row in model.waiting]
    uplink.subscribe(3, 3)
    assert uplink.drain() == left
    uplink.broker.queue(b"archive").purge()
    uplink.turn()
    assert kept(uplink.world) == 0
    return model.ahead, merges + uplink.store.ring.merges, refused


def test_random_walks():
    ahead = merges = 0
    for _ in range(2):
        for profile in (SMALL, {"messages": 20, "deliveries": 20, "blocks": 160}):
            for arguments in ({}, {"max_length": 12}):
                counted = random_walk(800, profile, **arguments)
                ahead += counted[0]
                merges += counted[1]
    print("ahead", ahead, "merges", merges)
    assert ahead > 20 and merges


# --- nothing is allocated ---


def live_line(live, octets=200, **more):
    line = Line([message(octets)], **more)
    queue = line.broker.queue(b"q")
    queue.set_live(queue.consumers[0], live)
    return line


def test_the_steady_path_does_not_allocate():
    live_line(4).check(15, 28)
    live_line(12, no_ack=0, prefetch=3).check(15, 28)


def test_nor_does_giving_back():
    line = live_line(4)

    def run(rounds):
        for _ in range(rounds):
            for k in range(20):
                line.publish(k)
            for _ in range(10):
                line.settle(0, line.nacks)
            while line.settle(0, line.acks):
                pass

    run(1)
    line.consumers[0].channels[1]._delivery_tag = 0
    newest = line.broker.store.ring.newest
    heap_lock()
    try:
        run(21)
    finally:
        heap_unlock()
    assert line.broker.store.ring.newest - newest >= 5 * 16
    assert kept(line.world) == 0
