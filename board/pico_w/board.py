"""The Raspberry Pi Pico W; the Pico 2 W has its registers elsewhere and is otherwise the same."""

import sys
from time import ticks_diff, ticks_ms

import machine
from micropython import const

from .. import NoWatchdog

NAME = "pico_w"
_CODE = "/lib/amqp_lite/inplace.bin"

_RP2350 = "RP2350" in sys.implementation._machine
_WATCHDOG = 0x400D8000 if _RP2350 else 0x40058000  # its registers
_REASON = const(8)
_SCRATCH = const(0x0C)  # three words for retained(); the bootloader uses those from 0x1C on
_CLEAR = const(0x3000)  # what is written here clears the bits of the register below
_ENABLE = const(0x40000000)  # of its register at 0
_HARDWARE_MS = const(8000)  # the watchdog's limit is 8388 on RP2040
_LOOK_MS = const(1000)

_I2C_SCL = const(5)
_I2C_SDA = const(4)

_dog = None
_kept = None


def wifi(settings, hostname):
    if settings is None:
        return None
    from .. import wifi

    meanings = {
        1: wifi.JOINING,
        2: wifi.ADDRESSING,
        3: wifi.UP,
        -2: wifi.NO_NETWORK,
        -3: wifi.WRONG_PASSWORD,
    }
    return wifi.Station(settings, hostname, meanings)


def clock(settings):
    from ..clock import Clock

    return Clock(settings)


def flash(size):
    return _once("once").flash(size)


def place(late=None):
    if not __file__.startswith("/lib/"):
        return  # part of the firmware: it is in flash already, whatever was deployed before
    import rp2

    try:
        _once("inplace").place(memoryview(rp2.Flash()), _CODE, late)
    except OSError:
        return  # deployed as .py
    if late is None:
        from amqp_lite import compat_micropython

        compat_micropython.loader = place


class _Watchdog:
    """Two levels: the hardware's eight seconds are less than a name's look-up may take.

    A timer feeds the hardware as long as feed() was called within *seconds*.
    """

    def __init__(self, seconds):
        self._limit = seconds * 1000
        self._fed = ticks_ms()
        self._hardware = machine.WDT(timeout=_HARDWARE_MS)
        self._timer = machine.Timer()
        try:
            self._timer.init(period=_LOOK_MS, callback=self._look, hard=True)
        except TypeError:
            # MicroPython before 1.26: called between two of the program's steps, and while it
            # waits for a name.
            self._timer.init(period=_LOOK_MS, callback=self._look)

    def feed(self):
        self._fed = ticks_ms()

    def off(self):
        self._timer.deinit()
        _stop_watchdog()

    def _look(self, timer):
        # In an interrupt: nothing here may allocate.
        if ticks_diff(ticks_ms(), self._fed) < self._limit:
            self._hardware.feed()


def watchdog(seconds):
    """At most 500 000 s. It resets up to eight seconds later."""
    global _dog  # the timer alone would not keep it
    if _dog is not None:
        _dog.off()
    _stop_watchdog()  # it goes on through a soft reset
    _dog = _Watchdog(seconds) if seconds else NoWatchdog()
    return _dog


def _stop_watchdog():
    machine.mem32[_WATCHDOG + _CLEAR] = _ENABLE


def led(on):
    machine.Pin("LED", machine.Pin.OUT).value(on)


def unique_id():
    from binascii import hexlify

    return str(hexlify(machine.unique_id()), "ascii")


def chip_temperature():
    volts = machine.ADC(machine.ADC.CORE_TEMP).read_u16() * 3.3 / 65535
    return 27 - (volts - 0.706) / 0.001721  # RP2040 datasheet, 4.9.5


def retained():
    """To be called first of all: it is at the end of the heap, which fills up from its start."""
    global _kept
    if _kept is None:
        from ..retained import SIZE, Retained

        sram_end = 0x20082000 if _RP2350 else 0x20042000
        buf, starts = _once("once").retained_memory(_WATCHDOG + _SCRATCH, sram_end, SIZE)
        _kept = Retained(buf, _keep_starts, starts)
    return _kept


def _keep_starts(starts):
    # Whole words: the registers make four equal octets of a single one.
    word = machine.mem32[_WATCHDOG + _SCRATCH]
    machine.mem32[_WATCHDOG + _SCRATCH] = word >> 8 << 8 | starts


def _once(name):
    """The module *name* of this folder, which is gone when the caller is done with it."""
    package = __name__.rpartition(".")[0]
    module = __import__(package + "." + name, None, None, ("*",))
    delattr(sys.modules[package], name)
    del sys.modules[module.__name__]
    return module


def i2c(scl=None, sda=None):
    scl = _I2C_SCL if scl is None else scl
    sda = _I2C_SDA if sda is None else sda
    # The chip's two buses take turns every two pins.
    return machine.I2C(sda >> 1 & 1, scl=machine.Pin(scl), sda=machine.Pin(sda), freq=100000)


def reset_cause():
    reason = machine.mem32[_WATCHDOG + _REASON]
    return "watchdog" if reason & 1 else "reset" if reason & 2 else "power"


def reset():
    machine.reset()
