"""`trustmine verify`: does what is stored hold together, and can it be derived again?

A table of named checks, each with what holds in a sound database. They run in
the order of the stages, each on one snapshot, or one per batch of rows, while
workers may go on. A row that one check finds is not looked at by later ones:
it goes back before that stage, and all that was made of it with it. `--repair`
does so, and drops what cannot be derived; doing the rows again is left to `run`.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from trustmine.config import Settings
from trustmine.db import recipes as recipe_rows
from trustmine.db.connect import transaction
from trustmine.errors import TrustmineError
from trustmine.stages import STAGES
from trustmine.verify import file, longlived, provenance, queue, texts
from trustmine.verify.again import AGAIN, commits
from trustmine.verify.base import Check, Finding, Look, Result, Statement, is_locked

N_EXAMPLES = 5
_FROM_GIT = "Make the repository readable at its path, then: trustmine verify --repair"
_FROM_BACKUP = "Restore a backup, or try: sqlite3 FILE .recover"


def _check(
    name: str, find: Callable[[Look], Iterator[Finding]], table: str | None = None, hint: str = "", slow: bool = False
) -> Check:
    return Check(name, (find.__doc__ or "").strip(), find, hint, table, slow)


def _again(stage: str) -> Check:
    holds = f"Doing {stage} again gives the same outcome and facts"
    return Check(f"{stage}_again", holds, AGAIN[stage], "", f"steps WHERE stage = '{stage}'", True)


CHECKS: tuple[Check, ...] = (
    _check("integrity", file.integrity, hint=_FROM_BACKUP),
    _check("foreign_keys", file.foreign_keys, hint=_FROM_BACKUP),
    _check("commits", commits, "commits", slow=True),
    _check("claims", queue.claims),
    _check("outcomes", queue.outcomes),
    _check("steps", queue.steps, "steps"),
    _check("facts_missing", queue.facts_missing, hint=_FROM_GIT),
    _check("facts_not_reached", queue.facts_not_reached),
    _check("failures", queue.failures),
    _check("priorities", queue.priorities),
    _check("words", file.words),
    _check("recipes", provenance.recipes, "recipes"),
    _check("calibrations", provenance.calibrations, "calibrations"),
    _check("calls", provenance.calls, "llm_calls"),
    _check("diffs", texts.diffs, "diffs"),
    _again("s0_1"),
    _again("s0_2"),
    _check("verdict_calls", provenance.verdict_calls, "verdicts"),
    _again("s0_3"),
    _check("pre_images", texts.pre_images, "pre_images"),
    _check("functions", texts.functions, "functions"),
    _again("s1_1"),
    _check("mask_calls", provenance.mask_calls, "masked_functions"),
    _check("masks", texts.masks, "masked_functions"),
    _again("s1_2"),
    _check("merged_masks", texts.merged_masks, "merged_masks"),
    _again("s2_0"),
    _check("blob_symbols", texts.blob_symbols, "blob_symbols"),
    _check("element_calls", provenance.element_calls, "element_counts"),
    _check("elements", texts.elements, "element_counts"),
    _again("s2_1"),
    _check("context_items", texts.context_items, "context_items"),
    _again("s2_2"),
    _check("segment_calls", provenance.segment_calls, "segments"),
    _check("segments", texts.segments, "segments"),
    _again("s3_1"),
    _check("explanation_calls", provenance.explanation_calls, "explanations"),
    _check("explanations", texts.explanations, "explanations"),
    _again("s3_2"),
    _check("instructions", texts.instructions, "instructions"),
    _again("s4"),
    _check("benign_functions", longlived.functions, "benign_functions"),
    _check("benign_again", longlived.again, "benign_functions", slow=True),
    _check("file_lifespans", longlived.lifespans, "file_lifespans"),
)

Show = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


def verify(
    conn: sqlite3.Connection,
    settings: Settings,
    show: Show,
    *,
    repair: bool = False,
    is_quick: bool = False,
    checks: Sequence[Check] = CHECKS,
) -> list[Result]:
    """What each check found, in their order. `repair` needs a connection that can write."""
    look = Look(conn, settings)
    return [_result(look, check, show, repair) for check in checks if not (is_quick and check.is_slow)]


def _result(look: Look, check: Check, show: Show, repair: bool) -> Result:
    result = Result(check)
    to_mend: list[Finding] = []
    look.skipped = {}
    ids: set[int] = set()
    look.conn.execute("BEGIN")  # a snapshot
    try:
        total = None
        if check.table is not None:
            with contextlib.suppress(sqlite3.DatabaseError):  # the check will say so
                total = look.conn.execute(f"SELECT count(*) FROM {check.table}").fetchone()[0]
        with show(f"verify {check.name}", total) as look.draw:
            for finding in _found(look, check):
                if finding.commit_id is not None:
                    if finding.commit_id in look.found:
                        continue
                    ids.add(finding.commit_id)
                result.n_found += 1
                result.n_left += finding.back is None and not finding.mend
                if len(result.examples) < N_EXAMPLES:
                    result.examples.append(_line(look.conn, finding))
                if repair:
                    to_mend.append(finding)
    finally:
        if look.conn.in_transaction:
            look.conn.execute("ROLLBACK")
    look.found |= ids
    result.skipped = look.skipped
    if repair:
        _mend(look.conn, to_mend)
        look.found.clear()  # they are as they should be again: later checks may look at them
    return result


def _found(look: Look, check: Check) -> Iterator[Finding]:
    """What a check finds; that it cannot go on, for damage may raise anything, is a finding too."""
    try:
        yield from check.find(look)
    except TrustmineError:  # prompts that cannot be read, say
        raise
    except Exception as error:
        if is_locked(error):
            raise
        yield Finding(None, f"cannot be checked: {type(error).__name__}: {error}"[:300])


def _line(conn: sqlite3.Connection, finding: Finding) -> str:
    if finding.commit_id is None:
        return finding.what
    row = conn.execute("SELECT sha FROM commits WHERE id = ?", (finding.commit_id,)).fetchone()
    return f"{row[0][:12] if row else f'commit_id {finding.commit_id}'}: {finding.what}"


def _mend(conn: sqlite3.Connection, findings: Sequence[Finding]) -> None:
    """Send rows back and run what mends."""
    for stage in STAGES:
        ids = sorted({f.commit_id for f in findings if f.back == stage and f.commit_id is not None})
        if ids:
            recipe_rows.send_back(conn, stage, ids)
    statements: dict[Statement, None] = dict.fromkeys(statement for f in findings for statement in f.mend)
    with transaction(conn):
        for sql, values in statements:
            conn.execute(sql, values)


def as_plain(result: Result) -> dict[str, object]:
    """A result for JSON."""
    return {
        "check": result.check.name,
        "holds": result.check.holds,
        "found": result.n_found,
        "first": result.examples,
        "cannot_be_mended": result.n_left,
        "not_looked_at": result.skipped,
    }
