"""manifest.json: what an export holds and what made it.

No time and no path of this machine is in it: the same database gives the same
bytes. Recipes, models and refs are those of the exported rows alone; the
funnel is the whole database's.
"""

import importlib.metadata
import json
import sqlite3
from dataclasses import asdict, dataclass
from typing import Any

from sqlite_utils import Database

import trustmine
from trustmine.db import queries
from trustmine.export.provenance import public

FILE_NAME = "manifest.json"
KIND = "trustmine export"  # by which an earlier export is known
NOTE = "The texts come from the repositories named here and keep the licences of those repositories."
# Packages whose version may show in the rows; all are pinned.
PACKAGES = (
    *("diff-match-patch", "licenseclassifier", "pygit2", "tiktoken"),
    *("tree-sitter", "tree-sitter-c", "tree-sitter-cpp"),
)

Counts = dict[str, dict[str, int]]  # name -> split -> rows, or split -> name -> rows


@dataclass(frozen=True)
class File:
    """One data file."""

    split: str
    n_rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Written:
    """What was written, as the writer knows it."""

    format: str
    split_by: str | None  # date, project; None: from the cutoff on or before
    repo: str | None  # the one that was asked for; None: all of the database
    counts: Counts  # split -> task (of pairs: CWE) -> rows
    dropped: dict[str, int]  # commits left out, by reason
    leakage: dict[str, Any]  # what its sides have in common: threshold, functions by side, counts by kind
    stats: dict[str, Counts]  # target, cwe, year, project, length (characters, up to) -> name -> split -> rows
    licences: Counts  # repository -> SPDX expression -> commits that rows under it are of
    files: dict[str, File]  # by name
    made_by: dict[str, dict[str, str]]  # column made_by of a row -> stage -> hash of its recipe


@dataclass(frozen=True)
class Manifest(Written):
    """All of it; fields named as in manifest.json."""

    kind: str
    trustmine: str  # version
    packages: dict[str, str]  # versions of those that rows may depend on
    schema: int  # user_version of the database
    note: str
    repos: dict[str, dict[str, Any]]  # by name: url, is_shallow, refs (as ingested) -> SHA
    recipes: dict[
        str, dict[str, Any]
    ]  # by hash: stage, model (SHA-256), content: version, settings, prompt hashes, ...
    models: dict[str, dict[str, Any]]  # by SHA-256: name, architecture, n_params, engine
    prompts: dict[str, list[str]]  # by name: hashes of the versions that were asked with
    sampling: dict[str, list[dict[str, Any]]]  # by stage: temperature, seed, max_tokens, ... that were asked with
    funnel: dict[str, dict[str, Any]]  # by stage: passed, pending, failed, rejected by reason

    def to_json(self) -> str:
        """The text of manifest.json, in ASCII."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def describe(conn: sqlite3.Connection, written: Written) -> Manifest:
    """The manifest of what was written from this database."""
    db = Database(conn, recursive_triggers=False, execute_plugins=False)
    used = {recipe for steps in written.made_by.values() for recipe in steps.values()}
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
    sampling: dict[str, list[dict[str, Any]]] = {}
    asked = db.query("SELECT DISTINCT stage, prompt_name, prompt_hash, sampling FROM llm_calls ORDER BY 1, 2, 3, 4")
    for row in asked:
        behind = [r for r in recipes.values() if r["stage"] == row["stage"]]
        if any(row["prompt_hash"] in json.dumps(r["content"]) for r in behind):
            _add(prompts, row["prompt_name"], row["prompt_hash"])
            _add(sampling, row["stage"], json.loads(row["sampling"]))
    origins = {
        row["name"]: {"url": public(row["url"]), "is_shallow": bool(row["is_shallow"]), "refs": json.loads(row["refs"])}
        for row in db.query(
            """SELECT name, url, is_shallow, json_group_object(ref, sha) FILTER (WHERE ref IS NOT NULL) AS refs
               FROM repos LEFT JOIN refs ON refs.repo_id = repos.id GROUP BY repos.id"""
        )
        if row["name"] in written.licences
    }
    packages = (*PACKAGES, *(["pyarrow"] if written.format == "parquet" else []))
    (schema,) = (row["user_version"] for row in db.query("PRAGMA user_version"))
    return Manifest(
        **{name: getattr(written, name) for name in Written.__dataclass_fields__},
        kind=KIND,
        trustmine=trustmine.__version__,
        packages={name: importlib.metadata.version(name) for name in packages},
        schema=schema,
        note=NOTE,
        repos=origins,
        recipes=recipes,
        models=models,
        prompts={name: sorted(hashes) for name, hashes in prompts.items()},
        sampling=sampling,
        funnel=_funnel(conn),
    )


def _add(lists: dict[str, list[Any]], name: str, value: Any) -> None:
    if value not in lists.setdefault(name, []):
        lists[name].append(value)


def _funnel(conn: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    """Who holds a row at the moment makes no difference."""
    return {
        stage: {"passed": n.passed, "pending": n.pending + n.claimed, "failed": n.failed, "rejected": n.rejected}
        for stage, n in queries.funnel(conn).items()
    }
