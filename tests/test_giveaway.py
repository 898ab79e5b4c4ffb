"""What an input gives away, and what only looks as if it did."""

import dataclasses

import stage_helpers as helpers

from trustmine.giveaway import given_away
from trustmine.samples import Sample

SAMPLE = Sample(
    commit=helpers.commit(),
    function=helpers.FUNCTION,
    mask=helpers.MASK,
    merged=helpers.MERGED,
    elements=helpers.ELEMENTS,
    items=helpers.ITEMS,
    segments=((helpers.SEGMENT, helpers.EXPLANATION),),
)
ADDED = "if (name_len >= sizeof(out->name) || name_len > size - HEADER_SIZE)"


def test_a_line_of_the_fix_is_given_away_whatever_its_white_space() -> None:
    for task in ("locate", "locate_explain", "infill", "refine", "abstain"):
        assert given_away(SAMPLE, task, f"Review: needs\n  {ADDED.replace(' ', chr(10))} here") == ADDED
    assert given_away(SAMPLE, "calibrate", ADDED) is None, "the fix is one of its candidates"


def test_a_line_of_the_message_is_given_away_in_every_task() -> None:
    for task in ("locate", "infill", "refine", "calibrate"):
        assert given_away(SAMPLE, task, "/* record: do not trust the length of the name */") is not None


def test_a_comment_of_the_fix_that_is_also_in_the_message_is_part_of_a_candidate() -> None:
    comment = "/* record: do not trust the length of the name */\n"
    function = dataclasses.replace(helpers.FUNCTION, post_text=helpers.POST_FUNCTION + comment)
    sample = dataclasses.replace(SAMPLE, function=function)
    assert given_away(sample, "calibrate", comment) is None
    assert given_away(sample, "refine", comment) is not None


def test_what_the_reader_sees_anyway_is_not_given_away() -> None:
    assert given_away(SAMPLE, "refine", helpers.PRE_FUNCTION) is None
    assert given_away(SAMPLE, "infill", helpers.MERGED.masked_post) is None
    twin = helpers.element("twin", "function", f"int twin(void)\n{{\n    {ADDED}\n        return 1;\n}}\n")
    with_twin = dataclasses.replace(SAMPLE, elements=(*helpers.ELEMENTS, twin))
    assert given_away(with_twin, "refine", ADDED) is None, "the tree before the fix has such a line"


def test_the_fix_is_hidden_from_who_fills_the_gap_though_the_code_before_had_it() -> None:
    function = dataclasses.replace(helpers.FUNCTION, pre_text=helpers.POST_FUNCTION)
    assert given_away(dataclasses.replace(SAMPLE, function=function), "infill", ADDED) == ADDED


def test_short_lines_and_single_words_tell_nothing() -> None:
    assert given_away(SAMPLE, "refine", "return X;\n}\nRECORD_BAD") is None
