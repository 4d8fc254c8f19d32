"""What is in certificate and key files, and in a certificate that was refused.

Trusts nobody: that is the TLS library's business. This loads files and words errors. A file is PEM
or DER; inside of both is DER, objects of a tag octet, a length and contents:

    certificate  30 { 30 { [0] version, serial, algorithm, issuer, validity, subject, public key,
                           [3] extensions }, algorithm, signature }           RFC 5280 §4.1
    key          30 { 02 0, algorithm, 04 { one of the two below } }          RFC 5208 §5
                 30 { 02 0, 02 modulus, ... }                                 RFC 8017 §A.1.2
                 30 { 02 1, 04 private, [0] curve, [1] { 03 public point } }  RFC 5915 §3

Raises ValueError for octets that are something else.
"""

from binascii import a2b_base64

from ..compat import const

_INTEGER = const(0x02)
_OCTET_STRING = const(0x04)
_UTC_TIME = const(0x17)
_SEQUENCE = const(0x30)
_VERSION = const(0xA0)
_EXTENSIONS = const(0xA3)
_POINT = const(0xA1)
_DNS_NAME = const(0x82)  # RFC 5280 §4.2.1.6
_IP_ADDRESS = const(0x87)
_ALTERNATIVE_NAMES = b"\x55\x1d\x11"  # 2.5.29.17
_COMMON_NAME = b"\x55\x04\x03"  # 2.5.4.3

_LETTERS = const(64)  # shown of a name that a stranger gave itself


def certificates(octets):
    """[DER of each certificate] in a file of these *octets*."""
    found = [der for label, der in _blocks(octets) if label in ("", "CERTIFICATE")]
    for der in found:
        Certificate(der)
    if not found:
        raise ValueError("holds no certificate")
    return found


def private_key(octets):
    """(PEM label, DER, public) of the private key in a file of these *octets*.

    public  octets that its certificate holds as well; None: the key does not tell
    """
    for label, der in _blocks(octets):
        if not label:
            label = _key_label(der)
        if "ENCRYPTED" in label:
            raise ValueError("needs a password: only keys without one can be used")
        if "PRIVATE KEY" in label:
            try:
                return _key_label(der), der, _public_octets(der)
            except IndexError:
                break
    raise ValueError("holds no private key")


class Certificate:
    """
    is_self_issued  whoever it is for gave it to itself
    since, until    when it is valid, as "2026-11-24 22:30:11 UTC"
    """

    def __init__(self, der):
        try:
            parts = _parts(der, _enter(der, _enter(der, 0)[0]))
            if der[parts[0][0]] == _VERSION:
                parts.pop(0)
            issuer, validity, subject = parts[2:5]
            since, until = _parts(der, validity[1:])
        except (IndexError, ValueError):
            raise ValueError("holds no certificate")
        self._der = der
        self._subject = subject
        self._extensions = [part for part in parts[6:] if der[part[0]] == _EXTENSIONS]
        self.is_self_issued = der[issuer[0] : issuer[2]] == der[subject[0] : subject[2]]
        self.since = _time(der, since)
        self.until = _time(der, until)

    def names(self):
        """The host names and addresses it is for, as text without surprises."""
        found = []
        try:
            for _, start, _ in self._extensions:
                for extension in _parts(self._der, _enter(self._der, start)):
                    self._add_alternatives(_parts(self._der, extension[1:]), found)
            if not found:
                self._add_common_name(found)
        except (IndexError, ValueError):
            pass  # those before are better than none
        return found

    def _add_alternatives(self, extension, found):
        der = self._der
        if der[extension[0][1] : extension[0][2]] == _ALTERNATIVE_NAMES:
            for at, start, end in _parts(der, _enter(der, extension[-1][1])):
                if der[at] == _DNS_NAME:
                    found.append(_printable(der[start:end]))
                elif der[at] == _IP_ADDRESS:
                    found.append(_address(der[start:end]))

    def _add_common_name(self, found):
        der = self._der
        for part in _parts(der, self._subject[1:]):
            for pair in _parts(der, part[1:]):
                kind, value = _parts(der, pair[1:])
                if der[kind[1] : kind[2]] == _COMMON_NAME:
                    found.append(_printable(der[value[1] : value[2]]))


def _blocks(octets):
    """[(label, DER)] in a file; ("", *octets*) of a DER file, DER b"" behind a password."""
    found = []
    i = octets.find(b"-----BEGIN ")
    if i < 0:
        return [("", octets)]
    while i >= 0:
        start = octets.find(b"-----", i + 11)
        label = octets[i + 11 : start]
        end = octets.find(b"-----END " + label, start)
        if start < 0 or end < 0:
            raise ValueError("is cut off")
        text = octets[start + 5 : end]
        if text.find(b"ENCRYPTED") >= 0:  # RFC 1421 §4.6.1.1
            found.append(("ENCRYPTED", b""))
        else:
            try:
                found.append((str(label, "utf-8"), a2b_base64(text)))
            except ValueError:
                raise ValueError("is broken")
        i = octets.find(b"-----BEGIN ", end)
    return found


def _key_label(der):
    try:
        parts = _parts(der, _enter(der, 0))
        first = der[parts[0][0]]
        second = der[parts[1][0]]
    except IndexError:
        first = second = 0
    if first == _SEQUENCE and second == _OCTET_STRING:
        return "ENCRYPTED PRIVATE KEY"
    if first == _INTEGER:
        if second == _SEQUENCE:
            return "PRIVATE KEY"
        if second == _INTEGER:
            return "RSA PRIVATE KEY"
        if second == _OCTET_STRING:
            return "EC PRIVATE KEY"
    raise ValueError("holds no private key")


def _public_octets(der):
    label = _key_label(der)
    parts = _parts(der, _enter(der, 0))
    if label == "RSA PRIVATE KEY":
        return der[parts[1][1] : parts[1][2]]
    if label == "PRIVATE KEY":
        inner = der[parts[2][1] : parts[2][2]]
        # Else an Edwards curve's: it does not tell.
        return _public_octets(inner) if inner[0] == _SEQUENCE else None
    for at, start, _ in parts[2:]:
        if der[at] == _POINT:
            # Behind "no unused bits" and the form; compressed or not, x comes first.
            x = _enter(der, start)[0] + 2
            return der[x : x + 16]
    return None


def _enter(der, i):
    """(start, end) of the contents of the object at *i*."""
    try:
        n = der[i + 1]
        start = i + 2
        if n >= 0x80:
            octets = n & 0x7F
            n = 0
            for k in range(start, start + octets):
                n = n << 8 | der[k]
            start += octets
    except IndexError:
        raise ValueError("is cut off")
    if start + n > len(der):
        raise ValueError("is cut off")
    return start, start + n


def _parts(der, span):
    """[(at, start, end)] of the objects in the contents *span*."""
    at, stop = span
    found = []
    while at < stop:
        start, end = _enter(der, at)
        found.append((at, start, end))
        at = end
    return found


def _time(der, part):
    at, start, end = part
    digits = _printable(der[start:end])
    if der[at] == _UTC_TIME:  # without the century, RFC 5280 §4.1.2.5.1
        digits = ("19" if digits >= "5" else "20") + digits
    return "%s-%s-%s %s:%s:%s UTC" % (
        digits[:4], digits[4:6], digits[6:8], digits[8:10], digits[10:12], digits[12:14],
    )  # fmt: skip


def _printable(octets):
    return "".join([chr(octet) if 32 < octet < 127 else "?" for octet in octets[:_LETTERS]])


def _address(octets):
    if len(octets) == 4:
        return "%d.%d.%d.%d" % tuple(octets)
    groups = range(0, len(octets) - 1, 2)
    return ":".join(["%x" % (octets[k] << 8 | octets[k + 1]) for k in groups])
