"""Checks of the file itself: SQLite's own, references between tables, and the index of words."""

import re
import sqlite3
from collections.abc import Iterator

from trustmine.verify.base import Finding, Look, Statement, is_locked

# What SQLite says of an index that does not fit its table: made anew from the table, nothing is lost.
_INDEX_TROUBLE = re.compile(r"row \d+ missing from index|wrong # of entries in index|non-unique entry in index")
_REINDEX: Statement = ("REINDEX", ())
# Word indexes, with the table and key that they are of.
_WORDS = (("messages_fts", "messages", "commit_id"), ("explanations_fts", "explanations", "id"))


def integrity(look: Look) -> Iterator[Finding]:
    """SQLite's integrity_check: pages, indexes, types and constraints."""
    try:
        for (line,) in look.conn.execute("PRAGMA integrity_check(1000)"):
            if line != "ok":
                yield Finding(None, line, mend=(_REINDEX,) if _INDEX_TROUBLE.search(line) else ())
    except sqlite3.DatabaseError as error:
        if is_locked(error):
            raise
        yield Finding(None, str(error))


def foreign_keys(look: Look) -> Iterator[Finding]:
    """Every reference from one table to another leads somewhere."""
    for table, _, parent, _ in look.rows('SELECT DISTINCT "table", 0, parent, 0 FROM pragma_foreign_key_check'):
        if parent == "commits":  # rows about a commit that is not there
            drop = (f"DELETE FROM {table} WHERE commit_id NOT IN (SELECT id FROM commits)", ())
            yield Finding(None, f"{table}: rows of commits that are not there", mend=(drop,))
        elif (table, parent) == ("steps", "recipes"):
            for commit_id, stage in look.rows(
                "SELECT commit_id, stage FROM steps WHERE recipe_id NOT IN (SELECT id FROM recipes)"
            ):
                yield Finding(commit_id, f"{stage} was decided by a recipe that is not there", back=stage)
        elif (table, parent) == ("verdicts", "calibrations"):
            for (commit_id,) in look.rows(
                "SELECT commit_id FROM verdicts WHERE calibration_id NOT IN (SELECT id FROM calibrations)"
            ):
                yield Finding(commit_id, "the verdict's calibration is not there", back="s0_3")
        elif (table, parent) == ("llm_calls", "models"):
            for commit_id, stage in look.rows(
                "SELECT DISTINCT commit_id, stage FROM llm_calls WHERE model_id NOT IN (SELECT id FROM models)"
            ):
                drop_calls = ("DELETE FROM llm_calls WHERE commit_id = ? AND model_id NOT IN (SELECT id FROM models)",
                        (commit_id,))  # fmt: skip
                yield Finding(commit_id, f"{stage} asked a model that is not there", back=stage, mend=(drop_calls,))
        else:
            yield Finding(None, f"{table}: rows that name {parent} which are not there")


def words(look: Look) -> Iterator[Finding]:
    """Full-text search knows each text; what it knows of it only where the database may be written (--repair)."""
    is_read_only = bool(look.conn.execute("PRAGMA query_only").fetchone()[0])
    for index, table, key in _WORDS:
        rebuild = (f"INSERT INTO {index} ({index}) VALUES ('rebuild')", ())
        [(n,)] = look.conn.execute(
            f"""SELECT (SELECT count(*) FROM {table} WHERE {key} NOT IN (SELECT id FROM {index}_docsize))
                     + (SELECT count(*) FROM {index}_docsize WHERE id NOT IN (SELECT {key} FROM {table}))"""
        ).fetchall()
        if n:
            yield Finding(None, f"{index}: {n} texts too few or too many", mend=(rebuild,))
        elif not is_read_only and (trouble := _trouble(look, index)):
            yield Finding(None, f"{index}: {trouble}", mend=(rebuild,))


def _trouble(look: Look, index: str) -> str:
    """What is wrong with an index of words; '' if nothing is."""
    with look.alone():
        try:
            look.conn.execute(f"INSERT INTO {index} ({index}, rank) VALUES ('integrity-check', 1)")
        except sqlite3.DatabaseError as error:
            return str(error)
    return ""
