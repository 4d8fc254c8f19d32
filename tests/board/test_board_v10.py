"""AMQP 1.0 on a board: what a client of it costs, and that it works beside one of 0-9-1."""

import time

from proton import Message
from proton.utils import BlockingConnection


def _heap(board):
    for line in board.tool("status").splitlines():
        if "heap" in line:
            return line
    return None


def test_a_client_of_amqp_1_0(make_board, report):
    board = make_board().on()
    print(board.tool("status"))
    with board.channel() as channel:
        channel.queue_declare("v10")
        print(_heap(board))
        url = "amqp://%s:%s@%s:%d" % (board.user, board.password.replace(" ", "%20"), board.host, board.port)
        begin = time.time()
        connection = BlockingConnection(url, allowed_mechs="PLAIN", timeout=60)
        print("open", time.time() - begin)
        sender = connection.create_sender("/queues/v10")
        sender.send(Message(body=b"21.5", inferred=True))
        print("sent", time.time() - begin)
        print(_heap(board))
        receiver = connection.create_receiver("/queues/v10")
        assert bytes(receiver.receive(timeout=30).body) == b"21.5"
        receiver.accept()
        print("got", time.time() - begin)
        print(board.tool("status"))
        begin = time.time()
        for k in range(20):
            sender.send(Message(body=b"%d" % k, inferred=True))
        print("20 in", time.time() - begin)
        for k in range(20):
            receiver.receive(timeout=30)
            receiver.accept()
        print("20 out", time.time() - begin)
        print(board.tool("status"))
        connection.close()
