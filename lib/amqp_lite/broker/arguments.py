"""The arguments of queues, exchanges and bindings: which this broker honours.

To accept an argument and ignore it would be a promise broken in silence: what is not known here is
refused. The checks raise PreconditionFailed, naming the argument.
"""

from ..errors import PreconditionFailed
from .exchange import HEADERS
from .message import MAX_TTL_MS
from .queue import text

_QUEUE_NUMBERS = (b"x-message-ttl", b"x-expires", b"x-max-length", b"x-max-length-bytes")
_MOST = 32  # of one item, nested ones counted


def check_queue(arguments):
    """Raises PreconditionFailed unless a queue can have these *arguments*."""
    _check_size(arguments)
    for key in arguments:
        value = arguments[key]
        if key in _QUEUE_NUMBERS:
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise PreconditionFailed("invalid arg '%s': expected a number >= 0" % text(key))
            if value > MAX_TTL_MS and key in (b"x-message-ttl", b"x-expires"):
                raise PreconditionFailed(
                    "invalid arg '%s': at most %d ms" % (text(key), MAX_TTL_MS)
                )
            if key == b"x-expires" and not value:
                raise PreconditionFailed("invalid arg 'x-expires': expected a number > 0")
        elif key == b"x-overflow":
            if value not in (b"drop-head", b"reject-publish"):
                raise PreconditionFailed("invalid arg 'x-overflow': drop-head or reject-publish")
        elif key == b"x-queue-type":
            if value != b"classic":
                raise PreconditionFailed(
                    "invalid arg 'x-queue-type': this broker has only classic"
                )
        elif key.startswith(b"x-"):
            raise PreconditionFailed("invalid arg '%s': this broker does not have it" % text(key))


def are_equivalent(arguments, others):
    """Whether a queue is the same with *arguments* and with *others*."""
    return _with_type(arguments) == _with_type(others)


def _with_type(arguments):
    """*arguments* of a queue, with the type that those without one mean."""
    same = {b"x-queue-type": b"classic"}
    same.update(arguments)
    return same


def check_exchange(arguments):
    """Raises PreconditionFailed unless an exchange can have these *arguments*."""
    _check_size(arguments)
    for key in arguments:
        if key == b"alternate-exchange":
            if not isinstance(arguments[key], bytes):
                raise PreconditionFailed("invalid arg 'alternate-exchange': expected a name")
        elif key.startswith(b"x-"):
            raise PreconditionFailed("invalid arg '%s': this broker does not have it" % text(key))


def check_binding(arguments, kind):
    """Raises PreconditionFailed unless a binding of an exchange of this *kind* can have these.

    Only a headers exchange reads them.
    """
    _check_size(arguments)
    if kind == HEADERS:
        mode = arguments.get(b"x-match", b"all")
        if mode not in (b"all", b"any", b"all-with-x", b"any-with-x"):
            raise PreconditionFailed(
                "invalid x-match: expected all, any, all-with-x or any-with-x"
            )


def _check_size(arguments):
    """Raises PreconditionFailed for more arguments than are worth keeping.

    A table of small fields takes many times its octets once it is read.
    """
    if _count(arguments) > 1 + _MOST:  # the table itself counts, too
        raise PreconditionFailed("more than %d arguments" % _MOST)


def _count(value):
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return 1
    return 1 + sum([_count(item) for item in value])
