"""Starting Mosquitto, and as much of MQTT 3.1.1 as flash.py needs to load it."""
import os
import shutil
import socket
import struct
import time

import brokers
import load

_STALL_S = 30
_TOPIC = struct.pack(">H", 5) + b"bench"
_CONNECT, _CONNACK, _PUBLISH, _PUBACK = 0x10, 0x20, 0x32, 0x40      # PUBLISH with QoS 1
_SUBSCRIBE, _SUBACK, _PINGREQ, _PINGRESP, _DISCONNECT = 0x82, 0x90, 0xC0, 0xD0, 0xE0
_DUP = 8


class Mosquitto(brokers.Broker):
    """Mosquitto with persistence, its files in a temporary folder.

    settings    more lines for its configuration file
    """

    name = "Mosquitto"

    def __init__(self, settings=""):
        super().__init__()
        self.settings = settings

    def command(self):
        # Debian's place for it is not on every user's path.
        server = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
        if not server:
            raise brokers.BrokerError("no mosquitto: apt install mosquitto")
        [self.port] = brokers.free_ports(1)
        config = self.folder / "mosquitto.conf"
        lines = ["listener %d 127.0.0.1" % self.port, "allow_anonymous true", "log_dest none",
                 "persistence true", "persistence_location %s/" % self.folder,
                 "max_queued_messages 0"]       # no limit; it would drop the 1001st
        if os.geteuid() == 0:
            lines.append("user root")           # it would become one who may not write here
        config.write_text("\n".join(lines) + "\n" + self.settings)
        return [server, "-c", str(config)], None, self.folder

    def wait_until_open(self, deadline):
        while True:
            try:
                Session(self, b"start").close()
                return self.name
            except (OSError, load.LoadError) as e:
                self.check_alive()
                if time.monotonic() > deadline:
                    raise brokers.BrokerError("%s: no CONNACK: %s" % (self.name, e)) from None
                time.sleep(0.01)


class Session:
    """A connection with a session that outlives it. QoS 1, one topic, one message at a time.

    All methods raise load.LoadError for an answer that is not the one due, and OSError.
    """

    def __init__(self, broker, client_id):
        self.sock = socket.create_connection((broker.host, broker.port), _STALL_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")
        # Protocol level 4; no flags, so clean_session is 0; no keep-alive.
        self._send(_CONNECT, b"\0\4MQTT\4\0\0\0" + struct.pack(">H", len(client_id)) + client_id)
        if self._expect(_CONNACK)[1]:
            raise load.LoadError("MQTT connection refused")

    def subscribe(self):
        self._send(_SUBSCRIBE, b"\0\1" + _TOPIC + b"\1")
        if self._expect(_SUBACK) != b"\0\1\1":
            raise load.LoadError("MQTT subscription refused")

    def publish(self, bodies):
        """Publish each body once the one before is acknowledged; return with the last PUBACK."""
        for i, body in enumerate(bodies):
            packet_id = struct.pack(">H", i % 0xFFFF + 1)
            self._send(_PUBLISH, _TOPIC + packet_id + body)
            if self._expect(_PUBACK) != packet_id:
                raise load.LoadError("PUBACK of another message than number %d" % i)

    def take(self, bodies):
        """Receive and acknowledge *bodies*, in order; return when the server has every PUBACK."""
        at = len(_TOPIC)
        for i, body in enumerate(bodies):
            packet = self._expect(_PUBLISH)
            if packet[at + 2:] != body:
                raise load.LoadError("message %d has the body of another one" % i)
            self._send(_PUBACK, packet[at:at + 2])
        self._send(_PINGREQ, b"")
        self._expect(_PINGRESP)

    def close(self):
        self._send(_DISCONNECT, b"")
        self.file.close()
        self.sock.close()

    def _send(self, kind, packet):
        length, n = b"", len(packet)
        while n > 127:
            length += bytes((n & 127 | 128,))
            n >>= 7
        self.sock.sendall(bytes((kind,)) + length + bytes((n,)) + packet)

    def _expect(self, kind):
        """Read one packet, which has to be of *kind*; return what is behind its fixed header."""
        got = self._read(1)[0]
        length = shift = 0
        while True:
            octet = self._read(1)[0]
            length |= (octet & 127) << shift
            shift += 7
            if octet < 128:
                break
        if got & ~_DUP != kind:
            raise load.LoadError("MQTT packet %#x instead of %#x" % (got, kind))
        return self._read(length)

    def _read(self, n):
        data = self.file.read(n)
        if len(data) < n:
            raise load.LoadError("the broker closed the connection")
        return data
