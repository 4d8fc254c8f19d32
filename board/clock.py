"""The time of day from a server, for boards whose clock begins anew with each power cut.

SNTP (RFC 4330) over one UDP socket, which is open for a few seconds only. MicroPython's epoch is
1970 on some ports and 2000 on others; here it is always Unix time.
"""

import socket
from os import urandom
from time import gmtime, time

from amqp_lite.compat import const, receive, ticks_add, ticks_diff, transmit
from amqp_lite.log import log
from amqp_lite.net.backoff import jitter

EPOCH = 946684800 if gmtime(0)[0] == 2000 else 0  # Unix time at the port's zero
BUILT = 1793491200  # 2026-11-01: no answer from before can be right
_TO_UNIX = 2208988800  # s from 1900 to 1970

_PORT = const(123)
_OCTETS = const(48)  # of a packet
_ANSWER_MS = const(3000)
_FIRST_S = const(15)  # RFC 4330: not more often
_LONGEST_S = const(432000)  # 5 days: half of what ticks can tell apart, with its jitter


class Clock:
    """
    settings  the configuration's `clock`, complete: `server` is a name or an address, `interval`
              in s; None: the clock is never set
    """

    def __init__(self, settings, port=_PORT):
        self.is_set = self.now() >= BUILT  # a reset did not stop it
        self._server = settings and settings["server"]
        self._interval = settings and min(settings["interval"], _LONGEST_S)
        self._port = port
        self._floor = BUILT
        self._due = None  # ticks of the next question; None: as soon as we are online
        self._wait = _FIRST_S  # s, after a failure
        self._address = None  # of the server, as long as it answers
        self._sock = None
        self._packet = None  # the question, then the answer
        self._cookie = b""  # eight octets that the answer repeats
        self._give_up_at = 0  # ticks
        self._problem = None
        self._answers = 0

    def now(self):
        """Unix time in whole seconds."""
        return int(time()) + EPOCH

    def step(self, now, online):
        """Do what there is to do at *now*, in ticks. Only looking up the server's name waits."""
        if self._sock is not None:
            self._listen(now)
        elif self._server is not None:
            if self._due is not None and ticks_diff(now, self._due) >= 0:
                self._due = None
            if online and self._due is None:
                self._ask(now)

    def status(self):
        """What goes on, as a dict that json can print."""
        return {
            "is_set": self.is_set,
            "now": self.now(),
            "server": self._server,
            "answers": self._answers,
            "problem": self._problem,
        }

    def _ask(self, now):
        problem = "cannot be looked up"
        try:
            if self._address is None:
                found = socket.getaddrinfo(self._server, self._port, socket.AF_INET)
                self._address = found[0][-1]
            problem = "cannot be asked"
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._sock.setblocking(False)
            self._sock.connect(self._address)  # from now on it hears nobody else
            self._cookie = urandom(8)  # in the place of our time, which nobody needs
            self._packet = bytearray(_OCTETS)
            self._packet[0] = 0x23  # version 4, from a client
            self._packet[40:] = self._cookie
            transmit(self._sock, self._packet, 0, _OCTETS)
        except OSError as error:
            self._failed(now, "%s: %s" % (problem, error))
        self._give_up_at = ticks_add(now, _ANSWER_MS)

    def _listen(self, now):
        answer = self._packet
        try:
            n = receive(self._sock, answer, _OCTETS)
        except OSError as error:
            self._failed(now, "refuses: %s" % error)
            return
        if n == _OCTETS and answer[24:32] == self._cookie:
            problem = _problem(answer)
            if problem is None:
                seconds = _unix(answer)
                if seconds >= self._floor:
                    self._close(now, self._interval)
                    self._set(seconds)
                    return
                problem = "says it is %s, which is over" % _text(seconds)
            self._failed(now, problem)
        elif ticks_diff(now, self._give_up_at) >= 0:
            self._failed(now, "does not answer")

    def _set(self, seconds):
        from machine import RTC

        change = seconds - self.now()
        year, month, day, hour, minute, second, weekday = gmtime(seconds - EPOCH)[:7]
        RTC().datetime((year, month, day, weekday, hour, minute, second, 0))
        if not self._answers or self._problem:
            log.info("clock: it is %s, set by %d s", _text(seconds), change)
        self._floor = seconds
        self.is_set = True
        self._answers += 1
        self._wait = _FIRST_S
        self._problem = None

    def _failed(self, now, problem):
        self._close(now, self._wait)
        self._wait = min(2 * self._wait, self._interval)
        self._address = None  # another of its name may do better
        if problem != self._problem:
            self._problem = problem
            log.warning("clock: %s %s", self._server, problem)

    def _close(self, now, wait):
        """Ask again after *wait* s and, so that not all boards come at once, some of it more."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self._packet = None
        self._due = ticks_add(now, wait * 1000 + jitter(wait * 125))


def _problem(answer):
    """Why an *answer* to our question is not to be believed, or None."""
    if answer[0] & 7 != 4:
        return "is no server"
    stratum = answer[1]
    if stratum == 0:
        return "asks us to leave it alone: %s" % "".join([chr(c & 127) for c in answer[12:16]])
    if stratum > 15 or answer[0] >> 6 == 3:
        return "does not know the time itself"
    if not any(answer[40:]):
        return "does not say the time"
    return None


def _unix(answer):
    """Unix time of its transmit timestamp, rounded: from 1970 to 2106, as seconds began anew."""
    seconds = int.from_bytes(answer[40:44], "big") - _TO_UNIX + (answer[44] >> 7)
    return seconds if seconds >= 0 else seconds + (1 << 32)


def _text(seconds):
    return "%04d-%02d-%02d %02d:%02d:%02d UTC" % gmtime(seconds - EPOCH)[:6]
