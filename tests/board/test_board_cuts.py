"""The power goes at random moments, and what was confirmed is there when it comes back.

    BOARD_SEED=7 BOARD_CUTS=200 pytest -s tests/board -k cuts

A publisher with confirms has messages under way all the time, a consumer acknowledges some of what
it gets. The cut comes inside of a flash operation, which is left half done, while it starts, or at
any other moment. After each:

- what was confirmed and not acknowledged comes, octet for octet, in order, once, and is flagged
  redelivered; what is new is not;
- what was not confirmed may come, and so may what was acknowledged just before; once it did not
  come it never does.
"""

import os
import random
import time

from board_client import Consumer, Publisher
from emulated import PowerCut

import wire

CUTS = int(os.environ.get("BOARD_CUTS") or (8 if os.environ.get("CI") else 20))
SEED = int(os.environ.get("BOARD_SEED") or int.from_bytes(os.urandom(3), "big"))
WINDOW = 8
PREFETCH = 10
_MOST_OPERATIONS = 60  # of flash, until the cut inside of one
_LOST = (ConnectionError, PowerCut, OSError)


class Book:
    """What has to come after the next start, what may, and what must not."""

    def __init__(self, chance):
        self._chance = chance
        self._bodies = []  # by number
        # Confirmed, or there after a start: it has to come until it is acknowledged. A consumer
        # may see what is not confirmed yet, and that may be gone after a cut.
        self.due = set()
        self.possible = set()  # nobody knows
        self.confirmed = 0
        self.returned = 0  # acknowledged before, and came again
        self._acknowledged = set()
        self._start = 0  # the first number of this start
        self._last = -1  # that came
        self._came = set()  # in this start
        self._is_complete = False  # all of the starts before has come

    def begin(self):
        """Another start."""
        self._start = len(self._bodies)
        self._last = -1
        self._came = set()
        self._is_complete = False

    def write(self):
        """The next message: (number, body)."""
        number = len(self._bodies)
        size = self._chance.choice((0, 20, 100, 300, 700))
        self._bodies.append(b"%08d" % number + bytes([number & 0xFF]) * size)
        self.possible.add(number)
        return number, self._bodies[-1]

    def confirm(self, number):
        self.confirmed += 1
        if number not in self._acknowledged:
            self.possible.discard(number)
            self.due.add(number)

    def receive(self, redelivered, body):
        """Check what came: its number."""
        number = int(body[:8])
        assert body == self._bodies[number], f"{number} is damaged"
        assert number > self._last, f"{number} came behind {self._last}"
        assert redelivered == (number < self._start), f"{number}: redelivered is {redelivered}"
        missing = [n for n in self.due if self._last < n < number]
        assert not missing, f"{missing} did not come, {number} did"
        assert number in self.due or number in self.possible, f"{number} came back from nowhere"
        if number >= self._start:
            self.end_of_old()
        elif number in self._acknowledged:
            self.returned += 1
        self._acknowledged.discard(number)
        if number < self._start:
            self.possible.discard(number)
            self.due.add(number)
        self._last = number
        self._came.add(number)
        return number

    def end_of_old(self):
        """Nothing more of the starts before comes: what has not come now is gone for ever."""
        if self._is_complete:
            return
        self._is_complete = True
        missing = [n for n in self.due if self._last < n < self._start]
        assert not missing, f"{missing} did not come"
        # What came and was acknowledged may still come again: its mark may not be on flash yet.
        self.possible = {n for n in self.possible if n >= self._start or n in self._came}

    def acknowledge(self, number):
        self.due.discard(number)
        self.possible.add(number)  # until its mark was programmed
        self._acknowledged.add(number)


def test_power_cuts(make_board, report):
    print("seed", SEED)
    chance = random.Random(SEED)
    book = Book(chance)
    board = make_board()
    kinds = {"inside of a flash operation": 0, "while it started": 0, "at another moment": 0}
    for _ in range(CUTS):
        kinds[_live(board, book, chance)] += 1
    book.begin()
    board.on()
    for number in _rest(Consumer(board, "telemetry", PREFETCH), book):
        book.acknowledge(number)
    report(
        "power cuts",
        f"{CUTS} with seed {SEED} ({', '.join(f'{kinds[kind]} {kind}' for kind in kinds)}): "
        f"{book.confirmed} messages confirmed, 0 lost, in order, none twice in a start; "
        f"{book.returned} acknowledged ones came again, flagged redelivered",
        cuts=CUTS, seed=SEED, confirmed=book.confirmed, returned=book.returned, lost=0,
    )  # fmt: skip
    assert book.confirmed > 4 * CUTS


def _live(board, book, chance):
    """One start, and its end: what kind of cut that was."""
    book.begin()
    kind = chance.choices(
        ("inside of a flash operation", "while it started", "at another moment"), (5, 1, 4)
    )[0]
    options = []
    if kind == "inside of a flash operation":
        at = f"{chance.randint(1, _MOST_OPERATIONS)}:{chance.random():.3f}"
        options = ["--cut-at", at]
    try:
        if kind == "while it started":
            board.on(serves=False)
            time.sleep(chance.uniform(0, 3))
        else:
            board.on(*options)
            _work(board, book, chance, chance.uniform(0.1, 2) if not options else 20)
    except _LOST:
        assert options, "it has gone by itself"
    board.cut()
    return kind


def _work(board, book, chance, seconds):
    """Publish and consume; what was taken in is noted even when the board goes meanwhile."""
    deadline = time.monotonic() + seconds
    publisher = Publisher(board, WINDOW)
    consumer = Consumer(board, "telemetry", PREFETCH)
    held = []  # [(number, delivery tag)]
    try:
        while time.monotonic() < deadline:
            room = publisher.room()
            if room:
                publisher.publish(*[_message(*book.write()) for _ in range(room)])
            publisher.settle(0.001)
            for tag, redelivered, body in consumer.deliveries(0.001):
                held.append((book.receive(redelivered, body), tag))
            while len(held) > PREFETCH // 2:
                number, tag = held.pop(chance.randrange(len(held)))
                book.acknowledge(number)
                consumer.acknowledge(tag)
            assert not publisher.refused
            _note(publisher, book)
    finally:
        _note(publisher, book)
        publisher.close()
        consumer.close()


def _message(number, body):
    properties = wire.properties(delivery_mode=2)
    return number, wire.publish(1, "telemetry", "room", body, properties)


def _note(publisher, book):
    for number in publisher.confirmed:
        book.confirm(number)
    publisher.confirmed.clear()


def _rest(consumer, book):
    """All that is left, until nothing comes any more."""
    quiet = time.monotonic()
    while time.monotonic() < quiet + 1.5:
        for tag, redelivered, body in consumer.deliveries(0.1):
            quiet = time.monotonic()
            number = book.receive(redelivered, body)
            consumer.acknowledge(tag)
            yield number
    book.end_of_old()
