"""What is behind the upstream: a client of the real RabbitMQ that looks at what came."""

import contextlib

import pika
import pika.exceptions

from edge import take

_ERRORS = (pika.exceptions.AMQPError, OSError)


class Cloud:
    """
    queue   a durable queue of this test alone; it is deleted at the end
    name    part of every name that the test makes
    """

    def __init__(self, rabbitmq, name):
        self.rabbitmq = rabbitmq
        self.name = name
        self.queue = "telemetry-" + name
        self._connection = self._channel = None
        self._made = []
        self.declare(self.queue)

    def channel(self):
        if self._connection is None or not self._connection.is_open:
            self._connection = pika.BlockingConnection(
                pika.ConnectionParameters(
                    self.rabbitmq.host, self.rabbitmq.port, heartbeat=0, stack_timeout=10
                )
            )
            self._channel = None
        if self._channel is None or not self._channel.is_open:
            self._channel = self._connection.channel()
            self._channel.confirm_delivery()
        return self._channel

    def declare(self, queue, **arguments):
        """A durable queue that is deleted at the end of the test."""
        self._made.append(queue)
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.channel().queue_declare(queue, durable=True, arguments=named)
        return queue

    def exists(self, queue):
        try:
            self.channel().queue_declare(queue, passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return False
        return True

    def count(self, queue=None):
        """How many messages wait; -1 when the broker is not there."""
        try:
            found = self.channel().queue_declare(queue or self.queue, passive=True)
        except _ERRORS:
            return -1
        return found.method.message_count

    def consumers(self, queue):
        """How many consumers it has, after its bindings were made."""
        return self.channel().queue_declare(queue, passive=True).method.consumer_count

    def wait_for_bodies(self, edge, bodies, seconds=20):
        """Until each of *bodies* has come and no more do: all there is, [(properties, body)].

        It looks at the bodies, since duplicates make counts useless.
        """
        found = []
        wanted = set(bodies)

        def all_there():
            with contextlib.suppress(*_ERRORS):
                found.extend(self.take())
            return wanted <= {body for _, body in found}

        edge.wait_until(all_there, "%d bodies in the cloud" % len(wanted), seconds)
        edge.wait_until(lambda: settled(edge), "nothing in flight", seconds)
        found.extend(self.take())
        return found

    def take(self, queue=None):
        """Everything that waits: [(properties, body)]."""
        return take(self.channel(), queue or self.queue)

    def publish(self, body, queue, exchange="", **properties):
        properties.setdefault("delivery_mode", 2)
        self.channel().basic_publish(exchange, queue, body, pika.BasicProperties(**properties))

    def close(self):
        self.rabbitmq.repair()
        with contextlib.suppress(*_ERRORS):  # it may have died with the last broker
            self._connection.close()
        for queue in self._made:
            self.channel().queue_delete(queue)
        self._connection.close()


def settled(edge):
    """Whether every uplink of the edge broker has nothing more to send."""
    return all(
        nothing_left(row)
        for bridge in edge.status()["bridges"].values()
        for row in bridge["uplinks"].values()
    )


def nothing_left(row):
    """Whether an uplink with this status has nothing more to send, now or later."""
    return row["backlog"] == row["in_flight"] == row["waiting"] == 0
