"""What `amqp-lite demo` shows: a screen that is drawn again and again, or plain lines.

The Canvas below the screen is also that of `amqp-lite monitor`. Screen and Lines have the same
face:

    event(seconds, text)       something happened; it stays to be read
    update(seconds, figures)   the numbers as they are now, see Figures
    end(lines)                 the last words
    close()                    leave the terminal as it was
"""

import os
import shutil

_FRAME_S = 0.1
_LINE_S = 1
_EVENTS = 9  # the latest ones, so that all fits on 24 rows
_BAR = 38  # columns
_COLOURS = {"good": "32", "bad": "31", "some": "33", "strong": "1", "weak": "2"}


class Figures:
    """All that is shown.

    sent, stored, forwarded     messages so far
    rates                       of these three, messages/s now
    duplicates                  messages so far
    backlog, backlog_most       messages that wait in the edge broker; the bar's full length
    used, sectors               sectors of the flash image: not free, all
    edge                        process id; None: it is dead
    is_cut                      whether the way upstream is
    bridge                      its state, and why
    """

    sent = stored = forwarded = duplicates = backlog = used = 0
    rates = (0, 0, 0)
    backlog_most = sectors = 1
    edge = None
    is_cut = False
    bridge = ""


def open_screen(output, title, upstream):
    """The screen for *output*, a text file; what it says of a terminal and NO_COLOR count."""
    canvas = open_canvas(output)
    return Screen(canvas, title, upstream) if canvas else Lines(output, title, upstream)


def open_canvas(output):
    """A Canvas on *output*; None: it is no terminal that can be drawn on."""
    if output.isatty() and os.environ.get("TERM") != "dumb":
        return Canvas(output, not os.environ.get("NO_COLOR"))
    return None


class Canvas:
    """Lines on a terminal that are drawn over themselves, below what was there before.

    colour  whether there may be some

    A line is a list of (text, key of _COLOURS or None).
    """

    def __init__(self, output, colour):
        self._output = output
        self._colour = colour
        self._rows = 0  # drawn
        self._output.write("\x1b[?25l")  # no cursor

    def draw(self, lines):
        columns, rows = shutil.get_terminal_size()
        lines = lines[: rows - 1]
        text = f"\x1b[{self._rows}A" if self._rows else ""
        text += "".join(self._fit(line, columns - 1) + "\x1b[K\n" for line in lines)
        self._rows = len(lines)
        self._output.write("\r" + text + "\x1b[J")
        self._output.flush()

    def end(self, lines):
        """The last words, plain texts."""
        self._output.write("\n".join(["", *lines, ""]))

    def close(self):
        self._output.write("\x1b[?25h")
        self._output.flush()

    def _fit(self, line, columns):
        """*line* in so many *columns*."""
        out = ""
        for text, colour in line:
            text = text[:columns]
            columns -= len(text)
            paints = colour and self._colour and text
            out += f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if paints else text
        return out


class Lines:
    """For a pipe or a file."""

    def __init__(self, output, title, upstream):
        self._output = output
        self._next = 0  # s
        self._print(title)

    def _print(self, line):
        print(line, file=self._output, flush=True)

    def event(self, seconds, text):
        self._print(_event(seconds, text))

    def update(self, seconds, figures):
        if seconds < self._next:
            return
        self._next = seconds + _LINE_S
        self._print(
            f"{seconds:6.1f} s      sent {figures.sent}  stored {figures.stored}"
            f"  forwarded {figures.forwarded}  backlog {figures.backlog}"
            f"  flash {figures.used}/{figures.sectors}"
        )

    def end(self, lines):
        self._print("\n".join(["", *lines]))

    def close(self):
        pass


class Screen:
    """For a terminal."""

    def __init__(self, canvas, title, upstream):
        self._canvas = canvas
        self._title = title
        self._upstream = upstream
        self._events = []
        self._figures = Figures()
        self._seconds = 0
        self._next = 0  # s

    def event(self, seconds, text):
        self._events.append(_event(seconds, text))
        self._draw()

    def update(self, seconds, figures):
        self._figures = figures
        self._seconds = seconds
        if seconds >= self._next:
            self._next = seconds + _FRAME_S
            self._draw()

    def end(self, lines):
        self._draw()
        self._canvas.end(lines)

    def close(self):
        self._canvas.close()

    def _draw(self):
        self._canvas.draw(self._lines())

    def _lines(self):
        now = self._figures
        clock = f"{self._seconds:.1f} s"
        return [
            [(f"{self._title:<70}", "strong"), (f"{clock:>9}", None)],
            [],
            self._way(now),
            [],
            _counter("sent", now.sent, now.rates[0], "by the sensors"),
            _counter("stored", now.stored, now.rates[1], "on flash, then confirmed to them"),
            _counter("forwarded", now.forwarded, now.rates[2], "arrived upstream"),
            _counter("duplicates", now.duplicates, None, "arrived again, with the same id"),
            [],
            _bar("backlog", now.backlog, now.backlog_most, f"{now.backlog:,} waiting"),
            _bar("flash", now.used, now.sectors, f"{now.used} of {now.sectors} sectors"),
            [
                ("  bridge      ", None),
                (now.bridge, "good" if now.bridge == "connected" else "some"),
            ],
            [],
            *([(line, "strong" if line[10] != " " else None)] for line in self._events[-_EVENTS:]),
        ]

    def _way(self, now):
        alive = now.edge is not None
        edge = f"edge broker, process {now.edge}" if alive else "edge broker, killed"
        return [
            ("  sensors ", None), _arrow(alive), (f" {edge} ", "strong" if alive else "bad"),
            _arrow(alive and not now.is_cut), (f" {self._upstream}", None),
        ]  # fmt: skip


def _arrow(carries):
    return ("----->", "good") if carries else ("--X-->", "bad")


def _event(seconds, text):
    return f"{seconds:6.1f} s  {text}"


def _counter(name, count, rate, what):
    speed = "" if rate is None else f"{rate:,.0f}/s"
    return [(f"  {name:<10}", None), (f"{count:>9,}", "strong"), (f"{speed:>9}", None),
            (f"   {what}", "weak")]  # fmt: skip


def _bar(name, value, most, text):
    filled = min(_BAR, (value * _BAR + most - 1) // most)
    return [(f"  {name:<10}  [", None), ("#" * filled, "some"), ("." * (_BAR - filled), "weak"),
            (f"] {text}", None)]  # fmt: skip
