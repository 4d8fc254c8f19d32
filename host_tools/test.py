"""`amqp-lite test`: every test, in an environment of its own."""

import os
import subprocess
import sys

from .errors import CommandError
from .files import ROOT, read_text

_PROJECT = os.path.join(ROOT, "pyproject.toml")
_VENV = os.path.join(ROOT, ".venv")
_PYTHON = os.path.join(
    _VENV, *(("Scripts", "python.exe") if os.name == "nt" else ("bin", "python"))
)
# The project file that was installed there last; written at the end, so that half an install is
# made anew.
_INSTALLED = os.path.join(_VENV, "installed.toml")


def do_test(args):
    if not os.path.isdir(os.path.join(ROOT, "tests")):
        raise CommandError("the tests are in a checkout of the project only")
    wanted = read_text(_PROJECT)
    if not _works() or not os.path.exists(_INSTALLED) or read_text(_INSTALLED) != wanted:
        _install()
        with open(_INSTALLED, "w", encoding="utf-8") as file:
            file.write(wanted)
    return subprocess.call([_PYTHON, "-m", "pytest", *args.arguments], cwd=ROOT)


def _works():
    """Whether the environment's Python and its pip are there; the Python may have moved away."""
    try:
        return not subprocess.call([_PYTHON, "-c", "import pip"], stderr=subprocess.DEVNULL)
    except OSError:
        return False


def _install():
    if not _works():
        print("making .venv", flush=True)
        if subprocess.call([sys.executable, "-m", "venv", "--clear", _VENV]):
            raise CommandError("no .venv could be made; on Debian: apt install python3-venv", 1)
    print("installing the test extra", flush=True)
    command = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.call([_PYTHON, *command, "--editable", f"{ROOT}[test]"]):
        raise CommandError("pip could not install the test extra", 1)
