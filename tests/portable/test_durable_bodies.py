"""Messages larger than a sector, or than memory: stored as they come, sent as they are read."""

import struct

import chance
import wire
from amqp_lite.local import Subscriber
from ramflash import RamFlash
from stored import PERSISTENT, counts, cut, drain, dropped, get, kept, publish
from test_large import sip
from world import World, contents, is_redelivered, tag_of

LARGE = 12000  # octets: not in one frame, not in the send buffer, beyond message_max


def roomy(sectors=48, **profile):
    """A world whose ring has room for some large messages."""
    return World(flash=RamFlash(sectors, 1024, 64), **profile)


def start(world, *names):
    """A client with confirms, and these durable queues."""
    peer = world.client()
    for name in names:
        peer.queue(name, durable=1)
    peer.ask(wire.select_confirms(1))
    return peer


def text(n, seed=1):
    """*n* octets, different everywhere and for each seed."""
    octets = bytearray(n + 3)
    for k in range(0, n, 4):
        struct.pack_into(">I", octets, k, seed * 0x9E3779 + k & 0x3FFFFFFF)
    return bytes(memoryview(octets)[:n])


def test_bodies_of_all_sizes_survive():
    world = roomy(36)
    peer = start(world, "q")
    # Around a third of a sector, a sector, what is streamed, frame and message_max.
    for size in (
        320, 330, 800, 980, 983, 984, 1000, 1024, 1535, 1536, 1537, 2048, 4000, 8184, 8192, 8193,
        LARGE, 16384,
    ):  # fmt: skip
        body = text(size)
        assert publish(peer, "q", body, message_id="m%d" % size) == ["basic.ack"], size
        content = get(peer, "q")
        assert (content[4], is_redelivered(content)) == (body, False), size
        world, peer = cut(world)
        peer.ask(wire.select_confirms(1))
        content = get(peer, "q")
        assert (content[4], is_redelivered(content)) == (body, True), size
        assert content[3] == wire.properties(delivery_mode=2, message_id="m%d" % size)
        peer.send(wire.ack(1, tag_of(content)))
        assert kept(world) == 0, size


def test_bodies_come_in_frames_of_all_sizes():
    world = roomy()
    peer = start(world, "q")
    body = text(3000)
    for piece in (40, 63, 64, 65, 500, 1013, 2999, 3000):
        for step in (0, 1000, 97):
            peer.step = step
            octets = wire.publish(1, "", "q", body, PERSISTENT, piece=piece)
            assert peer.names(octets) == ["basic.ack"], piece
            peer.step = 0
            assert drain(peer, "q") == [body], piece
    assert kept(world) == 0


def test_a_backlog_of_large_ones_needs_no_memory():
    world = roomy(sectors=64, blocks=64, messages=16)
    peer = start(world, "q")
    free = world.free()
    bodies = [text(9000, seed) for seed in range(5)]
    for body in bodies:
        assert publish(peer, "q", body) == ["basic.ack"]
    now = world.free()
    for key in ("blocks", "messages", "entries"):
        assert now[key] == free[key]
    assert world.broker.queue(b"q").octets == 45000
    world, peer = cut(world)
    assert world.broker.queue(b"q").octets == 45000
    assert drain(peer, "q") == bodies
    assert kept(world) == 0


def test_large_and_small_ones_keep_their_order():
    world = roomy(messages=8, deliveries=8)
    peer = start(world, "q")
    sizes = (10, 2000, 0, 3000, 5, 5, 5, 5, 5, 5, 900, 1200, 7, 5000)
    bodies = [text(size, k) for k, size in enumerate(sizes)]
    for k, body in enumerate(bodies):
        publish(peer, "q", body, delivery_mode=1 if k == 2 else 2)
    held = peer.contents(wire.qos(1, 2) + wire.consume(1, "q", "c"))
    seen = []
    while held:
        seen.append(held[0][4])
        if len(seen) % 3 == 0 and not is_redelivered(held[0]):
            seen.pop()
            tags = [tag_of(content) for content in held]
            held = peer.contents(wire.nack(1, tags[-1], multiple=1))
        else:
            held = held[1:] + peer.contents(wire.ack(1, tag_of(held[0])))
    assert seen == bodies
    assert kept(world) == 0


def test_bodies_on_several_channels_and_connections_at_once():
    world = roomy(sectors=64)
    peer = start(world, "q0", "q1", "q2", "q3")
    other = world.client().open(2)
    peer.open(2)
    bodies = [text(9000 + 100 * k, k) for k in range(4)]
    senders = ((peer, 1), (peer, 2), (other, 1), (other, 2))
    for k, (who, channel) in enumerate(senders):
        who.send(wire.publish_method(channel, "", "q%d" % k)
                 + wire.header(channel, len(bodies[k]), PERSISTENT))  # fmt: skip
    left = list(bodies)
    random = chance.seeded()
    while any(left):
        k = random.randrange(4)
        part = left[k][: random.randrange(1, 900)]
        left[k] = left[k][len(part) :]
        if part:
            who, channel = senders[k]
            who.send(wire.body(channel, part))
    world, peer = cut(world)
    for k in range(4):
        assert drain(peer, "q%d" % k) == [bodies[k]]
    assert kept(world) == 0


def test_what_ends_in_the_middle_leaves_nothing():
    octets = wire.publish(1, "", "q", text(5000), PERSISTENT, piece=1000)
    for how in ("channel", "connection", "vanish", "cut"):
        world = roomy(24)
        start(world, "q")
        for end in range(100, len(octets), 577):
            peer = world.client().open(2)
            before = world.free()
            peer.send(octets[:end])
            if how == "channel":
                # An error on the channel: the rest of the body is ignored.
                peer.engine.forget_channel(1)
                assert world.stored() == before["stored"]
                peer.vanish()
            elif how == "connection":
                peer.send(b"\xff" * 5000)
                peer.vanish()
            elif how == "vanish":
                peer.vanish()
            else:
                world = world.restart()
                world.client()
            assert kept(world) == 0, (how, end)
            assert world.stored() == before["stored"], (how, end)
        assert counts(world.client(), "q", passive=1) == (0, 0)


def test_a_large_message_of_several_queues_is_stored_once():
    world = roomy(24)
    peer = start(world, "a", "b", "c")
    for name in ("a", "b", "c"):
        peer.ask(wire.bind_queue(1, name, "amq.fanout"))
    before = world.stored()
    for body in (text(1300), text(LARGE)):
        assert publish(peer, "", body, exchange="amq.fanout") == ["basic.ack"]
        assert len(body) // 16 < world.stored() - before < len(body) // 16 * 1.1 + 20
        first = get(peer, "b")
        second = get(peer, "a")
        assert first[4] == second[4] == body
        peer.send(wire.ack(1, tag_of(first)) + wire.ack(1, tag_of(second)))
        assert kept(world) > 1
        world, peer = cut(world)
        peer.ask(wire.select_confirms(1))
        assert drain(peer, "a") == drain(peer, "b") == []
        assert drain(peer, "c") == [body]
        assert kept(world) == 0


def test_a_large_message_of_more_queues_than_one_record_has():
    world = roomy(48, queues=24, bindings=24)
    count = world.broker.store.fan_out + 2
    names = ["q%d" % k for k in range(count)]
    peer = start(world, *names)
    for name in names:
        peer.ask(wire.bind_queue(1, name, "amq.fanout"))
    body = text(5000)
    assert publish(peer, "", body, exchange="amq.fanout") == ["basic.ack"]
    for k in range(0, count - 1):
        assert drain(peer, names[k]) == [body]
    world, peer = cut(world)
    for k in range(count):
        assert drain(peer, names[k]) == ([body] if k == count - 1 else [])
    assert kept(world) == 0
    # It has to be in memory for that.
    assert peer.refused(wire.publish(1, "amq.fanout", "", text(9000), PERSISTENT)) == (
        "channel", 311,
    )  # fmt: skip


def test_slow_readers_get_the_whole_of_what_is_settled_already():
    body = text(LARGE)

    def check(how):
        world = roomy(24)
        peer = start(world, "q", "other")
        slow = world.client()
        for name in ("q", "other"):
            peer.ask(wire.bind_queue(1, name, "amq.fanout"))
        before = world.free()
        publish(peer, "", body, exchange="amq.fanout")
        slow.reading = False
        slow.send(wire.get(1, "q", no_ack=how == "no ack"))
        assert slow.engine.output.body is not None
        if how == "ack":
            slow.send(wire.ack(1, 1))
        elif how == "delete":
            peer.ask(wire.delete_queue(1, "q"))
        elif how == "reject":
            slow.send(wire.reject(1, 1, requeue=0))
        assert drain(peer, "other") == [body]
        # Others use what is free now, if it is.
        for _ in range(3):
            publish(peer, "other", text(5000, 2))
            assert drain(peer, "other") == [text(5000, 2)]
        world.broker.store.ring.mark()
        found = contents(sip(world, slow, 300))
        assert [content[4] for content in found] == [body], how
        slow.vanish()
        if how == "delete":
            peer.queue("q", durable=1)
            peer.ask(wire.bind_queue(1, "q", "amq.fanout"))
        assert drain(peer, "q") == [], how
        assert kept(world) == 0, how
        now = world.free()
        now["channels"] -= 1
        assert now == before, how

    for how in ("no ack", "ack", "delete", "reject"):
        check(how)


def test_readers_of_one_message_who_go_at_different_times():
    world = roomy(24)
    names = ("a", "b")
    peer = start(world, *names)
    body = text(LARGE)
    for name in names:
        peer.ask(wire.bind_queue(1, name, "amq.fanout"))
    publish(peer, "", body, exchange="amq.fanout")
    peers = [world.client(), world.client()]
    for k in range(2):
        peers[k].reading = False
        peers[k].send(wire.get(1, names[k], no_ack=1))
    peers[0].vanish()
    assert kept(world) > 0
    assert [content[4] for content in contents(sip(world, peers[1], 1000))] == [body]
    assert kept(world) == 0


def test_large_ones_come_again_when_they_are_given_back():
    world = roomy(24)
    peer = start(world, "q")
    bodies = [text(5000, k) for k in range(2)]
    for body in bodies:
        publish(peer, "q", body)
    other = world.client()
    found = other.contents(wire.consume(1, "q", "c"))
    assert [content[4] for content in found] == bodies
    other.send(wire.cancel(1, "c") + wire.nack(1, 1))
    other.vanish()
    world.broker.store.ring.mark()
    held = [get(peer, "q") for _ in range(2)]
    assert [content[4] for content in held] == bodies
    assert [is_redelivered(content) for content in held] == [True, True]
    assert [entry_tries(peer, k) for k in range(2)] == [1, 1]
    peer.send(wire.reject(1, tag_of(held[1])))
    world, peer = cut(world)
    held = [get(peer, "q") for _ in range(2)]
    assert [content[4] for content in held] == bodies
    assert [entry_tries(peer, k) for k in range(2)] == [2, 3]
    peer.send(wire.ack(1, 0, multiple=1))
    assert kept(world) == 0


def entry_tries(peer, k):
    """The count of tries of the *k*th message that channel 1 holds."""
    entry = peer.engine.channels[1].unacked.head
    for _ in range(k):
        entry = entry.next
    return entry.tries


def test_a_connection_that_goes_amid_a_delivery_gives_it_back():
    world = roomy(24)
    peer = start(world, "q")
    before = world.free()
    publish(peer, "q", text(LARGE))
    for _ in range(3):
        slow = world.client()
        slow.reading = False
        slow.send(wire.get(1, "q"))
        assert slow.engine.output.body is not None
        slow.vanish()
    content = get(peer, "q")
    assert content[4] == text(LARGE) and is_redelivered(content)
    peer.send(wire.ack(1, tag_of(content)))
    assert world.free() == before


def test_a_channel_closed_amid_a_delivery_gives_it_to_somebody_else():
    world = roomy(24)
    peer = start(world, "q")
    publish(peer, "q", text(LARGE))
    slow = world.client().open(2)
    slow.reading = False
    slow.send(wire.get(1, "q") + wire.close_channel(1))
    slow.reading = True
    slow.read_some(1500)
    slow.reading = False
    world.run()
    frames = sip(world, slow, 700)
    assert frames[-1][1] == "channel.close-ok"
    assert contents(frames[:-1])[0][4] == text(LARGE)
    content = get(peer, "q")
    assert content[4] == text(LARGE) and is_redelivered(content)
    peer.send(wire.ack(1, tag_of(content)))
    assert kept(world) == 0


def test_lengths_hold_for_large_ones():
    world = roomy(32)
    peer = start(world)
    peer.queue("q", durable=1, arguments={"x-max-length": 2})
    peer.queue("b", durable=1, arguments={"x-max-length-bytes": 9000})
    peer.queue("r", durable=1,
               arguments={"x-max-length-bytes": 9000, "x-overflow": "reject-publish"})  # fmt: skip
    for queue, right in (("q", [2, 3]), ("b", [3]), ("r", [0])):
        verdicts = publish(peer, queue, *[text(5000, k) for k in range(4)])
        assert verdicts == ["basic.ack"] + ["basic.nack" if queue == "r" else "basic.ack"] * 3
        assert world.broker.queue(queue.encode()).octets == 5000 * len(right)
        world, peer = cut(world)
        peer.ask(wire.select_confirms(1))
        assert world.broker.queue(queue.encode()).octets == 5000 * len(right)
        assert drain(peer, queue) == [text(5000, k) for k in right]
        assert kept(world) == 0
    peer.queue("none", durable=1, arguments={"x-max-length-bytes": 100})
    assert publish(peer, "none", text(5000)) == ["basic.ack"]
    assert counts(peer, "none", passive=1) == (0, 0)
    assert dropped(world) == {"dropped_max_length": 1}
    assert kept(world) == 0


def test_a_ring_that_is_full_in_the_middle_of_a_body_refuses_it_whole():
    world = World()  # 16 sectors
    peer = start(world, "q")
    good = []
    for k in range(30):
        body = text(1000 + 517 * k % 7000, k)
        verdict = publish(peer, "q", body)
        if verdict == ["basic.nack"]:
            if len(good) > 1:
                assert drain(peer, "q") == good
                assert kept(world) == 0
                good = []
            else:
                drain(peer, "q")
                good = []
        else:
            good.append(body)
    assert world.broker.metrics.dropped_store_full > 1
    while publish(peer, "q", text(300)) == ["basic.ack"]:
        pass
    before = world.free()
    for body in (text(8000), text(2000), text(1400)):
        assert publish(peer, "q", body) == ["basic.nack"]
        assert world.free() == before
    world, peer = cut(world)
    drain(peer, "q")
    assert kept(world) == 0


def test_more_than_all_that_fits():
    world = roomy(24)
    peer = start(world, "d", "d2")
    peer.queue("t")
    peer.ask(wire.bind_queue(1, "d", "amq.fanout") + wire.bind_queue(1, "t", "amq.fanout"))
    for name in ("d", "d2"):
        peer.ask(wire.bind_queue(1, name, "amq.topic", "#"))
    before = world.free()
    transient = wire.properties(delivery_mode=1)
    for exchange, key, size, given in (
        ("", "d", 16385, PERSISTENT),  # stored_max
        ("", "d", 8193, transient),  # message_max
        ("", "t", 8193, PERSISTENT),
        ("amq.fanout", "", 8193, PERSISTENT),
        ("", "nobody", 8193, PERSISTENT),
        ("", "d", 1 << 40, PERSISTENT),
    ):
        client = world.client()
        octets = wire.publish_method(1, exchange, key) + wire.header(1, size, given)
        assert client.refused(octets) == ("channel", 311), size
        client.vanish()
        assert world.free() == before
    assert publish(peer, "", text(8192), exchange="amq.fanout") == ["basic.ack"]
    assert publish(peer, "", text(LARGE), exchange="amq.topic") == ["basic.ack"]
    assert drain(peer, "t") == [text(8192)]
    assert drain(peer, "d") == [text(8192), text(LARGE)]
    assert drain(peer, "d2") == [text(LARGE)]
    assert world.free() == before


def test_queues_that_come_and_go_while_a_body_comes():
    world = roomy(24)
    peer = start(world, "q", "keep")
    boss = world.client()
    peer.ask(wire.bind_queue(1, "q", "amq.fanout") + wire.bind_queue(1, "keep", "amq.fanout"))
    body = text(5000)
    head = wire.publish_method(1, "amq.fanout", "", mandatory=1) + wire.header(1, 5000, PERSISTENT)
    first, second = wire.body(1, body[:2500]), wire.body(1, body[2500:])

    peer.send(head + first)
    boss.ask(wire.delete_queue(1, "q"))
    assert peer.names(second) == ["basic.ack"]
    assert drain(peer, "keep") == [body]

    # A transient queue would need it in memory.
    peer.send(head + first)
    boss.queue("t")
    boss.ask(wire.bind_queue(1, "t", "amq.fanout"))
    assert peer.names(second) == ["basic.nack"]
    assert drain(peer, "keep") == [body]
    assert dropped(world) == {"dropped_no_room": 1}
    boss.ask(wire.delete_queue(1, "t"))

    # Nobody is left, and the body is not here to be returned.
    peer.send(head + first)
    boss.ask(wire.delete_queue(1, "keep"))
    assert peer.names(second) == ["basic.nack"]
    assert kept(world) == 0


def test_consumers_that_hold_many_do_not_keep_publishers_from_it():
    world = roomy(60, messages=32)
    peer = start(world, "q", "other")
    bodies = [text(2000, k) for k in range(12)]
    assert publish(peer, "q", *bodies) == ["basic.ack"] * 12
    hoarder = world.client()
    held = hoarder.contents(wire.consume(1, "q", "c"))
    assert 1 < len(held) < 12
    for size in (1400, 1700, 9000):
        assert publish(peer, "other", text(size)) == ["basic.ack"]
    seen = []
    while held:
        seen += [content[4] for content in held]
        held = hoarder.contents(wire.ack(1, tag_of(held[-1]), multiple=1))
    assert seen == bodies
    assert drain(peer, "other") == [text(1400), text(1700), text(9000)]
    assert kept(world) == 0


def test_code_on_the_board_gets_them_whole():
    world = roomy(24)
    peer = start(world, "q")
    got = []
    for size in (100, 1400, LARGE):
        assert publish(peer, "q", text(size), message_id="m") == ["basic.ack"]
    subscriber = Subscriber(
        world.broker, world.broker.queue(b"q"),
        lambda message: got.append((message.body, message.properties["message_id"])),
    )  # fmt: skip
    subscriber.pump()
    assert got == [(text(100), b"m"), (text(1400), b"m"), (text(LARGE), b"m")]
    assert kept(world) == 0


def test_large_ones_expire():
    world = roomy(24)
    peer = start(world, "q")
    assert publish(peer, "q", text(LARGE), expiration="100000") == ["basic.ack"]
    world.wait(70000)
    world, peer = cut(world)
    world.wait(20000)
    assert counts(peer, "q", passive=1) == (1, 0)
    world.wait(21000)
    assert counts(peer, "q", passive=1) == (0, 0)
    assert dropped(world) == {"dropped_expired": 1}
    assert kept(world) == 0


def test_many_turns_of_the_ring_with_bodies_of_all_sizes():
    world = World()
    peer = start(world, "a", "b")
    for name in ("a", "b"):
        peer.ask(wire.bind_queue(1, name, "amq.fanout"))
    random = chance.seeded()
    sent = {"a": [], "b": []}
    octets = 0
    while octets < 8 * 16384:
        size = random.randrange(random.choice((300, 1200, 2500, 6000)))
        body = text(size, octets)
        verdict = publish(peer, "", body, exchange="amq.fanout")
        if verdict == ["basic.ack"]:
            octets += size
            for name in sent:
                sent[name].append(body)
        for name in sent:
            # b is behind, by so much that all of it is on flash.
            while sent[name] and (name == "a" or sum([len(row) for row in sent[name]]) > 5000):
                assert peer.bodies(wire.get(1, name, no_ack=1)) == [sent[name].pop(0)]
        if random.randrange(40) == 0:
            world, peer = cut(world)
            peer.ask(wire.select_confirms(1))
    assert drain(peer, "a") == sent["a"]
    assert drain(peer, "b") == sent["b"]
    assert kept(world) == 0
