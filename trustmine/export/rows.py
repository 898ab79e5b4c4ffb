"""Reads what is exported: instructions of s4, and function pairs of s1_1.

In the order of repository name, SHA, task and number, which do not depend on
when a row was made: the indexes give that order, so nothing is sorted. Which
commits are left out, and which side the others are on, is the plan's word
(splits.py).
"""

import json
import re
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from trustmine.cparse import comment_above
from trustmine.export.provenance import COLUMNS, Provenance, cursor, provenance, web_address
from trustmine.export.splits import Plan, normalised

_CWE = re.compile(r"CWE-([0-9]{1,6})", re.ASCII)

OF_CODE = frozenset(("pairs", "functions", "gaps"))  # what formats take (SOURCE) that is code, and no examples of s4

Recipes = dict[str, dict[str, str]]  # what `made_by` stands for: stage -> recipe hash


@dataclass(frozen=True, slots=True)
class Example:
    """One instruction, as formats get it."""

    commit_id: int
    task: str
    example_no: int
    split: str
    instruction: str
    input: str
    output: str
    meta: str  # JSON, as stored
    source: Provenance

    @property
    def kind(self) -> str:
        """What it is counted under."""
        return self.task

    @property
    def n_chars(self) -> int:
        """How long it is: question and answer."""
        return len(self.asked) + len(self.output)

    @property
    def key(self) -> str:
        return f"{self.source.repo}/{self.source.commit}/{self.task}/{self.example_no}"

    @property
    def asked(self) -> str:
        """Instruction and input as one turn: templates of several models know no system turn."""
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction

    def provenance(self) -> dict[str, str | None]:
        """The columns that every format adds to its own; a date beyond the calendar is null."""
        source = {**asdict(self.source), "date": self.source.date or None}
        return {"id": self.key, "task": self.task, "split": self.split, **source, "meta": self.meta}

    @staticmethod
    def columns() -> tuple[str, ...]:
        """Their names."""
        return ("id", "task", "split", *COLUMNS, "meta")


@dataclass(frozen=True, slots=True)
class Pair:
    """The function that a fix changes, before and after: of a row with verdict yes that passed s1_1."""

    commit_id: int
    number: int  # from 0, in the order of the export
    split: str
    source: Provenance
    project_url: str  # https://host/owner/name; '' if the repository was not cloned from anywhere
    parent: str  # full SHA of the first parent
    message: str
    old_path: str
    pre_oid: str  # git blob of the whole file
    post_oid: str
    before: str
    after: str
    comment: str  # above the function before the fix, as written; '' if there is none
    deleted: tuple[int, ...]  # lines of `before` from 1
    added: tuple[int, ...]  # lines of `after`
    is_new_before: bool  # no earlier commit of the export has the same function, white space and comments aside
    is_new_after: bool

    @property
    def kind(self) -> str:
        """What it is counted under."""
        return self.vul_type

    @property
    def n_chars(self) -> int:
        """How long it is: the function before the fix."""
        return len(self.before)

    @property
    def cwe(self) -> str:
        """The first of its CWEs: 'CWE-787'; '' if none is known."""
        return self.source.cwe.split(" ")[0]

    @property
    def vul_type(self) -> str:
        """The same as SVEN writes it: 'cwe-787', three digits at least; 'cwe-unknown'."""
        number = _CWE.fullmatch(self.cwe)
        return f"cwe-{int(number[1]):03}" if number else "cwe-unknown"


def _where(tasks: Sequence[str]) -> tuple[str, list[str]]:
    """A condition on instructions AS i, with its values."""
    return (f"i.task IN ({', '.join('?' * len(tasks))})", list(tasks)) if tasks else ("1", [])


def has_examples(conn: sqlite3.Connection, tasks: Sequence[str], plan: Plan) -> bool:
    """Whether there is any."""
    where, values = _where(tasks)
    found = cursor(conn).execute(f"SELECT DISTINCT i.commit_id FROM instructions AS i WHERE {where}", values)
    return any(commit_id in plan.split for (commit_id,) in found)


def examples(conn: sqlite3.Connection, tasks: Sequence[str], plan: Plan, recipes: Recipes) -> Iterator[Example]:
    """The examples in their order; fills `recipes`."""
    where, values = _where(tasks)
    # CROSS JOIN keeps SQLite to this nesting, whose indexes give the order.
    found = cursor(conn).execute(
        f"""SELECT c.id, r.name, c.sha, i.task, i.example_no, i.instruction, i.input, i.output, i.meta
            FROM repos AS r CROSS JOIN commits AS c ON c.repo_id = r.id
            CROSS JOIN instructions AS i ON i.commit_id = c.id
            WHERE {where} ORDER BY r.name, c.sha, i.task, i.example_no""",
        values,
    )
    present, source = None, None
    for commit_id, repo, sha, task, example_no, instruction, given, output, meta in found:
        if commit_id not in plan.split:
            continue
        if source is None or commit_id != present:
            present, source = commit_id, provenance(conn, commit_id, repo, sha, recipes)
        origin = source if task != "benign" else _of_function(conn, source, commit_id, example_no)
        yield Example(commit_id, task, example_no, plan.split[commit_id], instruction, given, output, meta, origin)


def _of_function(conn: sqlite3.Connection, source: Provenance, commit_id: int, example_no: int) -> Provenance:
    """Where the benign function of an example comes from."""
    path, name, licence = (
        cursor(conn)
        .execute(
            "SELECT path, name, licence FROM benign_functions WHERE since_commit_id = ? AND example_no = ?",
            (commit_id, example_no),
        )
        .fetchone()
    )
    return _benign(source, path, name, licence)


def _benign(source: Provenance, path: str, name: str, licence: str) -> Provenance:
    """Where a benign function comes from.

    No answer of a model is behind it, and what its commit may have fixed is not what it is about.
    """
    about = dict.fromkeys(("cve", "cwe", "cwe_source", "cwe_by_model", "requests"), "")
    return replace(source, path=path, function=name, licence=licence, label_source="lifespan", **about)


@dataclass(frozen=True, slots=True)
class Benign:
    """A function in which no vulnerability is known, in the place of a pair: see `trustmine benign`."""

    commit_id: int
    number: int  # from 0, in the order of the export
    split: str
    source: Provenance  # its commit is the one that made the function what it is
    project_url: str
    message: str
    oid: str  # git blob of the file
    code: str
    n_commits: int  # how long it has been as it is
    n_changes: int

    kind = "benign"  # what it is counted under

    @property
    def n_chars(self) -> int:
        """How long it is."""
        return len(self.code)


def functions(conn: sqlite3.Connection, plan: Plan, recipes: Recipes) -> Iterator[Pair | Benign]:
    """The function pairs, then the benign functions that are in none of them; fills `recipes`."""
    seen: set[str] = set()
    number = 0
    for pair in pairs(conn, plan, recipes):
        seen |= {normalised(pair.before, pair.old_path), normalised(pair.after, pair.source.path)}
        number = pair.number + 1
        yield pair
    found = cursor(conn).execute(
        """SELECT c.id, r.name, c.sha, r.url, m.message, b.path, b.name, b.oid, b.text, b.n_commits, b.n_changes,
                  b.licence
           FROM repos AS r CROSS JOIN commits AS c ON c.repo_id = r.id
           CROSS JOIN benign_functions AS b ON b.since_commit_id = c.id CROSS JOIN messages AS m ON m.commit_id = c.id
           ORDER BY r.name, c.sha, b.example_no"""
    )
    for commit_id, repo, sha, url, message, path, name, oid, code, n_commits, n_changes, licence in found:
        if commit_id not in plan.split or (body := normalised(code, path)) in seen:
            continue
        seen.add(body)
        address = web_address(url)
        source = provenance(conn, commit_id, repo, sha, recipes)
        yield Benign(
            commit_id=commit_id,
            number=number,
            split=plan.split[commit_id],
            source=_benign(source, path, name, licence),
            project_url=f"https://{address}" if address else "",
            message=message,
            oid=oid,
            code=code,
            n_commits=n_commits,
            n_changes=n_changes,
        )
        number += 1


def pairs(conn: sqlite3.Connection, plan: Plan, recipes: Recipes) -> Iterator[Pair]:
    """The function pairs in their order; fills `recipes`."""
    found = cursor(conn).execute(
        """SELECT c.id, r.name, c.sha, r.url, c.parents, m.message, f.old_path, f.pre_oid, f.post_oid,
                  f.pre_text, f.post_text, f.pre_first_line, p.content, f.deleted_lines, f.added_lines
           FROM repos AS r CROSS JOIN commits AS c ON c.repo_id = r.id
           CROSS JOIN functions AS f ON f.commit_id = c.id CROSS JOIN messages AS m ON m.commit_id = c.id
           CROSS JOIN verdicts AS v ON v.commit_id = c.id AND v.label = 'yes'
           LEFT JOIN pre_images AS p ON p.oid = f.pre_oid ORDER BY r.name, c.sha"""
    )
    number = 0
    for commit_id, repo, sha, url, parents, message, old_path, pre_oid, post_oid, pre, post, *more in found:
        if commit_id not in plan.split:
            continue
        first_line, whole, deleted, added = more
        address = web_address(url)
        yield Pair(
            commit_id=commit_id,
            number=number,
            split=plan.split[commit_id],
            source=provenance(conn, commit_id, repo, sha, recipes),
            project_url=f"https://{address}" if address else "",
            parent=parents.split(" ")[0],
            message=message,
            old_path=old_path,
            pre_oid=pre_oid,
            post_oid=post_oid,
            before=pre,
            after=post,
            comment="" if whole is None else comment_above(zlib.decompress(whole), first_line),
            deleted=tuple(json.loads(deleted)),
            added=tuple(json.loads(added)),
            is_new_before=(commit_id, "before") in plan.first,
            is_new_after=(commit_id, "after") in plan.first,
        )
        number += 1
