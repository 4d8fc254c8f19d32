"""The node /management, as RabbitMQ's AMQP 1.0 clients use it."""

import wire
import wire10
from amqp_lite.v10.performatives import PROPERTIES, described
from amqp_lite.v10.values import Described, Symbol, Typed, read_value, write_value
from clients10 import (
    ask,
    connect,
    deliveries,
    names,
    receiver,
    sender,
    session,
    take,
)
from wire10 import HEADER, message, transfer
from world import World

GUEST = b"\0guest\0guest"
SENSOR = b"\0sensor\0secret"


class Manager:
    """A peer with both links of /management, on handles 4 and 5 of its session."""

    def __init__(self, world, login=GUEST):
        self.peer = peer = connect(world)
        take(peer)
        ask(peer, wire10.init(login) + HEADER + wire10.open_connection())
        self.number = 0
        self.next_id = 0  # delivery-id, of all links
        octets = wire10.begin() + wire10.attach_sender("m", "/management", 4, settle=1)
        octets += wire10.attach_receiver("m", "/management", 5, settle=1)
        found = ask(peer, octets + wire10.credit(5, 1000))
        assert names(found) == ["begin", "attach", "flow", "attach"], found

    def ask(self, method, path, body=None):
        """(status, body) of the answer."""
        self.number += 1
        octets = described(PROPERTIES, self.number, None, path, method, "$me")
        octets += write_value(Described(Typed(0x53, 0x77), body))
        found = self.send(octets, 4)
        (row,) = deliveries(found)
        properties, i = read_value(row[2], 0)
        assert properties.value[5] == self.number
        application, i = read_value(row[2], i)
        assert application.value == {"http:response": "1.1"}
        return properties.value[3], read_value(row[2], i)[0].value

    def send(self, payload, handle):
        self.next_id += 1
        return ask(self.peer, transfer(payload, self.next_id - 1, handle, settled=handle == 4))

    def status(self, method, path, body=None):
        status, text = self.ask(method, path, body)
        assert not status.startswith("4") or isinstance(text, str)
        return status

    def queue(self, name, **body):
        status, answer = self.ask("PUT", "/queues/" + name, body)
        assert status in ("200", "201"), answer
        return answer


def map_of(found, name):
    """The typed values of the map that is the body of the answer in *found*."""
    octets = deliveries(found)[0][2]
    i = read_value(octets, read_value(octets, 0)[1])[1]
    pairs = read_value(octets, i, True)[0].value.value
    return [value for key, value in pairs if key.value == name]


def test_a_queue_declared_bound_and_used():
    world = World()
    free = world.free()
    manager = Manager(world)
    arguments = {"x-queue-type": "classic", "x-max-length": 10}
    body = {"durable": True, "exclusive": False, "auto_delete": False, "arguments": arguments}
    status, queue = manager.ask("PUT", "/queues/a%2Fb%20c", body)
    assert status == "201"
    assert queue == {
        "message_count": 0, "consumer_count": 0, "name": "a/b c", "vhost": "/", "durable": True,
        "auto_delete": False, "exclusive": False, "type": "classic", "arguments": arguments,
        "leader": "edge-1", "replicas": ["edge-1"],
    }  # fmt: skip
    assert manager.ask("PUT", "/queues/a%2Fb%20c", body)[0] == "200"
    body = {
        "source": "amq.topic", "destination_queue": "a/b c", "binding_key": "k.*",
        "arguments": {},
    }  # fmt: skip
    assert manager.ask("POST", "/bindings", body) == ("204", None)
    peer = manager.peer
    sender(peer, "/exchanges/amq.topic/k.1")
    for _ in range(3):
        manager.send(message(b"x"), 0)
    assert manager.ask("GET", "/queues/a%2Fb%20c")[1]["message_count"] == 3
    assert len(receiver(peer, "/queues/a%2Fb%20c", 1)) == 1
    queue = manager.ask("GET", "/queues/a%2Fb%20c")[1]
    assert (queue["message_count"], queue["consumer_count"]) == (2, 1)
    purged = manager.ask("DELETE", "/queues/a%2Fb%20c/messages")
    assert purged == ("200", {"message_count": 2})
    manager.send(message(b"x"), 0)
    octets = described(PROPERTIES, 0, None, "/queues/a%2Fb%20c", "DELETE", "$me")
    octets += write_value(Described(Typed(0x53, 0x77), None))
    found = manager.send(octets, 4)
    # The consumer's link ends with its queue.
    assert wire10.error_of([row for row in found if row[0] == "detach"][0])
    assert map_of(found, "message_count") == [Typed(0x80, 1)]
    assert manager.ask("GET", "/queues/a%2Fb%20c")[0] == "404"
    assert manager.ask("DELETE", "/queues/a%2Fb%20c") == ("200", {"message_count": 0})
    ask(peer, wire10.close())
    assert world.free() == free


def test_what_0_9_1_declared_is_the_same():
    world = World()
    other = world.client()
    other.queue("q", durable=1)
    other.send(wire.bind_queue(1, "q", "amq.topic", "k"))
    manager = Manager(world)
    # Who names no type means a classic queue, and who says so declares the same.
    assert manager.status("PUT", "/queues/q", {"arguments": {"x-queue-type": "classic"}}) == "200"
    assert manager.status("PUT", "/queues/q", {}) == "200"
    assert manager.ask("GET", "/queues/q")[1]["arguments"] == {}
    path = "/bindings?src=amq.topic&dstq=q&key=k"
    assert len(manager.ask("GET", path)[1]) == 1
    manager.queue("r", arguments={"x-queue-type": "classic", "x-max-length": 7})
    other.queue("r", durable=1, arguments={"x-max-length": 7})


def test_queues_that_cannot_be():
    world = World(queues=3)
    manager = Manager(world)
    other = Manager(world)
    manager.queue("q")
    manager.queue("mine", exclusive=True)
    for path, body, status in (
        ("/queues/q", {"durable": False}, "409"),
        ("/queues/q", {"arguments": {"x-max-length": 1}}, "409"),
        ("/queues/q", {"arguments": {"x-queue-type": "stream"}}, "409"),
        ("/queues/n", {"arguments": {"x-queue-type": "stream"}}, "409"),
        ("/queues/n", {"arguments": {"x-queue-type": "quorum"}}, "409"),
        ("/queues/n", {"arguments": {"x-max-priority": 5}}, "409"),
        ("/queues/mine", {"exclusive": True}, "400"),
        ("/queues/", {}, "400"),
        ("/queues/amq.mine", {}, "403"),
        ("/queues/a%0Ab", {}, "400"),
        ("/queues/a%zz", {}, "400"),
        ("/queues/" + 256 * "a", {}, "400"),
        ("/queues/n", None, "400"),
        ("/queues/n", [], "400"),
        ("/queues/n", {"unknown": True}, "400"),
        ("/queues/n", {"durable": 1}, "400"),
        ("/queues/n", {Symbol("durable"): True}, "400"),
        ("/queues/n", {"arguments": None}, "400"),
        ("/queues/n", {"arguments": {5: 5}}, "400"),
        ("/queues/n", {"arguments": {"k": Described(Symbol("a"), 1)}}, "400"),
        ("/queues/n", {"arguments": {"k" * 256: 1}}, "400"),
        ("/queues/n", {"arguments": {"k": list(range(40))}}, "409"),
    ):
        assert other.status("PUT", path, body) == status, (path, body)
    assert sorted(world.broker.queues) == [b"mine", b"q"]
    text = other.ask("PUT", "/queues/n", {"arguments": {"x-queue-type": "quorum"}})[1]
    assert text == "invalid arg 'x-queue-type': this broker has only classic"
    # A table that is full.
    manager.queue("last")
    assert manager.status("PUT", "/queues/more", {}) == "500"
    for method, path in (
        ("GET", "/queues/mine"), ("DELETE", "/queues/mine"), ("DELETE", "/queues/mine/messages")
    ):  # fmt: skip
        assert other.status(method, path) == "400"
    assert other.status("DELETE", "/queues/nothing/messages") == "404"
    manager.peer.vanish()
    assert other.status("GET", "/queues/mine") == "404"


def test_exchanges():
    manager = Manager(World())
    body = {"type": "fanout", "durable": True, "auto_delete": False, "internal": False}
    for _ in range(2):
        assert manager.ask("PUT", "/exchanges/e%26", body) == ("204", None)
    for path, body, status in (
        ("/exchanges/e%26", {"type": "topic"}, "409"),
        ("/exchanges/e%26", {}, "409"),
        ("/exchanges/f", {"type": "x-random"}, "400"),
        ("/exchanges/f", {"type": Symbol("fanout")}, "400"),
        ("/exchanges/f", {"arguments": {"x-what": 1}}, "409"),
        ("/exchanges/", {}, "403"),
        ("/exchanges/amq.mine", {}, "403"),
        ("/exchanges/amq.topic", {"type": "topic"}, "204"),
        ("/exchanges/f", {"arguments": {"alternate-exchange": "e&"}}, "204"),
    ):
        assert manager.status("PUT", path, body) == status, (path, body)
    assert manager.peer.world.broker.exchanges[b"f"].alternate == b"e&"
    for path, status in (
        ("/exchanges/amq.topic", "403"), ("/exchanges/", "403"), ("/exchanges/e%26", "204"),
        ("/exchanges/e%26", "204"),
    ):  # fmt: skip
        assert manager.status("DELETE", path) == status


def test_bindings():
    world = World()
    manager = Manager(world)
    manager.queue("q 1")
    manager.ask("PUT", "/exchanges/e", {"type": "headers"})
    binding = {"source": "e", "destination_queue": "q 1", "binding_key": "k/1"}
    several = ({}, {"x-match": "all", "n": 7}, {"n": 8, "s": "t", "deep": {"l": [1, True]}})
    for arguments in several:
        binding["arguments"] = arguments
        assert manager.status("POST", "/bindings", binding) == "204"
    found = manager.ask("GET", "/bindings?src=e&dstq=q+1&key=k%2F1")[1]
    assert [row["arguments"] for row in found] == list(several)
    assert found[0]["location"] == "/bindings/src=e;dstq=q%201;key=k%2F1;args="
    for row in found:
        location = row.pop("location")
        assert row.pop("arguments") in several
        assert row == {"source": "e", "destination_queue": "q 1", "binding_key": "k/1"}
    assert manager.status("DELETE", location) == "204"
    found = manager.ask("GET", "/bindings?key=k%2F1&dstq=q%201&src=e")[1]
    assert [row["arguments"] for row in found] == list(several[:2])
    # To an exchange.
    binding = {"source": "amq.topic", "destination_exchange": "e", "binding_key": ""}
    assert manager.status("POST", "/bindings", binding) == "204"
    path = "/bindings?src=amq.topic&dste=e&key="
    (row,) = manager.ask("GET", path)[1]
    assert row["destination_exchange"] == "e"
    assert manager.status("DELETE", row["location"]) == "204"
    assert manager.ask("GET", path) == ("200", [])
    # One that is not there is fine; also when its ends are not.
    for segment in (
        "src=e;dstq=q%201;key=other;args=", "src=e;dstq=q%201;key=k%2F1;args=AAAAAA",
        "src=e;dstq=nothing;key=;args=", "src=nothing;dste=e;key=;args=",
    ):  # fmt: skip
        assert manager.status("DELETE", "/bindings/" + segment) == "204", segment
    assert len(manager.ask("GET", "/bindings?src=e&dstq=q+1&key=k%2F1")[1]) == 2


def test_bindings_that_cannot_be():
    manager = Manager(World(bindings=1))
    manager.queue("q")
    for body, status in (
        ({"source": "amq.topic", "destination_queue": "nothing"}, "400"),
        ({"source": "nothing", "destination_queue": "q"}, "400"),
        ({"source": "", "destination_queue": "q"}, "403"),
        ({"source": "amq.topic", "destination_exchange": ""}, "403"),
        ({"source": "amq.topic"}, "400"),
        ({"source": "amq.topic", "destination_queue": "q", "destination_exchange": "e"}, "400"),
        ({"source": "amq.topic", "destination_queue": "q", "key": "k"}, "400"),
        ({"source": "a\n", "destination_queue": "q"}, "400"),
        (
            {
                "source": "amq.headers", "destination_queue": "q",
                "arguments": {"x-match": "some"},
            },
            "409",
        ),
        ({"source": "amq.topic", "destination_queue": "q", "binding_key": "k" * 256}, "400"),
        ({"source": "amq.topic", "destination_queue": "q"}, "204"),
        ({"source": "amq.topic", "destination_queue": "q", "binding_key": "more"}, "500"),
        ([], "400"),
    ):  # fmt: skip
        assert manager.status("POST", "/bindings", body) == status, body
    for method, path, status in (
        ("DELETE", "/bindings/src=e1;dstq=q1;invalidkey=k1;args=", "400"),
        ("DELETE", "/bindings/src=e1", "400"),
        ("DELETE", "/bindings/", "400"),
        ("DELETE", "/bindings/src=amq.topic;dstq=a%0Ab;key=;args=", "400"),
        ("DELETE", "/bindings/src=;dstq=q;key=;args=", "403"),
        ("GET", "/bindings", "400"),
        ("GET", "/bindings?src=amq.topic&key=", "400"),
        ("GET", "/bindings?src=amq.topic&dstq=q", "400"),
        ("GET", "/bindings?src=amq.topic&dstq=q&dste=q&key=", "400"),
    ):
        assert manager.status(method, path) == status, path


def test_other_paths():
    manager = Manager(World())
    for method, path, status in (
        ("GET", None, "400"), ("GET", "", "400"), ("GET", "queues/q", "400"),
        ("GET", "/", "404"), ("GET", "/queues", "404"), ("GET", "/queues/a/b", "404"),
        ("POST", "/queues/q", "404"), (None, "/queues/q", "404"), ("GET", "/exchanges/e", "404"),
        ("PUT", "/auth/tokens", "501"), ("GET", "/queues/q/messages", "404"),
    ):  # fmt: skip
        assert manager.ask(method, path, b"token")[0] == status, (method, path)


def test_permissions():
    world = World()
    Manager(world).queue("other")
    Manager(world).queue("sensors.a")
    manager = Manager(world, SENSOR)
    for method, path, body, status in (
        ("PUT", "/queues/sensors.b", {}, "201"),
        ("PUT", "/queues/new", {}, "403"),
        ("GET", "/queues/sensors.a", None, "200"),
        ("GET", "/queues/other", None, "403"),
        ("DELETE", "/queues/other", None, "403"),
        ("DELETE", "/queues/other/messages", None, "403"),
        ("DELETE", "/queues/sensors.b/messages", None, "403"),
        ("DELETE", "/queues/sensors.a/messages", None, "200"),
        ("PUT", "/exchanges/e", {}, "403"),
        ("PUT", "/exchanges/sensors.e", {}, "204"),
        ("PUT", "/exchanges/sensors.f", {"arguments": {"alternate-exchange": "x"}}, "403"),
        ("DELETE", "/exchanges/e", None, "403"),
        ("POST", "/bindings", {"source": "amq.topic", "destination_queue": "sensors.a"}, "403"),
        ("POST", "/bindings", {"source": "sensors.e", "destination_queue": "other"}, "403"),
        ("DELETE", "/bindings/src=amq.topic;dstq=sensors.a;key=;args=", None, "403"),
        ("GET", "/bindings?src=amq.topic&dstq=sensors.a&key=", None, "403"),
        ("DELETE", "/queues/sensors.b", None, "200"),
    ):
        assert manager.status(method, path, body) == status, (method, path)
    text = manager.ask("DELETE", "/queues/other")[1]
    assert text == "configure access to queue 'other' in vhost '/' refused for user 'sensor'"


def test_durable_queues_survive():
    world = World()
    manager = Manager(world)
    manager.queue("q", arguments={"x-max-length": 3, "note": "text"})
    manager.ask("PUT", "/exchanges/e", {})
    binding = {"source": "e", "destination_queue": "q", "arguments": {"n": -1, "a": "b"}}
    manager.ask("POST", "/bindings", binding)
    path = "/bindings?src=e&dstq=q&key="
    before = manager.ask("GET", path)[1]
    queue = manager.ask("GET", "/queues/q")[1]
    manager.peer.engine = manager = None
    manager = Manager(world.restart())
    assert manager.ask("GET", path)[1] == before
    assert manager.ask("GET", "/queues/q")[1] == queue


def test_messages_of_a_full_pool_can_be_purged():
    world = World()
    manager = Manager(world)
    manager.queue("q", durable=False)
    peer = session(world)
    sender(peer, "/queues/q")
    pool = world.broker.pool
    k = 0
    while not peer.engine.stalled:
        peer.send(transfer(message(b"x" * 900), k, settled=True))
        k += 1
    assert pool.available < 9
    status, body = manager.ask("DELETE", "/queues/q/messages")
    assert status == "200" and body["message_count"] == k - 1
    assert not peer.engine.stalled
