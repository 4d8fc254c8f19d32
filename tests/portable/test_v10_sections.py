"""The sections of AMQP 1.0 messages: what the broker has to know, in whatever pieces they come."""

import chance
from amqp_lite.errors import AMQPError, SyntaxFailure
from amqp_lite.v10.codec import octets_at, text_at
from amqp_lite.v10.conditions import InvalidField
from amqp_lite.v10.performatives import HEADER, PROPERTIES, Fields, described, uint
from amqp_lite.v10.sections import DATA, SEQUENCE, VALUE, Body, Incomplete, Sections
from amqp_lite.v10.values import Described, Symbol, Typed, write_value


def section(code, value):
    return write_value(Described(Typed(0x53, code), value))


HEAD = described(HEADER, True, Typed(0x50, 4), uint(60000), None, uint(2))
DELIVERY = section(0x71, {Symbol("x-gone"): 1})
ANNOTATIONS = section(0x72, {Symbol("x-opt"): "y"})
NAMES = described(PROPERTIES, "id", b"ann", "/queues/q", "room.1", "reply", uint(5))
APPLICATION = section(0x74, {"k": 1})
ALL = HEAD + DELIVERY + ANNOTATIONS + NAMES + APPLICATION
BODIES = (
    (section(0x75, b""), DATA),
    (section(0x75, b"x" * 20), DATA),
    (section(0x75, b"x" * 300) + section(0x75, b"y"), DATA),
    (section(0x76, [1, "a"]) + section(0x76, ["x" * 300]) + b"\0\x53\x76\x45", SEQUENCE),
    (section(0x77, None), VALUE),
    (section(0x77, True), VALUE),
    (section(0x77, 2**40), VALUE),
    (section(0x77, Typed(0x98, bytes(16))), VALUE),
    (section(0x77, "x" * 300), VALUE),
    (section(0x77, {"a": [1, {"b": None}]}), VALUE),
    (section(0x77, Described(Symbol("a:b"), ["x"])), VALUE),
    (b"\0\x80\0\0\0\0\0\0\0\x75\xa0\1x", DATA),
    (b"\0\xa3\x10amqp:data:binary\xa0\1x", DATA),
)


def scan(octets, more=b"\xff\xff"):
    sections = Sections(Fields())
    sections.scan(b"xx" + octets + more, 2, 2 + len(octets))
    return sections, b"xx" + octets


def refused(octets, kind=SyntaxFailure):
    try:
        scan(octets)
    except AMQPError as error:
        assert isinstance(error, kind), error
        return error.text
    raise AssertionError(octets)


def test_all_sections():
    for body, _ in BODIES:
        sections, buf = scan(ALL + body)
        kept = buf[sections.start : sections.cut] + buf[sections.resume : sections.body]
        assert kept == HEAD + ANNOTATIONS + NAMES + APPLICATION
        assert buf[sections.body :] == body
        assert sections.durable is True and sections.ttl_ms == 60000
        assert text_at(buf, sections.to) == "/queues/q"
        assert text_at(buf, sections.subject) == "room.1"
        assert text_at(buf, sections.reply_to) == "reply"
        at, n = octets_at(buf, sections.user_id)
        assert buf[at : at + n] == b"ann"


def test_none_of_them():
    sections, buf = scan(BODIES[0][0])
    assert sections.start == sections.cut == sections.resume == sections.body == 2
    assert (sections.durable, sections.ttl_ms) == (False, -1)
    assert (sections.to, sections.subject, sections.reply_to, sections.user_id) == (-1,) * 4


def test_a_scan_forgets_the_one_before():
    sections = Sections(Fields())
    octets = ALL + BODIES[0][0]
    sections.scan(octets, 0, len(octets))
    octets = described(PROPERTIES) + BODIES[0][0]
    sections.scan(octets, 0, len(octets))
    assert not sections.durable and sections.ttl_ms == sections.to == sections.user_id == -1
    assert sections.start == sections.cut == sections.resume == 0


def test_a_time_to_live_longer_than_can_be_counted():
    for ttl, ms in ((0, 0), (1, 1), (0xFFFFFFFF, -1)):
        octets = described(HEADER, None, None, uint(ttl)) + BODIES[0][0]
        found = scan(octets)[0].ttl_ms
        assert found == ms or ttl == 0xFFFFFFFF and found > 0x1FFFFFFF


def test_sections_that_go_on():
    for octets in (ALL, HEAD, NAMES, section(0x72, {Symbol("s"): "x" * 300})):
        octets += b"\0\x53\x75"
        for end in range(len(octets)):
            try:
                scan(octets[:end])
            except Incomplete:
                continue
            raise AssertionError(end)
        scan(octets)


def test_sections_that_are_none():
    for octets, text in (
        (b"\x40", "a section was due, not 0x40"),
        (b"AMQP", "a section was due, not 0x41"),
        (b"\0\x53\x79\x45", "unknown section"),
        (b"\0\x53\x6f\x45", "unknown section"),
        (b"\0\0\x53\x75", "unknown section"),
        (b"\0\x80\1\0\0\0\0\0\0\x75", "unknown section"),
        (b"\0\xa3\x10amqp:data:binarx", "unknown section"),
        (b"\0\xa3\xff", "unknown section"),
        (NAMES + HEAD, "section 0x70 behind 0x73"),
        (HEAD + HEAD, "section 0x70 behind 0x70"),
        (APPLICATION + APPLICATION, "section 0x74 behind 0x74"),
        (b"\0\x53\x72\xc0\1\0", "section 0x72 is no map"),
        (b"\0\x53\x74\x45", "section 0x74 is no map"),
        (b"\0\x53\x72\x40", "section 0x72 is no map"),
        (b"\0\x53\x72\x00\x53\x72\xc1\1\0", "a value was due, not 0x00"),
        (b"\0\x53\x72\xc1\2\1\x40", "a map with a key and no value"),
        (described(PROPERTIES, None, None, 5), "an address that is no string"),
        (described(PROPERTIES, None, None, None, None, b"x"), "an address that is no string"),
    ):
        assert refused(octets + BODIES[1][0]) == text, octets
    octets = described(PROPERTIES, None, "ann") + BODIES[1][0]
    assert refused(octets, InvalidField) == "field 2 of properties is a 0xa1"


def follow(octets, most):
    body = Body()
    i = 0
    while i < len(octets):
        n = min(most() if callable(most) else most, len(octets) - i)
        body.follow(b"x" + octets, i + 1, n)
        i += n
    body.end()
    return body.kind


def test_bodies_in_any_pieces():
    random = chance.seeded()
    footer = section(0x78, {Symbol("f"): 1})
    for octets, kind in BODIES:
        for most in (1, 2, 3, 7, 100000, lambda: 1 + random.randrange(9)):
            assert follow(octets, most) == kind, octets
            assert follow(octets + footer, most) == kind, octets


def test_a_body_is_used_again():
    body = Body()
    for octets, kind in BODIES:
        body.reset()
        body.follow(octets, 0, len(octets))
        body.end()
        assert body.kind == kind


def test_bodies_that_are_none():
    data, sequence, value = (BODIES[k][0] for k in (1, 3, 4))
    footer = section(0x78, {})
    for octets, text in (
        (b"", "a message without a body"),
        (footer, "a footer without a body, or twice"),
        (data + footer + footer, "a footer without a body, or twice"),
        (data + footer + data, "section 0x75 behind 0x78"),
        (data + sequence, "section 0x76 behind 0x75"),
        (value + value, "section 0x77 behind 0x77"),
        (value + data, "section 0x75 behind 0x77"),
        (data + HEAD, "section 0x70 behind the body"),
        (data + b"\x40", "a section was due, not 0x40"),
        (b"\0\x53\x75\xa1\1x", "data that are no binary"),
        (b"\0\x53\x75\x40", "data that are no binary"),
        (b"\0\x53\x75\x00\x53\1\xa0\1x", "a described value in a body"),
        (b"\0\x53\x76\xc1\1\0", "an amqp-sequence that is no list"),
        (data + b"\0\x53\x78\xc0\1\0", "a footer that is no map"),
        (b"\0\x53\x77" + b"\0" * 9, "a described value in a body"),
        (b"\0\x53\x77\x3f", "a value was due, not 0x3f"),
        (b"\0\xa3\x20" + b"x" * 40, "unknown section"),
    ):
        for most in (1, 100000):
            try:
                follow(octets, most)
            except SyntaxFailure as error:
                assert error.text == text, (octets, error.text)
            else:
                raise AssertionError(octets)


def test_bodies_that_end_too_early():
    for octets, _ in BODIES:
        ends = []
        for end in range(len(octets)):
            try:
                follow(octets[:end], 5)
            except SyntaxFailure:
                continue
            ends.append(end)
        # Only those of several sections can end before.
        assert not ends or octets.count(octets[:3]) > 1, (octets, ends)
