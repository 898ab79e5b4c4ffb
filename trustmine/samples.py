"""How a sample's evidence is written: the function with line numbers, and its context.

Used by the prompts of the later stages, by training instructions and by
exports, so that a model is trained on the layout that it was asked with. What
belongs to a context is decided at s2_2; here it is only rendered.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from trustmine import changed_function, wording
from trustmine import text as texts
from trustmine.lines import split_lines
from trustmine.prompts import fenced
from trustmine.records import Commit, ContextItem, Element, Explanation, FunctionPair, Mask, MergedMask, Segment

NO_CONTEXT = "(no definitions)\n"
CUT = "/* ... */"
CONTEXT_TITLE = "Definitions of names used:"

_CPP = (".cc", ".cpp", ".cxx", ".hpp", ".hh", ".hxx")


@dataclass(frozen=True, slots=True)
class Sample:
    """What is known of a row that went all the way."""

    commit: Commit
    function: FunctionPair
    mask: Mask
    merged: MergedMask
    elements: tuple[Element, ...]
    items: tuple[ContextItem, ...]
    segments: tuple[tuple[Segment, Explanation], ...]


# ------------------------------------------------------------------------------ text


def one_line(text: str) -> str:
    """A name or path in which nothing can end the line, the comment or the backticks it stands in."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown.replace("`", "'").replace("*/", "* /")


def old_name(function: FunctionPair) -> str:
    """The function's name in the pre-image. The name that a fix gives it would tell something of the fix."""
    pre, post = (texts.encode(one, function.encoding) for one in (function.pre_text, function.post_text))
    return changed_function.old_name(function.name, function.old_path, pre, function.path, post)


def numbered(text: str) -> str:
    """The text with its number and a tab before every line, as `cat -n` has it, without its padding.

    Written as `  12| code`, numbers were a third to two fifths of a function's tokens. They take three times as many
    tokens of cl100k as these do, and twice as many of Qwen2.5's; to SmolLM2 it makes no difference.
    """
    return "".join(f"{number}\t{line}" for number, line in enumerate(split_lines(text), 1))


def span(first_line: int, last_line: int) -> str:
    """`line 12` or `lines 12-15`."""
    return f"line {first_line}" if first_line == last_line else f"lines {first_line}-{last_line}"


# --------------------------------------------------------------------------- context


def context(elements: Iterable[Element], items: Iterable[ContextItem], *, with_post: bool) -> str:
    """The definitions that the reader gets, each below a comment with its path and lines.

    `with_post` False leaves out what only the fixed code uses: it would tell
    what the fix calls. NO_CONTEXT if nothing is left.
    """
    by_name = {element.name: element for element in elements}
    parts = []
    for item in sorted(items, key=lambda item: item.item_no):
        element = by_name[item.name]
        if item.n_chars and (with_post or element.in_pre):
            parts.append(_definition(element, item))
    return "\n".join(parts) or NO_CONTEXT


def is_cut(element: Element, item: ContextItem) -> bool:
    """Is there a definition, of which the budget left out something?"""
    if element.definition is None:
        return False
    return item.reason == "over_budget" or 0 < item.n_chars < len(element.definition)


def _definition(element: Element, item: ContextItem) -> str:
    assert element.definition is not None and element.def_path is not None
    text = element.definition[: item.n_chars].removesuffix("\n")
    where = f"{one_line(element.def_path)}:{element.def_first_line}-{element.def_last_line}"
    return f"/* {where} */\n{text}\n" + (f"{CUT}\n" if is_cut(element, item) else "")


# ------------------------------------------------------------------- parts of a sample


def code(sample: Sample, text: str) -> str:
    """The text in a fence that nothing in it can close."""
    return fenced(text, language(sample.function.old_path))


def language(path: str) -> str:
    """What a fence says about code of this file."""
    return "cpp" if path.lower().endswith(_CPP) else "c"


def title(sample: Sample, name: str) -> str:
    """Name and place of the function."""
    return f"Function `{one_line(name)}` in `{one_line(sample.function.old_path)}`"


def function_before(sample: Sample) -> str:
    """The function before the fix, with line numbers."""
    title_before = title(sample, old_name(sample.function))
    return f"{title_before}, every line with its number:\n\n{code(sample, numbered(sample.function.pre_text))}"


def given(sample: Sample, *parts: str, with_post: bool) -> str:
    """The parts, then the context if there is one."""
    text = context(sample.elements, sample.items, with_post=with_post)
    if text != NO_CONTEXT:
        parts = (*parts, f"{CONTEXT_TITLE}\n\n{code(sample, text)}")
    return "\n\n".join(parts)


def place(sample: Sample, segment: Segment) -> str:
    """Lines of the segment and their code."""
    where = span(segment.first_line, segment.last_line)
    return f"{where.capitalize()}:\n\n{code(sample, segment.snippet)}"


def places(sample: Sample) -> str:
    """Lines of all segments, as part of a sentence."""
    return wording.listed([span(segment.first_line, segment.last_line) for segment, _ in sample.segments])


def findings(sample: Sample) -> str:
    """What is wrong with the function, segment by segment."""
    found = [
        f"- {span(segment.first_line, segment.last_line)}: "
        f"{wording.sentence(explanation.root_cause)} {wording.sentence(explanation.impact)}"
        + (f" ({explanation.cwe})" if explanation.cwe else "")
        for segment, explanation in sample.segments
    ]
    return "Review:\n\n" + "\n".join(found)
