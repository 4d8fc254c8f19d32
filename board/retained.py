"""The last log lines, and how often the program started in vain, kept through resets.

A power cut empties the memory. The lines lie in a ring of octets, each with a line feed behind it:

    0     MAGIC
    1     starts since the last good one, at most 255
    2, 3  index of the next octet to write, big-endian
    4..   the ring; zero where nothing was written yet

Which memory that is, board/<name>/board.py knows.
"""

MAGIC = 0xA7
SIZE = 1024  # octets of the memory
_HEAD = 4
_LONGEST = 200  # octets of a line; more are cut off


class Retained:
    """
    buf     a bytearray of SIZE octets, as they were found
    keep    called with *starts* when they or *buf* have changed
    starts  when they are kept elsewhere, which is safer
    """

    def __init__(self, buf, keep, starts=None):
        if buf[0] != MAGIC:
            buf[:] = bytes(SIZE)
            buf[0] = MAGIC
        self._buf = buf
        self._keep = keep
        self._next = buf[2] << 8 | buf[3]
        if not _HEAD <= self._next < SIZE:
            self._next = _HEAD
        self._own = 0  # octets that this run wrote
        self.starts = buf[1] if starts is None else starts

    def write(self, line):
        """Keep *line*, in the place of the oldest ones."""
        octets = line.replace("\n", " ").encode()[:_LONGEST] + b"\n"
        buf = self._buf
        n = len(octets)
        i = self._next
        first = min(n, SIZE - i)
        buf[i : i + first] = octets[:first]
        i += first
        if i == SIZE:
            i = _HEAD + n - first
            buf[_HEAD:i] = octets[first:]
        self._next = i
        self._own = min(self._own + n, SIZE - _HEAD)
        self._save()

    def begin(self):
        """Count a start."""
        self.starts = min(self.starts + 1, 255)
        self.write("-- start %d" % self.starts)

    def good(self):
        """This start was a good one."""
        self.starts = 0
        self._save()

    def previous(self):
        """The lines of the runs before this one, oldest first, as far as they are still there."""
        buf = self._buf
        i = self._next
        text = bytes(buf[i:]) + bytes(buf[_HEAD:i])
        text = text[: len(text) - self._own]
        lines = text.split(b"\n")
        # The oldest line may have lost its beginning; the last one ends with a line feed.
        lines = lines[1:-1] if text[:1] != b"\0" else lines[:-1]
        return [_text(line) for line in lines]

    def _save(self):
        buf = self._buf
        buf[1] = self.starts
        buf[2] = self._next >> 8
        buf[3] = self._next & 255
        self._keep(self.starts)


def _text(octets):
    octets = octets.lstrip(b"\0")
    try:
        return str(octets, "utf-8")
    except UnicodeError:  # cut in the middle of a letter, or memory that has faded
        return "".join([chr(octet) if 32 <= octet < 127 else "?" for octet in octets])
