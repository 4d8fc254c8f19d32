"""The status over AMQP: a message to the exchange amq.status is answered at its reply-to.

The answer is node.status() as JSON, with the request's correlation-id. Whoever may write to
amq.status may so put it into any queue.
"""

import json

from .broker.queue import text
from .errors import AMQPError
from .local import properties_of, publish
from .log import log


def answer(node, message):
    """Send the status of *node* to whoever sent *message*."""
    broker = node.broker
    asked = properties_of(broker, message)[0]
    reply_to = asked.get("reply_to")
    if not reply_to:
        return
    properties = {
        "content_type": "application/json", "correlation_id": asked.get("correlation_id"),
    }  # fmt: skip
    try:
        publish(broker, b"", reply_to, json.dumps(node.status()), properties)
    except AMQPError as error:
        log.warning("no status for '%s': %s", text(reply_to), error.text)
