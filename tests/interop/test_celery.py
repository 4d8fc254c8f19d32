"""Celery: a worker process runs tasks, and their results come back through rpc://.

The worker has its default settings (prefork, gossip, mingle, remote control), and sends events.
"""

import os
import pathlib
import subprocess
import sys
import uuid

import pytest

from interop_support import client_library, wait_for

celery = client_library("celery")
celery_app = client_library("celery_app")

HERE = pathlib.Path(__file__).parent


class Worker:
    """A running `celery worker` and the application that talks to it."""

    def __init__(self, app, name, process, log):
        self.app = app
        self.name = name
        self.process = process
        self.log = log

    def output(self):
        return self.log.read_text(errors="replace")

    def run(self, task, *arguments, **options):
        """Send a task and wait for its result."""
        try:
            return self.app.send_task("interop." + task, arguments, **options).get(timeout=15)
        except celery.exceptions.TimeoutError:
            raise AssertionError("no result of %s\n%s" % (task, self.output()[-3000:])) from None


@pytest.fixture(scope="module")
def worker(roomy_broker, tmp_path_factory):
    queue = "celery-" + uuid.uuid4().hex[:8]
    name = "worker-%s@localhost" % uuid.uuid4().hex[:8]
    directory = tmp_path_factory.mktemp("celery")
    log = directory / "worker.log"
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker"]
    command += ["--concurrency", "2", "--hostname", name, "--loglevel", "info", "--events"]
    environment = dict(os.environ, PYTHONPATH=str(HERE), C_FORCE_ROOT="1",
                       INTEROP_BROKER_URL=roomy_broker.url, INTEROP_QUEUE=queue)
    with log.open("wb") as sink:
        process = subprocess.Popen(command, cwd=directory, env=environment,
                                   stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    app = celery_app.make(roomy_broker.url, queue)
    running = Worker(app, name, process, log)

    def worker_is_ready():
        assert process.poll() is None, running.output()
        return "ready." in running.output()

    try:
        wait_for(worker_is_ready, "the worker is ready", 25)
        yield running
    finally:
        process.terminate()  # warm shutdown
        try:
            code = process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError("the worker did not end\n" + running.output()[-3000:]) from None
        with app.connection_for_write() as connection:
            channel = connection.default_channel
            channel.queue_delete(queue)
            channel.exchange_delete(queue)
        app.close()
        roomy_broker.check()
    assert code == 0, running.output()
    assert "Traceback" not in running.output(), running.output()


def test_a_task_returns_its_result(worker):
    assert worker.run("add", 2, 3) == 5


def test_many_tasks_return_their_own_results(worker):
    results = [worker.app.send_task("interop.add", (n, n)) for n in range(30)]
    assert [result.get(timeout=15) for result in results] == [2 * n for n in range(30)]


def test_a_group_and_a_chain_of_tasks(worker):
    add = worker.app.tasks["interop.add"]
    group = celery.group(add.s(n, 1) for n in range(5))
    assert group.apply_async().get(timeout=15) == [1, 2, 3, 4, 5]
    assert celery.chain(add.s(1, 2), add.s(10)).apply_async().get(timeout=15) == 13


def test_an_exception_comes_back(worker):
    with pytest.raises(ValueError, match="too hot"):
        worker.run("fail", "too hot")


def test_a_retried_task_succeeds(worker):
    retries, routing_key = worker.run("second_try")
    assert (retries, routing_key) == (1, worker.app.conf.task_default_queue)


def test_a_task_acknowledged_late(worker):
    assert worker.run("late") is False


def test_a_long_argument_and_result(worker):
    text = "0123456789" * 500
    assert worker.run("echo", text) == text


def test_the_worker_answers_remote_control(worker):
    assert worker.app.control.ping(destination=[worker.name], timeout=5) == [
        {worker.name: {"ok": "pong"}}
    ]
    active = worker.app.control.inspect(destination=[worker.name], timeout=5).active_queues()
    assert [queue["name"] for queue in active[worker.name]] == [worker.app.conf.task_default_queue]
