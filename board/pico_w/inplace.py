"""Byte code that runs where it lies in flash, on the official firmware.

MicroPython copies a .mpy file into the heap, and byte code is most of it: with a bridge it leaves
no room on a Pico W. But flash can be read like memory. So `amqp-lite deploy` writes the byte code
of all functions once more, into one file that never changes; here each module is imported, and
its functions are pointed at their octets in that file. The copies in the heap are garbage then.

Nothing is pointed anywhere before the octets there were compared with those in use: another
version of MicroPython or of a module, or a damaged file, leaves functions as they are.

The file is a list of blocks as littlefs (DESIGN.md there: "CTZ skip-lists") keeps them: block i
begins, in flash only, with the addresses of earlier blocks, one and one for each time that 2 is
in i. Then come, by host_tools/inplace.py:

    octets 0-15   the head, the same in all blocks of this file and in no others
    octet 16      i
    from 17       pieces: length in two octets, low first, then the octets; a length of 0 ends it

The first piece of block 0 is the names of the modules in the order of their imports.

While it is in use the file must not be written or removed: deploy restarts the board.
"""

import gc
import sys

import micropython
import uctypes

_HEAD = 16
_BLOCK = 4096  # octets, of littlefs on this board
_POINTERS = 9  # at most, in a block of a file of 1 MB
_WORD = 4 if sys.maxsize < 1 << 32 else 8


@micropython.viper
def _piece(at: int, code) -> int:
    """Where among the pieces from the address *at* are the octets at *code*: 0 if nowhere."""
    q = ptr8(code)
    p = ptr8(at)
    while True:
        n = p[0] | p[1] << 8
        if n == 0:
            return 0
        p = ptr8(int(p) + 2)
        k = 0
        while k < n and p[k] == q[k]:
            k += 1
        if k == n:
            return int(p)
        p = ptr8(int(p) + n)


def find_blocks(flash, path):
    """By number: the addresses of the pieces of the file *path*, of the blocks it has once."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    start = uctypes.addressof(flash)
    found = {}
    for block in range(0, len(flash), _BLOCK):
        for at in range(block, block + 4 * _POINTERS, 4):
            if flash[at : at + _HEAD] == head:
                number = flash[at + _HEAD]
                # Twice: one of them is not of the file any more, and may be erased.
                found[number] = None if number in found else start + at + _HEAD + 1
    return {number: at for number, at in found.items() if at is not None}


def place(flash, path):
    """Import the modules named in the file *path* and run their functions from *flash*.

    flash  a buffer with the whole file system of blocks of 4096 octets, which stays
    path   of the file

    Returns how many functions run from there. Raises OSError when there is no file.
    """
    blocks = find_blocks(flash, path)
    if 0 not in blocks:
        return 0
    names = blocks[0]
    octets = uctypes.bytearray_at(names, 2)
    octets = uctypes.bytearray_at(names + 2, octets[0] | octets[1] << 8)
    placer = _Placer(list(blocks.values()))
    for name in str(octets, "ascii").split():
        # One by one, so that never more than one is in the heap as a whole.
        placer.place(__import__(name, None, None, ("*",)).__dict__)
        gc.collect()
    return placer.placed


def _generator():
    yield


class _Placer:
    def __init__(self, blocks):
        self.placed = 0
        self._blocks = blocks
        self._kinds = (type(place), type(_generator))

    def place(self, names):
        """Place the functions and methods among the values of *names*."""
        for name in names:
            value = names[name]
            if type(value) in self._kinds:
                self._function(value)
            elif isinstance(value, type):
                self.place(value.__dict__)

    def _function(self, function):
        # py/objfun.h: type, context, table of children, byte code
        pointer = uctypes.bytearray_at(id(function) + 3 * _WORD, _WORD)
        code = int.from_bytes(pointer, "little")
        blocks = self._blocks
        for i in range(len(blocks)):
            at = _piece(blocks[i], code)
            if at:
                if at != code:
                    pointer[:] = at.to_bytes(_WORD, "little")
                    self.placed += 1
                # Its neighbours are likely to be there, too.
                blocks[0], blocks[i] = blocks[i], blocks[0]
                return
