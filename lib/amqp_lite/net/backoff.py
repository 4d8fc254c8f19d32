"""When to try again: at random below a bound that doubles with each failure."""

from os import urandom

from ..compat import const, ticks_add, ticks_diff

_FIRST_MS = const(1000)


class BackOff:
    """Full jitter: a fleet that lost its upstream does not come back all at once.

    most_ms  the bound's cap
    """

    def __init__(self, most_ms):
        self._most_ms = max(most_ms, 1)
        self._bound_ms = _FIRST_MS
        self._due = 0  # ticks
        self.failures = 0  # in a row

    def failed(self, now):
        self.failures += 1
        bound = min(self._bound_ms, self._most_ms)
        self._due = ticks_add(now, jitter(bound))
        self._bound_ms = min(2 * bound, self._most_ms)

    def worked(self):
        self.failures = 0
        self._bound_ms = _FIRST_MS

    def left(self, now):
        """ms until the next attempt."""
        return max(ticks_diff(self._due, now), 0) if self.failures else 0


def jitter(bound_ms):
    """A random number of ms, from 1 to *bound_ms*."""
    return 1 + int.from_bytes(urandom(3), "big") % bound_ms
