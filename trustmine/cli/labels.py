"""label, audit and evaluate: what lists from outside say, and how the stages and the model compare with them."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer._click.exceptions import UsageError  # typer carries click and does not export this

from trustmine import console
from trustmine.cli.shared import (
    ApiKeyEnv,
    Config,
    Db,
    Deterministic,
    Endpoint,
    Json,
    Model,
    Profile,
    Repo,
    load_settings,
    open_database,
    scope_of,
)


def label(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="CSV with a column commit or sha; optional repo, cve or id, cwe, severity, introduced_in, label.",
        ),
    ] = None,
    osv: Annotated[
        Path | None, typer.Option("--osv", help="Folder of OSV records (YAML or JSON, at any depth) instead of a file.")
    ] = None,
    verdict: Annotated[
        Literal["yes", "no"] | None,
        typer.Option("--set", help="The verdict where the file has no column label [default: yes]."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", help="Name of the list [default: the file's, or the database of an OSV record]."),
    ] = None,
    db: Db = None,
    repo: Repo = None,
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
    if osv is not None and repo is not None:
        raise UsageError("--repo is for a file: advisories name their repositories themselves.")
    if osv is not None and verdict is not None:
        raise UsageError("--set is for a file: advisories name fixes alone.")
    settings = load_settings(config_file, db=db).settings
    with open_database(settings) as conn:
        if osv is not None:
            with console.progress("label", None) as draw:
                found = advisories.label(conn, osv, source=source, trusted=settings.trusted_labels, progress=draw)
            console.print_advised(found, as_json)
            return
        assert file is not None, "one of both is given"
        repo_id = scope_of(conn, repo).repo_id
        trusted = settings.trusted_labels
        done = labels.label(conn, file, repo_id=repo_id, source=source, default=verdict or "yes", trusted=trusted)
    if as_json:
        console.print_json(asdict(done))
        return
    console.say(
        f"{done.n_labels:,} labels on {done.n_commits:,} commits; {done.n_unknown:,} lines name commits that are not "
        f"in {_place(repo)}; {done.n_sent_back:,} rows are pending again because of them"
    )


def _place(repo: str | None) -> str:
    return "the database" if repo is None else repo


def audit(
    file: Annotated[Path, typer.Argument(help="CSV of known fixes, as for label.")],
    db: Db = None,
    repo: Repo = None,
    as_json: Json = False,
    config_file: Config = None,
) -> None:
    """Where each known fix of a list is, or got lost: counts per stage and reason.

    Example: trustmine audit known_fixes.csv
    """
    from trustmine import labels

    with open_database(load_settings(config_file, db=db).settings, read_only=True) as conn:
        found = labels.audit(conn, file, scope_of(conn, repo).repo_id)
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
        title=f"{found.n_commits:,} known commits, {found.n_unknown:,} of them not in {_place(repo)}",
        right=("passed", "pending"),
    )


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
    settings = load_settings(config_file, db=db, profile=profile, **flags).settings
    with open_database(settings) as conn:
        sample = evaluating.choose(conn, known, scope_of(conn, repo), n_others=others, n_known=known_max)
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
