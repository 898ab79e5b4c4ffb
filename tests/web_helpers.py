"""A database file filled by plain SQL, with text as hostile as repositories hold."""

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trustmine import resources

_LABEL = "INSERT INTO labels (commit_id, source, identifier, label, cwe, labelled_at_s)"

HOSTILE = (
    "<script>alert(1)</script> <img src=x onerror=alert(2)> & \"quoted\" 'single' \\ %s {{ 7*7 }} \u2028\u2029\x85 "
    "</textarea> javascript:alert(3) NUL[\0] tab[\t] caf\xe9 \U0001f41b \x1b[31m"
)
STAGES = ("ingested", "s0_1", "s0_2", "s0_3", "s1_1", "s1_2", "s2_0", "s2_1", "s2_2", "s3_1", "s3_2", "s4")
CALLED = {"s0_3": "judge", "s1_2": "mask", "s2_1": "list_elements", "s3_1": "locate", "s3_2": "explain"}
MODEL_SHA256 = "ab" * 32
_LABEL = "INSERT INTO labels (commit_id, source, identifier, label, cwe, labelled_at_s)"
TASKS = ("locate", "locate_explain", "infill", "refine", "calibrate", "abstain")


@dataclass(frozen=True)
class Row:
    """A commit to be: where it stands, and what its message says."""

    repo: str
    name: str  # the SHA is made from it
    status: str = "ingested"
    outcome: str = "open"
    reason: str | None = None
    is_claimed: bool = False
    lease_until_s: float = 4e9
    message: str = f"Fix overflow {HOSTILE}\n\nCVE-2023-0001\n"
    split: str = "train"

    @property
    def sha(self) -> str:
        return hashlib.sha1(f"{self.repo}/{self.name}".encode()).hexdigest()


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def make_db(path: Path, rows: Iterable[Row]) -> sqlite3.Connection:
    """A new database at `path`, in WAL mode, with these commits in this order; the open connection."""
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.executescript(f"PRAGMA synchronous = OFF; BEGIN; {resources.schema()} COMMIT;")
    conn.execute("PRAGMA foreign_keys = ON")
    conn.execute("BEGIN")
    for row in rows:
        add(conn, row)
    conn.execute("COMMIT")
    return conn


def add(conn: sqlite3.Connection, row: Row) -> None:
    """One commit, and all facts of the stages it has passed."""
    put = conn.execute
    put(
        "INSERT OR IGNORE INTO repos (name, path, url, ingested_at_s) VALUES (?, ?, ?, 1)",
        (row.repo, f"/somewhere/{row.repo}", f"https://user:secret@example.org/{row.repo}.git"),
    )
    repo_id = put("SELECT id FROM repos WHERE name = ?", (row.repo,)).fetchone()[0]
    put("INSERT OR IGNORE INTO refs VALUES (?, 'HEAD', ?)", (repo_id, hashlib.sha1(row.repo.encode()).hexdigest()))
    put(
        "INSERT OR IGNORE INTO models (sha256, name, path, size_bytes, mtime_ns, engine) VALUES (?, ?, ?, 1, 1, ?)",
        (MODEL_SHA256, "tiny <b>model</b>", "/somewhere/tiny.gguf", "llama-cpp-python 0"),
    )
    model_id = put("SELECT id FROM models").fetchone()[0]
    place = STAGES.index(row.status)
    reject_stage = STAGES[place + 1] if row.outcome == "rejected" else None
    claim = ("h:1:1:1", row.lease_until_s) if row.is_claimed else (None, None)
    commit_id = put(
        """INSERT INTO commits (repo_id, sha, parents, author_time_s, commit_time_s, status, outcome, reject_stage,
           reject_reason, claim_owner, claim_until_s) VALUES (?, ?, '', 1600000000, 1600000000, ?, ?, ?, ?, ?, ?)""",
        (repo_id, row.sha, row.status, row.outcome, reject_stage, row.reason, *claim),
    ).lastrowid
    put("INSERT INTO messages VALUES (?, ?, 'utf-8')", (commit_id, row.message))
    for stage in STAGES[1 : place + 1]:
        content = json.dumps({"stage": stage, "version": 1, "prompts": {CALLED.get(stage, "none"): _hash(stage)}})
        recipe = hashlib.sha256(content.encode()).hexdigest()
        put(
            "INSERT OR IGNORE INTO recipes (stage, hash, content, model_id, created_at_s) VALUES (?, ?, ?, ?, 1)",
            (stage, recipe, content, model_id if stage in CALLED else None),
        )
        put("INSERT INTO steps SELECT ?, ?, id FROM recipes WHERE hash = ?", (commit_id, stage, recipe))
        if stage in CALLED:
            put(
                """INSERT INTO llm_calls
                   VALUES (?, ?, ?, ?, ?, ?, 'r', ?, '{}', ?, 'stop', NULL, 100, 20, 40, 60.0, 1)""",
                (
                    commit_id,
                    stage,
                    _hash(row.sha, stage),
                    CALLED[stage],
                    CALLED[stage],
                    _hash(stage),
                    model_id,
                    HOSTILE,
                ),
            )
        _facts(conn, stage, commit_id, row)


def _facts(conn: sqlite3.Connection, stage: str, commit_id: int | None, row: Row) -> None:
    put, asked = conn.execute, _hash(row.sha, stage)
    pre, post = (
        f"int f(void)\n{{\n    bad({row.name});\n    // {HOSTILE}\n}}\n",
        f"int f(void)\n{{\n    good({row.name});\n    // {HOSTILE}\n}}\n",
    )
    match stage:
        case "s0_1":
            put(
                "INSERT INTO keyword_matches (commit_id, keywords) VALUES (?, ?)",
                (commit_id, json.dumps(["overflow", "fix"])),
            )
            year = 2023 if row.split == "train" else 2024  # no CVE is in two splits
            put("INSERT INTO identifiers VALUES (?, 'CVE', ?)", (commit_id, f"CVE-{year}-0001"))
            for cve in (f"CVE-{year}-0002", f"CVE-{year}-0003"):
                put(f"{_LABEL} VALUES (?, 'list', ?, 'yes', 'CWE-787', 1)", (commit_id, cve))
            put(f"{_LABEL} VALUES (?, 'other list', 'CVE-2023-9999', 'no', 'CWE-1', 1)", (commit_id,))
            put("INSERT INTO diffs VALUES (?, ?, 'utf-8', ?)", (commit_id, HOSTILE, len(HOSTILE)))
        case "s0_2":
            put("INSERT INTO commit_sizes VALUES (?, 10)", (commit_id,))
            found = json.dumps(["CVE-2023-0001", "overflow*", HOSTILE])
            put("INSERT INTO priorities VALUES (?, 9.5, 6, 2, 1, 0.5, 0, ?)", (commit_id, found))
        case "s0_3":
            put(
                "INSERT INTO verdicts VALUES (?, 'yes', 'model', 0.6, 0.3, 0.1, 0.7, NULL, ?, ?)",
                (commit_id, HOSTILE, asked),
            )
        case "s1_1":
            put("INSERT OR IGNORE INTO pre_images VALUES ('oid', 1, ?)", (zlib.compress(b"x"),))
            put(
                """INSERT INTO functions VALUES (?, ?, 'a.c', 'a.c', ?, 'oid', 'oid', 'utf-8', '@@', 1, 5, 1, 5, ?, ?,
                '[3]', '[3]', '[3]', 20)""",
                (commit_id, "f", row.split, pre, post),
            )
            put("INSERT INTO licences VALUES (?, 'curl', 'repository', 'COPYING')", (commit_id,))
        case "s1_2":
            masked = pre.replace(f"bad({row.name});", "<MASK_1>")
            put("INSERT INTO masks VALUES (?, 1, 3, 3, ?, 1)", (commit_id, f"    bad({row.name});\n"))
            put("INSERT INTO masked_functions VALUES (?, ?, 0, ?)", (commit_id, masked, asked))
        case "s2_0":
            put(
                "INSERT INTO merged_masks VALUES (?, ?, ?, 3, 3)",
                (commit_id, post.replace(f"good({row.name});", "<MASK_1>"), f"    good({row.name});\n"),
            )
            put("INSERT INTO undefined_elements VALUES (?, 'bad', 'function', 'masked')", (commit_id,))
        case "s2_1":
            put(
                "INSERT INTO elements VALUES (?, 'bad', 'function', 'both', 1, 0, 1, 'parser', 'b.c', 1, 1, ?, NULL)",
                (commit_id, f"void bad(void); // {HOSTILE}\n"),
            )
        case "s2_2":
            put("INSERT INTO context_items VALUES (?, 'bad', 1, 1, NULL, 10, 5)", (commit_id,))
        case "s3_1":
            for no in (1, 2):
                put(
                    "INSERT INTO segments VALUES (?, ?, 3, 3, ?, 1, ?, ?)",
                    (commit_id, no, f"bad({row.name});", asked, f"It is wrong. {HOSTILE}"),
                )
        case "s3_2":
            assert commit_id is not None
            for no in (2, 1):
                put(
                    "INSERT INTO explanations VALUES (?, ?, ?, ?, ?, 'CWE-121', 1, ?)",
                    (commit_id * 100 + no, commit_id, no, f"cause {no} {HOSTILE}", f"impact {no} smashing", asked),
                )
        case "s4":
            for task in TASKS:
                put(
                    "INSERT INTO instructions VALUES (?, ?, 1, ?, ?, ?, ?, ?)",
                    (commit_id, task, row.split, f"Do {task}.", f"{pre}{HOSTILE}", f"{post}{HOSTILE}", '{"lines":[3]}'),
                )


SAMPLES = (
    Row("zlib", "one", "s4", "done"),
    Row("acme/curl", "two", "s4", "done", split="bench"),
    Row("acme/curl", "three", "s4", "done", message="Stop \xe9vil\r\n\r\nbody\n"),
    Row("zlib", "four", "s0_1", "rejected", "not_c"),
    Row("zlib", "five", "ingested", "rejected", "no_keyword", message="javascript:alert(1)"),
    Row("zlib", "six", "ingested", "rejected", "no_keyword", message='https://example.org/"onmouseover=alert(1)'),
    Row("zlib", "seven", "s0_2", is_claimed=True),
    Row("zlib", "eight", "s0_2"),
    Row("zlib", "nine", "s0_2", "failed"),
)
