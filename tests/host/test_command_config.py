"""`config`: what is checked, hashed, billed and made before anything reaches a board."""

import getpass
import json
import re
import sys

import pytest
from command import refused, run

from amqp_lite import Node, __version__
from amqp_lite.access import Access
from amqp_lite.config import load
from amqp_lite.limits import FIELDS, check, complete
from host_tools.files import profile_names, read_profile
from host_tools.main import main


def logs_in(password_hash, password):
    row = {"password_hash": password_hash, "configure": [], "write": [], "read": []}
    access = Access({"ann": row})
    return access.login(b"ann", password.encode(), "10.0.0.1") is not None


# --- check ---


def test_a_good_configuration(tmp_path):
    path = tmp_path / "edge.json"
    path.write_text('{"device": "edge-7", "queues": [{"name": "a"}, {"name": "b"}]}')
    assert run("config", "check", path) == (
        0, f"{path} is fine: device 'edge-7', 0 exchanges, 2 queues, 0 bindings, 0 bridges\n", "",
    )  # fmt: skip


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = tmp_path / "edge.json"
    path.write_bytes(b"\xef\xbb\xbf{}")
    assert run("config", "check", path)[0] == 0


def test_a_board_is_told_what_it_takes(tmp_path):
    path = tmp_path / "edge.json"
    path.write_text('{"profile": "pico_w"}')
    code, output, _ = run("config", "check", path)
    assert code == 0
    taken, heap = re.search(r"it takes (\d+) of (\d+) octets of heap", output).groups()
    assert int(taken) <= int(heap) == read_profile("pico_w")["heap"]


def test_bad_configurations(tmp_path):
    path = tmp_path / "edge.json"
    for text, line in (
        ("", "not JSON: "),
        ('{"queues": [{"name": "a", "durable": "yes"}]}',
         'queues[0].durable: expected true or false, got "yes"'),
        ('{"profile": "pico_w", "limits": {"messages": 600}}', "profile.heap: "),
        ('{"limits": {"queues": 1}, "queues": [{"name": "a"}, {"name": "b"}]}',
         "queues: 2, the profile has room for 1"),
        ('{"limits": {"send_buffer": 32768}}', "profile.receive_buffer: 32768, at most 31928: "),
        ("[" * 100000, "not JSON: "),
        ('{"device": "\\ud800"}', "device: "),
        ('{"listeners": [{"port": 1e999}]}', "listeners[0].port: expected a whole number"),
    ):  # fmt: skip
        path.write_text(text)
        assert refused("config", "check", path).startswith(f"{path}: {line}"), text
    assert refused("config", "check", tmp_path / "none") == (
        f"{tmp_path / 'none'}: No such file or directory"
    )


# --- hash-password ---


def test_a_hash_lets_its_password_in():
    code, output, errors = run("config", "hash-password", "s\u00e9same")
    assert (code, errors) == (0, "") and output.count("\n") == 1
    assert logs_in(output, "s\u00e9same") and not logs_in(output, "sesame")
    assert run("config", "hash-password", "s\u00e9same")[1] != output, "the salt is the same"


def test_the_password_comes_as_input():
    assert logs_in(run("config", "hash-password", given="from a pipe\n")[1], "from a pipe")


def test_the_password_is_asked_for_twice(monkeypatch, capsys):
    answers = ["secret", "secret", "secret", "other"]
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(getpass, "getpass", lambda _: answers.pop(0))
    assert main(["config", "hash-password"]) == 0
    assert logs_in(capsys.readouterr().out, "secret")
    assert main(["config", "hash-password"]) == 2
    assert capsys.readouterr().err == "amqp-lite: the two are not the same\n"


def test_no_password_is_no_password():
    assert refused("config", "hash-password", "") == "the password is empty"
    assert refused("config", "hash-password") == "the password is empty"


# --- budget ---


@pytest.mark.parametrize("name", profile_names())
def test_every_boards_profile_is_whole_and_possible(name):
    profile = read_profile(name)
    assert list(profile) == [row[0] for row in FIELDS]
    check(complete(profile))


def test_the_defaults_are_the_gateways():
    assert read_profile("linux") == complete()


@pytest.mark.parametrize("name", profile_names())
def test_the_bill_adds_up(name):
    code, output, errors = run("config", "budget", "--profile", name)
    assert (code, errors) == (0, "")
    rows = re.findall(r"^(\S.*?) +(\d+) +(\d+) +(\d+)$", output, re.MULTILINE)
    assert {"code", "messages", "queues", "send buffers"} <= {row[0] for row in rows}
    for what, many, each, together in rows:
        assert int(many) * int(each) == int(together), what
    together = int(re.search(r"^together +(\d+)$", output, re.MULTILINE)[1])
    assert together == sum(int(row[3]) for row in rows)
    heap = read_profile(name)["heap"]
    if heap:
        assert output.splitlines()[-1].split() == ["of", str(heap)]
        assert together <= heap


def test_the_bill_of_a_profile_that_does_not_fit(tmp_path, monkeypatch, capsys):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "profile.json").write_text('{"heap": 1000}')
    monkeypatch.setattr("host_tools.files.folder", lambda _: str(tmp_path))
    assert main(["config", "budget", "--profile", "tiny"]) == 2
    said = capsys.readouterr()
    assert "together" in said.out
    assert said.err.startswith("amqp-lite: profile.heap: 1000 octets, but ")


# --- new ---


@pytest.mark.parametrize("profile", [(), ("--profile", "pico_w"), ("--profile", "esp32")])
def test_a_new_configuration_is_good_and_its_password_works(profile, tmp_path):
    code, output, errors = run("config", "new", *profile)
    assert code == 0
    password = re.search(r"The password of 'sensor' is (\S+);", errors)[1]
    settings = load(output)
    assert logs_in(settings["users"]["sensor"]["password_hash"], password)
    path = tmp_path / "new.json"
    path.write_text(output)
    assert run("config", "check", path)[0] == 0
    assert json.loads(output)["exchanges"]
    assert json.loads(output)["store"]["kind"] == ("board" if profile else "file")


def test_a_new_configuration_for_no_board():
    code, output, errors = run("config", "new", "--profile", "pico")
    assert (code, output) == (2, "")
    assert errors.startswith("amqp-lite: ") and "'pico'" in errors and errors.count("\n") == 1


# --- complete ---


def test_a_complete_configuration_is_taken_as_it_is(tmp_path):
    path = tmp_path / "edge.json"
    path.write_text('{"device": "d", "profile": "pico_w", "queues": [{"name": "a"}]}')
    code, output, errors = run("config", "complete", path)
    assert (code, errors) == (0, "")
    settings = json.loads(output)
    assert settings["profile"]["connections"] == 3 and settings["checked"] == __version__
    settings["listeners"] = []
    node = Node(settings)
    assert node.status()["queues"]["a"]["ready"] == 0
    node.close()
    path.write_text('{"device": 1}')
    assert refused("config", "complete", path).startswith(f"{path}: device: expected a string")
