"""Topic matching against the definition, written down as a recursion."""

import time

import chance
from amqp_lite.broker.exchange import topic_match


def matches(pattern, key):
    octets = memoryview(b"<<" + key + b".#>>")  # what is around the key must not count
    return topic_match(pattern, octets, 2, 2 + len(key))


def by_definition(pattern, key):
    """The same for lists of words (AMQP 0-9-1 §3.1.3.3)."""
    if not pattern:
        return not key
    if pattern[0] == b"#":
        return by_definition(pattern[1:], key) or (bool(key) and by_definition(pattern, key[1:]))
    if not key:
        return False
    return pattern[0] in (b"*", key[0]) and by_definition(pattern[1:], key[1:])


def words(key):
    return key.split(b".") if key else []


def test_the_examples_of_the_specification():
    assert matches(b"*.stock.#", b"usd.stock")
    assert matches(b"*.stock.#", b"eur.stock.db")
    assert not matches(b"*.stock.#", b"stock.nasdaq")


def test_empty_words_are_words():
    assert matches(b"*.*", b".")
    assert matches(b"a..b", b"a..b")
    assert not matches(b"a..b", b"a.b")
    assert matches(b"a.*.b", b"a..b")
    assert matches(b"", b"")
    assert matches(b"#", b"")
    assert not matches(b"*", b"")
    assert not matches(b"", b"a")
    assert not matches(b"#.#.a", b"")
    assert matches(b"#.#", b"")


def test_a_word_matches_whole_or_not_at_all():
    assert not matches(b"a", b"ab")
    assert not matches(b"ab", b"a")
    assert not matches(b"a.*", b"a")
    assert matches(b"a.#", b"a")
    assert not matches(b"a#", b"ab")
    assert not matches(b"a*.b", b"ac.b")


def test_all_short_keys_match_as_defined():
    letters = (b"", b"a", b"b")
    patterns = [b"#", b"*", b"a", b""]
    keys = [b""]
    for one in letters:
        keys.append(one)
        for two in letters:
            keys.append(one + b"." + two)
            for three in letters:
                keys.append(one + b"." + two + b"." + three)
    for one in (b"#", b"*", b"a"):
        for two in (b"#", b"*", b"a", b""):
            patterns.append(one + b"." + two)
            for three in (b"#", b"*", b"a", b"b"):
                patterns.append(one + b"." + two + b"." + three)
    for pattern in patterns:
        for key in keys:
            assert matches(pattern, key) == by_definition(words(pattern), words(key)), (
                pattern, key,
            )  # fmt: skip


def test_random_keys_match_as_defined():
    random = chance.seeded()
    for _ in range(2000):
        pattern = b".".join([random.choice((b"#", b"*", b"a", b"b", b"")) for _ in range(
            random.randrange(1, 7)
        )])  # fmt: skip
        key = b".".join([random.choice((b"a", b"b", b"c", b"")) for _ in range(
            random.randrange(1, 8)
        )])  # fmt: skip
        assert matches(pattern, key) == by_definition(words(pattern), words(key)), (pattern, key)


def test_many_hashes_cost_no_more_than_words_times_words():
    key = b".".join([b"a"] * 128)
    began = time.time()
    for pattern in (
        b".".join([b"#"] * 127),
        b".".join([b"#"] * 126 + [b"b"]),
        b".".join([b"#", b"a"] * 60 + [b"b"]),
        b".".join([b"#", b"*"] * 60 + [b"b"]),
        b".".join([b"#", b"a", b"*"] * 40 + [b"b", b"#"]),
    ):
        assert matches(pattern, key) == (b"b" not in pattern)
    # Backtracking over all hashes would take longer than the universe.
    assert time.time() - began < 5
