"""Consuming: prefetch, acknowledgement, requeue, recover, get, cancel."""

import wire
from world import World, is_redelivered, tag_of


def prepare(count, **options):
    """A world and a peer with *count* messages in its queue."""
    world = World()
    peer = world.client()
    peer.queue("q", **options)
    for k in range(count):
        peer.send(wire.publish(1, "", "q", "%d" % k))
    return world, peer


def bodies(frames):
    """The bodies of the contents among *frames*, which may hold other methods, too."""
    return [payload for _, name, payload in frames if name == "body"]


def test_a_delivery_says_where_it_comes_from():
    world, peer = prepare(0)
    given = wire.properties(content_type="text/plain", headers={"a": 1}, message_id="m")
    peer.ask(wire.bind_queue(1, "q", "amq.topic", "a.#"))
    peer.ask(wire.consume(1, "q", "my tag"))
    contents = peer.contents(wire.publish(1, "amq.topic", "a.b", "x", given))
    assert contents == [(
        "basic.deliver",
        b"\x06my tag" + b"\0\0\0\0\0\0\0\1" + b"\0" + b"\x09amq.topic" + b"\x03a.b",
        1, given, b"x",
    )]  # fmt: skip


def test_a_get_says_how_many_are_left():
    world, peer = prepare(3)
    for left in (2, 1, 0):
        content = peer.contents(wire.get(1, "q"))[0]
        assert content[0] == "basic.get-ok"
        assert content[1][-4:] == bytes([0, 0, 0, left])
    assert peer.names(wire.get(1, "q")) == ["basic.get-empty"]


def test_deliveries_come_in_order_until_prefetch_is_reached():
    world, peer = prepare(6)
    peer.ask(wire.qos(1, 3))
    frames = peer.ask(wire.consume(1, "q", "c"))
    assert bodies(frames) == [b"0", b"1", b"2"]
    assert bodies(peer.ask(wire.ack(1, 2))) == [b"3"]
    assert bodies(peer.ask(wire.ack(1, 3, multiple=1))) == [b"4", b"5"]


def test_prefetch_counts_for_each_consumer_alone():
    world, peer = prepare(6)
    peer.ask(wire.qos(1, 1) + wire.consume(1, "q", "a"))
    frames = peer.ask(wire.qos(1, 2) + wire.consume(1, "q", "b"))
    assert bodies(frames) == [b"1", b"2"]


def test_prefetch_of_the_whole_channel_counts_for_all_consumers():
    world, peer = prepare(6)
    peer.ask(wire.qos(1, 3, whole_channel=1))
    assert bodies(peer.ask(wire.consume(1, "q", "a") + wire.consume(1, "q", "b"))) == [
        b"0", b"1", b"2",
    ]  # fmt: skip
    assert bodies(peer.ask(wire.ack(1, 1))) == [b"3"]


def test_a_larger_prefetch_lets_more_through_at_once():
    world, peer = prepare(4)
    peer.ask(wire.qos(1, 1, whole_channel=1) + wire.consume(1, "q", "a"))
    assert bodies(peer.ask(wire.qos(1, 3, whole_channel=1))) == [b"1", b"2"]
    assert bodies(peer.ask(wire.qos(1, 0, whole_channel=1))) == [b"3"]


def test_without_acknowledgement_nothing_is_held():
    world, peer = prepare(3)
    assert bodies(peer.ask(wire.qos(1, 1) + wire.consume(1, "q", "c", no_ack=1))) == [
        b"0", b"1", b"2",
    ]  # fmt: skip
    assert world.broker.pool.available == 192
    assert peer.refused(wire.ack(1, 1)) == ("channel", 406)


def test_a_message_given_back_comes_again_marked_and_in_its_place():
    world, peer = prepare(3)
    other = world.client()
    peer.ask(wire.qos(1, 2) + wire.consume(1, "q", "c"))
    peer.ask(wire.cancel(1, "c"))
    peer.ask(wire.reject(1, 2) + wire.nack(1, 1))
    contents = other.contents(wire.get(1, "q") + wire.get(1, "q") + wire.get(1, "q"))
    assert [(content[4], is_redelivered(content)) for content in contents] == [
        (b"0", True), (b"1", True), (b"2", False),
    ]  # fmt: skip


def test_a_message_not_given_back_is_gone():
    world, peer = prepare(3)
    before = world.broker.pool.available
    peer.ask(wire.get(1, "q") + wire.get(1, "q") + wire.get(1, "q"))
    peer.ask(wire.reject(1, 1, requeue=0) + wire.nack(1, 3, multiple=1, requeue=0))
    assert world.broker.pool.available == before + 3 == 192
    assert world.broker.metrics.dropped_rejected == 3


def test_nack_multiple_gives_all_of_them_back_in_order():
    world, peer = prepare(5)
    peer.ask(wire.get(1, "q") * 4)
    peer.ask(wire.nack(1, 3, multiple=1))
    assert bodies(peer.ask(wire.get(1, "q") * 4)) == [b"0", b"1", b"2", b"4"]
    peer.ask(wire.nack(1, 0, multiple=1))
    assert bodies(peer.ask(wire.get(1, "q") * 6)) == [b"0", b"1", b"2", b"3", b"4"]


def test_acknowledging_tag_0_multiple_is_all_there_are():
    world, peer = prepare(3)
    peer.ask(wire.get(1, "q") * 3)
    assert peer.ask(wire.ack(1, 0, multiple=1)) == []
    assert world.broker.pool.available == 192


def test_several_queues_are_acknowledged_at_once():
    world, peer = prepare(2)
    peer.queue("r")
    peer.send(wire.publish(1, "", "r", "r0") + wire.publish(1, "", "r", "r1"))
    peer.ask(wire.qos(1, 1) + wire.consume(1, "q", "a") + wire.consume(1, "r", "b"))
    assert sorted(bodies(peer.ask(wire.ack(1, 2, multiple=1)))) == [b"1", b"r1"]


def test_recover_gives_everything_back():
    world, peer = prepare(3)
    peer.ask(wire.consume(1, "q", "c"))
    names = peer.names(wire.recover(1))
    assert names.count("basic.recover-ok") == 1 and names.count("basic.deliver") == 3
    contents = peer.contents(wire.method(1, "basic.recover-async", wire.bits(1)))
    assert [content[4] for content in contents] == [b"0", b"1", b"2"]
    assert [tag_of(content) for content in contents] == [7, 8, 9]
    assert [is_redelivered(content) for content in contents] == [True] * 3


def test_a_cancelled_consumer_gets_nothing_more_and_still_acknowledges():
    world, peer = prepare(2)
    peer.ask(wire.qos(1, 1) + wire.consume(1, "q", "c"))
    assert peer.ask(wire.cancel(1, "c")) == [(1, "basic.cancel-ok", b"\1c")]
    assert peer.ask(wire.ack(1, 1)) == []
    assert world.broker.queue(b"q").ready.count == 1
    assert peer.ask(wire.cancel(1, "c")) == [(1, "basic.cancel-ok", b"\1c")]


def test_a_consumer_without_a_tag_gets_one():
    world, peer = prepare(0)
    tags = [wire.strings(payload, 0, 1)[0] for _, _, payload in peer.ask(
        wire.consume(1, "q") + wire.consume(1, "q")
    )]  # fmt: skip
    assert len(set(tags)) == 2 and all(tags)


def test_the_queue_declared_last_is_meant_by_an_empty_name():
    world, peer = prepare(1)
    assert peer.bodies(wire.get(1, "")) == [b"0"]
    assert peer.names(wire.purge_queue(1, "")) == ["queue.purge-ok"]


def test_a_server_named_queue_tells_its_name():
    world, peer = prepare(0)
    one, two = peer.queue(""), peer.queue("")
    assert one.startswith(b"amq.gen-") and one != two
    assert peer.names(wire.publish(1, "", one, "x") + wire.get(1, one))[0] == "basic.get-ok"


def test_declare_purge_and_delete_count_messages_and_consumers():
    world, peer = prepare(3)
    other = world.client()
    other.ask(wire.qos(1, 1) + wire.consume(1, "q", "c"))
    assert peer.ask(wire.declare_queue(1, "q", passive=1))[0][2] == b"\1q\0\0\0\2\0\0\0\1"
    assert peer.refused(wire.delete_queue(1, "q", if_unused=1)) == ("channel", 406)
    peer.send(wire.method(1, "channel.close-ok")).open(1)
    assert peer.refused(wire.delete_queue(1, "q", if_empty=1)) == ("channel", 406)
    peer.send(wire.method(1, "channel.close-ok")).open(1)
    assert peer.ask(wire.purge_queue(1, "q")) == [(1, "queue.purge-ok", b"\0\0\0\2")]
    assert peer.ask(wire.delete_queue(1, "q")) == [(1, "queue.delete-ok", b"\0\0\0\0")]
    assert peer.ask(wire.delete_queue(1, "q")) == [(1, "queue.delete-ok", b"\0\0\0\0")]


def test_nowait_is_answered_with_nothing():
    world, peer = prepare(0)
    assert peer.names(
        wire.declare_queue(1, "n", nowait=1)
        + wire.declare_exchange(1, "x", "topic", nowait=1)
        + wire.consume(1, "n", "c", nowait=1)
        + wire.method(1, "confirm.select", wire.bits(1))
        + wire.method(1, "basic.cancel", wire.short("c"), wire.bits(1))
    ) == []  # fmt: skip


def test_a_message_in_several_queues_is_stored_once():
    world, peer = prepare(0)
    for name in ("a", "b", "c"):
        peer.queue(name)
        peer.send(wire.bind_queue(1, name, "amq.fanout"))
    peer.ask(wire.publish(1, "amq.fanout", "", "x" * 1000))
    assert world.broker.pool.available == 192 - 8
    for name in ("a", "b"):
        peer.ask(wire.get(1, name, no_ack=1))
        assert world.broker.pool.available == 192 - 8
    peer.ask(wire.purge_queue(1, "c"))
    assert world.broker.pool.available == 192
