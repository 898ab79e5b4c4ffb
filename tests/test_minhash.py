"""Near-copies are found, all of them, and nothing else is reported."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustmine import minhash

WORDS = [f"w{n}".encode() for n in range(200)]


@given(st.lists(st.lists(st.sampled_from(WORDS[:12]), min_size=5, max_size=30), min_size=2, max_size=12))
def test_every_pair_that_is_reported_is_as_similar_as_stated(texts: list[list[bytes]]) -> None:
    sets = [minhash.shingles(words) for words in texts]
    sides = [{"train"} if n % 2 else {"test", "val"} for n in range(len(texts))]
    plain = [{tuple(words[n : n + 5]) for n in range(len(words) - 4)} for words in texts]
    for i, j, similarity in minhash.near(sets, 0.5, sides):
        assert i < j and similarity == pytest.approx(len(plain[i] & plain[j]) / len(plain[i] | plain[j]))
        assert similarity >= 0.5 and len(sides[i] | sides[j]) > 1


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_no_pair_above_the_threshold_is_missed(threshold: float) -> None:
    texts = []
    for start in range(0, 160, 40):
        base = WORDS[start : start + 40]
        texts += [base, [*base[:20], b"new", *base[20:]], [*base[:30], b"a", b"b", b"c"], base[:25], list(base)]
    sets = [minhash.shingles(words) for words in texts]
    sides = [{"train"} if n % 3 else {"test"} for n in range(len(sets))]
    expected = {
        (i, j)
        for i, j in combinations(range(len(sets)), 2)
        if sides[i] != sides[j] and minhash.jaccard(sets[i], sets[j]) >= threshold
    }
    assert expected and {(i, j) for i, j, _ in minhash.near(sets, threshold, sides)} == expected


def test_tokens_are_those_of_c() -> None:
    assert minhash.tokens(b'if(a->b <= 0x1F) puts("x \\" y");') == [
        *(b"if", b"(", b"a", b"-", b">", b"b", b"<", b"=", b"0x1F", b")", b"puts", b"(", b'"x \\" y"', b")", b";"),
    ]
