"""One AMQP 1.0 session (AMQP 1.0 §2.5): what it has of a connection, and its windows."""

from ..compat import const
from ..errors import NotImplementedHere
from .codec import Typed
from .conditions import InvalidField, WindowViolation
from .performatives import BEGIN, END, FLOW, described, error_value, uint

WINDOW = const(2048)  # transfers the peer may send before our next flow
HANDLE_MAX = const(15)
_SERIAL = const(0x3FFFFFFF)  # what a board's numbers hold of a serial one; they wrap at 2**32
_OURS = const(0x7FFFFFFF)  # our outgoing-window: credit limits us, not this

# Fields of begin and flow:
_REMOTE_CHANNEL = const(0)
_NEXT_OUTGOING = const(1)
_INCOMING_WINDOW = const(2)
_FLOW_NEXT_INCOMING = const(0)
_FLOW_INCOMING_WINDOW = const(1)
_FLOW_NEXT_OUTGOING = const(2)
_FLOW_HANDLE = const(4)
_FLOW_ECHO = const(9)


class Session:
    """
    connection  whose it is
    channel     its number, the same in both directions
    """

    def __init__(self, connection, channel):
        self.connection = connection
        self.channel = channel
        self.closing = False  # we sent an end: all but the peer's is ignored
        self._next_incoming = 0  # transfer-id: its lower 30 bits, and its upper 2
        self._next_incoming_top = 0
        self._incoming_window = WINDOW
        self._next_outgoing = 0  # likewise
        self._next_outgoing_top = 0
        self._outgoing_window = 0  # transfers we may send

    def begin(self, fields):
        """The peer's begin: answer it. Raises InvalidField when it answers one of ours."""
        if fields.has(_REMOTE_CHANNEL):
            raise InvalidField("a begin that answers none of ours")
        self._note_incoming(fields, _NEXT_OUTGOING)
        self._outgoing_window = fields.uint(_INCOMING_WINDOW, 0)
        self._send(
            described(
                BEGIN, Typed(0x60, self.channel), uint(0), uint(WINDOW), uint(_OURS),
                uint(HANDLE_MAX),
            )  # fmt: skip
        )

    def end(self, error=None):
        """Say that it has ended, because of *error* when there is one."""
        self.release()
        self._send(described(END, error and error_value(error)))

    def release(self):
        """Give back what it holds."""

    def _send(self, performative):
        self.connection.send(self.channel, performative)

    # --- windows, AMQP 1.0 §2.5.6 ---

    def _note_incoming(self, fields, k):
        self._next_incoming = fields.serial(k)
        self._next_incoming_top = fields.serial_top(k)

    def on_flow(self, fields):
        """The peer's flow. Raises NotImplementedHere for that of a link."""
        if fields.has(_FLOW_HANDLE):
            raise NotImplementedHere("links")
        self._note_incoming(fields, _FLOW_NEXT_OUTGOING)
        window = fields.uint(_FLOW_INCOMING_WINDOW, 0)
        # Before it saw our begin it counts from nothing.
        seen = fields.serial(_FLOW_NEXT_INCOMING) if fields.has(_FLOW_NEXT_INCOMING) else 0
        under_way = self._next_outgoing - seen & _SERIAL
        self._outgoing_window = max(0, window - under_way)
        if fields.boolean(_FLOW_ECHO):
            self.flow()

    def flow(self):
        """Tell our windows, the incoming one wide open again."""
        self._incoming_window = WINDOW
        self._send(
            described(
                FLOW, _serial(self._next_incoming, self._next_incoming_top), uint(WINDOW),
                _serial(self._next_outgoing, self._next_outgoing_top), uint(_OURS),
            )  # fmt: skip
        )

    def received(self):
        """A transfer came. Raises WindowViolation when the window was closed."""
        if not self._incoming_window:
            raise WindowViolation("more transfers than the window of %d" % WINDOW)
        self._incoming_window -= 1
        self._next_incoming = low = self._next_incoming + 1 & _SERIAL
        if not low:
            self._next_incoming_top = self._next_incoming_top + 1 & 3
        if self._incoming_window < WINDOW // 2:
            self.flow()

    def may_send(self):
        """Whether the peer's window takes one more transfer."""
        return self._outgoing_window > 0

    def sent(self):
        """One more transfer was written."""
        self._outgoing_window -= 1
        self._next_outgoing = low = self._next_outgoing + 1 & _SERIAL
        if not low:
            self._next_outgoing_top = self._next_outgoing_top + 1 & 3


def _serial(low, top):
    return Typed(0x70, top << 30 | low)
