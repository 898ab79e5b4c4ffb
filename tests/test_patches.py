"""Patches: parsed and applied byte for byte."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trustmine import patches
from trustmine.lines import split_lines

# Few different lines, so that git finds common ones; endings of all kinds.
LINES = st.sampled_from([b"a", b"b", b"", b"\r", b"x\r", b"\\ No newline at end of file", b"-", b"+ y", b"\xff\x0c"])
FILES = st.builds(
    lambda lines, end: b"\n".join(lines) + end, st.lists(LINES, max_size=30), st.sampled_from([b"", b"\n"])
)


def git_diff(folder: Path, pre: bytes, post: bytes) -> bytes:
    (folder / "old").write_bytes(pre)
    (folder / "new").write_bytes(post)
    command = ["git", "diff", "--no-index", "--text", "old", "new"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).stdout


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pre=FILES, post=FILES)
def test_pre_image_plus_patch_is_post_image(tmp_path: Path, pre: bytes, post: bytes) -> None:
    patch = git_diff(tmp_path, pre, post)
    files = patches.parse(patch)
    assert len(files) == (pre != post)
    for file in files:
        assert patches.apply(pre, file) == post
        assert patch.endswith(b"".join(hunk.text() for hunk in file.hunks))
        old, new = split_lines(pre), split_lines(post)
        deleted = [n for hunk in file.hunks for n in patches.deleted_lines(hunk)]
        added = [n for hunk in file.hunks for n in patches.added_lines(hunk)]
        kept_old = [line for n, line in enumerate(old, 1) if n not in deleted]
        assert kept_old == [line for n, line in enumerate(new, 1) if n not in added]


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=300)
    | st.lists(LINES).map(lambda lines: b"diff --git a/x b/x\n@@ -1 +1,2 @@\n" + b"\n".join(lines))
)
def test_any_bytes_parse_or_raise_patch_error(data: bytes) -> None:
    try:
        files = patches.parse(data)
    except patches.PatchError:
        return
    for file in files:
        for hunk in file.hunks:
            assert sum(line[:1] in b" -" for line in hunk.lines) == hunk.old_lines


def test_a_patch_that_does_not_belong_to_the_file_is_refused(tmp_path: Path) -> None:
    (file,) = patches.parse(git_diff(tmp_path, b"a\nb\nc\n", b"a\nB\nc\n"))
    for wrong in (b"a\nb\nc", b"a\nb\n", b"", b"a\nx\nc\n", b"a\nb\r\nc\n"):
        with pytest.raises(patches.PatchError):
            patches.apply(wrong, file)


@pytest.mark.parametrize(
    ("header", "old", "new"),
    [
        (b"diff --git a/x y.c b/x y.c\nold mode 100644\nnew mode 100755\n", b"x y.c", b"x y.c"),
        (b"diff --git a/a.c b/b.c\nsimilarity index 100%\nrename from a.c\nrename to b.c\n", b"a.c", b"b.c"),
        (b"diff --git a/n.c b/n.c\nnew file mode 100644\nindex 0000000..e69de29\n", None, b"n.c"),
        (b"diff --git a/n.c b/n.c\ndeleted file mode 100644\nindex e69de29..0000000\n", b"n.c", None),
        (b'diff --git "a/\\303\\244\\t.c" "b/\\303\\244\\t.c"\nold mode 100644\n', "ä\t.c".encode(), "ä\t.c".encode()),
        (b"diff --git a/a b.c b/a b.c\n--- a/a b.c\t\n+++ b/a b.c\t\n", b"a b.c", b"a b.c"),
    ],
)
def test_paths_come_from_whichever_header_names_them(header: bytes, old: bytes | None, new: bytes | None) -> None:
    (file,) = patches.parse(header)
    assert (file.old_path, file.new_path, file.hunks) == (old, new, ())


def test_a_binary_file_has_no_hunks_and_a_combined_diff_is_refused() -> None:
    (file,) = patches.parse(b"diff --git a/x b/x\nindex 1..2 100644\nBinary files a/x and b/x differ\n")
    assert file.is_binary
    with pytest.raises(patches.PatchError):
        patches.apply(b"", file)
    with pytest.raises(patches.PatchError):
        patches.parse(b"diff --cc x\nindex 1,2..3\n")


def test_changed_lines_are_counted_in_their_own_image() -> None:
    patch = (
        b"diff --git a/x b/x\n@@ -3,4 +3,5 @@ int f(void)\n a\n-b\n+B\n+C\n c\n-d\n+d\n\\ No newline at end of file\n"
    )
    (file,) = patches.parse(patch)
    (hunk,) = file.hunks
    assert patches.deleted_lines(hunk) == (4, 6)
    assert patches.added_lines(hunk) == (4, 5, 7)
    assert patch.endswith(hunk.text())
