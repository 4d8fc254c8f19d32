"""One AMQP 1.0 session (AMQP 1.0 §2.5): its windows, its links, and deliveries not settled."""

import struct

from ..broker.delivery import EntryList
from ..compat import const, load
from ..errors import AMQPError, ResourceLimitExceeded, SyntaxFailure
from .conditions import STOLEN, ConditionError, FramingError, InvalidField, NotAllowedNow
from .incoming import Incoming
from .link import COORDINATION, Link
from .outgoing import Outgoing
from .performatives import (
    ACCEPTED,
    BEGIN,
    DETACH,
    DISPOSITION,
    END,
    FLOW,
    MODIFIED,
    RECEIVED,
    REJECTED,
    RELEASED,
    TRANSACTIONAL_STATE,
    described,
    described_value,
    error_value,
    uint,
)
from .values import Typed, read_value

WINDOW = const(2048)  # transfers the peer may send before our next flow
_SERIAL = const(0x3FFFFFFF)  # what a board's numbers hold of a serial one; they wrap at 2**32
_OURS = const(0x3FFFFFFF)  # our outgoing-window: credit limits us, not this

# Fields of begin and flow:
_REMOTE_CHANNEL = const(0)
_NEXT_OUTGOING = const(1)
_INCOMING_WINDOW = const(2)
_FLOW_NEXT_INCOMING = const(0)
_FLOW_INCOMING_WINDOW = const(1)
_FLOW_NEXT_OUTGOING = const(2)
_FLOW_HANDLE = const(4)
_FLOW_ECHO = const(9)
# Of attach, detach and disposition:
_NAME = const(0)
_HANDLE = const(1)
_TO_PEER = const(2)
_SND_SETTLE = const(3)
_RCV_SETTLE = const(4)
_ID = const(1)  # of transfer
_DETACHED = const(0)
_CLOSED = const(1)
_ROLE = const(0)
_FIRST = const(1)
_LAST = const(2)
_SETTLED = const(3)
_STATE = const(4)
_FAILED = const(0)
_UNDELIVERABLE = const(1)
_TX_OUTCOME = const(1)

_ROWS = const(64)  # of `_accepted`, that more credit is given with

_ACCEPTED = b"\x00\x53\x24\x45"


class Session:
    """
    connection  whose it is
    channel     its number, the same in both directions
    """

    def __init__(self, connection, channel):
        self.connection = connection
        self.channel = channel
        self.closing = False  # we sent an end: all but the peer's is ignored
        self.next_incoming = 0  # transfer-id: its lower 30 bits, and its upper 2
        self.next_incoming_top = 0
        self._incoming_window = WINDOW
        self.next_outgoing = 0  # likewise
        self.next_outgoing_top = 0
        self._outgoing_window = 0  # transfers we may send
        self.links = {}  # by handle
        self.unsettled = EntryList()  # deliveries the peer has; their `tag` is the delivery-id
        self.next_id = 0  # delivery-id of the next one, likewise in two parts
        self.next_id_top = 0
        # Deliveries of the peer that no queue refused and the store may not have yet: [first, top
        # of it, last, top of it, messages], one after the other; and such lists to be used again.
        self._accepted = []
        self._spare = []
        self.due_id = -1  # delivery-id of the peer's next one, lower 30 bits; -1: any
        self._failures = connection.broker.failures
        self._owed = False  # the peer wants to hear how things are
        self._work = None  # the transaction that the disposition being read is of

    def begin(self, fields):
        """The peer's begin: answer it. Raises InvalidField when it answers one of ours."""
        if fields.has(_REMOTE_CHANNEL):
            raise InvalidField("a begin that answers none of ours")
        self._note_incoming(fields, _NEXT_OUTGOING)
        self._outgoing_window = fields.uint(_INCOMING_WINDOW, 0)
        self.send(
            described(
                BEGIN,
                Typed(0x60, self.channel),
                uint(0),
                uint(WINDOW),
                uint(_OURS),
                uint(self.connection.handle_max),
            )  # fmt: skip
        )

    def end(self, error=None):
        """Say that it has ended, because of *error* when there is one."""
        self.release()
        self.send(described(END, error and error_value(error)))

    def release(self):
        """Its links end, and what the peer had of them goes back to its queues."""
        self.mute()
        for handle in list(self.links):
            self._drop(self.links.pop(handle))
        while self.unsettled.tail is not None:  # of a queue that is gone
            self._take_back(self.unsettled.tail, True)
        self._accepted.clear()

    def mute(self):
        """It is about to end: what one link gives back is not for another."""
        self._outgoing_window = 0

    def send(self, performative):
        self.connection.send(self.channel, performative)

    def pump(self):
        """Write what waited for a commit, or for nothing more to wait."""
        broker = self.connection.broker
        if self._accepted and (broker.committed or broker.failures != self._failures):
            self._tell_accepted()
        for handle in self.links:
            link = self.links[handle]
            if not link.closing:
                link.pump()
        if self._owed:
            self._owed = False
            self.flow()

    # --- links ---

    def attach(self, fields):
        """The peer's attach. Raises ConditionError, ResourceLimitExceeded."""
        handle = fields.uint(_HANDLE, 0)
        most = self.connection.handle_max
        if handle > most:
            raise FramingError("handle %d, handle-max is %d" % (handle, most))
        if handle in self.links:
            raise ConditionError("amqp:session:handle-in-use", "handle %d is attached" % handle)
        name = fields.text(_NAME)
        to_peer = fields.boolean(_TO_PEER)
        connection = self.connection
        connection.steal(name, to_peer)
        if connection.links() >= connection.links_most:
            link = self.links[handle] = Link(self, handle, name, to_peer)  # small
            most = "more than %d links of one connection" % connection.links_most
            link.refuse(fields, ResourceLimitExceeded(most))
            return
        link = (Outgoing if to_peer else Incoming)(self, handle, name)
        self.links[handle] = link
        try:
            if fields.uint(_SND_SETTLE, 0) > 2 or fields.uint(_RCV_SETTLE, 0) > 1:
                raise InvalidField("a settle mode that does not exist")
            self.attach_link(link, fields)
        except (SyntaxFailure, FramingError):
            raise
        except AMQPError as error:
            self._drop(link)
            link.refuse(fields, error)

    def attach_link(self, link, fields):
        link.attach(fields)

    def link(self, handle):
        """The link of *handle*. Raises ConditionError."""
        found = self.links.get(handle)
        if found is None:
            raise ConditionError(
                "amqp:session:unattached-handle", "handle %d is not attached" % handle
            )
        return found

    def on_detach(self, fields):
        """The peer's detach: one that is not answered yet."""
        handle = fields.uint(_DETACHED, 0)
        link = self.link(handle)
        del self.links[handle]
        if not link.closing:
            self._drop(link)
            if fields.boolean(_CLOSED):
                link.closed()
            self.send(described(DETACH, uint(handle), fields.boolean(_CLOSED) or None))

    def cancel(self, link, error):
        """End *link* for *error*; its handle is free when the peer has answered."""
        if not link.closing:
            self._drop(link)
            link.closing = True
            self.send(described(DETACH, uint(link.handle), True, error_value(error)))

    def steal(self, name, to_peer):
        """Another link of this name was attached: ours has to go. AMQP 1.0 §2.6.1."""
        for handle in self.links:
            link = self.links[handle]
            if link.name == name and link.to_peer == to_peer:
                error = ConditionError(STOLEN, "another link of the same name was attached")
                self.cancel(link, error)

    def _drop(self, link):
        """*link* has ended: what the peer had of it goes back to its queue."""
        consumer = link.consumer
        entry = self.unsettled.tail if consumer is not None else None
        queue = None
        while entry is not None:
            # From the last to the first, so that each finds its place at the queue's head.
            before = entry.prev
            if entry.consumer is consumer:
                queue = entry.queue
                self._finish(entry, link.default_outcome or MODIFIED)
            entry = before
        link.release()
        if queue is not None and not queue.deleted:
            queue.dispatch()

    # --- windows, AMQP 1.0 §2.5.6 ---

    def _note_incoming(self, fields, k):
        self.next_incoming = fields.serial(k)
        self.next_incoming_top = fields.serial_top(k)

    def on_flow(self, fields):
        """The peer's flow, for a link or for the session alone. Raises ConditionError."""
        self._note_incoming(fields, _FLOW_NEXT_OUTGOING)
        window = fields.uint(_FLOW_INCOMING_WINDOW, 0)
        # Before it saw our begin it counts from nothing.
        seen = fields.serial(_FLOW_NEXT_INCOMING) if fields.has(_FLOW_NEXT_INCOMING) else 0
        under_way = self.next_outgoing - seen & _SERIAL
        was_open = self.may_send()
        self._outgoing_window = max(0, window - under_way)
        if fields.has(_FLOW_HANDLE):
            link = self.link(fields.uint(_FLOW_HANDLE, 0))
            if not link.closing:
                link.on_flow(fields)
            if was_open:
                return
        else:
            self._owed = self._owed or fields.boolean(_FLOW_ECHO)
        self.dispatch()

    def grant(self, link):
        """Give *link* its credit anew, now or when there is room for saying so."""
        link.owed = not self.connection.output.grant(
            self, link.handle, link.count, link.count_top, link.credit
        )

    def dispatch(self):
        """There is room again: let the queues deliver."""
        for handle in self.links:
            consumer = self.links[handle].consumer
            if consumer is not None:
                consumer.queue.dispatch()

    def flow(self, *of_link):
        """Tell our windows, the incoming one wide open; *of_link*: fields, the handle first."""
        self.send(
            described(
                FLOW,
                _serial(self.next_incoming, self.next_incoming_top),
                uint(self.open_window()),
                _serial(self.next_outgoing, self.next_outgoing_top),
                uint(_OURS),
                *of_link,
            )  # fmt: skip
        )

    def open_window(self):
        """The peer may send as many transfers as at first: how many."""
        self._incoming_window = WINDOW
        return WINDOW

    def received(self):
        """A transfer came. Raises ConditionError when the window was closed."""
        if not self._incoming_window:
            raise _too_many()
        self._incoming_window -= 1
        self.next_incoming = low = self.next_incoming + 1 & _SERIAL
        if not low:
            self.next_incoming_top = self.next_incoming_top + 1 & 3
        if self._incoming_window < WINDOW // 2:
            self.flow()

    def may_send(self):
        """Whether the peer's window takes one more transfer."""
        return self._outgoing_window > 0

    def sent(self):
        """One more transfer was written."""
        self._outgoing_window -= 1
        self.next_outgoing = low = self.next_outgoing + 1 & _SERIAL
        if not low:
            self.next_outgoing_top = self.next_outgoing_top + 1 & 3

    # --- deliveries of the peer ---

    def on_transfer(self, fields, buf, i, end, more):
        """A transfer, see Incoming.on_transfer(). False: no memory for it now."""
        link = self.link(fields.uint(_DETACHED, 0))
        if not self._incoming_window:
            raise _too_many()
        if not link.closing:
            if link.to_peer:
                raise NotAllowedNow("a transfer on a link that the peer receives from")
            try:
                if not link.on_transfer(fields, buf, i, end, more):
                    return False
            except (NotAllowedNow, InvalidField, SyntaxFailure):
                raise
            except AMQPError as error:
                self.cancel(link, error)
        if fields.has(_ID):
            number = fields.serial(_ID)
            if self.due_id < 0 or number == self.due_id:
                self.due_id = number + 1 & _SERIAL
        self.received()
        return True

    def settle(self, low, top, state, messages=1):
        """Settle a delivery of the peer with *state* (octets); None: accepted, once stored.

        messages  how many of them that confirms
        """
        if state is not None:
            first = struct.pack(">BIBB", 0x70, top << 30 | low, 0x40, 0x41)
            head = struct.pack(">BBBBIIB", 0, 0x53, DISPOSITION, 0xD0, 12 + len(state), 5, 0x41)
            self.send(head + first + state)
            return
        if self._accepted:
            last = self._accepted[-1]
            if last[2] + 1 & _SERIAL == low:
                last[2] = low
                last[3] = top
                last[4] += messages
                return
        else:
            self._failures = self.connection.broker.failures  # what failed before is none of it
        row = self._spare.pop() if self._spare else [0, 0, 0, 0, 0]
        row[0] = row[2] = low
        row[1] = row[3] = top
        row[4] = messages
        self._accepted.append(row)

    def is_behind(self):
        """Whether so much waits for a commit that senders shall wait, too."""
        return len(self._accepted) >= _ROWS

    def _tell_accepted(self):
        broker = self.connection.broker
        output = self.connection.output
        state = _ACCEPTED
        if broker.failures != self._failures:
            state = described(REJECTED, error_value(ResourceLimitExceeded("the store failed")))
        while self._accepted:
            row = self._accepted[0]
            if not output.disposition(self.channel, row[0], row[1], row[2], row[3], state):
                return
            if state is _ACCEPTED:
                broker.metrics.confirmed += row[4]
            self._spare.append(self._accepted.pop(0))
        self._failures = broker.failures

    # --- deliveries to the peer ---

    def delivered(self):
        """The delivery-id was used."""
        self.next_id = low = self.next_id + 1 & _SERIAL
        if not low:
            self.next_id_top = self.next_id_top + 1 & 3

    def on_disposition(self, fields):
        """The peer's disposition. AMQP 1.0 §2.7.6."""
        if not fields.boolean(_ROLE):
            return  # of its own deliveries: they are settled as we said
        first = fields.serial(_FIRST)
        count = fields.serial(_LAST) - first & _SERIAL if fields.has(_LAST) else 0
        if count > _SERIAL >> 1:
            raise InvalidField("a disposition whose last is before its first")
        settled = fields.boolean(_SETTLED)
        self._work = None
        outcome = self._outcome(fields)
        if not outcome and not settled:
            return  # the state of one that goes on
        state = None if settled else self._echo(fields)
        queue = None
        others = None
        entry = self._last_of(first, count)
        while entry is not None and entry.tag - first & _SERIAL <= count:
            before = entry.prev  # backwards, see _drop()
            if queue is None:
                queue = entry.queue
            elif entry.queue is not queue:
                others = others or []
                if entry.queue not in others:
                    others.append(entry.queue)
            tag = entry.tag
            consumer = entry.consumer
            default = consumer.sink.default_outcome if consumer is not None else 0
            if self.connection.works and self._is_work(entry, outcome or default, settled):
                entry = before
                continue
            self._finish(entry, outcome or default)
            if not settled:
                self._tell_settled(tag, state)
            entry = before
        for other in others or ():
            if not other.deleted:
                other.dispatch()
        if queue is not None and not queue.deleted:
            queue.dispatch()

    def _last_of(self, first, count):
        """The last delivery that the peer has of *first* and *count* behind it; None: of none.

        Our table is walked, not the peer's range. It is in the order of the ids, and most peers
        settle what came first.
        """
        found = None
        entry = self.unsettled.head
        while entry is not None:
            behind = entry.tag - first & _SERIAL
            if behind <= count:
                found = entry
            elif behind <= _SERIAL >> 1:
                break
            entry = entry.next
        return found

    def _outcome(self, fields):
        """The descriptor of the outcome that a disposition says; 0 for none."""
        if not fields.has(_STATE):
            return 0
        state = self.connection.terminus
        buf = fields.buf
        at = fields.at[_STATE]
        if buf[at + 1] == 0x53 and buf[at + 2] == ACCEPTED and buf[at + 3] == 0x45:
            state.code = ACCEPTED
            return ACCEPTED  # the usual one needs no look at its fields
        state.scan(buf, at, len(buf))
        if state.code == TRANSACTIONAL_STATE:
            self._work = load(COORDINATION).work_in(self.connection, state)
            return self.outcome_at(state.buf, state.at[_TX_OUTCOME]) if state.has(1) else 0
        return self._outcome_of(state)

    def outcome_at(self, buf, i):
        """The same for the delivery state at *i*. Raises InvalidField for another list."""
        state = self.connection.terminus
        state.scan(buf, i, len(buf))
        return self._outcome_of(state)

    def _outcome_of(self, state):
        if state.code == RECEIVED:
            return 0
        if not ACCEPTED <= state.code <= MODIFIED:
            raise InvalidField("a disposition of state %s" % state.name())
        if state.code == MODIFIED:
            if state.boolean(_UNDELIVERABLE):
                return REJECTED
            return MODIFIED if state.boolean(_FAILED) else RELEASED
        return state.code

    # --- transactions, see coordinator.py ---

    def _is_work(self, entry, outcome, settled):
        """Whether a disposition of *entry* is part of a transaction; it knows then."""
        work = self._work
        if work is None:
            work = load(COORDINATION).acquirer(self, entry)
            if work is None:
                return False
        work.settle(self, entry, outcome, settled)
        return True

    def give_back(self, entry, settled):
        """The transaction in which *entry* was settled was rolled back."""
        if settled is False and entry.consumer is not None:
            from ..broker.transaction import insert_by_tag

            insert_by_tag(self.unsettled, entry)
            return
        entry.queue.requeue(entry)
        if settled is None:
            self.finished(entry.tag, 2)

    def finished(self, tag, outcome):
        """Settle what the peer did not; *outcome* is one of broker/transaction.py."""
        if not self.closing and self.connection.sessions.get(self.channel) is self:
            outcome = (ACCEPTED, REJECTED, RELEASED, MODIFIED)[outcome]
            self._tell_settled(tag, described_value(outcome))

    def release_one(self, tag):
        """Take back a delivery of a transaction that was rolled back: its queue, or None."""
        entry = self.unsettled.tail
        while entry is not None and entry.tag != tag:
            entry = entry.prev
        if entry is None:
            return None
        queue = entry.queue
        self._take_back(entry, True)
        self.finished(tag, 2)
        return queue

    def _finish(self, entry, outcome):
        metrics = self.connection.broker.metrics
        if outcome == RELEASED or outcome == MODIFIED:
            self._take_back(entry, outcome == MODIFIED)
            return
        self.unsettled.remove(entry)
        self.connection.output.prove(entry)
        if outcome == REJECTED:
            metrics.dropped_rejected += 1
        else:
            metrics.acknowledged += 1
        entry.queue.settle(entry)

    def _take_back(self, entry, counts):
        self.unsettled.remove(entry)
        self.connection.output.prove(entry)
        entry.queue.requeue(entry, counts)

    def _echo(self, fields):
        """The outcome that a disposition says, to be said again: what the peer asked for was done,
        and is no error."""
        if self.connection.terminus.code == REJECTED:
            return described_value(REJECTED)
        return read_value(fields.buf, fields.at[_STATE], True)[0]

    def _tell_settled(self, tag, state):
        """Settle, as its sender and with *state*, a delivery that the peer did not."""
        # Its upper bits are those of the ids given lately.
        top = self.next_id_top if tag < self.next_id else self.next_id_top - 1 & 3
        self.send(described(DISPOSITION, False, _serial(tag, top), None, True, state))


def _too_many():
    return ConditionError(
        "amqp:session:window-violation", "more transfers than the window of %d" % WINDOW
    )


def _serial(low, top):
    return Typed(0x70, top << 30 | low)
