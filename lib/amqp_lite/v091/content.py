"""Taking in one message: a head, a content header and body frames, in this order.

Whoever receives messages on a channel is a ContentReader: the server's channel what clients
publish, the bridge what its upstream delivers. The message is built in the pool, its room promised
before its body comes; a long one for durable queues alone goes to the store as it comes.
"""

from ..broker.message import PERSISTENT
from ..compat import TOO_LARGE, const, u16, u32
from ..errors import ContentTooLarge, SyntaxFailure, UnexpectedFrame

_BASIC = const(60)
GROWTH = const(8)  # times the octets of AMQP 1.0 sections, at most, are more as 0-9-1 properties


class ContentReader:
    """Has `connection`, with `broker` and `properties`, and these methods of its own:

    _check_properties(buf)   after properties.scan(); may raise any AMQPError
    _new_reply_to(buf, i)    what takes the place of the reply-to, a short string at *i*: octets
                             with their length octet; None: it stays
    _received()              the message is whole: route it
    """

    def _forget_content(self):
        self.message = None  # being received
        self.receiving = False  # between a head and the end of its content
        self.body_left = 0
        self.progress = 0  # ticks of the last octets of `message`
        self._route = None
        self._stamp = 0
        self._promised = 0  # entries

    def _begin(self, buf, i, n, route):
        """Begin a message for *route*. False: no memory for it now.

        buf, i, n  octets of exchange and routing key as two short strings, one behind the other
        """
        broker = self.connection.broker
        message = broker.pool.begin(n)
        if message is None:
            return False
        broker.pool.write(message, buf, i, n)
        message.head = n
        message.properties = 0
        message.body = 0
        self.message = message
        self.receiving = True
        self.progress = broker.now
        self.body_left = -1
        self._route = route
        self._stamp = route.stamp
        return True

    def _read_header(self, buf, i, end):
        """The content header in buf[i:end]. False: no memory for the message now."""
        message = self.message
        if message is None or self.body_left != -1:
            raise UnexpectedFrame("a content header without a publish")
        if end - i < 14:
            raise SyntaxFailure("a content header of %d octets" % (end - i))
        if u16(buf, i) != _BASIC:
            raise UnexpectedFrame("content of class %d" % u16(buf, i))
        if u16(buf, i + 2):
            raise UnexpectedFrame("content of weight %d" % u16(buf, i + 2))
        connection = self.connection
        broker = connection.broker
        body = TOO_LARGE if u32(buf, i + 4) else u32(buf, i + 8)
        i += 12
        properties = connection.properties
        properties.scan(buf, i, end)
        stream = body > broker.small_max and self._is_streamed(body, properties.persistent)
        self._check_properties(buf)
        size = end - i
        reply = properties.reply_to
        reply_to = None
        if reply >= 0:
            reply_to = self._new_reply_to(buf, reply)
            if reply_to is not None:
                size += len(reply_to) - 1 - buf[reply]
        if size > broker.properties_most:
            raise ContentTooLarge("properties of %d octets with its reply-to" % size)
        needed = broker.entries_for(self._route, self._stamp, properties.persistent)
        chain = broker.store.bodies.take() if stream else None
        message.chain = chain
        if (
            not broker.has_entries(needed)
            or (stream and chain is None)
            or not broker.pool.extend(message, size if stream else size + body)
        ):
            if chain is not None:
                broker.store.bodies.end(chain)
                message.chain = None
            return False
        broker.promised += needed
        self._promised = needed
        message.flags = PERSISTENT if properties.persistent else 0
        message.ttl_ms = properties.ttl_ms
        message.properties = size
        message.body = body
        if reply_to is None:
            broker.pool.write(message, buf, i, size)
        else:
            behind = reply + 1 + buf[reply]
            broker.pool.write(message, buf, i, reply - i)
            broker.pool.write(message, reply_to, 0, len(reply_to))
            broker.pool.write(message, buf, behind, end - behind)
        self.body_left = body
        self.progress = broker.now
        if not body:
            self._received()
        return True

    def _is_streamed(self, body, persistent):
        """Whether a body of *body* octets is stored as it comes. Raises ContentTooLarge."""
        broker = self.connection.broker
        largest = broker.message_max
        if persistent and body > broker.stream_from:
            if broker.is_stored_only(self._route, self._stamp):
                if body <= broker.stored_max:
                    return True
                largest = max(largest, broker.stored_max)
        if body > largest:
            raise ContentTooLarge("the body is longer than the maximum of %d octets" % largest)
        return False

    def on_body(self, buf, i, n):
        """*n* octets of a body."""
        message = self.message
        broker = self.connection.broker
        if message.chain is None:
            broker.pool.write(message, buf, i, n)
        else:
            broker.store.bodies.add(message.chain, buf, i, n)
        self.body_left -= n

    def on_body_frame(self):
        """A body frame is whole."""
        self.progress = self.connection.broker.now
        if not self.body_left:
            self._received()

    def _take(self):
        """The whole message; it is the caller's now."""
        message = self.message
        self.message = None
        self.receiving = False
        self.connection.broker.promised -= self._promised
        self._promised = 0
        return message

    def _publish(self):
        """Route the whole message: it, and the queues it is in; -1: one of them refused it.

        The caller gives up the message's last reference.
        """
        return self.connection.broker.publish(self._take(), self._route, self._stamp)

    def _abandon(self):
        """Drop the half-received message."""
        broker = self.connection.broker
        if self.message is not None:
            broker.pool.release(self.message)
            broker.promised -= self._promised
            broker.freed = True
        self._promised = 0
        self.message = None
        self.receiving = False
        self.body_left = 0
