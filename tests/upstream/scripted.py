"""An AMQP 0-9-1 upstream that does what a test tells it, and writes down what it was sent.

As it stands it behaves like RabbitMQ: it lets everybody in, every exchange and queue exists, and
each publish is confirmed at once. A test changes that by setting attributes of Upstream, at any
time, or by giving an object for `confirms`, such as Multiple(8) or Never().

Frames are written by wire.py, apart from the bridge's own code. Threads: one that accepts, one per
connection. What they record may be read by the test at any time.
"""

import collections
import socket
import struct
import threading
import time

import pika

import wire

_TURN_S = 0.02  # a connection's thread looks up that often
_LINGER_0 = struct.pack("ii", 1, 0)  # close() sends RST
_SAY = "connection.start"
# What is answered with nothing but "it is done".
_PLAIN_ANSWERS = {
    "channel.open": wire.long(""),
    "exchange.declare": b"",
    "exchange.bind": b"",
    "queue.bind": b"",
    "basic.qos": b"",
    "confirm.select": b"",
}
_DECLARES = ("exchange.declare", "queue.declare")
_FRAME_MIN = 8192  # RabbitMQ 4.1 refuses a client that wants less


class Message:
    """A publish that arrived.

    connection, channel     numbers; connections count from 1
    tag                     what its confirm says, from 1 on each channel
    exchange, routing_key, mandatory, body
    raw                     its properties as they came: flags and list
    properties, headers     the same, read by pika
    at                      time.monotonic() of its last octet
    outcome                 None, "ack", "nack", or "close": the channel was closed for it
    returned                it went back with basic.return, before its outcome
    """

    def __init__(self, connection, channel, exchange, routing_key, mandatory):
        self.connection = connection
        self.channel = channel
        self.tag = 0
        self.exchange = exchange
        self.routing_key = routing_key
        self.mandatory = mandatory
        self.raw = self.properties = self.headers = None
        self.body = b""
        self.missing = 0  # octets of body still to come
        self.at = 0
        self.outcome = None
        self.returned = False

    def __repr__(self):
        return "<%s %s %r>" % (self.outcome, self.routing_key, self.body[:40])


# --- how publishes are confirmed ---


class Each:
    """Confirms each publish by itself, at once."""

    def publish(self, channel, message):
        channel.ack(message.tag)

    def idle(self, channel):
        """Nothing has come for a while."""


class Never(Each):
    def publish(self, channel, message):
        pass


class Multiple(Each):
    """Confirms *every* publishes with one ack, and what is left over when nothing more comes."""

    def __init__(self, every):
        self.every = every

    def publish(self, channel, message):
        if len(channel.unconfirmed) >= self.every:
            self.idle(channel)

    def idle(self, channel):
        if channel.unconfirmed:
            channel.ack(max(channel.unconfirmed), multiple=True)


class OutOfOrder(Multiple):
    """Confirms *every* publishes one by one, the last one first."""

    def idle(self, channel):
        for tag in sorted(channel.unconfirmed, reverse=True):
            channel.ack(tag)


class HalfAck(Each):
    """Confirms as usual but for the *nth* publish so far: half of its ack comes, then the end."""

    def __init__(self, nth, octets=11):
        self.nth = nth
        self.octets = octets
        self.count = 0

    def publish(self, channel, message):
        self.count += 1
        if self.count == self.nth:
            channel.connection.send(wire.ack(channel.number, message.tag)[: self.octets])
            channel.connection.end()
        else:
            channel.ack(message.tag)


class Judge(Each):
    """Answers each publish as a function says: "ack", "nack", None or (reply code, text).

    The last closes the channel. The function is called with the Message.
    """

    def __init__(self, judge):
        self.judge = judge

    def publish(self, channel, message):
        verdict = self.judge(message)
        if isinstance(verdict, tuple):
            message.outcome = "close"
            channel.close(*verdict, of="basic.publish")
        elif verdict:
            channel.settle(verdict, message.tag)


# --- the server ---


class Upstream:
    """
    What it does; each may be changed at any time:

    tune            (channel_max, frame_max, heartbeat) it offers
    heartbeats      whether it sends those that were agreed on
    greeting        octets that it sends instead of connection.start, to hang up behind them
    refusals        {a method's name: (reply code, text)}: connection.close in answer to it
    mute            names of methods that get no answer; "" is the protocol header
    missing         names of exchanges and queues that are not there: 404
    different       names of exchanges and queues that are declared otherwise: 406
    routable        function(Message): False for what is returned when it is mandatory
    confirms        see above
    reading         False: it takes nothing from its sockets
    read_octets, read_delay     of one receive; s before each

    What it has seen:

    messages        of class Message, in the order they came in
    methods         (connection, channel, name, arguments) of every other method
    settled         (delivery tag, "ack" | "nack" | "reject", multiple, requeue) for deliveries
    complaints      what the peer did that AMQP does not allow; close() raises them
    silent          numbers of connections on which no heartbeat came in time
    """

    def __init__(self, tls=None, port=0, **behaviour):
        self.tune = (2047, 131072, 0)
        self.heartbeats = True
        self.greeting = None
        self.refusals = {}
        self.mute = ()
        self.missing = set()
        self.different = set()
        self.routable = lambda message: True
        self.confirms = Each()
        self.reading = True
        self.read_octets = 65536
        self.read_delay = 0
        for name in behaviour:
            assert hasattr(self, name), name
            setattr(self, name, behaviour[name])
        self.messages = []
        self.methods = []
        self.settled = []
        self.complaints = []
        self.silent = []
        self.accepted = 0
        self.blocked = False
        self.queues = collections.defaultdict(collections.deque)  # name -> deliveries that wait
        self._tls = tls  # an ssl.SSLContext
        self._lock = threading.RLock()
        self._connections = []
        self._closed = False
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(16)
        self._listener.settimeout(_TURN_S)
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        while not self._closed:
            try:
                sock, _ = self._listener.accept()
            except socket.timeout:
                continue
            except OSError:
                return
            self.accepted += 1
            connection = _Connection(self, self.accepted, sock)
            self._connections.append(connection)
            thread = threading.Thread(target=connection.run, daemon=True)
            self._threads.append(thread)
            thread.start()

    # --- what a test does ---

    def open_connections(self):
        """Those with a connection.open-ok behind them, the oldest first."""
        return [connection for connection in list(self._connections) if connection.is_open]

    def cut(self):
        """Reset every connection. How many there were."""
        connections = list(self._connections)
        for connection in connections:
            connection.reset()
        return len(connections)

    def close_connections(self, code, text):
        for connection in self.open_connections():
            connection.close(code, text)

    def block(self, reason="low on memory"):
        self.blocked = True
        for connection in self.open_connections():
            connection.send(wire.method(0, "connection.blocked", wire.short(reason)))

    def unblock(self):
        self.blocked = False
        for connection in self.open_connections():
            connection.send(wire.method(0, "connection.unblocked"))

    def send(self, data):
        """Send octets on every connection."""
        for connection in list(self._connections):
            connection.send(data)

    def deliver(self, queue, body, exchange="", routing_key=None, **properties):
        """Put a message into a queue; consumers get it as their prefetch allows."""
        key = queue if routing_key is None else routing_key
        given = wire.properties(**properties)
        with self._lock:
            self.queues[queue].append([exchange, key, given, wire.octets(body), False])

    def cancel_consumers(self, queue):
        """As when the queue is deleted: basic.cancel to every consumer."""
        for connection in self.open_connections():
            connection.cancel_consumers(queue)

    def consumers(self, queue):
        return sum(
            1
            for connection in self.open_connections()
            for channel in list(connection.channels.values())
            for name in list(channel.consumers.values())
            if name == queue
        )

    def confirmed(self):
        """The messages with an ack that were not returned, in the order they came in."""
        return [m for m in list(self.messages) if m.outcome == "ack" and not m.returned]

    def names(self):
        """The names of all methods so far, but for publishes."""
        return [name for _, _, name, _ in list(self.methods)]

    def close(self):
        """The end. Raises AssertionError when a peer did not keep to the protocol."""
        self._closed = True
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        assert not self.complaints, self.complaints

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class _Connection:
    def __init__(self, upstream, number, sock):
        self.upstream = upstream
        self.number = number
        self.sock = sock
        self.is_open = False
        self.channels = {}
        self.heartbeat = 0
        self.frame_max = _FRAME_MIN
        self.channel_max = 0
        self._over = False
        self._closing = False  # connection.close is sent
        self._lock = threading.Lock()  # over the sending side
        self._heard = self._said = time.monotonic()

    # --- the thread ---

    def run(self):
        try:
            if self.upstream._tls:
                self.sock.settimeout(5)
                self.sock = self.upstream._tls.wrap_socket(self.sock, server_side=True)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._serve()
        except OSError:
            pass
        finally:
            self.is_open = False
            with self.upstream._lock:
                for channel in self.channels.values():
                    channel.lost()
            with self._lock:
                self._over = True
                self.sock.close()
            if self in self.upstream._connections:
                self.upstream._connections.remove(self)

    def _serve(self):
        unread = b""
        greeted = False
        while not self._over:
            data = self._receive()
            if data == b"":
                return
            if data:
                unread += data
                self._heard = time.monotonic()
            if not greeted and len(unread) >= 8:
                greeted = True
                self._greet(unread[:8])
                unread = unread[8:]
            if greeted and data:
                frames, unread = wire.split(unread)
                for channel, name, payload in frames:
                    if len(payload) + 8 > self.frame_max:  # a method's ids come on top
                        self._complain("a frame of over %d octets" % len(payload))
                    if self._handle(channel, name, payload):
                        return
            for channel in list(self.channels.values()):
                if not data:
                    self.upstream.confirms.idle(channel)
                channel.pump()
            if self._beat():
                return

    def _receive(self):
        """Octets; None when there are none now, empty at the end."""
        upstream = self.upstream
        if not upstream.reading:
            time.sleep(_TURN_S)
            return None
        if upstream.read_delay:
            time.sleep(upstream.read_delay)
        self.sock.settimeout(_TURN_S)
        try:
            return self.sock.recv(upstream.read_octets)
        except socket.timeout:
            return None

    def _beat(self):
        """Send a heartbeat when it is time; whether the peer has been silent for too long."""
        if not self.heartbeat or not self.is_open:
            return False
        now = time.monotonic()
        if self.upstream.heartbeats and now - self._said >= self.heartbeat / 2:
            self.send(wire.HEARTBEAT)
        if now - self._heard > 2 * self.heartbeat + 0.5 and self.upstream.reading:
            self.upstream.silent.append(self.number)
            return True
        return False

    # --- what comes in ---

    def _greet(self, header):
        upstream = self.upstream
        if upstream.greeting is not None:
            self.send(upstream.greeting)
            self.end()
        elif header != wire.HEADER:
            self._complain("protocol header %r" % header)
        elif "" not in upstream.mute:
            capabilities = dict.fromkeys(wire.CAPABILITIES, True)
            self.send(wire.method(
                0, _SAY, b"\0\x09",
                wire.table({"product": "scripted", "capabilities": capabilities}),
                wire.long("PLAIN AMQPLAIN"), wire.long("en_US"),
            ))  # fmt: skip

    def _handle(self, number, name, payload):
        """Act on a frame; whether the connection is over."""
        if name == "heartbeat":
            return False
        if number > self.channel_max:
            self._complain("channel %d, %d is the highest" % (number, self.channel_max))
        if number and name in ("basic.publish", "header", "body"):
            channel = self.channels.get(number)
            if channel:
                channel.content(name, payload)
            else:
                self._complain("%s on channel %d, which is not open" % (name, number))
            return False
        self.upstream.methods.append((self.number, number, name, payload))
        refusal = self.upstream.refusals.get(name)
        if refusal:
            self.close(*refusal, of=name)
        elif name in self.upstream.mute or (self._closing and name != "connection.close-ok"):
            pass
        elif not number:
            return self._handle_connection(name, payload)
        elif name == "channel.open":
            if number in self.channels:
                self._complain("channel %d is opened twice" % number)
            self.channels[number] = _Channel(self, number)
            self.answer(number, name)
        elif number in self.channels:
            self.channels[number].handle(name, payload)
        else:
            self._complain("%s on channel %d, which is not open" % (name, number))
        return False

    def _handle_connection(self, name, payload):
        if name == "connection.start-ok":
            self.send(wire.method(
                0, "connection.tune", struct.pack(">HIH", *self.upstream.tune)
            ))  # fmt: skip
        elif name == "connection.tune-ok":
            offered = self.upstream.tune
            agreed = struct.unpack(">HIH", payload)
            # Channels and octets: 0 stands for as many as there can be. A client may want other
            # heartbeats than were offered.
            for k in (0, 1):
                if offered[k] and not 0 < agreed[k] <= offered[k]:
                    self._complain("tune-ok %r to an offer of %r" % (agreed, offered))
            if 0 < agreed[1] < min(_FRAME_MIN, offered[1] or _FRAME_MIN):
                self._complain("frame_max %d, %d was offered" % (agreed[1], offered[1]))
            self.channel_max = agreed[0] or 0xFFFF
            self.frame_max = agreed[1] or 1 << 32
            self.heartbeat = agreed[2]
        elif name == "connection.open":
            self.is_open = True
            self.send(wire.method(0, "connection.open-ok", wire.short("")))
        elif name == "connection.close":
            self.send(wire.method(0, "connection.close-ok"))
            return True
        elif name == "connection.close-ok":
            return True
        else:
            self._complain("%s on channel 0" % name)
        return False

    def _complain(self, text):
        self.upstream.complaints.append("connection %d: %s" % (self.number, text))

    # --- what goes out ---

    def send(self, data):
        with self._lock:
            self._said = time.monotonic()
            if not self._over:
                try:
                    self.sock.settimeout(10)
                    self.sock.sendall(data)
                except OSError:
                    pass  # the thread finds out by reading

    def answer(self, channel, name):
        self.send(wire.method(channel, name + "-ok", _PLAIN_ANSWERS[name]))

    def close(self, code, text, of=None):
        """connection.close; *of* is the method that is to blame."""
        self._closing = True
        blamed = struct.pack(">HH", *(wire.IDS[of] if of else (0, 0)))
        self.send(wire.method(
            0, "connection.close", struct.pack(">H", code), wire.short(text), blamed
        ))  # fmt: skip

    def end(self):
        """Send FIN, so that what was sent before is read; nothing is answered any more."""
        with self._lock:
            self._over = True
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        with self._lock:
            if not self._over:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
                # Wakes the thread; its close() then resets, where shutdown() would send a FIN.
                self._over = True
                self.sock.close()

    def cancel_consumers(self, queue):
        for channel in list(self.channels.values()):
            for tag in [tag for tag, name in channel.consumers.items() if name == queue]:
                del channel.consumers[tag]
                self.send(wire.method(
                    channel.number, "basic.cancel", wire.short(tag), wire.bits(1)
                ))  # fmt: skip


class _Channel:
    def __init__(self, connection, number):
        self.connection = connection
        self.upstream = connection.upstream
        self.number = number
        self.confirming = False
        self.published = 0  # since confirm.select
        self.unconfirmed = {}  # tag -> Message
        self.consumers = {}  # tag -> queue
        self.prefetch = 0
        self.closing = False  # channel.close is sent: nothing counts until channel.close-ok
        self._message = None  # whose content is under way
        self._delivered = 0
        self._unacked = {}  # delivery tag -> (queue, delivery)
        self._automatic = set()  # tags of consumers without acknowledgement

    # --- publishes ---

    def content(self, name, payload):
        if self.closing:
            return
        message = self._message
        if name == "basic.publish":
            exchange, key = wire.strings(payload, 2, 2)
            self._message = Message(
                self.connection.number, self.number, exchange.decode(), key.decode(),
                bool(payload[-1] & 1),
            )  # fmt: skip
            return
        if message is None:
            self.connection._complain("a content %s without a method" % name)
            return
        if name == "header":
            message.missing = struct.unpack(">Q", payload[4:12])[0]
            message.raw = payload[12:]
            message.properties = pika.BasicProperties()
            message.properties.decode(message.raw)
            message.headers = message.properties.headers or {}
        else:
            message.body += payload
            message.missing -= len(payload)
        if message.missing <= 0:
            self._message = None
            self._take(message)

    def _take(self, message):
        upstream = self.upstream
        message.at = time.monotonic()
        if self.confirming:
            self.published += 1
            message.tag = self.published
            self.unconfirmed[message.tag] = message
        upstream.messages.append(message)
        if message.exchange in upstream.missing:
            message.outcome = "close"
            self.close(404, "NOT_FOUND - no exchange '%s'" % message.exchange, "basic.publish")
            return
        if message.mandatory and not upstream.routable(message):
            message.returned = True
            self.connection.send(b"".join([
                wire.method(
                    self.number, "basic.return", struct.pack(">H", 312), wire.short("NO_ROUTE"),
                    wire.short(message.exchange), wire.short(message.routing_key),
                ),
                self._content(message.raw, message.body),
            ]))  # fmt: skip
        if self.confirming:
            upstream.confirms.publish(self, message)

    def ack(self, tag, multiple=False):
        self.settle("ack", tag, multiple)

    def nack(self, tag, multiple=False):
        self.settle("nack", tag, multiple)

    def settle(self, outcome, tag, multiple=False):
        for one in [k for k in self.unconfirmed if k == tag or (multiple and k < tag)]:
            self.unconfirmed.pop(one).outcome = outcome
        write = wire.ack if outcome == "ack" else wire.nack
        self.connection.send(write(self.number, tag, multiple))

    def close(self, code, text, of):
        """channel.close; *of* is the method that is to blame."""
        self.closing = True
        self.connection.send(wire.method(
            self.number, "channel.close", struct.pack(">H", code), wire.short(text),
            struct.pack(">HH", *wire.IDS[of]),
        ))  # fmt: skip

    # --- other methods ---

    def handle(self, name, payload):
        if name == "channel.close-ok" or name == "channel.close":
            with self.upstream._lock:
                self.lost()
            del self.connection.channels[self.number]
            if name == "channel.close":
                self.connection.send(wire.method(self.number, "channel.close-ok"))
            return
        if self.closing:
            return
        if name in _DECLARES and self._declare_fails(name, payload):
            return
        if name == "queue.declare":
            queue = wire.strings(payload, 2, 1)[0]
            self.connection.send(wire.method(
                self.number, "queue.declare-ok", wire.short(queue), struct.pack(">II", 0, 0)
            ))  # fmt: skip
        elif name in _PLAIN_ANSWERS:
            if name == "basic.qos":
                self.prefetch = struct.unpack(">H", payload[4:6])[0]
            elif name == "confirm.select":
                self.confirming = True
            self.connection.answer(self.number, name)
        elif name == "basic.consume":
            self._consume(payload)
        elif name == "basic.cancel":
            tag = wire.strings(payload, 0, 1)[0]
            self.consumers.pop(tag.decode(), None)
            self.connection.send(wire.method(self.number, "basic.cancel-ok", wire.short(tag)))
        elif name in ("basic.ack", "basic.nack", "basic.reject"):
            self._settled(name[6:], payload)
        elif name != "basic.cancel-ok":
            self.connection._complain("%s is not expected" % name)

    def _declare_fails(self, method, payload):
        name = wire.strings(payload, 2, 1)[0].decode()
        kind = method.split(".")[0]
        after = 3 + len(name.encode())
        if kind == "exchange":
            after += 1 + payload[after]
        passive = payload[after] & 1
        if passive and name in self.upstream.missing:
            self.close(404, "NOT_FOUND - no %s '%s' in vhost '/'" % (kind, name), method)
        elif not passive and name in self.upstream.different:
            self.close(
                406, "PRECONDITION_FAILED - inequivalent arg for %s '%s'" % (kind, name), method
            )
        else:
            if not passive:
                self.upstream.missing.discard(name)
            return False
        return True

    # --- deliveries ---

    def _consume(self, payload):
        queue, tag = [name.decode() for name in wire.strings(payload, 2, 2)]
        flags = payload[4 + len(queue.encode()) + len(tag.encode())]
        if queue in self.upstream.missing:
            self.close(404, "NOT_FOUND - no queue '%s' in vhost '/'" % queue, "basic.consume")
            return
        tag = tag or "consumer-%d" % len(self.upstream.methods)
        self.consumers[tag] = queue
        if flags & 2:
            self._automatic.add(tag)
        self.connection.send(wire.method(self.number, "basic.consume-ok", wire.short(tag)))

    def pump(self):
        """Deliver what waits, as far as the prefetch goes."""
        if self.closing:
            return
        with self.upstream._lock:
            for tag, queue in list(self.consumers.items()):
                waiting = self.upstream.queues[queue]
                while waiting and not 0 < self.prefetch <= len(self._unacked):
                    self._deliver(tag, queue, waiting.popleft())

    def _deliver(self, tag, queue, delivery):
        exchange, key, given, body, again = delivery
        self._delivered += 1
        if tag not in self._automatic:
            self._unacked[self._delivered] = (queue, delivery)
        self.connection.send(wire.method(
            self.number, "basic.deliver", wire.short(tag),
            struct.pack(">Q", self._delivered), wire.bits(again),
            wire.short(exchange), wire.short(key),
        ) + self._content(given, body))  # fmt: skip

    def _content(self, given, body):
        size = min(self.connection.frame_max, 131072) - 8
        parts = [wire.header(self.number, len(body), given)]
        parts += [
            wire.body(self.number, body[i : i + size]) for i in range(0, len(body), size)
        ]
        return b"".join(parts)

    def _settled(self, verb, payload):
        tag = struct.unpack(">Q", payload[:8])[0]
        flags = payload[8]
        multiple = verb != "reject" and bool(flags & 1)
        requeue = bool(flags & (1 if verb == "reject" else 2)) and verb != "ack"
        self.upstream.settled.append((tag, verb, multiple, requeue))
        tags = [k for k in self._unacked if k == tag or (multiple and (k < tag or tag == 0))]
        if not tags:
            self.close(406, "PRECONDITION_FAILED - unknown delivery tag %d" % tag, "basic." + verb)
            self.connection._complain("unknown delivery tag %d" % tag)
        with self.upstream._lock:
            for k in sorted(tags, reverse=True):
                queue, delivery = self._unacked.pop(k)
                if requeue:
                    self._put_back(queue, delivery)

    def lost(self):
        """The channel is gone: its deliveries go back to where they were, in their order."""
        for k in sorted(self._unacked, reverse=True):
            self._put_back(*self._unacked[k])
        self._unacked = {}
        self.consumers = {}

    def _put_back(self, queue, delivery):
        delivery[4] = True
        self.upstream.queues[queue].appendleft(delivery)
