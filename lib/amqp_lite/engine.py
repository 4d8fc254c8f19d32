"""The life of one connection: what the engines of both protocols and both roles have in common.

Octets in, calls into the broker, octets out; no socket and no clock. The face every engine has:

    open(address, deadline, subject)  a peer came: queue what we say first; it has to be logged in
                         by then. subject: the common name in its verified certificate, or None
    room()               octets feed() may be given at most; 0: give none, the engine is stalled
    feed(buf, n)         the first n octets of memoryview *buf* came from the peer
    output               `view` and `pending`: the first `pending` octets of `view` are to be sent;
                         sent(n): so many of them are on the wire
    pump()               after commits and sends: write confirms, returns and deliveries
    resume()             try again what stalled for want of memory
    tick()               heartbeats and deadlines, by broker.now -> ms to the next look
    stalled              a whole frame waits for memory or for room: resume() tries again
    closed               nothing more will come; send what is pending and hang up
    lost()               the peer is gone: give everything back
"""

from .compat import const, copy, ticks_add, ticks_diff, zeros
from .log import log

# What the states of a server's engines have in common; those below are of the login.
_RUNNING = const(3)
_CLOSED = const(5)


class Engine:
    """
    size  octets of the longest frame that is read in place
    hold  memoryview of so many octets to keep an incomplete one in; None: one of its own

    Whoever is one has `broker`, `output`, and of its own:

    beat                 what output.put() is given to say that we live
    _reset()             all as before open(): it calls reset() and output.reset()
    _parse(buf, i, end)  read the frames in buf[i:end]: the index of the first octet not used up
    on_garbage(error)    no frame came: say so, and read nothing more
    _overdue(now)        what the peer should have done by now; None when it is in time

    A server has `state`, `access`, `_login_octets`, _give_back(), and

    too_much(text)         makes the error for octets and no login
    _say_refused(verdict)  the penalty of a refused login is over
    """

    def __init__(self, size, hold=None):
        self._size = size
        self.hold = memoryview(zeros(size)) if hold is None else hold

    def reset(self, frame_max):
        self.frame_max = frame_max  # octets
        self.deaf = True  # nothing is read any more
        self.stalled = False
        self.progress = 0  # ticks when the last frame was whole, or this one began
        self.taker = None  # of the payload being read; None: it is for nobody
        self._held = 0
        self._left = 0  # octets to come of a frame whose head is read already
        self.closed = True
        self.user = None
        self._octets = 0  # received before login
        self._heard = 0  # ticks
        self._beat_ms = 0  # the peer wants to hear something so often; 0: never
        self._deadline = 0  # ticks, for login and close; see _timed
        self._timed = False
        self._verdict = None  # a refused login waits for its penalty
        self._subject = None  # of its certificate

    def open(self, address, deadline, subject=None):
        self._reset()
        self.closed = self.deaf = False
        self.state = 0
        self.address = self.name = address
        self._subject = subject
        self._heard = self.progress = self.output.spoke = self.broker.now
        self._deadline = deadline
        self._timed = True

    # --- octets ---

    def feed(self, buf, n):
        self._heard = self.broker.now
        if self.user is None:
            self._octets += n
            if self._octets > self._login_octets:
                self.on_garbage(self.too_much("%d octets and no login" % self._octets))
        self.read(buf, n)

    def resume(self):
        if self.stalled:
            self.stalled = False
            self._heard = self.broker.now  # nobody listened meanwhile
            self.read_on()

    def room(self):
        """How many octets may come now."""
        return 0 if self.stalled else self._size - self._held

    def amid_frame(self):
        return self._held or self._left

    def forget_taker(self, taker):
        """*taker* has ended: the rest of its frame is for nobody."""
        if self.taker is taker:
            self.taker = None

    def read(self, buf, n):
        """The first *n* octets of *buf* came, at most room()."""
        if self.deaf:
            return
        if self._held:
            copy(self.hold, self._held, buf, 0, n)
            self._held += n
            self.read_on()
            return
        if not self._left:
            self.progress = self.broker.now
        i = self._parse(buf, 0, n)
        self._held = n - i
        if i < n:
            copy(self.hold, 0, buf, i, n - i)

    def read_on(self):
        """Read what is held."""
        i = self._parse(self.hold, 0, self._held)
        self._held -= i
        if i and self._held:
            copy(self.hold, 0, self.hold, i, self._held)

    # --- time ---

    def tick(self):
        now = self.broker.now
        wait = 1000
        if self._timed:
            left = ticks_diff(self._deadline, now)
            if left <= 0:
                self._timed = False
                self._expired()
            elif left < wait:
                wait = left
        if self.is_running():
            beat = self._beat_ms
            if beat:
                if ticks_diff(now, self.output.spoke) >= beat // 2 and not self.output.pending:
                    self.output.put(*self.beat)
                wait = min(wait, beat // 4)
            overdue = self._overdue(now)
            if overdue is not None:
                self._cut(overdue)
        return wait

    def is_running(self):
        return self.state == _RUNNING

    def _late(self, now, beat):
        """What every server's _overdue() begins with.

        beat  ms, in two of which something has to come; 0: nothing has to
        """
        patience = max(2 * beat, 60000)
        if self.output.pending and ticks_diff(now, self.output.spoke) > patience:
            return "it does not read"
        if self.stalled:
            return None  # nobody listens to it
        if beat and ticks_diff(now, self._heard) > 2 * beat:
            return "no octet for two heartbeats"
        if self.amid_frame() and ticks_diff(now, self.progress) > patience:
            return "a frame that does not end"
        return None

    def _expired(self):
        if self._verdict is not None:
            self._say_refused(self._verdict)
        elif self.state < _RUNNING:
            self._cut("it did not log in in time")
        else:
            self.lost()

    def _refuse(self, verdict):
        """The login failed: the peer is told *verdict* later, the more often it happens."""
        self.broker.metrics.logins_refused += 1
        delay = self.access.penalty(self.address, self.broker.now)
        log.warning("login from %s refused, answered in %d ms", self.name, delay)
        self._verdict = verdict
        self._limit(delay)
        self.deaf = True  # until then

    def _limit(self, ms):
        self._deadline = ticks_add(self.broker.now, ms)
        self._timed = True

    def _cut(self, why):
        log.warning("%s cut: %s", self.name, why)
        self.broker.metrics.peers_cut += 1
        self.lost()

    # --- its end ---

    def lost(self):
        """The peer is gone, or shall be at once: give back everything, send nothing more."""
        self._give_back()
        self._end()
        self.output.pending = 0

    def _end(self):
        """Nothing more is read; what is in the buffer goes out."""
        self.state = _CLOSED
        self.closed = self.deaf = True
