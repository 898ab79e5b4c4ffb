"""A GGUF model file: loaded weights, vocabulary, and a chat as its tokens.

Contents of messages hold no control tokens, whatever they spell (llm/chat.py).
llama.cpp's messages go to the logger `trustmine.llm.llama_cpp`, never to
stderr. Evaluation is left to kvcache.py, choosing tokens to sampling.py.
"""

import ctypes
import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import llama_cpp
import numpy as np

from trustmine import stopping
from trustmine.errors import ModelError
from trustmine.llm import chat
from trustmine.llm.base import Progress
from trustmine.records import Request

ENGINE = f"llama-cpp-python {llama_cpp.__version__}"

_CHUNK_BYTES = 1 << 20

_log = logging.getLogger("trustmine.llm.llama_cpp")
# Else Python writes errors to stderr where nobody listens. What matters of them is in the errors that are raised.
_log.addHandler(logging.NullHandler())
_errors: list[str] | None = None  # while a model is opened: what llama.cpp said went wrong
_GGML_WARN, _GGML_ERROR = 3, 4
_AMX_MARK = "amx_tile_config_is_whole"


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _user_data: object) -> None:
    line = text.decode("utf-8", "replace").rstrip()
    if level == _GGML_ERROR and _errors is not None:
        _errors.append(line)
    elif line:
        _log.log({_GGML_WARN: logging.INFO, _GGML_ERROR: logging.ERROR}.get(level, logging.DEBUG), "%s", line)


@llama_cpp.llama_progress_callback  # type: ignore[untyped-decorator]
def _goes_on(_share: float, _user_data: object) -> bool:
    return not stopping.is_asked()


def supports_gpu() -> bool:
    """Whether this build of llama.cpp can put layers on a GPU."""
    return bool(llama_cpp.llama_supports_gpu_offload())


def n_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def what_went_wrong() -> Iterator[list[str]]:
    """The errors that llama.cpp reports meanwhile. A stop waits: raised in _on_log it would be lost."""
    global _errors
    _errors = []
    try:
        with stopping.later():
            yield _errors
    finally:
        _errors = None


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


def leaves_amx_out() -> bool:
    """Whether this build of llama.cpp has code for Intel's AMX units that must not run.

    Built by GCC 12 and others that code ends the process: the compiler drops half
    of the units' configuration (ggml-org/llama.cpp, pull request 26954). Models
    are then loaded without the CPU's extra layouts of weights, which is slower. A
    build with native/amx_tile_config.h bears its mark and is whole.
    """
    if b"AMX_INT8 = 1" not in llama_cpp.llama_print_system_info():
        return False
    try:
        ctypes.c_char.in_dll(llama_cpp.llama_cpp._lib, _AMX_MARK)
    except ValueError:
        return True
    return False


def processor_features() -> str:
    """What this build of llama.cpp uses of the processor: 'AVX2, FMA, ...'."""
    return ", ".join(re.findall(r"(\w+) = 1", llama_cpp.llama_print_system_info().decode("ascii", "replace")))


class Model:
    """A loaded model with its vocabulary and chat template."""

    def __init__(self, path: Path, n_gpu_layers: int) -> None:
        llama_cpp.llama_log_set(_on_log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        params.use_extra_bufts = not leaves_amx_out()
        params.progress_callback = _goes_on
        with what_went_wrong() as said:
            self.pointer = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
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
        #: Bytes of keys and values per token, at 16 bits each; an estimate for unusual architectures.
        self.kv_bytes_per_token = 2 * 2 * llama_cpp.llama_model_n_layer(self.pointer) * self._kv_width()
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
        known = {*self.specials, *self._structural}
        self._textual = [word for word in self._template.markers if word not in known]
        self.end_tokens = {t for t in range(self.n_vocab) if llama_cpp.llama_vocab_is_eog(self._vocab, t)}
        #: Tokens that are never generated.
        self.barred = np.array(sorted(set(control) - self.end_tokens), dtype=np.int64)

    def _kv_width(self) -> int:
        """Numbers in the keys of one token and layer."""
        heads = max(1, llama_cpp.llama_model_n_head(self.pointer))
        width: int = llama_cpp.llama_model_n_embd(self.pointer) // heads
        n_heads: int = max(1, llama_cpp.llama_model_n_head_kv(self.pointer))
        return width * n_heads

    def metadata(self, key: str) -> str:
        """A value of the GGUF header; '' if there is none."""
        buffer = ctypes.create_string_buffer(512)
        n = llama_cpp.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if n >= 0 else ""

    def tokenise_chat(self, request: Request) -> list[int]:
        """The messages as the model's chat template puts them, with one BOS if the model wants one."""
        pieces = self._template.render(request.messages)
        ids = chat.tokenise(pieces, self.specials, self._structural, self._textual, self.tokenise_text)
        if llama_cpp.llama_vocab_get_add_bos(self._vocab) and ids[:1] != [self._bos]:
            ids.insert(0, self._bos)
        return ids

    def tokenise_labels(self, request: Request) -> dict[str, tuple[int, ...]]:
        """Token ids of the request's labels as they would follow its messages."""
        if not request.labels:
            return {}
        tail = chat.tail(self._template.render(request.messages), self.specials)
        return {label: tuple(self._tokenise_after(tail, label)) for label in request.labels}

    def _tokenise_after(self, tail: str, text: str) -> list[int]:
        """Token ids of a text behind the template's last words.

        SentencePiece puts a space before whatever it is given. Answers begin with one behind a control token and behind
        a word ("[/INST]", "ASSISTANT:"), but not behind white space ("assistant" and a line feed). Where tail and text
        would share a token, a line feed stands for the tail.
        """
        for before in (tail, "\n") if tail[-1:].isspace() else ():
            ids, whole = self.tokenise_text(before), self.tokenise_text(before + text)
            if whole[: len(ids)] == ids:
                return whole[len(ids) :]
        return self.tokenise_text(text)

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
