"""Content properties of the basic class as a dict, for code on the board (AMQP 0-9-1 §1.8.3.1)."""

import struct

from ..compat import const, u16
from ..errors import SyntaxFailure
from .codec import read_table, shortstr, write_table

_CONTENT_TYPE = const(0x8000)  # the flag of the first; each next is half of it
# In the order of their flags, high to low.
NAMES = (
    "content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id",
    "reply_to", "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
)  # fmt: skip


def read_properties(buf, i):
    """The property list at *i*, which scan() passed, as a dict; strings come as octets."""
    flags = u16(buf, i)
    i += 2
    properties = {}
    bit = _CONTENT_TYPE
    for name in NAMES:
        if flags & bit:
            if name == "headers":
                properties[name], i = read_table(buf, i)
            elif name in ("delivery_mode", "priority"):
                properties[name] = buf[i]
                i += 1
            elif name == "timestamp":
                properties[name] = struct.unpack(">Q", bytes(buf[i : i + 8]))[0]
                i += 8
            else:
                n = i + 1 + buf[i]
                properties[name] = bytes(buf[i + 1 : n])
                i = n
        bit >>= 1
    return properties


def write_properties(properties):
    """The flags and list of *properties*, a dict by the names in NAMES.

    Raises SyntaxFailure for a name that is none of them or a string longer than 255 octets.
    """
    flags = 0
    parts = [b""]
    bit = _CONTENT_TYPE
    for name in NAMES:
        if properties.get(name) is not None:
            value = properties[name]
            flags |= bit
            if name == "headers":
                parts.append(write_table(value))
            elif name in ("delivery_mode", "priority"):
                parts.append(bytes((value,)))
            elif name == "timestamp":
                parts.append(struct.pack(">Q", value))
            else:
                parts.append(shortstr(value))
        bit >>= 1
    for name in properties:
        if name not in NAMES:
            raise SyntaxFailure("no property '%s' in the basic class" % name)
    parts[0] = struct.pack(">H", flags)
    return b"".join(parts)
