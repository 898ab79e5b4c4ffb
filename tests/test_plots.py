"""Pictures are made, and say what is missing where they cannot be."""

import importlib
from pathlib import Path

import pytest

from trustmine import plots
from trustmine.errors import TrustmineError

PNG = b"\x89PNG\r\n\x1a\n"


def test_pictures_are_png_and_the_same_again(tmp_path: Path) -> None:
    counts = {"CWE-787": {"train": 3, "test": 1}, "$x$": {"test": 2}}
    for name in ("a.png", "b.png"):
        plots.bars(tmp_path / name, "rows by CWE", counts, ("train", "val", "test"))
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    plots.risk_coverage(tmp_path / "c.png", [(0.5, 0.0), (1.0, 0.5)])
    assert (tmp_path / "c.png").read_bytes().startswith(PNG)


def test_without_matplotlib_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(TrustmineError, match="need the package matplotlib"):
        plots.risk_coverage(tmp_path / "c.png", [(1.0, 0.5)])
    monkeypatch.undo()
    with pytest.raises(TrustmineError, match="Cannot write the picture"):
        plots.risk_coverage(tmp_path / "none" / "c.png", [(1.0, 0.5)])
