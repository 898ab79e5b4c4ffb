"""A hostile repository goes through the whole pipeline: nothing runs, nothing breaks, every row is counted."""

import io
import json
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hostile_repo
import pytest
from rich.console import Console
from verify_helpers import GoodEngine, show

from trustmine import cli, console, export, failures, ingest, labels, verify, worker
from trustmine.config import Settings
from trustmine.db import queries, recipes
from trustmine.db.connect import connect
from trustmine.errors import RepositoryError
from trustmine.stages import STAGES

SETTINGS = Settings(max_commit_tokens=20_000, max_function_tokens=20_000, max_attempts=1)
EXPLAINED = {
    "root_cause": "`n` is used as an index of `p` and never compared with its size.",
    "impact": "Whoever controls `n` writes past the end of `p`.",
    "cwe": "CWE-787",
}
ANSWERS = {
    "mask": "3-3",
    "locate": "The size is never checked.\nLines: 3-3",
    "list_elements": '[{"name": "p", "kind": "pointer variable"}]',
    "explain": json.dumps(EXPLAINED),
}
# Where commits of the corpus end that do not get through all stages.
REJECTED = {
    "long-message": "too_many_tokens",
    "no-message": "no_keyword",
    "blank-message": "no_keyword",
    "fences": "too_many_tokens",
    "identifiers": "too_many_tokens",
    "combining": "too_many_tokens",
    "long-line": "too_many_tokens",
    "holds-mask": "holds_mask",
    "deep-braces": "too_many_tokens",
    "deep-parens": "function_unparsed",
    "deep-brackets": "too_many_tokens",
    "unbalanced": "function_unparsed",
    "many-lines": "diff_too_large",
    "many-hunks": "diff_too_large",
    "long-lines": "diff_too_large",
    "one-line": "diff_too_large",
    "nul-in-code": "not_in_function",
    "deep-conditions": "unparsable",
    "like-headers": "not_in_function",
    "symlink": "function_unparsed",
    "became-symlink": "not_in_function",
    "was-symlink": "not_in_function",
    "submodule": "not_in_function",
    "gitmodules": "not_c",
    "mode-only": "noop",
    "attributes": "not_c",
    "binary-attribute": "not_c",
    "deleted": "not_in_function",
    "added": "only_additions",
    "nothing": "empty_diff",
}


@dataclass
class Corpus:
    repo: Path
    db: Path
    shas: dict[str, str]  # by slug

    @property
    def executed(self) -> Path:
        return self.repo.parent / "executed"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """The repository, and its database after a run with a model that names the same lines of every function."""
    folder = tmp_path_factory.mktemp("hostile")
    repo, shas = hostile_repo.write(folder)
    conn = connect(folder / "t.db", create=True)
    ingest.ingest(conn, ingest.find(str(repo)), name="hostile")
    for name in ("s0_1", "s0_2"):
        worker.advance(conn, name, SETTINGS)
    passed = [row[0] for row in conn.execute("SELECT sha FROM commits WHERE status = 's0_2'")]
    (folder / "known.csv").write_text("commit,cve\n" + "".join(f"{sha},CVE-2020-1\n" for sha in passed))
    labels.label(conn, folder / "known.csv")
    engine = GoodEngine(ANSWERS)
    model_id = recipes.ensure_model(conn, engine.info)
    for name, stage in list(STAGES.items())[2:]:
        worker.advance(conn, name, SETTINGS, engine=(engine, model_id) if stage.KIND == "llm" else None)
    conn.close()
    yield Corpus(repo, folder / "t.db", shas)
    shutil.rmtree(folder)


@pytest.fixture
def conn(corpus: Corpus) -> Iterator[sqlite3.Connection]:
    conn = connect(corpus.db, read_only=True)
    yield conn
    conn.close()


def test_every_row_is_counted_and_ends_where_it_should(conn: sqlite3.Connection, corpus: Corpus) -> None:
    assert len(corpus.shas) >= 60
    ends = {sha: reason or outcome for sha, outcome, reason in
            conn.execute("SELECT sha, outcome, reject_reason FROM commits")}  # fmt: skip
    assert {slug: ends[sha] for slug, sha in corpus.shas.items()} == {
        slug: REJECTED.get(slug, "done") for slug in corpus.shas
    }
    counts = queries.funnel(conn)
    assert sum(n.failed + sum(n.rejected.values()) for n in counts.values()) + counts["s4"].passed == len(ends)
    # One tree has an entry without a name, which git itself refuses to read.
    errors = [row[0] for row in conn.execute("SELECT error FROM failures")]
    assert [re.search(r"git: fatal: (.*?) Try:", error)[1] for error in errors] == ["empty filename in tree entry"]  # type: ignore[index]


def test_nothing_was_executed_nor_anything_written_beside_the_repository(corpus: Corpus) -> None:
    assert not corpus.executed.exists()
    assert not Path("executed").exists()
    assert not Path("executed.c").exists()
    # The traps are set: git run carelessly falls into them.
    subprocess.run(["git", "-C", str(corpus.repo), "log", "-1", "-p", "--ext-diff", corpus.shas["sql"]],
                   capture_output=True, check=False)  # fmt: skip
    assert corpus.executed.exists()
    corpus.executed.unlink()


def test_replacements_and_grafts_change_nothing(conn: sqlite3.Connection, corpus: Corpus) -> None:
    assert list((corpus.repo / "refs" / "replace").iterdir())
    for sha, parents, message, encoding in conn.execute(
        "SELECT sha, parents, message, encoding FROM commits JOIN messages ON commit_id = id"
    ):
        stored = subprocess.run(["git", "-C", str(corpus.repo), "cat-file", "commit", sha], capture_output=True,
                                check=True, env={**hostile_repo.ENV, "GIT_NO_REPLACE_OBJECTS": "1"}).stdout  # fmt: skip
        head, _, body = stored.partition(b"\n\n")
        assert body == message.encode(encoding)
        assert parents.split() == [line[7:].decode() for line in head.split(b"\n") if line.startswith(b"parent ")]


def test_what_is_stored_can_be_verified(corpus: Corpus) -> None:
    conn = connect(corpus.db)
    results = verify.verify(conn, SETTINGS, show, repair=True)  # with the word index
    conn.close()
    assert [(result.check.name, result.examples, result.skipped) for result in results
            if result.n_found or result.skipped] == []  # fmt: skip


# ----------------------------------------------------------------------- what people see


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """All that a command prints, as on a terminal without colours."""
    drawn = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=drawn, highlight=False, width=120))
    with pytest.raises(SystemExit) as ended:
        cli.main(list(args))
    assert not ended.value.code
    shown = capsys.readouterr()
    return drawn.getvalue() + shown.out + shown.err


STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_no_command_lets_a_commit_steer_the_terminal(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    db = ("--db", str(corpus.db))
    commands = [("status",), ("status", "--json"), ("failures",), ("failures", "--json"), ("verify", "--quick")]
    commands += [("show", sha) for sha in corpus.shas.values()]
    commands += [("show", corpus.shas[slug], "--json") for slug in ("ansi", "right-to-left", "path-escape", "nul")]
    for command in commands:
        text = said(monkeypatch, capsys, *command, *db)
        assert not STEERING.search(text), command
        assert len(text) < 1_000_000, command
    assert "\\x1b[31m" in said(monkeypatch, capsys, "show", corpus.shas["ansi"], *db)
    assert "[red]x[/red]" in said(monkeypatch, capsys, "show", corpus.shas["markup"], *db)
    assert "more characters" in said(monkeypatch, capsys, "show", corpus.shas["long-message"], *db)
    found = json.loads(said(monkeypatch, capsys, "show", corpus.shas["ansi"], "--json", *db))
    assert found[0]["message"].encode() == hostile_repo.FIX + hostile_repo.ANSI


def test_pages_show_text_as_text(corpus: Corpus) -> None:
    program = (
        "import sys; from pathlib import Path; from trustmine.web import serve;"
        "sys.exit(serve(Path(sys.argv[1]), port=0, ready=lambda url: print(url, flush=True)))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(corpus.db)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        url = process.stdout.readline().strip()
    try:
        pages = [f"trustmine/commit?sha={corpus.shas[slug]}" for slug in ("html", "path-html", "sql", "long-message")]
        for path in (*pages, "trustmine/commit_log?_size=max", "trustmine/failures", "trustmine/diff_files?_size=max"):
            with urllib.request.urlopen(url + path, timeout=60) as answer:
                page = answer.read().decode("utf-8")
            assert "<script>alert" not in page, path
            assert "<img src=x" not in page, path
        assert "&lt;img src=x onerror=alert(1)&gt;.c" in page
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("format", ["alpaca", "messages"])
def test_exports_are_valid_files(conn: sqlite3.Connection, corpus: Corpus, tmp_path: Path, format: str) -> None:
    manifest = export.export(conn, tmp_path / "out", format)
    n_written = sum(sum(by_task.values()) for by_task in manifest.counts.values())
    assert n_written > 10, "most are near-duplicates of one another, and left out"
    n_read = 0
    for path in (tmp_path / "out").glob("*.json*"):
        text = path.read_bytes().decode("utf-8")
        if path.name == "manifest.json":
            continue
        rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        n_read += len(rows)
        assert all(isinstance(row["id"], str) and row["commit"] in text for row in rows)
    assert n_read == n_written


# ------------------------------------------------------------------ other kinds of trouble


def test_a_repository_with_sha_256_names_is_refused_clearly(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    subprocess.run(["git", "init", "-q", "--object-format=sha256", str(repo)], check=True, env=hostile_repo.ENV)
    with pytest.raises(RepositoryError, match="SHA-256 object names") as caught:
        ingest.find(str(repo))
    assert "SHA-1 clone" in caught.value.hint


def test_a_partial_clone_touches_no_network_and_its_rows_fail_with_the_reason(tmp_path: Path) -> None:
    source, clone = tmp_path / "source", tmp_path / "clone.git"
    git = hostile_repo.git
    subprocess.run(["git", "init", "-q", "-b", "main", str(source)], check=True, env=hostile_repo.ENV)
    for content in (hostile_repo.PRE, hostile_repo.POST):
        (source / "a.c").write_bytes(content)
        git(source, "add", "a.c")
        git(source, "commit", "-q", "-m", "Fix overflow")
    git(source, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--bare", "--filter=blob:none", source.as_uri(), str(clone))
    with socket.create_server(("127.0.0.1", 0)) as promisor:
        promisor.settimeout(0.2)
        git(clone, "config", "remote.origin.url", f"http://127.0.0.1:{promisor.getsockname()[1]}/gone.git")
        conn = connect(tmp_path / "t.db", create=True)
        ingest.ingest(conn, ingest.find(str(clone)))
        tally = worker.advance(conn, "s0_1", Settings(max_attempts=1))
        with pytest.raises(TimeoutError):
            promisor.accept()
    assert (tally.failed, tally.total) == (2, 2)
    errors = [row[0] for row in conn.execute("SELECT error FROM failures")]
    assert all(error.startswith("MissingObject: Cannot read blobs of commit") for error in errors)
    assert len({cause.cause for cause in failures.causes(conn)}) == 1
    conn.close()
