"""Endpoints that answer oddly or with malice, and keys: one clear error, and the key stays where it is."""

import json
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from endpoint_helpers import KEY, KEY_ENV, Reply, Told, chat, logprobs, poll, settings, told
from llm_helpers import ask, question

from trustmine.errors import ModelError, TrustmineError
from trustmine.llm import server
from trustmine.llm.base import ContextOverflow, NoAnswer
from trustmine.llm.remote import MAX_UNANSWERED, RemoteEngine

pytestmark = pytest.mark.usefixtures("endpoint_environment")


def ask_different(remote: RemoteEngine, **more: Any) -> None:
    """As many questions, one after the other, as may go unanswered before the run stops."""
    for n in range(MAX_UNANSWERED):
        remote.submit(n, question(f"{n}?", **more))
        remote.poll()


def test_a_redirect_is_an_error_and_the_key_is_not_sent_on(
    open_told: Callable[..., tuple[Told, RemoteEngine]],
) -> None:
    with told() as elsewhere:
        server, remote = open_told()
        location = elsewhere.url.replace("//", f"//user:{KEY}@") + f"?key={KEY}"
        server.script.append(Reply(307, b"", {"Location": location}))
        remote.submit(1, question("?"))
        with pytest.raises(ModelError, match=r"redirects \(307\)") as error:
            remote.poll()
        assert elsewhere.asked == []
        assert elsewhere.url in error.value.where
        assert KEY not in str(error.value)
        assert "user" not in error.value.where


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Welcome</body></html>",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"1" * 10_000,
        b"[]",
        b"null",
        b"{}",
        b'{"choices": []}',
        b'{"choices": {"0": 1}}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"text": "old"}]}',
        b'{"choices": [{"finish_reason": "abort", "message": {"content": "x"}}]}',
        b"x" * 30_000,
    ],
)
def test_an_answer_that_is_none_is_its_rows_trouble_and_one_clear_error_if_there_are_no_others(
    open_told: Callable[..., tuple[Told, RemoteEngine]], monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(server, "MAX_BODY_BYTES", 200_000 if len(body) != 30_000 else 20_000)
    told_server, remote = open_told()
    told_server.script.append(Reply(body=body))
    remote.submit(1, question("?"))
    answer = poll(remote)
    assert isinstance(answer, NoAnswer)
    assert not isinstance(answer, ContextOverflow)
    assert told_server.url in str(answer)
    assert ask(question("another?"), remote).text == "fine"
    told_server.script.extend([Reply(body=body)] * MAX_UNANSWERED)
    with pytest.raises(TrustmineError) as error:
        ask_different(remote)
    assert isinstance(error.value, ModelError)
    assert told_server.url in error.value.where
    assert len(str(error.value)) < 800
    assert error.value.hint


@pytest.mark.parametrize(
    ("choice", "usage", "text", "reason"),
    [
        ('{"message": {"content": "a\\ud800b"}}', "null", "a?b", "stop"),
        ('{"message": {"content": null}, "finish_reason": "length"}', "{}", "", "length"),
        ('{"message": {"content": ["x"]}, "finish_reason": 7}', '{"prompt_tokens": -1}', "", "stop"),
        ('{"message": {"content": "x"}}', '{"prompt_tokens": 1e400, "completion_tokens": "9"}', "x", "stop"),
        ('{"message": {"content": "x"}}', f'{{"prompt_tokens": {10**30}}}', "x", "stop"),
        (f'{{"message": {{"content": "your key is {KEY}"}}}}', "[]", "your key is [key]", "stop"),
    ],
)
def test_odd_answers_can_be_stored(
    open_told: Callable[..., tuple[Told, RemoteEngine]], choice: str, usage: str, text: str, reason: str
) -> None:
    server, remote = open_told()
    server.script.append(Reply(body=f'{{"choices": [{choice}], "usage": {usage}}}'.encode()))
    answer = ask(question("?"), remote)
    assert (answer.text, answer.finish_reason) == (text, reason)
    assert (answer.n_prompt, answer.n_cached, answer.n_completion) == (0, 0, 0)
    sqlite3.connect(":memory:").execute("SELECT ?, ?", (answer.text, answer.n_prompt)).close()


@pytest.mark.parametrize(
    "content",
    [
        "null",
        '{"content": null}',
        '{"content": [{}]}',
        '{"content": [{"top_logprobs": [{"token": 1, "logprob": 2}, "x", {"token": "yes", "logprob": NaN}]}]}',
        '{"content": [{"top_logprobs": [{"token": "yes", "logprob": -1%s}]}]}' % ("0" * 400),
    ],
)
def test_odd_label_probabilities_are_no_answer(
    open_told: Callable[..., tuple[Told, RemoteEngine]], content: str
) -> None:
    server, remote = open_told(lambda body: chat("no", **logprobs(no=0.5, yes=0.1)))
    server.script.append(Reply(body=f'{{"choices": [{{"message": {{}}, "logprobs": {content}}}]}}'.encode()))
    remote.submit(1, question("?", labels=("yes", "no")))
    answer = poll(remote)
    assert isinstance(answer, NoAnswer)
    assert "lists no candidates" in str(answer)


def test_a_model_that_thinks_before_it_answers_is_not_judged_by(
    open_told: Callable[..., tuple[Told, RemoteEngine]],
) -> None:
    _, remote = open_told(lambda body: chat("<think>", **logprobs(**{"<think>": 0.9, "Okay": 0.1})))
    with pytest.raises(ModelError, match="begins with none of the labels but with '<think>', 'Okay'") as error:
        ask_different(remote, labels=("yes", "no"))
    assert "think" in error.value.hint


@pytest.mark.parametrize(
    ("status", "words", "n_prompt"),
    [
        (400, "request (5031 tokens) exceeds the available context size (2048 tokens), try increasing it", 5031),
        (
            400,
            "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4500 in the "
            "messages, 500 in the completion). Please reduce the length of the messages or completion.",
            4500,
        ),
        (
            400,
            "This model's maximum context length is 4096 tokens. However, you requested 500 output tokens and your "
            "prompt contains at least 3597 input tokens, for a total of at least 4097 tokens.",
            3597,
        ),
        (400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096.", 5000),
        (
            400,
            "'max_tokens' or 'max_completion_tokens' is too large: 3000. This model's maximum context length is 4096 "
            "tokens and your request has 1200 input tokens (3000 > 4096 - 1200).",
            1200,
        ),
        (
            400,
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
            9000,
        ),
        (500, "Requested tokens (2050) exceed context window of 2048", 2050),
        (400, "The input (5000 tokens) is longer than the model's context length (4096 tokens).", 5000),
        (413, "context_length_exceeded", 0),
    ],
)
def test_a_prompt_that_is_too_long_is_understood_however_it_is_said(
    open_told: Callable[..., tuple[Told, RemoteEngine]], status: int, words: str, n_prompt: int
) -> None:
    server, remote = open_told()
    server.script.append(Reply(status, json.dumps({"error": {"message": words}}).encode()))
    remote.submit(1, question("?"))
    answer = poll(remote)
    assert isinstance(answer, ContextOverflow)
    assert str(answer) == f"{n_prompt} prompt tokens + 12 do not fit in 2048"


def test_an_answer_that_the_context_cut_off_is_an_overflow(
    open_told: Callable[..., tuple[Told, RemoteEngine]],
) -> None:
    server, remote = open_told()
    server.script.append(Reply(body=json.dumps(chat("cut", finish_reason="length")).encode()))
    remote.submit(1, question("?", max_tokens=5))  # 3 tokens were written
    assert isinstance(poll(remote), ContextOverflow)
    server.script.append(Reply(body=json.dumps(chat("cut", finish_reason="length")).encode()))
    assert ask(question("?", max_tokens=3), remote).finish_reason == "length"


@pytest.mark.parametrize(
    ("status", "body", "what"),
    [
        (403, b"<html>Forbidden</html>", "refuses a request (403)"),
        (404, b'{"detail": "Not Found"}', "refuses a request (404)"),
        (400, b'{"error": {"message": "bad \\u001b[31m thing ' + KEY.encode() + b'"}}', "refuses a request (400)"),
        (422, b'{"detail": [{"msg": "x"}]}', "refuses a request (422)"),
    ],
)
def test_refusals_stop_the_run_with_the_servers_words(
    open_told: Callable[..., tuple[Told, RemoteEngine]], status: int, body: bytes, what: str
) -> None:
    server, remote = open_told()
    server.script.extend([Reply(status, body)] * MAX_UNANSWERED)
    with pytest.raises(ModelError) as error:
        ask_different(remote)
    assert len(server.script) == (0 if status != 404 else MAX_UNANSWERED - 1)
    assert error.value.what == f"The endpoint {what}"
    assert str(error.value).replace("\n", "").isprintable()
    assert KEY not in str(error.value)
    assert error.value.hint


def test_one_request_that_is_refused_is_its_rows_trouble(
    open_told: Callable[..., tuple[Told, RemoteEngine]],
) -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any] | Reply:
        is_bad = "exploit" in body["messages"][-1]["content"]
        return Reply(400, b'{"error": {"code": "content_filter", "message": "filtered"}}') if is_bad else chat()

    _, remote = open_told(answer)
    for n in range(2 * MAX_UNANSWERED):
        remote.submit(1, question(f"exploit {n}"))
        refused = poll(remote)
        assert isinstance(refused, NoAnswer)
        assert "filtered" in str(refused)
        assert ask(question("and this?"), remote).text == "fine"


# ------------------------------------------------------------------------------ the key


@pytest.mark.parametrize("key", ["", "  ", "two words-secret", "line\nbreak-secret", "schlüssel-secret", "a\\secret"])
def test_a_key_that_cannot_be_one_is_an_error_that_does_not_show_it(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv(KEY_ENV, key)
    with pytest.raises(ModelError, match="key") as error:
        RemoteEngine.open(settings("http://127.0.0.1:1/v1"))
    assert "secret" not in str(error.value)


def test_a_short_placeholder_is_not_cut_out_of_answers(
    open_told: Callable[..., tuple[Told, RemoteEngine]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, "EMPTY")
    server, remote = open_told()
    server.script.append(Reply(body=json.dumps(chat("an EMPTY list")).encode()))
    assert ask(question("?"), remote).text == "an EMPTY list"
