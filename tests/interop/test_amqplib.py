"""amqplib (Node.js): the cases are in node/cases.js, each runs as a process of its own."""

import pathlib
import re
import shutil
import subprocess

import pytest

NODE = pathlib.Path(__file__).parent / "node"
CASES = re.findall(
    r"^  (?:async )?(\w+)\([a-z]*\) \{$", (NODE / "cases.js").read_text(), re.MULTILINE
)

pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="needs node and npm"
)


@pytest.fixture(scope="session")
def amqplib():
    """node/node_modules as package-lock.json says, installed when it is absent or older."""
    installed = NODE / "node_modules" / ".package-lock.json"
    lock = NODE / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=NODE, timeout=120, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        installed.touch()


@pytest.mark.parametrize("case", CASES)
def test_amqplib(amqplib, broker, fresh, limits, case):
    name = fresh.queue(case)
    fresh.exchanges += [name, name + "-2"]
    command = ["node", "cases.js", case, broker.url, name, str(limits.body)]
    done = subprocess.run(command, cwd=NODE, timeout=20, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_case_is_run(amqplib):
    command = ["node", "cases.js", "list"]
    listed = subprocess.run(command, cwd=NODE, timeout=20, capture_output=True, text=True)
    assert listed.stdout.split() == CASES
