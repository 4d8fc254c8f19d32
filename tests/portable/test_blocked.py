"""No memory left: the publisher waits, is told when that lasts, goes on, and nothing is lost."""

import wire
from world import World


def bodies(peer):
    return [payload for _, name, payload in peer.take() if name == "body"]


def fill(world, peer, octets):
    """Publish until the engine stalls: the number of messages taken."""
    for k in range(500):
        peer.send(octets(k))
        if peer.engine.stalled:
            return k
    assert False, "never stalls"


def test_a_publisher_waits_for_blocks_and_goes_on_when_there_are_some():
    world = World()
    consumer = world.client()
    consumer.queue("q")
    peer = world.client()
    peer.ask(wire.select_confirms(1))
    taken = fill(world, peer, lambda k: wire.publish(1, "", "q", bytes([k]) * 1500))
    assert 14 <= taken <= 16
    assert peer.names() == ["basic.ack"] * taken
    world.wait(250)
    assert peer.names() == ["connection.blocked"]
    peer.send(wire.publish(1, "", "q", bytes([taken + 1]) * 1500))
    assert peer.unsent()
    consumer.send(wire.consume(1, "q", "c", no_ack=1))
    assert [body[0] for body in bodies(consumer) if body[0] == body[-1]][0] == 0
    assert peer.names() in (["connection.unblocked", "basic.ack"],
                            ["connection.unblocked", "basic.ack", "basic.ack"])  # fmt: skip
    assert not peer.engine.stalled and not peer.unsent()
    consumer.send(wire.cancel(1, "c"))
    assert world.broker.queue(b"q").ready.count == 0
    assert world.broker.pool.available == 192


def test_a_publisher_that_waits_a_moment_only_is_told_nothing():
    world = World(messages=5)
    peer = world.client()
    peer.queue("q")
    assert fill(world, peer, lambda k: wire.publish(1, "", "q", "x")) == 5
    world.client().send(wire.purge_queue(1, "q"))
    world.wait(250)
    assert peer.names() == []
    assert world.broker.queue(b"q").ready.count == 1


def test_nothing_is_lost_and_the_order_stays():
    world = World()
    consumer = world.client()
    consumer.queue("q")
    peer = world.client()
    sent = 0
    got = []
    for _ in range(6):
        for _ in range(40):
            peer.send(wire.publish(1, "", "q", b"%d." % sent + b"x" * 600))
            sent += 1
        world.wait(250)
        consumer.send(wire.get(1, "q", no_ack=1) * 43)
        got += [int(body.split(b".")[0]) for body in bodies(consumer)]
    while len(got) < sent:
        before = len(got)
        consumer.send(wire.get(1, "q", no_ack=1) * 5)
        got += [int(body.split(b".")[0]) for body in bodies(consumer)]
        assert len(got) > before
    assert got == list(range(sent))
    assert world.broker.metrics.blocked > 0
    names = peer.names()
    assert names.count("connection.blocked") == names.count("connection.unblocked")
    assert world.broker.pool.available == 192


def test_a_publisher_waits_for_messages_and_for_deliveries_as_well():
    for numbers in ({"messages": 10}, {"deliveries": 10}):
        world = None
        world = World(**numbers)
        consumer = world.client()
        consumer.queue("q")
        peer = world.client()
        assert fill(world, peer, lambda k: wire.publish(1, "", "q", "%d" % k)) == 10
        world.wait(250)
        consumer.send(wire.consume(1, "q", "c"))
        assert peer.names() == ["connection.blocked"]
        consumer.send(wire.ack(1, 1))
        assert peer.names() == ["connection.unblocked"]
        assert bodies(consumer) == [b"%d" % k for k in range(11)]


def test_a_publisher_that_cannot_be_told_waits_in_silence():
    world = World(messages=5)
    peer = world.connect().login(capabilities=()).open(1)
    peer.queue("q")
    assert fill(world, peer, lambda k: wire.publish(1, "", "q", "x")) == 5
    world.wait(1000)
    other = world.client()
    other.send(wire.purge_queue(1, "q"))
    assert peer.names() == []
    assert not peer.engine.stalled


def test_waiting_publishers_share_what_becomes_free():
    world = World(messages=8)
    reader = world.client()
    reader.queue("q")
    peers = [world.client(), world.client()]
    for peer in peers:
        for _ in range(12):
            peer.send(wire.publish(1, "", "q", "x"))
    world.wait(250)
    for _ in range(40):
        reader.send(wire.get(1, "q", no_ack=1))
    assert len(bodies(reader)) == 24
    for peer in peers:
        assert not peer.engine.stalled
        names = peer.names()
        assert names.count("connection.blocked") == names.count("connection.unblocked")


def test_two_half_messages_never_wait_for_each_other():
    # Room for the whole body is taken with its header, so one of the two always gets through.
    world = World(blocks=70)
    reader = world.client()
    reader.queue("q")
    before = world.free()
    one = world.client()
    two = world.client()
    for peer in (one, two):
        peer.send(wire.publish_method(1, "", "q") + wire.header(1, 6000))
    assert not one.engine.stalled and two.engine.stalled
    for _ in range(6):
        for peer in (one, two):
            peer.send(wire.body(1, b"b" * 1000))
    reader.send(wire.get(1, "q", no_ack=1))
    reader.send(wire.get(1, "q", no_ack=1))
    names = reader.names()
    assert names.count("basic.get-ok") == 2
    one.vanish()
    two.vanish()
    assert world.free() == before


def test_a_blocked_publisher_is_not_cut_for_its_silence():
    # The broker does not read from it: its heartbeats wait in the network.
    world = World(messages=5)
    peer = world.connect().login(heartbeat=10).open(1)
    reader = world.client()
    peer.queue("q")
    fill(world, peer, lambda k: wire.publish(1, "", "q", "x"))
    for _ in range(20):
        world.wait(10000)
        peer.take()
    assert not peer.gone
    reader.send(wire.purge_queue(1, "q"))
    world.wait(5000)
    assert not peer.gone
    peer.take()
    assert peer.works()


def test_a_waiting_publisher_that_goes_leaves_nothing():
    world = World(messages=6)
    reader = world.client()
    before = world.free()
    reader.queue("q")
    peer = world.client().open(2)
    fill(world, peer, lambda k: wire.publish(1 + k % 2, "", "q", "x"))
    peer.vanish()
    assert reader.names(wire.delete_queue(1, "q")) == ["queue.delete-ok"]
    assert world.free() == before


def test_memory_that_another_peer_frees_by_leaving_counts_too():
    world = World(messages=6)
    holder = world.client()
    holder.queue("mine", exclusive=1)
    peer = world.client()
    peer.queue("q")
    for _ in range(4):
        holder.send(wire.publish(1, "", "mine", "x"))
    assert fill(world, peer, lambda k: wire.publish(1, "", "q", "x")) == 2
    world.wait(250)
    holder.vanish()
    assert peer.names() == ["connection.blocked", "connection.unblocked"]
    assert world.broker.queue(b"q").ready.count == 3


def test_a_route_another_publish_took_the_place_of_is_no_promise():
    # Between publish and header its place in the cache may be another key's, with fewer queues.
    world = World(deliveries=4, routes=1)
    reader = world.client()
    for name in ("a", "b", "c"):
        reader.queue(name)
        reader.ask(wire.bind_queue(1, name, "amq.fanout"))
    peer = world.client()
    peer.send(wire.publish_method(1, "amq.fanout", ""))
    reader.ask(wire.publish(1, "", "a", "1") + wire.publish(1, "", "a", "2"))
    peer.send(wire.header(1, 4) + wire.body(1, b"here"))
    assert peer.engine.stalled
    reader.ask(wire.purge_queue(1, "a"))
    assert not peer.engine.stalled
    for name in ("a", "b", "c"):
        assert reader.bodies(wire.get(1, name)) == [b"here"]
    assert world.broker.metrics.dropped_no_room == 0
