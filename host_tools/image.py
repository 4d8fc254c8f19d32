"""Where the octets of a ring are: in a gateway's file, a dump of flash, or a folder of segments.

A dump of flash may have it as segments in its file system, see dump.py.

They are only read, and never locked: a broker may run on them, and a dead board's last dump stays
as it is.
"""

import contextlib
import os
import re
import shutil
import tempfile
from mmap import ACCESS_COPY, ACCESS_READ, mmap

from amqp_lite.store.sectors import HEADER, MAGIC, Sectors
from amqp_lite.store.segments import SegmentFlash

from .dump import extract_segments
from .errors import CommandError

_SMALLEST = 1024  # octets of a sector; the search for headers goes in such steps
_LARGEST = 65536
_STRAY = 2  # sectors with something else that may lie between the ring and the ends of the file
_NOTHING = "no sector header found; is this a ring file or a flash dump?"


class Image:
    """The ring in an open *file*.

    stack        closes what is opened of it
    offset       of its first sector in the file, octets
    size         octets, whole sectors
    in_segments  the file was made of a folder of segments
    """

    def __init__(self, stack, file, offset, size, sector_size, page_size, in_segments):
        self._stack = stack
        self.file = file
        self.offset = offset
        self.size = size
        self.sector_size = sector_size
        self.page_size = page_size
        self.sectors = size // sector_size
        self.in_segments = in_segments

    def device(self):
        view = _View(self)
        self._stack.callback(view.close)
        return view


class _View:
    """An image as a device, see store/device.py. What is programmed is seen in this one only."""

    commit_ms = 0
    # A recovery then takes what it reads for solid: it decides nothing anew that power cuts left
    # unsure, and moves no sector.
    trusted = True

    def __init__(self, image):
        self.sector_size = image.sector_size
        self.page_size = image.page_size
        self.sectors = image.sectors
        self._octets = mmap(image.file.fileno(), 0, access=ACCESS_COPY)
        with memoryview(self._octets) as whole:
            self.buf = whole[image.offset : image.offset + image.size]

    def at(self, address, n):
        return address

    def program(self, address, buf, i, n):
        own = self.buf
        for k in range(i, i + n):
            own[address + k] &= buf[k]

    def erase(self, sector):
        base = sector * self.sector_size
        self.buf[base : base + self.sector_size] = b"\xff" * self.sector_size

    def sync(self):
        pass

    def close(self):
        self.buf.release()
        self._octets.close()


@contextlib.contextmanager
def open_image(path, offset=None, size=None):
    """The Image in *path*, until the end of the with block.

    offset, size  where the ring is, octets; None: where its headers are

    Raises CommandError.
    """
    with contextlib.ExitStack() as stack:
        in_segments = os.path.isdir(path)
        try:
            folder = path
            if not in_segments:
                file, octets = _map(stack, path)
                if offset is None:
                    folder = stack.enter_context(tempfile.TemporaryDirectory())
                    in_segments = extract_segments(octets, path, folder)
            if in_segments:
                scratch = stack.enter_context(tempfile.TemporaryDirectory())
                file, octets = _map(stack, _flatten(folder, path, scratch))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CommandError(f"{path}: {reason}") from None
        yield Image(stack, file, *_find(octets, path, offset, size), in_segments)


def _map(stack, path):
    """The file *path*, open, and its octets."""
    file = stack.enter_context(open(path, "rb"))
    if not file.seek(0, 2):
        raise CommandError(f"{path}: an empty file")
    return file, stack.enter_context(mmap(file.fileno(), 0, access=ACCESS_READ))


def _flatten(folder, path, scratch):
    """Make one file in *scratch* of the segments in *folder*: its path.

    path  where they are from, for errors
    """
    segments = os.path.join(scratch, "segments")
    os.mkdir(segments)
    sectors = 0
    geometry = None
    for name in os.listdir(folder):
        found = re.fullmatch(r"(\d{4,5})\.(log|fix)", name)
        if not found:
            continue
        copied = os.path.join(segments, name)
        try:
            shutil.copyfile(os.path.join(folder, name), copied)
        except FileNotFoundError:
            continue  # a broker that runs has removed it
        sectors = max(sectors, int(found[1]) + 1)
        with open(copied, "rb") as file:
            header = file.read(HEADER)
        if found[2] == "log" and geometry is None and len(header) == HEADER:
            geometry = _geometry(header, 0)
    if not sectors:
        raise CommandError(f"{path}: a directory without segments of a ring (0000.log)")
    if geometry is None:
        raise CommandError(f"{path}: {_NOTHING}")
    sector_size, page_size = geometry
    flash = SegmentFlash(segments, sectors, sector_size, page_size)
    flat = os.path.join(scratch, "ring")
    with open(flat, "wb") as file:
        for address in range(0, sectors * sector_size, page_size):
            at = flash.at(address, page_size)
            file.write(flash.buf[at : at + page_size])
    flash.close()
    return flat


def _geometry(octets, at):
    """(sector_size, page_size) of the ring whose sector header is at *at*; None: it is none."""
    if octets[at] != MAGIC:
        return None
    sector_size = 256 << (octets[at + 1] >> 4)
    page_size = 16 << (octets[at + 1] & 15)
    if not _SMALLEST <= sector_size <= _LARGEST or not 64 <= page_size <= sector_size:
        return None
    known = Sectors(_Shape(sector_size, page_size))
    return (sector_size, page_size) if known.is_header(octets, at) else None


class _Shape:
    """As much of a device as the check of a header needs."""

    def __init__(self, sector_size, page_size):
        self.sector_size = sector_size
        self.page_size = page_size
        self.sectors = 1


def _find(octets, path, offset, size):
    """Where the ring is: (offset, size, sector_size, page_size). Raises CommandError."""
    first = offset or 0
    last = len(octets)
    if first >= last:
        raise CommandError(f"{path}: --offset {first}: it has {last} octets")
    if size is not None and offset is not None:
        if first + size > last:
            raise CommandError(f"{path}: --size {size}: it has {last - first} octets from there")
        last = first + size
    found = {}  # positions of headers, by what would make them sectors of one ring
    for at in range(first, last - HEADER + 1, _SMALLEST):
        shape = _geometry(octets, at)
        if shape and (offset is None or not (at - first) % shape[0]):
            found.setdefault((shape, at % shape[0]), []).append(at)
    if not found:
        if offset is not None:
            raise CommandError(f"{path}: no sector header found from --offset {offset} on")
        if _is_unused(octets):
            raise CommandError(f"{path}: no sector header found; nothing was ever written to it")
        raise CommandError(f"{path}: {_NOTHING}")
    # A dump may hold strays: an earlier ring's, a message's.
    (sector_size, page_size), places = max(
        ((shape, places) for (shape, _), places in found.items()), key=lambda row: len(row[1])
    )
    start = first
    if offset is None:
        start = _border(octets, places[0], -sector_size, places[0] % sector_size)
    end = places[-1] + sector_size
    if size is None:
        whole = last - (last - start) % sector_size
        end = _border(octets, places[-1], sector_size, whole - sector_size) + sector_size
    else:
        end = start + size - size % sector_size
    end = min(end, last - (last - start) % sector_size)
    if end <= start:
        raise CommandError(f"{path}: --size {size}: a sector has {sector_size} octets")
    return start, end - start, sector_size, page_size


def _border(octets, at, step, border):
    """The last sector of the ring from the one at *at* on, in steps of *step* octets.

    border  the last one there is
    """
    while at != border and _is_free(octets, at + step):
        at += step
    # The rest of a file that is nothing but a ring, if its last sectors are damaged.
    return border if abs(border - at) <= _STRAY * abs(step) else at


def _is_free(octets, at):
    header = octets[at : at + HEADER]
    return header in (b"\xff" * HEADER, b"\0" * HEADER)


def _is_unused(octets):
    """Whether there are no octets but 0x00 and 0xFF."""
    for at in range(0, len(octets), 1 << 20):
        if octets[at : at + (1 << 20)].strip(b"\0\xff"):
            return False
    return True
