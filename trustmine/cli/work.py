"""ingest, advance, run and reset: bring commits in, and move them through the stages."""

from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer
from typer._click.exceptions import UsageError  # typer carries click and does not export this

from trustmine import console
from trustmine.cli.shared import (
    ApiKeyEnv,
    Config,
    Db,
    Deterministic,
    End,
    Endpoint,
    Labelled,
    Limit,
    Model,
    Order,
    Profile,
    Rationale,
    Repo,
    Stage,
    Start,
    Workers,
    load_settings,
    open_database,
    scope_of,
)
from trustmine.config import Settings


def ingest(
    repo: Annotated[str, typer.Argument(help="Path or URL of a git repository.")],
    db: Db = None,
    ref: Annotated[list[str] | None, typer.Option("--ref", help="Branch, tag or revision [default: HEAD].")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What to call it, from now on [default: owner/name].")
    ] = None,
    config_file: Config = None,
) -> None:
    """Add a repository's commits to the database; again: only new ones.

    A URL is cloned bare into a cache folder, and fetched on the next ingest.
    A repository that has moved is ingested from its new place with --name and
    the name that it has: its rows stay. A URL needs no name for that, and of
    two clones of it the one that was ingested last is read from then on.
    Another --name than a repository has renames it.

    Example: trustmine ingest ~/src/curl --name curl/curl
    """
    _ingest(load_settings(config_file, db=db).settings, repo, tuple(ref or ("HEAD",)), name)


def _ingest(settings: Settings, repo: str, refs: tuple[str, ...], name: str | None) -> None:
    from trustmine import ingest as ingesting

    started = monotonic()
    source = _source(settings, repo, refs)
    with open_database(settings, create=True) as conn, console.progress("ingest", None) as draw:
        done = ingesting.ingest(conn, source, name=name, progress=draw, say=console.say)
    _say_ingested(done, monotonic() - started)


def _source(settings: Settings, repo: str, refs: tuple[str, ...]) -> Any:
    from trustmine import gitcli
    from trustmine import ingest as ingesting

    if ingesting.is_url(repo):
        console.say(f"Cloning or fetching {gitcli.without_password(repo)}")
    return ingesting.find(repo, refs=refs, cache=settings.cache)


def _say_ingested(done: Any, seconds: float | None = None) -> None:
    if done.is_shallow:
        console.say(
            f"Warning: {done.repo} is a shallow clone: commits at its boundary cannot be compared with their parents "
            f"and will be rejected\n  Try: git -C {done.path} fetch --unshallow, then ingest it again"
        )
    took = "" if seconds is None else f", in {console.duration(seconds)}"
    console.say(f"{done.repo}: {done.n_new:,} new commits, {done.n_commits:,} in all{took}")


def advance(
    stage: Annotated[str | None, typer.Option("--stage", help="The stage to work on: s0_1 ... s4.")] = None,
    db: Db = None,
    limit: Limit = None,
    repo: Repo = None,
    start: Start = None,
    end: End = None,
    labelled: Labelled = False,
    order: Order = None,
    workers: Workers = None,
    model: Model = None,
    endpoint: Endpoint = None,
    api_key_env: ApiKeyEnv = None,
    profile: Profile = None,
    rationale: Rationale = None,
    deterministic: Deterministic = None,
    stale: Annotated[
        bool,
        typer.Option(
            "--stale",
            help="Redo rows made by other settings, prompts or models, and no others; alone: of all stages, "
            "which share --limit.",
        ),
    ] = False,
    config_file: Config = None,
) -> None:
    """Claim and process the pending rows of a stage until none is left.

    Any number of these may run at once, in other terminals too.

    Example: trustmine advance --stage s0_3 --limit 200 --model llama-3-70b.Q4_K_M.gguf

    Example: trustmine advance --stage s0_3 --endpoint http://gpu7:8000/v1 --api-key-env MY_KEY
    """
    from trustmine import pipeline, stages

    if stage is None and not stale:
        raise UsageError("Give --stage, or --stale to redo what is out of date.")
    if stage is not None:
        stages.get(stage)
    flags = {"model": model, "endpoint": endpoint, "api_key_env": api_key_env, "deterministic": deterministic}
    settings = load_settings(config_file, db=db, order=order, profile=profile, rationale=rationale, **flags).settings
    with open_database(settings) as conn:
        plan = pipeline.Plan(scope_of(conn, repo, start, end, labelled), limit, workers)
        models = pipeline.Models(conn, settings)
        try:
            if stale:
                _redo_stale(conn, settings, models, plan, stage)
            elif stage is not None:
                _report(pipeline.advance(Path(settings.db), conn, stage, settings, models, plan, console.progress))
        finally:
            models.close()


def _redo_stale(conn: Any, settings: Settings, models: Any, plan: Any, stage: str | None) -> None:
    """Send stale rows back and take them, and no others, through their stages again."""
    from trustmine import pipeline, stages

    sent = pipeline.send_stale_back(conn, settings, models, plan.scope, stage, plan.limit)
    if not sent:
        console.say("Nothing is stale")
        return
    for name, ids in sent.items():
        console.say(f"{name}: {len(ids):,} stale rows sent back")
    names = list(stages.STAGES)
    again = [commit_id for ids in sent.values() for commit_id in ids]
    for name in [stage] if stage is not None else names[names.index(next(iter(sent))) :]:
        db = Path(settings.db)
        _report(pipeline.redo(db, conn, name, settings, models, plan, again, console.progress))


def _report(done: Any) -> None:
    console.say(console.tally_line(done.stage, done.tally, done.seconds))


def run(
    repo_path: Annotated[str | None, typer.Argument(metavar="[REPO]", help="Path or URL to ingest first.")] = None,
    db: Db = None,
    ref: Annotated[list[str] | None, typer.Option("--ref", help="Branch, tag or revision [default: HEAD].")] = None,
    name: Annotated[str | None, typer.Option("--name", help="What to call the repository, from now on.")] = None,
    limit: Limit = None,
    repo: Repo = None,
    start: Start = None,
    end: End = None,
    labelled: Labelled = False,
    order: Order = None,
    workers: Workers = None,
    model: Model = None,
    endpoint: Endpoint = None,
    api_key_env: ApiKeyEnv = None,
    profile: Profile = None,
    rationale: Rationale = None,
    deterministic: Deterministic = None,
    config_file: Config = None,
) -> None:
    """Ingest a repository, if given, then work on all stages until nothing is pending.

    Ctrl-C loses nothing: run it again and it goes on where it stopped.

    Example: trustmine run https://github.com/curl/curl
    """
    from trustmine import ingest as ingesting
    from trustmine import pipeline

    if repo_path is not None and repo is not None:
        raise UsageError("Give REPO, to ingest it and work on it, or --repo, for one that is there: not both.")
    flags = {"model": model, "endpoint": endpoint, "api_key_env": api_key_env, "deterministic": deterministic}
    settings = load_settings(config_file, db=db, order=order, profile=profile, rationale=rationale, **flags).settings
    source = None if repo_path is None else _source(settings, repo_path, tuple(ref or ("HEAD",)))
    with open_database(settings, create=source is not None) as conn:
        scope, feed = scope_of(conn, repo, start, end, labelled), None
        if source is not None:
            repo_id = ingesting.register(conn, source, name, console.say)
            scope, feed = replace(scope, repo_id=repo_id), ingesting.steps(conn, source, repo_id)
        plan = pipeline.Plan(scope, limit, workers)
        models = pipeline.Models(conn, settings)
        try:
            done = pipeline.run(Path(settings.db), conn, settings, models, plan, console.board(), feed)
            if done.ingested is not None:
                _say_ingested(done.ingested)
            for stage in done.stages:
                _report(stage)
            if (meter := models.meter) is not None:
                console.say(console.model_line(meter.summary(done.seconds)))
        finally:
            models.close()


def reset(
    stage: Stage,
    db: Db = None,
    repo: Repo = None,
    start: Start = None,
    end: End = None,
    config_file: Config = None,
) -> None:
    """Send the rows that were decided at a stage or later back before it.

    Their facts of that stage and later ones are deleted; recorded model calls
    are kept, so an unchanged question is not asked again.

    Example: trustmine reset --stage s1_1 --repo curl/curl
    """
    from trustmine import stages
    from trustmine.db import recipes

    stages.get(stage)
    with open_database(load_settings(config_file, db=db).settings) as conn:
        n = recipes.send_back(conn, stage, scope=scope_of(conn, repo, start, end))
    console.say(f"{n:,} rows are pending before {stage} again")
