"""Nodes of the protocol itself: requests from a peer and answers to it, over two links."""

import wire10
from amqp_lite.errors import NotAllowed
from amqp_lite.v10 import node
from amqp_lite.v10.performatives import (
    ACCEPTED,
    PROPERTIES,
    REJECTED,
    described,
    uint,
)
from amqp_lite.v10.values import Described, Symbol, Typed, read_value, write_value
from clients10 import ask, client, deliveries, names, outcomes, sender, session, take
from wire10 import transfer
from world import World

NODE = "x/$echo"


class Echo:
    """Answers with what it was asked; to "nothing" not at all, and "bad" is an error."""

    asked = 0

    def __init__(self, link):
        assert link.node == NODE

    def answer(self, request):
        Echo.asked += 1
        if request.subject == "bad":
            raise NotAllowed("bad")
        if request.subject == "nothing":
            return None
        body = [request.to, request.properties, request.body]
        return node.answer_to(request, request.subject, {"ok": True}, body)


_others = node.node_for
node.node_for = lambda address: Echo if address == NODE else _others(address)


def world(**numbers):
    Echo.asked = 0
    return World(**numbers)


def request(body="b", subject="s", number="id", reply_to="$me", to="t", properties=None):
    sections = described(PROPERTIES, number, None, to, subject, reply_to)
    if properties:
        sections += write_value(Described(Typed(0x53, 0x74), properties))
    return sections + write_value(Described(Typed(0x53, 0x77), body))


def answers(found):
    """The transfers in *found*: [(settled, correlation-id as it is typed, subject, body)]."""
    rows = []
    for _, settled, octets in deliveries(found):
        properties, i = read_value(octets, 0, True)
        assert properties.descriptor == Typed(0x53, PROPERTIES)
        assert read_value(octets, i)[0].value == {"ok": True}
        body = read_value(octets, read_value(octets, i)[1])[0]
        fields = properties.value.value + [None, None]
        rows.append((settled, fields[5], fields[3].value, body.value))
    return rows


def pair(peer, credit=10, name="pair", settle=1):
    """Attach both links: requests on handle 0, answers on handle 1."""
    found = ask(
        peer,
        wire10.attach_sender(name, NODE, 0) + wire10.attach_receiver(name, NODE, 1, settle=settle)
        + wire10.credit(1, credit),
    )  # fmt: skip
    assert names(found) == ["attach", "flow", "attach"], found
    return found


def test_a_request_and_its_answer():
    peer = session(world())
    found = pair(peer)
    # A source and a target in both, and numbers for what peers count with.
    assert found[0][2][5].value and found[0][2][6].value[0] == NODE
    assert found[0][2][10] == peer.world.profile["receive_buffer"]
    assert found[2][2][5].value[0] == NODE and found[2][2][6].value and found[2][2][9] == 0
    assert found[1][2][6] == 32
    found = ask(peer, transfer(request(properties={"k": 7}), 0))
    assert outcomes(found) == [(0, 0, True, ACCEPTED)]
    assert answers(found) == [(True, Typed(0xA1, "id"), "s", ["t", {"k": 7}, "b"])]
    # The delivery-id and the tag of a transfer to the peer.
    found = ask(peer, transfer(request(), 1, settled=True))
    assert names(found) == ["transfer"]
    assert found[0][2][:4] == [1, 1, b"\0\0\0\1", 0]


def test_links_in_either_order_and_names():
    for first, reply_to in ((0, "$me"), (1, "$me"), (0, NODE), (1, None), (0, "down"), (1, "up")):
        peer = session(world())
        name = "down" if reply_to == "down" else "up"
        both = [wire10.attach_sender("up", NODE, 0), wire10.attach_receiver(name, NODE, 1)]
        octets = both[first] + both[1 - first] + wire10.credit(1, 5)
        # Others that are not meant.
        octets += wire10.attach_receiver("other", NODE, 2) + wire10.credit(2, 5)
        ask(peer, octets)
        found = ask(peer, transfer(request(reply_to=reply_to), 0))
        assert len(answers(found)) == 1, (first, reply_to)
        if reply_to is not None and reply_to != NODE:
            assert [row[2][0] for row in found if row[0] == "transfer"] == [1]


def test_links_of_two_sessions():
    peer = session(world())
    ask(peer, wire10.begin(1) + wire10.attach_receiver("far", NODE, 0, channel=1))
    ask(peer, wire10.credit(0, 5, channel=1))
    ask(peer, wire10.attach_sender("up", NODE))
    found = ask(peer, transfer(request(reply_to="far"), 0))
    assert [row[1] for row in found if row[0] == "transfer"] == [1]
    assert len(answers(found)) == 1


def test_message_ids_keep_their_types():
    peer = session(world())
    pair(peer)
    for k, number in enumerate((
        Typed(0x80, 7), Typed(0x53, 7), Typed(0x98, bytes(range(16))), Typed(0xA0, b"\0\xff"),
        Typed(0xB1, "x" * 10),
    )):  # fmt: skip
        (row,) = answers(ask(peer, transfer(request(number=number), k, settled=True)))
        assert row[1] == number
    (row,) = answers(ask(peer, transfer(request(number=None), 5, settled=True)))
    assert row[1] is None


def test_unsettled_answers_and_what_the_peer_says_of_them():
    peer = session(world())
    pair(peer, settle=0)
    assert answers(ask(peer, transfer(request(), 0)))[0][0] is False
    assert ask(peer, wire10.disposition(0)) == []
    assert ask(peer, wire10.disposition(0, None, REJECTED, settled=False)) == []
    assert answers(ask(peer, transfer(request(), 1)))[0][0] is False


def test_a_request_in_many_transfers_and_frames():
    peer = session(world())
    pair(peer)
    payload = request("x" * 300)
    for number, n in enumerate((1, 7, 100, 600)):
        parts = [payload[k : k + n] for k in range(0, len(payload), n)]
        octets = transfer(parts[0], number, more=len(parts) > 1)
        for k in range(1, len(parts)):
            octets += transfer(parts[k], None, tag=None, more=k < len(parts) - 1)
        found = ask(peer, octets + wire10.credit(1, 10, 0))
        assert outcomes(found) == [(number, number, True, ACCEPTED)], n
        assert answers(found)[0][3][2] == "x" * 300
        ask(peer, wire10.credit(1, 20, 0))
    peer.step = 1
    found = ask(peer, transfer(payload, 4))
    assert answers(found)[0][3][2] == "x" * 300


def test_an_answer_in_many_transfers():
    peer = client(world(), frame_max=512)
    ask(peer, wire10.begin())
    pair(peer)
    ask(peer, wire10.flow(0, uint(0), uint(2), uint(0), uint(50)))
    found = ask(peer, transfer(request("y" * 900), 0, settled=True))
    assert names(found) == ["transfer", "transfer"]  # the window
    assert found[0][2][5] is True and found[1][2][1:3] == [None, None]
    found += ask(peer, wire10.flow(0, uint(2), uint(50), uint(1), uint(50)))
    assert answers(found)[0][3][2] == "y" * 900
    # The delivery-id of the next is the next.
    found = ask(peer, transfer(request(), 1, settled=True))
    assert found[0][2][1] == 1


def test_answers_wait_for_room():
    peer = session(world())
    pair(peer, 100)
    peer.reading = False
    peer.send(b"".join([transfer(request("z" * 600), k, settled=True) for k in range(8)]))
    assert Echo.asked < 8  # a request waits, too
    peer.reading = True
    found = ask(peer, b"")
    assert [row[3][2] for row in answers(found)] == ["z" * 600] * 8


def test_answers_wait_for_credit_and_are_bounded():
    peer = session(world())
    pair(peer, 0)
    found = ask(peer, b"".join([transfer(request(number=k), k) for k in range(18)]))
    rows = [row[3] for row in outcomes(found)]
    assert rows == [ACCEPTED] * 16 + [REJECTED] * 2 and Echo.asked == 16
    assert "transfer" not in names(found)
    found = [row for row in found if row[0] == "disposition"]
    error = found[16][2][4].value[0].value
    assert error[0] == Symbol("amqp:resource-limit-exceeded"), error
    assert [row[1].value for row in answers(ask(peer, wire10.credit(1, 3)))] == [0, 1, 2]
    # Drain: all there is, then the credit comes back.
    found = ask(peer, wire10.credit(1, 20, 3, drain=True))
    assert [row[1].value for row in answers(found)] == list(range(3, 16))
    assert found[-1][0] == "flow" and found[-1][2][4:9] == [1, 23, 0, 0, True]


def test_what_is_no_answer():
    peer = session(world())
    pair(peer)
    found = ask(peer, transfer(request(subject="nothing"), 0))
    assert names(found) == ["disposition"] and outcomes(found)[0][3] == ACCEPTED
    found = ask(peer, transfer(request(subject="bad"), 1))
    assert names(found) == ["disposition"] and outcomes(found)[0][3] == REJECTED
    assert found[0][2][4].value[0].value[0] == Symbol("amqp:not-allowed")
    assert len(answers(ask(peer, transfer(request(), 2)))) == 1


def test_requests_that_cannot_be_read():
    peer = session(world())
    pair(peer)
    good = request()
    for k, (payload, condition) in enumerate((
        (good[:-1], "amqp:decode-error"),
        (good + b"\0", "amqp:decode-error"),
        (good + b"\0\x53\x74\x45", "amqp:decode-error"),
        (b"\x00\x53\x77\xc1\x03\x01\x40", "amqp:decode-error"),
        (b"\x00\x53\x77\xd1\0\0\0\x06\0\0\0\x02\x71\x40", "amqp:decode-error"),
        (described(PROPERTIES, "id", None, None, Typed(0x43)), "amqp:invalid-field"),
        (described(PROPERTIES, "id", None, 5), "amqp:decode-error"),
        (request(reply_to="nobody"), "amqp:precondition-failed"),
        (request("x" * 1024), "amqp:link:message-size-exceeded"),
    )):  # fmt: skip
        found = ask(peer, transfer(payload, k))
        assert names(found) == ["disposition"] and outcomes(found)[0][3] == REJECTED, k
        assert found[0][2][4].value[0].value[0] == Symbol(condition), (k, found)
    assert not Echo.asked
    assert len(answers(ask(peer, transfer(good, 9)))) == 1


def test_sections_in_any_order_and_no_body():
    peer = session(world())
    pair(peer)
    head = described(PROPERTIES, "id", None, "t", "s", "$me")
    empty = b"\0\x53\x77\x40"  # as RabbitMQ's Python client has it
    for k, payload in enumerate((empty + head, head, head + b"\0\x53\x75\xa0\0")):
        (row,) = answers(ask(peer, transfer(payload, k)))
        assert row[1:] == (Typed(0xA1, "id"), "s", ["t", {}, None])


def test_too_long_in_many_transfers():
    peer = session(world())
    pair(peer)
    octets = transfer(b"x" * 600, 0, more=True) + transfer(b"x" * 600, None, tag=None, more=True)
    found = ask(peer, octets + transfer(b"x" * 5000, None, tag=None))
    assert names(found) == ["disposition"]
    assert found[0][2][4].value[0].value[0] == Symbol("amqp:link:message-size-exceeded")
    assert len(answers(ask(peer, transfer(request(), 1)))) == 1


def test_settled_requests_that_fail_end_their_link():
    for payload, condition in (
        (request("x" * 1024), "amqp:link:message-size-exceeded"),
        (request(subject="bad"), "amqp:not-allowed"),
        (b"\0", "amqp:decode-error"),
    ):
        peer = session(world())
        pair(peer)
        found = ask(peer, transfer(payload, 0, settled=True))
        assert names(found) == ["detach"] and wire10.error_of(found[0]) == condition
        ask(peer, wire10.detach(0) + wire10.attach_sender("again", NODE))
        assert len(answers(ask(peer, transfer(request(reply_to=NODE), 1)))) == 1


def test_aborted_requests():
    peer = session(world())
    pair(peer)
    octets = transfer(request()[:9], 0, more=True) + transfer(b"", None, tag=None, aborted=True)
    assert ask(peer, octets) == [] and not Echo.asked
    assert len(answers(ask(peer, transfer(request(), 1)))) == 1


def test_credit_is_given_anew():
    peer = session(world())
    granted = 32
    assert sender(peer, NODE) == granted
    ask(peer, wire10.attach_receiver("up", NODE, 1) + wire10.credit(1, 200))
    for k in range(80):
        found = ask(peer, transfer(request(), k, settled=True))
        assert len(answers(found)) == 1
        for row in found:
            if row[0] == "flow":
                granted = row[2][5] + row[2][6]
        assert granted > k
    assert granted >= 80


def test_links_that_end_with_answers_waiting():
    one = world()
    free = one.free()
    for end in (wire10.detach(1), wire10.end(), wire10.close(), b""):
        peer = session(one)
        pair(peer, 0)
        ask(peer, transfer(request(), 0))
        peer.send(transfer(request()[:30], 1, more=True))
        if end:
            ask(peer, end)
        peer.vanish()
        assert one.free() == free
    # Half an answer is in the output, and its link is attached anew.
    peer = client(one, frame_max=512)
    ask(peer, wire10.begin())
    pair(peer)
    ask(peer, wire10.flow(0, uint(0), uint(1), uint(0), uint(50)))
    assert names(ask(peer, transfer(request("y" * 900), 0, settled=True))) == ["transfer"]
    assert names(ask(peer, wire10.detach(1))) == ["detach"]
    ask(peer, wire10.flow(0, uint(1), uint(50), uint(1), uint(50)))
    ask(peer, wire10.attach_receiver("pair", NODE, 1) + wire10.credit(1, 9))
    assert len(answers(ask(peer, transfer(request(), 1)))) == 1


def test_other_addresses():
    one = world()
    one.client().queue("a$b")
    peer = session(one)
    assert sender(peer, "a$b") == 32
    found = ask(peer, wire10.attach_receiver("l", "/management/x", 1))
    assert names(found) == ["attach", "detach"]
    assert wire10.error_of(found[1]) == "amqp:invalid-field"
    assert take(peer) == []
