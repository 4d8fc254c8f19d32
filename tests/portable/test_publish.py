"""Publishing: confirms, returns, what waits for room and what is refused."""

import struct

import wire
from world import World, contents


def confirms(frames):
    """[(name, sequence, multiple or requeue)] of the acks and nacks among *frames*."""
    return [
        (name, struct.unpack(">Q", payload[:8])[0], payload[8])
        for _, name, payload in frames
        if name in ("basic.ack", "basic.nack")
    ]


def test_a_publish_without_confirms_is_answered_with_nothing():
    peer = World().client()
    peer.queue("q")
    assert peer.names(wire.publish(1, "", "q", "x") + wire.publish(1, "", "no", "x")) == []


def test_each_publish_is_confirmed():
    peer = World().client()
    peer.queue("q")
    assert peer.names(wire.select_confirms(1)) == ["confirm.select-ok"]
    for k in range(1, 4):
        assert confirms(peer.ask(wire.publish(1, "", "q", "x"))) == [(("basic.ack"), k, 1)]


def test_publishes_that_came_together_are_confirmed_together():
    peer = World().client()
    peer.queue("q")
    peer.ask(wire.select_confirms(1))
    assert confirms(peer.ask(wire.publish(1, "", "q", "x") * 5)) == [("basic.ack", 5, 1)]
    # An unroutable message is confirmed as well: it has been dealt with.
    assert confirms(peer.ask(wire.publish(1, "", "no", "x"))) == [("basic.ack", 6, 1)]


def test_each_channel_counts_its_own():
    peer = World().client().open(2)
    peer.queue("q")
    peer.ask(wire.select_confirms(1) + wire.publish(1, "", "q", "x"))
    peer.ask(wire.publish(2, "", "q", "before"))
    peer.ask(wire.select_confirms(2))
    frames = peer.ask(wire.publish(2, "", "q", "x") + wire.publish(1, "", "q", "x"))
    assert sorted([(channel, struct.unpack(">Q", payload[:8])[0])
                   for channel, _, payload in frames]) == [(1, 2), (2, 1)]  # fmt: skip


def test_nothing_is_confirmed_before_the_store_has_committed():
    world = World()
    peer = world.client()
    peer.queue("q", durable=1)
    peer.ask(wire.select_confirms(1))
    octets = wire.publish(1, "", "q", "x", wire.properties(delivery_mode=2))
    engine = peer.engine
    engine.feed(memoryview(octets), len(octets))
    assert engine.output.pending == 0
    assert world.broker.store.ring.uncommitted
    world.run()
    assert confirms(peer.take()) == [("basic.ack", 1, 1)]


def test_a_queue_that_refuses_is_a_nack():
    peer = World().client()
    peer.queue("q", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    peer.queue("other")
    peer.ask(wire.select_confirms(1))
    full = wire.publish(1, "", "q", "x")
    assert confirms(peer.ask(full)) == [("basic.ack", 1, 1)]
    assert confirms(peer.ask(full)) == [("basic.nack", 2, 0)]
    frames = peer.ask(full + wire.publish(1, "", "other", "x") + full + full)
    nacks = [row for row in confirms(frames) if row[0] == "basic.nack"]
    assert nacks == [("basic.nack", 3, 0), ("basic.nack", 5, 0), ("basic.nack", 6, 0)]
    acks = [row for row in confirms(frames) if row[0] == "basic.ack"]
    assert acks and acks[-1][1] >= 4


def test_a_nack_of_one_is_never_an_ack_of_it():
    # A client sets aside what it heard of first; so the nack comes before an ack that includes it.
    peer = World().client()
    peer.queue("q", arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    peer.ask(wire.select_confirms(1))
    verdicts = {}
    for name, sequence, multiple in confirms(peer.ask(wire.publish(1, "", "q", "x") * 6)):
        for k in range(1 if multiple and name == "basic.ack" else sequence, sequence + 1):
            verdicts.setdefault(k, name)
    assert [verdicts[k] for k in range(1, 7)] == ["basic.ack"] * 2 + ["basic.nack"] * 4


def test_a_mandatory_message_nobody_wants_comes_back_before_its_confirm():
    peer = World().client()
    peer.ask(wire.select_confirms(1))
    octets = wire.publish(1, "amq.topic", "no.where", "body", wire.properties(message_id="m"), 1)
    frames = peer.ask(octets)
    assert [name for _, name, _ in frames] == ["basic.return", "header", "body", "basic.ack"]
    assert frames[0][2][:2] == b"\x01\x38"  # 312
    assert wire.strings(frames[0][2], 2, 3) == [b"NO_ROUTE", b"amq.topic", b"no.where"]
    assert frames[1][2][12:] == wire.properties(message_id="m")
    assert frames[2][2] == b"body"


def test_a_mandatory_message_somebody_wants_does_not_come_back():
    peer = World().client()
    peer.queue("q")
    assert peer.names(wire.publish(1, "", "q", "x", mandatory=1)) == []
    assert peer.names(wire.publish(1, "", "no", "x")) == []


def test_returns_of_any_size_come_back_whole_and_in_order():
    world = World()
    peer = world.client()
    before = world.free()
    peer.ask(wire.select_confirms(1))
    peer.reading = False
    bodies = [b"1" * 5000, b"", b"3", b"4" * 2000, b"5" * 300]
    for body in bodies:
        peer.send(wire.publish(1, "amq.fanout", "k" * 255, body, mandatory=1))
    peer.reading = True
    world.run()
    frames = peer.take()
    assert confirms(frames) == [("basic.ack", 5, 1)]
    assert frames[-1][1] == "basic.ack"
    assert [content[4] for content in contents(frames[:-1])] == bodies
    assert world.free() == before


def test_a_refused_message_is_not_returned_as_unroutable():
    peer = World().client()
    peer.queue("q", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    peer.ask(wire.select_confirms(1))
    assert peer.names(wire.publish(1, "", "q", "x", mandatory=1)) == ["basic.nack"]


def test_empty_messages_and_long_keys_go_around():
    peer = World().client()
    name = "q" * 255
    peer.queue(name)
    peer.send(wire.publish(1, "", name, ""))
    contents = peer.contents(wire.get(1, name))
    assert [content[4] for content in contents] == [b""]
    assert wire.strings(contents[0][1], 9, 2) == [b"", name.encode()]


def test_metrics_count_what_happened():
    world = World()
    peer = world.client()
    peer.queue("q")
    peer.send(wire.select_confirms(1) + wire.publish(1, "", "q", "x") * 3)
    peer.send(wire.publish(1, "", "no", "x", mandatory=1))
    peer.send(wire.consume(1, "q", "c") + wire.ack(1, 1) + wire.reject(1, 2, requeue=0))
    peer.send(wire.nack(1, 3))
    counted = world.broker.metrics.snapshot()
    for name, count in (("published", 4), ("confirmed", 4), ("unroutable", 1), ("returned", 1),
                        ("delivered", 4), ("acknowledged", 1), ("dropped_rejected", 1),
                        ("redelivered", 1), ("connections_opened", 1)):  # fmt: skip
        assert counted[name] == count, (name, counted[name])
