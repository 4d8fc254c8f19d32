from standins import WDT, Machine, Network, Pin, StandIns


class Partition:
    TYPE_DATA = 1
    found = []

    @staticmethod
    def find(kind, label):
        assert kind == Partition.TYPE_DATA
        return [partition for partition in Partition.found if partition.name == label]

    def __init__(self, name, size, encrypted=False):
        self.name = name
        self._info = (1, 0x40, 0x310000, size, name, encrypted)

    def info(self):
        return self._info


class Esp32:
    """An ESP32's module; others measure in degrees Celsius."""

    def __init__(self, celsius=None):
        self.Partition = Partition
        if celsius is None:
            self.raw_temperature = lambda: 127
        else:
            self.mcu_temperature = lambda: celsius


def test_flash_is_the_partition_called_amqp():
    segments = {"kind": "segments", "path": "/ring", "size": 262144}
    for found, expected in (
        ([], segments),
        ([Partition("vfs", 2097152)], segments),
        ([Partition("amqp", 262143)], segments),
        ([Partition("amqp", 524288, True)], segments),
        ([Partition("vfs", 2097152), Partition("amqp", 262144)], "amqp"),
    ):
        Partition.found = found
        with StandIns(machine=Machine(), esp32=Esp32()):
            from board.esp32 import board

            if expected == "amqp":
                expected = {"kind": "partition", "label": "amqp"}
            assert board.flash(262144) == expected


def test_watchdog():
    with StandIns(machine=Machine()):
        from board.esp32 import board

        dog = board.watchdog(30)
        assert WDT.latest.timeout == 30000
        dog.feed()
        assert WDT.latest.fed == 1
        dog.off()
        assert WDT.latest.timeout > 24 * 3600 * 1000
        latest = WDT.latest
        dog = board.watchdog(0)
        dog.feed()
        dog.off()
        assert WDT.latest is latest


def test_retained_lines_are_in_the_memory_of_the_rtc():
    machine = Machine()
    for n in range(3):
        with StandIns(machine=machine):
            from board.esp32 import board

            retained = board.retained()
            assert retained is board.retained()
            assert retained.starts == n
            retained.begin()
            retained.write("run %d" % n)
    assert len(machine.RTC.octets) == 1024
    with StandIns(machine=machine):
        from board.esp32 import board

        assert board.retained().previous()[-2:] == ["-- start 3", "run 2"]


def test_wifi_names_the_failures_of_this_port():
    network = Network()
    settings = {"ssid": "s", "password": "", "country": "", "power_save": "none", "hostname": ""}
    with StandIns(machine=Machine(), network=network):
        from board.esp32 import board

        station = board.wifi(settings, "esp")
        assert network.WLAN.options == {"pm": 10, "reconnects": 0}
        now = 0
        for status, state in ((15, "wrong password"), (201, "no such network"), (1010, "up")):
            attempts = len(network.WLAN.calls)
            network.WLAN.reports = 1001
            while len(network.WLAN.calls) == attempts or network.WLAN.calls[-1] != ("s", None):
                now += 50
                station.step(now)
            for reports in (1001, status):
                network.WLAN.reports = reports
                for _ in range(10):
                    now += 50
                    station.step(now)
                    if station.state == state:
                        break
            assert station.state == state


def test_small_things():
    machine = Machine()
    with StandIns(machine=machine, esp32=Esp32()):
        from board.esp32 import board

        assert board.unique_id() == "e66101"
        assert abs(board.chip_temperature() - 52.8) < 0.1
        board.led(True)
        assert Pin.values["LED"]
        assert board.i2c().pins == {}
        assert board.i2c(22, 21).pins == {"scl": 22, "sda": 21}
        for cause, name in (
            (1, "power"),
            (2, "power"),
            (3, "watchdog"),
            (4, "other"),
            (5, "reset"),
        ):
            machine.cause = cause
            assert board.reset_cause() == name
    with StandIns(machine=machine, esp32=Esp32(41)):
        from board.esp32 import board

        assert board.chip_temperature() == 41
