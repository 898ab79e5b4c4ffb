"""How promising a commit is before any model has read it: five parts and their sum.

Pure functions over what s0_1 and s0_2 know: the message, the identifiers
found in it, the patch as text, the files it touches. The sum orders the queue
and decides nothing else: no row is rejected by it.

Every weight below is half a point or a multiple, set by hand from what is
published; none is fitted to a list of known fixes:

- Messages: tiers of words, Zhou and Sharma (ESEC/FSE 2017, "Automated
  identification of security issues from commit messages and bug reports");
  words for C, https://github.com/cve-search/git-vuln-finder. Words that speak
  against a fix: Tian, Lawall and Lo (ICSE 2012, "Identifying Linux bug fixing
  patches").
- Shape: kinds of change that security patches of C and C++ are made of (bound
  checks, null checks, other checks, calls, jumps), Wang et al. (DSN 2021,
  "PatchDB").
- Size: security fixes touch less code than other bug fixes, Li and Paxson
  (CCS 2017, "A large-scale empirical study of security patches").

Looking at the histories of curl, vim, tcpdump and gpac settled what these
leave open: no small size is better than another, a changed integer type says
nothing, and the shape as a whole weighs less than one strong word.

Time is linear in message and patch, whatever they hold: words are found by an
Aho-Corasick automaton, and a line of code is looked at up to LINE_CHARS.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ahocorasick_rs import AhoCorasick, MatchKind

from trustmine.errors import SettingsError
from trustmine.keywords import fold
from trustmine.records import DiffFile, Identifier, Priority

# identifiers: the clearest one counts. A CVE or GHSA names a vulnerability, a CWE a kind of weakness; a report by a
# bug hunter, a bounty or a fuzzing service is about a defect that input from outside can reach.
# Links to issues of any kind, which the setting identifier_kinds may also collect, say nothing.
REPORTED = 3.0
IDENTIFIED = {"CVE": 6.0, "GHSA": 6.0, "CWE": 4.0, "OSV": REPORTED, "OSS-Fuzz": REPORTED, "report": REPORTED}
# vocabulary: the strongest tier counts, so that long messages gain nothing by length; one more word of the two
# upper tiers confirms it. A word in the subject that speaks against a fix takes off as much as a middle tier gives.
STRONG, MEDIUM, WEAK, CONFIRMED, UNLIKELY = 4.0, 2.0, 1.0, 1.0, -2.0
# shape: half a point for each kind of change, and one for a range check, the cure for most of C's memory errors. All
# together stay below one strong word: what people say of a change is clearer than what it looks like.
GUARD, BOUNDS, NULL_CHECK, EARLY_EXIT, MEMORY_CALL, CLEARED = 0.5, 1.0, 0.5, 0.5, 0.5, 0.5
NO_CODE = -3.0  # nothing but comments, white space and #include changes
# size: changed lines of code up to this number, and what that gives. It holds large changes back and prefers none of
# the small ones: a one-line change is as often a constant put right as a check put in.
SIZES = ((15, 0.5), (30, 0.0), (60, -0.5))
LARGE = -1.0
# place: code that is not shipped; declarations alone.
ASIDE, HEADER = -3.0, -0.5

LINE_CHARS = 400  # of a longer line the rest is data, not code

_URL = re.compile(r"https?://\S+")
_NO_WORD = re.compile(r"[^\w]+")
_REPORT = re.compile(
    r"\boss-?fuzz\b|\bosv-[0-9]{4}-|\btalos-[0-9]{4}-|\bsecurity advisor|\bsecurity/advisories|\bhackerone\b|\bhuntr\b"
)
# Tests and fuzz targets by any part of the path; the others only as folders: doc.c and sample.c are shipped somewhere.
_ASIDE = re.compile(
    r"(?:^|[/_.-])(?:tests?|testing|testdir|testsuite|unittests?|fuzz\w{0,10})(?=[/_.-])"
    r"|^(?:docs?|samples?|demos?)/|(?:^|/)examples?/"
)
_HEADERS = (".h", ".hh", ".hpp", ".hxx")

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NO_CODE = ("//", "/*", "* ", "*/", "#include")
_NAME = re.compile(r"\b[A-Za-z_]\w*+")
_CALL = re.compile(r"\b([A-Za-z_]\w*+)[ ]?\(")
_COMPARE = re.compile(r"(?<![-<>])[<>]=?(?![<>=])")
_NULL_CHECK = re.compile(r"[!=]= ?(?:NULL|nullptr)\b|\b(?:NULL|nullptr) ?[!=]=|![ ]?[A-Za-z_]")
_CLEARED = re.compile(r"[^=!<>]= ?(?:NULL|nullptr) ?;")
_CONDITION = re.compile(r"\b(?:if|while)\b|&&|\|\|| \? ")
_LEAVES = frozenset(("return", "goto", "break", "continue", "throw"))
_MEMORY = ("alloc", "free", "memcpy", "memmove", "memset", "memcmp", "strcpy", "strcat", "strdup", "strncpy", "strncat",
           "strlcpy", "strlcat", "sprintf", "snprintf", "scanf", "sizeof")  # fmt: skip


# ------------------------------------------------------------------------------- words


@dataclass(frozen=True, slots=True)
class Words:
    """One list of words, ready to be found. "overflow*" has any ending; a space stands for what parts two words."""

    automaton: AhoCorasick
    words: tuple[str, ...]
    tiers: tuple[int, ...]  # per word: which of the lists it comes from

    def find(self, text: str) -> list[tuple[int, str]]:
        """(tier, word) of each word in the normal form of a text, longest match first at each place, in its order."""
        return [
            (self.tiers[number], self.words[number]) for number, _, _ in self.automaton.find_matches_as_indexes(text)
        ]


@lru_cache(maxsize=8)
def words(*tiers: tuple[str, ...]) -> Words:
    """The words of several lists in one automaton; a word of two lists belongs to the first. Raises SettingsError."""
    numbered: dict[str, tuple[str, int]] = {}
    for tier, entries in enumerate(tiers):
        for entry in entries:
            pattern = normal(entry.removesuffix("*"))
            if not pattern.strip():
                raise SettingsError(
                    f"A word to look for has no letter: {entry!r}", "*_words", "See: trustmine settings"
                )
            numbered.setdefault(pattern.rstrip(" ") if entry.endswith("*") else pattern, (entry, tier))
    automaton = AhoCorasick(list(numbered), matchkind=MatchKind.LeftmostLongest)
    return Words(automaton, tuple(w for w, _ in numbered.values()), tuple(t for _, t in numbered.values()))


def normal(text: str) -> str:
    """Words of a text in lower case, each with a space of its own on either side; nothing else."""
    return f" {_NO_WORD.sub('  ', fold(text).strip())} "


# ------------------------------------------------------------------------------- parts


def rank(
    message: str,
    identifiers: Sequence[Identifier],
    patch: str,
    files: Sequence[DiffFile],
    *,
    strong: tuple[str, ...],
    medium: tuple[str, ...],
    weak: tuple[str, ...],
    unlikely: tuple[str, ...],
) -> Priority:
    """The priority of a commit. `patch` is the text of its `files` as git prints it; the others are lists of words."""
    found: list[str] = []
    change = changed_code(patch)
    parts = (
        _identified(message, identifiers, found),
        _spoken(message, words(strong, medium, weak), words(unlikely), found),
        _shaped(change, found),
        _sized(len(change.added) + len(change.deleted)),
        _placed(files, found),
    )
    return Priority(sum(parts), *parts, tuple(found))


def _identified(message: str, identifiers: Sequence[Identifier], found: list[str]) -> float:
    telling = (known for known in identifiers if known.kind in IDENTIFIED)
    best = max(telling, key=lambda known: IDENTIFIED[known.kind], default=None)
    if best is not None:
        found.append(best.value)
        return IDENTIFIED[best.kind]
    if report := _REPORT.search(fold(message)):
        found.append(report[0])
        return REPORTED
    return 0.0


def _spoken(message: str, likely: Words, unlikely: Words, found: list[str]) -> float:
    text = normal(_URL.sub(" ", message))
    subject = normal(message.lstrip().partition("\n")[0])
    by_tier: dict[int, list[str]] = {}
    for tier, word in likely.find(text):
        by_tier.setdefault(tier, []).append(word)
    against = [word for _, word in unlikely.find(subject)]
    score = 0.0
    if by_tier:
        best = min(by_tier)
        score = (STRONG, MEDIUM, WEAK)[best]
        distinct = list(dict.fromkeys(by_tier.get(0, []) + by_tier.get(1, [])))
        score += CONFIRMED * (len(distinct) > 1)
        found += distinct[:2] or by_tier[best][:1]
    if against:
        score += UNLIKELY
        found.append(f"not: {against[0]}")
    return score


# ---------------------------------------------------------------------- the shape of the change


@dataclass(frozen=True, slots=True)
class Change:
    """What a patch does to code: lines without white space around them, comments, #include, and lines that moved."""

    added: list[str]
    deleted: list[str]
    is_code: bool  # False if nothing but white space, line breaks, comments and #include changes


def changed_code(patch: str) -> Change:
    """The change of all files of a patch together."""
    sides: dict[str, list[str]] = {"+": [], "-": []}
    in_hunk = False
    for line in patch.split("\n"):
        mark = line[:1]
        if mark == "@":
            in_hunk = True
        elif mark == "d" and line.startswith("diff --git "):
            in_hunk = False
        elif in_hunk and mark in sides:
            code = line[1:].strip()
            if code and not code.startswith(_NO_CODE):
                sides[mark].append(code)
    before, after = ("".join("".join(sides[mark]).split()) for mark in "-+")
    deleted, added = (Counter(sides[mark]) for mark in "-+")
    return Change(list((added - deleted).elements()), list((deleted - added).elements()), before != after)


@dataclass(slots=True)
class _Side:
    """What the changed lines of one side hold, counted."""

    conditions: int = 0
    comparisons: int = 0
    null_checks: int = 0
    leaves: int = 0
    cleared: int = 0
    memory_calls: int = 0


def _counted(lines: Sequence[str]) -> _Side:
    side = _Side()
    for whole in lines:
        if whole.startswith("#"):
            continue  # decided when it is compiled
        line = _STRING.sub('""', whole[:LINE_CHARS])
        names = _NAME.findall(line)
        conditions = len(_CONDITION.findall(line))
        side.conditions += conditions
        if "for" not in names:
            side.comparisons += len(_COMPARE.findall(line)) * (conditions > 0 or "return" in names)
        side.null_checks += len(_NULL_CHECK.findall(line)) * (conditions > 0)
        side.leaves += sum(name in _LEAVES for name in names)
        side.cleared += len(_CLEARED.findall(line))
        side.memory_calls += sum(any(part in name.lower() for part in _MEMORY) for name in _CALL.findall(line))
    return side


def _shaped(change: Change, found: list[str]) -> float:
    if not change.is_code:
        found.append("not: no code changes")
        return NO_CODE
    new, old = _counted(change.added), _counted(change.deleted)
    kinds = (
        ("guard", GUARD, new.conditions > old.conditions),
        ("bounds", BOUNDS, new.comparisons > old.comparisons),
        ("null check", NULL_CHECK, new.null_checks > old.null_checks),
        ("early exit", EARLY_EXIT, new.leaves > old.leaves and new.conditions > old.conditions),
        ("memory call", MEMORY_CALL, new.memory_calls + old.memory_calls > 0),
        ("pointer cleared", CLEARED, new.cleared > old.cleared),
    )
    found += [name for name, _, holds in kinds if holds]
    return sum((weight for _, weight, holds in kinds if holds), 0.0)


def _sized(n_lines: int) -> float:
    return next((score for most, score in SIZES if n_lines <= most), LARGE)


def _placed(files: Sequence[DiffFile], found: list[str]) -> float:
    paths = [file.new_path.lower() for file in files]
    shipped = [path for path in paths if not _ASIDE.search(path)]
    if not shipped:
        found.append("not: tests, examples or documentation")
        return ASIDE
    return HEADER if all(path.endswith(_HEADERS) for path in shipped) else 0.0
