"""The same octets in other pieces: one by one, in odd steps, and cut off anywhere."""

import sys

import chance
import sessions
import wire
from world import World

# Between two places where a session is cut off; a board's Python has not all day.
STRIDE = 31 if sys.implementation.name == "micropython" else 5


def play(world, frames, step):
    """The frames the broker answers to a session that is sent in steps of *step* octets."""
    peer = world.connect()
    peer.step = step
    for octets in frames:
        peer.send(octets)
    assert peer.gone
    tidy(world)
    # The names the broker makes differ each time.
    return [
        (channel, name, payload[-8:] if payload[1:9] == b"amq.gen-" else payload)
        for channel, name, payload in wire.split(peer.inbox)[0]
    ]


def tidy(world):
    for name in list(world.broker.queues):
        world.broker.delete_queue(world.broker.queue(name))
    for name in list(world.broker.exchanges):
        if name and not name.startswith(b"amq."):
            world.broker.delete_exchange(name)


def check_steps(frames):
    world = World()
    before = world.free()
    whole = play(world, frames, 0)
    assert "connection.close" not in [name for _, name, _ in whole]
    for step in (1, 2, 7, 8, 9, 100):
        assert play(world, frames, step) == whole, step
        assert world.free() == before, step


def check_cuts(frames):
    world = World()
    neighbour = world.client()
    before = world.free()
    octets = b"".join(frames)
    start = chance.seeded().randrange(STRIDE)
    for n in range(start, len(octets), STRIDE):
        peer = world.connect()
        peer.send(octets[:n])
        peer.vanish()
        tidy(world)
        assert world.free() == before, n
    assert neighbour.works()


def test_declarations_in_any_steps_are_answered_alike():
    check_steps(sessions.PLUMBING)


def test_messages_in_any_steps_are_answered_alike():
    check_steps(sessions.MESSAGES)


def test_channels_in_any_steps_are_answered_alike():
    check_steps(sessions.CHANNELS)


def test_declarations_cut_off_anywhere_leave_nothing_behind():
    check_cuts(sessions.PLUMBING)


def test_messages_cut_off_anywhere_leave_nothing_behind():
    check_cuts(sessions.MESSAGES)


def test_channels_cut_off_anywhere_leave_nothing_behind():
    check_cuts(sessions.CHANNELS)
