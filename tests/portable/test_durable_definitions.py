"""Durable queues, exchanges and bindings: what clients declared is there after a power cut."""

import struct

import wire
from amqp_lite.errors import ResourceLimitExceeded
from ramflash import RamFlash
from stored import SMALL, counts, cut, drain, kept, numbers, publish
from world import World

# A field of each type, as a client may write it: letter and octets.
FIELDS = (
    ("t", b"\x01"), ("b", b"\xff"), ("B", b"\xff"), ("s", b"\x80\x00"), ("u", b"\x80\x00"),
    ("U", b"\xff\xfe"), ("I", b"\x80\x00\x00\x00"), ("i", b"\xff\xff\xff\xff"),
    ("l", b"\x80" + bytes(7)), ("L", b"\x7f" + b"\xff" * 7), ("T", b"\xff" * 8),
    ("f", struct.pack(">f", 1.5)), ("d", struct.pack(">d", -0.1)), ("D", b"\x02\x00\x00\x01\x3a"),
    ("V", b""), ("S", wire.long("text")), ("x", wire.long(b"\x00\xff")), ("S", wire.long("")),
    ("F", wire.table({"a": {"b": [1, None, {"c": "d"}]}})), ("F", wire.table({})),
    ("A", wire.long(wire.value(1) + wire.value("two") + wire.value([None, True]))),
    ("A", wire.long("")),
)  # fmt: skip
ALL = b"".join([wire.field("field%d" % k, FIELDS[k][0], FIELDS[k][1]) for k in range(12)])
REST = b"".join([wire.field("field%d" % k, *FIELDS[k]) for k in range(12, len(FIELDS))])


def names(world):
    """What there is beside the predeclared, and the bindings."""
    broker = world.broker
    bindings = []
    for exchange in broker.exchanges.values():
        for binding in exchange.bindings:
            bindings.append((exchange.name, binding.destination.name, binding.key))
    return (
        sorted(broker.queues),
        sorted([name for name in broker.exchanges if name and not name.startswith(b"amq.")]),
        sorted(bindings),
    )


def free(world):
    """world.free() without what a cut changes: marks, merges and who is connected."""
    found = world.free()
    del found["stored"], found["channels"]
    return found


def test_queues_are_there_with_all_their_arguments():
    arguments = {
        "x-message-ttl": 100000, "x-expires": 200000, "x-max-length": 5,
        "x-max-length-bytes": 1000, "x-overflow": "reject-publish", "x-queue-type": "classic",
    }  # fmt: skip
    world = World(flash=RamFlash(16, 4096, 256))
    peer = world.client()
    peer.queue("q", durable=1, arguments=arguments)
    peer.queue("all", durable=1, arguments=ALL)
    peer.queue("rest", durable=1, arguments=REST)
    peer.queue("q" * 255, durable=1, auto_delete=1)
    peer.queue("transient")
    before = names(world)[0]
    before.remove(b"transient")
    kept_arguments = [world.broker.queue(name).arguments for name in before]
    for _ in range(3):
        world, peer = cut(world)
        assert names(world)[0] == before
        assert [world.broker.queue(name).arguments for name in before] == kept_arguments
        queue = world.broker.queue(b"q")
        assert (queue.ttl_ms, queue.expires_ms) == (100000, 200000)
        assert (queue.max_length, queue.max_octets) == (5, 1000)
        # Declared again they are the same, for a client that says the same.
        peer.queue("q", durable=1, arguments=arguments)
        peer.queue("all", durable=1, arguments=ALL)
        peer.queue("rest", durable=1, arguments=REST)
        peer.queue("q" * 255, durable=1, auto_delete=1)
        arguments = dict(arguments)
        for name, options in (
            ("q", {"durable": 1}),
            ("q", {"arguments": arguments}),
            ("q", {"durable": 1, "arguments": dict(arguments, **{"x-max-length": 6})}),
            ("all", {"durable": 1, "arguments": REST}),
            ("q" * 255, {"durable": 1}),
        ):
            client = world.client()
            refused = client.refused(wire.declare_queue(1, name, **options))
            assert refused == ("channel", 406), (name, options)
            client.vanish()


def test_each_type_of_argument_by_itself():
    world = World(flash=RamFlash(16, 4096, 256), queues=len(FIELDS))
    peer = world.client()
    for k in range(len(FIELDS)):
        peer.queue("q%d" % k, durable=1, arguments=wire.field("f", *FIELDS[k]))
    world, peer = cut(world)
    for k in range(len(FIELDS)):
        peer.queue("q%d" % k, durable=1, arguments=wire.field("f", *FIELDS[k]))
    assert len(world.broker.queues) == len(FIELDS)


def test_exchanges_of_all_kinds_are_there():
    world = World()
    peer = world.client()
    declared = []
    for kind in ("direct", "fanout", "topic", "headers"):
        for options in ({}, {"auto_delete": 1}, {"internal": 1}):
            if len(declared) < 6:
                declared.append((kind + str(len(declared)), kind, options))
    declared[5] = ("last", "headers", {"arguments": {"alternate-exchange": "amq.fanout", "n": 1}})
    for name, kind, options in declared:
        assert peer.names(wire.declare_exchange(1, name, kind, durable=1, **options)) == [
            "exchange.declare-ok"
        ]
    for _ in range(2):
        world, peer = cut(world)
        assert names(world)[1] == sorted([name.encode() for name, _, _ in declared])
        for name, kind, options in declared:
            assert peer.names(wire.declare_exchange(1, name, kind, durable=1, **options)) == [
                "exchange.declare-ok"
            ]
            client = world.client()
            other = "topic" if kind != "topic" else "fanout"
            for octets in (
                wire.declare_exchange(1, name, other, durable=1, **options),
                wire.declare_exchange(1, name, kind, **options),
                wire.declare_exchange(1, name, kind, durable=1, arguments={"other": 1}),
            ):
                assert client.refused(octets) == ("channel", 406), name
                client.send(wire.method(1, "channel.close-ok")).open(1)
            client.vanish()
    assert world.broker.exchange(b"last").alternate == b"amq.fanout"


def test_transient_things_are_not_there():
    world = World()
    peer = world.client()
    before = world.stored()
    peer.queue("t")
    peer.queue("e", durable=1, exclusive=1)
    peer.ask(wire.declare_exchange(1, "tx", "topic"))
    for queue in ("t", "e"):
        for exchange in ("tx", "amq.topic"):
            peer.ask(wire.bind_queue(1, queue, exchange, "#"))
    assert world.stored() == before
    peer.queue("d", durable=1)
    peer.ask(wire.declare_exchange(1, "dx", "topic", durable=1))
    peer.ask(wire.bind_queue(1, "d", "tx", "a") + wire.bind_queue(1, "t", "dx", "b"))
    peer.ask(wire.bind_exchange(1, "dx", "tx") + wire.bind_exchange(1, "tx", "dx"))
    peer.ask(wire.bind_queue(1, "d", "dx", "c"))
    world, peer = cut(world)
    assert names(world) == ([b"d"], [b"dx"], [(b"dx", b"d", b"c")])


def routed(world, peer, queues):
    """Which of the *queues* got the message published last, emptying them."""
    return [name for name in queues if drain(peer, name)]


def test_bindings_of_all_kinds_route_as_before():
    world = World()
    peer = world.client()
    queues = ["a", "b", "c"]
    for name in queues:
        peer.queue(name, durable=1)
    for name, kind, options in (
        ("t", "topic", {"arguments": {"alternate-exchange": "f"}}),
        ("f", "fanout", {"internal": 1}),
        ("h", "headers", {}),
        ("d", "direct", {}),
    ):
        peer.ask(wire.declare_exchange(1, name, kind, durable=1, **options))
    peer.ask(wire.bind_queue(1, "a", "t", "a.*.#") + wire.bind_queue(1, "b", "t", "#.z"))
    peer.ask(wire.bind_queue(1, "c", "f"))
    peer.ask(wire.bind_queue(1, "a", "h", "", {"x-match": "all", "n": 1, "s": "text"}))
    peer.ask(wire.bind_queue(1, "b", "h", "", {"x-match": "any", "n": 2, "v": None}))
    peer.ask(wire.bind_exchange(1, "t", "d", "k") + wire.bind_queue(1, "c", "d", "k" * 255))
    before = names(world)
    for _ in range(3):
        for exchange, key, headers, expected in (
            ("t", "a.b.c", None, ["a"]),
            ("t", "a.z", None, ["a", "b"]),
            ("t", "nothing", None, ["c"]),  # by the alternate exchange
            ("h", "", {"n": 1, "s": "text"}, ["a"]),
            ("h", "", {"n": 1}, []),
            ("h", "", {"n": 2}, ["b"]),
            ("h", "", {"v": "any"}, ["b"]),
            ("d", "k", None, ["c"]),  # to the topic exchange, where nothing matches
            ("d", "k" * 255, None, ["c"]),
            ("d", "other", None, []),
        ):
            publish(peer, key, "x", exchange=exchange, headers=headers)
            assert routed(world, peer, queues) == expected, (exchange, key, headers)
        client = world.client()
        assert client.refused(wire.publish(1, "f", "", "x")) == ("channel", 403)
        client.vanish()
        world, peer = cut(world)
        assert names(world) == before
        # Bound again it is the same binding.
        peer.ask(wire.bind_queue(1, "a", "h", "", {"x-match": "all", "n": 1, "s": "text"}))
        assert names(world) == before


def test_what_was_removed_stays_away():
    world = World()
    peer = world.client()
    empty = world.free()
    for name in ("a", "b"):
        peer.queue(name, durable=1)
        peer.ask(wire.declare_exchange(1, "x" + name, "topic", durable=1))
    peer.ask(wire.bind_queue(1, "a", "xa", "1") + wire.bind_queue(1, "a", "xa", "2"))
    peer.ask(wire.bind_queue(1, "b", "xa", "3") + wire.bind_queue(1, "a", "xb", "4"))
    peer.ask(wire.bind_exchange(1, "xb", "xa", "5") + wire.bind_exchange(1, "xa", "xb", "6"))
    everything = names(world)
    steps = (
        (wire.unbind_queue(1, "a", "xa", "1"), (b"xa", b"a", b"1")),
        (wire.bind_exchange(1, "xb", "xa", "5", verb="unbind"), (b"xa", b"xb", b"5")),
    )
    for octets, gone in steps:
        peer.ask(octets)
        everything[2].remove(gone)
        world, peer = cut(world)
        assert names(world) == everything
    peer.ask(wire.delete_queue(1, "a"))
    world, peer = cut(world)
    assert names(world) == (
        [b"b"], [b"xa", b"xb"], [(b"xa", b"b", b"3"), (b"xb", b"xa", b"6")],
    )  # fmt: skip
    peer.ask(wire.delete_exchange(1, "xa"))
    world, peer = cut(world)
    assert names(world) == ([b"b"], [b"xb"], [])
    peer.ask(wire.delete_exchange(1, "xb") + wire.delete_queue(1, "b"))
    world, peer = cut(world)
    assert world.free() == empty


def test_removal_is_stored_before_it_is_answered():
    world = World()
    peer = world.client()
    peer.queue("q", durable=1)
    peer.ask(wire.declare_exchange(1, "x", "topic", durable=1) + wire.bind_queue(1, "q", "x", "k"))
    peer.ask(wire.unbind_queue(1, "q", "x", "k"))
    world = world.restart()  # without any mark
    assert names(world) == ([b"q"], [b"x"], [])
    world.client().ask(wire.delete_queue(1, "q") + wire.delete_exchange(1, "x"))
    assert names(world.restart()) == ([], [], [])


def test_auto_delete_exchanges_go_with_their_last_binding():
    world = World()
    peer = world.client()
    empty = world.free()
    peer.queue("q", durable=1)
    for name in ("x", "y"):
        peer.ask(wire.declare_exchange(1, name, "fanout", durable=1, auto_delete=1))
    peer.ask(wire.bind_exchange(1, "y", "x") + wire.bind_queue(1, "q", "y"))
    world, peer = cut(world)
    assert names(world)[1] == [b"x", b"y"]
    # y goes with its only queue, x with y.
    peer.ask(wire.delete_queue(1, "q"))
    world, peer = cut(world)
    assert world.free() == empty


def test_a_queue_declared_again_has_nothing_of_its_namesake():
    for profile in ({}, SMALL):
        world = World(**profile)
        for arguments in ({}, {"x-max-length": 5}, {}):
            peer = world.client()
            peer.queue("q", durable=1, arguments=arguments)
            peer.queue("other", durable=1)
            peer.ask(wire.bind_queue(1, "q", "amq.fanout"))
            publish(peer, "q", *numbers(0, 20))
            publish(peer, "other", *numbers(0, 3))
            peer.ask(wire.delete_queue(1, "q"))
            peer.queue("q", durable=1)
            assert counts(peer, "q", passive=1) == (0, 0)
            world, peer = cut(world)
            assert counts(peer, "q", durable=1) == (0, 0)
            assert names(world)[2] == []
            assert drain(peer, "other") == numbers(0, 3)
            peer.ask(wire.delete_queue(1, "q"))
        assert kept(world) == 0


def test_numbers_are_used_again_and_nobody_gets_what_is_not_his():
    world = World()
    peer = world.client()
    for turn in range(6):
        for name in ("a", "b", "c"):
            peer.queue(name, durable=1)
            publish(peer, name, name + str(turn))
        assert sorted([queue.number for queue in world.broker.queues.values()]) == [0, 1, 2]
        held = peer.contents(wire.get(1, "b"))
        assert held[0][4] == b"b%d" % turn
        peer.ask(wire.delete_queue(1, "b") + wire.delete_queue(1, "a"))
        peer.queue("d", durable=1)
        assert world.broker.queue(b"d").number in (0, 1)
        publish(peer, "d", "d")
        if turn % 2:
            world, peer = cut(world)
        assert drain(peer, "c") == [b"c%d" % turn]
        assert drain(peer, "d") == [b"d"]
        peer.ask(wire.delete_queue(1, "c") + wire.delete_queue(1, "d"))
    world, peer = cut(world)
    assert world.stored() == 0


def test_a_full_ring_refuses_definitions_whole():
    world = World(**SMALL)
    peer = world.client()
    peer.queue("q", durable=1)
    peer.ask(wire.declare_exchange(1, "x", "topic", durable=1))
    peer.ask(wire.select_confirms(1))
    while publish(peer, "q", "x" * 60) == ["basic.ack"]:
        pass
    while publish(peer, "q", "") == ["basic.ack"]:
        pass
    before = free(world)
    for octets in (
        wire.declare_queue(1, "n" * 100, durable=1),
        wire.declare_exchange(1, "n" * 100, "topic", durable=1),
        wire.bind_queue(1, "q", "x", "k" * 100),
        wire.bind_exchange(1, "x", "amq.topic", "k" * 100),
    ):
        client = world.client()
        assert client.refused(octets) == ("connection", 506)
        client.vanish()
        assert free(world) == before
    try:
        world.broker.change_queue(world.broker.queue(b"q"), {b"note": b"n" * 200})
        assert False
    except ResourceLimitExceeded:
        assert world.broker.queue(b"q").arguments == {}
    # Transient ones need no room there, and removing something makes some.
    peer.queue("t")
    peer.ask(wire.purge_queue(1, "q"))
    peer.queue("n" * 100, durable=1)
    world, peer = cut(world)
    assert sorted(world.broker.queues) == [b"n" * 100, b"q"]


def test_a_definition_that_is_too_long_is_refused_whole():
    world = World()
    before = free(world)
    client = world.client()
    octets = wire.declare_queue(1, "q", durable=1, arguments={"note": "n" * 980})
    assert client.refused(octets) == ("connection", 506)
    client.vanish()
    assert free(world) == before
    world, peer = cut(world)
    assert names(world) == ([], [], [])


def test_definitions_outlive_many_turns_of_the_ring():
    world = World(**SMALL)
    peer = world.client()
    peer.ask(wire.declare_exchange(1, "x", "topic", durable=1))
    for name in ("a", "b"):
        peer.queue(name, durable=1)
        peer.ask(wire.bind_queue(1, name, "x", name + ".#"))
    before = names(world)
    for turn in range(6):
        for k in range(80):
            key = "ab"[k % 2]
            publish(peer, key, "x" * 200, exchange="x")
            assert len(drain(peer, key)) == 1
        if turn % 2:
            peer.ask(wire.bind_queue(1, "a", "x", "more") + wire.unbind_queue(1, "a", "x", "more"))
        world, peer = cut(world)
        assert names(world) == before


def test_other_arguments_for_a_queue_with_messages_in_it():
    """What a node does whose configuration changed."""
    for profile in ({}, SMALL):
        world = World(**profile)
        peer = world.client()
        peer.queue("q", durable=1)
        peer.ask(wire.bind_queue(1, "q", "amq.topic", "k"))
        publish(peer, "q", *numbers(0, 15))
        for turn in range(3):
            world.broker.change_queue(world.broker.queue(b"q"), {b"x-max-length": 100 + turn})
            world, peer = cut(world)
            queue = world.broker.queue(b"q")
            assert (queue.max_length, queue.waiting()) == (100 + turn, 15)
            assert queue.octets == sum([len(body) for body in numbers(0, 15)])
            assert names(world)[2] == [(b"amq.topic", b"q", b"k")]
        assert drain(peer, "q") == numbers(0, 15)
        publish(peer, "k", "routed", exchange="amq.topic")
        assert drain(peer, "q") == [b"routed"]
        peer.ask(wire.delete_queue(1, "q"))
        world, peer = cut(world)
        assert world.stored() == 0


def test_the_power_goes_between_a_definition_and_the_end_of_the_one_before():
    world = World()
    peer = world.client()
    peer.queue("q", durable=1)
    publish(peer, "q", *numbers(0, 5))
    stored = world.stored()
    store = world.broker.store
    store.forget = lambda item: None
    world.broker.change_queue(world.broker.queue(b"q"), {b"x-max-length": 7})
    world = world.restart()
    peer = world.client()
    assert world.broker.queue(b"q").max_length == 7
    assert world.free()["names"][0] == 1
    assert world.stored() <= stored + 2  # one definition, longer by its argument
    assert drain(peer, "q") == numbers(0, 5)
    peer.ask(wire.delete_queue(1, "q"))
    world, peer = cut(world)
    assert world.stored() == 0


def test_definitions_that_do_not_fit_any_more_cost_no_start():
    world = World()
    peer = world.client()
    for k in range(10):
        peer.queue("q%d" % k, durable=1)
        peer.ask(wire.bind_queue(1, "q%d" % k, "amq.fanout"))
    publish(peer, "", "x", exchange="amq.fanout")
    world.broker.store.ring.mark()
    small = World(flash=world.flash, queues=4, bindings=3)
    peer = small.client()
    assert len(small.broker.queues) == 4
    for k in range(4):
        assert drain(peer, "q%d" % k) == [b"x"]
    # A new queue takes none of the numbers whose messages are left alone.
    peer.ask(wire.delete_queue(1, "q0"))
    peer.queue("new", durable=1)
    assert small.broker.queue(b"new").number == 0
    peer.ask(wire.delete_queue(1, "q1"))
    peer.queue("newer", durable=1)
    assert small.broker.queue(b"newer").number == 1
    assert drain(peer, "new") == drain(peer, "newer") == []
