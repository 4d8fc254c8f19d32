"""The devices behind the flash ring: each against one model, and what only one of them does."""

import os
import sys

import chance
from amqp_lite.errors import ConfigError
from amqp_lite.store import device as devices
from amqp_lite.store import open as opening
from amqp_lite.store import segments
from amqp_lite.store.device import BlockFlash
from amqp_lite.store.file import FileFlash
from amqp_lite.store.segments import SegmentFlash
from board import settings as board_settings
from ramflash import RamFlash

try:
    import vfs
    from micropython import heap_lock, heap_unlock
except ImportError:
    vfs = None

    def heap_lock():
        pass

    heap_unlock = heap_lock

MICROPYTHON = sys.implementation.name == "micropython"


def open_device(settings, path="store"):
    opening.check_store(settings, path)
    return opening.open_device(settings, path)


def remove_all(path):
    """Remove a file, or a folder with all that is in it."""
    try:
        os.remove(path)
        return
    except OSError:
        pass
    for name in os.listdir(path):
        remove_all(path + "/" + name)
    os.rmdir(path)


class Folder:
    """A new folder, removed at the end."""

    def __enter__(self):
        where = (os.getenv("TMPDIR") or os.getenv("TEMP") or "/tmp").rstrip("/")
        self.path = where + "/device" + "".join(["%02x" % octet for octet in os.urandom(6)])
        os.mkdir(self.path)
        return self.path

    def __exit__(self, *what):
        remove_all(self.path)


class Model:
    """What a device has to hold: the octets, where they are known, and how it is written to."""

    def __init__(self, random, make, front_only=False):
        self.random = random
        self.make = make  # opens the device, also after a close()
        self.device = device = make()
        self.front_only = front_only  # an erase is only good for the first page
        size = device.sectors * device.sector_size
        self.octets = bytearray(size)
        self.known = bytearray(size)  # 0: anything may be there
        self.page = bytearray(b"\xff" * device.page_size)
        self.bitmap = device.page_size // 4  # where records begin, the bits before can be cleared
        self.ends = [-1] * device.sectors  # behind the last record; 0: none, -1: was not erased
        self.headed = [False] * device.sectors

    def program(self, address, octets):
        """Program *octets*, all of one page, and compare what is read back."""
        device = self.device
        i = address % device.page_size
        n = len(octets)
        self.page[i : i + n] = octets
        device.program(address - i, self.page, i, n)
        self.page[i : i + n] = b"\xff" * n
        self.octets[address : address + n] = octets
        self.known[address : address + n] = b"\1" * n
        self.compare(address, n)

    def compare(self, address, n):
        at = self.device.at(address, n)
        got = bytes(self.device.buf[at : at + n])
        for k in range(n):
            if self.known[address + k]:
                assert got[k] == self.octets[address + k], (address, k, got[k])

    def compare_all(self):
        size = self.device.page_size
        for address in range(0, len(self.octets), size):
            self.compare(address, size)

    def erase(self, sector):
        device = self.device
        device.erase(sector)
        start = sector * device.sector_size
        n = device.page_size if self.front_only else device.sector_size
        self.known[start : start + device.sector_size] = bytes(device.sector_size)
        self.octets[start : start + n] = b"\xff" * n
        self.known[start : start + n] = b"\1" * n
        self.ends[sector] = 0
        self.headed[sector] = False

    def append(self, sector):
        """Write a record of up to three pages behind the last one, or some pages further."""
        random = self.random
        device = self.device
        if not self.headed[sector] and random.randrange(3):
            # After the records, when it is a copy of another sector.
            self.headed[sector] = True
            self.program(sector * device.sector_size, b"\xa1" + chance.octets(random, 15))
        at = max(self.ends[sector], self.bitmap)
        if not random.randrange(12):
            at += random.randrange(3 * device.page_size)
        at = (at + 15) & ~15
        n = min(random.randrange(1, 3 * device.page_size), device.sector_size - at)
        while n > 0:
            step = min(n, device.page_size - at % device.page_size)
            self.program(sector * device.sector_size + at, chance.octets(random, step))
            at += step
            n -= step
        self.ends[sector] = min(at, device.sector_size)

    def clear(self, address, n):
        """Clear some bits of *n* octets that are known."""
        octets = bytearray(self.octets[address : address + n])
        for k in range(n):
            if not self.random.randrange(3):
                octets[k] &= self.random.getrandbits(8)
        self.program(address, octets)

    def kill(self, sector):
        """Zero the header: it may not be read as one again, and the rest is anything."""
        device = self.device
        start = sector * device.sector_size
        self.program(start, bytes(16))
        self.known[start : start + device.sector_size] = bytes(device.sector_size)
        self.ends[sector] = -1

    def reopen(self):
        self.device.sync()
        self.device.close()
        self.device = self.make()
        self.compare_all()

    def step(self):
        random = self.random
        device = self.device
        sector = random.randrange(device.sectors)
        base = sector * device.sector_size
        what = random.randrange(100)
        if self.ends[sector] < 0:
            if what < 50:
                # Also when there is nothing: a start zeroes what it does not believe.
                self.kill(sector)
            self.erase(sector)
        elif what < 40:
            self.append(sector)
        elif what < 50:
            start = random.randrange(16, self.bitmap)
            self.clear(base + start, random.randrange(1, self.bitmap - start + 1))
        elif what < 60:
            address = base + random.randrange(self.bitmap, max(self.ends[sector], self.bitmap + 1))
            if self.known[address] and address < base + self.ends[sector]:
                self.clear(address, 1)
        elif what < 63:
            self.kill(sector)
        elif what < 66:
            # A start programs again what it believes.
            self.program(base + 16, self.octets[base + 16 : base + device.page_size])
        elif what < 75:
            device.sync()
        else:
            n = random.randrange(1, device.page_size + 1)
            self.compare(base + random.randrange(device.sector_size - n + 1), n)


def check(make, front_only=False, steps=1200, reopens=True):
    """Random work on the device that make() opens, which is still there when it is made again."""
    model = Model(chance.seeded(), make, front_only)
    for k in range(steps):
        model.step()
        if reopens and k % 97 == 0:
            model.reopen()
    model.compare_all()
    model.device.sync()
    model.device.close()


# --- RAM ---


def test_ram():
    check(lambda: RamFlash(5, 1024, 128), reopens=False)
    octets = bytes(range(256)) * 4
    device = RamFlash(4, 256, 64, octets)
    assert device.buf == octets and device.at(77, 3) == 77
    page = bytearray(b"\xff" * 64)
    page[3] = 0x18
    device.program(64, page, 3, 1)
    assert device.buf[67] == 67 & 0x18
    assert device.buf[68] == 68


# --- a file ---


def test_file():
    with Folder() as folder:
        path = folder + "/ring"
        check(lambda: FileFlash(path, 6 * 4096, 4096, 256), front_only=True)
        assert os.stat(path)[6] == 6 * 4096


def test_a_new_file_reads_as_zeros():
    with Folder() as folder:
        device = FileFlash(folder + "/ring", 4 * 65536)
        assert (device.sectors, device.sector_size, device.page_size) == (4, 65536, 4096)
        assert device.trusted
        at = device.at(3 * 65536, 4096)
        assert bytes(device.buf[at : at + 4096]) == bytes(4096)
        device.close()


def test_a_file_grows_and_keeps_what_it_has():
    with Folder() as folder:
        path = folder + "/ring"
        page = bytearray(b"\xff" * 256)
        page[7:10] = b"abc"
        device = FileFlash(path, 4 * 4096, 4096, 256)
        device.erase(3)
        device.program(3 * 4096, page, 7, 3)
        device.close()
        for sectors in (8, 4, 6):
            device = FileFlash(path, sectors * 4096, 4096, 256)
            assert device.sectors == sectors
            at = device.at(3 * 4096 + 6, 5)
            assert bytes(device.buf[at : at + 5]) == b"\xffabc\xff"
            if sectors > 4:
                at = device.at(sectors * 4096 - 256, 256)
                assert bytes(device.buf[at : at + 256]) == bytes(256)
            device.close()
            assert os.stat(path)[6] == 8 * 4096


def test_a_file_is_opened_once_only():
    if MICROPYTHON:
        return  # it has no locks
    with Folder() as folder:
        settings = {"kind": "file", "path": folder + "/ring", "size": 4 * 65536}
        device = open_device(settings)
        assert refused(settings) == 'store.path: "%s" is in use by another process' % (
            folder + "/ring" if len(folder) < 30 else (folder + "/ring")[:36] + "..."
        ) or "is in use" in refused(settings)
        device.close()
        open_device(settings).close()
        settings = {"kind": "segments", "path": folder + "/log", "size": 4 * 32768}
        device = open_device(settings)
        assert "is in use by another process" in refused(settings)
        device.close()
        open_device(settings).close()


def test_only_what_is_programmed_is_written():
    with Folder() as folder:
        path = folder + "/ring"
        device = FileFlash(path, 4 * 4096, 4096, 256)
        page = bytearray(b"\xff" * 256)
        page[9:13] = b"four"
        device.program(512, page, 9, 4)
        device.sync()
        with open(path, "rb") as file:
            file.seek(512)
            assert file.read(256) == bytes(9) + b"four" + bytes(243)
        device.close()


# --- raw flash ---


class Nor:
    """A block device that is as strict as RP2 is careless."""

    def __init__(self, blocks, size=1024, page=128):
        self.octets = bytearray(os.urandom(blocks * size))
        self.blocks = blocks
        self.size = size
        self.page = page
        self.low = 0  # the blocks that may be used
        self.high = blocks
        self.error = None  # what all calls but the first ones return

    def address(self, block, offset, n):
        assert self.low <= block < self.high and 0 <= offset < self.size
        assert block * self.size + offset + n <= self.high * self.size
        return block * self.size + offset

    def readblocks(self, block, buf, offset):
        at = self.address(block, offset, len(buf))
        buf[:] = self.octets[at : at + len(buf)]
        return self.error

    def writeblocks(self, block, buf, offset):
        assert isinstance(buf, bytearray) and len(buf) == self.page and not offset % self.page
        at = self.address(block, offset, len(buf))
        for k in range(len(buf)):
            self.octets[at + k] &= buf[k]
        return self.error

    def ioctl(self, op, arg):
        if op == 4:
            return self.blocks
        if op == 5:
            return self.size
        assert op == 6
        at = self.address(arg, 0, self.size)
        if self.error:
            return self.error
        self.octets[at : at + self.size] = b"\xff" * self.size
        return 0


def test_blocks_without_a_view():
    nor = Nor(9)
    nor.low, nor.high = 2, 7
    before = bytes(nor.octets)
    check(lambda: BlockFlash(nor, 2, 5, 128))
    assert nor.octets[: 2 * 1024] == before[: 2 * 1024]
    assert nor.octets[7 * 1024 :] == before[7 * 1024 :]


def test_blocks_with_a_view():
    """As rp2.Flash, which memoryview() takes."""
    nor = Nor(9)
    nor.low, nor.high = 2, 7
    devices.memoryview = lambda what: memoryview(what.octets)
    try:
        check(lambda: BlockFlash(nor, 2, 5, 128))
        device = BlockFlash(nor, 2, 5, 128)
    finally:
        del devices.memoryview
    assert device.at(77, 128) == 77
    assert len(device.buf) == 5 * 1024
    nor.octets[2 * 1024 + 77] = 5
    assert device.buf[77] == 5


def test_blocks_that_are_not_there():
    for start, sectors in ((-1, 5), (0, 0), (0, 10), (5, 5), (9, 1)):
        try:
            BlockFlash(Nor(9), start, sectors, 128)
            raise AssertionError((start, sectors))
        except ValueError:
            pass
    try:
        BlockFlash(Nor(9, 1024), 0, 9, 2048)
        raise AssertionError("a page larger than a block")
    except ValueError:
        pass


def test_an_error_of_a_block_device():
    nor = Nor(4)
    device = BlockFlash(nor, 0, 4, 128)
    page = bytearray(128)
    for result, number in ((-5, 5), (-22, 22), (1, 22)):
        nor.error = result
        for call in (
            lambda: device.erase(1),
            lambda: device.at(0, 16),
            lambda: device.program(128, page, 0, 128),
        ):
            try:
                call()
                raise AssertionError(result)
            except OSError as error:
                assert error.errno == number


# --- segment files ---


def open_segments(path, sectors=5):
    return SegmentFlash(path, sectors, 2048, 128)


def test_segments():
    with Folder() as folder:
        check(lambda: open_segments(folder + "/log"))


class LfsFlash:
    """NOR flash in RAM for littlefs, which counts what is done to it."""

    def __init__(self, blocks, page=256):
        self.octets = bytearray(b"\xff" * (blocks * 4096))
        self.page = page
        self.erases = 0
        self.programs = 0  # pages

    def readblocks(self, block, buf, offset=0):
        at = block * 4096 + offset
        buf[:] = memoryview(self.octets)[at : at + len(buf)]

    def writeblocks(self, block, buf, offset):
        at = block * 4096 + offset
        self.octets[at : at + len(buf)] = buf
        self.programs += len(buf) // self.page

    def ioctl(self, op, arg):
        if op == 4:
            return len(self.octets) // 4096
        if op == 5:
            return 4096
        if op == 6:
            self.octets[arg * 4096 : arg * 4096 + 4096] = b"\xff" * 4096
            self.erases += 1
        return 0


class Littlefs:
    """A littlefs, mounted. There is none on CPython."""

    def __init__(self, blocks):
        self.flash = LfsFlash(blocks)
        vfs.VfsLfs2.mkfs(self.flash, progsize=256)
        self.mount()

    def mount(self):
        vfs.mount(vfs.VfsLfs2(self.flash, progsize=256), "/littlefs")

    def unmount(self):
        vfs.umount("/littlefs")


def test_segments_on_littlefs():
    if vfs is None:
        return
    fs = Littlefs(24)
    try:
        check(lambda: open_segments("/littlefs/log"), steps=700)
    finally:
        fs.unmount()


def filled(folder, n=3):
    """A device of which sector 0 has *n* pages and patches."""
    device = open_segments(folder)
    page = bytearray(b"\xff" * 128)
    device.erase(0)
    for k in range(n):
        page[:] = bytes([0x5F - k]) * 128
        device.program(k * 128, page, 0, 128)
    page[:] = b"\xff" * 128
    page[20] = 0x1F
    device.program(0, page, 20, 1)
    page[20] = 0x0F
    device.program(0, page, 20, 1)
    page[20] = 0xFF
    page[100] = 0x1D
    device.program(2 * 128, page, 100, 1)
    return device


def octet(device, address):
    return device.buf[device.at(address, 1)]


def test_what_is_in_the_files():
    with Folder() as folder:
        folder += "/log"
        device = filled(folder)
        device.close()
        assert sorted(os.listdir(folder)) == ["0000.fix", "0000.log", "lock"]
        with open(folder + "/0000.log", "rb") as file:
            assert file.read() == b"\x5f" * 128 + b"\x5e" * 128 + b"\x5d" * 128
        with open(folder + "/0000.fix", "rb") as file:
            assert file.read() == bytes(
                [0, 20, 0x40, 0x5A ^ 20 ^ 0x40]
                + [0, 20, 0x10, 0x5A ^ 20 ^ 0x10]
                + [1, 100, 0x40, 0x5A ^ 1 ^ 100 ^ 0x40]
            )


def test_torn_patches():
    """A patch that was not finished counts as none, and those written later are whole."""
    with Folder() as folder:
        folder += "/log"
        filled(folder).close()
        with open(folder + "/0000.fix", "rb") as file:
            whole = file.read()
        for n in range(len(whole) + 1):
            for tail in (b"", b"\0\0", bytes(8)):
                with open(folder + "/0000.fix", "wb") as file:
                    file.write(whole[:n] + tail)
                expected = 0x5F if n < 4 else 0x1F if n < 8 else 0x0F
                device = open_segments(folder)
                assert octet(device, 20) == expected
                assert octet(device, 256 + 100) == (0x1D if n == len(whole) else 0x5D)
                assert octet(device, 5) == 0x5F
                page = bytearray(b"\xff" * 128)
                page[21] = 0x51
                device.program(0, page, 21, 1)
                device.close()
                device = open_segments(folder)
                assert (octet(device, 20), octet(device, 21)) == (expected, 0x51)
                device.close()


def test_torn_data():
    """The file may end anywhere: what is missing is erased."""
    with Folder() as folder:
        folder += "/log"
        filled(folder).close()
        with open(folder + "/0000.log", "rb") as file:
            whole = file.read()
        for n in (383, 257, 256, 200, 17, 1):
            with open(folder + "/0000.log", "wb") as file:
                file.write(whole[:n])
            device = open_segments(folder)
            for address in range(384):
                value = octet(device, address)
                if address in (20, 356):
                    assert value & whole[address] == (0x0F if address == 20 else 0x1D)
                else:
                    assert value == (whole[address] if address < n else 0xFF)
            page = bytearray(b"\xff" * 128)
            page[64] = 0x33
            device.program(3 * 128, page, 64, 1)
            device.close()
            device = open_segments(folder)
            assert octet(device, 3 * 128 + 64) == 0x33 and octet(device, 3 * 128 + 63) == 0xFF
            device.close()


def test_patches_without_data_are_of_nothing():
    """A cut between the removal of the two files; and one before the first octet is there."""
    with Folder() as folder:
        folder += "/log"
        for empty in (False, True):
            filled(folder).close()
            os.remove(folder + "/0000.log")
            if empty:
                with open(folder + "/0000.log", "wb"):
                    pass
            device = open_segments(folder)
            assert "0000.fix" not in os.listdir(folder)
            assert octet(device, 20) == octet(device, 0) == 0xFF
            device.close()


def test_a_dead_sector_has_no_files():
    with Folder() as folder:
        folder += "/log"
        device = filled(folder)
        page = bytearray(b"\xff" * 128)
        page[:16] = bytes(16)
        for sector in (0, 1):
            device.program(sector * 2048, page, 0, 16)
            assert [octet(device, sector * 2048 + k) for k in range(17)] == [0] * 16 + [0xFF]
        assert os.listdir(folder) == ["lock"]
        device.erase(0)
        assert octet(device, 0) == 0xFF
        device.close()
        device = open_segments(folder)
        assert octet(device, 0) == octet(device, 2048) == 0xFF
        device.close()


def test_a_dead_sector_that_was_not_erased():
    with Folder() as folder:
        device = filled(folder)
        page = bytearray(16) + b"\xff" * 112
        device.program(0, page, 0, 16)
        page[:16] = b"\xff" * 16
        page[40] = 0x7E
        device.program(0, page, 40, 1)
        page[40] = 0x3E
        device.program(0, page, 40, 1)
        device.close()
        device = open_segments(folder)
        assert (octet(device, 20), octet(device, 40)) == (0xFF, 0x3E)
        device.close()


def test_the_windows_agree():
    with Folder() as folder:
        device = filled(folder)
        page = bytearray(b"\xff" * 128)
        bits = 0x0F
        for first, second in ((16, 100), (100, 16)):
            # Both hold octet 20 then: the one on the front, and the one from 16 or 20 on.
            for n in (first, second):
                device.at(2048, 1)
                device.at(2048 + 100, 100)
                device.at(20, n)
                device.at(16, second)
                bits &= bits - 1
                page[20] = bits
                device.program(0, page, 20, 1)
                assert device.buf[device.at(16, 16) + 4] == bits
                assert device.buf[device.at(20, 100)] == bits
                assert octet(device, 20) == bits
        device.at(20, 100)
        page[18:22] = b"\x4f\x4f\x00\x1f"
        device.program(0, page, 18, 4)
        assert device.buf[device.at(20, 100) + 1] == 0x1F
        # Appended behind the end of the file, which the front holds as blank.
        page[:] = b"\xff" * 128
        for k in (0, 40):
            page[k] = 0x2A
            device.program(2048, page, k, 1)
            page[k] = 0xFF
            device.at(300, 100)
            assert octet(device, 2048 + k) == 0x2A and octet(device, 2048 + 41) == 0xFF
        device.close()


def test_files_of_other_names_stay():
    with Folder() as folder:
        for name in ("0005.log", "0005.fix", "notes.txt"):
            with open(folder + "/" + name, "wb") as file:
                file.write(b"mine")
        device = open_segments(folder)
        for sector in range(5):
            device.erase(sector)
        device.close()
        assert sorted(os.listdir(folder)) == ["0005.fix", "0005.log", "lock", "notes.txt"]


class CutFlash(LfsFlash):
    """Fails from the *left*-th operation on, as when the power is gone."""

    left = -1

    def writeblocks(self, block, buf, offset):
        # An exception would jump out of the middle of littlefs, which then is in no state at all.
        return -5 if self.cut() else LfsFlash.writeblocks(self, block, buf, offset)

    def ioctl(self, op, arg):
        return -5 if op == 6 and self.cut() else LfsFlash.ioctl(self, op, arg)

    def cut(self):
        if self.left:
            self.left -= 1
            return False
        return True


def test_synced_octets_survive_a_cut_on_littlefs():
    if vfs is None:
        return
    random = chance.seeded()
    flash = CutFlash(16)
    vfs.VfsLfs2.mkfs(flash, progsize=256)
    for _ in range(40):
        vfs.mount(vfs.VfsLfs2(flash, progsize=256), "/littlefs")
        device = open_segments("/littlefs/log", 4)
        model = Model(random, lambda device=device: device)
        synced = bytearray(4 * 2048)  # what is safe; 0xFF: nothing
        flash.left = random.randrange(1, 80)
        sector = 0
        try:
            while True:
                if model.ends[sector] < 0 or model.ends[sector] == 2048:
                    sector = (sector + 1) % 4
                    synced[sector * 2048 : sector * 2048 + 2048] = b"\xff" * 2048
                    model.erase(sector)
                for _ in range(random.randrange(1, 4)):
                    model.append(sector)
                    model.clear(sector * 2048 + 20, 8)
                model.device.sync()
                synced[:] = model.octets
        except OSError:
            pass
        try:
            device.close()
        except OSError:
            pass
        flash.left = -1
        vfs.umount("/littlefs")
        vfs.mount(vfs.VfsLfs2(flash, progsize=256), "/littlefs")
        device = open_segments("/littlefs/log", 4)
        for address in range(4 * 2048):
            # What the last, unfinished round cleared may be cleared or not.
            if model.known[address] and synced[address] != 0xFF:
                value = octet(device, address)
                assert value | synced[address] == synced[address], address
                assert value & model.octets[address] == model.octets[address], address
        device.close()
        vfs.umount("/littlefs")


def test_the_data_is_safe_before_what_follows_it():
    """Some calls are safe at once on littlefs: what was programmed before may not be later."""
    if vfs is None:
        return
    page = bytearray(b"\xff" * 128)

    def patch_two(device):
        # The first patch is closed, and so made safe, because of the second.
        page[:] = b"\xff" * 128
        page[20] = 0x11
        device.program(2048, page, 20, 1)
        device.program(2 * 2048, page, 20, 1)

    def erase(device):
        device.erase(1)

    for follow in (patch_two, erase):
        fs = Littlefs(12)
        device = open_segments("/littlefs/log", 4)
        page[:] = b"\x77" * 128
        for sector in (1, 2):
            device.program(sector * 2048, page, 0, 128)
        device.sync()
        device.program(0, page, 0, 128)
        follow(device)
        flash = LfsFlash(0)
        flash.octets[:] = fs.flash.octets
        vfs.mount(vfs.VfsLfs2(flash, progsize=256), "/cut")
        after = open_segments("/cut/log", 4)
        assert octet(after, 2048 + 20) != 0x77
        assert octet(after, 100) == 0x77
        after.close()
        vfs.umount("/cut")
        device.close()
        fs.unmount()


def test_a_full_littlefs():
    """What fails is said, at the latest by sync(), and what was synced stays."""
    if vfs is None:
        return
    fs = Littlefs(10)
    try:
        device = SegmentFlash("/littlefs/log", 8, 16384, 256)
        page = bytearray(b"\x77" * 256)
        safe = 0
        failed = False
        try:
            for address in range(0, 8 * 16384, 256):
                device.program(address, page, 0, 256)
                if address % 12288 == 0:
                    device.sync()
                    safe = address + 256
        except OSError as error:
            assert error.errno == 28  # ENOSPC
            failed = True
        assert failed and 4096 < safe < address
        for k in range(0, safe, 256):
            assert octet(device, k + 9) == 0x77
        try:
            device.sync()
        except OSError:
            pass
        device.sync()
        # There is room again, and nothing has to be opened anew.
        device.program(0, bytearray(16) + b"\xff" * 240, 0, 16)
        device.erase(0)
        device.program(address, page, 0, 256)
        device.sync()
        for k in range(safe, address):
            assert octet(device, k) in (0x77, 0xFF)
        assert octet(device, address) == 0x77
        device.program(0, page, 0, 256)
        device.sync()
        device.close()
        device = SegmentFlash("/littlefs/log", 8, 16384, 256)
        assert octet(device, 255) == 0x77 and octet(device, 256) == 0xFF
        device.close()
    finally:
        fs.unmount()


def test_sync_answers_for_what_a_failed_program_lost():
    with Folder() as folder:
        device = open_segments(folder)
        device.erase(0)
        page = bytearray(b"\x11" * 128)
        device.program(0, page, 0, 128)
        write = segments.write_file

        def full(*_):
            raise OSError(28, "full")

        segments.write_file = full
        try:
            device.program(128, page, 0, 128)
            raise AssertionError("did not fail")
        except OSError as error:
            assert error.errno == 28
        finally:
            segments.write_file = write
        device.erase(1)
        try:
            device.sync()
            raise AssertionError("the octets of the first page may be lost")
        except OSError as error:
            assert error.errno == 5
        device.sync()
        device.program(128, page, 0, 128)
        device.sync()
        assert octet(device, 128) == 0x11
        device.close()


# --- memory ---


class Still:
    """A block device that does nothing, and so allocates nothing."""

    def readblocks(self, block, buf, offset):
        pass

    def writeblocks(self, block, buf, offset):
        pass

    def ioctl(self, op, arg):
        return 1024 if op == 5 else 8 if op == 4 else 0


def work(device, page, sector, n):
    """Records and acknowledgements, in a sector that was begun."""
    size = device.sector_size
    for k in range(n):
        address = sector * size + (k + 1) * device.page_size
        device.program(address, page, 3, 20)
        at = device.at(address + 3, 20)
        assert device.buf[at] == page[3]
        device.at(sector * size + 16, 8)
        device.sync()


def test_the_steady_path_does_not_allocate():
    page = bytearray(b"\xff" * 128)
    for k in range(20):
        page[3 + k] = 0x55
    with Folder() as folder:
        for device in (
            RamFlash(4, 2048, 128),
            FileFlash(folder + "/ring", 4 * 2048, 2048, 128),
            open_segments(folder + "/log", 4),
        ):
            device.erase(1)
            device.program(2048, page, 3, 20)
            device.sync()
            heap_lock()
            try:
                work(device, page, 1, 8)
            finally:
                heap_unlock()
            device.close()
    device = BlockFlash(Still(), 2, 5, 128)
    device.buf[:] = page
    heap_lock()
    try:
        device.erase(3)
        device.program(3 * 1024, page, 3, 20)
        device.at(3 * 1024 + 77, 20)
    finally:
        heap_unlock()


# --- from a configuration ---


def refused(settings):
    try:
        open_device(settings)
    except ConfigError as error:
        line = str(error)
        assert "\n" not in line and line.startswith("store"), line
        return line
    raise AssertionError("not refused: %s" % (settings,))


def test_open_file_and_segments():
    with Folder() as folder:
        device = open_device({"kind": "file", "path": folder + "/ring", "size": 5 * 65536})
        assert isinstance(device, FileFlash)
        assert (device.sectors, device.sector_size, device.commit_ms) == (5, 65536, 0)
        device.close()
        device = open_device({"kind": "segments", "path": folder + "/log", "size": 4 * 32768})
        assert isinstance(device, SegmentFlash)
        assert (device.sectors, device.sector_size, device.commit_ms) == (4, 32768, 100)
        device.close()
        device = open_device(
            {"kind": "segments", "path": folder + "/log", "size": 4 * 32768, "commit_ms": 5000}
        )
        assert device.commit_ms == 5000
        device.close()


def test_a_boards_store_keeps_how_long_commits_are_gathered():
    class Board:
        def flash(self, size):
            return dict(self.has, size=size)

    board = Board()
    given = {"store": {"kind": "board", "size": 262144, "commit_ms": 5000}}
    board.has = {"kind": "segments", "path": "/ring"}
    settings, _ = board_settings.complete(dict(given), board)
    assert settings["store"]["commit_ms"] == 5000 and settings["store"]["kind"] == "segments"
    board.has = {"kind": "flash", "start": 0}  # there an erase is for many commits
    settings, _ = board_settings.complete(dict(given), board)
    assert settings["store"] == {"kind": "flash", "start": 0, "size": 262144}


def test_settings_that_cannot_be():
    assert refused([]) == "store: expected an object, got []"
    kinds = "store.kind: expected file or segments or flash or partition or board, got "
    assert refused({}) == kinds + "null"
    assert refused({"kind": "ram"}) == kinds + '"ram"'
    assert refused({"kind": []}) == kinds + "[]"
    assert refused({"kind": "file", "size": 1}) == "store.path: missing"
    assert refused({"kind": "file", "path": "x"}) == "store.size: missing"
    assert refused({"kind": "partition"}) == "store.label: missing"
    assert refused({"kind": "file", "paht": "x"}) == (
        'store: unknown key "paht", did you mean "path"?'
    )
    assert refused({"kind": "file", "path": 5, "size": 1}) == (
        "store.path: expected a name, got 5"
    )
    file = {"kind": "file", "path": "x", "size": 0}
    assert refused(file) == "store.size: 0 is not in 262144 to 1073741823"
    file["size"] = 3 * 65536
    assert refused(file).startswith("store.size: 196608 is not in 262144 to")
    file["size"] = 5 * 65536 + 1
    assert refused(file) == "store.size: 327681 is not a multiple of 65536"
    file["size"] = "1 MB"
    assert refused(file) == 'store.size: expected a whole number, got "1 MB"'
    segments = {"kind": "segments", "path": "x", "size": 3 * 32768}
    assert refused(segments).startswith("store.size: 98304 is not in 131072 to")
    segments = {"kind": "segments", "path": "x", "size": 4 * 32768, "commit_ms": 60001}
    assert refused(segments) == "store.commit_ms: 60001 is not in 0 to 60000"
    partition = {"kind": "partition", "label": "x", "commit_ms": 5}
    assert refused(partition).startswith("store: unknown")
    try:
        open_device({"kind": "file"}, "queues[0].store")
    except ConfigError as error:
        assert str(error) == "queues[0].store.path: missing"


def test_paths_that_cannot_be():
    with Folder() as folder:
        with open(folder + "/a", "wb"):
            pass
        for kind in ("file", "segments"):
            for name in ("/no/ring", "/a/ring"):
                line = refused({"kind": kind, "path": folder + name, "size": 1 << 20})
                assert line.startswith("store.path: cannot use "), line
        line = refused({"kind": "file", "path": folder, "size": 1 << 20})
        assert line.startswith("store.path: cannot use ")
        line = refused({"kind": "segments", "path": folder + "/a", "size": 1 << 20})
        assert line.startswith("store.path: cannot use ")


def test_not_on_this_machine():
    flash = {"kind": "flash", "start": 0, "size": 1 << 16}
    assert refused(flash) == 'store.kind: "flash" is only on RP2 boards'
    partition = {"kind": "partition", "label": "amqp"}
    assert refused(partition) == "store.label: partitions are only on ESP32 boards"


class Module:
    """Stands for a module of a board while it is open."""

    def __init__(self, name, **members):
        self.name = name
        for member in members:
            setattr(self, member, members[member])

    def __enter__(self):
        sys.modules[self.name] = self

    def __exit__(self, *what):
        del sys.modules[self.name]


def test_flash_of_an_rp2():
    made = []

    def flash(start, len):
        if start + len > 212 * 4096:
            raise ValueError
        made.append((start, len))
        return Nor(len // 4096, 4096, 256)

    class System:
        @staticmethod
        def statvfs(path):
            assert path == "/"
            return (4096, 4096, 148)

    kept = opening.os
    opening.os = System
    try:
        with Module("rp2", Flash=flash):
            settings = {"kind": "flash", "start": 148 * 4096, "size": 8 * 4096}
            device = open_device(settings)
            assert made == [(148 * 4096, 8 * 4096)]
            assert (device.sectors, device.sector_size, device.page_size) == (8, 4096, 256)
            settings["size"] = 65 * 4096
            assert refused(settings) == "store.size: there are no 266240 octets from 606208 on"
            settings["size"] = 1000
            assert refused(settings).startswith("store.size: 1000 is not in 16384 to")
            settings["size"] = 16385
            assert refused(settings) == "store.size: 16385 is not a multiple of 4096"
            settings["size"] = 16384
            settings["start"] = 148 * 4096 + 256
            assert refused(settings) == "store.start: 606464 is not a multiple of 4096"
            settings["start"] = 147 * 4096
            assert refused(settings) == (
                "store.start: 602112 is inside of the file system, which has 606208 octets"
            )
            assert len(made) == 1
    finally:
        opening.os = kept


def test_partition_of_an_esp32():
    class Partition(Nor):
        TYPE_DATA = 1
        encrypted = False
        there = []

        @classmethod
        def find(cls, type, label):
            assert type == 1 and label == "amqp"
            return cls.there

        def info(self):
            return (1, 0x40, 0x200000, self.blocks * self.size, "amqp", self.encrypted)

    settings = {"kind": "partition", "label": "amqp"}
    with Module("esp32", Partition=Partition):
        assert refused(settings) == 'store.label: no data partition is named "amqp"'
        Partition.there = [Partition(8, 4096, 256)]
        device = open_device(settings)
        assert (device.sectors, device.sector_size, device.page_size) == (8, 4096, 256)
        Partition.there = [Partition(3, 4096, 256)]
        assert refused(settings) == 'store.label: "amqp" has 3 sectors, at least 4 are needed'
        Partition.encrypted = True
        assert refused(settings) == 'store.label: "amqp" is encrypted, which no ring can use'
