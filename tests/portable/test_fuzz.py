"""Recorded sessions, bent and broken in many ways: nothing escapes, and nothing stays behind.

ROUNDS and SEED in the environment: see rounds.py.
"""

import random

import sessions
import wire
from bending import (
    flip_bits,
    insert,
    put,
    remove,
    repeat,
    some_octets,
    swap,
    truncate,
)
from rounds import clear, mingle, play_rounds
from world import Peer, World

SESSIONS = sessions.ALL
LOGIN = len(sessions.LOGIN)
# Numbers that are often taken for others.
SIZES = (0, 1, 3, 4, 7, 8, 255, 256, 1016, 1017, 4096, 8184, 8185, 0x7FFF, 0xFFFF, 0x10000,
         0x3FFFFFFF, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF)  # fmt: skip


# --- the ways to bend a session: function(list of frames) -> list of frames ---


def set_octets(frames):
    k = random.randrange(len(frames))
    i = random.randrange(len(frames[k]))
    part = random.choice((b"\0", b"\xff", b"\xce", b"\x7f", some_octets(1), some_octets(4)))
    frames[k] = put(frames[k], i, part)


def set_size(frames):
    """Change the length field of a frame, or four octets that may be one inside of it."""
    k = random.randrange(len(frames))
    i = 3 if random.getrandbits(1) else random.randrange(len(frames[k]))
    frames[k] = put(frames[k], i, random.choice(SIZES).to_bytes(4, "big"))


def set_payload(frames):
    """Cut, stretch or replace a payload; the frame around it stays right."""
    k = random.randrange(len(frames))
    frame = frames[k]
    end = 7 + int.from_bytes(frame[3:7], "big")
    payload = frame[7:end]
    i = random.randrange(len(payload) + 1)
    choice = random.randrange(3)
    if choice == 0:
        payload = payload[:i]
    elif choice == 1:
        payload = payload[:i] + some_octets(random.randrange(1, 20)) + payload[i:]
    else:
        payload = put(payload, i, some_octets(random.randrange(1, 9)))
    frames[k] = wire.frame(frame[0], frame[1] << 8 | frame[2], payload) + frame[end + 1 :]


def set_channel(frames):
    k = random.randrange(len(frames))
    frames[k] = put(
        frames[k], 1, random.choice((0, 1, 2, 3, 7, 8, 9, 255, 0xFFFF)).to_bytes(2, "big")
    )


def set_method(frames):
    """Put another method's class and method in front of the arguments."""
    k = random.randrange(len(frames))
    other = random.choice(random.choice(SESSIONS))
    frames[k] = put(frames[k], 7, other[7:11])


def borrow(frames):
    """Put a few frames of another session in."""
    other = random.choice(SESSIONS)
    m = random.randrange(len(other))
    k = random.randrange(len(frames) + 1)
    frames[k:k] = other[m : m + random.randrange(1, 5)]


def split_frames(frames):
    """Make every frame an element of its own, so that others may come between them."""
    whole = b"".join(frames)
    frames.clear()
    i = 0
    while i + 8 <= len(whole):
        n = int.from_bytes(whole[i + 3 : i + 7], "big") + 8
        frames.append(whole[i : i + n])
        i += n


BENDS = (flip_bits, set_octets, set_size, set_payload, set_channel, set_method, truncate, insert,
         repeat, remove, swap, borrow)  # fmt: skip


def bend():
    """A session with something wrong."""
    frames = list(random.choice(SESSIONS))
    if random.getrandbits(1):
        split_frames(frames)
    # Mostly behind the login, where most of the code is.
    keep = [] if random.randrange(8) == 0 else frames[:LOGIN]
    rest = frames[len(keep) :]
    for _ in range(random.choice((0, 1, 1, 1, 2, 3, 6))):
        if rest and min([len(octets) for octets in rest]) >= 8:
            random.choice(BENDS)(rest)
    return keep + rest


def play(world):
    """One round: a few peers at once, each with a session of its own, in pieces of any size."""
    peers = []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        peer = world.connect()
        peer.step = random.choice((0, 0, 0, 1, 7, random.randrange(1, 2000)))
        peers.append((peer, bend()))

    def between(_):
        if random.randrange(40) == 0:
            world.wait(random.choice((250, 3000, 70000)))

    # Frames of the broker's are whole, whatever a peer says.
    mingle(peers, Peer.take, between)
    world.neighbour.take()


def fuzz(**numbers):
    """Play rounds on one broker with these *numbers* of the profile."""
    world = World(**numbers)
    world.neighbour = world.client()
    before = world.free()

    def one(k):
        play(world)
        clear(world)
        assert world.free() == before, (world.free(), before)
        if k % 10 == 0:
            assert world.neighbour.works(), "the neighbour"

    play_rounds(250, one, lambda: sorted(world.broker.metrics.snapshot().items()))


def test_bent_sessions_cost_nobody_anything():
    fuzz()


def test_bent_sessions_where_there_is_little_room():
    fuzz(messages=6, blocks=40, deliveries=8, queues=4, bindings=4, consumers=3, exchanges=8,
         routes=2, send_buffer=1536)  # fmt: skip
