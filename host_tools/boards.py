"""`amqp-lite boards`: which boards are plugged in, and what is on them."""

import os
import re
import string
import sys

from .connection import describe, find_ports, open_board
from .errors import CommandError

_INFO = "INFO_UF2.TXT"  # on the drive that a Pico shows while BOOTSEL is held


def do_boards(args):
    sys.stdout.reconfigure(line_buffering=True)
    if args.port is not None:
        _identify(args.port)
        return 0
    ports = find_ports()
    drives = find_drives()
    failed = 0
    for port in ports:
        print(f"{port.device}  {describe(port)}")
        if args.identify:
            try:
                _identify(port.device)
            except CommandError as error:
                print(f"  {error}")
                failed = 1
    for path, info in drives:
        model = info.get("Model", "a board")
        print(f"{path}  {model} that waits for its firmware, see `amqp-lite flash`")
    if not ports and not drives:
        raise CommandError("no board found: is it plugged in, with a cable for data?", 1)
    return failed


def find_drives():
    """Drives of boards that wait for a UF2 file: a list of (folder, what INFO_UF2.TXT says)."""
    drives = [(folder, read_drive(folder)) for folder in _mounts()]
    return [(folder, info) for folder, info in drives if info is not None]


def read_drive(folder):
    """What INFO_UF2.TXT in *folder* says, a dict; None: there is none."""
    try:
        with open(os.path.join(folder, _INFO), encoding="ascii", errors="replace") as file:
            lines = [line.partition(":") for line in file.read(4096).splitlines()]
    except OSError:
        return None
    return {key.strip(): value.strip() for key, _, value in lines}


def is_mounted(folder):
    """Whether the drive at *folder* is still there; the system may know its files for longer."""
    device = _devices().get(os.path.realpath(folder))
    return read_drive(folder) is not None and (device is None or os.path.exists(device))


def _mounts():
    """Folders where a drive may be mounted."""
    if os.name == "nt":
        return [f"{letter}:\\" for letter in string.ascii_uppercase]
    user = os.environ.get("USER", "")
    mounts = [folder for folder, device in _devices().items() if device.startswith("/dev/")]
    for top in ("/media", f"/media/{user}", f"/run/media/{user}", "/mnt", "/Volumes"):
        try:
            mounts += [os.path.join(top, name) for name in sorted(os.listdir(top))]
        except OSError:
            continue
    return list(dict.fromkeys(mounts))


def _devices():
    """By folder, the device that is mounted there; empty where the system does not say."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            rows = [line.split(" ") for line in file]
    except OSError:
        return {}
    # Spaces and the like are written as \040.
    return {re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), row[1]): row[0] for row in rows}


def _identify(port):
    """Ask the board at *port* who it is, and print that."""
    with open_board(port) as board:
        print(f"  {board.port} is asked: a broker on it is interrupted, and starts again")
        board.interrupt()
        try:
            facts = board.facts()
        finally:
            board.restart()
    native = f" {facts['architecture']}" if facts["architecture"] else ""
    broker = "none"
    if facts["amqp_lite"] is not None:
        where = "in its firmware" if facts["frozen"] else "in its file system"
        broker = f"{facts['amqp_lite']}, {where}"
    rows = (
        ("board", facts["machine"]),
        ("profile", facts["board"]),
        ("id", facts["id"] or "none"),
        ("MicroPython", f"{facts['version']}, .mpy {'.'.join(map(str, facts['mpy']))}{native}"),
        ("heap", f"{facts['heap_free']:,} of {facts['heap']:,} octets free"),
        ("file system", f"{facts['fs_free']:,} of {facts['fs']:,} octets free"),
        ("amqp_lite", broker),
        ("device", facts["device"] or "no configuration"),
    )
    for name, value in rows:
        print(f"  {name:<12} {value}")
