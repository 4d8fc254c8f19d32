"""What a review found once: each was wrong, and stays right."""

import wire
from world import World


def test_closing_a_channel_spares_a_queue_that_took_the_place_of_its_reply_queue():
    world = World()
    peer = world.client()
    peer.ask(wire.consume(1, "amq.rabbitmq.reply-to", "r", no_ack=1))
    reply = [name for name in world.broker.queues if name.startswith(b"amq.rabbitmq.reply-to.")][0]
    world.broker.delete_queue(world.broker.queues[reply])
    other = world.client()
    other.queue("victim")
    other.ask(wire.publish(1, "", "victim", "x"))
    peer.ask(wire.close_channel(1))
    assert world.broker.queues[b"victim"].ready.count == 1


def test_an_ack_of_many_ends_with_a_publish_that_was_not_refused():
    world = World()
    peer = world.client()
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    peer.queue("q", arguments=arguments)
    peer.ask(wire.select_confirms(1))
    octets = wire.publish(1, "", "q", "a") + wire.publish(1, "", "q", "b")
    answers = [(name, payload[7]) for _, name, payload in peer.ask(octets)]
    assert sorted(answers) == [("basic.ack", 1), ("basic.nack", 2)]


def test_a_refused_login_hears_nothing_more_until_the_answer():
    world = World()
    peer = world.connect()
    wrong = wire.start_ok("\0guest\0wrong")
    names = peer.names(wrong + wire.start_ok("\0guest\0guest"))
    assert names == ["connection.start"]
    assert peer.names() == []


def test_messages_of_two_queues_come_back_in_their_order():
    world = World()
    peer = world.client()
    for name in ("a", "b"):
        peer.queue(name)
        peer.ask(wire.consume(1, name, name))
    for k in range(3):
        peer.ask(wire.publish(1, "", "a", "a%d" % k) + wire.publish(1, "", "b", "b%d" % k))
    bodies = peer.bodies(wire.nack(1, 0, multiple=1, requeue=1))
    for letter in (b"a", b"b"):
        mine = [body for body in bodies if body[:1] == letter]
        assert mine[-3:] == [letter + b"0", letter + b"1", letter + b"2"], bodies


def test_an_alternate_exchange_needs_the_right_to_publish_there():
    world = World()
    peer = world.client(user="sensor", password="secret")
    alternate = {"alternate-exchange": "elsewhere"}
    octets = wire.declare_exchange(1, "sensors.x", "topic", arguments=alternate)
    assert peer.refused(octets) == ("channel", 403)


def test_a_confirm_waits_for_a_commit_that_worked():
    world = World()
    peer = world.client()
    peer.ask(wire.select_confirms(1))
    store = world.broker.store
    commit = store.commit
    store.commit = lambda: False
    assert peer.names(wire.publish(1, "", "nobody", "x")) == []
    store.commit = commit
    assert peer.names() == ["basic.ack"]
