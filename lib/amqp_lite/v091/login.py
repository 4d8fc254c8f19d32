"""AMQPLAIN, the SASL mechanism that only AMQP 0-9-1 has."""

import struct

from ..errors import SyntaxFailure
from .codec import check_table, read_table


def as_plain(response):
    """The response of PLAIN that says what this one says, a field table without its length.

    Nobody's, when it is malformed.
    """
    octets = struct.pack(">I", len(response)) + response
    try:
        check_table(octets, 0, len(octets))
    except (IndexError, SyntaxFailure):
        return b""
    table = read_table(octets, 0)[0]
    user = table.get(b"LOGIN")
    password = table.get(b"PASSWORD")
    if isinstance(user, bytes) and isinstance(password, bytes):
        return b"\0" + user + b"\0" + password
    return b""
