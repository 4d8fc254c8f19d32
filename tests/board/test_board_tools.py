"""The tools that look at a board."""

import json
import subprocess
import sys
import time

import pika
from emulated import ROOT

PERSISTENT = pika.BasicProperties(delivery_mode=2, message_id="m")


def test_status_and_monitor(board):
    said = json.loads(board.tool("status", "--json"))
    assert said["device"] == "edge-1" and said["board"]["name"] == "pico_w"
    assert "edge-1" in board.tool("status")
    monitor = subprocess.Popen(
        [sys.executable, "-m", "host_tools", "monitor", "--port", board.url, "--every", "1",
         "--json"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        first, second = (json.loads(monitor.stdout.readline()) for _ in range(2))
    finally:
        monitor.terminate()
        monitor.wait()
    assert second["uptime_ms"] > first["uptime_ms"]
    with board.channel() as channel:  # it was not interrupted
        assert channel.is_open


def test_the_ring_of_a_board(board):
    bodies = [b"%d" % number * 50 for number in range(30)]
    with board.channel() as channel:
        for body in bodies:
            channel.basic_publish("telemetry", "room", body, PERSISTENT)
    begin = board.mark()
    rows = [json.loads(line) for line in board.tool("ring export").splitlines()]
    assert len(rows) == len(bodies)
    board.wait_until_serving(begin)
    assert "30" in board.tool("ring show")
    begin = board.mark()
    board.tool("ring verify")
    board.wait_until_serving(begin)
    with board.channel() as channel:
        found = []
        for method, _, body in channel.consume("telemetry", inactivity_timeout=5):
            found.append(body)
            channel.basic_ack(method.delivery_tag)
            if len(found) == len(bodies):
                break
    assert found == bodies


def test_the_ring_of_a_dead_board(board):
    """Its flash image is all there is."""
    with board.channel() as channel:
        for number in range(5):
            channel.basic_publish("telemetry", "room", b"%d" % number, PERSISTENT)
    time.sleep(0.5)
    board.cut()
    done = subprocess.run(
        [sys.executable, "-m", "host_tools", "ring", "export", str(board.flash)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
