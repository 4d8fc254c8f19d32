"""A fleet of edge brokers that bridge to one RabbitMQ, on good days and bad ones. Linux only.

    python tests/bench/fleet.py                     200 edges, 4 to 5 minutes
    python tests/bench/fleet.py --edges 20 --quick  half a minute
    python tests/bench/fleet.py --micropython       one edge with a Pico W's numbers, 3 minutes
    python tests/bench/fleet.py --profile           where an edge that drains spends its time

Edges are amqp_lite.Node objects in a few processes (`--processes 200`: one each), every one with a
durable queue on a ring of its own in a file, and an uplink to a topic exchange that leads to four
durable queues. What is published is persistent, 256 octets of body. The file is in /dev/shm when
there is such a folder: each edge has flash of its own, and this machine one disk for all.
RabbitMQ's files are in the folder for temporary files. One more process consumes.

  steady   so many messages/s from each edge, stamped when they are published; latency is up to the
           consumer. `fast`: each edge has always `window` messages that are not confirmed
  pika     in turns with the edges, the same from as many plain pika connections with confirms,
           which keep nothing on flash
  drain    upstream was stopped, and a backlog is waiting when it comes back
  killed   upstream is killed with SIGKILL, stays away for some seconds and starts again
  closed   upstream closes all connections at once and is there all the time
  busy     as `killed`, while all edges have a whole window in flight
           All edges go on publishing. Times are from the moment upstream takes connections

Nothing consumes while upstream is away and until all is confirmed: acknowledgements that RabbitMQ
forgets when it is killed would count as duplicates of the edges'. Lost are messages the edge took
and the consumer did not get; duplicates have the message-id of one that came before. The exit code
is 1 when one is lost or there are more duplicates than edges * window for each fault.

--micropython is described in fleet_board.py.
"""

import argparse
import collections
import contextlib
import cProfile
import os
import pstats
import signal
import statistics
import sys
import tempfile
import time

import brokers
import compare
import fleet_board
import load
from compare import number, print_cells
from fleet_workers import (
    EXCHANGE,
    FAILURES,
    PERSISTENT,
    QUEUES,
    SIZE,
    Edge,
    Worker,
    Workers,
    declare,
)

sys.path += [str(brokers.ROOT / "tests" / name) for name in ("upstream", "interop", "portable")]

AWAY_S = 5  # that RabbitMQ stays away after SIGKILL, besides its start
CALM_S = 31  # a connection that lasted so long sets the back-off back, see upstream.py
BACKLOG = 500
FAST = 100  # messages of each edge
BUSY = 300
STORMS = ("killed", "closed", "busy")

EXCHANGE_DECLARE, EXCHANGE_DECLARE_OK = (40, 10), (40, 11)


class Bench:
    """
    rabbitmq  running; edges: Workers
    """

    def __init__(self, options, rabbitmq, folder):
        self.options = options
        self.rabbitmq = rabbitmq
        self.edges = None
        self.queues = []
        self._queue_number = 0
        self.job = dict(
            rabbitmq.address(), size=SIZE, window=options.window, retry_max=options.retry_max,
            folder=folder, seconds=120,
        )  # fmt: skip
        self.failed = False
        self._resent = 0  # so far, by all edges

    def control(self):
        conn = load.Connection(self.job)
        conn.open_channel()
        return contextlib.closing(conn)

    def new_queues(self):
        """Four empty queues that nobody has acknowledged anything of; the old ones go."""
        with self.control() as conn:
            conn.call(EXCHANGE_DECLARE, b"\0\0" + load.short(EXCHANGE) + load.short(b"topic")
                      + b"\2" + load.long(b""), EXCHANGE_DECLARE_OK)  # fmt: skip
            old = self.queues
            self.queues = []
            for k in range(QUEUES):
                name = declare(conn, "fleet-%d-%d" % (self._queue_number, k))
                self.queues.append(name)
                conn.call(load.BIND, b"\0\0" + load.short(name.encode()) + load.short(EXCHANGE)
                          + load.short(b"line%d.#" % k) + b"\0" + load.long(b""),
                          load.BIND_OK)  # fmt: skip
            for name in old:
                conn.call(load.DELETE, b"\0\0" + load.short(name.encode()) + b"\0",
                          load.DELETE_OK)  # fmt: skip
        self._queue_number += 1

    @contextlib.contextmanager
    def consumer(self, count):
        worker = Worker("consume", dict(self.job, queues=self.queues, count=count))
        try:
            worker.answer()
            yield worker
        finally:
            worker.process.kill()
            worker.end()

    def consumed(self, count):
        """What is in the queues, of which *count* are different ones."""
        with self.consumer(count) as consumer:
            return consumer.answer()

    def steady(self, workers, what, expected, **more):
        """One run: what was published and consumed, as one row of figures."""
        with self.consumer(expected) as consumer:
            rabbitmq = self.rabbitmq.cpu_s()
            results = workers.ask(what, **more)
            got = consumer.answer()
            rabbitmq = self.rabbitmq.cpu_s() - rabbitmq
        published = sum(result["published"] for result in results)
        first = min(result["first_ns"] for result in results)
        seconds = (got["last_ns"] - first) / 1e9
        row = {
            "rate": got["distinct"] / seconds, "lost": published - got["distinct"],
            "duplicates": got["duplicates"],
            "cpu_us": sum(result["cpu_s"] for result in results) * 1e6 / published,
            "rabbitmq_us": rabbitmq * 1e6 / published,
            "cores": (sum(result["cpu_s"] for result in results) + rabbitmq + got["cpu_s"])
            / seconds,
        }  # fmt: skip
        if got["latency_ms"]:
            row.update(got["latency_ms"])
        self.check("steady", row, 0)
        return row

    def check(self, what, row, most):
        """Note a failure when *row* has lost messages or more duplicates than *most*."""
        if row["lost"] or row["duplicates"] > most:
            self.failed = True
            print("%s: FAILED: %d lost, %d duplicates, at most %d are right"
                  % (what, row["lost"], row["duplicates"], most), flush=True)  # fmt: skip

    # --- phases ---

    def compare(self):
        """Edges and pika in turns: {label: {"rate": [row], "fast": [row]}}."""
        options = self.options
        self.new_queues()
        fleets = {"edges": self.edges}
        rows = {}
        if options.pika:
            fleets["pika"] = Workers("pika", self.job, options.edges, options.processes)
        try:
            if options.pika:
                rss = [result["rss_kb"] for result in fleets["pika"].answers()]
                print("pika: %.2f MB RSS for each connection" % (statistics.mean(rss) / 1000))
            for label, fleet in fleets.items():
                count = int(options.rate * options.seconds) * options.edges
                row = self.steady(fleet, "rate", count, rate=options.rate,
                                  seconds=options.seconds)  # fmt: skip
                rows[label] = {"rate": [row], "fast": []}
                print("%-6s %5.0f messages/s, p50 %.1f ms" % (label, row["rate"], row["p50"]),
                      flush=True)  # fmt: skip
            for _ in range(options.repeat):
                for label, fleet in fleets.items():
                    row = self.steady(fleet, "fast", FAST * options.edges, count=FAST)
                    rows[label]["fast"].append(row)
                    print("%-6s %5.0f messages/s as fast as they go" % (label, row["rate"]),
                          flush=True)  # fmt: skip
        finally:
            if options.pika:
                fleets["pika"].end()
        return rows

    def drain(self):
        """Upstream comes back to a backlog: a row of figures."""
        self.new_queues()
        time.sleep(1)
        self.edges.ask("take_events")
        self.rabbitmq.stop()
        results = self.edges.ask("fill", count=self.options.backlog)
        published = sum(result["published"] for result in results)
        self.rabbitmq.start()
        up = time.monotonic_ns()
        cpu = self.rabbitmq.cpu_s()
        with self.consumer(published) as consumer:
            results = self.edges.ask("drain")
            got = consumer.answer()
        cpu = self.rabbitmq.cpu_s() - cpu
        row = self.recovery(up)
        row.update({
            "published": published, "lost": published - got["distinct"],
            "duplicates": got["duplicates"],
            "drained": (max(result["drained_ns"] for result in results) - up) / 1e9,
            "rate": published / ((got["last_ns"] - got["first_ns"]) / 1e9),
            "cpu_us": sum(result["cpu_s"] for result in results) * 1e6 / published,
            "rabbitmq_us": cpu * 1e6 / published,
        })  # fmt: skip
        self.check("drain", row, 0)
        return row

    def storm(self, what):
        """All edges lose upstream while they go on publishing: a row of figures."""
        options = self.options
        self.new_queues()
        print("%s: %d s of calm before" % (what, options.calm), flush=True)
        time.sleep(options.calm)
        self.edges.ask("take_events")
        if what == "busy":
            self.edges.order("fast", count=options.busy)
            time.sleep(1)
        else:
            self.edges.order("rate", rate=options.rate, seconds=options.storm_seconds)
            time.sleep(2)
        down = time.monotonic_ns()
        if what != "closed":
            self.rabbitmq.kill()
            time.sleep(AWAY_S)
            self.rabbitmq.start()
            up = time.monotonic_ns()
        else:
            self.rabbitmq.close_connections("a storm")
            up = None
        published = sum(result["published"] for result in self.edges.answers())
        row = self.recovery(up)
        row["away"] = ((up or down) - down) / 1e9
        got = self.consumed(published)
        row.update(published=published, lost=published - got["distinct"],
                   duplicates=got["duplicates"])  # fmt: skip
        self.check(what, row, options.edges * options.window)
        return row

    def recovery(self, up):
        """Figures of how all came back, in s after *up*; None: after the first was lost."""
        events = collections.defaultdict(list)
        resent = -self._resent
        for result in self.edges.ask("take_events"):
            resent += result["resent"]
            for name, times in result["events"].items():
                events[name] += times
        self._resent += resent
        up = up or min(events["lost"])
        opened = sorted(events["opened"])
        dials = sorted(events["dial"])
        if len(events["lost"]) < self.edges.edges or len(opened) < self.edges.edges:
            print("only %d edges lost upstream, %d came back" % (len(events["lost"]), len(opened)))

        def at(times, share):
            return (times[max(int(len(times) * share) - 1, 0)] - up) / 1e9

        # RabbitMQ takes connections a little before we know: the first may come before `up`.
        return {
            "first": max(at(opened, 0), 0), "half": at(opened, 0.5), "95 %": at(opened, 0.95),
            "all": at(opened, 1), "caught up": (max(events["caught up"]) - up) / 1e9,
            "dials": len(dials), "opened": len(opened),
            "peak away": peak([t for t in dials if t < up]),
            "peak": peak([t for t in dials if t >= up]), "resent": resent,
        }  # fmt: skip


def peak(times):
    """Most of *times*, in ns and in order, within one second."""
    most = first = 0
    for k, t in enumerate(times):
        while t - times[first] > 1000000000:
            first += 1
        most = max(most, k + 1 - first)
    return most


def fleet(options):
    from rabbitmq import RabbitMQ

    parent = options.stores or ("/dev/shm" if os.path.isdir("/dev/shm") else None)
    with contextlib.ExitStack() as ends:
        folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="amqp-fleet-", dir=parent))
        rabbitmq = RabbitMQ()
        ends.callback(rabbitmq.remove)
        rabbitmq.start()
        print("%s; %d edges in %d processes, window %d, stores in %s"
              % (rabbitmq.product, options.edges, options.processes, options.window,
                 parent or "the folder for temporary files"), flush=True)  # fmt: skip
        bench = Bench(options, rabbitmq, folder)
        bench.new_queues()
        bench.edges = Workers("edges", bench.job, options.edges, options.processes)
        ends.callback(bench.edges.end)
        rss = [result["rss_kb"] for result in bench.edges.answers()]
        print("edges: %.2f MB RSS for each when connected" % (statistics.mean(rss) / 1000))
        report_steady(bench.compare(), options)
        report_drain(bench.drain(), options)
        storms = []
        for what in options.storms:
            storms.append((what, bench.storm(what)))
            print("%s: all connected again after %.1f s" % (what, storms[-1][1]["all"]),
                  flush=True)  # fmt: skip
        report_storms(storms, options)
        rss = [result["rss_kb"] for result in bench.edges.ask("take_events")]
        print("edges: %.2f MB RSS for each in the end, with its share of Python"
              % (sum(rss) / options.edges / 1000))  # fmt: skip
        return bench.failed


def report_steady(rows, options):
    print("\n%d messages/s from each of %d edges for %d s, then %d messages from each as fast as "
          "they go (median of %d)"
          % (options.rate, options.edges, options.seconds, FAST, options.repeat))  # fmt: skip
    table = [["", "messages/s", "p50, ms", "p99, ms", "CPU us/message", "RabbitMQ", "cores",
              "fast: messages/s", "CPU us", "RabbitMQ", "duplicates", "lost"]]  # fmt: skip
    for label, runs in rows.items():
        steady = runs["rate"][0]
        fast = {name: compare.median(runs["fast"], name) for name in runs["fast"][0]}
        both = runs["rate"] + runs["fast"]
        table.append([
            label, number(steady["rate"]), number(steady["p50"], 1), number(steady["p99"], 1),
            number(steady["cpu_us"]), number(steady["rabbitmq_us"]), number(steady["cores"], 2),
            number(fast["rate"]), number(fast["cpu_us"]), number(fast["rabbitmq_us"]),
            sum(row["duplicates"] for row in both), sum(row["lost"] for row in both),
        ])  # fmt: skip
    if len(rows) == 2:
        ours, theirs = rows["edges"], rows["pika"]
        cells = ["edges / pika"]
        for kind, names in (("rate", ("rate", "p50", "p99", "cpu_us", "rabbitmq_us", "cores")),
                            ("fast", ("rate", "cpu_us", "rabbitmq_us"))):  # fmt: skip
            for name in names:
                pair = [compare.median(side[kind], name) for side in (ours, theirs)]
                cells.append(number(compare.ratio(*pair), 2))
        table.append(cells + ["", ""])
    print_cells(table)


def report_drain(row, options):
    print("\n%d messages wait at each edge, upstream starts" % options.backlog)
    print_cells([
        ["messages", "connected: first", "half", "95 %", "all, s", "all drained, s", "messages/s",
         "edge CPU us/message", "RabbitMQ", "duplicates", "lost"],
        [number(row["published"])]
        + [number(row[name], 1) for name in ("first", "half", "95 %", "all", "drained")]
        + [number(row[name]) for name in ("rate", "cpu_us", "rabbitmq_us", "duplicates", "lost")],
    ])  # fmt: skip


def report_storms(storms, options):
    if not storms:
        return
    print("\nreconnect storms, %d messages/s from each edge meanwhile (busy: %d messages as fast "
          "as they go), retry_max %d s;\nseconds after upstream is there"
          % (options.rate, options.busy, options.retry_max))  # fmt: skip
    table = [["", "away, s", "connected: first", "half", "95 %", "all", "all caught up",
              "attempts", "most/s away", "most/s", "messages", "sent again", "duplicates",
              "at most", "lost"]]  # fmt: skip
    for what, row in storms:
        table.append([
            what, *[number(row[name], 1) for name in (
                "away", "first", "half", "95 %", "all", "caught up")],
            *[number(row[name]) for name in (
                "dials", "peak away", "peak", "published", "resent", "duplicates")],
            number(options.edges * options.window), row["lost"],
        ])  # fmt: skip
    print_cells(table)


# --- where the time goes ---


def profile(options):
    """One edge drains a backlog to RabbitMQ under cProfile."""
    from rabbitmq import RabbitMQ

    with contextlib.ExitStack() as ends:
        folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="amqp-fleet-"))
        rabbitmq = RabbitMQ()
        ends.callback(rabbitmq.remove)
        rabbitmq.start()
        bench = Bench(options, rabbitmq, folder)
        for profiler in (None, cProfile.Profile()):
            bench.new_queues()
            with tempfile.TemporaryDirectory(dir=folder) as store:
                drain_one(dict(bench.job, folder=store, ring=16 << 20), options, profiler)
        stats = pstats.Stats(profiler).strip_dirs()
        stats.sort_stats("tottime").print_stats(32)
        stats.sort_stats("cumulative").print_stats(24)
    return False


def drain_one(job, options, profiler):
    edge = Edge(0, job, collections.defaultdict(list))
    edge.upstream.next_call = lambda now: None  # not yet
    body = bytes(SIZE)
    for k in range(options.messages):
        edge.node.publish("", "telemetry", body, PERSISTENT)
        if k % 16 == 0:
            edge.node.step(0)
    del edge.upstream.next_call
    while edge.uplink.link is None:
        edge.node.step(10)
    cpu = time.process_time()
    begin = time.monotonic()
    if profiler:
        profiler.enable()
    while edge.unsettled():
        edge.node.step(100)
    if profiler:
        profiler.disable()
    seconds = time.monotonic() - begin
    cpu = time.process_time() - cpu
    edge.node.close()
    print("%s: %d messages, %.0f messages/s, %.1f us CPU each" % (
        "under cProfile" if profiler else "plain", options.messages, options.messages / seconds,
        cpu * 1e6 / options.messages,
    ), flush=True)  # fmt: skip


def arguments():
    parser = argparse.ArgumentParser(
        description="A fleet of edge brokers that bridge to one RabbitMQ.",
        epilog="fleet.py's docstring says what is measured and how.",
    )
    add = parser.add_argument
    add("--micropython", action="store_true", help="one edge with a Pico W's numbers instead")
    add("--profile", action="store_true", help="one edge that drains, under cProfile, instead")
    add("--edges", type=int, default=200, help="default: %(default)s")
    add("--processes", type=int, default=4, help="that share them; default: %(default)s")
    add("--seconds", type=int, default=15, help="of the steady phase; default: %(default)s")
    add("--rate", type=float, default=5, help="messages/s of each edge; default: %(default)s")
    add("--window", type=int, default=64, help="unconfirmed messages; default: %(default)s")
    add("--backlog", type=int, default=BACKLOG, help="messages; default: %(default)s")
    add("--retry-max", type=int, default=10, help="s; default: %(default)s")
    add("--storms", default=",".join(STORMS), help="default: %(default)s")
    add("--stores", metavar="FOLDER", help="where the edges have their rings")
    add("--repeat", type=int, default=3, help="of short runs; default: %(default)s")
    add("--quick", action="store_true", help="no repetitions, no calm before storms")
    add("--no-pika", dest="pika", action="store_false", help="edges only")
    add("--sizes", default=",".join(map(str, fleet_board.SIZES)),
        help="of --micropython; default: %(default)s")  # fmt: skip
    add("--heap", help="of --micropython; default: twice a Pico W's")
    add("--messages", type=int, default=20000, help="of --profile; default: %(default)s")
    options = parser.parse_args()
    options.storms = [name for name in options.storms.split(",") if name]
    options.sizes = [int(size) for size in options.sizes.split(",")]
    options.calm = CALM_S
    options.storm_seconds = 30
    options.busy = BUSY
    options.processes = min(options.processes, options.edges)
    if options.quick:
        options.repeat = options.calm = 1
        options.storm_seconds = 15
        options.seconds = min(options.seconds, 5)
        options.backlog = min(options.backlog, 100)
    if not set(options.storms) <= set(STORMS) or not set(options.sizes) <= set(fleet_board.SIZES):
        parser.error("--storms takes %s, --sizes %s" % (", ".join(STORMS), fleet_board.SIZES))
    return options


def main():
    options = arguments()
    # SIGTERM must pass through each `finally`, which end what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    print("%s; load %.1f, %.1f, %.1f" % (compare.machine(), *os.getloadavg()))
    run = fleet_board.run if options.micropython else profile if options.profile else fleet
    try:
        return run(options)
    except FAILURES as error:
        return "%s: %s" % (run.__name__, error)


if __name__ == "__main__":
    sys.exit(main())
