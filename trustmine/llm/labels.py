"""Probabilities of a few allowed answers, from the model's next-token distribution.

A label is a sequence of tokens; all labels together are a tree whose inner
nodes are evaluated once. The probability of a label is that of an answer
which begins with it and does not go on to a longer label: the product of its
tokens' probabilities over the full vocabulary and, if other labels continue
it, of one minus their next tokens' probability. Then the labels are
renormalised among themselves.

A server shows no logits, only the likeliest candidates for the next token as
texts: `score_listed` is the same measure as far as these tell it.
"""

import math
from collections.abc import Generator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Tokens = tuple[int, ...]
Listing = Sequence[tuple[str, float]]  # candidates for the next token: text, natural-log probability


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


class NotListed(Exception):
    """No label is among the candidates for the first token: the model says something else."""


def score_listed(labels: Sequence[str], can_continue: bool) -> Generator[str, Listing, dict[str, float]]:
    """Natural-log probability of each label from listed candidates; the probabilities sum to 1.

    Yields the beginning of an answer ("" first) and is sent the candidates
    that follow it. Approximations, where score_labels would know:

    - a label's next token is the longest candidate that the label goes on
      with, for the tokenizer is not known (at the beginning also after a
      space, where labels are likelier so);
    - a label whose token is not listed gets the least probability listed, an
      upper bound, and is not followed further;
    - unless the server goes on with a given beginning (`can_continue`), only
      the first token at which labels part is looked at, and what follows it
      counts as certain: an upper bound too.

    Labels must differ, at their first token where the server cannot go on:
    else ValueError. Raises NotListed where no label is found at the beginning.
    """
    if not all(labels) or len(set(labels)) != len(labels):
        raise ValueError(f"labels must differ: {list(labels)}")
    scores: dict[str, float] = {}
    todo: list[tuple[str, float, tuple[str, ...]]] = [("", 0.0, tuple(labels))]
    while todo:
        path, log_p, group = todo.pop()
        if group == (path,):
            scores[path] = log_p
            continue
        if path and not can_continue:
            if len(group) > 1:
                raise ValueError(f"the server cannot tell labels apart that begin alike: {list(group)}")
            scores[group[0]] = log_p
            continue
        logprobs: Mapping[str, float] = dict((yield path))
        longer = [label for label in group if label != path]
        least = min(logprobs.values(), default=0.0)
        if not path:
            logprobs = _beginnings(labels, logprobs)
        elif not logprobs:
            raise NotListed("lists no candidates")
        nexts = {label: _next(label[len(path) :], logprobs) for label in longer}
        tokens = {token for token in nexts.values() if token}
        if path in group:
            goes_on = min(sum(math.exp(logprobs[token]) for token in tokens), 1.0)
            scores[path] = log_p + (math.log1p(-goes_on) if goes_on < 1.0 else -math.inf)
        for token in sorted(tokens):
            below = tuple(label for label in longer if nexts[label] == token)
            todo.append((path + token, log_p + logprobs[token], below))
        scores |= {label: log_p + least for label in longer if not nexts[label]}
    total = _log_sum(list(scores.values()))
    return {label: scores[label] - total for label in labels}


def _beginnings(labels: Sequence[str], logprobs: Mapping[str, float]) -> Mapping[str, float]:
    """The candidates for an answer's first token, without the space before it where labels are likelier with one."""
    spaced = {text[1:]: logprob for text, logprob in logprobs.items() if text.startswith(" ")}

    def found(among: Mapping[str, float]) -> float:
        return math.fsum(math.exp(among[text]) for text in {_next(label, among) for label in labels} if text)

    if not logprobs:
        raise NotListed("lists no candidates")
    best = max((logprobs, spaced), key=found)
    if not any(_next(label, best) for label in labels):
        likeliest = sorted(logprobs, key=logprobs.__getitem__, reverse=True)[:3]
        raise NotListed(f"begins with none of the labels but with {', '.join(ascii(text[:20]) for text in likeliest)}")
    return best


def _next(rest: str, logprobs: Mapping[str, float]) -> str:
    """The longest candidate that `rest` begins with; '' if there is none."""
    return max((text for text in logprobs if text and rest.startswith(text)), key=len, default="")


def _log_sum(logs: Sequence[float]) -> float:
    highest = max(logs)
    return highest + math.log(sum(math.exp(log - highest) for log in logs))
