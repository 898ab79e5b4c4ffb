import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from trustmine.llm.labels import Logits, Tokens, log_softmax, score_labels

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
