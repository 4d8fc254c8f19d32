"""pika: bindings from exchange to exchange, and alternate exchanges."""

import pytest

from interop_support import channel_closes, client_library, drain, exclusive_queue

pika = client_library("pika")


@pytest.fixture
def exchanges(channel, fresh):
    """A function that declares n exchanges of a type and returns their names."""

    def declare(n, kind="topic", **options):
        names = [fresh.exchange() for _ in range(n)]
        for name in names:
            channel.exchange_declare(name, kind, **options)
        return names

    return declare


def test_a_message_goes_through_a_chain_of_exchanges(channel, exchanges):
    first, second, third = exchanges(3)
    queue = exclusive_queue(channel)
    channel.exchange_bind(second, first, "a.#")
    channel.exchange_bind(third, second, "*.b")
    channel.queue_bind(queue, third, "#")
    for key in ("a.b", "a.c", "x.b"):
        channel.basic_publish(first, key, key.encode())
    assert drain(channel, queue) == [b"a.b"]


def test_an_exchange_binding_ends_with_unbind(channel, exchanges):
    first, second = exchanges(2)
    queue = exclusive_queue(channel)
    channel.exchange_bind(second, first, "#")
    channel.queue_bind(queue, second, "#")
    channel.exchange_unbind(second, first, "#")
    channel.basic_publish(first, "a", b"lost")
    assert drain(channel, queue) == []


def test_loops_of_exchanges_are_cut(channel, exchanges):
    ring = exchanges(3, "fanout")
    queue = exclusive_queue(channel)
    for source, destination in zip(ring, ring[1:] + ring[:1]):
        channel.exchange_bind(destination, source)
    channel.exchange_bind(ring[0], ring[0])
    channel.queue_bind(queue, ring[2])
    for exchange in ring:
        channel.basic_publish(exchange, "", exchange.encode())
    assert drain(channel, queue) == [exchange.encode() for exchange in ring]


def test_two_ways_to_a_queue_are_one_copy(channel, exchanges):
    top, left, right = exchanges(3)
    queue = exclusive_queue(channel)
    for middle in (left, right):
        channel.exchange_bind(middle, top, "#")
        channel.queue_bind(queue, middle, "#")
    channel.basic_publish(top, "a", b"once")
    assert drain(channel, queue) == [b"once"]


def test_an_internal_exchange_takes_messages_from_another_exchange(channel, exchanges):
    (entry,) = exchanges(1)
    (inner,) = exchanges(1, internal=True)
    queue = exclusive_queue(channel)
    channel.exchange_bind(inner, entry, "#")
    channel.queue_bind(queue, inner, "#")
    channel.basic_publish(entry, "a", b"inside")
    assert drain(channel, queue) == [b"inside"]


def test_binding_an_absent_exchange_is_404(connect, channel, exchanges):
    (there,) = exchanges(1)
    with channel_closes(404):
        connect().channel().exchange_bind(there, "there-is-no-such-exchange", "#")
    with channel_closes(404):
        channel.exchange_bind("there-is-no-such-exchange", there, "#")


def test_deleting_an_exchange_ends_its_bindings_to_others(channel, exchanges):
    first, second = exchanges(2)
    queue = exclusive_queue(channel)
    channel.exchange_bind(second, first, "#")
    channel.queue_bind(queue, second, "#")
    channel.exchange_delete(first)
    channel.exchange_declare(first, "topic")
    channel.basic_publish(first, "a", b"lost")
    channel.basic_publish(second, "a", b"direct")
    assert drain(channel, queue) == [b"direct"]


def test_the_alternate_exchange_takes_what_no_binding_takes(channel, exchanges):
    (catch_all,) = exchanges(1, "fanout")
    (main,) = exchanges(1, "direct", arguments={"alternate-exchange": catch_all})
    wanted, rest = exclusive_queue(channel), exclusive_queue(channel)
    channel.queue_bind(wanted, main, "known")
    channel.queue_bind(rest, catch_all)
    channel.confirm_delivery()
    for key in ("known", "unknown"):  # nothing is returned: the alternate exchange took it
        channel.basic_publish(main, key, key.encode(), mandatory=True)
    assert drain(channel, wanted) == [b"known"]
    assert drain(channel, rest) == [b"unknown"]


def test_an_alternate_exchange_that_routes_nothing_lets_mandatory_return(channel, exchanges):
    (catch_all,) = exchanges(1, "direct")
    (main,) = exchanges(1, "direct", arguments={"alternate-exchange": catch_all})
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish(main, "key", b"body", mandatory=True)


def test_an_absent_alternate_exchange_is_no_error(channel, exchanges):
    (main,) = exchanges(1, "direct", arguments={"alternate-exchange": "there-is-no-such-exchange"})
    channel.confirm_delivery()
    channel.basic_publish(main, "key", b"dropped")


def test_alternate_exchanges_in_a_circle_are_cut(channel, fresh):
    first, second = fresh.exchange(), fresh.exchange()
    channel.exchange_declare(first, "direct", arguments={"alternate-exchange": second})
    channel.exchange_declare(second, "direct", arguments={"alternate-exchange": first})
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish(first, "key", b"body", mandatory=True)
