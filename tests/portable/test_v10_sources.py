"""What a receiving peer of AMQP 1.0 may want of a source besides the next message."""

import wire
import wire10
from amqp_lite.v10.performatives import MODIFIED, REJECTED, RELEASED, described_value
from amqp_lite.v10.values import Described, Symbol
from clients10 import ask, deliveries, names, receiver, sender, session, take
from ramflash import RamFlash
from wire10 import message, transfer
from world import World

KEY = Symbol("apache.org:legacy-amqp-topic-binding:string")
TABLE = Symbol("apache.org:legacy-amqp-headers-binding:map")
SELECTOR = Symbol("apache.org:selector-filter:string")


def filters(descriptor, value):
    return {Symbol("f"): Described(descriptor, value)}


def publish(peer, number, body, key="a.b", durable=None, headers=None):
    """Through the anonymous terminus on handle 0."""
    to = "/exchanges/amq.topic/" + key
    found = ask(peer, transfer(message(body, durable=durable, to=to, headers=headers), number))
    return [row[2][4].descriptor for row in found if row[0] == "disposition"]


def bodies(found):
    return [octets[octets.rindex(b"\0\x53\x75") + 5 :] for _, _, octets in found]


def subscriber(world, container="box", **options):
    peer = session(world, container=container)
    given = {"durable": 2, "expiry": "never"}
    given.update(options)
    found = ask(peer, wire10.attach_receiver("sub", "/exchange/amq.topic/a.*", 1, **given))
    assert names(found) == ["attach"], found
    return peer


def credit(peer, n, count=0):
    return bodies(deliveries(ask(peer, wire10.credit(1, n, count))))


# --- subscriptions ---


def test_a_durable_subscription_collects_while_its_subscriber_is_away():
    world = World()
    free = world.free()
    peer = subscriber(world)
    assert sorted(world.broker.queues) == [b"box.sub"]
    other = session(world)
    sender(other, None)
    assert publish(other, 0, b"1", durable=True) == [0x24]
    assert credit(peer, 10) == [b"1"]
    ask(peer, wire10.disposition(0) + wire10.detach(1, closed=False))
    world.wait(2000)  # until that is on flash
    publish(other, 1, b"2", durable=True)
    peer.vanish()
    publish(other, 2, b"3", durable=True)
    world = world.restart()  # a power cut
    other = session(world)
    sender(other, None)
    publish(other, 0, b"4", durable=True)
    peer = subscriber(world)
    assert credit(peer, 10) == [b"2", b"3", b"4"]
    ask(peer, wire10.disposition(0, 2))
    found = ask(peer, wire10.detach(1, closed=True))
    assert names(found) == ["detach"]
    assert world.broker.queues == {}
    peer.vanish()
    other.vanish()
    assert world.free() == free


def test_another_topic_or_selector_is_another_subscription():
    world = World()
    peer = subscriber(world)
    other = session(world)
    sender(other, None)
    publish(other, 0, b"1")
    peer.vanish()
    peer = subscriber(world)
    assert world.broker.queues[b"box.sub"].waiting() == 1
    peer.vanish()
    peer = subscriber(world, filter=filters(SELECTOR, "a = 1"))
    assert world.broker.queues[b"box.sub"].waiting() == 0
    publish(other, 1, b"2", headers={"a": 1})
    publish(other, 2, b"3", headers={"a": 2})
    assert credit(peer, 10) == [b"2"]
    assert world.broker.queues[b"box.sub"].waiting() == 0
    peer.vanish()
    peer = subscriber(world, filter=filters(SELECTOR, "a = 1"))
    assert credit(peer, 10) == [b"2"]


def test_a_subscription_is_its_users_and_its_containers():
    world = World()
    subscriber(world).vanish()
    world.client().queue("box.plain", durable=1)
    peer = session(world, container="box")
    found = ask(peer, wire10.attach_receiver("plain", "/topic/x", durable=2, expiry="never"))
    assert wire10.error_of(found[1]) == "amqp:resource-locked"
    subscriber(world, container="other")
    assert sorted(world.broker.queues) == [b"box.plain", b"box.sub", b"other.sub"]


def test_a_subscriber_that_comes_back_steals_its_link():
    world = World()
    old = subscriber(world)
    subscriber(world)
    assert wire10.error_of(take(old)[0]) == "amqp:link:stolen"
    assert len(world.broker.queues[b"box.sub"].consumers) == 1


def test_a_timeout_begins_when_the_subscriber_leaves():
    world = World()
    peer = subscriber(world, durable=0, expiry=None, timeout=10)
    world.wait(12000)
    assert b"box.sub" in world.broker.queues
    peer.vanish()
    world.wait(8000)
    assert b"box.sub" in world.broker.queues
    subscriber(world, durable=0, expiry=None, timeout=10).vanish()
    world.wait(8000)
    assert b"box.sub" in world.broker.queues
    world.wait(4000)
    assert b"box.sub" not in world.broker.queues


def test_without_a_source_the_subscription_is_found_and_ended():
    world = World()
    subscriber(world).vanish()
    peer = session(world, container="box")
    found = ask(peer, wire10.attach_receiver("sub", wire10.NO_SOURCE, 1))
    assert names(found) == ["attach"]
    source = found[0][2][5].value
    assert source[:3] == ["/exchanges/amq.topic/a.%2A", 2, Symbol("never")]
    ask(peer, wire10.detach(1, closed=True))
    assert world.broker.queues == {}
    found = ask(peer, wire10.attach_receiver("sub", wire10.NO_SOURCE, 1))
    assert found[0][2][5] is None and wire10.error_of(found[1]) == "amqp:not-found"


def test_a_shared_subscription_is_refused():
    world = World()
    peer = session(world)
    options = {"durable": 2, "expiry": "never", "capability": "shared"}
    found = ask(peer, wire10.attach_receiver("sub", "/topic/a", 1, **options))
    assert names(found) == ["attach", "detach"]
    assert wire10.error_of(found[1]) == "amqp:not-implemented"
    assert world.broker.queues == {}


def test_a_topic_of_jms_is_a_key_of_amq_topic():
    world = World()
    peer = session(world)
    ask(peer, wire10.attach_receiver("down", "news", 1, capability="topic"))
    sender(peer, "news", capability="topic")
    ask(peer, transfer(message(b"1")))
    assert credit(peer, 1) == [b"1"]
    assert list(world.broker.queues)[0].startswith(b"amq.gen-")


# --- filters ---


def test_the_key_of_a_binding():
    world = World()
    peer = session(world)
    sender(peer, None)
    found = ask(peer, wire10.attach_receiver("down", "amq.topic", 1, filter=filters(KEY, "a.*")))
    assert found[0][2][5].value[7] == filters(KEY, "a.*")
    publish(peer, 0, b"1", "a.b")
    publish(peer, 1, b"2", "c.b")
    assert credit(peer, 5) == [b"1"]


def test_the_arguments_of_a_binding():
    world = World()
    peer = session(world)
    sender(peer, "amq.headers")
    table = filters(TABLE, {"x-match": "all", "room": "k1"})
    ask(peer, wire10.attach_receiver("down", "amq.headers", 1, filter=table))
    for k in range(2):
        ask(peer, transfer(message(b"%d" % k, headers={"room": "k%d" % k}), k))
    assert credit(peer, 5) == [b"1"]


def test_a_filter_we_do_not_have_is_left_out_of_the_answer():
    world = World()
    world.client().queue("q")
    peer = session(world)
    unknown = filters(Symbol("example.com:magic"), "x")
    found = ask(peer, wire10.attach_receiver("down", "q", 1, filter=unknown))
    assert names(found) == ["attach"] and found[0][2][5].value[7] == {}


def test_a_selector_that_cannot_be_read():
    world = World()
    world.client().queue("q")
    peer = session(world)
    found = ask(peer, wire10.attach_receiver("down", "q", 1, filter=filters(SELECTOR, "((((")))
    assert wire10.error_of(found[1]) == "amqp:invalid-field"


def test_a_selector_leaves_the_others_in_the_queue():
    world = World()
    old = world.client()
    old.queue("q", durable=1)
    for k in range(6):
        given = wire.properties(headers={"odd": k % 2 == 1}, delivery_mode=2)
        old.send(wire.publish(1, "", "q", b"%d" % k, given))
    for restarted in (False, True):
        if restarted:
            world = world.restart()
        peer = session(world)
        odd = filters(SELECTOR, "odd = TRUE")
        ask(peer, wire10.attach_receiver("down", "q", 1, filter=odd))
        octets = wire10.credit(1, 10, drain=True)
        found = ask(peer, octets)
        assert bodies(deliveries(found)) == [b"1", b"3", b"5"]
        assert names(found)[-1] == "flow"
        ask(peer, wire10.disposition(0, 2, RELEASED))
        peer.vanish()
    assert world.client().bodies(wire.get(1, "q")) == [b"0"]


# --- browsing ---


def test_browsing_takes_nothing():
    for durable in (0, 1):
        world = World(flash=RamFlash(28, 1024, 64))
        old = world.client()
        old.queue("q", durable=durable)
        free = world.free()
        many = 60 if durable else 6  # most of them on flash alone
        for k in range(many):
            old.send(wire.publish(1, "", "q", b"%d" % k, wire.properties(delivery_mode=2)))
        queue = world.broker.queues[b"q"]
        peer = session(world)
        expected = [b"%d" % k for k in range(many)]
        for _ in range(2):
            found = ask(peer, wire10.attach_receiver("down", "q", 1, mode="copy"))
            assert found[0][2][3] == 1  # settled
            got = credit(peer, 4)
            got += credit(peer, 100, 4)
            assert got == expected
            assert names(ask(peer, wire10.credit(1, 100, many, drain=True))) == ["flow"]
            ask(peer, wire10.detach(1))
        assert queue.waiting() == many and not queue.unacked
        # What comes later is shown, what a consumer takes is not missed.
        ask(peer, wire10.attach_receiver("down", "q", 1, mode="copy"))
        assert credit(peer, 2) == expected[:2]
        old.send(b"".join([wire.get(1, "q", no_ack=1) for _ in range(4)]))
        assert credit(peer, 1, 2) == [expected[4]]
        assert credit(peer, 100, 3) == expected[5:]
        old.send(wire.publish(1, "", "q", b"new", wire.properties(delivery_mode=2)))
        assert bodies(deliveries(take(peer))) == [b"new"]
        old.take()
        old.send(wire.purge_queue(1, "q"))
        peer.vanish()
        assert world.free() == free


def test_the_end_of_a_browsed_queue():
    world = World()
    old = world.client()
    old.queue("q")
    peer = session(world)
    ask(peer, wire10.attach_receiver("down", "q", 1, mode="copy"))
    old.send(wire.delete_queue(1, "q"))
    assert wire10.error_of(take(peer)[0]) == "amqp:resource-deleted"


# --- outcomes ---


def test_the_default_outcome():
    world = World()
    old = world.client()
    old.queue("q")
    for outcome, left, redelivered in (
        (None, 0, None), (RELEASED, 1, 0), (MODIFIED, 1, 1), (REJECTED, 0, None),
    ):  # fmt: skip
        old.take()
        old.send(wire.publish(1, "", "q", "x"))
        peer = session(world)
        failed = [True] if outcome == MODIFIED else []
        default = outcome and described_value(outcome, *failed)
        ask(peer, wire10.attach_receiver("down", "q", 1, default=default))
        assert credit(peer, 1) == [b"x"]
        ask(peer, wire10.disposition(0, state=None))
        peer.vanish()
        contents = old.contents(wire.get(1, "q", no_ack=1))
        assert len(contents) == left, outcome
        if left:
            assert contents[0][1][8] == redelivered


def test_the_default_outcome_of_a_link_that_is_lost():
    world = World()
    old = world.client()
    old.queue("q")
    old.send(wire.publish(1, "", "q", "x"))
    peer = session(world)
    ask(peer, wire10.attach_receiver("down", "q", 1, default=described_value(REJECTED)))
    assert credit(peer, 1) == [b"x"]
    peer.vanish()
    assert old.bodies(wire.get(1, "q")) == []
    assert world.broker.metrics.dropped_rejected == 1


# --- dynamic targets, addresses that make queues ---


def test_a_dynamic_target():
    world = World()
    free = world.free()
    peer = session(world)
    found = ask(peer, wire10.attach_sender("up", None, dynamic=True))
    address = found[0][2][6].value[0]
    ask(peer, transfer(message(b"1")))
    assert bodies(receiver(peer, address, 1)) == [b"1"]
    ask(peer, wire10.disposition(0) + wire10.detach(0))
    assert world.broker.queues == {}
    peer.vanish()
    assert world.free() == free


def test_a_temporary_topic():
    world = World()
    peer = session(world)
    found = ask(peer, wire10.attach_sender("up", None, dynamic=True, capability="temporary-topic"))
    address = found[0][2][6].value[0]
    for handle in (1, 2):
        ask(peer, wire10.attach_receiver("down%d" % handle, address, handle))
    octets = wire10.credit(1, 1) + wire10.credit(2, 1) + transfer(message(b"1"))
    assert bodies(deliveries(ask(peer, octets))) == [b"1", b"1"]


def test_plain_addresses_make_queues_where_that_is_on():
    world = World(auto_declare=1)
    peer = session(world)
    sender(peer, "new")
    assert world.broker.queues[b"new"].durable
    peer = session(world)
    ask(peer, wire10.attach_receiver("down", "other", 1))
    assert b"other" in world.broker.queues
    for address in ("/queues/v2", "amq.own"):
        found = ask(peer, wire10.attach_receiver(address, address, 2))
        assert names(found) == ["attach", "detach"], found
        ask(peer, wire10.detach(2))
    assert sorted(world.broker.queues) == [b"new", b"other"]
