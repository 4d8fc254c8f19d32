"""One broker, a well-behaved neighbour on it, and peers that are not."""

import wire
from world import World


class Arena:
    def __init__(self, **numbers):
        self.world = World(**numbers)
        self.neighbour = self.world.client()
        self.before = self.world.free()

    def answers(self, octets, prepared=b"", login=True):
        """What a new peer is told when it sends *octets* after *prepared*, with channel 1 open.

        "channel 404" or "connection 501", None when there is no complaint. Checks that the error
        costs nobody else anything, the peer no more than its scope, and the broker no memory.
        """
        peer = self.world.client() if login else self.world.connect()
        assert self.neighbour.works(), "before " + str(octets[:60])
        peer.ask(prepared)
        refused = peer.refused(octets)
        if refused is not None and refused[0] == "channel":
            peer.send(wire.method(1, "channel.close-ok")).open(1)
            assert peer.works(), octets
        elif refused is not None:
            peer.send(wire.method(0, "connection.close-ok"))
            # After a framing error nothing is read any more, and time has to do it.
            self.world.wait(2250)
            assert peer.gone, octets
        peer.vanish()
        assert self.neighbour.works(), "after " + str(octets[:60])
        self.clear()
        now = self.world.free()
        assert now == self.before, (octets[:60], now, self.before)
        return refused and "%s %d" % refused

    def clear(self):
        """Delete what the peers left behind and were allowed to."""
        broker = self.world.broker
        for name in list(broker.queues):
            broker.delete_queue(broker.queues[name])
        for name in list(broker.exchanges):
            if name and not name.startswith(b"amq."):
                broker.delete_exchange(name)
