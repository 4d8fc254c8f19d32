"""Planted bugs: each rule of the store taken away, and whether the random programs notice.

    python tests/faults/mutants.py [--only NAME] [--seconds 20] [--jobs 2]

Prints for each mutant how many of the directed tests caught it, and which random program did
after how many cuts, by which rule. A mutant that nothing catches must be in REDUNDANT, with the
reason. CPython only: it patches source text.
"""

import sys
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).parents[2] / "lib"))

import cutter
import model
import test_power_cuts
from model import Store, Violation

_STORE = Path(__file__).parents[2] / "lib" / "amqp_lite" / "store"
_MODULES = ("sectors", "records", "merge", "ring", "recovery")

# (name, module, what is there, what is there instead)
MUTANTS = [
    ("confirm before the flush", "ring",
     "            if not self.writer.flush():\n                return False\n", ""),
    ("no read-back", "sectors",
     "    return same(device.buf, at, page, i, n)\n", "    return True\n"),
    ("record CRC not checked", "records",
     "        if not same(device.buf, at, crc, 0, CRC):\n            return False\n", ""),
    ("header CRC not checked", "sectors",
     "        return same(crc, 0, buf, i + 12, 4)\n", "        return True\n"),
    ("CRC begun without order", "records",
     'struct.pack_into(">IHH", seed, 0, order, cover, slot)',
     'struct.pack_into(">IHH", seed, 0, 0, cover, slot)'),
    ("CRC begun without cover", "records",
     'struct.pack_into(">IHH", seed, 0, order, cover, slot)',
     'struct.pack_into(">IHH", seed, 0, order, 0, slot)'),
    ("CRC begun without slot", "records",
     'struct.pack_into(">IHH", seed, 0, order, cover, slot)',
     'struct.pack_into(">IHH", seed, 0, order, cover, 0)'),
    ("header not zeroed before erase", "sectors",
     "        self.kill(sector)\n        for _ in range(2):\n", "        for _ in range(2):\n"),
    ("no blank check after erase", "sectors",
     "                if not is_blank(device.buf, at, size):\n", "                if False:\n"),
    ("unbelieved header left at mount", "recovery",
     "            if not dead or not device.trusted:\n", "            if False:\n"),
    ("zeros of a header trusted at mount", "recovery",
     "            if not dead or not device.trusted:\n", "            if not dead:\n"),
    ("header of a copy not healed", "recovery",
     "                self._heal_header(sector)\n", "                pass\n"),
    ("marks not healed", "recovery",
     "            self._solidify(base, HEADER, ring.bitmap)\n", "            pass\n"),
    ("last sector not settled", "recovery",
     "        if not ring.device.trusted and not ring.cover[sector]:\n", "        if False:\n"),
    ("settled in place after a cut in it", "recovery",
     "if not ring.is_pending(sector, _UNSETTLED) and ring.copy_sector(sector, False):",
     "if False:"),
    ("settling does not say it has begun", "recovery",
     "        self._clear(base, _UNSETTLED)\n", ""),
    ("cells read once", "recovery", "_READINGS = const(24)", "_READINGS = const(1)"),
    ("unreadable records left as they are", "recovery",
     "                side.put(_ZERO, 0, 1)\n                side.skip(SLOT - 1)\n",
     "                pass\n"),
    ("beginning of a torn record left", "recovery",
     "                    self._zero(base, start)\n", "                    pass\n"),
    ("merge: header before data", "merge",
     "    at = ring.first\n    source = first\n",
     "    ring.write_header(side.page, order, cover, 0, ring.ready_erases)\n"
     "    program(ring.device, base, side.page, 0, HEADER)\n"
     "    fill(side.page, 0, HEADER, 0xFF)\n"
     "    at = ring.first\n    source = first\n"),
    ("merge: marks with the header, not before", "merge",
     "    right = is_blank(marks, 0, ring.bitmap) or program(\n"
     "        ring.device, base, page, HEADER, ring.bitmap\n    )\n",
     "    right = True\n    ring.write_header(page, order, cover, 0, ring.ready_erases)\n"
     "    program(ring.device, base, page, 0, HEADER + ring.bitmap)\n"),
    ("merge: marks forgotten", "merge",
     "            marks[bit >> 3] &= ~(0x80 >> (bit & 7))\n", "            pass\n"),
    ("merge: sources not zeroed", "merge",
     "        ring.live[source] = 0\n        ring.kill(source)\n",
     "        ring.live[source] = 0\n"),
    ("merge: cover one too small", "merge",
     "    cover = ring.order[last] + ring.cover[last] - order\n    source = first\n",
     "    cover = ring.order[last] + ring.cover[last] - order - 1\n    source = first\n"),
    ("merge: a first place of another slot", "merge",
     "ring.at_order, ring.at_slot)\n", "ring.at_order, ring.at_slot + 1)\n"),
    ("merge: tries forgotten", "merge",
     "            head[0] = device.buf[device.at(ring.tries_at + share, 1)]\n",
     "            head[0] = 0xFF\n"),
    ("merge: weighs without the first place", "merge",
     "(0 if kind & MOVED else PLACE)", "0"),
    ("sources of copies kept at mount", "recovery",
     "        if not cover and not copies:\n            return\n", "        return\n"),
    ("the earlier copy counts", "recovery",
     "                if copies - self._copies(other) & 0xFF >= 0x80:\n",
     "                if copies - self._copies(other) & 0xFF < 0x80:\n"),
    ("copies not counted", "sectors",
     "            copies = device.buf[header + 8] % 255 + 1", "            copies = 0"),
    ("copy: source not zeroed", "sectors",
     "            self.writer.base += (target - source) * self.sector_size\n"
     "        self.kill(source)\n",
     "            self.writer.base += (target - source) * self.sector_size\n"),
    ("copy: header before data", "sectors",
     "            start = 0 if k else HEADER\n", "            start = 0\n"),
    ("copy: writer stays in the failing sector", "sectors",
     "            self.writer.base += (target - source) * self.sector_size\n",
     "            pass\n"),
    ("a failing sector is not copied", "ring",
     "            if self.copy_sector(sector, True):\n", "            if False:\n"),
    ("marks before their record", "ring",
     "            return True\n        if not self.commit():\n            return False\n"
     "        right = True\n",
     "            return True\n        right = True\n"),
    ("stale handle", "records",
     "            if self.at_order == order and self.at_slot == slot:\n",
     "            if self.at_slot == slot:\n"),
    ("only bits that read as pending are marked", "ring",
     "            # Also what reads as done",
     "            if not page[i] & 0x80 >> (bit & 7):\n"
     "                continue\n"
     "            # Also what reads as done"),
    ("mark of the first share only", "ring",
     "            bit = self.slot + share\n            i =",
     "            bit = self.slot\n            i ="),
    ("a record is done with its first share", "ring",
     "not _any_bit(page, HEADER, self.slot, self.shares):\n",
     "True:\n"),
    ("goes on in the old tail sector", "recovery",
     "self._chain_slot[k])\n        ring.mark()\n\n",
     "self._chain_slot[k])\n        ring.mark()\n"
     "        last = newest_upto(ring.order, ring.sectors, MAX_ORDER)\n"
     "        if last >= 0 and not ring.cover[last]:\n"
     "            slot = ring.slots\n"
     "            while slot > ring.first and self._is_empty(last, slot - 1):\n"
     "                slot -= 1\n"
     "            if slot < ring.slots:\n"
     "                ring.tail = last\n"
     "                ring.tail_slot = ring.kept_slot = slot\n"
     "                base = last * ring.sector_size + slot * SLOT\n"
     "                ring.writer.start(base - base % ring.page_size, base % ring.page_size)\n"
     "\n"),
    ("the walk ends at a bad record", "recovery",
     "                slot = following\n",
     "                slot = following if following > slot + 1 else ring.slots\n"),
    ("merged orders do not count", "recovery",
     "            last = ring.order[sector] + ring.cover[sector]\n",
     "            last = ring.order[sector]\n"),
    ("incomplete chains are delivered", "recovery",
     "if not ring.kind & CHAIN or self._is_whole():", "if True:"),
    ("unfinished chains stay", "recovery",
     "                drop_chain(ring, self._chain_order[k], self._chain_slot[k])\n",
     "                pass\n"),
    ("the cursor passes a moved record by its length", "records",
     "        return self.at_slot + (1 if self.kind & MOVED else self.used)\n",
     "        return self.at_slot + self.used\n"),
    ("the chain is forgotten at a sector's end", "ring",
     "        chain_order = self.chain_order\n        chain_slot = self.chain_slot\n"
     "        chain_size = self.chain_size\n        if self.tail < 0 or self.tail_slot + used >"
     " self.slots:\n            if used > self.slots - self.first or not self._next_sector():\n"
     "                return False\n",
     "        chain_size = self.chain_size\n        if self.tail < 0 or self.tail_slot + used >"
     " self.slots:\n            if used > self.slots - self.first or not self._next_sector():\n"
     "                return False\n"
     "        chain_order = self.chain_order\n        chain_slot = self.chain_slot\n"),
    ("dead neighbours end the merged orders", "merge",
     "                    many += 1\n                    last = other\n",
     "                    many += 1\n                last = other\n"),
    ("no sector is kept for merges", "ring", "_SPARE = const(2)", "_SPARE = const(1)"),
    ("parts count without a commit record", "recovery",
     "                elif not ring.is_open():\n", "                elif True:\n"),
    ("parts without a commit record are not dropped", "recovery",
     "            self._drop_parts()\n", "            pass\n"),
    ("a commit record counts without its parts", "recovery",
     "        if count != u16(rows, 6) and not counts:\n", "        if False:\n"),
    ("a commit record is needed when its parts count already", "recovery",
     "        if count != u16(rows, 6) and not counts:\n",
     "        if count != u16(rows, 6) or counts:\n"),
    ("committed parts are not made to count", "recovery",
     "            ring.ack(part[0], part[1], COUNTS)\n", "            pass\n"),
    ("what a transaction settles comes back", "recovery",
     "            self._settle_share(u32(rows, i), u16(rows, i + 4), u16(rows, i + 6))\n",
     "            pass\n"),
    ("settled by a transaction that is not there", "recovery",
     "        if ring.is_open() and not self._counts((order, slot)):\n", "        if False:\n"),
    ("the mark of a commit record with the others", "ring",
     "            if self.sector_of(order) != sector or (share == COMMIT and not last):\n",
     "            if self.sector_of(order) != sector:\n"),
    ("the mark of a commit record behind refused ones", "ring",
     "            if self.refused or not self.sync():\n", "            if not self.sync():\n"),
    ("no slot for whether a part counts", "records",
     "    least = tries + 1 if tries and kind & PART else tries\n", "    least = tries\n"),
    ("merge: parts count", "merge",
     "    if kind & PART and not ring.is_open():\n", "    if kind & PART:\n"),
    ("a part that counts is done with", "ring",
     "if share < self.shares and not _any_bit(", "if not _any_bit("),
    ("pages begin where the last one ended, not behind", "sectors",
     "        self.done = self.at\n        return not", "        return not"),
]  # fmt: skip

# Not caught, because another rule covers them.
REDUNDANT = {
    "only bits that read as pending are marked": "a start makes weak marks solid; what 24"
    " readings of a cell miss is too rare, while they were read once this did show",
}


def load(name, module=None, old="", new=""):
    """The store with *new* for *old* in *module*."""
    kept = {}
    made = {}
    package = "amqp_lite.store."
    for part in _MODULES:
        kept[part] = sys.modules[package + part]
    try:
        for part in _MODULES:
            text = (_STORE / (part + ".py")).read_text()
            if part == module:
                assert text.count(old) == 1, "%s: in %s %d times" % (name, part, text.count(old))
                text = text.replace(old, new)
            made[part] = ModuleType(package + part)
            made[part].__package__ = "amqp_lite.store"
            sys.modules[package + part] = made[part]
            exec(compile(text, part + ".py", "exec"), made[part].__dict__)
    finally:
        for part in _MODULES:
            sys.modules[package + part] = kept[part]
    return Store(made["ring"], made["recovery"], made["merge"])


def programs(seed):
    """The lives to try one after the other: (name, function of store and figures)."""
    k = 0
    while True:
        for geometry in ("1k6", "1k", "4k"):
            at = seed + 2 * k
            k += 1
            yield "chained", at, geometry
            yield "chained", at + 1000000, geometry
            yield "worn", at, geometry
            if k % 3 == 1:
                yield "single", at, geometry
            if k % 4 == 2:
                yield "rot", at, geometry


def directed(store):
    """How many of the directed tests fail with *store*."""
    model.STORE = store
    failed = 0
    try:
        for name in dir(test_power_cuts):
            if name.startswith("test_") and name not in ("test_single_cuts", "test_chained_cuts"):
                try:
                    getattr(test_power_cuts, name)()
                except Exception:
                    failed += 1
    finally:
        model.STORE = None
    return failed


def hunt(mutant, seconds, seed=1, enough=False):
    """(name, directed tests that caught it, random program that did or None, cuts, violation).

    enough   no random programs when a directed test has caught it
    """
    from time import time

    store = load(*mutant)
    name = mutant[0]
    failed = directed(store)
    if failed and enough:
        return name, failed, None, 0, ""
    end = time() + seconds
    figures = cutter.Figures()
    for kind, at, geometry in programs(seed):
        if time() > end:
            return name, failed, None, figures.counts.get("cuts", 0), ""
        try:
            if kind == "single":
                cutter.single_life(at, geometry, figures, 60, store=store, steps=150)
            elif kind == "chained":
                cutter.chained_life(at, geometry, figures, 30, store=store)
            else:
                damage = cutter.Wear() if kind == "worn" else cutter.Rot()
                cutter.chained_life(at, geometry, figures, 30, store=store, damage=damage)
        except Violation as violation:
            return name, failed, kind, figures.counts.get("cuts", 0), str(violation)
        except Exception as error:
            return name, failed, kind, figures.counts.get("cuts", 0), repr(error)


def job(arguments):
    return hunt(*arguments)


def main(arguments):
    import argparse
    from multiprocessing import Pool

    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=20, help="for each")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if given.only in mutant[0]]
    missed = 0
    with Pool(given.jobs) as pool:
        tasks = [(mutant, given.seconds, given.seed) for mutant in chosen]
        for name, failed, caught, cuts, violation in pool.imap(job, tasks):
            if not failed and caught is None:
                missed += name not in REDUNDANT
                violation = "redundant" if name in REDUNDANT else "MISSED"
            print("%-50s %2d directed  %-8s %6d  %s" % (
                name, failed, caught or "-", cuts, violation[:50]), flush=True)  # fmt: skip
    print("%d mutants, %d missed" % (len(chosen), missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
