"""The exchange and queue classes of a channel: what a client declares, binds and deletes.

AMQP 0-9-1 §1.6 and §1.7, with RabbitMQ's exchange-to-exchange bindings. What these methods check
and do for a user is in functions that serve a connection of either protocol.
"""

from ..access import CONFIGURE, READ, WRITE
from ..broker.broker import GENERATED, is_for_answers
from ..broker.exchange import KINDS
from ..broker.queue import text
from ..compat import const
from ..errors import AccessRefused, CommandInvalid, NotAllowed, PreconditionFailed

# Method ids: see methods.py.
_EXCHANGE_DECLARE_OK = const(0x0028000B)
_EXCHANGE_DELETE_OK = const(0x00280015)
_EXCHANGE_BIND_OK = const(0x0028001F)
_EXCHANGE_UNBIND_OK = const(0x00280033)
_QUEUE_DECLARE_OK = const(0x0032000B)
_QUEUE_BIND_OK = const(0x00320015)
_QUEUE_PURGE_OK = const(0x0032001F)
_QUEUE_DELETE_OK = const(0x00320029)
_QUEUE_UNBIND_OK = const(0x00320033)


def check_own(name):
    """Raises AccessRefused for a queue that the broker has for itself: answers, the status."""
    if name.startswith(b"amq.") and not is_for_answers(name):
        raise AccessRefused("queue '%s' is the broker's own" % text(name))


def find_queue(connection, name):
    """The queue called *name*. Raises NotFound, ResourceLocked, AccessRefused."""
    queue = connection.broker.queue(name)
    queue.check_owner(connection)
    check_own(name)
    return queue


def declare_queue(connection, name, durable, exclusive, auto_delete, arguments):
    connection.user.demand(CONFIGURE, name or GENERATED, "queue")
    broker = connection.broker
    owner = connection if exclusive else None
    found = broker.queues.get(name)
    if found is not None:
        found.check_owner(connection)
    return broker.declare_queue(name, durable, owner, auto_delete, arguments)


def purge_queue(connection, name):
    """How many messages it had."""
    queue = find_queue(connection, name)
    connection.user.demand(READ, name, "queue")
    count = queue.purge()
    connection.broker.metrics.purged += count
    return count


def delete_queue(connection, name, if_unused, if_empty):
    """How many messages it had; one that does not exist is fine."""
    connection.user.demand(CONFIGURE, name, "queue")
    if name not in connection.broker.queues:
        return 0
    queue = find_queue(connection, name)
    if if_unused and queue.consumers:
        raise PreconditionFailed("queue '%s' in vhost '/' in use" % text(name))
    count = queue.waiting()
    if if_empty and count:
        raise PreconditionFailed("queue '%s' in vhost '/' not empty" % text(name))
    connection.broker.delete_queue(queue)
    return count


def declare_exchange(connection, name, kind, durable, auto_delete, internal, arguments):
    """*kind* is a name, as octets."""
    if kind not in KINDS:
        raise CommandInvalid("unknown exchange type '%s'" % text(kind))
    demand = connection.user.demand
    demand(CONFIGURE, name, "exchange")
    alternate = arguments.get(b"alternate-exchange")
    if isinstance(alternate, bytes):
        # What is published here ends there: as if its owner had published it.
        demand(READ, name, "exchange")
        demand(WRITE, alternate, "exchange")
    connection.broker.declare_exchange(
        name, KINDS[kind], durable, auto_delete, internal, arguments
    )


def delete_exchange(connection, name, if_unused):
    connection.user.demand(CONFIGURE, name, "exchange")
    connection.broker.delete_exchange(name, if_unused)


def find_ends(connection, source, destination, to_exchange):
    """(source, destination) of a binding that the user may make and remove, from their names."""
    broker = connection.broker
    if to_exchange:
        connection.user.demand(WRITE, destination, "exchange")
        end = broker.exchange(destination)
    else:
        end = find_queue(connection, destination)
        connection.user.demand(WRITE, destination, "queue")
    connection.user.demand(READ, source, "exchange")
    return broker.exchange(source), end


class Topology:
    """The half of a Channel that changes exchanges, queues and bindings."""

    # --- exchanges ---

    def on_exchange_declare(
        self, _, name, kind, passive, durable, auto_delete, internal, nowait, arguments
    ):
        if passive:
            self.connection.broker.exchange(name)
        else:
            declare_exchange(
                self.connection, name, kind, durable, auto_delete, internal, arguments
            )
        if not nowait:
            self._reply(_EXCHANGE_DECLARE_OK)

    def on_exchange_delete(self, _, name, if_unused, nowait):
        delete_exchange(self.connection, name, if_unused)
        if not nowait:
            self._reply(_EXCHANGE_DELETE_OK)

    def on_exchange_bind(self, _, destination, source, key, nowait, arguments):
        source, destination = find_ends(self.connection, source, destination, True)
        self.connection.broker.bind(source, destination, key, arguments)
        if not nowait:
            self._reply(_EXCHANGE_BIND_OK)

    def on_exchange_unbind(self, _, destination, source, key, nowait, arguments):
        source, destination = find_ends(self.connection, source, destination, True)
        self.connection.broker.unbind(source, destination, key, arguments)
        if not nowait:
            self._reply(_EXCHANGE_UNBIND_OK)

    def _may(self, kind, name, what):
        self.connection.user_may(kind, name, what)

    # --- queues ---

    def _queue(self, name):
        return find_queue(self.connection, self._named(name))

    def _named(self, name):
        """*name*, or that of the queue declared last on this channel for an empty one."""
        if name:
            return name
        if not self._declared:
            raise NotAllowed("no queue was declared on this channel, and none is named")
        return self._declared

    def on_queue_declare(
        self, _, name, passive, durable, exclusive, auto_delete, nowait, arguments
    ):
        connection = self.connection
        if passive:
            queue = self._queue(name)
        else:
            queue = declare_queue(connection, name, durable, exclusive, auto_delete, arguments)
        self._declared = queue.name
        if not nowait:
            self._reply(_QUEUE_DECLARE_OK, queue.name, queue.waiting(), len(queue.consumers))

    def on_queue_bind(self, _, name, source, key, nowait, arguments):
        source, queue = find_ends(self.connection, source, self._named(name), False)
        if not name and not key:
            key = queue.name  # AMQP 0-9-1 queue.bind.routing-key: the current queue's name
        self.connection.broker.bind(source, queue, key, arguments)
        if not nowait:
            self._reply(_QUEUE_BIND_OK)

    def on_queue_unbind(self, _, name, source, key, arguments):
        source, queue = find_ends(self.connection, source, self._named(name), False)
        self.connection.broker.unbind(source, queue, key, arguments)
        self._reply(_QUEUE_UNBIND_OK)

    def on_queue_purge(self, _, name, nowait):
        count = purge_queue(self.connection, self._named(name))
        if not nowait:
            self._reply(_QUEUE_PURGE_OK, count)

    def on_queue_delete(self, _, name, if_unused, if_empty, nowait):
        count = delete_queue(self.connection, self._named(name), if_unused, if_empty)
        if not nowait:
            self._reply(_QUEUE_DELETE_OK, count)
