"""Finding frames in the octets of one AMQP 1.0 connection.

A frame (AMQP 1.0 §2.3.1), numbers big-endian; doff counts words of four octets:

    | size 4 | doff 1 | type 1 | channel 2 | extended header | performative | payload |

A performative is read in place once it is whole, so it must fit in the receive buffer with its
frame's head. Only a transfer has a payload: when it fills the buffer, it goes on as it comes,
however long it is.
"""

from ..compat import const, u16, u32
from ..engine import Engine
from ..errors import AMQPError, ResourceLimitExceeded
from .conditions import FramingError
from .performatives import TRANSFER, performative_end

AMQP = const(0)  # frame types
SASL = const(1)
FRAME_MIN = const(512)  # octets every peer takes, also before the open


class FrameReader(Engine):
    """Whoever reads frames is one, and has these methods; n octets of *buf* from *i* are meant:

    on_frame(channel, buf, i, end, more)  a performative at *i*, and behind it the payload that is
                          here, up to *end*; *more* octets of it are still to come. Whoever takes
                          those is put into `taker`, else they are passed over. False: the frame
                          has to wait, nothing happened
    on_empty(channel)     a frame without a body
    on_header(octets)     eight octets that came while `awaits_header` was set
    on_garbage(error)     what came is no frame, or on_frame() raised an AMQPError: the connection
                          ends
    """

    # A taker has on_payload(buf, i, n) and, when the frame is whole, on_payload_end().

    def reset(self):
        Engine.reset(self, FRAME_MIN)
        self.kind = SASL  # the type of frames that may come now
        self.awaits_header = False  # a protocol header is due, which is no frame

    def _parse(self, buf, i, end):
        """Read the frames in buf[i:end]: the index of the first octet not used up."""
        while i < end and not self.deaf:
            if self._left:
                n = min(self._left, end - i)
                if self.taker is not None:
                    self.taker.on_payload(buf, i, n)
                self._left -= n
                i += n
                if self._left:
                    return i
                self._end_payload()
                continue
            if end - i < 8:
                return i
            if self.awaits_header:
                self.on_header(bytes(buf[i : i + 8]))
                i += 8
                continue
            try:
                size = u32(buf, i)
                start = i + self._check_head(buf, i, size)
                stop = i + size
                if stop > end:
                    if self._wait_for_more(buf, i, start, end):
                        return i
                    stop = end
                if start == i + size:
                    self.on_empty(u16(buf, i + 6))
                    taken = True
                else:
                    taken = self.on_frame(u16(buf, i + 6), buf, start, stop, i + size - stop)
            except AMQPError as error:
                self.on_garbage(error)
                break
            except MemoryError:
                self.on_garbage(ResourceLimitExceeded("out of memory"))
                break
            if not taken:
                self.stalled = True
                return i
            self._left = i + size - stop
            i = stop
            if not self._left:
                self._end_payload()
        return end if self.deaf else i

    def _end_payload(self):
        self.progress = self.broker.now
        taker = self.taker
        if taker is not None:
            self.taker = None
            taker.on_payload_end()

    def _check_head(self, buf, i, size):
        """The octets of the frame's head, extended header included. Raises FramingError."""
        head = 4 * buf[i + 4]
        if size < 8 or head < 8 or head > size:
            raise FramingError("frame of %d octets with a head of %d" % (size, head))
        if size > self.frame_max:
            raise FramingError("frame of %d octets, the most is %d" % (size, self.frame_max))
        if buf[i + 5] != self.kind:
            raise FramingError("frame of type %d, %d was due" % (buf[i + 5], self.kind))
        return head

    def _wait_for_more(self, buf, i, start, end):
        """Whether more of the frame at *i*, which goes on behind *end*, has to come before it is
        given away: it is when it fills the receive buffer, for then nothing more has room.

        Raises ResourceLimitExceeded when its performative does not end in there.
        """
        if end - i < self._size:
            return True
        if not 0 < performative_end(buf, start, end, TRANSFER) <= end:
            raise ResourceLimitExceeded(
                "a performative and its frame's head do not fit in %d octets" % self._size
            )
        return False
