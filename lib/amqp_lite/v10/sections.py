"""The sections of an AMQP 1.0 message (AMQP 1.0 §3.2), as its octets come.

In this order, each at most once but data and amqp-sequence:

    header | delivery-annotations | message-annotations | properties | application-properties
    | data ... or amqp-sequence ... or amqp-value | footer

All before the body is needed at once, see Sections. The body and the footer are only counted, see
Body: they may be larger than any buffer, and nobody but a consumer has to understand them.
"""

from ..broker.message import MAX_TTL_MS
from ..compat import const, u32
from ..errors import SyntaxFailure
from .codec import check_value
from .performatives import HEADER, PROPERTIES

_DELIVERY_ANNOTATIONS = const(0x71)
_MESSAGE_ANNOTATIONS = const(0x72)
_APPLICATION_PROPERTIES = const(0x74)
DATA = const(0x75)
SEQUENCE = const(0x76)
VALUE = const(0x77)
_FOOTER = const(0x78)

# Fields of header and properties:
_DURABLE = const(0)
_TTL = const(2)
_USER_ID = const(1)
_TO = const(2)
_SUBJECT = const(3)
_REPLY_TO = const(4)

# What the sections are called when their descriptor is a symbol.
_NAMES = {
    HEADER: b"amqp:header:list",
    _DELIVERY_ANNOTATIONS: b"amqp:delivery-annotations:map",
    _MESSAGE_ANNOTATIONS: b"amqp:message-annotations:map",
    PROPERTIES: b"amqp:properties:list",
    _APPLICATION_PROPERTIES: b"amqp:application-properties:map",
    DATA: b"amqp:data:binary",
    SEQUENCE: b"amqp:amqp-sequence:list",
    VALUE: b"amqp:amqp-value:*",
    _FOOTER: b"amqp:footer:map",
}
_LONGEST_HEAD = const(40)  # octets of a descriptor, and of a value's constructor and size


class Incomplete(Exception):
    """The sections before the body go on behind what is here."""


class Sections:
    """What the broker has to know of the sections before the body, and where they are.

    start, body index of the first of them, and behind the last
    cut, resume likewise of the delivery-annotations, which are not stored
    durable     boolean
    ttl_ms      -1: not given
    to, subject, reply_to, user_id   index of the value; -1: not given
    """

    def __init__(self, fields):
        self._fields = fields
        self._forget(0)

    def _forget(self, i):
        self.start = self.cut = self.resume = self.body = i
        self.durable = False
        self.ttl_ms = -1
        self.to = self.subject = self.reply_to = self.user_id = -1

    def scan(self, buf, i, end, whole=False):
        """Check and note the sections in buf[i:end], which the message begins with.

        Raises SyntaxFailure when they cannot be read, InvalidField for a field of another type,
        Incomplete when they may go on behind *end*.

        whole  nothing comes behind *end*: the message may do without a body, as that of some
               clients does
        """
        self._forget(i)
        before = 0
        while True:
            self.body = i
            if whole and i == end and self.resume - self.cut < end - self.start:
                return
            code = section_at(buf, i, end)
            if not code:
                raise Incomplete
            if code >= DATA:
                return
            at = section_value(buf, i)
            if code <= before:
                raise SyntaxFailure("section 0x%02x behind 0x%02x" % (code, before))
            before = code
            if not self._is_whole(buf, at, end):
                raise Incomplete
            if code == HEADER or code == PROPERTIES:
                stop = self._fields.scan(buf, i, end)
                if code == HEADER:
                    self._note_header()
                else:
                    self._note_properties()
            else:
                if buf[at] & 0xEF != 0xC1:
                    raise SyntaxFailure("section 0x%02x is no map" % code)
                stop = check_value(buf, at, end)
            if code == _DELIVERY_ANNOTATIONS:
                self.cut = i
                self.resume = stop
            i = stop

    def _is_whole(self, buf, at, end):
        if end - at < 9 and (at >= end or end - at < _size_octets(buf[at])):
            return False
        return at + _length(buf, at) <= end

    def _note_header(self):
        fields = self._fields
        self.durable = fields.boolean(_DURABLE)
        ttl = fields.uint(_TTL, -1)
        # Longer than what can be counted here is as good as for ever.
        self.ttl_ms = ttl if ttl <= MAX_TTL_MS else -1

    def _note_properties(self):
        at = self._fields.at
        self.user_id = at[_USER_ID]
        self.to = at[_TO]
        self.subject = at[_SUBJECT]
        self.reply_to = at[_REPLY_TO]
        buf = self._fields.buf
        if (
            self.to >= 0
            and buf[self.to] & 0xEF != 0xA1
            or (self.reply_to >= 0 and buf[self.reply_to] & 0xEF != 0xA1)
        ):
            raise SyntaxFailure("an address that is no string")


def section_at(buf, i, end):
    """The code of the section at *i*; 0 when it is not here as far as that.

    Raises SyntaxFailure when there is none.
    """
    if i >= end:
        return 0
    if buf[i]:
        raise SyntaxFailure("a section was due, not 0x%02x" % buf[i])
    if end - i < 3:
        return 0
    kind = buf[i + 1]
    code = 0
    if kind == 0x53:
        code = buf[i + 2]
    elif kind == 0x80:
        if i + 10 > end:
            return 0
        if not u32(buf, i + 2):
            code = u32(buf, i + 6)
    elif kind == 0xA3:
        n = buf[i + 2]
        if i + 3 + n > end and n < _LONGEST_HEAD:
            return 0
        name = bytes(buf[i + 3 : i + 3 + n])
        for each in _NAMES:
            if name == _NAMES[each]:
                code = each
    if code not in _NAMES:
        raise SyntaxFailure("unknown section")
    return code


def section_value(buf, i):
    """The index of the value of the section at *i*, which section_at() told."""
    kind = buf[i + 1]
    return i + 3 if kind == 0x53 else i + 10 if kind == 0x80 else i + 3 + buf[i + 2]


def _size_octets(code):
    """How many octets from the constructor *code* on say how long the value is."""
    return 1 if code < 0xA0 else 5 if code & 0x10 else 2


def _length(buf, i):
    """The octets of the value at *i*, not described, with its constructor."""
    code = buf[i]
    if code >= 0xA0:
        return 5 + u32(buf, i + 1) if code & 0x10 else 2 + buf[i + 1]
    if code < 0x40:
        raise SyntaxFailure("a value was due, not 0x%02x" % code)
    return 1 if code < 0x50 else 1 + (1 << (code >> 4) - 5)


class Body:
    """Follows a body and its footer through the pieces they come in.

    kind    DATA, SEQUENCE or VALUE; 0: nothing came
    """

    def __init__(self):
        self._hold = bytearray(_LONGEST_HEAD)
        self.reset()

    def reset(self):
        self.kind = 0
        self._held = 0  # octets of a head that is not whole
        self._values = 0  # to come in this section: 0 between two of them
        self._left = 0  # octets of the value that is passed over
        self._last = 0  # section

    def follow(self, buf, i, n):
        """*n* octets more, in *buf* from *i*. Raises SyntaxFailure when they are no body."""
        end = i + n
        if n > 8 and not self._last and not self._held and u32(buf, i) | 0x10 == 0x5375B0:
            # The usual one, of data, found in place.
            self.kind = self._last = DATA
            if buf[i + 3] & 0x10:
                self._left = u32(buf, i + 4)
                i += 8
            else:
                self._left = buf[i + 4]
                i += 5
        while i < end:
            if self._left:
                n = min(self._left, end - i)
                self._left -= n
                i += n
                continue
            hold = self._hold
            hold[self._held] = buf[i]
            self._held += 1
            i += 1
            if self._values:
                self._find_value(hold, self._held)
            else:
                self._find_section(hold, self._held)
            if self._held == _LONGEST_HEAD:
                raise SyntaxFailure("a body with a descriptor too long")

    def _find_section(self, hold, held):
        code = section_at(hold, 0, held)
        if not code:
            return
        if code < DATA:
            raise SyntaxFailure("section 0x%02x behind the body" % code)
        last = self._last
        if code == _FOOTER:
            if not last or last == _FOOTER:
                raise SyntaxFailure("a footer without a body, or twice")
        elif last and (last != code or code == VALUE):
            raise SyntaxFailure("section 0x%02x behind 0x%02x" % (code, last))
        else:
            self.kind = code
        self._last = code
        self._values = 1
        self._held = 0

    def _find_value(self, hold, held):
        code = hold[0]
        if not code:
            if self._last != VALUE or self._values > 2:
                raise SyntaxFailure("a described value in a body")
            self._values += 1  # a descriptor and a value for one value
            self._held = 0
            return
        if held < _size_octets(code):
            return
        last = self._last
        if last == DATA and code & 0xEF != 0xA0:
            raise SyntaxFailure("data that are no binary")
        if last == SEQUENCE and code != 0x45 and code & 0xEF != 0xC0:
            raise SyntaxFailure("an amqp-sequence that is no list")
        if last == _FOOTER and code & 0xEF != 0xC1:
            raise SyntaxFailure("a footer that is no map")
        self._left = _length(hold, 0) - held
        self._values -= 1
        self._held = 0

    def end(self):
        """The message is whole. Raises SyntaxFailure when its body is not, or there is none."""
        if self._left or self._values or self._held:
            raise SyntaxFailure("the message ends within a section")
        if not self.kind:
            raise SyntaxFailure("a message without a body")
