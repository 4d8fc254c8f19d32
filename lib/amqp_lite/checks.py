"""What the checks of the configuration and of the profile share. All errors are one line."""

from .errors import ConfigError

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
