"""Exchanges and bindings, and which of them match."""

from ..compat import const, equal, find_octet

DEFAULT = const(0)
DIRECT = const(1)
FANOUT = const(2)
TOPIC = const(3)
HEADERS = const(4)
KINDS = {b"direct": DIRECT, b"fanout": FANOUT, b"topic": TOPIC, b"headers": HEADERS}
PREDECLARED = (
    (b"", DEFAULT),
    (b"amq.direct", DIRECT),
    (b"amq.fanout", FANOUT),
    (b"amq.topic", TOPIC),
    (b"amq.headers", HEADERS),
    (b"amq.match", HEADERS),
)

_DOT = const(0x2E)
_STAR = const(0x2A)
_HASH = const(0x23)


class Exchange:
    def __init__(self):
        self.next = None  # in the table of free ones
        self.bindings = []  # those it is the source of
        self.reset(b"", DIRECT, {})

    def reset(self, name, kind, arguments):
        self.name = name
        self.kind = kind
        self.arguments = arguments
        self.alternate = arguments.get(b"alternate-exchange")
        self.durable = False
        self.auto_delete = False
        self.internal = False
        self.defined_order = 0  # place of its definition in the store; 0: it has none
        self.defined_slot = 0
        self.visited = 0  # by the route being resolved, see route.py


class Binding:
    """From an exchange to a queue or another exchange."""

    __slots__ = (
        "next", "source", "destination", "to_exchange", "key", "arguments",
        "defined_order", "defined_slot",
    )  # fmt: skip

    def __init__(self):
        self.next = None  # in the table of free ones
        self.source = None
        self.destination = None
        self.to_exchange = False
        self.key = b""
        self.arguments = None
        self.defined_order = 0  # see Exchange
        self.defined_slot = 0

    def bind(self, source, destination, to_exchange, key, arguments):
        self.source = source
        self.destination = destination
        self.to_exchange = to_exchange
        self.key = key
        self.arguments = arguments
        self.defined_order = 0

    def is_same(self, destination, key, arguments):
        return self.destination is destination and self.key == key and self.arguments == arguments

    def matches_key(self, kind, buf, start, end):
        """Whether the routing key in buf[start:end] matches; not for a headers exchange."""
        if kind == FANOUT:
            return True
        if kind == TOPIC:
            return topic_match(self.key, buf, start, end)
        n = len(self.key)
        return n == end - start and equal(buf, start, self.key, n)


def topic_match(pattern, buf, start, end):
    """Whether the routing key in buf[start:end] matches the binding key *pattern*.

    `*` stands for one word, `#` for any number of words, none included (AMQP 0-9-1 §3.1.3.3).
    Only the last `#` passed is ever retried, which is enough: an earlier one could not match more.
    So the work is bounded by words of the key times words of the pattern. The pattern is not kept
    split: 255 octets can be 128 words, a dozen times as much memory.
    """
    size = len(pattern)
    p = 0 if size else 1  # first octet of the pattern's current word; size + 1: no word left
    i = start if end > start else end + 1  # the same in the key
    hash_p = -1  # the pattern word behind the last #, and the key word it was tried on
    hash_i = 0
    while True:
        if p <= size:
            word_end = find_octet(pattern, p, size, _DOT)
            n = word_end - p
            octet = pattern[p] if n == 1 else 0
            if octet == _HASH:
                p = word_end + 1
                if p > size:
                    return True
                hash_p = p
                hash_i = i
                continue
            if i <= end:
                stop = find_octet(buf, i, end, _DOT)
                k = 0
                if octet == _STAR:
                    k = n
                elif n == stop - i:
                    while k < n and buf[i + k] == pattern[p + k]:
                        k += 1
                else:
                    k = -1
                if k == n:
                    p = word_end + 1
                    i = stop + 1
                    continue
        elif i > end:
            return True
        if hash_p < 0 or hash_i > end:
            return False
        # Let the last # swallow one word more and try again behind it.
        hash_i = find_octet(buf, hash_i, end, _DOT) + 1
        p = hash_p
        i = hash_i
