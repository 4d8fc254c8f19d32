"""Octets that are no frames, and frames where none is due."""

import struct

import wire
from arena import Arena

HEARTBEAT_KIND = 8
KINDS = (1, 2, 3, HEARTBEAT_KIND)


def head(kind, channel, size):
    """The first seven octets of a frame, the only ones a test of its size needs."""
    return struct.pack(">BHI", kind, channel, size)


def test_a_wrong_frame_end_is_a_frame_error():
    arena = Arena()
    for frame in (
        wire.declare_queue(1, "q"),
        wire.HEARTBEAT,
        wire.publish(1, "", "q", "x"),
        wire.publish_method(1, "", "q") + wire.header(1, 4),
        wire.ack(1, 1),
    ):
        for end in (0, 0xCD, 0xFF):
            assert arena.answers(frame[:-1] + bytes([end])) == "connection 501", frame


def test_unknown_frame_types_are_frame_errors():
    arena = Arena()
    for kind in range(256):
        if kind not in KINDS and (kind < 12 or kind % 23 == 0 or kind > 250):
            assert arena.answers(wire.frame(kind, 0, b"abcd")) == "connection 501", kind
            assert arena.answers(head(kind, 1, 100)) == "connection 501", kind


def test_a_heartbeat_has_no_payload_and_no_channel():
    arena = Arena()
    assert arena.answers(wire.frame(HEARTBEAT_KIND, 0, b"x")) == "connection 501"
    assert arena.answers(head(HEARTBEAT_KIND, 0, 2000)) == "connection 501"
    assert arena.answers(wire.frame(HEARTBEAT_KIND, 1, b"")) == "connection 505"
    assert arena.answers(wire.frame(HEARTBEAT_KIND, 9, b"")) == "connection 505"


def test_a_frame_larger_than_frame_max_is_refused_by_its_head():
    arena = Arena()
    begun = wire.publish_method(1, "", "q") + wire.header(1, 8000)
    for kind, prepared in ((1, b""), (2, wire.publish_method(1, "", "q")), (3, begun)):
        for size in (8192 - 7, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
            assert arena.answers(head(kind, 1, size), prepared) == "connection 501", (kind, size)


def test_before_login_there_is_a_frame_max_as_well():
    arena = Arena()
    for size in (8192 - 7, 0xFFFFFFFF):
        assert arena.answers(head(1, 0, size), login=False) == "connection 501"


def test_the_frame_max_of_tune_ok_counts():
    arena = Arena()
    peer = arena.world.connect()
    peer.ask(wire.start_ok("\0guest\0guest") + wire.tune_ok(0, 4096, 0) + wire.open_connection())
    peer.ask(wire.open_channel(1) + wire.publish_method(1, "", "q") + wire.header(1, 8000))
    assert peer.names(wire.body(1, bytes(4096 - 8))) == []
    assert peer.refused(head(3, 1, 4096 - 7)) == ("connection", 501)
    peer.vanish()
    assert arena.world.free() == arena.before


def test_a_method_frame_without_a_method_is_a_frame_error():
    arena = Arena()
    for size in range(4):
        for channel in (0, 1):
            frame = wire.frame(1, channel, bytes(size))
            assert arena.answers(frame) == "connection 501", (size, channel)
            assert arena.answers(frame, login=False) == "connection 501", (size, channel)


def test_methods_and_headers_longer_than_the_buffer_are_a_lack_of_resources():
    arena = Arena()
    for size in (1024 - 7, 4000, 8192 - 8):
        assert arena.answers(head(1, 1, size)) == "connection 506", size
        assert arena.answers(head(2, 1, size), wire.publish_method(1, "", "q")) == "connection 506"


def test_the_longest_method_the_buffer_takes_is_read():
    arena = Arena()
    name = "q" * 255
    padding = 1024 - len(wire.bind_queue(1, name, "amq.topic", "k" * 255, {"a": ""}))
    octets = wire.bind_queue(1, name, "amq.topic", "k" * 255, {"a": "b" * padding})
    assert len(octets) == 1024
    assert arena.answers(octets, wire.declare_queue(1, name)) is None


def test_only_the_connection_class_is_on_channel_0():
    arena = Arena()
    for octets in (
        wire.open_channel(0),
        wire.declare_queue(0, "q"),
        wire.publish_method(0, "", "q"),
        wire.ack(0, 1),
        wire.select_confirms(0),
        wire.header(0, 1),
        wire.body(0, b"x"),
    ):
        assert arena.answers(octets) in ("connection 503", "connection 504"), octets
    assert arena.answers(wire.declare_queue(0, "q")) == "connection 503"


def test_the_connection_class_is_only_on_channel_0():
    arena = Arena()
    for name in ("tune-ok", "open", "close", "close-ok"):
        for channel in (1, 5, 4000):
            octets = wire.method(channel, "connection." + name, bytes(6))
            assert arena.answers(octets) == "connection 503", name
    assert arena.answers(wire.method(1, "connection.start-ok"), login=False) == "connection 503"


def test_a_channel_beyond_channel_max_or_not_open_is_a_channel_error():
    arena = Arena()
    for channel in (2, 8, 9, 0xFFFF):
        for octets in (
            wire.declare_queue(channel, "q"),
            wire.publish_method(channel, "", "q"),
            wire.ack(channel, 1),
            wire.nack(channel, 1),
            wire.close_channel(channel),
            wire.header(channel, 1),
            wire.body(channel, b"x"),
            wire.body(channel, b""),
        ):
            assert arena.answers(octets) == "connection 504", octets
    for channel in (9, 0xFFFF):
        assert arena.answers(wire.open_channel(channel)) == "connection 504"


def test_a_channel_opened_twice_is_a_channel_error():
    assert Arena().answers(wire.open_channel(1)) == "connection 504"


def test_a_channel_the_client_closed_is_not_open():
    arena = Arena()
    for octets in (wire.get(1, "q"), wire.publish(1, "", "q", "x"), wire.ack(1, 1)):
        assert arena.answers(octets, wire.close_channel(1)) == "connection 504"


def test_a_close_ok_nobody_waits_for_is_invalid():
    arena = Arena()
    assert arena.answers(wire.method(1, "channel.close-ok")) == "connection 503"
    assert arena.answers(wire.method(0, "connection.close-ok")) == "connection 503"
    assert arena.answers(wire.method(1, "channel.flow-ok", b"\1")) == "connection 503"


def test_octets_after_a_broken_frame_are_not_read():
    arena = Arena()
    broken = wire.frame(7, 0, b"") + wire.declare_queue(1, "q", durable=1)
    peer = arena.world.client()
    assert peer.names(broken) == ["connection.close"]
    assert peer.names(wire.declare_queue(1, "q")) == []
    assert not arena.world.broker.queues
    peer.vanish()
    assert arena.world.free() == arena.before
