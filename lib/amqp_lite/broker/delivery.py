"""What a queue gives away, and to whom: entries, and the consumers they go to.

An Entry is one message in one queue in RAM. It is in one list at a time: the queue's `ready` list,
or the list of unacknowledged ones of whoever received it. A message routed to three queues is
stored once and has three entries.

A Consumer is a subscription to a queue. Its sink is whoever carries the messages away (an AMQP
channel, a 1.0 link, a callback on the board), and has three methods:

    accepts(consumer, message)  may it be given this message now? Nothing changes.
    deliver(consumer, entry)    take it. `entry` is in no list; unless the consumer is no_ack, the
                                sink keeps it and later hands it to queue.settle() or .requeue().
                                `entry.ahead` tells that it came ahead of what waits: then it is
                                beyond the prefetch, see Queue.set_live()
    cancelled(consumer)         the queue is gone
"""

from ..compat import const

_POSITIONS = const(0x3FFFFFFF)


class Entry:
    __slots__ = (
        "next", "prev", "message", "queue", "consumer", "tag", "order", "position", "expires",
        "tries", "share", "ahead",
    )  # fmt: skip

    def __init__(self):
        self.next = None
        self.prev = None
        self.message = None
        self.queue = None
        self.consumer = None  # who holds it unacknowledged; None after basic.get or a cancel
        self.tag = 0  # delivery tag, while unacknowledged
        self.order = 0  # place in the queue, kept for a requeue: in a durable one that of the
        self.position = 0  # record, or of what the store had then; else counted by the queue
        self.expires = -1  # ticks; -1 = never
        self.tries = 0  # deliveries that may have been seen: it is redelivered when there are any
        # Which of its record's queues this is. Below 0: the store does not have it; in a durable
        # queue it then grows from one to the next, to tell those of one place apart.
        self.share = -1
        self.ahead = False  # while a consumer holds it that got it ahead of what waits


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


def is_behind(entry, order, position, share):
    """Whether the place of *entry* is behind that one."""
    if entry.order != order:
        return entry.order > order
    if entry.position != position:
        return (entry.position - position & _POSITIONS) < 0x1FFFFFFF
    # Transient ones came before the record that has this place.
    if entry.share >= 0 or share >= 0:
        return entry.share > share
    return 0 < (entry.share - share & _POSITIONS) < 0x1FFFFFFF


class Consumer:
    __slots__ = (
        "next", "sink", "tag", "queue", "no_ack", "exclusive", "prefetch", "unacked", "prefix",
        "live", "ahead", "chooses",
    )  # fmt: skip

    def __init__(self):
        self.next = None  # in the table of free ones
        self.sink = None
        self.tag = b""
        self.queue = None
        self.no_ack = False
        self.exclusive = False
        self.prefetch = 0  # messages it holds of those that came in order; 0 = no limit
        self.unacked = 0  # of these
        self.live = 0  # messages it may hold that came ahead of what waits; see Queue
        self.ahead = 0  # of these
        self.chooses = 0  # its sink takes some messages and leaves others to others, see Queue
        self.prefix = None  # the sink's own: what it writes before each delivery
