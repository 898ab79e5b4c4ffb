"""How long work tells what it is at: a phase in words, how much of it is done, and of how much, if that is known."""

from collections.abc import Callable

Progress = Callable[[str, int, int | None], object]


def quiet(what: str, done: int, total: int | None) -> None:
    """Tells nobody."""
