"""The reactor: one thread, all sockets, one step at a time.

A step waits until something is ready, feeds what came to the engines, lets the store commit, and
writes once to each peer that has output. No other file touches a socket.
"""

from ..compat import (
    POLLERR,
    POLLHUP,
    POLLOUT,
    Poller,
    print_error,
    receive,
    ticks_add,
    ticks_diff,
    ticks_ms,
    transmit,
    unread,
    zeros,
)
from ..log import log
from .budget import SLOW_WRITE_MS, Account, OutputBudget
from .listener import V10_HEADER, Greeting, Listener

_COMMIT_MS = 20  # how soon to look again when the store gathers more for one commit


class Peer:
    """What the reactor keeps of one connection."""

    joined = True  # the engine is served; a Caller is not while it connects

    def __init__(self, engine):
        self.engine = engine
        self.account = Account()
        self.sock = None
        self.open(None)

    def open(self, sock):
        """*sock* is connected."""
        self.sock = sock
        self.account.reset()
        self.reading = True  # what the poller watches for
        self.writing = False
        self.clogged = False  # the socket took less than it was given: wait until it is writable
        self.owed = 0  # octets a TLS socket was offered and did not take: next it wants just them
        self.held_back = False  # output waits for the budget
        self.secure = None  # what the socket has of TLS; a Guest's: its ServerTls


class Guest(Peer):
    """A slot for a peer that connects: made once, reused for one peer after the other."""

    def __init__(self, broker, engine, make_v10):
        self.greeting = Greeting(broker, make_v10 is not None)
        self._v091 = engine
        self._v10 = None  # made with the first peer that speaks it
        self._make_v10 = make_v10
        Peer.__init__(self, self.greeting)

    def greet(self, sock, address, deadline, tls):
        self.open(sock)
        self.secure = tls
        self.engine = self.greeting
        self.greeting.open(address, deadline)

    def heard(self):
        """Octets were fed: with its header the peer chose the engine."""
        greeting = self.greeting
        if self.engine is greeting and greeting.agreed:
            engine = self._v091
            if greeting.agreed is V10_HEADER:
                if self._v10 is None:
                    self._v10 = self._make_v10(engine)
                engine = self._v10
            self.engine = engine
            subject = self.secure and self.secure.subject(self.sock)
            engine.open(greeting.name, greeting.deadline, subject)

    def dropped(self, why):
        if self.secure:
            self.secure.dropped(self.engine.name, why)
        self.engine.lost()


class Reactor:
    """
    broker       the model, whose clock this turns
    engines      one of AMQP 0-9-1 for each peer that can be connected to us at once
    make_v10     function(engine): one of AMQP 1.0 for the same peers as that one; None: they
                 speak 0-9-1 only
    strangers    connections without login at once; the oldest goes when one more comes
    read_octets  read from a socket at once
    login_ms     from accept to login
    budget       octets under way over all connections, 0 = no limit; stack_send: see budget.py
    """

    def __init__(
        self, broker, engines, make_v10, strangers, read_octets, login_ms, budget, stack_send
    ):
        self.listeners = []
        self._broker = broker
        self._free = [Guest(broker, engine, make_v10) for engine in engines]
        self._callers = []
        self._peers = []
        self._strangers = strangers
        self._login_ms = login_ms
        self._budget = OutputBudget(budget, stack_send) if budget else None
        self._accounts = [peer.account for peer in self._free]
        self._buffer = memoryview(zeros(read_octets))
        self._poller = Poller()
        self._busy = False  # somebody sent something in this step
        self._again = False  # somebody has more to do than one step allows
        self._ticked = ticks_ms()
        self._next_tick = 0
        broker.now = self._ticked

    def listen(self, host, port, tls=None):
        """Accept peers there, with a ServerTls *tls* those who speak TLS.

        Raises OSError. The port that was taken, for port 0.
        """
        listener = Listener(host, port, tls)
        self.listeners.append(listener)
        self._poller.add(listener.sock, listener)
        return listener.port

    def add_caller(self, caller):
        """Turn *caller*, too: see caller.py."""
        self._callers.append(caller)
        self._accounts.append(caller.account)

    def watch(self, caller, writing):
        """Tell *caller* by on_ready() when its socket can be read, or written when *writing*."""
        if not caller.watched:
            caller.watched = True
            self._poller.add(caller.sock, caller)
        self._poller.want(caller.sock, caller, not writing, writing)

    def unwatch(self, caller):
        if caller.watched:
            caller.watched = False
            self._poller.remove(caller.sock)

    def join(self, caller):
        """The connection of *caller* is there: its engine is served as all others."""
        self.watch(caller, False)  # a TLS socket whose handshake took one step is not yet
        self._peers.append(caller)
        self._again = True

    def look(self):
        """Something became due before the next tick: the next step looks again."""
        self._next_tick = 0

    def hurry(self):
        """There is something to do: the next step does not wait."""
        self._again = True

    def connections(self):
        """The engines of all connected peers."""
        return [peer.engine for peer in self._peers]

    def step(self, timeout_ms):
        """Wait at most *timeout_ms* for something to do, and do it."""
        broker = self._broker
        if self._again:
            timeout_ms = 0
        elif timeout_ms > self._next_tick:
            timeout_ms = self._next_tick
        if not broker.committed and timeout_ms > _COMMIT_MS:
            timeout_ms = _COMMIT_MS
        self._again = False
        poller = self._poller
        k = poller.wait(timeout_ms)
        while k:
            k -= 1
            self._ready(poller.ready[k], poller.events[k])
        broker.now = now = ticks_ms()
        if broker.freed:
            broker.freed = False
            self._resume()
        # Behind everything that publishes, before everything that confirms.
        try:
            broker.committed = broker.store.commit()
            if broker.behind and broker.committed:
                broker.catch_up()
        except Exception as error:
            self._store_fault(error)
        peers = self._peers
        k = len(peers)
        while k:
            # Backwards, because a peer may leave the list, and rarely take another one with it.
            k -= 1
            if k >= len(peers):
                continue
            peer = peers[k]
            engine = peer.engine
            try:
                if peer.secure and engine.room() and unread(peer.sock):
                    self._again = True
                    self._read(peer)
                    broker.committed = broker.store.commit()  # or pump() confirms what is not
                engine.pump()
                if engine.output.pending and not peer.clogged:
                    self._write(peer, now)
                if engine.stalled:
                    engine.resume()
                    if not engine.stalled:
                        self._again = True  # others may have got something from it
                self._watch(peer)
            except Exception as error:
                self._fault(peer, error)
        if ticks_diff(now, self._ticked) >= self._next_tick:
            self._tick(now)
        if not self._again and not self._busy:
            try:
                broker.store.idle()
            except Exception as error:
                self._store_fault(error)
        self._busy = False

    def _resume(self):
        """Memory became free: those who wait for some try again."""
        for peer in list(self._peers):
            if peer.engine.stalled:
                self._again = True
                try:
                    peer.engine.resume()
                except Exception as error:
                    self._fault(peer, error)

    def _tick(self, now):
        self._ticked = now
        wait = 1000
        for peer in list(self._peers):
            try:
                wait = min(wait, peer.engine.tick())
            except Exception as error:
                self._fault(peer, error)
                continue
            if self._budget is not None and self._budget.is_stalled(
                peer.account, self._accounts, now
            ):
                self._cut(peer, "it does not read")
            elif peer.engine.closed or peer.engine.output.pending:
                self._again = True
        for caller in self._callers:
            try:
                wait = min(wait, caller.tick(now))
            except Exception as error:
                self._caller_fault(caller, error)
        try:
            self._broker.tick()
        except Exception as error:
            self._store_fault(error)
        self._next_tick = max(wait, 1)

    def _ready(self, who, events):
        if isinstance(who, Listener):
            self._accept(who)
            return
        if who.sock is None:
            return  # dropped a moment ago, for another one's sake
        self._broker.now = ticks_ms()  # the wait may have been long
        if not who.joined:
            try:
                who.on_ready(events)
            except Exception as error:
                self._caller_fault(who, error)
            return
        if events & POLLOUT:
            who.clogged = False
        if not events & ~POLLOUT:
            return
        if who.engine.room():
            self._read(who)
        elif events & (POLLHUP | POLLERR):
            self._drop(who, "the connection is gone")

    def _read(self, peer):
        engine = peer.engine
        room = engine.room()
        if room > len(self._buffer):
            room = len(self._buffer)
        try:
            n = receive(peer.sock, self._buffer, room)
        except OSError as error:
            log.debug("%s: %s", engine.name, error)
            self._drop(peer, error)
            return
        if not n:
            self._drop(peer, "the peer hung up")
        elif n > 0:
            self._busy = True
            if self._budget is not None:
                peer.account.heard(self._broker.now)
            try:
                engine.feed(self._buffer, n)
                peer.heard()
            except Exception as error:
                self._fault(peer, error)

    def _store_fault(self, error):
        """An error while nobody's octets were looked at: the device's, or a bug of ours."""
        print_error(error, log.error)
        if isinstance(error, OSError):
            self._broker.store.fail()

    def _fault(self, peer, error):
        """A bug of ours, or too little memory, may cost this peer, never the others."""
        if isinstance(error, MemoryError):
            self._cut(peer, "out of memory")
            return
        print_error(error, log.error)
        self._cut(peer, "an error of the broker")

    def _caller_fault(self, caller, error):
        print_error(error, log.error)
        try:
            caller.fail("out of memory" if isinstance(error, MemoryError) else "an error of ours")
        except Exception as again:
            print_error(again, log.error)

    def _accept(self, listener):
        while True:
            try:
                accepted = listener.accept()
            except (OSError, MemoryError) as error:
                # Out of files, sockets or memory: whoever waits is accepted when there are some.
                log.error("nobody accepted: %s", error)
                return
            if accepted is None:
                return
            sock, address = accepted
            self._make_way()
            if not self._free:
                log.warning(
                    "%s refused: %d connections are all there are", address, len(self._peers)
                )
                self._broker.metrics.connections_refused += 1
                sock.close()
                continue
            peer = self._free.pop()
            deadline = ticks_add(self._broker.now, self._login_ms)
            peer.greet(sock, address, deadline, listener.tls)
            peer.account.heard(self._broker.now)
            self._peers.append(peer)
            self._poller.add(sock, peer)

    def _make_way(self):
        """The oldest peer without a login goes when there are too many of them."""
        strangers = [peer for peer in self._peers if peer.engine.user is None]
        if strangers and (not self._free or len(strangers) >= self._strangers):
            self._cut(strangers[0], "another peer wants to log in")

    def _write(self, peer, now):
        engine = peer.engine
        n = peer.owed or engine.output.pending
        budget = self._budget
        if budget is not None and not peer.owed:
            peer.account.prove(engine.output)
            allowed = budget.allowance(peer.account, self._accounts, n, now)
            peer.held_back = allowed < n
            n = allowed
            if not n:
                return
            now = ticks_ms()  # those before may have been slow
        try:
            taken = transmit(peer.sock, engine.output.view, 0, n)
        except OSError as error:
            log.debug("%s: %s", engine.name, error)
            self._drop(peer, error)
            return
        peer.clogged = taken < n
        peer.owed = n - taken if peer.secure else 0
        if budget is not None:
            budget.wrote(peer.account, n, taken, now)
            if ticks_diff(ticks_ms(), now) >= SLOW_WRITE_MS:
                self._slow_write(peer)
                return
        if taken:
            engine.output.sent(taken)
            if not peer.clogged and not engine.closed:
                engine.pump()
                if engine.output.pending:
                    self._again = True

    def _slow_write(self, peer):
        """The stack was full: what it says it took may be lost, and somebody filled it."""
        worst = peer
        for other in self._peers:
            if ticks_diff(other.account.heard_at, worst.account.heard_at) < 0:
                worst = other
        if worst is not peer:
            self._cut(worst, "it does not read and fills the network stack")
        self._cut(peer, "a write took longer than %d ms" % SLOW_WRITE_MS)

    def _watch(self, peer):
        """Tell the poller what this peer waits for; end it when it has nothing left to say."""
        engine = peer.engine
        if peer.sock is None:
            return
        if engine.closed and not engine.output.pending:
            self._drop(peer, None)
            return
        reading = engine.room() > 0
        # What the budget holds back comes with a proof or with time, not with a writable socket.
        writing = engine.output.pending > 0 and not peer.held_back
        if peer.held_back and self._next_tick > 50:
            self._next_tick = 50
        if reading != peer.reading or writing != peer.writing:
            peer.reading = reading
            peer.writing = writing
            self._poller.want(peer.sock, peer, reading, writing)

    def _cut(self, peer, why):
        self._broker.metrics.peers_cut += 1
        self._drop(peer, why)
        try:
            log.warning("%s cut: %s", peer.engine.name, why)
        except MemoryError:
            pass  # that is why it was cut

    def _drop(self, peer, why):
        sock = peer.sock
        if sock is None:
            return
        peer.sock = None
        self._poller.remove(sock)
        sock.close()
        if self._budget is not None:
            self._budget.closed(peer.account, self._broker.now)
        peer.account.reset()
        self._peers.remove(peer)
        if isinstance(peer, Guest):
            self._free.append(peer)
        try:
            peer.dropped(why)
        except Exception as error:
            self._store_fault(error)
        # Its messages may be somebody else's now.
        self._again = True

    def close(self):
        """Hang up on everybody and stop listening."""
        for caller in self._callers:
            caller.close()
        for peer in list(self._peers):
            self._drop(peer, "the broker ends")
        for listener in self.listeners:
            self._poller.remove(listener.sock)
            listener.close()
        self.listeners.clear()
