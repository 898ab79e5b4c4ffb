"""s2_2: which definitions make up the sample's context?

Common library calls, basic types, error codes and very short names are
dropped, each with its reason; so are elements without a definition. What
remains is taken in this order until the budget is used up: what the code
before the fix uses goes before what only the fixed code uses, names inside
the masked block first, then types, macros and functions before the rest, then
by name. A definition is cut at a line end where it exceeds its own budget or
what is left of the whole.

A definition that the reader sees anyway, because it lies in the function
itself or was taken for another element (an enumerator's enum), is kept with
n_chars 0.

The model's raw list was parsed at s2_1, where a list that cannot be parsed
rejects the row as `unparsable`; nothing is rejected here.
"""

import re

from trustmine import tokens
from trustmine.cnames import why_common
from trustmine.records import Advance, Commit, ContextItem, Element, FunctionPair, Mask, Outcome
from trustmine.stages.base import Context

NAME, AFTER = "s2_2", "s2_1"
VERSION = 1
KIND = "cpu"
SETTINGS = (
    "common_calls",
    "basic_types",
    "error_codes",
    "min_name_chars",
    "context_tokens",
    "definition_tokens",
)
PROMPTS = ()
REASONS = ()

# How much a definition tells about sizes, bounds and what is checked.
_USEFUL = {
    kind: place
    for place, kinds in enumerate(
        (("struct", "union", "enum", "typedef"), ("macro", "constant"), ("function",), ("member",))
    )
    for kind in kinds
}
_IDENTIFIER = re.compile(r"(?<!\w)[A-Za-z_]\w*")

Span = tuple[str, int, int]  # path, first and last line


def run(commit: Commit, ctx: Context) -> Outcome:
    """One ContextItem per element, numbered in the order of the context."""
    function = ctx.facts.one(FunctionPair, commit)
    masked = {name for mask in ctx.facts.all(Mask, commit) for name in _IDENTIFIER.findall(mask.removed)}

    def place(element: Element) -> tuple[bool, bool, int, str]:
        bare = element.name.rsplit("::", 1)[-1]
        return not element.in_pre, bare not in masked, _USEFUL.get(element.kind, len(_USEFUL)), element.name

    left = ctx.settings.context_tokens
    shown: list[Span] = [(function.old_path, function.pre_first_line, function.pre_last_line)]
    items = []
    for item_no, element in enumerate(sorted(ctx.facts.all(Element, commit), key=place), 1):
        reason, part = why_common(element.name, ctx.settings), ""
        if reason is None and element.definition is None:
            reason = "no_definition"
        elif reason is None and not _is_shown(element, shown):
            assert element.definition is not None
            part = tokens.cut_lines(element.definition, min(left, ctx.settings.definition_tokens))
            reason = None if part else "over_budget"
            if part:
                assert element.def_path is not None and element.def_first_line is not None
                n_lines = part.removesuffix("\n").count("\n") + 1
                shown.append((element.def_path, element.def_first_line, element.def_first_line + n_lines - 1))
        n_tokens = tokens.count(part)
        left -= n_tokens
        items.append(
            ContextItem(
                name=element.name,
                item_no=item_no,
                is_kept=reason is None,
                reason=reason,
                n_chars=len(part),
                n_tokens=n_tokens,
            )
        )
    return Advance(tuple(items))


def _is_shown(element: Element, shown: list[Span]) -> bool:
    """Does the definition lie within lines that the reader sees already?"""
    assert element.def_first_line is not None and element.def_last_line is not None
    return any(
        path == element.def_path and first <= element.def_first_line and element.def_last_line <= last
        for path, first, last in shown
    )
