"""What goes upstream: each sentence of the promise, with a real RabbitMQ where it matters."""

import re
import time

import pika
import pika.exceptions
import pytest

import scripted as scripts
from cloud import nothing_left
from edge import DEVICE, Ledger, bridge, uplink

WINDOW = 8
ID = re.compile(r"%s:[0-9a-f]{8}:[0-9a-f]{12}" % DEVICE)


def bodies(messages):
    return [message.body for message in messages]


def arrive(edge, upstream, count, seconds=10):
    """Until *count* messages have come upstream: all that are there."""
    edge.wait_until(
        lambda: len(upstream.messages) >= count, "%d messages upstream" % count, seconds
    )
    return list(upstream.messages)


def settle(edge, seconds=10):
    """Until the bridge has nothing more to do: the status of its uplink."""

    def done():
        row = edge.uplink()
        return nothing_left(row) and row

    return edge.wait_until(done, "everything settled", seconds)


# --- forwarding ---


def test_messages_come_to_rabbitmq_once_and_in_order(runtime, rabbitmq, cloud, start_edge):
    edge = start_edge(
        bridge(rabbitmq.port, [uplink(routing_key=cloud.queue, window=WINDOW)]), runtime=runtime
    )
    sent = edge.publish_all(200)
    arrived = cloud.wait_for_bodies(edge, sent)
    Ledger(sent, arrived, WINDOW).check()
    assert len(arrived) == 200
    row = edge.uplink()
    assert (row["sent"], row["settled"], row["resent"]) == (200, 200, 0), row
    assert edge.ready() == 0 and row["settled_ms_ago"] < 10000


def test_what_waited_before_the_start_is_forwarded(runtime, scripted, start_edge):
    upstream = scripted(refusals={"connection.open": (320, "CONNECTION_FORCED")})
    edge = start_edge(bridge(upstream.port, [uplink(window=WINDOW)]), runtime=runtime)
    sent = edge.publish_all(30)
    assert edge.uplink()["backlog"] == 30
    edge.kill()
    upstream.refusals = {}
    edge.start()
    assert bodies(arrive(edge, upstream, 30)) == sent
    settle(edge)


def test_publishes_are_pipelined_up_to_the_window(runtime, scripted, start_edge):
    upstream = scripted(confirms=scripts.Never())
    edge = start_edge(bridge(upstream.port, [uplink(window=WINDOW)]), runtime=runtime)
    sent = edge.publish_all(WINDOW + 12)
    arrive(edge, upstream, WINDOW)
    time.sleep(0.3)
    assert bodies(upstream.messages) == sent[:WINDOW]
    row = edge.uplink()
    assert (row["in_flight"], row["settled"]) == (WINDOW, 0), row
    # In the queue are those that upstream has not confirmed, whether or not they are in flight.
    assert row["backlog"] in (12, WINDOW + 12), row
    upstream.confirms = scripts.Multiple(1000)
    assert bodies(arrive(edge, upstream, len(sent))) == sent
    assert settle(edge)["settled"] == len(sent)


def test_only_a_confirm_settles_a_message_here(runtime, scripted, start_edge):
    upstream = scripted(confirms=scripts.Never())
    edge = start_edge(bridge(upstream.port, [uplink(window=WINDOW)]), runtime=runtime)
    edge.publish_all(5)
    first = arrive(edge, upstream, 5)
    edge.kill()
    upstream.confirms = scripts.Each()
    edge.start()
    again = arrive(edge, upstream, 10)[5:]
    assert bodies(again) == bodies(first)
    ids = [m.properties.message_id for m in first]
    assert [m.properties.message_id for m in again] == ids and len(set(ids)) == 5
    settle(edge)
    edge.restart()
    edge.wait_connected()
    time.sleep(0.3)
    assert len(upstream.messages) == 10


def test_everything_unsettled_is_sent_again_in_order(runtime, scripted, start_edge):
    upstream = scripted(confirms=scripts.Judge(lambda m: "ack" if m.tag <= 3 else None))
    edge = start_edge(bridge(upstream.port, [uplink(window=WINDOW)]), runtime=runtime)
    sent = edge.publish_all(20)
    arrive(edge, upstream, 3 + WINDOW)
    upstream.cut()
    upstream.confirms = scripts.Each()
    row = settle(edge)
    assert bodies(upstream.messages) == sent[: 3 + WINDOW] + sent[3:]
    assert (row["resent"], row["settled"], row["sent"]) == (WINDOW, 20, 20 + WINDOW), row
    assert edge.bridge()["connects"] == 2


def test_transient_messages_and_large_ones_are_forwarded(runtime, rabbitmq, cloud, start_edge):
    edge = start_edge(
        bridge(rabbitmq.port, [uplink(routing_key=cloud.queue, window=4)]), runtime=runtime
    )
    # A Pico W takes 5120 octets, a gateway what does not fit into a frame.
    largest = 5000 if runtime == "micropython" else 500000
    sent = [b"", b"x", b"y" * (largest // 2), b"z" * largest]
    for body in sent:
        edge.publish(body, delivery_mode=1)
        edge.publish(body)
    edge.wait_until(lambda: cloud.count() == 8, "all in the cloud")
    assert [body for _, body in cloud.take()] == [body for body in sent for _ in "12"]


def test_several_uplinks_keep_the_order_of_each_queue(rabbitmq, cloud, start_edge):
    queues = ["a", "b", "c"]
    rows = [
        uplink(queue, routing_key=cloud.declare("%s-%s" % (queue, cloud.name)), window=WINDOW)
        for queue in queues
    ]
    edge = start_edge(bridge(rabbitmq.port, rows), queues=queues)
    for k in range(100):
        for queue in queues:
            edge.publish(b"%08d" % k, queue)
    for row in rows:
        edge.wait_until(lambda row=row: cloud.count(row["routing_key"]) == 100, row["queue"])
        arrived = cloud.take(row["routing_key"])
        assert [body for _, body in arrived] == [b"%08d" % k for k in range(100)]


# --- what it makes of a message ---


def test_names_and_headers_are_made_by_template(runtime, scripted, start_edge):
    upstream = scripted()
    row = uplink(
        exchange="{exchange}", routing_key="fleet.{device}.{routing_key}",
        headers={"x-site": "{device}/berlin", "x-key": "{routing_key}", "x-fixed": "yes"},
    )  # fmt: skip
    edge = start_edge(
        bridge(upstream.port, [row]), runtime=runtime,
        bindings=[{"source": "amq.topic", "destination": "telemetry", "routing_key": "#"}],
    )  # fmt: skip
    edge.publish(b"21.5", "line4.temperature", "amq.topic", headers={"mine": 1})
    message = arrive(edge, upstream, 1)[0]
    assert message.exchange == "amq.topic"
    assert message.routing_key == "fleet.%s.line4.temperature" % DEVICE
    assert message.headers == {
        "mine": 1, "x-site": DEVICE + "/berlin", "x-key": "line4.temperature", "x-fixed": "yes",
        "x-edge-device": DEVICE, "x-edge-hops": 1,
    }  # fmt: skip
    assert ID.fullmatch(message.properties.message_id)
    assert message.mandatory


def test_without_templates_the_names_stay_as_they_are(scripted, start_edge):
    upstream = scripted()
    edge = start_edge(
        bridge(upstream.port, [{"queue": "telemetry"}]),
        bindings=[{"source": "amq.direct", "destination": "telemetry", "routing_key": "k"}],
    )
    edge.publish(b"x", "k", "amq.direct")
    edge.publish(b"y", "telemetry")
    found = arrive(edge, upstream, 2)
    assert [(m.exchange, m.routing_key) for m in found] == [("amq.direct", "k"), ("", "telemetry")]


def test_the_publishers_own_properties_stay(runtime, scripted, start_edge):
    upstream = scripted()
    edge = start_edge(bridge(upstream.port, [uplink()]), runtime=runtime)
    given = {
        "content_type": "application/json", "content_encoding": "gzip", "delivery_mode": 2,
        "priority": 3, "correlation_id": "c-1", "reply_to": "answers", "message_id": "mine-1",
        "timestamp": 1700000000, "type": "reading", "app_id": "thermometer",
        "headers": {
            "text": "grün", "n": 7, "long": 1 << 40, "yes": True, "none": None,
            "list": [1, "two", {"three": 3}], "table": {"a": {"b": "c"}},
        },
    }  # fmt: skip
    edge.publish(b"x", user_id="guest", **given)
    message = arrive(edge, upstream, 1)[0]
    headers = dict(message.headers)
    assert ID.fullmatch(headers.pop("x-edge-message-id"))
    assert headers.pop("x-edge-device") == DEVICE and headers.pop("x-edge-hops") == 1
    assert headers == given.pop("headers")
    for name in given:
        assert getattr(message.properties, name) == given[name], name
    # Upstream would compare it with the bridge's own login, and close the channel.
    assert message.properties.user_id is None


def test_the_origin_stays_and_hops_are_counted(scripted, start_edge):
    upstream = scripted()
    edge = start_edge(bridge(upstream.port, [uplink(max_hops=3)]))
    edge.publish(b"two before", headers={"x-edge-device": "edge-0", "x-edge-hops": 2})
    edge.publish(b"three before", headers={"x-edge-device": "edge-0", "x-edge-hops": 3})
    edge.publish(b"my own", headers={"x-edge-device": DEVICE, "x-edge-hops": 1})
    edge.publish(b"new")
    found = arrive(edge, upstream, 2)
    settle(edge)
    assert bodies(upstream.messages) == [b"two before", b"new"]
    assert found[0].headers["x-edge-device"] == "edge-0" and found[0].headers["x-edge-hops"] == 3
    assert edge.uplink()["dropped_looped"] == 2


def test_a_message_expires_or_goes_on_with_what_is_left(runtime, scripted, start_edge):
    upstream = scripted(refusals={"connection.open": (320, "CONNECTION_FORCED")})
    edge = start_edge(bridge(upstream.port, [uplink()]), runtime=runtime)
    edge.publish(b"short", expiration="300")
    edge.publish(b"long", expiration="60000")
    edge.publish(b"for ever")
    time.sleep(1)
    upstream.refusals = {}
    settle(edge)
    assert bodies(upstream.messages) == [b"long", b"for ever"]
    assert 50000 < int(upstream.messages[0].properties.expiration) <= 59100
    assert upstream.messages[1].properties.expiration is None
    assert edge.status()["counters"]["dropped_expired"] == 1


# --- what upstream does not take ---


def refuse_some(upstream, kind):
    """Let *upstream* not take bodies with "bad"."""
    if kind == "nack":
        upstream.confirms = scripts.Judge(lambda m: "nack" if b"bad" in m.body else "ack")
    else:
        upstream.routable = lambda message: b"bad" not in message.body


@pytest.mark.parametrize("kind", ["return", "nack"])
@pytest.mark.parametrize("refused", ["park", "dead-letter", "drop"])
def test_what_is_refused_is_retried_while_others_go_on(kind, refused, scripted, start_edge):
    upstream = scripted()
    refuse_some(upstream, kind)
    row = uplink(
        window=WINDOW, retries=1, refused=refused,
        dead_letter_exchange="", dead_letter_routing_key="dead",
    )  # fmt: skip
    edge = start_edge(bridge(upstream.port, [row]), queues=["telemetry", "dead"])
    sent = [b"bad %d" % k if k % 10 == 3 else b"good %d" % k for k in range(40)]
    for body in sent:
        edge.publish(body, app_id="mine")
    good = [body for body in sent if body.startswith(b"good")]
    bad = [body for body in sent if body.startswith(b"bad")]
    edge.wait_until(lambda: bodies(upstream.confirmed()) == good, "the others in order")
    row = settle(edge)
    assert row[kind + "ed"] == 2 * len(bad), row
    counted = {"park": "parked", "dead-letter": "dead_lettered", "drop": "dropped_refused"}
    assert row[counted[refused]] == len(bad), row
    assert row["settled"] == len(good)
    assert kind in row["last_error"]
    tries = [body for body in bodies(upstream.messages) if body in bad]
    assert sorted(tries) == sorted(2 * bad)
    if refused != "drop":
        kept = edge.take("telemetry.parked" if refused == "park" else "dead")
        assert sorted(body for _, body in kept) == sorted(bad)
        assert {properties.app_id for properties, _ in kept} == {"mine"}


def test_what_is_parked_is_durable(runtime, scripted, start_edge):
    upstream = scripted()
    refuse_some(upstream, "nack")
    edge = start_edge(bridge(upstream.port, [uplink(retries=0)]), runtime=runtime)
    for body in (b"good 1", b"bad", b"good 2"):
        edge.publish(body)
    edge.wait_until(lambda: edge.uplink()["parked"] == 1, "one parked")
    edge.restart()
    assert [body for _, body in edge.take("telemetry.parked")] == [b"bad"]
    settle(edge)
    assert bodies(upstream.messages) == [b"good 1", b"bad", b"good 2"]


def test_a_refused_message_that_upstream_takes_later_is_delivered(scripted, start_edge):
    upstream = scripted()
    refuse_some(upstream, "return")
    edge = start_edge(bridge(upstream.port, [uplink(retries=5)]))
    edge.publish(b"bad")
    arrive(edge, upstream, 1)
    upstream.routable = lambda message: True
    row = settle(edge)
    assert bodies(upstream.confirmed()) == [b"bad"]
    assert (row["settled"], row["parked"]) == (1, 0), row


def test_nothing_but_refusals_does_not_block_the_rest(scripted, start_edge):
    """More refused messages than the window has places."""
    upstream = scripted()
    refuse_some(upstream, "nack")
    edge = start_edge(bridge(upstream.port, [uplink(window=4, retries=1)]))
    for k in range(40):
        edge.publish(b"bad %d" % k)
    edge.publish(b"good")
    edge.wait_until(lambda: bodies(upstream.confirmed()) == [b"good"], "the good one")
    row = settle(edge)
    assert row["parked"] == 40
    kept = [body for _, body in edge.take("telemetry.parked")]
    assert sorted(kept) == sorted(b"bad %d" % k for k in range(40))


def test_returned_and_nacked_by_rabbitmq(rabbitmq, cloud, start_edge):
    full = cloud.declare("full-" + cloud.name, x_max_length=1, x_overflow="reject-publish")
    rows = [
        uplink("telemetry", exchange="amq.direct", routing_key="none-" + cloud.name, retries=1),
        uplink("other", routing_key=full, retries=1),
    ]
    edge = start_edge(bridge(rabbitmq.port, rows), queues=["telemetry", "other"])
    edge.publish(b"nowhere to go")
    for k in range(3):
        edge.publish(b"%d" % k, "other")
    edge.wait_until(lambda: edge.uplink()["parked"] == 1, "the returned one parked")
    edge.wait_until(lambda: edge.uplink("other")["parked"] == 2, "the nacked ones parked")
    assert edge.uplink()["returned"] == 2 and edge.uplink("other")["nacked"] == 4
    assert [body for _, body in edge.take("telemetry.parked")] == [b"nowhere to go"]
    assert sorted(body for _, body in edge.take("other.parked")) == [b"1", b"2"]
    assert [body for _, body in cloud.take(full)] == [b"0"]


# --- declarations ---


def declares(upstream):
    """(name of the method, name of what is declared, its flags) of all declares."""
    found = []
    for _, _, name, payload in list(upstream.methods):
        if name.endswith(".declare"):
            n = payload[2]
            rest = payload[3 + n :]
            flags = rest[1 + rest[0]] if name.startswith("exchange") else rest[0]
            found.append((name, payload[3 : 3 + n].decode(), flags))
    return found


def test_it_declares_passively_unless_told_otherwise(scripted, start_edge):
    upstream = scripted()
    rows = [
        uplink("telemetry", exchange="telemetry"),
        uplink("other", exchange="", routing_key="in"),
        uplink("third", exchange="unseen", declare="none"),
    ]
    edge = start_edge(bridge(upstream.port, rows), queues=["telemetry", "other", "third"])
    for queue in ("telemetry", "other", "third"):
        edge.publish(b"x", queue)
    arrive(edge, upstream, 3)
    assert sorted(declares(upstream)) == [
        ("exchange.declare", "telemetry", 1), ("queue.declare", "in", 1)
    ]  # fmt: skip


def test_what_is_missing_upstream_stops_one_uplink_only(scripted, start_edge):
    upstream = scripted(missing={"later"})
    rows = [uplink("telemetry", exchange="later"), uplink("other", exchange="there")]
    edge = start_edge(bridge(upstream.port, rows), queues=["telemetry", "other"])
    sent = edge.publish_all(10)
    edge.publish_all(10, queue="other")
    edge.wait_until(lambda: len(upstream.confirmed()) == 10, "the other uplink's")
    assert {m.exchange for m in upstream.messages} == {"there"}
    row = edge.uplink()
    assert row["backlog"] == 10 and "404" in row["last_error"], row
    upstream.missing.clear()
    edge.wait_until(lambda: len(upstream.confirmed()) == 20, "the rest")
    assert bodies(m for m in upstream.messages if m.exchange == "later") == sent
    assert upstream.accepted == 1, "a channel error is no reason to reconnect"


def test_it_makes_exchanges_and_queues_in_rabbitmq_on_request(rabbitmq, cloud, start_edge):
    names = {kind: "%s-%s" % (kind, cloud.name) for kind in ("topic", "classic", "quorum")}
    rows = [
        uplink("telemetry", exchange=names["topic"], declare="topic", mandatory=False),
        uplink("classic", routing_key=names["classic"], declare="classic"),
        uplink("quorum", routing_key=names["quorum"], declare="quorum"),
    ]
    edge = start_edge(bridge(rabbitmq.port, rows), queues=["telemetry", "classic", "quorum"])
    edge.publish(b"x")
    for kind in ("classic", "quorum"):
        edge.publish_all(20, queue=kind)
        edge.wait_until(lambda kind=kind: cloud.exists(names[kind]), kind)
        cloud.declare(names[kind], x_queue_type=kind)  # 406 when it is of another kind
        edge.wait_until(lambda kind=kind: cloud.count(names[kind]) == 20, kind)
    edge.wait_until(lambda: edge.uplink()["settled"] == 1, "the exchange's")
    cloud.channel().exchange_declare(names["topic"], "topic", durable=True)
    cloud.channel().exchange_delete(names["topic"])
    edge.restart()  # they are there now
    edge.publish(b"last", "quorum")
    edge.wait_until(lambda: cloud.count(names["quorum"]) == 21, "one more")


def test_what_is_declared_otherwise_upstream_is_told(scripted, start_edge):
    upstream = scripted(different={"telemetry"})
    edge = start_edge(bridge(upstream.port, [uplink(declare="quorum")]))
    edge.publish(b"x")
    edge.wait_until(lambda: "406" in edge.uplink()["last_error"], "406 in the status")
    assert edge.bridge()["state"] == "connected" and upstream.accepted == 1
    assert edge.uplink()["backlog"] == 1


# --- what upstream asks for ---


@pytest.mark.parametrize(
    "tune", [(2047, 4096, 60), (2047, 8192, 60), (2047, 131072, 60), (0, 0, 0), (1, 131072, 0)]
)
def test_it_keeps_to_what_was_agreed_on(runtime, tune, scripted, start_edge):
    upstream = scripted(tune=tune)  # and complains of what is larger
    edge = start_edge(bridge(upstream.port, [uplink()]), runtime=runtime)
    size = 5000 if runtime == "micropython" else 300000
    sent = [b"%d" % k * size for k in range(3)]
    for body in sent:
        edge.publish(body)
    assert bodies(arrive(edge, upstream, 3)) == sent
    settle(edge)


def test_heartbeats_keep_an_idle_connection(scripted, start_edge):
    upstream = scripted(tune=(2047, 131072, 1))
    edge = start_edge(bridge(upstream.port, [uplink()], heartbeat=1), runtime="micropython")
    edge.wait_connected()
    time.sleep(3)
    edge.publish(b"x")
    arrive(edge, upstream, 1)
    assert upstream.accepted == 1 and not upstream.silent


def test_a_silent_upstream_is_left(runtime, scripted, start_edge):
    upstream = scripted(tune=(2047, 131072, 1))
    edge = start_edge(bridge(upstream.port, [uplink()], heartbeat=1), runtime=runtime)
    edge.wait_connected()
    upstream.heartbeats = False
    edge.wait_until(lambda: upstream.accepted == 2, "another connection", 6)
    upstream.heartbeats = True
    assert "heartbeat" in edge.output()


def test_nothing_is_published_while_upstream_is_blocked(runtime, scripted, start_edge):
    """For a moment; test_upstream_faults.py has it for long."""
    upstream = scripted()
    edge = start_edge(bridge(upstream.port, [uplink()]), runtime=runtime)
    edge.publish(b"before")
    arrive(edge, upstream, 1)
    upstream.block()
    edge.wait_until(lambda: edge.bridge()["state"] == "blocked", "blocked")
    sent = edge.publish_all(10)
    time.sleep(1)
    assert len(upstream.messages) == 1 and upstream.accepted == 1
    assert edge.uplink()["backlog"] == 10
    upstream.unblock()
    assert bodies(arrive(edge, upstream, 11)) == [b"before", *sent]
    settle(edge)
    assert edge.bridge()["state"] == "connected"


def test_a_local_queue_may_go_and_come_back(scripted, start_edge):
    upstream = scripted()
    edge = start_edge(bridge(upstream.port, [uplink("mine")]))
    edge.wait_connected()
    assert "mine" in edge.uplink("mine")["last_error"]
    for k in range(2):
        edge.channel().queue_declare("mine", durable=True)
        edge.publish(b"%d" % k, "mine")
        arrive(edge, upstream, k + 1)
        edge.channel().queue_delete("mine")
    assert bodies(upstream.messages) == [b"0", b"1"]


# --- hosts, back-off, limits, priorities ---


def test_two_hosts_are_tried_in_turn(scripted, start_edge):
    first, second = scripted(), scripted()
    hosts = ["127.0.0.1:%d" % upstream.port for upstream in (first, second)]
    edge = start_edge(bridge(first.port, [uplink()], hosts=hosts))
    edge.publish(b"1")
    arrive(edge, first, 1)
    assert edge.bridge()["host"] == hosts[0]
    first.close()
    edge.wait_until(lambda: edge.bridge()["host"] == hosts[1], "the other host")
    edge.publish(b"2")
    arrive(edge, second, 1)
    back = scripted(port=first.port)
    second.close()
    edge.publish(b"3")
    arrive(edge, back, 1)
    assert bodies(first.messages + second.messages + back.messages) == [b"1", b"2", b"3"]


def test_a_fleet_does_not_come_back_all_at_once(scripted, start_edge):
    upstream = scripted()
    count = 12
    bridges = [bridge(upstream.port, name="b%d" % k, retry_max=2) for k in range(count)]
    edge = start_edge(*bridges)
    edge.wait_until(lambda: upstream.accepted == count, "all connected")
    upstream.refusals = {"connection.open": (320, "CONNECTION_FORCED")}
    begin = time.monotonic()
    upstream.cut()
    times = []

    def all_back():
        while len(times) < upstream.accepted - count:
            times.append(time.monotonic() - begin)
        return len(times) >= count

    edge.wait_until(all_back, "as many attempts", 5)
    # Full jitter: anywhere up to a second. All of 12 in one half has a chance of 1 in 2048.
    assert max(times[:count]) - min(times[:count]) > 0.2, times
    assert times[0] < 1
    attempts = upstream.accepted
    time.sleep(3)
    # On average a second apart when the bound is 2 s; a loop without pauses makes hundreds.
    assert upstream.accepted - attempts < 8 * count
    upstream.refusals = {}
    edge.wait_until(
        lambda: all(row["state"] == "connected" for row in edge.status()["bridges"].values()),
        "all back",
    )


@pytest.mark.parametrize("limit", [{"messages_per_s": 50}, {"octets_per_s": 50000}])
def test_the_drain_is_as_slow_as_configured(limit, scripted, start_edge):
    upstream = scripted(refusals={"connection.open": (320, "CONNECTION_FORCED")})
    edge = start_edge(bridge(upstream.port, [uplink(window=64)], **limit))
    for k in range(75):
        edge.publish(b"%02d" % k * 470)  # so that both limits are nearly the same
    upstream.refusals = {}
    found = arrive(edge, upstream, 75)
    took = found[74].at - found[0].at
    # A burst of a quarter of a second's worth may go at once.
    assert 1 < took < 3, took
    later = found[74].at - found[24].at
    assert 0.7 < later < 2, later


@pytest.mark.parametrize("live", [0, 50])
def test_live_messages_overtake_the_backlog_when_asked_to(live, scripted, start_edge):
    upstream = scripted(refusals={"connection.open": (320, "CONNECTION_FORCED")})
    edge = start_edge(bridge(upstream.port, [uplink(live=live)], messages_per_s=150))
    backlog = edge.publish_all(150)
    upstream.refusals = {}
    arrive(edge, upstream, 20)
    fresh = []
    for k in range(10):
        fresh.append(b"live %d" % k)
        edge.publish(fresh[-1])
        time.sleep(0.03)
    settle(edge)
    found = bodies(upstream.messages)
    assert sorted(found) == sorted(backlog + fresh), "once each"
    assert [body for body in found if body in backlog] == backlog
    assert [body for body in found if body in fresh] == fresh
    if live:
        assert found.index(fresh[-1]) < 120, found.index(fresh[-1])
    else:
        assert found == backlog + fresh


def test_a_queue_of_higher_priority_gets_more_and_the_other_goes_on(scripted, start_edge):
    upstream = scripted(refusals={"connection.open": (320, "CONNECTION_FORCED")})
    rows = [uplink("low", priority=0, window=64), uplink("high", priority=2, window=64)]
    edge = start_edge(bridge(upstream.port, rows, messages_per_s=400), queues=["low", "high"])
    for queue in ("low", "high"):
        edge.publish_all(200, queue=queue, app_id=queue)
    upstream.refusals = {}
    first = arrive(edge, upstream, 100)[:100]
    high = sum(m.properties.app_id == "high" for m in first)
    assert 60 <= high <= 95, high
    arrive(edge, upstream, 400)


def test_several_bridges_do_not_wait_for_each_other(runtime, scripted, start_edge):
    upstream, away = scripted(), scripted(mute=("",))
    edge = start_edge(
        bridge(away.port, [uplink("telemetry", window=4)], name="away", timeout=1),
        bridge(upstream.port, [uplink("other", window=4)], name="there"),
        runtime=runtime, queues=["telemetry", "other"],
    )  # fmt: skip
    edge.publish(b"kept")
    sent = edge.publish_all(20, queue="other")
    assert bodies(arrive(edge, upstream, 20)) == sent
    assert edge.uplink("telemetry", "away")["backlog"] == 1
    assert edge.bridge("there")["state"] == "connected"
    away.mute = ()
    arrive(edge, away, 1)


def test_sensors_are_served_while_a_backlog_drains(rabbitmq, cloud, start_edge):
    edge = start_edge(bridge(rabbitmq.port, [uplink(routing_key=cloud.queue)], messages_per_s=500))
    edge.wait_connected()
    rabbitmq.pause()
    sent = edge.publish_all(600)
    rabbitmq.resume()
    slowest = 0
    for k in range(600, 800):
        begin = time.monotonic()
        sent += edge.publish_all(1, first=k)
        slowest = max(slowest, time.monotonic() - begin)
    arrived = cloud.wait_for_bodies(edge, sent)
    print("slowest confirm to a sensor: %.0f ms" % (slowest * 1000))
    assert slowest < 0.5
    Ledger(sent, arrived, 16, faults=1).check()


def test_a_pipeline_does_not_wait_for_the_way_there_and_back(scripted, proxied, start_edge):
    upstream = scripted()
    network = proxied(upstream.port)
    network.delay = 0.05
    edge = start_edge(bridge(network.port, [uplink(window=64)]))
    begin = time.monotonic()
    edge.publish_all(300)
    settle(edge)
    took = time.monotonic() - begin
    assert took < 5, "%.1f s; one by one they would take 30 s" % took


def test_octets_may_come_one_by_one(runtime, rabbitmq, cloud, proxied, start_edge):
    network = proxied(rabbitmq.port)
    network.chunk = 1
    edge = start_edge(
        bridge(network.port, [uplink(routing_key=cloud.queue, window=WINDOW)]), runtime=runtime
    )
    sent = edge.publish_all(20)
    arrived = cloud.wait_for_bodies(edge, sent)
    Ledger(sent, arrived, WINDOW).check()


def test_user_and_vhost_are_those_of_the_configuration(rabbitmq, cloud, start_edge):
    name = "user-" + cloud.name
    vhost = "vhost-" + cloud.name
    rabbitmq.control("add_vhost", vhost)
    rabbitmq.add_user(name, "secret", vhost)
    try:
        there = bridge(
            rabbitmq.port, [uplink(declare="classic", routing_key="made")],
            user=name, password="secret", vhost=vhost,
        )  # fmt: skip
        edge = start_edge(there)
        edge.publish(b"x")
        settle(edge)
        parameters = pika.ConnectionParameters(
            rabbitmq.host, rabbitmq.port, vhost, pika.PlainCredentials(name, "secret")
        )
        connection = pika.BlockingConnection(parameters)
        assert connection.channel().basic_get("made", auto_ack=True)[2] == b"x"
        connection.close()
    finally:
        rabbitmq.control("delete_vhost", vhost)
        rabbitmq.control("delete_user", name)
