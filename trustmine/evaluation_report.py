"""What an evaluation says: as tables, as plain data, and as pictures."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trustmine import evaluation, plots, samples
from trustmine.calibration import Calibration
from trustmine.errors import TrustmineError
from trustmine.evaluate import Evaluated, Row

FIRST = (10, 20, 50, 100)  # precision among so many rows
RECALLS = (0.5, 0.8, 0.9, 0.95, 1.0)
LABELS = ("yes", "no", "undecided")
CALIBRATION_ERROR = "10 bins of equal width, Naeini et al. 2015"

_NAMES = {
    "raw": "raw: p(yes) / (p(yes) + p(no))",
    "batch": "batch calibration, as s0_3 has it now",
    "known": "fitted on known fixes, as s0_3 has it now",
    "temperature": "temperature scaling, fitted on the other half",
    "platt": "Platt scaling, fitted on the other half",
    "share": "share of fixes in the other half, for every row",
}


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]


# ------------------------------------------------------------------------------ data


def as_data(found: Evaluated) -> dict[str, Any]:
    """All figures, ready for JSON."""
    scores, is_fix = found.scores, found.is_fix
    interval = evaluation.auc_interval(scores, is_fix)
    share = evaluation.share(is_fix)
    return {
        "model": found.model,
        "n_fixes": sum(is_fix),
        "n_others": len(is_fix) - sum(is_fix),
        "n_overflow": found.n_overflow,
        "n_listed": found.sample.n_listed,
        "n_listed_passed_s0_2": found.sample.n_listed_passed,
        "n_passed_s0_2": found.sample.n_passed,
        "share_of_fixes": share,
        "share_in_history": found.prior,
        "roc_auc": evaluation.roc_auc(scores, is_fix),
        "roc_auc_interval": interval and (interval.low, interval.high),
        "roc_auc_interval_is": interval and f"95 %, {interval.method}",
        "average_precision": evaluation.average_precision(scores, is_fix),
        "average_precision_in_history": evaluation.average_precision(scores, is_fix, found.prior),
        "precision_at": {k: evaluation.precision_at(scores, is_fix, k) for k in FIRST if k <= len(is_fix)},
        "labels_now": {
            kind: {label: n[label] for label in LABELS}
            for kind, n in (("fixes", _labels(found, True)), ("others", _labels(found, False)))
        },
        "n_held_out": {"fixes": sum(row.is_fix for row in found.held_out), "rows": len(found.held_out)},
        "calibration_error_is": CALIBRATION_ERROR,
        "probabilities": [asdict(way) for way in found.probabilities],
        "thresholds": [
            {
                "recall": at.recall,
                "fallout": at.fallout,
                "precision": _precision(at, share),
                "precision_in_history": _precision(at, found.prior),
                "score": at.score,
                "p_fix_now": min(row.p_now for row in found.rows if row.is_decided and row.score >= at.score),
                "p_fix_after_fit": _after_fit(found, at.score),
            }
            for at in _thresholds(found)
        ],
        "calibration_now": None if found.now is None else _calibration(found.now),
        "fit": _calibration(found.fit),
        "notes": notes(found),
    }


def notes(found: Evaluated) -> list[str]:
    """What the figures do not say."""
    said = [
        "Other commits may hide fixes that the list does not name. They count as no fixes, so figures of ranking are "
        "rather too low.",
        f"{evaluation.share(found.is_fix):.1%} of the sample are fixes, which is not their share in the history: "
        "precision, Brier score and calibration error are of the sample. 'In the history' reckons with "
        f"{found.prior:.2%}, by recall and fallout, which do not depend on that share. Unless --prior gives it, it is "
        "that of the list among all rows that passed s0_2, without fixes that nobody listed.",
    ]
    if found.now is not None and found.now.method == "known":
        said.append("The calibration in force was fitted on known fixes. If these were among them, it flatters itself.")
    if found.n_overflow:
        said.append(f"{found.n_overflow:,} rows do not fit in the model's context and are left out.")
    interval = evaluation.auc_interval(found.scores, found.is_fix)
    if interval is not None and interval.high < 0.5:
        said.append("This model ranks worse than chance: the interval of the ROC AUC lies below 0.5.")
    elif interval is None or interval.low <= 0.5:
        said.append("That this model ranks better than chance is not shown: the interval of the ROC AUC holds 0.5.")
    return said


def _thresholds(found: Evaluated) -> list[evaluation.Threshold]:
    """What thresholds keep of all rows: of the undecided nothing.

    A recall that cannot be reached therefore is replaced by the highest that can; none can if all fixes are undecided.
    """
    fixes = [row for row in found.rows if row.is_fix]
    reachable = sum(row.is_decided for row in fixes) / len(fixes)
    if not reachable:
        return []
    scores = [row.score if row.is_decided else -math.inf for row in found.rows]
    return evaluation.thresholds(scores, found.is_fix, [min(recall, reachable) for recall in RECALLS])


def _labels(found: Evaluated, is_fix: bool) -> Counter[str]:
    return Counter(row.label for row in found.rows if row.is_fix == is_fix)


def _calibration(made: Calibration) -> dict[str, Any]:
    """As it is stored; JSON has no infinity, so a cutoff that takes all rows as undecided is None."""
    cutoff = made.undecided_cutoff if math.isfinite(made.undecided_cutoff) else None
    return {**asdict(made), "undecided_cutoff": cutoff}


def _precision(at: evaluation.Threshold, prior: float) -> float:
    taken = prior * at.recall + (1 - prior) * at.fallout
    return prior * at.recall / taken if taken > 0 else 0.0


def _after_fit(found: Evaluated, score: float) -> float | None:
    """p_fix of a score once the fit is stored; None for a fit that turns the ranking round."""
    if found.fit.scale <= 0:
        return None
    return float(evaluation.Logistic(found.fit.scale, -found.fit.scale * found.fit.offset).probabilities([score])[0])


# ---------------------------------------------------------------------------- tables


def tables(found: Evaluated) -> list[Table]:
    """For people."""
    data = as_data(found)
    share, prior = data["share_of_fixes"], data["share_in_history"]
    low_high = data["roc_auc_interval"]
    ranking: list[tuple[object, ...]] = [
        (
            "ROC AUC",
            _number(data["roc_auc"]),
            "0.500",
            "" if low_high is None else f"{low_high[0]:.3f} to {low_high[1]:.3f} ({data['roc_auc_interval_is']})",
        ),
        ("average precision", _number(data["average_precision"]), _number(share), ""),
        ("average precision in the history", _number(data["average_precision_in_history"]), _number(prior), ""),
        *((f"precision at {k}", _number(p), _number(share), "") for k, p in data["precision_at"].items()),
    ]
    n = data["n_held_out"]
    return [
        Table(
            f"{found.model}: {data['n_fixes']:,} known fixes, {data['n_others']:,} other commits that passed s0_2",
            ("ranking", "value", "by chance", "interval"),
            ranking,
        ),
        Table(
            f"Probabilities, on all rows and on the half that no fit has seen ({n['fixes']:,} fixes of {n['rows']:,})",
            ("p(fix)", "Brier", "ECE", "Brier, half", "ECE, half"),
            [
                (
                    _NAMES[way.name],
                    *map(
                        _number, (way.brier, way.calibration_error, way.brier_held_out, way.calibration_error_held_out)
                    ),
                )
                for way in found.probabilities
            ],
        ),
        Table(
            "What s0_3 says now",
            ("", *LABELS),
            [(kind, *(of[label] for label in LABELS)) for kind, of in data["labels_now"].items()],
        ),
        Table(
            "min_p_fix to choose (rows that are undecided now are not kept by any)",
            ("fixes kept", "others kept", "precision", "in the history", "min_p_fix now", "after --fit"),
            list(
                dict.fromkeys(
                    (
                        f"{at['recall']:.0%}",
                        f"{at['fallout']:.0%}",
                        f"{at['precision']:.1%}",
                        f"{at['precision_in_history']:.1%}",
                        _rounded_down(at["p_fix_now"]),
                        _rounded_down(at["p_fix_after_fit"]),
                    )
                    for at in data["thresholds"]
                )
            ),
        ),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _rounded_down(value: float | None) -> str:
    """Three significant digits at least, and never more than the value: the row at a threshold passes it."""
    if value is None or value <= 0:
        return "" if value is None else "0"
    digits = 3 - math.ceil(math.log10(value))
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"


# -------------------------------------------------------------------------- pictures


def write(found: Evaluated, out: Path) -> list[Path]:
    """ROC curve and reliability diagram as PNG, and the figures as JSON. Raises TrustmineError without matplotlib."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrustmineError(f"Cannot make the folder: {error.strerror}", str(out), "Choose another --out") from error
    paths = [out / name for name in ("roc.png", "reliability.png", "evaluation.json")]
    data = as_data(found)
    name, interval = samples.one_line(found.model), data["roc_auc_interval"]
    within = "" if interval is None else f", 95 % {interval[0]:.3f} to {interval[1]:.3f}"
    plots.roc(
        paths[0],
        name,
        evaluation.curve(found.scores, found.is_fix),
        f"ROC AUC {data['roc_auc']:.3f}{within}",
        (
            f"share of other commits taken (of {data['n_others']:,})",
            f"share of known fixes taken (of {data['n_fixes']:,})",
        ),
    )
    rows: Sequence[Row] = found.held_out or found.rows
    scores, is_fix = [row.score for row in rows], [row.is_fix for row in rows]
    ways = {
        _NAMES[way.name]: evaluation.bins(way.way.probabilities(scores), is_fix)
        for way in found.probabilities
        if way.name != "share"
    }
    plots.reliability(paths[1], f"{name}, {len(rows):,} rows that no fit has seen", ways)
    paths[2].write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return paths
