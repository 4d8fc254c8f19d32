"""A board without the board: the raw REPL on a pty and a TCP port, and behind it MicroPython.

    python fake_board.py FOLDER [--fault NAME[=VALUE]]...

prints one line of JSON, {"pty": ..., "port": ...}. The FOLDER is its file system. It has boot.py,
main.py, Ctrl-A to Ctrl-E, Ctrl-T for main.py, raw paste, soft reset, machine.reset(), and these
faults:

    busy=S      for so many seconds what runs hears no Ctrl-C, as while flash is erased
    die=N       gone, as if unplugged, when so many octets were pasted
    free=N      octets free in the file system
    frozen=V    amqp_lite of this version is part of the firmware
    garbage     noise on the line whenever something is sent
    mute        it never says anything
    unplug      machine.reset() hangs up the TCP connection, as USB does
    version=V   of MicroPython, as in 1.23.0
"""

import argparse
import contextlib
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import tty

from host_tools.micropython import find_micropython

_WINDOW = 128  # octets of raw paste
_RAW = b"raw REPL; CTRL-B to exit\r\n>"
_BANNER = b'MicroPython v0 on nothing; fake board\r\nType "help()" for more information.\r\n>>> '
_NOISE = b"\xff\x00\xfe noise \x80"

# Runs the code it gets, as octets behind their length. It says Ctrl-D when it has all of it, and
# when it has run Ctrl-D, traceback, Ctrl-D.
_PROGRAM = """
import io, os, struct, sys, time, vfs
root, free, frozen, version = sys.argv[1:]
vfs.umount("/")
vfs.mount(vfs.VfsPosix(root), "/")
os.chdir("/")
sys.path[:] = ["", ".frozen", "/lib"]

class Os:
    def __getattr__(self, name):
        return getattr(real, name)
    def statvfs(self, path):
        return (4096, 4096, 500, int(free) // 4096, int(free) // 4096, 0, 0, 0, 0, 255)
    def rename(self, old, new):
        # That of a mounted VfsPosix renames the new one to itself.
        with open(old, "rb") as f:
            octets = f.read()
        with open(new, "wb") as f:
            f.write(octets)
        real.remove(old)

class Machine:
    def reset(self):
        sys.exit()
    def unique_id(self):
        return b"\\x01\\xab"

class Frozen:
    __version__ = frozen
    __file__ = "amqp_lite/__init__.py"

class Implementation:
    def __init__(self):
        self._mpy = sys.implementation._mpy
        self._machine = "fake board"
        self.version = tuple(map(int, version.split("."))) + ("",)

class Sys:
    def __init__(self):
        self.implementation = Implementation()
    def __getattr__(self, name):
        return getattr(real_sys, name)

real, real_sys = os, sys
sys.modules["os"] = Os()
sys.modules["machine"] = Machine()
if frozen:
    sys.modules["amqp_lite"] = Frozen()
if version:
    sys.modules["sys"] = Sys()
sys.argv[:] = [""]
names = {"__name__": "__main__"}
stdin = sys.stdin.buffer
owed = False  # whether the code that came was not answered yet

def turn():
    global owed
    code = stdin.read(struct.unpack("<I", stdin.read(4))[0])
    owed = True
    error = ""
    real_sys.stdout.write("\\x04")
    try:
        exec(str(code, "utf-8"), names)
    except SystemExit as end:
        if end.args and end.args[0]:
            time.sleep(3)  # as a board waits before it starts again
        raise
    except BaseException as e:
        text = io.StringIO()
        real_sys.print_exception(e, text)
        error = text.getvalue()
    owed = False
    real_sys.stdout.write("\\x04" + error + "\\x04")

real_sys.stdout.write("\\x04")
while True:
    try:
        turn()
    except KeyboardInterrupt:  # it came just before the program or behind it
        if owed:
            owed = False
            real_sys.stdout.write("\\x04KeyboardInterrupt\\n\\x04")
"""


class FakeBoard:
    """The program in a process of its own, until the end of the with block.

    pty, url  its two ports
    """

    def __init__(self, folder, *faults):
        command = [sys.executable, __file__, str(folder)]
        for fault in faults:
            command += ["--fault", fault]
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=dict(os.environ, PYTHONPATH=path)
        )
        ports = json.loads(self.process.stdout.readline())
        self.pty = ports["pty"]
        self.url = f"socket://127.0.0.1:{ports['port']}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


class _Server:
    """The ends of the line, and the process behind them."""

    def __init__(self, folder, faults):
        self._folder = folder
        self._faults = faults
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._client = None
        # We hold the other end, too: without anybody at it reading would fail.
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._to_pty = b""
        self._process = None
        self._mode = "friendly"  # or main, raw, paste
        self._busy = None  # what runs: "boot", "main", "code"
        self._then = None  # called when it has ended
        self._line = b""
        self._waiting = b""  # input for the REPL while something runs
        self._window = 0
        self._pasted = 0
        self._deaf_until = 0
        self._interrupt = False
        self._is_running = False  # what runs has begun
        self._ended = 0  # Ctrl-Ds that it has said

    def serve(self):
        ports = {"pty": os.ttyname(self._slave), "port": self._listener.getsockname()[1]}
        print(json.dumps(ports), flush=True)
        self._start(self._run_main)
        while True:
            self._turn()

    def end(self):
        self._kill()

    def _turn(self):
        sources = [self._listener, self._master, self._process.stdout]
        if self._client is not None:
            sources.append(self._client)
        ready = select.select(sources, [self._master] if self._to_pty else [], [], 0.05)
        if ready[1]:
            self._to_pty = self._to_pty[os.write(self._master, self._to_pty[:1024]) :]
        ready = ready[0]
        if self._listener in ready:
            self._hang_up()
            self._client = self._listener.accept()[0]
            self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._master in ready:
            self._take(os.read(self._master, 4096))
        if self._client is not None and self._client in ready:
            octets = b""
            with contextlib.suppress(OSError):
                octets = self._client.recv(4096)
                # pyserial's small pieces would each wait for a late ACK of the one before.
                if hasattr(socket, "TCP_QUICKACK"):  # Linux
                    self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            if octets:
                self._take(octets)
            else:
                self._hang_up()
        if self._process.stdout in ready:
            self._from_process(os.read(self._process.stdout.fileno(), 4096))
        if not self._busy:
            self._interrupt = False
        elif self._interrupt and self._is_running and time.monotonic() >= self._deaf_until:
            self._interrupt = False
            self._process.send_signal(signal.SIGINT)

    def _hang_up(self):
        if self._client is not None:
            self._client.close()
            self._client = None

    # -- what the host sees ------------------------------------------------------------------

    def _say(self, octets):
        if "mute" in self._faults:
            return
        if "garbage" in self._faults and self._mode in ("friendly", "main"):
            octets = _NOISE + octets
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.sendall(octets)
        self._to_pty += octets

    # -- the process -------------------------------------------------------------------------

    def _start(self, then):
        """Start MicroPython and boot.py, and then do *then*."""
        self._kill()
        version = self._faults.get("version", "")
        faults = [self._faults.get("free", "1000000"), self._faults.get("frozen", ""), version]
        program = [find_micropython(), "-X", "heapsize=4m", "-c", _PROGRAM]
        self._process = subprocess.Popen(
            [*program, self._folder, *faults],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._process.stdout.read(1)  # before it has said so, Ctrl-C would end it
        self._waiting = b""
        self._run_file("boot.py", then)

    def _kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
        self._busy = None
        self._interrupt = False

    def _run_file(self, name, then):
        if not os.path.exists(os.path.join(self._folder, name)):
            then()
            return
        code = "exec(compile(open('/%s').read(), '/%s', 'exec'), {'__name__': '__main__'})"
        self._run(name, (code % (name, name)).encode(), then)

    def _run(self, what, code, then):
        self._busy, self._then, self._ended = what, then, 0
        self._is_running = False
        self._process.stdin.write(struct.pack("<I", len(code)) + code)

    def _run_main(self):
        self._mode = "main"
        self._deaf_until = time.monotonic() + float(self._faults.get("busy", 0))
        self._run_file("main.py", self._to_friendly)

    def _to_friendly(self):
        self._mode = "friendly"
        self._say(_BANNER)

    def _from_process(self, octets):
        if not octets:  # machine.reset()
            if "unplug" in self._faults:
                self._hang_up()
            self._mode = "friendly"
            self._start(self._run_main)
            return
        if not self._is_running:
            self._is_running = True
            octets = octets[1:]
        self._ended += octets.count(b"\x04")
        octets = octets.replace(b"\n", b"\r\n")
        # Only who sent the code is told where its output and its traceback end.
        self._say(octets if self._busy == "code" else octets.replace(b"\x04", b""))
        if self._ended >= 2:
            self._busy = None
            then, self._then = self._then, None
            then()
            waiting, self._waiting = self._waiting, b""
            self._take(waiting)

    # -- the REPL ----------------------------------------------------------------------------

    def _take(self, octets):
        for i in range(len(octets)):
            octet = octets[i : i + 1]
            if self._busy:
                self._take_while_busy(octet)
            else:
                getattr(self, "_in_" + self._mode)(octet)

    def _take_while_busy(self, octet):
        if octet == b"\x03":
            self._interrupt = True
        elif octet == b"\x14" and self._busy == "main.py":
            self._process.stdin.write(octet)
        else:
            self._waiting += octet

    def _in_friendly(self, octet):
        if octet == b"\x01":
            self._to_raw()
        elif octet == b"\x02":
            self._say(_BANNER)
        elif octet == b"\x04":
            self._say(b"\r\nMPY: soft reboot\r\n")
            self._start(self._run_main)
        elif octet in b"\x03\r":
            self._say(b"\r\n>>> ")

    def _to_raw(self):
        self._mode = "raw"
        self._line = b""
        self._say(_RAW)

    def _in_raw(self, octet):
        if octet == b"\x01" and self._line == b"\x05A":
            self._mode = "paste"
            self._line = b""
            self._window = _WINDOW
            self._say(b"R\x01" + struct.pack("<H", _WINDOW) + b"\x01")
        elif octet == b"\x01":
            self._to_raw()
        elif octet == b"\x02":
            self._say(b"\r\n")
            self._to_friendly()
        elif octet == b"\x03":
            self._line = b""
        elif octet != b"\x04":
            self._line += octet
        elif self._line:
            self._say(b"OK")
            self._execute()
        else:
            self._say(b"OK\r\nMPY: soft reboot\r\n")
            self._start(self._to_raw)

    def _in_paste(self, octet):
        if octet == b"\x04":
            self._say(b"\x04")
            self._mode = "raw"
            self._execute()
            return
        if octet == b"\x03":
            self._mode = "raw"
            self._say(b"\r\n>")
            return
        self._line += octet
        self._pasted += 1
        if self._pasted >= int(self._faults.get("die", 1 << 40)):
            raise SystemExit("unplugged")
        self._window -= 1
        if not self._window:
            self._window = _WINDOW
            self._say(b"\x01")

    def _execute(self):
        code, self._line = self._line, b""
        self._run("code", code, lambda: self._say(b">"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--fault", action="append", default=[])
    args = parser.parse_args()
    faults = dict((fault + "=").split("=")[:2] for fault in args.fault)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    server = _Server(args.folder, faults)
    try:
        server.serve()
    finally:
        server.end()


if __name__ == "__main__":
    main()
