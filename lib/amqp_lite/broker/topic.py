"""Matching of topic binding keys, in place."""

from ..compat import equal, find_octet

_DOT = 0x2E


def split_key(key):
    """The words of a binding key, as topic_match() wants them: `b"a.*.#"` -> (b"a", b"*", b"#")."""
    return tuple(key.split(b".")) if key else ()


def topic_match(words, buf, start, end):
    """Whether the routing key in buf[start:end] matches the *words* of a binding key.

    `*` stands for one word, `#` for any number of words, none included (AMQP 0-9-1 §3.1.3.3).
    Only the last `#` passed is ever retried, which is enough: an earlier one could not match more.
    So the work is bounded by words of the key times words of the pattern.
    """
    count = len(words)
    w = 0
    i = start if end > start else end + 1  # first octet of the current word; end + 1: no word left
    hash_w = -1  # the pattern word behind the last #, and the key word it was tried on
    hash_i = 0
    while True:
        if w < count:
            word = words[w]
            if word == b"#":
                w += 1
                if w == count:
                    return True
                hash_w = w
                hash_i = i
                continue
            if i <= end:
                stop = find_octet(buf, i, end, _DOT)
                n = len(word)
                if word == b"*" or (n == stop - i and equal(buf, i, word, n)):
                    w += 1
                    i = stop + 1
                    continue
        elif i > end:
            return True
        if hash_w < 0 or hash_i > end:
            return False
        # Let the last # swallow one word more and try again behind it.
        hash_i = find_octet(buf, hash_i, end, _DOT) + 1
        w = hash_w
        i = hash_i
