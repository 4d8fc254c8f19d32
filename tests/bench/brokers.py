"""Starting, measuring and ending the brokers that compare.py compares. Linux only: it reads /proc.

    broker.start()              until a client has got connection.open-ok; .startup_s: how long
    broker.address(), .product
    broker.reset_peak(), .peak_kb(), .rss_kb(), .cpu_s()      of the whole process tree
    broker.stop()               by process id; with keep=True another start() finds its files

RSS is what /proc/PID/status says (VmRSS, VmHWM), summed over the tree. The high-water mark is
reset before each row, so peak_kb() is the row's own maximum.
"""
import os
import pathlib
import pstats
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

import load

ROOT = pathlib.Path(__file__).resolve().parents[2]
_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_START_S = 120      # RabbitMQ's first boot creates its database; slow disks take a while
_STOP_S = 30
_RETRY_S = 0.005    # between two attempts to connect; the resolution of startup_s


class BrokerError(Exception):
    """A broker that is not there, does not start, or has ended."""


class Broker:
    """One broker process, and those it started."""

    name = "?"
    host, port = "127.0.0.1", 0
    user, password, vhost = "guest", "guest", "/"
    product = ""            # what it calls itself in connection.start
    startup_s = None
    idle_rss_mb = None      # right after the start
    pid = None              # None: not known, nothing is measured

    def __init__(self):
        self.folder = None
        self.process = None

    def start(self):
        if self.folder is None:
            self.folder = pathlib.Path(tempfile.mkdtemp(prefix="amqp-bench-"))
        command, env, cwd = self.command()
        begin = time.monotonic()
        with open(self.folder / "output", "wb") as output:
            # A session of its own: Ctrl-C in the terminal is for compare.py, which calls stop().
            self.process = subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                                            stdout=output, stderr=subprocess.STDOUT,
                                            start_new_session=True)
        self.pid = self.process.pid
        self.find_port(begin + _START_S)
        self.product = self.wait_until_open(begin + _START_S)
        self.startup_s = time.monotonic() - begin
        self.idle_rss_mb = self.rss_kb() * 1024 / 1e6

    def command(self):
        """Return (argument list, environment, working folder)."""
        raise NotImplementedError

    def find_port(self, deadline):
        """Set self.port, when command() did not choose it."""

    def wait_until_open(self, deadline):
        while True:
            try:
                conn = load.Connection(dict(self.address(), size=0))
            except (OSError, load.LoadError) as e:
                self.check_alive()
                if time.monotonic() > deadline:
                    raise BrokerError("%s: no connection.open-ok: %s" % (self.name, e)) from None
                time.sleep(_RETRY_S)
            else:
                product = conn.product
                break
        conn.close()
        return product

    def address(self):
        """What a job of load.py needs to connect."""
        return {"host": self.host, "port": self.port, "vhost": self.vhost,
                "user": self.user, "password": self.password}

    def check_alive(self):
        if self.process and self.process.poll() is not None:
            raise BrokerError("%s has ended with %d:\n%s"
                              % (self.name, self.process.returncode, self.output()))

    def output(self):
        text = (self.folder / "output").read_text(errors="replace")
        return "\n".join(text.splitlines()[-15:])

    def stop(self, keep=False):
        if self.process and self.process.poll() is None:
            tree = self.tree()
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                print("%s did not end within %d s of SIGTERM, killed" % (self.name, _STOP_S),
                      file=sys.stderr)
                self.process.kill()
                self.process.wait()
            for pid in tree:
                _wait_gone(pid)
        self.process = None
        self.ended()
        if self.folder and not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def ended(self):
        """Called after the process has ended, while its folder is still there."""

    # --- measuring ---

    def tree(self):
        """Process ids: the broker and all its descendants."""
        if self.pid is None:
            return []
        children = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                stat = _stat(entry)
                if stat:
                    children.setdefault(int(stat[1]), []).append(int(entry))
        found = [self.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def reset_peak(self):
        for pid in self.tree():
            try:
                pathlib.Path("/proc/%d/clear_refs" % pid).write_text("5")
            except OSError:
                pass        # ended meanwhile, or another user's: VmHWM is of its whole life then

    def peak_kb(self):
        return self._sum("VmHWM")

    def rss_kb(self):
        return self._sum("VmRSS")

    def _sum(self, field):
        total = 0
        for pid in self.tree():
            try:
                text = pathlib.Path("/proc/%d/status" % pid).read_text()
            except OSError:
                continue
            found = re.search(field + r":\s+(\d+) kB", text)
            total += int(found[1]) if found else 0
        return total or None

    def cpu_s(self):
        """User and system seconds of the tree so far."""
        stats = [_stat(pid) for pid in self.tree()]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats if stat) / _TICK


class AmqpLite(Broker):
    """This project, started as a user starts it. With *profile*, under cProfile."""

    name = "amqp_lite"

    def __init__(self, profile=False):
        super().__init__()
        self.profile = profile

    def command(self):
        command = [sys.executable]
        if self.profile:
            command += ["-m", "cProfile", "-o", str(self.folder / "profile")]
        # As pip leaves an installed program: byte-compiled. A first start from a checkout compiles
        # and keeps a megabyte for it.
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        subprocess.run([sys.executable, "-m", "compileall", "-q", "lib", "host_tools"], cwd=ROOT,
                       env=env, check=True, stdout=subprocess.DEVNULL)
        store = ["--store", str(self.folder / "store.ring")]
        return command + ["-m", "host_tools", "run", "--port", "0", *store], env, ROOT

    def find_port(self, deadline):
        while True:
            found = re.search(r"listening on (\S+):(\d+)", self.output())
            if found:
                self.host, self.port = found[1], int(found[2])
                return
            self.check_alive()
            if time.monotonic() > deadline:
                raise BrokerError("%s does not name its port:\n%s" % (self.name, self.output()))
            time.sleep(0.001)

    def ended(self):
        if self.profile and self.folder and (self.folder / "profile").exists():
            stats = pstats.Stats(str(self.folder / "profile"))
            stats.strip_dirs().sort_stats("tottime").print_stats(30)
            stats.sort_stats("cumulative").print_stats(20)


class RabbitMQ(Broker):
    """RabbitMQ as packaged: default settings, its files in a temporary folder.

    It has an epmd of its own (Erlang's port mapper), which is started before the clock and counted
    in no figure: on a Debian system it is there already. Ports stay the same when it starts again.

    settings    the text of rabbitmq.conf
    plugins     names, with commas
    """

    name = "RabbitMQ"
    settings = ""
    plugins = ""
    # Behind Debian's wrapper, which would change the user and use the folders of the system.
    _SCRIPTS = "/usr/lib/rabbitmq/bin/"

    def __init__(self):
        super().__init__()
        self.epmd = None
        self.epmd_port = self.dist_port = 0

    def command(self):
        server = self.script("rabbitmq-server")
        if not server or not shutil.which("epmd"):
            raise BrokerError("no rabbitmq-server and epmd: apt install rabbitmq-server")
        if not self.port:
            self.port, self.epmd_port, self.dist_port = free_ports(3)
        self.epmd = subprocess.Popen(
            ["epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True)
        (self.folder / "enabled_plugins").write_text("[%s].\n" % self.plugins)
        (self.folder / "rabbitmq.conf").write_text(self.settings)
        return [server], self.environment(), str(self.folder)

    @classmethod
    def script(cls, name):
        """The path of one of RabbitMQ's commands, None without RabbitMQ."""
        return shutil.which(cls._SCRIPTS + name) or shutil.which(name)

    def environment(self):
        """Of the server, and of every command that is to reach it."""
        folder = str(self.folder)
        env = {name: value for name, value in os.environ.items()
               if not name.startswith("RABBITMQ_")}
        env.update({
            "HOME": folder,                                     # for a cookie of its own
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "RABBITMQ_NODENAME": "amqp-bench-%d-%d@localhost" % (os.getpid(), self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONF_ENV_FILE": folder + "/none",
            "RABBITMQ_CONFIG_FILE": folder + "/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": folder + "/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": folder + "/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": folder + "/mnesia",
            "RABBITMQ_LOG_BASE": folder + "/log",
            "RABBITMQ_SCHEMA_DIR": folder + "/schema",
            "RABBITMQ_GENERATED_CONFIG_DIR": folder + "/config",
            "RABBITMQ_PID_FILE": folder + "/pid",
            # The script then becomes the Erlang machine instead of waiting for it, so that our
            # SIGTERM gets there and no shell is measured.
            "RUNNING_UNDER_SYSTEMD": "true",
        })
        return env

    def ended(self):
        if self.epmd:
            self.epmd.terminate()
            self.epmd.wait()
            self.epmd = None


class Running(Broker):
    """A broker that is running already. Of its process only what *pid*, when given, shows."""

    def __init__(self, url, pid=None):
        super().__init__()
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "amqp" or not parts.hostname:
            raise BrokerError("%r is not like amqp://guest:guest@127.0.0.1:5672/" % url)
        self.name = "%s:%d" % (parts.hostname, parts.port or 5672)
        self.host, self.port = parts.hostname, parts.port or 5672
        self.user = urllib.parse.unquote(parts.username or "guest")
        self.password = urllib.parse.unquote(parts.password or "guest")
        self.vhost = urllib.parse.unquote(parts.path[1:]) or "/"
        self.pid = pid

    def start(self):
        self.product = self.wait_until_open(time.monotonic() + 2)
        if self.pid:
            self.idle_rss_mb = self.rss_kb() * 1024 / 1e6

    def stop(self, keep=False):
        pass


def _stat(pid):
    """The fields of /proc/PID/stat from the state on, or None without such a process.

    Index 0: state, 1: parent, 11 and 12: user and system time in ticks.
    """
    try:
        text = pathlib.Path("/proc/%s/stat" % pid).read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2:].split()     # the name before may contain anything


def _wait_gone(pid):
    """Wait for a process that is not our child, e.g. a helper of the Erlang machine."""
    for _ in range(100):
        stat = _stat(pid)
        if stat is None or stat[0] == "Z":
            return
        time.sleep(0.05)


def free_ports(n):
    socks = [socket.socket() for _ in range(n)]
    for sock in socks:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports
