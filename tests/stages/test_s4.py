import dataclasses
import json
from typing import Any

import pytest
import stage_helpers as helpers
from stage_helpers import DIFF, EXPLANATION, FIXED, FUNCTION, MASK, MERGED, MESSAGE, REMOVED, SEGMENT, commit, context

from trustmine.records import (
    Advance,
    Candidate,
    ContextItem,
    DiffFile,
    Element,
    Fact,
    FunctionPair,
    Identifier,
    Instruction,
    Label,
    Reject,
    Verdict,
)
from trustmine.stages import s4_instruct

SHA = "000000000000000100000001" + "0" * 16  # comment in the candidate, no abstaining
FEW = "000000000000000000000000" + "0" * 16  # chosen for abstaining


def facts(
    elements: tuple[Element, ...] = helpers.ELEMENTS,
    items: tuple[ContextItem, ...] = helpers.ITEMS,
    function: FunctionPair = FUNCTION,
) -> tuple[Fact, ...]:
    return (function, MASK, MERGED, DIFF, *elements, *items, SEGMENT, EXPLANATION)


def instructions(*given: Fact, sha: str = SHA) -> dict[tuple[str, int], Instruction]:
    outcome = s4_instruct.run(commit(sha), context(*given))
    assert isinstance(outcome, Advance)
    made = [fact for fact in outcome.facts if isinstance(fact, Instruction)]
    assert len(made) == len(outcome.facts)
    return {(one.task, one.example_no): one for one in made}


def test_a_row_becomes_one_example_per_task_and_four_candidates() -> None:
    made = instructions(*facts())
    assert list(made) == [
        ("locate", 1), ("locate_explain", 1), ("infill", 1), ("refine", 1),
        ("calibrate", 1), ("calibrate", 2), ("calibrate", 3), ("calibrate", 4),
    ]  # fmt: skip
    assert {one.split for one in made.values()} == {"train"}
    assert all(one.instruction and one.input and one.output for one in made.values())
    assert all(json.loads(json.dumps(one.meta))["path"] == "src/record.c" for one in made.values())


def test_the_same_facts_give_the_same_instructions() -> None:
    assert instructions(*facts()) == instructions(*facts())


def test_commits_differ_in_how_they_are_asked() -> None:
    asked = {instructions(*facts(), sha=f"{n:08x}" + "1" * 32)["locate", 1].instruction for n in range(6)}
    assert 1 < len(asked) <= 6


def test_locate_answers_with_lines_and_exact_code() -> None:
    one = instructions(*facts())["locate", 1]
    assert one.output == f"Line 9:\n\n```c\n{REMOVED}```"
    assert "\n9\t    memcpy(out->name, data + HEADER_SIZE, name_len);" in one.input
    assert "/* src/record.c:4-7 */\nstatic size_t read_u16" in one.input
    assert one.meta["segments"] == [[9, 9]]


def test_explanations_follow_the_code_they_explain() -> None:
    one = instructions(*facts())["locate_explain", 1]
    assert one.output.startswith(f"Line 9:\n\n```c\n{REMOVED}```\n\nRoot cause: {EXPLANATION.root_cause}\n\nImpact: ")
    assert one.output.endswith("\n\nWeakness: CWE-787")


def test_infill_answers_with_what_belongs_in_the_gap() -> None:
    one = instructions(*facts())["infill", 1]
    assert one.output == f"```c\n{FIXED}```"
    assert "    <MASK_1>\n" in one.input
    assert MERGED.masked_post.replace("    <MASK_1>\n", FIXED) == FUNCTION.post_text


def test_infill_says_so_where_nothing_belongs_in_the_gap() -> None:
    merged = dataclasses.replace(MERGED, fixed="", post_last_line=8)
    given = [merged if fact is MERGED else fact for fact in facts()]
    made = instructions(*given)
    assert made["infill", 1].output.startswith("Nothing belongs in place of <MASK_1>")


@pytest.mark.parametrize(("n_lines", "is_asked"), [(40, True), (41, False)])
def test_a_gap_that_nobody_could_fill_is_not_asked_to_be_filled(n_lines: int, is_asked: bool) -> None:
    merged = dataclasses.replace(MERGED, fixed="    step();\n" * n_lines)
    made = instructions(*(merged if fact is MERGED else fact for fact in facts()))
    assert (("infill", 1) in made) == is_asked
    assert ("refine", 1) in made


@pytest.mark.parametrize(("fix_lines", "is_asked"), [((9, 10), True), ((9, 10, 11), False)])
def test_a_gap_that_holds_little_of_the_fix_is_not_asked_to_be_filled(
    fix_lines: tuple[int, ...], is_asked: bool
) -> None:
    made = instructions(*facts(function=dataclasses.replace(FUNCTION, fix_lines=fix_lines)))
    assert (("infill", 1) in made) == is_asked


@pytest.mark.parametrize(("quality", "cwe"), [("list", "CWE-120"), ("bisected", "CWE-787")])
def test_a_weakness_is_called_as_a_trusted_list_calls_it(
    quality: str, cwe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = (Label("a", "CVE-2020-1", "yes", None), Label("b", "CVE-2020-1", "yes", "CWE-120", quality))
    monkeypatch.setattr(helpers.MemoryFacts, "labels", lambda self, commit: labels)
    made = instructions(*facts())
    assert made["locate_explain", 1].output.endswith(f"Weakness: {cwe}")
    assert made["locate_explain", 1].meta["cwe"] == [cwe]
    assert f"({cwe})" in made["refine", 1].input


def test_refine_answers_with_the_whole_fixed_function() -> None:
    one = instructions(*facts())["refine", 1]
    assert one.output == f"```c\n{FUNCTION.post_text}```"
    assert f"- line 9: {EXPLANATION.root_cause} {EXPLANATION.impact} (CWE-787)" in one.input


def test_a_candidate_removes_the_weakness_or_has_no_effect() -> None:
    made = instructions(*facts())
    good, bad = made["calibrate", 1], made["calibrate", 2]
    assert good.output == (
        "Yes. The candidate has its lines 9-11 in place of line 9. With that the weakness is gone.\n\nConfidence: 1.0"
    )
    assert (good.meta["removes"], good.meta["confidence"]) == (True, 1.0)
    assert FUNCTION.post_text in good.input
    assert bad.output.startswith("No. ")
    assert bad.meta["removes"] is False
    assert bad.input.count(FUNCTION.pre_text) == 1
    assert good.instruction == bad.instruction


def test_a_candidate_is_described_by_all_that_the_fix_changes() -> None:
    many = tuple(range(1, 21, 2))
    for deleted, added, done in (
        ((4, 9), (4, 9, 10), "has its line 4 in place of line 4 and has its lines 9-10 in place of line 9"),
        ((), (3, 4), "adds its lines 3-4"),
        ((9,), (), "drops line 9"),
        ((3,), (8,), "drops line 3 and adds its line 8"),
        (many, many, "changes 10 places of the function between its lines 1 and 19"),
    ):
        function = dataclasses.replace(FUNCTION, deleted_lines=deleted, added_lines=added)
        one = instructions(*facts(function=function))["calibrate", 1]
        assert one.output.startswith(f"Yes. The candidate {done}. With that the weakness is gone.\n")


def candidate_of(one: Instruction) -> str:
    return one.input.split("Candidate:\n\n```c\n")[1].split("```")[0]


def test_the_same_unrelated_change_is_made_to_what_is_vulnerable_and_to_what_is_not() -> None:
    made = instructions(*facts())
    bad, good = made["calibrate", 3], made["calibrate", 4]
    assert (bad.meta["candidate"], good.meta["candidate"]) == ("pre-image, rename", "post-image, rename")
    assert bad.output.startswith("No. The candidate renames `data` to `data_value` and changes nothing that runs.")
    assert good.output.startswith("Yes. The candidate has its lines 9-11 in place of line 9. With that the")
    for one, text in ((bad, FUNCTION.pre_text), (good, FUNCTION.post_text)):
        assert candidate_of(one) == text.replace("data", "data_value")


def proposed(code: str, verdict: str) -> Candidate:
    return Candidate(request_hash="c" + verdict, model_id=1, prompt_hash="p", code=code, verdict=verdict)


def test_what_a_model_wrote_is_judged_by_the_real_fix_and_what_nobody_can_judge_is_left_out() -> None:
    fix = FIXED.replace("return RECORD_BAD;", "return RECORD_BAD; /* too long */")
    same = REMOVED.replace("memcpy(out->name,", "memcpy( out->name,")
    other = "    if (name_len < NAME_SIZE)\n" + REMOVED
    given = [proposed(fix, "fix"), proposed(same, "vulnerable"), proposed(other, "other")]
    made = [one for (task, _), one in instructions(*facts(), *given).items() if task == "calibrate"][4:]
    assert [(one.meta["candidate"], one.meta["removes"], one.meta["request"]) for one in made] == [
        ("model", True, "s4:cfix"),
        ("model", False, "s4:cvulnerable"),
    ]
    assert candidate_of(made[0]) == MERGED.masked_post.replace("    <MASK_1>\n", fix)
    assert made[1].output.startswith("No. What the candidate does is what the function did before. The weakness in")


def test_a_model_that_wrote_the_fix_byte_for_byte_adds_nothing() -> None:
    assert instructions(*facts(), proposed(FIXED, "fix")) == instructions(*facts())


def test_the_old_code_in_a_function_that_is_fixed_elsewhere_too_is_not_judged() -> None:
    elsewhere = dataclasses.replace(
        MERGED, masked_post=MERGED.masked_post.replace("size_t name_len;", "unsigned name_len;")
    )
    given = [elsewhere if fact is MERGED else fact for fact in facts()]
    made = instructions(*given, proposed(REMOVED.replace("memcpy(", "memcpy( "), "vulnerable"))
    assert ("calibrate", 5) not in made


def test_no_comment_goes_into_a_continued_line() -> None:
    function = dataclasses.replace(
        FUNCTION,
        pre_text="int f(void)\n{\n#define A 1 \\\n    2\n    return A;\n}\n",
        post_text="int f(void)\n{\n    return 0;\n}\n",
    )
    sample = [
        dataclasses.replace(MASK, first_line=4, last_line=5) if fact is MASK else fact
        for fact in facts(function=function)
    ]
    kinds = [one.meta["candidate"] for one in instructions(*sample).values() if one.task == "calibrate"]
    assert kinds == ["post-image", "pre-image"]


def test_a_function_that_the_fix_renames_is_called_as_before_where_that_is_shown() -> None:
    merged = dataclasses.replace(
        MERGED, masked_post=MERGED.masked_post.replace("record_parse(", "record_parse_bounded(")
    )
    given = [merged if fact is MERGED else fact for fact in facts(function=helpers.RENAMED)]
    made = {task: one.input for (task, number), one in instructions(*given).items() if number == 1}
    for task in ("locate", "locate_explain", "refine"):
        assert "Function `record_parse` in" in made[task] and "record_parse_bounded" not in made[task], task
    assert "Function `record_parse_bounded` in" in made["infill"]


@pytest.mark.parametrize("sha", [SHA, FEW])
def test_no_input_gives_its_answer_away(sha: str) -> None:
    for (task, number), one in instructions(*facts(), sha=sha).items():
        assert MESSAGE.split("\n")[0] not in one.input
        if task != "calibrate" or number in (2, 3):
            assert "RECORD_BAD" not in one.input, task


@pytest.mark.parametrize(
    "planted",
    [
        f"It lacks {FIXED.splitlines()[0].strip()} there.",
        "A crafted record overflowed the buffer of the name.",
    ],
)
def test_a_row_whose_explanation_repeats_the_fix_or_the_message_is_rejected(planted: str) -> None:
    leaky = dataclasses.replace(EXPLANATION, root_cause=planted)
    given = [leaky if fact is EXPLANATION else fact for fact in facts()]
    assert s4_instruct.run(commit(SHA), context(*given)) == Reject("gives_answer_away")


def test_what_only_the_fixed_code_uses_is_shown_only_where_that_is_written() -> None:
    new = helpers.element("max_name", "macro", "#define max_name 31\n", in_pre=False)
    made = instructions(*facts((*helpers.ELEMENTS, new), (*helpers.ITEMS, helpers.item("max_name", 3, 20))))
    assert {task for (task, _), one in made.items() if "define max_name" in one.input} == {
        "infill",
        "refine",
        "calibrate",
    }


def test_code_fences_hold_whatever_the_code_holds() -> None:
    function = dataclasses.replace(FUNCTION, post_text="int f(void)\n{\n    /* ```` */\n}\n", old_path="a.cpp")
    output = instructions(*facts(function=function))["refine", 1].output
    assert output == f"`````cpp\n{function.post_text}`````"


def missing(name: str, kind: str, **more: Any) -> tuple[tuple[Element, ...], tuple[ContextItem, ...]]:
    elements = (helpers.element(name, kind, **more),)
    return (*helpers.ELEMENTS, *elements), (*helpers.ITEMS, helpers.item(name, 3, 0, "no_definition"))


def test_a_missing_definition_is_a_reason_to_abstain() -> None:
    made = instructions(*facts(*missing("HEADER_SIZE", "macro")), sha=FEW)
    one = made["abstain", 1]
    assert "`HEADER_SIZE`" in one.instruction
    assert one.instruction.startswith("State the value of")
    assert one.output.startswith("I cannot do that because the definition of `HEADER_SIZE` is not part of")
    assert "in lines 5 and 9" in one.output
    assert one.meta["reason"] == "definition_missing"


def test_a_definition_that_was_cut_is_withheld_whole() -> None:
    macro = helpers.element("HEADER_SIZE", "macro", "#define HEADER_SIZE (1 + \\\n    3)\n")
    cut = helpers.item("HEADER_SIZE", 3, len("#define HEADER_SIZE (1 + \\\n"))
    given = facts((*helpers.ELEMENTS, macro), (*helpers.ITEMS, cut))
    one = instructions(*given, sha=FEW)["abstain", 1]
    assert "`HEADER_SIZE`" in one.instruction
    assert "#define HEADER_SIZE" not in one.input
    assert "struct record {" in one.input
    assert one.meta["reason"] == "definition_cut"
    assert "#define HEADER_SIZE" in instructions(*given)["locate", 1].input


def test_a_comment_that_names_what_is_missing_is_no_use_of_it() -> None:
    code = FUNCTION.pre_text.replace("    size_t name_len;\n", "    size_t name_len; /* after HEADER_SIZE */\n")
    function = dataclasses.replace(FUNCTION, pre_text=code)
    elements, items = missing("HEADER_SIZE", "macro")
    one = instructions(*facts(elements, items, function), sha=FEW)["abstain", 1]
    assert "in lines 5 and 9" in one.output


def test_a_macro_that_is_called_is_asked_about_as_a_macro() -> None:
    code = FUNCTION.pre_text.replace("HEADER_SIZE", "HEADER_SIZE(out)")
    removed = dataclasses.replace(MASK, removed=MASK.removed.replace("HEADER_SIZE", "HEADER_SIZE(out)"))
    function = dataclasses.replace(FUNCTION, pre_text=code)
    elements, items = missing("HEADER_SIZE", "macro")
    given = (removed if fact is MASK else fact for fact in facts(elements, items, function))
    assert instructions(*given, sha=FEW)["abstain", 1].instruction.startswith("State what `HEADER_SIZE` expands to")


def test_nobody_is_asked_how_an_enumeration_is_laid_out() -> None:
    for kind, text in (("enum", "enum HEADER_SIZE {\n A\n};\n"), ("typedef", "typedef enum {\n A\n} HEADER_SIZE;\n")):
        whole = helpers.element("HEADER_SIZE", kind, text)
        cut = helpers.item("HEADER_SIZE", 3, text.index(" A"))
        given = facts((*helpers.ELEMENTS, whole), (*helpers.ITEMS, cut))
        assert ("abstain", 1) not in instructions(*given, sha=FEW)


def test_abstaining_is_about_the_risky_code() -> None:
    given = facts(*missing("RECORD_SHORT", "constant"))
    assert ("abstain", 1) not in instructions(*given, sha=FEW)


def test_abstaining_is_rare_and_never_about_what_everybody_knows() -> None:
    rows = [
        instructions(*facts(*missing("HEADER_SIZE", "macro")), sha="0" * 16 + f"{n:08x}" + "0" * 16) for n in range(40)
    ]
    assert sum(("abstain", 1) in row for row in rows) == 40 // s4_instruct.ONE_IN
    assert ("abstain", 1) not in instructions(*facts(), sha=FEW)
    assert ("abstain", 1) not in instructions(*facts(*missing("memcpy", "function")), sha=FEW)
    assert ("abstain", 1) not in instructions(*facts(*missing("name_len", "variable")), sha=FEW)


FILE = DiffFile(
    file_no=1, change="modified", old_path="a.c", new_path="a.c", old_oid="1" * 40, new_oid="2" * 40,
    is_binary=False, is_submodule=False, n_hunks=1, n_added=3, n_deleted=1,
)  # fmt: skip
UNDECIDED = Verdict("undecided", "model", 0.4, 0.35, 0.25, 0.55, None, "It depends on the caller.", "h")
BEFORE, FROM_CUTOFF = 1_672_531_199, 1_672_531_200  # either side of 2023-01-01 UTC


def aside(*given: Fact, commit_time_s: int = BEFORE) -> tuple[Fact, ...]:
    row = commit("5" * 40, is_aside=True, commit_time_s=commit_time_s)
    outcome = s4_instruct.run(row, context(*given))
    assert isinstance(outcome, Advance)
    return outcome.facts


@pytest.mark.parametrize(("p_fix", "n"), [(0.19, 0), (0.2, 1), (0.8, 1), (0.81, 0), (None, 1)])
def test_abstaining_does_not_come_with_a_probability_that_answers(p_fix: float | None, n: int) -> None:
    verdict = dataclasses.replace(UNDECIDED, p_fix=p_fix)
    assert len(aside(verdict, DIFF, FILE)) == n


def test_an_undecided_commit_teaches_to_abstain_from_a_verdict() -> None:
    (one,) = aside(UNDECIDED, DIFF, FILE)
    assert isinstance(one, Instruction)
    assert (one.task, one.split) == ("abstain", "train")
    assert one.output.startswith("I cannot do that because ")
    assert "55% likely" in one.output
    assert "names no CVE" in one.output
    assert "4 changed lines of `a.c`" in one.output
    assert MESSAGE in one.input
    assert DIFF.patch is not None
    assert DIFF.patch in one.input
    assert one.meta["p_yes"] == 0.4


def test_an_identifier_in_the_message_is_not_said_to_be_missing() -> None:
    (one,) = aside(UNDECIDED, DIFF, FILE, Identifier("CVE", "CVE-2020-1"))
    assert isinstance(one, Instruction)
    assert "names no CVE" not in one.output


def test_undecided_commits_from_the_cutoff_on_are_left_out() -> None:
    assert aside(UNDECIDED, DIFF, FILE, commit_time_s=FROM_CUTOFF) == ()
    assert aside(UNDECIDED, DIFF, FILE, commit_time_s=2**62) == ()


def test_a_pure_rename_leaves_nothing_open() -> None:
    renamed = dataclasses.replace(FILE, change="renamed", n_hunks=0, n_added=0, n_deleted=0)
    assert aside(UNDECIDED, DIFF, renamed) == ()


def test_segments_that_the_fix_does_not_touch_are_not_taught_unless_asked_for() -> None:
    missed = [dataclasses.replace(fact, n_fix_lines=0) if fact is SEGMENT else fact for fact in facts()]
    assert list(instructions(*missed)) == [("infill", 1)]
    outcome = s4_instruct.run(commit(SHA), context(*missed, taught_segments="all"))
    assert {fact.task for fact in outcome.facts if isinstance(fact, Instruction)} >= {"locate", "refine", "calibrate"}
