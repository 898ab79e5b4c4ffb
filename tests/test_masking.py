"""Masks go in and come out again without a byte changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustmine.lines import LineRange, cut_lines, split_lines
from trustmine.masking import (
    indentation_of,
    mask,
    post_region,
    unmask,
    with_insertions,
    without_blank_borders,
)

TEXTS = st.lists(st.sampled_from(["a;", "  b;", "\tc;", "", "d;\r", "é\x0c"]), min_size=1, max_size=12).flatmap(
    lambda lines: st.sampled_from(["\n".join(lines), "\n".join(lines) + "\n"])
)


@st.composite
def texts_and_ranges(draw: st.DrawFn) -> tuple[str, list[LineRange]]:
    text = draw(TEXTS)
    n = len(split_lines(text))
    borders = sorted(draw(st.lists(st.integers(1, n), unique=True, max_size=6))) if n else []
    pairs = zip(borders[::2], borders[1::2], strict=False)
    return text, [LineRange(first, last) for first, last in pairs]


@given(texts_and_ranges())
def test_unmask_undoes_mask(case: tuple[str, list[LineRange]]) -> None:
    text, ranges = case
    masked = mask(text, ranges)
    assert masked.count("<MASK_") == len(ranges)
    assert unmask(masked, [cut_lines(text, lines) for lines in ranges]) == text
    assert len(split_lines(masked)) == len(split_lines(text)) - sum(len(lines) - 1 for lines in ranges)


def test_a_mask_takes_indentation_and_line_ending_of_its_block() -> None:
    text = "f()\r\n{\r\n\tx();\r\n\t y();\r\n}\r\n"
    assert mask(text, [LineRange(3, 4)]) == "f()\r\n{\r\n\t<MASK_1>\r\n}\r\n"
    assert indentation_of(text, 4) == "\t "


def test_an_empty_range_inserts_a_mask_before_its_line() -> None:
    assert mask("a\nb\n", [LineRange(2, 1)], "  ") == "a\n  <MASK_1>\nb\n"
    assert unmask("a\n  <MASK_1>\nb\n", [""]) == "a\nb\n"
    assert mask("a\n", [LineRange(2, 1)]) == "a\n<MASK_1>\n"


@pytest.mark.parametrize("ranges", [[(0, 1)], [(2, 4)], [(2, 2), (1, 1)], [(1, 2), (2, 3)], [(3, 1)], [(5, 4)]])
def test_ranges_that_leave_the_text_or_overlap_are_refused(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match=r"overlap|no lines"):
        mask("a\nb\nc\n", [LineRange(*lines) for lines in ranges])


def test_text_that_holds_a_mask_already_is_refused() -> None:
    with pytest.raises(ValueError, match="already"):
        mask("a\n/* <MASK_1> */\n", [LineRange(1, 1)])


@pytest.mark.parametrize(("masked", "removed"), [("<MASK_2>\n", ["a\n"]), ("<MASK_1>\n", []), ("a\n", ["b\n"])])
def test_masks_and_removed_code_have_to_belong_together(masked: str, removed: list[str]) -> None:
    with pytest.raises(ValueError, match="mask"):
        unmask(masked, removed)


@pytest.mark.parametrize(
    ("pre", "post", "lines", "deleted", "added", "region"),
    [
        # One line replaced by two.
        ("a\nb\nc\n", "a\nB\nC\nc\n", (2, 2), (2,), (2, 3), (2, 3)),
        # Masked lines that the fix leaves alone stay what they are.
        ("a\nb\nc\n", "x\na\nb\nc\n", (2, 2), (), (1,), (3, 3)),
        # Insertions that touch the borders belong to the region.
        ("a\nb\nc\n", "a\nx\nb\ny\nc\n", (2, 2), (), (2, 4), (2, 4)),
        # All of it deleted: an empty region between its neighbours.
        ("a\nb\nc\n", "a\nc\n", (2, 2), (2,), (), (2, 1)),
        # A brace that only changes its line ending stays outside.
        ("{\nb\n}", "{\nB\n}\n", (2, 2), (2, 3), (2, 3), (2, 2)),
        # Deleted lines next to it without a counterpart: what replaces them is inside.
        ("a\nb\nc\n", "X\nc\n", (2, 2), (1, 2), (1,), (1, 1)),
    ],
)
def test_the_region_after_the_fix(
    pre: str,
    post: str,
    lines: tuple[int, int],
    deleted: tuple[int, ...],
    added: tuple[int, ...],
    region: tuple[int, int],
) -> None:
    assert post_region(pre, post, LineRange(*lines), deleted, added) == LineRange(*region)


def test_line_numbers_that_do_not_fit_the_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="belong"):
        post_region("a\nb\n", "a\n", LineRange(1, 1), (), ())


@pytest.mark.parametrize(
    ("code", "region", "deleted", "added", "wider"),
    [
        # x, /* comment */, b: x is inserted at b.
        ("1101", (4, 4), (), (2,), (2, 4)),
        # The same with a line that x replaces: x is no insertion at b.
        ("1101", (4, 4), (2,), (2,), (4, 4)),
        # b, a blank line, x.
        ("1101", (2, 2), (), (4,), (2, 4)),
        # Other code stands between.
        ("1111", (4, 4), (), (2,), (4, 4)),
        # A comment alone is no code that the fix inserts.
        ("1001", (4, 4), (), (2,), (4, 4)),
        # All of two lines inserted, and the region is empty.
        ("11101", (5, 4), (5,), (2, 3), (2, 4)),
    ],
)
def test_code_inserted_beyond_a_comment_belongs_to_the_region(
    code: str,
    region: tuple[int, int],
    deleted: tuple[int, ...],
    added: tuple[int, ...],
    wider: tuple[int, int],
) -> None:
    held = [one == "1" for one in code]
    assert with_insertions(LineRange(*region), held, deleted, added) == LineRange(*wider)


def test_blank_lines_at_the_borders_stay_outside() -> None:
    assert without_blank_borders("a\n\nb\n \nc\n", LineRange(2, 4)) == LineRange(3, 3)
    assert without_blank_borders("a\n\n\nb\n", LineRange(2, 3)) == LineRange(2, 3)
