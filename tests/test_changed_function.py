"""The function around a hunk, before and after, found from two texts and git's own diff of them."""

import subprocess
from pathlib import Path

import pytest

from trustmine import fixes, patches
from trustmine.changed_function import MULTI_FUNCTION, NOT_IN_FUNCTION, function_pair, old_name
from trustmine.cparse import outline

F = "int f(void)\n{\n  a();\n  b();\n}\n"
GAP = "\n" * 20
LONG = "int f(void)\n{\n" + "".join(f"  a({n});\n" for n in range(1, 20)) + "}\n"
ONE_LINERS = "int a(void) { return 1; }\nint b(void) { return 2; }\nint c(void) { return 3; }\n"


def pair(folder: Path, before: str, after: str) -> str:
    """The two functions as `name first-last -> name first-last`, or why there are none."""
    for name, text in (("a.c", before), ("b.c", after)):
        (folder / name).write_text(text)
    command = ["git", "diff", "--no-index", "a.c", "b.c"]
    patch = subprocess.run(command, cwd=folder, capture_output=True).stdout
    (file_patch,) = patches.parse(patch)
    assert patches.apply(before.encode(), file_patch) == after.encode()
    edits = fixes.edits(file_patch.hunks)
    old, new = outline(before.encode(), "a.c"), outline(after.encode(), "b.c")
    found = function_pair(old, new, edits, edits, is_one_place=len(file_patch.hunks) == 1)
    if isinstance(found, str):
        return found
    return " -> ".join(f"{f.name} {f.first_line}-{f.last_line}" for f in found)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (F, F.replace("a()", "c()"), "f 1-5 -> f 1-5"),
        (F, F.replace("  b();\n", "  b();\n  c();\n"), "f 1-5 -> f 1-6"),
        (F, F.replace("  a();\n", ""), "f 1-5 -> f 1-4"),
        # The signature grows or shrinks by a line.
        (F, "static\n" + F, "f 1-5 -> f 1-6"),
        ("static\n" + F, F, "f 1-6 -> f 1-5"),
        (F, F.replace("f(void)", "g(int a,\n  int b)"), "f 1-5 -> g 1-6"),
        # The end moves into, or out of, the changed lines.
        ("int f(void) { return 1; }\n", "int f(void) {\n  return 1;\n}\n", "f 1-1 -> f 1-3"),
        (ONE_LINERS, ONE_LINERS.replace("2", "4"), "b 2-2 -> b 2-2"),
        # A function that comes or goes is not its neighbour.
        (ONE_LINERS, ONE_LINERS.replace("int b(void) { return 2; }\n", ""), NOT_IN_FUNCTION),
        (ONE_LINERS.replace("int b(void) { return 2; }\n", ""), ONE_LINERS, NOT_IN_FUNCTION),
        (F, F + "\n" + F.replace("f(", "g("), NOT_IN_FUNCTION),
        (F + "int x;\n", F + "int y;\n", NOT_IN_FUNCTION),
        # Several hunks: lines before the function may have moved it, those after it do not.
        ("#include <a>\n" + GAP + F, "#include <a>\n#include <b>\n" + GAP + F.replace("a()", "c()"), NOT_IN_FUNCTION),
        (LONG, LONG.replace("a(1)", "a(0)").replace("a(19)", "a(0)"), "f 1-22 -> f 1-22"),
        (LONG, LONG.replace("  a(1);\n", "").replace("a(19)", "a(0)"), "f 1-22 -> f 1-21"),
        (LONG, LONG.replace("a(1);", "a(1);\n  b();").replace("a(19);", "a(19);\n  b();"), "f 1-22 -> f 1-24"),
        (LONG + GAP + F, LONG.replace("a(1)", "a(0)") + GAP + F.replace("a()", "c()"), MULTI_FUNCTION),
    ],
)
def test_a_function_is_followed_over_a_hunk(tmp_path: Path, before: str, after: str, expected: str) -> None:
    assert pair(tmp_path, before, after) == expected


@pytest.mark.parametrize(
    ("name", "before", "after", "expected"),
    [
        ("f", F, F.replace("a()", "c()"), "f"),
        ("f", F, F.replace("void", "int n"), "f"),
        ("f_bounded", F, F.replace("f(void)", "f_bounded(int n)"), "f"),
        # What calls it by the new name was called otherwise all the same.
        ("g", F.replace("a()", "g()"), F.replace("f(", "g("), "f"),
        ("ns::K::g", "void run(int a) const\n{\n}\n", "void g(int a) const\n{\n}\n", "ns::K::run"),
        ("ns::L::run", "void K::run()\n{\n}\n", "void L::run()\n{\n}\n", "ns::K::run"),
        ("K::K", "K(int a) : b(a)\n{\n}\n", "K(int a, int c) : b(a)\n{\n}\n", "K::K"),
        ("f", "#ifdef A\nint f(int a)\n#else\nint f(void)\n#endif\n{\n}\n", F, "f"),
        ("f", "no code", F, "f"),
    ],
)
def test_the_name_before_is_the_pre_images_own(name: str, before: str, after: str, expected: str) -> None:
    path = "x.cpp" if "::" in name else "x.c"
    assert old_name(name, path, before.encode(), path, after.encode()) == expected
