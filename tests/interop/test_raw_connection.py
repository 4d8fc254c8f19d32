"""A client of our own: clients that vanish, fall silent or want less than others."""

import time

import pytest

from interop_raw import RawClient, pika, spec
from interop_support import drain, publish, ready, take, wait_for


@pytest.fixture
def raw(broker, fresh):
    """Opens RawClients, whose sockets are closed when the test ends."""
    opened = []

    def open_one(**options):
        opened.append(RawClient(broker, **options))
        return opened[-1]

    yield open_one
    for client in opened:
        client.vanish()


def open_channel(client, number=1):
    client.call(number, spec.Channel.Open(), spec.Channel.OpenOk)


def hold_one(client, queue):
    """Take one message with basic.get and keep it unacknowledged."""
    client.call(1, spec.Basic.Get(queue=queue), spec.Basic.GetOk)
    assert isinstance(client.read_frame(5), pika.frame.Header)
    assert isinstance(client.read_frame(5), pika.frame.Body)


def test_what_a_client_that_vanished_held_comes_back(raw, channel, fresh):
    queue, lock = fresh.queue(), fresh.name("lock")
    channel.queue_declare(queue)
    publish(channel, queue, b"kept")
    client = raw()
    open_channel(client)
    client.call(1, spec.Queue.Declare(queue=lock, exclusive=True), spec.Queue.DeclareOk)
    hold_one(client, queue)
    client.vanish()
    wait_for(lambda: ready(channel, queue) == 1, "the message waits again")
    assert take(channel, queue)[1:] == (True, b"kept")

    def lock_is_free():
        other = channel.connection.channel()
        try:
            other.queue_declare(lock, exclusive=True)
        except pika.exceptions.ChannelClosedByBroker as error:
            assert error.reply_code == 405, error
        return other.is_open

    wait_for(lock_is_free, "the exclusive queue is gone")


def test_only_the_client_that_falls_silent_is_cut(raw, channel, fresh):
    queue = fresh.queue()
    channel.queue_declare(queue)
    publish(channel, queue, b"held")
    silent, talking = raw(heartbeat=1), raw(heartbeat=1)
    open_channel(silent)
    open_channel(talking)
    hold_one(silent, queue)
    began = time.monotonic()
    heard = {silent: [], talking: []}
    while None not in heard[silent]:
        assert time.monotonic() - began < 8, "silent for 8 heartbeats and still connected"
        talking.publish(1, "", queue + "x", b"any octets count as a heartbeat")
        for client in (silent, talking):
            heard[client] += client.frames(0.2)
            channel.connection.process_data_events(0)
    assert time.monotonic() - began > 1, "cut too early"
    assert None not in heard[talking]
    for client in (silent, talking):
        beats = [frame for frame in heard[client] if isinstance(frame, pika.frame.Heartbeat)]
        assert beats, "no heartbeat from the broker"
        assert all(beat.channel_number == 0 for beat in beats)
    talking.call(1, spec.Queue.Declare(queue=queue, passive=True), spec.Queue.DeclareOk)
    wait_for(lambda: ready(channel, queue) == 1, "the silent client's message waits again")


def test_heartbeats_alone_keep_a_client_and_heartbeat_zero_needs_none(raw):
    beating, without = raw(heartbeat=1), raw(heartbeat=0)
    for _ in range(10):
        beating.send_heartbeat()
        assert None not in beating.frames(0.4)
    assert without.frames(0.05) == []  # nothing was sent to it, and it is not cut
    for client in (beating, without):
        open_channel(client)


def test_a_client_that_does_not_know_basic_cancel_is_sent_none(raw, channel, fresh):
    first, second = fresh.queue(), fresh.queue()
    knowing, unknowing = raw(), raw(capabilities={"basic.nack": True})
    for queue, client in ((first, knowing), (second, unknowing)):
        channel.queue_declare(queue)
        open_channel(client)
        client.call(1, spec.Basic.Consume(queue=queue, consumer_tag="mine"), spec.Basic.ConsumeOk)
        channel.queue_delete(queue)
    assert knowing.expect(spec.Basic.Cancel).consumer_tag == "mine"
    open_channel(unknowing, 2)  # this answer is the next frame


def test_frames_sent_to_a_channel_the_broker_just_closed_are_ignored(raw):
    client = raw()
    open_channel(client)
    for _ in range(5):  # the first one closes the channel, the others are on their way
        client.publish(1, "there-is-no-such-exchange", "key", b"lost")
    client.send(1, spec.Queue.Declare(queue="there-is-no-such-queue", passive=True))
    assert client.expect(spec.Channel.Close).reply_code == 404
    client.publish(1, "", "key", b"lost")
    client.send(1, spec.Channel.CloseOk())
    open_channel(client)
    client.call(0, spec.Connection.Close(200, "bye", 0, 0), spec.Connection.CloseOk)


def test_methods_in_one_segment_are_answered_in_order(raw, channel, fresh):
    queue = fresh.queue()
    channel.queue_declare(queue)
    client = raw()
    client.send(
        1,
        spec.Channel.Open(),
        spec.Queue.Declare(queue=queue),
        spec.Basic.Qos(prefetch_count=1),
        spec.Confirm.Select(),
    )
    for answer in (
        spec.Channel.OpenOk,
        spec.Queue.DeclareOk,
        spec.Basic.QosOk,
        spec.Confirm.SelectOk,
    ):
        client.expect(answer)
    client.publish(1, "", queue, b"")
    assert client.expect(spec.Basic.Ack).delivery_tag == 1
    assert drain(channel, queue) == [b""]


def test_no_wait_methods_get_no_answer(raw, channel, fresh):
    queue = fresh.queue()
    client = raw()
    open_channel(client)
    client.send(
        1,
        spec.Queue.Declare(queue=queue, nowait=True),
        spec.Queue.Bind(queue=queue, exchange="amq.direct", routing_key=queue, nowait=True),
        spec.Queue.Purge(queue=queue, nowait=True),
        spec.Basic.Consume(queue=queue, consumer_tag="c", no_ack=True, nowait=True),
    )
    client.call(1, spec.Basic.Qos(), spec.Basic.QosOk)
    channel.basic_publish("amq.direct", queue, b"")
    assert client.expect(spec.Basic.Deliver).consumer_tag == "c"
