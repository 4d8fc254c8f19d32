"""A 0-9-1 client of our own, octet by octet: what no library lets a test do.

    client = Client(board)                logged in, with channel 1
    client.send(wire.consume(1, "q"))
    client.frames(0.1)                    [(channel, name, payload)] that have come
"""

import collections
import socket
import struct
import time

import wire

_SECONDS = 20


class Client:
    """
    board       where to connect, and as whom
    octets      of the socket's receive buffer; None: what the system takes
    heartbeat   seconds
    """

    def __init__(self, board, octets=None, heartbeat=0):
        self.stream = b""  # all it has read after the login
        self._unread = b""
        self.socket = socket.socket()
        if octets is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, octets)
        self.socket.settimeout(_SECONDS)
        self.socket.connect((board.host, board.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(wire.HEADER)
        self.expect("connection.start")
        self.send(wire.start_ok(f"\0{board.user}\0{board.password}"))
        tune = self.expect("connection.tune")
        self.frame_max = struct.unpack(">HIH", tune)[1]
        self.send(wire.tune_ok(0, self.frame_max, heartbeat) + wire.open_connection())
        self.expect("connection.open-ok")
        self.call(wire.open_channel(1), "channel.open-ok")
        self.stream = b""

    def send(self, *octets):
        self.socket.sendall(b"".join(octets))

    def call(self, octets, answer):
        """Send *octets*: the payload of the *answer*."""
        self.send(octets)
        return self.expect(answer)

    def expect(self, name):
        """The payload of the next frame but for heartbeats, which has to have this name."""
        deadline = time.monotonic() + _SECONDS
        while True:
            frames, self._unread = wire.split(self._unread)
            for i, (_, found, payload) in enumerate(frames):
                if found != "heartbeat":
                    assert found == name, (found, payload)
                    assert len(frames) == i + 1, "more than the answer came"
                    return payload
            assert time.monotonic() < deadline, f"no {name}"
            self._receive(_SECONDS)

    def frames(self, seconds=0):
        """The frames that have come, waiting *seconds* for the first octet at most."""
        self._receive(seconds)
        frames, self._unread = wire.split(self._unread)
        return frames

    def _receive(self, seconds):
        self.socket.settimeout(seconds or 0.0001)
        try:
            octets = self.socket.recv(65536)
        except (socket.timeout, BlockingIOError):
            return
        finally:
            self.socket.settimeout(_SECONDS)
        if not octets:
            raise ConnectionResetError("the board hung up")
        self.stream += octets
        self._unread += octets

    def close(self):
        """Without a word."""
        self.socket.close()


class Publisher(Client):
    """Publishes with confirms, several messages under way; it knows which are confirmed."""

    def __init__(self, board, window, **options):
        Client.__init__(self, board, **options)
        self.call(wire.select_confirms(1), "confirm.select-ok")
        self.window = window
        self.waiting = collections.OrderedDict()  # by delivery tag: what was published
        self.confirmed = []
        self.refused = []
        self.blocked = 0  # how often it was told to wait
        self._tag = 0

    def publish(self, *messages):
        """Publish (what, frames), in one go; `confirmed` will say *what*."""
        for what, _ in messages:
            self._tag += 1
            self.waiting[self._tag] = what
        self.send(*[octets for _, octets in messages])

    def room(self):
        """How many more messages may be under way; 0 until half of them are confirmed."""
        waiting = len(self.waiting)
        return 0 if waiting > self.window // 2 else self.window - waiting

    def settle(self, seconds=0):
        """Take the confirms that have come."""
        for _, name, payload in self.frames(seconds):
            if name == "heartbeat":
                continue
            if name in ("connection.blocked", "connection.unblocked"):
                self.blocked += name == "connection.blocked"
                continue
            assert name in ("basic.ack", "basic.nack"), (name, payload)
            tag, multiple = struct.unpack(">QB", payload[:9])
            tags = [tag] if not multiple & 1 else [one for one in self.waiting if one <= tag]
            done = self.confirmed if name == "basic.ack" else self.refused
            done.extend(self.waiting.pop(one) for one in tags)

    def settle_all(self, seconds=_SECONDS):
        deadline = time.monotonic() + seconds
        while self.waiting:
            assert time.monotonic() < deadline, f"{len(self.waiting)} messages without a confirm"
            self.settle(0.1)


class Consumer(Client):
    """Consumes a queue: deliveries as (delivery tag, redelivered, body)."""

    def __init__(self, board, queue, prefetch=0, no_ack=0, **options):
        Client.__init__(self, board, **options)
        if prefetch:
            self.call(wire.qos(1, prefetch), "basic.qos-ok")
        self.stream = b""
        self.send(wire.consume(1, queue, "c", no_ack))
        self._parts = None  # of the delivery under way: tag, redelivered, size, body

    def deliveries(self, seconds=0):
        """Those that have come whole."""
        found = []
        for _, name, payload in self.frames(seconds):
            if name == "basic.deliver":
                tag_at = 1 + payload[0]
                tag = struct.unpack(">Q", payload[tag_at : tag_at + 8])[0]
                self._parts = [tag, bool(payload[tag_at + 8]), 0, b""]
            elif name == "header":
                self._parts[2] = struct.unpack(">Q", payload[4:12])[0]
            elif name == "body":
                self._parts[3] += payload
            else:
                assert name in ("heartbeat", "basic.consume-ok", "basic.qos-ok"), (name, payload)
                continue
            if name != "basic.deliver" and len(self._parts[3]) == self._parts[2]:
                tag, redelivered, _, body = self._parts
                found.append((tag, redelivered, body))
        return found

    def acknowledge(self, tag, multiple=0):
        self.send(wire.ack(1, tag, multiple))
