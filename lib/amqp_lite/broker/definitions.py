"""The definitions of durable queues, exchanges and bindings, kept in the ring.

The payload of a DEFINITION record; names are short strings, arguments encoded by the protocol:

    "Q"  number u16, flags u8 (1 = auto-delete), name, arguments
    "X"  kind u8, flags u8 (1 = auto-delete, 2 = internal), name, arguments
    "B"  flags u8 (1 = to an exchange), source, destination, routing key, arguments
    "C"  the clock u32, see durable.py
    "I"  what tells this ring from others, u32
"""

import struct

from ..compat import u16, u32
from ..errors import AMQPError, NotFound, ResourceLimitExceeded
from ..log import log
from ..store.records import DEFINITION


class Definitions:
    """The half of Durable that keeps what exists; messages are the other."""

    number = 0  # what tells this ring from others, once somebody asked

    # --- at start ---

    def definition(self, ring):
        n = ring.size
        if n > len(self._scratch):
            log.warning("store: a definition of %d octets does not fit", n)
            return
        buf = self._scratch
        ring.read(0, buf, 0, n)
        try:
            self._define(buf, ring)
        except NotFound as error:
            if self._late is None:
                log.warning("store: a definition is of no use: %s", error.text)
            else:
                self._late.append((ring.at_order, ring.at_slot))
        except AMQPError as error:
            log.warning("store: a definition does not fit: %s", error.text)
            if buf[0] == 0x51:
                self._orphans.setdefault(u16(buf, 1), [0, 0])  # its number is not free

    def _define(self, buf, ring):
        broker = self._broker
        kind = buf[0]
        if kind == 0x43:  # C
            self._set_clock(u32(buf, 1))
            if self._clock_order:
                self._stale.append((self._clock_order, self._clock_slot))
            self._clock_order = ring.at_order
            self._clock_slot = ring.at_slot
            return
        if kind == 0x49:  # I
            self.number = u16(buf, 1) << 16 | u16(buf, 3)
            return
        if kind == 0x51:  # Q
            name, i = _name(buf, 4)
            found = self._define_queue(name, u16(buf, 1), buf[3], self._read_table(buf, i)[0])
        elif kind == 0x58:  # X
            name, i = _name(buf, 3)
            found = broker.restore_exchange(
                name, buf[1], buf[2] & 1 != 0, buf[2] & 2 != 0, self._read_table(buf, i)[0]
            )
        else:
            source, i = _name(buf, 2)
            destination, i = _name(buf, i)
            key, i = _name(buf, i)
            find = broker.exchange if buf[1] & 1 else broker.queue
            found = broker.restore_binding(
                broker.exchange(source), find(destination), key, self._read_table(buf, i)[0]
            )
        found.defined_order = ring.at_order
        found.defined_slot = ring.at_slot

    def _define_queue(self, name, number, flags, arguments):
        broker = self._broker
        queue = broker.queues.get(name)
        if queue is not None:
            # The power went before the one it replaces was removed.
            self._stale.append((queue.defined_order, queue.defined_slot))
            queue.auto_delete = flags & 1 != 0
            queue.configure(arguments)
            return queue
        queue = broker.restore_queue(name, number, flags & 1 != 0, arguments)
        queue.backlog, queue.octets = self._orphans.pop(number, (0, 0))
        return queue

    # --- later ---

    def define_number(self, number):
        """Store what tells this ring from others. False: there is no room."""
        stored = self._append_definition(struct.pack(">BI", 0x49, number))
        if stored:
            self.number = number
        return stored

    def define_queue(self, queue):
        """Store the definition of *queue*, with a number of its own. Raises as _store() does."""
        number = 0
        while number in self._orphans or self._broker.numbered(number) is not None:
            number += 1
        queue.number = number
        try:
            self.redefine_queue(queue)
        except ResourceLimitExceeded:
            queue.number = -1
            raise

    def redefine_queue(self, queue):
        head = struct.pack(">BHB", 0x51, queue.number, queue.auto_delete)
        self._store(queue, head + _short(queue.name) + self._write_table(queue.arguments))

    def define_exchange(self, exchange):
        flags = exchange.auto_delete | exchange.internal << 1
        head = struct.pack(">BBB", 0x58, exchange.kind, flags)
        self._store(exchange, head + _short(exchange.name) + self._write_table(exchange.arguments))

    def define_binding(self, binding):
        names = _short(binding.source.name) + _short(binding.destination.name)
        head = struct.pack(">BB", 0x42, binding.to_exchange)
        table = self._write_table(binding.arguments)
        self._store(binding, head + names + _short(binding.key) + table)

    def _store(self, item, octets):
        """Store a definition, for good. Raises ResourceLimitExceeded when it cannot be."""
        if len(octets) > min(self.ring.largest, len(self._scratch)) or not self._append_definition(
            octets
        ):
            raise ResourceLimitExceeded("the store has no room for another definition")
        place = self.order, self.slot
        self.forget(item)
        item.defined_order, item.defined_slot = place

    def _append_definition(self, octets):
        ring = self.ring
        if not ring.begin(DEFINITION, None, 0, len(octets)):
            return False
        self.order = ring.at_order
        self.slot = ring.at_slot
        ring.put(octets, 0, len(octets))
        ring.end()
        return ring.commit()

    def forget(self, item):
        """Remove the definition of *item*, if it has one."""
        if item.defined_order:
            self.ring.ack(item.defined_order, item.defined_slot, 0)
            self.ring.mark()
            self.ring.sync()
            item.defined_order = 0


def _short(octets):
    return bytes((len(octets),)) + octets


def _name(buf, i):
    """The short string at *i* and the index behind it."""
    end = i + 1 + buf[i]
    return bytes(buf[i + 1 : end]), end
