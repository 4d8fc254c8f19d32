"""The broker: the tables of queues, exchanges and bindings, and a message's way to its queues.

Knows no protocol and no socket. Names and keys are octets; time is `now`, set by whoever turns the
wheel. Methods raise the errors of errors.py; each protocol engine picks the scope.
"""

from binascii import hexlify
from os import urandom

from ..compat import find_name, ticks_add, ticks_diff
from ..errors import (
    AccessRefused,
    NotFound,
    PreconditionFailed,
    ResourceLimitExceeded,
    StoreDamaged,
)
from .arguments import are_equivalent, check_binding, check_exchange, check_queue
from .delivery import Consumer, Entry
from .exchange import DEFAULT, PREDECLARED, Binding, Exchange
from .message import AMQP10, PERSISTENT, Pool
from .metrics import Metrics
from .queue import Queue, text
from .route import Route, Routes
from .table import Table

GENERATED = b"amq.gen-"
REPLY_TO = b"amq.rabbitmq.reply-to"
REPLY_PREFIX = b"amq.rabbitmq.reply-to."

_HEADER_FRAME = 20  # octets of a content header frame besides its properties
_SHORTSTRS = 512  # octets of exchange and routing key with their length octets, at most


class Broker:
    """
    profile        the numbers of limits.py
    store          durable.py's, or the one of store/ram.py
    match_headers  function(binding, buf, start, end): whether the encoded properties in
                   buf[start:end] satisfy the arguments of *binding*
    translate      function(broker, message): the properties of an AMQP10 *message* as 0-9-1
                   encodes them
    """

    def __init__(self, profile, store, match_headers, translate=None):
        self.store = store
        self.metrics = Metrics()
        self.now = 0
        self._uptime_s = 0
        self._counted = -1  # ticks up to which these seconds count; -1: from the first tick on
        self.committed = True  # the store has what it was given
        self.failures = 0  # of the store: what was accepted and not confirmed by then is lost
        self.live = 0  # messages that all consumers together may hold ahead of others
        self.held = 0  # consumers that choose and had no room, of those just asked
        self.behind = False  # messages in the store wait for consumers that are there
        self.inherited = 0  # places of earlier sessions have this order or a lower one
        self.transactions = None  # the Ledger of transaction.py, once there was one
        self.freed = False  # messages or entries became free since somebody cleared this
        self.pool = Pool(profile["messages"], profile["blocks"], profile["block_size"])
        self.message_max = profile["message_max"]
        self.properties_max = profile["receive_buffer"] - _HEADER_FRAME
        self.properties_most = profile["receive_buffer"]  # with a reply-to of ours
        self.entries = Table(Entry, profile["deliveries"], "delivery")
        self.promised = 0  # entries that half-received messages will take
        # Who holds half a message, of a size not known before, and waited first for memory to go
        # on with it.
        self.longest_waiting = None
        self.spare_entries = 0  # kept for messages from the store, see note_backlog()
        self._backlogs = 0  # queues that have one
        self.consumers = Table(Consumer, profile["consumers"], "consumer")
        self.queue_table = Table(Queue, profile["queues"], "queue")
        self.exchange_table = Table(Exchange, profile["exchanges"], "exchange")
        self.bindings = Table(Binding, profile["bindings"], "binding")
        self.queues = {}
        self._serial = 0  # of the queue made last
        self.aliases = {}  # what keys begin with -> name of the queue that gets them
        self._numbers = {}  # queues by their number in the store
        self.exchanges = {}
        self._routes = Routes(profile, self.exchanges, self.queues, self.aliases, match_headers)
        self._route = Route(0)  # of a message whose headers decide
        self.stored_in = [0] * profile["queues"]  # queue numbers of the message being published
        # Longer ones are stored as they come, where only durable queues get them.
        self.stream_from = profile["blocks"] * profile["block_size"] // 16
        self.small_max = min(self.stream_from, self.message_max)
        self.stored_max = profile["stored_max"]
        self.scratch = bytearray(_SHORTSTRS + profile["receive_buffer"])  # for one call's use
        self._translate = translate
        for name, kind in PREDECLARED:
            self.own_exchange(name, kind)

    def restore(self):
        """Read the store. Once, before anything else is done."""
        store = self.store
        store.restore(self)
        if store.keeps:
            self.inherited = store.ring.newest
            for name in self.queues:
                self.note_backlog(0, self.queues[name].backlog)

    def body_octets(self, message, i, n):
        """*n* octets of the body of *message* from *i*, wherever it is. Raises StoreDamaged."""
        octets = memoryview(bytearray(n))
        if message.chain is None:
            self.pool.read_at(message, message.head + message.properties + i, n, octets, 0)
        elif not self.store.bodies.read_at(message.chain, i, n, octets, self.scratch):
            raise StoreDamaged("a stored body cannot be read")
        return octets

    def note_backlog(self, before, after):
        """The backlog of a queue was *before* and is *after* now.

        A stored message needs memory on its way out, whatever came behind it and holds the rest:
        as long as there is a backlog, publishers leave some.
        """
        if before and after or before == after:
            return
        self._backlogs += 1 if after else -1
        pool = self.pool
        if self._backlogs:
            pool.spare = min(self.store.whole_max // pool.block_size + 2, pool.blocks // 4)
            pool.spare_messages = min(1, pool.messages.size - 1)
            self.spare_entries = min(1, self.entries.size - 1)
        else:
            pool.spare = pool.spare_messages = self.spare_entries = 0
            self.freed = True

    # --- exchanges ---

    def _add_exchange(self, name, kind, arguments):
        exchange = self.exchange_table.take()
        exchange.reset(name, kind, arguments)
        self.exchanges[name] = exchange
        self._routes.forget()
        return exchange

    def own_exchange(self, name, kind):
        """A new exchange, of the broker itself: no client can declare or delete it."""
        exchange = self._add_exchange(name, kind, {})
        exchange.durable = True
        return exchange

    def exchange(self, name):
        """The exchange called *name*. Raises NotFound."""
        found = self.exchanges.get(name)
        if found is None:
            raise NotFound("no exchange '%s' in vhost '/'" % text(name))
        return found

    def declare_exchange(self, name, kind, durable, auto_delete, internal, arguments):
        """Create the exchange, or see that it is there and the same.

        Raises PreconditionFailed when it differs, ResourceLimitExceeded when the table is full.
        """
        found = self.exchanges.get(name)
        if found is None:
            if name.startswith(b"amq."):
                raise AccessRefused(
                    "exchange name '%s' contains reserved prefix 'amq.*'" % text(name)
                )
            check_exchange(arguments)
            found = self._add_exchange(name, kind, arguments)
            found.durable = durable
            found.auto_delete = auto_delete
            found.internal = internal
            if durable and self.store.keeps:
                try:
                    self.store.define_exchange(found)
                except ResourceLimitExceeded:
                    self._remove_exchange(found)
                    raise
        elif (found.kind, found.durable, found.auto_delete, found.internal) != (
            kind, durable, auto_delete, internal,
        ) or found.arguments != arguments:  # fmt: skip
            raise PreconditionFailed(
                "inequivalent arg for exchange '%s' in vhost '/': it is declared otherwise"
                % text(name)
            )
        return found

    def delete_exchange(self, name, if_unused=False):
        """Delete it with its bindings; one that does not exist is fine.

        Raises AccessRefused for a predeclared one, PreconditionFailed when it is in use.
        """
        exchange = self.exchanges.get(name)
        if exchange is None:
            return
        if not name or name.startswith(b"amq."):
            raise AccessRefused("exchange '%s' cannot be deleted" % text(name))
        if if_unused and exchange.bindings:
            raise PreconditionFailed("exchange '%s' in vhost '/' in use" % text(name))
        # What refers to a definition goes before it.
        for binding in exchange.bindings:
            self.store.forget(binding)
            self.bindings.give(binding)
        exchange.bindings.clear()
        self._unbind_destination(exchange)
        self._remove_exchange(exchange)

    def _remove_exchange(self, exchange):
        self.store.forget(exchange)
        del self.exchanges[exchange.name]
        self._routes.forget()
        self.exchange_table.give(exchange)

    def restore_exchange(self, name, kind, auto_delete, internal, arguments):
        """An exchange as the store has it. Raises ResourceLimitExceeded."""
        exchange = self._add_exchange(name, kind, arguments)
        exchange.durable = True
        exchange.auto_delete = auto_delete
        exchange.internal = internal
        return exchange

    # --- queues ---

    def queue(self, name):
        """The queue called *name*. Raises NotFound."""
        found = self.queues.get(name)
        if found is None:
            raise NotFound("no queue '%s' in vhost '/'" % text(name))
        return found

    def declare_queue(self, name, durable, owner, auto_delete, arguments):
        """Create the queue, or see that it is there and the same; an empty *name* gets one made.

        owner  the connection an exclusive queue belongs to, None for others

        Raises PreconditionFailed, AccessRefused, ResourceLimitExceeded.
        """
        made = not name
        if made:
            name = GENERATED + hexlify(urandom(9))
        found = self.queues.get(name)
        if found is None:
            if name.startswith(b"amq.") and not made:
                raise AccessRefused(
                    "queue name '%s' contains reserved prefix 'amq.*'" % text(name)
                )
            check_queue(arguments)
            return self._add_queue(name, durable, owner, auto_delete, arguments)
        if (found.durable, found.auto_delete, found.owner) != (durable, auto_delete, owner):
            raise PreconditionFailed(
                "inequivalent arg 'durable', 'exclusive' or 'auto_delete' for queue '%s' "
                "in vhost '/'" % text(name)
            )
        if not are_equivalent(found.arguments, arguments):
            raise PreconditionFailed(
                "inequivalent arguments for queue '%s' in vhost '/'" % text(name)
            )
        found.used_at = self.now
        return found

    def _make_queue(self, name, durable, owner, auto_delete, arguments):
        queue = self.queue_table.take()
        queue.reset(name, arguments)
        queue.broker = self
        queue.serial = self._serial = self._serial + 1 & 0xFFFF
        queue.durable = durable
        queue.owner = owner
        queue.auto_delete = auto_delete
        queue.used_at = self.now
        self.queues[name] = queue
        self._routes.forget()
        return queue

    def _add_queue(self, name, durable, owner, auto_delete, arguments):
        queue = self._make_queue(name, durable, owner, auto_delete, arguments)
        if durable and owner is None and self.store.keeps:
            try:
                self.store.define_queue(queue)
            except ResourceLimitExceeded:
                del self.queues[name]
                self._routes.forget()
                self.queue_table.give(queue)
                raise
            queue.order = self.store.ring.newest
            self._numbers[queue.number] = queue
        return queue

    def restore_queue(self, name, number, auto_delete, arguments):
        """A durable queue as the store has it. Raises ResourceLimitExceeded."""
        queue = self._make_queue(name, True, None, auto_delete, arguments)
        queue.number = number
        self._numbers[number] = queue
        return queue

    def numbered(self, number):
        """The queue that has this *number* in the store, or None."""
        return self._numbers.get(number)

    def change_queue(self, queue, arguments):
        """Give the durable *queue* other arguments. Raises as declare_queue() does."""
        check_queue(arguments)
        before = queue.arguments
        queue.configure(arguments)
        if queue.number >= 0:
            try:
                self.store.redefine_queue(queue)
            except ResourceLimitExceeded:
                queue.configure(before)
                raise

    def reply_queue(self):
        """The queue behind one direct reply-to consumer; it goes with its consumer."""
        name = REPLY_PREFIX + hexlify(urandom(9))
        return self._add_queue(name, False, None, True, {})

    def own_queue(self, name, durable, arguments=None):
        """The queue called *name*, of the broker itself: no client can declare it."""
        found = self.queues.get(name)
        if found is None:
            found = self._add_queue(name, durable, None, False, arguments or {})
        return found

    def delete_queue(self, queue):
        """Delete it: waiting messages are dropped, consumers told, held ones die when settled."""
        del self.queues[queue.name]
        queue.deleted = True
        self._unbind_destination(queue)
        self._routes.forget()
        self.metrics.dropped_queue_deleted += queue.purge()
        if queue.number >= 0:
            del self._numbers[queue.number]
            self.store.forget_queue(queue)
        while queue.consumers:
            consumer = queue.consumers[0]
            consumer.sink.cancelled(consumer)
            queue.unsubscribe(consumer)
        if not queue.unacked:
            self.queue_table.give(queue)

    def delete_owned(self, owner):
        """Delete the exclusive queues of a connection that is gone."""
        for name in list(self.queues):
            if self.queues[name].owner is owner:
                self.delete_queue(self.queues[name])

    # --- bindings ---

    def bind(self, source, destination, key, arguments):
        """Bind *destination*, a queue or an exchange, to *source*; doing it twice changes nothing.

        Raises AccessRefused for the default exchange, PreconditionFailed for its arguments,
        ResourceLimitExceeded when the table is full.
        """
        if source.kind == DEFAULT or (
            isinstance(destination, Exchange) and destination.kind == DEFAULT
        ):
            raise AccessRefused("operation not permitted on the default exchange")
        check_binding(arguments, source.kind)
        for binding in source.bindings:
            if binding.is_same(destination, key, arguments):
                return
        binding = self.bindings.take()
        binding.bind(source, destination, isinstance(destination, Exchange), key, arguments)
        if self.store.keeps and source.durable and _is_stored(destination):
            try:
                self.store.define_binding(binding)
            except ResourceLimitExceeded:
                self.bindings.give(binding)
                raise
        source.bindings.append(binding)
        self._routes.forget()

    def restore_binding(self, source, destination, key, arguments):
        """A binding as the store has it. Raises ResourceLimitExceeded."""
        binding = self.bindings.take()
        binding.bind(source, destination, isinstance(destination, Exchange), key, arguments)
        source.bindings.append(binding)
        self._routes.forget()
        return binding

    def unbind(self, source, destination, key, arguments):
        """Remove the binding; one that does not exist is fine."""
        if source.kind == DEFAULT:
            raise AccessRefused("operation not permitted on the default exchange")
        for binding in source.bindings:
            if binding.is_same(destination, key, arguments):
                self._remove_binding(source, binding)
                break

    def _remove_binding(self, source, binding):
        self.store.forget(binding)
        source.bindings.remove(binding)
        self.bindings.give(binding)
        self._routes.forget()
        if source.auto_delete and not source.bindings:
            self.delete_exchange(source.name)

    def _unbind_destination(self, destination):
        for source in list(self.exchanges.values()):
            for binding in list(source.bindings):
                if binding.destination is destination:
                    self._remove_binding(source, binding)

    # --- routing ---

    def route(self, buf, i, n):
        """The route of a publish.

        buf, i, n  octets of exchange and routing key as two short strings, one behind the other

        Nothing is allocated when the route is cached. Raises NotFound for the exchange.
        """
        route = self._routes.find(buf, i, n)
        if route.length < 0:
            name = i + 1 + buf[i]
            exchange = find_name(self.exchanges, buf, i + 1, buf[i])
            if exchange is None:
                exchange = self.exchange(bytes(buf[i + 1 : name]))  # not found
            self._routes.resolve(route, exchange, buf, name + 1, i + n, -1, -1)
            self._routes.fill(route, buf, i, n)
        return route

    def route_of(self, message):
        """Resolve the route of a whole *message* anew, with its headers."""
        head = self.scratch
        self.pool.read_at(message, 0, message.head + message.properties, head, 0)
        name = 1 + head[0]
        exchange = find_name(self.exchanges, head, 1, head[0])
        route = self._route
        if exchange is None:
            route.count = 0
        else:
            end = message.head
            stop = end + message.properties
            if message.flags & AMQP10:
                self._routes.resolve(route, exchange, head, name + 1, end, -1, -1)
                if not route.by_headers:
                    return route
                head = bytes(head[:end]) + self._translate(self, message)
                stop = len(head)
            self._routes.resolve(route, exchange, head, name + 1, end, end, stop)
        return route

    def entries_for(self, route, stamp, persistent):
        """How many entries a publish by *route*, which had this *stamp* then, may take."""
        if route.by_headers or route.stamp != stamp:
            # It is found anew when the message is whole.
            return min(len(self.queues), self.entries.size)
        if not persistent or not self.store.keeps:
            return route.count
        needed = 0
        for k in range(route.count):
            if route.queues[k].number < 0:
                needed += 1  # the others can do without
        return needed

    def is_stored_only(self, route, stamp):
        """Whether a persistent message by *route* goes to durable queues and nowhere else."""
        if not self.store.keeps or route.by_headers or route.stamp != stamp or not route.count:
            return False
        if route.count > self.store.fan_out:
            return False  # a body in the store belongs to one record
        for k in range(route.count):
            if route.queues[k].number < 0:
                return False
        return True

    def has_entries(self, needed):
        """Whether a publish may take so many entries."""
        return needed <= self.entries.free - self.promised - self.spare_entries or not needed

    def is_roomy(self):
        """Whether there is so much memory that stored messages may stay in it, too."""
        return (
            self.pool.available > self.pool.blocks >> 1
            and self.entries.free - self.promised > self.entries.size >> 1
        )

    def has_room(self):
        """Whether there is memory for one message more."""
        pool = self.pool
        return (
            pool.available > pool.spare
            and pool.messages.free > pool.spare_messages
            and self.has_entries(1)
        )

    # --- publishing ---

    def publish(self, message, route, stamp):
        """Put the whole *message* into its queues.

        route, stamp  from route() and the route's stamp then; found anew when it is out of date

        Returns the number of queues it is in; -1 when one of them refused it.
        """
        self.metrics.published += 1
        if route.by_headers or route.stamp != stamp:
            route = self.route_of(message)
        count = route.count
        queues = route.queues
        refused = False
        durable = message.flags & PERSISTENT and self.store.keeps
        many = 0
        for k in range(count):
            queue = queues[k]
            if durable and queue.number >= 0 and queue.ttl_of(message):
                many += 1
            elif message.chain is not None:
                if durable and queue.number >= 0:
                    self.metrics.dropped_expired += 1  # no time to live
                else:
                    self.metrics.dropped_no_room += 1  # became transient while its body came
                    refused = True
            elif (queue.limited and not queue.admits(message)) or not queue.push(message, -1):
                refused = True
        if many and not self._publish_durable(message, queues, count):
            refused = True
        if not count:
            self.metrics.unroutable += 1
        return -1 if refused else count

    def _publish_durable(self, message, queues, count):
        """Store *message* for those of the first *count* queues that survive a restart.

        False: one of them refused it, or the store is full.
        """
        store = self.store
        numbers = self.stored_in
        taken = True
        n = 0
        for k in range(count):
            queue = queues[k]
            if queue.number < 0 or not queue.ttl_of(message):
                continue
            if queue.limited and not queue.admits(message):
                taken = False
                continue
            numbers[n] = queue.number
            n += 1
            if n == store.fan_out:
                taken = self._store(message, n) and taken
                n = 0
        return (not n or self._store(message, n)) and taken

    def _store(self, message, n):
        """Store *message* once for the first *n* queues of the list, and push it to them."""
        if not self.store.append(message, self.stored_in, n):
            self.metrics.dropped_store_full += 1
            return False
        for share in range(n):
            self._numbers[self.stored_in[share]].push(message, share)
        return True

    def holds_stored(self):
        """Whether durable queues have messages."""
        for name in self.queues:
            queue = self.queues[name]
            if queue.number >= 0 and (queue.waiting() or queue.unacked):
                return True
        return False

    def catch_up(self):
        """Give messages in the store to consumers, once they are safe or there is memory again."""
        self.behind = False
        for name in self.queues:
            queue = self.queues[name]
            if queue.backlog and queue.consumers:
                queue.dispatch()

    # --- time ---

    def uptime_ms(self):
        """How long it has been ticked."""
        if self._counted < 0:
            return 0
        return 1000 * self._uptime_s + ticks_diff(self.now, self._counted)

    def tick(self):
        """Drop what has expired. Call it about once a second."""
        if self._counted < 0:
            self._counted = self.now
        # Ticks wrap after days, and boards run for months.
        passed = ticks_diff(self.now, self._counted) // 1000
        self._uptime_s += passed
        self._counted = ticks_add(self._counted, 1000 * passed)
        self.store.tick()
        for name in list(self.queues):
            queue = self.queues[name]
            queue.expire()
            if queue.expires_ms >= 0 and not queue.consumers:
                if ticks_diff(self.now, queue.used_at) > queue.expires_ms:
                    self.delete_queue(queue)


def is_for_answers(name):
    """Whether a queue called *name* has a name that we made: who knows it, was told it."""
    return name.startswith(GENERATED) or name.startswith(REPLY_PREFIX)


def _is_stored(destination):
    """Whether the store has a definition of *destination*, or needs none."""
    if isinstance(destination, Exchange):
        return destination.durable
    return destination.number >= 0
