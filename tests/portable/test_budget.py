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
    """Sends *count* messages of *size* octets to amq.fanout, at most *ahead* of the last one that
    was confirmed."""

    def __init__(self, board, count, size, ahead=10, delay=2):
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
        wire.declare_queue(1, name, arguments={"x-max-length": keep}),
        wire.bind_queue(1, name, "amq.fanout"),
        wire.qos(1, prefetch),
        wire.consume(1, name, "c", no_ack=no_ack),
        delay=delay,
        react=None if no_ack else acknowledge,
    )


def all_arrived(clients, count):
    return [len(client.bodies) for client in clients] == [count] * len(clients)


def in_order(client):
    return [number(body) for body in client.bodies] == list(range(len(client.bodies)))


def stream(board, no_ack, size, delay, count):
    """Two consumers get what a publisher sends to both: the ms that took."""
    consumers = [consumer(board, name, no_ack, delay=delay) for name in ("a", "b")]
    publisher = Publisher(board, count, size, delay=delay)
    took = board.run(60000, lambda: all_arrived(consumers, count))
    board.run(1000, publisher.done)
    assert publisher.done()
    for client in consumers + [publisher.client]:
        assert in_order(client) and not client.closed
    assert all_arrived(consumers, count)
    return took


def check_ordinary(no_ack, size, delay):
    board = Board()
    took = stream(board, no_ack, size, delay, 80)
    assert took < 12000
    stack = board.stack
    assert (stack.blocked, stack.lost) == (0, 0), stack.blocked
    assert stack.peak <= 6500


def test_small_messages_never_block_a_write():
    check_ordinary(0, 64, 1)


def test_small_messages_over_wifi_never_block_a_write():
    check_ordinary(0, 64, 22)


def test_middle_messages_never_block_a_write():
    check_ordinary(0, 300, 10)


def test_large_messages_never_block_a_write():
    check_ordinary(0, 1500, 1)


def test_large_messages_over_wifi_never_block_a_write():
    check_ordinary(0, 1500, 22)


def test_small_messages_to_consumers_that_never_answer_never_block_a_write():
    check_ordinary(1, 64, 10)


def test_middle_messages_to_consumers_that_never_answer_never_block_a_write():
    check_ordinary(1, 300, 22)


def test_large_messages_to_consumers_that_never_answer_never_block_a_write():
    check_ordinary(1, 1500, 2)


def check_slow(no_ack, size, delay):
    board = Board()
    stream(board, no_ack, size, delay, 60)
    # A write may wait for a round trip here.
    assert board.stack.slowest <= 2 * delay + 100
    assert board.stack.lost == 0


def test_on_a_slow_network_nothing_is_lost_and_nobody_cut():
    check_slow(0, 300, 60)


def test_on_a_slow_network_large_messages_arrive_as_well():
    check_slow(0, 1500, 150)


def test_on_a_slow_network_consumers_that_never_answer_are_not_cut():
    check_slow(1, 1500, 60)


def test_on_a_very_slow_network_consumers_that_never_answer_are_not_cut():
    check_slow(1, 300, 150)


def check_stall(size, seconds, lingers):
    """One of two consumers stops reading: the other and the publisher do not notice."""
    board = Board(lingers)
    stalled = consumer(board, "a", keep=3)
    other = consumer(board, "b")
    publisher = Publisher(board, 120, size)
    board.run(10000, lambda: len(stalled.bodies) > 20)
    stalled.reads = False
    board.run(60000, lambda: all_arrived([other], 120) and publisher.done())
    assert all_arrived([other], 120) and in_order(other) and not other.closed
    assert publisher.done() and not publisher.client.closed
    board.run(1000 * seconds, lambda: stalled.closed)
    assert stalled.closed
    assert board.stack.lost == 0 and board.stack.slowest <= 200
    assert board.stack.peak <= 6500


def test_a_consumer_that_stalls_with_small_messages_costs_only_itself():
    check_stall(100, 25, 0)


def test_a_consumer_that_stalls_with_large_messages_costs_only_itself():
    check_stall(1500, 3, 0)


def test_what_the_stack_keeps_after_a_close_is_counted():
    check_stall(1500, 3, 10000)


def test_a_slow_stream_to_a_dead_consumer_leaves_room_for_a_burst_to_another():
    board = Board()
    dead = consumer(board, "a", no_ack=1, keep=3)
    other = consumer(board, "b", no_ack=1)
    publisher = board.client()
    dead.reads = False
    for k in range(40):
        publisher.send(wire.publish(1, "amq.fanout", "", b"%d." % k + b"x" * 200))
        board.run(150)
    for k in range(40, 45):
        publisher.send(wire.publish(1, "", "b", b"%d." % k + b"x" * 1500, piece=1000))
    board.run(15000, lambda: all_arrived([other], 45))
    assert all_arrived([other], 45) and in_order(other)
    assert not other.closed and not publisher.closed
    assert board.stack.lost == 0 and board.stack.slowest <= 200


def test_after_a_write_that_lost_octets_nobody_is_left_with_a_hole():
    # A dead consumer that never answered looks like one that is content until the stack is full.
    board = Board()
    dead = consumer(board, "a", no_ack=1, keep=3)
    other = consumer(board, "b", no_ack=1, keep=3)
    publisher = Publisher(board, 120, 1500)
    board.run(10000, lambda: len(dead.bodies) > 20)
    dead.reads = False
    board.run(60000, publisher.done)
    assert publisher.done() and not publisher.client.closed
    board.run(25000, lambda: dead.closed)
    assert dead.closed
    for client in board.stack.clients:
        assert client.closed or not client.hole
    numbers = [number(body) for body in other.bodies]
    assert numbers == sorted(set(numbers))
    assert board.stack.blocked <= 12000


def test_one_alone_may_fill_the_stack_and_gives_way_to_another():
    board = Board()
    first = consumer(board, "a", no_ack=1, delay=20)
    publisher = Publisher(board, 40, 1500, ahead=40)
    publisher.client.react = None
    board.run(5000, lambda: all_arrived([first], 40))
    assert all_arrived([first], 40) and in_order(first)
    second = board.client(wire.declare_queue(1, "c"))
    assert second.names[-1] == "queue.declare-ok"
    assert (board.stack.blocked, board.stack.lost) == (0, 0)


def end(board, client):
    board.run(3000, lambda: client.closed)
    assert client.closed


def test_many_connections_come_and_go():
    board = Board()
    reader = consumer(board, "a")
    for k in range(12):
        client = board.client(wire.publish(1, "amq.fanout", "", "%d." % k))
        if k % 3 == 0:
            client.reads = False
        client.send(wire.close_connection())
        end(board, client)
    assert [number(body) for body in reader.bodies] == list(range(12))
    assert (board.stack.blocked, board.stack.lost) == (0, 0)
