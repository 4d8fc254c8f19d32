"""Arguments that are kept are few: read, a table of small fields takes many times its octets."""

import wire
from world import World


def test_a_binding_keeps_at_most_32_arguments():
    world = World()
    peer = world.client()
    peer.queue("q")
    few = {"k%d" % k: k for k in range(31)}
    peer.ask(wire.bind_queue(1, "q", "amq.headers", "", few))
    before = world.free()
    many = {"k%d" % k: k for k in range(40)}
    assert peer.refused(wire.bind_queue(1, "q", "amq.headers", "", many)) == ("channel", 406)
    assert world.free()["bindings"] == before["bindings"]


def test_a_queue_keeps_at_most_32_arguments():
    world = World()
    peer = world.client()
    many = {"k%d" % k: k for k in range(40)}
    assert peer.refused(wire.declare_queue(1, "q", arguments=many)) == ("channel", 406)
    assert b"q" not in world.broker.queues
