import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trustmine.llm.labels import Logits, NotListed, Tokens, log_softmax, score_labels, score_listed

N_VOCAB = 5


def logits_after(tokens: Tokens) -> NDArray[np.float32]:
    """A made-up language of five tokens, different after every prefix."""
    return np.random.default_rng([1, *(token + 2 for token in tokens)]).normal(0, 2, N_VOCAB).astype(np.float32)


def scores_of(labels: dict[str, Tokens], logits: Callable[[Tokens], Logits] = logits_after) -> dict[str, float]:
    """What score_labels gives when it is told the logits that it asks for."""
    scoring = score_labels(labels)
    path = next(scoring)
    while True:
        try:
            path = scoring.send(logits(path))
        except StopIteration as stop:
            return dict(stop.value)


def probability(tokens: Tokens) -> float:
    """Of a text that begins with these tokens."""
    p = 1.0
    for n, token in enumerate(tokens):
        p *= float(np.exp(log_softmax(logits_after(tokens[:n])))[token])
    return p


def test_log_softmax_sums_to_one_for_any_logits() -> None:
    logits = np.array([1e4, -np.inf, 9.99e3, 0], dtype=np.float32)
    logprobs = log_softmax(logits)
    assert np.exp(logprobs).sum() == pytest.approx(1)
    assert logprobs[0] == pytest.approx(math.log(1 / (1 + math.exp(-10))))


def test_labels_of_several_tokens_are_products_over_the_full_vocabulary() -> None:
    labels = {"a": (0,), "b": (1, 2), "c": (1, 3, 4), "d": (2, 2)}
    wanted = {label: probability(tokens) for label, tokens in labels.items()}
    scores = scores_of(labels)
    for label, p in wanted.items():
        assert math.exp(scores[label]) == pytest.approx(p / sum(wanted.values()))


def test_a_label_that_begins_another_counts_the_texts_that_do_not_go_on_to_it() -> None:
    labels = {"a": (1,), "ab": (1, 2), "abc": (1, 2, 3), "ad": (1, 4), "e": (0,)}
    wanted = dict.fromkeys(labels, 0.0)
    # Every text of three tokens belongs to the longest label that it begins with.
    for tokens in itertools.product(range(N_VOCAB), repeat=3):
        owners = [label for label, begin in labels.items() if tokens[: len(begin)] == begin]
        if owners:
            wanted[max(owners, key=lambda label: len(labels[label]))] += probability(tokens)
    scores = scores_of(labels)
    for label, p in wanted.items():
        assert math.exp(scores[label]) == pytest.approx(p / sum(wanted.values()), rel=1e-5)


def test_inner_nodes_are_evaluated_once_and_leaves_never() -> None:
    asked = []

    def recorded(tokens: Tokens) -> NDArray[np.float32]:
        asked.append(tokens)
        return logits_after(tokens)

    scores_of({"yes": (0,), "no": (1,), "x": (2, 3), "y": (2, 4), "z": (2, 4, 0)}, recorded)
    assert asked == [(), (2,), (2, 4)]


@pytest.mark.parametrize("labels", [{"a": (1,), "b": (1,)}, {"a": ()}])
def test_labels_that_cannot_be_told_apart_are_refused(labels: dict[str, Tokens]) -> None:
    with pytest.raises(ValueError, match="differ"):
        scores_of(labels)


# ------------------------------------------------------------------- listed candidates

YES_NO = ("yes", "no", "cannot decide")
Scores = tuple[dict[str, float], list[str]]


def listed(labels: tuple[str, ...], listings: dict[str, list[tuple[str, float]]], *, can_continue: bool) -> Scores:
    """Probabilities of the labels, and the beginnings that were asked for."""
    asked = []
    scoring = score_listed(labels, can_continue)
    try:
        path = next(scoring)
        while True:
            asked.append(path)
            path = scoring.send([(text, math.log(p)) for text, p in listings[path]])
    except StopIteration as stop:
        return {label: math.exp(score) for label, score in stop.value.items()}, asked


def test_listed_candidates_give_whole_labels_where_the_server_goes_on() -> None:
    listings = {"": [("The", 0.5), ("no", 0.2), ("yes", 0.1), ("cannot", 0.1)], "cannot": [(" decide", 0.5)]}
    scores, asked = listed(YES_NO, listings, can_continue=True)
    assert scores == pytest.approx({"yes": 0.1 / 0.35, "no": 0.2 / 0.35, "cannot decide": 0.05 / 0.35})
    assert asked == ["", "cannot"]


def test_listed_candidates_give_first_tokens_where_it_does_not() -> None:
    listings = {"": [("no", 0.2), ("yes", 0.1), ("cannot", 0.1), ("can", 0.05), ("c", 0.01)]}
    scores, asked = listed(YES_NO, listings, can_continue=False)
    assert scores == pytest.approx({"yes": 0.25, "no": 0.5, "cannot decide": 0.25})
    assert asked == [""]


def test_a_label_that_is_not_listed_has_at_most_the_least_probability_listed() -> None:
    scores, asked = listed(YES_NO, {"": [("yes", 0.6), ("x", 0.3), ("", 0.1)]}, can_continue=True)
    assert scores == pytest.approx({"yes": 0.75, "no": 0.125, "cannot decide": 0.125})
    assert asked == [""]


def test_a_space_before_the_answer_counts_as_nothing_where_labels_are_likelier_after_one() -> None:
    spaced = [(" no", 0.6), (" yes", 0.2), (" cannot", 0.1)]
    assert listed(YES_NO, {"": spaced}, can_continue=False)[0]["no"] == pytest.approx(0.6 / 0.9)
    assert listed(YES_NO, {"": [*spaced, ("yes", 0.05)]}, can_continue=False)[0]["no"] == pytest.approx(0.6 / 0.9)
    bare = [("no", 0.6), ("yes", 0.2), ("cannot", 0.1), (" no", 0.01), (" yes", 0.05)]
    assert listed(YES_NO, {"": bare}, can_continue=False)[0]["no"] == pytest.approx(0.6 / 0.9)


def test_an_answer_that_begins_with_no_label_has_no_probabilities() -> None:
    with pytest.raises(NotListed, match="begins with none of the labels but with 'Okay', '<think>', 'Alright'"):
        listed(YES_NO, {"": [("Alright", 0.1), ("Okay", 0.6), ("<think>", 0.2), ("x" * 99, 0.1)]}, can_continue=True)


def test_listed_labels_that_begin_alike_are_told_apart_by_going_on() -> None:
    listings = {"": [("no", 0.8), ("yes", 0.2)], "no": [(" idea", 0.25), (".", 0.5)]}
    scores, _ = listed(("yes", "no", "no idea"), listings, can_continue=True)
    assert scores == pytest.approx({"yes": 0.2, "no": 0.6, "no idea": 0.2})
    with pytest.raises(ValueError, match="begin alike"):
        listed(("yes", "no", "no idea"), listings, can_continue=False)


@pytest.mark.parametrize("labels", [("a", "a"), ("a", "")])
def test_listed_labels_that_are_the_same_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="differ"):
        listed(labels, {"": [("a", 0.5)]}, can_continue=True)


def test_an_empty_listing_is_refused() -> None:
    with pytest.raises(NotListed, match="no candidates"):
        listed(YES_NO, {"": []}, can_continue=True)


@given(st.integers(0, 2**32))
def test_listings_of_the_whole_vocabulary_give_what_logits_give(seed: int) -> None:
    words = ("a", "b", "c", "d", "e")

    def logprobs_after(path: str) -> NDArray[np.float64]:
        made = np.random.default_rng([seed, *map(ord, path)]).normal(0, 2, len(words)).astype(np.float32)
        return log_softmax(made)

    labels = ("a", "ab", "abc", "ad", "e", "cc")
    tokens = {label: tuple(words.index(letter) for letter in label) for label in labels}
    wanted = scores_of(tokens, lambda path: logprobs_after("".join(words[n] for n in path)).astype(np.float32))
    scoring = score_listed(labels, can_continue=True)
    path = next(scoring)
    with pytest.raises(StopIteration) as done:
        while True:
            path = scoring.send(list(zip(words, map(float, logprobs_after(path)), strict=True)))
    assert done.value.value == pytest.approx(wanted, abs=1e-4)
