"""What made the results: recipes and models, stale rows, and sending rows back.

A recipe is everything a stage's results depend on besides the row itself. A
row whose step names another recipe than the present one is stale.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from trustmine.db import facts as fact_tables
from trustmine.db.claims import Scope
from trustmine.db.connect import transaction
from trustmine.llm.base import ModelInfo


def ensure(conn: sqlite3.Connection, stage: str, content: Mapping[str, object], model_id: int | None) -> int:
    """The id of the recipe with this content, stored if it is new."""
    text = fact_tables.as_json(content)
    digest = recipe_hash(content)
    with transaction(conn):
        conn.execute(
            "INSERT OR IGNORE INTO recipes (stage, hash, content, model_id, created_at_s) VALUES (?, ?, ?, ?, ?)",
            (stage, digest, text, model_id, time.time()),
        )
        found = conn.execute("SELECT id FROM recipes WHERE hash = ?", (digest,)).fetchone()
    return int(found[0])


def recipe_hash(content: Mapping[str, object]) -> str:
    return hashlib.sha256(fact_tables.as_json(content).encode()).hexdigest()


def ensure_model(conn: sqlite3.Connection, info: ModelInfo) -> int:
    """The id of the model, stored or brought up to date (path, mtime)."""
    with transaction(conn):
        conn.execute(
            """INSERT INTO models
                   (sha256, name, path, size_bytes, mtime_ns, architecture, n_params, n_ctx_train, engine)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
               ON CONFLICT (sha256) DO UPDATE SET path = excluded.path, mtime_ns = excluded.mtime_ns,
                                                  engine = excluded.engine""",
            (
                info.sha256,
                info.name,
                info.path,
                info.size_bytes,
                info.mtime_ns,
                info.architecture,
                info.n_params,
                info.n_ctx_train,
                info.engine,
            ),
        )
        found = conn.execute("SELECT id FROM models WHERE sha256 = ?", (info.sha256,)).fetchone()
    return int(found[0])


def known_model_hash(conn: sqlite3.Connection, path: Path, size_bytes: int, mtime_ns: int) -> str | None:
    """sha256 of a model file that was hashed before and has not changed since."""
    found = conn.execute(
        "SELECT sha256 FROM models WHERE path = ? AND size_bytes = ? AND mtime_ns = ?",
        (str(path), size_bytes, mtime_ns),
    ).fetchone()
    return None if found is None else str(found[0])


# ----------------------------------------------------------------------- stale rows


def stale(
    conn: sqlite3.Connection, present: Mapping[str, str], scope: Scope = Scope(), *, also: Collection[str] = ()
) -> dict[str, list[int]]:
    """Commit ids whose earliest stale stage is this one, by stage.

    `present` gives the hash of the present recipe per stage; stages that are
    not in it are not looked at. `also`: hashes of further recipes that are
    not out of date.
    """
    clause, values = scope.where()
    found: dict[str, list[int]] = {}
    seen: set[int] = set()
    places = stage_places(conn)
    for stage in sorted(present, key=places.__getitem__):
        ids = [
            row[0]
            for row in conn.execute(
                f"""SELECT commit_id FROM steps JOIN commits ON id = commit_id
                    WHERE recipe_id IN (SELECT id FROM recipes WHERE stage = ? AND hash <> ?
                                        AND hash NOT IN (SELECT value FROM json_each(?)))
                          AND stage = ?{clause} ORDER BY commit_id""",
                (stage, present[stage], json.dumps(list(also)), stage, *values),
            )
        ]
        new = [commit_id for commit_id in ids if commit_id not in seen]
        seen.update(new)
        found[stage] = new
    return found


# Which rows come first, as claims has it for pending ones.
_ORDERS = {"oldest": "id", "newest": "id DESC", "priority": "priority IS NULL, priority DESC, id"}


def first(conn: sqlite3.Connection, ids: Sequence[int], order: str, limit: int) -> list[int]:
    """At most `limit` of these commits, those that come first in this order (see claims.claim)."""
    return [
        row[0]
        for row in conn.execute(
            f"""SELECT id FROM commits WHERE id IN (SELECT value FROM json_each(?))
                ORDER BY {_ORDERS[order]} LIMIT ?""",
            (fact_tables.as_json(list(ids)), limit),
        )
    ]


def stage_places(conn: sqlite3.Connection) -> dict[str, int]:
    """Place of each stage in their order."""
    return dict(conn.execute("SELECT stage, place FROM stages ORDER BY place").fetchall())


# -------------------------------------------------------------------- sending back

# Examples that hang on a commit and are no stage's work.
KEPT = {"instructions": " AND task <> 'benign'"}


def send_back(conn: sqlite3.Connection, stage: str, ids: Sequence[int] | None = None, scope: Scope = Scope()) -> int:
    """Rows that were decided at `stage` or later are pending before `stage` again.

    Facts, steps and failures of `stage` and all later ones go; recorded LLM
    calls stay. Returns the number of rows. `ids`: only these rows.
    """
    places = stage_places(conn)
    if ids is not None:
        scope = replace(scope, ids=tuple(ids))
    with transaction(conn):
        conn.execute("CREATE TEMP TABLE going_back (id INTEGER PRIMARY KEY, is_aside INTEGER NOT NULL)")
        try:
            return _send_back(conn, [name for name, place in places.items() if place >= places[stage]], places, scope)
        finally:
            conn.execute("DROP TABLE going_back")


def _send_back(conn: sqlite3.Connection, later: Sequence[str], places: Mapping[str, int], scope: Scope) -> int:
    stage = later[0]
    before = next(name for name, place in places.items() if place == places[stage] - 1)
    clause, values = scope.where()
    later_json = json.dumps(later)
    # Steps say it all, unless one was lost: then status and rejection do.
    # An aside row (rejected before this stage, yet with a step from it on) keeps its rejection.
    conn.execute(
        f"""INSERT INTO going_back
            SELECT id, outcome = 'rejected' AND reject_stage NOT IN (SELECT value FROM json_each(?1)) FROM commits
            WHERE (id IN (SELECT commit_id FROM steps WHERE stage IN (SELECT value FROM json_each(?1)))
                   OR id IN (SELECT commit_id FROM failures WHERE stage IN (SELECT value FROM json_each(?1)))
                   OR status IN (SELECT value FROM json_each(?1)) OR reject_stage IN (SELECT value FROM json_each(?1))
                   OR (outcome = 'failed' AND status = ?2)){clause}""",
        (later_json, before, *values),
    )
    for table in fact_tables.tables_from(later):
        conn.execute(f"DELETE FROM {table} WHERE commit_id IN (SELECT id FROM going_back){KEPT.get(table, '')}")
    for table in ("steps", "failures"):
        conn.execute(
            f"""DELETE FROM {table} WHERE commit_id IN (SELECT id FROM going_back)
                AND stage IN (SELECT value FROM json_each(?))""",
            (later_json,),
        )
    conn.execute(
        """UPDATE commits SET status = ?, outcome = 'open', reject_stage = NULL, reject_reason = NULL, attempts = 0,
                  crashes = 0, claim_owner = NULL, claim_until_s = NULL
           WHERE id IN (SELECT id FROM going_back WHERE NOT is_aside)""",
        (before,),
    )
    conn.execute(
        "UPDATE commits SET attempts = 0, crashes = 0, claim_owner = NULL, claim_until_s = NULL"
        " WHERE id IN (SELECT id FROM going_back WHERE is_aside)"
    )
    return int(conn.execute("SELECT count(*) FROM going_back").fetchone()[0])
