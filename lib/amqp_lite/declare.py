"""What a configuration declares. It counts where the store has it otherwise."""

from .broker.exchange import KINDS
from .errors import AMQPError, PreconditionFailed
from .log import log


def declare(broker, settings):
    """Declare the exchanges, queues and bindings of *settings*."""
    for key, declare_one in (
        ("exchanges", _declare_exchange),
        ("queues", _declare_queue),
        ("bindings", _declare_binding),
    ):
        for k, row in enumerate(settings[key]):
            try:
                declare_one(broker, row)
            except AMQPError as error:
                # What clients declared may leave no room: who is there is served all the same.
                log.error("%s[%d]: %s", key, k, error.text)


def _declare_exchange(broker, row):
    declaration = (
        row["name"].encode(), KINDS[row["type"].encode()], row["durable"],
        row["auto_delete"], row["internal"], _octets(row["arguments"]),
    )  # fmt: skip
    try:
        broker.declare_exchange(*declaration)
    except PreconditionFailed:
        log.warning("exchange '%s' was stored otherwise: made anew, unbound", row["name"])
        broker.delete_exchange(declaration[0])
        broker.declare_exchange(*declaration)


def _declare_queue(broker, row):
    name = row["name"].encode()
    arguments = _octets(row["arguments"])
    try:
        broker.declare_queue(name, row["durable"], None, row["auto_delete"], arguments)
    except PreconditionFailed:
        queue = broker.queue(name)
        log.warning(
            "queue '%s' was stored otherwise: changed%s", row["name"],
            "" if row["durable"] else ", but it stays durable",
        )  # fmt: skip
        queue.auto_delete = row["auto_delete"]
        broker.change_queue(queue, arguments)


def _declare_binding(broker, row):
    find = broker.queue if row["destination_type"] == "queue" else broker.exchange
    broker.bind(
        broker.exchange(row["source"].encode()), find(row["destination"].encode()),
        row["routing_key"].encode(), _octets(row["arguments"]),
    )  # fmt: skip


def _octets(value):
    """*value* of the configuration with its text as octets, the form the model works with."""
    if isinstance(value, dict):
        return {_octets(key): _octets(value[key]) for key in value}
    return value.encode() if isinstance(value, str) else value
