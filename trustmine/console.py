"""How things look in a terminal: tables, progress, errors. Results go to stdout, talk to stderr.

Text from repositories is shown as text: never as markup, and with control
characters made visible, so that no commit can steer the terminal.
"""

import errno
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO, cast

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from trustmine.db.claims import Tally
from trustmine.db.queries import ModelRun, Rate, StageCounts
from trustmine.errors import TrustmineError

if TYPE_CHECKING:
    from trustmine.advisories import Labelled
    from trustmine.verify.base import Result

MAX_NAMED = 20  # files that were not read
MIN_TEXT_WIDTH = 12  # of a column of text, in columns of the screen, however narrow that is
GAP = 2  # between the columns of the funnel
BY_REASON = "by reason"
HINTS = {  # errors of the system -> what to do
    errno.ENOSPC: "Make room there",
    errno.EDQUOT: "Make room there, or ask for a larger quota",
    errno.EACCES: "Check the rights on it and on the folders above it",
    errno.EPERM: "Check the rights on it and on the folders above it",
    errno.EROFS: "Give a place that can be written",
    errno.ENAMETOOLONG: "Give a shorter name",
    errno.EMFILE: "Let it open more files: ulimit -n 4096",
}

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

# C0 and C1 controls but tab and newline, and the marks that reorder text (CVE-2021-42574).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Gone(Exception):
    """Whoever read stdout has enough, as head does. No OSError: typer and rich make exit code 1 of any broken pipe."""


class _Stream:
    """stdout or stderr whose trouble is not mistaken for that of another file or pipe."""

    def __init__(self, stream: TextIO, on_error: Callable[[OSError], None]) -> None:
        self._stream, self._on_error = stream, on_error
        self._error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._try(lambda: self._stream.write(text))

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, do: Callable[[], int | None]) -> int:
        try:
            if self._error is None:
                return do() or 0
        except OSError as error:
            self._error = error
            # What is still in the buffer would fail again when Python ends.
            with suppress(OSError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)
        if self._error is not None:
            self._on_error(self._error)  # each time: click tries a stream with writes of nothing, and forgets errors
        return 0


def _lose(error: OSError) -> None:
    """Trouble with stdout: results are lost, and there is nothing left to do."""
    if isinstance(error, BrokenPipeError):
        raise Gone from error
    raise in_parts(error, "Cannot write the results", "stdout") from error


def _go_on(error: OSError) -> None:
    """Trouble with stderr: talk is lost, the work goes on."""


@contextmanager
def streams() -> Iterator[None]:
    """Meanwhile both take any text, stdout raises Gone where its reader has gone, and stderr raises nothing.

    Where stdout cannot be written, as on a full disk, it raises TrustmineError.
    """
    before = sys.stdout, sys.stderr  # None where they are closed
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # PYTHONIOENCODING=ascii, and names that are not UTF-8
    if sys.stdout is not None:
        sys.stdout = cast(TextIO, _Stream(sys.stdout, _lose))
    if sys.stderr is not None:
        sys.stderr = cast(TextIO, _Stream(sys.stderr, _go_on))
    try:
        yield
    finally:
        with suppress(Gone, TrustmineError):  # a command that ended well has done so itself
            out.file.flush()
        sys.stdout, sys.stderr = before


def safe(text: str) -> str:
    """The text with control characters written out: \\x1b, \\u202e."""
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}" if ord(m[0]) < 0x100 else f"\\u{ord(m[0]):04x}", text)


def plain(text: str, style: str = "") -> Text:
    """Text of strangers for a terminal: no markup, no control characters."""
    return Text(safe(text), style=style)


def print_json(value: object) -> None:
    """JSON on stdout, indented, as it is (no colours, no wrapping); what could steer a terminal is escaped."""
    is_ascii = not out.encoding.startswith("utf")  # the stream's own escapes are not JSON's
    text = json.dumps(value, indent=2, ensure_ascii=is_ascii, default=str)
    out.file.write(_CONTROL.sub(lambda m: f"\\u{ord(m[0]):04x}", text) + "\n")


def say(text: str) -> None:
    """One line of talk."""
    err.print(plain(text), soft_wrap=True)


def print_error(error: TrustmineError) -> None:
    """What happened, where, what to do."""
    err.print(plain(error.what, "bold red"), soft_wrap=True)
    for line in (error.where, error.hint):
        if line:
            err.print(plain("  " + line.replace("\n", "\n  ")), soft_wrap=True)


def in_parts(error: OSError, what: str = "Cannot go on", where: str = "") -> TrustmineError:
    """What the system refused, as an error in three parts."""
    name = error.filename
    where = where or (os.fsdecode(name) if isinstance(name, str | bytes) else "")
    hint = HINTS.get(error.errno or 0, "Check that it is there and in order; nothing that was finished is lost")
    return TrustmineError(f"{what}: {error.strerror or error}", where, hint)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "", right: Sequence[str] = ()
) -> None:
    """A table on stdout; numbers are grouped by thousands."""
    shown = Table(
        title=plain(title, "table.title") if title else None,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
    )
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    for i, column in enumerate(columns):
        is_number = column in right
        widest = max(cell_len(line) for cell in (column, *(row[i] for row in cells)) for line in cell.split("\n"))
        shown.add_column(
            column,
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=is_number,
            min_width=widest if is_number else min(widest, MIN_TEXT_WIDTH),
        )
    for row in cells:
        shown.add_row(*(plain(cell) for cell in row))
    _print_whole(shown, sum(column.min_width or 0 for column in shown.columns) + 3 * len(columns) + 1)


def _print_whole(shown: Table, width: int) -> None:
    """A table that is never narrower than this, wherever it is shown: a number of which digits are cut is another."""
    if width > out.width:
        shown.width = width
    out.print(shown, crop=False)


def duration(seconds: float | None) -> str:
    """2d 3h, 4h 05m, 6m 07s, 8s; '' for None."""
    if seconds is None:
        return ""
    s = round(seconds)
    if s >= 86_400:
        return f"{s // 86_400}d {s % 86_400 // 3_600}h"
    if s >= 3_600:
        return f"{s // 3_600}h {s % 3_600 // 60:02}m"
    return f"{s // 60}m {s % 60:02}s" if s >= 60 else f"{s}s"


def print_funnel(
    counts: Mapping[str, StageCounts],
    rates: Mapping[str, Rate],
    models: Sequence[ModelRun],
    stale: Mapping[str, int],
    title: str,
) -> None:
    """The funnel: one row per stage, then what is running.

    Why rows were rejected stands beside them, or below the table where a terminal is too narrow for that.
    """
    is_stale = any(stale.values())
    header = ["stage", "pending", "claimed", "passed", "failed", "rejected", *(["stale"] if is_stale else [])]
    rows = []
    for stage, n in counts.items():
        numbers = [n.pending, n.claimed, n.passed, n.failed, sum(n.rejected.values())]
        rows.append([stage, *(_number(v) for v in (*numbers, *([stale.get(stage, 0)] if is_stale else [])))])
    reasons = [[f"{count:,} {reason}" for reason, count in n.rejected.items()] for n in counts.values()]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    widest = max((cell_len(safe(line)) for lines in reasons for line in lines), default=0)
    is_beside = not out.is_terminal or sum(widths) + GAP * len(widths) + max(widest, len(BY_REASON)) <= out.width
    shown = Table(
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, GAP - 1, 0, 0),  # the box has one as well
        show_edge=False,
        pad_edge=False,
    )
    for column, width in zip(header, widths, strict=True):
        shown.add_column(column, justify="left" if column == "stage" else "right", no_wrap=True, min_width=width)
    if is_beside:
        shown.add_column(BY_REASON, no_wrap=True, min_width=widest)
    for row, lines in zip(rows, reasons, strict=True):
        shown.add_row(*(plain(cell) for cell in (*row, *(["\n".join(lines)] if is_beside else []))))
    out.print(plain(title, "table.title"), soft_wrap=not out.is_terminal)
    _print_whole(shown, sum(column.min_width or 0 for column in shown.columns) + GAP * (len(shown.columns) - 1))
    out.print()
    for stage, lines in zip(counts, reasons, strict=True):
        if lines and not is_beside:
            out.print(plain(f"{stage} rejected: {', '.join(lines)}"))
    for stage, rate in rates.items():
        left = f", {duration(rate.left_s)} left" if rate.left_s is not None else ""
        workers = "1 worker" if rate.n_workers == 1 else f"{rate.n_workers} workers"
        out.print(plain(f"{stage} is running: {workers}, {rate.rows_per_s:,.2f} rows/s{left}"), soft_wrap=True)
    for run in models:
        out.print(plain(model_line(run)), soft_wrap=True)
    if is_stale:
        stale_line = "stale: made by other settings, prompts or models; redo: trustmine advance --stale"
        out.print(plain(stale_line), soft_wrap=True)  # a command is copied whole


def _number(n: int) -> str:
    return f"{n:,}" if n else "·" if out.encoding.startswith("utf") else "-"


def print_findings(results: "Sequence[Result]", is_repaired: bool) -> None:
    """What a verification found: each check with findings, its first rows, and what was not looked at."""
    for result in results:
        if result.n_found:
            out.print(plain(f"{result.check.name}: {result.n_found:,} found. {result.check.holds}", "bold red"))
            for example in result.examples:
                out.print(plain(f"  {example}"), soft_wrap=True)
            if result.n_found > len(result.examples):
                out.print(plain(f"  and {result.n_found - len(result.examples):,} more"))
            if result.check.hint and result.n_left:
                out.print(plain(f"  {result.check.hint}"), soft_wrap=True)
        for why, n in result.skipped.items():
            out.print(plain(f"{result.check.name}: {n:,} not looked at: {why}", "dim"), soft_wrap=True)
    n_found = sum(result.n_found for result in results)
    if not n_found:
        out.print(plain(f"{len(results)} checks, nothing found"))
    elif is_repaired:
        n_left = sum(result.n_left for result in results)
        out.print(plain(f"{n_found:,} found, {n_found - n_left:,} mended; do the rows again: trustmine run"))
    else:
        out.print(plain(f"{n_found:,} found; make a backup, then: trustmine verify --repair"))


# ------------------------------------------------------------------------- progress


class _Rate(ProgressColumn):
    """Rows per second since the start."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f}/s" if speed else "", style="cyan")


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left on stderr; call what it gives with the number done so far.

    Where stderr is no terminal nothing is drawn.
    """
    with Progress(*_columns(), console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(safe(label), total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def board() -> Iterator[Callable[[str, int, int | None], None]]:
    """Bars for several things that go on at once; call what it gives with a label, the number done and that in all.

    Where stderr is no terminal nothing is drawn.
    """
    with Progress(*_columns(), console=err, transient=True, disable=not err.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def draw(label: str, done: int, total: int | None) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(safe(label), total=total)
            bars.update(tasks[label], completed=done, total=total)

        yield draw


def tally_line(stage: str, tally: Tally, seconds: float | None) -> str:
    """One line: what a stage did, and in what time if that was its own."""
    parts = [f"{tally.advanced:,} passed", f"{tally.rejected:,} rejected"]
    if tally.failed:
        parts.append(f"{tally.failed:,} failures")
    if tally.lost:
        parts.append(f"{tally.lost:,} late results dropped")
    if seconds is None:
        return f"{stage}: {', '.join(parts)}"
    speed = f", {tally.total / seconds:,.1f} rows/s" if tally.total and seconds > 0 else ""
    return f"{stage}: {', '.join(parts)} in {duration(seconds)}{speed}"


def model_line(run: ModelRun) -> str:
    """One line: what a model does or did, and for how much of the time."""
    return (
        f"{run.model} {'has given' if run.is_running else 'gave'} {run.n_calls:,} answers in {duration(run.seconds)}, "
        f"{run.calls_per_hour:,.0f} an hour: {run.tokens_per_s:,.0f} tokens/s, "
        f"{run.n_cached / max(run.n_prompt, 1):.0%} of prompts from its cache, "
        f"at work {run.busy_s / max(run.seconds, 1e-3):.0%} of the time"
    )


def print_advised(done: "Labelled", as_json: bool) -> None:
    """What advisories said: labels by quality, and what became of the records."""
    if as_json:
        print_json(asdict(done))
        return
    table(("quality", "labels"), list(done.by_quality.items()), right=("labels",))
    say(
        f"{done.n_records:,} records ({done.n_withdrawn:,} withdrawn): {done.n_labels:,} labels on {done.n_commits:,} "
        f"commits; {done.n_unknown:,} fixes are not in the database, {done.n_releases:,} commits stand for a release; "
        f"{done.n_sent_back:,} rows are pending again because of them"
    )
    for one in done.malformed[:MAX_NAMED]:
        say(f"Not read: {one.path}: {one.why}")
    if len(done.malformed) > MAX_NAMED:
        say(f"Not read: {len(done.malformed) - MAX_NAMED:,} more; --json names them all")


def jsonable(value: Any) -> Any:
    """Rows of the database for JSON: bytes become their size."""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return {k: jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    return value
