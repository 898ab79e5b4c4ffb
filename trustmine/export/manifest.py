"""manifest.json: what an export holds and what made it.

No time and no path of this machine is in it: the same database gives the same
bytes. Recipes, models and refs are those of the exported rows alone.
"""

import json
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlite_utils import Database

import trustmine
from trustmine.export.provenance import public

FILE_NAME = "manifest.json"
KIND = "trustmine export"  # by which an earlier export is known
NOTE = "The texts come from the repositories named here and keep the licences of those repositories."


@dataclass(frozen=True)
class File:
    """One data file."""

    split: str
    n_rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What was exported; fields named as in manifest.json."""

    kind: str
    trustmine: str  # version
    schema: int  # user_version of the database
    format: str
    note: str
    split_by: str | None  # date, project; None: from the cutoff on or before
    counts: dict[str, dict[str, int]]  # split -> task (of pairs: CWE) -> rows
    dropped: dict[str, int]  # commits left out, by reason; of pairs that cannot be written, pairs
    leakage: dict[str, Any]  # what its sides have in common: threshold, counts by kind
    files: dict[str, File]  # by name
    repos: dict[str, dict[str, Any]]  # by name: url, is_shallow, refs (as ingested) -> SHA
    made_by: dict[str, dict[str, str]]  # column made_by of a row -> stage -> hash of its recipe
    recipes: dict[
        str, dict[str, Any]
    ]  # by hash: stage, model (SHA-256), content: version, settings, prompt hashes, ...
    models: dict[str, dict[str, Any]]  # by SHA-256: name, architecture, n_params, engine
    prompts: dict[str, list[str]]  # by name: hashes of the versions that were asked with

    def to_json(self) -> str:
        """The text of manifest.json, in ASCII."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def describe(
    conn: sqlite3.Connection,
    format: str,
    split_by: str | None,
    counts: dict[str, dict[str, int]],
    dropped: dict[str, int],
    leakage: dict[str, Any],
    files: dict[str, File],
    repos: Collection[str],
    made_by: Mapping[str, dict[str, str]],
) -> Manifest:
    """The manifest of rows that come from `repos` and were `made_by` these recipes."""
    db = Database(conn, recursive_triggers=False, execute_plugins=False)
    used = {recipe for steps in made_by.values() for recipe in steps.values()}
    recipes = {
        row["hash"]: {"stage": row["stage"], "model": row["model"], "content": json.loads(row["content"])}
        for row in db.query(
            """SELECT recipes.hash, stage, content, models.sha256 AS model
               FROM recipes LEFT JOIN models ON models.id = model_id"""
        )
        if row["hash"] in used
    }
    used_models = {recipe["model"] for recipe in recipes.values()}
    models = {
        row.pop("sha256"): row
        for row in db.query("SELECT sha256, name, architecture, n_params, engine FROM models")
        if row["sha256"] in used_models
    }
    prompts: dict[str, list[str]] = {}
    asked = db.query("SELECT DISTINCT stage, prompt_name, prompt_hash FROM llm_calls ORDER BY prompt_name, prompt_hash")
    for row in asked:
        behind = [r for r in recipes.values() if r["stage"] == row["stage"]]
        hashes = prompts.get(row["prompt_name"], [])
        if row["prompt_hash"] not in hashes and any(row["prompt_hash"] in json.dumps(r["content"]) for r in behind):
            prompts[row["prompt_name"]] = [*hashes, row["prompt_hash"]]
    origins = {
        row["name"]: {"url": public(row["url"]), "is_shallow": bool(row["is_shallow"]), "refs": json.loads(row["refs"])}
        for row in db.query(
            """SELECT name, url, is_shallow, json_group_object(ref, sha) FILTER (WHERE ref IS NOT NULL) AS refs
               FROM repos LEFT JOIN refs ON refs.repo_id = repos.id GROUP BY repos.id"""
        )
        if row["name"] in repos
    }
    (schema,) = (row["user_version"] for row in db.query("PRAGMA user_version"))
    return Manifest(
        KIND,
        trustmine.__version__,
        schema,
        format,
        NOTE,
        split_by,
        counts,
        dropped,
        leakage,
        files,
        origins,
        dict(made_by),
        recipes,
        models,
        prompts,
    )
