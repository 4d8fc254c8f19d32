import socket
from os import urandom
from time import gmtime, sleep, time

from amqp_lite.compat import ticks_add
from amqp_lite.log import log
from standins import Machine, StandIns

TO_UNIX = 2208988800
NOON = 1795867200  # 2026-11-28 12:00:00


class Server:
    """An SNTP server on the loopback that answers as a test wants."""

    def __init__(self):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        while True:
            self.port = 20000 + int.from_bytes(urandom(2), "big") % 40000
            try:
                self.sock.bind(socket.getaddrinfo("127.0.0.1", self.port)[0][-1])
                return
            except OSError:
                pass

    def asked(self):
        """The next question as (octets, from whom); None when there is none."""
        sleep(0.01)
        try:
            return self.sock.recvfrom(100)
        except OSError:
            return None

    def answer(self, asked, unix=NOON, first=0x24, stratum=2, echo=None, cut=48, fraction=0):
        octets = bytearray(48)
        octets[0] = first
        octets[1] = stratum
        octets[12:16] = b"RATE"
        octets[24:32] = asked[0][40:48] if echo is None else echo
        octets[40:44] = ((unix + TO_UNIX) % (1 << 32)).to_bytes(4, "big")
        octets[44] = fraction
        self.sock.sendto(octets[:cut], asked[1])
        sleep(0.01)


class Lab:
    def __init__(self, interval=3600, server="127.0.0.1"):
        import machine

        from board.clock import Clock

        log.configure("info", 16)
        self.rtc = machine.RTC
        self.server = Server()
        self.clock = Clock({"server": server, "interval": interval}, self.server.port)
        self.now = 1000

    def pass_by(self, ms, online=True):
        """Let *ms* pass: a question that came meanwhile, or None."""
        self.now = ticks_add(self.now, ms)
        self.clock.step(self.now, online)
        return self.server.asked() if self.clock._sock is not None else None

    def wait(self):
        """Let time pass until a question comes: how many s, and the question."""
        if self.clock._sock is not None:
            self.pass_by(4000)
        seconds = 0
        while True:
            asked = self.pass_by(1000)
            if asked is not None:
                return seconds, asked
            seconds += 1

    def try_answer(self, **changes):
        """Have a question answered: whether the clock was set by that."""
        before = len(self.rtc.set_to)
        self.server.answer(self.wait()[1], **changes)
        self.pass_by(1)
        return len(self.rtc.set_to) > before

    def close(self):
        self.server.sock.close()
        if self.clock._sock is not None:
            self.clock._sock.close()


def with_lab(test):
    def run():
        with StandIns(machine=Machine()):
            lab = Lab()
            try:
                test(lab)
            finally:
                lab.close()

    return run


@with_lab
def test_it_asks_when_online_and_sets_the_rtc(lab):
    lab.clock.is_set = False
    assert lab.pass_by(60000, online=False) is None
    asked = lab.pass_by(1000)
    question = asked[0]
    assert len(question) == 48
    assert question[0] == 0x23
    assert question[1:40] == bytes(39)  # it tells nothing about us
    lab.server.answer(asked, fraction=0xC0)
    lab.pass_by(1)
    assert lab.clock._sock is None
    assert lab.rtc.set_to == [(2026, 11, 28, 5, 12, 0, 1, 0)]
    assert lab.clock.is_set
    status = lab.clock.status()
    assert status["answers"] == 1
    assert status["problem"] is None
    assert log.recent()[-1].startswith("clock: it is 2026-11-28 12:00:01 UTC, set by ")
    assert 3598 <= lab.wait()[0] <= 3600 + 3600 // 8 + 1


@with_lab
def test_now_is_unix_time(lab):
    from board import clock

    assert abs(lab.clock.now() - clock.EPOCH - time()) < 2
    assert gmtime(NOON - clock.EPOCH)[:6] == (2026, 11, 28, 12, 0, 0)


@with_lab
def test_the_epoch_of_2000(lab):
    from board import clock

    before = clock.EPOCH, clock.gmtime
    clock.EPOCH = 946684800
    clock.gmtime = lambda seconds: gmtime(seconds + 946684800)
    try:
        assert lab.try_answer()
        assert lab.rtc.set_to == [(2026, 11, 28, 5, 12, 0, 0, 0)]
        assert abs(lab.clock.now() - 946684800 - time()) < 2
    finally:
        clock.EPOCH, clock.gmtime = before


@with_lab
def test_seconds_begin_anew_in_2036(lab):
    assert lab.try_answer(unix=(1 << 32) - TO_UNIX + 1)
    assert lab.rtc.set_to[-1] == (2036, 2, 7, 3, 6, 28, 17, 0)
    assert lab.try_answer(unix=(1 << 32) - TO_UNIX + 1000000000)
    assert lab.rtc.set_to[-1][:3] == (2067, 10, 16)


@with_lab
def test_answers_that_are_not_believed(lab):
    for changes, why in (
        ({"first": 0x23}, "is no server"),
        ({"first": 0x25}, "is no server"),
        ({"first": 0xE4}, "does not know the time itself"),
        ({"stratum": 16}, "does not know the time itself"),
        ({"stratum": 0}, "asks us to leave it alone: RATE"),
        ({"unix": -TO_UNIX}, "does not say the time"),
        ({"unix": 1751328000}, "says it is 2025-07-01 00:00:00 UTC, which is over"),
        ({"unix": 100}, "says it is 1970-01-01 00:01:40 UTC, which is over"),
    ):
        assert not lab.try_answer(**changes), changes
        assert lab.clock.status()["problem"] == why
        assert log.recent()[-1] == "clock: 127.0.0.1 " + why
        assert lab.clock._sock is None
    assert lab.try_answer()
    assert lab.clock.status()["problem"] is None


@with_lab
def test_what_does_not_belong_to_the_question_is_passed_over(lab):
    asked = lab.wait()[1]
    lab.server.answer(asked, echo=bytes(8))
    lab.server.answer(asked, cut=47)
    lab.server.answer(asked, cut=0)
    for _ in range(3):
        lab.pass_by(1)
    assert lab.clock._sock is not None
    assert lab.rtc.set_to == []
    lab.server.answer(asked)
    lab.pass_by(1)
    assert len(lab.rtc.set_to) == 1


@with_lab
def test_time_never_goes_back(lab):
    assert lab.try_answer(unix=NOON + 1000)
    assert not lab.try_answer(unix=NOON + 999)
    assert lab.try_answer(unix=NOON + 1000)
    assert len(lab.rtc.set_to) == 2


@with_lab
def test_silence_is_asked_rarely(lab):
    lab.clock._interval = 200
    waits = [lab.wait()[0] for _ in range(7)]
    assert waits[0] == 0
    assert 13 <= waits[1] <= 17, waits
    assert 28 <= waits[2] <= 34, waits
    assert 198 <= waits[6] <= 226, waits
    assert log.recent() == ["clock: 127.0.0.1 does not answer"]
    assert lab.try_answer()
    assert log.recent()[-1].startswith("clock: it is ")


@with_lab
def test_a_name_nobody_knows(lab):
    from board import clock

    class Sockets:
        AF_INET = socket.AF_INET
        looked = 0

        @staticmethod
        def getaddrinfo(name, port, family):
            Sockets.looked += 1
            raise OSError(-2)

    clock.socket = Sockets
    lab.clock.step(1000, True)
    assert lab.clock._sock is None
    lab.clock.step(2000, True)
    assert Sockets.looked == 1
    assert lab.clock.status()["problem"].startswith("cannot be looked up: ")


@with_lab
def test_long_offline_it_asks_at_once(lab):
    assert lab.try_answer()
    for _ in range(400):  # 400 hours, more than ticks of 2**30 ms can tell
        lab.now = ticks_add(lab.now, 3600000)
        lab.clock.step(lab.now, False)
    assert lab.pass_by(1000) is not None


def test_without_settings_it_only_tells():
    with StandIns(machine=Machine()):
        from board.clock import Clock

        clock = Clock(None)
        clock.step(1, True)
        assert clock.status()["server"] is None
        assert clock.now() > 1700000000
