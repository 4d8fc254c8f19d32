"""compat.py for MicroPython. Nothing that handles octets or waits
for sockets allocates on the heap.

The names and what they do are documented in compat_cpython.py.
"""

import gc
import hashlib
import select
import socket
import sys
from array import array
from select import POLLERR, POLLHUP, POLLIN, POLLOUT  # noqa: F401 (re-exported)
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


def find_name(names, buf, i, n):
    for name in names:
        if len(name) == n and equal(buf, i, name, n):
            return names[name]
    return None


zeros = bytearray


def sha256(octets):
    return hashlib.sha256(octets).digest()


def _would_block(error):
    return error.errno in (11, 110, 115)  # EAGAIN, ETIMEDOUT, EINPROGRESS


def receive(sock, view, n):
    """Read at most *n* octets to the start of *view*: their number, 0 = end, -1 = none yet."""
    try:
        got = sock.readinto(view, n)
    except OSError as error:
        if _would_block(error):
            return -1
        raise
    return -1 if got is None else got


def transmit(sock, view, i, n):
    """Write *n* octets of *view* from *i*: how many the stack took, 0 when it has no room."""
    try:
        done = sock.write(view, i, n)
    except OSError as error:
        if _would_block(error):
            return 0
        raise
    return 0 if done is None else done


class Poller:
    def __init__(self):
        self._poll = select.poll()
        self._who = {}
        # The set may not change while ipoll() walks it: what is ready is noted first.
        self.ready = []
        self.events = []

    def add(self, sock, who):
        self._who[sock] = who
        self._poll.register(sock, select.POLLIN)
        if len(self.ready) < len(self._who):
            self.ready.append(None)
            self.events.append(0)

    def want(self, sock, who, reading, writing):
        self._poll.modify(sock, (POLLIN if reading else 0) | (POLLOUT if writing else 0))

    def remove(self, sock):
        self._poll.unregister(sock)
        del self._who[sock]

    def wait(self, timeout_ms):
        who = self._who
        n = 0
        for item in self._poll.ipoll(timeout_ms):
            self.ready[n] = who[item[0]]
            self.events[n] = item[1]
            n += 1
        return n


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
        if _would_block(error):
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


class Resolver:
    def __init__(self, host, port):
        self._place = host, port

    def result(self):
        # Blocks everybody; there is no other way on a board.
        return [socket.getaddrinfo(*self._place)[0][-1]]


def dial(address):
    gc.collect()  # a socket that was closed may still take memory of the network stack
    sock = socket.socket()
    sock.setblocking(False)
    try:
        sock.connect(address)
    except OSError as error:
        if not _would_block(error):
            sock.close()
            raise
    return sock


def check_dialled(sock, events):
    if events & (POLLERR | POLLHUP):
        sock.read(1)  # raises what went wrong
        raise OSError(104)  # ECONNRESET


loader = None  # of a board that has modules in flash: function(name), before one is imported late


def load(name):
    module = sys.modules.get(name)
    if module is None:
        gc.collect()
        before = list(sys.modules)
        try:
            if loader is not None:
                loader(name)
            module = __import__(name, None, None, ("*",))
        except MemoryError:
            for other in list(sys.modules):
                if other not in before:
                    _forget(other)
            gc.collect()
            raise
    return module


def unload(*names):
    for name in names:
        _forget("amqp_lite." + name)
    gc.collect()


def _forget(name):
    sys.modules.pop(name, None)
    package, _, module = name.rpartition(".")
    package = sys.modules.get(package)
    if hasattr(package, module):
        delattr(package, module)


def heap_free():
    return gc.mem_free()


def print_error(error, write):
    sys.print_exception(error)


_CRC_TABLE = array("I", [0] * 16)  # of half an octet: a table of 256 would take a kilobyte


def _fill_crc_table():
    for k in range(16):
        c = k
        for _ in range(4):
            c = c >> 1 ^ 0xEDB88320 if c & 1 else c >> 1
        _CRC_TABLE[k] = c


_fill_crc_table()


@micropython.viper
def _crc32(table, crc, buf, i: int, n: int):
    # The register has 32 bits, which an object would only hold on the heap: it stays in octets.
    t = ptr32(table)
    s = ptr8(crc)
    p = ptr8(buf)
    mask = uint(0xFFFFFFFF)
    c = (uint(s[0]) << 24 | uint(s[1]) << 16 | uint(s[2]) << 8 | uint(s[3])) ^ mask
    end = i + n
    while i < end:
        c ^= uint(p[i])
        c = (uint(t[int(c & uint(15))]) & mask) ^ (c >> 4)
        c = (uint(t[int(c & uint(15))]) & mask) ^ (c >> 4)
        i += 1
    c ^= mask
    s[0] = int(c >> 24)
    s[1] = int(c >> 16)
    s[2] = int(c >> 8)
    s[3] = int(c)


def crc32(crc, buf, i, n):
    _crc32(_CRC_TABLE, crc, buf, i, n)


@micropython.viper
def fill(buf, i: int, n: int, octet: int):
    p = ptr8(buf)
    end = i + n
    while i < end:
        p[i] = octet
        i += 1


@micropython.viper
def same(a, i: int, b, j: int, n: int) -> bool:
    p = ptr8(a)
    q = ptr8(b)
    k = 0
    while k < n:
        if p[i + k] != q[j + k]:
            return False
        k += 1
    return True


@micropython.viper
def is_blank(buf, i: int, n: int) -> bool:
    p = ptr8(buf)
    end = i + n
    while i < end:
        if p[i] != 0xFF:
            return False
        i += 1
    return True


@micropython.viper
def newest_upto(orders, n: int, order: int) -> int:
    p = ptr32(orders)
    found = -1
    best = 0
    k = 0
    while k < n:
        if p[k] > best and p[k] <= order:
            best = p[k]
            found = k
        k += 1
    return found


@micropython.viper
def oldest_from(orders, n: int, order: int) -> int:
    p = ptr32(orders)
    found = -1
    best = 0x3FFFFFFF
    k = 0
    while k < n:
        if p[k] >= order and p[k] < best and p[k] > 0:
            best = p[k]
            found = k
        k += 1
    return found


def open_exclusive(path):
    try:
        return open(path, "r+b", 0)
    except OSError as error:
        if error.errno != 2:  # ENOENT
            raise
    return open(path, "w+b", 0)


def read_file(file, position, view):
    file.seek(position)
    file.readinto(view)


def write_file(file, position, buf, i, n):
    file.seek(position)
    file.write(buf, i, n)


def sync_file(file):
    file.flush()  # littlefs commits then, the Unix port calls fsync()


def sync_entry(path):
    pass  # littlefs is never late with it


@micropython.viper
def apply_patches(entries, n: int, buf, at: int, start: int, size: int) -> int:
    p = ptr8(entries)
    q = ptr8(buf)
    last = -1
    k = 0
    while k + 4 <= n:
        if p[k] ^ p[k + 1] ^ p[k + 2] ^ p[k + 3] == 0x5A:
            offset = p[k] << 8 | p[k + 1]
            if offset > last:
                last = offset
            i = offset - start
            if 0 <= i and i < size:
                q[at + i] &= 0xFF ^ p[k + 2]
        k += 4
    return last


def tls_client(check):
    from .compat_tls_micropython import Client

    return Client(check)


def unread(sock):
    return False  # a TLS socket tells the poller itself
