"""Random work of AMQP 1.0 peers, in and out of transactions: each message is where it has to be.

ROUNDS and SEED in the environment: see rounds.py. A round's steps are all allowed ones; peers
leave in the middle of anything.
"""

import gc
import random

import sessions10
import wire10
from amqp_lite.broker.transaction import ledger_of
from amqp_lite.compat import MICROPYTHON
from amqp_lite.v10 import performatives as performative
from amqp_lite.v10.performatives import ACCEPTED, DECLARED, MODIFIED, REJECTED, RELEASED
from clients10 import ask, names, session, take
from ramflash import RamFlash
from rounds import play_rounds
from sessions10 import SELECTOR, acquire, filters, order, retire, state
from stored import drain
from wire10 import message, transfer
from world import World

CONTROL = 15
QUEUES = ("q", "r")  # the second one is transient
GONE = (ACCEPTED, REJECTED)


class Work:
    def __init__(self, txn_id):
        self.txn_id = txn_id
        self.posted = []  # (queue, body)
        self.retired = []  # [queue, body, outcome, handle, delivery-id ...]
        self.failed = False


class Member:
    """A peer, and what it knows."""

    def __init__(self, model):
        self.model = model
        self.peer = session(model.world)
        self.number = 0  # delivery-id of its next transfer
        self.links = {}  # handle -> Link
        self.held = {}  # delivery-id -> [queue, body, handle, work that acquired it]
        self.works = []
        found = self.ask(sessions10.coordinator(CONTROL))
        assert names(found) == ["attach", "flow"], found

    def ask(self, octets):
        """Send; what came but for deliveries, which are noted."""
        found = ask(self.peer, octets)
        self.note(found)
        return found

    def note(self, found):
        for name, _, fields, *payload in found:
            assert name not in ("end", "close"), found
            if name != "transfer":
                continue
            link = self.links[fields[0]]
            if fields[1] is not None:
                link.id = fields[1]
                link.settled = fields[4]
                link.octets = b""
                work = fields[7].value[0] if len(fields) > 7 else None
                assert work == link.work, (work, link.work)
            link.octets += payload[0] if payload else b""
            if len(fields) > 5 and fields[5]:
                continue
            link.got += 1
            body = link.octets[link.octets.rindex(b"<") :]
            assert body in self.model.waits[link.queue], (body, "twice")
            self.model.waits[link.queue].remove(body)
            if link.settled and link.work is not None:
                (work,) = [work for work in self.works if work.txn_id == link.work]
                work.retired.append([link.queue, body, ACCEPTED, None, link.id, True, None])
            if not link.settled:
                self.held[link.id] = [link.queue, body, fields[0], link.work]


class Link:
    def __init__(self, queue, settled):
        self.queue = queue
        self.settled = settled
        self.got = 0
        self.work = None


class Model:
    def __init__(self, world):
        self.world = world
        self.waits = {name: [] for name in QUEUES}
        self.serial = 0
        self.members = []

    def take(self):
        for member in self.members:
            member.note(take(member.peer))

    # --- steps ---

    def join(self):
        if len(self.members) < 3:
            self.members.append(Member(self))
            self.take()

    def leave(self, member):
        self.members.remove(member)
        self._ended(member)
        if random.getrandbits(1):
            member.peer.send(random.choice((wire10.end(), wire10.close())))
        member.peer.vanish()

    def _ended(self, member):
        for work in member.works:
            self._undone(work)
        for queue, body, _, _ in member.held.values():
            self.waits[queue].append(body)
        member.held.clear()

    def _undone(self, work):
        for queue, body, *_ in work.retired:
            self.waits[queue].append(body)

    def attach(self, member):
        handle = random.randrange(4)
        if handle in member.links or handle == 0:
            return
        link = Link(random.choice(QUEUES), False)
        member.links[handle] = link
        settle = random.choice((None, None, 1))
        given = {}
        if random.randrange(3) == 0:
            given["filter"] = filters(SELECTOR, random.choice(("k = 1", "k = 0 OR k = 1")))
        found = member.ask(
            wire10.attach_receiver(
                "down%d" % handle, "/queues/" + link.queue, handle, settle=settle, **given
            )
        )
        assert names(found) == ["attach"], found

    def detach(self, member):
        if not member.links:
            return
        handle = random.choice(sorted(member.links))
        # What comes until the answer is back in the queue then.
        for work in member.works:
            for row in work.retired:
                if row[3] == handle:
                    row[3] = None
        for tag in list(member.held):
            queue, body, of, _ = member.held[tag]
            if of == handle:
                self.waits[queue].append(body)
                del member.held[tag]
        member.ask(wire10.detach(handle))
        del member.links[handle]

    def credit(self, member):
        if not member.links:
            return
        handle = random.choice(sorted(member.links))
        link = member.links[handle]
        n = random.choice((0, 1, 1, 2, 5))
        work = random.choice(member.works) if member.works and random.getrandbits(1) else None
        if work is None:
            link.work = None
            drain = random.choice((None, True))
            octets = wire10.credit(handle, n, link.got, drain=drain)
        else:
            link.work = work.txn_id
            octets = acquire(work.txn_id, handle, n, link.got)
        for row in member.ask(octets):
            if row[0] == "flow" and row[2][4] == handle and len(row[2]) > 8 and row[2][8]:
                link.got = row[2][5]

    def publish(self, member):
        name = random.choice(QUEUES)
        broker = self.world.broker
        if broker.pool.available < 60 or broker.store.ring.free() < 6:
            return  # a longer one might have to wait, or find the store full
        self.serial += 1
        size = random.choice((0, 0, 0, 900, 3000))
        body = b"<%d" % self.serial
        payload = message(
            bytes(size) + body, durable=name == "q", to="/queues/" + name,
            headers={"k": random.randrange(2)},
        )  # fmt: skip
        if 0 not in member.links and not hasattr(member, "sends"):
            member.sends = True
            member.ask(wire10.attach_sender("up", None, 14))
        work = random.choice(member.works) if member.works and random.getrandbits(1) else None
        number = member.number
        member.number += 1
        # Its receivers may have it before the answer; or, when the transaction fails by this, what
        # that gives back.
        backs = [row for row in work.retired if row[5] or row[3] is None] if work else []
        for row in backs:
            self.waits[row[0]].append(row[1])
        if work is None:
            self.waits[name].append(body)
        found = member.ask(transfer(payload, number, 14, state=work and state(work.txn_id)))
        outcome = self._outcome(found, number)
        if work is not None:
            assert outcome.descriptor == performative.TRANSACTIONAL_STATE, found
            if outcome.value[1].descriptor == ACCEPTED:
                work.posted.append((name, body))
                for row in backs:
                    self.waits[row[0]].remove(row[1])
            else:
                work.retired = [row for row in work.retired if row not in backs]
                self._failed(member, work)
        elif outcome.descriptor != ACCEPTED:
            self.waits[name].remove(body)

    def _failed(self, member, work):
        work.posted = []
        work.failed = True
        while work.retired:
            queue, body, _, handle, tag, back, acquired = work.retired.pop()
            if back or handle is None:
                self.waits[queue].append(body)
            else:
                member.held[tag] = [queue, body, handle, acquired]

    def _outcome(self, found, number):
        rows = [
            row[2][4] for row in found
            if row[0] == "disposition" and row[2][0] and row[2][1] <= number
            and (row[2][2] if row[2][2] is not None else row[2][1]) >= number
        ]  # fmt: skip
        assert len(rows) == 1, (number, found)
        return rows[0]

    def settle(self, member):
        if not member.held:
            return
        tag = random.choice(sorted(member.held))
        queue, body, handle, acquired = member.held.pop(tag)
        outcome = random.choice((ACCEPTED, ACCEPTED, ACCEPTED, REJECTED, RELEASED, MODIFIED))
        settled = random.choice((True, True, False))
        work = random.choice(member.works) if member.works and random.getrandbits(1) else None
        for each in member.works:
            if each.txn_id == acquired and work is None:
                work = each  # whatever the disposition says
        if work is None:
            if outcome not in GONE:
                self.waits[queue].append(body)
            member.ask(wire10.disposition(tag, None, outcome, settled))
            return
        back = settled or acquired == work.txn_id  # to the queue, after a rollback
        row = [queue, body, outcome, handle, tag, back, acquired]
        most = ledger_of(self.world.broker).operations
        work.retired.append(row)
        if work.failed or len(work.retired) + len(work.posted) > most:
            self._failed(member, work)
        member.ask(retire(work.txn_id, tag, outcome, settled))

    def declare(self, member):
        number = member.number
        if len(member.works) > 1:
            return
        member.number += 1
        found = member.ask(transfer(order(performative.DECLARE), number, CONTROL))
        outcome = self._outcome(found, number)
        if outcome.descriptor == DECLARED:
            member.works.append(Work(outcome.value[0]))

    def discharge(self, member):
        if not member.works:
            return
        work = random.choice(member.works)
        member.works.remove(work)
        fail = random.choice((None, None, True))
        number = member.number
        member.number += 1
        acquired = [tag for tag in member.held if member.held[tag][3] == work.txn_id]
        for link in member.links.values():
            if link.work == work.txn_id:
                link.work = None
        done = not fail and not work.failed
        # What may come before the answer.
        if done:
            for name, body in work.posted:
                self.waits[name].append(body)
            for queue, body, outcome, *_ in work.retired:
                if outcome not in GONE:
                    self.waits[queue].append(body)
        else:
            for tag in acquired:
                queue, body, _, _ = member.held.pop(tag)
                self.waits[queue].append(body)
            self._failed(member, work)
        found = member.ask(
            transfer(order(performative.DISCHARGE, work.txn_id, fail), number, CONTROL)
        )
        outcome = self._outcome(found, number)
        assert (outcome.descriptor == ACCEPTED) == (done or fail is True), found

    def step(self):
        if not self.members or random.randrange(12) == 0:
            self.join()
            return
        member = random.choice(self.members)
        step = random.choice(
            (self.attach, self.attach, self.credit, self.credit, self.credit, self.publish,
             self.publish, self.publish, self.settle, self.settle, self.settle, self.declare,
             self.discharge, self.detach)
        )  # fmt: skip
        if random.randrange(40) == 0:
            step = self.leave
        step(member)
        self.take()

    def check(self):
        for name in QUEUES:
            found = self.world.broker.queue(name.encode()).waiting()
            assert found == len(self.waits[name]), (name, found, self.waits[name])


def play():
    world = World(flash=RamFlash(20 if MICROPYTHON else 48, 1024, 64))
    other = world.client()
    for name in QUEUES:
        other.queue(name, durable=int(name == "q"))
    free = world.free()
    model = Model(world)
    for _ in range(random.choice((30, 100))):
        model.step()
        model.check()
    if random.randrange(3) == 0:
        for member in model.members:
            model._ended(member)
        world.broker.store.ring.mark()
        world = world.restart()
        other = world.client()
        other.queue("r")
        model.waits["r"].clear()
        free = None
    while model.members and free:
        model.leave(model.members[0])
        model.take()
    for name in QUEUES:
        found = [body[body.rindex(b"<") :] for body in drain(other, name)]
        assert sorted(found) == sorted(model.waits[name]), (name, found, model.waits[name])
    world.wait(3000)
    if free is not None:
        assert world.free() == free, (world.free(), free)


def test_random_work():
    def one(_):
        gc.collect()
        play()

    play_rounds(5 if MICROPYTHON else 60, one)
