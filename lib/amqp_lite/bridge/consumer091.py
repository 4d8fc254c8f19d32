"""The channel of a downlink: consumes. See downlink.py for what it is told."""

from ..compat import TOO_LARGE, const, u16, u32
from ..errors import AMQPError, NotFound, SyntaxFailure, UnexpectedFrame
from ..v091.content import ContentReader
from ..v091.methods import read_arguments
from .link091 import Link, queue_step

_QUEUE_BIND = const(0x00320014)
_QUEUE_BIND_OK = const(0x00320015)
_BASIC_QOS = const(0x003C000A)
_BASIC_QOS_OK = const(0x003C000B)
_BASIC_CONSUME = const(0x003C0014)
_BASIC_CONSUME_OK = const(0x003C0015)
_BASIC_CANCEL = const(0x003C001E)
_BASIC_CANCEL_OK = const(0x003C001F)
_BASIC_DELIVER = const(0x003C003C)
_BASIC_ACK = const(0x003C0050)
_BASIC_REJECT = const(0x003C005A)
_BASIC_NACK = const(0x003C0078)


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
            steps.append(queue_step(name, downlink.declare))
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
        self._unread = 0
        self.connection.forget_taker(self)
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
