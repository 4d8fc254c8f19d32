"""A subscription to a queue. Its sink is whoever carries the messages away.

A sink (an AMQP channel, a 1.0 link, a callback on the board) has three methods:

    accepts(consumer, message)  may it be given this message now? Nothing changes.
    deliver(consumer, entry)    take it. `entry` is in no list; unless the consumer is no_ack, the
                                sink keeps it and later hands it to queue.settle() or .requeue().
                                `entry.ahead` tells that it came ahead of what waits: then it is
                                beyond the prefetch, see Queue.set_live()
    cancelled(consumer)         the queue is gone
"""


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
