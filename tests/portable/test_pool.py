"""The message pool: chains of blocks against plain bytes."""

import chance
from amqp_lite.broker.message import Pool


def make(pool, data):
    """A message that holds *data*."""
    message = pool.begin(len(data))
    pool.write(message, memoryview(data), 0, len(data))
    return message


def content(pool, message):
    octets = bytearray(message.size)
    pool.read_at(message, 0, message.size, octets, 0)
    return bytes(octets)


def test_what_is_written_in_pieces_is_read_in_other_pieces():
    data = bytes(range(256)) * 2
    for block_size in (1, 7, 64, 128, 512, 600):
        blocks = 512 // block_size + 1
        pool = Pool(2, blocks, block_size)
        for step in (1, 5, 64, 128, 511, 512):
            message = pool.begin(len(data))
            for i in range(0, len(data), step):
                pool.write(message, memoryview(data), i, min(step, len(data) - i))
            octets = bytearray(len(data))
            block = message.first
            for i in range(0, len(data), 67):
                block = pool.read(block, i, min(67, len(data) - i), octets, i)
            assert octets == data, (block_size, step)
            pool.release(message)
        assert pool.available == blocks


def test_any_position_can_be_read():
    pool = Pool(1, 9, 16)
    data = bytes(range(140))
    message = make(pool, data)
    for start in range(140):
        for n in (0, 1, 15, 16, 17, 40):
            n = min(n, 140 - start)
            octets = bytearray(n)
            pool.read_at(message, start, n, octets, 0)
            assert octets == data[start : start + n], (start, n)


def test_reserved_blocks_are_nobody_elses():
    pool = Pool(4, 4, 100)
    first = pool.begin(10)
    assert pool.extend(first, 310)
    assert pool.available == 0
    assert pool.begin(1) is None
    assert not pool.extend(first, 1000)
    pool.release(first)
    assert pool.available == 4
    assert pool.messages.free == 4


def test_extend_counts_what_was_promised_already():
    pool = Pool(1, 4, 100)
    message = pool.begin(100)
    pool.write(message, memoryview(bytes(100)), 0, 100)
    assert pool.extend(message, 100) and pool.available == 2
    assert pool.extend(message, 100) and pool.available == 2
    assert pool.extend(message, 101) and pool.available == 1


def test_a_message_lives_as_long_as_somebody_holds_it():
    pool = Pool(2, 4, 100)
    message = make(pool, bytes(250))
    message.references += 1
    pool.release(message)
    assert pool.available == 1
    assert content(pool, message) == bytes(250)
    pool.release(message)
    assert pool.available == 4


def test_no_message_is_left_is_told_like_no_block_is_left():
    pool = Pool(1, 4, 100)
    message = pool.begin(1)
    assert pool.begin(1) is None
    pool.release(message)
    assert pool.begin(1) is message


def test_a_message_abandoned_half_way_gives_everything_back():
    pool = Pool(1, 8, 32)
    for written in range(0, 256, 9):
        message = pool.begin(20)
        assert pool.extend(message, 256)
        pool.write(message, memoryview(bytes(256)), 0, written)
        pool.release(message)
        assert pool.available == 8 and pool.messages.free == 1, written


def test_random_messages_keep_their_octets():
    random = chance.seeded()
    pool = Pool(20, 60, 24)
    alive = []  # [message, all its octets, how many are written]
    for _ in range(1500):
        choice = random.getrandbits(2)
        if choice == 0:
            data = chance.octets(random, random.randrange(1, 200))
            message = pool.begin(min(len(data), 24))
            if message is not None:
                if pool.extend(message, len(data)):
                    alive.append([message, data, 0])
                else:
                    pool.release(message)
        elif alive and choice == 3:
            message, data, written = alive.pop(random.randrange(len(alive)))
            assert content(pool, message) == data[:written]
            pool.release(message)
        elif alive:
            row = random.choice(alive)
            n = random.randrange(len(row[1]) - row[2] + 1)
            pool.write(row[0], memoryview(row[1]), row[2], n)
            row[2] += n
        promised = sum([(max(len(data), 1) + 23) // 24 for _, data, _ in alive])
        assert pool.available == 60 - promised
    for message, data, written in alive:
        assert content(pool, message) == data[:written]
        pool.release(message)
    assert pool.available == 60 and pool.messages.free == 20
