"""A store that keeps nothing: durable messages stay in RAM and a power cut loses them.

For machines without flash to spare, and tests. It has the face of broker/durable.py as far as the
broker uses it when `keeps` is False.
"""


class RamStore:
    keeps = False
    broken = False

    def restore(self, broker):
        pass

    def report(self):
        pass

    def commit(self):
        return True

    def fail(self):
        pass

    def tick(self):
        pass

    def idle(self):
        pass

    def forget(self, item):
        pass

    def status(self):
        return None

    def close(self):
        pass
