"""A client of our own for what no library does: fall silent, vanish, leave out a capability.

pika's codec speaks for it, so the octets are a real client's.
"""

import socket
import time

from interop_support import client_library

pika = client_library("pika")
spec = pika.spec

CAPABILITIES = {
    "consumer_cancel_notify": True,
    "basic.nack": True,
    "publisher_confirms": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}


class RawClient:
    """A logged-in connection that does nothing by itself.

    heartbeat     what it answers to connection.tune, in seconds
    capabilities  what it claims in its client properties
    """

    def __init__(self, broker, heartbeat=0, capabilities=CAPABILITIES):
        self.socket = socket.create_connection((broker.host, broker.port), timeout=5)
        self.unread = b""
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self.start = self.expect(spec.Connection.Start)
        self.send(
            0,
            spec.Connection.StartOk(
                client_properties={"capabilities": capabilities},
                mechanism="PLAIN",
                response="\0%s\0%s" % (broker.user, broker.password),
                locale="en_US",
            ),
        )
        self.tune = self.expect(spec.Connection.Tune)
        self.send(0, spec.Connection.TuneOk(self.tune.channel_max, self.tune.frame_max, heartbeat))
        self.call(0, spec.Connection.Open("/"), spec.Connection.OpenOk)

    def call(self, channel, method, answer):
        self.send(channel, method)
        return self.expect(answer)

    def send(self, channel, *methods):
        """Write the methods in one go."""
        self.socket.sendall(
            b"".join(pika.frame.Method(channel, method).marshal() for method in methods)
        )

    def send_heartbeat(self):
        self.socket.sendall(pika.frame.Heartbeat().marshal())

    def publish(self, channel, exchange, routing_key, body):
        frames = [
            pika.frame.Method(
                channel, spec.Basic.Publish(exchange=exchange, routing_key=routing_key)
            ),
            pika.frame.Header(channel, len(body), pika.BasicProperties()),
        ]
        if body:
            frames.append(pika.frame.Body(channel, body))
        self.socket.sendall(b"".join(frame.marshal() for frame in frames))

    def expect(self, method, seconds=5):
        """Read up to the next method, which must be this one; pass over heartbeats."""
        while True:
            frame = self.read_frame(seconds)
            if not isinstance(frame, pika.frame.Heartbeat):
                assert isinstance(frame, pika.frame.Method), frame
                assert isinstance(frame.method, method), frame.method
                return frame.method

    def read_frame(self, seconds):
        """The next frame; None when the broker closed the connection; socket.timeout in time."""
        deadline = time.monotonic() + seconds
        while True:
            used, frame = pika.frame.decode_frame(self.unread)
            if frame is not None:
                self.unread = self.unread[used:]
                return frame
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                got = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not got:
                return None
            self.unread += got

    def frames(self, seconds):
        """All frames of the next *seconds*; the last is None when the broker closed meanwhile."""
        deadline = time.monotonic() + seconds
        got = []
        while not got or got[-1] is not None:
            try:
                got.append(self.read_frame(deadline - time.monotonic()))
            except socket.timeout:
                break
        return got

    def vanish(self):
        """Close the socket without a word to the broker."""
        self.socket.close()
