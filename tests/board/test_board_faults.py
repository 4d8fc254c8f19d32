"""A board with a bad peer, a bad program, and its last words."""

import time

from board_client import Consumer, Publisher

import wire

HANGS = """
import time

calls = []

def sample():
    calls.append(time.ticks_ms())
    if len(calls) > 1:  # the first is at once, before anybody is served
        print("hanging now")
        while True:
            time.sleep_ms(10)

def setup(node, sensors, board):
    sensors.add(sample, 10, "never")
"""
CRASHES = """
def setup(node, sensors, board):
    print("app: a last line before", node.device)
    node.step = None
"""


def test_a_consumer_that_stops_reading_costs_only_itself(make_board, settings, report):
    """lwIP's memory for output is shared: full, its write() blocks and then loses octets."""
    short = {"name": "telemetry", "arguments": {"x-max-length": 3}}  # or memory would run out
    settings = dict(settings, queues=[short, {"name": "other"}])
    board = make_board(settings).on()
    stalled = Consumer(board, "telemetry", no_ack=1, octets=2048)
    stalled.expect("basic.consume-ok")
    reader = Consumer(board, "other", prefetch=8)
    publisher = Publisher(board, window=8)
    flood = wire.publish(1, "telemetry", "room", bytes(1000), wire.properties())
    bodies = [b"%04d" % number * 50 for number in range(150)]
    found = []
    sent = 0
    slowest = 0
    heard = time.monotonic()
    while len(found) < len(bodies):
        if publisher.room() >= 2 and sent < len(bodies):
            mine = wire.publish(1, "", "other", bodies[sent], wire.properties())
            publisher.publish((None, flood), (sent, mine))
            sent += 1
        publisher.settle(0.001)
        got = reader.deliveries(0.001)
        for tag, redelivered, body in got:
            assert not redelivered
            found.append(body)
            reader.acknowledge(tag)
        if got:
            slowest = max(slowest, time.monotonic() - heard)
            heard = time.monotonic()
        assert time.monotonic() - heard < 15, f"blocked behind {len(found)} messages"
    assert found == bodies
    # wire.split() found nothing but whole frames, and the board is as it was.
    publisher.settle_all()
    status = board.status()
    cut = status["counters"]["peers_cut"]
    held = status["queues"]["telemetry"]["ready"]
    report(
        "a consumer that does not read",
        f"{len(bodies)} messages of another one came whole and in order, {slowest:.1f} s between "
        f"two at most; the one that does not read was {'cut off' if cut else 'left waiting'}, "
        f"{held} messages wait for it; {publisher.blocked} times the publisher had to wait for "
        "memory",
        slowest=slowest, cut=cut, blocked=publisher.blocked,
    )  # fmt: skip
    assert cut or held


def test_a_board_that_hangs_is_reset(make_board, settings, report):
    board = make_board(dict(settings, watchdog=15), HANGS).on()
    board.wait_for("hanging now", seconds=60)
    begin = board.mark()
    start = board.stats()["guest_seconds"]
    board.wait_for("listening on", begin, 100)
    board.wait_until_serving(begin)
    seconds = board.stats()["guest_seconds"] - start
    assert board.status()["board"]["reset"] == "watchdog"
    report(
        "watchdog",
        f"a sample that never ends: reset and serving again {seconds:.0f} s later (limit 15 s, "
        "and the hardware's 8)",
        seconds=seconds,
    )  # fmt: skip


def test_a_program_that_crashes_again_and_again_ends_in_safe_mode(make_board):
    board = make_board(app=CRASHES).on(serves=False)
    board.wait_for("safe mode", seconds=150)
    board.wait_for(">>>")
    said = board.printed()
    assert said.count("It starts again in") == 5
    # What the runs before said is there, though each ended with a reset.
    kept = said[said.index("safe mode") :]
    assert "app: a last line" not in kept, "print() is not the log"
    assert "listening on" in kept or "wifi" in kept or "store:" in kept
    assert "TypeError" in kept
    # The console is alive: the way back is another deployment.
    settings = board.tool("boards --identify")
    assert "pico" in settings.lower()


def test_the_last_lines_survive_a_reset(board):
    lines = [line for line in board.printed().splitlines() if line.startswith("wifi: joined")]
    begin = board.mark()
    board.tool("reset")
    board.wait_until_serving(begin)
    before = board.status()["board"]["before"]
    assert lines[-1] in before, before
