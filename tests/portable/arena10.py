"""One broker, a well-behaved AMQP 1.0 neighbour on it, and peers that are not."""

import wire10
from amqp_lite.v10.performatives import ACCEPTED
from amqp_lite.v10.values import Described
from clients10 import ask, deliveries, names, outcomes, session
from wire10 import message
from world import World

_EMPTY = b"\0\0\0\x08\2\0\0\0"


class Loop:
    """Two links of one session, through which messages go around: on handles *first* and next."""

    def __init__(self, peer, channel=0, first=8):
        self.peer = peer
        self.channel = channel
        self.handle = first
        self.count = 0
        found = ask(
            peer, wire10.attach_receiver("r%d" % channel, None, first, channel, dynamic=True)
            + wire10.attach_sender("s%d" % channel, None, first + 1, channel),
        )  # fmt: skip
        assert names(found) == ["attach", "attach", "flow"], found
        self.address = found[0][2][5].value[0]

    def works(self):
        """Whether a message still goes around."""
        peer = self.peer
        if peer.gone or peer.engine.deaf:
            return False
        ask(peer, b"")
        number = max(0, peer.engine.sessions[self.channel].due_id)
        payload = message(b"still", to=self.address)
        found = ask(
            peer, wire10.credit(self.handle, 1, self.count, self.channel)
            + wire10.transfer(payload, number, self.handle + 1, self.channel),
        )  # fmt: skip
        self.count += 1
        got = deliveries([row for row in found if row[1] == self.channel])
        if [row[2] for row in got] != [payload]:
            return False
        if (number, number, True, ACCEPTED) not in outcomes(found):
            return False
        return ask(peer, wire10.disposition(got[0][0], channel=self.channel)) == []


class Arena10:
    def __init__(self, **numbers):
        self.world = World(**numbers)
        self.world.client().queue("q")
        self.neighbour = Loop(session(self.world))
        self.before = self.world.free()

    def wait(self, ms, *peers):
        """Let time pass, and the neighbour and *peers* say that they live."""
        while ms > 0:
            self.world.wait(min(ms, 10000))
            ms -= 10000
            for peer in (self.neighbour.peer,) + peers:
                peer.send(_EMPTY)

    def peer(self, **options):
        """A peer with sessions on channels 0 and 1, and a loop on each."""
        peer = session(self.world, **options)
        assert names(ask(peer, wire10.begin(1))) == ["begin"]
        peer.loops = [Loop(peer, 0), Loop(peer, 1)]
        return peer

    def answers(self, octets, prepared=b"", peer=None):
        """What a peer is told when it sends *octets* after *prepared*, in sessions 0 and 1.

        "link amqp:not-found", likewise for "session" and "connection"; None when there is no
        complaint. Checks that the error costs nobody else anything, the peer no more than its
        scope, and the broker no memory. What came is in `found` afterwards.
        """
        peer = peer or self.peer()
        ask(peer, prepared)
        self.found = found = ask(peer, octets)
        told = None
        for name, scope in (("detach", "link"), ("end", "session"), ("close", "connection")):
            for row in found:
                if row[0] == name and row[2] and isinstance(row[2][-1], Described):
                    told = "%s %s" % (scope, wire10.error_of(row))
        scope = told and told.split()[0]
        shown = (octets[:60], found)
        if scope == "connection":
            assert peer.engine.deaf and ask(peer, wire10.begin(2)) == [], shown
            self.world.wait(2500)
            assert peer.gone, shown
        else:
            assert peer.loops[1].works(), shown
            assert scope == "session" or peer.loops[0].works(), shown
        self.leave(peer, shown)
        return told

    def leave(self, peer, shown=None):
        """The *peer* goes: nothing of it is left, and the neighbour did not notice."""
        peer.vanish()
        assert self.neighbour.works(), shown
        self.world.broker.queues[b"q"].purge()
        assert self.world.free() == self.before, (shown, self.world.free(), self.before)
        assert self.world.broker.longest_waiting is None
