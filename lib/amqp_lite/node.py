"""The parts put together from one configuration: the broker as a program uses it.

node = Node({"queues": [{"name": "telemetry"}]})
node.subscribe("telemetry", print)
node.publish("", "telemetry", b"21.5")
node.run()                       # or: while True: node.step(100)   or: await node.serve()
"""

from . import __version__
from .access import Access
from .broker.broker import Broker
from .broker.exchange import KINDS
from .broker.table import Table
from .compat import heap_free, ticks_ms, unload
from .errors import AMQPError, ConfigError, PreconditionFailed
from .log import log
from .net.reactor import Reactor
from .v091.channel import Channel
from .v091.codec import match_headers, read_table, write_table
from .v091.connection import Connection


class Node:
    """
    settings  the configuration, a dict or JSON text as in config.py; None for the default
    profile   the numbers of the machine as in limits.py; None for those the settings name

    Raises ConfigError when they cannot be used, OSError when a listener's port is taken.
    """

    def __init__(self, settings=None, profile=None):
        # Late, because they are needed once: a board gets their memory back.
        from .config import check_room, load
        from .limits import check, complete

        settings = load(settings)
        if profile is None and settings["profile"] not in (None, "linux"):
            raise ConfigError(
                'profile: "%s" is a name, here its numbers are needed' % settings["profile"]
            )
        profile = complete(profile, settings["limits"])
        check(profile)
        check_room(settings, profile)
        unload("config", "limits")
        log.configure(settings["log_level"], profile["log_lines"])
        self.device = settings["device"]
        self.profile = profile
        self.running = False
        self.reactor = None
        self._started = ticks_ms()
        self._subscribers = []
        store = _open_store(settings["store"], profile)
        unload("checks", "store.open")
        try:
            self._start(store, settings)
        except Exception:
            if self.reactor is not None:
                self.reactor.close()
            store.close()
            raise

    def _start(self, store, settings):
        profile = self.profile
        self.broker = Broker(profile, store, match_headers)
        self.broker.now = ticks_ms()  # ages go on from here
        # Before most buffers are made, because reading the store takes code that goes again.
        try:
            self.broker.restore()
        except OSError as error:
            raise ConfigError("store: cannot be read: %s" % error)
        unload("store.recovery")
        access = Access(settings["users"])
        vhosts = (b"/", settings["vhost"].encode())
        channels = Table(Channel, profile["channels"], "channel")
        self.reactor = Reactor(
            self.broker,
            [
                Connection(self.broker, access, profile, channels, vhosts)
                for _ in range(profile["connections"])
            ],
            profile["reserved"],
            profile["unauthenticated"],
            profile["receive_buffer"],
            profile["login_ms"],
            profile["output_budget"],
            profile["stack_send"],
        )
        ports = [self.reactor.listen(row["host"], row["port"]) for row in settings["listeners"]]
        store.report()
        for key, declare in (
            ("exchanges", self._declare_exchange),
            ("queues", self._declare_queue),
            ("bindings", self._declare_binding),
        ):
            for k, row in enumerate(settings[key]):
                try:
                    declare(row)
                except AMQPError as error:
                    # What clients declared may leave no room: who is there is served all the same.
                    log.error("%s[%d]: %s", key, k, error.text)
        for row, port in zip(settings["listeners"], ports):
            print("listening on %s:%d" % (row["host"], port))

    # The configuration counts where the store has it otherwise.

    def _declare_exchange(self, row):
        declaration = (
            row["name"].encode(), KINDS[row["type"].encode()], row["durable"],
            row["auto_delete"], row["internal"], octets(row["arguments"]),
        )  # fmt: skip
        try:
            self.broker.declare_exchange(*declaration)
        except PreconditionFailed:
            log.warning("exchange '%s' was stored otherwise: made anew, unbound", row["name"])
            self.broker.delete_exchange(declaration[0])
            self.broker.declare_exchange(*declaration)

    def _declare_queue(self, row):
        broker = self.broker
        name = row["name"].encode()
        arguments = octets(row["arguments"])
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

    def _declare_binding(self, row):
        broker = self.broker
        find = broker.queue if row["destination_type"] == "queue" else broker.exchange
        broker.bind(
            broker.exchange(row["source"].encode()), find(row["destination"].encode()),
            row["routing_key"].encode(), octets(row["arguments"]),
        )  # fmt: skip

    # --- the wheel ---

    def step(self, timeout_ms=0):
        """Do what there is to do; wait for it at most *timeout_ms*."""
        for subscriber in self._subscribers:
            if subscriber.pump():
                timeout_ms = 0
        self.reactor.step(timeout_ms)

    def run(self):
        """Serve until stop()."""
        self.running = True
        while self.running:
            self.step(1000 if not self._subscribers else 50)

    async def serve(self):
        """The same beside other asyncio tasks, until stop()."""
        import asyncio

        self.running = True
        idle = 0.001
        while self.running:
            before = self.broker.metrics.published + self.broker.metrics.delivered
            self.step(0)
            busy = before != self.broker.metrics.published + self.broker.metrics.delivered
            # Polled, not awaited: the reactor's poll knows all sockets, asyncio's none of them.
            idle = 0 if busy else min(idle * 2 + 0.001, 0.02)
            await asyncio.sleep(idle)

    def stop(self):
        """End run() or serve() after the step under way."""
        self.running = False

    def close(self):
        """Hang up on everybody, stop listening, and make safe what is in the store."""
        self.reactor.close()
        self.broker.store.close()

    # --- for code on the same machine ---

    def publish(self, exchange, routing_key, body, properties=None):
        """Publish *body*; see local.publish() for what it answers and raises."""
        # Late, here and below: a board whose code uses no broker calls never pays for them.
        from .local import publish

        self.reactor.hurry()
        return publish(self.broker, exchange, routing_key, body, properties)

    def subscribe(self, queue, callback):
        """Call *callback*(message) from step() for each message of the existing *queue*.

        The message (see local.Received) is acknowledged when the callback returns; when it raises,
        the message comes once more, and is dropped and counted the second time. Raises NotFound,
        AccessRefused when a consumer is exclusive, ResourceLimitExceeded.
        """
        from .local import Subscriber

        found = self.broker.queue(queue.encode())
        self._subscribers.append(Subscriber(self.broker, found, callback))

    def status(self):
        """What goes on, as a dict that json can print."""
        broker = self.broker
        return {
            "device": self.device,
            "version": __version__,
            "uptime_ms": broker.now - self._started,
            "heap_free": heap_free(),
            "connections": [engine.name for engine in self.reactor.connections()],
            "blocks_free": broker.pool.available,
            "messages_free": broker.pool.messages.free,
            "deliveries_free": broker.entries.free,
            "queues": {
                str(name, "utf-8"): {
                    "ready": broker.queues[name].waiting(),
                    "unacked": broker.queues[name].unacked,
                    "consumers": len(broker.queues[name].consumers),
                }
                for name in broker.queues
            },
            "store": broker.store.status(),
            "counters": broker.metrics.snapshot(),
            "log": log.recent(),
        }


def _open_store(settings, profile):
    # Late: a board pays for one of them.
    if settings is None:
        from .store.ram import RamStore

        return RamStore()
    from .broker.durable import Durable
    from .store import recovery  # noqa: F401 (while there is memory in one piece)
    from .store.open import open_device
    from .store.ring import Ring

    ring = Ring(open_device(settings, "store"))
    chains = max(4, profile["messages"] // 16)
    return Durable(ring, write_table, read_table, chains)


def octets(value):
    """*value* of the configuration with its text as octets, the form the model works with."""
    if isinstance(value, dict):
        return {octets(key): octets(value[key]) for key in value}
    return value.encode() if isinstance(value, str) else value
