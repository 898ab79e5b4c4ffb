"""Which keywords and which identifiers of vulnerabilities and reports a commit message holds.

Mode `substring` finds a keyword exactly where `git log -i -F --grep=KEYWORD`
finds it in a UTF-8 locale: anywhere, letters compared by simple case folding
(one character to one: "K", "k" and the Kelvin sign are the same, "ß" and "ss"
are not). Unlike git, which stops reading a message at a NUL, all of it counts.
Mode `word` asks besides that no letter, digit or underscore touches the
keyword, mode `start` that none stands before it: "fix" finds "fixes" but not
"prefix", "race" not "trace". A hyphen is no letter: "free" is a word of
"use-after-free", and "use-after-free" one of "(use-after-free)".

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
OFFICIAL = ("CVE", "GHSA", "CWE")
_STARTS = tuple(f"{kind.lower()}-" for kind in OFFICIAL)
# What else tells that a commit answers a report, by kind; group 1 is the value. OSV's and OSS-Fuzz's identifiers
# (https://osv.dev, https://google.github.io/oss-fuzz/); pages of bounty programmes and numbers of
# research teams; issues of the usual trackers. "Closes #12" is left out: it names a pull request as often as an issue.
_HOST = r"[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}"
_MORE = {
    kind: re.compile(pattern, re.IGNORECASE)
    for kind, pattern in {
        "OSV": r"(?<!\w)(OSV-[0-9]{4}-[0-9]{1,19})(?!\w)",
        "OSS-Fuzz": r"(?<!\w)(?:issues\.oss-fuzz\.com/issues/|bugs\.chromium\.org/p/oss-fuzz/issues/detail\?id=|"
        r"oss-?fuzz(?: (?:issue|bug|id))?[ :/#]{1,3})([0-9]{3,19})(?!\w)|"
        r"(?<!\w)([0-9]{3,19})/clusterfuzz-testcase-",
        "report": r"(?<![\w.])((?:hackerone\.com/reports|(?:www\.)?huntr\.(?:dev|com)/bounties|"
        r"bugcrowd\.com/submissions|syzkaller\.appspot\.com|"
        r"talosintelligence\.com/vulnerability_reports|zerodayinitiative\.com/advisories)"
        r"[/?][^\s<>\"')\]]{1,200})|(?<!\w)(TALOS-[0-9]{4}-[0-9]{3,6}|ZDI-CAN-[0-9]{3,6}|ZDI-[0-9]{2}-[0-9]{3,6}|"
        r"GHSL-[0-9]{4}-[0-9]{2,6})(?!\w)",
        "issue": r"(?<!\w)(?:fix(?:e[sd])?|resolve[sd]?):? {1,2}(?:issue |bug )?(#[0-9]{1,19})(?!\w)|"
        rf"(?<![\w.])({_HOST}/(?:[\w.~-]{{1,80}}/){{0,6}}?issues/(?:detail\?id=)?[0-9]{{1,19}})(?!\w)|"
        rf"(?<![\w.])({_HOST}/(?:[\w.~-]{{1,80}}/){{0,3}}?show_bug\.cgi\?id=[0-9]{{1,19}})(?!\w)|"
        r"(?<![\w.])(crbug\.com/[0-9]{1,19})(?!\w)",
    }.items()
}


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
        if mode not in ("substring", "start", "word"):
            raise ValueError(f"unknown match mode {mode!r}")
        if not all(keywords):
            raise ValueError("a keyword is empty")
        self._mode = mode
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
            if (self._mode == "substring" or _starts_word(folded, start))
            and (self._mode != "word" or _ends_word(folded, end))
        }
        return tuple(self._keywords[place] for place in sorted(place for n in found for place in self._places[n]))


def _starts_word(text: str, start: int) -> bool:
    """Whether no word goes on into the match."""
    return not (start > 0 and _in_word(text[start - 1]) and _in_word(text[start]))


def _ends_word(text: str, end: int) -> bool:
    """Whether no word goes on after the match."""
    return not (end < len(text) and _in_word(text[end - 1]) and _in_word(text[end]))


def _in_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def find_identifiers(message: str, kinds: Sequence[str] = OFFICIAL) -> tuple[Identifier, ...]:
    """Identifiers in the message, sorted, each once; none inside a longer word.

    CVE, GHSA and CWE in their official spelling, OSV in capitals, OSS-Fuzz by
    its number, issues as `#12` or by their address without its scheme.
    """
    found = set()
    folded = fold(message)  # most messages hold none: that is told without a regular expression
    for match in _IDENTIFIER.finditer(message) if any(start in folded for start in _STARTS) else ():
        if match["ghsa"]:
            found.add(("GHSA", "GHSA-" + match["ghsa"].lower()))
        elif match["cwe"]:
            found.add(("CWE", f"CWE-{int(match['cwe'])}"))
        else:
            found.add(("CVE", f"CVE-{match['year']}-{match['number']}"))
    for kind in kinds:
        for match in _MORE[kind].finditer(message) if kind in _MORE else ():
            value = next(group for group in match.groups() if group)
            found.add((kind, value.upper() if kind == "OSV" else value.rstrip(".,;:")))
    return tuple(Identifier(kind, value) for kind, value in sorted(found) if kind in kinds)
