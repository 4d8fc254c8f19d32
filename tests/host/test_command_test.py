"""`test`: makes .venv once, then runs pytest in it. Only watched: these tests run in there."""

import pytest

from host_tools import test
from host_tools.errors import CommandError
from host_tools.main import main


class Watch:
    """In place of subprocess.call: notes the commands, and answers what it was told to."""

    def __init__(self):
        self.commands = []
        self.answers = {}

    def __call__(self, command, **_):
        self.commands.append(command)
        for word, code in self.answers.items():
            if word in command:
                return code
        return 0

    def words(self):
        return [next(w for w in ("import pip", "venv", "install", "pytest") if w in command)
                for command in self.commands]  # fmt: skip


@pytest.fixture
def watch(monkeypatch, tmp_path):
    watch = Watch()
    monkeypatch.setattr(test.subprocess, "call", watch)
    monkeypatch.setattr(test, "_INSTALLED", str(tmp_path / "installed.toml"))
    return watch


def test_the_first_time_it_installs(watch):
    watch.answers = {"import pip": 1}
    assert main(["test"]) == 0
    assert watch.words() == ["import pip", "import pip", "venv", "install", "pytest"]
    assert watch.commands[-2][-1].endswith("[test]")


def test_later_it_only_runs(watch):
    main(["test"])
    watch.commands.clear()
    assert main(["test", "--", "-k", "one", "tests/host"]) == 0
    assert watch.words() == ["import pip", "pytest"]
    assert watch.commands[-1][-3:] == ["-k", "one", "tests/host"]


def test_another_project_file_installs_again(watch):
    main(["test"])
    watch.commands.clear()
    with open(test._INSTALLED, "a") as installed:
        installed.write("# older")
    main(["test"])
    assert watch.words() == ["import pip", "import pip", "install", "pytest"]


def test_half_an_install_is_repeated(watch, capsys):
    watch.answers = {"install": 1}
    assert main(["test"]) == 1
    assert capsys.readouterr().err == "amqp-lite: pip could not install the test extra\n"
    watch.answers = {}
    assert main(["test"]) == 0
    assert watch.words()[-2:] == ["install", "pytest"]


def test_the_exit_code_is_pytests(watch):
    watch.answers = {"pytest": 5}
    assert main(["test"]) == 5


def test_without_venv_it_says_what_to_install(watch, capsys):
    watch.answers = {"import pip": 1, "venv": 1}
    assert main(["test"]) == 1
    assert "apt install python3-venv" in capsys.readouterr().err


def test_only_a_checkout_has_tests(monkeypatch, tmp_path):
    monkeypatch.setattr(test, "ROOT", str(tmp_path))
    with pytest.raises(CommandError, match="checkout"):
        test.do_test(None)
