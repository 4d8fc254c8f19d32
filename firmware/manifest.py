"""A firmware with all of this inside: its code stays in flash and leaves the heap to messages.

On an emulated Pico W that is 45 KB more of heap, so that a bridge and AMQP 1.0 have room together,
a start in 1.8 s instead of 5.6, and a quarter fewer messages a second, since all code competes for
the flash's cache. With the sources of MicroPython 1.24 or newer, and what their
ports/rp2/README.md asks for, there in ports/rp2:

    make -C ../../mpy-cross
    make BOARD=RPI_PICO_W submodules
    make BOARD=RPI_PICO_W all FROZEN_MANIFEST=<absolute path of this file>

and build-RPI_PICO_W/firmware.uf2 is what goes onto the board; in ports/esp32 it is
BOARD=ESP32_GENERIC. Such a board needs a config.json and no other file: `amqp-lite deploy` brings
one, or it is what `amqp-lite config complete` prints. `deploy` asks the board where its code is;
the other commands are told by "limits": {"code_in_flash": 2}, and count less heap for it then.
MicroPython prefers what is inside to /lib, and also to the boot.py and main.py of the file system;
a whole /amqp_lite or /board comes before it, to try a change.
"""

import os

# What MicroPython itself puts into a firmware for this board.
try:
    include("$(BOARD_DIR)/manifest.py")  # noqa: F821
except Exception:  # it has none of its own
    include("$(PORT_DIR)/boards/manifest.py")  # noqa: F821

_NEVER = (
    "compat_cpython.py", "compat_tls_cpython.py", "tls_server.py", "selector.py",
    "servicebus", "linux",
)  # fmt: skip


def _files(top):
    """The modules in the folder *top* that a board may import."""
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(set(folders) - set(_NEVER))
        for name in sorted(set(names) - set(_NEVER)):
            if name.endswith(".py"):
                yield os.path.relpath(os.path.join(folder, name), top)


# opt=3: without assertions and line numbers.
package("amqp_lite", files=_files("../lib/amqp_lite"), base_path="../lib", opt=3)  # noqa: F821
package("board", files=_files("../board"), base_path="..", opt=3)  # noqa: F821
module("boot.py", opt=3)  # noqa: F821
module("main.py", opt=3)  # noqa: F821
