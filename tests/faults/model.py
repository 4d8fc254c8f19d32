"""What has to be on the flash: a model of the ring's promises, and a program that works the ring.

World is one device with a ring on it and the model of what the ring was told. step() does one
random operation, boot() starts anew on what is on the device and compares:

    I1  committed and not acked: there, exactly once, octet for octet, chains with all their parts
    I2  marked as done: never again. Acked only: may come back
    I3  in the order of appending, by the visitor and by find() for each queue
    I4  nothing else
    I5  appended but not committed: there or not, but what the first start after it says stays so
    I6  the ring takes, commits and keeps new messages afterwards
    I7  a start ends, and raises nothing
    I8  of a transaction all is there or nothing: its messages, and that what it settles is done

A Violation says which. Nothing here knows how the ring does it, except recount(), which checks
its counts of pending slots against what is on the device.
"""

import struct

from amqp_lite.store import merge as _merge
from amqp_lite.store import records
from amqp_lite.store import recovery as _recovery
from amqp_lite.store import ring as _ring
from nor import _POOL, RANDOM, Nor

QUEUES = (0, 1, 2, 3, 255, 256, 300, 65535)
_SLOW = (3, 300)  # queues that are hardly ever served: their messages pin sectors
_READS = 400000  # at() calls of one operation: more is an endless loop


class Violation(Exception):
    pass


class PowerCut(Exception):
    pass


class Store:
    """The code under test: the modules of the store, or changed ones."""

    def __init__(self, ring=_ring, recovery=_recovery, merge=_merge):
        self.MESSAGE = records.MESSAGE
        self.BODY = records.BODY
        self.DEFINITION = records.DEFINITION
        self.TYPE = records.TYPE
        self.CHAIN = records.CHAIN
        self.PART = records.PART
        self.COUNTS = ring.COUNTS
        self.COMMIT = ring.COMMIT
        self.ring = ring
        self.Ring = ring.Ring
        self.Recovery = recovery.Recovery
        self.drop_chain = recovery.drop_chain
        self.merge = merge


STORE = None  # a Store for worlds that are told none, for mutants.py


class Chip(Nor):
    """A Nor that is quick to copy and to read, and that ends endless loops."""

    left = _READS

    def at(self, address, n):
        self.left -= 1
        if self.left < 0:
            raise Violation("I7: endless")
        if self._weak:
            return Nor.at(self, address, n)
        i = self.page_size - n
        end = address + n
        if n < 0 or i < 0 or address < 0 or end > len(self.contents):
            raise Violation("at(%d, %d)" % (address, n))
        self.buf[i:] = self.contents[address:end]
        return i

    def become(self, other):
        """Be a copy of *other*, without its hook."""
        self.contents[:] = other.contents
        self.mode = other.mode
        self.boots = other.boots
        self._sticky_a = other._sticky_a
        self._sticky_b = other._sticky_b
        self._weak = dict(other._weak)
        self.stuck_one = other.stuck_one
        self.stuck_zero = other.stuck_zero
        self.wear = list(other.wear)
        self.left = _READS

    def has_weak(self):
        return bool(self._weak)


class Cursor:
    def __init__(self):
        self.order = 1
        self.slot = 0


class Item:
    """A message or a definition that was appended."""

    def __init__(self, place, kind, queues, payload, parts):
        self.place = place
        self.kind = kind
        self.queues = queues
        self.payload = payload
        self.parts = parts  # ((place, payload), ...) of its chain
        self.late = False  # part of a transaction: a start may find it behind all others


class Transaction:
    """One that was not committed yet."""

    def __init__(self, places=(), settled=(), whole=False):
        self.places = places  # of its messages
        self.settled = settled  # (place, share)
        self.whole = whole  # its commit record may be on flash

    def copy(self):
        return Transaction(self.places, self.settled, self.whole)


class Model:
    def __init__(self, other=None):
        self.items = dict(other.items) if other else {}  # place -> Item
        self.kept = dict(other.kept) if other else {}  # places of those that are committed
        self.left = dict(other.left) if other else {}  # place -> shares that are not marked
        self.open = dict(other.open) if other else {}  # places that a noisy start left undecided
        self.unseen = dict(other.unseen) if other else {}  # (place, share), by the last start
        self.acked = dict(other.acked) if other else {}  # (place, share), not marked yet
        self.loose = dict(other.loose) if other else {}  # those acked before a cut, but seen again
        self.tries = dict(other.tries) if other else {}  # (place, share) -> [done, begun]
        self.lost = dict(other.lost) if other else {}  # places that rot may have taken
        self.transactions = [one.copy() for one in other.transactions] if other else []
        self.sure = dict(other.sure) if other else {}  # (place, share) settled by committed ones

    def append(self, item):
        place = item.place
        if place in self.items:
            self.forget(place)  # a record that was never on flash
        self.items[place] = item
        self.left[place] = tuple(range(len(item.queues)))

    def forget(self, place):
        item = self.items.pop(place)
        del self.left[place]
        self.kept.pop(place, None)
        self.open.pop(place, None)
        self.lost.pop(place, None)
        for share in range(len(item.queues)):
            self.acked.pop((place, share), None)
            self.sure.pop((place, share), None)
            self.loose.pop((place, share), None)
            self.unseen.pop((place, share), None)
            self.tries.pop((place, share), None)

    def commit(self):
        for place in self.items:
            if place not in self.open:
                self.kept[place] = True
        for one in self.transactions:
            for entry in one.settled:
                self.sure[entry] = True
        self.transactions = []

    def mark(self):
        """Everything acked is marked: the items that are done with."""
        done = []
        for place, share in sorted(self.acked):
            item = self.items.get(place)
            if item is not None and self._mark(place, share):
                done.append(item)
        self.acked = {}
        return done

    def _mark(self, place, share):
        left = tuple([k for k in self.left[place] if k != share])
        self.left[place] = left
        if not left:
            self.forget(place)
        return not left

    def pending(self):
        """(place, share) of all that can be acked."""
        return [
            (place, share)
            for place in sorted(self.items)
            for share in self.left[place]
            if (place, share) not in self.acked and (place, share) not in self.unseen
        ]

    def settle(self, seen, noisy):
        """After a start that found *seen*, place -> shares: what was open is decided.

        Not in a noisy one, in which cells read differently each time.
        """
        for place, share in sorted(self.acked):
            if noisy or share in seen.get(place, ()):
                # What was left half programmed may still read as done later.
                self.loose[(place, share)] = True
            elif place in self.items:
                self._mark(place, share)
        self.acked = {}
        self.open = {}
        self.unseen = {}
        for place in self.items:
            for share in self.left[place]:
                if share not in seen.get(place, ()):
                    self.unseen[(place, share)] = True
        transactions = self.transactions
        self.transactions = []
        if noisy:
            for place in self.items:
                if place not in self.kept:
                    self.open[place] = True
            for one in transactions:
                for entry in one.settled:
                    self.loose[entry] = True
            return
        for one in transactions:
            for place, share in one.settled:
                if share not in seen.get(place, ()) and place in self.items:
                    self._mark(place, share)
        for place in list(self.items):
            if place in seen:
                self.kept[place] = True
            elif place not in self.kept or place in self.lost:
                self.forget(place)


class Visitor:
    def __init__(self):
        self.seen = []
        self.definitions = []

    def message(self, ring, share):
        self.seen.append(
            (
                (ring.at_order, ring.at_slot),
                share,
                ring.queue_of(share),
                _payload(ring),
                (ring.chain_order, ring.chain_slot, ring.chain_size)
                if ring.kind & records.CHAIN
                else None,
                ring.tries(share),
            )
        )

    def settled(self, ring, share):
        place = (ring.at_order, ring.at_slot)
        self.seen = [entry for entry in self.seen if entry[:2] != (place, share)]

    def definition(self, ring):
        self.definitions.append(((ring.at_order, ring.at_slot), _payload(ring)))


def _payload(ring):
    octets = bytearray(ring.size)
    ring.read(0, octets, 0, ring.size)
    return bytes(octets)


def fail(rule, *what):
    raise Violation(rule + ": " + " ".join([str(x) for x in what]))


class World:
    """
    chip    a Chip
    chance  random numbers for the operations
    rots    cells may lose their charge: records named in model.lost may be missing
    """

    def __init__(self, chip, chance, store=None, model=None, rots=False):
        self.chip = chip
        self.chance = chance
        self.store = store or STORE or Store()
        self.model = model or Model()
        self.rots = rots
        self.worn = False  # a cell may be stuck: a full ring is no fault
        self.ring = None
        self.recovery = None
        self.streams = []  # chains begun: [first place or None, [(place, payload), ...], octets]
        self.serial = 0
        self.turn = 0  # which queues are looked at next
        self.steps = 0
        self.doing = "boot"
        # Some worlds have a few messages that nobody ever takes, and all else is done soon.
        self.cold = chance.below(3) == 0
        self.appended = self.committed = self.full = 0
        self.faults = self.merges = self.copies = 0

    # --- starting, and what has to be there then ---

    def boot(self, thorough=True, settle=True):
        """Start on what is on the chip, and check.

        thorough   by find() and the ring's counts, too
        settle     the model is told what was found
        """
        chip = self.chip
        chip.left = _READS
        self.doing = "boot"
        self.streams = []
        self.refused = 0
        # Cells that read differently each time: what a start says of them is not the last word.
        self.noisy = noisy = chip.mode == RANDOM and chip.has_weak()
        visitor = Visitor()
        ring = self.ring = self.store.Ring(chip)
        try:
            self.recovery = self.store.Recovery(ring, visitor)
            self.recovery.run()
        except PowerCut:
            raise
        except Violation:
            raise
        except Exception as error:
            if chip.hook is None:
                _show(error)
            fail("I7", "a start raised", repr(error))
        seen = self.check(visitor, noisy)
        if thorough:
            self.check_find([(entry[0], entry[1], entry[2]) for entry in visitor.seen], noisy)
            if not noisy:
                self.recount()
        if settle:
            self.model.settle(seen, noisy)

    def check(self, visitor, noisy):
        model = self.model
        found = {}
        last = (0, 0)
        last_share = 0
        for place, share, queue, payload, chain, tries in visitor.seen:
            item = model.items.get(place)
            if item is None or item.kind == "D":
                fail("I4", place, share, queue, payload[:8])
            if not item.late:
                if place < last or (place == last and share <= last_share):
                    fail("I3", place, share, "after", last, last_share)
                last = place
                last_share = share
            if (place, share) in model.sure and not self.worn:
                fail("I8 settled", place, share)
            if share not in model.left[place]:
                fail("I2", place, share)
            if payload != item.payload or queue != item.queues[share]:
                fail("I4 octets", place, share, queue, len(payload), item.queues)
            if (chain is None) != (not item.parts):
                fail("I4 chain", place)
            if chain is not None and place not in found:
                self._check_chain(item, chain)
            if (place, share) in model.tries:
                done, begun = model.tries[(place, share)]
                if not done <= tries <= begun and not (self.worn or self.rots):
                    fail("tries", place, share, tries, done, begun)
            elif tries and not (self.worn or self.rots):
                fail("tries", place, share, tries)
            found.setdefault(place, {})[share] = True
        last = (0, 0)
        for place, payload in visitor.definitions:
            item = model.items.get(place)
            if item is None or item.kind != "D" or item.payload != payload:
                fail("I4 definition", place, payload[:8])
            if place <= last:
                fail("I3 definition", place)
            last = place
            found.setdefault(place, {})[0] = True
        under_way = []
        for one in model.transactions:
            under_way.extend(one.settled)
        for place in model.items:
            there = found.get(place, {})
            if place not in model.kept and (noisy or not there):
                continue
            if place in model.lost:
                continue
            for share in model.left[place]:
                entry = (place, share)
                if share in there or entry in model.acked or entry in model.loose:
                    continue
                if entry not in under_way:
                    fail("I1", place, share, "of", model.items[place].queues, "kept",
                         place in model.kept)  # fmt: skip
        if not noisy and not self.worn and not self.rots:
            for one in model.transactions:
                self._check_transaction(one, found)
        visitor.seen.sort()
        return found

    def _check_transaction(self, one, found):
        model = self.model
        there = [
            place in found
            for place in one.places
            if place in model.left  # else it is done with, and so
            and not [k for k in model.left[place] if (place, k) in model.acked]
        ]
        done = [
            share not in found.get(place, ())
            for place, share in one.settled
            if (place, share) not in model.loose
        ]
        if not one.whole:
            done = [False]
        if True in there + done and False in there + done:
            fail("I8", one.places, one.settled, one.whole, there, done)

    def _check_chain(self, item, chain):
        """The parts of a chain's message, as a consumer would collect them."""
        store = self.store
        ring = self.ring
        order, slot, octets = chain
        parts = []
        at_order, at_slot = order, slot
        while ring.next_record(at_order, at_slot):
            at_order = ring.at_order
            at_slot = ring.at_slot
            following = ring.slot_behind()
            if (at_order, at_slot) >= item.place:
                break
            if (
                ring.kind & store.TYPE == store.BODY
                and ring.chain_order == order
                and ring.chain_slot == slot
                and ring.is_pending(ring.sector, ring.slot)
            ):
                parts.append(((at_order, at_slot), _payload(ring)))
            at_slot = following
        if tuple(parts) != item.parts or sum([len(part[1]) for part in parts]) != octets:
            fail("I1 chain", item.place, [len(part[1]) for part in parts],
                 [len(part[1]) for part in item.parts], octets)  # fmt: skip

    def check_find(self, seen, noisy=False):
        """find() says the same for each queue as the visitor, *seen*."""
        if noisy:
            return
        ring = self.ring
        self.turn += 1
        for k in range(self.turn % 4, len(QUEUES), 4):
            queue = QUEUES[k]
            expected = [(place, share) for place, share, number in seen if number == queue]
            if self.find_all(queue) != expected:
                fail("I3 find", queue, expected, self.find_all(queue))
        for k in range(self.turn % 4, len(seen), 4):
            place = seen[k][0]
            if not ring.locate(place[0], place[1]):
                fail("I1 locate", place)

    def find_all(self, queue):
        ring = self.ring
        cursor = Cursor()
        found = []
        while True:
            share = ring.find(cursor, queue)
            if share < 0:
                return found
            found.append(((ring.at_order, ring.at_slot), share))
            ring.pass_by(cursor)

    def check_queue(self, queue):
        """find() in the middle of the work."""
        model = self.model
        found = self.find_all(queue)
        if found != sorted(found):
            fail("I3 find", queue, found)
        there = {}
        for place, share in found:
            there[(place, share)] = True
            item = model.items.get(place)
            if item is None or share not in model.left[place] or item.queues[share] != queue:
                fail("I4 find", place, share)
        for place in model.kept:
            item = model.items[place]
            if item.kind != "M" or place in model.lost:
                continue
            for share in model.left[place]:
                entry = (place, share)
                if item.queues[share] != queue or entry in there:
                    continue
                if entry not in model.acked and entry not in model.loose:
                    fail("I1 find", place, share)

    def recount(self):
        """The ring's counts of pending slots are right; all has to be committed."""
        ring = self.ring
        for sector in range(ring.sectors):
            if not ring.order[sector]:
                if ring.live[sector] not in (0, 0xFFFF):
                    fail("live", sector, ring.live[sector], "not in the log")
                continue
            slots = 0
            slot = ring.first
            end = ring.end_of(sector)
            while slot < end:
                if not ring.parse(sector, slot):
                    slot = ring.blank_end(slot)
                    continue
                if ring.is_needed():
                    slots += ring.used
                slot += ring.used
            # A mark that was refused halfway leaves the count too high until the next start.
            if slots != ring.live[sector] and not (self.worn and slots < ring.live[sector]):
                fail("live", sector, ring.live[sector], "not", slots)

    # --- operations ---

    def payload(self, n):
        self.serial += 1
        pick = self.chance.below(8)
        if pick == 0:
            return b"\xff" * n
        if pick == 1:
            return bytes(n)
        k = self.chance.bits(11)
        octets = _POOL[k : k + n]
        if n > 3:
            octets = self.serial.to_bytes(3, "big") + octets[3:]
        return octets

    def size(self):
        """Octets of a payload."""
        chance = self.chance
        pick = chance.below(32)
        if self.cold and pick < 8:
            return chance.below(min(self.ring.largest, 800))
        if pick < 5:
            return chance.below(4)
        if pick < 20:
            return chance.below(64)
        if pick < 28:
            return chance.below(160)
        if pick < 30:
            return max(0, self.ring.room() - chance.below(6))
        return chance.below(min(self.ring.largest, 1500))

    def append(self, kind, queues, payload, parts=(), flag=0):
        """Append a record: its place; None when there is no room."""
        store = self.store
        ring = self.ring
        if kind == "D":
            number = store.DEFINITION
        elif kind == "B":
            number = store.BODY
        else:
            number = store.MESSAGE | (store.CHAIN if parts else 0)
        if not ring.begin(number | flag, queues, len(queues), len(payload)):
            self.full += 1
            return None
        place = (ring.at_order, ring.at_slot)
        self.appended += 1
        if kind != "B":
            self.model.append(Item(place, kind, queues, payload, parts))
        i = 0
        while i < len(payload):
            n = min(1 + self.chance.below(2 * len(payload)), len(payload) - i)
            ring.put(payload, i, n)
            i += n
        ring.end()
        return place

    def commit(self):
        if self.ring.commit():
            self.committed += len(self.model.items) - len(self.model.kept)
            self.model.commit()
            return True
        if not self.worn:
            fail("I6", "commit")
        return False

    def mark(self):
        waiting = self.ring.acks
        done = self.ring.mark()
        if self.ring.refused != self.refused:
            self.refused = self.ring.refused
            self.model.loose.update(self.model.acked)
            self.model.acked = {}
        if done:
            if waiting:
                self.model.commit()  # which a mark does first
            return self.model.mark()
        if not self.worn:
            fail("I6", "mark")
        return []

    def mark_and_drop(self):
        for item in self.mark():
            if item.parts:
                self.drop(item)

    def ack(self, entry):
        place, share = entry
        self.model.acked[entry] = True
        self.ring.ack(place[0], place[1], share)
        item = self.model.items[place]
        if item.parts and self.chance.below(2):
            for k in self.model.left[place]:
                if (place, k) not in self.model.acked:
                    return
            # All shares are done, and so are the parts: perhaps in the same program.
            self.drop(item)

    def drop(self, item):
        first = item.parts[0][0]
        self.store.drop_chain(self.ring, first[0], first[1])

    def step(self):
        """One random operation."""
        chance = self.chance
        self.chip.left = _READS
        self.steps += 1
        pick = chance.below(105)
        if pick > 99:
            self.doing = "transaction"
            self.transact()
        elif pick < 38:
            self.doing = "append"
            self.append_message()
        elif pick < 46:
            self.doing = "chain"
            self.chain_step()
        elif pick < 48:
            self.doing = "definition"
            self.append("D", (0,), self.payload(chance.below(50)))
        elif pick < 61:
            self.doing = "commit"
            self.ring.make_room_ahead()  # as Durable.commit() has it
            self.commit()
        elif pick < 79:
            self.doing = "ack"
            self.ack_some()
        elif pick < 89:
            self.doing = "mark"
            self.mark_and_drop()
        elif pick < 92:
            self.doing = "tries"
            self.count_try()
        elif pick < 94:
            self.doing = "prepare"
            self.ring.prepare()
        elif pick < 96:
            self.doing = "find"
            self.check_queue(chance.choice(QUEUES))
        elif pick < 97:
            self.doing = "recount"
            if self.commit() and not self.noisy and not self.rots:
                self.recount()
        else:
            self.doing = "burst"
            for _ in range(4):
                self.append_message()
            self.commit()

    def append_message(self):
        chance = self.chance
        if chance.below(4):
            queues = (chance.choice(QUEUES),)
        else:
            start = chance.below(len(QUEUES))
            n = 2 + chance.below(3)
            queues = tuple([QUEUES[(start + k) % len(QUEUES)] for k in range(n)])
            if chance.below(30) == 0:
                queues = tuple(range(1000, 1000 + 5 + chance.below(25)))
        if self.append("M", queues, self.payload(self.size())) is None:
            self.make_space()

    def transaction(self, sizes, settled):
        """Append messages of these *sizes* and settle (place, share), together. False: no room."""
        store = self.store
        ring = self.ring
        model = self.model
        one = Transaction((), tuple(settled))
        model.transactions.append(one)
        for n in sizes:
            queues = (self.chance.choice(QUEUES),) if self.chance.below(3) else (1, 300, 2)
            place = self.append("M", queues, self.payload(n), (), store.PART)
            if place is None:
                self._take_back(one)
                return False
            model.items[place].late = True
            one.places += (place,)
        one.whole = True
        if not ring.begin(store.PART, None, 0, 8 + 8 * len(settled)):
            one.whole = False
            self._take_back(one)
            return False
        last = (ring.at_order, ring.at_slot)
        first = one.places[0] if one.places else last
        ring.put(struct.pack(">IHH", first[0], first[1], len(one.places)), 0, 8)
        for place, share in settled:
            ring.put(struct.pack(">IHH", place[0], place[1], share), 0, 8)
        ring.end()
        for place in one.places:
            ring.ack(place[0], place[1], store.COUNTS)
        for place, share in settled:
            model.acked[(place, share)] = True
            ring.ack(place[0], place[1], share)
        ring.ack(last[0], last[1], store.COMMIT)
        return True

    def _take_back(self, one):
        one.settled = ()
        for place in one.places:
            for share in range(len(self.model.items[place].queues)):
                self.ring.ack(place[0], place[1], share)
        self.mark_and_drop()
        if one in self.model.transactions:  # a mark takes all for committed
            self.model.transactions.remove(one)
        for place in one.places:
            if place in self.model.items:
                self.model.forget(place)

    def transact(self):
        chance = self.chance
        model = self.model
        entries = [
            entry for entry in model.pending()
            if entry[0] in model.kept and entry not in model.loose and chance.below(8) == 0
            and model.items[entry[0]].kind == "M" and not model.items[entry[0]].parts
        ]  # fmt: skip
        sizes = [self.size() for _ in range(chance.below(4 if entries else 5))]
        if not self.transaction(sizes, entries[:5]):
            self.make_space()
        elif self.rots:
            self.mark_and_drop()

    def chain_step(self):
        chance = self.chance
        if len(self.streams) < 3 and chance.below(3) == 0:
            self.streams.append([None, (), 0])
        if not self.streams:
            return
        stream = chance.choice(self.streams)
        first, parts, octets = stream
        ring = self.ring
        if parts and (len(parts) >= 6 or chance.below(3) == 0):
            self.streams.remove(stream)
            ring.chain_order, ring.chain_slot = first
            ring.chain_size = octets
            queues = (chance.choice(QUEUES),) if chance.below(3) else (1, 256, 2)
            place = self.append("M", queues, self.payload(chance.below(40)), parts)
        else:
            ring.chain_order, ring.chain_slot = first or (0, 0)
            ring.chain_size = 0
            n = ring.room() - 6 - chance.below(4) if chance.below(3) == 0 else chance.below(200)
            payload = self.payload(max(1, n))
            place = self.append("B", (0,), payload)
            if place is not None:
                stream[0] = first or place
                stream[1] = parts + ((place, payload),)
                stream[2] = octets + len(payload)
        if place is None:
            # As a broker does when the ring is full: the message is refused.
            if parts:
                self.store.drop_chain(ring, first[0], first[1])
            if stream in self.streams:
                self.streams.remove(stream)
            self.make_space()

    def ack_some(self):
        chance = self.chance
        model = self.model
        if self.cold:
            for entry in model.pending()[4:]:
                self.ack(entry)
            return
        entries = [
            entry
            for entry in model.pending()
            if chance.below(40) == 0
            or (
                model.items[entry[0]].kind == "M"
                and model.items[entry[0]].queues[entry[1]] not in _SLOW
            )
        ]
        for _ in range(1 + chance.below(4)):
            if not entries:
                return
            # The oldest, mostly.
            k = chance.below(len(entries)) if chance.below(3) == 0 else 0
            self.ack(entries.pop(k))

    def make_space(self):
        """What consumers do for a full ring, sooner or later."""
        chance = self.chance
        if chance.below(3):
            return
        part = 1 + chance.below(4)
        for entry in self.model.pending():
            if entry[0] in self.model.kept and chance.below(part) == 0:
                self.ack(entry)
        self.mark_and_drop()

    def count_try(self):
        model = self.model
        entries = [entry for entry in model.pending() if model.items[entry[0]].kind == "M"]
        if entries:
            place, share = self.chance.choice(entries)
            done, begun = model.tries.get((place, share), (0, 0))
            model.tries[(place, share)] = (done, min(8, begun + 1))
            self.ring.count_try(place[0], place[1], share)
            model.tries[(place, share)] = (min(8, done + 1), min(8, begun + 1))

    def prove(self):
        """I6: the ring takes, commits and keeps another message; then it is done with it."""
        self.doing = "prove"
        self.chip.left = _READS
        place = self.append("M", (1, 300), b"prove")
        if place is None:
            if self.worn:
                return
            for entry in self.model.pending():
                if entry[0] in self.model.kept:
                    self.ack(entry)
            self.mark_and_drop()
            self.mark()
            place = self.append("M", (1, 300), b"prove")
            if place is None and self.rots:
                return
            if place is None:
                fail("I6", "full of what was done with", list(self.ring.live))
        if self.commit() and self.chance.below(2):
            self.ack((place, 1))
            self.mark_and_drop()

    def count(self):
        """Add up what the ring counted since its start."""
        self.faults += self.ring.faults
        self.merges += self.ring.merges
        self.copies += self.ring.copies

    def drain(self):
        """Be done with everything: the whole ring has to be free then."""
        self.doing = "drain"
        self.chip.left = 4 * _READS
        ring = self.ring
        for stream in self.streams:
            if stream[0]:
                self.store.drop_chain(ring, stream[0][0], stream[0][1])
        self.streams = []
        self.commit()
        for entry in self.model.pending():
            self.ack(entry)
        self.mark_and_drop()
        model = self.model
        for place in list(model.items):
            # Shares that an earlier life was done with, unnoticed by the model in a noisy start.
            item = model.items[place]
            if item.parts and all((place, share) in model.unseen for share in model.left[place]):
                self.drop(item)
        self.mark()
        if not (self.worn or self.rots or self.noisy):
            if ring.free() != ring.sectors - (ring.tail >= 0):
                fail("I6", "not free when empty", list(ring.live))


def _show(error):
    import sys

    show = getattr(sys, "print_exception", None)
    if show is None:
        from traceback import print_exception

        print_exception(type(error), error, error.__traceback__)
    else:
        show(error)
