"""The channels of the connection upstream: one that publishes, one that consumes.

Each is opened step by step, every step a method and the answer to wait for, and opened again some
time after upstream has closed it.
"""

import struct

from ..broker.queue import text
from ..compat import TOO_LARGE, const, copy, equal, ticks_diff, u16, u32
from ..errors import AMQPError, CommandInvalid, NotFound, SyntaxFailure, UnexpectedFrame
from ..log import log
from ..v091.codec import milliseconds, skip_value
from ..v091.content import ContentReader
from ..v091.methods import method_frame, read_arguments
from .backoff import BackOff

_METHOD = const(1)
_HEADER = const(2)
_FRAME_END = const(0xCE)
_BASIC = const(60)
_CHANNEL_OPEN = const(0x0014000A)
_CHANNEL_OPEN_OK = const(0x0014000B)
_CHANNEL_FLOW = const(0x00140014)
_CHANNEL_FLOW_OK = const(0x00140015)
_CHANNEL_CLOSE = const(0x00140028)
_CHANNEL_CLOSE_OK = const(0x00140029)
_EXCHANGE_DECLARE = const(0x0028000A)
_EXCHANGE_DECLARE_OK = const(0x0028000B)
_QUEUE_DECLARE = const(0x0032000A)
_QUEUE_DECLARE_OK = const(0x0032000B)
_QUEUE_BIND = const(0x00320014)
_QUEUE_BIND_OK = const(0x00320015)
_BASIC_QOS = const(0x003C000A)
_BASIC_QOS_OK = const(0x003C000B)
_BASIC_CONSUME = const(0x003C0014)
_BASIC_CONSUME_OK = const(0x003C0015)
_BASIC_CANCEL = const(0x003C001E)
_BASIC_CANCEL_OK = const(0x003C001F)
_BASIC_PUBLISH = const(0x003C0028)
_BASIC_RETURN = const(0x003C0032)
_BASIC_DELIVER = const(0x003C003C)
_BASIC_ACK = const(0x003C0050)
_BASIC_REJECT = const(0x003C005A)
_BASIC_NACK = const(0x003C0078)
_CONFIRM_SELECT = const(0x0055000A)
_CONFIRM_SELECT_OK = const(0x0055000B)

# Property flags, high to low: AMQP 0-9-1 §1.8.3.1.
_CONTENT_TYPE = const(0x8000)
_CONTENT_ENCODING = const(0x4000)
_HEADERS = const(0x2000)
_DELIVERY_MODE = const(0x1000)
_PRIORITY = const(0x0800)
_CORRELATION_ID = const(0x0400)
_REPLY_TO = const(0x0200)
_EXPIRATION = const(0x0100)
_MESSAGE_ID = const(0x0080)
_TIMESTAMP = const(0x0040)
_TYPE = const(0x0020)
_USER_ID = const(0x0010)
_APP_ID = const(0x0008)
_CLUSTER_ID = const(0x0004)

_DEVICE = b"x-edge-device"
_HOPS = b"x-edge-hops"
_ID = b"x-edge-message-id"

_CLOSED = const(0)
_OPENING = const(1)
_OPEN = const(2)
_CLOSING = const(3)  # we sent channel.close

_EXCHANGE_KINDS = ("direct", "topic", "fanout", "headers")


def close_reason(buf, i, end):
    """(code, text) of a channel.close or connection.close in buf[i:end].

    The text is no clean one always: brokers cut it at 255 octets.
    """
    if end - i < 7 or i + 3 + buf[i + 2] > end:
        raise SyntaxFailure("arguments are shorter than a close needs")
    code = u16(buf, i)
    octets = buf[i + 3 : i + 3 + buf[i + 2]]
    return code, "%d %s" % (code, printable(octets))


def printable(octets):
    """Octets of a peer, made safe for a log line."""
    return "".join([chr(o) if 32 <= o < 127 else "?" for o in octets])


class Link:
    """A channel. client: the Client; policy: an Uplink or a Downlink."""

    def __init__(self, client, policy):
        self.connection = client
        self.policy = policy
        self.number = 0
        self._state = _CLOSED
        self._steps = ()
        self.flowing = True
        self._unread = 0
        self._returning = False
        self._back_off = BackOff(client.upstream.retry_max_ms)
        self._asked_at = 0  # ticks

    # --- its life ---

    def open(self):
        self._forget()
        self.flowing = True  # channel.flow
        self._state = _OPENING
        self._steps = [(_CHANNEL_OPEN, _CHANNEL_OPEN_OK, (b"",))] + self._set_up()
        self._next_step()

    def _next_step(self):
        self._asked_at = self.connection.broker.now
        method, _, arguments = self._steps[0]
        self.connection.send(self.number, method, arguments)

    def lost(self):
        """The connection is gone."""
        self._forget()
        self._state = _CLOSED
        self._back_off.worked()
        self.policy.closed()

    def restart(self):
        """Open the channel anew."""
        self._forget()
        self.policy.link = None
        self._state = _CLOSING
        self._asked_at = self.connection.broker.now
        self.connection.send(self.number, _CHANNEL_CLOSE, (200, b"again", 0, 0))

    def tick(self, now):
        """ms to the next look."""
        if self._state == _CLOSED and self._back_off.failures:
            left = self._back_off.left(now)
            if left:
                return left
            self.open()
        elif self.connection.upstream.blocked:
            self._asked_at = now  # nobody answers then
        elif self._state in (_OPENING, _CLOSING):
            if ticks_diff(now, self._asked_at) > self.connection.upstream.timeout_ms:
                self.connection.fail(501, "channel %d is not answered" % self.number)
        return 1000

    def _failed(self, code, why):
        """Upstream closed the channel: it is opened again, later each time."""
        self._forget()
        self._state = _CLOSED
        self._back_off.failed(self.connection.broker.now)
        log.warning("%s: %s: %s", self.connection.name, text(self.policy.queue_name), why)

    # --- methods ---

    def on_method(self, method, buf, i, end):
        if method == _CHANNEL_CLOSE:
            code, reason = close_reason(buf, i, end)
            self.connection.output.drop_body(self.number)
            self.connection.output.put(
                self.number, method_frame(self.number, _CHANNEL_CLOSE_OK, ())
            )
            if self._state == _CLOSING:
                return True  # both at once: its close-ok comes
            was_open = self._state == _OPEN
            self._failed(code, reason)
            self._closed(code, reason, was_open)
        elif self._state == _CLOSING:
            if method == _CHANNEL_CLOSE_OK:
                self.open()
        elif self._state == _OPENING:
            if method != self._steps[0][1]:
                raise CommandInvalid("method %d.%d is not due" % (method >> 16, method & 0xFFFF))
            self._steps.pop(0)
            if self._steps:
                self._next_step()
            else:
                self._state = _OPEN
                self._opened()
                self.policy.opened(self)
        elif method == _CHANNEL_FLOW:
            self.flowing = read_arguments("b", buf, i, end)[0]
            self.connection.upstream.wanted = True
            self.connection.send(self.number, _CHANNEL_FLOW_OK, (self.flowing,))
        elif self._state == _OPEN:
            self._on_method(method, buf, i, end)
        return True

    def _is_expected(self, due):
        """Whether content on this channel is ours to read; while it is closed, none is.

        Raises CommandInvalid when it is open and nothing is *due*.
        """
        if self._state == _OPEN and not due:
            raise CommandInvalid("content on channel %d that nobody announced" % self.number)
        return self._state == _OPEN

    def _unknown(self, method):
        raise CommandInvalid("method %d.%d on channel %d" % (
            method >> 16, method & 0xFFFF, self.number
        ))  # fmt: skip


def _declare_queue(name, how):
    """The step that makes a queue, or sees that it is there."""
    arguments = {"x-queue-type": "quorum"} if how == "quorum" else {}
    passive = how == "passive"
    return (
        _QUEUE_DECLARE, _QUEUE_DECLARE_OK,
        (0, name, passive, not passive, False, False, False, arguments),
    )  # fmt: skip


class PublishLink(Link):
    """Publishes for an uplink, with confirms. See uplink.py for what it is asked."""

    def _set_up(self):
        uplink = self.policy
        steps = [(_CONFIRM_SELECT, _CONFIRM_SELECT_OK, (False,))]
        exchange = uplink.exchange.constant
        key = uplink.routing_key.constant
        how = uplink.declare
        if how in _EXCHANGE_KINDS:
            steps.append((
                _EXCHANGE_DECLARE, _EXCHANGE_DECLARE_OK,
                (0, exchange, how.encode(), False, True, False, False, False, {}),
            ))  # fmt: skip
        elif how in ("classic", "quorum"):
            steps.append(_declare_queue(key, how))
        elif how == "passive" and exchange:
            steps.append((
                _EXCHANGE_DECLARE, _EXCHANGE_DECLARE_OK,
                (0, exchange, b"direct", True, False, False, False, False, {}),
            ))  # fmt: skip
        elif how == "passive" and exchange == b"" and key:
            steps.append(_declare_queue(key, how))
        return steps

    def _opened(self):
        self._published = 0

    def _forget(self):
        self._returning = False  # a header comes next
        self._unread = 0  # octets of a body that nobody wants: we have it

    def _closed(self, code, why, was_open):
        # Without an exchange of its own for each message, it is not the message's fault that
        # upstream has none, or that we may not write to it.
        by_message = was_open and (code not in (403, 404) or self.policy.exchange.constant is None)
        if by_message:
            self._back_off.worked()
            self._back_off.failed(self.connection.broker.now)
        self.policy.channel_failed(why, by_message)

    def fits(self, message, more):
        size = message.head + message.properties + message.body + more
        return self.flowing and self.connection.output.fits(size)

    def is_sending(self):
        return self.connection.output.body is not None

    def read(self, message):
        broker = self.connection.broker
        buf = broker.scratch
        self._block = broker.pool.read(message.first, 0, message.head + message.properties, buf, 0)
        i = message.head
        self._hops = 0
        self._device_at = -1  # of the field, when there is one
        flags = u16(buf, i)
        if not flags & _HEADERS:
            return 0
        i += 2
        if flags & _CONTENT_TYPE:
            i += 1 + buf[i]
        if flags & _CONTENT_ENCODING:
            i += 1 + buf[i]
        stop = i + 4 + u32(buf, i)
        i += 4
        while i < stop:
            at = i + 1 + buf[i]
            if _is_named(buf, i, _HOPS) and buf[at] == 0x49:
                self._hops = 0 if buf[at + 1] & 0x80 else u32(buf, at + 1)
            elif _is_named(buf, i, _DEVICE) and buf[at] == 0x53:
                self._device_at = at
            i = skip_value(buf, at)
        device = self.policy.device
        at = self._device_at
        if self._hops and at >= 0 and u32(buf, at + 1) == len(device):
            if equal(buf, at + 5, device, len(device)):
                return -1
        return self._hops

    def send(self, flight):
        """Publish the message of *flight*, which read() has read."""
        client = self.connection
        output = client.output
        message = flight.entry.message
        uplink = self.policy
        head = client.broker.scratch
        to = output.buffer
        start = output.pending
        # The longest it may be has to be there, or nothing is written behind the buffer's end.
        if start + message.head + message.properties + uplink.more(message) > output.size:
            return False
        struct.pack_into(">BHIIH", to, start, _METHOD, self.number, 0, _BASIC_PUBLISH, 0)
        at = uplink.exchange.write(head, 0, to, start + 13)
        if at:
            at = uplink.routing_key.write(head, 0, to, at)
        if not at:
            return False
        to[at] = uplink.mandatory
        struct.pack_into(">I", to, start + 3, at + 1 - start - 7)
        to[at + 1] = _FRAME_END
        header = at + 2
        struct.pack_into(">BHIHHQ", to, header, _HEADER, self.number, 0, _BASIC, 0, message.body)
        at = self._write_properties(flight.entry, head, message.head, to, header + 19)
        if at - header + 1 > client.frame_max or not at:
            return False
        struct.pack_into(">I", to, header + 3, at - header - 7)
        to[at] = _FRAME_END
        flight.tag = self._published = self._published + 1
        output.send_body(self.number, message, at + 1, self._block)
        output.mark(flight)
        return True

    def settled(self, flight):
        self.connection.output.prove(flight)

    def _write_properties(self, entry, buf, i, to, at):
        """Write the properties in *buf* at *i* to *to* at *at*, as upstream gets them.

        The index behind them; 0: a header would be too long.
        """
        flags = u16(buf, i)
        named = flags & _MESSAGE_ID
        ours = (flags | _HEADERS | _MESSAGE_ID) & ~(_USER_ID | _CLUSTER_ID)
        struct.pack_into(">H", to, at, ours)
        i += 2
        at += 2
        n = 0
        if flags & _CONTENT_TYPE:
            n = 1 + buf[i]
        if flags & _CONTENT_ENCODING:
            n += 1 + buf[i + n]
        copy(to, at, buf, i, n)
        i += n
        at += n
        end = i
        if flags & _HEADERS:
            end = i + 4 + u32(buf, i)
            i += 4
        at = self._write_headers(entry, named, buf, i, end, to, at)
        if not at:
            return 0
        i = end
        n = 0
        if flags & _DELIVERY_MODE:
            n += 1
        if flags & _PRIORITY:
            n += 1
        if flags & _CORRELATION_ID:
            n += 1 + buf[i + n]
        if flags & _REPLY_TO:
            n += 1 + buf[i + n]
        copy(to, at, buf, i, n)
        i += n
        at += n
        if flags & _EXPIRATION:
            n = 1 + buf[i]
            at = self._write_expiration(entry, milliseconds(bytes(buf[i + 1 : i + n])), to, at)
            i += n
        if named:
            n = 1 + buf[i]
            copy(to, at, buf, i, n)
            i += n
            at += n
        else:
            end = self.policy.write_id(entry, to, at + 1)
            to[at] = end - at - 1
            at = end
        n = 0
        if flags & _TIMESTAMP:
            n += 8
        if flags & _TYPE:
            n += 1 + buf[i + n]
        copy(to, at, buf, i, n)
        i += n
        at += n
        if flags & _USER_ID:
            i += 1 + buf[i]  # upstream would compare it with our user
        if flags & _APP_ID:
            n = 1 + buf[i]
            copy(to, at, buf, i, n)
            at += n
        return at

    def _write_headers(self, entry, named, buf, i, end, to, at):
        """The headers in buf[i:end] with ours, as a table. 0: one is too long."""
        uplink = self.policy
        start = at
        at += 4
        while i < end:
            following = skip_value(buf, i + 1 + buf[i])
            if not self._is_ours(buf, i):
                copy(to, at, buf, i, following - i)
                at += following - i
            i = following
        at = _write_name(_HOPS, 0x49, to, at)
        struct.pack_into(">I", to, at, self._hops + 1)
        at += 4
        if self._device_at < 0:
            at = _write_text(_DEVICE, uplink.device, to, at)
        if named:
            at = _write_name(_ID, 0x53, to, at)
            behind = uplink.write_id(entry, to, at + 4)
            struct.pack_into(">I", to, at, behind - at - 4)
            at = behind
        for name, template in uplink.headers:
            at = _write_name(name, 0x53, to, at)
            # A long string: the short one's length octet becomes the last of four.
            behind = template.write(buf, 0, to, at + 3)
            if not behind:
                return 0
            to[at] = to[at + 1] = to[at + 2] = 0
            at = behind
        struct.pack_into(">I", to, start, at - start - 4)
        return at

    def _is_ours(self, buf, i):
        """Whether the header at *i* is one that we write."""
        if _is_named(buf, i, _HOPS) or _is_named(buf, i, _ID):
            return True
        if self._device_at < 0 and _is_named(buf, i, _DEVICE):
            return True
        for name, _ in self.policy.headers:
            if _is_named(buf, i, name):
                return True
        return False

    def _write_expiration(self, entry, own, to, at):
        """What is left of a time to live of *own* ms, of which it lived here some."""
        queue_ttl = entry.queue.ttl_ms
        lived = own if queue_ttl < 0 or own < queue_ttl else queue_ttl
        if entry.expires >= 0:
            lived -= ticks_diff(entry.expires, self.connection.broker.now)
        left = b"%d" % max(own - max(lived, 0), 0)
        to[at] = len(left)
        copy(to, at + 1, left, 0, len(left))
        return at + 1 + len(left)

    # --- what comes back ---

    def _on_method(self, method, buf, i, end):
        if method == _BASIC_ACK or method == _BASIC_NACK:
            if end - i != 9:
                raise SyntaxFailure("basic.ack takes 9 octets of arguments, not %d" % (end - i))
            tag = u16(buf, i + 4) << 16 | u16(buf, i + 6)
            if buf[i] | buf[i + 1] | buf[i + 2] | buf[i + 3]:
                tag |= (u16(buf, i) << 16 | u16(buf, i + 2)) << 32
            if tag > self._published:
                raise CommandInvalid("a confirm of message %d, %d were sent" % (
                    tag, self._published
                ))  # fmt: skip
            multiple = buf[i + 8] & 1
            if multiple and not tag:
                tag = self._published
            self._back_off.worked()
            self.policy.confirmed(tag, multiple, method == _BASIC_NACK)
        elif method == _BASIC_RETURN:
            self._returning = True
        else:
            self._unknown(method)

    def on_header(self, buf, i, end):
        if self._is_expected(self._returning):
            self._returning = False
            if end - i < 14:
                raise SyntaxFailure("a content header of %d octets" % (end - i))
            self._unread = u32(buf, i + 8)
            self.connection.properties.scan(buf, i + 12, end)
            at, n = _find_id(buf, i + 12)
            flight = self.policy.find(buf, at, n)
            if flight is None:
                self.policy.unknown_return()
            else:
                flight.returned = True
        return True

    def on_long_header(self, size):
        if self._is_expected(self._returning):
            self._returning = False
            self._unread = TOO_LARGE  # how long its body is was not read
            self.policy.unknown_return()

    def taker(self, size):
        if self._is_expected(size <= self._unread):
            self._unread -= size
        return None


class ConsumeLink(Link, ContentReader):
    """Consumes for a downlink. See downlink.py for what it is told."""

    def __init__(self, client, policy):
        Link.__init__(self, client, policy)
        self._forget_content()
        self._head = bytearray(512)
        self._tag = 0
        self._header_due = False

    def _set_up(self):
        downlink = self.policy
        name = downlink.queue_name
        steps = [(_BASIC_QOS, _BASIC_QOS_OK, (0, downlink.prefetch, False))]
        if downlink.declare != "none":
            steps.append(_declare_queue(name, downlink.declare))
        for exchange, key in downlink.bindings:
            steps.append((_QUEUE_BIND, _QUEUE_BIND_OK, (0, name, exchange, key, False, {})))
        tag = b"amqp_lite " + self.connection.device
        steps.append((
            _BASIC_CONSUME, _BASIC_CONSUME_OK, (0, name, tag, False, False, False, False, {})
        ))  # fmt: skip
        return steps

    def _opened(self):
        self._header_due = False
        self._back_off.worked()

    def _forget(self):
        self._unread = 0  # octets of a body that nobody wants
        self.connection.forget_body(self)
        self._abandon()

    def _closed(self, code, why, was_open):
        self.policy.closed(why)

    # --- in ---

    def _on_method(self, method, buf, i, end):
        if method == _BASIC_DELIVER:
            self._on_deliver(buf, i, end)
        elif method == _BASIC_CANCEL:
            tag, nowait = read_arguments("sb", buf, i, end)
            if not nowait:
                self.connection.send(self.number, _BASIC_CANCEL_OK, (tag,))
            # Its queue was deleted, or has moved to another node: consume again, later.
            self.policy.closed("cancelled by upstream")
            self._back_off.failed(self.connection.broker.now)
            self.restart()
        else:
            self._unknown(method)

    def _on_deliver(self, buf, i, end):
        """basic.deliver in buf[i:end]: consumer tag, delivery tag, redelivered, head."""
        i += 1 + buf[i]
        if i + 11 > end:
            raise SyntaxFailure("arguments are shorter than basic.deliver needs")
        self._tag = u16(buf, i + 4) << 16 | u16(buf, i + 6)
        if buf[i] | buf[i + 1] | buf[i + 2] | buf[i + 3]:
            self._tag |= (u16(buf, i) << 16 | u16(buf, i + 2)) << 32
        again = buf[i + 8]
        i += 9
        key = i + 1 + buf[i]
        if key >= end or key + 1 + buf[key] != end:
            raise SyntaxFailure("arguments do not fill basic.deliver")
        downlink = self.policy
        broker = self.connection.broker
        if self._header_due or self.receiving:
            raise UnexpectedFrame("a delivery inside of another one")
        self._header_due = True
        if downlink.passes_over(self._tag, again):
            return
        head = self._head
        n = downlink.exchange.write(buf, i, head, 0)
        if n:
            n = downlink.routing_key.write(buf, i, head, n)
        if not n:
            downlink.unreadable(self._tag, "its local address is longer than 255 octets")
            return
        try:
            if not self._begin(head, 0, n, broker.route(head, 0, n)):
                downlink.hold(self._tag, "no memory for what came")
        except NotFound as error:
            downlink.unreadable(self._tag, error.text)

    def _is_header_due(self):
        if not self._is_expected(self._header_due):
            return False
        self._header_due = False
        self._unread = 0
        return self.message is not None

    def on_header(self, buf, i, end):
        if end - i < 14:
            raise SyntaxFailure("a content header of %d octets" % (end - i))
        if not self._is_header_due():
            self._unread = u32(buf, i + 8)
            return True
        try:
            if self._read_header(buf, i, end):
                return True
            self.policy.hold(self._tag, "no memory for what came")
        except AMQPError as error:
            self.policy.unreadable(self._tag, error.text)
        self._abandon()
        self._unread = u32(buf, i + 8)
        return True

    def on_long_header(self, size):
        if self._is_header_due():
            self.policy.unreadable(
                self._tag, "properties of %d octets are more than this broker reads" % size
            )
            self._abandon()
        self._unread = TOO_LARGE  # how long its body is was not read

    def taker(self, size):
        left = self._unread if self.message is None else self.body_left
        if not self._is_expected(not self._header_due and size <= left):
            return None
        if self.message is not None:
            return self
        self._unread -= size
        return None

    def _check_properties(self, buf):
        pass

    def _new_reply_to(self, buf, i):
        address = self.policy.reply_to
        n = len(address) + buf[i]
        if n > 255:
            return None  # nobody can answer it
        return bytes((n,)) + address + bytes(buf[i + 1 : i + 1 + buf[i]])

    def _received(self):
        message = self.message
        queues = self._publish()
        self.connection.broker.pool.release(message)
        self.policy.arrived(self._tag, queues)

    # --- what the downlink says ---

    def accept(self, tag):
        self.connection.send(self.number, _BASIC_ACK, (tag, True))

    def reject(self, tag):
        self.connection.send(self.number, _BASIC_REJECT, (tag, False))

    def release(self, tag):
        self.connection.send(self.number, _BASIC_NACK, (tag, True, True))


def _is_named(buf, i, name):
    """Whether the field at *i* is called *name*."""
    return buf[i] == len(name) and equal(buf, i + 1, name, len(name))


def _write_name(name, kind, to, at):
    to[at] = len(name)
    copy(to, at + 1, name, 0, len(name))
    at += 1 + len(name)
    to[at] = kind
    return at + 1


def _write_text(name, value, to, at):
    at = _write_name(name, 0x53, to, at)
    struct.pack_into(">I", to, at, len(value))
    copy(to, at + 4, value, 0, len(value))
    return at + 4 + len(value)


def _find_id(buf, i):
    """(index, octets) of the id we gave the message whose properties are at *i*; 0 octets: none.

    It is in the header when the publisher gave it one, too, else the message-id.
    """
    flags = u16(buf, i)
    i += 2
    if flags & _CONTENT_TYPE:
        i += 1 + buf[i]
    if flags & _CONTENT_ENCODING:
        i += 1 + buf[i]
    if flags & _HEADERS:
        stop = i + 4 + u32(buf, i)
        i += 4
        while i < stop:
            at = i + 1 + buf[i]
            if _is_named(buf, i, _ID) and buf[at] == 0x53:
                return at + 5, u32(buf, at + 1)
            i = skip_value(buf, at)
    if flags & _DELIVERY_MODE:
        i += 1
    if flags & _PRIORITY:
        i += 1
    for flag in (_CORRELATION_ID, _REPLY_TO, _EXPIRATION):
        if flags & flag:
            i += 1 + buf[i]
    if flags & _MESSAGE_ID:
        return i + 1, buf[i]
    return i, 0
