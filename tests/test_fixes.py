"""Edits, which of them change code, and the statement line at an insertion."""

import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trustmine import fixes, patches
from trustmine.cparse import code_lines, widen
from trustmine.cparse.lexis import Lexis
from trustmine.lines import LineRange, split_lines

LINES = st.lists(st.sampled_from([b"a\n", b"b\n", b"{\n", b"\n", b"/* c\n", b"d */\n", b"#include <x>\n"]), max_size=12)


def diff(folder: Path, pre: bytes, post: bytes) -> tuple[patches.Hunk, ...]:
    for name, content in (("pre", pre), ("post", post)):
        (folder / name).write_bytes(content)
    command = ["git", "diff", "--no-index", "--", "pre", "post"]
    shown = subprocess.run(command, cwd=folder, capture_output=True, check=False).stdout
    return tuple(hunk for file in patches.parse(shown) for hunk in file.hunks)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(before=LINES, after=LINES, has_end=st.booleans())
def test_edits_are_the_changed_lines_of_the_hunks(
    tmp_path: Path, before: list[bytes], after: list[bytes], has_end: bool
) -> None:
    pre, post = b"".join(before), b"".join(after) if has_end else b"".join(after).removesuffix(b"\n")
    hunks = diff(tmp_path, pre, post)
    edits = fixes.edits(hunks)
    old = [line for edit in edits for line in range(edit.old.first_line, edit.old.last_line + 1)]
    new = [line for edit in edits for line in range(edit.new.first_line, edit.new.last_line + 1)]
    assert old == [line for hunk in hunks for line in patches.deleted_lines(hunk)]
    assert new == [line for hunk in hunks for line in patches.added_lines(hunk)]
    # Lines between two edits are as many before as after.
    for one, other in itertools.pairwise(edits):
        between = other.old.first_line - one.old.last_line
        assert between == other.new.first_line - one.new.last_line > 1
    fixes.of_code(edits, pre, post, "x.c", "x.c")
    fixes.insertion_lines(edits, LineRange(1, len(before)), pre, "x.c")


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        ("a();", "b();", True),
        ("a();", "a( ); /* why */", False),
        ("/* a\n   b */", "/* a\n   c */", False),
        ("a();\n\n", "a();\n", False),
        ('#include "a.h"', '#include "b.h"\n#include <c.h>', False),
        ("#define A 1", "#define A 2", True),
        ('f("a b");', 'f("ab");', True),
        ('f("/* a */");', 'f("/* b */");', True),
        ("if(a) b();", "if(a)\n  b();", False),
    ],
)
def test_an_edit_counts_if_it_changes_more_than_comments_space_and_includes(
    tmp_path: Path, before: str, after: str, counts: bool
) -> None:
    pre, post = (f"int x;\n{middle}\nint y;\n".encode() for middle in (before, after))
    edits = fixes.edits(diff(tmp_path, pre, post))
    assert edits
    assert bool(fixes.of_code(edits, pre, post, "x.c", "x.c")) == counts


FUNCTION = """\
int f(int a)
{
  first(a); /* one
    statement */

#ifdef X
  second(a);
#endif
  if(a) {
    third(a);
  }
  switch(a) {
  case 1:
    fourth(a);
  case 2:
  {
    fifth(a);
  }
  }
out:
  return a;
}
"""


@pytest.mark.parametrize(
    ("after", "line"),
    [
        (2, "first(a)"),  # right after the brace
        (4, "second(a)"),  # blank lines and directives are passed over
        (9, "third(a)"),
        (10, "third(a)"),  # at the end of a block: what stands before
        (11, "switch(a)"),
        (13, "fourth(a)"),
        (14, "fourth(a)"),  # a forgotten break belongs to its case
        (19, "return a"),  # a label is no statement
        (21, "return a"),
    ],
)
def test_an_insertion_is_about_the_statement_that_follows_or_ends_its_block(after: int, line: str) -> None:
    edit = fixes.Edit(LineRange(after + 1, after), LineRange(after + 1, after + 1))
    (found,) = fixes.insertion_lines([edit], LineRange(1, 22), FUNCTION.encode(), "x.c")
    assert line in FUNCTION.split("\n")[found - 1]


PIECES = st.sampled_from(
    [b"/*", b"*/", b"//", b'"', b"'", b"\\\n", b"\n", b"#if x", b"#include <a>", b"a", b"\xff", b"\0", b"{", b"}"]
)


@settings(deadline=None)
@given(source=st.lists(PIECES, max_size=30).map(b"".join), first=st.integers(1, 40), length=st.integers(0, 5))
def test_any_bytes_have_lines_of_code_and_ranges_that_cut_nothing(source: bytes, first: int, length: int) -> None:
    n_lines = len(split_lines(source))
    for keep in (True, False):
        lines = code_lines(source, "x.c", keep_directives=keep)
        assert len(b"\n".join(lines)) == len(source)
    lines_in = LineRange(min(first, n_lines + 1), min(first - 1 + length, n_lines))
    found = widen(source, lines_in, "x.c")
    if len(lines_in):
        assert found.first_line <= lines_in.first_line
        assert found.last_line >= lines_in.last_line
    else:
        assert len(found) == 0
    assert 1 <= found.first_line <= found.last_line + 1 <= n_lines + 1
    assert not len(found) or not Lexis(source, cpp=False, is_fragment=True).cuts_token(found)
