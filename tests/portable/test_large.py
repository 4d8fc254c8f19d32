"""Messages longer than buffers and frames: streamed, with other channels in between."""

import chance
import wire
from world import World, contents


def sip(world, peer, most):
    """Read *most* octets at a time until there are no more; the frames."""
    peer.reading = False
    while True:
        world.run()
        peer.reading = True
        some = peer.read_some(most)
        peer.reading = False
        if not some:
            break
    peer.reading = True
    return peer.take()


def test_a_message_longer_than_the_send_buffer_arrives_whole():
    world = World()
    peer = world.client()
    before = world.free()
    peer.queue("q")
    body = chance.octets(chance.seeded(), 8192)
    for step in (100000, 1500, 700, 99, 64):
        peer.send(wire.publish(1, "", "q", body, piece=8184))
        peer.reading = False
        peer.send(wire.get(1, "q", no_ack=1))
        found = contents(sip(world, peer, step))
        assert [content[4] for content in found] == [body], step
    peer.ask(wire.delete_queue(1, "q"))
    assert world.free() == before


def test_frames_are_no_longer_than_the_peer_asked_for():
    world = World(send_buffer=12000)
    peer = world.connect()
    peer.ask(wire.start_ok("\0guest\0guest") + wire.tune_ok(0, 4096, 0) + wire.open_connection())
    peer.open(1)
    peer.queue("q")
    peer.send(wire.publish(1, "", "q", "b" * 8000, piece=4000))
    frames = peer.ask(wire.get(1, "q"))
    assert [name for _, name, _ in frames] == ["basic.get-ok", "header", "body", "body"]
    assert max([len(payload) + 8 for _, _, payload in frames]) == 4096
    assert contents(frames)[0][4] == b"b" * 8000


def test_body_sizes_around_the_edges_of_buffer_frame_and_block():
    world = World()
    peer = world.client()
    peer.queue("q")
    before = world.free()
    edges = []
    for size in (0, 128, 256, 1024, 1728, 2048, 4096):
        edges += [size + k for k in range(-3, 4) if size + k >= 0]
    for size in edges + list(range(1600, 2040, 23)):
        body = bytes([size & 0xFF]) * size
        peer.send(wire.publish(1, "", "q", body, piece=1000))
        assert peer.bodies(wire.get(1, "q", no_ack=1)) == [body], size
        assert world.free() == before, size


def test_property_sizes_around_the_edges_of_a_block():
    world = World()
    peer = world.client()
    peer.queue("q")
    for size in range(100, 280):
        name = ("k" * size)[:255]
        given = wire.properties(headers={name: "v" * (size // 3)}, message_id=name)
        peer.send(wire.publish(1, "", "q", "body", given))
        content = peer.contents(wire.get(1, "q", no_ack=1))[0]
        assert (content[3], content[4]) == (given, b"body"), size


def test_other_channels_are_answered_while_a_body_is_under_way():
    world = World()
    peer = world.client().open(2)
    peer.queue("q")
    body = b"12345678" * 1000
    peer.send(wire.publish(1, "", "q", body))
    peer.reading = False
    peer.send(wire.get(1, "q"))
    peer.reading = True
    peer.read_some(1000)
    peer.reading = False
    peer.send(wire.get(2, "q") + wire.purge_queue(2, "q"))
    frames = sip(world, peer, 500)
    names = [name for _, name, _ in frames]
    assert names[:2] == ["basic.get-ok", "header"]
    answered = names.index("basic.get-empty")
    assert "body" in names[answered:], "the answers came last"
    assert contents([row for row in frames if row[0] == 1])[0][4] == body
    assert [name for channel, name, _ in frames if channel == 2] == [
        "basic.get-empty", "queue.purge-ok",
    ]  # fmt: skip


def test_the_same_channel_is_answered_after_its_body():
    world = World()
    peer = world.client()
    peer.queue("q")
    peer.send(wire.publish(1, "", "q", "b" * 8000))
    peer.reading = False
    peer.send(wire.get(1, "q") + wire.get(1, "q") + wire.purge_queue(1, "q"))
    frames = sip(world, peer, 300)
    assert contents(frames[:-2])[0][4] == b"b" * 8000
    assert [name for _, name, _ in frames[-2:]] == ["basic.get-empty", "queue.purge-ok"]


def test_large_and_small_ones_keep_their_order():
    world = World()
    consumer = world.client()
    consumer.queue("q")
    peer = world.client()
    consumer.ask(wire.consume(1, "q", "c"))
    consumer.reading = False
    bodies = [bytes([65 + k]) * size for k, size in enumerate((10, 5000, 0, 3, 7000, 300, 2050))]
    for body in bodies:
        peer.send(wire.publish(1, "", "q", body))
    assert [content[4] for content in contents(sip(world, consumer, 700))] == bodies


def test_many_small_ones_arrive_whatever_the_pace():
    world = World()
    consumer = world.client()
    consumer.queue("q")
    before = world.free()
    peer = world.client()
    consumer.ask(wire.consume(1, "q", "c", no_ack=1))
    consumer.reading = False
    count = 100
    for k in range(count):
        peer.send(wire.publish(1, "", "q", "%d" % k))
    found = contents(sip(world, consumer, 333))
    assert [content[4] for content in found] == [b"%d" % k for k in range(count)]
    consumer.ask(wire.cancel(1, "c"))
    peer.vanish()
    assert world.free() == before


def test_a_stalled_reader_holds_up_nobody_else():
    world = World()
    slow = world.client()
    slow.queue("q")
    fast = world.client()
    slow.ask(wire.consume(1, "q", "slow"))
    fast.ask(wire.consume(1, "q", "fast", no_ack=1))
    slow.reading = False
    peer = world.client()
    for k in range(40):
        peer.send(wire.publish(1, "", "q", bytes([k]) * 400))
    mine = [content[4][0] for content in fast.contents()]
    assert len(mine) >= 30
    slow.reading = True
    world.run()
    others = [content[4][0] for content in slow.contents()]
    assert sorted(mine + others) == list(range(40))


def test_a_connection_that_goes_amid_a_body_frees_it():
    world = World()
    neighbour = world.client()
    before = world.free()
    peer = world.client()
    peer.queue("q", exclusive=1)
    peer.send(wire.publish(1, "", "q", "b" * 8000))
    peer.reading = False
    peer.send(wire.get(1, "q", no_ack=1))
    assert world.free() != before
    peer.vanish()
    assert world.free() == before
    assert neighbour.works()


def test_closing_amid_a_body_is_answered():
    world = World()
    peer = world.client().open(2)
    peer.queue("q")
    peer.send(wire.publish(1, "", "q", "b" * 8000))
    peer.reading = False
    peer.send(wire.get(2, "q") + wire.close_channel(2))
    frames = sip(world, peer, 400)
    assert frames[-1][1] == "channel.close-ok"
    assert contents(frames[:-1])[0][4] == b"b" * 8000
    peer.reading = False
    peer.send(wire.get(1, "q"))
    peer.send(wire.close_connection())
    names = [name for _, name, _ in sip(world, peer, 400)]
    assert names[-1] == "connection.close-ok"
    assert peer.gone
