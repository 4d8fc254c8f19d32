"""The load in AMQP 1.0: load.py's publisher and consumer, for the same jobs.

- Transfers are encoded once, a batch of different messages of one size. Before each round over the
  batch the delivery-ids, which are the delivery-tags, too, are put into their places.
- Deliveries are counted as load.py does: the delivery-id of the last whole one in the buffer tells
  whether the arithmetic holds. An id below 256 may be a shorter one; such messages are walked.
- Dispositions of the consumer are encoded before the start and sent as slices.

Transient: transfers that are settled, to a topic and from one, whose queue is the link's. Durable:
transfers that the broker settles, and that the consumer settles. The durable queue is declared and
deleted by 0-9-1: in 1.0 there is no way that RabbitMQ 3.x and others share.

Addresses are RabbitMQ's of version 1. It asks for nothing that is not in the specification, and
takes what that allows: flows at any time, with an echo or without; dispositions of one delivery or
of many, in any order; numbers in their shorter forms; a message in several transfers.
"""
import struct
import time

import load
from load import LoadError

OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH, END, CLOSE = range(0x10, 0x19)
ERROR = 0x1D
ACCEPTED = 0x24
SOURCE, TARGET = 0x28, 0x29
MECHANISMS, INIT, OUTCOME = 0x40, 0x41, 0x44
HEADER, DATA = 0x70, 0x75

_AMQP, _SASL = 0, 1                  # frame types
_SENDER, _RECEIVER = False, True     # roles
_UNSETTLED, _SETTLED = 0, 1          # snd-settle-mode
_FRAME_MAX = 1 << 17
_WINDOW = 1 << 20          # transfers the broker may send before our next flow
_CREDIT = 1 << 16          # when a job has no prefetch: more than ever waits
_NULL = b"\x40"

TARGET_ADDRESS = "/topic/" + load.ROUTING_KEY.decode()
TRANSIENT_SOURCE = "/topic/" + load.BINDING_KEY.decode()
DURABLE_SOURCE = "/amq/queue/"


# --- values, AMQP 1.0 §1.6 ---

def boolean(value):
    return b"\x41" if value else b"\x42"


def uint(value):
    return struct.pack(">BI", 0x70, value)


def ubyte(value):
    return bytes((0x50, value))


def string(text):
    return b"\xa1" + load.short(text.encode())


def symbol(text):
    return b"\xa3" + load.short(text.encode())


def binary(octets):
    return b"\xa0" + load.short(octets) if len(octets) < 256 else b"\xb0" + load.long(octets)


def described(code, *fields):
    """A described list of encoded *fields*."""
    octets = b"".join(fields)
    if len(octets) < 255:
        head = struct.pack(">BBB", 0xC0, len(octets) + 1, len(fields))
    else:
        head = struct.pack(">BII", 0xD0, len(octets) + 4, len(fields))
    return bytes((0, 0x53, code)) + head + octets


def frame(kind, channel, body):
    return struct.pack(">LBBH", len(body) + 8, 2, kind, channel) + body


def read(buf, i):
    """(value, index behind it). A described value is (descriptor, value), a map the list of its
    keys and values, an array its octets; strings and symbols are bytes."""
    code = buf[i]
    i += 1
    if code == 0:
        descriptor, i = read(buf, i)
        value, i = read(buf, i)
        return (descriptor, value), i
    if code in (0x40, 0x41, 0x42):
        return (None, True, False)[code - 0x40], i
    if code in (0x43, 0x44):
        return 0, i
    if code == 0x45:
        return [], i
    if code < 0xA0:
        width = 1 << (code >> 4) - 5
        value = int.from_bytes(buf[i:i + width], "big")
        return bool(value) if code == 0x56 else value, i + width
    width = 4 if code & 0x10 else 1
    stop = i + width + int.from_bytes(buf[i:i + width], "big")
    i += width
    if code < 0xC0 or code >= 0xE0:
        return bytes(buf[i:stop]), stop
    count = int.from_bytes(buf[i:i + width], "big")
    i += width
    values = []
    for _ in range(count):
        value, i = read(buf, i)
        values.append(value)
    return values, stop


class Connection(load.Connection):
    """A blocking connection with one session; its links take from `buf` what the broker sends.

    frame_max  octets of a frame that the broker takes
    sent_to    number of the first transfer that the broker's window does not take
    credit_to  of the first message that its credit does not take
    echo       the broker wants a flow of ours
    """

    def _open(self, job):
        self.sent_to = self.credit_to = 0
        self.echo = False
        self._handshake(b"AMQP\3\1\0\0")
        self.expect(MECHANISMS)
        plain = b"\0" + job["user"].encode() + b"\0" + job["password"].encode()
        self.send(frame(_SASL, 0, described(INIT, symbol("PLAIN"), binary(plain))))
        code = self.expect(OUTCOME)[0]
        if code:
            raise LoadError("login refused: SASL outcome %d" % code)
        self._handshake(b"AMQP\0\1\0\0")
        # No idle-time-out: an empty frame would only disturb the counting.
        self.call(OPEN, string("bench-" + job["queue"]), string("vhost:" + job["vhost"]),
                  uint(_FRAME_MAX))
        fields = self.expect(OPEN) + [None] * 3
        self.frame_max = 0xFFFFFFFF if fields[2] is None else fields[2]
        self.call(BEGIN, _NULL, uint(0), uint(_WINDOW), uint(_WINDOW))
        fields = self.expect(BEGIN)
        self.next_incoming = fields[1]
        self.sent_to = fields[2]

    def _handshake(self, header):
        self.send(header)
        while self.end - self.start < 8:
            self.fill()
        answer = bytes(self.buf[self.start:self.start + 8])
        if answer != header:
            raise LoadError("protocol header %r for %r" % (answer, header))
        self.start += 8

    def call(self, code, *fields):
        self.send(frame(_AMQP, 0, described(code, *fields)))

    def attach(self, name, role, settle, source, target):
        """Attach a link on handle 0; return the fields of the broker's attach."""
        terminus = [described(code, string(address))
                    for code, address in ((SOURCE, source), (TARGET, target))]
        count = (_NULL, _NULL, uint(0)) if role == _SENDER else ()
        self.call(ATTACH, string(name), uint(0), boolean(role), ubyte(settle), ubyte(0),
                  *terminus, *count)
        fields = self.expect(ATTACH)
        if (fields + [None] * 7)[6 if role == _SENDER else 5] is None:
            self.expect(DETACH)      # a refusal; note() says why
        return fields

    def flow(self, transfers_in, transfers_out, *link):
        """*link*: handle, delivery-count and link-credit."""
        self.call(FLOW, uint(self.next_incoming + transfers_in & 0xFFFFFFFF), uint(_WINDOW),
                  uint(transfers_out), uint(_WINDOW), *map(uint, link))

    def close(self):
        """Leave in steps: with each answer the broker has dealt with all before it."""
        self.call(DETACH, uint(0), boolean(True))
        self.expect(DETACH)
        self.call(END)
        self.expect(END)
        self.call(CLOSE)
        self.expect(CLOSE)
        self.sock.close()

    def next_frame(self):
        """Take the next whole frame: (code, fields, payload), or None. Empty ones are passed over.
        """
        while True:
            if self.end - self.start < 8:
                return None
            at = self.start
            length, doff = struct.unpack_from(">LB", self.buf, at)
            if at + length > self.end:
                return None
            self.start = at + length
            if length > 4 * doff:
                break
        (code, fields), i = read(self.buf, at + 4 * doff)
        if i > at + length:
            raise LoadError("a performative longer than its frame")
        return code, fields, self.buf[i:at + length]

    def expect(self, code):
        """Wait for one performative and return its fields. Outside the measured part only."""
        while True:
            got = self.next_frame()
            if got is None:
                self.fill()
            elif got[0] == code and not (code in (DETACH, END, CLOSE) and _error(got[1])):
                return got[1]
            else:
                self.note(got, "waiting for 0x%02x" % code)

    def note(self, got, doing):
        """Deal with a flow, which may come at any time; LoadError for all others."""
        code, fields, _ = got
        if code == FLOW:
            fields = fields + [None] * (11 - len(fields))
            self.sent_to = (fields[0] or 0) + fields[1]
            if fields[4] is not None and fields[6] is not None:
                self.credit_to = (fields[5] or 0) + fields[6]
            self.echo = self.echo or bool(fields[9])
            return
        if code in (DETACH, END, CLOSE):
            condition, text = (_error(fields) or [b"no error", None])[:2]
            raise LoadError("%s: broker ended the %s with %s: %s" % (
                doing, {DETACH: "link", END: "session", CLOSE: "connection"}[code],
                condition.decode(), (text or b"").decode("utf-8", "replace")))
        raise LoadError("%s: unexpected performative 0x%02x" % (doing, code))


def _error(fields):
    """The fields of the error in those of a detach, end or close; None without one."""
    if fields and isinstance(fields[-1], tuple) and fields[-1][0] == ERROR:
        return fields[-1][1] + [None]
    return None


# --- publisher ---

class Confirms(load.Confirms):
    """Counts the deliveries 0..count-1 that the broker accepts, as tags 1..count."""

    def read(self):
        conn = self.conn
        now = time.monotonic_ns()
        while True:
            got = conn.next_frame()
            if got is None:
                return
            code, fields, _ = got
            if code != DISPOSITION:
                conn.note(got, "publishing")
                continue
            role, first, last, settled, state = (fields + [None] * 3)[:5]
            if role != _RECEIVER or not settled or state is None or state[0] != ACCEPTED:
                raise LoadError("a disposition of role %s, settled %s, state %r"
                                % (role, settled, state))
            last = first if last is None else last
            if self.flags.count(0, first + 1, last + 2) != last + 1 - first:
                raise LoadError("deliveries %d to %d, not all of them to settle" % (first, last))
            self.confirmed(first + 1, last + 1, now)


class Publisher(load.Publisher):
    """A transfer of the batch, in octets:

        | frame head 8 | 00 53 14 c0 size count 6 | 43 | 70 | delivery-id | a0 04 | tag | ...
    """

    _ID_AT, _TAG_AT = 16, 22

    def connect(self):
        conn = Connection(self.job)
        settle = _UNSETTLED if self.job["durable"] else _SETTLED
        conn.attach("publish", _SENDER, settle, "bench", TARGET_ADDRESS)
        while not conn.credit_to:
            got = conn.next_frame()
            if got is None:
                conn.fill()
            else:
                conn.note(got, "waiting for credit")
        self._round = None       # which one over the batch the ids are of
        return conn

    def run(self):
        octets = len(self.batch) // self.in_batch
        if octets > self.conn.frame_max:
            raise LoadError("max-frame-size %d for messages of %d octets"
                            % (self.conn.frame_max, octets))
        return load.Publisher.run(self)

    def count_confirms(self):
        return Confirms(self.conn, self.job["count"])

    def encode_batch(self, bodies):
        # The only property is durable, as delivery_mode is in 0-9-1.
        durable = self.job["durable"]
        head = described(TRANSFER, b"\x43", uint(0), b"\xa0\x04\0\0\0\0", b"\x43",
                         boolean(not durable))
        head += described(HEADER, boolean(durable)) + b"\0\x53\x75"
        return b"".join(frame(_AMQP, 0, head + binary(body)) for body in bodies)

    def may_send(self, sent):
        conn = self.conn
        if conn.echo:
            conn.echo = False
            conn.flow(0, sent)
        batch_to = sent + self.in_batch - sent % self.in_batch
        return min(conn.credit_to, conn.sent_to, batch_to) - sent

    def octets(self, sent, n):
        octets = len(self.batch) // self.in_batch
        if sent // self.in_batch != self._round:
            self._round = sent // self.in_batch
            self._number(self._round * self.in_batch, octets)
        at = sent % self.in_batch * octets
        return self.batch[at:at + n * octets]

    def _number(self, first, octets):
        """Put the delivery-ids from *first* on into the batch."""
        ids = struct.pack(">%dI" % self.in_batch, *range(first, first + self.in_batch))
        for at in (self._ID_AT, self._TAG_AT):
            for k in range(4):
                self.batch[at + k::octets] = ids[k::4]

    def stamped(self, index, stamp):
        message = self.octets(0, 1)
        for at in (self._ID_AT, self._TAG_AT):
            struct.pack_into(">I", message, at, index)
        struct.pack_into(">QQ", message, len(message) - self.job["size"], stamp, index)
        return message


# --- consumer ---

class Consumer(load.Consumer):
    def connect(self):
        job = self.job
        source, settle = TRANSIENT_SOURCE, _SETTLED
        if job["durable"]:
            self._declare()
            source, settle = DURABLE_SOURCE + job["queue"], _UNSETTLED
        conn = Connection(job)
        fields = conn.attach("consume", _RECEIVER, settle, source, "bench")
        self._count = fields[9]         # its delivery-count at first
        self._credit = job["prefetch"] or _CREDIT
        self._granted = 0               # messages, since then
        return conn

    def _declare(self):
        conn = load.Connection(self.job)
        conn.open_channel()
        load.declare(conn, self.job["queue"], True)
        conn.close()

    def make_deliveries(self):
        return Deliveries(self.conn, self.job)

    def make_acks(self):
        return Acks(self.conn, self.job)

    def settle(self):
        deliveries = self.deliveries
        received = deliveries.received
        if self.acks and received:
            self.acks.begin(deliveries.first)
        load.Consumer.settle(self)
        if self._granted - received <= self._credit // 2 or self.conn.echo:
            self.conn.echo = False
            self._granted = received + self._credit
            self.conn.flow(deliveries.transfers(), 0, 0, self._count + received & 0xFFFFFFFF,
                           self._credit)

    def close(self):
        self.conn.close()
        if not self.job["durable"]:
            return 0        # the queue went with the link
        conn = load.Connection(self.job)
        conn.open_channel()
        left = load.delete(conn, self.job["queue"])
        conn.close()
        return left


class Deliveries(load.Deliveries):
    first = None         # delivery-id
    _more = 0            # transfers beyond one for each message

    def __init__(self, conn, job):
        load.Deliveries.__init__(self, conn, job)
        self._settled = not job["durable"]

    def transfers(self):
        return self.received + self._more

    def _is_delivery(self, at, count):
        buf = self.conn.buf
        id_at = at + len(self.head)
        tail_at = at + self.body_at - len(self.tail)
        return (buf[at:id_at] == self.head
                and buf[tail_at:tail_at + len(self.tail)] == self.tail
                and struct.unpack_from(">I", buf, id_at)[0] == self._id(count))

    def _id(self, count):
        """The delivery-id of the message that makes them *count*."""
        return self.first + count - 1 & 0xFFFFFFFF

    def walk(self):
        conn = self.conn
        begin = conn.start
        got = conn.next_frame()
        if got is None:
            return None
        if got[0] != TRANSFER:
            conn.note(got, "consuming")
            return self.walk()
        number, fields = got[1][1], got[1] + [None] * 6
        if self.first is None:
            self.first = number
        if number != self._id(self.received + 1):
            raise LoadError("delivery-id %s after %d messages" % (number, self.received))
        settled, message, pieces = fields[4], got[2], 1
        while fields[5]:
            got = conn.next_frame()
            if got is None:
                conn.start = begin
                return None
            if got[0] != TRANSFER:
                raise LoadError("performative 0x%02x amid a delivery" % got[0])
            fields = got[1] + [None] * 6
            settled = settled or fields[4]
            message = bytes(message) + got[2]
            pieces += 1
        if bool(settled) != self._settled:
            raise LoadError("delivery %d with settled %s" % (number, settled))
        body = self._body(message)
        self.received += 1
        self.walked += 1
        self._more += pieces - 1
        self._learn(begin, pieces)
        return body

    def _body(self, message):
        """The octets of the data section, the last one; it is as long as it has to be."""
        i = 0
        while True:
            (code, value), i = read(message, i)
            if code == HEADER and len(value) > 4 and value[4]:
                raise LoadError("message %d was delivered before" % (self.received + 1))
            if code == DATA:
                break
            if i >= len(message):
                raise LoadError("message %d has no data" % (self.received + 1))
        if i != len(message) or len(value) != self.size:
            raise LoadError("message %d of %d octets" % (self.received + 1, len(value)))
        return value

    def _learn(self, begin, pieces):
        """Remember the layout of the delivery at buf[begin:conn.start] for take()."""
        conn = self.conn
        frame_ = bytes(conn.buf[begin:conn.start])
        at = 4 * frame_[4]
        fields_at = at + (6 if frame_[at + 3] == 0xC0 else 12)
        id_at = read(frame_, fields_at)[1]
        if pieces > 1 or frame_[at + 1] != 0x53 or frame_[id_at] != 0x70:
            self.body_at = 0
            return
        self.octets = len(frame_)
        self.body_at = self.octets - self.size
        self.head = frame_[:id_at + 1]
        self.tail = frame_[read(frame_, id_at + 5)[1]:self.body_at]


class Acks(load.Acks):
    """A disposition for every delivery of a job; their ids begin with 0, or as begin() says."""

    _first = 0

    def begin(self, first):
        if first != self._first:
            self._first = first
            self.encode()

    def frame(self, tag):
        first, last = ((self._first + n) & 0xFFFFFFFF
                       for n in ((tag - 1) // self.every * self.every, tag - 1))
        return frame(_AMQP, 0, described(
            DISPOSITION, boolean(_RECEIVER), uint(first),
            uint(last) if self.every > 1 else _NULL, boolean(True), b"\0\x53\x24\x45"))


if __name__ == "__main__":
    load.main(Publisher, Consumer)
