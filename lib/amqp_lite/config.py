"""The configuration: one JSON file for boards and gateways, checked and completed here.

A kind says what a value must be:

    (row, ...)   an object: a row (key, kind, default) per key
    [kind]       a list of such
    {"": kind}   an object whose keys are names
    {None: kind} null, or what the kind says
    "a b c"      one of these words
    range        a whole number in it
    function     called with (value, path); raises ConfigError unless it will do

An error is one line that begins with the path of the key, as in
`queues[2].durable: expected true or false, got "yes"`.
"""

from binascii import a2b_base64

from .broker.broker import MAX_TTL_MS
from .broker.exchange import PREDECLARED
from .checks import check_keys, check_number, show
from .compat import const
from .errors import ConfigError
from .limits import bridge_bill, check_heap, check_numbers

_REQUIRED = object()  # as default: the key has to be there
_ABSENT = object()  # as default: without the key the object goes without it

_NAME_OCTETS = const(255)  # AMQP 0-9-1 §4.2.5.3, a short string
_SHORT_OCTETS = const(100)  # with what is added, upstreams take no more than 128 as an id
_HASH_OCTETS = const(36)  # salt and SHA-256
_COUNT = const(0x40000000)  # what a small int of a board holds is below


def _text(value, path):
    if not isinstance(value, str):
        raise ConfigError("%s: expected a string, got %s" % (path, show(value)))
    try:
        octets = len(value.encode())
    except UnicodeError:
        raise ConfigError("%s: %s is no Unicode text" % (path, show(value)))
    if octets > _NAME_OCTETS:
        raise ConfigError("%s: %d octets, at most 255 are allowed" % (path, octets))
    for letter in "\0\r\n":
        if letter in value:
            raise ConfigError("%s: %s holds NUL, CR or LF" % (path, show(value)))


def _name(value, path):
    _text(value, path)
    if not value:
        raise ConfigError("%s: expected a name, got an empty string" % path)


def _short_name(value, path):
    """A name that becomes part of others."""
    _name(value, path)
    if len(value.encode()) > _SHORT_OCTETS:
        raise ConfigError("%s: more than %d octets" % (path, _SHORT_OCTETS))


def _host(value, path):
    _name(value, path)
    name, _, port = value.rpartition(":")
    bracketed = name.startswith("[") and name.endswith("]")
    if name and (":" not in name or bracketed):
        if not port or port.strip("0123456789") or not 0 < int(port) < 65536:
            raise ConfigError("%s: %s has no port from 1 to 65535" % (path, show(value)))
    odd = [c for c in value if ord(c) <= 32 or c in "/@"]
    if odd or value.startswith(":") and value.count(":") == 1:
        raise ConfigError('%s: expected "host" or "host:port", got %s' % (path, show(value)))


def _new_name(value, path):
    _name(value, path)
    if value.startswith("amq."):
        raise ConfigError('%s: %s begins with "amq.", which is reserved' % (path, show(value)))


def _boolean(value, path):
    if value is not True and value is not False:
        raise ConfigError("%s: expected true or false, got %s" % (path, show(value)))


def _headers(value, path):
    """What a binding asks of a message's headers."""
    check_keys(value, None, path)
    for name in value:
        _name(name, path)
        if isinstance(value[name], (list, dict, float)):
            raise ConfigError(
                "%s.%s: expected a string, whole number, true, false or null, got %s"
                % (path, name, show(value[name]))
            )
    _complete("all any all-with-x any-with-x", value.get("x-match", "all"), path + ".x-match")


def _password_hash(value, path):
    _text(value, path)
    try:
        octets = len(a2b_base64(value))
    except ValueError:
        octets = 0
    if octets != _HASH_OCTETS:
        raise ConfigError(
            "%s: expected what `config hash-password` prints, got %s" % (path, show(value))
        )


def _pattern(value, path):
    _text(value, path)
    if "*" in value[:-1]:
        raise ConfigError("%s: only the last letter may be *, got %s" % (path, show(value)))


def _profile(value, path):
    if isinstance(value, dict):
        check_numbers(value, path)
    elif value is not None:
        _name(value, path)


def _store(value, path):
    if value is not None:
        from .store.open import check_store  # late: most settings come without

        check_store(value, path)


def _template(value, path):
    from .bridge.template import Template  # late: most settings come without

    _text(value, path)
    try:
        Template(value, "")
    except ConfigError as error:
        raise ConfigError("%s: %s" % (path, error))


# The hash of "guest".
_GUEST = {
    "password_hash": "YW1xcNtq+YSZ3Gp9l3n9Hwu0AShQoKMVtCuQUm5bIAI4+TfE",
    "configure": ["*"],
    "write": ["*"],
    "read": ["*"],
}
_USER = (
    ("password_hash", _password_hash, _REQUIRED),
    ("configure", [_pattern], ()),
    ("write", [_pattern], ()),
    ("read", [_pattern], ()),
)
_LISTENER = (
    ("host", _name, "127.0.0.1"),
    ("port", range(65536), 5672),
)
_EXCHANGE = (
    ("name", _new_name, _REQUIRED),
    ("type", "direct fanout topic headers", _REQUIRED),
    ("durable", _boolean, True),
    ("auto_delete", _boolean, False),
    ("internal", _boolean, False),
    ("arguments", (("alternate-exchange", _name, _ABSENT),), {}),
)
_QUEUE_ARGUMENTS = (
    ("x-message-ttl", range(MAX_TTL_MS + 1), _ABSENT),
    ("x-expires", range(1, MAX_TTL_MS + 1), _ABSENT),
    ("x-max-length", range(_COUNT), _ABSENT),
    ("x-max-length-bytes", range(_COUNT), _ABSENT),
    ("x-overflow", "drop-head reject-publish", _ABSENT),
    ("x-queue-type", "classic", _ABSENT),
)
_QUEUE = (
    ("name", _new_name, _REQUIRED),
    ("durable", _boolean, True),
    ("auto_delete", _boolean, False),
    ("arguments", _QUEUE_ARGUMENTS, {}),
)
_BINDING = (
    ("source", _name, _REQUIRED),
    ("destination", _name, _REQUIRED),
    ("destination_type", "queue exchange", "queue"),
    ("routing_key", _text, ""),
    ("arguments", _headers, {}),
)
_TLS = (
    ("server_name", {None: _name}, None),
    ("ca", {None: _name}, None),
    ("pins", [_name], ()),
    ("cert", {None: _name}, None),
    ("key", {None: _name}, None),
    ("dangerously_accept_any_certificate", _boolean, False),
)
_UPLINK = (
    ("queue", _new_name, _REQUIRED),
    ("exchange", _template, "{exchange}"),
    ("routing_key", _template, "{routing_key}"),
    ("headers", {"": _template}, {}),
    ("declare", "passive none direct topic fanout headers classic quorum", "passive"),
    ("mandatory", _boolean, True),
    ("window", range(1, 65536), 64),  # messages
    ("live", range(91), 0),  # percent of the window
    ("priority", range(9), 0),
    ("retries", range(1000), 5),
    ("refused", "park dead-letter drop", "park"),
    ("dead_letter_exchange", _text, ""),
    ("dead_letter_routing_key", _text, ""),
    ("max_hops", range(1, 256), 3),
)
_UPSTREAM_BINDING = (
    ("exchange", _template, _REQUIRED),
    ("routing_key", _template, ""),
)
_DOWNLINK = (
    ("queue", _template, _REQUIRED),
    ("exchange", _template, "{exchange}"),
    ("routing_key", _template, "{routing_key}"),
    ("declare", "passive none classic quorum", "passive"),
    ("bindings", [_UPSTREAM_BINDING], ()),
    ("prefetch", range(1, 65536), 16),  # messages
)
_BRIDGE = (
    ("name", _short_name, _REQUIRED),
    ("hosts", [_host], _REQUIRED),
    ("vhost", _name, "/"),
    ("user", _name, "guest"),
    ("password", _text, "guest"),
    ("heartbeat", range(65536), 30),  # s
    ("tls", {None: _TLS}, None),
    ("timeout", range(1, 3601), 10),  # s
    ("confirm_timeout", range(1, 86401), 60),  # s
    ("retry_max", range(1, 86401), 300),  # s
    ("messages_per_s", range(_COUNT), 0),
    ("octets_per_s", range(_COUNT), 0),
    ("uplinks", [_UPLINK], ()),
    ("downlinks", [_DOWNLINK], ()),
)
_CONFIGURATION = (
    ("device", _short_name, "amqp-lite"),
    ("profile", _profile, "linux"),
    ("limits", check_numbers, {}),
    ("store", _store, None),
    ("vhost", _name, "/"),
    ("log_level", "debug info warning error", "info"),
    ("listeners", [_LISTENER], ({},)),
    ("users", {"": _USER}, {"guest": _GUEST}),
    ("exchanges", [_EXCHANGE], ()),
    ("queues", [_QUEUE], ()),
    ("bindings", [_BINDING], ()),
    ("bridges", [_BRIDGE], ()),
)


def load(settings=None):
    """A complete configuration made of *settings*: JSON text, a dict, None for the defaults.

    It is new, and loading it again changes nothing. Its `profile` is a name or None; its `limits`
    hold every number that the settings give. Raises ConfigError.
    """
    if settings is None:
        settings = {}
    elif not isinstance(settings, dict):
        settings = parse(settings)
    settings = _complete(_CONFIGURATION, settings, "")
    if isinstance(settings["profile"], dict):
        numbers = dict(settings["profile"])
        numbers.update(settings["limits"])
        settings["limits"] = numbers
        settings["profile"] = None
    _check_references(settings)
    for i, row in enumerate(settings["bridges"]):
        _check_bridge(row, settings["device"], "bridges[%d]" % i)
    return settings


def check_room(settings, profile):
    """Raises ConfigError when loaded *settings* declare more than a complete *profile* allows."""
    there = {"exchanges": len(PREDECLARED), "queues": 0, "bindings": 0}
    for row in settings["bridges"]:
        there["queues"] += len([1 for link in row["uplinks"] if link["refused"] == "park"])
        there["queues"] += bool(row["downlinks"])
    for key in ("exchanges", "queues", "bindings"):
        needed = len(settings[key]) + there[key]
        if needed > profile[key]:
            raise ConfigError("%s: %d, the profile has room for %d" % (key, needed, profile[key]))
    if len(settings["bridges"]) >= profile["connections"]:
        raise ConfigError(
            "bridges: %d, and no client could connect: the profile has room for %d connections"
            % (len(settings["bridges"]), profile["connections"])
        )
    check_heap(profile, bridge_bill(settings["bridges"]))


def parse(text):
    """What the JSON *text* says. Raises ConfigError when it is none."""
    import json  # late: settings may come as a dict

    try:
        return json.loads(text)
    except (ValueError, RuntimeError) as error:  # RuntimeError: nested too deep
        raise ConfigError("not JSON: %s" % error)


def _complete(kind, value, path):
    """*value*, which must be of this *kind*, with the defaults filled in; a copy."""
    if isinstance(kind, tuple):
        return _complete_object(kind, value, path)
    if isinstance(kind, list):
        if not isinstance(value, (list, tuple)):
            raise ConfigError("%s: expected a list, got %s" % (path, show(value)))
        return [_complete(kind[0], item, "%s[%d]" % (path, i)) for i, item in enumerate(value)]
    if isinstance(kind, dict):
        if None in kind:
            return None if value is None else _complete(kind[None], value, path)
        check_keys(value, None, path)
        for name in value:
            _name(name, path)
        return {name: _complete(kind[""], value[name], path + "." + name) for name in value}
    if isinstance(kind, str):
        words = kind.split()
        if value not in words:
            allowed = " or ".join(words)
            raise ConfigError("%s: expected %s, got %s" % (path, allowed, show(value)))
    elif isinstance(kind, range):
        check_number(value, kind[0], kind[-1], path)
    else:
        kind(value, path)
    return value


def _complete_object(rows, value, path):
    check_keys(value, [row[0] for row in rows], path)
    whole = {}
    for key, kind, default in rows:
        key_path = path + "." + key if path else key
        if key in value:
            whole[key] = _complete(kind, value[key], key_path)
        elif default is _REQUIRED:
            raise ConfigError("%s: missing" % key_path)
        elif default is not _ABSENT:
            whole[key] = _complete(kind, default, key_path)
    return whole


def _check_bridge(row, device, path):
    """Raises ConfigError for keys of a bridge that contradict each other."""
    if not row["hosts"]:
        raise ConfigError("%s.hosts: expected at least one" % path)
    if row["tls"] is not None and (row["tls"]["cert"] is None) != (row["tls"]["key"] is None):
        raise ConfigError("%s.tls: cert and key belong together" % path)
    for i, link in enumerate(row["uplinks"]):
        where = "%s.uplinks[%d]" % (path, i)
        key = link["routing_key"]
        for name in ("exchange", "routing_key"):
            _text(link[name].replace("{device}", device), where + "." + name)
        if link["refused"] == "park":
            _name(link["queue"] + ".parked", where + ".queue")
        if link["declare"] in ("direct", "topic", "fanout", "headers"):
            if not link["exchange"] or _varies(link["exchange"]):
                raise ConfigError("%s.declare: the exchange needs one name" % where)
        elif link["declare"] in ("classic", "quorum"):
            if link["exchange"] or not key or _varies(key):
                raise ConfigError(
                    '%s.declare: for a queue, exchange has to be "" and routing_key one name'
                    % where
                )
        for name in link["headers"]:
            if name.startswith("x-edge-"):
                raise ConfigError('%s.headers: "x-edge-..." is the bridge\'s own' % where)
        if link["refused"] == "dead-letter":
            if link["dead_letter_exchange"] in ("amq.headers", "amq.match"):
                raise ConfigError("%s.dead_letter_exchange: not one of headers" % where)
            own = link["dead_letter_routing_key"] == link["queue"]
            if own and not link["dead_letter_exchange"]:
                raise ConfigError("%s.dead_letter_routing_key: the uplink's own queue" % where)
            if not link["dead_letter_exchange"] and not link["dead_letter_routing_key"]:
                raise ConfigError("%s.dead_letter_routing_key: missing" % where)
    for i, link in enumerate(row["downlinks"]):
        where = "%s.downlinks[%d]" % (path, i)
        if _varies(link["queue"]):
            raise ConfigError("%s.queue: it needs one name" % where)
        _name(link["queue"].replace("{device}", device), where + ".queue")
        for k, binding in enumerate(link["bindings"]):
            for key in ("exchange", "routing_key"):
                _text(binding[key].replace("{device}", device), "%s.bindings[%d]" % (where, k))
                if _varies(binding[key]):
                    raise ConfigError("%s.bindings[%d].%s: it needs one name" % (where, k, key))
    for key in ("uplinks", "downlinks"):
        names = [link["queue"] for link in row[key]]
        for i, name in enumerate(names):
            if name in names[:i]:
                where = "%s.%s[%d]" % (path, key, i)
                raise ConfigError("%s.queue: %s is there twice" % (where, show(name)))


def _varies(template):
    return "{exchange}" in template or "{routing_key}" in template


def _check_references(settings):
    """Raises ConfigError for a name that is there twice or, in a binding, not at all."""
    names = {"exchange": [str(name, "utf-8") for name, _ in PREDECLARED if name], "queue": []}
    for key, known in (("exchanges", names["exchange"]), ("queues", names["queue"])):
        for i, row in enumerate(settings[key]):
            if row["name"] in known:
                raise ConfigError("%s[%d].name: %s is there twice" % (key, i, show(row["name"])))
            known.append(row["name"])
    bridges = []
    for i, row in enumerate(settings["bridges"]):
        for other in bridges:
            # Or what comes back would not tell whose it is.
            if (row["name"] + ".").startswith(other + ".") or other.startswith(row["name"] + "."):
                raise ConfigError(
                    "bridges[%d].name: %s is there twice, or part of another one"
                    % (i, show(row["name"]))
                )
        bridges.append(row["name"])
    for i, row in enumerate(settings["bindings"]):
        for key, kind in (("source", "exchange"), ("destination", row["destination_type"])):
            if row[key] not in names[kind]:
                raise ConfigError("bindings[%d].%s: no %s %s" % (i, key, kind, show(row[key])))
