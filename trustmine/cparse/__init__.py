"""Functions, statements, names and symbols of C and C++, as the parser sees them.

Works on bytes; lines count from 1. Any bytes are taken: what cannot be
parsed gives an empty or partial answer, never an exception, within a bounded
number of parser steps.
"""

from trustmine.cparse.functions import Function, Outline, function_at, functions, outline
from trustmine.cparse.lexis import strip_comments_and_space
from trustmine.lines import LineRange

__all__ = [
    "Function",
    "LineRange",
    "Outline",
    "function_at",
    "functions",
    "outline",
    "strip_comments_and_space",
]
