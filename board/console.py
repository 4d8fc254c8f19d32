"""What somebody at the serial console, or a tool there, can ask a running board.

Ctrl-T prints one line: `status `, then node.status() as JSON, with what the board adds as `board`.
All else that is typed is ignored; Ctrl-C is MicroPython's own, and ends the program.
"""

import json
import sys

from amqp_lite.compat import Poller, const

_CTRL_T = const(0x14)


class Console:
    """
    node   whose status() is printed
    extra  the dict `board` of the status; values that can be called are, each time
    """

    def __init__(self, node, extra, stdin=sys.stdin, stdout=sys.stdout):
        self._node = node
        self._extra = extra
        self._stdin = getattr(stdin, "buffer", stdin)  # octets, where a text stream has them
        self._stdout = stdout
        self._octet = bytearray(1)
        self._poller = Poller()
        self._poller.add(self._stdin, None)

    def step(self):
        """Take at most one octet that was typed; never waits."""
        if self._poller.wait(0):
            self._read()

    def _read(self):
        try:
            n = self._stdin.readinto(self._octet)
        except OSError:
            n = 0
        if not n:
            self._poller.remove(self._stdin)  # it has ended, and would be ready for ever
        elif self._octet[0] == _CTRL_T:
            self._answer()

    def _answer(self):
        write = self._stdout.write
        try:
            status = self._node.status()
            extra = self._extra
            status["board"] = {
                key: extra[key]() if callable(extra[key]) else extra[key] for key in extra
            }
            write("status ")
            json.dump(status, self._stdout)  # piece by piece: as one string it takes kilobytes
            write("\n")
        except MemoryError:
            write("\nstatus is too large now\n")
        except Exception as error:  # of a sensor or driver: the broker goes on
            write("\nstatus failed: %s: %s\n" % (type(error).__name__, error))
