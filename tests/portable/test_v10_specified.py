"""What a review of AMQP 1.0 against its specification found: each test failed once."""

import wire10
from amqp_lite.broker.transaction import ledger_of
from amqp_lite.v091.codec import shortstr
from amqp_lite.v10.performatives import ACCEPTED, TRANSFER, described, uint
from amqp_lite.v10.servicebus.publish import publish as publish_to_bus
from amqp_lite.v10.values import Symbol, Typed
from clients10 import ask, deliveries, outcomes, receiver, sender, session, take
from sessions10 import state
from test_v10_sources import SELECTOR, filters, publish
from test_v10_transactions import (
    commit,
    declare,
    discharge,
    post,
    result,
    start,
    states,
    waiting,
)
from wire10 import AMQP, frame, message, transfer
from world import World

# --- counters ---


def test_a_discharge_confirms_no_message():
    world, peer, _ = start("q")
    sender(peer, "/queues/q")
    work = declare(peer, 0)
    ask(peer, post(work, message(b"1", durable=True), 1))
    assert commit(peer, work, 2) is None
    assert world.broker.metrics.confirmed == 0
    work = declare(peer, 3)
    found = ask(peer, transfer(message(b"2", durable=True), 4) + discharge(work, 5))
    assert outcomes(found) == [(4, 5, True, ACCEPTED)], found  # both in one
    assert world.broker.metrics.confirmed == 1


def test_what_a_subscription_does_not_select_is_counted():
    world = World()
    peer = session(world)
    chosen = filters(SELECTOR, "colour = 'red'")
    receiver(peer, "/exchange/amq.topic/a.*", 10, filter=chosen)
    other = session(world)
    sender(other, None)
    for k, colour in enumerate(("red", "blue", "blue")):
        publish(other, k, b"x", headers={"colour": colour})
    assert len(deliveries(take(peer))) == 1
    assert world.broker.metrics.dropped_unselected == 2


# --- transfers ---


def test_a_message_of_another_format_is_rejected():
    world = World()
    world.client().queue("q")
    peer = session(world)
    sender(peer, "/queues/q")
    batch = frame(
        AMQP, 0, described(
            TRANSFER, uint(0), uint(0), b"t", Typed(0x70, 0x80013700), None, None
        ) + message(message(b"inside")),
    )  # fmt: skip
    assert result(ask(peer, batch), 0) == "amqp:not-implemented"
    assert outcomes(ask(peer, transfer(message(b"x"), 1))) == [(1, 1, True, ACCEPTED)]


def test_the_payload_of_an_aborted_transfer_is_for_nobody():
    world = World(message_max=600)
    world.client().queue("q")
    peer = session(world)
    sender(peer, "/queues/q")
    half = message(b"x" * 500)
    found = ask(
        peer, transfer(half, 0, more=True) + transfer(half, None, tag=None, aborted=True)
        + transfer(message(b"y"), 1),
    )  # fmt: skip
    assert outcomes(found) == [(1, 1, True, ACCEPTED)], found
    assert receiver(peer, "/queues/q", 5) == [(0, False, message(b"y"))]


def test_a_settled_message_to_nowhere_ends_its_anonymous_link():
    world = World()
    world.client().queue("q")
    peer = session(world)
    sender(peer, None)
    assert ask(peer, transfer(message(b"1", to="/queues/q"), 0, settled=True)) == []
    found = ask(peer, transfer(message(b"2", to="/queues/gone"), 1, settled=True))
    assert [wire10.error_of(row) for row in found] == ["amqp:not-found"]
    assert found[0][2][2].value[2] == {Symbol("delivery-tag"): b"t"}
    ask(peer, wire10.detach(0))
    # On a link with an address it is only lost, and an aborted one is nobody's.
    sender(peer, "/queues/q", "other")
    assert ask(peer, transfer(message(b"3") * 2, 2, settled=True)) == []
    ask(peer, wire10.detach(0))
    sender(peer, None)
    half = message(b"4", to="/queues/gone")
    assert ask(peer, transfer(half, 3, more=True) + transfer(b"", None, aborted=True)) == []
    # Of one that is not settled its outcome tells.
    found = ask(peer, transfer(half, 4, tag=b"last"))
    assert found[0][2][4].value[0].value[2] == {Symbol("delivery-tag"): b"last"}


# --- transactions ---


def test_a_topic_without_subscribers_takes_messages_in_a_transaction():
    world, peer, _ = start()
    sender(peer, "/topic/nobody")
    work = declare(peer, 0)
    found = ask(peer, post(work, message(b"1"), 1))
    assert states(found) == [(1, True, work, ACCEPTED)], found
    assert commit(peer, work, 2) is None


def test_a_settled_posting_to_nowhere_is_a_rollback():
    world, peer, _ = start("q")
    free = world.free()
    sender(peer, None)
    work = declare(peer, 0)
    ask(peer, post(work, message(b"1", to="/queues/q"), 1))
    assert ask(peer, post(work, message(b"2", to="/queues/gone"), 2, settled=True)) == []
    assert commit(peer, work, 3) == "amqp:transaction:rollback"
    assert waiting(world) == 0 and world.free() == free


def test_a_transaction_with_half_a_message_is_rolled_back():
    world, peer, _ = start("q")
    free = world.free()
    alive = ledger_of(world.broker).alive
    sender(peer, "/queues/q")
    sender(peer, "/queues/q", "other", handle=1)
    first, second = message(b"1", durable=True), message(b"2" * 50, durable=True)
    for k, ending in enumerate((
        transfer(second[20:], None, tag=None),  # it goes on when all is over,
        transfer(b"", None, tag=None, aborted=True),  # or is aborted then,
        wire10.detach(0),  # or its link ends.
    )):  # fmt: skip
        work = declare(peer, 4 * k)
        ask(peer, post(work, first, 4 * k + 1, 1))
        ask(peer, transfer(second[:20], 4 * k + 2, more=True, state=state(work)))
        assert commit(peer, work, 4 * k + 3) == "amqp:transaction:rollback"
        ask(peer, ending)
        assert waiting(world) == 0 and ledger_of(world.broker).alive == alive
    assert world.free() == free
    # A link that ends in the middle takes only its half message with it.
    sender(peer, "/queues/q", "third")
    work = declare(peer, 12)
    ask(peer, post(work, first, 13, 1))
    ask(peer, transfer(second[:20], 14, more=True, state=state(work)) + wire10.detach(0))
    assert commit(peer, work, 15) is None and waiting(world) == 1



# --- termini ---


def test_the_source_of_a_queue_says_its_distribution_mode():
    world = World()
    world.client().queue("q")
    peer = session(world)
    for k, (address, given, mode) in enumerate((
        ("/queues/q", {}, "move"), ("/queues/q", {"durable": 0}, "move"),
        ("/queues/q", {"mode": "copy"}, "copy"), (None, {"dynamic": True}, "move"),
        ("/exchange/amq.topic/a", {}, None), ("/exchange/amq.topic/a", {"durable": 0}, None),
        ("/exchange/amq.topic/a", {"mode": "copy"}, "copy"),
    )):  # fmt: skip
        found = ask(peer, wire10.attach_receiver("r%d" % k, address, k, **given))
        source = found[0][2][5].value + 7 * [None]
        assert source[6] == (mode and Symbol(mode)), (address, given, found)


# --- memory ---


def test_messages_that_fill_their_blocks_take_no_more_than_there_are():
    world = World()
    world.client().queue("q")
    free = world.free()
    peer = session(world)
    sender(peer, "/queues/q")
    # Three blocks of 128 octets hold it, but not with its exchange and routing key.
    octets = message(b"x" * (3 * 128 - 9))
    assert len(octets) == 3 * 128 - 1
    number = 0
    while peer.engine.sessions[0].links[0].credit:
        ask(peer, transfer(octets, number))
        number += 1
        assert world.free()["blocks"] == free["blocks"] - 4 * number
    assert number > 20


def test_so_it_is_at_a_service_bus():
    world = World()
    world.client().queue("q")
    free = world.free()
    octets = message(b"x" * (3 * 128 - 9))
    publish_to_bus(
        world.broker, shortstr(b"") + shortstr(b"q"), b"", len(octets),
        lambda i, n: octets[i : i + n],
    )  # fmt: skip
    assert world.free()["blocks"] == free["blocks"] - 4


# --- messages in pieces ---


def test_the_first_transfer_may_end_anywhere():
    world = World()
    world.client().queue("q", durable=1)
    free = world.free()
    peer = session(world)
    sender(peer, "/queues/q")
    reader = session(world)
    receiver(reader, "/queues/q", 1000)
    number = 0
    for size in (4, 3000):  # the second one is stored as it comes
        octets = message(b"x" * size, durable=True, subject="s", headers={"k": "v" * 9})
        for cut in range(1, min(len(octets), 50)):
            found = ask(
                peer, transfer(octets[:cut], number, more=True)
                + transfer(octets[cut : cut + 2], None, tag=None, more=True)
                + transfer(octets[cut + 2 :], None, tag=None),
            )  # fmt: skip
            assert outcomes(found) == [(number, number, True, ACCEPTED)], (cut, found)
            assert [row[2] for row in deliveries(take(reader))] == [octets], cut
            ask(reader, wire10.disposition(number))
            number += 1
    # Half of the sections alone are no message, and may be left, too.
    found = ask(
        peer, transfer(octets[:9], number, more=True) + transfer(b"", None, tag=None)
    )  # fmt: skip
    assert result(found, number) == "amqp:decode-error"
    ask(peer, transfer(octets[:9], number + 1, more=True))
    ask(peer, transfer(b"", None, tag=None, aborted=True) + transfer(octets, number + 2))
    assert [row[2] for row in deliveries(take(reader))] == [octets]
    ask(reader, wire10.disposition(number))
    reader.vanish()
    peer.vanish()
    after = world.free()
    assert after["blocks"] == free["blocks"] and after["promised"] == 0
