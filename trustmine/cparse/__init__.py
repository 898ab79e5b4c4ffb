"""Functions, statements, names and symbols of C and C++, as the parser sees them.

Works on bytes; lines count from 1. Any bytes are taken: what cannot be
parsed gives an empty or partial answer, never an exception, within a bounded
number of parser steps.
"""

from trustmine.cparse.functions import Function, Outline, function_at, functions, name_in, outline
from trustmine.cparse.lexis import code_lines, strip_comments_and_space, widen
from trustmine.cparse.names import Name, names
from trustmine.cparse.neutral import Local, rename, renameable, swappable
from trustmine.cparse.signature import Signature, comment_above, signature
from trustmine.cparse.statements import neighbours, statement_ranges
from trustmine.cparse.symbols import PARSER, FileSymbols, Symbol, file_symbols, grammar, includes, symbols
from trustmine.lines import LineRange

__all__ = [
    "PARSER",
    "FileSymbols",
    "Function",
    "LineRange",
    "Local",
    "Name",
    "Outline",
    "Signature",
    "Symbol",
    "code_lines",
    "comment_above",
    "file_symbols",
    "function_at",
    "functions",
    "grammar",
    "includes",
    "name_in",
    "names",
    "neighbours",
    "outline",
    "rename",
    "renameable",
    "signature",
    "statement_ranges",
    "strip_comments_and_space",
    "swappable",
    "symbols",
    "widen",
]
