"""The erase sectors under the ring: their headers, which are free, and copies of whole ones.

All numbers are big-endian; erased flash is 0xFF, and programming only turns ones into zeros.

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
"""

import struct
from array import array

from ..compat import (
    const,
    copy,
    crc32,
    fill,
    is_blank,
    newest_upto,
    oldest_from,
    same,
    u16,
    u32,
)

MAGIC = const(0xA1)
HEADER = const(16)  # octets of a sector's header
SLOT = const(16)  # octets
MAX_ORDER = const(0x3FFFFFFF)
BAD = const(0xFFFF)  # in `live`: a sector not to be used before the next start


class PageWriter:
    """Octets to consecutive addresses, in whole page programs that are read back."""

    def __init__(self, device):
        self._device = device
        self.page = bytearray(device.page_size)
        fill(self.page, 0, device.page_size, 0xFF)
        self.crc = bytearray(4)
        self.base = 0  # address of the page
        self.done = 0  # octets of it that are programmed
        self.at = 0  # octets of it that are used
        self.failed = False  # a program read back wrong
        self.repair = None  # called then; True: program it again

    def start(self, base, at):
        """Go on at octet *at* of the page at address *base*."""
        self.base = base
        self.done = self.at = at
        self.failed = False

    def put(self, buf, i, n):
        """Write *n* octets of *buf* from *i*."""
        crc32(self.crc, buf, i, n)
        size = len(self.page)
        while n:
            step = size - self.at
            if step > n:
                step = n
            copy(self.page, self.at, buf, i, step)
            self.at += step
            i += step
            n -= step
            if self.at == size:
                self.flush()

    def skip(self, n):
        """Leave *n* octets erased."""
        size = len(self.page)
        while n:
            step = size - self.at
            if step > n:
                step = n
            self.at += step
            n -= step
            if self.at == size:
                self.flush()

    def flush(self):
        """Program what was written. False: it could not be, here or elsewhere."""
        while not program(self._device, self.base, self.page, self.done, self.at - self.done):
            if self.repair is None or not self.repair():
                self.failed = True
                break
        fill(self.page, 0, self.at, 0xFF)
        if self.at == len(self.page):
            self.base += self.at
            self.at = 0
        self.done = self.at
        return not self.failed


def program(device, base, page, i, n):
    """Program *n* octets of *page* from *i* and read them back: whether all are right."""
    if not n:
        return True
    try:
        device.program(base, page, i, n)
        at = device.at(base + i, n)
    except OSError:
        return False
    return same(device.buf, at, page, i, n)


class Sectors:
    """The half of a Ring that deals with sectors, whatever their records are."""

    def __init__(self, device):
        self.device = device
        self.sectors = n = device.sectors
        self.sector_size = device.sector_size
        self.page_size = device.page_size
        self.slots = device.sector_size // SLOT
        self.bitmap = self.slots // 8  # octets
        self.first = (HEADER + self.bitmap + SLOT - 1) // SLOT  # slot
        self.order = array("I", [0] * n)  # by sector; 0: not in the log
        self.cover = array("H", [0] * n)
        self.live = array("H", [0] * n)  # slots of its pending records
        self.newest = 0  # order of the sector begun last
        self.tail = -1  # sector being written
        self.turn = -1  # sector erased last
        self.ready = -1  # sector erased ahead
        self.ready_erases = 0
        self.worn = 0  # the highest erase count
        self.writer = PageWriter(device)
        self.side = PageWriter(device)  # for copies and marks
        self.writer.repair = self._leave_tail
        self._geometry = _log2(self.sector_size // 256) << 4 | _log2(self.page_size // 16)
        self._header_crc = bytearray(4)
        self._near = 0  # sector looked up last
        self.unsafe = False  # something may be lost although it was programmed
        self.faults = 0  # programs and erases that read back wrong
        self.copies = 0  # of whole sectors

    # --- headers ---

    def write_header(self, page, order, cover, copies, erases):
        """Put a sector's header into the first octets of *page*."""
        struct.pack_into(
            ">BBHIBBH", page, 0, MAGIC, self._geometry, cover, order, copies, erases >> 16,
            erases & 0xFFFF,
        )  # fmt: skip
        crc = self._header_crc
        fill(crc, 0, 4, 0)
        crc32(crc, page, 0, 12)
        copy(page, 12, crc, 0, 4)

    def is_header(self, buf, i):
        """Whether the octets at *i* are the header of a sector of this ring."""
        if buf[i] != MAGIC or buf[i + 1] != self._geometry:
            return False
        if not 0 < u32(buf, i + 4) <= MAX_ORDER:
            return False
        crc = self._header_crc
        fill(crc, 0, 4, 0)
        crc32(crc, buf, i, 12)
        return same(crc, 0, buf, i + 12, 4)

    def _erases(self, sector):
        """The erase count in its header; 0 when it has none."""
        at = self.device.at(sector * self.sector_size, HEADER)
        buf = self.device.buf
        if not self.is_header(buf, at):
            return 0
        return buf[at + 9] << 16 | u16(buf, at + 10)

    def kill(self, sector):
        """Zero the header of *sector*: it is never believed again."""
        page = self.side.page
        fill(page, 0, HEADER, 0)
        if not program(self.device, sector * self.sector_size, page, 0, HEADER):
            self.faults += 1
        fill(page, 0, HEADER, 0xFF)

    # --- free ones ---

    def free(self):
        """How many sectors could be begun."""
        n = 0
        for live in self.live:
            if not live:
                n += 1
        if self.tail >= 0 and not self.live[self.tail]:
            n -= 1
        return n

    def take(self):
        """An erased sector that is nobody's, its erase count in `ready_erases`; -1: none."""
        if self.ready < 0 and not self.prepare():
            return -1
        sector = self.ready
        self.ready = -1
        return sector

    def prepare(self):
        """Erase the next sector in turn ahead of its use. False: there is none that works."""
        for _ in range(self.sectors):
            if self.ready >= 0:
                return True
            self.turn = sector = (self.turn + 1) % self.sectors
            if not self.live[sector] and sector != self.tail:
                self._erase(sector)
        return self.ready >= 0

    def level(self):
        """Move what lies in the way of the turn for so long that its sector wears less.

        Records nobody takes would keep their sector from wearing at all.
        """
        sector = self.turn
        for _ in range(self.sectors):
            sector = (sector + 1) % self.sectors
            live = self.live[sector]
            if sector == self.tail or live == BAD:
                continue
            if not live:
                return
            if self.worn - self._erases(sector) >= 2:
                if self.copy_sector(sector, False):
                    self.turn = sector - 1
                return

    def _erase(self, sector):
        """Make *sector* the ready one, or a bad one."""
        erases = self._erases(sector)
        # Of one that lost its header no more is known than that it is like the others.
        erases = erases + 1 if erases else self.worn or 1
        self.order[sector] = 0
        # Unconditionally: a torn erase could bring back an old header and old marks.
        self.kill(sector)
        for _ in range(2):
            if self._try_erase(sector):
                self.ready = sector
                self.ready_erases = erases
                if erases > self.worn:
                    self.worn = erases
                return
            self.faults += 1
        self.live[sector] = BAD

    def _try_erase(self, sector):
        device = self.device
        try:
            device.erase(sector)
            if device.trusted:
                return True
            base = sector * self.sector_size
            size = self.page_size
            for page in range(self.sector_size // size):
                at = device.at(base + page * size, size)
                if not is_blank(device.buf, at, size):
                    return False
        except OSError:
            return False
        return True

    # --- copies ---

    def _leave_tail(self):
        """The tail sector is failing: carry on in a copy of it. False: no other works."""
        self.faults += 1
        return self.copy_sector(self.tail, True)

    def copy_sector(self, source, failing):
        """Move everything in *source* to another sector, slot by slot; places stay true.

        failing  it is not to be used again before the next start

        False: there is no sector that works.
        """
        if failing and self.device.trusted:
            # A file fails as a whole, and another place in it is no better.
            self.unsafe = True
            return False
        while True:
            target = self.take()
            if target < 0:
                return False
            if self._copy_to(source, target):
                break
            self.faults += 1
            self.live[target] = BAD
            self.kill(target)
        self.copies += 1
        is_tail = source == self.tail
        self.order[target] = self.order[source]
        self.cover[target] = self.cover[source]
        self.live[target] = self.live[source]
        self.order[source] = 0
        self.live[source] = BAD if failing else 0
        if is_tail:
            self.tail = target
            self.writer.base += (target - source) * self.sector_size
        self.kill(source)
        return True

    def _copy_to(self, source, target):
        device = self.device
        writer = self.writer
        page = self.side.page
        size = self.page_size
        base = target * self.sector_size
        origin = source * self.sector_size
        header = device.at(origin, HEADER)
        copies = 0
        begun = True  # the header of the source is on flash
        if source == self.tail and writer.base == origin and not writer.done:
            begun = False
        else:
            copies = device.buf[header + 8] % 255 + 1  # 0 is the first one only
        erases = self.ready_erases
        if not begun:
            # It is still in the writer's page, as the beginning of it.
            self.write_header(writer.page, self.order[source], 0, 0, erases)
            return True
        for k in range(self.sector_size // size):
            n = size
            if source == self.tail and origin + k * size >= writer.base:
                n = writer.done if origin + k * size == writer.base else 0
            start = 0 if k else HEADER
            if n <= start:
                break
            n -= start
            at = device.at(origin + k * size + start, n)
            if is_blank(device.buf, at, n) and not device.trusted:
                continue
            copy(page, start, device.buf, at, n)
            right = program(device, base + k * size, page, start, n)
            fill(page, start, n, 0xFF)
            if not right:
                return False
        if not self.sync():
            return False
        self.write_header(page, self.order[source], self.cover[source], copies, erases)
        right = program(device, base, page, 0, HEADER)
        fill(page, 0, HEADER, 0xFF)
        return right and self.sync()

    def sync(self):
        try:
            self.device.sync()
        except OSError:
            # Systems report such a failure once; the next sync would claim that all is well.
            self.unsafe = True
            return False
        return True

    # --- the order of the log ---

    def sector_of(self, order):
        """The sector in which records of *order* are now; -1: there is none any more."""
        near = self._near
        if self.order[near] == order:
            return near
        near = newest_upto(self.order, self.sectors, order)
        if near < 0 or self.order[near] + self.cover[near] < order:
            return -1
        self._near = near
        return near

    def sector_from(self, order):
        """The first sector of the log that has records of *order* or a later one; -1: none."""
        sector = self.sector_of(order)
        return sector if sector >= 0 else oldest_from(self.order, self.sectors, order)

    def sector_after(self, sector):
        """The next sector of the log; -1: none."""
        return oldest_from(self.order, self.sectors, self.order[sector] + self.cover[sector] + 1)


def _log2(n):
    k = 0
    while 1 << k < n:
        k += 1
    return k
