"""What one AMQP 0-9-1 connection has to say: the send buffer and what waits for room in it.

The buffer takes replies at once while they fit. What does not fit waits, in the order pump()
serves: method frames, the body of the delivery under way, basic.return, confirms. A message longer
than the buffer is sent in body frames of whatever size there is room for, so nothing ever has to
fit whole.
"""

import struct

from ..broker.message import AMQP10
from ..compat import const, copy, load
from ..errors import StoreDamaged
from ..log import log
from ..outbox import Outbox
from .methods import method_frame

# Frame types, class and method ids: see methods.py.
_METHOD = const(1)
_HEADER = const(2)
_BODY = const(3)
_FRAME_END = const(0xCE)
_BASIC = const(60)
_BASIC_RETURN = const(0x003C0032)
_BASIC_ACK = const(0x003C0050)
_BASIC_NACK = const(0x003C0078)

REPLY_ROOM = const(320)  # octets the longest reply of ours takes: a declare-ok with a long name

_WORTH = const(64)  # octets of body a frame carries at least, but for the last
_RETURNS = const(4)  # messages that wait to be returned
_HEADER_FRAME = const(22)  # octets of a header frame besides its properties, and a frame end
_CONFIRM = const(21)  # octets of a basic.ack frame


class Output(Outbox):
    def __init__(self, broker, size, buffer=None):
        Outbox.__init__(self, broker, size, buffer)
        self.returns = []  # (channel number, message) for basic.return
        self.reset()

    def reset(self):
        Outbox.reset(self)
        self._body_number = 0
        self._body_block = 0
        self._body_position = 0
        self._body_left = 0
        self.part_order = 0  # of a body in the store, see Bodies.read()
        self.part_slot = 0
        self.part_at = 0

    def give_back(self):
        """Drop what waits; whole frames that are in the buffer stay."""
        if self.body is not None:
            self._release(self.body)
            self.body = None
        for _, message in self.returns:
            self._release(message)
        self.returns.clear()
        self.later.clear()
        self._mark = None

    def pump(self):
        """Write what waited for room. True when deliveries may go on."""
        if self.body is not None and self.body.chain is not None and self.body.chain.lost:
            raise StoreDamaged("a stored body cannot be read")
        while self.later and self.body is None:
            if len(self.later[0]) > self.size - self.pending:
                return False
            self._write(self.later.pop(0))
        if self.body is not None:
            self._send_body()
        while self.returns and self.body is None:
            number, message = self.returns[0]
            if not self._has_room(message.size + 60):
                return False
            self.returns.pop(0)
            self._send_return(number, message)
        return self.body is None and not self.later

    # --- method frames ---

    def is_behind(self):
        """Whether so much waits for a peer to read that it may cause no more."""
        return self.later or len(self.returns) >= _RETURNS

    def takes_reply(self, number):
        """Whether a method of channel *number* may be acted on: its reply will go out at once."""
        if self.later or self.size - self.pending < REPLY_ROOM:
            return False
        for returning, _ in self.returns:
            if returning == number:
                return False
        return self.body is None or self._body_number != number

    def reply(self, number, method, arguments):
        """Write a method frame; one that finds no room waits for pump()."""
        self.put(number, method_frame(number, method, arguments))

    def put(self, number, frame):
        """Write a whole *frame* of channel *number*, as reply() does."""
        amid = self.body is not None and (number == self._body_number or number == 0)
        if self.later or amid or len(frame) > self.size - self.pending:
            self.later.append(frame)
        else:
            self._write(frame)

    def confirm(self, number, sequence, safe):
        """basic.ack, or nack if not *safe*, of all publishes up to *sequence*. False: not now."""
        at = self.pending
        if self.returns or self.later or self.size - at < _CONFIRM:
            return False
        if self.body is not None and self._body_number == number:
            return False
        struct.pack_into(
            ">BHIIQBB", self.buffer, at, _METHOD, number, 13,
            _BASIC_ACK if safe else _BASIC_NACK, sequence, 1, _FRAME_END,
        )  # fmt: skip
        self._wrote(at + _CONFIRM)
        return True

    # --- content ---

    def fits(self, size):
        """Whether a message of *size* octets, frames included, may be begun now."""
        if self.body is None and not self.later and self._has_room(size):
            return True
        self.starved = True
        return False

    def _has_room(self, size):
        # Some room stays for replies. A message longer than the whole buffer is begun when the
        # buffer is empty, and goes on as it drains.
        return self.pending == 0 or size + REPLY_ROOM <= self.size - self.pending

    def send_content(self, number, message, at, block):
        """Write header and body of *message* behind a method frame without its end octet.

        at     index in the buffer behind the method's arguments
        block  the pool's block that holds the last octet of the message's head
        """
        pool = self._broker.pool
        buffer = self.buffer
        properties = message.properties
        start = 0
        body = message.body
        other = None
        if message.flags & AMQP10:
            other = self._convert(message, self.size - at)
            properties = len(other.head)
            start = other.start
            body = other.size
        struct.pack_into(
            ">BBHIHHQ", buffer, at, _FRAME_END, _HEADER, number, 12 + properties, _BASIC, 0,
            body,
        )  # fmt: skip
        at += 20
        if other is None:
            block = pool.read(block, message.head, properties, buffer, at)
        else:
            copy(buffer, at, other.head, 0, properties)
            block = pool.block_before(message, message.head + message.properties + start)
        at += properties
        buffer[at] = _FRAME_END
        self.send_body(number, message, at + 1, block, start, body)

    def _convert(self, message, room):
        """*message* of AMQP 1.0 as 0-9-1 has it, with a header frame of at most *room* octets."""
        convert = load("amqp_lite.convert")
        other = convert.as_v091(self._broker, message)
        if len(other.head) + _HEADER_FRAME > min(room, self.frame_max):
            # It is delivered all the same, or it would stop its queue for ever.
            log.warning("properties of %d octets are left out for a client", len(other.head))
            other.head = convert.write_properties({})
        return other

    def send_body(self, number, message, at, block, start, body):
        """Write *body* octets of the body of *message* behind a whole header frame.

        at     index in the buffer behind that
        block  the pool's block that holds the octet before these
        start  of the first of them, in the body
        """
        pool = self._broker.pool
        buffer = self.buffer
        if body:
            position = message.head + message.properties + start
            whole = body + 8 <= self.frame_max and body + 8 <= self.size - at
            if whole and message.chain is None:
                struct.pack_into(">BHI", buffer, at, _BODY, number, body)
                pool.read(block, position, body, buffer, at + 7)
                at += 7 + body
                buffer[at] = _FRAME_END
                at += 1
            else:
                message.references += 1
                self.body = message
                self._body_number = number
                self._body_block = block
                self._body_position = position
                self._body_left = body
                self.part_order = 0
                if start and message.chain is not None:
                    # Pass by the head of a data section.
                    scratch = self._broker.scratch
                    if not self._broker.store.bodies.read(self, message.chain, start, scratch, 0):
                        message.chain.lost = True
        self._wrote(at)
        if self.body is not None:
            self._send_body()

    def _send_body(self):
        """Write as much of the body under way as there is room for."""
        pool = self._broker.pool
        buffer = self.buffer
        while self._body_left:
            at = self.pending
            n = min(self._body_left, self.frame_max - 8, self.size - at - 8)
            if n < min(self._body_left, _WORTH):
                return
            struct.pack_into(">BHI", buffer, at, _BODY, self._body_number, n)
            chain = self.body.chain
            if chain is None:
                self._body_block = pool.read(
                    self._body_block, self._body_position, n, buffer, at + 7
                )
            elif not self._broker.store.bodies.read(self, chain, n, buffer, at + 7):
                chain.lost = True  # said by pump(): a delivery may be anybody's doing
                return
            buffer[at + 7 + n] = _FRAME_END
            self._body_position += n
            self._body_left -= n
            self._wrote(at + n + 8)
        message = self.body
        self.body = None
        self.starved = True
        self._release(message)

    def drop_body(self, number):
        """Channel *number* has ended: the rest of a body under way there is for nobody."""
        if self.body is not None and self._body_number == number:
            self._release(self.body)
            self.body = None
            self.starved = True

    def add_return(self, number, message):
        """Send *message* back as unroutable; takes over the caller's reference."""
        self.returns.append((number, message))

    def _send_return(self, number, message):
        buffer = self.buffer
        at = self.pending
        struct.pack_into(
            ">BHIIH", buffer, at, _METHOD, number, 15 + message.head, _BASIC_RETURN, 312
        )
        copy(buffer, at + 13, b"\x08NO_ROUTE", 0, 9)
        block = self._broker.pool.read(message.first, 0, message.head, buffer, at + 22)
        self.send_content(number, message, at + 22 + message.head, block)
        self._broker.metrics.returned += 1
        self._release(message)
