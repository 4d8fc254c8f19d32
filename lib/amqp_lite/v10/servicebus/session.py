"""A session whose receivers lock messages: they are the peer's for a while, and come back then."""

from ...compat import const, ticks_add, ticks_diff
from ...errors import AMQPError, NotFound, NotImplementedHere
from ..conditions import InvalidField
from ..node import Answers, Requests
from ..performatives import (
    ACCEPTED,
    MODIFIED,
    REJECTED,
    SOURCE,
    TARGET,
    described_value,
    error_value,
)
from ..session import Session
from ..values import Described, Symbol, read_value
from .cbs import Cbs, path_of
from .conditions import LockLost
from .deferred import DEFERRED, defer
from .links import LOCK_MS, BusIncoming, BusOutgoing, find_queue, token_start
from .publish import REASONS, dead_letter

_MANAGEMENT = "/$management"
_SERIAL = const(0x3FFFFFFF)

# Fields of attach, of a source, of disposition and of error:
_SOURCE, _TARGET = const(5), const(6)
_ADDRESS = const(0)
_ROLE, _FIRST, _LAST, _SETTLED = const(0), const(1), const(2), const(3)
_INFO = const(2)
_UNDELIVERABLE = const(1)  # of modified


class BusSession(Session):
    """
    tag    octets of a lock token before the four of the delivery-id
    locks  what the peer holds: [entry, ticks until when] by delivery-id, its lower 30 bits
    """

    def __init__(self, connection, channel):
        Session.__init__(self, connection, channel)
        self.tag = token_start()
        self.locks = {}
        self._looked = connection.broker.now  # ticks

    # --- links ---

    def attach_link(self, link, fields):
        connection = self.connection
        if not link.to_peer:
            link.note_count(fields)
        code = SOURCE if link.to_peer else TARGET
        terminus = link._terminus(fields, _SOURCE if link.to_peer else _TARGET, code)
        is_place = terminus.code == code
        address = (terminus.text(_ADDRESS) if is_place else None) or ""
        path = None
        if address == "$cbs":
            make = Cbs
        elif connection.user is not None and not connection.tokens:
            link.attach(fields)
            return
        elif not is_place:
            raise NotImplementedHere("transactions of Service Bus")
        else:
            is_managed = address.endswith(_MANAGEMENT)
            path = path_of(address[: -len(_MANAGEMENT)] if is_managed else address)
            connection.user = connection.tokens.demand(path)
            if not path:
                raise NotFound("an empty address")
            make = None
            if is_managed:
                from .management import Entity

                name = find_queue(link, path).name

                def make(one):
                    return Entity(one, name)

        if make is None:
            one = (BusOutgoing if link.to_peer else BusIncoming)(link, path)
        elif link.to_peer:
            one = Answers(link, address)
        else:
            one = Requests(link, address, make)
        one.path = path
        one.attach(fields)
        self.links[link.handle] = one

    def expire(self, tokens):
        """End the links for which there is no token any more."""
        for handle in self.links:
            link = self.links[handle]
            path = getattr(link, "path", None)
            if path is not None and not link.closing:
                try:
                    tokens.demand(path)
                except AMQPError as error:
                    self.cancel(link, error)

    # --- locks ---

    def pump(self):
        Session.pump(self)
        now = self.connection.broker.now
        if not self.locks or ticks_diff(now, self._looked) < 1000:
            return
        self._looked = now
        queues = []
        for tag in list(self.locks):
            entry, until = self.locks[tag]
            if ticks_diff(now, until) >= 0:
                queue = entry.queue
                if queue not in queues:
                    queues.append(queue)
                self._take_back(entry, True)
        _dispatch(queues)

    def lock(self, entry):
        """The peer holds *entry*, whose tag is its delivery-id, for a while."""
        self.locks[entry.tag] = [entry, ticks_add(self.connection.broker.now, LOCK_MS)]

    def _finish(self, entry, outcome):
        self.locks.pop(entry.tag, None)
        Session._finish(self, entry, outcome)

    def _take_back(self, entry, counts):
        self.locks.pop(entry.tag, None)
        Session._take_back(self, entry, counts)

    def settle_lock(self, tag, outcome, reason=None, description=None):
        """Do what *outcome* asks for with what is locked. Raises AMQPError: it stays locked."""
        entry = self.locks[tag][0]
        broker = self.connection.broker
        if outcome == REJECTED:
            dead_letter(broker, entry, reason, description)
            outcome = ACCEPTED
        elif outcome == DEFERRED:
            defer(broker, entry)
            self.locks.pop(tag)
            self.unsettled.remove(entry)
            self.connection.output.prove(entry)
            return
        self._finish(entry, outcome)

    def on_disposition(self, fields):
        is_ours = fields.boolean(_ROLE)
        tags = []
        if is_ours:
            first = fields.serial(_FIRST)
            count = fields.serial(_LAST) - first & _SERIAL if fields.has(_LAST) else 0
            if count > _SERIAL >> 1:
                raise InvalidField("a disposition whose last is before its first")
            tags = [tag for tag in self.locks if tag - first & _SERIAL <= count]
        settled = fields.boolean(_SETTLED)
        if not tags:
            if is_ours and not count and not settled and self._had(first):
                if self._outcome(fields):
                    lost = LockLost("the lock of the message is lost")
                    self._tell_settled(first, described_value(REJECTED, error_value(lost)))
                return
            Session.on_disposition(self, fields)
            return
        self._work = None
        outcome = self._outcome(fields)
        if self._work is not None:
            raise NotImplementedHere("transactions of Service Bus")
        if not outcome and not settled:
            return
        state = None if settled else self._echo(fields)
        reason = description = None
        terminus = self.connection.terminus
        if outcome and terminus.code == MODIFIED:
            # Some abandon without saying that it failed.
            outcome = DEFERRED if terminus.boolean(_UNDELIVERABLE) else MODIFIED
        elif outcome == REJECTED:
            reason, description = _reasons(terminus)
        queues = []
        for tag in tags:
            queue = self.locks[tag][0].queue
            if queue not in queues:
                queues.append(queue)
            said = state
            try:
                self.settle_lock(tag, outcome, reason, description)
            except AMQPError as error:
                said = described_value(REJECTED, error_value(error))
            if not settled:
                self._tell_settled(tag, said)
        _dispatch(queues)

    def _had(self, tag):
        """Whether the peer got a delivery of this id and does not hold it any more."""
        entry = self.unsettled.tail
        while entry is not None and entry.tag != tag:
            entry = entry.prev
        return entry is None and self.next_id - 1 - tag & _SERIAL < _SERIAL >> 1


def _dispatch(queues):
    for queue in queues:
        if not queue.deleted:
            queue.dispatch()


def _reasons(rejected):
    """What a state says of REASONS; None where it says nothing."""
    if not rejected.has(0):
        return None, None
    error = read_value(rejected.buf, rejected.at[0])[0]
    row = error.value if isinstance(error, Described) else None
    info = row[_INFO] if isinstance(row, list) and len(row) > _INFO else None
    found = [None, None]
    for key in info if isinstance(info, dict) else ():
        # Some write the keys as symbols, some as strings.
        name = key.text if isinstance(key, Symbol) else key
        if name in REASONS and isinstance(info[key], str):
            found[REASONS.index(name)] = info[key]
    return found
