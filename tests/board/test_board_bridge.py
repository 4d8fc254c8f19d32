"""The bridge of a board to a real RabbitMQ on this machine, through outages of both."""

import hashlib
import json
import os
import ssl
import time

import pika
import pytest
import trustme
from emulated import UPSTREAM

from rabbitmq import RabbitMQ

APP = """
count = 0

def sample():
    global count
    count += 1
    return {"count": count}

def setup(node, sensors, board):
    sensors.add(sample, 2, "sensor.count")
"""
PERSISTENT = pika.BasicProperties(delivery_mode=2)
QUEUE = "cloud"


@pytest.fixture
def rabbitmq():
    why = RabbitMQ.missing()
    if why:
        assert not os.environ.get("CI"), why
        pytest.skip(why)
    broker = RabbitMQ()
    broker.start()
    yield broker
    broker.remove()


def bridged(settings, port, **more):
    """*settings* of a board that sends all its telemetry to RabbitMQ at *port*."""
    uplink = {
        "queue": "telemetry", "exchange": "", "routing_key": QUEUE, "declare": "classic",
        "window": 8,
    }  # fmt: skip
    bridge = {
        "name": "cloud", "hosts": [f"{UPSTREAM}:{port}"], "retry_max": 2, "timeout": 5,
        "uplinks": [uplink], **more,
    }  # fmt: skip
    return dict(settings, bridges=[bridge], limits={"amqp10": 0})


def test_bridge_through_an_outage_and_a_reboot(make_board, settings, rabbitmq, report):
    board = make_board(bridged(settings, rabbitmq.port), APP, allow=(rabbitmq.port,))
    board.on()
    arrived = Arrived(rabbitmq.port)
    sent = []

    def publish(count):
        with board.channel() as channel:
            for _ in range(count):
                body = b"%06d" % len(sent)
                channel.basic_publish("telemetry", "room.temperature", body, PERSISTENT)
                sent.append(body)  # it was confirmed

    publish(30)
    arrived.wait_for(sent)
    heap = board.status()["heap_free"]
    arrived.close()
    rabbitmq.stop()
    publish(30)
    board.cut()
    board.on()
    publish(10)
    status = board.status()
    assert status["bridges"]["cloud"]["uplinks"]["telemetry"]["backlog"] >= 40
    rabbitmq.start()
    arrived.open(rabbitmq.port)
    arrived.wait_for(sent)
    duplicates = len(arrived.bodies) - len(set(arrived.bodies))
    first = list(dict.fromkeys(arrived.bodies))
    assert first == sent, "not in order"
    assert duplicates <= 8, "more than the window came twice"
    assert arrived.sensor > 2, "the sensor's messages are not there"
    assert set(arrived.ids.values()) == {1}, "one message-id for two messages"
    report(
        "bridge to RabbitMQ",
        f"{len(sent)} messages confirmed, upstream away and the power cut meanwhile: 0 lost, in "
        f"order, {duplicates} twice; {arrived.sensor} of a sensor on the board; {heap:,} octets "
        "of heap free while it sends",
        sent=len(sent), lost=0, duplicates=duplicates, heap=heap,
    )  # fmt: skip


class Arrived:
    """What has come to the queue upstream."""

    def __init__(self, port):
        self.bodies = []
        self.sensor = 0
        self.ids = {}  # by message-id: how many bodies had it
        self.open(port)

    def open(self, port):
        self._connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
        self._channel = self._connection.channel()
        self._channel.queue_declare(QUEUE, durable=True)

    def close(self):
        self._connection.close()

    def wait_for(self, sent, seconds=60):
        """Until all of *sent* are there."""
        deadline = time.monotonic() + seconds
        missing = set(sent) - set(self.bodies)
        while missing:
            assert time.monotonic() < deadline, f"{sorted(missing)} did not arrive"
            method, properties, body = self._channel.basic_get(QUEUE, auto_ack=True)
            if method is None:
                time.sleep(0.05)
            elif properties.headers.get("x-edge-device") and body.startswith(b"{"):
                self.sensor += json.loads(body)["count"] > 0
            else:
                if body not in self.bodies:
                    self.ids[properties.message_id] = self.ids.get(properties.message_id, 0) + 1
                self.bodies.append(body)
                missing.discard(body)


# README.md says so: what leaves room for TLS on a firmware without our code in it.
SMALL = {
    "amqp10": 0, "connections": 2, "unauthenticated": 1, "channels": 3, "blocks": 36,
    "message_max": 2048, "messages": 14, "deliveries": 16, "queues": 5, "bindings": 2,
    "exchanges": 8, "consumers": 3, "routes": 2, "log_lines": 4,
}  # fmt: skip


def test_bridge_over_tls(make_board, settings, rabbitmq, tmp_path, report):
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    leaf = authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    leaf.cert_chain_pems[0].write_to_path(certificate)
    leaf.private_key_pem.write_to_path(key)
    port = rabbitmq.listen_tls(str(certificate), str(key))
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    tls = {"pins": [hashlib.sha256(der).hexdigest()]}
    settings = dict(bridged(settings, port, tls=tls), limits=SMALL)
    board = make_board(settings, APP, allow=(port,)).on()
    before = board.status()["heap_free"]
    arrived = Arrived(rabbitmq.port)
    sent = []
    with board.channel() as channel:
        for number in range(30):
            sent.append(b"%06d" % number)
            channel.basic_publish("telemetry", "room.temperature", sent[-1], PERSISTENT)
    arrived.wait_for(sent)
    arrived.close()
    heap = board.status()["heap_free"]
    report(
        "bridge over TLS",
        f"{len(sent)} messages arrived, {before:,} octets of heap free after start, {heap:,} "
        "while connected",
        before=before, heap=heap,
    )  # fmt: skip
