"""export, leakage, score and serve: take out what was made, compare it, look at it."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal

import typer

from trustmine import console
from trustmine.cli.shared import Config, Db, Json, Repo, load_settings, open_database
from trustmine.errors import TrustmineError


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
    repo: Repo = None,
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
        open_database(load_settings(config_file, db=db).settings, read_only=True) as conn,
        console.board() as draw,
    ):
        manifest = exporting.export(
            conn,
            out_dir,
            format,
            tasks=tuple(task or ()),
            split=split,
            split_by=split_by,
            repo=repo,
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

    with console.board() as draw:
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

    settings = load_settings(config_file, db=db).settings
    code = web.serve(
        Path(settings.db),
        host=host,
        port=port,
        open_browser=open_browser,
        ready=lambda url: console.say(f"{url}  (Ctrl-C ends it)"),
    )
    raise typer.Exit(code)
