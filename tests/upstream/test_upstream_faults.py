"""An upstream that misbehaves by script, and what the bridge says about it.

After each fault: nothing that was confirmed to a sensor is lost, the order is kept, duplicates are
bounded by the window and told by their message_id. `pytest -s` prints the counts.
"""

import os
import random
import time

import pytest

import scripted as scripts
from cloud import nothing_left
from edge import Ledger, Sensors, bridge, uplink

WINDOW = 8
# The promise speaks of a minute; a few seconds are longer than every timeout here.
BLOCKED_SECONDS = float(os.environ.get("BLOCKED_SECONDS", 3))
REFUSED = {"connection.open": (320, "CONNECTION_FORCED - not now")}


def start(start_edge, port, runtime="cpython", window=WINDOW, **more):
    return start_edge(
        bridge(port, [uplink(window=window, **more.pop("row", {}))], **more), runtime=runtime
    )


def bodies(messages):
    return [message.body for message in messages]


def settle(edge, seconds=15):
    """Until the bridge has nothing more to do: the status of its uplink."""

    def done():
        row = edge.uplink()
        return nothing_left(row) and row

    return edge.wait_until(done, "everything settled", seconds)


def ledger(upstream, confirmed, faults, window=WINDOW, published=None):
    """Everything that arrived upstream, whether or not it could be confirmed."""
    arrived = [(m.properties, m.body) for m in list(upstream.messages)]
    return Ledger(confirmed, arrived, window, faults, published)


# --- confirms ---


@pytest.mark.parametrize(
    "confirms",
    [scripts.Multiple(5), scripts.Multiple(1000), scripts.OutOfOrder(5)],
    ids=["multiple", "multiple-late", "out-of-order"],
)
def test_confirms_of_every_kind(runtime, confirms, scripted, start_edge):
    upstream = scripted(confirms=confirms)
    edge = start(start_edge, upstream.port, runtime)
    sent = edge.publish_all(60)
    row = settle(edge)
    ledger(upstream, sent, 0).check()
    assert (row["settled"], row["resent"]) == (60, 0), row


def test_half_a_confirm_is_none(runtime, scripted, start_edge):
    upstream = scripted(confirms=scripts.HalfAck(10))
    edge = start(start_edge, upstream.port, runtime)
    sent = edge.publish_all(40)
    row = settle(edge)
    found = ledger(upstream, sent, 1)
    found.check()
    assert row["resent"] >= found.duplicates >= 1
    assert edge.bridge()["connects"] == 2


def test_a_confirm_that_never_comes_is_not_waited_for_for_ever(scripted, start_edge):
    lost = []

    def judge(message):
        if message.body.endswith(b"5") and message.body not in lost:
            lost.append(message.body)
            return None
        return "ack"

    upstream = scripted(confirms=scripts.Judge(judge))
    edge = start(start_edge, upstream.port, confirm_timeout=1)
    sent = edge.publish_all(10)
    row = settle(edge)
    ledger(upstream, sent, 1).check()
    assert row["resent"] >= 1 and upstream.accepted == 2


def test_confirms_for_what_was_never_sent_do_no_harm(scripted, start_edge):
    upstream = scripted(confirms=scripts.Never())
    edge = start(start_edge, upstream.port)
    sent = edge.publish_all(3)
    edge.wait_until(lambda: len(upstream.messages) == 3, "three messages")
    upstream.send(scripts.wire.ack(upstream.messages[0].channel, 77))
    time.sleep(0.3)
    upstream.confirms = scripts.Each()
    upstream.cut()
    settle(edge)
    found = ledger(upstream, sent, 2)
    found.check()
    assert not set(sent) - set(bodies(upstream.confirmed()))


# --- channels that close ---


@pytest.mark.parametrize("code", [404, 406])
def test_a_message_that_closes_the_channel_is_parked(code, runtime, scripted, start_edge):
    """It is the 13th of 40; the others are delivered, over the same connection."""

    def judge(message):
        return (406, "PRECONDITION_FAILED") if message.routing_key == "poison" else "ack"

    upstream = scripted(confirms=scripts.Judge(judge))
    row = {"retries": 1, "exchange": "{exchange}", "routing_key": "{routing_key}"}
    edge = start(start_edge, upstream.port, runtime, row=row)
    sent = [b"%08d" % k for k in range(40)]
    channel = edge.channel()
    channel.exchange_declare("nowhere", "fanout", durable=True)
    for exchange in ("nowhere", "amq.direct"):
        channel.queue_bind("telemetry", exchange, "poison")
    upstream.missing.add("nowhere")
    for body in sent:
        if body == sent[12]:
            edge.publish(body, "poison", "nowhere" if code == 404 else "amq.direct")
        else:
            edge.publish(body)
    row = settle(edge)
    poison = sent.pop(12)
    assert list(dict.fromkeys(bodies(upstream.confirmed()))) == sent, "the others, in order"
    assert row["parked"] == 1 and str(code) in row["last_error"] + edge.output(), row
    assert [body for _, body in edge.take("telemetry.parked")] == [poison]
    assert upstream.accepted == 1


def test_a_channel_that_closes_once_costs_nothing(runtime, scripted, start_edge):
    seen = []

    def judge(message):
        seen.append(message)
        return (404, "NOT_FOUND - no exchange") if len(seen) == 20 else "ack"

    upstream = scripted(confirms=scripts.Judge(judge))
    edge = start(start_edge, upstream.port, runtime)
    sent = edge.publish_all(60)
    row = settle(edge)
    ledger(upstream, sent, 1).check(ordered=False)
    assert set(bodies(upstream.confirmed())) == set(sent)
    assert row["parked"] == 0 and upstream.accepted == 1, row


def test_an_exchange_that_goes_and_comes_back(scripted, start_edge):
    upstream = scripted()
    edge = start(start_edge, upstream.port, row={"exchange": "telemetry"})
    sent = edge.publish_all(10)
    settle(edge)
    upstream.missing.add("telemetry")
    sent += edge.publish_all(50, first=10)
    edge.wait_until(lambda: "404" in edge.uplink()["last_error"], "404 in the status")
    time.sleep(1)
    upstream.missing.clear()
    row = settle(edge)
    confirmed = bodies(upstream.confirmed())
    assert list(dict.fromkeys(confirmed)) == sent
    assert (row["parked"], upstream.accepted) == (0, 1), row


# --- connections that end ---


def test_cut_at_random_moments_in_mid_drain(runtime, scripted, start_edge):
    seed = int(os.environ.get("SEED") or random.randrange(1 << 24))
    print("seed", seed)
    chance = random.Random(seed)
    upstream = scripted(confirms=scripts.Multiple(3))
    edge = start(start_edge, upstream.port, runtime, messages_per_s=300)
    cuts = 0
    with Sensors(edge) as sensors:
        for _ in range(5):
            time.sleep(chance.random() * 0.4)
            cuts += bool(upstream.cut())
        time.sleep(0.2)
    settle(edge, 25)
    ledger(upstream, sensors.confirmed, cuts, published=sensors.published).check()


def test_the_connection_is_closed_by_upstream_in_mid_drain(runtime, scripted, start_edge):
    upstream = scripted(confirms=scripts.Multiple(1000))
    edge = start(start_edge, upstream.port, runtime)
    sent = edge.publish_all(30)
    edge.wait_until(lambda: upstream.messages, "the drain under way")
    upstream.close_connections(320, "CONNECTION_FORCED - operator")
    edge.wait_until(lambda: "320" in edge.output(), "320 in the log")
    sent += edge.publish_all(30, first=30)
    settle(edge)
    ledger(upstream, sent, 1).check()


def test_the_connection_vanishes_in_mid_drain(scripted, proxied, start_edge):
    upstream = scripted()
    network = proxied(upstream.port)
    edge = start(start_edge, network.port, messages_per_s=200, confirm_timeout=1)
    sent = edge.publish_all(100)
    edge.wait_until(lambda: len(upstream.messages) > 20, "the drain under way")
    network.vanish()
    settle(edge)
    ledger(upstream, sent, 1).check()
    assert network.accepted == 2


def test_half_a_message_is_sent_again_whole(runtime, scripted, proxied, start_edge):
    """The link stalls, and is cut, while a message is on its way."""
    upstream = scripted()
    network = proxied(upstream.port)
    edge = start(start_edge, network.port, runtime)
    edge.wait_connected()
    network.chunk = 1
    for k in range(4):
        edge.publish(b"%08d" % k + b"x" * 1500)
        time.sleep(0.05)
        network.cut()
    network.chunk = 0
    settle(edge)
    sent = [b"%08d" % k + b"x" * 1500 for k in range(4)]
    ledger(upstream, sent, 4).check()


@pytest.mark.parametrize(
    "greeting", [b"AMQP\0\1\0\0", b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"\xff" * 5000, b""],
    ids=["other-protocol", "garbage", "nothing"],
)  # fmt: skip
def test_what_does_not_speak_amqp_is_left_alone(greeting, scripted, start_edge):
    upstream = scripted(greeting=greeting)
    edge = start(start_edge, upstream.port)
    sent = edge.publish_all(5)
    edge.wait_until(lambda: upstream.accepted >= 2, "another attempt")
    edge.wait_until(lambda: edge.bridge()["last_error"], "a reason")
    upstream.greeting = None
    settle(edge)
    ledger(upstream, sent, 0).check()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x01\0\1\0\0\0\4\0\x3c\0\x50\x00",  # a frame without its end
        b"\x01\0\1\xff\xff\xff\xff" + b"x" * 20,  # a frame of 4 GB
        scripts.wire.frame(1, 1, b"\0\x63\0\x63"),  # no such class
        scripts.wire.frame(1, 9, b"\0\x3c\0\x50" + b"\0" * 9),  # no such channel
        scripts.wire.body(1, b"x"),  # a body of nothing
        scripts.wire.frame(1, 1, b"\0\x3c\0\x50"),  # an ack without arguments
    ],
    ids=["end", "length", "class", "channel", "body", "short"],
)
def test_garbage_in_mid_drain_ends_the_connection_only(garbage, scripted, start_edge):
    upstream = scripted(confirms=scripts.Multiple(1000))
    edge = start(start_edge, upstream.port, "micropython")
    sent = edge.publish_all(WINDOW)
    settle(edge)
    upstream.send(garbage)
    sent += edge.publish_all(WINDOW, first=WINDOW)
    edge.wait_until(lambda: upstream.accepted >= 2, "another connection")
    settle(edge)
    ledger(upstream, sent, 1).check()


# --- logins ---


def test_a_refused_login_is_tried_again_and_told(scripted, start_edge):
    upstream = scripted(refusals={"connection.start-ok": (403, "ACCESS_REFUSED - Login refused")})
    edge = start(start_edge, upstream.port)
    sent = edge.publish_all(5)
    edge.wait_until(lambda: edge.bridge()["retries"] >= 2, "two attempts")
    there = edge.bridge()
    assert there["state"] in ("waiting", "connecting", "login", "resolving"), there
    assert "403" in there["last_error"] and "ACCESS_REFUSED" in there["last_error"], there
    assert there["connects"] == 0 and there["uplinks"]["telemetry"]["backlog"] == 5, there
    upstream.refusals = {}
    settle(edge)
    ledger(upstream, sent, 0).check()
    there = edge.bridge()
    assert (there["state"], there["connects"]) == ("connected", 1), there


def test_a_vhost_that_is_not_there_is_told(scripted, start_edge):
    upstream = scripted(refusals={"connection.open": (530, "NOT_ALLOWED - vhost / not found")})
    edge = start(start_edge, upstream.port)
    edge.wait_until(lambda: "530" in edge.bridge()["last_error"], "530 in the status")


@pytest.mark.parametrize("mute", ["", "connection.open", "channel.open"])
def test_an_upstream_that_does_not_answer_is_left(mute, scripted, start_edge):
    upstream = scripted(mute=(mute,))
    edge = start(start_edge, upstream.port, timeout=1, confirm_timeout=1)
    sent = edge.publish_all(3)
    edge.wait_until(lambda: upstream.accepted >= 2, "another attempt", 10)
    upstream.mute = ()
    settle(edge)
    ledger(upstream, sent, 0).check()


def test_a_name_that_cannot_be_resolved_is_told(runtime, scripted, start_edge):
    upstream = scripted()
    hosts = ["no-such-host.invalid"]
    edge = start(start_edge, upstream.port, runtime, hosts=hosts)
    edge.wait_until(
        lambda: "no-such-host.invalid" in edge.bridge()["last_error"] + edge.bridge()["host"]
        and edge.bridge()["retries"] >= 1, "the name in the status",
    )  # fmt: skip
    assert edge.bridge()["last_error"]
    # Sensors are served meanwhile.
    slowest = 0
    for k in range(50):
        begin = time.monotonic()
        edge.publish_all(1, first=k)
        slowest = max(slowest, time.monotonic() - begin)
        time.sleep(0.02)
    print("slowest confirm to a sensor: %.0f ms" % (slowest * 1000))
    assert edge.uplink()["backlog"] == 50
    # The next one in the list is tried as well.
    edge.settings["bridges"][0]["hosts"] += ["127.0.0.1:%d" % upstream.port]
    edge.restart()
    settle(edge)
    assert bodies(upstream.messages) == [b"%08d" % k for k in range(50)]


def test_nobody_listens_there(runtime, scripted, start_edge):
    upstream = scripted()
    port = upstream.port
    upstream.close()
    edge = start(start_edge, port, runtime)
    sent = edge.publish_all(5)
    edge.wait_until(lambda: edge.bridge()["retries"] >= 2, "two attempts")
    assert edge.bridge()["last_error"]
    upstream = scripted(port=port)
    settle(edge)
    ledger(upstream, sent, 0).check()


# --- pressure ---


def test_blocked_for_longer_than_every_timeout(scripted, start_edge):
    upstream = scripted(tune=(2047, 131072, 1), confirms=scripts.Multiple(4))
    edge = start(start_edge, upstream.port, confirm_timeout=1, heartbeat=1)
    with Sensors(edge, pause=0.02) as sensors:
        time.sleep(0.5)
        upstream.block()
        edge.wait_until(lambda: edge.bridge()["state"] == "blocked", "blocked")
        # What was under way when upstream said so may still come.
        time.sleep(0.2)
        there = len(upstream.messages)
        time.sleep(BLOCKED_SECONDS)
        assert len(upstream.messages) == there and upstream.accepted == 1 and not upstream.silent
        assert edge.uplink()["backlog"] > 10
        upstream.unblock()
    settle(edge)
    found = ledger(upstream, sensors.confirmed, 0, published=sensors.published)
    found.check()


def test_an_upstream_that_reads_slowly_slows_the_bridge_only(runtime, scripted, start_edge):
    upstream = scripted(read_octets=200, read_delay=0.01)
    edge = start(start_edge, upstream.port, runtime, confirm_timeout=20)
    slowest = 0
    sent = []
    for k in range(60):
        begin = time.monotonic()
        sent += edge.publish_all(1, first=k)
        slowest = max(slowest, time.monotonic() - begin)
    print("slowest confirm to a sensor: %.0f ms" % (slowest * 1000))
    assert slowest < 0.5
    settle(edge, 30)
    ledger(upstream, sent, 0).check()


def test_an_upstream_that_stops_reading_is_left(runtime, scripted, start_edge):
    upstream = scripted()
    edge = start(start_edge, upstream.port, runtime, confirm_timeout=1, timeout=2)
    edge.wait_connected()
    upstream.reading = False
    # More than the sockets of both sides take.
    size = 4000 if runtime == "micropython" else 100000
    sent = [(b"%08d" % k).ljust(size, b".") for k in range(30)]
    for body in sent:
        edge.publish(body)
    edge.wait_until(lambda: edge.bridge()["state"] != "connected", "the connection left", 15)
    upstream.reading = True
    settle(edge, 25)
    found = ledger(upstream, sent, edge.bridge()["connects"])
    found.check()


# --- the edge broker itself ---


def test_edge_killed_at_random_moments(runtime, scripted, start_edge):
    seed = int(os.environ.get("SEED") or random.randrange(1 << 24))
    print("seed", seed)
    chance = random.Random(seed)
    upstream = scripted(confirms=scripts.Multiple(3))
    edge = start(start_edge, upstream.port, runtime)
    kills = 8
    with Sensors(edge) as sensors:
        for _ in range(kills):
            time.sleep(0.1 + chance.random() * 0.4)
            edge.restart()
        time.sleep(0.3)
    settle(edge)
    ledger(upstream, sensors.confirmed, kills, published=sensors.published).check()
    assert len(sensors.confirmed) > 100


def test_edge_and_connection_fail_in_turns(runtime, scripted, proxied, start_edge):
    seed = int(os.environ.get("SEED") or random.randrange(1 << 24))
    print("seed", seed)
    chance = random.Random(seed)
    upstream = scripted(confirms=scripts.OutOfOrder(3))
    network = proxied(upstream.port)
    edge = start(start_edge, network.port, runtime, confirm_timeout=1)
    faults = 8
    with Sensors(edge) as sensors:
        for _ in range(faults):
            time.sleep(chance.random() * 0.4)
            chance.choice((network.cut, network.vanish, edge.restart))()
    settle(edge, 20)
    ledger(upstream, sensors.confirmed, faults, published=sensors.published).check()


# --- the truth ---


def test_the_status_tells_what_a_bridge_does(runtime, scripted, start_edge):
    upstream = scripted(refusals=dict(REFUSED))
    edge = start(start_edge, upstream.port, runtime, retry_max=2)
    edge.publish_all(5)
    edge.wait_until(lambda: edge.bridge()["state"] == "waiting", "waiting")
    there = edge.bridge()
    assert "320" in there["last_error"] and there["retries"] >= 1, there
    assert there["host"] == "127.0.0.1:%d" % upstream.port
    assert 0 <= there["retry_in_ms"] <= 2000 and there["connects"] == 0
    row = there["uplinks"]["telemetry"]
    assert (row["backlog"], row["in_flight"], row["sent"], row["settled"]) == (5, 0, 0, 0), row

    upstream.confirms = scripts.Never()
    upstream.refusals = {}
    edge.wait_until(lambda: len(upstream.messages) == 5, "five messages")
    there = edge.bridge()
    row = there["uplinks"]["telemetry"]
    assert (there["state"], there["connects"]) == ("connected", 1), there
    assert (row["in_flight"], row["sent"], row["settled"]) == (5, 5, 0), row

    upstream.confirms = scripts.Multiple(100)
    row = settle(edge)
    assert (row["in_flight"], row["settled"]) == (0, 5) and row["settled_ms_ago"] < 5000, row
    upstream.block()
    edge.wait_until(lambda: edge.bridge()["state"] == "blocked", "blocked")
    upstream.unblock()
    edge.wait_until(lambda: edge.bridge()["state"] == "connected", "connected")
    upstream.refusals = dict(REFUSED)
    upstream.cut()
    edge.wait_until(lambda: edge.bridge()["state"] == "waiting", "waiting")
    for name in (
        "sent", "settled", "resent", "returned", "nacked", "parked", "dead_lettered",
        "dropped_refused", "dropped_looped",
    ):  # fmt: skip
        assert isinstance(edge.uplink()[name], int), name
