"""The node /management: what RabbitMQ's AMQP 1.0 clients declare, bind and delete with.

HTTP over AMQP as RabbitMQ 4 speaks it: the request's subject is a method, its `to` a path, its
body a map in an amqp-value section; the answer's subject is a status, its body a map or, for an
error, a text. Names in a path are percent-encoded.

    | PUT, GET, DELETE /queues/:q    | the queue's map; of DELETE {message_count}          |
    | DELETE /queues/:q/messages     | purge it: {message_count}                           |
    | PUT, DELETE /exchanges/:e      |                                                     |
    | POST /bindings                 | {source, destination_queue or destination_exchange, |
    |                                |  binding_key, arguments}                            |
    | GET /bindings?src=&dstq=&key=  | a list of such maps, each with its `location`;      |
    |                                | dste= for an exchange                               |
    | DELETE :location               | /bindings/src=:e;dstq=:q;key=:key;args=:hash        |
    | PUT /auth/tokens               | 501: users log in with passwords                    |

An exchange or queue that a binding needs and is not there is a 400, as in RabbitMQ.
"""

from binascii import b2a_base64

from ..access import CONFIGURE, READ, WRITE
from ..compat import crc32
from ..errors import (
    AccessRefused,
    AMQPError,
    NotFound,
    NotImplementedHere,
    SyntaxFailure,
)
from ..v091.codec import check_text, shortstr, write_table
from ..v091.topology import (
    declare_exchange,
    declare_queue,
    delete_exchange,
    delete_queue,
    find_ends,
    find_queue,
    purge_queue,
)
from .address import decode, encode
from .node import answer_to
from .values import Symbol, Typed

# By reply codes; of all others 400.
_STATUS = {403: "403", 404: "404", 406: "409", 506: "500", 540: "501"}


class Management:
    def __init__(self, link):
        self._connection = link.connection

    def answer(self, request):
        """The answer to the Request, whatever it is."""
        try:
            return _answer(request, *self._act_on(request))
        except AMQPError as error:
            return _answer(request, _STATUS.get(error.code, "400"), error.text)

    def _act_on(self, request):
        """(status, body). Raises AMQPError."""
        method = request.subject
        path, _, query = (request.to or "").partition("?")
        if not path.startswith("/"):
            raise SyntaxFailure("'%s' is no path" % path)
        parts = path.split("/")
        kind = parts[1]
        name = _name(parts[2], path) if len(parts) > 2 and kind != "bindings" else None
        if kind == "queues" and len(parts) == 3:
            if method == "PUT":
                return self._put_queue(name, request.body)
            if method == "GET":
                return "200", self._queue_map(self._readable(name))
            if method == "DELETE":
                return _count(delete_queue(self._connection, name, False, False))
        elif kind == "queues" and len(parts) == 4 and parts[3] == "messages":
            if method == "DELETE":
                return _count(purge_queue(self._connection, name))
        elif kind == "exchanges" and len(parts) == 3:
            if method == "PUT":
                return self._put_exchange(name, request.body)
            if method == "DELETE":
                delete_exchange(self._connection, name, False)
                return "204", None
        elif kind == "bindings" and len(parts) == 2:
            if method == "POST":
                return self._post_binding(request.body)
            if method == "GET":
                return self._get_bindings(query)
        elif kind == "bindings" and len(parts) == 3:
            if method == "DELETE":
                return self._delete_binding(parts[2])
        elif path == "/auth/tokens":
            raise NotImplementedHere("tokens: users log in with their passwords")
        raise NotFound("nothing is there for %s '%s'" % (method, path))

    # --- queues and exchanges ---

    def _put_queue(self, name, body):
        row = _row(
            body, "queue property",
            {"durable": True, "exclusive": False, "auto_delete": False, "arguments": {}},
        )  # fmt: skip
        if not name:
            raise SyntaxFailure("declare queue with empty name not allowed")
        connection = self._connection
        status = "200" if name in connection.broker.queues else "201"
        queue = declare_queue(
            connection, name, row["durable"], row["exclusive"], row["auto_delete"],
            _table(row["arguments"]),
        )  # fmt: skip
        return status, self._queue_map(queue)

    def _readable(self, name):
        """The queue of that name, for a user who may do anything with it."""
        user = self._connection.user
        if not user.may(CONFIGURE, name) and not user.may(WRITE, name):
            user.demand(READ, name, "queue")
        return find_queue(self._connection, name)

    def _queue_map(self, queue):
        here = self._connection.container
        return {
            "message_count": Typed(0x80, queue.waiting()),
            "consumer_count": Typed(0x70, len(queue.consumers)),
            "name": _said(queue.name),
            "vhost": "/",
            "durable": queue.durable,
            "auto_delete": queue.auto_delete,
            "exclusive": queue.owner is not None,
            "type": "classic",
            "arguments": _said(queue.arguments),
            "leader": here,
            "replicas": Typed(0xE0, [here], b"\xa1"),
        }

    def _put_exchange(self, name, body):
        row = _row(
            body, "exchange property",
            {
                "durable": True, "auto_delete": False, "type": "direct", "internal": False,
                "arguments": {},
            },
        )  # fmt: skip
        if not name:
            raise AccessRefused("operation not permitted on the default exchange")
        declare_exchange(
            self._connection, name, row["type"].encode(), row["durable"], row["auto_delete"],
            row["internal"], _table(row["arguments"]),
        )  # fmt: skip
        return "204", None

    # --- bindings ---

    def _ends(self, source, destination, to_exchange):
        """(source, destination) by their names, as find_ends(). Raises SyntaxFailure, too."""
        if not source or (to_exchange and not destination):
            raise AccessRefused("operation not permitted on the default exchange")
        try:
            return find_ends(self._connection, source, destination, to_exchange)
        except NotFound as error:
            raise SyntaxFailure(error.text)

    def _post_binding(self, body):
        row = _row(
            body, "binding field",
            {
                "source": "", "destination_queue": "", "destination_exchange": "",
                "binding_key": "", "arguments": {},
            },
        )  # fmt: skip
        to_exchange = "destination_exchange" in body
        if to_exchange == ("destination_queue" in body):
            raise SyntaxFailure("a binding has one destination, a queue or an exchange")
        source, destination = self._ends(
            _checked(row["source"].encode()),
            _checked((row["destination_exchange"] or row["destination_queue"]).encode()),
            to_exchange,
        )
        key = _checked(row["binding_key"].encode())
        self._connection.broker.bind(source, destination, key, _table(row["arguments"]))
        return "204", None

    def _get_bindings(self, query):
        found = {}
        for pair in query.split("&"):
            name, _, value = pair.partition("=")
            found[name] = _name(value.replace("+", " "), query)
        to_exchange = "dste" in found
        if "src" not in found or "key" not in found or to_exchange == ("dstq" in found):
            raise SyntaxFailure("src, key, and dstq or dste have to be in '?%s'" % query)
        end = found["dste" if to_exchange else "dstq"]
        source, destination = self._ends(found["src"], end, to_exchange)
        key = found["key"]
        return "200", [
            {
                "source": _said(source.name),
                "destination_exchange" if to_exchange else "destination_queue": _said(end),
                "binding_key": _said(key),
                "arguments": _said(binding.arguments),
                "location": "/bindings/src=%s;dst%s=%s;key=%s;args=%s" % (
                    encode(source.name), "e" if to_exchange else "q", encode(end), encode(key),
                    _hash(binding.arguments),
                ),
            }
            for binding in _between(source, destination, key)
        ]  # fmt: skip

    def _delete_binding(self, segment):
        parts = [part.partition("=") for part in segment.split(";")]
        names = [part[0] for part in parts]
        to_exchange = "dste" in names
        if names != ["src", "dste" if to_exchange else "dstq", "key", "args"]:
            raise SyntaxFailure("bad binding path segment '%s'" % segment)
        values = [part[2] for part in parts]
        source, destination, key = [_name(value, segment) for value in values[:3]]
        try:
            source, destination = self._ends(source, destination, to_exchange)
        except SyntaxFailure:
            return "204", None  # there is none, whatever misses
        for binding in _between(source, destination, key):
            if _hash(binding.arguments) == values[3]:
                self._connection.broker.unbind(source, destination, key, binding.arguments)
                break
        return "204", None


def _answer(request, status, body):
    return answer_to(request, status, {"http:response": "1.1"}, body)


def _between(source, destination, key):
    return [
        binding
        for binding in source.bindings
        if binding.destination is destination and binding.key == key
    ]


def _hash(arguments):
    """What tells bindings apart that differ in their *arguments* only: "" for none."""
    if not arguments:
        return ""
    crc = bytearray(4)
    for row in sorted([write_table({key: arguments[key]}) for key in arguments]):
        crc32(crc, row, 0, len(row))
    letters = str(b2a_base64(crc), "utf-8").rstrip("=\n")
    return letters.replace("+", "-").replace("/", "_")


def _count(messages):
    return "200", {"message_count": Typed(0x80, messages)}


# --- names and values ---


def _name(part, path):
    """The octets of a percent-encoded name in *path*. Raises InvalidField, SyntaxFailure."""
    return _checked(decode(part, path))


def _checked(name):
    shortstr(name)  # 255 octets at most
    check_text(name, 0, len(name))
    return name


def _row(body, what, row):
    """*row*, the values that count where none is given, with those of *body*.

    Raises SyntaxFailure for one that is not there or of another type.
    """
    if not isinstance(body, dict):
        raise SyntaxFailure("a map was due in the body")
    for key in body:
        if key not in row or not isinstance(body[key], type(row[key])):
            raise SyntaxFailure("bad %s '%s'" % (what, key))
        row[key] = body[key]
    return row


def _table(arguments):
    """*arguments* as the model has them: text is octets. Raises SyntaxFailure."""
    table = {}
    for key in arguments:
        name = _value(key)
        if not isinstance(name, bytes):
            raise SyntaxFailure("an argument whose name is no text")
        table[_checked(name)] = _value(arguments[key])
    return table


def _value(value):
    if isinstance(value, Symbol):
        value = value.text
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict):
        return _table(value)
    if isinstance(value, list):
        return [_value(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, bytes)):
        return value
    raise SyntaxFailure("an argument that is a described value")


def _said(value):
    """A value of the model as write_value() takes it."""
    if isinstance(value, bytes):
        try:
            return str(value, "utf-8")
        except UnicodeError:
            return value
    if isinstance(value, dict):
        return {_said(key): _said(value[key]) for key in value}
    if isinstance(value, list):
        return [_said(item) for item in value]
    # Clients compare what they sent with what they get, and mostly send an int.
    if isinstance(value, int) and not isinstance(value, bool) and -1 << 31 <= value < 1 << 31:
        return Typed(0x71, value)
    return value
