"""Log lines: printed, and the recent ones kept in RAM.

A caller on a hot path asks `if log.level <= DEBUG:` first; format and arguments come apart, so
that a line nobody wants is never built. Never give it passwords or bodies.
"""

from .compat import const

DEBUG = const(10)
INFO = const(20)
WARNING = const(30)
ERROR = const(40)
NAMES = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}


def printable(octets):
    """Octets of a peer, made safe for a log line."""
    return "".join([chr(o) if 32 <= o < 127 else "?" for o in octets])


class Log:
    def __init__(self):
        self.sink = None  # called with each line: where it outlives the program, on a board
        self.configure("info", 16)

    def configure(self, name, lines):
        """Print lines of level *name* and above; keep the last *lines* of them in RAM."""
        self.level = NAMES[name]
        self._recent = [None] * lines
        self._next = 0

    def write(self, level, text, *arguments):
        """Log *text* % *arguments*, when lines of *level* are wanted."""
        if level < self.level:
            return
        line = text % arguments if arguments else text
        if self._recent:
            self._recent[self._next] = line
            self._next = (self._next + 1) % len(self._recent)
        if self.sink is not None:
            self.sink(line)
        print(line)

    def debug(self, text, *arguments):
        self.write(DEBUG, text, *arguments)

    def info(self, text, *arguments):
        self.write(INFO, text, *arguments)

    def warning(self, text, *arguments):
        self.write(WARNING, text, *arguments)

    def error(self, text, *arguments):
        self.write(ERROR, text, *arguments)

    def recent(self):
        """The kept lines, oldest first."""
        kept = self._recent[self._next :] + self._recent[: self._next]
        return [line for line in kept if line is not None]


log = Log()
