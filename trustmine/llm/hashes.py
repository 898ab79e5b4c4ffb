"""What identifies a question: hashes over the messages, and over all that decides their answer."""

import hashlib
import json

from trustmine.llm import chat
from trustmine.llm.base import ModelInfo
from trustmine.records import Request


def rendered_hash(request: Request) -> str:
    """sha256 of the messages as filled in."""
    return sha256_of([[message.role, message.content] for message in request.messages])


def request_hash(request: Request, info: ModelInfo) -> str:
    """sha256 over all that decides the answer: messages, answer form, sampling, model, engine."""
    content = {
        "rendered": rendered_hash(request),
        "labels": request.labels,
        "grammar": request.grammar,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "repeat_penalty": request.repeat_penalty,
        "seed": request.seed,
        "model": info.sha256,
        "engine": info.engine,
        "chat": chat.VERSION,
        "n_ctx": info.n_ctx,
    }
    # An answer that may have shared its batch is none that did not.
    return sha256_of(content | {"deterministic": True} if info.is_deterministic else content)


def sha256_of(value: object) -> str:
    """sha256 of a JSON value in its canonical form."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()
