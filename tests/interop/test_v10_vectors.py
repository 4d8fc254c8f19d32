"""The AMQP 1.0 values that tests/portable/v10_vectors.py keeps are what proton and rhea write.

    python tests/interop/test_v10_vectors.py     writes that file anew
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from amqp_lite.v10.values import Described, Symbol, write_value
from v10_vectors import PROTON, RHEA

HERE = pathlib.Path(__file__).resolve().parent
KEPT = HERE.parent / "portable" / "v10_vectors.py"


def by_rhea():
    done = subprocess.run(
        ["node", HERE / "node" / "v10_vectors.js"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return {name: bytes.fromhex(text) for name, text in json.loads(done.stdout).items()}


def test_rhea(node_modules):
    assert by_rhea() == RHEA


@pytest.fixture
def proton():
    if not os.environ.get("CI"):
        pytest.importorskip("proton", reason="no proton: pip install python-qpid-proton")
    import proton_vectors

    return proton_vectors


def test_proton(proton):
    assert proton.vectors() == PROTON


def test_what_we_write_is_read_by_proton(proton):
    from proton import Described as OfProton
    from proton import symbol

    for value in (
        None, True, False, 0, -1, 127, 128, -(2**63), 2**63 - 1, 2.5, "", "grüß" * 100, b"\0\xff",
        b"x" * 300, [], [1, [2, [None]]], {}, {"a": {"b": [1]}}, ["x" * 255],
    ):  # fmt: skip
        assert proton.read(write_value(value)) == value, value
    assert proton.read(write_value(Symbol("a:b"))) == symbol("a:b")
    assert proton.read(write_value({Symbol("k"): 1})) == {symbol("k"): 1}
    found = proton.read(write_value(Described(Symbol("d"), ["x"])))
    assert found == OfProton(symbol("d"), ["x"])


def _rows(name, vectors):
    yield f"{name} = {{"
    for key, octets in vectors.items():
        yield f'    "{key}": {octets!r},'
    yield "}  # fmt: skip"


if __name__ == "__main__":
    import proton_vectors


    lines = [
        '"""AMQP 1.0 values as other implementations write them.',
        "",
        'tests/interop/test_v10_vectors.py made this file, and compares it."""',
        "",
        "# ruff: noqa: E501",
        "",
        *_rows("RHEA", by_rhea()),
        *_rows("PROTON", proton_vectors.vectors()),
    ]
    KEPT.write_text("\n".join(lines) + "\n")
    sys.stdout.write(f"{KEPT}\n")
