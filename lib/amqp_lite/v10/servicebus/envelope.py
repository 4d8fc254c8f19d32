"""The sections of a message before its body, and what Azure Service Bus adds to them."""

from time import time

from ...broker.message import AMQP10
from ...compat import const
from ...convert import as_v10
from ..codec import skip_value
from ..performatives import HEADER, PROPERTIES, described, uint
from ..sections import DATA, section_at, section_value
from ..values import Described, Symbol, Typed, read_value, write_value

_DELIVERY_ANNOTATIONS, _ANNOTATIONS = const(0x71), const(0x72)
_APPLICATION_PROPERTIES = const(0x74)
_SERIAL = const(0x3FFFFFFF)


class Envelope:
    """The sections of a message before its body, in octets[i:n], taken apart to be changed."""

    def __init__(self, octets, i, n):
        self.header = [None] * 5
        self._annotations = []
        self.properties = [None]  # the message-id first
        self._applications = []
        while i < n:
            code = section_at(octets, i, n)
            at = section_value(octets, i)
            if code >= DATA:
                break
            i = skip_value(octets, at)
            if code == _DELIVERY_ANNOTATIONS:
                continue
            value = read_value(octets, at, True)[0].value
            if code == HEADER:
                self.header[: len(value)] = value
            elif code == PROPERTIES:
                self.properties = value or [None]
            elif code == _ANNOTATIONS:
                self._annotations = value
            else:
                self._applications = value
        self._rest = bytes(octets[i:n])  # the beginning of a body, perhaps

    def annotation(self, name):
        """The value of the message-annotation *name*, Typed; None: it has none."""
        for key, value in self._annotations:
            if key.value == Symbol(name):
                return value
        return None

    def annotate(self, name, value):
        self._annotations = _with(self._annotations, Typed(0xA3, Symbol(name)), value)

    def note(self, name, value):
        """*value* for the application-property *name*."""
        self._applications = _with(self._applications, Typed(0xA1, name), value)

    def octets(self):
        """All sections, and what came behind them."""
        parts = [described(HEADER, *self.header)]
        if self._annotations:
            parts.append(_map_section(_ANNOTATIONS, self._annotations))
        parts.append(described(PROPERTIES, *self.properties))
        if self._applications:
            parts.append(_map_section(_APPLICATION_PROPERTIES, self._applications))
        parts.append(self._rest)
        return b"".join(parts)


def constructor(value):
    """The constructor of a Typed *value*, 0 of a described one, that of null of None."""
    return 0x40 if value is None else getattr(value, "code", 0)


def _with(pairs, key, value):
    return [pair for pair in pairs if pair[0].value != key.value] + [(key, value)]


def _map_section(code, pairs):
    return write_value(Described(Typed(0x53, code), Typed(0xC1, pairs)))


def timestamp(ms):
    return Typed(0x83, ms)


def now_ms():
    """Milliseconds since 1970."""
    return 1000 * int(time())


def taken_apart(broker, message, tries=0):
    """(Envelope, index in the stored body) of a stored *message* of either protocol.

    tries  how often it was delivered before
    """
    if not message.flags & AMQP10:
        other = as_v10(broker, message, tries)
        return Envelope(other.head, 0, len(other.head)), other.start
    octets = bytearray(message.properties)
    broker.pool.read_at(message, message.head, len(octets), octets, 0)
    envelope = Envelope(octets, 0, len(octets))
    before = envelope.header[4]
    envelope.header[3] = None
    envelope.header[4] = uint(tries + (before.value if before and before.value else 0))
    return envelope, 0


def number_of(entry):
    """The sequence-number of the message of *entry*: unique in its queue, and it grows."""
    if entry.queue.number < 0:
        return entry.position
    return place_number(entry.order, entry.position, entry.share)


def place_number(order, slot, share):
    """number_of() for the record that a cursor found: its place and its share."""
    # Transient ones, told apart by their share, come before the record of the same place.
    return order << 30 | slot << 14 | (0x3FFF if share >= 0 else (share & _SERIAL) % 0x3FFF)


def dress(broker, message, tries, number, **annotations):
    """As taken_apart(), with the octets for the Envelope, and what the service adds.

    number       its sequence-number
    annotations  more of those x-opt-..., Typed
    """
    envelope, start = taken_apart(broker, message, tries)
    if envelope.header[4] is None:
        envelope.header[4] = uint(tries)
    annotations["sequence_number"] = Typed(0x81, number)
    for name in annotations:
        envelope.annotate("x-opt-" + name.replace("_", "-"), annotations[name])
    if constructor(envelope.properties[0]) == 0x40:
        envelope.properties[0] = "%016x" % number  # clients cannot settle one that has none
    return envelope.octets(), start
