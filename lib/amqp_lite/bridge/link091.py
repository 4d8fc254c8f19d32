"""A channel of the connection upstream: opened step by step, and again after upstream closed it.

Every step is a method and the answer to wait for. publisher091.py and consumer091.py are the two
kinds there are.
"""

from ..broker.queue import text
from ..compat import const, ticks_diff, u16
from ..errors import CommandInvalid, SyntaxFailure
from ..log import log, printable
from ..net.backoff import BackOff
from ..v091.methods import method_frame, read_arguments

_CHANNEL_OPEN = const(0x0014000A)
_CHANNEL_OPEN_OK = const(0x0014000B)
_CHANNEL_FLOW = const(0x00140014)
_CHANNEL_FLOW_OK = const(0x00140015)
_CHANNEL_CLOSE = const(0x00140028)
_CHANNEL_CLOSE_OK = const(0x00140029)
_QUEUE_DECLARE = const(0x0032000A)
_QUEUE_DECLARE_OK = const(0x0032000B)
_CLOSED = const(0)
_OPENING = const(1)
_OPEN = const(2)
_CLOSING = const(3)  # we sent channel.close


def close_reason(buf, i, end):
    """(code, text) of a channel.close or connection.close in buf[i:end].

    The text is no clean one always: brokers cut it at 255 octets.
    """
    if end - i < 7 or i + 3 + buf[i + 2] > end:
        raise SyntaxFailure("arguments are shorter than a close needs")
    code = u16(buf, i)
    octets = buf[i + 3 : i + 3 + buf[i + 2]]
    return code, "%d %s" % (code, printable(octets))


class Link:
    """A channel. client: the Client; policy: an Uplink or a Downlink."""

    def __init__(self, client, policy):
        self.connection = client
        self.policy = policy
        self.number = 0
        self._state = _CLOSED
        self._steps = ()  # of opening that are left: (method, the answer to wait for, arguments)
        self.flowing = True  # channel.flow
        self._unread = 0  # octets of a body that nobody wants
        self._returning = False  # the header of a returned message comes next
        self._back_off = BackOff(client.upstream.retry_max_ms)
        self._asked_at = 0  # ticks

    # --- its life ---

    def open(self):
        self._forget()
        self.flowing = True
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
        self.connection.upstream.look()
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


def queue_step(name, how):
    """The step that makes a queue, or sees that it is there."""
    arguments = {"x-queue-type": "quorum"} if how == "quorum" else {}
    passive = how == "passive"
    return (
        _QUEUE_DECLARE, _QUEUE_DECLARE_OK,
        (0, name, passive, not passive, False, False, False, arguments),
    )  # fmt: skip
