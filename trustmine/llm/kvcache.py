"""The KV cache: many sequences side by side, and the evaluation of tokens in them.

A slot is one sequence of the cache. It keeps what it holds when its request is
answered, so that a later prompt which begins alike needs only the rest: in the
same slot, or copied to another one. The beginnings that many prompts share are
kept beside the cache as well, since slots come and go. What is copied is what
was evaluated, never recomputed.

`Layout` says how many slots there are and how they share memory. In a unified
cache, sequences share cells and copies cost nothing, which suits a GPU; on a
CPU every sequence has cells of its own, because attention there reads all
cells of a unified cache for every token. (SmolLM2-135M on 2 cores, 8 sequences
of 1,200 tokens: 135 tokens/s against 87.)
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from trustmine.errors import ModelError
from trustmine.llm.gguf import Model, what_went_wrong

# A beginning that prompts share is worth keeping from this many tokens on.
_MIN_SHARED = 64
# A slot is as good as another if it spares no more tokens than this.
_NEARLY = 16
_MAX_BEGINNINGS = 16
_FLASH_ATTENTION = {
    "auto": llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """How sequences share the cache, chosen for the device; see local.choose_layout."""

    n_ctx: int  # tokens of one sequence
    n_slots: int
    n_cells: int  # tokens of all sequences together
    is_unified: bool
    n_batch: int  # tokens handed to llama.cpp at once
    n_ubatch: int  # of these, in one pass over the layers
    n_threads: int
    on_gpu: bool
    flash_attention: str  # on, off, auto: as llama.cpp decides
    is_deterministic: bool


@dataclass(slots=True)
class Slot:
    """One sequence: what it holds, and what is to be evaluated after that."""

    number: int
    tokens: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    n_sharable: int = 0  # of its first tokens, held or pending, those that another prompt may begin with
    n_reserved: int = 0  # cells that its request may come to need
    used: int = 0  # when it was last taken: the higher the later
    is_busy: bool = False

    def shares(self, prompt: Sequence[int], limit: int, *, soon: bool = False) -> int:
        """How many tokens, at most `limit`, a prompt may take over; `soon`: when what is pending is evaluated."""
        held = self.tokens + self.pending if soon else self.tokens
        return n_common(held, prompt, min(limit, self.n_sharable))


@dataclass(slots=True)
class _Beginning:
    """What the prompts of one kind have begun with so far."""

    tokens: list[int]
    n_seen: int = 0  # prompts that agreed since it last became shorter
    state: bytes | None = None  # of the cache; None: not kept
    used: int = 0


def n_common(a: Sequence[int], b: Sequence[int], limit: int) -> int:
    """How many tokens both begin with, at most `limit`."""
    low, high = 0, min(limit, len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while low < high:  # slices compare fast
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def n_part(n_pending: int, room: int, n_ubatch: int) -> int:
    """How many tokens of a prompt to hand over at once.

    As many as fit, such that none is alone in its pass of `n_ubatch` tokens,
    nor left to come alone, unless passes or batches are too small for that.
    """
    most = min(n_pending, room)
    fitting = range(most, 1, -1)
    return next((n for n in fitting if n % n_ubatch != 1 and n_pending - n != 1), most)


def _most_spared(prompt: Sequence[int]) -> int:
    """Tokens of a prompt that may come from the cache: the last is evaluated for its logits, and not alone."""
    return max(0, len(prompt) - 2)


class KVCache:
    """Slots of one model; see the module docstring."""

    def __init__(self, model: Model, layout: Layout, where: str) -> None:
        """Raises ModelError if llama.cpp makes no context of this layout."""
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = layout.n_cells
        params.n_batch, params.n_ubatch = layout.n_batch, layout.n_ubatch
        params.n_seq_max = layout.n_slots
        params.kv_unified = layout.is_unified
        params.n_threads = params.n_threads_batch = layout.n_threads
        params.swa_full = True  # else sliding-window models forget what a shared prefix needs
        params.no_perf = True
        # On CPU it is a tenth faster, and rounds more: label probabilities were up to 0.1 off those with keys and
        # values of 32 bits, without it up to 0.05 (SmolLM2-135M, prompts of 600 to 800 tokens). So it is off there
        # by default.
        params.flash_attn_type = _FLASH_ATTENTION[layout.flash_attention]
        if layout.is_deterministic and not layout.on_gpu:
            # Kernels for 16 bits round by how many tokens come at once; with these an answer has the same bits,
            # whole or after a cached prefix.
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
            params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
        with what_went_wrong() as said:
            self._pointer = llama_cpp.llama_init_from_model(model.pointer, params)
        if not self._pointer:
            raise ModelError(
                "No context for the model",
                f"{where}: {said[0] if said else 'no reason given'}",
                f"Try a smaller n_ctx than {layout.n_ctx}, or fewer n_sequences, in trustmine.toml",
            )
        self.layout = layout
        self.slots = [Slot(number) for number in range(layout.n_slots)]
        self._memory = llama_cpp.llama_get_memory(self._pointer)
        self._n_vocab = model.n_vocab
        # A recurrent state is of all tokens: none can be taken back, and no part of it copied.
        self._is_recurrent = llama_cpp.llama_model_is_recurrent(model.pointer) or llama_cpp.llama_model_is_hybrid(
            model.pointer
        )
        self._batch = llama_cpp.llama_batch_init(layout.n_batch, 0, 1)
        self._clock = 0
        self._beginnings: dict[str, _Beginning] = {}

    # ------------------------------------------------------------------ taking a slot

    def n_cached(self, prompt: Sequence[int]) -> int:
        """How many tokens of the prompt an idle slot holds that no other one could give."""
        limit = _most_spared(prompt)
        shared = sorted((slot.shares(prompt, limit) for slot in self.slots if not slot.is_busy), reverse=True)
        return shared[0] - shared[1] if len(shared) > 1 else 0

    def take(self, kind: str, prompt: list[int], n_more: int) -> tuple[Slot, int] | None:
        """An idle slot for a prompt, its last token and what is not cached yet pending; with the tokens spared.

        None: wait, since no slot or no room is left, or since a slot is just
        evaluating what this prompt could share. `n_more` tokens may follow.
        `kind` names prompts that begin alike.
        """
        idle = [slot for slot in self.slots if not slot.is_busy]
        if not idle or not self._has_room(len(prompt) + n_more):
            return None
        limit = _most_spared(prompt)
        spared = {slot.number: slot.shares(prompt, limit) for slot in self.slots}
        kept = max(self._beginnings.values(), key=lambda b: self._worth(b, prompt, limit), default=None)
        n_kept = 0 if kept is None else self._worth(kept, prompt, limit)
        best = max(*spared.values(), n_kept)
        soon = max((slot.shares(prompt, limit, soon=True) for slot in self.slots if slot.pending), default=0)
        if soon >= best + _MIN_SHARED:
            return None
        if self.layout.is_deterministic and self.layout.on_gpu:
            best = 0  # what was cached may have been evaluated in another company
        near = [slot for slot in idle if spared[slot.number] >= best - _NEARLY]
        slot = min(near or idle, key=lambda slot: slot.used)
        if near:
            n = self._cut(slot, min(spared[slot.number], best))
        elif n_kept == best and kept is not None and kept.state is not None:
            n = self._restore(slot, kept, best)
        else:
            donor = max(self.slots, key=lambda slot: spared[slot.number])
            n = self._copy(donor, slot, best)
        self._clock += 1
        slot.is_busy, slot.used, slot.n_reserved = True, self._clock, len(prompt) + n_more
        self._learn(kind, prompt, slot)
        slot.pending = prompt[n:]
        # On CPU a token that was written came alone, and is rounded in another way than the same one in a prompt.
        slot.n_sharable = len(prompt) + n_more if self.layout.on_gpu else len(prompt)
        return slot, n

    def want(self, slot: Slot, n_kept: int, tokens: list[int]) -> None:
        """Have the slot evaluate `tokens` after the first `n_kept` that it holds."""
        kept = slot.tokens[:n_kept]
        n = self._cut(slot, n_kept)
        slot.pending = kept[n:] + tokens

    def release(self, slot: Slot) -> None:
        """The request is answered; what the slot holds may serve the next one."""
        slot.is_busy, slot.pending, slot.n_reserved = False, [], 0

    def _has_room(self, n_needed: int) -> bool:
        """Whether the cells suffice, after idle slots, longest unused first, have given theirs up."""
        if not self.layout.is_unified:
            return True
        taken = n_needed + sum(max(slot.n_reserved, len(slot.tokens)) for slot in self.slots)
        for slot in sorted(self.slots, key=lambda slot: slot.used):
            if taken > self.layout.n_cells and not slot.is_busy:
                taken -= len(slot.tokens)
                self._cut(slot, 0)
        return taken <= self.layout.n_cells

    # --------------------------------------------------------------- shared beginnings

    def _worth(self, beginning: _Beginning, prompt: list[int], limit: int) -> int:
        return 0 if beginning.state is None else n_common(beginning.tokens, prompt, limit)

    def _learn(self, kind: str, prompt: list[int], slot: Slot) -> None:
        """Note how prompts of a kind begin; keep it once that is clear and the slot holds just that."""
        self._clock += 1
        known = self._beginnings.setdefault(kind, _Beginning(list(prompt)))
        known.used = self._clock
        n = n_common(known.tokens, prompt, len(prompt) - 1)
        if n < len(known.tokens):
            known.tokens, known.n_seen, known.state = known.tokens[:n], 0, None
        known.n_seen += 1
        is_kept = any(self._worth(b, known.tokens, n) >= n - _NEARLY for b in self._beginnings.values())
        holds_it = n - _NEARLY <= len(slot.tokens) <= n
        if n >= _MIN_SHARED and known.n_seen > 1 and holds_it and not is_kept and len(self.slots) > 1:
            known.state, known.tokens = self._state(slot), list(slot.tokens)
            kept = sorted((b for b in self._beginnings.values() if b.state is not None), key=lambda b: b.used)
            for old in kept[:-_MAX_BEGINNINGS]:
                old.state = None

    def _state(self, slot: Slot) -> bytes:
        size = llama_cpp.llama_state_seq_get_size(self._pointer, slot.number)
        buffer = (ctypes.c_uint8 * size)()
        n = llama_cpp.llama_state_seq_get_data(self._pointer, buffer, size, slot.number)
        return bytes(buffer[:n]) if n != size else bytes(buffer)

    def _set_state(self, slot: Slot, state: bytes, tokens: list[int], n: int) -> int:
        self._cut(slot, 0)
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if llama_cpp.llama_state_seq_set_data(self._pointer, buffer, len(state), slot.number) == 0:
            self._cut(slot, 0)  # no room for it: evaluated anew
            return 0
        slot.tokens = list(tokens)
        return self._cut(slot, n)

    def _restore(self, slot: Slot, beginning: _Beginning, n: int) -> int:
        assert beginning.state is not None
        return self._set_state(slot, beginning.state, beginning.tokens, n)

    def _copy(self, donor: Slot, slot: Slot, n: int) -> int:
        """Give a slot the first n tokens of another one; how many it then holds."""
        if n < _MIN_SHARED:
            return self._cut(slot, 0)
        if not self.layout.is_unified:
            return self._set_state(slot, self._state(donor), donor.tokens, n)
        self._cut(slot, 0)
        if self._is_recurrent and n < len(donor.tokens):
            return 0
        llama_cpp.llama_memory_seq_cp(self._memory, donor.number, slot.number, 0, n)
        slot.tokens = donor.tokens[:n]
        return n

    def _cut(self, slot: Slot, n: int) -> int:
        """Drop all but the first n tokens of a slot; how many are left."""
        # Recurrent models cannot go back: they begin anew.
        if n < len(slot.tokens) and not llama_cpp.llama_memory_seq_rm(self._memory, slot.number, n, -1):
            llama_cpp.llama_memory_seq_rm(self._memory, slot.number, -1, -1)
            n = 0
        del slot.tokens[n:]
        return len(slot.tokens)

    # ---------------------------------------------------------------------- evaluation

    def evaluate(self) -> list[tuple[Slot, NDArray[np.float32]]]:
        """One pass over pending tokens: slots that have none left, with the logits after their last one.

        Logits over the full vocabulary, a copy. Slots that write go first:
        they go on while others are filled.
        """
        waiting = sorted((s for s in self.slots if s.pending), key=lambda s: (len(s.pending) > 1, s.used))
        if self.layout.on_gpu and not self.layout.is_deterministic:
            return self._decode(waiting)
        # On CPU a token that comes alone is rounded in another way than one among others of its sequence, and passes
        # of several sequences begin with one token of each. So prompts are filled one at a time: no slower, and the
        # same prompt has the same bits, whatever else is evaluated.
        writing = [slot for slot in waiting if len(slot.pending) == 1]
        filling = [slot for slot in waiting if len(slot.pending) > 1]
        done = self._decode(writing) if writing else []
        return done + self._decode(filling[:1]) if filling else done

    def _decode(self, slots: Sequence[Slot]) -> list[tuple[Slot, NDArray[np.float32]]]:
        """Evaluate pending tokens of these slots, as many as fit in one batch; see evaluate."""
        batch, room = self._batch, self.layout.n_batch
        parts: list[tuple[Slot, list[int]]] = []
        finished: list[tuple[Slot, int]] = []
        batch.n_tokens = 0
        for slot in slots:
            n = n_part(len(slot.pending), room, self.layout.n_ubatch)
            if n == 0:
                break
            part = slot.pending[:n]
            room -= n
            parts.append((slot, part))
            for place, token in enumerate(part):
                at = batch.n_tokens
                batch.token[at] = token
                batch.pos[at] = len(slot.tokens) + place
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = slot.number
                batch.logits[at] = False
                batch.n_tokens += 1
            if n == len(slot.pending):
                batch.logits[batch.n_tokens - 1] = True
                finished.append((slot, batch.n_tokens - 1))
        with what_went_wrong() as said:
            status = llama_cpp.llama_decode(self._pointer, batch)
        if status != 0:
            for slot in self.slots:
                self._cut(slot, 0)
            why = f": {said[0]}" if said else ""
            raise RuntimeError(f"llama_decode: {status} with {batch.n_tokens} tokens of {len(parts)} sequences{why}")
        for slot, part in parts:
            slot.tokens.extend(part)
            slot.pending = slot.pending[len(part) :]
        return [(slot, self._logits(at)) for slot, at in finished]

    def _logits(self, at: int) -> NDArray[np.float32]:
        logits = llama_cpp.llama_get_logits_ith(self._pointer, at)
        return np.ctypeslib.as_array(logits, shape=(self._n_vocab,)).copy()

    def free(self) -> None:
        if self._pointer:
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self._pointer)
            self._pointer = None
