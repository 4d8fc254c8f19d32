"""The line to a board: finding it, interrupting what it runs, its raw REPL, and what it prints.

    with open_board(port) as board:
        board.interrupt()
        print(board.run("print(1 + 1)"))
        board.reset()
        for line in board.lines(60):
            print(line)

A port is a serial device, a pty or socket://HOST:PORT. The raw REPL is mpremote's; beneath it
works pyserial. Nothing waits for ever, and what goes wrong is a CommandError of one line.
"""

import ast
import binascii
import collections
import contextlib
import errno
import hashlib
import io
import json
import posixpath
import re
import struct
import time

import serial
from mpremote.transport import TransportError
from mpremote.transport_serial import SerialTransport
from serial.tools import list_ports

from .errors import CommandError

_ANSWER_S = 10  # of silence, when a prompt or the end of a short program is due
_SILENCE_S = 15  # of silence, when interrupted: looking up a name blocks a board for 10 s
_INTERRUPT_S = 40  # until a board that prints all the time has to be interrupted
_CTRL_C_S = 5  # from one Ctrl-C to the next: a second one would hit what the first one started
_CTRL_A_S = 1
_PROMPT_S = 1
_RESET_S = 20  # until a board that was reset is there again
_POLL_S = 0.01
_NO_STATUS = ("status failed", "status is too large")  # what board/console.py says then
_CHUNK = 768  # octets a program carries to or from the board; as base64 1,024 letters
_LINE_OCTETS = 65536

_RAW = b"raw REPL; CTRL-B to exit\r\n"
_CTRL_A, _CTRL_B, _CTRL_C, _CTRL_D, _CTRL_T = (bytes([i]) for i in (1, 2, 3, 4, 20))

# Vendors of USB chips with a board behind them, and what they are called.
_VENDORS = {
    0x2E8A: "Raspberry Pi",
    0x303A: "Espressif",
    0x10C4: "CP210x, often an ESP32",
    0x1A86: "CH34x, often an ESP32",
    0x0403: "FTDI, often an ESP32",
}
# By the number in a .mpy file: py/persistentcode.h.
_ARCHITECTURES = (
    None, "x86", "x64", "armv6", "armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp",
    "xtensa", "xtensawin", "rv32imc", "rv64imc",
)  # fmt: skip
_BOARDS = {"rp2": "pico_w", "esp32": "esp32"}  # by sys.platform; see board/__init__.py

_FACTS = """
import gc, json, os, sys
gc.collect()
i = sys.implementation
d = {"platform": sys.platform, "heap_free": gc.mem_free(), "heap": gc.mem_free() + gc.mem_alloc()}
d["version"] = ".".join(str(n) for n in i.version[:3])
d["machine"] = getattr(i, "_machine", sys.platform)
d["mpy"] = getattr(i, "_mpy", 0)
s = os.statvfs("/")
d["block"], d["fs"], d["fs_free"] = s[0], s[1] * s[2], s[1] * s[3]
try:
    import machine
    d["id"] = "".join("%02x" % n for n in machine.unique_id())
except (ImportError, AttributeError):
    d["id"] = ""
try:
    with open("/config.json") as f:
        d["device"] = json.load(f).get("device")
except (OSError, ValueError, AttributeError, MemoryError):
    pass
try:
    import amqp_lite
    d["amqp_lite"] = amqp_lite.__version__
    f = amqp_lite.__file__
    d["frozen"] = False
    try:
        os.stat(f)
    except OSError:
        d["frozen"] = True
except (ImportError, AttributeError, ValueError):
    pass
print(json.dumps(d))
"""
_READ = """
from binascii import b2a_base64
with open(%r, "rb") as f:
    while 1:
        b = f.read(%d)
        if not b: break
        print(str(b2a_base64(b), "ascii"), end="")
"""
_OPEN = """
import os
from binascii import a2b_base64
for d in %r:
    try:
        os.mkdir(d)
    except OSError as e:
        if e.errno != 17: raise
f = open(%r, "wb")
def w(text): f.write(a2b_base64(text))
"""
_CLOSE = """
f.close()
import hashlib
h, b = hashlib.sha256(), bytearray(512)
with open(%(temporary)r, "rb") as f:
    while 1:
        n = f.readinto(b)
        if not n: break
        h.update(b if n == 512 else memoryview(b)[:n])
if "".join("%%02x" %% n for n in h.digest()) == %(hash)r:
    try:
        os.rename(%(temporary)r, %(path)r)
    except OSError:
        os.remove(%(path)r)
        os.rename(%(temporary)r, %(path)r)
    print("ok")
else:
    os.remove(%(temporary)r)
"""
TEMPORARY = ".new"  # the end of the name of a file that is being written


class BoardError(CommandError):
    """The board refused: the text is the last line of its traceback."""

    def __init__(self, text):
        super().__init__(text, 1)


class BoardAway(CommandError):
    """It was unplugged, or its port vanished in a reset, and is not back yet."""

    def __init__(self, text):
        super().__init__(text, 1)


def find_ports():
    """The serial ports that can be boards: a list of pyserial's ListPortInfo, by device."""
    return sorted((port for port in list_ports.comports() if port.vid in _VENDORS),
                  key=lambda port: port.device)  # fmt: skip


def describe(port):
    """What is known of one of find_ports() without asking it, one line."""
    product = port.product or port.description or "serial port"
    return f"{product} ({_VENDORS[port.vid]}, USB {port.vid:04x}:{port.pid:04x})"


def open_board(port=None):
    """The Board at *port*; None: the only one there is. Raises CommandError."""
    return Board(choose_port(port))


def choose_port(port=None):
    """*port*; None: that of the only board there is. Raises CommandError."""
    if port is None:
        ports = find_ports()
        if not ports:
            raise CommandError(
                "no board found: is it plugged in, with a cable for data? Else name its --port"
            )
        if len(ports) > 1:
            names = ", ".join(found.device for found in ports)
            raise CommandError(f"there are {len(ports)} boards, choose one with --port: {names}")
        port = ports[0].device
    return port


class Board:
    """A board with MicroPython at *port*, until the end of the with block.

    Before interrupt() it is a terminal: lines(), ask_status(). After it the board waits in its
    raw REPL for run(), read(), write(), facts(); restart() or reset() ends that.

    patience  how long lines() and ask_status() wait for a board that went away, s; None: as long
              as a reset takes
    """

    def __init__(self, port):
        self.port = port
        self.patience = None
        self._usb = next((i.serial_number for i in find_ports() if i.device == port), None)
        self._received = b""  # of a line that has not ended
        self._lines = collections.deque()  # that nobody asked for yet
        self._is_raw = False
        self._open()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Leave the raw REPL, if there, for the friendly one; let the port go."""
        if self._transport is None:
            return
        with contextlib.suppress(OSError):
            if self._is_raw:
                self._serial.write(b"\r" + _CTRL_C + b"\r" + _CTRL_B)
                self._serial.flush()
        self._close()

    # -- the port ----------------------------------------------------------------------------

    def _open(self):
        self._transport = None
        try:
            self._transport = SerialTransport(self.port)
        except TransportError:
            # It keeps the reason for itself.
            raise CommandError(f"{self.port}: {_why_not(self.port)}", 1) from None
        except (ValueError, OSError) as error:
            raise CommandError(f"{self.port}: {error}") from None
        self._serial.write_timeout = _ANSWER_S
        self._transport.is_pty = True  # mpremote then waits for octets; else it looks every 10 ms

    @property
    def _serial(self):
        if self._transport is None:
            raise OSError("its port is gone")
        return self._transport.serial

    def _close(self):
        with contextlib.suppress(OSError):
            self._transport.close()
        self._transport = None

    def _open_again(self, deadline):
        """Wait for the port of a board that went away; its name may be another."""
        if self._transport is not None:
            self._close()  # first: with it open the system would give the board a new name
        while True:
            time.sleep(0.1)
            if self._usb:
                names = [i.device for i in find_ports() if i.serial_number == self._usb]
                self.port = names[0] if names else self.port
            try:
                return self._open()
            except CommandError:
                if time.monotonic() > deadline:
                    raise

    def _gone(self, error):
        return BoardAway(f"{self.port}: the board went away ({_reason(error)})")

    def reconnect(self):
        """Look for the port of a board that went away. Raises CommandError: not there yet."""
        self._open_again(0)

    # -- as a terminal -----------------------------------------------------------------------

    def lines(self, timeout):
        """The lines of text that the board prints, for *timeout* seconds (None: for ever).

        A board that goes away is waited for, as after reset(). Raises BoardAway.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            while self._lines:
                yield self._lines.popleft()
            if deadline is not None and time.monotonic() >= deadline:
                return
            self._receive()

    def request_status(self):
        """Ask the broker that runs on the board; its answer is a line, see status_in()."""
        with self._watched():
            self._serial.write(_CTRL_T)

    def ask_status(self, timeout=_ANSWER_S):
        """What the broker that runs on the board says of itself, a dict. Raises CommandError.

        Lines that it prints meanwhile are kept for lines().
        """
        others = collections.deque(self._lines)
        self._lines.clear()
        self.request_status()
        deadline = time.monotonic() + timeout
        try:
            while time.monotonic() < deadline:
                while self._lines:
                    line = self._lines.popleft()
                    status = status_in(line)
                    if status is not None:
                        return status
                    if line.startswith(_NO_STATUS):
                        raise CommandError(f"{self.port}: {line}", 1)
                    if "status {" in line:
                        self.request_status()  # it came damaged
                    else:
                        others.append(line)
                self._receive()
        finally:
            others.extend(self._lines)
            self._lines = others
        raise CommandError(f"{self.port}: {self.why_silent()}", 1)

    def why_silent(self):
        """Why no status came, a text; a broker that runs is not disturbed."""
        with self._watched():
            self._serial.write(b"\r\r")  # a prompt answers the first, and the second ends the line
        deadline = time.monotonic() + _PROMPT_S
        while time.monotonic() < deadline:
            self._receive()
            if any(line.startswith(">>>") for line in self._lines):
                return (
                    "no broker answers there, MicroPython waits at its prompt: it ended, or is in"
                    " safe mode; `amqp-lite reset` starts it and shows why"
                )
        return (
            "no broker answers there: another program runs, an amqp_lite too old to be asked, or"
            " one that hangs; `amqp-lite reset` starts it, `amqp-lite deploy` brings a new one"
        )

    def _receive(self):
        """Take in what has come; sleep a moment when nothing has."""
        try:
            self._serial.timeout = 0
            octets = self._serial.read(4096)
        except OSError as error:
            try:
                patience = _RESET_S if self.patience is None else self.patience
                self._open_again(time.monotonic() + patience)
            except CommandError:
                raise self._gone(error) from None
            return
        if not octets:
            time.sleep(_POLL_S)
            return
        *whole, rest = (self._received + octets).split(b"\n")
        self._received = rest[-_LINE_OCTETS:]
        self._lines.extend(_text(line) for line in whole)

    # -- the raw REPL ------------------------------------------------------------------------

    def interrupt(self):
        """End what runs on the board; its heap is free then, and main.py does not run.

        Ctrl-C, raw REPL, soft reset. A board that is busy for seconds, prints garbage or crashes
        again and again is caught when it listens. Raises CommandError.
        """
        start = time.monotonic()
        self._heard = start
        self._said = b""
        self._is_raw = False
        while not self._is_raw:
            try:
                self._is_raw = self._enter_raw(start) and self._soft_reset()
            except OSError as error:
                try:
                    self._open_again(time.monotonic() + _RESET_S)
                except CommandError:
                    raise self._gone(error) from None
        self._received = b""
        self._lines.clear()

    def _enter_raw(self, start):
        """True when the raw REPL has said so. Raises CommandError when it is too late for that."""
        now = time.monotonic()
        if now > self._heard + _SILENCE_S or now > start + _INTERRUPT_S:
            said = _text(self._said.rstrip().rpartition(b"\n")[2])[-60:]
            hint = f'it says "{said}"' if said else "it says nothing"
            raise CommandError(f"{self.port}: no MicroPython answers there ({hint})", 1)
        self._serial.write(b"\r" + _CTRL_C)
        until = now + _CTRL_C_S
        while time.monotonic() < until:
            # The program that ends may have read the Ctrl-A before: again.
            self._serial.write(b"\r" + _CTRL_A)
            if self._wait_for(_RAW, _CTRL_A_S):
                return True
        return False

    def _soft_reset(self):
        self._serial.write(_CTRL_D)
        return self._wait_for(b"soft reboot\r\n", _ANSWER_S) and self._wait_for(_RAW, _ANSWER_S)

    def _wait_for(self, ending, seconds):
        self._serial.timeout = 0.1
        said = self._transport.read_until(1, ending, timeout=None, timeout_overall=seconds)
        if said:
            self._heard = time.monotonic()
            self._said = (self._said + said)[-1000:]
        return said.endswith(ending)

    def run(self, code, timeout=_ANSWER_S):
        """Run *code* on the board: what it prints, text.

        timeout  seconds of silence after which it hangs

        Raises BoardError with the last line of its traceback, CommandError.
        """
        with self._watched():
            self._serial.timeout = min(timeout, _ANSWER_S)
            output, error = self._transport.exec_raw(code, timeout)
        if error:
            raise BoardError(_text(error.strip().rpartition(b"\n")[2]) or "it failed")
        return _text(output)

    @contextlib.contextmanager
    def _watched(self):
        """Turns what mpremote and pyserial raise into a CommandError, and what they print off."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except OSError as error:
            self._is_raw = False
            raise self._gone(error) from None
        except (TransportError, struct.error):
            self._is_raw = False
            raise CommandError(f"{self.port}: the board does not answer any more", 1) from None

    def read(self, path):
        """The octets of the file *path* on the board. Raises CommandError."""
        try:
            text = self.run(_READ % (path, _CHUNK))
        except BoardError as error:
            raise BoardError(f"{path} on the board: {error}") from None
        try:
            return b"".join(map(binascii.a2b_base64, text.splitlines()))
        except ValueError:
            raise CommandError(f"{self.port}: {path} came damaged", 1) from None

    def write(self, path, octets, progress=None):
        """Make the file *path*, absolute, and the folders above it.

        The file is there whole or not at all: it has another name until its hash was verified.
        progress  called with the number of octets written since the call before

        Raises CommandError.
        """
        temporary = path + TEMPORARY
        try:
            self.run(_OPEN % (_folders(path), temporary))
            for i in range(0, len(octets), _CHUNK):
                chunk = octets[i : i + _CHUNK]
                self.run(f"w({binascii.b2a_base64(chunk, newline=False).decode()!r})")
                if progress is not None:
                    progress(len(chunk))
            names = {"temporary": temporary, "path": path}
            done = self.run(_CLOSE % {**names, "hash": hashlib.sha256(octets).hexdigest()})
        except BoardError as error:
            raise BoardError(f"{path} on the board: {error}") from None
        if "ok" not in done:
            raise CommandError(f"{self.port}: {path} was not written as it is", 1)

    def facts(self):
        """What the board and its file system are, a dict.

        platform   sys.platform
        board      its folder in board/: "pico_w", "esp32"; "linux" for anything else
        machine    board and chip, as the firmware calls them
        version    of MicroPython
        mpy        (version, sub-version) of the .mpy files it takes
        architecture   of the machine code in them; None: it takes none
        heap, heap_free, fs, fs_free, block   octets; block: what the file system gives out
        id         unique id, hex; "" without any
        device     its name in /config.json; None without
        amqp_lite  version of the library on it; None without
        frozen     whether that is part of the firmware
        """
        try:
            facts = json.loads(self.run(_FACTS))
        except ValueError:
            raise CommandError(f"{self.port}: no facts, but something else came", 1) from None
        mpy = facts["mpy"]
        number = mpy >> 10 & 0xF
        known = number < len(_ARCHITECTURES)
        facts["mpy"] = (mpy & 0xFF, mpy >> 8 & 3)
        facts["architecture"] = _ARCHITECTURES[number] if known else None
        facts["board"] = _BOARDS.get(facts["platform"], "linux")
        for key in ("device", "amqp_lite"):
            facts.setdefault(key)
        facts.setdefault("frozen", False)
        return facts

    def value(self, expression):
        """What the *expression* is on the board: numbers, strings, and lists of such."""
        return ast.literal_eval(self.run(f"print(repr({expression}))"))

    # -- and back ----------------------------------------------------------------------------

    def restart(self):
        """From the raw REPL: a soft reset, and main.py runs."""
        with self._watched():
            self._serial.write(b"\r" + _CTRL_B)
            self._wait_for(b">>> ", _CTRL_A_S)
            self._serial.write(_CTRL_D)
        self._is_raw = False

    def reset(self):
        """From the raw REPL: machine.reset(). lines() then waits for the port, and goes on."""
        self._leave("reset")

    def enter_bootloader(self):
        """From the raw REPL: machine.bootloader(). It is no serial port any more."""
        self._leave("bootloader")

    def _leave(self, function):
        with self._watched():
            self._serial.timeout = _ANSWER_S
            self._transport.exec_raw_no_follow(f"import machine\nmachine.{function}()")
        self._is_raw = False


def status_in(line):
    """The status that a *line* from the board is, a dict; None: it is another line, or damaged."""
    start = line.find("status {")
    if start < 0:
        return None
    try:
        return json.loads(line[start + len("status ") :])
    except ValueError:
        return None


def _why_not(port):
    """Why *port* cannot be opened."""
    try:
        serial.serial_for_url(port, exclusive=True).close()
    except (OSError, ValueError) as error:
        return _reason(error)
    return "it could not be opened"


def _reason(error):
    """An error of pyserial in a few words; some have the system's error in their context."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and isinstance(error.__context__, OSError):
        number = error.__context__.errno
    text = str(error)
    found = re.search(r"\[Errno (\d+)\]|\((\d+), ", text)  # some have it in their text alone
    if number is None and found:
        number = int(found[1] or found[2])
    if number is None and "Permission" in text:
        return "another program has it open"  # what Windows says then
    return {
        errno.ENOENT: "no such port",
        errno.ENXIO: "no such port",
        errno.ENODEV: "no such port",
        errno.EACCES: "not allowed: your user has to be in the group dialout (uucp on some), "
        "as after `sudo usermod -aG dialout $USER` and a new login",
        errno.EBUSY: "another program has it open",
        errno.EWOULDBLOCK: "another program has it open",
        errno.ECONNREFUSED: "nobody listens there",
        errno.ENOTTY: "not a serial port",
        errno.EIO: "unplugged, or it was reset",
    }.get(number) or re.sub(r"\s+", " ", text)


def _folders(path):
    """The folders above *path*, the topmost first."""
    folders = []
    folder = posixpath.dirname(path)
    while folder not in ("/", ""):
        folders.insert(0, folder)
        folder = posixpath.dirname(folder)
    return folders


def _text(octets):
    return octets.decode("utf-8", "replace").replace("\r", "")
