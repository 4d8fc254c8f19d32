"""Content nobody announced, content that is not what was announced, and odd properties."""

import struct

import wire
from arena import Arena
from world import World

PUBLISH = wire.publish_method(1, "", "q")
QUEUE = wire.declare_queue(1, "q")


def test_a_header_without_a_publish_is_unexpected():
    arena = Arena()
    assert arena.answers(wire.header(1, 1)) == "connection 505"
    assert arena.answers(wire.header(1, 0), wire.publish(1, "", "q", "x")) == "connection 505"
    assert arena.answers(wire.header(1, 5), PUBLISH + wire.header(1, 5)) == "connection 505"


def test_a_body_without_a_header_is_unexpected():
    arena = Arena()
    assert arena.answers(wire.body(1, b"x")) == "connection 505"
    assert arena.answers(wire.body(1, b"")) == "connection 505"
    assert arena.answers(wire.body(1, b"x"), PUBLISH) == "connection 505"
    assert arena.answers(wire.body(1, b""), PUBLISH) == "connection 505"
    assert arena.answers(wire.body(1, b"x"), wire.publish(1, "", "q", "x")) == "connection 505"


def test_content_of_another_class_or_with_a_weight_is_unexpected():
    arena = Arena()
    for class_id, weight in ((0, 0), (10, 0), (61, 0), (0xFFFF, 0), (60, 1), (60, 0xFFFF)):
        octets = wire.header(1, 5, class_id=class_id, weight=weight)
        assert arena.answers(octets, PUBLISH) == "connection 505", (class_id, weight)


def test_a_header_too_short_for_its_numbers_is_a_syntax_error():
    arena = Arena()
    whole = wire.header(1, 5)[7:-1]
    for n in range(len(whole)):
        assert arena.answers(wire.frame(2, 1, whole[:n]), PUBLISH) == "connection 502", n


def test_property_flags_that_go_on_are_a_syntax_error():
    arena = Arena()
    for given in (b"\x00\x01", b"\x00\x01\x00\x00", b"\x00\x01" * 300, b"\x00\x02"):
        assert arena.answers(wire.header(1, 5, given), PUBLISH) == "connection 502", given


def test_properties_that_do_not_fill_their_header_are_a_syntax_error():
    arena = Arena()
    for given in (b"\x80\x00", b"\x80\x00\x05text", b"\x00\x00\x00", b"\x00\x40\x00\x00\x00",
                  b"\x10\x00", b"\x01\x00\xff", b"\xff\xfc" + b"\xff" * 200):  # fmt: skip
        assert arena.answers(wire.header(1, 5, given), PUBLISH) == "connection 502", given


def test_more_body_than_announced_is_unexpected():
    arena = Arena()
    begun = PUBLISH + wire.header(1, 5)
    assert arena.answers(wire.body(1, b"123456"), begun) == "connection 505"
    assert arena.answers(wire.body(1, b"3456"), begun + wire.body(1, b"12")) == "connection 505"
    assert arena.answers(wire.body(1, b"x"), PUBLISH + wire.header(1, 0)) == "connection 505"


def test_a_publish_inside_a_publish_is_unexpected():
    arena = Arena()
    for begun in (PUBLISH, PUBLISH + wire.header(1, 5), PUBLISH + wire.header(1, 5)
                  + wire.body(1, b"12")):  # fmt: skip
        assert arena.answers(PUBLISH, begun) == "connection 505"


def test_a_method_between_header_and_body_is_unexpected():
    arena = Arena()
    begun = PUBLISH + wire.header(1, 5)
    for octets in (
        wire.ack(1, 1),
        wire.get(1, "q"),
        wire.close_channel(1),
        wire.open_channel(1),
        wire.method(1, "tx.select"),
        wire.frame(1, 1, b"\xff\xff\xff\xff"),
    ):
        assert arena.answers(octets, begun) == "connection 505", octets
        assert arena.answers(octets, PUBLISH) == "connection 505", octets


def test_other_channels_may_speak_between_header_and_body():
    peer = World().client().open(2)
    peer.queue("q")
    assert peer.names(
        PUBLISH + wire.get(2, "q") + wire.header(1, 4) + wire.publish(2, "", "q", "two")
        + wire.HEARTBEAT + wire.body(1, b"on") + wire.get(2, "q") + wire.body(1, b"e!")
    ) == ["basic.get-empty", "basic.get-ok", "header", "body"]  # fmt: skip
    assert peer.bodies(wire.get(1, "q")) == [b"one!"]


def test_empty_body_frames_change_nothing():
    peer = World().client()
    peer.queue("q")
    empty = wire.body(1, b"")
    peer.send(PUBLISH + wire.header(1, 2) + empty + wire.body(1, b"1") + empty + empty)
    peer.send(wire.body(1, b"2"))
    assert peer.bodies(wire.get(1, "q")) == [b"12"]


def test_a_message_longer_than_the_maximum_is_refused_and_swallowed():
    arena = Arena()
    for size in (8193, 65536, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1):
        octets = PUBLISH + wire.header(1, size)
        assert arena.answers(octets, QUEUE) == "channel 311", size
    swallowed = b"".join([wire.body(1, bytes(1000))] * 9)
    assert arena.answers(PUBLISH + wire.header(1, 9000) + swallowed, QUEUE) == "channel 311"
    assert arena.answers(wire.publish(1, "", "q", bytes(8192)), QUEUE) is None


def test_a_message_longer_than_all_blocks_never_gets_in():
    arena = Arena(blocks=40)
    peer = arena.world.client()
    peer.queue("q")
    peer.send(wire.publish(1, "", "q", bytes(8000)))
    arena.world.wait(250)
    assert peer.names() == ["connection.blocked"]
    assert arena.neighbour.works()
    peer.vanish()
    arena.clear()
    assert arena.world.free() == arena.before


def test_a_half_message_holds_one_slot_for_each_channel_and_nothing_more():
    arena = Arena(channels=6)
    world = arena.world
    peer = world.client()
    free = world.free()
    for channel in range(2, 6):
        peer.open(channel)
        peer.send(wire.publish_method(channel, "amq.topic", "k") + wire.header(channel, 500))
    assert free["messages"] - world.free()["messages"] == 4
    assert free["blocks"] - world.free()["blocks"] == 4 * 5
    assert arena.neighbour.works()
    peer.vanish()
    assert world.free() == arena.before


def test_expirations_that_are_no_milliseconds_are_a_precondition_failed():
    arena = Arena()
    for bad in ("-1", "1e9", "99999999999999999999", "", "1.5", "one", "10 ", "0x10"):
        octets = wire.publish(1, "", "q", "x", wire.properties(expiration=bad))
        assert arena.answers(octets, QUEUE) == "channel 406", bad


def test_odd_values_of_properties_are_passed_on():
    peer = World().client()
    peer.queue("q")
    for given in (
        wire.properties(priority=255),
        wire.properties(delivery_mode=7),
        wire.properties(delivery_mode=0),
        wire.properties(timestamp=(1 << 64) - 1),
        wire.properties(content_type="t" * 255),
        wire.properties(content_type=b"\xff\x00\xfe", message_id=b"\r\n"),
        wire.properties(headers={"": None, "d": {"e": [1, 2, ["f"]]}}, cluster_id=""),
        wire.properties(expiration="1000"),
        wire.properties(reply_to="anybody", correlation_id=b"\0" * 255),
    ):
        peer.send(wire.publish(1, "", "q", "x", given) + wire.get(1, "q", no_ack=1))
        contents = peer.contents()
        assert [content[3] for content in contents] == [given]


def test_the_user_id_is_the_users_own_or_absent():
    arena = Arena()
    for name in ("other", "", "gues", "guests", "Guest"):
        octets = wire.publish(1, "", "q", "x", wire.properties(user_id=name))
        assert arena.answers(octets, QUEUE) == "channel 406", name
    octets = wire.publish(1, "", "q", "x", wire.properties(user_id="guest", app_id="a"))
    assert arena.answers(octets, QUEUE) is None


def test_a_reply_address_without_a_consumer_is_a_precondition_failed():
    octets = wire.publish(1, "", "q", "x", wire.properties(reply_to="amq.rabbitmq.reply-to"))
    assert Arena().answers(octets, QUEUE) == "channel 406"


def test_an_internal_exchange_takes_no_publish():
    arena = Arena()
    internal = wire.declare_exchange(1, "inside", "fanout", internal=1)
    assert arena.answers(wire.publish(1, "inside", "k", "x"), internal) == "channel 403"


def test_what_was_deleted_since_the_publish_is_not_routed_to():
    world = World()
    peer = world.client()
    other = world.client()
    before = world.free()
    peer.queue("q")
    peer.send(PUBLISH + wire.header(1, 2) + wire.body(1, b"1"))
    other.send(wire.delete_queue(1, "q"))
    peer.send(wire.body(1, b"2"))
    assert world.free() == before
    for name in ("x", "y"):
        peer.send(wire.declare_exchange(1, name, "topic"))
    peer.send(wire.publish_method(1, "x", "k"))
    other.send(wire.delete_exchange(1, "x"))
    peer.send(wire.header(1, 2) + wire.body(1, b"12"))
    peer.send(wire.delete_exchange(1, "y"))
    assert world.free() == before
    assert peer.works() and other.works()


def test_sizes_are_read_as_64_bits():
    arena = Arena()
    header = struct.pack(">HHII", 60, 0, 1, 2) + b"\0\0"
    assert arena.answers(PUBLISH + wire.frame(2, 1, header), QUEUE) == "channel 311"
