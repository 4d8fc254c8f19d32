"""What a node does once, at its start: its parts, made as one configuration says.

Whoever starts drops this module again, because a board needs its memory.
"""

from .broker.broker import Broker
from .broker.exchange import FANOUT
from .compat import MICROPYTHON, ticks_ms, unload, zeros
from .errors import ConfigError, ResourceLimitExceeded
from .log import log
from .v091.codec import match_headers, read_table, translated, write_table

_STATUS = b"amq.status"


def build(settings, profile, node):
    """The parts of *node*: (broker, reactor, bridges), listening.

    node     the sink of what is published to the exchange amq.status, and the maker of engines of
             AMQP 1.0
    bridges  a list of (Upstream, Caller), which connect when the reactor turns

    Raises ConfigError, OSError when a listener's port is taken.
    """
    # Memory in one piece for the buffers of connections: they are made last, and small things
    # until then would leave none.
    ballast = []
    _reserve(ballast, profile)
    store = _make_store(settings["store"], profile)
    reactor = None
    try:
        broker = _make_broker(store, profile)
        _load_engines(settings)
        ballast.clear()
        reactor = _make_reactor(broker, settings, profile, node)
        ports = [
            reactor.listen(row["host"], row["port"], _make_tls(row, i, broker.metrics))
            for i, row in enumerate(settings["listeners"])
        ]
        store.report()
        _declare(broker, settings)
        _serve_status(broker, node)
        bridges = []
        if settings["bridges"]:
            from .bridge.make import make_bridges  # late: who has none does not pay for them

            bridges = make_bridges(broker, reactor, settings, profile)
            unload("bridge.make")
    except Exception:
        if reactor is not None:
            reactor.close()
        store.close()
        raise
    for row, port in zip(settings["listeners"], ports):
        print("listening on %s:%d%s" % (row["host"], port, " with TLS" if "tls" in row else ""))
    return broker, reactor, bridges


def _reserve(ballast, profile):
    buffers = profile["connections"] * (profile["receive_buffer"] + profile["send_buffer"])
    ballast.append(zeros(buffers * 5 // 4))


def _make_store(settings, profile):
    """The store *settings* name, not read yet. Raises ConfigError, OSError."""
    if settings is None:
        from .store.ram import RamStore

        return RamStore()
    from .broker.durable import Durable
    from .store import recovery  # noqa: F401 (while there is memory in one piece)
    from .store.open import open_device
    from .store.ring import Ring

    ring = Ring(open_device(settings, "store"))
    unload("checks", "store.open")
    chains = max(4, profile["messages"] // 4)
    return Durable(ring, write_table, read_table, chains)


def _make_broker(store, profile):
    """A broker with all that *store* holds. Raises ConfigError."""
    broker = Broker(profile, store, match_headers, translated)
    broker.now = ticks_ms()  # ages go on from here
    try:
        broker.restore()
    except OSError as error:
        raise ConfigError("store: cannot be read: %s" % error)
    unload("store.recovery")
    return broker


def _load_engines(settings):
    # Late: what reads the store has given back its memory by now.
    from .net import reactor  # noqa: F401

    if settings["listeners"]:
        from .access import Access  # noqa: F401
        from .v091 import channel, connection  # noqa: F401


def _make_reactor(broker, settings, profile, node):
    from .net.reactor import Reactor

    return Reactor(
        broker,
        _make_engines(broker, settings, profile) if settings["listeners"] else [],
        node.make_v10 if profile["amqp10"] else None,
        profile["unauthenticated"],
        profile["receive_buffer"],
        profile["login_ms"],
        profile["output_budget"],
        profile["stack_send"],
    )


def _make_engines(broker, settings, profile):
    """One for each client there can be."""
    from .access import Access
    from .broker.table import Table
    from .v091.channel import Channel
    from .v091.connection import Connection

    access = Access(settings["users"], settings["anonymous"], settings["shared_access_keys"])
    vhosts = (b"/", settings["vhost"].encode())
    channels = Table(Channel, profile["channels"], "channel")
    clients = profile["connections"] - len(settings["bridges"])
    return [Connection(broker, access, profile, channels, vhosts) for _ in range(clients)]


def _make_tls(row, i, metrics):
    """The ServerTls of the listener *row*, number *i*, or None. Raises ConfigError."""
    if "tls" not in row:
        return None
    if MICROPYTHON:
        raise ConfigError("listeners[%d].tls: not on MicroPython" % i)
    from .net.tls_server import ServerTls

    return ServerTls(row["tls"], "listeners[%d].tls" % i, metrics)


def _declare(broker, settings):
    from .declare import declare

    declare(broker, settings)
    unload("declare")


def _serve_status(broker, sink):
    """Give *sink* what is published to the exchange amq.status: see status.py."""
    try:
        queue = broker.own_queue(_STATUS, False)
        queue.configure({b"x-max-length": 4})
        broker.bind(broker.own_exchange(_STATUS, FANOUT), queue, b"", {})
        queue.subscribe(sink, b"status", False, False, 1)
    except ResourceLimitExceeded as error:
        log.warning("no room for the exchange amq.status: %s", error.text)
