"""The ways to bend a recorded session that need not know its protocol.

A function(list of frames) changes the list; the seed is that of `random`.
"""

import random


def some_octets(n):
    return bytes([random.getrandbits(8) for _ in range(n)])


def put(octets, i, part):
    """*octets* with *part* in place of what is at *i*."""
    return octets[:i] + part + octets[i + len(part) :]


def flip_bits(frames):
    k = random.randrange(len(frames))
    for _ in range(random.randrange(1, 5)):
        i = random.randrange(len(frames[k]))
        frames[k] = put(frames[k], i, bytes([frames[k][i] ^ 1 << random.randrange(8)]))


def truncate(frames):
    k = random.randrange(len(frames))
    frames[k] = frames[k][: random.randrange(len(frames[k]))]
    if random.getrandbits(1):
        del frames[k + 1 :]


def insert(frames):
    k = random.randrange(len(frames))
    i = random.randrange(len(frames[k]) + 1)
    frames[k] = frames[k][:i] + some_octets(random.randrange(1, 30)) + frames[k][i:]


def repeat(frames):
    k = random.randrange(len(frames))
    frames[k:k] = [frames[k]] * random.choice((1, 1, 2, 9))


def remove(frames):
    k = random.randrange(len(frames))
    del frames[k : k + random.randrange(1, 4)]


def swap(frames):
    k = random.randrange(len(frames))
    m = random.randrange(len(frames))
    frames[k], frames[m] = frames[m], frames[k]
