"""AMQP 0-9-1 methods as data: a row per method, one reader, one writer.

A method is known by class id << 16 | method id. The letters of a signature:

    b bit (neighbours share octets)   B octet   H short   I long   Q long long
    s short string   S long string   F table

The methods of the steady path (publish, deliver, ack, nack) are read and written by hand in
channel.py.
"""

import struct

from ..compat import const, u16, u32
from ..errors import SyntaxFailure
from .codec import check_table, check_text, read_table, shortstr, write_table

_METHOD = const(1)


# What a client may send: method -> (handler, signature).
RECEIVED = {
    0x000A000B: ("on_start_ok", "FsSs"),
    0x000A001F: ("on_tune_ok", "HIH"),
    0x000A0028: ("on_open", "ssb"),
    0x000A0032: ("on_close", "HsHH"),
    0x000A0033: ("on_close_ok", ""),
    0x0014000A: ("on_channel_open", "s"),
    0x00140014: ("on_channel_flow", "b"),
    0x00140015: ("on_channel_flow_ok", "b"),
    0x00140028: ("on_channel_close", "HsHH"),
    0x00140029: ("on_channel_close_ok", ""),
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
    0x003C001E: ("on_basic_cancel", "sb"),
    0x003C001F: ("on_basic_cancel_ok", "s"),
    0x003C0046: ("on_basic_get", "Hsb"),
    0x003C005A: ("on_basic_reject", "Qb"),
    0x003C0064: ("on_basic_recover_async", "b"),
    0x003C006E: ("on_basic_recover", "b"),
    0x0055000A: ("on_confirm_select", "b"),
    0x005A000A: ("on_tx_select", ""),
    0x005A0014: ("on_tx_commit", ""),
    0x005A001E: ("on_tx_rollback", ""),
}
# Known to the specification or to RabbitMQ, and not here: 540, where an unknown one is 503.
NOT_HERE = (
    0x000A0014, 0x000A0015, 0x000A0046,  # connection.secure, .secure-ok, .update-secret
    0x001E000A,  # access.request
)  # fmt: skip

# What we send: method -> signature, where it has arguments.
SENT = {
    0x000A000A: "BBFSS",  # connection.start
    0x000A001E: "HIH",  # connection.tune
    0x000A0029: "s",  # connection.open-ok
    0x000A0032: "HsHH",  # connection.close
    0x000A003C: "s",  # connection.blocked
    0x0014000B: "S",  # channel.open-ok
    0x00140015: "b",  # channel.flow-ok
    0x00140028: "HsHH",  # channel.close
    0x0032000B: "sII",  # queue.declare-ok
    0x0032001F: "I",  # queue.purge-ok
    0x00320029: "I",  # queue.delete-ok
    0x003C0015: "s",  # basic.consume-ok
    0x003C001E: "sb",  # basic.cancel
    0x003C001F: "s",  # basic.cancel-ok
    0x003C0048: "s",  # basic.get-empty
}


# What both our sides can do beyond the specification.
CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
    "per_consumer_qos": True,
    "direct_reply_to": True,
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


def method_frame(channel, method, arguments, signature=None):
    """The octets of a whole method frame; *signature*: where SENT has none."""
    parts = [struct.pack(">I", method)]
    bits = 0
    bit = 0
    for letter, value in zip(signature or SENT.get(method, ""), arguments):
        if letter == "b":
            bit = bit << 1 or 1
            if value:
                bits |= bit
            continue
        if bit:
            parts.append(bytes((bits,)))
            bits = bit = 0
        if letter == "s":
            parts.append(shortstr(value))
        elif letter == "S":
            parts.append(struct.pack(">I", len(value)) + value)
        elif letter == "F":
            parts.append(write_table(value))
        else:
            parts.append(struct.pack(">" + letter, value))
    if bit:
        parts.append(bytes((bits,)))
    payload = b"".join(parts)
    return struct.pack(">BHI", _METHOD, channel, len(payload)) + payload + b"\xce"
