"""Counters. Every drop is counted with its reason."""

_MASK = 0x3FFFFFFF  # a snapshot wraps where a small int of a 32-bit board ends

NAMES = (
    "connections_opened", "connections_refused", "logins_refused", "peers_cut",
    "published", "delivered", "confirmed", "acknowledged", "redelivered", "returned",
    "unroutable", "dropped_expired", "dropped_max_length", "dropped_rejected",
    "dropped_queue_deleted", "dropped_no_room", "dropped_store_full", "dropped_corrupt",
    "dropped_unselected", "purged",
    "refused_max_length", "blocked", "callback_errors",
)  # fmt: skip


class Metrics:
    def __init__(self):
        for name in NAMES:
            setattr(self, name, 0)

    def snapshot(self):
        """All counters by name; each counts modulo 2**30."""
        return {name: getattr(self, name) & _MASK for name in NAMES}
