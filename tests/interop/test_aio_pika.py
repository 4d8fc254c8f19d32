"""aio-pika: the asyncio client, robust connections included."""

import asyncio

import pytest

from interop_support import client_library

aio_pika = client_library("aio_pika")
aiormq = client_library("aiormq")  # aio-pika's protocol layer: some errors are there only
errors = aio_pika.exceptions


@pytest.fixture
def run(broker, fresh):
    """run(scenario): await scenario(connection) with an open aio-pika connection, at most 15 s."""

    def run(scenario, connect=aio_pika.connect):
        async def main():
            connection = await connect(broker.url, timeout=5)
            async with connection:
                await asyncio.wait_for(scenario(connection), 15)

        asyncio.run(main())

    return run


def message(body, **properties):
    return aio_pika.Message(body, **properties)


def test_publish_and_iterate_a_queue(run, fresh):
    async def scenario(connection):
        channel = await connection.channel()  # with publisher confirms
        exchange = await channel.declare_exchange(fresh.exchange(), aio_pika.ExchangeType.TOPIC)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "sensor.*")
        for n in range(5):
            await exchange.publish(
                message(
                    b"%d" % n, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, headers={"n": n}
                ),
                "sensor.%d" % n,
            )
        got = []
        async with queue.iterator() as messages:
            async for received in messages:
                async with received.process():
                    got.append(
                        (
                            received.routing_key,
                            received.body,
                            received.headers["n"],
                            received.redelivered,
                        )
                    )
                if len(got) == 5:
                    break
        assert got == [("sensor.%d" % n, b"%d" % n, n, False) for n in range(5)]

    run(scenario)


def test_a_robust_connection_works_alike(run, fresh):
    async def scenario(connection):
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=2)
        queue = await channel.declare_queue(fresh.queue(), durable=True)
        done, got = asyncio.Event(), []

        async def on_message(received):
            got.append(received.body)
            await received.ack()
            if len(got) == 6:
                done.set()

        tag = await queue.consume(on_message)
        for n in range(6):
            await channel.default_exchange.publish(message(b"%d" % n), queue.name)
        await done.wait()
        await queue.cancel(tag)
        assert got == [b"%d" % n for n in range(6)]

    run(scenario, aio_pika.connect_robust)


def test_many_publishes_at_once_are_all_confirmed(run, limits):
    async def scenario(connection):
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        publishes = [
            channel.default_exchange.publish(message(b"%d" % n), queue.name, timeout=10)
            for n in range(limits.burst)
        ]
        confirms = await asyncio.gather(*publishes)
        assert {type(confirm).__name__ for confirm in confirms} == {"Ack"}
        bodies = [(await queue.get(no_ack=True)).body for _ in range(limits.burst)]
        assert bodies == [b"%d" % n for n in range(limits.burst)]
        assert await queue.get(no_ack=True, fail=False) is None

    run(scenario)


def test_an_unroutable_message_raises(run):
    async def scenario(connection):
        channel = await connection.channel(on_return_raises=True)
        with pytest.raises(errors.PublishError) as caught:
            await channel.default_exchange.publish(message(b"back"), "there-is-no-such-queue")
        assert "NO_ROUTE" in str(caught.value)

    run(scenario)


def test_a_full_queue_raises(run):
    async def scenario(connection):
        channel = await connection.channel()
        queue = await channel.declare_queue(
            exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
        )
        await channel.default_exchange.publish(message(b"1"), queue.name)
        with pytest.raises(errors.DeliveryError):
            await channel.default_exchange.publish(message(b"2"), queue.name)

    run(scenario)


def test_rejected_and_nacked_messages_come_back(run):
    async def scenario(connection):
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        for body in (b"1", b"2", b"3"):
            await channel.default_exchange.publish(message(body), queue.name)
        first, second, third = [await queue.get() for _ in range(3)]
        await first.reject(requeue=True)
        await third.nack(requeue=False)
        await second.ack()
        again = await queue.get()
        assert (again.body, again.redelivered) == (b"1", True)
        await again.ack()
        assert await queue.get(fail=False) is None

    run(scenario)


def test_request_and_response_through_reply_to(run, fresh, broker):
    async def scenario(connection):
        serving = await connection.channel()
        queue = await serving.declare_queue(fresh.queue("requests"), auto_delete=True)

        async def serve(request):
            async with request.process():
                await serving.default_exchange.publish(
                    message(request.body.upper(), correlation_id=request.correlation_id),
                    request.reply_to,
                )

        await queue.consume(serve)
        asking = await connection.channel()
        answers = await asking.get_queue("amq.rabbitmq.reply-to", ensure=False)
        answered = asyncio.Queue()
        await answers.consume(answered.put, no_ack=True)
        for n in range(3):
            await asking.default_exchange.publish(
                message(
                    b"question %d" % n, correlation_id=str(n), reply_to="amq.rabbitmq.reply-to"
                ),
                queue.name,
            )
            answer = await asyncio.wait_for(answered.get(), 5)
            assert (answer.body, answer.correlation_id) == (b"QUESTION %d" % n, str(n))

    run(scenario)


def test_exchanges_bound_to_exchanges_and_headers(run, fresh):
    async def scenario(connection):
        channel = await connection.channel()
        entry = await channel.declare_exchange(fresh.exchange(), aio_pika.ExchangeType.FANOUT)
        sorter = await channel.declare_exchange(
            fresh.exchange(), aio_pika.ExchangeType.HEADERS, internal=True
        )
        await sorter.bind(entry)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(sorter, arguments={"x-match": "any", "level": "alarm", "room": 7})
        for headers in ({"level": "alarm"}, {"level": "info"}, {"room": 7}):
            await entry.publish(message(str(headers).encode(), headers=headers), "")
        got = [(await queue.get(no_ack=True)).headers for _ in range(2)]
        assert got == [{"level": "alarm"}, {"room": 7}]
        assert await queue.get(fail=False) is None

    run(scenario)


@pytest.mark.parametrize(
    "error, attempt",
    [
        (
            errors.ChannelNotFoundEntity,
            lambda channel, _queue: channel.declare_queue("there-is-no-such-queue", passive=True),
        ),
        (
            errors.ChannelPreconditionFailed,
            lambda channel, queue: channel.declare_queue(
                queue, exclusive=True, arguments={"x-max-length": 1}
            ),
        ),
        (
            aiormq.exceptions.ChannelAccessRefused,
            lambda channel, _queue: channel.declare_queue("amq.mine"),
        ),
    ],
    ids=["404", "406", "403"],
)
def test_an_error_closes_the_channel_only(run, fresh, error, attempt):
    async def scenario(connection):
        name = fresh.name("mine")
        await (await connection.channel()).declare_queue(name, exclusive=True)
        with pytest.raises(error):
            await attempt(await connection.channel(), name)
        again = await (await connection.channel()).declare_queue(name, exclusive=True)
        assert again.declaration_result.message_count == 0

    run(scenario)


def test_a_large_body(run, limits):
    async def scenario(connection):
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        body = bytes(range(256)) * (limits.body // 256)
        await channel.default_exchange.publish(message(body), queue.name)
        assert (await queue.get(no_ack=True)).body == body

    run(scenario)


def test_a_wrong_password_is_refused(broker, run):
    async def refused():
        with pytest.raises(errors.ProbableAuthenticationError):
            await aio_pika.connect(broker.url_for("wrong"), timeout=5)

    async def scenario(_connection):
        pass

    asyncio.run(refused())
    run(scenario)
