"""Checks of the queue: outcomes, claims, steps, failures, and facts of what was passed and of nothing else.

Plain SQL over whole tables. Rows of stages aside (s4 takes undecided rows)
have a step and facts beyond their status; nobody else does.
"""

import time
from collections.abc import Iterator

from trustmine.db.facts import tables_from
from trustmine.db.recipes import KEPT
from trustmine.records import FACTS
from trustmine.stages import STAGES, aside
from trustmine.verify.base import Finding, Look, Statement

# Tables in which a row that passed the stage has at least one row.
PASSED = {
    "s0_1": ("keyword_matches", "diffs", "diff_files"),
    "s0_2": ("commit_sizes", "priorities"),
    "s0_3": ("verdicts",),
    "s1_1": ("functions",),
    "s1_2": ("masks", "masked_functions"),
    "s2_0": ("merged_masks", "undefined_elements"),
    "s2_1": ("elements", "element_counts"),
    "s2_2": ("context_items",),
    "s3_1": ("segments",),
    "s3_2": ("explanations",),
    "s4": ("instructions",),
}
# What is kept of rows that were rejected for these reasons.
REJECTED = (
    ("keyword_matches", "s0_1", ("merge", "shallow_boundary", "empty_diff")),
    ("commit_sizes", "s0_2", ("not_single_file", "not_c")),
    ("verdicts", "s0_3", ("not_a_fix", "undecided")),
    ("masked_functions", "s1_2", ("mask_misses_fix", "mask_whole_function")),
    ("merged_masks", "s2_0", ("no_undefined_elements",)),
)
MAX_LEASE_S = 366 * 86_400.0  # a lease that ends later than a year from now was not given by a worker

# Rejected rows that a later stage takes too: (that stage, reject stage, reason).
_ASIDE = [(stage.NAME, at, reason) for stage in STAGES.values() for at, reason in aside(stage)]
_IS_ASIDE = " OR ".join(f"(t.stage = '{s}' AND c.reject_stage = '{at}' AND c.reject_reason = '{why}')"
                        for s, at, why in _ASIDE) or "0"  # fmt: skip
_NEXT = "(SELECT stage FROM stages WHERE place = p.place + 1)"


def claims(look: Look) -> Iterator[Finding]:
    """A claim names a worker, ends within a year, and is on a row that a stage could work on."""
    may_be_aside = " OR ".join(f"(reject_stage = '{at}' AND reject_reason = '{why}')" for _, at, why in _ASIDE) or "0"
    for commit_id, owner, outcome in look.rows(
        f"""SELECT id, claim_owner, outcome FROM commits WHERE claim_owner IS NOT NULL
            AND (claim_owner NOT GLOB '*:[0-9]*:*:*' OR claim_until_s NOT BETWEEN 0 AND ?
                 OR NOT (outcome = 'open' OR {may_be_aside}))""",
        (time.time() + MAX_LEASE_S,),
    ):
        free = "UPDATE commits SET claim_owner = NULL, claim_until_s = NULL WHERE id = ?"
        yield Finding(commit_id, f"claimed by {owner!r}, outcome {outcome}", mend=((free, (commit_id,)),))


def outcomes(look: Look) -> Iterator[Finding]:
    """A rejected row was rejected by the stage after its status, for a reason of one word."""
    for commit_id, status, at, reason, place, reject_place in look.rows(
        """SELECT c.id, c.status, c.reject_stage, c.reject_reason, p.place, r.place
           FROM commits AS c JOIN stages AS p ON p.stage = c.status JOIN stages AS r ON r.stage = c.reject_stage
           WHERE r.place <> p.place + 1 OR reject_reason = '' OR reject_reason GLOB '*[^a-z0-9_]*'"""
    ):
        what = f"status {status}, yet rejected by {at} as {reason!r}"
        yield Finding(commit_id, what, back=list(STAGES)[min(reject_place - 1, place)])


def steps(look: Look) -> Iterator[Finding]:
    """A row has a step for each stage that decided it, and for no other."""
    for commit_id, stage in look.rows(
        """SELECT c.id, s.stage FROM commits AS c JOIN stages AS p ON p.stage = c.status
           JOIN stages AS s ON s.place BETWEEN 1 AND p.place + (c.outcome = 'rejected')
           WHERE NOT EXISTS (SELECT 1 FROM steps WHERE commit_id = c.id AND stage = s.stage)"""
    ):
        yield Finding(commit_id, f"no step says what decided {stage}", back=stage)
    for commit_id, stage, status in look.rows(
        f"""SELECT t.commit_id, t.stage, c.status FROM steps AS t JOIN commits AS c ON c.id = t.commit_id
            JOIN stages AS s ON s.stage = t.stage JOIN stages AS p ON p.stage = c.status
            WHERE s.place > p.place AND t.stage IS NOT c.reject_stage AND NOT ({_IS_ASIDE})"""
    ):
        drop: list[Statement] = [
            (f"DELETE FROM {table} WHERE commit_id = ?", (commit_id,)) for table in tables_from([stage])
        ]
        drop.append(("DELETE FROM steps WHERE commit_id = ? AND stage = ?", (commit_id, stage)))
        yield Finding(commit_id, f"a step of {stage}, but the status is {status}", mend=tuple(drop))


def failures(look: Look) -> Iterator[Finding]:
    """Failures are of the stage that the row waits for (or was taken aside by), as many as its attempts."""
    for commit_id, stage in look.rows(
        f"""SELECT DISTINCT t.commit_id, t.stage FROM failures AS t JOIN commits AS c ON c.id = t.commit_id
            JOIN stages AS p ON p.stage = c.status
            WHERE t.stage IS NOT {_NEXT} AND NOT ({_IS_ASIDE})"""
    ):
        drop = ("DELETE FROM failures WHERE commit_id = ? AND stage = ?", (commit_id, stage))
        yield Finding(commit_id, f"failures of {stage}, which it does not wait for", mend=(drop,))
    for commit_id, stage in look.rows(
        f"""SELECT c.id, {_NEXT} FROM commits AS c JOIN stages AS p ON p.stage = c.status
            WHERE c.outcome = 'failed' AND NOT EXISTS (SELECT 1 FROM failures WHERE commit_id = c.id)"""
    ):
        yield Finding(commit_id, f"set aside at {stage}, but no failure says why", back=stage)
    for commit_id, attempts, n in look.rows(
        """SELECT c.id, c.attempts, (SELECT count(*) FROM failures WHERE commit_id = c.id) AS n FROM commits AS c
           WHERE c.attempts <> n AND (c.attempts > 0 OR n > 0) AND NOT (c.outcome = 'failed' AND n = 0)"""
    ):
        again = (
            "UPDATE commits SET attempts = (SELECT count(*) FROM failures WHERE commit_id = commits.id) WHERE id = ?"
        )
        yield Finding(commit_id, f"{attempts} attempts, {n} failures", mend=((again, (commit_id,)),))


def facts_missing(look: Look) -> Iterator[Finding]:
    """A row has its message, facts of every stage that it passed, and what is kept of a rejected one."""
    for (commit_id,) in look.rows("SELECT id FROM commits WHERE id NOT IN (SELECT commit_id FROM messages)"):
        yield Finding(commit_id, "no message is stored, and git was not asked for it")
    names = list(STAGES)
    for stage, tables in PASSED.items():
        reached = ", ".join(f"'{name}'" for name in names[names.index(stage) :])
        for table in tables:
            for (commit_id,) in look.rows(
                f"""SELECT id FROM commits WHERE status IN ({reached})
                    AND NOT EXISTS (SELECT 1 FROM {table} WHERE commit_id = commits.id)"""
            ):
                yield Finding(commit_id, f"passed {stage}, but nothing is in {table}", back=stage)
    for table, stage, reasons in REJECTED:
        for commit_id, reason in look.rows(
            f"""SELECT id, reject_reason FROM commits WHERE reject_stage = '{stage}'
                AND reject_reason IN ({", ".join(f"'{reason}'" for reason in reasons)})
                AND NOT EXISTS (SELECT 1 FROM {table} WHERE commit_id = commits.id)"""
        ):
            yield Finding(commit_id, f"rejected as {reason}, but nothing is in {table}", back=stage)


def facts_not_reached(look: Look) -> Iterator[Finding]:
    """No row has facts of a stage that has not decided it."""
    for fact in FACTS:
        if fact.SHARED:
            continue
        for (commit_id,) in look.rows(
            f"""SELECT DISTINCT commit_id FROM {fact.TABLE} AS f JOIN commits ON commits.id = commit_id WHERE NOT EXISTS
                (SELECT 1 FROM steps WHERE commit_id = f.commit_id AND stage = '{fact.STAGE}')
                {KEPT.get(fact.TABLE, "")}"""
        ):
            drop = (f"DELETE FROM {fact.TABLE} WHERE commit_id = ?{KEPT.get(fact.TABLE, '')}", (commit_id,))
            yield Finding(commit_id, f"rows in {fact.TABLE}, but {fact.STAGE} has not decided it", mend=(drop,))


def priorities(look: Look) -> Iterator[Finding]:
    """The priority that orders the queue is the one that s0_2 found."""
    copy = "UPDATE commits SET priority = (SELECT priority FROM priorities WHERE commit_id = commits.id) WHERE id = ?"
    for commit_id, own, found in look.rows(
        """SELECT id, c.priority, p.priority FROM commits AS c LEFT JOIN priorities AS p ON p.commit_id = id
           WHERE c.priority IS NOT p.priority"""
    ):
        yield Finding(commit_id, f"priority {own}, found was {found}", mend=((copy, (commit_id,)),))
