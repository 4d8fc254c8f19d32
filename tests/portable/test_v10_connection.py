"""The life of an AMQP 1.0 connection: login, open, sessions, close; and every wrong turn in it."""

import wire10
from amqp_lite.v10 import performatives as performative
from amqp_lite.v10.frames import AMQP, SASL
from amqp_lite.v10.performatives import described, frame, uint
from amqp_lite.v10.values import Symbol, Typed
from clients10 import ask, client, connect, take
from wire10 import HEADER, SASL_HEADER
from world import World

MECHANISMS = ["sasl-mechanisms", 0, [[Symbol("PLAIN")]]]
GREETING = [SASL_HEADER, MECHANISMS]


def closed_by(peer, octets):
    """Send octets that end the connection: the condition in its close."""
    found = ask(peer, octets)
    assert found[-1][:2] == ["close", 0], found
    assert peer.engine.deaf
    return wire10.error_of(found[-1])


def test_a_connection_from_header_to_close():
    world = World()
    free = world.free()
    peer = connect(world)
    assert take(peer) == GREETING
    assert ask(peer, wire10.init()) == [["sasl-outcome", 0, [0]]]
    assert ask(peer, HEADER) == [HEADER]
    assert peer.engine.user is None
    opened = ask(peer, wire10.open_connection(idle=4000))
    assert opened[0][:2] == ["open", 0]
    assert opened[0][2][:5] == ["edge-1", None, 8192, 7, 30000]
    assert opened[0][2][7] == Symbol("ANONYMOUS-RELAY")
    assert opened[0][2][9][Symbol("queue-prefix")] == "/queue/"
    assert peer.engine.user.name == b"guest" and peer.engine.name == "127.0.0.1 (client)"
    assert ask(peer, wire10.begin(3, window=50)) == [["begin", 3, [3, 0, 2048, 0x3FFFFFFF, 15]]]
    assert ask(peer, wire10.end(3)) == [["end", 3, []]]
    assert ask(peer, wire10.close()) == [["close", 0, []]]
    assert peer.gone and peer not in world.peers
    assert world.free() == free


def test_in_one_write_and_octet_by_octet():
    octets = wire10.init() + HEADER + wire10.open_connection() + wire10.begin() + wire10.close()
    for step in (0, 1, 5):
        peer = connect(World())
        peer.step = step
        names = [row if isinstance(row, bytes) else row[0] for row in ask(peer, octets)]
        assert names == [
            SASL_HEADER, "sasl-mechanisms", "sasl-outcome", HEADER, "open", "begin", "close"
        ]  # fmt: skip
        assert peer.gone


def test_logins_that_are_refused():
    for octets in (
        wire10.init(b"\0guest\0wrong"),
        wire10.init(b"\0nobody\0guest"),
        wire10.init(b""),
        wire10.init(b"guest"),
        wire10.init(b"\0guest"),
        wire10.init(b"\0\0guest"),
        wire10.init(b"\0guest\0guest\0"),
        wire10.init(b"\0\xff\xfe\0guest"),
        wire10.init(None),
        wire10.init(mechanism="ANONYMOUS"),
        wire10.init(mechanism="SCRAM-SHA-256"),
    ):
        world = World()
        peer = connect(world)
        take(peer)
        assert ask(peer, octets + HEADER + wire10.open_connection()) == [], octets
        assert world.broker.metrics.logins_refused == 1 and not peer.gone
        world.wait(600)
        assert take(peer) == [["sasl-outcome", 0, [1]]], octets
        assert peer.gone


def test_logins_that_are_none():
    for octets in (
        wire10.open_connection(),
        wire10.init(b"\0guest\0" + b"x" * 700),
        wire10.init()[:8] + b"\xff" + wire10.init()[9:],
        frame(SASL, 0, b""),
        frame(SASL, 0, described(wire10.SASL_RESPONSE, b"x")),
        frame(SASL, 0, described(performative.SASL_OUTCOME, Typed(0x50, 0))),
        frame(AMQP, 0, b""),
        frame(SASL, 0, b"x" * 500),
        HEADER,
        b"\0" * 8,
        wire10.init(b"x" * 2000),
    ):
        world = World()
        peer = connect(world)
        take(peer)
        assert ask(peer, octets) == [["sasl-outcome", 0, [1]]], octets
        assert peer.gone and world.broker.metrics.peers_cut == 1, octets


def test_a_second_init_and_another_header():
    for octets in (wire10.init(), SASL_HEADER, b"AMQP\0\0\x09\1", b"GET / HTTP"):
        peer = connect(World())
        take(peer)
        assert ask(peer, wire10.init() + octets) == [["sasl-outcome", 0, [0]], HEADER], octets
        assert peer.gone


def test_a_login_takes_only_so_long_and_so_many_octets():
    world = World()
    for octets in (b"", wire10.init(), wire10.init() + HEADER):
        peer = connect(world)
        peer.send(octets)
        world.wait(9500)
        assert not peer.gone
        world.wait(1000)
        assert peer.gone, octets
    world = World(login_bytes=2000)
    peer = connect(world)
    ask(peer, wire10.init() + HEADER)
    assert closed_by(peer, frame(AMQP, 0, b"") * 300) == "amqp:connection:framing-error"


def test_opens_that_cannot_be():
    for octets, condition in (
        (wire10.open_connection(container=""), "amqp:invalid-field"),
        (wire10.open_connection(frame_max=511), "amqp:invalid-field"),
        (wire10.open_connection(idle=999), "amqp:invalid-field"),
        (wire10.open_connection(idle=1), "amqp:invalid-field"),
        (wire10.open_connection(host="vhost:other"), "amqp:not-allowed"),
        (wire10.begin(), "amqp:not-allowed"),
        (wire10.close(), "amqp:not-allowed"),
        (frame(AMQP, 0, described(performative.OPEN)), "amqp:invalid-field"),
        (frame(AMQP, 0, described(performative.OPEN, 5)), "amqp:invalid-field"),
        (frame(AMQP, 1, described(performative.OPEN, "x")), "amqp:connection:framing-error"),
        (
            wire10.open_connection()[:3]
            + bytes((wire10.open_connection()[3] + 1,))
            + wire10.open_connection()[4:]
            + b"x",
            "amqp:connection:framing-error",
        ),
        (frame(AMQP, 0, b"\0\x53\x19\x45"), "amqp:decode-error"),
        (frame(AMQP, 0, b"\0\0\x53\x10\x45\x45"), "amqp:decode-error"),
        (frame(AMQP, 0, described(performative.OPEN, "x" * 600)), "amqp:connection:framing-error"),
        (b"\0\0\2\1\2\0\0\0", "amqp:connection:framing-error"),
    ):
        world = World()
        neighbour = world.client()
        peer = connect(world)
        ask(peer, wire10.init() + HEADER)
        found = ask(peer, octets)
        assert [row[0] for row in found] == ["open", "close"], (octets, found)
        assert wire10.error_of(found[1]) == condition, (octets, found)
        world.wait(2500)
        assert peer.gone and neighbour.works(), octets
    for host in ("vhost:edge", "vhost:/", "broker.example", ""):
        assert not client(World(), host=host).gone


def test_what_a_running_connection_does_not_take():
    transfer = described(performative.TRANSFER, uint(0), uint(0), b"t")
    for octets, condition in (
        (wire10.open_connection(), "amqp:not-allowed"),
        (wire10.init(), "amqp:connection:framing-error"),
        (frame(7, 0, b""), "amqp:connection:framing-error"),
        (wire10.begin(8), "amqp:connection:framing-error"),
        (wire10.begin(0xFFFF), "amqp:connection:framing-error"),
        (wire10.begin() + wire10.begin(), "amqp:not-allowed"),
        (wire10.begin(remote=Typed(0x60, 1)), "amqp:invalid-field"),
        (wire10.end(), "amqp:not-allowed"),
        (wire10.end(5), "amqp:not-allowed"),
        (frame(AMQP, 0, transfer), "amqp:not-allowed"),
        (frame(AMQP, 0, transfer + b"x" * 5000), "amqp:not-allowed"),
        (frame(AMQP, 0, described(performative.ACCEPTED)), "amqp:not-allowed"),
        (frame(AMQP, 0, described(performative.BEGIN)), "amqp:invalid-field"),
        (wire10.begin() + wire10.flow(0, uint(0)), "amqp:invalid-field"),
        (frame(AMQP, 0, b"\x40"), "amqp:decode-error"),
        (b"\0\0\0\7\2\0\0\0", "amqp:connection:framing-error"),
        (b"\0\0\x20\1\2\0\0\0", "amqp:connection:framing-error"),
    ):
        world = World()
        neighbour = world.client()
        free = world.free()
        peer = client(world)
        assert closed_by(peer, octets) == condition, octets
        assert ask(peer, wire10.begin(1)) == []
        world.wait(2500)
        assert peer.gone and neighbour.works()
        assert world.free() == free


def test_as_many_links_as_the_profile_has_consumers():
    for consumers, handle_max in ((4, 15), (40, 39), (300, 255)):
        peer = client(World(consumers=consumers))
        assert ask(peer, wire10.begin())[0][2][4] == handle_max
    assert ask(peer, wire10.attach_sender("l", "/queue/q", 255))[0][0] == "attach"


def test_flows_of_a_session():
    peer = client(World())
    ask(peer, wire10.begin(1, next_outgoing=0xFFFFFFFE))
    fields = (uint(0), uint(5), uint(0xFFFFFFFE), uint(5))
    assert ask(peer, wire10.flow(1, *fields)) == []
    echo = fields + (None,) * 5 + (True,)
    assert ask(peer, wire10.flow(1, *echo)) == [["flow", 1, [0xFFFFFFFE, 2048, 0, 0x3FFFFFFF]]]
    session = peer.engine.sessions[1]
    for _ in range(5):
        assert session.may_send()
        session.sent()
    assert not session.may_send()
    for next_incoming, window, room in ((5, 3, 3), (3, 3, 1), (0, 3, 0)):
        ask(peer, wire10.flow(1, uint(next_incoming), uint(window), uint(0), uint(5)))
        assert session._outgoing_window == room


def test_the_window_of_a_session():
    peer = client(World())
    ask(peer, wire10.begin(1, next_outgoing=0xFFFFFFFE))
    session = peer.engine.sessions[1]
    for _ in range(1024):
        session.received()
    assert take(peer) == []
    session.received()
    peer.world.run()
    # The serial number wrapped on the way.
    assert take(peer) == [["flow", 1, [1023, 2048, 0, 0x3FFFFFFF]]]


def test_heartbeats_both_ways():
    world = World(heartbeat=10)
    peer = client(world, idle=4000)
    silent = client(world)
    assert take(peer) == [] and silent.engine._beat_ms == 0
    for _ in range(30):
        world.wait(1000)
        peer.send(frame(AMQP, 0, b""))
    beats = take(peer)
    assert beats and all(row == [None, 0, []] for row in beats)
    assert 12 <= len(beats) <= 18
    # We said 5 s and bear 20.
    assert silent.gone and not peer.gone
    world.wait(21000)
    assert peer.gone


def test_a_peer_that_does_not_read():
    world = World()
    peer = client(world)
    peer.reading = False
    for channel in range(8):
        peer.send(wire10.begin(channel) + wire10.end(channel))
    for _ in range(100):
        peer.send(wire10.begin(1) + wire10.end(1))
    assert peer.engine.stalled and peer.unsent()
    peer.reading = True
    world.run()
    found = take(peer)
    assert len(found) == 2 * 108 and not peer.unsent() and not peer.engine.stalled
    peer.reading = False
    peer.send(wire10.begin(1))
    world.wait(130000)
    assert peer.gone
