"""Power cuts: random programs with a cut at every operation, and what each rule of the store is for.

The long runs are those of cutter.py; here is a part of them, with another seed each time.
"""

import os

from amqp_lite.store.merge import merge
from amqp_lite.store.ring import CHAIN, MESSAGE

import cutter
from model import Chip, Cursor, Visitor, World
from nor import STORED, Chance

MICROPYTHON = not hasattr(os, "cpu_count")
SINGLE = 4000 if MICROPYTHON else 8000  # cuts
CHAINED = 1000 if MICROPYTHON else 4000


def seed():
    given = getattr(os, "getenv", lambda name: None)("SEED")
    number = int(given) if given else int.from_bytes(os.urandom(3), "big")
    print("seed", number)
    return number


def lives(kind, cuts, geometries, **settings):
    """Lives until there were so many *cuts*: the figures."""
    figures = cutter.Figures()
    at = seed()
    k = 0
    while figures.counts.get("cuts", 0) < cuts:
        cutter.LIVES[kind](at + 2 * k, geometries[k % len(geometries)], figures, **settings)
        k += 1
    return figures.counts


def test_single_cuts():
    counts = lives("single", SINGLE, ("1k6", "1k", "4k"), sample=60, limit=SINGLE // 4)
    assert counts["cuts: kill"] and counts["cuts: header"] and counts["cuts: bitmap"], counts


def test_chained_cuts():
    counts = lives("chained", CHAINED, ("1k", "1k6", "4k"))
    for label in ("merge", "erase", "open", "kill", "header", "bitmap", "in boot"):
        assert counts.get("cuts: " + label), (label, counts)


# Directed tests: one rule each.


class Bench:
    """A ring on a chip, and short names."""

    def __init__(self, sectors=5):
        self.chip = Chip(sectors, 1024, 64)
        self.world = World(self.chip, Chance(1))
        self.start()

    def start(self, mode=STORED):
        self.chip.reboot(mode)
        self.chip.left = 1000000
        self.world.boot()
        self.ring = self.world.ring

    def message(self, n=20, queues=(1,), octet=65):
        payload = bytes([octet]) * n
        return self.world.append("M", queues, payload)

    def seen(self):
        """(place, share) of all that a start finds."""
        visitor = Visitor()
        ring = self.world.store.Ring(self.chip)
        self.world.store.Recovery(ring, visitor).run()
        return [(entry[0], entry[1]) for entry in visitor.seen]

    def done(self, *places):
        for place in places:
            self.world.ack((place, 0))
        self.world.mark()

    def sector(self, place):
        assert self.ring.locate(place[0], place[1])
        return self.ring.sector

    def fill_sector(self, octet=66):
        """Messages to the end of the tail sector: their places."""
        places = [self.message(100, octet=octet)]
        while self.ring.room() >= 0:
            places.append(self.message(min(100, self.ring.room()), octet=octet))
        self.world.commit()
        return places


def test_a_ring_that_is_full_says_so_and_lives_on():
    bench = Bench()
    places = []
    while True:
        place = bench.message(200)
        if place is None:
            break
        places.append(place)
    bench.world.commit()
    assert len(places) > 10
    bench.start()
    assert bench.message(200) is None
    bench.done(*places)
    assert bench.message(200) is not None
    bench.world.commit()
    bench.start()


def test_a_half_programmed_header_is_not_believed_two_starts_later():
    """The header of a merged sector whose cells read 1 in one start must not count in the next."""
    for mode in range(1, 5):
        bench = Bench()
        keep = []
        for k in range(3):
            places = bench.fill_sector(70 + k)
            keep.append(places[0])
            bench.done(*places[1:])
        state = []

        def hook(kind, where, buf):
            if kind == "P" and where % 1024 == 0 and buf[0] == 0xA1 and (buf[2] or buf[3]):
                # As it was, with all cells of the header half programmed.
                variants = list(bench.chip.torn_programs(where, buf, Chance(1), False))
                state.append(variants[-5])
                raise cutter.PowerCut

        bench.chip.hook = hook
        try:
            for _ in range(40):
                place = bench.message(200)
                bench.world.commit()
                bench.done(place)
                merge(bench.ring)
        except cutter.PowerCut:
            pass
        bench.chip.hook = None
        assert state
        bench.chip.apply(state[0])
        bench.start(1)  # reads as it was
        place = bench.message(30)
        bench.world.commit()
        bench.start(mode)
        found = bench.seen()
        for k in keep + [place]:
            assert (k, 0) in found, (mode, k)


def test_a_message_carries_its_first_place_through_merges():
    bench = Bench(6)
    first = bench.message(30, (1, 2))
    bench.done(*bench.fill_sector())
    second = bench.message(30, (2,))
    bench.done(*bench.fill_sector())
    third = bench.message(30, (2,))
    bench.world.commit()
    assert merge(bench.ring)
    assert bench.sector(first) == bench.sector(second)
    cursor = Cursor()
    found = []
    while bench.ring.find(cursor, 2) >= 0:
        found.append((bench.ring.at_order, bench.ring.at_slot))
        bench.ring.pass_by(cursor)
    assert found == [first, second, third]
    # The marks of one share stay apart from those of the other.
    bench.world.ack((first, 1))
    bench.world.mark()
    bench.start()
    assert bench.seen() == [(first, 0), (second, 0), (third, 0)]


def test_a_mark_is_for_one_place_of_the_log_only():
    """The record at the same slot of a later life of the sector is another one."""
    bench = Bench()
    old = bench.message()
    bench.world.commit()
    bench.done(old)
    while bench.ring.sector_of(old[0]) >= 0:
        bench.done(*bench.fill_sector())
    place = bench.message()
    bench.world.commit()
    bench.ring.ack(old[0], old[1], 0)
    bench.ring.ack(place[0] + 1, place[1], 0)
    bench.ring.ack(place[0], place[1] + 1, 0)
    bench.ring.ack(place[0], place[1], 1)
    assert bench.ring.mark()
    assert (place, 0) in bench.seen()


def test_a_mark_waits_for_its_record():
    bench = Bench()
    place = bench.message()
    bench.ring.ack(place[0], place[1], 0)
    bench.ring.mark()
    assert bench.ring.kept_slot == bench.ring.tail_slot
    assert bench.seen() == []


def test_a_bad_record_does_not_hide_those_behind_it():
    bench = Bench()
    places = [bench.message(40, octet=70 + k) for k in range(6)]
    bench.world.commit()
    sector = bench.sector(places[2])
    bench.chip.rot(sector * 1024 + places[2][1] * 16 + 12, 0xFF)
    bench.chip.rot(sector * 1024 + places[3][1] * 16 + 3, 0xFF)
    bench.world.model.lost[places[2]] = bench.world.model.lost[places[3]] = True
    bench.start()
    assert bench.seen() == [(places[k], 0) for k in (0, 1, 4, 5)]


def test_a_chain_without_its_message_is_dropped():
    bench = Bench()
    world = bench.world
    bench.ring.chain_order = 0
    first = world.append("B", (0,), b"first part")
    world.append("B", (0,), b"second part")
    world.commit()
    bench.start()
    assert sum(bench.ring.live) == 0
    assert first


def test_a_message_whose_parts_are_done_is_not_delivered():
    bench = Bench()
    world = bench.world
    bench.ring.chain_order = 0
    first = world.append("B", (0,), b"first part")
    bench.ring.chain_order, bench.ring.chain_slot = first
    bench.ring.chain_size = 10
    message = world.append("M", (1,), b"properties", ((first, b"first part"),))
    world.commit()
    assert bench.seen() == [(message, 0)]
    assert bench.ring.locate(message[0], message[1])
    assert bench.ring.kind == MESSAGE | CHAIN
    bench.ring.ack(first[0], first[1], 0)
    bench.ring.mark()
    assert bench.seen() == []


def test_messages_that_nobody_takes_wear_their_sector_too():
    bench = Bench(6)
    bench.fill_sector()
    for _ in range(120):
        bench.done(*bench.fill_sector())
    wear = bench.chip.wear
    assert max(wear) - min(wear) <= 4, wear
    bench.start()
    assert len(bench.seen()) > 5


def test_even_wear():
    bench = Bench(8)
    for _ in range(200):
        bench.done(*bench.fill_sector())
    wear = bench.chip.wear
    assert max(wear) - min(wear) <= 1, wear
