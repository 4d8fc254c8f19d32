"""What one AMQP 1.0 connection has to say: the send buffer and what waits for room in it.

Whole frames wait in `later`. A message that does not fit, or is longer than the peer's frames,
goes on in transfers of whatever size there is room for; frames that come up meanwhile wait for it.
"""

import struct

from ..compat import const, copy
from ..errors import StoreDamaged
from ..outbox import Outbox

REPLY_ROOM = const(512)  # octets the longest answer of ours takes: an attach with long names
_DISPOSITION = const(26)  # octets of one's frame besides the state
_GRANT = const(49)
_OURS = const(0x3FFFFFFF)  # our outgoing-window: credit limits us, not this
_HEAD = const(33)  # octets of a delivery's first transfer besides its payload
_TAG_AT = const(26)  # where the octets of its delivery-tag are
_LIST = const(12)  # where the size of its fields is in it
_MORE_HEAD = const(24)  # of the others
_WORTH = const(64)  # octets of payload a transfer carries at least, but for the last


class Output(Outbox):
    def __init__(self, broker, size, buffer=None):
        Outbox.__init__(self, broker, size, buffer)
        self.reset()

    def reset(self):
        Outbox.reset(self)
        self._link = None  # whose message `body` is
        self._left = 0  # octets of it to send, which are
        self._lead = None  # those of this from
        self._lead_at = 0
        self._in_pool = 0  # and so many from
        self._block = 0
        self._position = 0
        self.part_order = 0  # and the rest of a body in the store, see Bodies.read()
        self.part_slot = 0
        self.part_at = 0

    def give_back(self):
        """Drop what waits; whole frames that are in the buffer stay."""
        self.drop_body(self._link)
        self.later.clear()
        self._mark = None

    def put(self, frame):
        """Write a whole *frame*; one that finds no room waits for pump()."""
        if self.later or self._sending() or len(frame) > self.size - self.pending:
            self.later.append(frame)
        else:
            self._write(frame)

    def takes_reply(self):
        """Whether a performative may be acted on: its answer will go out at once."""
        return not self.later and not self._sending() and self.size - self.pending >= REPLY_ROOM

    def _sending(self):
        """Whether a message under way takes the room there is. One that waits for the peer's
        window does not: what opens that has to be read, and answered."""
        return self.body is not None and self._link.session.may_send()

    def pump(self):
        """Write what waited for room. True when deliveries may go on."""
        if self.body is not None:
            if self.body.chain is not None and self.body.chain.lost:
                raise StoreDamaged("a stored body cannot be read")
            self._send_more()
        while self.later and not self._sending():
            if len(self.later[0]) > self.size - self.pending:
                return False
            self._write(self.later.pop(0))
        return self.body is None and not self.later

    # --- what the steady path says, without allocating; False: there is no room now ---

    def disposition(self, channel, low, top, last, last_top, state):
        """Settle, as their receiver, the deliveries from the first to the last with *state*."""
        at = self.pending
        n = _DISPOSITION + len(state)
        if self.later or self._sending() or n > self.size - at:
            return False
        struct.pack_into(
            ">IBBHBBBBBBBBIBIB", self.buffer, at, n, 2, 0, channel,
            0, 0x53, 0x15, 0xC0, n - 13, 5, 0x41, 0x70, top << 30 | low, 0x70,
            last_top << 30 | last, 0x41,
        )  # fmt: skip
        copy(self.buffer, at + _DISPOSITION, state, 0, len(state))
        self._wrote(at + n)
        return True

    def grant(self, session, handle, count, count_top, credit):
        """The flow of a receiver that gives *credit*."""
        at = self.pending
        if self.later or self._sending() or _GRANT > self.size - at:
            return False
        struct.pack_into(
            ">IBBHBBBBBBBIBIBIBIBIBIBI", self.buffer, at, _GRANT, 2, 0, session.channel,
            0, 0x53, 0x13, 0xC0, 36, 7, 0x70, session.next_incoming_top << 30
            | session.next_incoming, 0x70, session.open_window(), 0x70,
            session.next_outgoing_top << 30 | session.next_outgoing, 0x70, _OURS, 0x70, handle,
            0x70, count_top << 30 | count, 0x70, credit,
        )  # fmt: skip
        self._wrote(at + _GRANT)
        return True

    # --- messages ---

    def fits(self, size):
        """Whether a message of *size* octets may be begun now."""
        if self.body is None and not self.later:
            # Some room stays for replies. A message longer than the whole buffer is begun when the
            # buffer is empty, and goes on as it drains.
            if self.pending == 0 or size + _HEAD + REPLY_ROOM <= self.size - self.pending:
                return True
        self.starved = True
        return False

    def send(self, link, message, low, top, settled, lead, skip):
        """Begin the transfer of *message* on *link*.

        low, top     its delivery-id
        lead         octets to send before all else, or None
        skip         octets of its sections that are not sent
        """
        at = self.pending
        self._position = message.head + skip
        self._block = self._broker.pool.block_before(message, self._position)
        self._in_pool = message.size - self._position
        self._left = left = message.properties - skip + message.body + (len(lead) if lead else 0)
        self._lead = lead
        self._lead_at = 0
        self.part_order = 0
        tag = len(link.tag)
        state = link.state
        head = _HEAD + tag + len(state)
        size = min(left, min(self.size - at, self.frame_max) - head)
        serial = top << 30 | low
        # handle, delivery-id, delivery-tag, message-format, settled, more
        struct.pack_into(
            ">IBBHBBBBBBBIBIBBIBBB", self.buffer, at + tag, head + size, 2, 0,
            link.session.channel, 0, 0x53, 0x14, 0xC0, 20 + tag, 6, 0x70, link.handle, 0x70,
            serial, 0xA0, 4 + tag, serial, 0x43,
            0x41 if settled else 0x42, 0x42 if size == left else 0x41,
        )  # fmt: skip
        if tag:
            copy(self.buffer, at, self.view, at + tag, _TAG_AT)
            copy(self.buffer, at + _TAG_AT, link.tag, 0, tag)
        if state:
            self.buffer[at + _LIST] += len(state)
            self.buffer[at + _LIST + 1] = 8  # fields
            copy(self.buffer, at + _HEAD + tag, state, 0, len(state))
        self._put(message, size, at + head)
        link.session.sent()
        if size < left:
            message.references += 1
            self.body = message
            self._link = link
            self._send_more()

    def _put(self, message, n, at):
        """Write the next *n* octets of *message* at *at*, the end of a frame."""
        self._left -= n
        end = at + n
        lead = self._lead
        if lead is not None:
            step = min(n, len(lead) - self._lead_at)
            copy(self.buffer, at, lead, self._lead_at, step)
            self._lead_at += step
            at += step
            n -= step
            if self._lead_at == len(lead):
                self._lead = None
        step = min(n, self._in_pool)
        if step:
            self._block = self._broker.pool.read(
                self._block, self._position, step, self.buffer, at
            )
            self._position += step
            self._in_pool -= step
            at += step
            n -= step
        if n:
            chain = message.chain
            if not self._broker.store.bodies.read(self, chain, n, self.buffer, at):
                chain.lost = True  # said by pump(): a delivery may be anybody's doing
        self._wrote(end)

    def _send_more(self):
        """Write as much of the message under way as there is room for."""
        link = self._link
        while self._left:
            at = self.pending
            n = min(self._left, self.frame_max - _MORE_HEAD, self.size - at - _MORE_HEAD)
            if n < min(self._left, _WORTH) or not link.session.may_send():
                return
            # The same fields, but for the handle and `more` null.
            struct.pack_into(
                ">IBBHBBBBBBBIBBBBB", self.buffer, at, _MORE_HEAD + n, 2, 0,
                link.session.channel, 0, 0x53, 0x14, 0xC0, 11, 6, 0x70, link.handle, 0x40, 0x40,
                0x40, 0x40, 0x42 if n == self._left else 0x41,
            )  # fmt: skip
            self._put(self.body, n, at + _MORE_HEAD)
            link.session.sent()
        self._end_body()

    def _end_body(self):
        message = self.body
        self.body = None
        self._link = None
        self.starved = True
        self._release(message)

    def drop_body(self, link):
        """*link* has ended: nobody wants the rest of its message under way."""
        if self.body is not None and self._link is link:
            self._end_body()
