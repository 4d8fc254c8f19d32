"""TLS servers for the tests: one connection each, in a thread."""

import socket
import ssl
import threading
import time


class Server:
    """Does *serve*(server, socket) with the first that connects.

    error   what that raised
    names   of the client's certificate, where serve() asked for one
    """

    def __init__(self, serve):
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self.port = self._listener.getsockname()[1]
        self.error = self.names = None
        self.over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self._thread.join(20)
        self._listener.close()

    def _run(self):
        while not self.over.is_set():
            try:
                sock = self._listener.accept()[0]
            except socket.timeout:
                continue
            with sock:
                sock.settimeout(20)
                try:
                    self._serve(self, sock)
                except OSError as error:
                    self.error = error
            return


def context(certificates, name, version=None, client_ca=None):
    """For a server with the certificate *name*; *version* None: any."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificates.path(name + ".pem"), certificates.path(name + "-key.pem"))
    if version is not None:
        made.minimum_version = made.maximum_version = version
    if client_ca:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(certificates.path(client_ca))
    return made


def echo(tls, octets, slow=0):
    """Sends back what it gets, up to *octets*; begins to read after *slow* seconds."""

    def serve(server, sock):
        if slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        with _accept(tls, sock) as peer:
            server.names = peer.getpeercert() if tls.verify_mode else None
            time.sleep(slow)
            _send_back(peer, octets)
            server.over.wait(10)

    return serve


def _accept(tls, sock):
    """A TLS socket after its handshake."""
    peer = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    try:
        peer.do_handshake()
    except OSError:
        # Octets that nobody read would let TCP throw away the alert.
        with socket.socket(fileno=peer.detach()) as plain:
            plain.settimeout(20)
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(16384):
                pass
        raise
    return peer


def _send_back(peer, octets):
    """In large records, however small what came was. One thread: OpenSSL's sockets want no two."""
    peer.setblocking(False)
    deadline = time.monotonic() + 20
    came = 0
    kept = bytearray()
    while (came < octets or kept) and time.monotonic() < deadline:
        try:
            got = peer.recv(16384)
            if not got:
                octets = came
            came += len(got)
            kept += got
        except ssl.SSLWantReadError:
            pass
        try:
            if len(kept) >= 16384 or came >= octets:
                del kept[: peer.send(kept)]
        except ssl.SSLWantWriteError:
            pass
        time.sleep(0.0005)


def hang(tls, flights):
    """Falls silent after *flights* answers of its handshake."""

    def serve(server, sock):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        peer = tls.wrap_bio(incoming, outgoing, server_side=True)
        for _ in range(flights):
            incoming.write(sock.recv(16384))
            try:
                peer.do_handshake()
            except ssl.SSLWantReadError:
                pass
            sock.sendall(outgoing.read())
        server.over.wait(20)

    return serve


def say(octets):
    """Knows no TLS: says *octets* and hangs up."""

    def serve(server, sock):
        sock.recv(16384)
        sock.sendall(octets)

    return serve


def cut_off(tls):
    """Hangs up after its handshake without TLS's goodbye."""

    def serve(server, sock):
        peer = _accept(tls, sock)
        peer.recv(100)
        peer.sendall(b"abcdefgh")
        time.sleep(0.2)
        socket.socket(fileno=peer.detach()).close()

    return serve
