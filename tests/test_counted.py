"""Which files of a commit count, and what is shown of its patch."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from refine_helpers import git

from trustmine import counted, patches, text
from trustmine.config import Settings, load
from trustmine.gitrepo import GitRepo
from trustmine.records import Diff, DiffFile

FILE = DiffFile(1, "modified", "a.c", "a.c", "1" * 40, "2" * 40, False, False, 1, 1, 1)
WIDE = load(flags={"profile": "wide"}, env={}).settings


def named(*paths: str) -> tuple[DiffFile, ...]:
    return tuple(replace(FILE, file_no=n, old_path=path, new_path=path) for n, path in enumerate(paths, 1))


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        *(
            (path, True)
            for path in ("a.c", "lib/url.c", "src/a.hh", "libtiff/tif_lzw.c", "src/latest.c", "src/attest.c")
        ),
        *(
            (path, True)
            for path in ("src/contest.c", "net/documents.c", "src/driver.h", "src/conversion.c", "src/lex.c")
        ),
        *((path, False) for path in ("tests/a.c", "src/testdir/a.c", "Test/a.C.c", "fuzz/fuzz_x.c", "lib/x_test.cc")),
        *(
            (path, False)
            for path in ("docs/examples/a.c", "demos/ssl.c", "src/version.c", "lib/av_version.h", "lib/version.h")
        ),
        *((path, False) for path in ("gen/a.pb.cc", "gen/a.tab.c", "lex.yy.c", "moc_window.cpp", "keys_generated.h")),
        *((path, False) for path in ("CHANGES", "Makefile", "configure.ac", "tests/data/test1", "a.py", "a.c.orig")),
    ],
)
def test_in_the_wide_profile_only_source_of_the_product_counts(path: str, counts: bool) -> None:
    assert bool(counted.files(named(path), WIDE)) == counts
    assert counted.files(named(path), Settings()) == named(path)


@pytest.mark.parametrize(
    ("pattern", "path", "is_ignored"),
    [
        ("test/", "a/Test/b.c", True),
        ("test/", "test", False),
        ("test/", "a/testing/b.c", False),
        ("a/test/", "a/test/b.c", True),
        ("a/test/", "b/a/test/b.c", False),
        ("gen*/", "x/generated/b.c", True),
        ("*_test.c", "a/b_TEST.c", True),
        ("/b.c", "b.c", True),
        ("a/b.c", "a/b.c", True),
        ("a/b.c", "c/a/b.c", False),
        ("[", "[", True),
    ],
)
def test_patterns_are_read_as_in_gitignore(pattern: str, path: str, is_ignored: bool) -> None:
    assert counted.is_ignored(path, (pattern,)) == is_ignored
    assert not counted.is_ignored(path, ())


def test_headers_that_go_beside_a_source_file_are_shown_but_no_files_of_their_own() -> None:
    files = named("a.c", "a.h", "b.hpp")
    assert [file.new_path for file in counted.own(files, WIDE)] == ["a.c"]
    assert counted.files(files, WIDE) == files
    assert counted.own(files[1:], WIDE) == files[1:]
    assert counted.own(files, Settings()) == files


def test_parts_about_other_files_are_cut_from_the_stored_patch(tmp_path: Path) -> None:
    before = {"a.c": b"int a;\n", "test/a.c": b"diff --git a/x b/x\n", "l\xe9.c": b"x\n", "link.c": b"int b;\n"}
    after = {"a.c": b"int c;\n\xe9\n", "test/a.c": b"diff --git a/y b/y\n", "l\xe9.c": b"y\n", "NEWS": b"n\n"}
    git(tmp_path, "init", "-q", ".")
    (tmp_path / "test").mkdir()
    for contents in (before, after):
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        if contents is after:
            (tmp_path / "link.c").unlink()
            (tmp_path / "link.c").symlink_to("a.c")
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", "x")
    sha = git(tmp_path, "rev-parse", "HEAD")
    found = GitRepo.open(tmp_path).patch(sha, 1_000_000)
    assert found.text is not None
    whole, encoding = found.text, found.encoding
    diff = Diff(whole, encoding, found.n_chars)
    kept = counted.patch(diff, found.files, WIDE)
    assert kept is not None
    # What git prints for these files alone, the file that became a link in both its halves.
    shown = subprocess.run(
        ["git", "show", "--format=", sha, "--", "a.c", "l\xe9.c", "link.c"],
        cwd=tmp_path, capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert text.encode(kept, encoding) == shown
    assert len(patches.parse(shown)) == 4
    assert counted.patch(diff, found.files, Settings()) == whole
    assert counted.patch(Diff(None, "utf-8", 5), found.files, WIDE) is None
    assert "".join(part for _, part in counted.parts(whole, found.files)) == whole
    with pytest.raises(ValueError, match="parts of the stored files"):
        counted.parts(whole, found.files[1:])
