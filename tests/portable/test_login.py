"""From the first octet to connection.open-ok, and every way not to get there."""

import struct

import wire
from world import World


def start(frames):
    """mechanisms of connection.start, the first of *frames*."""
    channel, name, payload = frames[0]
    assert (channel, name, payload[:2]) == (0, "connection.start", b"\x00\x09")
    i = 6 + struct.unpack(">I", payload[2:6])[0]
    n = struct.unpack(">I", payload[i : i + 4])[0]
    return payload[i + 4 : i + 4 + n].split(b" ")


def logs_in(response, mechanism="PLAIN", world=None):
    """Whether the SASL response is accepted. A refused one is answered after its penalty."""
    world = world or World()
    peer = world.connect()
    names = peer.names(wire.start_ok(response, mechanism))
    if names == ["connection.start", "connection.tune"]:
        peer.vanish()
        return True
    assert names == ["connection.start"]
    world.wait(31000)
    frames = peer.take()
    assert [name for _, name, _ in frames] == ["connection.close"]
    assert frames[0][2][:2] == b"\x01\x93"  # 403
    peer.vanish()
    return False


def test_the_handshake():
    world = World()
    peer = world.connect()
    assert sorted(start(peer.take())) == [b"AMQPLAIN", b"PLAIN"]
    frames = peer.ask(wire.start_ok("\0guest\0guest"))
    assert frames == [(0, "connection.tune", struct.pack(">HIH", 8, 8192, 60))]
    assert peer.ask(wire.tune_ok(8, 8192, 60)) == []
    assert peer.ask(wire.open_connection()) == [(0, "connection.open-ok", b"\0")]
    peer.open(1)
    assert peer.works()
    assert peer.names(wire.close_connection()) == ["connection.close-ok"]
    assert peer.gone


def test_the_capabilities_are_those_there_are():
    peer = World().connect()
    payload = peer.take()[0][2]
    for name in ("publisher_confirms", "exchange_exchange_bindings", "basic.nack",
                 "consumer_cancel_notify", "connection.blocked", "authentication_failure_close",
                 "per_consumer_qos", "direct_reply_to"):  # fmt: skip
        assert wire.field(name, "t", b"\x01") in payload, name
    assert b"consumer_priorities" not in payload


def test_plain_takes_user_and_password():
    world = World()
    assert logs_in("\0guest\0guest", world=world)
    assert logs_in("\0sensor\0secret", world=world)
    assert logs_in("whoever\0guest\0guest", world=world)  # an authorization identity
    for bad in ("", "\0", "\0\0", "\0guest", "guest\0guest", "\0guest\0", "\0guest\0guess",
                "\0guest\0guest\0", "\0\0guest\0guest", "\0nobody\0guest", "\0guest\0guest ",
                b"\0\xff\0\xff", b"\0guest\0" + b"g" * 400):  # fmt: skip
        assert not logs_in(bad, world=world), bad


def test_amqplain_takes_a_table():
    world = World()
    table = wire.table({"LOGIN": "guest", "PASSWORD": "guest"})[4:]
    assert logs_in(table, "AMQPLAIN", world)
    assert logs_in(table + wire.field("x", "t", b"\x01"), "AMQPLAIN", world)
    for bad in (
        b"",
        table[:-1],
        table + b"\0",
        wire.table({"LOGIN": "guest"})[4:],
        wire.table({"LOGIN": "guest", "PASSWORD": 1})[4:],
        wire.table({"LOGIN": "guest", "PASSWORD": "guess"})[4:],
        b"\xff" * 30,
        b"\0guest\0guest",
    ):
        assert not logs_in(bad, "AMQPLAIN", world), bad


def test_a_mechanism_that_was_not_offered_is_refused_as_a_wrong_password_is():
    world = World()
    for mechanism in ("EXTERNAL", "ANONYMOUS", "plain", "", "\xff"):
        assert not logs_in("\0guest\0guest", mechanism, world), mechanism
    assert world.broker.metrics.logins_refused == 5
    assert world.access.penalty("127.0.0.1", world.broker.now) == 500 << 5


def test_the_verdict_on_a_wrong_password_takes_longer_each_time():
    world = World()
    for delay in (500, 1000, 2000, 4000):
        peer = world.connect()
        peer.ask(wire.start_ok("\0guest\0wrong"))
        world.wait(delay - 250)
        assert peer.names() == [], delay
        world.wait(250)
        assert peer.names() == ["connection.close"], delay
        peer.send(wire.method(0, "connection.close-ok"))
        assert peer.gone
    assert world.broker.metrics.logins_refused == 4


def test_a_client_that_cannot_be_told_is_hung_up_on():
    world = World()
    peer = world.connect()
    peer.ask(wire.start_ok("\0guest\0wrong", capabilities=()))
    world.wait(600)
    assert peer.gone and peer.take() == []


def test_whatever_a_refused_peer_says_before_its_verdict_is_not_read():
    world = World()
    peer = world.connect()
    peer.ask(wire.start_ok("\0guest\0wrong") + wire.start_ok("\0guest\0guest"))
    assert peer.names(wire.tune_ok(0, 0, 0) + wire.open_connection()) == []
    world.wait(600)
    assert peer.names() == ["connection.close"]
    assert peer.engine.user is None


def test_a_refused_peer_that_floods_is_gone_all_the_same():
    world = World()
    peer = world.connect()
    peer.ask(wire.start_ok("\0guest\0wrong"))
    peer.send(bytes(8000))
    world.wait(4000)
    assert peer.gone


def test_a_peer_that_says_nothing_is_cut_at_the_deadline():
    world = World()
    peer = world.connect()
    world.wait(9750)
    assert not peer.gone
    world.wait(500)
    assert peer.gone
    assert world.broker.metrics.peers_cut == 1


def test_the_deadline_counts_from_the_start_not_from_the_last_octet():
    world = World()
    peer = world.connect()
    for octet in wire.start_ok("\0guest\0guest")[:30]:
        peer.send(bytes([octet]))
        world.wait(400)
    assert peer.gone


def test_a_login_that_stops_half_way_is_cut_at_the_deadline():
    world = World()
    for octets in (
        wire.start_ok("\0guest\0guest"),
        wire.start_ok("\0guest\0guest") + wire.tune_ok(0, 0, 0),
    ):
        peer = world.connect().send(octets)
        world.wait(10500)
        assert peer.gone
        assert peer.engine.user is None


def test_the_deadline_is_over_with_the_login():
    world = World()
    peer = world.client()
    world.wait(60000)
    assert not peer.gone and peer.works()


def test_many_octets_before_login_are_too_many():
    # A start-ok of a legal length, sent over and over, never comes to an end of the flood.
    world = World()
    peer = world.connect()
    assert peer.refused(wire.frame(8, 0, b"") * 600) == ("connection", 501)
    world.wait(2500)
    assert peer.gone


def test_after_the_login_there_may_be_any_number_of_octets():
    peer = World().client()
    for _ in range(20):
        peer.send(wire.HEARTBEAT * 100)
    assert peer.works()


def test_only_the_two_names_of_the_vhost_are_known():
    world = World()
    for vhost, answer in (("/", True), ("edge", True), ("", False), ("Edge", False)):
        peer = world.connect()
        peer.ask(wire.start_ok("\0guest\0guest") + wire.tune_ok(0, 0, 0))
        if answer:
            assert peer.names(wire.open_connection(vhost)) == ["connection.open-ok"]
        else:
            assert peer.refused(wire.open_connection(vhost)) == ("connection", 530)
            assert peer.engine.user is None
        peer.vanish()


def test_an_engine_starts_afresh_with_its_next_peer():
    world = World()
    first = world.client()
    first.queue("mine", exclusive=1)
    first.send(wire.declare_queue(1, "half a frame")[:10])
    first.vanish()
    second = world.client()
    assert second.engine is first.engine
    assert second.works()
    assert b"mine" not in world.broker.queues
