"""The described lists that AMQP 1.0 is made of: frame bodies, outcomes, termini, errors.

Each has a numeric descriptor, a symbolic one that means the same, and fields in a fixed order;
those at the end may be left out, and null stands for a field that is not given (AMQP 1.0 §1.4).
Fields finds them in place; described() writes them, and frame() makes a frame of what it wrote.
"""

import struct

from ..compat import const, u32
from ..errors import SyntaxFailure
from .codec import (
    check_value,
    octets_at,
    serial_at,
    serial_top_at,
    symbol_at,
    text_at,
    uint_at,
)
from .conditions import InvalidField, condition_of
from .values import Described, Symbol, Typed, write_value

# Frame bodies, AMQP 1.0 §2.7:
OPEN = const(0x10)
BEGIN = const(0x11)
ATTACH = const(0x12)
FLOW = const(0x13)
TRANSFER = const(0x14)
DISPOSITION = const(0x15)
DETACH = const(0x16)
END = const(0x17)
CLOSE = const(0x18)
ERROR = const(0x1D)
# Delivery states, §3.4:
RECEIVED = const(0x23)
ACCEPTED = const(0x24)
REJECTED = const(0x25)
RELEASED = const(0x26)
MODIFIED = const(0x27)
# Termini, §3.5:
SOURCE = const(0x28)
TARGET = const(0x29)
# Transactions, §4.5:
COORDINATOR = const(0x30)
DECLARE = const(0x31)
DISCHARGE = const(0x32)
DECLARED = const(0x33)
TRANSACTIONAL_STATE = const(0x34)
# Security, §5.3.3:
SASL_MECHANISMS = const(0x40)
SASL_INIT = const(0x41)
SASL_OUTCOME = const(0x44)
# Sections of a message that are lists, §3.2:
HEADER = const(0x70)
PROPERTIES = const(0x73)

# For each list its descriptor, how many fields it has, and a letter for each of them, see _KINDS:
# a capital one where the field is mandatory.
_LISTS = (
    b"\x10\x0aSsuhuaaaam"  # open
    b"\x11\x08hUUUuaam"  # begin
    b"\x12\x0eSUBccddmbulaam"  # attach
    b"\x13\x0buUUUuuuubbm"  # flow
    b"\x14\x0bUuxubbcdbbb"  # transfer
    b"\x15\x06BUubdb"  # disposition
    b"\x16\x03Ubd"  # detach
    b"\x17\x01d"  # end
    b"\x18\x01d"  # close
    b"\x1d\x03Ysm"  # error
    b"\x23\x02UL"  # received
    b"\x24\x00"  # accepted
    b"\x25\x01d"  # rejected
    b"\x26\x00"  # released
    b"\x27\x03bbm"  # modified
    b"\x28\x0b*uyubmymdaa"  # source
    b"\x29\x07*uyubma"  # target
    b"\x30\x01a"  # coordinator
    b"\x31\x01*"  # declare
    b"\x32\x02Xb"  # discharge
    b"\x33\x01X"  # declared
    b"\x34\x02Xd"  # transactional-state
    b"\x40\x01A"  # sasl-mechanisms
    b"\x41\x03Yxs"  # sasl-init
    b"\x42\x01X"  # sasl-challenge
    b"\x43\x01X"  # sasl-response
    b"\x44\x02Cx"  # sasl-outcome
    b"\x70\x05bcubu"  # header
    b"\x73\x0d*x*s**yyttsus"  # properties
)
# In the same order: their symbolic descriptors without "amqp:" and ":list".
_NAMES = (
    b"open begin attach flow transfer disposition detach end close error received "
    b"accepted rejected released modified source target coordinator declare discharge "
    b"declared transactional-state sasl-mechanisms sasl-init sasl-challenge sasl-response "
    b"sasl-outcome header properties"
)
# By descriptor: where in _LISTS its number of fields is; 0: there is no such list.
_PLACES = bytearray(PROPERTIES + 1)


def _find_places():
    i = 0
    while i < len(_LISTS):
        _PLACES[_LISTS[i]] = i + 1
        i += 2 + _LISTS[i + 1]


_find_places()
_MOST = const(14)  # fields
# The constructors a field may have, by its letter.
_KINDS = {
    0x61: b"\xa3\xb3\xe0\xf0",  # a: one symbol or an array of them
    0x62: b"\x41\x42\x56",  # b: boolean
    0x63: b"\x50",  # c: ubyte
    0x64: b"\x00",  # d: described
    0x68: b"\x60",  # h: ushort
    0x6C: b"\x44\x53\x80",  # l: ulong
    0x6D: b"\xc1\xd1",  # m: map
    0x73: b"\xa1\xb1",  # s: string
    0x74: b"\x83",  # t: timestamp
    0x75: b"\x43\x52\x70",  # u: uint
    0x78: b"\xa0\xb0",  # x: binary
    0x79: b"\xa3\xb3",  # y: symbol
}
_DESCRIPTION = const(200)  # letters of an error's text, and half as many that are no ASCII
_ANY = const(0x2A)
_CAPITAL = const(0x20)  # this bit is not set


class Fields:
    """Where the fields of one described list are. One is made per connection and reused.

    code  its numeric descriptor
    at    index of each field's value; -1: not given
    """

    def __init__(self):
        self.buf = None
        self.code = 0
        self.at = [-1] * _MOST

    def scan(self, buf, i, end):
        """Check the described list at *i* and note its fields: the index behind it.

        Raises SyntaxFailure when it cannot be read, InvalidField when a field has another type
        than it must have, or has to be there and is not. Allocates nothing when no field is a
        compound and the descriptor is a number.
        """
        self.buf = buf
        if i + 2 < end and not buf[i] and buf[i + 1] == 0x53:
            self.code = buf[i + 2]
            i += 3
        else:
            self.code, i = _read_descriptor(buf, i, end)
        place = _PLACES[self.code] if 0 <= self.code <= PROPERTIES else 0
        if not place:
            raise SyntaxFailure("unknown descriptor")
        most = _LISTS[place]
        if i + 9 > end and (i >= end or i + _heads(buf[i]) > end):
            raise SyntaxFailure("a list runs past its end")
        code = buf[i]
        if code == 0xC0:
            stop = i + 2 + buf[i + 1]
            count = buf[i + 2]
            i += 3
        elif code == 0x45:
            stop = i = i + 1
            count = 0
        elif code == 0xD0:
            stop = i + 5 + u32(buf, i + 1)
            count = u32(buf, i + 5)
            i += 9
        else:
            raise SyntaxFailure("a list was due, not 0x%02x" % code)
        if stop > end:
            raise SyntaxFailure("a list runs past its end")
        if count > most:
            raise SyntaxFailure("%s of %d fields" % (self.name(), count))
        at = self.at
        for k in range(most):
            place += 1
            letter = _LISTS[place]
            code = 0x40
            if k < count:
                if i >= stop:
                    raise SyntaxFailure("a field is missing")
                code = buf[i]
            if code == 0x40:
                if not letter & _CAPITAL:
                    raise InvalidField("field %d of %s is missing" % (k + 1, self.name()))
                at[k] = -1
                if k < count:
                    i += 1
            else:
                if letter != _ANY and code not in _KINDS[letter | _CAPITAL]:
                    raise InvalidField("field %d of %s is a 0x%02x" % (k + 1, self.name(), code))
                at[k] = i
                if code == 0x70:
                    i += 5
                elif 0x41 <= code <= 0x45:
                    i += 1
                elif code == 0x52 or code == 0x53:
                    i += 2
                elif code == 0xA0 and i + 1 < stop:
                    i += 2 + buf[i + 1]
                elif not code and i + 4 <= stop and buf[i + 1] == 0x53 and buf[i + 3] == 0x45:
                    i += 4  # a list without fields, as most outcomes are
                else:
                    i = check_value(buf, i, stop)
        if i != stop:
            raise SyntaxFailure("a list is not as long as its fields")
        return i

    def name(self):
        """What its list is called."""
        return str(_find_list(self.code, None)[1], "utf-8")

    def has(self, k):
        """Whether field *k* is given."""
        return self.at[k] >= 0

    def uint(self, k, default, most=0x3FFFFFFF):
        """The number in field *k*, a uint, ulong or ushort, but *most* at most."""
        at = self.at[k]
        if at < 0:
            return default
        code = self.buf[at]
        if code == 0x60:
            return self.buf[at + 1] << 8 | self.buf[at + 2]
        return self.buf[at + 1] if code == 0x50 else uint_at(self.buf, at, most)

    def serial(self, k):
        """The lower 30 bits of the uint in field *k*, which is given."""
        return serial_at(self.buf, self.at[k])

    def serial_top(self, k):
        """Its upper 2 bits."""
        return serial_top_at(self.buf, self.at[k])

    def boolean(self, k, default=False):
        """The boolean in field *k*."""
        at = self.at[k]
        if at < 0:
            return default
        code = self.buf[at]
        return code == 0x41 or code == 0x56 and self.buf[at + 1] == 1

    def text(self, k):
        """The string in field *k*; None when it is not given. Raises SyntaxFailure."""
        return None if self.at[k] < 0 else text_at(self.buf, self.at[k])

    def symbol(self, k):
        """The letters of the symbol in field *k*; None when it is not given."""
        return None if self.at[k] < 0 else symbol_at(self.buf, self.at[k])

    def octets(self, k):
        """A copy of the octets of the binary in field *k*; None when it is not given."""
        if self.at[k] < 0:
            return None
        at, n = octets_at(self.buf, self.at[k])
        return bytes(self.buf[at : at + n])


def _heads(code):
    """The octets that a list's constructor, size and count take."""
    return 3 if code == 0xC0 else 9 if code == 0xD0 else 1


def _read_descriptor(buf, i, end):
    """(numeric descriptor, index behind it) in its longer forms. Raises SyntaxFailure."""
    if i + 2 >= end or buf[i]:
        raise SyntaxFailure("a described list was due")
    kind = buf[i + 1]
    if kind == 0x80 and i + 10 <= end:
        return uint_at(buf, i + 1), i + 10
    if kind == 0xA3 and i + 3 + buf[i + 2] <= end:
        name = bytes(buf[i + 3 : i + 3 + buf[i + 2]])
        if name.startswith(b"amqp:") and name.endswith(b":list"):
            return _find_list(-1, name[5:-5])[0], i + 3 + len(name)
    return -1, i


def _find_list(code, name):
    """(numeric descriptor, name) of the list of which one or the other is given; (-1, None)."""
    i = 0
    for each in _NAMES.split():
        if _LISTS[i] == code or each == name:
            return _LISTS[i], each
        i += 2 + _LISTS[i + 1]
    return -1, None


def performative_end(buf, i, end, code):
    """The index behind the described list at *i*, which may be past *end*.

    0: too little of it is here to say so. -1: it is not of this *code*.
    """
    if end - i < 3:
        return 0
    kind = buf[i + 1]
    if kind == 0x53:
        found = buf[i + 2]
        at = i + 3
    else:
        at = i + (10 if kind == 0x80 else 3 + buf[i + 2])
        if at > end:
            return 0
        try:
            found, at = _read_descriptor(buf, i, end)
        except SyntaxFailure:
            return -1
    if found != code:
        return -1
    if at + _heads(buf[at] if at < end else 0xD0) > end:
        return 0
    kind = buf[at]
    if kind == 0xC0:
        return at + 2 + buf[at + 1]
    return at + 5 + u32(buf, at + 1) if kind == 0xD0 else -1


def uint(value):
    """*value* as write_value() and described() take a uint."""
    return Typed(0x70, value) if value > 0xFF else Typed(0x52, value) if value else Typed(0x43)


def described(code, *fields):
    """The octets of the list *code* with these *fields*, as write_value() takes them."""
    return write_value(described_value(code, *fields))


def described_value(code, *fields):
    """The same as a field of another one."""
    count = len(fields)
    while count and fields[count - 1] is None:
        count -= 1
    return Described(Typed(0x53, code), list(fields[:count]) if count else Typed(0x45, []))


def error_value(error):
    """The AMQPError *error* as a field of what ends a link, a session or a connection."""
    text = error.text[:_DESCRIPTION]
    if len(text.encode()) > 2 * _DESCRIPTION:
        text = text[: _DESCRIPTION // 2]  # so that it fits in the smallest frame
    return described_value(ERROR, Symbol(condition_of(error)), text, error.info)


def frame(kind, channel, body):
    """A frame with *body* and no extended header. AMQP 1.0 §2.3.1."""
    return struct.pack(">IBBH", 8 + len(body), 2, kind, channel) + body
