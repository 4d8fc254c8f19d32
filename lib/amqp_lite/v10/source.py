"""What a receiving peer may want besides the next message of a queue (AMQP 1.0 §3.5.3).

    durable, expiry-policy, timeout   a subscription that collects while its subscriber is away
    filter                            the key or arguments of a binding; a selector
    distribution-mode copy            to browse: look at what waits and leave it there
    default-outcome                   of deliveries that are settled without one, or are given up

A subscription is a queue called after the peer's container and the link, `container.link`, bound
to an exchange. It lives until a detach closes it; with another expiry-policy than `never`, also
until its timeout is over without a subscriber. With its queue the store keeps whose it is and
what it selects, so that whoever attaches the link again finds what came meanwhile.

Imported when the first such link is attached.
"""

from ..access import CONFIGURE, READ
from ..broker.delivery import is_behind
from ..broker.exchange import HEADERS
from ..broker.message import MAX_TTL_MS
from ..compat import const, load, ticks_diff
from ..errors import AMQPError, NotFound, NotImplementedHere, ResourceLocked
from .address import exchange_address, parse_source, queue_address
from .conditions import RESOURCE_DELETED, STOLEN, ConditionError, InvalidField
from .link import has_capability
from .outgoing import MOVE, Outgoing
from .performatives import SOURCE, TARGET, described_value, uint
from .values import Symbol, Typed, read_value

# Fields of attach and of a source:
_SOURCE, _TARGET = const(5), const(6)
_ADDRESS, _DURABLE, _EXPIRY, _TIMEOUT, _DYNAMIC = const(0), const(1), const(2), const(3), const(4)
_MODE, _FILTER, _DEFAULT, _CAPABILITIES = const(6), const(7), const(8), const(10)

_NEVER = b"never"
_OWNER = b"x-subscription"  # arguments of a subscription's queue: the user's name
_SELECTOR = b"x-selector"
_SETTLED = const(1)  # snd-settle-mode, AMQP 1.0 §2.8.2
_LONGEST = const(255)  # octets of a queue's name

# By symbol and number of their descriptors.
_KEYS = (
    Symbol("apache.org:legacy-amqp-direct-binding:string"), 0x468C00000000,
    Symbol("apache.org:legacy-amqp-topic-binding:string"), 0x468C00000001,
)  # fmt: skip
_ARGUMENTS = (Symbol("apache.org:legacy-amqp-headers-binding:map"), 0x468C00000002)
_SELECTORS = (Symbol("apache.org:selector-filter:string"), 0x468C00000004)


class _Filters:
    """What the filters of a source ask for; those we do not have are left out of the answer."""

    def __init__(self, value):
        self.key = None
        self.arguments = None
        self.selector = None
        self._kept = []  # (descriptor, name, filter), the last two as Typed
        if value is None:
            return
        for name, one in value.value:
            self._take(name, one)

    def kept(self, exchange, key):
        """For the answer: those that count for a source that is an *exchange*, or is none, and
        whose address has this *key*, or none."""
        return Typed(0xD1, [
            (name, one) for descriptor, name, one in self._kept
            if descriptor in _SELECTORS
            or (exchange is not None and (key is None or descriptor not in _KEYS))
        ])  # fmt: skip

    def _take(self, name, one):
        descriptor = getattr(one, "descriptor", None)
        if isinstance(descriptor, Typed):
            descriptor = descriptor.value
            if one.descriptor.code & 0x0F == 3 and not isinstance(descriptor, Symbol):
                descriptor = Symbol(descriptor)
        value = getattr(one, "value", None)
        is_map = getattr(value, "code", 0) & 0xEF == 0xC1
        value = getattr(value, "value", None)
        if descriptor in _KEYS and isinstance(value, str):
            self.key = value.encode()
        elif descriptor in _ARGUMENTS and is_map:
            self.arguments = _table(value)
        elif descriptor in _SELECTORS and isinstance(value, str) and value:
            try:
                from .selector import Selector  # on gateways only
            except ImportError:
                # Left out of the answer, it would bring what was not asked for: few peers look.
                raise NotImplementedHere("selectors")
            self.selector = Selector(value)
            self.selector.text = value
        else:
            return
        self._kept.append((descriptor, name, one))


def _table(pairs):
    """The map *pairs* of Typed as the arguments of a binding. Raises InvalidField."""
    table = {}
    for key, value in pairs:
        name = _plain(key)
        value = _plain(value)
        if not isinstance(name, bytes) or len(name) > _LONGEST:
            raise InvalidField("a header's name of more than 255 octets, or none")
        if isinstance(value, int) and not -0x8000000000000000 <= value < 0x8000000000000000:
            raise InvalidField("a number that no header of a binding can be")
        if not (value is None or isinstance(value, (bool, int, float, bytes))):
            raise InvalidField("a value that no header of a binding can be")
        table[name] = value
    return table


def _plain(one):
    """What is in a Typed, text as octets."""
    value = getattr(one, "value", one)
    value = getattr(value, "text", value)
    return value.encode() if isinstance(value, str) else value


def take_over(link, fields):
    """Attach another kind of Outgoing in place of *link*. Raises what its attach() may raise."""
    terminus = link.connection.terminus
    filters = _Filters(None)
    copies = False
    where = queue = exchange = None
    if fields.has(_SOURCE):
        terminus = link._terminus(fields, _SOURCE, SOURCE)
        mode = terminus.symbol(_MODE)
        if mode not in (None, b"move", b"copy"):
            raise InvalidField("distribution-mode: move or copy")
        if has_capability(terminus, _CAPABILITIES, "shared"):
            # Who wants it may only notice when the subscription has been made.
            raise NotImplementedHere("shared subscriptions")
        if terminus.has(_FILTER):
            at = terminus.at[_FILTER]
            filters = _Filters(read_value(terminus.buf, at, True)[0])
        if not terminus.boolean(_DYNAMIC):
            where = link.as_topic(terminus, parse_source(terminus.text(_ADDRESS)))
            queue, exchange = link.locate(where, READ)
        # A subscription shares its messages with nobody: to JMS that is a copy.
        copies = mode == b"copy" and queue is not None
    kind = Browser if copies else Receiver
    one = kind(link.session, link.handle, link.name)
    link.session.links[link.handle] = one
    try:
        one.attach_more(fields, filters, where, queue, exchange)
    except AMQPError:
        link.session.links[link.handle] = link
        one.undo()
        raise


class Receiver(Outgoing):
    """Takes messages of a queue, or of a subscription, perhaps only some of them."""

    def __init__(self, session, handle, name):
        Outgoing.__init__(self, session, handle, name)
        self._filters = None
        self._private = False  # what is not selected is for nobody
        self._is_new = False  # the queue of a subscription, which a closing detach deletes
        self._held_up = False  # something selected found no room
        self._asked = False  # whether that is so counts without credit, too

    # --- attach ---

    def attach_more(self, fields, filters, where, queue, exchange):
        """As attach(), for a source located already; a dynamic one is nowhere yet."""
        self._filters = filters
        if not fields.has(_SOURCE):
            self._find_again(fields)
            return
        source = self._source(fields, filters.kept(exchange, where and where.key), exchange)
        terminus = self._terminus(fields, _SOURCE, SOURCE)
        if where is None:
            queue = self.dynamic_queue(terminus, True)
            source.value[0] = queue_address(queue.name)
        elif exchange is not None:
            if filters.arguments is not None and exchange.kind != HEADERS:
                raise InvalidField("a filter for a headers exchange")
            key = where.key if where.key is not None else filters.key
            queue = self._subscribe(terminus, exchange, key or b"")
            self._private = True
        self._begin_on(fields, queue)
        self._answer(fields, source, self._echo(fields, _TARGET, TARGET), uint(0))

    def _begin_on(self, fields, queue):
        self.begin(fields, queue)
        self.consumer.chooses = int(self._filters.selector is not None)

    def _source(self, fields, filters, exchange):
        """The answer's source: all but what we do not have; with these *filters*.

        exchange  that it is; None: it is a queue
        """
        terminus = self._terminus(fields, _SOURCE, SOURCE)
        values = [
            read_value(terminus.buf, terminus.at[k], True)[0] if terminus.has(k) else None
            for k in range(_CAPABILITIES + 1)
        ]
        if terminus.has(_FILTER):
            values[_FILTER] = filters
        values[_CAPABILITIES] = None
        if exchange is None:
            values[_MODE] = values[_MODE] or MOVE
        outcome = values[_DEFAULT]
        if outcome is not None:
            # Before the terminus is scanned again, which is what reads it.
            self.default_outcome = self.session.outcome_at(terminus.buf, terminus.at[_DEFAULT])
        return described_value(SOURCE, *values)

    def _subscribe(self, terminus, exchange, key):
        """The queue of a subscription to *exchange*: one that goes with this link, or one kept."""
        arguments = self._filters.arguments or {}
        durable = terminus.uint(_DURABLE, 0) > 0
        kept = terminus.symbol(_EXPIRY) == _NEVER
        timeout = terminus.uint(_TIMEOUT, 0)
        if not kept and not timeout:
            return self.bind_private(exchange, key, arguments)
        own = {_OWNER: self.connection.user.name}
        if not kept:
            own[b"x-expires"] = min(1000 * timeout, MAX_TTL_MS)
        if self._filters.selector is not None:
            own[_SELECTOR] = self._filters.selector.text.encode()
        queue = self._kept_queue()
        if queue is not None and not self._is_same(queue, durable, own, exchange, key, arguments):
            self.connection.broker.delete_queue(queue)
            queue = None
        if queue is None:
            queue = self._make(durable, own, exchange, key, arguments)
            self._is_new = True
        self.note(queue)
        return queue

    def _name(self):
        name = self.connection.peer.encode() + b"." + self.name.encode()
        if len(name) > _LONGEST:
            raise InvalidField("a container-id and a link's name of more than 254 octets")
        return name

    def _kept_queue(self):
        """The queue of this subscription from before, for us alone; None: there is none."""
        queue = self.connection.broker.queues.get(self._name())
        if queue is None:
            return None
        if queue.arguments.get(_OWNER) != self.connection.user.name:
            raise ResourceLocked("queue '%s' is no subscription of this user" % self.name)
        # Its subscriber came back before we noticed that it was gone. AMQP 1.0 §2.6.1
        while queue.consumers:
            link = queue.consumers[0].sink
            if not isinstance(link, Receiver):
                raise ResourceLocked("queue '%s' has another consumer" % self.name)
            error = ConditionError(STOLEN, "its subscriber attached another link")
            link.session.cancel(link, error)
        return queue

    def _make(self, durable, own, exchange, key, arguments):
        broker = self.connection.broker
        name = self._name()
        self.connection.user.demand(CONFIGURE, name, "queue")
        queue = broker.own_queue(name, durable, own)
        try:
            broker.bind(exchange, queue, key, arguments)
        except AMQPError:
            broker.delete_queue(queue)
            raise
        return queue

    def _is_same(self, queue, durable, own, exchange, key, arguments):
        """Whether *queue* is what this subscription asks for now."""
        if queue.durable != durable or queue.arguments != own:
            return False
        bindings = self._bindings(queue)
        return (
            len(bindings) == 1
            and bindings[0].source is exchange
            and bindings[0].is_same(queue, key, arguments)
        )

    def _bindings(self, queue):
        exchanges = self.connection.broker.exchanges
        return [
            binding for name in exchanges for binding in exchanges[name].bindings
            if binding.destination is queue
        ]  # fmt: skip

    def _find_again(self, fields):
        """A link without a source asks for the one its terminus had, as JMS does to end it."""
        queue = self._kept_queue()
        if queue is None:
            raise NotFound("no subscription '%s' of container '%s'" % (
                self.name, self.connection.peer
            ))  # fmt: skip
        self.note(queue)
        address = None
        for binding in self._bindings(queue):
            address = exchange_address(binding.source.name, binding.key)
        expiry = Symbol("never") if queue.expires_ms < 0 else None
        source = described_value(SOURCE, address, uint(2 if queue.durable else 0), expiry)
        self._answer(fields, source, self._echo(fields, _TARGET, TARGET), uint(0))

    # --- the sink of a consumer ---

    def accepts(self, consumer, message):
        if self._filters.selector is None:
            return Outgoing.accepts(self, consumer, message)
        # Selecting costs much, so it comes last; but what nobody else gets is dropped at once.
        if self.credit or self._private or self._asked:
            if not self._selects(message):
                return self._private
            if Outgoing.accepts(self, consumer, message):
                return True
            self._held_up = True
        if consumer is not None:
            self.connection.broker.held += 1
        return False

    def deliver(self, consumer, entry):
        if self._private and self._filters.selector is not None:
            if not self._selects(entry.message):
                self.connection.broker.metrics.dropped_unselected += 1
                entry.queue.settle(entry)
                return
        Outgoing.deliver(self, consumer, entry)

    def _selects(self, message):
        from .selector import Properties

        octets = load("amqp_lite.convert").sections_of(self.connection.broker, message)
        properties = Properties()
        properties.load(octets, 0, len(octets))
        return self._filters.selector.matches(properties.lookup)

    def _waiting(self):
        if self._filters.selector is None or self.consumer is None:
            return Outgoing._waiting(self)
        self._held_up = False
        self._asked = True
        self.consumer.queue.dispatch()
        self._asked = False
        return int(self._held_up and Outgoing._waiting(self) > 0)

    # --- the end ---

    def undo(self):
        """The attach fails: nothing is left of it."""
        self.release()
        if self._is_new:
            self.closed()

    def closed(self):
        """The peer's detach closes what the link was attached to."""
        queue = self.noted()
        if queue is not None:
            self.connection.broker.delete_queue(queue)


class _Cursor:
    def __init__(self):
        self.order = 1
        self.slot = 0


class Browser(Receiver):
    """Gets copies of what waits in a queue, from the oldest on, all of them settled.

    What consumers hold is not shown. It goes on with messages that come later.
    """

    def _begin_on(self, fields, queue):
        self.note(queue)
        self._stored = _Cursor()  # from where on to look in the store
        self._seen = None  # the place of what was shown last: (order, position, share)
        self._at_end = False

    def settle_mode(self, fields):
        return _SETTLED

    def closed(self):
        """It only looked."""

    def pump(self):
        queue = self.noted()
        if queue is None:
            self.session.cancel(self, ConditionError(RESOURCE_DELETED, "the queue is gone"))
            return
        if self.credit:
            self._show(queue)
        Outgoing.pump(self)

    def _show(self, queue):
        """Send as many as there is credit and room for."""
        broker = self.connection.broker
        store = broker.store
        entry = queue.ready.head
        while entry is not None and self._was_seen(entry):
            entry = entry.next
        self._at_end = False
        while self.credit:
            share = self._find_stored(queue)
            place = (store.ring.at_order, store.ring.at_slot, share) if share >= 0 else None
            if place is not None and (entry is None or is_behind(entry, *place)):
                behind = store.ring.slot_behind()
                expires = store.expiry(queue)
                gone = expires >= 0 and ticks_diff(broker.now, expires) > 0
                message = None if gone else store.load()
                if not gone and message is None:
                    return  # no memory for it now
                shown = gone or self._copy(message)
                if message is not None:
                    broker.pool.release(message)
                if not shown:
                    return
                self._stored.order, self._stored.slot = place[0], behind
            elif entry is not None:
                gone = entry.expires >= 0 and ticks_diff(broker.now, entry.expires) > 0
                if not gone and not self._copy(entry.message):
                    return
                place = (entry.order, entry.position, entry.share)
                entry = entry.next
            else:
                self._at_end = True
                return
            self._seen = place

    def _was_seen(self, entry):
        return self._seen is not None and not is_behind(entry, *self._seen)

    def _find_stored(self, queue):
        """The share of the next one in the store, whose record is parsed then; -1: none."""
        if not queue.backlog:
            return -1
        cursor = self._stored
        if (cursor.order, cursor.slot) < (queue.order, queue.slot):
            cursor.order, cursor.slot = queue.order, queue.slot
        return self.connection.broker.store.ring.find(cursor, queue.number)

    def _copy(self, message):
        """Send a copy. False: there is no room for it now."""
        if self._filters.selector is not None and not self._selects(message):
            return True
        if not self.accepts(None, message):
            return False
        self.send(message, 0, True)
        return True

    def _waiting(self):
        return 0 if self._at_end else 1
