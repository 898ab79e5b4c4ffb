import io
import json

import pytest
from rich.console import Console

from trustmine import console
from trustmine.db.queries import StageCounts

LARGE = {
    "s0_1": StageCounts(1_234_567, 1_000_000, 9_345_678, 0, {"no_keyword": 8_234_567, "merge": 4}),
    "s0_2": StageCounts(0, 500, 1_111_111, 7, {"too_many_tokens": 5_199_000, "mask_whole_function": 1_234_567}),
}
SHOWN = ("s0_1", "1,234,567", "1,000,000", "9,345,678", "8,234,571", "1,111,111", "6,433,567", "7,654,321")
REDO = "stale: made by other settings, prompts or models; redo: trustmine advance --stale"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\x00b\x07\r\n\tc", "a\\x00b\\x07\\x0d\n\tc"),
        ("if (admin\u202e } \u2066)", "if (admin\\u202e } \\u2066)"),
        ("\x9b2J", "\\x9b2J"),
        ("plain ü 漢", "plain ü 漢"),
    ],
)
def test_no_text_can_steer_the_terminal(text: str, shown: str) -> None:
    assert console.safe(text) == shown


def test_json_is_the_same_value_and_cannot_steer_the_terminal_either(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"\x9b2J": "\x1b[31m \x7f \u202e ü\n\t漢"}
    console.print_json(value)
    shown = capsys.readouterr().out
    assert json.loads(shown) == value
    assert "ü\\n\\t漢" in shown
    assert not {"\x9b", "\x1b", "\x7f", "\u202e"} & set(shown)


def test_markup_in_text_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.out.print(console.plain("[red]not red[/red] [link=javascript:x]y[/link]"))
    assert "[red]not red[/red] [link=javascript:x]y[/link]" in capsys.readouterr().out


def test_markup_in_the_title_of_a_table_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(("a",), [("b" * 40,)], title="[bold]model[/bold]")
    console.print_funnel({}, {}, (), {}, "[bold]repo[/bold]")
    shown = capsys.readouterr().out
    assert "[bold]model[/bold]" in shown
    assert "[bold]repo[/bold]" in shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, ""), (8.2, "8s"), (367, "6m 07s"), (14700, "4h 05m"), (183600, "2d 3h")]
)
def test_durations_read_well(seconds: float | None, shown: str) -> None:
    assert console.duration(seconds) == shown


def _terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> io.StringIO:
    screen = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=screen, force_terminal=True, width=width, color_system=None))
    return screen


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_the_funnel_is_whole_on_a_screen_of_any_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    screen = _terminal(monkeypatch, width)
    console.print_funnel(LARGE, {}, (), {"s0_1": 7_654_321}, "10,000,000 commits: curl (10,000,000)")
    shown = screen.getvalue()
    words = shown.replace(",\n", " ").split()
    assert [word for word in (*SHOWN, "pending", "claimed", "passed", "failed", "rejected") if word not in words] == []
    for stage in LARGE.values():
        for reason, n in stage.rejected.items():
            assert f"{n:,} {reason}" in " ".join(shown.replace(",\n", ", ").split())
    assert REDO in shown, "a command is one line"
    assert "…" not in shown
    if width >= 70:
        assert max(map(len, shown.replace(REDO, "").splitlines())) <= width


def test_the_funnel_in_a_pipe_is_as_wide_as_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    names = ", ".join(f"owner/project-{i} (100,000)" for i in range(100))
    console.print_funnel(LARGE, {}, (), {"s0_1": 7_654_321}, names)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert names in lines
    assert [line.split() for line in lines if line.startswith("s0_1")] == [
        ["s0_1", *["1,234,567", "1,000,000", "9,345,678", "·", "8,234,571", "7,654,321", "8,234,567", "no_keyword"]]
    ]
    assert "1,234,567 mask_whole_function" in lines
    assert REDO in lines


@pytest.mark.parametrize("width", [20, 40, 80])
def test_numbers_of_a_table_are_whole_and_texts_fold(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    screen = _terminal(monkeypatch, width)
    console.table(("what", "rows", "note"), [("x" * 30, 12_345_678_901, "word " * 30)], right=("rows",))
    shown = screen.getvalue()
    assert "12,345,678,901" in shown
    assert (shown.count("x"), shown.count("word")) == (30, 30)
