"""A store that forgets at power-off.

It has the face of the flash ring: `append` takes a message of a durable queue, `commit` makes all
appended ones safe, `settle` forgets one. The broker confirms a durable message only after the
commit that follows its append, whichever store is behind.
"""


class RamStore:
    """Keeps nothing of its own: the message stays in the pool until it is settled."""

    def __init__(self):
        self.uncommitted = 0  # appended since the last commit
        self.kept = 0  # appended and not settled

    def append(self, entry):
        """Take *entry*, a persistent message in a durable queue. False when there is no room."""
        self.uncommitted += 1
        self.kept += 1
        return True

    def commit(self):
        """Make everything appended so far safe. True when it is."""
        self.uncommitted = 0
        return True

    def settle(self, entry):
        """Forget *entry*, which append() took."""
        self.kept -= 1
