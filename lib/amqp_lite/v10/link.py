"""What the links of a session have in common: termini, addresses, and how an attach is answered.

incoming.py takes the peer's messages, outgoing.py brings it those of a queue.
"""

from ..access import CONFIGURE, READ
from ..broker.broker import GENERATED, is_for_answers
from ..broker.queue import text
from ..compat import const, load
from ..errors import NotFound, ResourceLimitExceeded
from ..v091.topology import check_own
from .address import DECLARED, EXCHANGE, PLAIN, QUEUE, Address
from .codec import skip_value
from .conditions import InvalidField
from .performatives import (
    ATTACH,
    COORDINATOR,
    DETACH,
    described,
    described_value,
    error_value,
    uint,
)
from .values import Symbol, Typed, read_value

COORDINATION = "amqp_lite.v10.coordinator"
_MIXED = const(2)  # snd-settle-mode, AMQP 1.0 §2.8.2

# Fields of attach and of a terminus:
_SND_SETTLE, _RCV_SETTLE, _TARGET = const(3), const(4), const(6)
_ADDRESS, _DYNAMIC = const(0), const(4)
_CAPABILITIES = const(10)  # of a source
_TARGET_CAPABILITIES = const(6)


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

    def _echo(self, fields, k, code, *more):
        """The terminus in field *k* for the answer, as described() takes it.

        more  fields behind `dynamic`

        What is not known here is left out, so that the peer sees that (§3.5.3): filters,
        properties, capabilities.
        """
        if not fields.has(k):
            return None
        terminus = self._terminus(fields, k, code)
        values = [typed_value(terminus, n) for n in range(_DYNAMIC + 1)]
        return described_value(code, *(values + list(more)))

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


def typed_value(fields, k):
    """Field *k* as read_value() tells it, typed; None when it is not given."""
    return read_value(fields.buf, fields.at[k], True)[0] if fields.has(k) else None
