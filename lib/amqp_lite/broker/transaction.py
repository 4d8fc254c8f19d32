"""Transactions: publishes and settlements that take effect together, or not at all.

Both protocols work them, tx of AMQP 0-9-1 and the coordinator of AMQP 1.0. What a transaction is
told waits in RAM, messages in the pool and deliveries in a list. commit() routes the messages and
sees that all of them will be taken, before anything is done; then it appends what is to survive a
restart to the ring in one go, with a commit record behind it (see store/records.py), and does the
rest. Like any publish it is safe when the store has committed. Imported by who needs it first.
"""

import struct

from ..compat import const
from ..errors import PreconditionFailed, ResourceLimitExceeded
from ..store.records import CHAIN, PART
from ..store.ring import COMMIT, COUNTS
from .delivery import EntryList
from .message import PERSISTENT
from .queue import text

ACCEPTED = const(0)  # outcomes
REJECTED = const(1)
RELEASED = const(2)  # back to its queue, not redelivered,
REQUEUED = const(3)  # or so

_OPERATIONS = const(64)  # of one transaction, at most
_SERIAL = const(0x3FFFFFFF)
_ALIVE = const(16)  # transactions that hold something


class Ledger:
    """What all transactions of a broker may hold together; made by the first of them."""

    def __init__(self, broker):
        self.broker = broker
        self.serial = 0  # of txn-ids
        self.operations = min(_OPERATIONS, 1 + broker.entries.size // 4)  # of one
        self.alive = min(_ALIVE, 1 + broker.consumers.size // 4)  # that may still begin
        self.messages = broker.pool.messages.size // 2  # likewise; others need the rest
        self.blocks = broker.pool.blocks // 2


def ledger_of(broker):
    if broker.transactions is None:
        broker.transactions = Ledger(broker)
    return broker.transactions


class Transaction:
    """
    returns  called as returns(message) with each one that was published to be returned when it
             goes nowhere, and does; it takes over a reference
    most     how many operations it may have; None: as many as one that clients work
    """

    def __init__(self, broker, returns=None, most=None):
        self._ledger = ledger_of(broker)
        self._broker = broker
        self._returns = returns
        self._most = most or self._ledger.operations
        self._publishes = []  # (message, blocks, mandatory)
        self.entries = EntryList()  # deliveries settled, in the order of that
        self._settled = []  # what settle() was told of each: (outcome, giver, settled)
        self._places = []  # (order, slot, shares) of its records, while it commits
        self._commit = None  # place of its commit record, likewise
        self._promised = 0  # entries, likewise
        self._begun = False  # it is one of those alive

    def operations(self):
        return len(self._publishes) + self.entries.count

    def begin(self):
        """It counts as one of those alive. Raises ResourceLimitExceeded."""
        if not self._begun:
            if not self._ledger.alive:
                raise ResourceLimitExceeded("too many transactions at once")
            self._ledger.alive -= 1
            self._begun = True

    def _add(self):
        """One operation more. Raises ResourceLimitExceeded."""
        if self.operations() >= self._most:
            raise ResourceLimitExceeded("a transaction of more than %d" % self._most)
        self.begin()

    def publish(self, message, mandatory=False):
        """Publish *message* with the rest, taking over its reference.

        Raises ResourceLimitExceeded when the transaction, or all of them, hold too much.
        """
        pool = self._broker.pool
        ledger = self._ledger
        blocks = (message.size + pool.block_size - 1) // pool.block_size
        try:
            self._add()
            if not ledger.messages or blocks > ledger.blocks:
                raise ResourceLimitExceeded("transactions hold half of all messages")
            if message.chain is not None and not self._broker.store.bodies.has_half():
                raise ResourceLimitExceeded("transactions hold half of all stored bodies")
        except ResourceLimitExceeded:
            pool.release(message)
            self._broker.freed = True
            raise
        ledger.messages -= 1
        ledger.blocks -= blocks
        self._publishes.append((message, blocks, mandatory))

    def settle(self, entry, outcome, giver, settled=True):
        """Settle with the rest *entry*, which its receiver held and is in no list any more.

        giver    takes it back by give_back(entry, settled) after a rollback; after a commit it is
                 told finished(tag, outcome) unless *settled*
        settled  the receiver has settled it; None: not, and give_back() shall not ask for that

        Raises ResourceLimitExceeded; it is given back then.
        """
        try:
            self._add()
        except ResourceLimitExceeded:
            giver.give_back(entry, settled)
            raise
        self.entries.append(entry)
        self._settled.append((outcome, giver, settled))

    def forget_consumer(self, consumer):
        """*consumer* is leaving; what it held stays here."""
        entry = self.entries.head
        while entry is not None:
            if entry.consumer is consumer:
                entry.consumer = None
            entry = entry.next

    def rollback(self):
        """Forget everything. It may begin anew."""
        for message, _, _ in self._publishes:
            self._broker.pool.release(message)
        queues = []
        while self.entries.tail is not None:
            entry = self.entries.tail
            if entry.queue not in queues:
                queues.append(entry.queue)
            self.entries.remove(entry)
            _, giver, settled = self._settled.pop()
            giver.give_back(entry, settled)
        self._end()
        for queue in queues:
            if not queue.deleted:
                queue.dispatch()

    def _end(self):
        ledger = self._ledger
        for _, blocks, _ in self._publishes:
            ledger.messages += 1
            ledger.blocks += blocks
        if self._begun:
            ledger.alive += 1
            self._begun = False
        self._publishes.clear()
        self._broker.freed = True

    # --- commit ---

    def commit(self):
        """Do it all. It is safe when the store has committed; then another one may begin.

        Raises PreconditionFailed when it cannot be done as a whole: it was rolled back then.
        """
        broker = self._broker
        try:
            why = self._refusal() or self._store()
        except OSError as error:
            broker.store.fail(error)
            why = "the store failed"
        if why:
            broker.store.part = 0
            broker.promised -= self._promised
            self._promised = 0
            self._places.clear()
            self._commit = None
            self.rollback()
            raise PreconditionFailed("transaction rolled back: " + why)
        self._promised = 0
        self._push_all()
        self._settle_all()
        if self._commit:
            # Behind all the marks it stands for.
            broker.store.ack(self._commit[0], self._commit[1], COMMIT)
            self._commit = None
        self._end()

    def _refusal(self):
        """Why its messages cannot all be taken; None: they can. Entries for them are promised."""
        broker = self._broker
        entries = 0
        more = {}  # by queue: the messages and the octets of their bodies that it will get
        for message, _, mandatory in self._publishes:
            route = broker.route_of(message)
            if mandatory and not route.count and message.chain is not None:
                return "a stored body cannot be returned"
            for k in range(route.count):
                queue = route.queues[k]
                if not _is_stored(broker, message, queue):
                    if message.chain is not None:
                        return "a queue cannot take a stored body"
                    entries += 1
                if queue.limited:
                    count, octets = more.get(queue.name, (0, 0))
                    if not queue.admits(message, count + 1, octets):
                        return "queue '%s' is full" % text(queue.name)
                    more[queue.name] = (count + 1, octets + message.body)
        if not broker.has_entries(entries):
            return "no room for another delivery"
        broker.promised += entries
        self._promised = entries
        return None

    def _records(self, message):
        """For each record that *message* will be: how many of the broker's `stored_in` it is for.

        They are there at its turn.
        """
        broker = self._broker
        route = broker.route_of(message)
        n = 0
        for k in range(route.count):
            if _is_stored(broker, message, route.queues[k]):
                broker.stored_in[n] = route.queues[k].number
                n += 1
                if n == broker.store.fan_out:
                    yield n
                    n = 0
        if n:
            yield n

    # --- in the store ---

    def _store(self):
        """Append what survives a restart. Why it cannot be: nothing is there then; None: it is."""
        store = self._broker.store
        if not store.keeps:
            return None
        records = 0
        for message, _, _ in self._publishes:
            for _ in self._records(message):
                records += 1
        settled = list(self._rows())
        if not records and not settled:
            return None
        if store.broken:
            return "the store takes nothing any more"
        # One record alone is there or not by itself.
        if records > 1 or settled:
            store.part = PART
        right = self._append_all()
        if store.part:
            store.part = 0
            right = right and self._append_commit(settled)
            if not right:
                self._take_back()
            else:
                for order, slot, _ in self._places:
                    store.ack(order, slot, COUNTS)
        if right:
            return None
        self._broker.metrics.dropped_store_full += 1
        return "the store is full"

    def _rows(self):
        """The settlements of stored messages, as commit records have them."""
        entry = self.entries.head
        for outcome, _, _ in self._settled:
            if entry.share >= 0 and outcome <= REJECTED:
                yield struct.pack(">IHH", entry.order, entry.position, entry.share)
            entry = entry.next

    def _append_all(self):
        store = self._broker.store
        for message, _, _ in self._publishes:
            for n in self._records(message):
                if not store.append(message, self._broker.stored_in, n):
                    return False
                self._places.append((store.order, store.slot, n))
        return True

    def _append_commit(self, settled):
        store = self._broker.store
        ring = store.ring
        if not ring.begin(PART, None, 0, 8 + 8 * len(settled)):
            return False
        self._commit = (ring.at_order, ring.at_slot)
        first = self._places[0] if self._places else self._commit
        ring.put(struct.pack(">IHH", first[0], first[1], len(self._places)), 0, 8)
        for row in settled:
            ring.put(row, 0, 8)
        ring.end()
        store.was_appended()
        return True

    def _take_back(self):
        """Make what was appended done with, and at once: nobody may find it."""
        store = self._broker.store
        ring = store.ring
        for order, slot, shares in self._places:
            for share in range(shares):
                ring.ack(order, slot, share)
            ring.mark()
            if ring.locate(order, slot) and ring.kind & CHAIN:
                store.bodies.drop(ring.chain_order, ring.chain_slot)
        ring.mark()

    # --- in RAM ---

    def _push_all(self):
        """Give the messages to their queues, as Broker.publish() does."""
        broker = self._broker
        store = broker.store
        places = self._places
        for message, _, mandatory in self._publishes:
            broker.metrics.published += 1
            route = broker.route_of(message)
            count = route.count
            for k in range(count):
                if not _is_stored(broker, message, route.queues[k]):
                    broker.promised -= 1
                    route.queues[k].push(message, -1)
            for _ in self._records(message):
                store.order, store.slot, n = places.pop(0)
                for share in range(n):
                    broker.numbered(broker.stored_in[share]).push(message, share)
            if not count:
                broker.metrics.unroutable += 1
                if mandatory:
                    self._returns(message)
                    continue
            broker.pool.release(message)

    def _settle_all(self):
        metrics = self._broker.metrics
        queues = []
        for outcome, giver, settled in self._settled:
            entry = self.entries.head
            self.entries.remove(entry)
            queue = entry.queue
            tag = entry.tag
            if queue not in queues:
                queues.append(queue)
            if outcome >= RELEASED:
                queue.requeue(entry, outcome == REQUEUED)
            else:
                if outcome == REJECTED:
                    metrics.dropped_rejected += 1
                else:
                    metrics.acknowledged += 1
                queue.settle(entry)
            if not settled:
                giver.finished(tag, outcome)
        self._settled.clear()
        for queue in queues:
            if not queue.deleted:
                queue.dispatch()


def _is_stored(broker, message, queue):
    """Whether *message* survives a restart in *queue*."""
    if not message.flags & PERSISTENT or not broker.store.keeps or queue.number < 0:
        return False
    return queue.ttl_of(message) != 0


def insert_by_tag(entries, entry):
    """Put *entry* back into a list of unsettled ones, which is in the order of their tags."""
    after = None
    before = entries.tail
    while before is not None and 0 < before.tag - entry.tag & _SERIAL < _SERIAL >> 1:
        after = before
        before = before.prev
    if after is None:
        entries.append(entry)
    else:
        entries.insert_before(entry, after)
