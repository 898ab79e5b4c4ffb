"""Weaknesses by MITRE's Common Weakness Enumeration: names, what stands above them, the Top 25.

Identifiers are written "CWE-787". What is above what is the view Research
Concepts (https://cwe.mitre.org/data/definitions/1000.html), in which every
weakness has one primary parent and maybe others. Only weaknesses that C and
C++ code or its CVE records name are known; see cwe_table.py.
"""

import functools
import re

from trustmine.cwe_table import TABLE

# The 2025 CWE Top 25, in its order: https://cwe.mitre.org/data/definitions/1435.html
TOP_25 = tuple(
    f"CWE-{number}"
    for number in (
        79, 89, 352, 862, 787, 22, 416, 125, 78, 94, 120, 434, 476, 121, 502, 122, 863, 20, 284, 200, 306, 918, 77, 639,
        770,
    )
)  # fmt: skip

_NAMED = re.compile(
    r"(?<![A-Za-z0-9])CWE(?:[-_ ]?ID)?[-_ :#\u2010-\u2015]{0,2}0*([1-9][0-9]{0,5})(?![0-9])", re.IGNORECASE
)
_BARE = re.compile(r"(?<![0-9.-])0*([1-9][0-9]{0,5})(?:\.0*)?(?![0-9.-])")  # 787.0 is what pandas makes of 787
_WRITTEN = re.compile(r"\s*(?:CWE-)?0*([1-9][0-9]{0,5})\s*", re.IGNORECASE)


def read(text: str) -> str | None:
    """The identifier in its one spelling: `cwe-0787` and `787` are CWE-787; None for what is none."""
    found = _WRITTEN.fullmatch(text)
    return f"CWE-{found[1]}" if found else None


def read_all(text: str) -> tuple[str, ...]:
    """All identifiers of a cell, each once, as they come: of `CWE-787: Out-of-bounds Write, 125` CWE-787 and CWE-125.

    Between commas, semicolons, bars and slashes a number counts without `CWE-` if no word stands beside it.
    """
    found: dict[str, None] = {}
    for part in re.split(r"[,;|/]", text):
        numbers = _NAMED.findall(part) or ([] if re.search(r"[^\W\d]", part) else _BARE.findall(part))
        found |= {f"CWE-{number}": None for number in numbers}
    return tuple(found)


def name(cwe: str) -> str | None:
    """`Out-of-bounds Write`; None where it is not known."""
    return _known()[cwe][1] if cwe in _known() else None


def ancestors(cwe: str) -> tuple[str, ...]:
    """All weaknesses above it, nearest first, by whatever way is shortest; none where it is not known."""
    found: dict[str, None] = {}
    level = [cwe]
    while level:
        level = [parent for one in level for parent in _parents(one) if parent not in found]
        found |= dict.fromkeys(level)
    return tuple(found)


def top_level(cwe: str) -> str | None:
    """The pillar that it belongs to by its primary parents, as CWE-664 for CWE-787; a pillar is its own.

    None where it is not known, and for the old categories, which are no weaknesses.
    """
    if cwe not in _known():
        return None
    while parents := _parents(cwe):
        cwe = parents[0]
    return cwe if cwe in _PILLARS else None


def in_top25(cwe: str) -> bool:
    """Whether it is one of the Top 25 itself; what stands below one of these is not."""
    return cwe in TOP_25


# https://cwe.mitre.org/data/definitions/1000.html: the ten without a parent.
_PILLARS = frozenset(f"CWE-{number}" for number in (284, 435, 664, 682, 691, 693, 697, 703, 707, 710))


def _parents(cwe: str) -> tuple[str, ...]:
    return _known()[cwe][0] if cwe in _known() else ()


@functools.cache
def _known() -> dict[str, tuple[tuple[str, ...], str]]:
    """Identifier -> parents, primary first, and name."""
    found = {}
    for line in TABLE.splitlines():
        number, parents, name = line.split(" ", 2)
        above = () if parents == "-" else tuple(f"CWE-{parent}" for parent in parents.split(","))
        found[f"CWE-{number}"] = (above, name)
    return found
