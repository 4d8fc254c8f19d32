"""The processes of fleet.py: edges, pika connections, a consumer; and how to talk to them.

    python3 fleet_workers.py edges|pika|consume JOB     JOB is a JSON object

It first prints a line of JSON when it is ready. Edges and pika connections then obey orders, one
line of JSON each on standard input, {"do": name of a method, ...}, and answer each with a line;
the consumer ends by itself with its result. {"error": text} tells of a failure. What nodes log
goes to standard error.
"""

import asyncio
import collections
import contextlib
import json
import os
import pathlib
import select
import struct
import subprocess
import sys
import time

import brokers
import compare
import load

# In front: what is measured is this checkout.
sys.path[:0] = [str(brokers.ROOT / "lib")]

EXCHANGE = b"fleet"
QUEUES = 4
SIZE = 256  # octets of a body
RING = 2 << 20  # octets of an edge's store
PERSISTENT = {"delivery_mode": 2}
# Of an edge: 200 such are to fit into one machine.
LIMITS = {
    "connections": 4, "unauthenticated": 2, "channels": 8, "receive_buffer": 4096,
    "send_buffer": 32768, "frame_max": 16384, "exchanges": 16, "queues": 16, "bindings": 32,
    "consumers": 16, "messages": 256, "deliveries": 256, "block_size": 256, "blocks": 768,
    "message_max": 65536, "stored_max": 65536, "routes": 8, "log_lines": 8,
}  # fmt: skip

_DELIVER = struct.pack(">HH", *load.DELIVER)
_CONSUME_OK = struct.pack(">HH", *load.CONSUME_OK)
FAILURES = (brokers.BrokerError, load.LoadError, compare.RunError, OSError,
            subprocess.SubprocessError)  # fmt: skip


# --- the edges: a process with some of them ---


class Edge:
    """One node, driven from outside, and what happens to its connection."""

    def __init__(self, number, job, events):
        from amqp_lite.node import Node

        self.number = number
        self.published = 0
        self.left = 0
        self.node = Node(edge_settings(number, job))
        [(self.upstream, _)] = self.node._bridges
        [self.uplink] = self.upstream.uplinks
        self.queue = self.node.broker.queue(b"telemetry")
        self.behind = True  # since the connection was lost, until nothing is waiting
        self.due = 0
        self._events = events
        for name in ("dial", "opened", "lost"):
            setattr(self.upstream, name, self._noted(name, getattr(self.upstream, name)))

    def _noted(self, name, call):
        def noted(*arguments):
            if name != "lost" or self.upstream.connected:
                self._events[name].append(time.monotonic_ns())
            if name == "lost":
                self.behind = True
            call(*arguments)

        return noted

    def fileno(self):
        # The node's poller can be polled itself: no node turns without a reason.
        return self.node.reactor._poller._selector.fileno()

    def step(self):
        node = self.node
        node.step(0)
        reactor = node.reactor
        self.due = 0 if reactor._again else time.monotonic() + reactor._next_tick / 1000
        if self.behind and self.uplink.link is not None and not self.queue.waiting():
            self.behind = False
            self._events["caught up"].append(time.monotonic_ns())

    def unsettled(self):
        return self.queue.waiting() + self.queue.unacked


class Edges:
    """Serves its edges all the time, and obeys orders, one by one."""

    def __init__(self, job):
        before = rss_kb()
        self.events = collections.defaultdict(list)
        self._window = job["window"]
        self._body = bytearray(SIZE)
        self.edges = [Edge(number, job, self.events) for number in job["numbers"]]
        self._orders = Orders()
        self._poll = select.epoll()
        self._by_fd = {edge.fileno(): edge for edge in self.edges}
        for fd in self._by_fd:
            self._poll.register(fd, select.EPOLLIN)
        self._poll.register(self._orders.fd, select.EPOLLIN)
        self._rss_before = before

    def serve(self):
        self._until(lambda: all(edge.uplink.link for edge in self.edges), 60)
        say({"rss_kb": (rss_kb() - self._rss_before) / len(self.edges)})
        while True:
            order = self._orders.next()
            if order is None:
                if self._orders.ended:
                    break
                self.turn(time.monotonic() + 1)
                continue
            cpu = time.process_time()
            result = getattr(self, order.pop("do"))(**order)
            result["cpu_s"] = time.process_time() - cpu
            say(result)
        for edge in self.edges:
            edge.node.close()

    def turn(self, until):
        """Let all nodes work that have a reason to; wait for one at most *until*."""
        wait = min([edge.due for edge in self.edges])
        wait = min(wait, until) - time.monotonic()
        for fd, _ in self._poll.poll(max(wait, 0)):
            if fd == self._orders.fd:
                self._orders.read()
            else:
                self._by_fd[fd].step()
        now = time.monotonic()
        for edge in self.edges:
            if edge.due <= now:
                edge.step()

    def _until(self, condition, seconds):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                states = [edge.upstream.status("?") for edge in self.edges]
                raise compare.RunError("not within %d s, worst edge: %s" % (
                    seconds, max(states, key=lambda row: row["uplinks"]["telemetry"]["backlog"])
                ))  # fmt: skip
            self.turn(time.monotonic() + 0.1)

    def _publish(self, edge, stamp):
        from amqp_lite.errors import ResourceLimitExceeded

        struct.pack_into(">QQ", self._body, 0, stamp, edge.number << 32 | edge.published)
        try:
            edge.node.publish("", "telemetry", self._body, PERSISTENT)
        except ResourceLimitExceeded:
            raise compare.RunError("edge %d is full" % edge.number)
        edge.published += 1
        edge.due = 0

    # --- orders ---

    def rate(self, rate, seconds):
        """Publish *rate* messages/s at each edge, one by one."""
        count = int(rate * seconds) * len(self.edges)
        first = time.monotonic()
        for k in range(count):
            due = first + k / (rate * len(self.edges))
            while time.monotonic() < due:
                self.turn(due)
            self._publish(self.edges[k % len(self.edges)], int(due * 1e9))
            self.turn(0)
        self._until(self._is_drained, 120)
        return {"published": count, "first_ns": int(first * 1e9)}

    def fast(self, count):
        """Publish *count* messages at each edge, `window` of them unsettled all the time."""
        first = time.monotonic_ns()
        for edge in self.edges:
            edge.left = count
        while any(edge.left for edge in self.edges):
            for edge in self.edges:
                while edge.left and edge.unsettled() < self._window:
                    self._publish(edge, 0)
                    edge.left -= 1
            self.turn(time.monotonic() + 0.1)
        self._until(self._is_drained, 120)
        return {"published": count * len(self.edges), "first_ns": first}

    def fill(self, count):
        """Publish *count* messages at each edge while upstream is away."""
        first = time.monotonic_ns()
        for k in range(count):
            for edge in self.edges:
                self._publish(edge, 0)
            if k % 16 == 15:
                self.turn(0)
        for edge in self.edges:
            edge.step()
        return {"published": count * len(self.edges), "first_ns": first}

    def drain(self):
        """Until upstream has confirmed everything."""
        self._until(self._is_drained, 120)
        return {"drained_ns": time.monotonic_ns()}

    def take_events(self):
        events = dict(self.events)
        self.events.clear()
        resent = sum([edge.uplink.resent for edge in self.edges])
        return {"events": events, "resent": resent, "rss_kb": rss_kb()}

    def _is_drained(self):
        return not any(edge.behind or edge.unsettled() for edge in self.edges)


def edge_settings(number, job):
    device = "line%d.edge-%d" % (number % QUEUES, number)
    link = {
        "queue": "telemetry", "exchange": EXCHANGE.decode(), "window": job["window"],
        "routing_key": "{device}.{routing_key}",
    }  # fmt: skip
    bridge = {
        "name": "cloud", "hosts": ["%s:%d" % (job["host"], job["port"])], "uplinks": [link],
        "retry_max": job["retry_max"],
    }  # fmt: skip
    path = os.path.join(job["folder"], "%d.ring" % number)
    return {
        "device": device, "limits": LIMITS, "listeners": [], "log_level": "error",
        "store": {"kind": "file", "path": path, "size": job.get("ring", RING)},
        "queues": [{"name": "telemetry"}], "bridges": [bridge],
    }  # fmt: skip


class Orders:
    """Lines of JSON on standard input, read without waiting."""

    fd = 0

    def __init__(self):
        self.ended = False
        self._octets = b""

    def read(self):
        octets = os.read(self.fd, 65536)
        self.ended = not octets
        self._octets += octets

    def next(self):
        """The next order, a dict; None when there is none yet."""
        line, end, rest = self._octets.partition(b"\n")
        if not end:
            return None
        self._octets = rest
        return json.loads(line)


# --- pika: a process with some connections ---


class PikaEdge:
    """A connection that publishes with confirms; what is not confirmed stays in RAM."""

    def __init__(self, number, job, fleet):
        import pika
        from pika.adapters.asyncio_connection import AsyncioConnection

        self.number = number
        self.published = 0
        self.waiting = collections.deque()  # stamps
        self.in_flight = {}  # delivery tag -> body
        self.channel = None
        self.ready = False
        self._fleet = fleet
        self._key = "line%d.edge-%d.telemetry" % (number % QUEUES, number)
        self._window = job["window"]
        self._tag = 0
        self._properties = pika.BasicProperties
        AsyncioConnection(
            pika.ConnectionParameters(job["host"], job["port"]),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
            on_open_error_callback=fleet.failed, on_close_callback=fleet.failed,
        )  # fmt: skip

    def _opened(self, channel):
        self.channel = channel
        channel.confirm_delivery(self._confirmed, callback=self._is_ready)

    def _is_ready(self, _):
        self.ready = True
        self._fleet.moved()

    def pump(self):
        while self.waiting and len(self.in_flight) < self._window:
            stamp = self.waiting.popleft()
            number = self.number << 32 | self.published
            body = struct.pack(">QQ", stamp, number) + bytes(SIZE - 16)
            self.published += 1
            self._tag += 1
            self.in_flight[self._tag] = body
            properties = self._properties(delivery_mode=2, message_id="%016x" % number)
            self.channel.basic_publish(EXCHANGE.decode(), self._key, body, properties)

    def _confirmed(self, frame):
        method = frame.method
        if method.NAME != "Basic.Ack":
            self._fleet.failed(self, "nacked")
        elif method.multiple:
            for tag in [tag for tag in self.in_flight if tag <= method.delivery_tag]:
                del self.in_flight[tag]
        else:
            del self.in_flight[method.delivery_tag]
        self.pump()
        if not self.in_flight:
            self._fleet.moved()


class Pikas:
    def __init__(self, job):
        self._job = job
        self._orders = Orders()
        self._error = None

    def serve(self):
        asyncio.run(self._serve())

    async def _serve(self):
        loop = asyncio.get_running_loop()
        self._moved = asyncio.Event()
        loop.add_reader(self._orders.fd, self._read)
        before = rss_kb()
        self.edges = [PikaEdge(number, self._job, self) for number in self._job["numbers"]]
        await self._until(lambda: all(edge.ready for edge in self.edges))
        say({"rss_kb": (rss_kb() - before) / len(self.edges)})
        while not self._orders.ended:
            order = self._orders.next()
            if order is None:
                await self._wait(1)
                continue
            cpu = time.process_time()
            result = await getattr(self, order.pop("do"))(**order)
            result["cpu_s"] = time.process_time() - cpu
            say(result)

    def _read(self):
        self._orders.read()
        if self._orders.ended:
            asyncio.get_running_loop().remove_reader(self._orders.fd)
        self.moved()

    def moved(self):
        self._moved.set()

    def failed(self, _, why):
        self._error = why
        self.moved()

    async def _wait(self, seconds):
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._moved.wait(), seconds)
        self._moved.clear()

    async def _until(self, condition):
        while not condition():
            if self._error is not None:
                raise compare.RunError("pika: %s" % (self._error,))
            await self._wait(1)

    async def rate(self, rate, seconds):
        count = int(rate * seconds) * len(self.edges)
        first = time.monotonic()
        for k in range(count):
            due = first + k / (rate * len(self.edges))
            wait = due - time.monotonic()
            # Not at all would keep the loop from reading.
            await asyncio.sleep(max(wait, 0))
            edge = self.edges[k % len(self.edges)]
            edge.waiting.append(int(due * 1e9))
            edge.pump()
        await self._until(self._is_drained)
        return {"published": count, "first_ns": int(first * 1e9)}

    async def fast(self, count):
        first = time.monotonic_ns()
        for edge in self.edges:
            edge.waiting.extend([0] * count)
            edge.pump()
        await self._until(self._is_drained)
        return {"published": count * len(self.edges), "first_ns": first}

    def _is_drained(self):
        return not any(edge.waiting or edge.in_flight for edge in self.edges)


# --- the consumer: a process ---


def consume(job):
    """Take *count* different messages out of `queues`, and all that comes within a second more."""
    conn = load.Connection(job)
    conn.open_channel()
    conn.call(load.QOS, struct.pack(">LHB", 0, 1000, 0), load.QOS_OK)
    for name in job["queues"]:
        # The answer may come behind deliveries: deliveries() takes both.
        consumer = load.short(name.encode())
        conn.send(load.method(1, load.CONSUME, b"\0\0" + consumer + consumer + b"\0"
                              + load.long(b"")))  # fmt: skip
    say({})
    ids = set()
    latencies = []
    received = first = last = 0
    cpu = time.process_time()
    deadline = time.monotonic() + job["seconds"]
    while time.monotonic() < deadline:
        if not conn.readable(0.1 if len(ids) < job["count"] else 1):
            if len(ids) >= job["count"]:
                break
            continue
        conn.fill()
        tag = 0
        now = time.monotonic_ns()
        for tag, name, stamp in deliveries(conn):  # noqa: B007 (the last one is acknowledged)
            received += 1
            if name not in ids:
                ids.add(name)
                if stamp:
                    latencies.append(now - stamp)
                first = first or now
                last = now
        if tag:
            conn.send(load.method(1, load.ACK, struct.pack(">QB", tag, 1)))
    cpu = time.process_time() - cpu
    conn.close()
    say({
        "distinct": len(ids), "duplicates": received - len(ids), "first_ns": first,
        "last_ns": last, "latency_ms": load.percentiles(latencies), "cpu_s": cpu,
    })  # fmt: skip


def deliveries(conn):
    """(delivery tag, message-id, time stamp) of each whole message in the buffer."""
    while True:
        begin = conn.start
        got = conn.next_frame()
        if got is None:
            return
        if got[2][:4] != _DELIVER:
            if got[2][:4] != _CONSUME_OK:
                conn.note(got, "consuming")
            continue
        header = conn.next_frame()
        body = header and conn.next_frame()
        if not body:
            conn.start = begin
            return
        tag = struct.unpack_from(">Q", got[2], 5 + got[2][4])[0]
        yield tag, message_id(header[2]), struct.unpack_from(">Q", body[2])[0]


def message_id(header):
    """Of messages that have headers, delivery-mode and message-id at most."""
    flags = struct.unpack_from(">H", header, 12)[0]
    at = 14
    if flags & ~0x3080:
        raise load.LoadError("unexpected properties: flags %04x" % flags)
    if flags & 0x2000:
        at += 4 + struct.unpack_from(">L", header, at)[0]
    at += bool(flags & 0x1000)
    return header[at + 1 : at + 1 + header[at]]


# --- to talk to them ---


class Worker:
    """A process of this file that obeys orders."""

    def __init__(self, role, job):
        # A session of its own: Ctrl-C is for this process, which then ends them.
        self.process = subprocess.Popen(
            [sys.executable, __file__, role, json.dumps(job)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def order(self, what, **more):
        self.process.stdin.write(json.dumps(dict(more, do=what)).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self):
        if not select.select([self.process.stdout], [], [], compare.RUN_S)[0]:
            raise compare.RunError("no answer within %d s" % compare.RUN_S)
        line = self.process.stdout.readline()
        if not line:
            raise compare.RunError("a worker has ended")
        result = json.loads(line)
        if "error" in result:
            raise compare.RunError(result["error"])
        return result

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Workers:
    """Some processes that share *edges* among them."""

    def __init__(self, role, job, edges, processes):
        self.all = []
        for k in range(processes):
            numbers = list(range(k, edges, processes))
            self.all.append(Worker(role, dict(job, numbers=numbers)))
        self.edges = edges

    def order(self, what, **more):
        for worker in self.all:
            worker.order(what, **more)

    def answers(self):
        return [worker.answer() for worker in self.all]

    def ask(self, what, **more):
        self.order(what, **more)
        return self.answers()

    def end(self):
        for worker in self.all:
            worker.process.stdin.close()
        for worker in self.all:
            worker.end()


def declare(conn, name):
    """A durable queue: its name."""
    conn.call(load.DECLARE, b"\0\0" + load.short(name.encode()) + b"\2" + load.long(b""),
              load.DECLARE_OK)  # fmt: skip
    return name


# --- what all processes have ---


def say(result):
    print(json.dumps(result), file=_answers, flush=True)


def rss_kb():
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


ROLES = {
    "edges": lambda job: Edges(job).serve(), "pika": lambda job: Pikas(job).serve(),
    "consume": consume,
}  # fmt: skip

_answers = sys.stdout

if __name__ == "__main__":
    sys.stdout = sys.stderr  # the nodes' log
    try:
        ROLES[sys.argv[1]](json.loads(sys.argv[2]))
    except FAILURES as e:
        say({"error": "%s: %s" % (sys.argv[1], e)})
        sys.exit(1)
