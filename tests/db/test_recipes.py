"""Stale rows are those another recipe made; rows sent back leave nothing behind but their calls."""

import sqlite3
from collections.abc import Callable

from trustmine.db import claims, identities, queries, recipes
from trustmine.db.claims import Failure, Scope
from trustmine.records import Advance, Commit, CommitSize, Diff, Fact, KeywordMatch, Outcome, Reject, Verdict

Add = Callable[..., list[int]]
Results = list[tuple[Commit, Outcome | Failure]]
DIFF = Diff("patch", "utf-8", 5)
FACTS: dict[str, tuple[Fact, ...]] = {
    "s0_1": (KeywordMatch(("fix",)), DIFF),
    "s0_2": (CommitSize(7),),
    "s0_3": (Verdict("yes", "list"),),
}
AFTER = {"s0_1": "ingested", "s0_2": "s0_1", "s0_3": "s0_2"}


def recipe(conn: sqlite3.Connection, stage: str, version: int = 1) -> int:
    return recipes.ensure(conn, stage, {"stage": stage, "version": version}, None)


def digest(stage: str, version: int = 1) -> str:
    return recipes.recipe_hash({"stage": stage, "version": version})


def pass_stage(conn: sqlite3.Connection, stage: str, version: int = 1, limit: int = 100) -> None:
    commits = claims.claim(conn, stage, AFTER[stage], "w", limit=limit, lease_s=60)
    outcomes: Results = [(c, Advance(FACTS[stage])) for c in commits]
    claims.finish(conn, stage, "w", recipe(conn, stage, version), outcomes, max_attempts=3)


def statuses(conn: sqlite3.Connection) -> list[tuple[str, str]]:
    return conn.execute("SELECT status, outcome FROM commits ORDER BY id").fetchall()


def n(conn: sqlite3.Connection, table: str) -> int:
    return int(conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_the_same_recipe_has_one_row(conn: sqlite3.Connection) -> None:
    assert recipe(conn, "s0_1") == recipe(conn, "s0_1") != recipe(conn, "s0_1", 2)


def test_rows_of_another_recipe_are_stale_at_their_earliest_stage(conn: sqlite3.Connection, add_commits: Add) -> None:
    ids = add_commits(4)
    pass_stage(conn, "s0_1", version=1, limit=2)
    pass_stage(conn, "s0_1", version=2)
    pass_stage(conn, "s0_2", version=1)
    present = {"s0_1": digest("s0_1", 2), "s0_2": digest("s0_2", 9)}
    assert recipes.stale(conn, present) == {"s0_1": ids[:2], "s0_2": ids[2:]}
    assert recipes.stale(conn, {"s0_1": digest("s0_1", 1)}, Scope(end=ids[3])) == {"s0_1": [ids[2]]}


def test_of_some_rows_those_come_first_that_a_claim_would_take_first(
    conn: sqlite3.Connection, add_commits: Add
) -> None:
    ids = add_commits(4)
    conn.execute("UPDATE commits SET priority = id WHERE id IN (?, ?)", (ids[1], ids[2]))
    assert recipes.first(conn, ids, "priority", 3) == [ids[2], ids[1], ids[0]]
    assert recipes.first(conn, ids[1:], "oldest", 2) == ids[1:3]
    assert recipes.first(conn, ids, "newest", 1) == [ids[3]]
    assert recipes.first(conn, ids, "oldest", 0) == []


def test_rows_sent_back_are_pending_there_without_later_facts(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(3)
    for stage in AFTER:
        pass_stage(conn, stage)
    assert recipes.send_back(conn, "s0_2") == 3
    assert statuses(conn) == [("s0_1", "open")] * 3
    assert (n(conn, "diffs"), n(conn, "commit_sizes"), n(conn, "verdicts"), n(conn, "steps")) == (3, 0, 0, 3)


def test_only_rows_that_got_there_are_sent_back(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(3)
    pass_stage(conn, "s0_1", limit=2)
    pass_stage(conn, "s0_2", limit=1)
    assert recipes.send_back(conn, "s0_2") == 1
    assert statuses(conn) == [("s0_1", "open"), ("s0_1", "open"), ("ingested", "open")]


def test_rejected_and_failed_rows_of_the_stage_are_open_again(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(3)
    a, b, c = claims.claim(conn, "s0_1", "ingested", "w", limit=3, lease_s=60)
    results: Results = [(a, Reject("merge", (KeywordMatch(("fix",)),))), (b, Failure("no", "tb")), (c, Advance())]
    claims.finish(conn, "s0_1", "w", recipe(conn, "s0_1"), results, max_attempts=1)
    assert recipes.send_back(conn, "s0_1") == 3
    assert statuses(conn) == [("ingested", "open")] * 3
    assert (n(conn, "keyword_matches"), n(conn, "failures"), n(conn, "steps")) == (0, 0, 0)


def test_a_row_rejected_earlier_stays_rejected_when_a_later_stage_is_reset(
    conn: sqlite3.Connection, add_commits: Add
) -> None:
    add_commits(1)
    conn.execute("UPDATE commits SET status = 's0_2', outcome = 'rejected', reject_stage = 's0_3',"
                 " reject_reason = 'undecided'")  # fmt: skip
    [commit] = claims.claim(conn, "s4", "s3_2", "w", limit=1, lease_s=60, aside=(("s0_3", "undecided"),))
    claims.finish(conn, "s4", "w", recipe(conn, "s4"), [(commit, Advance())], max_attempts=3)
    assert recipes.send_back(conn, "s4") == 1
    assert statuses(conn) == [("s0_2", "rejected")]
    assert n(conn, "steps") == 0


def test_a_claim_on_a_row_sent_back_is_lost(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(1)
    pass_stage(conn, "s0_1")
    [commit] = claims.claim(conn, "s0_2", "s0_1", "w", limit=1, lease_s=60)
    recipes.send_back(conn, "s0_1")
    tally = claims.finish(conn, "s0_2", "w", recipe(conn, "s0_2"), [(commit, Advance())], max_attempts=3)
    assert tally.lost == 1
    assert statuses(conn) == [("ingested", "open")]


def test_the_funnel_counts_every_row_once_per_stage(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(6)
    commits = claims.claim(conn, "s0_1", "ingested", "w", limit=5, lease_s=60)
    ok: Results = [(c, Advance()) for c in commits[:3]]
    rest: Results = [(commits[3], Reject("no_keyword")), (commits[4], Failure("no", "tb"))]
    claims.finish(conn, "s0_1", "w", recipe(conn, "s0_1"), [*ok, *rest], max_attempts=1)
    claims.claim(conn, "s0_2", "s0_1", identities.worker_name(), limit=2, lease_s=60)
    claims.claim(
        conn, "s0_1", "ingested", f"{identities.worker_name().rsplit(':', 3)[0]}:1:0:dead", limit=1, lease_s=60
    )
    counts = queries.funnel(conn)
    first, second = counts["s0_1"], counts["s0_2"]
    assert (first.pending, first.claimed, first.passed, first.failed, first.rejected) == (1, 0, 3, 1, {"no_keyword": 1})
    assert (second.pending, second.claimed, second.passed) == (1, 2, 0)
    assert sum((n.pending + n.claimed + n.failed + sum(n.rejected.values())) for n in counts.values()) == 6
