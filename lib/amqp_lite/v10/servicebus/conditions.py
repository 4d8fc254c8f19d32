"""Conditions of errors that Azure Service Bus adds to those of AMQP 1.0."""

from ...errors import AMQPError


class ServerBusy(AMQPError):
    """There is no room now. Clients try again."""

    condition = "com.microsoft:server-busy"


class LockLost(AMQPError):
    """The message is not the peer's any more."""

    condition = "com.microsoft:message-lock-lost"


class NotDeferred(AMQPError):
    code = 404
    condition = "com.microsoft:message-not-found"
