"""Counters and clocks that run over: everything goes on as before."""

import wire
from amqp_lite.compat import MICROPYTHON, ticks_add
from world import World, tag_of


def near_the_end():
    """A world whose clock starts again from 0 in 10 s, where clocks do."""
    world = World()
    world.broker.now = ticks_add(0, -10000) if MICROPYTHON else 1000
    return world


def test_delivery_tags_beyond_32_bits():
    world = World()
    peer = world.client()
    peer.queue("q")
    channel = peer.engine.channels[1]
    for start in (0x3FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFFFF, 0x7FFFFFFFFFFFFFF0):
        channel._delivery_tag = start - 1
        for k in range(3):
            peer.send(wire.publish(1, "", "q", "%d" % k))
        tags = [tag_of(content) for content in peer.contents(wire.get(1, "q") * 3)]
        assert tags == [start, start + 1, start + 2]
        peer.send(wire.ack(1, start + 1) + wire.reject(1, start) + wire.nack(1, start + 2))
        assert peer.bodies(wire.get(1, "q") * 2) == [b"0", b"2"]
        peer.send(wire.ack(1, start + 4, multiple=1))
        assert world.broker.pool.available == 192
    assert peer.works()


def test_confirms_beyond_32_bits():
    peer = World().client()
    peer.queue("q")
    peer.ask(wire.select_confirms(1))
    channel = peer.engine.channels[1]
    channel.published = channel.confirmed = 0xFFFFFFFE
    for k in (0xFFFFFFFF, 0x100000000):
        frames = peer.ask(wire.publish(1, "", "q", "x"))
        assert frames == [(1, "basic.ack", k.to_bytes(8, "big") + b"\1")]


def test_routes_are_found_where_their_stamps_start_again():
    world = World()
    peer = world.client()
    peer.queue("q")
    peer.ask(wire.bind_queue(1, "q", "amq.topic", "a.#"))
    world.broker._visit = 0x3FFFFFFD
    world.broker._routes._stamp = 0x3FFFFFFB
    for k in range(8):
        peer.ask(
            wire.publish(1, "amq.topic", "a.%d" % k, "x") + wire.bind_queue(1, "q", "amq.topic")
        )
        assert peer.bodies(wire.get(1, "q")) == [b"x"], k


def test_output_is_counted_where_the_count_starts_again():
    world = World()
    peer = world.client()
    peer.queue("q")
    peer.engine.output.written = 0x3FFFFFFF - 300
    peer.ask(wire.consume(1, "q", "c"))
    for k in range(1, 6):
        assert peer.bodies(wire.publish(1, "", "q", "x" * 100)) == [b"x" * 100]
        peer.send(wire.ack(1, k))
    output = peer.engine.output
    assert output.written < 2000
    assert output.written - output.proven < 100


def test_heartbeats_where_the_clock_starts_again():
    world = near_the_end()
    peer = world.connect().login(heartbeat=10).open(1)
    for _ in range(6):
        world.wait(4000)
        peer.send(wire.HEARTBEAT)
    assert peer.names().count("heartbeat") >= 3
    world.wait(20500)
    assert peer.gone


def test_deadlines_of_a_login_where_the_clock_starts_again():
    world = near_the_end()
    world.wait(5000)
    peer = world.connect()
    world.wait(9500)
    assert not peer.gone
    world.wait(750)
    assert peer.gone


def test_messages_and_queues_expire_where_the_clock_starts_again():
    world = near_the_end()
    peer = world.client()
    peer.queue("q", arguments={"x-message-ttl": 20000})
    peer.queue("r", arguments={"x-expires": 20000})
    peer.send(wire.publish(1, "", "q", "old"))
    world.wait(15000)
    peer.send(wire.publish(1, "", "q", "new"))
    world.wait(4000)
    assert sorted(world.broker.queues) == [b"q", b"r"]
    assert world.broker.queue(b"q").ready.count == 2
    world.wait(2000)
    assert sorted(world.broker.queues) == [b"q"]
    assert peer.bodies(wire.get(1, "q")) == [b"new"]


def test_penalties_where_the_clock_starts_again():
    world = near_the_end()
    for delay in (500, 1000, 2000, 4000, 8000):
        peer = world.connect()
        peer.ask(wire.start_ok("\0guest\0wrong"))
        world.wait(delay - 250)
        assert peer.names() == [], delay
        world.wait(250)
        assert peer.names() == ["connection.close"], delay
        peer.vanish()
