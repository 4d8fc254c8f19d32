"""The official MicroPython firmware that the emulated board runs.

    PICO_W_UF2=firmware.uf2 pytest tests/board

Without the variable it is the release VERSION, from where rp2040py keeps what it downloads, or
downloaded there once.
"""

import hashlib
import os
import pathlib
import threading
import urllib.request

VERSION = "1.26.1"
_SHA256 = "710eac1ba5dc10e2cbdf9e070d5b7c662962a57b0ebc4bb0202c87b40413ed85"
_FIRST_S = 5  # until octets come; a machine without a network has none, and tests have to go on
_WHOLE_S = 60


def find():
    """(path, None) or (None, why there is none and how to get one)."""
    named = os.environ.get("PICO_W_UF2")
    if named:
        path = pathlib.Path(named)
        return (path, None) if path.is_file() else (None, f"PICO_W_UF2: no file {named}")
    from rp2040py.utils.firmware_retrieve import MICROPYTHON

    url = MICROPYTHON.boards["pico_w"].fw[VERSION]
    path = pathlib.Path.home() / ".cache" / "rp2040py" / url.rpartition("/")[2]
    if path.is_file() and _is_right(path.read_bytes()):
        return path, None
    octets = _Download(url).octets()
    if octets is None or not _is_right(octets):
        return None, (
            f"no firmware, and {url} cannot be had now: download it, and set PICO_W_UF2 to its"
            f" path or keep it as {path}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(octets)
    fresh.replace(path)
    return path, None


def _is_right(octets):
    return hashlib.sha256(octets).hexdigest() == _SHA256


class _Download:
    """In a thread, since looking up a name may take longer than anybody wants to wait."""

    def __init__(self, url):
        self._url = url
        self._octets = b""
        self._has_begun = threading.Event()
        self._has_ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def octets(self):
        """All of them; None when they do not come."""
        if self._has_begun.wait(_FIRST_S) and self._has_ended.wait(_WHOLE_S):
            return self._octets or None
        return None

    def _run(self):
        try:
            with urllib.request.urlopen(self._url, timeout=_FIRST_S) as answer:
                self._has_begun.set()
                self._octets = answer.read()
        except OSError:
            pass
        self._has_begun.set()
        self._has_ended.set()
