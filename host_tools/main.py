"""The commands and their arguments.

Starting the broker is a command like any other, and its memory and start-up are measured against
other brokers'. So a command's module is imported when the command is given.
"""

import argparse
import importlib
import os
import sys

from amqp_lite import __version__
from amqp_lite.errors import ConfigError

from .errors import CommandError

PROGRAM = "amqp-lite"


def main(arguments=None):
    """Run one command: its exit code."""
    args = _parser().parse_args(arguments)
    module, function = args.run
    try:
        do = getattr(importlib.import_module("." + module, __package__), function)
        return do(args) or 0
    except (CommandError, ConfigError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return getattr(error, "code", 2)
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] not in ("serial", "mpremote"):
            raise
        print(
            f"{PROGRAM}: boards are reached through pyserial and mpremote:"
            " python3 -m pip install pyserial mpremote", file=sys.stderr,
        )  # fmt: skip
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output is gone; Python's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser():
    parser = argparse.ArgumentParser(
        PROGRAM, description="A memory-frugal AMQP broker for edge devices."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = _command(commands, "run", "start the broker", "run", "do_run")
    run.add_argument("--config", metavar="FILE", help="configuration (JSON)")
    run.add_argument("--host", help="listen on this address only")
    run.add_argument("--port", type=_port, help="listen on this port only; 0: any free one")
    run.add_argument("--profile", metavar="NAME", help="the sizes of this board; see board/")
    store = run.add_mutually_exclusive_group()
    store.add_argument(
        "--store", metavar="FILE", help="where durable messages are kept (amqp-lite.ring)"
    )
    store.add_argument(
        "--no-store", action="store_true", help="in RAM: nothing survives the end of the broker"
    )
    run.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    run.add_argument(
        "--micropython", action="store_true", help="run it on MicroPython, with a board's heap"
    )

    demo = _command(
        commands,
        "demo",
        "see an outage: upstream cut, edge broker killed and restarted, nothing lost",
        "demo",
        "do_demo",
    )
    demo.add_argument(
        "--upstream", metavar="URL", help="of a broker that is there, amqp://... or amqps://..."
        " (one in this process)"
    )
    demo.add_argument(
        "--seconds", type=_between(3, 300), default=20, metavar="N", help="how long (20)"
    )
    demo.add_argument(
        "--rate", type=_between(1, 2000), default=200, metavar="N", help="messages a second (200)"
    )
    demo.add_argument("--flash", metavar="FILE", help="make the flash image there, and keep it")
    demo.add_argument(
        "--keep", action="store_true", help="keep it and all else in its temporary folder"
    )

    boards = _command(
        commands, "boards", "list the boards that are plugged in", "boards", "do_boards"
    )
    _add_port(boards, "ask the board at this port who it is")
    boards.add_argument(
        "--identify", action="store_true", help="ask each who it is; a broker on it starts again"
    )

    flash = _command(commands, "flash", "install MicroPython on a board", "flash", "do_flash")
    flash.add_argument(
        "image",
        metavar="IMAGE",
        help="of micropython.org/download: .uf2 for a Pico; .bin for an ESP32, through the program"
        " esptool, which you have to have",
    )
    _add_port(flash, "of the board: what runs on it is interrupted; the only board there is")
    flash.add_argument(
        "--drive", metavar="FOLDER", help="where a Pico in BOOTSEL mode is mounted, if not found"
    )
    flash.add_argument(
        "--yes",
        action="store_true",
        help="also an image for another board, or one that costs the files and the ring on it;"
        " never one for another chip",
    )

    deploy = _command(
        commands, "deploy", "put broker and configuration on a board", "deploy", "do_deploy"
    )
    _add_port(deploy)
    deploy.add_argument(
        "--config", metavar="FILE", help="configuration (JSON); the one on the board when absent"
    )
    deploy.add_argument("--app", metavar="FILE", help="your program, which becomes /app.py")
    deploy.add_argument(
        "--board", metavar="NAME", help="what it is; see board/ (asked of the board when absent)"
    )
    deploy.add_argument("--py", action="store_true", help="copy the sources, do not compile them")
    deploy.add_argument("--no-reset", action="store_true", help="do not start it")

    reset = _command(commands, "reset", "start a board again", "reset", "do_reset")
    _add_port(reset)

    monitor = _command(
        commands, "monitor", "watch the broker on a board, until Ctrl-C", "monitor", "do_monitor"
    )
    _add_port(monitor)
    monitor.add_argument(
        "--every", metavar="S", type=_between(1, 3600), default=2, help="ask so often, in s (2)"
    )
    monitor.add_argument("--json", action="store_true", help="a line of JSON each time")

    status = _command(
        commands, "status", "ask the broker on a board once", "monitor", "do_status"
    )
    _add_port(status)
    status.add_argument("--json", action="store_true", help="a line of JSON")

    test = _command(commands, "test", "run every test, in .venv", "test", "do_test")
    test.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="for pytest, behind --")

    config = commands.add_parser("config", help="check and make configurations")
    config = config.add_subparsers(metavar="COMMAND", required=True)
    check = _command(config, "check", "say what is wrong with a file", "config", "do_check")
    check.add_argument("file", metavar="FILE")
    complete = _command(
        config, "complete", "print it checked and whole, for a board", "config", "do_complete"
    )
    complete.add_argument("file", metavar="FILE")
    password = _command(
        config, "hash-password", "print what password_hash takes", "config", "do_hash_password"
    )
    password.add_argument("password", nargs="?", metavar="PASSWORD", help="asked for when absent")
    wifi = _command(config, "wifi", "write a board's network into a file", "config", "do_wifi")
    wifi.add_argument("file", metavar="FILE")
    wifi.add_argument("--ssid", metavar="NAME", required=True)
    wifi.add_argument("--password", help="asked for when absent; '' for an open network")
    wifi.add_argument("--country", metavar="XX", help="two letters, for its channels")
    wifi.add_argument("--power-save", choices=("none", "performance", "powersave"))
    wifi.add_argument("--hostname", metavar="NAME", help="the device's name when absent")
    budget = _command(config, "budget", "say what a profile costs", "config", "do_budget")
    budget.add_argument("--profile", metavar="NAME", default="linux")
    new = _command(config, "new", "print a configuration to start from", "config", "do_new")
    new.add_argument("--profile", metavar="NAME", default="linux", help="of a board: see board/")

    ring = commands.add_parser("ring", help="look into a ring of durable messages")
    ring = ring.add_subparsers(metavar="COMMAND", required=True)
    show = _ring_command(ring, "show", "say what it holds, and how worn it is", "do_show")
    show.add_argument(
        "--messages-per-day", metavar="N", type=_amount, help="for the years left: what to expect"
    )
    show.add_argument(
        "--days", metavar="N", type=_amount, help="for the years left: how long it is in use"
    )
    _ring_command(
        ring,
        "verify",
        "read every record and say what is damaged: exit code 1 then; not for what was cut off",
        "do_verify",
    )
    export = _ring_command(
        ring, "export", "print what waits as JSON lines, oldest first", "do_export"
    )
    export.add_argument("--queue", metavar="NAME", help="of this queue alone")
    return parser


def _command(commands, name, help_text, module, function):
    parser = commands.add_parser(name, help=help_text, description=help_text)
    parser.set_defaults(run=(module, function))
    return parser


def _add_port(parser, help_text="a serial device or socket://HOST:PORT; the only board there is"):
    parser.add_argument("--port", metavar="PORT", help=help_text)


def _ring_command(commands, name, help_text, function):
    parser = _command(commands, name, help_text, "ring", function)
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="a ring file, a dump of flash or a folder of segments. It is only read, also while a "
        "broker runs on it: what that writes or takes meanwhile may be missing, or there still",
    )
    _add_port(
        parser,
        "instead of a FILE: read it from the board at this serial device or socket://HOST:PORT;"
        " its broker is interrupted for that, and starts again afterwards",
    )
    parser.add_argument(
        "--offset", metavar="OCTETS", type=_octets, help="where it begins, if it is not found"
    )
    parser.add_argument(
        "--size",
        metavar="OCTETS",
        type=_octets,
        help="of the ring, where the file has more or a larger ring was there before",
    )
    return parser


def _octets(text):
    """A number of octets, also as 0x..."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of octets")
    return value


def _amount(text):
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e12:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _between(lowest, highest):
    """The type of a whole number in these limits."""

    def check(text):
        if not text.isdigit() or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not in {lowest} to {highest}")
        return int(text)

    return check


def _port(text):
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not in 0 to 65535")
    return int(text)
