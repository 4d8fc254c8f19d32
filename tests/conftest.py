"""What is tested on MicroPython begins first, and is asked for last."""

import micropython_runs

_NAME = "test_on_micropython"


def _is_one(item):
    return getattr(item, "originalname", None) == _NAME


def pytest_collection_modifyitems(items):
    items.sort(key=_is_one)


def pytest_collection_finish(session):
    if not session.config.option.collectonly:
        for item in filter(_is_one, session.items):
            item.module.start(item.callspec.params["name"])


def pytest_sessionfinish():
    micropython_runs.stop()
