"""What a hostile reading of the bridge found."""

import json
import struct

import amqp_lite.bridge.upstream as upstream_module
import wire
from amqp_lite import Node
from amqp_lite.bridge.client091 import Client
from amqp_lite.bridge.upstream import Upstream
from amqp_lite.compat import ticks_add
from amqp_lite.errors import NotFound, ResourceLimitExceeded
from amqp_lite.log import log
from bridged import BOOTS, Bridged
from chance import seeded
from ramflash import RamFlash
from test_serve import SMALL
from world import World, contents

DURABLE = wire.properties(delivery_mode=2)
COMMANDS = {"queue": "c", "exchange": "", "routing_key": "commands"}


def bridge(links=None, **more):
    """An uplink from `telemetry` to the cloud's queue of that name, or to nowhere."""
    b = Bridged([dict({"queue": "telemetry"}, **(links or {}))], **more)
    b.queue("telemetry")
    b.cloud_user.queue("telemetry", durable=1)
    return b.start()


def downlink(key="commands", **arguments):
    """A downlink from the cloud's queue `c` to a queue of the edge."""
    b = Bridged([], [dict(COMMANDS, routing_key=key)])
    b.cloud_user.queue("c", durable=1)
    b.queue(key, arguments=arguments)
    return b.start()


def begin(b, device="edge-1"):
    """Start the bridge as the node does, which makes no queues before."""
    edge = b.edge
    b.upstream = Upstream(edge.broker, b.settings, device, BOOTS)
    b.client = Client(edge.broker, b.upstream, edge.profile, b.settings, device)
    b.connect()
    return b


def site(b, name="site", *queues):
    """A durable fanout exchange of the edge to `telemetry` and *queues*."""
    b.user.send(wire.declare_exchange(1, name, "fanout", durable=1))
    for queue in ("telemetry",) + queues:
        b.user.send(wire.bind_queue(1, queue, name))
    b.user.take()


def say(b, *frames):
    """Upstream says this."""
    data = b"".join(frames)
    b.client.feed(memoryview(data), len(data))


def answers(b):
    """The names of the frames that wait to go upstream, which are lost."""
    output = b.client.output
    frames, _ = wire.split(bytes(output.view[: output.pending]))
    output.sent(output.pending)
    output.pump()
    return [name for _, name, _ in frames]


def silence(peer):
    """Nothing reaches *peer*, an engine, from now on."""
    peer.room = lambda: 0


def numbers(n):
    return [b"%d" % k for k in range(n)]


def inside(b, name):
    """The bodies in a queue of the edge, which is emptied."""
    found = []
    while True:
        got = b.user.contents(wire.get(1, name, no_ack=1))
        if not got:
            return found
        found.append(got[0][4])


def waiting(b, name):
    return b.edge.broker.queues[name.encode()].waiting()


# --- uplink: messages that cannot be sent ---


def test_one_that_goes_alone_waits_for_the_others_without_turning_round():
    b = bridge({"retries": 3})
    site(b, "bad")
    b.user.send(wire.publish(1, "bad", "x", "poison", DURABLE))
    b.run()
    uplink = b.upstream.uplinks[0]
    parked = 0
    while not (uplink._waiting.count and uplink.link is not None):
        b.wait(100)
        if b.status()["parked"] > parked:  # its random pauses were too short to be seen
            parked += 1
            b.user.send(wire.publish(1, "bad", "x", "poison", DURABLE))
    silence(b.client)
    b.publish("telemetry", b"normal")
    assert uplink.in_flight.count == 1 and uplink._waiting.head.alone
    calls = [0]
    dispatch = uplink.dispatch

    def count():
        calls[0] += 1
        assert calls[0] < 1000, "an endless loop"
        return dispatch()

    uplink.dispatch = count
    b.wait(10000, 500)
    del b.client.room
    b.wait(60000, 500)
    assert b.bodies("telemetry") == [b"normal"] and b.status()["parked"] == parked + 1


def check_unsendable(refused, *given_up):
    b = Bridged([{
        "queue": "telemetry", "exchange": "", "routing_key": "{routing_key}" + "p" * 200,
        "declare": "none", "window": 4, "live": 50, "refused": refused,
        "dead_letter_exchange": "dead", "dead_letter_routing_key": "x",
    }])  # fmt: skip
    for name in ("telemetry", "archive", "g1", "g2"):
        b.queue(name)
    b.start()
    site(b, "site", "archive")
    b.user.send(wire.declare_exchange(1, "dead", "fanout", durable=1))
    b.user.send(wire.bind_queue(1, "g1", "dead") + wire.bind_queue(1, "g2", "dead"))
    b.upstream.blocked = True
    b.publish("telemetry", b"old")
    b.upstream.blocked = False
    old = b.edge.stored()
    b.user.send(wire.select_confirms(1))
    b.user.take()
    for k in range(3):
        b.user.send(wire.publish(1, "site", "k" * 100, "new%d" % k, DURABLE))
    assert b.user.names() == ["basic.ack"] * 3
    b.run()
    b.wait(2000)
    for name in given_up:
        assert sorted(inside(b, name)) == [b"new0", b"new1", b"new2"], name
    assert inside(b, "archive") == [b"new0", b"new1", b"new2"]
    # Upstream has no queue for the old one, which is all that is left.
    assert b.edge.stored() == old
    b.restart()
    assert waiting(b, "telemetry") == 1
    for name in ("archive",) + given_up:
        assert waiting(b, name) == 0, name


def test_a_live_message_that_cannot_be_sent_does_not_disturb_its_publish():
    check_unsendable("park", "telemetry.parked")


def test_a_live_message_that_is_dead_lettered_does_not_disturb_its_publish():
    check_unsendable("dead-letter", "g1", "g2")


def test_messages_that_cannot_be_parked_never_fill_the_table_of_flights():
    b = bridge({
        "exchange": "", "routing_key": "nowhere", "declare": "none", "retries": 0, "window": 4,
        "live": 50,
    })  # fmt: skip
    b.user.send(wire.delete_queue(1, "telemetry.parked"))
    b.user.take()

    def no_room(name, durable):
        raise ResourceLimitExceeded("no room")

    b.edge.broker.own_queue = no_room
    for k in range(40):
        b.publish("telemetry", b"%d" % k)
        assert b.user.take() == []
    uplink = b.upstream.uplinks[0]
    queue = b.edge.broker.queues[b"telemetry"]
    assert b.status()["waiting"] == queue.unacked == uplink._flights.size
    # It is made anew, and takes them in the end.
    del b.edge.broker.own_queue
    b.wait(130000, 1000)
    assert b.status()["parked"] == 40 and b.status()["backlog"] == 0
    assert uplink._flights.free == uplink._flights.size


def test_headers_of_another_type_are_written_anew():
    b = bridge()
    for headers in ({"x-edge-device": 5}, {"x-edge-hops": "2"}, {"x-edge-message-id": None}):
        b.publish("telemetry", b"odd", given=wire.properties(delivery_mode=2, headers=headers))
    b.publish("telemetry", b"good")
    rows = b.arrived("telemetry")
    assert b.online and [body for body, _ in rows] == [b"odd", b"odd", b"odd", b"good"]
    for _, properties in rows:
        assert properties["headers"] == {b"x-edge-device": b"edge-1", b"x-edge-hops": 1}


def poisoned(b, code):
    """Upstream closes the connection with *code* for each message that holds "poison"."""

    def patch(engine):
        def feed(buf, n):
            if b"poison" in bytes(buf[:n]):
                why = b"INTERNAL_ERROR"
                engine.output.put(0, wire.close_connection(code, why))
                engine.closed = engine.deaf = True
            else:
                type(engine).feed(engine, buf, n)

        engine.feed = feed

    for engine in b.cloud.engines + [b.engine]:
        patch(engine)


def check_poison(code):
    b = bridge({"retries": 1})
    site(b, "bad")
    poisoned(b, code)
    data = [wire.publish(1, "", "telemetry", "%d" % k, DURABLE) for k in range(6)]
    data.insert(3, wire.publish(1, "bad", "telemetry", "poison", DURABLE))
    b.user.send(b"".join(data))
    b.run()
    assert not b.online and b.upstream.last_error == "%d INTERNAL_ERROR" % code
    for _ in range(30):
        if not b.online:
            b.connect()
        b.wait(1000, 500)
    assert sorted(set(b.bodies("telemetry"))) == numbers(6)
    status = b.status()
    assert (status["parked"], status["settled"], status["backlog"]) == (1, 6, 0)
    assert inside(b, "telemetry.parked") == [b"poison"]
    assert b.upstream.connects <= 5


def test_a_message_upstream_has_a_frame_error_for_is_found_and_parked():
    check_poison(501)


def test_a_message_upstream_has_a_syntax_error_for_is_found_and_parked():
    check_poison(502)


def test_a_message_upstream_has_an_internal_error_for_is_found_and_parked():
    check_poison(541)


def test_the_order_is_kept_behind_messages_that_close_the_channel():
    b = bridge({"window": 8, "retries": 0})
    site(b, "bad")
    data = []
    for k in range(20):
        data.append(wire.publish(1, "", "telemetry", "%02d" % k, DURABLE))
        if k % 5 == 2:
            data.append(wire.publish(1, "bad", "x", "poison", DURABLE))
    b.user.send(b"".join(data))
    b.run()
    b.wait(60000)
    seen = []
    for body in b.bodies("telemetry"):
        if body not in seen:
            seen.append(body)
    assert seen == sorted(seen) and len(seen) == 20
    assert b.status()["parked"] == 4


# --- uplink: returns that cannot be told apart ---


def test_a_return_that_nobody_can_read_is_found_and_parked_while_traffic_goes_on():
    b = Bridged([{
        "queue": "telemetry", "exchange": "", "routing_key": "{routing_key}", "declare": "none",
        "retries": 3, "window": 8,
    }])  # fmt: skip
    b._set_edge(World(flash=RamFlash(16, 8192, 256)))  # it takes longer records
    b.queue("telemetry")
    b.cloud_user.queue("telemetry", durable=1)
    b.start()
    site(b)
    feed = b.client.feed
    coming = []  # (step, octets): what upstream says takes 300 ms
    b.client.feed = lambda buf, n: coming.append((step + 3, bytes(buf[:n])))
    step = 0
    # With our headers it is longer than the edge's receive buffer.
    given = wire.properties(delivery_mode=2, headers={"long": "x" * 960})
    b.user.send(wire.publish(1, "site", "nowhere", "large", given))
    arrived = []
    for step in range(250):
        b.publish("telemetry", b"%d" % step)
        while coming and coming[0][0] <= step:
            octets = coming.pop(0)[1]
            while octets:
                n = min(len(octets), b.client.room())
                feed(memoryview(octets[:n]), n)
                octets = octets[n:]
        b.wait(100)
        arrived += b.bodies("telemetry")
    status = b.status()
    assert (status["parked"], status["returned"]) == (1, 4), status
    assert status["resent"] <= 8, status
    assert inside(b, "telemetry.parked") == [b"large"]
    assert set(numbers(240)) <= set(arrived)


RETURN = wire.method(1, "basic.return", b"\x01\x38", wire.short("NO_ROUTE"), wire.short(""),
                     wire.short("q"))  # fmt: skip


def check_return(given):
    b = Bridged([{"queue": "telemetry"}])
    b.queue("telemetry")
    b.cloud_user.queue("telemetry", durable=1)
    begin(b, "d" * 100)  # ids of 122 octets
    silence(b.client)
    b.publish("telemetry", b"x", b"y")
    assert b.status()["in_flight"] == 2
    del b.client.room
    say(b, RETURN, wire.header(1, 0, given))
    b.wait(3000)
    return b


def test_a_returned_header_without_an_id_or_with_another_one():
    for given in (
        b"\0\0",
        wire.properties(message_id=""),
        wire.properties(message_id="i" * 255),
        wire.properties(headers={"x-edge-message-id": "i" * 400}),
        wire.properties(headers={"x-edge-message-id": 7}),
    ):
        b = check_return(given)
        assert b.online and set(b.bodies("telemetry")) == {b"x", b"y"}
        assert b.status()["settled"] == 2
        b = None  # a board's memory is for one


def test_a_returned_id_longer_than_its_header():
    field = wire.short("x-edge-message-id") + b"S\x3f\xff\xff\x00" + b"x" * 17
    assert not check_return(b"\x20\0" + wire.long(field)).online


# --- uplink: queues and their owners ---


def test_a_queue_deleted_in_flight_takes_nothing_from_other_consumers():
    b = bridge()
    b.queue("other")
    silence(b.client)
    b.publish("telemetry", *numbers(5))
    assert b.status()["in_flight"] == 5
    b.user.send(wire.delete_queue(1, "telemetry"))
    b.user.send(wire.qos(1, 1) + wire.consume(1, "other", "c"))  # takes the consumer's place
    b.user.take()
    del b.client.room
    b.run()
    assert b.status()["in_flight"] == 0
    assert b.edge.broker.queues[b"other"].consumers[0].unacked == 0
    b.publish("other", *numbers(5))
    assert len(contents(b.user.take())) == 1


def test_a_queue_made_later_is_sent_without_another_publish():
    b = Bridged([{"queue": "later"}])
    b.cloud_user.queue("later", durable=1)
    b.start()
    b.queue("later")
    b.publish("later", b"x")
    b.wait(2000)
    assert b.bodies("later") == [b"x"]


def test_queues_of_the_broker_itself_are_not_for_clients():
    b = downlink()
    name = "amq.upstream.cloud"
    for data in (
        wire.delete_queue(1, name), wire.purge_queue(1, name), wire.get(1, name),
        wire.consume(1, name), wire.bind_queue(1, name, "amq.topic"),
    ):  # fmt: skip
        assert b.user.refused(data) == ("channel", 403)
        b.user.send(wire.method(1, "channel.close-ok"))
        b.user.open(1)
    b.cloud_user.queue("answers", durable=1)
    b.user.send(wire.publish(1, "", name + ".answers", "a", DURABLE))
    b.run()
    assert b.bodies("answers") == [b"a"]


def test_a_queue_for_parking_that_was_deleted_is_made_again():
    b = bridge({"exchange": "", "routing_key": "nowhere", "declare": "none", "retries": 0})
    b.user.send(wire.delete_queue(1, "telemetry.parked"))
    b.user.take()
    b.wait(1100)
    b.publish("telemetry", b"x")
    assert b.status()["parked"] == 1 and inside(b, "telemetry.parked") == [b"x"]


def test_parked_messages_have_no_time_to_live():
    b = bridge({"exchange": "", "routing_key": "nowhere", "declare": "none", "retries": 0})
    b.publish("telemetry", b"x", given=wire.properties(delivery_mode=2, expiration="5000"))
    assert b.status()["parked"] == 1
    b.wait(7000)
    assert inside(b, "telemetry.parked") == [b"x"]


def test_it_starts_with_a_full_table_of_queues():
    b = Bridged([{"queue": "telemetry"}], [dict(COMMANDS)])
    b.cloud_user.queue("telemetry", durable=1)
    b.cloud_user.queue("c", durable=1)
    b._set_edge(World(queues=4))
    for name in ("telemetry", "commands", "q1", "q2"):
        b.queue(name)
    begin(b)
    b.wait(2000)
    assert "telemetry.parked: " in b.status()["last_error"]
    b.publish("telemetry", b"x")
    b.cloud_user.send(wire.publish(1, "", "c", "y", DURABLE))
    b.run()
    assert b.bodies("telemetry") == [b"x"] and inside(b, "commands") == [b"y"]
    b.user.send(wire.delete_queue(1, "q1"))
    b.wait(2000)
    assert b"telemetry.parked" in b.edge.broker.queues


# --- uplink: what is sent when ---


def test_nothing_is_sent_before_it_is_on_flash():
    # Its id is its place there: after a power cut another message would have the same.
    b = bridge({"window": 4, "live": 50})
    store = b.edge.broker.store
    store.commit = lambda: False
    b.publish("telemetry", *numbers(3))
    assert b.bodies("telemetry") == [] and b.status()["sent"] == 0
    del store.commit
    b.run()
    assert sorted(b.bodies("telemetry")) == numbers(3)


def test_a_store_that_cannot_mark_costs_no_connection():
    b = bridge({"window": 1})

    def mark():
        raise OSError(5)

    b.edge.broker.store.ring.mark = mark
    b.publish("telemetry", *numbers(6))
    assert b.online and b.bodies("telemetry") == numbers(6)
    assert b.edge.broker.store.broken


def test_live_messages_leave_room_for_the_backlog():
    for window, live in ((1, 1), (2, 60), (5, 90), (9, 90)):
        b = bridge({"window": window, "live": live})
        b.publish("telemetry", *numbers(10))
        b.wait(2000, 500)
        assert sorted(b.bodies("telemetry")) == numbers(10), (window, live)
        b = None  # a board's memory is for one


def test_a_long_body_may_take_longer_than_a_confirm():
    b = bridge(confirm_timeout=5)
    engine = b.engine
    budget = [0]
    feed = engine.feed

    def count(buf, n):
        budget[0] -= n
        feed(buf, n)

    engine.feed = count
    engine.room = lambda: budget[0]
    b.publish("telemetry", b"L" * 7000)
    for _ in range(80):
        budget[0] = 100  # octets in 100 ms
        b.wait(100)
        assert b.online, b.upstream.last_error
    assert b.bodies("telemetry") == [b"L" * 7000] and b.status()["resent"] == 0


# --- the connection ---


def test_a_flow_that_was_stopped_goes_on_in_a_new_channel():
    b = bridge()
    say(b, wire.flow(1, 0))
    assert answers(b) == ["channel.flow-ok"]
    b.publish("telemetry", b"x")
    b.wait(1000)
    assert b.bodies("telemetry") == [] and b.online
    b.engine.on_error(NotFound("gone"), 1, 0)
    b.wait(5000)
    assert b.bodies("telemetry") == [b"x"] and b.upstream.connects == 1


def check_end(close, why):
    b = bridge()
    silence(b.engine)
    b.publish("telemetry", *[b"x" * 300] * 6)
    close(b)
    b.wait(1000)
    assert b.client.closed and b.online  # it may still read what we say
    b.wait(1500)
    assert not b.online and b.upstream.last_error == why


def test_an_end_that_the_peer_does_not_read_ends():
    check_end(lambda b: b.client.fail(501, "expected by the test"), "expected by the test")
    check_end(lambda b: say(b, wire.close_connection(320, "shutdown")), "320 shutdown")


def test_a_peer_that_talks_and_does_not_read_is_given_up():
    b = bridge()
    engine = b.engine
    silence(engine)
    engine.tick = lambda: engine.output.put(0, wire.HEARTBEAT) or 1000
    b.wait(59000, 500)
    assert b.online
    b.wait(30000, 500)
    assert not b.online and b.upstream.last_error == "it does not read"


def test_a_channel_that_is_not_answered_while_upstream_is_blocked():
    b = downlink()
    engine = b.engine
    engine.output.reply(0, 0x000A003C, (b"low on memory",))
    b.run()
    silence(engine)
    engine.tick = lambda: engine.output.put(0, wire.HEARTBEAT) or 1000
    b.cloud_user.send(wire.delete_queue(1, "c"))  # its channel is opened anew
    b.run()
    b.wait(50000, 500)
    assert b.online and not b.client.closed
    assert b.upstream.status("open")["state"] == "blocked"


def test_a_flood_of_methods_from_a_peer_that_does_not_read():
    b = bridge()
    silence(b.engine)
    flood = wire.flow(1, 1) * 50
    rounds = 0
    while b.client.room() >= len(flood):
        say(b, flood)
        rounds += 1
        assert rounds < 100
    assert b.client.stalled and len(b.client.output.later) < 10
    answered = 0
    while b.client.output.pending:
        answered += len(answers(b))
        b.client.resume()
        assert len(b.client.output.later) < 10
    assert answered == rounds * 50 and not b.client.stalled and not b.client.closed


def test_memory_that_lacks_for_a_log_line_costs_no_pause():
    b = bridge()

    class Log:
        def warning(self, *arguments):
            raise MemoryError

        info = debug = warning

    kept = upstream_module.log
    upstream_module.log = Log()
    try:
        b.cut()
    finally:
        upstream_module.log = kept
    status = b.upstream.status("idle")
    assert (status["state"], status["retries"], status["last_error"]) == ("waiting", 1, "cut")


def test_a_connection_that_lasted_is_a_good_one():
    b = bridge()
    for _ in range(12):
        b.upstream._back_off.failed(b.edge.broker.now)
    b.wait(29000, 1000)
    assert b.upstream.status("open")["retries"] == 12
    b.wait(2000, 1000)
    assert b.upstream.status("open")["retries"] == 0
    b.cut()
    assert b.upstream.next_call(b.edge.broker.now) <= 1000


# --- downlink ---


def requeued(b):
    return b.upstream.status("open")["downlinks"]["c"]["requeued"]


def send_down(b, *bodies, **options):
    options.setdefault("given", DURABLE)
    b.cloud_user.send(b"".join([wire.publish(1, "", "c", body, **options) for body in bodies]))
    b.run()


def test_an_acknowledgement_never_covers_what_the_store_lost():
    b = downlink()
    store = b.edge.broker.store
    store.commit = lambda: False  # it gathers
    send_down(b, "ONE")
    silence(b.client)
    send_down(b, "2" * 1500, given=b"\0\0")
    # The second one begins to come; then the flash fails.
    octets = bytes(b.engine.output.view[:200])
    b.engine.output.sent(200)
    say(b, octets)
    del store.commit
    store.ring.commit = lambda: False
    b.run()
    assert store.broken
    del b.client.room
    b.wait(1500)
    queue = b.cloud.broker.queues[b"c"]
    assert queue.waiting() + queue.unacked == 2
    b.restart()
    assert waiting(b, "commands") == 0


def test_what_meets_those_given_back_comes_behind_them():
    b = downlink("small", **{"x-max-length": 1, "x-overflow": "reject-publish"})
    send_down(b, "0", "1", "2")
    order = inside(b, "small")
    silence(b.engine)  # it takes a while
    b.wait(600)
    send_down(b, "3")
    del b.engine.room
    for _ in range(60):
        b.wait(200)
        order += inside(b, "small")
    assert order == numbers(4)


def test_a_queue_that_stays_full_is_tried_less_and_less():
    b = downlink("small", **{"x-max-length": 1, "x-overflow": "reject-publish"})
    send_down(b, *["x" * 300] * 17)
    assert requeued(b) == 16
    b.wait(120000, 500)
    assert 16 * 5 <= requeued(b) <= 16 * 9, requeued(b)


def test_a_delivery_inside_of_another_one_leaves_nothing_behind():
    b = downlink()
    number = [link.number for link in b.client.links if link.policy in b.upstream.downlinks][0]
    free = b.edge.free()
    for between in (b"", wire.header(number, 4000), wire.header(number, 4000) + wire.body(
        number, b"x" * 100
    )):  # fmt: skip
        for tag in (1, 2):
            if b.client.closed:
                break
            deliver = wire.method(
                number, "basic.deliver", wire.short("t"), struct.pack(">QB", tag, 0),
                wire.short(""), wire.short("c"),
            )  # fmt: skip
            say(b, deliver + between)
        b.run()
        assert not b.online and b.upstream.last_error == "a delivery inside of another one"
        now = b.edge.free()
        for key in ("blocks", "messages", "entries", "promised"):
            assert now[key] == free[key], key
        b.connect()
    send_down(b, "works")
    assert inside(b, "commands") == [b"works"]


def test_a_delivery_whose_header_is_too_short():
    b = downlink()
    number = [link.number for link in b.client.links if link.policy in b.upstream.downlinks][0]
    deliver = wire.method(
        number, "basic.deliver", wire.short("t"), struct.pack(">QB", 1, 0), wire.short(""),
        wire.short("c"),
    )  # fmt: skip
    for size in (0, 4, 11, 13):
        say(b, deliver + wire.frame(2, number, (b"\0\x3c" + bytes(12))[:size]))
        b.run()
        assert not b.online
        assert b.upstream.last_error == "a content header of %d octets" % size
        b.connect()


def test_a_reply_address_that_makes_properties_too_long():
    b = Bridged([], [dict(COMMANDS)], name="n" * 60)
    b.cloud_user.queue("c", durable=1)
    b.queue("commands")
    b.start()
    for n in range(920, 980, 5):
        given = wire.properties(headers={"h": "x" * n}, reply_to="r")
        send_down(b, "ask", given=given)
        send_down(b, "next")
        row = b.upstream.status("open")["downlinks"]["c"]
        assert inside(b, "commands")[-1:] == [b"next"] and b.online
    assert row["rejected"] > 0 and row["last_error"].startswith("properties of ")


# --- a hostile upstream ---


class Scripted(Bridged):
    """Upstream says only what the test does."""

    def connect(self):
        self.client.open("up:5672", ticks_add(self.edge.broker.now, 10000))
        self.client.output.sent(8)


def scripted():
    b = Scripted([{"queue": "telemetry"}])
    b.queue("telemetry")
    return b.start()


START = wire.method(0, "connection.start", b"\0\x09", wire.table({}), wire.long("PLAIN"),
                    wire.long("en_US"))  # fmt: skip
OPEN_OK = wire.method(0, "connection.open-ok", wire.short(""))


def tune(frame_max):
    return wire.method(0, "connection.tune", struct.pack(">HIH", 10, frame_max, 0))


def test_frames_too_small_to_send_anything():
    b = scripted()
    for frame_max in (1, 8, 4095):
        say(b, START, tune(frame_max))
        assert b.client.closed
        b.client.lost(None)
        why = "it offers frames of %d octets, 4096 is the least" % frame_max
        assert b.upstream.last_error == why
        b.connect()
    for frame_max in (0, 4096, 0x3FFFFFFF):
        say(b, START, tune(frame_max), OPEN_OK)
        assert b.client.running and b.client.frame_max <= 8192
        b.client.lost(None)
        b.connect()


def test_content_before_the_login():
    b = scripted()
    for early in (
        wire.header(1, 0), wire.body(1, b"x"), wire.header(1, 0, b"\x80\0\xff"), wire.header(9, 0),
    ):  # fmt: skip
        say(b, early)
        assert not b.client.running and b.upstream.connects == 0
        b.client.lost(None)
        b.connect()


def test_steps_of_the_login_twice():
    b = bridge()
    for again in (START, tune(8192), OPEN_OK):
        connects = b.upstream.connects
        say(b, again)
        b.run()
        assert not b.online and b.upstream.last_error.endswith(" is not due")
        assert b.upstream.connects == connects
        b.connect()


def test_reasons_that_are_no_clean_text():
    b = bridge()
    cut = b"no exchange '" + "\u00e4".encode()[:1]
    close = struct.pack(">H", 404) + wire.short(cut) + b"\0\0\0\0"
    say(b, wire.method(1, "channel.close", close))
    assert not b.client.closed
    assert b.status()["last_error"] == "404 no exchange '?"
    for arguments, why in (
        (close, "404 no exchange '?"),
        (close[:1], "arguments are shorter than a close needs"),
        (close[:6], "arguments are shorter than a close needs"),
    ):
        b.cut()
        b.connect()
        say(b, wire.method(0, "connection.close", arguments))
        b.run()
        assert not b.online and b.upstream.last_error == why


def test_octets_of_upstream_at_random():
    random = seeded()
    keys = ("blocks", "messages", "entries", "promised")
    for _ in range(20):
        b = None  # a board's memory is for one
        b = Bridged([{"queue": "telemetry", "window": 4, "retries": 0}], [dict(COMMANDS)])
        b.queue("telemetry")
        b.queue("commands")
        b.cloud_user.queue("telemetry", durable=1)
        b.cloud_user.queue("c", durable=1)
        b.start()
        free = b.edge.free()
        feed = b.client.feed

        def bad(buf, n):
            octets = bytearray(buf[:n])
            if random.randrange(2):
                for _ in range(random.randrange(1, 4)):
                    octets[random.randrange(n)] = random.choice((0, 1, 2, 3, 255, 60, 120))
            feed(memoryview(octets), n)  # noqa: B023

        b.client.feed = bad
        for k in range(6):
            if not b.online:
                b.connect()
            b.publish("telemetry", b"t%d" % k)
            send_down(b, "c" * random.choice((0, 3, 600)), given=wire.properties(headers={"a": 1}))
            b.wait(200)
        # Afterwards all goes on as ever, and nothing is missing.
        del b.client.feed
        b.cut()
        b.connect()
        b.wait(4000, 500)
        assert b.online, b.upstream.last_error
        b.publish("telemetry", b"after")
        assert b.bodies("telemetry")[-1:] == [b"after"]
        assert b.status()["backlog"] == b.status()["in_flight"] == b.status()["waiting"] == 0
        inside(b, "commands")
        inside(b, "telemetry.parked")
        b.run()
        now = b.edge.free()
        assert [now[key] for key in keys] == [free[key] for key in keys]
        for uplink in b.upstream.uplinks:
            assert uplink._flights.free == uplink._flights.size


# --- the status ---


def test_asking_for_the_status_harms_nobody():
    node = Node(json.dumps(dict(SMALL, log_level="warning")))
    telemetry = node.broker.queues[b"telemetry"]

    def ask(reply_to):
        node.publish("amq.status", "", b"", {"reply_to": reply_to})
        for _ in range(3):
            node.step()

    for reply_to in ("telemetry", "amq.status", b"\xff\xfe"):
        ask(reply_to)
    assert telemetry.waiting() == 1 and node.broker.queues[b"amq.status"].waiting() == 0
    # An address that is no text, when there is no room for an answer.
    node.broker.pool.available = 2
    ask(b"\xff\xfe")
    assert "no status for " in log.recent()[-1]

    # No memory for what it says, which is much.
    def starve():
        raise MemoryError

    node.status = starve
    ask("telemetry")
    assert log.recent()[-1] == "no status: out of memory"
    assert telemetry.waiting() == 1 and node.broker.queues[b"amq.status"].waiting() == 0
    node.close()


def test_dead_letters_that_lead_back_do_not_go_round():
    b = Bridged([{
        "queue": "telemetry", "exchange": "", "routing_key": "nowhere", "declare": "none",
        "retries": 0, "refused": "dead-letter", "dead_letter_exchange": "round",
    }])  # fmt: skip
    b.queue("telemetry")
    b.user.send(wire.declare_exchange(1, "round", "fanout"))
    b.user.send(wire.bind_queue(1, "telemetry", "round"))
    b.start()
    b.publish("telemetry", b"x")
    b.wait(10000)
    status = b.status()
    assert (status["sent"], status["dead_lettered"], status["waiting"]) == (1, 0, 1)
