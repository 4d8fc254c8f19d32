"""Durable queues: their length, what a backlog costs, how it is consumed and deleted."""

import chance
import wire
from stored import SMALL, counts, cut, drain, dropped, get, kept, left, look, numbers, publish
from world import World, is_redelivered, tag_of


def test_a_full_queue_drops_its_head_wherever_that_is():
    for profile in ({}, SMALL):
        for durable in (0, 1):
            for mode in (1, 2):
                if not durable or mode == 1:
                    profile = {}
                world = World(**profile)
                peer = world.client()
                peer.queue("q", durable=durable, arguments={"x-max-length": 5})
                peer.queue("b", durable=durable, arguments={"x-max-length-bytes": 12})
                definitions = world.stored()
                peer.ask(wire.select_confirms(1))
                for queue in ("q", "b"):
                    sent = numbers(10, 40)
                    assert publish(peer, queue, *sent, delivery_mode=mode) == ["basic.ack"] * 30
                assert dropped(world) == {"dropped_max_length": 25 + 24}
                if durable and mode == 2:
                    world, peer = cut(world)
                    assert world.broker.queue(b"q").octets == 10
                    assert world.broker.queue(b"b").octets == 12
                    publish(peer, "q", "40", delivery_mode=mode)
                    publish(peer, "b", "forty", delivery_mode=mode)
                    assert dropped(world) == {"dropped_max_length": 1 + 3}
                    assert drain(peer, "q") == numbers(36, 41)
                    assert drain(peer, "b") == numbers(37, 40) + [b"forty"]
                else:
                    assert drain(peer, "q") == numbers(35, 40)
                    assert drain(peer, "b") == numbers(34, 40)
                assert world.broker.queue(b"q").octets == 0
                assert world.broker.queue(b"b").octets == 0
                assert world.stored() == definitions


def test_a_full_queue_refuses_wherever_its_messages_are():
    for profile in ({}, SMALL):
        for durable in (0, 1):
            for mode in (1, 2):
                world = World(**profile)
                peer = world.client()
                limit = 7 if durable and mode == 2 else 3
                for name, argument, most in (
                    ("q", "x-max-length", limit),
                    ("b", "x-max-length-bytes", 2 * limit + 1),
                ):
                    arguments = {argument: most, "x-overflow": "reject-publish"}
                    peer.queue(name, durable=durable, arguments=arguments)
                definitions = world.stored()
                peer.ask(wire.select_confirms(1))
                right = ["basic.ack"] * limit + ["basic.nack"] * 3
                for queue in ("q", "b"):
                    sent = numbers(10, 13 + limit)
                    assert publish(peer, queue, *sent, delivery_mode=mode) == right
                assert dropped(world) == {"refused_max_length": 6}
                if durable and mode == 2:
                    world, peer = cut(world)
                    peer.ask(wire.select_confirms(1))
                for queue in ("q", "b"):
                    assert publish(peer, queue, "no", delivery_mode=mode) == ["basic.nack"]
                    content = get(peer, queue)
                    # Whoever holds it may give it back, so the place is taken again only later.
                    assert publish(peer, queue, "in", delivery_mode=mode) == ["basic.ack"]
                    assert publish(peer, queue, "no", delivery_mode=mode) == ["basic.nack"]
                    peer.send(wire.ack(1, tag_of(content)))
                    assert drain(peer, queue) == numbers(11, 10 + limit) + [b"in"]
                assert world.stored() == definitions


def test_one_queue_that_refuses_does_not_keep_the_others_from_it():
    world = World()
    peer = world.client()
    peer.queue("full", durable=1, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    peer.queue("q", durable=1)
    for name in ("full", "q"):
        peer.ask(wire.bind_queue(1, name, "amq.fanout"))
    peer.ask(wire.select_confirms(1))
    assert publish(peer, "", "1", "2", exchange="amq.fanout") == ["basic.ack", "basic.nack"]
    world, peer = cut(world)
    assert drain(peer, "full") == [b"1"]
    assert drain(peer, "q") == [b"1", b"2"]


def test_a_slow_queue_with_a_length_does_not_pin_the_ring():
    world = World(**SMALL)
    peer = world.client()
    peer.queue("slow", durable=1, arguments={"x-max-length": 10})
    peer.queue("fast", durable=1)
    for name in ("slow", "fast"):
        peer.ask(wire.bind_queue(1, name, "amq.fanout"))
    definitions = world.stored()
    peer.ask(wire.select_confirms(1))
    count = 4 * 16 * 1024 // 200  # four turns
    for k in range(count):
        assert publish(peer, "", b"%d" % k + b"x" * 150, exchange="amq.fanout") == ["basic.ack"]
        assert len(drain(peer, "fast")) == 1
    assert dropped(world) == {"dropped_max_length": count - 10}
    world, peer = cut(world)
    assert [int(body[:-150]) for body in drain(peer, "slow")] == list(range(count - 10, count))
    assert world.stored() == definitions


# --- the backlog ---


def fill(world, peer, size=60):
    """Publish until the ring is full: the bodies that were confirmed."""
    bodies = []
    while True:
        body = b"%d " % len(bodies) + b"x" * size
        if publish(peer, "q", body) != ["basic.ack"]:
            return bodies
        bodies.append(body)


def test_a_full_ring_costs_no_more_memory_than_a_few_messages():
    world = World(**SMALL)
    peer = world.client()
    peer.queue("q", durable=1)
    peer.ask(wire.select_confirms(1))
    publish(peer, "q", *[b"%d " % k + b"x" * 60 for k in range(10)])
    few = world.free()
    bodies = fill(world, peer)
    assert len(bodies) > 100
    many = world.free()
    for key in few:
        assert few[key] == many[key] or key == "stored", key
    assert dropped(world) == {"dropped_store_full": 1}
    assert counts(peer, "q", durable=1) == (10 + len(bodies), 0)
    assert world.broker.queue(b"q").octets == sum([len(body) for body in bodies[:10] + bodies])
    world, peer = cut(world)
    assert world.broker.queue(b"q").octets == sum([len(body) for body in bodies[:10] + bodies])
    assert world.broker.entries.free == world.broker.entries.size
    assert drain(peer, "q") == bodies[:10] + bodies


def test_a_full_ring_refuses_and_goes_on_when_something_was_taken():
    world = World(**SMALL)
    peer = world.client()
    peer.queue("q", durable=1)
    definition = world.stored()
    peer.ask(wire.select_confirms(1))
    bodies = fill(world, peer)
    for _ in range(5):
        half = len(bodies) // 2
        for body in bodies[:half]:
            assert peer.bodies(wire.get(1, "q", no_ack=1)) == [body]
        bodies = bodies[half:] + fill(world, peer)
        world, peer = cut(world)
        peer.ask(wire.select_confirms(1))
    assert drain(peer, "q") == bodies
    assert world.stored() == definition


def test_a_backlog_blocks_no_publisher():
    world = World(**SMALL)
    peer = world.client()
    peer.queue("q", durable=1)
    peer.queue("t")
    peer.ask(wire.select_confirms(1))
    fill(world, peer)
    for k in range(20):
        assert publish(peer, "t", b"%d" % k, delivery_mode=1) == ["basic.ack"]
        assert drain(peer, "t") == [b"%d" % k]
    assert not peer.engine.stalled and not peer.unsent()


def test_consumers_that_hold_all_memory_are_given_the_rest_later():
    world = World(**SMALL)
    peer = world.client()
    peer.queue("q", durable=1)
    peer.ask(wire.select_confirms(1))
    publish(peer, "q", *numbers(0, 50))
    other = world.client()
    found = other.contents(wire.consume(1, "q", "c"))
    assert 0 < len(found) <= SMALL["deliveries"]
    # The one who publishes is served, whatever the other one holds.
    seen = []
    while found:
        seen += [content[4] for content in found]
        found = other.contents(wire.ack(1, tag_of(found[-1]), multiple=1))
    assert seen == numbers(0, 50)


def test_transient_ones_that_hold_all_memory_leave_some_to_fetch_with():
    world = World(**SMALL)
    peer = world.client()
    peer.queue("q", durable=1)
    peer.queue("nobody's")
    publish(peer, "q", *numbers(0, 20))
    world, peer = cut(world)
    publisher = world.client()
    publisher.queue("nobody's")
    publish(publisher, "nobody's", *numbers(0, 10), delivery_mode=1)
    assert publisher.engine.stalled
    found = peer.contents(wire.consume(1, "q", "c", no_ack=1))
    assert [content[4] for content in found] == numbers(0, 20)


def test_transient_ones_keep_their_order_while_a_backlog_is_on_flash():
    world = World(messages=10, deliveries=10, blocks=32)
    peer = world.client()
    peer.queue("q", durable=1)
    definition = world.stored()
    publish(peer, "q", *numbers(0, 20))
    publish(peer, "q", "20", delivery_mode=1)
    publish(peer, "q", *numbers(21, 40))
    publish(peer, "q", "40", "41", delivery_mode=1)
    publish(peer, "q", "42")
    assert drain(peer, "q") == numbers(0, 43)
    assert world.stored() == definition


def test_prefetch_holds_for_the_backlog():
    world = World(**SMALL)
    peer = world.client()
    peer.queue("q", durable=1)
    publish(peer, "q", *numbers(0, 40))
    found = peer.contents(wire.qos(1, 3) + wire.consume(1, "q", "c"))
    before = world.free()
    for k in range(40):
        assert len(found) == min(3, 40 - k)
        assert [content[4] for content in found] == numbers(k, min(k + 3, 40))
        assert counts(peer, "q", passive=1) == (max(0, 37 - k), 1)
        found = found[1:] + peer.contents(wire.ack(1, tag_of(found[0])))
        if k < 30:
            now = world.free()
            assert now["entries"] >= before["entries"] - 1
    assert found == []


def test_consumers_share_a_backlog():
    world = World(**SMALL)
    peer = world.client()
    peer.queue("q", durable=1)
    publish(peer, "q", *numbers(0, 60))
    peers = [world.client(), world.client()]
    seen = []
    held = []
    for one in peers:
        one.ask(wire.qos(1, 2))
        held.append(one.contents(wire.consume(1, "q", "c")))
    while held[0] or held[1]:
        for k in range(2):
            if held[k]:
                seen.append([content[4] for content in held[k]])
                tag = tag_of(held[k][-1])
                held[k] = peers[k].contents(wire.ack(1, tag, multiple=1))
        # An ack of one may bring messages to the other.
    both = sum([len(some) for some in seen])
    assert both == 60 and sorted(sum(seen, [])) == sorted(numbers(0, 60))
    for some in seen:
        assert sorted([int(body) for body in some]) == [int(body) for body in some]


def test_basic_get_counts_what_is_left():
    for profile in ({}, SMALL):
        world = World(**profile)
        peer = world.client()
        peer.queue("q", durable=1)
        publish(peer, "q", *numbers(0, 12))
        for k in range(6):
            content = get(peer, "q")
            assert (content[4], left(content)) == (b"%d" % k, 11 - k)
            peer.send(wire.ack(1, tag_of(content)))
        world, peer = cut(world)
        assert counts(peer, "q", durable=1) == (6, 0)
        assert left(get(peer, "q")) == 5


def test_purge_takes_all_that_waits_and_nothing_else():
    for profile in ({}, SMALL):
        world = World(**profile)
        peer = world.client()
        for name in ("q", "other"):
            peer.queue(name, durable=1)
            peer.ask(wire.bind_queue(1, name, "amq.fanout"))
        publish(peer, "", *numbers(0, 20), exchange="amq.fanout")
        held = get(peer, "q")
        frames = peer.ask(wire.purge_queue(1, "q"))
        assert frames[0][2] == b"\0\0\0\x13"
        queue = world.broker.queue(b"q")
        assert (queue.waiting(), queue.octets) == (0, 0)
        publish(peer, "q", "new")
        peer.send(wire.nack(1, tag_of(held)))
        world, peer = cut(world)
        assert drain(peer, "q") == [b"0", b"new"]
        assert drain(peer, "other") == numbers(0, 20)


def test_deleted_is_deleted():
    def check(again, profile):
        world = World(**profile)
        peer = world.client()
        other = world.client()
        for name in ("keep", "q"):
            peer.queue(name, durable=1)
            peer.ask(wire.bind_queue(1, name, "amq.fanout"))
        publish(peer, "", *numbers(0, 20), exchange="amq.fanout")
        other.ask(wire.qos(1, 3))
        found = other.contents(wire.consume(1, "q", "c"))
        assert len(found) == 3
        frames = peer.ask(wire.delete_queue(1, "q"))
        assert frames[0][2] == b"\0\0\0\x11"
        assert dropped(world) == {"dropped_queue_deleted": 17}
        if again:
            peer.queue("q", durable=1)
            publish(peer, "q", "new")
        # A cut right here, and what the consumer may still do.
        after = look(world)
        peer_after = after.client()
        if again:
            assert drain(peer_after, "q") == [b"new"]
        assert (b"q" in after.broker.queues) == again
        assert drain(peer_after, "keep") == numbers(0, 20)
        other.send(wire.ack(1, tag_of(found[0])) + wire.nack(1, tag_of(found[1])))
        other.vanish()
        assert drain(peer, "keep") == numbers(0, 20)
        if again:
            assert drain(peer, "q") == [b"new"]
        world, peer = cut(world)
        assert sorted(world.broker.queues) == [b"keep", b"q"] if again else [b"keep"]
        assert drain(peer, "keep") == []
        if again:
            assert drain(peer, "q") == []
            peer.ask(wire.delete_queue(1, "q"))
        peer.ask(wire.delete_queue(1, "keep"))
        assert world.stored() == 0

    for again in (False, True):
        check(again, {})
        check(again, SMALL)


def test_exclusive_queues_are_not_stored():
    world = World()
    peer = world.client()
    before = world.stored()
    peer.queue("q", durable=1, exclusive=1)
    peer.ask(wire.bind_queue(1, "q", "amq.fanout"))
    publish(peer, "q", "1", "2")
    assert world.stored() == before
    assert drain(peer, "q") == [b"1", b"2"]
    peer.queue("q", durable=1, exclusive=1)
    assert list(world.restart().broker.queues) == []


def test_auto_delete_queues_go_with_their_last_consumer_also_later():
    world = World(**SMALL)
    peer = world.client()
    before = world.free()
    peer.queue("q", durable=1, auto_delete=1)
    publish(peer, "q", *numbers(0, 20))
    world, peer = cut(world)
    assert world.broker.queue(b"q").auto_delete
    found = peer.contents(wire.qos(1, 2) + wire.consume(1, "q", "c"))
    assert [content[4] for content in found] == numbers(0, 2)
    peer.ask(wire.cancel(1, "c"))
    assert list(world.broker.queues) == []
    assert dropped(world) == {"dropped_queue_deleted": 18}
    peer.send(wire.ack(1, 0, multiple=1))
    assert world.free() == before
    world, peer = cut(world)
    assert world.free() == before


def test_unused_queues_expire_with_what_is_in_them():
    world = World(**SMALL)
    peer = world.client()
    before = world.free()
    peer.queue("q", durable=1, arguments={"x-expires": 5000})
    publish(peer, "q", *numbers(0, 20))
    world.wait(4000)
    world, peer = cut(world)
    world.wait(4000)
    assert counts(peer, "q", passive=1) == (20, 0)
    world.wait(8000)
    assert world.free() == before
    assert dropped(world) == {"dropped_queue_deleted": 20}


def test_octets_that_went_bad_are_counted_and_cost_nothing_else():
    for which in (0, 7, 19):
        world = World(**SMALL)
        peer = world.client()
        peer.queue("q", durable=1)
        definition = world.stored()
        publish(peer, "q", *[b"message %02d" % k for k in range(20)])
        world, peer = cut(world)
        at = bytes(world.flash.buf).find(b"message %02d" % which)
        world.flash.buf[at] ^= 1
        found = drain(peer, "q")
        assert found == [b"message %02d" % k for k in range(20) if k != which]
        assert dropped(world) == {"dropped_corrupt": 1}
        queue = world.broker.queue(b"q")
        assert (queue.waiting(), queue.octets) == (0, 0)
        publish(peer, "q", "new")
        assert drain(peer, "q") == [b"new"]
        world, peer = cut(world)
        assert drain(peer, "q") == []
        assert world.stored() == definition


# --- all of it at random, against a list ---


class Model:
    """What each queue should hold: [number, persistent, seen] in order, and who holds what."""

    def __init__(self, names):
        self.waiting = {name: [] for name in names}
        self.held = {}  # delivery tag -> (queue, item)

    def give_back(self, name, item):
        item[2] = True
        rows = self.waiting[name]
        rows.append(item)
        rows.sort(key=lambda row: row[0])

    def cut(self):
        """The power was off: transient ones are lost, all others may have been seen."""
        for tag in sorted(self.held):
            self.give_back(*self.held[tag])
        self.held = {}
        for name in self.waiting:
            self.waiting[name] = [row for row in self.waiting[name] if row[1]]
            for row in self.waiting[name]:
                row[2] = True


def random_walk(steps, **profile):
    below = chance.seeded().randrange
    names = ["a", "b", "c"]
    model = Model(names)
    world = World(**profile)
    peer = world.client()
    for name in names:
        peer.queue(name, durable=1)
        peer.ask(wire.bind_queue(1, name, "amq.fanout"))
    peer.ask(wire.select_confirms(1))
    sequence = 0
    refused = 0
    for _ in range(steps):
        act = below(20)
        name = names[below(3)]
        rows = model.waiting[name]
        if act < 8:
            persistent = below(4) > 0
            if not persistent and world.broker.entries.free < 12:
                continue  # what waits on flash needs some, or it is never read
            fan = below(3) == 0
            body = b"%d " % sequence + b"x" * below(60 if below(8) else 1500)
            if not persistent:
                body = body[:60]
            total = sum([len(model.waiting[key]) for key in names])
            if total > 60:
                continue
            exchange = "amq.fanout" if fan else ""
            verdict = publish(peer, name, body, exchange=exchange, delivery_mode=1 + persistent)
            if verdict == ["basic.nack"]:
                refused += 1
                assert world.broker.metrics.dropped_store_full == refused
                continue
            assert verdict == ["basic.ack"], "a publisher is held up"
            for key in names if fan else [name]:
                model.waiting[key].append([sequence, persistent, False])
            sequence += 1
        elif act < 13:
            if len(model.held) >= 3:
                continue
            found = peer.contents(wire.get(1, name))
            if not rows:
                assert found == []
                continue
            item = rows.pop(0)
            assert int(found[0][4].split(b" ")[0]) == item[0], name
            assert is_redelivered(found[0]) == item[2], (name, item)
            assert left(found[0]) == len(rows)
            model.held[tag_of(found[0])] = (name, item)
        elif act < 16 and model.held:
            tag = sorted(model.held)[below(len(model.held))]
            peer.send(wire.ack(1, tag))
            del model.held[tag]
        elif act < 18 and model.held:
            tag = sorted(model.held)[below(len(model.held))]
            peer.send(wire.nack(1, tag))
            model.give_back(*model.held.pop(tag))
        elif act == 18 and not below(4):
            peer.ask(wire.purge_queue(1, name))
            model.waiting[name] = []
        elif act == 19 and not below(3):
            world, peer = cut(world)
            model.cut()
            peer.ask(wire.select_confirms(1))
            refused = 0
    world, peer = cut(world)
    model.cut()
    for name in names:
        found = [int(body.split(b" ")[0]) for body in drain(peer, name)]
        assert found == [row[0] for row in model.waiting[name]], name
        assert world.broker.queue(name.encode()).octets == 0
    assert kept(world) == 0


def test_random_walks():
    for _ in range(4):
        random_walk(200)
        random_walk(200, messages=20, deliveries=20, blocks=160)
