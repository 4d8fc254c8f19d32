"""How the configuration and the profile are checked and completed. All errors are one line.

A kind says what a value must be:

    (row, ...)   an object: a row (key, kind, default) per key
    [kind]       a list of such
    {"": kind}   an object whose keys are names
    {None: kind} null, or what the kind says
    "a b c"      one of these words
    range        a whole number in it
    function     called with (value, path); raises ConfigError unless it will do
"""

from .compat import const
from .errors import ConfigError

REQUIRED = object()  # as default: the key has to be there
ABSENT = object()  # as default: without the key the object goes without it

_NAME_OCTETS = const(255)  # AMQP 0-9-1 §4.2.5.3, a short string
_SHORT_OCTETS = const(100)  # with what is added, upstreams take no more than 128 as an id

_SHOWN = 40  # characters of a wrong value that an error repeats


def check_keys(given, known, path):
    """Raises ConfigError unless *given* is a dict with none but *known* keys (None: any)."""
    path = path or "configuration"
    if not isinstance(given, dict):
        raise ConfigError("%s: expected an object, got %s" % (path, show(given)))
    for key in given:
        if known is not None and key not in known:
            hint = ""
            if isinstance(key, str):
                distance, nearest = min([(_distance(key, other), other) for other in known])
                if distance <= 2:
                    hint = ', did you mean "%s"?' % nearest
            raise ConfigError("%s: unknown key %s%s" % (path, show(key), hint))


def check_number(value, lowest, highest, path):
    """Raises ConfigError unless *value* is a whole number from *lowest* to *highest*."""
    # bool first: True is an int on CPython, and is none on MicroPython.
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError("%s: expected a whole number, got %s" % (path, show(value)))
    if not lowest <= value <= highest:
        raise ConfigError("%s: %d is not in %d to %d" % (path, value, lowest, highest))


def complete(kind, value, path):
    """*value*, which must be of this *kind*, with the defaults filled in; a copy."""
    if isinstance(kind, tuple):
        return _complete_object(kind, value, path)
    if isinstance(kind, list):
        if not isinstance(value, (list, tuple)):
            raise ConfigError("%s: expected a list, got %s" % (path, show(value)))
        return [complete(kind[0], item, "%s[%d]" % (path, i)) for i, item in enumerate(value)]
    if isinstance(kind, dict):
        if None in kind:
            return None if value is None else complete(kind[None], value, path)
        check_keys(value, None, path)
        for name in value:
            check_name(name, path)
        return {name: complete(kind[""], value[name], path + "." + name) for name in value}
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
            whole[key] = complete(kind, value[key], key_path)
        elif default is REQUIRED:
            raise ConfigError("%s: missing" % key_path)
        elif default is not ABSENT:
            whole[key] = complete(kind, default, key_path)
    return whole


def check_text(value, path):
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


def check_name(value, path):
    check_text(value, path)
    if not value:
        raise ConfigError("%s: expected a name, got an empty string" % path)


def check_short_name(value, path):
    """A name that becomes part of others."""
    check_name(value, path)
    if len(value.encode()) > _SHORT_OCTETS:
        raise ConfigError("%s: more than %d octets" % (path, _SHORT_OCTETS))


def check_new_name(value, path):
    check_name(value, path)
    if value.startswith("amq."):
        raise ConfigError('%s: %s begins with "amq.", which is reserved' % (path, show(value)))


def check_boolean(value, path):
    if value is not True and value is not False:
        raise ConfigError("%s: expected true or false, got %s" % (path, show(value)))


def show(value):
    """*value* for an error: as JSON, on one line, not too long."""
    import json  # late: most programs never show one

    try:
        text = json.dumps(value)
    except (TypeError, ValueError):  # a program may hand us anything
        text = repr(value)
    if len(text) > _SHOWN:
        text = text[: _SHOWN - 3] + "..."
    return text.replace("\n", " ")


def _distance(a, b):
    """How many letters have to be put in, left out or changed to make *b* of *a*."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a.lower()):
        above = row
        row = [i + 1]
        for k, other in enumerate(b):
            row.append(min(above[k + 1] + 1, row[k] + 1, above[k] + (letter != other)))
    return row[-1]
