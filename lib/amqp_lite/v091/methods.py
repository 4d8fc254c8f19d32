"""AMQP 0-9-1 methods as data: a row per method, one reader, one writer.

A method is known by class id << 16 | method id. The letters of a signature:

    b bit (neighbours share octets)   B octet   H short   I long   Q long long
    s short string   S long string   F table    . a short or short string nobody uses any more

The methods of the steady path (publish, deliver, ack, nack) are read and written by hand in
channel.py.
"""

import struct

from ..compat import const, u16, u32
from ..errors import SyntaxFailure
from .codec import check_table, check_text, read_table, shortstr, write_table

METHOD = const(1)
HEADER = const(2)
BODY = const(3)
HEARTBEAT = const(8)
FRAME_END = const(0xCE)
BASIC = const(60)

CONNECTION_START = const(0x000A000A)
CONNECTION_START_OK = const(0x000A000B)
CONNECTION_TUNE = const(0x000A001E)
CONNECTION_TUNE_OK = const(0x000A001F)
CONNECTION_OPEN = const(0x000A0028)
CONNECTION_OPEN_OK = const(0x000A0029)
CONNECTION_CLOSE = const(0x000A0032)
CONNECTION_CLOSE_OK = const(0x000A0033)
CONNECTION_BLOCKED = const(0x000A003C)
CONNECTION_UNBLOCKED = const(0x000A003D)
CHANNEL_OPEN = const(0x0014000A)
CHANNEL_OPEN_OK = const(0x0014000B)
CHANNEL_FLOW_OK = const(0x00140015)
CHANNEL_CLOSE = const(0x00140028)
CHANNEL_CLOSE_OK = const(0x00140029)
EXCHANGE_DECLARE_OK = const(0x0028000B)
EXCHANGE_DELETE_OK = const(0x00280015)
EXCHANGE_BIND_OK = const(0x0028001F)
EXCHANGE_UNBIND_OK = const(0x00280033)
QUEUE_DECLARE_OK = const(0x0032000B)
QUEUE_BIND_OK = const(0x00320015)
QUEUE_PURGE_OK = const(0x0032001F)
QUEUE_DELETE_OK = const(0x00320029)
QUEUE_UNBIND_OK = const(0x00320033)
BASIC_QOS_OK = const(0x003C000B)
BASIC_CONSUME_OK = const(0x003C0015)
BASIC_CANCEL = const(0x003C001E)
BASIC_CANCEL_OK = const(0x003C001F)
BASIC_PUBLISH = const(0x003C0028)
BASIC_RETURN = const(0x003C0032)
BASIC_DELIVER = const(0x003C003C)
BASIC_GET = const(0x003C0046)
BASIC_GET_OK = const(0x003C0047)
BASIC_GET_EMPTY = const(0x003C0048)
BASIC_ACK = const(0x003C0050)
BASIC_REJECT = const(0x003C005A)
BASIC_RECOVER_OK = const(0x003C006F)
BASIC_NACK = const(0x003C0078)
CONFIRM_SELECT_OK = const(0x0055000B)

# What a client may send: method -> (handler, signature).
RECEIVED = {
    CONNECTION_START_OK: ("on_start_ok", "FsSs"),
    CONNECTION_TUNE_OK: ("on_tune_ok", "HIH"),
    CONNECTION_OPEN: ("on_open", "ssb"),
    CONNECTION_CLOSE: ("on_close", "HsHH"),
    CONNECTION_CLOSE_OK: ("on_close_ok", ""),
    CHANNEL_OPEN: ("on_channel_open", "s"),
    0x00140014: ("on_channel_flow", "b"),
    CHANNEL_FLOW_OK: ("on_channel_flow_ok", "b"),
    CHANNEL_CLOSE: ("on_channel_close", "HsHH"),
    CHANNEL_CLOSE_OK: ("on_channel_close_ok", ""),
    0x0028000A: ("on_exchange_declare", "HssbbbbbF"),
    0x00280014: ("on_exchange_delete", "Hsbb"),
    0x0028001E: ("on_exchange_bind", "HsssbF"),
    0x00280028: ("on_exchange_unbind", "HsssbF"),
    0x0032000A: ("on_queue_declare", "HsbbbbbF"),
    0x00320014: ("on_queue_bind", "HsssbF"),
    0x0032001E: ("on_queue_purge", "Hsb"),
    0x00320028: ("on_queue_delete", "Hsbbb"),
    0x00320032: ("on_queue_unbind", "HsssF"),
    0x003C000A: ("on_basic_qos", "IHb"),
    0x003C0014: ("on_basic_consume", "HssbbbbF"),
    BASIC_CANCEL: ("on_basic_cancel", "sb"),
    BASIC_CANCEL_OK: ("on_basic_cancel_ok", "s"),
    BASIC_GET: ("on_basic_get", "Hsb"),
    BASIC_REJECT: ("on_basic_reject", "Qb"),
    0x003C0064: ("on_basic_recover_async", "b"),
    0x003C006E: ("on_basic_recover", "b"),
    0x0055000A: ("on_confirm_select", "b"),
}
# Known to the specification or to RabbitMQ, and not here: 540, where an unknown one is 503.
NOT_HERE = (
    0x000A0014, 0x000A0015, 0x000A0046,  # connection.secure, .secure-ok, .update-secret
    0x001E000A,  # access.request
    0x005A000A, 0x005A0014, 0x005A001E,  # tx.select, .commit, .rollback
)  # fmt: skip

# What we send: method -> signature.
SENT = {
    CONNECTION_START: "BBFSS",
    CONNECTION_TUNE: "HIH",
    CONNECTION_OPEN_OK: "s",
    CONNECTION_CLOSE: "HsHH",
    CONNECTION_CLOSE_OK: "",
    CONNECTION_BLOCKED: "s",
    CONNECTION_UNBLOCKED: "",
    CHANNEL_OPEN_OK: "S",
    CHANNEL_FLOW_OK: "b",
    CHANNEL_CLOSE: "HsHH",
    CHANNEL_CLOSE_OK: "",
    EXCHANGE_DECLARE_OK: "",
    EXCHANGE_DELETE_OK: "",
    EXCHANGE_BIND_OK: "",
    EXCHANGE_UNBIND_OK: "",
    QUEUE_DECLARE_OK: "sII",
    QUEUE_BIND_OK: "",
    QUEUE_PURGE_OK: "I",
    QUEUE_DELETE_OK: "I",
    QUEUE_UNBIND_OK: "",
    BASIC_QOS_OK: "",
    BASIC_CONSUME_OK: "s",
    BASIC_CANCEL: "sb",
    BASIC_CANCEL_OK: "s",
    BASIC_RETURN: "Hsss",
    BASIC_GET_EMPTY: "s",
    BASIC_RECOVER_OK: "",
    CONFIRM_SELECT_OK: "",
}


def read_arguments(signature, buf, i, end):
    """The arguments in buf[i:end] as a list; strings are octets, tables dicts.

    Raises SyntaxFailure unless they fill it exactly, or when a short string is no clean text.
    """
    values = []
    bit = 0
    for letter in signature:
        if letter == "b":
            # Consecutive bits fill an octet from its low end (AMQP 0-9-1 §4.2.5.2).
            if not bit:
                if i >= end:
                    raise SyntaxFailure("arguments are shorter than the method needs")
                i += 1
                bit = 1
            values.append(buf[i - 1] & bit != 0)
            bit = bit << 1 & 0xFF
            continue
        bit = 0
        if letter == "s":
            size = 1 + buf[i] if i < end else 1
        elif letter == "S" or letter == "F":
            size = 4 + u32(buf, i) if i + 4 <= end else 4
        else:
            size = struct.calcsize(letter)
        stop = i + size
        if stop > end:
            raise SyntaxFailure("arguments are shorter than the method needs")
        if letter == "s":
            check_text(buf, i + 1, stop)
            values.append(bytes(buf[i + 1 : stop]))
        elif letter == "S":
            values.append(bytes(buf[i + 4 : stop]))
        elif letter == "F":
            check_table(buf, i, end)
            values.append(read_table(buf, i)[0])
        elif letter == "H":
            values.append(u16(buf, i))
        else:
            values.append(struct.unpack(">" + letter, bytes(buf[i:stop]))[0])
        i = stop
    if i != end:
        raise SyntaxFailure("arguments are longer than the method takes")
    return values


def method_frame(channel, method, arguments):
    """The octets of a whole method frame."""
    parts = [struct.pack(">I", method)]
    bits = 0
    bit = 0
    for letter, value in zip(SENT[method], arguments):
        if letter == "b":
            bit = bit << 1 or 1
            if value:
                bits |= bit
            continue
        if letter == "s":
            parts.append(shortstr(value))
        elif letter == "S":
            parts.append(struct.pack(">I", len(value)) + value)
        elif letter == "F":
            parts.append(write_table(value))
        else:
            parts.append(struct.pack(">" + letter, value))
    if bit:
        # No method we send has anything behind its bits.
        parts.append(bytes((bits,)))
    payload = b"".join(parts)
    return struct.pack(">BHI", METHOD, channel, len(payload)) + payload + b"\xce"
