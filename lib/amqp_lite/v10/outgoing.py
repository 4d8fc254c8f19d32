"""A link that the peer receives from: the sink of a queue's consumer.

The peer gets no more messages than it gave credit for (AMQP 1.0 §2.6.7).
"""

from ..access import READ
from ..broker.message import AMQP10
from ..compat import const, load
from ..errors import AMQPError
from .address import parse_source, queue_address
from .conditions import RESOURCE_DELETED, ConditionError
from .link import COORDINATION, Link, typed_value
from .performatives import HEADER, SOURCE, TARGET, described, uint
from .sections import section_at
from .values import Symbol

_SERIAL = const(0x3FFFFFFF)  # what a board's numbers hold of a serial one; they wrap at 2**32
_GROWTH = const(2)  # times the octets of 0-9-1 properties, at most, are more as sections
_ALL_SETTLED = const(1)  # snd-settle-mode, AMQP 1.0 §2.8.2
_MIXED = const(2)

# Fields of attach, of a source and of flow:
_SND_SETTLE, _SOURCE, _TARGET = const(3), const(5), const(6)
_ADDRESS, _DURABLE, _EXPIRY, _TIMEOUT, _DYNAMIC = const(0), const(1), const(2), const(3), const(4)
_MODE, _FILTER, _DEFAULT, _CAPABILITIES = const(6), const(7), const(8), const(10)
_FLOW_COUNT, _FLOW_CREDIT, _FLOW_DRAIN, _FLOW_ECHO = const(5), const(6), const(8), const(9)
_FLOW_PROPERTIES = const(10)

MOVE = Symbol("move")


class Outgoing(Link):
    """The peer receives: the sink of a queue's consumer."""

    tag = b""  # octets of its delivery-tags before the delivery-id
    work = None  # the transaction in which it acquires,
    state = b""  # and what its transfers say then, see Output.send()

    def __init__(self, session, handle, name):
        Link.__init__(self, session, handle, name, True)
        self.credit = 0
        self._count = 0  # delivery-count, lower 30 bits; and the peer's with the last flow, whole
        self._heard = self._heard_top = 0
        self._beyond = 0  # credit to be drained, besides
        self._drains = False  # the peer wants what is there, and then its credit back
        self.owed = False  # it wants to hear how things are

    def attach(self, fields):
        """The peer's attach: answer it. Raises NotFound, AccessRefused, ResourceLocked ..."""
        if fields.has(_SOURCE):
            address = self._terminus(fields, _SOURCE, SOURCE).text(_ADDRESS)
            if self._is_of_node(fields, address):
                return
        if self._wants_more(fields):
            load("amqp_lite.v10.source").take_over(self, fields)  # late: few peers ask for more
            return
        target = self._echo(fields, _TARGET, TARGET)
        # A queue can be browsed, too: the answer has to say which it is (§3.5.3).
        source = self._echo(fields, _SOURCE, SOURCE, None, MOVE)
        terminus = self._terminus(fields, _SOURCE, SOURCE)
        if terminus.boolean(_DYNAMIC):
            queue = self.dynamic_queue(terminus, True)
            source.value[0] = queue_address(queue.name)
        else:
            where = parse_source(address)
            queue, exchange = self.locate(where, READ)
            if queue is None:
                queue = self.bind_private(exchange, where.key or b"", {})
                source.value.pop()
        self.begin(fields, queue)
        self._answer(fields, source, target, uint(0))

    def _wants_more(self, fields):
        """Whether the source is more than an address: see source.py."""
        if not fields.has(_SOURCE):
            return True
        terminus = self._terminus(fields, _SOURCE, SOURCE)
        for k in (_DURABLE, _EXPIRY, _TIMEOUT, _MODE, _FILTER, _DEFAULT, _CAPABILITIES):
            if terminus.has(k):
                return True
        return False

    def begin(self, fields, queue):
        """Become a consumer of *queue*. Raises AccessRefused, ResourceLimitExceeded."""
        settled = fields.uint(_SND_SETTLE, _MIXED) == _ALL_SETTLED
        try:
            self.consumer = queue.subscribe(self, self.name.encode(), settled, False, 0)
        except AMQPError:
            self._drop_private(queue)
            raise

    def _drop_private(self, queue):
        """Nothing is left of an attach that failed."""
        if queue.owner is self.connection and not queue.consumers:
            self.connection.broker.delete_queue(queue)

    def bind_private(self, exchange, key, arguments):
        """A private queue bound to *exchange*. Raises as Broker.bind() does."""
        queue = self.private_queue()
        try:
            self.connection.broker.bind(exchange, queue, key, arguments)
        except AMQPError:
            self._drop_private(queue)
            raise
        return queue

    # --- the sink of a consumer ---

    def accepts(self, consumer, message):
        if not self.credit or not self.session.may_send():
            return False
        if self.work is not None and not self.work.has_room():
            return False
        size = message.properties + message.body
        if not message.flags & AMQP10:
            size += _GROWTH * message.properties
        return self.connection.output.fits(size)

    def deliver(self, consumer, entry):
        session = self.session
        low = session.next_id
        self.send(entry.message, entry.tries, consumer.no_ack)
        if consumer.no_ack and self.work is not None:
            entry.tag = low
            self.work.took(session, entry)
        elif consumer.no_ack:
            entry.queue.settle(entry)
        else:
            entry.tag = low
            session.unsettled.append(entry)
            self.connection.output.mark(entry)
            if self.work is not None:
                self.work.acquired(session, low)

    def send(self, message, tries, settled):
        """Begin the transfer of *message*, which was given back *tries* times."""
        connection = self.connection
        self.credit -= 1
        self._count = self._count + 1 & _SERIAL
        lead = None
        skip = 0
        if not message.flags & AMQP10:
            convert = load("amqp_lite.convert")
            other = convert.as_v10(connection.broker, message, tries)
            lead = other.head
            skip = message.properties
        elif tries:
            lead, skip = self._counted_header(message, tries)
        session = self.session
        connection.output.send(
            self, message, session.next_id, session.next_id_top, settled, lead, skip
        )
        session.delivered()
        connection.broker.metrics.delivered += 1

    def _counted_header(self, message, tries):
        """(header with this delivery-count, octets of the stored one that it replaces)."""
        connection = self.connection
        buf = connection.broker.scratch
        n = min(message.properties, len(buf))
        connection.broker.pool.read_at(message, message.head, n, buf, 0)
        code = section_at(buf, 0, n)
        terminus = connection.terminus
        skip = 0
        values = [None, None, None]
        if code == HEADER:
            skip = terminus.scan(buf, 0, n)
            values = [typed_value(terminus, k) for k in range(3)]
            tries += terminus.uint(4, 0)
        return described(HEADER, *values, False, uint(tries)), skip

    def cancelled(self, consumer):
        """The queue is gone; the broker takes the consumer off it."""
        self.consumer = None
        entry = self.session.unsettled.head
        while entry is not None:
            if entry.consumer is consumer:
                entry.consumer = None
            entry = entry.next
        self._forget(consumer)
        self.session.cancel(self, ConditionError(RESOURCE_DELETED, "the queue is gone"))

    # --- what the peer says ---

    def on_flow(self, fields):
        count = fields.serial(_FLOW_COUNT) if fields.has(_FLOW_COUNT) else 0
        self._heard = count
        self._heard_top = fields.serial_top(_FLOW_COUNT) if fields.has(_FLOW_COUNT) else 0
        if fields.has(_FLOW_CREDIT):
            self.credit = max(0, fields.uint(_FLOW_CREDIT, 0) - (self._count - count & _SERIAL))
        if fields.has(_FLOW_PROPERTIES) or self.work is not None:
            load(COORDINATION).associate(self, fields)
        self._drains = fields.boolean(_FLOW_DRAIN)
        self._beyond = 0
        if self._drains and fields.has(_FLOW_CREDIT) and fields.serial_top(_FLOW_CREDIT):
            credit = fields.serial_top(_FLOW_CREDIT) << 30 | fields.serial(_FLOW_CREDIT)
            self._beyond = credit - fields.uint(_FLOW_CREDIT, 0)
        self.owed = self.owed or fields.boolean(_FLOW_ECHO)
        if self.consumer is not None:
            self.consumer.queue.dispatch()

    def pump(self):
        """Give the credit back when that is wanted and nothing waits; say so, or what is owed."""
        if not self._drains and not self.owed:
            return
        drained = None
        if self._drains and not (self.credit and self._waiting()):
            self._drains = False
            count = self._whole_count() + self.credit + self._beyond
            self._count = self._heard = count & _SERIAL
            self._heard_top = count >> 30 & 3
            self.credit = 0
            drained = True
        elif not self.owed:
            return
        self.owed = False
        self._tell(drained)

    def _waiting(self):
        """Messages that wait for credit."""
        if self.work is not None and not self.work.has_room():
            return 0  # not for this transaction
        return self.consumer.queue.waiting() if self.consumer is not None else 0

    def _whole_count(self):
        """The delivery-count with its upper bits: they are the peer's, or it wrapped since."""
        top = self._heard_top + (self._count < self._heard) & 3
        return top << 30 | self._count

    def _tell(self, drained=None):
        self.session.flow(
            uint(self.handle), uint(self._whole_count()), uint(self.credit),
            uint(self._waiting()), drained,
        )  # fmt: skip

    def release(self):
        """It has ended: its consumer leaves, what it had stays with the session."""
        self.connection.output.drop_body(self)
        consumer = self.consumer
        if self.work is not None:
            self.work.leave(self)
        if consumer is not None:
            self.consumer = None
            self._forget(consumer)
            consumer.queue.unsubscribe(consumer)

    def _forget(self, consumer):
        """*consumer* leaves; what it held stays in the transactions that settle it."""
        works = self.connection.works
        for txn_id in works or ():
            works[txn_id].transaction.forget_consumer(consumer)
