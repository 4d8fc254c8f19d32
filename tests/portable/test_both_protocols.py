"""One queue, two protocols: what a client of one publishes, a client of the other consumes."""

import wire
import wire10
from amqp_lite.local import Received
from amqp_lite.v091.properties import read_properties
from amqp_lite.v10.values import Described, Symbol, Typed, write_value
from clients10 import ask, deliveries, outcomes, receiver, sender, session, take
from ramflash import RamFlash
from wire10 import message, sections, transfer
from world import World

HEADER, ANNOTATIONS, PROPERTIES, APPLICATION, DATA, VALUE = 0x70, 0x72, 0x73, 0x74, 0x75, 0x77


def got(content):
    """(properties, body) of a content of 0-9-1."""
    return read_properties(content[3], 0), content[4]


def value_message(value, **more):
    """A message of 1.0 whose body is one value."""
    whole = message(b"", **more)
    return whole[: len(whole) - 5] + write_value(Described(Typed(0x53, VALUE), value))


def test_0_9_1_to_1_0():
    world = World()
    old = world.client()
    old.queue("q")
    free = world.free()
    given = wire.properties(
        content_type="text/plain", headers={"room": "k1"}, message_id="m1",
        reply_to="answers", delivery_mode=1,
    )
    old.send(wire.publish(1, "", "q", "21.5", given))
    new = session(world)
    number, settled, payload = receiver(new, "q", 5)[0]
    found = sections(payload)
    assert found[DATA] == b"21.5" and not settled
    assert found[HEADER][:1] == [False]
    assert found[ANNOTATIONS][Symbol("x-routing-key")] == "q"
    assert found[ANNOTATIONS][Symbol("x-exchange")] == ""
    assert found[PROPERTIES][0] == "m1" and found[PROPERTIES][4] == "/queues/answers"
    assert found[APPLICATION] == {"room": "k1"}
    ask(new, wire10.disposition(number) + wire10.close())
    assert world.free() == free


def test_1_0_to_0_9_1():
    world = World()
    old = world.client()
    old.queue("q")
    free = world.free()
    new = session(world)
    sender(new, "/exchanges/amq.topic/a.b")
    old.send(wire.bind_queue(1, "q", "amq.topic", "a.*"))
    old.take()
    payload = message(b"21.5", headers={"room": "k1"}, subject="s")
    assert outcomes(ask(new, transfer(payload) + transfer(payload, 1)))[0][3] == 0x24
    contents = old.contents(wire.get(1, "q", no_ack=1))
    properties, body = got(contents[0])
    assert body == b"21.5" and properties["headers"] == {b"room": b"k1"}
    assert wire.strings(contents[0][1], 9, 2)[:2] == [b"amq.topic", b"a.b"]
    contents = old.contents(wire.consume(1, "q", "c"))
    assert got(contents[0])[1] == b"21.5"
    old.send(wire.ack(1, 2) + wire.unbind_queue(1, "q", "amq.topic", "a.*"))
    ask(new, wire10.close())
    old.send(wire.cancel(1, "c"))
    assert world.free() == free


def test_values_come_encoded_and_go_back_as_they_were():
    world = World()
    old = world.client()
    old.queue("q")
    old.queue("back")
    new = session(world)
    sender(new, "q")
    payload = value_message({"t": 21})
    ask(new, transfer(payload))
    properties, body = got(old.contents(wire.get(1, "q", no_ack=1))[0])
    assert properties["type"] == b"amqp-1.0" and payload.endswith(body)
    old.send(wire.publish(1, "", "back", body, wire.properties(type="amqp-1.0")))
    assert sections(receiver(new, "back", 1)[0][2])[VALUE] == {"t": 21}
    # One that lies is data.
    old.send(wire.publish(1, "", "back", body[:-1], wire.properties(type="amqp-1.0")))
    found = deliveries(ask(new, wire10.credit(1, 1, 1)))
    assert sections(found[0][2])[DATA] == body[:-1]


def test_through_the_store_and_a_restart():
    world = World()
    old = world.client()
    old.queue("q", durable=1)
    new = session(world)
    sender(new, "q")
    payload = message(b"new", durable=True, headers={"k": 7})
    assert outcomes(ask(new, transfer(payload)))[0][3] == 0x24
    old.send(wire.publish(1, "", "q", "old", wire.properties(delivery_mode=2)))
    world = world.restart()
    new = session(world)
    found = receiver(new, "q", 1)
    assert found[0][2].endswith(payload[payload.index(b"\0\x53\x74") :])  # as it came
    ask(new, wire10.disposition(found[0][0]))
    found = deliveries(ask(new, wire10.credit(1, 1, 1)))
    assert sections(found[0][2])[DATA] == b"old"
    ask(new, wire10.disposition(found[0][0], state=0x26))
    new.vanish()
    old = world.client()
    assert got(old.contents(wire.get(1, "q", no_ack=1))[0])[1] == b"old"


def test_a_long_body_goes_to_the_store_as_it_comes_and_to_both():
    body = bytes([65 + k % 26 for k in range(12000)])
    for direction in (0, 1):
        world = World(flash=RamFlash(28, 1024, 64))
        old = world.client()
        old.queue("q", durable=1)
        free = world.free()
        new = session(world)
        if direction:
            old.send(wire.publish(1, "", "q", body, wire.properties(delivery_mode=2)))
        else:
            sender(new, "q")
            whole = message(body, durable=True)
            least = world.broker.pool.available
            for i in range(0, len(whole), 500):
                take(new)
                ask(new, transfer(whole[i : i + 500], None if i else 0,
                                  more=i + 500 < len(whole) or None))  # fmt: skip
                least = min(least, world.broker.pool.available)
            assert world.broker.pool.blocks - least < 8  # blocks: not in RAM
        for _ in range(2):
            found = receiver(new, "q", 1)
            assert sections(found[0][2])[DATA] == body
            ask(new, wire10.disposition(found[0][0], state=0x26) + wire10.detach(1))
            properties, received = got(old.contents(wire.get(1, "q"))[0])
            assert received == body and properties["delivery_mode"] == 2
            old.send(wire.close_channel(1) + wire.open_channel(1))
        old.take()
        old.send(wire.purge_queue(1, "q"))
        new.vanish()
        assert world.free() == free


def test_headers_exchanges_see_application_properties():
    world = World()
    old = world.client()
    old.queue("hot")
    old.queue("cold")
    for name, value in (("hot", "yes"), ("cold", "no")):
        arguments = {"x-match": "all", "hot": value}
        old.send(wire.bind_queue(1, name, "amq.headers", "", arguments))
    old.take()
    new = session(world)
    sender(new, "/exchanges/amq.headers")
    state = outcomes(ask(new, transfer(message(b"1", headers={"hot": "yes"}))))[0][3]
    assert state == 0x24
    assert outcomes(ask(new, transfer(message(b"2", headers={"hot": "?"}), 1)))[0][3] == 0x26
    assert old.bodies(wire.get(1, "hot", no_ack=1) + wire.get(1, "cold", no_ack=1)) == [b"1"]


def test_a_0_9_1_client_calls_a_1_0_service():
    world = World()
    old = world.client()
    old.queue("service")
    old.send(wire.consume(1, "amq.rabbitmq.reply-to", no_ack=1))
    given = wire.properties(reply_to="amq.rabbitmq.reply-to", correlation_id="7")
    old.send(wire.publish(1, "", "service", "2+2", given))
    old.take()
    new = session(world)
    sender(new, None)
    request = sections(receiver(new, "service", 1)[0][2])
    assert request[DATA] == b"2+2"
    reply = message(b"4", to=request[PROPERTIES][4])
    assert outcomes(ask(new, transfer(reply)))[0][3] == 0x24
    assert old.bodies() == [b"4"]


def test_a_1_0_client_calls_a_0_9_1_service():
    world = World()
    old = world.client()
    old.queue("service")
    new = session(world)
    found = ask(new, wire10.attach_receiver("answers", None, handle=1, dynamic=True))
    address = found[0][2][5].value[0]
    take(new)
    sender(new, "service")
    properties = [None] * 4 + [address]
    request = write_value(Described(Typed(0x53, PROPERTIES), properties)) + message(b"2+2")
    ask(new, wire10.credit(1, 1) + transfer(request))
    properties, body = got(old.contents(wire.get(1, "service", no_ack=1))[0])
    assert body == b"2+2"
    old.send(wire.publish(1, "", str(properties["reply_to"], "utf-8"), "4"))
    assert sections(deliveries(take(new))[0][2])[DATA] == b"4"


def test_code_on_the_board_gets_1_0_as_0_9_1():
    world = World()
    old = world.client()
    old.queue("q")
    new = session(world)
    sender(new, "q")
    ask(new, transfer(message(b"21.5", headers={"k": "v"})))
    queue = world.broker.queues[b"q"]
    received = Received(world.broker, queue.first().message, False)
    assert received.body == b"21.5" and received.routing_key == "q"
    assert received.properties["headers"] == {b"k": b"v"}


def test_properties_too_long_for_a_client_are_left_out():
    world = World(send_buffer=2048)
    old = world.client()
    old.queue("q")
    new = session(world)
    sender(new, "q")
    payload = message(b"x", headers={"list%d" % k: 0 for k in range(90)})
    assert outcomes(ask(new, transfer(payload)))[0][3] == 0x24
    properties, body = got(old.contents(wire.get(1, "q", no_ack=1))[0])
    assert body == b"x"
    assert len(properties.get("headers") or {}) in (0, 90)
