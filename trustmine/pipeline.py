"""Stages one after the other: what `advance` and `run` do, with one model for all of them.

Promises: a model is loaded once per run, and only if a stage has rows for it.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from trustmine import calibrate, tools, worker
from trustmine.config import Settings
from trustmine.db import queries, recipes
from trustmine.db.claims import Scope, Tally
from trustmine.llm.base import Engine
from trustmine.stages import STAGES, aside, get

# Fewer rows than this are done before a second process has started.
WORTH_PROCESSES = 1_000

Show = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


class Models:
    """The engine of a run, opened when the first row needs it."""

    def __init__(self, conn: sqlite3.Connection, settings: Settings) -> None:
        self._conn, self._settings = conn, settings
        self._engine: tuple[Engine, int] | None = None

    def get(self) -> tuple[Engine, int]:
        if self._engine is None:
            self._engine = tools.open_engine(self._conn, self._settings)
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine[0].close()
            self._engine = None


@dataclass(frozen=True, slots=True)
class Done:
    """What a stage did in this run."""

    stage: str
    tally: Tally
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run works: which rows, how many, with how many processes."""

    scope: Scope = Scope()
    limit: int | None = None  # rows per stage
    n_workers: int | None = None  # None: one per core for git and CPU stages, one for stages that ask a model


def n_waiting(conn: sqlite3.Connection, stage_name: str, scope: Scope) -> int:
    """Rows that the stage would take now."""
    stage = get(stage_name)
    return queries.n_pending(conn, stage.AFTER, scope) + queries.n_pending_aside(conn, stage_name, aside(stage), scope)


def advance(
    db: Path, conn: sqlite3.Connection, stage_name: str, settings: Settings, models: Models, plan: Plan, show: Show
) -> Done:
    """Work on one stage until none of the plan's rows is pending."""
    stage = get(stage_name)
    waiting = n_waiting(conn, stage_name, plan.scope)
    if plan.limit is not None:
        waiting = min(waiting, plan.limit)
    started = monotonic()
    if waiting == 0:
        return Done(stage_name, Tally(), 0.0)
    n_workers = plan.n_workers or _default_workers(stage.KIND, waiting)
    total = Tally()
    asks = stage.KIND == "llm"
    scope = plan.scope
    if stage_name == calibrate.STAGE:
        labelled = replace(scope, is_labelled=True)
        if n_waiting(conn, stage_name, labelled) == n_waiting(conn, stage_name, scope):
            asks, scope = False, labelled  # lists have judged them all: no model is loaded for nothing
    if n_workers == 1 and asks:
        engine = models.get()  # before the bar appears: loading is not judging
        if stage_name == calibrate.STAGE:
            with show("calibrating", settings.calibration_rows) as draw:
                calibrate.ensure(conn, settings, engine, draw)
    with show(stage_name, waiting) as draw:

        def progress(tally: Tally) -> None:
            nonlocal total
            total += tally
            draw(total.total)

        if n_workers > 1:
            order = worker.Order(db, stage_name, settings, scope, asks)
            worker.advance_with(n_workers, order, limit=plan.limit, progress=progress)
        else:
            worker.advance(
                conn,
                stage_name,
                settings,
                engine=models.get() if asks else None,
                scope=scope,
                allowance=worker.Allowance(plan.limit),
                progress=progress,
            )
    return Done(stage_name, total, monotonic() - started)


def _default_workers(kind: str, waiting: int) -> int:
    if kind == "llm" or waiting < WORTH_PROCESSES:
        return 1
    return os.cpu_count() or 1


def run(
    db: Path,
    conn: sqlite3.Connection,
    settings: Settings,
    models: Models,
    plan: Plan,
    show: Show,
    report: Callable[[Done], None],
) -> None:
    """All stages in their order until nothing is pending; each is reported when it is done."""
    for name in STAGES:
        done = advance(db, conn, name, settings, models, plan, show)
        if done.tally.total:
            report(done)


def send_stale_back(
    conn: sqlite3.Connection, settings: Settings, models: Models, scope: Scope, only: str | None
) -> dict[str, int]:
    """Send rows that another recipe made back before their earliest stale stage; how many per stage.

    `only`: look at this stage alone. Stages that ask a model count as stale
    only if a model ever answered, so no model is loaded for nothing.
    """
    asked = conn.execute(
        "SELECT 1 FROM steps JOIN recipes ON id = recipe_id WHERE model_id IS NOT NULL LIMIT 1"
    ).fetchone()
    wanted = only is None or get(only).KIND == "llm"
    engine = models.get() if asked and wanted else None
    model = None if engine is None else (engine[0].info, engine[1])
    present = tools.present_recipes(conn, settings, model)
    if only is not None:
        present = {only: present[only]} if only in present else {}
    stale = recipes.stale(conn, present, scope, also=[tools.label_recipe(conn, settings)])
    return {stage: recipes.send_back(conn, stage, ids) for stage, ids in stale.items() if ids}


def count_stale(conn: sqlite3.Connection, settings: Settings, scope: Scope) -> dict[str, int]:
    """Rows per earliest stale stage, as far as it can be told without loading a model."""
    present = tools.present_recipes(conn, settings, tools.known_model(conn, settings))
    stale = recipes.stale(conn, present, scope, also=[tools.label_recipe(conn, settings)])
    return {stage: len(ids) for stage, ids in stale.items()}
