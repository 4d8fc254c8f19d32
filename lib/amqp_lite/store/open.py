"""From the configuration's `store` to a device. Needed once, at start.

    {"kind": "file", "path", "size"}       one file of a gateway, or a dump of a board's flash with
                                           its "sector_size" 4096 and "page_size" 256
    {"kind": "segments", "path", "size"}   a folder, on any file system
    {"kind": "flash", "start", "size"}     RP2: octets of flash behind the file system
    {"kind": "partition", "label"}         ESP32
    {"kind": "board", "size"}              what the board has of them: firmware/main.py asks it

Sizes are octets. Segments, also as what a board has, take "commit_ms" as well: how long a message
waits for others that can be made safe with it, and its confirm with it, since each time costs an
erase.
"""

import os

from ..checks import check_keys, check_number, show
from ..compat import const, crc32
from ..errors import ConfigError
from .sectors import MAGIC

# Of each kind: the keys it must have, those it may have.
_KEYS = {
    "file": (("path", "size"), ("sector_size", "page_size")),
    "segments": (("path", "size"), ("commit_ms",)),
    "flash": (("start", "size"), ()),
    "partition": (("label",), ()),
    "board": (("size",), ("commit_ms",)),
}
_SECTOR = {"file": 65536, "segments": 32768, "flash": 4096, "board": 32768}  # octets
_PAGE = const(4096)  # octets, of a file
_FEWEST = const(4)  # sectors a ring needs
_MOST = const(65535)
_COMMIT_MS = const(60000)  # at most
_LARGEST = const(0x3FFFFFFF)  # octets: addresses are small ints of 32 bits
_EBUSY = const(16)


def check_store(settings, path):
    """Raises ConfigError, naming the key, unless *settings* can name a device somewhere."""
    check_keys(settings, None, path)
    kind = settings.get("kind")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise ConfigError(
            "%s.kind: expected file or segments or flash or partition or board, got %s"
            % (path, show(kind))
        )
    required, optional = _KEYS[kind]
    check_keys(settings, ("kind",) + required + optional, path)
    for key in required:
        if key not in settings:
            raise ConfigError("%s.%s: missing" % (path, key))
        value = settings[key]
        if key in ("path", "label") and not (isinstance(value, str) and value):
            raise ConfigError("%s.%s: expected a name, got %s" % (path, key, show(value)))
    if kind != "partition":
        sector = settings.get("sector_size", _SECTOR[kind])
        check_number(sector, 1024, 65536, path + ".sector_size")
        page = settings.get("page_size", min(_PAGE, sector))
        check_number(page, 64, 4096, path + ".page_size")
        if sector & sector - 1 or page & page - 1 or 16 + sector // 128 > page:
            raise ConfigError(
                "%s.sector_size: %d in pages of %d cannot be" % (path, sector, page)
            )
        size = settings["size"]
        check_number(size, _FEWEST * sector, min(_MOST * sector, _LARGEST), path + ".size")
        if size % sector:
            raise ConfigError("%s.size: %d is not a multiple of %d" % (path, size, sector))
    if "commit_ms" in settings:
        check_number(settings["commit_ms"], 0, _COMMIT_MS, path + ".commit_ms")
    if kind == "flash":
        check_number(settings["start"], 0, 0x3FFFFFFF, path + ".start")
        if settings["start"] % 4096:
            raise ConfigError(
                "%s.start: %d is not a multiple of 4096" % (path, settings["start"])
            )


def open_device(settings, path):
    """The device that *settings*, which check_store() passed, name.

    path  of the settings, for errors

    Raises ConfigError when it cannot be used here.
    """
    kind = settings["kind"]
    if kind == "board":
        raise ConfigError(
            '%s.kind: "board" means something to firmware/main.py only, expected file or segments'
            % path
        )
    if kind == "flash":
        return _open_flash(settings, path)
    if kind == "partition":
        return _open_partition(settings["label"], path)
    name = settings["path"]
    size = settings["size"]
    try:
        if kind == "file":
            from .file import FileFlash

            sector = settings.get("sector_size", _SECTOR[kind])
            page = settings.get("page_size", min(_PAGE, sector))
            _check_geometry(name, sector, page, path)
            return FileFlash(name, size, sector, page)
        from .segments import SegmentFlash

        device = SegmentFlash(name, size // _SECTOR[kind])
        device.commit_ms = settings.get("commit_ms", device.commit_ms)
        return device
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == _EBUSY:
            raise ConfigError("%s.path: %s is in use by another process" % (path, show(name)))
        raise ConfigError("%s.path: cannot use %s: %s" % (path, show(name), error))


def _check_geometry(name, sector_size, page_size, path):
    """Raises ConfigError for a ring of other sectors or pages: a start would make it useless."""
    try:
        file = open(name, "rb")
    except OSError:
        return  # a new one
    with file:
        for k in range(256):
            file.seek(k * 4096)
            head = file.read(16)
            crc = bytearray(4)
            if len(head) < 16 or head[0] != MAGIC:
                continue
            crc32(crc, head, 0, 12)
            if crc != head[12:]:
                continue
            sector = 256 << (head[1] >> 4)
            page = 16 << (head[1] & 15)
            if (sector, page) != (sector_size, page_size):
                raise ConfigError(
                    "%s.path: %s is a ring with sectors of %d octets in pages of %d: "
                    "say so with sector_size and page_size, or name another file"
                    % (path, show(name), sector, page)
                )
            return


def _open_flash(settings, path):
    from .device import BlockFlash

    try:
        import rp2
    except ImportError:
        raise ConfigError('%s.kind: "flash" is only on RP2 boards' % path)
    start = settings["start"]
    size = settings["size"]
    root = os.statvfs("/")
    if start < root[1] * root[2]:
        # Stock firmware gives all of it to the file system, which would be overwritten.
        raise ConfigError(
            "%s.start: %d is inside of the file system, which has %d octets"
            % (path, start, root[1] * root[2])
        )
    try:
        return BlockFlash(rp2.Flash(start=start, len=size), 0, size // 4096)
    except ValueError:
        raise ConfigError("%s.size: there are no %d octets from %d on" % (path, size, start))


def _open_partition(label, path):
    from .device import BlockFlash

    path += ".label"
    try:
        from esp32 import Partition
    except ImportError:
        raise ConfigError("%s: partitions are only on ESP32 boards" % path)
    found = Partition.find(Partition.TYPE_DATA, label=label)
    if not found:
        raise ConfigError("%s: no data partition is named %s" % (path, show(label)))
    if found[0].info()[5]:
        raise ConfigError("%s: %s is encrypted, which no ring can use" % (path, show(label)))
    sectors = found[0].ioctl(4, 0)  # the block protocol's count of blocks
    if sectors < _FEWEST:
        raise ConfigError(
            "%s: %s has %d sectors, at least %d are needed" % (path, show(label), sectors, _FEWEST)
        )
    return BlockFlash(found[0], 0, sectors)
