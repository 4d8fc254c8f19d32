"""Messages that a peer sends or makes a dead letter of, into queues and store."""

from ...broker.message import AMQP10, PERSISTENT
from ...broker.queue import text
from ...broker.transaction import Transaction
from ...compat import const
from ...errors import (
    AMQPError,
    ContentTooLarge,
    NotAllowed,
    PreconditionFailed,
    ResourceLimitExceeded,
)
from ...v091.codec import shortstr
from .conditions import ServerBusy
from .envelope import taken_apart

DEAD_LETTERS = "/$DeadLetterQueue"
_PIECE = const(4096)  # octets of a body that are copied at once
# Application-properties of a dead letter:
REASONS = ("DeadLetterReason", "DeadLetterErrorDescription")


def publish(broker, head, sections, size, read, ttl_ms=-1):
    """Publish a persistent message. Raises AMQPError; then it may be in some of its queues.

    head      exchange and routing key as two short strings
    sections  octets of it before the body
    size      octets of the body
    read      function(position, n) that returns octets of the body
    """
    route = broker.route(head, 0, len(head))
    message = _made(broker, route, head, sections, size, read, ttl_ms)
    queues = broker.publish(message, route, route.stamp)
    broker.pool.release(message)
    broker.freed = True
    if queues < 0:
        raise ServerBusy("a queue is full, or the store")


def publish_all(broker, rows):
    """Publish persistent messages, all of them or none. Raises AMQPError.

    Of more than a quarter of the broker's messages each quarter is one or none.

    rows  arguments of publish() for each
    """
    most = max(1, broker.pool.messages.size // 4)
    for i in range(0, len(rows), most):
        _publish_together(broker, rows[i : i + most])


def _publish_together(broker, rows):
    together = Transaction(broker, None, len(rows))
    try:
        for head, *row in rows:
            message = _made(broker, broker.route(head, 0, len(head)), head, *row)
            together.publish(message)
    except AMQPError as error:
        together.rollback()
        raise ServerBusy(error.text) if isinstance(error, ResourceLimitExceeded) else error
    try:
        together.commit()
    except PreconditionFailed as error:
        raise ServerBusy(error.text)


def _made(broker, route, head, sections, size, read, ttl_ms):
    """The persistent message of that, see publish(); the caller has its reference."""
    if len(sections) > broker.properties_most:
        raise ContentTooLarge("the sections before the body are too long")
    pool = broker.pool
    stream = size > broker.small_max and broker.is_stored_only(route, route.stamp)
    message = pool.begin(len(head) + len(sections) + (0 if stream else size))
    if message is None:
        raise ServerBusy("no memory for the message")
    chain = message.chain = broker.store.bodies.take() if stream else None
    needed = broker.entries_for(route, route.stamp, True)
    if not broker.has_entries(needed) or (stream and chain is None):
        pool.release(message)
        broker.freed = True
        raise ServerBusy("no memory for the message")
    message.flags = AMQP10 | PERSISTENT
    message.ttl_ms = ttl_ms
    message.head = len(head)
    message.properties = len(sections)
    message.body = size
    pool.write(message, head, 0, len(head))
    pool.write(message, sections, 0, len(sections))
    for i in range(0, size, _PIECE):
        n = min(size - i, _PIECE)
        if stream:
            broker.store.bodies.add(chain, read(i, n), 0, n)
        else:
            pool.write(message, read(i, n), 0, n)
    return message


def dead_letter(broker, entry, reason, description):
    """Have a copy of the message of *entry* stored in the queue beside its own."""
    queue = entry.queue
    if queue.name.endswith(DEAD_LETTERS.encode()):
        raise NotAllowed("it is a dead letter")
    name = queue.name + DEAD_LETTERS.encode()
    head = shortstr(b"") + shortstr(name)
    broker.own_queue(name, True)
    message = entry.message
    envelope, start = taken_apart(broker, message, entry.tries)
    envelope.header[0] = True
    envelope.header[2] = None  # it does not expire any more
    envelope.annotate("x-opt-deadletter-source", text(queue.name))
    for key, value in zip(REASONS, (reason, description)):
        if value is not None:
            envelope.note(key, value)
    publish(
        broker, head, envelope.octets(), message.body - start,
        lambda i, n: broker.body_octets(message, start + i, n),
    )  # fmt: skip
    store = broker.store
    if store.keeps and not (store.commit_now() and not store.broken):
        raise ResourceLimitExceeded("the store failed")
