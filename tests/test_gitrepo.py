"""Patches, histories and objects as git itself has them; every patch is held against `git show`."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pygit2
import pytest

from trustmine import gitrepo, text
from trustmine.errors import RepositoryError
from trustmine.gitrepo import GitRepo, MissingObject
from trustmine.patchtext import Patch
from trustmine.records import DiffFile

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": os.devnull,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "C",
    "GIT_COMMITTER_EMAIL": "c@example.org",
    "LC_ALL": "C.UTF-8",
}
LIMIT = 1_000_000


class Work:
    """A repository that a test fills with `git`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.clock = 1_600_000_000
        folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main", *options)

    def git(self, *arguments: str | bytes, stdin: bytes = b"") -> bytes:
        dates = {"GIT_AUTHOR_DATE": f"{self.clock} +0200", "GIT_COMMITTER_DATE": f"{self.clock + 60} +0000"}
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, env=ENV | dates, input=stdin, capture_output=True, check=False
        )
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout.rstrip(b"\n")

    def write(self, name: str | bytes, content: bytes) -> None:
        path = self.folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def commit(self, message: str = "change") -> str:
        self.clock += 100
        self.git("add", "--all")
        self.git("commit", "-q", "--allow-empty", "--no-verify", "-m", message)
        return self.git("rev-parse", "HEAD").decode()

    def raw_commit(self, content: bytes) -> str:
        return self.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", stdin=content).decode()

    def show(self, sha: str) -> bytes:
        return subprocess.run(
            ["git", "show", "--format=", sha], cwd=self.folder, env=ENV, capture_output=True, check=True
        ).stdout


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "project")


def lines(n: int, **changed: str) -> bytes:
    return "".join(changed.get(f"n{i}", f"int line_{i};") + "\n" for i in range(n)).encode()


def bytes_of(patch: Patch) -> bytes:
    assert patch.text is not None
    return text.encode(patch.text, patch.encoding)


def check(work: Work, sha: str) -> tuple[DiffFile, ...]:
    """The patch is git's; its files are returned."""
    for folder in (work.folder, work.folder / ".git"):
        repo = GitRepo.open(folder)
        wanted = work.show(sha)
        patch = repo.patch(sha, LIMIT)
        assert bytes_of(patch) == wanted
        assert patch.n_chars == len(text.decode(wanted)[0])
        numstat = work.git("show", "--format=", "--numstat", "-M", sha).splitlines()
        assert [f.file_no for f in patch.files] == list(range(1, len(numstat) + 1))
        for file, line in zip(patch.files, numstat, strict=True):
            added, deleted = line.split(b"\t")[:2]
            if added != b"-":
                assert (file.n_added, file.n_deleted) == (int(added), int(deleted))
            assert file.is_binary == (added == b"-")
        repo.close()
    return patch.files


def two(work: Work, before: dict[str | bytes, bytes], after: dict[str | bytes, bytes | None]) -> tuple[DiffFile, ...]:
    """Commit `before`, then `after` (None deletes), and check the second patch."""
    for name, content in before.items():
        work.write(name, content)
    check(work, work.commit("first"))
    for name, changed in after.items():
        if changed is None:
            (work.folder / os.fsdecode(name)).unlink()
        else:
            work.write(name, changed)
    return check(work, work.commit("second"))


LONG = b"static int function_with_a_long_name(struct a_very_long_structure_name *first, int x)"
LONG_SPACE = b"static int function_with_a_long_name(struct a_very_long_structure_name *first,   int second)"
CASES: dict[str, tuple[dict[str | bytes, bytes], dict[str | bytes, bytes | None]]] = {
    "modified": ({"a.c": lines(30)}, {"a.c": lines(30, n3="x", n20="y")}),
    "crlf": ({"a.c": b"a\r\nb\r\nc\r\n"}, {"a.c": b"a\r\nB\r\nc\n"}),
    "cr_only": ({"a.c": b"a\rb\rc"}, {"a.c": b"a\rb\rd"}),
    "no_newline_before": ({"a.c": b"a\nb"}, {"a.c": b"a\nb\n"}),
    "no_newline_after": ({"a.c": b"a\nb\n"}, {"a.c": b"a\nb"}),
    "no_newline_both": ({"a.c": b"a\nb"}, {"a.c": b"a\nc"}),
    "added_and_empty": ({"a.c": b"a\n"}, {"b.c": b"b\n", "empty.c": b""}),
    "deleted": ({"a.c": b"a\n", "b.c": b"", "c.c": b"c"}, {"b.c": None, "c.c": None}),
    "emptied": ({"a.c": b"a\n"}, {"a.c": b""}),
    "renamed": ({"a.c": lines(30)}, {"a.c": None, "b.c": lines(30)}),
    "renamed_and_changed": ({"a.c": lines(30)}, {"a.c": None, "d/b.c": lines(30, n3="x")}),
    "rewritten_elsewhere": ({"a.c": lines(30)}, {"a.c": None, "b.c": b"something else\n" * 9}),
    "copied": ({"a.c": lines(30)}, {"a.c": lines(30, n1="x"), "b.c": lines(30)}),
    "file_to_folder": ({"a": b"1\n"}, {"a": None, "b": b"2\n"}),
    "binary_modified": ({"a.bin": b"a\0b"}, {"a.bin": b"a\0c"}),
    "binary_added_and_deleted": ({"a.bin": b"a\0b", "x": b"x\n"}, {"b.bin": b"\0\1\2" * 9, "a.bin": None}),
    "binary_added": ({"x": b"x\n"}, {"b.bin": b"\0\1"}),
    "nul_after_8000_bytes": ({"a.c": b"x\n" * 5000}, {"a.c": b"x\n" * 5000 + b"\0\n"}),
    "latin_1": ({"a.c": b"// caf\xe9\nint a;\n"}, {"a.c": b"// caf\xe9\nint b;\n"}),
    "context_long": ({"a.c": LONG + b"\n{\n" + b"  x;\n" * 9}, {"a.c": LONG + b"\n{\n" + b"  x;\n" * 8 + b"  y;\n"}),
    "context_ends_in_space": (
        {"a.c": LONG_SPACE + b"\n{\n" + b"  x;\n" * 9},
        {"a.c": LONG_SPACE + b"\n{\n" + b"  x;\n" * 8 + b"  y;\n"},
    ),
    "context_with_form_feed": (
        {"a.c": b"int f(void)\f\n{\n" + b"  x;\n" * 9},
        {"a.c": b"int f(void)\f\n{\n" + b"  x;\n" * 8 + b"  y;\n"},
    ),
    "context_not_utf_8": (
        {"a.c": b"int f\xe9(void)\n{\n" + b"  x;\n" * 9},
        {"a.c": b"int f\xe9(void)\n{\n" + b"  x;\n" * 8 + b"  y;\n"},
    ),
    "headers_inside": (
        {"a.c": b"-- a/x\n++ b/y\n@@ -1 +1 @@\ndiff --git a/q b/q\nend\n" + lines(9)},
        {"a.c": b"-- a/y\n++ b/x\n@@ -1 +1 @@ \t\ndiff --git a/q b/r\nend\n" + lines(9)},
    ),
    "headers_inside_by_git": (
        {"a.c": b"-- a/x\n++ b/y\n@@ -1\ndiff --git a/q b/q\nend\n" + lines(9), "z": b"z\n"},
        {"a.c": b"-- a/y\n++ b/x\n@@ -2\ndiff --git a/q b/r\nend\n" + lines(9), "z": None, "y": b"\n"},
    ),
    "space_in_name": ({"a b.c": b"1\n"}, {"a b.c": b"2\n", "new c.c": b"3\n"}),
    "odd_names": (
        {b'q"u\\o\tt\ne.c': b"1\n", "ü.c": b"1\n", b"\xff\xfe.c": b"1\n", b"a\x7f\x07.c": b"1\n"},
        {b'q"u\\o\tt\ne.c': b"2\n", "ü.c": b"2\n", b"\xff\xfe.c": None, b"a\x7f\x07.c": b"2\n"},
    ),
    "odd_names_by_git": (
        {b'q"u\\o\tt\ne.c': b"1\n", "ü b.c": lines(20), b"\xff\xfe.c": b"1\n"},
        {b'q"u\\o\tt\ne.c': None, "ü b.c": None, b"\xfe\xff.c": lines(20, n4="x")},
    ),
    "indent_heuristic": (
        {"a.c": b"int a()\n{\n    x;\n}\n\nint c()\n{\n    x;\n}\n"},
        {"a.c": b"int a()\n{\n    x;\n}\n\nint b()\n{\n    x;\n}\n\nint c()\n{\n    x;\n}\n"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_patch_is_what_git_show_prints(work: Work, case: str) -> None:
    two(work, *CASES[case])


def test_facts_follow_the_order_of_the_patch(work: Work) -> None:
    files = two(work, {"z.c": lines(30), "b": b"\0"}, {"z.c": None, "a b.c": lines(30, n2="x"), "b": b"\0\1"})
    assert [(f.file_no, f.change, f.old_path, f.new_path, f.is_binary, f.n_hunks) for f in files] == [
        (1, "renamed", "z.c", "a b.c", False, 1),
        (2, "modified", "b", "b", True, 0),
    ]


def test_mode_changes_symlinks_and_type_changes(work: Work) -> None:
    work.write("run.sh", b"#!/bin/sh\n")
    work.write("both.sh", b"#!/bin/sh\n")
    work.write("type", b"text\n")
    (work.folder / "link").symlink_to("run.sh")
    check(work, work.commit())
    (work.folder / "run.sh").chmod(0o755)
    check(work, work.commit("mode only"))
    work.write("both.sh", b"#!/bin/bash\n")
    (work.folder / "both.sh").chmod(0o755)
    (work.folder / "link").unlink()
    (work.folder / "link").symlink_to("both.sh")
    check(work, work.commit("mode and content, symlink"))
    (work.folder / "type").unlink()
    (work.folder / "type").symlink_to("run.sh")
    files = check(work, work.commit("file to symlink"))
    assert [(f.change, f.n_hunks) for f in files] == [("typechange", 2)]


def test_submodules_are_files_of_the_patch(work: Work) -> None:
    work.write("a.c", b"1\n")
    work.commit()
    work.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    work.git("commit", "-qm", "add submodule")
    check(work, work.git("rev-parse", "HEAD").decode())
    work.git("update-index", "--cacheinfo", f"160000,{'2' * 40},sub")
    work.git("commit", "-qm", "move submodule")
    (file,) = check(work, work.git("rev-parse", "HEAD").decode())
    assert file.is_submodule and file.change == "modified"
    work.git("rm", "-q", "--cached", "sub")
    work.git("commit", "-qm", "drop submodule")
    check(work, work.git("rev-parse", "HEAD").decode())


def test_empty_patches_and_empty_trees(work: Work) -> None:
    assert check(work, work.commit("empty root")) == ()
    work.write("a.c", b"1\n")
    work.commit()
    assert check(work, work.commit("nothing changed")) == ()
    (work.folder / "a.c").unlink()
    assert len(check(work, work.commit("all gone"))) == 1
    assert list(GitRepo.open(work.folder).tree_changes(None, work.git("rev-parse", "HEAD").decode())) == []


def test_root_commit_is_diffed_against_the_empty_tree(work: Work) -> None:
    work.write("d/a.c", b"1\n")
    (file,) = check(work, work.commit())
    assert (file.change, file.old_oid, file.n_added) == ("added", "0" * 40, 1)


def test_index_line_grows_where_names_are_ambiguous(work: Work) -> None:
    # Two blobs whose names share 7 digits: found once by trying numbers.
    seen: dict[str, int] = {}
    pair = None
    for number in range(200_000):
        oid = pygit2.hash(b"%d\n" % number)
        start = str(oid)[:7]
        if start in seen:
            pair = seen[start], number
            break
        seen[start] = number
    assert pair is not None
    work.write("a.c", b"%d\n" % pair[0])
    work.write("b.c", b"x\n")
    check(work, work.commit())
    work.write("b.c", b"%d\n" % pair[1])
    sha = work.commit()
    check(work, sha)
    index = next(line for line in work.show(sha).splitlines() if line.startswith(b"index"))
    assert len(index.split()[1].split(b"..")[1]) > 7


@pytest.mark.parametrize("attributes", ["*.c diff=cpp", "*.c -diff", "*.c binary", "*.c diff", "*.c text"])
def test_attributes_of_the_worktree_count_as_in_git(work: Work, attributes: str) -> None:
    work.write(".gitattributes", attributes.encode())
    body = b"class A {\npublic:\n  int f() {\n" + b"    x;\n" * 9
    work.write("d/a.c", body)
    work.commit()
    work.write("d/a.c", body + b"    y;\n")
    sha = work.commit()
    repo = GitRepo.open(work.folder)
    assert bytes_of(repo.patch(sha, LIMIT)) == work.show(sha)
    repo.close()


def test_nothing_in_a_repository_runs_a_program(work: Work, tmp_path: Path) -> None:
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\ncat\n")
    trap.chmod(0o755)
    work.write("a.c", lines(9))
    old = work.commit()
    work.write("a.c", lines(9, n4="x"))
    work.write("b.c", lines(9))
    work.write("old.c", b"old\n")
    work.commit()
    work.write(".gitattributes", b"*.c diff=trap filter=trap\n")
    (work.folder / "old.c").unlink()
    sha = work.commit("fix")
    plain = work.show(sha)
    for key in ("diff.external", "diff.trap.command", "diff.trap.textconv", "core.fsmonitor", "filter.trap.clean"):
        work.git("config", key, str(trap))
    work.git("config", "core.pager", str(trap))
    work.git("config", "core.hooksPath", str(tmp_path))
    shutil.copy(trap, tmp_path / "post-index-change")
    work.git("-c", "core.fsmonitor=false", "replace", sha, old)
    (tmp_path / "ran").unlink(missing_ok=True)
    repo = GitRepo.open(work.folder)
    patch = repo.patch(sha, LIMIT)
    list(repo.walk([sha], []))
    repo.close()
    assert bytes_of(patch) == plain
    assert not (tmp_path / "ran").exists()


def test_configuration_does_not_change_a_patch(work: Work) -> None:
    work.write("a ü.c", lines(30))
    work.write("gone.c", lines(30))
    work.commit()
    work.write("a ü.c", lines(30, n3="x"))
    first = work.commit()
    (work.folder / "gone.c").rename(work.folder / "here.c")
    second = work.commit()
    plain = [work.show(first), work.show(second)]
    settings = {"core.abbrev": "20", "core.quotePath": "false", "diff.context": "9", "diff.noprefix": "true"}
    settings |= {"diff.renames": "false", "diff.algorithm": "patience", "diff.mnemonicPrefix": "true"}
    settings |= {"diff.orderFile": "nowhere", "diff.suppressBlankEmpty": "true", "diff.indentHeuristic": "false"}
    for key, value in settings.items():
        work.git("config", key, value)
    repo = GitRepo.open(work.folder)
    assert [bytes_of(repo.patch(sha, LIMIT)) for sha in (first, second)] == plain
    repo.close()


@pytest.mark.parametrize("with_rename", [False, True])
@pytest.mark.parametrize("word", [b"int x;\n", "größer\n".encode(), b"caf\xe9\n"])
def test_patch_at_the_limit_is_counted_and_dropped(work: Work, word: bytes, with_rename: bool) -> None:
    work.write("a.c", b"a\n")
    work.write("old.c", b"old\n" * 20)
    work.commit()
    work.write("a.c", word * 40_000)
    if with_rename:
        (work.folder / "old.c").rename(work.folder / "new.c")
    sha = work.commit()
    wanted = text.decode(work.show(sha))[0]
    repo = GitRepo.open(work.folder)
    for limit, is_kept in ((len(wanted) + 1, True), (len(wanted), False), (10, False)):
        patch = repo.patch(sha, limit)
        assert patch.n_chars == len(wanted)
        assert (patch.text is not None) == is_kept
        assert len(patch.files) == 1 + with_rename
    repo.close()


def test_merges_are_diffed_against_their_first_parent_and_walked_after_parents(work: Work) -> None:
    work.write("a.c", b"1\n")
    root = work.commit()
    tips = []
    for name in ("x", "y", "z"):
        work.git("checkout", "-q", "-b", name, root)
        work.write(f"{name}.c", b"1\n")
        tips.append(work.commit(name))
    work.git("checkout", "-q", "x")
    work.clock += 100
    work.git("merge", "-q", "-m", "octopus", "y", "z")
    merge = work.git("rev-parse", "HEAD").decode()
    repo = GitRepo.open(work.folder)
    walked = list(repo.walk([merge], []))
    assert {c.sha for c in walked} == {root, *tips, merge}
    place = {c.sha: i for i, c in enumerate(walked)}
    assert all(place[p] < place[c.sha] for c in walked for p in c.parents)
    assert walked[-1].parents == tuple(tips)
    assert list(repo.walk([merge], [])) == walked
    assert [c.sha for c in repo.walk([merge], [tips[0], tips[1], "f" * 40])] == [tips[2], merge]
    assert [f.new_path for f in repo.patch(merge, LIMIT).files] == ["y.c", "z.c"]
    assert walked[0].author_time_s == 1_600_000_100
    assert walked[0].commit_time_s == 1_600_000_160


TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


@pytest.mark.parametrize(
    ("extra", "message", "wanted", "codec"),
    [
        (b"encoding ISO-8859-1\n", b"caf\xe9\n", "café\n", "latin-1"),
        (b"", b"caf\xe9\n", "café\n", "latin-1"),
        (b"", "café".encode(), "café", "utf-8"),
        (b"encoding no-such\n", b"x\0y\n", "x\0y\n", "utf-8"),
        (b"encoding \xff\xfe\n", b"\n\n lead", "\n\n lead", "utf-8"),
        (b"gpgsig -----BEGIN\n \n parent 0\n -----END\n", b"signed", "signed", "utf-8"),
        (b"encoding EUC-JP\n", "検査".encode("euc-jp"), "検査", "euc_jp"),
        (b"", b"", "", "utf-8"),
    ],
)
def test_messages_come_whole_in_their_encoding(
    work: Work, extra: bytes, message: bytes, wanted: str, codec: str
) -> None:
    work.git("hash-object", "-t", "tree", "-w", "--stdin")
    head = b"tree %s\nauthor A <a@b> 1500000000 +0100\ncommitter C <c@d> 1500000001 +0000\n" % TREE.encode()
    sha = work.raw_commit(head + extra + b"\n" + message)
    (header,) = GitRepo.open(work.folder).walk([sha], [])
    assert (header.message, header.encoding, header.parents) == (wanted, codec, ())
    assert text.encode(header.message, header.encoding) == message
    assert (header.author_time_s, header.commit_time_s) == (1_500_000_000, 1_500_000_001)


@pytest.mark.parametrize(
    "author",
    [
        b"",
        b"A",
        b"A <a@b>",
        b"A <a@b> x +0",
        b"A <a@b> 99999999999999999999999 +0",
        b"\xff > < 12",
        b"<> \xb2 0",
        b"<> --5 0",
        b"<> - 0",
    ],
)
def test_malformed_dates_are_zero(work: Work, author: bytes) -> None:
    work.git("hash-object", "-t", "tree", "-w", "--stdin")
    sha = work.raw_commit(b"tree %s\nauthor %s\ncommitter C <c@d> 15 +0000\n\nx" % (TREE.encode(), author))
    (header,) = GitRepo.open(work.folder).walk([sha], [])
    assert header.author_time_s in (0, 12)
    assert header.commit_time_s == 15


def shallow(work: Work, folder: Path) -> tuple[GitRepo, list[str]]:
    """A bare clone with the last two of four commits, and the SHAs of all four."""
    shas = []
    for number in range(4):
        work.write("a.c", b"%d\n" % number)
        shas.append(work.commit())
    work.git("clone", "-q", "--bare", "--depth=2", f"file://{work.folder}", str(folder))
    return GitRepo.open(folder), shas


def test_shallow_clone_has_boundary_commits(work: Work, tmp_path: Path) -> None:
    repo, shas = shallow(work, tmp_path / "shallow")
    assert repo.is_shallow and not GitRepo.open(work.folder).is_shallow
    walked = list(repo.walk([shas[3]], []))
    assert [(c.sha, c.is_boundary, c.parents) for c in walked] == [
        (shas[2], True, (shas[1],)),
        (shas[3], False, (shas[2],)),
    ]
    assert bytes_of(repo.patch(shas[3], LIMIT)) == work.show(shas[3])
    assert not repo.has(shas[1])
    with pytest.raises(MissingObject, match="fetch --unshallow"):
        repo.patch(shas[2], LIMIT)


def test_a_commit_whose_parent_has_gone_is_told_of_when_it_is_asked_for(work: Work, tmp_path: Path) -> None:
    repo, shas = shallow(work, tmp_path / "shallow")
    repo.expect(shas[2:])  # of rows that were ingested when the clone was whole
    with pytest.raises(MissingObject):
        repo.patch(shas[2], LIMIT)
    assert bytes_of(repo.patch(shas[3], LIMIT)) == work.show(shas[3])


def test_an_odd_address_of_the_remote_gives_no_name(work: Work) -> None:
    work.git("config", "remote.origin.url", "https://[foo/bar")
    assert GitRepo.open(work.folder).default_name == "project"


def test_a_path_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    Work(folder)
    with pytest.raises(RepositoryError, match="not UTF-8") as error:
        GitRepo.open(folder)
    str(error.value).encode()


def loose(work: Work, oid: str) -> Path:
    return work.folder / ".git" / "objects" / oid[:2] / oid[2:]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: (path.chmod(0o644), path.write_bytes(b"rubbish"))])
def test_damaged_history_is_an_error_that_names_the_object(work: Work, damage: Callable[[Path], object]) -> None:
    shas = []
    for number in range(4):
        work.write("a.c", b"%d\n" % number)
        shas.append(work.commit())
    damage(loose(work, shas[1]))
    with pytest.raises(RepositoryError) as caught:
        list(GitRepo.open(work.folder).walk([shas[3]], []))
    assert shas[1][:7] in str(caught.value)
    assert "fsck" in caught.value.hint


@pytest.mark.parametrize("with_rename", [False, True])
@pytest.mark.parametrize("what", ["HEAD:a.c", "HEAD~:a.c", "HEAD:d", "HEAD^{tree}", "HEAD~"])
def test_missing_object_fails_the_row_alone(work: Work, what: str, with_rename: bool) -> None:
    work.write("a.c", b"1\n")
    work.write("d/b.c", b"1\n" * 20)
    work.commit()
    work.write("a.c", b"2\n")
    work.write("d/b.c", b"2\n" * 20)
    if with_rename:
        work.write("d/c.c", b"1\n" * 20)
        (work.folder / "d/b.c").unlink()
    sha = work.commit()
    work.write("a.c", b"3\n")
    good = work.commit()
    oid = work.git("rev-parse", what.replace("HEAD", sha)).decode()
    shown = work.show(good) if what not in ("HEAD:a.c", "HEAD^{tree}", "HEAD:d") else b""
    loose(work, oid).unlink()
    repo = GitRepo.open(work.folder)
    with pytest.raises(MissingObject, match=r"Cannot read .* in .*\n.*\n  Try: git -C"):
        repo.patch(sha, LIMIT)
    with pytest.raises(MissingObject):
        repo.blob(oid)
    if shown:
        assert bytes_of(repo.patch(good, LIMIT)) == shown
    repo.close()


def test_blobs_and_trees(work: Work) -> None:
    work.write("d/e/a.c", b"1\n")
    work.write(b"\xff.c", b"2\n")
    work.write("d.c", b"3\0\n")
    (work.folder / "run").write_bytes(b"x")
    (work.folder / "run").chmod(0o755)
    (work.folder / "link").symlink_to("d.c")
    work.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    sha = work.commit()
    work.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    repo = GitRepo.open(work.folder)
    files = dict(repo.tree_changes(None, sha))
    assert sorted(files) == [b"d.c", b"d/e/a.c", b"run", b"\xff.c"]
    assert repo.blob(files[b"d.c"] or "") == b"3\0\n"
    assert repo.blob_oid(b"3\0\n") == files[b"d.c"]
    with pytest.raises(MissingObject):
        repo.blob(sha)
    with pytest.raises(MissingObject):
        list(repo.tree_changes(None, "1" * 40))


def test_what_changed_between_two_trees(work: Work) -> None:
    for name in ("same/a.c", "d/changed.c", "d/gone.c", "file", "folder/a.c", "mode.c", "linked.c"):
        work.write(name, name.encode())
    old = work.commit()
    work.write("d/changed.c", b"changed")
    for name in ("d/gone.c", "file", "folder/a.c", "linked.c"):
        (work.folder / name).unlink()
    (work.folder / "folder").rmdir()
    (work.folder / "mode.c").chmod(0o755)
    (work.folder / "linked.c").symlink_to("mode.c")
    for name in ("file/a.c", "folder", "e/f/new.c"):
        work.write(name, name.encode())
    new = work.commit()
    repo = GitRepo.open(work.folder)
    changes = {path: oid and repo.blob(oid) for path, oid in repo.tree_changes(old, new)}
    assert changes == {
        b"d/changed.c": b"changed",
        b"d/gone.c": None,
        b"file": None,
        b"file/a.c": b"file/a.c",
        b"folder": b"folder",
        b"folder/a.c": None,
        b"e/f/new.c": b"e/f/new.c",
        b"linked.c": None,
    }
    assert list(repo.tree_changes(new, new)) == []


def test_resolve_peels_tags_and_explains_unknown_names(work: Work) -> None:
    with pytest.raises(RepositoryError, match="no commits"):
        GitRepo.open(work.folder).resolve("HEAD")
    assert GitRepo.open(work.folder).is_empty
    work.write("a.c", b"1\n")
    sha = work.commit()
    work.git("tag", "-a", "-m", "tag", "v1")
    repo = GitRepo.open(work.folder)
    assert not repo.is_empty
    assert {repo.resolve(ref) for ref in ("HEAD", "main", "v1", sha[:8], "refs/tags/v1")} == {sha}
    for ref in ("nope", "", "HEAD:a.c", "HEAD~9", "a..b", "--all", "x\0y", "é", "HEAD@{99}"):
        with pytest.raises(RepositoryError):
            repo.resolve(ref)


def test_what_cannot_be_opened_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="no such folder"):
        GitRepo.open(tmp_path / "none")
    with pytest.raises(RepositoryError, match="not a git repository"):
        GitRepo.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RepositoryError):
        GitRepo.open(tmp_path / "file")
    outer = Work(tmp_path / "outer")
    (outer.folder / "inner").mkdir()
    with pytest.raises(RepositoryError, match="not a git repository"):
        GitRepo.open(outer.folder / "inner")
    Work(tmp_path / "sha256", "--object-format=sha256")
    with pytest.raises(RepositoryError, match="SHA-256"):
        GitRepo.open(tmp_path / "sha256")


@pytest.mark.parametrize(
    ("url", "name", "shown"),
    [
        (None, "project", None),
        ("https://example.org/owner/name.git", "owner/name", "https://example.org/owner/name.git"),
        ("https://me:secret@example.org/owner/name", "owner/name", "https://example.org/owner/name"),
        ("https://me:s@cret@example.org/owner/n@me", "owner/n@me", "https://example.org/owner/n@me"),
        ("git@example.org:owner/name.git", "owner/name", "git@example.org:owner/name.git"),
        ("ssh://git@example.org:22/deep/owner/name.git/", "owner/name", "ssh://example.org:22/deep/owner/name.git/"),
        ("/srv/git/name.git", "project", "/srv/git/name.git"),
        ("file:///srv/git/name.git", "project", "file:///srv/git/name.git"),
    ],
)
def test_default_name_is_that_of_the_remote_or_the_folder(
    work: Work, url: str | None, name: str, shown: str | None
) -> None:
    if url:
        work.git("config", "remote.origin.url", url)
    repo = GitRepo.open(work.folder)
    assert (repo.default_name, repo.url) == (name, shown)
    assert Path(repo.path) == work.folder / ".git"
    again = GitRepo.open(repo.path)
    assert (again.path, again.default_name) == (repo.path, name)


def test_clone_and_fetch_follow_a_forced_push(work: Work, tmp_path: Path) -> None:
    work.write("a.c", b"1\n")
    first = work.commit()
    folder = tmp_path / "cache" / "clone"
    gitrepo.clone_bare(str(work.folder), folder)
    assert GitRepo.open(folder).resolve("main") == first
    work.write("a.c", b"2\n")
    work.git("commit", "-q", "-a", "--amend", "-m", "other")
    gitrepo.fetch(folder, str(work.folder))
    assert GitRepo.open(folder).resolve("main") == work.git("rev-parse", "HEAD").decode() != first
    with pytest.raises(RepositoryError, match="already there"):
        gitrepo.clone_bare(str(work.folder), folder)
    assert [path.name for path in folder.parent.iterdir()] == ["clone"]


@pytest.mark.parametrize("url", ["ext::sh -c touch% ran", "--upload-pack=touch ran", "/no/such/repository", "fd::7"])
def test_bad_addresses_are_errors_and_run_nothing(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RepositoryError, match="git: ") as caught:
        gitrepo.clone_bare(url, tmp_path / "clone")
    assert "Cannot clone" in caught.value.what
    assert list(tmp_path.iterdir()) == []


def test_fetch_refuses_a_folder_whose_configuration_could_run_programs(work: Work, tmp_path: Path) -> None:
    work.write("a.c", b"1\n")
    work.commit()
    gitrepo.clone_bare(str(work.folder), tmp_path / "clone")
    work.git("--git-dir", str(tmp_path / "clone"), "config", "remote.origin.uploadpack", f"touch {tmp_path}/ran")
    with pytest.raises(RepositoryError, match="uploadpack"):
        gitrepo.fetch(tmp_path / "clone", str(work.folder))
    assert not (tmp_path / "ran").exists()


def history_of(work: Work, n: int) -> list[str]:
    shas = []
    for number in range(n):
        work.write("a.c", lines(40, **{f"n{number % 40}": f"int changed_{number};"}))
        shas.append(work.commit(f"change {number}"))
    return shas


def test_announced_patches_come_in_their_order_whoever_is_left_out(work: Work) -> None:
    shas = history_of(work, 12)
    wanted = {sha: work.show(sha) for sha in shas}
    repo = GitRepo.open(work.folder)
    repo.expect(shas[:8])
    for sha in (shas[0], shas[3], shas[4], shas[7]):  # some are not wanted after all
        assert bytes_of(repo.patch(sha, LIMIT)) == wanted[sha]
    repo.expect(shas[2:4])
    for sha in (shas[9], shas[2], shas[3], shas[3]):  # asked for without notice, and twice
        assert bytes_of(repo.patch(sha, LIMIT)) == wanted[sha]
    repo.close()


def test_a_missing_object_fails_one_of_many_announced_patches(work: Work) -> None:
    shas = history_of(work, 9)
    wanted = {sha: work.show(sha) for sha in shas}
    loose(work, work.git("rev-parse", f"{shas[4]}:a.c").decode()).unlink()
    repo = GitRepo.open(work.folder)
    repo.expect([*shas, "1" * 40])
    failed = []
    for sha in [*shas, "1" * 40]:
        try:
            assert bytes_of(repo.patch(sha, LIMIT)) == wanted[sha]
        except MissingObject:
            failed.append(sha)
    assert failed == [shas[4], shas[5], "1" * 40]
    repo.close()


def test_more_patches_can_be_announced_than_fit_into_pipes(work: Work) -> None:
    shas = history_of(work, 3)
    wanted = {sha: work.show(sha) for sha in shas}
    repo = GitRepo.open(work.folder)
    many = shas * 2_000
    repo.expect(many)
    assert all(bytes_of(repo.patch(sha, LIMIT)) == wanted[sha] for sha in many)
    repo.close()


def test_the_helper_process_is_renewed_between_questions(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gitrepo, "RENEW_AFTER", 5)
    shas = history_of(work, 12)
    repo = GitRepo.open(work.folder)
    helpers = set()
    for batch in (shas[:4], shas[4:8], shas[8:]):
        repo.expect(batch)
        helpers.add(repo._diff_tree)
        for sha in batch:
            assert bytes_of(repo.patch(sha, LIMIT)) == work.show(sha)
    assert len(helpers) == 2, "after eight answers, not in the middle of a batch"
    repo.close()


def test_a_long_patch_leaves_the_next_ones_whole(work: Work) -> None:
    work.write("big.c", b"int x;\n" * 300_000)
    big = work.commit()
    work.write("line.c", b"y" * 3_000_000)
    line = work.commit()
    work.write("a.c", b"1\n")
    small = work.commit()
    wanted = {sha: work.show(sha) for sha in (big, line, small)}
    repo = GitRepo.open(work.folder)
    for limit in (1_000, 100_000, 10_000_000):
        repo.expect([big, small, line, small])
        for sha in (big, small, line, small):
            patch = repo.patch(sha, limit)
            assert patch.n_chars == len(wanted[sha])
            assert patch.text == (wanted[sha].decode() if patch.n_chars < limit else None)
            assert [file.n_added for file in patch.files] == [wanted[sha].count(b"\n+") - 1]
    repo.close()
