"""What a board does by itself when the power comes, what it serves, and what that costs."""

import contextlib
import socket
import threading
import time

import pika
from board_client import Consumer, Publisher
from emulated import PORT

import wire

PERSISTENT = 2


def test_it_starts_by_itself_and_joins_the_network(make_board, report):
    board = make_board().on(serves=False)
    with _knocking(board):
        first = board.event("accept", 60)
    board.wait_for("wifi: joined any as 10.0.0.2")
    assert first["port"] == PORT
    cycles, seconds = first["cycles"], first["guest_seconds"]
    report(
        "power on to the first accept",
        f"{seconds:.2f} s at 125 MHz, {cycles / 1e6:.0f} million cycles of them executed"
        " (joining a real network takes longer)",
        seconds=seconds, cycles=cycles,
    )  # fmt: skip
    _wait_for_quiet(board)
    with board.channel() as channel:
        assert channel.is_open
    begin = board.mark()
    board.tool("reset")
    board.wait_until_serving(begin)
    with board.channel() as channel:
        assert channel.is_open


@contextlib.contextmanager
def _knocking(board):
    """Somebody tries to connect, again and again."""
    stop = threading.Event()

    def knock():
        while not stop.wait(0.02):
            with contextlib.suppress(OSError), socket.socket() as door:
                door.settimeout(0.2)
                door.connect((board.host, board.port))
                door.recv(1)

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _wait_for_quiet(board):
    """Those who knocked are gone; they would compete with the next one for the login."""
    quiet = 0
    deadline = time.monotonic() + 30
    while quiet < 3:
        assert time.monotonic() < deadline, "somebody stays connected"
        quiet = 0 if board.status()["connections"] else quiet + 1
        time.sleep(0.3)


def test_a_client_publishes_and_consumes(board):
    bodies = [b"%d " % number * (number + 1) for number in range(20)]
    with board.channel() as channel:
        for number, body in enumerate(bodies):
            properties = pika.BasicProperties(
                delivery_mode=PERSISTENT, message_id=str(number), headers={"number": number}
            )
            channel.basic_publish("telemetry", f"room.{number}", body, properties)
    found = []
    with board.channel() as channel:
        for method, properties, body in channel.consume("telemetry", inactivity_timeout=5):
            found.append((method.routing_key, properties.message_id, properties.headers, body))
            channel.basic_ack(method.delivery_tag)
            if len(found) == len(bodies):
                break
        channel.cancel()
    assert found == [
        (f"room.{number}", str(number), {"number": number}, body)
        for number, body in enumerate(bodies)
    ]


def test_it_knows_the_time(board):
    deadline = time.monotonic() + 20
    while not board.status()["board"]["clock"]["is_set"]:
        assert time.monotonic() < deadline, board.status()["board"]["clock"]
        time.sleep(0.2)
    clock = board.status()["board"]["clock"]
    assert abs(clock["now"] - time.time()) < 10, clock


def test_heap(board, report):
    start = _heap(board)
    with board.channel() as channel:
        connected = _heap(board)
        lowest = connected
        for size in (1, 300, 4000, 300, 1):
            for _ in range(5):
                body = bytes(size)
                properties = pika.BasicProperties("x/y", None, {}, PERSISTENT)
                channel.basic_publish("telemetry", "room", body, properties)
                method, _, got = channel.basic_get("telemetry")
                assert got == body
                channel.basic_ack(method.delivery_tag)
            lowest = min(lowest, board.status()["heap_free"])
        with board.channel(), board.channel():  # as many as the profile has
            lowest = min(lowest, board.status()["heap_free"])
    report(
        "heap free",
        f"{start:,} octets after start, {connected:,} after the first connection, "
        f"{lowest:,} lowest seen (garbage not collected yet included)",
        start=start, connected=connected, lowest=lowest,
    )  # fmt: skip
    assert lowest > 2000


def _heap(board):
    return max(board.status()["heap_free"] for _ in range(3))


def test_messages_per_second(board, report):
    publisher = Publisher(board, window=12)
    consumer = Consumer(board, "telemetry", prefetch=16)
    for mode in (None, PERSISTENT):
        for size in (64, 256):
            _measure(board, publisher, consumer, size, mode, report)


def _measure(board, publisher, consumer, size, mode, report):
    count = 150
    body = bytes(range(256))[:size]
    properties = wire.properties(delivery_mode=mode)
    message = wire.publish(1, "telemetry", "room.temperature", body, properties)
    _pump(publisher, consumer, message, body, 20)  # what is imported late is there
    span = board.span()
    _pump(publisher, consumer, message, body, count)
    span.end()
    each = span.busy_s / count
    kind = "durable" if mode else "transient"
    flash = f"{span.programs / count:.1f} flash programs, {span.erases / count:.2f} erases each"
    report(
        f"{kind}, {size} octets",
        f"{count / span.seconds:.0f} messages/s published, confirmed, delivered and acknowledged; "
        f"the CPU is busy {each * 1000:.1f} ms for each ({span.cycles / count / 1e6:.2f} million "
        f"cycles): {1 / each:.0f}/s at most"
        + (f"; {flash}" if mode else ""),
        kind=kind, size=size, per_second=count / span.seconds, most=1 / each,
        cycles=span.cycles / count, programs=span.programs / count, erases=span.erases / count,
    )  # fmt: skip
    if not mode:
        assert (span.programs, span.erases) == (0, 0)


def _pump(publisher, consumer, message, body, count):
    """*count* messages through the queue, as fast as the board takes them."""
    sent = received = 0
    deadline = time.monotonic() + 100
    while received < count or publisher.waiting:
        assert time.monotonic() < deadline, (sent, received, publisher.waiting)
        room = min(publisher.room(), count - sent)
        if room:
            publisher.publish(*[(None, message)] * room)
            sent += room
        publisher.settle(0.001)
        got = consumer.deliveries(0.001)
        for _, _, found in got:
            assert found == body
        if got:
            received += len(got)
            consumer.acknowledge(got[-1][0], multiple=1)
    assert not publisher.refused


def test_what_a_slow_sensor_costs(board, report):
    """One message at a time, so that each one is a commit of its own, and its mark another."""
    publisher = Publisher(board, window=1)
    consumer = Consumer(board, "telemetry", prefetch=1)
    message = wire.publish(
        1, "telemetry", "room.temperature", bytes(64), wire.properties(delivery_mode=PERSISTENT)
    )
    _pump(publisher, consumer, message, bytes(64), 5)
    count = 10
    span = board.span()
    for _ in range(count):
        _pump(publisher, consumer, message, bytes(64), 1)
        time.sleep(1.2)  # a mark waits a second
    span.end()
    report(
        "durable, one at a time",
        f"{span.programs / count:.1f} flash programs, {span.erases / count:.2f} erases each",
        programs=span.programs / count, erases=span.erases / count,
    )  # fmt: skip
    assert span.erases
