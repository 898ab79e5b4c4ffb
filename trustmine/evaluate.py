"""How well a model tells known fixes from other commits at s0_3, and which threshold that suggests.

The fixes of a list are compared with other commits that passed s0_2, both
first in the order of their SHAs. Their answers are recorded like any other
call: an evaluation that was interrupted goes on where it stopped, and s0_3
does not ask again. Nothing else is stored, unless a fit is (`store`).

Promises: the same database, model and prompt give the same figures. The fits
are measured on rows that they have not seen: even commits are fitted, odd
ones measured, by the last digit of the SHA, so a commit never changes sides.
"""

import math
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from trustmine import calibrate, calibration, evaluation, labels, tools
from trustmine.calibration import Calibration
from trustmine.config import Settings
from trustmine.db import claims
from trustmine.db.claims import Scope
from trustmine.errors import TrustmineError
from trustmine.evaluation import RAW, Logistic
from trustmine.llm.base import Engine
from trustmine.records import Commit

N_OTHERS = 300

Show = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True)
class Sample:
    """Ids of the commits to compare, in the order of their SHAs."""

    fixes: list[int]
    others: list[int]
    n_listed: int  # commits that the list calls fixes
    n_listed_passed: int  # of these, how many passed s0_2
    n_passed: int  # rows that passed s0_2, each SHA once


@dataclass(frozen=True, slots=True)
class Row:
    """A commit of the sample, and what the model said."""

    sha: str
    is_fix: bool
    score: float  # log p(yes) - log p(no)
    p_now: float  # p_fix under the calibration in force, raw without one
    label: str  # what s0_3 makes of it: yes, no, undecided

    @property
    def is_decided(self) -> bool:
        """May a threshold keep it? s0_3 rejects rows as undecided before it looks at min_p_fix."""
        return self.label != "undecided"

    @property
    def is_fitted(self) -> bool:
        """Is it in the half on which fits are made?"""
        return int(self.sha[-1], 16) % 2 == 0


@dataclass(frozen=True, slots=True)
class Probabilities:
    """How far a way to get probabilities from scores can be believed."""

    name: str  # raw, batch or known (the calibration in force), temperature, platt; share: the same for every row
    way: Logistic
    brier: float | None  # on all rows; None for what was fitted on half of them
    calibration_error: float | None
    brier_held_out: float | None  # on the half that no fit has seen; None if a half lacks fixes or others
    calibration_error_held_out: float | None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What came out."""

    rows: tuple[Row, ...]  # fixes first
    model: str
    sample: Sample
    n_overflow: int  # rows of the sample that do not fit in the model's context, and are left out
    prior: float  # share of fixes taken for the history
    now: Calibration | None
    fit: Calibration  # Platt's on all rows: what `store` stores
    probabilities: tuple[Probabilities, ...]

    @property
    def scores(self) -> list[float]:
        return [row.score for row in self.rows]

    @property
    def is_fix(self) -> list[bool]:
        return [row.is_fix for row in self.rows]

    @property
    def held_out(self) -> tuple[Row, ...]:
        """The half on which fits are measured."""
        return tuple(row for row in self.rows if not row.is_fitted)


# ------------------------------------------------------------------------ asking


def choose(
    conn: sqlite3.Connection,
    file: Path,
    scope: Scope = Scope(),
    *,
    n_others: int = N_OTHERS,
    n_known: int | None = None,
) -> Sample:
    """Fixes of a list and others that passed s0_2; each SHA once, whatever repositories have it.

    Commits that other lists call fixes are neither. Raises TrustmineError
    without commits of both kinds.
    """
    listed, n_listed = labels.fixes(conn, file, scope.repo_id)
    ids: dict[str, int] = {}
    for row_id, sha in calibrate.passed(conn, scope):
        ids.setdefault(sha, row_id)
    known = _shas(conn, "SELECT sha FROM commits WHERE id IN (SELECT value FROM json_each(?))", str(sorted(listed)))
    elsewhere = _shas(conn, "SELECT sha FROM commits JOIN labels ON commit_id = id WHERE label = 'yes'")
    fixes = [sha for sha in ids if sha in known]
    others = [sha for sha in ids if sha not in known and sha not in elsewhere]
    if not fixes or not others:
        raise TrustmineError(
            "There is nothing to compare",
            f"{file}: {len(fixes)} of {n_listed} known fixes passed s0_2, and {len(others)} other commits",
            "Run s0_1 and s0_2 first; trustmine audit shows where known fixes got lost",
        )
    return Sample(
        [ids[sha] for sha in fixes[:n_known]],
        [ids[sha] for sha in others[:n_others]],
        n_listed,
        len(fixes),
        len(ids),
    )


def evaluate(
    conn: sqlite3.Connection,
    settings: Settings,
    engine: tuple[Engine, int],
    sample: Sample,
    *,
    prior: float | None = None,
    show: Show,
) -> Evaluated:
    """Ask about the sample what has not been asked yet, and compare.

    `prior`: the share of fixes among all rows that pass s0_2; None: that of
    the list. Raises TrustmineError if rows of both kinds do not fit in the
    context.
    """
    ctx = tools.context(conn, settings, engine[1])
    commits = claims.read(conn, sample.fixes + sample.others)
    with show("evaluating", len(commits)) as draw:
        said = calibrate.scores(conn, ctx, *engine, commits, draw)
    now = ctx.calibration
    if now is None:  # what s0_3 would begin with
        with show("calibrating", settings.calibration_rows) as draw:
            now = calibrate.estimate(conn, ctx, *engine, draw)
    fixes = set(sample.fixes)

    def row(commit: Commit) -> Row:
        logprobs = said[commit.id]
        return Row(
            commit.sha,
            commit.id in fixes,
            calibration.score(logprobs),
            calibration.p_fix(now, logprobs),
            calibration.decide(now, logprobs, settings.min_p_fix),
        )

    rows = tuple(row(commit) for commit in commits if commit.id in said)
    if len({row.is_fix for row in rows}) < 2:
        raise TrustmineError(
            "Nothing is left to compare: the prompts of one kind do not fit in the context",
            f"{len(commits) - len(rows)} of {len(commits)} rows",
            "Raise n_ctx, or take a model with a larger context",
        )
    fit = evaluation.platt([row.score for row in rows], [row.is_fix for row in rows])
    # The cutoff of 'cannot decide' comes from others alone: like a batch of the history, which is nearly all others.
    leaning = [said[i] for i in sample.others if i in said]
    *_, cutoff = calibration.estimate(leaning, settings.undecided_share)
    offset, scale = _as_calibration(fit)
    return Evaluated(
        rows=rows,
        model=engine[0].info.name,
        sample=sample,
        n_overflow=len(commits) - len(rows),
        prior=sample.n_listed_passed / sample.n_passed if prior is None else prior,
        now=now,
        fit=calibrate.made(conn, ctx, engine[1], "known", offset, scale, cutoff, len(rows)),
        probabilities=_probabilities(rows, now),
    )


def store(conn: sqlite3.Connection, settings: Settings, model_id: int, found: Evaluated) -> None:
    """Have s0_3 use the fit from now on. Raises TrustmineError if the model ranks no better than chance."""
    if not found.fit.scale > 0:
        raise TrustmineError(
            "The fit is not stored: this model ranks known fixes below other commits",
            f"ROC AUC {evaluation.roc_auc(found.scores, found.is_fix):.3f}",
            "Choose another model or prompt",
        )
    calibrate.store(conn, tools.context(conn, settings), model_id, found.fit)


def _shas(conn: sqlite3.Connection, sql: str, *values: str) -> set[str]:
    return {row[0] for row in conn.execute(sql, values)}


def _as_calibration(fit: Logistic) -> tuple[float, float]:
    """(offset, scale) of slope * score + intercept = scale * (score - offset)."""
    return (-fit.intercept / fit.slope if fit.slope else 0.0), fit.slope


def _probabilities(rows: Sequence[Row], now: Calibration | None) -> tuple[Probabilities, ...]:
    """The ways to get probabilities: as they are, with the calibration in force, and fitted."""
    fitted = [row for row in rows if row.is_fitted]
    held_out = [row for row in rows if not row.is_fitted]
    found = [_measured("raw", RAW, rows, held_out)]
    if now is not None:
        found.append(_measured(now.method, Logistic(now.scale, -now.scale * now.offset), rows, held_out))
    if _has_both(fitted):
        scores, is_fix = [row.score for row in fitted], [row.is_fix for row in fitted]
        found.append(_measured("temperature", evaluation.temperature(scores, is_fix), None, held_out))
        found.append(_measured("platt", evaluation.platt(scores, is_fix), None, held_out))
        share = evaluation.share(is_fix)
        found.append(_measured("share", Logistic(0.0, math.log(share / (1 - share))), None, held_out))
    return tuple(found)


def _measured(name: str, way: Logistic, rows: Sequence[Row] | None, held_out: Sequence[Row]) -> Probabilities:
    def measure(rows: Sequence[Row]) -> tuple[float, float]:
        p, is_fix = way.probabilities([row.score for row in rows]), [row.is_fix for row in rows]
        return evaluation.brier(p, is_fix), evaluation.calibration_error(p, is_fix)

    overall = (None, None) if rows is None else measure(rows)
    unseen = measure(held_out) if _has_both(held_out) else (None, None)
    return Probabilities(name, way, *overall, *unseen)


def _has_both(rows: Sequence[Row]) -> bool:
    return len({row.is_fix for row in rows}) == 2
