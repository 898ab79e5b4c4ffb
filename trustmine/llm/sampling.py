"""Chooses the tokens of an answer: greedy or drawn at a temperature, within a grammar if there is one.

Control tokens other than those that end an answer are never chosen.
"""

import ctypes

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from trustmine.llm.gguf import Model
from trustmine.records import Request

# Candidates shown to a grammar before the whole vocabulary is: of 49,152
# tokens it takes 3 to 8 ms, of 64 about 0.1 ms (2 cores).
_SHORTLIST = 64
_REPEAT_WINDOW = 64  # generated tokens that a repetition penalty looks at; llama.cpp's default

# llama_token_data, see llama.h.
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Sampler:
    """Chooses the tokens of one answer: greedy, or drawn at a temperature, within a grammar if there is one."""

    def __init__(self, model: Model, request: Request) -> None:
        self._barred = model.barred
        self._penalty = request.repeat_penalty
        self._n_vocab = model.n_vocab
        self._grammar = None if request.grammar is None else model.grammar_sampler(request.grammar)
        self._draw = None
        if request.temperature > 0:
            self._draw = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
            temperature = llama_cpp.llama_sampler_init_temp(request.temperature)
            llama_cpp.llama_sampler_chain_add(self._draw, temperature)
            # llama.cpp takes seeds of 32 bits, the highest of which asks for a random one.
            dist = llama_cpp.llama_sampler_init_dist(request.seed % 0xFFFFFFFF)
            llama_cpp.llama_sampler_chain_add(self._draw, dist)

    def choose(self, logits: NDArray[np.float32], generated: list[int]) -> int:
        """The next token after those generated; the grammar moves on by it."""
        if self._penalty != 1.0 and generated:
            _penalise(logits, generated[-_REPEAT_WINDOW:], self._penalty)
        logits[self._barred] = -np.inf
        token = self._greedy(logits) if self._draw is None else self._drawn(logits)
        if self._grammar is not None:
            llama_cpp.llama_sampler_accept(self._grammar, token)
        return token

    def free(self) -> None:
        for sampler in (self._grammar, self._draw):
            if sampler is not None:
                llama_cpp.llama_sampler_free(sampler)

    def _greedy(self, logits: NDArray[np.float32]) -> int:
        best = int(logits.argmax())
        if self._grammar is None or len(self._allowed(np.array([best]), logits[[best]])):
            return best
        # The best of the shortlist that the grammar allows is the best of all
        # that it allows, so that the whole vocabulary is seldom looked at.
        if self._n_vocab > _SHORTLIST:
            shortlist = np.sort(np.argpartition(logits, -_SHORTLIST)[-_SHORTLIST:])
            allowed = self._allowed(shortlist, logits[shortlist])
            if len(allowed):
                return int(allowed["id"][allowed["logit"].argmax()])
        allowed = self._allowed(np.arange(self._n_vocab), logits)
        if not len(allowed):
            raise RuntimeError("the grammar allows no token of the vocabulary")
        return int(allowed["id"][allowed["logit"].argmax()])

    def _drawn(self, logits: NDArray[np.float32]) -> int:
        tokens = np.arange(self._n_vocab)
        candidates = self._allowed(tokens, logits) if self._grammar is not None else _candidates(tokens, logits)
        array = _as_array(candidates)
        llama_cpp.llama_sampler_apply(self._draw, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def _allowed(self, tokens: NDArray[np.int64], logits: NDArray[np.float32]) -> NDArray[np.void]:
        """Those candidates that the grammar lets come next."""
        candidates = _candidates(tokens, logits)
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(_as_array(candidates)))
        return candidates[candidates["logit"] > -np.inf]


def _penalise(logits: NDArray[np.float32], recent: list[int], penalty: float) -> None:
    """Make tokens that came lately less likely, as llama.cpp's repetition penalty does (Keskar et al. 2019)."""
    tokens = np.unique(np.array(recent))
    logits[tokens] = np.where(logits[tokens] > 0, logits[tokens] / penalty, logits[tokens] * penalty)


def _candidates(tokens: NDArray[np.int64], logits: NDArray[np.float32]) -> NDArray[np.void]:
    candidates = np.zeros(len(tokens), _CANDIDATE)
    candidates["id"], candidates["logit"] = tokens, logits
    return candidates


def _as_array(candidates: NDArray[np.void]) -> llama_cpp.llama_token_data_array:
    """llama.cpp's view of the candidates, which must outlive it."""
    data = candidates.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
    return llama_cpp.llama_token_data_array(data, len(candidates), -1, False)
