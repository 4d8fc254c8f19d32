"""AMQP 1.0 clients of a World, and what they get."""

import wire10
from amqp_lite.compat import ticks_add
from amqp_lite.v10.connection import Connection
from wire10 import HEADER
from world import Peer


class Client(Peer):
    """Its engine is its own, not one of the world's."""

    def vanish(self):
        if not self.gone:
            Peer.vanish(self)
            self.world.engines.remove(self.engine)


def connect(world, address="127.0.0.1", subject=None):
    """A peer that has sent the header of SASL and nothing more; *subject*: of its certificate."""
    engine = Connection(world.broker, world.access, world.profile, "edge-1", (b"/", b"edge"))
    peer = Client(world, engine)
    world.peers.append(peer)
    engine.open(address, ticks_add(world.broker.now, world.profile["login_ms"]), subject)
    world.run()
    return peer


def take(peer):
    found, peer.inbox = wire10.split(peer.inbox)
    return found


def ask(peer, octets):
    peer.send(octets)
    return take(peer)


def client(world, **options):
    """A peer that is logged in and has its connection open."""
    peer = connect(world)
    take(peer)
    found = ask(peer, wire10.init() + HEADER + wire10.open_connection(**options))
    assert found[2][0] == "open", found
    return peer


def session(world, **options):
    """A client with a session on channel 0."""
    peer = client(world, **options)
    found = ask(peer, wire10.begin())
    assert found[0][0] == "begin", found
    return peer


def names(found):
    return [row[0] for row in found]


def sender(peer, target, name="up", **options):
    """Attach a sender on handle 0: the credit it got."""
    found = ask(peer, wire10.attach_sender(name, target, **options))
    assert names(found) == ["attach", "flow"], found
    return found[1][2][6]


def receiver(peer, source, credit, name="down", handle=1, **options):
    """Attach a receiver and give it *credit*: what came at once, taken apart by deliveries()."""
    octets = wire10.attach_receiver(name, source, handle=handle, **options)
    found = ask(peer, octets + wire10.credit(handle, credit))
    assert found[0][0] == "attach", found
    return deliveries(found[1:])


def deliveries(found):
    """The transfers in *found*: [(delivery-id, settled, octets of the message)]."""
    whole = []
    under_way = None
    for row in found:
        if row[0] != "transfer":
            continue
        fields = row[2] + [None] * 6
        payload = row[3] if len(row) > 3 else b""
        if under_way is None:
            under_way = [fields[1], fields[4], b""]
        under_way[2] += payload
        if not fields[5]:
            whole.append(tuple(under_way))
            under_way = None
    assert under_way is None, "half a message"
    return whole


def outcomes(found):
    """What the dispositions in *found* say: [(first, last, settled, descriptor of the state)]."""
    return [
        (row[2][1], row[2][2] if row[2][2] is not None else row[2][1], row[2][3],
         row[2][4].descriptor)
        for row in found if row[0] == "disposition"
    ]  # fmt: skip
