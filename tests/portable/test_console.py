"""What Ctrl-T prints, through a pair of sockets that stand for the serial console."""

import io
import json
import socket

from amqp_lite.compat import MICROPYTHON
from board.console import Console

CTRL_T = b"\x14"


class Node:
    def __init__(self, status):
        self._status = status

    def status(self):
        if isinstance(self._status, Exception):
            raise self._status
        return dict(self._status)


class Terminal:
    """A console, and who sits at it."""

    def __init__(self, status, extra=None):
        listener = socket.socket()
        port = 20000
        while True:
            try:
                listener.bind(socket.getaddrinfo("127.0.0.1", port)[0][-1])
                break
            except OSError:
                port += 1
        listener.listen(1)
        self.keyboard = socket.socket()
        self.keyboard.connect(socket.getaddrinfo("127.0.0.1", port)[0][-1])
        self._stdin = listener.accept()[0]
        listener.close()
        self.screen = io.StringIO()
        stream = self._stdin.makefile("rb", 0)
        self.console = Console(Node(status), {} if extra is None else extra, stream, self.screen)

    def type(self, octets):
        self.keyboard.send(octets)
        for _ in range(len(octets) + 20):
            self.console.step()

    def close(self):
        self.keyboard.close()
        self._stdin.close()


def shown(status, extra=None, keys=CTRL_T):
    """The lines on the screen after *keys* were typed."""
    terminal = Terminal(status, extra)
    terminal.type(keys)
    text = terminal.screen.getvalue()
    terminal.close()
    return text.split("\n")


def test_ctrl_t_prints_the_status_on_one_line():
    line, rest = shown({"device": "edge-1", "queues": {"all": {"ready": 3}}})
    assert line.startswith("status ") and rest == ""
    assert json.loads(line[7:]) == {
        "device": "edge-1", "queues": {"all": {"ready": 3}}, "board": {},
    }  # fmt: skip


def test_the_board_adds_what_it_knows_and_what_it_asks_each_time():
    states = ["joining", "up"]
    extra = {"name": "pico_w", "starts": 1, "wifi": None, "state": lambda: states.pop(0)}
    first, second, _ = shown({}, extra, CTRL_T + CTRL_T)
    board = json.loads(first[7:])["board"]
    assert board == {"name": "pico_w", "starts": 1, "wifi": None, "state": "joining"}
    assert json.loads(second[7:])["board"]["state"] == "up"


def test_nothing_else_is_answered():
    assert shown({}, keys=b"status\r\n\x04\x01\x02") == [""]
    assert len(shown({}, keys=b"abc" + CTRL_T + b"\r\n")) == 2


def test_a_status_without_room_is_one_line():
    assert shown(MemoryError()) == ["", "status is too large now", ""]


def test_a_status_that_fails_does_not_stop_the_broker():
    def broken():
        raise OSError("the driver fails")

    line = shown({}, {"wifi": broken})[1]
    assert line == "status failed: OSError: the driver fails"


def test_a_console_that_has_ended_is_left_alone():
    terminal = Terminal({})
    terminal.type(CTRL_T)
    terminal.keyboard.close()
    for _ in range(20):
        terminal.console.step()
    assert terminal.screen.getvalue().count("\n") == 1
    terminal.close()


def test_a_turn_does_not_allocate():
    if not MICROPYTHON:
        return
    import micropython

    terminal = Terminal({})
    terminal.keyboard.send(b"x")
    terminal.console.step()
    micropython.heap_lock()
    try:
        for _ in range(10):
            terminal.console.step()
    finally:
        micropython.heap_unlock()
    terminal.close()
