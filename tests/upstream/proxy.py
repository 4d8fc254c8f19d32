"""A network between an edge broker and its upstream, which a test may spoil.

                 up ->                    up ->
    edge broker -------- Proxy.port ... ---------- upstream
                <- down                  <- down

One thread carries every connection's octets. What a test sets counts from then on, for connections
that are there and for those that come:

    chunk       octets sent at once; 0: as they come
    delay       s that octets are under way, each direction
    stalled     a set of directions, UP and DOWN, in which nothing is carried: it waits

A proxy for the upstream that is down: refuse() until admit().
"""

import collections
import select
import socket
import struct
import threading
import time

import wire

UP, DOWN = "up", "down"
_RECEIVE = 65536
_AHEAD = 1 << 20  # octets that wait in the proxy for one direction; then senders feel it
_TURN_S = 0.005
_LINGER_0 = struct.pack("ii", 1, 0)  # close() sends RST


class Proxy:
    """
    port        where it listens on 127.0.0.1
    accepted    connections so far
    octets      {UP: octets carried so far, DOWN: ...}
    """

    def __init__(self, port, host="127.0.0.1"):
        self.target = (host, port)
        self.chunk = 0
        self.delay = 0
        self.stalled = set()
        self.accepted = 0
        self.octets = {UP: 0, DOWN: 0}
        self._listener = None
        self._trap = None  # for whichever connection runs into it first
        self._links = []
        self._silent = []  # sockets nobody serves any more, open until close()
        self._lock = threading.RLock()  # over all links and the listener
        self._closed = False
        self.port = 0
        self.admit()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # --- what a test does ---

    def refuse(self):
        """New connections are refused (ECONNREFUSED). Those that are there stay."""
        with self._lock:
            if self._listener:
                self._listener.close()
                self._listener = None
        time.sleep(3 * _TURN_S)  # while select() waits for it, the kernel goes on listening

    def admit(self):
        """New connections are carried again, at the same port."""
        with self._lock:
            if self._listener is None:
                listener = socket.socket()
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", self.port))
                listener.listen(64)
                listener.setblocking(False)
                self.port = listener.getsockname()[1]
                self._listener = listener

    def cut(self):
        """Reset every connection, on both sides. How many there were."""
        with self._lock:
            count = len(self._links)
            for link in list(self._links):
                self._reset(link)
            return count

    def vanish(self):
        """From now on nothing passes through the connections that are there: no octet, no FIN.

        Both ends find their sockets open, for good. New connections work.
        """
        with self._lock:
            count = len(self._links)
            for link in list(self._links):
                self._forget(link)
            return count

    def trap(self, method="basic.ack", octets=11, reset=False):
        """Carry only the first *octets* of the next frame from the upstream that is *method*.

        Then its connection vanishes, or is reset. With None it is any frame. The default is half
        of a confirm. Returns an Event that is set when it has happened. Not for TLS.
        """
        name = method and struct.pack(">HH", *wire.IDS[method])
        with self._lock:
            self._trap = _Trap(name, octets, reset)
            return self._trap.done

    def open(self):
        """How many connections there are now."""
        with self._lock:
            return len(self._links)

    def close(self):
        self._closed = True
        self._thread.join()
        self.refuse()
        self.cut()
        for sock in self._silent:
            sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # --- the thread ---

    def _run(self):
        while not self._closed:
            with self._lock:
                readable, writable = self._interests()
            # Without the lock, so that a test can do something meanwhile; a socket that it closes
            # now is found closed below.
            try:
                ready = select.select(readable, writable, [], _TURN_S)
            except (OSError, ValueError):
                continue
            with self._lock:
                if self._listener in ready[0]:
                    self._accept()
                now = time.monotonic()
                for link in list(self._links):
                    try:
                        self._carry(link, ready[0], now)
                    except OSError:
                        self._reset(link)

    def _interests(self):
        readable = [self._listener] if self._listener else []
        writable = []
        now = time.monotonic()
        for link in self._links:
            for pipe in link:
                if pipe.direction not in self.stalled:
                    if pipe.waiting < _AHEAD and not pipe.ended:
                        readable.append(pipe.source)
                    if pipe.due(now):
                        writable.append(pipe.sink)
        return readable, writable

    def _accept(self):
        try:
            edge, _ = self._listener.accept()
        except OSError:
            return
        self.accepted += 1
        try:
            upstream = socket.create_connection(self.target, 5)
        except OSError:
            edge.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            edge.close()
            return
        for sock in (edge, upstream):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._links.append((_Pipe(UP, edge, upstream), _Pipe(DOWN, upstream, edge)))

    def _carry(self, link, readable, now):
        for pipe in link:
            if pipe.direction in self.stalled:
                continue
            if pipe.source in readable and not pipe.ended:
                if pipe.receive(now + self.delay, self._trap if pipe.direction is DOWN else None):
                    self._trap = None
            self.octets[pipe.direction] += pipe.send(now, self.chunk)
            if pipe.trap and not pipe.waiting:
                (self._reset if pipe.trap.reset else self._forget)(link)
                pipe.trap.done.set()
                return
        if all(pipe.over for pipe in link):
            self._close(link)

    def _reset(self, link):
        for pipe in link:
            pipe.sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self._close(link)

    def _close(self, link):
        self._links.remove(link)
        for pipe in link:
            pipe.sink.close()

    def _forget(self, link):
        self._links.remove(link)
        self._silent += [pipe.sink for pipe in link]


class _Trap:
    def __init__(self, method, octets, reset):
        self.method = method
        self.octets = octets
        self.reset = reset
        self.done = threading.Event()


class _Pipe:
    """One direction of one connection."""

    def __init__(self, direction, source, sink):
        self.direction = direction
        self.source = source
        self.sink = sink
        self.ended = False  # the source sends nothing more
        self.over = False  # and the sink knows it
        self.trap = None  # the one it has gone into: nothing more is taken
        self.waiting = 0  # octets in _parts
        self._parts = collections.deque()  # (when it is due, octets)
        self._frames = direction is DOWN  # whether there are frames to be looked at
        self._skip = 0  # octets to come before the next frame begins
        self._held = b""  # the beginning of a frame, too short to tell what it is

    def due(self, now):
        return bool(self._parts and self._parts[0][0] <= now) or (self.ended and not self.over)

    def receive(self, due, trap):
        """Take what the source has; whether it goes into *trap*."""
        try:
            data = self.source.recv(_RECEIVE)
        except BlockingIOError:
            return False
        if self.trap:
            return False
        if not data:
            self.ended = True
            self._put(due, self._held)
        elif self._frames:
            data = self._held + data
            n = self._watch(data, trap)
            self._held = b"" if self.trap else data[n:]
            self._put(due, data[:n])
        else:
            self._put(due, data)
        return self.trap is not None

    def _put(self, due, data):
        if data:
            self._parts.append((due, data))
            self.waiting += len(data)

    def _watch(self, data, trap):
        """Follow the frames through *data*: how many octets of it are to be carried."""
        i = self._skip
        while len(data) - i >= 7:
            kind, _, size = struct.unpack(">BHI", data[i : i + 7])
            if kind not in (1, 2, 3, 8):  # no frames: TLS, a protocol header, or a test's garbage
                self._frames = False
                return len(data)
            if kind == 1 and len(data) - i < 11:
                break
            if trap and trap.method in (None, data[i + 7 : i + 11] if kind == 1 else b""):
                self.trap = trap
                return i + trap.octets
            i += size + 8
        n = min(i, len(data))
        self._skip = i - n
        return n

    def send(self, now, chunk):
        """Send what is due: how many octets."""
        sent = 0
        while self._parts and self._parts[0][0] <= now:
            due, data = self._parts.popleft()
            n = self._send(data, chunk)
            sent += n
            if n < len(data):
                self._parts.appendleft((due, data[n:]))
                break
        self.waiting -= sent
        if self.ended and not self._parts and not self.over:
            self.over = True
            self.sink.shutdown(socket.SHUT_WR)
        return sent

    def _send(self, data, chunk):
        n = 0
        # Not more than a turn's worth in small chunks, others have to be served as well.
        stop = min(len(data), 200 * chunk or len(data))
        while n < stop:
            try:
                n += self.sink.send(data[n : n + (chunk or stop)])
            except BlockingIOError:
                break
            if chunk:
                time.sleep(0.0001)  # the receiver shall see it alone
        return n
