"""A real RabbitMQ that the tests may stop, kill, pause and fill. Linux only.

    broker.start()              until a client gets in; again with the same data and ports
    broker.stop(), .kill()      SIGTERM; SIGKILL to its whole tree of processes
    broker.pause(), .resume()   SIGSTOP, SIGCONT
    broker.remove()             the end: its files are deleted
"""

import contextlib
import os
import shutil
import signal
import subprocess

import brokers

_CONTROL_S = 30
# Of Erlang's virtual machine: a node for tests has few schedulers and does not spin on them, so
# that the edge brokers beside it get their share of two cores.
_ERLANG = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"


class RabbitMQ(brokers.RabbitMQ):
    def __init__(self):
        super().__init__()
        self.paused = False
        self.blocked = False

    @classmethod
    def missing(cls):
        """Why there can be none on this machine; None when it can."""
        if cls.script("rabbitmq-server") and cls.script("rabbitmqctl") and shutil.which("epmd"):
            return None
        return "no RabbitMQ: apt install rabbitmq-server"

    def environment(self):
        env = super().environment()
        env["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"] += " " + _ERLANG
        return env

    def running(self):
        return self.process is not None and self.process.poll() is None

    # --- what happens to brokers ---

    def stop(self, keep=True):
        self.resume()
        super().stop(keep)
        self.blocked = False

    def kill(self):
        """No last word to anybody. What start() finds is what was in files.

        RabbitMQ keeps what was declared in memory for moments, unlike what it has confirmed. That
        is not what tests are about, so it is written first.
        """
        if not self.paused:
            self.evaluate("mnesia:sync_log().")
        for pid in self.tree():
            with contextlib.suppress(ProcessLookupError):  # ended with its parent, just now
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.paused = False
        self.stop()

    def pause(self):
        """It hears and says nothing any more, and its sockets stay open."""
        os.kill(self.pid, signal.SIGSTOP)
        self.paused = True

    def resume(self):
        if self.paused:
            os.kill(self.pid, signal.SIGCONT)
            self.paused = False

    def remove(self):
        self.stop(keep=False)

    def repair(self):
        """Make it usable again, whatever was done to it."""
        self.resume()
        if not self.running():
            self.stop()  # what is left of it
            self.start()
        if self.blocked:
            self.set_memory_blocked(False)

    # --- what rabbitmqctl does ---

    def set_memory_blocked(self, blocked):
        """Raise or lift the memory alarm: connections that publish are blocked, and told so."""
        call = "set" if blocked else "clear"
        alarm = "{resource_limit, memory, node()}"
        self.evaluate(
            "rabbit_alarm:%s_alarm(%s)." % (call, "{%s, []}" % alarm if blocked else alarm)
        )
        self.blocked = blocked

    def listen_tls(self, certificate, key, ca=None, ask_client=False):
        """Listen for TLS as well, until the next stop: the port. May be called several times.

        certificate, key, ca    paths of PEM files
        ask_client              whether clients without a certificate of *ca* are turned away
        """
        [port] = brokers.free_ports(1)
        options = '{certfile, "%s"}, {keyfile, "%s"}' % (certificate, key)
        if ca:
            options += ', {cacertfile, "%s"}' % ca
        if ask_client:
            options += ", {verify, verify_peer}, {fail_if_no_peer_cert, true}"
        listener = '{"127.0.0.1", %d, inet}' % port
        self.evaluate("rabbit_networking:start_ssl_listener(%s, [%s], 1)." % (listener, options))
        return port

    def add_user(self, name, password, vhost="/", configure=".*", write=".*", read=".*"):
        self.control("add_user", name, password)
        self.control("set_permissions", "-p", vhost, name, configure, write, read)

    def close_connections(self, reason):
        """Close every connection: clients get connection.close with 320 and *reason*."""
        self.control("close_all_connections", reason)

    def evaluate(self, expression):
        """Evaluate Erlang in the node."""
        answer = self.control("eval", expression)
        if "error" in answer:
            raise brokers.BrokerError("%s: %s" % (expression, answer))

    def control(self, *arguments):
        """Run rabbitmqctl: what it prints. It takes about a second."""
        done = subprocess.run(
            [self.script("rabbitmqctl"), "--quiet", *arguments],
            env=self.environment(), cwd=str(self.folder), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=_CONTROL_S,
        )  # fmt: skip
        if done.returncode:
            raise brokers.BrokerError(
                "rabbitmqctl %s: %s%s" % (arguments[0], done.stdout, done.stderr)
            )
        return done.stdout.strip()
