"""Transactions of AMQP 1.0 (Part 4): the coordinator, and what is done in a transaction.

The controller declares and discharges transactions by messages on a link whose target is the
coordinator. Any link of its connection can do work in one: transfers of the peer (posting),
dispositions of what it received (retirement), and deliveries to it (acquisition, by a flow whose
properties have a txn-id). See broker/transaction.py.

Imported when the first such link is attached.
"""

import struct

from ..broker.transaction import ACCEPTED as DONE
from ..broker.transaction import REJECTED as DROPPED
from ..broker.transaction import RELEASED as RETURNED
from ..broker.transaction import REQUEUED, Transaction, ledger_of
from ..errors import (
    AMQPError,
    NotImplementedHere,
    PreconditionFailed,
    ResourceLimitExceeded,
    SyntaxFailure,
)
from .codec import check_value
from .conditions import InvalidField
from .node import Requests
from .performatives import (
    ACCEPTED,
    COORDINATOR,
    DECLARE,
    DECLARED,
    DISCHARGE,
    MODIFIED,
    REJECTED,
    RELEASED,
    SOURCE,
    TRANSACTIONAL_STATE,
    described,
    described_value,
    error_value,
)
from .sections import VALUE, section_at, section_value
from .values import Symbol, Typed, read_value

_SOURCE = 5  # of attach
_PROPERTIES = 10  # of flow
_TXN_ID = 0  # of transactional-state and discharge
_GLOBAL_ID = 0  # of declare
_FAIL = 1  # of discharge
_MOST = 512  # octets of a declare or a discharge with all its sections

_OUTCOMES = {RELEASED: RETURNED, MODIFIED: REQUEUED, REJECTED: DROPPED}
_CAPABILITIES = (
    "amqp:local-transactions", "amqp:multi-txns-per-ssn", "amqp:multi-ssns-per-txn",
)  # fmt: skip


class UnknownTransaction(AMQPError):
    """There is no transaction of this txn-id, or not for this link."""

    condition = "amqp:transaction:unknown-id"


class RolledBack(AMQPError):
    """The transaction could not be committed."""

    condition = "amqp:transaction:rollback"


def work_in(connection, state):
    """The Work that the transactional-state in the Fields *state* names."""
    return find(connection, state.octets(_TXN_ID))


def find(connection, txn_id):
    """The Work of that txn-id. Raises UnknownTransaction."""
    works = connection.works
    work = works.get(txn_id) if works and isinstance(txn_id, bytes) else None
    if not work:
        raise UnknownTransaction("no such transaction")
    return work


class Work:
    """One transaction that was declared and not discharged.

    link     that of its controller
    posting  deliveries that are being posted in it
    """

    posting = 0

    def __init__(self, link):
        self.link = link
        broker = link.connection.broker
        ledger = ledger_of(broker)
        self.transaction = Transaction(broker)
        self.transaction.begin()
        ledger.serial = ledger.serial + 1 & 0x3FFFFFFF
        self.txn_id = struct.pack(">I", ledger.serial)
        self._most = ledger.operations
        self._failed = None  # the error for which it can only be rolled back
        self._acquired = []  # (session, delivery-id) of what was delivered in it
        self._receivers = []  # links that acquire in it

    def state(self, outcome):
        """The octets of the transactional-state with this *outcome*, None or a described value."""
        return described(TRANSACTIONAL_STATE, self.txn_id, outcome)

    def _fail(self, error):
        """Work was refused: nothing of it shall be done."""
        self.transaction.rollback()
        self.transaction.begin()  # it lives until it is discharged
        self._failed = error

    def publish(self, link, message, error):
        """Publish in it *message* of *link*, whose reference it takes: the octets of its state.

        error  for which it was refused: there is no message then; or None
        """
        self.posting -= 1
        if message is None:
            if link.lost_error() is not None and self._failed is None:
                self._fail(error)  # nothing else would tell
        else:
            error = self._failed
            if error is None and link.is_routed():
                try:
                    self.transaction.publish(message)
                    return self.state(described_value(ACCEPTED))
                except ResourceLimitExceeded as limit:
                    error = limit
                    self._fail(limit)
            else:
                self.link.connection.broker.pool.release(message)
        if error is None:
            return self.state(described_value(RELEASED))
        return self.state(described_value(REJECTED, error_value(error)))

    def settle(self, session, entry, outcome, settled):
        """Settle in it *entry*, which the peer had; *outcome*: a descriptor, 0 for none."""
        session.unsettled.remove(entry)
        session.connection.output.prove(entry)
        key = (session, entry.tag)
        if key in self._acquired:
            self._acquired.remove(key)
            settled = settled or None  # a rollback takes it back
        if self._failed is not None:
            session.give_back(entry, settled)
            if not entry.queue.deleted:
                entry.queue.dispatch()
            return
        try:
            self.transaction.settle(entry, _OUTCOMES.get(outcome, DONE), session, settled)
        except ResourceLimitExceeded as error:
            self._fail(error)

    # --- acquisition ---

    def begin(self, link):
        """What *link* delivers from now on is acquired in it."""
        self._receivers.append(link)
        link.work = self
        link.state = b"\x40" + self.state(None)

    def leave(self, link):
        if link in self._receivers:
            self._receivers.remove(link)
            link.work = None
            link.state = b""

    def _leave_all(self):
        for link in list(self._receivers):
            self.leave(link)

    def has_room(self):
        """Whether one more may be acquired."""
        many = len(self._acquired) + self.transaction.operations()
        return self._failed is None and many < self._most

    def acquired(self, session, tag):
        self._acquired.append((session, tag))

    def took(self, session, entry):
        """*entry* was delivered in it, and settled: it is done with when this is committed."""
        try:
            self.transaction.settle(entry, DONE, session)
        except ResourceLimitExceeded as error:
            self._fail(error)

    def has(self, session, tag):
        return (session, tag) in self._acquired

    def commit(self):
        """Do it all. The error for which that cannot be; None: it is done."""
        self._leave_all()  # what goes out from now on is of no transaction
        if self._failed is None and self.posting:
            self._failed = RolledBack("half a message was posted")
        if self._failed is None:
            try:
                self.transaction.commit()
            except PreconditionFailed as error:
                self._failed = error
        return self._failed

    def end(self):
        """It was committed: what was acquired and not settled stays where it is."""
        self._leave_all()
        del self.link.connection.works[self.txn_id]
        self._failed = self._failed or UnknownTransaction("it was discharged")

    def rollback(self):
        self.end()
        self.transaction.rollback()
        queues = []
        while self._acquired:
            session, tag = self._acquired.pop()
            queue = session.release_one(tag)
            if queue is not None and queue not in queues:
                queues.append(queue)
        for queue in queues:
            if not queue.deleted:
                queue.dispatch()


def acquirer(session, entry):
    """The Work in which *entry* was acquired, or None."""
    works = session.connection.works
    for txn_id in works:
        if works[txn_id].has(session, entry.tag):
            return works[txn_id]
    return None


def associate(link, fields):
    """A flow of a receiver: acquire in the transaction that its properties name, or in none."""
    if link.work is not None:
        link.work.leave(link)
    if fields.has(_PROPERTIES):
        properties = read_value(fields.buf, fields.at[_PROPERTIES])[0]
        # A map that no dict can be is a list of pairs.
        txn_id = properties.get(Symbol("txn-id")) if isinstance(properties, dict) else None
        if txn_id is not None:
            try:
                find(link.connection, txn_id).begin(link)
            except UnknownTransaction as error:
                link.session.cancel(link, error)


class Coordinator(Requests):
    """The link on which a controller declares and discharges."""

    confirms = 0

    def __init__(self, link):
        Requests.__init__(self, link, None, None)
        self._most = _MOST
        if self.connection.works is None:
            self.connection.works = {}

    def attach(self, fields):
        source = described_value(SOURCE)
        if fields.has(_SOURCE):
            source = read_value(fields.buf, fields.at[_SOURCE], True)[0]
        able = Typed(0xE0, [Symbol(name) for name in _CAPABILITIES], b"\xa3")
        self._answer(fields, source, described_value(COORDINATOR, able), None, self._most)
        self._grant()

    def _publish(self):
        """Do what the message says: the octets of its outcome; None: accepted, once stored."""
        octets = self.message
        self.message = None
        if self._refused is None:
            try:
                return self._obey(octets)
            except AMQPError as error:
                self._refused = error
            except MemoryError:
                self._refused = ResourceLimitExceeded("out of memory")
        return described(REJECTED, error_value(self._refused))

    def _obey(self, octets):
        fields = self.connection.terminus
        n = len(octets)
        i = 0
        while section_at(octets, i, n) != VALUE:
            if not section_at(octets, i, n):
                raise SyntaxFailure("a message without an amqp-value")
            i = check_value(octets, section_value(octets, i), n)
        fields.scan(octets, section_value(octets, i), n)
        if fields.code == DECLARE:
            if fields.has(_GLOBAL_ID):
                raise NotImplementedHere("distributed transactions")
            work = Work(self)
            self.connection.works[work.txn_id] = work
            return described(DECLARED, work.txn_id)
        if fields.code != DISCHARGE:
            raise InvalidField("neither declare nor discharge")
        fail = fields.boolean(_FAIL)
        work = find(self.connection, fields.octets(_TXN_ID))
        if work.link is not self:
            raise UnknownTransaction("a transaction of another controller")
        if fail:
            work.rollback()
            return described(ACCEPTED)
        error = work.commit()
        if error is not None:
            work.rollback()
            raise RolledBack(error.text)
        work.end()
        return None

    def release(self):
        works = self.connection.works
        for txn_id in list(works):
            if works[txn_id].link is self:
                works[txn_id].rollback()
        Requests.release(self)


def take_over(link, fields):
    """Attach a coordinator in place of *link*."""
    one = Coordinator(link)
    one.attach(fields)
    link.session.links[link.handle] = one
