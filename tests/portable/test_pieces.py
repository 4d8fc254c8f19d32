"""The same octets in other pieces: one by one, in odd steps, and cut off anywhere."""

import chance
import sessions
import wire
from world import World

STRIDE = 5  # octets between two places where a session is cut off; the first is by chance


def play(world, frames, step):
    """The frames the broker answers to a session that is sent in steps of *step* octets."""
    peer = world.connect()
    peer.step = step
    for octets in frames:
        peer.send(octets)
    assert peer.gone
    tidy(world)
    return [
        (channel, name, without_chance(payload))
        for channel, name, payload in wire.split(peer.inbox)[0]
    ]


def without_chance(payload):
    """The names the broker makes differ each time: they end in 18 digits."""
    for start in (b"amq.gen-", b"amq.rabbitmq.reply-to."):
        i = payload.find(start)
        if i >= 0:
            i += len(start)
            payload = payload[:i] + payload[i + 18 :]
    return payload


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


def test_a_flood_in_any_steps_is_answered_alike():
    check_steps(sessions.FLOOD)


def test_declarations_cut_off_anywhere_leave_nothing_behind():
    check_cuts(sessions.PLUMBING)


def test_messages_cut_off_anywhere_leave_nothing_behind():
    check_cuts(sessions.MESSAGES)


def test_channels_cut_off_anywhere_leave_nothing_behind():
    check_cuts(sessions.CHANNELS)


def test_a_flood_cut_off_anywhere_leaves_nothing_behind():
    check_cuts(sessions.FLOOD)
