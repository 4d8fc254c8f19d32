"""What the clients of Azure Service Bus say and want to hear, octet by octet."""

import struct
from binascii import b2a_base64, hexlify

import wire
import wire10
from amqp_lite.broker.exchange import KINDS
from amqp_lite.v10.performatives import (
    ACCEPTED,
    ATTACH,
    COORDINATOR,
    ERROR,
    MODIFIED,
    PROPERTIES,
    REJECTED,
    RELEASED,
    SOURCE,
    TARGET,
    TRANSFER,
    described,
    described_value,
    frame,
    uint,
)
from amqp_lite.v10.servicebus import cbs, envelope
from amqp_lite.v10.values import Described, Symbol, Typed, read_value, write_value
from clients10 import ask, connect, deliveries, names, outcomes, sender, session, take
from stored import SMALL, look
from wire10 import error_of, transfer
from world import World

KEY = "c2VjcmV0LWtleS1mb3ItdGVzdC12ZWN0b3ItMDAwMDE="
KEYS = {"root": {"key": KEY, "user": "guest"}, "few": {"key": "other", "user": "sensor"}}
NOW = 1_790_000_000
UUID = Typed(0x98, bytes(range(16)))
ENVELOPE = b"\0\x53\x75\xa0"

cbs.time = envelope.time = lambda: NOW


def world(**options):
    made = World(keys=KEYS, **options)
    if b"q" not in made.broker.queues:
        made.broker.declare_queue(b"q", True, None, False, {})
    return made


def token(path="", key=KEY, name="root", expiry=NOW + 3600):
    uri = "sb%3A%2F%2Fhost%3A5672%2F" + path.replace("/", "%2F").replace("$", "%24")
    sign = b2a_base64(cbs.hmac_sha256(key.encode(), ("%s\n%d" % (uri, expiry)).encode()))
    sign = str(sign.strip(), "utf-8").replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    return "SharedAccessSignature sr=%s&sig=%s&se=%d&skn=%s" % (uri, sign, expiry, name)


def nobody(made, **options):
    """A peer without a user, with a session."""
    peer = connect(made)
    take(peer)
    found = ask(
        peer, wire10.init(b"", "ANONYMOUS") + wire10.HEADER + wire10.open_connection(**options)
        + wire10.begin(),
    )  # fmt: skip
    assert names(found[0:1] + found[2:]) == ["sasl-outcome", "open", "begin"], found
    return peer


def number(peer):
    """The delivery-id that is due."""
    return max(0, peer.engine.sessions[0].due_id)


def request(properties, body, reply_to=None):
    return b"".join((
        described(PROPERTIES, UUID, None, None, None, reply_to),
        write_value(Described(Typed(0x53, 0x74), properties)),
        write_value(Described(Typed(0x53, 0x77), body)),
    ))  # fmt: skip


def answer(found):
    """(application-properties, body) of the one answer in *found*."""
    ((_, _, octets),) = deliveries(found)
    typed = read_value(octets, 0, True)[0]
    assert typed.value.value[5] == UUID
    whole = wire10.sections(octets)
    return whole[0x74], whole[0x77]


def put(peer, text, first=0):
    """The status of a put-token over links with handles *first* and the next."""
    if first not in peer.engine.sessions[0].links:
        found = ask(
            peer, wire10.attach_receiver("cbs", "$cbs", first + 1)
            + wire10.attach_sender("cbs", "$cbs", first) + wire10.credit(first + 1, 100),
        )  # fmt: skip
        assert names(found) == ["attach", "attach", "flow"], found
        assert [row[2][5] and row[2][6] and True for row in found[:2]] == [True, True]
    properties = {"operation": "put-token", "type": "jwt", "name": "sb://host:5672/q"}
    found = ask(peer, transfer(request(properties, text), number(peer), first))
    assert outcomes(found)[0][2:] == (True, ACCEPTED)
    properties, _ = answer(found)
    assert isinstance(properties["status-description"], str)
    return properties["status-code"]


def bus(made):
    """A peer that may use all that guest may."""
    peer = nobody(made)
    assert put(peer, token(), 14) == 202
    return peer


def attach_second(name, source, handle=1, settle=0, filters=None):
    """A receiver that wants us to settle, too, and a flow of 10 credits."""
    return frame(
        0, 0, described(
            ATTACH, name, uint(handle), True, Typed(0x50, settle), Typed(0x50, 1),
            described_value(SOURCE, source, None, None, None, None, None, None, filters),
            described_value(TARGET, "there"),
        ),
    )  # fmt: skip


def receiver(peer, source="amqps://host:5672/q", handle=1, credit=10, **options):
    """Attach one: the transfers that came, [(delivery-id, tag, settled, sections)]."""
    octets = attach_second("r%d" % handle, source, handle, **options)
    found = ask(peer, octets + wire10.credit(handle, credit))
    assert names(found)[0] == "attach" and "detach" not in names(found), found
    assert found[0][2][3:5] == [options.get("settle", 0), 1]
    return transfers(found)


def transfers(found):
    return [
        (row[2][1], row[2][2], (row[2] + [None] * 5)[4], wire10.sections(row[3]))
        for row in found if row[0] == "transfer"
    ]  # fmt: skip


def bodies(rows):
    return [row[3][0x75] for row in rows]


def send(peer, payload, handle=0, format=0):
    """The outcome of a delivery on the sender of *handle*: what the state says."""
    found = ask(
        peer, frame(0, 0, described(
            TRANSFER, uint(handle), uint(number(peer)), b"tag", uint(format)) + payload),
    )  # fmt: skip
    states = [row[2] for row in found if row[0] == "disposition"]
    assert len(states) == 1 and states[0][3], found
    return states[0][4]


def filled(made, *texts):
    """A bus peer that has sent these messages to q."""
    peer = bus(made)
    sender(peer, "amqps://host:5672/q")
    for body in texts:
        assert send(peer, wire10.message(body)).descriptor == ACCEPTED
    return peer


def settle(peer, first, state, *fields):
    """What we say when the peer has the delivery *first* end in *state*."""
    found = ask(peer, wire10.disposition(first, None, state, False, 0, *fields))
    rows = [row[2] for row in found if row[0] == "disposition"]
    assert len(rows) == 1 and rows[0][:2] == [False, first] and rows[0][3] is True, found
    return rows[0][4], transfers(found)


def manage(peer, operation, body, path="q"):
    """Ask the entity's $management, on handles 4 and 5."""
    address = path + "/$management"
    if 4 not in peer.engine.sessions[0].links:
        found = ask(
            peer, wire10.attach_receiver("mgmt", address, 5)
            + wire10.attach_sender("mgmt", address, 4) + wire10.credit(5, 100),
        )  # fmt: skip
        assert names(found) == ["attach", "attach", "flow"], found
    properties = {"operation": "com.microsoft:" + operation, "type": "entity-mgmt"}
    octets = request(properties, body, address)
    found = ask(peer, transfer(octets, number(peer), 4))
    others = [row for row in found if row[0] != "transfer" or row[2][0] == 5]
    properties, body = answer(others)
    status = properties["statusCode"]
    assert (status >= 300) == ("errorCondition" in properties)
    return status, body if status < 300 else properties["errorCondition"].text


def depth(made, name=b"q"):
    return made.broker.queues[name].waiting()


# --- tokens ---


def test_signatures():
    # RFC 4231 §4.3 and §4.7, and what azure-servicebus makes.
    for key, octets, good in (
        (b"Jefe", b"what do ya want for nothing?", b"5bdcc146bf60754e6a042426089575c7"),
        (b"\xaa" * 131, b"Test Using Larger Than Block-Size Key - Hash Key First",
         b"60e431591ee0b67f0d8a26aacbf5b77f"),
    ):  # fmt: skip
        assert hexlify(cbs.hmac_sha256(key, octets))[:32] == good
    peer = nobody(world())
    assert put(peer, (
        "SharedAccessSignature sr=sb%3A%2F%2Fexample.servicebus.windows.net%2Fqueue1"
        "&sig=IxtrUTtFOzQhA1jxcofSV97RmR8AZaU6n72vXVxJkVU%3D&se=1893456000&skn=root"
    )) == 202  # fmt: skip


def test_who_may_come_without_a_user():
    def offered(made):
        return [name.text for name in take(connect(made))[1][2][0]]

    assert offered(World()) == ["PLAIN"]
    assert offered(world()) == ["PLAIN", "ANONYMOUS"]
    start = world().connect().take()[0][2]
    assert b"PLAIN" in start and b"ANONYMOUS" not in start  # 0-9-1 has no tokens


def test_nobody_may_attach_tokens_only():
    made = world()
    free = made.free()
    peer = nobody(made)
    for octets in (
        wire10.attach_sender("a", "q"), wire10.attach_sender("a", None),
        wire10.attach_sender("a", "/queues/q"), wire10.attach_sender("a", None, dynamic=True),
        wire10.attach_sender("a", "/management"), wire10.attach_sender("a", "q/$management"),
        wire10.attach_receiver("a", "q"), wire10.attach_receiver("a", "amqps://host/q"),
        wire10.attach_receiver("a", None, dynamic=True), wire10.attach_receiver("a", ""),
    ):  # fmt: skip
        found = ask(peer, octets)
        assert names(found) == ["attach", "detach"], found
        assert error_of(found[1]) == "amqp:unauthorized-access"
        ask(peer, wire10.detach())
    assert list(made.broker.queues) == [b"q"]
    assert put(peer, token()) == 202
    peer.vanish()
    made.run()
    assert made.free() == free


def test_tokens_that_are_refused():
    peer = nobody(world())
    good = token()
    for text in (
        token(key="wrong"), token(name="few"), token(name="none"), token(expiry=NOW),
        token(expiry=NOW - 1), good.replace("5672", "5673"), good[:-1], good + "&sig=",
        "SharedAccessSignature ", "", None, 7, b"x", good.replace("&se=", "&se=x"),
        good.replace("%3D&", "%3&"), good.replace("SharedAccess", "Shared"),
    ):  # fmt: skip
        assert put(peer, text) == 401, text
    found = ask(peer, wire10.attach_sender("a", "q", 5))
    assert error_of(found[1]) == "amqp:unauthorized-access"
    ask(peer, wire10.detach(5))
    assert put(peer, good) == 202
    assert names(ask(peer, wire10.attach_sender("a", "q", 5))) == ["attach", "flow"]


def test_a_token_opens_what_it_names_and_no_more():
    made = world()
    for name in (b"a", b"ab", b"a/b"):
        made.broker.declare_queue(name, True, None, False, {})
    peer = nobody(made)
    assert put(peer, token("a")) == 202
    for address, opens in (
        ("a", 1), ("amqps://x/a", 1), ("a/b", 1), ("a/$DeadLetterQueue", 1), ("ab", 0), ("q", 0),
        ("", 0), ("amqps://a/q", 0), ("/a/", 1),
    ):  # fmt: skip
        found = ask(peer, wire10.attach_receiver("r", address, 5))
        assert names(found) == (["attach"] if opens else ["attach", "detach"]), address
        ask(peer, wire10.detach(5))


def test_the_user_of_the_key_counts():
    made = world()
    for name in (b"sensors.a", b"sensors.b"):
        made.broker.declare_queue(name, True, None, False, {})
    peer = nobody(made)
    assert put(peer, token(name="few", key="other")) == 202
    for octets, opens in (
        (wire10.attach_receiver("r", "sensors.a", 5), True),
        (wire10.attach_receiver("r", "sensors.a/$DeadLetterQueue", 5), True),
        (wire10.attach_receiver("r", "sensors.b", 5), False),
        (wire10.attach_receiver("r", "sensors.b/$management", 5), False),
        (wire10.attach_sender("r", "sensors.b", 5), True),
        (wire10.attach_sender("r", "q", 5), False),
    ):
        found = ask(peer, octets)
        assert ("detach" in names(found)) != opens, found
        assert opens or error_of(found[1]) == "amqp:unauthorized-access"
        ask(peer, wire10.detach(5))


def test_who_puts_no_token_is_cut():
    made = world()
    one = nobody(made)
    other = bus(made)
    put(one, token(key="wrong"))
    made.wait(11000)
    assert one.gone and not other.gone


def test_who_puts_no_token_is_a_stranger():
    made = world(unauthenticated=1)
    peer = nobody(made)
    assert peer.engine.user is None  # which the reactor counts
    put(peer, token(key="wrong"))
    for _ in range(20):
        if not peer.gone and not peer.engine.deaf:
            ask(peer, transfer(request({}, "x" * 300), number(peer), 0))
    assert peer.engine.deaf  # after login_bytes octets
    peer = bus(made)
    assert peer.engine.user.name == b"guest"
    sender(peer, "q")
    for _ in range(20):
        assert send(peer, wire10.message(bytes(300))).descriptor == ACCEPTED


def test_links_end_with_their_tokens():
    made = world()
    peer = nobody(made)
    try:
        assert put(peer, token("q", expiry=NOW + 10)) == 202
        assert put(peer, token("q/sub", expiry=NOW + 20)) == 202
        sender(peer, "q", handle=4)
        made.broker.declare_queue(b"q/sub", True, None, False, {})
        sender(peer, "q/sub", name="sub", handle=5)
        cbs.time = lambda: NOW + 12
        made.wait(12000)
        found = take(peer)
        assert names(found) == ["detach"] and found[0][2][0] == 4
        assert error_of(found[0]) == "amqp:unauthorized-access"
        # In time, another one keeps a link.
        assert put(peer, token("q", expiry=NOW + 100)) == 202
        cbs.time = lambda: NOW + 30
        made.wait(18000)
        assert names(take(peer)) == [] and not peer.gone
        cbs.time = lambda: NOW + 101
        made.wait(80000)
        assert peer.gone
    finally:
        cbs.time = lambda: NOW


def test_beside_an_anonymous_user():
    made = world(anonymous="guest")
    made.broker.declare_queue(b"x", True, None, False, {})
    peer = nobody(made)
    sender(peer, "/queues/x")
    made.wait(20000)
    assert send(peer, wire10.message(b"m")).descriptor == ACCEPTED
    found = ask(peer, wire10.attach_receiver("down", "/queues/x", 1) + wire10.credit(1, 1))
    assert found[1][2][2] == b"\0\0\0\0"  # a delivery-tag like any other
    assert settle(peer, 0, REJECTED)[0] == described_value_of(REJECTED)
    assert put(peer, token("q"), 14) == 202
    found = ask(peer, wire10.attach_receiver("r", "x", 5))
    assert error_of(found[1]) == "amqp:unauthorized-access"


def described_value_of(code, *fields):
    """As split() tells it."""
    return Described(code, list(fields))


# --- sending ---


def test_what_is_sent_is_stored():
    made = world()
    peer = bus(made)
    found = ask(peer, wire10.attach_sender("up", "amqps://host:5672/q"))
    assert found[0][2][10] == 8192  # what the broker takes
    properties = described(PROPERTIES, "m1", None, None, "s")
    assert send(peer, properties + wire10.message(b"one")).descriptor == ACCEPTED
    assert send(peer, wire10.message(b"two", durable=False)).descriptor == ACCEPTED
    made = made.restart()
    peer = bus(made)
    rows = receiver(peer)
    assert bodies(rows) == [b"one", b"two"]
    assert rows[0][3][0x73][:4] == ["m1", None, None, "s"]
    assert len(rows[1][3][0x73][0]) == 32


def test_a_message_of_many_transfers():
    made = world()
    peer = bus(made)
    sender(peer, "q")
    payload = wire10.message(b"x" * 3000)
    first = number(peer)
    octets = b"".join([
        transfer(payload[i : i + 500], first if not i else None, more=i + 500 < len(payload))
        for i in range(0, len(payload), 500)
    ])  # fmt: skip
    assert outcomes(ask(peer, octets)) == [(first, first, True, ACCEPTED)]
    found = ask(peer, attach_second("r", "q") + wire10.credit(1, 1))
    ((_, _, whole),) = deliveries(found)
    assert wire10.sections(whole)[0x75] == b"x" * 3000
    found = ask(peer, transfer(b"\0\x53\x75\xb0\0\0\x30\0", number(peer), more=True))
    for _ in range(4):
        found += ask(peer, transfer(bytes(3000), None, more=True))
    found += ask(peer, transfer(b"", None))
    assert "close" not in names(found)
    states = [row[2][4] for row in found if row[0] == "disposition"]
    assert [state.descriptor for state in states] == [REJECTED]
    assert states[0].value[0].value[0].text == "amqp:link:message-size-exceeded"


def test_batches():
    made = world()
    peer = bus(made)
    sender(peer, "q")
    inner = [wire10.message(b"%d" % k, headers={"k": k}) for k in range(3)]
    batch = b"".join([ENVELOPE + bytes((len(one),)) + one for one in inner])
    envelope = described(PROPERTIES, "first")
    assert send(peer, envelope + batch, 0, 0x80013700).descriptor == ACCEPTED
    rows = receiver(peer)
    assert bodies(rows) == [b"0", b"1", b"2"]
    assert [row[3][0x74] for row in rows] == [{"k": 0}, {"k": 1}, {"k": 2}]
    ids = [row[3][0x73][0] for row in rows]
    assert "first" not in ids and len(set(ids)) == 3
    # All of them or none.
    for bad in (
        batch + ENVELOPE + b"\1x", batch + ENVELOPE + b"\0", batch + ENVELOPE + b"\5\0\x53\x75",
        batch + b"\0\x53\x78\xc1\1\0", b"\0\x53\x77\x40",
    ):  # fmt: skip
        state = send(peer, bad, 0, 0x80013700)
        assert state.descriptor == REJECTED, bad
    assert depth(made) == 0
    assert send(peer, batch).descriptor == ACCEPTED  # a message of three data sections
    assert depth(made) == 0 and len(take(peer)) == 0


def many(count, size=1):
    """A batch of so many messages."""
    rows = [wire10.message(b"%d" % k * size) for k in range(count)]
    return b"".join([b"\0\x53\x75\xb0" + struct.pack(">I", len(one)) + one for one in rows])


def test_a_batch_is_stored_as_a_whole_or_not_at_all():
    made = world(messages=300, blocks=400)
    made.broker.declare_queue(
        b"two", True, None, False, {b"x-max-length": 2, b"x-overflow": b"reject-publish"}
    )
    peer = bus(made)
    sender(peer, "two")
    sender(peer, "q", name="q", handle=1)

    def left():
        return [made.free()[key] for key in ("blocks", "messages", "entries", "promised")]

    before = left()
    busy = "com.microsoft:server-busy"
    assert send(peer, many(3), 0, 0x80013700).value[0].value[0].text == busy
    assert depth(made, b"two") == 0 and left() == before
    assert send(peer, many(2), 0, 0x80013700).descriptor == ACCEPTED
    # More than is taken as a whole, and than a transaction of clients may have; until it is full.
    assert send(peer, many(80), 1, 0x80013700).descriptor == ACCEPTED
    sent = 80
    while send(peer, many(20), 1, 0x80013700).descriptor == ACCEPTED:
        sent += 20
        assert depth(made) == sent
    assert depth(made) == sent
    assert send(peer, wire10.message(b"last"), 1).descriptor == ACCEPTED
    made = made.restart()
    assert depth(made) == sent + 1 and depth(made, b"two") == 2


def test_what_cannot_be_sent():
    made = world()
    peer = bus(made)
    sender(peer, "q")
    later = {Symbol("x-opt-scheduled-enqueue-time"): Typed(0x83, 1000 * NOW + 1)}
    octets = write_value(Described(Typed(0x53, 0x72), later)) + wire10.message(b"x")
    state = send(peer, octets)
    assert state.descriptor == REJECTED
    assert state.value[0].value[0].text == "amqp:not-implemented"
    assert send(peer, b"\0\x53\x75").descriptor == REJECTED
    state = send(peer, wire10.message(b"x", user=b"sensor"))
    assert state.value[0].value[0].text == "amqp:not-allowed"
    assert send(peer, octets.replace(b"scheduled", b"schedules")).descriptor == ACCEPTED
    made.broker.declare_queue(
        b"full", False, None, False, {b"x-max-length": 0, b"x-overflow": b"reject-publish"}
    )
    sender(peer, "full", name="f", handle=2)
    state = send(peer, wire10.message(b"x"), 2)
    assert state.value[0].value[0].text == "com.microsoft:server-busy"
    assert depth(made) == 1


# --- receiving ---


def test_a_delivery_is_a_lock():
    made = world()
    rows = receiver(filled(made, b"one", b"two"))
    assert [row[0] for row in rows] == [2, 3] or [row[0] for row in rows] == [1, 2], rows
    for low, tag, settled, sections in rows:
        assert len(tag) == 16 and not settled
        assert tag[12:] == bytes((0, 0, 0, low))
        # The GUID is the same in both orders of octets.
        assert [tag[k] for k in (3, 2, 1, 0, 5, 4, 7, 6)] == list(tag[:8])
        annotations = {key.text: sections[0x72][key] for key in sections[0x72]}
        assert annotations["x-opt-enqueued-time"] == 1000 * NOW
        assert annotations["x-opt-locked-until"] == 1000 * NOW + 60000
        assert sections[0x70][0] is True and sections[0x70][4] == 0
    first, second = [row[3][0x72][Symbol("x-opt-sequence-number")] for row in rows]
    assert 0 < first < second


def test_every_way_to_settle():
    made = world()
    free = made.free()
    peer = filled(made, b"1", b"2", b"3", b"4")
    rows = receiver(peer)
    ids = [row[0] for row in rows]
    assert settle(peer, ids[0], ACCEPTED) == (described_value_of(ACCEPTED), [])
    state, again = settle(peer, ids[1], MODIFIED, True, False)
    assert state == described_value_of(MODIFIED, True, False)
    assert bodies(again) == [b"2"] and again[0][3][0x70][4] == 1
    state, more = settle(peer, again[0][0], MODIFIED)
    assert state.descriptor == MODIFIED and more[0][3][0x70][4] == 2
    state, more = settle(peer, ids[3], RELEASED)
    assert state == described_value_of(RELEASED) and more[0][3][0x70][4] == 0
    assert more[0][1] != rows[3][1]
    assert settle(peer, more[0][0], ACCEPTED)[0] == described_value_of(ACCEPTED)
    # Without an answer where the peer has settled.
    assert ask(peer, wire10.disposition(ids[2])) == []
    # What is settled already, and what was never there.
    state, _ = settle(peer, ids[0], ACCEPTED)
    assert state.descriptor == REJECTED
    assert state.value[0].value[0].text == "com.microsoft:message-lock-lost"
    assert ask(peer, wire10.disposition(999, settled=False)) == []
    peer.vanish()
    made.run()
    assert depth(made) == 1
    made.broker.queues[b"q"].purge()
    made.broker.delete_queue(made.broker.queues[b"q"])
    made.run()
    made.wait(2000)
    free["queues"] += 1
    free.pop("names")
    left = made.free()
    left.pop("names")
    assert {key: left[key] for key in free if key != "stored"} == {
        key: free[key] for key in free if key != "stored"
    }


def test_dead_letters():
    made = world()
    peer = filled(made, b"bad", b"worse", b"worst")
    ids = [row[0] for row in receiver(peer)]
    for low, info in (
        (ids[0], {Symbol("DeadLetterReason"): "why",
                  Symbol("DeadLetterErrorDescription"): "because"}),
        (ids[1], {"DeadLetterReason": "why", "other": 7}),
        (ids[2], None),
    ):  # fmt: skip
        error = described_value(ERROR, Symbol("com.microsoft:dead-letter"), None, info)
        # The answer says no error.
        assert settle(peer, low, REJECTED, error) == (described_value_of(REJECTED), [])
    # A power cut now leaves what flash does not know to be done, and the dead letters.
    left = look(made)
    assert (depth(left), depth(left, b"q/$DeadLetterQueue")) == (3, 3)
    left = None
    made.wait(2000)
    peer.vanish()
    made = made.restart()
    peer = bus(made)
    assert depth(made) == 0
    rows = receiver(peer, "amqps://host/q/$DeadLetterQueue")
    assert bodies(rows) == [b"bad", b"worse", b"worst"]
    assert rows[0][3][0x74] == {
        "DeadLetterReason": "why", "DeadLetterErrorDescription": "because"
    }  # fmt: skip
    assert rows[1][3][0x74] == {"DeadLetterReason": "why"}
    assert 0x74 not in rows[2][3]
    assert rows[0][3][0x72][Symbol("x-opt-deadletter-source")] == "q"
    # A dead letter cannot die again, and is not lost.
    state, _ = settle(peer, rows[0][0], REJECTED)
    assert state.value[0].value[0].text == "amqp:not-allowed"
    assert settle(peer, rows[0][0], ACCEPTED)[0] == described_value_of(ACCEPTED)
    assert depth(made, b"q/$DeadLetterQueue") == 0


def test_a_dead_letter_that_finds_no_room_stays():
    made = world()
    peer = filled(made, b"bad")
    ((low, _, _, _),) = receiver(peer)
    pool = made.broker.pool
    taken = pool.begin(pool.available * pool.block_size)
    state, _ = settle(peer, low, REJECTED)
    assert state.value[0].value[0].text == "com.microsoft:server-busy"
    pool.release(taken)
    assert settle(peer, low, REJECTED)[0] == described_value_of(REJECTED)
    assert depth(made, b"q/$DeadLetterQueue") == 1


def test_a_lock_ends():
    made = world()
    peer = filled(made, b"m")
    ((low, _, _, _),) = receiver(peer, credit=1)
    made.wait(30000)
    assert take(peer) == [] and depth(made) == 0
    made.wait(32000)
    assert depth(made) == 1
    state, _ = settle(peer, low, ACCEPTED)
    assert state.value[0].value[0].text == "com.microsoft:message-lock-lost"
    ((_, _, _, sections),) = transfers(ask(peer, wire10.credit(1, 1, 1)))
    assert sections[0x70][4] == 1


def test_receive_and_delete():
    made = world()
    peer = filled(made, b"1", b"2")
    rows = receiver(peer, settle=1)
    assert bodies(rows) == [b"1", b"2"] and [row[2] for row in rows] == [True, True]
    assert Symbol("x-opt-locked-until") not in rows[0][3][0x72]
    assert made.broker.queues[b"q"].unacked == 0 == depth(made)


def test_the_end_of_a_receiver():
    made = world()
    peer = filled(made, b"1", b"2")
    rows = receiver(peer, credit=1)
    found = ask(peer, wire10.credit(1, 0, 1, drain=True))
    assert names(found) == ["flow"] and found[0][2][5:7] == [1, 0]
    assert settle(peer, rows[0][0], RELEASED)[1] == []
    assert names(ask(peer, wire10.detach(1))) == ["detach"]
    assert depth(made) == 2
    # One client ends the session before its links.
    found = ask(peer, wire10.end() + wire10.detach(0))
    assert names(found) == ["end"]


def test_messages_of_plain_clients():
    made = world()
    old = made.client()
    old.send(wire.publish(1, "", "q", b"old", wire.properties(headers={"h": 1})))
    plain = session(made)
    sender(plain, "/queues/q")
    ask(plain, transfer(wire10.message(b"plain", subject="s", headers={"k": 2})))
    ask(plain, transfer(wire10.message(b"bare"), 1))
    peer = bus(made)
    rows = receiver(peer)
    assert bodies(rows) == [b"old", b"plain", b"bare"]
    assert rows[0][3][0x74] == {"h": 1} and rows[1][3][0x74] == {"k": 2}
    assert rows[1][3][0x73][3] == "s"
    assert len({row[3][0x73][0] for row in rows}) == 3
    error = described_value(ERROR, Symbol("com.microsoft:dead-letter"), None, {"a": 1})
    for row in rows:
        assert len(row[1]) == 16
        assert settle(peer, row[0], REJECTED, error)[0] == described_value_of(REJECTED)
    # They are for everybody.
    plain = made.client()
    found = plain.contents(wire.get(1, "q/$DeadLetterQueue", no_ack=1))
    assert found[0][4] == b"old"


def test_topics_and_subscriptions():
    made = world()
    broker = made.broker
    queue = broker.declare_queue(b"t/Subscriptions/s", True, None, False, {})
    exchange = broker.declare_exchange(b"t", KINDS[b"topic"], True, False, False, {})
    broker.bind(exchange, queue, b"a.*", {})
    peer = bus(made)
    sender(peer, "amqps://host/t")
    # The subject is the key. What no subscription gets is accepted, too.
    for subject, more in (("a.b", 1), ("b.b", 0), (None, 0)):
        before = queue.waiting()
        assert send(peer, wire10.message(b"m", subject=subject)).descriptor == ACCEPTED
        assert queue.waiting() == before + more
    for address, condition in (
        ("t/Subscriptions/none", "amqp:not-found"), ("t", "amqp:not-found"),
        ("t/Subscriptions/s/$DeadLetterQueue", None), ("t/Subscriptions/s", None),
        ("q/$Transfer/$DeadLetterQueue", "amqp:not-found"), ("none/$x", "amqp:not-found"),
    ):  # fmt: skip
        found = ask(peer, wire10.attach_receiver("r", address, 5))
        assert (error_of(found[1]) if len(found) > 1 else None) == condition, address
        ask(peer, wire10.detach(5))


def test_what_is_not_there():
    made = world(auto_declare=0)
    peer = bus(made)
    for octets in (
        wire10.attach_sender("a", "none", 5), wire10.attach_receiver("a", "none", 5),
        wire10.attach_receiver("a", "none/$DeadLetterQueue", 5),
        wire10.attach_sender("a", "none/$management", 5), wire10.attach_sender("a", "", 5),
        wire10.attach_sender("a", None, 5), wire10.attach_sender("a", "amqps://host", 5),
        wire10.attach_receiver("a", "", 5), wire10.attach_sender("a", "/$management", 5),
    ):  # fmt: skip
        found = ask(peer, octets)
        assert names(found) == ["attach", "detach"]
        assert found[0][2][5:7] == [None, None] or found[0][2][5:] == [None, None, None, None, 0]
        assert error_of(found[1]) == "amqp:not-found"
        ask(peer, wire10.detach(5))
    assert list(made.broker.queues) == [b"q"]


def test_queues_may_be_made_by_their_names():
    peer = bus(world(auto_declare=1))
    sender(peer, "amqps://host/new")
    assert send(peer, wire10.message(b"m")).descriptor == ACCEPTED
    assert bodies(receiver(peer, "new")) == [b"m"]


def test_transactions_are_refused():
    made = world()
    target = described_value(COORDINATOR, Symbol("amqp:local-transactions"))
    attach = frame(0, 0, described(
        ATTACH, "tx", uint(5), False, None, None, described_value(SOURCE, "here"), target, None,
        None, uint(0)))  # fmt: skip
    for peer in (nobody(made), bus(made)):
        found = ask(peer, attach)
        assert names(found) == ["attach", "detach"]
        assert error_of(found[1]) == "amqp:not-implemented"


def test_sessions_are_refused():
    peer = bus(world())
    for value in (None, "s"):
        filters = {Symbol("com.microsoft:session-filter"): value}
        found = ask(peer, attach_second("r", "q", filters=filters))
        assert names(found) == ["attach", "detach"]
        assert error_of(found[1]) == "amqp:not-implemented"
        ask(peer, wire10.detach(1))


# --- $management ---


def peeked(peer, first, count):
    status, body = manage(
        peer, "peek-message", {"from-sequence-number": first, "message-count": count}
    )
    if status == 204:
        return []
    return [wire10.sections(row["message"]) for row in body["messages"]]


def sequence(sections):
    return sections[0x72][Symbol("x-opt-sequence-number")]


def test_peek():
    made = world(**SMALL)
    peer = filled(made, *[b"%d" % k for k in range(12)])
    assert made.broker.queues[b"q"].backlog > 5
    found = peeked(peer, 1, 20)
    assert [sections[0x75] for sections in found] == [b"%d" % k for k in range(12)]
    numbers = [sequence(sections) for sections in found]
    assert numbers == sorted(set(numbers))
    assert [row[0x75] for row in peeked(peer, numbers[5], 2)] == [b"5", b"6"]
    assert [row[0x75] for row in peeked(peer, numbers[10] + 1, 20)] == [b"11"]
    assert peeked(peer, numbers[11] + 1, 20) == []
    assert [row[0x75] for row in peeked(peer, 0, 1)] == [b"0"]
    for count in (0, -1, -(2**62)):
        body = {"from-sequence-number": 0, "message-count": count}
        assert manage(peer, "peek-message", body)[0] == 400
    assert len(peeked(peer, -(2**62), 2**62)) == 12
    # Nothing was taken, and the numbers are those of the deliveries.
    assert depth(made) == 12
    rows = receiver(peer, credit=3)
    assert bodies(rows) == [b"0", b"1", b"2"]
    assert [sequence(row[3]) for row in rows] == numbers[:3]


def test_peek_at_what_is_not_stored():
    made = world()
    made.broker.declare_queue(b"ram", False, None, False, {})
    old = made.client()
    for name in ("q", "ram"):
        for k in range(3):
            old.send(wire.publish(1, "", name, b"%d" % k))
    peer = bus(made)
    found = peeked(peer, 0, 10)
    assert [sections[0x75] for sections in found] == [b"0", b"1", b"2"]
    assert len({sequence(sections) for sections in found}) == 3
    ask(peer, wire10.detach(4) + wire10.detach(5))
    body = {"from-sequence-number": 0, "message-count": 10}
    status, body = manage(peer, "peek-message", body, "ram")
    found = [wire10.sections(row["message"]) for row in body["messages"]]
    assert [sections[0x75] for sections in found] == [b"0", b"1", b"2"]
    assert len({sequence(sections) for sections in found}) == 3


def tokens(*rows):
    return {"lock-tokens": Typed(0xE0, list(rows), b"\x98")}


def test_renew_locks():
    made = world()
    peer = filled(made, b"m")
    ((_, tag, _, _),) = receiver(peer)
    made.wait(50000)
    status, body = manage(peer, "renew-lock", tokens(tag))
    assert status == 200 and body == {"expirations": [1000 * NOW + 60000]}
    made.wait(50000)
    assert transfers(take(peer)) == [] and depth(made) == 0
    other = bytes((tag[0] ^ 1,)) + tag[1:]
    for row in (other, tag[:12] + b"\0\0\0\x77"):
        assert manage(peer, "renew-lock", tokens(row)) == (410, "com.microsoft:message-lock-lost")
    made.wait(15000)
    assert len(transfers(take(peer))) == 1
    assert manage(peer, "renew-lock", tokens(tag)) == (410, "com.microsoft:message-lock-lost")


def test_dispositions_by_lock_tokens():
    made = world()
    peer = filled(made, b"1", b"2", b"3", b"4")
    tags = [row[1] for row in receiver(peer, credit=4)]
    for tag, status, more in (
        (tags[0], "completed", {}), (tags[1], "abandoned", {}),
        (tags[2], "suspended", {"deadletter-reason": "r", "deadletter-description": "d"}),
        (tags[3], "defered", {}),
    ):  # fmt: skip
        body = dict(tokens(tag), **{"disposition-status": status})
        body.update(more)
        assert manage(peer, "update-disposition", body) == (200, {}), status
        assert manage(peer, "update-disposition", body)[0] == 410
    assert depth(made) == 1
    assert depth(made, b"q/$DeadLetterQueue") == 1
    body = dict(tokens(tags[0]), **{"disposition-status": "what"})
    assert manage(peer, "update-disposition", body) == (400, "amqp:decode-error")


def receive_deferred(peer, *numbers, mode=1):
    body = {
        "sequence-numbers": Typed(0xF0, list(numbers), b"\x81"),
        "receiver-settle-mode": uint(mode),
    }
    status, body = manage(peer, "receive-by-sequence-number", body)
    if status != 200:
        return body
    return [(row["lock-token"], wire10.sections(row["message"])) for row in body["messages"]]


def test_deferred_messages():
    made = world()
    free = made.free()
    peer = filled(made, b"1", b"2", b"3")
    rows = receiver(peer)
    numbers = [sequence(row[3]) for row in rows]
    for row in rows:
        state, more = settle(peer, row[0], MODIFIED, True, True)
        assert state == described_value_of(MODIFIED, True, True) and more == []
    found = peeked(peer, 0, 10)
    assert [row[0x75] for row in found] == [b"1", b"2", b"3"]
    assert found[0][0x72][Symbol("x-opt-message-state")] == 1
    assert receive_deferred(peer, 1) == "com.microsoft:message-not-found"
    ((token, sections),) = receive_deferred(peer, numbers[0])
    assert sections[0x75] == b"1"
    # It is locked, for a time.
    assert receive_deferred(peer, numbers[0]) == "com.microsoft:message-not-found"
    made.wait(61000)
    ((token, sections),) = receive_deferred(peer, numbers[0])
    assert manage(peer, "renew-lock", tokens(token))[0] == 200
    body = dict(tokens(token), **{"disposition-status": "abandoned"})
    assert manage(peer, "update-disposition", body) == (200, {})
    ((token, _), (other, _)) = receive_deferred(peer, numbers[0], numbers[1])
    body = dict(tokens(token), **{"disposition-status": "completed"})
    assert manage(peer, "update-disposition", body) == (200, {})
    body = dict(tokens(other), **{"disposition-status": "suspended"})
    assert manage(peer, "update-disposition", body) == (200, {})
    assert depth(made, b"q/$DeadLetterQueue") == 1
    # Twice in one request is once too often, and takes nothing.
    found = receive_deferred(peer, numbers[2], numbers[2], mode=0)
    assert found == "com.microsoft:message-not-found"
    ((_, sections),) = receive_deferred(peer, numbers[2], mode=0)
    assert sections[0x75] == b"3"
    assert peeked(peer, 0, 10) == []
    made.broker.queues[b"q/$DeadLetterQueue"].purge()
    peer.vanish()
    made.run()
    left = made.free()
    for key in ("blocks", "messages", "entries", "consumers"):
        assert left[key] == free[key], key


def test_what_management_does_not_have():
    peer = bus(world())
    for operation in ("schedule-message", "get-session-state", "add-rule"):
        assert manage(peer, operation, {}) == (501, "amqp:not-implemented")
    for body in ({}, "x", {"from-sequence-number": 1, "message-count": "x"}):
        assert manage(peer, "peek-message", body) == (400, "amqp:decode-error")
    found = ask(peer, wire10.attach_sender("m", "t/Subscriptions/none/$management", 8))
    assert error_of(found[1]) == "amqp:not-found"
    peer.world.broker.delete_queue(peer.world.broker.queues[b"q"])
    body = {"from-sequence-number": 0, "message-count": 10}
    assert manage(peer, "peek-message", body) == (404, "amqp:not-found")


# --- what all receivers have ---


def test_two_phases_of_any_receiver():
    made = world()
    peer = session(made)
    sender(peer, "/queues/q")
    for k in range(4):
        ask(peer, transfer(wire10.message(b"m"), k))
    found = ask(peer, attach_second("down", "/queues/q") + wire10.credit(1, 4))
    assert found[0][2][4] == 1
    assert [row[2][2] for row in found[1:]] == [b"\0\0\0" + bytes((k,)) for k in range(4)]
    error = described_value(ERROR, Symbol("any:thing"))
    assert settle(peer, 0, ACCEPTED)[0] == described_value_of(ACCEPTED)
    assert settle(peer, 1, REJECTED, error)[0] == described_value_of(REJECTED)
    state, _ = settle(peer, 2, MODIFIED, True, True, {Symbol("x"): 1})
    assert state == described_value_of(MODIFIED, True, True, {Symbol("x"): 1})
    assert settle(peer, 3, MODIFIED)[0].descriptor == MODIFIED
    assert depth(made) == 1
