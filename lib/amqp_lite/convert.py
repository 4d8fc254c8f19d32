"""Messages of one protocol for consumers of the other, made when they are delivered.

    | stored by | properties                               | body                            |
    |-----------|------------------------------------------|---------------------------------|
    | 0-9-1     | property flags and list                  | plain octets                    |
    | 1.0       | header, message-annotations, properties, | data sections, or amqp-sequence |
    |           | application-properties: those that came  | sections, or one amqp-value;    |
    |           |                                          | then perhaps a footer           |

The rules are RabbitMQ's (rabbitmq.com/docs/conversions, mc_amqpl.erl). What has no place in the
other protocol is left out silently, and so is text that is not UTF-8, a name longer than 255
octets, a number or time out of range. Values are copied from octets to octets: a double stays one
on boards whose floats are short.

All functions read bytes, bytearray or memoryview that were checked when they were stored, by
Properties.scan() or by Fields.scan() and check_value(). Of others they may make anything, or
raise IndexError.
"""

import struct
from binascii import hexlify, unhexlify

from .broker.message import AMQP10
from .compat import const, u16, u32
from .errors import AMQPError, PreconditionFailed, SyntaxFailure
from .v091 import codec as v091
from .v091.properties import NAMES, write_properties
from .v10.address import parse_target, queue_address
from .v10.codec import MAX_DEPTH, check_value, find_key, items_at, octets_at, skip_value, uint_at
from .v10.performatives import HEADER, PROPERTIES, Fields
from .v10.values import read_value

_ANNOTATIONS = const(0x72)  # descriptors, AMQP 1.0 §3.2
_APPLICATION_PROPERTIES = const(0x74)
DATA = const(0x75)
AMQP_SEQUENCE = const(0x76)
AMQP_VALUE = const(0x77)
_FOOTER = const(0x78)
# The same as symbols, from 0x70.
_DESCRIPTORS = (
    b"amqp:header:list", b"amqp:delivery-annotations:map", b"amqp:message-annotations:map",
    b"amqp:properties:list", b"amqp:application-properties:map", b"amqp:data:binary",
    b"amqp:amqp-sequence:list", b"amqp:amqp-value:*", b"amqp:footer:map",
)  # fmt: skip
# Of a body: the constructors its value may have (none: any), and what may be before it.
_BODY = {
    DATA: (b"\xa0\xb0", (-1, DATA)),
    AMQP_SEQUENCE: (b"\x45\xc0\xd0", (-1, AMQP_SEQUENCE)),
    AMQP_VALUE: (b"", (-1,)),
    _FOOTER: (b"\xc1\xd1", (DATA, AMQP_SEQUENCE, AMQP_VALUE)),
}
SPAN_HEAD = const(27)  # octets before those of a data section at most: 00 b3 ....name b0 ....

_ENCODED = b"amqp-1.0"  # the type of a 0-9-1 message whose body is 1.0 sections

# 1.0 constructor: type letter and octets of the 0-9-1 field for it.
_FIELDS = {
    0x40: b"V\0", 0x42: b"t\1", 0x56: b"t\1", 0x50: b"B\1", 0x51: b"b\1", 0x60: b"u\2",
    0x61: b"s\2", 0x43: b"i\4", 0x52: b"i\4", 0x70: b"i\4", 0x54: b"I\4", 0x71: b"I\4",
    0x44: b"l\x08", 0x53: b"l\x08", 0x80: b"l\x08", 0x55: b"l\x08", 0x81: b"l\x08",
    0x72: b"f\4", 0x82: b"d\x08",
}  # fmt: skip
# 0-9-1 type letter, of V b B s U u I i l L f d: 1.0 constructor of as many octets.
_CONSTRUCTORS = {
    0x56: 0x40, 0x62: 0x51, 0x42: 0x50, 0x73: 0x61, 0x55: 0x61, 0x75: 0x60, 0x49: 0x71,
    0x69: 0x70, 0x6C: 0x81, 0x4C: 0x81, 0x66: 0x72, 0x64: 0x82,
}  # fmt: skip


class _Pairs:
    """A table or map in the making: *parts* are names and values in turn, as octets.

    Of two with one name the first stays; one without a name or value is left out.
    """

    def __init__(self):
        self.parts = []
        self._names = set()

    def add(self, name, value):
        if name is not None and value is not None and name not in self._names:
            self._names.add(name)
            self.parts.append(name)
            self.parts.append(value)


class Converted:
    """A stored message as a consumer of the other protocol gets it.

    head   octets for all before the body: a property list; or sections, and the head of a data
           section
    start  index in the stored body of what goes behind it
    size   octets of that
    """

    def __init__(self, head, start, size):
        self.head = head
        self.start = start
        self.size = size


def as_v091(broker, message):
    """*message* of 1.0 for a consumer of 0-9-1. Raises StoreDamaged."""
    found = find_body(lambda i, n: broker.body_octets(message, i, n), message.body)
    start, size = found or (0, message.body)
    return Converted(to_v091(sections_of(broker, message), found is None), start, size)


def as_v10(broker, message, tries):
    """*message* of 0-9-1 for a consumer of 1.0. Raises StoreDamaged.

    An encoded body is checked when it is no longer than a receive buffer; a longer one becomes
    data like any other.
    """
    properties, head = _head_of(broker, message, tries)
    size = message.body
    if not is_encoded(properties) or size > broker.properties_most or not is_body(
        broker.body_octets(message, 0, size), 0, size
    ):
        head += data_head(size)
    return Converted(head, 0, size)


def sections_of(broker, message):
    """The 1.0 sections before the body of *message*, whose ever it is."""
    if not message.flags & AMQP10:
        return _head_of(broker, message, 0)[1]
    octets = bytearray(message.properties)
    broker.pool.read_at(message, message.head, message.properties, octets, 0)
    return octets


def _head_of(broker, message, tries):
    """(properties, the 1.0 sections for them) of a *message* of 0-9-1."""
    octets = bytearray(message.head + message.properties)
    broker.pool.read_at(message, 0, len(octets), octets, 0)
    key = 1 + octets[0]
    properties = memoryview(octets)[message.head :]
    exchange, routing_key = bytes(octets[1:key]), bytes(octets[key + 1 : message.head])
    return properties, to_v10(properties, exchange, routing_key, tries)


# --- 1.0 to 0-9-1 ---


def to_v091(sections, is_encoded):
    """The property flags and list of a message with these 1.0 *sections*.

    sections    octets of all before the body
    is_encoded  its body is sections of 1.0, too: it gets the type "amqp-1.0"

    Its delivery mode is 1 when no header says durable (AMQP 1.0 §3.2.1). It may be longer than
    the consumer's frames. Raises SyntaxFailure or InvalidField where Fields.scan() does.
    """
    properties = {"delivery_mode": 1}
    headers = _Pairs()
    found = Fields()
    i = 0
    while i < len(sections):
        code, at = _section(sections, i)
        is_map = sections[at] & 0xEF == 0xC1
        if code == HEADER:
            found.scan(sections, i, len(sections))
            if found.boolean(0):
                properties["delivery_mode"] = 2
            if found.has(1):
                properties["priority"] = found.uint(1, 0)
            if found.has(2):
                properties["expiration"] = str(read_value(sections, found.at[2])[0])
        elif code == _ANNOTATIONS and is_map:
            i = find_key(sections, at, b"x-basic-type")
            if i >= 0:
                properties["type"] = _short_at(sections, i)
            _read_map(headers, sections, at, _annotation)
        elif code == PROPERTIES:
            found.scan(sections, i, len(sections))
            _read_properties(found, properties, headers)
        elif code == _APPLICATION_PROPERTIES and is_map:
            _read_map(headers, sections, at, _name)
        i = skip_value(sections, at)
    if is_encoded:
        properties["type"] = _ENCODED
    elif properties.get("type") == _ENCODED:
        del properties["type"]  # what becomes plain is not encoded, whatever it once was
    octets = write_properties(properties)
    if not headers.parts:
        return octets
    # write_table() would choose the types of its fields itself: put in those that are kept.
    i = 2
    for name in ("content_type", "content_encoding"):
        if properties.get(name) is not None:
            i += 1 + octets[i]
    flags = bytes((octets[0] | 0x20, octets[1]))
    return flags + octets[2:i] + _long(b"".join(headers.parts)) + octets[i:]


def _read_properties(found, properties, headers):
    buf = found.buf
    for k, name in ((1, "user_id"), (6, "content_type"), (7, "content_encoding"), (10, "app_id")):
        if found.has(k):
            properties[name] = _short_at(buf, found.at[k])
    for k, name in ((0, "message_id"), (5, "correlation_id")):
        if found.has(k):
            at = found.at[k]
            properties[name] = text = _id_text(buf, at)
            if text is None and octets_at(buf, at)[0] >= 0:
                headers.add(_length(b"x-" + name.replace("_", "-").encode()), _field(buf, at))
    if found.has(4):
        properties["reply_to"] = _queue_of(buf, found.at[4])
    if found.has(9):
        created = read_value(buf, found.at[9])[0]
        properties["timestamp"] = created // 1000 if created >= 0 else None


def _id_text(buf, i):
    """The message-id at *i* as a short string's octets; None: it cannot be one."""
    code = buf[i]
    if code == 0x98:
        hexed = hexlify(bytes(buf[i + 1 : i + 17]))
        parts = [hexed[:8], hexed[8:12], hexed[12:16], hexed[16:20], hexed[20:]]
        return b"urn:uuid:" + b"-".join(parts)
    if code == 0x44 or code == 0x53 or code == 0x80:
        return str(read_value(buf, i)[0]).encode()
    return _short_at(buf, i) if code & 0x0F == 1 else None


def _queue_of(buf, i):
    """The reply-to for the address at *i*: a queue's name, or the address when it is another."""
    at, n = octets_at(buf, i)
    if at < 0 or bytes(buf[at : at + 7]) not in (b"/queues", b"/queue/"):
        return _short_at(buf, i)
    try:
        name = parse_target(str(bytes(buf[at : at + n]), "utf-8")).queue
    except (AMQPError, UnicodeError):
        return None
    return name if _is_short(name) else None


def _read_map(pairs, buf, i, name_at):
    """Add the fields of the map at *i* to *pairs*, with the names that name_at() makes."""
    i, count = items_at(buf, i)
    for _ in range(count // 2):
        at = skip_value(buf, i)
        pairs.add(name_at(buf, i), _field(buf, at))
        i = skip_value(buf, at)


def _name(buf, i):
    """The string or symbol at *i* as a field's name; None: it is neither, or too long."""
    octets = _short_at(buf, i) if buf[i] & 0x0F else None
    return None if octets is None else _length(octets)


def _annotation(buf, i):
    """The same for the key of an annotation; x-cc is CC. Those of brokers' own are left out."""
    name = _name(buf, i)
    if name is None or name[1:3] != b"x-" or name[1:9] == b"x-basic-":
        return None
    if name[1:] in (b"x-exchange", b"x-routing-key", b"x-death"):
        return None
    return b"\x02CC" if name[1:] == b"x-cc" else name


def _field(buf, i):
    """The value at *i* as a 0-9-1 field, type letter first; None: there is none for it.

    That is a char, decimal, uuid or described value; a string that is not UTF-8; a time before
    1970; and a ulong above 2**63 - 1, which RabbitMQ makes negative.
    """
    code = buf[i]
    if code in _FIELDS:
        letter, width = _FIELDS[code]
        data = bytes(buf[i + 1 : skip_value(buf, i)])
        negative = width and data and data[0] & 0x80
        if code == 0x80 and negative:
            return None
        fill = b"\xff" if negative and (code == 0x54 or code == 0x55) else b"\0"
        return bytes((letter,)) + fill * (width - len(data)) + data
    if code == 0x41:
        return b"t\1"
    if code == 0x83:
        ms = read_value(buf, i)[0]
        return b"T" + struct.pack(">Q", ms // 1000) if ms >= 0 else None
    at, n = octets_at(buf, i)
    if at >= 0:
        octets = bytes(buf[at : at + n])
        if not code & 0x0F:
            return b"x" + _long(octets)
        return b"S" + _long(octets) if _is_utf8(octets) else None
    if code & 0xEF == 0xC1:
        table = _Pairs()
        _read_map(table, buf, i, _name)
        return b"F" + _long(b"".join(table.parts))
    if code & 0xEF == 0xE0:
        # Write each item's constructor over the octet before it, the end of the item before:
        # then they are values like others.
        at = i + (9 if code & 0x10 else 3)
        count = u32(buf, at - 4) if code & 0x10 else buf[at - 1]
        buf = bytearray(buf[at : skip_value(buf, i)])
        i = 0
        shared = buf[0] if count else 0
    elif code & 0xEF == 0xC0 or code == 0x45:
        i, count = items_at(buf, i)
        shared = -1
    else:
        return None
    items = []
    for _ in range(count if shared else 0):
        if shared > 0:
            buf[i] = shared
        item = _field(buf, i)
        i = skip_value(buf, i) - (shared > 0)
        if item is not None:
            items.append(item)
    return b"A" + _long(b"".join(items))


# --- bodies of 1.0 ---


def find_body(read, size):
    """(index, octets) of the 0-9-1 body in a 1.0 body of *size* octets; None: it has to stay
    encoded, as RabbitMQ leaves all but a single data section.

    read  function(position, n) that returns octets of the body; few are asked for
    """
    if not size:
        return 0, 0
    octets = read(0, min(size, SPAN_HEAD))
    code, at = _section(octets, 0)
    if code != DATA:
        return None
    at, n = octets_at(octets, at)
    behind = at + n
    if behind != size and _section(read(behind, min(size - behind, SPAN_HEAD)), 0)[0] != _FOOTER:
        return None
    return at, n


def data_head(n):
    """The octets that make a data section of the *n* octets behind them. AMQP 1.0 §3.2.6."""
    return b"\0\x53\x75" + _size(0xA0, n)


def is_encoded(properties):
    """Whether a 0-9-1 property list says that its body is 1.0 sections; it may lie: is_body()."""
    return _short(properties, _find_properties(properties), "type") == _ENCODED


def is_body(buf, start, end):
    """Whether buf[start:end], unchecked, can go to a 1.0 consumer as the body it is.

    One or more data sections, or amqp-sequences, or one amqp-value, then a footer or none: AMQP
    1.0 §3.2. Where is_encoded() lied, the body is to become a data section like any other.
    """
    last = -1
    while start < end:
        try:
            stop = check_value(buf, start, end)
            code, at = _section(buf, start)
        except SyntaxFailure:
            return False
        constructors, before = _BODY.get(code, (b"", ()))
        if last not in before or (constructors and buf[at] not in constructors):
            return False
        last = code
        start = stop
    return last >= 0


def _section(buf, i):
    """(descriptor, index of the value) of the section at *i*; one that none has is -1."""
    if buf[i]:
        return -1, i
    kind = buf[i + 1]
    at, n = octets_at(buf, i + 1)
    name = bytes(buf[at : at + n])
    code = -1
    if kind == 0x53 or kind == 0x80:
        code = uint_at(buf, i + 1)
    elif kind & 0x0F == 3 and name in _DESCRIPTORS:
        code = 0x70 + _DESCRIPTORS.index(name)
    return code, skip_value(buf, i + 1)


# --- 0-9-1 to 1.0 ---


def to_v10(properties, exchange, routing_key, tries=0):
    """The 1.0 sections of a 0-9-1 message before its body; none that would be empty.

    properties             octets of the property flags and list
    exchange, routing_key  octets; they become the annotations x-exchange and x-routing-key
    tries                  how often it was delivered before
    """
    at = _find_properties(properties)
    annotations = _Pairs()
    applications = _Pairs()
    annotations.add(_symbol(b"x-exchange"), _string(exchange))
    annotations.add(_symbol(b"x-routing-key"), _string(routing_key))
    annotations.add(_symbol(b"x-basic-type"), _string(_short(properties, at, "type")))
    if "headers" in at:
        _read_headers(properties, at["headers"], annotations, applications)
    out = _header(properties, at, tries)
    if annotations.parts:
        out += b"\0\x53\x72" + _compound(0xC1, annotations.parts)
    out += _properties(properties, at)
    if applications.parts:
        out += b"\0\x53\x74" + _compound(0xC1, applications.parts)
    return out


def _find_properties(buf):
    """The index of each property that the list has, by its name."""
    found = {}
    flags = u16(buf, 0)
    i = 2
    bit = 0x8000
    for name in NAMES:
        if flags & bit:
            found[name] = i
            if name == "headers":
                i += 4 + u32(buf, i)
            elif name == "timestamp":
                i += 8
            elif name == "delivery_mode" or name == "priority":
                i += 1
            else:
                i += 1 + buf[i]
        bit >>= 1
    return found


def _header(buf, at, tries):
    priority = ttl = None
    if "priority" in at:
        priority = bytes((0x50, buf[at["priority"]]))
    if "expiration" in at:
        try:
            ttl = b"\x70" + struct.pack(">I", v091.milliseconds(_short(buf, at, "expiration")))
        except PreconditionFailed:
            pass
    durable = "delivery_mode" in at and buf[at["delivery_mode"]] == 2
    first = b"\x42" if tries else b"\x41"
    count = bytes((0x52, tries)) if tries else None
    fields = (b"\x41" if durable else b"\x42", priority, ttl, first, count)
    return _listed(HEADER, fields)


def _properties(buf, at):
    user_id = _short(buf, at, "user_id")
    reply_to = _short(buf, at, "reply_to")
    reply_to = queue_address(reply_to).encode() if _is_short(reply_to) else None
    fields = (
        _id(_short(buf, at, "message_id")),
        _sized(0xA0, user_id),
        None,  # to
        None,  # subject
        _sized(0xA1, reply_to),
        _id(_short(buf, at, "correlation_id")),
        _symbol(_short(buf, at, "content_type")),
        _symbol(_short(buf, at, "content_encoding")),
        None,  # absolute-expiry-time
        _timestamp(buf, at["timestamp"]) if "timestamp" in at else None,
        _string(_short(buf, at, "app_id")),
    )
    return _listed(PROPERTIES, fields)


def _id(octets):
    """The message-id *octets* as a uuid, when they are the URN of one, or as a string."""
    if octets is not None and octets.startswith(b"urn:uuid:"):
        parts = octets[9:].split(b"-")
        if [len(part) for part in parts] == [8, 4, 4, 4, 12]:
            try:
                return b"\x98" + unhexlify(b"".join(parts))
            except ValueError:
                pass
    return _string(octets)


def _read_headers(buf, i, annotations, applications):
    """x- headers are annotations; application-properties hold simple values, AMQP 1.0 §3.2.5."""
    stop = i + 4 + u32(buf, i)
    i += 4
    while i < stop:
        at = i + 1 + buf[i]
        name = bytes(buf[i + 1 : at])
        if name.startswith(b"x-"):
            annotations.add(_symbol(name), _value(buf, at, 1))
        elif buf[at] == 0x41 and name == b"CC":
            annotations.add(_symbol(b"x-cc"), _value(buf, at, 1))
        elif buf[at] != 0x41 and buf[at] != 0x46:
            applications.add(_string(name), _value(buf, at, 1))
        i = v091.skip_value(buf, at)


def _value(buf, i, depth):
    """The 0-9-1 field at *i*, type letter first, as a 1.0 value; None: there is none for it.

    depth  compounds around it; what would be deeper than MAX_DEPTH is left out, for our own kind
           would refuse the message
    """
    kind = buf[i]
    stop = v091.skip_value(buf, i)
    if kind in _CONSTRUCTORS:
        return bytes((_CONSTRUCTORS[kind],)) + bytes(buf[i + 1 : stop])
    if kind == 0x74:
        return b"\x41" if buf[i + 1] else b"\x42"
    if kind == 0x54:
        return _timestamp(buf, i + 1)
    if kind == 0x53 or kind == 0x78:
        octets = bytes(buf[i + 5 : stop])
        # Text up to 255 octets, as RabbitMQ's table says; its code of 2026 takes 4096 for it.
        return _sized(0xA1 if kind == 0x53 and _is_short(octets) else 0xA0, octets)
    if kind == 0x44 or depth == MAX_DEPTH:
        return None
    i += 5
    if kind == 0x41:
        items = []
        while i < stop:
            item = _value(buf, i, depth + 1)
            if item is not None:
                items.append(item)
            i = v091.skip_value(buf, i)
        return _compound(0xC0, items)
    pairs = _Pairs()
    while i < stop:
        at = i + 1 + buf[i]
        name = bytes(buf[i + 1 : at])
        pairs.add(_symbol(name) or _string(name), _value(buf, at, depth + 1))
        i = v091.skip_value(buf, at)
    return _compound(0xC1, pairs.parts)


def _timestamp(buf, i):
    """The seconds at *i* as milliseconds; None when they are more than 63 bits hold."""
    ms = 1000 * struct.unpack(">Q", bytes(buf[i : i + 8]))[0]
    return None if ms >> 63 else b"\x83" + struct.pack(">q", ms)


# --- octets ---


def _short(buf, at, name):
    """The octets of the short string *name* of a property list; None when it has none."""
    i = at.get(name, -1)
    return bytes(buf[i + 1 : i + 1 + buf[i]]) if i >= 0 else None


def _short_at(buf, i):
    """The octets of the string, symbol or binary at *i*; None: no short string can be them."""
    at, n = octets_at(buf, i)
    octets = bytes(buf[at : at + n]) if at >= 0 else None
    return octets if _is_short(octets) else None


def _is_short(octets):
    """Whether a short string can be *octets*. AMQP 0-9-1 §4.2.5.3."""
    return octets is not None and len(octets) < 256 and b"\0" not in octets and _is_utf8(octets)


def _is_utf8(octets):
    try:
        str(octets, "utf-8")
    except UnicodeError:
        return False
    return True


def _length(name):
    return bytes((len(name),)) + name


def _long(octets):
    return struct.pack(">I", len(octets)) + octets


def _string(octets):
    return _sized(0xA1, octets) if _is_short(octets) else None


def _symbol(octets):
    """As a symbol; None when they are not ASCII."""
    return None if octets and max(octets) > 0x7F else _sized(0xA3, octets)


def _sized(code, octets):
    return None if octets is None else _size(code, len(octets)) + octets


def _size(code, n):
    return bytes((code, n)) if n < 256 else struct.pack(">BI", code | 0x10, n)


def _compound(code, parts):
    """A list (0xC0) of these items, or a map (0xC1) of these keys and values in turn."""
    body = b"".join(parts)
    if len(body) < 255 and len(parts) < 256:
        return bytes((code, 1 + len(body), len(parts))) + body
    return struct.pack(">BII", code | 0x10, 4 + len(body), len(parts)) + body


def _listed(descriptor, fields):
    """A section that is a list; b"" when none of its *fields* is given."""
    count = len(fields)
    while count and fields[count - 1] is None:
        count -= 1
    if not count:
        return b""
    fields = [b"\x40" if field is None else field for field in fields[:count]]
    return bytes((0, 0x53, descriptor)) + _compound(0xC0, fields)
