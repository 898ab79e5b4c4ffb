"""Where what is exported comes from: the columns that lead a row back to its commit and what made it."""

import datetime
import hashlib
import json
import re
import sqlite3
from dataclasses import dataclass, fields
from urllib.parse import urlsplit, urlunsplit

_SCP = re.compile(r"(?:[^@/:\s]+@)?([^@/:\s]+):(?!//)(.+)")  # user@host:owner/name


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the rows of one commit come from.

    All strings, never null: loaders that guess a column's type from the first
    rows guess right.
    """

    repo: str
    commit: str  # full SHA
    date: str  # of the commit, UTC: 2021-03-04
    path: str  # file after the fix; '' if the commit did not get as far as a function
    function: str
    cve: str  # separated by a space; '' if none is known
    cwe: str  # likewise: those of the first source that names any
    cwe_source: str  # 'label' (a list of known fixes), else 'message', else 'model'; '' if nobody names one
    cwe_by_model: str
    licence: str  # SPDX expression of the file at the commit, or 'unknown'
    label_source: str  # 'model', or the list that says it is a fix
    made_by: str  # key in the manifest: the recipe of every stage
    requests: str  # 'stage:request_hash' of the answers behind the row, separated by a space


COLUMNS = tuple(field.name for field in fields(Provenance))


def provenance(
    conn: sqlite3.Connection, commit_id: int, repo: str, sha: str, recipes: dict[str, dict[str, str]]
) -> Provenance:
    """Of one commit; `recipes` learns what `made_by` stands for: stage -> recipe hash."""

    def column(sql: str) -> list[str]:
        return [value for (value,) in cursor(conn).execute(sql, {"id": commit_id})]

    (commit_time_s,) = cursor(conn).execute("SELECT commit_time_s FROM commits WHERE id = ?", (commit_id,)).fetchone()
    path, function = (
        cursor(conn).execute("SELECT path, name FROM functions WHERE commit_id = ?", (commit_id,)).fetchone()
    ) or ("", "")
    steps = dict(
        cursor(conn).execute(
            """SELECT steps.stage, recipes.hash FROM steps JOIN recipes ON recipes.id = recipe_id
               JOIN stages ON stages.stage = steps.stage WHERE commit_id = ? ORDER BY place""",
            (commit_id,),
        )
    )
    made_by = hashlib.sha256(json.dumps(steps, sort_keys=True).encode()).hexdigest()[:16]
    recipes[made_by] = steps
    by_source = {
        # The first of each label, then what else it names.
        "label": _words(
            column(
                """SELECT cwe FROM labels WHERE commit_id = :id AND label = 'yes' AND cwe IS NOT NULL
                   GROUP BY cwe ORDER BY min(source || char(10) || identifier), cwe"""
            )
            + column(
                """SELECT other_cwes FROM labels WHERE commit_id = :id AND label = 'yes' AND other_cwes <> ''
                   ORDER BY source, identifier"""
            )
        ),
        "message": column("SELECT value FROM identifiers WHERE commit_id = :id AND kind = 'CWE' ORDER BY value"),
        "model": column("SELECT DISTINCT cwe FROM explanations WHERE commit_id = :id AND cwe IS NOT NULL ORDER BY 1"),
    }
    cwe_source = next((source for source, found in by_source.items() if found), "")
    return Provenance(
        repo=repo,
        commit=sha,
        date=utc_date(commit_time_s),
        path=path,
        function=function,
        cve=" ".join(
            column(
                """SELECT value FROM identifiers WHERE commit_id = :id AND kind = 'CVE' UNION
                   SELECT identifier FROM labels
                   WHERE commit_id = :id AND label = 'yes' AND identifier LIKE 'CVE-%' ORDER BY 1"""
            )
        ),
        cwe=" ".join(by_source.get(cwe_source, ())),
        cwe_source=cwe_source,
        cwe_by_model=" ".join(by_source["model"]),
        licence=next(iter(column("SELECT spdx FROM licences WHERE commit_id = :id")), "unknown"),
        label_source=" ".join(column("SELECT source FROM verdicts WHERE commit_id = :id")),
        made_by=made_by,
        # The facts name their answers. Elements and rationales do not: theirs are
        # the calls with the model and a prompt of the recipe that made the row.
        requests=" ".join(
            column(
                """WITH used (stage, hash) AS (
                     SELECT 's0_3', request_hash FROM verdicts WHERE commit_id = :id AND request_hash IS NOT NULL
                     UNION SELECT 's1_2', request_hash FROM masked_functions
                     WHERE commit_id = :id AND request_hash IS NOT NULL
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


def _words(texts: list[str]) -> list[str]:
    """Each once, in their order."""
    return list(dict.fromkeys(word for text in texts for word in text.split()))


def utc_date(seconds: int) -> str:
    """2021-03-04; '' for a time beyond the calendar."""
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return ""


def public(url: str | None) -> str | None:
    """The address without a user's name, password or token."""
    if url is None or "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def web_address(url: str | None) -> str:
    """host/owner/name of a repository that was cloned from somewhere, as a browser knows it; '' else."""
    if url is None:
        return ""
    if "://" in url:
        parts = urlsplit(url)
        host, path = (parts.hostname or "", parts.path) if parts.scheme in ("http", "https", "ssh", "git") else ("", "")
    else:
        match = _SCP.fullmatch(url)
        host, path = (match[1], match[2]) if match else ("", "")
    path = path.strip("/").removesuffix(".git")
    return f"{host}/{path}" if host and path else ""


def cursor(conn: sqlite3.Connection) -> sqlite3.Cursor:
    """A cursor that gives tuples, whatever the connection's owner likes."""
    made = conn.cursor()
    made.row_factory = None
    return made
