"""demo, doctor and settings: try trustmine out, check its set-up, see what is in force."""

import datetime
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from trustmine import console
from trustmine.cli.shared import ApiKeyEnv, Config, Db, Endpoint, Json, Model, Profile, load_settings
from trustmine.config import Settings


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

    settings = load_settings(config_file, db=db, model=model, endpoint=endpoint, api_key_env=api_key_env).settings
    checks = checking.check(settings)
    if as_json:
        console.print_json([{"name": c.name, "ok": c.ok, "found": c.found, "hint": c.hint} for c in checks])
    else:
        console.table(
            ("", "check", "found", "what to do"), [("ok" if c.ok else "!!", c.name, c.found, c.hint) for c in checks]
        )
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def settings(profile: Profile = None, as_json: Json = False, config_file: Config = None) -> None:
    """The settings in force, and where each value came from.

    Example: TRUSTMINE_MAX_COMMIT_TOKENS=2000 trustmine settings
    """
    loaded = load_settings(config_file, profile=profile)
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
