"""What comes from one queue upstream, and where it goes here. Knows no protocol.

A message is acknowledged upstream when the store has committed it. One that finds no room here
goes back, and all behind it with it, so that they come again in order: nothing waits inside of the
connection, which has the uplinks' confirms to carry.

The protocol's half is a *link*, while there is one:

    accept(tag)    all up to *tag* that were not answered otherwise are safe here
    reject(tag)    this one is not wanted: upstream drops or dead-letters it
    release(tag)   all up to *tag* that were not answered come again
"""

from ..compat import const, ticks_add, ticks_diff
from .template import Template

_HOLD_MS = const(500)  # before what found no room comes again; twice as long each time
_HOLD_MOST_MS = const(60000)
_AGAIN_MS = const(2000)  # what we gave back comes by then, before anything else

COUNTERS = ("received", "stored", "rejected", "unroutable", "requeued")


class Downlink:
    """
    settings  a row of `downlinks` of the configuration
    device    the name of this broker
    reply_to  octets before the reply address of a message from there, see home.alias()
    """

    def __init__(self, broker, settings, device, reply_to):
        self._broker = broker
        self.queue_name = Template(settings["queue"], device).constant
        self.exchange = Template(settings["exchange"], device)
        self.routing_key = Template(settings["routing_key"], device)
        self.prefetch = settings["prefetch"]
        self.declare = settings["declare"]
        self.bindings = [
            (
                Template(row["exchange"], device).constant,
                Template(row["routing_key"], device).constant,
            )
            for row in settings["bindings"]
        ]
        self.reply_to = reply_to
        self.link = None
        self.last_error = ""
        for name in COUNTERS:
            setattr(self, name, 0)

    def opened(self, link):
        """Messages come from now on."""
        self.link = link
        self.last_error = ""
        self._taken = 0  # the last tag that went to its queues
        self._accepted = 0  # the last one upstream was told of
        self._held = 0  # the last one that found no room; the one before has to be accepted first
        self._due = 0  # ticks, when those come again
        self._hold_ms = _HOLD_MS
        self._gave_back = False  # and nothing of it has come again
        self._again_by = 0  # ticks
        self._failures = self._broker.failures

    def closed(self, why=""):
        """The channel or the connection is gone; upstream sends again what it was not told of."""
        self.link = None
        if why:
            self.last_error = why

    def passes_over(self, tag, again):
        """Whether message *tag* has to come again, behind one that found no room.

        again  it was delivered before
        """
        if self._held:
            self.hold(tag, self.last_error)
            return True
        if self._gave_back:
            if again or ticks_diff(self._broker.now, self._again_by) >= 0:
                self._gave_back = False
            else:
                self.hold(tag, self.last_error)  # it crossed those we gave back
                return True
        return False

    def arrived(self, tag, queues):
        """Message *tag* was published here, to so many queues; -1: one refused it."""
        self.received += 1
        if queues > 0 and self._held:
            self.hold(tag, self.last_error)
        elif queues > 0:
            self._taken = tag
            self.stored += 1
            self._hold_ms = _HOLD_MS
        elif queues == 0:
            self.unroutable += 1
            self.last_error = "no queue here takes what came"
            self.link.reject(tag)
        else:
            self.hold(tag, "a queue here refused what came")

    def hold(self, tag, why):
        """Message *tag* found no room."""
        if not self._held:
            self._due = ticks_add(self._broker.now, self._hold_ms)
            self._hold_ms = min(2 * self._hold_ms, _HOLD_MOST_MS)
            self.last_error = why
        self._held = tag
        self.requeued += 1

    def unreadable(self, tag, why):
        """Message *tag* is nothing we can take, now or later."""
        self.received += 1
        self.rejected += 1
        self.last_error = why
        self.link.reject(tag)

    def pump(self):
        """Answer what the store has made safe."""
        broker = self._broker
        if self._failures != broker.failures:
            # What was not committed by then is lost here.
            self._failures = broker.failures
            if self._taken != self._accepted:
                self.requeued += 1
                self.last_error = "the store failed"
                self._held = max(self._held, self._taken)
                self._taken = self._accepted
                self._due = ticks_add(broker.now, _HOLD_MS)
        if self._taken != self._accepted and broker.committed:
            self._accepted = self._taken
            self.link.accept(self._taken)
        if self._held and self._taken == self._accepted:
            if ticks_diff(self._due, broker.now) <= 0:
                self.link.release(self._held)
                self._held = 0
                self._gave_back = True
                self._again_by = ticks_add(broker.now, _AGAIN_MS)

    def tick(self, now):
        """ms to the next look."""
        return max(ticks_diff(self._due, now), 1) if self.link is not None and self._held else 1000

    def status(self):
        """What goes on, as a dict that json can print."""
        row = {name: getattr(self, name) for name in COUNTERS}
        row["state"] = "open" if self.link is not None else "closed"
        row["last_error"] = self.last_error
        return row
