"""Damage is found by the check that is there for it, and repaired rows come out as they were."""

import json
import random
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import verify_helpers as helpers
from verify_helpers import show

from trustmine import benign, cli, labels, verify
from trustmine.db import claims, identities, recipes
from trustmine.db.claims import Failure
from trustmine.db.connect import connect
from trustmine.db.facts import FactReader
from trustmine.verify import CHECKS, again, base

FIX = 2  # id of the commit that goes through all stages, judged by the model


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return helpers.make(tmp_path_factory.mktemp("verify"))


@pytest.fixture
def db(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sound, tmp_path / "trustmine.db"))


def found(conn: sqlite3.Connection, **how: Any) -> dict[str, int]:
    results = verify.verify(conn, helpers.SETTINGS, show, **how)
    return {result.check.name: result.n_found for result in results if result.n_found}


def damaged_index(conn: sqlite3.Connection) -> None:
    """An index that misses a row: taken out of the schema while the row is written."""
    path = conn.execute("PRAGMA database_list").fetchone()[2]
    row = conn.execute("SELECT * FROM sqlite_master WHERE name = 'workers_stage'").fetchone()
    for sql, values in (
        ("DELETE FROM sqlite_master WHERE name = 'workers_stage'", ()),
        ("UPDATE workers SET seen_at_s = seen_at_s + 1 WHERE id = 1", ()),
        ("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", row),
    ):
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("PRAGMA writable_schema = ON")
        other.execute(sql, values)
        other.close()


def damaged_pre_image(conn: sqlite3.Connection) -> None:
    conn.execute("UPDATE pre_images SET content = ?", (zlib.compress(b"int other;\n"),))


def orphan(conn: sqlite3.Connection) -> None:
    conn.execute("PRAGMA foreign_keys = OFF")
    conn.execute("INSERT INTO masks VALUES (999, 1, 1, 1, 'x', 0)")
    conn.execute("PRAGMA foreign_keys = ON")


DAMAGE: dict[str, str | Callable[[sqlite3.Connection], None]] = {
    "integrity": damaged_index,
    "foreign_keys": orphan,
    "commits": "UPDATE messages SET message = message || 'x' WHERE commit_id = 2",
    "claims": "UPDATE commits SET claim_owner = 'nobody', claim_until_s = 1 WHERE id = 3",
    "outcomes": "UPDATE commits SET reject_stage = 's0_2' WHERE id = 1",
    "steps": "DELETE FROM steps WHERE commit_id = 2 AND stage = 's1_1'",
    "facts_missing": "DELETE FROM segments WHERE commit_id = 2",
    "facts_not_reached": "INSERT INTO commit_sizes VALUES (1, 7)",
    "failures": "INSERT INTO failures VALUES (2, 's0_1', 1, 'error', 'traceback', 'worker', 0)",
    "priorities": "UPDATE commits SET priority = 99 WHERE id = 2",
    "words": "DELETE FROM messages_fts_docsize WHERE id = 3",
    "recipes": "UPDATE recipes SET content = json_set(content, '$.version', 99) WHERE stage = 's1_1'",
    "calibrations": 'UPDATE calibrations SET "offset" = "offset" + 1',
    "calls": "UPDATE llm_calls SET rendered_hash = 'r' WHERE commit_id = 2 AND stage = 's3_1'",
    "diffs": "UPDATE diffs SET n_chars = n_chars + 1 WHERE commit_id = 2",
    "s0_1_again": "UPDATE keyword_matches SET keywords = '[\"other\"]' WHERE commit_id = 2",
    "s0_2_again": "UPDATE commit_sizes SET n_tokens = n_tokens + 1 WHERE commit_id = 2",
    "verdict_calls": "DELETE FROM llm_calls WHERE commit_id = 2 AND task = 'judge'",
    "s0_3_again": "UPDATE verdicts SET p_yes = 0.5 WHERE commit_id = 2",
    "pre_images": damaged_pre_image,
    "functions": "UPDATE functions SET pre_text = replace(pre_text, 'size', 'sise') WHERE commit_id = 2",
    "s1_1_again": "UPDATE functions SET n_tokens = 1 WHERE commit_id = 2",
    "mask_calls": "UPDATE masked_functions SET request_hash = 'gone' WHERE commit_id = 2",
    "masks": "UPDATE masks SET removed = 'other' WHERE commit_id = 2",
    "s1_2_again": "UPDATE llm_calls SET completion = '8-8' WHERE commit_id = 2 AND stage = 's1_2'",
    "merged_masks": "UPDATE merged_masks SET fixed = 'other' WHERE commit_id = 2",
    "s2_0_again": "UPDATE undefined_elements SET kind = 'label' WHERE commit_id = 2",
    "blob_symbols": "UPDATE blob_symbols SET n_symbols = n_symbols + 1",
    "element_calls": "DELETE FROM llm_calls WHERE commit_id = 2 AND stage = 's2_1'",
    "elements": "UPDATE elements SET definition = 'other' WHERE commit_id = 2 AND name = 'read_u16'",
    "s2_1_again": "UPDATE elements SET n_candidates = 9 WHERE commit_id = 2",
    "context_items": "UPDATE context_items SET n_chars = 100000 WHERE commit_id = 2",
    "s2_2_again": "UPDATE context_items SET n_tokens = n_tokens + 1 WHERE commit_id = 2",
    "segment_calls": "UPDATE segments SET request_hash = 'gone' WHERE commit_id = 2",
    "segments": "UPDATE segments SET snippet = 'other' WHERE commit_id = 2",
    "s3_1_again": "UPDATE llm_calls SET completion = 'It lies. Lines: 8-8' WHERE commit_id = 2 AND stage = 's3_1'",
    "explanation_calls": "UPDATE explanations SET request_hash = 'gone' WHERE commit_id = 2",
    "explanations": "UPDATE explanations SET root_cause = ' ' WHERE commit_id = 2",
    "s3_2_again": "UPDATE explanations SET impact = 'other' WHERE commit_id = 2",
    "instructions": "UPDATE instructions SET split = 'bench' WHERE commit_id = 2 AND task = 'refine'",
    "s4_again": "UPDATE instructions SET output = output || 'x' WHERE commit_id = 2 AND task = 'refine'",
    "benign_functions": "UPDATE instructions SET example_no = 7 WHERE task = 'benign'",
    "benign_again": "UPDATE benign_functions SET text = replace(text, 'n * 2', 'n * 3')",
    "file_lifespans": 'UPDATE file_lifespans SET functions = replace(functions, \'"since":"\', \'"since":"0\')',
}


def test_a_long_verification_lets_the_write_ahead_log_be_folded_back(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker commits while rows are checked is in the file before the check ends."""
    for module, batch in ((again, "BATCH"), (base, "EVERY")):
        monkeypatch.setattr(module, batch, 1)
    conn, worker = connect(db), connect(db)
    folded: list[int] = []

    @contextmanager
    def working(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        def draw(done: int) -> None:
            worker.execute("UPDATE workers SET seen_at_s = seen_at_s + 1")
            folded.append(worker.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[2])

        yield draw

    for name in ("commits", "s0_1_again"):
        folded.clear()
        [check] = [check for check in CHECKS if check.name == name]
        [result] = verify.verify(conn, helpers.SETTINGS, working, checks=[check])
        assert (result.n_found, result.skipped) == (0, {})
        assert len(folded) > 5
        assert folded[-1] > folded[1], name
    folded.clear()
    conn.execute("BEGIN")
    with working("diffs", None) as draw:
        for commit in base.Look(conn, helpers.SETTINGS).commits("diffs"):
            draw(commit.id)
    assert folded[-1] > folded[1], "facts of rows"
    conn.close()
    worker.close()


def only_words() -> list[base.Check]:
    return [check for check in CHECKS if check.name == "words"]


def test_a_writer_beside_it_is_no_damage_to_the_index_of_words(db: Path) -> None:
    conn, worker = connect(db), connect(db)
    worker.execute("PRAGMA busy_timeout = 0")
    n_tried = 0

    def meanwhile(statement: str) -> None:
        """A worker commits just before the index is checked, if it may."""
        nonlocal n_tried
        if "integrity-check" in statement:
            n_tried += 1
            with suppress(sqlite3.OperationalError):
                worker.execute("UPDATE workers SET seen_at_s = seen_at_s + 1")

    conn.set_trace_callback(meanwhile)
    assert found(conn, repair=True, checks=only_words()) == {}
    assert n_tried >= 2, "both indexes"
    assert not conn.in_transaction
    conn.close()
    worker.close()


def test_a_database_held_for_too_long_stops_the_verification_and_is_no_finding(db: Path) -> None:
    conn, worker = connect(db), connect(db)
    conn.execute("PRAGMA busy_timeout = 50")
    worker.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        found(conn, checks=only_words())
    worker.execute("ROLLBACK")
    assert found(conn, repair=True, checks=only_words()) == {}
    conn.close()
    worker.close()


def test_an_index_of_words_that_knows_other_words_is_made_anew(db: Path) -> None:
    conn = connect(db)
    conn.execute("INSERT INTO messages_fts (messages_fts, rowid, message) SELECT 'delete', commit_id, message"
                 " FROM messages WHERE commit_id = 3")  # fmt: skip
    conn.execute("INSERT INTO messages_fts (rowid, message) VALUES (3, 'quite other words')")
    assert found(conn, repair=True, checks=only_words()) == {"words": 1}
    assert found(conn, repair=True, checks=only_words()) == {}
    conn.close()


def plant(conn: sqlite3.Connection, damage: str | Callable[[sqlite3.Connection], None]) -> None:
    if callable(damage):
        damage(conn)
    else:
        assert conn.execute(damage).rowcount > 0, "the damage hits nothing"


def test_a_sound_database_has_nothing_to_find_and_every_row_is_looked_at(db: Path) -> None:
    conn = connect(db, read_only=True)
    results = verify.verify(conn, helpers.SETTINGS, show)
    assert [result.check.name for result in results if result.n_found or result.skipped] == []
    conn.close()


def test_every_check_is_documented_and_has_its_damage_below() -> None:
    assert [check.name for check in CHECKS] == list(DAMAGE)
    assert all(check.holds for check in CHECKS)


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_by_its_check_alone_and_repaired_rows_come_out_as_they_were(db: Path, name: str) -> None:
    conn = connect(db)
    before = helpers.content(conn)
    plant(conn, DAMAGE[name])
    conn.close()
    conn = connect(db)  # as SQLite reads it anew
    assert list(found(conn)) == [name]
    own = [check for check in CHECKS if check.name == name]
    assert list(found(conn, repair=True, checks=own)) == [name]
    helpers.advance_all(conn, helpers.GoodEngine())
    if name in ("benign_functions", "benign_again", "file_lifespans"):
        benign.choose(conn, helpers.SETTINGS, 1, 9)
    after = helpers.content(conn)
    if name == "blob_symbols":  # kept for speed: made anew when a row needs them
        assert after.pop("blob_symbols") == []
        del before["blob_symbols"]
    assert after == before
    assert found(conn, checks=own) == {}
    conn.close()


@pytest.mark.parametrize("seed", range(8))
def test_any_damage_of_the_file_is_a_finding_or_a_refusal_and_never_a_crash(
    db: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(seed)
    data = bytearray(db.read_bytes())
    for _ in range(chance.choice((1, 5, 60))):
        place = chance.randrange(4096, len(data) - 200)  # behind the header, which says what file this is
        for at in range(place, place + chance.choice((1, 8, 150))):
            data[at] = chance.randrange(256)
    db.write_bytes(bytes(data))
    for command in (("verify",), ("verify", "--json"), ("status",), ("failures",), ("verify", "--repair")):
        code, out = run(capsys, *command, "--db", str(db))
        assert code in (0, 1), command
        if command == ("verify", "--json") and out:
            assert code == any(result["found"] for result in json.loads(out))


# ------------------------------------------------------------------ what is no damage


def test_rows_that_are_worked_on_fail_or_are_set_aside_are_no_damage(db: Path) -> None:
    conn = connect(db)
    recipes.send_back(conn, "s1_1", [FIX, 3, 4, 5])
    recipe = recipes.ensure(conn, "s1_1", {"stage": "s1_1", "version": 0}, None)
    worker = identities.worker_name()
    for n_times in range(2):
        commits = claims.claim(conn, "s1_1", "s0_3", worker, limit=2 - n_times, lease_s=60)
        results = [(commit, Failure("ValueError: no", "traceback")) for commit in commits]
        claims.finish(conn, "s1_1", worker, recipe, results, max_attempts=2)
    assert len(claims.claim(conn, "s1_1", "s0_3", worker, limit=2, lease_s=60)) == 2
    outcomes = conn.execute("SELECT outcome, attempts FROM commits WHERE id BETWEEN 2 AND 5 ORDER BY id").fetchall()
    assert sorted(outcomes) == [("failed", 2), ("open", 0), ("open", 0), ("open", 1)]
    assert found(conn) == {}
    conn.close()


def test_a_label_given_after_the_verdict_is_no_damage(db: Path, tmp_path: Path) -> None:
    conn = connect(db)
    sha = conn.execute("SELECT sha FROM commits WHERE id = 14").fetchone()[0]  # judged by the list `known`
    (tmp_path / "another.csv").write_text(f"commit\n{sha}\n")
    labels.label(conn, tmp_path / "another.csv")
    assert conn.execute("SELECT count(*) FROM labels WHERE commit_id = 14").fetchone() == (2,)
    assert found(conn) == {}
    conn.close()


@pytest.mark.parametrize("commit_id", [FIX, 14])
def test_a_weakness_that_a_label_named_after_the_instructions_is_no_damage(
    db: Path, tmp_path: Path, commit_id: int
) -> None:
    conn = connect(db)
    sha = conn.execute("SELECT sha FROM commits WHERE id = ?", (commit_id,)).fetchone()[0]
    (tmp_path / "a_list.csv").write_text(f"commit,cwe\n{sha},CWE-120\n")
    labels.label(conn, tmp_path / "a_list.csv")
    assert found(conn) == {}
    conn.close()


def test_a_row_that_did_not_fit_the_context_and_was_labelled_later_is_no_damage(db: Path, tmp_path: Path) -> None:
    conn = connect(db)
    recipes.send_back(conn, "s0_3", [5])
    conn.execute("DELETE FROM llm_calls WHERE commit_id = 5")
    sha, message = conn.execute("SELECT sha, message FROM commits JOIN messages ON commit_id = id WHERE id = 5"
                                ).fetchone()  # fmt: skip
    helpers.advance_all(conn, helpers.GoodEngine(too_long=message))
    assert conn.execute("SELECT reject_reason FROM commits WHERE id = 5").fetchone() == ("context_overflow",)
    (tmp_path / "list.csv").write_text(f"commit\n{sha}\n")
    labels.label(conn, tmp_path / "list.csv")
    assert found(conn) == {}
    conn.close()


def test_several_damages_of_one_row_are_mended_at_once(db: Path) -> None:
    conn = connect(db)
    before = helpers.content(conn)
    for name in ("calls", "pre_images", "recipes", "s0_1_again", "explanations"):
        plant(conn, DAMAGE[name])
    assert list(found(conn, repair=True)) == ["recipes", "calls", "s0_1_again", "pre_images"]
    assert found(conn) == {}
    helpers.advance_all(conn, helpers.GoodEngine())
    assert helpers.content(conn) == before
    conn.close()


def test_what_another_version_made_is_counted_and_not_judged(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trustmine.stages import s0_2_filter

    monkeypatch.setattr(s0_2_filter, "VERSION", 99)
    conn = connect(db, read_only=True)
    results = verify.verify(conn, helpers.SETTINGS, show)
    assert {r.check.name: sum(r.skipped.values()) for r in results if r.n_found or r.skipped} == {"s0_2_again": 13}
    conn.close()


def test_without_the_repository_what_needs_it_is_counted_and_the_rest_is_checked(db: Path) -> None:
    conn = connect(db)
    conn.execute("UPDATE repos SET path = '/nowhere'")
    plant(conn, DAMAGE["masks"])
    results = {result.check.name: result for result in verify.verify(conn, helpers.SETTINGS, show)}
    assert {name for name, result in results.items() if result.n_found} == {"masks"}
    skipped = {name: sum(result.skipped.values()) for name, result in results.items() if result.skipped}
    assert skipped == {"commits": 15, "s0_1_again": 13, "s1_1_again": 10, "s2_1_again": 1, "benign_again": 1}, (
        "of s0_1 all but those without a keyword"
    )
    conn.close()


def test_what_s1_1_asks_of_a_repository_is_answered_when_it_is_done_again(db: Path) -> None:
    conn = connect(db, read_only=True)
    repos = again._Repos(conn)
    stored, repo = again._Stored(repos, FactReader(conn)).get(1), repos.get(1)
    sha = repo.resolve("HEAD")
    assert stored.find_file(sha, b"src/record.c") == repo.find_file(sha, b"src/record.c") is not None
    assert stored.top_files(sha) == repo.top_files(sha)
    conn.close()


def test_a_damaged_message_is_read_from_git_again(db: Path) -> None:
    conn = connect(db)
    conn.execute("UPDATE messages SET message = 'other' WHERE commit_id = 2")
    [result] = [r for r in verify.verify(conn, helpers.SETTINGS, show, repair=True) if r.n_found]
    assert result.n_left == 0
    assert conn.execute("SELECT message FROM messages WHERE commit_id = 2").fetchone()[0] == helpers.FIX
    hits = conn.execute("SELECT rowid FROM messages_fts WHERE messages_fts MATCH 'crafted'").fetchall()
    assert hits == [(FIX,)], "the index of words follows"
    assert conn.execute("SELECT status, outcome FROM commits WHERE id = 2").fetchone() == ("ingested", "open")
    conn.close()


def test_a_message_that_is_gone_is_read_from_git_again(db: Path) -> None:
    conn = connect(db)
    before = helpers.content(conn)
    conn.execute("DELETE FROM messages WHERE commit_id = 2")
    [result] = [r for r in verify.verify(conn, helpers.SETTINGS, show, is_quick=True) if r.n_found]
    assert (result.check.name, result.n_left) == ("facts_missing", 1)
    assert "trustmine verify --repair" in result.check.hint
    assert list(found(conn)) == ["commits"]
    found(conn, repair=True)
    helpers.advance_all(conn, helpers.GoodEngine())
    assert helpers.content(conn) == before
    assert found(conn, repair=True) == {}, "the index of words too"
    conn.close()


# ------------------------------------------------------------------------ the command


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(args))
    shown = capsys.readouterr()
    assert ended.value.code != 3, shown.err
    return int(ended.value.code or 0), shown.out


def test_the_command_lists_what_it_found_with_short_shas_and_says_what_to_do(
    db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "verify", "--quick", "--db", str(db)) == (0, "31 checks, nothing found\n")
    conn = connect(db)
    plant(conn, DAMAGE["masks"])
    plant(conn, "UPDATE masks SET removed = char(27) || '[31m'")
    sha = conn.execute("SELECT sha FROM commits WHERE id = 2").fetchone()[0]
    conn.close()
    code, out = run(capsys, "verify", "--quick", "--db", str(db))
    assert code == 1
    assert f"  {sha[:12]}: mask 1 is not lines" in out
    assert "\x1b" not in out
    assert "trustmine verify --repair" in out
    code, out = run(capsys, "verify", "--quick", "--json", "--db", str(db))
    assert code == 1
    wrong = [result for result in json.loads(out) if result["found"]]
    assert [(result["check"], result["found"], len(result["first"])) for result in wrong] == [("masks", 2, 2)]
    code, out = run(capsys, "verify", "--repair", "--db", str(db))
    assert code == 0
    assert "2 found, 2 mended" in out
    assert run(capsys, "verify", "--db", str(db))[0] == 0


def test_what_cannot_be_mended_keeps_the_exit_code_and_says_what_to_do(
    db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conn = connect(db)
    conn.execute("PRAGMA foreign_keys = OFF")
    conn.execute("INSERT INTO refs VALUES (77, 'HEAD', 'x')")
    conn.close()
    code, out = run(capsys, "verify", "--repair", "--quick", "--db", str(db))
    assert code == 1
    assert "refs: rows that name repos which are not there" in out
    assert "Restore a backup" in out
