"""AMQP 1.0 values (AMQP 1.0 §1): checked in place, read, compared and written.

A value is a constructor octet and its data:

    | 0x00 | descriptor | value |        described; the descriptor is any value
    | 0x4_ | nothing    0x5_ 1   0x6_ 2   0x7_ 4   0x8_ 8   0x9_ 16 octets |
    | 0xA_ | size 1 | octets |           0xB_ size 4
    | 0xC_ | size 1 | count 1 | items |  0xD_ both 4: list, map
    | 0xE_ | size 1 | count 1 | constructor | items without one |  0xF_ both 4: array

The sizes of compounds count everything behind them. check_value() believes none of them: it walks
without recursion, MAX_DEPTH deep at most and MAX_NODES values together, and what it passed the
other functions need not doubt.
"""

import struct

from ..compat import const, equal, u16, u32
from ..errors import SyntaxFailure

MAX_DEPTH = const(8)  # compounds within each other
MAX_NODES = const(2048)  # values of one frame, descriptors included

_DESCRIBED = const(0x00)
_NULL = const(0x40)
_TRUE = const(0x41)
_FALSE = const(0x42)
_UINT_0 = const(0x43)
_ULONG_0 = const(0x44)
_LIST_0 = const(0x45)
_BOOLEAN = const(0x56)
_SMALL_UINT = const(0x52)
_SMALL_ULONG = const(0x53)
_SMALL_INT = const(0x54)
_SMALL_LONG = const(0x55)
_UINT = const(0x70)
_CHAR = const(0x73)
_ULONG = const(0x80)
_LONG = const(0x81)
_DOUBLE = const(0x82)
_BINARY_8 = const(0xA0)
_STRING_8 = const(0xA1)
_SYMBOL_8 = const(0xA3)
_LIST_8 = const(0xC0)
_MAP_8 = const(0xC1)
_ARRAY_8 = const(0xE0)

# All constructors there are, and the octets of data by their upper half.
_CODES = bytes((
    0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x60, 0x61,
    0x70, 0x71, 0x72, 0x73, 0x74, 0x80, 0x81, 0x82, 0x83, 0x84, 0x94, 0x98,
    0xA0, 0xA1, 0xA3, 0xB0, 0xB1, 0xB3, 0xC0, 0xC1, 0xD0, 0xD1, 0xE0, 0xF0,
))  # fmt: skip
_WIDTHS = b"\0\0\0\0\0\1\2\4\x08\x10"
# Of the compounds around what check_value() looks at, innermost last: stop, left, shared.
_OUTER = [0] * (3 * MAX_DEPTH)
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


# --- checking ---


def check_value(buf, i, end):
    """Walk the value at *i*: the index behind it.

    Raises SyntaxFailure when it does not fit before *end*, has a constructor that does not exist,
    a size or count that is not that of its items, a map with a key too much, a boolean that is
    neither, or more depth or values than are taken here. Text is not looked at, see text_at().
    Allocates nothing.
    """
    outer = _OUTER
    depth = 0
    stop = end
    left = 1  # values to come in this compound
    shared = -1  # the constructor of an array's items
    nodes = MAX_NODES
    while True:
        while not left:
            if not depth:
                return i
            if i != stop:
                raise SyntaxFailure("a compound is longer than its items")
            depth -= 3
            stop = outer[depth]
            left = outer[depth + 1]
            shared = outer[depth + 2]
        left -= 1
        nodes -= 1
        if nodes < 0:
            raise SyntaxFailure("more than %d values" % MAX_NODES)
        code = shared
        if code < 0:
            if i >= stop:
                raise SyntaxFailure("a value is missing")
            code = buf[i]
            i += 1
            if code == _DESCRIBED:
                left += 2  # its descriptor and its value
                continue
            if code not in _CODES:
                raise SyntaxFailure("unknown constructor 0x%02x" % code)
        if code < _BINARY_8:
            width = _WIDTHS[code >> 4]
            if width > stop - i:
                raise SyntaxFailure("a value runs past its end")
            if code == _BOOLEAN and buf[i] > 1:
                raise SyntaxFailure("a boolean of %d" % buf[i])
            i += width
            continue
        narrow = code < 0xB0 or 0xC0 <= code < 0xD0 or 0xE0 <= code < 0xF0
        width = 1 if narrow else 4
        if width > stop - i:
            raise SyntaxFailure("a size runs past its end")
        size = buf[i] if narrow else u32(buf, i)
        i += width
        if size > stop - i:
            raise SyntaxFailure("a value runs past its end")
        if code < _LIST_8:
            i += size
            continue
        if size < width:
            raise SyntaxFailure("a compound without a count")
        if depth == 3 * MAX_DEPTH:
            raise SyntaxFailure("values nested deeper than %d" % MAX_DEPTH)
        outer[depth] = stop
        outer[depth + 1] = left
        outer[depth + 2] = shared
        depth += 3
        stop = i + size
        left = buf[i] if narrow else u32(buf, i)
        i += width
        shared = -1
        if code == _MAP_8 or code == _MAP_8 + 0x10:
            if buf[i - 1] & 1:  # the count's last octet: u32() does not tell large ones apart
                raise SyntaxFailure("a map with a key and no value")
        elif code >= _ARRAY_8:
            if i == stop and not left:
                continue
            i = _skip_descriptors(buf, i, stop)
            shared = buf[i]
            i += 1
            if shared not in _CODES:
                raise SyntaxFailure("unknown constructor 0x%02x" % shared)
            if shared < 0x50 and left > MAX_NODES:
                # They take no octets: nothing else would bound them.
                raise SyntaxFailure("more than %d values" % MAX_NODES)


def _skip_descriptors(buf, i, stop):
    """The index of the constructor of an array's items, behind their descriptors.

    Those may be numbers and symbols only, as all that are defined anywhere.
    """
    while i < stop and buf[i] == _DESCRIBED:
        i += 1
        code = buf[i] if i < stop else -1
        if code == _SYMBOL_8 and i + 1 < stop:
            i += 2 + buf[i + 1]
        elif code == _ULONG or code == _SMALL_ULONG or code == _ULONG_0:
            i += 1 + _WIDTHS[code >> 4]
        else:
            raise SyntaxFailure("an array of items with this descriptor")
    if i >= stop:
        raise SyntaxFailure("an array without the constructor of its items")
    return i


def skip_value(buf, i):
    """The index behind the value at *i*, which check_value() passed."""
    values = 1
    while values:
        code = buf[i]
        i += 1
        if code == _DESCRIBED:
            values += 1
            continue
        values -= 1
        if code < _BINARY_8:
            i += _WIDTHS[code >> 4]
        elif code & 0x10:  # 0xB_, 0xD_, 0xF_
            i += 4 + u32(buf, i)
        else:
            i += 1 + buf[i]
    return i


# --- reading one value ---


def is_null(buf, i):
    """Whether the value at *i* is null."""
    return buf[i] == _NULL


def octets_at(buf, i):
    """(index, length) of the octets of the binary, string or symbol at *i*; (-1, 0): it is none.

    Which of them it is, the lower half of buf[i] says: 0, 1, 3.
    """
    code = buf[i]
    if code & 0xF0 == 0xA0:
        return i + 2, buf[i + 1]
    if code & 0xF0 == 0xB0:
        return i + 5, u32(buf, i + 1)
    return -1, 0


def octets_begin(buf, i):
    """The index of them alone, -1 for none; as octets_size() it allocates nothing."""
    code = buf[i] & 0xF0
    return i + 2 if code == 0xA0 else i + 5 if code == 0xB0 else -1


def octets_size(buf, i):
    """Their length alone."""
    return u32(buf, i + 1) if buf[i] & 0x10 else buf[i + 1]


def text_at(buf, i):
    """The string at *i*. Raises SyntaxFailure when it is none, or not UTF-8."""
    at, n = octets_at(buf, i)
    if at < 0 or buf[i] & 0x0F != 1:
        raise SyntaxFailure("a string was due, not 0x%02x" % buf[i])
    return _text(bytes(buf[at : at + n]))


def symbol_at(buf, i):
    """The letters of the symbol at *i* as octets. Raises SyntaxFailure when it is none."""
    at, n = octets_at(buf, i)
    if at < 0 or buf[i] & 0x0F != 3:
        raise SyntaxFailure("a symbol was due, not 0x%02x" % buf[i])
    return _ascii(bytes(buf[at : at + n]))


def is_symbol(buf, i, name):
    """Whether the value at *i* is the symbol *name* (octets). Allocates nothing."""
    n = len(name)
    return buf[i] == _SYMBOL_8 and buf[i + 1] == n and equal(buf, i + 2, name, n)


def uint_at(buf, i, most=0x3FFFFFFF):
    """The uint or ulong at *i*, but *most* at most. Raises SyntaxFailure when it is none.

    What a board can hold without allocating is less than a uint: see serial_at().
    """
    code = buf[i]
    if code == _SMALL_UINT or code == _SMALL_ULONG:
        value = buf[i + 1]
    elif code == _UINT_0 or code == _ULONG_0:
        value = 0
    elif code == _UINT:
        value = most if buf[i + 1] & 0xC0 else u32(buf, i + 1)
    elif code == _ULONG:
        above = buf[i + 1] | buf[i + 2] | buf[i + 3] | buf[i + 4] | buf[i + 5] & 0xC0
        value = most if above else u32(buf, i + 5)
    else:
        raise SyntaxFailure("an unsigned number was due, not 0x%02x" % code)
    return value if value < most else most


def serial_at(buf, i):
    """The lower 30 bits of the uint at *i*. Raises SyntaxFailure when it is none."""
    code = buf[i]
    if code == _UINT:
        return (buf[i + 1] & 0x3F) << 24 | buf[i + 2] << 16 | u16(buf, i + 3)
    if code == _SMALL_UINT:
        return buf[i + 1]
    if code == _UINT_0:
        return 0
    raise SyntaxFailure("a uint was due, not 0x%02x" % code)


def serial_top_at(buf, i):
    """The upper 2 bits of the uint at *i*."""
    return buf[i + 1] >> 6 if buf[i] == _UINT else 0


def boolean_at(buf, i):
    """The boolean at *i*. Raises SyntaxFailure when it is none."""
    code = buf[i]
    if code == _TRUE or code == _FALSE:
        return code == _TRUE
    if code == _BOOLEAN:
        return buf[i + 1] == 1
    raise SyntaxFailure("a boolean was due, not 0x%02x" % code)


def items_at(buf, i):
    """(index of the first item, how many) of the list or map at *i*; a map's keys count as well.

    Raises SyntaxFailure when it is neither.
    """
    code = buf[i]
    if code == _LIST_0:
        return i + 1, 0
    if code == _LIST_8 or code == _MAP_8:
        return i + 3, buf[i + 2]
    if code == _LIST_8 + 0x10 or code == _MAP_8 + 0x10:
        return i + 9, u32(buf, i + 5)
    raise SyntaxFailure("a list or a map was due, not 0x%02x" % code)


def find_key(buf, i, name):
    """The index of the value that the map at *i* has for the string or symbol *name*; -1: none."""
    i, count = items_at(buf, i)
    n = len(name)
    while count > 0:
        at, size = octets_at(buf, i)
        i = skip_value(buf, i)
        if size == n and at >= 0 and equal(buf, at, name, n):
            return i
        i = skip_value(buf, i)
        count -= 2
    return -1


def _text(octets):
    try:
        return str(octets, "utf-8")
    except UnicodeError:
        raise SyntaxFailure("a string is not UTF-8")


def _ascii(octets):
    for octet in octets:
        if octet > 0x7F:
            raise SyntaxFailure("a symbol is not ASCII")
    return octets


# --- reading whole values ---


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
                    i = _skip_descriptors(buf, i, stop)
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
            return _text(octets), i + n
        return Symbol(str(_ascii(octets), "utf-8")) if kind == 3 else octets, i + n
    stop = i + _WIDTHS[code >> 4]
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
        return _write_octets(_SYMBOL_8, _ascii(value.text.encode()))
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
    width = 0 if code >= _BINARY_8 else _WIDTHS[code >> 4]
    if code < _BINARY_8:
        if width and len(value) != width:
            raise SyntaxFailure("%d octets for the constructor 0x%02x" % (len(value), code))
        return bytes(value) if width else b""
    if isinstance(value, Symbol):
        value = value.text
    octets = value.encode() if isinstance(value, str) else bytes(value)
    return struct.pack(">I" if code & 0x10 else ">B", len(octets)) + octets
