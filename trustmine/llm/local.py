"""A GGUF model run in process by llama.cpp: many requests at once.

Continuous batching: each pass over the model evaluates the next token of every
answer being written and, in the room that is left, prompts of requests that
wait. An answered request makes room at once. A request is put where most of
its prompt is cached already: requests that go on from the same evidence, or
share a beginning, evaluate it once.

Same request, model file, engine version, settings and machine: same answer, up
to floating-point noise from what shares the batch and the cache. With
`deterministic` one request is evaluated at a time, in a way that gives the
same bits whatever was cached; that is slower.
"""

import functools
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack

import llama_cpp

from trustmine.errors import ModelError
from trustmine.llm import hashes
from trustmine.llm.base import ContextOverflow, ModelInfo, NoAnswer, Progress
from trustmine.llm.gguf import ENGINE, Model, file_sha256, n_cores, supports_gpu
from trustmine.llm.kvcache import KVCache, Layout, Slot
from trustmine.llm.labels import Logits, score_labels
from trustmine.llm.sampling import Sampler
from trustmine.records import Completion, Request

# Sequences side by side. On 2 cores 8 of 1,200 tokens decode 1.4 times as fast as one (SmolLM2-135M, a busy machine);
# a GPU has room for more, see docs/GPU.md.
_CPU_SLOTS, _GPU_SLOTS = 8, 32
# Of these, how many answer at once: the others keep what the next question about the same commit begins with.
_BUSY_SHARE = 0.75
# Tokens per sequence that a unified cache has room for on average; a prompt about one commit has about 1,200.
_GPU_TOKENS = 2_048
# At most this share of the machine's memory is for the cache.
_MEMORY_SHARE = 0.25
# Tokens handed to llama.cpp at once (GPU: llama.cpp's default). On CPU fewer cost nothing, and answers being written
# wait less.
_CPU_BATCH, _GPU_BATCH = 512, 2_048
# Of these in one pass over the layers (GPU: its default). A pass attends to every cell up to its last token, also
# to those after a token's own place: on CPU passes of half the size read a prompt of 1,400 tokens 7 % faster.
_CPU_UBATCH, _GPU_UBATCH = 256, 512


class LayoutOptions(TypedDict, total=False):
    """What a user may want of a layout; see choose_layout."""

    n_threads: int
    n_sequences: int
    n_batch: int
    n_ubatch: int
    kv_layout: str
    flash_attention: str
    is_deterministic: bool


# What an answer asks for: tokens to evaluate after the first n of prompt and answer. It is sent the logits after them.
_Asked = tuple[int, list[int]]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What became of a request."""

    text: str
    finish_reason: str
    n_tokens: int
    logprobs: dict[str, float] | None = None


_Answering = Generator[_Asked | None, Logits, _Answer]


@dataclass(slots=True)
class _Waiting:
    ticket: int
    request: Request
    prompt: list[int]
    answering: _Answering
    n_needed: int  # tokens after the prompt


@dataclass(slots=True)
class _Running:
    waiting: _Waiting
    slot: Slot
    n_cached: int
    began: float


class LocalEngine:
    """An Engine (llm/base.py) for one model file, made by `open`."""

    def __init__(self, model: Model, info: ModelInfo, layout: Layout) -> None:
        self._model = model
        self._info = info
        self._cache = _cache(model, layout, info.path)
        self._n_busy = max(1, int(self._cache.layout.n_slots * _BUSY_SHARE))
        self._queue: list[_Waiting] = []
        self._running: dict[int, _Running] = {}  # by slot
        self._done: list[tuple[int, Completion | NoAnswer]] = []

    @classmethod
    def open(
        cls,
        model_path: Path,
        *,
        n_ctx: int,
        n_gpu_layers: int = -1,
        known_sha256: str | None = None,
        progress: Progress | None = None,
        **options: Unpack[LayoutOptions],
    ) -> "LocalEngine":
        """Load a GGUF file.

        n_gpu_layers -1 means all that there are; of `options` what is not given
        suits the device (`choose_layout`).
        The context is never larger than the model was trained for. The file is
        hashed, with `progress`, unless its sha256 is known. Raises ModelError.
        """
        try:
            with model_path.open("rb") as file:
                magic = file.read(4)
            stat = model_path.stat()
        except OSError as error:
            hint = "Check --model, or leave it out for the built-in model"
            raise ModelError("Cannot read the model file", f"{model_path}: {error.strerror}", hint) from error
        if magic != b"GGUF":
            hint = "Models must be GGUF files; llama.cpp's convert_hf_to_gguf.py makes them"
            raise ModelError("The model file is not GGUF", str(model_path), hint)
        model = Model(model_path, n_gpu_layers)
        flash = options.get("flash_attention", "auto")
        try:
            info = ModelInfo(
                sha256=known_sha256 or file_sha256(model_path, progress),
                name=model.metadata("general.name") or model_path.name,
                path=str(model_path),
                size_bytes=stat.st_size,
                mtime_ns=stat.st_mtime_ns,
                architecture=model.metadata("general.architecture"),
                n_params=llama_cpp.llama_model_n_params(model.pointer),
                n_ctx_train=model.n_ctx_train,
                # It changes answers, so it is part of what gave them.
                engine=ENGINE if flash == "auto" else f"{ENGINE}, flash attention {flash}",
                n_ctx=min(n_ctx, model.n_ctx_train),
                is_deterministic=options.get("is_deterministic", False),
            )
            layout = choose_layout(
                info.n_ctx,
                model.kv_bytes_per_token,
                on_gpu=supports_gpu() and n_gpu_layers != 0,
                **options,
            )
            return cls(model, info, layout)
        except BaseException:
            model.free()
            raise

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def layout(self) -> Layout:
        """How the cache came to be laid out."""
        return self._cache.layout

    @property
    def capacity(self) -> int:
        # A few wait, so that the next one is there when one is answered.
        return self._n_busy + max(1, self._n_busy // 3) if self._n_busy > 1 else 1

    @property
    def request_hash(self) -> Callable[[Request], str]:
        return functools.partial(hashes.request_hash, info=self._info)

    def submit(self, ticket: int, request: Request) -> None:
        prompt = self._model.tokenise_chat(request)
        labels = self._model.tokenise_labels(request)
        n_needed = max((len(tokens) for tokens in labels.values()), default=request.max_tokens)
        if len(prompt) + n_needed > self._info.n_ctx:
            self._done.append((ticket, ContextOverflow(len(prompt), n_needed, self._info.n_ctx)))
            return
        answering = self._scored(len(prompt), labels) if labels else self._written(len(prompt), request)
        next(answering)  # what is wrong with a request is told here
        self._queue.append(_Waiting(ticket, request, prompt, answering, n_needed))

    def poll(self, timeout_s: float | None = None) -> list[tuple[int, Completion | NoAnswer]]:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._done and (self._queue or self._running):
            self._admit()
            for slot, logits in self._cache.evaluate():
                self._go_on(self._running[slot.number], logits)
            if until is not None and time.monotonic() >= until:
                break
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        self._cache.free()
        self._model.free()

    def _admit(self) -> None:
        """Start requests that wait, those whose evidence is still in the cache first."""
        while self._queue and len(self._running) < self._n_busy:
            waiting = max(self._queue, key=lambda waiting: self._cache.n_cached(waiting.prompt))
            taken = self._cache.take(waiting.request.prompt_name, waiting.prompt, waiting.n_needed)
            if taken is None:
                if not self._running:
                    raise ModelError(
                        "The model's cache is too small for one prompt",
                        f"{len(waiting.prompt)} tokens, {self._cache.layout.n_cells} cells",
                        "Raise n_ctx, or lower n_sequences, in trustmine.toml",
                    )
                return
            slot, n_cached = taken
            self._queue.remove(waiting)
            self._running[slot.number] = _Running(waiting, slot, n_cached, time.perf_counter())

    def _go_on(self, running: _Running, logits: Logits) -> None:
        """Give an answer the logits it waits for; it asks for more, or is complete."""
        try:
            asked = running.waiting.answering.send(logits)
        except StopIteration as stop:
            self._finish(running, stop.value)
            return
        assert asked is not None
        self._cache.want(running.slot, *asked)

    def _finish(self, running: _Running, answer: _Answer) -> None:
        waiting = running.waiting
        del self._running[running.slot.number]
        self._cache.release(running.slot)
        completion = Completion(
            text=answer.text,
            finish_reason=answer.finish_reason,
            label_logprobs=answer.logprobs,
            n_prompt=len(waiting.prompt),
            n_cached=running.n_cached,
            n_completion=answer.n_tokens,
            duration_ms=(time.perf_counter() - running.began) * 1e3,
            request_hash=self.request_hash(waiting.request),
            rendered_hash=hashes.rendered_hash(waiting.request),
        )
        self._done.append((waiting.ticket, completion))

    def _scored(self, n_prompt: int, labels: dict[str, tuple[int, ...]]) -> _Answering:
        """The label probabilities; no text is written."""
        scoring = score_labels(labels)
        next(scoring)
        logits = yield None
        while True:
            try:
                path = scoring.send(logits)
            except StopIteration as stop:
                logprobs: dict[str, float] = stop.value
                return _Answer(max(logprobs, key=logprobs.__getitem__), "label", 0, logprobs)
            logits = yield n_prompt, list(path)

    def _written(self, n_prompt: int, request: Request) -> _Answering:
        """The text, token by token."""
        sampler = Sampler(self._model, request)
        tokens: list[int] = []
        reason = "length"
        try:
            logits = yield None
            while True:
                token = sampler.choose(logits, tokens)
                if token in self._model.end_tokens:
                    reason = "stop"
                    break
                # Only now: an answer of exactly max_tokens may end here.
                if len(tokens) == request.max_tokens:
                    break
                tokens.append(token)
                if n_prompt + len(tokens) >= self._info.n_ctx:
                    break
                logits = yield n_prompt + len(tokens) - 1, [token]
        finally:
            sampler.free()
        return _Answer(self._model.text(tokens), reason, len(tokens))


def choose_layout(
    n_ctx: int,
    kv_bytes_per_token: int,
    *,
    on_gpu: bool,
    n_threads: int = 0,
    n_sequences: int = 0,
    n_batch: int = 0,
    n_ubatch: int = 0,
    kv_layout: str = "auto",
    flash_attention: str = "auto",
    is_deterministic: bool = False,
) -> Layout:
    """What suits the device, but for what is given (0 and "auto": not given)."""
    is_unified = on_gpu if kv_layout == "auto" else kv_layout == "unified"
    n_slots = n_sequences or (_GPU_SLOTS if on_gpu else _CPU_SLOTS)
    if not n_sequences and not on_gpu:
        fitting = int(_MEMORY_SHARE * _memory_bytes() // max(1, kv_bytes_per_token * n_ctx))
        n_slots = max(1, min(n_slots, fitting))
    if is_deterministic:
        n_slots = 1
    n_batch = n_batch or (_GPU_BATCH if on_gpu else _CPU_BATCH)
    return Layout(
        n_ctx=n_ctx,
        n_slots=n_slots,
        n_cells=max(n_ctx, n_slots * min(n_ctx, _GPU_TOKENS)) if is_unified else n_slots * n_ctx,
        is_unified=is_unified,
        n_batch=n_batch,
        n_ubatch=min(n_ubatch or (_GPU_UBATCH if on_gpu else _CPU_UBATCH), n_batch),
        n_threads=n_threads or n_cores(),
        on_gpu=on_gpu,
        flash_attention="off" if flash_attention == "auto" and not on_gpu else flash_attention,
        is_deterministic=is_deterministic,
    )


def _memory_bytes() -> int:
    """Of the machine; without a way to ask, that of a small one."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 8 << 30


def _cache(model: Model, layout: Layout, where: str) -> KVCache:
    """The cache, with fewer sequences if there is no memory for as many."""
    while True:
        try:
            return KVCache(model, layout, where)
        except ModelError:
            if layout.n_slots == 1:
                raise
        n_slots = layout.n_slots // 2
        n_cells = max(layout.n_ctx, layout.n_cells * n_slots // layout.n_slots)
        layout = replace(layout, n_slots=n_slots, n_cells=n_cells)
