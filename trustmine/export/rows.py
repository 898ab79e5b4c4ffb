"""Reads the instructions, each with all that leads back to where it came from.

In the order of repository name, SHA, task and number, which do not depend on
when a row was made: the indexes give that order, so nothing is sorted.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the instructions of one commit come from.

    All strings, never null: loaders that guess a column's type from the first
    rows guess right.
    """

    repo: str
    commit: str  # full SHA
    path: str  # file after the fix; '' if the commit did not get as far as a function
    function: str
    cve: str  # separated by a space; '' if none is known
    cwe: str  # from the message or a list of known fixes
    cwe_by_model: str
    label_source: str  # 'model', or the list that says it is a fix
    made_by: str  # key in the manifest: the recipe of every stage
    requests: str  # 'stage:request_hash' of the answers behind the row, separated by a space


@dataclass(frozen=True, slots=True)
class Example:
    """One instruction, as formats get it."""

    task: str
    example_no: int
    split: str
    instruction: str
    input: str
    output: str
    meta: str  # JSON, as stored
    source: Provenance

    def provenance(self) -> dict[str, str]:
        """The columns that every format adds to its own."""
        source = {f.name: getattr(self.source, f.name) for f in fields(Provenance)}
        key = f"{self.source.repo}/{self.source.commit}/{self.task}/{self.example_no}"
        return {"id": key, "task": self.task, "split": self.split, **source, "meta": self.meta}


def _where(tasks: Sequence[str], split: str | None) -> tuple[str, list[str]]:
    """A condition on instructions AS i, with its values."""
    clauses, values = ["1"], list(tasks)
    if tasks:
        clauses.append(f"i.task IN ({', '.join('?' * len(tasks))})")
    if split is not None:
        clauses.append("i.split = ?")
        values.append(split)
    return " AND ".join(clauses), values


def count(conn: sqlite3.Connection, tasks: Sequence[str], split: str | None) -> int:
    """How many examples there are."""
    where, values = _where(tasks, split)
    (n,) = _cursor(conn).execute(f"SELECT count(*) FROM instructions AS i WHERE {where}", values).fetchone()
    return int(n)


def examples(
    conn: sqlite3.Connection, tasks: Sequence[str], split: str | None, recipes: dict[str, dict[str, str]]
) -> Iterator[Example]:
    """The examples in their order; fills `recipes` with what `made_by` stands for: stage -> recipe hash."""
    where, values = _where(tasks, split)
    # CROSS JOIN keeps SQLite to this nesting, whose indexes give the order.
    found = _cursor(conn).execute(
        f"""SELECT c.id, r.name, c.sha, i.task, i.example_no, i.split, i.instruction, i.input, i.output, i.meta
            FROM repos AS r CROSS JOIN commits AS c ON c.repo_id = r.id
            CROSS JOIN instructions AS i ON i.commit_id = c.id
            WHERE {where} ORDER BY r.name, c.sha, i.task, i.example_no""",
        values,
    )
    present, source = None, None
    for commit_id, repo, sha, task, example_no, part, instruction, given, output, meta in found:
        if source is None or commit_id != present:
            present, source = commit_id, _provenance(conn, commit_id, repo, sha, recipes)
        origin = source if task != "benign" else _of_function(source, json.loads(meta))
        yield Example(task, example_no, part, instruction, given, output, meta, origin)


def _of_function(source: Provenance, meta: dict[str, str]) -> Provenance:
    """Where a benign function comes from: its commit is no fix, and no answer of a model is behind it."""
    return replace(source, path=meta["path"], function=meta["function"], label_source="lifespan", requests="")


def _provenance(
    conn: sqlite3.Connection, commit_id: int, repo: str, sha: str, recipes: dict[str, dict[str, str]]
) -> Provenance:
    def column(sql: str) -> list[str]:
        return [value for (value,) in _cursor(conn).execute(sql, {"id": commit_id})]

    path, function = (
        _cursor(conn).execute("SELECT path, name FROM functions WHERE commit_id = ?", (commit_id,)).fetchone()
    ) or ("", "")
    steps = dict(
        _cursor(conn).execute(
            """SELECT steps.stage, recipes.hash FROM steps JOIN recipes ON recipes.id = recipe_id
               JOIN stages ON stages.stage = steps.stage WHERE commit_id = ? ORDER BY place""",
            (commit_id,),
        )
    )
    made_by = hashlib.sha256(json.dumps(steps, sort_keys=True).encode()).hexdigest()[:16]
    recipes[made_by] = steps
    return Provenance(
        repo=repo,
        commit=sha,
        path=path,
        function=function,
        cve=" ".join(
            column(
                """SELECT value FROM identifiers WHERE commit_id = :id AND kind = 'CVE' UNION
                   SELECT identifier FROM labels
                   WHERE commit_id = :id AND label = 'yes' AND identifier LIKE 'CVE-%' ORDER BY 1"""
            )
        ),
        cwe=" ".join(
            column(
                """SELECT value FROM identifiers WHERE commit_id = :id AND kind = 'CWE' UNION
                   SELECT cwe FROM labels WHERE commit_id = :id AND label = 'yes' AND cwe IS NOT NULL ORDER BY 1"""
            )
        ),
        cwe_by_model=" ".join(
            column("SELECT DISTINCT cwe FROM explanations WHERE commit_id = :id AND cwe IS NOT NULL ORDER BY 1")
        ),
        label_source=" ".join(column("SELECT source FROM verdicts WHERE commit_id = :id")),
        made_by=made_by,
        # The facts name their answers. Elements and rationales do not: theirs are
        # the calls with the model and a prompt of the recipe that made the row.
        requests=" ".join(
            column(
                """WITH used (stage, hash) AS (
                     SELECT 's0_3', request_hash FROM verdicts WHERE commit_id = :id AND request_hash IS NOT NULL
                     UNION SELECT 's1_2', request_hash FROM masked_functions WHERE commit_id = :id
                     UNION SELECT 's3_1', request_hash FROM segments WHERE commit_id = :id
                     UNION SELECT 's3_2', request_hash FROM explanations WHERE commit_id = :id
                     UNION SELECT l.stage, l.request_hash FROM llm_calls AS l
                       JOIN steps AS s ON s.commit_id = l.commit_id AND s.stage = l.stage
                       JOIN recipes AS p ON p.id = s.recipe_id AND p.model_id = l.model_id
                       WHERE l.commit_id = :id AND l.stage IN ('s0_3', 's2_1') AND instr(p.content, l.prompt_hash) > 0)
                   SELECT stage || ':' || hash FROM used ORDER BY 1"""
            )
        ),
    )


def _cursor(conn: sqlite3.Connection) -> sqlite3.Cursor:
    """A cursor that gives tuples, whatever the connection's owner likes."""
    cursor = conn.cursor()
    cursor.row_factory = None
    return cursor
