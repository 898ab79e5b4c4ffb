"""The index of a tree's symbols: kept in the database, brought along by differences, never made twice."""

import importlib
import sqlite3
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustmine import cparse, trees
from trustmine.db import facts
from trustmine.db.facts import FactReader
from trustmine.definitions import DefinitionFinder, Found
from trustmine.errors import TrustmineError
from trustmine.gitrepo import GitRepo, MissingObject
from trustmine.records import BlobSymbols
from trustmine.trees import TreeIndex

State = dict[str, bytes]
BASE: State = {
    "lib/a.c": b'#include "a.h"\nint own(void) { return far(1); }\n',
    "lib/a.h": b'#include "table.inc"\nint far(int n);\n#define LIMIT 8\n',
    "lib/table.inc": b"static const int table[] = { 1, 2 };\n",
    "src/far.c": b"int far(int n)\n{\n  return n;\n}\n",
    "notes.txt": b"int noted(void) { }\n",
}


def history(folder: Path, states: list[State]) -> tuple[GitRepo, list[str]]:
    """A repository with one commit per state, and their SHAs."""
    subprocess.run(["git", "init", "-q", "--bare", str(folder)], check=True)
    lines: list[bytes] = []
    for state in states:
        lines += [b"commit refs/heads/main", b"committer A <a@example.org> 1600000000 +0000", b"data 0", b"deleteall"]
        for path, content in state.items():
            lines += [b"M 100644 inline " + path.encode(), b"data %d" % len(content), content]
    git = ["git", "-C", str(folder)]
    subprocess.run([*git, "fast-import", "--quiet", "--force"], input=b"\n".join(lines) + b"\n", check=True)
    shas = subprocess.run([*git, "rev-list", "--reverse", "main"], capture_output=True, text=True, check=True)
    return GitRepo.open(folder), shas.stdout.split()


def places(found: Found) -> list[tuple[str, int, int, bytes]]:
    return [(d.path, d.first_line, d.last_line, d.text) for d in found.nearest]


def find(finder: DefinitionFinder, name: str, kind: str, sha: str, state: State, path: str = "lib/a.c") -> Found:
    return finder.find(name, kind, path, sha, state[path], 9)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often each content has been parsed."""
    counts: Counter[bytes] = Counter()

    def counting(source: bytes, grammar: str) -> cparse.FileSymbols:
        counts[source] += 1
        return cparse.file_symbols(source, grammar)

    monkeypatch.setattr(trees, "file_symbols", counting)
    return counts


def work(conn: sqlite3.Connection, repo: GitRepo, rows: list[tuple[str, State]]) -> list[Found]:
    """What a worker finds for these rows; its facts are stored after each."""
    finder = DefinitionFinder(repo, FactReader(conn))
    found = []
    for sha, state in rows:
        found += [find(finder, name, kind, sha, state) for name, kind in (("far", "function"), ("LIMIT", "macro"))]
        with conn:
            conn.execute("BEGIN")
            facts.write(conn, [(1, fact) for fact in finder.news(sha)])
    return found


def stored(conn: sqlite3.Connection) -> list[tuple[object, ...]]:
    return conn.execute("SELECT * FROM blob_symbols ORDER BY oid, grammar, parser").fetchall()


def test_a_second_worker_takes_the_index_from_the_database(
    conn: sqlite3.Connection, tmp_path: Path, parsed: Counter[bytes]
) -> None:
    repo, (sha,) = history(tmp_path / "r", [BASE])
    first = work(conn, repo, [(sha, BASE)])
    assert [places(found) for found in first] == [
        [("src/far.c", 1, 4, BASE["src/far.c"])],
        [("lib/a.h", 3, 3, b"#define LIMIT 8\n")],
    ]
    assert parsed == {content: 1 for path, content in BASE.items() if path != "notes.txt"}
    parsed.clear()
    before = stored(conn)
    assert work(conn, repo, [(sha, BASE)]) == first
    assert not parsed
    assert stored(conn) == before
    assert len(before) == 4


def test_no_blob_is_parsed_twice_in_a_history(conn: sqlite3.Connection, tmp_path: Path, parsed: Counter[bytes]) -> None:
    states = [
        BASE,
        {**BASE, "src/far.c": b"int far(int n) { return 2; }\n"},
        {**BASE, "copy/far.c": BASE["src/far.c"]},
        {path: content for path, content in BASE.items() if path != "src/far.c"},
        BASE,
    ]
    repo, shas = history(tmp_path / "r", states)
    work(conn, repo, list(zip(shas, states, strict=True)))
    assert set(parsed.values()) == {1}
    assert len(parsed) == 5


def test_rows_in_flight_do_not_parse_again_what_is_not_stored_yet(
    conn: sqlite3.Connection, tmp_path: Path, parsed: Counter[bytes]
) -> None:
    repo, shas = history(tmp_path / "r", [BASE, {**BASE, "new.c": b"int fresh;\n"}])
    finder = DefinitionFinder(repo, FactReader(conn))
    one, two = (finder.news(sha) for sha in shas)
    assert set(parsed.values()) == {1}
    assert set(one) <= set(two), "if the first row is lost, the second brings all that it needs"
    facts.write(conn, [(1, fact) for fact in one])
    assert set(finder.news(shas[1])) == set(two) - set(one)


def test_the_same_is_stored_whatever_the_order_of_rows(tmp_path: Path, conn: sqlite3.Connection) -> None:
    states = [BASE, {**BASE, "lib/a.h": b"#define LIMIT 9\n"}, {**BASE, "x.cc": b"class K { int k; };\n"}]
    repo, shas = history(tmp_path / "r", states)
    rows = list(zip(shas, states, strict=True))
    results = []
    for order in (rows, rows[::-1], [rows[1], rows[0], rows[2]]):
        conn.execute("DELETE FROM blob_symbols")
        work(conn, repo, order)
        results.append(stored(conn))
    assert results[0] == results[1] == results[2]


def test_a_large_tree_is_stored_over_several_rows(
    conn: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "MAX_NEWS_BYTES", 1)
    repo, (sha,) = history(tmp_path / "r", [BASE])
    finder = DefinitionFinder(repo, FactReader(conn))
    sizes = []
    while news := finder.news(sha):
        sizes.append(len(news))
        facts.write(conn, [(1, fact) for fact in news])
    assert sizes == [1, 1, 1]
    assert conn.execute("SELECT count(*) FROM blob_symbols").fetchone() == (3,)


def test_an_included_file_counts_whatever_its_name_and_only_for_those_that_include_it(tmp_path: Path) -> None:
    state = {**BASE, "other.c": b"int other(void) { return table[0]; }\n"}
    repo, (sha,) = history(tmp_path / "r", [state])
    finder = DefinitionFinder(repo)
    assert find(finder, "table", "variable", sha, state, "other.c").n == 0
    assert places(find(finder, "table", "variable", sha, state)) == [("lib/table.inc", 1, 1, BASE["lib/table.inc"])]
    assert find(finder, "table", "variable", sha, state, "other.c").n == 0


def test_a_missing_blob_fails_the_rows_that_need_it_and_no_others(
    conn: sqlite3.Connection, tmp_path: Path, parsed: Counter[bytes]
) -> None:
    broken = {**BASE, "src/gone.c": b"int gone;\n"}
    repo, shas = history(tmp_path / "r", [BASE, broken, BASE])
    oid = repo.blob_oid(broken["src/gone.c"])
    folder = tmp_path / "r"
    for pack in (folder / "objects" / "pack").glob("*.pack"):
        moved = pack.rename(tmp_path / pack.name)
        pack.with_suffix(".idx").unlink()
        subprocess.run(["git", "-C", str(folder), "unpack-objects", "-q"], stdin=moved.open("rb"), check=True)
    (folder / "objects" / oid[:2] / oid[2:]).unlink()
    finder = DefinitionFinder(GitRepo.open(folder), FactReader(conn))
    expected = places(find(finder, "far", "function", shas[0], BASE))
    for _ in range(2):
        with pytest.raises(MissingObject, match=oid[:10]) as caught:
            find(finder, "far", "function", shas[1], broken)
        assert not isinstance(caught.value, TrustmineError), "that would stop the run"
    assert places(find(finder, "far", "function", shas[2], BASE)) == expected
    assert set(parsed.values()) == {1}


def test_what_cannot_be_parsed_is_a_counted_loss(
    conn: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("trustmine.cparse.symbols"), "MAX_BYTES", 5_000)
    state = {
        "deep.c": b"#define DEEP 1\nint x = " + b"(" * 2_000 + b";\n",
        "large.c": b"/*" + b"x" * 5_000 + b"*/ int y;\n",
        "fine.c": b"int z;\n",
    }
    repo, (sha,) = history(tmp_path / "r", [state])
    finder = DefinitionFinder(repo, FactReader(conn))
    news = {state_of(fact, state, repo): (fact.loss, fact.n_symbols) for fact in finder.news(sha)}
    assert news == {"deep.c": ("too_complex", 1), "large.c": ("too_large", 0), "fine.c": (None, 1)}
    facts.write(conn, [(1, fact) for fact in finder.news(sha)])
    again = TreeIndex(repo, FactReader(conn))
    again.move_to(sha)
    assert [symbol.name for _, _, symbol in again.in_tree("DEEP")] == ["DEEP"]


def state_of(fact: BlobSymbols, state: State, repo: GitRepo) -> str:
    return next(path for path, content in state.items() if repo.blob_oid(content) == fact.oid)


PATHS = ("a.c", "a.h", "lib/a.c", "lib/b.h", "lib/a.h", "lib/x.inc", "src/a.cpp", "src/lib/b.h")
CONTENTS = (
    b"int f(int n) { return n; }\n",
    b"int f(int n);\nextern int v;\n",
    b'#include "b.h"\n#include "a.h"\n#define M 1\n',
    b'#include "lib/b.h"\n#include "x.inc"\nint v = 1;\n',
    b"struct s { int m; };\nenum { M, N };\n",
    b"class s { int m; };\nint f(int n) { return 2; }\n",
)
STATES = st.dictionaries(st.sampled_from(PATHS), st.sampled_from(CONTENTS), min_size=1, max_size=6)
NAMES = (("f", "function"), ("v", "variable"), ("M", "macro"), ("s", "type"), ("m", "member"))


@pytest.mark.parametrize("max_old", [0, 50_000])
@settings(max_examples=25, deadline=None)
@given(states=st.lists(STATES, min_size=2, max_size=5))
def test_an_index_brought_along_answers_as_a_fresh_one(
    tmp_path_factory: pytest.TempPathFactory, max_old: int, states: list[State]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "MAX_OLD_BLOBS", max_old)
        repo, shas = history(tmp_path_factory.mktemp("trees") / "r", states)
        finder = DefinitionFinder(repo)
        for sha, state in zip(shas, states, strict=True):
            fresh = DefinitionFinder(repo)
            for path in state:
                for name, kind in NAMES:
                    assert find(finder, name, kind, sha, state, path) == find(fresh, name, kind, sha, state, path)
