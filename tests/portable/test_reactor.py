"""The reactor with its sockets simulated: slots, strangers, deadlines, and errors of our own."""

import wire
from lwip import Board


def works(board, client):
    """Whether a message still goes around through this client."""
    before = len(client.bodies)
    client.send(wire.declare_queue(1, "works", exclusive=1) + wire.publish(1, "", "works", "x"))
    client.send(wire.get(1, "works", no_ack=1) + wire.delete_queue(1, "works"))
    board.run(1000, lambda: client.names[-1] == "queue.delete-ok")
    return len(client.bodies) == before + 1 and not client.closed


def test_clients_come_and_go():
    board = Board()
    first = board.client()
    for _ in range(10):
        client = board.client()
        assert works(board, client)
        client.hang_up()
        board.run(100)
        assert client.closed
    assert works(board, first)
    assert len(board.reactor.connections()) == 1


def test_a_bridge_has_a_connection_of_its_own():
    board = Board(bridges=1)
    clients = [board.client() for _ in range(3)]
    refused = board.connect()
    board.run(100)
    assert refused.closed and refused.names == []
    assert board.broker.metrics.connections_refused == 1
    clients[0].hang_up()
    board.run(100)
    assert works(board, board.client())
    assert works(board, clients[1])


def test_strangers_push_out_the_oldest_stranger_and_nobody_else():
    board = Board(unauthenticated=2)
    client = board.client()
    strangers = []
    for _ in range(6):
        strangers.append(board.connect())
        board.run(50)
    assert [stranger.closed for stranger in strangers] == [True] * 4 + [False] * 2
    assert works(board, client)


def test_a_peer_without_a_header_is_cut_10_s_after_accept():
    board = Board()
    client = board.client()
    silent = board.connect()
    slow = board.connect()
    for k in range(7):
        slow.send(wire.HEADER[k : k + 1])
        board.run(1400)
    assert not silent.closed and not slow.closed
    board.run(1200)
    assert silent.closed and slow.closed
    assert works(board, client)


def test_a_login_that_is_never_finished_is_cut_10_s_after_accept():
    board = Board()
    slow = board.connect()
    board.run(3000)
    slow.send(wire.HEADER)
    board.run(3000)
    slow.send(wire.start_ok("\0guest\0guest"))
    board.run(3500)
    assert not slow.closed and slow.names == ["connection.start", "connection.tune"]
    board.run(1600)
    assert slow.closed


def test_another_protocol_is_answered_with_our_header_and_closed():
    board = Board()
    client = board.client()
    for octets in (
        b"GET / HTTP/1.1\r\nHost: board\r\n\r\n",
        b"AMQP\x01\x01\x00\x0a",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"\x10\x0c\x00\x04MQTT\x04\x02",
    ):
        stranger = board.connect()
        stranger.raw = True
        stranger.send(octets)
        board.run(100)
        assert stranger.seen == wire.HEADER and stranger.closed, octets
    assert works(board, client)


def test_the_last_word_is_sent_before_the_broker_hangs_up():
    board = Board()
    client = board.client(wire.close_connection())
    assert client.names[-1] == "connection.close-ok" and client.closed
    client = board.client(wire.frame(7, 0, b""))
    assert client.names[-1] == "connection.close"
    board.run(2500)
    assert client.closed


def check_fault(name, error):
    """*error* rises from the engine's method *name*, once: its peer goes, the others do not."""
    board = Board()
    neighbour = board.client()
    client = board.client()
    engine = [peer.engine for peer in board.reactor._peers if peer.sock is client][0]

    def fail(*arguments):
        delattr(engine, name)
        raise error

    setattr(engine, name, fail)
    client.send(wire.HEARTBEAT)
    board.run(2000, lambda: client.closed)
    assert client.closed, name
    assert works(board, neighbour)
    assert works(board, board.client())


def test_an_error_of_ours_costs_one_peer():
    check_fault("feed", ValueError("expected by the test"))


def test_an_error_of_ours_while_sending_costs_one_peer():
    check_fault("pump", ValueError("expected by the test"))


def test_an_error_of_ours_at_a_deadline_costs_one_peer():
    check_fault("tick", ValueError("expected by the test"))


def test_a_lack_of_memory_costs_one_peer():
    check_fault("feed", MemoryError())


def test_a_lack_of_memory_while_sending_costs_one_peer():
    check_fault("pump", MemoryError())


def test_close_hangs_up_on_everybody():
    board = Board()
    clients = [board.client(), board.connect()]
    board.reactor.close()
    assert [client.closed for client in clients] == [True, True]
    assert board.reactor.connections() == []


class _Noted:
    """A poller, and a caller with its socket, that note what is done to them."""

    watched = False
    sock = "socket"

    def __init__(self):
        self.seen = []

    def add(self, sock, who):
        self.seen.append(("add", sock))

    def want(self, sock, who, reading, writing):
        assert ("add", sock) in self.seen, "nobody watches it"
        self.seen.append(("want", reading, writing))


def test_a_caller_whose_handshake_took_one_step_joins():
    board = Board()
    noted = board.reactor._poller = _Noted()
    board.reactor.join(noted)
    assert noted.seen == [("add", "socket"), ("want", True, False)] and noted.watched
