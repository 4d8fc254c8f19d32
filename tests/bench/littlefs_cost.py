"""What MicroPython's littlefs does to a Pico W's flash for one message. Runs on MicroPython.

    micropython -X heapsize=8m littlefs_cost.py SIZE MESSAGES PER_FLUSH

Appends MESSAGES bodies of SIZE octets to /s0 and /s1, 64 KiB each, in rotation, with a flush()
after every PER_FLUSH of them: the way a queue on a file system keeps a message through a power
cut. Opening the segments is counted, mkfs and mount are not; nothing is consumed.

Prints one line of JSON: what reached the block device in total.

    {"erases", "programs" (calls), "pages" (of 256 octets), "octets" (all, 0xFF too)}
"""

import json
import os
import sys

import vfs

BLOCK = 4096
BLOCKS = 212        # the file system's area on a Pico W
PAGE = 256          # what rp2's _boot.py passes as progsize
SEGMENT = 64 * 1024
BLANK = b"\xff" * BLOCK


class CountingNor:
    """A NOR flash that counts. Programming an octet which is not blank is an error."""

    def __init__(self):
        self.data = bytearray(b"\xff" * (BLOCK * BLOCKS))
        self.clear()

    def clear(self):
        self.erases = self.programs = self.pages = self.octets = 0

    def readblocks(self, block, buf, offset=0):
        at = block * BLOCK + offset
        buf[:] = memoryview(self.data)[at : at + len(buf)]

    def writeblocks(self, block, buf, offset):
        n = len(buf)
        at = block * BLOCK + offset
        if offset % PAGE or n % PAGE or self.data[at : at + n] != BLANK[:n]:
            raise ValueError("%d octets programmed at %d: not whole blank pages" % (n, at))
        self.data[at : at + n] = buf
        self.programs += 1
        self.pages += n // PAGE
        self.octets += n

    def ioctl(self, op, argument):
        if op == 4:
            return BLOCKS
        if op == 5:
            return BLOCK
        if op == 6:
            self.erases += 1
            self.data[argument * BLOCK : (argument + 1) * BLOCK] = BLANK
        return 0


def append(size, messages, per_flush):
    # An octet that is 0xFF could not be told from one that was never programmed.
    body = bytes(i * 7 % 251 for i in range(size))
    segments, file, room = 0, None, 0
    for i in range(1, messages + 1):
        if room < size:
            if file:
                file.close()
            file = open("/flash/s%d" % (segments % 2), "wb")
            segments += 1
            room = SEGMENT
        file.write(body)
        room -= size
        if i % per_flush == 0:
            file.flush()
    file.close()


def main():
    size, messages, per_flush = (int(argument) for argument in sys.argv[1:])
    device = CountingNor()
    vfs.VfsLfs2.mkfs(device, progsize=PAGE)
    vfs.mount(vfs.VfsLfs2(device, progsize=PAGE), "/flash")
    device.clear()
    append(size, messages, per_flush)
    for n in range(2):
        # littlefs keeps what it was given, or the figures mean nothing.
        if messages * size > n * SEGMENT and not os.stat("/flash/s%d" % n)[6]:
            raise ValueError("/s%d is empty" % n)
    print(json.dumps({"erases": device.erases, "programs": device.programs,
                      "pages": device.pages, "octets": device.octets}))


main()
