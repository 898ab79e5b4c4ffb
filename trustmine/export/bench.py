"""bench: JSON Lines, TRUST-Bench: a fix from the cutoff on that has a CVE, as a gap to fill.

What is masked is what the model named as risky, where one was asked, named one
block alone, and the fix changes nothing outside of it; else what the fix
changes: the shortest run of whole statements of one block, in both versions,
outside of which they are the same. The gap is in the fixed function, so what
belongs there is the fixed code, and with the old code in it the function is the
vulnerable one. Context is what s2_2 kept and the vulnerable code uses; what only
the fix uses would give it away.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trustmine import cwe, masking
from trustmine.cparse import statement_ranges
from trustmine.export.files import JsonLines
from trustmine.export.provenance import Provenance, cursor
from trustmine.export.rows import Pair, Recipes, pairs
from trustmine.export.splits import LeftOut, Plan
from trustmine.lines import LineRange, split_lines

NAME, SOURCE = "bench", "gaps"
COLUMNS = {
    "id": "`repo/commit`, unique; what answers are about",
    "repo": "the repository",
    "commit": "full SHA of the fix",
    "date": "of the commit, UTC; null if it is beyond the calendar",
    "cve": "list of CVE identifiers",
    "cwe": "list of CWE identifiers",
    "cwe_source": "who names them: `label` (a list of known fixes), else `message`, else `model`; empty if nobody",
    "cwe_class": "pillar of CWE's research view that the first of them belongs to",
    "cwe_class_name": "its name",
    "path": "file after the fix",
    "function": "name of the function",
    "masked_function": "the fixed function with `<MASK_1>` on a line of its own",
    "masked_by": "`model` (the block that it named as risky) or `fix` (the statements that it changes)",
    "context": "`callees`, `macros`, `types`, `globals`: name, path, first_line, last_line, definition, is_cut of each",
    "vulnerable": "what stood in place of the mask before the fix",
    "fixed": "what stands there after it",
    "licence": "SPDX expression of the file's licence at the commit, or `unknown`",
    "label_source": "who says it is a fix: `model`, or a list of known fixes",
    "made_by": "key in the manifest",
}
# Lists of the context, by the kinds of elements in them; members are part of a type.
LISTS = {
    "callees": ("function",),
    "macros": ("macro", "constant"),
    "types": ("struct", "union", "enum", "typedef"),
    "globals": ("variable", "pointer variable"),
}
_ITEM = (("name", "string"), ("path", "string"), ("first_line", "int64"), ("last_line", "int64"))
_ITEMS = [{"name": name, "dtype": dtype} for name, dtype in (*_ITEM, ("definition", "string"), ("is_cut", "bool"))]
TYPES = {
    "cve": {"list": "string"},
    "cwe": {"list": "string"},
    "context": {"struct": [{"name": name, "list": _ITEMS} for name in LISTS]},
}
open_file = JsonLines

# Why a fix is left out.
HOLDS_MASK = "holds_mask"
WHOLE = "mask_whole_function"


@dataclass(frozen=True, slots=True)
class Gap:
    """A pair with what the database knows of its gap and its context."""

    pair: Pair
    by_model: tuple[str, str, str] | None  # masked function, vulnerable, fixed; None: what the fix changes is masked
    context: dict[str, list[dict[str, object]]]

    @property
    def split(self) -> str:
        return self.pair.split

    @property
    def n_chars(self) -> int:
        return self.pair.n_chars

    @property
    def kind(self) -> str:
        return self.pair.kind

    @property
    def source(self) -> Provenance:
        return self.pair.source


def gaps(conn: sqlite3.Connection, plan: Plan, recipes: Recipes) -> Iterator[Gap]:
    """One per fix of the plan, in the order of the export."""
    for pair in pairs(conn, plan, recipes):
        yield Gap(pair, _by_model(conn, pair), _context(conn, pair.commit_id))


def _by_model(conn: sqlite3.Connection, pair: Pair) -> tuple[str, str, str] | None:
    """The gap that the model named; None if it named none, or not all of the fix is in it.

    What the fix changes elsewhere would stand around the gap and tell what belongs there, and the old
    code in such a gap would be a function that never was.
    """
    found = cursor(conn).execute(
        """SELECT masked_post, removed, fixed
           FROM merged_masks JOIN masks USING (commit_id) JOIN masked_functions USING (commit_id)
           WHERE commit_id = ? AND request_hash IS NOT NULL""",
        (pair.commit_id,),
    )
    for masked, vulnerable, fixed in found:
        if masking.unmask(masked, [vulnerable]) == pair.before:
            return masked, vulnerable, fixed
    return None


def place(gap: Gap) -> str:
    return f"{gap.split}.jsonl"


def rows(gap: Gap) -> Iterator[dict[str, object]]:
    """One row; raises LeftOut."""
    source = gap.source
    masked, vulnerable, fixed = gap.by_model or by_fix(gap.pair.before, gap.pair.after, gap.pair.old_path, source.path)
    pillar = cwe.top_level(gap.pair.cwe) or ""
    yield {
        "id": f"{source.repo}/{source.commit}",
        "repo": source.repo,
        "commit": source.commit,
        "date": source.date or None,
        "cve": source.cve.split(),
        "cwe": source.cwe.split(),
        "cwe_source": source.cwe_source,
        "cwe_class": pillar,
        "cwe_class_name": cwe.name(pillar) or "",
        "path": source.path,
        "function": source.function,
        "masked_function": masked,
        "masked_by": "fix" if gap.by_model is None else "model",
        "context": gap.context,
        "vulnerable": vulnerable,
        "fixed": fixed,
        "licence": source.licence,
        "label_source": source.label_source,
        "made_by": source.made_by,
    }


def by_fix(before: str, after: str, old_path: str, path: str) -> tuple[str, str, str]:
    """The function after the fix with what it changes masked, and that before and after. Raises LeftOut.

    One side is empty where the fix only adds or only takes away.
    """
    if masking.holds_mask(before) or masking.holds_mask(after):
        raise LeftOut(HOLDS_MASK)
    old, new = split_lines(before), split_lines(after)
    top, bottom = _common(old, new), _common(old[::-1], new[::-1])
    shorter, longer = sorted((len(old), len(new)))
    may_be_masked = frozenset(statement_ranges(before.encode(), old_path))
    found: list[tuple[int, int, int]] = []  # lines in the gap; lines above and below it
    for mine, other, ranges, others in (
        (new, old, statement_ranges(after.encode(), path), may_be_masked),
        (old, new, may_be_masked, frozenset[LineRange]()),  # the fix only takes them away
    ):
        for lines in ranges:
            above, below = lines.first_line - 1, len(mine) - lines.last_line
            across = LineRange(above + 1, len(other) - below)
            is_same_outside = above <= top and below <= bottom and above + below <= shorter
            if is_same_outside and (across.last_line < across.first_line or across in others):
                found.append((longer - above - below, above, below))
    if not found:
        raise LeftOut(WHOLE)
    _, above, below = min(found)
    gap = LineRange(above + 1, len(new) - below)
    return masking.mask(after, [gap]), "".join(old[above : len(old) - below]), "".join(new[above : len(new) - below])


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many lines both begin with."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _context(conn: sqlite3.Connection, commit_id: int) -> dict[str, list[dict[str, object]]]:
    found = cursor(conn).execute(
        """SELECT e.kind, e.name, e.def_path, e.def_first_line, e.def_last_line, e.definition, i.n_chars
           FROM context_items AS i JOIN elements AS e ON e.commit_id = i.commit_id AND e.name = i.name
           WHERE i.commit_id = ? AND i.n_chars > 0 AND e.in_pre ORDER BY i.item_no""",
        (commit_id,),
    )
    lists: dict[str, list[dict[str, object]]] = {name: [] for name in LISTS}
    for kind, name, path, first_line, last_line, definition, n_chars in found:
        for listed in (listed for listed, kinds in LISTS.items() if kind in kinds):
            lists[listed].append(
                {
                    "name": name,
                    "path": path,
                    "first_line": first_line,
                    "last_line": last_line,
                    "definition": definition[:n_chars],
                    "is_cut": n_chars < len(definition),
                }
            )
    return lists
