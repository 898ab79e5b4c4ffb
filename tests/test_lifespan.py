"""Since when functions are as they are: against a look at every commit, one by one."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustmine.cparse import functions, strip_comments_and_space
from trustmine.errors import RepositoryError
from trustmine.gitrepo import FileChange, GitRepo
from trustmine.lifespan import Life, lives
from trustmine.lineage import lineages
from trustmine.lines import LineRange, cut_lines

Git = Callable[..., str]

STEADY = "int steady(int a)\n{\n    return a + 1;\n}\n"
OTHER = "int other(int b)\n{\n    return b * 2;\n}\n"
FILLER = "".join(f"/* line {number} of a comment that keeps the files alike */\n" for number in range(20))


def commit(git: Git, folder: Path, message: str, **files: str | None) -> str:
    """A commit in which these files (a__c is a.c) have this content, or none."""
    git("status")
    for name, content in files.items():
        path = folder / "repo" / name.replace("__", ".")
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
    git("add", "-A")
    git("commit", "-q", "--allow-empty", "-m", message)
    return git("rev-parse", "HEAD")


@dataclass(frozen=True)
class Lived:
    """A function with what its life says, and its place."""

    path: str
    life: Life
    n_commits: int

    @property
    def since_sha(self) -> str:
        return self.life.since

    @property
    def n_changes(self) -> int:
        return self.life.n_changes


def walk(repo: GitRepo, tip: str) -> list[Lived]:
    chain = repo.first_parents(tip)
    return [
        Lived(lineage.path.decode(), life, chain.index(life.since))
        for lineage in lineages(repo, chain, lambda path: path.endswith(".c"))
        for life in lives(repo, chain, lineage)
    ]


def lived(folder: Path) -> dict[str, Lived]:
    repo = GitRepo.open(folder / "repo")
    found = walk(repo, repo.resolve("HEAD"))
    assert [(one.path, one.life.first_line) for one in found] == sorted(
        (one.path, one.life.first_line) for one in found
    )
    return {one.life.name: one for one in found}


def test_comments_white_space_moves_and_renames_of_files_do_not_end_a_life(git: Git, tmp_path: Path) -> None:
    first = commit(git, tmp_path, "1", a__c=FILLER + STEADY + OTHER)
    second = commit(git, tmp_path, "2", a__c=FILLER + STEADY + OTHER.replace("b * 2", "b * 3"))
    laid_out = "int steady( int a ) /* why */ {\n\treturn a\n\t+ 1; }\n"
    commit(git, tmp_path, "3", a__c=FILLER + OTHER.replace("b * 2", "b * 3") + laid_out)
    commit(git, tmp_path, "4")
    commit(git, tmp_path, "5", a__c=None, b__c=FILLER + OTHER.replace("b * 2", "b * 3") + laid_out)
    commit(git, tmp_path, "6", b__c=FILLER + "\n" + laid_out + OTHER.replace("b * 2", "b * 3"))
    found = lived(tmp_path)
    steady, other = found["steady"], found["other"]
    assert (steady.since_sha, steady.n_commits, steady.n_changes, steady.path) == (first, 5, 4, "b.c")
    assert (other.since_sha, other.n_commits, other.n_changes) == (second, 4, 3)
    assert (steady.life.first_line, steady.life.last_line) == (22, 24)


def test_what_was_changed_and_changed_back_begins_anew(git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path, "1", a__c=STEADY)
    commit(git, tmp_path, "2", a__c=STEADY.replace("+ 1", "+ 2"))
    back = commit(git, tmp_path, "3", a__c=STEADY)
    assert lived(tmp_path)["steady"].since_sha == back


def test_a_function_that_is_new_in_an_old_file_or_moved_to_another_begins_there(git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path, "1", a__c=FILLER + STEADY, b__c="int x;\n")
    second = commit(git, tmp_path, "2", a__c=FILLER + STEADY + OTHER)
    third = commit(git, tmp_path, "3", a__c=FILLER + OTHER, b__c="int x;\n" + STEADY)
    found = lived(tmp_path)
    assert (found["other"].since_sha, found["steady"].since_sha) == (second, third)


def test_a_merge_counts_as_one_step_of_the_first_parent(git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path, "1", a__c=STEADY)
    git("checkout", "-q", "-b", "side")
    commit(git, tmp_path, "on the side", a__c=STEADY + OTHER)
    commit(git, tmp_path, "on the side too", a__c=STEADY + OTHER + "\n")
    git("checkout", "-q", "main")
    commit(git, tmp_path, "2", b__c="int y;\n")
    git("merge", "-q", "--no-ff", "-m", "merge", "side")
    merge = git("rev-parse", "HEAD")
    found = lived(tmp_path)
    assert (found["other"].since_sha, found["other"].n_commits) == (merge, 0)
    assert found["steady"].n_commits == 2


def test_commits_are_named_where_they_touched_a_function(git: Git, tmp_path: Path) -> None:
    first = commit(git, tmp_path, "1", a__c=STEADY + OTHER)
    comment = commit(git, tmp_path, "2", a__c=STEADY.replace("+ 1", "+ /* one */ 1") + OTHER)
    change = commit(git, tmp_path, "3", a__c=STEADY.replace("+ 1", "+ /* one */ 1") + OTHER.replace("2", "4"))
    found = lived(tmp_path)
    assert (found["steady"].life.touched, found["other"].life.touched) == ((comment, first), (change,))


def test_a_history_with_a_missing_object_is_an_error(git: Git, tmp_path: Path) -> None:
    first = commit(git, tmp_path, "1", a__c=STEADY)
    commit(git, tmp_path, "2", a__c=OTHER)
    (tmp_path / "repo" / ".git" / "objects" / first[:2] / first[2:]).unlink()
    with pytest.raises(RepositoryError, match="cannot be read to its end"):
        lived(tmp_path)


BODIES = ("return 1;", "return 2;", "/* c */ return 1;", "return  1 ;")
VERSION = st.dictionaries(st.sampled_from("fgh"), st.sampled_from(BODIES), max_size=3)


@settings(max_examples=25)
@given(st.lists(VERSION, min_size=1, max_size=7))
def test_as_a_look_at_every_commit_has_it(
    tmp_path_factory: pytest.TempPathFactory, versions: list[dict[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("history") / "repo.git"
    files = [
        "int keep;\n" + "".join(f"int {name}(void)\n{{\n    {body}\n}}\n" for name, body in v.items()) for v in versions
    ]
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(folder)], check=True)
    lines: list[str] = []
    for file in files:
        lines += ["commit refs/heads/main", "committer A <a@example.org> 1600000000 +0000", "data 0"]
        lines += ["M 100644 inline a.c", f"data {len(file)}", file]
    subprocess.run(
        ["git", "-C", str(folder), "fast-import", "--quiet"], input="\n".join(lines) + "\n", text=True, check=True
    )
    repo = GitRepo.open(folder)
    chain = repo.first_parents(repo.resolve("main"))
    assert len(chain) == len(files)

    def bodies(file: str) -> dict[str, bytes]:
        source = file.encode()
        found = functions(source, "a.c")
        texts = {one.name: cut_lines(source, LineRange(one.first_line, one.last_line)) for one in found}
        return {name: strip_comments_and_space(text, "a.c").strip() for name, text in texts.items()}

    history = [bodies(file) for file in files]
    wanted = {}
    for name, body in history[-1].items():
        n = 0
        while n + 1 < len(history) and history[-2 - n].get(name) == body:
            n += 1
        wanted[name] = (n, chain[n])
    assert {one.life.name: (one.n_commits, one.since_sha) for one in walk(repo, chain[0])} == wanted


def test_changes_are_those_of_regular_files_whatever_their_paths(git: Git, tmp_path: Path) -> None:
    git("status")
    odd = 'a "b"\n:100644 c.c'
    (tmp_path / "repo" / odd).write_text("int a;\n")
    (tmp_path / "repo" / "link.c").symlink_to("nowhere")
    git("add", "-A")
    git("commit", "-q", "-m", "1")
    (tmp_path / "repo" / "link.c").unlink()
    (tmp_path / "repo" / "link.c").write_text("int now;\n")
    (tmp_path / "repo" / odd).rename(tmp_path / "repo" / "plain.c")
    git("add", "-A")
    git("commit", "-q", "-m", "2")
    repo = GitRepo.open(tmp_path / "repo")
    chain = repo.first_parents(repo.resolve("HEAD"))
    a, now = repo.blob_oid(b"int a;\n"), repo.blob_oid(b"int now;\n")
    assert list(repo.changes(chain)) == [
        (chain[0], [FileChange(None, b"link.c", None, now), FileChange(odd.encode(), b"plain.c", a, a)]),
        (chain[1], [FileChange(None, odd.encode(), None, a)]),
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("// why\n" * 20_000 + "int f(int a)\n{\n    return a;\n}\n", "static int f(int a)\n{\n    return a;\n}\n"),
        (f"int f(int a)\n{{\n{'f(1);' * 9_000}\n}}\n", f"int f(int a)\n{{\n{'f(1);' * 9_000}f(2);\n}}\n"),
    ],
)
def test_no_version_takes_quadratic_time(git: Git, tmp_path: Path, before: str, after: str) -> None:
    commit(git, tmp_path, "one", a__c=before)
    last = commit(git, tmp_path, "two", a__c=after)
    started = time.process_time()
    assert lived(tmp_path)["f"].since_sha == last
    assert time.process_time() - started < 10
