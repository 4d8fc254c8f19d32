"""What happens when a board's program ends with an error."""

from amqp_lite.compat import MICROPYTHON


class Board:
    NAME = "pico_w"
    resets = 0

    def reset(self):
        self.resets += 1


class Retained:
    def __init__(self):
        self.lines = []
        self.is_good = False

    def write(self, line):
        self.lines.append(line)

    def good(self):
        self.is_good = True


class Time:
    def __init__(self, sleep):
        self.sleep = sleep


def interrupted(seconds):
    raise KeyboardInterrupt


def failed(sleep):
    """A board and what it retains after an error, and this *sleep* before the next start."""
    from board import starts  # it is for MicroPython alone

    board = Board()
    retained = Retained()
    before = starts.time
    starts.time = Time(sleep)
    try:
        starts.failed(ValueError("what was wrong"), board, retained)
    finally:
        starts.time = before
    assert retained.lines[-1] == "ValueError: what was wrong"
    return board, retained


def test_it_starts_again():
    if MICROPYTHON:
        board, retained = failed(lambda seconds: None)
        assert board.resets == 1 and not retained.is_good


def test_somebody_who_stops_it_before_is_let_in():
    if MICROPYTHON:
        board, retained = failed(interrupted)
        assert board.resets == 0 and retained.is_good
