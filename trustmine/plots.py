"""Pictures of data sets and scores, as PNG. The only user of matplotlib, which is an optional extra."""

import importlib
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trustmine.errors import TrustmineError
from trustmine.evaluation import Bin, Curve

_INCH = {"wide": (8, 4), "square": (5, 5)}
_DPI = 100
_WIDTH = 0.8  # of a standing bar
_MIN_PLACES = 5  # for standing bars: few of them are not drawn out
_MAX_CHARS = 80  # of names that stand in one line
_TITLE_CHARS = 50  # of a line above a square picture
_MAX_STANDING, _MAX_NAME = 20, 14  # bars, and characters of a name, that there is room for side by side


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
    """Stacked bars, with the sum of each: name on the axis -> part (split) -> number of rows; parts in this order.

    Lying ones with many or long names. Raises TrustmineError without matplotlib.
    """
    names = list(counts)
    # `$` would begin a formula: names are those of strangers.
    shown = [name.replace("$", r"\$") for name in names]
    is_lying = len(names) > _MAX_STANDING or any(len(name) > _MAX_NAME for name in names)
    figure = _figures().Figure(
        figsize=(8, 1.6 + 0.25 * len(names)) if is_lying else _INCH["wide"], dpi=_DPI, layout="constrained"
    )
    axes = figure.subplots()
    bottom = [0] * len(names)
    for part in (part for part in parts if any(part in by_part for by_part in counts.values())):
        heights = [counts[name].get(part, 0) for name in names]
        if is_lying:
            drawn = axes.barh(range(len(names)), heights, left=bottom, label=part)
        else:
            drawn = axes.bar(range(len(names)), heights, _WIDTH, bottom=bottom, label=part)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axes.bar_label(drawn, [f"{sum(by_part.values()):,}" for by_part in counts.values()], padding=2, fontsize="small")
    if is_lying:
        axes.set_yticks(range(len(names)), shown, fontsize="small")
        axes.invert_yaxis()
        axes.set(xlabel="rows", xmargin=0.1)
    else:
        is_tight = sum(len(name) + 2 for name in names) > _MAX_CHARS
        axes.set_xticks(range(len(names)), shown, **({"rotation": 60, "ha": "right"} if is_tight else {}))
        axes.set(ylabel="rows", ymargin=0.1, xlim=(-0.6, max(len(names), _MIN_PLACES) - 0.4))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title)
    figure.legend(loc="outside right upper", frameon=False)
    _save(figure, path)


def roc(path: Path, title: str, curve: Curve, label: str, axis_labels: tuple[str, str]) -> None:
    """The ROC curve, beside that of chance. Raises TrustmineError without matplotlib."""
    figure, axes = _figure("square")
    axes.plot([0, *curve.fallout], [0, *curve.recall], label=label)
    axes.plot([0, 1], [0, 1], ":", color="grey", label="chance")
    axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1], aspect="equal")
    axes.set_title(_folded(title), parse_math=False)  # a model's name is that of strangers
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
    upper.set_title(_folded(title), parse_math=False)
    lower.set(xlabel="p(fix)", ylabel="rows")
    lower.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", fontsize="small")
    _save(figure, path)


def _folded(title: str) -> str:
    """In as many lines as a narrow picture needs."""
    return textwrap.fill(title, _TITLE_CHARS)


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
