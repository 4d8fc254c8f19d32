"""rhea (Node.js): AMQP 1.0 alone, and beside pika on the same queue.

The cases are in node/rhea_cases.js; one process runs them all.
"""

import json
import pathlib
import re

import pytest

from interop_support import CaseProcess, client_library, ready, settle, take, wait_for

pika = client_library("pika")

NODE = pathlib.Path(__file__).parent / "node"
ALONE, HALVES = [
    re.findall(r"^  async (\w+)\([a-z, ]*\) \{$", part, re.MULTILINE)
    for part in (NODE / "rhea_cases.js").read_text().split("// --- one half")
]
UUID = "00112233-4455-6677-8899-aabbccddeeff"


@pytest.fixture(scope="session")
def broker(v10_broker):
    return v10_broker


@pytest.fixture(scope="session")
def program(node_modules, tmp_path_factory):
    log = tmp_path_factory.mktemp("rhea") / "log"
    running = CaseProcess(["node", "rhea_cases.js"], log, cwd=NODE)
    yield running
    running.stop()


@pytest.fixture
def queue(channel, fresh):
    name = fresh.queue("rhea")
    channel.queue_declare(name)
    return name


@pytest.fixture
def rhea(program, broker, queue):
    """Runs a case of rhea's for the queue."""

    def run(case, argument=None):
        return json.loads(program.run(line(case, argument)))

    def line(case, argument=None):
        assert case in ALONE or case in HALVES
        return json.dumps([case, broker.url, queue, argument])

    run.line = line
    return run


@pytest.mark.parametrize("case", ALONE)
def test_rhea(rhea, limits, case):
    rhea(case, limits.body - 100)


# --- what one protocol sends and the other gets, as RabbitMQ's table of conversions says ---

FROM_0_9_1 = [
    ({}, {"durable": False}),
    ({"delivery_mode": 2}, {"durable": True}),
    ({"priority": 5}, {"priority": 5}),
    ({"expiration": "60000"}, {"ttl": 60000}),
    ({"message_id": "m-1"}, {"message_id": "m-1"}),
    ({"correlation_id": "c-1"}, {"correlation_id": "c-1"}),
    ({"message_id": "urn:uuid:" + UUID}, {"message_id": UUID.replace("-", "")}),
    ({"user_id": "guest"}, {"user_id": b"guest".hex()}),
    ({"reply_to": "my answers"}, {"reply_to": "/queues/my%20answers"}),
    ({"content_type": "text/plain"}, {"content_type": "text/plain"}),
    ({"content_encoding": "gzip"}, {"content_encoding": "gzip"}),
    ({"timestamp": 1700000000}, {"creation_time": 1700000000000}),
    ({"app_id": "a"}, {"group_id": "a"}),
    ({"type": "t"}, {"message_annotations": {"x-basic-type": "t"}}),
    ({"headers": {"s": "grüß", "n": -5, "b": True, "z": None}},
     {"application_properties": {"s": "grüß", "n": -5, "b": True, "z": None}}),
    ({"headers": {"x-note": "n"}}, {"message_annotations": {"x-note": "n"}}),
    ({"headers": {"list": [1], "table": {"a": 1}}}, {"application_properties": None}),
]  # fmt: skip


@pytest.mark.parametrize("properties, wanted", FROM_0_9_1)
def test_what_pika_publishes_rhea_gets(rhea, channel, queue, properties, wanted):
    channel.basic_publish("", queue, b"body", pika.BasicProperties(**properties))
    got = rhea("receiveOne")
    assert got["body"] == "body"
    annotations = got.pop("message_annotations")
    assert annotations["x-exchange"] == ""
    assert annotations["x-routing-key"] == queue
    for field in wanted:
        if field == "message_annotations":
            for key in wanted[field]:
                assert annotations[key] == wanted[field][key]
        else:
            assert got.get(field) == wanted[field], got


FROM_1_0 = [
    ({}, {"delivery_mode": 1}),
    ({"durable": True}, {"delivery_mode": 2}),
    ({"priority": 5}, {"priority": 5}),
    ({"ttl": 60000}, {"expiration": "60000"}),
    ({"message_id": "m-1"}, {"message_id": "m-1"}),
    ({"correlation_id": "c-1"}, {"correlation_id": "c-1"}),
    ({"message_id": {"uuid": UUID.replace("-", "")}}, {"message_id": "urn:uuid:" + UUID}),
    ({"correlation_id": {"ulong": 77}}, {"correlation_id": "77"}),
    ({"message_id": "m" * 300},
     {"message_id": None, "headers": {"x-message-id": "m" * 300}}),
    ({"user_id": "guest"}, {"user_id": "guest"}),
    ({"reply_to": "/queues/my%20answers"}, {"reply_to": "my answers"}),
    ({"content_type": "text/plain"}, {"content_type": "text/plain"}),
    ({"content_encoding": "gzip"}, {"content_encoding": "gzip"}),
    ({"creation_time": 1700000000123}, {"timestamp": 1700000000}),
    ({"group_id": "a"}, {"app_id": "a"}),
    ({"subject": "s", "to": "/queues/t", "group_sequence": 3, "reply_to_group_id": "r"},
     {"headers": None, "app_id": None, "type": None}),
    ({"message_annotations": {"x-basic-type": "t", "x-note": "n", "other": "o"}},
     {"type": "t", "headers": {"x-note": "n"}}),
    ({"application_properties": {"s": "grüß", "n": -5, "b": True, "z": None}},
     {"headers": {"s": "grüß", "n": -5, "b": True, "z": None}}),
]  # fmt: skip


@pytest.mark.parametrize("message, wanted", FROM_1_0)
def test_what_rhea_sends_pika_gets(rhea, channel, queue, message, wanted):
    rhea("sendOne", dict(message, data="body"))
    wait_for(lambda: ready(channel, queue) == 1, "the message")
    _method, properties, body = channel.basic_get(queue, auto_ack=True)
    assert body == b"body"
    for name in wanted:
        assert getattr(properties, name) == wanted[name], properties


@pytest.mark.parametrize("body", ["text", 5, ["a", 1], {"a": 1}])
def test_a_body_of_amqp_1_0_survives_0_9_1(rhea, channel, queue, body):
    rhea("sendOne", {"body": body})
    wait_for(lambda: ready(channel, queue) == 1, "the message")
    _method, properties, octets = channel.basic_get(queue, auto_ack=True)
    assert properties.type == "amqp-1.0"
    channel.basic_publish("", queue, octets, properties)
    assert rhea("receiveOne")["body"] == body


def test_a_delivery_count_is_of_both(rhea, channel, queue):
    channel.basic_publish("", queue, b"a")
    tag, redelivered, _body = take(channel, queue)
    assert not redelivered
    channel.basic_nack(tag)
    settle(channel, queue, 1)
    assert rhea("receiveOne")["delivery_count"] == 1


# --- requests of one protocol, answers of the other ---


def test_pika_asks_a_service_of_rhea(program, rhea, channel, queue):
    answers = []
    channel.basic_consume(
        "amq.rabbitmq.reply-to",
        lambda _channel, _method, properties, body: answers.append(
            (properties.correlation_id, body)
        ),
        auto_ack=True,
    )
    program.begin(rhea.line("service", 3))
    for k in range(3):
        properties = pika.BasicProperties(
            correlation_id="c%d" % k, reply_to="amq.rabbitmq.reply-to"
        )
        channel.basic_publish("", queue, b"q%d" % k, properties)
        wait_for(
            lambda k=k: channel.connection.process_data_events(0.02) or len(answers) > k,
            "an answer",
        )
    program.end()
    assert answers == [("c%d" % k, b"q%d is answered" % k) for k in range(3)]


def test_rhea_asks_a_service_of_pika(program, rhea, channel, queue):
    def answer(_channel, _method, properties, body):
        answered = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, body + b" is answered", answered)
        taken.append(body)

    taken = []
    channel.basic_consume(queue, answer, auto_ack=True)
    program.begin(rhea.line("client", 3))
    wait_for(
        lambda: channel.connection.process_data_events(0.02) or len(taken) == 3, "the questions"
    )
    answers = json.loads(program.end())
    assert answers == [["c%d" % k, "q%d is answered" % k] for k in range(3)]
