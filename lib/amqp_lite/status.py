"""The status over AMQP: a message to the exchange amq.status is answered at its reply-to.

The answer is node.status() as JSON, with the request's correlation-id. The reply-to has to be that
of direct reply-to, or a queue with a server-made name.
"""

import json

from .broker.broker import GENERATED, REPLY_PREFIX
from .broker.queue import text
from .errors import AMQPError
from .local import publish
from .log import log
from .v091.properties import read_properties


def answer(node, message):
    """Send the status of *node* to whoever sent *message*."""
    broker = node.broker
    octets = bytearray(message.head + message.properties)
    broker.pool.read_at(message, 0, len(octets), octets, 0)
    asked = read_properties(octets, message.head)
    reply_to = asked.get("reply_to")
    # To queues of its own alone, or who may ask could write to any.
    if not (reply_to and (reply_to.startswith(REPLY_PREFIX) or reply_to.startswith(GENERATED))):
        return
    properties = {
        "content_type": "application/json", "correlation_id": asked.get("correlation_id"),
    }  # fmt: skip
    try:
        publish(broker, b"", reply_to, json.dumps(node.status()), properties)
    except AMQPError as error:
        log.warning("no status for '%s': %s", text(reply_to), error.text)
