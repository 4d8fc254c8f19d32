"""The only file that asks which Python this is.

Everything that differs between MicroPython and CPython stands here once for each, under one name:
integers and copies on octet buffers (viper machine code on a board, slices on CPython), the
millisecond clock, polling and the non-blocking socket calls. None of the octet helpers and socket
calls allocates on MicroPython's heap.
"""

import socket
import sys

MICROPYTHON = sys.implementation.name == "micropython"

# What u32() answers for anything larger: above every limit, and still a small int on 32 bits.
TOO_LARGE = 0x3FFFFFFF

if MICROPYTHON:
    import gc
    import hashlib
    import select
    from time import ticks_add, ticks_diff, ticks_ms  # noqa: F401 (re-exported)

    import micropython
    from micropython import const  # noqa: F401 (re-exported)

    @micropython.viper
    def u16(buf, i: int) -> int:
        p = ptr8(buf)
        return p[i] << 8 | p[i + 1]

    @micropython.viper
    def u32(buf, i: int) -> int:
        p = ptr8(buf)
        if p[i] > 0x3F:
            return 0x3FFFFFFF
        return p[i] << 24 | p[i + 1] << 16 | p[i + 2] << 8 | p[i + 3]

    @micropython.viper
    def copy(to, at: int, buf, i: int, n: int):
        p = ptr8(to)
        q = ptr8(buf)
        k = 0
        while k < n:
            p[at + k] = q[i + k]
            k += 1

    @micropython.viper
    def equal(buf, i: int, key, n: int) -> bool:
        p = ptr8(buf)
        q = ptr8(key)
        k = 0
        while k < n:
            if p[i + k] != q[k]:
                return False
            k += 1
        return True

    @micropython.viper
    def hash_octets(buf, i: int, n: int) -> int:
        p = ptr8(buf)
        h = 5381
        k = i
        while k < i + n:
            h = (h * 33 ^ p[k]) & 0x3FFFFFFF
            k += 1
        return h

    @micropython.viper
    def find_octet(buf, i: int, end: int, octet: int) -> int:
        p = ptr8(buf)
        while i < end:
            if p[i] == octet:
                return i
            i += 1
        return end

    zeros = bytearray

    def sha256(octets):
        return hashlib.sha256(octets).digest()

    def would_block(error):
        return error.errno in (11, 110, 115)  # EAGAIN, ETIMEDOUT, EINPROGRESS

    def receive(sock, view, n):
        """Read at most *n* octets to the start of *view*: their number, 0 = end, -1 = none yet."""
        try:
            got = sock.readinto(view, n)
        except OSError as error:
            if would_block(error):
                return -1
            raise
        return -1 if got is None else got

    def transmit(sock, view, i, n):
        """Write *n* octets of *view* from *i*: how many the stack took, 0 when it has no room."""
        try:
            done = sock.write(view, i, n)
        except OSError as error:
            if would_block(error):
                return 0
            raise
        return 0 if done is None else done

    class Poller:
        """Which sockets are ready. `wait()` yields the object given with each."""

        def __init__(self):
            self._poll = select.poll()
            self._who = {}

        def add(self, sock, who, writing=False):
            self._who[sock] = who
            self._poll.register(sock, select.POLLIN)

        def want(self, sock, who, reading, writing):
            events = (select.POLLIN if reading else 0) | (select.POLLOUT if writing else 0)
            self._poll.modify(sock, events)

        def remove(self, sock):
            self._poll.unregister(sock)
            del self._who[sock]

        def wait(self, timeout_ms, ready):
            """Call *ready*(who, readable, writable) for each ready socket."""
            who = self._who
            for item in self._poll.ipoll(timeout_ms):
                events = item[1]
                # Errors and hang-ups show up as readable: the read then reports them.
                ready(who[item[0]], events & ~select.POLLOUT != 0, events & select.POLLOUT != 0)

    def listen(host, port, backlog):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(socket.getaddrinfo(host, port)[0][-1])
        sock.listen(backlog)
        sock.setblocking(False)
        return sock

    def accept(sock):
        """(socket, address as text) of the next waiting peer; None when there is none."""
        try:
            peer, address = sock.accept()
        except OSError as error:
            if would_block(error):
                return None
            raise
        peer.setblocking(False)
        return peer, address_text(address)

    def address_text(address):
        if isinstance(address, tuple):
            return address[0]
        # The unix port answers a raw sockaddr_in: family, port, four octets.
        return "%d.%d.%d.%d" % (address[4], address[5], address[6], address[7])

    def local_port(sock, port):
        return port

    def heap_free():
        return gc.mem_free()

    def print_error(error, write):
        sys.print_exception(error)

else:
    import selectors
    from binascii import crc32
    from mmap import mmap
    from time import monotonic_ns

    def const(value):
        return value

    def ticks_ms():
        return monotonic_ns() // 1000000

    def ticks_add(ticks, ms):
        return ticks + ms

    def ticks_diff(a, b):
        return a - b

    def u16(buf, i):
        """The 16-bit big-endian number at *i*."""
        return buf[i] << 8 | buf[i + 1]

    def u32(buf, i):
        """The 32-bit big-endian number at *i*, at most TOO_LARGE."""
        value = buf[i] << 24 | buf[i + 1] << 16 | buf[i + 2] << 8 | buf[i + 3]
        return value if value < TOO_LARGE else TOO_LARGE

    def copy(to, at, buf, i, n):
        """Copy *n* octets of *buf* from *i* to *to* from *at*; forward moves within one are fine."""
        to[at : at + n] = buf[i : i + n]

    def equal(buf, i, key, n):
        """Whether the *n* octets of *buf* from *i* are the first *n* of *key* (which has them)."""
        return buf[i : i + n] == (key if len(key) == n else key[:n])

    def hash_octets(buf, i, n):
        """A hash below 2**30 of *n* octets; the same within one run only."""
        return crc32(buf[i : i + n]) & 0x3FFFFFFF

    def find_octet(buf, i, end, octet):
        """Index of the first *octet* in buf[i:end], *end* when there is none."""
        while i < end:
            if buf[i] == octet:
                return i
            i += 1
        return end

    def zeros(n):
        """*n* writable octets; the system gives each page of them when it is first used."""
        return mmap(-1, n)

    def sha256(octets):
        """The SHA-256 of *octets*, 32 octets."""
        try:
            # hashlib would load all of OpenSSL: 3.5 MB for a process of 14.
            from _sha2 import sha256 as new
        except ImportError:
            try:
                from _sha256 import sha256 as new
            except ImportError:
                from hashlib import sha256 as new
        return new(octets).digest()

    def receive(sock, view, n):
        """Read at most *n* octets to the start of *view*: their number, 0 = end, -1 = none yet."""
        try:
            return sock.recv_into(view, n)
        except (BlockingIOError, InterruptedError):
            return -1

    def transmit(sock, view, i, n):
        """Write *n* octets of *view* from *i*: how many the stack took, 0 when it has no room."""
        try:
            return sock.send(view[i : i + n])
        except (BlockingIOError, InterruptedError):
            return 0

    class Poller:
        """Which sockets are ready."""

        def __init__(self):
            self._selector = selectors.DefaultSelector()

        def add(self, sock, who):
            self._selector.register(sock, selectors.EVENT_READ, who)

        def want(self, sock, who, reading, writing):
            events = (selectors.EVENT_READ if reading else 0) | (
                selectors.EVENT_WRITE if writing else 0
            )
            if not events:
                # A selector takes no empty mask; writable-only would spin. Reading of a peer is
                # only stopped while something else wakes the loop, so leave it out for now.
                if sock in self._selector.get_map():
                    self._selector.unregister(sock)
            elif sock in self._selector.get_map():
                self._selector.modify(sock, events, who)
            else:
                self._selector.register(sock, events, who)

        def remove(self, sock):
            if sock in self._selector.get_map():
                self._selector.unregister(sock)

        def wait(self, timeout_ms, ready):
            """Call *ready*(who, readable, writable) for each ready socket."""
            for key, events in self._selector.select(timeout_ms / 1000):
                ready(
                    key.data,
                    events & selectors.EVENT_READ != 0,
                    events & selectors.EVENT_WRITE != 0,
                )

    def listen(host, port, backlog):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen(backlog)
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        return sock

    def accept(sock):
        """(socket, address as text) of the next waiting peer; None when there is none."""
        try:
            peer, address = sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return None
        peer.setblocking(False)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return peer, address[0]

    def local_port(sock, port):
        return sock.getsockname()[1]

    def heap_free():
        return -1

    def print_error(error, write):
        import traceback

        write("".join(traceback.format_exception(type(error), error, error.__traceback__)))
