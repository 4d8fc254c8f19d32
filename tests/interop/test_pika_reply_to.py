"""pika: request and response through amq.rabbitmq.reply-to, without a reply queue."""

import pytest

from interop_support import channel_closes, client_library, exclusive_queue, pump, wait_for

pika = client_library("pika")

REPLY_TO = "amq.rabbitmq.reply-to"


class Requester:
    """Sends requests to a queue and collects (correlation id, body) of the answers."""

    def __init__(self, channel, queue):
        self.channel = channel
        self.queue = queue
        self.answers = []
        self.tag = channel.basic_consume(REPLY_TO, self._on_answer, auto_ack=True)

    def _on_answer(self, _channel, method, properties, body):
        assert method.consumer_tag == self.tag
        self.answers.append((properties.correlation_id, body))

    def ask(self, number, body):
        self.channel.basic_publish(
            "",
            self.queue,
            body,
            pika.BasicProperties(reply_to=REPLY_TO, correlation_id=str(number)),
        )

    def answered(self, count):
        pump(self.channel.connection, lambda: len(self.answers) >= count, "%d answers" % count)
        return self.answers


def request(channel, queue):
    """Take the next request: (properties, body)."""
    method, properties, body = wait_for(lambda: _get(channel, queue), "a request")
    return properties, body


def _get(channel, queue):
    got = channel.basic_get(queue, auto_ack=True)
    return got if got[0] else None


def answer(channel, properties, body, **options):
    channel.basic_publish(
        "",
        properties.reply_to,
        body,
        pika.BasicProperties(correlation_id=properties.correlation_id),
        **options,
    )


@pytest.fixture
def server(connect, fresh):
    """(channel, queue) of the one who answers."""
    channel, queue = connect().channel(), fresh.queue("requests")
    channel.queue_declare(queue)
    return channel, queue


def test_requests_are_answered_to_the_one_who_asked(connect, server):
    channel, queue = server
    connection = connect()
    one, two = Requester(connection.channel(), queue), Requester(connection.channel(), queue)
    addresses = []
    for number, requester in enumerate((one, two, one)):
        requester.ask(number, b"question %d" % number)
        properties, body = request(channel, queue)
        answer(channel, properties, body.upper())
        addresses.append(properties.reply_to)
    assert one.answered(2) == [("0", b"QUESTION 0"), ("2", b"QUESTION 2")]
    assert two.answered(1) == [("1", b"QUESTION 1")]
    assert all(address.startswith(REPLY_TO + ".") for address in addresses)
    assert addresses[0] == addresses[2] != addresses[1]


def test_an_answer_larger_than_a_frame_arrives_whole(connect, server, limits):
    channel, queue = server
    requester = Requester(connect(frame_max=4096).channel(), queue)
    requester.ask(1, b"everything, please")
    body = b"<>" * (limits.body // 2)
    answer(channel, request(channel, queue)[0], body)
    assert requester.answered(1) == [("1", body)]


def test_asking_before_consuming_is_406(channel):
    queue = exclusive_queue(channel)
    channel.confirm_delivery()
    with channel_closes(406):
        channel.basic_publish("", queue, b"question", pika.BasicProperties(reply_to=REPLY_TO))


def test_answers_cannot_be_acknowledged(channel):
    with channel_closes(406):
        channel.basic_consume(REPLY_TO, lambda *_: None, auto_ack=False)


def test_a_channel_has_one_consumer_of_answers(channel):
    channel.basic_consume(REPLY_TO, lambda *_: None, auto_ack=True)
    with channel_closes(406):
        channel.basic_consume(REPLY_TO, lambda *_: None, auto_ack=True)


def test_the_consumer_of_answers_can_be_cancelled_and_begun_again(channel, server):
    serving, queue = server
    first = Requester(channel, queue)
    channel.basic_cancel(first.tag)
    second = Requester(channel, queue)
    second.ask(1, b"again")
    answer(serving, request(serving, queue)[0], b"yes")
    assert second.answered(1) == [("1", b"yes")]
    assert first.answers == []


def test_an_answer_to_one_who_left_is_returned(connect, server):
    channel, queue = server
    asking = connect()
    Requester(asking.channel(), queue).ask(1, b"are you there?")
    properties, _body = request(channel, queue)
    asking.close()
    channel.confirm_delivery()

    def unroutable():
        try:
            answer(channel, properties, b"yes", mandatory=True)
        except pika.exceptions.UnroutableError as error:
            return error

    assert wait_for(unroutable, "the answer comes back").messages[0].method.reply_code == 312
    answer(channel, properties, b"dropped")


def test_a_server_can_see_whether_the_one_who_asked_is_there(connect, server):
    channel, queue = server
    asking = connect()
    Requester(asking.channel(), queue).ask(1, b"are you there?")
    properties, _body = request(channel, queue)
    assert (
        channel.queue_declare(properties.reply_to, passive=True).method.queue
        == properties.reply_to
    )
    asking.close()

    def gone():
        watching = channel.connection.channel()
        try:
            watching.queue_declare(properties.reply_to, passive=True)
        except pika.exceptions.ChannelClosedByBroker as error:
            return error.reply_code
        watching.close()

    assert wait_for(gone, "404 for the address of one who left") == 404
