"""Modules imported late: compat.load()."""

import sys

from amqp_lite.compat import MICROPYTHON, load, unload

if MICROPYTHON:
    from amqp_lite import compat_micropython as compat

NAME = "amqp_lite.status"


def test_a_module_is_imported_once():
    module = load(NAME)
    assert module is sys.modules[NAME] and module.answer
    assert load(NAME) is module


def test_a_board_imports_first_what_it_has_elsewhere():
    if not MICROPYTHON:
        return
    unload("status")
    asked = []
    compat.loader = asked.append
    try:
        module = load(NAME)
        assert load(NAME) is module
    finally:
        compat.loader = None
    assert asked == [NAME]


def test_nothing_stays_of_what_there_is_no_memory_for():
    if not MICROPYTHON:
        return
    unload("status", "store.ram")
    __import__("amqp_lite.store")
    before = set(sys.modules)

    def loader(name):
        __import__("amqp_lite.store.ram")
        assert "amqp_lite.store.ram" in sys.modules
        raise MemoryError

    compat.loader = loader
    try:
        load(NAME)
    except MemoryError:
        pass
    else:
        raise AssertionError("no MemoryError")
    finally:
        compat.loader = None
    assert set(sys.modules) == before
    assert not hasattr(sys.modules["amqp_lite.store"], "ram")
    assert load(NAME).answer
