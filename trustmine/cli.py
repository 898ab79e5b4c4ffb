"""The command line: parse, call one function, print. See README.md for a tour."""

import datetime
import os
import platform
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, Literal

import typer
from typer._click.exceptions import ClickException, UsageError  # typer carries click and does not export these

from trustmine import __version__, config, console, stopping
from trustmine.config import Loaded, Settings
from trustmine.db.claims import Scope
from trustmine.errors import DatabaseError, TrustmineError

# Modules that load git, parsers or models are imported where they are used:
# `trustmine --help` and `trustmine status` answer at once.

INTERRUPTED = 130  # 128 + SIGINT, as shells have it

app = typer.Typer(
    help="Vulnerability-focused training data from the git histories of C and C++ projects.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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


def _settings(config_file: Path | None, **flags: object) -> Loaded:
    return config.load(config_file, {k: str(v) if isinstance(v, Path) else v for k, v in flags.items()})


@contextmanager
def _database(settings: Settings, *, create: bool = False, read_only: bool = False) -> Iterator[sqlite3.Connection]:
    from trustmine.db.connect import connect

    conn = connect(Path(settings.db), create=create, read_only=read_only, say=console.say)
    try:
        yield conn
    finally:
        conn.close()


def _scope(
    conn: sqlite3.Connection,
    repo: str | None,
    start: int | None = None,
    end: int | None = None,
    is_labelled: bool = False,
) -> Scope:
    from trustmine.db import queries

    repo_id = None if repo is None else queries.repo_id(conn, repo)
    return Scope(repo_id, start, end, is_labelled=is_labelled)


# --------------------------------------------------------------------------- ingest


@app.command()
def ingest(
    repo: Annotated[str, typer.Argument(help="Path or URL of a git repository.")],
    db: Db = None,
    ref: Annotated[list[str] | None, typer.Option("--ref", help="Branch, tag or revision [default: HEAD].")] = None,
    name: Annotated[str | None, typer.Option("--name", help="What to call it [default: owner/name].")] = None,
    config_file: Config = None,
) -> None:
    """Add a repository's commits to the database; again: only new ones.

    A URL is cloned bare into a cache folder, and fetched on the next ingest.

    Example: trustmine ingest ~/src/curl --name curl/curl
    """
    _ingest(_settings(config_file, db=db).settings, repo, tuple(ref or ("HEAD",)), name)


def _ingest(settings: Settings, repo: str, refs: tuple[str, ...], name: str | None) -> None:
    from trustmine import ingest as ingesting

    started = monotonic()
    source = _source(settings, repo, refs)
    with _database(settings, create=True) as conn, console.progress("ingest", None) as draw:
        done = ingesting.ingest(conn, source, name=name, progress=draw)
    _say_ingested(done, monotonic() - started)


def _source(settings: Settings, repo: str, refs: tuple[str, ...]) -> Any:
    from trustmine import ingest as ingesting

    if ingesting.is_url(repo):
        console.say(f"Cloning or fetching {repo}")
    return ingesting.find(repo, refs=refs, cache=settings.cache)


def _say_ingested(done: Any, seconds: float | None = None) -> None:
    if done.is_shallow:
        console.say(
            f"Warning: {done.repo} is a shallow clone: commits at its boundary cannot be compared with their parents "
            f"and will be rejected\n  Try: git -C {done.path} fetch --unshallow"
        )
    took = "" if seconds is None else f", in {console.duration(seconds)}"
    console.say(f"{done.repo}: {done.n_new:,} new commits, {done.n_commits:,} in all{took}")


# ------------------------------------------------------------------- advance and run


@app.command()
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
        bool, typer.Option("--stale", help="Redo rows made by other settings, prompts or models; alone: of all stages.")
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
    settings = _settings(config_file, db=db, order=order, profile=profile, rationale=rationale, **flags).settings
    with _database(settings) as conn:
        plan = pipeline.Plan(_scope(conn, repo, start, end, labelled), limit, workers)
        models = pipeline.Models(conn, settings)
        try:
            todo = [stage] if stage is not None else []
            if stale:
                sent = pipeline.send_stale_back(conn, settings, models, plan.scope, stage)
                for name, n in sent.items():
                    console.say(f"{name}: {n:,} stale rows sent back")
                todo = todo or list(stages.STAGES)
            for name in todo:
                _report(pipeline.advance(Path(settings.db), conn, name, settings, models, plan, console.progress))
        finally:
            models.close()


def _report(done: Any) -> None:
    console.say(console.tally_line(done.stage, done.tally, done.seconds))


@app.command()
def run(
    repo_path: Annotated[str | None, typer.Argument(metavar="[REPO]", help="Path or URL to ingest first.")] = None,
    db: Db = None,
    ref: Annotated[list[str] | None, typer.Option("--ref", help="Branch, tag or revision [default: HEAD].")] = None,
    name: Annotated[str | None, typer.Option("--name", help="What to call the repository.")] = None,
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

    flags = {"model": model, "endpoint": endpoint, "api_key_env": api_key_env, "deterministic": deterministic}
    settings = _settings(config_file, db=db, order=order, profile=profile, rationale=rationale, **flags).settings
    source = None if repo_path is None else _source(settings, repo_path, tuple(ref or ("HEAD",)))
    with _database(settings, create=source is not None) as conn:
        scope, feed = _scope(conn, repo, start, end, labelled), None
        if source is not None:
            repo_id = ingesting.register(conn, source, name)
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


@app.command()
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

    settings = _settings(config_file, db=db, model=model).settings
    with _database(settings) as conn:
        scope = _scope(conn, repo, start, end)
        n = proposing.n_waiting(conn, scope, limit)
        if n == 0:
            console.say("No row has passed s2_2 yet: trustmine advance --stage s2_2")
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
        f"{done.n_new:,} new candidates for {done.n_rows:,} rows; {done.n_overflows:,} questions did not fit in the "
        f"context; {done.n_sent_back:,} rows are pending before s4 again"
    )


@app.command()
def benign(
    per_repo: Annotated[int, typer.Option("--per-repo", min=1, help="Functions per repository.")] = 100,
    db: Db = None,
    repo: Repo = None,
    as_json: Json = False,
    config_file: Config = None,
) -> None:
    """Choose the functions that have lived longest unchanged as examples of "no vulnerability detected".

    They are about as long as the vulnerable ones, and no known fix has touched
    them. Takes some minutes for 40,000 commits; again: replaces what it chose.

    Example: trustmine benign --per-repo 200 --repo curl/curl
    """
    from trustmine import benign as choosing
    from trustmine.db import queries

    settings = _settings(config_file, db=db).settings
    done = []
    with _database(settings) as conn:
        wanted = _scope(conn, repo).repo_id
        for row in queries.repos(conn):
            if wanted in (None, row.id):
                with console.progress(row.name, row.n_commits) as draw:
                    done.append(choosing.choose(conn, settings, row.id, per_repo, draw))
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
        if one.n_missing:
            console.say(f"{one.repo}: {one.n_missing:,} fewer than asked for: no others are as long as vulnerable ones")
        if not one.has_lengths:
            console.say(f"{one.repo}: of any length, for want of {choosing.MIN_LENGTHS} vulnerable functions (s1_1)")


@app.command()
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
    with _database(_settings(config_file, db=db).settings) as conn:
        n = recipes.send_back(conn, stage, scope=_scope(conn, repo, start, end))
    console.say(f"{n:,} rows are pending before {stage} again")


# ------------------------------------------------------------------- status and show


@app.command()
def status(
    db: Db = None, repo: Repo = None, profile: Profile = None, as_json: Json = False, config_file: Config = None
) -> None:
    """The funnel: per stage pending, claimed, passed, failed, and rejected by reason.

    Example: trustmine status --json
    """
    from trustmine import pipeline
    from trustmine.db import queries

    settings = _settings(config_file, db=db, profile=profile).settings
    with _database(settings, read_only=True) as conn:
        scope = _scope(conn, repo)
        counts = queries.funnel(conn, scope)
        rates = queries.rates(conn, counts)
        models = queries.model_runs(conn)
        repos = [row for row in queries.repos(conn) if scope.repo_id in (None, row.id)]
        stale = pipeline.count_stale(conn, settings, scope)
    n_commits = sum(row.n_commits for row in repos)
    if as_json:
        console.print_json(
            {
                "commits": n_commits,
                "repos": [{"name": row.name, "path": row.path, "commits": row.n_commits} for row in repos],
                "stages": {
                    name: {
                        "pending": n.pending,
                        "claimed": n.claimed,
                        "passed": n.passed,
                        "failed": n.failed,
                        "rejected": n.rejected,
                    }
                    for name, n in counts.items()
                },
                "stale": stale,
                "running": {
                    name: {"workers": rate.n_workers, "rows_per_s": rate.rows_per_s, "left_s": rate.left_s}
                    for name, rate in rates.items()
                },
                "models": [
                    {
                        "name": run.model,
                        "running": run.is_running,
                        "answers": run.n_calls,
                        "answers_per_hour": run.calls_per_hour,
                        "tokens_per_s": run.tokens_per_s,
                        "cached_share": run.n_cached / max(run.n_prompt, 1),
                        "busy_share": run.busy_s / max(run.seconds, 1e-3),
                    }
                    for run in models
                ],
            }
        )
        return
    names = ", ".join(f"{row.name} ({row.n_commits:,})" for row in repos) or "no repository yet"
    console.print_funnel(counts, rates, models, stale, f"{n_commits:,} commits: {names}")


@app.command()
def show(
    sha: Annotated[str, typer.Argument(help="SHA of a commit, 4 digits or more.")],
    db: Db = None,
    repo: Repo = None,
    as_json: Json = False,
    config_file: Config = None,
) -> None:
    """Everything known about one commit, from its message to the model calls.

    Example: trustmine show 3f2a9c1
    """
    from trustmine import show as showing

    with _database(_settings(config_file, db=db).settings, read_only=True) as conn:
        commits = showing.find(conn, sha, _scope(conn, repo).repo_id)
        if as_json:
            console.print_json(console.jsonable([showing.everything(conn, commit) for commit in commits]))
            return
        for commit in commits:
            showing.render(conn, commit)


# ------------------------------------------------------------------- label and audit


@app.command()
def label(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="CSV with a column commit or sha; optional repo, cve, cwe, severity, introduced_in, label.",
        ),
    ] = None,
    osv: Annotated[
        Path | None, typer.Option("--osv", help="Folder of OSV records (YAML or JSON, at any depth) instead of a file.")
    ] = None,
    verdict: Annotated[
        Literal["yes", "no"], typer.Option("--set", help="The verdict where the file has no column label.")
    ] = "yes",
    source: Annotated[
        str | None,
        typer.Option("--source", help="Name of the list [default: the file's, or the database of an OSV record]."),
    ] = None,
    db: Db = None,
    as_json: Json = False,
    config_file: Config = None,
) -> None:
    """Take verdicts from a list of known commits, or from advisories.

    A list and commits that an advisory names outrank the model; fixes that
    OSS-Fuzz found by bisection, and identifiers in messages, do not (setting
    trusted_labels).

    Example: trustmine label known_fixes.csv --set yes; trustmine label --osv oss-fuzz-vulns/
    """
    from trustmine import advisories, labels

    if (file is None) == (osv is None):
        raise UsageError("Give a file, or a folder with --osv.")
    settings = _settings(config_file, db=db).settings
    with _database(settings) as conn:
        if osv is not None:
            with console.progress("label", None) as draw:
                found = advisories.label(conn, osv, source=source, trusted=settings.trusted_labels, progress=draw)
            console.print_advised(found, as_json)
            return
        assert file is not None, "one of both is given"
        done = labels.label(conn, file, source=source, default=verdict, trusted=settings.trusted_labels)
    if as_json:
        console.print_json(asdict(done))
        return
    console.say(
        f"{done.n_labels:,} labels on {done.n_commits:,} commits; {done.n_unknown:,} lines name commits that are not "
        f"in the database; {done.n_sent_back:,} rows are pending again because of them"
    )


@app.command()
def audit(
    file: Annotated[Path, typer.Argument(help="CSV of known fixes, as for label.")],
    db: Db = None,
    as_json: Json = False,
    config_file: Config = None,
) -> None:
    """Where each known fix of a list is, or got lost: counts per stage and reason.

    Example: trustmine audit known_fixes.csv
    """
    from trustmine import labels

    with _database(_settings(config_file, db=db).settings, read_only=True) as conn:
        found = labels.audit(conn, file)
    if as_json:
        stages: dict[str, Any] = {
            name: {
                "passed": n,
                "pending": found.waiting.get(name, 0),
                "lost": {reason: shas for (stage, reason), shas in found.lost.items() if stage == name},
            }
            for name, n in found.reached.items()
        }
        console.print_json({"commits": found.n_commits, "unknown": found.n_unknown, "stages": stages})
        return
    rows = []
    for name, n in found.reached.items():
        lost = ", ".join(f"{reason} {len(shas):,}" for (stage, reason), shas in found.lost.items() if stage == name)
        rows.append((name, n, found.waiting.get(name, 0), lost))
    console.table(
        ("stage", "passed", "pending", "lost here"),
        rows,
        title=f"{found.n_commits:,} known commits, {found.n_unknown:,} of them not in the database",
        right=("passed", "pending"),
    )


@app.command()
def evaluate(
    known: Annotated[Path, typer.Option("--known", help="CSV of known fixes, as for label.")],
    others: Annotated[
        int, typer.Option("--others", min=1, help="At most so many other commits that passed s0_2.")
    ] = 300,
    known_max: Annotated[int | None, typer.Option("--known-max", min=1, help="At most so many known fixes.")] = None,
    prior: Annotated[
        float | None,
        typer.Option(
            "--prior", min=0, max=1, help="Share of fixes among all rows that pass s0_2 [default: that of the list]."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for pictures (ROC, reliability) and the figures as JSON.")
    ] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Have s0_3 use Platt's fit to all these rows; its verdicts become stale.")
    ] = False,
    db: Db = None,
    repo: Repo = None,
    model: Model = None,
    endpoint: Endpoint = None,
    api_key_env: ApiKeyEnv = None,
    profile: Profile = None,
    deterministic: Deterministic = None,
    as_json: Json = False,
    config_file: Config = None,
) -> None:
    """How well the model tells known fixes from other commits at s0_3, and which threshold suits.

    Commits are taken by SHA, as many of both kinds as asked for. Answers are
    kept: an evaluation that was stopped goes on, and s0_3 does not ask again.
    Without --fit nothing else changes.

    Example: trustmine evaluate --known known_fixes.csv --model qwen2.5-coder-7b.Q4_K_M.gguf --out eval/
    """
    from trustmine import evaluate as evaluating
    from trustmine import evaluation_report, pipeline, plots

    if out is not None:
        plots.require()
    flags = {"model": model, "endpoint": endpoint, "api_key_env": api_key_env, "deterministic": deterministic}
    settings = _settings(config_file, db=db, profile=profile, **flags).settings
    with _database(settings) as conn:
        sample = evaluating.choose(conn, known, _scope(conn, repo), n_others=others, n_known=known_max)
        models = pipeline.Models(conn, settings)
        try:
            engine = models.get()
            found = evaluating.evaluate(conn, settings, engine, sample, prior=prior, show=console.progress)
        finally:
            models.close()
        _report_evaluation(found, as_json)
        for path in evaluation_report.write(found, out) if out is not None else ():
            console.say(f"Written: {path}")
        if fit:
            evaluating.store(conn, settings, engine[1], found)
            console.say("s0_3 uses the fit from now on; redo its verdicts: trustmine advance --stage s0_3 --stale")


def _report_evaluation(found: Any, as_json: bool) -> None:
    from trustmine import evaluation_report

    if as_json:
        console.print_json(evaluation_report.as_data(found))
        return
    for table in evaluation_report.tables(found):
        console.table(table.columns, table.rows, title=table.title, right=table.columns[1:])
    for note in evaluation_report.notes(found):
        console.say(note)


# ---------------------------------------------------------------- keeping it in order


@app.command()
def verify(
    db: Db = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Send damaged rows back before their stage; drop what cannot be derived.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Without reading git and doing stages again.")] = False,
    as_json: Json = False,
    config_file: Config = None,
) -> None:
    """Check that what is stored holds together and can be derived again; exit code 1 if not.

    Workers may go on meanwhile. No model is loaded: recorded answers are used.

    Example: trustmine verify --repair && trustmine run
    """
    from trustmine import verify as verifying

    settings = _settings(config_file, db=db).settings
    with _database(settings, read_only=not repair) as conn:
        results = verifying.verify(conn, settings, console.progress, repair=repair, is_quick=quick)
    if as_json:
        console.print_json([verifying.as_plain(result) for result in results])
    else:
        console.print_findings(results, repair)
    if any(result.n_left if repair else result.n_found for result in results):
        raise typer.Exit(1)


@app.command()
def failures(db: Db = None, repo: Repo = None, as_json: Json = False, config_file: Config = None) -> None:
    """What went wrong, by stage and cause: rows set aside, and rows that will be tried again.

    Example: trustmine failures --json
    """
    from dataclasses import asdict

    from trustmine import failures as failing

    with _database(_settings(config_file, db=db).settings, read_only=True) as conn:
        found = failing.causes(conn, _scope(conn, repo))
    if as_json:
        console.print_json([asdict(cause) for cause in found])
        return
    console.table(
        ("stage", "set aside", "retried", "cause", "for example"),
        [(one.stage, one.n_set_aside, one.n_retried, one.cause, one.example[:12]) for one in found],
        title="" if found else "no failures",
        right=("set aside", "retried"),
    )


@app.command()
def retry(
    stage: Annotated[str | None, typer.Option("--stage", help="Only rows that failed at this stage.")] = None,
    cause: Annotated[str | None, typer.Option("--cause", help="Only rows whose last error holds this text.")] = None,
    db: Db = None,
    repo: Repo = None,
    config_file: Config = None,
) -> None:
    """Bring rows that were set aside back, as if they had never been tried (see failures).

    Example: trustmine retry --stage s1_1 --cause "Cannot read blob"
    """
    from trustmine import failures as failing
    from trustmine import stages

    if stage is not None:
        stages.get(stage)
    with _database(_settings(config_file, db=db).settings) as conn:
        n = failing.retry(conn, stage=stage, cause=cause, scope=_scope(conn, repo))
    console.say(f"{n:,} rows are pending again")


@app.command()
def upgrade(db: Db = None, config_file: Config = None) -> None:
    """Bring a database of an older trustmine up to date; a copy of it as it was stays beside it.

    Every command that writes does this too.

    Example: trustmine upgrade --db old.db
    """
    from trustmine.db.connect import schema_version

    settings = _settings(config_file, db=db).settings
    with _database(settings):
        console.say(f"{settings.db} is of schema {schema_version()}, the present one")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The copy to make; must not be there.")],
    db: Db = None,
    config_file: Config = None,
) -> None:
    """Make a whole copy of the database, also while workers write.

    Example: trustmine backup before-upgrade.db
    """
    from trustmine.db.backup import backup as copy

    settings = _settings(config_file, db=db).settings
    with _database(settings, read_only=True) as conn, console.progress("backup", None) as draw:
        size_bytes = copy(conn, file, lambda done, total: draw(done))
    console.say(f"{file}: a whole copy of {settings.db}, {size_bytes / 1e6:,.1f} MB")


# ------------------------------------------------------------------ export and serve


@app.command()
def export(
    out_dir: Annotated[Path, typer.Argument(help="Folder to write; made if it is not there.")],
    format: Annotated[
        Literal["alpaca", "messages", "sharegpt", "parquet", "dpo", "kto", "sven", "safecoder", "detection", "bench"],
        typer.Option("--format", help="Shape of the files; see docs/FORMATS.md."),
    ] = "alpaca",
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", help="Only this task: locate, locate_explain, infill, refine, calibrate, abstain, benign."
        ),
    ] = None,
    split: Annotated[
        Literal["train", "val", "test", "bench"] | None, typer.Option("--split", help="Only this split.")
    ] = None,
    split_by: Annotated[
        Literal["date", "project"] | None,
        typer.Option("--split-by", help="Train, val and test by date or project [default: all train but bench]."),
    ] = None,
    plots: Annotated[bool, typer.Option("--plots", help="Draw what the rows are about (needs matplotlib).")] = False,
    db: Db = None,
    config_file: Config = None,
) -> None:
    """Write training files with a card and a manifest of what made them.

    Bench is what comes after the cutoff and has a CVE. No commit, function or
    CVE is in two splits. The same database gives the same bytes. The formats
    sven, safecoder and detection take every fix that passed s1_1 and are
    split by date; bench takes those of split bench; the others take the
    instructions of s4.

    Example: trustmine export out/ --format messages --split-by date
    """
    from trustmine import export as exporting

    with (
        _database(_settings(config_file, db=db).settings, read_only=True) as conn,
        console.progress("export", None) as draw,
    ):
        manifest = exporting.export(
            conn,
            out_dir,
            format,
            tasks=tuple(task or ()),
            split=split,
            split_by=split_by,
            pictures=plots,
            progress=draw,
        )
    for name, by_kind in manifest.counts.items():
        console.say(f"{name}: " + ", ".join(f"{what} {n:,}" for what, n in by_kind.items()))
    left_out = ", ".join(f"{n:,} {reason}" for reason, n in manifest.dropped.items() if n)
    if left_out:
        console.say(f"left out: {left_out}")
    n_rows = sum(file.n_rows for file in manifest.files.values())
    console.say(f"{n_rows:,} {'row' if n_rows == 1 else 'rows'} in {out_dir}")


@app.command()
def leakage(
    data: Annotated[Path, typer.Argument(help="Folder of an export or another data set, or one file.")],
    against: Annotated[
        Path | None, typer.Option("--against", help="Another data set (file or folder) to compare all of it with.")
    ] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0.1, max=1, help="Share of token runs from which code is a near-copy.")
    ] = 0.8,
    as_json: Json = False,
) -> None:
    """Find what training and evaluation data have in common; exit code 1 if there is anything.

    Commits, CVEs, functions (as they are; white space and comments aside) and
    near-copies. Takes JSON Lines, JSON and Parquet, of trustmine or others.

    Example: trustmine leakage out/ --against bench.jsonl
    """
    from trustmine import leakage as leaking

    with console.progress("rows", None) as draw:
        report = leaking.compare(data, against, threshold, draw)
    if as_json:
        console.print_json(report.as_json())
    else:
        if report.findings:
            console.table(
                ("what", "sides", "similarity", "found at", "begins"),
                [(f.kind, " and ".join(f.sides), f.similarity, "\n".join(f.places), f.what) for f in report.findings],
            )
        rows = ", ".join(f"{side} {n:,}" for side, n in report.rows.items())
        console.say(f"{len(report.findings):,} findings; rows: {rows}")
    if report.findings:
        raise typer.Exit(1)


@app.command()
def score(
    bench: Annotated[Path, typer.Argument(help="The benchmark: bench.jsonl of export --format bench.")],
    answers: Annotated[
        Path,
        typer.Argument(help="JSON Lines: id, answer (code for <MASK_1>); optional abstain, confidence from 0 to 1."),
    ],
    as_json: Json = False,
    png: Annotated[Path | None, typer.Option("--png", help="Draw risk over coverage here.")] = None,
) -> None:
    """Score answers to the benchmark: right, parsing, similar to fix or weakness; declined; by CWE.

    Example: trustmine score bench/bench.jsonl answers.jsonl --png risk.png
    """
    from trustmine import plots
    from trustmine import score as scoring

    result = scoring.score(bench, answers)
    if png is not None:
        if not result.curve:
            raise TrustmineError("There is no curve to draw", str(answers), "Every answer needs a confidence")
        plots.risk_coverage(png, result.curve)
    if as_json:
        console.print_json(result.as_json())
        return
    names = [field.name for field in fields(scoring.Score)]
    console.table(("all", ""), [(name, _rounded(getattr(result.total, name))) for name in names], right=("",))
    shown = ("n", "abstained", "right", "parses", "to_fixed", "to_vulnerable")
    rows = [(cwe, *(_rounded(getattr(one, name)) for name in shown)) for cwe, one in result.by_cwe.items()]
    console.table(("cwe", *shown), rows, right=shown)


def _rounded(value: int | float | None) -> str | int:
    return value if isinstance(value, int) else "" if value is None else f"{value:.3f}"


@app.command()
def serve(
    db: Db = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 8001,
    open_browser: Annotated[bool, typer.Option("--open", help="Open a browser.")] = False,
    config_file: Config = None,
) -> None:
    """Look at the database in a browser: datasette with our pages, read-only.

    Example: trustmine serve --port 8001
    """
    from trustmine import web

    settings = _settings(config_file, db=db).settings
    code = web.serve(
        Path(settings.db),
        host=host,
        port=port,
        open_browser=open_browser,
        ready=lambda url: console.say(f"{url}  (Ctrl-C ends it)"),
    )
    raise typer.Exit(code)


# -------------------------------------------------------------- demo, doctor, settings


@app.command()
def demo(
    path: Annotated[Path, typer.Argument(help="Folder to write the repository to.")] = Path("demo/repo"),
    known_fixes: Annotated[
        Path | None, typer.Option("--known-fixes", help="Also write the list of its fixes (CSV) here.")
    ] = None,
) -> None:
    """Write a small C project with a history of some 60 commits to try things on.

    Example: trustmine demo demo/repo && trustmine run demo/repo --db demo/trustmine.db
    """
    from trustmine import demo as writing

    head = writing.write_demo(path)
    if known_fixes is not None:
        writing.write_known_fixes(known_fixes)
    console.say(f"{path}: the demo repository at {head[:12]}")


@app.command()
def doctor(
    db: Db = None,
    model: Model = None,
    endpoint: Endpoint = None,
    api_key_env: ApiKeyEnv = None,
    as_json: Json = False,
    config_file: Config = None,
) -> None:
    """Check what trustmine needs: each line is ok, or says what to do.

    Example: trustmine doctor --model llama-3-70b.Q4_K_M.gguf
    """
    from trustmine import doctor as checking

    settings = _settings(config_file, db=db, model=model, endpoint=endpoint, api_key_env=api_key_env).settings
    checks = checking.check(settings)
    if as_json:
        console.print_json([{"name": c.name, "ok": c.ok, "found": c.found, "hint": c.hint} for c in checks])
    else:
        console.table(
            ("", "check", "found", "what to do"), [("ok" if c.ok else "!!", c.name, c.found, c.hint) for c in checks]
        )
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@app.command()
def settings(profile: Profile = None, as_json: Json = False, config_file: Config = None) -> None:
    """The settings in force, and where each value came from.

    Example: TRUSTMINE_MAX_COMMIT_TOKENS=2000 trustmine settings
    """
    loaded = _settings(config_file, profile=profile)
    values = {field.name: getattr(loaded.settings, field.name) for field in fields(Settings)}
    if as_json:
        console.print_json({k: {"value": v, "source": loaded.sources[k]} for k, v in values.items()})
        return
    helps: Mapping[str, str] = {field.name: field.metadata["help"] for field in fields(Settings)}
    console.table(
        ("setting", "value", "from", "what it is"),
        [(name, _shown(value), loaded.sources[name], helps[name]) for name, value in values.items()],
    )


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    return "(none)" if value is None else f"{value}"


# ----------------------------------------------------------------------------- main


def _version(wanted: bool) -> None:
    if wanted:
        console.out.print(f"trustmine {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(args: list[str] | None = None) -> None:
    """Run a command; exit 0 fine, 1 known error, 2 usage, 3 our bug, 130 interrupted."""
    stopping.listen()
    sys.exit(_exit_code(lambda: app(args=args, standalone_mode=False)))


def _exit_code(command: Callable[[], object]) -> int:
    try:
        code = command()
        if code == INTERRUPTED:  # typer's answer to Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        console.say("Interrupted; nothing is lost: run it again to go on")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - the reader has gone
        return 0
    except sqlite3.OperationalError as error:
        hint = "Check room, rights and whether another program holds it; nothing that was finished is lost"
        console.print_error(DatabaseError(f"The database does not work: {error}", "", hint))
        return 1
    except TrustmineError as error:
        console.print_error(error)
        return 1
    except MemoryError:
        hint = "Nothing that was finished is lost. Give it more memory, fewer --workers, or a smaller n_ctx or model"
        console.print_error(TrustmineError("Out of memory", "", hint))
        return 1
    except Exception as error:
        if type(error) is sqlite3.DatabaseError:  # of its kinds, mistakes in SQL are our bugs
            hint = "See what is wrong: trustmine verify; then restore a backup, or try: sqlite3 FILE .recover"
            console.print_error(DatabaseError(f"The database is damaged: {error}", "", hint))
            return 1
        console.say(f"This is a bug in trustmine: {type(error).__name__}: {error}\n  Details: {_log(error)}")
        return 3


def _log(error: Exception) -> Path:
    """A file with versions and the traceback."""
    with tempfile.NamedTemporaryFile("w", prefix="trustmine-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(f"trustmine {__version__}, Python {platform.python_version()}, {platform.platform()}\n")
        file.write(f"{sys.argv}\n\n")
        file.write("".join(traceback.format_exception(error)))
    return Path(file.name)


if __name__ == "__main__":
    main()
