"""Where the octets of the ring are, here raw NOR flash. For files: file.py and segments.py.

A device is NOR-like storage. An erase makes all octets of a sector 0xFF, a program only turns ones
into zeros. Addresses are octets from 0 on. All devices have this face:

    sector_size, page_size, sectors   octets, octets (powers of two), how many
    trusted     True: what lies below reports its errors, so an erase need not be read back
    commit_ms   how long commits may be gathered because each sync() costs wear; 0: not at all
    buf         octets that at() gives an index into; the same object all the time
    at(address, n)  index in `buf` of *n* octets, which are of one sector and no more than a page;
                valid until the next call of any method. Raises OSError.
    program(address, buf, i, n)  make the *n* octets from *address* + *i* what *buf* has from *i*.
                *address* is that of a page and *buf* a whole page; all its other octets are 0xFF.
                No bit may have to go from 0 to 1. Raises OSError.
    erase(sector)   Raises OSError.
    sync()      all that was programmed so far survives a power cut. Between two of them any order
                is possible. After an OSError nothing since the last good one may be relied on.
    close()
"""

from ..compat import const

_COUNT = const(4)  # ioctl of the block protocol: blocks of the device
_SIZE = const(5)  # octets of a block
_ERASE = const(6)
_EINVAL = const(22)


class BlockFlash:
    """Raw NOR flash behind the extended block protocol: rp2.Flash, esp32.Partition.

    blockdev     programs with writeblocks(block, buf, offset), erases with ioctl(6, block). When a
                 memoryview of it can be made, that is read in place, else pages are copied.
    start_block  its first block to use; a block is a sector
    page_size    what is programmed at once, always whole and from a multiple of it: RP2 silently
                 programs something else otherwise

    Raises ValueError when the blocks are not all there: RP2 does not check addresses.
    """

    def __init__(self, blockdev, start_block, sectors, page_size=256):
        size = blockdev.ioctl(_SIZE, 0)
        count = blockdev.ioctl(_COUNT, 0)
        if start_block < 0 or sectors < 1 or start_block + sectors > count:
            raise ValueError(
                "blocks %d to %d of %d" % (start_block, start_block + sectors - 1, count)
            )
        if size % page_size:
            raise ValueError("blocks of %d octets, pages of %d" % (size, page_size))
        self.sector_size = size
        self.page_size = page_size
        self.sectors = sectors
        self.trusted = False
        self.commit_ms = 0
        self._blockdev = blockdev
        self._start = start_block
        self._latest = sectors * size - page_size
        try:
            self.buf = memoryview(blockdev)[start_block * size : (start_block + sectors) * size]
            self._mapped = True
        except TypeError:
            self.buf = bytearray(page_size)
            self._mapped = False

    def at(self, address, n):
        if self._mapped:
            return address
        # Read each time: whoever reads twice wants to know whether flash answers the same.
        start = address if address < self._latest else self._latest
        size = self.sector_size
        _check(self._blockdev.readblocks(self._start + start // size, self.buf, start % size))
        return address - start

    def program(self, address, buf, i, n):
        size = self.sector_size
        _check(self._blockdev.writeblocks(self._start + address // size, buf, address % size))

    def erase(self, sector):
        _check(self._blockdev.ioctl(_ERASE, self._start + sector))

    def sync(self):
        pass

    def close(self):
        pass


def _check(result):
    """Raises OSError when that is what the *result* of a block device means."""
    if result:
        raise OSError(-result if result < 0 else _EINVAL, "flash")
