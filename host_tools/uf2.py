"""UF2 files, as boards with an RP2040 or RP2350 take them: a checked image.

Blocks of 512 octets, little-endian (UF2 specification, microsoft/uf2):

    0    magic    0x0A324655, 0x9E5D5157
    8    flags    0x2000: the family is there; 0x0001: not for the main flash
    12   address, octets of payload, number of the block, number of blocks, family
    32   payload
    508  magic    0x0AB16F30

A file may hold an image for each of several families. The boot ROM of a chip takes those it knows.
"""

import re
import struct

from .errors import CommandError

_BLOCK = 512
_HEAD = struct.Struct("<8I")
_MAGIC = (0x0A324655, 0x9E5D5157)
_MAGIC_END = struct.pack("<I", 0x0AB16F30)
_NOT_MAIN = 0x1
_HAS_FAMILY = 0x2000
_PAGE = 256  # octets that the boot ROM takes from a block
_SECTOR = 4096  # octets that it erases

_ABSOLUTE = 0xE48BFF57
_FAMILIES = {
    0xE48BFF56: "RP2040",
    0xE48BFF59: "RP2350",
    0xE48BFF5A: "RP2350",  # its RISC-V cores
    0xE48BFF5B: "RP2350",  # ARM, not secure
}
# From microsoft/uf2, utils/uf2families.json: chips that people have MicroPython for.
_OTHERS = {
    0x68ED2B88: "SAMD21", 0x55114460: "SAMD51", 0xADA52840: "nRF52840", 0x1C5F21B0: "ESP32",
    0xBFDD4EEE: "ESP32-S2", 0xC47E5767: "ESP32-S3", 0xD42BA06C: "ESP32-C3",
    0x540DDF62: "ESP32-C6", 0x4FB2D5BD: "i.MX RT", 0x57755A57: "STM32F4",
}  # fmt: skip

_FLASH = 0x10000000  # where both chips see theirs
_FLASH_END = 0x12000000
_ALIASES = re.compile(rb"([ -~]{3,60} with (?:RP2040|RP2350)[ -~]{0,12})")

# What picotool finds in an image (pico-sdk, pico_binary_info): the addresses of entries.
_INFO = struct.Struct("<5I")
_INFO_START = 0x7188EBF2
_INFO_END = 0xE71AA390
_INFO_WITHIN = 8192  # octets from the start of the image
_INFO_STRING = 6
_INFO_DRIVE = 7  # a block device
_PROGRAM = 0x02031C86
_VERSION = 0x11A9BC3A


def is_uf2(octets):
    return octets[:4] == struct.pack("<I", _MAGIC[0])


class Uf2:
    """The image in *octets* of the file *path*. Raises CommandError when it is none or damaged.

    chips    the chips it is for
    machine  board and chip as MicroPython calls them; None: it does not say
    program  its name, as "MicroPython"; None: it does not say
    version  likewise
    drive    (address, octets) of the file system; None: it does not say
    """

    def __init__(self, path, octets):
        self.octets = octets
        self._pages = _by_chip(path, octets)
        self.chips = sorted(self._pages)
        self.machine = self.program = self.version = self.drive = None
        for pages in self._pages.values():
            self._look_into(pages)

    def sectors(self, chip):
        """The addresses of the sectors that *chip* erases for it, in rising order."""
        return sorted({address - address % _SECTOR for address in self._pages[chip]})

    def _look_into(self, pages):
        memory = _Memory(pages)
        found = _ALIASES.search(memory.octets)
        if found:
            self.machine = found[1].decode().rpartition("; ")[2]
        for kind, entry in memory.info():
            if kind == _INFO_STRING:
                identity, text = struct.unpack_from("<2I", entry, 4)
                if identity == _PROGRAM:
                    self.program = memory.text(text)
                elif identity == _VERSION:
                    self.version = memory.text(text)
            elif kind == _INFO_DRIVE:
                self.drive = struct.unpack_from("<2I", entry, 8)


def _by_chip(path, octets):
    """By chip, the payloads by address. Raises CommandError."""
    if not octets or len(octets) % _BLOCK:
        raise CommandError(
            f"{path}: {len(octets):,} octets are no UF2 file, whose blocks have {_BLOCK}:"
            " was the download cut off?"
        )
    numbers = {}  # by family: [number of blocks, those that are there]
    pages = {}
    for at in range(0, len(octets), _BLOCK):
        block = octets[at : at + _BLOCK]
        *magic, flags, address, size, number, blocks, family = _HEAD.unpack_from(block)
        if tuple(magic) != _MAGIC or block[-4:] != _MAGIC_END:
            raise CommandError(f"{path}: damaged, block {at // _BLOCK} has no UF2 magic numbers")
        if flags & _NOT_MAIN or family == _ABSOLUTE:
            continue  # the latter: one block that works around erratum E10 of the RP2350
        if not flags & _HAS_FAMILY:
            raise CommandError(f"{path}: it does not say which chip it is for")
        if family not in _FAMILIES:
            name = _OTHERS.get(family, f"family {family:#010x}")
            hint = "; for an ESP32 take the .bin file" if name.startswith("ESP32") else ""
            raise CommandError(f"{path}: for {name}, not for RP2040 or RP2350{hint}")
        if size != _PAGE or address % _PAGE or not _FLASH <= address < _FLASH_END:
            raise CommandError(
                f"{path}: block {at // _BLOCK} is not for flash ({size} octets to {address:#x})"
            )
        known = numbers.setdefault(family, [blocks, set()])
        mine = pages.setdefault(_FAMILIES[family], {})
        if blocks != known[0] or not number < blocks or number in known[1] or address in mine:
            raise CommandError(f"{path}: damaged, block {at // _BLOCK} contradicts others")
        known[1].add(number)
        mine[address] = block[32 : 32 + _PAGE]
    for blocks, there in numbers.values():
        if len(there) != blocks:
            raise CommandError(
                f"{path}: {blocks - len(there)} of {blocks} blocks are missing:"
                " was the download cut off?"
            )
    if not pages:
        raise CommandError(f"{path}: there is nothing for flash in it")
    return pages


class _Memory:
    """Flash from its start on, as *pages* make it: octets by address."""

    def __init__(self, pages):
        end = max(pages) + _PAGE
        self.octets = bytearray(b"\xff" * (end - _FLASH))
        for address, page in pages.items():
            self.octets[address - _FLASH : address - _FLASH + _PAGE] = page

    def info(self):
        """Its entries of binary info: (kind, their first octets)."""
        octets = self.octets
        mark = struct.pack("<I", _INFO_START)
        at = octets.find(mark, 0, _INFO_WITHIN)
        while at >= 0:
            head = octets[at : at + _INFO.size]
            if len(head) == _INFO.size:
                _, start, end, _, last = _INFO.unpack(head)
                if last == _INFO_END:
                    yield from self._entries(start - _FLASH, end - _FLASH)
                    return
            at = octets.find(mark, at + 4, _INFO_WITHIN)

    def _entries(self, start, end):
        for at in range(start, min(end, len(self.octets) - 3), 4):
            entry = struct.unpack_from("<I", self.octets, at)[0] - _FLASH
            octets = bytes(self.octets[entry : entry + 24]) if entry >= 0 else b""
            if len(octets) == 24:
                yield struct.unpack_from("<H", octets)[0], octets

    def text(self, address):
        at = address - _FLASH
        if not 0 <= at < len(self.octets):
            return None
        return self.octets[at : at + 100].partition(b"\0")[0].decode("utf-8", "replace")
