"""The rows of `bridges` in a configuration: what they may be, and what they cost a board."""

from ..checks import (
    REQUIRED,
    check_boolean,
    check_name,
    check_new_name,
    check_short_name,
    check_text,
    complete,
    show,
)
from ..compat import const
from ..errors import ConfigError
from .template import Template

_COUNT = const(0x40000000)  # what a small int of a board holds is below
# Octets of heap that the modules of a bridge keep, loaded from .mpy files, and those of TLS.
BRIDGE_CODE = 37500
TLS_CODE = 9100
# Of them byte code and texts, and what a firmware with the code inside leaves, as in limits.py.
BRIDGE_BYTE_CODE = 19000
TLS_BYTE_CODE = 5400
BRIDGE_FROZEN_CODE = 8200
TLS_FROZEN_CODE = 1300
# Octets of a bridge, of each link, and of a TLS connection with its context, on a Pico W.
_BRIDGE_OCTETS = const(2200)
_UPLINK_OCTETS = const(1500)
_DOWNLINK_OCTETS = const(1700)
_TLS_OCTETS = const(27000)
_REPLIES = {"window": 16}  # the uplink of answers to what comes down


def _host(value, path):
    check_name(value, path)
    name, _, port = value.rpartition(":")
    bracketed = name.startswith("[") and name.endswith("]")
    if name and (":" not in name or bracketed):
        if not port or port.strip("0123456789") or not 0 < int(port) < 65536:
            raise ConfigError("%s: %s has no port from 1 to 65535" % (path, show(value)))
    odd = [c for c in value if ord(c) <= 32 or c in "/@"]
    if odd or value.startswith(":") and value.count(":") == 1:
        raise ConfigError('%s: expected "host" or "host:port", got %s' % (path, show(value)))


def _template(value, path):
    check_text(value, path)
    try:
        Template(value, "")
    except ConfigError as error:
        raise ConfigError("%s: %s" % (path, error))


_TLS = (
    ("server_name", {None: check_name}, None),
    ("ca", {None: check_name}, None),
    ("pins", [check_name], ()),
    ("cert", {None: check_name}, None),
    ("key", {None: check_name}, None),
    ("dangerously_accept_any_certificate", check_boolean, False),
)
_UPLINK = (
    ("queue", check_new_name, REQUIRED),
    ("exchange", _template, "{exchange}"),
    ("routing_key", _template, "{routing_key}"),
    ("headers", {"": _template}, {}),
    ("declare", "passive none direct topic fanout headers classic quorum", "passive"),
    ("mandatory", check_boolean, True),
    ("window", range(1, 65536), 64),  # messages
    ("live", range(91), 0),  # percent of the window
    ("priority", range(9), 0),
    ("retries", range(1000), 5),
    ("refused", "park dead-letter drop", "park"),
    ("dead_letter_exchange", check_text, ""),
    ("dead_letter_routing_key", check_text, ""),
    ("max_hops", range(1, 256), 3),
)
_UPSTREAM_BINDING = (
    ("exchange", _template, REQUIRED),
    ("routing_key", _template, ""),
)
_DOWNLINK = (
    ("queue", _template, REQUIRED),
    ("exchange", _template, "{exchange}"),
    ("routing_key", _template, "{routing_key}"),
    ("declare", "passive none classic quorum", "passive"),
    ("bindings", [_UPSTREAM_BINDING], ()),
    ("prefetch", range(1, 65536), 16),  # messages
)
_BRIDGE = (
    ("name", check_short_name, REQUIRED),
    ("hosts", [_host], REQUIRED),
    ("vhost", check_name, "/"),
    ("user", check_name, "guest"),
    ("password", check_text, "guest"),
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


def complete_bridges(bridges, device):
    """The list *bridges* of a configuration, checked and completed. Raises ConfigError."""
    bridges = complete([_BRIDGE], bridges, "bridges")
    names = []
    for i, row in enumerate(bridges):
        for other in names:
            # Or what comes back would not tell whose it is.
            if (row["name"] + ".").startswith(other + ".") or other.startswith(row["name"] + "."):
                raise ConfigError(
                    "bridges[%d].name: %s is there twice, or part of another one"
                    % (i, show(row["name"]))
                )
        names.append(row["name"])
        _check_bridge(row, device, "bridges[%d]" % i)
    return bridges


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
            check_text(link[name].replace("{device}", device), where + "." + name)
        if link["refused"] == "park":
            check_name(link["queue"] + ".parked", where + ".queue")
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
            known = link["headers"][name].replace("{device}", device)
            check_text(known, "%s.headers.%s" % (where, name))
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
        check_name(link["queue"].replace("{device}", device), where + ".queue")
        for k, binding in enumerate(link["bindings"]):
            for key in ("exchange", "routing_key"):
                check_text(
                    binding[key].replace("{device}", device), "%s.bindings[%d]" % (where, k)
                )
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


def queues_needed(bridges):
    """Queues that completed *bridges* make here: for what is parked, for answers."""
    parked = [1 for row in bridges for link in row["uplinks"] if link["refused"] == "park"]
    return len(parked) + len([row for row in bridges if row["downlinks"]])


def bill(bridges, in_flash=0):
    """What the rows *bridges* of a configuration cost besides, on a board: as bill().

    in_flash  where its code is, as code_in_flash of a profile

    A bridge has the buffers of one of the connections.
    """
    links = [link for row in bridges for link in row["uplinks"]]
    links += [_REPLIES for row in bridges if row["downlinks"]]
    down = sum([len(row["downlinks"]) for row in bridges])
    secure = len([row for row in bridges if row["tls"]])
    flights = sum([link["window"] + max(1, link["window"] // 2) for link in links])
    code = (BRIDGE_CODE, BRIDGE_CODE - BRIDGE_BYTE_CODE, BRIDGE_FROZEN_CODE)[in_flash]
    tls_code = (TLS_CODE, TLS_CODE - TLS_BYTE_CODE, TLS_FROZEN_CODE)[in_flash]
    rows = (
        ("bridge code", len(bridges) > 0, code),
        ("TLS code", secure > 0, tls_code),
        ("bridges", len(bridges), _BRIDGE_OCTETS),
        ("TLS", secure, _TLS_OCTETS),
        ("uplinks", len(links), _UPLINK_OCTETS),
        ("downlinks", down, _DOWNLINK_OCTETS),
        ("in flight", flights, 80),
    )
    return [(what, int(many), each, many * each) for what, many, each in rows if many]
