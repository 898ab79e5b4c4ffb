"""Probabilities of a few allowed answers, from the model's next-token distribution.

A label is a sequence of tokens; all labels together are a tree whose inner
nodes are evaluated once. The probability of a label is that of an answer
which begins with it and does not go on to a longer label: the product of its
tokens' probabilities over the full vocabulary and, if other labels continue
it, of one minus their next tokens' probability. Then the labels are
renormalised among themselves.
"""

import math
from collections.abc import Generator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Tokens = tuple[int, ...]


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Natural-log probabilities over the full vocabulary."""
    shifted = logits.astype(np.float64) - float(logits.max())
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return normalised


Logits = NDArray[np.float32]
Scoring = Generator[Tokens, Logits, dict[str, float]]


def score_labels(labels: Mapping[str, Tokens]) -> Scoring:
    """Natural-log probability of each label; the probabilities sum to 1.

    Yields tokens and wants to be sent the logits that follow the prompt and
    these tokens; once per inner node, parents before children, so () first.
    Labels must have tokens, and different ones: else ValueError.
    """
    if not all(labels.values()) or len(set(labels.values())) != len(labels):
        raise ValueError(f"labels must differ in their tokens: {list(labels)}")
    scores: dict[str, float] = {}
    yield from _descend((), 0.0, labels, scores)
    total = _log_sum(list(scores.values()))
    return {label: scores[label] - total for label in labels}


def _descend(
    path: Tokens, log_p: float, labels: Mapping[str, Tokens], scores: dict[str, float]
) -> Generator[Tokens, Logits, None]:
    """Score the labels, all of which begin with `path`, which has log probability `log_p`."""
    here = [label for label, tokens in labels.items() if tokens == path]
    longer = {label: tokens for label, tokens in labels.items() if len(tokens) > len(path)}
    if not longer:
        scores[here[0]] = log_p
        return
    logprobs = log_softmax((yield path))
    nexts = list(dict.fromkeys(tokens[len(path)] for tokens in longer.values()))
    if here:
        goes_on = min(float(np.exp(logprobs[nexts]).sum()), 1.0)
        scores[here[0]] = log_p + (math.log1p(-goes_on) if goes_on < 1.0 else -math.inf)
    for token in nexts:
        below = {label: tokens for label, tokens in longer.items() if tokens[len(path)] == token}
        yield from _descend((*path, token), log_p + float(logprobs[token]), below, scores)


def _log_sum(logs: Sequence[float]) -> float:
    highest = max(logs)
    return highest + math.log(sum(math.exp(log - highest) for log in logs))
