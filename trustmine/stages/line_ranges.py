"""Asking for lines of the function before the fix: shared by s1_2 and s3_1."""

from trustmine import answers, cparse
from trustmine.records import Completion, FunctionPair

# Tokens that one range may take: "1000-1005, " is 11 where every digit is a token of its own.
TOKENS_PER_RANGE = 16

Ranges = tuple[tuple[int, int], ...]  # first and last line, from 1, inclusive


def allowed(function: FunctionPair) -> Ranges:
    """What may be named: runs of whole statements that have their lines to themselves."""
    code = function.pre_text.encode(function.encoding)
    return tuple((r.first_line, r.last_line) for r in cparse.statement_ranges(code, function.old_path))


def named(completion: Completion, choices: Ranges) -> Ranges:
    """What was named. An answer that is no line ranges, as only an engine without grammars can give, names nothing."""
    try:
        return answers.parse_line_ranges(answers.finished(completion), choices)
    except answers.Unparsable:
        return ()


def n_fix_lines(function: FunctionPair, first_line: int, last_line: int) -> int:
    """How many of these lines the fix deleted."""
    return sum(first_line <= line <= last_line for line in function.deleted_lines)
