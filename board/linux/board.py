"""A gateway or a desk, on either Python: what the system does for us, we leave to it."""

import os
import sys
from time import time

from .. import NoWatchdog

NAME = "linux"

_RING = "amqp-lite-board.ring"  # in the current folder
_IDENTITIES = ("/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostname")
_THERMAL = "/sys/class/thermal/thermal_zone0/temp"
_RETAINED = "AMQP_LITE_RETAINED"  # a variable of the environment: path of a small file

_kept = None


def wifi(settings, hostname):
    return None


class _Clock:
    """The system keeps it."""

    is_set = True

    def now(self):
        return int(time())

    def step(self, now, online):
        pass

    def status(self):
        return {"is_set": True, "now": self.now()}


def clock(settings):
    return _Clock()


def flash(size):
    """A file with the sectors of a board's flash, so that each size for a board is one for it."""
    return {"kind": "file", "path": _RING, "size": size, "sector_size": 4096, "page_size": 256}


def watchdog(seconds):
    return NoWatchdog()


def led(on):
    pass


def unique_id():
    from binascii import hexlify
    from hashlib import sha256

    for path in _IDENTITIES:
        name = _read(path).strip()
        if name:
            # Not itself: machine-id(5) wants it kept secret.
            return str(hexlify(sha256(b"amqp-lite " + name).digest()[:8]), "ascii")
    return "0" * 16


def chip_temperature():
    text = _read(_THERMAL)
    return int(text) / 1000 if text else None


def retained():
    """In the file that AMQP_LITE_RETAINED names; without it nothing survives this process."""
    global _kept
    if _kept is None:
        from ..retained import SIZE, Retained

        path = os.getenv(_RETAINED)
        buf = bytearray(SIZE)
        found = _read(path) if path else b""
        if len(found) == SIZE:
            buf[:] = found

        def keep(starts):
            if path:
                with open(path, "wb") as file:
                    file.write(buf)

        _kept = Retained(buf, keep)
    return _kept


def i2c(scl=None, sda=None):
    raise OSError("no I2C bus is known here")


def reset_cause():
    return "power"


def place():
    pass


def reset():
    """End the process; whoever watches over it starts it again."""
    sys.exit(1)


def _read(path):
    """The octets of a small file; b"" when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
