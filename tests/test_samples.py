import dataclasses
import re

import pytest

from trustmine import samples
from trustmine.records import ContextItem, Element

LONG = "int a;\nint b;\nint c;\n"


def element(name: str, **more: object) -> Element:
    one = Element(
        name=name, kind="struct", found_by="both", in_pre=True, in_post=True, n_candidates=1, chosen_by="parser",
        def_path="a.h", def_first_line=1, def_last_line=3, definition=LONG, missing=None,
    )  # fmt: skip
    return dataclasses.replace(one, **more)  # type: ignore[arg-type]


def item(name: str, item_no: int, n_chars: int, reason: str | None = None) -> ContextItem:
    return ContextItem(name=name, item_no=item_no, is_kept=reason is None, reason=reason, n_chars=n_chars, n_tokens=1)


def test_lines_are_numbered_as_git_counts_them() -> None:
    assert samples.numbered("a\r\nb\fc\n\n") == "1\ta\r\n2\tb\fc\n3\t\n"
    assert samples.numbered("\n".join("x" * 10)).splitlines()[-1] == "10\tx"


def test_definitions_stand_below_their_place_in_the_order_of_the_context() -> None:
    elements = (element("one"), element("two", def_path="b.h", definition="int d;\n"))
    text = samples.context(elements, (item("one", 2, 14), item("two", 1, 7)), with_post=True)
    assert text == "/* b.h:1-3 */\nint d;\n\n/* a.h:1-3 */\nint a;\nint b;\n/* ... */\n"


def test_only_what_is_kept_is_shown() -> None:
    assert samples.context((element("one"),), (item("one", 1, 0, "over_budget"),), with_post=True) == samples.NO_CONTEXT


def test_what_only_the_fix_uses_can_be_left_out() -> None:
    given = (element("one", in_pre=False),), (item("one", 1, len(LONG)),)
    assert samples.context(*given, with_post=False) == samples.NO_CONTEXT
    assert LONG in samples.context(*given, with_post=True)


def test_a_path_cannot_leave_its_comment() -> None:
    text = samples.context((element("one", def_path="a*/\nint x;`b`.h"),), (item("one", 1, 7),), with_post=True)
    assert text.split("\n")[0] == "/* a* /?int x;'b'.h:1-3 */"


@pytest.mark.parametrize(
    ("items", "is_cut"), [(item("one", 1, 7), True), (item("one", 1, 21), False), (item("one", 1, 0), False)]
)
def test_a_definition_is_cut_if_the_budget_left_some_of_it_out(items: ContextItem, is_cut: bool) -> None:
    assert samples.is_cut(element("one"), items) == is_cut


def test_a_definition_over_budget_is_cut_and_a_missing_one_is_not() -> None:
    assert samples.is_cut(element("one"), item("one", 1, 0, "over_budget"))
    assert not samples.is_cut(element("one", definition=None), item("one", 1, 0, "no_definition"))


def test_one_line_keeps_readable_names() -> None:
    assert samples.one_line("src/größe.c") == "src/größe.c"
    assert not re.search(r"[\n\x1b`]", samples.one_line("a\nb\x1b`c"))
