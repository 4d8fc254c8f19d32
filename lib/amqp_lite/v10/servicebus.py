"""What the clients of Azure Service Bus expect of a broker besides AMQP 1.0: sessions whose
receivers lock messages, and whose senders send batches.

    | address                 |                                                               |
    |-------------------------|---------------------------------------------------------------|
    | $cbs                    | tokens, see cbs.py; all else needs one that covers its entity |
    | q                       | the queue of this name; as a target, else the exchange, whose |
    |                         | key is each message's subject                                 |
    | q/$DeadLetterQueue      | a durable queue of this name, made when it is first needed    |
    | t/Subscriptions/s       | the queue of this name                                        |
    | entity/$management      | see entity.py                                                 |

before each of them perhaps amqps://host:port/, which means nothing here.

What is sent is stored as persistent, whatever its header says, and gets a message-id. A delivery
that the peer does not settle within the time of its lock goes back to its queue. Not there:
sessions of Service Bus, and messages that are enqueued later.

Imported with the first peer that logs in without a user where there are shared access keys.
"""

from binascii import hexlify
from os import urandom
from time import time

from ..access import READ
from ..broker.message import AMQP10, PERSISTENT
from ..broker.queue import text
from ..compat import const, ticks_add, ticks_diff
from ..convert import as_v10
from ..errors import (
    AMQPError,
    ContentTooLarge,
    NotAllowed,
    NotFound,
    NotImplementedHere,
    ResourceLimitExceeded,
    SyntaxFailure,
)
from ..v091.codec import shortstr
from .address import PLAIN, QUEUE, Address
from .cbs import Cbs, path_of
from .codec import check_value, find_key, octets_at, skip_value
from .conditions import InvalidField
from .node import Answers, Requests
from .outgoing import Outgoing
from .performatives import (
    ACCEPTED,
    HEADER,
    MODIFIED,
    PROPERTIES,
    REJECTED,
    SOURCE,
    TARGET,
    described,
    described_value,
    error_value,
    uint,
)
from .sections import DATA, Incomplete, section_at, section_value
from .session import Session
from .values import Described, Symbol, Typed, read_value, write_value

LOCK_MS = const(60000)
DEFERRED = const(1)  # as an outcome: it waits until it is asked for by its number
_LONGEST = const(0x100000)  # octets of a message or of a batch
_PIECE = const(4096)  # octets of a body that are copied at once
_LEAD = const(400)  # octets that a delivery of ours has more than the message, at most
_SERIAL = const(0x3FFFFFFF)
_DEAD = "/$DeadLetterQueue"
_MANAGEMENT = "/$management"
_REASONS = ("DeadLetterReason", "DeadLetterErrorDescription")

# Fields of attach, of a source, of transfer and of disposition:
_SND_SETTLE, _SOURCE, _TARGET = const(3), const(5), const(6)
_ADDRESS, _FILTER = const(0), const(7)
_FORMAT = const(3)
_ROLE, _FIRST, _LAST, _SETTLED = const(0), const(1), const(2), const(3)
_INFO = const(2)  # of error
_UNDELIVERABLE = const(1)  # of modified
_BATCH, _BATCH_TOP = const(0x13700), const(2)  # message-format 0x80013700

_DELIVERY_ANNOTATIONS, _ANNOTATIONS = const(0x71), const(0x72)
_APPLICATION_PROPERTIES = const(0x74)
_ALL_SETTLED = const(1)


class ServerBusy(AMQPError):
    """There is no room now. Clients try again."""

    condition = "com.microsoft:server-busy"


class LockLost(AMQPError):
    """The message is not the peer's any more."""

    condition = "com.microsoft:message-lock-lost"


# --- the sections of messages ---


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


def _code(value):
    """The constructor of a Typed *value*, 0 of a described one, that of null of None."""
    return 0x40 if value is None else getattr(value, "code", 0)


def _with(pairs, key, value):
    return [pair for pair in pairs if pair[0].value != key.value] + [(key, value)]


def _map_section(code, pairs):
    return write_value(Described(Typed(0x53, code), Typed(0xC1, pairs)))


def _timestamp(ms):
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
    if _code(envelope.properties[0]) == 0x40:
        envelope.properties[0] = "%016x" % number  # clients cannot settle one that has none
    return envelope.octets(), start


def publish(broker, head, sections, size, read, ttl_ms=-1):
    """Publish a persistent message. Raises AMQPError; then it may be in some of its queues.

    head      exchange and routing key as two short strings
    sections  octets of it before the body
    size      octets of the body
    read      function(position, n) that returns octets of the body
    """
    if len(sections) > broker.properties_most:
        raise ContentTooLarge("the sections before the body are too long")
    route = broker.route(head, 0, len(head))
    pool = broker.pool
    stream = size > broker.small_max and broker.is_stored_only(route, route.stamp)
    message = pool.begin(len(head))
    if message is None:
        raise ServerBusy("no memory for the message")
    try:
        chain = message.chain = broker.store.take_chain() if stream else None
        if (
            not broker.has_entries(broker.entries_for(route, route.stamp, True))
            or (stream and chain is None)
            or not pool.extend(message, len(sections) + (0 if stream else size))
        ):
            raise ServerBusy("no memory for the message")
        message.flags = AMQP10 | PERSISTENT
        message.ttl_ms = ttl_ms
        message.head = len(head)
        message.properties = len(sections)
        message.body = size
        pool.write(message, head, 0, len(head))
        pool.write(message, sections, 0, len(sections))
        for i in range(0, size, _PIECE):
            n = min(size - i, _PIECE)
            if stream:
                broker.store.add_part(chain, read(i, n), 0, n)
            else:
                pool.write(message, read(i, n), 0, n)
        queues = broker.publish(message, route, route.stamp)
    finally:
        pool.release(message)
        broker.freed = True
    if queues < 0:
        raise ServerBusy("a queue is full, or the store")


# --- entities ---


def _address(path):
    name = path.encode()
    # No queue is made for what is part of another entity.
    kind = QUEUE if "$" in path or "/subscriptions/" in path.lower() else PLAIN
    return Address(kind, b"" if kind == QUEUE else name, None, name)


def find_queue(link, path):
    """The queue at *path*, which the peer may read. Raises NotFound, AccessRefused ..."""
    broker = link.connection.broker
    is_dead = path.endswith(_DEAD)
    base = path[: -len(_DEAD)] if is_dead else path
    queue = link.locate(_address(base), READ)[0]
    if queue is None:
        raise NotFound("no queue '%s' in vhost '/'" % base)
    return broker.own_queue(path.encode(), True) if is_dead else queue


def dead_letter(broker, entry, reason, description):
    """Have a copy of the message of *entry* stored in the queue beside its own."""
    queue = entry.queue
    if queue.name.endswith(_DEAD.encode()):
        raise NotAllowed("it is a dead letter")
    name = queue.name + _DEAD.encode()
    head = shortstr(b"") + shortstr(name)
    broker.own_queue(name, True)
    message = entry.message
    envelope, start = taken_apart(broker, message, entry.tries)
    envelope.header[0] = True
    envelope.header[2] = None  # it does not expire any more
    envelope.annotate("x-opt-deadletter-source", text(queue.name))
    for key, value in zip(_REASONS, (reason, description)):
        if value is not None:
            envelope.note(key, value)
    publish(
        broker, head, envelope.octets(), message.body - start,
        lambda i, n: broker.body_octets(message, start + i, n),
    )  # fmt: skip
    store = broker.store
    if store.keeps and not (store.commit_now() and not store.broken):
        raise ResourceLimitExceeded("the store failed")


def token_start():
    """The first 12 octets of a new lock token; any 4 may follow.

    It is a GUID, in one order of octets here and in another there: ours look the same in both.
    """
    a, b, c, d, e, f, g, h = urandom(8)
    return bytes((a, b, b, a, c, c, d, d, e, f, g, h))


class BusSession(Session):
    """
    tag    octets of a lock token before the four of the delivery-id
    locks  what the peer holds: [entry, ticks until when] by delivery-id, its lower 30 bits
    """

    def __init__(self, connection, channel):
        Session.__init__(self, connection, channel)
        self.tag = token_start()
        self.locks = {}
        self._looked = connection.broker.now  # ticks

    # --- links ---

    def attach_link(self, link, fields):
        connection = self.connection
        if not link.to_peer:
            link.note_count(fields)
        code = SOURCE if link.to_peer else TARGET
        terminus = link._terminus(fields, _SOURCE if link.to_peer else _TARGET, code)
        is_place = terminus.code == code
        address = (terminus.text(_ADDRESS) if is_place else None) or ""
        path = None
        if address == "$cbs":
            make = Cbs
        elif connection.user is not None and not connection.tokens:
            link.attach(fields)
            return
        elif not is_place:
            raise NotImplementedHere("transactions of Service Bus")
        else:
            is_managed = address.endswith(_MANAGEMENT)
            path = path_of(address[: -len(_MANAGEMENT)] if is_managed else address)
            connection.user = connection.tokens.demand(path)
            if not path:
                raise NotFound("an empty address")
            make = None
            if is_managed:
                from .entity import Entity

                name = find_queue(link, path).name
                make = lambda one: Entity(one, name)  # noqa: E731
        if make is None:
            one = (Receiver if link.to_peer else Sender)(link, path)
        elif link.to_peer:
            one = Answers(link, address)
        else:
            one = Requests(link, address, make)
        one.path = path
        one.attach(fields)
        self.links[link.handle] = one

    def expire(self, tokens):
        """End the links for which there is no token any more."""
        for handle in self.links:
            link = self.links[handle]
            path = getattr(link, "path", None)
            if path is not None and not link.closing:
                try:
                    tokens.demand(path)
                except AMQPError as error:
                    self.cancel(link, error)

    # --- locks ---

    def pump(self):
        Session.pump(self)
        now = self.connection.broker.now
        if not self.locks or ticks_diff(now, self._looked) < 1000:
            return
        self._looked = now
        queues = []
        for tag in list(self.locks):
            entry, until = self.locks[tag]
            if ticks_diff(now, until) >= 0:
                queue = entry.queue
                if queue not in queues:
                    queues.append(queue)
                self._take_back(entry, True)
        _dispatch(queues)

    def lock(self, entry):
        """The peer holds *entry*, whose tag is its delivery-id, for a while."""
        self.locks[entry.tag] = [entry, ticks_add(self.connection.broker.now, LOCK_MS)]

    def _finish(self, entry, outcome):
        self.locks.pop(entry.tag, None)
        Session._finish(self, entry, outcome)

    def _take_back(self, entry, counts):
        self.locks.pop(entry.tag, None)
        Session._take_back(self, entry, counts)

    def settle_lock(self, tag, outcome, reason=None, description=None):
        """Do what *outcome* asks for with what is locked. Raises AMQPError: it stays locked."""
        entry = self.locks[tag][0]
        broker = self.connection.broker
        if outcome == REJECTED:
            dead_letter(broker, entry, reason, description)
            outcome = ACCEPTED
        elif outcome == DEFERRED:
            from .entity import defer

            defer(broker, entry)
            self.locks.pop(tag)
            self.unsettled.remove(entry)
            self.connection.output.prove(entry)
            return
        self._finish(entry, outcome)

    def on_disposition(self, fields):
        is_ours = fields.boolean(_ROLE)
        tags = []
        if is_ours:
            first = fields.serial(_FIRST)
            count = fields.serial(_LAST) - first & _SERIAL if fields.has(_LAST) else 0
            if count > _SERIAL >> 1:
                raise InvalidField("a disposition whose last is before its first")
            tags = [tag for tag in self.locks if tag - first & _SERIAL <= count]
        settled = fields.boolean(_SETTLED)
        if not tags:
            if is_ours and not count and not settled and self._had(first):
                if self._outcome(fields):
                    lost = LockLost("the lock of the message is lost")
                    self._tell_settled(first, described_value(REJECTED, error_value(lost)))
                return
            Session.on_disposition(self, fields)
            return
        self._work = None
        outcome = self._outcome(fields)
        if self._work is not None:
            raise NotImplementedHere("transactions of Service Bus")
        if not outcome and not settled:
            return
        state = None if settled else self._echo(fields)
        reason = description = None
        terminus = self.connection.terminus
        if outcome and terminus.code == MODIFIED:
            # Some abandon without saying that it failed.
            outcome = DEFERRED if terminus.boolean(_UNDELIVERABLE) else MODIFIED
        elif outcome == REJECTED:
            reason, description = _reasons(terminus)
        queues = []
        for tag in tags:
            queue = self.locks[tag][0].queue
            if queue not in queues:
                queues.append(queue)
            said = state
            try:
                self.settle_lock(tag, outcome, reason, description)
            except AMQPError as error:
                said = described_value(REJECTED, error_value(error))
            if not settled:
                self._tell_settled(tag, said)
        _dispatch(queues)

    def _had(self, tag):
        """Whether the peer got a delivery of this id and does not hold it any more."""
        entry = self.unsettled.tail
        while entry is not None and entry.tag != tag:
            entry = entry.prev
        return entry is None and self.next_id - 1 - tag & _SERIAL < _SERIAL >> 1


def _dispatch(queues):
    for queue in queues:
        if not queue.deleted:
            queue.dispatch()


def _reasons(rejected):
    """What a state says of _REASONS; None where it says nothing."""
    if not rejected.has(0):
        return None, None
    error = read_value(rejected.buf, rejected.at[0])[0]
    row = error.value if isinstance(error, Described) else None
    info = row[_INFO] if isinstance(row, list) and len(row) > _INFO else None
    found = [None, None]
    for key in info if isinstance(info, dict) else ():
        # Some write the keys as symbols, some as strings.
        name = key.text if isinstance(key, Symbol) else key
        if name in _REASONS and isinstance(info[key], str):
            found[_REASONS.index(name)] = info[key]
    return found


# --- links ---


class Sender(Requests):
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
                whole = []
                for one in self._unpacked(octets) if self._batch else (octets,):
                    whole.append(self._read(one))
                for head, sections, body, one, ttl_ms in whole:
                    publish(
                        self.connection.broker, head, sections, len(one) - body,
                        lambda i, n, one=one, body=body: one[body + i : body + i + n], ttl_ms,
                    )  # fmt: skip
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
        """(head, sections, index of the body in *octets*, *octets*, time to live) of a message."""
        body = self._check(octets)
        sections = self.connection.sections
        ttl_ms = sections.ttl_ms
        self._check_user(sections, octets)
        head = self._head or self._head_of(sections, octets)
        envelope = Envelope(octets, 0, body)
        later = envelope.annotation("x-opt-scheduled-enqueue-time")
        if _code(later) == 0x83 and later.value > now_ms():
            raise NotImplementedHere("messages that are enqueued later")
        envelope.header[0] = True
        if _code(envelope.properties[0]) == 0x40:
            envelope.properties[0] = str(hexlify(urandom(16)), "utf-8")
        envelope.annotate("x-opt-enqueued-time", _timestamp(now_ms()))
        return head, envelope.octets(), body, octets, ttl_ms


class Receiver(Outgoing):
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
            annotations["locked_until"] = _timestamp(now_ms() + LOCK_MS)
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
