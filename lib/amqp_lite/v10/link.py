"""The links of a session: Incoming takes the peer's messages, Outgoing brings it those of a queue.

A link's credit is what bounds its memory: the peer may send no more than we gave it, and gets no
more than it gave us (AMQP 1.0 §2.6.7). A message is stored as it came: the sections before its
body but the delivery-annotations, then its body (see sections.py).
"""

from binascii import hexlify
from os import urandom

from ..access import CONFIGURE, READ, WRITE
from ..broker.broker import GENERATED, is_for_answers
from ..broker.message import AMQP10, PERSISTENT
from ..broker.queue import text
from ..compat import const, equal, hash_octets, load
from ..errors import (
    AccessRefused,
    AMQPError,
    ContentTooLarge,
    NotAllowed,
    NotFound,
    ResourceLimitExceeded,
    SyntaxFailure,
)
from ..v091.codec import shortstr
from ..v091.topology import check_own
from .address import (
    ANONYMOUS,
    DECLARED,
    EXCHANGE,
    PLAIN,
    QUEUE,
    Address,
    parse_source,
    parse_target,
    queue_address,
)
from .codec import octets_begin, octets_size, skip_value, text_at
from .conditions import DETACH_FORCED, ConditionError, InvalidField, NotAllowedNow
from .performatives import (
    ATTACH,
    COORDINATOR,
    DETACH,
    HEADER,
    REJECTED,
    SOURCE,
    TARGET,
    TRANSACTIONAL_STATE,
    described,
    described_value,
    error_value,
    uint,
)
from .sections import Body, Incomplete, section_at
from .values import Symbol, Typed, read_value

COORDINATION = "amqp_lite.v10.coordinator"
_SERIAL = const(0x3FFFFFFF)  # what a board's numbers hold of a serial one; they wrap at 2**32
_GROWTH = const(2)  # times the octets of 0-9-1 properties, at most, are more as sections
_TAG = const(32)  # octets, AMQP 1.0 §2.8.7
_ALL_SETTLED = const(1)  # snd-settle-mode, AMQP 1.0 §2.8.2
_MIXED = const(2)

# Fields of attach, of a terminus, of flow and of transfer:
_SND_SETTLE, _RCV_SETTLE, _SOURCE, _TARGET = const(3), const(4), const(5), const(6)
_INITIAL_COUNT = const(9)
_ADDRESS, _DURABLE, _EXPIRY, _TIMEOUT, _DYNAMIC = const(0), const(1), const(2), const(3), const(4)
_MODE, _FILTER, _DEFAULT, _CAPABILITIES = const(6), const(7), const(8), const(10)  # of a source
_TARGET_CAPABILITIES = const(6)
_FLOW_COUNT, _FLOW_CREDIT, _FLOW_DRAIN, _FLOW_ECHO = const(5), const(6), const(8), const(9)
_FLOW_PROPERTIES = const(10)
_ID, _DELIVERY_TAG, _SETTLED, _MORE, _ABORTED = const(1), const(2), const(4), const(5), const(9)
_STATE = const(7)

_RELEASED = b"\x00\x53\x26\x45"
ABORTED_BY_PEER = AMQPError("aborted")


class Link:
    """What both have.

    session, handle  where it is; the handle is the same in both directions
    name             of the link
    to_peer          whether the peer is its receiver
    node             address of the node of the protocol itself that it belongs to, see node.py
    """

    consumer = None
    default_outcome = 0  # of deliveries that are settled without one, or given up; 0: it depends
    _queue = None  # that goes with it, or that it looks at: see own(), and its serial number
    _serial = 0
    node = None
    message = None  # being received

    def __init__(self, session, handle, name, to_peer):
        self.session = session
        self.connection = session.connection
        self.handle = handle
        self.name = name
        self.to_peer = to_peer
        self.closing = False  # we sent a detach: all but the peer's is ignored

    def _terminus(self, fields, k, code):
        """The terminus in field *k*, found in place. Raises InvalidField when it is no *code*."""
        terminus = self.connection.terminus
        if not fields.has(k):
            raise InvalidField("a link without its terminus")
        terminus.scan(fields.buf, fields.at[k], skip_value(fields.buf, fields.at[k]))
        if terminus.code == COORDINATOR and k == _TARGET and not self.to_peer:
            return terminus
        if terminus.code != code:
            raise InvalidField("a terminus that is a %s" % terminus.name())
        if terminus.has(_ADDRESS) and fields.buf[terminus.at[_ADDRESS]] & 0xEF != 0xA1:
            raise InvalidField("an address that is no string")
        return terminus

    def _is_of_node(self, fields, address):
        """Whether a node of the protocol itself has this *address*: it answers the attach then."""
        if not address or not (address.startswith("/management") or "$" in address):
            return False
        return load("amqp_lite.v10.node").take_over(self, fields, address)

    def _echo(self, fields, k, code):
        """The terminus in field *k* for the answer, as described() takes it.

        What is not known here is left out, so that the peer sees that (§3.5.3): filters,
        properties, capabilities.
        """
        if not fields.has(k):
            return None
        terminus = self._terminus(fields, k, code)
        return described_value(code, *[_value(terminus, n) for n in range(_DYNAMIC + 1)])

    def note(self, queue):
        """*queue*, or None, is what noted() answers, as long as it is there."""
        self._queue = queue
        self._serial = queue.serial if queue is not None else 0

    def noted(self):
        """The queue that note() was given; None: it is gone. Its object may be another's now."""
        queue = self._queue
        if queue is None or queue.deleted or queue.serial != self._serial:
            return None
        return queue

    def locate(self, where, kind):
        """(queue, exchange) that an Address means: one of them is None.

        kind  READ or WRITE, which the user has to be allowed

        Raises NotFound, AccessRefused, ResourceLocked.
        """
        connection = self.connection
        broker = connection.broker
        user = connection.user
        name = where.queue
        queue = exchange = None
        if where.kind != QUEUE:
            exchange = broker.exchanges.get(where.exchange)
        if where.kind != EXCHANGE:
            queue = broker.queues.get(name)
            made = where.kind == DECLARED
            if queue is None and where.kind == PLAIN and exchange is None:
                made = connection.declares and user.may(CONFIGURE, name)
            if queue is None and made:
                user.demand(kind, name, "queue")
                user.demand(CONFIGURE, name, "queue")
                queue = broker.declare_queue(name, True, None, False, {})
        if queue is not None:
            if kind == READ:
                queue.check_owner(connection)
            # Whoever knows the name of somebody's queue for answers was told it.
            if kind == READ or not is_for_answers(name):
                check_own(name)
                user.demand(kind, name, "queue")
            return queue, None
        if exchange is None:
            raise NotFound("no queue or exchange '%s' in vhost '/'" % text(name or where.exchange))
        user.demand(kind, exchange.name, "exchange")
        return None, exchange

    def as_topic(self, terminus, where):
        """*where*, but for JMS's topics: a plain name is a key of amq.topic then."""
        k = _CAPABILITIES if self.to_peer else _TARGET_CAPABILITIES
        if where.kind != PLAIN or where.exchange in self.connection.broker.exchanges:
            return where
        if not has_capability(terminus, k, "topic"):
            return where
        return Address(EXCHANGE, b"amq.topic", where.queue, None)

    def dynamic_queue(self, terminus, auto_delete):
        """The queue of a dynamic *terminus*. Raises ResourceLimitExceeded, AccessRefused."""
        if terminus.has(_ADDRESS):
            raise InvalidField("a dynamic terminus with an address")
        self.connection.user.demand(CONFIGURE, GENERATED, "queue")
        return self.private_queue(auto_delete)

    def private_queue(self, auto_delete=True):
        """A queue that goes with this link. Raises ResourceLimitExceeded."""
        connection = self.connection
        queues = connection.broker.queues
        most = connection.private_queues
        if sum([queues[name].owner is connection for name in queues]) >= most:
            raise ResourceLimitExceeded("more than %d queues of this connection" % most)
        return connection.broker.declare_queue(b"", False, connection, auto_delete, {})

    def _answer(self, fields, source, target, count, most=None, properties=None):
        """Send our attach. *source*, *target*: as write_value() takes them; None: refused.

        most  octets of the longest message that we take; None: the broker's maximum
        """
        settle = Typed(0x50, self.settle_mode(fields))
        broker = self.connection.broker
        largest = max(broker.message_max, broker.stored_max if broker.store.keeps else 0)
        octets = described(
            ATTACH, self.name, uint(self.handle), not self.to_peer, settle,
            # Whether it waits for us to settle, too: as it likes it, and we never do.
            Typed(0x50, min(fields.uint(_RCV_SETTLE, 0), 1) if self.to_peer else 0),
            source, target, None, None, count,
            None if self.to_peer else Typed(0x80, most or largest),
            None, None, properties,
        )  # fmt: skip
        if len(octets) + 8 > self.connection.output.frame_max:
            raise ResourceLimitExceeded("the answer is longer than the peer's frames")
        self.session.send(octets)

    def closed(self):
        """The peer's detach closes what the link was attached to."""

    def release(self):
        """It has ended."""

    def settle_mode(self, fields):
        """The snd-settle-mode of the answer."""
        return min(fields.uint(_SND_SETTLE, _MIXED), _MIXED)

    def refuse(self, fields, error):
        """Answer an attach that cannot be: a link without its terminus, ended at once (§2.6.3)."""
        self._answer(fields, None, None, uint(0) if self.to_peer else None)
        self.closing = True
        self.session.send(described(DETACH, uint(self.handle), True, error_value(error)))


def has_capability(terminus, k, name):
    """Whether the symbol *name* is field *k*, or one of those in it."""
    if not terminus.has(k):
        return False
    found = read_value(terminus.buf, terminus.at[k])[0]
    return Symbol(name) in (found if isinstance(found, list) else [found])


def _value(fields, k):
    return read_value(fields.buf, fields.at[k], True)[0] if fields.has(k) else None


def _tag_hash(fields):
    at = fields.at[_DELIVERY_TAG]
    return hash_octets(fields.buf, octets_begin(fields.buf, at), octets_size(fields.buf, at))


class Incoming(Link):
    """The peer sends: its messages go to an exchange or a queue."""

    def __init__(self, session, handle, name):
        Link.__init__(self, session, handle, name, False)
        self.progress = 0  # ticks of the last octets of `message`
        self._refused = None  # the error for which what is being received is dropped
        self._head = None  # exchange and routing key as two short strings; None: each says it
        self._exchange = None  # of those that say the key alone
        self._lossy = False  # nobody needs to want a message: it is for a topic of JMS
        self._body = Body()
        self.count = 0  # delivery-count: its lower 30 bits, and its upper 2
        self.count_top = 0
        self.credit = 0
        self.owed = False  # it was not told yet
        self.short = False  # there was no memory for more
        self._amid = False  # between the first and the last transfer of a delivery
        self._id = 0  # delivery-id of it, lower 30 bits
        self._id_top = 0
        self._tag = 0  # hash of its delivery-tag
        self._settled = False
        self._more = False
        self._route = None
        self._stamp = 0
        self._work = None  # the transaction it is part of
        self._promised = 0  # entries

    def attach(self, fields):
        """The peer's attach: answer it. Raises what may_not be."""
        self.note_count(fields)
        terminus = self._terminus(fields, _TARGET, TARGET)
        if terminus.code == COORDINATOR:
            load(COORDINATION).take_over(self, fields)  # late: few peers have transactions
            return
        address = terminus.text(_ADDRESS)
        if self._is_of_node(fields, address):
            return
        made = terminus.boolean(_DYNAMIC)
        if made:
            address = self._make_node(terminus)
        where = parse_target(address)
        if where.kind != ANONYMOUS:
            topic = self.as_topic(terminus, where)
            self._lossy = topic is not where or address.startswith("/topic/")
            self._head, self._exchange = self._place(topic)
        source = self._echo(fields, _SOURCE, SOURCE)
        target = self._echo(fields, _TARGET, TARGET)
        if made:
            target.value[0] = address
        self._answer(fields, source, target, None)
        self._grant()

    def _make_node(self, terminus):
        """The address of a dynamic *terminus*: a key of amq.topic is as good as a topic."""
        if has_capability(terminus, _TARGET_CAPABILITIES, "temporary-topic"):
            return "/topic/" + str(GENERATED + hexlify(urandom(9)), "utf-8")
        queue = self.dynamic_queue(terminus, False)
        self.note(queue)  # it goes with this link
        return queue_address(queue.name)

    def note_count(self, fields):
        """The peer's attach says where it begins to count."""
        if not fields.has(_INITIAL_COUNT):
            raise InvalidField("a sender's attach without its initial-delivery-count")
        self.count = fields.serial(_INITIAL_COUNT)
        self.count_top = fields.serial_top(_INITIAL_COUNT)

    def _place(self, where):
        """(head, exchange) of an Address: one of them is None. Raises NotFound, AccessRefused."""
        queue, exchange = self.locate(where, WRITE)
        if queue is not None:
            return shortstr(b"") + shortstr(queue.name), None
        if exchange.internal:
            raise AccessRefused("cannot publish to internal exchange '%s'" % text(exchange.name))
        if where.key is None:
            return None, exchange.name
        return shortstr(exchange.name) + shortstr(where.key), None

    def _grant(self):
        """Give as much credit as there is memory for, when it is more than the peer has."""
        room = self._room()
        self.short = room < self.connection.credit
        if room > self.credit:
            self.credit = room
            self.session.grant(self)

    def _room(self):
        broker = self.connection.broker
        if self.session.is_behind():
            return 0
        return self.connection.credit if broker.is_roomy() else 1 if broker.has_room() else 0

    def pump(self):
        """Tell the credit that is owed; give more once there is memory again."""
        if self.short and self.credit <= self.connection.credit // 2:
            self._grant()
        if self.owed:
            self.session.grant(self)

    # --- transfers ---

    def on_transfer(self, fields, buf, i, end, more):
        """A transfer whose payload is in buf[i:end], but for *more* octets. False: no memory now.

        Raises ConditionError, NotAllowedNow, InvalidField, ContentTooLarge, NotFound.
        """
        if not self._amid:
            if not self._begin(fields, buf, i, end, more):
                return False
        elif (
            fields.has(_ID)
            and fields.serial(_ID) != self._id
            or (fields.has(_DELIVERY_TAG) and _tag_hash(fields) != self._tag)
        ):
            raise NotAllowedNow("a delivery inside of another one on the same link")
        elif self.message is not None and not self._go_on(buf, i, end, more):
            return False
        self._settled = self._settled or fields.boolean(_SETTLED)
        self._more = fields.boolean(_MORE)
        if fields.boolean(_ABORTED):
            self._abandon()
            self._settled = True
            self._more = False
            self._refused = ABORTED_BY_PEER
        self.connection.taker = self
        return True

    def _begin(self, fields, buf, i, end, more):
        if not self.credit:
            raise ConditionError("amqp:link:transfer-limit-exceeded", "a transfer without credit")
        if not fields.has(_ID):
            raise InvalidField("a delivery without its delivery-id")
        tag = fields.at[_DELIVERY_TAG]
        if tag < 0 or octets_size(buf, tag) > _TAG:
            raise InvalidField("a delivery without a delivery-tag of at most %d octets" % _TAG)
        if fields.boolean(_MORE):
            self._tag = _tag_hash(fields)
        self._id = fields.serial(_ID)
        if self._id != self.session.due_id >= 0:
            raise NotAllowedNow("a delivery-id that is not the next one")
        self._id_top = fields.serial_top(_ID)
        self._refused = None
        self._work = self._work_in(fields) if fields.has(_STATE) else None
        if not fields.boolean(_ABORTED):
            try:
                if not self._begin_message(fields, buf, i, end, more):
                    return False
            except (ContentTooLarge, NotFound, AccessRefused) as error:
                if self._head is not None or self._exchange is not None:
                    raise  # the link's own fault, not this message's
                self._refused = error
            except (SyntaxFailure, InvalidField, ResourceLimitExceeded, NotAllowed) as error:
                self._refused = error
        self._amid = True
        self._settled = False
        return True

    def _work_in(self, fields):
        """The transaction that a transfer is of, or None. Raises UnknownTransaction."""
        state = self.connection.terminus
        state.scan(fields.buf, fields.at[_STATE], len(fields.buf))
        if state.code != TRANSACTIONAL_STATE:
            return None
        return load(COORDINATION).work_in(self.connection, state)

    def _begin_message(self, fields, buf, i, end, more):
        broker = self.connection.broker
        sections = self.connection.sections
        try:
            sections.scan(buf, i, end, not more and not fields.boolean(_MORE))
        except Incomplete:
            raise ResourceLimitExceeded("the sections before the body are too long")
        self._check_user(sections, buf)
        head = self._head or self._head_of(sections, buf)
        route = broker.route(head, 0, len(head))
        body = end - sections.body + more
        stream = sections.durable and self._is_streamed(fields, route, body)
        self._check_size(body, stream)
        first = sections.cut - sections.start
        size = first + sections.body - sections.resume
        needed = broker.entries_for(route, route.stamp, sections.durable)
        message = broker.pool.begin(len(head))
        if message is None:
            return False
        chain = message.chain = broker.store.take_chain() if stream else None
        if (
            not broker.has_entries(needed)
            or (stream and chain is None)
            or not broker.pool.extend(message, size if stream else size + body)
        ):
            broker.pool.release(message)
            return False
        broker.promised += needed
        self._promised = needed
        self._route = route
        self._stamp = route.stamp
        message.flags = AMQP10 | PERSISTENT if sections.durable else AMQP10
        message.ttl_ms = sections.ttl_ms
        message.head = len(head)
        message.properties = size
        message.body = 0
        pool = broker.pool
        pool.write(message, head, 0, len(head))
        if first:
            pool.write(message, buf, sections.start, first)
        pool.write(message, buf, sections.resume, size - first)
        self.message = message
        self._body.reset()
        self.on_payload(buf, sections.body, end - sections.body)
        return True

    def _is_streamed(self, fields, route, body):
        """Whether a durable message is stored as it comes: it may be long, and is for the store
        alone."""
        broker = self.connection.broker
        if body <= broker.small_max and not fields.boolean(_MORE):
            return False
        return broker.is_stored_only(route, route.stamp)

    def _check_size(self, body, stream):
        broker = self.connection.broker
        largest = max(broker.stored_max, broker.message_max) if stream else broker.message_max
        if body > largest:
            raise ContentTooLarge("the body is longer than the maximum of %d octets" % largest)

    def _check_user(self, sections, buf):
        """The user-id of a message has to be its publisher's. AMQP 1.0 §3.2.4."""
        if sections.user_id < 0:
            return
        name = self.connection.user.name
        at = octets_begin(buf, sections.user_id)
        n = octets_size(buf, sections.user_id)
        if n and (n != len(name) or not equal(buf, at, name, n)):
            raise NotAllowed("user-id is another one than the authenticated '%s'" % text(name))

    def _head_of(self, sections, buf):
        """Exchange and routing key of a message that says one or both of them itself."""
        key = b""
        if sections.subject >= 0:
            key = text_at(buf, sections.subject).encode()
        exchange = self._exchange
        if exchange is None:
            if sections.to < 0:
                raise NotFound("a message without an address on a link without one")
            to = text_at(buf, sections.to)
            self._lossy = to.startswith("/topic/")
            head, exchange = self._place(parse_target(to))
            if head is not None:
                return head
        return shortstr(exchange) + shortstr(key)

    def _go_on(self, buf, i, end, more):
        """More of the message. False: no memory for it now."""
        broker = self.connection.broker
        message = self.message
        size = end - i + more
        try:
            self._check_size(message.body + size, message.chain is not None)
        except ContentTooLarge:
            self._abandon()
            raise
        if message.chain is None and not broker.pool.extend(message, size):
            broker.longest_waiting = broker.longest_waiting or self
            return False
        if broker.longest_waiting is self:
            broker.longest_waiting = None
        self.on_payload(buf, i, end - i)
        return True

    def on_payload(self, buf, i, n):
        """*n* octets of the body."""
        if self.message is None:
            return
        broker = self.connection.broker
        self.progress = broker.now
        try:
            self._body.follow(buf, i, n)
        except SyntaxFailure as error:
            self._abandon()
            self._refused = error
            return
        message = self.message
        if message.chain is None:
            broker.pool.write(message, buf, i, n)
        else:
            broker.store.add_part(message.chain, buf, i, n)
        message.body += n

    def on_payload_end(self):
        """A transfer is whole."""
        if self._more:
            return
        self._amid = False
        self.credit -= 1
        self.count = count = self.count + 1 & _SERIAL
        if not count:
            self.count_top = self.count_top + 1 & 3
        state = self._publish()
        if not self._settled:
            self.session.settle(self._id, self._id_top, state)
        if self.credit <= self.connection.credit // 2:
            self._grant()

    def _publish(self):
        """Route the whole message: the octets of its outcome; None: accepted when it is stored."""
        broker = self.connection.broker
        message = self.message
        if message is not None:
            try:
                if message.body:
                    self._body.end()
            except SyntaxFailure as error:
                self._abandon()
                self._refused = error
                message = None
        self.message = None
        broker.promised -= self._promised
        self._promised = 0
        if self._work is not None:
            return self._work.publish(message, self._refused, self._is_routed())
        if self._refused is not None:
            return described(REJECTED, error_value(self._refused))
        queues = broker.publish(message, self._route, self._stamp)
        broker.pool.release(message)
        if queues < 0:
            full = ResourceLimitExceeded("a queue is full, or the store")
            return described(REJECTED, error_value(full))
        return None if queues or self._lossy else _RELEASED

    def _is_routed(self):
        """Whether its message goes somewhere, as far as can be told before it is published."""
        route = self._route
        return route is None or route.stamp != self._stamp or route.by_headers or route.count

    def _abandon(self):
        """Drop the half-received message."""
        broker = self.connection.broker
        if broker.longest_waiting is self:
            broker.longest_waiting = None
        if self.message is not None:
            broker.pool.release(self.message)
            broker.promised -= self._promised
            broker.freed = True
        self._promised = 0
        self.message = None

    def give_up(self):
        """Drop the half-received message; the rest of it is passed over, and then refused."""
        self._abandon()
        self._refused = ResourceLimitExceeded("half a message was given up: others want its room")

    def on_flow(self, fields):
        """The sender's flow: nothing of it matters but that it may want ours."""
        if fields.boolean(_FLOW_ECHO):
            self.owed = True

    def release(self):
        """It has ended."""
        self._abandon()
        self.connection.forget_taker(self)
        queue = self.noted()
        if queue is not None:
            self.connection.broker.delete_queue(queue)


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
        source = self._echo(fields, _SOURCE, SOURCE)
        terminus = self._terminus(fields, _SOURCE, SOURCE)
        if terminus.boolean(_DYNAMIC):
            queue = self.dynamic_queue(terminus, True)
            source.value[0] = queue_address(queue.name)
        else:
            where = parse_source(address)
            queue, exchange = self.locate(where, READ)
            if queue is None:
                queue = self.bind_private(exchange, where.key or b"", {})
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
            values = [_value(terminus, k) for k in range(3)]
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
        self.session.cancel(self, ConditionError(DETACH_FORCED, "the queue is gone"))

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
