"""The portable tests once more, on MicroPython with a board's heap.

One process for each module, so that none lives on what another left. The heap of a Pico W is
196 KB; the desktop's MicroPython has pointers twice as wide, and compiles the sources itself, and
the flash is in it as well. What fits on the board, limits.py and test_code_size.py say.
"""

from pathlib import Path

import micropython_runs
import pytest

PORTABLE = Path(__file__).parent / "portable"
ROOT = Path(__file__).parent.parent
HEAP = "800k"
TWO_BROKERS = "1600k"
SECONDS = 300


def start(name):
    two = "from bridged import" in (PORTABLE / f"{name}.py").read_text()
    path = f".:{ROOT}/lib:{ROOT}:.frozen"
    return micropython_runs.start(name, TWO_BROKERS if two else HEAP, path, PORTABLE, SECONDS)


@pytest.mark.parametrize("name", sorted(path.stem for path in PORTABLE.glob("test_*.py")))
def test_on_micropython(name):
    micropython_runs.check(start(name))
