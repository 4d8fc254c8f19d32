"""Bodies in the ring: each in parts, which are BODY records of a chain (see store/records.py).

They are written as they come and read as they go, so a body may be longer than all of the RAM.
"""

from ..compat import const
from ..store.records import BODY, TYPE
from ..store.ring import drop_chain
from .table import Table

_LEAST = const(64)  # octets of a part worth filling the rest of a sector with


class Chain:
    """A body in the ring, in parts."""

    __slots__ = ("next", "order", "slot", "size", "lost", "kept")

    def __init__(self):
        self.next = None  # in the table of free ones
        self.reset()

    def reset(self):
        self.order = 0  # place of its first part
        self.slot = 0
        self.size = 0  # octets so far
        self.lost = False  # the ring had no room for a part
        self.kept = False  # a message record stands for it; else its parts go with this


class Cursor:
    """How far a body was read, see Bodies.read()."""

    def __init__(self):
        self.part_order = self.part_slot = self.part_at = 0


class Bodies:
    """
    ring      a Ring
    most      bodies that may be under way at once, between a socket and the ring
    appended  called when a part was appended, and waits for a commit
    """

    def __init__(self, ring, most, appended):
        self._ring = ring
        self._appended = appended
        self._all = []  # chains, to see whether another one is the same body
        self._chains = Table(self._make_chain, most, "stored body")
        self._reserved = 1 if most > 1 else 0  # for a publisher, whatever consumers hold

    def _make_chain(self):
        chain = Chain()
        self._all.append(chain)
        return chain

    def take(self):
        """A new body; None when there are too many under way."""
        if not self._chains.free:
            return None
        chain = self._chains.take()
        chain.reset()
        return chain

    def has_half(self):
        """Whether half of the bodies that may be under way are not."""
        return self._chains.free > self._chains.size >> 1

    def may_fetch(self):
        """Whether fetch() may be called."""
        return self._chains.free > self._reserved

    def fetch(self):
        """The body of the message that the ring has parsed."""
        ring = self._ring
        chain = self._chains.take()
        chain.reset()
        chain.order = ring.chain_order
        chain.slot = ring.chain_slot
        chain.size = ring.chain_size
        chain.kept = True
        return chain

    def end(self, chain):
        """*chain* is out of use here; without a message its parts on flash are, too."""
        self.close(chain)
        self._chains.give(chain)

    def end_of(self, message):
        """The same for the chain of *message*, which goes."""
        chain = message.chain
        message.chain = None
        self.end(chain)

    def close(self, chain):
        """Without a message its parts on flash are out of use."""
        order = chain.order
        chain.order = 0
        if order and not chain.kept:
            self.drop(order, chain.slot)

    def drop(self, order, slot):
        """Nobody needs the body there any more, but those who are reading it."""
        for chain in self._all:
            if chain.order == order and chain.slot == slot:
                chain.kept = False  # so that the last of them drops it
                return
        drop_chain(self._ring, order, slot)

    # --- in ---

    def add(self, chain, buf, i, n):
        """*n* octets more of the body *chain*."""
        while n and not chain.lost:
            step = self.begin_part(chain, n)
            if step:
                self._ring.put(buf, i, step)
                self.end_part(chain, step)
                i += step
                n -= step
            else:
                self.close(chain)

    def begin_part(self, chain, n):
        """Begin a record of as many of *n* octets as there is room for: their number.

        They are put into the ring, then end_part() is called. 0: no room, and *chain* is lost.
        """
        ring = self._ring
        room = ring.room() - 6
        if room < _LEAST:
            room = ring.largest - 6
        if n > room:
            n = room
        ring.chain_order = chain.order
        ring.chain_slot = chain.slot
        if not ring.begin(BODY, None, 0, n):
            chain.lost = True
            return 0
        if not chain.order:
            chain.order = ring.at_order
            chain.slot = ring.at_slot
        return n

    def end_part(self, chain, n):
        chain.size += n
        self._ring.end()
        self._appended()

    # --- out ---

    def read(self, cursor, chain, n, to, at):
        """Copy the next *n* octets of the body *chain* to *to* at *at*. False: it is damaged.

        cursor  where the next ones are: part_order and part_slot, the place of a record at or
                before the part, and part_at, the octets of it read already; 0 in all at first
        """
        ring = self._ring
        if not cursor.part_order:
            cursor.part_order = chain.order
            cursor.part_slot = chain.slot
            cursor.part_at = 0
        while n:
            if not ring.next_record(cursor.part_order, cursor.part_slot):
                return False
            cursor.part_order = ring.at_order
            cursor.part_slot = ring.at_slot
            step = 0
            if (
                ring.kind & TYPE == BODY
                and ring.chain_order == chain.order
                and ring.chain_slot == chain.slot
            ):
                step = ring.size - cursor.part_at
                if step > n:
                    step = n
                ring.read(cursor.part_at, to, at, step)
                cursor.part_at += step
                at += step
                n -= step
                if cursor.part_at < ring.size:
                    continue
            cursor.part_slot = ring.slot_behind()
            cursor.part_at = 0
        return True

    def read_at(self, chain, i, n, to, scratch):
        """Copy *n* octets of the body *chain* from *i* to *to*. False: it is damaged.

        scratch  a buffer for the octets before
        """
        cursor = Cursor()
        while i:
            step = min(i, len(scratch))
            if not self.read(cursor, chain, step, scratch, 0):
                return False
            i -= step
        return self.read(cursor, chain, n, to, 0)
