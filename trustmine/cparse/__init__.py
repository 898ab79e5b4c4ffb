"""Functions, statements, names and symbols of C and C++, as the parser sees them.

Works on bytes; lines count from 1. Any bytes are taken: what cannot be
parsed gives an empty or partial answer, never an exception, within a bounded
number of parser steps.
"""

from trustmine.cparse.functions import Function, Outline, function_at, functions, outline
from trustmine.cparse.lexis import code_lines, strip_comments_and_space, widen
from trustmine.cparse.names import Name, names
from trustmine.cparse.statements import neighbours, statement_ranges
from trustmine.cparse.symbols import Symbol, includes, symbols
from trustmine.lines import LineRange

__all__ = [
    "Function",
    "LineRange",
    "Name",
    "Outline",
    "Symbol",
    "code_lines",
    "function_at",
    "functions",
    "includes",
    "names",
    "neighbours",
    "outline",
    "statement_ranges",
    "strip_comments_and_space",
    "symbols",
    "widen",
]
