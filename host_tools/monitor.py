"""`amqp-lite monitor` and `amqp-lite status`: what the broker on a board does.

It is asked by Ctrl-T over its console, see board/console.py, and goes on meanwhile.
"""

import collections
import json
import shutil
import sys
import time

from .connection import BoardAway, open_board, status_in
from .errors import CommandError
from .ring import ENDURANCE, age, many, years_left
from .screen import open_canvas

_ANSWER_S = 15  # looking up a name keeps a board busy for 10 s
_FRAME_S = 0.2
_AGAIN_S = 0.5  # from one look for a board that is away to the next
_MASK = 0x3FFFFFFF  # counters wrap
_DAY_S = 86400
_QUEUES = 8  # shown at most
_LOG = 100  # lines kept
_ROWS = 24  # of a terminal, of which the log has the rest
_LOG_ROWS = 5  # that it has in any case

# Segment files (store/segments.py) lie on littlefs, which levels the wear of its blocks.
_SEGMENT = 32768  # octets
_BLOCK = 4096
_ERASES_PER_SYNC = 1.11  # measured, append and flush


def do_status(args):
    sys.stdout.reconfigure(errors="backslashreplace")
    with open_board(args.port) as board:
        status = board.ask_status(_ANSWER_S)
        port = board.port
    if args.json:
        print(json.dumps(status))
        return
    view = View()
    view.take(status)
    log = [[(line, None)] for line in status["log"]]
    for line in [[(port, None)], *view.lines(), [], *log]:
        print(_plain("".join(text for text, _ in line).rstrip()))


def do_monitor(args):
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    with open_board(args.port) as board:
        board.patience = 0
        output = _open_output(args, board)
        try:
            _Monitor(board, args.every, output).run()
        except KeyboardInterrupt:
            pass
        finally:
            output.close()


class _Monitor:
    """
    board   open, with no patience
    every   s, from one question to the next
    output  see _Json, _Lines and _Screen
    """

    def __init__(self, board, every, output):
        self._board = board
        self._every = every
        self._output = output
        self._view = View()
        self._asked_at = None  # s; None: nothing is asked
        self._due = 0  # s, of the next question
        self._is_silent = False

    def run(self):
        """Until Ctrl-C."""
        while True:
            try:
                self._turn(time.monotonic())
            except BoardAway as error:
                self._wait_for_board(str(error))

    def _turn(self, now):
        if self._asked_at is None and now >= self._due:
            self._board.request_status()
            self._asked_at = now
            self._due = now + self._every
        elif self._asked_at is not None and now >= self._asked_at + _ANSWER_S:
            if not self._is_silent:
                self._output.event(f"{self._board.port}: {self._board.why_silent()}")
            self._is_silent = True
            self._asked_at = None
        for line in self._board.lines(_FRAME_S):
            self._take(line)
        self._output.draw(self._view)

    def _take(self, line):
        status = status_in(line)
        if status is None:
            if "status " in line:
                self._asked_at = None  # damaged, or an error instead of it
            if "status {" not in line and line.strip() not in ("", ">>>"):
                self._output.log(line)
            return
        self._asked_at = None
        self._is_silent = False
        if self._view.is_new():
            for line in status["log"]:
                self._output.log(line)
        if self._view.take(status):
            self._output.event("it has started again")
        self._output.status(status, self._view)

    def _wait_for_board(self, why):
        self._output.event(f"{why}; it is waited for")
        self._view.is_away = True
        while True:
            self._output.draw(self._view)
            try:
                self._board.reconnect()
                break
            except CommandError:
                time.sleep(_AGAIN_S)
        self._output.event(f"{self._board.port}: the board is back")
        self._view.is_away = False
        self._asked_at = None
        self._due = 0


# --- where it is shown ---


def _open_output(args, board):
    if args.json:
        return _Json()
    canvas = open_canvas(sys.stdout)
    return _Screen(canvas, board) if canvas else _Lines()


class _Json:
    """A line for each status; what else there is to say goes to stderr."""

    def event(self, text):
        print(text, file=sys.stderr, flush=True)

    def log(self, line):
        pass

    def status(self, status, view):
        print(json.dumps(status))

    def draw(self, view):
        pass

    def close(self):
        pass


class _Lines:
    """For a pipe or a file: the log as it comes, and a line for each status."""

    def event(self, text):
        print(f"{_clock()}  {text}")

    def log(self, line):
        print(_plain(line))

    def status(self, status, view):
        print(f"{_clock()}  {view.summary()}")

    def draw(self, view):
        pass

    def close(self):
        pass


class _Screen:
    """For a terminal."""

    def __init__(self, canvas, board):
        self._canvas = canvas
        self._board = board
        self._log = collections.deque(maxlen=_LOG)

    def event(self, text):
        self._log.append([(f"{_clock()}  ", "weak"), (_plain(text), "strong")])

    def log(self, line):
        self._log.append([(f"{_clock()}  ", "weak"), (_plain(line), None)])

    def status(self, status, view):
        pass

    def draw(self, view):
        lines = [[(f"amqp_lite monitor  {self._board.port}  ", "strong"), (_clock(), "weak")]]
        lines += view.lines()
        left = max(_rows() - len(lines) - 3, _LOG_ROWS)
        self._canvas.draw([*lines, [], *list(self._log)[-left:]])

    def close(self):
        self._canvas.close()


# --- what is shown ---


class View:
    """What was seen of a broker so far."""

    def __init__(self):
        self.is_away = False
        self._forget()

    def _forget(self):
        self._status = None  # the last one
        self._before = None  # the one before
        self._first = None
        self._heap_lowest = None

    def is_new(self):
        return self._status is None

    def take(self, status):
        """Take in an answer. Returns whether it is another start's than the one before."""
        last = self._status
        restarted = last is not None and status["uptime_ms"] < last["uptime_ms"]
        if restarted:
            self._forget()
        self._before = self._status
        self._status = status
        if self._first is None:
            self._first = status
        heap = status["heap_free"]
        if self._heap_lowest is None or heap < self._heap_lowest:
            self._heap_lowest = heap
        return restarted

    def summary(self):
        """The most important of it on one line."""
        status = self._status
        queues = status["queues"].values()
        parts = [
            f"up {age(status['uptime_ms'])}",
            f"heap {status['heap_free']:,}",
            f"connections {len(status['connections'])}",
            f"ready {sum(queue['ready'] for queue in queues):,}",
            f"unacked {sum(queue['unacked'] for queue in queues):,}",
            f"in {self._rate('published')}, out {self._rate('delivered')}",
        ]
        for name, bridge in status["bridges"].items():
            backlog = sum(link["backlog"] for link in bridge["uplinks"].values())
            parts.append(f"{name} {bridge['state']}, backlog {backlog:,}")
        store = status["store"]
        if store:
            parts.append(f"flash {store['sectors_free']}/{store['sectors']} free")
            parts.append(f"most worn {store['erases_most']:,} erases")
        return _plain("  ".join(parts))

    def lines(self):
        """All of it, as a Canvas takes it."""
        if self._status is None:
            return [_row("device", "no answer yet", "some")]
        lines = [
            self._device_line(),
            *self._failure_lines(),
            *self._board_lines(),
            self._connections_line(),
            self._messages_line(),
            *self._queue_lines(),
            *self._bridge_lines(),
            *self._flash_lines(),
        ]
        return [[(_plain(text), colour) for text, colour in line] for line in lines]

    def _device_line(self):
        status = self._status
        board = status.get("board", {})
        text = f"{status['device']}, amqp_lite {status['version']}, up {age(status['uptime_ms'])}"
        if board.get("name"):
            text += f", on {board['name']}"
        if board.get("reset"):
            text += f", last reset: {board['reset']}"
        line = _row("device", text, "strong")
        if self.is_away:
            line.append(("  away", "bad"))
        return line

    def _failure_lines(self):
        """Why it started anew, when the start before was not a good one."""
        board = self._status.get("board", {})
        if board.get("starts", 0) > 1:
            yield _row("", f"start {board['starts']} since one that served a minute", "some")
            if board.get("before"):
                yield _row("", f"before: {board['before'][-1]}", "some")

    def _board_lines(self):
        status = self._status
        board = status.get("board", {})
        if status["heap_free"] >= 0:
            text = f"{status['heap_free']:,} octets free, lowest seen {self._heap_lowest:,}"
            yield _row("heap", text)
        wifi = board.get("wifi")
        if wifi:
            text = f'{wifi["state"]}: "{wifi["ssid"]}"'
            if wifi["address"]:
                text += f", {wifi['address']}"
            if wifi["rssi"] is not None:
                text += f", {wifi['rssi']} dBm"
            text += f", joined {many(wifi['joins'], 'time')}"
            yield _row("WiFi", text, "good" if wifi["state"] == "up" else "bad")
        clock = board.get("clock")
        if clock:
            text = "not set"
            if clock["is_set"]:
                text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(clock["now"]))
            if clock.get("problem"):
                text += f", {clock['problem']}"
            yield _row("clock", text, None if clock["is_set"] else "some")
        sensors = board.get("sensors")
        if sensors:
            sent = sum(sensor["sent"] for sensor in sensors.values())
            line = _row("sensors", f"{len(sensors)}, which sent {many(sent, 'message')}")
            for key, sensor in sensors.items():
                if sensor["error"]:
                    line.append((f"  {key}: {sensor['error']}", "bad"))
            yield line

    def _connections_line(self):
        names = self._status["connections"]
        return _row("connections", f"{len(names)}  {' '.join(names)}")

    def _messages_line(self):
        counters = self._status["counters"]
        dropped = sum(n for name, n in counters.items() if name.startswith("dropped_"))
        line = _row(
            "messages",
            f"{counters['published']:,} in ({self._rate('published')}), {counters['delivered']:,}"
            f" out ({self._rate('delivered')})",
        )
        if dropped:
            line.append((f", {dropped:,} dropped", "some"))
        return line

    def _queue_lines(self):
        queues = self._status["queues"]
        before = self._before["queues"] if self._before else {}
        head = f"  {'queue':<26}{'ready':>9}{'unacked':>9}{'change':>9}{'consumers':>11}"
        yield [(head, "weak")]
        names = sorted(queues, key=lambda name: -queues[name]["ready"] - queues[name]["unacked"])
        for name in names[:_QUEUES]:
            queue = queues[name]
            change = ""
            if name in before:
                grown = queue["ready"] + queue["unacked"]
                grown -= before[name]["ready"] + before[name]["unacked"]
                change = f"{grown / max(self._seconds(self._before), 0.001):+.1f}/s"
            yield [
                (f"  {name[:25]:<26}", None),
                (f"{queue['ready']:>9,}", "strong"),
                (f"{queue['unacked']:>9,}{change:>9}{queue['consumers']:>11}", None),
            ]
        if len(names) > _QUEUES:
            yield [(f"  and {len(names) - _QUEUES} more", "weak")]

    def _bridge_lines(self):
        for name, bridge in self._status["bridges"].items():
            text = f"{name} {bridge['state']}, {bridge['host']}"
            line = _row("bridge", text, "good" if bridge["state"] == "connected" else "some")
            if bridge["state"] != "connected" and bridge["last_error"]:
                line.append((f"  {bridge['last_error']}", "bad"))
            yield line
            for queue, link in bridge["uplinks"].items():
                text = (
                    f"up {queue}: backlog {link['backlog']:,}, in flight {link['in_flight']:,},"
                    f" settled {link['settled']:,}"
                )
                yield _link(text, link)
            for queue, link in bridge["downlinks"].items():
                text = f"down {queue}: received {link['received']:,}, stored {link['stored']:,}"
                yield _link(text, link)

    # --- flash ---

    def _flash_lines(self):
        store = self._status["store"]
        if not store:
            yield _row("store", "in RAM: nothing survives", "some")
            return
        worn = store["erases_most"]
        yield _row(
            "flash",
            f"{store['sectors_free']} of {store['sectors']} sectors free, the most worn one was"
            f" erased {many(worn, 'time')} of {ENDURANCE:,}",
            "strong" if store["sectors_free"] > 1 else "some",
        )
        for key, text in (
            ("faults", "faults"),
            ("damaged", "records damaged"),
            ("marks_refused", "marks refused"),
        ):
            if store.get(key):
                yield _row("", f"{store[key]:,} {text}", "bad")
        if store["broken"]:
            yield _row("", "the store has failed: durable messages are refused", "bad")
        yield _row("wear", self._segment_wear() if self._is_segments() else self._wear())

    def _is_segments(self):
        return self._status["store"]["sector_octets"] == _SEGMENT

    def _wear(self):
        """Years left of a ring that has the flash for itself."""
        worn = self._status["store"]["erases_most"]
        erases = worn - self._first["store"]["erases_most"]
        if erases > 0:
            days = self._seconds(self._first) / _DAY_S
            return f"years left at this rate: {years_left(ENDURANCE - worn, erases / days)}"
        days = self._status["uptime_ms"] / 1000 / _DAY_S
        if not worn or not days:
            return "nothing was erased yet"
        # Those before this start are among them.
        left = years_left(ENDURANCE - worn, worn / days)
        return f"years left, as if all these erases were since the start: {left}"

    def _segment_wear(self):
        """The least that is left of the blocks a ring of segment files has by itself.

        The file system uses its other free blocks for it as well.
        """
        store = self._status["store"]
        seconds = self._seconds(self._first)
        if not seconds:
            return "the file system spreads it over its blocks; in a moment: how long it lasts"
        syncs = store.get("syncs", 0) - self._first["store"].get("syncs", 0)
        if syncs <= 0:
            return "nothing is written now"
        erases = syncs / seconds * _ERASES_PER_SYNC
        blocks = store["sectors"] * store["sector_octets"] // _BLOCK
        left = years_left(blocks * ENDURANCE, erases * _DAY_S)
        return (
            f"years it lasts at this rate, at least: {left} ({erases:.2f} erases/s go round"
            f" {blocks} blocks)"
        )

    # --- rates ---

    def _seconds(self, since):
        return (self._status["uptime_ms"] - since["uptime_ms"]) / 1000

    def _grown(self, name, since):
        return (self._status["counters"][name] - since["counters"][name]) & _MASK

    def _rate(self, name):
        """Of a counter, as a text; since the start when it was seen once."""
        since = self._before
        seconds = self._seconds(since) if since else self._status["uptime_ms"] / 1000
        grown = self._grown(name, since) if since else self._status["counters"][name]
        return f"{grown / seconds if seconds else 0:.1f}/s"


def _row(name, text, colour=None):
    return [(f"{name:<13}", "weak"), (text, colour)]


def _link(text, link):
    line = _row("", text)
    if link["last_error"]:
        line.append((f"  {link['last_error']}", "bad"))
    return line


def _rows():
    return shutil.get_terminal_size((80, _ROWS)).lines


def _clock():
    return time.strftime("%H:%M:%S")


def _plain(text):
    """*text* from a board, as a terminal can take it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text.replace("\t", " "))
