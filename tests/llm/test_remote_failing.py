"""Endpoints that are busy, slow or gone: waited for with patience, and no row pays for it."""

import email.utils
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from endpoint_helpers import Reply, Told, chat, logprobs, poll, settings, told
from llm_helpers import ask, question

from trustmine import cli
from trustmine.db.connect import connect
from trustmine.demo import write_demo
from trustmine.errors import ModelError
from trustmine.llm import server
from trustmine.llm.base import NoAnswer
from trustmine.llm.remote import RemoteEngine
from trustmine.records import Completion

pytestmark = pytest.mark.usefixtures("endpoint_environment")


def test_an_answer_comes_after_two_failures(open_told: Callable[..., tuple[Told, RemoteEngine]]) -> None:
    server, remote = open_told()
    server.script.extend([Reply(503, b"starting"), Reply(500, b"")])
    assert ask(question("?"), remote).text == "fine"
    assert len(server.chats) == 3


def test_an_internal_error_that_one_request_always_meets_is_its_rows_trouble(
    open_told: Callable[..., tuple[Told, RemoteEngine]],
) -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any] | Reply:
        return Reply(500, b"oops") if "bad" in body["messages"][-1]["content"] else chat()

    told_server, remote = open_told(answer)
    remote.submit(0, question("bad"))
    answers: dict[int, Completion | NoAnswer] = {}
    for n in range(1, 2_000):
        remote.submit(n, question(f"good {n}"))
        answers |= dict(remote.poll())
        if 0 in answers:
            break
    assert isinstance(answers[0], NoAnswer)
    assert "(500)" in str(answers[0])
    assert "oops" in str(answers[0])
    assert sum("bad" in body["messages"][-1]["content"] for body in told_server.chats) >= server.MAX_INTERNAL_ERRORS


@pytest.mark.parametrize("is_date", [False, True])
def test_retry_after_is_honoured(open_told: Callable[..., tuple[Told, RemoteEngine]], is_date: bool) -> None:
    server, remote = open_told()
    # Dates have whole seconds.
    wait = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True) if is_date else "1"
    server.script.append(Reply(429, b"{}", {"Retry-After": wait}))
    began = time.monotonic()
    assert ask(question("?"), remote).text == "fine"
    assert 0.9 <= time.monotonic() - began < 10


def test_a_wait_that_is_longer_than_patience_stops_the_run_at_once(
    open_told: Callable[..., tuple[Told, RemoteEngine]],
) -> None:
    server, remote = open_told()
    server.script.append(Reply(429, b'{"error": {"message": "quota"}}', {"Retry-After": "3600"}))
    remote.submit(1, question("?"))
    with pytest.raises(ModelError, match="429: quota") as error:
        remote.poll()
    assert "3600 s" in error.value.where
    assert "endpoint_patience_s" in error.value.hint


def test_a_server_that_is_down_is_waited_for_with_a_word(
    open_told: Callable[..., tuple[Told, RemoteEngine]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(server, "TELL_AFTER_S", -1.0)
    first, remote = open_told()
    first.close()
    remote.submit(1, question("?"))
    time.sleep(0.2)
    with told(port=first.port):
        answer = poll(remote)
    assert isinstance(answer, Completion)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "does not answer" in said[0]
    assert "answers again" in said[-1]
    assert len(said) == 2


def test_patience_ends_and_what_was_answered_before_is_kept(
    open_told: Callable[..., tuple[Told, RemoteEngine]],
) -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any] | Reply:
        return Reply(502, b"bad gateway") if body["messages"][-1]["content"] == "bad" else chat()

    _, remote = open_told(answer, endpoint_patience_s=0.3)
    remote.submit(1, question("bad"))
    remote.submit(2, question("good"))
    assert [ticket for ticket, _ in remote.poll()] == [2]
    for _ in range(2):
        with pytest.raises(ModelError, match="does not answer: 502: bad gateway"):
            remote.poll()


def test_a_server_that_is_not_there_is_an_error_that_says_so() -> None:
    with told() as server:
        url = server.url
    with pytest.raises(ModelError, match="does not answer: connection refused") as error:
        RemoteEngine.open(settings(url, endpoint_patience_s=0.0))
    assert url in error.value.where


def test_an_answer_that_takes_too_long_is_given_up(open_told: Callable[..., tuple[Told, RemoteEngine]]) -> None:
    server, remote = open_told(endpoint_timeout_s=1.0)
    server.script.append(Reply(wait=threading.Event()))
    assert ask(question("?"), remote).text == "fine"
    assert len(server.chats) == 2


@pytest.mark.usefixtures("as_in_a_terminal")
def test_ctrl_c_leaves_a_slow_answer_at_once(open_told: Callable[..., tuple[Told, RemoteEngine]]) -> None:
    server, remote = open_told()
    late = threading.Event()
    server.script.append(Reply(body=b"x" * 10_000_000, wait=late))
    remote.submit(1, question("?"))
    assert remote.poll(timeout_s=0.05) == []
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        remote.poll()
    remote.close()
    assert time.monotonic() - began < 5
    assert not [thread for thread in threading.enumerate() if thread.name == "trustmine-endpoint"]
    late.set()
    assert server.gone.wait(10)  # the connection was closed, so the server may stop working on it
    remote.close()


def test_a_run_that_stops_for_its_endpoint_costs_no_row_an_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_demo(tmp_path / "repo")

    def answer(body: dict[str, Any]) -> dict[str, Any] | Reply:
        if "Does this commit fix" in body["messages"][-1]["content"]:
            return Reply(503, b"down")
        return chat("yes", **logprobs(yes=0.5, no=0.3, cannot=0.2))

    with told() as server:
        server.answer = answer
        (tmp_path / "trustmine.toml").write_text("calibration_rows = 1\nendpoint_patience_s = 0\n")
        codes = []
        for args in (
            ("ingest", "repo"),
            ("advance", "--stage", "s0_1"),
            ("advance", "--stage", "s0_2"),
            ("advance", "--stage", "s0_3", "--endpoint", server.url),
        ):
            with pytest.raises(SystemExit) as ended:
                cli.main([*args])
            codes.append(ended.value.code)
    assert codes == [0, 0, 0, 1]
    assert "does not answer: 503: down" in capsys.readouterr().err
    conn = connect(tmp_path / "trustmine.db", read_only=True)
    assert conn.execute("SELECT count(*) FROM commits WHERE attempts > 0 OR claim_owner IS NOT NULL").fetchone() == (0,)
    assert conn.execute("SELECT count(*) FROM failures").fetchone() == (0,)
    assert conn.execute("SELECT count(*) FROM verdicts").fetchone() == (0,)
    conn.close()
