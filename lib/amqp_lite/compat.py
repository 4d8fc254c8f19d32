"""The only file that asks which Python this is.

Everything that differs between MicroPython and CPython has one name, and stands once for each of
them in compat_micropython.py and compat_cpython.py: integers and copies on octet buffers (viper
machine code on a board, slices on CPython), the millisecond clock, polling and the non-blocking
socket calls. A board loads only its own.
"""

import sys

MICROPYTHON = sys.implementation.name == "micropython"

# What u32() answers for anything larger: above every limit, and still a small int on 32 bits.
TOO_LARGE = 0x3FFFFFFF

if MICROPYTHON:
    from .compat_micropython import *  # noqa: F403
else:
    from .compat_cpython import *  # noqa: F403
