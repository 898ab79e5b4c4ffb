"""status and show: how far all rows are, and all that is known about one."""

from typing import Annotated

import typer

from trustmine import console
from trustmine.cli.shared import Config, Db, Json, Profile, Repo, load_settings, open_database, scope_of


def status(
    db: Db = None, repo: Repo = None, profile: Profile = None, as_json: Json = False, config_file: Config = None
) -> None:
    """The funnel: per stage pending, claimed, passed, failed, and rejected by reason.

    And how fast it goes; with --repo only at stages where no other repository
    has rows left, for nothing tells which one the workers take next.

    Example: trustmine status --json
    """
    from trustmine import pipeline
    from trustmine.db import queries

    settings = load_settings(config_file, db=db, profile=profile).settings
    with open_database(settings, read_only=True) as conn:
        scope = scope_of(conn, repo)
        counts = queries.funnel(conn, scope)
        rates = queries.rates(conn, counts, settings.lease_s, scope)
        models = queries.model_runs(conn, settings.lease_s)
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

    with open_database(load_settings(config_file, db=db).settings, read_only=True) as conn:
        commits = showing.find(conn, sha, scope_of(conn, repo).repo_id)
        if as_json:
            console.print_json(console.jsonable([showing.everything(conn, commit) for commit in commits]))
            return
        for commit in commits:
            showing.render(conn, commit)
