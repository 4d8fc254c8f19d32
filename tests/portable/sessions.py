"""Recorded sessions: what clients send from the first method on, for tests that cut and bend them.

Each is a list of octets, a frame or a few of them each, so that frames can be moved about.
"""

import wire

LOGIN = [
    wire.start_ok("\0guest\0guest", connection_name="session"),
    wire.tune_ok(8, 8192, 0),
    wire.open_connection(),
    wire.open_channel(1),
]
END = [wire.close_channel(1), wire.close_connection()]

PLUMBING = LOGIN + [
    wire.declare_exchange(1, "x", "topic", durable=1),
    wire.declare_exchange(1, "y", "headers", arguments={"alternate-exchange": "x"}),
    wire.declare_exchange(1, "x", "topic", passive=1),
    wire.declare_queue(1, "q", arguments={"x-max-length": 5, "x-message-ttl": 60000}),
    wire.declare_queue(1, "", exclusive=1, auto_delete=1),
    wire.declare_queue(1, "q", passive=1),
    wire.bind_queue(1, "q", "x", "a.*.#", {"note": "text", "list": [1, None, {"t": True}]}),
    wire.bind_queue(1, "q", "y", "", {"x-match": "any", "kind": "hot"}),
    wire.bind_exchange(1, "x", "y", "k"),
    wire.bind_exchange(1, "x", "y", "k", verb="unbind"),
    wire.unbind_queue(1, "q", "x", "a.*.#"),
    wire.purge_queue(1, "q"),
    wire.delete_queue(1, "q"),
    wire.delete_exchange(1, "x", if_unused=1),
    wire.delete_exchange(1, "y"),
] + END  # fmt: skip

MESSAGES = LOGIN + [
    wire.declare_queue(1, "q", durable=1),
    wire.bind_queue(1, "q", "amq.topic", "s.*"),
    wire.select_confirms(1),
    wire.qos(1, 3),
    wire.consume(1, "q", "tag"),
    wire.publish(1, "amq.topic", "s.1", "one", wire.properties(
        delivery_mode=2, expiration="9000")),
    wire.publish(1, "amq.topic", "no", "lost", mandatory=1),
    wire.publish(1, "", "q", ""),
    wire.publish(1, "", "q", "4" * 700, wire.properties(
        headers={"a": 1, "b": {"c": ["d", None]}}, user_id="guest", timestamp=1700000000)),
    wire.ack(1, 1),
    wire.publish(1, "", "q", "5" * 3000, piece=1000),
    wire.nack(1, 3, multiple=1),
    wire.reject(1, 4),
    wire.recover(1),
    wire.cancel(1, "tag"),
    wire.get(1, "q"),
    wire.get(1, "q", no_ack=1),
    wire.HEARTBEAT,
] + END  # fmt: skip

CHANNELS = LOGIN + [
    wire.open_channel(2),
    wire.open_channel(3),
    wire.consume(2, "amq.rabbitmq.reply-to", no_ack=1),
    wire.declare_queue(1, "q"),
    wire.consume(3, "q", "c3", no_ack=1),
    wire.publish(2, "", "q", "ask", wire.properties(
        reply_to="amq.rabbitmq.reply-to", correlation_id="7")),
    wire.publish_method(1, "", "q"),
    wire.publish(2, "amq.fanout", "", "between"),
    wire.header(1, 6),
    wire.flow(3, 0),
    wire.body(1, b"abc"),
    wire.flow(3, 1),
    wire.body(1, b"def"),
    wire.get(2, "missing"),
    wire.publish(2, "", "q", "under way"),
    wire.ack(2, 5),
    wire.method(2, "channel.close-ok"),
    wire.open_channel(2),
    wire.close_channel(3),
] + END  # fmt: skip

FLOOD = LOGIN + [
    wire.declare_queue(1, "f", arguments={"x-max-length": 25, "x-overflow": "reject-publish"}),
    wire.bind_queue(1, "f", "amq.fanout"),
    wire.declare_queue(1, "g", arguments={"x-max-length-bytes": 3000}),
    wire.bind_queue(1, "g", "amq.fanout"),
    wire.select_confirms(1),
] + [
    wire.publish(1, "amq.fanout", "", "%d" % k * 150, wire.properties(delivery_mode=k % 3))
    for k in range(20)
] + [
    wire.get(1, "f"),
    wire.consume(1, "g", "g"),
    wire.nack(1, 1),
    wire.purge_queue(1, "f"),
    wire.delete_queue(1, "g"),
] + END  # fmt: skip

ALL = (PLUMBING, MESSAGES, CHANNELS, FLOOD)
