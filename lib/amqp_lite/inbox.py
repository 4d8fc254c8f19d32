"""What one connection receives: what the frame readers of both protocols are built on.

Frames are read in place once they are whole; of those that carry a payload, its octets go on as
they come. What is left of a read, an incomplete frame, waits in `_hold`.
"""

from .compat import copy, zeros


class Inbox:
    """
    size  octets of the longest frame that is read in place
    hold  memoryview of so many octets to keep an incomplete one in; None: one of its own

    Whoever is one has `broker`, and _parse(buf, i, end), which reads the frames in buf[i:end] and
    answers the index of the first octet not used up.
    """

    def __init__(self, size, hold=None):
        self._size = size
        self._hold = memoryview(zeros(size)) if hold is None else hold

    def reset(self, frame_max):
        self.frame_max = frame_max  # octets
        self.deaf = True  # nothing is read any more
        self.stalled = False  # a frame waits for memory or for room in the output
        self.progress = 0  # ticks when the last frame was whole, or this one began
        self.taker = None  # of the payload being read; None: it is for nobody
        self._held = 0
        self._left = 0  # octets to come of a frame whose head is read already

    def room(self):
        """How many octets may come now."""
        return 0 if self.stalled else self._size - self._held

    def amid_frame(self):
        return self._held or self._left

    def forget_taker(self, taker):
        """*taker* has ended: the rest of its frame is for nobody."""
        if self.taker is taker:
            self.taker = None

    def read(self, buf, n):
        """The first *n* octets of *buf* came, at most room()."""
        if self.deaf:
            return
        if self._held:
            copy(self._hold, self._held, buf, 0, n)
            self._held += n
            self.read_on()
            return
        if not self._left:
            self.progress = self.broker.now
        i = self._parse(buf, 0, n)
        self._held = n - i
        if i < n:
            copy(self._hold, 0, buf, i, n - i)

    def read_on(self):
        """Read what is held."""
        i = self._parse(self._hold, 0, self._held)
        self._held -= i
        if i and self._held:
            copy(self._hold, 0, self._hold, i, self._held)
