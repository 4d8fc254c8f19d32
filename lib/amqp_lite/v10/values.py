"""Whole AMQP 1.0 values (AMQP 1.0 §1): made of octets, and octets of them.

codec.py says how they look on the wire, and reads in place what need not be whole.
"""

import struct

from ..compat import const, u32
from ..errors import SyntaxFailure
from .codec import MAX_DEPTH, WIDTHS, ascii7, skip_descriptors, utf8

_DESCRIBED = const(0x00)
_NULL = const(0x40)
_TRUE = const(0x41)
_FALSE = const(0x42)
_LIST_0 = const(0x45)
_SMALL_LONG = const(0x55)
_BOOLEAN = const(0x56)
_CHAR = const(0x73)
_BINARY_8 = const(0xA0)
_STRING_8 = const(0xA1)
_SYMBOL_8 = const(0xA3)
_LIST_8 = const(0xC0)
_MAP_8 = const(0xC1)
_ARRAY_8 = const(0xE0)

# How struct reads and writes those that are numbers to it.
_FORMATS = {
    0x50: ">B", 0x51: ">b", 0x52: ">B", 0x53: ">B", 0x54: ">b", 0x55: ">b", 0x60: ">H", 0x61: ">h",
    0x70: ">I", 0x71: ">i", 0x72: ">f", 0x73: ">I", 0x80: ">Q", 0x81: ">q", 0x82: ">d",
    0x83: ">q",
}  # fmt: skip


class Symbol:
    """An AMQP symbol: *text* of ASCII letters."""

    def __init__(self, text):
        self.text = text

    def __eq__(self, other):
        return isinstance(other, Symbol) and self.text == other.text

    def __hash__(self):
        return hash(self.text)

    def __repr__(self):
        return "Symbol(%r)" % self.text


class Described:
    """A described value."""

    def __init__(self, descriptor, value):
        self.descriptor = descriptor
        self.value = value

    def __eq__(self, other):
        return (
            isinstance(other, Described)
            and self.descriptor == other.descriptor
            and self.value == other.value
        )

    def __repr__(self):
        return "Described(%r, %r)" % (self.descriptor, self.value)


class Typed:
    """A value with the constructor it has, or shall have, on the wire.

    code   constructor octet
    value  as read_value() tells it; of an array its items, of a decimal, a uuid and a char's, a
           timestamp's data: octets, octets, a number, a number
    of     of an array: the constructor of its items
    """

    def __init__(self, code, value=None, of=None):
        self.code = code
        self.value = value
        self.of = of

    def __eq__(self, other):
        return (
            isinstance(other, Typed)
            and (self.code, self.of) == (other.code, other.of)
            and self.value == other.value
        )

    def __repr__(self):
        return "Typed(0x%02x, %r, %r)" % (self.code, self.value, self.of)


# --- reading ---


def read_value(buf, i, typed=False):
    """The value at *i*, which check_value() passed, and the index behind it.

    null, booleans, numbers, strings and binary come as Python's own, chars as str, decimals and
    uuids as their octets, lists and arrays as list, maps as dict, or as a list of pairs when a key
    cannot be one of a dict. Symbols are Symbol, described values Described.

    typed  everything that is not described comes as Typed, so that write_value() makes the same
           octets again

    Raises SyntaxFailure for text that is none, for a char that does not exist and a key that is
    there twice.
    """
    outer = []  # (items, left, shared, code, of) of the compounds around, innermost last
    items = []
    left = 1
    shared = -1
    code = of = -1  # of this compound; _DESCRIBED for a descriptor and its value
    while True:
        while not left:
            if not outer:
                return items[0], i
            done = _compound(code, items, of, typed)
            items, left, shared, code, of = outer.pop()
            items.append(done)
        left -= 1
        kind = shared
        if kind < 0:
            kind = buf[i]
            i += 1
        if kind == _DESCRIBED or _LIST_8 <= kind or kind == _LIST_0:
            if len(outer) > 2 * MAX_DEPTH:  # check_value() does not count descriptions
                raise SyntaxFailure("values nested deeper than %d" % MAX_DEPTH)
            outer.append((items, left, shared, code, of))
            items = []
            shared = -1
            code = kind
            of = None
            if kind == _DESCRIBED:
                left = 2
            elif kind == _LIST_0:
                left = 0
            else:
                wide = kind & 0x10
                stop = i + (4 + u32(buf, i) if wide else 1 + buf[i])
                left = u32(buf, i + 4) if wide else buf[i + 1]
                i += 8 if wide else 2
                if kind >= _ARRAY_8 and i < stop:
                    begin = i
                    i = skip_descriptors(buf, i, stop)
                    of = bytes(buf[begin : i + 1])
                    shared = buf[i]
                    i += 1
            continue
        value, i = _read_one(buf, i, kind)
        items.append(Typed(kind, value) if typed else value)


def _compound(code, items, of, typed):
    if code == _DESCRIBED:
        return Described(items[0], items[1])
    if code == _MAP_8 or code == _MAP_8 + 0x10:
        items = _map(items, typed)
    if typed:
        return Typed(code, items, of)
    if of is not None and len(of) > 1:
        descriptor = read_value(of, 1)[0]
        return [Described(descriptor, item) for item in items]
    return items


def _map(items, typed):
    pairs = [(items[k], items[k + 1]) for k in range(0, len(items), 2)]
    if typed:
        return pairs
    try:
        found = dict(pairs)
    except TypeError:
        return pairs
    if len(found) < len(pairs):
        raise SyntaxFailure("a key twice in one map")
    return found


def _read_one(buf, i, code):
    """The value of constructor *code* whose data are at *i*, and the index behind them."""
    if code >= _BINARY_8:
        n = u32(buf, i) if code & 0x10 else buf[i]
        i += 4 if code & 0x10 else 1
        octets = bytes(buf[i : i + n])
        kind = code & 0x0F
        if kind == 1:
            return utf8(octets), i + n
        return Symbol(str(ascii7(octets), "utf-8")) if kind == 3 else octets, i + n
    stop = i + WIDTHS[code >> 4]
    if code in _FORMATS:
        value = struct.unpack(_FORMATS[code], bytes(buf[i:stop]))[0]
        if code == _CHAR:
            if value > 0x10FFFF or 0xD800 <= value < 0xE000:
                raise SyntaxFailure("no character 0x%x" % value)
            value = chr(value)
        return value, stop
    if code == _BOOLEAN:
        return buf[i] == 1, stop
    if i == stop:
        return {_NULL: None, _TRUE: True, _FALSE: False}.get(code, 0), stop
    return bytes(buf[i:stop]), stop  # decimals and uuids


# --- writing ---


def write_value(value):
    """The octets of *value*: what read_value() answers, in the shortest form there is.

    An int becomes a long, a list or tuple a list, a dict a map. Typed says the constructor.
    Raises SyntaxFailure for what has no place in AMQP, or does not fit its constructor.
    """
    outer = []  # (parts, values to come, code, of) of the compounds around, innermost last
    parts = []
    coming = [value]
    code = of = -1
    while True:
        while not coming:
            if not outer:
                return parts[0]
            done = _join(code, parts, of)
            parts, coming, code, of = outer.pop()
            parts.append(done[1:] if code >= _ARRAY_8 else done)
        value = coming.pop()
        inner = None
        kind = -1
        shared = None
        if isinstance(value, Described):
            kind = _DESCRIBED
            inner = [value.value, value.descriptor]
        elif isinstance(value, Typed):
            kind = value.code
            shared = value.of
            inner = value.value
            if kind < _LIST_8 and kind != _LIST_0:
                inner = None
            elif kind == _MAP_8 or kind == _MAP_8 + 0x10:
                inner = [each for pair in inner for each in pair][::-1]
            else:
                inner = list(inner)[::-1]
        elif isinstance(value, (list, tuple)):
            kind = _LIST_8
            inner = list(value)[::-1]
        elif isinstance(value, dict):
            kind = _MAP_8
            inner = [each for key in value for each in (key, value[key])][::-1]
        if inner is None:
            if code >= _ARRAY_8:
                parts.append(_data(of[-1], value))
            else:
                parts.append(_write_one(value))
            continue
        if len(outer) == MAX_DEPTH:
            raise SyntaxFailure("values nested deeper than %d" % MAX_DEPTH)
        outer.append((parts, coming, code, of))
        parts = []
        coming = inner
        code = kind
        of = shared


def _join(code, parts, of):
    """The octets of a compound or described value from those of its items."""
    body = b"".join(parts)
    if code == _DESCRIBED:
        return b"\x00" + body
    if code == _LIST_0:
        return b"\x45"
    if of is not None:
        body = of + body
    if code & 0x10:
        return struct.pack(">BII", code, 4 + len(body), len(parts)) + body
    if len(body) < 255 and len(parts) < 256:
        return bytes((code, 1 + len(body), len(parts))) + body
    return struct.pack(">BII", code | 0x10, 4 + len(body), len(parts)) + body


def _write_one(value):
    if isinstance(value, Typed):
        return bytes((value.code,)) + _data(value.code, value)
    if value is None:
        return b"\x40"
    if value is True or value is False:
        return b"\x41" if value else b"\x42"
    if isinstance(value, int):
        if -0x80 <= value < 0x80:
            return bytes((_SMALL_LONG, value & 0xFF))
        if not -0x8000000000000000 <= value < 0x8000000000000000:
            raise SyntaxFailure("%d is too large for a long" % value)
        return b"\x81" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"\x82" + struct.pack(">d", value)
    if isinstance(value, str):
        return _write_octets(_STRING_8, value.encode())
    if isinstance(value, Symbol):
        return _write_octets(_SYMBOL_8, ascii7(value.text.encode()))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _write_octets(_BINARY_8, bytes(value))
    raise SyntaxFailure("nothing in AMQP is a %s" % type(value).__name__)


def _write_octets(code, octets):
    if len(octets) < 256:
        return bytes((code, len(octets))) + octets
    return struct.pack(">BI", code | 0x10, len(octets)) + octets


def _data(code, value):
    """The data of *value* for the constructor *code*."""
    if isinstance(value, Typed):
        value = value.value
    if code in _FORMATS:
        if code == _CHAR:
            value = ord(value)
        return struct.pack(_FORMATS[code], value)
    if code == _BOOLEAN:
        return b"\x01" if value else b"\x00"
    width = 0 if code >= _BINARY_8 else WIDTHS[code >> 4]
    if code < _BINARY_8:
        if width and len(value) != width:
            raise SyntaxFailure("%d octets for the constructor 0x%02x" % (len(value), code))
        return bytes(value) if width else b""
    if isinstance(value, Symbol):
        value = value.text
    octets = value.encode() if isinstance(value, str) else bytes(value)
    return struct.pack(">I" if code & 0x10 else ">B", len(octets)) + octets
