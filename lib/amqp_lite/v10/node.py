"""Nodes of the protocol itself: a peer sends requests to one, and receives answers from it.

Such a node has two links with a peer, attached in either order: Requests, which the peer sends
on, and Answers. A request is a whole message of few octets, kept in memory until it is whole; a
handler makes the answer of it at once. Answers wait in memory for credit, for the session's
window and for room in the output.

Imported when the first such link is attached.
"""

from ..compat import const, copy, load
from ..errors import (
    AMQPError,
    ContentTooLarge,
    PreconditionFailed,
    ResourceLimitExceeded,
    SyntaxFailure,
)
from .codec import check_value, skip_value
from .incoming import Incoming
from .outgoing import Outgoing
from .performatives import (
    ACCEPTED,
    PROPERTIES,
    REJECTED,
    SOURCE,
    TARGET,
    TRANSFER,
    described,
    described_value,
    error_value,
    uint,
)
from .sections import VALUE, section_at, section_value
from .values import Described, Typed, read_value, write_value

_MOST = const(16)  # answers that wait on one link
_PAIRED = const(64)  # octets of properties that are sent back
_HEAD = const(40)  # octets of a transfer of ours besides its payload, at most
_ALL_SETTLED = const(1)  # snd-settle-mode, AMQP 1.0 §2.8.2

_APPLICATION_PROPERTIES = const(0x74)
# Fields of attach:
_SND_SETTLE, _SOURCE, _TARGET, _PROPERTIES = const(3), const(5), const(6), const(13)
_MESSAGE_ID, _TO, _SUBJECT, _REPLY_TO = const(0), const(2), const(3), const(4)  # of properties


def node_for(address):
    """What makes the handler of the node with this *address*; None: there is no such node.

    It is called with the link, a Requests, and makes an object that has

        answer(request)   octets of the answer to a Request, see answer_to(); None: there is none

    An AMQPError that this raises is the outcome of the request.
    """
    if address == "/management":
        return load("amqp_lite.v10.management").Management
    return None


def take_over(link, fields, address):
    """Attach a link of the node with this *address* in place of *link*. False: there is none."""
    make = node_for(address)
    if make is None:
        return False
    one = Answers(link, address) if link.to_peer else Requests(link, address, make)
    one.attach(fields)
    link.session.links[link.handle] = one
    return True


def answer_to(request, subject, properties, body):
    """The octets of a message that answers *request*.

    properties  the application-properties, a dict
    body        of an amqp-value section, as write_value() takes it
    """
    return b"".join((
        described(PROPERTIES, None, None, None, subject, None, request.message_id),
        write_value(Described(Typed(0x53, _APPLICATION_PROPERTIES), properties)),
        write_value(Described(Typed(0x53, VALUE), body)),
    ))  # fmt: skip


class Request:
    """
    message_id             Typed, for the answer's correlation-id; None: it has none
    to, subject, reply_to  str or None
    properties             its application-properties, a dict
    body                   of an amqp-value section, see read_value(); None for other bodies
    """

    def __init__(self, octets, fields):
        """Read the *octets* with the Fields *fields*. Raises SyntaxFailure and InvalidField.

        Their sections may have any order, and the body may miss: RabbitMQ's Python client has
        its empty one in front.
        """
        self.message_id = self.to = self.subject = self.reply_to = self.body = None
        self.properties = {}
        n = len(octets)
        i = 0
        while i < n:
            code = section_at(octets, i, n)
            if not code:
                raise SyntaxFailure("the message ends within a section")
            at = section_value(octets, i)
            if code == PROPERTIES:
                i = fields.scan(octets, i, n)
                if fields.has(_MESSAGE_ID):
                    self.message_id = read_value(octets, fields.at[_MESSAGE_ID], True)[0]
                self.to = fields.text(_TO)
                self.subject = fields.text(_SUBJECT)
                self.reply_to = fields.text(_REPLY_TO)
                continue
            i = check_value(octets, at, n)
            if code == VALUE:
                self.body = read_value(octets, at)[0]
            elif code == _APPLICATION_PROPERTIES:
                self.properties = read_value(octets, at)[0]
                if not isinstance(self.properties, dict):
                    raise SyntaxFailure("application-properties that are no map")


def _answer_attach(link, fields, count, most=None):
    # Some peers take an answer without a source or a target for a refusal.
    link._answer(
        fields,
        link._echo(fields, _SOURCE, SOURCE) or described_value(SOURCE),
        link._echo(fields, _TARGET, TARGET) or described_value(TARGET),
        count, most, _properties(fields),
    )  # fmt: skip


def _properties(fields):
    """Those of the attach, `paired` or so; None when they are more than that."""
    at = fields.at[_PROPERTIES]
    if at < 0 or skip_value(fields.buf, at) - at > _PAIRED:
        return None
    return read_value(fields.buf, at, True)[0]


class Requests(Incoming):
    """The peer sends requests."""

    def __init__(self, link, address, make):
        Incoming.__init__(self, link.session, link.handle, link.name)
        self.node = address
        self.count = link.count
        self.count_top = link.count_top
        self._most = self.connection.broker.properties_most
        self._filled = 0  # octets of `message`
        self._handler = make and make(self)

    def attach(self, fields):
        _answer_attach(self, fields, None, self._most)
        self._grant()

    def _room(self):
        # Its messages take nothing of the pool.
        return 0 if self.session.is_behind() else self.connection.credit

    # --- a request as it comes, a bytearray in `message` ---

    def _begin_message(self, fields, buf, i, end, more):
        self.message = bytearray()
        self._filled = 0
        self._go_on(buf, i, end, more)
        return True

    def _go_on(self, buf, i, end, more):
        size = self._filled + end - i + more
        if size > self._most:
            self.message = None
            self._refused = ContentTooLarge("a request of more than %d octets" % self._most)
            return True
        self.message.extend(bytearray(size - self._filled))
        self.on_payload(buf, i, end - i)
        return True

    def on_payload(self, buf, i, n):
        if self.message is not None:
            self.progress = self.connection.broker.now
            copy(self.message, self._filled, buf, i, n)
            self._filled += n

    def _abandon(self):
        self.message = None

    def _publish(self):
        """Answer the whole request: the octets of its outcome."""
        octets = self.message
        self.message = None
        if self._refused is None:
            try:
                self._act_on(octets)
            except AMQPError as error:
                self._refused = error
            except MemoryError:
                self._refused = ResourceLimitExceeded("out of memory")
        if self._refused is None:
            return described(ACCEPTED)
        return described(REJECTED, error_value(self._refused))

    def _tells_errors(self):
        return True  # who sends it waits for an answer

    def _act_on(self, octets):
        request = Request(octets, self.connection.terminus)
        answers = self._pair(request.reply_to)
        answers.demand_room()
        answer = self._handler.answer(request)
        if answer is not None:
            answers.add(answer)

    def _pair(self, reply_to):
        """The link of this node on which the peer wants the answer. Raises PreconditionFailed.

        reply_to  "$me": the one of our name; None or the node's address: any; else its name
        """
        name = self.name if reply_to == "$me" else reply_to
        anyone = name is None or name == self.node
        connection = self.connection
        for session in [self.session] + list(connection.sessions.values()):
            for handle in session.links:
                link = session.links[handle]
                if link.to_peer and link.node == self.node and not link.closing:
                    if anyone or link.name == name:
                        return link
        raise PreconditionFailed("no link to send the answer on")


class Answers(Outgoing):
    """The peer receives answers."""

    def __init__(self, link, address):
        Outgoing.__init__(self, link.session, link.handle, link.name)
        self.node = address
        self._answers = []  # octets, the oldest first
        self._sent = 0  # octets of it
        self._settled = False

    def attach(self, fields):
        self._settled = fields.uint(_SND_SETTLE, _ALL_SETTLED) == _ALL_SETTLED
        _answer_attach(self, fields, uint(0))

    def demand_room(self):
        """Raises ResourceLimitExceeded when no more answers may wait."""
        if len(self._answers) >= _MOST:
            raise ResourceLimitExceeded("%d answers wait for link credit" % _MOST)

    def add(self, octets):
        """*octets* of an answer go out when they may."""
        self._answers.append(octets)

    def _waiting(self):
        return len(self._answers)

    def pump(self):
        """Send what may be sent; then as Outgoing does."""
        output = self.connection.output
        while self._answers and (self._sent or self.credit):
            if not self.session.may_send() or not output.takes_reply():
                break
            self._send_some(output)
        Outgoing.pump(self)

    def _send_some(self, output):
        """One transfer of the oldest answer."""
        session = self.session
        answer = self._answers[0]
        first = not self._sent
        room = min(output.frame_max, output.size - output.pending) - _HEAD
        stop = min(len(answer), self._sent + room)
        number = tag = None
        if first:
            number = Typed(0x70, session.next_id_top << 30 | session.next_id)
            tag = write_value(number)[1:]
        more = stop < len(answer)
        head = described(TRANSFER, uint(self.handle), number, tag, uint(0), self._settled, more)
        session.send(head + answer[self._sent : stop])
        session.sent()
        if first:
            self.credit -= 1
            self._count = self._count + 1 & 0x3FFFFFFF
            session.delivered()
        self._sent = stop
        if not more:
            self._answers.pop(0)
            self._sent = 0

    def release(self):
        self._answers.clear()
