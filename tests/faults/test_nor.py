"""The flash simulator itself: everything it says it does to the device happens."""

from nor import MIXED, ONES, RANDOM, STICKY, STORED, ZEROS, Chance, Nor

PAGE = 64
SECTOR = 1024


class PowerCut(Exception):
    pass


def small(**settings):
    return Nor(4, SECTOR, PAGE, **settings)


def page_of(octets, i=0):
    """A page to program: *octets* from *i*, the rest 0xFF."""
    buf = bytearray(b"\xff" * PAGE)
    buf[i : i + len(octets)] = octets
    return buf


def write(device, address, octets, i=0):
    device.program(address, page_of(octets, i), i, len(octets))


def read(device, address, n=PAGE):
    i = device.at(address, n)
    return bytes(device.buf[i : i + n])


def fails(call, *arguments):
    try:
        call(*arguments)
    except AssertionError:
        return True
    return False


def number(octets):
    return int.from_bytes(octets, "little")


def ones(cells):
    """How many *cells* of at most a sector there are."""
    octets = cells.to_bytes(SECTOR, "little")
    count = 0
    for octet in set(octets):
        bits = 0
        for k in range(8):
            bits += octet >> k & 1
        if bits:
            count += bits * octets.count(bytes([octet]))
    return count


# Random numbers.


def test_chance_is_the_same_on_every_python():
    chance = Chance(1)
    assert [chance.bits(29) for _ in range(4)] == [340455673, 81729006, 151606762, 365783175]
    assert [Chance(2).below(1000), Chance(3).below(1000)] == [453, 958]
    assert Chance(4).cells(8, 77) == 7529730641892489


def test_chance_is_even_enough():
    chance = Chance(5)
    counts = [0] * 8
    for _ in range(4000):
        counts[chance.below(8)] += 1
    assert 400 < min(counts) and max(counts) < 600, counts
    assert 800 < sum([chance.chance(0.25) for _ in range(4000)]) < 1200
    assert not any(chance.chance(0) for _ in range(100))
    assert all(chance.chance(1) for _ in range(100))
    assert sorted({chance.choice("abc") for _ in range(100)}) == ["a", "b", "c"]
    assert max([chance.bits(3) for _ in range(100)]) == 7
    assert len({Chance(seed).bits(29) for seed in range(200)}) == 200
    for p in (0, 3, 77, 128, 253):
        share = ones(chance.cells(512, p)) / 4096
        assert abs(share - p / 256) < 0.05, (p, share)


# The face of a device.


def test_a_new_device_is_blank_and_keeps_what_is_given_to_it():
    assert read(small(), 3 * SECTOR) == b"\xff" * PAGE
    given = bytearray(bytes(range(256)) * 16)
    device = small(contents=given)
    given[0] = 99
    assert read(device, 0) == bytes(range(PAGE))


def test_at_reads_across_pages_and_only_until_the_next_call():
    device = small()
    write(device, 0, b"abcd", 60)
    write(device, 64, b"efgh")
    i = device.at(60, 8)
    assert device.buf[i : i + 8] == b"abcdefgh" and i == PAGE - 8
    assert device.buf[:i] == b"\xa5" * i
    device.at(0, 1)
    assert device.buf[i : i + 7] == b"\xa5" * 7
    for call in (
        lambda: write(device, 128, b"x"),
        lambda: device.erase(3),
        device.sync,
        device.reboot,
        device.close,
    ):
        device.at(0, PAGE)
        call()
        assert device.buf == b"\xa5" * PAGE
    assert fails(device.at, 4 * SECTOR - 1, 2) and fails(device.at, -1, 2)
    assert fails(device.at, 0, PAGE + 1)
    assert read(device, 4 * SECTOR - 1, 1) == b"\xff"


def test_a_program_only_clears_bits():
    device = small()
    write(device, 64, b"\xf0\x0f", 5)
    write(device, 64, b"\x3c\xff\x00", 5)
    assert read(device, 64) == bytes(page_of(b"\x30\x0f\x00", 5))
    assert read(device, 0) == b"\xff" * PAGE and read(device, 128) == b"\xff" * PAGE


def test_a_program_takes_a_memoryview_and_its_own_buffer():
    device = small()
    write(device, 0, b"abc")
    device.program(64, memoryview(page_of(b"abc")), 0, 3)
    device.at(0, PAGE)
    device.program(128, device.buf, 0, PAGE)
    assert read(device, 64) == read(device, 128) == bytes(page_of(b"abc"))


def test_a_program_by_other_rules_than_the_chips_fails():
    device = small()
    buf = page_of(b"abc", 5)
    assert fails(device.program, 32, buf, 5, 3)
    assert fails(device.program, 4 * SECTOR, buf, 5, 3)
    assert fails(device.program, -64, buf, 5, 3)
    assert fails(device.program, 0, buf[1:], 4, 3)
    assert fails(device.program, 0, bytearray(2 * PAGE), 5, 3)
    assert fails(device.program, 0, buf, 6, 2)
    assert fails(device.program, 0, buf, 5, 2)
    assert fails(device.program, 0, buf, 5, 0)
    assert fails(device.program, 0, buf, 5, PAGE)
    assert fails(device.erase, 4) and fails(device.erase, -1)
    assert device.programs == device.erases == 0
    assert device.contents == b"\xff" * (4 * SECTOR)


def test_an_erase_makes_one_sector_blank():
    device = small(contents=bytes(4 * SECTOR))
    device.erase(1)
    assert device.contents == bytes(SECTOR) + b"\xff" * SECTOR + bytes(2 * SECTOR)


def test_every_call_is_counted():
    device = small()
    device.program(0, page_of(b"a\xffb"), 0, 10)
    write(device, 64, b"abc")
    device.erase(2)
    device.erase(2)
    device.erase(0)
    device.at(0, 16)
    device.at(8, 1)
    device.sync()
    assert (device.programs, device.erases, device.syncs) == (2, 3, 1)
    assert (device.reads, device.octets_read, device.octets_programmed) == (2, 17, 5)
    assert device.wear == [1, 0, 2, 0]
    assert abs(device.time_ms() - (2 * 0.4 + 3 * 45)) < 0.01
    assert device.time_ms(worst=True) == 2 * 3 + 3 * 400
    device.reset_counters()
    assert device.programs == device.erases == device.syncs == device.time_ms() == 0
    assert device.reads == device.octets_read == device.octets_programmed == 0
    assert device.wear == [1, 0, 2, 0]


def test_the_hook_comes_before_the_operation_and_can_prevent_it():
    device = small()
    seen = []

    def note(kind, where, buf):
        seen.append((kind, where, buf and bytes(buf), bytes(device.contents[64:67])))

    device.hook = note
    write(device, 64, b"abc")
    device.erase(0)
    assert seen[0] == ("P", 64, bytes(page_of(b"abc")), b"\xff\xff\xff")
    assert seen[1] == ("E", 0, None, b"abc")

    def cut(kind, where, buf):
        raise PowerCut

    device.hook = None
    write(device, 64, b"abc")
    device.reset_counters()
    device.hook = cut
    for call in (lambda: write(device, 64, b"\0"), lambda: device.erase(0)):
        try:
            call()
            assert False
        except PowerCut:
            pass
    assert read(device, 64, 3) == b"abc"
    assert device.programs == device.erases == 0 and device.wear[0] == 1


# Weak cells.


def weak_device():
    """A device whose page at 64 has solid octets, weak ones, and half weak ones."""
    device = small()
    write(device, 64, b"\xaa" * 16)
    for k in range(8):
        device.weaken(64 + k, 0xFF)
        device.weaken(72 + k, 0x0F)
    return device


def test_weak_cells_read_one_for_a_boot_and_zero_in_the_next():
    device = weak_device()
    for _ in range(2):
        device.reboot(ONES)
        for _ in range(3):
            assert read(device, 64, 18) == b"\xff" * 8 + b"\xaf" * 8 + b"\xff" * 2
        device.reboot(ZEROS)
        for _ in range(3):
            assert read(device, 64, 18) == b"\x00" * 8 + b"\xa0" * 8 + b"\xff" * 2
    device.reboot(STORED)
    assert read(device, 64, 18) == b"\xaa" * 16 + b"\xff" * 2


def test_weak_cells_can_stick_for_a_boot():
    device = weak_device()
    seen = set()
    for _ in range(20):
        device.reboot(STICKY)
        first = read(device, 64)
        seen.add(first)
        for _ in range(3):
            assert read(device, 64) == first
        for k in range(PAGE):  # by whatever reads they are seen
            assert read(device, 64 + k, 1) == first[k : k + 1]
        assert read(device, 50) == b"\xff" * 14 + first[:50]
        assert all(octet & 0xF0 == 0xA0 for octet in first[8:16])
        assert first[16:] == b"\xff" * 48
    assert len(seen) == 20


def test_weak_cells_can_read_differently_each_time():
    device = weak_device()
    device.reboot(RANDOM)
    seen = {read(device, 64) for _ in range(20)}
    assert len(seen) > 15
    assert all(octets[16:] == b"\xff" * 48 for octets in seen)
    assert all(octet & 0xF0 == 0xA0 for octets in seen for octet in octets[8:16])


def test_weak_pages_can_read_whole_each_for_itself():
    device = small(contents=bytes(4 * SECTOR))
    for address in range(0, SECTOR, 8):
        device.weaken(address, 0xFF)
    mixtures = set()
    for _ in range(10):
        device.reboot(MIXED)
        first = read(device, 0, 8)
        pages = [read(device, address, 8) for address in range(0, SECTOR, PAGE)]
        assert pages[0] == first
        assert all(octets in (b"\xff" + bytes(7), bytes(8)) for octets in pages)
        assert len(set(pages)) == 2
        mixtures.add(b"".join(pages))
    assert len(mixtures) == 10


def test_each_boot_draws_how_weak_cells_read():
    device = small()
    modes = set()
    for _ in range(200):
        device.reboot()
        modes.add(device.mode)
    assert sorted(modes) == sorted([STORED, ONES, ZEROS, MIXED, STICKY, RANDOM])
    assert device.boots == 200


def test_a_read_shows_the_weak_cells_of_both_pages_it_touches():
    device = small()
    device.weaken(63, 0x01)
    device.weaken(64, 0x80)
    device.weaken(0, 0xFF)
    device.reboot(ZEROS)
    assert read(device, 62, 4) == b"\xff\xfe\x7f\xff"
    assert read(device, 1, 62) == b"\xff" * 62
    assert read(device, 0, 2) == b"\x00\xff"


def test_programming_a_weak_cell_to_zero_makes_it_solid():
    device = small()
    device.weaken(64, 0xFF)
    device.weaken(65, 0xFF)
    write(device, 64, b"\xf0")
    assert device.weak_cells() == {64: 0xF0, 65: 0xFF}
    device.reboot(ONES)
    assert read(device, 64, 2) == b"\xf0\xff"
    write(device, 64, b"\x0f\x00")
    assert device.weak_cells() == {}
    assert read(device, 64, 2) == b"\x00\x00"


def test_an_erase_makes_the_weak_cells_of_its_sector_solid():
    device = small()
    for address in (0, SECTOR - 1, SECTOR, 2 * SECTOR - 1, 2 * SECTOR):
        device.weaken(address, 0x81)
    device.erase(1)
    assert device.weak_cells() == {0: 0x81, SECTOR - 1: 0x81, 2 * SECTOR: 0x81}
    device.reboot(ZEROS)
    assert read(device, SECTOR, 1) == read(device, 2 * SECTOR - 1, 1) == b"\xff"
    assert read(device, SECTOR - 1, 1) == b"\x7e"


# Torn operations.


def torn(device, kind, where, buf=None, full=True, seed=7):
    """The variants, after a look that they leave alone what they may not touch."""
    variants = list(device.torn(kind, where, buf, Chance(seed), full))
    for variant in variants:
        keeps_to_target(device, kind, where, buf, variant)
    return variants


def keeps_to_target(device, kind, where, buf, variant):
    address, octets, weak = variant
    size = PAGE if kind == "P" else SECTOR
    assert address == (where if kind == "P" else where * SECTOR)
    assert len(octets) == size
    old = number(device.contents[address : address + size])
    was_weak = 0
    cells = device.weak_cells()
    for k in cells:
        if address <= k < address + size:
            was_weak |= cells[k] << 8 * (k - address)
    now = number(octets)
    if kind == "P":
        target = (old | was_weak) & ~number(buf)
        assert now & ~old == 0  # none comes back to 1
        assert (old ^ now) & ~target == 0 and (weak ^ was_weak) & ~target == 0


def has(variants, octets, weak=0):
    return any(v[1] == bytes(octets) and v[2] == weak for v in variants)


def test_a_torn_program_has_every_variant():
    device = small()
    write(device, 64, b"\x0f", 2)
    old = bytes(device.contents[64:128])
    buf = page_of(b"\x00\xff\xf1\x7e", 2)
    new = bytes([a & b for a, b in zip(old, buf)])
    target = number(old) & ~number(buf)
    for full in (False, True):
        variants = torn(device, "P", 64, buf, full)
        assert variants[0] == (64, old, 0)
        todo = [k for k in range(PAGE) if old[k] != new[k]]
        assert todo == [2, 4, 5]
        for k in todo:
            assert has(variants, new[: k + 1] + old[k + 1 :])
            assert has(variants, old[:k] + new[k:])
        assert has(variants, old, target) and has(variants, new, target)
        missing = [v for v in variants if ones(number(v[1]) ^ number(new)) == 1 and not v[2]]
        single = {v[1] for v in missing}
        assert len(single) == ones(target) == 9 if full else len(single) < 9
        half = {v[1] for v in variants if v[2] not in (0, target)}
        assert half >= {old, new}
        # In ascending order, the rest weakly.
        assert any(
            v[1] == new[:k] + old[k:] and v[2] == target >> 8 * k << 8 * k
            for v in variants
            for k in todo[1:]
        )
    assert device.contents[64:128] == old


def test_the_random_subsets_of_a_torn_program_are_of_several_sizes():
    device = small()
    buf = bytearray(PAGE)
    solid = [v for v in torn(device, "P", 0, buf, False) if not v[2]]
    sparse, less, more, most = [1 - ones(number(v[1])) / (PAGE * 8) for v in solid[-4:]]
    assert sparse < 0.12 and 0.2 < less < 0.4 and 0.6 < more < 0.8 and most > 0.88


def test_a_program_of_nothing_new_cannot_tear():
    device = small()
    write(device, 0, b"abc")
    assert torn(device, "P", 0, page_of(b"abc")) == [(0, bytes(page_of(b"abc")), 0)]


def test_a_torn_program_starts_from_weak_cells():
    device = small()
    device.weaken(0, 0xFF)
    device.weaken(1, 0x80)
    buf = page_of(b"\x0f")
    blank = b"\xff" * PAGE
    variants = torn(device, "P", 0, buf)
    before = 0x80FF
    assert variants[0] == (0, blank, before)
    assert has(variants, buf, 0x800F)  # done: solid where it was programmed only
    assert has(variants, blank, before) and has(variants, buf, before)
    # A weak cell that is stored as 0 has still to become solid.
    device.contents[0] = 0x00
    variants = torn(device, "P", 0, buf)
    assert has(variants, b"\0" + blank[1:], 0x800F) and has(variants, b"\0" + blank[1:], before)


def test_a_torn_erase_has_every_variant():
    device = small(contents=b"\xff" * SECTOR + bytes(3 * SECTOR))
    device.contents[SECTOR + 100 : 2 * SECTOR] = b"\xff" * (SECTOR - 100)
    device.contents[SECTOR + 700] = 0xF0
    old = bytes(device.contents[SECTOR : 2 * SECTOR])
    blank = b"\xff" * SECTOR
    whole = number(blank)
    target = whole & ~number(old)
    todo = list(range(100)) + [700]
    for full in (False, True):
        variants = torn(device, "E", 1, None, full)
        assert variants[0] == (SECTOR, old, 0)
        for k in todo[:: 1 if full else 7]:
            assert has(variants, blank[: k + 1] + old[k + 1 :])
            assert has(variants, old[:k] + blank[k:])
        flipped = {v[1] for v in variants if ones(number(v[1]) ^ number(old)) == 1}
        assert len(flipped) == (101 if full else 21)
        for k in range(64, SECTOR + 1, 64):
            assert has(variants, bytes(k) + old[k:])
        assert has(variants, blank, target) and has(variants, old, target)
        assert has(variants, blank, whole)
        half = {v[1] for v in variants if ones(target) / 4 < ones(v[2]) < ones(target) * 3 / 4}
        assert half >= {old, blank}
        partly = [v for v in variants if not v[2] and v[1][0] not in (0, 0xFF)]
        assert len(partly) >= 3


def test_a_torn_erase_starts_from_weak_cells():
    device = small()
    device.weaken(SECTOR + 5, 0x10)
    device.weaken(SECTOR + 900, 0x01)
    before = 0x10 << 8 * 5 | 1 << 8 * 900
    variants = torn(device, "E", 1)
    blank = b"\xff" * SECTOR
    assert variants[0] == (SECTOR, blank, before)
    assert has(variants, blank, 1 << 8 * 900) and has(variants, blank, 0)
    assert has(variants, bytes(64) + blank[64:], 1 << 8 * 900)


def test_a_torn_erase_of_a_blank_sector_may_leave_it_zero_or_weak():
    variants = torn(small(), "E", 0)
    blank = b"\xff" * SECTOR
    assert has(variants, blank) and has(variants, bytes(SECTOR))
    assert has(variants, blank, number(blank))


def test_a_variant_is_applied_as_it_is():
    device = small()
    device.weaken(SECTOR - 1, 0xFF)
    device.weaken(SECTOR + 70, 0xFF)
    device.weaken(2 * SECTOR, 0xFF)
    octets = bytes(range(256)) * 4
    weak = 0x81 | 0x18 << 8 * 1023
    device.apply((SECTOR, octets, weak))
    assert device.contents[SECTOR : 2 * SECTOR] == octets
    cells = {SECTOR - 1: 0xFF, SECTOR: 0x81, 2 * SECTOR - 1: 0x18, 2 * SECTOR: 0xFF}
    assert device.weak_cells() == cells
    device.apply((SECTOR, octets[:PAGE], 0x40 << 8 * 3))
    del cells[SECTOR]
    cells[SECTOR + 3] = 0x40
    assert device.weak_cells() == cells
    device.apply((2 * SECTOR, octets[:PAGE], 0))
    del cells[2 * SECTOR]
    assert device.weak_cells() == cells
    assert device.contents[:SECTOR] == b"\xff" * SECTOR
    assert device.contents[2 * SECTOR + PAGE :] == b"\xff" * (2 * SECTOR - PAGE)


def test_what_reads_as_programmed_can_be_gone_after_the_next_boot():
    device = small()
    buf = page_of(b"confirmed")
    target = number(b"\xff" * PAGE) & ~number(buf)
    for variant in device.torn_programs(0, buf, Chance(3), False):
        if variant[1] == bytes(buf) and variant[2] == target:
            device.apply(variant)
            break
    device.reboot(ZEROS)
    assert read(device, 0, 9) == b"confirmed"
    device.reboot(ONES)
    assert read(device, 0, 9) == b"\xff" * 9
    write(device, 0, b"confirmed")  # programmed again it is there to stay
    assert read(device, 0, 9) == b"confirmed" and device.weak_cells() == {}


def test_a_random_tear_keeps_to_its_target_and_is_weak_half_of_the_time():
    device = small(contents=bytes(SECTOR) + b"\xff" * (3 * SECTOR))
    write(device, SECTOR, b"old octets", 3)
    device.weaken(SECTOR + 20, 0xFF)
    buf = page_of(b"new\0octets" * 3, 8)
    chance = Chance(11)
    for kind, where, given, n in (("P", SECTOR, buf, 300), ("E", 0, None, 60)):
        before = device.weak_cells()
        weak = 0
        seen = set()
        for _ in range(n):
            variant = device.random_torn(kind, where, given, chance)
            keeps_to_target(device, kind, where, given, variant)
            seen.add(variant)
            after = device.fork(1)
            after.apply(variant)
            cells = after.weak_cells()
            weak += any(cells[k] & ~before.get(k, 0) for k in cells)
        assert 0.35 * n < weak < 0.65 * n, (kind, weak, n)
        assert len(seen) > 0.6 * n, (kind, len(seen))


def test_a_random_tear_reaches_nothing_all_and_a_single_bit():
    device = small()
    buf = page_of(b"\x12\x34")
    chance = Chance(12)
    seen = {device.random_torn("P", 0, buf, chance) for _ in range(600)}
    blank = b"\xff" * PAGE
    target = number(blank) & ~number(buf)
    for octets in (blank, bytes(buf), b"\x12" + blank[1:], b"\xff\x34" + blank[2:]):
        assert (0, octets, 0) in seen
    zeros = bytes(PAGE)
    whole = [device.random_torn("P", 0, zeros, chance) for _ in range(200)]
    assert (0, blank, number(blank)) in whole and (0, zeros, number(blank)) in whole
    flips = [ones(number(v[1]) ^ number(blank)) for v in seen if not v[2]]
    assert 1 in flips and ones(target) - 1 in flips


def test_a_random_tear_of_what_has_no_target():
    device = small()
    chance = Chance(13)
    blank = b"\xff" * PAGE
    assert device.random_torn("P", 0, blank, chance) == (0, blank, 0)
    weak = [device.random_torn("E", 0, None, chance)[2] != 0 for _ in range(40)]
    assert 5 < sum(weak) < 35


def test_tears_repeat_with_the_same_seed():
    device = small(contents=bytes(range(256)) * 16)
    buf = bytearray(PAGE)
    assert torn(device, "P", 64, buf) == torn(device, "P", 64, buf)
    assert torn(device, "P", 64, buf) != torn(device, "P", 64, buf, seed=8)
    for kind, where in (("P", 64), ("E", 1)):
        a, b = Chance(9), Chance(9)
        for _ in range(10):
            one = device.random_torn(kind, where, buf, a)
            assert one == device.random_torn(kind, where, buf, b)


# Forks.


def test_a_fork_is_independent():
    device = small(endurance=9)
    write(device, 0, b"abc")
    device.erase(1)
    device.weaken(100, 0x01)
    device.stuck_one[200] = 0x02
    device.stuck_zero[300] = 0x04
    device.reboot(ZEROS)
    device.hook = print
    other = device.fork()
    assert other.hook is None and other.programs == other.reads == 0
    assert (other.endurance, other.mode, other.boots) == (9, ZEROS, 1)
    assert read(other, 0, 3) == b"abc" and other.wear == [0, 1, 0, 0]
    assert other.stuck_one == {200: 0x02} and other.stuck_zero == {300: 0x04}
    assert other.weak_cells() == {100: 0x01}
    device.hook = None
    write(other, 0, b"\0")
    other.erase(0)
    other.weaken(101, 0x01)
    other.stuck_one[201] = other.stuck_zero[301] = 0x01
    other.reboot(ONES)
    assert read(device, 0, 3) == b"abc" and device.wear == [0, 1, 0, 0]
    assert device.weak_cells() == {100: 0x01} and device.mode == ZEROS
    assert device.stuck_one == {200: 0x02} and device.stuck_zero == {300: 0x04}


def test_a_fork_reads_its_sticky_cells_like_its_origin():
    device = weak_device()
    device.reboot(STICKY)
    assert read(device.fork(), 64) == read(device, 64)


def test_forks_have_a_chance_of_their_own():
    device = small()
    assert device.fork().chance.bits(29) != device.fork().chance.bits(29)
    assert device.fork(5).chance.bits(29) == device.fork(5).chance.bits(29)
    state = device.fork(5)
    state.fork(1)
    assert state.chance.bits(29) == device.fork(5).chance.bits(29)  # a seed draws nothing


# Worn and forgetful cells.


def test_a_cell_stuck_at_one_is_never_programmed():
    device = small()
    device.stuck_one[65] = 0x81
    write(device, 64, b"\0\0\0")
    assert read(device, 64, 3) == b"\x00\x81\x00"
    device.stuck_one[64] = 0x01  # it was programmed before: the charge stays until the erase
    write(device, 64, b"\0")
    assert read(device, 64, 1) == b"\0"
    device.erase(0)
    for variant in torn(device, "P", 64, page_of(b"\0\0\0")):
        assert variant[1][0] & 0x01 and variant[1][1] & 0x81 == 0x81
        assert not variant[2] & 0x8101


def test_a_cell_stuck_at_zero_does_not_come_back():
    device = small()
    device.stuck_zero[SECTOR + 1] = 0x40
    assert read(device, SECTOR, 2) == b"\xff\xff"
    device.erase(0)
    assert read(device, SECTOR, 2) == b"\xff\xff"
    device.erase(1)
    assert read(device, SECTOR, 3) == b"\xff\xbf\xff"
    write(device, SECTOR, bytes(3))
    for variant in torn(device, "E", 1, full=False)[:-1]:
        assert not variant[1][1] & 0x40 and not variant[2] & 0x4000
    device.erase(1)
    assert read(device, SECTOR, 3) == b"\xff\xbf\xff"


def test_a_sector_wears_out_after_its_erases():
    device = small(endurance=10)
    for _ in range(10):
        device.erase(2)
        device.erase(1)
    assert not device.stuck_one and not device.stuck_zero
    for _ in range(40):
        device.erase(2)
    cells = list(device.stuck_one) + list(device.stuck_zero)
    assert 20 < len(cells) <= 40 and device.stuck_one and device.stuck_zero
    assert all(2 * SECTOR <= k < 3 * SECTOR for k in cells)
    k = list(device.stuck_zero)[0]
    assert device.contents[k] == 0xFF & ~device.stuck_zero[k]
    device = small()
    for _ in range(100):
        device.erase(0)
    assert not device.stuck_one and not device.stuck_zero


def test_lost_charge_turns_zeros_to_ones():
    device = small()
    write(device, 64, b"\x00\x80\xf0")
    device.rot(65, 0x81)
    device.rot(66, 0x01)
    assert read(device, 64, 3) == b"\x00\x81\xf1"
