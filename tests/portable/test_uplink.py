"""What goes upstream: order, ids, headers, and what becomes of messages upstream does not take."""

import wire
from bridged import Bridged
from clients10 import ask, sender, session
from wire10 import message, transfer
from world import contents, tag_of

BOOT = b"0000beef"  # of messages in the store


def bridge(queue="telemetry", **more):
    """A bridge from a durable queue of the edge to one of the cloud with the same name."""
    start = {k: more.pop(k) for k in list(more) if k in ("messages_per_s", "octets_per_s")}
    link = {"queue": queue}
    link.update(more)
    bridged = Bridged([link], **start)
    bridged.queue(queue)
    bridged.cloud_user.queue("telemetry", durable=1)
    return bridged.start()


def numbers(first, n):
    return [b"%d" % k for k in range(first, first + n)]


def test_messages_arrive_in_order_and_are_settled():
    b = bridge(window=4)
    before = b.edge.free()
    b.publish("telemetry", *numbers(0, 50))
    assert b.bodies("telemetry") == numbers(0, 50)
    status = b.status()
    assert (status["sent"], status["settled"], status["resent"]) == (50, 50, 0)
    assert (status["in_flight"], status["backlog"]) == (0, 0)
    assert b.edge.free() == before


def test_what_was_there_before_the_bridge_goes_without_a_new_publish():
    b = Bridged([{"queue": "telemetry"}])
    b.queue("telemetry")
    b.cloud_user.queue("telemetry", durable=1)
    b.publish("telemetry", *numbers(0, 30))
    b.start()
    assert b.bodies("telemetry") == numbers(0, 30)


def test_ids_and_headers():
    b = bridge(headers={"x-site": "hall {device} {routing_key}"})
    b.publish("telemetry", b"a")
    given = wire.properties(
        content_type="text/plain", content_encoding="utf-8", headers={"x-site": "no", "own": 7},
        delivery_mode=2, priority=3, correlation_id="c", reply_to="r", message_id="mine",
        timestamp=5, type="t", user_id="guest", app_id="app",
    )
    b.publish("telemetry", b"b", given=given)
    first, second = [properties for _, properties in b.arrived("telemetry")]
    assert first["headers"] == {
        b"x-edge-device": b"edge-1", b"x-edge-hops": 1, b"x-site": b"hall edge-1 telemetry",
    }
    assert first["delivery_mode"] == 2
    device, boot, sequence = first["message_id"].split(b":")
    assert (device, boot, len(sequence)) == (b"edge-1", BOOT, 12)
    own_id = second["headers"].pop(b"x-edge-message-id")
    assert own_id.startswith(b"edge-1:" + BOOT + b":") and own_id > first["message_id"]
    assert second["headers"] == {
        b"own": 7, b"x-edge-device": b"edge-1", b"x-edge-hops": 1,
        b"x-site": b"hall edge-1 telemetry",
    }
    del second["headers"]
    assert second == {
        "content_type": b"text/plain", "content_encoding": b"utf-8", "delivery_mode": 2,
        "priority": 3, "correlation_id": b"c", "reply_to": b"r", "message_id": b"mine",
        "timestamp": 5, "type": b"t", "app_id": b"app",
    }


def test_names_are_made_of_other_names():
    b = Bridged([{
        "queue": "telemetry", "exchange": "{exchange}.up",
        "routing_key": "{device}.{routing_key}.x",
    }])  # fmt: skip
    b.queue("telemetry")
    b.user.send(wire.declare_exchange(1, "site", "topic"))
    b.user.send(wire.bind_queue(1, "telemetry", "site", "#"))
    b.cloud_user.send(wire.declare_exchange(1, "site.up", "topic"))
    b.cloud_user.queue("all")
    b.cloud_user.send(wire.bind_queue(1, "all", "site.up", "edge-1.a.b.x"))
    b.start()
    b.user.send(wire.publish(1, "site", "a.b", "hello"))
    b.run()
    assert b.bodies("all") == [b"hello"]


def test_a_cut_sends_what_was_not_confirmed_again_with_the_same_ids():
    b = bridge(window=8)
    b.publish("telemetry", *numbers(0, 3))
    assert b.bodies("telemetry") == numbers(0, 3)
    # Its confirms are lost: nothing comes back from upstream.
    client = b.client
    room = client.room
    client.room = lambda: 0
    b.publish("telemetry", *numbers(3, 20))
    seen = b.arrived("telemetry")
    assert [body for body, _ in seen] == numbers(3, 8)
    assert b.status()["in_flight"] == 8 and b.status()["backlog"] == 12
    client.room = room
    b.cut()
    assert b.status()["in_flight"] == 0 and b.status()["backlog"] == 20
    assert b.status()["resent"] == 8
    b.connect()
    again = b.arrived("telemetry")
    assert [body for body, _ in again] == numbers(3, 20)
    ids = [properties["message_id"] for _, properties in again]
    assert [properties["message_id"] for _, properties in seen] == ids[:8]
    assert len(set(ids)) == 20


def test_ids_survive_a_power_cut_and_stay_unique():
    b = bridge(window=8)
    client = b.client
    client.room = lambda: 0
    b.publish("telemetry", *numbers(0, 12))
    seen = b.arrived("telemetry")
    assert len(seen) == 8
    b.restart()
    b.start()
    again = b.arrived("telemetry")
    assert [body for body, _ in again] == numbers(0, 12)
    assert [row[1]["message_id"] for row in again[:8]] == [row[1]["message_id"] for row in seen]
    b.publish("telemetry", *numbers(12, 12))
    later = b.arrived("telemetry")
    ids = [row[1]["message_id"] for row in again + later]
    assert len(set(ids)) == 24 and sorted(ids) == ids


def test_transient_messages_have_unique_ids_too():
    b = bridge(window=8)
    b.publish("telemetry", *numbers(0, 5), given=b"\0\0")
    b.publish("telemetry", *numbers(5, 5))
    b.publish("telemetry", *numbers(10, 5), given=b"\0\0")
    rows = b.arrived("telemetry")
    assert [row[0] for row in rows] == numbers(0, 15)
    assert len({row[1]["message_id"] for row in rows}) == 15
    assert "delivery_mode" not in rows[0][1]


def test_a_returned_message_is_tried_again_then_parked_and_others_pass():
    b = bridge(exchange="", routing_key="{routing_key}", declare="none", retries=2)
    b.user.send(wire.declare_exchange(1, "site", "fanout"))
    b.user.send(wire.bind_queue(1, "telemetry", "site"))
    b.user.send(wire.publish(1, "site", "nowhere", "lost?", wire.properties(delivery_mode=2)))
    b.publish("telemetry", *numbers(0, 20))
    assert b.bodies("telemetry") == numbers(0, 20)
    assert b.status()["returned"] == 1 and b.status()["waiting"] == 1
    b.wait(3100)
    status = b.status()
    assert (status["returned"], status["parked"], status["waiting"]) == (3, 1, 0)
    assert status["last_error"] == "returned: upstream has no queue for it"
    got = b.user.contents(wire.get(1, "telemetry.parked", no_ack=1))[0]
    assert got[4] == b"lost?" and got[1][9:24] == b"\x04site\x07nowhere\0\0"[:15]
    b.publish("telemetry", b"after")
    assert b.bodies("telemetry") == [b"after"]


def test_a_queue_made_meanwhile_gets_what_was_returned():
    b = bridge(exchange="", routing_key="late", declare="none")
    b.publish("telemetry", *numbers(0, 3))
    assert b.status()["returned"] == 3
    b.cloud_user.queue("late")
    b.wait(1500)
    assert sorted(b.bodies("late")) == numbers(0, 3)
    assert b.status()["settled"] == 3 and b.status()["parked"] == 0


def test_nacked_messages_are_dead_lettered():
    b = Bridged([{
        "queue": "telemetry", "exchange": "", "routing_key": "full", "retries": 1,
        "refused": "dead-letter", "dead_letter_exchange": "dead",
    }])  # fmt: skip
    b.queue("telemetry")
    b.queue("graves")
    b.user.send(wire.declare_exchange(1, "dead", "topic", durable=1))
    b.user.send(wire.bind_queue(1, "graves", "dead", "telemetry"))
    b.cloud_user.queue("full", arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    b.start()
    b.publish("telemetry", *numbers(0, 5))
    assert b.status()["nacked"] == 3
    b.wait(1200)
    status = b.status()
    assert (status["nacked"], status["dead_lettered"], status["settled"]) == (6, 3, 2)
    b.user.send(wire.consume(1, "graves", no_ack=1))
    assert sorted(b.user.bodies()) == numbers(2, 3)
    assert b.bodies("full") == numbers(0, 2)


def test_refused_ones_are_dropped_and_counted_when_asked_for():
    b = bridge(exchange="", routing_key="nowhere", declare="none", retries=0, refused="drop")
    b.publish("telemetry", *numbers(0, 5))
    assert b.status()["dropped_refused"] == 5 and b.status()["backlog"] == 0


def test_many_refused_ones_never_block_the_rest():
    b = bridge(
        exchange="", routing_key="{routing_key}", declare="none", window=4, retries=50,
    )
    b.user.send(wire.declare_exchange(1, "site", "fanout"))
    b.user.send(wire.bind_queue(1, "telemetry", "site"))
    durable = wire.properties(delivery_mode=2)
    for k in range(10):
        b.user.send(wire.publish(1, "site", "nowhere", "n%d" % k, durable))
        b.publish("telemetry", b"%d" % k)
    b.run()
    assert b.bodies("telemetry") == numbers(0, 10)
    status = b.status()
    assert status["waiting"] + status["parked"] == 10 and status["waiting"] == 2


def test_a_missing_exchange_keeps_everything_until_it_is_there():
    b = bridge(exchange="site", routing_key="{routing_key}")
    b.publish("telemetry", *numbers(0, 5))
    assert b.status()["state"] == "closed" and b.status()["backlog"] == 5
    assert b.status()["last_error"].startswith("404 NOT_FOUND - no exchange 'site'")
    b.cloud_user.send(wire.declare_exchange(1, "site", "fanout"))
    b.cloud_user.send(wire.bind_queue(1, "telemetry", "site"))
    b.wait(40000)
    assert b.bodies("telemetry") == numbers(0, 5)
    # And when it goes away later.
    b.cloud_user.send(wire.delete_exchange(1, "site"))
    b.publish("telemetry", *numbers(5, 5))
    b.wait(5000)
    assert b.status()["backlog"] == 5 and b.status()["parked"] == 0
    b.cloud_user.send(wire.declare_exchange(1, "site", "fanout"))
    b.cloud_user.send(wire.bind_queue(1, "telemetry", "site"))
    b.wait(80000)
    assert b.bodies("telemetry") == numbers(5, 5)
    assert b.upstream.connects == 1  # for an error of a channel nobody connects anew


def test_one_message_that_closes_the_channel_is_found_and_parked():
    b = bridge(retries=1)
    b.user.send(wire.declare_exchange(1, "bad", "fanout"))
    b.user.send(wire.bind_queue(1, "telemetry", "bad"))
    durable = wire.properties(delivery_mode=2)
    data = b""
    for k in range(6):
        data += wire.publish(1, "", "telemetry", "%d" % k, durable)
        if k == 2:
            data += wire.publish(1, "bad", "x", "poison", durable)
    b.user.send(data)
    b.run()
    b.wait(60000)
    assert sorted(set(b.bodies("telemetry"))) == numbers(0, 6)
    status = b.status()
    assert (status["parked"], status["settled"], status["backlog"]) == (1, 6, 0)
    got = b.user.contents(wire.get(1, "telemetry.parked", no_ack=1))[0]
    assert got[4] == b"poison"
    assert b.upstream.connects == 1


def test_declared_on_request():
    b = Bridged([
        {"queue": "a", "exchange": "made", "declare": "topic"},
        {"queue": "b", "exchange": "", "routing_key": "made", "declare": "classic"},
    ])  # fmt: skip
    b.queue("a")
    b.queue("b")
    b.start()
    b.publish("b", b"x")
    assert b.bodies("made") == [b"x"]
    assert b.cloud_user.names(wire.declare_exchange(1, "made", "topic", durable=1)) == [
        "exchange.declare-ok"
    ]


def test_a_drain_limit_in_messages():
    b = bridge(messages_per_s=20)
    b.publish("telemetry", *numbers(0, 100))
    at_once = len(b.bodies("telemetry"))
    assert at_once <= 5
    b.wait(1000, 10)
    assert 18 <= len(b.bodies("telemetry")) <= 22
    b.wait(4000, 10)
    assert b.status()["settled"] == 100


def test_a_drain_limit_in_octets():
    b = bridge(octets_per_s=1000)
    b.publish("telemetry", *[b"x" * 88] * 40)  # with head and properties about 100
    b.bodies("telemetry")
    before = b.status()["settled"]
    b.wait(2000, 10)
    assert 16 <= b.status()["settled"] - before <= 24


def test_live_messages_do_not_wait_for_the_backlog():
    b = bridge(messages_per_s=10, live=25, window=8)
    b.publish("telemetry", *[b"old%d" % k for k in range(60)])
    b.wait(1000, 20)
    b.bodies("telemetry")
    rows = []
    for k in range(5):
        b.publish("telemetry", b"new%d" % k)
        b.wait(400, 20)
        rows += b.bodies("telemetry")
    new = [body for body in rows if body.startswith(b"new")]
    old = [body for body in rows if body.startswith(b"old")]
    assert new == [b"new%d" % k for k in range(5)]
    assert len(old) > 5, rows  # the backlog goes on
    b.wait(8000, 20)
    old += b.bodies("telemetry")
    assert b.status()["settled"] == 65 and b.status()["backlog"] == 0
    assert old == [b"old%d" % k for k in range(60 - len(old), 60)]


def test_the_important_queue_first_and_nobody_starves():
    b = Bridged([
        {"queue": "alarms", "exchange": "", "routing_key": "telemetry", "priority": 3},
        {"queue": "telemetry"},
    ], messages_per_s=50)  # fmt: skip
    b.queue("alarms")
    b.queue("telemetry")
    b.cloud_user.queue("telemetry", durable=1)
    b.start()
    b.publish("telemetry", *[b"t%d" % k for k in range(90)])
    b.publish("alarms", *[b"a%d" % k for k in range(90)])
    b.wait(1500, 20)
    rows = b.bodies("telemetry")
    alarms = len([body for body in rows if body.startswith(b"a")])
    assert len(rows) - alarms > 2 and alarms > 1.5 * (len(rows) - alarms), (alarms, len(rows))
    b.wait(3000, 20)
    assert b.status("alarms")["settled"] == b.status("telemetry")["settled"] == 90


def test_time_to_live_goes_on_while_a_message_waits():
    b = bridge()
    b.cut()
    given = wire.properties(delivery_mode=2, expiration="5000")
    b.publish("telemetry", b"dies", given=wire.properties(delivery_mode=2, expiration="2000"))
    b.publish("telemetry", b"lives", given=given)
    b.publish("telemetry", b"for ever")
    b.wait(3000)
    b.connect()
    rows = b.arrived("telemetry")
    assert [row[0] for row in rows] == [b"lives", b"for ever"]
    assert 1900 <= int(rows[0][1]["expiration"]) <= 2000
    assert "expiration" not in rows[1][1]
    assert b.edge.broker.metrics.dropped_expired == 1


def test_loops_end():
    b = Bridged(
        [{"queue": "telemetry", "exchange": "", "routing_key": "back", "max_hops": 2}],
        [{"queue": "back", "exchange": "", "routing_key": "telemetry"}],
    )
    b.queue("telemetry")
    b.cloud_user.queue("back", durable=1)
    b.start()
    b.publish("telemetry", b"round and round")
    assert b.status()["sent"] == 1 and b.status()["dropped_looped"] == 1
    other = wire.properties(headers={"x-edge-device": "edge-9", "x-edge-hops": 2})
    b.publish("telemetry", b"came far", given=other)
    assert b.status()["sent"] == 1 and b.status()["dropped_looped"] == 2
    other = wire.properties(headers={"x-edge-device": "edge-9", "x-edge-hops": 1})
    b.publish("telemetry", b"one more", given=other)
    assert b.status()["sent"] == 2


def test_blocked_for_a_minute_and_not_one_message_lost():
    b = bridge(window=8)
    engine = b.engine
    engine.output.reply(0, 0x000A003C, (b"low on memory",))
    b.run()
    assert b.upstream.status("open")["state"] == "blocked"
    b.publish("telemetry", *numbers(0, 20))
    b.wait(60000, 1000)
    assert b.bodies("telemetry") == [] and b.upstream.connects == 1
    engine.output.reply(0, 0x000A003D, ())
    b.run()
    assert b.bodies("telemetry") == numbers(0, 20)
    assert b.status()["resent"] == 0


def test_a_confirm_that_never_comes_ends_the_connection():
    b = bridge(window=1)
    engine = b.engine
    engine._confirm = lambda: None
    b.publish("telemetry", b"a")
    b.wait(59000, 500)
    assert b.online and b.status()["in_flight"] == 1
    b.wait(2000, 500)
    assert not b.online and b.upstream.last_error == "no confirm for 60 s"
    del engine._confirm
    b.connect()
    assert b.bodies("telemetry") == [b"a", b"a"]
    assert b.status()["settled"] == 1 and b.status()["resent"] == 1


def test_a_silent_upstream_is_given_up_after_two_heartbeats():
    b = bridge()
    b.engine.tick = lambda: 1000  # sends no heartbeats
    b.engine.feed = lambda buf, n: None
    b.wait(59000, 500)
    assert b.online
    b.wait(2500, 500)
    assert not b.online and b.upstream.last_error == "no octet for two heartbeats"


def test_octet_by_octet():
    b = Bridged([{"queue": "telemetry"}])
    b.most = 1
    b.queue("telemetry")
    b.cloud_user.queue("telemetry", durable=1)
    b.start()
    b.publish("telemetry", *numbers(0, 5))
    assert b.bodies("telemetry") == numbers(0, 5)


def test_bodies_longer_than_any_buffer():
    b = bridge()
    large = [bytes([65 + k]) * n for k, n in enumerate((3000, 5000, 7000, 1))]
    for body in large:
        b.publish("telemetry", body)
        assert b.bodies("telemetry") == [body]
    assert b.edge.broker.pool.available == b.edge.broker.pool.blocks


def test_a_large_body_that_is_refused_is_parked_whole():
    b = bridge(exchange="", routing_key="nowhere", declare="none", retries=0)
    b.publish("telemetry", b"y" * 5000)
    assert b.status()["parked"] == 1
    got = b.user.contents(wire.get(1, "telemetry.parked", no_ack=1))
    assert got[0][4] == b"y" * 5000
    b.restart()
    assert b.edge.broker.queues[b"telemetry"].waiting() == 0


def test_parked_messages_survive_a_power_cut():
    b = bridge(exchange="", routing_key="nowhere", declare="none", retries=0)
    b.publish("telemetry", *numbers(0, 5))
    assert b.status()["parked"] == 5
    b.restart()
    b.user.send(wire.consume(1, "telemetry.parked", no_ack=1))
    assert b.user.bodies() == numbers(0, 5)


def test_what_a_queue_holds_goes_on_with_a_queue_made_later():
    b = Bridged([{"queue": "later"}])
    b.cloud_user.queue("later", durable=1)
    b.start()
    assert b.status("later")["last_error"] == "no queue 'later' here"
    b.queue("later")
    b.wait(1000)
    b.publish("later", b"x")
    assert b.bodies("later") == [b"x"]
    # Deleted while something is in flight, and made anew.
    b.client.room = lambda: 0
    b.publish("later", b"y")
    b.user.send(wire.delete_queue(1, "later"))
    del b.client.room
    b.run()
    b.queue("later")
    b.wait(1000)
    b.publish("later", b"z")
    assert b.bodies("later") == [b"y", b"z"]


def test_another_consumer_of_the_queue_has_its_share():
    b = bridge()
    b.user.send(wire.qos(1, 1) + wire.consume(1, "telemetry", "c"))
    b.user.take()
    before = b.edge.free()
    b.publish("telemetry", *numbers(0, 6))
    mine = contents(b.user.take())
    assert len(mine) == 1
    rest = b.bodies("telemetry")
    assert len(rest) == 5 and rest == sorted(rest)
    b.user.send(wire.ack(1, tag_of(mine[0])))
    assert b.edge.free() == before


def test_an_hour_with_an_upstream_slower_than_the_sensors():
    # One a second comes, one in two may go; the ring takes what waits, then it refuses.
    b = bridge(octets_per_s=16, window=4)
    b.user.send(wire.select_confirms(1))
    b.user.take()
    durable = wire.properties(delivery_mode=2)
    confirmed = []  # numbers that have not arrived yet
    recent = []  # ids
    number = arrived = doubles = waiting = 0
    for second in range(4800):
        if second < 3600:
            b.user.send(wire.publish(1, "", "telemetry", "%d" % number, durable))
            b.run()
            names = [name for _, name, _ in b.user.take()]
            if names == ["basic.ack"]:
                confirmed.append(b"%d" % number)
            else:
                assert names == ["basic.nack"]
            number += 1
        if second % 600 == 300:
            b.cut()
        if second % 600 == 400:
            b.connect()
        b.wait(1000, 1000)
        if second % 20 == 0:
            for body, properties in b.arrived("telemetry"):
                arrived += 1
                if properties["message_id"] in recent:
                    doubles += 1
                else:
                    recent = recent[-20:] + [properties["message_id"]]
                    assert body == confirmed.pop(0)
            waiting = max(waiting, len(confirmed))
    assert not confirmed and waiting > 50
    assert doubles <= 7 * 4, doubles  # seven cuts, a window each
    print("published %d, arrived %d, twice %d, waited %d" % (number, arrived, doubles, waiting))


def test_messages_of_amqp_1_0_go_up_as_0_9_1():
    b = bridge()
    peer = session(b.edge)
    sender(peer, "/queues/telemetry")
    value = message(b"", durable=True)[:-5] + b"\0\x53\x77\xa1\x04text"
    long = bytes([65 + k % 26 for k in range(6000)])
    expected = []
    for k, (payload, body) in enumerate((
        (message(b"21.5", durable=True, ttl=9000, headers={"room": "k1"}), b"21.5"),
        (value, b"\0\x53\x77\xa1\x04text"), (message(b"", durable=True), b""),
    )):  # fmt: skip
        ask(peer, transfer(payload, k))
        expected.append(body)
    whole = message(long, durable=True)
    for i in range(0, len(whole), 700):
        more = i + 700 < len(whole) or None
        ask(peer, transfer(whole[i : i + 700], None if i else 3, more=more))
    b.run()
    arrived = b.arrived("telemetry")
    assert [body for body, _ in arrived] == expected + [long]
    first, second = arrived[0][1], arrived[1][1]
    assert first["headers"][b"room"] == b"k1" and first["headers"][b"x-edge-device"] == b"edge-1"
    assert first["expiration"] == b"9000" and first["delivery_mode"] == 2
    assert second["type"] == b"amqp-1.0" and second["message_id"].startswith(b"edge-1:")
    assert b.status()["settled"] == 4
