"""A NOR flash that loses power, wears out and forgets: the device under the fault tests.

Nor has the face of a storage device and keeps its contents in RAM. What it adds to a bytearray:

    the page rule   whole aligned pages are programmed, and bits only go from 1 to 0
    weak cells      what a cut left half programmed or half erased. They may read 1 for a whole
                    boot and 0 in the next, which breaks more designs than noise does
    torn operations every state in which a cut can leave a page or a sector
    worn cells      that cannot be programmed, or do not come back with an erase; lost charge

A cut is made from `hook`, which is called before each program and erase:

    def hook(kind, where, buf):
        for variant in nor.torn(kind, where, buf, chance, full=False):
            after = nor.fork()
            after.apply(variant)
            after.reboot()
            ... mount `after` and look

or, to cut the same device again and again: nor.apply(nor.random_torn(kind, where, buf, chance)),
nor.reboot(), and an exception out of the hook.

A set of cells of a page or sector is an int, octet k of it in the bits from 8k: one operation
on a long int does for a page what a loop would do octet by octet.

It does not model: cells changed by an operation elsewhere (in another page by a program, in
another sector by an erase, in the same page outside the bits to clear), nor disturb by reading.
"""

# How weak cells read during one boot.
STORED = 0  # as the last operation left them
ONES = 1
ZEROS = 2
MIXED = 3  # each page for itself: all ones or all zeros
STICKY = 4  # each cell for itself, the same at every read
RANDOM = 5  # each cell for itself, anew at every read

# Noise is always noticed; what reads well in this boot and otherwise in the next is not.
_DRAWN = (ONES, ONES, ZEROS, MIXED, MIXED, STORED, STICKY, STICKY, RANDOM)

# Times of a W25Q32JV: typical and maximal ms.
_PROGRAM_MS = (0.4, 3)
_ERASE_MS = (45, 400)

_MASK = 0x1FFFFFFF  # 29 bits: the sum of two such numbers is still a small int on a board
_POOL_STEP = 4096  # the largest sector


class Chance:
    """Random numbers, the same from the same seed on every Python; all small ints.

    A xorshift generator of 29 bits (of full period; 6, 13, 15 found by computing the order of
    its matrix) added to a counter.
    """

    def __init__(self, seed):
        self._x = (seed ^ 0x0B7E1516) & _MASK or 1
        self._w = (seed >> 29 ^ 0x05A30A6D) & _MASK
        for _ in range(6):  # until seeds that are neighbours have nothing in common
            # The carries of the sum: without them numbers would be linear in the bits of the seed.
            self._x = self.bits(29) or 1

    def bits(self, n):
        """A number of *n* random bits, 0 < n <= 29."""
        x = self._x
        x ^= (x & _MASK >> 6) << 6
        x ^= x >> 13
        x ^= (x & _MASK >> 15) << 15
        self._x = x
        self._w = w = (self._w + 0x13C6EF37) & _MASK
        return (x + w & _MASK) >> 29 - n

    def below(self, n):
        """A number from 0 to n - 1; n < 2**20 or it is not quite even."""
        return self.bits(29) % n

    def chance(self, p):
        """True with the probability *p*, from 0 to 1."""
        return self.bits(16) < p * 65536

    def choice(self, items):
        return items[self.below(len(items))]

    def cells(self, n, p):
        """A set of the cells of *n* octets, each in it with probability p/256.

        n <= 4096, 0 <= p < 256.
        """
        found = 0
        # The binary digits of p from the last: "or" halves the way to 1, "and" the way to 0.
        for k in range(8):
            if p >> k & 1:
                found |= self._block(n)
            elif found:
                found &= self._block(n)
        return found

    def _block(self, n):
        r = self.bits(24)
        return _noise(r & 4095, r >> 12, n)


def _fill_pool():
    pool = bytearray(2 * _POOL_STEP + 1)  # three at a time fill it
    chance = Chance(1)
    for i in range(0, len(pool), 3):
        r = chance.bits(24)
        pool[i] = r & 255
        pool[i + 1] = r >> 8 & 255
        pool[i + 2] = r >> 16
    return bytes(pool)


# Random octets are two places of this pool, one over the other: a few microseconds a sector.
_POOL = _fill_pool()


def _noise(a, b, n):
    """8 * n random bits, the same for the same *a* and *b* (both below 4096); n <= 4096."""
    if a == b:
        b ^= 1
    return int.from_bytes(_POOL[a : a + n], "little") ^ int.from_bytes(_POOL[b : b + n], "little")


def _sum(cells):
    """The set that a dict of address -> mask of one octet is, with addresses from 0."""
    total = 0
    for k in cells:
        total |= cells[k] << 8 * k
    return total


class Nor:
    """A device of *sectors* sectors of *sector_size* octets, in pages of *page_size*.

    sector_size, page_size   powers of two, page_size <= sector_size <= 4096
    seed       of what is random in it: how weak cells read, which cells wear out
    endurance  erases after which each further erase of a sector breaks a cell; 0 = never
    contents   octets to begin with (copied); None = blank

    A program or erase with a wrong address or buffer is a fault of the caller: AssertionError.
    """

    trusted = False
    commit_ms = 0

    def __init__(self, sectors, sector_size, page_size, seed=1, endurance=0, contents=None):
        assert page_size & page_size - 1 == 0 and sector_size & sector_size - 1 == 0
        assert page_size <= sector_size <= _POOL_STEP
        self.sectors = sectors
        self.sector_size = sector_size
        self.page_size = page_size
        self.endurance = endurance
        self.chance = Chance(seed)
        size = sectors * sector_size
        self.contents = bytearray(contents if contents is not None else b"\xff" * size)
        assert len(self.contents) == size
        self.buf = bytearray(page_size)
        self._stale = b"\xa5" * page_size
        self._blank = b"\xff" * page_size

        self.hook = None  # called with ("P", address, buf) or ("E", sector, None)
        self.mode = STORED
        self.boots = 0
        self._sticky_a = 0
        self._sticky_b = 0
        self._weak = {}  # number of a page -> its weak cells, never 0
        self.stuck_one = {}  # address -> mask of cells that cannot be programmed to 0
        self.stuck_zero = {}  # address -> mask of cells that are 0 after an erase
        self.wear = [0] * sectors
        self.reset_counters()

    def reset_counters(self):
        """Count from 0 again; `wear` goes on."""
        self.programs = 0
        self.erases = 0
        self.reads = 0
        self.syncs = 0
        self.octets_read = 0
        self.octets_programmed = 0  # those given that were not 0xFF

    def time_ms(self, worst=False):
        """What the programs and erases since the counters' start take on a chip, in ms.

        worst   by the maximal times of the data sheet instead of the typical ones
        """
        return self.programs * _PROGRAM_MS[worst] + self.erases * _ERASE_MS[worst]

    # The face of a device.

    def at(self, address, n):
        """Index in `buf` of the *n* octets at *address*; the rest of `buf` is 0xA5.

        They end where `buf` ends, so that who takes the index for 0 is found out.
        """
        assert 0 <= n <= self.page_size and 0 <= address <= len(self.contents) - n, (address, n)
        self.reads += 1
        self.octets_read += n
        self.buf[:] = self._stale[n:] + self.contents[address : address + n]
        if self._weak:
            self._read_weak(address, n)
        return self.page_size - n

    def program(self, address, buf, i, n):
        size = self.page_size
        assert address % size == 0 and 0 <= address < len(self.contents), address
        assert len(buf) == size and 0 <= i and 0 < n <= size - i, (len(buf), i, n)
        octets = bytes(buf)
        assert octets[:i] == self._blank[:i], "octets before those to program are not 0xFF"
        assert octets[i + n :] == self._blank[i + n :], "octets behind those to program"
        if self.hook is not None:
            self.hook("P", address, buf)
        self.programs += 1
        self.octets_programmed += size - octets.count(b"\xff")
        given = int.from_bytes(octets, "little")
        if self.stuck_one:
            given |= self._stuck(self.stuck_one, address, size)
        self._set(address, size, self._get(address, size) & given)
        if self._weak:
            page = address // size
            # What is driven to 0 is solid now, the others are as weak as before.
            self._weaken(page, self._weak.get(page, 0) & given)
        self.buf[:] = self._stale

    def erase(self, sector):
        assert 0 <= sector < self.sectors, sector
        if self.hook is not None:
            self.hook("E", sector, None)
        self.erases += 1
        self.wear[sector] += 1
        if 0 < self.endurance < self.wear[sector]:
            self._wear_out(sector)
        size = self.sector_size
        start = sector * size
        self.contents[start : start + size] = b"\xff" * size
        for k in self.stuck_zero:
            if start <= k < start + size:
                self.contents[k] &= ~self.stuck_zero[k]
        if self._weak:
            for page in self._pages(start, size):
                self._weaken(page, 0)
        self.buf[:] = self._stale

    def sync(self):
        self.syncs += 1
        self.buf[:] = self._stale

    def close(self):
        self.buf[:] = self._stale

    # Power cuts.

    def reboot(self, mode=None):
        """Begin another boot; weak cells read by *mode*, which is drawn when it is None."""
        self.boots += 1
        self.mode = self.chance.choice(_DRAWN) if mode is None else mode
        self._sticky_a = self.chance.bits(12)
        self._sticky_b = self.chance.bits(12)
        self.buf[:] = self._stale

    def fork(self, seed=None):
        """An independent copy: contents, weak and stuck cells, wear and how this boot reads.

        Its counters start at 0, it has no hook. seed   of the copy; None = drawn from `chance`
        """
        other = Nor(
            self.sectors,
            self.sector_size,
            self.page_size,
            self.chance.bits(29) if seed is None else seed,
            self.endurance,
            self.contents,
        )
        other.mode = self.mode
        other.boots = self.boots
        other._sticky_a = self._sticky_a
        other._sticky_b = self._sticky_b
        other._weak = dict(self._weak)
        other.stuck_one = dict(self.stuck_one)
        other.stuck_zero = dict(self.stuck_zero)
        other.wear = list(self.wear)
        return other

    def apply(self, variant):
        """Put a page or sector into the state *variant*, which a generator below made.

        variant   (address, octets, weak): where, contents, and all weak cells there, as a set
        """
        address, octets, weak = variant
        self.contents[address : address + len(octets)] = octets
        if weak or self._weak:
            width = 8 * self.page_size
            cells = (1 << width) - 1
            for page in self._pages(address, len(octets)):
                self._weaken(page, weak & cells)
                weak >>= width
        self.buf[:] = self._stale

    def torn(self, kind, where, buf, chance, full):
        """torn_programs() or torn_erases(), by the arguments of `hook`."""
        if kind == "P":
            return self.torn_programs(where, buf, chance, full)
        return self.torn_erases(where, chance, full)

    def torn_programs(self, address, buf, chance, full):
        """Generate the variants in which a cut can leave the page at *address*.

        buf    what was being programmed, as in program(): the whole page
        full   each single bit missing, not one of eight
        """
        goal = self._goal("P", address, buf)
        n, target = goal[1], goal[2]
        yield _state(goal, 0, 0)
        if not target:
            return
        todo = _octets_in(target, n)
        for k in todo:  # the octets programmed in ascending order
            yield _state(goal, target & _first(k + 1), 0)
        for k in todo[1:]:  # ... and in descending order
            yield _state(goal, target & ~_first(k), 0)
        for k in todo:
            for bit in range(8 * k, 8 * k + 8):
                if target >> bit & 1 and (full or chance.below(8) == bit & 7):
                    yield _state(goal, target & ~(1 << bit), 0)
        for p in (13, 77, 179, 243):  # .05 .3 .7 .95
            yield _state(goal, target & chance.cells(n, p), 0)
        for variant in _weak_states(goal, chance):
            yield variant

    def torn_erases(self, sector, chance, full):
        """Generate the variants in which a cut can leave *sector*.

        full   begin and end at each octet to erase, not at every seventh
        """
        goal = self._goal("E", sector, None)
        n, target = goal[1], goal[2]
        yield _state(goal, 0, 0)
        todo = _octets_in(target, n)
        step = 1 if full else 7
        for k in todo[::step]:
            yield _state(goal, target & _first(k + 1), 0)
        for k in todo[::step]:
            yield _state(goal, target & ~_first(k), 0)
        for k in todo[:: 1 if full else 5]:  # the earliest: a single bit has flipped
            bit = chance.choice([b for b in range(8 * k, 8 * k + 8) if target >> b & 1])
            yield _state(goal, 1 << bit, 0)
        for k in range(n // 16, n + 1, n // 16):
            yield _zeroed(goal, k)
        if target:
            for p in (3, 51, 128, 230, 253):  # .01 .2 .5 .9 .99
                yield _state(goal, target & chance.cells(n, p), 0)
            for variant in _weak_states(goal, chance):
                yield variant
        # A chip programs a sector before it erases it, so those that were 1 are weak as well.
        yield _state(goal, target, _first(n))

    def random_torn(self, kind, where, buf, chance):
        """One variant, by the arguments of `hook`; half of them leave weak cells."""
        goal = self._goal(kind, where, buf)
        n, target = goal[1], goal[2]
        if kind == "E" and (not target or chance.below(12) == 0):
            if chance.below(2):
                return _zeroed(goal, 1 + chance.below(n))
            return _state(goal, target & chance.cells(n, 128), _first(n))
        if not target:
            return _state(goal, 0, 0)
        octets = target.to_bytes(n, "little")
        first = n - len(octets.lstrip(b"\0"))
        end = len(octets.rstrip(b"\0"))
        low = target & _first(first + chance.below(end - first + 1))
        some = target & chance.cells(n, chance.choice((3, 13, 51, 77, 128, 179, 230, 243, 253)))
        nothing_or_all = chance.choice((0, target))
        pick = chance.below(14)
        if pick == 0:
            return _state(goal, nothing_or_all, 0)
        if pick < 3:  # in ascending order
            return _state(goal, low, 0)
        if pick == 3:  # in descending order
            return _state(goal, target & ~low, 0)
        if pick < 6:
            return _state(goal, some, 0)
        if pick == 6:  # a single bit more or less
            k = chance.choice(_octets_in(target, n))
            bit = 8 * k + chance.choice([b for b in range(8) if octets[k] >> b & 1])
            return _state(goal, nothing_or_all ^ 1 << bit, 0)
        if pick < 9:
            return _state(goal, nothing_or_all, target)
        if pick < 11:
            return _state(goal, nothing_or_all, some)
        if pick < 13:  # in ascending order, the last of them weakly
            last = low & ~_first(chance.below(end + 1))
            return _state(goal, low, last or some)
        return _state(goal, target & chance.cells(n, 128), some)

    # Weak, worn and forgetful cells.

    def weaken(self, address, mask):
        """Make the cells *mask* of the octet at *address* weak."""
        page, k = address // self.page_size, address % self.page_size
        self._weaken(page, self._weak.get(page, 0) | mask << 8 * k)

    def weak_cells(self):
        """The weak cells as a dict of address -> mask."""
        found = {}
        for page in self._weak:
            cells = self._weak[page].to_bytes(self.page_size, "little")
            for k in range(self.page_size):
                if cells[k]:
                    found[page * self.page_size + k] = cells[k]
        return found

    def rot(self, address, mask):
        """The cells *mask* of the octet at *address* lose their charge: they are 1."""
        self.contents[address] |= mask

    def _wear_out(self, sector):
        k = sector * self.sector_size + self.chance.below(self.sector_size)
        stuck = self.chance.choice((self.stuck_one, self.stuck_zero))
        stuck[k] = stuck.get(k, 0) | 1 << self.chance.below(8)

    def _stuck(self, stuck, address, n):
        end = address + n
        return _sum({k - address: stuck[k] for k in stuck if address <= k < end})

    # Sets of cells.

    def _get(self, address, n):
        return int.from_bytes(self.contents[address : address + n], "little")

    def _set(self, address, n, cells):
        self.contents[address : address + n] = cells.to_bytes(n, "little")

    def _pages(self, address, n):
        return range(address // self.page_size, (address + n) // self.page_size)

    def _weaken(self, page, cells):
        if cells:
            self._weak[page] = cells
        elif page in self._weak:
            del self._weak[page]

    def _read_weak(self, address, n):
        """Lay the weak cells over what at() has read; it may end in the next page."""
        size = self.page_size
        page = address // size
        while page * size < address + n:
            weak = self._weak.get(page)
            if weak is not None:
                start = page * size
                octets = self._weak_page(page, weak)
                i = max(address, start)
                end = min(address + n, start + size)
                to = size - n - address
                self.buf[to + i : to + end] = octets[i - start : end - start]
            page += 1

    def _weak_page(self, page, weak):
        size = self.page_size
        solid = self._get(page * size, size)
        mode = self.mode
        # Odd factors: each page has places of its own in the pool.
        a = self._sticky_a + page * 769 & 4095
        b = self._sticky_b + page * 2203 & 4095
        if mode == MIXED:
            mode = ONES if (_POOL[a] ^ _POOL[b]) & 1 else ZEROS
        if mode == ONES:
            solid |= weak
        elif mode == ZEROS:
            solid &= ~weak
        elif mode == STICKY:
            solid = solid & ~weak | weak & _noise(a, b, size)
        elif mode == RANDOM:
            solid = solid & ~weak | weak & self.chance.cells(size, 128)
        return solid.to_bytes(size, "little")

    def _goal(self, kind, where, buf):
        """(address, n, target, old, weak, new) of an operation, for _state().

        The n octets at *address* are *old* with the cells *weak*, and would be *new* without
        any: all in *target* change or become solid.
        """
        if kind == "P":
            n = self.page_size
            old = self._get(where, n)
            weak = self._weak.get(where // n, 0)
            given = int.from_bytes(bytes(buf), "little")
            if self.stuck_one:
                given |= self._stuck(self.stuck_one, where, n)
            return where, n, (old | weak) & ~given, old, weak, old & given
        n = self.sector_size
        address = where * n
        old = self._get(address, n)
        weak = 0
        if self._weak:
            shift = 0
            for page in self._pages(address, n):
                weak |= self._weak.get(page, 0) << shift
                shift += 8 * self.page_size
        new = _first(n)
        if self.stuck_zero:
            new &= ~self._stuck(self.stuck_zero, address, n)
        return address, n, (~old | weak) & new, old, weak, new


def _first(n):
    """The set of all cells of the first *n* octets."""
    return (1 << 8 * n) - 1


def _octets_in(cells, n):
    """The numbers of the octets, of *n*, that have one of the *cells*."""
    octets = cells.to_bytes(n, "little")
    return [k for k in range(n) if octets[k]]


def _state(goal, done, unsure):
    """The variant in which the cells *done* have changed and the cells *unsure* are weak.

    goal   what Nor._goal() says
    """
    address, n, _, old, weak, new = goal
    now = old & ~done | new & done
    return address, now.to_bytes(n, "little"), weak & ~done | unsure


def _zeroed(goal, k):
    """The variant of an erase that was cut when the first *k* octets were programmed to 0."""
    address, n, _, old, weak, _ = goal
    left = _first(n) & ~_first(k)
    return address, (old & left).to_bytes(n, "little"), weak & left


def _weak_states(goal, chance):
    """The variants that leave weak cells in an operation with a target."""
    n, target = goal[1], goal[2]
    half = target & chance.cells(n, 128)
    yield _state(goal, 0, target)  # reads as before now
    yield _state(goal, target, target)  # reads as wanted now
    yield _state(goal, 0, half)
    yield _state(goal, target, half)
    todo = _octets_in(target, n)
    low = _first(chance.choice(todo[1:] or todo))
    yield _state(goal, target & low, target & ~low)  # in ascending order, the rest weakly
