"""The loop: claim rows, run the stage on each, finish them, in one process.

A line works on one stage or several. Where it has several, the deepest that
has rows comes first, and a row whose question is answered goes on to the next
stage at once, while what the model has read of it is still in its cache. Many
rows that ask are in hand at the same time. No transaction is open while a
stage works. Whatever a stage raises fails that row and is recorded; a
TrustmineError is trouble with the run and stops it. Ctrl-C keeps every result
that is complete and gives the other rows back. Processes are crew.py's.
"""

import itertools
import multiprocessing
import sqlite3
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.sharedctypes import Synchronized
from typing import cast

from trustmine import calibrate, tools
from trustmine.config import Settings
from trustmine.db import calls, claims, identities, recipes
from trustmine.db.calls import Call
from trustmine.db.claims import Failure, Scope, Tally
from trustmine.errors import TrustmineError
from trustmine.llm.base import ContextOverflow, Engine
from trustmine.records import Advance, Commit, Completion, Outcome, Reject, Request, Verdict
from trustmine.stages import aside, asks_model, get, prepare
from trustmine.stages.base import Asking, Context, Stage

PATIENCE_S = 5.0  # how long a worker waits for answers before it sees to its leases
WITHOUT_MODEL = 8  # rows claimed at once by a stage that could ask, where no row does: others may want some
CONTEXT_OVERFLOW = "context_overflow"  # the reason any stage that asks a model may reject for

Progress = Callable[[str, Tally], None]  # stage, what became of rows of it


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
    listed_id: int  # recipe of rows that lists of known commits judge: no model has part in them
    worker: str
    scope: Scope
    allowance: Allowance
    progress: Progress
    model: tuple[Engine, int] | None = None  # with its id; None: no row has a question

    def claim(self, wanted: int, only: int | None = None) -> list[Commit]:
        """Up to `wanted` pending rows, now held; `only` this one if given."""
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
            scope=self.scope if only is None else replace(self.scope, ids=(only,)),
            aside=aside(self.stage),
            order=self.ctx.settings.order,
            max_attempts=self.ctx.settings.max_attempts,
        )
        self.allowance.give_back(limit - len(commits))
        return commits

    def finish(self, results: list[tuple[Commit, Outcome | Failure]], made: Sequence[Call] = ()) -> Tally:
        if self.listed_id == self.recipe_id:
            return self._finish(self.recipe_id, results, made)
        by_recipe: dict[int, list[tuple[Commit, Outcome | Failure]]] = {}
        for one in results:
            by_recipe.setdefault(self.listed_id if _is_listed(one[1]) else self.recipe_id, []).append(one)
        done = (
            self._finish(recipe_id, part, made if recipe_id == self.recipe_id else ())
            for recipe_id, part in by_recipe.items()
        )
        return sum(done, start=Tally())

    def _finish(self, recipe_id: int, results: list[tuple[Commit, Outcome | Failure]], made: Sequence[Call]) -> Tally:
        tally = claims.finish(
            self.conn,
            self.stage.NAME,
            self.worker,
            recipe_id,
            results,
            max_attempts=self.ctx.settings.max_attempts,
            made=made,
        )
        self.progress(self.stage.NAME, tally)
        return tally


def _is_listed(outcome: Outcome | Failure) -> bool:
    return not isinstance(outcome, Failure) and any(
        isinstance(fact, Verdict) and fact.source != "model" for fact in outcome.facts
    )


def post(
    conn: sqlite3.Connection,
    stage_name: str,
    settings: Settings,
    worker: str,
    *,
    model: tuple[Engine, int] | None = None,
    scope: Scope = Scope(),
    allowance: Allowance | None = None,
    progress: Progress = lambda stage, tally: None,
) -> Post:
    """Take a worker's post at a stage.

    `model`, an engine with its model's id, is needed where the stage asks one;
    s0_3 does without where the scope is rows that a list has labelled.
    """
    stage = get(stage_name)
    is_asking = asks_model(stage, settings)
    if is_asking and model is None and not (stage_name == calibrate.STAGE and scope.is_labelled):
        raise AssertionError(f"{stage_name} needs an engine")
    if not is_asking:
        model = None
    model_id = None if model is None else model[1]
    ctx = tools.context(conn, settings, model_id)
    content = tools.recipe(stage, ctx, None if model is None else model[0].info)
    recipe_id = recipes.ensure(conn, stage_name, content, model_id)
    listed_id = recipe_id
    if stage_name == calibrate.STAGE and model is not None:
        listed_id = recipes.ensure(conn, stage_name, tools.recipe(stage, ctx, None), None)
    claims.enter(conn, worker, stage_name)
    return Post(conn, stage, ctx, recipe_id, listed_id, worker, scope, allowance or Allowance(None), progress, model)


def leave(conn: sqlite3.Connection, worker: str, stages: Sequence[str]) -> None:
    """Give back all rows that the worker still holds."""
    if conn.in_transaction:
        conn.execute("ROLLBACK")
    for stage in stages:
        claims.leave(conn, worker, stage)


def advance(
    conn: sqlite3.Connection,
    stage_name: str,
    settings: Settings,
    *,
    engine: tuple[Engine, int] | None = None,
    scope: Scope = Scope(),
    allowance: Allowance | None = None,
    progress: Progress = lambda stage, tally: None,
) -> Tally:
    """Work on the pending rows of a stage in this process until none is left."""
    if stage_name == calibrate.STAGE and engine is not None:
        calibrate.ensure(conn, settings, engine)
    worker = identities.worker_name()
    claims.reclaim(conn, settings.max_attempts)
    total = Tally()

    def count(stage: str, tally: Tally) -> None:
        nonlocal total
        total += tally
        progress(stage, tally)

    try:
        here = post(conn, stage_name, settings, worker, model=engine, scope=scope, allowance=allowance, progress=count)
        line = Line({stage_name: here}.get)
        while line.fill([stage_name]) or line.rows:
            line.take_answers(PATIENCE_S)
    finally:
        leave(conn, worker, [stage_name])
    return total


@dataclass(slots=True)
class _Row:
    """A row in hand: its generator, and the calls it has made."""

    commit: Commit
    post: Post
    asking: Asking
    made: list[Call] = field(default_factory=list)
    request: Request | None = None


class Line:
    """Rows in hand at one or more stages; see the module docstring."""

    def __init__(self, posts: Callable[[str], Post | None]) -> None:
        """`posts` gives the post of a stage; None where this line has none, or no row is pending."""
        self._posts = posts
        self.rows: dict[int, _Row] = {}  # by the ticket of their question
        self._tickets = itertools.count(1)
        self._stages: Sequence[str] = ()
        self._last: Post | None = None  # any post of this worker: leases are renewed through it
        self._renew_at = 0.0

    def fill(self, stages: Sequence[str]) -> bool:
        """Claim rows, the deepest stage's first, start those that ask and finish the others; False if there are none.

        Of stages that do not ask, one batch at a time.
        """
        self._stages = stages
        found = False
        for name in reversed(stages):
            here = self._posts(name)
            if here is None:
                continue
            self._last = here
            if here.stage.KIND == "llm":
                room = self._room(here)
                commits = here.claim(room) if room > 0 else []
                for commit in commits:
                    if self._is_in_hand(commit, here):
                        here.allowance.give_back(1)
                    else:
                        self._start(here, commit)
                    self.renew()  # a row that asks nothing has all of its work here
                found = found or bool(commits)
            elif commits := here.claim(here.ctx.settings.batch_size):
                self._compute(here, commits)
                return True
        self.renew()
        return found

    def _room(self, here: Post) -> int:
        """How many rows more may be in hand at a stage that can ask; those that wait for answers have a model."""
        if here.model is not None:
            return here.model[0].capacity - len(self.rows)
        waiting = [row.post.model[0].capacity for row in self.rows.values() if row.post.model is not None]
        return min(WITHOUT_MODEL, max(waiting, default=WITHOUT_MODEL) - len(self.rows))

    def _is_in_hand(self, commit: Commit, here: Post) -> bool:
        """Whether a claimed row still waits for its answer here: its lease had run out, as when a machine sleeps.

        If it waits at another stage, it has been worked on by others since, and is let go of.
        """
        for ticket, row in list(self.rows.items()):
            if row.commit.id == commit.id:
                if row.post is here:
                    return True
                del self.rows[ticket]
        return False

    def take_answers(self, timeout_s: float) -> None:
        """Give rows the answers that are ready; wait for one for so long, if a row asks."""
        for engine in {
            id(row.post.model[0]): row.post.model[0] for row in self.rows.values() if row.post.model
        }.values():
            for ticket, answer in engine.poll(timeout_s):
                row = self.rows.pop(ticket, None)
                if row is not None:  # else it was let go of
                    self._step(row, answer)
        self.renew()

    def _start(self, here: Post, commit: Commit) -> None:
        self._step(_Row(commit, here, cast(Asking, here.stage.run(commit, here.ctx))), None)

    def _step(self, row: _Row, answer: Completion | Exception | None) -> None:
        """Give a row its answer (None: start it) and hand its next question to the engine, or finish it."""
        here, outcome = row.post, cast("Outcome | Failure", None)
        try:
            while True:
                if isinstance(answer, Completion) and row.request is not None and here.model is not None:
                    engine, model_id = here.model
                    call = Call(row.commit.id, here.stage.NAME, row.request, answer, model_id, engine.info.n_ctx)
                    row.made.append(call)
                try:
                    if isinstance(answer, Exception):  # a stage may know how to do without
                        row.request = row.asking.throw(answer)
                    else:
                        row.request = next(row.asking) if answer is None else row.asking.send(answer)
                except StopIteration as stop:
                    outcome = stop.value
                    break
                except ContextOverflow:
                    outcome = Reject(CONTEXT_OVERFLOW)
                    break
                if here.model is None:
                    raise AssertionError("a stage asks a model and was given none")
                engine = here.model[0]
                answer = calls.recorded(here.conn, engine.request_hash(row.request))
                if answer is None:
                    ticket = next(self._tickets)
                    engine.submit(ticket, row.request)
                    self.rows[ticket] = row
                    return
        except TrustmineError:
            raise
        except Exception as error:
            outcome = _failure(error)
        tally = here.finish([(row.commit, outcome)], row.made)
        if isinstance(outcome, Advance) and tally.advanced and not row.commit.is_aside:
            self._follow(row.commit.id, here.stage.NAME)

    def _follow(self, commit_id: int, passed: str) -> None:
        """Take a row that has passed a stage through the next ones of this line."""
        for name in self._stages[self._stages.index(passed) + 1 :]:
            here = self._posts(name) if passed == get(name).AFTER else None
            commits = [] if here is None else here.claim(1, only=commit_id)
            if here is None or not commits:
                return
            if here.stage.KIND == "llm":
                self._start(here, commits[0])
                return
            if not self._compute(here, commits).advanced:
                return
            passed = name

    def _compute(self, here: Post, commits: Sequence[Commit]) -> Tally:
        """Run a stage that does not ask on claimed rows, and finish them."""
        results: list[tuple[Commit, Outcome | Failure]] = []
        prepare(here.stage, commits, here.ctx)
        try:
            for commit in commits:
                results.append((commit, _outcome(here, commit)))
                self.renew()
        finally:
            tally = here.finish(results)  # also on Ctrl-C: what is complete is kept
        return tally

    def renew(self) -> None:
        """Fresh leases for the rows in hand, long before they run out."""
        if time.monotonic() < self._renew_at:
            return
        if self._last is not None:
            lease_s = self._last.ctx.settings.lease_s
            claims.renew(self._last.conn, self._last.worker, lease_s)
            self._renew_at = time.monotonic() + lease_s / 3


def _outcome(here: Post, commit: Commit) -> Outcome | Failure:
    try:
        return cast(Outcome, here.stage.run(commit, here.ctx))
    except TrustmineError:
        raise
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> Failure:
    if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError):
        raise error  # a full disk or a lost database is trouble with the run
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return Failure(line[:500], "".join(traceback.format_exception(error)))
