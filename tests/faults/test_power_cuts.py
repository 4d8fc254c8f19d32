"""Power cuts: random programs with a cut at every operation, and one test for each rule.

The long runs are those of cutter.py; here is a part of them, with another seed each time.
"""

import os

import cutter
from amqp_lite.store.records import CHAIN, MESSAGE
from model import Chip, Cursor, Visitor, World
from nor import MIXED, ONES, RANDOM, STORED, ZEROS, Chance

MICROPYTHON = not hasattr(os, "cpu_count")
SINGLE = 3000 if MICROPYTHON else 8000  # cuts
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

    def peek(self):
        """The same of a copy, which leaves all as it is."""
        chip = Chip(self.chip.sectors, self.chip.sector_size, self.chip.page_size)
        chip.become(self.chip)
        visitor = Visitor()
        self.world.store.Recovery(self.world.store.Ring(chip), visitor).run()
        return sorted([(entry[0], entry[1]) for entry in visitor.seen])

    def done(self, *places):
        for place in places:
            self.world.ack((place, 0))
        self.world.mark()

    def merge(self):
        return self.world.store.merge.merge(self.ring)

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
        bench, keep = sparse(5)
        bench.ring.prepare()
        cut(bench, is_header, WEAK_OLD, bench.merge)
        bench.start(ONES)
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
    assert bench.merge()
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


def cut(bench, wanted, variant, work):
    """Do *work*() up to the operation that wanted(kind, where, buf) is true for, and cut there.

    variant  which of the torn states is left, from the end of the list
    """

    def hook(kind, where, buf):
        if wanted(kind, where, buf):
            states = list(bench.chip.torn(kind, where, buf, Chance(1), False))
            bench.chip.apply(states[variant])
            raise cutter.PowerCut

    bench.chip.hook = hook
    try:
        work()
        assert False, "no such operation"
    except cutter.PowerCut:
        pass
    bench.chip.hook = None


WEAK_OLD = -5  # reads as before, all cells it would have changed are weak
WEAK_NEW = -4  # reads as wanted


def is_kill(kind, where, buf):
    return kind == "P" and where % 1024 == 0 and not buf[0]


def is_header(kind, where, buf):
    return kind == "P" and where % 1024 == 0 and buf[0] == 0xA1


def is_data(kind, where, buf):
    return kind == "P" and where % 1024 != 0


def test_zeros_of_a_header_are_not_trusted():
    """The source of a merge whose header reads as zeros first, and as itself later."""
    for mode in (ONES, STORED):
        bench, keep = sparse()
        bench.ring.prepare()
        cut(bench, is_kill, WEAK_OLD, bench.merge)
        bench.start(ZEROS)
        found = bench.seen()
        assert all((place, 0) in found for place in keep)
        bench.done(*keep)
        # The merged sector is erased; its sources need not be.
        merged = bench.ring.sector_of(keep[0][0])
        assert bench.ring.cover[merged]
        bench.ring.turn = merged - 1
        assert bench.ring.prepare() and bench.ring.ready == merged
        bench.chip.reboot(mode)
        assert bench.seen() == []


def test_sources_of_a_merge_do_not_come_back():
    bench, keep = sparse()
    assert bench.merge()
    bench.done(*keep)
    bench.ring.turn = bench.ring.sector_of(keep[0][0]) - 1
    assert bench.ring.prepare()
    bench.chip.reboot(STORED)
    assert bench.seen() == []


def test_a_torn_erase_brings_back_no_marks():
    bench = Bench()
    places = bench.fill_sector()
    bench.done(*places)
    sector = bench.sector(places[0])
    bench.fill_sector()

    def hook(kind, where, buf):
        if kind == "E" and where == sector:
            # The first cells to become ones are those of the bitmap.
            for k in range(16, 24):
                bench.chip.contents[sector * 1024 + k] = 0xFF
            raise cutter.PowerCut

    bench.chip.hook = hook
    try:
        bench.ring.turn = sector - 1
        bench.ring.ready = -1
        bench.ring.prepare()
        assert False
    except cutter.PowerCut:
        pass
    bench.chip.hook = None
    found = bench.seen()
    assert not [place for place in places if (place, 0) in found]


def sparse(sectors=6):
    """A bench with three sectors of which a message each is left, and their places."""
    bench = Bench(sectors)
    keep = []
    for k in range(3):
        places = bench.fill_sector(70 + k)
        keep.append(places[0])
        bench.done(*places[1:])
    return bench, keep


def test_orders_of_a_merged_sector_are_not_given_again():
    bench, keep = sparse()
    bench.start()  # no sector is being written now: the last one is merged, too
    assert bench.merge()
    bench.start()
    place = bench.message()
    bench.world.commit()
    assert place[0] > keep[-1][0]
    assert bench.seen() == [(k, 0) for k in keep + [place]]


def test_a_sector_behind_the_merged_ones_is_what_they_are_merged_into():
    bench, keep = sparse(7)
    last = bench.message(200)
    bench.world.commit()
    bench.done(keep.pop())
    ring = bench.ring
    behind = ring.sector_after(bench.sector(keep[-1]))
    assert behind != ring.tail and not ring.live[behind]
    ring.turn = behind - 1
    ring.ready = -1
    assert bench.merge()
    assert bench.sector(keep[0]) == bench.sector(keep[1]) == behind
    bench.start()
    assert bench.seen() == [(place, 0) for place in keep + [last]]


def test_an_erase_that_leaves_a_zero_is_not_merged_into():
    bench, keep = sparse()
    sector = bench.ring.turn + 1
    for k in range(16, 24):
        bench.chip.stuck_zero[sector * 1024 + k] = 0xFF
    bench.ring.ready = -1
    assert bench.merge()
    assert bench.ring.live[sector] == 0xFFFF
    assert bench.seen() == [(place, 0) for place in keep]


class Copying:
    def __init__(self, ring, sector):
        self.ring = ring
        self.sector = sector

    def __call__(self):
        self.ring.copy_sector(self.sector, False)


def test_a_copy_takes_the_place_of_its_source():
    """Whether the cut comes before the source is zeroed, or the copy is erased before it is."""
    for at_once in (True, False):
        bench = Bench(6)
        places = bench.fill_sector()
        sector = bench.sector(places[0])
        bench.fill_sector()
        bench.ring.prepare()
        work = Copying(bench.ring, sector)
        if at_once:
            cut(bench, is_kill, 0, work)
            bench.start()
        else:
            work()
        found = bench.seen()
        assert [(place, 0) for place in places] == found[: len(places)]
        bench.done(*places)
        if not at_once:
            bench.ring.turn = bench.ring.sector_of(places[0][0]) - 1
            bench.ring.ready = -1
            assert bench.ring.prepare()
        bench.chip.reboot(STORED)
        assert bench.seen() == found[len(places) :]


def test_a_sector_that_takes_no_marks_is_copied():
    bench = Bench()
    places = bench.fill_sector()
    sector = bench.sector(places[0])
    for k in range(16, 24):
        bench.chip.stuck_one[sector * 1024 + k] = 0xFF
    bench.ring.ack(places[0][0], places[0][1], 0)
    assert bench.ring.mark()
    assert bench.ring.copies == 1 and not bench.ring.refused
    assert bench.seen() == [(place, 0) for place in places[1:]]


def test_sparse_sectors_make_room():
    bench = Bench(6)
    keep = []
    for k in range(12):
        places = bench.fill_sector(70 + k)
        keep.append(places[0])
        bench.done(*places[1:])
    assert bench.ring.merges > 2
    assert bench.seen() == [(place, 0) for place in keep]


def test_a_chain_goes_on_over_a_merge():
    """Making room reads other records, which may be of other chains."""
    bench = Bench()
    ring = bench.ring
    ring.chain_order = 0
    other = bench.world.append("B", (0,), b"of another chain")
    bench.world.commit()
    make_room = ring.make_room

    def reads():
        assert ring.locate(other[0], other[1])
        return make_room()

    ring.make_room = reads
    bench.fill_sector()
    for place in ((7, 9), (8, 10)):
        ring.chain_order, ring.chain_slot = place
        at = bench.world.append("B", (0,), bytes(ring.largest - 20))
        bench.world.commit()
        assert ring.locate(at[0], at[1])
        assert (ring.chain_order, ring.chain_slot) == place


def test_an_erase_that_leaves_a_zero_is_not_used():
    """In the bitmap it would be a mark of a record that nobody has taken."""
    bench = Bench()
    for sector in range(2):
        for k in range(16, 24):
            bench.chip.stuck_zero[sector * 1024 + k] = 0xFF
    bench.world.worn = True
    bench.start()
    places = bench.fill_sector()
    assert bench.seen() == [(place, 0) for place in places]


class HalfErased(Chip):
    """As a file does it: an erase blanks the first page only."""

    trusted = True

    def erase(self, sector):
        start = sector * self.sector_size
        self.contents[start : start + self.page_size] = b"\xff" * self.page_size

    def program(self, address, buf, i, n):
        self.contents[address + i : address + i + n] = buf[i : i + n]


def test_octets_of_an_earlier_life_are_no_records():
    bench = Bench()
    bench.chip = HalfErased(5, 1024, 64)
    bench.world.chip = bench.chip
    bench.start()
    for _ in range(4):
        for _ in range(5):
            bench.done(*bench.fill_sector())
        place = bench.message(100)
        bench.world.commit()
        assert bench.seen() == [(place, 0)]
        bench.done(place)


def test_records_are_of_one_cover_only():
    """What is left of a source in the sector that becomes the merged one."""
    bench = Bench()
    places = bench.fill_sector()
    sector = bench.sector(places[0])
    page = bytearray(b"\xff" * 64)
    bench.ring.write_header(page, places[0][0], 5, 0, 1)
    bench.chip.contents[sector * 1024 : sector * 1024 + 16] = page[:16]
    assert bench.seen() == []


def test_the_header_of_a_merged_sector_comes_after_its_marks():
    bench = Bench(6)
    first = bench.message(30, (1, 2))
    bench.world.ack((first, 0))
    bench.world.mark()
    bench.done(*bench.fill_sector())
    second = bench.message(30)
    bench.done(*bench.fill_sector())
    bench.fill_sector()
    bench.ring.prepare()

    def hook(kind, where, buf):
        if is_header(kind, where, buf):
            # All of the header is there, and nothing behind it.
            bench.chip.contents[where : where + 16] = buf[:16]
            raise cutter.PowerCut

    bench.chip.hook = hook
    try:
        bench.merge()
        assert False
    except cutter.PowerCut:
        pass
    bench.chip.hook = None
    assert bench.seen()[:2] == [(first, 1), (second, 0)]


def test_a_header_that_was_believed_once_stays_believed():
    """That of a merged sector: its sources are gone then."""
    bench, keep = sparse()
    bench.ring.prepare()
    cut(bench, is_header, WEAK_NEW, bench.merge)
    for mode in (STORED, ONES, ZEROS, ONES):
        bench.chip.reboot(mode)
        assert [(place, 0) for place in keep] == bench.seen()[:3], mode


def test_a_record_inside_a_payload_is_no_record():
    bench = Bench()
    place = bench.message(30)
    bench.world.commit()
    sector = bench.sector(place)
    start = sector * 1024 + place[1] * 16
    image = bytes(bench.chip.contents[start : start + 48])
    outer = bench.world.append("M", (1,), bytes(12) + image)
    bench.world.commit()
    bench.chip.rot(sector * 1024 + outer[1] * 16, 0x0C)  # its kind is none any more
    assert bench.seen() == [(place, 0)]


def stays(bench, place, modes, boots=4):
    """Once a start has said whether there is a record at *place*, all later ones say so."""
    said = 0
    for k in range(len(modes)):
        chip = Chip(bench.chip.sectors, 1024, 64, seed=k)
        chip.become(bench.chip)
        saw = None
        for _ in range(boots):
            chip.reboot(modes[k])
            chip.left = 1000000
            visitor = Visitor()
            ring = bench.world.store.Ring(chip)
            bench.world.store.Recovery(ring, visitor).run()
            sees = place in [entry[0] for entry in visitor.seen]
            assert saw is None or sees == saw, (k, saw, sees)
            saw = sees
        said += saw
    return said


def torn_message(n, octet, variant, wanted=is_data):
    """A bench whose last record was torn, and its place."""
    bench = Bench()
    bench.message(20)
    bench.world.commit()
    order, slot = bench.ring.newest, bench.ring.tail_slot

    def work():
        bench.message(n, octet=octet)
        bench.world.commit()

    cut(bench, wanted, variant, work)
    return bench, (order, slot)


def test_a_torn_record_is_there_or_not_from_the_first_start_on():
    for n, octet in ((30, 65), (90, 0), (90, 65), (150, 0xFF), (30, 0xFF)):
        for variant in (WEAK_OLD, WEAK_NEW):
            bench, place = torn_message(n, octet, variant)
            stays(bench, place, [MIXED] * 20)
    # The cells of the last page, of a record that begins before it.
    for octet in (0, 65):
        for variant in range(-5, 0):
            bench, place = torn_message(70, octet, variant, Second())
            stays(bench, place, [MIXED] * 20)


def test_cells_that_read_differently_each_time_are_made_to_stay():
    bench = Bench()
    bench.message(20)
    place = bench.message(40)
    bench.world.commit()
    sector = bench.sector(place)
    for k in range(30, 34):
        address = sector * 1024 + place[1] * 16 + k
        bench.chip.weaken(address, 0xFF & ~bench.chip.contents[address] & 0x0F)
    stays(bench, place, [RANDOM] * 60, 6)


def test_a_cut_in_settling_settles_nothing():
    """The start that made a torn record unreadable was cut; the next one finds it readable."""
    bench, place = torn_message(70, 65, WEAK_OLD, Second())
    slot = place[1]
    sector = bench.ring.tail

    def beginning(kind, where, buf):
        k = sector * 1024 + slot * 16
        return kind == "P" and where == k // 64 * 64 and buf[k % 64] == 0

    def start():
        bench.chip.reboot(ONES)
        bench.world.store.Recovery(bench.world.store.Ring(bench.chip), Visitor()).run()

    cut(bench, beginning, WEAK_OLD, start)
    stays(bench, place, [MIXED] * 60)


# Transactions.


def both(bench, sizes, settled=()):
    """What a start finds before, and behind a transaction; and the last is what is there now."""
    before = bench.peek()
    assert bench.world.transaction(sizes, settled)
    bench.world.commit()
    return before, bench.peek()


def test_a_transaction_is_there_with_what_it_settles():
    bench = Bench()
    old = [bench.message(30, (1, 2)), bench.message(30)]
    bench.world.commit()
    _, after = both(bench, (20, 200, 20), [(old[0], 1), (old[1], 0)])
    places = [place for place, _ in after]
    assert (old[0], 0) in after and len(after) >= 4 and old[1] not in places
    bench.start()
    assert bench.peek() == sorted(after)
    bench.world.mark()
    assert bench.peek() == sorted(after)


def test_the_places_of_a_transaction_hold_more_than_its_queues():
    """A slot more: with as many slots as queues, what is settled first would make it count."""
    bench = Bench()
    ring = bench.ring
    queues = tuple(range(40, 60))
    assert ring.begin(bench.world.store.MESSAGE | bench.world.store.PART, queues, 20, 1)
    assert ring.used == 21
    ring.put(b"x", 0, 1)
    ring.end()
    ring.commit()
    assert ring.parse(ring.sector_of(ring.at_order), ring.at_slot)
    assert ring.used == 21 and ring.is_open()


def test_parts_without_their_commit_record_are_dropped():
    bench = Bench(6)
    world = bench.world
    before = bench.peek()
    for n in (20, 400, 600):
        assert world.append("M", (1, 300), world.payload(n), (), world.store.PART)
    world.ring.commit()
    assert bench.peek() == before
    ring = world.store.Ring(bench.chip)
    world.store.Recovery(ring, Visitor()).run()
    assert not sum(ring.live)
    # The next transaction is not taken for theirs.
    bench.world.model = type(bench.world.model)()
    bench.start()
    _, after = both(bench, (30,))
    assert len({place for place, _ in after}) == 1


def test_a_transaction_counts_when_its_commit_record_is_marked():
    """A start goes by the record until then, and by the marks of its parts from then on."""
    bench = Bench()
    world = bench.world
    order = []  # sectors, and whether the commit record is marked in it

    def hook(kind, where, buf):
        if kind == "P" and where % 1024 == 0 and buf[0] == 0xFF:
            order.append((where // 1024, not buf[16 + (slot >> 3)] & 0x80 >> (slot & 7)))

    bench.fill_sector()
    _, after = both(bench, (300, 600, 300))
    places = sorted({place for place, _ in after[-6:]})
    assert places[0][0] != places[-1][0], "in one sector"
    world.ring.locate(*places[-1])
    slot = world.ring.slot_behind()  # of the commit record
    bench.chip.hook = hook
    world.mark()
    bench.chip.hook = None
    # The mark of the commit record is the last, in a program of its own.
    last = world.ring.sector_of(places[-1][0])
    assert order[-1] == (last, True) and (last, False) in order, order
    assert (last, True) not in order[:-1]
    assert sorted(after) == bench.peek()


def test_parts_that_read_now_as_counting_and_now_as_not_are_delivered_once():
    bench = Bench()
    both(bench, (30, 30))
    parts = list(bench.world.model.items)
    bench.fill_sector()
    bench.fill_sector()  # a start makes all cells of the last sector solid
    after = bench.peek()
    for place in parts:
        sector = bench.sector(place)
        slot = place[1] + bench.ring.shares  # its mark, that the cut has torn
        bench.chip.weaken(sector * 1024 + 16 + (slot >> 3), 0x80 >> (slot & 7))
    for k in range(30):
        chip = Chip(bench.chip.sectors, 1024, 64, seed=k)
        chip.become(bench.chip)
        chip.reboot(RANDOM)
        chip.left = 1000000
        visitor = Visitor()
        bench.world.store.Recovery(bench.world.store.Ring(chip), visitor).run()
        assert sorted([(entry[0], entry[1]) for entry in visitor.seen]) == sorted(after), k


def test_a_commit_record_that_was_refused_a_mark_before_it_stays():
    bench = Bench()
    world = bench.world
    _, after = both(bench, (30, 30))
    ring = world.ring
    ring.refused = 1
    ring.mark()
    slots = sum(ring.live)
    assert sorted(after) == bench.peek()
    ring = world.store.Ring(bench.chip)
    world.store.Recovery(ring, Visitor()).run()
    assert sum(ring.live) < slots, "and the next start is done with it"


def test_a_commit_record_counts_with_all_parts_or_when_one_counts_already():
    for k in range(3):
        for counted in (-1, 0, 1, 2):
            bench = Bench()
            ring = bench.ring
            old = bench.message(20)
            bench.world.commit()
            before, after = both(bench, (30, 30, 30), [(old, 0)])
            places = sorted({place for place, _ in after})
            ring.acks = ring.commits = 0
            if counted >= 0:
                ring.ack(places[counted][0], places[counted][1], bench.world.store.COUNTS)
                ring.mark()
            bench.chip.rot(bench.sector(places[k]) * 1024 + places[k][1] * 16 + 9, 0x10)
            if counted < 0 or counted == k:
                assert bench.peek() == before, (k, counted)
            else:
                assert bench.peek() == [entry for entry in after if entry[0] != places[k]]


def test_a_part_is_done_with_once():
    bench = Bench()
    world = bench.world
    world.transaction((30, 30), ())
    places = world.model.transactions[-1].places
    ring = world.ring
    world.commit()
    ring.acks = ring.commits = 0
    for share in range(len(world.model.items[places[0]].queues)):
        ring.ack(places[0][0], places[0][1], share)
    ring.mark()
    ring.ack(places[0][0], places[0][1], world.store.COUNTS)
    ring.mark()
    world.recount()


def test_a_merge_keeps_what_does_not_count_yet_and_frees_what_does():
    for counts in (False, True):
        bench = Bench(7)
        world = bench.world
        bench.done(*bench.fill_sector())
        part = world.append("M", (1,), world.payload(30), (), world.store.PART)
        bench.done(*bench.fill_sector())
        keep = bench.message(30)
        bench.done(*bench.fill_sector())
        bench.message(30)
        if counts:
            world.ring.ack(part[0], part[1], world.store.COUNTS)
        world.mark()
        assert bench.merge()
        assert bench.sector(part) == bench.sector(keep)
        assert bool(world.ring.locate(*part) and world.ring.is_open()) != counts
        assert ((part, 0) in bench.peek()) == counts
        assert (keep, 0) in bench.peek()


def test_what_is_settled_by_a_transaction_that_is_not_there_is_not_asked_for():
    """Its message was of another transaction, whose commit record is unreadable."""
    bench = Bench()
    world = bench.world
    world.transaction((30,), ())
    place = world.model.transactions[-1].places[0]
    slot = world.ring.tail_slot
    world.commit()
    sector = world.ring.tail
    world.transaction((), [(place, 0)])
    world.commit()
    # The slot before the second one's record is of the first one's.
    bench.chip.rot(sector * 1024 + (slot - 1) * 16, 0xFF)
    bench.chip.rot(sector * 1024 + (slot - 2) * 16, 0xFF)
    visitor = Visitor()
    visitor.settled = None  # would be called
    ring = world.store.Ring(bench.chip)
    world.store.Recovery(ring, visitor).run()
    assert visitor.seen == []
    assert not sum(ring.live)


class Second:
    """True for the second program."""

    def __init__(self):
        self.n = 0

    def __call__(self, kind, where, buf):
        self.n += kind == "P"
        return self.n == 2
