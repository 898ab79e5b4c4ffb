"""A GGUF model run in process by llama.cpp; the only user of llama_cpp.

One sequence at a time: what the KV cache holds of the previous request is
kept as far as the next one begins with the same tokens. Everything is built
on llama.cpp's C interface, so that evaluation, label scoring and sampling are
steps of their own.

Answers depend on the request, the model file, the engine's version and the
context size alone: on CPU what was cached changes nothing, on a GPU nothing
but floating-point noise. While text is generated, control tokens other than those that end it are never
chosen. llama.cpp's messages go to the logger `trustmine.llm.llama_cpp`, never
to stderr.
"""

import ctypes
import hashlib
import json
import logging
import os
import time
from collections import deque
from pathlib import Path

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from trustmine.errors import ModelError
from trustmine.llm import chat
from trustmine.llm.base import ContextOverflow, ModelInfo, Progress
from trustmine.llm.labels import score_labels
from trustmine.records import Completion, Request

ENGINE = f"llama-cpp-python {llama_cpp.__version__}"

# Tokens handed to llama.cpp at once, and of these in one pass over the layers.
# llama.cpp's defaults: with SmolLM2-135M on 2 cores 2048 at once prefill no faster than 512.
_N_BATCH, _N_UBATCH = 2048, 512
# Candidates shown to a grammar before the whole vocabulary is: of 49,152
# tokens it takes 3 to 8 ms, of 64 about 0.1 ms (2 cores).
_SHORTLIST = 64
_REPEAT_WINDOW = 64  # generated tokens that a repetition penalty looks at; llama.cpp's default
_CHUNK_BYTES = 1 << 20

_log = logging.getLogger("trustmine.llm.llama_cpp")
_errors: list[str] | None = None  # while a model is opened: what llama.cpp said went wrong
_GGML_WARN, _GGML_ERROR = 3, 4


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _user_data: object) -> None:
    line = text.decode("utf-8", "replace").rstrip()
    if level == _GGML_ERROR and _errors is not None:
        _errors.append(line)
    elif line:
        _log.log({_GGML_WARN: logging.INFO, _GGML_ERROR: logging.ERROR}.get(level, logging.DEBUG), "%s", line)


def supports_gpu() -> bool:
    """Whether this build of llama.cpp can put layers on a GPU."""
    return bool(llama_cpp.llama_supports_gpu_offload())


def n_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def file_sha256(path: Path, progress: Progress | None = None) -> str:
    """sha256 of a file, read in chunks."""
    digest, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, size)
    return digest.hexdigest()


class LocalEngine:
    """An Engine (llm/base.py) for one model file, made by `open`."""

    capacity = 1

    def __init__(self, model: "_Model", info: ModelInfo, n_threads: int, on_gpu: bool) -> None:
        self._model = model
        self._info = info
        self._queue: deque[tuple[int, Request]] = deque()
        self._context = _Context(model, info.n_ctx, n_threads, on_gpu, info.path)

    @classmethod
    def open(
        cls,
        model_path: Path,
        *,
        n_ctx: int,
        n_gpu_layers: int = -1,
        n_threads: int = 0,
        known_sha256: str | None = None,
        progress: Progress | None = None,
    ) -> "LocalEngine":
        """Load a GGUF file; n_threads 0 means one per core, n_gpu_layers -1 all that there are.

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
        model = _Model(model_path, n_gpu_layers)
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
                engine=ENGINE,
                n_ctx=min(n_ctx, model.n_ctx_train),
            )
            return cls(model, info, n_threads or n_cores(), supports_gpu() and n_gpu_layers != 0)
        except BaseException:
            model.free()
            raise

    @property
    def info(self) -> ModelInfo:
        return self._info

    def request_hash(self, request: Request) -> str:
        return _sha256_of(
            {
                "rendered": rendered_hash(request),
                "labels": request.labels,
                "grammar": request.grammar,
                "max_tokens": request.max_tokens,
                "temperature": request.temperature,
                "repeat_penalty": request.repeat_penalty,
                "seed": request.seed,
                "model": self._info.sha256,
                "engine": self._info.engine,
                "chat": chat.VERSION,
                "n_ctx": self._info.n_ctx,
            }
        )

    def submit(self, ticket: int, request: Request) -> None:
        self._queue.append((ticket, request))

    def poll(self) -> list[tuple[int, Completion | ContextOverflow]]:
        if not self._queue:
            return []
        ticket, request = self._queue.popleft()
        return [(ticket, self._answer(request))]

    def close(self) -> None:
        self._context.free()
        self._model.free()

    def _answer(self, request: Request) -> Completion | ContextOverflow:
        began = time.perf_counter()
        prompt = self._model.tokenise_chat(request)
        labels = {label: tuple(self._model.tokenise_text(label)) for label in request.labels}
        n_needed = max((len(tokens) for tokens in labels.values()), default=request.max_tokens)
        if len(prompt) + n_needed > self._info.n_ctx:
            return ContextOverflow(len(prompt), n_needed, self._info.n_ctx)
        n_cached = self._context.n_shared(prompt)
        logprobs: dict[str, float] | None = None
        if labels:
            logprobs = score_labels(labels, lambda tokens: self._context.logits_after([*prompt, *tokens]))
            text, finish_reason, n_completion = max(logprobs, key=logprobs.__getitem__), "label", 0
        else:
            tokens, finish_reason = self._generate(prompt, request)
            text, n_completion = self._model.text(tokens), len(tokens)
        return Completion(
            text=text,
            finish_reason=finish_reason,
            label_logprobs=logprobs,
            n_prompt=len(prompt),
            n_cached=n_cached,
            n_completion=n_completion,
            duration_ms=(time.perf_counter() - began) * 1e3,
            request_hash=self.request_hash(request),
            rendered_hash=rendered_hash(request),
        )

    def _generate(self, prompt: list[int], request: Request) -> tuple[list[int], str]:
        """Tokens of the answer, without the one that ends it, and the finish reason."""
        sampler = _Sampler(self._model, request)
        generated: list[int] = []
        try:
            while True:
                token = sampler.choose(self._context.logits_after([*prompt, *generated]), generated)
                if token in self._model.end_tokens:
                    return generated, "stop"
                # Only now: an answer of exactly max_tokens may end here.
                if len(generated) == request.max_tokens:
                    return generated, "length"
                generated.append(token)
                if len(prompt) + len(generated) >= self._info.n_ctx:
                    return generated, "length"
        finally:
            sampler.free()


def rendered_hash(request: Request) -> str:
    """sha256 of the messages as filled in."""
    return _sha256_of([[message.role, message.content] for message in request.messages])


def _sha256_of(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


class _Model:
    """A loaded model with its vocabulary and chat template."""

    def __init__(self, path: Path, n_gpu_layers: int) -> None:
        global _errors
        llama_cpp.llama_log_set(_on_log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        _errors = []
        try:
            self.pointer = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
            said = _errors
        finally:
            _errors = None
        if not self.pointer:
            raise _cannot_load(path, said)
        try:
            self._read(path)
        except BaseException:
            self.free()
            raise

    def _read(self, path: Path) -> None:
        self._vocab = llama_cpp.llama_model_get_vocab(self.pointer)
        self.n_vocab: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.n_ctx_train: int = llama_cpp.llama_model_n_ctx_train(self.pointer)
        source = llama_cpp.llama_model_chat_template(self.pointer, None)
        if not source:
            hint = "Choose a GGUF file of an instruction-tuned model"
            raise ModelError("The model has no chat template", str(path), hint)
        self._bos: int = llama_cpp.llama_vocab_bos(self._vocab)
        eos: int = llama_cpp.llama_vocab_eos(self._vocab)
        self._template = chat.ChatTemplate(
            source.decode("utf-8"), self._spelling(self._bos), self._spelling(eos), str(path)
        )
        attributes = [llama_cpp.llama_vocab_get_attr(self._vocab, token) for token in range(self.n_vocab)]
        control = [t for t, attribute in enumerate(attributes) if attribute & llama_cpp.LLAMA_TOKEN_ATTR_CONTROL]
        defined = [t for t, attribute in enumerate(attributes) if attribute & llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED]
        self.specials = {self._spelling(token): token for token in control}
        self._structural = [word for word in map(self._spelling, defined) if word in self._template.skeleton]
        self.end_tokens = {t for t in range(self.n_vocab) if llama_cpp.llama_vocab_is_eog(self._vocab, t)}
        #: Tokens that are never generated.
        self.barred = np.array(sorted(set(control) - self.end_tokens), dtype=np.int64)

    def metadata(self, key: str) -> str:
        """A value of the GGUF header; '' if there is none."""
        buffer = ctypes.create_string_buffer(512)
        n = llama_cpp.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if n >= 0 else ""

    def tokenise_chat(self, request: Request) -> list[int]:
        """The messages as the model's chat template puts them, with one BOS if the model wants one."""
        pieces = self._template.render(request.messages)
        ids = chat.tokenise(pieces, self.specials, self._structural, self.tokenise_text)
        if llama_cpp.llama_vocab_get_add_bos(self._vocab) and ids[:1] != [self._bos]:
            ids.insert(0, self._bos)
        return ids

    def tokenise_text(self, text: str) -> list[int]:
        """Token ids of plain text, which holds no control tokens."""
        encoded = text.encode("utf-8", "replace")
        # At most a token per byte, and a space that some vocabularies put first.
        room = len(encoded) + 2
        ids = (llama_cpp.llama_token * room)()
        n = llama_cpp.llama_tokenize(self._vocab, encoded, len(encoded), ids, room, False, False)
        if n < 0:
            raise RuntimeError(f"llama_tokenize needs room for {-n} tokens, has {room}")
        return ids[:n]

    def text(self, tokens: list[int]) -> str:
        """The text of generated tokens."""
        buffer = ctypes.create_string_buffer(512)
        parts = []
        for token in tokens:
            n = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
            if n < 0:
                raise RuntimeError(f"token {token} has a text of {-n} bytes")
            parts.append(buffer.raw[:n])
        return b"".join(parts).decode("utf-8", "replace")

    def grammar_sampler(self, grammar: str) -> object:
        """llama.cpp's sampler of a GBNF grammar; raises ValueError if it is not one."""
        sampler = llama_cpp.llama_sampler_init_grammar(self._vocab, grammar.encode("utf-8"), b"root")
        if not sampler:
            raise ValueError(f"llama.cpp refuses the grammar {grammar[:200]!r}")
        return sampler

    def free(self) -> None:
        if self.pointer:
            llama_cpp.llama_model_free(self.pointer)
            self.pointer = None

    def _spelling(self, token: int) -> str:
        """The token as it is written in templates; '' if there is no such token."""
        text = llama_cpp.llama_vocab_get_text(self._vocab, token) if token >= 0 else None
        return text.decode("utf-8", "replace") if text else ""


def _cannot_load(path: Path, said: list[str]) -> ModelError:
    """What llama.cpp's errors mean for a file that begins as GGUF does."""
    why = next((line for line in said if "error loading model" in line), said[0] if said else "no reason given")
    broken = ("not within the file bounds", "failed to read", "corrupted", "incomplete")
    if any(word in line for line in said for word in broken):
        return ModelError("The model file is truncated or damaged", f"{path}: {why}", "Copy or download it again")
    hint = "Check that it is a text model, that memory suffices, or update llama-cpp-python for new architectures"
    return ModelError("llama.cpp cannot load the model", f"{path}: {why}", hint)


class _Context:
    """The KV cache of one sequence, and the evaluation of tokens in it."""

    def __init__(self, model: _Model, n_ctx: int, n_threads: int, on_gpu: bool, where: str) -> None:
        global _errors
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, min(_N_BATCH, n_ctx), min(_N_UBATCH, n_ctx)
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = n_threads
        params.swa_full = True  # else sliding-window models forget what a shared prefix needs
        params.no_perf = True
        if not on_gpu:
            # On CPU the usual kernels round by how many tokens come at once: one and the same prompt, whole or
            # after a cached prefix, had log-probabilities 0.6 apart (SmolLM2-135M). These two make them equal to
            # the last bit, for about a tenth of the prefill speed.
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
            params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
        _errors = []
        try:
            self._pointer = llama_cpp.llama_init_from_model(model.pointer, params)
            said = _errors
        finally:
            _errors = None
        if not self._pointer:
            why = said[0] if said else "no reason given"
            raise ModelError(
                "No context for the model", f"{where}: {why}", f"Try a smaller n_ctx than {n_ctx} in trustmine.toml"
            )
        self._memory = llama_cpp.llama_get_memory(self._pointer)
        self._n_batch = params.n_batch
        self._n_vocab = model.n_vocab
        self._tokens: list[int] = []  # what the cache holds, in order
        self._batch = llama_cpp.llama_batch_init(self._n_batch, 0, 1)

    def n_shared(self, tokens: list[int]) -> int:
        """How many tokens need no evaluation; the last one always does, for its logits."""
        limit = min(len(self._tokens), len(tokens) - 1)
        n = 0
        while n < limit and self._tokens[n] == tokens[n]:
            n += 1
        return n

    def logits_after(self, tokens: list[int]) -> NDArray[np.float32]:
        """Logits of the token that follows, over the full vocabulary. `tokens` fit in the context."""
        n_kept = self.n_shared(tokens)
        # Recurrent models cannot go back: they begin anew.
        if n_kept < len(self._tokens) and not llama_cpp.llama_memory_seq_rm(self._memory, 0, n_kept, -1):
            llama_cpp.llama_memory_clear(self._memory, True)
            n_kept = 0
        del self._tokens[n_kept:]
        for start in range(n_kept, len(tokens), self._n_batch):
            self._decode(tokens[start : start + self._n_batch])
        logits = llama_cpp.llama_get_logits_ith(self._pointer, -1)
        return np.ctypeslib.as_array(logits, shape=(self._n_vocab,)).copy()

    def _decode(self, tokens: list[int]) -> None:
        """Evaluate tokens after those in the cache; the last one's logits are kept."""
        batch, n_before = self._batch, len(self._tokens)
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place] = token
            batch.pos[place] = n_before + place
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = 0
            batch.logits[place] = place == len(tokens) - 1
        status = llama_cpp.llama_decode(self._pointer, batch)
        if status != 0:
            llama_cpp.llama_memory_clear(self._memory, True)
            self._tokens.clear()
            raise RuntimeError(f"llama_decode: {status} after {n_before} tokens, with {len(tokens)}")
        self._tokens.extend(tokens)

    def free(self) -> None:
        if self._pointer:
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self._pointer)
            self._pointer = None


# llama_token_data, see llama.h.
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class _Sampler:
    """Chooses the tokens of one answer: greedy, or drawn at a temperature, within a grammar if there is one."""

    def __init__(self, model: _Model, request: Request) -> None:
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
        if self._grammar is None:
            return int(logits.argmax())
        # The best of the shortlist that the grammar allows is the best of all
        # that it allows, so that the whole vocabulary is seldom looked at.
        if self._n_vocab > _SHORTLIST:
            best = np.sort(np.argpartition(logits, -_SHORTLIST)[-_SHORTLIST:])
            allowed = self._allowed(best, logits[best])
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
