"""Flash that wears out and forgets, and octets that no ring has written."""

import os

from model import Chip, Model, Violation, World
from nor import Chance
from test_power_cuts import MICROPYTHON, Bench, lives, seed

CUTS = 400 if MICROPYTHON else 2000


def test_stuck_cells_cost_no_message():
    counts = lives("worn", CUTS, ("1k", "4k"))
    assert counts["faults"], counts


def test_cells_that_forget_cost_their_record_only():
    lives("rot", CUTS, ("1k", "4k"))


def begins(chip):
    """Start on what is on *chip*, and work."""
    world = World(chip, Chance(1))
    world.rots = True
    for _ in range(2):
        chip.left = 1000000
        world.model = Model()
        world.boot(False)
    world.prove()
    assert world.appended
    place = world.append("M", (2,), b"kept")
    assert world.commit()
    world.model = Model()
    chip.reboot()
    ring = world.store.Ring(chip)
    visitor = Found()
    world.store.Recovery(ring, visitor).run()
    assert place in visitor.places


class Found:
    def __init__(self):
        self.places = []

    def message(self, ring, share):
        self.places.append((ring.at_order, ring.at_slot))

    def settled(self, ring, share):
        pass

    def definition(self, ring):
        pass


def test_it_starts_on_whatever_is_there():
    size = 6 * 1024
    for octets in (b"\0" * size, b"\xff" * size, b"\xa1" * size, os.urandom(size)):
        begins(Chip(6, 1024, 64, contents=octets))


def full_chip(sectors):
    chip = Chip(sectors, 1024, 64)
    bench = Bench(sectors)
    for k in range(3):
        bench.fill_sector(70 + k)
    chip.contents[:] = bench.chip.contents
    return chip, len(bench.seen())


def count(chip):
    world = World(chip, Chance(1))
    visitor = Found()
    ring = world.store.Ring(chip)
    world.store.Recovery(ring, visitor).run()
    return len(visitor.places)


def test_a_grown_device_keeps_all_a_shrunk_one_what_is_left():
    chip, n = full_chip(6)
    grown = Chip(9, 1024, 64)
    grown.contents[: len(chip.contents)] = chip.contents
    assert count(grown) == n > 5
    shrunk = Chip(5, 1024, 64, contents=chip.contents[: 5 * 1024])
    assert count(shrunk) == n
    shrunk = Chip(2, 1024, 64, contents=chip.contents[: 2 * 1024])
    assert 0 < count(shrunk) < n


def test_another_version_of_the_format_is_not_touched_by_surprise():
    """Sectors of another version are no ring's: the start does not read them."""
    chip, n = full_chip(6)
    for sector in range(6):
        if chip.contents[sector * 1024] == 0xA1:
            chip.contents[sector * 1024] = 0xA0
    assert count(chip) == 0
    begins(chip)


def test_random_damage_never_raises():
    chance = Chance(seed())
    for _ in range(20 if MICROPYTHON else 200):
        chip, _ = full_chip(5)
        for _ in range(1 + chance.below(40)):
            k = chance.below(len(chip.contents))
            chip.contents[k] = chance.bits(8)
        try:
            begins(chip)
        except Violation as violation:
            # What damage makes of records is its own; that a start ends and works is asked here.
            assert "I7" not in str(violation) and "I6" not in str(violation), violation


def test_cells_of_marks_that_forget_bring_back_what_was_done():
    bench = Bench()
    places = bench.fill_sector()
    bench.done(*places)
    sector = bench.sector(places[0])
    for k in range(16, 24):
        bench.chip.rot(sector * 1024 + k, 0xFF)
    assert len(bench.seen()) == len(places)
