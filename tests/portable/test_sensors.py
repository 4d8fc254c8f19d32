"""Sampling functions: when they are called, what is published, and that one cannot hurt others."""

import json
import sys

from amqp_lite import Node
from amqp_lite.compat import MICROPYTHON
from amqp_lite.log import log
from board.sensors import Sensors

SETTINGS = {
    "listeners": [],
    "log_level": "info",
    "exchanges": [{"name": "telemetry", "type": "topic"}],
    "queues": [{"name": "all", "durable": False}],
    "bindings": [{"source": "telemetry", "destination": "all", "routing_key": "#"}],
    "limits": {"connections": 2, "unauthenticated": 1, "channels": 2, "queues": 4, "bindings": 8,
               "exchanges": 12, "consumers": 4, "messages": 8, "deliveries": 16, "blocks": 64,
               "block_size": 128, "message_max": 2048, "receive_buffer": 1024,
               "send_buffer": 2048, "frame_max": 4096, "routes": 4, "log_lines": 16},
}  # fmt: skip


class Published:
    """Stands for a node."""

    def __init__(self):
        self.messages = []

    def publish(self, exchange, routing_key, body, properties=None):
        self.messages.append((exchange, routing_key, body, properties))


class Clock:
    def __init__(self, is_set):
        self.is_set = is_set

    def now(self):
        return 1793577600


def published(value, clock=None):
    """The body and the properties of what is published for *value*."""
    node = Published()
    sensors = Sensors(node, clock=clock)
    sensors.add(lambda: value, 1, "key")
    sensors.step(0)
    ((exchange, key, body, properties),) = node.messages
    assert (exchange, key) == ("telemetry", "key")
    return body, properties


def lines():
    """What was logged since the last call."""
    found = log.recent()
    log.configure("info", 16)
    return found


# --- what is published ---


def test_answers_become_messages():
    assert published(b"\x00\xff") == (b"\x00\xff", {"delivery_mode": 2})
    text = {"delivery_mode": 2, "content_type": "text/plain"}
    assert published("21.5 C") == ("21.5 C", text)
    assert published(21.5) == ("21.5", text)
    assert published(7) == ("7", text)
    body, properties = published({"temperature": 21.5, "at": [1, 2]})
    assert json.loads(body) == {"temperature": 21.5, "at": [1, 2]}
    assert properties == {"delivery_mode": 2, "content_type": "application/json"}
    assert json.loads(published([1, None])[0]) == [1, None]


def test_a_message_says_when_as_soon_as_the_clock_is_set():
    assert "timestamp" not in published(1, Clock(False))[1]
    assert published(1, Clock(True))[1]["timestamp"] == 1793577600


def test_none_is_not_sent():
    node = Published()
    sensors = Sensors(node)
    sensors.add(lambda: None, 1, "key")
    sensors.step(0)
    assert not node.messages
    assert sensors.status() == {"key": {"sent": 0, "errors": 0, "error": ""}}


def test_the_broker_takes_them_as_persistent_messages():
    node = Node(json.dumps(SETTINGS))
    got = []
    node.subscribe("all", got.append)
    sensors = Sensors(node, clock=Clock(True))
    sensors.add(lambda: {"humidity": 40}, 1, "room.air")
    sensors.step(0)
    node.step(0)
    node.step(0)
    (message,) = got
    assert (message.exchange, message.routing_key) == ("telemetry", "room.air")
    assert json.loads(message.body) == {"humidity": 40}
    assert message.properties["delivery_mode"] == 2
    assert message.properties["timestamp"] == 1793577600
    node.close()


def test_without_its_exchange_the_board_says_so():
    node = Node(json.dumps(dict(SETTINGS, exchanges=[], bindings=[])))
    sensors = Sensors(node)
    sensors.add(lambda: 1, 1, "key")
    sensors.step(0)
    assert "telemetry" in sensors.status()["key"]["error"]
    node.close()


# --- when ---


def counter(sensors, period_s, key):
    calls = []
    sensors.add(lambda: calls.append(1), period_s, key)
    return calls


def test_each_has_its_period_and_the_first_call_is_at_once():
    sensors = Sensors(Published())
    fast = counter(sensors, 0.25, "fast")
    slow = counter(sensors, 1, "slow")
    now = 5000
    while now < 7000:
        wait = sensors.step(now)
        assert wait > 0
        now += wait
    assert (len(fast), len(slow)) == (8, 2)


def test_nothing_is_made_up_for_after_a_pause_and_the_beat_stays():
    sensors = Sensors(Published())
    calls = counter(sensors, 0.1, "key")
    assert sensors.step(0) == 100
    assert sensors.step(730) == 70
    assert len(calls) == 2
    assert sensors.step(799) == 1
    assert sensors.step(800) == 100
    assert len(calls) == 3


def test_without_sensors_it_waits():
    assert Sensors(Published()).step(0) == 1000


def test_periods_that_cannot_be():
    for period in (0, -1, 0.001, 86401):
        try:
            Sensors(Published()).add(lambda: 1, period, "key")
        except ValueError as error:
            assert "period" in str(error)
        else:
            raise AssertionError(period)


def test_waiting_does_not_allocate():
    if not MICROPYTHON:
        return
    import micropython

    sensors = Sensors(Published())
    counter(sensors, 1, "key")
    sensors.step(0)
    micropython.heap_lock()
    try:
        wait = sensors.step(400)
    finally:
        micropython.heap_unlock()
    assert wait == 600


# --- errors ---


def test_a_broken_sensor_is_logged_once_and_stops_no_other():
    lines()
    state = {"error": None}

    def sample():
        if state["error"]:
            raise OSError(state["error"])
        return 1

    node = Published()
    sensors = Sensors(node)
    sensors.add(sample, 1, "bad")
    sensors.add(lambda: 2, 1, "good")
    now = 0
    for error in (None, "no answer", "no answer", "checksum", None):
        state["error"] = error
        now += sensors.step(now)
    assert lines() == [
        "sensor bad: OSError: no answer", "sensor bad: OSError: checksum",
        "sensor bad: works again",
    ]  # fmt: skip
    status = sensors.status()
    assert status["bad"] == {"sent": 2, "errors": 3, "error": ""}
    assert status["good"]["sent"] == 5


class App:
    """Stands for the module app while the block lasts."""

    def __init__(self, setup):
        self.setup = setup

    def __enter__(self):
        sys.modules["app"] = self

    def __exit__(self, *_):
        del sys.modules["app"]


class Board:
    @staticmethod
    def chip_temperature():
        return 27.0


def test_app_registers_its_sensors():
    node = Published()
    sensors = Sensors(node)

    def setup(its_node, its_sensors, board):
        assert its_node is node
        its_sensors.add(board.chip_temperature, 10, "chip.temperature")

    with App(setup):
        sensors.setup(Board)
    sensors.step(0)
    assert [message[1:3] for message in node.messages] == [("chip.temperature", "27.0")]


def test_without_app_there_are_no_sensors():
    lines()
    sensors = Sensors(Published())
    sensors.setup(Board)
    assert sensors.status() == {} and lines() == []


def test_an_error_in_app_does_not_stop_the_broker():
    lines()
    sensors = Sensors(Published())

    def setup(node, sensors, board):
        sensors.add(lambda: 1, 1, "first")
        raise ImportError("no module named 'sht3x'")

    with App(setup):
        sensors.setup(Board)
    assert list(sensors.status()) == ["first"]
    assert lines()[0] == "app.py: ImportError: no module named 'sht3x'"
