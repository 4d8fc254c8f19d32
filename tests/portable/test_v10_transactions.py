"""Transactions of AMQP 1.0: declare and discharge, and posting, retirement and acquisition."""

import wire10
from amqp_lite.v10 import performatives as performative
from amqp_lite.v10.performatives import (
    ACCEPTED,
    COORDINATOR,
    DECLARE,
    DECLARED,
    DISCHARGE,
    MODIFIED,
    REJECTED,
    RELEASED,
    TRANSACTIONAL_STATE,
    described,
    described_value,
    uint,
)
from amqp_lite.v10.values import Described, Symbol, Typed, write_value
from clients10 import ask, client, deliveries, names, outcomes, receiver, sender, session, take
from stored import drain, look
from wire10 import AMQP, frame, message
from world import World

CONTROL = 9  # the handle of the controller's link


def start(*queues, **numbers):
    """A world, a peer with a session and a controller, and one of 0-9-1; *queues* are durable."""
    world = World(**numbers)
    other = world.client()
    for name in queues:
        other.queue(name, durable=1)
    peer = session(world)
    control(peer)
    return world, peer, other


def control(peer, name="control", channel=0):
    found = ask(peer, attach(name, channel))
    assert names(found) == ["attach", "flow"], found
    assert found[0][2][6].descriptor == COORDINATOR
    return found


def attach(name, channel=0):
    return frame(
        AMQP, channel, described(
            performative.ATTACH, name, uint(CONTROL), False, None, None,
            described_value(performative.SOURCE),
            described_value(COORDINATOR, Symbol("amqp:local-transactions")),
            None, None, uint(0),
        ),
    )  # fmt: skip


def tell(value, number, channel=0, settled=None):
    """The transfer of a message to the coordinator."""
    payload = write_value(Described(Typed(0x53, 0x77), value))
    return wire10.transfer(payload, number, CONTROL, channel, settled)


def declare(peer, number, channel=0):
    """Declare a transaction: its txn-id."""
    found = ask(peer, tell(described_value(DECLARE), number, channel))
    assert outcomes(found) == [(number, number, True, DECLARED)], found
    return found[0][2][4].value[0]


def discharge(work, number, fail=None, channel=0):
    return tell(described_value(DISCHARGE, work, fail), number, channel)


def commit(peer, work, number, channel=0):
    """Discharge it; None when that was accepted, else the condition."""
    return result(ask(peer, discharge(work, number, None, channel)), number)


def result(found, number):
    states = [row[2][4] for row in found if row[0] == "disposition" and row[2][0]
              and row[2][1] == number]  # fmt: skip
    assert len(states) == 1, found
    if states[0].descriptor == ACCEPTED:
        return None
    assert states[0].descriptor == REJECTED, found
    return states[0].value[0].value[0].text


def post(work, payload, number, handle=0, channel=0, settled=None):
    """A transfer in a transaction."""
    return frame(
        AMQP, channel, described(
            performative.TRANSFER, uint(handle), uint(number), b"t", uint(0), settled, None, None,
            described_value(TRANSACTIONAL_STATE, work),
        ) + payload,
    )  # fmt: skip


def retire(work, first, outcome=ACCEPTED, settled=True, channel=0, last=None):
    state = described_value(TRANSACTIONAL_STATE, work, outcome and described_value(outcome))
    return frame(
        AMQP, channel, described(
            performative.DISPOSITION, True, uint(first), None if last is None else uint(last),
            settled, state,
        ),
    )  # fmt: skip


def states(found):
    """(delivery-id, settled, txn-id, descriptor of the outcome) of transactional states."""
    rows = []
    for row in found:
        if row[0] == "disposition" and row[2][4].descriptor == TRANSACTIONAL_STATE:
            txn_id, outcome = row[2][4].value
            rows.append((row[2][1], row[2][3], txn_id, outcome.descriptor))
    return rows


def waiting(world, name=b"q"):
    return world.broker.queue(name).waiting()


def durable(*bodies):
    return [message(body, durable=True) for body in bodies]


def test_postings_wait_for_the_discharge():
    world, peer, other = start("q", "r")
    sender(peer, "/queues/q")
    work = declare(peer, 0)
    first, second = durable(b"1", b"2")
    found = ask(peer, post(work, first, 1) + post(work, second, 2))
    assert states(found) == [(1, True, work, ACCEPTED), (2, True, work, ACCEPTED)], found
    assert waiting(world) == 0
    # JMS declares the next one at once.
    found = ask(peer, discharge(work, 3) + tell(described_value(DECLARE), 4))
    assert result(found, 3) is None and len(outcomes(found)) == 2
    assert waiting(world) == waiting(look(world)) == 2
    assert drain(other, "q") == [b"1", b"2"]
    assert result(ask(peer, discharge(work, 5)), 5) == "amqp:transaction:unknown-id"


def test_a_failed_discharge_drops_postings():
    world, peer, other = start("q")
    free = world.free()
    sender(peer, "/queues/q")
    work = declare(peer, 0)
    ask(peer, post(work, durable(b"1")[0], 1) + post(work, durable(b"2")[0], 2, settled=True))
    assert result(ask(peer, discharge(work, 3, True)), 3) is None
    assert waiting(world) == 0 and world.free() == free
    # Outside of it all goes on.
    assert outcomes(ask(peer, wire10.transfer(message(b"3"), 4))) == [(4, 4, True, ACCEPTED)]
    assert drain(other, "q") == [b"3"]


def fill(world, other, *bodies):
    sends = session(world)
    sender(sends, "/queues/q", "filler")
    for k in range(len(bodies)):
        ask(sends, wire10.transfer(message(bodies[k], durable=True), k))
    sends.vanish()


def test_retirement_waits_for_the_discharge():
    world, peer, other = start("q")
    fill(world, other, b"0", b"1", b"2", b"3")
    assert len(receiver(peer, "/queues/q", 10)) == 4
    work = declare(peer, 0)
    assert ask(peer, retire(work, 0) + retire(work, 2, REJECTED)) == []
    # One that the peer has not settled is, when it is done.
    assert ask(peer, retire(work, 3, ACCEPTED, None)) == []
    queue = world.broker.queue(b"q")
    assert queue.unacked == 4 and waiting(look(world)) == 4
    found = ask(peer, discharge(work, 1))
    assert result(found, 1) is None
    assert [row[2][:2] for row in found if row[0] == "disposition" and not row[2][0]] == [
        [False, 3]
    ]
    assert queue.unacked == 1 and drain(look(world).client(), "q") == [b"1"]
    assert world.broker.metrics.dropped_rejected == 1 and world.broker.metrics.acknowledged == 2


def test_retirement_that_was_rolled_back():
    world, peer, other = start("q")
    fill(world, other, b"0", b"1", b"2")
    receiver(peer, "/queues/q", 3)
    work = declare(peer, 0)
    # The first is settled by its receiver: it has forgotten it, and gets it once more.
    ask(peer, retire(work, 0) + retire(work, 1, ACCEPTED, None))
    found = ask(peer, discharge(work, 1, True) + wire10.credit(1, 5, 3))
    assert result(found, 1) is None
    got = deliveries(found)
    assert [number for number, _, _ in got] == [3]
    assert got[0][2].endswith(b"\xa0\x010")
    # The second stays with it, to be settled otherwise.
    work = declare(peer, 2)
    ask(peer, retire(work, 1, RELEASED) + wire10.disposition(2))
    assert waiting(world) == 0
    assert commit(peer, work, 3) is None
    assert world.broker.queue(b"q").unacked == 2  # it came back at once
    assert world.broker.metrics.acknowledged == 1


def test_outcomes_of_retirement_that_give_back():
    world, peer, other = start("q")
    fill(world, other, b"0", b"1")
    receiver(peer, "/queues/q", 2)
    work = declare(peer, 0)
    ask(peer, retire(work, 0, MODIFIED, True) + retire(work, 1, RELEASED, True))
    assert waiting(world) == 0
    assert commit(peer, work, 1) is None
    assert waiting(world) == 2 and drain(other, "q") == [b"0", b"1"]


def acquire(handle, work, credit, count=0):
    return wire10.flow(
        0, uint(0), uint(1000), uint(0), uint(1000), uint(handle), uint(count), uint(credit),
        None, None, None, work and {Symbol("txn-id"): work},
    )  # fmt: skip


def test_acquisition():
    for settle in ("commit", "rollback"):
        world, peer, other = start("q")
        fill(world, other, b"0", b"1", b"2", b"3")
        receiver(peer, "/queues/q", 0)
        work = declare(peer, 0)
        found = ask(peer, acquire(1, work, 3))
        got = [row for row in found if row[0] == "transfer"]
        assert len(got) == 3
        for row in got:
            assert row[2][7].descriptor == TRANSACTIONAL_STATE and row[2][7].value == [work]
        # Settled without a word of the transaction, and with one.
        ask(peer, wire10.disposition(0) + retire(work, 1))
        queue = world.broker.queue(b"q")
        assert queue.unacked == 3
        if settle == "commit":
            assert commit(peer, work, 1) is None
            assert queue.unacked == 1 and waiting(world) == 1
            ask(peer, wire10.disposition(2))
            assert drain(other, "q") == [b"3"]
        else:
            found = ask(peer, discharge(work, 1, True))
            assert result(found, 1) is None
            released = sorted([
                (row[2][1], row[2][4].descriptor) for row in found
                if row[0] == "disposition" and not row[2][0]
            ])  # fmt: skip
            assert released == [(2, RELEASED)], found  # it has settled the others
            assert queue.unacked == 0 and drain(other, "q") == [b"0", b"1", b"2", b"3"]
        # It has ended with its transaction.
        found = ask(peer, acquire(1, work, 1, 3))
        assert wire10.error_of(found[0]) == "amqp:transaction:unknown-id", found


def test_unknown_transactions():
    world, peer, other = start("q")
    fill(world, other, b"0")
    sender(peer, "/queues/q")
    receiver(peer, "/queues/q", 1)
    found = ask(peer, post(b"none", message(b"1"), 0))
    assert found[0][0] == "detach"
    assert wire10.error_of(found[0]) == "amqp:transaction:unknown-id"
    assert result(ask(peer, discharge(b"none", 1)), 1) == "amqp:transaction:unknown-id"
    found = ask(peer, retire(b"none", 0))
    assert found[0][0] == "end"
    assert wire10.error_of(found[0]) == "amqp:transaction:unknown-id"
    assert drain(other, "q") == [b"0"]
    # One without any coordinator.
    peer = session(world)
    sender(peer, "/queues/q")
    found = ask(peer, post(b"none", message(b"1"), 0))
    assert wire10.error_of(found[0]) == "amqp:transaction:unknown-id"


def test_a_transaction_is_of_its_connection_and_its_controller():
    world, peer, other = start("q")
    work = declare(peer, 0)
    stranger = session(world)
    control(stranger)
    assert commit(stranger, work, 0) == "amqp:transaction:unknown-id"
    ask(peer, wire10.begin(1))
    control(peer, "second", 1)
    assert commit(peer, work, 0, 1) == "amqp:transaction:unknown-id"
    assert commit(peer, work, 1) is None


def test_work_on_several_sessions():
    world, peer, other = start("q")
    ask(peer, wire10.begin(1))
    ask(peer, wire10.attach_sender("up", "/queues/q", handle=0, channel=1))
    work = declare(peer, 0)
    assert states(ask(peer, post(work, message(b"1"), 0, 0, 1))) == [(0, True, work, ACCEPTED)]
    assert waiting(world) == 0
    assert commit(peer, work, 1) is None
    assert drain(other, "q") == [b"1"]


def test_the_end_of_the_controller_is_a_rollback():
    for end in (wire10.detach(CONTROL), wire10.end(), wire10.close(), b""):
        world, peer, other = start("q")
        free = world.free()
        fill(world, other, b"0", b"1")
        sender(peer, "/queues/q")
        receiver(peer, "/queues/q", 2)
        work = declare(peer, 0)
        ask(peer, post(work, durable(b"2")[0], 1) + retire(work, 0) + retire(work, 1, None, None))
        ask(peer, retire(work, 1, ACCEPTED, None))
        if end:
            ask(peer, end)
        else:
            peer.vanish()
        if end == wire10.detach(CONTROL):
            assert world.broker.queue(b"q").unacked == 1
            peer.vanish()
        assert drain(other, "q") == [b"0", b"1"], end
        free["stored"] = world.free()["stored"]
        assert world.free() == free, end
        assert world.broker.transactions.alive == 5


def test_a_receiver_that_leaves_before_the_discharge():
    for fail in (None, True):
        world, peer, other = start("q")
        fill(world, other, b"0", b"1")
        receiver(peer, "/queues/q", 2)
        work = declare(peer, 0)
        ask(peer, retire(work, 0) + retire(work, 1, ACCEPTED, None) + wire10.detach(1))
        assert waiting(world) == 0
        assert result(ask(peer, discharge(work, 1, fail)), 1) is None
        assert len(drain(other, "q")) == (2 if fail else 0)
        assert world.broker.queue(b"q").unacked == 0


def test_what_cannot_be_committed_is_rolled_back():
    world, peer, other = start("q")
    other.queue("few", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    sender(peer, None)
    work = declare(peer, 0)
    octets = [post(work, message(b"%d" % k, to="/queues/" + where), 1 + k)
              for k, where in enumerate(("q", "few", "few"))]  # fmt: skip
    assert len(states(ask(peer, b"".join(octets)))) == 3
    assert commit(peer, work, 4) == "amqp:transaction:rollback"
    assert waiting(world) == 0 and waiting(world, b"few") == 0
    assert commit(peer, work, 5) == "amqp:transaction:unknown-id"


def test_bad_messages_and_messages_to_nowhere():
    world, peer, other = start("q")
    sender(peer, None)
    work = declare(peer, 0)
    found = ask(peer, post(work, message(b"1", to="/exchanges/amq.direct/none"), 1))
    assert states(found) == [(1, True, work, RELEASED)]
    found = ask(peer, post(work, message(b"2", to="/queues/none"), 2) + post(work, b"\0\0", 3))
    assert [row[3] for row in states(found)] == [REJECTED, REJECTED]
    found = ask(peer, post(work, message(b"3", to="/queues/q"), 4))
    assert states(found) == [(4, True, work, ACCEPTED)]
    assert commit(peer, work, 5) is None
    assert drain(other, "q") == [b"3"]


def test_more_operations_than_the_bound():
    world, peer, other = start("q", deliveries=16)
    free = world.free()
    sender(peer, "/queues/q")
    work = declare(peer, 0)
    found = ask(peer, b"".join([post(work, message(b"x"), 1 + k) for k in range(5)]))
    assert [row[3] for row in states(found)] == [ACCEPTED] * 5
    found = ask(peer, post(work, message(b"x"), 6) + post(work, message(b"x"), 7))
    assert [row[3] for row in states(found)] == [REJECTED, REJECTED]
    error = found[0][2][4].value[1].value[0]
    assert error.value[0].text == "amqp:resource-limit-exceeded"
    assert world.free() == free, "it was rolled back at once"
    assert commit(peer, work, 8) == "amqp:transaction:rollback"
    assert waiting(world) == 0
    assert commit(peer, declare(peer, 9), 10) is None


def test_more_transactions_than_the_bound():
    world, peer, other = start("q", consumers=8)
    works = [declare(peer, k) for k in range(3)]
    found = ask(peer, tell(described_value(DECLARE), 3))
    assert result(found, 3) == "amqp:resource-limit-exceeded"
    assert commit(peer, works[1], 4) is None
    declare(peer, 5)


def test_bad_requests_to_the_coordinator():
    world, peer, other = start("q")
    for number, value, condition in (
        (0, described_value(DECLARE, b"global"), "amqp:not-implemented"),
        (1, described_value(performative.ACCEPTED), "amqp:invalid-field"),
        (2, described_value(DISCHARGE), "amqp:invalid-field"),
        (3, "text", "amqp:decode-error"),
    ):
        assert result(ask(peer, tell(value, number)), number) == condition, value
    octets = wire10.transfer(message(b"no value"), 4, CONTROL)
    assert result(ask(peer, octets), 4) == "amqp:decode-error"
    octets = wire10.transfer(message(bytes(600)), 5, CONTROL)
    assert result(ask(peer, octets), 5) == "amqp:link:message-size-exceeded"
    # Who does not wait for the outcome hears of it by a detach.
    found = ask(peer, tell(described_value(DISCHARGE, b"none"), 6, 0, True))
    assert wire10.error_of(found[-1]) == "amqp:transaction:unknown-id", found


def test_descriptors_may_be_symbols():
    """As python-qpid-proton sends them."""
    world, peer, other = start("q")
    value = Described(Symbol("amqp:declare:list"), [None])
    found = ask(peer, tell(value, 0))
    work = found[0][2][4].value[0]
    value = Described(Symbol("amqp:discharge:list"), [work, False])
    assert result(ask(peer, tell(value, 1)), 1) is None


def test_a_coordinator_is_no_source():
    world = World()
    peer = client(world)
    ask(peer, wire10.begin())
    octets = frame(
        AMQP, 0, described(
            performative.ATTACH, "l", uint(0), True, None, None, described_value(COORDINATOR),
            described_value(performative.TARGET, "here"),
        ),
    )  # fmt: skip
    found = ask(peer, octets)
    assert names(found) == ["attach", "detach"] and wire10.error_of(found[1])
    assert take(peer) == []


def test_a_store_that_fails_accepts_no_discharge():
    from test_store_fails import Failing

    flash = Failing()
    world, peer, other = start("q", flash=flash)
    sender(peer, "/queues/q")
    work = declare(peer, 0)
    ask(peer, post(work, durable(b"1")[0], 1))
    flash.fails = "sync"
    assert commit(peer, work, 2) == "amqp:resource-limit-exceeded"
    work = declare(peer, 3)
    ask(peer, post(work, durable(b"2")[0], 4))
    assert commit(peer, work, 5) == "amqp:transaction:rollback"
    assert other.works()
