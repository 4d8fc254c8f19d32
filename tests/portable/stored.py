"""What tests of durable queues share: publish, take, cut the power, look at what is stored."""

import struct

import wire
from amqp_lite.store.records import DEFINITION, TYPE
from ramflash import RamFlash
from world import World

PERSISTENT = wire.properties(delivery_mode=2)
# Memory for few messages, so that nearly all wait on flash.
SMALL = {"messages": 8, "deliveries": 8, "blocks": 32}


def publish(peer, queue, *bodies, exchange="", **given):
    """Publish persistent messages on channel 1; the names of what came back."""
    given.setdefault("delivery_mode", 2)
    octets = [wire.publish(1, exchange, queue, body, wire.properties(**given)) for body in bodies]
    names = []
    for item in octets:
        names += peer.names(item)
    return names


def take_all(peer, queue):
    """The contents of all that waits, taken for good."""
    contents = []
    while True:
        found = peer.contents(wire.get(1, queue, no_ack=1))
        if not found:
            return contents
        contents += found


def drain(peer, queue):
    """The bodies of all that waits, taken for good."""
    return [content[4] for content in take_all(peer, queue)]


def get(peer, queue):
    """The content of one basic.get, to be acknowledged."""
    return peer.contents(wire.get(1, queue))[0]


def left(content):
    """The message count of a basic.get-ok."""
    return struct.unpack(">I", content[1][-4:])[0]


def counts(peer, name, **options):
    """(messages, consumers) of a queue.declare-ok."""
    frames = peer.ask(wire.declare_queue(1, name, **options))
    assert frames[-1][1] == "queue.declare-ok", frames
    return struct.unpack(">II", frames[-1][2][-8:])


def cut(world):
    """The world after a power cut with all marks on flash, and a client of it."""
    world.broker.store.ring.mark()
    world = world.restart()
    return world, world.client()


def look(world):
    """The world there would be after a power cut now; this one goes on."""
    flash = world.flash
    copied = RamFlash(flash.sectors, flash.sector_size, flash.page_size, bytes(flash.buf))
    few = {"connections": 2, "channels": 2, "messages": 16, "deliveries": 16, "blocks": 64}
    few.update(world.numbers)
    return World(flash=copied, **few)


def kept(world):
    """How many messages and parts of bodies are pending on flash."""
    ring = world.broker.store.ring
    ring.mark()
    count = 0
    order = 1
    slot = 0
    while ring.next_record(order, slot):
        order = ring.at_order
        slot = ring.at_slot + 1
        if ring.kind & TYPE != DEFINITION and ring.is_needed():
            count += 1
    return count


def numbers(first, behind):
    return [b"%d" % k for k in range(first, behind)]


def dropped(world):
    """The drops counted, by reason."""
    counted = world.broker.metrics.snapshot()
    return {
        key: counted[key]
        for key in counted
        if counted[key] and (key.startswith("dropped_") or key == "refused_max_length")
    }
