"""One AMQP 0-9-1 connection, the server's side.

Its face is that of engine.py.
"""

from .. import __version__
from ..compat import const, load, ticks_diff, u16
from ..engine import Engine
from ..errors import (
    AccessRefused,
    ChannelFailure,
    CommandInvalid,
    FrameError,
    NotAllowed,
    NotImplementedHere,
    UnexpectedFrame,
)
from ..log import INFO, log, printable
from .codec import Properties
from .frames import FrameReader
from .methods import CAPABILITIES, NOT_HERE, RECEIVED, read_arguments
from .output import Output

# Class and method ids: see methods.py.
_CONNECTION_START = const(0x000A000A)
_CONNECTION_START_OK = const(0x000A000B)
_CONNECTION_TUNE = const(0x000A001E)
_CONNECTION_TUNE_OK = const(0x000A001F)
_CONNECTION_OPEN = const(0x000A0028)
_CONNECTION_OPEN_OK = const(0x000A0029)
_CONNECTION_CLOSE = const(0x000A0032)
_CONNECTION_CLOSE_OK = const(0x000A0033)
_CONNECTION_BLOCKED = const(0x000A003C)
_CONNECTION_UNBLOCKED = const(0x000A003D)
_CHANNEL_OPEN = const(0x0014000A)
_CHANNEL_OPEN_OK = const(0x0014000B)
_CHANNEL_CLOSE = const(0x00140028)
_CHANNEL_CLOSE_OK = const(0x00140029)
_BASIC_PUBLISH = const(0x003C0028)
_BASIC_ACK = const(0x003C0050)
_BASIC_NACK = const(0x003C0078)

FRAME_MIN_SIZE = const(4096)  # AMQP 0-9-1 §4.2.3: the smallest frame_max anybody may ask for

_AWAIT_START_OK = const(0)
_AWAIT_TUNE_OK = const(1)
_AWAIT_OPEN = const(2)
_RUNNING = const(3)
_CLOSING = const(4)  # we sent connection.close and wait for close-ok
_CLOSED = const(5)

# state -> the one method the client may send now. AMQP 0-9-1 §2.2.4.
_EXPECTED = (_CONNECTION_START_OK, _CONNECTION_TUNE_OK, _CONNECTION_OPEN)

_SHORT_MS = const(200)  # how long a publish may wait for memory before we say connection.blocked
_CLOSE_MS = const(2000)  # how long we wait for close-ok
_HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"
# Reply codes that close a channel, not the connection. AMQP 0-9-1 §1.2 "soft errors".
_SOFT = (311, 403, 404, 405, 406)
_NAMES = {
    311: "CONTENT_TOO_LARGE", 403: "ACCESS_REFUSED", 404: "NOT_FOUND", 405: "RESOURCE_LOCKED",
    406: "PRECONDITION_FAILED", 501: "FRAME_ERROR", 502: "SYNTAX_ERROR",
    503: "COMMAND_INVALID", 504: "CHANNEL_ERROR", 505: "UNEXPECTED_FRAME", 506: "RESOURCE_ERROR",
    530: "NOT_ALLOWED", 540: "NOT_IMPLEMENTED", 541: "INTERNAL_ERROR",
}  # fmt: skip


class Connection(FrameReader):
    """
    broker    the model
    access    the users
    profile   numbers of limits.py
    channels  Table of Channel objects, shared by all connections
    vhosts    names connection.open may give
    """

    beat = (0, _HEARTBEAT_FRAME)
    too_much = FrameError

    def __init__(self, broker, access, profile, channels, vhosts):
        FrameReader.__init__(self, profile["receive_buffer"])
        self.broker = broker
        self.channel_table = channels
        self.output = Output(broker, profile["send_buffer"])
        self.properties = Properties()
        self.access = access
        self.vhosts = vhosts
        self._offer_channels = min(profile["channels"], 2047)
        self._offer_frame = profile["frame_max"]
        self._offer_heartbeat = profile["heartbeat"]
        self._login_octets = profile["login_bytes"]
        self.channels = {}
        self._reset()

    def _reset(self):
        self.state = _CLOSED
        self._user = None  # logged in, connection.open still to come
        self.address = ""
        self.name = ""  # what the peer calls itself, for the log
        self.output.reset()
        self.reset(self._offer_frame)
        self.channel_max = self._offer_channels
        self.unconfirmed = False  # a publish waits for its confirm
        self._failures = self.broker.failures
        self._short = False  # a publish waits for memory,
        self._short_since = 0  # ticks
        self._blocked = False  # and we said connection.blocked
        self._can_block = False  # capabilities of the peer
        self.can_cancel = False
        self._can_fail = False

    # --- the face ---

    def open(self, address, deadline, subject=None):
        Engine.open(self, address, deadline, subject)
        self.broker.metrics.connections_opened += 1
        self.output.reply(0, _CONNECTION_START, (
            0, 9,
            {
                "product": "amqp_lite", "version": __version__, "platform": "Python",
                "capabilities": CAPABILITIES,
            },
            " ".join(self.access.mechanisms(subject) + ["AMQPLAIN"]).encode(), b"en_US",
        ))  # fmt: skip

    def resume(self):
        if self.stalled:
            for number in self.channels:
                self.channels[number].progress = self.broker.now
            Engine.resume(self)
        if not self.stalled:
            self._short = False
            if self._blocked:
                self._blocked = False
                if self._can_block:
                    self.output.reply(0, _CONNECTION_UNBLOCKED, ())

    def pump(self):
        """Write what waited for room, for a commit or for a consumer to read on."""
        output = self.output
        flowing = output.pump()
        if self._failures != self.broker.failures:
            self._failures = self.broker.failures
            for number in self.channels:
                self.channels[number].lost = self.channels[number].accepted
                self.channels[number].lose_commit()
        if self.unconfirmed and self.broker.committed:
            self._confirm()
        if flowing and output.starved:
            output.starved = False
            for number in self.channels:
                for consumer in self.channels[number].consumers:
                    consumer.queue.dispatch()

    def _confirm(self):
        """Acknowledge what the store has committed, one frame a channel; refuse what it lost."""
        waiting = False
        for number in self.channels:
            channel = self.channels[number]
            if not channel.confirm_commit():
                waiting = True
            if channel.confirmed != channel.accepted and not channel.closing:
                lost = channel.lost
                if channel.confirmed < lost:
                    if not self.output.confirm(number, lost, False):
                        waiting = True
                        continue
                    channel.confirmed = lost
                if channel.confirmed == channel.accepted:
                    continue
                if self.output.confirm(number, channel.accepted, True):
                    self.broker.metrics.confirmed += channel.accepted - channel.confirmed
                    channel.confirmed = channel.accepted
                else:
                    waiting = True
        self.unconfirmed = waiting

    def tick(self):
        wait = Engine.tick(self)
        if self.state == _RUNNING and self._short and not self._blocked:
            if ticks_diff(self.broker.now, self._short_since) >= _SHORT_MS:
                self._say_blocked()
            wait = min(wait, _SHORT_MS)
        return wait

    def _overdue(self, now):
        overdue = self._late(now, self._beat_ms)
        if overdue is not None:
            return overdue
        patience = max(2 * self._beat_ms, 60000)
        for number in self.channels:
            channel = self.channels[number]
            if not self.stalled:
                if channel.message is not None and ticks_diff(now, channel.progress) > patience:
                    return "a message that does not end"
            elif self._short and (channel.held() or channel.message is not None):
                # What it waits for may be what it holds itself, its acknowledgements behind its
                # publishes; and it may be gone without our notice.
                if ticks_diff(now, self._short_since) > patience:
                    return "it waits for memory and holds some"
        return None

    def _give_back(self):
        """Consumers, unacknowledged messages, exclusive queues, what waits to be sent."""
        for number in self.channels:
            # First, or one channel's messages would go to the next one and be lost with it.
            self.channels[number].drop_consumers()
        for number in list(self.channels):
            self.forget_channel(number)
        self.output.give_back()
        self.broker.delete_owned(self)
        self.stalled = False

    # --- frames, found by frames.py ---

    def _check_channel(self, channel, number):
        if self.state != _RUNNING:
            raise CommandInvalid("channel %d used before connection.open" % number)
        if number == 0:
            raise CommandInvalid("channel 0 carries only the connection class")
        if number > self.channel_max:
            raise ChannelFailure("channel %d, channel-max is %d" % (number, self.channel_max))
        if channel is None:
            raise ChannelFailure("channel %d is not open" % number)

    def on_header(self, number, buf, i, end):
        if self.state == _CLOSING:
            return True
        channel = self.channels.get(number)
        self._check_channel(channel, number)
        return channel.closing or channel.on_header(buf, i, end)

    def on_body(self, number, size):
        """The channel that takes the *size* octets of a body frame; None: nobody wants them."""
        channel = self.channels.get(number)
        if self.state == _CLOSING:
            return None
        self._check_channel(channel, number)
        if channel.closing:
            return None
        if channel.message is None or channel.body_left < size:
            raise UnexpectedFrame("body frame of %d octets nobody announced" % size)
        return channel

    def on_method(self, number, buf, i, end):
        if end - i < 4:
            raise FrameError("a method frame of %d octets" % (end - i))
        channel = self.channels.get(number)
        method = u16(buf, i) << 16 | u16(buf, i + 2)
        i += 4
        if channel is not None and channel.closing:
            if method not in (_CHANNEL_OPEN, _CHANNEL_CLOSE, _CHANNEL_CLOSE_OK):
                return True
        elif channel is not None and self.state == _RUNNING:
            if channel.receiving:
                raise UnexpectedFrame("a method between a publish and the end of its content")
            if method == _BASIC_PUBLISH:
                return channel.on_publish(buf, i, end)
            if method == _BASIC_ACK or method == _BASIC_NACK:
                channel.on_ack(buf, i, end, method)
                return True
        elif method == _CHANNEL_CLOSE_OK and number and self.state == _RUNNING:
            return True  # both closed at once, see Channel.on_channel_close()
        row = RECEIVED.get(method)
        if self.state == _CLOSING and method not in (_CONNECTION_CLOSE, _CONNECTION_CLOSE_OK):
            return True
        if row is None:
            if method in (_BASIC_PUBLISH, _BASIC_ACK, _BASIC_NACK):
                self._check_channel(channel, number)
            if method in NOT_HERE:
                raise NotImplementedHere("method %d.%d" % (method >> 16, method & 0xFFFF))
            raise CommandInvalid("unknown method %d.%d" % (method >> 16, method & 0xFFFF))
        if not self.output.takes_reply(number):
            return False
        name, signature = row
        if method >> 16 == 10:
            if number:
                raise CommandInvalid("connection class on channel %d" % number)
            if method not in (_CONNECTION_CLOSE, _CONNECTION_CLOSE_OK):
                if self.state >= len(_EXPECTED) or method != _EXPECTED[self.state]:
                    raise CommandInvalid("method %d.%d is not due" % (10, method & 0xFFFF))
            getattr(self, name)(*read_arguments(signature, buf, i, end))
            return True
        if method == _CHANNEL_OPEN:
            read_arguments(signature, buf, i, end)
            self._open_channel(channel, number)
            return True
        self._check_channel(channel, number)
        arguments = read_arguments(signature, buf, i, end)
        return getattr(channel, name)(*arguments) is not False

    # --- the connection class ---

    def on_start_ok(self, properties, mechanism, response, locale):
        capabilities = properties.get(b"capabilities")
        if isinstance(capabilities, dict):
            self._can_block = capabilities.get(b"connection.blocked") is True
            self.can_cancel = capabilities.get(b"consumer_cancel_notify") is True
            self._can_fail = capabilities.get(b"authentication_failure_close") is True
        name = properties.get(b"connection_name")
        if isinstance(name, bytes):
            self.name = "%s (%s)" % (self.address, printable(name[:60]))
        given = mechanism
        if mechanism == b"AMQPLAIN":
            given = b"PLAIN"
            response = load("amqp_lite.v091.login").as_plain(response)  # late: few clients have it
        found = self.access.authenticate(given, response, self.address, self._subject)
        if found is None:
            self._refuse(
                AccessRefused(
                    "Login was refused using authentication mechanism %s."
                    % printable(mechanism[:60])
                )
            )
            return
        self._user = found
        self.state = _AWAIT_TUNE_OK
        self.output.reply(
            0,
            _CONNECTION_TUNE,
            (self._offer_channels, self._offer_frame, self._offer_heartbeat),
        )

    def on_tune_ok(self, channel_max, frame_max, heartbeat):
        if channel_max > self._offer_channels:
            raise NotAllowed(
                "negotiated channel_max = %d is higher than the maximum allowed value (%d)"
                % (channel_max, self._offer_channels)
            )
        if frame_max and not FRAME_MIN_SIZE <= frame_max <= self._offer_frame:
            raise NotAllowed(
                "negotiated frame_max = %d, allowed are %d to %d"
                % (frame_max, FRAME_MIN_SIZE, self._offer_frame)
            )
        # 0 = the client has no limit: ours counts.
        self.channel_max = channel_max or self._offer_channels
        self.frame_max = self.output.frame_max = frame_max or self._offer_frame
        self._beat_ms = heartbeat * 1000
        self.state = _AWAIT_OPEN

    def on_open(self, vhost, reserved, insist):
        if vhost not in self.vhosts:
            raise NotAllowed("vhost '%s' not found" % str(vhost, "utf-8"))
        self.user = self._user
        self.state = _RUNNING
        self._timed = False
        if log.level <= INFO:
            log.info("%s logged in as '%s'", self.name, str(self.user.name, "utf-8"))
        self.output.reply(0, _CONNECTION_OPEN_OK, (b"",))

    def on_close(self, code, text, class_id, method_id):
        if log.level <= INFO:
            log.info("%s closed: %d %s", self.name, code, printable(text[:60]))
        self._give_back()
        self.output.reply(0, _CONNECTION_CLOSE_OK, ())
        self._limit(_CLOSE_MS)
        self._end()

    def on_close_ok(self):
        if self.state != _CLOSING:
            raise CommandInvalid("connection.close-ok without a close")
        self.lost()

    def user_may(self, kind, name, what):
        """Raises AccessRefused unless the user may *kind* the queue or exchange *name*."""
        self.user.demand(kind, name, what)

    # --- channels ---

    def _open_channel(self, channel, number):
        if self.state != _RUNNING:
            raise CommandInvalid("channel.open before connection.open")
        if number == 0:
            raise CommandInvalid("channel 0 carries only the connection class")
        if number > self.channel_max:
            raise ChannelFailure("channel %d, channel-max is %d" % (number, self.channel_max))
        if channel is not None:
            if not channel.closing:
                raise ChannelFailure("channel %d is open already" % number)
            # Some clients use the number again and never answer our channel.close.
            self.forget_channel(number)
        channel = self.channel_table.take()
        channel.open(self, number)
        self.channels[number] = channel
        self.output.reply(number, _CHANNEL_OPEN_OK, (b"",))

    def forget_channel(self, number):
        """The channel has ended on both sides."""
        channel = self.channels.pop(number)
        self.forget_taker(channel)
        channel.release()
        self.channel_table.give(channel)

    # --- errors ---

    def on_error(self, error, number, method):
        """Say *error* at its scope: the channel's for soft errors, else the connection's."""
        channel = self.channels.get(number)
        text = "%s - %s" % (_NAMES[error.code], error.text)
        arguments = (error.code, _clip(text), method >> 16, method & 0xFFFF)
        if error.code in _SOFT and channel is not None and self.state == _RUNNING:
            log.info("%s channel %d: %s", self.name, number, text)
            channel.release()
            channel.closing = True
            self.output.reply(number, _CHANNEL_CLOSE, arguments)
            return
        if self.state >= _CLOSING:
            return
        log.warning("%s: %s", self.name, text)
        self.broker.metrics.peers_cut += 1
        self._give_back()
        self._verdict = None
        self.state = _CLOSING
        self._limit(_CLOSE_MS)
        self.output.reply(0, _CONNECTION_CLOSE, arguments)

    def on_garbage(self, error):
        """After a framing error no octet can be trusted: say so, read nothing more."""
        self.on_error(error, 0, 0)
        self.deaf = True

    def _say_refused(self, verdict):
        if self._can_fail:
            self.deaf = False
            self.on_error(verdict, 0, _CONNECTION_START_OK)
        else:
            self.lost()

    def short_of_memory(self):
        """A publish has to wait. The peer is told when that lasts: TCP slows it down as well."""
        if not self._short:
            self._short = True
            self._short_since = self.broker.now

    def _say_blocked(self):
        self._blocked = True
        self.broker.metrics.blocked += 1
        if self._can_block:
            self.output.reply(0, _CONNECTION_BLOCKED, (b"low on memory",))


def _clip(text):
    """*text* as octets that fit in a short string."""
    octets = text.encode()
    if len(octets) <= 255:
        return octets
    return "".join([c if ord(c) < 128 else "?" for c in text])[:255].encode()
