"""The exchange and queue classes of a channel: what a client declares, binds and deletes.

AMQP 0-9-1 §1.6 and §1.7, with RabbitMQ's exchange-to-exchange bindings.
"""

from ..access import CONFIGURE, READ, WRITE
from ..broker.broker import GENERATED, REPLY_PREFIX
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


def _check_own(name):
    """Raises AccessRefused for a queue that the broker has for itself: answers, the status."""
    if name.startswith(b"amq."):
        if not (name.startswith(GENERATED) or name.startswith(REPLY_PREFIX)):
            raise AccessRefused("queue '%s' is the broker's own" % text(name))


class Topology:
    """The half of a Channel that changes exchanges, queues and bindings."""

    # --- exchanges ---

    def on_exchange_declare(
        self, _, name, kind, passive, durable, auto_delete, internal, nowait, arguments
    ):
        broker = self.connection.broker
        if passive:
            broker.exchange(name)
        else:
            if kind not in KINDS:
                raise CommandInvalid("unknown exchange type '%s'" % text(kind))
            self._may(CONFIGURE, name, "exchange")
            alternate = arguments.get(b"alternate-exchange")
            if isinstance(alternate, bytes):
                # What is published here ends there: as if its owner had published it.
                self._may(READ, name, "exchange")
                self._may(WRITE, alternate, "exchange")
            broker.declare_exchange(name, KINDS[kind], durable, auto_delete, internal, arguments)
        if not nowait:
            self._reply(_EXCHANGE_DECLARE_OK)

    def on_exchange_delete(self, _, name, if_unused, nowait):
        self._may(CONFIGURE, name, "exchange")
        self.connection.broker.delete_exchange(name, if_unused)
        if not nowait:
            self._reply(_EXCHANGE_DELETE_OK)

    def on_exchange_bind(self, _, destination, source, key, nowait, arguments):
        self._bind(self._exchange_end(destination), source, key, arguments)
        if not nowait:
            self._reply(_EXCHANGE_BIND_OK)

    def on_exchange_unbind(self, _, destination, source, key, nowait, arguments):
        self._unbind(self._exchange_end(destination), source, key, arguments)
        if not nowait:
            self._reply(_EXCHANGE_UNBIND_OK)

    def _exchange_end(self, name):
        self._may(WRITE, name, "exchange")
        return self.connection.broker.exchange(name)

    def _bind(self, destination, source, key, arguments):
        self._may(READ, source, "exchange")
        broker = self.connection.broker
        broker.bind(broker.exchange(source), destination, key, arguments)

    def _unbind(self, destination, source, key, arguments):
        self._may(READ, source, "exchange")
        broker = self.connection.broker
        broker.unbind(broker.exchange(source), destination, key, arguments)

    def _may(self, kind, name, what):
        self.connection.user_may(kind, name, what)

    # --- queues ---

    def _queue(self, name):
        """The queue called *name*, or the one declared last on this channel for an empty name."""
        if not name:
            name = self._last_queue()
        queue = self.connection.broker.queue(name)
        queue.check_owner(self.connection)
        _check_own(name)
        return queue

    def _last_queue(self):
        if not self._declared:
            raise NotAllowed("no queue was declared on this channel, and none is named")
        return self._declared

    def on_queue_declare(
        self, _, name, passive, durable, exclusive, auto_delete, nowait, arguments
    ):
        connection = self.connection
        broker = connection.broker
        if passive:
            queue = self._queue(name)
        else:
            self._may(CONFIGURE, name or GENERATED, "queue")
            owner = connection if exclusive else None
            found = broker.queues.get(name)
            if found is not None:
                found.check_owner(connection)
            queue = broker.declare_queue(name, durable, owner, auto_delete, arguments)
        self._declared = queue.name
        if not nowait:
            self._reply(_QUEUE_DECLARE_OK, queue.name, queue.waiting(), len(queue.consumers))

    def on_queue_bind(self, _, name, source, key, nowait, arguments):
        queue = self._queue(name)
        self._may(WRITE, queue.name, "queue")
        if not name and not key:
            key = queue.name  # AMQP 0-9-1 queue.bind.routing-key: the current queue's name
        self._bind(queue, source, key, arguments)
        if not nowait:
            self._reply(_QUEUE_BIND_OK)

    def on_queue_unbind(self, _, name, source, key, arguments):
        queue = self._queue(name)
        self._may(WRITE, queue.name, "queue")
        self._unbind(queue, source, key, arguments)
        self._reply(_QUEUE_UNBIND_OK)

    def on_queue_purge(self, _, name, nowait):
        queue = self._queue(name)
        self._may(READ, queue.name, "queue")
        count = queue.purge()
        self.connection.broker.metrics.purged += count
        if not nowait:
            self._reply(_QUEUE_PURGE_OK, count)

    def on_queue_delete(self, _, name, if_unused, if_empty, nowait):
        broker = self.connection.broker
        count = 0
        if not name:
            name = self._last_queue()
        self._may(CONFIGURE, name, "queue")
        queue = broker.queues.get(name)
        if queue is not None:
            queue.check_owner(self.connection)
            _check_own(name)
            if if_unused and queue.consumers:
                raise PreconditionFailed("queue '%s' in vhost '/' in use" % text(name))
            if if_empty and queue.waiting():
                raise PreconditionFailed("queue '%s' in vhost '/' not empty" % text(name))
            count = queue.waiting()
            broker.delete_queue(queue)
        if not nowait:
            self._reply(_QUEUE_DELETE_OK, count)
