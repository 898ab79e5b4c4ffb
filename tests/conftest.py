"""Fixtures that many tests share: databases, repositories, the built-in model."""

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from trustmine import stopping
from trustmine.db.connect import connect

# The same examples on every run, so that a red test is a change and not bad luck.
# `pytest --hypothesis-profile random` goes looking for new ones; what it finds becomes an @example.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("random", derandomize=False, deadline=None)
hypothesis.settings.load_profile("same")

# What whoever runs the tests has set for work of their own: a database there would be written to.
for name in [name for name in os.environ if name.startswith("TRUSTMINE_")]:
    del os.environ[name]


# Files that take longest. They go first where processes share the files, so that all end at about the same time.
LONGEST = (
    "test_pipeline.py",
    "test_crew.py",
    "test_local.py",
    "test_chain.py",
    "test_llama_server.py",
    "test_batching.py",
    "test_cparse.py",
    "test_faults.py",
    "test_hostile.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = {name: i for i, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """As they were: a command that was stopped in this process has them ignored, and so have its children."""
    before = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def as_in_a_terminal(_signals: None) -> None:
    """No signal is ignored, here and by children, though tests run in the background or under nohup."""
    for number in stopping.SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture
def db_path(tmp_path: Path) -> Path:
    return tmp_path / "trustmine.db"


@pytest.fixture
def conn(db_path: Path) -> Iterator[sqlite3.Connection]:
    """A fresh database, open for writing."""
    conn = connect(db_path, create=True)
    yield conn
    conn.close()


@pytest.fixture
def add_commits(conn: sqlite3.Connection) -> Callable[..., list[int]]:
    """Adds rows to the queue without a repository behind them; gives their ids."""

    def add(n: int, *, repo: str = "toy", status: str = "ingested", message: str = "fix overflow") -> list[int]:
        conn.execute("INSERT OR IGNORE INTO repos (name, path, ingested_at_s) VALUES (?, ?, 0)", (repo, f"/{repo}"))
        repo_id = conn.execute("SELECT id FROM repos WHERE name = ?", (repo,)).fetchone()[0]
        first = conn.execute("SELECT coalesce(max(id), 0) + 1 FROM commits").fetchone()[0]
        ids = list(range(first, first + n))
        conn.executemany(
            """INSERT INTO commits (id, repo_id, sha, parents, author_time_s, commit_time_s, status)
               VALUES (?, ?, ?, '', 0, 0, ?)""",
            [(i, repo_id, f"{i:040x}", status) for i in ids],
        )
        conn.executemany("INSERT INTO messages VALUES (?, ?, 'utf-8')", [(i, f"{message} {i}") for i in ids])
        return ids

    return add


def without_override() -> tuple[str, ...]:
    """Before a command: file permissions count for root too."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everything, and there is no setpriv")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


GIT_ENV = {
    **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A. Hacker",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_AUTHOR_DATE": "2020-02-02T02:02:02Z",
    "GIT_COMMITTER_NAME": "A. Hacker",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_COMMITTER_DATE": "2020-02-02T02:02:02Z",
}


@pytest.fixture
def git(tmp_path: Path) -> Callable[..., str]:
    """Runs git in tmp_path/repo (made on first use), with fixed names and dates."""
    repo = tmp_path / "repo"

    def run(*args: str, env: dict[str, str] | None = None) -> str:
        if not repo.exists():
            repo.mkdir()
            subprocess.run(["git", "init", "-q", "-b", "main", str(repo)], check=True, env=GIT_ENV)
        done = subprocess.run(
            ["git", *args], cwd=repo, check=True, capture_output=True, text=True, env={**GIT_ENV, **(env or {})}
        )
        return done.stdout.strip()

    return run


# The only conftest.py: modules import GIT_ENV from `conftest`, and a second one would take its name.


@pytest.fixture
def endpoint_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of endpoint_helpers is set, no proxy is asked, and waiting begins with little."""
    from endpoint_helpers import KEY, KEY_ENV

    from trustmine.llm import server

    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(server, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def open_told(endpoint_environment: None) -> Iterator[Callable[..., tuple[Any, Any]]]:
    """Starts a server that does as it is told (Told), opens its model (RemoteEngine); both are closed after the test.

    Takes what the server answers, its owner, and settings.
    """
    from endpoint_helpers import Told, settings

    from trustmine.llm.remote import RemoteEngine

    opened: list[Told | RemoteEngine] = []

    def start(answer: Callable[..., Any] | None = None, *, owner: str = "me", **more: Any) -> tuple[Any, Any]:
        server = Told(owner=owner)
        opened.append(server)
        if answer is not None:
            server.answer = answer
        engine = RemoteEngine.open(settings(server.url, **more))
        opened.append(engine)
        server.asked.clear()
        return server, engine

    yield start
    for thing in reversed(opened):
        thing.close()
