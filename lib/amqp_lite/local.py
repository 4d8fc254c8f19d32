"""The broker used by code on the same board, without a socket."""

from .broker.message import AMQP10, PERSISTENT
from .broker.queue import text
from .compat import load, print_error
from .errors import ContentTooLarge, ResourceLimitExceeded
from .log import log
from .v091.codec import milliseconds, shortstr
from .v091.properties import read_properties, write_properties

_AT_ONCE = 16  # messages one subscriber gets in one step


class Received:
    """A message as a callback sees it.

    body         bytes
    exchange, routing_key  str
    properties   dict by the names of the basic class (`headers`, `message_id` ...); strings in it
                 are octets
    redelivered  bool
    """

    def __init__(self, broker, message, redelivered):
        head = bytearray(message.head)
        broker.pool.read_at(message, 0, message.head, head, 0)
        key = 1 + head[0]
        self.exchange = text(bytes(head[1:key]))
        self.routing_key = text(bytes(head[key + 1 :]))
        self.properties, start, size = properties_of(broker, message)
        self.body = bytes(broker.body_octets(message, start, size))
        self.redelivered = redelivered


def properties_of(broker, message):
    """(properties as read_properties() has them, index of the body in what is stored, octets)."""
    if message.flags & AMQP10:
        other = load("amqp_lite.convert").as_v091(broker, message)
        return read_properties(other.head, 0), other.start, other.size
    octets = bytearray(message.properties)
    broker.pool.read_at(message, message.head, message.properties, octets, 0)
    return read_properties(octets, 0), 0, message.body


def publish(broker, exchange, routing_key, body, properties):
    """Publish *body* (octets or str): the number of queues it went to.

    properties  dict by the names of the basic class, or None; delivery_mode 2 makes it persistent

    Raises NotFound for the exchange, ContentTooLarge, ResourceLimitExceeded when there is no
    memory for it or a queue is full and refuses it, PreconditionFailed or SyntaxFailure for
    properties that are none.
    """
    if isinstance(body, str):
        body = body.encode()
    properties = properties or {}
    head = shortstr(exchange) + shortstr(routing_key)
    encoded = write_properties(properties)
    ttl_ms = -1
    if properties.get("expiration") is not None:
        ttl_ms = milliseconds(shortstr(properties["expiration"])[1:])
    if len(encoded) > broker.properties_max or len(body) > broker.message_max:
        raise ContentTooLarge(
            "%d octets of properties and %d of body, at most %d and %d are taken"
            % (len(encoded), len(body), broker.properties_max, broker.message_max)
        )
    route = broker.route(memoryview(head), 0, len(head))
    persistent = properties.get("delivery_mode") == 2
    needed = broker.entries_for(route, route.stamp, persistent)
    if not broker.has_entries(needed):
        raise ResourceLimitExceeded("no room for another delivery")
    message = broker.pool.begin(len(head) + len(encoded) + len(body))
    if message is None:
        raise ResourceLimitExceeded("no room for a message of %d octets" % len(body))
    for octets in (head, encoded, body):
        broker.pool.write(message, memoryview(octets), 0, len(octets))
    message.head = len(head)
    message.properties = len(encoded)
    message.body = len(body)
    message.flags = PERSISTENT if persistent else 0
    message.ttl_ms = ttl_ms
    queues = broker.publish(message, route, route.stamp)
    broker.pool.release(message)
    if queues < 0:
        raise ResourceLimitExceeded("a queue is full")
    return queues


class Subscriber:
    """The sink of one node.subscribe(): calls back from step(), never from inside a publish."""

    def __init__(self, broker, queue, callback):
        self._broker = broker
        self._callback = callback
        self._left = 0
        self.consumer = queue.subscribe(self, b"local", False, False, 1)

    def pump(self):
        """Call back for what waits. True when there may be more."""
        if self.consumer is None:
            return False
        self._left = _AT_ONCE
        self.consumer.queue.dispatch()
        more = not self._left
        self._left = 0
        return more

    def accepts(self, consumer, message):
        return self._left > 0

    def deliver(self, consumer, entry):
        left = self._left - 1
        self._left = 0  # a callback that publishes to its own queue is not called inside itself
        queue = entry.queue
        self._broker.metrics.delivered += 1
        try:
            self._callback(Received(self._broker, entry.message, entry.tries > 0))
        except Exception as error:  # the application's, which may not stop the broker
            print_error(error, log.error)
            self._broker.metrics.callback_errors += 1
            # What was delivered before a restart, nobody knows: that does not count.
            tries = entry.tries - (entry.share >= 0 and entry.order <= self._broker.inherited)
            if tries <= 0 and self.consumer is not None:
                # Once more, in the next step; a second failure drops it.
                left = 0
                queue.requeue(entry)
                self._left = left
                return
        queue.settle(entry)
        self._left = left

    def cancelled(self, consumer):
        self.consumer = None
