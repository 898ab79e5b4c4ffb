import dataclasses
from typing import Any

import stage_helpers as helpers
from stage_helpers import FUNCTION, HEADER_PATH, MASK, PATH, commit, context, element

from trustmine import samples, tokens
from trustmine.records import Advance, ContextItem, Element
from trustmine.stages import s2_2_validate

BODY = "".join(f"    call_number({n});\n" for n in range(100))
LONG = f"static void long_one(void)\n{{\n{BODY}}}\n"


def items(*elements: Element, **settings: Any) -> dict[str, ContextItem]:
    outcome = s2_2_validate.run(commit(), context(FUNCTION, MASK, *elements, **settings))
    assert isinstance(outcome, Advance)
    made = [fact for fact in outcome.facts if isinstance(fact, ContextItem)]
    assert [one.item_no for one in made] == list(range(1, len(elements) + 1))
    return {one.name: one for one in made}


def test_common_names_are_dropped_each_with_its_reason() -> None:
    given = {
        "memcpy": "common_call",
        "std::memcpy": "common_call",
        "size_t": "basic_type",
        "unsigned char": "basic_type",
        "ENOMEM": "error_code",
        "id": "short_name",
    }
    made = items(*(element(name, "function", "int x;\n") for name in given))
    assert {name: one.reason for name, one in made.items()} == given
    assert not any(one.is_kept or one.n_chars or one.n_tokens for one in made.values())


def test_the_lists_are_settings() -> None:
    made = items(element("memcpy", "function", "int x;\n"), common_calls=("strcpy",))
    assert made["memcpy"].is_kept


def test_an_element_without_definition_is_dropped_for_that() -> None:
    assert items(element("hidden", "function"))["hidden"].reason == "no_definition"


def test_a_definition_that_fits_is_kept_whole() -> None:
    one = items(*helpers.ELEMENTS)["record"]
    assert (one.is_kept, one.reason, one.n_chars) == (True, None, len(helpers.RECORD))
    assert one.n_tokens == tokens.count(helpers.RECORD)


def test_masked_names_come_first_then_types_macros_and_functions() -> None:
    made = items(
        element("late", "struct", "a\n", in_pre=False, def_first_line=1, def_last_line=1),
        element("some_function", "function", "b\n", def_first_line=2, def_last_line=2),
        element("some_type", "struct", "c\n", def_first_line=3, def_last_line=3),
        element("HEADER_SIZE", "macro", "d\n", def_first_line=4, def_last_line=4),
        element("SOME_MACRO", "macro", "e\n", def_first_line=5, def_last_line=5),
    )
    assert sorted(made, key=lambda name: made[name].item_no) == [
        "HEADER_SIZE", "some_type", "SOME_MACRO", "some_function", "late"
    ]  # fmt: skip


def test_a_long_definition_is_cut_at_a_line_end() -> None:
    one = items(element("long_one", "function", LONG), definition_tokens=50)["long_one"]
    assert 0 < one.n_chars < len(LONG)
    assert LONG[one.n_chars - 1] == "\n"
    assert one.n_tokens == tokens.count(LONG[: one.n_chars]) <= 50


def test_all_definitions_together_stay_in_the_budget() -> None:
    many = [
        element(f"long_{n}", "function", LONG, def_first_line=1000 * n + 1, def_last_line=1000 * n + 103)
        for n in range(4)
    ]
    made = items(*many, context_tokens=600, definition_tokens=250)
    assert sum(one.n_tokens for one in made.values()) <= 600
    assert [made[f"long_{n}"].is_kept for n in range(3)] == [True, True, True]
    assert made["long_2"].n_tokens < made["long_1"].n_tokens
    last = items(*many, context_tokens=500, definition_tokens=250)["long_3"]
    assert (last.is_kept, last.reason, last.n_chars) == (False, "over_budget", 0)


def test_a_definition_that_is_in_sight_costs_nothing() -> None:
    local = element(
        "name_len", "variable", "    size_t name_len;\n", def_path=PATH, def_first_line=11, def_last_line=11
    )
    whole = element(
        "record_error", "enum", "enum record_error {\n    RECORD_OK,\n};\n", def_first_line=9, def_last_line=11
    )
    inside = element("RECORD_OK", "constant", "    RECORD_OK,\n", def_first_line=10, def_last_line=10)
    made = items(local, whole, inside)
    assert [(made[name].is_kept, made[name].n_chars) for name in ("name_len", "RECORD_OK")] == [(True, 0), (True, 0)]
    text = samples.context((local, whole, inside), made.values(), with_post=True)
    assert text == f"/* {HEADER_PATH}:9-11 */\nenum record_error {{\n    RECORD_OK,\n}};\n"


def test_what_a_cut_left_out_is_not_in_sight() -> None:
    whole = element("long_one", "function", LONG, def_first_line=1, def_last_line=103)
    inside = element("call_number_99", "function", "    call_number(99);\n", def_first_line=102, def_last_line=102)
    made = items(whole, dataclasses.replace(inside, kind="variable"), definition_tokens=50)
    assert made["call_number_99"].n_chars == len("    call_number(99);\n")
