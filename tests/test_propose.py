"""Candidate patches: asked for, compared with the real fix, recorded, and taken up by s4."""

import json
import sqlite3
from collections.abc import Callable
from typing import Any

import llm_helpers
import pytest
import stage_helpers as helpers

from trustmine import propose, tools
from trustmine.cli import main
from trustmine.config import Settings
from trustmine.db import facts, recipes
from trustmine.db.claims import Scope
from trustmine.llm.base import ContextOverflow, Engine, ModelInfo, NoAnswer
from trustmine.records import Completion, Request

Add = Callable[..., list[int]]
SETTINGS = Settings(proposal_tokens=16, n_ctx=2048, n_threads=1)


class Saying:
    """An engine that says what it is told to, in turn."""

    capacity = 2

    def __init__(self, *answers: str | ContextOverflow) -> None:
        self.answers, self.asked, self._tickets = list(answers), [], []  # type: ignore[var-annotated]
        self.info = ModelInfo("5" * 64, "m", "/m", 1, 1, "a", 1, 1, "e", 2048)

    def request_hash(self, request: Request) -> str:
        return f"{request.seed}-{request.temperature}-{hash(request.messages)}"

    def submit(self, ticket: int, request: Request) -> None:
        self.asked.append(request)
        self._tickets.append((ticket, request))

    def poll(self) -> list[tuple[int, Completion | NoAnswer]]:
        done: list[tuple[int, Completion | NoAnswer]] = []
        for ticket, request in self._tickets:
            text = self.answers.pop(0)
            if isinstance(text, str):
                done.append((ticket, Completion(text, "stop", None, 1, 0, 1, 1.0, self.request_hash(request), "r")))
            else:
                done.append((ticket, text))
        self._tickets = []
        return done

    def close(self) -> None:
        pass


def rows(conn: sqlite3.Connection, add_commits: Add, n: int = 1, status: str = "s2_2") -> list[int]:
    ids = add_commits(n, status="s3_2" if status == "s4" else status)
    for i in ids:
        given = (helpers.FUNCTION, helpers.MASK, helpers.MERGED, *helpers.ELEMENTS, *helpers.ITEMS)
        facts.write(conn, [(i, fact) for fact in given])
        for stage in ("s2_2", "s4") if status == "s4" else ("s2_2",):
            recipe = recipes.ensure(conn, stage, {"stage": stage}, None)
            conn.execute("INSERT INTO steps VALUES (?, ?, ?)", (i, stage, recipe))
    if status == "s4":
        conn.execute("UPDATE commits SET status = 's4', outcome = 'done'")
    return ids


def run(conn: sqlite3.Connection, engine: Any, **more: Any) -> propose.Proposed:
    fake: Engine = engine
    return propose.propose(conn, SETTINGS, (fake, recipes.ensure_model(conn, fake.info)), **more)


def stored(conn: sqlite3.Connection) -> list[tuple[str, str]]:
    return conn.execute("SELECT verdict, code FROM candidates ORDER BY verdict").fetchall()


def test_the_built_in_model_writes_candidates_that_lead_back_to_their_calls(
    conn: sqlite3.Connection, add_commits: Add
) -> None:
    rows(conn, add_commits)
    done = run(conn, llm_helpers.engine(), per_row=2)
    assert (done.n_rows, done.n_new, done.n_unanswered) == (1, 2, 0)
    found = conn.execute(
        """SELECT l.task, l.stage, l.prompt_name, l.prompt_hash = c.prompt_hash, l.model_id = c.model_id,
                  l.n_completion <= 16, l.sampling ->> 'temperature', c.code
           FROM candidates AS c JOIN llm_calls AS l USING (commit_id, request_hash) ORDER BY 7"""
    ).fetchall()
    assert [row[:7] for row in found] == [("propose", "s4", "propose", 1, 1, 1, t) for t in (0.0, 0.8)]
    before = stored(conn)
    again = run(conn, llm_helpers.engine(), per_row=2)
    assert (again.n_new, again.n_sent_back) == (0, 0)
    assert stored(conn) == before
    assert conn.execute("SELECT count(*) FROM llm_calls").fetchone() == (2,)


def test_answers_are_compared_with_the_fix_and_with_what_it_replaced(
    conn: sqlite3.Connection, add_commits: Add
) -> None:
    rows(conn, add_commits)
    said = (
        f"Here it is:\n```c\n{helpers.FIXED}    /* safe now */\n```\nIt checks the length.",
        helpers.REMOVED.strip(),
        "```\n    return RECORD_OK;\n```",
    )
    done = run(conn, Saying(*said), per_row=3)
    assert done.by_verdict == {"fix": 1, "other": 1, "vulnerable": 1}
    assert stored(conn) == [
        ("fix", f"{helpers.FIXED}    /* safe now */\n"),
        ("other", "    return RECORD_OK;\n"),
        ("vulnerable", helpers.REMOVED.strip() + "\n"),
    ]


def test_the_question_shows_the_gap_and_neither_the_fix_nor_the_message(
    conn: sqlite3.Connection, add_commits: Add
) -> None:
    rows(conn, add_commits)
    engine = Saying("x")
    run(conn, engine)
    [request] = engine.asked
    text = "\n".join(message.content for message in request.messages)
    assert helpers.MERGED.masked_post in text and "static size_t read_u16" in text
    assert "RECORD_BAD" not in text and "fix overflow" not in text
    assert (request.temperature, request.max_tokens) == (0.0, 16)


def test_rows_that_are_through_go_back_before_s4_when_they_get_a_candidate(
    conn: sqlite3.Connection, add_commits: Add
) -> None:
    rows(conn, add_commits, 2, status="s4")
    engine = Saying("a();", ContextOverflow(9, 9, 9))
    done = run(conn, engine)
    assert (done.n_new, done.n_unanswered, done.n_sent_back) == (1, 1, 1)
    assert conn.execute("SELECT status, outcome FROM commits ORDER BY id").fetchall() == [
        ("s3_2", "open"),
        ("s4", "done"),
    ]
    assert len(stored(conn)) == 1, "reset before s4 keeps candidates"
    recipes.send_back(conn, "s2_2")
    assert stored(conn) == [], "their context has gone"


def test_rows_before_s2_2_are_not_asked_and_limit_and_scope_count_rows(
    conn: sqlite3.Connection, add_commits: Add
) -> None:
    rows(conn, add_commits, 3)
    add_commits(2, status="s2_1")
    assert propose.n_waiting(conn, Scope(), None) == 3
    assert propose.n_waiting(conn, Scope(start=2), None) == 2
    assert run(conn, Saying("x", "y"), limit=2).n_new == 2


def test_a_row_that_goes_back_while_the_model_writes_gets_no_candidate(
    conn: sqlite3.Connection, add_commits: Add
) -> None:
    rows(conn, add_commits)
    engine = Saying("x")
    poll = engine.poll

    def late() -> list[tuple[int, Completion | NoAnswer]]:
        recipes.send_back(conn, "s1_2")
        conn.execute("DELETE FROM steps")
        return poll()

    engine.poll = late  # type: ignore[method-assign]
    assert run(conn, engine).n_new == 0
    assert stored(conn) == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("```c\na();\n```", "a();\n"),
        ('text\n````cpp\na("```");\n````\nmore', 'a("```");\n'),
        ("```c\na();", "a();\n"),
        ("  a();", "  a();\n"),
        ("```c\n```", ""),
        ("", ""),
    ],
)
def test_the_code_of_an_answer_is_its_first_block_or_all_of_it(answer: str, code: str) -> None:
    assert propose.code_of(answer) == code


def test_nothing_is_the_fix_where_the_fix_left_nothing() -> None:
    assert propose.judge("", helpers.REMOVED, "", "a.c") == "fix"
    assert propose.judge("/* gone */\n", helpers.REMOVED, "", "a.c") == "fix"
    assert propose.judge("", helpers.REMOVED, helpers.FIXED, "a.c") == "other"


def test_the_command_says_where_no_row_is_ready(
    conn: sqlite3.Connection, add_commits: Add, db_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    add_commits(1)
    with pytest.raises(SystemExit) as end:
        main(["propose", "--db", str(db_path)])
    assert end.value.code == 0
    shown = capsys.readouterr()
    assert "No row has passed s2_2" in shown.err and shown.out == ""
    with pytest.raises(SystemExit) as end:
        main(["propose", "--db", str(db_path), "--json"])
    assert end.value.code == 0
    nothing = {"n_rows": 0, "n_new": 0, "n_unanswered": 0, "by_verdict": {}, "n_sent_back": 0}
    assert json.loads(capsys.readouterr().out) == nothing
    assert tools.context(conn, SETTINGS).prompts.get("propose").slots == {"function", "path", "masked", "context"}
