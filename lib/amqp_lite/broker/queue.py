"""A queue: waiting messages in order, and the consumers they go to.

What waits in RAM has an entry, see delivery.py. What waits in the store alone has none: the queue
counts it (`backlog`) and knows where it begins (`order`, `slot`). Everything with an entry is in
front of that, but transient messages that came later; the places of entries tell.
"""

from ..compat import const, ticks_add, ticks_diff
from ..errors import AccessRefused, ResourceLocked
from .delivery import EntryList, is_behind

CHOOSES = const(1)  # Consumer.chooses
SAW_ALL = const(2)
DROP_HEAD = const(0)
REJECT_PUBLISH = const(1)

_POSITIONS = const(0x3FFFFFFF)
_TRANSIENT = const(0x40000000)


class Queue:
    """Messages leave in order, but for what live consumers are given.

    A live consumer gets a new message at once, ahead of all that waits (its entry says `ahead`),
    as long as it holds less than `live` of them; what waits goes on beside that, up to its
    prefetch. So each consumer is at the end of two streams, both in order. What comes back takes
    its old place among what waits, and goes out in order from then on.

    A record of the store that went ahead lies where the backlog is going to be read. It does not
    count as backlog, and the store has a list of such places to pass over (ahead.py). One that
    comes back leaves the list and is backlog again; once the place was passed, or without a
    backlog, it comes back into `ready` as any other. What has its body in the store waits.

    Neither stream takes the last memory: one that goes ahead leaves what fetching and publishing
    need, and fetching leaves enough for one that goes ahead while none does.
    """

    def __init__(self):
        self.next = None  # in the table of free ones
        self.ready = EntryList()
        self.consumers = []
        self.broker = None
        self.reset(b"", {})

    def reset(self, name, arguments):
        self.name = name
        self.durable = False
        self.auto_delete = False
        self.owner = None  # the connection an exclusive queue belongs to
        self.deleted = False
        self.number = -1  # in the store; -1: it does not survive a restart
        self.defined_order = 0  # place of its definition there
        self.defined_slot = 0
        self.backlog = 0  # messages that wait in the store alone,
        self.order = 1  # and the place from which on to look for them
        self.slot = 0
        self.serial = 0  # tells it from others of this session
        self.unacked = 0  # entries that consumers hold
        self.octets = 0  # bodies of all that wait
        self.visited = 0  # by the route being resolved, see route.py
        self.used_at = 0  # ticks, for x-expires
        self._turn = 0
        self._position = 0
        self.configure(arguments)

    def configure(self, arguments):
        """Obey these *arguments* from now on."""
        self.arguments = arguments
        self.ttl_ms = arguments.get(b"x-message-ttl", -1)
        self.expires_ms = arguments.get(b"x-expires", -1)
        self.max_length = arguments.get(b"x-max-length", -1)
        self.max_octets = arguments.get(b"x-max-length-bytes", -1)
        self.limited = self.max_length >= 0 or self.max_octets >= 0
        reject = arguments.get(b"x-overflow") == b"reject-publish"
        self.overflow = REJECT_PUBLISH if reject else DROP_HEAD

    def waiting(self):
        """How many messages wait."""
        return self.ready.count + self.backlog

    # --- in ---

    def admits(self, message, count=1, octets=0):
        """Whether a limited queue takes *message*: it is not full, or drops its oldest.

        count, octets  it is the last of so many; the bodies of the others together
        """
        if self.overflow == REJECT_PUBLISH and self._over(count, octets + message.body):
            self.broker.metrics.refused_max_length += 1
            return False
        return True

    def ttl_of(self, message):
        """How long *message* lives in this queue, in ms; -1: for ever."""
        ttl = message.ttl_ms
        if self.ttl_ms >= 0 and (ttl < 0 or self.ttl_ms < ttl):
            return self.ttl_ms
        return ttl

    def push(self, message, share):
        """Append *message*. False: there is no room for it.

        share  which of the queues of the record appended last this is; -1: it is not stored
        """
        broker = self.broker
        if broker.live and self._push_ahead(message, share):
            return True
        if share >= 0 and (self.backlog or message.chain is not None or not broker.is_roomy()):
            self.octets += message.body
            if not self.backlog:
                self.order = broker.store.order
                self.slot = broker.store.slot
            self._set_backlog(self.backlog + 1)
            if self.consumers:
                broker.behind = True
        elif not self._push_entry(message, share):
            return False
        if self.limited:
            while self._over(0, 0):
                broker.metrics.dropped_max_length += 1
                self._drop_oldest()
        return True

    def _push_ahead(self, message, share):
        """Give *message* to a live consumer. False: it waits behind the others, if any do."""
        if message.chain is not None or (not self.backlog and self.ready.head is None):
            return False
        consumer = self._live_consumer(message)
        if consumer is None:
            return False
        if share >= 0:
            # Unlike a transient one it can wait on flash, and no entry was promised to it.
            broker = self.broker
            if not self.backlog:
                if not broker.is_roomy():
                    return False
            elif not broker.has_entries(1) or not broker.pool.has_spare(0):
                return False
            if self.backlog and not broker.store.ahead.note(
                self.number, broker.store.order, broker.store.slot
            ):
                return False
        return self._push_entry(message, share, consumer)

    def _live_consumer(self, message):
        for consumer in self.consumers:
            if consumer.ahead < consumer.live and consumer.sink.accepts(consumer, message):
                return consumer
        return None

    def _push_entry(self, message, share, consumer=None):
        """Make an entry; for *consumer*, or in the ready list. False: there is none free."""
        broker = self.broker
        if not broker.entries.free:
            broker.metrics.dropped_no_room += 1
            return False
        entry = broker.entries.take()
        entry.message = message
        entry.queue = self
        entry.consumer = None
        entry.tries = 0
        entry.share = share
        if share >= 0:
            entry.order = broker.store.order
            entry.position = broker.store.slot
        elif self.number >= 0:
            entry.order = broker.store.ring.newest
            entry.position = broker.store.tail_slot()
            self._position = self._position + 1 & _POSITIONS
            entry.share = self._position - _TRANSIENT
        else:
            entry.order = 0
            entry.position = self._position = self._position + 1 & _POSITIONS
        ttl = message.ttl_ms
        if self.ttl_ms >= 0:
            ttl = self.ttl_of(message)
        entry.expires = ticks_add(broker.now, ttl) if ttl >= 0 else -1
        message.references += 1
        if consumer is not None:
            entry.ahead = True
            entry.consumer = consumer
            consumer.ahead += 1
            self.unacked += 1
            consumer.sink.deliver(consumer, entry)
            return True
        self.ready.append(entry)
        self.octets += message.body
        if self.consumers:
            if self.consumers[0].chooses == SAW_ALL:
                self._dispatch_behind(entry)
            else:
                self.dispatch()
        if not ttl and self.ready.tail is entry:
            # No time to live: for a consumer that waited, or for nobody.
            self.drop(entry)
            broker.metrics.dropped_expired += 1
        return True

    def _over(self, more, octets):
        return 0 <= self.max_length < self.ready.count + self.backlog + more or (
            0 <= self.max_octets < self.octets + octets
        )

    def _drop_oldest(self):
        if self.find_backlog():
            self._drop_found()
        elif self.ready.head is not None:
            self.drop(self.ready.head)

    def requeue(self, entry, counts=True):
        """Take back *entry*, which a consumer held, to where it was.

        counts  the consumer may have seen it: it is redelivered from now on
        """
        ahead = entry.ahead
        self._returned(entry)
        chain = entry.message.chain
        if chain is not None and chain.lost:
            self.broker.metrics.dropped_corrupt += 1
            self._free(entry)
            return
        if self.deleted:
            self._free(entry)
            return
        if counts:
            if entry.tries < 0xFF:
                entry.tries += 1
            if entry.share >= 0:
                self.broker.store.count_try(entry)
            self.broker.metrics.redelivered += 1
        self.octets += entry.message.body
        if ahead and self._is_backlog_again(entry):
            return
        self._insert(entry)

    def _insert(self, entry):
        """Put *entry* where its place is among those that are ready."""
        self._note_seen(False)
        # It is older than nearly everything that waits: search from the head.
        after = self.ready.head
        while after is not None and is_behind(entry, after.order, after.position, after.share):
            after = after.next
        if after is None:
            self.ready.append(entry)
        else:
            self.ready.insert_before(entry, after)

    def _is_backlog_again(self, entry):
        """Leave *entry*, which had gone ahead, to the store, when the backlog did not pass it."""
        broker = self.broker
        store = broker.store
        # What a broken store did not commit cannot be read from it.
        if entry.share < 0 or not self.backlog or store.broken:
            return False
        if not store.ahead.forget(self.number, entry.order, entry.position):
            return False
        self._set_backlog(self.backlog + 1)
        entry.share = -1  # so that it is not settled there
        self._free(entry)
        if self.consumers:
            broker.behind = True
        return True

    # --- what waits in the store ---

    def find_backlog(self, at_once=True):
        """Whether the oldest that waits is in the store alone; the store has found it then.

        at_once  commit what is not committed yet, to find that, too; else broker.behind is set
        """
        entry = self.ready.head
        if not self.backlog:
            return False
        if entry is not None and not is_behind(entry, self.order, self.slot, 0):
            return False
        broker = self.broker
        store = broker.store
        found = store.find(self)
        if not found and store.ring.uncommitted and not store.broken:
            if not at_once:
                broker.behind = True
                return False
            store.commit_now()
            found = store.find(self)
        if not found:
            if store.broken:
                return False  # what is there comes back with the next start
            # Octets went bad since they were counted.
            broker.metrics.dropped_corrupt += self.backlog
            self._set_backlog(0)
            self.octets = 0
            entry = self.ready.head
            while entry is not None:
                self.octets += entry.message.body
                entry = entry.next
            return False
        return entry is None or is_behind(entry, self.order, self.slot, 0)

    def _set_backlog(self, n):
        before = self.backlog
        self.backlog = n
        if not before or not n:
            self.broker.note_backlog(before, n)
            self.broker.store.ahead.forget_all(self.number)

    def _drop_found(self):
        store = self.broker.store
        body = store.body_size()
        self.octets -= body if body < self.octets else self.octets
        self._set_backlog(self.backlog - 1)
        store.ring.pass_by(self)
        store.drop_found()

    def _fetch(self):
        """An entry for the message the store has found; None when there is no memory for it."""
        broker = self.broker
        store = broker.store
        expires = store.expiry(self)
        tries = store.tries()
        message = None
        free = broker.entries.free - broker.promised
        if broker.live and self._spares_for_live():
            if free <= 2 * broker.spare_entries or not broker.pool.has_spare(2):
                free = 0
        if free > 0:
            message = store.load()
        if message is None:
            broker.behind = True
            return None
        entry = broker.entries.take()
        entry.message = message
        entry.queue = self
        entry.consumer = None
        # Nobody knows what was delivered before the broker started.
        entry.tries = tries + 1 if self.order <= broker.inherited else tries
        entry.share = store.found
        entry.order = self.order
        entry.position = self.slot
        entry.expires = expires
        self._set_backlog(self.backlog - 1)
        store.ring.pass_by(self)
        self._insert(entry)
        return entry

    def _spares_for_live(self):
        """Whether a live consumer holds something, and nothing of it went ahead."""
        for consumer in self.consumers:
            if consumer.live and consumer.unacked and not consumer.ahead:
                return True
        return False

    # --- out ---

    def dispatch(self):
        """Give waiting messages to the consumers, in turn, as long as one accepts."""
        ready = self.ready
        while True:
            if self.backlog:
                if self._all_full():
                    return
                if self.find_backlog(False):
                    if self._fetch() is None:
                        return
                elif self.backlog and (ready.head is None or self._is_behind_uncommitted()):
                    return
            entry = ready.head
            if entry is None:
                return
            if entry.expires >= 0 and ticks_diff(self.broker.now, entry.expires) > 0:
                self.drop(entry)
                self.broker.metrics.dropped_expired += 1
                continue
            if self.consumers and self.consumers[0].chooses == SAW_ALL:
                self._dispatch_behind(None)
                return
            self.broker.held = 0
            consumer = self._next_consumer(entry.message)
            if consumer is None:
                if self.broker.held < self._choosers():
                    self._dispatch_behind(entry.next)
                return
            self.take(entry, consumer)
            consumer.sink.deliver(consumer, entry)

    def _dispatch_behind(self, entry):
        """Give *entry* and what is behind it to consumers that choose what they take.

        They choose from what is in memory; what waits in the store comes there while it is roomy.
        To choose may cost much: what all of them saw is not shown to them again.
        """
        broker = self.broker
        choosers = self._choosers()
        all_seen = not broker.held or self.consumers[0].chooses == SAW_ALL
        self._note_seen(False)
        while True:
            if entry is None:
                if not self.backlog or not broker.is_roomy() or not broker.store.find(self):
                    self._note_seen(all_seen and choosers == len(self.consumers))
                    return
                entry = self._fetch()
                if entry is None:
                    return
            following = entry.next
            broker.held = 0
            consumer = self._next_consumer(entry.message)
            if broker.held:
                all_seen = False
                if broker.held >= choosers:
                    return
            if consumer is not None:
                self.take(entry, consumer)
                consumer.sink.deliver(consumer, entry)
            entry = following

    def _choosers(self):
        """How many of the consumers choose."""
        many = 0
        for consumer in self.consumers:
            if consumer.chooses:
                many += 1
        return many

    def _note_seen(self, seen):
        """Whether all consumers choose, saw all that is ready, and want none of it."""
        for consumer in self.consumers:
            if consumer.chooses:
                consumer.chooses = SAW_ALL if seen else CHOOSES

    def _is_behind_uncommitted(self):
        """Whether a backlog that is not committed, and not lost, is before all that is ready."""
        entry = self.ready.head
        return not self.broker.store.broken and is_behind(entry, self.order, self.slot, 0)

    def _all_full(self):
        """Whether no consumer may have more of what waits."""
        for consumer in self.consumers:
            if not consumer.prefetch or consumer.unacked < consumer.prefetch:
                return False
        return True

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
        """The oldest waiting entry that has not expired; None: nothing waits, or no memory."""
        self.expire()
        if self.find_backlog():
            return self._fetch()
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
        consumer = entry.consumer
        if entry.ahead:
            entry.ahead = False
            if consumer is not None:
                consumer.ahead -= 1
        elif consumer is not None:
            consumer.unacked -= 1
        entry.consumer = None
        if self.deleted and not self.unacked:
            self.broker.queue_table.give(self)

    def _free(self, entry):
        broker = self.broker
        if entry.share >= 0:
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
        count = self.ready.count + self.backlog
        while self.ready.head is not None:
            self.drop(self.ready.head)
        while self.find_backlog():
            self._drop_found()
        self.octets = 0
        return count

    def expire(self):
        """Drop what has outlived its time, from the head."""
        broker = self.broker
        while True:
            if self.backlog and broker.store.expires() and self.find_backlog():
                expires = broker.store.expiry(self)
                if expires < 0 or ticks_diff(broker.now, expires) <= 0:
                    return
                self._drop_found()
            else:
                entry = self.ready.head
                if entry is None or entry.expires < 0:
                    return
                if ticks_diff(broker.now, entry.expires) <= 0:
                    return
                self.drop(entry)
            broker.metrics.dropped_expired += 1

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
        consumer.unacked = consumer.ahead = consumer.live = 0
        consumer.chooses = 0
        self._note_seen(False)
        self.consumers.append(consumer)
        return consumer

    def set_live(self, consumer, live):
        """Let *consumer* hold up to *live* messages that it gets ahead of what waits."""
        self.broker.live += live - consumer.live
        consumer.live = live

    def unsubscribe(self, consumer):
        """Remove *consumer*; its unacknowledged entries stay with its sink.

        Deletes an auto-delete queue with its last consumer.
        """
        self.consumers.remove(consumer)
        self.set_live(consumer, 0)
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
