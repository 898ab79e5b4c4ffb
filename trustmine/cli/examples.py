"""propose and benign: make what examples of s4 are made of beside its facts."""

import os
from dataclasses import asdict
from typing import Annotated

import typer

from trustmine import console
from trustmine.cli.shared import (
    Config,
    Db,
    End,
    Json,
    Model,
    Repo,
    Start,
    Workers,
    load_settings,
    open_database,
    scope_of,
)


def propose(
    db: Db = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most this many rows.")] = None,
    per_row: Annotated[int, typer.Option("--per-row", min=1, help="Candidates per row.")] = 1,
    repo: Repo = None,
    start: Start = None,
    end: End = None,
    model: Model = None,
    as_json: Json = False,
    config_file: Config = None,
) -> None:
    """Have the model write candidate patches into the gap of fixed functions, and compare them with the fix.

    For rows that have passed s2_2; s4 makes examples of calibrate from them.

    Example: trustmine propose --limit 100 --per-row 4
    """
    from trustmine import pipeline
    from trustmine import propose as proposing

    settings = load_settings(config_file, db=db, model=model).settings
    with open_database(settings) as conn:
        scope = scope_of(conn, repo, start, end)
        n = proposing.n_waiting(conn, scope, limit)
        if n == 0:
            console.say("No row has passed s2_2 yet: trustmine advance --stage s2_2")
            if as_json:
                console.print_json(asdict(proposing.Proposed(0, 0, 0, {}, 0)))
            return
        models = pipeline.Models(conn, settings)
        try:
            engine = models.get()  # before the bar appears
            with console.progress("propose", n) as draw:
                done = proposing.propose(
                    conn, settings, engine, per_row=per_row, limit=limit, scope=scope, progress=draw
                )
        finally:
            models.close()
    if as_json:
        console.print_json(asdict(done))
        return
    console.table(("equal to", "candidates"), list(done.by_verdict.items()), right=("candidates",))
    console.say(
        f"{done.n_new:,} new candidates for {done.n_rows:,} rows; {done.n_unanswered:,} questions had no "
        f"answer, most often as too long for the context; {done.n_sent_back:,} rows are pending before s4 again"
    )


def benign(
    per_repo: Annotated[int, typer.Option("--per-repo", min=1, help="Functions per repository.")] = 100,
    db: Db = None,
    repo: Repo = None,
    workers: Workers = None,
    as_json: Json = False,
    config_file: Config = None,
) -> None:
    """Choose the functions that have lived longest unchanged as examples of "no vulnerability detected".

    They are about as long as the vulnerable ones, and no known fix has touched
    them. Ctrl-C and the same command again go on; a later run replaces what an
    earlier one chose, and follows only what has changed since.

    Example: trustmine benign --per-repo 200 --repo curl/curl
    """
    from trustmine import benign as choosing
    from trustmine.db import queries

    settings = load_settings(config_file, db=db).settings
    done, left_out = [], []
    with open_database(settings) as conn:
        wanted = scope_of(conn, repo).repo_id
        for row in queries.repos(conn):
            if wanted in (None, row.id):
                with console.board() as board:

                    def draw(what: str, n: int, total: int | None, name: str = row.name) -> None:
                        board(f"{name}: {what}", n, total)

                    try:
                        n_processes = workers or os.cpu_count() or 1
                        done.append(choosing.choose(conn, settings, row.id, per_repo, n_processes, draw))
                    except choosing.NotIngested as error:
                        if wanted is not None:
                            raise
                        left_out.append(error)
    for cut_off in left_out:
        console.say(f"Warning: left out: {cut_off.what}\n  Try: {cut_off.hint}")
    if as_json:
        console.print_json([asdict(one) for one in done])
        return
    console.table(
        ("repository", "functions", "left out", "chosen"),
        [
            (one.repo, one.n_functions, ", ".join(f"{why} {n:,}" for why, n in one.left_out.items()), one.n_chosen)
            for one in done
        ],
        right=("functions", "chosen"),
    )
    for one in done:
        if one.given_up:
            console.say(f"{one.repo}: left out, because every process died of them: {', '.join(one.given_up)}")
        if one.n_missing:
            console.say(f"{one.repo}: {one.n_missing:,} fewer than asked for: no others are as long as vulnerable ones")
        if not one.has_lengths:
            console.say(f"{one.repo}: of any length, for want of {choosing.MIN_LENGTHS} vulnerable functions (s1_1)")
