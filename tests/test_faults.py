"""What goes wrong around a run: disks, locks, signals, files that change or go. Nothing is lost, and it is said why."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import verify_helpers as helpers
from conftest import without_override
from verify_helpers import show

from trustmine import failures, resources, tools, verify, worker
from trustmine.config import Settings
from trustmine.db import claims, queries, recipes
from trustmine.db.backup import backup
from trustmine.db.connect import connect
from trustmine.errors import ModelError, RepositoryError
from trustmine.llm.local import LocalEngine
from trustmine.stages import s0_1_match

STAGE_TABLES = ("steps", "keyword_matches", "identifiers", "diffs", "diff_files")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a repository of 15 commits and its database, ingested."""
    folder = tmp_path_factory.mktemp("faults")
    helpers.ingested(folder)
    return folder


@pytest.fixture
def db(fresh: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(fresh / "trustmine.db", tmp_path / "trustmine.db"))


@pytest.fixture(scope="module")
def undisturbed(fresh: Path) -> list[tuple[object, ...]]:
    """What s0_1 leaves when nothing goes wrong."""
    path = Path(shutil.copy(fresh / "trustmine.db", fresh / "undisturbed.db"))
    conn = connect(path)
    worker.advance(conn, "s0_1", Settings())
    found = facts_of(conn)
    conn.close()
    return found


def facts_of(conn: sqlite3.Connection) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for table in STAGE_TABLES:
        rows += conn.execute(f"SELECT '{table}', * FROM {table}").fetchall()
    return sorted(rows, key=repr)


def is_sound(conn: sqlite3.Connection) -> bool:
    results = verify.verify(conn, Settings(), show, is_quick=True)
    assert [(r.check.name, r.examples) for r in results if r.n_found] == []
    return True


def trustmine(
    db: Path, *args: str, program: str = "", before: tuple[str, ...] = (), **how: object
) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own; `program` runs in it first."""
    code = f"{program}\nimport sys\nfrom trustmine import cli\ncli.main(sys.argv[1:])"
    command = [*before, sys.executable, "-c", code, *args, "--db", str(db)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **how)  # type: ignore[call-overload,no-any-return]


# ------------------------------------------------------------------------------- disks

FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
"""


@pytest.mark.parametrize("room", [0, 20_000, 60_000])
def test_a_full_disk_stops_the_run_and_loses_nothing(
    db: Path, room: int, undisturbed: list[tuple[object, ...]]
) -> None:
    """A limit on the size of files is a full disk to SQLite, wherever the tests run."""
    conn = connect(db)  # keeps the write-ahead log where it is
    conn.execute("UPDATE repos SET ingested_at_s = 1")
    limit = db.with_name(db.name + "-wal").stat().st_size + room
    done = trustmine(db, "advance", "--stage", "s0_1", "--workers", "1", program=FULL.format(limit=limit))
    assert done.returncode == 1, done.stderr
    assert "The database does not work: " in done.stderr
    assert "Check room, rights" in done.stderr
    assert "Traceback" not in done.stderr
    assert conn.execute("SELECT sum(attempts), count(*) FILTER (WHERE outcome = 'failed') FROM commits").fetchone() == (
        0,
        0,
    )
    assert is_sound(conn)
    assert trustmine(db, "advance", "--stage", "s0_1").returncode == 0
    assert facts_of(conn) == undisturbed
    conn.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 1.5 MB, where the tests may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_file_system_that_fills_up_stops_the_run_and_loses_nothing(
    small_disk: Path, fresh: Path, undisturbed: list[tuple[object, ...]]
) -> None:
    db = Path(shutil.copy(fresh / "trustmine.db", small_disk / "trustmine.db"))
    filler = small_disk / "filler"
    free = shutil.disk_usage(small_disk).free
    filler.write_bytes(b"x" * (free - 48_000))
    done = trustmine(db, "advance", "--stage", "s0_1", "--workers", "1")
    assert done.returncode == 1, done.stderr
    assert "Check" in done.stderr
    assert "Traceback" not in done.stderr
    filler.unlink()
    assert trustmine(db, "advance", "--stage", "s0_1").returncode == 0
    conn = connect(db)
    assert is_sound(conn)
    assert facts_of(conn) == undisturbed
    conn.close()


@pytest.mark.parametrize(("of_file", "of_folder"), [(0o444, 0o755), (0o444, 0o555), (0o644, 0o555)])
def test_a_read_only_database_can_be_read_and_says_why_it_cannot_be_written(
    db: Path, of_file: int, of_folder: int
) -> None:
    before = without_override()
    db.chmod(of_file)
    db.parent.chmod(of_folder)
    try:
        read = trustmine(db, "status", "--json", before=before)
        written = trustmine(db, "advance", "--stage", "s0_1", before=before)
    finally:
        db.parent.chmod(0o755)
    assert read.returncode == 0, read.stderr
    assert json.loads(read.stdout)["commits"] == 15
    assert written.returncode == 1
    assert ("The database may only be read" if of_file == 0o444 else "Cannot open the database") in written.stderr
    assert f"{db.parent} exists, is writable and has room" in written.stderr


# ------------------------------------------------------------------------------- locks


def test_a_database_locked_for_too_long_stops_the_run_with_a_reason_and_no_attempt(
    db: Path, undisturbed: list[tuple[object, ...]]
) -> None:
    conn = connect(db)
    impatient = "from trustmine.db import connect\nconnect.BUSY_TIMEOUT_S = 0.2"
    conn.execute("BEGIN IMMEDIATE")
    done = trustmine(db, "advance", "--stage", "s0_1", "--workers", "1", program=impatient)
    conn.execute("ROLLBACK")
    assert done.returncode == 1
    assert "database is locked" in done.stderr
    assert conn.execute("SELECT sum(attempts) FROM commits").fetchone() == (0,)
    # And in mid-run, while a row is worked on.
    lock = f"""
import sqlite3
from trustmine.stages import s0_1_match
{impatient}
real = s0_1_match.run
def run(commit, ctx):
    if commit.id == 5:
        global other
        other = sqlite3.connect({str(db)!r}, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
    return real(commit, ctx)
s0_1_match.run = run
"""
    done = trustmine(db, "advance", "--stage", "s0_1", "--workers", "1", program=lock)
    assert done.returncode == 1
    assert "The database does not work: database is locked" in done.stderr
    assert is_sound(conn)
    assert trustmine(db, "advance", "--stage", "s0_1").returncode == 0
    assert conn.execute("SELECT sum(attempts) FROM commits").fetchone() == (0,)
    assert facts_of(conn) == undisturbed
    conn.close()


# ----------------------------------------------------------------------------- signals


def test_what_a_killed_process_left_in_the_log_is_there(db: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from trustmine.db.connect import connect
conn = connect(Path(sys.argv[1]))
conn.execute("UPDATE repos SET name = 'done'")
conn.execute("BEGIN IMMEDIATE")
conn.execute("UPDATE repos SET name = 'half'")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program, str(db)], check=False)
    assert db.with_name(db.name + "-wal").stat().st_size > 0
    for read_only in (True, False):
        conn = connect(db, read_only=read_only)
        assert [repo.name for repo in queries.repos(conn)] == ["done"]
        assert is_sound(conn)
        conn.close()


KILLED = """
import json, os, shutil, signal, sqlite3, sys
from pathlib import Path
from trustmine import verify, worker
from trustmine.config import Settings
from trustmine.db.connect import connect
from verify_helpers import show
from trustmine.db import recipes

fresh, folder, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
settings = Settings(batch_size=4)

def die_at(n):
    def tick(*_):
        nonlocal n
        n -= 1
        if n <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return tick

def work(db, n):
    conn = connect(db)
    if kind == "statements":
        conn.set_trace_callback(die_at(n))
    else:
        conn.set_progress_handler(die_at(n), 10)
    worker.advance(conn, "s0_1", settings)
    conn.close()

n, step, died = 1, int(sys.argv[4]), 0
while True:
    db = Path(shutil.copy(fresh, folder / f"{n}.db"))
    pid = os.fork()
    if pid == 0:
        try:
            work(db, n)
        finally:
            os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
        break
    died += 1
    conn = connect(db)
    wrong = [r.check.name for r in verify.verify(conn, settings, show, is_quick=True) if r.n_found]
    assert not wrong, (n, wrong)
    worker.advance(conn, "s0_1", settings)
    left = conn.execute("SELECT count(*) FROM commits WHERE status = 'ingested' AND outcome = 'open'").fetchone()
    assert left == (0,), n
    facts = [row for table in sys.argv[5].split(",") for row in conn.execute(f"SELECT '{table}', * FROM {table}")]
    print(json.dumps(sorted(facts, key=repr)))
    conn.close()
    db.unlink()
    n += step
print(json.dumps(died))
"""


@pytest.mark.parametrize(("kind", "step"), [("statements", 3), ("instructions", 30)])
def test_a_worker_killed_at_any_point_leaves_a_sound_database_and_the_rest_is_done_as_ever(
    db: Path, tmp_path: Path, kind: str, step: int, undisturbed: list[tuple[object, ...]]
) -> None:
    """SIGKILL before the n-th statement, or in the middle of one, n growing until the worker comes to its end."""
    paths = os.pathsep.join([*sys.path, str(Path(__file__).parent), str(Path(__file__).parent / "stages")])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(db), str(tmp_path), kind, str(step), ",".join(STAGE_TABLES)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *results, died = done.stdout.splitlines()
    assert int(died) == len(results) > 10
    wanted = json.dumps(undisturbed)
    assert all(result == wanted for result in results)


def test_a_power_cut_at_any_point_of_the_log_leaves_a_sound_database(db: Path, tmp_path: Path) -> None:
    """The write-ahead log of a killed worker, cut off at many lengths, within pages too."""
    wal = db.with_name(db.name + "-wal")
    conn = connect(db)
    conn.execute("PRAGMA wal_autocheckpoint = 0")
    worker.advance(conn, "s0_1", Settings(batch_size=4))
    whole, log = db.read_bytes(), wal.read_bytes()
    conn.close()
    n_passed = []
    for length in range(0, len(log), max(len(log) // 40, 1)):
        place = tmp_path / f"cut{length}"
        place.mkdir()
        (place / "t.db").write_bytes(whole)
        (place / "t.db-wal").write_bytes(log[:length])
        cut = connect(place / "t.db")
        assert is_sound(cut)
        n_passed.append(cut.execute("SELECT count(*) FROM steps").fetchone()[0])
        cut.close()
        shutil.rmtree(place)
    assert n_passed == sorted(n_passed)
    assert {0, 4, 8, 12} <= set(n_passed), "whole batches"


def test_a_worker_stopped_for_longer_than_its_lease_loses_its_rows_and_its_results(db: Path, tmp_path: Path) -> None:
    program = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent / "stages")]!r}
from trustmine.stages import s0_1_match
real = s0_1_match.run
def run(commit, ctx):
    if commit.id == 3:
        open({str(tmp_path / "stopping")!r}, "w").close()
        os.kill(os.getpid(), signal.SIGSTOP)
    return real(commit, ctx)
s0_1_match.run = run
import sys
from trustmine import cli
cli.main(sys.argv[1:])
"""
    command = [sys.executable, "-c", program, "advance", "--stage", "s0_1", "--workers", "1", "--db", str(db)]
    env = {**os.environ, "TRUSTMINE_LEASE_S": "1"}
    stopped = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    conn = connect(db)
    deadline = time.monotonic() + 60
    while not (tmp_path / "stopping").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        assert len(claims.owners(conn)) == 1
        until = conn.execute("SELECT max(claim_until_s) FROM commits").fetchone()[0]
        while time.time() <= until and time.monotonic() < deadline:
            time.sleep(0.05)
        assert worker.advance(conn, "s0_1", Settings()).total == 15
        before = facts_of(conn)
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    assert stopped.stderr is not None
    with stopped.stderr:
        said = stopped.stderr.read()
    assert stopped.wait(timeout=60) == 0
    assert "15 late results dropped" in said
    assert facts_of(conn) == before
    assert conn.execute("SELECT n_lost, n_advanced FROM workers ORDER BY id LIMIT 1").fetchone() == (15, 0)
    assert is_sound(conn)
    conn.close()


# ------------------------------------------------------------------------------ memory

LIMITED = """
import resource
from pathlib import Path
from trustmine import tools, worker
from trustmine.stages import s0_1_match
real = s0_1_match.run
def run(commit, ctx):
    if commit.id == 5:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), -1))
        try:
            {where}bytearray(1 << 30)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    return real(commit, ctx)
s0_1_match.run = run
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_row_that_takes_too_much_memory_fails_alone_with_the_reason(db: Path) -> None:
    done = trustmine(db, "advance", "--stage", "s0_1", "--workers", "1", program=LIMITED.format(where=""))
    assert done.returncode == 0, done.stderr
    conn = connect(db)
    assert conn.execute("SELECT id FROM commits WHERE outcome = 'failed'").fetchall() == [(5,)]
    assert [(c.cause, c.n_set_aside) for c in failures.causes(conn)] == [("MemoryError:", 1)]
    assert queries.funnel(conn)["s0_1"].pending == 0
    conn.close()


def test_a_run_without_memory_stops_with_a_clear_message(db: Path) -> None:
    program = "from trustmine.db import claims\ndef claim(*a, **k): raise MemoryError\nclaims.claim = claim"
    done = trustmine(db, "advance", "--stage", "s0_1", "--workers", "1", program=program)
    assert done.returncode == 1
    assert done.stderr.startswith("Out of memory\n")


# -------------------------------------------------------------------------------- files


def test_a_copy_made_while_a_worker_works_is_sound_and_can_be_worked_on(
    db: Path, tmp_path: Path, undisturbed: list[tuple[object, ...]]
) -> None:
    env = {**os.environ, "TRUSTMINE_BATCH_SIZE": "1"}
    command = [sys.executable, "-m", "trustmine.cli", "advance", "--stage", "s0_1", "--workers", "1", "--db", str(db)]
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    conn = connect(db, read_only=True)
    deadline = time.monotonic() + 60
    while queries.funnel(conn)["s0_1"].passed < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    backup(conn, tmp_path / "copy.db")
    assert process.wait() == 0
    conn.close()
    copy = connect(tmp_path / "copy.db")
    assert is_sound(copy)
    worker.advance(copy, "s0_1", Settings())
    assert facts_of(copy) == undisturbed
    copy.close()


def _on_row(monkeypatch: pytest.MonkeyPatch, commit_id: int, do: Callable[[], object]) -> None:
    """Something happens while s0_1 works on a row."""
    real = s0_1_match.run
    left = [do]

    def run(commit: object, ctx: object) -> object:
        if getattr(commit, "id", None) == commit_id and left:
            left.pop()()
        return real(commit, ctx)  # type: ignore[arg-type]

    monkeypatch.setattr(s0_1_match, "run", run)
    monkeypatch.setattr(s0_1_match, "prepare", lambda commits, ctx: None)  # nothing is read ahead


@pytest.fixture
def own(fresh: Path, tmp_path: Path) -> Path:
    """A folder with a repository and a database of its own."""
    shutil.copytree(fresh / "repo", tmp_path / "repo")
    helpers.ingested(tmp_path)
    return tmp_path


def test_a_repository_deleted_while_working_stops_the_run_and_blames_no_row(
    own: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: list[tuple[object, ...]]
) -> None:
    conn = connect(own / "trustmine.db")
    _on_row(monkeypatch, 6, lambda: (own / "repo").rename(own / "moved"))
    # What git had mapped it may still read; then it is gone.
    with pytest.raises(RepositoryError, match=r"gone|cannot be read any more"):
        worker.advance(conn, "s0_1", Settings(batch_size=3))
        worker.advance(conn, "s0_1", Settings(batch_size=3))
    assert conn.execute("SELECT sum(attempts), count(claim_owner) FROM commits").fetchone() == (0, 0)
    assert queries.funnel(conn)["s0_1"].pending > 0
    (own / "moved").rename(own / "repo")
    worker.advance(conn, "s0_1", Settings())
    assert facts_of(conn) == undisturbed
    assert is_sound(conn)
    conn.close()


def test_a_repository_repacked_while_working_is_read_on(
    own: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: list[tuple[object, ...]]
) -> None:
    conn = connect(own / "trustmine.db")

    def repack() -> None:
        helpers.git(own / "repo", "repack", "-adq")
        helpers.git(own / "repo", "prune-packed")

    _on_row(monkeypatch, 6, repack)
    worker.advance(conn, "s0_1", Settings(batch_size=3))
    assert facts_of(conn) == undisturbed
    conn.close()


def test_commits_that_a_forced_push_took_away_fail_alone_and_come_back_when_they_do(
    own: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: list[tuple[object, ...]]
) -> None:
    repo = own / "repo"
    shutil.copytree(repo, own / "kept")
    conn = connect(own / "trustmine.db")

    def force() -> None:
        helpers.git(repo, "reset", "-q", "--hard", "HEAD~4")
        helpers.git(repo, "reflog", "expire", "--expire=now", "--all")
        helpers.git(repo, "gc", "-q", "--prune=now")

    force()
    worker.advance(conn, "s0_1", Settings(max_attempts=1, batch_size=3))
    [cause] = failures.causes(conn)
    n_gone = conn.execute("SELECT count(*) FROM commits WHERE outcome = 'failed'").fetchone()[0]
    assert cause.n_set_aside == n_gone == 3, "the fourth has no keyword"
    assert "Cannot read" in cause.cause
    assert queries.funnel(conn)["s0_1"].pending == 0
    helpers.git(repo, "fetch", "-q", str(own / "kept"), "main")
    assert failures.retry(conn, cause="Cannot read") == 3
    worker.advance(conn, "s0_1", Settings())
    assert facts_of(conn) == undisturbed
    conn.close()


def test_a_model_file_replaced_while_it_answers_is_named_by_the_bytes_that_were_loaded(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copy(resources.built_in_model(), tmp_path / "model.gguf"))
    settings = Settings(model=str(path), n_ctx=256, n_threads=1)
    conn = connect(db)
    engine, model_id = tools.open_engine(conn, settings)
    first = engine.info.sha256
    other = Path(shutil.copy(path, tmp_path / "other.gguf"))
    with other.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    other.replace(path)
    assert engine.info.sha256 == first
    assert recipes.known_model_hash(conn, path, path.stat().st_size, path.stat().st_mtime_ns) is None
    engine.close()
    again, other_id = tools.open_engine(conn, settings)
    assert again.info.sha256 != first
    assert other_id != model_id
    again.close()
    # While it is loaded it must not change.
    opened = LocalEngine.open

    def touched(*args: object, **how: object) -> LocalEngine:
        engine = opened(*args, **how)  # type: ignore[arg-type]
        os.utime(path, ns=(1, 1))
        return engine

    monkeypatch.setattr(LocalEngine, "open", touched)
    with pytest.raises(ModelError, match="changed while it was loaded"):
        tools.open_engine(conn, settings)
    conn.close()
