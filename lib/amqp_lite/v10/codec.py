"""AMQP 1.0 values (AMQP 1.0 §1) where they are: checked, found and read in the octets that came.

A value is a constructor octet and its data:

    | 0x00 | descriptor | value |        described; the descriptor is any value
    | 0x4_ | nothing    0x5_ 1   0x6_ 2   0x7_ 4   0x8_ 8   0x9_ 16 octets |
    | 0xA_ | size 1 | octets |           0xB_ size 4
    | 0xC_ | size 1 | count 1 | items |  0xD_ both 4: list, map
    | 0xE_ | size 1 | count 1 | constructor | items without one |  0xF_ both 4: array

The sizes of compounds count everything behind them. check_value() believes none of them: it walks
without recursion, MAX_DEPTH deep at most and MAX_NODES values together, and what it passed the
other functions need not doubt, nor those of values.py, which makes whole values of them.
"""

from ..compat import const, equal, u16, u32
from ..errors import SyntaxFailure

MAX_DEPTH = const(8)  # compounds within each other
MAX_NODES = const(2048)  # values of one frame, descriptors included

_DESCRIBED = const(0x00)
_UINT_0 = const(0x43)
_ULONG_0 = const(0x44)
_LIST_0 = const(0x45)
_BOOLEAN = const(0x56)
_SMALL_UINT = const(0x52)
_SMALL_ULONG = const(0x53)
_UINT = const(0x70)
_ULONG = const(0x80)
_BINARY_8 = const(0xA0)
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
WIDTHS = b"\0\0\0\0\0\1\2\4\x08\x10"
# Of the compounds around what check_value() looks at, innermost last: stop, left, shared.
_OUTER = [0] * (3 * MAX_DEPTH)


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
            width = WIDTHS[code >> 4]
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
            i = skip_descriptors(buf, i, stop)
            shared = buf[i]
            i += 1
            if shared not in _CODES:
                raise SyntaxFailure("unknown constructor 0x%02x" % shared)
            if shared < 0x50 and left > MAX_NODES:
                # They take no octets: nothing else would bound them.
                raise SyntaxFailure("more than %d values" % MAX_NODES)


def skip_descriptors(buf, i, stop):
    """The index of the constructor of an array's items, behind their descriptors.

    Those may be numbers and symbols only, as all that are defined anywhere.
    """
    while i < stop and buf[i] == _DESCRIBED:
        i += 1
        code = buf[i] if i < stop else -1
        if code == _SYMBOL_8 and i + 1 < stop:
            i += 2 + buf[i + 1]
        elif code == _ULONG or code == _SMALL_ULONG or code == _ULONG_0:
            i += 1 + WIDTHS[code >> 4]
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
            i += WIDTHS[code >> 4]
        elif code & 0x10:  # 0xB_, 0xD_, 0xF_
            i += 4 + u32(buf, i)
        else:
            i += 1 + buf[i]
    return i


# --- reading one value ---


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
    return utf8(bytes(buf[at : at + n]))


def symbol_at(buf, i):
    """The letters of the symbol at *i* as octets. Raises SyntaxFailure when it is none."""
    at, n = octets_at(buf, i)
    if at < 0 or buf[i] & 0x0F != 3:
        raise SyntaxFailure("a symbol was due, not 0x%02x" % buf[i])
    return ascii7(bytes(buf[at : at + n]))


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


def utf8(octets):
    try:
        return str(octets, "utf-8")
    except UnicodeError:
        raise SyntaxFailure("a string is not UTF-8")


def ascii7(octets):
    for octet in octets:
        if octet > 0x7F:
            raise SyntaxFailure("a symbol is not ASCII")
    return octets
