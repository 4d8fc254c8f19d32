"""What can go wrong, and how each protocol says it.

The model raises these; the engine that called it picks the scope (channel, session, connection).
`code` is the AMQP 0-9-1 reply code (§1.2).
"""


class ConfigError(Exception):
    """A configuration cannot be used. The text is one line that names the key."""


class AMQPError(Exception):
    """Base of everything a peer is told."""

    code = 541
    info = None  # more of it for AMQP 1.0, a dict by symbols

    def __init__(self, text):
        super().__init__(text)
        self.text = text


class StoreDamaged(AMQPError):
    """What was stored cannot be read any more."""


class ContentTooLarge(AMQPError):
    """The body is longer than this broker takes."""

    code = 311


class AccessRefused(AMQPError):
    """The user may not do this."""

    code = 403


class NotFound(AMQPError):
    """The exchange or queue does not exist."""

    code = 404


class ResourceLocked(AMQPError):
    """The queue is exclusive to another connection."""

    code = 405


class PreconditionFailed(AMQPError):
    """The request contradicts what exists."""

    code = 406


class FrameError(AMQPError):
    """The octets are not a frame."""

    code = 501


class SyntaxFailure(AMQPError):
    """A frame whose arguments cannot be read."""

    code = 502


class CommandInvalid(AMQPError):
    """A method that is not legal in this state."""

    code = 503


class ChannelFailure(AMQPError):
    """A channel number that is not open, open already, or too high."""

    code = 504


class UnexpectedFrame(AMQPError):
    """Content where a method was due, or a method inside content."""

    code = 505


class ResourceLimitExceeded(AMQPError):
    """A table or buffer of the profile is full."""

    code = 506


class NotAllowed(AMQPError):
    """Legal in the protocol, not on this broker or for this peer."""

    code = 530


class NotImplementedHere(AMQPError):
    """A part of the protocol this broker does not have."""

    code = 540
