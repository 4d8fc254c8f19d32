"""compat.py for CPython, and the description of every name both have."""

import selectors
import socket
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
    """The 32-bit big-endian number at *i*, at most 0x3FFFFFFF."""
    value = buf[i] << 24 | buf[i + 1] << 16 | buf[i + 2] << 8 | buf[i + 3]
    return value if value < 0x3FFFFFFF else 0x3FFFFFFF


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


def find_name(names, buf, i, n):
    """What the dict *names* has for the *n* octets of *buf* from *i*; None when it has nothing."""
    return names.get(bytes(buf[i : i + n]))


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


POLLIN = selectors.EVENT_READ
POLLOUT = selectors.EVENT_WRITE
POLLERR = POLLHUP = 0  # a selector reports them as readable


class Poller:
    """Which sockets are ready; each is known by *who*, the object added with it."""

    def __init__(self):
        self._selector = selectors.DefaultSelector()

    def add(self, sock, who):
        """Wait for octets from *sock*."""
        self._selector.register(sock, selectors.EVENT_READ, who)

    def want(self, sock, who, reading, writing):
        """From now on wait for octets, for room to write, for both or for nothing."""
        events = (POLLIN if reading else 0) | (POLLOUT if writing else 0)
        known = sock in self._selector.get_map()
        if not events:
            # No selector takes an empty mask.
            if known:
                self._selector.unregister(sock)
        elif known:
            self._selector.modify(sock, events, who)
        else:
            self._selector.register(sock, events, who)

    def remove(self, sock):
        """Forget *sock*, before it is closed."""
        if sock in self._selector.get_map():
            self._selector.unregister(sock)

    def wait(self, timeout_ms, ready):
        """Wait at most *timeout_ms*, then call *ready*(who, events) for each that is ready."""
        for key, events in self._selector.select(timeout_ms / 1000):
            ready(key.data, events)


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


def unload(*names):
    """Drop modules of this package that are not needed any more, where memory is short."""


def heap_free():
    return -1


def print_error(error, write):
    import traceback

    write("".join(traceback.format_exception(type(error), error, error.__traceback__)))
