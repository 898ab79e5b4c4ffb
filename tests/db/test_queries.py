"""What is running, and how fast: only workers that are there, and only rows that they will take."""

import sqlite3
import time
from collections.abc import Callable

import pytest

from trustmine.db import identities, queries
from trustmine.db.claims import Scope

Add = Callable[..., list[int]]
LEASE_S = 900.0
ELSEWHERE = "elsewhere:1:2:ab"


def enter(conn: sqlite3.Connection, worker: str, stage: str, *, seen_s_ago: float = 0.0, n: int = 100) -> None:
    """A worker that began 1,000 s ago and has not said that it ended."""
    now = time.time()
    conn.execute(
        "INSERT INTO workers (worker, stage, started_at_s, seen_at_s, n_advanced) VALUES (?, ?, ?, ?, ?)",
        (worker, stage, now - 1_000, now - seen_s_ago, n),
    )


def rates(conn: sqlite3.Connection, scope: Scope = Scope()) -> dict[str, queries.Rate]:
    return queries.rates(conn, queries.funnel(conn, scope), LEASE_S, scope)


def test_a_worker_of_another_host_runs_as_long_as_it_is_heard_of(conn: sqlite3.Connection, add_commits: Add) -> None:
    ids = add_commits(50)
    enter(conn, ELSEWHERE, "s0_1", seen_s_ago=LEASE_S - 60)
    [rate] = rates(conn).values()
    assert (rate.n_workers, round(rate.rows_per_s, 3)) == (1, 0.1)
    assert rate.left_s == pytest.approx(500, rel=0.01)
    conn.execute("UPDATE workers SET seen_at_s = ?", (time.time() - LEASE_S - 60,))
    assert rates(conn) == {}, "dead, most likely"
    hold = "UPDATE commits SET claim_owner = ?, claim_until_s = ? WHERE id = ?"
    conn.execute(hold, (ELSEWHERE, time.time() + 60, ids[0]))
    assert rates(conn)["s0_1"].n_workers == 1, "at a row that takes long, with a lease renewed"
    conn.execute(hold, (ELSEWHERE, time.time() - 60, ids[0]))
    assert rates(conn) == {}


def test_a_worker_that_is_heard_of_at_one_stage_is_there_at_all_of_its_stages(
    conn: sqlite3.Connection, add_commits: Add
) -> None:
    add_commits(5)
    add_commits(5, status="s0_1")
    enter(conn, ELSEWHERE, "s0_1", seen_s_ago=2 * LEASE_S)
    enter(conn, ELSEWHERE, "s0_2")
    assert rates(conn).keys() == {"s0_1", "s0_2"}


def test_a_worker_of_this_host_runs_while_its_process_does(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(5)
    here = identities.worker_name()
    enter(conn, here, "s0_1", seen_s_ago=2 * LEASE_S)
    assert rates(conn)["s0_1"].n_workers == 1
    host, pid, _, nonce = here.rsplit(":", 3)
    conn.execute("UPDATE workers SET worker = ?", (f"{host}:{pid}:1:{nonce}",))
    assert rates(conn) == {}, "another process had its number"


def test_a_model_of_another_host_is_loaded_as_long_as_it_is_heard_of(conn: sqlite3.Connection) -> None:
    now = time.time()
    conn.execute(
        "INSERT INTO models (sha256, name, path, size_bytes, mtime_ns, engine) VALUES ('0', 'm', '/m', 1, 1, '')"
    )
    conn.execute(
        "INSERT INTO model_runs (model_id, worker, n_sequences, started_at_s, seen_at_s) VALUES (1, ?, 1, ?, ?)",
        (ELSEWHERE, now - 5_000, now - 60),
    )
    assert [run.is_running for run in queries.model_runs(conn, LEASE_S)] == [True]
    conn.execute("UPDATE model_runs SET seen_at_s = ?", (now - LEASE_S - 60,))
    assert [run.is_running for run in queries.model_runs(conn, LEASE_S)] == [False]


def test_one_of_several_repositories_has_a_rate_only_where_no_other_waits(
    conn: sqlite3.Connection, add_commits: Add
) -> None:
    add_commits(30, repo="small")
    others = add_commits(70, repo="large")
    enter(conn, identities.worker_name(), "s0_1")
    small = Scope(repo_id=queries.repo_id(conn, "small"))
    assert rates(conn)["s0_1"].left_s == pytest.approx(1_000, rel=0.01)
    assert rates(conn, small) == {}, "the worker may be at the other one"
    conn.execute("UPDATE commits SET status = 's0_1' WHERE id >= ?", (others[0],))
    assert rates(conn, small)["s0_1"].left_s == pytest.approx(300, rel=0.01)
