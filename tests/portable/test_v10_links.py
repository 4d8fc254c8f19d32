"""AMQP 1.0 links: messages into exchanges and queues and out of them, and how they are settled."""

import wire
import wire10
from amqp_lite.v10 import performatives as performative
from amqp_lite.v10.performatives import (
    ACCEPTED,
    MODIFIED,
    REJECTED,
    RELEASED,
    described,
    uint,
)
from clients10 import ask, connect, deliveries, names, outcomes, receiver, sender, session, take
from wire10 import HEADER, message, transfer
from world import World


def test_a_message_through_a_queue():
    world = World()
    other = world.client()
    other.queue("q")
    free = world.free()
    peer = session(world)
    assert sender(peer, "q") == 32
    payload = message(b"21.5", subject="room", headers={"k": 1})
    assert outcomes(ask(peer, transfer(payload))) == [(0, 0, True, ACCEPTED)]
    assert receiver(peer, "q", 10) == [(0, False, payload)]
    assert ask(peer, wire10.disposition(0)) == []
    assert ask(peer, wire10.close())[-1][0] == "close"
    assert world.free() == free


def test_addresses():
    world = World()
    other = world.client()
    other.queue("q")
    other.send(wire.bind_queue(1, "q", "amq.topic", "a.*"))
    for target, key in (
        ("q", None), ("/queues/q", None), ("/queue/q", None), ("/amq/queue/q", None),
        ("/exchanges/amq.topic/a.b", None), ("/exchange/amq.topic/a.b", None),
        ("/topic/a.b", None), ("/exchange/amq.topic", "a.b"), ("amq.topic", "a.b"),
        ("amq.topic/a.b", None), (None, None), ("/queues/%71", None),
    ):  # fmt: skip
        peer = session(world)
        sender(peer, target)
        payload = message(b"x", subject=key, to="/queues/q" if target is None else None)
        assert outcomes(ask(peer, transfer(payload))) == [(0, 0, True, ACCEPTED)], target
        assert receiver(peer, "/queues/q", 1) == [(0, False, payload)], target
        ask(peer, wire10.disposition(0))
        peer.vanish()


def test_a_topic_without_subscribers_takes_messages():
    world = World()
    for target, to, outcome in (
        ("/exchanges/amq.topic/a", None, RELEASED), ("/topic/a", None, ACCEPTED),
        (None, "/exchanges/amq.topic/a", RELEASED), (None, "/topic/a", ACCEPTED),
    ):  # fmt: skip
        peer = session(world)
        sender(peer, target)
        sent = transfer(message(b"x", to=to))
        assert outcomes(ask(peer, sent)) == [(0, 0, True, outcome)], target
        peer.vanish()


def test_attaches_that_are_refused():
    world = World()
    other = world.client()
    other.queue("mine", exclusive=1)
    for attach, condition in (
        (wire10.attach_sender("l", "nothing"), "amqp:not-found"),
        (wire10.attach_sender("l", "/queues/nothing"), "amqp:not-found"),
        (wire10.attach_sender("l", "/exchanges/nothing"), "amqp:not-found"),
        (wire10.attach_receiver("l", "mine"), "amqp:resource-locked"),
        (wire10.attach_receiver("l", "nothing"), "amqp:not-found"),
        (wire10.attach_sender("l", "amqp://host/q"), "amqp:not-allowed"),
    ):
        peer = session(world)
        found = ask(peer, attach)
        assert names(found) == ["attach", "detach"], (condition, found)
        assert found[1][2][1] is True and wire10.error_of(found[1]) == condition, found
        # The handle is free again when the peer has answered, and the session goes on.
        assert ask(peer, wire10.detach(0)) == []
        other.queue("q")
        assert sender(peer, "q") == 32
        peer.vanish()


def test_a_message_without_a_body():
    world = World()
    old = world.client()
    old.queue("q")
    peer = session(world)
    sender(peer, "q")
    payload = message(b"", subject="s")[:-5]
    assert outcomes(ask(peer, transfer(payload) + transfer(b"", 1))) == [
        (1, 1, True, REJECTED), (0, 0, True, ACCEPTED),
    ]  # fmt: skip
    assert receiver(peer, "q", 1) == [(0, False, payload)]
    ask(peer, wire10.disposition(0, state=RELEASED) + wire10.detach(1))
    assert old.bodies(wire.get(1, "q")) == [b""]


def test_many_messages_and_credit():
    world = World(deliveries=200, messages=120)
    world.client().queue("q")
    peer = session(world)
    assert sender(peer, "q") == 32
    granted = 32
    sent = 0
    while sent < 100:
        n = min(granted - sent, 7, 100 - sent)
        octets = b"".join([transfer(message(b"%d" % k), k) for k in range(sent, sent + n)])
        sent += n
        found = ask(peer, octets)
        for row in found:
            if row[0] == "flow":
                granted = row[2][5] + row[2][6]
        assert sum(last - first + 1 for first, last, _, _ in outcomes(found)) == n
    assert granted >= 100
    got = receiver(peer, "q", 30)
    assert [number for number, _, _ in got] == list(range(30))
    assert got[29][2] == message(b"29")
    found = ask(peer, wire10.disposition(0, 29) + wire10.credit(1, 100, 30))
    assert [row[2] for row in deliveries(found)] == [message(b"%d" % k) for k in range(30, 100)]
    ask(peer, wire10.disposition(0, 99))
    assert world.broker.queues[b"q"].unacked == 0


def test_more_transfers_than_credit():
    world = World(deliveries=200, messages=120)
    world.client().queue("q")
    peer = session(world)
    sender(peer, "q")
    peer.engine.sessions[0].links[0].credit = 1
    link = peer.engine.sessions[0].links[0]
    link._grant = lambda: None
    found = ask(peer, transfer(message(b"a"), 0) + transfer(message(b"b"), 1))
    assert names(found) == ["disposition", "detach"] or names(found) == ["detach", "disposition"]
    detach = [row for row in found if row[0] == "detach"][0]
    assert wire10.error_of(detach) == "amqp:link:transfer-limit-exceeded"
    assert ask(peer, transfer(message(b"c"), 2)) == []


def test_large_messages_in_many_frames_both_ways():
    world = World()
    world.client().queue("q")
    for size in (0, 1, 500, 2000, 5000, 8000):
        for frame_max in (512, 1000, 100000):
            peer = session(world, frame_max=frame_max)
            sender(peer, "q")
            payload = message(bytes([k & 255 for k in range(size)]), subject="s")
            parts = [payload[k : k + 700] for k in range(0, len(payload), 700)]
            octets = transfer(parts[0], 0, more=len(parts) > 1)
            for k in range(1, len(parts)):
                octets += transfer(parts[k], None, tag=None, more=k < len(parts) - 1)
            assert outcomes(ask(peer, octets)) == [(0, 0, True, ACCEPTED)], size
            assert receiver(peer, "q", 1) == [(0, False, payload)], (size, frame_max)
            ask(peer, wire10.disposition(0))
            # In one frame, longer than the receive buffer.
            if len(payload) < 8000:
                ask(peer, transfer(payload, 1))
                assert deliveries(ask(peer, wire10.credit(1, 1, 1))) == [(1, False, payload)]
            peer.vanish()
            world.run()
            other = world.client()
            other.ask(wire.purge_queue(1, "q"))
            other.vanish()


def test_outcomes_of_a_sender():
    world = World()
    other = world.client()
    other.queue("full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    peer = session(world)
    number = 0
    for payload, state in (
        (message(b"x", to="/queues/full"), ACCEPTED),
        (message(b"x", to="/queues/full"), REJECTED),
        (message(b"x", to="/exchanges/amq.topic/nobody"), RELEASED),
        (message(b"x", to="/queues/nothing"), REJECTED),
        (message(b"x"), REJECTED),
        (message(b"x", to="/queues/full", user=b"somebody"), REJECTED),
        (message(b"x", to="/queues/%"), REJECTED),
        (b"", REJECTED),
        (b"\x40", REJECTED),
        (b"\0\x53\x78\xc1\1\0", REJECTED),
        (message(b"x") + message(b"y", durable=True), REJECTED),
        (b"\0\x53\x75\xa1\1x", REJECTED),
    ):
        sender(peer, None)
        found = ask(peer, transfer(payload, number))
        assert [row[3] for row in outcomes(found)] == [state], (payload, found)
        # A settled one is answered by nobody, but one that is wrong in itself ends the link.
        found = ask(peer, transfer(payload, number + 1, settled=True))
        assert names(found) == ([] if number < 6 else ["detach"]), (payload, found)
        ask(peer, wire10.detach(0))
        number += 2
    free = world.free()
    assert free["promised"] == 0 and free["messages"] >= world.profile["messages"] - 2


def test_outcomes_of_a_receiver():
    world = World()
    world.client().queue("q")
    peer = session(world)
    sender(peer, "q")
    for state, more, again in (
        (ACCEPTED, (), None), (REJECTED, (), None), (RELEASED, (), 0), (MODIFIED, (True,), 1),
        (MODIFIED, (), 0), (MODIFIED, (True, True), None), (None, (), None),
    ):  # fmt: skip
        number = peer.engine.sessions[0].links[0].count
        payload = message(b"%d" % number)
        ask(peer, transfer(payload, number))
        got = receiver(peer, "q", 1)
        assert [row[2] for row in got] == [payload]
        ask(peer, wire10.disposition(got[0][0], None, state, True, 0, *more) + wire10.detach(1))
        got = receiver(peer, "q", 1)
        if again is None:
            assert got == [], state
        else:
            header = described(performative.HEADER, None, None, None, False, uint(1))
            assert got[0][2] == (header if again else b"") + payload, (state, got)
            ask(peer, wire10.disposition(got[0][0]))
        ask(peer, wire10.detach(1))
    assert world.broker.queues[b"q"].unacked == 0


def test_a_receiver_that_leaves_the_settling_to_us():
    world = World()
    world.client().queue("q")
    peer = session(world)
    sender(peer, "q")
    ask(peer, transfer(message(b"a"), 0) + transfer(message(b"b"), 1))
    assert len(receiver(peer, "q", 5)) == 2
    found = ask(peer, wire10.disposition(0, 1, ACCEPTED, False))
    assert sorted(row[2][1] for row in found) == [0, 1]
    assert all(row[2][0] is False and row[2][3] is True for row in found)
    assert world.broker.queues[b"q"].unacked == 0
    # Its second thoughts, and ids that never were.
    assert ask(peer, wire10.disposition(0, 1, ACCEPTED)) == []
    assert ask(peer, wire10.disposition(5, 0x3000000, ACCEPTED)) == []


def _settle(peer, ids, k, last=None, state=ACCEPTED):
    """A disposition of ids[k], or up to ids[last]: which of *ids* are not settled then."""
    ask(peer, wire10.disposition(ids[k], None if last is None else ids[last], state))
    entry = peer.engine.sessions[0].unsettled.head
    found = []
    while entry is not None:
        found.append(entry.tag - ids[0] & 0x3FFFFFFF)
        entry = entry.next
    return found


def test_a_receiver_settles_in_an_order_of_its_own():
    """One from the middle, then ranges around it and past all there are; also where ids wrap."""
    for first in (0, 0x3FFFFFFE):  # what wraps are the lower 30 bits
        world = World()
        world.client().queue("q")
        peer = session(world)
        peer.engine.sessions[0].next_id = first
        sender(peer, "q")
        for number in range(8):
            ask(peer, transfer(message(b"%d" % number), number))
        ids = [row[0] for row in receiver(peer, "q", 8)]
        assert len(ids) == 8

        assert _settle(peer, ids, 4) == [0, 1, 2, 3, 5, 6, 7]
        assert _settle(peer, ids, 4) == [0, 1, 2, 3, 5, 6, 7]
        assert _settle(peer, ids, 3, 5) == [0, 1, 2, 6, 7]
        assert _settle(peer, ids, 7) == [0, 1, 2, 6]
        assert _settle(peer, ids, 0) == [1, 2, 6]
        assert _settle(peer, ids, 0, 7, RELEASED) == []
        ask(peer, wire10.detach(1))
        again = receiver(peer, "q", 8)
        assert [row[2] for row in again] == [message(b"1"), message(b"2"), message(b"6")]


def test_settled_deliveries():
    world = World()
    world.client().queue("q")
    peer = session(world)
    sender(peer, "q")
    ask(peer, transfer(message(b"a"), 0, settled=True))
    assert receiver(peer, "q", 5, settle=1) == [(0, True, message(b"a"))]
    assert world.broker.queues[b"q"].unacked == 0


def test_what_is_not_settled_comes_back():
    detach = wire10.detach(1, closed=None)
    for leave in (wire10.detach(1), detach, wire10.end(), wire10.close(), b""):
        world = World()
        other = world.client()
        other.queue("q")
        peer = session(world)
        sender(peer, "q")
        ask(peer, b"".join([transfer(message(b"%d" % k), k) for k in range(5)]))
        assert len(receiver(peer, "q", 3)) == 3
        if leave:
            ask(peer, leave)
        else:
            peer.vanish()
        assert world.broker.queues[b"q"].waiting() == 5, leave
        again = session(world)
        assert [row[2][-1:] for row in receiver(again, "q", 10)] == [b"0", b"1", b"2", b"3", b"4"]
        other.send(wire.delete_queue(1, "q"))


def test_drain_and_echo():
    world = World()
    world.client().queue("q")
    peer = session(world)
    assert receiver(peer, "q", 0) == []
    found = ask(peer, wire10.credit(1, 5, drain=True))
    assert found[0][0] == "flow" and found[0][2][4:9] == [1, 5, 0, 0, True]
    sender(peer, "q")
    ask(peer, transfer(message(b"a"), 0) + transfer(message(b"b"), 1))
    found = ask(peer, wire10.credit(1, 1, 5, echo=True))
    assert names(found) == ["transfer", "flow"] and found[1][2][4:8] == [1, 6, 0, 1]
    found = ask(peer, wire10.credit(1, 10, 6, drain=True))
    assert names(found) == ["transfer", "flow"] and found[1][2][4:9] == [1, 16, 0, 0, True]
    # Credit that is taken back.
    ask(peer, wire10.credit(1, 5, 16) + wire10.credit(1, 0, 16))
    assert deliveries(ask(peer, transfer(message(b"c"), 2))) == []


def test_a_queue_that_is_deleted():
    world = World()
    other = world.client()
    other.queue("q")
    peer = session(world)
    receiver(peer, "q", 5)
    other.send(wire.delete_queue(1, "q"))
    world.run()
    found = ask(peer, b"")
    assert names(found) == ["detach"]
    assert wire10.error_of(found[0]) == "amqp:resource-deleted"
    assert ask(peer, wire10.detach(1)) == []
    other.queue("q")
    receiver(peer, "q", 5)


def test_a_dynamic_source():
    world = World()
    free = world.free()
    peer = session(world)
    found = ask(peer, wire10.attach_receiver("down", None, 1, dynamic=True) + wire10.credit(1, 5))
    address = found[0][2][5].value[0]
    assert address.startswith("/queues/amq.gen-"), found
    sender(peer, None)
    payload = message(b"answer", to=address)
    found = ask(peer, transfer(payload))
    assert [row[2] for row in deliveries(found)] == [payload]
    ask(peer, wire10.disposition(0) + wire10.detach(1))
    assert len(world.broker.queues) == 0
    peer.vanish()
    assert world.free() == free


def test_links_of_the_same_name_and_handles():
    world = World()
    world.client().queue("q")
    peer = session(world)
    sender(peer, "q", name="l")
    found = ask(peer, wire10.attach_sender("l", "q", handle=3))
    assert names(found) == ["detach", "attach", "flow"], found
    assert wire10.error_of(found[0]) == "amqp:link:stolen"
    ask(peer, wire10.detach(0))
    for octets, condition in (
        (wire10.attach_sender("m", "q", handle=3), "amqp:session:handle-in-use"),
        (transfer(message(b"x"), 0, handle=7), "amqp:session:unattached-handle"),
        (wire10.detach(7), "amqp:session:unattached-handle"),
        (wire10.credit(7, 1), "amqp:session:unattached-handle"),
    ):
        found = ask(peer, octets)
        assert names(found) == ["end"] and wire10.error_of(found[0]) == condition, found
        assert ask(peer, transfer(message(b"x"), 0)) == []
        found = ask(peer, wire10.end() + wire10.begin())
        assert names(found) == ["begin"]
        sender(peer, "q", handle=3)


def test_half_a_message():
    world = World()
    world.client().queue("q")
    free = world.free()
    payload = message(b"x" * 3000)
    for end, condition in (
        (transfer(b"", None, tag=None, aborted=True), None),
        (wire10.detach(0), None),
        (wire10.end(), None),
        (wire10.close(), None),
        (transfer(payload[:500], 1, more=True), "amqp:not-allowed"),
        (b"", None),
    ):
        peer = session(world)
        sender(peer, "q")
        peer.send(transfer(payload[:1500], 0, more=True))
        assert world.free() != free
        found = ask(peer, end) if end else None
        if condition:
            assert wire10.error_of(found[-1]) == condition
        if not end:
            peer.vanish()
        elif end[10] != performative.TRANSFER or condition:
            pass
        else:
            assert outcomes(ask(peer, transfer(payload, 1))) == [(1, 1, True, ACCEPTED)]
            other = world.client()
            other.ask(wire.get(1, "q", no_ack=1))
            other.vanish()
        peer.vanish()
        assert world.free()["blocks"] == free["blocks"], end
        assert world.free()["promised"] == 0


def test_messages_that_are_too_long():
    world = World()
    world.client().queue("q")
    free = world.free()
    peer = session(world)
    sender(peer, "q")
    octets = transfer(message(b"x" * 8192)[:7000], 0, more=True)
    octets += transfer(b"x" * 4000, None, tag=None)
    found = ask(peer, octets)
    assert names(found) == ["detach"]
    assert wire10.error_of(found[0]) == "amqp:link:message-size-exceeded"
    peer.vanish()
    assert world.free()["blocks"] == free["blocks"]


def test_permissions():
    world = World()
    world.client().queue("sensors.a")
    world.client().queue("other")

    peer = connect(world)
    take(peer)
    found = ask(peer, wire10.init(b"\0sensor\0secret") + HEADER + wire10.open_connection())
    ask(peer, wire10.begin())
    for octets, condition in (
        (wire10.attach_sender("a", "other"), "amqp:unauthorized-access"),
        (wire10.attach_receiver("a", "other"), "amqp:unauthorized-access"),
        (wire10.attach_sender("a", "amq.direct"), "amqp:unauthorized-access"),
        (wire10.attach_sender("a", "/queue/new"), "amqp:unauthorized-access"),
    ):
        found = ask(peer, octets)
        assert names(found) == ["attach", "detach"], found
        assert wire10.error_of(found[1]) == condition
        ask(peer, wire10.detach(0))
    assert sender(peer, "sensors.a") == 32


def test_durable_messages_are_accepted_when_they_are_stored():
    world = World()
    world.client().queue("q", durable=1)
    peer = session(world)
    sender(peer, "q")
    commit = world.broker.store.commit
    world.broker.store.commit = lambda: False
    assert outcomes(ask(peer, transfer(message(b"x", durable=True)))) == []
    world.broker.store.commit = commit
    assert outcomes(ask(peer, b"")) == [(0, 0, True, ACCEPTED)]


def test_credit_ends_where_memory_does():
    """One connection sends more than there is memory for, and settles what it gets only then."""
    world = World(messages=24, deliveries=32, blocks=48)
    free = world.free()
    world.client().queue("q")
    peer = session(world, frame_max=512)
    granted = sender(peer, "q")
    sent = got = 0
    waiting = []
    receiver(peer, "q", 5)
    count = 5
    while got < 200:
        octets = b""
        for _ in range(min(granted - sent, 200 - sent)):
            octets += transfer(message(b"%d" % sent + b"x" * 200), sent)
            sent += 1
        if not octets:
            assert waiting, "nobody may do anything: %d sent, %d got" % (sent, got)
            octets = wire10.disposition(waiting[0], waiting[-1])
            count += len(waiting)
            waiting = []
            octets += wire10.credit(1, 5, count - 5)
        found = ask(peer, octets)
        assert not peer.engine.stalled
        for row in found:
            if row[0] == "flow" and row[2][4] == 0:
                granted = row[2][5] + row[2][6]
        for number, _, payload in deliveries(found):
            assert number == got and payload == message(b"%d" % got + b"x" * 200)
            waiting.append(number)
            got += 1
    assert sent == 200 and granted > 200
    ask(peer, wire10.disposition(waiting[0], waiting[-1]) + wire10.close())
    assert free["blocks"] == world.free()["blocks"]
