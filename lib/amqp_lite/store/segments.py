"""A device that is files on a board's own file system; the face is described in device.py."""

import os
from array import array

from ..compat import (
    MICROPYTHON,
    apply_patches,
    const,
    copy,
    fill,
    is_blank,
    open_exclusive,
    sync_entry,
    sync_file,
    write_file,
)

_EIO = const(5)
_HEADER = const(16)  # octets; a sector whose first ones are programmed to zeros is dead
_NOWHERE = const(0x3FFFFFFF)  # an address above all others

# Which file a SegmentFlash has open.
_HEAD = const(0)  # the data file that was appended to last
_READ = const(1)  # another one that was read last
_FIX = const(2)  # the patch file that was written or read last

# What a sector's patch file changes.
_FRONT = const(1)  # nothing behind the window on the front
_ALL = const(2)
_DEAD = const(3)  # there are no files, the header reads as zeros until the erase

_FILES = const(1)  # what sync() has to do
_FOLDER = const(2)


class SegmentFlash:
    """Append-only files in a folder, for boards whose flash is all file system (littlefs).

    folder       made when it is not there
    sector_size  at most 65536
    page_size    octets of the window on the octets read last. Another one, of half the size, is
                 on the front of a sector, where the ring looks up every record.

    A sector has no file (it is blank) or two:

        NNNN.log    its octets from 0 on; those behind the end of the file are 0xFF
        NNNN.fix    what was turned to zeros in them later, in entries of four octets:

                    0  offset u16    in the sector
                    2  cleared u8    the bits
                    3  check u8      0x5A ^ the three before

    littlefs copies the rest of a file to change an octet in it, which would cost ten erases a
    message; appending costs one for each sync(). An entry whose check is wrong was not finished,
    and counts as none. The header programmed to zeros, or an erase, removes both files, after all
    that was programmed before was made safe.
    Raises OSError, EBUSY when the folder is in use.
    """

    def __init__(self, folder, sectors, sector_size=32768, page_size=1024):
        self.sector_size = sector_size
        self.page_size = page_size
        self.sectors = sectors
        self.trusted = True
        self.commit_ms = 100
        self.syncs = 0  # that had something to do: each costs an erase
        self._front_size = front = page_size // 2
        self.buf = bytearray(page_size + front)
        self._view = memoryview(self.buf)[:page_size]
        self._front_view = memoryview(self.buf)[page_size:]
        self._from = self._to = 0  # the addresses in the window
        self._front = _NOWHERE  # the first address in the one on the front
        self._folder = folder
        self._length = array("I", [0] * sectors)  # octets in the data file; 0: there is none
        self._patched = bytearray(sectors)  # _FRONT, _ALL, _DEAD; 0: there is no patch file
        self._entries = bytearray(64)
        self._files = [None, None, None]
        self._holds = [-1, -1, -1]  # the sectors they are of
        self._dirty = 0
        self._lost = False  # a file failed with octets in it that sync() has not answered for
        try:
            names = os.listdir(folder)
        except OSError:
            os.mkdir(folder)
            sync_entry(folder)
            names = ()
        self._entry = folder + "/lock"
        self._lock = open_exclusive(self._entry)
        if MICROPYTHON:
            # It only showed that the folder can be written to; an open file takes a kilobyte.
            self._lock.close()
        try:
            for sector in range(sectors):
                self._find(sector, names)
        except OSError:
            self.close()
            raise

    def _path(self, sector, kind):
        return "%s/%04d.%s" % (self._folder, sector, kind)

    def _find(self, sector, names):
        """Look what there is of *sector*, by the names in the folder."""
        if "%04d.log" % sector in names:
            self._measure(sector)
        if "%04d.fix" % sector in names:
            self._patched[sector] = _FRONT
            if not self._length[sector]:
                self._remove(sector)
            elif self._apply(sector, 0, 0, 0) >= self._front_size:
                self._patched[sector] = _ALL

    def _measure(self, sector):
        size = 0
        try:
            size = os.stat(self._path(sector, "log"))[6]
        except OSError:
            pass
        self._length[sector] = min(size, self.sector_size)

    # --- reading ---

    def at(self, address, n):
        if address >= self._from and address + n <= self._to:
            return address - self._from
        i = address - self._front
        if i >= 0 and i + n <= self._front_size:
            return self.page_size + i
        return self._load(address, n)

    def _load(self, address, n):
        """at() for what no window holds."""
        sector = address // self.sector_size
        base = sector * self.sector_size
        start = address - base
        front = self._front_size
        if start + n <= front:
            self._front = _NOWHERE
            view = self._front_view
            i = self.page_size
            size = front
            start = 0
        else:
            self._to = 0
            view = self._view
            i = 0
            size = self.page_size
            if start > self.sector_size - size:
                start = self.sector_size - size
        got = 0
        if start < self._length[sector]:
            if sector == self._holds[_HEAD]:
                file = self._files[_HEAD]
            elif sector == self._holds[_READ]:
                file = self._files[_READ]
            else:
                file = self._open(_READ, sector, "log", "r+b")
            file.seek(start)
            got = file.readinto(view)
        fill(self.buf, i + got, size - got, 0xFF)
        patched = self._patched[sector]
        if patched == _DEAD:
            if start < _HEADER:
                fill(self.buf, i, _HEADER - start, 0)
        elif patched == _ALL or (patched and start < front):
            self._apply(sector, i, start, size)
        start += base
        if i:
            self._front = start
        else:
            self._from = start
            self._to = start + size
        return i + address - start

    def _apply(self, sector, i, start, n):
        """Patch the *n* octets from *start* of *sector*, which are in `buf` from *i*.

        Returns the largest offset that is patched anywhere in the sector, -1 when there is none.
        """
        file = self._open_fix(sector)
        file.seek(0)
        entries = self._entries
        last = -1
        while True:
            got = file.readinto(entries)
            offset = apply_patches(entries, got, self.buf, i, start, n)
            if offset > last:
                last = offset
            if got < len(entries):
                return last

    # --- writing ---

    def program(self, address, buf, i, n):
        if is_blank(buf, i, n):
            return
        sector = address // self.sector_size
        start = address - sector * self.sector_size + i
        if not start and n >= _HEADER and not buf[i] and _is_zero(buf, i, _HEADER):
            self._remove(sector)
            self._patched[sector] = _DEAD
            return
        known = self._length[sector] - start  # octets of these that the data file has
        if known > n:
            known = n
        try:
            if known > 0:
                self._patch(sector, start, buf, i, known)
            else:
                known = 0
            if n > known:
                self._append(sector, start + known, buf, i + known, n - known)
        except OSError:
            self._fail()
            raise

    def _append(self, sector, start, buf, i, n):
        length = self._length[sector]
        file = self._files[_HEAD]
        if sector != self._holds[_HEAD]:
            self._flush()
            if sector == self._holds[_READ]:
                self._close(_READ)  # on littlefs it would go on reading the blocks of before
            if length:
                file = self._open(_HEAD, sector, "log", "r+b")
            else:
                self.erase(sector)
                file = self._open(_HEAD, sector, "log", "w+b")
                self._dirty |= _FOLDER
        self._dirty |= _FILES
        address = sector * self.sector_size + start
        if length < start:
            fill(self.buf, 0, self.page_size, 0xFF)
            self._to = 0
            while length < start:
                step = min(start - length, self.page_size)
                write_file(file, length, self.buf, 0, step)
                length += step
        write_file(file, start, buf, i, n)
        self._length[sector] = start + n
        # What was programmed is read back at once, and reading makes littlefs end the block, as a
        # sync does: let the window be what is now at the end of the file.
        if start < self._front_size and self._front == address - start:
            self._front = _NOWHERE
        if address < self._from or address + n > self._to:
            fill(self.buf, n, self.page_size - n, 0xFF)
            self._from = address
            self._to = min(address + self.page_size, (sector + 1) * self.sector_size)
        copy(self.buf, address - self._from, buf, i, n)

    def _patch(self, sector, start, buf, i, n):
        base = sector * self.sector_size
        at = self.at(base + start, n)
        if at < self.page_size:
            if self._front == base:
                self._front = _NOWHERE
        elif base <= self._from < base + self.sector_size:
            self._to = 0
        own = self.buf
        entries = self._entries
        used = 0
        for k in range(n):
            cleared = own[at + k] & ~buf[i + k]
            if cleared:
                if used == len(entries):
                    self._write_patches(sector, used)
                    used = 0
                offset = start + k
                entries[used] = offset >> 8
                entries[used + 1] = offset & 0xFF
                entries[used + 2] = cleared
                entries[used + 3] = 0x5A ^ offset >> 8 ^ offset & 0xFF ^ cleared
                used += 4
                own[at + k] ^= cleared
        if used:
            self._write_patches(sector, used)
            if start + n > self._front_size:
                self._patched[sector] = _ALL

    def _write_patches(self, sector, used):
        file = self._open_fix(sector)
        self._dirty |= _FILES
        if not self._patched[sector]:
            self._patched[sector] = _FRONT
            self._dirty |= _FOLDER
        at = file.seek(0, 2)
        torn = at & 3
        if torn:
            write_file(file, at, b"\0\0\0", 0, 4 - torn)
            at += 4 - torn
        write_file(file, at, self._entries, 0, used)

    def erase(self, sector):
        self._remove(sector)
        self._patched[sector] = 0

    def _remove(self, sector):
        """Remove the files of *sector*."""
        if self._length[sector]:
            self._flush()
            for role in (_HEAD, _READ, _FIX):
                if self._holds[role] == sector:
                    self._close(role)
            os.remove(self._path(sector, "log"))
            self._length[sector] = 0
            self._dirty |= _FOLDER
        patched = self._patched[sector]
        if patched and patched != _DEAD:
            # The other way round a cut between would bring back what was patched away.
            sync_entry(self._entry)
            os.remove(self._path(sector, "fix"))
            self._patched[sector] = 0
        self._to = 0
        self._front = _NOWHERE

    def sync(self):
        lost = self._lost
        self._lost = False
        try:
            self._flush()
        except OSError:
            self._lost = False
            raise
        if lost:
            raise OSError(_EIO, "octets are lost")

    def _flush(self):
        """Write what is not on flash yet, the data before the patches."""
        if not self._dirty:
            return
        self.syncs += 1
        try:
            for role in (_HEAD, _FIX):
                if self._files[role] is not None:
                    sync_file(self._files[role])
            if self._dirty & _FOLDER:
                sync_entry(self._entry)
        except OSError:
            self._fail()
            raise
        self._dirty = 0

    def _fail(self):
        """Close all files: one failed, and littlefs forgets what it got since its last sync."""
        if self._dirty & _FILES:
            self._lost = True
        self._dirty = 0
        self._to = 0
        self._front = _NOWHERE
        head = self._holds[_HEAD]
        for role in (_HEAD, _READ, _FIX):
            try:
                self._close(role)
            except OSError:
                pass
        if head >= 0:
            self._measure(head)

    def _open_fix(self, sector):
        if sector != self._holds[_FIX]:
            self._flush()
            self._open(_FIX, sector, "fix", "r+b" if self._patched[sector] else "w+b")
        return self._files[_FIX]

    def _open(self, role, sector, kind, mode):
        self._close(role)
        file = self._files[role] = open(self._path(sector, kind), mode, 0)
        self._holds[role] = sector
        return file

    def _close(self, role):
        self._holds[role] = -1
        file = self._files[role]
        if file is not None:
            self._files[role] = None
            file.close()

    def close(self):
        """Make everything safe and close the files. Raises OSError."""
        try:
            self._flush()
        finally:
            self._fail()
            self._lock.close()


def _is_zero(buf, i, n):
    for k in range(i, i + n):
        if buf[k]:
            return False
    return True
