"""The flash ring: one append-only log of records over the erase sectors of a device.

Nothing is kept in RAM for a record. Their format, and how they are read, is in records.py.

What makes it safe at any cut (each is tested by taking it away, see tests/faults):

- A sector's header is programmed with its first record, after the erase was read back; before the
  erase the old header is zeroed. A session never appends to a sector of an earlier one, whose last
  page may hold cells that read differently each time.
- The checksum comes last, and its beginning names the place: octets of an earlier life fail.
- A copy (of a failing or a long unmoved sector, or of several sparse ones) is programmed whole,
  then its header, which is the commit; then the headers of the sources are zeroed.
- A start first makes solid what it believes of copies, marks and the page being written last, and
  makes unreadable what it does not believe; see recovery.py.
- A record's bit is cleared only when the record itself is on flash and read back, and that of a
  commit record behind all marks it stands for.
"""

import struct
from array import array

from ..compat import const, copy, fill
from .merge import merge
from .records import (
    BODY,
    CHAIN,
    CRC,
    FAN,
    HEAD,
    MESSAGE,
    PART,
    PLACE,
    TYPE,
    Records,
    slots_of,
)
from .sectors import HEADER, MAX_ORDER, SLOT, program

COUNTS = const(0xFFFE)  # shares for ack(): a PART counts from now on
COMMIT = const(0xFFFF)  # and a commit record is done with when all that was acked before is
_SPARE = const(2)  # sectors free of pending records that an append leaves, for copies and merges


class Ring(Records):
    """
    device  see device.py; recovery.py has to read it before anything else is done here
    acks    settled records that may wait to be marked, which one program does for a whole sector
    """

    def __init__(self, device, acks=16):
        Records.__init__(self, device)
        # octets of the longest record between its head and its checksum, in a sector of its own
        self.largest = (self.slots - self.first) * SLOT - HEAD - CRC - 1
        self.head = bytearray(HEADER)
        self.sum = bytearray(CRC)  # of a record
        self._ack_order = array("I", [0] * acks)
        self._ack_slot = array("H", [0] * acks)
        self._ack_share = array("H", [0] * acks)
        self.acks = 0
        self.commits = 0  # of them, those of commit records
        self.marks = bytearray(self.bitmap)  # of a merge's target
        self._stuck = False  # nothing is left to merge
        self._late_slot = self.slots - self.slots // 4
        self._made_room = -1  # the order of the tail that make_room_ahead() has seen to
        self.uncommitted = False
        # counters
        self.merges = 0
        self.refused = 0  # acks that the flash took no mark of: they come back at a restart

    # --- appending ---

    def room(self):
        """Octets of the longest record that still fits in the tail sector, like `largest`."""
        if self.tail < 0:
            return 0
        return (self.slots - self.tail_slot) * SLOT - HEAD - CRC - 1

    def begin(self, kind, queues, count, size):
        """Begin a record; what follows is put() of *size* octets in all, and end().

        kind    MESSAGE, perhaps with TAG, PART, and CHAIN: set chain_* first; BODY, likewise
                (chain_order 0: the first of a chain, which then is this one); DEFINITION; PART
        queues  a list whose first *count* are the numbers of the queues of a MESSAGE

        False: the ring has no room for it. Its place is at_order, at_slot.
        """
        head = self.head
        chain = 0
        if kind & TYPE == BODY:
            chain = PLACE
        elif kind & CHAIN:
            chain = PLACE + 4
        fan = 0
        second = 0
        if kind & TYPE == MESSAGE:
            if count == 1 and queues[0] < 256:
                second = queues[0]
            else:
                kind |= FAN
                fan = 2 * count
                second = count
        else:
            count = 1
        whole = size + chain + fan
        if kind & TYPE == MESSAGE:
            used = slots_of(kind, whole, count)
        else:
            used = slots_of(0, whole, 0)
        # Merges parse records.
        chain_order = self.chain_order
        chain_slot = self.chain_slot
        chain_size = self.chain_size
        if self.tail < 0 or self.tail_slot + used > self.slots:
            if used > self.slots - self.first or not self._next_sector():
                return False
        head[0] = 0x80 | kind
        head[1] = second
        head[2] = whole >> 8
        head[3] = whole & 0xFF
        self.uncommitted = True
        self.at_order = self.newest
        self.at_slot = self.tail_slot
        self.used = used
        self.shares = count
        writer = self.writer
        self.begin_crc(writer.crc, self.newest, 0, self.tail_slot)
        writer.put(head, 0, HEAD)
        k = 0
        while fan:
            head[0] = queues[k] >> 8
            head[1] = queues[k] & 0xFF
            writer.put(head, 0, 2)
            k += 1
            fan -= 2
        if chain:
            if not chain_order:
                chain_order = self.at_order
                chain_slot = self.at_slot
            self.chain_order = chain_order
            self.chain_slot = chain_slot
            struct.pack_into(">IHI", head, 0, chain_order, chain_slot, chain_size)
            writer.put(head, 0, chain)
        return True

    def put(self, buf, i, n):
        """Write *n* octets of *buf* from *i* to the record begun last."""
        self.writer.put(buf, i, n)

    def end(self):
        """The record is whole. It is safe after the next commit()."""
        writer = self.writer
        # From a copy: the register itself goes on over what is written.
        copy(self.sum, 0, writer.crc, 0, CRC)
        writer.put(self.sum, 0, CRC)
        end = (self.tail_slot + self.used) * SLOT
        writer.skip(self.tail * self.sector_size + end - writer.base - writer.at)
        self.tail_slot += self.used
        self.live[self.tail] += self.used

    def commit(self):
        """Make all records that have ended safe. True when they are."""
        if self.unsafe:
            return False
        if self.uncommitted:
            if not self.writer.flush():
                return False
            if not self.sync():
                return False
            self.kept_slot = self.tail_slot
            self.uncommitted = False
        return True

    def _next_sector(self):
        """Go on in another sector. False when there is no room, or no sector that works."""
        if not self.commit():
            return False
        if not self.make_room() or self.newest >= MAX_ORDER:
            return False
        self.level()
        sector = self.take()
        if sector < 0:
            return False
        self.newest += 1
        self.order[sector] = self.newest
        self.cover[sector] = 0
        self.live[sector] = 0
        self.tail = sector
        self.tail_slot = self.kept_slot = self.first
        writer = self.writer
        writer.start(sector * self.sector_size, 0)
        self.write_header(writer.page, self.newest, 0, 0, self.ready_erases)
        writer.at = HEADER
        writer.skip(self.first * SLOT - HEADER)
        return True

    # --- sectors ---

    def make_room(self):
        """Have a sector to begin and one left over; merges what is sparse. False: full."""
        while self.free() < _SPARE:
            if self.acks:
                if not self.mark() and self.acks:
                    return False
            # A sector for the merge is erased here, where fewer calls are on the stack.
            elif self._stuck or not self.prepare() or not merge(self):
                self._stuck = True  # until something is marked as done
                return False
        return True

    def make_room_ahead(self):
        """Make room for the next sector when the tail is nearly full.

        A merge calls deep, and below a publish the stack of a Pico W has no room for that.
        """
        if self.tail_slot < self._late_slot or self._made_room == self.newest or self._stuck:
            return
        if self.make_room() and self.prepare():
            self._made_room = self.newest

    # --- marking records as done ---

    def ack(self, order, slot, share):
        """The queue *share* of the record at that place is done with it, from the next mark() on.

        Until that is on flash, a restart brings the record back. *share* may be COUNTS or COMMIT.
        """
        if self.acks == len(self._ack_slot):
            self.mark()
            if self.acks == len(self._ack_slot):
                self.refused += 1
                return
        k = self.acks
        self._ack_order[k] = order
        self._ack_slot[k] = slot
        self._ack_share[k] = share
        self.acks = k + 1
        if share == COMMIT:
            self.commits += 1

    def mark(self, commits=True):
        """Program the marks of all that ack() was told. False: the flash refused some.

        commits  also those of commit records, which costs a sync() in between
        """
        if not self.acks:
            return True
        if not self.commit():
            return False
        right = True
        while self.acks > self.commits:
            k = self.acks - 1
            while self._ack_share[k] == COMMIT:
                k -= 1
            right = self._mark_one(k) and right
        if self.commits and commits:
            if self.refused or not self.sync():
                self.acks = self.commits = 0  # a start has to go by them once more
            while self.acks:
                self._mark_one(self.acks - 1)
        return right

    def _mark_one(self, k):
        """Program the marks of the sector of the ack *k*. False: the flash refused that one."""
        sector = self.sector_of(self._ack_order[k])
        if sector >= 0:
            if self._mark_sector(sector):
                return True
            # The sector is failing: its copy takes the marks.
            self.faults += 1
            if self.copy_sector(sector, True):
                return True
            self.refused += 1
        self._forget_ack(k)
        return sector < 0

    def _mark_sector(self, sector):
        """Program the waiting marks of *sector*, and take them off the list when they hold."""
        device = self.device
        page = self.side.page
        bitmap = self.bitmap
        base = sector * self.sector_size
        at = device.at(base + HEADER, bitmap)
        copy(page, HEADER, device.buf, at, bitmap)
        lowest = HEADER + bitmap
        highest = HEADER
        ended = 0  # slots
        last = self.acks == self.commits  # it is their turn
        for k in range(self.acks):
            order = self._ack_order[k]
            share = self._ack_share[k]
            if self.sector_of(order) != sector or (share == COMMIT and not last):
                continue
            if not self.locate(order, self._ack_slot[k]):
                continue
            if share == COMMIT:
                share = 0
            elif share == COUNTS and self.kind & PART:
                share = self.shares
            elif share >= self.shares:
                continue
            bit = self.slot + share
            i = HEADER + (bit >> 3)
            # Also what reads as done: a cut may have left it half programmed.
            if i < lowest:
                lowest = i
            if i > highest:
                highest = i
            if page[i] & 0x80 >> (bit & 7):
                page[i] &= ~(0x80 >> (bit & 7))
                if share < self.shares and not _any_bit(page, HEADER, self.slot, self.shares):
                    ended += self.used
        right = True
        if lowest <= highest:
            fill(page, HEADER, lowest - HEADER, 0xFF)
            fill(page, highest + 1, HEADER + bitmap - highest - 1, 0xFF)
            right = program(device, base, page, lowest, highest + 1 - lowest)
        fill(page, HEADER, bitmap, 0xFF)
        if right:
            live = self.live[sector]
            self.live[sector] = live - ended if live > ended else 0
            k = self.acks
            while k:
                k -= 1
                if self.sector_of(self._ack_order[k]) == sector:
                    if last or self._ack_share[k] != COMMIT:
                        self._forget_ack(k)
            if ended:
                self._stuck = False
        return right

    def _forget_ack(self, k):
        """Take the ack *k* off the list; those before it stay where they are."""
        if self._ack_share[k] == COMMIT:
            self.commits -= 1
        self.acks = last = self.acks - 1
        self._ack_order[k] = self._ack_order[last]
        self._ack_slot[k] = self._ack_slot[last]
        self._ack_share[k] = self._ack_share[last]

    def count_try(self, order, slot, share):
        """Note on flash that the record at that place was given back once more."""
        if not self.commit() or not self.locate(order, slot) or share >= self.shares:
            return
        address = self.tries_at + share
        octet = self.device.buf[self.device.at(address, 1)]
        i = address & self.page_size - 1
        page = self.side.page
        page[i] = octet & octet - 1
        program(self.device, address - i, page, i, 1)
        page[i] = 0xFF


def _any_bit(bits, i, first, n):
    """Whether one of *n* bits from number *first* of *bits*, which begin at octet *i*, is 1."""
    for bit in range(first, first + n):
        if bits[i + (bit >> 3)] & 0x80 >> (bit & 7):
            return True
    return False


def drop_chain(ring, order, slot):
    """Mark the parts of a body, and the message it is of, as done.

    order, slot  the place of the first part
    """
    chain_order = order
    chain_slot = slot
    ring.commit()  # parts that are not on flash yet would not be found
    while ring.next_record(order, slot):
        order = ring.at_order
        slot = ring.at_slot
        following = ring.slot_behind()
        if ring.chain_order == chain_order and ring.chain_slot == chain_slot:
            if ring.kind & CHAIN:
                if ring.is_needed():
                    for share in range(ring.shares):
                        ring.ack(order, slot, share)
                break
            if ring.kind & TYPE == BODY:
                ring.ack(order, slot, 0)
        slot = following
