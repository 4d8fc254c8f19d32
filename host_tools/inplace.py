"""The file of byte code and texts that a Pico W uses in flash: see board/pico_w/inplace.py."""

import ast
import functools
import os
import struct

PATH = "/lib/amqp_lite/inplace.bin"  # on the board, see its board.py
MAGIC = b"AMQP-LITE"
HEAD = 16  # octets: the magic, and others that only this file has
_BLOCK = 4096
_TEXT = 0x8000  # in the length of a piece that is no byte code
# Modules that lib/ imports by load(), late.
_LATE = (
    "v10.connection", "v10.source", "v10.node", "v10.management", "v10.coordinator", "convert",
    "broker.transaction", "v091.login",
)  # fmt: skip
_BYTECODE = 2  # the kinds of code in a .mpy file, py/emitglue.h
_PYTHON = 3
_OPTIONAL = tuple("amqp_lite." + name for name in "bridge. net. compat_tls_ store. v10.".split())
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


def groups(sources, settings):
    """Lists of modules in the order of their imports: those of the start, and for each one that
    is imported late all that it imports then, itself at the end.

    sources   the text of modules by name
    settings  complete
    """
    found = [order(sources, needed(settings))]
    for name in _LATE if settings["listeners"] else ():
        name = "amqp_lite." + name
        if name in sources:
            found.append([each for each in order(sources, [name]) if each not in found[0]])
    return found


def unused(sources, settings, profile):
    """The modules that a board with these *settings* never loads, although others may.

    sources  the text of modules by name
    """
    found = set()
    if not settings["bridges"]:
        row = {"tls": True}
        found.update(order(sources, needed(dict(settings, bridges=[row]))))
        found.update(order(sources, ["amqp_lite.bridge.settings"]))
    if not profile["amqp10"]:
        found.update(order(sources, ["amqp_lite." + name for name in _LATE if name[:3] == "v10"]))
    found.update(("amqp_lite.store.file", "amqp_lite.store.ram"))
    kept = ["amqp_lite.config", "amqp_lite.convert", *needed(settings)]
    found -= set(order(sources, kept))
    return {name for name in found if name.startswith(_OPTIONAL)}


def build(compiled, groups, head=b""):
    """The file for the modules in *groups*, see groups().

    compiled  .mpy files, octets by module name
    head      of another file, to see whether that is the same; else none that was there before
    """
    if len(head) < HEAD:
        head = MAGIC + os.urandom(HEAD - len(MAGIC))
    contents = {name: Contents(compiled[name]) for names in groups for name in names}
    lines = [
        " ".join(f"{contents[name].objects}:{name}" for name in names) + "\n" for names in groups
    ]
    pieces = {(0, "".join(lines).encode()): None}  # as an ordered set
    for one in contents.values():
        pieces.update(((0, code), None) for code in one.functions)
        pieces.update(((_TEXT, text), None) for text in one.texts)
    blocks = []
    for kind, piece in pieces:
        if not blocks or len(blocks[-1]) + len(piece) + 4 > _room(len(blocks) - 1):
            blocks.append(head + bytes([len(blocks)]))
        blocks[-1] += struct.pack("<H", kind | len(piece)) + piece
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
    for node in _body(sources[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package if node.level else ""
            for _ in range(node.level - 1):
                base = _parent(base)
            base = ".".join(part for part in (base, node.module) if part)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@functools.lru_cache(maxsize=None)
def _body(source):
    return ast.parse(source).body


def _parent(name):
    return name.rpartition(".")[0]


def functions(mpy):
    """The byte code of each function in a .mpy file, in its order, without the module's own."""
    return Contents(mpy).functions


class Contents:
    """What is in a .mpy file. Format: py/persistentcode.c of MicroPython, version 6.

    functions  as in functions()
    objects    how many constants the module has that are no names and no small numbers
    texts      the octets of those among them, and in them, that are str or bytes, each with a NUL
    """

    def __init__(self, mpy):
        reader = _Reader(mpy)
        reader.take(4)  # magic, version, flags, bits of small ints
        names, self.objects = reader.number(), reader.number()
        for _ in range(names):
            length = reader.number()
            if not length & 1:  # else one that every firmware has
                reader.take((length >> 1) + 1)
        self.texts = []
        for _ in range(self.objects):
            reader.read_object(self.texts)
        found = []
        reader.read_code(found)
        self.functions = found[:-1]


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

    def read_object(self, texts):
        """Pass over a constant; add to *texts* when it is one, or has some."""
        kind = self.take(1)[0]
        if kind in (5, 6):  # str, bytes, with a NUL behind
            texts.append(self.take(self.number() + 1))
        elif kind in (7, 8, 9):  # numbers, as text
            self.take(self.number())
        elif kind == 10:  # tuple
            for _ in range(self.number()):
                self.read_object(texts)

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
