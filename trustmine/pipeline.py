"""Stages one after the other, or side by side: what `advance` and `run` do, with one model for all of them.

Promises: a model is loaded once per run, and only if a stage has rows for it.
`run` does the stages before the model first, since only then is known which
rows are the most promising; then all others at once, every row through as many
as it can, so that the model always has something to judge.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from trustmine import calibrate, tools, worker
from trustmine.config import Settings
from trustmine.crew import NICENESS, Crew, Task
from trustmine.db import queries, recipes
from trustmine.db.claims import Scope, Tally
from trustmine.ingest import Ingested
from trustmine.llm.base import Engine
from trustmine.meter import Metered
from trustmine.stages import STAGES, aside, asks_model, get

# Fewer rows than this are done before a second process has started.
WORTH_PROCESSES = 1_000
# Worker processes beside a model, at most: they only have to keep it busy.
MAX_BESIDE_MODEL = 8
# Rows that a scope lists at once: each claim reads all of them (10 ms for so many, 55 ms for 90,000, on 2 cores).
LISTED_ROWS = 20_000

Show = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
# Draws how far several stages are: stage, rows done, rows in all if known.
Board = AbstractContextManager[Callable[[str, int, int | None], None]]


class Models:
    """The engine of a run, opened when the first row needs it."""

    def __init__(self, conn: sqlite3.Connection, settings: Settings) -> None:
        self._conn, self._settings = conn, settings
        self._engine: tuple[Metered, int] | None = None

    def get(self) -> tuple[Engine, int]:
        if self._engine is None:
            engine, model_id = tools.open_engine(self._conn, self._settings)
            self._engine = (Metered(engine, self._conn, model_id), model_id)
        return self._engine

    @property
    def meter(self) -> Metered | None:
        """What the engine has done, if it was opened."""
        return None if self._engine is None else self._engine[0]

    def close(self) -> None:
        if self._engine is not None:
            self._engine[0].close()
            self._engine = None


@dataclass(frozen=True, slots=True)
class Done:
    """What a stage did in this run."""

    stage: str
    tally: Tally
    seconds: float | None  # None: it went on beside others


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run works: which rows, how many, with how many processes."""

    scope: Scope = Scope()
    limit: int | None = None  # rows per stage
    n_workers: int | None = None  # None: one per core for git and CPU stages, a few beside a model


def n_waiting(conn: sqlite3.Connection, stage_name: str, scope: Scope) -> int:
    """Rows that the stage would take now."""
    stage = get(stage_name)
    return queries.n_pending(conn, stage.AFTER, scope) + queries.n_pending_aside(conn, stage_name, aside(stage), scope)


def advance(
    db: Path, conn: sqlite3.Connection, stage_name: str, settings: Settings, models: Models, plan: Plan, show: Show
) -> Done:
    """Work on one stage until none of the plan's rows is pending."""
    stage = get(stage_name)
    waiting = _n_to_do(conn, stage_name, plan)
    started = monotonic()
    if waiting == 0:
        return Done(stage_name, Tally(), 0.0)
    is_asking = asks_model(stage, settings)
    n_workers = plan.n_workers or (1 if is_asking or waiting < WORTH_PROCESSES else os.cpu_count() or 1)
    engine: tuple[Engine, int] | None = None
    scope = plan.scope
    if is_asking and n_workers == 1:
        engine = _open(conn, settings, models, scope, stage_name, show)  # before the bar: loading is not judging
        scope = scope if engine is not None else replace(scope, is_labelled=True, qualities=settings.trusted_labels)
    total = Tally()
    with show(stage_name, waiting) as draw:

        def progress(_: str, tally: Tally) -> None:
            nonlocal total
            total += tally
            draw(total.total)

        if n_workers > 1:
            task = Task(db, settings, plan.scope, NICENESS if is_asking else 0)
            crew = Crew(
                task,
                n_workers,
                plan.limit,
                lambda name: _open(conn, settings, models, plan.scope, name, show),
                progress,
            )
            crew.run([[stage_name]])
        else:
            allowance = worker.Allowance(plan.limit)
            worker.advance(
                conn, stage_name, settings, engine=engine, scope=scope, allowance=allowance, progress=progress
            )
    return Done(stage_name, total, monotonic() - started)


def _n_to_do(conn: sqlite3.Connection, stage_name: str, plan: Plan) -> int:
    """Rows that the plan would take to a stage now."""
    waiting = n_waiting(conn, stage_name, plan.scope)
    return waiting if plan.limit is None else min(waiting, plan.limit)


def _open(
    conn: sqlite3.Connection, settings: Settings, models: Models, scope: Scope, stage_name: str, show: Show
) -> tuple[Engine, int] | None:
    """The engine for a stage, calibrated where that stage needs it; None if lists have judged all its rows."""
    if stage_name != calibrate.STAGE:
        return models.get()
    labelled = replace(scope, is_labelled=True, qualities=settings.trusted_labels)
    if n_waiting(conn, stage_name, labelled) == n_waiting(conn, stage_name, scope):
        return None
    engine = models.get()
    with show("calibrating", settings.calibration_rows) as draw:
        calibrate.ensure(conn, settings, engine, draw)
    return engine


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run did."""

    stages: tuple[Done, ...]
    seconds: float
    ingested: Ingested | None


def run(
    db: Path,
    conn: sqlite3.Connection,
    settings: Settings,
    models: Models,
    plan: Plan,
    board: Board,
    feed: Generator[int, None, Ingested] | None = None,
) -> Ran:
    """All stages until nothing is pending.

    `feed`, from ingest.steps, brings new rows while the first stages work on
    them.
    """
    began = monotonic()
    tallies: dict[str, Tally] = {}
    totals: dict[str, int] = {}
    ingested: Ingested | None = None
    first = tuple(STAGES)[: tuple(STAGES).index(calibrate.STAGE)]
    with board as draw:

        def progress(stage: str, tally: Tally) -> None:
            tallies[stage] = tallies.get(stage, Tally()) + tally
            draw(stage, tallies[stage].total, totals.get(stage))

        def fed(walking: Generator[int, None, Ingested]) -> Iterator[int]:
            nonlocal ingested
            while True:
                try:
                    n = next(walking)
                except StopIteration as stop:
                    ingested = stop.value
                    return
                draw("ingest", n, None)
                yield n

        @contextmanager
        def show(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
            yield lambda done: draw(label, done, total)

        def opened(stage: str) -> tuple[Engine, int] | None:
            if stage == calibrate.STAGE:  # all of its rows wait: no worker can begin before this
                totals[stage] = _n_to_do(conn, stage, plan)
            return _open(conn, settings, models, plan.scope, stage, show)

        n_workers = plan.n_workers or max(2, min(MAX_BESIDE_MODEL, os.cpu_count() or 1))
        task = Task(db, settings, plan.scope, NICENESS)
        crew = Crew(task, n_workers, plan.limit, opened, progress)
        crew.run([first, tuple(STAGES)], None if feed is None else fed(feed))
    stages = tuple(Done(stage, tallies[stage], None) for stage in STAGES if stage in tallies)
    return Ran(stages, monotonic() - began, ingested)


def send_stale_back(
    conn: sqlite3.Connection,
    settings: Settings,
    models: Models,
    scope: Scope,
    only: str | None,
    limit: int | None = None,
) -> dict[str, list[int]]:
    """Send rows that another recipe made back before their earliest stale stage; their ids by that stage.

    `only`: look at this stage alone. `limit`: no more than so many rows in
    all, for each may go through every stage after its own; the earliest
    stage's first, in the order in which rows are claimed. Stages that ask a
    model count as stale only if a model ever answered, or should have, so
    none is loaded for nothing.
    """
    asking = [name for name, stage in STAGES.items() if asks_model(stage, settings)]
    asked = conn.execute(
        """SELECT 1 FROM steps JOIN recipes ON id = recipe_id
           WHERE model_id IS NOT NULL OR steps.stage <> ?1 AND steps.stage IN (SELECT value FROM json_each(?2))
           LIMIT 1""",
        (calibrate.STAGE, json.dumps(asking)),
    ).fetchone()
    wanted = only is None or only in asking
    engine = models.get() if asked and wanted else None
    model = None if engine is None else (engine[0].info, engine[1])
    present = tools.present_recipes(conn, settings, model)
    if only is not None:
        present = {only: present[only]} if only in present else {}
    stale = recipes.stale(conn, present, scope, also=[tools.label_recipe(conn, settings)])
    sent: dict[str, list[int]] = {}
    for stage, ids in stale.items():
        if limit is not None:
            left = limit - sum(map(len, sent.values()))
            ids = recipes.first(conn, ids, settings.order, left)
        if ids:
            recipes.send_back(conn, stage, ids)
            sent[stage] = ids
    return sent


def redo(
    db: Path,
    conn: sqlite3.Connection,
    stage_name: str,
    settings: Settings,
    models: Models,
    plan: Plan,
    ids: Sequence[int],
    show: Show,
) -> Done:
    """Work on one stage until none of these rows is pending; other rows are left alone."""
    tally, seconds = Tally(), 0.0
    for begin in range(0, len(ids), LISTED_ROWS):
        scope = replace(plan.scope, ids=tuple(ids[begin : begin + LISTED_ROWS]))
        # No limit: it has told how many were sent back, and a row that fails may be tried again.
        done = advance(db, conn, stage_name, settings, models, replace(plan, scope=scope, limit=None), show)
        tally += done.tally
        seconds += done.seconds or 0.0
    return Done(stage_name, tally, seconds)


def count_stale(conn: sqlite3.Connection, settings: Settings, scope: Scope) -> dict[str, int]:
    """Rows per earliest stale stage, as far as it can be told without loading a model."""
    present = tools.present_recipes(conn, settings, tools.known_model(conn, settings))
    stale = recipes.stale(conn, present, scope, also=[tools.label_recipe(conn, settings)])
    return {stage: len(ids) for stage, ids in stale.items()}
