import sys

from standins import ADC, I2C, RP2, WDT, Flash, Machine, Pin, StandIns, Timer, Uctypes

WATCHDOG = 0x40058000
MARK = 0x414D51


class Lab:
    """The board's module among stand-ins."""

    def __init__(self, machine=None, flash=None):
        self.machine = machine or Machine()
        self.mem32 = self.machine.mem32
        self.uctypes = Uctypes()
        self._standins = StandIns(machine=self.machine, rp2=RP2(flash), uctypes=self.uctypes)

    def __enter__(self):
        self._standins.__enter__()
        from board.pico_w import board

        self.board = board
        return self

    def __exit__(self, *error):
        self._standins.__exit__(*error)


def test_watchdog_is_fed_while_the_program_feeds():
    with Lab() as lab:
        now = [1000]
        lab.board.ticks_ms = lambda: now[0]
        dog = lab.board.watchdog(30)
        hardware = WDT.latest
        timer = Timer.latest
        assert hardware.timeout <= 8388
        assert timer.options == {"hard": True}
        for second in range(29):
            now[0] = 1000 + second * 1000
            timer.callback(timer)
        assert hardware.fed == 29
        dog.feed()
        now[0] += 29999
        timer.callback(timer)
        assert hardware.fed == 30
        now[0] += 1
        timer.callback(timer)
        assert hardware.fed == 30
        dog.off()
        assert timer.callback is None
        assert lab.mem32.words[WATCHDOG + 0x3000] == 1 << 30


def test_watchdog_of_a_run_before_is_stopped():
    with Lab() as lab:
        dog = lab.board.watchdog(0)
        assert lab.mem32.words[WATCHDOG + 0x3000] == 1 << 30
        dog.feed()
        dog.off()
        lab.board.watchdog(5)
        first = Timer.latest
        lab.board.watchdog(5)
        assert first.callback is None
        assert Timer.latest.callback is not None


def test_watchdog_of_a_firmware_without_hard_timers():
    Timer.takes_hard = False
    try:
        with Lab() as lab:
            lab.board.watchdog(5)
            assert Timer.latest.options == {}
            assert Timer.latest.callback is not None
    finally:
        Timer.takes_hard = True


class Os:
    @staticmethod
    def statvfs(path):
        return (4096, 4096, 100, 50, 50, 0, 0, 0, 0, 255)


def test_flash_behind_the_file_system_only_when_it_is_certain():
    segments = {"kind": "segments", "path": "/ring", "size": 262144}
    behind = {"kind": "flash", "start": 409600, "size": 262144}
    for flash, expected in (
        (Flash(164, b"littlefs", 4096, 100), behind),
        (Flash(163, b"littlefs", 4096, 100), segments),
        (Flash(100, b"littlefs", 4096, 100), segments),
        (Flash(500, b"littlefs", 4096, 101), segments),  # "/" is another file system
        (Flash(500, b"littlefs", 512, 100), segments),
        (Flash(500, b"\xeb\xfe\x90MSDO", 4096, 100), segments),
    ):
        with Lab(flash=flash) as lab:
            once = lab.board._once("once")
            once.os = Os
            assert once.flash(262144) == expected
            assert "board.pico_w.once" not in sys.modules


class Gc:
    @staticmethod
    def collect():
        pass

    @staticmethod
    def mem_free():
        return 8000


def test_retained_memory_is_found_again():
    with Lab() as lab:
        lines = []
        for run in range(3):
            once = lab.board._once("once")
            once.gc = Gc
            buf, starts = once.retained_memory(WATCHDOG + 0x0C, 0x20042000, 1024)
            assert starts == run
            from board.retained import Retained

            retained = Retained(buf, lab.board._keep_starts, starts)
            assert retained.previous() == lines
            retained.begin()
            retained.write("run %d" % run)
            lines += ["-- start %d" % (run + 1), "run %d" % run]
        retained.good()
        assert lab.mem32[WATCHDOG + 0x0C] == MARK << 8
        retained.begin()
        assert lab.mem32[WATCHDOG + 0x0C] == MARK << 8 | 1


def test_retained_memory_is_not_looked_for_anywhere_else():
    for mark, address, check in (
        (0, 0, 0),
        (MARK << 8 | 9, 0x20010000, 0x20010000),
        (MARK << 7, 0x20010000, 0x20010000 ^ MARK),
    ):
        with Lab() as lab:
            lab.uctypes.bytearray_at = None
            lab.mem32[WATCHDOG + 0x0C] = mark
            lab.mem32[WATCHDOG + 0x10] = address
            lab.mem32[WATCHDOG + 0x14] = check
            once = lab.board._once("once")
            once.gc = Gc
            buf, starts = once.retained_memory(WATCHDOG + 0x0C, 0x20042000, 1024)
            assert starts == 0
            assert buf == bytes(1024)
    for address in (0x1FFFFFF0, 0x20042000 - 1023, 0x40058000):
        with Lab() as lab:
            lab.uctypes.bytearray_at = None
            lab.mem32[WATCHDOG + 0x0C] = MARK << 8 | 9
            lab.mem32[WATCHDOG + 0x10] = address
            lab.mem32[WATCHDOG + 0x14] = address ^ MARK
            once = lab.board._once("once")
            once.gc = Gc
            assert once.retained_memory(WATCHDOG + 0x0C, 0x20042000, 1024)[1] == 9


def test_small_things():
    with Lab() as lab:
        board = lab.board
        assert board.wifi(None, "x") is None
        assert board.unique_id() == "e66101"
        ADC.reading = round(0.706 * 65535 / 3.3)
        assert abs(board.chip_temperature() - 27) < 0.1
        ADC.reading = round((0.706 - 0.01721) * 65535 / 3.3)
        assert abs(board.chip_temperature() - 37) < 0.1
        board.led(True)
        assert Pin.values["LED"]
        for pins, bus in (((), 0), ((5, 4), 0), ((3, 2), 1), ((21, 20), 0), ((27, 26), 1)):
            i2c = board.i2c(*pins)
            assert isinstance(i2c, I2C)
            assert i2c.bus == bus
            assert i2c.pins == dict(zip(("scl", "sda"), pins or (5, 4)))
        for reason, cause in ((0, "power"), (1, "watchdog"), (2, "reset")):
            lab.mem32[WATCHDOG + 8] = reason
            assert board.reset_cause() == cause
