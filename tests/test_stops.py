"""A run that is asked to stop, or whose parent or terminal is gone: rows are given back, and nobody stays."""

import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import verify_helpers as helpers
from kill_helpers import children

from trustmine import stopping
from trustmine.db import claims

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
    pytest.mark.usefixtures("as_in_a_terminal"),
]

# Every row takes its time, and whoever works on it says so.
SLOW = """
import os, sys, time
from pathlib import Path
if "-m" in sys.orig_argv or "multiprocessing" in " ".join(sys.orig_argv):
    from trustmine import pipeline
    from trustmine.stages import s0_1_match
    pipeline.NICENESS = 0  # beside other work nice workers may never start
    real = s0_1_match.run
    def run(commit, ctx):
        Path(os.environ["AT_WORK"], str(os.getpid())).touch()
        time.sleep(0.2)
        return real(commit, ctx)
    s0_1_match.run = run
"""
COMMANDS = [["run"], ["advance", "--stage", "s0_1", "--workers", "3"], ["advance", "--stage", "s0_1", "--workers", "1"]]
CALLED = ["run", "advance, 3 workers", "advance, 1 worker"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stops")
    helpers.ingested(folder)
    return folder


@pytest.fixture
def db(fresh: Path, tmp_path: Path) -> Path:
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    (tmp_path / "at_work").mkdir()
    return Path(shutil.copy(fresh / "trustmine.db", tmp_path / "trustmine.db"))


@contextmanager
def started(
    db: Path, command: list[str], *, until_at_work: bool = True, **how: Any
) -> Iterator["subprocess.Popen[str]"]:
    """A run in a session of its own, and where wanted at work."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(db.parent), *sys.path]),
        "TRUSTMINE_BATCH_SIZE": "3",
        "TRUSTMINE_KEYWORDS": '["no such word"]',  # no row gets to a model
        "AT_WORK": str(db.parent / "at_work"),
    }
    fds: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-m", "trustmine.cli", *command, "--db", str(db)],
        env=env, text=True, start_new_session=True, **{**fds, **how},
    ) as run:  # fmt: skip
        try:
            wait_for(lambda: not until_at_work or is_at_work(db) or run.poll() is not None)
            yield run
        finally:
            run.kill()


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 100
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_at_work(db: Path) -> bool:
    return any((db.parent / "at_work").iterdir())


def members(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its_session) == session and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def assert_nothing_is_lost(db: Path) -> None:
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute("SELECT count(claim_owner), sum(crashes), sum(attempts) FROM commits").fetchone() == (
            0,
            0,
            0,
        )
        n_open = conn.execute("SELECT count(*) FROM commits WHERE outcome = 'open'").fetchone()[0]
        assert n_open == 15 - conn.execute("SELECT count(*) FROM steps").fetchone()[0]


@pytest.mark.parametrize("command", COMMANDS, ids=CALLED)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_or_twice_stops_in_order(db: Path, command: list[str], number: signal.Signals) -> None:
    """As a terminal sends Ctrl-C: to everybody at once; and again while rows are given back."""
    with started(db, command) as run:
        os.killpg(run.pid, number)
        time.sleep(0.05)
        os.killpg(run.pid, number)
        os.killpg(run.pid, signal.SIGINT)
        _, said = run.communicate(timeout=60)
        wait_for(lambda: not members(run.pid))
    assert (run.returncode, said) == (130, "Interrupted; nothing is lost: run it again to go on\n")
    assert_nothing_is_lost(db)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_parent_alone_stops_its_workers_too(db: Path, number: signal.Signals) -> None:
    with started(db, COMMANDS[1]) as run:
        run.send_signal(number)
        _, said = run.communicate(timeout=60)
        wait_for(lambda: not members(run.pid))
    assert (run.returncode, said) == (130, "Interrupted; nothing is lost: run it again to go on\n")
    assert_nothing_is_lost(db)


@pytest.mark.parametrize(("number", "send"), [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill)])
def test_a_signal_while_workers_start_prints_no_traceback(
    db: Path, number: signal.Signals, send: Callable[[int, int], None]
) -> None:
    """To everybody, or to the parent alone, which tells those that have started."""
    with started(db, COMMANDS[1], until_at_work=False) as run:
        wait_for(lambda: children(run.pid))
        send(run.pid, number)
        _, said = run.communicate(timeout=60)
        wait_for(lambda: not members(run.pid))
    assert (run.returncode, said) == (130, "Interrupted; nothing is lost: run it again to go on\n")
    assert_nothing_is_lost(db)


@pytest.mark.parametrize("send", [os.killpg, os.kill])
def test_a_stopped_doctor_prints_no_traceback(db: Path, send: Callable[[int, int], None]) -> None:
    with started(db, ["doctor"], until_at_work=False) as run:
        wait_for(lambda: children(run.pid))
        send(run.pid, signal.SIGINT)
        _, said = run.communicate(timeout=60)
        wait_for(lambda: not members(run.pid))
    assert (run.returncode, said) == (130, "Interrupted; nothing is lost: run it again to go on\n")


def test_signals_that_come_at_once_print_no_traceback() -> None:
    program = """
import os, signal
from trustmine import stopping
stopping.listen()
signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
for each in stopping.SIGNALS:
    os.kill(os.getpid(), each)
try:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping.SIGNALS)
except KeyboardInterrupt:
    print("stopped")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("stopped\n", "")


def test_a_stop_waits_for_what_is_not_to_be_left_half_done() -> None:
    done = []
    stopping.listen()
    with pytest.raises(KeyboardInterrupt), stopping.later():
        with stopping.later():
            signal.raise_signal(signal.SIGINT)
            done.append(stopping.is_asked())
        done.append(stopping.is_asked())
    assert done == [True, True]
    assert not stopping.is_asked()


@pytest.mark.parametrize("command", COMMANDS, ids=CALLED)
def test_a_closed_terminal_stops_a_run_in_order(db: Path, command: list[str]) -> None:
    ours, theirs = pty.openpty()
    fds = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with started(db, command, until_at_work=False, **fds) as run:
        os.close(theirs)
        wait_for(lambda: is_at_work(db))
        os.close(ours)
        run.send_signal(signal.SIGHUP)
        assert run.wait(timeout=60) == 130
        wait_for(lambda: not members(run.pid))
    assert_nothing_is_lost(db)


def test_what_nohup_wants_ignored_is_ignored(db: Path) -> None:
    with started(db, COMMANDS[1], preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as run:
        os.killpg(run.pid, signal.SIGHUP)
        _, said = run.communicate(timeout=100)
    assert run.returncode == 0, said
    assert "15 rejected" in said


def test_workers_whose_parent_is_killed_end_and_give_their_rows_back(db: Path) -> None:
    with started(db, COMMANDS[1]) as run:
        run.kill()
        run.wait()
        wait_for(lambda: not members(run.pid))
    assert_nothing_is_lost(db)


def test_a_run_stopped_for_longer_than_its_lease_goes_on_where_it_was(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUSTMINE_LEASE_S", "2")
    with started(db, COMMANDS[1]) as run:
        os.killpg(run.pid, signal.SIGSTOP)
        with closing(sqlite3.connect(db)) as conn:
            until = conn.execute("SELECT coalesce(max(claim_until_s), 0) FROM commits").fetchone()[0]
        wait_for(lambda: time.time() > until)
        os.killpg(run.pid, signal.SIGCONT)
        _, said = run.communicate(timeout=100)
        wait_for(lambda: not members(run.pid))
    assert run.returncode == 0, said
    assert_nothing_is_lost(db)
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute("SELECT count(*) FROM steps").fetchone() == (15,)
        assert claims.owners(conn) == []
