"""Links of clients of Azure Service Bus: what comes in is stored, what goes out is locked."""

from binascii import hexlify
from os import urandom

from ...access import READ
from ...compat import const
from ...errors import AMQPError, NotFound, NotImplementedHere, SyntaxFailure
from ..address import PLAIN, QUEUE, Address
from ..codec import check_value, find_key, octets_at
from ..node import Requests
from ..outgoing import Outgoing
from ..performatives import REJECTED, SOURCE, TARGET, described, error_value, uint
from ..sections import DATA, Incomplete, section_at, section_value
from .conditions import ServerBusy
from .envelope import Envelope, constructor, dress, now_ms, number_of, timestamp
from .publish import DEAD_LETTERS, publish, publish_all

LOCK_MS = const(60000)
_LONGEST = const(0x100000)  # octets of a message or of a batch
_LEAD = const(400)  # octets that a delivery of ours has more than the message, at most
_SERIAL = const(0x3FFFFFFF)

# Fields of attach, of a source and of transfer:
_SND_SETTLE, _SOURCE, _TARGET = const(3), const(5), const(6)
_FILTER = const(7)
_FORMAT = const(3)
_BATCH, _BATCH_TOP = const(0x13700), const(2)  # message-format 0x80013700
_ALL_SETTLED = const(1)


def token_start():
    """The first 12 octets of a new lock token; any 4 may follow.

    It is a GUID, in one order of octets here and in another there: ours look the same in both.
    """
    a, b, c, d, e, f, g, h = urandom(8)
    return bytes((a, b, b, a, c, c, d, d, e, f, g, h))


def _address(path):
    name = path.encode()
    # No queue is made for what is part of another entity.
    kind = QUEUE if "$" in path or "/subscriptions/" in path.lower() else PLAIN
    return Address(kind, b"" if kind == QUEUE else name, None, name)


def find_queue(link, path):
    """The queue at *path*, which the peer may read. Raises NotFound, AccessRefused ..."""
    broker = link.connection.broker
    is_dead = path.endswith(DEAD_LETTERS)
    base = path[: -len(DEAD_LETTERS)] if is_dead else path
    queue = link.locate(_address(base), READ)[0]
    if queue is None:
        raise NotFound("no queue '%s' in vhost '/'" % base)
    return broker.own_queue(path.encode(), True) if is_dead else queue


class BusIncoming(Requests):
    """The peer sends messages and batches of them."""

    def __init__(self, link, path):
        Requests.__init__(self, link, None, None)
        self._most = min(self.connection.broker.message_max, _LONGEST)
        self._batch = False
        self._head, self._exchange = self._place(_address(path))

    def attach(self, fields):
        source = self._echo(fields, _SOURCE, SOURCE)
        target = self._echo(fields, _TARGET, TARGET)
        self._answer(fields, source, target, None, self._most)
        self._grant()

    def _begin_message(self, fields, buf, i, end, more):
        self._batch = (
            fields.has(_FORMAT)
            and fields.serial(_FORMAT) == _BATCH
            and fields.serial_top(_FORMAT) == _BATCH_TOP
        )
        return Requests._begin_message(self, fields, buf, i, end, more)

    def _publish(self):
        octets = self.message
        self.message = None
        try:
            if self._refused is None:
                broker = self.connection.broker
                if self._batch:
                    rows = [self._read(one) for one in self._unpacked(octets)]
                    publish_all(broker, rows)
                else:
                    publish(broker, *self._read(octets))
                return None
        except AMQPError as error:
            self._refused = error
        except MemoryError:
            self._refused = ServerBusy("out of memory")
        return described(REJECTED, error_value(self._refused))

    def _unpacked(self, octets):
        """The messages of a batch: octets of each."""
        n = len(octets)
        i = self._check(octets)
        while i < n:
            if section_at(octets, i, n) != DATA:
                raise SyntaxFailure("a batch of other sections than data")
            at = section_value(octets, i)
            i = check_value(octets, at, n)
            begin, size = octets_at(octets, at)
            yield bytes(octets[begin : begin + size])

    def _check(self, octets):
        """Where the body of a whole message is. Raises SyntaxFailure, InvalidField."""
        sections = self.connection.sections
        n = len(octets)
        try:
            sections.scan(octets, 0, n, True)
        except Incomplete:
            raise SyntaxFailure("the message ends within a section")
        if sections.body < n:
            self._body.reset()
            self._body.follow(octets, sections.body, n - sections.body)
            self._body.end()
        return sections.body

    def _read(self, octets):
        """The message *octets* as arguments of publish()."""
        body = self._check(octets)
        sections = self.connection.sections
        ttl_ms = sections.ttl_ms
        self._check_user(sections, octets)
        head = self._head or self._head_of(sections, octets)
        envelope = Envelope(octets, 0, body)
        later = envelope.annotation("x-opt-scheduled-enqueue-time")
        if constructor(later) == 0x83 and later.value > now_ms():
            raise NotImplementedHere("messages that are enqueued later")
        envelope.header[0] = True
        if constructor(envelope.properties[0]) == 0x40:
            envelope.properties[0] = str(hexlify(urandom(16)), "utf-8")
        envelope.annotate("x-opt-enqueued-time", timestamp(now_ms()))

        def read(i, n):
            return octets[body + i : body + i + n]

        return head, envelope.octets(), len(octets) - body, read, ttl_ms


class BusOutgoing(Outgoing):
    """The peer receives and locks messages, or takes them for good."""

    def __init__(self, link, path):
        Outgoing.__init__(self, link.session, link.handle, link.name)
        self._queue = find_queue(self, path)
        self.tag = self.session.tag

    def attach(self, fields):
        target = self._echo(fields, _TARGET, TARGET)
        source = self._echo(fields, _SOURCE, SOURCE)
        terminus = self._terminus(fields, _SOURCE, SOURCE)
        if terminus.has(_FILTER):
            at = terminus.at[_FILTER]
            if find_key(fields.buf, at, b"com.microsoft:session-filter") >= 0:
                raise NotImplementedHere("sessions of Service Bus")
        settled = fields.uint(_SND_SETTLE, 0) == _ALL_SETTLED
        self.consumer = self._queue.subscribe(self, self.name.encode(), settled, False, 0)
        self._answer(fields, source, target, uint(0))

    def accepts(self, consumer, message):
        if not self.credit or not self.session.may_send():
            return False
        # The sections of a message of 0-9-1 take twice the octets of its properties, at most.
        size = 2 * message.properties + message.body + _LEAD
        return self.connection.output.fits(size)

    def deliver(self, consumer, entry):
        connection = self.connection
        session = self.session
        message = entry.message
        self.credit -= 1
        self._count = self._count + 1 & _SERIAL
        annotations = {}
        if not consumer.no_ack:
            annotations["locked_until"] = timestamp(now_ms() + LOCK_MS)
        lead, _ = dress(connection.broker, message, entry.tries, number_of(entry), **annotations)
        low = session.next_id
        connection.output.send(
            self, message, low, session.next_id_top, consumer.no_ack, lead, message.properties
        )
        session.delivered()
        connection.broker.metrics.delivered += 1
        if consumer.no_ack:
            entry.queue.settle(entry)
        else:
            entry.tag = low
            session.unsettled.append(entry)
            connection.output.mark(entry)
            session.lock(entry)
