"""The numbers of a profile: complete, possible, and what they cost."""

import gc
import sys

from amqp_lite.errors import ConfigError
from amqp_lite.limits import (
    CODE,
    FIELDS,
    FROZEN_CODE,
    V10_BYTE_CODE,
    V10_CODE,
    V10_FROZEN_CODE,
    bill,
    check,
    complete,
    total,
)
from amqp_lite.node import Node

MICROPYTHON = sys.implementation.name == "micropython"
WORD = 8 if sys.maxsize > 0x7FFFFFFF else 4

SMALL = {
    "amqp10": 0, "connections": 2, "unauthenticated": 1, "channels": 4, "receive_buffer": 1024,
    "send_buffer": 2048, "exchanges": 8, "queues": 4, "bindings": 4, "consumers": 4, "messages": 8,
    "deliveries": 8, "block_size": 128, "blocks": 32, "message_max": 1024, "routes": 4,
    "route_key": 32, "log_lines": 0,
}  # fmt: skip


def refusal(**numbers):
    """The sentence that refuses SMALL with these *numbers*."""
    try:
        check(complete(SMALL, numbers))
    except ConfigError as refused:
        assert "\n" not in str(refused)
        return str(refused)
    raise AssertionError("not refused")


def test_a_profile_overrides_the_defaults_and_limits_override_both():
    assert complete() == {row[0]: row[1] for row in FIELDS}
    numbers = complete({"queues": 7, "bindings": 8}, {"queues": 9})
    assert (numbers["queues"], numbers["bindings"]) == (9, 8)
    assert numbers["exchanges"] == complete()["exchanges"]
    check(complete())
    check(complete(SMALL))


def test_each_number_has_its_range():
    for name, default, lowest, highest in FIELDS:
        assert lowest <= default <= highest
        for bad in (lowest - 1, highest + 1, "1", None, True, 1.5):
            for path in ("profile", "limits"):
                try:
                    complete(**{"profile" if path == "profile" else "overrides": {name: bad}})
                except ConfigError as refused:
                    assert str(refused).startswith("%s.%s: " % (path, name)), refused
                else:
                    raise AssertionError((name, bad))


def test_numbers_that_cannot_be_together():
    assert refusal(unauthenticated=3) == "profile.unauthenticated: 3, at most 2: connections"
    assert refusal(message_max=2049) == (
        "profile.message_max: 2049, at most 2048: half of blocks * block_size"
    )
    assert refusal(blocks=16) == (
        "profile.message_max: 1024, at most 512: the blocks less its head"
    )
    assert refusal(send_buffer=1024) == (
        "profile.receive_buffer: 1024, at most 184: the send_buffer less its head"
    )
    assert refusal(output_budget=6000) == (
        "profile.output_budget: 6000, at most 0: without a stack_send"
    )


def test_a_profile_that_does_not_fit_its_heap():
    needed = total(bill(complete(SMALL)))
    check(complete(SMALL, {"heap": needed}))
    assert refusal(heap=needed - 1) == (
        "profile.heap: %d octets, but %d are needed, most of them for "
        "code (%d), store (6064), receive buffers (4224), blocks (4160)"
        % (needed - 1, needed, CODE)
    )


def test_what_amqp_1_0_takes():
    few = complete(SMALL)
    both = complete(SMALL, {"amqp10": 1})
    rows = {row[0]: row[3] for row in bill(both)}
    client = rows["AMQP 1.0 clients"] // 2
    assert rows["AMQP 1.0"] == V10_CODE and client > 1000
    assert total(bill(both)) - total(bill(few)) == V10_CODE + 2 * client
    rows = bill(complete(SMALL, {"amqp10": 1, "code_in_flash": 1}))
    assert ("AMQP 1.0", 1, V10_CODE - V10_BYTE_CODE, V10_CODE - V10_BYTE_CODE) in rows
    rows = {row[0]: row[3] for row in bill(complete(SMALL, {"amqp10": 1, "code_in_flash": 2}))}
    assert (rows["code"], rows["AMQP 1.0"]) == (FROZEN_CODE, V10_FROZEN_CODE)
    heap = total(bill(few))
    assert refusal(amqp10=1, heap=heap).endswith("; with limits.amqp10 0 it fits")
    assert not refusal(amqp10=1, heap=heap - 1).endswith("it fits")


def test_a_bill_adds_up():
    rows = bill(complete(SMALL))
    for what, many, each, together in rows:
        assert many * each == together, what
    assert total(rows) == sum([row[3] for row in rows])


# --- what a broker really takes, as MicroPython counts ---


def cost(**more):
    """Octets of heap of a broker with SMALL and *more* of some numbers: (measured, billed)."""
    more = {name: SMALL[name] + more[name] for name in more}
    profile = complete(SMALL, more)
    gc.collect()
    before = gc.mem_alloc()
    node = Node({"listeners": [{"port": 0}]}, profile)
    gc.collect()
    measured = gc.mem_alloc() - before
    node.close()
    # What peers and the log bring later is not there yet, the code was there before, and this one
    # has no store.
    later = ("code", "names", "log lines", "store", "AMQP 1.0", "AMQP 1.0 clients")
    return measured, sum([row[3] for row in bill(profile, WORD) if row[0] not in later])


def test_the_bill_is_what_a_broker_takes():
    if MICROPYTHON:
        cost()  # what stays of the first one is interned, and belongs to the code
        measured, billed = cost()
        assert 0.97 * billed < measured <= billed, (measured, billed)


def test_each_row_of_the_bill_is_what_it_takes():
    if not MICROPYTHON:
        return
    cost()
    cost()
    base, billed = cost()
    for name, more in (
        ("connections", 16), ("channels", 16), ("exchanges", 16), ("queues", 16), ("bindings", 16),
        ("consumers", 16), ("messages", 16), ("deliveries", 16), ("blocks", 16), ("routes", 16),
        ("receive_buffer", 128), ("send_buffer", 256), ("block_size", 64), ("route_key", 32),
    ):  # fmt: skip
        takes, costs = cost(**{name: more})
        takes -= base
        costs -= billed
        assert 0.95 * costs - 64 < takes < 1.05 * costs + 64, (name, takes, costs)
