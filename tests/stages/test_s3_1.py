import stage_helpers as helpers
from stage_helpers import FUNCTION, MESSAGE, REMOVED, commit, completion, context, say

from trustmine.prompts import Prompts
from trustmine.records import Advance, Reject, Segment
from trustmine.stages import s3_1_locate
from trustmine.stages.base import Context

WHY = "The length is read from the record and never checked.\nLines: "


def ctx(*more: object) -> Context:
    return context(FUNCTION, *helpers.ELEMENTS, *helpers.ITEMS, *more)  # type: ignore[arg-type]


def test_segments_are_exact_lines_with_their_share_of_the_fix() -> None:
    outcome, _ = say(s3_1_locate.run(commit(), ctx()), WHY + "7-7, 9-10")
    assert isinstance(outcome, Advance)
    first, second = outcome.facts
    assert isinstance(first, Segment)
    assert isinstance(second, Segment)
    assert (first.segment_no, first.snippet, first.n_fix_lines) == (1, "    out->id = read_u16(data);\n", 0)
    assert (second.segment_no, second.first_line, second.last_line, second.n_fix_lines) == (2, 9, 10, 1)
    assert second.snippet.startswith(REMOVED)
    assert first.finding == second.finding == "The length is read from the record and never checked."


def test_no_lines_are_a_reject() -> None:
    outcome, _ = say(s3_1_locate.run(commit(), ctx()), WHY + "none")
    assert outcome == Reject("no_segment")


def test_an_answer_in_another_form_or_cut_off_is_unparsable_and_not_no_segment() -> None:
    for answer in ("all of it", "9-9", WHY + "1-99", WHY, completion(WHY + "9-9", "length")):
        outcome, _ = say(s3_1_locate.run(commit(), ctx()), answer)
        assert outcome == Reject("unparsable")


def test_the_sentence_comes_first_and_may_end_on_the_line_of_the_numbers() -> None:
    _, (request,) = say(s3_1_locate.run(commit(), ctx()), "Lines: of the name are cut. Lines: 9-9")
    assert request.grammar is not None
    assert request.grammar.startswith("root ::= [^:")
    assert "first say in one sentence what is wrong" in request.messages[-1].content.lower()


def test_the_model_sees_message_function_and_context_but_not_the_fix() -> None:
    fixed_only = helpers.element("MAX_NAME", "macro", "#define MAX_NAME 31\n", in_pre=False)
    _, (request,) = say(s3_1_locate.run(commit(), ctx(fixed_only, helpers.item("MAX_NAME", 3, 20))), WHY + "9-9")
    seen = request.messages[-1].content
    assert MESSAGE in seen
    assert "\n9\t    memcpy(" in seen
    assert "struct record {" in seen
    assert "RECORD_BAD" not in seen
    assert "MAX_NAME" not in seen


def test_a_function_that_the_fix_renames_is_called_as_before() -> None:
    _, (request,) = say(s3_1_locate.run(commit(), context(helpers.RENAMED)), WHY + "9-9")
    seen = request.messages[-1].content
    assert "`record_parse`" in seen and "record_parse_bounded" not in seen


def test_locating_and_explaining_begin_alike_so_that_an_engine_can_reuse_it() -> None:
    locate, explain = (Prompts().get(name).turns for name in ("s3_1_locate", "s3_2_explain"))
    assert locate[0] == explain[0]
    shared = "{{fenced context c}}\n"
    assert locate[1].content.split(shared)[0] == explain[1].content.split(shared)[0]


def test_a_run_longer_than_the_setting_cannot_be_named() -> None:
    short = context(FUNCTION, max_segment_lines=1)
    _, (request,) = say(s3_1_locate.run(commit(), short), WHY + "7-7")
    assert "runs of 1 lines at most" in request.messages[-1].content
    outcome, _ = say(s3_1_locate.run(commit(), short), WHY + "9-10")
    assert outcome == Reject("unparsable")
    outcome, _ = say(s3_1_locate.run(commit(), context(FUNCTION)), WHY + "9-10")
    assert isinstance(outcome, Advance)
