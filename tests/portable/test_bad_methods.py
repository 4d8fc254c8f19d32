"""Methods out of turn, unknown, malformed, or about what is not there."""

import struct

import wire
from arena import Arena

START_OK = wire.start_ok("\0guest\0guest")
TUNE_OK = wire.tune_ok(8, 8192, 0)
OPEN = wire.open_connection()


def test_the_handshake_has_an_order():
    arena = Arena()
    for prepared, octets in (
        (b"", TUNE_OK),
        (b"", OPEN),
        (b"", wire.open_channel(1)),
        (b"", wire.method(0, "connection.close-ok")),
        (START_OK, START_OK),
        (START_OK, OPEN),
        (START_OK, wire.open_channel(1)),
        (START_OK + TUNE_OK, START_OK),
        (START_OK + TUNE_OK, TUNE_OK),
        (START_OK + TUNE_OK, wire.open_channel(1)),
        (START_OK + TUNE_OK, wire.publish(1, "", "q", "x")),
        (START_OK + TUNE_OK + OPEN, START_OK),
        (START_OK + TUNE_OK + OPEN, TUNE_OK),
        (START_OK + TUNE_OK + OPEN, OPEN),
    ):
        assert arena.answers(octets, prepared, login=False) == "connection 503", (prepared, octets)


def test_a_close_is_due_at_any_time():
    arena = Arena()
    for prepared in (b"", START_OK, START_OK + TUNE_OK, START_OK + TUNE_OK + OPEN):
        peer = arena.world.connect()
        peer.ask(prepared)
        assert peer.names(wire.close_connection()) == ["connection.close-ok"]
        assert peer.gone


def test_tune_ok_above_the_offer_or_below_the_minimum_is_not_allowed():
    arena = Arena()
    for channel_max, frame_max in (
        (9, 8192), (0xFFFF, 8192), (8, 8193), (8, 0xFFFFFFFF), (8, 1), (8, 7), (8, 4095),
    ):  # fmt: skip
        octets = wire.tune_ok(channel_max, frame_max, 0)
        assert arena.answers(octets, START_OK, login=False) == "connection 530", octets


def test_tune_ok_without_limits_means_ours():
    arena = Arena()
    peer = arena.world.connect()
    peer.ask(START_OK + wire.tune_ok(0, 0, 0) + OPEN)
    peer.open(8)
    assert peer.refused(wire.open_channel(9)) == ("connection", 504)
    assert peer.engine.frame_max == 8192


def test_unknown_methods_are_invalid():
    arena = Arena()
    for number in (0, 0x000A0063, 0x0014003C, 0x00320063, 0x003C0079, 0x00630001, 0xFFFFFFFF,
                   0x003C0032, 0x003C003C, 0x0032000B, 0x000A000A):  # fmt: skip
        for channel in (0, 1):
            octets = wire.frame(1, channel, struct.pack(">I", number))
            assert arena.answers(octets) == "connection 503", (hex(number), channel)


def test_methods_this_broker_does_not_have_are_not_implemented():
    arena = Arena()
    assert arena.answers(wire.method(1, "access.request")) == "connection 540"
    for name in ("connection.secure-ok", "connection.update-secret"):
        assert arena.answers(wire.method(0, name, bytes(8))) == "connection 540", name


def test_options_this_broker_does_not_have_are_not_implemented():
    arena = Arena()
    assert arena.answers(wire.publish_method(1, "", "q", immediate=1)) == "connection 540"
    assert arena.answers(wire.qos(1, 1, size=1000)) == "connection 540"
    assert arena.answers(wire.recover(1, requeue=0)) == "connection 540"


def test_arguments_shorter_or_longer_than_the_method_are_syntax_errors():
    arena = Arena()
    for name, octets in (
        ("queue.declare", wire.declare_queue(1, "q", arguments={"a": 1})),
        ("queue.bind", wire.bind_queue(1, "q", "amq.topic", "k")),
        ("queue.delete", wire.delete_queue(1, "q")),
        ("exchange.declare", wire.declare_exchange(1, "x", "topic")),
        ("exchange.bind", wire.bind_exchange(1, "amq.topic", "amq.direct", "k")),
        ("basic.qos", wire.qos(1, 1)),
        ("basic.consume", wire.consume(1, "q", "t")),
        ("basic.cancel", wire.cancel(1, "t")),
        ("basic.publish", wire.publish_method(1, "", "q")),
        ("basic.get", wire.get(1, "q")),
        ("basic.ack", wire.ack(1, 1)),
        ("basic.nack", wire.nack(1, 1)),
        ("basic.reject", wire.reject(1, 1)),
        ("confirm.select", wire.select_confirms(1)),
    ):
        arguments = octets[11:-1]
        for part in (b"", arguments[: len(arguments) // 2], arguments[:-1], arguments + b"\0",
                     arguments + arguments):  # fmt: skip
            answer = arena.answers(wire.method(1, name, part))
            assert answer == "connection 502", (name, part, answer)


def test_arguments_of_the_handshake_are_checked_as_well():
    arena = Arena()
    for prepared, octets in ((b"", START_OK), (START_OK, TUNE_OK), (START_OK + TUNE_OK, OPEN)):
        for part in (octets[11:-2], octets[11:-1] + b"\0", b""):
            octets = wire.frame(1, 0, octets[7:11] + part)
            assert arena.answers(octets, prepared, login=False) == "connection 502", octets


def test_names_that_are_no_clean_text_are_syntax_errors():
    arena = Arena()
    for bad in (b"\xff\xfe", b"caf\xe9", b"nul\0", b"line\nfeed", b"carriage\rreturn", b"\xc3"):
        for octets in (
            wire.declare_queue(1, bad),
            wire.declare_exchange(1, bad, "topic"),
            wire.declare_exchange(1, "x", bad),
            wire.bind_queue(1, bad, "amq.topic"),
            wire.bind_queue(1, "q", bad),
            wire.consume(1, "q", bad),
            wire.cancel(1, bad),
            wire.get(1, bad),
            wire.publish_method(1, bad, "k"),
            wire.delete_queue(1, bad),
        ):
            assert arena.answers(octets) == "connection 502", octets


def test_names_in_any_language_are_names():
    arena = Arena()
    name = "\u00e9\u4e16\U0001f600"
    assert arena.answers(wire.declare_queue(1, name) + wire.publish(1, "", name, "x")) is None
    assert arena.answers(wire.get(1, name)) == "channel 404"


def test_what_does_not_exist_is_not_found():
    arena = Arena()
    for octets in (
        wire.declare_queue(1, "no", passive=1),
        wire.declare_exchange(1, "no", "topic", passive=1),
        wire.bind_queue(1, "no", "amq.topic"),
        wire.consume(1, "no"),
        wire.get(1, "no"),
        wire.purge_queue(1, "no"),
        wire.publish_method(1, "no", "k"),
        wire.publish(1, "no", "k", "x"),
        wire.bind_exchange(1, "no", "amq.topic"),
        wire.bind_exchange(1, "amq.topic", "no"),
    ):
        assert arena.answers(octets) == "channel 404", octets


def test_no_queue_declared_and_none_named_is_not_allowed():
    arena = Arena()
    for octets in (wire.get(1, ""), wire.consume(1, ""), wire.bind_queue(1, "", "amq.topic")):
        assert arena.answers(octets) in ("connection 530", "channel 404"), octets


def test_acknowledging_what_nobody_holds_is_a_precondition_failed():
    arena = Arena()
    got = wire.declare_queue(1, "q") + wire.publish(1, "", "q", "x") + wire.get(1, "q")
    big = 0xFFFFFFFFFFFFFFFF
    for octets in (wire.ack(1, 1), wire.ack(1, 0), wire.ack(1, 7, 1), wire.nack(1, 1),
                   wire.reject(1, 1), wire.ack(1, big), wire.nack(1, 0)):  # fmt: skip
        assert arena.answers(octets) == "channel 406", octets
    for octets in (wire.ack(1, 2), wire.ack(1, 0), wire.ack(1, 1 << 32 | 1), wire.ack(1, big, 1),
                   wire.ack(1, 1) * 2, wire.ack(1, 1) + wire.reject(1, 1),
                   wire.ack(1, 0, 1) + wire.ack(1, 1)):  # fmt: skip
        assert arena.answers(octets, got) == "channel 406", octets
    assert arena.answers(wire.ack(1, 0, 1)) is None


def test_a_consumer_tag_used_again_is_not_allowed():
    arena = Arena()
    first = wire.declare_queue(1, "q") + wire.consume(1, "q", "tag")
    assert arena.answers(wire.consume(1, "q", "tag"), first) == "connection 530"
    assert arena.answers(wire.cancel(1, "tag") + wire.consume(1, "q", "tag"), first) is None


def test_names_that_begin_with_amq_are_reserved():
    arena = Arena()
    assert arena.answers(wire.declare_queue(1, "amq.mine")) == "channel 403"
    assert arena.answers(wire.declare_exchange(1, "amq.mine", "topic")) == "channel 403"
    assert arena.answers(wire.delete_exchange(1, "amq.topic")) == "channel 403"
    assert arena.answers(wire.declare_exchange(1, "amq.topic", "topic", durable=1)) is None


def test_the_default_exchange_is_left_alone():
    arena = Arena()
    queue = wire.declare_queue(1, "q")
    for octets in (wire.bind_queue(1, "q", ""), wire.unbind_queue(1, "q", ""),
                   wire.bind_exchange(1, "amq.topic", ""), wire.bind_exchange(1, "", "amq.topic"),
                   wire.delete_exchange(1, "")):  # fmt: skip
        assert arena.answers(octets, queue) == "channel 403", octets


def test_a_declaration_that_differs_is_a_precondition_failed():
    arena = Arena()
    queue = wire.declare_queue(1, "q", arguments={"x-max-length": 5})
    for octets in (
        wire.declare_queue(1, "q"),
        wire.declare_queue(1, "q", arguments={"x-max-length": 6}),
        wire.declare_queue(1, "q", durable=1, arguments={"x-max-length": 5}),
        wire.declare_queue(1, "q", auto_delete=1, arguments={"x-max-length": 5}),
    ):
        assert arena.answers(octets, queue) == "channel 406", octets
    assert arena.answers(queue, queue) is None
    exchange = wire.declare_exchange(1, "x", "topic")
    for octets in (
        wire.declare_exchange(1, "x", "direct"),
        wire.declare_exchange(1, "x", "topic", durable=1),
        wire.declare_exchange(1, "x", "topic", internal=1),
        wire.declare_exchange(1, "x", "topic", arguments={"alternate-exchange": "y"}),
    ):
        assert arena.answers(octets, exchange) == "channel 406", octets
    assert arena.answers(wire.declare_exchange(1, "x", "banana")) == "connection 503"


def test_an_argument_that_is_no_text_is_named_all_the_same():
    octets = wire.declare_queue(1, "q", arguments=wire.field(b"x-\xff", "t", b"\1"))
    assert Arena().answers(octets) == "channel 406"


def test_an_exclusive_queue_is_its_connections_alone():
    arena = Arena()
    owner = arena.world.client()
    owner.queue("mine", exclusive=1)
    arena.clear = lambda: None
    arena.before = arena.world.free()
    for octets in (
        wire.declare_queue(1, "mine"),
        wire.declare_queue(1, "mine", exclusive=1),
        wire.declare_queue(1, "mine", passive=1),
        wire.bind_queue(1, "mine", "amq.topic"),
        wire.unbind_queue(1, "mine", "amq.topic"),
        wire.consume(1, "mine"),
        wire.get(1, "mine"),
        wire.purge_queue(1, "mine"),
        wire.delete_queue(1, "mine"),
    ):
        assert arena.answers(octets) == "channel 405", octets
    assert owner.works()
