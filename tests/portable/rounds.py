"""Rounds of a test with random input, each of which can be played again."""

import os
import random


def play_rounds(count, play, figures=None):
    """Call play(k) for each k below *count*, with a seed of its own.

    ROUNDS in the environment is another count; SEED=<what it printed> and ROUNDS=1 play one again.

    figures  called now and then in long runs: what to print
    """
    given = getattr(os, "getenv", lambda name: None)
    seed = int(given("SEED") or int.from_bytes(os.urandom(3), "big"))
    print("seed", seed)
    for k in range(int(given("ROUNDS") or count)):
        random.seed(seed + k)
        try:
            play(k)
        except Exception:
            print("round", k, "is SEED", seed + k)
            raise
        if figures and k % 10000 == 9999:
            print(k + 1, "rounds,", figures())


def clear(world):
    """Delete what clients declared, and forget their failed logins."""
    broker = world.broker
    for name in list(broker.queues):
        broker.delete_queue(broker.queues[name])
    for name in list(broker.exchanges):
        if name and not name.startswith(b"amq."):
            broker.delete_exchange(name)
    world.access._failures.clear()
    world.run()  # who waited for memory has it now


def mingle(peers, check, between):
    """Send what *peers* have to say, pairs of a peer and its frames, in pieces of any size.

    check    function(peer) that looks at what has come for it
    between  function(peer) for what else may happen after a piece of it

    They take turns at random; half of them leave as soon as they are done, all without a word.
    """
    everybody = [peer for peer, _ in peers]
    while peers:
        peer, frames = random.choice(peers)
        if not frames or peer.gone:
            peers.remove((peer, frames))
            if random.getrandbits(1):
                peer.vanish()
            continue
        peer.reading = random.randrange(10) > 0
        count = random.randrange(1, 5)
        peer.send(b"".join(frames[:count]))
        check(peer)
        between(peer)
        del frames[:count]
    for peer in everybody:
        peer.reading = True
        peer.world.run()
        check(peer)
        peer.vanish()
