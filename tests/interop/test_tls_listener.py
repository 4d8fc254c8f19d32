"""The TLS listener of a gateway, and who is let in by a certificate or without a name."""

import json
import socket
import ssl
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

import interop_broker
from certificates import Certificates
from interop_raw import CAPABILITIES
from interop_support import client_library, pika_parameters, wait_for

pika = client_library("pika")
spec = pika.spec
errors = pika.exceptions

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
LOGIN_MS = 3000
HEADER_10 = b"AMQP\x03\x01\x00\x00"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def broker(certificates, tmp_path_factory):
    """Ports with TLS for anybody, TLS and client certificates, and neither."""
    everything = {"configure": ["*"], "write": ["*"], "read": ["*"]}
    password_hash = "c2FsdL7ekDhtRQzqi3e4IviIcGXk5avxMsL53M/Mf71Mul41"  # of "secret"
    tls = {"certificate": certificates.path("good.pem"), "key": certificates.path("good-key.pem")}
    settings = {
        "listeners": [
            {"port": 0, "tls": tls},
            {"port": 0, "tls": dict(tls, client_ca=certificates.path("ca.pem"))},
            {"port": 0},
        ],
        "limits": {"login_ms": LOGIN_MS},
        "users": {
            "sensor": dict(everything, password_hash=password_hash),
            "gateway-7": dict(everything, configure=[], password_hash=None),
        },
        "anonymous": "sensor",
    }
    running = interop_broker.start_configured(tmp_path_factory.mktemp("tls"), settings)
    running.user, running.password = "sensor", "secret"
    yield running
    running.stop()


@pytest.fixture
def open_one(broker, certificates):
    """Opens pika connections: open_one(port=index, cert=, ca=, version=, credentials=)."""
    opened = []

    def connect(port=1, credentials=None, **options):
        context = client_context(certificates, **options)
        where = SimpleNamespace(host="127.0.0.1", port=broker.ports[port], user="sensor",
                                password="secret")  # fmt: skip
        parameters = pika_parameters(where, ssl_options=pika.SSLOptions(context, "localhost"))
        if credentials is not None:
            parameters.credentials = credentials
        opened.append(pika.BlockingConnection(parameters))
        return opened[-1]

    yield connect
    for connection in opened:
        if connection.is_open:
            connection.close()


def client_context(certificates, cert=None, version=None):
    context = ssl.create_default_context(cafile=certificates.path("ca.pem"))
    if cert is not None:
        context.load_cert_chain(
            certificates.path(cert + ".pem"), certificates.path(cert + "-key.pem")
        )
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def by_certificate():
    return pika.credentials.ExternalCredentials()


def goes_around(channel, queue, body):
    channel.basic_publish("", queue, body)
    found = channel.basic_get(queue, auto_ack=True)[2]
    return found == body


def logged(broker, words):
    """The log says *words* soon."""
    wait_for(lambda: words in broker.output(), words)


def start_ok(mechanism, response):
    method = spec.Connection.StartOk(
        client_properties={"capabilities": CAPABILITIES}, mechanism=mechanism,
        response=response, locale="en_US",
    )  # fmt: skip
    return pika.frame.Method(0, method).marshal()


def answer(sock, mechanism, response):
    """What a 0-9-1 login over *sock* is answered with, and the mechanisms that were offered."""
    sock.settimeout(10)
    sock.sendall(b"AMQP\x00\x00\x09\x01")
    buffer = b""
    found = []
    while len(found) < 2:
        buffer += sock.recv(4096)
        n, frame = pika.frame.decode_frame(buffer)
        while frame is not None:
            buffer = buffer[n:]
            found.append(frame.method)
            if len(found) == 1:
                sock.sendall(start_ok(mechanism, response))
            n, frame = pika.frame.decode_frame(buffer)
    return found[1], str(found[0].mechanisms, "ascii").split(" ")


# --- TLS ---


def test_it_says_where_it_listens_and_how(broker):
    lines = ["listening on 127.0.0.1:%d" % port for port in broker.ports]
    said = [line for line in broker.output().split("\n") if line.startswith("listening")]
    assert said == [lines[0] + " with TLS", lines[1] + " with TLS", lines[2]]
    wait_for(lambda: "URLParameters(" in broker.output(), "the hint")
    assert "amqps://USER:PASSWORD@127.0.0.1:%d/" % broker.ports[0] in broker.output()


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("port", [0, 1])
def test_a_password_over_tls(open_one, port, version):
    channel = open_one(port, version=version).channel()
    channel.queue_declare("plain", auto_delete=True)
    assert goes_around(channel, "plain", b"21.5")
    channel.queue_delete("plain")


def test_large_bodies_and_many_small_ones(open_one):
    channel = open_one().channel()
    channel.queue_declare("large")
    for size in (16_384, 100_000, 3_000_000):
        assert goes_around(channel, "large", bytes(range(256)) * (size // 256))
    for k in range(2000):
        channel.basic_publish("", "large", b"%d" % k)
    found = []
    for _, _, body in channel.consume("large", auto_ack=True, inactivity_timeout=5):
        found.append(body)
        if body is None or len(found) == 2000:
            break
    assert found == [b"%d" % k for k in range(2000)]
    channel.cancel()
    channel.queue_delete("large")


def test_a_handshake_octet_by_octet(broker, certificates):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(certificates, "member").wrap_bio(
        incoming, outgoing, server_hostname="localhost"
    )
    with socket.create_connection(("127.0.0.1", broker.ports[1]), 5) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def turn(step):
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    for octet in outgoing.read():
                        sock.send(bytes([octet]))
                    incoming.write(sock.recv(4096))

        turn(tls.do_handshake)
        tls.write(HEADER_10)
        assert turn(lambda: tls.read(8)) == HEADER_10


def test_who_speaks_no_tls_is_refused_and_costs_nobody_else(broker, open_one):
    for octets in (b"AMQP\x00\x00\x09\x01", HEADER_10, b"GET / HTTP/1.1\r\n\r\n", bytes(300)):
        before = broker.output().count("127.0.0.1 refused: TLS: no TLS is spoken there")
        with socket.create_connection(("127.0.0.1", broker.ports[0]), 5) as sock:
            sock.sendall(octets)
            received = b"more"
            while received:  # an alert, and the end
                try:
                    received = sock.recv(100)
                except ConnectionResetError:
                    break
                assert not received.startswith(b"AMQP")
        wait_for(
            lambda n=before: broker.output().count("refused: TLS: no TLS is spoken there") > n,
            "a line about %r" % octets,
        )
    assert open_one(0).is_open


def test_slow_peers_are_cut_and_cost_nobody_else(broker, open_one):
    hello = bytes.fromhex("16030100ff")
    with socket.create_connection(("127.0.0.1", broker.ports[0]), 5) as silent, \
            socket.create_connection(("127.0.0.1", broker.ports[0]), 5) as slow:  # fmt: skip
        begun = time.monotonic()
        slow.sendall(hello[:1])
        connection = open_one(0)
        slow.sendall(hello[1:])
        for sock in (silent, slow):
            sock.settimeout(2 * LOGIN_MS / 1000)
            assert sock.recv(100) == b""
        assert time.monotonic() - begun > LOGIN_MS / 2000
        channel = connection.channel()
        assert channel.queue_declare("", exclusive=True).method.queue


def test_a_client_that_does_not_trust_us(broker, certificates):
    context = ssl.create_default_context(cafile=certificates.path("other-ca.pem"))
    with socket.create_connection(("127.0.0.1", broker.ports[0]), 5) as sock:
        with pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(sock, server_hostname="localhost")
    logged(broker, "refused: TLS: it does not accept our certificate: unknown authority")


# --- EXTERNAL ---


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("cert", ["member", "member-chain"])
def test_the_certificate_says_who_it_is(open_one, cert, version):
    channel = open_one(1, by_certificate(), cert=cert, version=version).channel()
    with pytest.raises(errors.ChannelClosedByBroker) as caught:
        channel.queue_declare("mine")
    assert caught.value.reply_code == 403 and "'gateway-7'" in caught.value.reply_text


def test_a_certificate_and_a_password(open_one):
    assert open_one(1, cert="member").is_open


@pytest.mark.parametrize("port, cert", [(0, None), (0, "member"), (1, None)])
def test_external_is_not_offered_without_a_verified_certificate(broker, certificates, port, cert):
    with socket.create_connection(("127.0.0.1", broker.ports[port]), 5) as plain:
        context = client_context(certificates, cert)
        with context.wrap_socket(plain, server_hostname="localhost") as sock:
            method, offered = answer(sock, "EXTERNAL", "gateway-7")
    assert "EXTERNAL" not in offered
    assert isinstance(method, spec.Connection.Close) and method.reply_code == 403


@pytest.mark.parametrize("cert, response", [("nobody", ""), ("member", "sensor")])
def test_a_certificate_of_somebody_else(broker, certificates, cert, response):
    with socket.create_connection(("127.0.0.1", broker.ports[1]), 5) as plain:
        context = client_context(certificates, cert)
        with context.wrap_socket(plain, server_hostname="localhost") as sock:
            method, offered = answer(sock, "EXTERNAL", response)
    assert "EXTERNAL" in offered
    assert isinstance(method, spec.Connection.Close) and method.reply_code == 403


@pytest.mark.parametrize("version", [V12, V13])
def test_a_certificate_of_an_unknown_authority_ends_the_handshake(broker, certificates, version):
    before = broker.output().count("its certificate: unknown authority")
    with socket.create_connection(("127.0.0.1", broker.ports[1]), 5) as plain:
        context = client_context(certificates, "stranger-member", version)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with context.wrap_socket(plain, server_hostname="localhost") as sock:
                sock.sendall(HEADER_10)
                assert sock.recv(8) == b""
                raise ConnectionError
    wait_for(
        lambda: broker.output().count("its certificate: unknown authority") > before, "a line"
    )


# --- ANONYMOUS, and AMQP 1.0 ---


@pytest.mark.parametrize("response", ["", "\0guest"])
def test_anonymous(broker, certificates, response):
    with socket.create_connection(("127.0.0.1", broker.ports[2]), 5) as sock:
        method, offered = answer(sock, "ANONYMOUS", response)
    assert offered == ["PLAIN", "ANONYMOUS", "AMQPLAIN"]
    assert isinstance(method, spec.Connection.Tune)


@pytest.mark.parametrize("mechanism", ["PLAIN", "EXTERNAL", "ANONYMOUS"])
@pytest.mark.parametrize("port", [1, 2])
def test_amqp_1_0(broker, certificates, port, mechanism):
    client_library("proton")
    from proton import ConnectionException, SSLDomain
    from proton.utils import BlockingConnection

    domain = None
    if port == 1:
        domain = SSLDomain(SSLDomain.MODE_CLIENT)
        domain.set_trusted_ca_db(certificates.path("ca.pem"))
        domain.set_peer_authentication(SSLDomain.VERIFY_PEER_NAME)
        domain.set_credentials(
            certificates.path("member.pem"), certificates.path("member-key.pem"), None
        )
    login = "sensor:secret@" if mechanism == "PLAIN" else ""
    url = "amqp%s://%slocalhost:%d" % ("s" if domain else "", login, broker.ports[port])

    def connect():
        return BlockingConnection(
            url, timeout=10, ssl_domain=domain, allowed_mechs=mechanism,
            allow_insecure_mechs=True, sasl_enabled=True,
        )  # fmt: skip

    if port == 2 and mechanism == "EXTERNAL":
        with pytest.raises(ConnectionException):
            connect()
        return
    connect().close()
    user = "gateway-7" if mechanism == "EXTERNAL" else "sensor"
    logged(broker, "logged in as '%s'" % user)


# --- configurations ---


def test_a_configuration_that_cannot_be_used_is_one_line(certificates, tmp_path):
    """Files are read at the start."""
    tls = {"certificate": certificates.path("good.pem"), "key": certificates.path("good-key.pem")}
    rsa_key = certificates.path("rsa-key.pem")
    missing = str(tmp_path / "missing.pem")
    for changes, line in (
        ({"certificate": missing}, "certificate: %s does not exist" % missing),
        ({"key": missing}, "key: %s does not exist" % missing),
        ({"client_ca": missing}, "client_ca: %s does not exist" % missing),
        ({"key": rsa_key}, "key: %s is not the key of %s" % (rsa_key, tls["certificate"])),
        (
            {"key": certificates.path("client-encrypted.pem")},
            "key: %s needs a password: only keys without one can be used"
            % certificates.path("client-encrypted.pem"),
        ),
        (
            {"client_ca": certificates.path("good-key.pem")},
            "client_ca: %s holds no certificate" % certificates.path("good-key.pem"),
        ),
    ):
        assert refusal(dict(tls, **changes), tmp_path) == "listeners[0].tls." + line
    assert refusal(tls, tmp_path, profile="pico_w") == (
        "listeners[0].tls: a board has no memory for it"
    )


def refusal(tls, tmp_path, **settings):
    """The one line that a start with the listener's *tls* ends with."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(dict(settings, listeners=[{"port": 0, "tls": tls}])))
    command = [sys.executable, "-m", "host_tools", "run", "--config", str(config), "--no-store"]
    done = subprocess.run(
        command, cwd=interop_broker.ROOT, capture_output=True, text=True, timeout=20
    )
    assert done.returncode, done.stdout
    lines = done.stderr.strip().split("\n")
    assert len(lines) == 1, done.stderr
    return lines[0][lines[0].index("listeners[0]") :]
