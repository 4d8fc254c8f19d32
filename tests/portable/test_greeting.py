"""The first eight octets of a peer: ours, or those of another protocol on the wrong port."""

import wire
from amqp_lite.log import log
from amqp_lite.net.listener import V091_HEADER, V10_HEADER, Greeting
from world import World

# what arrives, what the log calls it
OTHERS = (
    (b"AMQP\x03\x02\x00\x00", "SASL of another version of AMQP"),
    (b"AMQP\x00\x01\x00\x00", "AMQP 1.0 without SASL"),
    (b"AMQP\x02\x01\x00\x00", "another version of AMQP"),
    (b"AMQP\x01\x01\x00\x09", "AMQP 0-9"),
    (b"AMQP\x01\x01\x08\x00", "AMQP 0-8"),
    (b"AMQP\x01\x01\x00\x0a", "another version of AMQP"),
    (b"AMQP\x00\x00\x09\x02", "another version of AMQP"),
    (b"AMQP\x00\x00\x0a\x00", "another version of AMQP"),
    (b"GET / HTTP/1.1\r\n\r\n", "HTTP"),
    (b"POST /api HTTP/1.1", "HTTP"),
    (b"PRI * HTTP/2.0", "HTTP/2"),
    (b"\x10\x10\x00\x04MQTT\x04\x02", "MQTT"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
    (b"CONNECT\naccept-version:1.2", "STOMP or HTTP"),
    (b"\x00\x00\x00\x00\x00\x00\x00\x00", "no protocol we know"),
    (b"SSH-2.0-OpenSSH", "no protocol we know"),
    (b"amqp\x00\x00\x09\x01", "no protocol we know"),
)
_V10 = (b"AMQP\x03\x02\x00\x00", b"AMQP\x00\x01\x00\x00")


class Visit:
    """A peer at the greeting."""

    def __init__(self):
        self.broker = World(connections=0).broker
        log.configure("info", 4)
        self.greeting = Greeting(self.broker)
        self.come()

    def come(self):
        self.greeting.open("10.0.0.7", self.broker.now + 10000)

    def say(self, octets, step=8):
        """What the broker answers to *octets*; they are given as the reactor would."""
        greeting = self.greeting
        for i in range(0, len(octets), step):
            part = octets[i : i + min(step, greeting.room())]
            if not part or greeting.closed:
                break
            greeting.feed(memoryview(bytearray(part)), len(part))
        return bytes(greeting.output.view[: greeting.output.pending])


def test_our_headers_are_agreed_on():
    for header in (V091_HEADER, V10_HEADER):
        for step in (8, 3, 1):
            visit = Visit()
            assert visit.say(header, step) == b""
            assert visit.greeting.agreed is header and not visit.greeting.closed


def test_octets_behind_the_header_are_not_taken():
    visit = Visit()
    assert visit.greeting.room() == 8
    visit.say(wire.HEADER[:5])
    assert visit.greeting.room() == 3
    visit.say(wire.HEADER[5:])
    assert visit.greeting.room() == 0


def test_every_other_header_is_answered_with_ours():
    visit = Visit()
    for step in (8, 1):
        for octets, _ in OTHERS:
            visit.come()
            ours = V10_HEADER if octets in _V10 else V091_HEADER
            assert visit.say(octets, step) == ours, octets
            assert visit.greeting.closed and not visit.greeting.agreed
    assert visit.broker.metrics.connections_refused == 2 * len(OTHERS)


def test_a_broker_without_amqp_1_0():
    visit = Visit()
    visit.greeting = Greeting(visit.broker, False)
    for octets in _V10 + (V10_HEADER,):
        visit.come()
        assert visit.say(octets) == V091_HEADER
        assert log.recent()[-1] == "10.0.0.7 speaks AMQP 1.0, limits.amqp10 is 0"
    visit.come()
    visit.say(V091_HEADER)
    assert visit.greeting.agreed is V091_HEADER


def test_the_log_names_the_protocol():
    visit = Visit()
    for octets, name in OTHERS:
        visit.come()
        visit.say(octets)
        assert log.recent()[-1] == "10.0.0.7 speaks %s, this is an AMQP port" % name


def test_the_answer_is_given_once():
    visit = Visit()
    visit.say(b"GET ")
    greeting = visit.greeting
    greeting.output.sent(5)
    assert bytes(greeting.output.view[: greeting.output.pending]) == wire.HEADER[5:]
    greeting.feed(memoryview(b"/ HT"), 4)
    assert bytes(greeting.output.view[: greeting.output.pending]) == wire.HEADER[5:]
    greeting.output.sent(3)
    assert greeting.output.pending == 0


def test_a_header_in_pieces_that_is_never_finished_is_cut_10_s_after_accept():
    visit = Visit()
    for k in range(7):
        visit.say(wire.HEADER[k : k + 1])
        visit.broker.now += 1400
        assert visit.greeting.tick() == 10000 - 1400 * (k + 1)
    assert not visit.greeting.closed
    visit.broker.now += 200
    assert visit.greeting.tick() >= 1
    assert visit.greeting.closed
    assert visit.greeting.output.pending == 0
    assert visit.broker.metrics.peers_cut == 1


def test_a_greeting_is_used_again():
    visit = Visit()
    visit.say(b"GET / HT")
    visit.greeting.lost()
    visit.come()
    assert visit.say(wire.HEADER) == b""
    assert visit.greeting.agreed
