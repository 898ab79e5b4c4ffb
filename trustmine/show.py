"""Everything known about one commit: as plain data, and on the screen."""

import datetime
import json
import sqlite3
from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from trustmine import console
from trustmine.console import plain, safe
from trustmine.db import queries
from trustmine.db.facts import FactReader
from trustmine.db.queries import rows
from trustmine.errors import TrustmineError
from trustmine.records import FACTS

MIN_SHA_CHARS = 4
MAX_CHARS = 50_000  # of one text on the screen: laying out a message of 10 MB takes a minute


def find(conn: sqlite3.Connection, sha: str, repo_id: int | None) -> list[int]:
    """Ids of the commit with this SHA, one per repository that has it. Raises TrustmineError."""
    if len(sha) < MIN_SHA_CHARS or set(sha.lower()) - set("0123456789abcdef"):
        raise TrustmineError(f"This is no SHA: {sha!r}", "", f"Give {MIN_SHA_CHARS} hexadecimal digits or more")
    ids = queries.commits_by_sha(conn, sha, repo_id)
    full = sorted({row[0] for i in ids for row in conn.execute("SELECT sha FROM commits WHERE id = ?", (i,))})
    if not ids:
        raise TrustmineError(f"No commit begins with {sha}", "", "Ingest its repository first: trustmine ingest REPO")
    if len(full) > 1:
        shown = ", ".join(full[:5]) + (", ..." if len(full) > 5 else "")
        raise TrustmineError(f"Several commits begin with {sha}", shown, "Give more digits")
    return ids


def everything(conn: sqlite3.Connection, commit_id: int) -> dict[str, Any]:
    """All rows about the commit, by table, as stored (pre-images without their content)."""
    found: dict[str, Any] = rows(
        conn,
        """SELECT commits.*, repos.name AS repo, message, encoding FROM commits
           JOIN repos ON repos.id = repo_id JOIN messages ON commit_id = commits.id WHERE commits.id = ?""",
        (commit_id,),
    )[0]
    tables = [fact.TABLE for fact in FACTS if not fact.SHARED]
    for table in ("labels", *tables, "failures", "llm_calls"):
        found[table] = rows(conn, f"SELECT * FROM {table} WHERE commit_id = ?", (commit_id,))
        for row in found[table]:
            del row["commit_id"]
    found["steps"] = rows(
        conn,
        """SELECT steps.stage, hash AS recipe FROM steps JOIN recipes ON id = recipe_id
           JOIN stages ON stages.stage = steps.stage WHERE commit_id = ? ORDER BY place""",
        (commit_id,),
    )
    return found


# ------------------------------------------------------------------------ on the screen


def render(conn: sqlite3.Connection, commit_id: int) -> None:
    """Print the commit's whole life, from its message to the model calls behind each fact."""
    c = everything(conn, commit_id)
    _head(c)
    if c["diffs"]:
        patch = c["diffs"][0]["patch"]
        size = f"{c['diffs'][0]['n_chars']:,} characters"
        _section(f"Patch ({size})", "too large to be kept" if patch is None else _code(patch, "diff"))
    _verdict(c)
    if c["functions"]:
        _function(c, FactReader(conn))
    _elements(c)
    _segments(c)
    if c["instructions"]:
        counts: dict[str, int] = {}
        for row in c["instructions"]:
            counts[row["task"]] = counts.get(row["task"], 0) + 1
        _section("Training instructions", ", ".join(f"{task} {n}" for task, n in counts.items()))
    if c["failures"]:
        _section("Failures", "\n".join(f"{f['stage']} attempt {f['attempt']}: {f['error']}" for f in c["failures"]))
    _calls(c)


def _section(title: str, body: Any) -> None:
    shown = plain(_cut(body)) if isinstance(body, str) else body
    console.out.print(Panel(shown, title=plain(_cut(title)), title_align="left"))


def _cut(text: str) -> str:
    """As much of a text as fits on a screen that people read."""
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}\n... and {len(text) - MAX_CHARS:,} more characters"


def _code(text: str, language: str) -> Syntax:
    return Syntax(safe(_cut(text)), language, background_color="default", word_wrap=True)


def _when(seconds: int) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):  # a stranger's clock
        return f"{seconds} s since 1970"


def _head(c: dict[str, Any]) -> None:
    where = c["status"]
    if c["outcome"] == "rejected":
        where += f", rejected at {c['reject_stage']}: {c['reject_reason']}"
    elif c["outcome"] != "open":
        where += f", {c['outcome']}"
    ids = [f"{row['kind']} {row['value']}" for row in c["identifiers"]]
    ids += [_label(row) for row in c["labels"]]
    facts = Table.grid(padding=(0, 2))
    lines = [
        ("commit", c["sha"]),
        ("repository", c["repo"]),
        ("parents", c["parents"] or "none"),
        ("committed", _when(c["commit_time_s"])),
        ("status", where),
        ("keywords", ", ".join(_list(c["keyword_matches"], "keywords"))),
        ("crash words", ", ".join(_list(c["keyword_matches"], "crash_words"))),
        ("let in by", ", ".join(rule.replace("_", " ") for rule in _list(c["keyword_matches"], "rules"))),
        ("identifiers", ", ".join(ids)),
        ("tokens", f"{c['commit_sizes'][0]['n_tokens']:,}" if c["commit_sizes"] else ""),
        ("priority", _priority(c["priorities"][0]) if c["priorities"] else ""),
    ]
    for name, value in lines:
        if value:
            facts.add_row(plain(name, "bold"), plain(value))
    console.out.print(facts)
    _section("Message", c["message"].rstrip("\n"))


def _label(row: dict[str, Any]) -> str:
    """Identifier, weaknesses, severity, and in brackets who says so: "CVE-2020-1 CWE-787 HIGH (ghsa, advisory)"."""
    what = [row["identifier"] or row["label"], row["cwe"], row["other_cwes"], row["severity"]]
    if row["introduced_by"]:
        what.append(f"since {', '.join(sha[:12] for sha in row['introduced_by'].split())}")
    return f"{' '.join(filter(None, what))} ({row['source']}, {row['quality']})"


def _priority(row: dict[str, Any]) -> str:
    """The sum with the parts that count, and what was found: "5.5 = vocabulary 4 + shape 1.5: overrun, bounds"."""
    parts = [f"{name} {row[name]:g}" for name in ("identifiers", "vocabulary", "shape", "size", "place") if row[name]]
    return f"{row['priority']:g} = {' + '.join(parts) or '0'}: {', '.join(json.loads(row['found'])) or 'nothing found'}"


def _list(found: list[dict[str, Any]], column: str) -> list[str]:
    return [str(item) for row in found for item in json.loads(row[column])]


def _verdict(c: dict[str, Any]) -> None:
    for v in c["verdicts"]:
        text = f"{v['label']} (from {v['source']})"
        if v["p_yes"] is not None:
            text += f"\nraw: yes {v['p_yes']:.4f}, no {v['p_no']:.4f}, cannot decide {v['p_undecided']:.4f}"
            how = f"calibration {v['calibration_id']}" if v["calibration_id"] else "not calibrated"
            text += f"\np(fix) {v['p_fix']:.4f} ({how})"
        if v["rationale"]:
            text += f"\n{v['rationale']}"
        _section("Does it fix a vulnerability?", text)


def _function(c: dict[str, Any], reader: FactReader) -> None:
    f = c["functions"][0]
    language = "cpp" if f["path"].endswith((".cc", ".cpp", ".cxx", ".hpp", ".hh")) else "c"
    code = _code(f["pre_text"], language)
    code.line_numbers = True
    for mask in c["masks"]:
        for line in range(mask["first_line"], mask["last_line"] + 1):
            code.stylize_range("on dark_red", (line, 0), (line + 1, 0))
    title = f"{f['name']} in {f['old_path']}:{f['pre_first_line']}-{f['pre_last_line']}, split {f['split']}"
    deleted, about = json.loads(f["deleted_lines"]), json.loads(f["fix_lines"])
    notes = [f"the fix deletes lines {deleted} of it"] if deleted else ["the fix deletes no line of it"]
    if inserted := [line for line in about if line not in deleted]:
        notes.append(f"the fix inserts lines at {inserted}")
    notes += [
        f"mask {m['mask_no']}: lines {m['first_line']}-{m['last_line']}, the fix is about {m['n_fix_lines']} of them"
        for m in c["masks"]
    ]
    _section(title, Group(code, Text(), plain("\n".join(notes), "dim")))
    if c["masked_functions"]:
        _section("Masked", _code(c["masked_functions"][0]["masked_pre"], language))
    if c["merged_masks"]:
        _section("What the fix puts there", _code(c["merged_masks"][0]["fixed"] or "(nothing)", language))


def _elements(c: dict[str, Any]) -> None:
    if not c["elements"]:
        return
    kept = {row["name"]: ("kept" if row["is_kept"] else row["reason"]) for row in c["context_items"]}
    table = Table(header_style="bold")
    for column in ("element", "kind", "found by", "defined at", "definition", "context"):
        table.add_column(column, overflow="fold")
    for e in c["elements"]:
        where = f"{e['def_path']}:{e['def_first_line']}" if e["definition"] else e["missing"]
        first = (e["definition"] or "").strip().split("\n")[0][:60]
        cells = (e["name"], e["kind"], e["found_by"], where, first, kept.get(e["name"], ""))
        table.add_row(*(plain(str(cell)) for cell in cells))
    _section("Code elements", table)


def _segments(c: dict[str, Any]) -> None:
    why = {row["segment_no"]: row for row in c["explanations"]}
    for s in c["segments"]:
        parts: list[Any] = [_code(s["snippet"], "c")]
        if s["finding"]:
            parts.append(plain(f"Finding: {s['finding']}"))
        if e := why.get(s["segment_no"]):
            parts.append(plain(f"Root cause: {e['root_cause']}\nImpact: {e['impact']}\nCWE: {e['cwe'] or 'not named'}"))
        title = f"Segment {s['segment_no']}: lines {s['first_line']}-{s['last_line']}"
        title += f", the fix is about {s['n_fix_lines']} of them"
        _section(title, Group(*parts))


def _calls(c: dict[str, Any]) -> None:
    if not c["llm_calls"]:
        return
    table = Table(header_style="bold")
    for column in ("stage", "task", "prompt", "tokens in", "cached", "out", "ms", "completion"):
        table.add_column(
            column, overflow="fold", justify="right" if column in ("tokens in", "cached", "out", "ms") else "left"
        )
    for call in c["llm_calls"]:
        cells = (
            call["stage"], call["task"], f"{call['prompt_name']} {call['prompt_hash'][:8]}", f"{call['n_prompt']:,}",
            f"{call['n_cached']:,}", f"{call['n_completion']:,}", f"{call['duration_ms']:,.0f}",
            call["completion"][:200],
        )  # fmt: skip
        table.add_row(*(plain(cell) for cell in cells))
    _section("Model calls", table)
