"""The parts put together from one configuration: the broker as a program uses it.

node = Node({"queues": [{"name": "telemetry"}]})
node.subscribe("telemetry", print)
node.publish("", "telemetry", b"21.5")
node.run()                       # or: while True: node.step(100)   or: await node.serve()
"""

from . import __version__
from .compat import const, heap_free, load, print_error, ticks_diff, unload
from .errors import ConfigError
from .log import log

_OVERDUE_MS = const(5000)


class Node:
    """
    settings  the configuration, a dict or JSON text as in config.py; None for the default. One
              that `config complete` made for this version is not checked again, which spares a
              board 12 KB of names it would never forget
    profile   the numbers of the machine as in limits.py; None for those the settings name

    Raises ConfigError when they cannot be used, OSError when a listener's port is taken.
    """

    def __init__(self, settings=None, profile=None):
        settings, profile = _checked(settings, profile)
        unload("config", "limits", "checks", "bridge.settings")
        log.configure(settings["log_level"], profile["log_lines"])
        self.device = settings["device"]
        self.profile = profile
        self.running = False
        self._subscribers = []
        self._asked = None  # an entry: somebody wants to know the status
        self.broker, self.reactor, self._bridges = _built(settings, profile, self)
        unload("start")

    # --- the wheel ---

    def step(self, timeout_ms=0):
        """Do what there is to do; wait for it at most *timeout_ms*."""
        for subscriber in self._subscribers:
            if subscriber.pump():
                timeout_ms = 0
        if self._asked is not None:
            self._answer()
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

    def is_well(self):
        """Whether the store answers: it has not failed, and no commit is 5 s overdue."""
        broker = self.broker
        store = broker.store
        if store.broken:
            return False
        if broker.committed:
            return True
        return ticks_diff(broker.now, store.appended_at) < store.gather_ms + _OVERDUE_MS

    def make_v10(self, engine):
        """An AMQP 1.0 engine for the peers that *engine* serves when they speak 0-9-1."""
        # Late: who never meets one does not pay for it.
        return load("amqp_lite.v10.connection").Connection(
            self.broker, engine.access, self.profile, self.device, engine.vhosts, engine
        )

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

    # --- the sink of amq.status ---

    def accepts(self, consumer, message):
        return self._asked is None

    def deliver(self, consumer, entry):
        self._asked = entry
        self.reactor.hurry()

    def cancelled(self, consumer):
        if self._asked is not None:
            self._asked.consumer = None

    def _answer(self):
        from .status import answer

        entry = self._asked
        self._asked = None
        try:
            answer(self, entry.message)
        except MemoryError:
            log.warning("no status: out of memory")
        except Exception as error:  # what was asked is anybody's
            print_error(error, log.error)
        queue = entry.queue
        queue.settle(entry)
        queue.dispatch()

    def status(self):
        """What goes on, as a dict that json can print."""
        broker = self.broker
        return {
            "device": self.device,
            "version": __version__,
            "uptime_ms": broker.uptime_ms(),
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
            "bridges": {
                upstream.name: upstream.status(caller.state) for upstream, caller in self._bridges
            },
            "counters": broker.metrics.snapshot(),
            "log": log.recent(),
        }


# What is needed once is imported late, and in functions of their own: what a frame has touched, it
# may keep alive until it ends.


def _checked(settings, profile):
    """*settings* and *profile* complete, when they can be used together. Raises ConfigError."""
    if isinstance(settings, dict) and settings.get("checked") == __version__:
        return settings, settings["profile"]
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
    return settings, profile


def _built(settings, profile, node):
    from .start import build

    return build(settings, profile, node)
