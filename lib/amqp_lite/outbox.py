"""The send buffer of one connection: what the output of both protocols is built on."""

from .compat import copy, zeros


class Outbox:
    """
    size    octets of the send buffer
    buffer  so many octets to use; None: of its own

    The reactor sends the first `pending` octets of `view` and says so by sent().
    """

    def __init__(self, broker, size, buffer=None):
        self.buffer = zeros(size) if buffer is None else buffer
        self.view = memoryview(self.buffer)
        self.size = size
        self._broker = broker
        self.later = []  # whole frames that found no room
        self.body = None  # message whose body is half sent

    def reset(self):
        self.pending = 0  # the first so many octets of the buffer are to be sent
        self.frame_max = 0
        self.spoke = 0  # ticks of the last octets sent
        self.starved = False  # a delivery was refused for want of room
        self.written = 0  # octets ever put into the buffer, modulo 2**30
        self.proven = 0  # of them, those the peer's answers prove it has read: see net/budget.py
        self._mark = None  # a delivery whose settlement will prove the first
        self._mark_written = 0  # octets

    def sent(self, n):
        """The first *n* pending octets are on the wire."""
        rest = self.pending - n
        if rest:
            copy(self.view, 0, self.view, n, rest)
        self.pending = rest
        self.spoke = self._broker.now

    def _write(self, frame):
        n = len(frame)
        copy(self.buffer, self.pending, frame, 0, n)
        self._wrote(self.pending + n)

    def _wrote(self, pending):
        if not self.pending:
            self.spoke = self._broker.now  # the peer's time to read begins
        self.written = self.written + pending - self.pending & 0x3FFFFFFF
        self.pending = pending

    def _release(self, message):
        self._broker.pool.release(message)
        self._broker.freed = True

    # --- what the peer has read ---

    def mark(self, entry):
        """The delivery of *entry* is in the buffer: its settlement will prove that it was read."""
        if self._mark is None:
            self._mark = entry
            self._mark_written = self.written

    def owes(self):
        """Whether deliveries are out whose settlement will prove something."""
        return self._mark is not None

    def prove(self, entry):
        """*entry* leaves the hands of the peer."""
        if entry is self._mark:
            self._mark = None
            self.proven = self._mark_written
