"""Many requests at once: the same answers as one at a time, and what is shared is evaluated once."""

import math
from collections.abc import Iterator
from dataclasses import replace

import llama_cpp
import pytest
from llm_helpers import answers, question

from trustmine.answers import line_ranges_grammar
from trustmine.llm.base import ContextOverflow
from trustmine.llm.kvcache import n_common, n_part
from trustmine.llm.labels import log_softmax
from trustmine.llm.local import LocalEngine, choose_layout
from trustmine.records import Completion, Message, Request
from trustmine.resources import built_in_model

RULES = "Answer about this code as a careful reviewer would. " * 12
LABELS = ("yes", "no", "cannot decide")


@pytest.fixture(scope="module")
def batched() -> Iterator[LocalEngine]:
    opened = LocalEngine.open(built_in_model(), n_ctx=1024, n_threads=1, n_sequences=6, known_sha256="0")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def unified() -> Iterator[LocalEngine]:
    opened = LocalEngine.open(
        built_in_model(), n_ctx=1024, n_threads=1, n_sequences=6, kv_layout="unified", known_sha256="0"
    )
    yield opened
    opened.close()


@pytest.fixture(params=["batched", "unified"])
def either(request: pytest.FixtureRequest) -> LocalEngine:
    engine: LocalEngine = request.getfixturevalue(request.param)
    return engine


@pytest.fixture(scope="module")
def single() -> Iterator[LocalEngine]:
    opened = LocalEngine.open(built_in_model(), n_ctx=1024, n_threads=1, n_sequences=1, known_sha256="0")
    yield opened
    opened.close()


def code(n: int) -> str:
    return f"{RULES}\nfunction number {n}:\n" + "".join(f"x{n + line} = read(b, {line * n});\n" for line in range(8))


def judged(n: int) -> Request:
    return question(code(n) + "Is it safe?", labels=LABELS)


def why(n: int) -> Request:
    turns = (*judged(n).messages, Message("assistant", "no"), Message("user", "Why? One sentence."))
    return Request("t", "why", "h", turns, max_tokens=12)


def ranges(n: int) -> Request:
    return question(code(n) + "Which lines?", grammar=line_ranges_grammar([(1, 2), (2, 3), (3, 8)], 2), max_tokens=16)


def test_many_at_once_answer_as_one_at_a_time_does(batched: LocalEngine, single: LocalEngine) -> None:
    requests = [make(n) for n in range(1, 7) for make in (judged, why, ranges)]
    ours, alone = answers(batched, requests), answers(single, requests)
    assert [answer.text for answer in ours] == [answer.text for answer in alone]
    for one, other in zip(ours, alone, strict=True):
        if one.label_logprobs is not None and other.label_logprobs is not None:
            for label in LABELS:
                assert math.exp(one.label_logprobs[label]) == pytest.approx(
                    math.exp(other.label_logprobs[label]), abs=1e-3
                )


def test_label_probabilities_equal_an_evaluation_of_the_whole_prompt_alone(batched: LocalEngine) -> None:
    requests = [judged(n) for n in range(20, 23)]
    whole = llama_cpp.Llama(
        str(built_in_model()), n_ctx=1024, logits_all=True, verbose=False, n_threads=1, n_threads_batch=1
    )
    for request, answer in zip(requests, answers(batched, requests), strict=True):
        model = batched._model
        prompt = model.tokenise_chat(request)
        logprobs = {}
        for label in LABELS:
            tokens = model.tokenise_text(label)
            whole.reset()  # type: ignore[no-untyped-call]
            whole.eval([*prompt, *tokens])
            rows = [log_softmax(whole.scores[len(prompt) - 1 + n]) for n in range(len(tokens))]
            logprobs[label] = sum(float(row[token]) for row, token in zip(rows, tokens, strict=True))
        total = math.log(sum(map(math.exp, logprobs.values())))
        assert answer.label_logprobs is not None
        for label in LABELS:
            assert math.exp(answer.label_logprobs[label]) == pytest.approx(math.exp(logprobs[label] - total), abs=1e-3)
    whole.close()


def test_threads_share_the_work_and_change_no_answer(batched: LocalEngine) -> None:
    several = LocalEngine.open(built_in_model(), n_ctx=1024, n_threads=2, n_sequences=6, known_sha256="0")
    requests = [judged(30), ranges(30)]
    ours, alone = answers(several, requests), answers(batched, requests)
    several.close()
    assert [answer.text for answer in ours] == [answer.text for answer in alone]
    for one, other in zip(ours, alone, strict=True):
        assert one.label_logprobs == (other.label_logprobs and pytest.approx(dict(other.label_logprobs), abs=1e-3))


def test_a_shared_beginning_is_evaluated_once(either: LocalEngine) -> None:
    requests = [judged(n) for n in range(40, 48)]
    found = answers(either, requests)
    prompts = [either._model.tokenise_chat(request) for request in requests]
    shared = n_common(prompts[0], prompts[1], 10**6)
    assert shared > 100
    assert sum(answer.n_cached >= shared - 16 for answer in found) >= len(found) - 1


def test_a_question_about_the_same_evidence_is_answered_from_the_cache(either: LocalEngine) -> None:
    for n in (60, 61):
        [first] = answers(either, [judged(n)])
        others = answers(either, [judged(n + 10)])
        [second] = answers(either, [why(n)])
        assert second.n_cached >= first.n_prompt - 2
        assert others[0].n_cached < others[0].n_prompt - 20


def test_beginnings_outlive_the_slots_that_held_them(either: LocalEngine) -> None:
    answers(either, [judged(n) for n in range(70, 73)])
    other = [question(f"{n} " + "something else entirely. " * 4, max_tokens=1) for n in range(12)]
    answers(either, [Request("t", f"other {n}", "h", request.messages, 1) for n, request in enumerate(other)])
    [back] = answers(either, [judged(75)])
    assert back.n_cached > 100


@pytest.mark.parametrize(("room", "n_ubatch"), [(512, 256), (512, 512), (300, 256), (7, 4), (4, 3)])
def test_no_token_of_a_prompt_comes_alone(room: int, n_ubatch: int) -> None:
    for n_tokens in range(2, 1200):
        n_left = n_tokens
        while n_left:
            n = n_part(n_left, room, n_ubatch)
            passes = [min(n_ubatch, n - at) for at in range(0, n, n_ubatch)]
            assert 1 not in passes, (n_tokens, n_left, n)
            assert n <= room
            n_left -= n


@pytest.mark.parametrize(("room", "n_ubatch"), [(1, 1), (2, 2), (512, 1), (512, 2)])
def test_passes_too_small_for_company_still_take_every_token(room: int, n_ubatch: int) -> None:
    for n_tokens in range(1, 20):
        assert 0 < n_part(n_tokens, room, n_ubatch) <= min(n_tokens, room)
    assert n_part(5, 0, n_ubatch) == 0


def test_an_answered_request_makes_room_at_once(batched: LocalEngine) -> None:
    """A long answer does not hold up short ones that came after it."""
    batched.submit(0, question("Tell a long story.", max_tokens=60, grammar='root ::= "a"{60}'))
    for ticket in range(1, 9):
        batched.submit(ticket, question(f"Say {ticket}", grammar='root ::= "a"'))
    order: list[int] = []
    while len(order) < 9:
        order += [ticket for ticket, _ in batched.poll()]
    assert order[-1] == 0
    assert sorted(order) == list(range(9))


def test_poll_comes_back_in_time_and_goes_on_later(batched: LocalEngine) -> None:
    batched.submit(1, question("Tell a long story.", grammar='root ::= "a"{60}', max_tokens=60))
    assert batched.poll(0.0) == []
    [(ticket, answer)] = batched.poll()
    assert ticket == 1
    assert isinstance(answer, Completion)
    assert answer.text.startswith("aaa")


def test_a_full_unified_cache_makes_requests_wait_and_loses_none() -> None:
    small = LocalEngine.open(
        built_in_model(), n_ctx=1024, n_threads=1, n_sequences=4, kv_layout="unified", known_sha256="0"
    )
    # Room for three of these four at most: they take turns.
    small._cache.layout = replace(small.layout, n_cells=1100)
    requests = [question(f"{n} " + "tell me about buffers " * 60, max_tokens=30) for n in range(6)]
    assert all(300 - 60 < answer.n_prompt < 400 for answer in answers(small, requests))
    small.submit(1, question("word " * 1200, max_tokens=4))
    [(_, overflow)] = small.poll()
    assert isinstance(overflow, ContextOverflow)
    small.close()


def test_a_layout_suits_the_device_unless_told_otherwise() -> None:
    cpu = choose_layout(8192, 23_040, on_gpu=False)
    assert (cpu.is_unified, cpu.n_slots > 1) == (False, True)
    gpu = choose_layout(8192, 131_072, on_gpu=True)
    assert gpu.is_unified
    assert gpu.n_slots > cpu.n_slots
    assert choose_layout(8192, 1 << 40, on_gpu=False).n_slots == 1  # no memory for two
    given = choose_layout(512, 1, on_gpu=True, n_sequences=3, kv_layout="separate", n_batch=64, n_ubatch=128)
    assert (given.n_slots, given.is_unified, given.n_cells, given.n_batch, given.n_ubatch) == (3, False, 1536, 64, 64)
    assert choose_layout(512, 1, on_gpu=True, is_deterministic=True).n_slots == 1
