import dataclasses

import pytest
import stage_helpers as helpers
from stage_helpers import DIFF, FUNCTION, MASK, MASKED, MESSAGE, PATCH, PRE_FUNCTION, commit, completion, context, say

from trustmine.answers import Unparsable, parse_line_ranges
from trustmine.prompts import Prompts
from trustmine.records import Advance, Mask, MaskedFunction, Reject
from trustmine.stages import line_ranges, s1_2_mask


def test_the_named_block_becomes_a_mask() -> None:
    outcome, _ = say(s1_2_mask.run(commit(), context(FUNCTION, DIFF)), "9-9")
    assert isinstance(outcome, Advance)
    mask, masked = outcome.facts
    assert mask == MASK
    assert isinstance(masked, MaskedFunction)
    assert masked.masked_pre == MASKED.masked_pre
    assert masked.n_fix_lines_missed == 0
    assert masked.request_hash == completion("9-9").request_hash


def test_several_blocks_are_numbered_in_the_order_of_the_text() -> None:
    outcome, _ = say(s1_2_mask.run(commit(), context(FUNCTION, DIFF)), "5-6, 9-10")
    assert isinstance(outcome, Advance)
    masks = [fact for fact in outcome.facts if isinstance(fact, Mask)]
    assert [(m.mask_no, m.first_line, m.last_line, m.n_fix_lines) for m in masks] == [(1, 5, 6, 0), (2, 9, 10, 1)]
    (masked,) = (fact for fact in outcome.facts if isinstance(fact, MaskedFunction))
    assert "    <MASK_1>\n    out->id = read_u16(data);\n" in masked.masked_pre
    assert "    <MASK_2>\n    return RECORD_OK;\n" in masked.masked_pre
    rebuilt = masked.masked_pre
    for mask in masks:
        rebuilt = rebuilt.replace(f"    <MASK_{mask.mask_no}>\n", mask.removed)
    assert rebuilt == PRE_FUNCTION


def test_masked_by_the_fix_no_model_is_asked_and_the_block_is_the_shortest_that_holds_it() -> None:
    outcome, requests = say(s1_2_mask.run(commit(), context(FUNCTION, DIFF, masked_by="fix")))
    assert requests == []
    assert isinstance(outcome, Advance)
    assert outcome.facts == (MASK, dataclasses.replace(MASKED, request_hash=None))
    wider = dataclasses.replace(FUNCTION, deleted_lines=(7, 9), fix_lines=(7, 9))
    outcome, _ = say(s1_2_mask.run(commit(), context(wider, DIFF, masked_by="fix")))
    assert [(m.first_line, m.last_line, m.n_fix_lines) for m in outcome.facts if isinstance(m, Mask)] == [(7, 9, 2)]


@pytest.mark.parametrize("fix_lines", [(1, 9), (3, 11)], ids=["the signature", "first and last statement"])
def test_a_fix_that_no_block_holds_rejects(fix_lines: tuple[int, ...]) -> None:
    function = dataclasses.replace(FUNCTION, deleted_lines=fix_lines, fix_lines=fix_lines)
    assert say(s1_2_mask.run(commit(), context(function, DIFF, masked_by="fix"))) == (Reject("no_block"), [])


def test_the_conversation_of_s0_3_goes_on() -> None:
    _, (request,) = say(s1_2_mask.run(commit(), context(FUNCTION, DIFF)), "9-9")
    judged = Prompts().get("s0_3_classify").request(message=MESSAGE, patch=PATCH)
    assert request.messages[: len(judged.messages)] == judged.messages
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
    question = request.messages[-1].content
    assert "\n9\t    memcpy(out->name, data + HEADER_SIZE, name_len);" in question
    assert question.rstrip().endswith("the change deletes or rewrites: 9-9\nLines of the risky block:")
    assert request.grammar is not None


def test_a_function_that_the_fix_renames_is_called_as_before() -> None:
    _, (request,) = say(s1_2_mask.run(commit(), context(helpers.RENAMED, DIFF)), "9-9")
    assert "record_parse_bounded" not in request.messages[-1].content


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("none", "no_block"),
        ("the memcpy", "unparsable"),
        ("1-99", "unparsable"),
        ("5-6", "mask_misses_fix"),
        ("3-11", "unparsable"),
        ("3-8, 9-11", "mask_whole_function"),
    ],
)
def test_an_answer_that_is_of_no_use_rejects(answer: str, reason: str) -> None:
    outcome, _ = say(s1_2_mask.run(commit(), context(FUNCTION, DIFF)), answer)
    assert isinstance(outcome, Reject)
    assert outcome.reason == reason
    assert reason in s1_2_mask.REASONS
    assert bool(outcome.facts) == (reason not in ("no_block", "unparsable"))


def test_an_answer_that_was_cut_off_is_unparsable_and_not_no_block() -> None:
    outcome, _ = say(s1_2_mask.run(commit(), context(FUNCTION, DIFF)), completion("9-9", "length"))
    assert outcome == Reject("unparsable")


def test_a_function_without_statements_is_not_asked_about() -> None:
    empty = dataclasses.replace(FUNCTION, pre_text="int f(void) { }\n", deleted_lines=(1,), fix_lines=(1,))
    outcome, requests = say(s1_2_mask.run(commit(), context(empty, DIFF)))
    assert outcome == Reject("no_statement")
    assert requests == []


def test_half_a_statement_cannot_be_named() -> None:
    allowed = [(lines.first_line, lines.last_line) for lines in line_ranges.allowed(FUNCTION)]
    with pytest.raises(Unparsable):
        parse_line_ranges("5-5", allowed)


@pytest.mark.parametrize(
    ("lines", "text"), [((), ""), ((9,), "9-9"), ((3, 4, 5, 9), "3-5, 9-9"), ((1, 3, 5), "1-1, 3-3, 5-5")]
)
def test_lines_are_spelled_as_answers_are(lines: tuple[int, ...], text: str) -> None:
    assert line_ranges.spelled(lines) == text


@pytest.mark.parametrize("name", ["pre_text", "post_text"])
def test_a_function_that_holds_a_mask_already_is_rejected(name: str) -> None:
    text = getattr(FUNCTION, name).replace("size_t name_len;", "size_t name_len; /* <MASK_1> */")
    function = dataclasses.replace(FUNCTION, **{name: text})
    outcome, requests = say(s1_2_mask.run(commit(), context(function, DIFF)))
    assert outcome == Reject("holds_mask")
    assert requests == []
    assert "holds_mask" in s1_2_mask.REASONS


def test_where_lines_are_only_inserted_the_model_is_told_at_which_line() -> None:
    inserted = dataclasses.replace(FUNCTION, deleted_lines=(), fix_lines=(9,))
    outcome, (request,) = say(s1_2_mask.run(commit(), context(inserted, DIFF)), "9-9")
    question = request.messages[-1].content
    assert "deletes or rewrites" not in question
    assert "Lines at which the change inserts what was missing: 9-9\n" in question
    assert isinstance(outcome, Advance)
    assert outcome.facts[0] == MASK
    both = dataclasses.replace(FUNCTION, deleted_lines=(7, 8), fix_lines=(8, 10))  # line 7 is a comment, say
    _, (request,) = say(s1_2_mask.run(commit(), context(both, DIFF)), "9-10")
    question = request.messages[-1].content
    assert "rewrites: 8-8\nLines at which the change inserts what was missing: 10-10\n" in question
