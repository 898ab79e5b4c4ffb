"""Claim, finish, crash and expiry in any order: no row with two owners, no status slipping back, no fact without it."""

import itertools
import sqlite3
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trustmine.db import claims, recipes
from trustmine.db.claims import Failure
from trustmine.db.connect import connect
from trustmine.records import Advance, Commit, KeywordMatch, Outcome, Reject

N_ROWS = 6
WORKERS = ("a", "b", "c")
PRIORITIES = {2: -1.0, 3: 4.5, 5: 4.5}  # of some rows
ORDERS = {
    "oldest": range(1, N_ROWS + 1),
    "newest": range(N_ROWS, 0, -1),
    "priority": (3, 5, 2, 1, 4, 6),
}
OUTCOMES: tuple[Outcome | Failure, ...] = (
    Advance((KeywordMatch(("fix",)),)),
    Reject("merge", (KeywordMatch(("fix",)),)),
    Failure("ValueError: x", "tb"),
)


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
        self.recipe = recipes.ensure(self.conn, "s0_1", {"stage": "s0_1"}, None)
        self.hands: dict[str, dict[int, Commit]] = {worker: {} for worker in WORKERS}  # what each believes to hold
        self.live: dict[int, str] = {}  # who really holds a row
        self.done: set[int] = set()
        self.failures = dict.fromkeys(range(1, N_ROWS + 1), 0)
        self.crashes = dict.fromkeys(range(1, N_ROWS + 1), 0)
        self.silent: dict[str, set[int]] = {}  # rows whose lease has run out, by who held them

    def teardown(self) -> None:
        if hasattr(self, "conn"):
            self.conn.close()
            self.folder.cleanup()

    @rule(worker=st.sampled_from(WORKERS), n=st.integers(1, 4), order=st.sampled_from(sorted(ORDERS)))
    def claim(self, worker: str, n: int, order: str) -> None:
        commits = claims.claim(
            self.conn, "s0_1", "ingested", worker, limit=n, lease_s=1000, order=order, max_attempts=2
        )
        for rows in self.silent.values():
            self._crash(rows)
        self.silent = {}
        free = [i for i in ORDERS[order] if i not in self.live and i not in self.done]
        held = [i for i, owner in self.live.items() if owner == worker]
        trusted = [i for i in free if not self.crashes[i]][:n]
        wanted = trusted if held else list(itertools.takewhile(lambda i: not self.crashes[i], free[:n])) or free[:1]
        if any(self.crashes[i] for i in held):
            wanted = []
        assert [c.id for c in commits] == wanted, "the first of the order, held by nobody; the untrusted alone"
        for commit in commits:
            self.hands[worker][commit.id] = commit
            self.live[commit.id] = worker

    def _crash(self, rows: set[int]) -> None:
        if len(rows) == 1 and all(self.crashes[i] for i in rows):
            (alone,) = rows
            self.failures[alone] += 1
            if self.failures[alone] >= 2:
                self.done.add(alone)
        for i in rows:
            self.crashes[i] += 1

    @rule(worker=st.sampled_from(WORKERS), outcome=st.sampled_from(OUTCOMES))
    def finish(self, worker: str, outcome: Outcome | Failure) -> None:
        held = self.hands[worker]
        results = [(commit, outcome) for commit in held.values()]
        tally = claims.finish(self.conn, "s0_1", worker, self.recipe, results, max_attempts=2)
        mine = {i for i in held if self.live.get(i) == worker}
        assert (tally.total, tally.lost) == (len(mine), len(held) - len(mine))
        for i in mine:
            del self.live[i]
            self.failures[i] += isinstance(outcome, Failure)
            self.crashes[i] = 0
            if not isinstance(outcome, Failure) or self.failures[i] >= 2:
                self.done.add(i)
        self.hands[worker] = {}

    @rule(worker=st.sampled_from(WORKERS))
    def lease_runs_out(self, worker: str) -> None:
        """The worker sleeps on, believing it holds its rows."""
        self.conn.execute("UPDATE commits SET claim_until_s = 0 WHERE claim_owner = ?", (worker,))
        rows = self.silent.get(worker, set()) | {i for i, owner in self.live.items() if owner == worker}
        if rows:
            self.silent[worker] = rows
        self.live = {i: owner for i, owner in self.live.items() if owner != worker}

    @rule(worker=st.sampled_from(WORKERS))
    def renew(self, worker: str) -> None:
        claims.renew(self.conn, worker, 1000)

    @rule(worker=st.sampled_from(WORKERS))
    def give_up(self, worker: str) -> None:
        claims.release(self.conn, worker)
        self.silent.pop(worker, None)
        self.live = {i: owner for i, owner in self.live.items() if owner != worker}

    @invariant()
    def status_and_facts_agree(self) -> None:
        if not hasattr(self, "conn"):
            return
        facts = {row[0] for row in self.conn.execute("SELECT commit_id FROM keyword_matches")}
        steps = {row[0] for row in self.conn.execute("SELECT commit_id FROM steps")}
        rows: list[sqlite3.Row] = self.conn.execute("SELECT id, status, outcome, claim_owner FROM commits").fetchall()
        decided = {i for i, status, outcome, _ in rows if status == "s0_1" or outcome == "rejected"}
        assert facts == steps == decided
        assert decided | {i for i, _, outcome, _ in rows if outcome == "failed"} == self.done
        assert all(owner is None for i, _, _, owner in rows if i in self.done)


Queue.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestQueue = Queue.TestCase
