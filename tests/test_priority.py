"""What makes a commit promising: each part on its own, any input, and the order of real fixes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustmine import priority
from trustmine.config import Settings
from trustmine.errors import SettingsError
from trustmine.keywords import find_identifiers
from trustmine.records import DiffFile, Priority

FILE = DiffFile(1, "modified", "src/a.c", "src/a.c", "1" * 40, "2" * 40, False, False, 1, 1, 1)
SETTINGS = Settings()
CHECK = "+  if(len >= sizeof(buf))\n+    return -1;\n   memcpy(buf, in, len);\n"


def patch(body: str, path: str = "src/a.c") -> str:
    return f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1,9 +1,9 @@ int f(void)\n{body}"


def rank(message: str = "", body: str = "-int a;\n+int b;\n", *files: DiffFile, text: str | None = None) -> Priority:
    return priority.rank(
        message,
        find_identifiers(message),
        patch(body) if text is None else text,
        files or (FILE,),
        strong=SETTINGS.strong_words,
        medium=SETTINGS.medium_words,
        weak=SETTINGS.weak_words,
        unlikely=SETTINGS.unlikely_words,
    )


def test_the_priority_is_the_sum_of_its_parts() -> None:
    found = rank("Fix heap buffer overflow\n\nCVE-2020-1234, found by fuzzing", CHECK)
    assert (found.identifiers, found.vocabulary, found.size, found.place) == (6.0, 5.0, 0.5, 0.0)
    assert found.shape == priority.GUARD + priority.BOUNDS + priority.EARLY_EXIT + priority.MEMORY_CALL
    assert found.priority == found.identifiers + found.vocabulary + found.shape + found.size
    assert found.found == (
        "CVE-2020-1234", "buffer overflow*", "fuzz*", "guard", "bounds", "early exit", "memory call",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("message", "points"),
    [
        ("CVE-2020-1234", 6.0),
        ("see GHSA-2345-6789-cfgh and CWE-787", 6.0),
        ("CWE-787", 4.0),
        ("Found-by: OSS-Fuzz", 3.0),
        ("https://bugs.chromium.org/p/oss-fuzz/issues/detail?id=1", 3.0),
        ("OSV-2021-77", 3.0),
        ("TALOS-2021-1299", 3.0),
        ("as told in the security advisory", 3.0),
        ("fuzzy matching of CVEs", 0.0),
    ],
)
def test_what_a_commit_is_known_under_counts_once(message: str, points: float) -> None:
    assert rank(message).identifiers == points


@pytest.mark.parametrize(
    ("message", "points"),
    [
        ("Stop out-of-bounds read", 4.0),
        ("Stop OUT OF\nBOUNDS read", 4.0),
        ("a use-after-free, found by ASan", 5.0),
        ("Crashes on start", 2.0),
        ("Crash, or a segfault", 3.0),
        ("Check the length", 1.0),
        ("Fix typo", -1.0),
        ("Fix warning\n\nno more typos", -1.0),
        ("Fix it\n\nand the tests, the build, a typo", 1.0),
        ("Fix double free in tests", 2.0),
        ("the overflowing", 2.0),
        ("a boob in the insecurity checksum", 1.0),  # "oob" and "security" are whole words, "check*" is a beginning
        ("see https://example.org/security/buffer-overflow", 0.0),
        ("", 0.0),
    ],
)
def test_the_strongest_words_of_a_message_count(message: str, points: float) -> None:
    assert rank(message).vocabulary == points


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        ("+  if(!p)\n+    goto out;\n", ["guard", "null check", "early exit"]),
        ("+  if(p == NULL) return;\n", ["guard", "null check", "early exit"]),
        ("-  while(i <= n)\n+  while(i < n && i < max)\n", ["guard", "bounds"]),
        ("-  if(a)\n+  if(a && b->c)\n", ["guard"]),
        ("+  free(p);\n+  p = NULL;\n", ["memory call", "pointer cleared"]),
        ("-  strcpy(a, b);\n+  my_strlcpy(a, b, sizeof(a));\n", ["memory call"]),
        ("-  x = y >> 2;\n+  x = y << 2 | p->q;\n", []),
        ("+  for(i = 0; i < n; i++)\n+    sum += a[i];\n", []),
        ('+  puts("if (a < b && !c) return NULL;");\n', []),
        ("-  if(a < b)\n-    return;\n", []),
        ("-f();\n-if(a)\n-  g();\n+if(a)\n+  g();\n+f();\n", []),  # only moved
        ('-  s = "a";\n+  s = "b";\n', []),
        ("-#if A\n+#if A && B\n", []),
        ("+#define CHECK(p) if(!p) return\n", []),
    ],
)
def test_the_shape_of_a_change_is_seen(body: str, kinds: list[str]) -> None:
    assert list(rank(body=body).found) == kinds


@pytest.mark.parametrize(
    "body",
    [
        "+// if(a)\n",
        "-  f();\n+    f();\n",
        "+\n",
        "-/* a\n+ * b\n",
        "+#include <a.h>\n",
        "-f(a,\n-  b);\n+f(a, b);\n",
        "",
    ],
)
def test_a_change_without_code_is_the_least_promising(body: str) -> None:
    assert rank(body=body).shape == priority.NO_CODE < rank(body="-a();\n+b();\n").shape


def test_large_changes_come_after_small_ones_and_none_of_the_small_is_preferred() -> None:
    sizes = [rank(body="".join(f"+f({i});\n" for i in range(n))).size for n in (1, 15, 16, 30, 31, 60, 61, 1_000)]
    assert sizes == [0.5, 0.5, 0.0, 0.0, -0.5, -0.5, -1.0, -1.0]


@pytest.mark.parametrize(
    ("path", "points"),
    [
        ("src/a.c", 0.0),
        ("src/a.h", -0.5),
        ("tests/unit/a.c", -3.0),
        ("src/test_a.c", -3.0),
        ("src/a_test.cc", -3.0),
        ("docs/examples/a.c", -3.0),
        ("fuzzing/a.c", -3.0),
        ("examples/a.c", -3.0),
        ("src/latest/attest.c", 0.0),
        ("src/core/doc/sample.c", 0.0),
        ("src/unit.c", 0.0),
        ("contest.c", 0.0),
    ],
)
def test_code_that_is_not_shipped_comes_last(path: str, points: float) -> None:
    assert rank("", CHECK, replace(FILE, new_path=path)).place == points


def test_a_patch_of_several_files_counts_as_one_and_its_headers_are_no_code() -> None:
    two = patch("-  x();\n+  y();\n", "src/if(a<b).c") + patch("+  if(a < b)\n+    return;\n", "tests/b.c")
    files = (FILE, replace(FILE, file_no=2, new_path="tests/b.c"))
    found = rank("", "", *files, text=two)
    assert (found.shape, found.place) == (priority.GUARD + priority.BOUNDS + priority.EARLY_EXIT, 0.0)
    assert priority.changed_code(two) == priority.Change(["y();", "if(a < b)", "return;"], ["x();"], True)


def test_a_change_behind_the_part_of_a_line_that_is_read_is_a_change() -> None:
    assert rank(body=f"-{'1,' * 300}2\n+{'1,' * 300}3\n").shape == 0.0


@given(message=st.text(), body=st.text(), path=st.text())
def test_any_text_has_a_priority(message: str, body: str, path: str) -> None:
    for text in (body, patch(body), patch("+" + body)):
        found = rank(message, "", replace(FILE, new_path=path), text=text)
        assert found.priority == sum((found.identifiers, found.vocabulary, found.shape, found.size, found.place))


@pytest.mark.parametrize(
    "unit", ['"', '\\"', "a", "!", "<", "= ", "if(", "a(", " ", "a_", "-", "://", "https://", "test"]
)
def test_a_line_of_a_megabyte_costs_no_more_than_its_length(unit: str) -> None:
    """Anything but linear time would not come back."""
    long = unit * (1_000_000 // len(unit))
    assert rank(long, f"+{long}\n").size == 0.5
    assert rank(f"x\n{long}", f"-{long}\n", replace(FILE, new_path=long[:4096]), text=patch(f"+{long}")).size == 0.5


def test_a_word_of_two_lists_belongs_to_the_first_and_the_longest_match_counts() -> None:
    found = priority.words(("heap overflow*", "free"), ("free", "overflow*"))
    assert found.find(priority.normal("Heap-overflows, free overflow")) == [
        (0, "heap overflow*"),
        (0, "free"),
        (1, "overflow*"),
    ]
    assert priority.words(()).find(priority.normal("anything")) == []


@pytest.mark.parametrize("word", ["*", " ", "-*", "!?"])
def test_a_word_without_a_letter_is_an_error_of_the_settings(word: str) -> None:
    with pytest.raises(SettingsError, match="no letter"):
        priority.words((word,))


def test_a_fix_outranks_everyday_work() -> None:
    fix = rank("url: avoid heap overflow with long names", CHECK)
    silent = rank("url: reject names that are too long", CHECK)
    everyday = rank("url: fix compiler warning", "-  int i;\n+  size_t i;\n")
    typo = rank("fix typos in comments", "-/* teh */\n+/* the */\n")
    assert fix.priority > silent.priority > everyday.priority > typo.priority
