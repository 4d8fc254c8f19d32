from standins import StandIns


class Ram:
    """Memory that resets leave alone."""

    def __init__(self):
        self.octets = bytearray(1024)
        self.kept = 0

    def start(self, starts=None):
        from board.retained import Retained

        return Retained(self.octets, self.keep, starts)

    def keep(self, starts):
        self.kept = starts


def run(test):
    def wrapped():
        with StandIns():
            test(Ram())

    return wrapped


@run
def test_lines_survive(ram):
    retained = ram.start()
    assert retained.previous() == []
    retained.write("one")
    retained.write("gr\u00fcn")
    assert retained.previous() == []
    retained = ram.start()
    assert retained.previous() == ["one", "gr\u00fcn"]
    retained.begin()
    retained.write("three")
    assert retained.previous() == ["one", "gr\u00fcn"]
    assert ram.start().previous() == ["one", "gr\u00fcn", "-- start 1", "three"]


@run
def test_starts_are_counted_until_a_good_one(ram):
    for n in range(1, 300):
        retained = ram.start()
        retained.begin()
        assert retained.starts == ram.kept == min(n, 255)
    assert ram.start().starts == 255
    retained.good()
    assert ram.start().starts == ram.kept == 0


@run
def test_the_count_can_be_kept_elsewhere(ram):
    ram.start().begin()
    retained = ram.start(7)
    retained.begin()
    assert retained.starts == 8


@run
def test_memory_that_a_power_cut_emptied(ram):
    for octets in (b"\xff", b"\x00", b"\x5a\xa7"):
        ram.octets[:] = octets * (1024 // len(octets))
        retained = ram.start()
        assert retained.starts == 0
        assert retained.previous() == []
        retained.write("x")
        assert ram.start().previous() == ["x"]


@run
def test_the_oldest_lines_go_first(ram):
    written = []
    for n in range(400):
        line = "line %d %s" % (n, "x" * (n % 37))
        written.append(line)
        if n % 50 == 0:
            retained = ram.start()
        retained.write(line)
        found = ram.start().previous()
        assert found == written[-len(found) :]
        assert len(found) == n + 1 or sum(len(line) + 1 for line in found) > 940
    found = retained.previous()  # this run wrote more than there is room for
    assert found == []


@run
def test_long_lines_are_cut_and_breaks_are_not_lines(ram):
    retained = ram.start()
    retained.write("a\nb")
    retained.write("\u00e4" * 500)
    found = ram.start().previous()
    assert found[0] == "a b"
    assert 100 <= len(found[1]) <= 200


@run
def test_torn_memory_never_raises(ram):
    retained = ram.start()
    for n in range(60):
        retained.write("line %d \u00e4\u00f6" % n)
    for position in range(0, 1024, 7):
        was = ram.octets[position]
        for octet in (0, 0xFF, 0x0A, 0xC3):
            ram.octets[position] = octet
            again = Ram()
            again.octets[:] = ram.octets
            lines = again.start().previous()
            assert all(isinstance(line, str) for line in lines)
            retained = again.start()
            retained.begin()
            assert again.start().previous()[-1].startswith("-- start ")
        ram.octets[position] = was
