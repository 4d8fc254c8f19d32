"""Stand-ins for the modules that only a board has, and a Pico W made of them.

with StandIns(machine=Machine(), network=Network()):
    from board import wifi
"""

import sys
import time

from amqp_lite.compat import MICROPYTHON, ticks_diff, ticks_ms


class StandIns:
    """Modules that can be imported inside of it; board's own are loaded anew in each."""

    def __init__(self, **modules):
        self._modules = modules
        self._before = {}

    def __enter__(self):
        _forget_board()
        if not MICROPYTHON:
            self._modules.setdefault("micropython", MicroPython())
            sys.implementation._machine = "Raspberry Pi Pico W with RP2040"
            time.ticks_ms = ticks_ms
            time.ticks_diff = ticks_diff
        for name in self._modules:
            self._before[name] = sys.modules.get(name)
            sys.modules[name] = self._modules[name]
        return self

    def __exit__(self, kind, error, trace):
        _forget_board()
        for name in self._before:
            if self._before[name] is None:
                del sys.modules[name]
            else:
                sys.modules[name] = self._before[name]


def _forget_board():
    for name in list(sys.modules):
        if name.split(".")[0] == "board":
            del sys.modules[name]


class MicroPython:
    @staticmethod
    def const(value):
        return value


class Memory:
    """machine.mem32: signed words, as MicroPython 1.26 reads them."""

    def __init__(self):
        self.words = {}

    def __getitem__(self, address):
        word = self.words.get(address, 0)
        return word - (1 << 32) if word >> 31 else word

    def __setitem__(self, address, word):
        self.words[address] = word & 0xFFFFFFFF


class Pin:
    OUT = 1
    values = {}

    def __init__(self, name, mode=-1):
        if not isinstance(name, int) and name != "LED":
            raise ValueError("invalid pin")
        self.name = name

    def value(self, value):
        Pin.values[self.name] = value


class ADC:
    CORE_TEMP = 4
    reading = 0

    def __init__(self, channel):
        assert channel == ADC.CORE_TEMP

    def read_u16(self):
        return ADC.reading


class I2C:
    def __init__(self, bus, freq=400000, **pins):
        self.bus = bus
        self.freq = freq
        self.pins = {name: pins[name].name for name in pins}


class WDT:
    def __init__(self, timeout):
        self.timeout = timeout
        self.fed = 0
        WDT.latest = self

    def feed(self):
        self.fed += 1


class Timer:
    takes_hard = True

    def init(self, period, callback, **options):
        if options and not Timer.takes_hard:
            raise TypeError("extra keyword arguments given")
        self.period = period
        self.callback = callback
        self.options = options
        Timer.latest = self

    def deinit(self):
        self.callback = None


class RTC:
    def __init__(self):
        self.set_to = []
        self.octets = b""

    def __call__(self):
        return self

    def datetime(self, value):
        self.set_to.append(value)

    def memory(self, octets=None):
        if octets is None:
            return self.octets
        self.octets = bytes(octets)


class Machine:
    PWRON_RESET = 1
    HARD_RESET = 2
    WDT_RESET = 3
    DEEPSLEEP_RESET = 4
    SOFT_RESET = 5
    Pin = Pin
    ADC = ADC
    I2C = I2C
    WDT = WDT
    Timer = Timer

    def __init__(self):
        self.mem32 = Memory()
        self.RTC = RTC()
        self.cause = self.PWRON_RESET

    def reset_cause(self):
        return self.cause

    def unique_id(self):
        return b"\xe6\x61\x01"


class WLAN:
    """network.WLAN of one interface, whose status a test sets; an attempt begins with 1."""

    IF_STA = 0
    PM_NONE = 10
    PM_PERFORMANCE = 11
    PM_POWERSAVE = 12

    def __init__(self):
        self.reports = 0  # what status() returns
        self.error = None  # what connect() raises
        self.sticky = False  # reports the last failure all the time, as ESP32 does
        self.calls = []
        self.options = {}

    def __call__(self, interface):
        assert interface == WLAN.IF_STA
        return self

    def active(self, up):
        self.calls.append("up" if up else "down")

    def deinit(self):
        self.calls.append("deinit")

    def config(self, **options):
        self.options.update(options)

    def connect(self, ssid, key=None):
        self.calls.append((ssid, key))
        if self.error is not None:
            raise self.error
        if not self.sticky:
            self.reports = 1

    def disconnect(self):
        self.calls.append("disconnect")

    def status(self, what=None):
        if what == "rssi":
            return -61
        return self.reports

    def ipconfig(self, what):
        assert what == "addr4"
        return ("192.168.7.31", "255.255.255.0")


class Network:
    def __init__(self):
        self.WLAN = WLAN()
        for name in ("IF_STA", "PM_NONE", "PM_PERFORMANCE", "PM_POWERSAVE"):
            setattr(self.WLAN, name, getattr(WLAN, name))
        self.named = None
        self.country_set = None

    def hostname(self, name):
        if len(name) > 32:
            raise ValueError
        self.named = name

    def country(self, code):
        self.country_set = code


class Flash:
    """rp2.Flash() with a littlefs of *blocks* at its start; class and object in one."""

    def __init__(self, total, magic, size, blocks):
        self._total = total
        self._head = bytes(8) + magic + bytes(8) + size.to_bytes(4, "little")
        self._head += blocks.to_bytes(4, "little")

    def __call__(self):
        return self

    def ioctl(self, what, argument):
        return {4: self._total, 5: 4096}[what]

    def readblocks(self, block, buf, offset):
        assert offset == 0
        buf[:] = self._head[: len(buf)] if block == 1 else bytes(len(buf))


class RP2:
    def __init__(self, flash):
        self.Flash = flash


class Uctypes:
    """Addresses in a Pico W's RAM; a bytearray asked for the first time is behind all others."""

    def __init__(self):
        self._arrays = []

    def addressof(self, array):
        for i in range(len(self._arrays)):
            if self._arrays[i] is array:
                return 0x20010000 + i * 4096
        self._arrays.append(array)
        return 0x20010000 + (len(self._arrays) - 1) * 4096

    def bytearray_at(self, address, size):
        array = self._arrays[(address - 0x20010000) // 4096]
        assert len(array) == size
        return array
