"""The node <entity>/$management of Azure Service Bus: peek, renew locks, take what was deferred.

A request names an operation in its application-properties, and has a map in its body; so has the
answer, whose application-properties are statusCode, statusDescription and errorCondition.

    | com.microsoft:             | request                             | answer             |
    |----------------------------|-------------------------------------|--------------------|
    | peek-message               | from-sequence-number, message-count | messages           |
    | renew-lock                 | lock-tokens                         | expirations        |
    | receive-by-sequence-number | sequence-numbers,                   | messages, with a   |
    |                            | receiver-settle-mode                | lock-token each    |
    | update-disposition         | disposition-status, lock-tokens     |                    |

Imported with the first link to such a node.
"""

from os import urandom

from ...compat import const, ticks_add
from ...errors import AMQPError, NotImplementedHere, SyntaxFailure
from ..conditions import condition_of
from ..node import answer_to
from ..performatives import ACCEPTED, MODIFIED, REJECTED
from ..values import Symbol, Typed
from . import deferred
from .conditions import LockLost, NotDeferred
from .envelope import dress, now_ms, number_of, place_number, timestamp
from .links import LOCK_MS, token_start
from .publish import dead_letter

_LARGEST = const(0x40000)  # octets of one answer, unless one message has more
_SERIAL = const(0x3FFFFFFF)
_OUTCOMES = {
    "completed": ACCEPTED, "abandoned": MODIFIED, "suspended": REJECTED,
    "defered": deferred.DEFERRED,
}  # fmt: skip
_ACTIVE, _DEFERRED = const(0), const(1)  # states of a message
_STATUS = {403: 401, 404: 404, 506: 503, 540: 501}


class _Cursor:
    """How far a queue's backlog was looked at."""

    def __init__(self, queue):
        self.order = queue.order
        self.slot = queue.slot


def _peek(broker, queue, first, count):
    """Up to *count* messages that wait, from the sequence-number *first* on: octets of each."""
    rows = []
    entry = queue.ready.head
    while entry is not None and len(rows) < count:
        if number_of(entry) >= first:
            rows.append((entry, _ACTIVE))
        entry = entry.next
    for row in deferred.of_queue(queue):
        if number_of(row[0]) >= first:
            rows.append((row[0], _DEFERRED))
    found = []
    for entry, state in rows:
        number = number_of(entry)
        found.append((number, _whole(broker, entry.message, entry.tries, number, state)))
    ring = broker.store.ring if queue.backlog else None
    cursor = _Cursor(queue)
    many = 0
    while ring is not None and many < count:
        share = ring.find(cursor, queue.number)
        if share < 0:
            break
        number = place_number(cursor.order, cursor.slot, share)
        if number >= first:
            tries = ring.tries(share)
            message = broker.store.load()
            if message is None:
                break
            found.append((number, _whole(broker, message, tries, number, _ACTIVE)))
            broker.pool.release(message)
            broker.freed = True
            many += 1
            ring.locate(cursor.order, cursor.slot)
        ring.pass_by(cursor)
    found.sort(key=lambda row: row[0])
    most = _LARGEST
    octets = []
    for row in found[:count]:
        most -= len(row[1])
        if most < 0 and octets:
            break
        octets.append(row[1])
    return octets


def _whole(broker, message, tries, number, state, **annotations):
    """Octets of the stored *message*, as a client gets it in an answer."""
    annotations["message_state"] = Typed(0x71, state)
    lead, start = dress(broker, message, tries, number, **annotations)
    n = message.body - start
    return lead + bytes(broker.body_octets(message, start, n)) if n else lead


class Entity:
    """Answers requests about the queue *name*."""

    def __init__(self, link, name):
        self._connection = link.connection
        self._name = name
        self._queue = None  # of the request

    def answer(self, request):
        """The answer to the Request, whatever it is."""
        properties = {"statusCode": Typed(0x71, 200), "statusDescription": "OK"}
        body = {}
        try:
            body = self._act_on(request)
            if body is None:
                properties = {"statusCode": Typed(0x71, 204), "statusDescription": "No content"}
        except AMQPError as error:
            status = 410 if isinstance(error, LockLost) else _STATUS.get(error.code, 400)
            properties = {
                "statusCode": Typed(0x71, status),
                "statusDescription": error.text,
                "errorCondition": Symbol(condition_of(error)),
            }
        return answer_to(request, None, properties, body or {})

    def _act_on(self, request):
        """The answer's body; None: there is nothing. Raises AMQPError."""
        operation = request.properties.get("operation")
        body = request.body
        if not isinstance(body, dict):
            raise SyntaxFailure("a map was due in the body")
        self._queue = self._connection.broker.queue(self._name)
        if operation == "com.microsoft:peek-message":
            return self._peek(body)
        if operation == "com.microsoft:renew-lock":
            return self._renew(body)
        if operation == "com.microsoft:receive-by-sequence-number":
            return self._receive(body)
        if operation == "com.microsoft:update-disposition":
            return self._update(body)
        raise NotImplementedHere("%s" % operation)

    def _peek(self, body):
        first = _given(body, "from-sequence-number", int)
        count = _given(body, "message-count", int)
        if count < 1:
            raise SyntaxFailure("a message-count of %d" % count)
        found = _peek(self._connection.broker, self._queue, first, min(count, _SERIAL))
        return {"messages": [{"message": octets} for octets in found]} if found else None

    # --- locks ---

    def _find(self, token):
        """(session, delivery-id) of what is locked by *token*, or (None, row) of what was
        deferred. Raises LockLost."""
        if not isinstance(token, bytes) or len(token) != 16:
            raise SyntaxFailure("a lock token that is no uuid")
        sessions = self._connection.sessions
        tag = int.from_bytes(token[12:], "big") & _SERIAL
        for channel in sessions:
            session = sessions[channel]
            if token[:12] == session.tag and tag in session.locks:
                return session, tag
        row = deferred.locked_by(token, self._connection.broker.now)
        if row is not None:
            return None, row
        raise LockLost("the lock of the message is lost")

    def _renew(self, body):
        until = ticks_add(self._connection.broker.now, LOCK_MS)
        tokens = _given(body, "lock-tokens", list)
        for session, tag in [self._find(token) for token in tokens]:
            if session is None:
                tag[2] = until
            else:
                session.locks[tag][1] = until
        expires = now_ms() + LOCK_MS
        return {"expirations": Typed(0xE0, [expires] * len(tokens), b"\x83")}

    def _receive(self, body):
        broker = self._connection.broker
        locks = body.get("receiver-settle-mode", 1) != 0
        numbers = _given(body, "sequence-numbers", list)
        found = []
        for number in numbers:
            for row in deferred.of_queue(self._queue, number):
                if row not in found and not deferred.is_locked(row, broker.now):
                    found.append(row)
        if not found or len(found) < len(numbers):
            raise NotDeferred("a message of these numbers was not deferred, or is locked")
        messages = []
        for row in found:
            entry = row[0]
            annotations = {}
            token = token_start() + urandom(4)
            if locks:
                row[1] = token
                row[2] = ticks_add(broker.now, LOCK_MS)
                annotations["locked_until"] = timestamp(now_ms() + LOCK_MS)
            octets = _whole(
                broker, entry.message, entry.tries, number_of(entry), _DEFERRED, **annotations
            )
            messages.append({"lock-token": Typed(0x98, token), "message": octets})
            if not locks:
                deferred.remove(row)
        return {"messages": messages}

    def _update(self, body):
        outcome = _OUTCOMES.get(_given(body, "disposition-status", str))
        if outcome is None:
            raise SyntaxFailure("no such disposition-status")
        reasons = [
            _given(body, key, str) if body.get(key) is not None else None
            for key in ("deadletter-reason", "deadletter-description")
        ]
        for token in _given(body, "lock-tokens", list):
            session, tag = self._find(token)
            if session is not None:
                session.settle_lock(tag, outcome, *reasons)
                continue
            entry = tag[0]
            if outcome == REJECTED:
                dead_letter(self._connection.broker, entry, *reasons)
            if outcome == REJECTED or outcome == ACCEPTED:
                deferred.remove(tag)
            else:
                tag[1] = None  # it stays deferred
        if not self._queue.deleted:
            self._queue.dispatch()
        return {}


def _given(body, key, kind):
    if not isinstance(body.get(key), kind):
        raise SyntaxFailure("no %s" % key)
    return body[key]
