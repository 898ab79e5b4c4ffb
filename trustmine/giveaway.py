"""Does the input of an example hold what its answer asks for?

Lines of the fix and of the commit message must not stand in an input that is
answered by them. A line counts if it says something (MIN_CHARS, two words) and
the reader could not see it anyway: in the code that the task shows, or in a
definition from the tree before the fix. White space does not count. So what is
found came in by another way: mostly an explanation that repeats the commit.
"""

import re

from trustmine.samples import Sample

MIN_CHARS = 12  # of a line; shorter ones (`return NULL;`) stand in every function
MIN_MESSAGE_CHARS = 20
_WORD = re.compile(r"\w+")
_COMMENT_MARKS = re.compile(r"^[/*#>\s-]+|[*/\s]+$")


def given_away(sample: Sample, task: str, given: str) -> str | None:
    """The first line of the fix or of the message that the input of this task gives away; None if there is none."""
    known = [element.definition or "" for element in sample.elements]
    known.append(sample.merged.masked_post if task == "infill" else sample.function.pre_text)
    if task == "calibrate":  # which shows the fix as one of its candidates
        known.append(sample.function.post_text)
    secrets = _lines(sample.commit.message, MIN_MESSAGE_CHARS)
    if task == "infill":
        secrets += _lines(sample.merged.fixed, MIN_CHARS)
    else:
        secrets += _lines(sample.function.post_text, MIN_CHARS)
    seen, shown = _squeezed("\n".join(known)), _squeezed(given)
    return next((line for line in secrets if line in shown and line not in seen), None)


def _lines(text: str, min_chars: int) -> list[str]:
    """The lines that say something, without marks of comments around them."""
    lines = (_squeezed(_COMMENT_MARKS.sub("", line)) for line in text.splitlines())
    return [line for line in lines if len(line) >= min_chars and len(_WORD.findall(line)) > 1]


def _squeezed(text: str) -> str:
    return " ".join(text.split())
