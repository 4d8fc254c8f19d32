"""python-qpid-proton: who is let in over TLS, and what the user that one is may do."""

import pytest

import interop_broker
from certificates import Certificates
from interop_support import client_library

proton = client_library("proton")

from proton import ConnectionException, Delivery, Message, SSLDomain  # noqa: E402
from proton.utils import LinkDetached  # noqa: E402

READINGS = "/queues/readings"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def broker(certificates, tmp_path_factory):
    """A certificate's name is gateway-7; the nameless are "nobody"."""
    tls = {key: certificates.path(name) for key, name in (
        ("certificate", "good.pem"), ("key", "good-key.pem"), ("client_ca", "ca.pem"),
    )}  # fmt: skip
    password_hash = "c2FsdL7ekDhtRQzqi3e4IviIcGXk5avxMsL53M/Mf71Mul41"  # of "secret"
    users = {
        "all": {"configure": ["*"], "write": ["*"], "read": ["*"]},
        "gateway-7": {"write": ["readings"]},
        "nobody": {"read": ["readings"]},
    }
    settings = {
        "users": {name: dict(users[name], password_hash=password_hash) for name in users},
        "anonymous": "nobody",
        "queues": [{"name": "readings"}],
        "listeners": [{"port": 0, "tls": tls}],
    }
    settings["users"]["gateway-7"]["password_hash"] = None
    running = interop_broker.start_configured(tmp_path_factory.mktemp("login"), settings)
    yield running
    running.stop()


@pytest.fixture
def log_in(broker, certificates, link_up):
    """Opens a connection by one of these *mechanisms*."""

    def open_one(mechanisms, certificate=None, user=None, password=None):
        domain = SSLDomain(SSLDomain.MODE_CLIENT)
        domain.set_trusted_ca_db(certificates.path("ca.pem"))
        domain.set_peer_authentication(SSLDomain.VERIFY_PEER_NAME, certificates.path("ca.pem"))
        if certificate is not None:
            files = [certificates.path(certificate + end) for end in (".pem", "-key.pem")]
            domain.set_credentials(*files, None)
        url = "amqps://localhost:%d" % broker.port
        options = {"ssl_domain": domain, "allowed_mechs": mechanisms}
        return link_up(broker, url=url, user=user, password=password, **options)

    return open_one


def receive(connection, address=READINGS):
    receiver = connection.create_receiver(address, name="of " + address)
    message = receiver.receive()
    receiver.settle(Delivery.ACCEPTED)
    return message.body


def refused(make, address):
    with pytest.raises(LinkDetached) as caught:
        make(address)
    return caught.value.condition == "amqp:unauthorized-access"


def test_a_certificate_is_who_one_is(log_in):
    edge = log_in("EXTERNAL", "member")
    edge.create_sender(READINGS).send(Message(body="from a certificate"))
    assert refused(edge.create_receiver, READINGS)
    assert receive(log_in("PLAIN", user="all", password="secret")) == "from a certificate"


def test_without_a_certificate_there_is_no_external(log_in):
    with pytest.raises(ConnectionException):
        log_in("EXTERNAL")


def test_the_certificate_of_a_stranger_is_none(log_in):
    with pytest.raises(ConnectionException):
        log_in("EXTERNAL", "stranger-member")


def test_nobody_has_the_password_of_a_user_without_one(log_in):
    with pytest.raises(ConnectionException) as caught:
        log_in("PLAIN", user="gateway-7", password="")
    assert "amqp:unauthorized-access" in str(caught.value)


def test_a_plain_address_makes_a_queue_for_who_may(log_in):
    with pytest.raises(LinkDetached) as caught:
        log_in("EXTERNAL", "member").create_sender("plain-queue")
    assert caught.value.condition == "amqp:not-found"
    everything = log_in("PLAIN", user="all", password="secret")
    everything.create_sender("plain-queue").send(Message(body="a"))
    assert receive(everything, "plain-queue") == "a"


def test_anonymous_is_a_user_who_may_little(log_in):
    anonymous = log_in("ANONYMOUS")
    log_in("PLAIN", user="all", password="secret").create_sender(READINGS).send(
        Message(body="for everybody")
    )
    assert receive(anonymous) == "for everybody"
    for address in (READINGS, "/exchanges/amq.topic/a", "/queue/new"):
        assert refused(anonymous.create_sender, address)
    assert refused(anonymous.create_receiver, "/exchange/amq.topic/a")
