"""Is an explanation about the code alone, and about code that is there?

Checks what can be checked without a model: an explanation must not speak of
the commit or quote its message, must name code, and none that the reader
cannot see, and must be whole sentences that do not repeat themselves. A
complaint is a sentence that can be sent back to the model. Whether the
explanation is right is left to others.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trustmine import cnames

# So many words in a row are a quotation; shorter runs are how anybody would say it.
QUOTED_WORDS = 6
# So many words in a row that come back are a model going in circles. An impact may take up what the root cause says, if
# at least half of it is new.
REPEATED_WORDS = 8

# "fixed" is mostly innocent ("a fixed-size buffer"), so only its telling uses count.
_COMMIT = re.compile(
    r"""\b(?: commits? | committed | patch(?:e[sd]|ing)? | fix | fixes | bug-?fix(?:es)? | diffs? | pull\ requests?
    | change-?logs? | (?:this|these)\ changes? | (?:is|are|was|were|been|gets?|got)\ fixed
    | fixed\ (?:by|in|version|code|function)
    | (?:the|after\ the)\ (?:new|updated)\ (?:code|version) )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_CODE_SPAN = re.compile(r"`+([^`]+)`+")
_IDENTIFIER = re.compile(r"(?<!\w)[A-Za-z_]\w*")
_CALL = re.compile(r"(?<!\w)([A-Za-z_]\w*)\((?!s\))")
_SNAKE = re.compile(r"(?<![\w-])(?:[A-Za-z]\w*_\w*|_+[A-Za-z]\w*)")
_CAMEL = re.compile(r"(?<![\w-])[a-z]+[0-9]*[A-Z]\w*")
_WORD = re.compile(r"\w+")
_SENTENCE_ENDS = re.compile(r"(?<=[.!?])\s+")
# The end of a whole sentence, after it what closes a quotation or brackets.
_ENDS_WHOLE = re.compile(r"[.!?\u3002\uFF01\uFF1F][`\"')\]\u201D\u2019]*\Z")
_BEGINS_WHOLE = re.compile(r"[`\"'(\u201C\u2018]*[^\W_]")

# Looks like camelCase, but is a word of prose.
_PROSE = frozenset({"macOS", "iOS", "iPhone", "eBPF"})


@dataclass(frozen=True, slots=True)
class Shown:
    """What an explanation may and may not draw on."""

    code: str  # the function and the context, as the reader sees them
    message: str  # the commit message, which the reader does not see


def complaint(root_cause: str, impact: str, shown: Shown, earlier: Sequence[str] = ()) -> str | None:
    """What is wrong with the explanation, as a sentence; None if nothing is.

    `earlier` are root causes already given for other segments of the function.
    """
    text = f"{root_cause}\n{impact}"
    if not _words(root_cause) or not _words(impact):
        return "Root cause and impact must both be given in words."
    if _words(root_cause) == _words(impact):
        return "Root cause and impact must not be the same text."
    if any(_words(root_cause) == _words(other) for other in earlier):
        return "This root cause was already given for another segment of the function."
    if _runs_twice(_words(root_cause)) or _runs_twice(_words(impact)):
        return "The explanation repeats itself."
    if 2 * _n_said_before(_words(impact), _words(root_cause)) > len(_words(impact)):
        return "The impact repeats the root cause: say what happens then."
    unknown = _unknown_to_reader(text, shown)
    if unknown is not None:
        return unknown
    known = set(_IDENTIFIER.findall(shown.code))
    if not _is_whole(root_cause, known) or not _is_whole(impact, known):
        return "Root cause and impact must be whole sentences."
    if not names(root_cause) & known:
        return "The root cause names nothing of the code: name the function, variable or call that it is about."
    return None


def lead(finding: str, shown: Shown) -> str:
    """Those sentences of a finding that an explanation may repeat; "" if none.

    Left out is what speaks of the commit, quotes its message or names code
    that the reader cannot see, and a last sentence that was cut off, where
    others end.
    """
    sentences = _SENTENCE_ENDS.split(finding.strip())
    if len(sentences) > 1 and sentences[-1][-1:] not in tuple(".!?"):
        del sentences[-1]
    return " ".join(one for one in sentences if _unknown_to_reader(one, shown) is None)


def _unknown_to_reader(text: str, shown: Shown) -> str | None:
    """The complaint about a text that draws on what its reader does not have."""
    told = _COMMIT.search(_CODE_SPAN.sub(" ", text))
    if told:
        return (
            f'The explanation says "{told[0]}": speak about the code alone, not about how it came or will come about.'
        )
    quoted = _quotation(_words(text), _words(shown.message))
    if quoted:
        return f'The explanation quotes a text that the reader does not have: "{quoted}".'
    unknown = sorted(names(text) - set(_IDENTIFIER.findall(shown.code)) - cnames.LANGUAGE - _PROSE)
    if unknown:
        return f"These names do not occur in the code shown: {', '.join(f'`{name}`' for name in unknown)}."
    return None


def _is_whole(text: str, known: set[str]) -> bool:
    """Whether a text begins and ends as sentences do; one may begin with a known name, whatever its case."""
    text = text.strip()
    if not _BEGINS_WHOLE.match(text) or not _ENDS_WHOLE.search(text):
        return False
    name = _IDENTIFIER.match(text)
    return not text[0].islower() or (name is not None and name[0] in known)


def names(text: str) -> set[str]:
    """Identifiers that a text mentions as code: in backticks, called, snake_case or camelCase."""
    found: set[str] = set()
    for span in _CODE_SPAN.findall(text):
        found.update(_IDENTIFIER.findall(span))
    prose = _CODE_SPAN.sub(" ", text)
    for shape in (_CALL, _SNAKE, _CAMEL):
        found.update(shape.findall(prose))
    return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _runs(words: Sequence[str], length: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[i:] for i in range(length)), strict=False)


def _quotation(words: Sequence[str], source: Sequence[str]) -> str | None:
    quotable = set(_runs(source, QUOTED_WORDS))
    return next((" ".join(run) for run in _runs(words, QUOTED_WORDS) if run in quotable), None)


def _runs_twice(words: Sequence[str]) -> bool:
    runs = list(_runs(words, REPEATED_WORDS))
    return len(set(runs)) < len(runs)


def _n_said_before(words: Sequence[str], before: Sequence[str]) -> int:
    """How many of the words stand in runs of REPEATED_WORDS that came before."""
    said = set(_runs(before, REPEATED_WORDS))
    starts = [at for at, run in enumerate(_runs(words, REPEATED_WORDS)) if run in said]
    return len({at + n for at in starts for n in range(REPEATED_WORDS)})
