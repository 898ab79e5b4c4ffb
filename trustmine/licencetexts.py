"""Which licence a text is, or holds, where its words are not exactly those of the licence: an SPDX identifier.

licenseclassifier takes a text for a licence only if every word is right; a
licence with another name or address in it is none to it (Vim's own has a
maintainer's). Here the runs of WORDS words that a text shares with each of
the classifier's templates are counted, as GitHub's licensee compares words
(https://github.com/licensee/licensee, Sorensen-Dice). What a template leaves
open or optional is in no run. Nothing is said if two licences come close.
"""

import gzip
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise

WORDS = 4  # of a run
MIN_SHARE = 0.9  # of a template's runs that the text must have
MIN_COVERED = 0.85  # of the words from the first of them to the last that must be in one
MARGIN = 0.02  # of either, by which the second best must be worse
RELATED = 0.9  # of its runs, optional ones included, that another template has: told apart by a few words, if at all
MIN_RUNS = 40  # of a template; shorter ones are notices, which say too little to be recognised by parts
MAX_GAP = 50  # words between two runs of one licence

_WORD = re.compile(r"[^\W_]+")
_COMMENT = re.compile(r"//\*\*.*?\*\*//", re.DOTALL)
_MARK = re.compile(r"\(\(|\)\)(?:\?\?)?|__\d+__|\|\|")

Run = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A licence in a text: where its first word begins and its last one ends, in characters."""

    id: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Template:
    id: str
    runs: Counter[Run]  # of its fixed parts
    all_runs: frozenset[Run]  # of its optional parts too


@dataclass(frozen=True, slots=True)
class _Library:
    templates: list[_Template]
    holders: dict[Run, list[int]]  # places of the templates that have a run in a fixed part


def similar(text: str) -> Found | None:
    """The one licence that the text holds nearly word for word, whatever stands around it; None if there is none."""
    library = _library()
    words = [(match[0], match.start(), match.end()) for match in _WORD.finditer(text.lower())]
    runs = _runs_of([word for word, _, _ in words])
    places: dict[int, list[int]] = defaultdict(list)
    for place, run in enumerate(runs):
        for number in library.holders.get(run, ()):
            places[number].append(place)
    scored = []
    for number, at in places.items():
        template = library.templates[number]
        if len(at) >= MIN_SHARE * template.runs.total():
            at = _longest_stretch(at)
            share = (Counter(runs[place] for place in at) & template.runs).total() / template.runs.total()
            covered = len({place + i for place in at for i in range(WORDS)}) / (at[-1] + WORDS - at[0])
            if share >= MIN_SHARE and covered >= MIN_COVERED:
                scored.append((share + covered, template, at[0], at[-1] + WORDS - 1))
    best = max(scored, key=lambda one: one[0], default=None)
    if (
        best is None
        or _is_doubtful(best[1])
        or any(score > best[0] - MARGIN and template.id != best[1].id for score, template, _, _ in scored)
    ):
        return None
    return Found(best[1].id, words[best[2]][1], words[best[3]][2])


def _is_doubtful(template: _Template) -> bool:
    """Whether there is another licence of nearly the same words."""
    return any(
        other.id != template.id
        and len(template.all_runs & other.all_runs) >= RELATED * min(len(template.all_runs), len(other.all_runs))
        for other in _library().templates
    )


def _longest_stretch(places: list[int]) -> list[int]:
    """The part of these with the most of them in which no two neighbours are far apart."""
    cuts = [i for i in range(1, len(places)) if places[i] - places[i - 1] > MAX_GAP]
    return max((places[a:b] for a, b in pairwise([0, *cuts, len(places)])), key=len)


@cache
def _library() -> _Library:
    packed = resources.files("licenseclassifier").joinpath("_engine/licenses.json.gz").read_bytes()
    library = _Library([], defaultdict(list))
    for entry in json.loads(gzip.decompress(packed)):
        fixed, whole = _parts(entry.get("lre") or "")
        runs = Counter(run for part in fixed for run in _runs_of(_WORD.findall(part.lower())))
        if runs.total() >= MIN_RUNS:
            for run in runs:
                library.holders[run].append(len(library.templates))
            all_runs = frozenset(_runs_of(_WORD.findall(whole.lower())))
            library.templates.append(_Template(entry["id"], runs, all_runs))
    return library


def _parts(template: str) -> tuple[list[str], str]:
    """What stands fixed between a template's marks, and all of it."""
    template = _COMMENT.sub(" ", template)
    fixed, depth, at = [], 0, 0
    for mark in _MARK.finditer(template):
        if depth == 0:
            fixed.append(template[at : mark.start()])
        depth += (mark[0] == "((") - mark[0].startswith("))")
        at = mark.end()
    fixed.append(template[at:])
    return fixed, _MARK.sub(" ", template)


def _runs_of(words: list[str]) -> list[Run]:
    return [tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)]
