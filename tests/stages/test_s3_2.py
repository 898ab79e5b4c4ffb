import dataclasses
import json

import stage_helpers as helpers
from stage_helpers import EXPLANATION, FUNCTION, SEGMENT, commit, completion, context, say

from trustmine.records import Advance, Explanation, Reject, Segment
from trustmine.stages import s3_2_explain
from trustmine.stages.base import Context

GOOD = json.dumps({"root_cause": EXPLANATION.root_cause, "impact": EXPLANATION.impact, "cwe": "CWE-787"})
OTHER = json.dumps({"root_cause": "`size` is checked too late.", "impact": "`data` is read past its end.", "cwe": None})
BAD = json.dumps({"root_cause": "The fix adds a check.", "impact": "None.", "cwe": None})
SECOND = Segment(
    segment_no=2, first_line=10, last_line=10, snippet="x", n_fix_lines=0, finding="No check.", request_hash="s"
)


def ctx(*segments: Segment, **settings: int) -> Context:
    return context(FUNCTION, *helpers.ELEMENTS, *helpers.ITEMS, *segments, **settings)


def test_a_good_explanation_is_taken_at_once() -> None:
    outcome, requests = say(s3_2_explain.run(commit(), ctx(SEGMENT)), GOOD)
    assert isinstance(outcome, Advance)
    (explanation,) = outcome.facts
    assert isinstance(explanation, Explanation)
    assert (explanation.id, explanation.segment_no, explanation.n_asked) == (701, 1, 1)
    assert (explanation.root_cause, explanation.cwe) == (EXPLANATION.root_cause, "CWE-787")
    assert len(requests) == 1


def test_the_model_sees_function_and_context_but_neither_message_nor_patch() -> None:
    _, (request,) = say(s3_2_explain.run(commit(), ctx(SEGMENT)), GOOD)
    seen = "\n".join(message.content for message in request.messages)
    assert "\n9\t    memcpy(out->name" in seen
    assert "/* src/record.h:11-14 */\nstruct record {" in seen
    assert f"```\n{SEGMENT.finding}\n```" in seen
    assert "do not trust" not in seen
    assert "RECORD_BAD" not in seen


def test_a_function_that_the_fix_renames_is_called_as_before_by_prompt_and_answer() -> None:
    new_name = json.dumps({"root_cause": "`record_parse_bounded` is wrong.", "impact": "An overflow.", "cwe": None})
    _, requests = say(s3_2_explain.run(commit(), context(helpers.RENAMED, SEGMENT)), new_name, GOOD)
    first, complaint = (request.messages[-1].content for request in requests)
    assert "`record_parse`" in first and "record_parse_bounded" not in first
    assert "record_parse_bounded" in complaint


def test_of_a_finding_that_quotes_the_message_the_model_sees_nothing() -> None:
    quoting = dataclasses.replace(SEGMENT, finding="They do not trust the length of the name.")
    _, (request,) = say(s3_2_explain.run(commit(), ctx(quoting)), GOOD)
    seen = request.messages[-1].content
    assert "do not trust" not in seen
    assert "(nothing was noted)" in seen


def test_a_bad_explanation_is_sent_back_once_with_the_complaint() -> None:
    outcome, (first, second) = say(s3_2_explain.run(commit(), ctx(SEGMENT)), BAD, GOOD)
    assert isinstance(outcome, Advance)
    (explanation,) = outcome.facts
    assert isinstance(explanation, Explanation)
    assert explanation.n_asked == 2
    assert second.messages[: len(first.messages)] == first.messages
    answer, complaint = second.messages[len(first.messages) :]
    assert answer.role == "assistant"
    assert BAD not in answer.content + complaint.content  # it would be written again
    assert complaint.role == "user"
    assert '"The fix"' in complaint.content or '"fix"' in complaint.content
    assert (second.grammar, second.max_tokens) == (first.grammar, first.max_tokens)


def test_a_second_bad_explanation_rejects_the_row_and_keeps_the_good_one() -> None:
    outcome, requests = say(s3_2_explain.run(commit(), ctx(SEGMENT, SECOND)), GOOD, BAD, BAD)
    assert isinstance(outcome, Reject)
    assert outcome.reason == "bad_explanation"
    assert [fact.segment_no for fact in outcome.facts if isinstance(fact, Explanation)] == [1]
    assert len(requests) == 3


def test_every_segment_is_explained_and_not_in_the_same_words() -> None:
    outcome, requests = say(s3_2_explain.run(commit(), ctx(SEGMENT, SECOND)), GOOD, GOOD, OTHER)
    assert isinstance(outcome, Advance)
    assert [(fact.id, fact.n_asked) for fact in outcome.facts if isinstance(fact, Explanation)] == [(701, 1), (702, 2)]
    assert "already given" in requests[2].messages[-1].content


def test_an_answer_that_is_cut_off_or_in_another_form_is_sent_back() -> None:
    cut = completion(GOOD[:40], "length")
    outcome, requests = say(s3_2_explain.run(commit(), ctx(SEGMENT)), cut, "It overflows.")
    assert outcome == Reject("bad_explanation")
    assert "come to an end" in requests[1].messages[-1].content


def test_a_text_that_the_grammar_closed_is_sent_back() -> None:
    long = json.dumps({"root_cause": "word " * 40, "impact": EXPLANATION.impact, "cwe": None})
    outcome, requests = say(s3_2_explain.run(commit(), ctx(SEGMENT, explanation_tokens=100)), long, GOOD)
    assert isinstance(outcome, Advance)
    assert "within 150 characters" in requests[1].messages[-1].content
