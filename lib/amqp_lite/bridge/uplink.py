"""What goes upstream from one queue, and what becomes of it. Knows no protocol.

A message that was sent is in flight until upstream answers. Confirmed: it is settled here.
Returned or nacked: it waits and is sent again, while others go on; after some attempts it is
parked, dead-lettered or dropped. When the connection or the channel ends, all that is not settled
goes back to its place in the queue, and is sent again in order.

The protocol's half is a *link*, while there is one:

    fits(message, more)    whether a message, and *more* octets with it, can be begun now
    read(message)          look into it, before send(): the number of bridges it came through;
                           -1: it began here and came back
    send(flight)           False: it can be sent never, it or its address is too long. Else its
                           `tag` is what upstream will call it
    settled(flight)        upstream has answered
    is_sending()           some of what was sent is not on the wire yet
    restart()              open the channel anew
"""

from ..broker.delivery import EntryList
from ..broker.queue import text
from ..broker.table import Table
from ..compat import const, copy, equal, ticks_add, ticks_diff
from ..errors import AMQPError, NotFound
from ..net.backoff import jitter
from .home import is_stored, mark_all_but, republish
from .template import Template

_HOPELESS = const(-1)  # a tag
_RETRY_MS = const(1000)  # before the second attempt; twice as long before each further one
_RETRY_MOST_MS = const(60000)
_TURN = const(8)  # messages an uplink of priority 0 sends in its turn
_HEX = b"0123456789abcdef"
COUNTERS = (
    "sent", "settled", "resent", "returned", "nacked", "parked", "dead_lettered",
    "dropped_refused", "dropped_looped",
)  # fmt: skip


class Flight:
    """A message on its way: in flight, or waiting for its next attempt."""

    __slots__ = ("next", "prev", "entry", "tag", "attempts", "due", "returned", "alone")

    def __init__(self):
        self.next = None
        self.prev = None
        self.entry = None
        self.tag = 0
        self.attempts = 0  # that failed
        self.due = 0  # ticks
        self.returned = False  # upstream sent it back: its confirm means nothing
        self.alone = False  # it may have closed the channel: sent when nothing else is


class Uplink:
    """
    settings   a row of `uplinks` of the configuration
    device     the name of this broker
    boots      (octets for messages of the store, for others) between device and sequence in ids
    """

    def __init__(self, broker, upstream, settings, device, boots):
        self._broker = broker
        self.upstream = upstream
        self.queue_name = settings["queue"].encode()
        self.exchange = Template(settings["exchange"], device)
        self.routing_key = Template(settings["routing_key"], device, settings.get("skip", 0))
        self.headers = [
            (name.encode(), Template(value, device)) for name, value in settings["headers"].items()
        ]
        self.device = device.encode()
        templates = [self.exchange, self.routing_key] + [value for _, value in self.headers]
        self._names = sum([template.names for template in templates])
        self._fixed = sum([template.fixed for template in templates]) + 3 * len(self.device) + 160
        self._fixed += sum([len(name) + 7 for name, _ in self.headers])
        self.mandatory = settings["mandatory"]
        self.max_hops = settings["max_hops"]
        self.declare = settings["declare"]
        self.priority = settings["priority"]
        self.turn = _TURN << min(self.priority, 8)
        self._window = settings["window"]
        self._live = min((self._window * settings["live"] + 99) // 100, self._window - 1)
        self._retries = settings["retries"]
        self._refused = settings["refused"]
        self._last_address = None  # where refused ones go: exchange and routing key, or their own
        if self._refused == "park":
            self._last_address = _address(b"", self.queue_name + b".parked")
        elif self._refused == "dead-letter":
            self._last_exchange = settings["dead_letter_exchange"].encode()
            key = settings["dead_letter_routing_key"].encode()
            if key:
                self._last_address = _address(self._last_exchange, key)
        self._ids = [self.device + b":" + boot + b":" for boot in boots]
        self._scratch = bytearray(len(self._ids[0]) + 12)  # for an id
        waiting = max(1, self._window // 2)
        self._most_waiting = waiting
        self._flights = Table(Flight, self._window + waiting + self._live, "message in flight")
        self.in_flight = EntryList()
        self._waiting = EntryList()  # for the next attempt
        self._queued = EntryList()  # live ones, for our turn
        self.link = None
        self.consumer = None
        self._left = 0  # messages of this turn
        self._careful = 0  # so many are sent one by one, to see whose fault it is
        self._alone = False  # one of these is in flight
        self._answered_at = 0  # ticks, the last sign that upstream confirms
        self._settled_at = -1  # ticks
        self.last_error = ""
        for name in COUNTERS:
            setattr(self, name, 0)
        if self._refused == "park":
            self._make_parking()

    # --- the link comes and goes ---

    def opened(self, link):
        """The channel is there, and what we publish to exists."""
        self.link = link
        self.last_error = ""
        self._answered_at = self._broker.now
        self.subscribe()
        self.upstream.wanted = True

    def subscribe(self):
        """Consume the queue from now on, whether or not upstream is there: it is ours to empty."""
        if self.consumer is not None:
            return
        queue = self._broker.queues.get(self.queue_name)
        try:
            if queue is None:
                raise NotFound("no queue '%s' here" % text(self.queue_name))
            self.consumer = queue.subscribe(self, b"uplink", False, False, self._flights.size)
        except AMQPError as error:
            self.last_error = error.text
            return
        queue.set_live(self.consumer, self._live)
        if self.link is not None:
            self.last_error = ""  # that there was no queue
        self.upstream.wanted = True

    def cancelled(self, consumer):
        """The queue was deleted; what is under way dies when it is settled."""
        self.consumer = None
        for flights in (self.in_flight, self._waiting, self._queued):
            flight = flights.head
            while flight is not None:
                flight.entry.consumer = None
                flight = flight.next

    def closed(self):
        """The connection is gone: what is not settled goes back to the queue."""
        self.link = None
        self.resent += self.in_flight.count
        self._alone = False
        self._give_back(self._queued)
        self._give_back(self.in_flight)

    def channel_failed(self, why, by_message):
        """Upstream closed the channel, or the connection for what it got.

        by_message  whether one of the messages in flight may be the reason
        """
        self.last_error = why
        if by_message:
            if self.in_flight.count == 1:
                flight = self.in_flight.head
                self.in_flight.remove(flight)
                flight.alone = True
                self._fail(flight)
            else:
                self._careful = max(self._careful, self.in_flight.count)
        self.closed()

    def _give_back(self, flights):
        while flights.tail is not None:
            flight = flights.tail
            flights.remove(flight)
            entry = flight.entry
            self._end(flight)
            entry.queue.requeue(entry, False)

    # --- sending: the sink of a consumer ---

    def dispatch(self):
        """Send what may be sent in this turn: whether there was something."""
        if self.link is None or self._alone:
            return False
        before = self.sent
        self._left = self.turn
        self._send_again()
        self._send_queued()
        if self._left and self.consumer is not None:
            self.consumer.queue.dispatch()
        self._left = 0
        return self.sent != before

    def accepts(self, consumer, message):
        if not self._flights.free:
            return False
        if self._left:
            return self._may_send(message, self._window - self._live, False)
        self.upstream.wanted = True
        # A live one is taken at once, and sent in our turn.
        return (
            self._queued.count < self._live
            and self.link is not None
            and not self._careful
            and self.in_flight.count + self._queued.count < self._window
            and self.upstream.may_send(True)
        )

    def _may_send(self, message, window, live):
        if self._alone or self.in_flight.count >= window:
            return False
        if self._careful and self.in_flight.count:
            return False
        if not self.upstream.may_send(live):
            return False
        return self.link.fits(message, self.more(message))

    def more(self, message):
        """Octets that go with *message*, at most: names, headers, its id."""
        return self._fixed + self._names * message.head

    def deliver(self, consumer, entry):
        flight = self._flights.take()
        flight.entry = entry
        flight.attempts = 0
        flight.alone = False
        if self._left:
            self._send(flight)
        else:
            self._queued.append(flight)

    def _send(self, flight):
        """Send *flight*, which is in no list."""
        message = flight.entry.message
        hops = self.link.read(message)
        if hops < 0 or hops >= self.max_hops:
            self.dropped_looped += 1
            self._settle(flight)
            return
        flight.returned = False
        # What may come twice after a power cut, in flight or settled and not marked, is no more
        # than a window.
        mark_all_but(self._broker.store, self._window - 1 - self.in_flight.count)
        if not self.link.send(flight):
            self.last_error = "a message is too long for upstream, or its address is"
            # Given up in our next turn: this may be the middle of somebody's publish.
            flight.tag = _HOPELESS
            self._wait(flight, 0)
            return
        if not self.in_flight.count:
            self._answered_at = self._broker.now
        self.in_flight.append(flight)
        self._alone = flight.alone
        self.sent += 1
        self._left -= 1
        self.upstream.spend(message.head + message.properties + message.body)

    def _send_queued(self):
        while self._left and self._queued.count:
            flight = self._queued.head
            if not self._may_send(flight.entry.message, self._window, True):
                return
            self._queued.remove(flight)
            self._send(flight)

    def _send_again(self):
        """Messages that failed and are due; the others behind them do not wait for them."""
        flight = self._waiting.head
        while flight is not None and self._left:
            following = flight.next
            if ticks_diff(flight.due, self._broker.now) <= 0:
                if flight.tag == _HOPELESS:
                    self._waiting.remove(flight)
                    self._give_up(flight)
                elif flight.alone and self.in_flight.count:
                    self._left = 0  # until the others are confirmed
                elif self._may_send(flight.entry.message, self._window, False):
                    self._waiting.remove(flight)
                    self._send(flight)
                    if self._alone:
                        self._left = 0
            flight = following

    # --- what upstream says ---

    def confirmed(self, tag, multiple, refused):
        """Upstream has message *tag*, or all up to it; *refused*: it does not take them."""
        self._answered_at = self._broker.now
        flight = self.in_flight.head
        while flight is not None and (not multiple or flight.tag <= tag):
            following = flight.next
            if multiple or flight.tag == tag:
                self._answered(flight, refused)
                if not multiple:
                    break
            flight = following
        self.upstream.wanted = True

    def _answered(self, flight, refused):
        self.in_flight.remove(flight)
        self.link.settled(flight)
        self._alone = False
        if self._careful:
            self._careful -= 1
        if flight.returned:
            self.returned += 1
            self.last_error = "returned: upstream has no queue for it"
            self._fail(flight)
        elif refused:
            self.nacked += 1
            self.last_error = "nacked by upstream"
            self._fail(flight)
        else:
            self.settled += 1
            self._settled_at = self._broker.now
            self._settle(flight)

    def find(self, buf, i, n):
        """The flight whose id is the *n* octets of *buf* from *i*; None: there is none."""
        scratch = self._scratch
        if n > len(scratch):
            return None
        flight = self.in_flight.head
        while flight is not None:
            end = self.write_id(flight.entry, scratch, 0)
            if end == n and equal(buf, i, scratch, n):
                return flight
            flight = flight.next
        return None

    def unknown_return(self):
        """Upstream returned a message that cannot be told from others: they go one by one."""
        if self.in_flight.count == 1:
            self.in_flight.head.returned = True
            self.in_flight.head.alone = True
            return
        self._careful = max(self._careful, self.in_flight.count)
        self.link.restart()
        self.closed()

    def _fail(self, flight):
        flight.attempts += 1
        if flight.attempts > self._retries:
            self._give_up(flight)
            return
        bound = min(_RETRY_MS << min(flight.attempts - 1, 6), _RETRY_MOST_MS)
        self._wait(flight, jitter(bound))
        if self._waiting.count > self._most_waiting:
            # Those who wait may not take the place of those who could be sent.
            oldest = self._waiting.head
            self._waiting.remove(oldest)
            self._give_up(oldest)

    def _wait(self, flight, ms):
        flight.due = ticks_add(self._broker.now, ms)
        self._waiting.append(flight)
        self.upstream.look()

    def _give_up(self, flight):
        """Park, dead-letter or drop the message of *flight*, which is in no list."""
        if self._refused == "drop":
            self.dropped_refused += 1
        elif not self._republish(flight.entry):
            # It is kept, and tried upstream again.
            self.last_error = "nobody here takes what upstream refuses"
            flight.tag = 0
            self._wait(flight, _RETRY_MOST_MS)
            return
        elif self._refused == "park":
            self.parked += 1
        else:
            self.dead_lettered += 1
        self._settle(flight)

    def _make_parking(self):
        """The queue for what is parked; somebody may have deleted it."""
        name = self.queue_name + b".parked"
        if name not in self._broker.queues:
            try:
                self._broker.own_queue(name, True)
            except AMQPError as error:
                self.last_error = "%s: %s" % (text(name), error.text)

    def _republish(self, entry):
        """Publish the message of *entry* where refused ones go. False: nobody has it."""
        message = entry.message
        address = self._last_address
        try:
            if self._refused == "park":
                self._make_parking()
            if address is None:
                head = bytearray(message.head)
                self._broker.pool.read_at(message, 0, message.head, head, 0)
                address = _address(self._last_exchange, bytes(head[2 + head[0] :]))
            return republish(self._broker, entry, address, 0, len(address)) > 0
        except AMQPError as error:
            self.last_error = error.text
            return False

    def _settle(self, flight):
        entry = flight.entry
        self._end(flight)
        entry.queue.settle(entry)

    def _end(self, flight):
        flight.entry = None
        self._flights.give(flight)

    # --- time ---

    def tick(self, now):
        """Look after what is due: ms to the next look."""
        self.subscribe()
        if self._refused == "park":
            self._make_parking()
        wait = 1000
        flight = self._waiting.head
        while flight is not None:
            left = ticks_diff(flight.due, now)
            if left <= 0:
                self.upstream.wanted = True
            else:
                wait = min(wait, left)
            flight = flight.next
        return wait

    def overdue(self, now, patience_ms):
        """Whether upstream owes a confirm and has said nothing for so long."""
        if self.upstream.blocked or self.link is None or self.link.is_sending():
            self._answered_at = now
        return self.in_flight.count and ticks_diff(now, self._answered_at) > patience_ms

    # --- names ---

    def write_id(self, entry, to, at):
        """Write the id of *entry*'s message to *to* at *at*: the index behind it.

        `device:boot:sequence`. In the store, a message's place is its sequence: it stays the same
        over restarts, and boot tells one ring from another.
        """
        stored = is_stored(self._broker.store, entry)
        prefix = self._ids[0 if stored else 1]
        copy(to, at, prefix, 0, len(prefix))
        at += len(prefix)
        if stored:
            at = _write_hex(entry.order, 8, to, at)
            return _write_hex(entry.position, 4, to, at)
        # In a durable queue transient messages are counted by their share.
        position = entry.share & 0x3FFFFFFF if entry.order else entry.position
        at = _write_hex(entry.queue.serial, 4, to, at)
        return _write_hex(position, 8, to, at)

    def status(self):
        """What goes on, as a dict that json can print."""
        now = self._broker.now
        queue = self._broker.queues.get(self.queue_name)
        row = {name: getattr(self, name) for name in COUNTERS}
        row["state"] = "open" if self.link is not None else "closed"
        row["backlog"] = queue.waiting() if queue is not None else 0
        row["in_flight"] = self.in_flight.count
        row["waiting"] = self._waiting.count
        ago = None if self._settled_at < 0 else max(ticks_diff(now, self._settled_at), 0)
        row["settled_ms_ago"] = ago
        row["last_error"] = self.last_error
        return row


def _address(exchange, routing_key):
    """Both names as short strings."""
    return bytes((len(exchange),)) + exchange + bytes((len(routing_key),)) + routing_key


def _write_hex(value, digits, to, at):
    for k in range(digits):
        to[at + k] = _HEX[value >> 4 * (digits - 1 - k) & 15]
    return at + digits
