"""`amqp-lite reset`: start a board again, and see that it serves."""

import sys
import time

from .connection import open_board
from .errors import CommandError

_SERVE_S = 60  # from a reset until it has to serve
_QUIET_S = 5  # without a line, before it is asked
_FAILED_S = 3  # from a traceback until it has to serve


def do_reset(args):
    sys.stdout.reconfigure(line_buffering=True)
    with open_board(args.port) as board:
        print(f"{board.port}: what runs there is interrupted")
        board.interrupt()
        board.reset()
        await_broker(board)


def await_broker(board):
    """Show what the *board* prints after a reset until it serves.

    Raises CommandError when it does not.
    """
    deadline = time.monotonic() + _SERVE_S
    heard = time.monotonic()
    failed = None
    while time.monotonic() < deadline:
        for line in board.lines(0.2):
            heard = time.monotonic()
            print(line)
            if line.startswith("listening on"):
                return
            if line.startswith("MicroPython v"):  # its REPL: main.py came to an end
                raise CommandError(f"{board.port}: the broker did not start", 1)
            if failed is None and line.startswith("Traceback"):
                failed = heard
        quiet = time.monotonic() - heard
        if failed is not None and time.monotonic() - failed > _FAILED_S:
            raise CommandError(f"{board.port}: the broker did not start", 1)
        if quiet > _QUIET_S:
            # The first lines can be lost while a board with its own USB is found again.
            heard = time.monotonic()
            try:
                status = board.ask_status(2)
            except CommandError:
                continue
            print(f"it serves, as device '{status.get('device')}'")
            return
    raise CommandError(f"{board.port}: no broker within {_SERVE_S} seconds", 1)
