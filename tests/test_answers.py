"""Parsers here; that the grammars work in the real sampler is tested in tests/llm."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustmine.answers import (
    Unparsable,
    elements_grammar,
    explanation_grammar,
    finished,
    line_ranges_grammar,
    located_grammar,
    parse_choice,
    parse_elements,
    parse_explanation,
    parse_line_ranges,
    parse_located,
)
from trustmine.records import Completion

ALLOWED = ((1, 2), (3, 3), (3, 12), (20, 25))


def test_line_ranges_are_read() -> None:
    assert parse_line_ranges("none", ALLOWED) == ()
    assert parse_line_ranges(" 3-12\n", ALLOWED) == ((3, 12),)
    assert parse_line_ranges("1-2, 3-3,20-25", ALLOWED) == ((1, 2), (3, 3), (20, 25))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("lines 3-12", "not_line_ranges"),
        ("3-12,", "not_line_ranges"),
        ("3", "not_line_ranges"),
        ("٣-٣", "not_line_ranges"),
        ("3-11", "not_allowed"),
        ("1-" + "2" * 5000, "not_allowed"),
        ("20-25, 3-3", "out_of_order"),
        ("3-3, 3-12", "out_of_order"),
    ],
)
def test_other_line_ranges_are_unparsable(text: str, reason: str) -> None:
    with pytest.raises(Unparsable) as error:
        parse_line_ranges(text, ALLOWED)
    assert error.value.reason == reason


def test_lines_after_a_sentence_are_read() -> None:
    said = "The size is not checked."
    assert parse_located(f"{said}\nLines: 3-12", ALLOWED) == (said, ((3, 12),))
    assert parse_located("std::copy\nruns. Lines: 1-2, 3-3\n", ALLOWED) == (
        "std::copy runs.",
        ((1, 2), (3, 3)),
    )
    assert parse_located("It is wrong.\n**Lines:** 3-12.\n", ALLOWED) == ("It is wrong.", ((3, 12),))
    assert parse_located("Lines: 20-25 look fine.\nLines: none", ALLOWED) == ("Lines: 20-25 look fine.", ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (" \n", "empty"),
        ("3-12", "no_lines"),
        ("The size is not checked.", "no_lines"),
        ("Wrong.\nLines: 3-12 are.", "not_line_ranges"),
        ("\nLines: 3-12", "no_sentence"),
        ("It is \x1b[31mwrong.\nLines: 3-12", "control_characters"),
        ("It is wrong.\nLines:", "empty"),
        ("It is wrong.\nLines: 4-5", "not_allowed"),
    ],
)
def test_other_lines_after_a_sentence_are_unparsable(text: str, reason: str) -> None:
    with pytest.raises(Unparsable) as error:
        parse_located(text, ALLOWED)
    assert error.value.reason == reason


def test_elements_are_read() -> None:
    text = '[{"name": "Cls::~Cls", "kind": "function"}, {"name": "x_1", "kind": "variable"}]'
    assert parse_elements(text) == (("Cls::~Cls", "function"), ("x_1", "variable"))
    assert parse_elements("[]") == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ('[{"name": "a", "kind": "function"}, {"na', "truncated"),
        ('[{"name": "a", "kind": "function"}', "truncated"),
        ("[" * 100_000, "not_json"),
        ("x", "not_json"),
        ('{"name": "a", "kind": "function"}', "not_elements"),
        ('["a"]', "not_elements"),
        ('[{"name": "a"}]', "not_elements"),
        ('[{"name": 1, "kind": "function"}]', "not_elements"),
        ('[{"name": "a b", "kind": "function"}]', "not_a_name"),
    ],
)
def test_other_elements_are_unparsable(text: str, reason: str) -> None:
    with pytest.raises(Unparsable) as error:
        parse_elements(text)
    assert error.value.reason == reason


def test_explanations_are_read() -> None:
    text = '{"root_cause": " no \\"bound\\" é ", "impact": "heap\\\\stack", "cwe": "CWE-787"}'
    assert parse_explanation(text) == ('no "bound" é', "heap\\stack", "CWE-787")
    assert parse_explanation('{"root_cause": "a", "impact": "b", "cwe": null}') == ("a", "b", None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"root_cause": "a', "truncated"),
        ('{"root_cause": "a", "impact": "b"}', "not_explanation"),
        ('{"root_cause": " ", "impact": "b", "cwe": null}', "not_explanation"),
        ('{"root_cause": 1, "impact": "b", "cwe": null}', "not_explanation"),
        ('{"root_cause": "a\\u0000", "impact": "b", "cwe": null}', "control_characters"),
        ('{"root_cause": "a\\ud800", "impact": "b", "cwe": null}', "control_characters"),
        ('{"root_cause": "a", "impact": "b", "cwe": "CWE-0"}', "not_a_cwe"),
        ('{"root_cause": "a", "impact": "b", "cwe": ["CWE-1"]}', "not_a_cwe"),
    ],
)
def test_other_explanations_are_unparsable(text: str, reason: str) -> None:
    with pytest.raises(Unparsable) as error:
        parse_explanation(text)
    assert error.value.reason == reason


@given(st.text(min_size=1))
def test_any_text_is_an_explanation_or_unparsable(text: str) -> None:
    for raw in (text, json.dumps({"root_cause": text, "impact": text, "cwe": None})):
        try:
            root_cause, impact, _ = parse_explanation(raw)
        except Unparsable:
            continue
        assert root_cause == impact == text.strip()


def test_choices_are_read() -> None:
    assert parse_choice(" 12\n", 12) == 12
    assert parse_choice("0") == 0
    for text, reason in (("", "empty"), ("one", "not_a_number"), ("01", "not_a_number"), ("13", "not_a_candidate")):
        with pytest.raises(Unparsable) as error:
            parse_choice(text, 12)
        assert error.value.reason == reason


def test_an_answer_that_was_cut_off_is_never_read() -> None:
    def completion(finish_reason: str) -> Completion:
        return Completion("3-3", finish_reason, None, 1, 0, 3, 1.0, "", "")

    assert finished(completion("stop")) == "3-3"
    with pytest.raises(Unparsable) as error:
        finished(completion("length"))
    assert error.value.reason == "truncated"


def test_grammars_for_hundreds_of_ranges_stay_small() -> None:
    ranges = [(first, last) for first in range(1, 200) for last in range(first, first + 4)]
    assert line_ranges_grammar(ranges, 3).count("::=") < 5 * len(ranges)
    assert located_grammar(ranges, 3, 300).count("::=") < 5 * len(ranges)


def test_grammars_refuse_what_they_cannot_express() -> None:
    with pytest.raises(ValueError, match="lengths"):
        located_grammar([(1, 1)], 3, 2_001)
    with pytest.raises(ValueError, match="lengths"):
        explanation_grammar(0, ["CWE-1"])
    with pytest.raises(ValueError, match="ascend"):
        explanation_grammar(30, ["CWE-1"], 31)
    assert elements_grammar(1, ("a",)).count(", ") == 1
