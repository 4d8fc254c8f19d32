"""What a review of AMQP 1.0 found: each test failed once."""

import wire
import wire10
from amqp_lite.broker.transaction import ledger_of
from amqp_lite.v10.connection import Connection
from amqp_lite.v10.performatives import RELEASED, uint
from amqp_lite.v10.values import Symbol, Typed
from clients10 import (
    Client,
    ask,
    connect,
    deliveries,
    names,
    outcomes,
    receiver,
    sender,
    session,
    take,
)
from sessions10 import acquire
from stored import drain, look
from test_v10_management import Manager
from test_v10_sources import KEY, SELECTOR, bodies, filters
from test_v10_transactions import declare, discharge, result, start
from wire10 import HEADER, message, transfer
from world import Peer, World


def test_a_dynamic_node_that_is_gone_takes_no_other_queue_with_it():
    world = World()
    manager = Manager(world)
    peer = manager.peer
    found = ask(peer, wire10.attach_sender("dynamic", None, 0, dynamic=True))
    address = found[0][2][6].value[0]
    assert manager.ask("DELETE", address)[0] == "200"
    other = world.client()
    other.queue("victim")
    ask(peer, wire10.detach(0))
    assert sorted(world.broker.queues) == [b"victim"]


def test_a_browser_stays_with_its_queue():
    world = World()
    other = world.client()
    other.queue("q")
    peer = session(world)
    assert receiver(peer, "/queues/q", 10, mode="copy") == []
    # In one go, so that nobody looks in between.
    other.send(
        wire.delete_queue(1, "q") + wire.declare_queue(1, "secret", exclusive=1)
        + wire.publish(1, "", "secret", b"secret")
    )  # fmt: skip
    found = take(peer)
    assert names(found) == ["detach"], found


def test_a_subscription_found_again_and_deleted_by_others():
    world = World()
    peer = session(world, container="box")
    ask(peer, wire10.attach_receiver("sub", "/exchange/amq.topic/a", 1, durable=2, expiry="never"))
    ask(peer, wire10.detach(1, closed=False))
    ask(peer, wire10.attach_receiver("sub", wire10.NO_SOURCE, 1))
    other = world.client()
    other.ask(wire.delete_queue(1, "box.sub"))
    other.queue("victim")
    ask(peer, wire10.detach(1))
    assert sorted(world.broker.queues) == [b"victim"]


def test_a_store_that_failed_before_rejects_nothing_that_is_taken():
    world = World()
    world.client().queue("q")
    peer = session(world)
    sender(peer, "/queues/q")
    world.broker.store.fail()
    assert outcomes(ask(peer, transfer(message(b"1"), 0))) == [(0, 0, True, 0x24)]


def test_a_window_that_one_link_opens_is_open_for_all():
    world = World()
    other = world.client()
    other.queue("a")
    other.queue("b")
    peer = session(world)
    ask(peer, wire10.end() + wire10.begin(window=1))
    for handle, name in ((0, "a"), (1, "b")):
        ask(peer, wire10.attach_receiver(name, "/queues/" + name, handle))
        ask(
            peer,
            wire10.flow(0, uint(0), uint(1), uint(0), uint(9), uint(handle), uint(0), uint(9)),
        )
    other.ask(wire.publish(1, "", "a", b"1"))
    other.ask(wire.publish(1, "", "b", b"2"))
    assert bodies(deliveries(take(peer))) == [b"1"]
    found = ask(
        peer, wire10.flow(0, uint(1), uint(9), uint(0), uint(9), uint(0), uint(1), uint(9))
    )
    assert bodies(deliveries(found)) == [b"2"]


def test_a_txn_id_of_another_type():
    world, peer, other = start("q")
    receiver(peer, "/queues/q", 1)
    declare(peer, 0)
    head = uint(0), uint(9), uint(0), uint(9), uint(1), uint(0), uint(9), None, None, None
    # A key that no dict has.
    odd = Typed(0xC1, [(Typed(0xC0, []), True)])
    assert ask(peer, wire10.flow(0, *head, odd)) == []
    for odd in (b"", [], {}, "x", 5, [1, {"a": 2}]):
        found = ask(peer, wire10.flow(0, *head, {Symbol("txn-id"): odd}))
        assert names(found) == ["detach"], found
        assert wire10.error_of(found[0]) == "amqp:transaction:unknown-id"
        ask(peer, wire10.detach(1))
        receiver(peer, "/queues/q", 1)


def test_drain_of_credit_beyond_30_bits():
    world = World()
    world.client().queue("q")
    for credit in (0x3FFFFFFF, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        peer = session(world)
        sender(peer, "/queues/q")
        receiver(peer, "/queues/q", 5)
        for k in range(3):
            ask(peer, transfer(message(b"1"), k))
        found = ask(peer, wire10.credit(1, credit, 3, drain=True))
        (flow,) = [row for row in found if row[0] == "flow"]
        assert flow[2][5] == 3 + credit & 0xFFFFFFFF and flow[2][6] == 0, (credit, flow)
        # And it counts on from there.
        found = ask(
            peer,
            transfer(message(b"2"), 3) + wire10.credit(1, 5, 3 + credit & 0xFFFFFFFF, echo=True),
        )
        assert names(found) == ["transfer", "disposition", "flow"], found
        assert found[2][2][5:8] == [4 + credit & 0xFFFFFFFF, 4, 0]
        ask(peer, wire10.disposition(0, 3))
        peer.vanish()


def test_what_a_dying_connection_holds_is_given_back_once():
    world = World()
    other = world.client()
    other.queue("q")
    for octets in (b"", wire10.end()):
        peer = session(world)
        receiver(peer, "/queues/q", 1, "one", 0)
        receiver(peer, "/queues/q", 5, "two", 1)
        receiver(peer, "/queues/q", 5, "three", 2)
        other.ask(wire.publish(1, "", "q", b"1"))
        assert len(deliveries(take(peer))) == 1
        before = world.broker.metrics.delivered
        found = ask(peer, octets)
        assert names(found) == ["end"] * bool(octets)
        peer.vanish()
        assert world.broker.metrics.delivered == before
        assert world.broker.queue(b"q").ready.head.tries == 1
        other.ask(wire.purge_queue(1, "q"))


def test_a_filter_that_a_queue_cannot_have_is_left_out():
    world = World()
    world.client().queue("q")
    peer = session(world)
    octets = wire10.attach_receiver("r", "/queues/q", 1, filter=filters(KEY, "a.#"))
    found = ask(peer, octets)
    assert found[0][2][5].value[7] == {}
    # Nor does the key in an address leave room for another one.
    octets = wire10.attach_receiver("s", "/exchange/amq.topic/a", 2, filter=filters(KEY, "b"))
    assert ask(peer, octets)[0][2][5].value[7] == {}


def test_a_connection_has_as_many_links_as_there_is_memory_for():
    world = World()
    free = world.free()
    peer = session(world)
    ask(peer, b"".join([wire10.begin(k) for k in range(1, 8)]))
    taken = 0
    for k in range(128):
        found = ask(peer, wire10.attach_sender("s%d" % k, None, k & 15, k >> 4))
        if names(found) == ["attach", "flow"]:
            taken += 1
        else:
            assert names(found) == ["attach", "detach"]
            assert wire10.error_of(found[1]) == "amqp:resource-limit-exceeded"
            assert names(ask(peer, transfer(message(b"1"), 0, k & 15, k >> 4))) == []
    assert taken == 2 * world.profile["consumers"]
    # Those that were refused are there until they are detached.
    assert ask(peer, wire10.detach(15, 7)) == []
    assert names(ask(peer, wire10.detach(0) + wire10.attach_sender("n", None, 0))) == [
        "detach", "attach", "detach",
    ]  # fmt: skip
    ask(peer, wire10.end(7))
    peer.vanish()
    assert world.free() == free


def test_settled_deliveries_are_acquired_like_others():
    for fail in (None, True):
        world, peer, other = start("q")
        free = world.free()
        for k in range(3):
            other.send(wire.publish(1, "", "q", b"%d" % k, wire.properties(delivery_mode=2)))
        ask(peer, wire10.attach_receiver("down", "/queues/q", 1, settle=1))
        work = declare(peer, 0)
        found = deliveries(ask(peer, acquire(work, 1, 2)))
        assert [row[1] for row in found] == [True, True] and bodies(found) == [b"0", b"1"]
        assert result(ask(peer, discharge(work, 1, fail)), 1) is None
        assert drain(look(world).client(), "q") == ([b"0", b"1", b"2"] if fail else [b"2"])
        ask(peer, wire10.detach(1))
        assert drain(other, "q") == ([b"0", b"1", b"2"] if fail else [b"2"])
        assert world.free() == free


def test_a_drain_ends_where_the_transaction_is_full():
    world, peer, other = start("q")
    for _ in range(40):
        other.send(wire.publish(1, "", "q", b"m"))
    ask(peer, wire10.attach_receiver("down", "/queues/q", 1))
    work = declare(peer, 0)
    octets = wire10.flow(
        0, uint(0), uint(1000), uint(0), uint(1000), uint(1), uint(0), uint(40), None, True, None,
        {Symbol("txn-id"): work},
    )  # fmt: skip
    found = ask(peer, octets)
    most = ledger_of(world.broker).operations
    assert most < 40 and names(found) == ["transfer"] * most + ["flow"], names(found)
    assert found[-1][2][5:9] == [40, 0, 0, True]
    assert result(ask(peer, discharge(work, 1)), 1) is None
    assert len(deliveries(ask(peer, wire10.credit(1, 40, 40)))) == 40 - most


def test_what_waits_for_a_commit_is_bounded():
    world = World()
    world.client().queue("q", durable=1)
    peer = session(world)
    credit = sender(peer, "/queues/q")
    world.broker.store.gather_ms = 60000
    inner = next(iter(peer.engine.sessions.values()))
    for k in range(1000):
        # Every other one settled, so that no two answers are one.
        found = ask(peer, transfer(message(b"m", durable=k % 50 == 0), k, settled=k & 1 == 1))
        assert "disposition" not in names(found)
        credit += sum([row[2][6] - credit + 1 for row in found if row[0] == "flow"]) - 1
        if k % 20 == 0:
            world.broker.queue(b"q").purge()
        if not credit:
            break
    assert k < 500 and len(inner._accepted) < 128
    found = []
    while inner._accepted:
        world.wait(60000)
        found += take(peer)
    assert names(found).count("disposition") == k // 2 + 1 and names(found)[-1] == "flow"


def test_a_source_that_may_not_be_read_makes_no_queue():
    world = World()
    peer = connect(world)
    ask(peer, wire10.init(b"\0sensor\0secret") + HEADER + wire10.open_connection())
    found = ask(peer, wire10.begin() + wire10.attach_receiver("r", "/queue/sensors.b"))
    assert wire10.error_of(found[-1]) == "amqp:unauthorized-access", found
    assert not world.broker.queues
    assert names(ask(peer, wire10.attach_receiver("s", "/queue/sensors.a", 1))) == ["attach"]


def test_what_a_selector_left_is_not_looked_at_for_each_message():
    world = World()
    other = world.client()
    other.queue("q")
    looks = []
    for credit in (10, 0):
        peer = session(world)
        given = filters(SELECTOR, "k = 7")
        for k in range(20):
            other.send(wire.publish(1, "", "q", b"%d" % k))
        assert receiver(peer, "/queues/q", credit, filter=given) == []
        link = peer.engine.sessions[0].links[1]
        selects = link._selects
        looks.clear()
        link._selects = lambda message, old=selects: looks.append(1) or old(message)
        for k in range(20):
            other.send(wire.publish(1, "", "q", b"%d" % k))
        assert len(looks) == (20 if credit else 0)
        # What it does select it gets at once, or with its credit; also what comes back.
        seven = wire.properties(headers={"k": 7})
        other.send(wire.publish(1, "", "q", b"7", seven))
        found = deliveries(take(peer) + ask(peer, wire10.credit(1, 10, int(credit > 0))))
        assert bodies(found) == [b"7"]
        ask(peer, wire10.disposition(0, None, RELEASED))
        found = deliveries(take(peer) + ask(peer, wire10.credit(1, 10, 1)))
        peer.vanish()
        assert world.broker.queue(b"q").purge() == 41


def test_browsing_does_not_show_what_has_expired():
    world = World()
    other = world.client()
    other.queue("q")
    other.ask(wire.publish(1, "", "q", b"1"))
    other.ask(wire.publish(1, "", "q", b"2", wire.properties(expiration="10")))
    world.wait(3000)
    peer = session(world)
    assert bodies(receiver(peer, "/queues/q", 10, mode="copy")) == [b"1"]


def test_the_channel_max_of_one_peer_is_not_that_of_the_next():
    world = World()
    engine = Connection(world.broker, world.access, world.profile, "edge-1", (b"/",))
    for most in (0, None):
        peer = Client(world, engine)
        world.peers.append(peer)
        engine.open("127.0.0.1", world.broker.now + 9000)
        login = wire10.init() + HEADER + wire10.open_connection(channel_max=most)
        found = ask(peer, login)[-1]
        assert found[0] == "open" and found[2][3] == (7 if most is None else 0), found
        Peer.vanish(peer)
        world.engines.remove(engine)
