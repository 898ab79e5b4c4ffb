"""Asking for lines of the function before the fix: shared by s1_2 and s3_1."""

from collections.abc import Sequence

from trustmine import answers, cparse
from trustmine.lines import LineRange
from trustmine.records import Completion, FunctionPair
from trustmine.text import encode

# What a reason may take. English prose about code has 3.5 to 4.5 characters per token; another script, or a sentence of
# names alone, may come to more tokens than this and be cut off.
REASON_TOKENS = 100
REASON_CHARS = (20, 3 * REASON_TOKENS)
# Tokens that one range may take: "1000-1005, " is 11 where every digit is a token of its own.
TOKENS_PER_RANGE = 16


def allowed(function: FunctionPair, max_lines: int | None = None) -> tuple[LineRange, ...]:
    """What may be named: runs of whole statements that have their lines to themselves, of max_lines at most."""
    runs = cparse.statement_ranges(encode(function.pre_text, function.encoding), function.old_path)
    return tuple(lines for lines in runs if max_lines is None or len(lines) <= max_lines)


def grammar(choices: Sequence[LineRange], max_ranges: int) -> str:
    """The answer's form: `none`, or some of the choices."""
    return answers.line_ranges_grammar(_pairs(choices), max_ranges)


def reasoned_grammar(choices: Sequence[LineRange], max_ranges: int) -> str:
    """The same after a sentence and `Lines: `."""
    least, most = REASON_CHARS
    return answers.located_grammar(_pairs(choices), max_ranges, most, least)


def reasoned_tokens(max_ranges: int) -> int:
    """What such an answer may take."""
    return REASON_TOKENS + max_ranges * TOKENS_PER_RANGE


def named(completion: Completion, choices: Sequence[LineRange]) -> tuple[LineRange, ...]:
    """What was named; () for `none`.

    Raises Unparsable for an answer that was cut off, and for one of another form, as only an engine without grammars
    can give.
    """
    return _ranges(answers.parse_line_ranges(answers.finished(completion), _pairs(choices)))


def reasoned(completion: Completion, choices: Sequence[LineRange]) -> tuple[str, tuple[LineRange, ...]]:
    """The sentence, of REASON_CHARS at most, and what was named after it; raises as `named` does."""
    sentence, pairs = answers.parse_located(answers.finished(completion), _pairs(choices))
    return sentence[: REASON_CHARS[1]], _ranges(pairs)


def spelled(lines: Sequence[int]) -> str:
    """Ascending line numbers in the answer's form: `3-5, 9-9`."""
    runs: list[list[int]] = []
    for line in lines:
        if runs and line == runs[-1][1] + 1:
            runs[-1][1] = line
        else:
            runs.append([line, line])
    return ", ".join(f"{first}-{last}" for first, last in runs)


def n_fix_lines(function: FunctionPair, lines: LineRange) -> int:
    """How many of these lines the fix is about."""
    return sum(lines.first_line <= line <= lines.last_line for line in function.fix_lines)


def _ranges(pairs: Sequence[tuple[int, int]]) -> tuple[LineRange, ...]:
    return tuple(LineRange(first, last) for first, last in pairs)


def _pairs(choices: Sequence[LineRange]) -> list[tuple[int, int]]:
    return [(lines.first_line, lines.last_line) for lines in choices]
