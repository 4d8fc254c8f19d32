"""An emulated Pico W with the official firmware, and the whole project on it.

    PICO_W_UF2=firmware.uf2 pytest tests/board      with this firmware; see uf2_image.py
    BOARD_SEED=7 BOARD_CUTS=200 pytest tests/board -k cuts
    BOARD_REPORT=figures.json pytest tests/board    the figures, also as JSON

The figures that were measured are printed at the end.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import sys

import pytest
from deadlines import deadline

_TESTS = pathlib.Path(__file__).resolve().parents[1]
# The real RabbitMQ of the bridge's tests, and what that needs.
sys.path += [str(_TESTS / name) for name in ("bench", "interop", "upstream")]

TEST_SECONDS = int(os.environ.get("BOARD_TEST_S", 240))
_FIGURES = pytest.StashKey()


def pytest_configure(config):
    config.stash[_FIGURES] = []


@pytest.fixture(autouse=True)
def _in_time(request):
    with deadline(request.node.name, TEST_SECONDS):
        yield


# --- what is measured ---


@pytest.fixture(scope="session")
def report(request):
    """report(what, text, **numbers): a line of the summary, and an object of the JSON file."""

    def add(what, text, **numbers):
        print(f"\n{what}: {text}")
        request.config.stash[_FIGURES].append((what, text, numbers))

    return add


def pytest_terminal_summary(terminalreporter, config):
    figures = config.stash[_FIGURES]
    if not figures:
        return
    terminalreporter.section("emulated Pico W")
    width = max(len(what) for what, _, _ in figures)
    for what, text, _ in figures:
        terminalreporter.write_line(f"{what:<{width}}  {text}")
    path = os.environ.get("BOARD_REPORT")
    if path:
        rows = [dict(numbers, what=what, text=text) for what, text, numbers in figures]
        pathlib.Path(path).write_text(json.dumps(rows, indent=1) + "\n")


# --- boards ---


@pytest.fixture(scope="session")
def image():
    """The path of a firmware; without one, or without an emulator, all tests here are skipped."""
    if sys.platform == "win32":
        pytest.skip("the emulated board needs pseudo-terminals")
    if importlib.util.find_spec("rp2040py") is None:
        pytest.skip("no rp2040py: pip install rp2040py==0.3.6, with Python 3.10 or newer")
    import uf2_image

    path, why = uf2_image.find()
    if why:
        pytest.skip(why)
    return path


@pytest.fixture(scope="session")
def settings():
    """The configuration of the boards; copy it before it is changed."""
    import emulated

    return emulated.base_settings()


@pytest.fixture(scope="session")
def deployed(image, settings, tmp_path_factory, report):
    """The flash image of a board that `amqp-lite deploy` has just filled."""
    import emulated

    folder = tmp_path_factory.mktemp("deployed")
    config = folder / "config.json"
    config.write_text(json.dumps(settings))
    board = emulated.Board(folder / "flash.img")
    try:
        board.on("--uf2", image, serves=False)
        if not board.is_fast():
            pytest.skip("no C compiler (cc): without it an emulated second takes minutes")
        span = board.span()
        said = board.tool("deploy", "--config", config)
        board.wait_until_serving()
        span.end()
    finally:
        board.cut()
    report(
        "firmware", f"{image.name}", file=image.name
    )
    done = next(line for line in said.splitlines() if "copied and verified" in line)
    report(
        "deploy to an empty board", f"{done}; {span.programs} programs, {span.erases} erases",
        programs=span.programs, erases=span.erases,
    )  # fmt: skip
    return board.flash


@pytest.fixture
def make_board(deployed, tmp_path):
    """Makes an emulated.Board that was deployed to, and is off; keywords are those of Board.

    make_board(settings, app)   with another configuration, or the text of an app.py
    """
    import emulated

    made = []

    def make(settings=None, app=None, **options):
        flash = tmp_path / f"board-{len(made)}.img"
        shutil.copy(deployed, flash)
        board = emulated.Board(flash, **options)
        made.append(board)
        arguments = []
        if settings is not None:
            config = flash.with_suffix(".json")
            config.write_text(json.dumps(settings))
            arguments += ["--config", config]
        if app is not None:
            program = flash.with_suffix(".py")
            program.write_text(app)
            arguments += ["--app", program]
        if arguments:
            board.on(serves=False)
            board.tool("deploy", "--no-reset", *arguments)
            board.cut()
        return board

    yield make
    for board in made:
        if board.is_on():
            board.cut()


@pytest.fixture
def board(make_board):
    """One that serves."""
    return make_board().on()
