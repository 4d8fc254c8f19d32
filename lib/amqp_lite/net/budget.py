"""How much output may be under way over all connections together.

lwIP on a board keeps sent octets in one small memory until the peers' TCP acknowledges them. When
it is full, a write on *any* connection blocks for up to 10 s, then claims success and the octets
are lost. Nobody can ask lwIP how much is left, so we count ourselves: octets are spent when
written, and given back when the peer shows that it reads:

    it settles a delivery         all up to that delivery was read
    it sends anything later       its TCP acknowledged what we wrote a moment before
    it is silent, the stack took  an acknowledgement takes a round trip, not a tenth of a second
    all, and time passes

The last is no proof: its power may be gone. Who owes us settlements will prove it when it lives,
so for the others' sake nothing is given back to it for mere time; only it itself may write on. Of
a consumer that never answers nothing better can be known.

While only one connection has output there is nobody to protect: it may fill the stack, which then
takes less than it is given, and flow control is TCP's. When another one has to wait for such a
full connection, that one is cut unless it soon reads on. The stack keeps its octets for a while
even so.
"""

from ..compat import const, ticks_add, ticks_diff

_ROUND_TRIP_MS = const(50)
_SILENCE_MS = const(100)
_STALL_MS = const(2000)
_LINGER_MS = const(10500)  # from a close to the stack's giving up on the octets it could not send
_CRUMB = const(96)  # octets that fit in the stack beside a full connection
SLOW_WRITE_MS = const(1000)  # a write that blocked so long may have lost octets: not to be trusted


class Account:
    """What one connection has under way."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.unproven = 0  # octets written and not shown to be read
        self.recent = 0  # of them, those that time does not excuse either
        self.wrote_at = 0  # ticks
        self.heard_at = 0  # ticks
        self.owes = False  # deliveries are out whose settlement will be a proof
        self.full = False  # the stack took less than it was given
        self.waits = False  # has more to write than it was allowed
        self.waits_since = 0  # ticks
        self._proven = 0  # the output's count when we last looked

    def prove(self, output):
        """Give back what *output* knows to be read."""
        self.owes = output.owes()
        if output.proven != self._proven:
            self._proven = output.proven
            on_wire = (output.written - output.pending - output.proven) & 0x3FFFFFFF
            if on_wire < self.unproven:
                self.unproven = on_wire
                if on_wire < self.recent:
                    self.recent = on_wire

    def heard(self, now):
        """Octets came from the peer."""
        self.heard_at = now
        if not self.full:
            if ticks_diff(now, self.wrote_at) >= _ROUND_TRIP_MS:
                self.recent = 0
            self.unproven = self.recent


class OutputBudget:
    """
    total       octets under way over all connections
    stack_send  octets the stack keeps for one connection at most
    """

    def __init__(self, total, stack_send):
        self._total = total
        self._stack_send = stack_send
        # What one connection can never take from the others.
        self._most = total - total // 6
        self._gone = False  # a full connection was closed, and
        self._gone_until = 0  # ticks, its octets are still there

    def allowance(self, account, accounts, wanted, now):
        """How many of the *wanted* octets the owner of *account* may write now."""
        used = 0  # by others
        recent = account.recent  # of all that live for certain
        alone = True
        if self._gone:
            if ticks_diff(now, self._gone_until) < 0:
                used = self._stack_send
                alone = False
            else:
                self._gone = False
        for other in accounts:
            if other.recent and not other.full:
                if ticks_diff(now, other.wrote_at) >= _SILENCE_MS:
                    other.recent = 0
                    if not other.owes:
                        other.unproven = 0
            if other is not account:
                used += other.unproven
                if not other.full:
                    recent += other.recent
                if other.unproven or other.waits:
                    alone = False
        if not alone:
            allowed = max(0, min(self._total - used, self._most) - account.recent)
            if not recent and allowed < _CRUMB:
                allowed = _CRUMB  # so that nobody stands still for those who may be dead
            if allowed < wanted:
                if not account.waits:
                    account.waits = True
                    account.waits_since = now
                return allowed
        account.waits = False
        return wanted

    def is_stalled(self, account, accounts, now):
        """Whether *account* keeps the stack full while another one has waited long for room."""
        if account.full:
            for other in accounts:
                if other.waits and ticks_diff(now, other.waits_since) > _STALL_MS:
                    if other is not account:
                        return True
        return False

    def wrote(self, account, asked, taken, now):
        """The stack took *taken* of *asked* octets."""
        account.wrote_at = now
        account.full = taken < asked
        # Full: the stack holds all it ever holds for one connection.
        account.unproven = min(account.unproven + taken, self._stack_send)
        account.recent = min(account.recent + taken, self._stack_send)
        if account.full:
            account.unproven = account.recent = self._stack_send

    def closed(self, account, now):
        """The connection is closed."""
        if account.full:
            self._gone = True
            self._gone_until = ticks_add(now, _LINGER_MS)
