"""Qpid JMS (Java): queues, topics, durable subscriptions, selectors, transactions over AMQP 1.0.

The cases are in jms/Cases.java; one process runs them all. It needs mvn and java.
"""

import pathlib
import re
import shutil
import subprocess

import pytest

from interop_support import CaseProcess, client_library, wait_for

pika = client_library("pika")

JMS = pathlib.Path(__file__).parent / "jms"
ALONE, HALVES = [
    re.findall(r"^    public void (\w+)\(\)", part, re.MULTILINE)
    for part in (JMS / "Cases.java").read_text().split("// --- one half")
]
DOWNLOAD_SECONDS = 300


@pytest.fixture(scope="session")
def broker(v10_broker):
    return v10_broker


@pytest.fixture(scope="session")
def jars():
    """jms/target/dependency as pom.xml says, fetched when it is absent or older."""
    if not (shutil.which("mvn") and shutil.which("java")):
        pytest.skip("needs mvn and java")
    folder = JMS / "target" / "dependency"
    pom = JMS / "pom.xml"
    if not folder.exists() or folder.stat().st_mtime < pom.stat().st_mtime:
        shutil.rmtree(folder, ignore_errors=True)
        command = ["mvn", "-B", "-q", "dependency:copy-dependencies"]
        done = subprocess.run(
            command, cwd=JMS, timeout=DOWNLOAD_SECONDS, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def program(jars, tmp_path_factory):
    log = tmp_path_factory.mktemp("jms") / "log"
    command = ["java", "-cp", str(jars / "*"), "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    running = CaseProcess(command + ["Cases.java"], log, cwd=JMS)
    running.run("isCompiled - - 0")
    yield running
    running.stop()


@pytest.fixture
def queue(channel, fresh):
    name = fresh.queue("jms")
    channel.queue_declare(name, durable=True)
    return name


@pytest.fixture
def line(broker, queue):
    """Makes the line that asks for a case."""

    def make(case, number):
        assert case in ALONE or case in HALVES
        return "%s amqp://%s:%d %s %d" % (case, broker.host, broker.port, queue, number)

    return make


@pytest.mark.parametrize("case", ALONE)
def test_qpid_jms(program, line, limits, case):
    program.run(line(case, min(limits.burst, 100)))


def test_pika_asks_a_service_of_jms(program, line, channel, queue):
    answers = []
    channel.basic_consume(
        "amq.rabbitmq.reply-to",
        lambda _channel, _method, properties, body: answers.append(
            (properties.correlation_id, body)
        ),
        auto_ack=True,
    )
    program.begin(line("service", 3))
    for k in range(3):
        properties = pika.BasicProperties(
            correlation_id="c%d" % k, reply_to="amq.rabbitmq.reply-to"
        )
        channel.basic_publish("", queue, b"q%d" % k, properties)
    wait_for(
        lambda: channel.connection.process_data_events(0.02) or len(answers) == 3, "the answers"
    )
    program.end()
    assert answers == [("c%d" % k, b"q%d is answered" % k) for k in range(3)]


def test_jms_asks_a_service_of_pika(program, line, channel, queue):
    taken = []

    def answer(_channel, _method, properties, body):
        answered = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, body + b" is answered", answered)
        taken.append(properties.headers["color"])

    channel.basic_consume(queue, answer, auto_ack=True)
    program.begin(line("client", 3))
    wait_for(
        lambda: channel.connection.process_data_events(0.02) or len(taken) == 3, "the questions"
    )
    program.end()
    assert taken == ["red"] * 3
