"""What can go wrong, and how each protocol says it.

The model raises these; the engine that called it picks the scope (channel, session, connection).
`code` is the AMQP 0-9-1 reply code (§1.2), `condition` the AMQP 1.0 error condition (§2.8.15).
"""


class ConfigError(Exception):
    """A configuration cannot be used. The text is one line that names the key."""


class AMQPError(Exception):
    """Base of everything a peer is told."""

    code = 541
    condition = "amqp:internal-error"

    def __init__(self, text):
        super().__init__(text)
        self.text = text


class ContentTooLarge(AMQPError):
    """The body is longer than this broker takes."""

    code = 311
    condition = "amqp:link:message-size-exceeded"


class AccessRefused(AMQPError):
    """The user may not do this."""

    code = 403
    condition = "amqp:unauthorized-access"


class NotFound(AMQPError):
    """The exchange or queue does not exist."""

    code = 404
    condition = "amqp:not-found"


class ResourceLocked(AMQPError):
    """The queue is exclusive to another connection or consumer."""

    code = 405
    condition = "amqp:resource-locked"


class PreconditionFailed(AMQPError):
    """The request contradicts what exists."""

    code = 406
    condition = "amqp:precondition-failed"


class FrameError(AMQPError):
    """The octets are not a frame."""

    code = 501
    condition = "amqp:connection:framing-error"


class SyntaxFailure(AMQPError):
    """A frame whose arguments cannot be read."""

    code = 502
    condition = "amqp:decode-error"


class CommandInvalid(AMQPError):
    """A method that is not legal in this state."""

    code = 503
    condition = "amqp:not-allowed"


class ChannelFailure(AMQPError):
    """A channel number that is not open, open already, or too high."""

    code = 504
    condition = "amqp:not-allowed"


class UnexpectedFrame(AMQPError):
    """Content where a method was due, or a method inside content."""

    code = 505
    condition = "amqp:not-allowed"


class ResourceLimitExceeded(AMQPError):
    """A table or buffer of the profile is full."""

    code = 506
    condition = "amqp:resource-limit-exceeded"


class NotAllowed(AMQPError):
    """Legal in the protocol, not on this broker or for this peer."""

    code = 530
    condition = "amqp:not-allowed"


class NotImplementedHere(AMQPError):
    """A part of the protocol this broker does not have."""

    code = 540
    condition = "amqp:not-implemented"
