"""The broker and its store as a bridge uses them: what others do without, they do not load."""

from os import urandom

from ..broker.bodies import Cursor
from ..errors import ResourceLimitExceeded
from ..log import log


def alias(broker, name):
    """Make a durable queue called *name*, which gets what is published to the default exchange
    for `name.` and anything behind: addresses of somewhere else. Raises ResourceLimitExceeded.
    """
    broker.own_queue(name, True)
    broker.aliases[name + b"."] = name


def republish(broker, entry, buf, i, n):
    """Publish the message of *entry* to another address: as Broker.publish().

    buf, i, n  the address, as for Broker.route(); -1: headers decide there, or it leads back
    """
    message = entry.message
    route = broker.route(buf, i, n)
    chain = message.chain
    if route.by_headers:
        return -1
    for k in range(route.count):
        if route.queues[k] is entry.queue:
            return -1
    if chain is not None:
        # A body in the store belongs to one record.
        message.chain = _copy(broker.store.bodies, chain, broker.scratch)
        if message.chain is None:
            message.chain = chain
            return -1
    message.ttl_ms = -1  # RabbitMQ's dead letters live on, too
    queues = broker.publish(message, route, route.stamp)
    if chain is not None:
        broker.store.bodies.end(message.chain)
        message.chain = chain
    return queues


def _copy(bodies, chain, buf):
    """The body *chain* once more; None: no room, or it is damaged. buf: to copy with."""
    copied = bodies.take()
    if copied is None:
        return None
    cursor = Cursor()
    while copied.size < chain.size and not copied.lost:
        n = min(len(buf), chain.size - copied.size)
        if not bodies.read(cursor, chain, n, buf, 0):
            copied.lost = True
            break
        bodies.add(copied, buf, 0, n)
    if copied.lost:
        bodies.end(copied)
        return None
    return copied


def is_safe(store):
    """Whether everything that was accepted is on flash; or never will be, see Durable.fail()."""
    return store.broken or not store.keeps or not store.ring.uncommitted


def is_stored(store, entry):
    """Whether the message of *entry* is known to be on flash."""
    if entry.share < 0:
        return False
    ring = store.ring
    if ring.tail < 0 or entry.order != ring.newest:
        return True
    return entry.position < ring.kept_slot


def mark_all_but(store, most):
    """Mark what is settled on flash, if it is more than *most* messages."""
    if store.keeps and not store.broken and store.ring.acks > most:
        try:
            store.ring.mark()
        except OSError as error:
            log.error("store: %s", error)
            store.fail()


def identity(store):
    """A number of 32 bits that tells this ring from others; made when it is first asked for.

    Raises ResourceLimitExceeded when the store has no room for it.
    """
    if not store.number:
        made = int.from_bytes(urandom(4), "big") | 1
        if not store.define_number(made):
            raise ResourceLimitExceeded("the store has no room for its identity")
    return store.number
