"""A fixed number of objects of one kind, made at start and reused."""

from ..errors import ResourceLimitExceeded


class Table:
    """Free objects are chained through their `next` attribute, so taking one allocates nothing."""

    def __init__(self, kind, size, name):
        self.size = size
        self.free = size
        self._name = name
        self._first = None
        for _ in range(size):
            item = kind()
            item.next = self._first
            self._first = item

    def take(self):
        """An object whose attributes still hold what its last user left.

        Raises ResourceLimitExceeded when all are in use.
        """
        item = self._first
        if item is None:
            raise ResourceLimitExceeded(
                "no room for another %s, this broker has %d" % (self._name, self.size)
            )
        self._first = item.next
        item.next = None
        self.free -= 1
        return item

    def give(self, item):
        item.next = self._first
        self._first = item
        self.free += 1
