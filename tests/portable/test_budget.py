"""The output budget on a stack that punishes whoever writes too much: see lwip.py."""

import wire
from lwip import Board


def acknowledge(client, channel, name, payload):
    """The reaction of a consumer that acknowledges each message."""
    if name == "message":
        client.tag = getattr(client, "tag", 0) + 1
        client.send(wire.ack(1, client.tag))


def number(body):
    return int(body.split(b".")[0])


class Publisher:
    """Sends *count* messages of *size* octets to the exchange amq.fanout, with confirms, *ahead* of
    the last confirmed one at most."""

    def __init__(self, board, count, size, ahead=20, delay=2):
        self.count = count
        self.size = size
        self.ahead = ahead
        self.sent = 0
        self.confirmed = 0
        self.client = board.client(wire.select_confirms(1), delay=delay)
        self.client.react = self.react
        self.more()

    def more(self):
        while self.sent < self.count and self.sent < self.confirmed + self.ahead:
            content = (b"%d." % self.sent) + b"x" * self.size
            self.client.send(wire.publish(1, "amq.fanout", "", content, piece=1000))
            self.sent += 1

    def react(self, client, channel, name, payload):
        if name == "basic.ack":
            self.confirmed = int.from_bytes(payload[:8], "big")
            self.more()

    def done(self):
        return self.confirmed == self.count


def consumer(board, name, no_ack=0, prefetch=10, delay=2, keep=1000):
    """Consumes from a queue of *name* that keeps the last *keep* messages of amq.fanout."""
    return board.client(
        wire.declare_queue(1, name, arguments={"x-max-length": keep}), wire.bind_queue(1, name, "amq.fanout"), wire.qos(1, prefetch),
        wire.consume(1, name, "c", no_ack=no_ack), delay=delay,
        react=None if no_ack else acknowledge,
    )  # fmt: skip


def is_well(board):
    """Nothing blocked, nothing lost, everything fitted."""
    stack = board.stack
    return (stack.blocked, stack.lost) == (0, 0) and stack.peak <= 6500


def check_ordinary(no_ack, size, delay, count=120):
    board = Board()
    consumers = [consumer(board, name, no_ack, delay=delay) for name in ("a", "b")]
    publisher = Publisher(board, count, size, delay=delay)

    def arrived():
        return all([len(client.bodies) == count for client in consumers])

    took = board.run(120000, arrived)
    for client in consumers:
        assert [number(body) for body in client.bodies] == list(range(count)), took
        assert not client.closed
    assert publisher.done() or board.run(1000, publisher.done) < 1000
    assert is_well(board), (board.stack.blocked, board.stack.peak)
    return took
