"""Rewrites that let the grammar read C which it has no rule for.

Each keeps every byte in its place: length, lines and the words of names stay,
so that positions in the tree are positions in the source. What else the
rewritten text says is of no use to anyone but the parser.
"""

import re

# A macro alone on its line that takes no semicolon, between two statements.
_MACRO_LINE = re.compile(rb"([;{}]\s*\n[ \t]+[A-Z_][A-Z0-9_]+)[A-Z0-9_](?=[ \t\r]*\n\s*[A-Za-z_])")
# `class SOME_EXPORT Name {`: a macro where the grammar expects the name. Two words before `{`, or before the
# colon of base classes, can be nothing else; `enum e bits : 3;` has a colon too.
_MACRO_IN_TYPE = re.compile(
    rb"\b(?P<key>(?:class|struct|union)\s++|enum\s++(?:(?:class|struct)\s++)?)"
    rb"(?P<macro>(?!(?:class|struct)\b)[A-Za-z_]\w*+(?:\s*+\([^(){};]*+\))?)(?=\s++(?!final\b)[A-Za-z_]\w*+(?:::\w++)*+"
    rb"\s*+(?:final\s*+)?(?:\{|:(?!:)[^;{}=]*+\{))"
)
# `SOME_ID("...")` or `BEGIN_NAMESPACE` alone at the left margin, without a semicolon, and then something that it is
# no part of: a gap, or a word that begins a declaration of another kind than a function's.
_MACRO_CALL = re.compile(
    rb"^[A-Z_][A-Z0-9_]{3,}+(?:[ \t]*\([^(){};\n]*\))?"
    rb"(?=[ \t\r]*\n(?:[ \t\r]*\n|(?:namespace|class|typedef|using|template|extern)\b))",
    re.MULTILINE,
)
# `f(int a) const SOME_ATTRIBUTE(x) {`, which the grammar of C has a rule for and that of C++ has not.
_MACRO_BEFORE_BODY = re.compile(
    rb"(?P<end>\)\s*+(?:(?:const|volatile|noexcept|override|final)\b\s*+)*+)"
    rb"(?P<macro>[A-Z_][A-Z0-9_]{2,}+(?:\s*+\([^(){};]*+\))?)"
    rb"(?=\s*+(?:(?:const|noexcept|override|final)\b\s*+)*+(?:\{|:(?!:)))"
)
# f(a, b) and then a word: the beginning of a definition in the style before C89, or a macro.
_NAMES_ALONE = re.compile(
    rb"\b[A-Za-z_]\w*\s*+\((\s*+[A-Za-z_]\w*+\s*+(?:,\s*+[A-Za-z_]\w*+\s*+)*+)\)\s*+(?=[A-Za-z_])"
)
_NO_DECLARATION = re.compile(rb"[{}=]")
_MAX_DECLARED = 2_000  # bytes between such a list and the brace; 60 lines, twice what any compiler's limit needs
_MAX_GAP = 200  # bytes of stars and white space between a type and a name
_WORD = re.compile(rb"[A-Za-z_]\w*")
_MACRO_AFTER = re.compile(rb"(\w+)((?:\s*\[\w*\])*\s+)([A-Z_][A-Z0-9_]+)(?=\s*[,;\[])")


def blank(piece: bytes) -> bytes:
    """Spaces of the same length on the same lines."""
    return b"\n".join([b" " * len(line) for line in piece.split(b"\n")])


def repaired(text: bytes, cpp: bool) -> bytes:
    """The text of one configuration as the grammar can read it; of the same length."""
    text = _MACRO_LINE.sub(rb"\1;", text)
    text = _MACRO_CALL.sub(lambda match: blank(match[0]), text)
    text = _MACRO_IN_TYPE.sub(lambda match: match["key"] + blank(match["macro"]), text)
    if cpp:
        return _MACRO_BEFORE_BODY.sub(lambda match: match["end"] + blank(match["macro"]), text)
    return _old_style(text)


def _old_style(text: bytes) -> bytes:
    """Definitions in the style before C89 without what the grammar's rule for them lacks.

    That is: pointers returned, and macros after a parameter (`int c UNUSED;`).
    """
    out = bytearray(text)
    for match in _NAMES_ALONE.finditer(text):
        brace = _NO_DECLARATION.search(text, match.end(), match.end() + _MAX_DECLARED)
        if brace is None or brace[0] != b"{":
            continue
        names = set(_WORD.findall(match[1]))
        *declarations, rest = text[match.end() : brace.start()].split(b";")
        if rest.strip() or not declarations or not all(_declares(one, names) for one in declarations):
            continue
        before = text[max(0, match.start() - _MAX_GAP) : match.start()]
        gap = before[len(before.rstrip(b" \t\r\n*")) :]
        out[match.start() - len(gap) : match.start()] = gap.replace(b"*", b" ")
        for found in _MACRO_AFTER.finditer(text, match.end(), brace.start()):
            if found[1] in names and found[3] not in names:
                out[found.start(3) : found.end(3)] = b" " * len(found[3])
    return bytes(out)


def _declares(text: bytes, names: set[bytes]) -> bool:
    """Whether this says of which type some of the names are."""
    words = _WORD.findall(text)
    return len(words) > 1 and words[0] not in names and not names.isdisjoint(words[1:])
