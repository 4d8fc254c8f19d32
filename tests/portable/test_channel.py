"""Channels: errors that stay on one of them, closing, flow, numbers."""

import wire
from world import World, tag_of


def test_an_error_closes_its_channel_and_leaves_the_neighbours_alone():
    world = World()
    other = world.client()
    peer = world.client().open(2)
    peer.queue("q")
    peer.send(wire.consume(2, "q", "c2"))
    assert peer.refused(wire.get(1, "missing")) == ("channel", 404)
    peer.send(wire.publish(2, "", "q", "x"))
    assert peer.bodies() == [b"x"]
    peer.send(wire.method(1, "channel.close-ok"))
    peer.open(1)
    assert peer.works() and other.works()


def test_what_is_under_way_on_a_closed_channel_is_passed_over():
    world = World()
    peer = world.client().open(2)
    peer.queue("q")
    assert peer.names(
        wire.get(1, "missing")
        + wire.publish(1, "", "q", "lost")
        + wire.ack(1, 1)
        + wire.nack(1, 1)
        + wire.reject(1, 1)
        + wire.declare_queue(1, "never")
        + wire.publish(1, "", "q", "l" * 5000, piece=1000)
        + wire.header(1, 5)
        + wire.body(1, b"12345")
        + wire.get(1, "missing")
        + wire.open_channel(3)
    ) == ["channel.close", "channel.open-ok"]
    assert b"never" not in world.broker.queues
    assert peer.names(wire.method(1, "channel.close-ok") + wire.get(2, "q")) == ["basic.get-empty"]
    assert peer.names(wire.get(1, "q")) == ["connection.close"]


def test_both_sides_may_close_at_once():
    world = World()
    peer = world.client()
    assert peer.names(wire.get(1, "missing") + wire.close_channel(1)) == [
        "channel.close", "channel.close-ok",
    ]  # fmt: skip
    peer.send(wire.method(1, "channel.close-ok"))
    peer.open(1)
    assert peer.works()


def test_a_channel_closed_by_both_sides_is_free_without_a_close_ok():
    world = World()
    peer = world.client()
    before = world.free()
    peer.open(2)
    peer.names(wire.get(2, "missing") + wire.close_channel(2))
    assert world.free() == before
    peer.open(2)
    assert peer.names(wire.get(2, "missing") + wire.close_channel(2)) == [
        "channel.close", "channel.close-ok",
    ]  # fmt: skip
    assert peer.works()


def test_a_closed_channels_number_is_free_again():
    world = World()
    before = world.free()
    peer = world.client()
    for _ in range(20):
        assert peer.names(wire.close_channel(1) + wire.open_channel(1)) == [
            "channel.close-ok", "channel.open-ok",
        ]  # fmt: skip
    peer.vanish()
    assert world.free() == before


def test_closing_gives_messages_back_and_drops_consumers():
    world = World()
    peer = world.client().open(2)
    peer.queue("q")
    for k in range(3):
        peer.send(wire.publish(1, "", "q", "%d" % k))
    assert peer.bodies(wire.consume(2, "q", "c")) == [b"0", b"1", b"2"]
    peer.send(wire.ack(2, 2) + wire.close_channel(2))
    assert len(world.broker.queue(b"q").consumers) == 0
    peer.take()
    contents = peer.contents(wire.get(1, "q") + wire.get(1, "q"))
    assert [content[4] for content in contents] == [b"0", b"2"]


def test_a_client_stops_and_starts_the_flow_of_deliveries():
    world = World()
    peer = world.client()
    peer.queue("q")
    peer.send(wire.consume(1, "q", "c"))
    assert peer.ask(wire.flow(1, 0))[-1] == (1, "channel.flow-ok", b"\0")
    peer.send(wire.publish(1, "", "q", "x"))
    assert peer.names() == []
    frames = peer.ask(wire.flow(1, 1))
    assert frames[0] == (1, "channel.flow-ok", b"\1")
    assert [name for _, name, _ in frames[1:]] == ["basic.deliver", "header", "body"]


def test_delivery_tags_count_on_each_channel_alone():
    world = World()
    peer = world.client().open(2)
    peer.queue("q")
    for k in range(4):
        peer.send(wire.publish(1, "", "q", "%d" % k))
    assert [tag_of(content) for content in peer.contents(
        wire.get(1, "q") + wire.get(2, "q") + wire.get(2, "q") + wire.get(1, "q")
    )] == [1, 1, 2, 2]  # fmt: skip


def test_the_connection_ends_with_all_it_had():
    world = World()
    other = world.client()
    before = world.free()
    peer = world.client().open(2).open(3)
    peer.queue("mine", exclusive=1)
    peer.send(wire.consume(2, "mine", "c") + wire.publish(1, "", "mine", "x"))
    peer.send(wire.publish_method(3, "", "mine") + wire.header(3, 10) + wire.body(3, b"half"))
    assert peer.names(wire.close_connection())[-1] == "connection.close-ok"
    assert peer.gone
    assert world.free() == before
    assert other.works()


def test_messages_of_a_dying_connection_never_go_to_its_other_channels():
    # They take without acknowledgement: what they are given while the connection dies is lost.
    world = World()
    for end in ("vanish", "close", "error"):
        peer = world.client()
        peer.queue("q")
        peer.send(wire.publish(1, "", "q", "keep me"))
        assert peer.bodies(wire.get(1, "q")) == [b"keep me"]
        for channel in (2, 3, 4):
            peer.open(channel)
            assert peer.names(wire.consume(channel, "q", no_ack=1)) == ["basic.consume-ok"]
        if end == "vanish":
            peer.vanish()
        elif end == "close":
            peer.send(wire.close_connection())
        else:
            peer.send(b"\xff" * 8)
        queue = world.broker.queue(b"q")
        assert queue.ready.count == 1, end
        queue.purge()
        peer.vanish()


def test_a_consumer_is_told_when_its_queue_is_deleted():
    world = World()
    peer = world.client()
    other = world.client()
    peer.queue("q")
    peer.ask(wire.consume(1, "q", "tag"))
    other.send(wire.delete_queue(1, "q"))
    assert peer.ask(b"") == [(1, "basic.cancel", b"\x03tag\x01")]
    assert peer.names(wire.method(1, "basic.cancel-ok", wire.short("tag"))) == []
    assert peer.works()


def test_a_client_without_the_capability_is_not_told():
    world = World()
    peer = world.connect().login(capabilities=()).open(1)
    other = world.client()
    peer.queue("q")
    peer.ask(wire.consume(1, "q", "tag"))
    other.send(wire.delete_queue(1, "q"))
    assert peer.names() == []
    assert peer.works()


def test_channels_to_the_highest_number_and_not_beyond():
    world = World(channels=3)
    peer = world.client().open(2).open(3)
    assert peer.works()
    assert peer.refused(wire.open_channel(4)) == ("connection", 504)
