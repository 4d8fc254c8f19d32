"""A device that stops working: nothing is confirmed that is not kept, and the broker goes on."""

import wire
from amqp_lite import Node
from amqp_lite.errors import ConfigError
from amqp_lite.log import log
from ramflash import RamFlash
from stored import numbers, publish
from test_device import Folder
from world import PROFILE, World


class Failing(RamFlash):
    """Raises OSError from some call on, as a file on a broken disk does."""

    def __init__(self, trusted=True):
        RamFlash.__init__(self, 16, 1024, 64)
        self.trusted = trusted
        self.fails = ""  # the call that does

    def check(self, name):
        if name == self.fails:
            raise OSError(5, "EIO")

    def at(self, address, n):
        self.check("at")
        return address

    def program(self, address, buf, i, n):
        self.check("program")
        RamFlash.program(self, address, buf, i, n)

    def sync(self):
        if self.fails == "sync":
            self.fails = ""  # systems report it once
            raise OSError(5, "EIO")


def start(flash):
    world = World(flash=flash)
    peer = world.client()
    peer.queue("q", durable=1)
    peer.queue("t")
    peer.ask(wire.select_confirms(1))
    return world, peer


def waiting(world):
    return world.broker.queue(b"q").waiting()


def test_what_cannot_be_programmed_or_synced_is_refused_and_the_rest_goes_on():
    for call in ("program", "sync"):
        flash = Failing()
        world, peer = start(flash)
        assert publish(peer, "q", *numbers(0, 3)) == ["basic.ack"] * 3
        flash.fails = call
        assert publish(peer, "q", "lost") == ["basic.nack"]
        flash.fails = ""
        # Not even when the device seems to work again: who knows what it lost.
        assert publish(peer, "q", "late") == ["basic.nack"]
        assert publish(peer, "t", "transient", delivery_mode=1) == ["basic.ack"]
        assert publish(peer, "t", "persistent") == ["basic.ack"]  # that queue promises nothing
        assert world.broker.store.status()["broken"]
        assert world.broker.metrics.dropped_store_full == 1
        other = world.client()
        assert other.works()
        world = world.restart()
        assert waiting(world) in (3, 4)
        assert publish(world.client(), "q", "again") == []
        assert not world.broker.store.broken


def test_a_device_that_fails_between_publishes_costs_no_peer():
    world, peer = start(Failing())
    assert publish(peer, "q", *numbers(0, 3)) == ["basic.ack"] * 3

    def failing():
        raise OSError(5, "EIO")

    world.broker.store.ring.make_room_ahead = failing
    assert publish(peer, "q", "lost") == ["basic.nack"]
    assert world.broker.store.broken and "EIO" in log.recent()[-2]
    assert publish(peer, "t", "transient", delivery_mode=1) == ["basic.ack"]
    assert waiting(world.restart()) in (3, 4)


def test_what_was_accepted_when_the_store_failed_is_refused_once():
    flash = Failing()
    world, peer = start(flash)
    flash.fails = "program"
    octets = b"".join([wire.publish(1, "", "q", "x", wire.properties(delivery_mode=2))] * 3)
    names = peer.names(octets + wire.publish(1, "", "t", "y"))
    # Together, before the commit that failed; the last of them is in its queue all the same.
    assert names == ["basic.nack"], names
    assert publish(peer, "t", "z", delivery_mode=1) == ["basic.ack"]


def test_a_device_that_cannot_be_read_loses_no_count():
    flash = Failing()
    world, peer = start(flash)
    publish(peer, "q", *numbers(0, 80))
    before = waiting(world)
    assert world.broker.queue(b"q").backlog
    flash.fails = "at"
    found = peer.contents(wire.consume(1, "q", "c"))
    assert len(found) + waiting(world) == before
    world.wait(3000)
    assert world.client().works()
    flash.fails = ""
    world = world.restart()
    assert waiting(world) == 80


def test_raw_flash_that_fails_is_left_for_other_sectors():
    flash = Failing(trusted=False)
    world, peer = start(flash)
    assert publish(peer, "q", *numbers(0, 3)) == ["basic.ack"] * 3
    program = flash.program
    bad = world.broker.store.ring.tail

    def failing(address, buf, i, n):
        if address // 1024 == bad:
            raise OSError(5, "EIO")
        program(address, buf, i, n)

    flash.program = failing
    assert publish(peer, "q", "3") == ["basic.ack"]
    assert world.broker.store.ring.copies == 1
    flash.program = program
    assert waiting(world.restart()) == 4


def test_a_get_that_finds_no_memory_does_not_stall_for_ever():
    world = World(messages=8, deliveries=8, blocks=32)
    peer = world.client()
    peer.queue("q", durable=1)
    publish(peer, "q", *numbers(0, 20))
    for _ in range(12):
        peer.ask(wire.get(1, "q"))
    assert peer.engine.stalled
    world.wait(130000)
    assert peer.gone  # it waits for memory and holds some
    assert waiting(world) == 20


def test_one_who_takes_all_of_a_backlog_leaves_memory_to_publishers():
    world = World(messages=8, deliveries=8, blocks=32)
    peer = world.client()
    peer.queue("q", durable=1)
    peer.queue("t")
    publish(peer, "q", *numbers(0, 40))
    world = world.restart()
    taker = world.client()
    taker.ask(wire.consume(1, "q", "c"))
    publisher = world.client()
    publisher.ask(wire.select_confirms(1))
    assert publish(publisher, "q", "more") == ["basic.ack"]


def test_a_configuration_that_finds_no_room_does_not_stop_the_broker():
    with Folder() as folder:
        settings = {
            "listeners": [], "log_level": "error",
            "profile": dict(PROFILE, heap=0, queues=2, exchanges=8),
            "store": {
                "kind": "file", "path": folder + "/ring", "size": 16384, "sector_size": 1024,
                "page_size": 64,
            },
        }  # fmt: skip
        node = Node(settings)
        node.broker.declare_queue(b"a client's", True, None, False, {})
        node.close()
        settings["queues"] = [{"name": "a"}, {"name": "b"}]
        node = Node(settings)
        assert sorted(node.broker.queues) == [b"a", b"a client's"]
        assert "no room for another queue" in node.status()["log"][-1]
        node.close()
        settings["store"].update(sector_size=2048, page_size=128)
        try:
            Node(settings)
        except ConfigError as error:
            assert "is a ring with sectors of 1024 octets in pages of 64" in str(error)
        else:
            assert False, "it would have made the ring useless"
