"""The ESP32 and its kin."""

import machine
from micropython import const

from .. import NoWatchdog

NAME = "esp32"

_PARTITION = "amqp"
# The longest that the IDF's arithmetic holds: three days.
_NEVER_MS = const(0x0FFFFFFF)

_kept = None


def wifi(settings, hostname):
    if settings is None:
        return None
    from .. import wifi

    meanings = {
        1001: wifi.JOINING,
        1010: wifi.UP,
        15: wifi.WRONG_PASSWORD,  # the four-way handshake timed out
        201: wifi.NO_NETWORK,
        202: wifi.WRONG_PASSWORD,
        204: wifi.WRONG_PASSWORD,  # so did the handshake
        210: "no such network with our kind of security",
        211: "no such network with our kind of security",
        212: wifi.NO_NETWORK,
    }
    # The port would try again at once, and never say why it failed.
    return wifi.Station(settings, hostname, meanings, {"reconnects": 0})


def clock(settings):
    from ..clock import Clock

    return Clock(settings)


def flash(size):
    """The data partition called amqp, when there is one of that size."""
    from esp32 import Partition

    for partition in Partition.find(Partition.TYPE_DATA, label=_PARTITION):
        octets, encrypted = partition.info()[3], partition.info()[5]
        if octets >= size and not encrypted:
            return {"kind": "partition", "label": _PARTITION}
    return {"kind": "segments", "path": "/ring", "size": size}


class _Watchdog:
    def __init__(self, seconds):
        self._hardware = machine.WDT(timeout=seconds * 1000)

    def feed(self):
        self._hardware.feed()

    def off(self):
        self._hardware = machine.WDT(timeout=_NEVER_MS)  # there is no way to stop it
        self._hardware.feed()


def watchdog(seconds):
    return _Watchdog(seconds) if seconds else NoWatchdog()


def led(on):
    try:
        machine.Pin("LED", machine.Pin.OUT).value(on)
    except ValueError:  # a firmware for any board knows none
        pass


def unique_id():
    from binascii import hexlify

    return str(hexlify(machine.unique_id()), "ascii")


def chip_temperature():
    import esp32

    if hasattr(esp32, "mcu_temperature"):
        return float(esp32.mcu_temperature())
    if hasattr(esp32, "raw_temperature"):
        return (esp32.raw_temperature() - 32) / 1.8
    return None


def retained():
    """In the RTC's memory: also a watchdog, a panic and deep sleep leave it alone."""
    global _kept
    if _kept is None:
        from ..retained import SIZE, Retained

        rtc = machine.RTC()
        buf = bytearray(SIZE)
        memory = getattr(rtc, "memory", None)  # some chips have none
        if memory is not None and len(memory()) == SIZE:
            buf[:] = memory()

        def keep(starts):
            if memory is not None:
                memory(buf)

        _kept = Retained(buf, keep)
    return _kept


def i2c(scl=None, sda=None):
    """Without pins, those that MicroPython has chosen for the chip."""
    pins = {}
    if scl is not None:
        pins["scl"] = machine.Pin(scl)
    if sda is not None:
        pins["sda"] = machine.Pin(sda)
    return machine.I2C(0, freq=100000, **pins)


def reset_cause():
    cause = machine.reset_cause()
    if cause in (machine.PWRON_RESET, machine.HARD_RESET):
        return "power"
    if cause == machine.WDT_RESET:
        return "watchdog"
    return "reset" if cause == machine.SOFT_RESET else "other"


def place():
    pass


def reset():
    machine.reset()
