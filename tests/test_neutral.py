"""Changes that change nothing that runs: compiled, they give the same code."""

import dataclasses
import subprocess
from pathlib import Path

import pytest
import stage_helpers as helpers
from hypothesis import given
from hypothesis import strategies as st

from trustmine import cparse, neutral
from trustmine.samples import Sample

C = """\
struct item { int count; char *data; };
#define RELEASE(p) free_item(p)
extern void free_item(char *);
extern int sum(int, int);
"""
FUNCTION = """\
int total(struct item *first, int count, char *data)
{
    int i = 0;
    long size = 7;
    char name[16], *p = 0;
    int other = count;
    unsigned flags;

    for (i = 0; i < count; i++) {
        struct item *one = &first[i];
        one->count = sum(one->count, other);
        size += one->count; /* count and size */
    }
    flags = sizeof "count";
    RELEASE(data);
    p = name;
    return (int)size + flags + (p == name);
}
"""


def compiled(tmp_path: Path, function: str) -> bytes:
    """The machine code, without names of locals."""
    (tmp_path / "a.c").write_text(C + function)
    subprocess.run(["cc", "-O2", "-w", "-S", "-fno-ident", "-o", "a.s", "a.c"], cwd=tmp_path, check=True)
    return (tmp_path / "a.s").read_bytes()


def test_renamed_locals_leave_the_program_as_it_was(tmp_path: Path) -> None:
    before = compiled(tmp_path, FUNCTION)
    found = cparse.renameable(FUNCTION.encode(), "a.c")
    names = [local.name.decode() for local in found]
    assert names == ["count", "first", "flags", "i", "name", "one", "other", "p", "size"], "a macro is given data"
    for local in found:
        renamed = cparse.rename(FUNCTION.encode(), local, b"new_name").decode()
        assert renamed != FUNCTION
        assert compiled(tmp_path, renamed) == before
        assert "/* count and size */" in renamed and '"count"' in renamed


def test_a_name_in_use_is_not_given_again() -> None:
    [local] = [one for one in cparse.renameable(FUNCTION.encode(), "a.c") if one.name == b"size"]
    with pytest.raises(ValueError, match="in use"):
        cparse.rename(FUNCTION.encode(), local, b"count")


@pytest.mark.parametrize(
    "function",
    [
        "int f(int a)\n{\n#if X\n    a = 1;\n#endif\n    return a;\n}\n",
        "int f(int a)\n{\n    { int a = 1; g(a); }\n    return a;\n}\n",
        'int f(int a)\n{\n    __asm__("nop" : : "r"(a));\n    return a;\n}\n',
        "int f(int a)\n{\n    return OPEN(a);\n}\n",
        "int f(int a)\n{\n    return (a;\n}\n",
        "int f(int T)\n{\n    T x = 1;\n    return T;\n}\n",
    ],
)
def test_what_is_in_doubt_is_not_renamed(function: str) -> None:
    assert [local for local in cparse.renameable(function.encode(), "a.c") if local.name in (b"a", b"T")] == []


def test_a_lambda_takes_names_from_around_it() -> None:
    function = "int f(int a)\n{\n    auto g = [a] { return a; };\n    return a + g();\n}\n"
    assert cparse.renameable(function.encode(), "a.cpp") == ()


def test_swapped_declarations_leave_the_program_as_it_was(tmp_path: Path) -> None:
    before = compiled(tmp_path, FUNCTION)
    lines = FUNCTION.splitlines(keepends=True)
    found = cparse.swappable(FUNCTION.encode(), "a.c")
    assert found == (3, 4), "the value of `other` is computed"
    for line in found:
        swapped = "".join([*lines[: line - 1], lines[line], lines[line - 1], *lines[line + 1 :]])
        assert compiled(tmp_path, swapped) == before


@pytest.mark.parametrize(
    "declarations",
    ["int n = 4;\n    int m = n;\n", "char a[4];\n    int n = sizeof(a);\n", "int a; int b;\n    int c;\n",
     "int a;\n    int a;\n", "int a; /* x\n y */ int b;\n", "int a = g();\n    int b = h();\n",
     "struct s { int x; } a;\n    int b;\n", "int a;\n\n    int b;\n", "int f(void);\n    int b;\n"],
)  # fmt: skip
def test_declarations_that_depend_on_each_other_or_share_lines_stay(declarations: str) -> None:
    assert cparse.swappable(f"int f(void)\n{{\n    {declarations}    return 0;\n}}\n".encode(), "a.c") == ()


@given(st.binary(max_size=200), st.sampled_from(["a.c", "a.cpp", "a.h"]))
def test_any_bytes_are_taken(source: bytes, path: str) -> None:
    for local in cparse.renameable(source, path):
        assert all(source[start : start + len(local.name)] == local.name for start in local.starts)
    n_lines = source.count(b"\n") + 1
    assert all(1 <= line < n_lines for line in cparse.swappable(source, path))


def sample(pre: str, post: str, first_line: int, sha: str, macro: str = "") -> Sample:
    elements = (helpers.element("M", "macro", macro),) if macro else ()
    return Sample(
        commit=helpers.commit(sha),
        function=dataclasses.replace(helpers.FUNCTION, pre_text=pre, post_text=post, fix_lines=(first_line,)),
        mask=dataclasses.replace(helpers.MASK, first_line=first_line, last_line=first_line),
        merged=dataclasses.replace(helpers.MERGED, post_first_line=first_line, post_last_line=first_line),
        elements=elements,
        items=(),
        segments=(),
    )


def test_which_change_a_commit_gets_is_always_the_same_and_not_always_the_same_kind(tmp_path: Path) -> None:
    fixed = FUNCTION.replace("p = name;", "p = name + 1;")
    before, after = compiled(tmp_path, FUNCTION), compiled(tmp_path, fixed)
    kinds = set()
    for n in range(8):
        one = sample(FUNCTION, fixed, 16, f"{0:08x}{n:08x}" + "0" * 24)
        made = neutral.change(one)
        assert made is not None and made == neutral.change(one) and made.post_text is not None
        assert compiled(tmp_path, made.pre_text) == before and compiled(tmp_path, made.post_text) == after
        kinds.add((made.kind, made.what))
    assert {kind for kind, _ in kinds} == {"rename", "swap"} and len(kinds) > 2


def test_a_local_that_a_known_macro_names_keeps_its_name() -> None:
    function = "int f(int value)\n{\n    return value + 1;\n}\n"
    made = neutral.change(sample(function, function, 3, "0" * 40, "#define M (value + 1)\n"))
    assert made is not None and made.kind == "comment"


def test_declarations_of_the_risky_lines_are_not_swapped() -> None:
    function = "int f(void)\n{\n    char a[4];\n    char b[8];\n    return g();\n}\n"
    made = neutral.change(sample(function, function, 4, "0" * 40))
    assert made is not None and made.kind == "comment"
    assert made.pre_text.splitlines()[3].strip().startswith("/* ")
