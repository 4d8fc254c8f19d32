"""The configuration: one JSON file for boards and gateways, checked and completed here.

An error is one line that begins with the path of the key, as in
`queues[2].durable: expected true or false, got "yes"`.
"""

from binascii import a2b_base64

from .broker.exchange import PREDECLARED
from .broker.message import MAX_TTL_MS
from .checks import (
    ABSENT,
    REQUIRED,
    check_boolean,
    check_keys,
    check_name,
    check_new_name,
    check_number,
    check_short_name,
    check_text,
    complete,
    show,
)
from .compat import const
from .errors import ConfigError
from .limits import check_heap, check_numbers

_HASH_OCTETS = const(36)  # salt and SHA-256
_COUNT = const(0x40000000)  # what a small int of a board holds is below
_SSID_OCTETS = const(32)  # IEEE 802.11
_HOSTNAME_LETTERS = const(32)  # MicroPython takes no more
_SHORTEST_WATCHDOG = const(15)  # seconds: looking up one name may block a board for 10


def _headers(value, path):
    """What a binding asks of a message's headers."""
    check_keys(value, None, path)
    for name in value:
        check_name(name, path)
        if isinstance(value[name], (list, dict, float)):
            raise ConfigError(
                "%s.%s: expected a string, whole number, true, false or null, got %s"
                % (path, name, show(value[name]))
            )
    complete("all any all-with-x any-with-x", value.get("x-match", "all"), path + ".x-match")


def _password_hash(value, path):
    check_text(value, path)
    try:
        octets = len(a2b_base64(value))
    except ValueError:
        octets = 0
    if octets != _HASH_OCTETS:
        raise ConfigError(
            "%s: expected what `config hash-password` prints, got %s" % (path, show(value))
        )


def _pattern(value, path):
    check_text(value, path)
    if "*" in value[:-1]:
        raise ConfigError("%s: only the last letter may be *, got %s" % (path, show(value)))


def _profile(value, path):
    if isinstance(value, dict):
        check_numbers(value, path)
    elif value is not None:
        check_name(value, path)


def _store(value, path):
    if value is not None:
        from .store.open import check_store  # late: most settings come without

        check_store(value, path)


def _ssid(value, path):
    check_name(value, path)
    if len(value.encode()) > _SSID_OCTETS:
        raise ConfigError("%s: more than %d octets" % (path, _SSID_OCTETS))


def _wifi_password(value, path):
    check_text(value, path)
    if value and not 8 <= len(value.encode()) <= 63:
        raise ConfigError("%s: expected 8 to 63 octets, or none for an open network" % path)


def _country(value, path):
    check_text(value, path)
    if value and not (len(value) == 2 and all("A" <= letter <= "Z" for letter in value)):
        raise ConfigError('%s: expected two letters like "DE", got %s' % (path, show(value)))


def _hostname(value, path):
    check_text(value, path)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-"
    if len(value) > _HOSTNAME_LETTERS or not all(c in letters for c in value.lower()):
        raise ConfigError(
            "%s: expected at most %d letters, digits and hyphens, got %s"
            % (path, _HOSTNAME_LETTERS, show(value))
        )


def _watchdog(value, path):
    check_number(value, 0, 3600, path)
    if 0 < value < _SHORTEST_WATCHDOG:
        raise ConfigError(
            "%s: %d, expected 0 or at least %d seconds" % (path, value, _SHORTEST_WATCHDOG)
        )


def _list(value, path):
    if not isinstance(value, (list, tuple)):
        raise ConfigError("%s: expected a list, got %s" % (path, show(value)))


# The hash of "guest".
_GUEST = {
    "password_hash": "YW1xcNtq+YSZ3Gp9l3n9Hwu0AShQoKMVtCuQUm5bIAI4+TfE",
    "configure": ["*"],
    "write": ["*"],
    "read": ["*"],
}
_USER = (
    ("password_hash", {None: _password_hash}, REQUIRED),  # null: no password is right
    ("configure", [_pattern], ()),
    ("write", [_pattern], ()),
    ("read", [_pattern], ()),
)
_LISTENER_TLS = (
    ("certificate", check_name, REQUIRED),
    ("key", check_name, REQUIRED),
    ("client_ca", check_name, ABSENT),  # verifies certificates of clients, for SASL EXTERNAL
)
_LISTENER = (
    ("host", check_name, "127.0.0.1"),
    ("port", range(65536), ABSENT),  # 5672, with TLS 5671
    ("tls", _LISTENER_TLS, ABSENT),
)
_EXCHANGE = (
    ("name", check_new_name, REQUIRED),
    ("type", "direct fanout topic headers", REQUIRED),
    ("durable", check_boolean, True),
    ("auto_delete", check_boolean, False),
    ("internal", check_boolean, False),
    ("arguments", (("alternate-exchange", check_name, ABSENT),), {}),
)
_QUEUE_ARGUMENTS = (
    ("x-message-ttl", range(MAX_TTL_MS + 1), ABSENT),
    ("x-expires", range(1, MAX_TTL_MS + 1), ABSENT),
    ("x-max-length", range(_COUNT), ABSENT),
    ("x-max-length-bytes", range(_COUNT), ABSENT),
    ("x-overflow", "drop-head reject-publish", ABSENT),
    ("x-queue-type", "classic", ABSENT),
)
_QUEUE = (
    ("name", check_new_name, REQUIRED),
    ("durable", check_boolean, True),
    ("auto_delete", check_boolean, False),
    ("arguments", _QUEUE_ARGUMENTS, {}),
)
_BINDING = (
    ("source", check_name, REQUIRED),
    ("destination", check_name, REQUIRED),
    ("destination_type", "queue exchange", "queue"),
    ("routing_key", check_text, ""),
    ("arguments", _headers, {}),
)
_WIFI = (
    ("ssid", _ssid, REQUIRED),
    ("password", _wifi_password, ""),
    ("country", _country, ""),
    ("power_save", "none performance powersave", "performance"),
    ("hostname", _hostname, ""),
)
_ACCESS_KEY = (  # signs tokens, see v10/cbs.py
    ("key", check_name, REQUIRED),
    ("user", check_name, REQUIRED),  # whose permissions such a token gives
)
_CLOCK = (
    ("server", check_name, "pool.ntp.org"),
    ("interval", range(60, 604801), 3600),
)
_CONFIGURATION = (
    ("device", check_short_name, "amqp-lite"),
    ("profile", _profile, "linux"),
    ("limits", check_numbers, {}),
    ("store", _store, None),
    ("vhost", check_name, "/"),
    ("log_level", "debug info warning error", "info"),
    ("listeners", [_LISTENER], ({},)),
    ("users", {"": _USER}, {"guest": _GUEST}),
    ("anonymous", {None: check_name}, None),  # the user that SASL ANONYMOUS makes of a peer
    ("shared_access_keys", {"": _ACCESS_KEY}, {}),
    ("exchanges", [_EXCHANGE], ()),
    ("queues", [_QUEUE], ()),
    ("bindings", [_BINDING], ()),
    ("bridges", _list, ()),  # see bridge/settings.py
    # What firmware/main.py does with a board:
    ("wifi", {None: _WIFI}, None),
    ("clock", {None: _CLOCK}, {}),
    ("watchdog", _watchdog, 30),
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
    settings = complete(_CONFIGURATION, settings, "")
    if isinstance(settings["profile"], dict):
        numbers = dict(settings["profile"])
        numbers.update(settings["limits"])
        settings["limits"] = numbers
        settings["profile"] = None
    for row in settings["listeners"]:
        row.setdefault("port", 5671 if "tls" in row else 5672)
    _check_references(settings)
    if settings["bridges"]:
        from .bridge.settings import complete_bridges  # late: most have none

        settings["bridges"] = complete_bridges(settings["bridges"], settings["device"])
    return settings


def check_room(settings, profile):
    """Raises ConfigError when loaded *settings* declare more than a complete *profile* allows."""
    for i, row in enumerate(settings["listeners"]):
        if "tls" in row and profile["heap"]:
            raise ConfigError("listeners[%d].tls: a board has no memory for it" % i)
    if settings["shared_access_keys"] and profile["heap"]:
        raise ConfigError("shared_access_keys: a board has no memory for what they are for")
    there = {"exchanges": len(PREDECLARED), "queues": 0, "bindings": 0}
    if settings["bridges"]:
        from .bridge.settings import bill, queues_needed

        there["queues"] = queues_needed(settings["bridges"])
    for key in ("exchanges", "queues", "bindings"):
        needed = len(settings[key]) + there[key]
        if needed > profile[key]:
            raise ConfigError("%s: %d, the profile has room for %d" % (key, needed, profile[key]))
    if settings["bridges"]:
        wanted = len(settings["bridges"]) + bool(settings["listeners"])
        if wanted > profile["connections"]:
            raise ConfigError(
                "bridges: %d, %sthe profile has room for %d connections" % (
                    len(settings["bridges"]),
                    "and no client could connect: " if settings["listeners"] else "",
                    profile["connections"],
                )
            )  # fmt: skip
        check_heap(profile, bill(settings["bridges"], profile["code_in_flash"]))


def parse(text):
    """What the JSON *text* says. Raises ConfigError when it is none."""
    import json  # late: settings may come as a dict

    try:
        return json.loads(text)
    except (ValueError, RuntimeError) as error:  # RuntimeError: nested too deep
        raise ConfigError("not JSON: %s" % error)


def _check_references(settings):
    """Raises ConfigError for a name that is there twice or, in a binding, not at all."""
    names = {"exchange": [str(name, "utf-8") for name, _ in PREDECLARED if name], "queue": []}
    for key, known in (("exchanges", names["exchange"]), ("queues", names["queue"])):
        for i, row in enumerate(settings[key]):
            if row["name"] in known:
                raise ConfigError("%s[%d].name: %s is there twice" % (key, i, show(row["name"])))
            known.append(row["name"])
    anonymous = settings["anonymous"]
    if anonymous is not None and anonymous not in settings["users"]:
        raise ConfigError("anonymous: no user %s" % show(anonymous))
    keys = settings["shared_access_keys"]
    for name in keys:
        if keys[name]["user"] not in settings["users"]:
            raise ConfigError(
                "shared_access_keys.%s.user: no user %s" % (name, show(keys[name]["user"]))
            )
    for i, row in enumerate(settings["bindings"]):
        for key, kind in (("source", "exchange"), ("destination", row["destination_type"])):
            if row[key] not in names[kind]:
                raise ConfigError("bindings[%d].%s: no %s %s" % (i, key, kind, show(row[key])))
