"""Messages of durable queues: what is there after a power cut."""

import chance
import wire
from ramflash import RamFlash
from stored import (
    PERSISTENT,
    SMALL,
    counts,
    cut,
    drain,
    dropped,
    get,
    look,
    numbers,
    publish,
    take_all,
)  # fmt: skip
from world import World, is_redelivered, tag_of


def test_confirmed_messages_are_there_after_a_power_cut():
    given = [
        wire.properties(delivery_mode=2),
        wire.properties(
            delivery_mode=2, content_type="text/plain", content_encoding="gzip", priority=7,
            headers={"a": 1, "b": [None, True, {"c": "d"}], "n": -1}, correlation_id="c" * 255,
            reply_to="r", message_id="m", timestamp=1700000000, type="t", user_id="guest",
            app_id="a", cluster_id="x",
        ),
        wire.properties(delivery_mode=2, headers={"k" * 200: "v" * 300}),
    ]  # fmt: skip
    world = World(flash=RamFlash(40, 1024, 64))
    peer = world.client()
    peer.queue("q", durable=1)
    peer.ask(wire.bind_queue(1, "q", "amq.topic", "#"))
    peer.ask(wire.select_confirms(1))
    random = chance.seeded()
    sent = []
    for size in (0, 1, 2, 15, 16, 17, 63, 64, 65, 200, 255, 256, 700, 900):
        for k in range(3 if size < 256 else 1):
            body = chance.octets(random, size)
            key = "k" * (size % 256)
            octets = wire.publish(1, "amq.topic", key, body, given[k])
            assert peer.names(octets) == ["basic.ack"]
            sent.append((b"amq.topic", key.encode(), given[k], body))
    for _ in range(3):
        world, peer = cut(world)
        assert counts(peer, "q", durable=1) == (len(sent), 0)
    found = []
    for content in take_all(peer, "q"):
        assert is_redelivered(content), "nobody knows whether it was delivered"
        found.append(tuple(wire.strings(content[1], 9, 2)) + (content[3], content[4]))
    assert found == sent


def test_they_are_there_without_any_mark_or_goodbye():
    world = World()
    peer = world.client()
    peer.queue("q", durable=1)
    publish(peer, "q", "1", "2")
    peer = world.restart().client()
    assert drain(peer, "q") == [b"1", b"2"]


def test_transient_ones_are_not():
    world = World()
    peer = world.client()
    peer.queue("q", durable=1)
    peer.queue("t")
    publish(peer, "q", "1", "3")
    for queue in ("q", "t"):
        publish(peer, queue, "transient", delivery_mode=1)
    publish(peer, "t", "of a transient queue")
    world, peer = cut(world)
    assert drain(peer, "q") == [b"1", b"3"]
    assert list(world.broker.queues) == [b"q"]


def test_unconfirmed_ones_are_there_once_or_not_at_all():
    for count in (1, 5, 20):
        world = World()
        peer = world.client()
        peer.queue("q", durable=1)
        peer.ask(wire.select_confirms(1))
        publish(peer, "q", "first")
        octets = b"".join(
            [wire.publish(1, "", "q", b"%d" % k * 20, PERSISTENT) for k in range(count)]
        )
        for i in range(0, len(octets), 500):
            peer.engine.feed(memoryview(octets[i : i + 500]), len(octets[i : i + 500]))
        assert not peer.engine.output.pending, "confirmed before it was stored"
        peer = world.restart().client()
        found = drain(peer, "q")
        assert found == [b"first"] + [b"%d" % k * 20 for k in range(len(found) - 1)]


def test_acknowledged_ones_are_not_in_any_order_of_acks():
    random = chance.seeded()
    world = World()
    peer = world.client()
    peer.queue("q", durable=1)
    definition = world.stored()
    for count in (1, 2, 7, 20):
        publish(peer, "q", *numbers(0, count))
        held = [get(peer, "q") for _ in range(count)]
        kept = []
        while held:
            content = held.pop(random.randrange(len(held)))
            if random.randrange(3):
                peer.send(wire.ack(1, tag_of(content)))
            else:
                kept.append(int(content[4]))
        world, peer = cut(world)
        assert [int(body) for body in drain(peer, "q")] == sorted(kept)
        world, peer = cut(world)
        assert drain(peer, "q") == []
        assert world.stored() == definition


def test_what_was_settled_without_a_mark_may_come_back_redelivered():
    world = World()
    peer = world.client()
    peer.queue("q", durable=1)
    publish(peer, "q", "1")
    peer.send(wire.ack(1, tag_of(get(peer, "q"))))
    peer = world.restart().client()
    for content in peer.contents(wire.get(1, "q")):
        assert is_redelivered(content)


def test_marks_are_made_by_and_by():
    world = World()
    peer = world.client()
    peer.queue("q", durable=1)
    definition = world.stored()
    publish(peer, "q", "1", "2")
    assert drain(peer, "q") == [b"1", b"2"]
    world.wait(2500)
    assert sum(world.broker.store.ring.live) == definition
    assert drain(world.restart().client(), "q") == []


def test_rejected_ones_are_gone_for_good():
    world = World()
    peer = world.client()
    peer.queue("q", durable=1)
    publish(peer, "q", "1", "2", "3")
    peer.send(wire.reject(1, tag_of(get(peer, "q")), requeue=0))
    peer.send(wire.nack(1, tag_of(get(peer, "q")), requeue=0))
    world, peer = cut(world)
    assert drain(peer, "q") == [b"3"]


# --- several queues ---


def test_a_message_of_several_queues_is_stored_once():
    world = World()
    peer = world.client()
    names = ["q%d" % k for k in range(5)]
    for name in names:
        peer.queue(name, durable=1)
        peer.ask(wire.bind_queue(1, name, "amq.fanout"))
    definitions = world.stored()
    publish(peer, "", "x" * 600, exchange="amq.fanout")
    stored = world.stored() - definitions
    assert 600 // 16 < stored < 750 // 16
    for k in range(5):
        world, peer = cut(world)
        assert world.stored() == definitions + stored
        for i in range(5):
            assert counts(peer, names[i], durable=1) == (i >= k, 0)
        content = get(peer, names[k])
        assert content[4] == b"x" * 600 and is_redelivered(content)
        peer.send(wire.ack(1, tag_of(content)))
    assert world.stored() == definitions


def test_a_message_of_more_queues_than_one_record_has():
    world = World(queues=40, bindings=60, deliveries=96)
    peer = world.client()
    fan_out = world.broker.store.fan_out
    count = 2 * fan_out + 3
    for k in range(count):
        peer.queue("q%d" % k, durable=1)
        peer.ask(wire.bind_queue(1, "q%d" % k, "amq.fanout"))
    definitions = world.stored()
    peer.ask(wire.select_confirms(1))
    for body in (b"small", b"x" * 900, b"y" * 1400):
        assert publish(peer, "", body, exchange="amq.fanout") == ["basic.ack"]
        if len(body) < 16:
            assert world.stored() - definitions <= 2 * (fan_out + 1) + 6, "three records"
        held = [get(peer, "q%d" % k) for k in range(0, count, 2)]
        for content in held:
            assert content[4] == body
            peer.send(wire.ack(1, tag_of(content)))
        world, peer = cut(world)
        peer.ask(wire.select_confirms(1))
        for k in range(count):
            assert drain(peer, "q%d" % k) == ([body] if k % 2 else []), k
        assert world.stored() == definitions


def test_queue_numbers_beyond_one_octet():
    world = World()
    peer = world.client()
    peer.queue("q", durable=1)
    # As if 299 others had been declared before.
    broker = world.broker
    queue = broker.queue(b"q")
    del broker._numbers[queue.number]
    queue.number = 299
    broker._numbers[299] = queue
    broker.store.redefine_queue(queue)
    publish(peer, "q", "1", "2")
    peer.send(wire.ack(1, tag_of(get(peer, "q"))))
    world, peer = cut(world)
    assert world.broker.queue(b"q").number == 299
    assert drain(peer, "q") == [b"2"]


def test_durable_and_transient_queues_of_one_message():
    world = World()
    peer = world.client()
    for name, durable in (("d1", 1), ("t1", 0), ("d2", 1), ("t2", 0)):
        peer.queue(name, durable=durable)
        peer.ask(wire.bind_queue(1, name, "amq.fanout"))
    definitions = world.stored()
    publish(peer, "", "p", exchange="amq.fanout")
    publish(peer, "", "t", exchange="amq.fanout", delivery_mode=1)
    assert drain(peer, "d1") == drain(peer, "t1") == drain(peer, "t2") == [b"p", b"t"]
    world, peer = cut(world)
    assert drain(peer, "d1") == []
    assert drain(peer, "d2") == [b"p"]
    assert world.stored() == definitions


# --- given back ---


def test_requeued_messages_keep_their_place_and_count_their_tries():
    for profile in ({}, SMALL):
        world = World(**profile)
        peer = world.client()
        peer.queue("q", durable=1)
        publish(peer, "q", *numbers(0, 6))
        for times in range(1, 11):
            held = [get(peer, "q") for _ in range(3)]
            assert [content[4] for content in held] == numbers(0, 3)
            assert [is_redelivered(content) for content in held] == [times > 1] * 3
            tags = [tag_of(content) for content in held]
            if times % 3 == 0:
                peer.send(wire.nack(1, tags[2], multiple=1))
            elif times % 3 == 1:
                for k in (0, 1, 2):
                    peer.send(wire.nack(1, tags[k]))
            else:
                for k in (1, 2, 0):
                    peer.send(wire.reject(1, tags[k]))
            after = look(world)
            peer_after = after.client()
            queue = after.broker.queue(b"q")
            for k in range(6):
                content = get(peer_after, "q")
                assert content[4] == b"%d" % k and is_redelivered(content)
                held = peer_after.engine.channels[1].unacked.tail
                assert held.tries == 1 + (min(times, 8) if k < 3 else 0)
            assert queue.waiting() == 0
        assert [get(peer, "q")[4] for _ in range(6)] == numbers(0, 6)


def test_what_a_lost_connection_held_comes_again_once():
    # One world at a time has room on a board.
    def check(how, profile):
        world = World(**profile)
        peer = world.client()
        peer.queue("q", durable=1)
        publish(peer, "q", *numbers(0, 10))
        other = world.client()
        other.ask(wire.qos(1, 4))
        found = other.contents(wire.consume(1, "q", "c"))
        assert [content[4] for content in found] == numbers(0, 4)
        other.ask(wire.cancel(1, "c"))
        other.send(wire.ack(1, tag_of(found[1])))
        if how == "vanish":
            other.vanish()
        elif how == "close":
            other.send(wire.close_connection())
        elif how == "channel":
            other.send(wire.close_channel(1))
        else:
            other.send(wire.recover(1))
        rest = [b"0"] + numbers(3, 3) + [b"2", b"3"] + numbers(4, 10)
        world.broker.store.ring.mark()
        assert drain(look(world).client(), "q") == rest, how
        held = take_all(peer, "q")
        assert [content[4] for content in held] == rest, how
        assert [is_redelivered(content) for content in held] == [True] * 3 + [False] * 6

    for how in ("vanish", "close", "channel", "recover"):
        check(how, {})
        check(how, SMALL)


def test_transient_and_persistent_ones_go_back_to_their_places():
    random = chance.seeded()
    for profile in ({}, SMALL):
        world = World(**profile)
        peer = world.client()
        peer.queue("q", durable=1)
        for k in range(8):
            publish(peer, "q", b"%d" % k, delivery_mode=1 + k // 2 % 2)
        for _ in range(10):
            held = [get(peer, "q") for _ in range(6)]
            assert [content[4] for content in held] == numbers(0, 6)
            while held:
                tag = tag_of(held.pop(random.randrange(len(held))))
                peer.send(wire.nack(1, tag))
        assert drain(peer, "q") == numbers(0, 8)


# --- age ---


def test_the_age_goes_on_over_restarts():
    for profile in ({}, SMALL):
        for arguments, expiration in (
            ({}, "300000"),
            ({"x-message-ttl": 300000}, None),
            ({"x-message-ttl": 900000}, "300000"),
            ({"x-message-ttl": 300000}, "900000"),
        ):
            world = World(**profile)
            peer = world.client()
            peer.queue("q", durable=1, arguments=arguments)
            peer.queue("stays", durable=1)
            definitions = world.stored()
            publish(peer, "q", *numbers(0, 6), expiration=expiration)
            publish(peer, "stays", "x")
            stored = world.stored() - definitions
            for _ in range(4):
                world.wait(61000)  # the clock is stored once a minute
                world, peer = cut(world)
                assert counts(peer, "q", passive=1) == (6, 0)
                assert world.stored() == definitions + stored
            world.wait(50000)
            assert counts(peer, "q", passive=1) == (6, 0)
            world.wait(15000)
            assert counts(peer, "q", passive=1) == (0, 0)
            assert dropped(world) == {"dropped_expired": 6}
            world, peer = cut(world)
            assert counts(peer, "q", passive=1) == (0, 0)
            assert drain(peer, "stays") == [b"x"]
            assert world.stored() == definitions


def test_the_store_keeps_one_clock():
    world = World()
    peer = world.client()
    peer.queue("q", durable=1)
    publish(peer, "q", "x", expiration="100000000")
    stored = world.stored()
    for _ in range(4):
        world.wait(125000)
        world = world.restart()  # without the mark that the older one is out of date
        assert world.stored() == stored
    assert world.broker.store._clock >= 4 * 120000 >> 4


def test_expired_ones_of_the_backlog_are_dropped_however_they_are_met():
    for meet in ("tick", "get", "consume"):
        world = World(**SMALL)
        peer = world.client()
        peer.queue("q", durable=1)
        definition = world.stored()
        publish(peer, "q", *numbers(0, 20), expiration="5000")
        publish(peer, "q", "stays", "and this", expiration="50000")
        world.broker.now += 5100
        if meet == "tick":
            world.broker.tick()
            assert counts(peer, "q", passive=1) == (2, 0)
        if meet == "consume":
            found = peer.bodies(wire.consume(1, "q", "c", no_ack=1))
        else:
            found = drain(peer, "q")
        assert found == [b"stays", b"and this"], meet
        assert dropped(world) == {"dropped_expired": 20}
        assert world.stored() == definition


def test_nothing_expires_before_its_time():
    world = World(**SMALL)
    peer = world.client()
    peer.queue("q", durable=1)
    publish(peer, "q", *numbers(0, 6))
    world.broker.now += 900  # no tick since
    publish(peer, "q", "fresh", expiration="500")
    publish(peer, "q", "shorter than the clock is exact", expiration="10")
    world.broker.now += 10
    world.broker.tick()
    assert drain(peer, "q")[6:] == [b"fresh", b"shorter than the clock is exact"]


def test_each_queue_has_its_own_time_for_one_message():
    world = World(**SMALL)
    peer = world.client()
    for name, arguments in (("a", {"x-message-ttl": 2000}), ("b", {"x-message-ttl": 9000}),
                            ("c", {})):  # fmt: skip
        peer.queue(name, durable=1, arguments=arguments)
        peer.ask(wire.bind_queue(1, name, "amq.fanout"))
    publish(peer, "", *numbers(0, 9), exchange="amq.fanout")
    publish(peer, "", *numbers(0, 9), exchange="amq.fanout", expiration="5000")
    for ms, waiting in ((1500, (18, 18, 18)), (1500, (0, 18, 18)), (3000, (0, 18, 18)),
                        (4000, (0, 0, 9))):  # fmt: skip
        world.wait(ms)
        found = tuple([counts(peer, name, passive=1)[0] for name in ("a", "b", "c")])
        if waiting[2] == 18 and ms == 3000:
            # Those that expire are behind others in b, in front of nothing in c.
            assert found[0] == 0 and found[1] == 18 and found[2] == 18
        elif waiting == (0, 0, 9):
            assert found[:2] == (0, 0)
            assert drain(peer, "c") == numbers(0, 9)
        else:
            assert found == waiting, ms


def test_a_life_of_0_ms_is_never_stored():
    for profile in ({}, SMALL):
        world = World(**profile)
        peer = world.client()
        peer.queue("q", durable=1)
        peer.queue("ttl", durable=1, arguments={"x-message-ttl": 0})
        definitions = world.stored()
        peer.ask(wire.select_confirms(1))
        for body in ("small", "x" * 3000):
            assert publish(peer, "q", body, expiration="0") == ["basic.ack"]
            assert publish(peer, "ttl", body) == ["basic.ack"]
        assert dropped(world) == {"dropped_expired": 4}
        publish(peer, "q", "backlog", *numbers(0, 9))
        publish(peer, "q", "0", expiration="0")
        assert drain(peer, "q") == [b"backlog"] + numbers(0, 9)
        assert world.stored() == definitions
        peer.ask(wire.consume(1, "q", "c", no_ack=1) + wire.consume(1, "ttl", "d", no_ack=1))
        found = peer.bodies(
            wire.publish(1, "", "q", "1", wire.properties(delivery_mode=2, expiration="0"))
            + wire.publish(1, "", "ttl", "2", PERSISTENT)
        )
        assert found == [b"1", b"2"]
        assert world.stored() == definitions


def test_sectors_are_merged_between_publishes():
    # Merges call deep: below a publish the stack of a Pico W is too small for them.
    world = World(flash=RamFlash(6, 4096, 256))
    peer = world.client()
    peer.queue("archive", durable=1)
    peer.queue("q", durable=1)
    ring = world.broker.store.ring
    begin = ring.begin
    merged = []

    def watched(*given):
        before = ring.merges
        stored = begin(*given)
        merged.append(ring.merges - before)
        return stored

    ring.begin = watched
    for k in range(300):
        publish(peer, "q", bytes(200))
        if k % 12 == 0:
            publish(peer, "archive", b"%d" % k)
        drain(peer, "q")
    assert ring.merges > 2 and not any(merged), (ring.merges, sum(merged))
    assert drain(peer, "archive") == [b"%d" % k for k in range(0, 300, 12)]
