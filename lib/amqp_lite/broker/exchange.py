"""Exchanges and bindings, and which of them match."""

from ..compat import const, equal
from .topic import topic_match

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
