"""TLS for the connections that we open: who the peer has to be, and why it was refused.

The runtime's TLS library checks chains and names (compat_tls_cpython.py says what we ask of it);
pins are checked here. Nothing of ours is sent before a peer has passed all checks.
"""

from binascii import hexlify, unhexlify
from time import gmtime

from ..checks import show
from ..compat import MICROPYTHON, const, sha256, tls_client, unload
from ..errors import ConfigError

_PINS = const(2)  # the certificate of today and the next one
_NAMES = const(4)  # shown of a certificate for others

_WARNING = (
    "dangerously_accept_any_certificate is set: whoever answers is believed and gets the password"
)


class TlsError(Exception):
    """There is no TLS connection. The text is one line that says why."""

    def __init__(self, text):
        super().__init__(text)
        self.text = text


def utc():
    """The time by our clock, as "2026-11-24 22:30:11 UTC"."""
    return "%04d-%02d-%02d %02d:%02d:%02d UTC" % gmtime()[:6]


class Tls:
    """Opens the TLS connections of one bridge, one at a time.

    settings  the object "tls" of its configuration; absent keys may be None, [] or False
    clock     gives the time as utc() does
    path      of that object, for errors

    warning   a sentence to log at each start, or None

    Reads the files, and takes the memory that all its connections share. Raises ConfigError.
    """

    def __init__(self, settings, clock=utc, path="tls"):
        self._clock = clock
        self._server_name = settings.get("server_name")
        self._name = None  # whom we want to reach
        self._plain = None  # the TCP socket below the last TLS one
        ca = settings.get("ca")
        pins = _read_pins(settings.get("pins") or (), path + ".pins")
        self.warning = None
        if settings.get("dangerously_accept_any_certificate"):
            self.warning = _WARNING
            ca = None
            pins = ()
        elif MICROPYTHON and not ca and not pins:
            raise ConfigError("%s: ca or pins expected, a board knows no authorities" % path)
        self._pins = pins
        # A pin alone says all: then nobody asks for chain and name.
        self._client = tls_client(bool(ca) or not (pins or self.warning))
        if ca:
            trust(self._client, ca, path + ".ca")
        elif not pins and not self.warning:
            self._client.trust_system()
        cert = settings.get("cert")
        key = settings.get("key")
        if cert and key:
            identify(self._client, cert, key, path + ".cert", path + ".key")
        elif cert or key:
            missing, given = ("key", "cert") if cert else ("cert", "key")
            raise ConfigError("%s.%s: expected, because %s is there" % (path, missing, given))
        unload("net.certificate")

    def wrap(self, sock, host):
        """A TLS socket over *sock*, which is connected to *host* and does not block.

        Nothing is sent before handshake(). A TLS socket that took less than transmit() offered
        wants exactly the rest the next time. Raises TlsError, MemoryError; *sock* is closed then.
        """
        self.close()
        self._plain = sock
        self._name = self._server_name or host
        try:
            return self._client.wrap(sock, self._name)
        except (OSError, ValueError) as error:
            self.close()
            raise TlsError(self.explain(error))
        except MemoryError:
            self.close()
            raise

    def handshake(self, sock):
        """Go on: 0 when the peer passed the checks, else the event to wait for before the next.

        What a board's library leaves of the handshake then, the first transmit() does. Raises
        TlsError, MemoryError; the TCP socket is closed then.
        """
        client = self._client
        try:
            events = client.step(sock)
            if not events:
                self._check_pins(client.peer)
                client.peer = None
        except (OSError, ValueError) as error:
            self.close()
            raise TlsError(self.explain(error))
        except (TlsError, MemoryError):
            self.close()
            raise
        return events

    def close(self):
        """Close the TCP socket below the last wrap(): a TLS socket that failed leaves it open."""
        if self._plain is not None:
            self._plain.close()
            self._plain = None

    def explain(self, error):
        """One line about an OSError of wrap(), handshake(), receive() or transmit()."""
        faults = self._client.faults(error)
        if not faults:
            return "TLS with %s: %s" % (self._name, self._client.words(error))
        certificate = self._refused()
        return self._refusal(", ".join([self._describe(fault, certificate) for fault in faults]))

    def _refusal(self, why):
        return "certificate of %s: %s; the clock here says %s" % (self._name, why, self._clock())

    def _refused(self):
        """The Certificate that was refused, None when it is not at hand."""
        der = self._client.peer
        self._client.peer = None
        if der is None:
            return None
        try:
            from .certificate import Certificate

            return Certificate(der)
        except (ValueError, MemoryError):
            return None

    def _describe(self, fault, certificate):
        if certificate is None:
            return fault
        if fault == "expired":
            if certificate.until < self._clock():
                return "expired on %s" % certificate.until
            return "the one of its authority expired"
        if fault == "not yet valid" and certificate.since > self._clock():
            return "not yet valid, only from %s" % certificate.since
        if fault == "unknown authority" and certificate.is_self_issued:
            return "self-signed"
        if fault == "wrong host name":
            names = certificate.names()
            if names:
                more = ", ..." if len(names) > _NAMES else ""
                return "wrong host name, it is for %s%s" % (", ".join(names[:_NAMES]), more)
        return fault

    def _check_pins(self, der):
        if self._pins:
            found = sha256(der)
            if found not in self._pins:
                shown = str(hexlify(found), "utf-8")
                raise TlsError(self._refusal("pin does not match, its SHA-256 is " + shown))


def trust(side, ca, path):
    """*side* trusts whom the certificates in the file *ca* signed. Raises ConfigError."""
    from .certificate import certificates

    try:
        for der in certificates(_read(ca, path)):
            side.trust(der)
    except ValueError as error:
        raise ConfigError("%s: %s %s" % (path, ca, error))


def identify(side, cert, key, path, key_path):
    """*side* shows the certificate in the file *cert*, with the key in *key*.

    path, key_path  of these settings, for errors

    Raises ConfigError.
    """
    from .certificate import certificates, private_key

    file = cert
    try:
        cert_octets = _read(cert, path)
        chain = certificates(cert_octets)
        file = key
        path = key_path
        key_octets = _read(key, path)
        label, der, public = private_key(key_octets)
        if public is not None and chain[0].find(public) < 0:
            raise ValueError("is not the key of %s" % cert)
        side.identify((cert, cert_octets, chain), (key, key_octets, label, der))
    except ValueError as error:
        raise ConfigError("%s: %s %s" % (path, file, error))


def _read(file, path):
    try:
        with open(file, "rb") as stream:
            return stream.read()
    except OSError as error:
        why = {2: "does not exist", 13: "may not be read"}.get(error.errno)
        raise ConfigError("%s: %s %s" % (path, file, why or "cannot be read, %s" % error))
    except MemoryError:
        raise ConfigError("%s: %s is too large" % (path, file))


def _read_pins(pins, path):
    """The SHA-256 that each of the texts *pins* says."""
    if isinstance(pins, str) or len(pins) > _PINS:
        raise ConfigError("%s: expected a list of at most %d" % (path, _PINS))
    found = []
    for k in range(len(pins)):
        try:
            digest = unhexlify(pins[k].replace(":", ""))
        except (AttributeError, TypeError, ValueError):
            digest = b""
        if len(digest) != 32:
            raise ConfigError(
                "%s[%d]: expected 64 hexadecimal digits, the SHA-256 of a certificate; got %s"
                % (path, k, show(pins[k]))
            )
        found.append(digest)
    return found
