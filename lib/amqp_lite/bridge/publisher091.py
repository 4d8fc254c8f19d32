"""The channel of an uplink: publishes with confirms. See uplink.py for what it is asked.

A message goes upstream as it is, but for its properties: some headers and an id are added, what is
left of its time to live takes the place of all of it, user-id stays here.
"""

import struct

from ..broker.message import AMQP10
from ..compat import TOO_LARGE, const, copy, equal, load, ticks_diff, u16, u32
from ..errors import CommandInvalid, PreconditionFailed, SyntaxFailure
from ..log import log
from ..v091.codec import milliseconds, skip_value
from ..v091.content import GROWTH
from .link091 import Link, queue_step

_METHOD = const(1)
_HEADER = const(2)
_FRAME_END = const(0xCE)
_BASIC = const(60)
_EXCHANGE_DECLARE = const(0x0028000A)
_EXCHANGE_DECLARE_OK = const(0x0028000B)
_BASIC_PUBLISH = const(0x003C0028)
_BASIC_RETURN = const(0x003C0032)
_BASIC_ACK = const(0x003C0050)
_BASIC_NACK = const(0x003C0078)
_CONFIRM_SELECT = const(0x0055000A)
_CONFIRM_SELECT_OK = const(0x0055000B)
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
_EXCHANGE_KINDS = ("direct", "topic", "fanout", "headers")


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
            steps.append(queue_step(key, how))
        elif how == "passive" and exchange:
            steps.append((
                _EXCHANGE_DECLARE, _EXCHANGE_DECLARE_OK,
                (0, exchange, b"direct", True, False, False, False, False, {}),
            ))  # fmt: skip
        elif how == "passive" and exchange == b"" and key:
            steps.append(queue_step(key, how))
        return steps

    def _opened(self):
        self._published = 0

    def _forget(self):
        self._returning = False
        self._unread = 0

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
        if message.flags & AMQP10:
            size += GROWTH * message.properties
        return self.flowing and self.connection.output.fits(size)

    def is_sending(self):
        return self.connection.output.body is not None

    def read(self, message):
        broker = self.connection.broker
        buf = broker.scratch
        i = message.head
        n = message.properties
        self._start = 0
        self._size = message.body
        self._block = broker.pool.read(message.first, 0, i + n, buf, 0)
        if message.flags & AMQP10:
            convert = load("amqp_lite.convert")
            other = convert.as_v091(broker, message)
            if i + len(other.head) > len(buf):
                log.warning("properties of %d octets are left out upstream", len(other.head))
                other.head = convert.write_properties({})
            self._start = other.start
            self._size = other.size
            self._block = broker.pool.block_before(message, i + n + other.start)
            n = len(other.head)
            copy(buf, i, other.head, 0, n)
        self._length = i + n
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
        if start + self._length + uplink.more(message) > output.size:
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
        struct.pack_into(">BHIHHQ", to, header, _HEADER, self.number, 0, _BASIC, 0, self._size)
        at = self._write_properties(flight.entry, head, message.head, to, header + 19)
        if at - header + 1 > client.frame_max or not at:
            return False
        struct.pack_into(">I", to, header + 3, at - header - 7)
        to[at] = _FRAME_END
        flight.tag = self._published = self._published + 1
        output.send_body(self.number, message, at + 1, self._block, self._start, self._size)
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
            at = self._write_expiration(entry, bytes(buf[i + 1 : i + n]), to, at)
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

    def _write_expiration(self, entry, digits, to, at):
        """What is left of a time to live of so many ms, of which it lived here some."""
        try:
            own = milliseconds(digits)
        except PreconditionFailed:  # longer than what is counted here
            to[at] = len(digits)
            copy(to, at + 1, digits, 0, len(digits))
            return at + 1 + len(digits)
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
