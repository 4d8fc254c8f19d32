"""Heartbeats both ways, and deadlines of half frames and half messages, by the clock."""

import wire
from world import World


def test_a_silent_broker_sends_a_heartbeat_each_half_interval():
    world = World()
    peer = world.connect().login(heartbeat=10).open(1)
    for _ in range(4):
        world.wait(4500)
        assert peer.names() == []
        world.wait(1000)
        assert peer.names(wire.HEARTBEAT) == ["heartbeat"]
        world.wait(0)
        world.broker.now -= 500  # count the next interval from the heartbeat


def test_a_broker_that_talks_needs_no_heartbeat():
    world = World()
    peer = world.connect().login(heartbeat=10).open(1)
    for _ in range(10):
        world.wait(2500)
        assert peer.names(wire.purge_queue(1, peer.queue("q"))) == ["queue.purge-ok"]


def test_a_peer_silent_for_two_intervals_is_cut():
    world = World()
    peer = world.connect().login(heartbeat=10).open(1)
    world.wait(20000)
    assert not peer.gone
    world.wait(500)
    assert peer.gone
    assert world.broker.metrics.peers_cut == 1


def test_a_peer_that_sends_heartbeats_stays():
    world = World()
    peer = world.connect().login(heartbeat=10).open(1)
    for _ in range(6):
        world.wait(10000)
        peer.send(wire.HEARTBEAT)
    assert not peer.gone
    peer.take()
    assert peer.works()


def test_any_octet_is_a_sign_of_life():
    world = World()
    peer = world.connect().login(heartbeat=10).open(1)
    for octet in wire.open_channel(2)[:6]:
        world.wait(10000)
        peer.send(bytes([octet]))
    assert not peer.gone


def test_without_heartbeats_silence_is_no_fault():
    world = World()
    peer = world.client()
    world.wait(300000)
    assert not peer.gone
    assert peer.names() == []
    assert peer.works()


def test_a_heartbeat_waits_for_the_end_of_a_body():
    world = World()
    peer = world.connect().login(heartbeat=10).open(1)
    peer.queue("q")
    peer.send(wire.publish(1, "", "q", "b" * 6000))
    peer.reading = False
    peer.send(wire.get(1, "q"))
    world.wait(6000)
    peer.reading = True
    world.run()
    assert peer.bodies() == [b"b" * 6000]


def test_a_peer_that_does_not_read_is_cut_in_the_end():
    world = World()
    peer = world.connect().login(heartbeat=10).open(1)
    peer.queue("q")
    peer.reading = False
    for _ in range(14):
        world.wait(5000)
        if not peer.gone:
            peer.send(wire.HEARTBEAT)
    assert peer.gone


def test_a_frame_that_does_not_end_is_cut():
    world = World()
    peer = world.connect().login(heartbeat=40).open(1)
    octets = wire.declare_queue(1, "q" * 200)
    for k in range(90):
        if peer.gone:
            break
        peer.send(octets[k : k + 1])
        world.wait(1000)
    assert peer.gone
    assert 79 <= k <= 82


def test_a_body_that_does_not_end_is_cut_and_its_room_is_free_again():
    world = World()
    other = world.client()
    before = world.free()
    peer = world.connect().login(heartbeat=10).open(1).open(2).open(3)
    peer.send(wire.publish_method(1, "", "q") + wire.header(1, 500) + wire.body(1, b"some"))
    peer.send(wire.publish_method(2, "", "q") + wire.header(2, 500))
    for _ in range(14):
        if not peer.gone:
            peer.send(wire.HEARTBEAT)
        world.wait(5000)
    assert peer.gone
    assert world.broker.metrics.peers_cut == 1
    assert world.free() == before
    assert other.works()


def test_a_frame_begun_after_a_long_silence_has_its_own_time_to_end():
    world = World()
    peer = world.client()
    world.wait(200000)
    octets = wire.open_channel(2)
    peer.send(octets[:5])
    world.wait(5000)
    assert not peer.gone
    assert peer.names(octets[5:]) == ["channel.open-ok"]


def test_the_time_of_a_close_without_an_answer_is_two_seconds():
    world = World()
    peer = world.client()
    assert peer.names(wire.frame(7, 0, b"")) == ["connection.close"]
    world.wait(1750)
    assert not peer.gone
    world.wait(500)
    assert peer.gone
