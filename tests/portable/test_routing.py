"""Where messages go: exchanges, bindings between them, alternate exchanges, the route cache."""

import wire
from amqp_lite.broker.exchange import DIRECT, FANOUT, HEADERS, TOPIC
from amqp_lite.errors import AccessRefused, NotFound, PreconditionFailed, ResourceLimitExceeded
from world import World


class Map:
    """A broker whose bindings are written down in one line each."""

    def __init__(self, **numbers):
        self.world = World(**numbers)
        self.broker = self.world.broker

    def exchange(self, name, kind=TOPIC, auto_delete=False, **arguments):
        arguments = {key.replace("_", "-").encode(): arguments[key] for key in arguments}
        return self.broker.declare_exchange(name, kind, False, auto_delete, False, arguments)

    def queue(self, name):
        return self.broker.declare_queue(name, False, None, False, {})

    def bind(self, source, key, *destinations, **headers):
        """Bind exchanges or queues, which are made when they do not exist."""
        for name in destinations:
            found = self.broker.exchanges.get(name) or self.broker.queues.get(name)
            self.broker.bind(self.broker.exchange(source), found or self.queue(name), key, {
                name.replace("_", "-").encode(): headers[name] for name in headers
            })  # fmt: skip

    def unbind(self, source, key, destination):
        found = self.broker.exchanges.get(destination) or self.broker.queue(destination)
        self.broker.unbind(self.broker.exchange(source), found, key, {})

    def publish(self, exchange, key, given=b"\0\0"):
        """The names of the queues a message got to, sorted."""
        head = wire.short(exchange) + wire.short(key)
        octets = memoryview(head + given)
        route = self.broker.route(octets, 0, len(head))
        message = self.broker.pool.begin(len(octets))
        self.broker.pool.write(message, octets, 0, len(octets))
        message.head = len(head)
        message.properties = len(given)
        message.body = 0
        self.broker.publish(message, route, route.stamp)
        self.broker.pool.release(message)
        names = []
        for name in self.broker.queues:
            names += [name] * self.broker.queues[name].purge()
        return sorted(names)

    def error(self, function, *arguments):
        try:
            function(*arguments)
        except (AccessRefused, NotFound, PreconditionFailed, ResourceLimitExceeded) as error:
            return error.code
        return None


def test_the_default_exchange_knows_every_queue_by_name():
    m = Map()
    m.queue(b"a")
    m.queue(b"b")
    assert m.publish(b"", b"a") == [b"a"]
    assert m.publish(b"", b"c") == []
    assert m.error(m.bind, b"", b"k", b"a") == 403
    assert m.error(m.unbind, b"", b"a", b"a") == 403


def test_direct_fanout_and_topic():
    m = Map()
    m.bind(b"amq.direct", b"k", b"a", b"b")
    m.bind(b"amq.direct", b"", b"c")
    m.bind(b"amq.fanout", b"whatever", b"a", b"c")
    m.bind(b"amq.topic", b"t.#", b"a")
    m.bind(b"amq.topic", b"*.u", b"b")
    assert m.publish(b"amq.direct", b"k") == [b"a", b"b"]
    assert m.publish(b"amq.direct", b"") == [b"c"]
    assert m.publish(b"amq.direct", b"kk") == []
    assert m.publish(b"amq.fanout", b"k") == [b"a", b"c"]
    assert m.publish(b"amq.topic", b"t.u") == [b"a", b"b"]
    assert m.publish(b"amq.topic", b"t") == [b"a"]
    assert m.error(m.publish, b"nowhere", b"k") == 404


def test_a_headers_exchange_looks_at_every_message_anew():
    m = Map()
    m.bind(b"amq.headers", b"", b"a", kind=b"hot")
    m.bind(b"amq.headers", b"", b"b", kind=b"cold")
    m.bind(b"amq.headers", b"", b"all")
    for kind, names in (("hot", [b"a", b"all"]), ("cold", [b"all", b"b"]), ("?", [b"all"])):
        assert m.publish(b"amq.headers", b"", wire.properties(headers={"kind": kind})) == names
    assert m.publish(b"amq.headers", b"") == [b"all"]


def test_a_queue_bound_twice_gets_one_copy():
    m = Map()
    m.bind(b"amq.topic", b"a.*", b"q")
    m.bind(b"amq.topic", b"*.b", b"q")
    m.bind(b"amq.topic", b"#", b"q")
    assert m.publish(b"amq.topic", b"a.b") == [b"q"]


def test_the_same_binding_twice_is_one_binding():
    m = Map()
    m.bind(b"amq.topic", b"k", b"q")
    m.bind(b"amq.topic", b"k", b"q")
    assert m.broker.bindings.free == 31
    m.unbind(b"amq.topic", b"k", b"q")
    m.unbind(b"amq.topic", b"k", b"q")
    assert m.broker.bindings.free == 32
    assert m.publish(b"amq.topic", b"k") == []


def test_loops_between_exchanges_are_cut():
    m = Map()
    for name in (b"x", b"y", b"z"):
        m.exchange(name, FANOUT)
    m.bind(b"x", b"", b"y", b"q1")
    m.bind(b"y", b"", b"z", b"x", b"y", b"q2")
    m.bind(b"z", b"", b"x", b"q1", b"q3")
    for name in (b"x", b"y", b"z"):
        assert m.publish(name, b"k") == [b"q1", b"q2", b"q3"], name


def test_every_exchange_of_a_chain_matches_the_key():
    m = Map()
    m.exchange(b"x")
    m.exchange(b"y", DIRECT)
    m.bind(b"x", b"a.#", b"y")
    m.bind(b"y", b"a.b", b"q")
    assert m.publish(b"x", b"a.b") == [b"q"]
    assert m.publish(b"x", b"a.c") == []


def test_a_headers_exchange_at_the_end_of_a_chain_sees_the_headers():
    m = Map()
    m.exchange(b"x", FANOUT)
    m.exchange(b"h", HEADERS)
    m.bind(b"x", b"", b"h")
    m.bind(b"h", b"", b"q", kind=b"hot")
    assert m.publish(b"x", b"", wire.properties(headers={"kind": "hot"})) == [b"q"]
    assert m.publish(b"x", b"", wire.properties(headers={"kind": "cold"})) == []


def test_what_nobody_wants_goes_to_the_alternate_exchange():
    m = Map()
    m.exchange(b"rest", FANOUT)
    m.exchange(b"x", DIRECT, alternate_exchange=b"rest")
    m.bind(b"x", b"k", b"q")
    m.bind(b"rest", b"", b"others")
    assert m.publish(b"x", b"k") == [b"q"]
    assert m.publish(b"x", b"j") == [b"others"]


def test_alternate_exchanges_that_are_missing_or_each_other_end_nowhere():
    m = Map()
    m.exchange(b"x", DIRECT, alternate_exchange=b"y")
    assert m.publish(b"x", b"k") == []
    m.exchange(b"y", DIRECT, alternate_exchange=b"x")
    assert m.publish(b"x", b"k") == []
    m.bind(b"y", b"k", b"q")
    assert m.publish(b"x", b"k") == [b"q"]
    m.broker.delete_exchange(b"y")
    assert m.publish(b"x", b"k") == []


def test_the_alternate_of_a_headers_exchange_waits_for_the_headers():
    m = Map()
    m.exchange(b"rest", FANOUT)
    m.exchange(b"h", HEADERS, alternate_exchange=b"rest")
    m.bind(b"h", b"", b"q", kind=b"hot")
    m.bind(b"rest", b"", b"others")
    assert m.publish(b"h", b"", wire.properties(headers={"kind": "hot"})) == [b"q"]
    assert m.publish(b"h", b"", wire.properties(headers={"kind": "cold"})) == [b"others"]
    assert m.publish(b"h", b"") == [b"others"]


def test_cached_routes_are_forgotten_when_anything_changes():
    m = Map()
    m.exchange(b"x")
    m.bind(b"x", b"#", b"a")
    assert m.publish(b"x", b"k") == [b"a"]
    m.bind(b"x", b"k", b"b")
    assert m.publish(b"x", b"k") == [b"a", b"b"]
    m.unbind(b"x", b"#", b"a")
    assert m.publish(b"x", b"k") == [b"b"]
    m.broker.delete_queue(m.broker.queue(b"b"))
    assert m.publish(b"x", b"k") == []
    m.bind(b"x", b"k", b"b")
    assert m.publish(b"x", b"k") == [b"b"]
    m.exchange(b"y")
    m.bind(b"y", b"k", b"c")
    m.bind(b"x", b"k", b"y")
    assert m.publish(b"x", b"k") == [b"b", b"c"]
    m.broker.delete_exchange(b"y")
    assert m.publish(b"x", b"k") == [b"b"]
    m.broker.delete_exchange(b"x")
    assert m.error(m.publish, b"x", b"k") == 404
    m.exchange(b"x")
    assert m.publish(b"x", b"k") == []


def test_keys_that_share_a_place_in_the_cache_do_not_mix():
    m = Map(routes=1)
    for k in range(6):
        m.bind(b"amq.direct", b"%d" % k, b"q%d" % k)
    for k in (0, 1, 2, 1, 1, 5, 4, 3, 0):
        assert m.publish(b"amq.direct", b"%d" % k) == [b"q%d" % k]
    assert m.publish(b"", b"q1") == [b"q1"]


def test_long_keys_are_routed_without_the_cache():
    m = Map(route_key=20)
    for key in (b"k" * 10, b"k" * 11, b"k" * 255):
        m.bind(b"amq.topic", key, b"q%d" % len(key))
    for key in (b"k" * 255, b"k" * 10, b"k" * 11, b"k" * 254, b"k" * 255):
        names = [] if len(key) == 254 else [b"q%d" % len(key)]
        assert m.publish(b"amq.topic", key) == names


def test_routes_may_lead_to_every_queue_there_is():
    m = Map()
    names = sorted([b"q%02d" % k for k in range(16)])
    m.bind(b"amq.fanout", b"", *names)
    assert m.publish(b"amq.fanout", b"") == names
    assert m.publish(b"amq.fanout", b"") == names


def test_full_tables_are_told_and_nothing_is_half_made():
    m = Map()
    m.bind(b"amq.topic", b"#", *[b"q%d" % k for k in range(16)])
    assert m.error(m.queue, b"one more") == 506
    m.bind(b"amq.direct", b"k", *[b"q%d" % k for k in range(16)])
    before = m.world.free()
    assert m.error(m.bind, b"amq.fanout", b"k", b"q0") == 506
    while not m.error(m.exchange, b"x%d" % m.broker.exchange_table.free):
        pass
    before["names"] = (16, 12)
    before["exchanges"] = 0
    assert m.world.free() == before
    assert m.publish(b"amq.fanout", b"k") == []


def test_an_auto_delete_exchange_goes_with_its_last_binding():
    m = Map()
    before = m.world.free()
    m.exchange(b"x", TOPIC, auto_delete=True)
    m.exchange(b"y", TOPIC, auto_delete=True)
    m.bind(b"x", b"#", b"y")
    m.bind(b"y", b"a", b"q")
    m.bind(b"y", b"b", b"q")
    m.unbind(b"y", b"a", b"q")
    assert b"y" in m.broker.exchanges
    m.broker.delete_queue(m.broker.queue(b"q"))
    assert m.world.free() == before


def test_deleting_takes_the_bindings_on_both_sides_along():
    m = Map()
    before = m.world.free()
    m.exchange(b"x")
    m.bind(b"amq.topic", b"#", b"x", b"q")
    m.bind(b"x", b"#", b"q")
    assert m.error(m.broker.delete_exchange, b"x", True) == 406
    m.broker.delete_exchange(b"x")
    m.broker.delete_queue(m.broker.queue(b"q"))
    m.broker.delete_exchange(b"x")
    assert m.world.free() == before
    assert m.error(m.broker.delete_exchange, b"amq.topic") == 403
