"""What a stage's results depend on, and the tools it works with, for one worker.

From the settings in force: the present recipe of each stage, and the Context
a worker hands to `run`.
"""

import shlex
import sqlite3
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from trustmine import calibration, gitcli
from trustmine.config import Settings
from trustmine.db import queries, recipes
from trustmine.db.facts import FactReader
from trustmine.errors import RepositoryError
from trustmine.gitrepo import GitRepo
from trustmine.keywords import KeywordMatcher
from trustmine.llm import load
from trustmine.llm.base import OPENAI_COMPATIBLE, Engine, ModelInfo
from trustmine.prompts import Prompts
from trustmine.stages import STAGES, asks_model, s0_3_classify, unasked
from trustmine.stages.base import Context, Stage

# Settings that every answer of a model depends on, whatever the stage.
LLM_SETTINGS = ("n_ctx", "seed", "temperature")


class Repos:
    """The repositories of the database, opened when first asked for."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._open: dict[int, GitRepo] = {}

    def get(self, repo_id: int) -> GitRepo:
        if repo_id not in self._open:
            name, path, url = self._conn.execute(
                "SELECT name, path, url FROM repos WHERE id = ?", (repo_id,)
            ).fetchone()
            try:
                self._open[repo_id] = GitRepo.open(path)
            except RepositoryError as error:
                place = shlex.quote(gitcli.without_password(url)) if url else "NEW_PLACE"
                raise RepositoryError(
                    f"The repository {name} cannot be read any more",
                    error.where or path,
                    f"Put it back, or say where it is now: trustmine ingest {place} --name {shlex.quote(name)}; "
                    "or work on others with --repo",
                ) from error
        return self._open[repo_id]


def prompts(settings: Settings) -> Prompts:
    return Prompts(Path(settings.prompts) if settings.prompts else None)


def context(conn: sqlite3.Connection, settings: Settings, model_id: int | None = None) -> Context:
    """The tools of one worker. With a model: its calibration for s0_3, if there is one."""
    library = prompts(settings)
    return Context(
        settings=settings,
        facts=FactReader(conn),
        repos=Repos(conn),
        prompts=library,
        keywords=KeywordMatcher(settings.keywords, settings.match_mode),
        crash_words=KeywordMatcher(settings.crash_words, "word") if "crash_words" in settings.admit else None,
        calibration=None
        if model_id is None
        else present_calibration(conn, model_id, library.hash(s0_3_classify.CLASSIFY_PROMPT)),
    )


def present_calibration(conn: sqlite3.Connection, model_id: int, prompt_hash: str) -> calibration.Calibration | None:
    """The calibration of a model and prompt that was made, or chosen again, last."""
    row = conn.execute(
        """SELECT id, hash, method, "offset", scale, undecided_cutoff, n_rows FROM calibrations
           WHERE model_id = ? AND prompt_hash = ? ORDER BY created_at_s DESC, id DESC LIMIT 1""",
        (model_id, prompt_hash),
    ).fetchone()
    return None if row is None else calibration.Calibration(*row)


def recipe(stage: Stage, ctx: Context, model: ModelInfo | None) -> dict[str, object]:
    """Everything the stage's results depend on besides the row, as plain JSON values.

    Without a model s0_3 has one too: for rows that lists of known commits judge,
    whether a model is at hand or not. A stage that is told to ask none depends
    on no prompt either.
    """
    is_asking = asks_model(stage, ctx.settings)
    content: dict[str, object] = {
        "stage": stage.NAME,
        "version": stage.VERSION,
        "settings": _values(ctx.settings, recipe_settings(stage, ctx.settings)),
        "prompts": {name: ctx.prompts.hash(name) for name in stage.PROMPTS} if is_asking else {},
    }
    if is_asking:
        if model is None and stage.NAME == s0_3_classify.NAME:
            return content | {"model": None}
        if model is None:
            raise AssertionError(f"{stage.NAME} has no recipe without a model")
        content["model"] = model.sha256
        content["engine"] = model.engine
        content["sampling"] = _values(ctx.settings, LLM_SETTINGS)
    if stage.NAME == s0_3_classify.NAME:
        content["calibration"] = None if ctx.calibration is None else ctx.calibration.hash
    return content


def recipe_settings(stage: Stage, settings: Settings) -> tuple[str, ...]:
    """The settings in a stage's recipe: the one that spares it the model only where it does.

    So the recipes of rows that a model answered did not change when there came
    to be another way.
    """
    sparing = [name for name, _ in unasked(stage)] if asks_model(stage, settings) else []
    return tuple(name for name in stage.SETTINGS if name not in sparing)


def _values(settings: Settings, names: Iterable[str]) -> dict[str, object]:
    known = {field.name for field in fields(settings)}
    unknown = set(names) - known
    if unknown:
        raise AssertionError(f"a stage depends on settings that do not exist: {unknown}")
    values = {name: getattr(settings, name) for name in sorted(names)}
    return {
        k: list(v) if isinstance(v, tuple) else v if isinstance(v, int | float | None) else str(v)
        for k, v in values.items()
    }


def label_recipe(conn: sqlite3.Connection, settings: Settings) -> str:
    """Hash of the present recipe of rows that lists judge at s0_3."""
    return recipes.recipe_hash(recipe(STAGES[s0_3_classify.NAME], context(conn, settings), None))


def open_engine(conn: sqlite3.Connection, settings: Settings) -> tuple[Engine, int]:
    """The engine of the settings in force, and its model's id. Raises ModelError."""
    engine = load.open_engine(settings, lambda path, size, mtime: recipes.known_model_hash(conn, path, size, mtime))
    return engine, recipes.ensure_model(conn, engine.info)


def known_model(conn: sqlite3.Connection, settings: Settings) -> tuple[ModelInfo, int] | None:
    """The model of the settings in force, without loading it: only if it has answered in this database.

    Of several that an endpoint has had, the one that was opened last.
    """
    if settings.endpoint is not None:
        found = queries.rows(
            conn,
            """SELECT * FROM models WHERE engine = ? AND path = ? AND name = coalesce(?, name)
               ORDER BY mtime_ns DESC LIMIT 1""",
            (OPENAI_COMPATIBLE, settings.endpoint, settings.model),
        )
        if not found:
            return None
        model_id = found[0].pop("id")
        return ModelInfo(**found[0], n_ctx=found[0]["n_ctx_train"]), model_id
    path = load.model_path(settings)
    try:
        stat = path.stat()
    except OSError:
        return None
    found = queries.rows(
        conn,
        "SELECT * FROM models WHERE path = ? AND size_bytes = ? AND mtime_ns = ?",
        (str(path), stat.st_size, stat.st_mtime_ns),
    )
    if not found:
        return None
    model_id = found[0].pop("id")
    return ModelInfo(**found[0], n_ctx=min(settings.n_ctx, found[0]["n_ctx_train"])), model_id


def present_recipes(
    conn: sqlite3.Connection, settings: Settings, model: tuple[ModelInfo, int] | None
) -> dict[str, str]:
    """Hash of the present recipe per stage; stages that ask a model only if one is given."""
    ctx = context(conn, settings, None if model is None else model[1])
    return {
        name: recipes.recipe_hash(recipe(stage, ctx, None if model is None else model[0]))
        for name, stage in STAGES.items()
        if model is not None or not asks_model(stage, settings)
    }
