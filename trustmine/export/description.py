"""What a function does, in a few sentences by rule: the prompt of a `safecoder` row.

Put together from the code before the fix: language, name (also split into
words), parameters, return type, functions that both versions call, and the
comment above it. It says nothing of security: a comment or a called function
that has one of the words below is left out, since the prompt shall not tell
that there is something to look for. Only the function's own name and its
parameters stand whatever they are. Nobody and no model has written it.
"""

import re

from trustmine import samples
from trustmine.cparse import names, signature
from trustmine.export.rows import Pair
from trustmine.lines import split_lines
from trustmine.wording import listed, sentence

MAX_CALLEES = 6  # a description is short
MAX_COMMENT_CHARS = 300
MIN_COMMENT_WORDS = 3  # fewer name a section or the function again
MAX_TYPE_CHARS = 60  # a longer one is no type but what the parser could not read

# Words, or beginnings of words where a star stands: of weaknesses, of attacks, and of taking care.
SECURITY_WORDS = (
    *("secur*", "insecur*", "safe*", "unsafe*", "vuln*", "exploit*", "attack*", "malicious*", "hostile", "evil"),
    *("trusted", "untrusted", "cve", "cwe", "ghsa", "advisory", "advisories", "threat*", "danger*", "harden*"),
    *("overflow*", "underflow*", "overrun*", "underrun*", "overread*", "overwrit*", "oob", "bound", "bounds"),
    *("uaf", "dangling", "leak*", "inject*", "sanit*", "validat*", "verif*", "check*", "fuzz*", "crash*", "corrupt*"),
    *("race", "races", "racy", "deadlock*", "denial", "dos", "privilege*", "permission*", "bypass*", "mitigat*"),
    *("prevent*", "protect*", "guard*", "avoid*", "careful*", "beware", "bug", "bugs", "buggy", "fix", "fixes"),
    *("fixed", "fixme", "todo", "xxx", "hack", "broken", "dereferenc*", "uninitiali*", "truncat*", "limit*"),
    *("exceed*", "wrap", "wraps", "wraparound", "invalid*", "illegal*", "bogus", "crafted", "escap*", "quot*"),
)
# The same for words in a row.
SECURITY_PHRASES = (
    *("out of", "use after", "double free", "null pointer", "off by one", "make sure", "too long", "too large"),
    *("too big", "too small", "too short", "too many", "must not", "large enough", "big enough", "enough room"),
)
_FORBIDDEN = re.compile(
    "|".join(
        [rf"\b{word.removesuffix('*')}{r'[a-z]*' if word.endswith('*') else ''}(?![a-z])" for word in SECURITY_WORDS]
        + [rf"\b{phrase.replace(' ', '[ -]+')}(?![a-z])" for phrase in SECURITY_PHRASES]
    )
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z]+[0-9]*|[0-9]+")
_MARKS = re.compile(r"^[ \t]*\*+/|\*+/|^[ \t]*//+[!<]?|/\*+[!<]?|^[ \t]*\*+|[-=*#~_/]{4,}", re.MULTILINE)
# In a comment. Tried at the beginning of a word alone, or else a long one takes quadratic time.
_NAME = re.compile(r"\b\w*_\w*|\b\w+\(\)|(?<![a-z])[a-z]+[A-Z]\w*")
_PLAIN_WORD = re.compile(r"[A-Za-z]{2,}")
_TAG = re.compile(r"(?:^|\s)[@\\](?:brief|short|details|fn|name)\b[ \t]*")
_FURTHER = re.compile(r"(?:^|\s)[@\\][a-z]+\b|(?:^|\n)[ \t]*(?:Returns?|Arguments|Parameters|Input|Output)\b.{0,20}:")


def describe(pair: Pair) -> str:
    """One to three sentences in one line."""
    language = "C++" if samples.language(pair.old_path) == "cpp" else "C"
    name = samples.one_line(pair.source.function)
    declared = signature(pair.before.encode(), pair.old_path)
    parts = []
    takes = [one for one in declared.parameters if not one.isupper()]  # a macro that says that it is not used
    if takes:
        parts.append(f"takes {listed([_code(one) for one in takes])}")
    returns = _without_macros(declared.returns)
    if returns not in ("", "void") and len(returns) <= MAX_TYPE_CHARS:
        parts.append(f"returns {_code(returns)}")
    after = set(_callees(pair.after, pair.source.path))
    called = [
        one for one in _callees(pair.before, pair.old_path) if one in after and not speaks_of_security(words(one))
    ]
    if called:
        parts.append(f"calls {listed([_code(one) for one in called[:MAX_CALLEES]])}")
    does = f" that {'; '.join(parts)}" if parts else ""
    said = [f"Write a {language} function named `{name}`{does}."]
    split = words(pair.source.function)
    if " " in split and not speaks_of_security(split):
        said.append(f"Its name reads: {split}.")
    comment = plain(pair.comment)
    if comment:
        said.append(f"Its comment says: {comment}")
    return " ".join(said)


def words(name: str) -> str:
    """`Curl_setStrOpt2` as words: curl set str opt2."""
    return " ".join(word.lower() for word in _WORDS.findall(name))


def plain(comment: str) -> str:
    """The first paragraph of a comment that says something, in one line, without its marks.

    '' if none does, or if that one speaks of security.
    """
    text = _TAG.sub(" ", _MARKS.sub("", comment))
    paragraphs = (" ".join(_FURTHER.split(one)[0].split()) for one in re.split(r"\n[ \t]*\n", text))
    said = next((one for one in paragraphs if len(_PLAIN_WORD.findall(_NAME.sub(" ", one))) >= MIN_COMMENT_WORDS), "")
    if len(said) > MAX_COMMENT_CHARS:
        said = said[: MAX_COMMENT_CHARS + 1].rpartition(". ")[0]
    return "" if not said or speaks_of_security(said) else sentence(samples.one_line(said))


def speaks_of_security(text: str) -> bool:
    """Whether one of the words or phrases is in it; names count as the words they are made of."""
    return _FORBIDDEN.search(text.lower()) is not None or _FORBIDDEN.search(words(text)) is not None


def _code(text: str) -> str:
    return f"`{samples.one_line(text)}`"


def _without_macros(returned: str) -> str:
    """The type without words like GF_EXPORT beside it."""
    words_of = returned.split(" ")
    return " ".join(word for word in words_of if not word.isupper() or all(w.upper() == w for w in words_of))


def _callees(code: str, path: str) -> list[str]:
    """Functions that it calls and does not define, in alphabetical order."""
    source = code.encode()
    found = names(source, 1, len(split_lines(source)), path)
    return [name.name for name in found if name.kind == "function" and not name.is_local and len(name.name) > 1]
