"""Direct reply-to: answers without a queue of one's own."""

import wire
from world import World

ADDRESS = "amq.rabbitmq.reply-to"


def setting():
    """A world, a server that consumes requests, a client that waits for replies on channel 1."""
    world = World()
    server = world.client()
    server.queue("requests")
    server.ask(wire.consume(1, "requests", "s", no_ack=1))
    client = world.client()
    assert client.names(wire.consume(1, ADDRESS, "r", no_ack=1)) == ["basic.consume-ok"]
    return world, server, client


def reply_address(content):
    """The reply_to of a content that has only this property and a correlation id."""
    given = content[3]
    assert given[:2] == b"\x06\x00", given
    correlation, address = wire.strings(given, 2, 2)
    assert given == wire.properties(correlation_id=correlation, reply_to=address)
    return address


def test_a_reply_goes_straight_to_the_one_who_asked():
    world, server, client = setting()
    client.send(wire.publish(1, "", "requests", "ask", wire.properties(
        reply_to=ADDRESS, correlation_id="7")))  # fmt: skip
    content = server.contents()[0]
    address = reply_address(content)
    assert address.startswith(ADDRESS.encode() + b".") and content[4] == b"ask"
    server.send(wire.publish(1, "", address, "answer", wire.properties(correlation_id="7")))
    content = client.contents()[0]
    assert content[0] == "basic.deliver"
    assert (content[3], content[4]) == (wire.properties(correlation_id="7"), b"answer")


def test_other_properties_and_the_body_stay_as_they_are():
    world, server, client = setting()
    more = {"content_type": "text/plain", "headers": {"a": 1}, "message_id": "m", "app_id": "a",
            "correlation_id": "c" * 200}  # fmt: skip
    client.send(
        wire.publish(1, "", "requests", "b" * 3000, wire.properties(reply_to=ADDRESS, **more))
    )
    content = server.contents()[0]
    i = content[3].find(ADDRESS.encode())
    address = content[3][i : i + content[3][i - 1]]
    assert content[3] == wire.properties(reply_to=address, **more)
    assert content[4] == b"b" * 3000


def test_addresses_differ_and_end_with_their_channel():
    world, server, client = setting()
    client.open(2)
    client.ask(wire.consume(2, ADDRESS, "r", no_ack=1))
    ask = wire.properties(reply_to=ADDRESS, correlation_id="")
    client.send(
        wire.publish(1, "", "requests", "1", ask) + wire.publish(2, "", "requests", "2", ask)
    )
    one, two = [reply_address(content) for content in server.contents()]
    assert one != two
    client.ask(wire.close_channel(2))
    answer = wire.publish(1, "", two, "late", mandatory=1)
    assert server.names(answer)[0] == "basic.return"
    server.send(wire.publish(1, "", one, "in time"))
    assert client.bodies() == [b"in time"]


def test_a_reply_consumer_that_is_cancelled_may_be_made_again():
    world, server, client = setting()
    before = world.free()
    for _ in range(20):
        assert client.names(wire.cancel(1, "r") + wire.consume(1, ADDRESS, "r", no_ack=1)) == [
            "basic.cancel-ok", "basic.consume-ok",
        ]  # fmt: skip
    assert world.free() == before


def test_one_reply_consumer_for_each_channel():
    world, server, client = setting()
    assert client.refused(wire.consume(1, ADDRESS, "again", no_ack=1)) == ("channel", 406)


def test_replies_cannot_be_acknowledged():
    world = World()
    client = world.client()
    assert client.refused(wire.consume(1, ADDRESS, "r")) == ("channel", 406)


def test_a_reply_address_somewhere_else_in_the_message_is_left_alone():
    world, server, client = setting()
    for given in (
        wire.properties(reply_to="my.queue"),
        wire.properties(reply_to=ADDRESS + "."),
        wire.properties(reply_to=ADDRESS[:-1]),
        wire.properties(correlation_id=ADDRESS, message_id=ADDRESS),
    ):
        client.send(wire.publish(1, "", "requests", "x", given))
        assert server.contents()[0][3] == given


def test_the_consumer_goes_with_its_connection():
    world, server, client = setting()
    names = len(world.broker.queues)
    client.vanish()
    assert len(world.broker.queues) == names - 1
    assert server.works()


def test_nobody_else_consumes_from_a_reply_queue():
    world, server, client = setting()
    hidden = [name for name in world.broker.queues if name.startswith(b"amq.rabbitmq")][0]
    assert server.refused(wire.consume(1, hidden))[0] == "channel"
    assert server.send(wire.method(1, "channel.close-ok")).open(1).works()
