"""A Pico W as the tests use it: power, console, network, and the project's own tools.

    board = Board(flash)            a flash image, which it changes
    board.on()                      until the broker serves
    board.connect()                 a pika connection
    board.tool("status")            what the command prints
    board.cut()                     the power is gone

Seconds of guest time are those of a board at 125 MHz; nothing else compares with a real one.
"""

import contextlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pika

from host_tools.connection import open_board

ROOT = pathlib.Path(__file__).resolve().parents[2]
EMULATOR = pathlib.Path(__file__).with_name("pico_w.py")
CLOCK_HZ = 125_000_000
PORT = 5672  # on the board
UPSTREAM = "10.0.0.1"  # this machine, as the board sees it
# Costs as measured: cycles of a miss in the cache of the flash, and the chip's typical times.
_MODEL = ("--xip", "60", "--flash-timing", "typical")
_BOOT_S = 60
_TOOL_S = int(os.environ.get("BOARD_TOOL_S", 90))


class PowerCut(Exception):
    """The board has no power any more."""


class Board:
    """
    flash   path of its flash image
    allow   the ports of this machine that it may connect to; it reaches nothing else
    """

    host = "127.0.0.1"
    user, password = "sensor", "a password"

    def __init__(self, flash, allow=(1,)):
        self.flash = pathlib.Path(flash)
        self._console_log = self.flash.with_suffix(".log")
        self._allow = [word for port in allow for word in ("--allow", str(port))]
        self._process = None
        self._events = []
        self._news = threading.Condition()
        self._begin = 0  # of what it printed since it was switched on
        self._at = {}  # the ports it has on this machine

    # --- its power ---

    def on(self, *options, serves=True):
        """Switch it on, with options of pico_w.py; until the broker *serves* the network.

        Raises PowerCut when one of the options says so.
        """
        self._begin = self._printed()
        command = [sys.executable, str(EMULATOR), "--flash", str(self.flash), *_MODEL]
        command += [*self._allow, "--console-tcp", "0", "--console-log", str(self._console_log)]
        command += ["--forward", f"0:{PORT}", *map(str, options)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._events = []
        arguments = (self._process.stdout, self._events)
        threading.Thread(target=self._listen, args=arguments, daemon=True).start()
        self._at = self.event("ready", _BOOT_S)
        if serves:
            self.wait_until_serving()
        return self

    def wait_until_serving(self, begin=None):
        """Until it listens and is in the network, both in what it printed from *begin* on."""
        self.wait_for("listening on", begin)
        self.wait_for("wifi: joined", begin)

    def cut(self):
        """Take its power, at this very moment."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def is_on(self):
        return self._process is not None and self._process.poll() is None

    # --- what the emulator tells ---

    def _listen(self, output, events):
        for line in itertools.chain(output, ['{"event": "end"}']):
            with self._news:
                events.append(json.loads(line))
                self._news.notify_all()

    def event(self, name, seconds=30):
        """The next event of the emulator with this *name*, a dict. Raises PowerCut."""
        deadline = time.monotonic() + seconds
        with self._news:
            while True:
                for i, event in enumerate(self._events):
                    if event["event"] == name:
                        return self._events.pop(i)
                    assert event["event"] != "crash", event
                    if event["event"] == "end":
                        raise PowerCut
                assert self._news.wait(deadline - time.monotonic()), f"no {name} in {seconds} s"

    def is_fast(self):
        """Whether C runs its instructions."""
        return self._at["engine"] == "c"

    def stats(self):
        """The emulator's counters since it was switched on."""
        with self._news:
            self._events[:] = [event for event in self._events if event["event"] != "stats"]
        self._process.send_signal(signal.SIGUSR1)
        return self.event("stats")

    def span(self):
        """A Span that begins now."""
        return Span(self)

    # --- its console ---

    @property
    def url(self):
        return f"socket://{self.host}:{self._at['console']}"

    def _printed(self):
        return self._console_log.stat().st_size if self._console_log.exists() else 0

    def printed(self, begin=None):
        """What it printed since it was switched on, or from *begin* (of mark()) on."""
        if not self._console_log.exists():
            return ""
        octets = self._console_log.read_bytes()[self._begin if begin is None else begin :]
        return octets.decode(errors="replace").replace("\r", "")

    def mark(self):
        """The end of what it has printed, for printed() and wait_for()."""
        return self._printed()

    def wait_for(self, text, begin=None, seconds=60):
        """Until it has printed *text*. Raises PowerCut."""
        deadline = time.monotonic() + seconds
        while text not in self.printed(begin):
            if not self.is_on():
                raise PowerCut
            assert time.monotonic() < deadline, f"no {text!r} in {self.printed(begin)[-2000:]!r}"
            time.sleep(0.01)

    def tool(self, command, *arguments, code=0):
        """Run `amqp-lite COMMAND --port ...` on it: what that prints on stdout.

        command   one word or, for a command in a command, several
        code      the exit code it has to end with; for another one its stderr counts, too
        """
        done = subprocess.run(
            [sys.executable, "-m", "host_tools", *command.split(), "--port", self.url,
             *map(str, arguments)],
            cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TOOL_S,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert done.returncode == code, said + self.printed()[-2000:]
        return said if code else done.stdout

    def status(self):
        """What the broker says about itself over the console, a dict."""
        with open_board(self.url) as board:
            return board.ask_status()

    # --- its network ---

    @property
    def port(self):
        """Of this machine, where the broker on the board is reached."""
        return next(int(here) for here, there in self._at["forwards"].items() if there == PORT)

    def parameters(self, **options):
        options = {"heartbeat": 60, "socket_timeout": 10, "stack_timeout": 20, **options}
        credentials = pika.PlainCredentials(self.user, self.password)
        return pika.ConnectionParameters(self.host, self.port, credentials=credentials, **options)

    @contextlib.contextmanager
    def connect(self, **options):
        connection = pika.BlockingConnection(self.parameters(**options))
        try:
            yield connection
        finally:
            with contextlib.suppress(pika.exceptions.AMQPError, OSError):
                connection.close()

    @contextlib.contextmanager
    def channel(self, **options):
        """A channel with confirms, on a connection of its own."""
        with self.connect(**options) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            yield channel


class Span:
    """The emulator's counters from one moment on, up to end()."""

    def __init__(self, board):
        self._board = board
        self._before = board.stats()

    def end(self):
        after = self._board.stats()

        def since(name):
            return after[name] - self._before[name]

        self.cycles = since("cycles")  # executed, not slept
        self.stall_s = since("flash_stall_seconds")  # the chip erases and programs, the CPU waits
        self.busy_s = self.cycles / CLOCK_HZ + self.stall_s
        self.seconds = since("guest_seconds")  # sleep included
        self.programs = since("flash_programs")
        self.erases = since("flash_erases")
        return self


def base_settings():
    """The configuration of the boards here: as the example, with a user who may do anything."""
    settings = json.loads((ROOT / "firmware" / "config.example.json").read_text())
    settings["wifi"] = {"ssid": "any", "password": "any password", "country": "DE"}
    settings["clock"] = {"server": UPSTREAM}
    rights = {name: ["*"] for name in ("configure", "write", "read")}
    settings["users"] = {Board.user: dict(rights, password_hash=_hash(Board.password))}
    settings["queues"] = [{"name": "telemetry"}]
    settings["bindings"] = [
        {"source": "telemetry", "destination": "telemetry", "routing_key": "#"}
    ]
    return settings


def _hash(password):
    return subprocess.run(
        [sys.executable, "-m", "host_tools", "config", "hash-password", password],
        cwd=ROOT, env=dict(os.environ), check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
