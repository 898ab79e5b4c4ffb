"""Failures are grouped by what they have in common, and rows set aside come back."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from trustmine import cli
from trustmine.db import claims, queries, recipes
from trustmine.db.claims import Failure, Scope
from trustmine.failures import cause_of, causes, retry

Add = Callable[..., list[int]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "MissingObject: Cannot read blob 3f2a9c1d00 in /a/b.git",
            "MissingObject: Cannot read blob ff2a9c1d01 in /c/d e",
        ),
        ("ValueError: 3 files in a commit", "ValueError: 12 files in a commit"),
        ("IdentityError: src/a.c 1234567 plus patch", "IdentityError: lib/b/x.c 89abcde plus patch"),
        ("KeyError: 'it\\'s'", "KeyError: 'other'"),
        ('X: "a 1"', 'X: "b 2 c"'),
        ("RuntimeError: llama_decode: -3 after 1200 tokens", "RuntimeError: llama_decode: -1 after 7 tokens"),
        ("error at 0xdeadbeef", "error at 0x1"),
    ],
)
def test_numbers_paths_shas_and_quoted_text_do_not_split_a_cause(one: str, other: str) -> None:
    assert cause_of(one) == cause_of(other.removesuffix(" e"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ValueError: no", "TypeError: no"),
        ("MissingObject: Cannot read blob 3f2a9c1d00", "MissingObject: Cannot read tree 3f2a9c1d00"),
        (claims.DIED, claims.FELL_SILENT),
    ],
)
def test_different_causes_stay_apart(one: str, other: str) -> None:
    assert cause_of(one) != cause_of(other)


def test_words_that_read_like_hexadecimal_numbers_stay() -> None:
    assert cause_of("defaced facade, effaced") == "defaced facade, effaced"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["/" * 200_000, "a/" * 100_000, "'" * 200_000, "'\\" * 100_000, "f" * 200_000, "x@" * 99_999]
)
def test_a_hostile_error_takes_no_time(text: str) -> None:
    cause_of(text[:500])  # what is stored of an error


@pytest.fixture
def failed(conn: sqlite3.Connection, add_commits: Add) -> sqlite3.Connection:
    """Rows 1-3 set aside for one cause, 4 for another, 5 failed once, 6 never; 7 of another repository set aside."""
    add_commits(6)
    add_commits(1, repo="other")
    recipe = recipes.ensure(conn, "s0_1", {"stage": "s0_1"}, None)
    for n_times in range(2):
        commits = {c.id: c for c in claims.claim(conn, "s0_1", "ingested", "a", limit=9, lease_s=60)}
        wrong = {i: f"ValueError: {i} of /p/{i}" for i in (1, 2, 3, 7)} | {4: "TypeError: \x1b[31mno"}
        if n_times == 0:
            wrong[5] = "TypeError: \x1b[31mno"
        results = [(commits[i], Failure(error, "traceback")) for i, error in wrong.items()]
        claims.finish(conn, "s0_1", "a", recipe, results, max_attempts=2)
        claims.release(conn, "a")
    return conn


def test_causes_are_counted_commonest_first_with_an_example(failed: sqlite3.Connection) -> None:
    assert [(c.stage, c.cause, c.n_set_aside, c.n_retried, c.example) for c in causes(failed)] == [
        ("s0_1", "ValueError: N of PATH", 4, 0, f"{1:040x}"),
        ("s0_1", "TypeError: \x1b[31mno", 1, 1, f"{4:040x}"),
    ]
    other = queries.repo_id(failed, "other")
    assert [c.n_set_aside for c in causes(failed, Scope(repo_id=other))] == [1]


@pytest.mark.parametrize(
    ("how", "back"),
    [
        ({}, [1, 2, 3, 4, 7]),
        ({"stage": "s0_1"}, [1, 2, 3, 4, 7]),
        ({"stage": "s0_2"}, []),
        ({"cause": "typeerror"}, [4]),
        ({"cause": "ValueError: N of PATH"}, [1, 2, 3, 7]),
        ({"cause": "/p/3"}, [3]),
        ({"scope": Scope(repo_id=2)}, [7]),
    ],
)
def test_rows_set_aside_come_back_as_if_never_tried(
    failed: sqlite3.Connection, how: dict[str, object], back: list[int]
) -> None:
    assert retry(failed, **how) == len(back)  # type: ignore[arg-type]
    is_failed = failed.execute("SELECT id FROM commits WHERE outcome = 'failed'").fetchall()
    assert [row[0] for row in is_failed] == [i for i in (1, 2, 3, 4, 7) if i not in back]
    ids = json.dumps(back)
    assert failed.execute("SELECT count(*) FROM failures WHERE commit_id IN (SELECT value FROM json_each(?))",
                          (ids,)).fetchone() == (0,)  # fmt: skip
    assert failed.execute("SELECT attempts FROM commits WHERE id = 5").fetchone() == (1,), "it is still being tried"
    claimed = {c.id for c in claims.claim(failed, "s0_1", "ingested", "b", limit=9, lease_s=60)}
    assert claimed == {5, 6, *back}


def test_a_row_aside_that_was_given_up_comes_back(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(1)
    conn.execute("UPDATE commits SET status = 's0_2', outcome = 'rejected', reject_stage = 's0_3',"
                 " reject_reason = 'undecided'")  # fmt: skip
    recipe = recipes.ensure(conn, "s4", {"stage": "s4"}, None)
    aside = (("s0_3", "undecided"),)

    def take() -> list[object]:
        return list(claims.claim(conn, "s4", "s3_2", "a", limit=1, lease_s=60, aside=aside))

    [commit] = take()
    claims.finish(conn, "s4", "a", recipe, [(commit, Failure("ValueError: no", "tb"))], max_attempts=1)  # type: ignore[list-item]
    assert take() == []
    assert [(c.stage, c.n_set_aside) for c in causes(conn)] == [("s4", 1)]
    assert retry(conn) == 1
    assert take() == [commit]
    assert conn.execute("SELECT outcome, attempts FROM commits").fetchone() == ("rejected", 0)


def test_the_commands_show_and_bring_back(
    failed: sqlite3.Connection, db_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main([*args, "--db", str(db_path)])
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    code, out, _ = run("failures")
    assert code == 0
    assert "ValueError: N of PATH" in out
    assert "TypeError: \\x1b[31mno" in out
    assert "\x1b" not in out
    found = json.loads(run("failures", "--json")[1])
    assert found[0] == {
        "stage": "s0_1",
        "cause": "ValueError: N of PATH",
        "n_set_aside": 4,
        "n_retried": 0,
        "example": f"{1:040x}",
        "error": "ValueError: 1 of /p/1",
    }
    assert run("retry", "--stage", "s9")[0] == 1
    assert run("retry", "--repo", "other")[2] == "1 rows are pending again\n"
    assert run("retry")[2] == "4 rows are pending again\n"
    assert "no failures" not in run("failures")[1], "row 5 failed once"
    failed.execute("DELETE FROM failures")
    assert "no failures" in run("failures")[1]
