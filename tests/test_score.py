"""Scores of answers whose worth is known."""

import json
from pathlib import Path
from typing import Any

import pytest

from trustmine import score
from trustmine.errors import TrustmineError

MASKED = "int f(char *p, int n)\n{\n  int m = n;\n  <MASK_1>\n  return m;\n}\n"
FIXED = "  if(n > 8)\n    return -1;\n  copy(p, n);\n"
VULNERABLE = "  copy(p, n);\n"


def _gap(id: str, cwe: list[str]) -> dict[str, Any]:
    row = {"id": id, "path": "a.c", "masked_function": MASKED, "vulnerable": VULNERABLE, "fixed": FIXED}
    return {**row, "cwe": cwe}


def _write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def _scored(folder: Path, answers: list[Any]) -> score.Result:
    gaps = [_gap(str(n), ["CWE-787"] if n < 4 else ["CWE-20"] if n < 5 else []) for n in range(6)]
    return score.score(_write(folder / "bench.jsonl", gaps), _write(folder / "answers.jsonl", answers))


def test_answers_count_as_right_declined_or_missing(tmp_path: Path) -> None:
    result = _scored(
        tmp_path,
        [
            {"id": "0", "answer": FIXED},
            {"id": "1", "answer": "Here it is:\n\n```c\nif ( n>8 ) return -1; /* too long */\ncopy(p,n);\n```\nDone."},
            {"id": "2", "answer": VULNERABLE},
            {"id": "3", "answer": "  if(n > 8) {\n"},
            {"id": "4", "abstain": True},
        ],
    )
    by_id = {one.id: one for one in result.judged}
    assert [(one.is_exact, one.is_right, one.parses) for one in by_id.values()] == [
        (True, True, True),
        (False, True, True),
        (False, False, True),
        (False, False, False),
    ]
    assert (by_id["2"].to_vulnerable, by_id["0"].to_fixed) == (1.0, 1.0)
    assert by_id["2"].to_fixed == pytest.approx(7 / 17)  # copy ( p , n ) ; of these and if ( n > 8 ) return - 1 ;
    total = result.total
    assert (total.n, total.answered, total.abstained, total.missing) == (6, 4, 1, 1)
    assert (total.coverage, total.right, total.risk, total.exact) == pytest.approx((4 / 6, 0.5, 0.5, 0.25))
    assert (total.parses, total.aurc) == (0.75, None)
    assert total.right_of_all == pytest.approx(2 / 6)
    assert list(result.by_cwe) == ["CWE-20", "CWE-787", "unknown"]
    assert (result.by_cwe["CWE-20"].abstained, result.by_cwe["unknown"].missing) == (1, 1)
    assert result.by_cwe["CWE-20"].risk is None


def test_aurc_takes_the_surest_answers_first(tmp_path: Path) -> None:
    def answers(*sure: float) -> list[Any]:
        texts = (FIXED, FIXED, VULNERABLE, VULNERABLE)
        return [
            {"id": str(n), "answer": text, "confidence": c} for n, (text, c) in enumerate(zip(texts, sure, strict=True))
        ]

    good = _scored(tmp_path, answers(0.9, 0.8, 0.7, 0.6))
    assert good.curve == ((0.25, 0), (0.5, 0), (0.75, 1 / 3), (1, 0.5))
    assert good.total.aurc == pytest.approx((1 / 3 + 1 / 2) / 4)
    bad = _scored(tmp_path, answers(0.1, 0.2, 0.8, 0.9)).total.aurc
    same = _scored(tmp_path, answers(1, 1, 1, 1)).total.aurc
    assert good.total.aurc is not None and bad is not None and good.total.aurc < 0.5 < bad
    assert same == pytest.approx(0.5), "answers of the same confidence are one step, whatever their order"
    partly = _scored(tmp_path, [*answers(0.9, 0.8, 0.7, 0.6)[:3], {"id": "3", "answer": "x"}])
    assert partly.curve == () and partly.total.aurc is None


def test_a_function_that_never_parsed_does_not_count_against_an_answer(tmp_path: Path) -> None:
    gap = {**_gap("0", []), "fixed": "  MACRO_THAT_OPENS {\n"}
    bench = _write(tmp_path / "b.jsonl", [gap])
    (judged,) = score.score(bench, _write(tmp_path / "a.jsonl", [{"id": "0", "answer": "x();"}])).judged
    assert judged.parses is None


def test_what_is_deleted_is_filled_by_nothing(tmp_path: Path) -> None:
    bench = _write(tmp_path / "b.jsonl", [{**_gap("0", []), "fixed": ""}])
    (judged,) = score.score(bench, _write(tmp_path / "a.jsonl", [{"id": "0", "answer": "```c\n```"}])).judged
    assert (judged.is_exact, judged.is_right, judged.parses, judged.to_fixed) == (True, True, True, 1.0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{\n", "no JSON"),
        ("[]\n", "must be an object"),
        ('{"id": "\\ud800", "answer": "x"}\n', "no JSON"),
        ({"answer": "x"}, "needs an id"),
        ({"id": "77", "answer": "x"}, "no '77'"),
        ({"id": "0", "answer": "y"}, "answered before"),
        ({"id": "1"}, "must be text"),
        ({"id": "1", "answer": 5}, "must be text"),
        ({"id": "1", "answer": "x", "abstain": "no"}, "true or false"),
        ({"id": "1", "answer": "x", "confidence": 90}, "from 0 to 1"),
        ({"id": "1", "answer": "x", "confidence": True}, "from 0 to 1"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: Any, said: str) -> None:
    with pytest.raises(TrustmineError, match=said) as raised:
        _scored(tmp_path, [{"id": "0", "answer": "x"}, "\n", line])
    assert raised.value.where.endswith("answers.jsonl:3")


@pytest.mark.parametrize(
    ("row", "said"),
    [({"id": "0"}, "no benchmark"), ({**_gap("0", []), "masked_function": "int x;"}, "one <MASK_1>"), ("", "empty")],
)
def test_a_file_that_is_no_benchmark_is_refused(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(TrustmineError, match=said):
        score.score(_write(tmp_path / "b.jsonl", [row]), _write(tmp_path / "a.jsonl", []))
