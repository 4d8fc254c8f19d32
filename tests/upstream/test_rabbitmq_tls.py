"""The bridge to a real RabbitMQ over TLS: verified, pinned, refused."""

import pytest

from certificates import Certificates
from edge import bridge, uplink


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def forwarded(rabbitmq, cloud, start_edge, runtime, files):
    """Starts an edge with these settings of TLS and sees whether its messages *arrive*.

    server  the certificate RabbitMQ has; client: whose it asks for; the settings are file names
    """

    def start(server="good", client=None, arrive=True, **tls):
        port = rabbitmq.listen_tls(
            files.path(server + ".pem"), files.path(server + "-key.pem"),
            client and files.path(client), client is not None,
        )  # fmt: skip
        for key in ("ca", "cert", "key"):
            if key in tls:
                tls[key] = files.path(tls[key])
        rows = [uplink(routing_key=cloud.queue, window=8)]
        row = bridge(port, rows, hosts=["localhost:%d" % port], tls=tls)
        edge = start_edge(row, runtime=runtime)
        sent = [b"%d" % k for k in range(20)]
        for body in sent:
            edge.publish(body)
        if arrive:
            cloud.wait_for_bodies(edge, sent, 10)
        return edge

    return start


def test_verified_by_an_authority(forwarded):
    forwarded(ca="ca.pem")


def test_pinned(forwarded, files):
    forwarded("stranger", pins=[files.pin("named"), files.pin("stranger")])


def test_with_a_certificate_of_ours(forwarded):
    forwarded(client="ca.pem", ca="ca.pem", cert="client.pem", key="client-key.pem")


@pytest.mark.parametrize(
    "server, why", [
        ("stranger", "unknown authority"), ("named", "wrong host name"),
        ("expired", "expired on "), ("early", "not yet valid"),
    ],
)  # fmt: skip
def test_a_wrong_certificate_gets_no_password(server, why, forwarded):
    edge = forwarded(server, arrive=False, ca="ca.pem")
    edge.wait_until(lambda: why in edge.bridge()["last_error"], why)
    row = edge.bridge()
    assert row["last_error"].startswith("certificate of localhost: ") and row["connects"] == 0
    assert "the clock here says " in row["last_error"]
    assert edge.ready() == 20


def test_no_verification_is_said_at_each_start(forwarded):
    edge = forwarded("expired", dangerously_accept_any_certificate=True)
    assert "dangerously_accept_any_certificate" in edge.output()
