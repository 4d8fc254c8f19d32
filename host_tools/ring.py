"""`amqp-lite ring ...`: what a ring holds, whether all of it can be read, and its messages."""

import base64
import codecs
import contextlib
import json
import math
import os
import sys
import tempfile

from amqp_lite.broker.exchange import KINDS
from amqp_lite.store.records import MESSAGE, TYPE
from amqp_lite.store.sectors import SLOT

from .content import CLOCK_MASK, CUT, DAMAGED, OVERWRITTEN, SETTLED, TICK_MS, Content, Message
from .errors import CommandError
from .image import open_image

ENDURANCE = 100_000  # erases of a sector, what makers of NOR flash promise at least
_RETENTION = 20  # years, likewise
_READINGS = 5  # of a ring that a broker writes to, when something in it seems to be damaged
_CHANGED = "it was written to meanwhile: a broker runs on it"


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


@contextlib.contextmanager
def _open(args):
    """The image of the FILE, or of what is on the board; `file` then says so."""
    if (args.file is None) == (args.port is None):
        raise CommandError("name a FILE, or the --port of a board")
    with contextlib.ExitStack() as stack:
        path = args.file
        if args.port is not None:
            from .board_ring import fetch_ring  # late: files need no serial port

            folder = stack.enter_context(tempfile.TemporaryDirectory())
            path, args.file = fetch_ring(args.port, folder)
        yield stack.enter_context(open_image(path, args.offset, args.size))


def _count_queues(content):
    """By the number of a queue: [messages, octets of their bodies, birth of the oldest]."""
    ring = content.ring
    queues = {queue.number: [0, 0, None] for queue in content.broker.queues.values()}
    for sector, slot in content.records():
        if ring.kind & TYPE != MESSAGE or not content.is_whole():
            continue
        message = Message(ring)
        for share in range(ring.shares):
            if content.is_pending(sector, slot, share):
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
    print(f"{path}: a ring in {kind}, {many(ring.sectors, 'sector')} of {ring.sector_size} octets"
          f" in pages of {ring.page_size}")  # fmt: skip
    if image.offset or image.offset + image.size < os.fstat(image.file.fileno()).st_size:
        print(f"it lies in octets {image.offset} to {image.offset + image.size - 1} of the file")
    bad = content.bad_headers()
    print(f"{content.using} hold what waits, {ring.sectors - content.using - len(bad)} are free,"
          f" {len(bad)} have a header that cannot be read")  # fmt: skip
    lost = sum(records for _, records in bad)
    if lost:
        print(f"{many(lost, 'record')} behind such headers, not counted below")
    for kind, text in (
        (DAMAGED, "could not be read: try `ring verify`"),
        (CUT, "cut off while it was written"),
        (SETTLED, "cut off earlier, and settled by a start since"),
    ):
        count = sum(gap.kind == kind for gap in content.gaps)
        if count:
            print(f"{many(count, 'place')} {text}")
    if content.incomplete:
        print(f"{many(len(content.incomplete), 'message')} without the whole body, not counted")
    if content.bodies:
        octets = sum(content.bodies.values())
        print(f"{many(len(content.bodies), 'unfinished body', 'unfinished bodies')}"
              f" of {octets} octets, without a message")  # fmt: skip
    if content.useless:
        print(f"{many(content.useless, 'definition')} that a later one replaced,"
              " or that refer to nothing")  # fmt: skip


def _print_queues(content, queues):
    rows = [("queue", "number", "messages", "octets", "oldest")]
    for number, (messages, octets, born) in queues.items():
        name = content.name_of(number)
        oldest = "-"
        if born is not None:
            oldest = age(((content.clock - born) & CLOCK_MASK) * TICK_MS)
        name = "(no definition)" if name is None else _label(name)
        rows.append((name, number, messages, octets, oldest))
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
    print()
    if not counts:
        print("erases of a sector: unknown, no header says them")
        return
    mean = sum(counts) / len(counts)
    print(f"erases of a sector: lowest {min(counts)}, mean {mean:.1f}, highest {max(counts)},"
          f" of {ENDURANCE} it endures")  # fmt: skip
    silent = ring.sectors - len(counts)
    if silent:
        print(f"({many(silent, 'sector')} not counted: no header, as when new or emptied)")
    if args.messages_per_day is not None:
        if not content.messages:
            print("years left: unknown, no message is there to tell the size from")
            return
        slots = content.message_slots / content.messages
        erases = args.messages_per_day * slots / (ring.slots - ring.first)
        left = ring.sectors * (ENDURANCE - mean)
        why = (f"for {args.messages_per_day:g} messages a day like those in the ring, which take"
               f" {slots * SLOT:.0f} octets of it each")  # fmt: skip
    elif args.days is not None:
        erases = max(counts) / args.days
        left = ENDURANCE - max(counts)
        why = f"as the most worn sector had {max(counts)} erases in {args.days:g} days"
    else:
        print("years left: say how fast it wears, with --messages-per-day or --days in use")
        return
    print(f"years left: {years_left(left, erases)}\n({why})")
    if content.in_file:
        print("a disk levels its wear by itself: these are counts of the file's sectors")


def years_left(erases, erases_per_day):
    """How long so many *erases* last, in years, as a text."""
    years = max(erases, 0) / erases_per_day / 365.25
    amount = f"{years:.1f}" if years < 1000 else "more than 1000"
    limit = f", but flash keeps its octets for {_RETENTION}" if years > _RETENTION else ""
    return amount + limit


# --- verify ---


def do_verify(args):
    sys.stdout.reconfigure(errors="backslashreplace")
    with _open(args) as image:
        for _ in range(_READINGS):
            before = _written_at(image)
            content = Content(image)
            for _ in content.records():
                pass
            lines, damaged = _findings(content)
            changed = _written_at(image) != before
            if not damaged or not changed:
                break
    ring = content.ring
    sectors = sum(order > 0 for order in ring.order)
    print(f"{args.file}: {many(content.read, 'record')} read in {many(sectors, 'sector')}"
          f" of {ring.sectors}")  # fmt: skip
    for line in lines:
        print(line)
    print(f"{many(damaged, 'place')} damaged" if damaged else "nothing is damaged")
    if changed:
        print(_CHANGED)
    return 1 if damaged else 0


def _findings(content):
    """A line for each place that is not as it should be, and how many of them are damage."""
    ring = content.ring
    lines = []
    damaged = 0
    for gap in content.gaps:
        first, last = content.where(gap)
        slots = f"slot {gap.slot}"
        if gap.end - gap.slot > 1:
            slots = f"slots {gap.slot} to {gap.end - 1}"
        line = f"{gap.kind}: sector {gap.sector}, {slots}, octets {first:#x} to {last:#x}"
        if gap.kind == DAMAGED:
            damaged += 1
            if not ring.is_pending(gap.sector, gap.slot):
                line += ", which was done with"
        lines.append(line)
    for sector, records in content.bad_headers():
        kind = "no header"
        what = "its header cannot be read, as after an erase that was cut off"
        if records:
            damaged += 1
            kind = DAMAGED
            what = f"its header cannot be read, {many(records, 'record')} behind it can"
        address = content.image.offset + sector * ring.sector_size
        lines.append(f"{kind}: sector {sector}, octet {address:#x}: {what}")
    for order, slot, found, size in content.incomplete:
        damaged += 1
        lines.append(f"{DAMAGED}: the message of order {order}, slot {slot}:"
                     f" {found} of the {size} octets of its body are there")  # fmt: skip
    if content.bodies:
        count = many(len(content.bodies), "body", "bodies")
        lines.append(f"unfinished: {count} without a message")
    return lines, damaged


def _written_at(image):
    return os.fstat(image.file.fileno()).st_mtime_ns


# --- export ---


def do_export(args):
    with _open(args) as image:
        before = _written_at(image)
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
            print(f"left out: {many(len(content.incomplete), 'message')} without the whole body",
                  file=sys.stderr)  # fmt: skip
        damaged = sum(gap.kind == DAMAGED for gap in content.gaps)
        damaged += sum(records > 0 for _, records in content.bad_headers())
        if damaged:
            print(f"{many(damaged, 'place')} could not be read: see `ring verify`",
                  file=sys.stderr)  # fmt: skip
        missing = content.incomplete or damaged
        if missing and _written_at(image) != before:
            print(_CHANGED, file=sys.stderr)
        return 1 if missing else 0


def _export(content, sector, slot, wanted):
    """Print the parsed message once for each queue it waits in, or for *wanted* alone."""
    ring = content.ring
    order, position = ring.at_order, ring.at_slot
    message = Message(ring)
    shares = [
        (ring.queue_of(share), ring.tries(share))
        for share in range(ring.shares)
        if content.is_pending(sector, slot, share)
    ]
    properties = content.properties(message)
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
            "properties": _plain(properties),
        }
        if message.born is not None:
            fields["born_ms"] = message.born * TICK_MS
        if message.ttl_ms is not None:
            fields["ttl_ms"] = message.ttl_ms

        def body():
            # What was parsed last may be another record.
            if not ring.parse(sector, slot):
                raise CommandError(OVERWRITTEN, 1)
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


def many(n, one, more=None):
    return f"{n} {one}" if n == 1 else f"{n} {more or one + 's'}"


def age(ms):
    """Milliseconds, rounded to what matters."""
    seconds = ms // 1000
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
