"""The function around a hunk, before and after, found from two texts and git's own diff of them."""

import subprocess
from pathlib import Path

import pytest

from trustmine.changed_function import NOT_IN_FUNCTION, function_pair, patched
from trustmine.cparse import outline

F = "int f(void)\n{\n  a();\n  b();\n}\n"
ONE_LINERS = "int a(void) { return 1; }\nint b(void) { return 2; }\nint c(void) { return 3; }\n"


def pair(folder: Path, before: str, after: str) -> str:
    """The two functions as `name first-last -> name first-last`, or why there are none."""
    for name, text in (("a.c", before), ("b.c", after)):
        (folder / name).write_text(text)
    command = ["git", "diff", "--no-index", "a.c", "b.c"]
    patch = subprocess.run(command, cwd=folder, capture_output=True).stdout
    hunk, post = patched(before.encode(), patch)
    assert post == after.encode()
    found = function_pair(outline(before.encode(), "a.c"), outline(post, "b.c"), hunk)
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
    ],
)
def test_a_function_is_followed_over_a_hunk(tmp_path: Path, before: str, after: str, expected: str) -> None:
    assert pair(tmp_path, before, after) == expected
