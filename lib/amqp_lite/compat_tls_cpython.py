"""TLS for compat.py on CPython, and the description of what both have.

Loaded by compat.tls_client() only: OpenSSL takes megabytes.
"""

import os
import ssl
import tempfile
from base64 import encodebytes

from .compat_cpython import POLLIN, POLLOUT

_FAULTS = {  # X509_V_ERR_*
    2: "unknown authority",
    9: "not yet valid",
    10: "expired",
    18: "self-signed",
    19: "unknown authority",
    20: "unknown authority",
    21: "unknown authority",
    62: "wrong host name",
    64: "wrong host name",
}
_NO_TLS = "no TLS is spoken there"
_NO_VERSION = "no common version of TLS, 1.2 is the oldest here"
_NOT_OURS = "it does not accept our client certificate"
_WORDS = {
    "HTTP_REQUEST": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "TLSV1_ALERT_PROTOCOL_VERSION": _NO_VERSION,
    "UNSUPPORTED_PROTOCOL": _NO_VERSION,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refused the handshake; it may want a client certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": _NOT_OURS,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _NOT_OURS + ", which expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": _NOT_OURS + ", which was revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _NOT_OURS,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _NOT_OURS,
    "TLSV1_ALERT_ACCESS_DENIED": _NOT_OURS,
    "TLSV1_ALERT_UNKNOWN_CA": _NOT_OURS + ": unknown authority",
    "TLSV1_UNRECOGNIZED_NAME": "it knows no server of this name",
}
_PARTIAL_CHAIN = 0x80000  # X509_V_FLAG_PARTIAL_CHAIN: the ssl module names it since Python 3.10
_DER = 2  # _ssl.ENCODING_DER


class _Socket(ssl.SSLSocket):
    """Says that it has to wait as plain sockets do.

    When reading would have to write first and cannot, that is an error: the little that TLS itself
    has to say always finds room, unless the peer asks for it again and again and does not read.
    """

    def recv_into(self, buffer, nbytes=None, flags=0):
        try:
            return super().recv_into(buffer, nbytes, flags)
        except ssl.SSLWantReadError:
            raise BlockingIOError

    def send(self, data, flags=0):
        try:
            return super().send(data, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError


class Client:
    """Makes TLS sockets: TLS 1.2 or later, as a client.

    check  ask for a chain to an authority we trust, and for the peer's name in its certificate

    peer   DER of the certificate that the peer showed in the last handshake; None: not known
    """

    def __init__(self, check):
        self.peer = None
        self._context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = _Socket
        if not check:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE

    def trust(self, der):
        """Trust whom the certificate *der* signed. Raises ValueError."""
        try:
            self._context.load_verify_locations(cadata=der)
        except ssl.SSLError as error:
            raise ValueError("is no certificate: %s" % error)
        # It need not be a root: boards do not ask for one either.
        self._context.verify_flags |= _PARTIAL_CHAIN

    def trust_system(self):
        """Trust whom the system trusts."""
        self._context.load_default_certs()

    def identify(self, cert, key):
        """Show a certificate to peers that ask for one. Raises ValueError.

        cert  (path, octets of the file, [DER of each, ours first])
        key   (path, octets of the file, PEM label, DER)
        """
        with tempfile.TemporaryDirectory() as folder:
            chain = _pem_file(cert[0], cert[1], "CERTIFICATE", cert[2], folder)
            private = _pem_file(key[0], key[1], key[2], (key[3],), folder)
            try:
                self._context.load_cert_chain(chain, private)
            except ssl.SSLError as error:
                raise ValueError("cannot be used: %s" % (error.reason or error))

    def wrap(self, sock, name):
        """A TLS socket over the connected *sock*, for step(). Raises OSError, ValueError."""
        self.peer = None
        return self._context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)

    def step(self, sock):
        """Go on with the handshake of *sock*: 0, or what to wait for before the next step.

        With 0, `peer` is known and passed the checks. Raises OSError, ValueError.
        """
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            return POLLIN
        except ssl.SSLWantWriteError:
            return POLLOUT
        except ssl.SSLCertVerificationError:
            self.peer = _refused(sock)
            raise
        self.peer = sock.getpeercert(True)
        return 0

    def faults(self, error):
        """What is wrong with the peer's certificate, in a list; empty when that is not why."""
        if not isinstance(error, ssl.SSLCertVerificationError):
            return []
        return [_FAULTS.get(error.verify_code, error.verify_message)]

    def words(self, error):
        """Any other *error* of a TLS socket, in words."""
        if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError)):
            return "it hung up instead of going on with TLS"
        if isinstance(error, ssl.SSLWantWriteError):
            return "it does not read"
        if isinstance(error, ssl.SSLError):
            return _WORDS.get(error.reason) or error.reason or str(error)
        return str(error)


class Server(Client):
    """Makes TLS sockets of peers that came to us; their handshake is a part of reading.

    Asks for their certificates once it trusts somebody. They need not have one; one that is not
    good ends the handshake.
    """

    def __init__(self):
        self._context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.sslsocket_class = _Socket

    def trust(self, der):
        super().trust(der)
        self._context.verify_mode = ssl.CERT_OPTIONAL

    def wrap(self, sock):
        """A TLS socket over *sock*. Raises OSError."""
        secure = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        if secure._sslobj is None:
            # The peer is gone already. What it sent would be read as it is.
            secure.close()
            raise ConnectionResetError
        return secure

    def subject(self, sock):
        """The common name in the peer's verified certificate, octets; None: none, or several."""
        try:
            subject = (sock.getpeercert() or {}).get("subject", ())
            names = [value for part in subject for key, value in part if key == "commonName"]
            return names[0].encode() if len(names) == 1 else None
        except ValueError:  # no text
            return None

    def explain(self, error):
        """An *error* of TLS in words; None when it is something else."""
        if not isinstance(error, ssl.SSLError):
            return None
        faults = self.faults(error)
        if faults:
            return "its certificate: " + ", ".join(faults)
        return self.words(error).replace(_NOT_OURS, "it does not accept our certificate")


def _pem_file(path, octets, label, ders, folder):
    """The path of a PEM file, which OpenSSL wants: made in *folder* when *path* is none."""
    if b"-----BEGIN " in octets:
        return path
    path = os.path.join(folder, label)
    with open(path, "wb") as file:
        for der in ders:
            name = label.encode()
            file.write(
                b"-----BEGIN %s-----\n%s-----END %s-----\n" % (name, encodebytes(der), name)
            )
    return path


def _refused(sock):
    """The certificate in a handshake that failed; the ssl module has no public way to it."""
    try:
        return sock._sslobj.get_unverified_chain()[0].public_bytes(_DER)
    except (AttributeError, IndexError, TypeError, ValueError):
        return None  # before Python 3.10, at least
