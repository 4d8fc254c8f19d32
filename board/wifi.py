"""WiFi as a station: joins, and joins again for ever, beside everything else.

Only making a Station and the new start of the interface after several failures take a second or
two, when there is no network to miss.
"""

import network

from amqp_lite.compat import const, ticks_add, ticks_diff
from amqp_lite.log import log
from amqp_lite.net.backoff import BackOff

# What a port's status numbers mean; any other one is a failure that has no name.
UP = "up"
JOINING = "joining"
ADDRESSING = "waiting for an address"
WRONG_PASSWORD = "wrong password"
NO_NETWORK = "no such network"

_LOOK_MS = const(200)
_JOIN_MS = const(20000)  # for an attempt, the address included
_LONGEST_MS = const(60000)  # between two attempts
_RESTART = const(5)  # failures in a row, each time the interface is started anew
_HOST_NAME = const(32)  # letters MicroPython has room for


class Station:
    """
    settings  the configuration's `wifi`, complete
    hostname  the name to ask DHCP for when *settings* have none
    meanings  {number that the port's WLAN.status() returns: one of the texts above}
    options   for the port's WLAN.config()

    Its `state` is one of the texts above, "lost", or what else was wrong; it stays the last
    failure while it tries again, for ever.
    """

    def __init__(self, settings, hostname, meanings, options=None):
        self.state = JOINING
        self.is_up = False
        self.address = ""
        self.joins = 0
        self._ssid = settings["ssid"]
        self._password = settings["password"] or None
        self._meanings = meanings
        self._options = dict(options or {})
        self._back_off = BackOff(_LONGEST_MS)
        self._look_at = None  # ticks
        self._trying = False
        self._give_up_at = 0  # ticks
        self._stale = None  # status before the attempt: ESP32 goes on to report how that ended
        mode = getattr(network.WLAN, "PM_" + settings["power_save"].upper(), None)
        if mode is not None:
            self._options["pm"] = mode
        if settings["country"]:
            network.country(settings["country"])
        name = _host_name(settings["hostname"] or hostname)
        if name:
            network.hostname(name)
        self._wlan = network.WLAN(network.WLAN.IF_STA)
        self._start()

    def step(self, now):
        """Do what there is to do at *now*, in ticks: whether `state` changed."""
        if self._look_at is not None and ticks_diff(now, self._look_at) < 0:
            return False
        self._look_at = ticks_add(now, _LOOK_MS)
        status = self._wlan.status()
        state = self._meanings.get(status)
        if state == UP:
            return not self.is_up and self._came_up()
        if self.is_up:
            return self._lost()
        if not self._trying:
            return self._back_off.left(now) == 0 and self._join(now)
        if status != self._stale:
            self._stale = None
        busy = state == JOINING or state == ADDRESSING
        if (busy or self._stale is not None) and ticks_diff(now, self._give_up_at) < 0:
            return False
        if busy:
            state = "stuck " + state
        return self._failed(now, state or "failed with status %d" % status)

    def status(self):
        """What goes on, as a dict that json can print; `rssi` is in dBm."""
        rssi = None
        if self.is_up:
            try:
                rssi = self._wlan.status("rssi")
            except OSError:  # lost just now
                pass
        return {
            "state": self.state,
            "ssid": self._ssid,
            "address": self.address,
            "rssi": rssi,
            "joins": self.joins,
        }

    def _start(self):
        self._broken = False  # the interface, not the network
        self._wlan.active(True)  # CYW43 does not say when it fails: connect() does then
        if self._options:
            self._wlan.config(**self._options)

    def _restart(self):
        log.debug("wifi: starting the interface anew")
        self._wlan.active(False)
        if hasattr(self._wlan, "deinit"):
            self._wlan.deinit()  # CYW43: the chip loses its power
        self._start()

    def _join(self, now):
        failures = self._back_off.failures
        try:
            if self._broken or failures and failures % _RESTART == 0:
                self._restart()
            self._stale = self._wlan.status()
            self._wlan.connect(self._ssid, self._password)
        except OSError as error:
            self._broken = True
            return self._failed(now, "failed with %s" % error)
        self._trying = True
        self._give_up_at = ticks_add(now, _JOIN_MS)
        return False

    def _came_up(self):
        self._back_off.worked()
        self._trying = False
        self.is_up = True
        self.joins += 1
        self.address = self._wlan.ipconfig("addr4")[0]
        self.state = UP
        log.info("wifi: joined %s as %s", self._ssid, self.address)
        return True

    def _lost(self):
        self.is_up = False
        self.address = ""
        self._leave()
        return self._now_is("lost")

    def _failed(self, now, state):
        self._trying = False
        self._back_off.failed(now)
        self._leave()
        return self._now_is(state)

    def _leave(self):
        try:
            self._wlan.disconnect()  # else ESP32 refuses the next attempt
        except OSError:
            pass

    def _now_is(self, state):
        if state == self.state:
            return False
        self.state = state
        log.warning("wifi: %s: %s", self._ssid, state)
        return True


def _host_name(name):
    """*name* as DHCP and DNS allow it."""
    letters = [c if "a" <= c.lower() <= "z" or "0" <= c <= "9" else "-" for c in name]
    return "".join(letters)[:_HOST_NAME].strip("-")
