"""Candidate patches: what a model writes into the gap of a fixed function, compared with what the fix put there.

Asked of rows that have passed s2_2, most promising first, as often as wanted:
the first answer is the most likely one, further ones are drawn at random. The
comparison is by tokens of the masked region, so comments and white space do not
count. What is neither the fix nor the code that it replaced is `other`: maybe as
good, maybe not. s4 makes candidates to judge of the first two; rows that are
through s4 go back before it when they get new ones.

Calls are recorded like those of stages (under s4, which they are for), so the
same question is not asked again, and an interrupted run goes on.
"""

import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from trustmine import cparse, samples, text, tools
from trustmine.config import Settings
from trustmine.db import calls, claims, facts, recipes
from trustmine.db.calls import Call
from trustmine.db.claims import Scope
from trustmine.db.connect import transaction
from trustmine.llm.base import Engine
from trustmine.records import (
    Candidate,
    Commit,
    Completion,
    ContextItem,
    Element,
    FunctionPair,
    MergedMask,
    Request,
)
from trustmine.stages.base import Context

PROMPT = "propose"
FOR_STAGE, AFTER = "s4", "s2_2"
FIX, VULNERABLE, OTHER = "fix", "vulnerable", "other"
# Of further answers; the best of those tried for a hundred samples in Chen et al. 2021 (Codex, section 3.3).
TEMPERATURE = 0.8

_FENCED = re.compile(r"(?P<fence>`{3,})[^\n`]*\n(?P<code>.*?)(?:^[ \t]*(?P=fence)|\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Proposed:
    """What a run did."""

    n_rows: int  # that were looked at
    n_new: int  # candidates
    n_unanswered: int  # questions that do not fit in the context, or that the endpoint refuses
    by_verdict: Mapping[str, int]  # of the new ones: fix, vulnerable, other
    n_sent_back: int


def n_waiting(conn: sqlite3.Connection, scope: Scope, limit: int | None) -> int:
    """Rows that a run would look at."""
    return len(_rows(conn, scope, limit))


def propose(
    conn: sqlite3.Connection,
    settings: Settings,
    engine: tuple[Engine, int],
    *,
    per_row: int = 1,
    limit: int | None = None,
    scope: Scope = Scope(),
    progress: Callable[[int], object] = lambda done: None,
) -> Proposed:
    """Have `per_row` answers of this model for every row; `progress` is told the rows looked at.

    `engine` comes with its model's id.
    """
    ctx = tools.context(conn, settings)
    ids = _rows(conn, scope, limit)
    run = _Run(conn, ctx, *engine)
    try:
        for done, commit in enumerate(_commits(conn, ids), 1):
            try:
                requests = [request(commit, ctx, number) for number in range(per_row)]
            except LookupError:
                continue  # it went back meanwhile
            for one in requests:
                run.ask(commit, one)
            progress(done)
        run.finish()
    finally:
        n_sent_back = recipes.send_back(conn, FOR_STAGE, sorted(run.changed)) if run.changed else 0
    return Proposed(len(ids), run.counts.total(), run.n_unanswered, dict(sorted(run.counts.items())), n_sent_back)


def request(commit: Commit, ctx: Context, number: int) -> Request:
    """The question put for the `number`th time, from 0."""
    function = ctx.facts.one(FunctionPair, commit)
    elements, items = ctx.facts.all(Element, commit), ctx.facts.all(ContextItem, commit)
    return ctx.prompts.get(PROMPT).request(
        function=samples.one_line(function.name),
        path=samples.one_line(function.old_path),
        masked=ctx.facts.one(MergedMask, commit).masked_post,
        context=samples.context(elements, items, with_post=True),
        max_tokens=ctx.settings.proposal_tokens,
        temperature=TEMPERATURE if number else 0.0,
        seed=ctx.settings.seed + number,
    )


def code_of(answer: str) -> str:
    """The code of an answer: its first fenced block, else all of it; whole lines, '' for none."""
    found = _FENCED.search(answer)
    code = found["code"] if found is not None else answer
    return "" if not code.strip() else code if code.endswith("\n") else f"{code}\n"


def judge(code: str, removed: str, fixed: str, path: str) -> str:
    """`fix` or `vulnerable` if the code has the tokens of what the fix put there or removed, else `other`."""

    def tokens(one: str) -> bytes:
        return cparse.strip_comments_and_space(text.encode(one, text.UTF_8), path).strip()

    return FIX if tokens(code) == tokens(fixed) else VULNERABLE if tokens(code) == tokens(removed) else OTHER


def _rows(conn: sqlite3.Connection, scope: Scope, limit: int | None) -> list[int]:
    clause, values = scope.where()
    return [
        i
        for (i,) in conn.execute(
            f"""SELECT id FROM commits WHERE status IN (
                    SELECT stage FROM stages WHERE place >= (SELECT place FROM stages WHERE stage = ?)){clause}
                ORDER BY priority DESC, id LIMIT ?""",
            (AFTER, *values, -1 if limit is None else limit),
        )
    ]


def _commits(conn: sqlite3.Connection, ids: list[int]) -> Iterator[Commit]:
    for i in ids:
        yield from claims.read(conn, [i])


class _Run:
    """Questions under way, and what came of them."""

    def __init__(self, conn: sqlite3.Connection, ctx: Context, engine: Engine, model_id: int) -> None:
        self.changed: set[int] = set()  # rows with new candidates
        self.counts: Counter[str] = Counter()  # by verdict
        self.n_unanswered = 0
        self._conn, self._ctx, self._engine, self._model_id = conn, ctx, engine, model_id
        self._waiting: dict[int, tuple[Commit, Request]] = {}  # by ticket
        self._n_asked = 0

    def ask(self, commit: Commit, request: Request) -> None:
        """Put a question, unless its answer is known."""
        known = calls.recorded(self._conn, self._engine.request_hash(request))
        if known is not None:
            self._store(commit, request, known)
            return
        self._waiting[self._n_asked] = (commit, request)
        self._engine.submit(self._n_asked, request)
        self._n_asked += 1
        if len(self._waiting) >= self._engine.capacity:
            self._collect()

    def finish(self) -> None:
        """Take all answers that are still to come."""
        while self._waiting:
            self._collect()

    def _collect(self) -> None:
        for ticket, answer in self._engine.poll():
            commit, request = self._waiting.pop(ticket)
            if isinstance(answer, Completion):
                self._store(commit, request, answer)
            else:
                self.n_unanswered += 1

    def _store(self, commit: Commit, request: Request, answer: Completion) -> None:
        key = (commit.id, answer.request_hash)
        if self._conn.execute("SELECT 1 FROM candidates WHERE commit_id = ? AND request_hash = ?", key).fetchone():
            return
        with transaction(self._conn):
            calls.write(
                self._conn,
                [Call(commit.id, FOR_STAGE, request, answer, self._model_id, self._engine.info.n_ctx)],
            )
            gap = self._conn.execute(
                """SELECT removed, fixed, path FROM masks JOIN merged_masks USING (commit_id)
                   JOIN functions USING (commit_id) JOIN steps USING (commit_id)
                   WHERE commit_id = ? AND stage = ?""",
                (commit.id, AFTER),
            ).fetchone()
            if gap is None:
                return  # it went back while the model wrote
            code = code_of(answer.text)
            candidate = Candidate(
                request_hash=answer.request_hash,
                model_id=self._model_id,
                prompt_hash=request.prompt_hash,
                code=code,
                verdict=judge(code, *gap),
            )
            facts.write(self._conn, [(commit.id, candidate)])
        self.changed.add(commit.id)
        self.counts[candidate.verdict] += 1
