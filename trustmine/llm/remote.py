"""A model behind an OpenAI-compatible server: vLLM, llama-server and their like.

The same promises as in process, as far as the server keeps them:

- The model is known by its name as the server gives it, wherever the server
  runs: the address and the size of its context are no part of a request's
  identity. Serve another model under another name.
- Grammars are asked for where the server knows them, else JSON Schema where
  the answer is JSON, else the answer is taken as it comes and the stages
  reject what does not parse.
- Label probabilities come from the candidates for the next token (see
  labels.score_listed). Without them, questions with labels stop the run:
  counting sampled answers would give steps of 1/n, and infinite log-odds
  wherever all agree, where a calibration wants fine differences.
- Contents are sent with control tokens taken apart (inert.py), for the server
  would obey them.
- A penalty on repetition goes to llama-server alone. vLLM's counts the prompt
  too and would keep a model from naming what it has read.
- A request that the server refuses, or answers with garbage, is its row's trouble: a filter of contents may be the
  reason. If several different ones in a row fare so, something else is wrong, and the run stops.
- An answer that ends for want of context is an overflow, as in process, where
  nothing begins that might not fit. Reasons to end other than the limit count
  as "stop": the stages judge the text.

Requests run in one event loop in a thread of its own; answers wait in a queue.
"""

import asyncio
import functools
import json
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from trustmine.config import Settings
from trustmine.errors import ModelError
from trustmine.llm import abilities, chat, inert, server
from trustmine.llm.abilities import CONTINUE, LLAMA_SERVER, Abilities, Body
from trustmine.llm.base import OPENAI_COMPATIBLE, ContextOverflow, ModelInfo, NoAnswer
from trustmine.llm.hashes import rendered_hash, sha256_of
from trustmine.llm.labels import Listing, NotListed, score_listed
from trustmine.llm.server import Refused, Server
from trustmine.records import Completion, Request

T = TypeVar("T")

_REPEAT_WINDOW = 64  # generated tokens that a repetition penalty looks at, as in process
_SEEDS = 0xFFFFFFFF  # llama.cpp takes seeds of 32 bits, the highest of which asks for a random one
_PER_SLOT = 2  # one at work, the next on its way
# Different requests that may go unanswered one after the other before the run stops.
MAX_UNANSWERED = 8
_NOT_THERE = frozenset({404, 405})  # whatever is asked
_LENGTH = frozenset({"length", "max_tokens"})
_ABORTED = frozenset({"abort", "error"})  # vLLM's reasons when it is shut down in the middle


class RemoteEngine:
    """An Engine (llm/base.py) for one model of a server, made by `open`."""

    def __init__(self, thread: "_Thread", found: Server, can: Abilities, capacity: int) -> None:
        self._thread, self._server, self.abilities = thread, found, can
        # What waits at a server for one of few slots only comes nearer to its time limit.
        self._capacity = min(capacity, _PER_SLOT * can.n_slots) if can.n_slots else capacity
        self._done: queue.SimpleQueue[tuple[int, Completion | NoAnswer | BaseException]] = queue.SimpleQueue()
        self._n_waiting = 0
        self._unanswered: set[str] = set()  # hashes of requests since the last one that was answered
        self._trouble: BaseException | None = None
        self._info = ModelInfo(
            sha256=model_hash(can.model),
            name=can.model,
            path=found.url,
            size_bytes=can.size_bytes,
            mtime_ns=time.time_ns(),
            architecture="",
            n_params=can.n_params,
            n_ctx_train=can.n_ctx,
            engine=OPENAI_COMPATIBLE,
            n_ctx=can.n_ctx,
        )

    @classmethod
    def open(cls, settings: Settings) -> "RemoteEngine":
        """The model of the settings' endpoint; waits for a server that is still starting. Raises ModelError."""
        assert settings.endpoint is not None, "the settings name no endpoint"
        key = server.key_from(settings.api_key_env)
        found = server.connect(
            settings.endpoint,
            key,
            concurrency=settings.endpoint_concurrency,
            timeout_s=settings.endpoint_timeout_s,
            patience_s=settings.endpoint_patience_s,
        )
        thread = _Thread()
        try:
            can = thread.result_of(abilities.find_out(found, settings.model))
        except BaseException:
            thread.close(found.client.aclose)
            raise
        return cls(thread, found, can, settings.endpoint_concurrency)

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def request_hash(self) -> Callable[[Request], str]:
        return functools.partial(_request_hash, can=self.abilities, info=self._info)

    def submit(self, ticket: int, request: Request) -> None:
        if request.labels and not self.abilities.top_logprobs:
            raise ModelError(
                "The endpoint gives no label probabilities, which s0_3 needs",
                f"{self._info.name} at {self._info.path}: no logprobs in chat completions",
                "vLLM and llama-server give them; llama-cpp-python's server does with --logits_all true. The other "
                "stages do without: judge s0_3 with another model, or take verdicts from lists (trustmine label)",
            )
        self._n_waiting += 1
        self._thread.start(self._work(ticket, request))

    def poll(self, timeout_s: float | None = None) -> list[tuple[int, Completion | NoAnswer]]:
        if self._n_waiting == 0:
            return []
        answers: list[tuple[int, Completion | NoAnswer]] = []
        while self._trouble is None:
            try:
                ticket, answer = self._done.get(block=not answers, timeout=timeout_s)
            except queue.Empty:
                break
            if isinstance(answer, Completion | NoAnswer):
                answers.append((ticket, answer))
            else:
                self._trouble = answer
        if not answers and self._trouble is not None:
            raise self._trouble
        self._n_waiting -= len(answers)
        return answers  # what was answered before the trouble is not lost: that comes with the next call

    def close(self) -> None:
        self._thread.close(self._server.client.aclose)

    async def _work(self, ticket: int, request: Request) -> None:
        """Answers one request into the queue, whatever happens."""
        try:
            self._done.put((ticket, await self._answer(request)))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._done.put((ticket, error))

    async def _answer(self, request: Request) -> Completion | NoAnswer:
        began = time.perf_counter()
        try:
            answer = await (self._score(request, began) if request.labels else self._generate(request, began))
        except Refused as refused:
            n_needed = 1 if request.labels else request.max_tokens
            if refused.is_too_long:
                return ContextOverflow(refused.n_prompt, n_needed, self._info.n_ctx)
            error = abilities.refusal(self._server, refused)
            if refused.status in _NOT_THERE:
                raise error from refused
            return self._no_answer(request, error)
        except server.Garbled as error:
            return self._no_answer(request, error)
        self._unanswered.clear()
        return answer

    def _no_answer(self, request: Request, why: ModelError) -> NoAnswer:
        """That this request has none; raises why if it is not the only one."""
        self._unanswered.add(self.request_hash(request))
        if len(self._unanswered) >= MAX_UNANSWERED:
            raise why
        return NoAnswer(f"{why.what}: {why.where}")

    async def _generate(self, request: Request, began: float) -> Completion | NoAnswer:
        body = self._body(request, request.max_tokens)
        form = _form(request, self.abilities)
        if form == "grammar" and request.grammar is not None and self.abilities.grammar is not None:
            body |= abilities.grammar_fields(self.abilities.grammar, request.grammar)
        elif form == "schema" and request.schema is not None:
            body |= abilities.schema_fields(json.loads(request.schema))
        answer = await self._server.chat(body)
        choice = abilities.first_choice(self._server, answer)
        n_prompt, n_cached, n_completion = abilities.usage(answer)
        reason = choice.get("finish_reason")
        if reason in _ABORTED:
            what = "The endpoint has broken off an answer"
            raise server.Garbled(what, f"{self._server.url}: {reason}", "Look at the server's log, and run it again")
        # A server that says nothing of usage cannot have run out of context early: 0 is not less.
        if reason in _LENGTH and 0 < n_completion < request.max_tokens:
            return ContextOverflow(n_prompt, request.max_tokens, n_prompt + n_completion)
        return Completion(
            text=abilities.text_of(self._server, choice),
            finish_reason="length" if reason in _LENGTH else "stop",
            label_logprobs=None,
            n_prompt=n_prompt,
            n_cached=n_cached,
            n_completion=n_completion,
            duration_ms=(time.perf_counter() - began) * 1e3,
            request_hash=self.request_hash(request),
            rendered_hash=rendered_hash(request),
        )

    async def _score(self, request: Request, began: float) -> Completion:
        first: Mapping[str, Any] = {}
        scoring = score_listed(request.labels, self.abilities.can_continue)
        try:
            path = next(scoring)
            while True:
                answer = await self._server.chat(self._scoring_body(request, path))
                first = first or answer
                path = scoring.send(self._listing(answer))
        except StopIteration as stop:
            logprobs: dict[str, float] = stop.value
        except NotListed as error:
            hint = "It may think before it answers: turn that off at the server, or judge s0_3 with another model"
            what = f"The endpoint's answer {self._server.shown(str(error))}"
            raise server.Garbled(what, self._info.path, hint) from error
        except ValueError as error:
            hint = "llama-server and vLLM go on with an answer's beginning; or give s0_3's prompt labels that differ"
            raise ModelError(f"The labels cannot be scored: {error}", self._info.path, hint) from error
        n_prompt, n_cached, _ = abilities.usage(first)
        return Completion(
            text=max(logprobs, key=logprobs.__getitem__),
            finish_reason="label",
            label_logprobs=logprobs,
            n_prompt=n_prompt,
            n_cached=n_cached,
            n_completion=0,
            duration_ms=(time.perf_counter() - began) * 1e3,
            request_hash=self.request_hash(request),
            rendered_hash=rendered_hash(request),
        )

    def _scoring_body(self, request: Request, path: str) -> Body:
        """Asks for one token after `path`, with its candidates."""
        body = self._body(request, 1) | {"logprobs": True, "top_logprobs": self.abilities.top_logprobs}
        if path:
            turns = body["messages"]
            assert isinstance(turns, list)
            body["messages"] = [*turns, {"role": "assistant", "content": path}]
            body |= CONTINUE[self.abilities.software]
        return body

    def _listing(self, answer: Mapping[str, Any]) -> Listing:
        return abilities.candidates(abilities.first_choice(self._server, answer))

    def _body(self, request: Request, max_tokens: int) -> Body:
        messages = request.messages
        if not self.abilities.has_system_role:
            messages = chat.without_system(messages)
        body: Body = {
            "model": self._info.name,
            "messages": [{"role": turn.role, "content": inert.inert(turn.content)} for turn in messages],
            "max_tokens": max_tokens,
            "temperature": request.temperature,
            "top_p": 1,
            "seed": request.seed % _SEEDS,
            **self.abilities.extras,
        }
        if self.abilities.software == LLAMA_SERVER and not request.labels:
            body |= {"repeat_penalty": request.repeat_penalty, "repeat_last_n": _REPEAT_WINDOW}
        return body


class _Thread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon, so that an interrupted process ends at once.
        self._thread = threading.Thread(target=self._loop.run_forever, name="trustmine-endpoint", daemon=True)
        self._thread.start()

    def result_of(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work gives or raises; Ctrl-C leaves it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Breaks everything off, does the last thing and ends the thread; again: nothing."""
        if self._loop.is_closed():
            return
        self.result_of(_break_off())
        self.result_of(last())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _break_off() -> None:
    """Cancels all other tasks of the loop, which closes their connections, and waits for their end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _request_hash(request: Request, can: Abilities, info: ModelInfo) -> str:
    """sha256 over all that decides the answer, as far as it can be known of a server."""
    form = _form(request, can)
    return sha256_of(
        {
            "rendered": rendered_hash(request),
            "has_system_role": can.has_system_role,
            "inert": inert.VERSION,
            "labels": request.labels,
            "top_logprobs": can.top_logprobs if request.labels else None,
            "can_continue": can.can_continue if request.labels else None,
            "grammar": request.grammar,
            "form": form,
            "schema": request.schema if form == "schema" else None,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "repeat_penalty": request.repeat_penalty,
            "seed": request.seed,
            "model": info.sha256,
            "engine": info.engine,
        }
    )


def _form(request: Request, can: Abilities) -> str:
    """What holds the answer to its form: grammar, schema or nothing."""
    if request.grammar is None:
        return ""
    if can.grammar is not None:
        return "grammar"
    # The type at the root of the answer's JSON Schema, if it has one.
    root = None if request.schema is None else json.loads(request.schema).get("type")
    return "schema" if str(root) in can.schema_roots else ""


def model_hash(name: str) -> str:
    """What stands for a model that is only known by its name."""
    return sha256_of({"engine": OPENAI_COMPATIBLE, "model": name})
