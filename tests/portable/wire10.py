"""AMQP 1.0 frames for tests: made, and taken apart."""

from amqp_lite.v10 import performatives as performative
from amqp_lite.v10.frames import AMQP, SASL
from amqp_lite.v10.performatives import described, described_value, frame, uint
from amqp_lite.v10.values import Described, Symbol, Typed, read_value, write_value

SASL_HEADER = b"AMQP\x03\x01\x00\x00"
HEADER = b"AMQP\x00\x01\x00\x00"
SASL_CHALLENGE = 0x42  # AMQP 1.0 §5.3.3; no mechanism of the broker's has them
SASL_RESPONSE = 0x43
NO_SOURCE = object()


def _lists():
    table = performative._LISTS
    found = {}
    i = 0
    for name in performative._NAMES.split():
        found[table[i]] = name, table[i + 2 : i + 2 + table[i + 1]]
        i += 2 + table[i + 1]
    assert i == len(table)
    return found


LISTS = _lists()  # name and letters by descriptor, see performatives.py


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
            row[0] = str(LISTS[value.descriptor][0], "utf-8")
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


# --- links ---


def attach_sender(name, target, handle=0, channel=0, settle=None, count=0, **terminus):
    """A link that the client sends on. *target*: an address, None for the anonymous terminus."""
    return frame(
        AMQP, channel, described(
            performative.ATTACH, name, uint(handle), False,
            None if settle is None else Typed(0x50, settle), None,
            described_value(performative.SOURCE, "here"),
            described_value(performative.TARGET, target, None, None, None,
                            terminus.get("dynamic"), None, _symbol(terminus.get("capability"))),
            None, None, uint(count),
        ),
    )  # fmt: skip


def attach_receiver(name, source, handle=0, channel=0, settle=None, **terminus):
    """A link that the client receives from."""
    return frame(
        AMQP, channel, described(
            performative.ATTACH, name, uint(handle), True,
            None if settle is None else Typed(0x50, settle), None,
            None if source is NO_SOURCE else described_value(
                performative.SOURCE, source, *_fields(terminus)
            ),
            described_value(performative.TARGET, "there"),
        ),
    )  # fmt: skip


def _fields(terminus):
    """Those behind the address, of a source."""
    timeout = terminus.get("timeout")
    durable = terminus.get("durable")
    return (
        None if durable is None else uint(durable), _symbol(terminus.get("expiry")),
        None if timeout is None else uint(timeout), terminus.get("dynamic"), None,
        _symbol(terminus.get("mode")), terminus.get("filter"), terminus.get("default"), None,
        _symbol(terminus.get("capability")),
    )  # fmt: skip


def _symbol(name):
    return None if name is None else Symbol(name)


def detach(handle=0, channel=0, closed=True):
    return frame(AMQP, channel, described(performative.DETACH, uint(handle), closed))


def credit(handle, credit, count=0, channel=0, drain=None, echo=None):
    """A flow for the receiver of *handle*."""
    return flow(
        channel, uint(0), uint(1000), uint(0), uint(1000), uint(handle), uint(count),
        uint(credit), None, drain, echo,
    )  # fmt: skip


def message(body=b"", durable=None, ttl=None, to=None, subject=None, user=None, headers=None):
    """The octets of a message of one data section."""
    sections = b""
    if durable is not None or ttl is not None:
        sections += described(performative.HEADER, durable, None, ttl and uint(ttl))
    if to or subject or user:
        sections += described(performative.PROPERTIES, None, user, to, subject)
    if headers:
        sections += write_value(Described(Typed(0x53, 0x74), headers))
    return sections + write_value(Described(Typed(0x53, 0x75), body))


def sections(payload):
    """The sections of a message by their codes; of a body the value."""
    found = {}
    i = 0
    while i < len(payload):
        value, i = read_value(payload, i)
        found[value.descriptor] = value.value
    return found


def transfer(payload, number=0, handle=0, channel=0, settled=None, more=None, tag=b"t", **given):
    """A transfer; without *number* one that goes on."""
    return frame(
        AMQP, channel, described(
            performative.TRANSFER, uint(handle), None if number is None else uint(number),
            tag, uint(0), settled, more, None, given.get("state"), None, given.get("aborted"),
        ) + payload,
    )  # fmt: skip


def disposition(first, last=None, state=performative.ACCEPTED, settled=True, channel=0, *more):
    """A receiver's."""
    return frame(
        AMQP, channel, described(
            performative.DISPOSITION, True, uint(first), None if last is None else uint(last),
            settled, state and described_value(state, *more),
        ),
    )  # fmt: skip
