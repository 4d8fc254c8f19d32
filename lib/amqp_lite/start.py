"""What a node does once, at its start: its parts, made as one configuration says.

Whoever starts drops this module again, because a board needs its memory.
"""

from binascii import hexlify
from os import urandom

from .broker.broker import Broker
from .broker.exchange import FANOUT, KINDS
from .compat import ticks_ms, unload
from .errors import AMQPError, ConfigError, PreconditionFailed, ResourceLimitExceeded
from .log import log
from .v091.codec import match_headers, read_table, write_table

_STATUS = b"amq.status"


def build(settings, profile, asked):
    """The parts of a node: (broker, reactor, bridges), listening.

    asked    the sink of what is published to the exchange amq.status
    bridges  a list of (Upstream, Caller), which connect when the reactor turns

    Raises ConfigError, OSError when a listener's port is taken.
    """
    store = _make_store(settings["store"], profile)
    reactor = None
    try:
        broker = _make_broker(store, profile)
        reactor = _make_reactor(broker, settings, profile)
        ports = [reactor.listen(row["host"], row["port"]) for row in settings["listeners"]]
        store.report()
        _declare(broker, settings)
        _serve_status(broker, asked)
        bridges = _make_bridges(broker, reactor, settings, profile)
    except Exception:
        if reactor is not None:
            reactor.close()
        store.close()
        raise
    for row, port in zip(settings["listeners"], ports):
        print("listening on %s:%d" % (row["host"], port))
    return broker, reactor, bridges


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
    chains = max(4, profile["messages"] // 16)
    return Durable(ring, write_table, read_table, chains)


def _make_broker(store, profile):
    """A broker with all that *store* holds. Raises ConfigError."""
    broker = Broker(profile, store, match_headers)
    broker.now = ticks_ms()  # ages go on from here
    try:
        broker.restore()
    except OSError as error:
        raise ConfigError("store: cannot be read: %s" % error)
    unload("store.recovery")
    return broker


def _make_reactor(broker, settings, profile):
    """The reactor and an engine for each client there can be."""
    # Late: what reads the store has given back its memory by now.
    from .access import Access
    from .broker.table import Table
    from .net.reactor import Reactor
    from .v091.channel import Channel
    from .v091.connection import Connection

    access = Access(settings["users"])
    vhosts = (b"/", settings["vhost"].encode())
    channels = Table(Channel, profile["channels"], "channel")
    clients = profile["connections"] - len(settings["bridges"])
    return Reactor(
        broker,
        [Connection(broker, access, profile, channels, vhosts) for _ in range(clients)],
        profile["unauthenticated"],
        profile["receive_buffer"],
        profile["login_ms"],
        profile["output_budget"],
        profile["stack_send"],
    )


# --- what is declared: the configuration counts where the store has it otherwise ---


def _declare(broker, settings):
    """Declare the exchanges, queues and bindings of *settings*."""
    for key, declare_one in (
        ("exchanges", _declare_exchange),
        ("queues", _declare_queue),
        ("bindings", _declare_binding),
    ):
        for k, row in enumerate(settings[key]):
            try:
                declare_one(broker, row)
            except AMQPError as error:
                # What clients declared may leave no room: who is there is served all the same.
                log.error("%s[%d]: %s", key, k, error.text)


def _declare_exchange(broker, row):
    declaration = (
        row["name"].encode(), KINDS[row["type"].encode()], row["durable"],
        row["auto_delete"], row["internal"], _octets(row["arguments"]),
    )  # fmt: skip
    try:
        broker.declare_exchange(*declaration)
    except PreconditionFailed:
        log.warning("exchange '%s' was stored otherwise: made anew, unbound", row["name"])
        broker.delete_exchange(declaration[0])
        broker.declare_exchange(*declaration)


def _declare_queue(broker, row):
    name = row["name"].encode()
    arguments = _octets(row["arguments"])
    try:
        broker.declare_queue(name, row["durable"], None, row["auto_delete"], arguments)
    except PreconditionFailed:
        queue = broker.queue(name)
        log.warning(
            "queue '%s' was stored otherwise: changed%s", row["name"],
            "" if row["durable"] else ", but it stays durable",
        )  # fmt: skip
        queue.auto_delete = row["auto_delete"]
        broker.change_queue(queue, arguments)


def _declare_binding(broker, row):
    find = broker.queue if row["destination_type"] == "queue" else broker.exchange
    broker.bind(
        broker.exchange(row["source"].encode()), find(row["destination"].encode()),
        row["routing_key"].encode(), _octets(row["arguments"]),
    )  # fmt: skip


def _octets(value):
    """*value* of the configuration with its text as octets, the form the model works with."""
    if isinstance(value, dict):
        return {_octets(key): _octets(value[key]) for key in value}
    return value.encode() if isinstance(value, str) else value


def _serve_status(broker, sink):
    """Give *sink* what is published to the exchange amq.status: see status.py."""
    try:
        queue = broker.own_queue(_STATUS, False)
        queue.configure({b"x-max-length": 4})
        broker.bind(broker.own_exchange(_STATUS, FANOUT), queue, b"", {})
        queue.subscribe(sink, b"status", False, False, 1)
    except ResourceLimitExceeded as error:
        log.warning("no room for the exchange amq.status: %s", error.text)


# --- bridges ---


def _make_bridges(broker, reactor, settings, profile):
    """The bridges of *settings*, which connect from now on: a list of (Upstream, Caller).

    Raises ConfigError.
    """
    bridges = []
    for k, row in enumerate(settings["bridges"]):
        path = "bridges[%d].tls" % k
        try:
            bridges.append(_make_bridge(broker, reactor, row, path, settings["device"], profile))
        except AMQPError as error:
            raise ConfigError("bridge %s: %s" % (row["name"], error.text))
    return bridges


def _make_bridge(broker, reactor, row, path, device, profile):
    # Late: who has no bridge does not pay for one.
    from .bridge.client091 import Client
    from .bridge.upstream import Upstream
    from .net.caller import Caller

    tls = None
    if row["tls"] is not None:
        from .net.tls import Tls

        tls = Tls(row["tls"], path=path)
        if tls.warning:
            log.warning("bridge %s: %s", row["name"], tls.warning)
    upstream = Upstream(broker, row, device, _boots(broker.store))
    client = Client(broker, upstream, profile, row, device)
    return upstream, Caller(reactor, client, tls, upstream.timeout_ms)


def _boots(store):
    """What tells ids of this device's messages from those of other boots, see uplink.py."""
    this = hexlify(urandom(4))
    kept = this
    if store.keeps:
        try:
            kept = b"%08x" % store.identity()
        except ResourceLimitExceeded as error:
            log.error("ids of messages change with each start: %s", error.text)
    return kept, this
