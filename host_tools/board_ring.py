"""The ring of a board, copied to this machine: what `amqp-lite ring ... --port` looks into."""

import ast
import binascii
import json
import os
import re
import sys

from .connection import BoardError, open_board
from .errors import CommandError
from .progress import open_progress

_CONFIGS = ("/config.json", "/config.old.json")
_SEGMENTS = {"kind": "segments", "path": "/ring"}  # where there is no other word for it
_BLOCK = 4096  # octets
_AT_ONCE = 8  # blocks
_WHERE = """
from board import here
print(here().flash(%d))
"""
_LIST = """
import os
try:
    print([(row[0], row[3]) for row in os.ilistdir(%r)])
except OSError:
    print([])
"""
_DEVICES = {
    "flash": "__import__('rp2').Flash(start=%(start)d, len=%(size)d)",
    "partition": "__import__('esp32').Partition.find(1, label=%(label)r)[0]",
}
_READ = """
from binascii import b2a_base64
d = %s
b = bytearray(4096)
for n in range(%d, %d):
    d.readblocks(n, b)
    for i in range(0, 4096, 1024):
        print(str(b2a_base64(memoryview(b)[i:i + 1024]), "ascii"), end="")
"""


def fetch_ring(port, folder):
    """Copy the ring of the board at *port* into *folder*: its path there, and what to call it.

    The broker on the board is interrupted for that, and starts again. Raises CommandError.
    """
    with open_board(port) as board:
        print(f"{board.port}: its broker is interrupted, and starts again when the ring is read",
              file=sys.stderr)  # fmt: skip
        board.interrupt()
        try:
            store = _store(board)
            if store is None:
                raise CommandError(f"{board.port}: its broker keeps all in RAM, there is no ring")
            kind = store["kind"]
            if kind == "segments":
                return _fetch_segments(board, store["path"], folder)
            if kind == "file":
                return _fetch_file(board, store["path"], folder)
            return _fetch_blocks(board, _DEVICES[kind] % store, folder), f"{board.port}, {kind}"
        finally:
            board.restart()


def _store(board):
    """The `store` of its configuration, as this board takes it."""
    for path in _CONFIGS:
        try:
            store = json.loads(board.read(path))["store"]
        except (BoardError, ValueError, KeyError, TypeError):
            continue  # none, or a torn one
        if store is None or store["kind"] != "board":
            return store
        try:
            return ast.literal_eval(board.run(_WHERE % store["size"]))
        except BoardError:  # its programs are gone
            break
    return _SEGMENTS


def _fetch_segments(board, path, folder):
    rows = ast.literal_eval(board.run(_LIST % path))
    files = [(name, size) for name, size in rows if re.fullmatch(r"\d{4,5}\.(log|fix)", name)]
    if not files:
        raise CommandError(f"{board.port}: no segments of a ring in {path}", 1)
    progress = open_progress(sum(size for _, size in files), len(files), sys.stderr)
    try:
        for name, size in files:
            progress.begin(f"{path}/{name}", size)
            _write(os.path.join(folder, name), board.read(f"{path}/{name}"))
            progress.add(size)
    finally:
        progress.end()
    return folder, f"{board.port}, {path}"


def _fetch_file(board, path, folder):
    copy = os.path.join(folder, "ring")
    _write(copy, board.read(path))
    return copy, f"{board.port}, {path}"


def _fetch_blocks(board, device, folder):
    """Read a block device, which is all ring."""
    path = os.path.join(folder, "ring")
    blocks = board.value(f"{device}.ioctl(4, 0)")
    progress = open_progress(blocks * _BLOCK, 1, sys.stderr)
    progress.begin("ring", blocks * _BLOCK)
    try:
        with open(path, "wb") as file:
            for first in range(0, blocks, _AT_ONCE):
                last = min(first + _AT_ONCE, blocks)
                lines = board.run(_READ % (device, first, last)).splitlines()
                octets = b"".join(map(binascii.a2b_base64, lines))
                if len(octets) != (last - first) * _BLOCK:
                    raise CommandError(f"{board.port}: blocks of the ring came damaged", 1)
                file.write(octets)
                progress.add(len(octets))
    except binascii.Error:
        raise CommandError(f"{board.port}: blocks of the ring came damaged", 1) from None
    finally:
        progress.end()
    return path


def _write(path, octets):
    with open(path, "wb") as file:
        file.write(octets)
