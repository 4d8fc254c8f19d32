"""Transactions of AMQP 0-9-1: what tx.commit does, what tx.rollback forgets, and their limits."""

import wire
from stored import PERSISTENT, SMALL, cut, drain, kept, look, numbers
from world import World, is_redelivered, tag_of

SELECT = wire.method(1, "tx.select")
COMMIT = wire.method(1, "tx.commit")
ROLLBACK = wire.method(1, "tx.rollback")


def start(*queues, **numbers):
    """A world, a peer in a transaction and another one; *queues* are durable."""
    world = World(**numbers)
    peer = world.client()
    for name in queues:
        peer.queue(name, durable=1)
    assert peer.names(SELECT) == ["tx.select-ok"]
    return world, peer, world.client()


def put(queue, *bodies, exchange="", mandatory=0, durable=True):
    given = (PERSISTENT,) if durable else ()
    return b"".join(
        [wire.publish(1, exchange, queue, body, *given, mandatory=mandatory) for body in bodies]
    )


def waiting(world, name=b"q"):
    return world.broker.queue(name).waiting()


def test_publishes_wait_for_the_commit():
    world, peer, other = start("q", "r")
    free = world.free()
    assert peer.names(put("q", b"1", b"2") + put("r", b"3")) == []
    assert waiting(world) == waiting(world, b"r") == 0
    assert world.broker.metrics.published == 0
    assert peer.names(COMMIT) == ["tx.commit-ok"]
    assert waiting(world) == 2 and waiting(world, b"r") == 1
    assert world.broker.metrics.published == 3
    # The next transaction has begun, and is empty.
    assert peer.names(COMMIT) == ["tx.commit-ok"]
    assert drain(other, "q") == [b"1", b"2"] and drain(other, "r") == [b"3"]
    assert world.free() == free


def test_a_rollback_drops_publishes():
    world, peer, other = start("q")
    free = world.free()
    assert peer.names(put("q", b"1", b"2") + ROLLBACK) == ["tx.rollback-ok"]
    assert world.free() == free
    assert peer.names(put("q", b"3") + COMMIT) == ["tx.commit-ok"]
    assert drain(other, "q") == [b"3"]


def held(peer, n):
    """The tags of *n* deliveries of a consumer of "q"."""
    found = peer.contents(wire.consume(1, "q", "c"))
    assert len(found) == n, found
    return [tag_of(content) for content in found]


def test_acknowledgements_wait_for_the_commit():
    world, peer, other = start("q")
    free = world.free()
    other.send(put("q", *numbers(0, 4)))
    tags = held(peer, 4)
    assert peer.names(wire.ack(1, tags[1]) + wire.ack(1, tags[2])) == []
    assert world.broker.queue(b"q").unacked == 4 and world.broker.metrics.acknowledged == 0
    assert peer.names(COMMIT) == ["tx.commit-ok"]
    assert world.broker.queue(b"q").unacked == 2 and world.broker.metrics.acknowledged == 2
    peer.vanish()
    assert drain(other, "q") == [b"0", b"3"]
    after = world.free()
    free["channels"] = after["channels"]
    assert after == free


def test_what_was_acknowledged_in_a_rolled_back_one_may_be_again():
    world, peer, other = start("q")
    other.send(put("q", *numbers(0, 5)))
    tags = held(peer, 5)
    assert peer.names(
        wire.ack(1, tags[3]) + wire.nack(1, tags[1], requeue=1) + wire.ack(1, tags[0]) + ROLLBACK
    ) == ["tx.rollback-ok"]
    assert [entry.tag for entry in entries(peer)] == tags
    # "multiple" goes by their order.
    assert peer.names(wire.ack(1, tags[3], multiple=1) + COMMIT) == ["tx.commit-ok"]
    assert [entry.tag for entry in entries(peer)] == tags[4:]
    assert peer.refused(wire.ack(1, tags[0])) == ("channel", 406)
    assert drain(other, "q") == [b"4"]


def entries(peer):
    found = []
    entry = peer.engine.channels[1].unacked.head
    while entry is not None:
        found.append(entry)
        entry = entry.next
    return found


def test_twice_settled_in_one_transaction_is_an_error():
    world, peer, other = start("q")
    other.send(put("q", b"1"))
    tags = held(peer, 1)
    peer.send(wire.ack(1, tags[0]))
    assert peer.refused(wire.ack(1, tags[0])) == ("channel", 406)
    content = other.contents(wire.get(1, "q", no_ack=1))[0]
    assert content[4] == b"1" and is_redelivered(content)


def test_nack_and_reject_are_in_it():
    world, peer, other = start("q")
    other.send(put("q", *numbers(0, 4)))
    tags = [tag_of(peer.contents(wire.get(1, "q"))[0]) for _ in range(4)]
    peer.send(wire.nack(1, tags[0], requeue=1) + wire.reject(1, tags[1], requeue=0))
    peer.send(wire.reject(1, tags[2], requeue=1) + wire.ack(1, tags[3]))
    assert waiting(world) == 0 and world.broker.metrics.dropped_rejected == 0
    assert peer.names(COMMIT) == ["tx.commit-ok"]
    assert world.broker.metrics.dropped_rejected == 1
    world, other = cut(world)
    assert drain(other, "q") == [b"0", b"2"]


def test_recover_does_not_wait():
    world, peer, other = start("q")
    other.send(put("q", *numbers(0, 3)))
    tags = [tag_of(peer.contents(wire.get(1, "q"))[0]) for _ in range(3)]
    peer.send(wire.ack(1, tags[0]))
    assert peer.names(wire.recover(1, requeue=1)) == ["basic.recover-ok"]
    assert waiting(world) == 2
    assert peer.names(COMMIT) == ["tx.commit-ok"]
    assert drain(other, "q") == [b"1", b"2"]


def test_closing_is_a_rollback():
    for end in ("channel", "connection", "silence"):
        world, peer, other = start("q")
        other.send(put("q", b"1", b"2"))
        tag = tag_of(peer.contents(wire.get(1, "q"))[0])
        peer.send(put("q", b"3") + wire.ack(1, tag))
        if end == "channel":
            assert peer.names(wire.close_channel(1)) == ["channel.close-ok"]
            assert peer.names(wire.open_channel(1)) == ["channel.open-ok"]
            assert peer.refused(COMMIT) == ("channel", 406), "a new channel has none"
        elif end == "connection":
            peer.send(wire.close_connection())
        else:
            peer.vanish()
        assert drain(other, "q") == [b"1", b"2"], end
        assert world.broker.queue(b"q").unacked == 0


def test_a_consumer_that_was_cancelled_gets_nothing_back():
    world, peer, other = start("q")
    other.send(put("q", b"1", b"2"))
    tags = held(peer, 2)
    peer.send(wire.ack(1, tags[0]) + wire.cancel(1, "c") + ROLLBACK)
    peer.take()
    assert peer.names(wire.ack(1, tags[1], multiple=1) + COMMIT) == ["tx.commit-ok"]
    assert waiting(world) == 0 and world.broker.queue(b"q").unacked == 0


def test_a_queue_that_was_deleted_meanwhile():
    world, peer, other = start("q")
    free = world.free()
    other.send(put("q", b"1"))
    tags = held(peer, 1)
    peer.send(wire.ack(1, tags[0]) + put("q", b"2"))
    other.send(wire.delete_queue(1, "q"))
    peer.take()
    assert peer.names(COMMIT) == ["tx.commit-ok"]
    assert world.broker.metrics.unroutable == 1
    peer.queue("q", durable=1)
    after = world.free()
    after["stored"] = free["stored"]
    assert after == free


def test_the_prefetch_of_the_channel_counts_what_is_in_the_transaction():
    world, peer, other = start("q")
    peer.send(wire.qos(1, 2, whole_channel=1))
    other.send(put("q", *numbers(0, 5)))
    peer.take()
    tags = held(peer, 2)
    assert peer.bodies(wire.ack(1, tags[0]) + wire.ack(1, tags[1])) == []
    names = peer.names(COMMIT)
    assert names.count("basic.deliver") == 2 and "tx.commit-ok" in names


def test_it_excludes_confirms():
    world, peer, other = start("q")
    assert peer.names(SELECT) == ["tx.select-ok"], "once more changes nothing"
    assert peer.refused(wire.select_confirms(1)) == ("channel", 406)
    assert other.names(wire.select_confirms(1)) == ["confirm.select-ok"]
    assert other.refused(SELECT) == ("channel", 406)
    third = world.client()
    assert third.refused(COMMIT) == ("channel", 406)
    third.ask(wire.method(1, "channel.close-ok") + wire.open_channel(1))
    assert third.refused(ROLLBACK) == ("channel", 406)


def test_mandatory_messages_come_back_before_the_commit_ok():
    world, peer, other = start("q")
    free = world.free()
    assert peer.names(put("nowhere", b"1", mandatory=1) + put("nowhere", b"2")) == []
    names = peer.names(put("q", b"3", mandatory=1) + COMMIT)
    assert names == ["basic.return", "header", "body", "tx.commit-ok"]
    assert world.broker.metrics.unroutable == 2
    assert drain(other, "q") == [b"3"]
    assert world.free() == free


def test_an_exchange_that_is_not_there_is_an_error_at_once():
    world, peer, other = start("q")
    peer.send(put("q", b"1"))
    assert peer.refused(put("q", b"2", exchange="nothing")) == ("channel", 404)
    assert waiting(world) == 0


def test_a_full_queue_refuses_the_whole():
    world, peer, other = start("q")
    peer.queue("few", durable=1, arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    free = world.free()
    other.send(put("q", b"0"))
    tag = tag_of(peer.contents(wire.get(1, "q"))[0])
    peer.send(wire.ack(1, tag) + put("few", b"1", b"2") + put("q", b"3") + put("few", b"4"))
    assert peer.refused(COMMIT) == ("channel", 406)
    assert drain(other, "few") == [] and drain(other, "q") == [b"0"]
    world.broker.store.ring.mark()
    assert waiting(look(world)) == 0
    peer.ask(wire.method(1, "channel.close-ok") + wire.open_channel(1) + SELECT)
    assert peer.names(put("few", b"1", b"2") + COMMIT) == ["tx.commit-ok"]
    peer.send(put("few", b"3"))
    assert peer.refused(COMMIT) == ("channel", 406)
    assert drain(other, "few") == [b"1", b"2"]
    peer.ask(wire.method(1, "channel.close-ok") + wire.open_channel(1))
    assert world.free() == free


def test_a_full_store_refuses_the_whole():
    world, peer, other = start("q", "r", **SMALL)
    while True:
        names = other.names(wire.select_confirms(1) + put("q", b"x" * 200))
        if "basic.nack" in names:
            break
    count = waiting(world)
    free = world.free()
    peer.send(put("r", b"x" * 60) + put("r", b"y" * 190))
    refused = peer.refused(put("r", b"z" * 190) + COMMIT)
    assert refused == ("channel", 406)
    assert waiting(world, b"r") == 0 and waiting(world) == count
    again = look(world)
    assert waiting(again, b"r") == 0 and waiting(again) == count
    free["channels"] = world.free()["channels"]
    assert world.free() == free
    # Of a restart it must not make another thing.
    assert drain(again.client(), "r") == []


def test_a_commit_is_on_flash_when_it_is_confirmed():
    world, peer, other = start("q", "r", "s")
    other.send(put("q", *numbers(0, 4)))
    other.ask(wire.bind_queue(1, "q", "amq.fanout") + wire.bind_queue(1, "r", "amq.fanout"))
    tags = held(peer, 4)
    peer.send(wire.ack(1, tags[0]) + wire.reject(1, tags[2], requeue=0))
    peer.send(put("s", b"x" * 700) + put("", b"4", exchange="amq.fanout") + put("s", b"5"))
    again = look(world)
    assert [waiting(again, name) for name in (b"q", b"r", b"s")] == [4, 0, 0]
    assert peer.names(COMMIT)[-1] == "tx.commit-ok"
    assert world.broker.store.ring.acks, "no mark is on flash yet"
    for _ in range(3):
        again = look(world)
        third = again.client()
        assert drain(third, "q") == [b"1", b"3", b"4"]
        assert drain(third, "r") == [b"4"]
        assert drain(third, "s") == [b"x" * 700, b"5"]
        assert kept(again) == 0
        world.broker.store.ring.mark()


def test_large_bodies_in_it():
    world, peer, other = start("q")
    free = world.free()
    bodies = [b"a" * 3000, b"b" * 40, b"c" * 900]
    assert peer.names(put("q", *bodies) + ROLLBACK) == ["tx.rollback-ok"]
    assert world.free() == free
    peer.send(put("q", *bodies))
    assert waiting(look(world)) == 0
    assert peer.names(COMMIT) == ["tx.commit-ok"]
    assert drain(look(world).client(), "q") == bodies
    got = peer.contents(wire.consume(1, "q", "c"))
    assert [content[4] for content in got] == bodies
    peer.send(wire.ack(1, 0, multiple=1))
    assert waiting(look(world)) == 3
    assert peer.names(COMMIT) == ["tx.commit-ok"]
    again = look(world)
    assert waiting(again) == 0 and kept(again) == 0
    peer.send(wire.cancel(1, "c"))
    assert world.free() == free


def test_transient_ones_and_queues_that_are_not_durable():
    world, peer, other = start("q")
    other.queue("t")
    other.ask(wire.bind_queue(1, "q", "amq.fanout") + wire.bind_queue(1, "t", "amq.fanout"))
    peer.send(put("", b"1", exchange="amq.fanout") + put("q", b"2", durable=False))
    peer.send(put("t", b"3"))
    assert peer.names(COMMIT) == ["tx.commit-ok"]
    assert drain(look(world).client(), "q") == [b"1"]
    assert drain(other, "q") == [b"1", b"2"] and drain(other, "t") == [b"1", b"3"]


def test_no_room_for_a_delivery_refuses_the_whole():
    world, peer, other = start("q", deliveries=8, messages=30)
    other.queue("t")
    peer.send(put("q", b"0") + put("t", b"1", b"2"))
    other.send(put("t", *numbers(0, 7), durable=False))
    assert peer.refused(COMMIT) == ("channel", 406)
    assert waiting(world) == 0 and waiting(world, b"t") == 7
    assert world.broker.promised == 0


def test_more_operations_than_the_bound():
    world, peer, other = start("q")
    free = world.free()
    bound = 1 + world.profile["deliveries"] // 4
    peer.send(put("q", *numbers(0, bound)))
    assert not peer.gone
    assert peer.refused(put("q", b"one more")) == ("connection", 506)
    peer.vanish()
    assert waiting(world) == 0 and other.works()
    free["channels"] += 1
    assert world.free() == free


def test_acknowledgements_are_operations():
    world, peer, other = start("q", deliveries=16)
    other.send(put("q", *numbers(0, 6)))
    held(peer, 6)
    assert peer.refused(wire.ack(1, 0, multiple=1)) == ("connection", 506)
    peer.vanish()
    assert len(drain(other, "q")) == 6


def test_more_memory_than_the_bound():
    world, peer, other = start("t", blocks=64)
    peer.queue("x")
    free = world.free()
    assert peer.refused(put("x", *[b"x" * 1000] * 4)) is None
    assert peer.refused(put("x", b"x" * 1000)) == ("connection", 506)
    peer.vanish()
    assert other.works()
    free["channels"] += 1
    assert world.free() == free


def test_more_transactions_than_the_bound():
    world = World(consumers=8, connections=6)
    peers = [world.client() for _ in range(5)]
    peers[0].queue("q")
    for peer in peers:
        assert peer.names(SELECT + put("q", b"1")[:0]) == ["tx.select-ok"]
    for peer in peers[:3]:
        assert peer.names(put("q", b"1")) == []
    # One that holds nothing does not count.
    assert peers[3].refused(put("q", b"1")) == ("connection", 506)
    assert peers[0].names(COMMIT) == ["tx.commit-ok"]
    assert peers[4].names(put("q", b"1") + COMMIT) == ["tx.commit-ok"]
    assert waiting(world) == 2


def test_a_store_that_fails_confirms_no_commit():
    from test_store_fails import Failing

    flash = Failing()
    world, peer, other = start("q", flash=flash)
    assert peer.names(put("q", b"1") + COMMIT) == ["tx.commit-ok"]
    flash.fails = "sync"
    assert peer.refused(put("q", b"2") + COMMIT) == ("channel", 406)
    peer.ask(wire.method(1, "channel.close-ok") + wire.open_channel(1) + SELECT)
    assert peer.refused(put("q", b"3") + COMMIT) == ("channel", 406)
    assert other.works()


def test_commits_sent_ahead_are_answered_in_order():
    world, peer, other = start("q")
    names = peer.names(put("q", b"1") + COMMIT + put("q", b"2") + ROLLBACK + COMMIT + SELECT)
    assert names == ["tx.commit-ok", "tx.rollback-ok", "tx.commit-ok", "tx.select-ok"]
    assert drain(other, "q") == [b"1"]


def test_transactions_go_on_for_many_turns_of_the_ring():
    world, peer, other = start("q", "r")
    peer.send(wire.consume(1, "q", "c") + wire.consume(1, "r", "d"))
    peer.take()
    free = world.free()
    other.queue("keep", durable=1)
    ring = world.broker.store.ring
    bodies = []
    for k in range(400):
        if k % 40 == 7:
            other.send(put("keep", b"%d" % k * 9))
        octets = put("q", b"x" * (20 + k % 150)) + put("r", b"y" * (k % 90))
        assert "tx.commit-ok" in peer.names(octets + COMMIT)
        assert peer.names(wire.ack(1, 0, multiple=1) + COMMIT) == ["tx.commit-ok"]
        if k % 50 == 49:
            again = look(world)
            assert waiting(again) == waiting(again, b"r") == 0
    assert ring.newest > 5 * ring.sectors and ring.merges + ring.copies > 0
    assert kept(world) == 10
    assert len(drain(other, "keep")) == 10 and not bodies
    other.send(wire.delete_queue(1, "keep"))
    after = world.free()
    assert after["blocks"] == free["blocks"] and after["entries"] == free["entries"]
