"""node.serve() beside other asyncio tasks, and the broker calls of code on the same machine."""

import asyncio
import json

from amqp_lite import Node
from amqp_lite.errors import NotFound, ResourceLimitExceeded

SMALL = {
    "listeners": [],
    "log_level": "error",
    "queues": [{"name": "telemetry"}],
    "limits": {"connections": 2, "unauthenticated": 1, "channels": 2, "queues": 4, "bindings": 8,
               "exchanges": 12, "consumers": 4, "messages": 8, "deliveries": 16, "blocks": 64,
               "block_size": 128, "message_max": 2048, "receive_buffer": 1024,
               "send_buffer": 2048, "frame_max": 4096, "routes": 4, "log_lines": 4},
}  # fmt: skip


def new_node():
    return Node(json.dumps(SMALL))


def test_other_tasks_run_while_the_broker_serves():
    node = new_node()
    got = []
    node.subscribe("telemetry", lambda message: got.append(message.body))

    async def sensor():
        for k in range(5):
            node.publish("", "telemetry", "reading %d" % k)
            await asyncio.sleep(0.01)
        for _ in range(100):
            if len(got) == 5:
                break
            await asyncio.sleep(0.01)
        node.stop()

    async def main():
        await asyncio.gather(node.serve(), sensor())

    asyncio.run(main())
    assert got == [b"reading %d" % k for k in range(5)]
    node.close()


def test_a_callback_sees_the_whole_message():
    node = new_node()
    got = []
    node.subscribe("telemetry", got.append)
    properties = {"content_type": "text/plain", "headers": {"unit": "C"}, "message_id": "7"}
    assert node.publish("", "telemetry", b"21.5", properties) == 1
    node.step(0)
    node.step(0)
    message = got[0]
    assert (message.exchange, message.routing_key, message.body) == ("", "telemetry", b"21.5")
    assert message.properties["headers"] == {b"unit": b"C"}
    assert message.properties["message_id"] == b"7"
    assert not message.redelivered
    node.close()


def test_a_callback_that_fails_gets_the_message_once_more_and_no_third_time():
    node = new_node()
    seen = []

    def fail(message):
        seen.append(message.redelivered)
        raise ValueError("the sensor code is wrong")

    node.subscribe("telemetry", fail)
    node.publish("", "telemetry", b"x")
    for _ in range(5):
        node.step(0)
    assert seen == [False, True]
    status = node.status()
    assert status["counters"]["callback_errors"] == 2
    assert status["queues"]["telemetry"] == {"ready": 0, "unacked": 0, "consumers": 1}
    node.close()


def test_publishing_says_what_is_wrong():
    node = new_node()
    try:
        node.publish("nowhere", "key", b"x")
        raise AssertionError("no error")
    except NotFound as error:
        assert "nowhere" in error.text
    assert node.publish("", "nobody", b"x") == 0
    for _ in range(8):
        node.publish("", "telemetry", b"x")
    try:
        node.publish("", "telemetry", b"x")
        raise AssertionError("no error")
    except ResourceLimitExceeded:
        pass
    json.dumps(node.status())
    node.close()
