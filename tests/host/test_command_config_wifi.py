"""`config wifi`: the network of a board in a configuration file."""

import json

import pytest
from command import refused, run

NEW = {"device": "edge-1", "queues": [{"name": "a"}]}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(NEW))
    return path


def wifi(file, *arguments, given=""):
    code, output, errors = run("config", "wifi", file, *arguments, given=given)
    assert code == 0, errors
    assert output.startswith(f"{file}: the network is ")
    assert run("config", "check", file)[0] == 0
    return json.loads(file.read_text())


def test_all_of_it(file):
    arguments = ["--ssid", "Büro", "--password", "secret 12", "--country", "DE"]
    arguments += ["--power-save", "none", "--hostname", "edge-one"]
    expected = {"ssid": "Büro", "password": "secret 12", "country": "DE", "power_save": "none"}
    assert wifi(file, *arguments) == {**NEW, "wifi": {**expected, "hostname": "edge-one"}}
    text = file.read_text()
    assert text.startswith('{\n  "device": "edge-1"') and text.endswith("}\n") and "Büro" in text


def test_the_password_is_read_and_the_rest_stays(file):
    settings = wifi(file, "--ssid", "one", "--country", "DE", given="password 1\n")
    assert settings["wifi"] == {"ssid": "one", "password": "password 1", "country": "DE"}
    settings = wifi(file, "--ssid", "two", "--password", "")
    assert settings["wifi"] == {"ssid": "two", "password": "", "country": "DE"}


def test_mistakes_leave_the_file_as_it_was(file, tmp_path):
    before = file.read_text()
    for arguments, error in (
        (["--ssid", "x" * 33, "--password", ""], "wifi.ssid: more than 32 octets"),
        (["--ssid", "x", "--password", "short"], "wifi.password: "),
        (["--ssid", "x", "--password", "", "--country", "de"], "wifi.country: "),
    ):
        assert refused("config", "wifi", file, *arguments).startswith(f"{file}: {error}")
        assert file.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    missing = tmp_path / "none.json"
    text = refused("config", "wifi", missing, "--ssid", "x", "--password", "")
    assert text == f"{missing}: No such file or directory"
    file.write_text("[]")
    text = refused("config", "wifi", file, "--ssid", "x", "--password", "")
    assert text == f"{file}: configuration: expected an object"


def test_a_link_stays_a_link(file, tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(file)
    file.chmod(0o600)
    wifi(link, "--ssid", "one", "--password", "")
    assert link.is_symlink() and json.loads(file.read_text())["wifi"]["ssid"] == "one"
    assert file.stat().st_mode & 0o777 == 0o600
