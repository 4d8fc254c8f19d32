"""TLS settings: which files and pins are taken, the line that refuses others, and PEM and DER."""

import os
import time
from binascii import a2b_base64

from amqp_lite.compat import MICROPYTHON
from amqp_lite.errors import ConfigError
from amqp_lite.net.certificate import Certificate, certificates, private_key
from amqp_lite.net.tls import Tls, utc

# Of a small broker.
LIMITS = {
    "connections": 1, "unauthenticated": 1, "channels": 1, "receive_buffer": 1024,
    "send_buffer": 2048, "frame_max": 8192, "exchanges": 8, "queues": 4, "bindings": 4,
    "consumers": 4, "messages": 8, "deliveries": 8, "block_size": 128, "blocks": 64,
    "message_max": 2048, "routes": 4,
}  # fmt: skip
# By `openssl req -x509`, for broker.example, *.example.com and two addresses, and its key.
CERTIFICATE = b"""\
-----BEGIN CERTIFICATE-----
MIIBzDCCAXOgAwIBAgIUOwh3G4ibHDpEc2muw0lwnLNkd8gwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOYnJva2VyLmV4YW1wbGUwIBcNMjYxMTI0MjI1MDI0WhgPMjA1
NDA0MTEyMjUwMjRaMBkxFzAVBgNVBAMMDmJyb2tlci5leGFtcGxlMFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEDj/+abwpTa5bEhBq8jk/HTcVStbIx7rD1naMDQqO
yP2Fg3H1zQztBrF1dbfgpSqDpIL5s7r1mtjubfxgFy50tKOBljCBkzAdBgNVHQ4E
FgQUKHXuSQBoWp22XnkrzKbb14KpSN8wHwYDVR0jBBgwFoAUKHXuSQBoWp22Xnkr
zKbb14KpSN8wDwYDVR0TAQH/BAUwAwEB/zBABgNVHREEOTA3gg5icm9rZXIuZXhh
bXBsZYINKi5leGFtcGxlLmNvbYcEwAACB4cQIAENuAAAAAAAAAAAAAAAATAKBggq
hkjOPQQDAgNHADBEAiBxRHABZCWQa4Jcth5XZVKxRoRxxl2vUIB3k5slutAj1AIg
KbHoJ9eXEgYHQhDZ49am7yrFeaA3XYHllShAklSlxo4=
-----END CERTIFICATE-----
"""
KEY = b"""\
-----BEGIN EC PARAMETERS-----
BggqhkjOPQMBBw==
-----END EC PARAMETERS-----
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIEnmd6buRBljkkiQOCHEBt64kd6agoPeNTFwTmmYFUeRoAoGCCqGSM49
AwEHoUQDQgAEDj/+abwpTa5bEhBq8jk/HTcVStbIx7rD1naMDQqOyP2Fg3H1zQzt
BrF1dbfgpSqDpIL5s7r1mtjubfxgFy50tA==
-----END EC PRIVATE KEY-----
"""
KEY_PKCS8 = b"""\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgSeZ3pu5EGWOSSJA4
IcQG3riR3pqCg941MXBOaZgVR5GhRANCAAQOP/5pvClNrlsSEGryOT8dNxVK1sjH
usPWdowNCo7I/YWDcfXNDO0GsXV1t+ClKoOkgvmzuvWa2O5t/GAXLnS0
-----END PRIVATE KEY-----
"""
# Behind the password "x": as OpenSSL did it once, and as it does today.
KEY_ENCRYPTED = b"""\
-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,F851C09B5D3F71764FA876F72FA7EA5A

lD5ABALbyyrIBgAlFDegNQWlQ7GUzA8dErbXTiLS2kxkaQGM0mLbG+6b5a8CjVTK
tlxlMQtcrZQFzeJLdOIt8bxxk7Kb4rWr0gSacY8BeqCmVEQIbJSlXruZNC7QghvB
dSYd1nXShusKwqO5eSY2TrOlVa64q83jhN7LzorCE7s=
-----END EC PRIVATE KEY-----
"""
KEY_ENCRYPTED_PKCS8 = b"""\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAj7nGOJN2C5LgICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEMZSMMGO6X6AzAd5w3bGbG0EgZA1
KH8lJxYOSuEcH++OG/KZDa1veHBbThUVz+p84BWnZXpPrUqtmmMChVKC6lhT3I0W
B3nzg49QHg5ypVpsWAUGKkWlOtm4huGQP+ysXwyXgYht2nquKIq+hCC92WWuHuaj
gaiab0dnYldxplfjBhXB/HvmEL0haM4hqZ3Pj+FJfpoMwJ3uiKWwWow0xIcUi70=
-----END ENCRYPTED PRIVATE KEY-----
"""
OTHER_KEY = b"""\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIBu3M/PB2s9k1inAcYpR/TPrAoqW9/61/D9b5d5/aPHWoAoGCCqGSM49
AwEHoUQDQgAELQoMHjMWgrwaGGFvhfmV/1W20jMaykdeGURN2E4SVwU690lnxLVn
pg1OHNB+5JVykZravPh+EgxRDN923fvFfg==
-----END EC PRIVATE KEY-----
"""
# With the same key, and no name but the common one.
OLD_CERTIFICATE = b"""\
-----BEGIN CERTIFICATE-----
MIIBmTCCAT+gAwIBAgIUAIhb0kCjW1juqu3dVMmpJ45PHSEwCgYIKoZIzj0EAwIw
IjEKMAgGA1UECgwBeDEUMBIGA1UEAwwLb2xkLmV4YW1wbGUwHhcNMjYxMTI0MjI1
MDI0WhcNMjYxMjA0MjI1MDI0WjAiMQowCAYDVQQKDAF4MRQwEgYDVQQDDAtvbGQu
ZXhhbXBsZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABA4//mm8KU2uWxIQavI5
Px03FUrWyMe6w9Z2jA0Kjsj9hYNx9c0M7QaxdXW34KUqg6SC+bO69ZrY7m38YBcu
dLSjUzBRMB0GA1UdDgQWBBQode5JAGhanbZeeSvMptvXgqlI3zAfBgNVHSMEGDAW
gBQode5JAGhanbZeeSvMptvXgqlI3zAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49
BAMCA0gAMEUCIQDIG9QZDxnQxTD2Bz2K4ssvqEumV8o9GwuVLq9u8xkkXAIgAPkb
EsKhGML0CJmm9/P9KK7qaG1l6wCqj2THjYipJDs=
-----END CERTIFICATE-----
"""
PIN = "018a0657b7b59b1c2993c799b1a9baec889bf33fcebde233272b7aec80cd4cdf"


def der(pem):
    """Of the last block."""
    return a2b_base64(pem.split(b"-----")[-3])


class Files:
    """Files of the given contents, in a new folder that is removed at the end."""

    def __init__(self, **contents):
        where = (os.getenv("TMPDIR") or os.getenv("TEMP") or "/tmp").rstrip("/")
        self.folder = "%s/amqp-lite-%d" % (where, time.time_ns())
        self.contents = contents

    def __enter__(self):
        os.mkdir(self.folder)
        for name in self.contents:
            with open(self.path(name), "wb") as file:
                file.write(self.contents[name])
        return self

    def __exit__(self, *_):
        for name in self.contents:
            os.remove(self.path(name))
        os.rmdir(self.folder)

    def path(self, name):
        return "%s/%s" % (self.folder, name)


def settings(files, given):
    """*given*, with the paths of files in *files* instead of their names."""
    found = {"pins": [PIN]}
    for key in given:
        value = given[key]
        # A list, since pins cannot be looked up in a dict.
        found[key] = files.path(value) if value in list(files.contents) else value
    return found


def accept(contents, **given):
    with Files(**contents) as files:
        return Tls(settings(files, given))


def error(contents, **given):
    """The line that refuses the settings *given*, with FOLDER for that of the files."""
    with Files(**contents) as files:
        try:
            Tls(settings(files, given), path="bridges[0].tls")
        except ConfigError as refused:
            line = str(refused).replace(files.folder, "FOLDER")
            assert "\n" not in line, line
            return line
    raise AssertionError("not refused: %s" % given)


def test_authorities_come_in_pem_and_der():
    for octets in (CERTIFICATE, der(CERTIFICATE), CERTIFICATE + OLD_CERTIFICATE):
        accept({"ca": octets}, ca="ca", pins=None)
    accept({"ca": b"An authority:\r\n" + CERTIFICATE.replace(b"\n", b"\r\n")}, ca="ca")


def test_a_client_certificate_comes_in_pem_and_der():
    for cert in (CERTIFICATE, der(CERTIFICATE)):
        for key in (KEY, der(KEY), KEY_PKCS8, der(KEY_PKCS8), CERTIFICATE + KEY):
            accept({"cert": cert, "key": key}, cert="cert", key="key")


def test_absent_settings_may_be_there_without_a_value():
    made = accept({}, server_name=None, ca=None, cert=None, key=None)
    assert made.warning is None


def test_files_that_are_not_there():
    assert error({}, ca="/nowhere/ca") == "bridges[0].tls.ca: /nowhere/ca does not exist"
    line = error({"cert": CERTIFICATE}, cert="cert", key="/nowhere/key")
    assert line == "bridges[0].tls.key: /nowhere/key does not exist"


def test_files_that_hold_something_else():
    whole = der(CERTIFICATE)
    for octets in (b"", b"hello", whole[:-1], whole[:100], b"\x30\x80", KEY, der(KEY)):
        assert error({"ca": octets}, ca="ca") == (
            "bridges[0].tls.ca: FOLDER/ca holds no certificate"
        ), octets
    assert error({"ca": CERTIFICATE[:-30]}, ca="ca") == "bridges[0].tls.ca: FOLDER/ca is cut off"
    for octets in (b"", b"hello", b"\x30\x00", CERTIFICATE, der(CERTIFICATE), der(KEY)[:20]):
        line = error({"cert": CERTIFICATE, "key": octets}, cert="cert", key="key")
        assert line in (
            "bridges[0].tls.key: FOLDER/key holds no private key",
            "bridges[0].tls.key: FOLDER/key is cut off",
        ), (octets, line)


def test_every_prefix_of_a_file_is_refused_in_one_line():
    for octets in (der(CERTIFICATE), CERTIFICATE[:-1], der(KEY_PKCS8), KEY):
        for n in range(0, len(octets) - 26, 7):
            for read in (certificates, private_key):
                try:
                    read(octets[:n])
                except ValueError as refused:
                    assert str(refused)[:3] in ("is ", "hol"), refused
                else:
                    raise AssertionError("%d octets were enough" % n)


def test_a_certificate_and_its_key_come_together():
    assert error({"cert": CERTIFICATE}, cert="cert") == (
        "bridges[0].tls.key: expected, because cert is there"
    )
    assert error({"key": KEY}, key="key") == (
        "bridges[0].tls.cert: expected, because key is there"
    )


def test_the_key_of_another_certificate():
    for key in (OTHER_KEY, der(OTHER_KEY)):
        assert error({"cert": CERTIFICATE, "key": key}, cert="cert", key="key") == (
            "bridges[0].tls.key: FOLDER/key is not the key of FOLDER/cert"
        )


def test_keys_behind_a_password():
    for key in (KEY_ENCRYPTED, KEY_ENCRYPTED_PKCS8, der(KEY_ENCRYPTED_PKCS8)):
        assert error({"cert": CERTIFICATE, "key": key}, cert="cert", key="key") == (
            "bridges[0].tls.key: FOLDER/key needs a password: only keys without one can be used"
        )


def test_pins():
    colons = ":".join([PIN[k : k + 2].upper() for k in range(0, 64, 2)])
    accept({}, pins=[PIN, colons])
    for pin in ("", "ab", PIN[:-1], PIN + "00", "x" + PIN[1:], None, 7):
        assert error({}, pins=[PIN, pin]).startswith(
            "bridges[0].tls.pins[1]: "
            "expected 64 hexadecimal digits, the SHA-256 of a certificate; got "
        )
    for pins in (PIN, [PIN] * 3):
        assert error({}, pins=pins) == "bridges[0].tls.pins: expected a list of at most 2"


def test_somebody_has_to_be_trusted():
    if MICROPYTHON:
        assert error({}, pins=[]) == (
            "bridges[0].tls: ca or pins expected, a board knows no authorities"
        )
    else:
        accept({}, pins=[])  # whom the system trusts


def test_trusting_everybody_is_warned_of():
    made = accept({}, pins=[], dangerously_accept_any_certificate=True)
    assert made.warning == (
        "dangerously_accept_any_certificate is set: "
        "whoever answers is believed and gets the password"
    )


def test_the_certificate_of_a_listener():
    """Refused in one line where it cannot be used; on CPython tests/interop uses good ones."""
    from amqp_lite import Node

    with Files(cert=CERTIFICATE, key=OTHER_KEY) as files:
        tls = {"certificate": files.path("cert"), "key": files.path("key")}
        try:
            Node({"listeners": [{"port": 0, "tls": tls}], "limits": LIMITS})
        except ConfigError as refused:
            line = str(refused).replace(files.folder, "FOLDER")
        else:
            raise AssertionError("not refused")
    assert line == (
        "listeners[0].tls: not on MicroPython"
        if MICROPYTHON
        else "listeners[0].tls.key: FOLDER/key is not the key of FOLDER/cert"
    )


def test_what_a_certificate_says():
    certificate = Certificate(der(CERTIFICATE))
    assert certificate.names() == [
        "broker.example", "*.example.com", "192.0.2.7", "2001:db8:0:0:0:0:0:1",
    ]  # fmt: skip
    assert certificate.since == "2026-11-24 22:50:24 UTC"
    assert certificate.until == "2054-04-11 22:50:24 UTC"
    assert certificate.is_self_issued


def test_the_common_name_counts_when_there_is_no_other():
    assert Certificate(der(OLD_CERTIFICATE)).names() == ["old.example"]


def test_names_are_shown_without_surprises():
    wire = der(CERTIFICATE).replace(b"broker.example", b"bro\x1b[1m\nxample")
    assert Certificate(wire).names()[0] == "bro?[1m?xample"


def test_the_clock_in_words():
    words = utc()
    assert len(words) == len("2026-11-24 22:30:11 UTC") and words.endswith(" UTC")
    assert words[:4] == "%04d" % time.gmtime()[0]


def test_what_takes_too_much_memory_is_said_so():
    if not MICROPYTHON:
        return
    tls = Tls({"pins": ["00" * 32]}, lambda: None)
    both = OSError(-0x4290, "RSA + MBEDTLS_ERR_MPI_ALLOC_FAILED")
    for error in (OSError(16), OSError(-0x7F00), both):
        assert tls.explain(error).endswith(": out of memory"), error
    assert not tls.explain(OSError(13)).endswith(": out of memory")
