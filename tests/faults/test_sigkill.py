"""The gateway's broker, killed at random moments; more kills: python tests/faults/sigkill.py."""

import os

import sigkill


def test_what_was_confirmed_survives_sigkill(tmp_path):
    seed = int(os.environ.get("SEED") or int.from_bytes(os.urandom(3), "big"))
    print("seed", seed)
    book, _ = sigkill.run(25, seed, str(tmp_path / "store.ring"))
    sigkill.check(book)
    assert len(book.confirmed) > 200
