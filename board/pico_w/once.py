"""What board.py needs once, at start; it drops this module again: a board is short of memory."""

import gc
import os

import rp2
from machine import mem32
from micropython import const
from uctypes import addressof, bytearray_at

_MARK = const(0x414D51)
_SRAM = const(0x20000000)


def flash(size):
    """The `store` for a ring of *size* octets: flash behind the file system, else segments in it.

    Only a firmware of one's own mounts a part of rp2.Flash() and leaves the rest.
    """
    start = _file_system_octets()
    device = rp2.Flash()
    if start and start + size <= device.ioctl(4, 0) * device.ioctl(5, 0):
        return {"kind": "flash", "start": start, "size": size}
    return {"kind": "segments", "path": "/ring", "size": size}


def _file_system_octets():
    """What the file system has of rp2.Flash(), from its start on; 0 when that is not certain.

    It is certain when the superblock of littlefs (its SPEC.md) and statvfs() say the same: other
    file systems have more octets than they tell, and "/" may be somewhere else.
    """
    head = bytearray(32)
    root = os.statvfs("/")
    for block in (0, 1):
        rp2.Flash().readblocks(block, head, 0)
        size = int.from_bytes(head[24:28], "little")
        count = int.from_bytes(head[28:32], "little")
        if head[8:16] == b"littlefs" and (size, count) == (root[0], root[2]):
            return size * count
    return 0


def retained_memory(registers, sram_end, size):
    """The memory of *size* octets that a reset left alone: (bytearray, starts).

    registers  address of three words that resets leave alone, too: _MARK << 8 | starts, the
               memory's address, and that address ^ _MARK
    sram_end   the first address behind the RAM
    """
    found = bytes(size)
    starts = 0
    address = mem32[registers + 4]
    if mem32[registers] >> 8 == _MARK and address ^ mem32[registers + 8] == _MARK:
        starts = mem32[registers] & 255
        if _SRAM <= address <= sram_end - size:
            found = bytes(bytearray_at(address, size))
    buf = _last_of_heap(size)
    buf[:] = found
    address = addressof(buf)
    mem32[registers + 4] = address
    mem32[registers + 8] = address ^ _MARK
    mem32[registers] = _MARK << 8 | starts
    return buf, starts


def _last_of_heap(size):
    """A bytearray of *size* octets at the heap's end, which the next start reaches last."""
    gc.collect()
    n = gc.mem_free()
    rest = None
    while rest is None:
        try:
            rest = bytearray(n)
        except MemoryError:
            n -= size // 2
    rest = None  # all memory in one piece; now the same without room for ours
    rest = bytearray(n - size - size // 2)
    in_front = []
    while True:
        buf = bytearray(size)
        if addressof(buf) > addressof(rest):
            return buf
        in_front.append(buf)
