"""Byte code that runs where it lies in flash, on the official firmware; and long texts.

MicroPython copies a .mpy file into the heap, and byte code is most of it: with a bridge it leaves
no room on a Pico W. But flash can be read like memory. So `amqp-lite deploy` writes the byte code
of all functions once more, into one file that never changes; here each module is imported, and
its functions are pointed at their octets in that file. So are its constants of str and bytes that
are no names. The copies in the heap are garbage then.

Nothing is pointed anywhere before the octets there were compared with those in use: another
version of MicroPython or of a module, or a damaged file, leaves things as they are.

The file is a list of blocks as littlefs (DESIGN.md there: "CTZ skip-lists") keeps them: block i
begins, in flash only, with the addresses of earlier blocks, one and one for each time that 2 is
in i. Then come, by host_tools/inplace.py:

    octets 0-15   the head, the same in all blocks of this file and in no others
    octet 16      i
    from 17       pieces: length in two octets, low first, then the octets; a length of 0 ends it.
                  To the length of a text, which has a NUL behind it, 0x8000 is added

The first piece of block 0 has a line for each group of modules, those of the start first, then
those for each one that is imported late, which is at the end of its line. In the order of their
imports there is for each how many constants it has, a colon, and its name.

While it is in use the file must not be written or removed: deploy restarts the board.
"""

import gc
import sys

import micropython
import uctypes

_HEAD = 16
_BLOCK = 4096  # octets, of littlefs on this board
_POINTERS = 9  # at most, in a block of a file of 1 MB
_TEXT = 0x8000
_WORD = 4 if sys.maxsize < 1 << 32 else 8


@micropython.viper
def _piece(at: int, code, kind: int) -> int:
    """Where among the pieces from the address *at* are the octets at *code*: 0 if nowhere.

    kind  0 for byte code; else the length of a text as it is in the file
    """
    q = ptr8(code)
    p = ptr8(at)
    while True:
        n = p[0] | p[1] << 8
        if n == 0:
            return 0
        p = ptr8(int(p) + 2)
        k = 0
        if n == kind or (kind | n & 0x8000) == 0:
            n &= 0x7FFF
            while k < n and p[k] == q[k]:
                k += 1
            if k == n:
                return int(p)
        p = ptr8(int(p) + (n & 0x7FFF))


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


def place(flash, path, late=None):
    """Import modules that are named in the file *path*; have code and texts of them in *flash*.

    flash  a buffer with the whole file system of blocks of 4096 octets, which stays
    path   of the file
    late   the module that is wanted, behind those it imports; None: those of the start

    Returns how many functions run from there. Raises OSError when there is no file.
    """
    blocks = find_blocks(flash, path)
    if 0 not in blocks:
        return 0
    names = blocks[0]
    octets = uctypes.bytearray_at(names, 2)
    octets = uctypes.bytearray_at(names + 2, octets[0] | octets[1] << 8)
    end = octets.find(b"\n" if late is None else (":" + late + "\n").encode())
    if end < 0:
        return 0
    end = octets.find(b"\n", end)
    begin = octets.rfind(b"\n", 0, end) + 1
    placer = _Placer(list(blocks.values()))
    for row in str(octets[begin:end], "ascii").split():
        objects, name = row.split(":")
        if late is not None and name in sys.modules:
            continue
        # One by one, so that never more than one is in the heap as a whole.
        placer.place_module(__import__(name, None, None, ("*",)), int(objects))
        gc.collect()
    return placer.placed


def _generator():
    yield


class _Placer:
    def __init__(self, blocks):
        self.placed = 0
        self._blocks = blocks
        self._kinds = (type(place), type(_generator))
        self._texts = (id(str), id(bytes))
        self._module = 0  # address of the one that is looked at
        self._is_known = False  # all its functions are in the file

    def place_module(self, module, objects):
        """Place what *module* has: its functions and, of its *objects* constants, texts."""
        self._module = id(module)
        self._is_known = True
        self._place_functions(module.__dict__)
        if self._is_known:
            # py/bc.h: type, globals, table of names, table of constants
            self._place_texts(_word(id(module) + 3 * _WORD), objects)

    def _place_functions(self, names):
        """Place the functions and methods among the values of *names*."""
        for name in names:
            value = names[name]
            if type(value) in self._kinds:
                # py/objfun.h: type, module, table of children, byte code
                if self._point(id(value) + 3 * _WORD, 0):
                    self.placed += 1
                elif _word(id(value) + _WORD) == self._module:
                    self._is_known = False
            elif isinstance(value, type):
                self._place_functions(value.__dict__)

    def _place_texts(self, at, objects):
        for k in range(objects):
            value = _word(at + k * _WORD)
            if value & 3:
                continue  # a name
            kind = _word(value)
            if kind in self._texts:
                # py/objstr.h: type, hash, length, octets
                size = _word(value + 2 * _WORD)
                if size:
                    self._point(value + 3 * _WORD, _TEXT | size + 1)
            elif kind == id(tuple):
                self._place_texts(value + 2 * _WORD, _word(value + _WORD))

    def _point(self, pointer, kind):
        """Have the *pointer* at this address point into flash. False: what it is at is not there.

        kind  as in _piece()
        """
        code = _word(pointer)
        blocks = self._blocks
        for i in range(len(blocks)):
            at = _piece(blocks[i], code, kind)
            if at:
                if at != code:
                    uctypes.bytearray_at(pointer, _WORD)[:] = at.to_bytes(_WORD, "little")
                # Its neighbours are likely to be there, too.
                blocks[0], blocks[i] = blocks[i], blocks[0]
                return True
        return False


def _word(at):
    return int.from_bytes(uctypes.bytearray_at(at, _WORD), "little")
