"""amqplib (Node.js): the cases are in node/cases.js, each runs as a process of its own."""

import pathlib
import re
import subprocess

import pytest

NODE = pathlib.Path(__file__).parent / "node"
CASES = re.findall(
    r"^  (?:async )?(\w+)\([a-z]*\) \{$", (NODE / "cases.js").read_text(), re.MULTILINE
)

@pytest.mark.parametrize("case", CASES)
def test_amqplib(node_modules, broker, fresh, limits, case):
    name = fresh.queue(case)
    fresh.exchanges += [name, name + "-2"]
    command = ["node", "cases.js", case, broker.url, name, str(limits.body)]
    done = subprocess.run(command, cwd=NODE, timeout=20, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_case_is_run(node_modules):
    command = ["node", "cases.js", "list"]
    listed = subprocess.run(command, cwd=NODE, timeout=20, capture_output=True, text=True)
    assert listed.stdout.split() == CASES
