"""Addresses of sources and targets: read into names, and made from names.

RabbitMQ's format v2, its older v1, and plain names as Broker-J and Artemis take them:

    | address             | kind      | exchange  | key  | queue | as a source           |
    |---------------------|-----------|-----------|------|-------|-----------------------|
    | null                | ANONYMOUS | None      | None | None  | refused               |
    | v2 /queues/:q       | QUEUE     | b""       | q    | q     | the same              |
    | /exchanges/:e/:key  | EXCHANGE  | e         | key  | None  | refused               |
    | /exchanges/:e       | EXCHANGE  | e         | b""  | None  | refused               |
    | v1 /amq/queue/:q    | QUEUE     | b""       | q    | q     | the same              |
    | /queue/:q           | DECLARED  | b""       | q    | q     | the same              |
    | /queue              | EXCHANGE  | b""       | None | None  | refused               |
    | /exchange/:e/:key   | EXCHANGE  | e         | key  | None  | the key of a binding  |
    | /exchange/:e        | EXCHANGE  | e         | None | None  | the same              |
    | /topic/:key         | EXCHANGE  | amq.topic | key  | None  | the key of a binding  |
    | plain q             | PLAIN     | q         | None | q     | the same              |
    | e/key               | PLAIN     | e         | key  | e/key | the key of a binding  |

Before an address that begins with a slash /queue and /topic mean nothing.

Names and keys are octets, at most 255 of them. A key of None is not given: a target takes each
message's subject then, a source binds with what its filters say, else with an empty key.

    ANONYMOUS  each message says in `to` where it goes: parse_target() again
    QUEUE      this queue; it has to exist
    DECLARED   this queue; it is declared when it is not there
    EXCHANGE   publish to *exchange* with *key*, or consume from a private queue bound to it
    PLAIN      the queue *queue* when there is one, else the exchange *exchange* with *key* when
               there is one, else a queue to be declared or an error: the broker's tables decide

Nodes of the protocol itself (`/management`, `$cbs`) are not known here.
"""

from binascii import unhexlify
from collections import namedtuple

from ..compat import const
from ..errors import NotAllowed
from .conditions import InvalidField

ANONYMOUS = const(0)
QUEUE = const(1)
DECLARED = const(2)
EXCHANGE = const(3)
PLAIN = const(4)

Address = namedtuple("Address", ("kind", "exchange", "key", "queue"))

# By what an address begins with: its kind, how many names may follow, whether it is v2.
_FORMS = {
    "queues": (QUEUE, 1, True),
    "exchanges": (EXCHANGE, 2, True),
    "amq/queue": (QUEUE, 1, False),
    "queue": (DECLARED, 1, False),
    "exchange": (EXCHANGE, 2, False),
    "topic": (EXCHANGE, 1, False),
}
_LONGEST = const(255)  # octets, AMQP 0-9-1 §4.2.5.3
_SHOWN = const(60)  # letters of an address in an error
# RFC 3986 §2.3
_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


def parse_target(address):
    """The Address that a target's *address* means; also that of a message's `to`.

    Raises InvalidField when it is none of the above, NotAllowed when it names a host.
    """
    if address is None:
        return Address(ANONYMOUS, None, None, None)
    return _parse(address, True)


def parse_source(address):
    """The Address that a source's *address* means. Raises InvalidField and NotAllowed."""
    if address is None:
        raise InvalidField("a source without an address")
    return _parse(address, False)


def queue_address(name):
    """The address, v2, of the queue *name*."""
    return "/queues/" + encode(name)


def exchange_address(exchange, key=b""):
    """The address, v2, of *exchange* with the routing key *key*.

    The default exchange has none: its keys are names of queues, and get the address of one.
    """
    if not exchange:
        return queue_address(key)
    address = "/exchanges/" + encode(exchange)
    return address + "/" + encode(key) if key else address


def _parse(address, is_target):
    if not address.startswith("/"):
        return _parse_plain(address)
    if address.startswith("/queue//") or address.startswith("/topic//"):
        # Qpid JMS has put a prefix before somebody else's reply-to, see connection.py.
        address = address[7:]
    parts = address.split("/")
    form = parts[1]
    at = 2
    if form == "amq" and len(parts) > 2 and parts[2] == "queue":
        form = "amq/queue"
        at = 3
    if form not in _FORMS:
        _refuse(address, "begins with neither /queues/ nor /exchanges/ nor an older form of them")
    kind, most, is_v2 = _FORMS[form]
    count = len(parts) - at
    if form == "exchanges" and not is_target:
        _refuse(address, "is no source: that is a queue, or /exchange/:exchange/:binding-key")
    if form == "queue" and not count and is_target:
        return Address(EXCHANGE, b"", None, None)
    if count > most:
        _refuse(address, "has too many parts: a '/' in a name is written %2F")
    if not count or not parts[at]:
        _refuse(address, "has an empty name")
    read = decode if is_v2 else _unescape
    name = read(parts[at], address)
    if kind != EXCHANGE:
        return Address(kind, b"", name, name)
    if form == "topic":
        return Address(EXCHANGE, b"amq.topic", name, None)
    if name == b"amq.default":
        _refuse(address, "is the default exchange: write /queues/:queue")
    if count == 2 and parts[at + 1]:
        key = read(parts[at + 1], address)
    else:
        key = b"" if is_v2 else None
    return Address(EXCHANGE, name, key, None)


def _parse_plain(address):
    scheme = address[:8].lower()
    if scheme == "amqps://" or scheme.startswith("amqp://"):
        raise NotAllowed(
            _quote(address) + " names a host: this broker has its own queues only, /queues/:queue"
        )
    if not address:
        _refuse(address, "has an empty name")
    name = _unescape(address, address)
    exchange, slash, key = address.partition("/")
    if not slash:
        return Address(PLAIN, name, None, name)
    # Like an empty key in v1, one in Broker-J's form stands for the subject.
    key = _unescape(key, address) if key else None
    return Address(PLAIN, _unescape(exchange, address), key, name)


def decode(part, address):
    """The octets of a percent-encoded part, RFC 3986 §2.1.

    What should have been encoded and is not stands for itself; RabbitMQ refuses it.
    """
    octets = part.encode()
    if "%" in part:
        pieces = octets.split(b"%")
        for k in range(1, len(pieces)):
            piece = pieces[k]
            try:
                octet = unhexlify(piece[:2])
            except ValueError:
                octet = b""
            if not octet:
                _refuse(address, "has a % that two hexadecimal digits do not follow")
            pieces[k] = octet + piece[2:]
        octets = b"".join(pieces)
        try:
            str(octets, "utf-8")
        except UnicodeError:
            _refuse(address, "is not UTF-8 when decoded")
    return _checked(octets, address)


def _unescape(part, address):
    """The octets of a part in v1 or plain: RabbitMQ knows one escape there and no other."""
    return _checked(part.replace("%2F", "/").encode(), address)


def _checked(octets, address):
    if len(octets) > _LONGEST:
        _refuse(address, "has a part of %d octets, at most 255 are allowed" % len(octets))
    return octets


def encode(octets):
    return "".join([chr(o) if o in _UNRESERVED else "%%%02X" % o for o in octets])


def _quote(address):
    shown = "".join([c if c >= " " else "?" for c in address[:_SHOWN]])
    return "address '%s%s'" % (shown, "..." if len(address) > _SHOWN else "")


def _refuse(address, why):
    raise InvalidField(_quote(address) + " " + why)
