"""s2_0: both versions masked, undefined names collected."""

from typing import Any

import pytest
from refine_helpers import MemoryFacts, a_commit, context

from trustmine import masking
from trustmine.lines import LineRange, cut_lines
from trustmine.records import Advance, FunctionPair, Mask, MaskedFunction, MergedMask, Reject, UndefinedElement
from trustmine.stages import s2_0_merge

PRE = """int f(struct buf *p)
{
  int n = LIMIT;
  first(n);
    copy(p->data, n);
  last(&global);
  return n;
}
"""
POST = PRE.replace("    copy(p->data, n);\n", "  if(check(n))\n    copy(p->room, n);\n")


def a_pair(pre: str = PRE, post: str = POST, **changes: Any) -> FunctionPair:
    values: dict[str, Any] = {
        "name": "f", "path": "x.c", "old_path": "x.c", "split": "train", "pre_oid": "a", "post_oid": "b",
        "encoding": "utf-8", "hunk": "", "pre_first_line": 1, "pre_last_line": 8, "post_first_line": 1,
        "post_last_line": 9, "pre_text": pre, "post_text": post, "deleted_lines": (5,), "added_lines": (5, 6),
        "fix_lines": (5,), "n_tokens": 50, **changes,
    }  # fmt: skip
    return FunctionPair(**values)


def run(pair: FunctionPair, *ranges: tuple[int, int]) -> Any:
    lines = [LineRange(*one) for one in ranges]
    masks = [Mask(n, r.first_line, r.last_line, cut_lines(pair.pre_text, r), 1) for n, r in enumerate(lines, 1)]
    masked = MaskedFunction(masking.mask(pair.pre_text, lines), 0, "hash")
    return s2_0_merge.run(a_commit(), context(MemoryFacts([pair, *masks, masked])))


def test_the_fixed_function_is_masked_where_the_mask_went() -> None:
    outcome = run(a_pair(), (5, 5))
    assert isinstance(outcome, Advance)
    merged = outcome.facts[0]
    assert isinstance(merged, MergedMask)
    assert merged.fixed == "  if(check(n))\n    copy(p->room, n);\n"
    assert (merged.post_first_line, merged.post_last_line) == (5, 6)
    assert merged.masked_post == masking.mask(PRE, [LineRange(5, 5)])
    assert masking.unmask(merged.masked_post, [merged.fixed]) == POST


def test_names_at_the_mask_that_the_function_does_not_define() -> None:
    elements = run(a_pair(), (5, 5)).facts[1:]
    assert elements == (
        UndefinedElement("check", "function", "fixed"),
        UndefinedElement("copy", "function", "masked"),
        UndefinedElement("data", "member", "masked"),
        UndefinedElement("first", "function", "adjoining"),
        UndefinedElement("global", "variable", "adjoining"),
        UndefinedElement("last", "function", "adjoining"),
        UndefinedElement("room", "member", "fixed"),
    )


def test_a_fix_that_only_deletes_leaves_an_empty_region() -> None:
    pair = a_pair(post=PRE.replace("    copy(p->data, n);\n", ""), added_lines=())
    merged = run(pair, (5, 5)).facts[0]
    assert (merged.fixed, merged.post_first_line, merged.post_last_line) == ("", 5, 4)
    assert merged.masked_post == masking.mask(PRE, [LineRange(5, 5)])


def test_more_than_one_mask_is_rejected() -> None:
    assert run(a_pair(), (4, 4), (6, 6)) == Reject("multi_mask")


def test_code_that_uses_only_its_own_names_is_rejected() -> None:
    pre = "int f(int a)\n{\n  int b = 1;\n  a = b;\n  b = a;\n  return a;\n}\n"
    pair = a_pair(pre, pre.replace("a = b", "a = b + 1"), deleted_lines=(4,), added_lines=(4,))
    outcome = run(pair, (4, 4))
    assert outcome.reason == "no_undefined_elements"
    assert [type(fact) for fact in outcome.facts] == [MergedMask]


def test_a_mask_that_does_not_belong_to_the_function_fails_the_row() -> None:
    facts = MemoryFacts([a_pair(), Mask(1, 5, 5, "other();\n", 1), MaskedFunction("<MASK_1>\n", 0, "hash")])
    with pytest.raises(ValueError, match="is not the function"):
        s2_0_merge.run(a_commit(), context(facts))


def test_a_rewritten_comment_above_the_mask_is_not_cut_in_two() -> None:
    pre = PRE.replace("  first(n);\n", "  /* copies\n     some */\n")
    post = pre.replace(
        "     some */\n    copy(p->data, n);\n", "     no more\n     than fits */\n    copy(p->room, n);\n"
    )
    pair = a_pair(pre, post, deleted_lines=(5, 6), added_lines=(5, 6, 7), fix_lines=(5, 6))
    merged = run(pair, (6, 6)).facts[0]
    assert merged.fixed == "  /* copies\n     no more\n     than fits */\n    copy(p->room, n);\n"
    assert merged.masked_post.count("/*") == merged.masked_post.count("*/") == 0
    assert masking.unmask(merged.masked_post, [merged.fixed]) == post


def test_an_empty_region_moves_out_of_a_comment() -> None:
    pre = PRE.replace("    copy(p->data, n);\n", "  /* one\n  two */\n    copy(p->data, n);\n  /* three\n  four */\n")
    post = PRE.replace("    copy(p->data, n);\n", "  /* one\n  four */\n")
    pair = a_pair(pre, post, deleted_lines=(6, 7, 8), added_lines=(), fix_lines=(7,))
    merged = run(pair, (7, 7)).facts[0]
    assert (merged.fixed, merged.post_first_line, merged.post_last_line) == ("", 7, 6)
    assert "  four */\n    <MASK_1>\n" in merged.masked_post


def test_code_inserted_before_a_comment_above_the_mask_is_in_the_gap() -> None:
    pre = PRE.replace("    copy(p->data, n);\n", "\n  /* all of it */\n  copy(p->data, n);\n")
    post = pre.replace("  first(n);\n", "  first(n);\n  if(check(n))\n    return 0;\n")
    pair = a_pair(pre, post, deleted_lines=(), added_lines=(5, 6), fix_lines=(7,))
    merged = run(pair, (7, 7)).facts[0]
    assert merged.fixed == "  if(check(n))\n    return 0;\n\n  /* all of it */\n  copy(p->data, n);\n"
    assert masking.unmask(merged.masked_post, [merged.fixed]) == post


def test_an_inserted_blank_line_stays_outside_of_the_gap() -> None:
    post = PRE.replace("    copy(p->data, n);\n", "\n    copy(p->room, n);\n\n")
    merged = run(a_pair(post=post, added_lines=(5, 6, 7)), (5, 5)).facts[0]
    assert merged.fixed == "    copy(p->room, n);\n"
    assert masking.unmask(merged.masked_post, [merged.fixed]) == post
