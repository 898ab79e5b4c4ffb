"""What an endpoint is asked: requests as they are sent, dialects found by trying, labels scored by going on."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from endpoint_helpers import KEY, KINDS, MODEL, Reply, Told, chat, logprobs
from llm_helpers import ask, question

from trustmine.answers import (
    elements_grammar,
    elements_schema,
    explanation_grammar,
    explanation_schema,
    line_ranges_grammar,
)
from trustmine.calibration import LABELS
from trustmine.errors import ModelError
from trustmine.llm.remote import RemoteEngine

pytestmark = pytest.mark.usefixtures("endpoint_environment")


def test_a_request_is_sent_as_it_is(open_told: Callable[..., tuple[Told, RemoteEngine]]) -> None:
    server, remote = open_told()
    assert remote.capacity == 16
    answer = ask(question("a <|im_end|> b", temperature=0.5, seed=7, repeat_penalty=1.1), remote)
    [(path, headers, body)] = server.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are helpful."},
            {"role": "user", "content": "a < |im_end| > b"},
        ],
        "max_tokens": 12,
        "temperature": 0.5,
        "top_p": 1,
        "seed": 7,
    }
    assert (answer.text, answer.finish_reason) == ("fine", "stop")
    assert (answer.n_prompt, answer.n_cached, answer.n_completion) == (90, 4, 3)


@pytest.mark.parametrize("dialect", ["grammar", "structured_outputs", "guided_grammar", "ebnf"])
def test_the_dialect_of_grammars_is_found_by_trying(
    open_told: Callable[..., tuple[Told, RemoteEngine]], dialect: str
) -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any]:
        return chat("trustmine-7" if dialect in body else "prose")

    server, remote = open_told(answer, owner="vllm")
    assert remote.abilities.grammar == dialect
    ask(question("?", grammar='root ::= "x"'), remote)
    [sent] = server.chats
    assert sent[dialect] == ({"grammar": 'root ::= "x"'} if dialect == "structured_outputs" else 'root ::= "x"')
    assert (sent["repetition_penalty"], sent["top_k"]) == (1.0, -1)
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_server_without_grammars_is_given_the_schema_where_the_answer_is_json(
    open_told: Callable[..., tuple[Told, RemoteEngine]],
) -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any] | Reply:
        if "response_format" not in body:
            return chat("prose")
        schema = body["response_format"]["json_schema"]["schema"]
        if schema["type"] == "array":  # as OpenAI has it
            return Reply(400, b'{"error": {"message": "schema must be an object"}}')
        return chat('{"a": "trustmine-7"}')

    server, remote = open_told(answer)
    assert (remote.abilities.grammar, remote.abilities.schema_roots) == (None, frozenset({"object"}))
    explain = {"grammar": explanation_grammar(30, ["CWE-1"]), "schema": explanation_schema(["CWE-1"])}
    elements = {"grammar": elements_grammar(2, KINDS), "schema": elements_schema(2, KINDS)}
    for more in (explain, elements, {"grammar": line_ranges_grammar([(1, 2)], 1)}):
        ask(question("?", **more), remote)
    assert [("response_format" in sent, "grammar" in sent) for sent in server.chats] == [
        (True, False),
        (False, False),
        (False, False),
    ]
    assert server.chats[0]["response_format"]["json_schema"]["schema"] == json.loads(explain["schema"])


def test_a_template_without_a_system_role_gets_its_text_in_the_first_turn(
    open_told: Callable[..., tuple[Told, RemoteEngine]],
) -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any] | Reply:
        if body["messages"][0]["role"] == "system":
            return Reply(400, b'{"object": "error", "message": "System role not supported"}')
        return chat()

    server, remote = open_told(answer)
    ask(question("Hello"), remote)
    assert server.chats[0]["messages"] == [{"role": "user", "content": "You are helpful.\n\nHello"}]


def test_a_template_that_leaves_the_system_role_out_is_noticed(
    open_told: Callable[..., tuple[Told, RemoteEngine]],
) -> None:
    _, silent = open_told(lambda body: chat() | {"usage": {"prompt_tokens": 9}})  # though 60 words were sent
    assert not silent.abilities.has_system_role


def test_labels_are_scored_by_going_on_from_their_beginnings(
    open_told: Callable[..., tuple[Told, RemoteEngine]],
) -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any] | Reply:
        if body.get("top_logprobs", 0) > 20:  # vLLM's limit by default
            return Reply(400, b'{"error": {"message": "Requested sample logprobs of 500, which is greater than 20"}}')
        begun = body["messages"][-1]
        more = {" decide": 0.5, ".": 0.5} if begun["role"] == "assistant" else {"yes": 0.4, "no": 0.2, "cannot": 0.2}
        made = chat("yes", **logprobs(**more))
        made["usage"]["prompt_tokens"] += begun["role"] == "assistant"
        return made

    server, remote = open_told(answer, owner="vllm")
    assert (remote.abilities.top_logprobs, remote.abilities.can_continue) == (20, True)
    answered = ask(question("?", labels=LABELS), remote)
    assert answered.label_logprobs == pytest.approx(
        {"yes": math.log(4 / 7), "no": math.log(2 / 7), "cannot decide": math.log(1 / 7)}
    )
    first, second = server.chats
    assert (first["max_tokens"], first["logprobs"], first["top_logprobs"]) == (1, True, 20)
    assert "add_generation_prompt" not in first
    assert second["messages"][-1] == {"role": "assistant", "content": "cannot"}
    assert (second["continue_final_message"], second["add_generation_prompt"]) == (True, False)


def test_without_label_probabilities_s0_3_is_a_clear_error_and_the_rest_works(
    open_told: Callable[..., tuple[Told, RemoteEngine]],
) -> None:
    _, remote = open_told()
    with pytest.raises(ModelError, match="no label probabilities, which s0_3 needs"):
        remote.submit(1, question("?", labels=LABELS))
    assert ask(question("?"), remote).text == "fine"


def test_labels_that_a_server_cannot_tell_apart_are_an_error(
    open_told: Callable[..., tuple[Told, RemoteEngine]],
) -> None:
    _, remote = open_told(lambda body: chat("no", **logprobs(no=0.5, yes=0.1)))
    remote.submit(1, question("?", labels=("no", "no idea")))
    with pytest.raises(ModelError, match="begin alike"):
        remote.poll()
