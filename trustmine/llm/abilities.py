"""What an OpenAI-compatible server can, found out once by trying.

Versions and proxies make what servers say of themselves a poor guide, so each
ability is tried with a request of a few tokens whose answer shows whether it
was understood: a grammar that allows one odd word is in force if that word
comes back. A field that a server does not know is refused or ignored; both
count as not offered.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from trustmine.errors import ModelError
from trustmine.llm.server import Refused, Server

Body = dict[str, object]

LLAMA_SERVER, VLLM = "llama-server", "vLLM"
_OWNERS = {"llamacpp": LLAMA_SERVER, "vllm": VLLM}  # owned_by in /v1/models

# Samplers beside temperature are off, as they are in process, and hybrid models answer without thinking first.
# https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
# https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
_EXTRAS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        LLAMA_SERVER: {"top_k": 0, "min_p": 0.0, "chat_template_kwargs": {"enable_thinking": False}},
        VLLM: {
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "chat_template_kwargs": {"enable_thinking": False},
        },
    }
)
# How to ask for an answer that goes on from the last message, which is the assistant's.
CONTINUE: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {LLAMA_SERVER: {}, VLLM: {"continue_final_message": True, "add_generation_prompt": False}}
)
# Candidates per token to ask for: much helps small models, 20 is what OpenAI and vLLM allow by default.
_TOP_LOGPROBS = (500, 20, 5)
# Fields that take a grammar: llama-server and llama-cpp-python; vLLM; vLLM before 0.12; SGLang.
_DIALECTS = ("grammar", "structured_outputs", "guided_grammar", "ebnf")
_ODD_WORD = "trustmine-7"
_MANY_WORDS = 60
MAX_NAME_CHARS = 512
_N_SHOWN = 20  # names in an error


@dataclass(frozen=True, slots=True)
class Abilities:
    """A server's model, and what the server can."""

    model: str
    software: str  # llama-server, vLLM or a server
    n_ctx: int  # tokens of prompt and answer; 0: it does not say
    n_slots: int  # answers that it works on at once; 0: it does not say
    n_params: int  # 0: it does not say
    size_bytes: int  # 0: it does not say
    extras: Body  # fields of every request
    has_system_role: bool
    top_logprobs: int  # candidates per token; 0: none are given
    can_continue: bool  # an answer begun by us
    grammar: str | None  # which of the dialects of grammar_fields is in force
    schema_roots: frozenset[str]  # JSON Schema is in force for these types at its root

    def __str__(self) -> str:
        form = f"grammars ({self.grammar})" if self.grammar else "JSON Schema" if self.schema_roots else "no set form"
        scores = "no label probabilities"
        if self.top_logprobs:
            exact = "whole labels" if self.can_continue else "labels by their first token"
            scores = f"label probabilities ({exact}, {self.top_logprobs} candidates)"
        context = f"context {self.n_ctx:,}" if self.n_ctx else "context not told"
        return f"{self.model} on {self.software}: {context}, {scores}, answers by {form}"


def grammar_fields(dialect: str, gbnf: str) -> Body:
    """The fields that put an answer under a grammar."""
    return {"structured_outputs": {"grammar": gbnf}} if dialect == "structured_outputs" else {dialect: gbnf}


def schema_fields(schema: object) -> Body:
    """The fields that put an answer under a JSON Schema."""
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        }
    }


async def find_out(server: Server, wanted: str | None) -> Abilities:
    """The model called `wanted` (None: the only one) and what the server can. Raises ModelError."""
    listed = await _models(server)
    name = _choose(server, listed, wanted)
    entry = listed.get(name, {})
    software = _OWNERS.get(str(entry.get("owned_by")), "a server")
    props = await server.look("/props") if software != VLLM else {}
    if software == "a server" and "default_generation_settings" in props:
        software = LLAMA_SERVER  # behind a proxy with a list of its own
    extras, has_system_role = await _basics(server, name, software)
    trial: Body = {"model": name, "messages": [_turn("user", "Say yes or no.")], "temperature": 0, **extras}
    top_logprobs = await _top_logprobs(server, trial)
    grammar = await _grammar(server, trial)
    meta = entry.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    defaults = props.get("default_generation_settings")
    of_slot = defaults.get("n_ctx") if isinstance(defaults, dict) else None
    return Abilities(
        model=name,
        software=software,
        n_ctx=count(of_slot) or count(entry.get("max_model_len")) or count(meta.get("n_ctx_train")),
        n_slots=count(props.get("total_slots")),
        n_params=count(meta.get("n_params")),
        size_bytes=count(meta.get("size")),
        extras=extras,
        has_system_role=has_system_role,
        top_logprobs=top_logprobs,
        can_continue=bool(top_logprobs) and software in CONTINUE and await _continues(server, trial, software),
        grammar=grammar,
        schema_roots=frozenset() if grammar else await _schema_roots(server, trial),
    )


def count(value: object) -> int:
    """A number of tokens or bytes that a server gives; 0 for anything else."""
    return value if type(value) is int and 0 < value < 1 << 62 else 0


def first_choice(server: Server, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first choice of a chat completion, whose message is an object. Raises ModelError."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        raise server.garbage("is no chat completion", json.dumps(answer))
    return choice


def text_of(server: Server, choice: Mapping[str, Any]) -> str:
    """The text of a choice, fit to be stored; '' where a model only thought."""
    content = choice["message"].get("content")
    return server.clean(content) if isinstance(content, str) else ""


def candidates(choice: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The first token's candidates, as text and natural-log probability; [] where the server gives none."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    first = content[0] if isinstance(content, list) and content else None
    tops = first.get("top_logprobs") if isinstance(first, dict) else None
    found: dict[str, float] = {}
    for top in tops if isinstance(tops, list) else ():
        token, logprob = (top.get("token"), top.get("logprob")) if isinstance(top, dict) else (None, None)
        # No NaN, no infinity, and no whole number that no float can hold.
        if isinstance(token, str) and isinstance(logprob, int | float) and -1e9 < logprob < 1e9:
            found[token] = max(min(float(logprob), 0.0), found.get(token, -math.inf))
    return list(found.items())


async def _models(server: Server) -> dict[str, Mapping[str, Any]]:
    """The server's list of models by name; {} if it has none."""
    try:
        listed = await server.get("/models")
    except Refused as refused:
        if refused.status in (404, 405, 501):
            return {}
        raise refusal(server, refused) from refused
    data = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(data, list):
        raise server.garbage("is no list of models", json.dumps(listed))
    entries = [entry for entry in data if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    return {server.clean(entry["id"]): entry for entry in entries if 0 < len(entry["id"]) <= MAX_NAME_CHARS}


def _choose(server: Server, listed: Iterable[str], wanted: str | None) -> str:
    names = list(listed)
    if wanted is not None and (wanted in names or not names):
        return wanted
    if wanted is None and len(names) == 1:
        return names[0]
    if not names:
        hint = "Check --endpoint (most addresses end in /v1), or name the model with --model"
        raise ModelError("The endpoint does not list its models", server.url, hint)
    shown = ", ".join(server.shown(name) for name in names[:_N_SHOWN]) + (", ..." if len(names) > _N_SHOWN else "")
    what = "The endpoint has several models" if wanted is None else f"The endpoint has no model {wanted!r}"
    raise ModelError(what, f"{server.url}: {shown}", "Name one of these with --model")


def refusal(server: Server, refused: Refused) -> ModelError:
    """The error for a request that the server does not take."""
    hint = "It may be another kind of server, or an old one; see README on endpoints"
    if refused.status == 404:
        hint = "Check --endpoint (most addresses end in /v1) and --model"
    if refused.status == 403:
        hint = server.key_hint
    return ModelError(f"The endpoint refuses a request ({refused.status})", f"{server.url}: {refused.words}", hint)


async def _basics(server: Server, name: str, software: str) -> tuple[Body, bool]:
    """The extra fields that the server takes, and whether its template knows the role system."""
    system = _turn("system", "Answer with one word." + " word" * _MANY_WORDS)
    first: Refused | None = None
    for extras in (dict(_EXTRAS.get(software, {})), {}):
        for turns in ((system, _turn("user", "Hi")), (_turn("user", "Hi"),)):
            trial: Body = {"model": name, "messages": list(turns), "temperature": 0, "max_tokens": 1, **extras}
            try:
                answer = await server.chat(trial, is_probe=True)
            except Refused as refused:
                first = first or refused
                continue
            first_choice(server, answer)
            n_prompt = usage(answer)[0]
            # Some old templates leave it out silently.
            return extras, len(turns) == 2 and (n_prompt == 0 or n_prompt > _MANY_WORDS)
    assert first is not None
    raise refusal(server, first) from first


def usage(answer: Mapping[str, Any]) -> tuple[int, int, int]:
    """Tokens of the prompt, of these from the cache, and tokens generated; 0 where the server does not say."""
    told = answer.get("usage")
    told = told if isinstance(told, dict) else {}
    details = told.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return count(told.get("prompt_tokens")), count(cached), count(told.get("completion_tokens"))


async def _top_logprobs(server: Server, trial: Body) -> int:
    for n in _TOP_LOGPROBS:
        choice = await _try(server, {**trial, "max_tokens": 1, "logprobs": True, "top_logprobs": n})
        if choice is not None:
            return n if candidates(choice) else 0
    return 0


async def _continues(server: Server, trial: Body, software: str) -> bool:
    """Whether a last message of the assistant is gone on with.

    Then a word of one token more is one token more in the prompt; otherwise
    the end of the turn and the head of a new one come on top.
    """
    begun = {**trial, "messages": [_turn("user", "Say yes or no."), _turn("assistant", "no")], **CONTINUE[software]}
    try:
        without = await server.chat({**trial, "max_tokens": 1}, is_probe=True)
        answer = await server.chat({**begun, "max_tokens": 1}, is_probe=True)
    except Refused:
        return False
    n_without, n_with = usage(without)[0], usage(answer)[0]
    return 0 < n_with <= n_without + 1


async def _grammar(server: Server, trial: Body) -> str | None:
    for dialect in _DIALECTS:
        choice = await _try(server, {**trial, "max_tokens": 16, **grammar_fields(dialect, f'root ::= "{_ODD_WORD}"')})
        if choice is not None and text_of(server, choice).strip() == _ODD_WORD:
            return dialect
    return None


async def _schema_roots(server: Server, trial: Body) -> frozenset[str]:
    word = {"type": "string", "enum": [_ODD_WORD]}
    schemas: dict[str, tuple[object, object]] = {
        "object": (
            {"type": "object", "properties": {"a": word}, "required": ["a"], "additionalProperties": False},
            {"a": _ODD_WORD},
        ),
        "array": ({"type": "array", "items": word, "minItems": 1, "maxItems": 1}, [_ODD_WORD]),
    }
    roots = set()
    for root, (schema, wanted) in schemas.items():
        choice = await _try(server, {**trial, "max_tokens": 40, **schema_fields(schema)})
        try:
            if choice is not None and json.loads(text_of(server, choice)) == wanted:
                roots.add(root)
        except (ValueError, RecursionError):
            continue  # prose: the field was ignored
    return frozenset(roots)


async def _try(server: Server, body: Body) -> Mapping[str, Any] | None:
    """The first choice, or None if the server refuses the request."""
    try:
        return first_choice(server, await server.chat(body, is_probe=True))
    except Refused:
        return None


def _turn(role: str, content: str) -> Body:
    return {"role": role, "content": content}
