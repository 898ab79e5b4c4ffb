"""Sets of spans that are asked often."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable


class Spans:
    """Half-open spans, merged where they overlap, to be asked in logarithmic time."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(spans):
            if self._ends and start < self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def touch(self, start: int, end: int) -> bool:
        """Whether one of the spans overlaps with this one."""
        at = bisect_left(self._starts, end) - 1
        return at >= 0 and self._ends[at] > start

    def hold(self, start: int, end: int) -> bool:
        """Whether this span lies in one of them."""
        at = bisect_right(self._starts, start) - 1
        return at >= 0 and end <= self._ends[at]
