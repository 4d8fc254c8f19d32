"""A .bin file for an ESP32: boot loader, partition table and MicroPython, as they lie in flash.

    0    0xE9, which every image for the boot ROM begins with
    12   number of the chip, u16 little-endian (esptool, firmware image format)

The partition table is at 0x8000 of the flash, in rows of 32 octets:

    0    0xAA 0x50, type, subtype, offset u32, size u32
    12   name, padded with zeros
"""

import re
import struct

from .errors import CommandError

MAGIC = b"\xe9"
TABLE_AT = 0x8000  # in flash
TABLE_SIZE = 0xC00
_ROW = struct.Struct("<2s2B2I16s")
_ROW_SIZE = 32
_ROW_MAGIC = b"\xaaP"
_DATA = 1  # type of a partition
_SYSTEM = range(6)  # subtypes of what belongs to the firmware: where it starts, radio, ...
_FILE_SYSTEMS = ("vfs", "ffat")

# By the number in an image: the chip as esptool calls it, and where its boot loader lies in flash
# (esptool, boot mode selection: "flash offset of the second stage bootloader").
_CHIPS = {
    0: ("ESP32", 0x1000),
    2: ("ESP32-S2", 0x1000),
    5: ("ESP32-C3", 0x0),
    9: ("ESP32-S3", 0x0),
    12: ("ESP32-C2", 0x0),
    13: ("ESP32-C6", 0x0),
    16: ("ESP32-H2", 0x0),
    18: ("ESP32-P4", 0x2000),
    20: ("ESP32-C61", 0x0),
    23: ("ESP32-C5", 0x2000),
}


class EspImage:
    """The image in *octets* of the file *path*. Raises CommandError when it cannot be installed.

    chip     as esptool calls it
    offset   where it belongs in flash
    table    its partition table, see kept_partitions()
    machine  board and chip as MicroPython calls them; None: it does not say
    """

    def __init__(self, path, octets):
        if len(octets) < 24:
            raise CommandError(f"{path}: {len(octets)} octets are no image for an ESP32")
        number = struct.unpack_from("<H", octets, 12)[0]
        if number not in _CHIPS:
            raise CommandError(f"{path}: for a chip with the number {number}, not known here")
        self.chip, self.offset = _CHIPS[number]
        self.table = octets[TABLE_AT - self.offset :][:TABLE_SIZE]
        if not self.table.startswith(_ROW_MAGIC):
            raise CommandError(
                f"{path}: no partition table in it; take the .bin file with boot loader and all,"
                " not the one for an update"
            )
        end = self.offset + len(octets)
        for name, (offset, _) in kept_partitions(self.table, end).items():
            if end > offset:
                raise CommandError(f"{path}: damaged, it reaches into its own partition {name}")
        found = re.search(rb"([ -~]{3,60} with ESP32[A-Z0-9-]*)", octets)
        self.machine = found[1].decode().rpartition("; ")[2] if found else None


def kept_partitions(table, flash_size):
    """Those of a partition *table* that hold something of the user's: {name: (offset, octets)}.

    Without a row for the file system MicroPython gives it the rest of flash.
    """
    found = {}
    end = 0
    for at in range(0, len(table) - _ROW_SIZE + 1, _ROW_SIZE):
        magic, kind, subtype, offset, size, name = _ROW.unpack_from(table, at)
        if magic != _ROW_MAGIC:
            break
        end = max(end, offset + size)
        if kind == _DATA and subtype not in _SYSTEM:
            found[name.partition(b"\0")[0].decode("utf-8", "replace")] = (offset, size)
    if end < flash_size and not any(name in found for name in _FILE_SYSTEMS):
        found[_FILE_SYSTEMS[0]] = (end, flash_size - end)
    return found
