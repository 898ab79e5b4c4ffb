"""s2_1: which code elements do the two snippets mention, and where is each defined?

A snippet is the masked block with the statement before and after it; the
other one is the same place after the fix.

Task 1. The parser's names and the model's list are united. A name from the
model that does not occur in the code outside of comments and strings is a
hallucination: counted, never kept. The parser's kind holds where a definition
or its use proves one, the model's otherwise. The raw list must be parsed
here, since the next step needs it: a list that cannot be parsed rejects the
row as `unparsable`; its text stays in llm_calls.

Task 2. The parser looks definitions up, first in the file, then in the tree
of the parent commit (definitions.py); for locals and parameters their
declaration in the function. Where it finds several the model picks, once per
name and MAX_PICKS times per row, names in the masked block first. The
parser's nearest is taken beyond that, for names that s2_2 leaves out anyway,
and where the model's answer is no number. The model may also say that none
fits.
"""

import re
import zlib
from collections.abc import Mapping

from trustmine import answers, cparse, samples
from trustmine.cnames import LANGUAGE, why_common
from trustmine.definitions import Definition, DefinitionFinder
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
from trustmine.stages.base import Asking, Context
from trustmine.text import encode

NAME, AFTER = "s2_1", "s2_0"
VERSION = 1
KIND = "llm"
SETTINGS = (
    "max_elements",
    "max_candidates",
    "common_calls",
    "basic_types",
    "error_codes",
    "min_name_chars",
)
PROMPTS = ("s2_1_elements", "s2_1_choose")
REASONS = ("unparsable",)

KINDS = (
    "function",
    "variable",
    "pointer variable",
    "member",
    "struct",
    "union",
    "enum",
    "typedef",
    "macro",
    "constant",
)

# Questions per row that pick among definitions. Each costs about as much as
# the list itself, and rows of curl and gpac seldom have more such names.
MAX_PICKS = 8
# A listed element: {"name": "...", "kind": "pointer variable"}, and a name of two or three words.
TOKENS_PER_ELEMENT = 28
# Lines of a candidate that the model is shown: the head tells which one it is.
CANDIDATE_LINES = 8


def run(commit: Commit, ctx: Context) -> Asking:
    """Asks for the list, then once per name that has several definitions."""
    function = ctx.facts.one(FunctionPair, commit)
    mask, merged = ctx.facts.one(Mask, commit), ctx.facts.one(MergedMask, commit)
    before = _Snippet.of(function.pre_text, LineRange(mask.first_line, mask.last_line), function)
    after = _Snippet.of(function.post_text, LineRange(merged.post_first_line, merged.post_last_line), function)

    completion = yield ctx.prompts.get("s2_1_elements").request(
        grammar=answers.elements_grammar(ctx.settings.max_elements, KINDS),
        max_tokens=ctx.settings.max_elements * TOKENS_PER_ELEMENT,
        temperature=ctx.settings.temperature,
        seed=ctx.settings.seed,
        before=before.text,
        after=after.text,
        max_elements=str(ctx.settings.max_elements),
    )
    try:
        listed = answers.parse_elements(answers.finished(completion))
    except answers.Unparsable:
        return Reject("unparsable")
