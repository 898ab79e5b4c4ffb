"""verify, failures, retry, upgrade and backup: keep a database in order."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trustmine import console
from trustmine.cli.shared import Config, Db, Json, Repo, load_settings, open_database, scope_of


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

    settings = load_settings(config_file, db=db).settings
    with open_database(settings, read_only=not repair) as conn:
        results = verifying.verify(conn, settings, console.progress, repair=repair, is_quick=quick)
    if as_json:
        console.print_json([verifying.as_plain(result) for result in results])
    else:
        console.print_findings(results, repair)
    if any(result.n_left if repair else result.n_found for result in results):
        raise typer.Exit(1)


def failures(db: Db = None, repo: Repo = None, as_json: Json = False, config_file: Config = None) -> None:
    """What went wrong, by stage and cause: rows set aside, and rows that will be tried again.

    Example: trustmine failures --json
    """
    from trustmine import failures as failing

    with open_database(load_settings(config_file, db=db).settings, read_only=True) as conn:
        found = failing.causes(conn, scope_of(conn, repo))
    if as_json:
        console.print_json([asdict(cause) for cause in found])
        return
    console.table(
        ("stage", "set aside", "retried", "cause", "for example"),
        [(one.stage, one.n_set_aside, one.n_retried, one.cause, one.example[:12]) for one in found],
        title="" if found else "no failures",
        right=("set aside", "retried"),
    )


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
    with open_database(load_settings(config_file, db=db).settings) as conn:
        n = failing.retry(conn, stage=stage, cause=cause, scope=scope_of(conn, repo))
    console.say(f"{n:,} rows are pending again")


def upgrade(db: Db = None, config_file: Config = None) -> None:
    """Bring a database of an older trustmine up to date; a copy of it as it was stays beside it.

    Every command that writes does this too.

    Example: trustmine upgrade --db old.db
    """
    from trustmine.db.connect import schema_version

    settings = load_settings(config_file, db=db).settings
    with open_database(settings):
        console.say(f"{settings.db} is of schema {schema_version()}, the present one")


def backup(
    file: Annotated[Path, typer.Argument(help="The copy to make; must not be there.")],
    db: Db = None,
    config_file: Config = None,
) -> None:
    """Make a whole copy of the database, also while workers write.

    Example: trustmine backup before-upgrade.db
    """
    from trustmine.db.backup import backup as copy

    settings = load_settings(config_file, db=db).settings
    with open_database(settings, read_only=True) as conn, console.progress("backup", None) as draw:
        size_bytes = copy(conn, file, lambda done, total: draw(done))
    console.say(f"{file}: a whole copy of {settings.db}, {size_bytes / 1e6:,.1f} MB")
