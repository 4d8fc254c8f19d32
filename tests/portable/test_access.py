"""Users, password hashes, permissions, and what guessing costs."""

import wire
from amqp_lite.access import CONFIGURE, READ, WRITE, Access, User, password_hash
from world import USERS, World

# The example of rabbitmq.com "Credentials and Passwords": password test12.
TEST12 = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


def row(**patterns):
    given = {"password_hash": TEST12, "configure": [], "write": [], "read": []}
    given.update(patterns)
    return given


def test_the_hash_is_rabbitmqs():
    access = Access({"user": row()})
    assert access.login(b"user", b"test12", "10.0.0.1").name == b"user"
    for user, password in ((b"user", b"test1"), (b"user", b""), (b"User", b"test12"), (b"", b"")):
        assert access.login(user, password, "10.0.0.1") is None


def test_a_hash_is_salt_and_digest():
    assert len(password_hash(b"x", b"abcd")) == 36
    assert password_hash(b"x", b"abcd")[:4] == b"abcd"
    assert password_hash(b"x", b"abcd") != password_hash(b"x", b"abce")


def test_guest_comes_from_the_same_machine_only():
    access = Access(USERS)
    for address in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"):
        assert access.login(b"guest", b"guest", address) is not None
    for address in ("10.0.0.1", "192.168.127.0", "::2", "1270.0.0.1", "::10"):
        assert access.login(b"guest", b"guest", address) is None, address
    assert access.login(b"sensor", b"secret", "10.0.0.1") is not None


def test_patterns_are_everything_a_prefix_or_one_name():
    user = User(b"u", row(configure=["*"], write=["sensors.*", "all"], read=[]))
    assert user.may(CONFIGURE, b"") and user.may(CONFIGURE, b"anything")
    assert (
        user.may(WRITE, b"sensors.a") and user.may(WRITE, b"sensors.") and user.may(WRITE, b"all")
    )
    for name in (b"sensors", b"Sensors.a", b"al", b"all.", b""):
        assert not user.may(WRITE, name), name
    assert not user.may(READ, b"") and not user.may(READ, b"anything")


def test_the_delay_grows_with_every_failure_up_to_30_s():
    access = Access(USERS)
    delays = [access.penalty("10.0.0.1", 0) for _ in range(12)]
    assert delays == [500, 1000, 2000, 4000, 8000, 16000] + [30000] * 6


def test_a_good_login_or_a_long_silence_is_forgiven():
    access = Access(USERS)
    for _ in range(4):
        access.penalty("10.0.0.1", 0)
    assert access.login(b"sensor", b"secret", "10.0.0.1") is not None
    assert access.penalty("10.0.0.1", 0) == 500
    assert access.penalty("10.0.0.1", 0) == 1000
    assert access.penalty("10.0.0.1", 200000) == 2000
    assert access.penalty("10.0.0.1", 500001) == 500


def test_sources_pay_for_themselves_and_only_the_last_ones_are_remembered():
    access = Access(USERS)
    assert access.penalty("10.0.0.1", 0) == 500
    for k in range(2, 9):
        assert access.penalty("10.0.0.%d" % k, 0) == 500
    assert access.penalty("10.0.0.1", 0) == 1000
    assert access.penalty("10.0.0.99", 0) == 500
    assert len(access._failures) == 8


def test_a_user_configures_what_the_patterns_allow():
    peer = World().connect("10.0.0.1").login("sensor", "secret").open(1)
    assert peer.names(wire.declare_queue(1, "sensors.a")) == ["queue.declare-ok"]
    assert peer.names(wire.declare_exchange(1, "sensors.x", "topic")) == ["exchange.declare-ok"]
    for octets in (
        wire.declare_queue(1, "other"),
        wire.declare_exchange(1, "other", "topic"),
        wire.delete_queue(1, "other"),
        wire.delete_exchange(1, "amq.topic"),
    ):
        assert peer.refused(octets) == ("channel", 403)
        peer.send(wire.method(1, "channel.close-ok")).open(1)


def test_a_user_writes_and_reads_what_the_patterns_allow():
    world = World()
    guest = world.client()
    guest.queue("sensors.a")
    guest.queue("sensors.b")
    peer = world.connect("10.0.0.1").login("sensor", "secret").open(1)
    assert peer.names(wire.publish(1, "amq.topic", "k", "x")) == []
    assert peer.names(wire.get(1, "sensors.a")) == ["basic.get-empty"]
    assert peer.names(wire.consume(1, "sensors.a", "c")) == ["basic.consume-ok"]
    for octets in (
        wire.publish_method(1, "", "sensors.a"),
        wire.publish_method(1, "amq.direct", "k"),
        wire.get(1, "sensors.b"),
        wire.consume(1, "sensors.b"),
        wire.purge_queue(1, "sensors.b"),
        wire.bind_queue(1, "sensors.a", "amq.topic", "k"),  # may not read from amq.topic
        wire.bind_exchange(1, "amq.direct", "sensors.x"),
        wire.bind_exchange(1, "amq.topic", "amq.topic", verb="unbind"),
    ):
        assert peer.refused(octets) == ("channel", 403), octets
        peer.send(wire.method(1, "channel.close-ok")).open(1)
    assert guest.works()
