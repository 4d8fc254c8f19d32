"""Listening sockets, and the first eight octets of a peer."""

from ..compat import accept, listen, local_port, ticks_diff
from ..log import log

V091_HEADER = b"AMQP\x00\x00\x09\x01"  # AMQP 0-9-1 §4.2.2
V10_HEADER = b"AMQP\x03\x01\x00\x00"  # of SASL, AMQP 1.0 §5.3.1

# How other protocols begin, for the log: people point MQTT clients and browsers at AMQP ports.
_OTHERS = (
    (b"AMQP\x03", "SASL of another version of AMQP"),
    (b"AMQP\x00\x01\x00\x00", "AMQP 1.0 without SASL"),
    (b"AMQP\x01\x01\x00\x09", "AMQP 0-9"),
    (b"AMQP\x01\x01\x08", "AMQP 0-8"),
    (b"AMQP", "another version of AMQP"),
    (b"\x16\x03", "TLS"),
    (b"\x10", "MQTT"),
    (b"GET ", "HTTP"),
    (b"POST", "HTTP"),
    (b"PUT ", "HTTP"),
    (b"HEAD", "HTTP"),
    (b"PRI ", "HTTP/2"),
    (b"CONNECT", "STOMP or HTTP"),
)


class Listener:
    """One listening socket; *tls*: the ServerTls of its peers, or None."""

    def __init__(self, host, port, tls):
        self.host = host
        self.tls = tls
        self.sock = listen(host, port, 8)
        self.port = local_port(self.sock, port)

    def accept(self):
        """(socket, address) of the next waiting peer, or None."""
        return accept(self.sock) if self.tls is None else self.tls.accept(self.sock)

    def close(self):
        self.sock.close()


class _Header:
    """The output of a Greeting: a protocol header of ours, once."""

    def __init__(self):
        self.view = b""
        self.pending = 0
        self.written = 0
        self.proven = 0

    def owes(self):
        return False

    def sent(self, n):
        self.view = self.view[n:]
        self.pending -= n


class Greeting:
    """The engine of a peer until it has sent its protocol header.

    Same face as the protocol engines; `agreed` becomes the header when it is one of ours, and the
    reactor puts the engine for it in this one's place. Any other is answered with one of ours:
    AMQP 0-9-1 §4.2.2, AMQP 1.0 §2.2.

    has_v10  whether AMQP 1.0 is one of ours
    """

    stalled = False
    user = None

    def __init__(self, broker, has_v10=True):
        self._broker = broker
        self._has_v10 = has_v10
        self.output = _Header()
        self.name = ""
        self.agreed = None
        self.closed = True
        self.deadline = 0
        self._got = bytearray(8)
        self._n = 0

    def open(self, address, deadline):
        self.name = address
        self.deadline = deadline
        self.output = _Header()
        self.agreed = None
        self.closed = False
        self._n = 0

    def room(self):
        return 8 - self._n

    def feed(self, buf, n):
        if self.closed:
            return
        for k in range(n):
            self._got[self._n] = buf[k]
            self._n += 1
        n = self._n
        for ours in (V091_HEADER, V10_HEADER):
            if ours is V10_HEADER and not self._has_v10:
                break
            if self._got[:n] == ours[:n]:
                if n == 8:
                    self.agreed = ours
                return
        got = self._got[:n]
        is_v10 = got.startswith(V10_HEADER[:5]) or got.startswith(b"AMQP\0\1")
        if is_v10 and not self._has_v10:
            log.warning("%s speaks AMQP 1.0, limits.amqp10 is 0", self.name)
            is_v10 = False
        else:
            log.warning("%s speaks %s, this is an AMQP port", self.name, self._guess())
        self._broker.metrics.connections_refused += 1
        self.output.view = memoryview(V10_HEADER if is_v10 else V091_HEADER)
        self.output.pending = 8
        self.closed = True

    def _guess(self):
        got = bytes(self._got[: self._n])
        for start, name in _OTHERS:
            if got.startswith(start) or start.startswith(got):
                return name
        return "no protocol we know"

    def pump(self):
        pass

    def resume(self):
        pass

    def tick(self):
        left = ticks_diff(self.deadline, self._broker.now)
        if left <= 0 and not self.closed:
            log.warning("%s sent no protocol header", self.name)
            self._broker.metrics.peers_cut += 1
            self.closed = True
        return max(left, 1)

    def lost(self):
        self.closed = True
        self.output.pending = 0
