"""Every table at its end: the peer hears 506, nothing is half made, and the neighbour goes on."""

import wire
from arena import Arena


def storm(arena, one, most):
    """Send one(0), one(1) ... until the broker has enough: how many it took. *most* bounds it."""
    peer = arena.world.client()
    for k in range(most):
        refused = peer.refused(one(k))
        if refused:
            assert refused == ("connection", 506)
            peer.send(wire.method(0, "connection.close-ok"))
            assert peer.gone
            assert arena.neighbour.works()
            arena.clear()
            assert arena.world.free() == arena.before
            return k
    assert False, "no limit"


def test_a_queue_storm_ends_with_the_table():
    arena = Arena()
    # "works" of the neighbour needs one as well: its check comes after the peer's are gone.
    assert storm(arena, lambda k: wire.declare_queue(1, "q%d" % k, exclusive=1), 20) == 16


def test_a_storm_of_server_named_queues_ends_with_the_table():
    assert storm(Arena(), lambda k: wire.declare_queue(1, "", exclusive=1), 20) == 16


def test_an_exchange_storm_ends_with_the_table():
    assert storm(Arena(), lambda k: wire.declare_exchange(1, "x%d" % k, "topic"), 20) == 6


def test_a_binding_storm_ends_with_the_table():
    def bind(k):
        queue = wire.declare_queue(1, "q", exclusive=1) if not k else b""
        return queue + wire.bind_queue(1, "q", "amq.topic", "key.%d" % k)

    assert storm(Arena(), bind, 40) == 32


def test_a_consumer_storm_ends_with_the_table():
    def consume(k):
        queue = wire.declare_queue(1, "q", exclusive=1) if not k else b""
        return queue + wire.consume(1, "q")

    assert storm(Arena(), consume, 20) == 16


def test_a_storm_of_reply_consumers_ends_with_the_table():
    def consume(k):
        opened = wire.open_channel(k + 1) if k else b""
        return opened + wire.consume(k + 1, "amq.rabbitmq.reply-to", no_ack=1)

    assert storm(Arena(channels=12, consumers=5), consume, 20) == 5
    assert storm(Arena(channels=20, queues=5), consume, 20) == 5


def test_a_channel_storm_ends_with_the_table():
    # Each connection may have as many channels as there are, but all of them together not more.
    arena = Arena(channels=5)
    assert storm(arena, lambda k: wire.open_channel(k + 2), 9) == 3


def test_a_message_storm_makes_the_publisher_wait_and_nobody_else():
    arena = Arena()
    peer = arena.world.client()
    peer.queue("q", exclusive=1)
    octets = wire.publish(1, "", "q", "x" * 100)
    taken = 0
    while not peer.send(octets).engine.stalled:
        taken += 1
    assert 60 <= taken <= 64
    assert peer.send(octets).unsent()
    arena.world.wait(250)
    assert peer.names() == ["connection.blocked"]
    other = arena.world.client()
    assert other.names(wire.declare_queue(1, "other") + wire.get(1, "other")) == [
        "queue.declare-ok", "basic.get-empty",
    ]  # fmt: skip
    other.vanish()
    peer.vanish()
    assert arena.neighbour.works()
    arena.clear()
    assert arena.world.free() == arena.before


def test_deliveries_of_a_fanout_are_counted_before_the_message_is_taken():
    arena = Arena(deliveries=10, queues=16)
    peer = arena.world.client()
    for k in range(4):
        peer.queue("q%d" % k)
        peer.send(wire.bind_queue(1, "q%d" % k, "amq.fanout"))
    peer.take()
    octets = wire.publish(1, "amq.fanout", "", "x")
    assert peer.names(octets + octets) == []
    assert arena.world.broker.entries.free == 2
    peer.send(octets)
    arena.world.wait(250)
    assert peer.names() == ["connection.blocked"]
    for k in range(4):
        assert arena.world.broker.queue(b"q%d" % k).ready.count == 2
    arena.neighbour.send(wire.purge_queue(1, "q0") + wire.purge_queue(1, "q1"))
    assert peer.names() == ["connection.unblocked"]
    for k in range(4):
        assert arena.world.broker.queue(b"q%d" % k).ready.count == (1 if k < 2 else 3)
    peer.vanish()
    arena.clear()
    assert arena.world.free() == arena.before


def test_patterns_of_nothing_but_hashes_take_no_longer_than_others():
    arena = Arena()
    peer = arena.world.client()
    pattern = ".".join(["#"] * 125 + ["z"])
    for k in range(32):
        peer.send(wire.declare_queue(1, "q%d" % (k % 4)))
        peer.send(wire.bind_queue(1, "q%d" % (k % 4), "amq.topic", "%s%d" % (pattern, k)))
    key = ".".join(["a"] * 128)
    for k in range(3):
        peer.send(wire.publish(1, "amq.topic", key[k:], "x"))
    assert arena.world.broker.metrics.unroutable == 3
    peer.vanish()
    arena.clear()
    assert arena.world.free() == arena.before


def test_a_cycle_of_exchanges_delivers_once():
    arena = Arena()
    peer = arena.world.client()
    for name in ("x", "y", "z"):
        peer.send(wire.declare_exchange(1, name, "fanout"))
    for source, destination in (("x", "y"), ("y", "z"), ("z", "x"), ("x", "x")):
        peer.send(wire.bind_exchange(1, destination, source))
    peer.queue("q")
    peer.send(wire.bind_queue(1, "q", "z"))
    peer.take()
    assert peer.bodies(wire.publish(1, "y", "k", "once") + wire.get(1, "q")) == [b"once"]
    assert peer.names(wire.get(1, "q")) == ["basic.get-empty"]
    peer.vanish()
    arena.clear()
    assert arena.world.free() == arena.before


def test_dead_letter_exchanges_are_no_promise_this_broker_makes():
    octets = wire.declare_queue(1, "q", arguments={"x-dead-letter-exchange": "x"})
    assert Arena().answers(octets) == "channel 406"
