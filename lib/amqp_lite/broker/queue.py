"""A queue: waiting messages in order, and the consumers they go to.

An Entry is one message in one queue. It is in one list at a time: the queue's `ready` list, or the
list of unacknowledged ones of whoever received it. A message routed to three queues is stored once
and has three entries.
"""

from ..compat import const, ticks_add, ticks_diff
from ..errors import AccessRefused, ResourceLocked

DROP_HEAD = const(0)
REJECT_PUBLISH = const(1)

_POSITIONS = const(0x3FFFFFFF)


class Entry:
    __slots__ = (
        "next", "prev", "message", "queue", "consumer", "tag", "position", "expires",
        "redelivered", "stored",
    )  # fmt: skip

    def __init__(self):
        self.next = None
        self.prev = None
        self.message = None
        self.queue = None
        self.consumer = None  # who holds it unacknowledged; None after basic.get or a cancel
        self.tag = 0  # delivery tag, while unacknowledged
        self.position = 0  # place in the queue, kept for a requeue
        self.expires = -1  # ticks; -1 = never
        self.redelivered = False
        self.stored = False  # the store has it


class EntryList:
    """Entries chained through themselves, so that any of them leaves without a search."""

    def __init__(self):
        self.head = None
        self.tail = None
        self.count = 0

    def append(self, entry):
        tail = self.tail
        entry.prev = tail
        entry.next = None
        if tail is None:
            self.head = entry
        else:
            tail.next = entry
        self.tail = entry
        self.count += 1

    def remove(self, entry):
        before = entry.prev
        after = entry.next
        if before is None:
            self.head = after
        else:
            before.next = after
        if after is None:
            self.tail = before
        else:
            after.prev = before
        self.count -= 1

    def insert_before(self, entry, after):
        """Put *entry* in front of *after*, which is in this list."""
        before = after.prev
        entry.prev = before
        entry.next = after
        after.prev = entry
        if before is None:
            self.head = entry
        else:
            before.next = entry
        self.count += 1


class Queue:
    def __init__(self):
        self.next = None  # in the table of free ones
        self.ready = EntryList()
        self.consumers = []
        self.broker = None
        self.reset(b"", {})

    def reset(self, name, arguments):
        self.name = name
        self.arguments = arguments
        self.durable = False
        self.auto_delete = False
        self.owner = None  # the connection an exclusive queue belongs to
        self.deleted = False
        self.unacked = 0  # entries that consumers hold
        self.octets = 0  # bodies of the ready ones
        self.visited = 0  # by the route being resolved, see broker.py
        self.used_at = 0  # ticks, for x-expires
        self._turn = 0
        self._position = 0
        self.ttl_ms = arguments.get(b"x-message-ttl", -1)
        self.expires_ms = arguments.get(b"x-expires", -1)
        self.max_length = arguments.get(b"x-max-length", -1)
        self.max_octets = arguments.get(b"x-max-length-bytes", -1)
        reject = arguments.get(b"x-overflow") == b"reject-publish"
        self.overflow = REJECT_PUBLISH if reject else DROP_HEAD

    # --- in ---

    def push(self, message):
        """Append *message*. False when the queue is full and refuses new messages."""
        broker = self.broker
        limited = self.max_length >= 0 or self.max_octets >= 0
        if limited and self.overflow == REJECT_PUBLISH:
            if self._over(1, message.body):
                broker.metrics.refused_max_length += 1
                return False
        if not broker.entries.free:
            broker.metrics.dropped_no_room += 1
            return False
        entry = broker.entries.take()
        entry.message = message
        entry.queue = self
        entry.consumer = None
        entry.redelivered = False
        entry.stored = False
        entry.position = self._position = self._position + 1 & _POSITIONS
        ttl = message.ttl_ms
        if self.ttl_ms >= 0 and (ttl < 0 or self.ttl_ms < ttl):
            ttl = self.ttl_ms
        entry.expires = ticks_add(broker.now, ttl) if ttl >= 0 else -1
        if self.durable and message.persistent:
            if not broker.store.append(entry):
                broker.entries.give(entry)
                broker.metrics.dropped_no_room += 1
                return False
            entry.stored = True
        message.references += 1
        self.ready.append(entry)
        self.octets += message.body
        if self.consumers:
            self.dispatch()
        if not ttl and self.ready.tail is entry:
            # No time to live: for a consumer that waited, or for nobody.
            self.drop(entry)
            broker.metrics.dropped_expired += 1
        if limited:
            while self.ready.head is not None and self._over(0, 0):
                self.drop(self.ready.head)
                broker.metrics.dropped_max_length += 1
        return True

    def _over(self, more, octets):
        return 0 <= self.max_length < self.ready.count + more or (
            0 <= self.max_octets < self.octets + octets
        )

    def requeue(self, entry):
        """Take back *entry*, which a consumer held, to where it was."""
        self._returned(entry)
        if self.deleted:
            self._free(entry)
            return
        entry.redelivered = True
        self.broker.metrics.redelivered += 1
        self.octets += entry.message.body
        # Requeued ones are older than nearly everything that waits: search from the head.
        after = self.ready.head
        while after is not None and (entry.position - after.position & _POSITIONS) < 0x1FFFFFFF:
            after = after.next
        if after is None:
            self.ready.append(entry)
        else:
            self.ready.insert_before(entry, after)

    # --- out ---

    def dispatch(self):
        """Give waiting messages to the consumers, in turn, as long as one accepts."""
        ready = self.ready
        while True:
            entry = ready.head
            if entry is None:
                return
            if entry.expires >= 0 and ticks_diff(self.broker.now, entry.expires) > 0:
                self.drop(entry)
                self.broker.metrics.dropped_expired += 1
                continue
            consumer = self._next_consumer(entry.message)
            if consumer is None:
                return
            self.take(entry, consumer)
            consumer.sink.deliver(consumer, entry)

    def _next_consumer(self, message):
        consumers = self.consumers
        count = len(consumers)
        turn = self._turn
        for _ in range(count):
            if turn >= count:
                turn = 0
            consumer = consumers[turn]
            turn += 1
            if consumer.prefetch and consumer.unacked >= consumer.prefetch:
                continue
            if consumer.sink.accepts(consumer, message):
                self._turn = turn
                return consumer
        return None

    def first(self):
        """The oldest waiting entry that has not expired, or None."""
        self.expire()
        return self.ready.head

    def take(self, entry, consumer):
        """Move *entry* out of the ready list, to *consumer* (None: a basic.get)."""
        self.ready.remove(entry)
        self.octets -= entry.message.body
        self.unacked += 1
        entry.consumer = consumer
        if consumer is not None:
            consumer.unacked += 1

    # --- the end of an entry ---

    def settle(self, entry):
        """*entry*, which a consumer held, is done with."""
        self._returned(entry)
        self._free(entry)

    def _returned(self, entry):
        self.unacked -= 1
        if entry.consumer is not None:
            entry.consumer.unacked -= 1
            entry.consumer = None
        if self.deleted and not self.unacked:
            self.broker.queue_table.give(self)

    def _free(self, entry):
        broker = self.broker
        if entry.stored:
            broker.store.settle(entry)
        broker.pool.release(entry.message)
        entry.message = None
        broker.entries.give(entry)
        broker.freed = True

    def drop(self, entry):
        """Throw a waiting entry away; the caller counts why."""
        self.ready.remove(entry)
        self.octets -= entry.message.body
        self._free(entry)

    def purge(self):
        """Drop everything that waits; the number of messages dropped."""
        count = self.ready.count
        while self.ready.head is not None:
            self.drop(self.ready.head)
        return count

    def expire(self):
        """Drop what has outlived its time, from the head."""
        while True:
            entry = self.ready.head
            if entry is None or entry.expires < 0:
                return
            if ticks_diff(self.broker.now, entry.expires) <= 0:
                return
            self.drop(entry)
            self.broker.metrics.dropped_expired += 1

    # --- consumers ---

    def subscribe(self, sink, tag, no_ack, exclusive, prefetch):
        """Add a consumer. Raises AccessRefused when one of them is, or wants to be, exclusive."""
        if self.consumers and (exclusive or self.consumers[0].exclusive):
            raise AccessRefused("queue '%s' has an exclusive consumer" % text(self.name))
        consumer = self.broker.consumers.take()
        consumer.sink = sink
        consumer.tag = tag
        consumer.queue = self
        consumer.no_ack = no_ack
        consumer.exclusive = exclusive
        consumer.prefetch = prefetch
        consumer.unacked = 0
        self.consumers.append(consumer)
        return consumer

    def unsubscribe(self, consumer):
        """Remove *consumer*; its unacknowledged entries stay with its sink.

        Deletes an auto-delete queue with its last consumer.
        """
        self.consumers.remove(consumer)
        self.used_at = self.broker.now
        consumer.sink = None
        self.broker.consumers.give(consumer)
        if self.auto_delete and not self.consumers and not self.deleted:
            self.broker.delete_queue(self)

    def check_owner(self, connection):
        """Raises ResourceLocked when the queue is exclusive to another connection."""
        if self.owner is not None and self.owner is not connection:
            raise ResourceLocked(
                "cannot obtain exclusive access to locked queue '%s'" % text(self.name)
            )


def text(name):
    """A name as text for people; it may be any octets."""
    try:
        return str(name, "utf-8")
    except UnicodeError:
        return repr(name)
