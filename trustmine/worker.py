"""The loop: claim rows, run the stage on each, finish them; in one process or several.

Any number of workers may run, also started by hand elsewhere. No transaction
is open while a stage works. Whatever a stage raises fails that row and is
recorded; a TrustmineError is trouble with the run and stops it. Ctrl-C keeps
every result that is complete and gives the other rows back.
"""

import multiprocessing
import multiprocessing.connection
import sqlite3
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, cast

from trustmine import calibrate, tools
from trustmine.config import Settings
from trustmine.db import calls, claims, recipes
from trustmine.db.calls import Call
from trustmine.db.claims import Failure, Scope, Tally
from trustmine.db.connect import connect
from trustmine.errors import TrustmineError
from trustmine.llm.base import ContextOverflow, Engine, ModelInfo
from trustmine.records import Commit, Completion, Outcome, Reject, Request
from trustmine.stages import aside, get, prepare
from trustmine.stages.base import Asking, Context, Stage

POLL_S = 0.2  # how often a parent looks after its workers
CONTEXT_OVERFLOW = "context_overflow"  # the reason any stage that asks a model may reject for

Progress = Callable[[Tally], None]


class Allowance:
    """How many rows may still be claimed; None: no limit. Shared by the workers of one run if asked for."""

    def __init__(self, limit: int | None, *, is_shared: bool = False) -> None:
        self._left: int | Synchronized[int] | None = limit
        if limit is not None and is_shared:
            self._left = multiprocessing.get_context("spawn").Value("q", limit)

    def take(self, wanted: int) -> int:
        """At most `wanted`, fewer if that is all that is left."""
        if self._left is None:
            return wanted
        if isinstance(self._left, int):
            taken = min(wanted, self._left)
            self._left -= taken
            return taken
        with self._left.get_lock():
            taken = min(wanted, self._left.value)
            self._left.value -= taken
        return taken

    def give_back(self, n: int) -> None:
        self.take(-n)


@dataclass(slots=True)
class Post:
    """One worker at one stage: everything the loop needs."""

    conn: sqlite3.Connection
    stage: Stage
    ctx: Context
    recipe_id: int
    worker: str
    scope: Scope
    allowance: Allowance
    progress: Progress

    def claim(self, wanted: int) -> list[Commit]:
        limit = self.allowance.take(wanted)
        if limit == 0:
            return []
        commits = claims.claim(
            self.conn,
            self.stage.NAME,
            self.stage.AFTER,
            self.worker,
            limit=limit,
            lease_s=self.ctx.settings.lease_s,
            scope=self.scope,
            aside=aside(self.stage),
            order=self.ctx.settings.order,
        )
        self.allowance.give_back(limit - len(commits))
        return commits

    def finish(self, results: list[tuple[Commit, Outcome | Failure]], made: Sequence[Call] = ()) -> Tally:
        tally = claims.finish(
            self.conn,
            self.stage.NAME,
            self.worker,
            self.recipe_id,
            results,
            max_attempts=self.ctx.settings.max_attempts,
            made=made,
        )
        self.progress(tally)
        return tally


def advance(
    conn: sqlite3.Connection,
    stage_name: str,
    settings: Settings,
    *,
    engine: tuple[Engine, int] | None = None,
    scope: Scope = Scope(),
    allowance: Allowance | None = None,
    progress: Progress = lambda tally: None,
) -> Tally:
    """Work on the pending rows of a stage in this process until none is left.

    `engine` with its model's id is needed by stages that ask a model; s0_3
    does without one where the scope is rows that a list has labelled.
    """
    stage = get(stage_name)
    model_id = None if engine is None else engine[1]
    if stage_name == calibrate.STAGE and engine is not None:
        calibrate.ensure(conn, settings, engine)
    ctx = tools.context(conn, settings, model_id)
    content = tools.recipe(stage, ctx, None if engine is None else engine[0].info)
    recipe_id = recipes.ensure(conn, stage_name, content, model_id if stage.KIND == "llm" else None)
    post = Post(conn, stage, ctx, recipe_id, claims.worker_name(), scope, allowance or Allowance(None), progress)
    claims.reclaim(conn)
    claims.enter(conn, post.worker, stage_name)
    try:
        if stage.KIND == "llm":
            if engine is None and not (stage_name == calibrate.STAGE and scope.is_labelled):
                raise AssertionError(f"{stage_name} needs an engine")
            return _ask(post, *(engine or (_NoModel(), 0)))
        return _compute(post)
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        claims.leave(conn, post.worker, stage_name)


# --------------------------------------------------------------- stages without a model


def _compute(post: Post) -> Tally:
    total = Tally()
    lease_s = post.ctx.settings.lease_s
    while commits := post.claim(post.ctx.settings.batch_size):
        results: list[tuple[Commit, Outcome | Failure]] = []
        renew_at = time.monotonic() + lease_s / 3
        prepare(post.stage, commits, post.ctx)
        try:
            for commit in commits:
                results.append((commit, _outcome(post, commit)))
                if time.monotonic() > renew_at:
                    claims.renew(post.conn, post.worker, lease_s)
                    renew_at = time.monotonic() + lease_s / 3
        finally:
            total += post.finish(results)  # also on Ctrl-C: what is complete is kept
    return total


def _outcome(post: Post, commit: Commit) -> Outcome | Failure:
    try:
        return cast(Outcome, post.stage.run(commit, post.ctx))
    except TrustmineError:
        raise
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> Failure:
    if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError):
        raise error  # a full disk or a lost database is trouble with the run
    if isinstance(error, MemoryError):
        raise error
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return Failure(line[:500], "".join(traceback.format_exception(error)))


# ------------------------------------------------------------------ stages that ask a model


@dataclass(slots=True)
class _Row:
    """A row in hand: its generator, and the calls it has made."""

    commit: Commit
    asking: Asking
    made: list[Call]
    request: Request | None = None


class _NoModel:
    """In the place of an engine where no row has a question."""

    capacity = 64

    @property
    def info(self) -> ModelInfo:
        raise AssertionError("no model")

    def request_hash(self, request: Request) -> str:
        raise AssertionError("a row that a list has labelled asks a model")

    def submit(self, ticket: int, request: Request) -> None:
        raise AssertionError("no model")

    def poll(self) -> list[tuple[int, Completion | ContextOverflow]]:
        return []

    def close(self) -> None:
        pass


def _ask(post: Post, engine: Engine, model_id: int) -> Tally:
    total = Tally()
    rows: dict[int, _Row] = {}  # by commit id, which is the ticket too
    lease_s = post.ctx.settings.lease_s
    renew_at = time.monotonic() + lease_s / 3
    done = False
    while True:
        while not done and len(rows) < engine.capacity:
            commits = post.claim(engine.capacity - len(rows))
            done = not commits
            for commit in commits:
                row = _Row(commit, cast(Asking, post.stage.run(commit, post.ctx)), [])
                total += _step(post, engine, model_id, rows, row, None)
        if not rows and done:
            return total
        for ticket, answer in engine.poll():
            total += _step(post, engine, model_id, rows, rows[ticket], answer)
        if time.monotonic() > renew_at:
            claims.renew(post.conn, post.worker, lease_s)
            renew_at = time.monotonic() + lease_s / 3


def _step(
    post: Post,
    engine: Engine,
    model_id: int,
    rows: dict[int, _Row],
    row: _Row,
    answer: Completion | ContextOverflow | None,
) -> Tally:
    """Give a row its answer (None: start it) and hand its next question to the engine, or finish it."""
    outcome: Outcome | Failure
    try:
        while True:
            if isinstance(answer, Completion) and row.request is not None:
                row.made.append(Call(row.commit.id, post.stage.NAME, row.request, answer, model_id, engine.info.n_ctx))
            try:
                if isinstance(answer, ContextOverflow):  # a stage may know how to do without
                    row.request = row.asking.throw(answer)
                else:
                    row.request = next(row.asking) if answer is None else row.asking.send(answer)
            except StopIteration as stop:
                outcome = stop.value
                break
            except ContextOverflow:
                outcome = Reject(CONTEXT_OVERFLOW)
                break
            answer = calls.recorded(post.conn, engine.request_hash(row.request))
            if answer is None:
                rows[row.commit.id] = row
                engine.submit(row.commit.id, row.request)
                return Tally()
    except TrustmineError:
        raise
    except Exception as error:
        outcome = _failure(error)
    rows.pop(row.commit.id, None)
    return post.finish([(row.commit, outcome)], row.made)


# --------------------------------------------------------------------- several processes


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker process is told to do."""

    db: Path
    stage: str
    settings: Settings
    scope: Scope
    asks: bool = True  # of a stage that asks a model: whether it will


def advance_with(
    n_workers: int,
    order: Order,
    *,
    limit: int | None = None,
    progress: Progress = lambda tally: None,
) -> Tally:
    """Work on a stage with several processes until nothing is pending. Raises what a worker could not mend."""
    spawn = multiprocessing.get_context("spawn")
    allowance = Allowance(limit, is_shared=True)
    inbox: Any = spawn.SimpleQueue()
    processes = [
        spawn.Process(target=_worker_main, args=(order, allowance, inbox), name=f"trustmine-{order.stage}-{i}")
        for i in range(n_workers)
    ]
    total = Tally()
    trouble: BaseException | None = None

    def read_inbox() -> None:
        nonlocal total, trouble
        while not inbox.empty():
            news = inbox.get()
            if isinstance(news, Tally):
                total += news
                progress(news)
            else:
                trouble = trouble or news

    for process in processes:
        process.start()
    try:
        while running := [process.sentinel for process in processes if process.is_alive()]:
            read_inbox()
            multiprocessing.connection.wait(running, POLL_S)
    except KeyboardInterrupt:
        for process in processes:  # they got the same signal from the terminal; wait for them to put rows back
            process.join()
        raise
    finally:
        read_inbox()
    if trouble is not None:
        raise trouble
    died = [process for process in processes if process.exitcode != 0]
    if died:
        raise TrustmineError(
            f"{len(died)} of {n_workers} workers died",
            f"stage {order.stage}, exit codes {', '.join(str(process.exitcode) for process in died)}",
            "Nothing is lost: run the command again. Code -9 is often the kernel, out of memory",
        )
    return total


def _worker_main(order: Order, allowance: Allowance, inbox: Any) -> None:
    try:
        conn = connect(order.db)
        asks = order.asks and get(order.stage).KIND == "llm"
        engine = tools.open_engine(conn, order.settings) if asks else None
        advance(
            conn,
            order.stage,
            order.settings,
            engine=engine,
            scope=order.scope,
            allowance=allowance,
            progress=inbox.put,
        )
        conn.close()
    except KeyboardInterrupt:
        pass
    except BaseException as error:
        # Tracebacks do not travel between processes: they go along as a note.
        error.add_note("".join(traceback.format_exception(error)))
        inbox.put(error)
