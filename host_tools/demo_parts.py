"""The parts that `amqp-lite demo` puts together.

    Sensors --AMQP--> Edge, a process --AMQP--> Cable, which can be cut --AMQP--> Upstream

All but the edge broker are in this process and have a turn(), which serves them for a moment.
"""

import json
import os
import re
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import unquote, urlsplit

from amqp_lite.errors import ResourceLimitExceeded
from amqp_lite.node import Node
from amqp_lite.store.records import MESSAGE, TYPE
from amqp_lite.v091.methods import method_frame

from .content import Content
from .errors import CommandError
from .files import ROOT
from .image import open_image

QUEUE = "telemetry"
SENSORS = 4
SECTOR_OCTETS = 4096  # of the flash image, as flash chips have them
_PAGE_OCTETS = 256
_RECORD_OCTETS = 256  # of the image for one message, about
_LARGEST = 1 << 27  # octets of an image; a ring has fewer than 65536 sectors
_HOST = "127.0.0.1"
_TURN_MS = 2  # how long a part may wait for octets in its turn
_ASK_S = 0.1  # between two questions for the edge broker's status
_STEADY = {"heartbeat": 5, "retry_max": 1}  # of bridges: a demo has no minute to wait
_FEW = {"connections": 8, "unauthenticated": 4}  # limits of nodes that have few peers
_EXCHANGE = {"name": "sensors", "type": "topic"}
_QUEUE_DELETE = 0x00320028


def image_octets(messages):
    """The size of a flash image on which so many *messages* find room: a power of two."""
    size = 1 << 20
    while size < messages * _RECORD_OCTETS and size < _LARGEST:
        size *= 2
    return size


def turn_until(parts, condition, seconds):
    """Give each of *parts* its turn until *condition*(), at most *seconds*: what it was."""
    deadline = time.monotonic() + seconds
    while not condition():
        now = time.monotonic()
        if now > deadline:
            return False
        for part in parts:
            part.turn(now)
    return True


def without_errno(text):
    """*text* of an error as people read it."""
    return re.sub(r"^\[Errno \d+\] ", "", text)


class Interrupt:
    """Ctrl-C and what is like it: a KeyboardInterrupt where nobody is in the middle of something.

    Ending takes a moment, in which another one changes nothing.
    """

    def __init__(self):
        self._came = False
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._on_signal)

    def _on_signal(self, number, frame):
        self._came = True

    def turn(self, now):
        if self._came:
            raise KeyboardInterrupt


# --- the edge broker ---


class Edge:
    """The edge broker, a process of its own on a flash image that outlives it.

    folder    for its configuration and what it says
    image     path of the flash image
    octets    its size
    cable     the way upstream
    upstream  an Upstream
    rate      messages a second that it may forward

    Its methods raise CommandError when the process has ended by itself.
    """

    def __init__(self, folder, image, octets, cable, upstream, rate):
        self.image = image
        self.port = 0
        self.process = None
        self._config = os.path.join(folder, "edge.json")
        self._log = os.path.join(folder, "edge.log")
        self._said = 0  # octets of the log before the last start
        bridge = {
            **upstream.login, **_STEADY,
            "name": "cloud", "hosts": [f"{_HOST}:{cable.port}"], "messages_per_s": rate,
            "uplinks": [{"queue": QUEUE, "exchange": "", "routing_key": upstream.queue}],
        }  # fmt: skip
        self._settings = {
            "device": "edge-1",
            "store": {
                "kind": "file", "path": image, "size": octets,
                "sector_size": SECTOR_OCTETS, "page_size": _PAGE_OCTETS,
            },
            "limits": {"log_lines": 4},  # the log is part of the status
            "exchanges": [_EXCHANGE],
            "queues": [{"name": QUEUE}, {"name": "status", "durable": False}],
            "bindings": [{"source": "sensors", "destination": QUEUE, "routing_key": "#"}],
            "bridges": [bridge],
        }  # fmt: skip

    def start(self):
        """Start the process; it serves as soon as is_ready()."""
        self._settings["listeners"] = [{"host": _HOST, "port": self.port}]
        with open(self._config, "w", encoding="utf-8") as file:
            json.dump(self._settings, file, indent=2)
        command = [sys.executable, "-m", "host_tools", "run", "--config", self._config]
        with open(self._log, "ab") as log:
            self._said = log.tell()
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which ends it
            )  # fmt: skip

    def is_ready(self):
        self.check()
        found = re.search(r"listening on \S+:(\d+)\n", self._output())
        if found:
            self.port = int(found[1])  # the same when it starts again
        return found is not None

    def check(self):
        code = self.process.poll()
        if code is not None:
            lines = self._output().splitlines()
            why = f"signal {-code}" if code < 0 else lines[-1] if lines else f"exit code {code}"
            raise CommandError(f"the edge broker has ended: {why}", 1)

    def _output(self):
        with open(self._log, "rb") as file:
            file.seek(self._said)
            return file.read().decode(errors="replace")

    def kill(self):
        """SIGKILL: it can do nothing about it."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """End it in peace, if it is there."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


def stored_messages(path):
    """How many messages wait in the flash image at *path*, which no broker has open."""
    with open_image(path) as image:
        content = Content(image)
        return sum(content.ring.kind & TYPE == MESSAGE for _ in content.records())


# --- the sensors ---


class Sensors:
    """Simulated sensors: each publishes persistent messages, and keeps them until confirmed.

    port  of the edge broker
    rate  messages a second, together

    sent    message-ids, of all that were published
    status  what the edge broker said of itself last; None: nothing yet
    """

    def __init__(self, port, rate):
        self.sent = []
        self.refused = set()  # message-ids of those the edge broker did not want
        self.status = None
        self.asked_at = 0  # s, when the question was asked that it answered
        self._rate = rate
        self._boot = secrets.token_hex(4)
        self._begin = None  # s; None: silent
        self._published = 0  # since then
        self._ask_at = 0  # s
        self._node = Node(_sensor_settings(port))
        self._node.subscribe("outbox.parked", lambda got: self.refused.add(_id(got)))
        self._node.subscribe("status", self._on_status)

    def turn(self, now):
        if self._begin is not None:
            self._publish(int((now - self._begin) * self._rate) - self._published, now)
        if now >= self._ask_at:
            self._ask_at = now + _ASK_S
            asks = {"reply_to": "status", "correlation_id": repr(now)}
            self._node.publish("", "ask", b"", asks)
        self._node.step(_TURN_MS)

    def _publish(self, count, now):
        for _ in range(count):
            sequence = len(self.sent)
            name = f"sensor-{sequence % SENSORS + 1}"
            message_id = f"{name}:{self._boot}:{sequence:012x}"
            body = json.dumps({"sensor": name, "at": round(now, 3), "value": sequence % 100 / 4})
            properties = {
                "delivery_mode": 2, "message_id": message_id, "content_type": "application/json",
            }  # fmt: skip
            try:
                self._node.publish("sensors", name, body, properties)
            except ResourceLimitExceeded:
                return  # what was not confirmed takes all the room: later
            self.sent.append(message_id)
            self._published += 1

    def begin(self, now):
        self._begin = now
        self._published = 0

    def silence(self):
        self._begin = None

    def _on_status(self, got):
        self.asked_at = float(got.properties["correlation_id"])
        self.status = json.loads(got.body)

    @property
    def stored(self):
        """How many were confirmed."""
        return self._uplink()["settled"]

    def _bridge(self):
        return self._node.status()["bridges"]["edge"]

    def _uplink(self):
        return self._bridge()["uplinks"]["outbox"]

    def connected(self):
        return self._uplink()["state"] == "open"

    def confirmed(self):
        """The message-ids of those that were confirmed; the edge broker has ended before."""
        left = set()
        turn_until([self], lambda: not self.connected(), 5)
        self._node.subscribe("outbox", lambda got: left.add(_id(got)))
        turn_until([self], lambda: not self._uplink()["backlog"], 5)
        return set(self.sent) - left - self.refused

    def close(self):
        self._node.close()


def _sensor_settings(port):
    bridge = {
        **_STEADY, "name": "edge", "hosts": [f"{_HOST}:{port}"],
        "uplinks": [
            {"queue": "outbox", "retries": 2},
            {"queue": "ask", "exchange": "amq.status", "declare": "none", "priority": 1,
             "retries": 0, "refused": "drop"},
        ],
        "downlinks": [{"queue": "status", "exchange": "", "routing_key": "status"}],
    }  # fmt: skip
    return {
        "device": "sensors",
        "log_level": "warning",
        "limits": _FEW,
        "listeners": [],
        "exchanges": [_EXCHANGE],
        "queues": [
            {"name": "outbox"},
            {"name": "ask", "arguments": {"x-max-length": 1}},
            {"name": "status"},
        ],
        "bindings": [{"source": "sensors", "destination": "outbox", "routing_key": "#"}],
        "bridges": [bridge],
    }


def _id(got):
    return got.properties["message_id"].decode()


# --- upstream ---


class Upstream:
    """Where the edge broker forwards to, and who counts what arrives there.

    address  what place() returned: of another broker, in which a queue is made for the time of
             the demo; None: a broker in this process
    folder   for the store of that one

    arrived  message-id: how often it came
    """

    def __init__(self, address, folder):
        self.arrived = {}
        self.arrivals = 0
        self.last_at = 0  # s, when the last one came
        self.embedded = address is None
        if self.embedded:
            self.queue = QUEUE
            self.login = {}
            self._node = Node(_embedded_settings(os.path.join(folder, "upstream.ring")))
            self.host, self.port = _HOST, self._node.reactor.listeners[0].port
        else:
            self.queue = "amqp-lite-demo-" + secrets.token_hex(4)
            self.host, self.port, self.login = address
            self._node = Node(_observer_settings(address, self.queue))
        self._node.subscribe(self.queue, self._on_message)

    @property
    def name(self):
        return f"{self.host}:{self.port}"

    def _on_message(self, got):
        message_id = _id(got)
        self.arrived[message_id] = self.arrived.get(message_id, 0) + 1
        self.arrivals += 1
        self.last_at = time.monotonic()

    def turn(self, now):
        self._node.step(_TURN_MS)

    def is_open(self):
        """Whether what is needed there is there."""
        return self.embedded or self._downlink()["state"] == "open"

    def error(self):
        """Why it is not; "" when that is not known."""
        return without_errno(self._bridge()["last_error"] or self._downlink()["last_error"])

    def _bridge(self):
        return self._node.status()["bridges"]["upstream"]

    def _downlink(self):
        return self._bridge()["downlinks"][self.queue]

    def clean_up(self):
        """Delete what was made in the other broker: whether nothing is left there."""
        if self.embedded:
            return True
        engines = self._node.reactor.connections()
        if not engines or not self.is_open():
            return False
        # With no-wait: its proof is that the consumer is told of it.
        link = engines[0].links[-1]
        arguments = (0, self.queue.encode(), False, False, True)
        engines[0].output.put(
            link.number, method_frame(link.number, _QUEUE_DELETE, arguments, "Hsbbb")
        )
        self._node.reactor.hurry()
        return turn_until([self], lambda: self._downlink()["last_error"] != "", 3)

    def close(self):
        self._node.close()


def _embedded_settings(path):
    return {
        "device": "upstream",
        "log_level": "warning",
        "limits": _FEW,
        "store": {"kind": "file", "path": path, "size": 64 << 20},
        "listeners": [{"host": _HOST, "port": 0}],
        "queues": [{"name": QUEUE}],
    }


def _observer_settings(address, queue):
    host, port, login = address
    downlink = {
        "queue": queue, "exchange": "", "routing_key": queue, "declare": "classic",
        "prefetch": 256,
    }  # fmt: skip
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    bridge = {
        **login, **_STEADY, "name": "upstream", "hosts": [place], "downlinks": [downlink],
    }  # fmt: skip
    return {
        "device": "observer",
        "log_level": "warning",
        "limits": _FEW,
        "listeners": [],
        "queues": [{"name": queue}],
        "bridges": [bridge],
    }


def place(url):
    """(host, port, login) of an AMQP URL; login: keys of a bridge. Raises CommandError."""
    # It may hold a password, and is not repeated.
    wrong = CommandError("--upstream: expected a URL such as amqp://guest:guest@localhost:5672/")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("amqp", "amqps") or not parts.hostname or parts.query:
        raise wrong
    secure = parts.scheme == "amqps"
    login = {
        "user": unquote(parts.username or "guest"),
        "password": unquote(parts.password or "guest"),
        "vhost": unquote(parts.path[1:]) or "/",
        # Its name is not the one that the edge broker connects to, which is the cable's.
        "tls": {"server_name": parts.hostname} if secure else None,
    }
    return parts.hostname, port or (5671 if secure else 5672), login


# --- the network ---


class Cable:
    """The network between the edge broker and upstream: it carries octets until it is cut.

    host, port  of upstream

    port  where the edge broker connects to
    """

    def __init__(self, host, port):
        self._target = (host, port)
        self._selector = selectors.DefaultSelector()
        self._listener = None
        self._ends = []
        self.port = 0
        self.restore()

    def restore(self):
        """Carry connections again, at the same port."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HOST, self.port))
        listener.listen()
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ)

    def cut(self):
        """End every connection, and refuse new ones."""
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
        for end in list(self._ends):
            self._drop(end)

    @property
    def is_cut(self):
        return self._listener is None

    def turn(self, now):
        if not self._selector.get_map():
            return
        for key, events in self._selector.select(_TURN_MS / 1000):
            if key.data is None:
                self._accept()
            elif key.data in self._ends:  # else it went with its other end
                self._carry(key.data, events)

    def _accept(self):
        try:
            edge, _ = self._listener.accept()
        except OSError:
            return
        try:
            upstream = socket.create_connection(self._target, 5)
        except OSError:
            edge.close()
            return
        ends = [_End(edge), _End(upstream)]
        for end, other in (ends, ends[::-1]):
            end.other = other
            end.sock.setblocking(False)
            end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(end.sock, selectors.EVENT_READ, end)
        self._ends += ends

    def _carry(self, end, events):
        try:
            if events & selectors.EVENT_READ:
                octets = end.sock.recv(65536)
                if not octets:
                    raise ConnectionResetError
                # What waits has no limit of its own: the edge broker's window is one.
                end.other.waiting += octets
                self._send(end.other)
            if events & selectors.EVENT_WRITE:
                self._send(end)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(end)

    def _send(self, end):
        try:
            del end.waiting[: end.sock.send(end.waiting)]
        except BlockingIOError:
            pass
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if end.waiting else 0)
        if self._selector.get_key(end.sock).events != events:
            self._selector.modify(end.sock, events, end)

    def _drop(self, end):
        for one in (end, end.other):
            if one in self._ends:
                self._ends.remove(one)
                self._selector.unregister(one.sock)
                one.sock.close()

    def close(self):
        self.cut()
        self._selector.close()


class _End:
    """One end of a connection that the cable carries."""

    def __init__(self, sock):
        self.sock = sock
        self.other = None
        self.waiting = bytearray()  # to be sent here
