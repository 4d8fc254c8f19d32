"""A real RabbitMQ that is stopped, killed, paused, cut off and full, with sensors publishing.

After each fault: nothing that was confirmed to a sensor is lost, the order is kept, duplicates are
bounded by the window and told by their message_id. `pytest -s` prints the counts.
"""

import random
import time

import pytest

from cloud import nothing_left
from edge import Ledger, Sensors, bridge, uplink

WINDOW = 16
SMALL_WINDOW = 8  # a Pico W's


def window_of(runtime):
    return WINDOW if runtime == "cpython" else SMALL_WINDOW


def start(start_edge, cloud, port, runtime="cpython", **more):
    row = uplink(routing_key=cloud.queue, window=window_of(runtime))
    return start_edge(bridge(port, [row], **more), runtime=runtime)


def check(edge, cloud, sensors, faults, seconds=20):
    arrived = cloud.wait_for_bodies(edge, sensors.confirmed, seconds)
    window = window_of(edge.runtime)
    ledger = Ledger(sensors.confirmed, arrived, window, faults, sensors.published)
    ledger.check()
    assert edge.ready() == 0
    return ledger


def under_way(edge, count=50):
    edge.wait_until(lambda: edge.uplink()["settled"] >= count, "%d settled" % count)


@pytest.mark.parametrize(
    "how, runtime", [("stop", "cpython"), ("kill", "cpython"), ("kill", "micropython")]
)
def test_rabbitmq_goes_and_comes_back(how, runtime, rabbitmq, cloud, start_edge):
    edge = start(start_edge, cloud, rabbitmq.port, runtime)
    with Sensors(edge, pause=0.01) as sensors:
        under_way(edge)
        getattr(rabbitmq, how)()
        edge.wait_until(lambda: edge.bridge()["state"] != "connected", "the loss noticed")
        rabbitmq.start()
        edge.wait_connected()
    check(edge, cloud, sensors, 1)


def test_rabbitmq_is_paused_for_longer_than_it_may_be_silent(rabbitmq, cloud, start_edge):
    edge = start(start_edge, cloud, rabbitmq.port, heartbeat=1, timeout=2)
    with Sensors(edge, pause=0.01) as sensors:
        under_way(edge)
        rabbitmq.pause()
        edge.wait_until(lambda: edge.bridge()["state"] != "connected", "the loss noticed")
        time.sleep(0.5)
        rabbitmq.resume()
        edge.wait_connected()
        time.sleep(0.2)
    check(edge, cloud, sensors, edge.bridge()["connects"])


def test_rabbitmq_is_paused_for_a_moment(rabbitmq, cloud, start_edge):
    edge = start(start_edge, cloud, rabbitmq.port, heartbeat=5)
    with Sensors(edge) as sensors:
        under_way(edge)
        rabbitmq.pause()
        time.sleep(1)
        rabbitmq.resume()
        time.sleep(0.2)
    assert check(edge, cloud, sensors, 0).duplicates == 0
    assert edge.bridge()["connects"] == 1


@pytest.mark.parametrize(
    "what, runtime",
    [
        ("cut", "cpython"), ("vanish", "cpython"), ("half a confirm", "cpython"),
        ("half a confirm, reset", "cpython"), ("vanish", "micropython"),
    ],
)  # fmt: skip
def test_the_connection_breaks_in_mid_drain(what, runtime, rabbitmq, cloud, proxied, start_edge):
    network = proxied(rabbitmq.port)
    edge = start(start_edge, cloud, network.port, runtime, heartbeat=1, confirm_timeout=1)
    edge.wait_connected()
    faults = 2
    with Sensors(edge, pause=0.005) as sensors:
        for k in range(faults):
            under_way(edge, 20 + edge.uplink()["settled"])
            if what.startswith("half"):
                network.trap(octets=9 + k, reset=what.endswith("reset")).wait(5)
            elif what == "cut":
                network.cut()
            else:
                network.vanish()
            edge.wait_until(lambda k=k: edge.bridge()["connects"] >= k + 2, "another connection")
    ledger = check(edge, cloud, sensors, faults)
    if what.startswith("half"):
        assert ledger.duplicates >= faults, "the half confirm's message came twice"


def test_an_unreachable_network(rabbitmq, cloud, proxied, start_edge):
    network = proxied(rabbitmq.port)
    edge = start(start_edge, cloud, network.port, heartbeat=1, confirm_timeout=1)
    with Sensors(edge, pause=0.01) as sensors:
        under_way(edge, 20)
        network.refuse()
        network.vanish()
        edge.wait_until(lambda: edge.bridge()["retries"] >= 2, "two attempts", 15)
        network.admit()
        edge.wait_connected()
    check(edge, cloud, sensors, 1)


def test_the_operator_closes_all_connections(rabbitmq, cloud, start_edge):
    edge = start(start_edge, cloud, rabbitmq.port)
    with Sensors(edge) as sensors:
        under_way(edge)
        rabbitmq.close_connections("maintenance")
        edge.wait_until(lambda: edge.bridge()["connects"] == 2, "another connection")
    assert "320" in edge.output()
    check(edge, cloud, sensors, 1)


def test_rabbitmq_is_out_of_memory(rabbitmq, cloud, start_edge):
    edge = start(start_edge, cloud, rabbitmq.port, confirm_timeout=1)
    with Sensors(edge, pause=0.01) as sensors:
        under_way(edge, 20)
        rabbitmq.set_memory_blocked(True)
        edge.wait_until(lambda: edge.bridge()["state"] == "blocked", "blocked")
        time.sleep(1.5)
        # RabbitMQ reads nothing from who is blocked; what the bridge wrote before may be there.
        settled = edge.uplink()["settled"]
        time.sleep(0.5)
        assert edge.uplink()["settled"] == settled and edge.bridge()["connects"] == 1
        rabbitmq.set_memory_blocked(False)
        edge.wait_connected()
    assert check(edge, cloud, sensors, 0).duplicates == 0


def test_a_login_is_refused_until_the_user_is_there(runtime, rabbitmq, cloud, start_edge):
    name = "edge-" + cloud.name
    edge = start(start_edge, cloud, rabbitmq.port, runtime, user=name, password="secret")
    sent = edge.publish_all(10)
    edge.wait_until(lambda: "ACCESS_REFUSED" in edge.bridge()["last_error"], "403 in the status")
    try:
        rabbitmq.add_user(name, "secret")
        arrived = cloud.wait_for_bodies(edge, sent)
    finally:
        rabbitmq.control("delete_user", name)
    Ledger(sent, arrived, WINDOW).check()


def test_the_user_may_not_write_there(rabbitmq, cloud, start_edge):
    name = "edge-" + cloud.name
    rabbitmq.add_user(name, "secret", write="nothing", configure="nothing")
    try:
        row = uplink(exchange="amq.topic", routing_key="x", declare="none")
        edge = start_edge(bridge(rabbitmq.port, [row], user=name, password="secret"))
        edge.publish(b"x")
        edge.wait_until(lambda: "403" in edge.uplink()["last_error"], "403 in the status")
        rabbitmq.control("set_permissions", name, ".*", ".*", ".*")
        edge.wait_until(
            lambda: edge.uplink()["returned"] or edge.uplink()["parked"], "published or parked"
        )
    finally:
        rabbitmq.control("delete_user", name)


def test_the_exchange_is_deleted_in_mid_drain_and_comes_back(rabbitmq, cloud, start_edge):
    name = "telemetry-" + cloud.name

    def make():
        cloud.channel().exchange_declare(name, "fanout", durable=True)
        cloud.channel().queue_bind(cloud.queue, name)

    make()
    edge = start_edge(bridge(rabbitmq.port, [uplink(exchange=name, window=WINDOW)]))
    try:
        with Sensors(edge, pause=0.01) as sensors:
            under_way(edge, 20)
            cloud.channel().exchange_delete(name)
            edge.wait_until(lambda: "404" in edge.uplink()["last_error"], "404 in the status")
            time.sleep(1)
            make()
        check(edge, cloud, sensors, 2)
        row = edge.uplink()
        assert row["parked"] == 0 and edge.bridge()["connects"] == 1, row
    finally:
        cloud.channel().exchange_delete(name)


def test_the_queue_is_deleted_in_mid_drain_and_comes_back(rabbitmq, cloud, start_edge):
    """Mandatory messages are returned meanwhile; they wait, and so lose their place."""
    edge = start(start_edge, cloud, rabbitmq.port, messages_per_s=100)
    sent = edge.publish_all(100)
    under_way(edge, 20)
    before = cloud.take()
    cloud.channel().queue_delete(cloud.queue)
    edge.wait_until(lambda: edge.uplink()["returned"] >= 3, "some returned")
    cloud.declare(cloud.queue)
    edge.wait_until(lambda: nothing_left(edge.uplink()), "settled", 30)
    row = edge.uplink()
    parked = [body for _, body in edge.take("telemetry.parked")]
    assert row["parked"] == len(parked) and row["returned"] >= 3, row
    arrived = before + cloud.take()
    got = {body for _, body in arrived} | set(parked)
    # Those that were in the queue when it was deleted were RabbitMQ's.
    assert len(set(sent) - got) <= row["settled"] - len(arrived), row


def test_edge_killed_at_random_moments(runtime, rabbitmq, cloud, start_edge):
    seed = random.randrange(1 << 24)
    print("seed", seed)
    chance = random.Random(seed)
    edge = start(start_edge, cloud, rabbitmq.port, runtime)
    kills = 8
    with Sensors(edge) as sensors:
        for _ in range(kills):
            time.sleep(0.1 + chance.random() * 0.4)
            edge.restart()
        time.sleep(0.3)
    check(edge, cloud, sensors, kills)
    assert len(sensors.confirmed) > 100


def test_a_quorum_queue_and_a_slow_network(rabbitmq, cloud, proxied, start_edge):
    queue = cloud.declare("quorum-" + cloud.name, x_queue_type="quorum")
    network = proxied(rabbitmq.port)
    network.delay = 0.02
    edge = start_edge(bridge(network.port, [uplink(routing_key=queue, window=64)]))
    sent = edge.publish_all(500)
    edge.wait_until(lambda: edge.uplink()["settled"] == 500, "500 settled", 20)
    Ledger(sent, cloud.take(queue), 64).check()


def test_rabbitmqs_clients_see_a_good_citizen(rabbitmq, cloud, start_edge):
    """The connection's properties tell the operator who it is."""
    edge = start(start_edge, cloud, rabbitmq.port)
    edge.wait_connected()
    listed = rabbitmq.control("list_connections", "client_properties", "channels", "frame_max")
    assert "amqp_lite" in listed.replace("-", "_"), listed
