"""The numbers of a machine: how many of everything there may be, and what that costs.

All that could grow in this program has a number here and is allocated at start. A profile is a
dict of all of them. check() refuses one that cannot work, before anything is allocated.
"""

from .checks import check_keys, check_number
from .compat import const
from .errors import ConfigError

_ANY = const(0x3FFFFFFF)  # what a small int of a 32-bit board holds

# name, default (a Linux gateway's), lowest, highest
FIELDS = (
    ("heap", 0, 0, _ANY),  # octets of 32-bit heap for code and tables; 0: not checked
    # 1: byte code takes no heap, see board/pico_w/inplace.py; 2: the code is part of the firmware
    ("code_in_flash", 0, 0, 2),
    ("connections", 64, 1, 4096),  # TCP peers at once, with one for each bridge
    ("unauthenticated", 16, 1, 4096),  # of them, at most without login
    ("channels", 128, 1, 65535),  # AMQP 0-9-1 channels of all connections
    ("receive_buffer", 32768, 512, _ANY),  # per connection: longest method or header frame
    ("send_buffer", 131072, 1024, _ANY),  # octets per connection
    ("frame_max", 131072, 4096, _ANY),  # octets, offered in connection.tune
    ("amqp10", 1, 0, 1),  # 0: clients speak AMQP 0-9-1 only, which spares the memory for the other
    ("auto_declare", 1, 0, 1),  # 1: a plain address that AMQP 1.0 attaches to makes a queue
    ("heartbeat", 60, 0, 65535),  # seconds, suggested in connection.tune; 0: none
    ("exchanges", 128, 6, _ANY),  # with the six that are always there
    ("queues", 256, 1, _ANY),
    ("bindings", 512, 1, _ANY),
    ("consumers", 256, 1, _ANY),
    ("messages", 4096, 1, _ANY),  # in RAM
    ("deliveries", 4096, 1, _ANY),  # messages in queues: one in three queues counts three times
    ("block_size", 1024, 16, 65536),  # octets; a message is a chain of blocks
    ("blocks", 16384, 1, _ANY),
    ("message_max", 8388608, 1, _ANY),  # octets of the longest body
    ("stored_max", 134217728, 0, _ANY),  # likewise, for durable queues alone, which stores it
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

# Octets of heap that the modules keep, loaded from .mpy files, as measured on a Pico W.
CODE = 133000
BYTE_CODE = 61900  # of them, with texts: what code_in_flash 1 spares
FROZEN_CODE = 26200  # what 2 leaves: functions, classes and the names of modules
# The same for AMQP 1.0, from its first client on, and for the messages of other protocols.
V10_CODE = 63900
V10_BYTE_CODE = 34300
V10_FROZEN_CODE = 18100
_V10_CLIENT = const(2200)  # octets of the engine of one, and of a session with two links
# Octets of a ring of 256 KB and of the device under it, files of a board's own file system. Raw
# flash takes half of it; each further sector takes eight.
_STORE = const(6000)
_AHEAD = const(256)  # records ahead of a backlog, see ahead.py; eight octets each
_SINGLE = const(904)  # words of what there is one of: broker, reactor, metrics, users
# Octets, with their length, of what is made later; few are longer.
_NAME = const(24)
_LOG_LINE = const(96)


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
    """Raises ConfigError when the numbers of a complete *profile* cannot be together."""
    pool = profile["blocks"] * profile["block_size"]
    peers = profile["connections"]
    for name, most, why in (
        ("unauthenticated", peers, "connections"),
        ("message_max", pool // 2, "half of blocks * block_size"),
        ("message_max", pool - profile["receive_buffer"] - _KEYS, "the blocks less its head"),
        (
            "receive_buffer",
            profile["send_buffer"] - _DELIVERY_HEAD,
            "the send_buffer less its head",
        ),
        ("output_budget", _ANY if profile["stack_send"] else 0, "without a stack_send"),
    ):
        if profile[name] > most:
            raise ConfigError("profile.%s: %d, at most %d: %s" % (name, profile[name], most, why))
    check_heap(profile, [])


def check_heap(profile, more):
    """Raises ConfigError when the bill of *profile*, with *more* rows of one, is too high."""
    heap = profile["heap"]
    rows = bill(profile) + more
    needed = total(rows)
    if heap and needed > heap:
        rows.sort(key=lambda row: (-row[3], row[0]))
        most = ", ".join(["%s (%d)" % (what, octets) for what, _, _, octets in rows[:4]])
        spared = total([row for row in rows if row[0].startswith("AMQP 1.0")])
        raise ConfigError(
            "profile.heap: %d octets, but %d are needed, most of them for %s%s" % (
                heap, needed, most,
                "; with limits.amqp10 0 it fits" if 0 < needed - heap <= spared else "",
            )
        )  # fmt: skip


def bill(profile, word=4):
    """What a complete *profile* costs: a list of (what, how many, octets each, octets together).

    word  octets of a pointer: 4 on a board, 8 for MicroPython on a desktop

    MicroPython's heap is given out in blocks of four words. An object takes one, and a hash table
    with two words for each attribute; lists and octet arrays take one, and their content.
    """
    block = 4 * word

    def whole(n):
        return (n + block - 1) // block * block

    def item(attributes):
        return block + whole(2 * word * _table_size(attributes))

    def octets(n):
        return block + whole(n)

    def items(n):
        return block + whole(word * max(n, 4))

    entry_list = item(3)
    # Connection, its output, properties and channels; Peer, Account, Greeting and its header.
    connection = item(42) + item(22) + 2 * items(0) + item(4) + 2 * block
    connection += item(13) + item(5) + item(9) + item(4) + block + octets(8)
    connections = profile["connections"]
    in_flash = profile["code_in_flash"]
    v10 = profile["amqp10"]
    v10_code = (V10_CODE, V10_CODE - V10_BYTE_CODE, V10_FROZEN_CODE)[in_flash]
    named = profile["exchanges"] + profile["queues"] + profile["bindings"]
    rows = (
        ("code", 1, (CODE, CODE - BYTE_CODE, FROZEN_CODE)[in_flash]),
        ("AMQP 1.0", v10, v10_code),
        ("AMQP 1.0 clients", v10 * connections, _V10_CLIENT * word // 4),
        ("one of each", 1, _SINGLE * word),
        ("store", 1, _STORE + 8 * min(profile["deliveries"], _AHEAD)),
        ("blocks", profile["blocks"], profile["block_size"] + 2),
        ("messages", profile["messages"], item(12)),
        ("deliveries", profile["deliveries"], item(12)),
        ("connections", connections, connection),
        ("receive buffers", connections + 2, octets(profile["receive_buffer"]) + block),
        ("send buffers", connections, octets(profile["send_buffer"]) + block),
        ("channels", profile["channels"], item(25) + entry_list + items(0)),
        ("exchanges", profile["exchanges"], item(12) + items(0) + block + word),
        ("queues", profile["queues"], item(29) + entry_list + items(0) + block),
        ("bindings", profile["bindings"], item(8)),
        ("consumers", profile["consumers"], item(12)),
        ("names", named + 2 * profile["consumers"], octets(_NAME)),
        ("routes", profile["routes"], item(8) + octets(profile["route_key"]) + items(4) + word),
        ("log lines", profile["log_lines"], octets(_LOG_LINE)),
    )
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
