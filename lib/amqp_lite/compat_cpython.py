"""compat.py for CPython, and the description of every name both have."""

import errno
import os
import selectors
import socket
import sys
from binascii import crc32 as _crc32
from importlib import import_module
from mmap import mmap
from time import monotonic_ns

_pwrite = getattr(os, "pwrite", None)  # not on Windows
_preadv = getattr(os, "preadv", None)
_datasync = getattr(os, "fdatasync", os.fsync)


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
    return _crc32(buf[i : i + n]) & 0x3FFFFFFF


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
    """Which sockets are ready; each is known by *who*, the object added with it.

    wait() notes them in `ready`, and for what in `events`, instead of calling somebody: what is
    done for them needs all calls that the stack of a board has room for.
    """

    def __init__(self):
        self._selector = selectors.DefaultSelector()
        self.ready = []
        self.events = []

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

    def wait(self, timeout_ms):
        """Wait at most *timeout_ms*: how many are ready."""
        found = self._selector.select(timeout_ms / 1000)
        self.ready = [key.data for key, _ in found]
        self.events = [events for _, events in found]
        return len(found)


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


class Resolver:
    """A name being looked up, beside everything else where threads are to be had."""

    def __init__(self, host, port):
        import _thread

        self._found = None
        _thread.start_new_thread(self._look, (host, port))

    def _look(self, host, port):
        try:
            rows = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
            self._found = [(row[0], row[4]) for row in rows]
        except (OSError, UnicodeError) as error:
            self._found = error

    def result(self):
        """Addresses for dial(); None: not known yet. Raises OSError."""
        found = self._found
        if isinstance(found, Exception):
            raise OSError(getattr(found, "strerror", None) or str(found))
        return found


def dial(address):
    """A socket that connects to *address*, of Resolver.result(). Raises OSError."""
    sock = socket.socket(address[0], socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        sock.connect(address[1])
    except (BlockingIOError, InterruptedError):
        pass
    except OSError:
        sock.close()
        raise
    return sock


def check_dialled(sock, events):
    """Raises OSError when the socket of dial(), which is ready for *events*, did not connect."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def load(name):
    """The module *name* of this package, imported when it is needed first.

    On a board that has code in flash, what it imports is loaded one by one. Raises MemoryError:
    nothing of it is left then.
    """
    return sys.modules.get(name) or import_module(name)


def unload(*names):
    """Drop modules of this package that are not needed any more, where memory is short."""


def heap_free():
    return -1


def print_error(error, write):
    import traceback

    write("".join(traceback.format_exception(type(error), error, error.__traceback__)))


def crc32(crc, buf, i, n):
    """Go on with the CRC-32 in the four octets *crc*, big-endian, over *n* octets from *i*.

    Four zero octets begin one. It stays in octets, because an object of a 32-bit board would need
    heap memory for it.
    """
    crc[:] = _crc32(buf[i : i + n], int.from_bytes(crc, "big")).to_bytes(4, "big")


def fill(buf, i, n, octet):
    """Set *n* octets from *i* to *octet*."""
    buf[i : i + n] = bytes((octet,)) * n


def same(a, i, b, j, n):
    """Whether *n* octets of *a* from *i* are those of *b* from *j*."""
    return a[i : i + n] == b[j : j + n]


def is_blank(buf, i, n):
    """Whether the *n* octets from *i* are all 0xFF, as flash is after an erase."""
    return buf[i : i + n] == b"\xff" * n


def newest_upto(orders, n, order):
    """Index of the largest of the first *n* numbers in *orders* from 1 to *order*; -1: none."""
    best = max([value for value in orders if value <= order], default=0)
    return orders.index(best) if best else -1


def oldest_from(orders, n, order):
    """Index of the smallest of the first *n* numbers in *orders* that is >= *order*, which is
    above 0; -1: none."""
    best = min([value for value in orders if value >= order], default=0)
    return orders.index(best) if best else -1


def open_exclusive(path):
    """The file at *path* to read and write without a buffer, made when there is none.

    Raises OSError, EBUSY when it is open already (elsewhere or here; not on Windows).
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    file = os.fdopen(fd, "r+b", 0)
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock
    except ImportError:  # Windows
        return file
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        file.close()
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    except OSError:
        file.close()
        raise
    return file


def read_file(file, position, view):
    """Fill *view* with the octets of *file* from *position*; at the end of it, with fewer."""
    if _preadv is None:
        file.seek(position)
        file.readinto(view)
    else:
        _preadv(file.fileno(), (view,), position)


def write_file(file, position, buf, i, n):
    """Write the *n* octets of *buf* from *i* to *position* of *file*. Raises OSError."""
    if _pwrite is None:
        file.seek(position)
        done = file.write(buf[i : i + n])
    else:
        done = _pwrite(file.fileno(), buf[i : i + n], position)
    if done < n:
        # The system says why it stopped when it is asked for the rest.
        write_file(file, position + done, buf, i + done, n - done)


def sync_file(file):
    """What was written to *file* survives a power cut. Raises OSError."""
    _datasync(file.fileno())


def sync_entry(path):
    """So does that *path* was made or removed. Raises OSError."""
    if os.name == "nt":
        return  # folders cannot be opened there
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def apply_patches(entries, n, buf, at, start, size):
    """Clear bits in the *size* octets at *at* of *buf*, which are those of a sector from *start*.

    entries  *n* octets: offset in the sector u16, bits to clear u8, 0x5A ^ the three before.
             What does not match that counts as none.

    Returns the largest offset in them, -1 when there is none.
    """
    last = -1
    for k in range(0, n - 3, 4):
        offset = entries[k] << 8 | entries[k + 1]
        if entries[k] ^ entries[k + 1] ^ entries[k + 2] ^ entries[k + 3] == 0x5A:
            last = max(last, offset)
            if start <= offset < start + size:
                buf[at + offset - start] &= ~entries[k + 2]
    return last


def tls_client(check):
    """Makes TLS sockets: the Client of compat_tls_cpython.py, loaded with the first one."""
    from .compat_tls_cpython import Client

    return Client(check)


def tls_server():
    """The same for peers that come to us: not on MicroPython."""
    from .compat_tls_cpython import Server

    return Server()


def unread(sock):
    """Whether octets wait inside of a TLS *sock*, where no poller sees them."""
    return sock.pending() > 0
