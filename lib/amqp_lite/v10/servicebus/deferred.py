"""Messages that were deferred: put aside until they are asked for by their sequence-number.

They stay in memory, and take their place in the queue again when the broker starts anew.
"""

from ...compat import const, ticks_diff
from ...errors import ResourceLimitExceeded
from .envelope import number_of

DEFERRED = const(1)  # as an outcome

# Of all queues: [entry, lock token, ticks until when]; without a token nobody has it.
rows = []


def defer(broker, entry):
    """Put *entry*, which a consumer holds, aside. Raises ResourceLimitExceeded."""
    for row in list(rows):
        if row[0].queue.deleted:
            remove(row)
    if not broker.is_roomy():
        raise ResourceLimitExceeded("no memory for deferred messages")
    queue = entry.queue
    queue.unacked += 1
    queue._returned(entry)
    rows.append([entry, None, 0])


def remove(row):
    """It is settled for good."""
    rows.remove(row)
    row[0].queue.settle(row[0])


def of_queue(queue, number=None):
    """Those of *queue*, with this sequence-number if one is given."""
    return [
        row
        for row in rows
        if row[0].queue is queue and (number is None or number_of(row[0]) == number)
    ]


def is_locked(row, now):
    """Whether somebody has it at *now* (ticks)."""
    return row[1] is not None and ticks_diff(now, row[2]) < 0


def locked_by(token, now):
    """The one that *token* locks at *now* (ticks), or None."""
    for row in rows:
        if row[1] == token and is_locked(row, now):
            return row
    return None
