"""The way upstream does not allocate: store, forward, confirm, settle with the heap locked."""

import wire
from bridged import Bridged
from test_heap_lock import heap_lock, heap_unlock

CONFIRMED = memoryview(bytearray(wire.ack(1, 0, multiple=1)))  # all there are


class Line:
    def __init__(self, body, given, **link):
        row = {"queue": "telemetry", "headers": {"x-site": "{device}/{routing_key}"}, "window": 8}
        row.update(link)
        b = Bridged([row])
        b.queue("telemetry")
        b.user.ask(wire.select_confirms(1))
        b.start()
        self.edge = b.edge
        self.client = b.client
        self.uplink = b.upstream.uplinks[0]
        self.publisher = b.user.engine
        self.engines = [self.publisher, self.client]
        octets = wire.publish(1, "", "telemetry", body, given)
        self.input = [
            memoryview(bytearray(octets[i : i + 512])) for i in range(0, len(octets), 512)
        ]

    def turn_wheel(self):
        broker = self.edge.broker
        broker.committed = broker.store.commit()
        if broker.behind:
            broker.catch_up()
        for engine in self.engines:
            engine.pump()
            while engine.output.pending:
                engine.output.sent(engine.output.pending)
                engine.pump()
        if broker.freed:
            broker.freed = False
        broker.store.idle()

    def send(self, count, confirm_each):
        for k in range(count):
            for piece in self.input:
                self.publisher.feed(piece, len(piece))
            self.turn_wheel()
            if k % confirm_each == confirm_each - 1:
                self.client.feed(CONFIRMED, len(CONFIRMED))
                self.turn_wheel()
        for _ in range(count):
            self.client.feed(CONFIRMED, len(CONFIRMED))
            self.turn_wheel()


def run(line, count, confirm_each):
    line.send(20, confirm_each)
    heap_lock()
    try:
        line.send(count, confirm_each)
    finally:
        heap_unlock()
    status = line.uplink.status()
    assert status["settled"] == count + 20 and status["backlog"] == status["in_flight"] == 0


def test_one_by_one():
    run(Line("x" * 40, wire.properties(delivery_mode=2)), 200, 1)


def test_windows_of_messages_with_ids_and_headers_of_their_own():
    given = wire.properties(
        content_type="a/b", headers={"own": 5, "more": "text"}, delivery_mode=2, message_id="m",
        correlation_id="c", app_id="a",
    )  # fmt: skip
    run(Line("x" * 100, given), 200, 6)


def test_from_the_backlog_on_flash():
    run(Line("x" * 100, wire.properties(delivery_mode=2), window=2), 60, 30)


def test_transient_ones_and_live_ones():
    run(Line("x" * 60, b"\0\0", live=25), 200, 4)


def test_bodies_longer_than_the_buffers():
    run(Line("x" * 3000, wire.properties(delivery_mode=2)), 12, 1)
