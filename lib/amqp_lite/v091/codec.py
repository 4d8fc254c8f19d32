"""AMQP 0-9-1 values: short strings, field tables, content properties.

Field tables are read in place and without recursion: nesting is at most MAX_DEPTH, and one frame
has at most MAX_FIELDS fields, whatever it claims. Type letters are those that brokers and clients
use, not those of the specification's grammar (rabbitmq.com "AMQP 0-9-1 Errata" §3).
"""

import struct

from ..broker.message import MAX_TTL_MS
from ..compat import const, equal, hash_octets, load, u16, u32
from ..errors import PreconditionFailed, SyntaxFailure

MAX_DEPTH = const(8)
MAX_FIELDS = const(1024)

# Octets of a value by its type letter; tables, arrays and strings carry a length of their own.
_SIZES = {
    0x74: 1,  # t boolean
    0x62: 1,  # b int8
    0x42: 1,  # B uint8
    0x73: 2,  # s int16
    0x55: 2,  # U int16 (specification)
    0x75: 2,  # u uint16
    0x49: 4,  # I int32
    0x69: 4,  # i uint32
    0x6C: 8,  # l int64
    0x4C: 8,  # L int64 (specification, py-amqp)
    0x66: 4,  # f float
    0x64: 8,  # d double
    0x44: 5,  # D decimal
    0x54: 8,  # T timestamp
    0x56: 0,  # V void
}
_UNSIGNED = b"BuiT"
_TABLE = const(0x46)  # F
_ARRAY = const(0x41)  # A
_LONGSTR = const(0x53)  # S
_BYTES = const(0x78)  # x
_BOOLEAN = const(0x74)
_VOID = const(0x56)


def check_text(buf, start, end):
    """Raises SyntaxFailure unless buf[start:end] is UTF-8 without NUL, CR and LF."""
    octets = bytes(buf[start:end])
    if b"\0" in octets or b"\r" in octets or b"\n" in octets:
        raise SyntaxFailure("a name holds NUL, CR or LF")
    try:
        # MicroPython checks UTF-8 here too.
        str(octets, "utf-8")
    except UnicodeError:
        raise SyntaxFailure("a name is not UTF-8")


def check_table(buf, i, end):
    """Walk the table at *i*: the index behind it.

    Raises SyntaxFailure when it does not fit before *end*, has an unknown type, is nested deeper
    than MAX_DEPTH, has more than MAX_FIELDS fields or one name twice. Allocates nothing for a flat
    table of a few fields.
    """
    stop = _end_of(buf, i, end)
    i += 4
    if i == stop:
        return stop
    outer = None  # of the tables and arrays around, innermost last: stop, first, seen
    first = i  # field of this table; -1 in an array
    seen = 0  # see _see()
    fields = MAX_FIELDS
    while True:
        while i == stop:
            if not outer:
                return stop
            seen = outer.pop()
            first = outer.pop()
            stop = outer.pop()
        fields -= 1
        if not fields:
            raise SyntaxFailure("more than %d fields in one table" % MAX_FIELDS)
        name = i
        if first >= 0:
            i += 1 + buf[i]
        if i >= stop:
            raise SyntaxFailure("a field runs past the end of its table")
        if first >= 0:
            seen = _see(buf, first, name, seen)
        kind = buf[i]
        i += 1
        size = _SIZES.get(kind, -1)
        if size >= 0:
            i += size
        elif kind == _LONGSTR or kind == _BYTES:
            i = _end_of(buf, i, stop)
        elif kind == _TABLE or kind == _ARRAY:
            inner = _end_of(buf, i, stop)
            if outer is None:
                outer = []
            if len(outer) == 3 * MAX_DEPTH:
                raise SyntaxFailure("tables nested deeper than %d" % MAX_DEPTH)
            outer.append(stop)
            outer.append(first)
            outer.append(seen)
            stop = inner
            i += 4
            first = i if kind == _TABLE else -1
            seen = 0
        else:
            raise SyntaxFailure("unknown field type 0x%02x" % kind)
        if i > stop:
            raise SyntaxFailure("a field runs past the end of its table")


def _see(buf, first, i, seen):
    """Note the field name at *i*, in the table whose first field is at *first*.

    seen  bits by the hashes of the names so far; their set, once two names shared a bit

    Returns *seen* for the next.

    Raises SyntaxFailure for a name that was there before: "duplicate fields are illegal", AMQP
    0-9-1 §4.2.5.5. The work grows with the fields, not with their square.
    """
    n = 1 + buf[i]
    if isinstance(seen, int):
        bit = 1 << hash_octets(buf, i, n) % 30
        if not seen & bit:
            return seen | bit
        seen = set()
        while first < i:
            stop = first + 1 + buf[first]
            seen.add(bytes(buf[first:stop]))
            first = skip_value(buf, stop)
    name = bytes(buf[i : i + n])
    if name in seen:
        raise SyntaxFailure("a field name twice in one table")
    seen.add(name)
    return seen


def _end_of(buf, i, end):
    """The index behind the long string or table at *i*; SyntaxFailure when that is past *end*."""
    if i + 4 > end:
        raise SyntaxFailure("a length runs past the end of its frame")
    stop = i + 4 + u32(buf, i)
    if stop > end:
        raise SyntaxFailure("a length runs past the end of its frame")
    return stop


def skip_value(buf, i):
    """The index behind the value at *i*, of a table that check_table() passed."""
    size = _SIZES.get(buf[i], -1)
    return i + 1 + size if size >= 0 else i + 5 + u32(buf, i + 1)


def read_table(buf, i):
    """The table at *i*, which check_table() passed: (dict by name as octets, index behind)."""
    stop = i + 4 + u32(buf, i)
    i += 4
    table = {}
    while i < stop:
        n = buf[i]
        name = bytes(buf[i + 1 : i + 1 + n])
        table[name], i = read_value(buf, i + 1 + n)
    return table, stop


def read_value(buf, i):
    """The value at *i*, type letter first, and the index behind it. Strings come as octets."""
    kind = buf[i]
    stop = skip_value(buf, i)
    i += 1
    if kind == _LONGSTR or kind == _BYTES:
        return bytes(buf[i + 4 : stop]), stop
    if kind == _TABLE:
        return read_table(buf, i)
    if kind == _ARRAY:
        items = []
        i += 4
        while i < stop:
            item, i = read_value(buf, i)
            items.append(item)
        return items, stop
    if kind == _VOID:
        return None, stop
    if kind == _BOOLEAN:
        return buf[i] != 0, stop
    octets = bytes(buf[i:stop])
    if kind == 0x66:
        return struct.unpack(">f", octets)[0], stop
    if kind == 0x64:
        return struct.unpack(">d", octets)[0], stop
    if kind == 0x44:
        return octets, stop  # a decimal: only compared and passed on
    value = 0
    for octet in octets:
        value = value << 8 | octet
    if kind not in _UNSIGNED and octets[0] & 0x80:
        value -= 1 << 8 * len(octets)
    return value, stop


def write_table(table):
    """The octets of *table*, a dict whose strings are str or octets."""
    parts = []
    for name in table:
        octets = _octets(name)
        parts.append(bytes((len(octets),)) + octets + write_value(table[name]))
    body = b"".join(parts)
    return struct.pack(">I", len(body)) + body


def write_value(value):
    """The octets of one field value with its type letter."""
    # MicroPython: True is no int there, and bool has to be asked for first here.
    if value is True or value is False:
        return b"t\x01" if value else b"t\x00"
    if value is None:
        return b"V"
    if isinstance(value, dict):
        return b"F" + write_table(value)
    if isinstance(value, (list, tuple)):
        items = b"".join([write_value(item) for item in value])
        return b"A" + struct.pack(">I", len(items)) + items
    if isinstance(value, int):
        if -0x80000000 <= value < 0x80000000:
            return b"I" + struct.pack(">i", value)
        if value > 0x7FFFFFFFFFFFFFFF:
            return b"T" + struct.pack(">Q", value)  # the only one without a sign
        return b"l" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"d" + struct.pack(">d", value)
    octets = _octets(value)
    return b"S" + struct.pack(">I", len(octets)) + octets


def _octets(value):
    if isinstance(value, int):
        value = str(value)  # bytes(5) would be five NULs
    return value.encode() if isinstance(value, str) else bytes(value)


# --- content properties, AMQP 0-9-1 §4.2.6.1 and the basic class ---

_CONTENT_TYPE = const(0x8000)
_CONTENT_ENCODING = const(0x4000)
_HEADERS = const(0x2000)
_DELIVERY_MODE = const(0x1000)
_PRIORITY = const(0x0800)
_CORRELATION_ID = const(0x0400)
_REPLY_TO = const(0x0200)
_EXPIRATION = const(0x0100)
_MESSAGE_ID = const(0x0080)
_TIMESTAMP = const(0x0040)
_TYPE = const(0x0020)
_USER_ID = const(0x0010)
_APP_ID = const(0x0008)
_CLUSTER_ID = const(0x0004)


class Properties:
    """Where the parts of one property list are. One is made per connection and reused."""

    def __init__(self):
        self.persistent = False
        self.ttl_ms = -1
        self.reply_to = -1  # index of the short string; -1: absent
        self.user_id = -1

    def scan(self, buf, i, end):
        """Check the property flags and list in buf[i:end] and note what the broker needs.

        Raises SyntaxFailure when they do not fill it exactly, PreconditionFailed for an expiration
        that is no number of milliseconds. Allocates nothing, but for an expiration.
        """
        self.persistent = False
        self.ttl_ms = -1
        self.reply_to = -1
        self.user_id = -1
        flags = u16(buf, i)
        i += 2
        if flags & 3:
            raise SyntaxFailure("the basic class has 14 properties")
        try:
            if flags & _CONTENT_TYPE:
                i += 1 + buf[i]
            if flags & _CONTENT_ENCODING:
                i += 1 + buf[i]
            if flags & _HEADERS:
                i = check_table(buf, i, end)
            if flags & _DELIVERY_MODE:
                self.persistent = buf[i] == 2
                i += 1
            if flags & _PRIORITY:
                i += 1
            if flags & 0x07F8:
                if flags & _CORRELATION_ID:
                    i += 1 + buf[i]
                if flags & _REPLY_TO:
                    self.reply_to = i
                    i += 1 + buf[i]
                if flags & _EXPIRATION:
                    n = i + 1 + buf[i]
                    if n <= end:
                        self.ttl_ms = milliseconds(bytes(buf[i + 1 : n]))
                    i = n
                if flags & _MESSAGE_ID:
                    i += 1 + buf[i]
                if flags & _TIMESTAMP:
                    i += 8
                if flags & _TYPE:
                    i += 1 + buf[i]
                if flags & _USER_ID:
                    self.user_id = i
                    i += 1 + buf[i]
                if flags & _APP_ID:
                    i += 1 + buf[i]
            if flags & _CLUSTER_ID:
                i += 1 + buf[i]
        except IndexError:
            i = -1
        if i != end:
            raise SyntaxFailure("the properties do not fill their content header")


def translated(broker, message):
    """The properties of *message*, one of AMQP 1.0, as 0-9-1 encodes them: see Broker."""
    # Late: who never meets AMQP 1.0 does not pay for it.
    return load("amqp_lite.convert").as_v091(broker, message).head


def milliseconds(digits):
    """The number an expiration says. Raises PreconditionFailed unless 0 <= it <= MAX_TTL_MS."""
    value = 0
    for digit in digits:
        value = value * 10 + digit - 48
        if not 48 <= digit <= 57 or value > MAX_TTL_MS:
            value = -1
            break
    if value < 0 or not digits:
        raise PreconditionFailed(
            "invalid expiration: expected milliseconds as digits, at most %d" % MAX_TTL_MS
        )
    return value


def find_headers(buf, i, end):
    """Index of the headers table in the property list at *i*; -1 when it has none."""
    flags = u16(buf, i)
    if not flags & _HEADERS:
        return -1
    i += 2
    if flags & _CONTENT_TYPE:
        i += 1 + buf[i]
    if flags & _CONTENT_ENCODING:
        i += 1 + buf[i]
    return i


def match_headers(binding, buf, i, end):
    """Whether the property list in buf[i:end] satisfies the *binding* of a headers exchange.

    Strings and numbers are compared in place. A void in the binding asks only that the header is
    there. Headers that begin with `x-` count for all-with-x and any-with-x alone.
    """
    arguments = binding.arguments
    mode = arguments.get(b"x-match", b"all")
    every = mode.startswith(b"all")
    with_x = mode.endswith(b"-with-x")
    i = find_headers(buf, i, end)
    for name in arguments:
        if name == b"x-match" or (not with_x and name.startswith(b"x-")):
            continue
        same = i >= 0 and _has_header(buf, i, name, arguments[name])
        if same and not every:
            return True
        if not same and every:
            return False
    return every


def _has_header(buf, i, name, value):
    stop = i + 4 + u32(buf, i)
    i += 4
    n = len(name)
    while i < stop:
        size = buf[i]
        at = i + 1 + size
        if size == n and equal(buf, i + 1, name, n):
            return value is None or _is_value(buf, at, value)
        i = skip_value(buf, at)
    return False


def _is_value(buf, i, value):
    kind = buf[i]
    if kind == _LONGSTR or kind == _BYTES:
        n = u32(buf, i + 1)
        return isinstance(value, bytes) and n == len(value) and equal(buf, i + 5, value, n)
    other = read_value(buf, i)[0]
    return (other is True or other is False) == (
        value is True or value is False
    ) and other == value


def shortstr(value):
    """*value* with its length octet. Raises SyntaxFailure above 255 octets."""
    octets = _octets(value)
    if len(octets) > 255:
        raise SyntaxFailure("a short string of %d octets, 255 are allowed" % len(octets))
    return bytes((len(octets),)) + octets
