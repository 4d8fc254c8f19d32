#!/usr/bin/env python3
"""A Raspberry Pi Pico W on the desk, without the Pico W.

Boots a real, unmodified MicroPython UF2 on rp2040py (an RP2040 + CYW43439 emulator from
PyPI) and puts around it what tests of a network program need:

* WiFi.  The guest joins any SSID and gets 10.0.0.2.  Its gateway 10.0.0.1 is the host's
  127.0.0.1: a guest connection to 10.0.0.1:PORT ends at 127.0.0.1:PORT.  Everything else
  is refused (RST for TCP, silence for UDP); no socket that leaves loopback is opened.
* Inbound connections.  ``--forward HPORT:GPORT`` listens on 127.0.0.1:HPORT and opens a
  real TCP connection (SYN, SYN/ACK, ACK, retransmission, windows, FIN, RST) to the guest.
* The USB console on a TCP port (``--console-tcp``) and/or a pty (``--console-pty``), good
  enough for the real ``mpremote connect socket://127.0.0.1:PORT`` or ``/dev/pts/N``.
* A flash chip in a file (``--flash``).  Every erase and program lands in a shared mapping
  at once, so ``kill -9`` is a power cut; ``--cut-at N:FRACTION`` cuts in the middle of the
  N-th flash operation and leaves it torn.
* Time.  Guest time is emulated cycles (125 MHz), optionally with a model of the XIP flash
  cache and of the flash chip's erase and program times.  ``--stats``, SIGUSR1 and the
  memory-mapped probe read it out.

Command line::

    python3 pico_w.py --uf2 RPI_PICO_W.uf2 --console-tcp 4321 --forward 5672:5672 \\
                      --flash flash.img

It prints one JSON object per line on stdout; the one with ``"event": "ready"`` names the
ports.  As a library use :class:`PicoW` (in this process, asyncio).  The tests use emulated.py,
which starts it as a process.

What the guest sees of the probe, at 0x40070000 (``machine.mem32``)::

    +0x00 r   CPU cycles           +0x10 w   cut the power now
    +0x04 r   instructions         +0x14 w   print an event {"event": "mark", "value": v}
    +0x08 r   XIP cache misses     +0x18 r   flash operations so far
    +0x0c r   microseconds         +0x1c w   cut at the n-th flash operation from now on
                                   +0x20 w   ... and so much of it is done (0..256 / 256)

Needs: Python 3.10+, rp2040py; a C compiler if the fast engine is wanted (see m0fast.c).
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import ctypes
import hashlib
import json
import mmap
import os
import pty
import random
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import tty
from pathlib import Path

from rp2040py.boards import BoardSpec
from rp2040py.device.base_device import BaseDevice
from rp2040py.device.load_flash import decode_block
from rp2040py.execute_batch import execute_batch
from rp2040py.external.bootsel_button import BootselButton
from rp2040py.external.cyw43 import bus as gspi
from rp2040py.external.cyw43 import net
from rp2040py.external.cyw43.chip import Cyw43439
from rp2040py.external.cyw43.nat import GATEWAY_IP, GATEWAY_MAC, GUEST_IP, DhcpServer
from rp2040py.memory_map import FLASH_START_ADDRESS, RAM_START_ADDRESS
from rp2040py.peripherals.peripheral import ATOMIC_NORMAL, BasePeripheral, atomic_update
from rp2040py.simulator import Simulator
from rp2040py.usb.cdc import USBCDC
from rp2040py.utils.logging import LogLevel

__all__ = ("GuestPanic", "PicoW", "ReplError", "main")

LOOPBACK = "127.0.0.1"
FLASH_SIZE = 2 * 1024 * 1024
SECTOR = 4096
NS_PER_CYCLE = 8.0  # 125 MHz
PROBE_BASE = 0x40070000

SLICE_SECONDS = 0.004  # how long the guest runs before the event loop gets a turn
IDLE_SECONDS = 0.002  # how long the loop sleeps at a time while the guest sleeps
BUCKET_NS = 6e6  # how far guest time may fall behind wall time and still catch up


def emit(event: str, **fields) -> None:
    """One line of JSON on stdout; the only output of the command line."""
    print(json.dumps({"event": event, **fields}), flush=True)


# ------------------------------------------------------------------------------------------
# The CPU engine
# ------------------------------------------------------------------------------------------


class _M0(ctypes.Structure):
    """The `m0` of m0fast.c."""

    _fields_ = [
        ("r", ctypes.c_void_p),
        ("rom", ctypes.c_void_p),
        ("flash", ctypes.c_void_p),
        ("sram", ctypes.c_void_p),
        ("xip_tag", ctypes.c_void_p),
        ("xip_old", ctypes.c_void_p),
        ("instrs", ctypes.c_uint64),
        ("xip_hits", ctypes.c_uint64),
        ("xip_misses", ctypes.c_uint64),
        *[
            (name, ctypes.c_uint32)
            for name in (
                "rom_size flash_size sram_size n z c v pm handler irq_pending "
                "addr size reg sign value "
                "div_dividend div_divisor div_quotient div_remainder div_csr spin_lock "
                "xip_on xip_penalty xip_last pad"
            ).split()
        ],
    ]


_XIP_SETS = 1024
_R_BUDGET, _R_READ, _R_WRITE, _R_STEP = range(4)


def build_m0fast() -> "ctypes.CDLL | None":
    """Compile m0fast.c (once; the result is cached) and load it; None without a compiler."""
    source = Path(__file__).with_name("m0fast.c")
    compiler = (
        os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    )
    if compiler is None or not source.exists():
        return None
    tag = hashlib.sha256(source.read_bytes() + compiler.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amqp-lite"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        cache = Path(tempfile.mkdtemp())
    library = cache / f"m0fast-{tag}.so"
    if not library.exists():
        fresh = library.with_suffix(f".{os.getpid()}.tmp")
        command = shlex.split(compiler)
        command += ["-O2", "-shared", "-fPIC", "-o", str(fresh), str(source)]
        try:
            subprocess.run(command, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        os.replace(fresh, library)
    loaded = ctypes.CDLL(str(library))
    if loaded.m0_sizeof() != ctypes.sizeof(_M0):
        raise RuntimeError("m0fast.c and pico_w.py disagree about struct m0")
    loaded.m0_run.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
    loaded.m0_run.restype = ctypes.c_uint64
    return loaded


def _address(buffer) -> int:
    """The address of a writable buffer (which must stay alive)."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class FastCore:
    """Runs the guest in m0fast.c on rp2040py's own registers and memories.

    The state rp2040py's peripherals look at (interrupt lines, `waiting`, ...) stays in
    rp2040py's core object; only flags, PRIMASK and the SIO divider live in `m0` while this
    engine runs, and are handed over by `take()` and `give()`.
    """

    _SIO = ("div_dividend", "div_divisor", "div_quotient", "div_remainder", "div_csr", "spin_lock")

    def __init__(self, library: ctypes.CDLL, mcu, xip_penalty: "int | None") -> None:
        self.mcu = mcu
        self.core = mcu.core
        self.registers = memoryview(mcu.core.registers)
        self._tags = (ctypes.c_uint32 * (_XIP_SETS * 2))()
        self._old = (ctypes.c_uint8 * _XIP_SETS)()
        self.m0 = m0 = _M0()
        self._keep = [self.registers, mcu.bootrom, mcu.flash, mcu.sram]
        m0.r, m0.rom, m0.flash, m0.sram = (_address(b) for b in self._keep)
        m0.rom_size, m0.flash_size, m0.sram_size = (
            mcu.bootrom.nbytes,
            mcu.flash.nbytes,
            mcu.sram.nbytes,
        )
        m0.xip_tag, m0.xip_old = ctypes.addressof(self._tags), ctypes.addressof(self._old)
        m0.xip_on, m0.xip_penalty = (0, 0) if xip_penalty is None else (1, xip_penalty)
        self.run = library.m0_run
        self.pointer = ctypes.addressof(m0)

    def flush_xip(self) -> None:
        """What the SDK does after every flash write."""
        ctypes.memset(self._tags, 0, ctypes.sizeof(self._tags))
        self.m0.xip_last = 0

    def take(self) -> None:
        """rp2040py -> m0: flags, mode, and whether an interrupt is waiting."""
        m0, core = self.m0, self.core
        m0.n, m0.z, m0.c, m0.v, m0.pm = core.n, core.z, core.c, core.v, core.pm
        m0.handler = core.ipsr != 0
        m0.irq_pending = bool(
            core.pending_interrupts & core.enabled_interrupts
            or core.pending_systick
            or core.pending_pend_sv
            or core.pending_svcall
            or core.pending_nmi
        )

    def give(self) -> None:
        """m0 -> rp2040py."""
        m0, core = self.m0, self.core
        core.n, core.z, core.c, core.v, core.pm = m0.n, m0.z, m0.c, m0.v, m0.pm

    def take_sio(self) -> None:
        sio = self.mcu.sio
        for name in self._SIO:
            setattr(self.m0, name, int(getattr(sio, name)) & 0xFFFFFFFF)

    def give_sio(self) -> None:
        for name in self._SIO:
            setattr(self.mcu.sio, name, getattr(self.m0, name))


class GuestPanic(RuntimeError):
    """The firmware stopped itself."""


class _AwakeOnly:
    """A Simulator as execute_batch() sees it, whose batch ends when the guest falls asleep
    (by itself execute_batch() would sleep on, unpaced)."""

    def __init__(self, engine: "Engine") -> None:
        self.engine, self.rp2040, self.clock, self.core = (
            engine,
            engine.rp2040,
            engine.clock,
            engine.rp2040.core,
        )

    @property
    def stopped(self) -> bool:
        return self.core.waiting or self.engine.stopped


class Engine(Simulator):
    """The loop that runs the guest between two turns of the asyncio loop.

    Guest time advances with the cycles executed and jumps ahead while the guest sleeps
    (WFI/WFE).  Unpaced, such jumps let a guest's 5 s timeout pass in no time at all while
    it waits for a host that needs 5 ms, so by default sleeping takes real time:

    pace="idle"  a sleeping guest's clock runs at wall speed; a busy one runs flat out
    pace="real"  never faster than a real board, busy or not
    pace="off"   as fast as possible (for computations, not for networking)
    """

    def __init__(self, mcu, *, pace: str, fast: "FastCore | None") -> None:
        super().__init__(rp2040=mcu)
        self.pace = pace
        self.fast = fast
        self.cycles = 0  # executed, not slept; over resets too
        self.stalled_ns = 0.0  # time spent waiting for the flash chip
        self.busy_seconds = 0.0  # wall time spent executing
        self.resync = True  # the chip was reset under the fast core
        self._bucket = 0.0
        self._filled_at = time.monotonic()
        self._nap: "asyncio.Future | None" = None
        self._awake = _AwakeOnly(self)
        mcu.on_break = self._on_break

    def _on_break(self, code: int) -> None:
        """BKPT: the SDK's panic().  A board without a debugger locks up here."""
        core = self.rp2040.core
        self.engine_room_error = GuestPanic(
            f"the guest executed BKPT {code} at {core.pc:#x}, lr {core.lr:#x}"
        )
        self.stopped = True

    # -- pacing ----------------------------------------------------------------------------
    #
    # A bucket of guest nanoseconds, filled by wall time and emptied by guest time.  It is
    # small: a guest that is late stays late, because letting it catch up would make its
    # next sleeps instantaneous - the very thing pacing is there to prevent.

    def _refill(self) -> float:
        now = time.monotonic()
        self._bucket = min(BUCKET_NS, self._bucket + (now - self._filled_at) * 1e9)
        self._filled_at = now
        return self._bucket

    # -- the loop --------------------------------------------------------------------------

    async def execute(self) -> None:
        self.stopped = False
        try:
            while not self.stopped:
                if self.rp2040.run_pin_low:
                    await asyncio.sleep(0.005)
                    continue
                if self.pace == "real" and self._refill() < 0:
                    await self._doze()
                elif self._slice():
                    await self._doze()
                else:
                    await asyncio.sleep(0)
        except Exception as exc:
            self.engine_room_error = exc
            self.stopped = True
            raise

    async def _doze(self) -> None:
        """Sleep for IDLE_SECONDS, or until wake()."""
        loop = asyncio.get_running_loop()
        self._nap = loop.create_future()
        timer = loop.call_later(IDLE_SECONDS, self.wake)
        try:
            await self._nap
        finally:
            timer.cancel()
            self._nap = None

    def wake(self) -> None:
        """There is something for the guest."""
        if self._nap is not None and not self._nap.done():
            self._nap.set_result(None)

    def _slice(self) -> bool:
        """Run for SLICE_SECONDS; True if the guest sleeps and time must pass."""
        core, clock = self.rp2040.core, self.clock
        deadline = time.monotonic() + SLICE_SECONDS
        while time.monotonic() < deadline:
            if core.waiting:
                if self.pace == "off" and not clock.has_scheduled_alarm:
                    return True
                if self._sleep(core, clock):
                    return True
                continue
            began, before = time.monotonic(), clock.nanos
            if self.fast is None or not (
                self.rp2040.pio[0].stopped and self.rp2040.pio[1].stopped
            ):
                self._run_native()
            else:
                self._run_fast(deadline)
            self.busy_seconds += time.monotonic() - began
            if self.pace == "real":
                self._bucket -= clock.nanos - before
                if self._refill() < 0:
                    return True
            if self.stopped:
                break
        return False

    def _sleep(self, core, clock) -> bool:
        """The guest sleeps: move its clock to the next alarm, as far as pacing permits."""
        wanted = clock.nanos_to_next_alarm if clock.has_scheduled_alarm else BUCKET_NS
        if self.pace == "off":
            clock.tick(wanted)
            return False
        step = min(wanted, self._refill())
        if step > 0:
            clock.tick(step)
            self._bucket -= step
        return step < wanted

    def _run_native(self) -> None:
        """rp2040py's own loop; also what runs while a PIO program does."""
        core = self.rp2040.core
        if self.fast is not None and not self.resync:
            self.fast.give_sio()
        before = core.cycles
        execute_batch(self._awake, 1)
        used = core.cycles - before
        self.cycles += used if used >= 0 else core.cycles  # a reset zeroes the counter
        if self.fast is not None:
            self.fast.take_sio()

    def _run_fast(self, deadline: float) -> None:
        fast, core, clock = self.fast, self.rp2040.core, self.clock
        run, pointer, tick, monotonic = fast.run, fast.pointer, clock.tick, time.monotonic
        pio0, pio1 = self.rp2040.pio
        if self.resync:
            fast.take_sio()
            self.resync = False
        fast.take()
        rounds = 0
        while True:
            if core.interrupts_updated:
                fast.give()
                core.check_for_interrupts()
                fast.take()
            budget = 250_000
            if clock.has_scheduled_alarm:
                budget = min(budget, int(clock.nanos_to_next_alarm / NS_PER_CYCLE) + 1)
            result = run(pointer, budget)
            used, reason = result >> 2, result & 3
            self.cycles += used
            tick(used * NS_PER_CYCLE)
            if reason:
                self._serve(reason)
                if core.waiting or not (pio0.stopped and pio1.stopped):
                    break
            rounds += 1
            if (not rounds & 15 or reason == _R_BUDGET) and monotonic() > deadline:
                break
            if self.stopped:
                break
        fast.give()

    def _serve(self, reason: int) -> None:
        """Do what m0fast.c left: a bus access, or one instruction on rp2040py's core."""
        fast, mcu = self.fast, self.rp2040
        m0 = fast.m0
        if reason == _R_READ:
            address, size = m0.addr, m0.size
            if size == 4:
                value = mcu.read_uint32(address)
            elif size == 1:
                value = mcu.read_uint8(address)
                if m0.sign and value & 0x80:
                    value |= 0xFFFFFF00
            else:
                value = mcu.read_uint16(address)
                if m0.sign and value & 0x8000:
                    value |= 0xFFFF0000
            fast.registers[m0.reg] = value
        elif reason == _R_WRITE:
            size = m0.size
            if size == 4:
                mcu.write_uint32(m0.addr, m0.value)
            elif size == 1:
                mcu.write_uint8(m0.addr, m0.value)
            else:
                mcu.write_uint16(m0.addr, m0.value)
            if self.resync:  # the write reset the chip
                fast.take_sio()
                fast.take()
                self.resync = False
        else:
            fast.give()
            used = mcu.core.execute_instruction()
            self.cycles += used
            self.clock.tick(used * NS_PER_CYCLE)
            fast.take()

    def stats(self) -> dict:
        """Counters since power-on."""
        m0 = self.fast.m0 if self.fast else None
        return {
            "guest_seconds": round(self.clock.nanos / 1e9, 6),
            "cycles": self.cycles,
            "instructions": m0.instrs if m0 else None,
            "xip_hits": m0.xip_hits if m0 else None,
            "xip_misses": m0.xip_misses if m0 else None,
            "busy_seconds": round(self.busy_seconds, 3),
            "flash_stall_seconds": round(self.stalled_ns / 1e9, 6),
            "mega_cycles_per_second": round(self.cycles / max(self.busy_seconds, 1e-9) / 1e6, 2),
        }


# ------------------------------------------------------------------------------------------
# Flash
# ------------------------------------------------------------------------------------------


class FlashChip:
    """The 2 MB NOR chip: a file that survives the process, times, and power cuts.

    rp2040py's SSI model decodes the SPI commands and applies them to its `flash` array at
    the end of each command.  This class hooks that point: it does erases and programs
    itself (rp2040py's programs do not wrap at the end of a page), copies what it touched to
    a shared file mapping (which outlives a SIGKILL), lets the busy bit take the chip's
    time, and can die in the middle.  Addresses wrap at 2 MB, as the chip's do.
    """

    #             page program, 4 kB erase, 64 kB erase (ns); Winbond W25Q16JV's figures
    TIMES = {
        "none": (0, 0, 0),
        "typical": (400_000, 45_000_000, 150_000_000),
        "worst": (3_000_000, 400_000_000, 2_000_000_000),
    }
    PROGRAM, ERASE, ERASE_BLOCK, STATUS = 0x02, 0x20, 0xD8, 0x05

    def __init__(self, mcu, path: "Path | None", timing: str) -> None:
        self.mcu = mcu
        self.engine: "Engine | None" = None
        self.times = self.TIMES[timing]
        self.operations = 0
        self.erases = self.programs = 0
        self.cut_at: "int | None" = None  # the operation that does not complete
        self.cut_fraction = 0.0
        self._busy_until = 0.0
        self._ssi = ssi = mcu.peripherals[0x18000]
        self._apply, ssi._apply_command = ssi._apply_command, self._command
        self._shift, ssi._shift_byte = ssi._shift_byte, self._status_byte
        self._map = None
        if path is not None:
            fresh = not path.exists() or path.stat().st_size == 0
            if not fresh and path.stat().st_size != FLASH_SIZE:
                raise ValueError(f"{path} is not a flash image ({FLASH_SIZE} bytes)")
            with open(path, "w+b" if fresh else "r+b") as file:
                file.truncate(FLASH_SIZE)
                self._map = mmap.mmap(file.fileno(), FLASH_SIZE)
            if fresh:
                self._map[:] = b"\xff" * FLASH_SIZE

    def load(self, uf2: "Path | None") -> None:
        """Power-on content: the image file, with the UF2 flashed over it if there is one."""
        flash = self.mcu.flash
        flash[:FLASH_SIZE] = self._map[:] if self._map else b"\xff" * FLASH_SIZE
        if uf2 is not None:
            data = uf2.read_bytes()
            for offset in range(0, len(data) - 511, 512):
                block = decode_block(data[offset : offset + 512])
                at = block.flash_address - FLASH_START_ADDRESS
                if 0 <= at < FLASH_SIZE:
                    flash[at : at + len(block.payload)] = block.payload
                    if self._map and self._map[at : at + len(block.payload)] != block.payload:
                        self._map[at : at + len(block.payload)] = block.payload

    def _command(self) -> None:
        ssi = self._ssi
        sent = bytes(ssi._tx_buffer)
        opcode = sent[0] if sent else 0
        if (
            opcode not in (self.PROGRAM, self.ERASE, self.ERASE_BLOCK)
            or len(sent) < 4
            or not ssi._write_enabled
        ):
            self._apply()
            return
        self.operations += 1
        at = int.from_bytes(sent[1:4], "big") % FLASH_SIZE
        if opcode == self.PROGRAM:
            # a program never leaves its 256-byte page: beyond the end it goes on at the start
            self.programs, busy = self.programs + 1, self.times[0]
            page, at, size = at, at & ~0xFF, 256
            new = bytearray(self.mcu.flash[at : at + size])
            for index, byte in enumerate(sent[4:]):
                new[(page + index) & 0xFF] &= byte
        else:
            size = SECTOR if opcode == self.ERASE else 65536
            self.erases, busy = self.erases + 1, self.times[1 if opcode == self.ERASE else 2]
            at &= ~(size - 1)
            new = b"\xff" * size
        if self.cut_at is not None and self.operations >= self.cut_at:
            self._cut(at, bytes(new))
        self.mcu.flash[at : at + size] = bytes(new)
        if self._map:
            self._map[at : at + size] = bytes(new)
        ssi._write_enabled = False
        ssi._tx_buffer = bytearray()
        self._busy_until = self.mcu.clock.nanos + busy
        if self.engine and self.engine.fast:
            self.engine.fast.flush_xip()

    def _status_byte(self, byte: int) -> int:
        """While the chip is busy the SDK polls its status with interrupts off; rather than
        emulating a million polls, the first one takes all the time there is to take."""
        sent = self._ssi._tx_buffer
        if sent and sent[0] == self.STATUS:
            wait = self._busy_until - self.mcu.clock.nanos
            if wait > 0:
                self.mcu.clock.tick(wait)
                if self.engine:
                    self.engine.stalled_ns += wait
        return self._shift(byte)

    def _cut(self, at: int, new: bytes) -> None:
        """The power goes while the chip works: some of the bytes are done, one is half
        done (a bit pattern between old and new), the rest is as it was."""
        size = len(new)
        old = bytes(self.mcu.flash[at : at + size])
        done = min(size, int(size * self.cut_fraction))
        torn = bytearray(new[:done] + old[done:])
        if 0 < done < size:
            torn[done] = (old[done] & new[done]) | (old[done] | new[done]) & 0xA5
        if self._map:
            self._map[at : at + size] = bytes(torn)
        power_cut("flash operation", operation=self.operations, at=at, done=done, size=size)

    def sync(self) -> None:
        if self._map:
            self._map.flush()


class Alarm:
    """A timer in guest time that knows whether it is running."""

    def __init__(self, clock, callback) -> None:
        self._callback = callback
        self._alarm = clock.create_alarm(self._fire)
        self.running = False

    def _fire(self) -> None:
        self.running = False
        self._callback()

    def start(self, nanoseconds: float) -> None:
        self._alarm.schedule(nanoseconds)
        self.running = True

    def stop(self) -> None:
        self._alarm.cancel()
        self.running = False


def power_cut(why: str, **fields) -> None:
    """Stop existing.  No cleanup, no flush: the flash file is what it is at this moment."""
    emit("power_cut", why=why, **fields)
    os._exit(137)


# ------------------------------------------------------------------------------------------
# A peripheral that no chip has
# ------------------------------------------------------------------------------------------


class Probe(BasePeripheral):
    """See the module docstring."""

    def __init__(self, mcu, board: "PicoW") -> None:
        super().__init__(mcu, "PROBE")
        self.board = board

    def read_uint32(self, offset: int) -> int:
        engine = self.board.simulator
        m0 = engine.fast.m0 if engine.fast else None
        value = {
            0x00: engine.cycles,
            0x04: m0.instrs if m0 else 0,
            0x08: m0.xip_misses if m0 else 0,
            0x0C: int(self.rp2040.clock.nanos / 1000),
            0x18: self.board.flash.operations,
        }.get(offset, 0)
        return value & 0xFFFFFFFF

    def write_uint32(self, offset: int, value: int) -> None:
        value &= 0xFFFFFFFF
        if offset == 0x10:
            power_cut("guest", value=value)
        elif offset == 0x14:
            self.board.on_mark(value)
        elif offset == 0x1C:
            self.board.flash.cut_at = self.board.flash.operations + value if value else None
        elif offset == 0x20:
            self.board.flash.cut_fraction = min(value, 256) / 256


# ------------------------------------------------------------------------------------------
# USB console
# ------------------------------------------------------------------------------------------


class Cdc(USBCDC):
    """The host end of the guest's USB serial port.

    rp2040py answers an armed OUT endpoint with an empty packet when there is nothing to
    send, every 10 us, for ever.  A real host just does not send; and MicroPython services
    USB from its VM loop, so those packets make it several times slower (measured: a `for`
    iteration went from 1800 to 580 cycles without them).  Here an armed endpoint waits.
    """

    def __init__(self, usb) -> None:
        super().__init__(usb)
        self._answer_control, usb.on_endpoint_read = usb.on_endpoint_read, self._armed
        self._waiting: "collections.deque[int]" = collections.deque()
        self._outgoing = bytearray()

    def _armed(self, endpoint: int, size: int) -> None:
        if endpoint == 0 or endpoint != self._out_endpoint:
            self._answer_control(endpoint, size)
        else:
            self._waiting.append(size)
            self._push()

    def _push(self) -> None:
        while self._waiting and self._outgoing:
            packet = bytes(self._outgoing[: min(self._waiting.popleft(), 64)])
            del self._outgoing[: len(packet)]
            self.usb.endpoint_read_done(self._out_endpoint, packet)

    def send(self, data: bytes) -> None:
        self._outgoing += data
        self._push()
        self.usb.rp2040.simulator.wake()

    @property
    def unsent(self) -> int:
        return len(self._outgoing)

    def _on_controller_reset(self) -> None:
        super()._on_controller_reset()
        self._waiting.clear()
        self._outgoing.clear()


class Console:
    """Fans the USB console out to one TCP client and/or a pty, a log, and `RawRepl`s."""

    def __init__(self, cdc: Cdc, log: "Path | None") -> None:
        self.cdc = cdc
        self.port: "int | None" = None
        self.pty_path: "str | None" = None
        self.listeners: "list" = []
        self._log = open(log, "ab", buffering=0) if log else None
        self._server: "asyncio.Server | None" = None
        self._client: "asyncio.StreamWriter | None" = None
        self._master = -1
        self._pty_open = False
        self._pty_out = bytearray()
        cdc.on_serial_data = self._from_guest

    def _from_guest(self, data) -> None:
        data = bytes(data)
        if not data:
            return
        if self._log:
            self._log.write(data)
        if self._client is not None:
            self._client.write(data)
        if self._pty_open:
            self._pty_out += data
            self._pty_write()
        for listener in list(self.listeners):
            listener(data)

    # -- TCP -------------------------------------------------------------------------------

    async def listen(self, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(100):  # a serial port has one user; let the last one finish closing
            if self._client is None:
                break
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return
        self._client = writer
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while data := await reader.read(4096):
                self.cdc.send(data)
                while self.cdc.unsent > 65536:
                    await asyncio.sleep(0.01)
        except OSError:
            pass
        finally:
            self._client = None
            writer.close()

    # -- pty -------------------------------------------------------------------------------
    #
    # The slave end is not kept open, so that it can tell whether somebody has:
    # reading the master fails with EIO while nobody does.  Output for nobody is dropped
    # (the next user must not find the last one's), and polling replaces epoll, which would
    # report the hang-up for ever.

    def open_pty(self, link: "Path | None") -> None:
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        self.pty_path = os.ttyname(slave)
        os.close(slave)
        if link is not None:
            link.unlink(missing_ok=True)
            link.symlink_to(self.pty_path)
        self._pty_task = asyncio.get_running_loop().create_task(self._serve_pty())

    async def _serve_pty(self) -> None:
        while True:
            try:
                self.cdc.send(os.read(self._master, 4096))
                self._pty_open = True
            except BlockingIOError:
                self._pty_open = True
            except OSError:
                self._pty_open = False
                self._pty_out.clear()
            self._pty_write()
            await asyncio.sleep(0.005)

    def _pty_write(self) -> None:
        try:
            while self._pty_out:
                del self._pty_out[: os.write(self._master, self._pty_out[:1024])]
        except BlockingIOError:
            pass
        except OSError:
            self._pty_out.clear()

    def close(self) -> None:
        if self._server:
            self._server.close()
        if self._client:
            self._client.close()
        if self._master >= 0:
            self._pty_task.cancel()
            os.close(self._master)
            self._master = -1


class ReplError(RuntimeError):
    """The guest raised; `args` are (traceback, output so far)."""


_RAW_PROMPT = b"raw REPL; CTRL-B to exit\r\n>"


def _split_reply(reply: bytes) -> "tuple[str, str] | None":
    """(stdout, stderr) of a raw-REPL reply `OK out ^D err ^D`, or None while incomplete."""
    body = reply[reply.index(b"OK") + 2 :] if b"OK" in reply else b""
    if body.count(b"\x04") < 2:
        return None
    out, err, *_ = body.split(b"\x04")
    return out.decode(errors="replace").replace("\r\n", "\n"), err.decode(
        errors="replace"
    ).replace("\r\n", "\n")


# ------------------------------------------------------------------------------------------
# WiFi: the gSPI bus, without bit-banging
# ------------------------------------------------------------------------------------------


class Gspi(gspi.GSPIBus):
    """rp2040py decodes the CYW43439's SPI bus bit by bit, through the PIO and the GPIO
    models: 225 kB of WiFi firmware cost 20 s.  `exchange` does a transaction at once.

    The chip grants the driver send credits: an 8-bit sequence number up to which it may
    send, repeated in every frame to the host.  rp2040py just counts the frames it sends, so
    after 256 more frames in than out the two meet and the driver stalls for good.  Here a
    credit is the last sequence number seen plus a window.
    """

    CREDITS = 8

    def __init__(self) -> None:
        self._sequence = 0xFF
        super().__init__()

    selected = property(lambda self: self._selected)

    @property
    def _bus_data_credit(self) -> int:
        return (self._sequence + 1 + self.CREDITS) & 0xFF

    @_bus_data_credit.setter
    def _bus_data_credit(self, value: int) -> None:
        pass

    def power_off(self) -> None:
        super().power_off()
        self._sequence = 0xFF

    def _write_wlan(self, data: bytes) -> None:
        if len(data) >= gspi.SDPCM_HEADER_LEN:
            self._sequence = data[4]
        super()._write_wlan(data)

    def exchange(self, wire: bytes, reply_length: int) -> bytes:
        """The bytes clocked out by the host -> the bytes clocked in after them."""
        if len(wire) < 4:
            return bytes(reply_length)
        command = gspi._decode_header(self._word(int.from_bytes(wire[:4], "big")))
        if not command.write:
            self._start_response(command)
            reply, self._response_bytes = self._response_bytes, b""
            return reply[:reply_length].ljust(reply_length, b"\0")
        payload = wire[4:]
        if not self._word_length_32:
            words = [
                self._word(int.from_bytes(payload[i : i + 4], "big"))
                for i in range(0, len(payload), 4)
            ]
            payload = b"".join(word.to_bytes(4, "little") for word in words)
        payload = payload[: command.size]
        if command.function == gspi.WLAN_FUNCTION:
            self._write_wlan(payload)
        else:
            self.write_register(
                command.function, command.address, len(payload), int.from_bytes(payload, "little")
            )
        return b""

    def _start_response(self, command) -> None:
        if not self._word_length_32:
            super()._start_response(command)
            return
        value = self.read_register(command.function, command.address, command.size)
        body = value.to_bytes(command.size, "little")
        body += bytes(-len(body) % 4)
        if command.function == gspi.BACKPLANE_FUNCTION:
            body = bytes(gspi.CYW43_BACKPLANE_READ_PAD_LEN_BYTES) + body
        self._response_bytes = body
        self._response_bit_index = 0


class PioTap:
    """Stands in front of a PIO block on the bus.  When the WiFi driver starts its SPI
    state machine (chip selected, bit counts in X and Y, DMA armed) the whole transfer is
    done here and the machine is never started; all else goes to the real model."""

    CTRL, TXF0, RXF0 = 0x00, 0x10, 0x20

    def __init__(self, pio, mcu, bus: Gspi, base: int) -> None:
        self.pio, self.mcu, self.bus, self.base = pio, mcu, bus, base
        self.read_uint32 = pio.read_uint32
        self.reset = pio.reset
        self.transactions = self.bytes = 0

    def write_uint32(self, offset: int, value: int) -> None:
        self.pio.write_uint32(offset, value)

    def write_uint32_atomic(self, offset: int, value: int, kind: int) -> None:
        if offset == self.CTRL and self.bus.selected:
            before = self.pio.read_uint32(self.CTRL)
            after = value if kind == ATOMIC_NORMAL else atomic_update(before, kind, value)
            started = after & ~before & 0xF
            for index in range(4):
                if started >> index & 1 and self._transfer(index):
                    after &= ~(1 << index)
                    kind, value = ATOMIC_NORMAL, after
        self.pio.write_uint32_atomic(offset, value, kind)

    def _transfer(self, index: int) -> bool:
        machine, mcu = self.pio.machines[index], self.mcu
        if (machine.x + 1) % 32 or not machine.x:
            return False
        send = (machine.x + 1) // 8
        receive = (machine.y + 1) // 8 if machine.y >= 31 else 0
        wire = bytearray()
        while not machine.tx_fifo.empty:
            wire += machine.tx_fifo.pull().to_bytes(4, "big")
        mcu.dma.set_dreq(machine.dreq_tx)
        channel = self._channel("_write_addr", self.base + self.TXF0 + 4 * index)
        if channel is not None:
            wire += self._memory(channel._read_addr, send - len(wire))
            self._finish(channel, "_read_addr")
        reply = self.bus.exchange(bytes(wire[:send]), receive)
        mcu.clock.tick((send + receive) * 8 * 4 * NS_PER_CYCLE)  # 31.25 MHz: 4 cycles a bit
        channel = self._channel("_read_addr", self.base + self.RXF0 + 4 * index)
        if channel is not None and receive:
            at = channel._write_addr - RAM_START_ADDRESS
            mcu.sram[at : at + receive] = reply
            self._finish(channel, "_write_addr")
        stalled = 1 << (24 + index)  # FDEBUG.TXSTALL: what the driver waits for
        self.pio.tx_stall |= stalled
        self.pio.fdebug |= stalled
        self.transactions += 1
        self.bytes += send + receive
        return True

    def _channel(self, side: str, address: int):
        for channel in self.mcu.dma.channels:
            if channel.active and getattr(channel, side) == address:
                return channel
        return None

    def _memory(self, address: int, length: int) -> bytes:
        if length <= 0:
            return b""
        if address >= RAM_START_ADDRESS:
            at = address - RAM_START_ADDRESS
            return bytes(self.mcu.sram[at : at + length])
        at = address - FLASH_START_ADDRESS
        return bytes(self.mcu.flash[at : at + length])

    def _finish(self, channel, side: str) -> None:
        """What the end of a DMA transfer looks like."""
        channel.transfer_alarm.cancel()
        setattr(channel, side, getattr(channel, side) + 4 * channel._trans_count)
        channel._trans_count = 0
        channel._ctrl &= ~(1 << 24)  # BUSY
        if not channel._ctrl & (1 << 21):  # IRQ_QUIET
            self.mcu.dma.int_raw |= 1 << channel.index
            self.mcu.dma.check_interrupts()


class Wifi(Cyw43439):
    """The CYW43439 with a fast bus and a network of its own."""

    def __init__(self, board: "PicoW") -> None:
        super().__init__()
        self.board = board
        self.bus = Gspi()

    def attach(self, mcu) -> None:
        super().attach(mcu)
        self.bus.nat_bridge = self.board.network = Network(
            mcu, self.bus.queue_rx_ethernet_frame, self.board.allow
        )
        self.taps = []
        for base in (0x50200000, 0x50300000):
            key = base >> 12
            tap = PioTap(mcu.peripherals[key], mcu, self.bus, base)
            self.taps.append(tap)
            if self.board.fast_bus:
                mcu.peripherals[key] = tap


# ------------------------------------------------------------------------------------------
# The network: a gateway at 10.0.0.1 that is the host's loopback
# ------------------------------------------------------------------------------------------


def _checksum(data: bytes) -> int:
    if len(data) & 1:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def _tcp_packet(
    src: bytes,
    dst: bytes,
    sport: int,
    dport: int,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    payload: bytes = b"",
    mss: "int | None" = None,
) -> bytes:
    """An IPv4 packet with one TCP segment.  (rp2040py has the same, but its checksum loops
    over every word in Python; this one is on the path of every byte.)"""
    options = struct.pack("!BBH", 2, 4, mss) if mss else b""
    segment = (
        struct.pack(
            "!HHIIBBHHH",
            sport,
            dport,
            seq & 0xFFFFFFFF,
            ack & 0xFFFFFFFF,
            (20 + len(options)) << 2,
            flags,
            window,
            0,
            0,
        )
        + options
        + payload
    )
    pseudo = src + dst + struct.pack("!BBH", 0, net.IP_PROTO_TCP, len(segment))
    segment = segment[:16] + struct.pack("!H", _checksum(pseudo + segment)) + segment[18:]
    header = (
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, net.IP_PROTO_TCP, 0)
        + src
        + dst
    )
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + segment


def _before(a: int, b: int) -> bool:
    """Sequence number a < b, modulo 2**32."""
    return ((a - b) & 0xFFFFFFFF) > 0x7FFFFFFF


class Flow(asyncio.Protocol):
    """One TCP connection: a host socket on one side, the guest's lwIP on the other.

    Towards the guest this is a TCP endpoint of its own (the peer is 10.0.0.1): handshake
    in either direction, MSS, the guest's window, a congestion window, retransmission by
    timer (guest time) and by three duplicate ACKs - lwIP drops segments when it runs out
    of pbufs, so that is not a formality - FIN and RST both ways, half-close.
    """

    MSS = 1460
    RECEIVE_BUFFER = 32768
    HOST_BUFFER = 8192
    SEND_BUFFER = 65536
    FIRST_RTO = 300_000_000  # ns of guest time
    MAX_TRIES = 8
    LINGER = 2_000_000_000  # how long a closed flow answers late segments

    def __init__(self, network: "Network", guest_port: int, host_port: int, inbound: bool) -> None:
        self.network = network
        self.guest_port = guest_port  # on 10.0.0.2
        self.host_port = host_port  # on 10.0.0.1, as the guest sees it
        self.inbound = inbound  # the host opened it
        self.key = (guest_port, host_port)
        self.state = "connecting"  # syn-sent | syn-received | open | closed
        self.transport: "asyncio.Transport | None" = None
        self.mss = 536
        iss = random.getrandbits(32)
        self.unacked = self.next = self.highest = iss  # SND.UNA, SND.NXT, the most ever sent
        self.buffer = bytearray()  # data from SND.UNA on
        self.window = 0  # the guest's
        self.congestion = 0
        self.duplicates = 0
        self.expect = 0  # RCV.NXT
        self.host_finished = False  # the host socket is at EOF
        self.fin_sequence: "int | None" = None  # our FIN's, once sent
        self.fin_acked = False
        self.guest_finished = False
        self.advertised = self.RECEIVE_BUFFER
        self._paused = False
        self._timer = Alarm(network.clock, self._timeout)
        self._rto = self.FIRST_RTO
        self._tries = 0

    # -- the host socket -------------------------------------------------------------------

    def connection_made(self, transport) -> None:
        self.transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A reader that stops is felt on the board, and not after megabytes.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.HOST_BUFFER)
        if self.state == "closed":
            self._reset_host()
        elif self.inbound:
            transport.pause_reading()
            self._paused = True

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._push()
        if len(self.buffer) > self.SEND_BUFFER and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.host_finished = True
        self._push()
        return True  # keep our sending side open

    def connection_lost(self, exc) -> None:
        if self.state == "closed" or self.fin_acked and self.guest_finished:
            return
        if exc is not None or not self.host_finished or not self.guest_finished:
            self._send(net.TCP_RST | net.TCP_ACK)
            self._close()

    def resume_writing(self) -> None:
        if self.state == "open" and self._receive_window() > self.advertised:
            self._send(net.TCP_ACK)

    def pause_writing(self) -> None:
        pass

    def _reset_host(self) -> None:
        """Close the host socket so that its peer sees a reset."""
        if self.transport is not None:
            sock = self.transport.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    # -- towards the guest -----------------------------------------------------------------

    def _receive_window(self) -> int:
        queued = self.transport.get_write_buffer_size() if self.transport else 0
        return max(0, self.RECEIVE_BUFFER - queued)

    def _send(
        self, flags: int, payload: bytes = b"", seq: "int | None" = None, mss: "int | None" = None
    ) -> None:
        self.advertised = min(self._receive_window(), 0xFFFF)
        self.network.send_tcp(self, self.next if seq is None else seq, flags, payload, mss)

    def start_inbound(self) -> None:
        self.state = "syn-sent"
        self._send(net.TCP_SYN, seq=self.unacked, mss=self.MSS)
        self.next = self.highest = (self.unacked + 1) & 0xFFFFFFFF
        self._arm()

    def start_outbound(self, segment) -> None:
        """The guest's SYN came in; `accept` or `refuse` follow."""
        self.expect = (segment.seq + 1) & 0xFFFFFFFF
        self.window = segment.window
        self.mss = min(segment.mss or 536, self.MSS)

    def accept(self) -> None:
        self.state = "syn-received"
        self._send(net.TCP_SYN | net.TCP_ACK, seq=self.unacked, mss=self.MSS)
        self.next = self.highest = (self.unacked + 1) & 0xFFFFFFFF
        self._arm()

    def refuse(self) -> None:
        self._send(net.TCP_RST | net.TCP_ACK, seq=0)
        self._close()

    def abort(self) -> None:
        """The guest has gone (WiFi down, reset)."""
        self._close()
        self._reset_host()

    def _push(self) -> None:
        """Send what the windows allow, then the FIN."""
        if (
            self.state != "open"
            or self.fin_sequence is not None
            and not _before(self.next, self.fin_sequence)
        ):
            return
        limit = min(self.window, self.congestion)
        while True:
            sent = (self.next - self.unacked) & 0xFFFFFFFF
            size = min(self.mss, len(self.buffer) - sent, limit - sent)
            if size <= 0:
                break
            last = sent + size == len(self.buffer)
            self._send(
                net.TCP_ACK | (net.TCP_PSH if last else 0), bytes(self.buffer[sent : sent + size])
            )
            self._advance(size)
        if self.host_finished and (self.next - self.unacked) & 0xFFFFFFFF == len(self.buffer):
            self.fin_sequence = self.next
            self._send(net.TCP_FIN | net.TCP_ACK)
            self._advance(1)
        if self.next != self.unacked and not self._timer.running:
            self._arm()

    def _advance(self, size: int) -> None:
        self.next = (self.next + size) & 0xFFFFFFFF
        if _before(self.highest, self.next):
            self.highest = self.next

    def _arm(self) -> None:
        self._timer.start(self._rto)

    def _timeout(self) -> None:
        if self.state == "closed":
            self.network.forget(self)
            return
        if self.next == self.unacked and self.state == "open":
            return
        self._tries += 1
        if self._tries > self.MAX_TRIES:
            self._send(net.TCP_RST | net.TCP_ACK)
            self._close()
            self._reset_host()
            return
        self._rto = min(self._rto * 2, 8_000_000_000)
        self.network.retransmissions += 1
        if self.state == "syn-sent":
            self._send(net.TCP_SYN, seq=self.unacked, mss=self.MSS)
        elif self.state == "syn-received":
            self._send(net.TCP_SYN | net.TCP_ACK, seq=self.unacked, mss=self.MSS)
        elif self.state == "open":
            self.congestion = max(2 * self.mss, self.congestion // 2)
            self.next = self.unacked  # go back N
            self.fin_sequence = None
            if self.window == 0:  # probe a closed window
                self._send(net.TCP_ACK, seq=(self.unacked - 1) & 0xFFFFFFFF)
                self._tries -= 1
            self._push()
        self._arm()

    def segment(self, tcp) -> None:
        """A segment from the guest."""
        if self.state == "closed":
            if not tcp.flags & net.TCP_RST:
                self._send(net.TCP_ACK)
            return
        if tcp.flags & net.TCP_RST:
            self._close()
            self._reset_host()
            return
        if self.state == "connecting":
            return  # a repeated SYN; the host's answer is not in yet
        if self.state == "syn-sent":
            if tcp.flags & (net.TCP_SYN | net.TCP_ACK) != net.TCP_SYN | net.TCP_ACK:
                return
            self.expect = (tcp.seq + 1) & 0xFFFFFFFF
            self.mss = min(tcp.mss or 536, self.MSS)
            self._opened(tcp)
            self._send(net.TCP_ACK)
            if self.transport:
                self._paused = False
                self.transport.resume_reading()
            self._push()
            return
        if tcp.flags & net.TCP_SYN:
            if self.state == "syn-received":
                self._send(net.TCP_SYN | net.TCP_ACK, seq=self.unacked, mss=self.MSS)
            return
        if self.state == "syn-received":
            if not tcp.flags & net.TCP_ACK or tcp.ack != self.next:
                return
            self._opened(tcp)
        self._acknowledged(tcp)
        self._received(tcp)
        if self.state == "open":
            self._push()
            if self.fin_acked and self.guest_finished:
                self._close()
                if self.transport:
                    self.transport.close()

    def _opened(self, tcp) -> None:
        self.state = "open"
        self.unacked = self.next
        self.window = tcp.window
        self.congestion = 4 * self.mss
        self._tries, self._rto = 0, self.FIRST_RTO
        self._timer.stop()
        if self.inbound:
            self.network.on_accept(self.guest_port)

    def _acknowledged(self, tcp) -> None:
        ack = tcp.ack
        if _before(self.highest, ack):
            return
        if _before(self.unacked, ack):
            count = (ack - self.unacked) & 0xFFFFFFFF
            data = min(count, len(self.buffer))
            del self.buffer[:data]
            if (
                count > data
                or self.fin_sequence is not None
                and ack == (self.fin_sequence + 1) & 0xFFFFFFFF
            ):
                self.fin_acked = True
            self.unacked = ack
            if _before(self.next, ack):
                self.next = ack
            self.congestion = min(self.congestion + data, 65535)
            self.duplicates = self._tries = 0
            self._rto = self.FIRST_RTO
            self._timer.stop()
            if self.next != self.unacked:
                self._arm()
            if self._paused and len(self.buffer) < self.SEND_BUFFER // 2 and self.transport:
                self._paused = False
                self.transport.resume_reading()
        elif (
            ack == self.unacked
            and self.next != self.unacked
            and not tcp.payload
            and tcp.window == self.window
        ):
            self.duplicates += 1
            if self.duplicates == 3:
                self.network.retransmissions += 1
                self.congestion = max(2 * self.mss, self.congestion // 2)
                again = bytes(self.buffer[: self.mss])
                self._send(net.TCP_ACK | (0 if again else net.TCP_FIN), again, seq=self.unacked)
        self.window = tcp.window

    def _received(self, tcp) -> None:
        payload, sequence = tcp.payload, tcp.seq
        if not payload and not tcp.flags & net.TCP_FIN:
            return
        late = (self.expect - sequence) & 0xFFFFFFFF  # bytes of it that we have already
        if late > 0x7FFFFFFF or late > len(payload):
            self._send(net.TCP_ACK)  # a hole, or all of it old: say what we want
            return
        payload = payload[late:]
        if payload:
            self.expect = (self.expect + len(payload)) & 0xFFFFFFFF
            if self.transport and not self.transport.is_closing():
                self.transport.write(payload)
        if tcp.flags & net.TCP_FIN and not self.guest_finished:
            self.expect = (self.expect + 1) & 0xFFFFFFFF
            self.guest_finished = True
            if self.transport and not self.transport.is_closing():
                try:
                    self.transport.write_eof()
                except OSError:  # reset by the host meanwhile; connection_lost() follows
                    pass
        self._send(net.TCP_ACK)

    def _close(self) -> None:
        self.state = "closed"
        self._timer.stop()
        self._timer.start(self.LINGER)


class Network:
    """The other end of the air: ARP, DHCP, and TCP to and from the host's loopback."""

    def __init__(self, mcu, queue_frame, allow: "set[int] | None") -> None:
        self.mcu = mcu
        self.clock = mcu.clock
        self.allow = allow
        self.queue_frame = queue_frame
        self.guest_mac: "bytes | None" = None
        self.guest_ip = GUEST_IP
        self.flows: "dict[tuple[int, int], Flow]" = {}
        self.refused: "list[str]" = []  # what the guest tried and must not
        self.on_accept = lambda guest_port: None  # the guest took a connection of the host's
        self.retransmissions = 0
        self.frames_in = self.frames_out = 0
        self._dhcp = DhcpServer()
        self._next_port = 40000
        self._servers: "list[asyncio.Server]" = []
        self._tasks: "set[asyncio.Task]" = set()

    # -- rp2040py's side -------------------------------------------------------------------

    def reset(self) -> None:
        """The guest left the network."""
        for flow in list(self.flows.values()):
            flow.abort()
        self.flows.clear()
        self.guest_mac = None

    def handle_outbound_ethernet_frame(self, frame: bytes) -> None:
        self.frames_in += 1
        eth = net.parse_ethernet(frame)
        if eth is None:
            return
        self.guest_mac = eth.src_mac
        if eth.ethertype == net.ETHERTYPE_ARP:
            self._answer_arp(eth)
            return
        if eth.ethertype != net.ETHERTYPE_IPV4:
            return
        ip = net.parse_ipv4(eth.payload)
        if ip is None:
            return
        if ip.proto == net.IP_PROTO_UDP:
            self._udp(eth, ip)
        elif ip.proto == net.IP_PROTO_TCP:
            tcp = net.parse_tcp(ip.payload)
            if tcp is not None:
                self._tcp(ip, tcp)

    def _answer_arp(self, eth) -> None:
        """Every address but the guest's own is at the gateway's MAC: what is refused is
        then refused at once (RST) instead of after a minute of unanswered ARP."""
        arp = net.parse_arp(eth.payload)
        if (
            arp is None
            or arp.op != net.ARP_OP_REQUEST
            or arp.target_ip in (GUEST_IP, arp.sender_ip)
        ):
            return
        reply = net.pack_arp(
            net.ARP_OP_REPLY, GATEWAY_MAC, arp.target_ip, arp.sender_mac, arp.sender_ip
        )
        self._queue(net.pack_ethernet(arp.sender_mac, GATEWAY_MAC, net.ETHERTYPE_ARP, reply))

    def _queue(self, frame: bytes) -> None:
        self.frames_out += 1
        self.queue_frame(frame)
        self.mcu.simulator.wake()

    # -- UDP: DHCP, the time, and a DNS server that knows nothing --------------------------

    def _udp(self, eth, ip) -> None:
        reply = self._dhcp.maybe_handle(eth)
        if reply is not None:
            self._queue(reply)
            return
        udp = net.parse_udp(ip.payload)
        if udp is None:
            return
        if ip.dst_ip[0] & 0xF0 == 0xE0 or ip.dst_ip[3] == 255:
            return  # multicast (lwIP's mDNS responder) and broadcast reach nobody
        asked = udp.payload
        if ip.dst_ip == GATEWAY_IP and udp.dst_port == 123 and len(asked) >= 48:
            # SNTP (RFC 4330): version 4, server, stratum 2; the time three times
            now = struct.pack("!II", int(time.time()) + 2208988800 & 0xFFFFFFFF, 0)
            answer = b"\x24\x02\x06\xec" + bytes(12) + now + asked[40:48] + now + now
        elif ip.dst_ip == GATEWAY_IP and udp.dst_port == 53 and len(asked) >= 12:
            self._refuse("a name")
            answer = asked[:2] + b"\x81\x85" + asked[4:6] + bytes(6) + asked[12:]  # REFUSED
        else:
            self._refuse(f"udp {'.'.join(map(str, ip.dst_ip))}:{udp.dst_port}")
            return
        packet = net.pack_udp(GATEWAY_IP, ip.src_ip, udp.dst_port, udp.src_port, answer)
        packet = net.pack_ipv4(GATEWAY_IP, ip.src_ip, net.IP_PROTO_UDP, packet)
        self._queue(net.pack_ethernet(eth.src_mac, GATEWAY_MAC, net.ETHERTYPE_IPV4, packet))

    def _refuse(self, what: str) -> None:
        if len(self.refused) < 1000:
            self.refused.append(what)

    # -- TCP -------------------------------------------------------------------------------

    def send_tcp(
        self, flow: Flow, seq: int, flags: int, payload: bytes, mss: "int | None"
    ) -> None:
        if self.guest_mac is None:
            return
        packet = _tcp_packet(
            GATEWAY_IP,
            self.guest_ip,
            flow.host_port,
            flow.guest_port,
            seq,
            flow.expect if flags & net.TCP_ACK else 0,
            flags,
            flow.advertised,
            payload,
            mss,
        )
        self._queue(net.pack_ethernet(self.guest_mac, GATEWAY_MAC, net.ETHERTYPE_IPV4, packet))

    def _bare_reset(self, ip, tcp) -> None:
        if tcp.flags & net.TCP_RST:
            return
        ack = (
            tcp.seq + len(tcp.payload) + bool(tcp.flags & (net.TCP_SYN | net.TCP_FIN))
        ) & 0xFFFFFFFF
        seq = tcp.ack if tcp.flags & net.TCP_ACK else 0
        packet = _tcp_packet(
            ip.dst_ip,
            ip.src_ip,
            tcp.dst_port,
            tcp.src_port,
            seq,
            ack,
            net.TCP_RST | net.TCP_ACK,
            0,
        )
        self._queue(net.pack_ethernet(self.guest_mac, GATEWAY_MAC, net.ETHERTYPE_IPV4, packet))

    def _tcp(self, ip, tcp) -> None:
        if ip.dst_ip != GATEWAY_IP:
            self._refuse(f"tcp {'.'.join(map(str, ip.dst_ip))}:{tcp.dst_port}")
            self._bare_reset(ip, tcp)
            return
        self.guest_ip = ip.src_ip
        key = (tcp.src_port, tcp.dst_port)
        flow = self.flows.get(key)
        opens = tcp.flags & (net.TCP_SYN | net.TCP_ACK) == net.TCP_SYN
        if flow is not None and flow.state == "closed" and opens:
            self.forget(flow)
            flow = None
        if flow is not None:
            flow.segment(tcp)
        elif not opens:
            self._bare_reset(ip, tcp)
        elif self.allow is not None and tcp.dst_port not in self.allow:
            self._refuse(f"tcp 10.0.0.1:{tcp.dst_port} (not allowed)")
            self._bare_reset(ip, tcp)
        else:
            flow = Flow(self, tcp.src_port, tcp.dst_port, inbound=False)
            self.flows[key] = flow
            flow.start_outbound(tcp)
            self._spawn(self._connect(flow))

    def _spawn(self, coroutine) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, flow: Flow) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(
                loop.create_connection(lambda: flow, LOOPBACK, flow.host_port), 10
            )
        except (OSError, asyncio.TimeoutError):
            if flow.state == "connecting":
                flow.refuse()
            return
        if flow.state == "connecting":
            flow.accept()

    def forget(self, flow: Flow) -> None:
        if self.flows.get(flow.key) is flow:
            del self.flows[flow.key]

    # -- inbound ---------------------------------------------------------------------------

    async def forward(self, host_port: int, guest_port: int) -> int:
        """Listen on 127.0.0.1:host_port for guest_port; returns the port (0: any)."""

        def accept() -> Flow:
            while (guest_port, self._next_port) in self.flows:
                self._next_port += 1
            flow = Flow(self, guest_port, self._next_port, inbound=True)
            self._next_port = self._next_port + 1 if self._next_port < 60000 else 40000
            self.flows[flow.key] = flow
            loop.call_soon(begin, flow)
            return flow

        def begin(flow: Flow) -> None:
            if self.guest_mac is None:  # no WiFi, nobody there
                flow.abort()
                self.forget(flow)
            else:
                flow.start_inbound()

        loop = asyncio.get_running_loop()
        server = await loop.create_server(accept, LOOPBACK, host_port)
        self._servers.append(server)
        return server.sockets[0].getsockname()[1]

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for flow in list(self.flows.values()):
            flow.abort()

    def stats(self) -> dict:
        return {
            "flows": [
                f"{'in' if f.inbound else 'out'} {f.guest_port}-{f.host_port} {f.state}"
                for f in self.flows.values()
            ],
            "frames_in": self.frames_in,
            "frames_out": self.frames_out,
            "retransmissions": self.retransmissions,
            "refused": self.refused,
        }


# ------------------------------------------------------------------------------------------
# The board
# ------------------------------------------------------------------------------------------


class PicoW(BaseDevice):
    """A Pico W in this process; everything runs on the caller's asyncio loop.

    ::

        board = PicoW(uf2="RPI_PICO_W.uf2", flash="flash.img", forwards=[(0, 5672)])
        await board.power_on()
        print(await board.exec("print(1 + 1)"))
        await board.power_off()
    """

    def __init__(
        self,
        *,
        uf2: "str | Path | None" = None,
        flash: "str | Path | None" = None,
        forwards: "list[tuple[int, int]]" = (),
        allow: "set[int] | None" = None,
        console_tcp: "int | None" = None,
        console_pty: bool = False,
        pty_link: "str | Path | None" = None,
        console_log: "str | Path | None" = None,
        engine: str = "auto",
        pace: str = "idle",
        xip: "int | None" = None,
        flash_timing: str = "none",
        fast_bus: bool = True,
        log_level: LogLevel = LogLevel.ERROR,
    ) -> None:
        if uf2 is None and (flash is None or not Path(flash).exists()):
            raise ValueError("need a UF2, or a flash image that has one in it")
        self.allow = allow
        self.fast_bus = fast_bus
        self.network: "Network | None" = None  # set by Wifi.attach()
        self.wifi: "Wifi | None" = None

        def wifi() -> Wifi:
            self.wifi = Wifi(self)
            return self.wifi

        # BaseDevice wants a UF2 to load; ours may be in the flash image already
        nothing = Path(os.devnull)
        super().__init__(
            board=BoardSpec(extras=(wifi, BootselButton), image=nothing), log_level=log_level
        )
        library = build_m0fast() if engine in ("auto", "c") else None
        if engine == "c" and library is None:
            raise RuntimeError("engine='c' needs a C compiler and m0fast.c")
        fast = FastCore(library, self.mcu, xip) if library is not None else None
        self.simulator = Engine(self.mcu, pace=pace, fast=fast)
        self.cdc = Cdc(self.mcu.usb_ctrl)
        self.flash = FlashChip(self.mcu, Path(flash) if flash else None, flash_timing)
        self.flash.engine = self.simulator
        self.flash.load(Path(uf2) if uf2 else None)
        self.mcu.peripherals[PROBE_BASE >> 12] = Probe(self.mcu, self)
        self.console = Console(self.cdc, Path(console_log) if console_log else None)
        self.marks: "list[int]" = []
        self.mark_hook = None
        self._forwards = list(forwards)
        self.forwards: "dict[int, int]" = {}  # host port -> guest port
        self._console_tcp, self._console_pty, self._pty_link = console_tcp, console_pty, pty_link

    # -- life ------------------------------------------------------------------------------

    async def power_on(self, timeout: float = 60.0) -> None:
        """Open the ports, boot, and return when the USB console is there."""
        for host_port, guest_port in self._forwards:
            self.forwards[await self.network.forward(host_port, guest_port)] = guest_port
        if self._console_tcp is not None:
            await self.console.listen(self._console_tcp)
        if self._console_pty or self._pty_link:
            self.console.open_pty(Path(self._pty_link) if self._pty_link else None)
        await self.astart(timeout)

    async def power_off(self) -> None:
        self.stop()
        await asyncio.sleep(0.01)
        self.network.close()
        self.console.close()
        self.flash.sync()

    def on_mark(self, value: int) -> None:
        self.marks.append(value)
        if self.mark_hook:
            self.mark_hook(value)

    def _enter_reset(self, cause) -> None:
        """A chip reset: WiFi loses power, so its connections are gone."""
        super()._enter_reset(cause)
        self.wifi.bus.power_off()  # a reset moves its power pin without telling the listeners
        self.network.reset()
        self.simulator.resync = True

    def _leave_reset(self) -> None:
        super()._leave_reset()
        self.simulator.resync = True

    # -- running code ----------------------------------------------------------------------

    async def exec(self, code: str, timeout: float = 120.0) -> str:
        """Run `code` through the raw REPL; its output, or ReplError if it raised."""
        received = bytearray()
        arrived = asyncio.Event()

        def listen(data: bytes) -> None:
            received.extend(data)
            arrived.set()

        async def until(done):
            while (result := done()) is None:
                arrived.clear()
                wait = asyncio.ensure_future(arrived.wait())
                watched = {wait, self.simulator._execute_task}
                try:
                    finished, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    wait.cancel()
                if wait not in finished:
                    raise self.simulator.engine_room_error or RuntimeError("the emulator stopped")
            return result

        self.console.listeners.append(listen)
        try:
            async with (
                asyncio.timeout(timeout) if hasattr(asyncio, "timeout") else _timeout(timeout)
            ):
                self.cdc.send(b"\r\x03\x03\x01")
                await until(lambda: True if _RAW_PROMPT in received else None)
                received.clear()
                self.cdc.send(code.encode() + b"\x04")
                out, err = await until(lambda: _split_reply(bytes(received)))
                self.cdc.send(b"\x02")
        finally:
            self.console.listeners.remove(listen)
        if err:
            raise ReplError(err, out)
        return out

    def stats(self) -> dict:
        return {
            **self.simulator.stats(),
            "flash_operations": self.flash.operations,
            "flash_erases": self.flash.erases,
            "flash_programs": self.flash.programs,
            "network": self.network.stats(),
        }


class _timeout:
    """asyncio.timeout() for Python 3.10, as far as needed here."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def __aenter__(self):
        task = asyncio.current_task()
        self._expired = False

        def expire() -> None:
            self._expired = True
            task.cancel()

        self._handle = asyncio.get_running_loop().call_later(self.seconds, expire)

    async def __aexit__(self, kind, exc, traceback):
        self._handle.cancel()
        if self._expired and kind is asyncio.CancelledError:
            raise TimeoutError from exc


# ------------------------------------------------------------------------------------------
# Command line
# ------------------------------------------------------------------------------------------


def _pair(text: str) -> "tuple[int, int]":
    host, _, guest = text.partition(":")
    return int(host), int(guest or host)


def parse_arguments(arguments: "list[str] | None" = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--uf2", type=Path, help="firmware; flashed over --flash if both are given")
    add(
        "--flash",
        type=Path,
        help="flash image file (2 MB), created if missing, updated as the guest writes",
    )
    add(
        "--console-tcp",
        type=int,
        metavar="PORT",
        help="console on 127.0.0.1:PORT (0: any free port)",
    )
    add("--console-pty", action="store_true", help="console on a new pty")
    add("--pty-link", type=Path, help="the same, and a symbolic link to it")
    add("--console-log", type=Path, help="append all console output to a file")
    add(
        "--forward",
        type=_pair,
        action="append",
        default=[],
        metavar="HPORT:GPORT",
        help="127.0.0.1:HPORT -> guest GPORT (HPORT 0: any free port); repeatable",
    )
    add(
        "--allow",
        type=int,
        action="append",
        metavar="PORT",
        help="the guest may only reach these ports of 127.0.0.1 (default: all); repeatable",
    )
    add(
        "--engine",
        choices=("auto", "c", "native"),
        default="auto",
        help="c: m0fast.c, compiled on first use; native: rp2040py's own core (slow)",
    )
    add("--pace", choices=("idle", "real", "off"), default="idle", help="see Engine")
    add(
        "--xip",
        type=int,
        metavar="CYCLES",
        help="model the XIP cache; CYCLES per miss (needs engine c)",
    )
    add(
        "--flash-timing",
        choices=tuple(FlashChip.TIMES),
        default="none",
        help="erase and program times",
    )
    add("--cut-at", metavar="N[:FRACTION]", help="power cut inside the N-th flash operation")
    add("--slow-bus", action="store_true", help="emulate every bit of the WiFi SPI bus")
    add(
        "--script",
        type=Path,
        help="run this file through the raw REPL after boot, print its output, exit",
    )
    add("--stats", action="store_true", help="print statistics at the end")
    return parser.parse_args(arguments)


async def _main(options: argparse.Namespace) -> int:
    board = PicoW(
        uf2=options.uf2,
        flash=options.flash,
        forwards=options.forward,
        allow=set(options.allow) if options.allow else None,
        console_tcp=options.console_tcp,
        console_pty=options.console_pty,
        pty_link=options.pty_link,
        console_log=options.console_log,
        engine=options.engine,
        pace=options.pace,
        xip=options.xip,
        flash_timing=options.flash_timing,
        fast_bus=not options.slow_bus,
    )
    board.mark_hook = lambda value: emit("mark", value=value, **board.simulator.stats())
    board.network.on_accept = lambda port: emit("accept", port=port, **board.simulator.stats())
    if options.cut_at:
        number, _, fraction = options.cut_at.partition(":")
        board.flash.cut_at, board.flash.cut_fraction = int(number), float(fraction or 0)
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: emit("stats", **board.stats()))
    await board.power_on()
    emit(
        "ready",
        pid=os.getpid(),
        console=board.console.port,
        pty=board.console.pty_path,
        forwards=board.forwards,
        engine="c" if board.simulator.fast else "native",
    )
    status = 0
    if options.script:
        try:
            sys.stdout.write(await board.exec(options.script.read_text(), timeout=3600))
        except ReplError as error:
            sys.stdout.write(error.args[1])
            sys.stderr.write(error.args[0])
            status = 1
    else:
        waiting = [asyncio.ensure_future(over.wait()), board.simulator._execute_task]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if board.simulator.engine_room_error is not None:
            emit("crash", why=str(board.simulator.engine_room_error))
            status = 3
    if options.stats:
        emit("stats", **board.stats())
    await board.power_off()
    return status


def main(arguments: "list[str] | None" = None) -> int:
    return asyncio.run(_main(parse_arguments(arguments)))


if __name__ == "__main__":
    sys.exit(main())
