"""No test hangs for ever: it is interrupted when its time is over."""

import contextlib
import signal


@contextlib.contextmanager
def deadline(name, seconds):
    """Raise AssertionError in the test *name* after *seconds*.

    Again and again every five seconds, since cleaning up may hang as well. Without the timers of
    POSIX there is no deadline.
    """

    def overdue(_signal, _frame):
        raise AssertionError("%s took more than %d s" % (name, seconds))

    if not hasattr(signal, "setitimer"):  # Windows
        yield
        return
    before = signal.signal(signal.SIGALRM, overdue)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
