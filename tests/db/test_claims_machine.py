"""Claims in any order of events, against a plain model of them.

Two hosts whose clocks go apart and jump claim, renew, finish, give up, crash
and fall silent. No row has two owners or is decided twice at a stage, no status
slips back, there is no fact without its step and no step without its fact.
"""

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trustmine.db import claims, identities, recipes
from trustmine.db.claims import Failure
from trustmine.db.connect import connect
from trustmine.records import Advance, Commit, CommitSize, Fact, KeywordMatch, Outcome, Reject

N_ROWS = 6
LEASE_S = 1000.0
MAX_ATTEMPTS = 2
HOSTS = {"a": "here", "b": "here", "c": "there"}  # of workers
STAGES = {"s0_1": "ingested", "s0_2": "s0_1"}
STATUSES = ("ingested", *STAGES)
FACTS: dict[str, Fact] = {"s0_1": KeywordMatch(("fix",)), "s0_2": CommitSize(1)}
PRIORITIES = {2: -1.0, 3: 4.5, 5: 4.5}  # of some rows
ORDERS = {
    "oldest": range(1, N_ROWS + 1),
    "newest": range(N_ROWS, 0, -1),
    "priority": (3, 5, 2, 1, 4, 6),
}
WORKERS = st.sampled_from(sorted(HOSTS))
SECONDS = st.sampled_from((1.0, LEASE_S / 2, LEASE_S + 1, 5 * LEASE_S))


@dataclass(slots=True)
class Row:
    """What a row must look like."""

    status: str = "ingested"
    outcome: str = "open"
    owner: str | None = None
    until: float | None = None
    attempts: int = 0
    crashes: int = 0


class Queue(RuleBasedStateMachine):
    """What the database holds against a plain model of it."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.conn = connect(Path(self.folder.name) / "t.db", create=True)
        self.conn.execute("INSERT INTO repos (id, name, path, ingested_at_s) VALUES (1, 'toy', '/toy', 0)")
        for i in range(1, N_ROWS + 1):
            self.conn.execute(
                """INSERT INTO commits (id, repo_id, sha, parents, author_time_s, commit_time_s)
                   VALUES (?, 1, ?, '', 0, 0)""",
                (i, f"{i:040x}"),
            )
            self.conn.execute("INSERT INTO messages VALUES (?, 'fix', 'utf-8')", (i,))
        for i, points in PRIORITIES.items():
            self.conn.execute("INSERT INTO priorities VALUES (?, ?, 0, ?, 0, 0, 0, '[]')", (i, points, points))
        self.recipes = {stage: recipes.ensure(self.conn, stage, {"stage": stage}, None) for stage in STAGES}
        self.rows = {i: Row() for i in range(1, N_ROWS + 1)}
        self.clocks = {"here": 1e9, "there": 1e9}
        self.names = {worker: f"{host}:1:1:{worker}" for worker, host in HOSTS.items()}
        self.n_born = 0
        self.dead: set[str] = set()
        self.hands: dict[str, dict[int, tuple[Commit, str]]] = {worker: {} for worker in HOSTS}  # as each believes
        self.decided: list[tuple[int, str]] = []
        self.highest = dict.fromkeys(self.rows, 0)
        self.now = 0.0
        self.patches: list[Any] = [  # what patch.object gives has no public type
            patch.object(claims, "time", SimpleNamespace(time=lambda: self.now)),
            patch.object(identities, "is_alive", lambda name: name not in self.dead),
        ]
        for one in self.patches:
            one.start()

    def teardown(self) -> None:
        if hasattr(self, "conn"):
            for one in self.patches:
                one.stop()
            self.conn.close()
            self.folder.cleanup()

    # ------------------------------------------------------------------- what happens

    @rule(
        worker=WORKERS,
        stage=st.sampled_from(sorted(STAGES)),
        n=st.integers(1, 4),
        order=st.sampled_from(sorted(ORDERS)),
    )
    def claim(self, worker: str, stage: str, n: int, order: str) -> None:
        name = self._is_at_work(worker)
        after = STAGES[stage]
        commits = claims.claim(
            self.conn, stage, after, name, limit=n, lease_s=LEASE_S, order=order, max_attempts=MAX_ATTEMPTS
        )
        late = {row.owner for row in self.rows.values() if row.until is not None and row.until < self.now}
        for owner in sorted(filter(None, late)):
            self._lose(owner)
        rows = self.rows
        free = [i for i in ORDERS[order] if (rows[i].status, rows[i].outcome, rows[i].owner) == (after, "open", None)]
        held = [row for row in rows.values() if row.owner == name]
        trusted = [i for i in free if not rows[i].crashes][:n]
        wanted = trusted if held else list(itertools.takewhile(lambda i: not rows[i].crashes, free[:n])) or free[:1]
        if any(row.crashes for row in held):
            wanted = []
        assert [c.id for c in commits] == wanted, "the first of the order, held by nobody; the untrusted alone"
        for commit in commits:
            self.hands[worker][commit.id] = commit, stage
            rows[commit.id].owner, rows[commit.id].until = name, self.now + LEASE_S

    @rule(worker=WORKERS, outcome=st.sampled_from(("pass", "reject", "fail")), n=st.integers(1, 4))
    def finish(self, worker: str, outcome: str, n: int) -> None:
        """Some of what the worker believes to hold, long since lost or not."""
        name = self._is_at_work(worker)
        for stage in STAGES:
            found = [(i, commit) for i, (commit, at) in self.hands[worker].items() if at == stage][:n]
            results = [(commit, self._outcome(stage, outcome)) for _, commit in found]
            tally = claims.finish(self.conn, stage, name, self.recipes[stage], results, max_attempts=MAX_ATTEMPTS)
            mine = [i for i, _ in found if self.rows[i].owner == name and (self.rows[i].until or 0) >= self.now]
            assert (tally.total, tally.lost) == (len(mine), len(found) - len(mine))
            for i in mine:
                self._decide(i, stage, outcome)
            for i, _ in found:
                del self.hands[worker][i]

    @rule(worker=WORKERS)
    def renew(self, worker: str) -> None:
        name = self._is_at_work(worker)
        claims.renew(self.conn, name, LEASE_S)
        for row in self.rows.values():
            if row.owner == name and row.until is not None and row.until >= self.now:
                row.until = self.now + LEASE_S

    @rule(worker=WORKERS)
    def give_up(self, worker: str) -> None:
        """It gives its rows back, and may still finish them in vain."""
        claims.release(self.conn, name := self._is_at_work(worker))
        for row in self.rows.values():
            if row.owner == name:
                row.owner = row.until = None

    @rule(worker=WORKERS)
    def crash(self, worker: str) -> None:
        """Another process takes its place; of what the dead one holds it knows nothing."""
        self.dead.add(self.names[worker])
        self.n_born += 1
        self.names[worker] = f"{HOSTS[worker]}:{self.n_born + 1}:1:{worker}"
        self.hands[worker] = {}

    @rule(worker=WORKERS)
    def look_for_the_dead(self, worker: str) -> None:
        self._is_at_work(worker)
        claims.reclaim(self.conn, MAX_ATTEMPTS)
        for name in sorted(self.dead):
            self._lose(name)

    @rule(host=st.sampled_from(sorted(set(HOSTS.values()))), seconds=SECONDS, is_back=st.booleans())
    def clock_jumps(self, host: str, seconds: float, is_back: bool) -> None:
        self.clocks[host] += -seconds if is_back else seconds

    @rule(seconds=SECONDS)
    def time_goes_by(self, seconds: float) -> None:
        for host in self.clocks:
            self.clocks[host] += seconds

    # ----------------------------------------------------------------------- the model

    def _is_at_work(self, worker: str) -> str:
        """The worker's name; from now on its host's clock is read."""
        self.now = self.clocks[HOSTS[worker]]
        return self.names[worker]

    def _outcome(self, stage: str, outcome: str) -> Outcome | Failure:
        if outcome == "fail":
            return Failure("ValueError: x", "tb")
        return Advance((FACTS[stage],)) if outcome == "pass" else Reject("merge", (FACTS[stage],))

    def _decide(self, i: int, stage: str, outcome: str) -> None:
        row = self.rows[i]
        row.owner = row.until = None
        row.crashes = 0
        if outcome == "fail":
            self._blame(row)
            return
        row.attempts = 0
        self.decided.append((i, stage))
        if outcome == "pass":
            row.status = stage
        else:
            row.outcome = "rejected"

    def _lose(self, owner: str) -> None:
        """All rows of a worker that is gone."""
        lost = [row for row in self.rows.values() if row.owner == owner]
        if len(lost) == 1 and lost[0].crashes:
            self._blame(lost[0])
        for row in lost:
            row.crashes += 1
            row.owner = row.until = None

    def _blame(self, row: Row) -> None:
        row.attempts += 1
        if row.attempts >= MAX_ATTEMPTS:
            row.outcome = "failed"

    # --------------------------------------------------------------- what always holds

    @invariant()
    def rows_are_as_the_model_has_them(self) -> None:
        if not hasattr(self, "conn"):
            return
        found = self.conn.execute(
            "SELECT id, status, outcome, claim_owner, claim_until_s, attempts, crashes FROM commits"
        ).fetchall()
        assert {i: Row(*rest) for i, *rest in found} == self.rows
        assert all(row.owner is None for row in self.rows.values() if row.outcome != "open")

    @invariant()
    def no_status_slips_back(self) -> None:
        if not hasattr(self, "conn"):
            return
        for i, status in self.conn.execute("SELECT id, status FROM commits").fetchall():
            assert STATUSES.index(status) >= self.highest[i]
            self.highest[i] = STATUSES.index(status)

    @invariant()
    def status_facts_and_steps_agree(self) -> None:
        if not hasattr(self, "conn"):
            return
        steps = self.conn.execute("SELECT commit_id, stage FROM steps").fetchall()
        assert sorted(steps) == sorted(self.decided), "each row once at each stage"
        assert sorted(steps) == sorted(self._held_by_facts())
        passed = {
            (i, stage)
            for i, row in self.rows.items()
            for place, stage in enumerate(STAGES, 1)
            if place <= STATUSES.index(row.status)
        }
        refused = {
            (i, stage) for i, row in self.rows.items() if row.outcome == "rejected" for stage in [self._next(row)]
        }
        assert set(steps) == passed | refused

    def _held_by_facts(self) -> Sequence[tuple[int, str]]:
        return [
            (i, stage)
            for stage, fact in FACTS.items()
            for (i,) in self.conn.execute(f"SELECT commit_id FROM {fact.TABLE}").fetchall()
        ]

    def _next(self, row: Row) -> str:
        return STATUSES[STATUSES.index(row.status) + 1]


Queue.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestQueue = Queue.TestCase
