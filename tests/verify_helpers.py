"""A small repository taken through all stages by a model that answers well, so that every table has rows."""

import dataclasses
import hashlib
import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import stage_helpers as helpers
from conftest import GIT_ENV

from trustmine import benign, ingest, labels, worker
from trustmine.config import Settings
from trustmine.db import recipes
from trustmine.db.connect import connect
from trustmine.llm.base import ContextOverflow, ModelInfo, NoAnswer
from trustmine.llm.hashes import rendered_hash
from trustmine.prompts import Prompts
from trustmine.records import FACTS, Completion, Request
from trustmine.stages import STAGES

_, OPPOSITE = Prompts().get("s0_3_classify").questions
SETTINGS = Settings(calibration_rows=8, max_elements=6, max_attempts=2)
FIX = helpers.MESSAGE
UNDECIDED = "Maybe fix something\n"
LABELLED = "record: check the length again\n"
STEADY = "int steady(int n)\n{\n    n = n * 2;\n    n = n + 1;\n    return n;\n}\n"
ANSWERS = {
    "rationale": "A length from the record is used unchecked.",
    "mask": "9-9",
    "list_elements": '[{"name": "memcpy", "kind": "function"}, {"name": "overflow", "kind": "variable"}]',
    "choose": "1",
    "locate": "The length is never checked.\nLines: 9-9",
    "explain": json.dumps(
        {"root_cause": helpers.EXPLANATION.root_cause, "impact": helpers.EXPLANATION.impact, "cwe": "CWE-787"}
    ),
}


class GoodEngine:
    """An Engine that says what a good model would."""

    capacity = 4
    info = ModelInfo("ab" * 32, "good", "/models/good.gguf", 1, 1, "llama", 1, 4096, "by hand 1", 4096)

    def __init__(self, answers: Mapping[str, str] = ANSWERS, too_long: str | None = None) -> None:
        self._answers = answers
        self._too_long = too_long  # what a prompt that does not fit the context holds
        self._queue: list[tuple[int, Request]] = []
        self.n_asked = 0

    def request_hash(self, request: Request) -> str:
        said = (rendered_hash(request), request.labels, request.grammar, request.max_tokens, self.info.sha256)
        return hashlib.sha256(repr(said).encode()).hexdigest()

    def submit(self, ticket: int, request: Request) -> None:
        self._queue.append((ticket, request))

    def poll(self, timeout_s: float | None = None) -> list[tuple[int, Completion | NoAnswer]]:
        done, self._queue = self._queue, []
        self.n_asked += len(done)
        return [(ticket, self._answer(request)) for ticket, request in done]

    def _answer(self, request: Request) -> Completion | NoAnswer:
        if self._too_long is not None and self._too_long in request.messages[-1].content:
            return ContextOverflow(9, 9, 9)
        hashes: dict[str, Any] = {"request_hash": self.request_hash(request), "rendered_hash": rendered_hash(request)}
        if not request.labels:
            return dataclasses.replace(helpers.completion(self._answers[request.task]), **hashes)
        shown = request.messages[-1].content
        yes, no, cannot_decide = 0.05, 0.9, 0.05
        if "crafted record" in shown:
            yes, no, cannot_decide = 0.8, 0.15, 0.05
        elif "Maybe" in shown:
            yes, no, cannot_decide = 0.1, 0.1, 0.8
        if shown.endswith(OPPOSITE):
            yes, no = no, yes
        return dataclasses.replace(helpers.judgement(yes, no, cannot_decide), **hashes)

    def close(self) -> None:
        pass


@contextmanager
def show(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar that nobody sees."""
    yield lambda done: None


def git(repo: Path, *args: str) -> str:
    return subprocess.run(["git", *args], cwd=repo, check=True, capture_output=True, text=True, env=GIT_ENV).stdout


def write_repo(path: Path) -> None:
    """Fifteen commits: two fixes of one function, one undecided, the others rejected for various reasons."""
    (path / "src").mkdir(parents=True)
    git(path, "init", "-q", "-b", "main")

    def commit(message: str, **files: str) -> None:
        for name, content in files.items():
            (path / "src" / name.replace("_h", ".h").replace("_c", ".c")).write_text(content)
        git(path, "add", "-A")
        git(path, "commit", "-q", "-m", message)

    commit("records", record_h=helpers.HEADER, record_c=helpers.PRE_FILE, steady_c=STEADY)
    commit(FIX, record_c=helpers.POST_FILE)
    for n in range(9):
        commit(f"Fix warning {n}", other_c=f"int f(void)\n{{\n    return {n};\n}}\n")
    commit(UNDECIDED, other_c="int f(void)\n{\n    return 99;\n}\n")
    commit("back to the record", record_c=helpers.PRE_FILE)
    commit(LABELLED, record_c=helpers.POST_FILE)
    commit("Fix the manual", manual="text\n")


def ingested(folder: Path, name: str = "trustmine.db") -> Path:
    """A database of the folder's `repo`, which is written if it is not there."""
    if not (folder / "repo").exists():
        write_repo(folder / "repo")
    with closing(connect(folder / name, create=True)) as conn:
        ingest.ingest(conn, ingest.find(str(folder / "repo")), name="toy")
    return folder / name


def make(folder: Path) -> Path:
    """The repository and its database, worked on until nothing is pending."""
    db = ingested(folder)
    conn = connect(db)
    known = folder / "known.csv"
    sha = git(folder / "repo", "log", "--format=%H", "--grep", LABELLED.strip()).split()[0]
    known.write_text(f"commit,cve,cwe\n{sha},CVE-2020-1234,CWE-787\n")
    labels.label(conn, known)
    advance_all(conn, GoodEngine())
    assert benign.choose(conn, SETTINGS, 1, 9).n_chosen, "no function is left that no fix has touched"
    conn.close()
    return db


def advance_all(conn: sqlite3.Connection, engine: GoodEngine) -> None:
    model_id = recipes.ensure_model(conn, engine.info)
    for name, stage in STAGES.items():
        worker.advance(conn, name, SETTINGS, engine=(engine, model_id) if stage.KIND == "llm" else None)


def content(conn: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """All that results consist of, without ids and times that differ from run to run."""
    found = {
        "commits": "SELECT id, sha, parents, author_time_s, commit_time_s, status, outcome, reject_stage,"
        " reject_reason, attempts, claim_owner, priority FROM commits",
        "messages": "SELECT * FROM messages",
        "steps": "SELECT commit_id, steps.stage, hash FROM steps JOIN recipes ON recipes.id = recipe_id",
        "failures": "SELECT commit_id, stage, attempt FROM failures",
        "calls": "SELECT commit_id, stage, request_hash, prompt_hash, rendered_hash, completion, label_logprobs"
        " FROM llm_calls",
        "benign_functions": "SELECT * FROM benign_functions",
        "file_lifespans": "SELECT * FROM file_lifespans",
        "calibrations": 'SELECT hash, "offset" FROM calibrations',
    }
    found |= {fact.TABLE: f"SELECT * FROM {fact.TABLE}" for fact in FACTS if fact.TABLE != "verdicts"}
    found["verdicts"] = "SELECT commit_id, label, source, p_yes, p_fix, rationale, request_hash FROM verdicts"
    return {name: sorted(conn.execute(sql).fetchall(), key=repr) for name, sql in found.items()}
