"""The clients of Azure Service Bus, for Python and for Node.js (node/servicebus.js)."""

import base64
import hashlib
import hmac
import pathlib
import subprocess
import time
import urllib.parse
from datetime import datetime, timedelta, timezone

import pytest

import interop_broker
from interop_support import client_library, drain, pika_parameters, publish

azure = client_library("azure.servicebus")
errors = client_library("azure.servicebus.exceptions")
Message = azure.ServiceBusMessage

NODE = pathlib.Path(__file__).parent / "node"
KEY = "c2VjcmV0LWtleS1mb3ItdGVzdC12ZWN0b3ItMDAwMDE="


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    settings = {
        "listeners": [{"port": 0}],
        "limits": {"auto_declare": 0},
        "queues": [{"name": name} for name in ("q", "r", "n", "n-plain", "t/Subscriptions/s")],
        "exchanges": [{"name": "t", "type": "fanout"}],
        "bindings": [{"source": "t", "destination": "t/Subscriptions/s"}],
        "shared_access_keys": {"root": {"key": KEY, "user": "guest"}},
    }
    running = interop_broker.start_configured(tmp_path_factory.mktemp("azure"), settings)
    yield running
    running.stop()


def connection_string(broker, key=KEY):
    """What the portal gives, but for TLS."""
    return (
        "Endpoint=sb://127.0.0.1:%d;SharedAccessKeyName=root;SharedAccessKey=%s;"
        "UseDevelopmentEmulator=true;" % (broker.port, key)
    )


def open_client(text):
    return azure.ServiceBusClient.from_connection_string(text, retry_total=0)


@pytest.fixture(scope="module")
def client(broker):
    """One for all tests: it opens a connection for each sender and receiver."""
    with open_client(connection_string(broker)) as opened:
        yield opened


@pytest.fixture
def channel(broker):
    pika = client_library("pika")
    connection = pika.BlockingConnection(pika_parameters(broker))
    yield connection.channel()
    connection.close()


def bodies(messages):
    return [str(message) for message in messages]


def test_messages_go_through_and_are_settled_in_every_way(client, channel):
    with client.get_queue_sender("q") as sender:
        sender.send_messages(
            Message("one", message_id="m1", subject="s", application_properties={"a": 1})
        )
        batch = sender.create_message_batch()
        assert batch.max_size_in_bytes == 1 << 20
        for body in ("two", "three", "four", "five"):
            batch.add_message(Message(body))
        sender.send_messages(batch)
    with client.get_queue_receiver("q") as receiver:
        assert bodies(receiver.peek_messages(3)) == ["one", "two", "three"]
        found = receiver.receive_messages(5, max_wait_time=5)
        while len(found) < 5:
            found += receiver.receive_messages(5 - len(found), max_wait_time=5)
        assert bodies(found) == ["one", "two", "three", "four", "five"]
        one, two, three, four, five = found
        assert (one.message_id, one.subject, one.delivery_count) == ("m1", "s", 0)
        assert one.application_properties == {b"a": 1}
        assert two.message_id
        numbers = [message.sequence_number for message in found]
        assert numbers == sorted(set(numbers))
        assert len({message.lock_token for message in found}) == 5
        now = datetime.now(timezone.utc)
        assert now - timedelta(0, 10) < one.enqueued_time_utc <= now
        assert receiver.renew_message_lock(one) > now + timedelta(0, 30)
        receiver.complete_message(one)
        receiver.abandon_message(two)
        receiver.dead_letter_message(three, "why", "because")
        receiver.defer_message(four)
        (deferred,) = receiver.receive_deferred_messages([four.sequence_number])
        assert str(deferred) == "four"
        receiver.complete_message(deferred)
        (again,) = receiver.receive_messages(1, max_wait_time=5)
        assert (str(again), again.delivery_count) == ("two", 1)
        # `five` is not settled: it comes back when the receiver closes.
    with client.get_queue_receiver(
        "q", sub_queue=azure.ServiceBusSubQueue.DEAD_LETTER
    ) as receiver:
        (letter,) = receiver.receive_messages(1, max_wait_time=5)
        assert (str(letter), letter.dead_letter_source) == ("three", "q")
        assert letter.dead_letter_reason == "why"
        assert letter.dead_letter_error_description == "because"
        receiver.complete_message(letter)
    assert drain(channel, "q") == [b"two", b"five"]
    assert drain(channel, "q/$DeadLetterQueue") == []


def test_what_plain_clients_publish_is_received_and_deleted(client, channel):
    channel.basic_publish("", "r", b"plain")
    mode = azure.ServiceBusReceiveMode.RECEIVE_AND_DELETE
    with client.get_queue_receiver("r", receive_mode=mode, max_wait_time=5) as receiver:
        (found,) = receiver.receive_messages(1)
        assert str(found) == "plain" and found.message_id
        assert receiver.receive_messages(1, max_wait_time=0.1) == []


def test_a_topic_and_its_subscription(client):
    with client.get_topic_sender("t") as sender:
        sender.send_messages([Message("a"), Message("b")])
    with client.get_subscription_receiver("t", "s") as receiver:
        found = receiver.receive_messages(2, max_wait_time=5)
        assert bodies(found) == ["a", "b"]
        for message in found:
            receiver.complete_message(message)


def test_what_is_not_there(client):
    with pytest.raises(errors.MessagingEntityNotFoundError):
        with client.get_queue_sender("nope") as sender:
            sender.send_messages(Message("x"))
    with pytest.raises(errors.ServiceBusError, match="not-implemented"):
        with client.get_queue_sender("q") as sender:
            sender.schedule_messages(Message("x"), datetime.now(timezone.utc) + timedelta(1))
    with pytest.raises(errors.ServiceBusError, match="not-implemented"):
        with client.get_queue_receiver("q", session_id="s") as receiver:
            receiver.receive_messages()


def signature(broker, expiry):
    uri = urllib.parse.quote_plus("sb://127.0.0.1:%d/q" % broker.port)
    signed = hmac.new(KEY.encode(), b"%s\n%d" % (uri.encode(), expiry), hashlib.sha256)
    sign = urllib.parse.quote_plus(base64.b64encode(signed.digest()))
    return "SharedAccessSignature sr=%s&sig=%s&se=%d&skn=root" % (uri, sign, expiry)


def test_tokens(broker):
    whole = "Endpoint=sb://127.0.0.1:%d;SharedAccessSignature=%s;UseDevelopmentEmulator=true;"
    wrong = connection_string(broker, "wrong")
    expired = whole % (broker.port, signature(broker, int(time.time()) - 5))
    for text in (wrong, expired):
        with pytest.raises(errors.ServiceBusAuthenticationError):
            with open_client(text) as opened, opened.get_queue_sender("q") as sender:
                sender.send_messages(Message("x"))
    good = whole % (broker.port, signature(broker, int(time.time()) + 60))
    with open_client(good) as opened:
        with opened.get_queue_receiver("q") as receiver:
            assert receiver.peek_messages() == []
        with pytest.raises(errors.ServiceBusError, match="unauthorized-access"):
            with opened.get_queue_receiver("r") as receiver:  # the token is for another one
                receiver.receive_messages()


def test_node(node_modules, broker, channel):
    publish(channel, "n-plain", b"plain")
    command = ["node", "servicebus.js", connection_string(broker), "n"]
    done = subprocess.run(command, cwd=NODE, timeout=25, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert drain(channel, "n") == drain(channel, "n-plain") == []
