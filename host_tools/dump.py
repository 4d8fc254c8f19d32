"""A ring of segment files in a dump of flash: they lie in the board's file system, littlefs.

That is read by littlefs-python, which need not be there for anything else. The dump is only read.
"""

import json
import os
import re

from .errors import CommandError

_MAGIC = b"littlefs"
_MAGIC_AT = 8  # in the first or second block; from 24 on, size and number of blocks (SPEC.md)
_BLOCK = 4096  # octets, of both RP2 and ESP32
_CONFIG = "/config.json"
_RING = "/ring"


def extract_segments(octets, path, folder):
    """Copy the segments in the dump *octets* into *folder*: whether there are any.

    path  of the dump, for errors

    Raises CommandError without littlefs-python.
    """
    found = list(_file_systems(octets))
    if not found:
        return False
    try:
        import littlefs
    except ImportError:
        raise CommandError(
            f"{path}: it holds a file system (littlefs), and littlefs-python is needed to look"
            " for the ring there: `python3 -m pip install littlefs-python`", 1,
        ) from None  # fmt: skip
    for base, count in found:
        files = _mount(littlefs, octets[base : base + count * _BLOCK], count)
        if files is not None and _copy(littlefs, files, folder):
            return True
    return False


def _file_systems(octets):
    """Where one may begin, and how many blocks it has."""
    for at in range(0, len(octets) - _BLOCK + 1, _BLOCK):
        if octets[at + _MAGIC_AT : at + _MAGIC_AT + len(_MAGIC)] == _MAGIC:
            size = int.from_bytes(octets[at + 24 : at + 28], "little")
            count = int.from_bytes(octets[at + 28 : at + 32], "little")
            if size == _BLOCK and 2 <= count <= 1 << 20:
                yield at, count
                if at:
                    yield at - _BLOCK, count


def _mount(littlefs, octets, count):
    """The file system in *octets*, which is a copy; None: there is none."""
    octets = bytearray(octets)
    octets += b"\xff" * (count * _BLOCK - len(octets))
    context = littlefs.UserContext(buffer=octets)
    files = littlefs.LittleFS(context, mount=False, block_size=_BLOCK, block_count=count)
    try:
        files.mount()
    except littlefs.LittleFSError:
        return None
    return files


def _copy(littlefs, files, folder):
    """Copy the segments to where the configuration says they are, or where they use to be."""
    failures = (littlefs.LittleFSError, OSError)
    where = _RING
    try:
        store = json.loads(_read(files, _CONFIG))["store"]
        if store["kind"] in ("flash", "partition"):
            return False  # it is outside, and what is here is older
        where = store.get("path", where)
    except (*failures, ValueError, KeyError, TypeError):
        pass  # none, or a torn one
    try:
        names = files.listdir(where)
    except failures:
        return False
    count = 0
    for name in names:
        if re.fullmatch(r"\d{4,5}\.(log|fix)", name):
            try:
                octets = _read(files, f"{where}/{name}")
            except failures:
                continue  # what can be read of it
            with open(os.path.join(folder, name), "wb") as copy:
                copy.write(octets)
            count += 1
    return count > 0


def _read(files, path):
    with files.open(path, "rb") as file:
        return file.read()
