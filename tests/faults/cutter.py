"""Cut the power of a ring at every point, and look at what is left.

    python tests/faults/cutter.py --single 50000 --chained 20000 --worn 2000 --jobs 2

single   a random program runs; at each program and erase the device is forked into every state
         in which a cut can leave it, each is started and compared with the model, and each ninth
         goes on: it appends, commits, marks, starts twice more and is compared again
chained  lives of 60 starts, each ended by a cut, be it in a start, a merge or an erase
worn     chained lives on devices whose cells get stuck, few by few or all in the end
rot      chained lives on devices whose cells forget

Each life has a seed of its own, which the line of a violation names.
"""

import sys

from model import Chip, Model, PowerCut, Store, Violation, World
from nor import Chance

# name: (sectors, sector_size, page_size)
GEOMETRIES = {
    "1k": (7, 1024, 64),
    "1k6": (6, 1024, 64),
    "4k": (5, 4096, 256),
    "4k6": (6, 4096, 256),
}
_NINTH = 9
_BOOTS = 60
_STEPS = 200  # of the program of a life of single cuts


class Figures:
    """What a run did: *counts* by name."""

    def __init__(self):
        self.counts = {}

    def add(self, name, n=1):
        self.counts[name] = self.counts.get(name, 0) + n

    def join(self, counts):
        for name in counts:
            self.add(name, counts[name])


class Watch:
    """Names what a ring is doing, for the figures: the labels of what was entered."""

    def __init__(self, store):
        self.stack = []
        watch = self

        class Watched(store.Ring):
            def copy_sector(self, source, failing):
                watch.stack.append("copy")
                done = super().copy_sector(source, failing)
                watch.stack.pop()
                return done

            def level(self):
                watch.stack.append("level")
                super().level()
                watch.stack.pop()

            def _next_sector(self):
                watch.stack.append("open")
                done = super()._next_sector()
                watch.stack.pop()
                return done

        inner = store.merge.merge

        def merge(ring):
            watch.stack.append("merge")
            done = inner(ring)
            watch.stack.pop()
            return done

        store.ring.merge = merge
        self.inner = inner
        self.store = store
        store.Ring = Watched

    def close(self):
        self.store.ring.merge = self.inner

    def labels(self, world, kind, where, buf):
        found = list(self.stack)
        found.append("in " + world.doing)
        if kind == "E":
            found.append("erase")
        elif where % world.chip.sector_size == 0:
            if buf[0] == 0xA1:
                found.append("header")
            elif buf[0] == 0:
                found.append("kill")
            elif buf[0] == 0xFF:
                found.append("bitmap")
        if world.streams:
            found.append("chain open")
        if any(item.kind == "D" for item in world.model.items.values()):
            found.append("with definitions")
        return found


def single_life(seed, geometry, figures, sample=1, limit=0, steps=_STEPS, store=None):
    """All cuts of one random program.

    sample   only one of so many variants of an operation is looked at
    limit    stop after so many cuts; 0 = at the end of the program
    """
    store = store or Store()
    chance = Chance(seed)
    tear = Chance(seed + 1)
    chip = Chip(*GEOMETRIES[geometry], seed=seed)
    scratch = Chip(*GEOMETRIES[geometry], seed=seed)
    plain = store.Ring
    watch = Watch(store)
    world = World(chip, chance, store)
    forked = World(scratch, tear, store)
    counts = [0]

    def hook(kind, where, buf):
        cuts = 0
        stack = watch.stack
        labels = watch.labels(world, kind, where, buf)
        watch.stack = []
        for variant in chip.torn(kind, where, buf, tear, False):
            if sample > 1 and tear.below(sample):
                continue
            scratch.become(chip)
            scratch.apply(variant)
            scratch.reboot()
            cuts += 1
            counts[0] += 1
            if counts[0] % _NINTH:
                forked.model = world.model
                forked.boot(False, False)
                continue
            forked.model = Model(world.model)
            forked.boot()
            forked.prove()
            for last in range(2):
                scratch.reboot()
                forked.boot(bool(last))
        watch.stack = stack
        figures.add("cuts", cuts)
        figures.add("programs forked" if kind == "P" else "erases forked")
        for label in labels:
            figures.add("cuts: " + label, cuts)
        if limit and counts[0] >= limit:
            raise PowerCut

    try:
        chip.hook = hook
        world.boot()
        for k in range(steps):
            if k % 60 == 59:
                chip.reboot()
                world.boot()
            world.step()
    except PowerCut:
        pass
    finally:
        chip.hook = None
        watch.close()
        store.Ring = plain
    figures.add("messages", world.appended)


class Wear:
    """Cells of a few sectors get stuck, one more with each start."""

    def begin(self, world, chance):
        world.worn = True
        chip = world.chip
        self.sectors = [chance.below(chip.sectors) for _ in range(1 + chance.below(2))]
        if chance.below(4) == 0:
            chip.endurance = 3 + chance.below(10)  # all of them, in the end

    def cut(self, world, chance):
        chip = world.chip
        if chance.below(2):
            k = chance.choice(self.sectors) * chip.sector_size
            # As likely in the header's page as in all others.
            k += chance.below(chip.page_size if chance.below(2) else chip.sector_size)
            stuck = chip.stuck_one if chance.below(2) else chip.stuck_zero
            stuck[k] = stuck.get(k, 0) | 1 << chance.below(8)

    def work(self, world, chance):
        pass


class Rot:
    """Cells of records and of sectors' headers lose their charge."""

    def begin(self, world, chance):
        world.rots = True

    def cut(self, world, chance):
        pass

    def work(self, world, chance):
        ring = world.ring
        model = world.model
        places = sorted(model.kept)
        if not places or world.streams:
            return  # the parts of a chain that has no message yet are nobody's
        item = model.items[chance.choice(places)]
        place = item.place
        if item.parts and chance.below(2):
            place = chance.choice(item.parts)[0]
        if not ring.locate(place[0], place[1]):
            return
        if chance.below(4) == 0 and ring.sector != ring.tail:
            address = ring.sector * ring.sector_size
            n = 16
            self.lose_sector(world, ring.sector)
        else:
            address = ring.sector * ring.sector_size + ring.slot * 16
            n = ring.used * 16
            model.lost[item.place] = True
        for _ in range(1 + chance.below(3)):
            world.chip.rot(address + chance.below(n), 1 << chance.below(8))

    def lose_sector(self, world, sector):
        """All in it may be lost, and the chains with parts there."""
        ring = world.ring
        for item in world.model.items.values():
            for place in [item.place] + [part[0] for part in item.parts]:
                if ring.sector_of(place[0]) == sector:
                    world.model.lost[item.place] = True


def chained_life(seed, geometry, figures, boots=_BOOTS, store=None, damage=None):
    """A life of *boots* starts with a cut in each.

    damage   a Wear or Rot: what else happens to the chip
    """
    store = store or Store()
    chance = Chance(seed)
    tear = Chance(seed + 1)
    chip = Chip(*GEOMETRIES[geometry], seed=seed)
    plain = store.Ring
    watch = Watch(store)
    world = World(chip, chance, store)
    if damage is not None:
        damage.begin(world, chance)
    left = [0]

    def hook(kind, where, buf):
        left[0] -= 1
        if left[0] > 0:
            return
        for label in watch.labels(world, kind, where, buf):
            figures.add("cuts: " + label)
        chip.apply(chip.random_torn(kind, where, buf, tear))
        raise PowerCut

    try:
        for boot in range(boots):
            if damage is not None:
                damage.cut(world, chance)
            watch.stack = []
            left[0] = 1 + chance.below(chance.choice((3, 8, 30, 100, 200)))
            chip.hook = hook
            try:
                world.boot(boot % 4 == 0)
                while True:
                    world.step()
                    if damage is not None and chance.below(60) == 0:
                        damage.work(world, chance)
                    if world.worn and chance.below(300) == 0:
                        raise PowerCut  # it may be full for good
            except PowerCut:
                figures.add("cuts")
            chip.hook = None
            world.count()
            chip.reboot()
        watch.stack = []
        world.boot()
        world.prove()
        world.drain()
        chip.reboot()
        world.boot()
        world.prove()
        figures.add("drained")
    finally:
        watch.close()
        store.Ring = plain
    figures.add("messages", world.appended)
    figures.add("committed", world.committed)
    figures.add("full", world.full)
    figures.add("faults", world.faults)
    figures.add("merges", world.merges)
    figures.add("copies", world.copies)


def worn_life(seed, geometry, figures):
    chained_life(seed, geometry, figures, damage=Wear())


def rotten_life(seed, geometry, figures):
    chained_life(seed, geometry, figures, damage=Rot())


LIVES = {
    "single": single_life, "chained": chained_life, "worn": worn_life, "rot": rotten_life
}  # fmt: skip


def run_life(task):
    """(counts, violation or None) of one life."""
    kind, seed, geometry, sample = task
    figures = Figures()
    try:
        if kind == "single":
            single_life(seed, geometry, figures, sample)
        else:
            LIVES[kind](seed, geometry, figures)
    except Violation as violation:
        return figures.counts, str(violation), task
    return figures.counts, None, task


def _tasks(kind, seed, geometries, sample):
    k = 0
    while True:
        for geometry in geometries:
            yield kind, seed + 2 * k, geometry, sample
        k += 1


def run(kind, cuts, seed, geometries, sample, jobs, report):
    """Lives until there were *cuts* cuts: how many violations there were."""
    from time import time

    started = time()
    total = Figures()
    violations = 0
    tasks = _tasks(kind, seed, geometries, sample)

    def take(answer):
        nonlocal violations
        counts, violation, task = answer
        total.join(counts)
        total.add("lives")
        total.add("cuts on " + task[2], counts.get("cuts", 0))
        if violation is not None:
            violations += 1
            report("VIOLATION %s" % violation)
            report("  again: cutter.py --repeat %s --seed %d --geometry %s --sample %d" % task)

    if jobs > 1:
        from multiprocessing import Pool

        with Pool(jobs) as pool:
            waiting = [pool.apply_async(run_life, (next(tasks),)) for _ in range(2 * jobs)]
            while waiting:
                take(waiting.pop(0).get())
                if total.counts["cuts"] < cuts and violations < 20:
                    waiting.append(pool.apply_async(run_life, (next(tasks),)))
    else:
        while total.counts.get("cuts", 0) < cuts and violations < 20:
            take(run_life(next(tasks)))
    seconds = time() - started
    report("%s: %d cuts in %d lives, %d violations, %.0f s, %.0f cuts/s" % (
        kind, total.counts["cuts"], total.counts["lives"], violations, seconds,
        total.counts["cuts"] / seconds,
    ))  # fmt: skip
    for name in sorted(total.counts):
        report("  %-24s %d" % (name, total.counts[name]))
    return violations


def main(arguments):
    import argparse
    import os

    parser = argparse.ArgumentParser()
    for kind in LIVES:
        parser.add_argument("--" + kind, type=int, default=0, help="cuts to make")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--geometry", default="1k,1k6,4k,4k6")
    parser.add_argument("--sample", type=int, default=1, help="one of so many single cuts")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--repeat", choices=list(LIVES), help="the one life of --seed")
    given = parser.parse_args(arguments)
    seed = given.seed
    if seed is None:
        seed = int.from_bytes(os.urandom(3), "big")
    geometries = given.geometry.split(",")
    print("seed", seed, flush=True)

    def report(line):
        print(line, flush=True)

    if given.repeat:
        counts, violation, _ = run_life((given.repeat, seed, geometries[0], given.sample))
        report(violation or "no violation")
        return 1 if violation else 0
    violations = 0
    for kind in LIVES:
        cuts = getattr(given, kind)
        if cuts:
            violations += run(kind, cuts, seed, geometries, given.sample, given.jobs, report)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.path.insert(0, __file__.rsplit("tests", 1)[0] + "lib")
    sys.exit(main(sys.argv[1:]))
