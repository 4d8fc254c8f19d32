"""The load: a raw-socket AMQP 0-9-1 publisher and consumer that cost next to nothing.

Run by compare.py as two processes, one connection each, so that the broker is what gets measured:

- Publishes are encoded once. A batch of B different messages, all of one size, is kept twice in a
  row, so that any run of up to B messages from any start is one slice and one send:

      | 0 | 1 | ... | B-1 | 0 | 1 | ... | B-1 |

- Deliveries are counted, not decoded. All have one size, and the delivery tag, the only thing that
  changes, has a fixed width. So the place of the last whole message in the buffer is arithmetic;
  its tag tells whether the arithmetic holds, its body is the sample that is compared. When it does
  not hold (a broker may cut a body into frames as it likes) messages are walked frame by frame.
- Acknowledgements are encoded before the start and sent as slices.

It never uses anything that one of the brokers has and the other has not.

    python3 load.py publish|consume JOB     JOB is a JSON object with every field of JOB_FIELDS

Prints "ready" when the broker has answered everything before the load, waits for a line on
standard input, and ends with one line of JSON: the result, or {"error": "..."}.
"""
import json
import random
import resource
import select
import socket
import struct
import sys
import time

JOB_FIELDS = (
    "host", "port", "user", "password", "vhost",
    "queue",         # made by the consumer; one name per job
    "durable",       # False: transient, automatic ack. True: persistent, confirms, manual ack
    "size",          # octets of body, at least 16
    "count",         # messages
    "window",        # unconfirmed messages at most; durable jobs only
    "prefetch",      # of the consumer, 0 = no limit; durable jobs only
    "ack_every",     # 1: an ack for each message; N: one with `multiple` for N messages
    "rate",          # messages/s, each sent alone and stamped; 0 = as fast as possible
)

EXCHANGE = b"amq.topic"
ROUTING_KEY = b"bench.line4.temperature"
BINDING_KEY = b"bench.*.temperature"

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_FRAME_END = b"\xce"
_CHANNEL = 1
_STALL_S = 30              # no octet for so long: the broker has lost a message or hangs
_BUFFER = 1 << 18          # one receive; also the longest message that is counted
_BATCH_OCTETS = 1 << 16    # of publishes in one send
_LATE_NS = 1000000         # behind schedule by more than this is not the timer's inaccuracy

START, START_OK, TUNE, TUNE_OK = (10, 10), (10, 11), (10, 30), (10, 31)
OPEN, OPEN_OK, CLOSE, CLOSE_OK = (10, 40), (10, 41), (10, 50), (10, 51)
BLOCKED, UNBLOCKED = (10, 60), (10, 61)
CHANNEL_OPEN, CHANNEL_OPEN_OK = (20, 10), (20, 11)
CHANNEL_CLOSE, CHANNEL_CLOSE_OK = (20, 40), (20, 41)
DECLARE, DECLARE_OK, BIND, BIND_OK = (50, 10), (50, 11), (50, 20), (50, 21)
DELETE, DELETE_OK = (50, 40), (50, 41)
QOS, QOS_OK, CONSUME, CONSUME_OK, CANCEL = (60, 10), (60, 11), (60, 20), (60, 21), (60, 30)
PUBLISH, DELIVER, ACK, NACK = (60, 40), (60, 60), (60, 80), (60, 120)
SELECT, SELECT_OK = (85, 10), (85, 11)


class LoadError(Exception):
    """The broker refused, closed, stalled, or delivered something that was not published."""


def short(text):
    return bytes((len(text),)) + text


def long(data):
    return struct.pack(">L", len(data)) + data


def frame(kind, channel, payload):
    return struct.pack(">BHL", kind, channel, len(payload)) + payload + _FRAME_END


def method(channel, name, arguments=b""):
    return frame(_METHOD, channel, struct.pack(">HH", *name) + arguments)


def encode_publish(body, durable):
    """One basic.publish: method, header and body frame. The only property is delivery_mode."""
    header = struct.pack(">HHQHB", 60, 0, len(body), 0x1000, 2 if durable else 1)
    return (method(_CHANNEL, PUBLISH, b"\0\0" + short(EXCHANGE) + short(ROUTING_KEY) + b"\0")
            + frame(_HEADER, _CHANNEL, header) + frame(_BODY, _CHANNEL, body))


def batch_length(size):
    """Messages in a batch; publisher and consumer count modulo it."""
    return max(16, _BATCH_OCTETS // (size + 80))


def batch_bodies(size):
    """The bodies of a batch: 8 octets for a time stamp, 8 with the index, noise from a seed."""
    noise = random.Random(size).randbytes(size)
    return [struct.pack(">QQ", 0, index) + noise[16:] for index in range(batch_length(size))]


class Connection:
    """A blocking connection with one channel open and a receive buffer.

    buf[start:end] holds received octets that nobody has taken yet.
    """

    def __init__(self, job):
        self.buf = memoryview(bytearray(_BUFFER))
        self.start = self.end = 0
        self.blocked = False
        self.times_blocked = 0
        self.sock = socket.create_connection((job["host"], job["port"]), _STALL_S)
        # The kernel's timeouts cost nothing; Python's would add a poll() to each call.
        self.sock.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _STALL_S, 0))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._open(job)
        except BaseException:
            self.sock.close()
            raise

    def _open(self, job):
        self.send(b"AMQP\0\0\x09\x01")
        self.product = _product(self.expect(START))
        capabilities = b"".join(
            short(name) + b"t\1"
            for name in (b"publisher_confirms", b"consumer_cancel_notify", b"basic.nack",
                         b"connection.blocked", b"authentication_failure_close"))
        plain = b"\0" + job["user"].encode() + b"\0" + job["password"].encode()
        self.send(method(0, START_OK, long(short(b"capabilities") + b"F" + long(capabilities))
                         + short(b"PLAIN") + long(plain) + short(b"en_US")))
        channel_max, frame_max, _ = struct.unpack_from(">HLH", self.expect(TUNE))
        if frame_max and frame_max < job["size"] + 8:
            raise LoadError("frame_max %d is too small for one body frame" % frame_max)
        # No heartbeats: a frame that is not a delivery would only disturb the counting.
        self.send(method(0, TUNE_OK, struct.pack(">HLH", channel_max, frame_max, 0)))
        self.send(method(0, OPEN, short(job["vhost"].encode()) + b"\0\0"))
        self.expect(OPEN_OK)

    def open_channel(self):
        return self.call(CHANNEL_OPEN, b"\0", CHANNEL_OPEN_OK)

    def close(self):
        self.send(method(0, CLOSE, struct.pack(">H", 200) + short(b"") + b"\0\0\0\0"))
        self.expect(CLOSE_OK)
        self.sock.close()

    def call(self, name, arguments, answer):
        self.send(method(_CHANNEL, name, arguments))
        return self.expect(answer)

    def send(self, data):
        try:
            self.sock.sendall(data)
        except BlockingIOError:
            raise LoadError("the broker took nothing for %d s" % _STALL_S) from None

    def fill(self):
        """Wait for octets and put them behind what the buffer still holds."""
        rest = self.end - self.start
        if self.start:
            self.buf[:rest] = self.buf[self.start:self.end]
            self.start, self.end = 0, rest
        if rest == len(self.buf):
            raise LoadError("a frame or message of more than %d octets" % rest)
        try:
            n = self.sock.recv_into(self.buf[rest:])
        except BlockingIOError:
            raise LoadError("nothing from the broker for %d s" % _STALL_S) from None
        if not n:
            raise LoadError("the broker closed the connection")
        self.end += n

    def readable(self, seconds):
        return bool(select.select([self.sock], [], [], seconds)[0])

    def next_frame(self):
        """Take the next whole frame: (type, channel, payload as bytes), or None."""
        if self.end - self.start < 8:
            return None
        kind, channel, length = struct.unpack_from(">BHL", self.buf, self.start)
        stop = self.start + 7 + length
        if stop >= self.end:
            return None
        if self.buf[stop] != _FRAME_END[0]:
            raise LoadError("a frame without frame-end")
        payload = bytes(self.buf[self.start + 7:stop])
        self.start = stop + 1
        return kind, channel, payload

    def expect(self, name):
        """Wait for one method and return its arguments. Used outside the measured part only."""
        while True:
            got = self.next_frame()
            if got is None:
                self.fill()
            elif got[0] == _METHOD and struct.unpack_from(">HH", got[2]) == name:
                return got[2][4:]
            else:
                self.note(got, "waiting for %d.%d" % name)

    def note(self, got, doing):
        """Deal with a frame that may come at any time; LoadError for all others."""
        kind, _, payload = got
        if kind == _HEARTBEAT:
            return
        if kind == _METHOD:
            name = struct.unpack_from(">HH", payload)
            if name == BLOCKED:
                self.blocked = True
                self.times_blocked += 1
                return
            if name == UNBLOCKED:
                self.blocked = False
                return
            if name in (CLOSE, CHANNEL_CLOSE):
                code, length = struct.unpack_from(">HB", payload, 4)
                raise LoadError("%s: broker closed with %d %s"
                                % (doing, code, payload[7:7 + length].decode("utf-8", "replace")))
            raise LoadError("%s: unexpected method %d.%d" % ((doing,) + name))
        raise LoadError("%s: unexpected frame of type %d" % (doing, kind))


def _product(start):
    """"RabbitMQ 3.10.8" out of the arguments of connection.start."""
    words = []
    for key in (b"\x07productS", b"\x07versionS"):
        at = start.find(key)
        if at >= 0:
            at += len(key)
            length = struct.unpack_from(">L", start, at)[0]
            words.append(start[at + 4:at + 4 + length].decode("utf-8", "replace"))
    return " ".join(words)


# --- publisher ---

class Confirms:
    """Counts confirms of delivery tags 1..count, in any order, single or multiple."""

    def __init__(self, conn, count):
        self.conn = conn
        self.flags = bytearray(count + 1)    # one octet per tag: 1 = confirmed
        self.flags[0] = 1
        self.low = 1                         # every tag below is confirmed
        self.done = 0
        self.sent_ns = None                  # list of send times; makes confirm_ns filled
        self.confirm_ns = []

    def read(self):
        """Take every whole frame out of the buffer."""
        conn = self.conn
        now = time.monotonic_ns()
        while True:
            got = conn.next_frame()
            if got is None:
                return
            payload = got[2]
            if got[0] != _METHOD or payload[:4] != b"\0\x3c\0\x50":
                if payload[:4] == b"\0\x3c\0\x78":
                    raise LoadError("the broker refused a message with basic.nack")
                conn.note(got, "publishing")
                continue
            tag, multiple = struct.unpack_from(">QB", payload, 4)
            self.confirmed(self.low if multiple else tag, tag, now)

    def confirmed(self, first, last, now):
        """One confirm of all that is not confirmed yet of *first* to *last*."""
        flags = self.flags
        if not 0 < first or not 0 < last < len(flags):
            raise LoadError("confirm of delivery tag %d, which was never published" % last)
        fresh = flags.count(0, first, last + 1)
        if not fresh:
            raise LoadError("delivery tag %d confirmed twice" % last)
        if self.sent_ns is not None:
            self.confirm_ns += [
                now - self.sent_ns[i] for i in range(first, last + 1) if not flags[i]]
        flags[first:last + 1] = b"\1" * (last + 1 - first)
        self.done += fresh
        if first == self.low:
            self.low = last + 1


class Publisher:
    """Publishes the messages of a job. What depends on the protocol is in the methods up to run().

    in_batch   messages in `batch`, each different
    """

    def __init__(self, job):
        self.job = job
        self.in_batch = batch_length(job["size"])
        self.conn = self.connect()
        self.confirms = self.count_confirms()
        self.batch = memoryview(bytearray(
            self.encode_batch(batch_bodies(job["size"]))))

    def connect(self):
        """A connection on which publishing may begin."""
        conn = Connection(self.job)
        conn.open_channel()
        if self.job["durable"]:
            conn.call(SELECT, b"\0", SELECT_OK)
        return conn

    def count_confirms(self):
        return Confirms(self.conn, self.job["count"])

    def encode_batch(self, bodies):
        """The octets of all messages, twice in a row."""
        return b"".join(encode_publish(body, self.job["durable"]) for body in bodies) * 2

    def may_send(self, sent):
        """How many messages the broker takes now, behind *sent*, at most the size of a batch."""
        return 0 if self.conn.blocked else self.in_batch

    def octets(self, sent, n):
        """What to send for *n* messages, at most may_send(), behind *sent*."""
        octets = len(self.batch) // (2 * self.in_batch)
        at = sent % self.in_batch * octets
        return self.batch[at:at + n * octets]

    def stamped(self, index, stamp):
        """What to send for message *index* of a job with a rate."""
        message = self.octets(0, 1)
        struct.pack_into(">QQ", message, len(message) - 1 - self.job["size"], stamp, index)
        return message

    def close(self):
        self.conn.close()

    def run(self):
        wait_for_go()
        cpu = time.process_time()
        first = time.monotonic_ns()
        if self.job["rate"]:
            self._publish_at_rate()
        else:
            self._publish_fast()
        last = time.monotonic_ns()
        cpu = time.process_time() - cpu
        self.close()
        return {"first_ns": first, "last_ns": last, "confirmed": self.confirms.done, "cpu_s": cpu,
                "times_blocked": self.conn.times_blocked,
                "confirm_ms": percentiles(self.confirms.confirm_ns)}

    def _publish_fast(self):
        """As fast as the broker reads; with confirms, as fast as the window opens."""
        job, conn, confirms = self.job, self.conn, self.confirms
        count = job["count"]
        sent = 0
        while sent < count or (job["durable"] and confirms.done < count):
            n = min(count - sent, self.may_send(sent))
            if job["durable"]:
                n = min(n, job["window"] - (sent - confirms.done))
            if n:
                conn.send(self.octets(sent, n))
                sent += n
                # Without confirms nothing else makes us look for what stops us.
                if job["durable"] or not conn.readable(0):
                    continue
            conn.fill()
            confirms.read()

    def _publish_at_rate(self):
        """One message at a time at its due time, with the time of sending in the body."""
        job, conn, confirms = self.job, self.conn, self.confirms
        count = job["count"]
        interval = 1000000000 / job["rate"]
        confirms.sent_ns = [0] * (count + 1)
        begin = time.monotonic_ns()
        for index in range(count):
            due = begin + int(index * interval)
            while True:
                now = time.monotonic_ns()
                taken = self.may_send(index)
                if now >= due and taken:
                    break
                if conn.readable(max(0, due - now) / 1e9 if taken else _STALL_S):
                    conn.fill()
                    confirms.read()
            # A publisher that the broker held up must not hide how long messages had to wait.
            stamp = due if now - due > _LATE_NS else now
            confirms.sent_ns[index + 1] = stamp
            conn.send(self.stamped(index, stamp))
        while job["durable"] and confirms.done < count:
            conn.fill()
            confirms.read()


# --- consumer ---

class Consumer:
    """Takes the messages of a job. What depends on the protocol is in the methods up to run()."""

    def __init__(self, job):
        self.job = job
        self.conn = self.connect()
        self.deliveries = self.make_deliveries()
        self.acks = self.make_acks() if job["durable"] else None

    def connect(self):
        """A connection to which deliveries come."""
        job = self.job
        conn = Connection(job)
        conn.open_channel()
        declare(conn, job["queue"], job["durable"])
        if job["durable"]:
            conn.call(QOS, struct.pack(">LHB", 0, job["prefetch"], 0), QOS_OK)
        no_ack = 0 if job["durable"] else 0b010
        conn.call(CONSUME, b"\0\0" + short(job["queue"].encode()) + short(b"bench")
                  + bytes((no_ack,)) + long(b""), CONSUME_OK)
        return conn

    def make_deliveries(self):
        return Deliveries(self.conn, self.job)

    def make_acks(self):
        return Acks(self.conn, self.job)

    def settle(self):
        """Say what is due at first, and after each read."""
        if self.acks:
            self.acks.up_to(self.deliveries.received)

    def close(self):
        """Leave, and delete the queue: messages that were still in it."""
        # After close-ok every ack has been read; what was not acknowledged is in the queue again.
        self.conn.call(CHANNEL_CLOSE, struct.pack(">H", 200) + short(b"") + b"\0\0\0\0",
                       CHANNEL_CLOSE_OK)
        self.conn.open_channel()
        left = delete(self.conn, self.job["queue"])
        self.conn.close()
        return left

    def run(self):
        job, conn, deliveries = self.job, self.conn, self.deliveries
        self.settle()
        wait_for_go()
        cpu = time.process_time()
        latencies = []
        while deliveries.received < job["count"]:
            conn.fill()
            if job["rate"]:
                now = time.monotonic_ns()
                latencies += [now - stamp for stamp in deliveries.take_stamped()]
            else:
                deliveries.take()
            self.settle()
        last = time.monotonic_ns()
        cpu = time.process_time() - cpu
        left = self.close()
        if left:
            raise LoadError("%d messages still in the queue after the last ack" % left)
        return {"last_ns": last, "received": deliveries.received, "sampled": deliveries.sampled,
                "walked": deliveries.walked, "cpu_s": cpu,
                "latency_ms": percentiles(latencies)}


def declare(conn, queue, durable):
    """Declare the queue of a job and bind it."""
    name = short(queue.encode())
    flags = 0b00010 if durable else 0b00100            # durable; exclusive
    conn.call(DECLARE, b"\0\0" + name + bytes((flags,)) + long(b""), DECLARE_OK)
    conn.call(BIND, b"\0\0" + name + short(EXCHANGE) + short(BINDING_KEY) + b"\0" + long(b""),
              BIND_OK)


def delete(conn, queue):
    """Delete the queue of a job: messages that were in it."""
    answer = conn.call(DELETE, b"\0\0" + short(queue.encode()) + b"\0", DELETE_OK)
    return struct.unpack_from(">L", answer)[0]


class Deliveries:
    """Takes whole messages out of a connection's buffer and counts them."""

    def __init__(self, conn, job):
        self.conn = conn
        self.size = job["size"]
        self.bodies = batch_bodies(job["size"])
        self.received = 0
        self.sampled = 0      # messages whose body was compared
        self.walked = 0       # messages found by walking frames, not by arithmetic
        self.octets = 0       # of a whole delivery; 0 = not seen one yet
        self.head = b""       # of a delivery, up to its tag
        self.tail = b""       # from behind the tag to the end of the octets that cannot change
        self.body_at = 0      # of a body in one frame; 0: in several, no arithmetic then

    def take(self):
        """Count the whole messages in the buffer."""
        conn = self.conn
        n = (conn.end - conn.start) // self.octets if self.body_at else 0
        if n and self._is_delivery(conn.start + (n - 1) * self.octets, self.received + n):
            self.received += n
            conn.start += n * self.octets
            at = conn.start - self.octets + self.body_at
            self._compare(conn.buf[at:at + self.size])
            return
        while True:
            body = self.walk()
            if body is None:
                return
            self._compare(body)

    def take_stamped(self):
        """Count the whole messages in the buffer and return their time stamps."""
        stamps = []
        while True:
            body = self.walk()
            if body is None:
                return stamps
            stamp, index = struct.unpack_from(">QQ", body)
            if index != self.received - 1 or body[16:] != self.bodies[0][16:]:
                raise LoadError("message %d has the body of another one" % self.received)
            self.sampled += 1
            stamps.append(stamp)

    def _is_delivery(self, at, tag):
        buf = self.conn.buf
        tag_at = at + len(self.head)
        return (buf[at:tag_at] == self.head
                and buf[tag_at + 8:tag_at + 8 + len(self.tail)] == self.tail
                and struct.unpack_from(">Q", buf, tag_at)[0] == tag)

    def _compare(self, body):
        if body != self.bodies[(self.received - 1) % len(self.bodies)]:
            raise LoadError("message %d has the body of another one" % self.received)
        self.sampled += 1

    def walk(self):
        """Take one whole message frame by frame; return its body, None when it is not whole."""
        conn = self.conn
        begin = conn.start
        got = conn.next_frame()
        if got is None:
            return None
        if got[0] != _METHOD or struct.unpack_from(">HH", got[2]) != DELIVER:
            conn.note(got, "consuming")
            return self.walk()
        tag_in_payload = 5 + got[2][4]
        tag, redelivered = struct.unpack_from(">Q?", got[2], tag_in_payload)
        if tag != self.received + 1 or redelivered:
            raise LoadError("delivery tag %d%s after %d messages"
                            % (tag, " redelivered" if redelivered else "", self.received))
        header = conn.next_frame()
        body, pieces = b"", 0
        while header is not None and len(body) < self.size:
            piece = conn.next_frame()
            if piece is None:
                header = None
            elif piece[0] != _BODY:
                raise LoadError("no body behind the header of message %d" % tag)
            else:
                body += piece[2]
                pieces += 1
        if header is None:
            conn.start = begin
            return None
        if header[0] != _HEADER or struct.unpack_from(">Q", header[2], 4)[0] != self.size:
            raise LoadError("delivery %d has no header for %d octets" % (tag, self.size))
        self.received += 1
        self.walked += 1
        self._learn(begin, 7 + tag_in_payload, pieces)
        return body

    def _learn(self, begin, head, pieces):
        """Remember the layout of the delivery at buf[begin:conn.start] for take()."""
        conn = self.conn
        self.octets = conn.start - begin
        self.body_at = self.octets - 1 - self.size if pieces == 1 else 0
        self.head = bytes(conn.buf[begin:begin + head])
        self.tail = bytes(conn.buf[begin + head + 8:begin + self.octets - 1 - self.size])


class Acks:
    """basic.ack for every delivery tag of a job, encoded beforehand."""

    def __init__(self, conn, job):
        self.conn = conn
        self.count = job["count"]
        self.every = job["ack_every"]
        self.encode()
        self.sent = 0         # octets of frames

    def encode(self):
        """Fill `frames`, all of one length."""
        tags = [min(tag + self.every, self.count) for tag in range(0, self.count, self.every)]
        self.frames = memoryview(b"".join(map(self.frame, tags)))
        self.octets = len(self.frames) // len(tags)

    def frame(self, tag):
        """Acknowledge *tag*, or the last `every` of them."""
        return method(_CHANNEL, ACK, struct.pack(">QB", tag, self.every > 1))

    def up_to(self, received):
        """Send what became due; what came in one read is acknowledged in one write."""
        due = len(self.frames) if received == self.count else received // self.every * self.octets
        if due > self.sent:
            self.conn.send(self.frames[self.sent:due])
            self.sent = due


# --- both ---

def remove_queue(job):
    """Delete what a run that failed has left behind, if the broker still answers."""
    try:
        conn = Connection(job)
        conn.open_channel()
        delete(conn, job["queue"])
        conn.close()
    except (LoadError, OSError):
        pass


def percentiles(nanoseconds):
    """{"p50", "p99", "max"} in ms; None without values."""
    # The first tenth meets fresh connections and cold caches.
    values = sorted(nanoseconds[len(nanoseconds) // 10:])
    if not values:
        return None
    return {"p50": values[len(values) // 2] / 1e6, "p99": values[len(values) * 99 // 100] / 1e6,
            "max": values[-1] / 1e6}


def wait_for_go():
    print("ready", flush=True)
    if not sys.stdin.readline():
        raise LoadError("not started")     # compare.py has ended


def main(publisher, consumer):
    role, job = sys.argv[1], json.loads(sys.argv[2])
    try:
        result = {"publish": publisher, "consume": consumer}[role](job).run()
        result["rss_kb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    except (LoadError, OSError) as e:
        result = {"error": "%s: %s" % (role, e)}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(Publisher, Consumer)
