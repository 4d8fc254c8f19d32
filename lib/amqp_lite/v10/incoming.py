"""A link that the peer sends on: its messages go to an exchange or a queue.

A link's credit is what bounds its memory: the peer may send no more than we gave it (AMQP 1.0
§2.6.7). A message is stored as it comes: the sections before its body but the
delivery-annotations, then its body (see sections.py).
"""

from binascii import hexlify
from os import urandom

from ..access import WRITE
from ..broker.broker import GENERATED
from ..broker.message import AMQP10, PERSISTENT
from ..broker.queue import text
from ..compat import const, equal, hash_octets, load
from ..errors import (
    AccessRefused,
    AMQPError,
    ContentTooLarge,
    NotAllowed,
    NotFound,
    NotImplementedHere,
    ResourceLimitExceeded,
    SyntaxFailure,
)
from ..v091.codec import shortstr
from .address import ANONYMOUS, parse_target, queue_address
from .codec import octets_begin, octets_size, text_at
from .conditions import ConditionError, InvalidField, NotAllowedNow
from .link import COORDINATION, Link, has_capability
from .performatives import (
    COORDINATOR,
    REJECTED,
    SOURCE,
    TARGET,
    TRANSACTIONAL_STATE,
    described,
    error_value,
)
from .sections import Body, Incomplete
from .values import Symbol

_SERIAL = const(0x3FFFFFFF)  # what a board's numbers hold of a serial one; they wrap at 2**32
_TAG = const(32)  # octets, AMQP 1.0 §2.8.7

# Fields of attach, of a target, of flow and of transfer:
_SOURCE, _TARGET, _INITIAL_COUNT = const(5), const(6), const(9)
_ADDRESS, _DYNAMIC, _TARGET_CAPABILITIES = const(0), const(4), const(6)
_FLOW_ECHO = const(9)
_ID, _DELIVERY_TAG, _FORMAT, _SETTLED = const(1), const(2), const(3), const(4)
_MORE, _ABORTED = const(5), const(9)
_STATE = const(7)

_RELEASED = b"\x00\x53\x26\x45"
ABORTED_BY_PEER = AMQPError("aborted")


def _tag_hash(fields):
    at = fields.at[_DELIVERY_TAG]
    return hash_octets(fields.buf, octets_begin(fields.buf, at), octets_size(fields.buf, at))


class Incoming(Link):
    """The peer sends: its messages go to an exchange or a queue."""

    confirms = 1  # message by each delivery that is accepted

    def __init__(self, session, handle, name):
        Link.__init__(self, session, handle, name, False)
        self.progress = 0  # ticks of the last octets of `message`
        self._refused = None  # the error for which what is being received is dropped
        self._early = None  # octets of sections before the body, the rest of which is to come
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
        elif fields.boolean(_ABORTED):
            self._abandon()  # before its payload counts, which is for nobody
        elif self._early is not None:
            if not self._try_message(fields, buf, i, end, more):
                return False
        elif self.message is not None and not self._go_on(buf, i, end, more):
            return False
        self._settled = self._settled or fields.boolean(_SETTLED)
        self._more = fields.boolean(_MORE)
        if fields.boolean(_ABORTED):
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
            if not self._try_message(fields, buf, i, end, more):
                return False
        self._amid = True
        self._settled = False
        if self._work is not None:
            self._work.posting += 1
        return True

    def _try_message(self, fields, buf, i, end, more):
        """Begin a message with these octets behind those that came early. False: no memory now."""
        early = self._early
        if early is not None:
            self._early = None
            buf = memoryview(early + bytes(buf[i:end]))
            i = 0
            end = len(buf)
        try:
            if not self._begin_message(fields, buf, i, end, more):
                self._early = early
                return False
        except (ContentTooLarge, NotFound, AccessRefused) as error:
            if self._head is not None or self._exchange is not None:
                raise  # the link's own fault, not this message's
            self._refused = error
        except (
            SyntaxFailure, InvalidField, ResourceLimitExceeded, NotAllowed, NotImplementedHere
        ) as error:  # fmt: skip
            self._refused = error
        if self._refused is not None and self._tells_errors():
            self._refused.info = {Symbol("delivery-tag"): fields.octets(_DELIVERY_TAG)}
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
        if fields.uint(_FORMAT, 0):
            raise NotImplementedHere("message-format: we have only 0, that of AMQP 1.0 §3.2")
        try:
            sections.scan(buf, i, end, not more and not fields.boolean(_MORE))
        except Incomplete:
            if not fields.boolean(_MORE) and not more:
                raise SyntaxFailure("the message ends within a section")
            if more or end - i > broker.properties_most:
                raise ResourceLimitExceeded("the sections before the body are too long")
            self._early = bytes(buf[i:end])
            return True
        self._check_user(sections, buf)
        head = self._head or self._head_of(sections, buf)
        route = broker.route(head, 0, len(head))
        body = end - sections.body + more
        stream = sections.durable and self._is_streamed(fields, route, body)
        self._check_size(body, stream)
        first = sections.cut - sections.start
        size = first + sections.body - sections.resume
        needed = broker.entries_for(route, route.stamp, sections.durable)
        message = broker.pool.begin(len(head) + size + (0 if stream else body))
        if message is None:
            return False
        chain = message.chain = broker.store.bodies.take() if stream else None
        if not broker.has_entries(needed) or (stream and chain is None):
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
            broker.store.bodies.add(message.chain, buf, i, n)
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
            self.session.settle(self._id, self._id_top, state, self.confirms)
        elif self.lost_error() is not None and self._work is None and self._tells_errors():
            self.session.cancel(self, self._refused)
            return
        if self.credit <= self.connection.credit // 2:
            self._grant()

    def lost_error(self):
        """Why a message that its sender has settled is refused; None: it is not."""
        return None if not self._settled or self._refused is ABORTED_BY_PEER else self._refused

    def _tells_errors(self):
        """Whether the peer has to hear why a message is refused: the link ends if it settled that.

        So it is at the anonymous terminus, see Using the Anonymous Terminus §2.2.2.
        """
        return self._head is None and self._exchange is None

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
            return self._work.publish(self, message, self._refused)
        if self._refused is not None:
            return described(REJECTED, error_value(self._refused))
        queues = broker.publish(message, self._route, self._stamp)
        broker.pool.release(message)
        if queues < 0:
            full = ResourceLimitExceeded("a queue is full, or the store")
            return described(REJECTED, error_value(full))
        return None if queues or self._lossy else _RELEASED

    def is_routed(self):
        """Whether its message goes somewhere, as far as can be told before it is published."""
        route = self._route
        return self._lossy or route.stamp != self._stamp or route.by_headers or route.count

    def _abandon(self):
        """Drop the half-received message."""
        broker = self.connection.broker
        if broker.longest_waiting is self:
            broker.longest_waiting = None
        self._early = None
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
        if self._amid and self._work is not None:
            self._work.posting -= 1
        self._abandon()
        self.connection.forget_taker(self)
        queue = self.noted()
        if queue is not None:
            self.connection.broker.delete_queue(queue)
