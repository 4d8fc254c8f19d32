"""AMQP 1.0 frames for tests: made, and taken apart."""

from amqp_lite.v10 import performatives as performative
from amqp_lite.v10.codec import Symbol, Typed, read_value
from amqp_lite.v10.frames import AMQP, SASL
from amqp_lite.v10.performatives import described, frame, uint

SASL_HEADER = b"AMQP\x03\x01\x00\x00"
HEADER = b"AMQP\x00\x01\x00\x00"


def init(response=b"\0guest\0guest", mechanism="PLAIN"):
    return frame(SASL, 0, described(performative.SASL_INIT, Symbol(mechanism), response))


def open_connection(container="client", host=None, frame_max=None, channel_max=None, idle=None):
    return frame(
        AMQP, 0, described(
            performative.OPEN, container, host, frame_max and uint(frame_max),
            None if channel_max is None else Typed(0x60, channel_max),
            None if idle is None else uint(idle),
        ),
    )  # fmt: skip


def close():
    return frame(AMQP, 0, described(performative.CLOSE))


def begin(channel=0, remote=None, next_outgoing=0, window=100):
    return frame(
        AMQP, channel, described(
            performative.BEGIN, remote, uint(next_outgoing), uint(window), uint(window)
        ),
    )  # fmt: skip


def end(channel=0):
    return frame(AMQP, channel, described(performative.END))


def flow(channel=0, *fields):
    """Of a session: next-incoming-id, incoming-window, next-outgoing-id, outgoing-window ..."""
    return frame(AMQP, channel, described(performative.FLOW, *fields))


def split(octets):
    """What came: the headers as octets; frames as [name, channel, fields]; the rest of the octets.

    Fields are Python's values, up to the last that is given; of an empty frame the name is None.
    """
    found = []
    while len(octets) >= 8:
        if octets[:4] == b"AMQP":
            found.append(octets[:8])
            octets = octets[8:]
            continue
        size = int.from_bytes(octets[:4], "big")
        if size > len(octets):
            break
        assert octets[4] == 2 and octets[5] in (AMQP, SASL)
        row = [None, octets[6] << 8 | octets[7], []]
        if size > 8:
            value, behind = read_value(octets, 8)
            row[0] = str(performative._LISTS[value.descriptor][0], "utf-8")
            row[2] = value.value
            if behind < size:
                row.append(octets[behind:size])
        found.append(row)
        octets = octets[size:]
    return found, octets


def error_of(row):
    """The condition in the close, end or detach *row* of split(); None without one."""
    if not row[2]:
        return None
    return row[2][-1].value[0].text
