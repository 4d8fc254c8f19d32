from amqp_lite.compat import ticks_add
from amqp_lite.log import log
from standins import Network, StandIns

SETTINGS = {
    "ssid": "plant",
    "password": "secret123",
    "country": "DE",
    "power_save": "none",
    "hostname": "",
}
DOWN, NOIP, UP, FAIL, NONET, BADAUTH = 0, 2, 3, -1, -2, -3  # of CYW43


class Lab:
    """A Station, a WLAN that reports what it is told to, and the time."""

    def __init__(self, **changes):
        from board import wifi

        log.configure("info", 16)
        self.network = wifi.network
        meanings = {1: wifi.JOINING, 2: wifi.ADDRESSING, 3: wifi.UP}
        meanings.update({-2: wifi.NO_NETWORK, -3: wifi.WRONG_PASSWORD})
        settings = dict(SETTINGS)
        settings.update(changes)
        self.station = wifi.Station(settings, "greenhouse-1", meanings)
        self.wlan = self.network.WLAN
        self.now = 0

    def run(self, ms, status=None):
        """Let *ms* pass, from now on with *status*: how many steps changed the state."""
        if status is not None:
            self.wlan.reports = status
        changes = 0
        for _ in range(ms // 50):
            self.now = ticks_add(self.now, 50)
            changes += self.station.step(self.now)
        return changes

    def attempt(self, status):
        """Wait for the next attempt and let it end with *status*: ms until it began, changes."""
        before = self.joins()
        waited = 0
        changes = 0
        while self.joins() == before:
            changes += self.run(50)
            waited += 50
        self.run(1000)
        return waited, changes + self.run(250, status)

    def joins(self):
        return len([call for call in self.wlan.calls if isinstance(call, tuple)])


def with_lab(test):
    def run():
        with StandIns(network=Network()):
            test(Lab)

    return run


@with_lab
def test_it_joins_and_says_so(Lab):
    lab = Lab()
    station = lab.station
    assert lab.network.country_set == "DE"
    assert lab.network.named == "greenhouse-1"
    assert lab.wlan.options == {"pm": 10}
    assert lab.run(1000) == 0
    assert lab.wlan.calls == ["up", ("plant", "secret123")]
    assert lab.run(1000, NOIP) == 0
    assert not station.is_up
    assert station.status()["state"] == "joining"
    assert lab.run(1000, UP) == 1
    assert station.is_up
    assert station.address == "192.168.7.31"
    assert station.status() == {
        "state": "up",
        "ssid": "plant",
        "address": "192.168.7.31",
        "rssi": -61,
        "joins": 1,
    }
    assert log.recent() == ["wifi: joined plant as 192.168.7.31"]


@with_lab
def test_it_joins_again_at_once_when_it_was_lost(Lab):
    lab = Lab()
    lab.run(400)
    lab.run(1000, UP)
    assert lab.run(200, DOWN) == 1
    assert not lab.station.is_up
    assert lab.station.address == ""
    assert lab.station.state == "lost"
    lab.run(400)
    assert lab.joins() == 2
    lab.run(400, UP)
    assert lab.station.is_up
    assert lab.station.joins == 2


@with_lab
def test_a_wrong_password_is_said_once_and_tried_for_ever(Lab):
    lab = Lab()
    assert lab.attempt(BADAUTH)[1] == 1
    for _ in range(40):
        assert lab.attempt(BADAUTH)[1] == 0
        assert lab.station.state == "wrong password"
    assert log.recent() == ["wifi: plant: wrong password"]
    assert lab.attempt(UP)[1] == 1
    assert lab.station.is_up


@with_lab
def test_failures_have_names_and_one_line_each(Lab):
    lab = Lab()
    for status, state in (
        (BADAUTH, "wrong password"),
        (NONET, "no such network"),
        (FAIL, "failed with status -1"),
        (DOWN, "failed with status 0"),
    ):
        lab.attempt(status)
        assert lab.station.state == state
        lab.attempt(status)
        assert lab.station.status()["state"] == state
        assert log.recent()[-1] == "wifi: plant: " + state
    assert len(log.recent()) == 4


@with_lab
def test_attempts_become_rare_and_start_the_interface_anew(Lab):
    lab = Lab()
    waits = [lab.attempt(NONET)[0] for _ in range(40)]
    assert max(waits[:2]) < 1500, waits
    assert 5000 < max(waits) < 61000, waits
    assert lab.wlan.calls.count("deinit") == 7
    assert lab.wlan.options == {"pm": 10}
    lab.attempt(UP)
    lab.run(250, DOWN)
    assert lab.attempt(NONET)[0] < 1500


@with_lab
def test_no_address_is_a_failure(Lab):
    lab = Lab()
    lab.run(200)
    lab.run(19000, NOIP)
    assert lab.station.state == "joining"
    lab.run(2000)
    assert lab.station.state == "stuck waiting for an address"


@with_lab
def test_the_failure_before_is_not_taken_for_one_of_this_attempt(Lab):
    lab = Lab()
    lab.wlan.sticky = True
    lab.run(250)
    lab.run(250, NONET)
    assert lab.station.state == "no such network"
    while lab.joins() == 1:
        lab.run(50)
    lab.run(5000)
    assert lab.wlan.calls[-1] == ("plant", "secret123")
    lab.run(16000)
    assert lab.wlan.calls[-1] != ("plant", "secret123") or lab.joins() > 2
    assert log.recent() == ["wifi: plant: no such network"]
    while lab.wlan.calls[-1] != ("plant", "secret123"):
        lab.run(50)
    assert lab.run(250, UP) == 1


@with_lab
def test_an_interface_that_refuses_is_started_anew(Lab):
    lab = Lab()
    lab.wlan.error = OSError(1)
    lab.run(50)
    lab.wlan.error = None
    assert lab.station.state.startswith("failed with")
    lab.run(2000)
    assert lab.wlan.calls[:2] == ["up", ("plant", "secret123")]
    assert lab.wlan.calls[2:] == [
        "disconnect",
        "down",
        "deinit",
        "up",
        ("plant", "secret123"),
    ]


@with_lab
def test_an_open_network_has_no_key_and_names_are_made_fit(Lab):
    lab = Lab(password="", country="", hostname="Halle 3/\u00fcber dem Tor, ganz links hinten")
    lab.run(200)
    assert lab.wlan.calls[-1] == ("plant", None)
    assert lab.network.country_set is None
    name = lab.network.named
    assert name.startswith("Halle-3--")
    assert len(name) <= 32
    assert all(c == "-" or c.lower() in "abcdefghijklmnopqrstuvwxyz0123456789" for c in name)
