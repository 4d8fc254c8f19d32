"""A device that is one file of a gateway; the face is described in device.py."""

from ..compat import open_exclusive, read_file, sync_entry, sync_file, write_file


class FileFlash:
    """One file of a gateway, which no other process can open at the same time (not on Windows).

    path  the file; a new one is sparse and reads as zeros, which no ring takes for its own. Of a
          longer one only the first *size* octets are used, a shorter one grows.
    size  octets, a multiple of *sector_size*

    An erase blanks the first page of a sector only, or everything would be written twice; the
    octets behind it are old ones until they are programmed, and a program replaces them. The ring
    tells them from new ones by its checksums. What is read lies in two windows: one of two pages,
    and one on the front of a sector, where the ring looks for every record.
    Raises OSError, EBUSY when the file is in use.
    """

    def __init__(self, path, size, sector_size=65536, page_size=4096):
        self.sector_size = sector_size
        self.page_size = page_size
        self.sectors = size // sector_size
        self.trusted = True
        self.commit_ms = 0
        self._blank = b"\xff" * page_size
        self._dirty = False
        self._window = 2 * page_size
        self.buf = bytearray(self._window + page_size)
        self._view = memoryview(self.buf)[: self._window]
        self._front_view = memoryview(self.buf)[self._window :]
        self._latest = size - self._window
        self._from = self._to = 0  # the addresses in the window
        self._front = -1  # the first address in the one on the front; -1: none
        self._file = open_exclusive(path)
        try:
            if self._file.seek(0, 2) < size:
                write_file(self._file, size - 1, b"\0", 0, 1)
                sync_file(self._file)
                sync_entry(path)
        except OSError:
            self._file.close()
            raise

    def at(self, address, n):
        start = self._from
        if start <= address and address + n <= self._to:
            return address - start
        i = address & self.sector_size - 1
        if i + n <= self.page_size:
            if self._front != address - i:
                self._front = -1
                read_file(self._file, address - i, self._front_view)
                self._front = address - i
            return self._window + i
        start = address if address < self._latest else self._latest
        self._to = 0
        read_file(self._file, start, self._view)
        self._from = start
        self._to = start + self._window
        return address - start

    def program(self, address, buf, i, n):
        self._dirty = True
        if address == self._front:
            self._front = -1
        if self._from < address + i + n and address + i < self._to:
            self._to = 0
        write_file(self._file, address + i, buf, i, n)

    def erase(self, sector):
        self.program(sector * self.sector_size, self._blank, 0, self.page_size)

    def sync(self):
        if self._dirty:
            sync_file(self._file)
            self._dirty = False

    def close(self):
        """Closes the file, which leaves to the system when to write the rest: sync() first."""
        self._file.close()
