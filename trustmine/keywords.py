"""Which keywords and which CVE, GHSA and CWE identifiers a commit message holds.

Mode `substring` finds a keyword exactly where `git log -i -F --grep=KEYWORD`
finds it in a UTF-8 locale: anywhere, letters compared by simple case folding
(one character to one: "K", "k" and the Kelvin sign are the same, "ß" and "ss"
are not). Unlike git, which stops reading a message at a NUL, all of it counts.
Mode `word` asks besides that no letter, digit or underscore touches the
keyword. A hyphen is no letter: "free" is a word of "use-after-free", and
"use-after-free" one of "(use-after-free)".

All keywords are found in one pass over the message by an Aho-Corasick automaton.
"""

import re
from collections.abc import Sequence

from ahocorasick_rs import AhoCorasick

from trustmine.records import Identifier

# GHSA's alphabet leaves out look-alikes: https://docs.github.com/en/code-security/reference (GHSA IDs)
_GHSA = "[23456789cfghjmpqrvwx]{4}"
_IDENTIFIER = re.compile(
    rf"(?<!\w)(?:CVE-(?P<year>[0-9]{{4}})-(?P<number>[0-9]{{4,19}})|"
    rf"GHSA-(?P<ghsa>{_GHSA}-{_GHSA}-{_GHSA})|CWE-(?P<cwe>[0-9]{{1,6}}))(?!\w)",
    re.IGNORECASE,
)


class _Folding(dict[int, str]):
    """Simple case folding for str.translate, filled as characters turn up."""

    def __missing__(self, point: int) -> str:
        char = chr(point)
        for folded in (char.casefold(), char.lower()):
            if len(folded) == 1:
                break
        else:
            folded = char
        self[point] = folded
        return folded


_FOLDING = _Folding()


def fold(text: str) -> str:
    """The text with case taken away, each character on its own: length and positions stay."""
    return text.lower() if text.isascii() else text.translate(_FOLDING)


class KeywordMatcher:
    """Finds the keywords of one list in messages."""

    def __init__(self, keywords: Sequence[str], mode: str) -> None:
        if mode not in ("substring", "word"):
            raise ValueError(f"unknown match mode {mode!r}")
        if not all(keywords):
            raise ValueError("a keyword is empty")
        self._by_words = mode == "word"
        self._keywords = tuple(dict.fromkeys(keywords))
        places: dict[str, list[int]] = {}  # keywords that differ only in case are one pattern
        for place, keyword in enumerate(self._keywords):
            places.setdefault(fold(keyword), []).append(place)
        self._places = tuple(places.values())
        self._automaton = AhoCorasick(list(places))

    def find(self, message: str) -> tuple[str, ...]:
        """Keywords in the message, in the order of the list."""
        folded = fold(message)
        found = {
            number
            for number, start, end in self._automaton.find_matches_as_indexes(folded, overlapping=True)
            if not self._by_words or _stands_alone(folded, start, end)
        }
        return tuple(self._keywords[place] for place in sorted(place for n in found for place in self._places[n]))


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether no word goes on across either end of the match."""
    return not (
        (start > 0 and _in_word(text[start - 1]) and _in_word(text[start]))
        or (end < len(text) and _in_word(text[end - 1]) and _in_word(text[end]))
    )


def _in_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def find_identifiers(message: str) -> tuple[Identifier, ...]:
    """Identifiers in the message in their official spelling, sorted, each once; none inside a longer word."""
    found = set()
    for match in _IDENTIFIER.finditer(message):
        if match["ghsa"]:
            found.add(("GHSA", "GHSA-" + match["ghsa"].lower()))
        elif match["cwe"]:
            found.add(("CWE", f"CWE-{int(match['cwe'])}"))
        else:
            found.add(("CVE", f"CVE-{match['year']}-{match['number']}"))
    return tuple(Identifier(kind, value) for kind, value in sorted(found))
