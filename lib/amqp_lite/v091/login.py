"""The SASL responses AMQP 0-9-1 clients send."""

import struct

from ..errors import SyntaxFailure
from .codec import check_table, read_table


def plain_response(response):
    """(user, password) of a SASL PLAIN response (RFC 4616); (None, None) when it is malformed."""
    parts = response.split(b"\0")
    if len(parts) != 3 or not parts[1]:
        return None, None
    return parts[1], parts[2]


def amqplain_response(response):
    """(user, password) of AMQPLAIN, a field table without its length; or (None, None)."""
    octets = struct.pack(">I", len(response)) + response
    try:
        check_table(octets, 0, len(octets))
    except (IndexError, SyntaxFailure):
        return None, None
    table = read_table(octets, 0)[0]
    user = table.get(b"LOGIN")
    password = table.get(b"PASSWORD")
    if isinstance(user, bytes) and isinstance(password, bytes):
        return user, password
    return None, None
