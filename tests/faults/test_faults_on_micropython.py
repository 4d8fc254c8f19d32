"""The power cuts once more, on MicroPython. The model takes more memory than the store does."""

from pathlib import Path

import micropython_runs
import pytest

HERE = Path(__file__).parent
PORTABLE = HERE.parent / "portable"
LIB = HERE.parent.parent / "lib"
HEAP = "4M"
SECONDS = 600


def start(name):
    return micropython_runs.start(name, HEAP, f".:{LIB}:{PORTABLE}:.frozen", HERE, SECONDS)


@pytest.mark.parametrize("name", ["test_power_cuts", "test_worn"])
def test_on_micropython(name):
    micropython_runs.check(start(name))
