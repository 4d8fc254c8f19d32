"""The records of the log, and how they are found again.

Knows no message format: a record is a few octets for some queues, a part of a longer body, or a
definition. Nothing here writes. The format of a sector is drawn in sectors.py.

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
"""

import struct

from ..compat import const, copy, crc32, fill, is_blank, same, u16, u32
from .sectors import HEADER, SLOT, Sectors

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


class Records(Sectors):
    """The part of a Ring that reads: one record at a time, into the attributes."""

    def __init__(self, device):
        Sectors.__init__(self, device)
        self.tail_slot = 0  # in the tail sector, where the next record begins,
        self.kept_slot = 0  # and the first that is not known to be on flash
        self._seed = bytearray(8)
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

    def begin_crc(self, crc, order, cover, slot):
        """Begin a checksum in *crc* with the place it is for."""
        seed = self._seed
        struct.pack_into(">IHH", seed, 0, order, cover, slot)
        fill(crc, 0, 4, 0)
        crc32(crc, seed, 0, 8)

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
