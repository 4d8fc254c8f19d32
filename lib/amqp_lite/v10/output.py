"""What one AMQP 1.0 connection has to say: the send buffer, and frames that wait for room."""

from ..compat import const
from ..outbox import Outbox

REPLY_ROOM = const(512)  # octets the longest answer of ours takes: an attach with long names


class Output(Outbox):
    def __init__(self, broker, size):
        Outbox.__init__(self, broker, size)
        self.reset()

    def give_back(self):
        """Drop what waits; whole frames that are in the buffer stay."""
        self.later.clear()
        self._mark = None

    def put(self, frame):
        """Write a whole *frame*; one that finds no room waits for pump()."""
        if self.later or len(frame) > self.size - self.pending:
            self.later.append(frame)
        else:
            self._write(frame)

    def takes_reply(self):
        """Whether a performative may be acted on: its answer will go out at once."""
        return not self.later and self.size - self.pending >= REPLY_ROOM

    def pump(self):
        """Write what waited for room. True when nothing waits any more."""
        while self.later:
            if len(self.later[0]) > self.size - self.pending:
                return False
            self._write(self.later.pop(0))
        return True
