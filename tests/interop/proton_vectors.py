"""AMQP 1.0 values as python-qpid-proton writes them: octets by name."""

import uuid

from proton import Data

UUID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")


def _within(data, *puts):
    data.enter()
    for put, *arguments in puts:
        put(data, *arguments)
    data.exit()


def _list(data, *puts):
    data.put_list()
    _within(data, *puts)


def _map(data, *puts):
    data.put_map()
    _within(data, *puts)


def _array(data, kind, *puts):
    data.put_array(False, kind)
    _within(data, *puts)


def _array_of_described(data):
    data.put_array(True, Data.STRING)
    _within(data, (Data.put_symbol, "a:b"), (Data.put_string, "x"), (Data.put_string, "yz"))


def _described(data):
    data.put_described()
    _within(
        data, (Data.put_ulong, 0x28), (_list, (Data.put_string, "q"), (Data.put_null,))
    )  # fmt: skip


_ITEM = (_list, (Data.put_ulong, 1), (Data.put_string, "x"))
_BYTES = (_array, Data.BYTE, (Data.put_byte, -1), (Data.put_byte, 2))
_VALUES = {
    "null": (Data.put_null,),
    "true": (Data.put_bool, True),
    "false": (Data.put_bool, False),
    "ubyte": (Data.put_ubyte, 200),
    "ushort": (Data.put_ushort, 50000),
    "uint": (Data.put_uint, 4000000000),
    "smalluint": (Data.put_uint, 200),
    "uint0": (Data.put_uint, 0),
    "ulong": (Data.put_ulong, 0x8000000000000005),
    "smallulong": (Data.put_ulong, 200),
    "ulong0": (Data.put_ulong, 0),
    "byte": (Data.put_byte, -100),
    "short": (Data.put_short, -20000),
    "int": (Data.put_int, -2000000000),
    "smallint": (Data.put_int, -100),
    "long": (Data.put_long, -(2**62)),
    "smalllong": (Data.put_long, -100),
    "float": (Data.put_float, 1.5),
    "double": (Data.put_double, -0.1),
    "decimal32": (Data.put_decimal32, 0x22500001),
    "decimal64": (Data.put_decimal64, 0x2238000000000001),
    "decimal128": (Data.put_decimal128, bytes(range(16))),
    "char": (Data.put_char, "\U0001f600"),
    "timestamp": (Data.put_timestamp, 1790000000123),
    "uuid": (Data.put_uuid, UUID),
    "vbin8": (Data.put_binary, b"\0\1\xff"),
    "vbin32": (Data.put_binary, b"x" * 300),
    "str8": (Data.put_string, "grüß"),
    "str32": (Data.put_string, "ü" * 150),
    "sym8": (Data.put_symbol, "amqp:open:list"),
    "sym32": (Data.put_symbol, "s" * 300),
    "list": (_list, (_list,), (Data.put_bool, True), (Data.put_double, 2.5)),
    "long_list": (_list, (Data.put_string, "x" * 300)),
    "map": (
        _map, (Data.put_string, "k"), (Data.put_binary, b"\0v"), (Data.put_symbol, "s"), (_map,),
    ),
    "described": (_described,),
    "array": (
        _array, Data.UINT, (Data.put_uint, 1), (Data.put_uint, 2), (Data.put_uint, 4000000000),
    ),
    "array_of_described": (_array_of_described,),
    "array_of_lists": (_array, Data.LIST, _ITEM, _ITEM),
    "array_of_arrays": (_array, Data.ARRAY, _BYTES, _BYTES),
    "array_of_booleans": (_array, Data.BOOL, (Data.put_bool, True), (Data.put_bool, False)),
    "empty_array": (_array, Data.SYMBOL),
}  # fmt: skip


def vectors():
    done = {}
    for name, (put, *arguments) in _VALUES.items():
        data = Data()
        put(data, *arguments)
        done[name] = data.encode()
    return done


def read(octets):
    """What proton makes of *octets*."""
    data = Data()
    assert data.decode(octets) == len(octets)
    data.next()
    found = data.get_object()
    # A memoryview is one of memory that goes with *data*.
    return bytes(found) if isinstance(found, memoryview) else found
