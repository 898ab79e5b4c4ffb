"""Pictures of data sets and scores, as PNG. The only user of matplotlib, which is an optional extra."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trustmine.errors import TrustmineError
from trustmine.evaluation import Bin, Curve

_INCH = {"wide": (8, 4), "square": (5, 5)}
_DPI = 100


def require() -> None:
    """Raise TrustmineError unless pictures can be made."""
    _figures()


def risk_coverage(path: Path, points: Sequence[tuple[float, float]]) -> None:
    """Risk over coverage, as a step per group of answers. Raises TrustmineError without matplotlib."""
    figure, axes = _figure("square")
    axes.step([0.0, *(coverage for coverage, _ in points)], [points[0][1], *(risk for _, risk in points)], where="pre")
    axes.set(xlabel="coverage: share of the answers, surest first", ylabel="risk: share of wrong ones", xlim=(0, 1))
    axes.set_ylim(0, 1.02)
    _save(figure, path)


def bars(path: Path, title: str, counts: Mapping[str, Mapping[str, int]], parts: Sequence[str]) -> None:
    """Stacked bars: name on the axis -> part (split) -> number; parts from below in this order.

    Raises TrustmineError without matplotlib.
    """
    figure, axes = _figure("wide")
    names = list(counts)
    bottom = [0] * len(names)
    for part in (part for part in parts if any(part in by_part for by_part in counts.values())):
        heights = [counts[name].get(part, 0) for name in names]
        axes.bar(range(len(names)), heights, bottom=bottom, label=part)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    # `$` would begin a formula: names are those of strangers.
    axes.set_xticks(range(len(names)), [name.replace("$", r"\$") for name in names], rotation=60, ha="right")
    axes.set_title(title)
    axes.legend()
    _save(figure, path)


def roc(path: Path, title: str, curve: Curve, label: str, axis_labels: tuple[str, str]) -> None:
    """The ROC curve, beside that of chance. Raises TrustmineError without matplotlib."""
    figure, axes = _figure("square")
    axes.plot([0, *curve.fallout], [0, *curve.recall], label=label)
    axes.plot([0, 1], [0, 1], ":", color="grey", label="chance")
    axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1], aspect="equal")
    axes.set_title(title, parse_math=False)  # a model's name is that of strangers
    axes.legend(loc="lower right")
    _save(figure, path)


def reliability(path: Path, title: str, ways: Mapping[str, Sequence[Bin]]) -> None:
    """Reliability diagram: per way to get probabilities, share of fixes over probability, and rows per bin below.

    Raises TrustmineError without matplotlib.
    """
    figure = _figures().Figure(figsize=(6, 8), dpi=_DPI, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], ":", color="grey", label="as it should be")
    for name, bins in ways.items():
        x = [one.probability for one in bins]
        upper.plot(x, [one.share for one in bins], "o-", label=name)
        lower.plot(x, [one.n for one in bins], "o-")
    upper.set(ylabel="share of known fixes")
    upper.set_title(title, parse_math=False)
    lower.set(xlabel="p(fix)", ylabel="rows")
    lower.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", fontsize="small")
    _save(figure, path)


def _figures() -> Any:
    try:
        return importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise TrustmineError(
            "Pictures need the package matplotlib", str(error), "Try: pip install 'trustmine[plots]'"
        ) from error


def _figure(shape: str) -> tuple[Any, Any]:
    figure = _figures().Figure(figsize=_INCH[shape], dpi=_DPI, layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, format="png", metadata={"Software": None})
    except OSError as error:
        raise TrustmineError(f"Cannot write the picture: {error.strerror}", str(path)) from error
