"""What the command line says when something outside of it is missing."""

import importlib

import pytest

from host_tools import main as program


def without(name):
    """import_module() on a machine without the module *name*."""

    def load(*arguments):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    return load


@pytest.mark.parametrize("name", ["serial", "serial.tools", "mpremote"])
@pytest.mark.parametrize("command", ["boards", "status", "reset"])
def test_without_the_packages_for_boards(command, name, monkeypatch, capsys):
    monkeypatch.setattr(importlib, "import_module", without(name))
    assert program.main([command]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err == (
        "amqp-lite: boards are reached through pyserial and mpremote: python3 -m pip install"
        " pyserial mpremote\n"
    )


def test_a_module_of_our_own_that_is_missing_is_our_mistake(monkeypatch):
    monkeypatch.setattr(importlib, "import_module", without("host_tools.status"))
    with pytest.raises(ModuleNotFoundError):
        program.main(["status"])
