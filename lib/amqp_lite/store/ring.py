"""The flash ring: one append-only log of records over the erase sectors of a device.

Knows no message format: a record is a few octets for some queues, a part of a longer body, or a
definition. Nothing is kept in RAM for a record. All numbers are big-endian; erased flash is 0xFF,
and programming only turns ones into zeros.

sector, `sector_size` octets in slots of 16:

     0  magic 0xA1, which also is the version of this format
     1  geometry: log2(sector_size) - 8 in the high half, log2(page_size) - 4 in the low one
     2  cover u16       stands for the orders order .. order + cover, after a merge
     4  order u32       place in the log; grows with each sector begun, stays below 2**30
     8  copy u8         of two sectors with the same order and cover the later copy counts
     9  erases u24      how often this sector was erased
    12  crc32 of the 12 octets before
    16  bitmap, one bit for each slot of the sector, highest bit first: 0 = done with; the first
        two, of the header's own slots, say how far a start got that settled what a cut had left
     .  slots from the first one behind the bitmap

record, from the beginning of a slot:

     0  kind            0x80 | flags | MESSAGE, BODY or DEFINITION; or PART alone
     1  queue u8        or, with FAN, how many queues k
     2  size u16        octets from here to the crc
     4  MOVED: origin   order u32, slot u16: where the record was before a merge
     .  FAN:   queues   k times u16
     .  CHAIN: parts    order u32, slot u16 of the first BODY; octets u32 in all of them
     .  BODY:  chain    order u32, slot u16 of the first BODY (of the first itself: its own)
     .  payload
     .  crc32           of everything before, begun with order u32, cover u16, slot u16
     .  tries           MESSAGE: an octet for each queue, a bit cleared with each requeue
     .  0xFF to the next slot

A record is pending for its n-th queue while the bit of its n-th slot is 1 (a record has at least
as many slots as queues). A place is (order, slot); it is the name of a record for all its life:
merged records carry their first place along.

A message that is PART of a transaction has a slot more than queues: as long as the bit of that is
1, it counts only when the commit record of its transaction follows. That is a record of the kind
PART alone. Nothing else is appended between the first part and it, but BODYs. Its payload:

     0  first           order u32, slot u16: the place of the first part
     6  parts u16       how many there are
     8  settlements     order u32, slot u16, share u16 of what is done with by the transaction

It stays pending until the marks of all its parts (that they count) and of its settlements are on
flash. A start that finds it pending, and all parts, makes these marks; see recovery.py.

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

from ..compat import const, copy, crc32, fill, is_blank, same, u16, u32
from .merge import merge
from .sectors import HEADER, MAX_ORDER, SLOT, Sectors, program

MESSAGE = const(1)
BODY = const(2)
DEFINITION = const(3)
TYPE = const(0x03)
TAG = const(0x04)  # of a MESSAGE: whatever it means to those who wrote it
PART = const(0x08)
FAN = const(0x10)
MOVED = const(0x20)
CHAIN = const(0x40)

PLACE = const(6)  # octets of an origin
HEAD = const(4)  # octets of a record before what its flags ask for
CRC = const(4)
COUNTS = const(0xFFFE)  # shares for ack(): a PART counts from now on
COMMIT = const(0xFFFF)  # and a commit record is done with when all that was acked before is
_SPARE = const(2)  # sectors free of pending records that an append leaves, for copies and merges


class Ring(Sectors):
    """
    device  see device.py; recovery.py has to read it before anything else is done here
    acks    settled records that may wait to be marked, which one program does for a whole sector
    """

    def __init__(self, device, acks=16):
        Sectors.__init__(self, device)
        # octets of the longest record between its head and its checksum, in a sector of its own
        self.largest = (self.slots - self.first) * SLOT - HEAD - CRC - 1
        self.tail_slot = 0  # in the tail sector, where the next record begins,
        self.kept_slot = 0  # and the first that is not known to be on flash
        self._seed = bytearray(8)
        self.head = bytearray(HEADER)
        self.sum = bytearray(CRC)  # of a record
        self._ack_order = array("I", [0] * acks)
        self._ack_slot = array("H", [0] * acks)
        self._ack_share = array("H", [0] * acks)
        self.acks = 0
        self.commits = 0  # of them, those of commit records
        self.marks = bytearray(self.bitmap)  # of a merge's target
        self._stuck = False  # nothing is left to merge
        self.uncommitted = False
        # of the record appended last, or parsed last:
        self.at_order = 0  # its place
        self.at_slot = 0
        self.sector = 0  # where it is now
        self.slot = 0
        self.kind = 0
        self.shares = 0  # queues
        self.used = 0  # slots
        self.start = 0  # address of its payload
        self.size = 0  # octets of it
        self.queues = 0  # address of its list of queues, with FAN
        self.queue = 0  # without
        self.chain_order = 0
        self.chain_slot = 0
        self.chain_size = 0  # octets
        self.tries_at = 0  # address
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

    def begin_crc(self, crc, order, cover, slot):
        """Begin a checksum in *crc* with the place it is for."""
        seed = self._seed
        struct.pack_into(">IHH", seed, 0, order, cover, slot)
        fill(crc, 0, 4, 0)
        crc32(crc, seed, 0, 8)

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
            elif self._stuck or not merge(self):
                self._stuck = True  # until something is marked as done
                return False
        return True

    # --- finding records ---

    def end_of(self, sector):
        """The slot behind the last record in *sector* that can be read."""
        return self.kept_slot if sector == self.tail else self.slots

    def is_pending(self, sector, slot):
        at = self.device.at(sector * self.sector_size + HEADER + (slot >> 3), 1)
        return self.device.buf[at] & 0x80 >> (slot & 7)

    def blank_end(self, slot):
        """The slot to look at when the one at *slot* of `sector` holds no record."""
        address = self.sector * self.sector_size + slot * SLOT
        n = self.page_size - (address & self.page_size - 1)
        at = self.device.at(address, n)
        if is_blank(self.device.buf, at, n):
            return slot + n // SLOT
        return slot + 1

    def parse(self, sector, slot):
        """Read the record at *slot* of *sector* into the attributes. False: there is none."""
        device = self.device
        base = sector * self.sector_size
        address = base + slot * SLOT
        self.sector = sector
        self.slot = slot
        at = device.at(address, HEAD)
        buf = device.buf
        kind = buf[at]
        if not kind & 0x80 or (kind & TYPE > MESSAGE if kind & PART else not kind & TYPE):
            return False
        count = buf[at + 1]
        n = u16(buf, at + 2)
        kind &= 0x7F
        whole = HEAD + n
        tries = 0
        if kind & TYPE == MESSAGE:
            tries = count if kind & FAN else 1
        used = slots_of(kind, n, tries)
        if slot + used > self.slots or (kind & FAN and not count):
            return False
        order = self.order[sector]
        crc = self.side.crc
        self.begin_crc(crc, order, self.cover[sector], slot)
        size = self.page_size
        i = 0
        while i < whole:
            step = whole - i
            if step > size:
                step = size
            at = device.at(address + i, step)
            crc32(crc, device.buf, at, step)
            i += step
        at = device.at(address + whole, CRC)
        if not same(device.buf, at, crc, 0, CRC):
            return False
        self.kind = kind
        self.used = used
        self.shares = tries or 1
        self.queue = count
        self.at_order = order
        self.at_slot = slot
        self.tries_at = address + whole + CRC
        end = address + whole
        address += HEAD
        extras = 0
        if kind & MOVED:
            extras = PLACE
        if kind & FAN:
            self.queues = address + extras
            extras += 2 * count
        parts = address + extras
        if kind & CHAIN:
            extras += PLACE + 4
        elif kind & TYPE == BODY:
            extras += PLACE
        if extras > n:
            return False
        if kind & MOVED:
            at = device.at(address, PLACE)
            self.at_order = u32(device.buf, at)
            self.at_slot = u16(device.buf, at + 4)
        if kind & CHAIN or kind & TYPE == BODY:
            at = device.at(parts, PLACE + 4)
            self.chain_order = u32(device.buf, at)
            self.chain_slot = u16(device.buf, at + 4)
            self.chain_size = u32(device.buf, at + 6)
        self.start = address + extras
        self.size = end - self.start
        return True

    def queue_of(self, share):
        """The number of the parsed record's queue *share*."""
        if self.kind & FAN:
            at = self.device.at(self.queues + 2 * share, 2)
            return u16(self.device.buf, at)
        return self.queue

    def share_of(self, queue):
        """Which of the parsed record's shares is *queue*'s and pending; -1: none."""
        for share in range(self.shares):
            if self.queue_of(share) == queue and self.is_pending(self.sector, self.slot + share):
                return share
        return -1

    def tries(self, share):
        """How often the parsed record was given back by the queue *share*, at most 8."""
        at = self.device.at(self.tries_at + share, 1)
        octet = self.device.buf[at] ^ 0xFF
        n = 0
        while octet:
            n += octet & 1
            octet >>= 1
        return n

    def read(self, i, to, at, n):
        """Copy *n* octets of the parsed record's payload from *i* to *to* at *at*."""
        device = self.device
        address = self.start + i
        size = self.page_size
        while n:
            step = n if n < size else size
            copy(to, at, device.buf, device.at(address, step), step)
            address += step
            at += step
            n -= step

    def next_record(self, order, slot):
        """Parse the first record at or behind the place (*order*, *slot*). False: none.

        *slot* has to be the beginning of a record or of what holds none.
        """
        sector = self.sector_from(order)
        while sector >= 0:
            at = self.first
            if self.order[sector] == order and not self.cover[sector] and slot > at:
                at = slot
            end = self.end_of(sector) if self.live[sector] else at
            while at < end:
                if not self.parse(sector, at):
                    at = self.blank_end(at)
                elif self.at_order > order or (self.at_order == order and self.at_slot >= slot):
                    return True
                else:
                    at += self.used
            sector = self.sector_after(sector)
        return False

    def find(self, cursor, queue):
        """Move *cursor* to the first pending message for *queue* at or behind it; parse that.

        cursor  has the attributes order and slot

        The number of its share; -1 when there is none, and the cursor is at the end.
        """
        while self.next_record(cursor.order, cursor.slot):
            cursor.order = self.at_order
            cursor.slot = self.at_slot
            if self.kind & TYPE == MESSAGE:
                share = self.share_of(queue)
                if share >= 0:
                    return share
            self.pass_by(cursor)
        # Not back to the end, when it is at a record that is not committed yet.
        if self.tail >= 0 and (cursor.order != self.newest or cursor.slot < self.kept_slot):
            cursor.order = self.newest
            cursor.slot = self.kept_slot
        return -1

    def pass_by(self, cursor):
        """Move *cursor* behind the parsed record."""
        cursor.order = self.at_order
        cursor.slot = self.slot_behind()

    def slot_behind(self):
        """Where next_record() goes on behind the parsed record, in the order at_order."""
        # A moved record may be longer than the one that was at its place; nothing is there now.
        return self.at_slot + (1 if self.kind & MOVED else self.used)

    def locate(self, order, slot):
        """Parse the record whose place is (*order*, *slot*). False: it is gone."""
        sector = self.sector_of(order)
        if sector < 0:
            return False
        if self.order[sector] == order and not self.cover[sector]:
            return self.parse(sector, slot)
        at = self.first
        end = self.end_of(sector)
        while at < end:
            if not self.parse(sector, at):
                at = self.blank_end(at)
                continue
            if self.at_order == order and self.at_slot == slot:
                return True
            at += self.used
        return False

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

    def is_open(self):
        """Whether the parsed record counts only with a commit record, or is one."""
        if not self.kind & PART:
            return False
        return not self.kind & TYPE or self.is_pending(self.sector, self.slot + self.shares)

    def is_needed(self):
        """Whether the parsed record is pending for anybody."""
        for share in range(self.shares):
            if self.is_pending(self.sector, self.slot + share):
                return True
        return False


def slots_of(kind, n, tries):
    """Slots that a record with *n* octets between its head and its checksum takes."""
    used = (HEAD + n + CRC + tries + SLOT - 1) // SLOT
    least = tries + 1 if tries and kind & PART else tries
    return used if used > least else least


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
