"""AMQP 1.0 frames in octets that come in any pieces, and what is no frame."""

import chance
from amqp_lite.errors import ResourceLimitExceeded
from amqp_lite.v10 import performatives as performative
from amqp_lite.v10.conditions import FramingError
from amqp_lite.v10.frames import AMQP, SASL, FrameReader
from amqp_lite.v10.performatives import Fields, described, frame, uint

SIZE = 512  # octets of the receive buffer


class Clock:
    now = 5


class Reader(FrameReader):
    """Notes what it is told."""

    broker = Clock

    def __init__(self, frame_max=8192, kind=AMQP):
        FrameReader.__init__(self, SIZE)
        self.reset()
        self.deaf = False
        self.kind = kind
        self.frame_max = frame_max
        self.fields = Fields()
        self.found = []  # (channel, code, payload), or what went wrong
        self.waits = 0  # frames that shall not be taken at once
        self.takes = True

    def on_frame(self, channel, buf, i, end, more):
        behind = self.fields.scan(buf, i, end)
        if self.waits:
            self.waits -= 1
            return False
        self.found.append([channel, self.fields.code, bytes(buf[behind:end])])
        if self.takes:
            self.taker = self
        return True

    def on_empty(self, channel):
        self.found.append([channel, None, b""])

    def on_garbage(self, error):
        self.found.append(error)
        self.deaf = True

    def on_payload(self, buf, i, n):
        self.found[-1][2] += bytes(buf[i : i + n])

    def on_payload_end(self):
        self.found[-1].append("end")


def feed(reader, octets, most=SIZE):
    """Give *octets* to it, at most *most* at once and never more than it has room for."""
    i = 0
    while i < len(octets) and not reader.deaf:
        while reader.stalled:
            reader.stalled = False
            reader.read_on()
        n = min(reader.room(), most if isinstance(most, int) else most(), len(octets) - i)
        assert n > 0
        reader.read(memoryview(octets)[i : i + n], n)
        i += n
    while reader.stalled:
        reader.stalled = False
        reader.read_on()
    return reader.found


def transfer(channel, payload, tag=b"tag"):
    body = described(performative.TRANSFER, uint(0), uint(7), tag, uint(0), False)
    return frame(AMQP, channel, body + payload)


def wide(octets):
    """The same frame with an extended header of eight octets."""
    size = int.from_bytes(octets[:4], "big") + 8
    return size.to_bytes(4, "big") + b"\4" + octets[5:8] + b"extended" + octets[8:]


SESSION = (
    (frame(AMQP, 0, described(performative.OPEN, "edge")), [0, performative.OPEN, b"", "end"]),
    (frame(AMQP, 3, b""), [3, None, b""]),
    (transfer(1, b""), [1, performative.TRANSFER, b"", "end"]),
    (transfer(1, b"x" * 20), [1, performative.TRANSFER, b"x" * 20, "end"]),
    (transfer(2, b"y" * 5000), [2, performative.TRANSFER, b"y" * 5000, "end"]),
    (wide(transfer(2, b"z" * 700)), [2, performative.TRANSFER, b"z" * 700, "end"]),
    (wide(frame(AMQP, 1, b"")), [1, None, b""]),
    (
        frame(AMQP, 1, b"\0\xa3\x12amqp:transfer:list" + described(
            performative.TRANSFER, uint(0))[3:] + b"p" * 600),
        [1, performative.TRANSFER, b"p" * 600, "end"],
    ),
    (frame(AMQP, 1, described(performative.CLOSE)), [1, performative.CLOSE, b"", "end"]),
)  # fmt: skip


def test_frames_in_any_pieces():
    random = chance.seeded()
    octets = b"".join([row[0] for row in SESSION])
    expected = [row[1] for row in SESSION]
    for most in (1, 2, 3, 7, 8, 9, 30, 500, SIZE, lambda: 1 + random.randrange(SIZE)):
        reader = Reader()
        assert feed(reader, octets, most) == expected, most
        assert not reader.amid_frame()


def test_a_frame_that_has_to_wait():
    octets = b"".join([row[0] for row in SESSION])
    for most in (9, 100, SIZE):
        reader = Reader()
        reader.waits = 3
        assert feed(reader, octets, most) == [row[1] for row in SESSION]


def test_a_payload_that_nobody_takes():
    reader = Reader()
    reader.takes = False
    found = feed(reader, transfer(1, b"y" * 5000) + SESSION[-1][0])
    assert [row[:2] for row in found] == [[1, performative.TRANSFER], [1, performative.CLOSE]]
    reader = Reader()
    reader.read(transfer(1, b"y" * 5000), SIZE)
    reader.forget_taker(reader)
    first = bytes(reader.found[0][2])
    feed(reader, transfer(1, b"y" * 5000)[SIZE:])
    assert reader.found == [[1, performative.TRANSFER, first]]


def test_what_is_no_frame():
    whole = SESSION[0][0]
    for octets, text in (
        (b"\0\0\0\7\2\0\0\0", "frame of 7 octets with a head of 8"),
        (b"\0\0\0\0\2\0\0\0", "frame of 0 octets with a head of 8"),
        (b"\0\0\0\x08\1\0\0\0", "frame of 8 octets with a head of 4"),
        (b"\0\0\0\x08\0\0\0\0", "frame of 8 octets with a head of 0"),
        (b"\0\0\0\x08\3\0\0\0", "frame of 8 octets with a head of 12"),
        (b"\0\0\x20\1\2\0\0\0", "frame of 8193 octets, the most is 8192"),
        (b"\xff\xff\xff\xff\2\0\0\0", "frame of 1073741823 octets, the most is 8192"),
        (b"\0\0\0\x08\2\1\0\0", "frame of type 1, 0 was due"),
        (b"\0\0\0\x08\2\7\0\0", "frame of type 7, 0 was due"),
        (b"AMQP\0\1\0\0", "frame of 1073741823 octets with a head of 0"),
    ):  # fmt: skip
        for most in (1, SIZE):
            found = feed(Reader(), whole + octets + whole, most)
            assert len(found) == 2 and isinstance(found[1], FramingError), (octets, found)
            assert found[1].text == text, found[1].text
    found = feed(Reader(frame_max=512, kind=SASL), whole)
    assert found[0].text == "frame of type 0, 1 was due"


def test_what_is_longer_than_the_buffer_and_no_transfer():
    text = "a performative and its frame's head do not fit in 512 octets"
    for body in (
        described(performative.OPEN, "x" * 600),
        described(performative.TRANSFER, uint(0), uint(7), b"t" * 600) + b"payload",
        b"x" * 600,
    ):
        for most in (1, SIZE):
            found = feed(Reader(), frame(AMQP, 0, body), most)
            assert isinstance(found[0], ResourceLimitExceeded) and found[0].text == text, found
    assert feed(Reader(), transfer(1, b"p" * 600, b"t" * 400))[0][2] == b"p" * 600
    assert feed(Reader(), frame(AMQP, 0, b"x" * 60))[0].text == "a described list was due"


def test_what_is_here_of_a_long_payload_fills_the_buffer():
    """So that the sections of a message can be read in one piece."""
    octets = transfer(1, b"y" * 5000)
    for most in (1, 100, SIZE):
        reader = Reader()
        reader.takes = False
        feed(reader, octets, most)
        assert len(reader.found[0][2]) == SIZE - (len(octets) - 5000)


def test_any_octets():
    random = chance.seeded()
    octets = b"".join([row[0] for row in SESSION])
    for _ in range(300):
        broken = bytearray(octets)
        for _ in range(1 + random.randrange(4)):
            broken[random.randrange(len(broken))] = random.randrange(256)
        reader = Reader()
        feed(reader, bytes(broken), lambda: 1 + random.randrange(SIZE))
        assert reader.deaf or reader.found
