"""s2_1: which code elements do the two snippets mention, and where is each defined?

A snippet is the masked block with the statements next to it; the other one is
the same place after the fix.

Task 1. The parser's names and the model's list are united. A name from the
model that does not occur in the snippets, comments and strings aside, is a
hallucination: counted, never kept. The kind is the parser's where a
definition or the use itself proves it, the model's otherwise. The raw list
must be parsed here, since task 2 needs it: a list that cannot be parsed
rejects the row as `unparsable`; its text stays in llm_calls.

Task 2. The parser looks definitions up, in the file, then in the tree of the
parent commit (definitions.py). What it learned of that tree's files on the
way is stored for later rows and workers. A member is one of the struct that it
is taken from, where declarations tell which that is (members.py). For parameters and local variables it is the
line that declares them. Where there are several the model picks, once per
name and at most MAX_PICKS times per row, names in the masked block first. The
parser's nearest is taken beyond that, for names that s2_2 leaves out anyway,
and where the answer is no number. The model may also say that none fits. Each
of these questions begins as the one for the list does, so an engine reads the
snippets once.

Where `elements_by` is "parser" no model is asked: elements are the parser's
names alone, and of several definitions the nearest is taken.
"""

import functools
import zlib
from collections.abc import Callable, Iterable

from trustmine import answers, members, samples
from trustmine.cnames import why_common
from trustmine.cparse import Name
from trustmine.definitions import Definition, DefinitionFinder, Found
from trustmine.gitrepo import GitRepo
from trustmine.lines import LineRange, cut_lines, split_lines
from trustmine.records import (
    Advance,
    Commit,
    Element,
    ElementCount,
    FunctionPair,
    Mask,
    MergedMask,
    PreImage,
    Reject,
    Request,
)
from trustmine.snippets import Margins, Snippet, declaring_line
from trustmine.stages.base import Asking, Context, Facts
from trustmine.text import decode, encode

NAME, AFTER = "s2_1", "s2_0"
VERSION = 2
KIND = "llm"
UNASKED = (("elements_by", "parser"),)
SETTINGS = (
    "elements_by",
    "max_elements",
    "max_candidates",
    "common_calls",
    "basic_types",
    "error_codes",
    "min_name_chars",
)
PROMPTS = ("s2_1_elements", "s2_1_choose")
REASONS = ("unparsable",)

TYPES = ("struct", "union", "enum", "typedef")
KINDS = ("function", "variable", "pointer variable", "member", *TYPES, "macro", "constant")

# Questions per row that pick among definitions: 20 known fixes of curl had 0 to
# 5 such names each (2026-11). Together they cost no more than the list does.
MAX_PICKS = 8
# {"name": "...", "kind": "pointer variable"}, with a name of three or four words.
TOKENS_PER_ELEMENT = 32
# Lines of a candidate that the model is shown: the head tells which one it is.
CANDIDATE_LINES = 8

# What the model may say about a name whose use in the code leaves it open.
_OPEN = {
    "function": ("function", "macro"),
    "type": (*TYPES, "macro"),
    "macro": ("macro", "constant", "function", "variable"),
    "constant": ("constant", "macro"),
    "variable": ("variable", "pointer variable", "constant", "macro", "function"),
}


def run(commit: Commit, ctx: Context) -> Asking:
    """Asks for the list, then once per name that has several definitions; or nothing."""
    function = ctx.facts.one(FunctionPair, commit)
    mask, merged = ctx.facts.one(Mask, commit), ctx.facts.one(MergedMask, commit)
    block = LineRange(mask.first_line, mask.last_line)
    margins = Margins.of(function.pre_text, function.encoding, function.old_path, block)
    before = Snippet.of(function.pre_text, function.encoding, function.old_path, block, margins)
    block = LineRange(merged.post_first_line, merged.post_last_line)
    after = Snippet.of(function.post_text, function.encoding, function.path, block, margins)
    is_asked = ctx.settings.elements_by == "both"
    listed: Iterable[tuple[str, str]] = ()
    if is_asked:
        completion = yield _list(function.old_path, (before, after), ctx)
        try:
            listed = answers.parse_elements(answers.finished(completion))
        except answers.Unparsable:
            return Reject("unparsable")
    by_model, n_hallucinated = _confirmed(listed, (before, after))
    by_parser = {**after.names, **before.names}
    names = sorted(by_parser.keys() | by_model.keys(), key=lambda name: (name not in before.block_words, name))
    # All look-ups before the first question: meanwhile other rows use the finder, which keeps one tree at hand.
    finder = _finder(ctx.repos.get(commit.repo_id), ctx.facts)
    find = functools.partial(
        finder.find,
        path=function.old_path,
        commit_sha=commit.parents[0],
        pre_image=zlib.decompress(ctx.facts.shared(PreImage, function.pre_oid).content),
        limit=ctx.settings.max_candidates,
    )
    places = (
        (function.pre_text, function.old_path, LineRange(mask.first_line, mask.last_line)),
        (function.post_text, function.path, block),
    )

    def look_up(name: str) -> Found:
        use = by_parser.get(name)
        if use is not None and use.is_local:
            return _declaration(use, function)
        kind = by_model[name] if use is None else use.kind
        found = find(name, kind)
        if kind != "member" or not found.n:
            return found
        return _member(name, function, places, find, finder) or found

    found = {name: look_up(name) for name in names}
    news = finder.news(commit.parents[0])

    elements: list[Element] = []
    n_picks_left = MAX_PICKS if is_asked else 0
    for name in names:
        choices, n_candidates = found[name].nearest, found[name].n
        chosen, chosen_by = (choices[0], "parser") if choices else (None, None)
        if len(choices) > 1 and n_picks_left and why_common(name, ctx.settings) is None:
            n_picks_left -= 1
            answer = yield _question(name, choices, function.old_path, (before, after), ctx)
            try:
                number = answers.parse_choice(answers.finished(answer), len(choices))
                chosen, chosen_by = (choices[number - 1] if number else None), "model"
            except answers.Unparsable:
                chosen, chosen_by = choices[0], "parser"
        use, said = by_parser.get(name), by_model.get(name)
        elements.append(
            Element(
                name=name,
                kind=_kind(use, said, chosen),
                found_by="model" if use is None else "parser" if said is None else "both",
                in_pre=name in before.words,
                in_post=name in after.words,
                n_candidates=n_candidates,
                chosen_by=chosen_by if chosen else None,
                def_path=chosen.path if chosen else None,
                def_first_line=chosen.first_line if chosen else None,
                def_last_line=chosen.last_line if chosen else None,
                definition=decode(chosen.text)[0] if chosen else None,
                missing=None if chosen else _missing(use, choices),
            )
        )
    n_both = len(by_parser.keys() & by_model.keys())
    return Advance((*news, *elements, ElementCount(len(by_parser), len(by_model), n_both, n_hallucinated)))


def _confirmed(listed: Iterable[tuple[str, str]], snippets: tuple[Snippet, ...]) -> tuple[dict[str, str], int]:
    """Name -> kind of what the model listed and the code holds, and how many names it does not hold.

    A qualified name counts by its last part, as the parser names things, if
    all its parts occur.
    """
    words = frozenset().union(*(snippet.words for snippet in snippets))
    kinds: dict[str, str] = {}
    unknown: set[str] = set()
    for name, kind in listed:
        parts = [part.removeprefix("~") for part in name.split("::")]
        if words.issuperset(parts) and kind in KINDS:
            kinds.setdefault(parts[-1], kind)
        else:
            unknown.add(name)
    return kinds, len(unknown)


@functools.lru_cache(maxsize=4)
def _finder(repo: GitRepo, facts: Facts) -> DefinitionFinder:
    """One per repository and worker: it keeps the symbols of a tree at hand."""
    return DefinitionFinder(repo, facts)


def _declaration(use: Name, function: FunctionPair) -> Found:
    """The line of the function before the fix that declares a name; none if only the fixed one does."""
    number = declaring_line(use.name, function.pre_text, function.encoding, function.old_path)
    if number is None:
        return Found((), 0)
    line = function.pre_first_line + number - 1
    text = encode(cut_lines(function.pre_text, LineRange(number, number)), function.encoding)
    kind = "typedef" if use.kind == "type" else use.kind
    return Found((Definition(function.old_path, line, line, text, kind, False),), 1)


def _member(
    name: str,
    function: FunctionPair,
    places: Iterable[tuple[str, str, LineRange]],
    find: Callable[[str, str], Found],
    finder: DefinitionFinder,
) -> Found | None:
    """The member that the code before or after the fix means; None if its declarations do not tell."""
    for text, path, block in places:
        for chain in members.chains(name, text, function.encoding, path, block):
            found = members.resolve(
                name, chain, text, function.encoding, path, lambda owner: find(owner, "type").nearest, finder.members
            )
            if found is not None:
                return Found(found, len(found))
    return None


def _list(path: str, snippets: tuple[Snippet, Snippet], ctx: Context) -> Request:
    """Which code elements do the snippets mention?"""
    return ctx.prompts.get("s2_1_elements").request(
        grammar=answers.elements_grammar(ctx.settings.max_elements, KINDS),
        schema=answers.elements_schema(ctx.settings.max_elements, KINDS),
        max_tokens=ctx.settings.max_elements * TOKENS_PER_ELEMENT,
        temperature=ctx.settings.temperature,
        seed=ctx.settings.seed,
        path=samples.one_line(path),
        code_before=snippets[0].text,
        code_after=snippets[1].text,
        max_elements=str(ctx.settings.max_elements),
    )


def _question(
    name: str, choices: tuple[Definition, ...], path: str, snippets: tuple[Snippet, Snippet], ctx: Context
) -> Request:
    """Which of the choices do the snippets mean?"""
    shown = []
    for number, choice in enumerate(choices, 1):
        lines = split_lines(decode(choice.text)[0])
        head = "".join(lines[:CANDIDATE_LINES]).removesuffix("\n")
        more = f"\n{samples.CUT}" if len(lines) > CANDIDATE_LINES else ""
        where = f"{samples.one_line(choice.path)}:{choice.first_line}-{choice.last_line}"
        shown.append(f"/* {number}: {choice.kind} in {where} */\n{head}{more}\n")
    return ctx.prompts.get("s2_1_choose").request(
        grammar=answers.choice_grammar(len(choices)),
        temperature=ctx.settings.temperature,
        seed=ctx.settings.seed,
        path=samples.one_line(path),
        code_before=snippets[0].text,
        code_after=snippets[1].text,
        element=name,
        candidates="\n".join(shown),
    )


def _missing(use: Name | None, choices: tuple[Definition, ...]) -> str:
    """Why an element has no definition."""
    if choices:
        return "none_fits"
    return "local" if use is not None and use.is_local else "not_found"


def _kind(use: Name | None, said: str | None, chosen: Definition | None) -> str:
    """What an element is, given how the code uses it, what the model says and how it is defined."""
    if chosen is not None and chosen.kind != "variable":
        return chosen.kind
    if use is None:
        assert said is not None, "an element is found by the parser or by the model"
        return said
    if chosen is not None:
        return "pointer variable" if "pointer variable" in (use.kind, said) else "variable"
    if said in _OPEN.get(use.kind, ()):
        return said
    return "typedef" if use.kind == "type" else use.kind
