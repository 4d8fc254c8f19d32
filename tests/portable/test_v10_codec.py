"""AMQP 1.0 values: what others write is read and written again; what is broken is refused."""

import struct

import chance
from amqp_lite.compat import MICROPYTHON
from amqp_lite.errors import SyntaxFailure
from amqp_lite.v10 import codec
from amqp_lite.v10.codec import check_value
from amqp_lite.v10.values import Described, Symbol, Typed, read_value, write_value
from v10_vectors import PROTON, RHEA

UUID = b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"
OPEN = Symbol("amqp:open:list")
GRUSS = "gr\u00fc\u00df"

# What both write, and what only one of them does.
VALUES = {
    "null": None, "true": True, "false": False, "ubyte": 200, "ushort": 50000, "uint": 4000000000,
    "smalluint": 200, "uint0": 0, "smallulong": 200, "ulong0": 0, "byte": -100, "short": -20000,
    "int": -2000000000, "smallint": -100, "smalllong": -100, "float": 1.5, "double": -0.1,
    "char": "\U0001f600", "timestamp": 1790000000123, "uuid": UUID, "vbin8": b"\0\1\xff",
    "str8": GRUSS, "sym8": OPEN,
}  # fmt: skip
OF_RHEA = {
    "boolean": True, "ulong": 0x1122334455667, "long": -0x1122334455667, "vbin32": b"\0\1\xff",
    "str32": GRUSS, "sym32": OPEN, "list0": [], "list8": [7, None], "list32": [7, None],
    "map8": {Symbol("a"): 7}, "map32": {Symbol("a"): 7},
    "array_of_symbols": [Symbol("PLAIN"), Symbol("ANONYMOUS")],
    "array_of_uints": [1, 2, 4000000000],
    "described": Described(0x24, ["x"]),
    "described_by_name": Described(
        Symbol("apache.org:legacy-amqp-topic-binding:string"), "%.log"
    ),
    "nested": [{"a": [True]}],
}  # fmt: skip
OF_PROTON = {
    "ulong": 0x8000000000000005, "long": -(2**62), "vbin32": b"x" * 300, "str32": "\u00fc" * 150,
    "sym32": Symbol("s" * 300), "decimal32": b"\x22\x50\0\1",
    "decimal64": b"\x22\x38\0\0\0\0\0\1", "decimal128": bytes(range(16)),
    "list": [[], True, 2.5], "long_list": ["x" * 300], "map": {"k": b"\0v", Symbol("s"): {}},
    "described": Described(0x28, ["q", None]), "array": [1, 2, 4000000000],
    "array_of_described": [Described(Symbol("a:b"), "x"), Described(Symbol("a:b"), "yz")],
    "array_of_lists": [[1, "x"], [1, "x"]], "array_of_arrays": [[-1, 2], [-1, 2]],
    "array_of_booleans": [True, False], "empty_array": [],
}  # fmt: skip


def vectors():
    for others, more in ((RHEA, OF_RHEA), (PROTON, OF_PROTON)):
        for name in others:
            yield name, others[name], more[name] if name in more else VALUES[name]


def is_same(a, b):
    if isinstance(a, float):
        return abs(a - b) < 1e-6  # MicroPython's are shorter on a board
    return type(a) is type(b) and a == b


def test_there_is_a_vector_for_every_constructor():
    found = set()
    for _, octets, _ in vectors():
        found.add(octets[0])
    # Nobody writes short arrays, lists of either form rhea alone.
    assert set(codec._CODES) - found == {0xE0}


def test_what_others_write_is_read():
    for name, octets, value in vectors():
        assert check_value(octets, 0, len(octets)) == len(octets), name
        assert codec.skip_value(octets, 0) == len(octets), name
        read, behind = read_value(octets, 0)
        assert behind == len(octets) and is_same(read, value), (name, read)


def test_typed_values_become_the_same_octets_again():
    for name, octets, _ in vectors():
        # MicroPython's float on a board would not, and it is one there.
        if name != "double" or not MICROPYTHON or is_exact():
            assert write_value(read_value(octets, 0, True)[0]) == octets, name


def is_exact():
    return struct.unpack(">d", struct.pack(">d", -0.1))[0] == -0.1 and 1 + 2**-40 != 1


def test_values_in_the_shortest_form():
    for value, octets in (
        (None, b"\x40"), (True, b"\x41"), (False, b"\x42"), (0, b"\x55\0"), (-128, b"\x55\x80"),
        (127, b"\x55\x7f"), (128, b"\x81" + b"\0" * 7 + b"\x80"), (-129, b"\x81" + b"\xff" * 6
        + b"\xff\x7f"), (1.5, b"\x82\x3f\xf8" + b"\0" * 6), ("", b"\xa1\0"),
        ("x" * 256, b"\xb1\0\0\1\0" + b"x" * 256), (b"\0", b"\xa0\1\0"),
        (Symbol("s"), b"\xa3\1s"), ([], b"\xc0\1\0"), ((1, []), b"\xc0\6\2\x55\1\xc0\1\0"),
        ({"k": None}, b"\xc1\5\2\xa1\1k\x40"), (Described(Symbol("d"), [1]), b"\0\xa3\1d\xc0\3\1"
        b"\x55\1"), (["x" * 255], b"\xd0\0\0\1\x05\0\0\0\1\xa1\xff" + b"x" * 255),
        (Typed(0xE0, [Typed(0x50, 1), Typed(0x50, 2)], b"\x50"), b"\xe0\4\2\x50\1\2"),
    ):  # fmt: skip
        assert write_value(value) == octets, value
        assert check_value(octets, 0, len(octets)) == len(octets)


def test_what_has_no_place_in_amqp():
    for value in (
        object(), 2**63, -(2**63) - 1, Symbol("gr\u00fc\u00df"), Typed(0x98, b"short"),
    ):  # fmt: skip
        assert refused(write_value, value), value
    value = 1
    for _ in range(9):
        value = [value]
    assert refused(write_value, value) == "values nested deeper than 8"


def refused(function, *arguments):
    try:
        function(*arguments)
    except SyntaxFailure as error:
        return error.text
    return None


BROKEN = (
    (b"", "a value is missing"),
    (b"\x00", "a value is missing"),
    (b"\x00\x53\x10", "a value is missing"),
    (b"\x00" * 3000, "more than 2048 values"),
    (b"\x57\0", "unknown constructor 0x57"),
    (b"\xa2\0", "unknown constructor 0xa2"),
    (b"\xff\0", "unknown constructor 0xff"),
    (b"\x56\2", "a boolean of 2"),
    (b"\x70\0\0\0", "a value runs past its end"),
    (b"\x98" + bytes(15), "a value runs past its end"),
    (b"\xa0", "a size runs past its end"),
    (b"\xb0\0\0\0", "a size runs past its end"),
    (b"\xa1\3ab", "a value runs past its end"),
    (b"\xb1\xff\xff\xff\xffab", "a value runs past its end"),
    (b"\xc0\0", "a compound without a count"),
    (b"\xd0\0\0\0\3\0\0\0", "a compound without a count"),
    (b"\xc0\5\1\x40\x40\x40\x40", "a compound is longer than its items"),
    (b"\xc0\2\2\x40", "a value is missing"),
    (b"\xc0\5\1\x40", "a value runs past its end"),
    (b"\xd0\0\0\0\4\xff\xff\xff\xff", "a value is missing"),
    (b"\xd1\0\0\0\4\xff\xff\xff\xfe", "a value is missing"),
    (b"\xc1\2\1\x40", "a map with a key and no value"),
    (b"\xd1\0\0\0\5\0\0\0\3\x40", "a map with a key and no value"),
    (b"\xf0\0\0\0\5\xff\xff\xff\xff\x40", "more than 2048 values"),
    (b"\xf0\0\0\0\5\xff\xff\xff\xff\x41", "more than 2048 values"),
    (b"\xf0\0\0\0\5\xff\xff\xff\xff\x45", "more than 2048 values"),
    (b"\xf0\0\0\0\6\0\0\0\2\x50\1", "a value runs past its end"),
    (b"\xe0\2\1\x57", "unknown constructor 0x57"),
    (b"\xe0\1\1", "an array without the constructor of its items"),
    (b"\xe0\2\1\x00", "an array of items with this descriptor"),
    (b"\xe0\6\1\x00\xc0\1\0\x40", "an array of items with this descriptor"),
    (b"\xe0\4\1\x00\x53\1", "an array without the constructor of its items"),
    (b"".join([bytes((0xC0, 3 * k + 2, 1)) for k in range(8, -1, -1)]) + b"\x40",
     "values nested deeper than 8"),
)  # fmt: skip


def test_what_is_broken_is_refused():
    for octets, text in BROKEN:
        assert refused(check_value, octets, 0, len(octets)) == text, octets[:20]


def test_the_end_is_where_it_is_said_to_be():
    for name, octets, _ in vectors():
        for end in range(len(octets)):
            assert refused(check_value, octets, 0, end), (name, end)
        longer = b"xx" + octets + b"\x40"
        assert check_value(longer, 2, len(longer)) == 2 + len(octets), name


def test_texts_that_are_none():
    for octets in (b"\xa1\2\xc3\x28", b"\xa3\1\xfc", b"\x73\0\x11\0\0", b"\x73\0\0\xd8\0"):
        assert check_value(octets, 0, len(octets)) == len(octets)
        assert refused(read_value, octets, 0), octets
    assert refused(codec.text_at, b"\xa1\2\xc3\x28", 0) == "a string is not UTF-8"
    assert refused(codec.text_at, b"\xa3\1a", 0) == "a string was due, not 0xa3"
    assert refused(codec.symbol_at, b"\xa3\1\xfc", 0) == "a symbol is not ASCII"
    assert refused(codec.symbol_at, b"\xa1\1a", 0) == "a symbol was due, not 0xa1"
    assert refused(read_value, b"\xc1\7\4\x55\1\x40\x55\1\x40", 0) == "a key twice in one map"


def test_a_key_that_no_dict_has():
    octets = write_value({"k": 1})[:3] + b"\xc0\1\0\x40"
    octets = b"\xc1" + bytes((len(octets) - 2,)) + octets[2:]
    assert check_value(octets, 0, len(octets)) == len(octets)
    assert read_value(octets, 0)[0] == [([], None)]


def test_values_in_place():
    for octets, value in (
        (b"\x43", 0), (b"\x44", 0), (b"\x52\xff", 255), (b"\x53\xff", 255),
        (b"\x70\0\1\0\0", 65536), (b"\x70\xff\xff\xff\xff", 0x3FFFFFFF),
        (b"\x80\0\0\0\0\0\1\0\0", 65536), (b"\x80\0\0\0\1\0\0\0\0", 0x3FFFFFFF),
        (b"\x80\1\0\0\0\0\0\0\0", 0x3FFFFFFF), (b"\x70\x3f\xff\xff\xfe", 0x3FFFFFFE),
    ):  # fmt: skip
        assert codec.uint_at(octets, 0) == value, octets
        assert codec.uint_at(octets, 0, 100) == min(value, 100)
    assert refused(codec.uint_at, b"\x54\1", 0) == "an unsigned number was due, not 0x54"
    for serial in (0, 1, 255, 256, 0x3FFFFFFF, 0x40000000, 0x87654321, 0xFFFFFFFF):
        octets = b"\x70" + struct.pack(">I", serial)
        both = codec.serial_top_at(octets, 0) << 30 | codec.serial_at(octets, 0)
        assert both == serial
    assert (codec.serial_at(b"\x43", 0), codec.serial_top_at(b"\x43", 0)) == (0, 0)
    assert (codec.serial_at(b"\x52\x80", 0), codec.serial_top_at(b"\x52\x80", 0)) == (128, 0)
    assert refused(codec.serial_at, b"\x53\1", 0) == "a uint was due, not 0x53"
    assert codec.text_at(b"\xb1\0\0\0\1a", 0) == "a" and codec.symbol_at(b"\xa3\1a", 0) == b"a"
    assert codec.octets_at(b"\x40", 0) == (-1, 0)


def test_lists_and_maps_in_place():
    octets = write_value({"a": 1, Symbol("b"): "x" * 300, b"c": [1, 2]})
    assert octets[0] == 0xD1
    assert codec.items_at(octets, 0) == (9, 6)
    assert read_value(octets, codec.find_key(octets, 0, b"b"))[0] == "x" * 300
    at = codec.find_key(octets, 0, b"c")
    at, count = codec.items_at(octets, at)
    assert count == 2 and codec.skip_value(octets, at) == at + 2
    assert codec.find_key(octets, 0, b"d") == -1
    assert codec.items_at(b"\x45", 0) == (1, 0)
    assert refused(codec.items_at, b"\x40", 0) == "a list or a map was due, not 0x40"


def test_any_octets_are_read_or_refused():
    """What check_value() passes, the others read to the same end, or refuse its texts."""
    random = chance.seeded()
    seeds = [bytearray(octets) for _, octets, _ in vectors()]
    for _ in range(3000 if not MICROPYTHON else 1500):
        octets = bytearray(seeds[random.randrange(len(seeds))][:60])
        for _ in range(1 + random.randrange(3)):
            octets[random.randrange(len(octets))] = random.randrange(256)
        try:
            end = check_value(octets, 0, len(octets))
        except SyntaxFailure:
            continue
        assert codec.skip_value(octets, 0) == end
        try:
            value, behind = read_value(octets, 0, True)
        except SyntaxFailure:
            continue
        assert behind == end
        again = write_value(value)
        assert check_value(again, 0, len(again)) == len(again)


def test_checking_does_not_allocate():
    if not MICROPYTHON:
        return
    from micropython import heap_lock, heap_unlock

    octets = write_value([{"a": [1, Described(1, [])]}, "x", Typed(0xE0, [], b"\x50")])
    heap_lock()
    try:
        end = check_value(octets, 0, len(octets))
        serial = codec.serial_at(b"\x70\xff\xff\xff\xff", 0)
        most = codec.uint_at(b"\x70\xff\xff\xff\xff", 0)
    finally:
        heap_unlock()
    assert (end, serial, most) == (len(octets), 0x3FFFFFFF, 0x3FFFFFFF)
