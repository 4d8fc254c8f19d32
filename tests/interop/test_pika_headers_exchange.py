"""pika: the headers exchange, every x-match."""

import pytest

from interop_support import channel_closes, client_library, drain, exclusive_queue

pika = client_library("pika")

# binding arguments -> the messages' headers that match, and those that do not
TABLE = [
    (
        {"x-match": "all", "a": "1", "b": 2},
        [{"a": "1", "b": 2}, {"a": "1", "b": 2, "c": 3}],
        [{}, {"a": "1"}, {"a": "1", "b": 3}, {"a": 1, "b": 2}],
    ),
    ({"a": "1", "b": 2}, [{"a": "1", "b": 2}], [{"a": "1"}]),  # all is the default
    (
        {"x-match": "any", "a": "1", "b": 2},
        [{"a": "1"}, {"b": 2, "c": 3}, {"a": "no", "b": 2}],
        [{}, {"a": "2"}, {"c": 3}],
    ),
    (
        {"x-match": "all", "flag": True},
        [{"flag": True}],
        [{"flag": False}, {"flag": 1}, {"flag": "true"}],
    ),
    # a void asks whether the header is there at all
    ({"x-match": "all", "a": None}, [{"a": "1"}, {"a": 7}, {"a": None}], [{"b": "1"}]),
    ({"x-match": "all", "n": -70000}, [{"n": -70000}], [{"n": 70000}, {"n": "-70000"}]),
    # all and any pass over names that begin with x-
    ({"x-match": "all", "x-a": "1", "b": 2}, [{"b": 2}, {"x-a": "no", "b": 2}], [{"x-a": "1"}]),
    ({"x-match": "any", "x-a": "1", "b": 2}, [{"b": 2}], [{"x-a": "1"}]),
    (
        {"x-match": "all-with-x", "x-a": "1", "b": 2},
        [{"x-a": "1", "b": 2}],
        [{"b": 2}, {"x-a": "1"}],
    ),
    ({"x-match": "any-with-x", "x-a": "1", "b": 2}, [{"x-a": "1"}, {"b": 2}], [{"x-a": "2"}, {}]),
    ({"x-match": "all"}, [{}, {"a": "1"}], []),
    ({"x-match": "any"}, [], [{}, {"a": "1"}]),
]


@pytest.fixture
def matches(channel, fresh):
    """A function: does a message with these headers reach a queue bound with these arguments?"""
    exchange, queue = fresh.exchange(), exclusive_queue(channel)
    channel.exchange_declare(exchange, "headers")

    def matches(arguments, headers):
        channel.queue_bind(queue, exchange, arguments=arguments)
        channel.basic_publish(exchange, "any key", b"", pika.BasicProperties(headers=headers))
        got = len(drain(channel, queue))
        channel.queue_unbind(queue, exchange, arguments=arguments)
        return got

    return matches


@pytest.mark.parametrize(
    "arguments, yes, no", TABLE, ids=[str(row[0]).replace("'", "") for row in TABLE]
)
def test_a_headers_binding_matches(matches, arguments, yes, no):
    for headers in yes:
        assert matches(arguments, headers) == 1, headers
    for headers in no:
        assert matches(arguments, headers) == 0, headers


def test_a_message_without_headers_matches_nothing_that_is_asked_for(matches):
    assert matches({"x-match": "all", "a": "1"}, None) == 0
    assert matches({"x-match": "any", "a": "1"}, None) == 0
    assert matches({"x-match": "all"}, None) == 1


def test_bindings_with_other_arguments_are_bindings_of_their_own(channel, fresh):
    exchange, queue = fresh.exchange(), exclusive_queue(channel)
    channel.exchange_declare(exchange, "headers")
    for colour in ("red", "green"):
        channel.queue_bind(queue, exchange, arguments={"colour": colour})
    channel.queue_unbind(queue, exchange, arguments={"colour": "red"})
    for colour in ("red", "green"):
        channel.basic_publish(
            exchange, "", colour.encode(), pika.BasicProperties(headers={"colour": colour})
        )
    assert drain(channel, queue) == [b"green"]


def test_an_unknown_x_match_is_406(channel, fresh):
    exchange, queue = fresh.exchange(), exclusive_queue(channel)
    channel.exchange_declare(exchange, "headers")
    with channel_closes(406):
        channel.queue_bind(queue, exchange, arguments={"x-match": "most", "a": "1"})
