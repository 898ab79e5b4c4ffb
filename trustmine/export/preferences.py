"""Better and worse answers to the same question, for preference tuning.

The better one is the instruction's own. The worse one is what the database
holds against it:

- infill: the code that the fix took away;
- refine: the function as it was, vulnerable;
- calibrate: the verdict that is true of the commit's other candidate;
- locate: lines that the model pointed at and the fix does not touch.

Where there is none (or it reads like the better one), the instruction has a
better answer alone. Nothing is made up.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trustmine import samples
from trustmine.export.provenance import Provenance, cursor
from trustmine.export.rows import Example, Recipes, examples
from trustmine.export.splits import Plan
from trustmine.prompts import fenced


@dataclass(frozen=True, slots=True)
class Preference:
    """An instruction, and a worse answer than its output if there is one."""

    example: Example
    worse: str | None

    @property
    def kind(self) -> str:
        return self.example.kind

    @property
    def n_chars(self) -> int:
        return self.example.n_chars

    @property
    def split(self) -> str:
        return self.example.split

    @property
    def source(self) -> Provenance:
        return self.example.source

    @property
    def prompt(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.example.asked}]


def preferences(conn: sqlite3.Connection, tasks: Sequence[str], plan: Plan, recipes: Recipes) -> Iterator[Preference]:
    """One per instruction, in their order."""
    for example in examples(conn, tasks, plan, recipes):
        find = _WORSE.get(example.task)
        worse = find(conn, example) if find is not None else None
        yield Preference(example, worse if worse is not None and worse.strip() != example.output.strip() else None)


def answer(text: str) -> list[dict[str, str]]:
    """The text as the assistant's turn."""
    return [{"role": "assistant", "content": text}]


def _removed(conn: sqlite3.Connection, example: Example) -> str | None:
    found = cursor(conn).execute(
        "SELECT removed, old_path FROM masks JOIN functions USING (commit_id) WHERE commit_id = ?", (example.commit_id,)
    )
    return next((_code(code, path) for code, path in found), None)


def _vulnerable(conn: sqlite3.Connection, example: Example) -> str | None:
    found = cursor(conn).execute("SELECT pre_text, old_path FROM functions WHERE commit_id = ?", (example.commit_id,))
    return next((_code(code, path) for code, path in found), None)


def _other_verdict(conn: sqlite3.Connection, example: Example) -> str | None:
    removes = json.loads(example.meta).get("removes")
    found = cursor(conn).execute(
        "SELECT output, meta FROM instructions WHERE commit_id = ? AND task = 'calibrate' ORDER BY example_no",
        (example.commit_id,),
    )
    others = ((output, json.loads(meta).get("removes")) for output, meta in found)
    return next((output for output, other in others if isinstance(removes, bool) and other is (not removes)), None)


def _untouched(conn: sqlite3.Connection, example: Example) -> str | None:
    taught = json.loads(example.meta).get("segments", [])
    found = cursor(conn).execute(
        """SELECT s.first_line, s.last_line, s.snippet, f.old_path
           FROM segments AS s JOIN functions AS f ON f.commit_id = s.commit_id
           WHERE s.commit_id = ? AND s.n_fix_lines = 0 ORDER BY s.segment_no""",
        (example.commit_id,),
    )
    parts = [
        f"{samples.span(first, last).capitalize()}:\n\n{_code(snippet, path)}"
        for first, last, snippet, path in found
        if [first, last] not in taught
    ]
    return "\n\n".join(parts) or None


def _code(text: str, path: str) -> str:
    return fenced(text, samples.language(path))


_WORSE = {"infill": _removed, "refine": _vulnerable, "calibrate": _other_verdict, "locate": _untouched}
