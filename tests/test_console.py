import json

import pytest

from trustmine import console


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
