"""AMQP 1.0 on a board: what a client of it costs, and that it works beside one of 0-9-1."""

import urllib.parse

from proton import Message
from proton.utils import BlockingConnection

BODY = b"21.5 degrees Celsius" + b"." * 44  # 64 octets
COUNT = 30


def test_a_client_of_amqp_1_0(make_board, report):
    board = make_board().on()
    with board.channel() as channel:
        channel.queue_declare("v10", durable=True)
        channel.queue_declare("v091")
        before = _heap(board)
        span = board.span()
        connection = _connect(board)
        span.end()
        begin = span.seconds
        sender = connection.create_sender("/queues/v10", name="to")
        receiver = connection.create_receiver("/queues/v10", name="from", credit=16)
        heaps = [_heap(board)]
        _both_ways(channel, connection, sender, receiver)
        receiver.close()
        heaps.append(_heap(board))
        came = _in(board, connection, sender)
        heaps.append(_heap(board))
        went = _out(board, connection)
        heaps.append(_heap(board))
        report(
            "AMQP 1.0",
            f"{begin:.1f} s to the first open; heap free {before:,} octets before, {heaps[0]:,}"
            f" with a client, {min(heaps):,} lowest; {came:.0f} messages/s in, {went:.0f} out",
            begin=begin, before=before, connected=heaps[0], lowest=min(heaps), came=came,
            went=went,
        )  # fmt: skip
        assert min(heaps) > 8000

        span = board.span()
        for _ in range(3):
            sender.send(Message(body=BODY, inferred=True, durable=True))
        span.end()
        assert span.programs >= 3  # accepted means stored
        connection.close()
    board.cut()
    board.on()
    with board.channel() as channel:
        found = [channel.basic_get("v10", auto_ack=True) for _ in range(3)]
        assert [body for _, _, body in found] == [BODY] * 3


def _connect(board):
    user, password = board.user, urllib.parse.quote(board.password)
    url = f"amqp://{user}:{password}@{board.host}:{board.port}"
    return BlockingConnection(url, allowed_mechs="PLAIN", timeout=60)


def _heap(board):
    return max(board.status()["heap_free"] for _ in range(2))


def _receive(receiver):
    message = receiver.receive(timeout=30)
    assert bytes(message.body) == BODY  # its memory is the message's
    receiver.accept()
    return message


def _both_ways(channel, connection, sender, receiver):
    """From either client to the other one, and from one of AMQP 1.0 to itself."""
    sender.send(Message(body=BODY, inferred=True, subject="one"))
    assert _receive(receiver).subject == "one"
    channel.basic_publish("", "v10", BODY)
    _receive(receiver)
    other = connection.create_sender("/queues/v091", name="to 0-9-1")
    other.send(Message(body=BODY, inferred=True, content_type="text/plain"))
    other.close()
    _, properties, body = channel.basic_get("v091", auto_ack=True)
    assert body == BODY and properties.content_type == "text/plain"


def _in(board, connection, sender):
    """Messages a second that come in, as many at once as there is credit for."""
    message = Message(body=BODY, inferred=True)
    span = board.span()
    waiting = []
    for _ in range(COUNT):
        connection.wait(lambda: sender.link.credit > 0, timeout=30)
        waiting.append(sender.link.send(message))
    connection.wait(lambda: all(delivery.settled for delivery in waiting), timeout=30)
    span.end()
    return COUNT / span.seconds


def _out(board, connection):
    """And that go out, with as much credit."""
    span = board.span()
    receiver = connection.create_receiver("/queues/v10", name="from", credit=COUNT)
    for _ in range(COUNT):
        _receive(receiver)
    span.end()
    receiver.close()
    return COUNT / span.seconds
