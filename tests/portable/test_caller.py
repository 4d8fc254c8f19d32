"""Connecting upstream, with sockets, names, TLS and time simulated."""

import amqp_lite.net.caller as caller_module
from amqp_lite.compat import POLLIN, POLLOUT
from amqp_lite.net.caller import CONNECTING, IDLE, OPEN, RESOLVING, SECURING, Caller
from lwip import Board

_REPLACED = ("Resolver", "check_dialled", "dial", "ticks_ms")


class Sock:
    def __init__(self, address):
        self.address = address
        self.closed = False

    def close(self):
        self.closed = True


class Net:
    """In place of the names caller.py has from compat, inside of a `with`.

    names  what each lookup finds, in turn, the last one again and again: a list of addresses,
           None for not yet, an error to raise
    """

    def __init__(self, *names):
        self.names = list(names)
        self.now = 0
        self.lookups = 0
        self.socks = []  # all that were ever dialled
        self.bad = {}  # address -> error of dial()
        self.refused = {}  # address -> error of check_dialled()

    def __enter__(self):
        self._kept = [getattr(caller_module, name) for name in _REPLACED]
        for name in _REPLACED:
            setattr(caller_module, name, getattr(self, name))
        return self

    def __exit__(self, *error):
        for name, value in zip(_REPLACED, self._kept):
            setattr(caller_module, name, value)

    @property
    def dialled(self):
        return [sock.address for sock in self.socks]

    def left_open(self):
        return len([sock for sock in self.socks if not sock.closed])

    # --- the replacements ---

    def Resolver(self, host, port):
        self.lookups += 1
        return self

    def result(self):
        found = self.names.pop(0) if len(self.names) > 1 else self.names[0]
        if isinstance(found, Exception):
            raise found
        return found

    def dial(self, address):
        if address in self.bad:
            raise self.bad[address]
        self.socks.append(Sock(address))
        return self.socks[-1]

    def check_dialled(self, sock, events):
        if sock.address in self.refused:
            raise self.refused[sock.address]

    def ticks_ms(self):
        return self.now


class Reactor:
    """What a Caller asks of one."""

    def __init__(self):
        self.watching = None  # "read" or "write"
        self.joined = 0

    def add_caller(self, caller):
        pass

    def watch(self, caller, writing):
        self.watching = "write" if writing else "read"

    def unwatch(self, caller):
        self.watching = None

    def join(self, caller):
        self.joined += 1

    def look(self):
        pass


class Engine:
    name = "upstream"
    running = False

    def __init__(self):
        self.pause = 0  # ms before the next call
        self.whys = []
        self.opened = []  # (address, deadline)

    def next_call(self, now):
        return self.pause

    def dial(self, caller):
        caller.call("host", 5672, caller_module.ticks_ms())

    def open(self, address, deadline):
        self.opened.append((address, deadline))

    def lost(self, why):
        self.pause = None  # once is enough
        self.whys.append(why)


class Tls:
    """steps: what each handshake() answers or raises, in turn."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.wrapped = []  # (plain socket, host)
        self.wrap_error = None
        self.closed = 0

    def wrap(self, sock, host):
        if self.wrap_error is not None:
            raise self.wrap_error
        self.wrapped.append((sock, host))
        return Sock("tls " + sock.address)

    def handshake(self, sock):
        assert sock.address.startswith("tls ")
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def close(self):
        self.closed += 1
        if self.wrapped:
            self.wrapped[-1][0].close()

    def explain(self, error):
        return "explained: %s" % error.args[-1]


def caller(tls=None):
    """A caller that tries for 10 s, as new."""
    return Caller(Reactor(), Engine(), tls, 10000)


def wait(net, calling, ms):
    """Let time pass for it, and for whoever has connected: nobody."""
    for _ in range(ms // 100):
        net.now += 100
        calling.tick(net.now)


# --- addresses and their time ---


def test_a_connection_is_opened_with_its_own_time_for_the_login():
    with Net(["a"]) as net:
        c = caller()
        c.tick(0)
        assert c.state == CONNECTING and c._reactor.watching == "write"
        wait(net, c, 9000)
        c.on_ready(POLLOUT)
        assert c.state == OPEN and c._reactor.joined == 1 and c.joined
        assert c.engine.opened == [("host:5672", 19000)] and c.engine.whys == []


def test_an_address_that_never_answers_leaves_time_for_the_next():
    with Net(["hole", "good"]) as net:
        c = caller()
        c.tick(0)
        wait(net, c, 4900)
        assert net.dialled == ["hole"]
        wait(net, c, 200)
        assert net.dialled == ["hole", "good"] and net.socks[0].closed
        c.on_ready(POLLOUT)
        assert c.state == OPEN and c.engine.whys == []


def test_all_addresses_are_silent():
    with Net(["a", "b", "c"]) as net:
        c = caller()
        c.tick(0)
        wait(net, c, 9800)
        assert net.dialled == ["a", "b", "c"] and c.engine.whys == []
        wait(net, c, 400)
        assert c.engine.whys == ["no answer in time"] and c.state == IDLE
        assert net.left_open() == 0


def test_addresses_that_refuse_are_passed_over_at_once():
    with Net(["a", "b", "c"]) as net:
        net.bad["a"] = OSError(113, "no route")
        net.refused["b"] = OSError(111, "refused")
        c = caller()
        c.tick(0)
        assert net.dialled == ["b"]
        c.on_ready(POLLOUT)
        assert net.dialled == ["b", "c"]
        net.refused["c"] = OSError(104, "reset")
        c.on_ready(POLLOUT)
        assert c.state == IDLE and len(c.engine.whys) == 1 and net.left_open() == 0


def test_many_addresses_that_cannot_be_dialled():
    with Net(["%d" % k for k in range(30)]) as net:
        for k in range(30):
            net.bad["%d" % k] = OSError(113, "no route")
        c = caller()
        c.tick(0)
        assert c.state == IDLE and len(c.engine.whys) == 1


# --- names ---


def test_a_name_that_takes_long_is_waited_for():
    with Net(None, None, ["a"]) as net:
        c = caller()
        assert c.tick(0) == 50 and c.state == RESOLVING
        c.tick(50)
        c.tick(100)
        assert net.dialled == ["a"]


def test_a_name_that_is_never_found():
    with Net(None) as net:
        c = caller()
        wait(net, c, 9900)
        assert c.engine.whys == []
        wait(net, c, 400)
        assert c.engine.whys == ["name lookup of host takes too long"] and c.state == IDLE


def test_a_name_without_an_address():
    with Net([]):
        c = caller()
        c.tick(0)
        assert c.engine.whys == ["no address"] and c.state == IDLE
    with Net(OSError(-2, "unknown name")):
        c = caller()
        c.tick(0)
        assert len(c.engine.whys) == 1 and c.engine.whys[0].startswith("name lookup of host: ")


def connect_and_drop(net, c, running):
    """One whole connection that ends; it was of use if *running*."""
    c.engine.pause = 0
    c.tick(net.now)
    c.on_ready(POLLOUT)
    assert c.state == OPEN
    c.engine.running = running
    c.sock = None  # as the reactor leaves it
    c.dropped("the peer hung up")
    c.engine.running = False


def test_an_address_that_lets_nobody_in_is_looked_up_anew():
    with Net(["old"], ["new"]) as net:
        c = caller()
        connect_and_drop(net, c, False)
        connect_and_drop(net, c, False)
        assert net.dialled == ["old", "new"] and net.lookups == 2


def test_another_address_of_the_same_name_is_tried_when_one_lets_nobody_in():
    with Net(["a", "b"]) as net:
        c = caller()
        for _ in range(4):
            connect_and_drop(net, c, False)
        assert net.dialled == ["a", "b", "a", "b"]


def test_an_address_that_worked_needs_no_lookup():
    with Net(["a"]) as net:
        c = caller()
        connect_and_drop(net, c, True)
        connect_and_drop(net, c, True)
        assert net.dialled == ["a", "a"] and net.lookups == 1


def test_an_address_known_that_does_not_answer_any_more_is_forgotten():
    with Net(["a"], ["b"]) as net:
        c = caller()
        connect_and_drop(net, c, True)
        net.bad["a"] = OSError(113, "no route")
        c.engine.pause = 0
        c.tick(0)
        assert c.state == IDLE
        connect_and_drop(net, c, True)
        assert net.dialled == ["a", "b"] and net.lookups == 2


# --- TLS ---


def test_a_handshake_waits_for_what_it_wants():
    with Net(["a"]):
        tls = Tls(POLLIN, POLLOUT, POLLIN, 0)
        c = caller(tls)
        c.tick(0)
        for wanted in ("read", "write", "read"):
            c.on_ready(POLLOUT)
            assert c.state == SECURING and c._reactor.watching == wanted
        c.on_ready(POLLIN)
        assert c.state == OPEN and c.secure and len(c.engine.opened) == 1
        assert [host for _, host in tls.wrapped] == ["host"]


def test_a_handshake_that_hangs_is_late_and_the_next_address_is_tried():
    with Net(["a", "b"]) as net:
        tls = Tls(POLLIN, 0)
        c = caller(tls)
        c.tick(0)
        c.on_ready(POLLOUT)
        secured = c.sock
        wait(net, c, 5100)
        assert c.state == CONNECTING and net.dialled == ["a", "b"]
        assert secured.closed and net.socks[0].closed
        c.on_ready(POLLOUT)
        assert c.state == OPEN


def test_a_peer_that_is_not_the_right_one():
    with Net(["a"]) as net:
        c = caller(Tls(POLLIN, ValueError("certificate of host: expired")))
        c.tick(0)
        c.on_ready(POLLOUT)
        c.on_ready(POLLIN)
        assert c.engine.whys == ["certificate of host: expired"]
        assert c.state == IDLE and net.left_open() == 0 and c.engine.opened == []


def test_tls_that_cannot_begin():
    with Net(["a"]) as net:
        tls = Tls()
        tls.wrap_error = ValueError("no TLS")
        c = caller(tls)
        c.tick(0)
        c.on_ready(POLLOUT)
        assert c.engine.whys == ["no TLS"] and c.state == IDLE
        assert net.left_open() == 0


def test_a_refusal_that_comes_late_is_explained():
    with Net(["a"]) as net:
        tls = Tls(0)
        c = caller(tls)
        c.tick(0)
        c.on_ready(POLLOUT)
        c.sock = None
        c.dropped(OSError(104, "alert"))
        assert c.engine.whys == ["explained: alert"]
        assert net.left_open() == 0  # also the socket below


# --- what goes wrong here ---


def test_out_of_memory_while_it_connects():
    with Net(["a"]) as net:
        net.refused["a"] = MemoryError()
        c = caller()
        c.tick(0)
        c.on_ready(POLLOUT)
        assert c.engine.whys == ["out of memory"] and c.state == IDLE
        assert net.left_open() == 0
    with Net(["a"]) as net:
        tls = Tls(MemoryError())
        c = caller(tls)
        c.tick(0)
        c.on_ready(POLLOUT)
        assert c.engine.whys == ["out of memory"] and net.left_open() == 0


def check_escape(net, why):
    """What rises in the caller, under a whole reactor: it is told, and the others live on."""
    board = Board(bridges=1)
    neighbour = board.client()
    c = Caller(board.reactor, Engine(), None, 10000)
    with net:
        board.run(1500)
        assert c.engine.whys == [why] and c.state == IDLE
    assert not neighbour.closed and board.client().names[-1] == "channel.open-ok"


def test_errors_of_a_lookup_do_not_end_the_reactor():
    check_escape(Net(IndexError("of the empty answer on a board")), "an error of ours")
    check_escape(Net(MemoryError()), "out of memory")

    class NoThread(Net):
        def Resolver(self, host, port):
            raise RuntimeError("can't start new thread")

    check_escape(NoThread(), "an error of ours")


def test_errors_while_dialling_do_not_end_the_reactor():
    net = Net(["a"])
    net.bad["a"] = MemoryError()
    check_escape(net, "out of memory")
    net = Net(["a"])
    net.bad["a"] = ValueError("expected by the test")
    check_escape(net, "an error of ours")


def test_an_error_of_the_engine_when_it_is_told_does_not_end_the_reactor():
    board = Board(bridges=1)
    c = Caller(board.reactor, Engine(), None, 10000)
    told = []

    def lost(why):
        c.engine.pause = None if len(told) == 2 else 0
        told.append(why)
        raise MemoryError

    c.engine.lost = lost
    with Net([]):
        board.run(8000)
    assert told == ["no address"] * 3 and c.state == IDLE


def test_close_gives_up_what_is_under_way():
    with Net(["a"]) as net:
        c = caller(Tls(POLLIN))
        c.close()
        c.tick(0)
        c.on_ready(POLLOUT)
        c.close()
        assert c.state == IDLE and net.left_open() == 0 and c.engine.whys == []
