"""What several commands take and do: their common options, settings, the database, which rows are meant."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from trustmine import config, console
from trustmine.config import Loaded, Settings
from trustmine.db.claims import Scope

Db = Annotated[Path | None, typer.Option("--db", help="The database [default: trustmine.db, or as set].")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file [default: ./trustmine.toml if there].")]
Repo = Annotated[str | None, typer.Option("--repo", help="Only rows of this repository.")]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model", help="GGUF file, or name of the endpoint's model [default: as set, else the built-in one]."
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option("--endpoint", help="OpenAI-compatible server that answers in its place: http://host:8000/v1."),
]
ApiKeyEnv = Annotated[
    str | None, typer.Option("--api-key-env", help="Environment variable that holds the endpoint's key.")
]
Profile = Annotated[
    Literal["paper", "wide"] | None,
    typer.Option("--profile", help="Named set of defaults [default: paper, or as set]."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Start = Annotated[int | None, typer.Option("--start", help="Only rows whose id (commits.id) is this or more.")]
End = Annotated[int | None, typer.Option("--end", help="Only rows whose id is less than this.")]
Labelled = Annotated[bool, typer.Option("--labelled", help="Only rows that a list has labelled (see label).")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many rows per stage.")]
Order = Annotated[
    Literal["priority", "newest", "oldest"] | None,
    typer.Option("--order", help="Rows to take first; before s0_2 priority is oldest [default: priority, or as set]."),
]
Rationale = Annotated[
    Literal["none", "yes", "all"] | None,
    typer.Option("--rationale", help="Verdicts of s0_3 to ask a reason for [default: yes, or as set]."),
]
Deterministic = Annotated[
    bool | None,
    typer.Option("--deterministic", help="Answers do not depend at all on what the model works on beside; slower."),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Processes [default: one per core; run: 2 to 8; advance, if it asks: 1]."),
]
Stage = Annotated[str, typer.Option("--stage", help="s0_1, s0_2, s0_3, s1_1, s1_2, s2_0, s2_1, s2_2, s3_1, s3_2, s4.")]


def load_settings(config_file: Path | None, **flags: object) -> Loaded:
    """Settings of flags, environment and file; a flag that is None was not given."""
    return config.load(config_file, {k: str(v) if isinstance(v, Path) else v for k, v in flags.items()})


@contextmanager
def open_database(settings: Settings, *, create: bool = False, read_only: bool = False) -> Iterator[sqlite3.Connection]:
    """The database of the settings, closed at the end; one of an older version is upgraded unless it is read only."""
    from trustmine.db.connect import connect

    conn = connect(Path(settings.db), create=create, read_only=read_only, say=console.say)
    try:
        yield conn
    finally:
        conn.close()


def scope_of(
    conn: sqlite3.Connection,
    repo: str | None,
    start: int | None = None,
    end: int | None = None,
    is_labelled: bool = False,
) -> Scope:
    """The rows that a command's options mean; raises TrustmineError if there is no such repository."""
    from trustmine.db import queries

    repo_id = None if repo is None else queries.repo_id(conn, repo)
    return Scope(repo_id, start, end, is_labelled=is_labelled)
