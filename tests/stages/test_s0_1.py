"""s0_1 on real repositories: what passes, what is rejected and in which order."""

import os
import subprocess
from pathlib import Path
from typing import cast

import pytest

from trustmine.config import Settings, load
from trustmine.gitrepo import GitRepo, MissingObject
from trustmine.keywords import KeywordMatcher
from trustmine.prompts import Prompts
from trustmine.records import Advance, Commit, Diff, DiffFile, Identifier, KeywordMatch, Reject
from trustmine.stages import base, s0_1_match

ENV = {"PATH": os.environ["PATH"], "HOME": os.devnull, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
ENV |= {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
ENV |= {"GIT_AUTHOR_DATE": "1600000000 +0000", "GIT_COMMITTER_DATE": "1600000000 +0000"}


class OneRepo:
    """The Repos of a database with a single repository."""

    def __init__(self, folder: Path) -> None:
        self.repo = GitRepo.open(folder)

    def get(self, repo_id: int) -> GitRepo:
        assert repo_id == 1
        return self.repo


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, env=ENV, capture_output=True, check=True)
    return done.stdout.decode("latin-1")


def context(folder: Path, settings: Settings | None = None) -> base.Context:
    settings = settings or Settings()
    unused = cast(base.Facts, None), cast(Prompts, None)
    matcher = KeywordMatcher(settings.keywords, settings.match_mode)
    crash_words = KeywordMatcher(settings.crash_words, "word") if "crash_words" in settings.admit else None
    return base.Context(settings, unused[0], OneRepo(folder), unused[1], matcher, crash_words=crash_words)


def row(folder: Path, ref: str = "HEAD") -> Commit:
    """The commit as ingest would queue it."""
    repo = GitRepo.open(folder)
    sha = repo.resolve(ref)
    header = next(h for h in repo.walk([sha], []) if h.sha == sha)
    return Commit(1, 1, sha, header.parents, 0, 0, header.is_boundary, header.message, "ingested")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    (path / "a.c").write_bytes(b"int a;\n")
    git(path, "add", "a.c")
    git(path, "commit", "-q", "-m", "start")
    return path


def change(folder: Path, message: str, content: bytes = b"int b;\n") -> None:
    (folder / "a.c").write_bytes(content)
    git(folder, "commit", "-q", "-a", "--allow-empty", "-m", message)


def test_match_passes_with_keywords_identifiers_and_patch(folder: Path) -> None:
    change(folder, "Fix overflow (CVE-2021-12345)", b"// caf\xe9\n")
    outcome = s0_1_match.run(row(folder), context(folder))
    assert isinstance(outcome, Advance)
    matched, identifier, diff, file = outcome.facts
    assert matched == KeywordMatch(("overflow", "fix", "cve"))
    assert identifier == Identifier("CVE", "CVE-2021-12345")
    shown = git(folder, "show", "--format=", "HEAD")
    assert diff == Diff(shown, "latin-1", len(shown))
    assert isinstance(file, DiffFile)
    assert (file.new_path, file.n_added, file.n_deleted) == ("a.c", 1, 1)


def test_root_commit_is_a_commit_like_others(folder: Path) -> None:
    git(folder, "commit", "-q", "--amend", "-m", "fix the start")
    assert isinstance(s0_1_match.run(row(folder), context(folder)), Advance)


def test_message_without_keyword_is_rejected_with_its_identifiers(folder: Path) -> None:
    change(folder, "CWE-787 in the parser")
    assert s0_1_match.run(row(folder), context(folder)) == Reject("no_keyword", (Identifier("CWE", "CWE-787"),))


def test_merge_is_rejected_only_after_its_message_matched(folder: Path) -> None:
    git(folder, "checkout", "-q", "-b", "side")
    change(folder, "on the side")
    git(folder, "checkout", "-q", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "else")
    git(folder, "merge", "-q", "-m", "Merge the fix", "side")
    assert s0_1_match.run(row(folder), context(folder)) == Reject("merge", (KeywordMatch(("fix",)),))
    git(folder, "commit", "-q", "--amend", "-m", "Merge side")
    assert s0_1_match.run(row(folder), context(folder)) == Reject("no_keyword")


def test_commit_without_change_is_rejected(folder: Path) -> None:
    change(folder, "fix", b"int a;\n")
    assert s0_1_match.run(row(folder), context(folder)) == Reject("empty_diff", (KeywordMatch(("fix",)),))


def test_boundary_of_a_shallow_clone_is_rejected_until_its_parent_is_there(folder: Path, tmp_path: Path) -> None:
    change(folder, "fix")
    shallow = tmp_path / "shallow"
    git(folder, "clone", "-q", "--bare", "--depth=1", f"file://{folder}", str(shallow))
    commit = row(shallow)
    assert s0_1_match.run(commit, context(shallow)) == Reject("shallow_boundary", (KeywordMatch(("fix",)),))
    git(shallow, "fetch", "-q", "--unshallow")
    assert isinstance(s0_1_match.run(commit, context(shallow)), Advance)


def test_oversized_patch_passes_without_its_text(folder: Path) -> None:
    change(folder, "fix", b"int x;\n" * 100)
    outcome = s0_1_match.run(row(folder), context(folder, Settings(max_diff_chars=300)))
    assert isinstance(outcome, Advance)
    _, diff, _ = outcome.facts
    assert diff == Diff(None, "utf-8", len(git(folder, "show", "--format=", "HEAD")))


def test_missing_blob_raises_for_this_row(folder: Path) -> None:
    change(folder, "fix")
    oid = git(folder, "rev-parse", "HEAD:a.c").strip()
    (folder / ".git" / "objects" / oid[:2] / oid[2:]).unlink()
    with pytest.raises(MissingObject):
        s0_1_match.run(row(folder), context(folder))


@pytest.mark.parametrize(
    ("message", "match"),
    [
        ("parser: GHSA-4w8x-23gh-jmpq", KeywordMatch((), (), ("identifiers",))),
        ("resolves #12", KeywordMatch((), (), ("identifiers",))),
        ("ASAN: segfault in x", KeywordMatch((), ("asan", "segfault"), ("crash_words",))),
        (
            "Fixes #12, found by fuzzing",
            KeywordMatch(("fix", "found by"), ("fuzzing",), ("keywords", "identifiers", "crash_words")),
        ),
        ("information on asante", None),
        ("Closes #12", None),
    ],
)
def test_the_rules_that_let_a_commit_in_are_stored(folder: Path, message: str, match: KeywordMatch | None) -> None:
    change(folder, message)
    wide = load(flags={"profile": "wide"}, env={}).settings
    outcome = s0_1_match.run(row(folder), context(folder, wide))
    assert outcome == Reject("no_keyword") if match is None else outcome.facts[0] == match
    paper = s0_1_match.run(row(folder), context(folder))
    assert all(not isinstance(fact, KeywordMatch) or fact.rules == ("keywords",) for fact in paper.facts)
