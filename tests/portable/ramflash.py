"""Flash in RAM: a device of the ring, see store/device.py."""

from amqp_lite.compat import fill


class RamFlash:
    """All in `buf`, a bytearray. octets: what it begins with; erased otherwise."""

    def __init__(self, sectors, sector_size, page_size, octets=None):
        self.sector_size = sector_size
        self.page_size = page_size
        self.sectors = sectors
        self.trusted = False
        self.commit_ms = 0
        self.buf = bytearray(octets or b"\xff" * (sectors * sector_size))

    def at(self, address, n):
        return address

    def program(self, address, buf, i, n):
        own = self.buf
        for k in range(i, i + n):
            own[address + k] &= buf[k]

    def erase(self, sector):
        fill(self.buf, sector * self.sector_size, self.sector_size, 0xFF)

    def sync(self):
        pass

    def close(self):
        pass
