"""How long a start reads: a full ring of a Pico W's flash, and one of a gateway.

    python tests/bench/startup.py [--micropython PROGRAM]

Each ring is filled with confirmed messages of 256 octets in four queues, half of them settled, and
read again by a new process. Prints seconds, octets read, and records found.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
RINGS = (("848 KB of flash", 848 << 10, 4096, 256), ("64 MB file", 64 << 20, 65536, 4096))

FILL = """
import sys
from amqp_lite.store.file import FileFlash
from amqp_lite.store.recovery import Recovery
from amqp_lite.store.records import MESSAGE
from amqp_lite.store.ring import Ring
class Visitor:
    def message(self, ring, share):
        pass
    definition = message
path, size, sector, page = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
ring = Ring(FileFlash(path, size, sector, page))
Recovery(ring, Visitor()).run()
body = bytearray(b"x" * 256)
n = 0
while True:
    if not ring.begin(MESSAGE, [n & 3], 1, 256):
        break
    place = ring.at_order, ring.at_slot
    ring.put(body, 0, 256)
    ring.end()
    if n % 2:
        ring.ack(place[0], place[1], 0)
    n += 1
    # Settled ones would make room for ever.
    if ring.free() < 4:
        break
ring.commit()
ring.mark()
ring.device.sync()
"""

READ = """
import sys
from amqp_lite.compat import ticks_diff, ticks_ms
from amqp_lite.store.file import FileFlash
from amqp_lite.store.recovery import Recovery
from amqp_lite.store.ring import Ring
class Visitor:
    def message(self, ring, share):
        pass
    definition = message
ring = Ring(FileFlash(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
recovery = Recovery(ring, Visitor())
begin = ticks_ms()
recovery.run()
print("%.3f s, %d pending records, %d of %d sectors in use" % (
    ticks_diff(ticks_ms(), begin) / 1000, recovery.records, ring.sectors - ring.free(),
    ring.sectors))
"""


def run(program, text, *arguments):
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "lib"),
                       MICROPYPATH="%s:.frozen" % (ROOT / "lib"))
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(text)
        script.flush()
        done = subprocess.run([program, script.name, *map(str, arguments)], env=environment,
                              check=True, capture_output=True, text=True)
    return done.stdout.strip()


def main():
    parser = argparse.ArgumentParser(description="Time to read a full ring at start.")
    beside = pathlib.Path(sys.executable).parent / "micropython"
    parser.add_argument("--micropython", metavar="PROGRAM", default=str(beside))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, size, sector, page in RINGS:
            path = os.path.join(folder, "%d.ring" % size)
            run(sys.executable, FILL, path, size, sector, page)
            for program in (sys.executable, options.micropython):
                if os.path.exists(program):
                    print("%-16s %-12s %s" % (name, os.path.basename(program),
                                              run(program, READ, path, size, sector, page)))


if __name__ == "__main__":
    main()
