"""Finding frames in the octets of one connection.

A frame (AMQP 0-9-1 §4.2.3), numbers big-endian:

    | type 1 | channel 2 | size 4 | payload | 0xCE |

Method and header frames are read in place once they are whole, so they must fit in the receive
buffer. Body frames are not kept: their octets go on as they come, whatever their size.
"""

from ..compat import const, u16, u32
from ..engine import Engine
from ..errors import AMQPError, FrameError, ResourceLimitExceeded, UnexpectedFrame

_METHOD = const(1)
_HEADER = const(2)
_BODY = const(3)
_HEARTBEAT = const(8)
_FRAME_END = const(0xCE)


class FrameReader(Engine):
    """Whoever reads frames is one, and has these methods; n octets of *buf* from *i* are meant:

    on_method(number, buf, i, end), on_header(...)  the whole frame of a channel. False: it has to
                                    wait, nothing happened. May raise any AMQPError
    on_body(number, size)           who takes the payload, by on_body(buf, i, n) and, when the
                                    frame is whole, on_body_frame(); None: nobody. May raise
    on_error(error, number, method) one of them raised it, for a frame of channel *number*
    on_garbage(error)               what came is no frame
    """

    def _parse(self, buf, i, end):
        """Read the frames in buf[i:end]: the index of the first octet not used up."""
        while i < end and not self.deaf:
            left = self._left
            if left:
                n = min(left - 1, end - i)
                if n:
                    if self.taker is not None:
                        self.taker.on_body(buf, i, n)
                    self._left = left = left - n
                    i += n
                if left > 1 or i == end:
                    return i
                if buf[i] != _FRAME_END:
                    self.on_garbage(FrameError("a frame does not end with 0xCE"))
                    break
                i += 1
                self._left = 0
                self.progress = self.broker.now
                taker = self.taker
                if taker is not None:
                    self.taker = None
                    taker.on_body_frame()
                continue
            if end - i < 7:
                return i
            kind = buf[i]
            number = u16(buf, i + 1)
            size = u32(buf, i + 3)
            whole = size + 8 <= end - i
            try:
                if kind == _BODY and size + 8 <= self.frame_max:
                    self.taker = self.on_body(number, size)
                    self._left = size + 1
                    i += 7
                    continue
                if not whole or size + 8 > self.frame_max:
                    if not self._check_frame(kind, number, size):
                        return i
                    self._left = size + 1
                    i += 7
                    continue
                stop = i + 7 + size
                if buf[stop] != _FRAME_END:
                    raise FrameError("a frame does not end with 0xCE")
                if kind == _METHOD:
                    taken = self.on_method(number, buf, i + 7, stop)
                elif kind == _HEADER:
                    taken = self.on_header(number, buf, i + 7, stop)
                else:
                    self._check_frame(kind, number, size)
                    taken = True
            except FrameError as error:
                self.on_garbage(error)
                break
            except AMQPError as error:
                method = 0
                if kind == _METHOD and whole and size >= 4:
                    method = u16(buf, i + 7) << 16 | u16(buf, i + 9)
                self.on_error(error, number, method)
                if kind == _BODY or not whole:
                    # The error was in the frame's head: its payload cannot be passed over.
                    self.deaf = True
                    break
                taken = True
            except MemoryError:
                self.on_error(ResourceLimitExceeded("out of memory"), 0, 0)
                break
            if not taken:
                self.stalled = True
                return i
            self.progress = self.broker.now
            i = stop + 1
        return end if self.deaf else i

    def _check_frame(self, kind, number, size):
        """Refuse a frame by its first 7 octets, before any of its payload is waited for.

        True: pass over it.
        """
        if kind == _HEARTBEAT:
            if size:
                raise FrameError("a heartbeat with a payload")
            if number:
                raise UnexpectedFrame("a heartbeat on channel %d" % number)
        elif not _METHOD <= kind <= _BODY:
            raise FrameError("unknown frame type %d" % kind)
        elif size + 8 > self.frame_max:
            raise FrameError("frame of %d octets, frame-max is %d" % (size + 8, self.frame_max))
        elif size + 8 > self._size:
            raise ResourceLimitExceeded(
                "method or header frame of %d octets, this broker reads %d"
                % (size + 8, self._size)
            )
