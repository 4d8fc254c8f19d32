"""Messages in the ring that went ahead of the backlog of their queue.

Their records lie where the backlog is going to be read: whoever reads it has to pass over them,
whoever holds them, and also when they are settled, as flash may not say so yet, or for ever.
"""

from array import array

from ..compat import const

_MOST = const(256)  # places, and no more than there are entries
_LOOKS = const(4)  # of them are looked at, at once, for one that is done with


class Ahead:
    """The places of such records, each with the number of its queue."""

    def __init__(self, ring, entries):
        self._ring = ring
        places = [0] * min(entries, _MOST)
        self._order = array("I", places)
        self._slot = array("H", places)
        self._queue = array("H", places)
        self.count = 0
        self._hand = 0  # the one looked at last

    def note(self, number, order, slot):
        """The record at that place goes ahead of the backlog of the queue *number*.

        False: there is no place to note that; then it may not go.
        """
        k = self.count
        if k < len(self._slot):
            self.count = k + 1
        else:
            k = self._marked()
            if k < 0:
                return False
        self._order[k] = order
        self._slot[k] = slot
        self._queue[k] = number
        return True

    def _marked(self):
        """One of the oldest that is done with on flash, which a reader sees itself; or -1."""
        ring = self._ring
        for _ in range(_LOOKS):
            self._hand = k = (self._hand + 1) % self.count
            order = self._order[k]
            slot = self._slot[k]
            if order == ring.newest and slot >= ring.kept_slot:
                continue  # not even on flash
            try:
                if not ring.locate(order, slot) or ring.share_of(self._queue[k]) < 0:
                    return k
            except OSError:
                break  # Durable.find() reports it
        return -1

    def forget(self, number, order, slot):
        """Whether the record at that place is noted for the queue *number*: not any more."""
        slots = self._slot
        for k in range(self.count):
            if slots[k] == slot and self._order[k] == order and self._queue[k] == number:
                self._drop(k)
                return True
        return False

    def forget_all(self, number):
        """Behind the end of a backlog there is nothing to pass over: the next begins later."""
        k = self.count
        while k:
            k -= 1
            if self._queue[k] == number:
                self._drop(k)

    def _drop(self, k):
        self.count = last = self.count - 1
        self._order[k] = self._order[last]
        self._slot[k] = self._slot[last]
        self._queue[k] = self._queue[last]
