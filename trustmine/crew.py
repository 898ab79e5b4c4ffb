"""Several worker processes, and the model that they ask, in one run.

The parent holds the engine, so a model is loaded once, when the first row
needs it, and never by a worker. Git, parser and database work is done by the
workers beside it. They ask over pipes; the engine gets the questions of all of
them. A worker that dies is replaced, and its rows are pending again. When the
parent dies, workers notice and give their rows back; those that wait for an
answer keep theirs, for a question may have killed the model: see claims.py.

A run has phases: stages that are worked on together until none of them has a
row left. Whoever finds nothing to do says so and waits to be woken.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

from trustmine import stopping, worker
from trustmine.config import Settings
from trustmine.db import claims, identities, queries
from trustmine.db.claims import Scope, Tally
from trustmine.db.connect import connect
from trustmine.errors import TrustmineError
from trustmine.llm.base import Engine, ModelInfo, NoAnswer
from trustmine.records import Completion, Request
from trustmine.stages import aside, asks_model, get
from trustmine.worker import Allowance, Line, Post

WAIT_S = 0.5  # how long the parent waits for news when the model has nothing to do
GLANCE_S = 0.02  # how long the model works before the parent looks for news again
# Deaths of workers in a row, without a row finished in between, before a run gives up.
MAX_DEATHS = 12
DYING_S = 0.5  # how long a process whose pipes are closed may take to be gone
NICENESS = 10  # of workers beside a model that needs the cores

# A model that is asked for: the engine with its model's id; None where no row of the stage asks.
OpenModel = Callable[[str], tuple[Engine, int] | None]


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker process is told once."""

    db: Path
    settings: Settings
    scope: Scope
    niceness: int = 0


@dataclass(frozen=True, slots=True)
class _Model:
    """The parent's answer to a worker that needs the model; None: no row of the stage asks."""

    info: ModelInfo
    model_id: int
    capacity: int  # questions worth having in flight, of one worker
    request_hash: Callable[[Request], str]


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    link: Connection
    n_looks: int = 0  # how often it was told to look
    is_idle: bool = False  # it has found nothing since then


@dataclass(slots=True)
class _Question:
    """What the model works on for a worker; None: it has died, and the row's next worker will ask the same."""

    hash: str
    asked_by: _Worker | None
    ticket: int  # the worker's own


@dataclass(slots=True)
class Crew:
    """Worker processes and their parent; see the module docstring."""

    task: Task
    n_workers: int
    limit: int | None  # rows per stage
    open_model: OpenModel
    progress: worker.Progress
    _engine: Engine | None = None
    _workers: list[_Worker] = field(default_factory=list)
    _tickets: dict[int, "_Question"] = field(default_factory=dict)
    _kept: dict[str, Completion | NoAnswer] = field(default_factory=dict)  # answers whose worker has died
    _next_ticket: int = 0
    _n_deaths: int = 0
    _trouble: BaseException | None = None
    _allowances: dict[str, Allowance] = field(default_factory=dict)
    _models: dict[str, "_Model | None"] = field(default_factory=dict)  # by stage, once asked for
    _stages: tuple[str, ...] = ()

    def run(self, phases: Sequence[Sequence[str]], feed: Iterator[object] | None = None) -> None:
        """Work on the stages of each phase until nothing is pending. `feed` brings rows while the first one runs.

        Raises what a worker could not mend.
        """
        self._allowances = {stage: Allowance(self.limit, is_shared=True) for phase in phases for stage in phase}
        try:
            for _ in range(self.n_workers):
                self._start()
            is_fed = feed is not None
            for phase in phases:
                self._stages = tuple(phase)
                self._wake(everyone=True)
                while is_fed or self._tickets or not all(each.is_idle for each in self._workers):
                    if feed is not None and is_fed:
                        is_fed = next(feed, None) is not None
                        self._wake(everyone=not is_fed)
                    self._turn(0.0 if is_fed else WAIT_S)
                    if self._trouble is not None:
                        raise self._trouble
        finally:
            self._end()

    def _start(self) -> _Worker:
        """Another worker."""
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_main, args=(self.task, self._allowances, theirs), name="trustmine-worker")
        with stopping.held_back():  # a stop comes when it is one of ours, and so is told
            process.start()
            theirs.close()
            self._workers.append(_Worker(process, ours))
        return self._workers[-1]

    def _turn(self, wait_s: float) -> None:
        """Hear the workers, and let the model work."""
        links = {each.link: each for each in self._workers}
        if self._tickets:
            wait_s = 0.0
        for ready in multiprocessing.connection.wait(list(links), wait_s):
            self._hear(links[ready])  # type: ignore[index]
        self._deliver(GLANCE_S)

    def _deliver(self, timeout_s: float | None) -> None:
        """Let the model work, for so long or until something is answered, and pass the answers on."""
        if self._engine is None or not self._tickets:
            return
        for ticket, answer in self._engine.poll(timeout_s):
            question = self._tickets.pop(ticket)
            if question.asked_by is None:
                self._kept[question.hash] = answer
            else:
                _tell(question.asked_by.link, ("answer", question.ticket, answer))

    def _hear(self, one: _Worker) -> None:
        try:
            while one.link.poll():
                self._take(one, *one.link.recv())
        except (EOFError, OSError):
            self._replace(one)

    def _take(self, one: _Worker, what: str, *news: object) -> None:
        if what == "ask":
            ticket, request = news
            assert self._engine is not None
            assert isinstance(ticket, int)
            assert isinstance(request, Request)
            self._ask(self._engine, one, ticket, request)
        elif what == "done":
            stage, tally = news
            assert isinstance(stage, str)
            assert isinstance(tally, Tally)
            self._n_deaths = 0
            self.progress(stage, tally)
            if tally.advanced:
                self._wake()
        elif what == "idle":
            one.is_idle = news == (one.n_looks,)  # else it has been told to look again meanwhile
        elif what == "model":
            (stage,) = news
            assert isinstance(stage, str)
            if stage not in self._models:
                self._models[stage] = self._open(stage)
            _tell(one.link, ("model", self._models[stage]))
        elif what == "trouble":
            (error,) = news
            assert isinstance(error, BaseException)
            self._trouble = self._trouble or error

    def _open(self, stage: str) -> _Model | None:
        """The model for a stage; what is asked for a calibration would mix with what is under way."""
        while self._tickets:
            self._deliver(None)
        found = self.open_model(stage)
        if found is None:
            return None
        self._engine, model_id = found
        share = -(-self._engine.capacity // self.n_workers) + 1
        return _Model(self._engine.info, model_id, share, self._engine.request_hash)

    def _ask(self, engine: Engine, one: _Worker, ticket: int, request: Request) -> None:
        """Hand a question to the model, unless it was asked by a worker that has died since."""
        digest = engine.request_hash(request)
        if digest in self._kept:
            _tell(one.link, ("answer", ticket, self._kept.pop(digest)))
            return
        for question in self._tickets.values():
            if question.asked_by is None and question.hash == digest:
                question.asked_by, question.ticket = one, ticket
                return
        self._next_ticket += 1
        try:
            engine.submit(self._next_ticket, request)
        except TrustmineError:
            raise
        except Exception as wrong:  # what is wrong with a question is its row's trouble
            _tell(one.link, ("answer", ticket, _sendable(wrong)))
            return
        self._tickets[self._next_ticket] = _Question(digest, one, ticket)

    def _wake(self, *, everyone: bool = False) -> None:
        """Have idle workers look again: there may be rows for them."""
        for each in self._workers:
            if each.is_idle or everyone:
                self._look(each)

    def _look(self, one: _Worker) -> None:
        one.is_idle = False
        one.n_looks += 1
        _tell(one.link, ("look", one.n_looks, self._stages))

    def _replace(self, one: _Worker) -> None:
        """A worker's pipe has closed: put another one in its place, unless the run is at its end."""
        one.process.join()
        one.link.close()
        for question in self._tickets.values():
            if question.asked_by is one:
                question.asked_by = None
        self._n_deaths += 1
        if self._trouble is None and self._n_deaths > MAX_DEATHS:
            self._trouble = TrustmineError(
                f"{self._n_deaths} workers died one after the other",
                f"stages {', '.join(self._stages)}, last exit code {one.process.exitcode}",
                "Nothing is lost: run the command again. Code -9 is often the kernel, out of memory",
            )
        self._workers.remove(one)
        if self._trouble is None:
            self._look(self._start())

    def _end(self) -> None:
        """Let all workers give their rows back and go; a closed pipe tells them."""
        for each in self._workers:
            each.link.close()
        for each in self._workers:
            each.process.join()


def _tell(link: Connection, message: object) -> None:
    """Send to a worker; that it has died is noticed when it is heard next."""
    with contextlib.suppress(OSError):
        link.send(message)


def _sendable(error: BaseException) -> BaseException:
    """The error, or one that says the same where it cannot be sent to another process."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))  # what pipes do
    except Exception:
        said = RuntimeError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            said.add_note(note)
        return said
    return error


# -------------------------------------------------------------------- in a worker process


class _Asked:
    """The parent's engine, as a worker sees it: an Engine (llm/base.py) over a pipe."""

    def __init__(self, link: Connection) -> None:
        self._link = link
        self._answers: list[tuple[int, Completion | NoAnswer]] = []
        self._n_looks = 0
        self._model: _Model | None = None
        self.capacity = 1
        self.stages: tuple[str, ...] | None = None  # what the parent last said to look for; None: nothing new

    @property
    def info(self) -> ModelInfo:
        assert self._model is not None
        return self._model.info

    @property
    def request_hash(self) -> Callable[[Request], str]:
        assert self._model is not None
        return self._model.request_hash

    def submit(self, ticket: int, request: Request) -> None:
        self._link.send(("ask", ticket, request))

    def poll(self, timeout_s: float | None = None) -> list[tuple[int, Completion | NoAnswer]]:
        while not self._answers and self._link.poll(timeout_s):
            self._read()
            if timeout_s is not None:
                break
        answers, self._answers = self._answers, []
        return answers

    def close(self) -> None:
        pass

    def open(self, stage: str, meanwhile: Callable[[], None]) -> tuple[Engine, int] | None:
        """The engine with its model's id; None if no row of this stage asks.

        It may have to be calibrated first, which takes long: `meanwhile` is called now and then.
        """
        self._link.send(("model", stage))
        message: object = ""
        while not isinstance(message, _Model | None):
            if self._link.poll(worker.PATIENCE_S):
                message = self._read()
            meanwhile()
        if message is None:
            return None
        self._model, self.capacity = message, message.capacity
        return self, message.model_id

    def wait_to_look(self) -> tuple[str, ...]:
        """Say that there is nothing to do; the stages to look at when there may be something again."""
        self._link.send(("idle", self._n_looks))
        while self.stages is None:
            self._read()
        stages, self.stages = self.stages, None
        return stages

    def _read(self) -> object:
        """Take in one message; what it is about, if that is the model. EOFError when the parent is gone."""
        what, *news = self._link.recv()
        if what == "answer":
            self._answers.append((news[0], news[1]))
        elif what == "look":
            self._n_looks, self.stages = news
        elif what == "model":
            return news[0]
        return what


def _main(task: Task, allowances: Mapping[str, Allowance], link: Connection) -> None:
    try:
        stopping.listen()
        if task.niceness:
            os.nice(task.niceness)
        _work(task, allowances, link)
    except (KeyboardInterrupt, EOFError, BrokenPipeError):
        pass  # stopped, or the parent is gone: rows were given back
    except BaseException as error:
        # Tracebacks do not travel between processes: they go along as a note.
        error.add_note("".join(traceback.format_exception(error)))
        _tell(link, ("trouble", _sendable(error)))
    finally:
        stopping.end()


def _work(task: Task, allowances: Mapping[str, Allowance], link: Connection) -> None:
    conn = connect(task.db)
    name = identities.worker_name()
    asked = _Asked(link)
    posts: dict[str, Post] = {}

    def post(stage: str) -> Post | None:
        """The post at a stage, taken when it first has rows: no model is loaded for nothing."""
        if stage not in posts:
            if not queries.has_pending(conn, stage, get(stage).AFTER, aside(get(stage)), task.scope):
                return None
            model, scope = None, task.scope
            if asks_model(get(stage), task.settings):
                model = asked.open(stage, lambda: line.renew())
                if model is None:
                    scope = replace(scope, is_labelled=True, qualities=task.settings.trusted_labels)
            posts[stage] = worker.post(
                conn,
                stage,
                task.settings,
                name,
                model=model,
                scope=scope,
                allowance=allowances[stage],
                progress=lambda stage, tally: link.send(("done", stage, tally)),
            )
        return posts[stage]

    line = Line(post)
    try:
        claims.reclaim(conn, task.settings.max_attempts)
        stages: tuple[str, ...] = ()
        while True:
            found = line.fill(stages)
            if line.rows:
                line.take_answers(0.0 if found else worker.PATIENCE_S)
            elif not found:
                stages = asked.wait_to_look()
            if asked.stages is not None:
                stages, asked.stages = asked.stages, None
    finally:
        is_cut_off = isinstance(sys.exc_info()[1], EOFError | OSError)
        if not (is_cut_off and line.rows and _is_orphan()):  # else the next reclaim counts a crash for each of them
            worker.leave(conn, name, list(posts))
        conn.close()


def _is_orphan() -> bool:
    """Whether the parent has died; it may have been just now."""
    parent = multiprocessing.parent_process()
    return parent is not None and bool(multiprocessing.connection.wait([parent.sentinel], DYING_S))
