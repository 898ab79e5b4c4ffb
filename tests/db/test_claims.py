"""No row has two owners, no result of a lost claim is stored, nothing stays claimed by the dead."""

import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trustmine.db import claims, identities, recipes
from trustmine.db.claims import Failure, Scope, Tally
from trustmine.db.connect import connect
from trustmine.records import Advance, Commit, KeywordMatch, Outcome, Reject

_LABEL = "INSERT INTO labels (commit_id, source, identifier, label, cwe, labelled_at_s)"

Add = Callable[..., list[int]]
OK = Advance((KeywordMatch(("fix",)),))


def take(conn: sqlite3.Connection, worker: str, n: int = 10, **more: object) -> list[Commit]:
    return claims.claim(conn, "s0_1", "ingested", worker, limit=n, lease_s=60, **more)  # type: ignore[arg-type]


def end(
    conn: sqlite3.Connection, worker: str, results: list[tuple[Commit, Outcome | Failure]], attempts: int = 3
) -> Tally:
    recipe = recipes.ensure(conn, "s0_1", {"stage": "s0_1"}, None)
    return claims.finish(conn, "s0_1", worker, recipe, results, max_attempts=attempts)


def row(conn: sqlite3.Connection, commit_id: int) -> tuple[object, ...]:
    found: tuple[object, ...] = conn.execute(
        "SELECT status, outcome, reject_stage, reject_reason, attempts, claim_owner FROM commits WHERE id = ?",
        (commit_id,),
    ).fetchone()
    return found


def test_two_workers_never_hold_the_same_row(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(15)
    a, b = take(conn, "a"), take(conn, "b")
    assert len(a) == 10
    assert len(b) == 5
    assert not {c.id for c in a} & {c.id for c in b}
    assert take(conn, "c") == []


def test_rows_come_oldest_first_and_whole(conn: sqlite3.Connection, add_commits: Add) -> None:
    ids = add_commits(3)
    commits = take(conn, "a")
    assert [c.id for c in commits] == ids
    assert commits[0].message == "fix overflow 1"
    assert commits[0].status == "ingested"


def test_a_finished_row_has_its_facts_its_step_and_its_status(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(3)
    a, b, c = take(conn, "a")
    tally = end(conn, "a", [(a, OK), (b, Reject("no_keyword")), (c, Failure("ValueError: x", "..."))])
    assert tally == Tally(1, 1, 1, 0)
    assert row(conn, a.id) == ("s0_1", "open", None, None, 0, None)
    assert row(conn, b.id) == ("ingested", "rejected", "s0_1", "no_keyword", 0, None)
    assert row(conn, c.id) == ("ingested", "open", None, None, 1, None)
    assert conn.execute("SELECT commit_id FROM keyword_matches").fetchall() == [(a.id,)]
    assert conn.execute("SELECT commit_id FROM steps").fetchall() == [(a.id,), (b.id,)]
    assert conn.execute("SELECT error FROM failures").fetchall() == [("ValueError: x",)]


def test_a_row_that_keeps_failing_is_set_aside(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(1)
    for attempt in (1, 2, 3):
        [commit] = take(conn, "a")
        end(conn, "a", [(commit, Failure(f"no {attempt}", "tb"))])
    assert take(conn, "a") == []
    assert row(conn, commit.id)[:2] == ("ingested", "failed")
    assert [r[0] for r in conn.execute("SELECT error FROM failures ORDER BY attempt")] == ["no 1", "no 2", "no 3"]


def test_a_row_that_passes_forgets_its_failures(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(1)
    [commit] = take(conn, "a")
    end(conn, "a", [(commit, Failure("no", "tb"))])
    [commit] = take(conn, "a")
    end(conn, "a", [(commit, OK)])
    assert row(conn, commit.id) == ("s0_1", "open", None, None, 0, None)
    assert conn.execute("SELECT count(*) FROM failures").fetchone()[0] == 0


def test_expired_lease_returns_to_pending(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(1)
    [commit] = claims.claim(conn, "s0_1", "ingested", "a", limit=1, lease_s=-1)
    [again] = take(conn, "b")
    assert again.id == commit.id


def test_a_late_result_is_dropped(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(2)
    late = claims.claim(conn, "s0_1", "ingested", "a", limit=2, lease_s=-1)
    [taken] = take(conn, "b", 1)
    assert end(conn, "a", [(commit, OK) for commit in late]) == Tally(lost=2)
    assert conn.execute("SELECT count(*) FROM keyword_matches").fetchone()[0] == 0
    assert row(conn, taken.id)[5] == "b"
    assert end(conn, "b", [(taken, OK)]).advanced == 1


def test_a_result_is_stored_once(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(1)
    [commit] = take(conn, "a")
    end(conn, "a", [(commit, OK)])
    assert end(conn, "a", [(commit, OK)]).lost == 1


def test_renewing_keeps_the_claim(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(1)
    claims.claim(conn, "s0_1", "ingested", "a", limit=1, lease_s=1)
    claims.renew(conn, "a", 1000)
    until = conn.execute("SELECT claim_until_s FROM commits").fetchone()[0]
    assert until > time.time() + 900


def test_a_lease_that_ran_out_cannot_be_renewed(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(1)
    claims.claim(conn, "s0_1", "ingested", "a", limit=1, lease_s=-1)
    claims.renew(conn, "a", 1000)
    assert len(take(conn, "b")) == 1


def test_scope_limits_what_is_claimed(conn: sqlite3.Connection, add_commits: Add) -> None:
    ids, others = add_commits(6), add_commits(4, repo="other")
    repo_id = conn.execute("SELECT id FROM repos WHERE name = 'other'").fetchone()[0]
    assert [c.id for c in take(conn, "a", scope=Scope(repo_id=repo_id))] == others
    assert [c.id for c in take(conn, "b", scope=Scope(start=ids[2], end=ids[4]))] == ids[2:4]
    assert [c.id for c in take(conn, "c", scope=Scope(ids=(ids[5],)))] == [ids[5]]
    conn.execute(
        f"{_LABEL} VALUES (?, 'list', '', 'yes', NULL, 0)",
        (ids[4],),
    )
    assert take(conn, "d", scope=Scope(is_labelled=True, qualities=("advisory",))) == []
    assert [c.id for c in take(conn, "d", scope=Scope(is_labelled=True))] == [ids[4]]


def test_rejected_rows_can_be_taken_aside_once(conn: sqlite3.Connection, add_commits: Add) -> None:
    [commit_id] = add_commits(1)
    conn.execute("UPDATE commits SET status = 's0_2', outcome = 'rejected', reject_stage = 's0_3',"
                 " reject_reason = 'undecided'")  # fmt: skip
    aside = (("s0_3", "undecided"),)
    [commit] = claims.claim(conn, "s4", "s3_2", "a", limit=5, lease_s=60, aside=aside)
    assert commit.is_aside
    recipe = recipes.ensure(conn, "s4", {"stage": "s4"}, None)
    tally = claims.finish(conn, "s4", "a", recipe, [(commit, Advance())], max_attempts=3)
    assert tally.advanced == 1
    assert row(conn, commit_id)[:4] == ("s0_2", "rejected", "s0_3", "undecided")
    assert claims.claim(conn, "s4", "s3_2", "a", limit=5, lease_s=60, aside=aside) == []


def test_a_row_aside_that_keeps_failing_is_not_taken_for_ever(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(1)
    conn.execute("UPDATE commits SET status = 's0_2', outcome = 'rejected', reject_stage = 's0_3',"
                 " reject_reason = 'undecided'")  # fmt: skip
    recipe = recipes.ensure(conn, "s4", {"stage": "s4"}, None)
    taken = 0
    while rows := claims.claim(conn, "s4", "s3_2", "a", limit=1, lease_s=60, aside=(("s0_3", "undecided"),)):
        taken += 1
        claims.finish(conn, "s4", "a", recipe, [(rows[0], Failure("no", "tb"))], max_attempts=2)
        assert taken < 5
    assert taken == 2


# ---------------------------------------------------------------------- which row first


def give(conn: sqlite3.Connection, priorities: dict[int, float]) -> None:
    """Priorities as s0_2 stores them."""
    for commit_id, value in priorities.items():
        conn.execute("INSERT INTO priorities VALUES (?, ?, 0, ?, 0, 0, 0, '[]')", (commit_id, value, value))


def judge(conn: sqlite3.Connection, worker: str, order: str, n: int = 10, **more: object) -> list[int]:
    rows = claims.claim(conn, "s0_3", "s0_2", worker, limit=n, lease_s=60, order=order, **more)  # type: ignore[arg-type]
    return [commit.id for commit in rows]


def test_the_most_promising_rows_come_first_and_equals_in_their_order(
    conn: sqlite3.Connection, add_commits: Add
) -> None:
    a, b, c, d, e = add_commits(5, status="s0_2")
    give(conn, {a: 1.0, b: 3.5, c: -2.0, d: 3.5})
    assert judge(conn, "w", "priority", 1) == [b]
    assert judge(conn, "v", "priority", 2) == [d, a], "what another worker holds is passed over"
    assert judge(conn, "w", "priority") == [c, e], "a row without a priority is not forgotten"


def test_newest_and_oldest_follow_the_order_of_ingestion(conn: sqlite3.Connection, add_commits: Add) -> None:
    ids = add_commits(4, status="s0_2")
    give(conn, {commit_id: float(commit_id % 2) for commit_id in ids})
    assert judge(conn, "w", "newest", 2) == [ids[3], ids[2]]
    assert judge(conn, "w", "oldest") == ids[:2]


@pytest.mark.parametrize("order", ["priority", "oldest"])
def test_before_s0_2_priority_is_oldest(conn: sqlite3.Connection, add_commits: Add, order: str) -> None:
    ids = add_commits(3)
    assert [c.id for c in take(conn, "a", order=order)] == ids


def test_a_scope_is_kept_in_every_order(conn: sqlite3.Connection, add_commits: Add) -> None:
    ids, others = add_commits(6, status="s0_2"), add_commits(3, repo="other", status="s0_2")
    give(conn, {commit_id: float(commit_id) for commit_id in (*ids, *others[:2])})
    repo_id = conn.execute("SELECT id FROM repos WHERE name = 'other'").fetchone()[0]
    assert judge(conn, "a", "priority", scope=Scope(repo_id=repo_id)) == [others[1], others[0], others[2]]
    assert judge(conn, "a", "priority", scope=Scope(start=ids[1], end=ids[4])) == [ids[3], ids[2], ids[1]]
    assert judge(conn, "a", "newest", scope=Scope(end=others[0])) == [ids[5], ids[4], ids[0]]


def test_rows_aside_come_after_the_others_in_the_same_order(conn: sqlite3.Connection, add_commits: Add) -> None:
    a, b, c, d = add_commits(4, status="s0_2")
    give(conn, {a: 1.0, b: 2.0, c: 3.0, d: 4.0})
    conn.execute("UPDATE commits SET outcome = 'rejected', reject_stage = 's0_3', reject_reason = 'undecided'")
    conn.execute("UPDATE commits SET status = 's3_2', outcome = 'open', reject_stage = NULL, reject_reason = NULL"
                 " WHERE id = ?", (b,))  # fmt: skip
    aside = (("s0_3", "undecided"),)
    claimed = claims.claim(conn, "s4", "s3_2", "a", limit=3, lease_s=60, aside=aside, order="priority")
    assert [(commit.id, commit.is_aside) for commit in claimed] == [(b, False), (d, True), (c, True)]


def test_the_priority_of_a_row_is_that_of_its_fact(conn: sqlite3.Connection, add_commits: Add) -> None:
    a, b = add_commits(2, status="s0_2")

    def stored() -> list[float | None]:
        return [row[0] for row in conn.execute("SELECT priority FROM commits ORDER BY id")]

    give(conn, {a: 2.0})
    assert stored() == [2.0, None]
    conn.execute("UPDATE priorities SET size = 0.5, priority = 2.5")
    assert stored() == [2.5, None]
    conn.execute("UPDATE priorities SET commit_id = ?", (b,))
    assert stored() == [None, 2.5]
    conn.execute("INSERT OR REPLACE INTO priorities VALUES (?, -1, 0, -1, 0, 0, 0, '[]')", (b,))
    assert stored() == [None, -1.0]
    conn.execute("DELETE FROM priorities")
    assert stored() == [None, None]
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute("INSERT INTO priorities VALUES (?, 9, 0, 1, 0, 0, 0, '[]')", (b,))


@pytest.mark.parametrize("order", ["priority", "newest", "oldest"])
@pytest.mark.parametrize("scope", [Scope(), Scope(repo_id=1), Scope(start=2, end=9), Scope(repo_id=1, end=9)])
def test_an_index_serves_each_order_of_pending_rows_without_sorting(
    conn: sqlite3.Connection, order: str, scope: Scope
) -> None:
    for part in claims.ORDERS[order]:
        sql = claims.claim_sql(claims.PENDING, part, scope)
        plan = [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}", ("s0_2", 0, *scope.where()[1], 10))]
        served = f"USING INDEX {part[0]} (status=?"
        if scope.repo_id is not None:
            served = {
                "commits_pending": "commits_funnel (repo_id=? AND status=? AND outcome=? AND reject_stage=?",
                "commits_best": "commits_best_of_repo (repo_id=? AND status=?",
            }[part[0]]
        assert [served in step for step in plan] == [True], plan


@pytest.mark.parametrize("order", ["priority", "newest", "oldest"])
@pytest.mark.parametrize("scope", [Scope(), Scope(repo_id=1)])
def test_an_index_serves_each_order_of_undecided_rows_without_sorting(
    conn: sqlite3.Connection, order: str, scope: Scope
) -> None:
    sql = claims.claim_sql(claims.aside_where(), claims.ORDERS[order][0], scope)
    values = ("s0_3", "undecided", "s4", 0, *scope.where()[1], 10)
    plan = [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert ("commits_best_undecided" if order == "priority" else "commits_undecided") in plan[0]
    assert not any("TEMP B-TREE" in step for step in plan), plan


def test_rows_before_s0_2_are_not_in_the_index_of_priorities(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(5)
    add_commits(5, status="s0_1")
    judged = add_commits(2, status="s0_2")
    give(conn, {judged[0]: 1.0, judged[1]: 0.0})
    conn.execute("UPDATE commits SET outcome = 'rejected', reject_stage = 's0_3', reject_reason = 'not_a_fix'"
                 " WHERE id = ?", (judged[1],))  # fmt: skip
    conn.execute("ANALYZE commits")
    n_rows = dict(conn.execute("SELECT idx, CAST(stat AS INTEGER) FROM sqlite_stat1 WHERE tbl = 'commits'").fetchall())
    assert (n_rows["commits_pending"], n_rows["commits_best"]) == (11, 1)


def _claim_and_wait(db: Path, ready: "multiprocessing.synchronize.Event") -> None:
    conn = connect(db)
    claims.claim(conn, "s0_1", "ingested", identities.worker_name(), limit=5, lease_s=3600)
    ready.set()
    time.sleep(60)


def test_rows_of_a_killed_process_are_pending_at_once(
    conn: sqlite3.Connection, db_path: Path, add_commits: Add
) -> None:
    add_commits(5)
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    process = spawn.Process(target=_claim_and_wait, args=(db_path, ready))
    process.start()
    assert ready.wait(30)
    assert take(conn, "b") == []
    claims.reclaim(conn)
    assert take(conn, "b") == [], "a living worker keeps its rows"
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    claims.reclaim(conn)
    assert [len(take(conn, worker)) for worker in "bcdef"] == [1] * 5, "which of them it died of is not known"
    assert conn.execute("SELECT sum(attempts), min(crashes), max(crashes) FROM commits").fetchone() == (0, 1, 1)


def die(conn: sqlite3.Connection, worker: str) -> None:
    """The worker's lease runs out, and somebody notices."""
    conn.execute("UPDATE commits SET claim_until_s = 1 WHERE claim_owner = ?", (worker,))


def test_neighbours_of_a_row_that_kills_are_claimed_alone_and_never_blamed(
    conn: sqlite3.Connection, add_commits: Add
) -> None:
    """The second of four rows kills every worker."""
    add_commits(4)
    n_deaths = 0
    while commits := take(conn, "a", 10, max_attempts=3):
        if 2 in [c.id for c in commits]:
            n_deaths += 1
            die(conn, "a")
        else:
            end(conn, "a", [(c, OK) for c in commits])
    assert n_deaths == 1 + 3, "once in company, then as often as any row may fail"
    assert [row(conn, i)[:2] for i in (1, 2, 3, 4)] == [
        ("s0_1", "open"), ("ingested", "failed"), ("s0_1", "open"), ("s0_1", "open")
    ]  # fmt: skip
    errors = conn.execute("SELECT commit_id, stage, attempt, error FROM failures ORDER BY attempt").fetchall()
    assert errors == [(2, "s0_1", n, claims.FELL_SILENT) for n in (1, 2, 3)]
    assert conn.execute("SELECT id FROM commits WHERE crashes > 0").fetchall() == [(2,)]


def test_an_untrusted_row_waits_for_empty_hands(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(5)
    assert len(take(conn, "a", 2)) == 2
    die(conn, "a")
    assert [c.id for c in take(conn, "b", 1)] == [1]
    assert take(conn, "b") == [], "nothing beside an untrusted row"
    assert [c.id for c in take(conn, "c")] == [2]
    assert [c.id for c in take(conn, "d")] == [3, 4, 5]
    die(conn, "d")
    [second] = claims.read(conn, [2])
    end(conn, "c", [(second, OK)])
    add_commits(1)
    assert [c.id for c in take(conn, "e", order="newest")] == [6], "up to the first untrusted one"
    [seventh] = add_commits(1)
    assert [c.id for c in take(conn, "e", order="oldest")] == [seventh], "the others, while there is something in hand"
    end(conn, "e", [(commit, OK) for commit in claims.read(conn, [6, seventh])])
    assert [c.id for c in take(conn, "e", order="newest")] == [5]


def test_where_a_model_is_asked_an_untrusted_row_is_alone_among_all_workers(
    conn: sqlite3.Connection, add_commits: Add
) -> None:
    """The model may be one process that answers them all."""
    ids = add_commits(4, status="s0_2")
    add_commits(2)

    def ask(worker: str, n: int = 2) -> list[int]:
        return [c.id for c in claims.claim(conn, "s0_3", "s0_2", worker, limit=n, lease_s=60)]

    assert ask("a") == ids[:2]
    die(conn, "a")
    assert ask("b", 1) == [ids[0]]
    assert ask("c") == [], "nothing beside it, whoever asks"
    assert len(take(conn, "d")) == 2, "git and parser work goes on"
    first = claims.read(conn, [ids[0]])[0]
    claims.finish(conn, "s0_3", "b", recipes.ensure(conn, "s0_3", {}, None), [(first, Reject("no"))], max_attempts=3)
    conn.execute("UPDATE commits SET crashes = 0 WHERE id = ?", (ids[1],))
    assert ask("e", 1) == [ids[1]]
    conn.execute("UPDATE commits SET crashes = 1 WHERE id = ?", (ids[2],))
    assert ask("f") == [ids[3]], "no untrusted row beside what others ask"


def test_a_row_that_a_worker_survives_is_trusted_again(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(3)
    take(conn, "a")
    die(conn, "a")
    [one] = take(conn, "b")
    end(conn, "b", [(one, Failure("ValueError: no", "tb"))])
    assert conn.execute("SELECT attempts, crashes FROM commits ORDER BY id").fetchall() == [(1, 0), (0, 1), (0, 1)]


def test_a_row_aside_that_kills_is_given_up_too(conn: sqlite3.Connection, add_commits: Add) -> None:
    add_commits(1)
    conn.execute("UPDATE commits SET status = 's0_2', outcome = 'rejected', reject_stage = 's0_3',"
                 " reject_reason = 'undecided'")  # fmt: skip
    recipes.ensure(conn, "s4", {"stage": "s4"}, None)
    taken = 0
    while claims.claim(conn, "s4", "s3_2", f"w{taken}", limit=1, lease_s=60, aside=(("s0_3", "undecided"),)):
        claims.enter(conn, f"w{taken}", "s4")
        die(conn, f"w{taken}")
        taken += 1
        assert taken < 9
    assert taken == 1 + claims.MAX_ATTEMPTS
    assert row(conn, 1)[:4] == ("s0_2", "rejected", "s0_3", "undecided")
    assert conn.execute("SELECT DISTINCT stage FROM failures").fetchall() == [("s4",)]


def test_a_worker_of_another_host_is_taken_for_alive() -> None:
    assert identities.is_alive("elsewhere:1:2:ab")
    assert identities.is_alive(identities.worker_name())
    host, pid, started, nonce = identities.worker_name().rsplit(":", 3)
    assert not identities.is_alive(f"{host}:{pid}:{int(started) + 1}:{nonce}"), "the pid was given to another process"


def test_a_worker_in_a_container_of_this_host_is_taken_for_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    here = identities.worker_name()
    monkeypatch.setattr(Path, "readlink", lambda _: Path("pid:[4026599999]"))
    assert identities.is_alive(identities.worker_name())
    host, pid, started, nonce = here.rsplit(":", 3)
    assert identities.is_alive(f"{host}:{pid}:{int(started) + 1}:{nonce}"), "its process ids mean nothing here"


def _work_through(db: Path, worker: str, done: "multiprocessing.Queue[list[int]]") -> None:
    conn = connect(db)
    recipe = recipes.ensure(conn, "s0_1", {"stage": "s0_1"}, None)
    mine = []
    while commits := claims.claim(conn, "s0_1", "ingested", worker, limit=7, lease_s=60):
        tally = claims.finish(conn, "s0_1", worker, recipe, [(c, OK) for c in commits], max_attempts=3)
        assert tally.advanced == len(commits)
        mine += [c.id for c in commits]
    done.put(mine)


def test_processes_share_the_rows_without_doing_one_twice(
    conn: sqlite3.Connection, db_path: Path, add_commits: Add
) -> None:
    ids = add_commits(500)
    spawn = multiprocessing.get_context("spawn")
    done: multiprocessing.Queue[list[int]] = spawn.Queue()
    processes = [spawn.Process(target=_work_through, args=(db_path, f"w{i}", done)) for i in range(3)]
    for process in processes:
        process.start()
    finished = [done.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(i for mine in finished for i in mine) == ids
    assert conn.execute("SELECT count(*) FROM commits WHERE status = 's0_1'").fetchone()[0] == 500


@pytest.mark.parametrize("name", ["a", "zz:1:2:3"])
def test_release_gives_all_rows_back(conn: sqlite3.Connection, add_commits: Add, name: str) -> None:
    add_commits(4)
    take(conn, name)
    assert claims.owners(conn) == [name]
    claims.release(conn, name)
    assert claims.owners(conn) == []
    assert len(take(conn, "b")) == 4
