"""Random numbers for tests: another seed in each run, printed. SEED=<it> repeats one."""

import os
import random


def seeded():
    """The random module, seeded."""
    given = getattr(os, "getenv", lambda name: None)("SEED")
    seed = int(given) if given else int.from_bytes(os.urandom(3), "big")
    print("seed", seed)
    random.seed(seed)
    return random


def octets(random, n):
    return bytes([random.getrandbits(8) for _ in range(n)])
