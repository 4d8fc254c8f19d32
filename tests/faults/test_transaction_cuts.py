"""Power cuts in transactions: after each, all of one is there or nothing.

The broker works two transactions, one after the other, on a simulated flash that is cut in every
program and erase meanwhile; a broker that starts on what is left has to find the contents of the
queues before or after, and after the commit was said to be safe the latter. Starts are cut, too.
"""

import struct

from amqp_lite.broker import transaction
from amqp_lite.broker.broker import Broker
from amqp_lite.broker.durable import Durable
from amqp_lite.broker.message import PERSISTENT
from amqp_lite.compat import u16
from amqp_lite.limits import complete
from amqp_lite.local import publish
from amqp_lite.store.records import CHAIN, MESSAGE, TYPE
from amqp_lite.store.recovery import Recovery
from amqp_lite.store.ring import Ring
from amqp_lite.v091.codec import match_headers, read_table, shortstr, write_table
from model import Chip, PowerCut, Visitor
from nor import MIXED, ONES, RANDOM, STICKY, STORED, ZEROS, Chance
from test_power_cuts import seed

PROFILE = complete({
    "messages": 120, "deliveries": 120, "blocks": 500, "block_size": 64, "queues": 8,
    "bindings": 8, "exchanges": 8, "consumers": 4, "receive_buffer": 1024, "routes": 4,
    "message_max": 3000, "stored_max": 3000, "send_buffer": 2048,
})  # fmt: skip
QUEUES = (b"a", b"b", b"c")
CALM = (STORED, ONES, ZEROS, MIXED, STICKY)


class Sink:
    """A consumer that keeps what it gets."""

    def __init__(self, most):
        self.most = most
        self.held = []

    def accepts(self, consumer, message):
        return len(self.held) < self.most

    def deliver(self, consumer, entry):
        self.held.append(entry)

    def give_back(self, entry, settled):
        raise AssertionError("nothing is rolled back here")


class Chain:
    def __init__(self, order, slot):
        self.order = order
        self.slot = slot
        self.part_order = 0


def start(chip):
    broker = Broker(PROFILE, Durable(Ring(chip), write_table, read_table), match_headers)
    broker.now = 1000
    broker.restore()
    return broker


def contents(broker):
    """The bodies that wait in each queue; each is counted, too."""
    store = broker.store
    ring = store.ring
    found = {}
    head = bytearray(2)
    order, slot = 1, 0
    while ring.next_record(order, slot):
        order = ring.at_order
        slot = ring.slot_behind()
        if ring.kind & TYPE != MESSAGE or not ring.is_needed():
            continue
        shares = range(ring.shares)
        pending = [k for k in shares if ring.is_pending(ring.sector, ring.slot + k)]
        numbers = [ring.queue_of(k) for k in pending]
        ring.read(0, head, 0, 2)
        at = u16(head, 0) & 0x7FFF
        body = bytearray(ring.chain_size if ring.kind & CHAIN else ring.size - at)
        if ring.kind & CHAIN:
            chain = Chain(ring.chain_order, ring.chain_slot)
            assert store.bodies.read(chain, chain, len(body), body, 0)
        else:
            ring.read(at, body, 0, len(body))
        for number in numbers:
            found.setdefault(number, []).append(bytes(body))
    rows = []
    for name in QUEUES:
        queue = broker.queue(name)
        bodies = found.get(queue.number, [])
        assert queue.backlog == len(bodies), name
        assert queue.octets == sum([len(body) for body in bodies]), name
        rows.append(sorted(bodies))
    return rows


def add(work, broker, key, body, exchange=b""):
    """Publish in a transaction."""
    head = shortstr(exchange) + shortstr(key)
    octets = head + b"\0\0" + body
    message = broker.pool.begin(len(octets))
    broker.pool.write(message, memoryview(octets), 0, len(octets))
    message.head = len(head)
    message.properties = 2
    message.body = len(body)
    message.flags = PERSISTENT
    work.publish(message)


class Play:
    """A broker with queues that hold something, and the contents it may be found with.

    fill  octets of messages that others have left to the ring: how near it is to full
    """

    def __init__(self, sectors, sector_size, page_size, fill, store=None):
        self.chip = Chip(sectors, sector_size, page_size)
        self.broker = broker = start(self.chip)
        self.sink = Sink(10)
        for name in QUEUES + (b"left",):
            broker.declare_queue(name, True, None, False, {})
        for name in (b"a", b"b"):
            broker.bind(broker.exchange(b"amq.fanout"), broker.queue(name), b"", {})
        self.queue = broker.queue(b"a")
        self.queue.subscribe(self.sink, b"", False, False, 0)
        properties = {"delivery_mode": 2}
        while fill > 0:
            publish(broker, "", "left", bytes(60), properties)
            publish(broker, "", "b", bytes(100), properties)
            fill -= 200
            broker.store.commit()
            while broker.queue(b"b").waiting():
                entry = broker.queue(b"b").first()
                broker.queue(b"b").take(entry, None)
                broker.queue(b"b").settle(entry)
        for k in range(10):
            publish(broker, "", "a", b"a%d" % k * (1 + 5 * k), properties)
        for k in range(3):
            publish(broker, "", "b", b"b%d" % k * 20, properties)
        publish(broker, "", "c", b"c" * 20, properties)
        broker.store.commit()
        broker.catch_up()
        assert len(self.sink.held) == 10
        broker.store.ring.mark()
        self.found = [contents(self.after())]  # the contents before, between and behind them
        self.safe = 0  # the one that is promised

    def after(self):
        """A broker that starts on what there is now."""
        chip = Chip(self.chip.sectors, self.chip.sector_size, self.chip.page_size)
        chip.become(self.chip)
        chip.left = 1000000
        chip.reboot(STORED)
        return start(chip)

    def first(self):
        broker = self.broker
        work = transaction.Transaction(broker)
        for k in range(3):
            add(work, broker, b"a", b"first %d" % k * 8)
            add(work, broker, b"", b"fan %d" % k * 12, b"amq.fanout")
        add(work, broker, b"c", b"long" * 200)
        for k in range(4):
            add(work, broker, b"c", b"%d" % k * 140)
        for k, outcome in ((0, 0), (2, 0), (3, 1), (5, 3), (9, 0)):
            work.settle(self.sink.held[k], outcome, self.sink)
        self.commit(work)

    def second(self):
        broker = self.broker
        work = transaction.Transaction(broker)
        for k in (1, 4):
            work.settle(self.sink.held[k], 0, self.sink)
        # And what the first one has brought.
        queue = broker.queue(b"c")
        entry = queue.first()
        while entry is not None and entry.message.body != 140:
            queue.take(entry, None)
            entry = queue.first()
        queue.take(entry, None)
        work.settle(entry, 0, self.sink)
        add(work, broker, b"b", b"second" * 10)
        self.commit(work)

    def third(self):
        """Nothing but settlements."""
        work = transaction.Transaction(self.broker)
        for k in (6, 7, 8):
            work.settle(self.sink.held[k], 0, self.sink)
        self.commit(work)

    def commit(self, work):
        store = self.broker.store
        work.commit()
        assert store.commit()
        self.safe += 1
        self.broker.now += 2000
        store.tick()
        store.tick()
        store.idle()


def finish(play):
    """Work all of it; the contents after each."""
    for step in (play.first, play.second, play.third):
        step()
        play.found.append(contents(play.after()))
    assert len({str(found) for found in play.found}) == 4


class Cutter:
    """Cut *play* in each operation, and look.

    allowed  the contents after each transaction
    many     states that a cut may leave are looked at, and two more
    """

    def __init__(self, play, allowed, many, chance):
        self.play = play
        self.allowed = allowed
        self.many = many
        self.chance = chance
        self.cuts = 0
        self.seen = {}  # which of the contents were found: how often

    def __call__(self, kind, where, buf):
        chance = self.chance
        chip = self.play.chip
        variants = list(chip.torn(kind, where, buf, chance, False))
        # The last ones are of weak cells, which read as before or as wanted.
        chosen = variants[-2:] + [chance.choice(variants) for _ in range(self.many)]
        for variant in chosen:
            self.cuts += 1
            after = Chip(chip.sectors, chip.sector_size, chip.page_size, seed=self.cuts)
            after.become(chip)
            after.apply(variant)
            self.look(after)

    def look(self, chip):
        chance = self.chance
        for _ in range(chance.below(3)):
            self.cut_start(chip)
        found = None
        for _ in range(2):
            chip.left = 1000000
            chip.reboot(chance.choice(CALM))
            try:
                now = contents(start(chip))
            except Exception as error:
                raise AssertionError("cut %d: a start raised %r" % (self.cuts, error))
            assert found is None or now == found, "cut %d: changed in a later start" % self.cuts
            found = now
        safe = self.play.safe
        fine = self.allowed[safe : safe + 2]
        assert found in fine, "cut %d, %d promised: %s" % (self.cuts, safe, differs(found, fine))
        which = self.allowed.index(found)
        self.seen[which] = self.seen.get(which, 0) + 1

    def cut_start(self, chip):
        """A start that is cut, at one of its first operations, or just not."""
        chance = self.chance
        left = [1 + chance.below(12)]

        def hook(kind, where, buf):
            left[0] -= 1
            if not left[0]:
                chip.apply(chip.random_torn(kind, where, buf, chance))
                raise PowerCut

        chip.left = 1000000
        chip.reboot(RANDOM if chance.below(6) == 0 else chance.choice(CALM))
        chip.hook = hook
        try:
            Recovery(Ring(chip), Visitor()).run()
        except PowerCut:
            pass
        chip.hook = None


def differs(found, fine):
    rows = []
    for other in fine:
        for k in range(len(found)):
            rows.append([b for b in found[k] if b not in other[k]])
            rows.append([b for b in other[k] if b not in found[k]])
    return str(rows)[:600]


def cut_everywhere(geometry, fill, many=1):
    whole = Play(*geometry, fill)
    finish(whole)
    number = seed()
    play = Play(*geometry, fill)
    assert play.found[0] == whole.found[0]
    cutter = Cutter(play, whole.found, many, Chance(number))
    merges = play.broker.store.ring.merges
    play.chip.hook = cutter
    play.first()
    play.second()
    play.third()
    play.chip.hook = None
    assert cutter.cuts > 100
    assert sorted(cutter.seen) == [0, 1, 2, 3], cutter.seen
    return play.broker.store.ring.merges - merges


def test_small_sectors():
    cut_everywhere((16, 1024, 64), 0)


def test_large_sectors():
    cut_everywhere((6, 4096, 256), 0, 6)


def test_while_sectors_are_merged():
    assert cut_everywhere((9, 1024, 64), 6800)


def test_a_commit_record_without_all_its_parts_counts_for_nothing():
    """In the page of the last part, when its octets were programmed in descending order."""
    for k in range(3):
        play = Play(16, 1024, 64, 0)
        before = play.found[0]
        ring = play.broker.store.ring
        work = transaction.Transaction(play.broker)
        for n in range(3):
            add(work, play.broker, b"b", b"%d" % n * 10)
        work.settle(play.sink.held[0], 0, play.sink)
        slot = ring.tail_slot
        work.commit()
        assert play.broker.store.commit()
        assert contents(play.after()) != before
        # One of its parts was not programmed as a whole.
        places = []
        ring.next_record(ring.newest, slot)
        for _ in range(3):
            places.append(ring.slot)
            ring.next_record(ring.newest, ring.slot_behind())
        play.chip.contents[ring.tail * 1024 + places[k] * 16 + 9] ^= 0x10
        assert contents(play.after()) == before, k


def test_settlements_are_places_of_four_two_and_two_octets():
    play = Play(16, 1024, 64, 0)
    ring = play.broker.store.ring
    work = transaction.Transaction(play.broker)
    entry = play.sink.held[3]
    place = (entry.order, entry.position, entry.share)
    work.settle(entry, 0, play.sink)
    work.commit()
    ring.commit()
    assert ring.next_record(1, 0)
    while ring.kind:
        if ring.kind & 0x0F == 0x08:
            break
        assert ring.next_record(ring.at_order, ring.slot_behind())
    row = bytearray(16)
    ring.read(0, row, 0, 16)
    assert struct.unpack(">IHHIHH", row)[3:] == place
