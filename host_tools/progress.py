"""How far something is that takes long: a bar on a terminal, else a line for each part.

Both have the same face:

    begin(name, octets)  the next part
    add(octets)          of it are done
    end()
"""

import os
import sys

_COLUMNS = 32  # of the bar
_NAME = 38


def open_progress(octets, parts, output=None):
    """For *octets* in so many *parts*; output: a text file, by default sys.stdout."""
    output = output or sys.stdout
    if output.isatty() and os.environ.get("TERM") != "dumb":
        return _Bar(octets, output)
    return _Lines(parts, output)


class _Lines:
    def __init__(self, parts, output):
        self._parts = parts
        self._output = output
        self._begun = 0

    def begin(self, name, octets):
        self._begun += 1
        count = f"{self._begun}/{self._parts} " if self._parts > 1 else ""
        print(f"{count}{name} ({octets:,} octets)", file=self._output, flush=True)

    def add(self, octets):
        pass

    def end(self):
        pass


class _Bar:
    """One line that fills."""

    def __init__(self, octets, output):
        self._octets = max(1, octets)
        self._output = output
        self._done = 0
        self._name = ""

    def begin(self, name, octets):
        self._name = name
        self.add(0)

    def add(self, octets):
        self._done += octets
        filled = self._done * _COLUMNS // self._octets
        bar = "#" * filled + "." * (_COLUMNS - filled)
        percent = self._done * 100 // self._octets
        self._output.write(f"\r[{bar}] {percent:3} % {self._name[-_NAME:]}\x1b[K")
        self._output.flush()

    def end(self):
        self._output.write("\r\x1b[K")
        self._output.flush()
