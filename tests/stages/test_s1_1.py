"""s1_1 on real repositories: the function pair, and every reason to reject."""

import datetime
import zlib
from pathlib import Path
from typing import Any

import pytest
from refine_helpers import MemoryFacts, a_commit, context, git

from trustmine import licences, patches, text
from trustmine.config import PROFILES
from trustmine.gitrepo import GitRepo
from trustmine.records import Advance, Diff, FunctionPair, Identifier, Label, Licence, PreImage, Reject
from trustmine.stages import s1_1_refine

HEAD_ = "/* about f */\nint\nf(char *p)\n{\n"
FUNCTION = HEAD_ + "  int n = 4;\n  copy(p, n);\n  a();\n  b();\n  c();\n  return n;\n}\n"
OTHER = "\nint g(void)\n{\n  return 1;\n}\n"


def run(folder: Path, before: str | bytes | None, after: str | bytes | None, **more: Any) -> Any:
    """The stage's outcome for a commit that turns one content of x.c into another."""
    name, new_name = more.pop("name", "x.c"), more.pop("new_name", None)
    git(folder, "init", "-q", ".")
    (folder / "README").write_text("x")
    for content, path in ((before, name), (after, new_name or name)):
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", "x")
    sha = git(folder, "rev-parse", "HEAD")
    repo = GitRepo.open(folder)
    patch = repo.patch(sha, 1_000_000)
    assert patch.text is not None
    patch_text, encoding = text.decode(more.pop("patch", text.encode(patch.text, patch.encoding)))
    facts = MemoryFacts(
        [Diff(patch_text, encoding, patch.n_chars), *patch.files, *more.pop("facts", ())], more.pop("labels", ())
    )
    commit = a_commit(sha, more.pop("time_s", 1_500_000_000))
    return s1_1_refine.run(commit, context(facts, repo, **more))


def reason(outcome: Any) -> str:
    assert isinstance(outcome, Reject)
    assert outcome.reason in s1_1_refine.REASONS
    return outcome.reason


def test_a_fix_in_one_function_gives_it_before_and_after(tmp_path: Path) -> None:
    outcome = run(tmp_path, OTHER + FUNCTION + OTHER, OTHER + FUNCTION.replace("n = 4", "n = 8;\n  int m") + OTHER)
    assert isinstance(outcome, Advance)
    image, function, licence = outcome.facts
    assert isinstance(image, PreImage)
    assert isinstance(function, FunctionPair)
    assert licence == Licence("unknown", None, None)
    assert zlib.decompress(image.content).decode() == OTHER + FUNCTION + OTHER
    assert (function.name, function.split, function.encoding) == ("f", "train", "utf-8")
    assert (function.pre_first_line, function.pre_last_line) == (7, 16)
    assert (function.post_first_line, function.post_last_line) == (7, 17)
    assert function.pre_text == FUNCTION.removeprefix("/* about f */\n")
    assert function.deleted_lines == (4,)
    assert function.added_lines == (4, 5)
    assert function.post_text.split("\n")[3:5] == ["  int n = 8;", "  int m;"]
    assert function.hunk.startswith("@@ -")
    assert patches.parse(b"diff --git a/x b/x\n" + function.hunk.encode())[0].hunks[0].text().decode() == function.hunk


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (FUNCTION, FUNCTION.replace("  a();\n", "  a();\n  aa();\n"), "only_additions"),
        (None, FUNCTION, "only_additions"),
        (FUNCTION, None, "not_in_function"),
        ("int a;\n" + FUNCTION, "int b;\n" + FUNCTION, "not_in_function"),
        # From inside of f over its end into what follows.
        (FUNCTION + "int a;\n", FUNCTION.replace("  return n;\n}", "  return 0;\n}") + "int b;\n", "not_in_function"),
        (FUNCTION, FUNCTION.replace("  a();\n", "  a ( ); /* b */\n"), "format_only"),
        (FUNCTION, FUNCTION.replace("  a();\n", "}\nint h(void)\n{\n"), "not_in_function"),
        (FUNCTION + "int h( = { ] x ;\n", FUNCTION + "int h( = { ] y ;\n", "function_unparsed"),
        (FUNCTION + OTHER * 4, FUNCTION.replace("n = 4", "n = 5") + OTHER * 3 + "\nint h;\n", "multi_hunk"),
        (b"\0bin\xff", b"\0bin", "not_in_function"),
    ],
)
def test_what_is_rejected(tmp_path: Path, before: str | None, after: str | None, expected: str) -> None:
    assert reason(run(tmp_path, before, after)) == expected


def test_a_pure_rename_is_a_noop_and_a_rename_with_a_fix_is_kept(tmp_path: Path) -> None:
    for folder in ("pure", "fixed"):
        (tmp_path / folder).mkdir()
    assert reason(run(tmp_path / "pure", FUNCTION, FUNCTION, new_name="y.c")) == "noop"
    outcome = run(tmp_path / "fixed", FUNCTION, FUNCTION.replace("n = 4", "n = 5"), new_name="y.c")
    assert (outcome.facts[1].old_path, outcome.facts[1].path) == ("x.c", "y.c")


def test_context_lines_may_reach_into_neighbours(tmp_path: Path) -> None:
    outcome = run(tmp_path, FUNCTION + OTHER, FUNCTION.replace("return n", "return 0") + OTHER)
    assert outcome.facts[1].name == "f"


def test_a_function_renamed_in_the_hunk_is_the_same_function(tmp_path: Path) -> None:
    outcome = run(tmp_path, FUNCTION, FUNCTION.replace("f(char *p)", "ff(const char *p)"))
    assert (outcome.facts[1].name, outcome.facts[1].pre_text.split("\n")[1]) == ("ff", "f(char *p)")


def test_a_pure_deletion_is_kept(tmp_path: Path) -> None:
    outcome = run(tmp_path, FUNCTION, FUNCTION.replace("  a();\n", ""))
    assert (outcome.facts[1].deleted_lines, outcome.facts[1].added_lines) == ((6,), ())


def test_long_functions_are_rejected_by_their_tokens(tmp_path: Path) -> None:
    outcome = run(tmp_path, FUNCTION, FUNCTION.replace("n = 4", "n = 5"), max_function_tokens=20)
    assert reason(outcome) == "function_too_long"


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("byte", [b"e", b"\xe9", "é".encode()])
def test_bytes_survive_in_texts(tmp_path: Path, ending: str, byte: bytes) -> None:
    source = FUNCTION.replace("a();", 'a("?");').replace("\n", ending).encode().replace(b"?", byte)
    function = run(tmp_path, source, source.replace(b"n = 4", b"n = 5")).facts[1]
    assert text.encode(function.pre_text, function.encoding) == source.partition(ending.encode())[2]


CUTOFF_S = int(datetime.datetime(2023, 1, 1, tzinfo=datetime.UTC).timestamp())


@pytest.mark.parametrize(
    ("time_s", "facts", "labels", "split"),
    [
        (CUTOFF_S - 1, (), (), "train"),
        (CUTOFF_S - 1, (Identifier("CVE", "CVE-2022-1"),), (), "train"),
        (CUTOFF_S, (), (), None),
        (CUTOFF_S, (Identifier("CWE", "CWE-787"),), (Label("list", "GHSA-x", "yes", None),), None),
        (CUTOFF_S, (Identifier("CVE", "CVE-2023-1"),), (), "bench"),
        (99_999_999_999_999, (), (), None),  # no calendar holds this date, nor the next
        (-99_999_999_999_999, (), (), "train"),
        (CUTOFF_S, (), (Label("list", "CVE-2023-1", "yes", None),), "bench"),
    ],
)
def test_the_cutoff_splits(tmp_path: Path, time_s: int, facts: Any, labels: Any, split: str | None) -> None:
    after = FUNCTION.replace("n = 4", "n = 5")
    outcome = run(tmp_path, FUNCTION, after, time_s=time_s, facts=facts, labels=labels)
    if split is None:
        assert reason(outcome) == "after_cutoff"
    else:
        assert outcome.facts[1].split == split


def test_a_patch_that_does_not_give_the_post_image_fails_the_row(tmp_path: Path) -> None:
    wrong = b"diff --git a/x.c b/x.c\n--- a/x.c\n+++ b/x.c\n@@ -5 +5 @@\n-  int n = 4;\n+  int n = 6;\n"
    with pytest.raises(s1_1_refine.IdentityError):
        run(tmp_path, FUNCTION, FUNCTION.replace("n = 4", "n = 5"), patch=wrong)


# ---------------------------------------------------- one function, several hunks, only additions

WIDE = {"fix_scope": "function", "only_additions": "keep"}
LONG = FUNCTION.replace("  b();\n", "".join(f"  b{i}();\n" for i in range(20)))


def identity(pair: FunctionPair) -> None:
    """The function before, its hunks applied as far as they lie in it, is the function after."""
    pre, post = pair.pre_text.split("\n"), pair.post_text.split("\n")
    kept = [line for n, line in enumerate(pre, 1) if n not in pair.deleted_lines]
    assert kept == [line for n, line in enumerate(post, 1) if n not in pair.added_lines]


def test_several_hunks_in_one_function_are_one_fix(tmp_path: Path) -> None:
    after = LONG.replace("n = 4", "n = 8").replace("return n;", "return 0;")
    pair = run(tmp_path, OTHER + LONG + OTHER, OTHER + after + OTHER, **WIDE).facts[1]
    assert (pair.name, pair.deleted_lines, pair.fix_lines) == ("f", (4, 28), (4, 28))
    assert pair.hunk.count("@@ -") == 2
    assert len(patches.parse(b"diff --git a/x b/x\n" + pair.hunk.encode())[0].hunks) == 2
    identity(pair)
    (tmp_path / "paper").mkdir()
    assert reason(run(tmp_path / "paper", LONG, after)) == "multi_hunk"


def test_edits_that_change_no_code_are_no_part_of_the_fix(tmp_path: Path) -> None:
    before = "#include <a.h>\nint x;\nint y;\n\n/* old */\nint z;\n\n\n" + LONG + OTHER
    after = before.replace("#include <a.h>\n", "#include <a.h>\n#include <b.h>\n").replace("old", "new")
    after = (
        after.replace("n = 4", "n = 8").replace("  b9();\n", "  b9( ); /* here */\n").replace("return 1", "return  1")
    )
    pair = run(tmp_path, before, after, **WIDE).facts[1]
    assert (pair.name, pair.deleted_lines, pair.added_lines, pair.fix_lines) == ("f", (4, 16), (4, 16), (4,))
    assert (pair.pre_first_line, pair.post_first_line) == (10, 11)
    assert pair.hunk.count("@@ -") == 2  # not the one of the #include, nor g's
    identity(pair)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (LONG.replace("n = 4", "n = 8") + OTHER.replace("return 1", "return 2"), "multi_function"),
        (LONG.replace("n = 4", "n = 8") + OTHER + "int h;\n", "not_in_function"),
        (LONG + OTHER + "\nint h(void)\n{\n  return 2;\n}\n", "not_in_function"),
        (LONG.replace("a();", "a( ); /* b */") + OTHER, "format_only"),
        ("#include <x.h>\n" + LONG + OTHER, "not_in_function"),
        ("int f(char *p)\n{\n  return 0;\n}\n" + OTHER.replace("1", "2"), "multi_function"),
    ],
)
def test_a_fix_of_several_hunks_outside_of_one_function_is_rejected(tmp_path: Path, after: str, expected: str) -> None:
    assert reason(run(tmp_path, LONG + OTHER, after, **WIDE)) == expected


def test_a_fix_that_only_adds_lines_is_about_the_statements_where_it_adds_them(tmp_path: Path) -> None:
    after = FUNCTION.replace("  copy(p, n);\n", "  if(!p)\n    return 0;\n\n  copy(p, n);\n")
    pair = run(tmp_path, OTHER + FUNCTION, OTHER + after, **WIDE).facts[1]
    assert (pair.deleted_lines, pair.added_lines, pair.fix_lines) == ((), (5, 6, 7), (5,))
    assert pair.pre_text.split("\n")[4] == "  copy(p, n);"
    identity(pair)


def test_deleted_lines_and_insertions_are_both_what_the_fix_is_about(tmp_path: Path) -> None:
    after = LONG.replace("n = 4", "n = 8").replace("  return n;\n", "  free(p);\n  return n;\n")
    assert run(tmp_path, LONG, after, **WIDE).facts[1].fix_lines == (4, 28)
    (tmp_path / "hunks").mkdir()
    assert run(tmp_path / "hunks", LONG, after, fix_scope="function").facts[1].fix_lines == (4,)
    (tmp_path / "none").mkdir()
    only = LONG.replace("  return n;\n", "  free(p);\n  return n;\n")
    assert reason(run(tmp_path / "none", LONG, only, fix_scope="function")) == "only_additions"


def test_a_file_added_has_no_function_before(tmp_path: Path) -> None:
    assert reason(run(tmp_path, None, FUNCTION, **WIDE)) == "only_additions"


def test_in_the_paper_profile_the_fix_is_what_it_deletes(tmp_path: Path) -> None:
    after = FUNCTION.replace("n = 4", "n = 8").replace("  a();\n", "  aa();\n  a();\n")
    pair = run(tmp_path, FUNCTION, after).facts[1]
    assert pair.fix_lines == pair.deleted_lines == (4,)


def test_files_that_do_not_count_are_no_part_of_the_fix(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", ".")
    (tmp_path / "tests").mkdir()
    for value in ("4", "5"):
        for name in ("a.h", "x.c", "tests/x.c", "zz"):
            (tmp_path / name).write_text(FUNCTION.replace("n = 4", f"n = {value}"))
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", "x")
    sha = git(tmp_path, "rev-parse", "HEAD")
    repo = GitRepo.open(tmp_path)
    patch = repo.patch(sha, 1_000_000)
    facts = MemoryFacts([Diff(patch.text, patch.encoding, patch.n_chars), *patch.files])
    wide = {**PROFILES["wide"], "profile": "wide"}
    outcome = s1_1_refine.run(a_commit(sha), context(facts, repo, **wide))
    assert isinstance(outcome, Advance)
    pair = outcome.facts[1]
    assert isinstance(pair, FunctionPair)
    assert pair.path == "x.c"


LICENCES = {
    "Zlib": """Copyright (c) 2020 A. Hacker

This software is provided 'as-is', without any express or implied warranty. In no event will the authors be held liable
for any damages arising from the use of this software.

Permission is granted to anyone to use this software for any purpose, including commercial applications, and to alter it
and redistribute it freely, subject to the following restrictions:

1. The origin of this software must not be misrepresented; you must not claim that you wrote the original software. If
you use this software in a product, an acknowledgment in the product documentation would be appreciated but is not
required.
2. Altered source versions must be plainly marked as such, and must not be misrepresented as being the original
software.
3. This notice may not be removed or altered from any source distribution.
""",
    "ISC": """Copyright (c) 2020 A. Hacker

Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted,
provided that the above copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT,
INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN
ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF
THIS SOFTWARE.
""",
}


NAMES_FILE = "# Tool\n\n## Copying\n\nFree. Please read `./doc/words.txt`.\n\nSee also https://example.org/doc/a.\n"


@pytest.mark.parametrize(
    ("head", "files", "expected"),
    [
        (
            "/* SPDX-License-Identifier: gpl-2.0-only OR mit */\n",
            {"COPYING": ""},
            ("GPL-2.0-only OR MIT", "file", "x.c"),
        ),
        ("// SPDX-License-Identifier: Our-Own\n", {}, ("unknown", "file", "x.c")),
        ("", {"LICENSE.txt": "Zlib", "notes": "MIT"}, ("Zlib", "repository", "LICENSE.txt")),
        ("", {"LICENSE": "Zlib", "COPYING": "Zlib"}, ("Zlib", "repository", "COPYING")),
        ("", {"LICENSE": "Zlib", "COPYING": "ISC"}, ("unknown", "repository", "COPYING")),
        ("", {"LICENSE": "do what you like"}, ("unknown", "repository", "LICENSE")),
        ("", {"README.md": "# Tool\n\nAbout it.\n\n" * 30 + "ISC"}, ("ISC", "repository", "README.md")),
        ("", {"README.md": NAMES_FILE, "doc/words.txt": "Zlib"}, ("Zlib", "repository", "doc/words.txt")),
        ("", {"README.md": NAMES_FILE, "doc/words.txt": "nothing"}, ("unknown", None, None)),
        ("", {"README.md": "See doc/words.txt.\n\nMIT licence", "doc/words.txt": "Zlib"}, ("unknown", None, None)),
        ("", {"README.md": "ISC", "README.txt": "Zlib"}, ("unknown", None, None)),
        ("", {"LICENSE": "ISC", "README.md": "Zlib"}, ("ISC", "repository", "LICENSE")),
    ],
)
def test_the_licence_is_what_the_file_or_the_repository_says(
    tmp_path: Path, head: str, files: dict[str, str], expected: tuple[str, str, str]
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        for spdx, words in LICENCES.items():
            content = content.replace(spdx, words) if content.endswith(spdx) else content
        (tmp_path / name).write_text(content)
    outcome = run(tmp_path, head + FUNCTION, head + FUNCTION.replace("n = 4", "n = 8"))
    assert outcome.facts[2] == Licence(*expected)


def test_of_the_paths_that_a_readme_names_only_so_many_are_looked_for() -> None:
    looked_for: list[bytes] = []
    readme = b"Copying: " + b" ".join(b"doc/%d.txt" % n for n in range(10_000))
    found = licences.of_repository({b"README": "a"}, lambda oid: readme, looked_for.append)
    assert found == ("unknown", None) and len(looked_for) == licences.MAX_PATHS
