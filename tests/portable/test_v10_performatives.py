"""The described lists of AMQP 1.0: their fields found in place, what they must not be refused."""

from amqp_lite.compat import MICROPYTHON
from amqp_lite.errors import AMQPError, ContentTooLarge, NotFound, SyntaxFailure
from amqp_lite.v10 import performatives as performative
from amqp_lite.v10.codec import check_value
from amqp_lite.v10.conditions import STOLEN, ConditionError, InvalidField, condition_of
from amqp_lite.v10.performatives import Fields, described, described_value, frame, uint
from amqp_lite.v10.values import Described, Symbol, Typed, read_value, write_value
from wire10 import LISTS

# A value for each letter of _LISTS.
SOME = {
    "a": Symbol("x"), "b": True, "c": Typed(0x50, 1), "d": described_value(0x24),
    "h": Typed(0x60, 300), "l": Typed(0x80, 2**40), "m": {}, "s": "text", "t": Typed(0x83, 5),
    "u": uint(7), "x": b"octets", "y": Symbol("x"), "*": "any",
}  # fmt: skip


def lists():
    for code in LISTS:
        name, letters = LISTS[code]
        yield code, str(name, "utf-8"), str(letters, "utf-8")


def scan(octets):
    fields = Fields()
    # The buffer goes on behind what counts.
    assert fields.scan(b"xx" + octets + b"\xff\xff", 2, 2 + len(octets)) == 2 + len(octets)
    return fields


def refused(octets, kind=SyntaxFailure):
    try:
        scan(octets)
    except AMQPError as error:
        assert isinstance(error, kind), error
        return error.text
    raise AssertionError(octets)


def test_every_list_with_all_its_fields():
    for code, name, letters in lists():
        fields = scan(described(code, *[SOME[letter.lower()] for letter in letters]))
        assert (fields.code, fields.name()) == (code, name)
        for k in range(len(letters)):
            value = SOME[letters[k].lower()]
            expected = read_value(write_value(value), 0)[0]
            assert read_value(fields.buf, fields.at[k])[0] == expected, (name, k)
        assert not any(at >= 0 for at in fields.at[len(letters) :]) or code != performative.OPEN


def test_every_list_with_what_it_must_have():
    for code, name, letters in lists():
        values = [SOME[each.lower()] if each.isupper() else None for each in letters]
        fields = scan(described(code, *values))
        for k in range(len(letters)):
            assert fields.has(k) == letters[k].isupper(), (name, k)
        for k in range(len(letters)):
            if letters[k].isupper():
                less = values[:k] + [None] + values[k + 1 :]
                text = refused(described(code, *less), InvalidField)
                assert text == "field %d of %s is missing" % (k + 1, name)


def test_fields_of_another_type():
    for code, name, letters in lists():
        values = [SOME[each.lower()] for each in letters]
        for k in range(len(letters)):
            if letters[k] == "*":
                continue
            for other in (1.5, [1], "text" if letters[k].lower() != "s" else b"octets"):
                text = refused(described(code, *values[:k], other, *values[k + 1 :]), InvalidField)
                assert text.startswith("field %d of %s is a 0x" % (k + 1, name)), text


def test_one_field_more_than_there_are():
    for code, name, letters in lists():
        values = [SOME[each.lower()] for each in letters]
        text = refused(described(code, *values, True))
        assert text == "%s of %d fields" % (name, len(letters) + 1)


def test_all_three_forms_of_a_list_and_of_a_descriptor():
    items = write_value(True)
    for descriptor in (b"\x53\x27", b"\x80" + bytes(7) + b"\x27", b"\xa3\x12amqp:modified:list"):
        for form in (b"\xc0\x02\x01", b"\xd0\0\0\0\5\0\0\0\1"):
            fields = scan(b"\0" + descriptor + form + items)
            assert fields.code == performative.MODIFIED and fields.boolean(0)
        fields = scan(b"\0" + descriptor + b"\x45")
        assert fields.code == performative.MODIFIED and not fields.has(0)


def test_what_is_no_described_list():
    for octets, text in (
        (b"", "a described list was due"),
        (b"\x00", "a described list was due"),
        (b"\x00\x53", "a described list was due"),
        (b"\x45", "a described list was due"),
        (b"\xc0\1\0", "a described list was due"),
        (b"\0\x53\x19\x45", "unknown descriptor"),
        (b"\0\0\x53\x27\x45\x45", "unknown descriptor"),
        (b"\0\x80\0\0\0\1\0\0\0\x27\x45", "unknown descriptor"),
        (b"\0\x80\0\0\0\0\0\0\0", "unknown descriptor"),
        (b"\0\xa3\x12amqp:modified", "unknown descriptor"),
        (b"\0\xa3\x09amqp:list\x45", "unknown descriptor"),
        (b"\0\x53\x27", "a list runs past its end"),
        (b"\0\x53\x27\xc0", "a list runs past its end"),
        (b"\0\x53\x27\xc0\1", "a list runs past its end"),
        (b"\0\x53\x27\xd0\0\0\0\4\0\0\0", "a list runs past its end"),
        (b"\0\x53\x27\xc0\3\1\x41", "a list runs past its end"),
        (b"\0\x53\x27\xd0\xff\xff\xff\xff\0\0\0\0", "a list runs past its end"),
        (b"\0\x53\x27\xd0\0\0\0\4\0\0\1\0", "modified of 256 fields"),
        (b"\0\x53\x27\xc1\1\0", "a list was due, not 0xc1"),
        (b"\0\x53\x27\x40", "a list was due, not 0x40"),
        (b"\0\x53\x27\xc0\2\2\x41", "a field is missing"),
        (b"\0\x53\x27\xc0\3\1\x41\x41", "a list is not as long as its fields"),
        (b"\0\x53\x27\xc0\2\0\x41", "a list is not as long as its fields"),
        (b"\0\x53\x27\xc0\3\1\x56\2", "a boolean of 2"),
        (b"\0\x53\x27\xc0\2\1\x56", "a value runs past its end"),
        (b"\0\x53\x23\xc0\3\2\x70\0", "a field is missing"),
    ):  # fmt: skip
        found = refused(octets, AMQPError)
        assert found == text, (octets, found)
    refused(b"\0\x53\x27\xd0\0\0\0\4\xff\xff\xff\xff", AMQPError)


def test_fields_that_end_behind_their_list():
    whole = described(performative.TRANSFER, uint(1), uint(70000), b"tag", uint(0), True, False)
    for end in range(len(whole)):
        refused(whole[:end], AMQPError)


def test_what_the_fields_say():
    octets = described(
        performative.OPEN, "edge", None, uint(0xFFFFFFFF), Typed(0x60, 65535), uint(0), None,
        Symbol("de"), None, None, {Symbol("product"): "x"},
    )  # fmt: skip
    fields = scan(octets)
    assert fields.text(0) == "edge" and fields.text(1) is None
    assert fields.uint(2, 5) == 0x3FFFFFFF and fields.uint(2, 5, 512) == 512
    assert fields.uint(3, 5) == 65535 and fields.uint(4, 5) == 0
    assert fields.symbol(6) == b"de" and fields.symbol(5) is None
    assert fields.uint(11, 9) == 9
    fields = scan(described(performative.TRANSFER, uint(1), uint(0x87654321), b"\0tag"))
    assert fields.serial(1) == 0x07654321 and fields.octets(2) == b"\0tag"
    assert fields.octets(3) is None and fields.boolean(4) is False
    assert fields.boolean(5, True) is True
    fields = scan(described(performative.SASL_OUTCOME, Typed(0x50, 4)))
    assert fields.uint(0, 0) == 4


def test_a_scan_forgets_the_one_before():
    fields = Fields()
    many = described(performative.MODIFIED, True, True, {})
    fields.scan(many, 0, len(many))
    few = described(performative.MODIFIED)
    fields.scan(few, 0, len(few))
    assert not any(fields.has(k) for k in range(3))


def test_written_lists_and_frames():
    assert described(performative.ACCEPTED) == b"\0\x53\x24\x45"
    assert described(performative.DETACH, uint(1), None, None) == b"\0\x53\x16\xc0\3\1\x52\1"
    value = read_value(described(performative.CLOSE, described_value(performative.ERROR,
                       Symbol("amqp:not-found"), "no queue")), 0)[0]  # fmt: skip
    assert value == Described(0x18, [Described(0x1D, [Symbol("amqp:not-found"), "no queue"])])
    assert frame(0, 258, b"body") == b"\0\0\0\x0c\2\0\1\2body"
    assert frame(1, 0, b"") == b"\0\0\0\x08\2\1\0\0"


def test_the_conditions_of_errors():
    assert condition_of(NotFound("x")) == "amqp:not-found"
    assert condition_of(ContentTooLarge("x")) == "amqp:link:message-size-exceeded"
    assert condition_of(SyntaxFailure("x")) == "amqp:decode-error"
    assert condition_of(ConditionError(STOLEN, "x")) == "amqp:link:stolen"
    assert condition_of(AMQPError("x")) == "amqp:internal-error"


def test_a_scan_does_not_allocate():
    if not MICROPYTHON:
        return
    from micropython import heap_lock, heap_unlock

    transfer = described(performative.TRANSFER, uint(1), uint(70000), b"tag", uint(0), True)
    disposition = described(
        performative.DISPOSITION, True, uint(5), uint(0x7FFFFFFF), True,
        described_value(performative.MODIFIED, True),
    )  # fmt: skip
    fields = Fields()
    fields.scan(transfer, 0, len(transfer))
    both = (transfer, disposition)
    heap_lock()
    try:
        for octets in both:
            fields.scan(octets, 0, len(octets))
            fields.serial(1)
            fields.uint(0, 0) if octets is transfer else fields.serial(2)
            fields.boolean(4) if octets is transfer else fields.boolean(3)
    finally:
        heap_unlock()
    assert check_value(disposition, 0, len(disposition)) == len(disposition)
