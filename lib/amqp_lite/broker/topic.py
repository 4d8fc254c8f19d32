"""Matching of topic binding keys, in place."""

from ..compat import const, find_octet

_DOT = const(0x2E)
_STAR = const(0x2A)
_HASH = const(0x23)


def topic_match(pattern, buf, start, end):
    """Whether the routing key in buf[start:end] matches the binding key *pattern*.

    `*` stands for one word, `#` for any number of words, none included (AMQP 0-9-1 §3.1.3.3).
    Only the last `#` passed is ever retried, which is enough: an earlier one could not match more.
    So the work is bounded by words of the key times words of the pattern. The pattern is not kept
    split: 255 octets can be 128 words, a dozen times as much memory.
    """
    size = len(pattern)
    p = 0 if size else 1  # first octet of the pattern's current word; size + 1: no word left
    i = start if end > start else end + 1  # the same in the key
    hash_p = -1  # the pattern word behind the last #, and the key word it was tried on
    hash_i = 0
    while True:
        if p <= size:
            word_end = find_octet(pattern, p, size, _DOT)
            n = word_end - p
            octet = pattern[p] if n == 1 else 0
            if octet == _HASH:
                p = word_end + 1
                if p > size:
                    return True
                hash_p = p
                hash_i = i
                continue
            if i <= end:
                stop = find_octet(buf, i, end, _DOT)
                k = 0
                if octet == _STAR:
                    k = n
                elif n == stop - i:
                    while k < n and buf[i + k] == pattern[p + k]:
                        k += 1
                else:
                    k = -1
                if k == n:
                    p = word_end + 1
                    i = stop + 1
                    continue
        elif i > end:
            return True
        if hash_p < 0 or hash_i > end:
            return False
        # Let the last # swallow one word more and try again behind it.
        hash_i = find_octet(buf, hash_i, end, _DOT) + 1
        p = hash_p
        i = hash_i
