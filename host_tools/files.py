"""The files that commands read: configurations, and the profiles of boards."""

import os

from amqp_lite import config
from amqp_lite.errors import ConfigError
from amqp_lite.limits import check, complete

from .errors import CommandError

_HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(_HERE)
_DEFAULT_PROFILE = "linux"


def folder(name):
    """The folder *name*, board or firmware: inside host_tools when installed, else beside it."""
    installed = os.path.join(_HERE, name)
    return installed if os.path.isdir(installed) else os.path.join(ROOT, name)


def read_config(path, **changes):
    """The configuration in the file *path* (None: the default one) with *changes* to its keys.

    Returns it complete, and the complete profile it names. Raises CommandError.
    """
    try:
        settings = parse_config(read_text(path), path) if path else {}
        settings.update(changes)
        return complete_config(settings)
    except ConfigError as error:
        raise CommandError(f"{path}: {error}" if path else str(error)) from None


def parse_config(text, source):
    """The settings in the JSON *text* from *source*, unchecked. Raises CommandError."""
    try:
        settings = config.parse(text)
    except ConfigError as error:
        raise CommandError(f"{source}: {error}") from None
    if not isinstance(settings, dict):
        raise CommandError(f"{source}: configuration: expected an object")
    return settings


def complete_config(settings):
    """*settings* complete, and the profile they name, too. Raises ConfigError, CommandError."""
    settings = config.load(settings)
    name = settings["profile"]
    # The default profile is the defaults of limits.py: no file to read.
    profile = None if name in (None, _DEFAULT_PROFILE) else read_profile(name)
    profile = complete(profile, settings["limits"])
    check(profile)
    config.check_room(settings, profile)
    return settings, profile


def read_profile(name):
    """The numbers of the board called *name*. Raises CommandError."""
    import json  # late: a broker with the default configuration does without

    if name not in profile_names():
        raise CommandError(f"no profile '{name}', there are {', '.join(profile_names())}")
    return json.loads(read_text(_profile_path(name)))


def profile_names():
    names = os.listdir(folder("board"))
    return sorted(name for name in names if os.path.exists(_profile_path(name)))


def _profile_path(name):
    return os.path.join(folder("board"), name, "profile.json")


def read_text(path):
    """The text in the file *path*. Raises CommandError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise CommandError(f"{path}: not UTF-8 text") from None
