import os

from standins import Machine, StandIns

NAMES = (
    "NAME wifi clock flash watchdog led unique_id chip_temperature retained i2c reset_cause reset"
)


def test_all_boards_have_the_same_names():
    with StandIns(machine=Machine()):
        from board.esp32 import board as esp32
        from board.linux import board as linux
        from board.pico_w import board as pico_w

        for board in (esp32, linux, pico_w):
            for name in NAMES.split():
                assert hasattr(board, name), (board.NAME, name)


def test_this_machine():
    with StandIns():
        from board import here

        board = here()
        assert board.NAME == "linux"
        assert board.wifi({"ssid": "x"}, "x") is None
        clock = board.clock({"server": "x", "interval": 1})
        clock.step(0, True)
        assert clock.is_set
        assert clock.now() > 1700000000
        assert len(board.unique_id()) == 16
        int(board.unique_id(), 16)
        assert board.unique_id() == board.unique_id()
        temperature = board.chip_temperature()
        assert temperature is None or -50 < temperature < 150
        dog = board.watchdog(1)
        dog.feed()
        dog.off()
        board.led(True)
        try:
            board.i2c()
            assert False
        except OSError:
            pass


def test_its_store_is_one():
    from amqp_lite.store.open import check_store

    with StandIns():
        from board import here

        for size in (16384, 262144, 98304):
            check_store(here().flash(size), "store")


def test_retained_lines_are_in_a_file_when_one_is_named():
    with StandIns():
        from board.linux import board

        path = "retained-%s.tmp" % board.unique_id()
        names = []
        board.os = Os(names, path)
        try:
            for n in range(3):
                board._kept = None
                retained = board.retained()
                assert retained.starts == n
                retained.begin()
                retained.write("run %d \u00fc" % n)
                retained.write("  ")
            board._kept = None
            assert board.retained().previous()[-3:] == ["-- start 3", "run 2 \u00fc", "  "]
            assert names[0] == "AMQP_LITE_RETAINED"
        finally:
            os.remove(path)
        board.os = Os(names, None)
        board._kept = None
        assert board.retained().previous() == []
        board.retained().write("x")


class Os:
    def __init__(self, names, path):
        self._names = names
        self._path = path

    def getenv(self, name):
        self._names.append(name)
        return self._path
