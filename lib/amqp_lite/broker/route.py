"""Which queues one exchange and routing key lead to.

Resolving a route walks bindings, which is slow on a board; sensors publish under the same few keys
again and again. So results are kept, found by a hash over the octets of the publish in place, and
all forgotten when any queue, exchange or binding changes.
"""

from ..compat import equal, find_name, hash_octets
from .exchange import DEFAULT, HEADERS

_FAN_OUT = 4  # queues a route has room for before it grows, once


class Route:
    def __init__(self, key_size):
        self.key = bytearray(key_size)
        self.length = -1
        self.hash = 0
        self.stamp = 0  # of the fill; whoever keeps a route compares it before use
        self.exchange = None
        self.queues = [None] * _FAN_OUT
        self.count = 0
        self.by_headers = False  # `queues` is only a start: headers decide, for each message

    def add(self, queue):
        if self.count == len(self.queues):
            self.queues.append(queue)
        else:
            self.queues[self.count] = queue
        self.count += 1


class Routes:
    """The routes that are kept: a new key simply takes the place of an older one of its hash.

    profile         the numbers of limits.py
    exchanges, queues, aliases, match_headers   the broker's
    """

    def __init__(self, profile, exchanges, queues, aliases, match_headers):
        self._key_size = profile["route_key"]
        self._routes = [Route(self._key_size) for _ in range(profile["routes"])]
        self._stamp = 0
        self._exchanges = exchanges
        self._queues = queues
        self._aliases = aliases
        self._match_headers = match_headers
        self._stack = [None] * profile["exchanges"]
        self._visit = 0

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

    def resolve(self, route, exchange, buf, start, end, headers, headers_end):
        """Fill *route* with every queue reached from *exchange*, each once, loops cut.

        start, end            the routing key in *buf*
        headers, headers_end  the encoded properties in *buf*; -1: not known yet
        """
        self._visit = visit = self._visit + 1 & 0x3FFFFFFF
        route.exchange = exchange
        route.count = 0
        route.by_headers = False
        stack = self._stack
        stack[0] = exchange
        exchange.visited = visit
        depth = 1
        while depth:
            depth -= 1
            exchange = stack[depth]
            kind = exchange.kind
            found = False
            if kind == DEFAULT:
                queue = find_name(self._queues, buf, start, end - start)
                if queue is None and self._aliases:
                    queue = self._aliased(buf, start, end)
                if queue is not None:
                    found = True
                    if queue.visited != visit:
                        queue.visited = visit
                        route.add(queue)
            for binding in exchange.bindings:
                if kind == HEADERS:
                    if headers < 0:
                        route.by_headers = True
                        continue
                    if not self._match_headers(binding, buf, headers, headers_end):
                        continue
                elif not binding.matches_key(kind, buf, start, end):
                    continue
                found = True
                target = binding.destination
                if target.visited != visit:
                    target.visited = visit
                    if binding.to_exchange:
                        stack[depth] = target
                        depth += 1
                    else:
                        route.add(target)
            if not found and exchange.alternate is not None:
                target = self._exchanges.get(exchange.alternate)
                if target is not None and target.visited != visit:
                    target.visited = visit
                    stack[depth] = target
                    depth += 1

    def _aliased(self, buf, start, end):
        for prefix in self._aliases:
            n = len(prefix)
            if n <= end - start and equal(buf, start, prefix, n):
                return self._queues.get(self._aliases[prefix])
        return None
