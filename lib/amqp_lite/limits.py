"""The numbers of a machine: how many of everything there may be, and what that costs.

All that could grow in this program has a number here and is allocated at start. A profile is a dict
of all of them. check() refuses one that cannot work, before anything is allocated.
"""

from .checks import check_keys, check_number
from .compat import const
from .errors import ConfigError

_ANY = const(0x3FFFFFFF)  # what a small int of a 32-bit board holds

# name, default (a Linux gateway's), lowest, highest
FIELDS = (
    ("heap", 0, 0, _ANY),  # octets of 32-bit heap for code and tables; 0: not checked
    ("connections", 64, 1, 4096),  # TCP peers at once
    ("reserved", 1, 0, 4096),  # of them, kept for the bridge
    ("unauthenticated", 16, 1, 4096),  # of them, at most without login
    ("channels", 128, 1, 65535),  # AMQP 0-9-1 channels of all connections
    ("receive_buffer", 65536, 512, _ANY),  # per connection: longest method or header frame
    ("send_buffer", 262144, 1024, _ANY),  # octets per connection
    ("frame_max", 131072, 4096, _ANY),  # octets, offered in connection.tune
    ("heartbeat", 60, 0, 65535),  # seconds, suggested in connection.tune; 0: none
    ("exchanges", 128, 6, _ANY),  # with the six that are always there
    ("queues", 256, 1, _ANY),
    ("bindings", 512, 1, _ANY),
    ("consumers", 256, 1, _ANY),
    ("messages", 4096, 1, _ANY),  # in RAM
    ("deliveries", 6144, 1, _ANY),  # messages in queues: one in three queues counts three times
    ("block_size", 1024, 16, 65536),  # octets; a message is a chain of blocks
    ("blocks", 16384, 1, _ANY),
    ("message_max", 8388608, 1, _ANY),  # octets of the longest body
    ("routes", 128, 1, 65536),  # cached: the queues an exchange and routing key lead to
    ("route_key", 128, 4, 512),  # octets of exchange and routing key worth caching
    ("output_budget", 0, 0, _ANY),  # octets under way over all connections; 0: no limit
    ("stack_send", 0, 0, _ANY),  # octets the TCP stack keeps for one connection
    ("login_bytes", 65536, 1024, _ANY),  # received before login
    ("login_ms", 10000, 100, 600000),  # from accept to login
    ("log_lines", 200, 0, 65536),  # recent ones kept in RAM
)

_KEYS = const(512)  # octets: exchange name and routing key with their length octets
# Octets of a delivery besides its properties: consumer tag, keys, the fixed parts of three frames,
# and what direct reply-to adds to an address.
_DELIVERY_HEAD = const(840)

# Octets of heap that all modules keep when loaded from .mpy files.
CODE = 49000
_LOG_LINE = const(96)  # octets, usually


def check_numbers(given, path):
    """Raises ConfigError, naming the field, unless each number in *given* can be, by itself."""
    check_keys(given, [row[0] for row in FIELDS], path)
    for name, _, lowest, highest in FIELDS:
        if name in given:
            check_number(given[name], lowest, highest, path + "." + name)


def complete(profile=None, overrides=None):
    """All numbers: the defaults, changed by *profile*, changed by *overrides*.

    Raises ConfigError for a number that does not exist or cannot be.
    """
    numbers = {row[0]: row[1] for row in FIELDS}
    for given, path in ((profile, "profile"), (overrides, "limits")):
        if given is not None:
            check_numbers(given, path)
            numbers.update(given)
    return numbers


def check(profile):
    """Raises ConfigError when the numbers of a complete *profile* contradict each other, or need
    more than its heap."""
    pool = profile["blocks"] * profile["block_size"]
    connections = profile["connections"]
    for name, most, reason in (
        ("reserved", connections - 1, "connections - 1"),
        ("unauthenticated", connections - profile["reserved"], "connections - reserved"),
        ("message_max", pool // 2, "half of blocks * block_size"),
        (
            "message_max",
            pool - profile["receive_buffer"] - _KEYS,
            "blocks * block_size - receive_buffer - %d" % _KEYS,
        ),
        (
            "receive_buffer",
            profile["send_buffer"] - _DELIVERY_HEAD,
            "send_buffer - %d" % _DELIVERY_HEAD,
        ),
        ("output_budget", _ANY if profile["stack_send"] else 0, "allowed without stack_send"),
    ):
        if profile[name] > most:
            raise ConfigError(
                "profile.%s: %d is more than %s (%d)" % (name, profile[name], reason, most)
            )
    if profile["heap"]:
        rows = bill(profile)
        needs = total(rows)
        if needs > profile["heap"]:
            rows.sort(key=lambda row: -row[3])
            raise ConfigError(
                "profile.heap: %d octets, but the profile needs %d; most of it for %s"
                % (
                    profile["heap"],
                    needs,
                    ", ".join(["%s (%d)" % (row[0], row[3]) for row in rows[:4]]),
                )
            )


def bill(profile, word=4):
    """What a complete *profile* costs: a list of (what, how many, octets each, octets together).

    word  octets of a pointer: 4 on a board, 8 for MicroPython on a desktop

    The heap is given out in blocks of four words. An object takes one, and its attributes two
    words each in a hash table of their own; lists and octet arrays one, and their content.
    """
    head = 4 * word

    def octets(n):
        return (n + head - 1) // head * head

    def item(attributes):
        return head + octets(2 * word * _table_size(attributes))

    def array(n):
        return head + octets(n)

    def listed(n):
        return head + octets(word * max(n, 4))

    empty = listed(0)
    entries = item(3)  # an EntryList
    connections = profile["connections"]
    rows = [
        ("code", 1, CODE),
        ("blocks", profile["blocks"], profile["block_size"] + 2),
        ("messages", profile["messages"], item(11)),
        ("deliveries", profile["deliveries"], item(10)),
        # Connection, Output, Properties, Peer, Account, Greeting and its header
        (
            "connections",
            connections,
            item(40) + item(19) + item(4) + item(8) + item(5) + item(8) + item(4)
            + 2 * empty + 4 * head + array(8),
        ),
        ("receive buffers", connections + 2, array(profile["receive_buffer"]) + head),
        ("send buffers", connections, array(profile["send_buffer"]) + head),
        ("channels", profile["channels"], item(22) + entries + empty),
        ("exchanges", profile["exchanges"], item(9) + empty + head + word),
        ("queues", profile["queues"], item(21) + entries + empty + head),
        ("bindings", profile["bindings"], item(7)),
        ("consumers", profile["consumers"], item(9)),
        ("routes", profile["routes"], item(7) + array(profile["route_key"]) + listed(4)),
        ("log lines", profile["log_lines"], array(_LOG_LINE)),
    ]  # fmt: skip
    return [(what, many, each, many * each) for what, many, each in rows]


def total(rows):
    """The octets of a bill."""
    return sum([row[3] for row in rows])


def _table_size(entries):
    """Places in a MicroPython hash table to which so many *entries* were added one by one."""
    for size in (0, 1, 2, 4, 6, 8, 10, 12, 17, 23, 29, 37, 47, 59):
        if size >= entries:
            return size
    return entries
