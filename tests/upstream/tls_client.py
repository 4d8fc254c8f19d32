"""One TLS connection with amqp_lite.net.tls, on either Python: tls_client.py JOB.json

JOB  tls      settings
     host     whom to ask for; the connection is to 127.0.0.1
     port
     clock    what the clock says
     send     octets to send; as many are expected to come back
     narrow   whether the network takes only little at once
     wait_ms  how long nothing may happen

Prints one JSON object: `error`, or what happened until the end or until nothing happened any more.
"""

import json
import socket
import sys

from amqp_lite.compat import POLLIN, POLLOUT, Poller, receive, transmit, unread
from amqp_lite.errors import ConfigError
from amqp_lite.net.tls import Tls, TlsError

READ = 1024  # octets at once, far less than a TLS record has
OUTPUT = 5000  # octets that an engine may have ready


class Run:
    def __init__(self, job):
        self.tls = Tls(job["tls"], lambda: job["clock"])
        self.job = job
        self.poller = Poller()
        self.sock = None
        self.calls = 0  # of handshake(), receive() and transmit()
        self.events = 0
        self.sent = 0
        self.received = 0
        self.sum = 0
        self.clogged = 0  # transmit() took less than it was offered, behind the first octets

    def go(self):
        plain = socket.socket()
        plain.connect(socket.getaddrinfo("127.0.0.1", self.job["port"])[0][-1])
        if self.job["narrow"]:
            plain.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_SNDBUF", 7), 8192)
        plain.setblocking(False)
        self.sock = self.tls.wrap(plain, self.job["host"])
        self.poller.add(self.sock, self)
        try:
            if self.shake():
                self.exchange()
        except OSError as error:
            return {"error": self.tls.explain(error)}
        finally:
            # The poller first, then TLS, then what is below it.
            self.poller.remove(self.sock)
            self.sock.close()
            self.tls.close()
        return {
            "sent": self.sent, "received": self.received, "sum": self.sum, "calls": self.calls,
            "clogged": self.clogged, "warning": self.tls.warning,
        }  # fmt: skip

    def wait(self, reading, writing):
        """Whether something happened."""
        self.poller.want(self.sock, self, reading, writing)
        self.events = self.poller.events[0] if self.poller.wait(self.job["wait_ms"]) else 0
        return self.events

    def shake(self):
        while True:
            self.calls += 1
            events = self.tls.handshake(self.sock)
            if not events:
                return True
            if not self.wait(events & POLLIN, events & POLLOUT):
                return False

    def exchange(self):
        total = self.job["send"]
        source = memoryview(bytearray([k * 31 & 0xFF for k in range(OUTPUT)]))
        buffer = memoryview(bytearray(READ))
        owed = 0  # what transmit() did not take, and has to be offered again
        ready = 8  # an engine's output grows
        clogged = False
        while self.received < total:
            if not clogged and self.sent < total:
                n = owed or min(ready, OUTPUT - self.sent % OUTPUT, total - self.sent)
                self.calls += 1
                taken = transmit(self.sock, source, self.sent % OUTPUT, n)
                self.sent += taken
                owed = n - taken
                clogged = owed > 0
                self.clogged += clogged and self.sent > 0  # the first had to wait for Finished
                ready = ready * 3 % OUTPUT + 1
            hungry = unread(self.sock)
            if not hungry:
                if not self.wait(True, self.sent < total):
                    return
                clogged = clogged and not self.events & POLLOUT
                hungry = self.events & ~POLLOUT
            if hungry:
                self.calls += 1
                got = receive(self.sock, buffer, READ)
                if not got:
                    return
                if got > 0:
                    self.received += got
                    for k in range(got):
                        self.sum = (self.sum * 33 + buffer[k]) & 0xFFFFFF


def main(path):
    with open(path) as file:
        job = json.load(file)
    try:
        print(json.dumps(Run(job).go()))
    except (ConfigError, TlsError) as error:
        print(json.dumps({"error": str(error)}))


main(sys.argv[1])
