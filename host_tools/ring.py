"""`amqp-lite ring ...`: what a ring holds, whether all of it can be read, and its messages.

The ring is read as the next start of a broker would read it, from a private copy of what differs:
see image.py. One pass over the log follows, over the octets as they are.
"""

import base64
import codecs
import json
import math
import os
import struct
import sys

from amqp_lite.broker.broker import Broker
from amqp_lite.broker.durable import Chain, Durable
from amqp_lite.broker.exchange import KINDS
from amqp_lite.compat import is_blank, u16, u32
from amqp_lite.limits import complete
from amqp_lite.log import log
from amqp_lite.store.recovery import Recovery
from amqp_lite.store.ring import BODY, CHAIN, DEFINITION, MESSAGE, TYPE, Ring
from amqp_lite.store.sectors import HEADER, MAX_ORDER, SLOT
from amqp_lite.v091.codec import match_headers, read_table, write_table
from amqp_lite.v091.properties import read_properties

from .errors import CommandError
from .image import open_image

_ENDURANCE = 100_000  # erases of a sector, what makers of NOR flash promise at least
_RETENTION = 20  # years, likewise
_FILE_PAGE = 4096  # octets of a page of a gateway's file; flash has smaller ones
_PIECE = 49152  # octets of a body in memory at once; a multiple of 3, for base64
_CLOCK = 0x43  # a definition that is the store's clock, see broker/durable.py
_TICK_MS = 16  # its unit
_CLOCK_MASK = 0x3FFFFFFF
_FOR_EVER = 0xFFFFFFFF
_EXPIRES = 0x8000

# What a Gap is.
_DAMAGED = "damaged"
_CUT = "cut off"
_SETTLED = "cut off and settled"
_UNSURE = "cut off or older"


class Gap:
    """Slots that hold octets and no record that can be read."""

    def __init__(self, sector, slot, end):
        self.sector = sector
        self.slot = slot
        self.end = end  # the slot behind
        self.kind = _DAMAGED


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
        self.properties = read_properties(octets, at)
        self.in_parts = ring.kind & CHAIN
        self.body_size = ring.chain_size if self.in_parts else ring.size - self.body_at


class Content:
    """
    image  see image.py

    records() has to be exhausted before the attributes below `definitions` say anything.
    """

    def __init__(self, image):
        self.image = image
        self.broker, order, cover = _start(image)
        self.ring = ring = Ring(image.device())
        ring.order[:] = order
        ring.cover[:] = cover
        for sector in range(ring.sectors):
            ring.live[sector] = order[sector] > 0  # next_record() passes by the others
        self._store = Durable(ring, write_table, read_table, 1)
        self.exchanges = [e for e in self.broker.exchanges.values() if e.defined_order]
        self.bindings = [
            b for e in self.broker.exchanges.values() for b in e.bindings if b.defined_order
        ]
        self._defined = {
            (item.defined_order, item.defined_slot)
            for item in [*self.broker.queues.values(), *self.exchanges, *self.bindings]
        }
        self.definitions = len(self._defined)
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
        self._erased = 0
        self._unerased = 0

    # --- the log ---

    def records(self):
        """Parse each record in the order of the log; yields True when it is pending.

        The record is in `ring` then; what is done with it in between may parse others.
        """
        ring = self.ring
        sector = ring.sector_from(1)
        while sector >= 0:
            pending = False
            for slot in self._slots(sector):
                self.read += 1
                needed = bool(ring.is_needed())
                pending |= needed
                self._note(needed)
                if needed:
                    yield (sector, slot)
            self.using += pending
            sector = ring.sector_after(sector)
        self._judge()

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
        buf = ring.device.buf
        base = sector * ring.sector_size
        per_page = ring.page_size // SLOT
        if slot <= ring.slots - per_page:
            if is_blank(buf, base + ring.sector_size - ring.page_size, ring.page_size):
                self._erased += 1
            else:
                self._unerased += 1
        if not is_blank(buf, base + slot * SLOT, (ring.slots - slot) * SLOT):
            end = ring.slots
            while is_blank(buf, base + (end - 1) * SLOT, SLOT):
                end -= 1
            gap = Gap(sector, slot, end)
            gap.kind = _CUT
            gaps.append(gap)

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
        """Say of what lies behind the records of a sector what that is."""
        ring = self.ring
        self.in_file = not self.image.in_segments and (
            ring.page_size >= _FILE_PAGE or self._unerased > self._erased
        )
        newest = max(range(ring.sectors), key=lambda sector: ring.order[sector])
        kept = []
        for gap in self.gaps:
            if gap.kind == _CUT:
                octet = ring.device.buf[gap.sector * ring.sector_size + gap.slot * SLOT]
                if self.in_file:
                    # An erase leaves the octets of earlier records there.
                    gap.kind = _UNSURE
                    if gap.sector != newest or not octet & 0x80 or not octet & TYPE:
                        continue
                elif not octet:
                    gap.kind = _SETTLED
                elif gap.sector != newest and not self.image.in_segments:
                    gap.kind = _DAMAGED  # at a start it would have been made unreadable
            kept.append(gap)
        self.gaps = kept

    # --- sectors ---

    def erase_counts(self):
        """Those of the sectors that say one."""
        ring = self.ring
        buf = ring.device.buf
        bases = range(0, ring.sectors * ring.sector_size, ring.sector_size)
        return [
            buf[at + 9] << 16 | u16(buf, at + 10) for at in bases if ring.is_header(buf, at)
        ]

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
        ring = self.ring
        used = [order for order in ring.order if order]
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

    def body(self, message):
        """The pieces of the body of *message*, which was parsed last; all have _PIECE octets but
        the last one. What is parsed is another record then."""
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
        cursor = _Cursor()
        octets = bytearray(_PIECE)
        left = chain.size
        while left:
            n = min(left, _PIECE)
            if not self._store.read_body(cursor, chain, n, octets, 0):
                raise CommandError("the ring was overwritten while it was read; once more", 1)
            left -= n
            yield bytes(octets[:n])


class _Cursor:
    part_order = part_slot = part_at = 0


class _Count:
    """A visitor for what a Recovery finds."""

    def __init__(self):
        self.definitions = 0

    def message(self, ring, share):
        pass

    def definition(self, ring):
        self.definitions += 1


def _start(image):
    """Start a broker on *image*: it with its definitions, and the order and cover of sectors."""
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
    return broker, store.ring.order, store.ring.cover


def _payload(ring, i, n):
    octets = bytearray(n)
    ring.read(i, octets, 0, n)
    return bytes(octets)


def _short(octets, i):
    """The short string at *i* and the index behind it."""
    end = i + 1 + octets[i]
    return octets[i + 1 : end], end


# --- show ---


def do_show(args):
    sys.stdout.reconfigure(errors="backslashreplace")
    with _open(args) as image:
        content = Content(image)
        queues = _count_queues(content)
        _print_sectors(args.file, content)
        _print_queues(content, queues)
        _print_routes(content)
        _print_wear(content, args)


def _open(args):
    return open_image(args.file, args.offset, args.size)


def _count_queues(content):
    """By the number of a queue: [messages, octets of their bodies, birth of the oldest]."""
    ring = content.ring
    queues = {queue.number: [0, 0, None] for queue in content.broker.queues.values()}
    for sector, slot in content.records():
        if ring.kind & TYPE != MESSAGE or not content.is_whole():
            continue
        message = Message(ring)
        for share in range(ring.shares):
            if ring.is_pending(sector, slot + share):
                row = queues.setdefault(ring.queue_of(share), [0, 0, message.born])
                if not row[0]:
                    row[2] = message.born
                row[0] += 1
                row[1] += message.body_size
        if message.born is not None:
            content.clock = message.born  # later in the log is later
    return queues


def _print_sectors(path, content):
    ring = content.ring
    image = content.image
    kind = "segments" if image.in_segments else "a file" if content.in_file else "flash"
    print(f"{path}: a ring in {kind}, {_many(ring.sectors, 'sector')} of {ring.sector_size} octets"
          f" in pages of {ring.page_size}")  # fmt: skip
    if image.offset or image.offset + image.size < os.fstat(image.file.fileno()).st_size:
        print(f"it lies in octets {image.offset} to {image.offset + image.size - 1} of the file")
    bad = len(content.bad_headers())
    print(f"{content.using} hold what waits, {ring.sectors - content.using - bad} are free,"
          f" {bad} have a header that cannot be read")  # fmt: skip
    for kind, text in (
        (_DAMAGED, "could not be read: try `ring verify`"),
        (_CUT, "cut off while it was written"),
        (_SETTLED, "cut off earlier, and settled by a start since"),
    ):
        count = sum(gap.kind == kind for gap in content.gaps)
        if count:
            print(f"{_many(count, 'place')} {text}")
    if content.incomplete:
        print(f"{_many(len(content.incomplete), 'message')} without the whole body, not counted")
    if content.bodies:
        octets = sum(content.bodies.values())
        print(f"{_many(len(content.bodies), 'unfinished body', 'unfinished bodies')}"
              f" of {octets} octets, without a message")  # fmt: skip
    if content.useless:
        print(f"{_many(content.useless, 'definition')} that a later one replaced,"
              " or that refer to nothing")  # fmt: skip


def _print_queues(content, queues):
    rows = [("queue", "number", "messages", "octets", "oldest")]
    for number, (messages, octets, born) in queues.items():
        name = content.name_of(number)
        age = "-"
        if born is not None:
            age = _age(((content.clock - born) & _CLOCK_MASK) * _TICK_MS)
        name = "(no definition)" if name is None else _label(name)
        rows.append((name, number, messages, octets, age))
    print()
    if len(rows) == 1:
        print("no queues")
        return
    rows[1:] = sorted(rows[1:], key=lambda row: (row[0] == "(no definition)", row[0], row[1]))
    _print_table(rows, "<>>>>")
    if any(row[4] != "-" for row in rows[1:]):
        print("the age is known where messages expire; it leaves out the time the power was off")


def _print_routes(content):
    kinds = {number: name.decode() for name, number in KINDS.items()}
    if content.exchanges:
        rows = [("exchange", "type", "")]
        for item in content.exchanges:
            flags = ["auto-delete"] * item.auto_delete + ["internal"] * item.internal
            rows.append((_label(item.name), kinds.get(item.kind, item.kind), " ".join(flags)))
        print()
        _print_table(rows, "<<<")
    if content.bindings:
        rows = [("binding from", "to", "", "key", "")]
        for item in content.bindings:
            to = "exchange" if item.to_exchange else "queue"
            arguments = json.dumps(_plain(item.arguments)) if item.arguments else ""
            rows.append((_label(item.source.name), to, _label(item.destination.name),
                         _label(item.key), arguments))  # fmt: skip
        print()
        _print_table(rows, "<<<<<")


def _print_table(rows, sides):
    """Print *rows* of texts and numbers in columns, each to the side < or > in *sides*."""
    widths = [max(len(str(row[k])) for row in rows) for k in range(len(sides))]
    for row in rows:
        cells = [f"{cell!s:{side}{width}}" for cell, side, width in zip(row, sides, widths)]
        print("  ".join(cells).rstrip())


def _print_wear(content, args):
    ring = content.ring
    counts = content.erase_counts()
    mean = sum(counts) / len(counts)
    print()
    print(f"erases of a sector: lowest {min(counts)}, mean {mean:.1f}, highest {max(counts)},"
          f" of {_ENDURANCE} it endures")  # fmt: skip
    silent = ring.sectors - len(counts)
    if silent:
        print(f"({_many(silent, 'sector')} not counted: no header, as when new or emptied)")
    if args.messages_per_day is not None:
        if not content.messages:
            print("years left: unknown, no message is there to tell the size from")
            return
        slots = content.message_slots / content.messages
        erases = args.messages_per_day * slots / (ring.slots - ring.first)
        left = ring.sectors * (_ENDURANCE - mean)
        why = (f"for {args.messages_per_day:g} messages a day like those in the ring, which take"
               f" {slots * SLOT:.0f} octets of it each")  # fmt: skip
    elif args.days is not None:
        erases = max(counts) / args.days
        left = _ENDURANCE - max(counts)
        why = f"as the most worn sector had {max(counts)} erases in {args.days:g} days"
    else:
        print("years left: say how fast it wears, with --messages-per-day or --days in use")
        return
    years = max(left, 0) / erases / 365.25
    amount = f"{years:.1f}" if years < 1000 else "more than 1000"
    limit = f", but flash keeps its octets for {_RETENTION}" if years > _RETENTION else ""
    print(f"years left: {amount}{limit}\n({why})")
    if content.in_file:
        print("a disk levels its wear by itself: these are counts of the file's sectors")


# --- verify ---


def do_verify(args):
    sys.stdout.reconfigure(errors="backslashreplace")
    with _open(args) as image:
        content = Content(image)
        before = _written_at(image)
        for _ in content.records():
            pass
        ring = content.ring
        sectors = sum(order > 0 for order in ring.order)
        print(f"{args.file}: {_many(content.read, 'record')} read in {_many(sectors, 'sector')}"
              f" of {ring.sectors}")  # fmt: skip
        damaged = 0
        for gap in content.gaps:
            first, last = content.where(gap)
            slots = "slot %d" % gap.slot
            if gap.end - gap.slot > 1:
                slots = "slots %d to %d" % (gap.slot, gap.end - 1)
            done = ""
            if gap.kind == _DAMAGED:
                damaged += 1
                if not ring.is_pending(gap.sector, gap.slot):
                    done = ", which was done with"
            where = f"sector {gap.sector}, {slots}, octets {first:#x} to {last:#x}"
            print(f"{gap.kind}: {where}{done}")
        for sector, records in content.bad_headers():
            address = image.offset + sector * ring.sector_size
            damaged += records > 0
            what = "its header cannot be read, as after an erase that was cut off"
            if records:
                what = f"its header cannot be read, {_many(records, 'record')} behind it can"
            kind = _DAMAGED if records else "no header"
            print(f"{kind}: sector {sector}, octet {address:#x}: {what}")
        for order, slot, found, size in content.incomplete:
            damaged += 1
            print(f"{_DAMAGED}: the message of order {order}, slot {slot}:"
                  f" {found} of the {size} octets of its body are there")  # fmt: skip
        if content.bodies:
            print(f"unfinished: {_many(len(content.bodies), 'body', 'bodies')} without a message")
        print(f"{_many(damaged, 'place')} damaged" if damaged else "nothing is damaged")
        if _written_at(image) != before:
            print("it was written to meanwhile: a broker runs on it")
        return 1 if damaged else 0


def _written_at(image):
    return os.fstat(image.file.fileno()).st_mtime_ns


# --- export ---


def do_export(args):
    with _open(args) as image:
        content = Content(image)
        wanted = None
        if args.queue is not None:
            wanted = args.queue.encode("utf-8", "surrogateescape")
            if wanted not in content.broker.queues:
                names = ", ".join(sorted(map(_label, content.broker.queues))) or "none"
                raise CommandError(f"no queue '{args.queue}' in it, there are: {names}")
        ring = content.ring
        for sector, slot in content.records():
            if ring.kind & TYPE == MESSAGE and content.is_whole():
                _export(content, sector, slot, wanted)
        sys.stdout.flush()
        if content.incomplete:
            print(f"left out: {_many(len(content.incomplete), 'message')} without the whole body",
                  file=sys.stderr)  # fmt: skip
        damaged = sum(gap.kind == _DAMAGED for gap in content.gaps)
        if damaged:
            print(f"{_many(damaged, 'place')} could not be read: see `ring verify`",
                  file=sys.stderr)  # fmt: skip
        return 1 if content.incomplete or damaged else 0


def _export(content, sector, slot, wanted):
    """Print the parsed message once for each queue it waits in, or for *wanted* alone."""
    ring = content.ring
    order, position = ring.at_order, ring.at_slot
    message = Message(ring)
    shares = [
        (ring.queue_of(share), ring.tries(share))
        for share in range(ring.shares)
        if ring.is_pending(sector, slot + share)
    ]
    for number, tries in shares:
        name = content.name_of(number)
        if wanted is not None and name != wanted:
            continue
        fields = {
            "queue": None if name is None else _plain(name),
            "queue_number": number,
            "order": order,
            "slot": position,
            "tries": tries,
            "exchange": _plain(message.exchange),
            "routing_key": _plain(message.routing_key),
            "properties": _plain(message.properties),
        }
        if message.born is not None:
            fields["born_ms"] = message.born * _TICK_MS
        if message.ttl_ms is not None:
            fields["ttl_ms"] = message.ttl_ms

        def body():
            # The pieces before may be of another record.
            ring.parse(sector, slot)
            return content.body(message)

        _print_message(fields, body)


def _print_message(fields, body):
    """Print one line of JSON, and the body in it piece by piece, so that it never is in memory.

    body  function that returns the pieces anew
    """
    is_text = _is_text(body())
    fields["body_encoding"] = "string" if is_text else "base64"
    write = sys.stdout.write
    write(json.dumps(fields)[:-1] + ', "body": "')
    decode = codecs.getincrementaldecoder("utf-8")().decode
    for piece in body():
        if is_text:
            write(json.dumps(decode(piece))[1:-1])
        else:
            write(base64.b64encode(piece).decode())
    write('"}\n')


def _is_text(pieces):
    decode = codecs.getincrementaldecoder("utf-8")().decode
    try:
        for piece in pieces:
            decode(piece)
        decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True


def _plain(value):
    """*value* as JSON takes it: octets as text, those that are no UTF-8 as {"base64": ...}."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {
            # Those of properties are texts already.
            key if isinstance(key, str) else key.decode("utf-8", "backslashreplace"): _plain(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _label(name):
    """A name as text that a terminal can take."""
    text = name.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _many(n, one, many=None):
    return f"{n} {one}" if n == 1 else f"{n} {many or one + 's'}"


def _age(ms):
    """Milliseconds, rounded to what matters."""
    seconds = ms // 1000
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
