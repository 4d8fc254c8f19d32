"""AMQP 0-9-1 as a client speaks it: the connection upstream. Its face is that of engine.py.

Channel 1 and those behind it belong to the uplinks and downlinks, one each, see link091.py: an
error there ends one channel alone, which is opened anew.
"""

from .. import __version__
from ..compat import const, ticks_diff, u16
from ..engine import Engine
from ..errors import CommandInvalid, FrameError
from ..log import log, printable
from ..v091.codec import Properties, write_table
from ..v091.frames import FrameReader
from ..v091.methods import CAPABILITIES, method_frame, read_arguments
from ..v091.output import Output
from .consumer091 import ConsumeLink
from .home import is_safe
from .link091 import close_reason
from .publisher091 import PublishLink

_HEADER = b"AMQP\x00\x00\x09\x01"
_HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_HEADER_KIND = const(2)
_LEAST_FRAME = const(8192)  # octets; RabbitMQ since 4.1 takes nobody who takes less

_BEHIND = const(8)  # frames that wait for room in the output
_LEAST_TUNED = const(4096)  # octets, AMQP 0-9-1 §4.2.3
_CLOSE_MS = const(2000)  # for what we have to say when we end it
_ACK = const(0x003C0050)
_NACK = const(0x003C0078)
_START_OK = const(0x000A000B)
_TUNE_OK = const(0x000A001F)
_OPEN = const(0x000A0028)
_CLOSE = const(0x000A0032)
_CLOSE_OK = const(0x000A0033)

# What a server may send of the connection class: method -> (handler, signature).
_OF_CONNECTION = {
    0x000A000A: ("on_start", "BBFSS"),
    0x000A001E: ("on_tune", "HIH"),
    0x000A0029: ("on_open_ok", "s"),
    0x000A0032: (None, "HsHH"),
    0x000A003C: ("on_blocked", "s"),
    0x000A003D: ("on_unblocked", ""),
}
_OF_LOGIN = (0x000A000A, 0x000A001E, 0x000A0029)
# The peer did not like what it got: 0-9-1 §1.2 "hard errors" that a message may be the reason of.
_BY_CONTENT = (501, 502, 503, 505, 541)
# What we send, where the server's side has no signature for it.
SENT = {
    _START_OK: "FsSs",
    _TUNE_OK: "HIH",
    _OPEN: "ssb",
    _CLOSE: "HsHH",
    0x0014000A: "s",  # channel.open
    0x00140028: "HsHH",  # channel.close
    0x0028000A: "HssbbbbbF",  # exchange.declare
    0x0032000A: "HsbbbbbF",  # queue.declare
    0x00320014: "HsssbF",  # queue.bind
    0x003C000A: "IHb",  # basic.qos
    0x003C0014: "HssbbbbF",  # basic.consume
    0x003C005A: "Qb",  # basic.reject
    0x003C0050: "Qb",  # basic.ack
    0x003C0078: "Qbb",  # basic.nack
    0x0055000A: "b",  # confirm.select
}


class Client(FrameReader):
    """
    broker    the model
    upstream  an Upstream, whose uplinks and downlinks this serves
    profile   numbers of limits.py
    settings  the row of `bridges`: vhost, user, password, heartbeat
    """

    beat = (0, _HEARTBEAT_FRAME)

    def __init__(self, broker, upstream, profile, settings, device):
        FrameReader.__init__(self, profile["receive_buffer"])
        self.broker = broker
        self.upstream = upstream
        self.output = Output(broker, profile["send_buffer"])
        self.properties = Properties()
        self._frame_limit = max(profile["frame_max"], _LEAST_FRAME)
        self.device = device.encode()
        self._vhost = settings["vhost"].encode()
        self._login = settings["user"].encode(), settings["password"].encode()
        self._wanted_heartbeat = settings["heartbeat"]
        self.links = [PublishLink(self, uplink) for uplink in upstream.uplinks]
        self.links += [ConsumeLink(self, downlink) for downlink in upstream.downlinks]
        for number, link in enumerate(self.links):
            link.number = number + 1
        self.name = "upstream %s" % upstream.name
        self._reset()

    def _reset(self):
        self.output.reset()
        self.reset(0)
        self.user = b""  # no stranger to us: nobody else pushes it out
        self.running = False
        self._why = None  # of the end, when we know better than the socket
        self._waits_for = 0  # the one method that is due before the login is done

    # --- the caller's half of the face ---

    def next_call(self, now):
        return self.upstream.next_call(now)

    def dial(self, caller):
        self.upstream.dial(caller)

    def open(self, address, deadline):
        """Connected: greet."""
        Engine.open(self, self.name, deadline)
        self.frame_max = self.output.frame_max = _LEAST_FRAME  # until tune
        self._waits_for = 0x000A000A
        self.output.put(0, _HEADER)

    def lost(self, why):
        """The connection is gone, or could not be made."""
        for link in self.links:
            link.lost()
        self.output.give_back()
        self.output.pending = 0
        self.stalled = False
        why = self._why or why
        self._reset()
        self.upstream.lost(why or "the connection ended")

    # --- the engine's half ---

    def pump(self):
        output = self.output
        flowing = output.pump()
        if not self.running:
            return
        if flowing and output.starved:
            output.starved = False
            self.upstream.wanted = True
        for downlink in self.upstream.downlinks:
            if downlink.link is not None:
                downlink.pump()
        # Not before it is on flash: its id is its place there, which a power cut would give away.
        if flowing and is_safe(self.broker.store):
            self.upstream.pump()

    def tick(self):
        wait = Engine.tick(self)
        if self.running:
            now = self.broker.now
            for link in self.links:
                wait = min(wait, link.tick(now))
            left, overdue = self.upstream.tick(now)
            wait = min(wait, left)
            if overdue:
                self._cut(overdue)
        return max(wait, 1)

    def is_running(self):
        return self.running

    def _overdue(self, now):
        patience = 2 * self._beat_ms
        if patience:
            # Blocked, RabbitMQ does not read, and says so.
            if self.output.pending and not self.upstream.blocked:
                if ticks_diff(now, self.output.spoke) > patience:
                    return "it does not read"
            if ticks_diff(now, self._heard) > patience:
                return "no octet for two heartbeats"
        return None

    def _expired(self):
        self._cut(self._why or "no answer in time: the login was not finished")

    def _cut(self, why):
        """Hang up at once; *why* is what is told."""
        self._why = why
        self.running = False
        self.closed = self.deaf = True
        self._timed = False
        self.output.give_back()
        self.output.pending = 0

    def _finish(self, why):
        """Nothing is read any more; what is written is the last."""
        self._why = why
        self.running = False
        self.closed = self.deaf = True
        self.output.give_back()
        self._limit(_CLOSE_MS)

    def fail(self, code, text):
        """The peer broke the protocol: say so and hang up."""
        self._finish(text)
        self.send(0, _CLOSE, (code, text.encode()[:255], 0, 0))

    def send(self, number, method, arguments=()):
        self.output.put(number, method_frame(number, method, arguments, SENT.get(method)))

    # --- frames ---

    def _link(self, number):
        if not 0 < number <= len(self.links):
            raise CommandInvalid("a frame on channel %d" % number)
        return self.links[number - 1]

    def on_method(self, number, buf, i, end):
        if end - i < 4:
            raise FrameError("a method frame of %d octets" % (end - i))
        method = u16(buf, i) << 16 | u16(buf, i + 2)
        i += 4
        if len(self.output.later) > _BEHIND and method not in (_ACK, _NACK):
            return False  # it does not read what it asks for
        if number:
            if not self.running:
                raise CommandInvalid("channel %d used before connection.open-ok" % number)
            return self._link(number).on_method(method, buf, i, end)
        row = _OF_CONNECTION.get(method)
        if row is None:
            raise CommandInvalid("unknown method %d.%d" % (method >> 16, method & 0xFFFF))
        if method == _CLOSE:
            self._on_close(*close_reason(buf, i, end))
            return True
        if self._waits_for != method and (self._waits_for or method in _OF_LOGIN):
            raise CommandInvalid("method %d.%d is not due" % (method >> 16, method & 0xFFFF))
        getattr(self, row[0])(*read_arguments(row[1], buf, i, end))
        return True

    def on_header(self, number, buf, i, end):
        return self._link(number).on_header(buf, i, end)

    def on_body(self, number, size):
        return self._link(number).taker(size)

    def _check_frame(self, kind, number, size):
        if kind == _HEADER_KIND and size + 8 > self._size and size + 8 <= self.frame_max:
            # A board has no room for it: the message is refused, the connection lives on.
            self._link(number).on_long_header(size)
            return True
        return FrameReader._check_frame(self, kind, number, size)

    def on_error(self, error, number, method):
        log.warning("%s: %s", self.name, error.text)
        self.fail(error.code, error.text)

    def on_garbage(self, error):
        text = error.text
        if self._waits_for == 0x000A000A:
            text = "it speaks no AMQP 0-9-1"
        self._cut(text)

    # --- the connection class ---

    def on_start(self, major, minor, properties, mechanisms, locales):
        user, password = self._login
        offered = mechanisms.split(b" ")
        if b"PLAIN" in offered:
            mechanism = b"PLAIN"
            response = b"\0" + user + b"\0" + password
        elif b"AMQPLAIN" in offered:
            mechanism = b"AMQPLAIN"
            response = write_table({"LOGIN": user, "PASSWORD": password})[4:]
        else:
            self._cut("it offers neither PLAIN nor AMQPLAIN")
            return
        about = {
            "product": "amqp_lite", "version": __version__, "platform": "Python",
            "capabilities": CAPABILITIES, "connection_name": self.device,
        }  # fmt: skip
        self._waits_for = 0x000A001E
        self.send(0, _START_OK, (about, mechanism, response, b"en_US"))

    def on_tune(self, channel_max, frame_max, heartbeat):
        limit = self._frame_limit
        if 0 < frame_max < _LEAST_TUNED:
            self._cut("it offers frames of %d octets, 4096 is the least" % frame_max)
            return
        if frame_max and frame_max < limit:
            limit = frame_max
        self.frame_max = self.output.frame_max = limit
        ours = self._wanted_heartbeat
        beat = min(ours, heartbeat) if ours and heartbeat else max(ours, heartbeat)
        self._beat_ms = beat * 1000
        self._channel_max = channel_max or 65535
        channels = min(self._channel_max, max(len(self.links), 1))
        self._waits_for = 0x000A0029
        self.send(0, _TUNE_OK, (channels, limit, beat))
        self.send(0, _OPEN, (self._vhost, b"", 0))

    def on_open_ok(self, _):
        self._waits_for = 0
        self._timed = False
        self.running = True
        self.upstream.opened()
        for link in self.links:
            if link.number <= self._channel_max:
                link.open()
            else:
                link.policy.last_error = "upstream allows %d channels" % self._channel_max

    def _on_close(self, code, why):
        if self.running and code in _BY_CONTENT:
            for uplink in self.upstream.uplinks:
                if uplink.in_flight.count:
                    uplink.channel_failed(why, True)
        self._finish(why)
        self.output.put(0, method_frame(0, _CLOSE_OK, ()))

    def on_blocked(self, reason):
        log.warning("%s: blocked: %s", self.name, printable(reason))
        self.upstream.blocked = True

    def on_unblocked(self):
        log.info("%s: not blocked any more", self.name)
        self.upstream.blocked = False
        self.upstream.wanted = True
