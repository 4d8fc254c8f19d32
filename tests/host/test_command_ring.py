"""`ring`: what it shows, verifies and exports, of files, dumps and segments, whole and damaged."""

import base64
import json
import os
import random
import re
import signal
import struct
import sys
import tracemalloc

import pytest
from command import Broker, listening, refused, run

import chance
import wire
from amqp_lite import Node
from amqp_lite.compat import crc32
from amqp_lite.log import log
from amqp_lite.store.records import BODY, MESSAGE, TYPE
from clients10 import ask as exchange10
from clients10 import sender, session
from host_tools.main import main
from ramflash import RamFlash
from stored import drain, publish
from wire10 import message, transfer
from world import World, tag_of

# sectors, octets of a sector, of a page
BOARD = (64, 4096, 256)
GATEWAY = (8, 65536, 4096)
SMALL = (24, 1024, 64)
PERSISTENT = {"delivery_mode": 2}


def node_on(path, shape, **settings):
    log.configure("error", 0)
    sectors, sector_size, page_size = shape
    store = {"kind": "file", "path": str(path), "size": sectors * sector_size,
             "sector_size": sector_size, "page_size": page_size}  # fmt: skip
    return Node({"listeners": [], "log_level": "error", "store": store, **settings})


def close(node):
    node.step(0)
    node.close()


def world_on(shape=SMALL):
    """A broker on flash in RAM, and a client of it."""
    world = World(flash=RamFlash(*shape))
    return world, world.client()


def dump(world, path, before=b"", behind=b""):
    """What a programmer reads out of a dead board; also as octets that can be changed."""
    octets = bytearray(before + bytes(world.flash.buf) + behind)
    path.write_bytes(octets)
    return octets


def places(world, kind):
    """(sector, slot, slots) of the records of *kind*, in the order of the log."""
    ring = world.broker.store.ring
    ring.commit()
    found = []
    order, slot = 1, 0
    while ring.next_record(order, slot):
        order, slot = ring.at_order, ring.at_slot + 1
        if ring.kind & TYPE == kind:
            found.append((ring.sector, ring.slot, ring.used))
    return found


class Asked:
    """Commands in this process, with their outputs; FILE may not change."""

    def __init__(self, capsys, path):
        self._capsys = capsys
        self.path = path

    def __call__(self, command, *options, code=0):
        before = self.path.read_bytes() if self.path.is_file() else None
        earlier = self._capsys.readouterr().out
        returned = main(["ring", command, str(self.path), *map(str, options)])
        said = self._capsys.readouterr()
        print(earlier, end="")  # the seed, for when this fails
        if before is not None:
            assert self.path.read_bytes() == before, "the file was written to"
        assert returned == code, (returned, said)
        self.errors = said.err
        return said.out

    def code(self, command):
        """The exit code, 0 or 1."""
        earlier = self._capsys.readouterr().out
        returned = main(["ring", command, str(self.path)])
        self._capsys.readouterr()
        print(earlier, end="")
        assert returned in (0, 1)
        return returned

    def export(self, *options, code=0):
        return [json.loads(line) for line in self("export", *options, code=code).splitlines()]

    def refused(self, *arguments):
        assert self(*arguments, code=2) == ""
        assert self.errors.startswith("amqp-lite: ") and self.errors.count("\n") == 1
        return self.errors[len("amqp-lite: ") : -1]


@pytest.fixture
def ask(capsys, tmp_path):
    return Asked(capsys, tmp_path / "a.ring")


def queues_of(text):
    """Rows of `show` by the queue's name: number, messages, octets, age of the oldest."""
    rows = re.findall(r"^(\S+|\(no definition\)) +(\d+) +(\d+) +(\d+)  +(.+)$", text, re.MULTILINE)
    return {row[0]: (int(row[1]), int(row[2]), int(row[3]), row[4]) for row in rows}


# --- what there is ---


@pytest.mark.parametrize("shape", [BOARD, GATEWAY])
def test_a_ring_file(ask, shape):
    node = node_on(
        ask.path, shape,
        exchanges=[{"name": "telemetry", "type": "topic"},
                   {"name": "transient", "type": "direct", "durable": False}],
        queues=[{"name": "all"}, {"name": "kitchen", "arguments": {"x-message-ttl": 60000}},
                {"name": "empty"}, {"name": "transient", "durable": False}],
        bindings=[
            {"source": "telemetry", "destination": "all", "routing_key": "#"},
            {"source": "telemetry", "destination": "kitchen", "routing_key": "kitchen.*"},
        ],
    )  # fmt: skip
    for k in range(100):
        key = "garden.t" if k % 4 else "kitchen.t"
        node.publish("telemetry", key, b"%d" % k, {"headers": {"n": k}, **PERSISTENT})
    close(node)
    text = ask("show")
    sectors, sector_size, page_size = shape
    assert f"{sectors} sectors of {sector_size} octets in pages of {page_size}\n" in text
    using = 2 if shape is BOARD else 1
    assert f"\n{using} hold what waits, {sectors - using} are free, 0 have a header" in text
    rows = queues_of(text)
    assert [row[:3] for row in (rows["all"], rows["kitchen"], rows["empty"])] == [
        (0, 100, 190), (1, 25, 47), (2, 0, 0),
    ]  # fmt: skip
    assert rows["kitchen"][3].endswith(" s") and "transient" not in rows
    assert "telemetry  topic\n" in text and "amq." not in text
    assert re.search(r"^telemetry +queue +kitchen +kitchen\.\*$", text, re.MULTILINE)
    assert ask("verify").endswith("nothing is damaged\n")
    found = ask.export()
    assert [row["body"] for row in found if row["queue"] == "all"] == [str(k) for k in range(100)]
    assert ask.export("--queue", "kitchen") == [r for r in found if r["queue"] == "kitchen"]
    row = ask.export("--queue", "kitchen")[1]
    assert 0 <= row.pop("born_ms") < 5000
    assert (row.pop("order"), row.pop("slot")) > (0, 0)
    assert row == {
        "queue": "kitchen", "queue_number": 1, "exchange": "telemetry",
        "routing_key": "kitchen.t", "properties": {"headers": {"n": 4}, "delivery_mode": 2},
        "tries": 0, "body_encoding": "string", "body": "4",
    }  # fmt: skip


def test_a_transaction_is_there_or_not_as_for_a_start(ask):
    world, peer = world_on()
    peer.queue("q", durable=1)
    publish(peer, "q", "old")
    tag = tag_of(peer.contents(wire.get(1, "q"))[0])
    peer.ask(wire.method(1, "tx.select"))
    publish(peer, "q", "1", "2")
    peer.send(wire.ack(1, tag))
    ring = world.broker.store.ring
    order, slot = ring.newest, ring.tail_slot
    assert peer.names(wire.method(1, "tx.commit")) == ["tx.commit-ok"]
    assert ring.acks, "nothing is marked yet"
    octets = dump(world, ask.path)
    assert [row["body"] for row in ask.export()] == ["1", "2"]
    assert queues_of(ask("show"))["q"][1:3] == (2, 2)
    # Without its commit record.
    while ring.next_record(order, slot) and ring.kind & TYPE:
        slot = ring.slot_behind()
    octets[ring.sector * SMALL[1] + ring.slot * 16] = 0
    ask.path.write_bytes(octets)
    assert [row["body"] for row in ask.export()] == ["old"]
    assert queues_of(ask("show"))["q"][1:3] == (1, 3)


def test_what_was_taken_is_not_there(ask):
    world, peer = world_on()
    peer.queue("q", durable=1)
    peer.queue("r", durable=1)
    publish(peer, "q", "1", "2", "3")
    contents = [peer.contents(wire.get(1, "q"))[0] for _ in range(3)]
    peer.send(wire.ack(1, tag_of(contents[1])))
    peer.send(wire.nack(1, tag_of(contents[2])))
    world.broker.store.ring.mark()
    dump(world, ask.path)
    assert [(row["body"], row["tries"]) for row in ask.export()] == [("1", 0), ("3", 1)]


def test_octets_of_all_kinds(ask):
    world, peer = world_on()
    peer.queue("q", durable=1)
    peer.queue("k\u00fcche\u001b[1m", durable=1)
    peer.send(wire.bind_queue(1, "k\u00fcche\u001b[1m", "amq.fanout", "", {"a": 1}))
    publish(peer, "q", b"\xff\x00", headers={"b": b"\xfe", "l": [None, True, {"c": -1}]},
            expiration="5000", correlation_id=b"\x80", timestamp=1700000000)  # fmt: skip
    publish(peer, "x", "\U0001f525\n\"\\", exchange="amq.fanout")
    publish(peer, "q", "")
    dump(world, ask.path)
    first, second, third = ask.export()
    assert first["properties"] == {
        "headers": {"b": {"base64": "/g=="}, "l": [None, True, {"c": -1}]}, "delivery_mode": 2,
        "correlation_id": {"base64": "gA=="}, "expiration": "5000", "timestamp": 1700000000,
    }  # fmt: skip
    assert (first["body_encoding"], base64.b64decode(first["body"])) == ("base64", b"\xff\x00")
    assert first["ttl_ms"] == 5000
    assert second["queue"] == "k\u00fcche\u001b[1m" and "ttl_ms" not in second
    assert (second["body_encoding"], second["body"]) == ("string", "\U0001f525\n\"\\")
    assert (third["body_encoding"], third["body"]) == ("string", "")
    text = ask("show")
    assert "k\\xfcche\\x1b[1m" in text and "\u001b" not in text and '{"a": 1}' in text


def test_messages_of_amqp_1_0(ask):
    world = World(flash=RamFlash(*GATEWAY), message_max=9000)
    world.client().queue("q", durable=1)
    peer = session(world)
    sender(peer, "q")
    long = bytes(range(256)) * 30
    value = message(b"", durable=True)[:-5] + b"\0\x53\x77\xa1\x04text"
    for k, whole in enumerate((message(b"21.5", durable=True, headers={"room": 1}), value)):
        exchange10(peer, transfer(whole, k))
    whole = message(long, durable=True)
    for i in range(0, len(whole), 700):
        more = i + 700 < len(whole) or None
        exchange10(peer, transfer(whole[i : i + 700], None if i else 2, more=more))
    dump(world, ask.path)
    plain, encoded, large = ask.export()
    assert plain["body"] == "21.5"
    assert plain["properties"] == {"headers": {"room": 1}, "delivery_mode": 2}
    assert base64.b64decode(encoded["body"]) == b"\0\x53\x77\xa1\x04text" or (
        encoded["body"] == "\0Sw\xa1\x04text"
    )
    assert encoded["properties"]["type"] == "amqp-1.0"
    assert base64.b64decode(large["body"]) == long


def test_a_message_for_many_queues(ask):
    node = node_on(ask.path, BOARD, queues=[{"name": "q%02d" % k} for k in range(20)],
                   bindings=[{"source": "amq.fanout", "destination": "q%02d" % k}
                             for k in range(20)])  # fmt: skip
    node.publish("amq.fanout", "", b"to all", PERSISTENT)
    node.subscribe("q07", lambda message: None)
    node.step(0)
    close(node)
    names = ["q%02d" % k for k in range(20) if k != 7]
    assert sorted(row["queue"] for row in ask.export()) == names
    assert [row[1] for row in queues_of(ask("show")).values()].count(1) == 19


@pytest.mark.parametrize("shape", [BOARD, GATEWAY])
def test_bodies_in_parts(ask, shape):
    node = node_on(ask.path, shape, queues=[{"name": "q"}])
    text = "\u00fc\u4e2d\U0001f525a" * 8000
    bodies = [b"small", text.encode(), bytes(range(256)) * 300, b"end"]
    for body in bodies:
        node.publish("", "q", body, PERSISTENT)
    close(node)
    found = ask.export()
    assert [row["body_encoding"] for row in found] == ["string", "string", "base64", "string"]
    assert found[1]["body"] == text and base64.b64decode(found[2]["body"]) == bodies[2]
    assert queues_of(ask("show"))["q"][:3] == (0, 4, sum(map(len, bodies)))
    assert ask("verify").endswith("nothing is damaged\n")


def test_a_large_body_is_not_in_memory(ask, monkeypatch):
    node = node_on(ask.path, (256, 65536, 4096), queues=[{"name": "q"}])
    node.publish("", "q", bytes(8 << 20), PERSISTENT)
    close(node)
    ask("show")
    with open(os.devnull, "w") as sink:
        monkeypatch.setattr(sys, "stdout", sink)
        tracemalloc.start()
        assert main(["ring", "export", str(ask.path)]) == 0
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 3 << 20


def test_a_long_life_with_merges(ask):
    choose = chance.seeded()
    world, peer = world_on((16, 1024, 64))
    for name in ("q", "slow"):
        peer.queue(name, durable=1)
        peer.send(wire.bind_queue(1, name, "amq.fanout", ""))
    number = 0
    for _ in range(600):
        if choose.random() < 0.6:
            number += 1
            queue = "q" if number % 9 else "slow"
            publish(peer, queue, "%05d" % number * choose.randrange(20))
        else:
            peer.ask(wire.get(1, "q", no_ack=1))
        if number % 50 == 0:
            peer.ask(wire.get(1, "slow", no_ack=1))
    assert world.broker.store.ring.merges
    world.broker.store.ring.mark()
    dump(world, ask.path)
    assert ask("verify").endswith("nothing is damaged\n")
    for name in ("q", "slow"):
        bodies = [row["body"].encode() for row in ask.export("--queue", name)]
        assert bodies == drain(peer, name) and bodies, name


def test_messages_without_a_definition(ask):
    world, peer = world_on()
    peer.queue("q", durable=1)
    publish(peer, "q", "lost", "found")
    ring = world.broker.store.ring
    queue = world.broker.queues[b"q"]
    ring.ack(queue.defined_order, queue.defined_slot, 0)
    ring.mark()
    dump(world, ask.path)
    assert queues_of(ask("show"))["(no definition)"][:3] == (0, 2, 9)
    assert [(r["queue"], r["queue_number"], r["body"]) for r in ask.export()] == [
        (None, 0, "lost"), (None, 0, "found"),
    ]  # fmt: skip


def test_definitions_of_no_use(ask):
    world, peer = world_on()
    peer.queue("q", durable=1)
    peer.send(wire.bind_queue(1, "q", "amq.topic", "k"))
    ring = world.broker.store.ring
    queue = world.broker.queues[b"q"]
    ring.ack(queue.defined_order, queue.defined_slot, 0)
    ring.mark()
    dump(world, ask.path)
    text = ask("show")
    assert "1 definition that a later one replaced, or that refer to nothing\n" in text
    assert "no queues\n" in text and "amq.topic" not in text


# --- dumps ---


def test_a_ring_somewhere_in_a_dump(ask):
    choose = chance.seeded()
    world, peer = world_on(BOARD)
    peer.queue("q", durable=1)
    publish(peer, "q", *["%d" % k * 40 for k in range(60)])
    for sectors in (1, 3, 149):
        before = bytearray(chance.octets(choose, sectors * 4096))
        for at in range(0, len(before), 1024):
            before[at : at + 2] = b"\xa1\x44"  # what looks like a header at first sight
        behind = chance.octets(choose, 5 * 4096 + 100)
        dump(world, ask.path, bytes(before), behind)
        text = ask("show")
        assert queues_of(text)["q"][:2] == (0, 60)
        if sectors > 2:
            where = re.search(r"octets (\d+) to (\d+) of the file", text).groups()
            assert int(where[0]) == len(before)
            assert int(where[1]) == len(before) + 64 * 4096 - 1
            assert "0 have a header" in text and "64 sectors" in text
        assert len(ask.export()) == 60
        options = ("--offset", hex(len(before)), "--size", 64 * 4096)
        assert "64 sectors" in ask("show", *options)
        for offset in (len(before) + 1, len(before) + 1024):
            assert ask.refused("show", "--offset", offset) == (
                f"{ask.path}: no sector header found from --offset {offset} on"
            )


def test_a_smaller_ring_in_a_file_that_was_larger(ask):
    node = node_on(ask.path, (32, 4096, 256), queues=[{"name": "old"}])
    for _ in range(24):
        node.publish("", "old", bytes(2000), PERSISTENT)
    close(node)
    node = node_on(ask.path, (16, 4096, 256), queues=[{"name": "q"}])
    close(node)
    assert "16 sectors" in ask("show", "--size", 16 * 4096)
    assert "32 sectors" in ask("show")
    assert "cannot be" not in ask.refused("show", "--offset", 0, "--size", 64 * 4096)
    line = f"{ask.path}: --size 100: a sector has 4096 octets"
    assert ask.refused("show", "--size", 100) == line


def test_a_part_without_any_header(ask):
    dump(some_messages(), ask.path, before=b"\xff" * 4096)
    assert "no header says them" in ask("show", "--size", 2048)


def test_segments_in_a_folder(ask):
    ask.path = ask.path.with_suffix("")
    log.configure("error", 0)
    store = {"kind": "segments", "path": str(ask.path), "size": 8 * 32768}
    node = Node({"listeners": [], "log_level": "error", "store": store, "queues": [{"name": "q"}]})
    for k in range(200):
        node.publish("", "q", b"%d" % k * 100, PERSISTENT)
    taken = []
    node.subscribe("q", taken.append)
    while len(taken) < 50:
        node.step(0)
    node._subscribers.clear()
    node.broker.store.ring.mark()
    node.broker.store.ring.commit()
    files = {name: (ask.path / name).read_bytes() for name in os.listdir(ask.path)}
    assert any(name.endswith(".fix") for name in files)
    text = ask("show")  # while it is open elsewhere
    assert "a ring in segments" in text
    rows = ask.export()
    assert [row["body"] for row in rows][-1] == "199" * 100
    assert len(rows) == queues_of(text)["q"][1] == 200 - len(taken)
    assert ask("verify").endswith("nothing is damaged\n")
    assert {name: (ask.path / name).read_bytes() for name in os.listdir(ask.path)} == files
    node.close()


# --- damage ---


def some_messages(n=60, size=20, shape=SMALL):
    world, peer = world_on(shape)
    peer.queue("q", durable=1)
    publish(peer, "q", *[("%04d" % k) * (size // 4) for k in range(n)])
    return world


@pytest.mark.parametrize("before", [0, 40 * 1024])
def test_damage_in_the_middle(ask, before):
    world = some_messages()
    octets = dump(world, ask.path, bytes(chance.octets(random, before)))
    records = places(world, MESSAGE)
    for at, n in ((records[7], 1), (records[20], 2), (records[33], 40)):
        octets[before + at[0] * 1024 + at[1] * 16 + 9] ^= n
    ask.path.write_bytes(octets)
    text = ask("verify", code=1)
    for k in (7, 20, 33):
        sector, slot, used = records[k]
        first = before + sector * 1024 + slot * 16
        assert (
            f"damaged: sector {sector}, slots {slot} to {slot + used - 1},"
            f" octets {first:#x} to {first + used * 16 - 1:#x}\n"
        ) in text
    assert text.endswith("\n3 places damaged\n")
    left = ["%04d" % k * 5 for k in range(60) if k not in (7, 20, 33)]
    assert [row["body"] for row in ask.export(code=1)] == left
    assert ask.errors == "3 places could not be read: see `ring verify`\n"
    assert "3 places could not be read" in ask("show")


def test_damage_to_what_was_done_with(ask):
    world, peer = world_on()
    peer.queue("q", durable=1)
    publish(peer, "q", "1", "2", "3")
    peer.ask(wire.get(1, "q", no_ack=1))
    world.broker.store.ring.mark()
    sector, slot, _ = places(world, MESSAGE)[0]
    octets = dump(world, ask.path)
    octets[sector * 1024 + slot * 16 + 8] ^= 1
    ask.path.write_bytes(octets)
    assert ", which was done with\n" in ask("verify", code=1)


def test_a_blank_page_among_records_is_damage(ask):
    world = some_messages()
    octets = dump(world, ask.path)
    octets[512:576] = b"\xff" * 64
    ask.path.write_bytes(octets)
    assert "damaged: sector 0, slots " in ask("verify", code=1)


def test_what_a_cut_left_is_told_from_damage(ask):
    world = some_messages(n=50)
    octets = dump(world, ask.path)
    sector, slot, used = places(world, MESSAGE)[-1]
    at = sector * 1024 + slot * 16
    octets[at + 20 : (sector + 1) * 1024] = b"\xff" * (1024 - slot * 16 - 20)
    ask.path.write_bytes(octets)
    text = ask("verify")
    assert f"cut off: sector {sector}, slots {slot} to {slot + 1}, octets {at:#x} " in text
    assert text.endswith("nothing is damaged\n")
    assert len(ask.export()) == 49 and not ask.errors
    assert "1 place cut off while it was written\n" in ask("show")
    # A start settles that.
    again = World(flash=RamFlash(*SMALL, bytes(octets)))
    dump(again, ask.path)
    assert "cut off and settled: " in ask("verify")
    assert "1 place cut off earlier, and settled by a start since\n" in ask("show")
    # And behind the records of an earlier sector there is no cut that no start has settled.
    earlier = [place for place in places(world, MESSAGE) if place[0] == 0][-1]
    octets = dump(world, ask.path)
    octets[earlier[1] * 16 + 9] ^= 1
    ask.path.write_bytes(octets)
    assert f"damaged: sector 0, slots {earlier[1]} to " in ask("verify", code=1)


@pytest.mark.parametrize("shape", [SMALL, BOARD])
def test_a_cut_at_any_octet_is_no_damage(ask, shape):
    world = some_messages(n=12, size=60, shape=shape)
    octets = dump(world, ask.path)
    sector, slot, used = places(world, MESSAGE)[-1]
    size = shape[1]
    for at in range(slot * 16, (slot + used) * 16 - 16, 5):
        torn = bytearray(octets)
        torn[sector * size + at : (sector + 1) * size] = b"\xff" * (size - at)
        ask.path.write_bytes(torn)
        ask("verify")
        assert len(ask.export()) == 11


def test_damage_and_cuts_in_a_gateways_file(ask):
    node = node_on(ask.path, GATEWAY, queues=[{"name": "q"}])
    for k in range(200):
        node.publish("", "q", b"%05d" % k * 100, PERSISTENT)
    node.step(0)
    whole = ask("verify")
    places = []
    ring = node.broker.store.ring
    order, slot = 1, 0
    while ring.next_record(order, slot):
        order, slot = ring.at_order, ring.at_slot + 1
        places.append((ring.sector, ring.slot, ring.used))
    close(node)
    assert ask("verify") == whole and whole.endswith("nothing is damaged\n")
    octets = bytearray(ask.path.read_bytes())
    sector, slot, _ = places[50]
    octets[sector * 65536 + slot * 16 + 30] ^= 4
    sector, slot, _ = places[-1]
    octets[sector * 65536 + slot * 16 + 30] ^= 4
    ask.path.write_bytes(octets)
    text = ask("verify", code=1)
    assert text.endswith("1 place damaged\n")
    assert f"cut off or older: sector {sector}, slots {slot} to " in text
    assert len(ask.export(code=1)) == 198


def test_a_damaged_header(ask):
    world = some_messages()
    octets = dump(world, ask.path)
    octets[1024 + 13] ^= 1
    ask.path.write_bytes(octets)
    behind = sum(place[0] == 1 for place in places(world, MESSAGE))
    text = ask("verify", code=1)
    assert text.endswith(
        "damaged: sector 1, octet 0x400: its header cannot be read,"
        f" {behind} records behind it can\n1 place damaged\n"
    )
    assert len(ask.export(code=1)) == 60 - behind
    assert ask.errors == "1 place could not be read: see `ring verify`\n"
    assert f" 1 have a header that cannot be read\n{behind} records behind such" in ask("show")
    # An erase that was cut off leaves anything, but no records.
    octets[1024:2048] = chance.octets(random, 1024)
    octets[1024] = 0xA1
    ask.path.write_bytes(octets)
    text = ask("verify")
    assert "no header: sector 1, octet 0x400: " in text and "nothing is damaged" in text


def test_bodies_that_are_not_whole(ask):
    world, peer = world_on((48, 1024, 64))
    peer.queue("q", durable=1)
    publish(peer, "q", "a" * 3000, "b" * 3000, "c" * 3000)
    octets = wire.publish(1, "", "q", "d" * 15000, wire.properties(**PERSISTENT), piece=1000)
    peer.send(octets[: 6 * 1008])
    world.broker.store.ring.commit()
    parts = places(world, BODY)
    octets = dump(world, ask.path)
    text = ask("show")
    assert re.search(r"^1 unfinished body of [1-6]\d\d\d octets, without a message$", text, re.M)
    assert queues_of(text)["q"][:3] == (0, 3, 9000)
    assert "unfinished: 1 body without a message\nnothing is damaged\n" in ask("verify")
    sector, slot, _ = parts[len([p for p in parts if p[0] < 4])]
    octets[sector * 1024 + slot * 16 + 100] ^= 1
    ask.path.write_bytes(octets)
    text = ask("verify", code=1)
    assert re.search(r"^damaged: the message of order \d+, slot \d+: \d+ of the 3000 ", text, re.M)
    assert text.endswith("\n2 places damaged\n")
    assert len(ask.export(code=1)) == 2
    assert "left out: 1 message without the whole body\n" in ask.errors
    assert "1 message without the whole body, not counted\n" in ask("show")


def test_anything_may_be_damaged_anywhere(ask):
    choose = chance.seeded()
    world, peer = world_on((48, 1024, 64))
    for name in ("q", "r"):
        peer.queue(name, durable=1)
        peer.send(wire.bind_queue(1, name, "amq.fanout", name))
    for k in range(60):
        exchange = choose.choice(("", "amq.fanout"))
        publish(peer, "q", "%d" % k * choose.randrange(1, 40), exchange=exchange)
    publish(peer, "q", "long" * 1000)
    good = dump(world, ask.path)
    known = {json.dumps(row) for row in ask.export()}
    for _ in range(150):
        octets = bytearray(good)
        for _ in range(choose.choice((1, 1, 5, 50))):
            at = choose.randrange(len(octets))
            n = choose.choice((1, 1, 16, 64, 300))
            octets[at : at + n] = chance.octets(choose, len(octets[at : at + n]))
        ask.path.write_bytes(octets)
        code = ask.code("verify")
        assert ask.code("show") == 0
        if code == 0:
            assert ask.code("export") == 0
        for row in ask.export(code=ask.code("export")):
            row["tries"] = 0  # a hint, which no checksum covers
            row["queue"] = row["queue"] or "q r"[2 * row["queue_number"]]
            assert json.dumps(row) in known, row


# --- wear ---


def years(text):
    return float(re.search(r"^years left: ([\d.]+)", text, re.MULTILINE)[1])


def test_years_left(ask):
    world, peer = world_on(BOARD)
    peer.queue("q", durable=1)
    # As many as the flash of a 256 KiB ring endures, with records of 18 slots: 90 million.
    publish(peer, "q", *["x" * 262 for _ in range(50)])
    dump(world, ask.path)
    text = ask("show", "--messages-per-day", 10000)
    assert 23 < years(text) < 25 and "but flash keeps its octets for 20\n" in text
    assert "for 10000 messages a day like those in the ring, which take 288 octets" in text
    assert 2.7 < years(ask("show", "--messages-per-day", 86400)) < 3
    text = ask("show", "--days", 365.25)
    assert "years left: more than 1000" in text
    assert "as the most worn sector had 1 erases in 365.25 days" in text
    assert "lowest 1, mean 1.0, highest 1, of 100000" in text
    assert "years left: say how fast it wears" in ask("show")


def test_erase_counts_and_the_years_they_leave(ask):
    world = some_messages(n=300, size=100, shape=(24, 1024, 64))
    octets = dump(world, ask.path)
    for sector in range(24):
        header = bytearray(octets[sector * 1024 : sector * 1024 + 16])
        if header[0] == 0xA1:
            struct.pack_into(">BH", header, 9, (40000 + sector) >> 16, 40000 + sector & 0xFFFF)
            crc = bytearray(4)
            crc32(crc, header, 0, 12)
            header[12:] = crc
            octets[sector * 1024 : sector * 1024 + 16] = header
    ask.path.write_bytes(octets)
    text = ask("show", "--days", 365.25)
    lowest, highest = map(int, re.search(r"lowest (\d+), .* highest (\d+),", text).groups())
    assert lowest == 40000 and 40000 < highest < 40024
    assert years(text) == pytest.approx(1.5, abs=0.06)


# --- mistakes ---


def test_what_is_no_ring(ask):
    hint = "no sector header found; is this a ring file or a flash dump?"
    for octets, line in (
        (b"", "an empty file"),
        (b"hello\n", hint),
        (chance.octets(random, 50000), hint),
        (bytes(70000), "no sector header found; nothing was ever written to it"),
        (b"\xff" * 70000, "no sector header found; nothing was ever written to it"),
    ):
        ask.path.write_bytes(octets)
        for command in ("show", "verify", "export"):
            assert ask.refused(command) == f"{ask.path}: {line}"
    assert ask.refused("show", "--offset", 70000) == (
        f"{ask.path}: --offset 70000: it has 70000 octets"
    )


def test_what_cannot_be_read(tmp_path):
    assert refused("ring", "show", tmp_path / "none") == (
        f"{tmp_path / 'none'}: No such file or directory"
    )
    assert refused("ring", "show", tmp_path) == (
        f"{tmp_path}: a directory without segments of a ring (0000.log)"
    )
    (tmp_path / "0000.log").write_bytes(b"some program's log\n")
    assert "no sector header found" in refused("ring", "verify", tmp_path)
    code, _, errors = run("ring", "show", tmp_path / "x", "--offset", "-1")
    assert code == 2 and "'-1' is no number of octets" in errors
    code, _, errors = run("ring", "show", tmp_path / "x", "--days", "0")
    assert code == 2 and "'0' is no number above 0" in errors


def test_a_queue_that_is_not_there(ask):
    world = some_messages(n=2)
    dump(world, ask.path)
    assert ask.refused("export", "--queue", "x") == "no queue 'x' in it, there are: q"


def test_help_says_that_it_only_reads():
    code, output, _ = run("ring", "export", "--help")
    assert code == 0 and "only read" in " ".join(output.split())


# --- beside a broker ---


def test_while_a_broker_runs(tmp_path):
    import pika

    path = tmp_path / "busy.ring"
    with Broker(tmp_path / "log", "--port", 0, "--store", path) as broker:
        parameters = pika.ConnectionParameters("127.0.0.1", listening(broker))
        connection = pika.BlockingConnection(parameters)
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("q", durable=True)
        sent = []
        for k in range(60):
            body = f"{k}" * 200
            channel.basic_publish("", "q", body, pika.BasicProperties(delivery_mode=2))
            sent.append(body)
            if k % 20 == 19:
                code, output, errors = run("ring", "export", path)
                assert (code, errors) == (0, "")
                assert [json.loads(line)["body"] for line in output.splitlines()] == sent
                code, output, _ = run("ring", "verify", path)
                assert code == 0 and "nothing is damaged" in output
                assert queues_of(run("ring", "show", path)[1])["q"][1] == k + 1
        for body in sent:
            method, _, found = channel.basic_get("q")
            assert found.decode() == body
            channel.basic_ack(method.delivery_tag)
        connection.close()
        assert broker.end(signal.SIGTERM) == 0
    assert run("ring", "export", path) == (0, "", "")
