"""`amqp-lite config ...`: check and make configurations, before they reach a board."""

import binascii
import getpass
import json
import os
import secrets
import shutil
import sys

from amqp_lite import __version__
from amqp_lite.access import password_hash
from amqp_lite.bridge.settings import bill as bridge_bill
from amqp_lite.errors import ConfigError
from amqp_lite.limits import bill, check, complete, total

from .errors import CommandError
from .files import complete_config, parse_config, read_config, read_profile, read_text

_SALT_OCTETS = 4


def do_check(args):
    settings, profile = read_config(args.file)
    keys = ("exchanges", "queues", "bindings", "bridges")
    counts = [f"{len(settings[key])} {key}" for key in keys]
    print(f"{args.file} is fine: device '{settings['device']}', {', '.join(counts)}")
    if profile["heap"]:
        octets = total(bill(profile) + bridge_bill(settings["bridges"], profile["code_in_flash"]))
        print(f"it takes {octets} of {profile['heap']} octets of heap")


def do_complete(args):
    print(for_board(*read_config(args.file)))


def for_board(settings, profile):
    """Complete *settings* and their *profile* as JSON text that node.py does not check again."""
    return json.dumps(dict(settings, profile=profile, limits={}, checked=__version__))


def do_hash_password(args):
    print(_hash(_ask_password() if args.password is None else args.password))


def _ask_password():
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != password:
        raise CommandError("the two are not the same")
    return password


def _hash(password):
    if not password:
        raise CommandError("the password is empty")
    octets = password_hash(password.encode(), os.urandom(_SALT_OCTETS))
    return binascii.b2a_base64(octets, newline=False).decode()


def do_budget(args):
    profile = complete(read_profile(args.profile))
    rows = bill(profile)
    table = [("", "how many", "each", "octets"), *rows, ("together", "", "", total(rows))]
    if profile["heap"]:
        table.append(("of", "", "", profile["heap"]))
    for what, many, each, octets in table:
        print(f"{what:<16} {many:>9} {each:>9} {octets:>10}")
    check(profile)


def do_new(args):
    password = secrets.token_urlsafe(12)
    user = {
        "password_hash": _hash(password),
        "configure": [],
        "write": ["telemetry"],
        "read": ["all"],
    }
    store = {"kind": "file", "path": "edge.ring", "size": 64 << 20}
    board = {}
    if args.profile != "linux":
        store = {"kind": "board", "size": 160 << 10}
        board = {"clock": {"server": "pool.ntp.org"}, "watchdog": 30}
    settings = {
        "device": "edge-1",
        "profile": args.profile,
        **board,
        "store": store,
        "log_level": "info",
        "listeners": [{"host": "0.0.0.0", "port": 5672}],
        "users": {"sensor": user},
        "exchanges": [{"name": "telemetry", "type": "topic"}],
        "queues": [{"name": "all", "arguments": {"x-max-length": 1000}}],
        "bindings": [{"source": "telemetry", "destination": "all", "routing_key": "#"}],
    }
    complete_config(settings)
    print(json.dumps(settings, indent=2))
    print(f"The password of 'sensor' is {password}; only its hash is kept.", file=sys.stderr)


def do_wifi(args):
    settings = parse_config(read_text(args.file), args.file)
    given = {
        "ssid": args.ssid,
        "password": _ask_password() if args.password is None else args.password,
        "country": args.country,
        "power_save": args.power_save,
        "hostname": args.hostname,
    }
    wifi = settings.get("wifi")
    wifi = dict(wifi) if isinstance(wifi, dict) else {}
    wifi.update((key, value) for key, value in given.items() if value is not None)
    settings["wifi"] = wifi
    try:
        complete_config(settings)
    except (CommandError, ConfigError) as error:
        raise CommandError(f"{args.file}: {error}") from None
    _write(args.file, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    print(f"{args.file}: the network is '{args.ssid}'")


def _write(path, text):
    """The file *path*, which is there, has this *text* then, or as before. Raises CommandError."""
    path = os.path.realpath(path)
    temporary = path + ".new"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            shutil.copymode(path, temporary)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
