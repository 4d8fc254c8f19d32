"""Making room: what is still pending in several sectors of the log, gathered in one.

The merged sector stands in the log where its sources stood, so order needs no sorting; its records
carry their first place along, so nobody who holds one has to be told.
"""

import struct

from ..compat import copy, fill, is_blank, oldest_from
from .records import CRC, HEAD, MESSAGE, MOVED, PART, PLACE, TYPE
from .sectors import BAD, HEADER, SLOT, program


def merge(ring):
    """Gather the pending records of neighbours in the log in one sector. False: none fit."""
    if not ring.commit():
        return False
    sector = oldest_from(ring.order, ring.sectors, 1)
    room = ring.slots - ring.first
    while sector >= 0:
        if sector != ring.tail and ring.live[sector]:
            slots = _weight(ring, sector)
            last = sector
            other = ring.sector_after(sector)
            many = 1
            while other >= 0 and other != ring.tail:
                if ring.order[other] + ring.cover[other] - ring.order[sector] > 0xFFFF:
                    break
                if ring.live[other]:
                    slots += _weight(ring, other)
                    if slots > room:
                        break
                    many += 1
                    last = other
                other = ring.sector_after(other)
            if many > 1:
                return _merge_sectors(ring, sector, last)
        sector = ring.sector_after(sector)
    return False


def _weight(ring, sector):
    """Slots that its pending records take in another sector."""
    slots = 0
    at = ring.first
    while at < ring.slots:
        if not ring.parse(sector, at):
            at = ring.blank_end(at)
            continue
        if ring.is_needed():
            slots += _moved_slots(ring)
        at += ring.used
    return slots


def _moved_slots(ring):
    """Slots that the parsed record takes when it carries its origin."""
    kind = ring.kind
    if kind & MOVED and not kind & PART:
        return ring.used
    n = ring.start + ring.size - ring.sector * ring.sector_size - ring.slot * SLOT
    tries = ring.shares if kind & TYPE == MESSAGE else 0
    used = (n + (0 if kind & MOVED else PLACE) + CRC + tries + SLOT - 1) // SLOT
    least = ring.shares + 1 if tries and ring.is_open() else ring.shares
    return used if used > least else least


def _merge_sectors(ring, first, last):
    """Copy what is pending from sector *first* to sector *last* of the log into one."""
    while True:
        target = ring.take()
        if target < 0:
            return False
        end = _gather(ring, first, last, target)
        if end >= 0:
            break
        ring.faults += 1
        ring.live[target] = BAD
        ring.kill(target)
    ring.merges += 1
    order = ring.order[first]
    cover = ring.order[last] + ring.cover[last] - order
    source = first
    while True:
        following = ring.sector_after(source)
        ring.order[source] = 0
        ring.live[source] = 0
        ring.kill(source)
        if source == last:
            break
        source = following
    ring.order[target] = order
    ring.cover[target] = cover
    ring.live[target] = end - ring.first
    return True


def _gather(ring, first, last, target):
    """Program the merged sector: the slot behind its last record; -1: it read back wrong."""
    order = ring.order[first]
    cover = ring.order[last] + ring.cover[last] - order
    base = target * ring.sector_size
    side = ring.side
    marks = ring.marks
    fill(marks, 0, ring.bitmap, 0xFF)
    side.start(base + ring.first * SLOT // ring.page_size * ring.page_size,
               ring.first * SLOT % ring.page_size)  # fmt: skip
    at = ring.first
    source = first
    while True:
        slot = ring.first
        while slot < ring.slots:
            if not ring.parse(source, slot):
                slot = ring.blank_end(slot)
                continue
            if ring.is_needed():
                if at + _moved_slots(ring) > ring.slots:
                    # Cells that read otherwise than when they were weighed.
                    fill(side.page, 0, ring.page_size, 0xFF)
                    return -1
                at = _move(ring, order, cover, at)
            slot += ring.used
        if source == last:
            break
        source = ring.sector_after(source)
    if not side.flush():
        return -1
    page = side.page
    # The header last, alone: it makes all of this valid.
    copy(page, HEADER, marks, 0, ring.bitmap)
    right = is_blank(marks, 0, ring.bitmap) or program(
        ring.device, base, page, HEADER, ring.bitmap
    )
    fill(page, HEADER, ring.bitmap, 0xFF)
    if not right or not ring.sync():
        return -1
    ring.write_header(page, order, cover, 0, ring.ready_erases)
    right = program(ring.device, base, page, 0, HEADER)
    fill(page, 0, HEADER, 0xFF)
    return at if right and ring.sync() else -1


def _move(ring, order, cover, at):
    """Copy the parsed record to slot *at* of the merged sector: the slot behind it."""
    device = ring.device
    side = ring.side
    head = ring.head
    kind = ring.kind
    address = ring.sector * ring.sector_size + ring.slot * SLOT + HEAD
    n = ring.start + ring.size - address
    used = _moved_slots(ring)
    whole = n if kind & MOVED else n + PLACE
    head[0] = 0x80 | kind | MOVED
    if kind & PART and not ring.is_open():
        head[0] &= ~PART
    head[1] = ring.queue
    head[2] = whole >> 8
    head[3] = whole & 0xFF
    ring.begin_crc(side.crc, order, cover, at)
    side.put(head, 0, HEAD)
    if not kind & MOVED:
        struct.pack_into(">IH", head, 0, ring.at_order, ring.at_slot)
        side.put(head, 0, PLACE)
    while n:
        # Up to the end of the page only: its program is read back into the same buffer.
        step = ring.page_size - side.at
        if step > n:
            step = n
        side.put(device.buf, device.at(address, step), step)
        address += step
        n -= step
    copy(ring.sum, 0, side.crc, 0, CRC)
    side.put(ring.sum, 0, CRC)
    filled = HEAD + whole + CRC
    marks = ring.marks
    for share in range(ring.shares):
        if kind & TYPE == MESSAGE:
            head[0] = device.buf[device.at(ring.tries_at + share, 1)]
            side.put(head, 0, 1)
            filled += 1
        if not ring.is_pending(ring.sector, ring.slot + share):
            bit = at + share
            marks[bit >> 3] &= ~(0x80 >> (bit & 7))
    side.skip(used * SLOT - filled)
    return at + used
