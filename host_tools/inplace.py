"""The file of byte code that a Pico W runs from flash: see board/pico_w/inplace.py."""

import ast
import os
import struct

PATH = "/lib/amqp_lite/inplace.bin"  # on the board, see its board.py
MAGIC = b"AMQP-LITE"
HEAD = 16  # octets: the magic, and others that only this file has
_BLOCK = 4096
_BYTECODE = 2  # the kinds of code in a .mpy file, py/emitglue.h
_PYTHON = 3
_STORES = {"file": "file", "flash": "device", "partition": "device"}  # else segments


def needed(settings):
    """What a board loads with complete *settings*: names of modules, which stand for all they
    import, too. Those it drops after its start come last.
    """
    names = ["net.reactor", "local", "status", "node"]
    once = ["start", "declare"]
    store = settings["store"]
    if store is None:
        names.append("store.ram")
    else:
        device = _STORES.get(store["kind"], "segments")
        names += ["broker.durable", "store.ring", "store." + device]
        once += ["store.open", "store.recovery"]
    if settings["listeners"]:
        names += ["access", "v091.channel", "v091.connection"]
    if settings["bridges"]:
        once.append("bridge.make")
        names += ["bridge.client091", "bridge.downlink", "bridge.upstream", "net.caller"]
        if any(row["tls"] for row in settings["bridges"]):
            names += ["net.tls", "net.certificate", "compat_tls_micropython"]
    yield from ("amqp_lite." + name for name in names)
    for name in ("wifi", "clock"):
        if settings[name]:
            yield "board." + name
    yield from ("board.sensors", "board.console")
    yield from ("amqp_lite." + name for name in once)


def build(compiled, names, head=b""):
    """The file for the modules *names*, in the order of their imports.

    compiled  .mpy files, octets by module name
    head      of another file, to see whether that is the same; else none that was there before
    """
    if len(head) < HEAD:
        head = MAGIC + os.urandom(HEAD - len(MAGIC))
    pieces = [" ".join(names).encode()]
    for name in names:
        pieces += [code for code in functions(compiled[name]) if code not in pieces]
    blocks = []
    for piece in pieces:
        if not blocks or len(blocks[-1]) + len(piece) + 4 > _room(len(blocks) - 1):
            blocks.append(head + bytes([len(blocks)]))
        blocks[-1] += struct.pack("<H", len(piece)) + piece
    return b"".join(block.ljust(_room(i), b"\0") for i, block in enumerate(blocks))


def _room(number):
    """Octets that littlefs leaves in the block of this number of a file."""
    return _BLOCK - 4 * (number & -number).bit_length()


def order(sources, names):
    """*names* and all that they import when they are imported, each behind what it imports.

    sources  the text of modules by name; `package.__init__` is named `package`
    """
    done = []
    seen = set()

    def visit(name):
        if name in seen or name not in sources:
            return
        seen.add(name)
        for other in _imports(name, sources):
            visit(other)
        done.append(name)

    for name in names:
        visit(name)
    return done


def _imports(name, sources):
    package = name if any(other.startswith(name + ".") for other in sources) else _parent(name)
    for node in ast.parse(sources[name]).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package if node.level else ""
            for _ in range(node.level - 1):
                base = _parent(base)
            base = ".".join(part for part in (base, node.module) if part)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _parent(name):
    return name.rpartition(".")[0]


def functions(mpy):
    """The byte code of each function in a .mpy file, in its order, without the module's own.

    Format: py/persistentcode.c of MicroPython, version 6.
    """
    reader = _Reader(mpy)
    reader.take(4)  # magic, version, flags, bits of small ints
    names, objects = reader.number(), reader.number()
    for _ in range(names):
        length = reader.number()
        if not length & 1:  # else one that every firmware has
            reader.take((length >> 1) + 1)
    for _ in range(objects):
        reader.skip_object()
    found = []
    reader.read_code(found)
    return found[:-1]


class _Reader:
    def __init__(self, octets):
        self._octets = octets
        self._at = 0

    def take(self, n):
        self._at += n
        return self._octets[self._at - n : self._at]

    def number(self):
        value = 0
        while True:
            octet = self.take(1)[0]
            value = value << 7 | octet & 0x7F
            if octet < 0x80:
                return value

    def skip_object(self):
        kind = self.take(1)[0]
        if kind in (5, 6):  # str, bytes, with a NUL behind
            self.take(self.number() + 1)
        elif kind in (7, 8, 9):  # numbers, as text
            self.take(self.number())
        elif kind == 10:  # tuple
            for _ in range(self.number()):
                self.skip_object()

    def read_code(self, found):
        """Read a function and those in it; add the byte code of each to *found*."""
        head = self.number()
        kind = (head & 3) + _BYTECODE
        code = self.take(head >> 3)
        if kind != _BYTECODE:
            self.number()  # where its prelude is, or what it needs
            if kind > _PYTHON + 1:  # assembler
                self.number()
                self.number()
        if head & 4:
            for _ in range(self.number()):
                self.read_code(found)
        if kind == _BYTECODE:
            found.append(code)
