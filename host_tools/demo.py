"""`amqp-lite demo`: what the edge broker is for, in twenty seconds.

Sensors publish all the time, and meanwhile the way upstream is cut, the edge broker killed and
started again, and the way restored. In the end everything is counted, message by message.
"""

import collections
import contextlib
import math
import os
import shutil
import sys
import tempfile
import time

from .demo_parts import (
    SENSORS,
    Cable,
    Edge,
    Interrupt,
    Sensors,
    Upstream,
    image_octets,
    place,
    stored_messages,
    turn_until,
    without_errno,
)
from .errors import CommandError
from .screen import Figures, open_screen

# Shares of the time.
_NORMAL = 0.15
_CUT = 0.3
_KILLED = 0.15
_DRAIN = 0.4
_DEAD = 0.05  # a part of _KILLED
_FASTER = 3  # than the sensors, is how fast the edge broker forwards
_PATIENCE_S = 20  # for a start, or for the next message when all is to arrive
_RATE_S = 1  # over which the numbers per second are taken


def do_demo(args):
    address = place(args.upstream) if args.upstream is not None else None
    if args.flash is not None:
        _make(args.flash)
    folder = tempfile.mkdtemp(prefix="amqp-lite-demo-")
    image = os.path.abspath(args.flash or os.path.join(folder, "edge.ring"))
    keep = args.keep
    try:
        count = _play(args, address, folder, image)
        keep = keep or not count.is_good
    except KeyboardInterrupt:
        print("ended")
        raise
    finally:
        _tidy_up(folder, image, keep)
    return 0 if count.is_good else 1


def _tidy_up(folder, image, keep):
    used = os.path.exists(image) and os.path.getsize(image) > 0
    if keep and used:
        print(f"What the brokers said and stored is in {folder}.")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    if os.path.exists(image):
        if used:
            print(f"Look into the flash image: amqp-lite ring show {image}")
        else:
            os.remove(image)


def _make(path):
    """Make the file of the flash image. Raises CommandError."""
    try:
        open(path, "xb").close()
    except FileExistsError:
        raise CommandError(f"--flash: {path} is there already, and the demo needs a new one")
    except OSError as error:
        raise CommandError(f"--flash: {path}: {error.strerror}") from None


def _play(args, address, folder, image):
    """The demo from the opening of everything to its end: the Count."""
    output = sys.stdout
    interrupt = Interrupt()
    with contextlib.ExitStack() as stack:
        # What brokers in this process say has no place on the screen.
        log = stack.enter_context(open(os.path.join(folder, "demo.log"), "w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(log))
        upstream = Upstream(address, folder)
        stack.callback(upstream.close)
        turn_until(
            [interrupt, upstream], lambda: upstream.is_open() or upstream.error(), _PATIENCE_S
        )
        if not upstream.is_open():
            raise CommandError(
                f"no upstream at {upstream.name}: {upstream.error().rstrip('.') or 'no answer'};"
                " without --upstream the demo brings its own", 1,
            )  # fmt: skip
        stack.callback(_clean_up, upstream, output)
        cable = Cable(upstream.host, upstream.port)
        stack.callback(cable.close)
        octets = image_octets(args.rate * args.seconds)
        edge = Edge(folder, image, octets, cable, upstream, _FASTER * args.rate)
        stack.callback(edge.stop)
        title = (f"amqp_lite demo: {SENSORS} sensors, {args.rate} messages/s,"
                 f" {octets >> 20} MB of flash")  # fmt: skip
        where = "upstream, in this process" if upstream.embedded else f"upstream, {upstream.name}"
        screen = open_screen(output, title, where)
        stack.callback(screen.close)
        demo = Demo(args, screen, edge, [interrupt, cable, upstream])
        stack.callback(demo.close)
        count = demo.run()
        screen.end(count.lines())
        return count


def _clean_up(upstream, output):
    if not upstream.clean_up():
        print(f"The queue '{upstream.queue}' may be left at {upstream.name}.", file=output)


class Demo:
    """
    args    rate and seconds count
    screen  see screen.py
    parts   an Interrupt, a Cable, an Upstream
    """

    def __init__(self, args, screen, edge, parts):
        self._rate = args.rate
        self._seconds = args.seconds
        self._screen = screen
        self._edge = edge
        self._parts = parts
        _, self._cable, self._upstream = parts
        self._sensors = None  # they come when the edge broker is there
        self._begin = None  # s, of the first phase
        self._is_over = False
        self._alive = False  # the edge broker
        self._figures = Figures()
        self._figures.backlog_most = int(self._rate * self._seconds * (_CUT + _KILLED)) + 1
        self._past = collections.deque()  # (s, sent, stored, forwarded)

    # --- the story ---

    def run(self):
        """All of it: the Count."""
        self._start()
        self._sensors = Sensors(self._edge.port, self._rate)
        self._parts = [*self._parts, self._sensors]
        self._wait_for(lambda: self._bridge_state() == "connected", "the bridge to connect")
        self._begin = time.monotonic()
        self._sensors.begin(self._begin)
        self._say("1 normal: what the sensors send passes through the edge broker")
        self._pass(_NORMAL)
        self._cable.cut()
        self._say("2 upstream cut: the backlog grows on flash")
        self._pass(_CUT)
        self._kill_and_restart()
        self._restore_and_drain()
        self._sensors.silence()
        self._say("5 the sensors stop, the rest drains")
        self._arrive()
        self._say("6 the count")
        return self._count()

    def close(self):
        if self._sensors is not None:
            self._sensors.close()

    def _start(self):
        self._edge.start()
        self._wait_for(self._edge.is_ready, "the edge broker to start")
        self._alive = True

    def _kill_and_restart(self):
        began = time.monotonic()
        pid = self._edge.process.pid
        self._alive = False
        self._edge.kill()
        self._sensors.status = None
        self._say(f"3 edge broker killed (SIGKILL, process {pid})")
        self._figures.backlog = found = stored_messages(self._edge.image)
        self._say(f"  dead, {found:,} waiting on its flash image")
        self._pass(_DEAD)
        self._start()
        self._wait_for(lambda: self._sensors.asked_at > began, "the edge broker to answer")
        waiting = self._figures.backlog
        self._say(f"  started again on it: {waiting:,} waiting, {waiting - found:,} came since")
        self._pass(_KILLED, began)

    def _restore_and_drain(self):
        began = time.monotonic()
        self._cable.restore()
        self._say("4 upstream is back: the backlog drains, live data goes on")
        some = max(self._rate // 4, 1)  # is always under way

        def is_drained():
            return self._sensors.asked_at > began and self._figures.backlog <= some

        if self._turn_until(is_drained, self._seconds * _DRAIN):
            self._say(f"  drained in {time.monotonic() - began:.1f} s")
        self._pass(_DRAIN, began)

    def _arrive(self):
        """Until everything has arrived, or nothing has for long."""
        sensors, upstream = self._sensors, self._upstream

        def is_over():
            if time.monotonic() - max(upstream.last_at, silent_at) > _PATIENCE_S:
                return True
            due = len(sensors.sent) - len(sensors.refused)
            return (
                len(upstream.arrived) == due == sensors.stored
                and sensors.asked_at > upstream.last_at
                and not self._figures.backlog
            )

        silent_at = time.monotonic()
        self._turn_until(is_over)

    def _count(self):
        self._is_over = True
        self._alive = False
        self._edge.stop()
        self._turn_until(lambda: False, 0.2)  # what is in the cable
        return Count(self._sensors, self._upstream.arrived)

    # --- its time ---

    def _say(self, text):
        now = time.monotonic()
        self._look(now)
        self._screen.event(now - self._begin, text)

    def _pass(self, share, began=None):
        """Until *share* of the time has passed since *began*, by default since now."""
        until = (began or time.monotonic()) + share * self._seconds
        self._turn_until(lambda: time.monotonic() >= until)

    def _wait_for(self, condition, what):
        if not self._turn_until(condition, _PATIENCE_S):
            raise CommandError(f"waited {_PATIENCE_S} s for {what}", 1)

    def _turn_until(self, condition, seconds=math.inf):
        """Let everybody do what there is to do until *condition*(): what it was."""
        return turn_until([*self._parts, self], condition, seconds)

    def turn(self, now):
        if self._alive:
            self._edge.check()
        if self._begin is not None and not self._is_over:
            self._look(now)
            self._screen.update(now - self._begin, self._figures)

    # --- what is to be seen ---

    def _bridge(self):
        status = self._sensors.status
        return status["bridges"]["cloud"] if status else None

    def _bridge_state(self):
        bridge = self._bridge()
        return bridge["state"] if bridge else ""

    def _look(self, now):
        figures = self._figures
        figures.edge = self._edge.process.pid if self._alive else None
        figures.is_cut = self._cable.is_cut
        counts = (len(self._sensors.sent), self._sensors.stored, len(self._upstream.arrived))
        figures.sent, figures.stored, figures.forwarded = counts
        figures.duplicates = self._upstream.arrivals - len(self._upstream.arrived)
        self._past.append((now, *counts))
        while now - self._past[0][0] > _RATE_S:
            self._past.popleft()
        first = self._past[0]
        passed = max(now - first[0], 0.1)
        figures.rates = [(count - was) / passed for count, was in zip(counts, first[1:])]
        if not self._alive:
            figures.bridge = "gone with the edge broker"
        elif self._sensors.status:
            self._look_at_edge(figures)

    def _look_at_edge(self, figures):
        """What it said of itself last."""
        status = self._sensors.status
        queue = status["queues"]["telemetry"]
        figures.backlog = queue["ready"] + queue["unacked"]
        figures.sectors = status["store"]["sectors"]
        figures.used = figures.sectors - status["store"]["sectors_free"]
        bridge = self._bridge()
        figures.bridge = bridge["state"]
        if bridge["last_error"] and bridge["state"] != "connected":
            figures.bridge += ": " + without_errno(bridge["last_error"])


class Count:
    """
    sensors  Sensors, whose edge broker has ended
    arrived  message-id: how often it came
    """

    def __init__(self, sensors, arrived):
        stored = sensors.confirmed()
        self.sent = len(sensors.sent)
        self.stored = len(stored)
        self.forwarded = len(arrived)
        self.lost = len(stored - arrived.keys())
        self.duplicates = sum(arrived.values()) - len(arrived)

    @property
    def is_good(self):
        return self.stored > 0 and self.lost == 0

    def lines(self):
        rows = (
            ("sent", self.sent, "by the sensors, each with an id of its own"),
            ("stored", self.stored, "confirmed to the sensors by the edge broker"),
            ("forwarded", self.forwarded, "arrived upstream, counted by id"),
            ("lost", self.lost, "confirmed, and never arrived"),
            ("duplicates", self.duplicates, "arrived again, with the same id"),
        )
        return [f"  {name:<10}{number:>9,}   {what}" for name, number, what in rows]
