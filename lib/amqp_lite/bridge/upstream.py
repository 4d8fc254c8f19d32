"""One connection upstream, and what goes over it: uplinks by their priority, downlinks.

It tries its hosts in turn, and when none of them took it, again later. Its protocol's engine (see
client091.py) tells it what becomes of the connection:

    opened()  the login was accepted      lost(why)  it is gone, or never came to be
"""

from ..broker.queue import text
from ..compat import const, ticks_diff
from ..errors import AMQPError
from ..log import log
from ..net.backoff import BackOff
from .downlink import Downlink
from .home import alias as make_alias
from .uplink import Uplink

_STEADY_MS = const(30000)  # a connection that lasted so long was a good one
_BURST_MS = const(250)  # of a drain limit, that may go at once


def _nothing():
    pass


class Upstream:
    """
    settings  a row of `bridges` of the configuration
    device    the name of this broker
    boots     see uplink.py
    """

    def __init__(self, broker, settings, device, boots):
        self._broker = broker
        self.name = settings["name"]
        port = 5671 if settings["tls"] else 5672
        self._hosts = [_place(text, port) for text in settings["hosts"]]
        self._turn = 0  # whose it is
        self.timeout_ms = settings["timeout"] * 1000
        self._confirm_ms = settings["confirm_timeout"] * 1000
        self._back_off = BackOff(settings["retry_max"] * 1000)
        self.retry_max_ms = settings["retry_max"] * 1000
        self._messages = Limit(settings["messages_per_s"], True)
        self._octets = Limit(settings["octets_per_s"], False)
        self._limited = False  # somebody waits for one of the two
        self.wanted = False  # an uplink may have something to send
        self.look = _nothing  # called when something will be due before the next tick
        self.blocked = False  # upstream takes no messages now
        self.connected = False
        self._opened_at = 0  # ticks
        self._steady = False  # this connection lasted so long that it is a good one
        self.connects = 0
        self.last_error = ""
        alias = b"amq.upstream." + self.name.encode()
        self.uplinks = [Uplink(broker, self, row, device, boots) for row in settings["uplinks"]]
        self.downlinks = [
            Downlink(broker, row, device, alias + b".") for row in settings["downlinks"]
        ]
        if self.downlinks:
            self.uplinks.append(self._replies(alias, device, boots))
        self.uplinks.sort(key=lambda uplink: -uplink.priority)

    def _replies(self, alias, device, boots):
        """The uplink of answers to what came down: see home.py."""
        try:
            make_alias(self._broker, alias)
        except AMQPError as error:
            log.error("upstream %s: no answers to what comes down: %s", self.name, error.text)
        row = {
            "queue": str(alias, "utf-8"), "exchange": "", "routing_key": "{routing_key}",
            "skip": len(alias) + 1, "headers": {}, "window": 16, "live": 0, "priority": 1,
            # Whoever asked may not wait any more, and RabbitMQ takes its own reply addresses for
            # no queue: nobody is told.
            "mandatory": False, "retries": 0, "refused": "drop", "max_hops": 255,
            "declare": "none",
        }  # fmt: skip
        return Uplink(self._broker, self, row, device, boots)

    # --- the connection ---

    def next_call(self, now):
        """ms until it is time to connect."""
        return self._back_off.left(now)

    def dial(self, caller):
        """Connect to the host whose turn it is."""
        caller.call(*self._hosts[self._turn], self._broker.now)

    def opened(self):
        self.connected = True
        self.blocked = False
        self.connects += 1
        self.last_error = ""
        self._opened_at = self._broker.now
        self._steady = False
        log.info("upstream %s: connected to %s", self.name, self._host())

    def lost(self, why):
        self.last_error = why
        place = self._turn
        was_connected = self.connected
        self.connected = self.blocked = False
        if not was_connected:
            # Another host may be better; after the last one there is a pause.
            self._turn = (self._turn + 1) % len(self._hosts)
        if was_connected or not self._turn:
            self._back_off.failed(self._broker.now)
        try:
            log.warning("upstream %s: %s:%d: %s", self.name, *self._hosts[place], why)
        except MemoryError:
            pass  # that may be the reason

    def _host(self):
        return "%s:%d" % self._hosts[self._turn]

    # --- sending ---

    def pump(self):
        """Let the uplinks send, in turns whose length doubles with each step of priority."""
        if not self.wanted or self.blocked:
            return
        self.wanted = False
        more = True
        while more:
            more = False
            for uplink in self.uplinks:
                if uplink.dispatch():
                    more = True

    def may_send(self, live):
        """Whether the drain limits allow another message now; what waits makes way for *live*."""
        if self.blocked:
            return False
        now = self._broker.now
        if self._messages.allows(now, live) and self._octets.allows(now, live):
            return True
        self._limited = True
        return False

    def spend(self, octets):
        """A message of *octets* was sent."""
        self._messages.spend(1)
        self._octets.spend(octets)

    # --- time ---

    def tick(self, now):
        """Look after what is due while connected: ms to the next look, and why to hang up."""
        wait = 1000
        overdue = None
        if not self._steady and ticks_diff(now, self._opened_at) >= _STEADY_MS:
            self._steady = True
            self._back_off.worked()
        for uplink in self.uplinks:
            wait = min(wait, uplink.tick(now))
            if uplink.overdue(now, self._confirm_ms):
                overdue = "no confirm for %d s" % (self._confirm_ms // 1000)
        for downlink in self.downlinks:
            wait = min(wait, downlink.tick(now))
        if self._limited:
            if self._messages.allows(now, False) and self._octets.allows(now, False):
                self._limited = False
                self.wanted = True
            wait = min(wait, 20)
        return wait, overdue

    def status(self, state):
        """What goes on, as a dict that json can print. state: of the caller."""
        if self.connected:
            state = "blocked" if self.blocked else "connected"
        elif state == "idle" and self._back_off.failures:
            state = "waiting"
        elif state == "open":
            state = "login"
        return {
            "state": state,
            "host": self._host(),
            "connects": self.connects,
            "retries": self._back_off.failures,
            "retry_in_ms": self._back_off.left(self._broker.now),
            "last_error": self.last_error,
            "uplinks": {text(link.queue_name): link.status() for link in self.uplinks},
            "downlinks": {text(link.queue_name): link.status() for link in self.downlinks},
        }


class Limit:
    """So many a second, with a burst of a quarter of it.

    whole  a part of one does not do
    """

    def __init__(self, rate, whole):
        self._rate = rate  # 0: no limit
        self._burst = max(rate * _BURST_MS, 1000)
        self._left = self._burst  # thousandths
        self._least = 1000 if whole else 1
        self._at = 0  # ticks

    def allows(self, now, ahead):
        """Whether one may go; *ahead*: one that borrows from those behind it."""
        if not self._rate:
            return True
        passed = ticks_diff(now, self._at)
        if passed:
            self._at = now
            if passed < 0 or passed > 10000:
                passed = 10000
            self._left = min(self._left + passed * self._rate, self._burst)
        return self._left >= self._least - (self._burst if ahead else 0)

    def spend(self, n):
        """May go below zero: what was too large for the rest is paid for later."""
        if self._rate:
            self._left -= 1000 * n


def _place(host, port):
    """(host, port) of "host" or "host:port"."""
    name, _, number = host.rpartition(":")
    if name and number.isdigit() and not (":" in name and not name.startswith("[")):
        return name.strip("[]"), int(number)
    return host.strip("[]"), port
