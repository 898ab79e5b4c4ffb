"""Lists of known fixes: read tolerantly, matched exactly, and they outrank the model."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from trustmine import labels
from trustmine.db import claims, recipes
from trustmine.errors import TrustmineError
from trustmine.records import Advance, Commit, Outcome, Reject, Verdict

Add = Callable[..., list[int]]


def write(path: Path, text: str) -> Path:
    file = path / "known.csv"
    file.write_text(text, encoding="utf-8")
    return file


def judge(conn: sqlite3.Connection, outcome: Callable[[Commit], Outcome]) -> None:
    commits = claims.claim(conn, "s0_3", "s0_2", "w", limit=99, lease_s=60)
    recipe = recipes.ensure(conn, "s0_3", {"stage": "s0_3"}, None)
    claims.finish(conn, "s0_3", "w", recipe, [(c, outcome(c)) for c in commits], max_attempts=3)


def stored(conn: sqlite3.Connection) -> list[tuple[object, ...]]:
    return conn.execute("SELECT commit_id, source, identifier, label, cwe FROM labels").fetchall()


def test_columns_are_found_by_name_whatever_their_case(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path
) -> None:
    add_commits(2)
    file = write(tmp_path, f"\ufeffRepo,SHA,id,CWE\ntoy,{1:040X},cve-2020-1,cwe-079\nelse,{2:040x},GHSA-a-b-c,\n")
    done = labels.label(conn, file)
    assert (done.n_labels, done.n_commits, done.n_unknown) == (2, 2, 0)
    assert stored(conn) == [(1, "known", "CVE-2020-1", "yes", "CWE-79"), (2, "known", "GHSA-a-b-c", "yes", None)]


def test_one_commit_may_fix_several_cves(conn: sqlite3.Connection, add_commits: Add, tmp_path: Path) -> None:
    add_commits(1)
    file = write(tmp_path, f"commit,cve\n{1:040x},CVE-2020-1\n{1:040x},CVE-2020-2\n{9:040x},CVE-2020-3\n")
    done = labels.label(conn, file)
    assert (done.n_labels, done.n_commits, done.n_unknown) == (2, 1, 1)
    assert labels.label(conn, file).n_labels == 2, "again changes nothing"
    assert len(stored(conn)) == 2


def test_a_cell_may_hold_several_identifiers(conn: sqlite3.Connection, add_commits: Add, tmp_path: Path) -> None:
    add_commits(3)
    lines = [
        'commit,cve,cwe',
        f'{1:040x},"cve-2020-1, CVE-2020-2 (GHSA-2222-3333-4444)","CWE-787, CWE-125"',
        f"{2:040x},CURL-CVE-2020-3|CVE-2020-3,787;20;NVD-CWE-Other",
        f'{3:040x},"GHSA-2222-3333-4444, OSV-2020-7",NVD-CWE-noinfo',
    ]  # fmt: skip
    for identifier in (
        "CVE-2020-1, CVE-2020-2 (GHSA-2222-3333-4444)",
        "CVE-2019-9",
    ):  # from before, and of another line
        conn.execute(
            "INSERT INTO labels VALUES (1, 'known', ?, 'yes', NULL, 0, '', NULL, 'list', '', '')", (identifier.upper(),)
        )
    file = write(tmp_path, "\n".join(lines))
    for _ in range(2):
        assert labels.label(conn, file).n_labels == 5
        assert conn.execute("SELECT commit_id, identifier, cwe, other_cwes, aliases FROM labels").fetchall() == [
            (1, "CVE-2019-9", None, "", ""),
            (1, "CVE-2020-1", "CWE-787", "CWE-125", "GHSA-2222-3333-4444"),
            (1, "CVE-2020-2", "CWE-787", "CWE-125", "GHSA-2222-3333-4444"),
            (2, "CVE-2020-3", "CWE-787", "CWE-20", ""),
            (3, "GHSA-2222-3333-4444", None, "", ""),
            (3, "OSV-2020-7", None, "", ""),
        ]


@pytest.mark.parametrize(
    "cell", ["N/A", "-", "nan", "None", "[]", "NVD-CWE-noinfo", "NVD-CWE-Other;CWE-Other", "CWE-0", "no info",
             "unknown", "NVD-CWE-noinfo: Insufficient Information", "NVD-CWE-Other|NVD-CWE-noinfo", "--", "?"]
)  # fmt: skip
def test_what_lists_write_for_nothing_is_nothing(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path, cell: str
) -> None:
    add_commits(2)
    file = write(tmp_path, f"commit,cve,id,cwe\n{1:040x},{cell},{cell},{cell}\n{2:040x},{cell},12 of ours,{cell}\n")
    labels.label(conn, file)
    assert stored(conn) == [(1, "known", "", "yes", None), (2, "known", "12 of ours", "yes", None)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("commit,cve\n1234567,\n1234567,2020-1234\n", r"This is no CVE: '2020-1234'\n.*known.csv, line 3\nWrite CVE-"),
        ("commit,cve\n1234567,CVE-2020-XXXX\n", "This is no CVE: 'CVE-2020-XXXX'"),
        ("commit,cwe\n1234567,out of bounds\n", r"This is no CWE: 'out of bounds'\n.*known.csv, line 2\nWrite CWE-"),
        ("commit,cwe\n1234567,-1\n", "This is no CWE"),
    ],
)
def test_a_cell_without_what_it_should_hold_is_an_error(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path, text: str, complaint: str
) -> None:
    add_commits(1)
    with pytest.raises(TrustmineError, match=complaint):
        labels.label(conn, write(tmp_path, text))
    assert stored(conn) == []


def test_a_repository_that_is_here_narrows_the_match(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path
) -> None:
    add_commits(1)
    [other] = add_commits(1, repo="fork")
    conn.execute("UPDATE commits SET sha = ? WHERE id = ?", (f"{1:040x}", other))
    labels.label(conn, write(tmp_path, f"commit,repo\n{1:040x},fork\n"))
    assert [row[0] for row in stored(conn)] == [other]
    labels.label(conn, write(tmp_path, f"commit,repo\n{1:040x},never/ingested\n"))
    assert [row[0] for row in stored(conn)] == [1, other]


@pytest.mark.parametrize(
    "name",
    ["owner/toy", "toy", "Owner/Toy", "https://github.com/owner/toy.git", "git@github.com:owner/toy.git",
     "github.com/owner/toy"],
)  # fmt: skip
def test_a_repository_is_named_by_its_last_part_or_its_address_too(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path, name: str
) -> None:
    add_commits(1, repo="owner/toy")
    add_commits(1, repo="other/joy")
    conn.execute("UPDATE repos SET url = 'https://GitHub.com/owner/toy' WHERE id = 1")
    conn.execute("UPDATE commits SET sha = ?", ("ab" * 20,))
    done = labels.label(conn, write(tmp_path, f"commit,repo\nabababa,{name}\n{'ab' * 20},{name}\n"))
    assert (done.n_labels, done.n_unknown) == (2, 0)
    assert [row[0] for row in stored(conn)] == [1]


def test_a_few_digits_of_a_repository_that_is_not_here_are_unknown(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path
) -> None:
    add_commits(1, repo="owner/toy")
    conn.execute("UPDATE commits SET sha = ?", ("ab" * 20,))
    file = write(tmp_path, "commit,repo\nabababa,https://github.com/never/ingested\n")
    assert labels.label(conn, file).n_unknown == 1
    assert labels.audit(conn, file).n_unknown == 1
    assert labels.fixes(conn, file) == (set(), 1)
    assert labels.label(conn, write(tmp_path, "commit,repo\nabababa,\n")).n_labels == 1


def test_one_repository_alone_may_be_looked_in(conn: sqlite3.Connection, add_commits: Add, tmp_path: Path) -> None:
    add_commits(1, repo="owner/toy")
    [other] = add_commits(1, repo="fork")
    conn.execute("UPDATE commits SET sha = iif(id = 1, ?, ?)", ("ab" * 20, "ab" * 19 + "cd"))
    file = write(tmp_path, f"commit\n{'ab' * 20}\nabababa\n")
    with pytest.raises(TrustmineError, match=r"Several commits begin with abababa\n.*known.csv, line 3\n.*--repo"):
        labels.label(conn, file)
    assert stored(conn) == []
    done = labels.label(conn, file, repo_id=2)
    assert (done.n_commits, done.n_unknown) == (1, 1)
    assert [row[0] for row in stored(conn)] == [other]
    assert labels.audit(conn, file, 2).n_unknown == 1
    assert labels.fixes(conn, file, 2) == ({other}, 2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a,b\n1,2\n", "no column 'commit' or 'sha'"),
        ("", "no column"),
        ("commit\nxyz\n", "This is no commit"),
        ("commit,label\n1234567,maybe\n", "yes or no"),
    ],
)
def test_a_bad_list_is_one_clear_error(conn: sqlite3.Connection, tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(TrustmineError, match=complaint):
        labels.label(conn, write(tmp_path, text))
    assert stored(conn) == []


def test_rows_that_the_model_judged_otherwise_go_back(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path
) -> None:
    add_commits(3, status="s0_2")
    judge(conn, lambda c: Reject("not_a_fix", (Verdict("no", "model", 0.1, 0.8, 0.1, 0.1),)))
    done = labels.label(conn, write(tmp_path, f"commit\n{2:040x}\n"))
    assert done.n_sent_back == 1
    rows = conn.execute("SELECT status, outcome FROM commits ORDER BY id").fetchall()
    assert rows == [("s0_2", "rejected"), ("s0_2", "open"), ("s0_2", "rejected")]


def test_rows_already_decided_by_the_same_label_stay(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path
) -> None:
    add_commits(1, status="s0_2")
    file = write(tmp_path, f"commit\n{1:040x}\n")
    labels.label(conn, file)
    judge(conn, lambda c: Advance((Verdict("yes", "known"),)))
    assert labels.label(conn, file).n_sent_back == 0
    assert labels.label(conn, file, source="other", default="no").n_sent_back == 0, "any yes outranks a no"


def test_audit_counts_each_commit_where_it_was_lost(conn: sqlite3.Connection, add_commits: Add, tmp_path: Path) -> None:
    add_commits(4, status="s0_2")
    judge(conn, lambda c: Reject("not_a_fix") if c.id < 3 else Advance((Verdict("yes", "list"),)))
    file = write(tmp_path, "commit,cve\n" + "".join(f"{i:040x},CVE-2020-{i}\n" for i in (1, 1, 2, 3, 9)))
    found = labels.audit(conn, file)
    assert (found.n_commits, found.n_unknown) == (4, 1)
    assert found.lost == {("s0_3", "not_a_fix"): [f"{1:040x}", f"{2:040x}"]}
    assert (found.reached["s0_2"], found.reached["s0_3"], found.waiting) == (3, 1, {"s1_1": 1})


def test_a_cve_takes_back_rows_that_were_too_new_without_one(
    conn: sqlite3.Connection, add_commits: Add, tmp_path: Path
) -> None:
    add_commits(3, status="s0_3")
    commits = claims.claim(conn, "s1_1", "s0_3", "w", limit=99, lease_s=60)
    recipe = recipes.ensure(conn, "s1_1", {"stage": "s1_1"}, None)
    reasons = ("after_cutoff", "after_cutoff", "multi_hunk")
    results = [(commit, Reject(reason)) for commit, reason in zip(commits, reasons, strict=True)]
    claims.finish(conn, "s1_1", "w", recipe, results, max_attempts=3)
    file = write(tmp_path, f"commit,cve\n{1:040x},CVE-2024-1\n{2:040x},GHSA-a-b-c\n{3:040x},CVE-2024-2\n")
    assert labels.label(conn, file).n_sent_back == 1
    rows = conn.execute("SELECT status, outcome FROM commits ORDER BY id").fetchall()
    assert rows == [("s0_3", "open"), ("s0_3", "rejected"), ("s0_3", "rejected")]


def test_severity_and_what_brought_it_in_are_kept(conn: sqlite3.Connection, add_commits: Add, tmp_path: Path) -> None:
    add_commits(1)
    file = write(tmp_path, f"commit,id,severity,introduced_in\n{1:040x},CVE-2020-1,Critical,{'A' * 40}; {'b' * 8}\n")
    labels.label(conn, file)
    assert conn.execute("SELECT severity, introduced_by, quality FROM labels").fetchall() == [
        ("Critical", f"{'a' * 40} {'b' * 8}", "list")
    ]
