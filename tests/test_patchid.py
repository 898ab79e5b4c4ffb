"""A patch's identity is git's own."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from trustmine.patchid import patch_id


def _ids(repo: Path, *shas: str) -> list[tuple[str | None, str]]:
    """Ours and git's, of each commit."""
    found = []
    for sha in shas:
        patch = subprocess.run(["git", "show", "--format=", sha], cwd=repo, check=True, capture_output=True).stdout
        said = subprocess.run(["git", "patch-id", "--stable"], cwd=repo, check=True, input=patch, capture_output=True)
        found.append((patch_id(patch), said.stdout.decode().split(" ")[0]))
    return found


def test_a_cherry_pick_has_the_identity_of_its_origin_and_git_agrees(git: Callable[..., str], tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    body = [f"line {n};\n" for n in range(40)]
    git("commit", "-q", "--allow-empty", "-m", "root")
    for name in ("a.c", "b.c"):
        (repo / name).write_text("".join(body))
    git("add", "."), git("commit", "-q", "-m", "files")
    git("branch", "old")
    (repo / "a.c").write_text("".join(["int new;\n", *body]))
    git("commit", "-qam", "moves everything down")
    (repo / "a.c").write_text("".join(["int new;\n", *body[:20], "if(!p)\treturn;\n", *body[21:]]).rstrip("\n"))
    (repo / "b.c").write_text("".join([*body[:5], *body[9:]]))
    (repo / "c.c").write_text("int c;\n")
    git("add", "."), git("commit", "-qm", "the fix")
    fix = git("rev-parse", "HEAD")
    git("checkout", "-q", "old")
    git("cherry-pick", fix)
    pick = git("rev-parse", "HEAD")
    (repo / "b.c").write_text("other\n")
    git("commit", "-qam", "something else")
    other = git("rev-parse", "HEAD")
    (ours, theirs), (ours_pick, theirs_pick), (ours_other, theirs_other) = _ids(repo, fix, pick, other)
    assert (ours, ours_pick, ours_other) == (theirs, theirs_pick, theirs_other)
    assert ours == ours_pick != ours_other


def test_white_space_does_not_count_and_nothing_has_no_identity() -> None:
    patch = b"diff --git a/a b/a\nindex 1..2 100644\n--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n x\n-  y;\n+\ty ;z\n"
    moved = (
        patch.replace(b"@@ -1,2 +1,2 @@", b"@@ -8,2 +9,2 @@ f(void)")
        .replace(b"\ty ;z", b"y;z")
        .replace(b"1..2", b"3..4")
    )
    assert patch_id(patch) == patch_id(moved) != patch_id(patch.replace(b"z", b"w"))
    assert patch_id(b"") is None
    assert patch_id(b"diff --git a/a b/b\nsimilarity index 100%\nrename from a\nrename to b\n") is None
