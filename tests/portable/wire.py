"""AMQP 0-9-1 as a client writes and reads it, for tests.

Written from the specification, apart from the broker's codec, so that one mistake is not made on
both sides. Every method a client sends is a function that returns octets; split() cuts what the
broker sent into frames. Arguments are taken as they come: a test may lie.
"""

import struct

HEADER = b"AMQP\x00\x00\x09\x01"
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
CAPABILITIES = (
    "connection.blocked", "consumer_cancel_notify", "authentication_failure_close", "basic.nack",
    "publisher_confirms",
)  # fmt: skip

# class id, class, its methods by id: 10 more from one to the next but for those with an "=".
_CLASSES = (
    (10, "connection", "start=10 start-ok=11 secure=20 secure-ok=21 tune=30 tune-ok=31 open=40 "
     "open-ok=41 close=50 close-ok=51 blocked=60 unblocked=61 update-secret=70"),
    (20, "channel", "open=10 open-ok=11 flow=20 flow-ok=21 close=40 close-ok=41"),
    (30, "access", "request=10"),
    (40, "exchange", "declare=10 declare-ok=11 delete=20 delete-ok=21 bind=30 bind-ok=31 "
     "unbind=40 unbind-ok=51"),
    (50, "queue", "declare=10 declare-ok=11 bind=20 bind-ok=21 purge=30 purge-ok=31 delete=40 "
     "delete-ok=41 unbind=50 unbind-ok=51"),
    (60, "basic", "qos=10 qos-ok=11 consume=20 consume-ok=21 cancel=30 cancel-ok=31 publish=40 "
     "return=50 deliver=60 get=70 get-ok=71 get-empty=72 ack=80 reject=90 recover-async=100 "
     "recover=110 recover-ok=111 nack=120"),
    (85, "confirm", "select=10 select-ok=11"),
    (90, "tx", "select=10 select-ok=11 commit=20 commit-ok=21 rollback=30 rollback-ok=31"),
)  # fmt: skip
IDS = {}
NAMES = {}
for _number, _class, _methods in _CLASSES:
    for _row in _methods.split(" "):
        _name, _id = _row.split("=")
        IDS[_class + "." + _name] = (_number, int(_id))
        NAMES[(_number, int(_id))] = _class + "." + _name


# --- values ---


def octets(value):
    return value.encode() if isinstance(value, str) else bytes(value)


def short(value):
    """A short string."""
    value = octets(value)
    return bytes([len(value)]) + value


def long(value):
    """A long string, or anything else behind a length of four octets."""
    value = octets(value)
    return struct.pack(">I", len(value)) + value


def bits(*values):
    """Bits, at most eight, the first one lowest."""
    return bytes([sum([1 << k for k in range(len(values)) if values[k]])])


def field(name, letter, value):
    """One field of a table; *value* is its octets."""
    return short(name) + octets(letter) + value


def table(fields):
    """A field table of a dict, or of raw octets."""
    if isinstance(fields, bytes):
        return long(fields)
    return long(b"".join([short(name) + value(fields[name]) for name in sorted(fields or {})]))


def value(item):
    """The octets of one field value with its type letter."""
    if item is None:
        return b"V"
    if item is True or item is False:
        return b"t\x01" if item else b"t\x00"
    if isinstance(item, int):
        return (
            b"l" + struct.pack(">q", item)
            if abs(item) > 0x7FFFFFFF
            else (b"I" + struct.pack(">i", item))
        )
    if isinstance(item, dict):
        return b"F" + table(item)
    if isinstance(item, list):
        return b"A" + long(b"".join([value(one) for one in item]))
    return b"S" + long(item)


_PROPERTIES = (
    "content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id",
    "reply_to", "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
)  # fmt: skip


def properties(**given):
    """Property flags and list."""
    flags = 0
    parts = b""
    for k in range(14):
        item = given.pop(_PROPERTIES[k], None)
        if item is None:
            continue
        flags |= 0x8000 >> k
        if k == 2:
            parts += table(item)
        elif k in (3, 4):
            parts += bytes([item])
        elif k == 9:
            parts += struct.pack(">Q", item)
        else:
            parts += short(item)
    assert not given, given
    return struct.pack(">H", flags) + parts


# --- frames ---


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(channel, name, *arguments):
    """A method frame; *arguments* are octets."""
    return frame(1, channel, struct.pack(">HH", *IDS[name]) + b"".join(arguments))


def header(channel, size, given=b"\0\0", class_id=60, weight=0):
    """A content header for a body of *size* octets."""
    return frame(2, channel, struct.pack(">HHQ", class_id, weight, size) + given)


def body(channel, part):
    return frame(3, channel, part)


def split(data):
    """The frames in *data* as (channel, name, payload), and what is left of it.

    name is "queue.declare-ok" and the like, "header", "body" or "heartbeat"; a method's payload
    is its arguments.
    """
    frames = []
    i = 0
    while len(data) - i >= 8:
        kind, channel, size = struct.unpack(">BHI", data[i : i + 7])
        if len(data) - i < size + 8:
            break
        payload = data[i + 7 : i + 7 + size]
        assert data[i + 7 + size] == 0xCE, "a frame of the broker has no end"
        if kind == 1:
            name = NAMES[struct.unpack(">HH", payload[:4])]
            payload = payload[4:]
        else:
            name = {2: "header", 3: "body", 8: "heartbeat"}[kind]
        frames.append((channel, name, payload))
        i += size + 8
    return frames, data[i:]


def strings(payload, i, count):
    """*count* short strings of *payload* from *i*."""
    found = []
    for _ in range(count):
        found.append(payload[i + 1 : i + 1 + payload[i]])
        i += 1 + payload[i]
    return found


# --- the methods of a client; the arguments are those of the specification, in its order ---


def start_ok(response, mechanism="PLAIN", capabilities=CAPABILITIES, **more):
    more["capabilities"] = dict.fromkeys(capabilities, True)
    return method(0, "connection.start-ok", table(more), short(mechanism), long(response),
                  short("en_US"))  # fmt: skip


def tune_ok(channel_max, frame_max, heartbeat):
    return method(0, "connection.tune-ok", struct.pack(">HIH", channel_max, frame_max, heartbeat))


def open_connection(vhost="/"):
    return method(0, "connection.open", short(vhost), short(""), bits(0))


def close_connection(code=200, text="bye"):
    return method(0, "connection.close", struct.pack(">H", code), short(text), b"\0\0\0\0")


def open_channel(channel):
    return method(channel, "channel.open", short(""))


def close_channel(channel):
    return method(channel, "channel.close", struct.pack(">H", 200), short("bye"), b"\0\0\0\0")


def declare_exchange(
    channel, name, kind, passive=0, durable=0, auto_delete=0, internal=0, nowait=0, arguments=None
):
    return method(channel, "exchange.declare", b"\0\0", short(name), short(kind),
                  bits(passive, durable, auto_delete, internal, nowait),
                  table(arguments))  # fmt: skip


def delete_exchange(channel, name, if_unused=0):
    return method(channel, "exchange.delete", b"\0\0", short(name), bits(if_unused, 0))


def bind_exchange(channel, destination, source, key="", arguments=None, verb="bind"):
    return method(channel, "exchange." + verb, b"\0\0", short(destination), short(source),
                  short(key), bits(0), table(arguments))  # fmt: skip


def declare_queue(
    channel, name, passive=0, durable=0, exclusive=0, auto_delete=0, nowait=0, arguments=None
):
    return method(channel, "queue.declare", b"\0\0", short(name),
                  bits(passive, durable, exclusive, auto_delete, nowait),
                  table(arguments))  # fmt: skip


def bind_queue(channel, queue, exchange, key="", arguments=None):
    return method(channel, "queue.bind", b"\0\0", short(queue), short(exchange), short(key),
                  bits(0), table(arguments))  # fmt: skip


def unbind_queue(channel, queue, exchange, key="", arguments=None):
    return method(channel, "queue.unbind", b"\0\0", short(queue), short(exchange), short(key),
                  table(arguments))  # fmt: skip


def purge_queue(channel, queue):
    return method(channel, "queue.purge", b"\0\0", short(queue), bits(0))


def delete_queue(channel, queue, if_unused=0, if_empty=0):
    return method(channel, "queue.delete", b"\0\0", short(queue), bits(if_unused, if_empty, 0))


def qos(channel, count, whole_channel=0, size=0):
    return method(channel, "basic.qos", struct.pack(">IH", size, count), bits(whole_channel))


def consume(channel, queue, tag="", no_ack=0, exclusive=0, nowait=0, arguments=None):
    return method(channel, "basic.consume", b"\0\0", short(queue), short(tag),
                  bits(0, no_ack, exclusive, nowait), table(arguments))  # fmt: skip


def cancel(channel, tag):
    return method(channel, "basic.cancel", short(tag), bits(0))


def publish_method(channel, exchange, key, mandatory=0, immediate=0):
    return method(channel, "basic.publish", b"\0\0", short(exchange), short(key),
                  bits(mandatory, immediate))  # fmt: skip


def publish(channel, exchange, key, content, given=b"\0\0", mandatory=0, piece=4000):
    """A whole publish: method, header, body frames of at most *piece* octets."""
    content = octets(content)
    parts = [
        publish_method(channel, exchange, key, mandatory),
        header(channel, len(content), given),
    ]
    for i in range(0, len(content), piece):
        parts.append(body(channel, content[i : i + piece]))
    return b"".join(parts)


def get(channel, queue, no_ack=0):
    return method(channel, "basic.get", b"\0\0", short(queue), bits(no_ack))


def ack(channel, tag, multiple=0):
    return method(channel, "basic.ack", struct.pack(">Q", tag), bits(multiple))


def nack(channel, tag, multiple=0, requeue=1):
    return method(channel, "basic.nack", struct.pack(">Q", tag), bits(multiple, requeue))


def reject(channel, tag, requeue=1):
    return method(channel, "basic.reject", struct.pack(">Q", tag), bits(requeue))


def recover(channel, requeue=1):
    return method(channel, "basic.recover", bits(requeue))


def select_confirms(channel):
    return method(channel, "confirm.select", bits(0))


def flow(channel, active):
    return method(channel, "channel.flow", bits(active))
