"""What survives a restart: the messages of durable queues, and the definitions, kept in the ring.

The payload of a MESSAGE record:

     0  size u16        octets of everything before the body; 0x8000 is added when it expires
     2  born u32        only then: when it was published, by the store's clock
     6  ttl u32         only then: its own time to live in ms, 0xFFFFFFFF for none
     .  exchange and routing key as short strings, the properties: as in the pool
     .  body            but with CHAIN, where it is in the BODY records

The clock counts units of 16 ms while the broker runs, modulo 2**30, and goes on after a restart
from the last time that was stored: a message's age leaves out the time the power was off.
"""

import struct

from ..compat import const, copy, equal, ticks_add, ticks_diff, u16, u32
from ..log import log
from ..store.records import CHAIN, MESSAGE, TAG
from .ahead import Ahead
from .bodies import Bodies, Chain
from .definitions import Definitions
from .message import AMQP10, FETCHED, PERSISTENT

_EXPIRES = const(0x8000)
_FOR_EVER = b"\xff\xff\xff\xff"
_UNIT = const(4)  # a shift: 16 ms
_CLOCK_MASK = const(0x3FFFFFFF)
_CLOCK_MS = const(60000)  # the clock is stored this often while messages are waiting to expire
_MARK_MS = const(1000)  # settled messages wait so long for their mark, or as long as commits do


class Durable(Definitions):
    """
    ring          a Ring, not read yet
    write_table, read_table   encode the arguments of definitions, see v091/codec.py
    chains        bodies that may be under way at once, between a socket and the ring
    """

    keeps = True

    def __init__(self, ring, write_table, read_table, chains=8):
        self.ring = ring
        self.order = 0  # place of the message appended last
        self.slot = 0
        self.part = 0  # PART while append() is told a transaction
        self.found = -1  # share of the record that find() found
        self.broken = False  # what was appended cannot be made safe
        self.records = 0  # pending ones that were found at start
        self.foreign = 0  # sectors that held something else then
        self.damaged = 0  # places that could not be read then
        self.fan_out = min(255, (ring.slots - ring.first) // 4)  # queues of one record, at most
        # Octets of the longest message in one record: a sector takes a few, or much of it would
        # stay empty, and each can be fetched into a small pool.
        self.whole_max = ring.largest // 3
        self.gather_ms = getattr(ring.device, "commit_ms", 0)  # how long commit() waits for more
        self._marks_are_free = ring.device.trusted and not self.gather_ms
        self._mark_ms = max(_MARK_MS, self.gather_ms)
        self.bodies = Bodies(ring, chains, self.was_appended)
        self._own = Chain()  # of append()
        self.ahead = None  # of the backlogs, from restore() on
        self._write_table = write_table
        self._read_table = read_table
        self._scratch = None  # the broker's, for the longest head and properties of a message
        self._now = 0
        self._clock = 0
        self._clock_stored = 0
        self._clock_order = 0  # place of its record
        self._clock_slot = 0
        self._expiring = False  # there may be messages with a time to live
        self.appended_at = 0  # ticks of the oldest append that is not committed
        self._settled_at = 0  # ticks of the oldest settled one that is not marked
        self._orphans = {}  # number of a queue without a definition -> [messages, octets]
        self._late = []  # places of definitions that came before what they refer to
        self._stale = []  # places of definitions that a later one replaced

    # --- start ---

    def restore(self, broker):
        """Read the ring: the queues, exchanges and bindings, and how many messages wait."""
        self._broker = broker
        self._scratch = broker.scratch
        # A body as large as the ring would leave no room for anybody else's.
        size = self.ring.sectors * self.ring.sector_size
        broker.stored_max = min(broker.stored_max, size // 2)
        broker.pool.ended = self.bodies.end_of
        self.ahead = Ahead(self.ring, broker.entries.size)
        self._now = broker.now
        # Late, because it is needed once: a board gets its memory back.
        from ..store.recovery import Recovery

        recovery = Recovery(self.ring, self)
        recovery.run()
        ring = self.ring
        late = self._late
        self._late = None
        for order, slot in late:
            if ring.locate(order, slot):
                self.definition(ring)
        for order, slot in self._stale:
            ring.ack(order, slot, 0)
        ring.mark()
        self._stale.clear()
        self.records = recovery.records
        self.foreign = recovery.foreign
        self.damaged = recovery.damaged

    def report(self):
        """Say in the log what was found at start."""
        ring = self.ring
        log.info(
            "store: %d records in %d of %d sectors", self.records, ring.sectors - ring.free(),
            ring.sectors,
        )  # fmt: skip
        if self.foreign:
            log.warning("store: %d sectors held something else", self.foreign)
        if self.damaged:
            log.warning("store: %d places could not be read, cut off or damaged", self.damaged)
        for number in self._orphans:
            log.warning(
                "store: %d messages of a queue without a definition are left alone",
                self._orphans[number][0],
            )

    def message(self, ring, share):
        number = ring.queue_of(share)
        queue = self._broker.numbered(number)
        if queue is None:
            # Perhaps it was defined anew later.
            found = self._orphans.setdefault(number, [0, 0])
            found[0] += 1
            found[1] += self.body_size()
        else:
            queue.backlog += 1
            queue.octets += self.body_size()
        if self._has_expiry():
            self._set_clock(u32(self._scratch, 2))

    def settled(self, ring, share):
        """A message that was counted is done with, by a transaction's commit record."""
        queue = self._broker.numbered(ring.queue_of(share))
        if queue is not None:
            queue.backlog -= 1
            queue.octets -= self.body_size()

    def forget_queue(self, queue):
        """Remove what consumers hold of *queue*, which nothing waits in, and its definition."""
        ring = self.ring
        ring.commit()
        queue.order = 1
        queue.slot = 0
        while queue.unacked and ring.find(queue, queue.number) >= 0:
            self.found = ring.share_of(queue.number)
            ring.pass_by(queue)
            self.drop_found()
        ring.mark()
        self.forget(queue)
        queue.number = -1

    # --- messages, in ---

    def append(self, message, queues, count):
        """Store *message* for the first *count* queue numbers in *queues*.

        Its place is `order` and `slot` then. False: there is no room.
        """
        ring = self.ring
        chain = message.chain
        head = message.head + message.properties
        ttl_ms = message.ttl_ms
        expires = ttl_ms >= 0 or self._expiring_for(queues, count)
        if expires:
            self._advance_clock()
        meta = head + (10 if expires else 2)
        if self.broken or meta >= _EXPIRES:
            return False
        kind = MESSAGE | self.part
        if message.flags & AMQP10:
            kind |= TAG
        whole = meta + message.body
        if chain is None and whole > self.whole_max:
            chain = self._own
            self._append_body(chain, message, head)
        if chain is not None:
            if chain.lost or chain.kept:
                if chain is self._own:
                    self.bodies.close(chain)
                return False
            kind |= CHAIN
            whole = meta
            ring.chain_order = chain.order
            ring.chain_slot = chain.slot
            ring.chain_size = chain.size
        stored = ring.begin(kind, queues, count, whole)
        if stored:
            self.order = ring.at_order
            self.slot = ring.at_slot
            buf = self._scratch
            buf[0] = meta >> 8
            buf[1] = meta & 0xFF
            if expires:
                buf[0] |= 0x80
                struct.pack_into(">I", buf, 2, self._clock)
                if ttl_ms >= 0:
                    struct.pack_into(">I", buf, 6, ttl_ms)
                else:
                    copy(buf, 6, _FOR_EVER, 0, 4)
                self._expiring = True
                self._clock_stored = self._clock
            ring.put(buf, 0, meta - head)
            n = head if chain is not None else head + message.body
            self._put_octets(message, 0, n)
            ring.end()
            self.was_appended()
            if chain is not None:
                chain.kept = True
        if chain is self._own:
            self.bodies.close(chain)
        return stored

    def was_appended(self):
        """Something was appended to the ring, and waits for a commit."""
        if not self.appended_at:
            self.appended_at = self._broker.now or 1

    def _put_octets(self, message, position, n):
        """Write *n* octets of *message* in the pool from *position* to the record begun."""
        ring = self.ring
        pool = self._broker.pool
        size = pool.block_size
        block = message.first
        for _ in range(position // size):
            block = pool.following(block)
        i = position % size
        while n:
            step = size - i
            if step > n:
                step = n
            ring.put(pool.view, block * size + i, step)
            n -= step
            i = 0
            if n:
                block = pool.following(block)

    def _append_body(self, chain, message, position):
        """Store the body of *message* in the pool, which begins at *position* of it."""
        chain.reset()
        bodies = self.bodies
        n = message.body
        while n and not chain.lost:
            step = bodies.begin_part(chain, n)
            if step:
                self._put_octets(message, position, step)
                bodies.end_part(chain, step)
                position += step
                n -= step

    def _expiring_for(self, queues, count):
        for k in range(count):
            if self._broker.numbered(queues[k]).ttl_ms >= 0:
                return True
        return False

    # --- messages, out ---

    def find(self, queue):
        """Find the oldest message of *queue* that has no entry and is committed: is there one?"""
        ring = self.ring
        number = queue.number
        try:
            self.found = ring.find(queue, number)
            while self.found >= 0 and self.ahead.count:
                if not self.ahead.forget(number, ring.at_order, ring.at_slot):
                    break
                ring.pass_by(queue)
                self.found = ring.find(queue, number)
        except OSError as error:
            self.found = -1
            self.fail(error)
        return self.found >= 0

    def drop_found(self):
        """Settle the message found, which was not taken."""
        ring = self.ring
        order = ring.at_order
        slot = ring.at_slot
        if ring.kind & CHAIN:
            self._settle_chain(order, slot, self.found, ring.chain_order, ring.chain_slot)
        else:
            self.ack(order, slot, self.found)

    def body_size(self):
        """Octets of the body of the message found."""
        ring = self.ring
        if ring.kind & CHAIN:
            return ring.chain_size
        ring.read(0, self._scratch, 0, 2)
        return ring.size - (u16(self._scratch, 0) & ~_EXPIRES)

    def _has_expiry(self):
        self.ring.read(0, self._scratch, 0, 2)
        if not self._scratch[0] & 0x80:
            return False
        self.ring.read(2, self._scratch, 2, 8)
        self._expiring = True
        return True

    def expiry(self, queue):
        """When the message found expires in *queue*, in ticks; -1: never."""
        if not self._has_expiry():
            return -1
        buf = self._scratch
        ttl = queue.ttl_ms
        if not equal(buf, 6, _FOR_EVER, 4):
            own = u16(buf, 6) << 16 | u16(buf, 8)
            if ttl < 0 or own < ttl:
                ttl = own
        if ttl < 0:
            return -1
        self._advance_clock()
        age = self._clock - u32(buf, 2) & _CLOCK_MASK
        # Both times were rounded: it may be a unit younger.
        age = 0 if not age or age > _CLOCK_MASK >> 1 else age - 1
        if age > ttl >> _UNIT:
            return ticks_add(self._broker.now, -1)
        return ticks_add(self._broker.now, ttl - (age << _UNIT))

    def expires(self):
        """Whether messages in the ring may expire."""
        return self._expiring

    def load(self):
        """The message found, as a message of the pool; None when there is no room for it now.

        Its body stays in the ring when it is there in parts.
        """
        ring = self.ring
        pool = self._broker.pool
        buf = self._scratch
        ring.read(0, buf, 0, 2)
        expires = buf[0] & 0x80
        meta = u16(buf, 0) & ~_EXPIRES
        lead = 10 if expires else 2
        in_parts = ring.kind & CHAIN
        if in_parts and not self.bodies.may_fetch():
            return None
        message = pool.fetch(ring.size - lead)
        if message is None:
            return None
        ring.read(0, buf, 0, meta)
        pool.write(message, buf, lead, meta - lead)
        key = lead + 1 + buf[lead]
        message.head = key + 1 + buf[key] - lead
        message.properties = meta - lead - message.head
        message.flags = FETCHED | PERSISTENT
        if ring.kind & TAG:
            message.flags |= AMQP10
        at = meta
        while at < ring.size:
            step = min(len(buf), ring.size - at)
            ring.read(at, buf, 0, step)
            pool.write(message, buf, 0, step)
            at += step
        if in_parts:
            message.body = ring.chain_size
            message.chain = self.bodies.fetch()
        else:
            message.body = ring.size - meta
        return message

    # --- the end of a message ---

    def settle(self, entry):
        """A queue is done with the message of *entry*."""
        ring = self.ring
        order = entry.order
        slot = entry.position
        chain = entry.message.chain
        if chain is not None:
            self._settle_chain(order, slot, entry.share, chain.order, chain.slot)
        elif self._is_in_parts(entry):
            self._settle_chain(order, slot, entry.share, ring.chain_order, ring.chain_slot)
        else:
            self.ack(order, slot, entry.share)

    def _is_in_parts(self, entry):
        """Whether append() stored the body, which is in RAM, in parts; the ring has parsed it."""
        ring = self.ring
        if entry.message.size + 10 <= self.whole_max:
            return False
        if ring.uncommitted:
            self._commit()
        return ring.locate(entry.order, entry.position) and ring.kind & CHAIN

    def ack(self, order, slot, share):
        """The same as Ring.ack(), and the mark will not wait for ever."""
        if not self._settled_at:
            self._settled_at = self._broker.now or 1
        self.ring.ack(order, slot, share)

    def _settle_chain(self, order, slot, share, chain_order, chain_slot):
        """The parts go when no queue needs them, and only behind the mark that says so."""
        ring = self.ring
        if not self._settled_at:
            self._settled_at = self._broker.now or 1
        ring.ack(order, slot, share)
        ring.mark()
        if not ring.locate(order, slot) or not ring.is_needed():
            self.bodies.drop(chain_order, chain_slot)

    def count_try(self, entry):
        """The message of *entry* was given back to its queue."""
        self.ring.count_try(entry.order, entry.position, entry.share)

    def tries(self):
        """How often the message found was given back, at most 8."""
        return self.ring.tries(self.found)

    # --- time ---

    def commit(self):
        """Make everything appended so far safe. True when it is."""
        if not self.broken:
            try:
                self.ring.make_room_ahead()
            except OSError as error:
                self.fail(error)
        if self.broken or not self.ring.uncommitted:
            self.appended_at = 0
            return True  # what was lost is told by broker.failures, and nothing is taken any more
        wait = self.gather_ms
        if wait and ticks_diff(self._broker.now, self.appended_at) < wait:
            return False
        return self._commit()

    def commit_now(self):
        """The same without gathering more for it."""
        return self.broken or self._commit()

    def _commit(self):
        try:
            if self.ring.commit():
                self.appended_at = 0
                return True
            self.fail()
        except OSError as error:
            self.fail(error)
        return False

    def fail(self, error=None):
        """What is not committed is lost, and nothing more is taken until the next start."""
        if error is not None:
            log.error("store: %s", error)
        if not self.broken:
            self.broken = True
            self._broker.failures += 1
            log.error("store: it takes nothing any more, persistent messages are refused")

    def status(self):
        """What goes on, as a dict that json can print."""
        ring = self.ring
        free = ring.free()
        return {
            "sectors": ring.sectors,
            "sector_octets": ring.sector_size,
            "sectors_free": free,
            "erases_most": ring.worn,
            "syncs": getattr(ring.device, "syncs", 0),
            "faults": ring.faults,
            "damaged": self.damaged,
            "marks_refused": ring.refused,
            "merges": ring.merges,
            "copies": ring.copies,
            "broken": self.broken,
        }

    def close(self):
        """Make safe what can be, also what is settled; the device is free then."""
        try:
            self._commit()
            self.ring.mark()
            self.ring.sync()
        finally:
            self.ring.device.close()

    def tick(self):
        """About once a second: the clock, and marks that have waited long enough."""
        now = self._broker.now
        self._advance_clock()
        if self._settled_at and ticks_diff(now, self._settled_at) >= self._mark_ms:
            self._settled_at = 0
            self.ring.mark()
            self.ring.sync()
        passed = self._clock - self._clock_stored & _CLOCK_MASK
        if self._expiring and passed >= _CLOCK_MS >> _UNIT:
            self._expiring = self._broker.holds_stored()
            self._store_clock()

    def _advance_clock(self):
        units = ticks_diff(self._broker.now, self._now) >> _UNIT
        self._now = ticks_add(self._now, units << _UNIT)
        self._clock = self._clock + units & _CLOCK_MASK

    def _set_clock(self, clock):
        """A time found in the ring; the latest is what counts."""
        if not self._clock or (clock - self._clock & _CLOCK_MASK) <= _CLOCK_MASK >> 1:
            self._clock = self._clock_stored = clock & _CLOCK_MASK

    def _store_clock(self):
        if self._append_definition(struct.pack(">BI", 0x43, self._clock)):
            if self._clock_order:
                self.ring.ack(self._clock_order, self._clock_slot, 0)
            self._clock_order = self.order
            self._clock_slot = self.slot
        self._clock_stored = self._clock

    def tail_slot(self):
        """The slot of the place behind everything stored, whose order is ring.newest."""
        return self.ring.tail_slot if self.ring.tail >= 0 else 0xFFFF

    def idle(self):
        """There is nothing else to do: erase a sector ahead, so that no publish waits for it."""
        if self._marks_are_free and self.ring.acks:
            self.ring.mark()  # in a file, where it spares duplicates after a crash
        if self.ring.ready < 0 and self.ring.free() > 1:
            self.ring.prepare()
