"""`amqp-lite flash`: put MicroPython on a board.

A Pico takes a UF2 file that is copied to the drive its boot ROM shows. An ESP32 takes a .bin file
through esptool, which is not ours to bring. Neither writes where MicroPython keeps files and the
ring is, unless the image moves that place, or reaches into it: then --yes has to be said.
"""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

from .boards import find_drives, is_mounted, read_drive
from .connection import choose_port, find_ports, open_board
from .errors import CommandError
from .esp_image import MAGIC, TABLE_AT, TABLE_SIZE, EspImage, kept_partitions
from .progress import open_progress
from .uf2 import Uf2, is_uf2

_DRIVE_S = 20  # until the drive of a board in its boot loader is there
_GONE_S = 30  # until it is gone, when the image is on it
_CHUNK = 65536  # octets, from one fsync to the next
_CHIPS = {"RPI-RP2": "RP2040", "RP2350": "RP2350"}  # by what a drive says as Board-ID
_RASPBERRY_PI = 0x2E8A  # USB
_XIP = 0x10000000
_BAUD = "460800"
_BOOTSEL = (
    "hold its BOOTSEL button while you plug it in, or while you press a RUN button if it has one;"
    " let go when the drive RPI-RP2 or RP2350 shows up"
)
# Where the file system of an RP2 board is: (address, octets).
_ASK_RP2 = """
import rp2, uctypes
f = rp2.Flash()
print((uctypes.addressof(memoryview(f)), f.ioctl(4, 0) * f.ioctl(5, 0)))
"""


def do_flash(args):
    sys.stdout.reconfigure(line_buffering=True)
    try:
        with open(args.image, "rb") as file:
            octets = file.read()
    except OSError as error:
        raise CommandError(f"{args.image}: {error.strerror}") from None
    if is_uf2(octets):
        _flash_uf2(args, Uf2(args.image, octets))
    elif octets[:1] == MAGIC:
        if args.drive is not None:
            raise CommandError(f"--drive is for UF2 files; {args.image} goes over a serial --port")
        _flash_esp(args, EspImage(args.image, octets))
    else:
        raise CommandError(
            f"{args.image}: neither a UF2 file, for a Pico, nor a .bin file, for an ESP32"
        )


# --- Raspberry Pi Pico and its kin ---


def _flash_uf2(args, image):
    what = " ".join(filter(None, (image.program, image.version))) or "no program with a name"
    print(f"{args.image}: {what}, for {image.machine or ' and '.join(image.chips)}")
    if image.program != "MicroPython":
        _object(args, f"{args.image} does not say that it is MicroPython")
    drive, info = _find_drive(args) or _enter_bootloader(args, image)
    chip = _CHIPS.get(info.get("Board-ID"))
    if chip is None:
        raise CommandError(f"{drive}: a drive of {info.get('Model', 'another board')}")
    _check_chip(args, image, chip)
    if image.drive is not None:
        _check_reach(args, image, chip, *image.drive)
    _copy(drive, image)
    print("installed; `amqp-lite deploy` puts the broker on it")


def _check_chip(args, image, chip):
    if chip not in image.chips:
        raise CommandError(
            f"{args.image} is for {' and '.join(image.chips)}, and the board has an {chip}"
        )


def _check_reach(args, image, chip, start, size):
    """The boot ROM erases the sectors that are in the image, and no others."""
    if any(start <= address < start + size for address in image.sectors(chip)):
        _object(args, f"{args.image} reaches into the files and the ring on the board")


def _object(args, text):
    """Raises CommandError unless the user has said that it is meant so."""
    if not args.yes:
        raise CommandError(f"{text}; --yes if you mean it", 1)
    print(f"--yes: {text}")


def _find_drive(args):
    """(folder, what it says of itself) of the board that waits for an image; None: none does."""
    if args.drive is not None:
        info = read_drive(args.drive)
        if info is None:
            raise CommandError(f"{args.drive}: not the drive of a Pico: no INFO_UF2.TXT on it")
        return args.drive, info
    drives = find_drives()
    if len(drives) > 1:
        names = ", ".join(folder for folder, _ in drives)
        raise CommandError(f"there are {len(drives)} drives, choose one with --drive: {names}")
    if drives and args.port is not None:
        raise CommandError(
            f"a board waits at {drives[0][0]}: name it with --drive, or unplug it to use --port"
        )
    return drives[0] if drives else None


def _enter_bootloader(args, image):
    """Ask the board that runs what it is, and make it wait for an image: as _find_drive()."""
    port = args.port
    if port is None:
        ports = [port.device for port in find_ports() if port.vid == _RASPBERRY_PI]
        if not ports:
            raise CommandError(f"no board waits for an image: {_BOOTSEL}", 1)
        if len(ports) > 1:
            names = ", ".join(ports)
            raise CommandError(f"there are {len(ports)} boards, choose one with --port: {names}")
        port = ports[0]
    with open_board(port) as board:
        print(f"{board.port}: what runs there is interrupted")
        try:
            board.interrupt()
        except CommandError as error:
            raise CommandError(f"{error}; {_BOOTSEL}", 1) from None
        try:
            _check_board(args, image, board)
        except CommandError:
            board.restart()
            raise
        board.enter_bootloader()
    return _await_drive()


def _check_board(args, image, board):
    facts = board.facts()
    machine = facts["machine"]
    print(f"{board.port}: {machine}, MicroPython {facts['version']}")
    if facts["platform"] != "rp2":
        raise CommandError(f"{args.image} is for {' and '.join(image.chips)}, this is a {machine}")
    start, size = ast.literal_eval(board.run(_ASK_RP2))
    chip = machine.rpartition(" with ")[2]
    if chip in _CHIPS.values():
        _check_chip(args, image, chip)
        _check_reach(args, image, chip, start, size)
    if image.machine is not None and image.machine != machine:
        _object(args, f"{args.image} is for {image.machine}, this is a {machine}")
    if image.drive not in (None, (start, size)):
        here, there = (
            f"{at - _XIP:#x} to {at - _XIP + octets - 1:#x}"
            for at, octets in ((start, size), image.drive)
        )
        _object(
            args,
            f"files and ring would be lost: the file system is at {here} of the flash, and for"
            f" {args.image} at {there}",
        )


def _await_drive():
    print("it is in its boot loader; its drive is waited for")
    deadline = time.monotonic() + _DRIVE_S
    while time.monotonic() < deadline:
        drives = find_drives()
        if drives:
            return drives[0]
        time.sleep(0.2)
    raise CommandError(
        f"no drive for {_DRIVE_S} s: mount it (as `udisksctl mount -b /dev/sdX1`) and name it with"
        " --drive; the board waits for an image until it is plugged in again", 1,
    )  # fmt: skip


def _copy(drive, image):
    """Copy *image*; the board restarts by itself when it has all of it."""
    octets = image.octets
    progress = open_progress(len(octets), 1)
    progress.begin(f"copying to {drive}", len(octets))
    done = 0
    try:
        with open(os.path.join(drive, "firmware.uf2"), "wb", buffering=0) as file:
            while done < len(octets):
                n = file.write(octets[done : done + _CHUNK])
                done += n
                os.fsync(file.fileno())  # else all of it would be in the cache at once
                progress.add(n)
    except OSError as error:
        # With the last block the board goes away, before the system has closed the file.
        if done < len(octets) - _CHUNK or is_mounted(drive):
            raise CommandError(f"{drive}: {error.strerror}", 1) from None
    finally:
        progress.end()
    deadline = time.monotonic() + _GONE_S
    while is_mounted(drive):
        if time.monotonic() > deadline:
            raise CommandError(f"{drive} is still there: the board did not take the image", 1)
        time.sleep(0.1)


# --- ESP32 ---


def _flash_esp(args, image):
    print(f"{args.image}: for {image.machine or image.chip}, to {image.offset:#x} of the flash")
    esptool = _find_esptool()
    if esptool is None:
        port = f"--port {args.port} " if args.port else ""
        raise CommandError(
            "no esptool here: `python3 -m pip install esptool`, and again; or by hand:"
            f" `esptool {port}--baud {_BAUD} write-flash {image.offset:#x} {args.image}`", 1,
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        _Esptool(esptool, choose_port(args.port)).install(args, image, folder)
    print("installed; `amqp-lite deploy` puts the broker on it")


def _find_esptool():
    """The command, a list; None: there is none."""
    if importlib.util.find_spec("esptool"):
        return [sys.executable, "-m", "esptool"]
    for name in ("esptool", "esptool.py"):
        path = shutil.which(name)
        if path:
            return [path]
    return None


class _Esptool:
    """
    command  a list
    """

    def __init__(self, command, port):
        self._command = command
        self._port = port
        version = re.search(r"(\d+)\.\d+", self._call(["version"]))
        self._old = version is not None and int(version[1]) < 5

    def install(self, args, image, folder):
        """Install *image* when the board can take it. folder: to put files in."""
        said = self._call([*self._at(), self._name("flash-id")])
        # The description of the chip, as ESP32-D0WDQ6, or its name.
        found = re.search(r"(?:Connected to|Chip is) (ESP32(?:-[SCHP]\d+\b)?)", said)
        if not found:
            raise CommandError(f"{self._port}: esptool does not say which chip this is", 1)
        chip = found[1]
        print(f"{self._port}: {chip}")
        if chip != image.chip:
            raise CommandError(f"{args.image} is for {image.chip}, and the board has an {chip}")
        size = re.search(r"Detected flash size: (\d+)([KM])B", said)
        size = int(size[1]) << (20 if size[2] == "M" else 10) if size else 0
        path = os.path.join(folder, "table")
        where = [f"{TABLE_AT:#x}", f"{TABLE_SIZE:#x}", path]
        self._call([*self._at(chip), self._name("read-flash"), *where])
        with open(path, "rb") as file:
            table = file.read()
        erase = []
        if not _keeps_all(table, image.table, size):
            if table.strip(b"\xff"):
                _object(
                    args,
                    "files and ring, or whatever is on it, would be lost: its flash is divided"
                    f" otherwise than {args.image} does, and has to be erased",
                )
            erase = ["--erase-all"]
        self._run([*self._at(chip), "--baud", _BAUD, self._name("write-flash"), *erase,
                   f"{image.offset:#x}", args.image])  # fmt: skip

    def _at(self, chip="auto"):
        return ["--chip", chip.lower().replace("-", ""), "--port", self._port]

    def _name(self, command):
        return command.replace("-", "_") if self._old else command

    def _call(self, arguments):
        """Run it: what it says. Raises CommandError with the last of it."""
        try:
            done = subprocess.run(
                [*self._command, *arguments], capture_output=True, text=True, errors="replace"
            )
        except OSError as error:
            raise CommandError(f"{self._command[0]}: {error.strerror}") from None
        if done.returncode:
            said = (done.stdout + done.stderr).strip().splitlines() or ["it failed"]
            why = next((line for line in said if "fatal error" in line), said[-1])
            raise CommandError(f"esptool: {why[max(why.find('A fatal'), 0) :].strip()}", 1)
        return done.stdout

    def _run(self, arguments):
        print("esptool " + " ".join(arguments))
        code = subprocess.run([*self._command, *arguments]).returncode
        if code:
            raise CommandError(f"esptool failed with code {code}", 1)


def _keeps_all(old, new, flash_size):
    """Whether what is in the user's partitions of one table is there in the other one.

    A table of something else than MicroPython is another one in any case.
    """
    kept = kept_partitions(old, flash_size)
    return bool(kept) and kept.items() <= kept_partitions(new, flash_size).items()
