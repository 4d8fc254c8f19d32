"""A connection that we open: name, TCP, TLS, then its engine is served as any other.

Names are looked up anew when no address known for them answers: a lookup may take seconds, and on
a board everybody waits for it.
"""

from ..compat import POLLOUT, Resolver, check_dialled, dial, ticks_add, ticks_diff, ticks_ms
from ..log import log
from .reactor import Peer

IDLE = "idle"
RESOLVING = "resolving"
CONNECTING = "connecting"
SECURING = "securing"
OPEN = "open"

_LOOK_MS = 50  # how often a lookup under way is asked for


class Caller(Peer):
    """
    engine   a protocol engine, the client's side; besides the face of all engines it has
             next_call(now), in ms: how long to wait before dial(); None: do not
             dial(caller): calls caller.call() for the host whose turn it is
             lost(why): also when there was no connection
             running: the login is done
    tls      a Tls, or None
    call_ms  for TCP and TLS, and as much for the login, which the engine watches
    """

    def __init__(self, reactor, engine, tls, call_ms):
        Peer.__init__(self, engine)
        self.state = IDLE
        self._reactor = reactor
        self._tls = tls
        self._call_ms = call_ms
        self._deadline = 0  # ticks, of this address
        self._give_up_at = 0  # ticks
        self._first = 0  # the address to begin with: the one before was of no use
        self._resolver = None
        self._known = {}  # (host, port) -> addresses that may be right
        self._left = []  # addresses of this host that were not tried yet
        self._place = None  # (host, port)
        self.joined = False
        self.watched = False  # by the poller
        reactor.add_caller(self)

    def call(self, host, port, now):
        """Connect to *port* of *host*; the engine is told by open() or lost()."""
        self._place = (host, port)
        self._give_up_at = ticks_add(now, self._call_ms)
        self._deadline = self._give_up_at
        known = self._known.get(self._place)
        if known is None:
            self.state = RESOLVING
            self._resolver = Resolver(host, port)
        else:
            self._left = list(known)
            self._dial()

    def tick(self, now):
        """ms to the next look."""
        if self.state == IDLE:
            wait = self.engine.next_call(now)
            if wait is None:
                return 1000
            if wait > 0:
                return wait
            self.engine.dial(self)
        if self.state == RESOLVING:
            self._resolve(now)
        elif self.state in (CONNECTING, SECURING) and self._is_late(now):
            self._try_next("no answer in time")
        return _LOOK_MS if self.state == RESOLVING else 1000

    def _is_late(self, now):
        return ticks_diff(self._deadline, now) <= 0

    def _resolve(self, now):
        try:
            found = self._resolver.result()
        except OSError as error:
            self._fail("name lookup of %s: %s" % (self._place[0], _words(error)))
            return
        if found is not None:
            self._known[self._place] = found
            first = self._first % len(found) if found else 0
            self._left = found[first:] + found[:first]
            self._dial()
        elif self._is_late(now):
            self._fail("name lookup of %s takes too long" % self._place[0])

    def _dial(self):
        if not self._left:
            self._fail("no address")
            return
        self.state = CONNECTING
        now = ticks_ms()
        # Its share of the time: others may answer when this one never does.
        share = ticks_diff(self._give_up_at, now) // len(self._left)
        self._deadline = ticks_add(now, max(share, 1000))
        try:
            self.open(dial(self._left.pop(0)))
        except OSError as error:
            self._try_next(_words(error))
            return
        self._reactor.watch(self, True)

    def fail(self, why):
        """Something went wrong here: the attempt is over."""
        if self.state in (RESOLVING, CONNECTING, SECURING):
            self._fail(why)

    def on_ready(self, events):
        """The socket moved while the connection is being made."""
        try:
            if self.state == CONNECTING:
                check_dialled(self.sock, events)
                if self._tls is not None:
                    self._secure()
            if self.state == SECURING:
                wanted = self._tls.handshake(self.sock)
                if wanted:
                    self._reactor.watch(self, wanted == POLLOUT)
                    return
        except OSError as error:
            self._try_next(_words(error))
        except MemoryError:
            self._fail("out of memory")
        except Exception as error:  # a TlsError, which is not loaded without TLS
            self._fail(str(error))
        else:
            self._join()

    def _secure(self):
        self.state = SECURING
        plain = self.sock
        self._reactor.unwatch(self)
        self.sock = self._tls.wrap(plain, self._place[0])
        self.secure = self._tls

    def _join(self):
        self.state = OPEN
        self.joined = True
        self._left.clear()
        self._reactor.join(self)
        self.engine.open("%s:%d" % self._place, ticks_add(ticks_ms(), self._call_ms))

    def _try_next(self, why):
        """This address failed: another one of the same name may do."""
        self._hang_up()
        if self._left:
            log.debug("%s:%d: %s", self._place[0], self._place[1], why)
            self._dial()
        else:
            self._fail(why)

    def _fail(self, why):
        self._hang_up()
        self._known.pop(self._place, None)  # it may have moved
        self.state = IDLE
        self.engine.lost(why)
        self._reactor.look()

    def _hang_up(self):
        if self.sock is not None:
            self._reactor.unwatch(self)
            self.sock.close()
            self.sock = None
        self._forget_tls()

    def _forget_tls(self):
        if self._tls is not None:
            self._tls.close()  # also of the socket below, on a board

    # --- the reactor's, while the connection is there ---

    def heard(self):
        pass

    def dropped(self, why):
        self.state = IDLE
        self.joined = self.watched = False
        if isinstance(why, OSError):
            # With TLS the peer's refusal may come late.
            why = _words(why) if self._tls is None else self._tls.explain(why)
        if not self.engine.running:
            # Nobody there lets us in: perhaps another address does, or it has moved.
            self._known.pop(self._place, None)
            self._first += 1
        self._forget_tls()
        self.engine.lost(why)
        self._reactor.look()

    def close(self):
        """Give up what is under way; the reactor drops a connection that is there."""
        if self.state in (RESOLVING, CONNECTING, SECURING):
            self._hang_up()
            self.state = IDLE


def _words(error):
    """What an OSError says, without its number where there is more."""
    return getattr(error, "strerror", None) or str(error)
