"""Near-copies among many texts: MinHash finds candidates, their shingles decide.

A shingle is a run of five tokens of code. Two texts are as similar as their
sets of shingles are: Jaccard, what both have over what either has. MinHash
(Broder 1997) with locality-sensitive hashing finds the pairs that are worth
comparing; a pair at the threshold is missed once in a thousand or less often,
and every pair that is reported was compared in full. No random number is
drawn: the same texts give the same pairs on any machine.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

SHINGLE = 5
PERMUTATIONS = 128
_MAX_MISSED = 0.001
_TOKEN = re.compile(rb"[A-Za-z_]\w*|[0-9][\w.]*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[^\s\w]")
Hashes = NDArray[np.uint64]


def tokens(code: bytes) -> list[bytes]:
    """Names, numbers, literals and single signs."""
    return _TOKEN.findall(code)


def shingles(words: Sequence[bytes]) -> Hashes:
    """Hashes of all runs of five tokens, each once, in ascending order; of a shorter text its own one."""
    seen: dict[bytes, int] = {}
    for word in words:
        if word not in seen:
            seen[word] = _hash(word)
    values = np.array([seen[word] for word in words], dtype=np.uint64)
    size = min(SHINGLE, len(values))
    total = np.zeros(len(values) - size + 1, dtype=np.uint64)
    for place in range(size):
        total = total * np.uint64(0x9E3779B97F4A7C15) + values[place : len(values) - size + 1 + place]
    return np.unique(total)


def jaccard(one: Hashes, other: Hashes) -> float:
    """What both sets have over what either has; 1 for two empty ones."""
    both = np.intersect1d(one, other, assume_unique=True).size
    either = one.size + other.size - both
    return both / either if either else 1.0


def near(
    sets: Sequence[Hashes],
    threshold: float,
    sides: Sequence[Collection[str]],
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Iterator[tuple[int, int, float]]:
    """(i, j, similarity) of every pair i < j whose similarity is the threshold or more.

    Only pairs that lie on different sides are looked at: `sides` says where each text is.
    `progress` is told texts prepared, which takes most of the time, and how many there are.
    """
    rows = _rows_per_band(threshold)
    signatures = []
    for one in sets:
        signatures.append(_signature(one))
        progress(len(signatures), len(sets))
    seen: set[tuple[int, int]] = set()
    for band in range(PERMUTATIONS // rows):
        buckets: dict[bytes, list[int]] = {}
        for number, signature in enumerate(signatures):
            if signature is not None:
                buckets.setdefault(signature[band * rows : (band + 1) * rows].tobytes(), []).append(number)
        for bucket in buckets.values():
            for pair in _across(bucket, sides):
                if pair not in seen:
                    seen.add(pair)
                    similarity = jaccard(sets[pair[0]], sets[pair[1]])
                    if similarity >= threshold:
                        yield *pair, similarity


def _across(bucket: Sequence[int], sides: Sequence[Collection[str]]) -> Iterator[tuple[int, int]]:
    """The pairs in a bucket that lie on different sides, smaller number first; one may come twice."""
    members: dict[str, list[int]] = {}
    for number in bucket:
        for side in sides[number]:
            members.setdefault(side, []).append(number)
    for one, other in combinations(members.values(), 2):
        yield from ((min(pair), max(pair)) for pair in product(one, other) if pair[0] != pair[1])


def _rows_per_band(threshold: float) -> int:
    """As many as keep the share of pairs that are missed at the threshold in bounds: more rows, fewer candidates."""
    fitting = [rows for rows in (1, 2, 4, 8, 16, 32) if (1 - threshold**rows) ** (PERMUTATIONS // rows) <= _MAX_MISSED]
    return max(fitting, default=1)


def _signature(values: Hashes) -> Hashes | None:
    if not values.size:
        return None
    return np.array([np.min(values * factor + summand) for factor, summand in _FUNCTIONS], dtype=np.uint64)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _functions() -> Iterable[tuple[np.uint64, np.uint64]]:
    """Multiply and add modulo 2^64; factors are odd."""
    for number in range(PERMUTATIONS):
        yield np.uint64(_hash(b"a%d" % number) | 1), np.uint64(_hash(b"b%d" % number))


_FUNCTIONS = tuple(_functions())
