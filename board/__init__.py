"""What differs between machines: board/<name>/board.py has the same names for each of them.

    NAME
    wifi(settings, hostname)    a Station (wifi.py), which step() lets join; None without settings
    clock(settings)             with step(), now(), is_set and status() (clock.py)
    flash(size)                 the configuration's `store` for a ring of *size* octets here
    watchdog(seconds)           with feed() and off(); resets a board that was not fed in time
    led(on)
    unique_id()                 hexadecimal digits
    chip_temperature()          in degrees Celsius; None where nobody measures it
    retained()                  what survives a reset (retained.py)
    i2c(scl=None, sda=None)     a machine.I2C; pins by their numbers. Raises OSError without any
    reset_cause()               "power", "reset", "watchdog" or "other"
    place()                     imports what the broker needs and keeps its code out of the heap,
                                where that can be: pico_w/inplace.py
    reset()                     starts the machine anew

A board's module imports nothing of amqp_lite by itself: boot.py needs it first of all.
"""

import sys


def here():
    """The board module of this machine."""
    if sys.platform == "rp2":
        from .pico_w import board
    elif sys.platform == "esp32":
        from .esp32 import board
    else:
        from .linux import board
    return board


class NoWatchdog:
    """Nobody watches."""

    def feed(self):
        pass

    def off(self):
        pass
