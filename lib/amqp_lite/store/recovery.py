"""What a start does with the octets it finds on a device: which of them are the log.

Every octet is read once, and those of the last sector twice. Cells that a power cut left half
programmed may read differently each time, so nothing is believed that was not made solid first,
and what is not believed is made unreadable. The device is never formatted, and nothing here
raises for what it finds.
"""

from array import array

from ..compat import const, fill, is_blank, newest_upto, oldest_from, same, u16, u32
from .records import BODY, CHAIN, DEFINITION, PART, TYPE
from .ring import COMMIT, COUNTS, drop_chain
from .sectors import HEADER, MAX_ORDER, SLOT, program

_CHAINS = 16  # unfinished ones, at each place of the log, that are noticed
_READINGS = const(24)  # of cells that may read differently each time: hundreds of them
_ZERO = b"\0"
_UNSETTLED = const(0)  # slots of the header, whose bits of the bitmap are free for this
_SETTLED = const(1)


class Recovery:
    """
    ring     a new Ring
    visitor  message(ring, share) is called for each pending share of each message in the order of
             the log, but for those of transactions that the cut came just behind: they are last;
             definition(ring) for each definition; settled(ring, share) for a share given to
             message() that such a transaction settled. They may read() the parsed record
    """

    def __init__(self, ring, visitor):
        self.ring = ring
        self.visitor = visitor
        self.foreign = 0  # sectors that hold neither a header nor nothing
        self.damaged = 0  # places in the log where no record could be read
        self.records = 0  # pending ones
        self._chain_order = array("I", [0] * _CHAINS)
        self._chain_slot = array("H", [0] * _CHAINS)
        self._chain_octets = array("I", [0] * _CHAINS)
        self._chains_missed = False
        self._commits = []  # places of pending commit records, then (first part's place, place)
        # Places of the parts that did not count when they were scanned. Torn cells may say
        # otherwise later; the visitor shall get each part once.
        self._open = []

    def run(self):
        """Read the device. The ring is ready then."""
        ring = self.ring
        self._read_headers()
        for sector in range(ring.sectors):
            if ring.order[sector] and (ring.cover[sector] or self._copies(sector)):
                self._heal_header(sector)
        for sector in range(ring.sectors):
            if ring.order[sector]:
                self._supersede(sector)
        newest = newest_upto(ring.order, ring.sectors, MAX_ORDER)
        if newest >= 0:
            ring.live[newest] = 1  # not free, but not read before the others are
        sector = oldest_from(ring.order, ring.sectors, 1)
        while sector >= 0:
            if sector == newest:
                newest = -1
                sector = self._settle(sector)
                if sector < 0:
                    break
            last = ring.order[sector] + ring.cover[sector]
            if last > ring.newest:
                ring.newest = last
                ring.turn = sector
            self._scan(sector)
            sector = ring.sector_after(sector)
        # Now that it is known which sectors are free: marks may make copies.
        commits = self._commits
        self._commits = []
        for order, slot in commits:
            self._go_by(order, slot)
        if self._open:
            self._drop_parts()
        for k in range(_CHAINS):
            if self._chain_order[k]:
                drop_chain(ring, self._chain_order[k], self._chain_slot[k])
        ring.mark()

    # --- sectors ---

    def _read_headers(self):
        ring = self.ring
        device = ring.device
        for sector in range(ring.sectors):
            base = sector * ring.sector_size
            for _ in range(2):
                at = device.at(base, HEADER)
                buf = device.buf
                if ring.is_header(buf, at):
                    ring.order[sector] = u32(buf, at + 4)
                    ring.cover[sector] = u16(buf, at + 2)
                    erases = buf[at + 9] << 16 | u16(buf, at + 10)
                    if erases > ring.worn:
                        ring.worn = erases
                    break
        for sector in range(ring.sectors):
            if ring.order[sector]:
                continue
            at = device.at(sector * ring.sector_size, HEADER)
            dead = True
            for i in range(at, at + HEADER):
                if device.buf[i]:
                    dead = False
            if not dead and not is_blank(device.buf, at, HEADER):
                self.foreign += 1
            # Not believed once, never believed again. Zeros neither: the cut may have come while
            # they were programmed.
            if not dead or not device.trusted:
                ring.kill(sector)

    def _copies(self, sector):
        ring = self.ring
        at = ring.device.at(sector * ring.sector_size, HEADER)
        return ring.device.buf[at + 8]

    def _heal_header(self, sector):
        """Make the header of a copy solid: its sources go once it is believed."""
        ring = self.ring
        self._solidify(sector * ring.sector_size, 0, HEADER)
        return self._is_sound(sector)

    def _is_sound(self, sector):
        """Read a solid header once more. False: it is none, and never again."""
        ring = self.ring
        at = ring.device.at(sector * ring.sector_size, HEADER)
        buf = ring.device.buf
        if ring.is_header(buf, at):
            ring.order[sector] = u32(buf, at + 4)
            ring.cover[sector] = u16(buf, at + 2)
            return True
        ring.order[sector] = 0
        ring.kill(sector)
        return False

    def _solidify(self, base, i, n):
        """Program *n* octets of the page at *base* from *i* as they read."""
        ring = self.ring
        device = ring.device
        page = ring.side.page
        right = False
        for _ in range(_READINGS):
            at = device.at(base + i, n)
            if right and same(device.buf, at, page, i, n):
                continue
            for k in range(n):
                page[i + k] &= device.buf[at + k]
            right = program(device, base, page, i, n)
        if not right:
            ring.faults += 1
        fill(page, i, n, 0xFF)

    def _settle(self, sector):
        """Decide once and for all what the cut has left in the last *sector* of the log.

        It came while a page was programmed: the last one that holds anything, or the one behind
        it. What cannot be read now is made unreadable, but a cut in that may leave a record whose
        ones are unsure: then only a copy of the sector is solid. Bits of the bitmap that belong
        to no slot say that this has begun, and that it is done.

        The sector it is in now; -1: not even its header is sound.
        """
        ring = self.ring
        base = sector * ring.sector_size
        if not ring.device.trusted and not ring.cover[sector]:
            if ring.is_pending(sector, _SETTLED):
                order = ring.order[sector]
                if not ring.is_pending(sector, _UNSETTLED) and ring.copy_sector(sector, False):
                    sector = ring.sector_of(order)
                    base = sector * ring.sector_size
                elif not self._settle_here(sector):
                    ring.live[sector] = 0
                    return -1
                self._clear(base, _SETTLED)
        ring.live[sector] = 0
        return sector

    def _settle_here(self, sector):
        ring = self.ring
        per_page = ring.page_size // SLOT
        base = sector * ring.sector_size
        last = ring.slots - 1
        while last > 0 and self._is_empty(sector, last):
            last -= 1
        torn = last // per_page * per_page
        self._solidify(base + torn * SLOT, 0, ring.page_size)
        if not self._is_sound(sector):
            return False
        self._clear(base, _UNSETTLED)
        side = ring.side
        end = min(torn + 2 * per_page, ring.slots)
        slot = ring.first
        start = -1  # of what cannot be read
        while slot < end:
            if ring.parse(sector, slot):
                slot += ring.used
                start = -1
                side.flush()
                continue
            if start < 0 or slot == torn:
                if start >= 0:
                    self._zero(base, start)
                start = slot
                side.start(base + slot // per_page * ring.page_size, slot % per_page * SLOT)
            if not self._is_empty(sector, slot):
                end = ring.slots  # it may go on behind pages that are its own 0xFF
            if slot >= torn:
                side.put(_ZERO, 0, 1)
                side.skip(SLOT - 1)
            slot += 1
        side.flush()
        return True

    def _clear(self, base, bit):
        """Clear one of the first 8 bits of the bitmap."""
        device = self.ring.device
        page = self.ring.side.page
        page[HEADER] = device.buf[device.at(base + HEADER, 1)] & ~(0x80 >> bit)
        if not program(device, base, page, HEADER, 1):
            self.ring.faults += 1
        page[HEADER] = 0xFF

    def _zero(self, base, slot):
        """Make the record unreadable that begins at *slot*."""
        ring = self.ring
        address = base + slot * SLOT
        i = address & ring.page_size - 1
        ring.side.start(address - i, i)
        ring.side.put(_ZERO, 0, 1)
        ring.side.flush()

    def _supersede(self, sector):
        """Take the sources of the copy in *sector* out of the log."""
        ring = self.ring
        order = ring.order[sector]
        cover = ring.cover[sector]
        copies = self._copies(sector)
        if not cover and not copies:
            return
        for other in range(ring.sectors):
            first = ring.order[other]
            if other == sector or not order <= first <= order + cover:
                continue
            if first == order and ring.cover[other] == cover:
                if copies - self._copies(other) & 0xFF >= 0x80:
                    continue  # that one is the later copy
            elif first + ring.cover[other] > order + cover:
                continue
            ring.order[other] = 0
            ring.kill(other)

    # --- records ---

    def _scan(self, sector):
        ring = self.ring
        self._heal_marks(sector)
        slot = ring.first
        torn = False
        while slot < ring.slots:
            if not ring.parse(sector, slot):
                following = ring.blank_end(slot)
                if following == slot + 1 and not torn and not ring.device.trusted:
                    torn = not self._is_empty(sector, slot)
                    if torn and not self._is_zeroed(sector, slot):
                        self.damaged += 1
                slot = following
                continue
            torn = False
            used = ring.used
            kind = ring.kind & TYPE
            if ring.is_needed():
                ring.live[sector] += used
                self.records += 1
                if kind == BODY:
                    self._note_part()
                elif kind == DEFINITION:
                    self.visitor.definition(ring)
                elif not kind:
                    self._commits.append((ring.at_order, ring.at_slot))
                elif not ring.is_open():
                    self._visit(sector, slot)
                else:
                    self._open.append((ring.at_order, ring.at_slot))
            slot += used

    def _visit(self, sector, slot):
        """Give the visitor the parsed message, which is there."""
        ring = self.ring
        if not ring.kind & CHAIN or self._is_whole():
            for share in range(ring.shares):
                if ring.is_pending(sector, slot + share):
                    self.visitor.message(ring, share)

    def _is_empty(self, sector, slot):
        """Whether nothing was written to *slot*, but to make it unreadable perhaps."""
        ring = self.ring
        at = ring.device.at(sector * ring.sector_size + slot * SLOT, SLOT)
        octet = ring.device.buf[at]
        return (octet == 0xFF or not octet) and is_blank(ring.device.buf, at + 1, SLOT - 1)

    def _is_zeroed(self, sector, slot):
        ring = self.ring
        at = ring.device.at(sector * ring.sector_size + slot * SLOT, 1)
        return not ring.device.buf[at]

    def _heal_marks(self, sector):
        """Make solid what reads as done: a torn mark shall not come back in a later start."""
        ring = self.ring
        base = sector * ring.sector_size
        at = ring.device.at(base + HEADER, ring.bitmap)
        if not is_blank(ring.device.buf, at, ring.bitmap):
            self._solidify(base, HEADER, ring.bitmap)

    # --- transactions ---

    def _go_by(self, order, slot):
        """Do what the commit record at that place says, as far as the cut has prevented it."""
        ring = self.ring
        ring.locate(order, slot)
        rows = bytearray(ring.size)
        ring.read(0, rows, 0, len(rows))
        place = (order, slot)
        first = (u32(rows, 0), u16(rows, 4))
        count = 0
        counts = False
        for _ in self._parts(first, place):
            count += 1
            if not ring.is_open():
                counts = True
        if count != u16(rows, 6) and not counts:
            # It was programmed in the same page as a part, and that one not as a whole.
            ring.ack(order, slot, 0)
            ring.mark()
            return
        self._commits.append((first, place))
        for sector, at in self._parts(first, place):
            part = (ring.at_order, ring.at_slot)
            if part in self._open and ring.is_needed():
                self._visit(sector, at)
            ring.ack(part[0], part[1], COUNTS)
        ring.mark()  # or those settled now might count no more
        for i in range(8, len(rows), 8):
            self._settle_share(u32(rows, i), u16(rows, i + 4), u16(rows, i + 6))
        ring.ack(order, slot, COMMIT)
        ring.mark()

    def _parts(self, first, end):
        """Parse all parts of transactions from the place *first* to *end*: (sector, slot)."""
        ring = self.ring
        sector = ring.sector_from(first[0])
        while sector >= 0 and ring.order[sector] <= end[0]:
            order = ring.order[sector]
            slot = ring.first
            while slot < ring.slots:
                if not ring.parse(sector, slot):
                    slot = ring.blank_end(slot)
                    continue
                used = ring.used
                if ring.kind & PART and ring.kind & TYPE:
                    if first <= (ring.at_order, ring.at_slot) < end:
                        yield sector, slot
                        sector = ring.sector_of(order)  # a mark may have moved it
                slot += used
            sector = ring.sector_after(sector)

    def _counts(self, place):
        """Whether the open part at *place* is of a transaction that was committed."""
        for first, end in self._commits:
            if first <= place < end:
                return True
        return False

    def _settle_share(self, order, slot, share):
        ring = self.ring
        if not ring.locate(order, slot) or share >= ring.shares:
            return
        if ring.is_open() and not self._counts((order, slot)):
            return
        chain = (ring.chain_order, ring.chain_slot) if ring.kind & CHAIN else None
        if chain and chain in zip(self._chain_order, self._chain_slot):
            return  # the visitor did not get it
        if ring.is_pending(ring.sector, ring.slot + share):
            self.visitor.settled(ring, share)
        # Also what reads as done, see Ring.mark().
        ring.ack(order, slot, share)
        if chain:
            ring.mark()
            if not ring.locate(order, slot) or not ring.is_needed():
                drop_chain(ring, chain[0], chain[1])

    def _drop_parts(self):
        """Be done with parts whose transaction was not committed."""
        ring = self.ring
        for _ in self._parts(self._open[0], (MAX_ORDER + 1, 0)):
            place = (ring.at_order, ring.at_slot)
            if place not in self._open or not ring.is_needed() or self._counts(place):
                continue
            self.records -= 1
            chain = (ring.chain_order, ring.chain_slot) if ring.kind & CHAIN else None
            for share in range(ring.shares):
                ring.ack(place[0], place[1], share)
            if chain:
                drop_chain(ring, chain[0], chain[1])

    # --- bodies in parts ---

    def _note_part(self):
        ring = self.ring
        k = self._chain()
        if k < 0:
            self._chains_missed = True
        else:
            self._chain_octets[k] += ring.size

    def _is_whole(self):
        """Whether all parts of the parsed message were found; else they are dropped later.

        Its marks and theirs may have been cut in the middle.
        """
        k = self._chain()
        if k < 0:
            return True  # as far as is known
        if self._chain_octets[k] != self.ring.chain_size and not self._chains_missed:
            return False
        self._chain_order[k] = 0
        return True

    def _chain(self):
        """The number of the parsed record's chain, a new one perhaps; -1: too many."""
        ring = self.ring
        empty = -1
        for k in range(_CHAINS):
            if self._chain_order[k] == ring.chain_order and self._chain_slot[k] == ring.chain_slot:
                return k
            if not self._chain_order[k]:
                empty = k
        if empty >= 0:
            self._chain_order[empty] = ring.chain_order
            self._chain_slot[empty] = ring.chain_slot
            self._chain_octets[empty] = 0
        return empty
