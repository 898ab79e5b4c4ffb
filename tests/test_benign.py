"""Long-lived functions as examples of "no vulnerability detected": which ones, how they are asked, where they go."""

import dataclasses
import json
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stage_helpers as helpers

from trustmine import benign, ingest, tokens, wording
from trustmine.cli import main
from trustmine.config import Settings
from trustmine.db import facts, recipes
from trustmine.db.connect import connect
from trustmine.errors import RepositoryError
from trustmine.export import export
from trustmine.records import Verdict

Git = Callable[..., str]

HEADER = "#define LIMIT 64\nstruct record { char name[LIMIT]; int n; };\nint shift(int);\n"


def function(name: str, n_statements: int = 3) -> str:
    steps = "".join(f"    n = shift(n + {step});\n" for step in range(n_statements))
    return f"int {name}(struct record *r)\n{{\n    int n = r->n;\n\n{steps}    return n > LIMIT ? LIMIT : n;\n}}\n\n"


@pytest.fixture
def history(git: Git, tmp_path: Path, conn: sqlite3.Connection) -> dict[str, int]:
    """Four commits; name -> commit id. `old` is from the first, `mended` from a fix, `young` from the last one."""
    git("status")
    folder = tmp_path / "repo"

    def commit(name: str, text: str, year: int) -> None:
        (folder / "lib").mkdir(exist_ok=True)
        (folder / "lib" / "a.c").write_text('#include "a.h"\n\n' + text)
        (folder / "lib" / "a.h").write_text(HEADER)
        (folder / "lib" / "copy.c").write_text(function("elder", 8))
        (folder / "tests").mkdir(exist_ok=True)
        (folder / "tests" / "t.c").write_text(function("tested"))
        git("add", "-A")
        date = f"{year}-01-01T00:00:00Z"
        git("commit", "-q", "-m", name, env={"GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date})

    old = function("old") + function("elder", 8) + function("huge", 400)
    commit("first", old + function("broken") + function("pair"), 2010)
    commit("second", old + function("broken") + function("pair") + function("middle"), 2015)
    commit("fix", old + function("broken", 4) + function("pair") + function("middle"), 2018)
    commit("last", old + function("broken", 4) + function("pair") + function("middle") + function("young"), 2024)
    ingest.ingest(conn, ingest.find(str(folder)), name="toy")
    return {message.strip(): i for i, message in conn.execute("SELECT commit_id, message FROM messages")}


def choose(conn: sqlite3.Connection, per_repo: int = 9, **settings: Any) -> benign.Chosen:
    return benign.choose(conn, Settings(**settings), 1, per_repo)


def chosen(conn: sqlite3.Connection, columns: str = "name") -> list[tuple[Any, ...]]:
    return conn.execute(f"SELECT {columns} FROM benign_functions ORDER BY n_commits DESC, first_line").fetchall()


def know(conn: sqlite3.Connection, history: dict[str, int]) -> None:
    """`fix` is a known fix of `broken`; another one is of a function called as `pair`."""
    conn.execute(
        """INSERT INTO labels (commit_id, source, identifier, label, labelled_at_s)
           VALUES (?, 'list', 'CVE-2018-1', 'yes', 0)""",
        (history["fix"],),
    )
    pair = dataclasses.replace(helpers.FUNCTION, name="pair", path="lib/a.c", old_path="lib/old.c")
    facts.write(conn, [(history["second"], pair)])


def test_the_longest_lived_are_taken_and_none_that_a_fix_has_touched(
    conn: sqlite3.Connection, history: dict[str, int]
) -> None:
    know(conn, history)
    done = choose(conn)
    assert chosen(conn) == [("old",), ("elder",), ("middle",), ("young",)]
    assert done.left_out == {"touched_by_a_fix": 1, "in_a_function_pair": 1, "too_long": 1, "copy": 1}
    assert (done.repo, done.n_functions, done.n_chosen, done.n_missing, done.has_lengths) == ("toy", 8, 4, 5, False)
    assert choose(conn, 2).n_chosen == 2
    assert chosen(conn) == [("old",), ("elder",)], "a run replaces what the one before chose"


def test_a_verdict_of_the_model_counts_as_a_fix_too(conn: sqlite3.Connection, history: dict[str, int]) -> None:
    facts.write(conn, [(history["fix"], Verdict("yes", "model", 0.9, 0.1, 0.0, 0.9))])
    choose(conn)
    assert ("broken",) not in chosen(conn) and ("pair",) in chosen(conn)


def test_a_function_of_a_pair_is_known_by_its_tokens_wherever_it_stands(
    conn: sqlite3.Connection, history: dict[str, int], add_commits: Callable[..., list[int]]
) -> None:
    [other] = add_commits(1, repo="fork")
    text = function("elder", 8).replace("    ", "\t").replace("{", "/* copied */ {")
    copied = dataclasses.replace(helpers.FUNCTION, path="x.c", post_text=text)
    facts.write(conn, [(other, copied)])
    assert choose(conn).left_out["in_a_function_pair"] == 2, "in both files"
    assert ("elder",) not in chosen(conn)


def test_a_function_that_a_fix_renamed_is_known_by_its_name_before_too(
    conn: sqlite3.Connection, history: dict[str, int]
) -> None:
    renamed = dataclasses.replace(
        helpers.FUNCTION, name="middle_bounded", path="lib/a.c", old_path="lib/a.c",
        pre_text="int middle(int a)\n{\n    b();\n}\n", post_text="int middle_bounded(int a)\n{\n    c();\n}\n",
    )  # fmt: skip
    facts.write(conn, [(history["second"], renamed)])
    assert choose(conn).left_out["in_a_function_pair"] == 1
    assert ("middle",) not in chosen(conn)


def test_everything_that_leads_back_to_the_function_is_stored(
    conn: sqlite3.Connection, history: dict[str, int], git: Git
) -> None:
    choose(conn)
    rows = conn.execute("SELECT * FROM benign_functions WHERE name = 'middle'")
    names = [column[0] for column in rows.description]
    row = dict(zip(names, rows.fetchone(), strict=True))
    lines = git("show", f"{row['tree_sha']}:lib/a.c").split("\n")
    assert "\n".join(lines[row["first_line"] - 1 : row["last_line"]]) + "\n" == row["text"]
    assert row["tree_sha"] == git("rev-parse", "HEAD") and row["oid"] == git("rev-parse", "HEAD:lib/a.c")
    assert (row["since_commit_id"], row["n_commits"], row["n_changes"]) == (history["second"], 2, 2)
    assert (row["since_time_s"], row["is_cut"], row["split"]) == (1_420_070_400, 0, "train")
    assert row["n_tokens"] == tokens.count(row["text"])


def test_an_example_asks_like_locate_with_context_and_is_answered_by_nothing_found(
    conn: sqlite3.Connection, history: dict[str, int]
) -> None:
    choose(conn)
    found = conn.execute(
        """SELECT i.instruction, i.input, i.output, i.meta, i.split, b.name, b.text FROM instructions AS i
           JOIN benign_functions AS b ON b.since_commit_id = i.commit_id AND b.example_no = i.example_no
           WHERE task = 'benign'"""
    ).fetchall()
    assert len(found) == len(chosen(conn)) > 3
    for instruction, given, output, meta, split, name, text in found:
        assert instruction in wording.INSTRUCTIONS["locate"]
        assert given.startswith(f"Function `{name}` in `lib/a.c`, every line with its number:\n\n```c\n")
        assert "\n1\tint" in given
        assert all(line in given for line in text.split("\n"))
        assert output == "No vulnerability detected in this function."
        assert json.loads(meta)["segments"] == []
        assert split == ("bench" if name == "young" else "train")
    assert any("Definitions of names used:" in given and "#define LIMIT 64" in given for _, given, *_ in found)


def test_the_same_database_and_repository_give_the_same_examples(
    conn: sqlite3.Connection, history: dict[str, int]
) -> None:
    def everything() -> list[tuple[Any, ...]]:
        return [*chosen(conn, "*"), *conn.execute("SELECT * FROM instructions ORDER BY commit_id, example_no")]

    choose(conn)
    first = everything()
    choose(conn)
    assert everything() == first


def test_a_history_that_was_deepened_and_not_ingested_again_is_an_error(
    conn: sqlite3.Connection, history: dict[str, int], tmp_path: Path
) -> None:
    [path] = conn.execute("SELECT path FROM repos").fetchone()
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", "--bare", "--depth=2", f"file://{path}", str(shallow)], check=True)
    ingest.ingest(conn, ingest.find(str(shallow)), name="shallow")
    subprocess.run(["git", "fetch", "-q", "--unshallow"], check=True, cwd=shallow)
    with pytest.raises(RepositoryError, match="further back than was ingested"):
        benign.choose(conn, Settings(), 2, 9)
    ingest.ingest(conn, ingest.find(str(shallow)), name="shallow")
    assert benign.choose(conn, Settings(), 2, 9).n_chosen > 0


def test_lengths_are_those_of_vulnerable_functions(conn: sqlite3.Connection, history: dict[str, int]) -> None:
    long = tokens.count(function("elder", 8))
    ids = [*history.values()]
    for number in range(benign.MIN_LENGTHS):  # of commits that are none of this repository's
        conn.execute(
            """INSERT INTO commits (id, repo_id, sha, parents, author_time_s, commit_time_s)
               VALUES (?, 1, ?, '', 0, 0)""",
            (max(ids) + 1 + number, f"{number:040x}"),
        )
        pair = dataclasses.replace(helpers.FUNCTION, path="x.c", old_path="x.c", n_tokens=long)
        facts.write(conn, [(max(ids) + 1 + number, pair)])
    done = choose(conn, 3)
    assert chosen(conn) == [("elder",)]
    assert (done.has_lengths, done.n_missing) == (True, 2)


def test_sending_commits_back_leaves_benign_examples_alone(conn: sqlite3.Connection, history: dict[str, int]) -> None:
    choose(conn)
    recipe = recipes.ensure(conn, "s0_1", {"stage": "s0_1"}, None)
    for i in history.values():
        conn.execute("INSERT INTO steps VALUES (?, 's0_1', ?)", (i, recipe))
    before = conn.execute("SELECT count(*) FROM instructions").fetchone()
    assert recipes.send_back(conn, "s0_1") == 4
    assert conn.execute("SELECT count(*) FROM instructions").fetchone() == before


def test_an_export_holds_them_with_their_own_origin(
    conn: sqlite3.Connection, history: dict[str, int], tmp_path: Path
) -> None:
    choose(conn)
    made = export(conn, tmp_path / "out", "alpaca", tasks=["benign"])
    assert made.counts == {"train": {"benign": 5}, "bench": {"benign": 1}}
    rows = json.loads((tmp_path / "out" / "train.json").read_text())
    assert {(row["function"], row["path"], row["label_source"]) for row in rows} == {
        (name, "lib/a.c", "lifespan") for (name,) in chosen(conn) if name != "young"
    }


def test_a_database_of_version_1_can_hold_them(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "old.db", isolation_level=None)
    old.executescript((Path(__file__).parent / "db" / "schemas" / "v1.sql").read_text(encoding="utf-8"))
    old.execute("INSERT INTO repos (name, path, ingested_at_s) VALUES ('r', '/r', 0)")
    old.execute(
        "INSERT INTO commits (id, repo_id, sha, parents, author_time_s, commit_time_s) VALUES (1, 1, ?, '', 0, 0)",
        ("a" * 40,),
    )
    old.execute("INSERT INTO instructions VALUES (1, 'locate', 1, 'train', 'i', 'n', 'o', '{}')")
    old.close()
    conn = connect(tmp_path / "old.db")
    conn.execute("INSERT INTO instructions VALUES (1, 'benign', 1, 'train', 'i', 'n', 'o', '{}')")
    assert conn.execute("SELECT task FROM instructions ORDER BY task").fetchall() == [("benign",), ("locate",)]
    assert conn.execute("SELECT count(*) FROM training_samples").fetchone() == (0,)
    assert conn.execute("PRAGMA legacy_alter_table").fetchone() == (0,)
    conn.close()


def test_the_command_says_what_it_chose(
    conn: sqlite3.Connection, history: dict[str, int], db_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            main(["benign", "--per-repo", "2", "--db", str(db_path), *arguments])
        assert end.value.code == 0
    shown = capsys.readouterr()
    assert '"n_chosen": 2' in shown.out and "too_long 1" in shown.out
    assert "toy: of any length, for want of 16 vulnerable functions" in shown.err


def test_a_repository_whose_first_ingest_was_cut_off_is_an_error_or_left_out(
    conn: sqlite3.Connection, history: dict[str, int], tmp_path: Path, db_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cut off"
    subprocess.run(["git", "clone", "-q", str(tmp_path / "repo"), str(folder)], check=True)
    ingest.register(conn, ingest.find(str(folder)), "more/cut")
    with pytest.raises(
        RepositoryError, match=r"more/cut has not been ingested to the end\n.*cut off.*\ntrustmine ingest"
    ):
        benign.choose(conn, Settings(), 2, 9)
    conn.close()
    command = ["benign", "--per-repo", "2", "--db", str(db_path), "--json"]
    for more, code in (["--repo", "toy"], 0), (["--repo", "cut"], 1), ([], 0):
        with pytest.raises(SystemExit) as end:
            main([*command, *more])
        assert end.value.code == code, more
        shown = capsys.readouterr()
        assert ("more/cut has not been ingested to the end" in shown.err) == ("toy" not in more)
        assert code == 1 or [one["repo"] for one in json.loads(shown.out)] == ["toy"]
