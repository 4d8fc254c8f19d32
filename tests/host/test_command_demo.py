"""`demo`: an outage from beginning to end, and what it counts."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from command import COMMAND, ROOT, SECONDS, Broker, listening, refused, run

from host_tools.demo import Count

NAMES = ("sent", "stored", "forwarded", "lost", "duplicates")


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder in which the demo makes its temporary one."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def counted(output):
    """The table at the end, as a dict."""
    found = re.findall(r"^  (\w+) +([\d,]+)   \w", output, re.MULTILINE)
    numbers = {name: int(number.replace(",", "")) for name, number in found}
    assert tuple(numbers) == NAMES, output
    return numbers


def check(output):
    numbers = counted(output)
    assert numbers["lost"] == 0, output
    assert numbers["sent"] == numbers["stored"] == numbers["forwarded"] > 0, output
    assert re.findall(r" s  (\d) ", output) == list("123456"), output
    dead = int(re.search(r"dead, ([\d,]+) waiting", output)[1].replace(",", ""))
    back = int(re.search(r"started again on it: ([\d,]+) waiting", output)[1].replace(",", ""))
    assert 0 < dead <= back, output


def processes(word):
    """The command lines with *word* in them."""
    lines = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True).stdout
    return [line for line in lines.splitlines() if word in line]


def test_nothing_is_lost(scratch):
    code, output, errors = run("demo", "--seconds", 6, "--rate", 400)
    assert (code, errors) == (0, "")
    check(output)
    assert not list(scratch.iterdir())
    assert max(map(len, output.splitlines())) < 80


def test_the_flash_image_is_kept_where_it_was_wanted(scratch, tmp_path):
    image = tmp_path / "edge.ring"
    code, output, _ = run("demo", "--seconds", 3, "--flash", image)
    assert code == 0
    check(output)
    assert output.endswith(f"amqp-lite ring show {image}\n")
    assert run("ring", "verify", image)[0] == 0
    assert not list(scratch.iterdir())
    assert refused("demo", "--flash", image) == (
        f"--flash: {image} is there already, and the demo needs a new one"
    )


def test_another_broker_as_upstream_is_left_as_it_was(scratch, tmp_path):
    ring = tmp_path / "broker.ring"
    with Broker(tmp_path / "broker.log", "--port", 0, "--store", ring) as broker:
        url = f"amqp://guest:guest@127.0.0.1:{listening(broker)}/"
        code, output, errors = run("demo", "--seconds", 3, "--upstream", url)
        assert (code, errors) == (0, "")
        check(output)
        assert "may be left" not in output
        assert broker.end(signal.SIGTERM) == 0
    assert "no queues" in run("ring", "show", ring)[1]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(scratch, ending):
    with subprocess.Popen(
        [*COMMAND, "demo"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        for line in demo.stdout:
            if "2 upstream cut" in line:
                break
        assert processes(str(scratch))
        demo.send_signal(ending)
        output, errors = demo.communicate(timeout=SECONDS)
    assert (demo.returncode, errors) == (130, "")
    assert output.endswith("ended\n")
    assert not list(scratch.iterdir())
    assert not processes(str(scratch))


@pytest.mark.parametrize("no_colour", [True, False])
def test_a_terminal(scratch, monkeypatch, no_colour):
    pty = pytest.importorskip("pty")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1" if no_colour else "")
    master, slave = pty.openpty()
    demo = subprocess.Popen([*COMMAND, "demo", "--seconds", "3"], cwd=ROOT, stdout=slave)
    os.close(slave)
    octets = b""
    try:
        while True:
            octets += os.read(master, 65536)
    except OSError:  # the other side is closed
        os.close(master)
    assert demo.wait(SECONDS) == 0
    text = octets.decode()
    assert (re.search(r"\x1b\[[\d;]*m", text) is None) == no_colour
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    plain = re.sub(r"\x1b\[\??\d*[A-Za-z]", "", text).replace("\r", "")
    assert max(map(len, plain.splitlines())) < 80
    assert "backlog     [#" in plain
    last = plain[plain.rindex("amqp_lite demo") :]
    assert len(last.splitlines()) <= 22 + 1 + len(NAMES)
    assert counted(last.replace("/s", ""))["lost"] == 0


class Confirmed:
    """Sensors that were told that these messages are stored."""

    def __init__(self, *ids):
        self.sent = [*ids, "unconfirmed"]
        self._confirmed = set(ids)

    def confirmed(self):
        return self._confirmed


def test_only_what_was_confirmed_can_be_lost():
    count = Count(Confirmed("a", "b"), {"a": 1, "b": 3})
    assert count.is_good
    assert counted("\n".join(count.lines())) == dict(zip(NAMES, (3, 2, 2, 0, 2)))
    count = Count(Confirmed("a", "b"), {"b": 1, "unconfirmed": 1})
    assert not count.is_good
    assert counted("\n".join(count.lines())) == dict(zip(NAMES, (3, 2, 2, 1, 0)))
    assert not Count(Confirmed(), {}).is_good


def test_an_upstream_that_is_not_there(scratch):
    assert refused("demo", "--upstream", "amqp://127.0.0.1:1/", code=1) == (
        "no upstream at 127.0.0.1:1: Connection refused;"
        " without --upstream the demo brings its own"
    )
    assert not list(scratch.iterdir())


def test_an_upstream_that_lets_nobody_in(scratch, tmp_path):
    with Broker(tmp_path / "broker.log", "--port", 0) as broker:
        url = f"amqp://guest:wrong@127.0.0.1:{listening(broker)}/"
        line = refused("demo", "--upstream", url, "--flash", tmp_path / "image", code=1)
    assert ": 403 " in line
    assert not (tmp_path / "image").exists()
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    "url", ["", "localhost", "http://h/", "amqp://", "amqp://h:70000/", "amqp://h/?heartbeat=5"]
)
def test_a_url_that_is_none(url):
    assert refused("demo", "--upstream", url) == (
        "--upstream: expected a URL such as amqp://guest:guest@localhost:5672/"
    )


def test_a_flash_image_that_cannot_be(tmp_path):
    path = tmp_path / "none" / "edge.ring"
    assert refused("demo", "--flash", path) == f"--flash: {path}: No such file or directory"


@pytest.mark.parametrize("arguments", ["--seconds=2", "--seconds=x", "--rate=0", "--rate=9999"])
def test_numbers_that_cannot_be(arguments):
    code, _, errors = run("demo", arguments)
    assert code == 2
    assert errors.splitlines()[-1].split(" is not in ")[0].endswith(f"'{arguments.split('=')[1]}'")


def test_an_edge_broker_that_ends_by_itself(scratch):
    if sys.platform != "linux":
        pytest.skip("its process is found in /proc")
    with subprocess.Popen(
        [*COMMAND, "demo"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        for line in demo.stdout:
            if "1 normal" in line:
                break
        children = f"/proc/{demo.pid}/task/{demo.pid}/children"
        with open(children) as file:
            os.kill(int(file.read()), signal.SIGKILL)
        begin = time.monotonic()
        _, errors = demo.communicate(timeout=SECONDS)
        assert time.monotonic() - begin < 5
    assert (demo.returncode, errors) == (1, "amqp-lite: the edge broker has ended: signal 9\n")
    assert not list(scratch.iterdir())
