"""ANONYMOUS and EXTERNAL, the same over both protocols: offered when, who it makes of a peer, and
what refusals cost.
"""

import struct

import clients10
import wire
import wire10
from amqp_lite.access import Access
from world import USERS, World

CERTIFIED = {
    "gateway-7": {"password_hash": None, "configure": [], "write": ["*"], "read": []},
    "guest": USERS["guest"],
    "sensor": USERS["sensor"],
}


class Login091:
    """A peer before its login over AMQP 0-9-1."""

    def __init__(self, world, address, subject):
        self.world = world
        self.peer = world.connect(address, subject)
        _, name, payload = self.peer.take()[0]
        assert name == "connection.start"
        i = 6 + struct.unpack(">I", payload[2:6])[0]
        n = struct.unpack(">I", payload[i : i + 4])[0]
        offered = str(payload[i + 4 : i + 4 + n], "utf-8").split(" ")
        assert offered.pop() == "AMQPLAIN"
        self.offered = offered

    def admits(self, mechanism, response):
        """The name of the user it is then; None: refused, as a wrong password is."""
        peer = self.peer
        frames = peer.ask(wire.start_ok(response or b"", mechanism))
        if not frames:
            self.world.wait(31000)
            frames = peer.take()
            assert [row[1] for row in frames] == ["connection.close"]
            assert frames[0][2][:2] == b"\x01\x93"  # 403
            peer.vanish()
            return None
        assert [row[1] for row in frames] == ["connection.tune"]
        octets = wire.tune_ok(0, 0, 0) + wire.open_connection()
        assert peer.names(octets) == ["connection.open-ok"]
        name = str(peer.engine.user.name, "utf-8")
        peer.vanish()
        return name


class Login10:
    """The same over AMQP 1.0."""

    def __init__(self, world, address, subject):
        self.world = world
        self.peer = clients10.connect(world, address, subject)
        header, mechanisms = clients10.take(self.peer)
        assert header == wire10.SASL_HEADER and mechanisms[0] == "sasl-mechanisms"
        self.offered = [symbol.text for symbol in mechanisms[2][0]]

    def admits(self, mechanism, response):
        peer = self.peer
        octets = wire10.init(response, mechanism) + wire10.HEADER + wire10.open_connection()
        found = clients10.ask(peer, octets)
        if not found:
            self.world.wait(31000)
            assert clients10.take(peer) == [["sasl-outcome", 0, [1]]]
            assert peer.gone
            return None
        assert found[0] == ["sasl-outcome", 0, [0]] and found[2][0] == "open", found
        name = str(peer.engine.user.name, "utf-8")
        peer.vanish()
        return name


def both(**options):
    """function(mechanism, response, address=, subject=) for each protocol, in a world each."""
    for kind in (Login091, Login10):
        world = World(**options)

        def log_in(mechanism, response, address="10.0.0.1", subject=None):
            return kind(world, address, subject).admits(mechanism, response)  # noqa: B023

        yield world, log_in


def offers(subject=None, **options):
    """What is offered, which is the same over both protocols."""
    found = [kind(World(**options), "10.0.0.1", subject).offered for kind in (Login091, Login10)]
    assert found[0] == found[1]
    return found[0]


def test_what_is_offered():
    assert offers() == ["PLAIN"]
    assert offers(anonymous="sensor") == ["PLAIN", "ANONYMOUS"]
    assert offers(b"gateway-7") == ["PLAIN", "EXTERNAL"]
    assert offers(b"nobody", anonymous="sensor") == ["PLAIN", "EXTERNAL", "ANONYMOUS"]


def test_anonymous_becomes_the_user_of_the_configuration_whatever_it_says():
    for _, log_in in both(anonymous="sensor"):
        for trace in (b"", b"\0guest", b"somebody@example.com", b"\xff\0" * 100, None):
            assert log_in("ANONYMOUS", trace) == "sensor", trace
        assert log_in("PLAIN", b"\0sensor\0secret") == "sensor"
        assert log_in("PLAIN", b"\0sensor\0") is None


def test_anonymous_has_the_rights_of_that_user_and_no_others():
    world = World(anonymous="sensor")
    peer = world.connect("10.0.0.1")
    peer.send(wire.start_ok(b"", "ANONYMOUS") + wire.tune_ok(0, 0, 0) + wire.open_connection())
    peer.take()
    peer.open(1)
    assert peer.names(wire.declare_queue(1, "sensors.a")) == ["queue.declare-ok"]
    assert peer.refused(wire.declare_queue(1, "other")) == ("channel", 403)


def test_anonymous_is_off():
    for world, log_in in both():
        for response in (b"", b"guest", b"\0guest\0guest", None):
            assert log_in("ANONYMOUS", response, "127.0.0.1") is None
        assert world.broker.metrics.logins_refused == 4
        assert world.access.penalty("127.0.0.1", world.broker.now) == 500 << 4


def test_guest_comes_from_the_same_machine_only_by_any_mechanism():
    for _, log_in in both(anonymous="guest"):
        assert log_in("ANONYMOUS", b"", "127.0.0.1") == "guest"
        assert log_in("ANONYMOUS", b"", "10.0.0.1") is None
        assert log_in("EXTERNAL", b"", "127.0.0.1", b"guest") == "guest"
        assert log_in("EXTERNAL", b"", "10.0.0.1", b"guest") is None


def test_external_is_the_user_in_the_certificate():
    for _, log_in in both(users=CERTIFIED):
        for response in (b"", b"gateway-7", None):
            assert log_in("EXTERNAL", response, subject=b"gateway-7") == "gateway-7", response
        assert log_in("EXTERNAL", b"sensor", subject=b"sensor") == "sensor"


def test_external_is_nobody_else():
    for world, log_in in both(users=CERTIFIED):
        for subject, response in (
            (None, b""),
            (None, b"gateway-7"),
            (b"gateway-7", b"sensor"),
            (b"gateway-7", b"gateway-7\0"),
            (b"gateway-7", b"\0gateway-7\0"),
            (b"nobody", b""),
            (b"nobody", b"gateway-7"),
            (b"", b""),
            (b"gateway", b""),
            (b"GATEWAY-7", b""),
        ):
            assert log_in("EXTERNAL", response, subject=subject) is None, (subject, response)
        assert world.broker.metrics.logins_refused == 10
        assert world.access.penalty("10.0.0.1", world.broker.now) == 30000


def test_a_certificate_is_no_password_and_the_next_peer_has_none():
    for _, log_in in both(users=CERTIFIED):
        assert log_in("PLAIN", b"\0sensor\0secret", subject=b"gateway-7") == "sensor"
        assert log_in("PLAIN", b"\0sensor\0wrong", subject=b"sensor") is None
        assert log_in("EXTERNAL", b"", subject=b"sensor") == "sensor"
        assert log_in("EXTERNAL", b"") is None


def test_a_user_without_a_password_has_none_that_is_right():
    for _, log_in in both(users=CERTIFIED):
        for password in (b"", b"none", b"None", b"gateway-7"):
            assert log_in("PLAIN", b"\0gateway-7\0" + password) is None, password
    table = wire.table({"LOGIN": "gateway-7", "PASSWORD": ""})[4:]
    assert Login091(World(users=CERTIFIED), "10.0.0.1", None).admits("AMQPLAIN", table) is None


def test_other_mechanisms():
    for world, log_in in both(users=CERTIFIED, anonymous="sensor"):
        for mechanism in ("", "anonymous", "external", "EXTERNAL ", "SCRAM-SHA-256", "MSSBCBS"):
            assert log_in(mechanism, b"", subject=b"gateway-7") is None, mechanism
        assert world.broker.metrics.logins_refused == 6
    # AMQPLAIN is not one of AMQP 1.0.
    table = wire.table({"LOGIN": "sensor", "PASSWORD": "secret"})[4:]
    assert Login10(World(), "10.0.0.1", None).admits("AMQPLAIN", table) is None
    assert Login091(World(), "10.0.0.1", None).admits("AMQPLAIN", table) == "sensor"


def test_no_second_try():
    world = World(anonymous="sensor")
    peer = world.connect("10.0.0.1")
    peer.ask(wire.start_ok(b"", "EXTERNAL") + wire.start_ok(b"", "ANONYMOUS"))
    assert peer.names(wire.tune_ok(0, 0, 0) + wire.open_connection()) == []
    world.wait(600)
    assert peer.names() == ["connection.close"] and peer.engine.user is None
    peer = clients10.connect(world, "10.0.0.1")
    clients10.take(peer)
    octets = wire10.init(b"", "EXTERNAL") + wire10.init(b"", "ANONYMOUS") + wire10.HEADER
    assert clients10.ask(peer, octets) == []
    world.wait(1100)
    assert clients10.take(peer) == [["sasl-outcome", 0, [1]]] and peer.gone


def test_a_good_login_by_any_mechanism_is_forgiven():
    access = Access(CERTIFIED, "sensor")
    for mechanism in (b"ANONYMOUS", b"EXTERNAL"):
        access.penalty("10.0.0.1", 0)
        access.penalty("10.0.0.1", 0)
        assert access.authenticate(mechanism, b"", "10.0.0.1", b"gateway-7") is not None
        assert access.penalty("10.0.0.1", 0) == 500
