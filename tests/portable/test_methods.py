"""Method arguments: what a client writes is read, what the broker writes is a method frame."""

import wire
from amqp_lite.errors import SyntaxFailure
from amqp_lite.v091 import methods

EXAMPLES = {
    "b": (b"\x01", True),
    "B": (b"\xff", 255),
    "H": (b"\xfe\xff", 0xFEFF),
    "I": (b"\xff\xff\xff\xff", 0xFFFFFFFF),
    "Q": (b"\xff\xff\xff\xff\xff\xff\xff\xff", 0xFFFFFFFFFFFFFFFF),
    "s": (b"\x03abc", b"abc"),
    "S": (b"\x00\x00\x00\x02\x00\xff", b"\x00\xff"),
    "F": (b"\x00\x00\x00\x04\x01at\x01", {b"a": True}),
}


def read(signature, octets):
    buf = memoryview(b"?" + octets + b"??????????")
    return methods.read_arguments(signature, buf, 1, 1 + len(octets))


def is_refused(signature, octets):
    try:
        read(signature, octets)
    except SyntaxFailure:
        return True
    return False


def test_each_kind_of_argument_is_read():
    for letter in EXAMPLES:
        octets, value = EXAMPLES[letter]
        assert read(letter, octets) == [value], letter
        assert read("B" + letter + "s", b"\x05" + octets + b"\x01z") == [5, value, b"z"]


def test_arguments_shorter_or_longer_are_refused():
    for letter in EXAMPLES:
        octets = EXAMPLES[letter][0]
        for n in range(len(octets)):
            assert is_refused(letter, octets[:n]), (letter, n)
        assert is_refused(letter, octets + b"\0"), letter
    assert is_refused("", b"\0")
    assert read("", b"") == []


def test_bits_fill_octets_from_the_low_end():
    assert read("bbb", b"\x05") == [True, False, True]
    assert read("bBb", b"\x01\x02\x00") == [True, 2, False]
    assert read("b" * 9, b"\x80\x01") == [False] * 7 + [True, True]
    # Bits nobody defined are passed over.
    assert read("b", b"\xfe") == [False]


def test_every_method_of_a_client_is_read_whole_and_refused_otherwise():
    for number in methods.RECEIVED:
        signature = methods.RECEIVED[number][1]
        octets = b""
        values = []
        bit = False
        for letter in signature:
            if letter != "b" or not bit:
                octets += EXAMPLES[letter][0]
            values.append(not bit if letter == "b" else EXAMPLES[letter][1])
            bit = letter == "b"
        assert read(signature, octets) == values, hex(number)
        for n in range(len(octets)):
            assert is_refused(signature, octets[:n]), (hex(number), n)
        assert is_refused(signature, octets + b"\0"), hex(number)


def test_names_are_clean_utf_8():
    assert read("s", b"\x02\xc3\xa9") == [b"\xc3\xa9"]
    for bad in (b"\xff", b"\xc3", b"a\0", b"a\r", b"\nb", b"\xed\xa0\x80"[:2]):
        assert is_refused("s", bytes([len(bad)]) + bad), bad


def test_what_the_broker_says_is_a_method_frame():
    for number in methods.SENT:
        signature = methods.SENT[number]
        values = [EXAMPLES[letter][1] for letter in signature]
        octets = methods.method_frame(7, number, values)
        frames, rest = wire.split(octets)
        assert rest == b"" and len(frames) == 1
        channel, name, payload = frames[0]
        assert channel == 7
        assert wire.IDS[name] == (number >> 16, number & 0xFFFF)
        assert payload == b"".join([EXAMPLES[letter][0] for letter in signature])


def test_the_octets_of_a_declare_ok():
    octets = methods.method_frame(1, 0x0032000B, (b"q", 2, 3))
    assert octets == (
        b"\x01\x00\x01\x00\x00\x00\x0e" b"\x00\x32\x00\x0b" b"\x01q"
        b"\x00\x00\x00\x02" b"\x00\x00\x00\x03" b"\xce"
    )  # fmt: skip


def test_the_two_lists_of_methods_agree():
    for number in list(methods.RECEIVED) + list(methods.SENT) + list(methods.NOT_HERE):
        assert (number >> 16, number & 0xFFFF) in wire.NAMES, hex(number)
