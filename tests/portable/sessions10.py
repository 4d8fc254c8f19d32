"""Recorded sessions of AMQP 1.0: what clients send from the first frame on, to be cut and bent.

Each is a list of octets, a frame each, so that frames can be moved about.
"""

import wire10
from amqp_lite.v10 import performatives as performative
from amqp_lite.v10.frames import AMQP
from amqp_lite.v10.performatives import described, described_value, frame, uint
from amqp_lite.v10.values import Described, Symbol, Typed, write_value
from wire10 import HEADER, message, transfer

KEY = Symbol("apache.org:legacy-amqp-topic-binding:string")
TABLE = Symbol("apache.org:legacy-amqp-headers-binding:map")
SELECTOR = Symbol("apache.org:selector-filter:string")


def filters(descriptor, value):
    return {Symbol("f"): Described(descriptor, value)}


LOGIN = [wire10.init(), HEADER, wire10.open_connection(idle=30000), wire10.begin()]
END = [wire10.end(), wire10.close()]


def parts(payload, number, size, handle=0, **options):
    """The transfers of one message in pieces of *size* octets."""
    found = []
    for k in range(0, len(payload), size):
        more = k + size < len(payload)
        first = not found
        found.append(
            transfer(payload[k : k + size], number if first else None, handle,
                     tag=b"t" if first else None, more=more, **options)
        )  # fmt: skip
    return found


SENDER = LOGIN + [
    wire10.attach_sender("up", "/queue/q"),
    transfer(message(b"one"), 0),
    transfer(message(b"two", durable=True, ttl=9000, subject="s", headers={"k": 1}), 1),
    transfer(message(b"three", user=b"guest"), 2, settled=True),
] + parts(message(b"4" * 2500), 3, 700) + [
    transfer(message(b"5")[:4], 4, more=True),
    transfer(b"", None, tag=None, aborted=True),
    transfer(message(b"6") + message(b"6"), 5),
    transfer(message(b"7" * 3000), 6),
    transfer(message(), 7),
    frame(AMQP, 0, b""),
    wire10.flow(0, uint(0), uint(50), uint(0), uint(50), None, None, None, None, None, True),
    wire10.detach(0),
] + END  # fmt: skip

BOTH = LOGIN + [
    wire10.attach_sender("up", None),
    wire10.attach_receiver("down", "/queue/q", 1),
    wire10.attach_receiver("first", "/queue/r", 2, settle=1),
    wire10.credit(1, 3),
    wire10.credit(2, 10),
] + [transfer(message(b"%d" % k, to="/queues/" + "qr"[k & 1]), k) for k in range(6)] + [
    wire10.disposition(0),
    wire10.disposition(1, 2, performative.RELEASED),
    wire10.disposition(3, 5, performative.MODIFIED, True, 0, True),
    wire10.credit(1, 5, 3, drain=True),
    wire10.credit(1, 5, 5, echo=True),
    wire10.disposition(0, 20, performative.ACCEPTED, False),
    wire10.detach(1, closed=None),
    wire10.attach_receiver("down", "q", 1),
    wire10.credit(1, 9),
    wire10.disposition(0, 20, performative.REJECTED),
] + END  # fmt: skip

PLACES = LOGIN + [
    wire10.begin(1, window=3),
    wire10.begin(2, next_outgoing=0xFFFFFFFE),
    wire10.attach_receiver("dynamic", None, 0, 1, dynamic=True),
    wire10.attach_receiver("bound", "/exchange/amq.topic/a.*", 1, 1),
    wire10.credit(0, 10, 0, 1),
    wire10.credit(1, 10, 0, 1),
    wire10.attach_sender("topic", "/exchanges/amq.topic/a.b", 0, 2),
    wire10.attach_sender("fanout", "amq.fanout", 1, 2, count=0xFFFFFFFF),
    transfer(message(b"m", headers={"a": [1, None, {"b": True}]}), 0xFFFFFFFF, 0, 2),
    transfer(message(b"n"), 0, 1, 2),
    transfer(message(b"o" * 2000), 1, 0, 2),
    wire10.flow(1, uint(1), uint(100), uint(0), uint(5)),
    wire10.attach_sender("topic", "/topic/a.c", 2, 2),
    wire10.detach(0, 2),
    wire10.attach_sender("nothing", "/queues/nothing", 3, 2),
    wire10.detach(3, 2),
    wire10.end(1),
    wire10.begin(1),
] + END  # fmt: skip

LARGE = LOGIN[:2] + [wire10.open_connection(frame_max=512), wire10.begin(window=3)] + [
    wire10.attach_sender("up", "/queue/l"),
    wire10.attach_sender("other", "/queue/m", 2),
    wire10.attach_receiver("down", "/queue/l", 1),
    wire10.credit(1, 100),
] + parts(message(b"a" * 6000, subject="s"), 0, 900)[:4] + [
    transfer(message(b"b" * 900)[:500], 1, 2, more=True),
] + parts(message(b"a" * 6000, subject="s"), 0, 900)[4:] + [
    transfer(message(b"b" * 900)[500:], None, 2, tag=None),
    wire10.flow(0, uint(3), uint(10), uint(0), uint(50)),
    transfer(message(b"c" * 5000), 2, 2),
    wire10.flow(0, uint(10), uint(100), uint(0), uint(50)),
    wire10.attach_receiver("m", "m", 3),
    wire10.credit(3, 2),
    wire10.disposition(0, 9),
] + END  # fmt: skip

_TARGETS = ("/exchanges/amq.topic/a.b", "/queues/q", "/exchanges/amq.headers")
SOURCES = LOGIN[:2] + [wire10.open_connection("box"), wire10.begin()] + [
    wire10.attach_sender("up", None),
    wire10.attach_receiver("sub", "/exchange/amq.topic/a.*", 1, durable=2, expiry="never"),
    wire10.attach_receiver("key", "amq.topic", 2, filter=filters(KEY, "a.#")),
    wire10.attach_receiver("table", "amq.headers", 3, filter=filters(TABLE, {"k": 1, "l": "x"})),
    wire10.attach_receiver("picks", "/queue/q", 4, filter=filters(SELECTOR, "l LIKE 'x%'")),
    wire10.attach_receiver("looks", "/queue/q", 5, mode="copy"),
    wire10.attach_receiver("else", "/queue/q", 6, default=described_value(0x27, True)),
    wire10.attach_receiver("topic", "b", 7, capability="topic", timeout=5),
] + [wire10.credit(k, 3) for k in range(1, 8)] + [
    transfer(message(b"m", durable=True, headers={"k": 1, "l": "xyz"}, to=_TARGETS[k % 3]), k)
    for k in range(9)
] + [
    wire10.disposition(0, 3, None),
    wire10.disposition(4, 5, performative.MODIFIED, True, 0, True),
    wire10.detach(1, closed=False),
    wire10.attach_receiver("sub", "/exchange/amq.topic/a.*", 1, durable=2, expiry="never"),
    wire10.credit(5, 3, 3, drain=True),
    wire10.credit(4, 3, 3, drain=True),
    wire10.detach(4),
    wire10.detach(1, closed=False),
    wire10.attach_receiver("sub", wire10.NO_SOURCE, 1),
    wire10.detach(1),
] + END  # fmt: skip


def request(number, method, path, body=None):
    octets = described(performative.PROPERTIES, number, None, path, method, "$me")
    return transfer(
        octets + write_value(Described(Typed(0x53, 0x77), body)), number, 0, settled=True
    )


_BINDING = {"source": "e", "destination_queue": "q", "binding_key": "k", "arguments": {"a": 1}}
MANAGEMENT = LOGIN + [
    wire10.attach_sender("m", "/management", 0, settle=1),
    wire10.attach_receiver("m", "/management", 1, settle=1),
    wire10.credit(1, 100),
    request(0, "PUT", "/queues/q", {"durable": True, "arguments": {"x-max-length": 5}}),
    request(1, "PUT", "/exchanges/e", {"type": "headers", "durable": True}),
    request(2, "POST", "/bindings", _BINDING),
    request(3, "GET", "/bindings?src=e&dstq=q&key=k"),
    request(4, "GET", "/queues/q"),
    request(5, "DELETE", "/queues/q/messages"),
    request(6, "PUT", "/queues/q", {"exclusive": True, "auto_delete": 5}),
    request(7, "DELETE", "/exchanges/e"),
    request(8, "DELETE", "/queues/q"),
    request(9, "PATCH", "/nothing"),
] + END  # fmt: skip

WORK = b"\0\0\0\1"  # the first txn-id of a broker


def coordinator(handle=9, channel=0):
    """The attach of a transaction's controller."""
    return frame(
        AMQP, channel, described(
            performative.ATTACH, "control", uint(handle), False, None, None,
            described_value(performative.SOURCE), described_value(performative.COORDINATOR),
            None, None, uint(0),
        ),
    )  # fmt: skip


def order(code, *fields):
    """The octets of a message to it."""
    return write_value(Described(Typed(0x53, 0x77), described_value(code, *fields)))


def state(work, outcome=None):
    return described_value(
        performative.TRANSACTIONAL_STATE, work, outcome and described_value(outcome)
    )


def acquire(work, handle, credit, count=0, channel=0):
    """The flow of a receiver that takes *credit* in a transaction."""
    return wire10.flow(
        channel, uint(0), uint(1000), uint(0), uint(1000), uint(handle), uint(count),
        uint(credit), None, None, None, {Symbol("txn-id"): work},
    )  # fmt: skip


def retire(work, first, outcome=performative.ACCEPTED, settled=True, channel=0):
    return frame(
        AMQP, channel, described(
            performative.DISPOSITION, True, uint(first), None, settled, state(work, outcome)
        ),
    )  # fmt: skip


TRANSACTIONS = LOGIN + [
    coordinator(),
    wire10.attach_sender("up", "/queue/q"),
    wire10.attach_receiver("down", "/queue/q", 1),
    transfer(order(performative.DECLARE), 0, 9),
    transfer(message(b"1"), 1, state=state(WORK)),
    transfer(message(b"2", durable=True), 2, state=state(WORK)),
    transfer(message(b"3", durable=True), 3),
    acquire(WORK, 1, 2),
    retire(WORK, 0),
    transfer(order(performative.DISCHARGE, WORK), 4, 9),
    wire10.credit(1, 3, 1),
    wire10.disposition(1, 2, performative.RELEASED),
    transfer(order(performative.DECLARE), 5, 9),
    transfer(order(performative.DISCHARGE, b"\0\0\0\2", True), 6, 9),
    wire10.detach(9),
] + END  # fmt: skip

ALL = (SENDER, BOTH, PLACES, LARGE, SOURCES, MANAGEMENT, TRANSACTIONS)
