"""Helpers of the client tests: import a client, wait with a deadline, expect a close."""

import contextlib
import importlib
import os
import pathlib
import subprocess
import time

import pytest


def on_ci():
    return bool(os.environ.get("CI"))


def client_library(name):
    """Import a client library; without it the tests of the file are skipped, on CI they fail."""
    if on_ci():
        return importlib.import_module(name)
    return pytest.importorskip(name, reason="client library %s is not installed" % name)


def wait_for(condition, what, seconds=5.0):
    """Call *condition* until it returns something true and return that; fail after *seconds*."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError("not within %g s: %s" % (seconds, what))
        time.sleep(0.01)


class CaseProcess:
    """A program that reads a case a line and answers it with lines, the last "passed" or "failed".

    log  file for what it says besides
    """

    def __init__(self, command, log, **options):
        self._command = command
        self._options = options
        self._log = log
        self._busy = False
        self._start()

    def _start(self):
        with open(self._log, "wb") as sink:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink,
                **self._options,
            )  # fmt: skip

    def begin(self, line):
        """Give it a case; when it is still with another, or gone, that is the end of it."""
        if self._busy or self._process.poll() is not None:
            self.stop()
            self._start()
        self._busy = True
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def end(self):
        """What it answered to the case, when that has passed."""
        lines = []
        while not lines or lines[-1] not in ("passed\n", "failed\n", ""):
            lines.append(self._process.stdout.readline().decode())
        self._busy = False
        if lines.pop() != "passed\n":
            log = pathlib.Path(self._log).read_text(errors="replace")
            raise AssertionError("".join(lines) + log[-4000:])
        return "".join(lines)

    def run(self, line):
        self.begin(line)
        return self.end()

    def stop(self):
        if self._busy:
            self._process.kill()
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._busy = False


# --- pika ---


def pika_parameters(broker, user=None, password=None, **options):
    pika = client_library("pika")
    credentials = pika.PlainCredentials(user or broker.user, password or broker.password)
    options = dict({"heartbeat": 30, "socket_timeout": 5, "stack_timeout": 10}, **options)
    return pika.ConnectionParameters(broker.host, broker.port, credentials=credentials, **options)


def pump(connection, condition, what, seconds=5.0):
    """wait_for with a pika BlockingConnection doing its work in between."""

    def turn():
        connection.process_data_events(time_limit=0.02)
        return condition()

    return wait_for(turn, what, seconds)


@contextlib.contextmanager
def channel_closes(code):
    """The block must end with the broker closing the pika channel with this reply code."""
    import pika.exceptions

    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        yield
    assert caught.value.reply_code == code, caught.value


@contextlib.contextmanager
def connection_closes(code):
    """The block must end with the broker closing the pika connection with this reply code."""
    import pika.exceptions

    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as caught:
        yield
    assert caught.value.reply_code == code, caught.value


def publish(channel, queue, *bodies):
    """Publish *bodies* to *queue* through the default exchange."""
    for body in bodies:
        channel.basic_publish("", queue, body)


def drain(channel, queue):
    """Take everything that waits in *queue*; the bodies in order."""
    bodies = []
    while True:
        method, _properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return bodies
        bodies.append(body)


def take(channel, queue):
    """basic.get of one message, not acknowledged: (delivery tag, redelivered, body)."""
    method, _properties, body = channel.basic_get(queue)
    assert method is not None, "queue %s is empty" % queue
    return method.delivery_tag, method.redelivered, body


def ready(channel, queue):
    """How many messages wait in *queue* (not counting delivered, unacknowledged ones)."""
    return channel.queue_declare(queue, passive=True).method.message_count


def exclusive_queue(channel, **arguments):
    """A server-named queue of this connection; it goes when the connection goes."""
    named = {key.replace("_", "-"): value for key, value in arguments.items()}
    return channel.queue_declare("", exclusive=True, arguments=named).method.queue


def settle(channel, queue, waiting):
    """Until *waiting* messages wait in the queue; what else was published is with consumers.

    Needed after a publish too: RabbitMQ lets queue.declare overtake the publishes before it.
    """
    pump(
        channel.connection,
        lambda: ready(channel, queue) == waiting,
        "%d messages waiting" % waiting,
    )


def next_answer_closes(channel, code):
    """What the pika channel sent last has no answer of its own; the broker must close it."""
    with channel_closes(code):
        wait_for(lambda: channel.basic_qos(), "never: the answer to this is the close")
