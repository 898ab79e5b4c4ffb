"""Labels from advisories: the right commits, the right quality, and the same again when read again."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trustmine import advisories, ingest
from trustmine.cli import main
from trustmine.db import claims, recipes
from trustmine.records import Advance, Verdict

Add = Callable[..., list[int]]
REPO = "https://github.com/owner/toy"


def record(name: str, *fixed: str, introduced: str = "0", repo: str = REPO, **more: Any) -> dict[str, Any]:
    events = [{"introduced": introduced}, *({"fixed": sha} for sha in fixed)]
    return {"id": name, "affected": [{"ranges": [{"type": "GIT", "repo": repo, "events": events}]}], **more}


def write(folder: Path, *records: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for number, one in enumerate(records):
        (folder / f"{number}.json").write_text(json.dumps(one))
    return folder


def stored(
    conn: sqlite3.Connection, columns: str = "commit_id, source, identifier, quality"
) -> list[tuple[object, ...]]:
    return conn.execute(f"SELECT {columns} FROM labels ORDER BY commit_id, source, identifier").fetchall()


def sha(number: int) -> str:
    return f"{number:040x}"


def test_a_fix_in_a_real_repository_is_labelled_with_all_that_the_record_says(
    conn: sqlite3.Connection, git: Callable[..., str], tmp_path: Path
) -> None:
    shas = []
    for number in range(2):
        git("commit", "-q", "--allow-empty", "-m", f"commit {number}")
        shas.append(git("rev-parse", "HEAD"))
    ingest.ingest(conn, ingest.find(str(tmp_path / "repo")), name="owner/toy")
    folder = write(
        tmp_path / "osv",
        record("OSV-2020-7", shas[1], introduced=shas[0], aliases=["CVE-2020-7"],
               database_specific={"cwe_ids": ["CWE-119", "CWE-787"], "severity": "HIGH"}),
        record("OSV-2020-8", "f" * 40),
    )  # fmt: skip
    done = advisories.label(conn, folder)
    assert (done.n_records, done.n_labels, done.n_commits, done.n_unknown) == (2, 1, 1, 1)
    assert done.by_quality == {"bisected": 1}
    columns = "sha, source, identifier, label, cwe, other_cwes, severity, quality, introduced_by, aliases"
    assert conn.execute(f"SELECT {columns} FROM labels JOIN commits ON id = commit_id").fetchall() == [
        (shas[1], "oss-fuzz", "CVE-2020-7", "yes", "CWE-787", "CWE-119", "HIGH", "bisected", shas[0], "OSV-2020-7")
    ]


def test_records_that_are_aliases_of_each_other_are_one_vulnerability(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path
) -> None:
    add_commits(2)
    folder = write(
        tmp_path / "osv",
        record("OSV-2020-1", sha(1), introduced="e" * 40),
        record("GHSA-2222-3333-4444", sha(2), aliases=["CVE-2020-1", "OSV-2020-1"]),
        record("CVE-2020-1", sha(2), database_specific={"cwe_ids": ["CWE-20"]}),
    )
    advisories.label(conn, folder)
    assert stored(conn, "commit_id, source, identifier, quality, cwe, aliases") == [
        (1, "oss-fuzz", "CVE-2020-1", "bisected", "CWE-20", "GHSA-2222-3333-4444 OSV-2020-1"),
        (2, "cve", "CVE-2020-1", "advisory", "CWE-20", "GHSA-2222-3333-4444 OSV-2020-1"),
        (2, "ghsa", "CVE-2020-1", "advisory", "CWE-20", "GHSA-2222-3333-4444 OSV-2020-1"),
    ]


def test_a_commit_may_fix_several_vulnerabilities_and_one_record_name_several_cves(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path
) -> None:
    add_commits(1)
    folder = write(tmp_path / "osv", record("GHSA-2222-3333-4444", sha(1), aliases=["CVE-2020-2", "CVE-2020-1"]),
                   record("OSV-2020-9", sha(1)))  # fmt: skip
    advisories.label(conn, folder)
    assert [row[2] for row in stored(conn)] == ["CVE-2020-1", "CVE-2020-2", "OSV-2020-9"]


def test_an_abbreviated_commit_counts_only_in_the_repository_that_is_named(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path
) -> None:
    add_commits(1, repo="owner/toy")
    add_commits(1, repo="other/toy")
    conn.execute("UPDATE commits SET sha = ?", ("ab" * 20,))
    fix = {"type": "FIX", "url": f"{REPO}/commit/{'ab' * 4}"}
    advisories.label(conn, write(tmp_path / "osv", {"id": "CVE-2020-1", "references": [fix]}))
    assert stored(conn) == [(1, "cve", "CVE-2020-1", "advisory")]


def test_a_repository_is_known_by_its_address_too(conn: sqlite3.Connection, add_commits: Add, tmp_path: Path) -> None:
    add_commits(1, repo="mine")
    conn.execute("UPDATE repos SET url = 'https://GitHub.com/owner/toy.git'")
    fix = {"type": "FIX", "url": f"{REPO}/commit/{sha(1)[:39]}"}
    advisories.label(conn, write(tmp_path / "osv", {"id": "CVE-2020-1", "references": [fix]}))
    assert [row[0] for row in stored(conn)] == [1]


def mention(conn: sqlite3.Connection, commit_id: int, kind: str, value: str) -> None:
    conn.execute("INSERT INTO identifiers VALUES (?, ?, ?)", (commit_id, kind, value))


def test_a_message_that_names_the_vulnerability_is_a_label_of_the_weakest_quality(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path
) -> None:
    add_commits(3, repo="owner/toy")
    add_commits(1, repo="other/one")
    for commit_id, kind, value in ((1, "CVE", "CVE-2020-1"), (2, "OSS-Fuzz", "53971"), (4, "CVE", "CVE-2020-1")):
        mention(conn, commit_id, kind, value)
    report = {"type": "REPORT", "url": "https://issues.oss-fuzz.com/issues/53971"}
    folder = write(tmp_path / "osv", record("CVE-2020-1"), record("OSV-2020-2", "f" * 40, references=[report]))
    assert advisories.label(conn, folder).by_quality == {"message": 2}
    assert stored(conn) == [(1, "message", "CVE-2020-1", "message"), (2, "message", "OSV-2020-2", "message")]
    # The advisory names the commit: what merely speaks of it is none.
    mention(conn, 3, "CVE", "CVE-2020-1")
    advisories.label(conn, write(tmp_path / "osv", record("CVE-2020-1", sha(3))))
    assert stored(conn) == [(2, "message", "OSV-2020-2", "message"), (3, "cve", "CVE-2020-1", "advisory")]


def test_reading_again_changes_nothing_and_what_is_not_said_any_more_goes(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path
) -> None:
    add_commits(2)
    first = record("OSV-2020-1", sha(1))
    other = record("OSV-2020-2", sha(2))
    folder = write(tmp_path / "osv", first, other)
    advisories.label(conn, folder)
    before = stored(conn)
    advisories.label(conn, folder)
    assert stored(conn) == before
    advisories.label(conn, write(folder, first | {"withdrawn": "2024-01-01T00:00:00Z"}))
    assert [row[0] for row in stored(conn)] == [2], "a record that was not read again stays"


def test_a_label_goes_where_the_record_gives_the_vulnerability_another_name(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path
) -> None:
    add_commits(3, repo="owner/toy")
    mention(conn, 3, "GHSA", "GHSA-5555-6666-7777")
    first = record("GHSA-2222-3333-4444", sha(1), aliases=["CVE-2020-1111"])
    other = record("GHSA-3333-3333-4444", sha(2), aliases=["CVE-2020-3333"])
    spoken = record("GHSA-5555-6666-7777", aliases=["CVE-2020-5555"])
    folder = write(tmp_path / "osv", first, other, spoken)
    advisories.label(conn, folder)
    assert [row[2] for row in stored(conn)] == ["CVE-2020-1111", "CVE-2020-3333", "CVE-2020-5555"]
    again = first | {"aliases": ["CVE-2020-2222"]}
    advisories.label(conn, write(folder, again, spoken | {"aliases": []}))
    now = [(1, "CVE-2020-2222"), (2, "CVE-2020-3333"), (3, "GHSA-5555-6666-7777")]
    assert stored(conn, "commit_id, identifier") == now
    advisories.label(conn, write(folder, again | {"withdrawn": "2024-01-01T00:00:00Z", "aliases": []}))
    assert stored(conn, "commit_id, identifier") == now[1:]


def judge(conn: sqlite3.Connection, verdict: Verdict) -> None:
    commits = claims.claim(conn, "s0_3", "s0_2", "w", limit=99, lease_s=60)
    recipe = recipes.ensure(conn, "s0_3", {"stage": "s0_3"}, None)
    claims.finish(conn, "s0_3", "w", recipe, [(c, Advance((verdict,))) for c in commits], max_attempts=3)


def test_rows_go_back_for_an_advisory_but_not_for_a_bisection(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path
) -> None:
    add_commits(2, status="s0_2")
    judge(conn, Verdict("yes", "model", 0.9, 0.05, 0.05, 0.9))
    folder = write(tmp_path / "osv", record("OSV-2020-1", sha(1)), record("GHSA-2222-3333-4444", sha(2)))
    assert advisories.label(conn, folder).n_sent_back == 1
    assert conn.execute("SELECT id FROM commits WHERE status = 's0_2'").fetchall() == [(2,)]
    judge(conn, Verdict("yes", "ghsa"))
    assert advisories.label(conn, folder).n_sent_back == 0
    gone = record("GHSA-2222-3333-4444", sha(2), withdrawn="2024-01-01T00:00:00Z")
    assert advisories.label(conn, write(folder, gone)).n_sent_back == 1, "the label that decided it is gone"


def test_the_command_counts_by_quality_and_names_what_it_could_not_read(
    db_path: Path, conn: sqlite3.Connection, add_commits: Add, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_commits(1)
    folder = write(tmp_path / "osv", record("OSV-2020-1", sha(1)))
    (folder / "bad\x1b[31m.json").write_text("{")
    for arguments in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            main(["label", "--osv", str(folder), "--db", str(db_path), *arguments])
        assert end.value.code == 0
    shown = capsys.readouterr()
    assert "bisected" in shown.out and '"n_labels": 1' in shown.out
    assert "Not read: bad\\x1b[31m.json: Expecting" in shown.err


@pytest.mark.parametrize("arguments", [["label"], ["label", "a.csv", "--osv", "b"]])
def test_either_a_file_or_a_folder_must_be_given(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2


@pytest.mark.parametrize("option", [["--set", "no"], ["--set", "yes"], ["--repo", "toy"]])
def test_what_is_for_a_file_is_not_taken_with_a_folder(
    db_path: Path, conn: sqlite3.Connection, add_commits: Add, tmp_path: Path, option: list[str]
) -> None:
    add_commits(1)
    folder = write(tmp_path / "osv", record("CVE-2020-1", sha(1)))
    with pytest.raises(SystemExit) as end:
        main(["label", "--osv", str(folder), "--db", str(db_path), *option])
    assert end.value.code == 2
    assert stored(conn) == []
