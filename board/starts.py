"""Starts in vain: counted, and after five in a row none is tried, so that people can get in."""

import gc
import io
import sys
import time

from micropython import const

_MOST = const(5)
_READ_S = const(5)  # for people at the console


def may_start(retained):
    """Count a start: whether it may go on. Else it says why, and the next one may."""
    retained.begin()
    if retained.starts <= _MOST:
        return True
    print("safe mode: %d starts failed. Reset to try again. Last lines:" % _MOST)
    print("\n".join(retained.previous()))
    retained.good()
    return False


def failed(error, board, retained):
    """The program ends with *error*: keep and print it, then start the board anew.

    Ctrl-C meanwhile leaves people at the console.
    """
    is_over = True
    try:
        gc.collect()
        text = io.StringIO()
        sys.print_exception(error, text)
        text = text.getvalue()
        for line in text.rstrip().split("\n"):
            retained.write(line)
        print(text)
        if board.NAME != "linux":
            print("It starts again in %d s." % _READ_S)
            time.sleep(_READ_S)
    except KeyboardInterrupt:
        is_over = False
        retained.good()
    finally:
        if is_over:
            board.reset()
