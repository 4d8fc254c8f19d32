"""TLS for compat.py on MicroPython: mbedTLS, which knows TLS 1.2 only.

The names and what they do are documented in compat_tls_cpython.py.
"""

import gc

import tls

from .compat_micropython import POLLIN

_FAULTS = (  # of mbedTLS's sentences
    ("expired", "expired"),
    ("in the future", "not yet valid"),
    ("not match with the expected CN", "wrong host name"),
    ("not correctly signed by the trusted", "unknown authority"),
)


class Client:
    def __init__(self, check):
        self.peer = None
        self._octet = bytearray(1)
        self._context = context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        # Not CERT_NONE: the certificate would not be shown to us.
        context.verify_mode = tls.CERT_REQUIRED if check else tls.CERT_OPTIONAL
        context.verify_callback = self._shown
        self._failed = None

    def _shown(self, der, depth):
        # mbedTLS is in the middle of things: nothing may be raised.
        if depth == 0:
            try:
                self.peer = bytes(der)
            except MemoryError as error:
                self._failed = error
        return 0

    def trust(self, der):
        try:
            self._context.load_verify_locations(der)
        except ValueError:
            raise ValueError("holds a certificate that cannot be used here")

    def identify(self, cert, key):
        try:
            # mbedTLS takes one at a time, the key along with it, and adds it to those before.
            for der in cert[2]:
                self._context.load_cert_chain(der, key[3])
        except ValueError as error:
            raise ValueError("cannot be used here: %s" % error)

    def wrap(self, sock, name):
        self.peer = None
        self._failed = None
        gc.collect()
        return self._context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)

    def step(self, sock):
        # No call does the handshake and nothing else: it is a part of reading. Neither does any
        # tell when it is over. But as soon as the certificate was shown and nothing raised, all
        # checks are passed, and mbedTLS sends what is written after the handshake, never before.
        got = sock.readinto(self._octet, 1)
        if self._failed is not None:
            raise self._failed
        if got is not None:
            raise OSError(104 if not got else 71)  # ECONNRESET, EPROTO: who speaks first?
        return 0 if self.peer is not None else POLLIN

    def faults(self, error):
        if not isinstance(error, ValueError):
            return []
        found = []
        for line in str(error).split("\n"):
            line = line.strip()
            for sentence, fault in _FAULTS:
                if sentence in line:
                    line = fault
            if line:
                found.append(line)
        return found

    def words(self, error):
        code = error.errno
        if code in (-0x7280, 104, 32):  # CONN_EOF, ECONNRESET, EPIPE
            return "it hung up instead of going on with TLS"
        if code == -0x7200:  # INVALID_RECORD
            return "no TLS is spoken there"
        if code == -0x6E80:  # BAD_PROTOCOL_VERSION
            return "no common version of TLS, 1.2 is the only one here"
        if code == -0x7780:  # FATAL_ALERT_MESSAGE: mbedTLS keeps to itself which one
            return (
                "it refused the handshake; it may want a client certificate, not accept ours, "
                "or not know TLS 1.2"
            )
        # ENOMEM; ALLOC_FAILED of SSL, MPI, ASN1, X509, PK, ECP, MD and CIPHER: MicroPython takes
        # the small ones for numbers of the system.
        if code in (12, -0x7F00, 16, 106, -0x2880, -0x3F80, -0x4D80, -0x5180, -0x6180):
            return "out of memory"
        # One number added to another one.
        return "out of memory" if "ALLOC_FAILED" in str(error) else str(error)
