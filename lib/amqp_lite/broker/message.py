"""The message pool: every message in RAM, as chains of equal blocks in one run of octets.

A message is stored in the form it arrived in, one run of octets over its blocks:

    | exchange, routing key | properties | body |
    0                       head         head + properties

Exchange and routing key are short strings (one length octet each), properties the raw property
flags and list of its protocol. Nothing here reads them but the length octets. Room for the whole
message is reserved before its body comes, so that two half-received messages can never wait for
each other's blocks.
"""

from array import array

from ..compat import MICROPYTHON, const, copy, zeros
from .table import Table

# Ticks of a board wrap after 2**30 ms: an age must stay below half of that (6.2 days).
MAX_TTL_MS = 0x1FFFFFFF if MICROPYTHON else 0xFFFFFFFF

# Message.flags:
PERSISTENT = const(1)
FETCHED = const(2)  # it came from the store
AMQP10 = const(4)  # properties and body are sections of AMQP 1.0, else those of 0-9-1


class Message:
    """One message in RAM. Its numbers count octets unless they say otherwise."""

    __slots__ = (
        "next", "first", "last", "size", "head", "properties", "body", "reserved", "references",
        "flags", "ttl_ms", "chain",
    )  # fmt: skip

    def __init__(self):
        self.next = None  # in the table of free ones, or in a list of returned ones
        self.first = 0  # block
        self.last = 0  # block
        self.size = 0  # written so far
        self.head = 0  # of exchange and routing key with their length octets
        self.properties = 0
        self.body = 0
        self.reserved = 0  # blocks promised and not taken yet
        self.references = 0  # queues (and the receiving channel) that hold it
        self.flags = 0
        self.ttl_ms = -1  # -1: lives for ever
        self.chain = None  # the body is not here but in the store, see bodies.py


class Pool:
    """The blocks and the messages that live in them."""

    def __init__(self, messages, blocks, block_size):
        self.messages = Table(Message, messages, "message")
        self.octets = zeros(blocks * block_size)
        self.view = memoryview(self.octets)
        self.ended = None  # called with a message that had a chain, when it is released
        self.block_size = block_size
        self.blocks = blocks
        self.available = blocks  # neither taken nor reserved
        # Of them, and of the messages, kept for publishers by what is fetched from the store, and
        # by publishers for one that is fetched, so that none can wait for the other for ever.
        self.spare = 0
        self.spare_messages = 0
        self._fetched = 0  # messages
        self._next = array("H" if blocks < 65536 else "I", range(1, blocks + 1))
        self._free = 0

    def begin(self, size):
        """A message with room for *size* octets; None when there is no room for it now."""
        blocks = (size + self.block_size - 1) // self.block_size
        if self._fetched:
            if blocks > self.available or not self.messages.free:
                return None
        elif blocks > self.available - self.spare or self.messages.free <= self.spare_messages:
            return None
        return self._begin(blocks)

    def fetch(self, size):
        """The same for one from the store."""
        blocks = (size + self.block_size - 1) // self.block_size
        available = self.available
        free = self.messages.free
        if self._fetched:
            available -= self.spare
            free -= self.spare_messages
        if blocks > available or free <= 0:
            return None
        self._fetched += 1
        return self._begin(blocks)

    def has_spare(self, more):
        """Whether there is what publishing and fetching need, and *more* times the same."""
        many = more + (1 if self._fetched else 2)
        return self.available >= many * self.spare and (
            self.messages.free >= many * self.spare_messages
        )

    def _begin(self, blocks):
        message = self.messages.take()
        self.available -= blocks
        message.reserved = blocks
        message.size = 0
        message.references = 1
        message.flags = 0
        message.ttl_ms = -1
        message.chain = None
        return message

    def extend(self, message, size):
        """Promise *message* room for *size* octets more than it has; False when there is none."""
        whole = (message.size + size + self.block_size - 1) // self.block_size
        has = message.reserved + (message.size + self.block_size - 1) // self.block_size
        if whole - has > (self.available if self._fetched else self.available - self.spare):
            return False
        if whole > has:
            self.available -= whole - has
            message.reserved += whole - has
        return True

    def write(self, message, buf, i, n):
        """Append the *n* octets of *buf* from *i*. The room was promised before."""
        block_size = self.block_size
        at = message.size % block_size
        message.size += n
        while n:
            if not at:
                block = self._free
                self._free = self._next[block]
                if message.size == n:
                    message.first = block
                else:
                    self._next[message.last] = block
                message.last = block
                message.reserved -= 1
            step = block_size - at
            if step > n:
                step = n
            copy(self.octets, message.last * block_size + at, buf, i, step)
            i += step
            n -= step
            at = 0

    def read(self, block, position, n, to, at):
        """Copy *n* octets of a message from *position* to *to* at *at*.

        block  the one that holds the octet before *position* (the first one for position 0)

        Returns the block that holds the last octet copied, to go on from.
        """
        block_size = self.block_size
        within = position % block_size
        if n and position and not within:
            block = self._next[block]
        while within + n > block_size:
            step = block_size - within
            copy(to, at, self.view, block * block_size + within, step)
            block = self._next[block]
            at += step
            n -= step
            within = 0
        copy(to, at, self.view, block * block_size + within, n)
        return block

    def following(self, block):
        """The block behind *block* in the chain of a message."""
        return self._next[block]

    def block_before(self, message, position):
        """The block of *message* that read() starts from for any *position*."""
        block = message.first
        for _ in range((position - 1) // self.block_size if position else 0):
            block = self._next[block]
        return block

    def read_at(self, message, position, n, to, at):
        """Copy *n* octets of *message* from any *position* to *to* at *at*."""
        return self.read(self.block_before(message, position), position, n, to, at)

    def release(self, message):
        """Give up one reference; the last one frees the blocks."""
        message.references -= 1
        if message.references:
            return
        size = message.size
        blocks = message.reserved
        if size:
            self._next[message.last] = self._free
            self._free = message.first
            blocks += (size + self.block_size - 1) // self.block_size
        self.available += blocks
        if message.flags & FETCHED:
            self._fetched -= 1
        if message.chain is not None:
            self.ended(message)
        self.messages.give(message)
