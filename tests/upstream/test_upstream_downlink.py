"""What comes down: every sentence of the promise, with a real RabbitMQ where it matters."""

import threading
import time

import pika
import pika.exceptions
import pytest

from edge import DEVICE, Sensors, bridge, uplink
from interop_support import wait_for

COMMANDS = [{"source": "amq.topic", "destination": "commands", "routing_key": "#"}]
PREFETCH = 8


def downlink(queue="down", exchange="amq.topic", routing_key="cmd.{routing_key}", **more):
    return dict(
        {"prefetch": PREFETCH}, queue=queue, exchange=exchange, routing_key=routing_key, **more
    )


def start(start_edge, port, *rows, uplinks=(), runtime="cpython", queues=("commands",)):
    """An edge broker with downlinks, whose queue `commands` gets what goes to amq.topic."""
    return start_edge(
        bridge(port, uplinks, rows), runtime=runtime, queues=list(queues), bindings=COMMANDS
    )


def numbered(count):
    return [b"%08d" % k for k in range(count)]


def wait_ready(edge, count, queue="commands", seconds=10):
    what = "%d messages in %s" % (count, queue)
    edge.wait_until(lambda: edge.ready(queue) >= count, what, seconds)


def test_what_rabbitmq_has_for_us_comes_to_a_local_exchange(runtime, rabbitmq, cloud, start_edge):
    edge = start(start_edge, rabbitmq.port, downlink(cloud.queue), runtime=runtime)
    edge.wait_connected()
    headers = {"n": 1}
    for body in numbered(20):
        cloud.publish(body, cloud.queue, correlation_id="c", headers=headers, content_type="a/b")
    wait_ready(edge, 20)
    edge.wait_until(lambda: edge.downlink(cloud.queue)["stored"] == 20, "all stored")
    method, properties, body = edge.channel().basic_get("commands")
    assert (method.exchange, method.routing_key, body) == (
        "amq.topic", "cmd." + cloud.queue, numbered(1)[0]
    )  # fmt: skip
    assert (properties.correlation_id, properties.content_type) == ("c", "a/b")
    assert properties.headers["n"] == 1
    edge.channel().basic_nack(method.delivery_tag)
    assert [body for _, body in edge.take("commands")] == numbered(20)
    # Acknowledged upstream: they do not come again.
    edge.restart()
    edge.wait_connected()
    time.sleep(0.3)
    assert cloud.count() == 0
    row = edge.downlink(cloud.queue)
    assert (row["received"], row["rejected"], row["unroutable"]) == (0, 0, 0), row


def test_without_templates_they_keep_their_exchange_and_key(scripted, start_edge):
    upstream = scripted()
    edge = start(start_edge, upstream.port, {"queue": "commands.{device}"})
    upstream.deliver("commands." + DEVICE, b"x", exchange="amq.topic", routing_key="a.b")
    wait_ready(edge, 1)
    method, _, _ = edge.channel().basic_get("commands")
    assert (method.exchange, method.routing_key) == ("amq.topic", "a.b")


def test_no_more_than_the_prefetch_is_under_way(runtime, scripted, start_edge):
    upstream = scripted()
    edge = start(start_edge, upstream.port, downlink(prefetch=3), runtime=runtime)
    for body in numbered(30):
        upstream.deliver("down", body)
    wait_ready(edge, 30)
    edge.wait_until(lambda: acknowledged(upstream) == 30, "30 acks")
    [qos] = [payload for _, _, name, payload in upstream.methods if name == "basic.qos"]
    assert qos[4:6] == b"\0\3"
    assert [body for _, body in edge.take("commands")] == numbered(30)


def acknowledged(upstream):
    """The highest delivery tag that is acknowledged, with all before it."""
    done, upto = set(), 0
    for tag, verb, multiple, _ in list(upstream.settled):
        if verb == "ack" and multiple:
            upto = max(upto, tag)
        elif verb == "ack":
            done.add(tag)
    while upto + 1 in done:
        upto += 1
    return upto


def test_they_come_again_when_the_connection_was_cut_before_the_ack(scripted, proxied, start_edge):
    upstream = scripted()
    network = proxied(upstream.port)
    edge = start(start_edge, network.port, downlink())
    edge.wait_connected()
    network.stalled = {"up"}  # acks do not arrive
    for body in numbered(20):
        upstream.deliver("down", body)
    wait_ready(edge, PREFETCH)
    network.cut()
    network.stalled = set()
    edge.wait_until(lambda: not upstream.queues["down"], "everything delivered")
    wait_ready(edge, 20 + PREFETCH)
    found = [body for _, body in edge.take("commands")]
    assert list(dict.fromkeys(found)) == numbered(20)
    assert len(found) <= 20 + PREFETCH


def test_nothing_is_lost_when_the_edge_is_killed(runtime, rabbitmq, cloud, start_edge):
    """Acks after the store's commit: the edge broker dies at any moment."""
    edge = start(
        start_edge, rabbitmq.port, downlink(cloud.queue, routing_key="{routing_key}"),
        runtime=runtime,
    )  # fmt: skip
    stop = threading.Event()
    sent = []

    def send():
        connection = pika.BlockingConnection(pika.ConnectionParameters(port=rabbitmq.port))
        channel = connection.channel()
        channel.confirm_delivery()
        while not stop.is_set():
            sent.append(b"%08d" % len(sent))
            channel.basic_publish(
                "", cloud.queue, sent[-1], pika.BasicProperties(delivery_mode=2)
            )
            time.sleep(0.002)
        connection.close()

    service = threading.Thread(target=send)
    service.start()
    kills = 5
    for k in range(kills):
        time.sleep(0.2 + 0.17 * (k % 3))
        edge.restart()
    stop.set()
    service.join()
    edge.wait_until(
        lambda: edge.bridge()["state"] == "connected" and cloud.count() == 0, "an empty queue"
    )
    found = []

    def all_there():
        found.extend(body for _, body in edge.take("commands"))
        return set(sent) <= set(found)

    edge.wait_until(all_there, "all %d commands" % len(sent))
    again = len(found) - len(set(found))
    print("sent %d, received again %d (prefetch %d, kills %d), lost %d"
          % (len(sent), again, PREFETCH, kills, len(set(sent) - set(found))))  # fmt: skip
    assert again <= PREFETCH * kills
    assert list(dict.fromkeys(found)) == sent


class Device:
    """Answers requests that come to a local queue: the body backwards."""

    def __init__(self, edge, queue):
        self.connection = pika.BlockingConnection(edge.parameters())
        self.channel = self.connection.channel()
        self.channel.basic_consume(queue, self._answer)
        self.thread = threading.Thread(target=self.channel.start_consuming, daemon=True)
        self.thread.start()

    def _answer(self, channel, method, properties, body):
        channel.basic_publish(
            "", properties.reply_to, body[::-1],
            pika.BasicProperties(correlation_id=properties.correlation_id),
        )  # fmt: skip
        channel.basic_ack(method.delivery_tag)

    def end(self):
        self.connection.add_callback_threadsafe(self.channel.stop_consuming)
        self.thread.join(5)
        self.connection.close()


@pytest.mark.parametrize("direct", [False, True], ids=["queue", "direct-reply-to"])
def test_a_cloud_service_calls_a_device_and_gets_its_answer(
    runtime, direct, rabbitmq, cloud, start_edge
):
    edge = start(start_edge, rabbitmq.port, downlink(cloud.queue), runtime=runtime)
    edge.wait_connected()
    device = Device(edge, "commands")
    channel = cloud.channel()
    answers = []
    address = "amq.rabbitmq.reply-to" if direct else cloud.declare("answers-" + cloud.name)
    channel.basic_consume(
        address, lambda _c, _m, properties, body: answers.append((properties, body)), auto_ack=True
    )
    for k in range(5):
        cloud.publish(b"call %d" % k, cloud.queue, reply_to=address, correlation_id="id-%d" % k)
    try:
        wait_for(
            lambda: channel.connection.process_data_events(0.02) or len(answers) == 5,
            "five answers: %r\n%s" % (answers, edge.bridge()), 10,
        )  # fmt: skip
    finally:
        device.end()
    assert [(p.correlation_id, body) for p, body in answers] == [
        ("id-%d" % k, (b"call %d" % k)[::-1]) for k in range(5)
    ]
    assert all(row["backlog"] == 0 for row in edge.bridge()["uplinks"].values())


def test_an_answer_waits_for_upstream_to_come_back(scripted, start_edge):
    upstream = scripted()
    edge = start(start_edge, upstream.port, downlink())
    upstream.deliver("down", b"question", reply_to="asker.7", correlation_id="c-7")
    wait_ready(edge, 1)
    properties, _ = edge.take("commands")[0]
    assert properties.reply_to == "amq.upstream.cloud.asker.7"
    upstream.refusals = {"connection.open": (320, "CONNECTION_FORCED")}
    upstream.cut()
    edge.publish(b"answer", properties.reply_to, correlation_id=properties.correlation_id)
    edge.restart()  # it is as durable as telemetry is
    upstream.refusals = {}
    edge.wait_until(lambda: upstream.messages, "the answer")
    [message] = upstream.messages
    assert (message.exchange, message.routing_key, message.body) == ("", "asker.7", b"answer")
    assert message.properties.correlation_id == "c-7"


def test_it_binds_upstream_when_asked_to(rabbitmq, cloud, start_edge):
    queue = "commands.%s.%s" % (DEVICE, cloud.name)
    row = downlink(
        "commands.{device}." + cloud.name, routing_key="{routing_key}", declare="quorum",
        bindings=[{"exchange": "amq.topic", "routing_key": "{device}.%s.#" % cloud.name}],
    )  # fmt: skip
    edge = start(start_edge, rabbitmq.port, row)
    edge.wait_connected()
    edge.wait_until(lambda: cloud.exists(queue), "the queue upstream")
    cloud.declare(queue, x_queue_type="quorum")
    edge.wait_until(lambda: cloud.consumers(queue) == 1, "a consumer there")
    cloud.publish(b"x", "%s.%s.reboot" % (DEVICE, cloud.name), "amq.topic")
    wait_ready(edge, 1)
    method, _, _ = edge.channel().basic_get("commands")
    assert method.routing_key == "%s.%s.reboot" % (DEVICE, cloud.name)


def test_a_missing_queue_upstream_is_waited_for(rabbitmq, cloud, start_edge):
    missing = "later-" + cloud.name
    edge = start(
        start_edge, rabbitmq.port, downlink(missing),
        uplinks=[uplink(routing_key=cloud.queue)], queues=["commands", "telemetry"],
    )  # fmt: skip
    edge.publish(b"telemetry goes on")
    edge.wait_until(lambda: cloud.count() == 1, "telemetry")
    edge.wait_until(lambda: "404" in edge.downlink(missing)["last_error"], "404 in the status")
    cloud.declare(missing)
    cloud.publish(b"x", missing)
    wait_ready(edge, 1)
    assert edge.bridge()["connects"] == 1


def test_a_cancelled_consumer_comes_back(runtime, scripted, start_edge):
    upstream = scripted()
    edge = start(start_edge, upstream.port, downlink(), runtime=runtime)
    edge.wait_until(lambda: upstream.consumers("down") == 1, "a consumer")
    upstream.missing.add("down")
    upstream.cancel_consumers("down")
    edge.wait_until(lambda: "404" in edge.downlink("down")["last_error"], "404 in the status")
    upstream.missing.clear()
    edge.wait_until(lambda: upstream.consumers("down") == 1, "a consumer again")
    upstream.deliver("down", b"x")
    wait_ready(edge, 1)
    assert upstream.accepted == 1


def test_what_nobody_wants_here_is_rejected_and_counted(scripted, start_edge):
    upstream = scripted()
    edge = start(start_edge, upstream.port, downlink(exchange="amq.direct"))
    for body in numbered(3):
        upstream.deliver("down", body)
    edge.wait_until(lambda: edge.downlink("down")["unroutable"] == 3, "three unroutable")
    edge.wait_until(lambda: len(upstream.settled) == 3, "three answers")
    assert {(verb, requeue) for _, verb, _, requeue in upstream.settled} <= {
        ("reject", False), ("nack", False)
    }  # fmt: skip
    assert edge.downlink("down")["last_error"]


def test_what_is_too_large_here_is_rejected_and_the_rest_goes_on(scripted, start_edge):
    upstream = scripted()
    edge = start(start_edge, upstream.port, downlink(), runtime="micropython")
    for body in (b"1", b"2" * 20000, b"3"):
        upstream.deliver("down", body)
    wait_ready(edge, 2)
    assert [body for _, body in edge.take("commands")] == [b"1", b"3"]
    row = edge.downlink("down")
    assert (row["rejected"], row["received"]) == (1, 3), row
    assert [t[0] for t in upstream.settled if t[1] in ("reject", "nack") and not t[3]] == [2]


def test_what_finds_no_room_here_comes_again_in_order(runtime, scripted, start_edge):
    upstream = scripted()
    edge = start_edge(
        bridge(upstream.port, [], [downlink(routing_key="{routing_key}")]), runtime=runtime,
        queues=[], bindings=[],
    )  # fmt: skip
    edge.channel().queue_declare(
        "small", durable=True, arguments={"x-max-length": 3, "x-overflow": "reject-publish"}
    )
    edge.channel().queue_bind("small", "amq.topic", "#")
    for body in numbered(10):
        upstream.deliver("down", body)
    found = []

    def all_taken():
        found.extend(body for _, body in edge.take("small"))
        return len(found) >= 10

    edge.wait_until(all_taken, "ten messages", 20)
    time.sleep(0.3)
    found += [body for _, body in edge.take("small")]
    assert found == numbered(10)
    row = edge.downlink("down")
    assert row["requeued"] > 0 and row["stored"] == 10, row


def test_telemetry_and_commands_share_a_connection(runtime, rabbitmq, cloud, start_edge):
    commands = cloud.declare("commands-" + cloud.name)
    edge = start(
        start_edge, rabbitmq.port, downlink(commands),
        uplinks=[uplink(routing_key=cloud.queue, window=8)], queues=["commands", "telemetry"],
        runtime=runtime,
    )  # fmt: skip
    edge.wait_connected()
    with Sensors(edge, size=20) as sensors:
        for body in numbered(50):
            cloud.publish(body, commands)
        wait_ready(edge, 50)
    arrived = cloud.wait_for_bodies(edge, sensors.confirmed)
    assert len(arrived) == len(sensors.confirmed)
    assert [body for _, body in edge.take("commands")] == numbered(50)
    assert edge.bridge()["connects"] == 1


def test_what_came_down_does_not_go_up_again(scripted, start_edge):
    """Both directions over one exchange: the hop header ends the loop."""
    upstream = scripted()
    edge = start(
        start_edge, upstream.port, downlink(), uplinks=[uplink("commands", max_hops=2)]
    )
    upstream.deliver("down", b"mine", headers={"x-edge-device": DEVICE, "x-edge-hops": 1})
    upstream.deliver("down", b"worn out", headers={"x-edge-device": "edge-2", "x-edge-hops": 2})
    upstream.deliver("down", b"another's", headers={"x-edge-device": "edge-2", "x-edge-hops": 1})
    edge.wait_until(lambda: upstream.messages, "one message")
    edge.wait_until(lambda: edge.uplink("commands")["dropped_looped"] == 2, "two dropped")
    [message] = upstream.messages
    assert message.body == b"another's" and message.headers["x-edge-hops"] == 2
