"""Runs the command line as a user does, in a process of its own."""

import pathlib
import re
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "host_tools"]
SECONDS = 20  # after which a command hangs


def run(*arguments, given=""):
    """Run a command to its end, with *given* as its input: code, stdout, stderr."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        input=given,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def refused(*arguments, code=2):
    """The one line with which a command fails."""
    returned, output, errors = run(*arguments)
    assert returned == code, (returned, output, errors)
    assert errors.count("\n") == 1 and errors.startswith("amqp-lite: "), errors
    assert not output
    return errors[len("amqp-lite: ") : -1]


class Broker:
    """A broker that `run` started, until the end of the with block."""

    def __init__(self, log, *arguments, python=(), program=None):
        self._log = log
        command = program or [COMMAND[0], *python, *COMMAND[1:]]
        if not {"--store", "--no-store"} & set(arguments):
            arguments += ("--store", log.with_suffix(".ring"))
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [*command, "run", *map(str, arguments)],
                cwd=log.parent if program else ROOT,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def output(self):
        return self._log.read_text()

    def wait_for(self, pattern):
        """The match of *pattern* in the output, as soon as there is one."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            found = re.search(pattern, self.output())
            if found:
                return found
            assert self.process.poll() is None, self.output()
            time.sleep(0.01)
        raise AssertionError(f"no {pattern!r} in {self.output()!r}")

    def end(self, signal):
        """Send *signal*: the exit code."""
        self.process.send_signal(signal)
        code = self.process.wait(SECONDS)
        assert "Traceback" not in self.output(), self.output()
        return code


def listening(broker):
    """The port of the broker's first listener."""
    return int(broker.wait_for(r"listening on \S+:(\d+)\n")[1])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
