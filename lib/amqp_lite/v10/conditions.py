"""What can go wrong in AMQP 1.0 alone, and how it names what went wrong in the model.

An error's scope (link, session, connection) is the choice of whoever catches it.
"""

from ..errors import AMQPError


class InvalidField(AMQPError):
    """A field has another type or value than it may have, or is not there and has to be."""

    condition = "amqp:invalid-field"


class NotAllowedNow(AMQPError):
    """A performative that is legal, but not in this state."""

    condition = "amqp:not-allowed"


class FramingError(AMQPError):
    """The octets are no frame, or a frame of another kind was due."""

    condition = "amqp:connection:framing-error"


class ConditionError(AMQPError):
    """Another one, by its *condition*."""

    def __init__(self, condition, text):
        AMQPError.__init__(self, text)
        self.condition = condition


STOLEN = "amqp:link:stolen"
RESOURCE_DELETED = "amqp:resource-deleted"
# By the reply codes of errors.py.
_CONDITIONS = {
    311: "amqp:link:message-size-exceeded",
    403: "amqp:unauthorized-access",
    404: "amqp:not-found",
    405: "amqp:resource-locked",
    406: "amqp:precondition-failed",
    501: "amqp:connection:framing-error",
    502: "amqp:decode-error",
    503: "amqp:illegal-state",
    504: "amqp:illegal-state",
    505: "amqp:not-allowed",
    506: "amqp:resource-limit-exceeded",
    530: "amqp:not-allowed",
    540: "amqp:not-implemented",
}


def condition_of(error):
    """The condition (AMQP 1.0 §2.8.15 to §2.8.18) that names the AMQPError *error*."""
    found = getattr(error, "condition", None)
    return found or _CONDITIONS.get(error.code, "amqp:internal-error")
