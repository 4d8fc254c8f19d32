"""The route cache: which queues one exchange and routing key lead to.

Resolving a route walks bindings, which is slow on a board; sensors publish under the same few keys
again and again. So results are kept, found by a hash over the octets of the publish in place, and
all forgotten when any queue, exchange or binding changes.
"""

from ..compat import equal, hash_octets


class Route:
    def __init__(self, key_size, queues):
        self.key = bytearray(key_size)
        self.length = -1
        self.hash = 0
        self.stamp = 0  # of the fill; whoever keeps a route compares it before use
        self.exchange = None
        self.queues = [None] * queues
        self.count = 0
        self.by_headers = False  # `queues` is only a start: headers decide, for each message

    def add(self, queue):
        if self.count == len(self.queues):
            self.queues.append(queue)
        else:
            self.queues[self.count] = queue
        self.count += 1


class RouteCache:
    """Direct-mapped by hash: a new key simply takes the place of an older one."""

    def __init__(self, size, key_size, queues):
        self._key_size = key_size
        self._routes = [Route(key_size, queues) for _ in range(size)]
        self._stamp = 0

    def find(self, buf, i, n):
        """The route of the *n* octets at *i* (exchange and routing key as short strings).

        Its `length` is -1 when it is not known and has to be resolved and filled.
        """
        hashed = hash_octets(buf, i, n)
        route = self._routes[hashed % len(self._routes)]
        if route.length == n and route.hash == hashed and equal(buf, i, route.key, n):
            return route
        route.length = -1
        route.hash = hashed
        return route

    def fill(self, route, buf, i, n):
        """*route* is resolved: from now on find() gives it for these octets."""
        self._stamp = self._stamp + 1 & 0x3FFFFFFF
        route.stamp = self._stamp
        if n <= self._key_size:
            for k in range(n):
                route.key[k] = buf[i + k]
            route.length = n

    def forget(self):
        """Something about exchanges, queues or bindings changed."""
        self._stamp = self._stamp + 1 & 0x3FFFFFFF
        for route in self._routes:
            route.length = -1
            route.stamp = 0
