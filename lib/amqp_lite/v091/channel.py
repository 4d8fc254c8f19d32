"""One AMQP 0-9-1 channel: publishes in, deliveries out, and the methods of the model's classes.

publish, header and body arrive as one message, see content.py. ack, nack and reject find their
delivery in `unacked`, oldest first.
"""

import struct

from ..access import READ, WRITE
from ..broker.broker import REPLY_TO
from ..broker.delivery import EntryList
from ..broker.message import AMQP10
from ..broker.queue import text
from ..compat import const, copy, equal, load, u16
from ..errors import (
    AccessRefused,
    CommandInvalid,
    NotAllowed,
    NotFound,
    NotImplementedHere,
    PreconditionFailed,
    ResourceLimitExceeded,
    SyntaxFailure,
)
from .codec import check_text, shortstr
from .content import GROWTH, ContentReader
from .topology import Topology

# Frame types, class and method ids: see methods.py.
_METHOD = const(1)
_FRAME_END = const(0xCE)
_CHANNEL_FLOW_OK = const(0x00140015)
_CHANNEL_CLOSE_OK = const(0x00140029)
_BASIC_QOS_OK = const(0x003C000B)
_BASIC_CONSUME_OK = const(0x003C0015)
_BASIC_CANCEL = const(0x003C001E)
_BASIC_CANCEL_OK = const(0x003C001F)
_BASIC_PUBLISH = const(0x003C0028)
_BASIC_DELIVER = const(0x003C003C)
_BASIC_GET_OK = const(0x003C0047)
_BASIC_GET_EMPTY = const(0x003C0048)
_BASIC_RECOVER_OK = const(0x003C006F)
_BASIC_NACK = const(0x003C0078)
_CONFIRM_SELECT_OK = const(0x0055000B)
_TX_SELECT_OK = const(0x005A000B)
_TX_COMMIT = const(0x005A0014)
_TX_COMMIT_OK = const(0x005A0015)
_TX_ROLLBACK_OK = const(0x005A001F)

# Of a delivery, besides consumer tag, head, properties and body: three frames' head and end,
# class, method, delivery tag, redelivered; class, weight, body size.
_DELIVERY_OCTETS = const(50)
# Outcomes in a transaction, see broker/transaction.py.
_ACCEPTED = const(0)
_REJECTED = const(1)
_REQUEUED = const(3)
_MANDATORY = const(1)
_IMMEDIATE = const(2)


class Channel(ContentReader, Topology):
    def __init__(self):
        self.next = None  # in the table of free ones
        self.unacked = EntryList()
        self.consumers = []
        self._clear(None, 0)

    def _clear(self, connection, number):
        self.connection = connection
        self.number = number
        self.closing = False  # we sent channel.close: everything but close-ok is ignored
        self.active = True  # channel.flow
        self.prefetch = 0  # of the whole channel, basic.qos with global
        self._consumer_prefetch = 0  # of consumers to come
        self._delivery_tag = 0
        self._tags = 0  # for consumer tags we make
        self._confirming = False
        self.published = 0  # publishes to confirm so far, and
        self.accepted = 0  # the last of them that no queue refused, and
        self.lost = 0  # the last one the store lost when it failed, and
        self.confirmed = 0  # the last one we confirmed or refused
        self.transaction = None
        self._committing = False  # commit-ok waits for the store
        self._forget_content()
        self._mandatory = False
        self._write_ok = None  # name of the exchange this user may publish to, asked last
        self._reply_queue = None
        self._declared = b""  # the queue declared last

    def open(self, connection, number):
        self._clear(connection, number)

    def release(self):
        """Give back all it holds: consumers, unacknowledged messages, the half message."""
        self._abandon()
        self.drop_consumers()
        if self.transaction is not None:
            self.transaction.rollback()
        queues = []
        while self.unacked.tail is not None:
            entry = self.unacked.tail
            self.unacked.remove(entry)
            self.connection.output.prove(entry)
            queue = entry.queue
            queue.requeue(entry)
            if queue not in queues:
                queues.append(queue)
        for queue in queues:
            if not queue.deleted:
                queue.dispatch()

    def drop_consumers(self):
        for consumer in list(self.consumers):
            self._drop_consumer(consumer)

    # --- publish ---

    def on_publish(self, buf, i, end):
        """basic.publish in buf[i:end]. False: no memory for it now."""
        i += 2
        if i >= end:
            raise SyntaxFailure("arguments are shorter than the method needs")
        key = i + 1 + buf[i]
        stop = key + 1 + buf[key] if key < end else end
        if stop + 1 != end:
            raise SyntaxFailure("arguments do not fill basic.publish")
        bits = buf[stop]
        n = stop - i
        connection = self.connection
        broker = connection.broker
        output = connection.output
        if (output.later or output.returns) and output.is_behind():
            return False
        if bits & _IMMEDIATE:
            raise NotImplementedHere("immediate=true")
        try:
            route = broker.route(buf, i, n)
        except (NotFound, UnicodeError):
            check_text(buf, i + 1, key)
            raise
        exchange = route.exchange
        if exchange.name is not self._write_ok:
            if exchange.internal:
                raise AccessRefused(
                    "cannot publish to internal exchange '%s'" % text(exchange.name)
                )
            connection.user_may(WRITE, exchange.name, "exchange")
            self._write_ok = exchange.name
        if not self._begin(buf, i, n, route):
            connection.short_of_memory()
            return False
        self._mandatory = bits & _MANDATORY != 0
        return True

    def on_header(self, buf, i, end):
        """The content header in buf[i:end]. False: no memory for the message now."""
        if self._read_header(buf, i, end):
            return True
        self.connection.short_of_memory()
        return False

    def _check_properties(self, buf):
        i = self.connection.properties.user_id
        name = self.connection.user.name
        if i >= 0 and (buf[i] != len(name) or not equal(buf, i + 1, name, len(name))):
            raise PreconditionFailed(
                "user_id property set to another name than the authenticated user '%s'"
                % text(name)
            )

    def _new_reply_to(self, buf, i):
        if buf[i] != len(REPLY_TO) or not equal(buf, i + 1, REPLY_TO, len(REPLY_TO)):
            return None
        if self._reply_queue is None:
            raise PreconditionFailed("fast reply consumer does not exist")
        return shortstr(self._reply_queue.name)

    def _received(self):
        """The message is whole: route it."""
        connection = self.connection
        broker = connection.broker
        if self.transaction is not None:
            try:
                self.transaction.publish(self._take(), self._mandatory)
            except ResourceLimitExceeded as error:
                self.connection.on_error(error, self.number, _BASIC_PUBLISH)
            return
        message = self.message
        queues = self._publish()
        if not queues and self._mandatory and message.chain is not None:
            queues = -1  # its queues went while its body came, which is not here to be returned
        if self._confirming:
            self.published += 1
            if queues < 0:
                self._nack(self.published)
            else:
                self.accepted = self.published
                connection.unconfirmed = True
        if not queues and self._mandatory:
            connection.output.add_return(self.number, message)
        else:
            broker.pool.release(message)

    def _nack(self, sequence):
        """One of the queues refused it. The ack of later ones, `multiple`, passes over it."""
        frame = struct.pack(
            ">BHIIQBB", _METHOD, self.number, 13, _BASIC_NACK, sequence, 0, _FRAME_END
        )
        self.connection.output.put(self.number, frame)

    # --- deliver: this channel as the sink of its consumers ---

    def accepts(self, consumer, message):
        if not self.active or (self.prefetch and self.held() >= self.prefetch):
            return False
        size = self._octets(message) + len(consumer.prefix) + _DELIVERY_OCTETS
        return self.connection.output.fits(size)

    def _octets(self, message):
        """How many octets *message* is at most, as it goes out."""
        size = message.size
        if message.chain is not None:
            size += message.body
        if message.flags & AMQP10:
            size += GROWTH * message.properties
        return size

    def held(self):
        """How many deliveries the peer has, with those settled in a transaction."""
        if self.transaction is None:
            return self.unacked.count
        return self.unacked.count + self.transaction.entries.count

    def deliver(self, consumer, entry):
        output = self.connection.output
        self._delivery_tag = tag = self._delivery_tag + 1
        prefix = consumer.prefix
        message = entry.message
        out = output.buffer
        at = output.pending
        n = len(prefix)
        head = message.head
        copy(out, at, prefix, 0, n)
        struct.pack_into(">I", out, at + 3, n + 2 + head)
        at += n
        struct.pack_into(">QB", out, at, tag, entry.tries > 0)
        at += 9
        broker = self.connection.broker
        block = broker.pool.read(message.first, 0, head, out, at)
        output.send_content(self.number, message, at + head, block)
        broker.metrics.delivered += 1
        if consumer.no_ack:
            entry.queue.settle(entry)
        else:
            entry.tag = tag
            self.unacked.append(entry)
            output.mark(entry)

    def cancelled(self, consumer):
        """The queue is gone; the broker takes the consumer off it."""
        self._detach(consumer)
        if self.connection.can_cancel:
            self._reply(_BASIC_CANCEL, consumer.tag, True)

    def _detach(self, consumer):
        self.consumers.remove(consumer)
        if consumer.queue is self._reply_queue:
            self._reply_queue = None  # it goes with its consumer
        entry = self.unacked.head
        while entry is not None:
            if entry.consumer is consumer:
                entry.consumer = None
            entry = entry.next
        if self.transaction is not None:
            self.transaction.forget_consumer(consumer)

    def _drop_consumer(self, consumer):
        self._detach(consumer)
        consumer.queue.unsubscribe(consumer)

    # --- ack, nack, reject, recover ---

    def on_ack(self, buf, i, end, method):
        """basic.ack or basic.nack in buf[i:end]."""
        if end - i != 9:
            raise SyntaxFailure("basic.ack takes 9 octets of arguments, not %d" % (end - i))
        tag = u16(buf, i + 4) << 16 | u16(buf, i + 6)
        if buf[i] | buf[i + 1] | buf[i + 2] | buf[i + 3]:
            tag |= (u16(buf, i) << 16 | u16(buf, i + 2)) << 32
        bits = buf[i + 8]
        requeue = method == _BASIC_NACK and bits & 2 != 0
        if bits & 1:
            self._settle_upto(tag, requeue, method == _BASIC_NACK)
        else:
            self._settle_one(tag, requeue, method == _BASIC_NACK)

    def on_basic_reject(self, tag, requeue):
        self._settle_one(tag, requeue, True)

    def _settle_one(self, tag, requeue, rejected):
        entry = self.unacked.tail
        if entry is None or entry.tag != tag:
            entry = self.unacked.head
            while entry is not None and entry.tag != tag:
                entry = entry.next
            if entry is None:
                raise PreconditionFailed("unknown delivery tag %d" % tag)
        queue = entry.queue
        self._settle(entry, requeue, rejected)
        self._go_on(queue)

    def _settle_upto(self, tag, requeue, rejected):
        """Settle all up to *tag*; 0 means all there are."""
        last = self.unacked.tail
        if tag:
            while last is not None and last.tag != tag:
                last = last.prev
            if last is None:
                raise PreconditionFailed("unknown delivery tag %d" % tag)
        queue = None
        queues = []  # dispatched when all are back, or the last would be first
        while last is not None:
            entry = self.unacked.head
            # From the last to the first, so that requeued ones find their place at the head.
            if requeue:
                entry = last
                last = entry.prev
            elif entry is last:
                last = None
            if queue is not None and queue is not entry.queue:
                if not requeue:
                    self._go_on(queue)
                elif queue not in queues:
                    queues.append(queue)
            queue = entry.queue
            self._settle(entry, requeue, rejected)
        for other in queues:
            self._go_on(other)
        if queue is not None:
            self._go_on(queue)

    def _settle(self, entry, requeue, rejected):
        self.unacked.remove(entry)
        self.connection.output.prove(entry)
        if self.transaction is not None:
            outcome = _REQUEUED if requeue else _REJECTED if rejected else _ACCEPTED
            self.transaction.settle(entry, outcome, self)
            return
        queue = entry.queue
        metrics = self.connection.broker.metrics
        if requeue:
            queue.requeue(entry)
            return
        if rejected:
            metrics.dropped_rejected += 1
        else:
            metrics.acknowledged += 1
        queue.settle(entry)

    def _go_on(self, queue):
        """Prefetch room or messages became free: deliver more."""
        if self.prefetch:
            for consumer in self.consumers:
                consumer.queue.dispatch()
        if not queue.deleted:
            queue.dispatch()

    def on_basic_recover(self, requeue):
        self.on_basic_recover_async(requeue)
        self._reply(_BASIC_RECOVER_OK)

    def on_basic_recover_async(self, requeue):
        if not requeue:
            raise NotImplementedHere("basic.recover with requeue=false")
        # RabbitMQ's does not wait for a commit, either.
        transaction = self.transaction
        self.transaction = None
        self._settle_upto(0, True, True)
        self.transaction = transaction

    # --- the channel and confirm classes ---

    def on_channel_flow(self, active):
        self.active = active
        self._reply(_CHANNEL_FLOW_OK, active)
        if active:
            for consumer in self.consumers:
                consumer.queue.dispatch()

    def on_channel_flow_ok(self, active):
        raise CommandInvalid("channel.flow-ok without a flow")

    def on_channel_close(self, code, reason, class_id, method_id):
        # When both closed at once the peer still owes us its close-ok, but not all peers send it.
        self.connection.forget_channel(self.number)
        self._reply(_CHANNEL_CLOSE_OK)

    def on_channel_close_ok(self):
        if not self.closing:
            raise CommandInvalid("channel.close-ok without a close")
        self.connection.forget_channel(self.number)

    def on_confirm_select(self, nowait):
        if self.transaction is not None:
            raise PreconditionFailed("cannot switch from tx to confirm mode")
        self._confirming = True
        if not nowait:
            self._reply(_CONFIRM_SELECT_OK)

    # --- the tx class; False: the last commit is not safe yet ---

    def on_tx_select(self):
        if self._committing:
            return False
        if self._confirming:
            raise PreconditionFailed("cannot switch from confirm to tx mode")
        if self.transaction is None:
            # Late: who has no transactions shall not pay for them.
            transaction = load("amqp_lite.broker.transaction")
            self.transaction = transaction.Transaction(self.connection.broker, self._return)
        self._reply(_TX_SELECT_OK)
        return True

    def on_tx_commit(self):
        if self._committing:
            return False
        self._check_tx()
        self.transaction.commit()
        self._committing = True
        self.connection.unconfirmed = True
        if self.prefetch:
            for consumer in self.consumers:
                consumer.queue.dispatch()
        return True

    def on_tx_rollback(self):
        if self._committing:
            return False
        self._check_tx()
        self.transaction.rollback()
        self._reply(_TX_ROLLBACK_OK)
        return True

    def _check_tx(self):
        if self.transaction is None:
            raise PreconditionFailed("channel is not transactional")

    def _return(self, message):
        self.connection.output.add_return(self.number, message)

    def give_back(self, entry, settled):
        """*entry* was settled in a transaction that was rolled back: the peer has it again."""
        load("amqp_lite.broker.transaction").insert_by_tag(self.unacked, entry)

    def confirm_commit(self):
        """Say that the last commit is safe, if one waits for that. False: not now."""
        if self._committing and not self.closing:
            if not self.connection.output.takes_reply(self.number):
                return False
            self._reply(_TX_COMMIT_OK)
        self._committing = False
        return True

    def lose_commit(self):
        """The store failed: the last commit that was not safe yet may be lost."""
        if self._committing:
            self._committing = False
            error = PreconditionFailed("the store failed")
            self.connection.on_error(error, self.number, _TX_COMMIT)

    def _reply(self, method, *arguments):
        self.connection.output.reply(self.number, method, arguments)

    # --- basic ---

    def on_basic_qos(self, size, count, whole_channel):
        if size:
            raise NotImplementedHere("prefetch_size != 0 (%d)" % size)
        if whole_channel:
            self.prefetch = count
        else:
            self._consumer_prefetch = count
        self._reply(_BASIC_QOS_OK)
        for consumer in self.consumers:
            consumer.queue.dispatch()

    def on_basic_consume(self, _, name, tag, no_local, no_ack, exclusive, nowait, arguments):
        connection = self.connection
        for consumer in self.consumers:
            if tag and consumer.tag == tag:
                raise NotAllowed("attempt to reuse consumer tag '%s'" % text(tag))
        if not tag:
            self._tags += 1
            tag = b"amq.ctag-%d.%d" % (self.number, self._tags)
        if name == REPLY_TO:
            if not no_ack:
                raise PreconditionFailed("reply consumer cannot acknowledge")
            if self._reply_queue is not None:
                raise PreconditionFailed("reply consumer already set")
            queue = self._reply_queue = connection.broker.reply_queue()
            exclusive = True
        else:
            queue = self._queue(name)
            self._may(READ, queue.name, "queue")
        consumer = queue.subscribe(self, tag, no_ack, exclusive, self._consumer_prefetch)
        consumer.prefix = struct.pack(">BHII", _METHOD, self.number, 0, _BASIC_DELIVER) + shortstr(
            tag
        )
        self.consumers.append(consumer)
        if not nowait:
            self._reply(_BASIC_CONSUME_OK, tag)
        queue.dispatch()

    def on_basic_cancel(self, tag, nowait):
        for consumer in self.consumers:
            if consumer.tag == tag:
                self._drop_consumer(consumer)
                break
        if not nowait:
            self._reply(_BASIC_CANCEL_OK, tag)

    def on_basic_cancel_ok(self, tag):
        pass  # the answer to our notification

    def on_basic_get(self, _, name, no_ack):
        """False: no room for the message in the output now."""
        queue = self._queue(name)
        self._may(READ, queue.name, "queue")
        queue.used_at = self.connection.broker.now
        entry = queue.first()
        if entry is None:
            if queue.waiting():
                self.connection.short_of_memory()
                return False
            self._reply(_BASIC_GET_EMPTY, b"")
            return True
        output = self.connection.output
        if not output.fits(self._octets(entry.message) + _DELIVERY_OCTETS):
            return False
        queue.take(entry, None)
        self._delivery_tag += 1
        message = entry.message
        head = message.head
        out = output.buffer
        at = output.pending
        struct.pack_into(
            ">BHIIQB", out, at, _METHOD, self.number, 17 + head, _BASIC_GET_OK,
            self._delivery_tag, entry.tries > 0,
        )  # fmt: skip
        at += 20
        broker = self.connection.broker
        block = broker.pool.read(message.first, 0, head, out, at)
        at += head
        struct.pack_into(">I", out, at, queue.waiting())
        output.send_content(self.number, message, at + 4, block)
        broker.metrics.delivered += 1
        if no_ack:
            queue.settle(entry)
        else:
            entry.tag = self._delivery_tag
            self.unacked.append(entry)
            output.mark(entry)
        return True
