"""All that a ring holds, for the commands of ring.py.

The ring is read as the next start of a broker would read it, in a private view of the file; one
pass over the log follows, over the octets as they are.
"""

import struct

from amqp_lite.broker.bodies import Bodies, Chain, Cursor
from amqp_lite.broker.broker import Broker
from amqp_lite.broker.durable import Durable
from amqp_lite.compat import is_blank, u16, u32
from amqp_lite.convert import find_body, to_v091
from amqp_lite.limits import complete
from amqp_lite.log import log
from amqp_lite.store.records import BODY, CHAIN, DEFINITION, MESSAGE, TAG, TYPE
from amqp_lite.store.recovery import Recovery
from amqp_lite.store.ring import Ring
from amqp_lite.store.sectors import HEADER, MAX_ORDER, SLOT
from amqp_lite.v091.codec import match_headers, read_table, write_table
from amqp_lite.v091.properties import read_properties

from .errors import CommandError

TICK_MS = 16  # the unit of the store's clock, see broker/durable.py
CLOCK_MASK = 0x3FFFFFFF
OVERWRITTEN = "a broker has overwritten a message while it was read: try again"
_CLOCK = 0x43  # a definition that is the clock
_EXPIRES = 0x8000  # in the first number of a message
_FOR_EVER = 0xFFFFFFFF
_FILE_PAGE = 4096  # octets of a page of a gateway's file; flash has smaller ones
_PIECE = 49152  # octets of a body in memory at once; a multiple of 3, for base64

# What a Gap is.
DAMAGED = "damaged"
CUT = "cut off"
SETTLED = "cut off and settled"
UNSURE = "cut off or older"


class Gap:
    """Slots that hold octets and no record that can be read."""

    def __init__(self, sector, slot, end):
        self.sector = sector
        self.slot = slot
        self.end = end  # the slot behind
        self.kind = DAMAGED


class Message:
    """What a MESSAGE record says, without its body; drawn in broker/durable.py."""

    def __init__(self, ring):
        size = u16(_payload(ring, 0, 2), 0)
        self.body_at = size & ~_EXPIRES
        octets = _payload(ring, 0, self.body_at)
        self.born = self.ttl_ms = None  # by the store's clock, in its units; milliseconds
        at = 2
        if size & _EXPIRES:
            self.born, ttl_ms = struct.unpack_from(">II", octets, 2)
            self.ttl_ms = None if ttl_ms == _FOR_EVER else ttl_ms
            at = 10
        self.exchange, at = _short(octets, at)
        self.routing_key, at = _short(octets, at)
        self.octets = octets[at:]  # properties of 0-9-1, or sections of 1.0
        self.is_v10 = ring.kind & TAG
        self.in_parts = ring.kind & CHAIN
        self.body_size = ring.chain_size if self.in_parts else ring.size - self.body_at


class Content:
    """
    image  see image.py

    The attributes from `useless` on count what records() has passed by.
    """

    def __init__(self, image):
        self.image = image
        self.broker, order, cover, self._count = _start(image)
        self.ring = ring = Ring(image.device())
        ring.order[:] = order
        ring.cover[:] = cover
        for sector in range(ring.sectors):
            ring.live[sector] = order[sector] > 0  # next_record() passes by the others
        self._bodies = Bodies(ring, 1, None)
        self.exchanges = [e for e in self.broker.exchanges.values() if e.defined_order]
        self.bindings = [
            b for e in self.broker.exchanges.values() for b in e.bindings if b.defined_order
        ]
        self._defined = {
            (item.defined_order, item.defined_slot)
            for item in [*self.broker.queues.values(), *self.exchanges, *self.bindings]
        }
        self.useless = 0  # definitions that a later one replaced, or that refer to nothing
        self.read = 0  # records
        self.messages = 0  # of them, with those that are done
        self.message_slots = 0  # of them and the parts of their bodies
        self.clock = None  # the last time found, in the clock's units
        self.using = 0  # sectors with something pending
        self.gaps = []
        self.bodies = {}  # (order, slot) of the first part: octets of parts without a message
        self.incomplete = []  # (order, slot, octets found, octets in all) of messages
        self.in_file = False  # else it is flash, or segments
        # Of the sectors that have a last page behind their records: in how many it is blank.
        self._erased = self._unerased = 0

    # --- the log ---

    def records(self):
        """Parse each record in the order of the log; yields (sector, slot) of the pending ones.

        The record is in `ring` then; others may be parsed before the next one is asked for.
        """
        ring = self.ring
        sector = ring.sector_from(1)
        while sector >= 0:
            pending = False
            for slot in self._slots(sector):
                self.read += 1
                needed = self._is_needed(sector, slot)
                pending |= needed
                self._note(needed)
                if needed:
                    yield (sector, slot)
            self.using += pending
            sector = ring.sector_after(sector)
        self._judge()

    def _is_needed(self, sector, slot):
        """Whether the parsed record is pending for anybody, as a start would see it."""
        return any(self.is_pending(sector, slot, share) for share in range(self.ring.shares))

    def is_pending(self, sector, slot, share):
        """The same for one of its queues."""
        ring = self.ring
        place = (ring.at_order, ring.at_slot)
        if not ring.is_pending(sector, slot + share) or (place, share) in self._count.done:
            return False
        # A part of a transaction that was not committed is as if it were not there.
        return not ring.is_open() or not ring.kind & TYPE or place in self._count.parts

    def _slots(self, sector):
        """The slots of the records in *sector*, each parsed. What is between them goes to `gaps`.

        One follows the other without space: what comes before a record that can be read was one.
        """
        ring = self.ring
        gaps = []
        slot = end = ring.first
        while slot < ring.slots:
            if not ring.parse(sector, slot):
                slot = ring.blank_end(slot)
                continue
            if slot > end:
                # A broker that runs may have written it since.
                if ring.parse(sector, end):
                    slot = end
                else:
                    gaps.append(Gap(sector, end, slot))
                    ring.parse(sector, slot)
            end = slot + ring.used
            yield slot
            slot = end
        if end < ring.slots:
            self._look_behind(sector, end, gaps)
        if self._is_same(sector):
            self.gaps += gaps

    def _look_behind(self, sector, slot, gaps):
        """Look at what is in *sector* from *slot* on, where its records end."""
        ring = self.ring
        per_page = ring.page_size // SLOT
        if slot <= ring.slots - per_page:
            if self._empty_from(sector, ring.slots - per_page) == ring.slots - per_page:
                self._erased += 1
            else:
                self._unerased += 1
        end = self._empty_from(sector, slot)
        if end > slot:
            gap = Gap(sector, slot, end)
            gap.kind = CUT
            gaps.append(gap)

    def _empty_from(self, sector, slot):
        """The slot from *slot* on from which on nothing was written to *sector*.

        A start turns the first octet of such ones to 0, where a cut may have left something.
        """
        ring = self.ring
        buf = ring.device.buf
        base = sector * ring.sector_size
        end = ring.slots
        while end > slot:
            at = base + (end - 1) * SLOT
            if buf[at] not in (0, 0xFF) or not is_blank(buf, at + 1, SLOT - 1):
                break
            end -= 1
        return end

    def _is_same(self, sector):
        """Whether *sector* is what it was in the beginning: a broker may run."""
        ring = self.ring
        base = sector * ring.sector_size
        buf = ring.device.buf
        return ring.is_header(buf, base) and u32(buf, base + 4) == ring.order[sector]

    def _note(self, needed):
        """Count the parsed record."""
        ring = self.ring
        kind = ring.kind & TYPE
        chain = (ring.chain_order, ring.chain_slot)
        if kind == MESSAGE:
            self.messages += 1
            self.message_slots += ring.used
        if kind == BODY:
            self.message_slots += ring.used
            if needed:
                self.bodies[chain] = self.bodies.get(chain, 0) + ring.size
        elif kind == DEFINITION and needed:
            octets = _payload(ring, 0, min(5, ring.size))
            if octets[0] == _CLOCK:
                self.clock = u32(octets, 1)
            elif (ring.at_order, ring.at_slot) not in self._defined:
                self.useless += 1
        elif ring.kind & CHAIN and needed:
            found = self.bodies.pop(chain, 0)
            if found != ring.chain_size:
                self.incomplete.append((ring.at_order, ring.at_slot, found, ring.chain_size))

    def is_whole(self):
        """Whether all of the message found last is there."""
        place = (self.ring.at_order, self.ring.at_slot)
        return not self.incomplete or self.incomplete[-1][:2] != place

    def _judge(self):
        """Say what it is that lies behind the records of each sector, as far as can be told."""
        ring = self.ring
        self.in_file = not self.image.in_segments and (
            ring.page_size >= _FILE_PAGE or self._unerased > self._erased
        )
        newest = max(range(ring.sectors), key=lambda sector: ring.order[sector])
        kept = []
        for gap in self.gaps:
            if gap.kind == CUT:
                octet = ring.device.buf[gap.sector * ring.sector_size + gap.slot * SLOT]
                if self.in_file:
                    # An erase leaves the octets of earlier records there.
                    gap.kind = UNSURE
                    if gap.sector != newest or not octet & 0x80 or not octet & TYPE:
                        continue
                elif not octet:
                    gap.kind = SETTLED
                elif gap.sector != newest and not self.image.in_segments:
                    gap.kind = DAMAGED  # at a start it would have been made unreadable
            kept.append(gap)
        self.gaps = kept

    # --- sectors ---

    def erase_counts(self):
        """Those of the sectors that say one."""
        ring = self.ring
        buf = ring.device.buf
        bases = range(0, ring.sectors * ring.sector_size, ring.sector_size)
        return [buf[at + 9] << 16 | u16(buf, at + 10) for at in bases if ring.is_header(buf, at)]

    def bad_headers(self):
        """The sectors that have none that can be read, nor nothing: a list of (sector, records).

        records  pending ones in it, which can be read with an order that is missing in the log
        """
        ring = self.ring
        buf = ring.device.buf
        rows = []
        for sector in range(ring.sectors):
            at = sector * ring.sector_size
            header = bytes(buf[at : at + HEADER])
            if (
                not ring.order[sector]
                and not ring.is_header(buf, at)
                and header not in (b"\0" * HEADER, b"\xff" * HEADER)
            ):
                rows.append((sector, self._salvageable(sector, header)))
        return rows

    def _salvageable(self, sector, header):
        """How many pending records *sector* has, by the order in its bad *header* or a missing."""
        ring = self.ring
        used = {order for order in ring.order if order}
        first = max(1, min(used, default=1) - 1)
        behind = min(max(used, default=0) + 2, first + 4 * ring.sectors)
        orders = [(u32(header, 4), u16(header, 2))]
        orders += [(order, 0) for order in range(first, behind) if order not in used]
        count = 0
        for order, cover in orders:
            if not 0 < order <= MAX_ORDER:
                continue
            ring.order[sector] = order
            ring.cover[sector] = cover
            slot = ring.first
            if ring.parse(sector, slot):
                while slot < ring.slots:
                    if ring.parse(sector, slot):
                        count += ring.is_needed()
                        slot += ring.used
                    else:
                        slot = ring.blank_end(slot)
                break
        ring.order[sector] = ring.cover[sector] = 0
        return count

    def where(self, gap):
        """The octets of *gap* in the file."""
        base = self.image.offset + gap.sector * self.ring.sector_size
        return base + gap.slot * SLOT, base + gap.end * SLOT - 1

    # --- messages ---

    def name_of(self, number):
        """The name of the queue that has this *number*; None when it has no definition."""
        queue = self.broker.numbered(number)
        return None if queue is None else queue.name

    def properties(self, message):
        """Those of *message*, which was parsed last, as 0-9-1 has them; another record is then."""
        octets = message.octets
        if message.is_v10:
            octets = to_v091(octets, self._span(message) is None)
        return read_properties(octets, 0)

    def body(self, message):
        """The pieces of the body of *message*, which was parsed last; another record is then.

        As 0-9-1 has it. All but the last one have a multiple of 3 octets, at most _PIECE.
        """
        span = None
        if message.is_v10:
            sector, slot = self.ring.sector, self.ring.slot
            span = self._span(message)
            self.ring.parse(sector, slot)
        return self._stored(message) if span is None else _cut(self._stored(message), *span)

    def _span(self, message):
        """See find_body() of convert.py."""
        ring = self.ring
        sector, slot = ring.sector, ring.slot

        def read(i, n):
            ring.parse(sector, slot)
            return b"".join(_cut(self._stored(message), i, n))

        return find_body(read, message.body_size)

    def _stored(self, message):
        """The pieces of the body as it is stored."""
        ring = self.ring
        if not message.in_parts:
            at = message.body_at
            return [_payload(ring, i, min(_PIECE, ring.size - i))
                    for i in range(at, ring.size, _PIECE)]  # fmt: skip
        chain = Chain()
        chain.order = ring.chain_order
        chain.slot = ring.chain_slot
        chain.size = ring.chain_size
        return self._parts(chain)

    def _parts(self, chain):
        cursor = Cursor()
        octets = bytearray(_PIECE)
        left = chain.size
        while left:
            n = min(left, _PIECE)
            if not self._bodies.read(cursor, chain, n, octets, 0):
                raise CommandError(OVERWRITTEN, 1)
            left -= n
            yield bytes(octets[:n])


def _cut(pieces, start, size):
    """*size* octets from *start* on, in pieces as body() has them."""
    kept = b""
    for piece in pieces:
        part = piece[start : start + size]
        start -= min(start, len(piece))
        size -= len(part)
        kept += part
        n = len(kept) // 3 * 3 if size else len(kept)
        if n:
            yield kept[:n]
        kept = kept[n:]
        if not size:
            return


class _Count:
    """A visitor for what a Recovery finds."""

    def __init__(self):
        self.definitions = 0
        self.parts = set()  # places of parts of committed transactions
        self.done = set()  # (place, share) of what those have settled

    def message(self, ring, share):
        if ring.is_open():
            self.parts.add((ring.at_order, ring.at_slot))

    def settled(self, ring, share):
        self.done.add(((ring.at_order, ring.at_slot), share))

    def definition(self, ring):
        self.definitions += 1


def _start(image):
    """Start a broker on *image*: it with its definitions, the order and cover of sectors, and
    what a start counts.
    """
    count = _Count()
    Recovery(Ring(image.device()), count).run()
    log.configure("error", 0)
    most = count.definitions + 1
    # Memory for no message, and for any definition.
    numbers = {"receive_buffer": 65536, "messages": 1, "blocks": 1, "deliveries": 1,
               "consumers": 1, "routes": 1, "queues": most, "bindings": most,
               "exchanges": most + 6}  # fmt: skip
    store = Durable(Ring(image.device()), write_table, read_table, 1)
    broker = Broker(complete(numbers), store, match_headers)
    broker.restore()
    return broker, store.ring.order, store.ring.cover, count


def _payload(ring, i, n):
    octets = bytearray(n)
    ring.read(i, octets, 0, n)
    return bytes(octets)


def _short(octets, i):
    """The short string at *i* and the index behind it."""
    end = i + 1 + octets[i]
    return octets[i + 1 : end], end
