"""The AMQP 1.0 engine of one connection: SASL, open, close, and performatives to their sessions.

Its face is that of engine.py.
"""

from .. import __version__
from ..access import NOBODY
from ..broker.queue import text
from ..compat import const, ticks_diff
from ..engine import Engine
from ..errors import AMQPError, NotAllowed, SyntaxFailure
from ..log import INFO, log, printable
from .conditions import FramingError, InvalidField, NotAllowedNow
from .frames import AMQP, FRAME_MIN, SASL, FrameReader
from .output import Output
from .performatives import (
    ATTACH,
    BEGIN,
    CLOSE,
    DETACH,
    DISPOSITION,
    END,
    FLOW,
    OPEN,
    SASL_INIT,
    SASL_MECHANISMS,
    SASL_OUTCOME,
    TRANSFER,
    Fields,
    described,
    error_value,
    frame,
    uint,
)
from .sections import Sections
from .session import Session
from .values import Symbol, Typed

SASL_HEADER = b"AMQP\x03\x01\x00\x00"
HEADER = b"AMQP\x00\x01\x00\x00"

# What the peer may send now.
_AWAIT_INIT = const(0)
_AWAIT_HEADER = const(1)
_AWAIT_OPEN = const(2)
_RUNNING = const(3)
_CLOSING = const(4)  # we sent a close because of an error: the peer shall hang up
_CLOSED = const(5)

_OK = const(0)  # SASL outcomes, AMQP 1.0 §5.3.3.6
_AUTH = const(1)
_CLOSE_MS = const(2000)  # how long we wait for that
_CREDIT = const(256)
_SHORT_MS = const(10000)  # how long half a message may be held by who waits for memory
_SHORTEST_IDLE_MS = const(1000)
_EMPTY_FRAME = b"\x00\x00\x00\x08\x02\x00\x00\x00"

# Fields of sasl-init and open:
_MECHANISM = const(0)
_RESPONSE = const(1)
_CONTAINER = const(0)
_HOSTNAME = const(1)
_MAX_FRAME = const(2)
_CHANNEL_MAX = const(3)
_IDLE = const(4)


# The prefixes are what Qpid JMS puts before the names of its queues and topics.
_PROPERTIES = {
    Symbol("product"): "amqp_lite", Symbol("version"): __version__, Symbol("platform"): "Python",
    Symbol("queue-prefix"): "/queue/", Symbol("topic-prefix"): "/topic/",
}  # fmt: skip


class Connection(FrameReader):
    """
    broker   the model
    access   the users
    profile  numbers of limits.py
    name     of this broker, its container-id
    vhosts   names that an open's hostname may give as `vhost:name`
    other    the engine of 0-9-1 for the same peers, one at a time: its buffers are this one's, too
    """

    beat = (_EMPTY_FRAME,)
    works = None  # transactions by txn-id, once there was one; see coordinator.py
    too_much = FramingError

    def __init__(self, broker, access, profile, name, vhosts, other=None):
        FrameReader.__init__(self, profile["receive_buffer"], other and other.hold)
        self.broker = broker
        self.output = Output(broker, profile["send_buffer"], other and other.output.buffer)
        self.fields = Fields()
        self.terminus = Fields()  # of a described list inside of these
        self.sections = Sections(self.terminus)
        self.sessions = {}
        self.access = access
        self.container = name
        # Messages a peer may have under way on one link: no more than half of them fit.
        self.credit = max(1, min(_CREDIT, profile["messages"] // 2, profile["blocks"] // 6))
        self.declares = profile["auto_declare"]  # plain addresses make queues
        self._vhosts = vhosts
        self._offer_frame = profile["frame_max"]
        self._offer_idle_ms = profile["heartbeat"] * 1000
        self._patience = max(2 * self._offer_idle_ms, 60000)  # ms
        self._most_channels = min(profile["channels"], 65536)
        # Links of a session: some clients have all of theirs on one.
        self.handle_max = max(16, min(256, profile["consumers"])) - 1
        self.links_most = max(16, 2 * profile["consumers"])  # of all its sessions
        self.private_queues = max(1, min(16, profile["queues"] // 4))  # that it may have
        self._login_octets = profile["login_bytes"]
        self._reset()

    def _reset(self):
        self.reset()
        self.output.reset()
        self.state = _CLOSED
        self._user = None  # logged in, open still to come
        self.peer = ""  # its container-id
        self.address = ""
        self.name = ""  # what the peer calls itself, for the log
        self.tokens = None  # servicebus.cbs.Tokens of one that came without a user
        self._channel_max = 0  # the lower one of ours and the peer's
        self._resumed = 0  # ticks
        self._short_since = -1  # ticks since when a transfer waits for memory; -1: none does

    # --- the face of an engine ---

    def open(self, address, deadline, subject=None):
        """A peer from *address* has sent the header of SASL."""
        Engine.open(self, address, deadline, subject)
        self.broker.metrics.connections_opened += 1
        self.output.put(SASL_HEADER)
        offered = [Symbol(name) for name in self.access.mechanisms(subject, True)]
        self.output.put(frame(SASL, 0, described(SASL_MECHANISMS, Typed(0xE0, offered, b"\xa3"))))

    def resume(self):
        if self.stalled:
            self._resumed = self.broker.now
            Engine.resume(self)

    def pump(self):
        """Write what waited for room, for a commit or for a consumer to read on."""
        output = self.output
        flowing = output.pump()
        for channel in self.sessions:
            self.sessions[channel].pump()
        if flowing and output.starved:
            output.starved = False
            for channel in self.sessions:
                self.sessions[channel].dispatch()

    def tick(self):
        wait = Engine.tick(self)
        if self.state == _RUNNING:
            self._give_up(self.broker.now)
        return wait

    def _overdue(self, now):
        # It was told half of the idle time we bear.
        overdue = self._late(now, self._offer_idle_ms)
        if overdue is None and self.stalled and self._short_since >= 0:
            # What it waits for may be what it holds itself, its dispositions behind its transfers;
            # and it may be gone without our notice.
            if ticks_diff(now, self._short_since) > self._patience:
                for channel in self.sessions:
                    if self.works or self.sessions[channel].unsettled.count:
                        return "it waits for memory and holds some"
        return overdue

    def _give_up(self, now):
        """Drop half messages that do not end, or whose memory those may wait for that wait, too.

        Of all in the broker the one that waited first is kept, and goes on by what the others
        gave back.
        """
        broker = self.broker
        if self.stalled:
            if self._short_since < 0 or ticks_diff(now, self._short_since) <= _SHORT_MS:
                return
        elif ticks_diff(now, self._resumed) <= self._patience:
            return
        for channel in self.sessions:
            links = self.sessions[channel].links
            for handle in links:
                link = links[handle]
                if link.message is None:
                    continue
                if self.stalled:
                    late = broker.longest_waiting is not link and not broker.freed
                else:
                    late = ticks_diff(now, link.progress) > self._patience
                if late:
                    log.info("%s: half a message is given up", self.name)
                    link.give_up()

    def _give_back(self):
        for channel in self.sessions:
            self.sessions[channel].mute()
        for channel in list(self.sessions):
            self.sessions.pop(channel).release()
        self.output.give_back()
        self.broker.delete_owned(self)
        self.stalled = False

    # --- frames, found by frames.py ---

    def on_header(self, octets):
        """The protocol header behind the login. AMQP 1.0 §5.3.2."""
        self.awaits_header = False
        self.output.put(HEADER)
        if octets != HEADER:
            log.warning("%s sent another protocol header behind its login", self.name)
            self.broker.metrics.peers_cut += 1
            self._end()
            return
        self.state = _AWAIT_OPEN
        self.kind = AMQP

    def on_empty(self, channel):
        if self.state < _AWAIT_OPEN:
            raise FramingError("an empty frame before the login")

    def on_frame(self, channel, buf, i, end, more):
        fields = self.fields
        behind = fields.scan(buf, i, end)
        code = fields.code
        if not self.output.takes_reply():
            return False
        if code == TRANSFER and self.state == _RUNNING:
            if self._on_session(channel, code, buf, behind, end, more):
                self._short_since = -1
                return True
            if self._short_since < 0:
                self._short_since = self.broker.now
            return False
        if behind != end or more:
            raise FramingError("octets behind a %s" % fields.name())
        if self.state == _AWAIT_INIT:
            if code != SASL_INIT:
                raise NotAllowedNow("%s, a sasl-init was due" % fields.name())
            self._on_init()
        elif self.state == _AWAIT_OPEN:
            if code != OPEN:
                raise NotAllowedNow("%s, an open was due" % fields.name())
            if channel:
                raise FramingError("an open on channel %d" % channel)  # AMQP 1.0 §2.4.1
            self._on_open()
        elif code == CLOSE:
            self._on_close()
        else:
            return self._on_session(channel, code, buf, behind, end, more)
        return True

    def send(self, channel, performative):
        """Write a whole frame."""
        self.output.put(frame(AMQP, channel, performative))

    # --- SASL ---

    def _on_init(self):
        fields = self.fields
        mechanism = fields.symbol(_MECHANISM)
        found = self.access.authenticate(
            mechanism, fields.octets(_RESPONSE) or b"", self.address, self._subject, True
        )
        if found is None:
            self._refuse(_AUTH)
            return
        self._user = found
        if mechanism == b"ANONYMOUS" and self.access.keys:
            from .servicebus.cbs import Tokens

            self.tokens = Tokens(self)
        self._say_outcome(_OK)
        self.state = _AWAIT_HEADER
        self.awaits_header = True

    def _say_outcome(self, outcome):
        self.output.put(frame(SASL, 0, described(SASL_OUTCOME, Typed(0x50, outcome))))

    # --- open, close ---

    def _on_open(self):
        fields = self.fields
        container = fields.text(_CONTAINER)
        if not container:
            raise InvalidField("an empty container-id")
        frame_max = fields.uint(_MAX_FRAME, 0x3FFFFFFF)
        if frame_max < FRAME_MIN:
            raise InvalidField("max-frame-size of %d, at least %d" % (frame_max, FRAME_MIN))
        idle = fields.uint(_IDLE, 0)
        if idle and idle < _SHORTEST_IDLE_MS:
            raise InvalidField("idle-time-out of %d ms, at least %d" % (idle, _SHORTEST_IDLE_MS))
        hostname = fields.text(_HOSTNAME)
        if hostname is not None and hostname.startswith("vhost:"):
            if hostname[6:].encode() not in self._vhosts:
                raise NotAllowed("vhost '%s' not found" % hostname[6:])
        self.peer = container
        self.user = None if self._user is NOBODY else self._user
        self.state = _RUNNING
        self._timed = self.user is None  # until it has put a token
        self._beat_ms = idle
        self._channel_max = min(self._most_channels - 1, fields.uint(_CHANNEL_MAX, 65535))
        self.output.frame_max = frame_max
        self.frame_max = self._offer_frame
        self.name = "%s (%s)" % (self.address, printable(container.encode()[:60]))
        if log.level <= INFO:
            name = text(self.user.name) if self.user else "nobody"
            log.info("%s logged in as '%s'", self.name, name)
        self._say_open()

    def _say_open(self):
        idle = uint(self._offer_idle_ms // 2) if self._offer_idle_ms else None
        self.send(
            0,
            described(
                OPEN, self.container, None, uint(self._offer_frame),
                Typed(0x60, self._channel_max), idle, None, None, Symbol("ANONYMOUS-RELAY"), None,
                _PROPERTIES,
            ),
        )  # fmt: skip

    def admit(self, user):
        """The peer has put a token, of a key of *user*: it may stay as long as one is good."""
        self.user = user
        self._limit(self.tokens.left_ms())

    def _on_close(self):
        log.info("%s closed", self.name)
        self._give_back()
        self.send(0, described(CLOSE))
        self._limit(_CLOSE_MS)
        self._end()

    # --- sessions ---

    def _on_session(self, channel, code, buf, behind, end, more):
        """A performative of the session on *channel*. False: it has to wait."""
        fields = self.fields
        session = self.sessions.get(channel)
        if code == BEGIN:
            if channel > self._channel_max:
                raise FramingError("channel %d, channel-max is %d" % (channel, self._channel_max))
            if session is not None:
                raise NotAllowedNow("channel %d has a session" % channel)
            if self.tokens is None:
                session = Session(self, channel)
            else:
                from .servicebus.session import BusSession

                session = BusSession(self, channel)
            session.begin(fields)
            self.sessions[channel] = session
            return True
        if session is None:
            if code == DETACH and self.tokens is not None:
                return True  # Azure's client ends the session before its links
            raise NotAllowedNow("%s on channel %d without a session" % (fields.name(), channel))
        if code == END:
            del self.sessions[channel]
            if not session.closing:
                session.end()
            return True
        if session.closing:
            return True
        try:
            if code == TRANSFER:
                return session.on_transfer(fields, buf, behind, end, more)
            if code == DISPOSITION:
                session.on_disposition(fields)
            elif code == FLOW:
                session.on_flow(fields)
            elif code == ATTACH:
                session.attach(fields)
            elif code == DETACH:
                session.on_detach(fields)
            else:
                raise NotAllowedNow("%s on a session" % fields.name())
        except (SyntaxFailure, InvalidField, FramingError, NotAllowedNow):
            raise
        except AMQPError as error:
            log.info("%s channel %d: %s", self.name, channel, error.text)
            session.closing = True
            session.end(error)
        return True

    def links(self):
        """How many links it has."""
        return sum([len(self.sessions[channel].links) for channel in self.sessions])

    def steal(self, name, to_peer):
        """A link of this *name* was attached: another one of it has to go."""
        for channel in self.sessions:
            self.sessions[channel].steal(name, to_peer)

    # --- errors ---

    def on_garbage(self, error):
        """The connection ends for *error*: say so, and read nothing more."""
        if self.state >= _CLOSING:
            return
        log.warning("%s: %s", self.name, error.text)
        self.broker.metrics.peers_cut += 1
        self._give_back()
        if self.state < _AWAIT_OPEN:
            # Nothing can be said in SASL but that nobody got in.
            if self.state == _AWAIT_INIT:
                self._say_outcome(_AUTH)
            self._end()
            return
        if self.state == _AWAIT_OPEN:
            self._say_open()  # AMQP 1.0 §2.4.1: a close comes behind an open
        self.send(0, described(CLOSE, error_value(error)))
        self.state = _CLOSING
        self.deaf = True
        self._limit(_CLOSE_MS)

    def _say_refused(self, outcome):
        self._say_outcome(outcome)
        self._end()

    def _expired(self):
        if self.tokens is not None and self.state == _RUNNING:
            left = self.tokens.expire()
            if left:
                self._limit(left)
            else:
                self._cut("it has no token that is good")
            return
        Engine._expired(self)
