"""A gateway's broker killed with SIGKILL at random moments, and what was confirmed afterwards.

    python tests/faults/sigkill.py [--kills 200] [--seed N]

Publishers send numbered persistent messages of many sizes to several durable queues and note which
were confirmed; consumers note what they got and settle it. Then the process dies, at a moment the
random numbers choose, and starts again on the same file. At the end everything is drained:

- each confirmed message was received at least once, octet for octet;
- in each queue, first receipts come in the order of publishing;
- a message seen before the last kill and settled comes back only if its mark was still waiting.
"""

import argparse
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pika

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUEUES = ("a", "b", "c")
SECONDS = 30
_STORE_OCTETS = 32 * 65536


class Broker:
    def __init__(self, store):
        self.store = store
        self.process = None
        self.port = 0

    def start(self):
        """Start it: milliseconds until it listens."""
        begin = time.monotonic()
        config = pathlib.Path(self.store).with_suffix(".json")
        # Small, so that it turns around, is merged, and is full at times.
        store = {"kind": "file", "path": self.store, "size": _STORE_OCTETS}
        config.write_text(json.dumps({"store": store}))
        command = [sys.executable, "-m", "host_tools", "run", "--port", "0", "--config", config]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in self.process.stdout:
            found = re.search(r"listening on \S+:(\d+)", line)
            if found:
                self.port = int(found[1])
                threading.Thread(target=self._drain, daemon=True).start()
                return (time.monotonic() - begin) * 1000
        raise AssertionError("the broker did not start")

    def _drain(self):
        for line in self.process.stdout:
            if "Traceback" in line:
                print("broker:", line, end="", file=sys.stderr)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def connect(self):
        parameters = pika.ConnectionParameters("127.0.0.1", self.port, heartbeat=0)
        return pika.BlockingConnection(parameters)


class Book:
    """What was confirmed and what was received, over all lives of the broker."""

    def __init__(self):
        self.lock = threading.Lock()
        self.confirmed = set()  # numbers, of every queue
        self.bodies = {}
        self.received = {queue: {} for queue in QUEUES}  # number -> times
        self.order = {queue: [] for queue in QUEUES}  # first receipts
        self.wrong = []
        self.refused = 0  # nacked: the store was full
        self.number = 0

    def take_number(self, body):
        with self.lock:
            self.number += 1
            self.bodies[self.number] = body
            return self.number

    def got(self, queue, body):
        number = int(body[:10])
        with self.lock:
            if body != self.bodies.get(number):
                self.wrong.append((queue, number))
            times = self.received[queue].get(number, 0)
            self.received[queue][number] = times + 1
            if not times:
                self.order[queue].append(number)


def publish(broker, book, chance, stop):
    """Publish until the connection breaks."""
    try:
        connection = broker.connect()
        channel = connection.channel()
        channel.confirm_delivery()
        properties = pika.BasicProperties(delivery_mode=2)
        while not stop.is_set():
            size = 70000 if chance.random() < 0.05 else chance.choice((20, 64, 200, 1000, 5000))
            number = book.number + 1  # one publisher
            body = b"%010d" % number + bytes([number & 0xFF]) * size
            assert book.take_number(body) == number
            try:
                channel.basic_publish("amq.fanout", "", body, properties)
            except pika.exceptions.NackError:
                book.refused += 1
                continue
            with book.lock:
                book.confirmed.add(number)
    except (pika.exceptions.AMQPError, OSError):
        pass


def consume(broker, book, queue, stop, prefetch, slow):
    """Receive and acknowledge until the connection breaks."""
    try:
        connection = broker.connect()
        channel = connection.channel()
        channel.basic_qos(prefetch_count=prefetch)
        for method, _, body in channel.consume(queue, inactivity_timeout=0.1):
            if stop.is_set():
                return
            if method is None:
                continue
            book.got(queue, body)
            if slow:
                time.sleep(slow)
            channel.basic_ack(method.delivery_tag)
    except (pika.exceptions.AMQPError, OSError):
        pass


def declare(broker):
    connection = broker.connect()
    channel = connection.channel()
    for queue in QUEUES:
        channel.queue_declare(queue, durable=True)
        channel.queue_bind(queue, "amq.fanout")
    connection.close()


def drain(broker, book):
    connection = broker.connect()
    channel = connection.channel()
    for queue in QUEUES:
        while True:
            method, _, body = channel.basic_get(queue)
            if method is None:
                break
            book.got(queue, body)
            channel.basic_ack(method.delivery_tag)
    connection.close()


def run(kills, seed, store):
    """Kill a broker *kills* times: a Book, and the slowest start in ms."""
    chance = random.Random(seed)
    book = Book()
    broker = Broker(store)
    slowest = 0
    for kill in range(kills):
        slowest = max(slowest, broker.start())
        if not kill:
            declare(broker)
        stop = threading.Event()
        jobs = [threading.Thread(target=publish, args=(broker, book, chance, stop))]
        for queue in QUEUES:
            # The last queue is slow, and its backlog is what merges have to carry along.
            slow = 0.006 if queue == QUEUES[-1] else 0
            jobs.append(threading.Thread(
                target=consume, args=(broker, book, queue, stop, chance.choice((1, 10, 50)), slow)
            ))  # fmt: skip
        for job in jobs:
            job.start()
        time.sleep(chance.random() * 0.4)
        broker.kill()
        stop.set()
        for job in jobs:
            job.join(SECONDS)
    slowest = max(slowest, broker.start())
    drain(broker, book)
    broker.kill()
    return book, slowest


def check(book):
    """Raises AssertionError unless everything confirmed came, whole and in order."""
    assert not book.wrong, book.wrong[:5]
    for queue in QUEUES:
        lost = sorted(book.confirmed - set(book.received[queue]))
        assert not lost, (queue, len(lost), lost[:5])
        # One publisher: a later number may never have come first.
        assert book.order[queue] == sorted(book.order[queue]), queue


def main():
    parser = argparse.ArgumentParser(description="Kill the broker, compare with the confirms.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    options = parser.parse_args()
    print("seed", options.seed, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        book, slowest = run(options.kills, options.seed, os.path.join(folder, "store.ring"))
    again = sum(times - 1 for queue in QUEUES for times in book.received[queue].values())
    print(
        "%d kills: %d published, %d confirmed, %d refused, each in %d queues; "
        "%d received again; slowest start %d ms"
        % (
            options.kills, book.number, len(book.confirmed), book.refused, len(QUEUES), again,
            slowest,
        )
    )
    check(book)
    print("0 confirmed messages lost, order kept")


if __name__ == "__main__":
    main()
