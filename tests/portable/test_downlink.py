"""What comes down from upstream: commands, their answers, and what finds no room here."""

import wire
from bridged import Bridged
from world import contents

DURABLE = wire.properties(delivery_mode=2)


def bridge(**more):
    """A bridge that brings the cloud's queue `commands.edge-1` to the edge's `commands`."""
    row = {"queue": "commands.{device}", "exchange": "", "routing_key": "commands"}
    row.update(more)
    b = Bridged([], [row])
    b.cloud_user.queue("commands.edge-1", durable=1)
    b.queue("commands")
    return b.start()


def command(b, *bodies, **options):
    options.setdefault("given", DURABLE)
    data = [wire.publish(1, "", "commands.edge-1", body, **options) for body in bodies]
    b.cloud_user.send(b"".join(data))
    b.run()


def status(b):
    return b.upstream.status("open")["downlinks"]["commands.edge-1"]


def local(b, name="commands"):
    """(body, properties octets) of what waits in a queue of the edge, which is emptied."""
    found = []
    while True:
        got = b.user.contents(wire.get(1, name, no_ack=1))
        if not got:
            b.run()
            return found
        found.append((got[0][4], got[0][3]))


def waits_upstream(b):
    queue = b.cloud.broker.queues[b"commands.edge-1"]
    return queue.waiting() + queue.unacked


def test_commands_arrive_in_order_and_are_acknowledged():
    b = bridge(prefetch=4)
    command(b, *["%d" % k for k in range(30)])
    assert [body for body, _ in local(b)] == [b"%d" % k for k in range(30)]
    assert waits_upstream(b) == 0
    row = status(b)
    assert (row["received"], row["stored"], row["state"]) == (30, 30, "open")


def test_acknowledged_only_when_the_store_has_committed():
    b = bridge()
    store = b.edge.broker.store
    commit = store.commit
    store.commit = lambda: False
    b.cloud_user.send(wire.publish(1, "", "commands.edge-1", "x", DURABLE))
    b.run()
    assert status(b)["stored"] == 1 and waits_upstream(b) == 1
    store.commit = commit
    b.run()
    assert waits_upstream(b) == 0
    b.restart()
    assert [body for body, _ in local(b)] == [b"x"]


def test_a_power_cut_before_the_commit_brings_the_command_again():
    b = bridge()
    b.edge.broker.store.commit = lambda: False
    b.cloud_user.send(wire.publish(1, "", "commands.edge-1", "x", DURABLE))
    b.run()
    b.restart()
    assert waits_upstream(b) == 1
    b.start()
    assert [body for body, _ in local(b)] == [b"x"]
    assert waits_upstream(b) == 0


def test_properties_and_names():
    b = bridge(exchange="site", routing_key="{device}/{routing_key}")
    b.user.send(wire.declare_exchange(1, "site", "topic"))
    b.user.send(wire.bind_queue(1, "commands", "site", "edge-1/commands.edge-1"))
    given = wire.properties(content_type="a/b", headers={"h": 1}, correlation_id="c")
    command(b, "x", given=given)
    assert local(b) == [(b"x", given)]


def test_a_service_upstream_calls_a_device_and_gets_its_answer():
    b = bridge()
    b.cloud_user.send(wire.consume(1, "amq.rabbitmq.reply-to", no_ack=1))
    b.cloud_user.take()
    given = wire.properties(reply_to="amq.rabbitmq.reply-to", correlation_id="42")
    command(b, "how warm?", given=given)
    (body, properties), = local(b)
    assert body == b"how warm?"
    # The device does what every service does: it answers at the reply-to.
    i = 2 + 1 + properties[2]
    reply_to = properties[i + 1 : i + 1 + properties[i]]
    assert reply_to.startswith(b"amq.upstream.cloud.amq.rabbitmq.reply-to.")
    b.user.send(wire.publish(1, "", reply_to, "21.5", wire.properties(correlation_id="42")))
    b.run()
    answer, = contents(b.cloud_user.take())
    assert answer[4] == b"21.5" and b"\x0242" in answer[3]


def test_answers_wait_for_the_connection_on_flash():
    b = bridge()
    b.cloud_user.queue("answers", durable=1)
    command(b, "q", given=wire.properties(delivery_mode=2, reply_to="answers"))
    local(b)
    b.cut()
    b.user.send(wire.publish(1, "", "amq.upstream.cloud.answers", "a", DURABLE))
    b.run()
    b.restart()
    b.start()
    assert b.bodies("answers") == [b"a"]


def test_a_full_queue_here_sends_commands_back_and_gets_them_in_order():
    b = Bridged([], [{"queue": "commands.{device}", "exchange": "", "routing_key": "small"}])
    b.cloud_user.queue("commands.edge-1", durable=1)
    b.queue("small", arguments={"x-max-length": 3, "x-overflow": "reject-publish"})
    b.start()
    command(b, *["%d" % k for k in range(10)])
    assert waits_upstream(b) == 7 and status(b)["requeued"] >= 1
    got = []
    for _ in range(12):
        got += [body for body, _ in local(b, "small")]
        b.wait(600)
    assert got == [b"%d" % k for k in range(10)]
    assert waits_upstream(b) == 0


def test_no_memory_here_does_not_stop_the_uplink():
    b = Bridged(
        [{"queue": "telemetry"}],
        [{"queue": "commands.{device}", "exchange": "", "routing_key": "commands"}],
    )
    b.queue("telemetry")
    b.queue("commands")
    b.cloud_user.queue("telemetry", durable=1)
    b.cloud_user.queue("commands.edge-1", durable=1)
    b.start()
    pool = b.edge.broker.pool
    kept = pool.available
    pool.available = 0
    command(b, "x" * 500)
    assert status(b)["last_error"] == "no memory for what came" and waits_upstream(b) == 1
    assert not b.client.stalled
    pool.available = kept
    b.publish("telemetry", b"t")
    assert b.bodies("telemetry") == [b"t"]
    b.wait(1000)
    assert [body for body, _ in local(b)] == [b"x" * 500]


def test_what_no_queue_here_takes_is_dead_lettered_upstream():
    b = bridge(routing_key="nowhere")
    command(b, "x")
    row = status(b)
    assert (row["received"], row["unroutable"], row["stored"]) == (1, 1, 0)
    assert waits_upstream(b) == 0
    assert b.cloud.broker.metrics.dropped_rejected == 1


def test_an_exchange_that_is_not_here():
    b = bridge(exchange="missing")
    command(b, "x", "y")
    assert status(b)["rejected"] == 2
    assert status(b)["last_error"] == "no exchange 'missing' in vhost '/'"
    b.user.send(wire.declare_exchange(1, "missing", "fanout"))
    b.user.send(wire.bind_queue(1, "commands", "missing"))
    command(b, "z")
    assert [body for body, _ in local(b)] == [b"z"]


def test_messages_too_long_for_this_broker():
    b = bridge()
    command(b, "x" * 9000, given=b"\0\0")
    command(b, "y", given=wire.properties(headers={"long": "h" * 2000}))
    command(b, "z")
    assert [body for body, _ in local(b)] == [b"z"]
    row = status(b)
    assert row["rejected"] == 2 and row["last_error"].startswith("properties of 2")
    assert b.upstream.connects == 1 and waits_upstream(b) == 0


def test_large_bodies_come_down():
    b = bridge()
    for n in (3000, 7000):
        command(b, "c" * n)
        assert [len(body) for body, _ in local(b)] == [n]


def test_a_consumer_that_upstream_cancels_comes_back():
    b = bridge()
    b.cloud_user.send(wire.delete_queue(1, "commands.edge-1"))
    b.run()
    assert status(b)["state"] == "closed"
    b.wait(1500)
    assert status(b)["last_error"].startswith("404 NOT_FOUND - no queue 'commands.edge-1'")
    b.cloud_user.queue("commands.edge-1", durable=1)
    b.wait(60000, 1000)
    command(b, "again")
    assert [body for body, _ in local(b)] == [b"again"]
    assert b.upstream.connects == 1


def test_declared_and_bound_on_request():
    b = Bridged([], [{
        "queue": "to.{device}", "exchange": "", "routing_key": "commands", "declare": "classic",
        "bindings": [{"exchange": "amq.topic", "routing_key": "{device}.#"}],
    }])  # fmt: skip
    b.queue("commands")
    b.start()
    b.cloud_user.send(wire.publish(1, "amq.topic", "edge-1.do", "x"))
    b.run()
    assert [body for body, _ in local(b)] == [b"x"]


def test_a_store_that_fails_gives_commands_back():
    b = bridge()
    store = b.edge.broker.store
    store.ring.commit = lambda: False
    b.cloud_user.send(wire.publish(1, "", "commands.edge-1", "x", DURABLE))
    b.run()
    b.wait(2000)
    assert waits_upstream(b) == 1
    assert status(b)["last_error"] in ("the store failed", "a queue here refused what came")


def test_a_connection_lost_in_mid_body_leaves_nothing_behind():
    b = bridge()
    free = b.edge.free()
    b.most = 100
    carried = [0]
    feed = b.client.feed

    def count(buf, n):
        carried[0] += n
        feed(buf, n)
        if b.client.links[1].message is not None and carried[0] > 1000:
            b.client.feed = lambda buf, n: None
            b.client.room = lambda: 0

    b.client.feed = count
    command(b, "w" * 4000)
    del b.client.feed, b.client.room
    b.cut()
    b.most = 0xFFFFFF
    now = b.edge.free()
    assert now["blocks"] == free["blocks"] and now["promised"] == 0
    b.connect()
    assert [len(body) for body, _ in local(b)] == [4000]
