"""What of a file lies outside of its functions' bodies, in words that a grammar of C can read.

Macros that stand before, in or after a declaration keep a grammar without a
preprocessor from seeing it. Here they become spaces, or a word of C in their
place, so that no line moves. Which words are macros is told by their shape
alone: capitals in a place where no type or name can stand.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice

from trustmine.cparse.lexis import Lexis
from trustmine.cparse.repair import blank

_BRACE = re.compile(rb"[{};]")
_ATTRIBUTE = re.compile(
    rb"\b(?:__attribute__|__declspec|alignas|_Alignas)\s*\((?:[^()]|\((?:[^()]|\([^()]*\))*+\))*+\)|\[\[[^][]*+\]\]"
)
# name(...), perhaps with words like const or noexcept or a macro after it.
_PARAMETERS = re.compile(rb"[\w>~]\s*\(")
_AFTER_PARAMETERS = re.compile(rb"\)[\w\s]*\Z")
# f(a, b) before declarations of a and b, in the style of K&R.
_OLD_STYLE = re.compile(rb"\w\s*\(\s*[A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)*+\s*\)(?=\s*[A-Za-z_])")
_TYPE_WORD = re.compile(rb"\b(?:struct|union|enum|class|namespace)\b")
# The type that a function returns: two names at least before the parameters.
_TYPED_HEAD = re.compile(rb"(?:struct|union|enum|class)\s++\w++[\s*&]++[\w\s*&:~]*\w\s*\(")

_AGGREGATE = re.compile(rb"\b(struct|union|enum|class)\b|[()=]")

_CAPS = rb"\b[A-Z_][A-Z0-9_]+\b"
_CALL = rb"\((?:[^();{}]|\((?:[^();{}]|\([^();{}]*+\))*+\))*+\)"
_KEYWORD = (
    rb"(?:const|volatile|struct|union|enum|class|static|extern|inline|typedef|unsigned|signed|void|int|char|long|short"
    rb"|float|double|bool|_Bool)\b"
)
# A macro before a whole declaration: `CURL_EXTERN const struct x *f(void);`, `EXTERN buf_T *curbuf;`,
# `GF_ISOM_BOX` on a line of its own in a struct, `DEPRECATED(1.2) int f(void);`.
_BEFORE = re.compile(
    rb"(?:\A|(?<=[;{}]))\s*(?P<macro>" + _CAPS + rb"(?:\s*" + _CALL + rb")?)(?=\s+(?:" + _KEYWORD
    + rb"|(?!" + _KEYWORD + rb")\w+(?:\s+|\s*\*[\s*]*)[A-Za-z_]\w*\s*[(;=,\[]|\w+\s*\(\s*\*))"
)  # fmt: skip
# `class LIB_API K : public B {`
_IN_HEAD = re.compile(
    rb"\b(?:struct|union|enum|class)\s+(?P<macro>" + _CAPS + rb")(?=\s+[A-Za-z_][\w:<>]*\s*(?:[:{]|final\b))"
)
# Some that need no semicolon, each on a line of its own: `DEFINE_TYPE(a, b)`.
_ALONE = re.compile(
    rb"(?:\A|(?<=[;{}]))\s*(?P<macro>(?:^" + _CAPS + rb"[ \t]*" + _CALL + rb"[ \t\r]*\n\s*)++)(?=[A-Za-z_])",
    re.MULTILINE,
)
# `static __exception int f(void);`
_BETWEEN = re.compile(
    rb"\b(?:static|extern|inline)\s+(?P<macro>(?!" + _KEYWORD + rb")\w+)"
    rb"(?=\s+(?:struct|union|enum|unsigned|signed|void|int|char|long|short|float|double|bool)\b)"
)
# `f(int *p UNUSED)`, `int n UNUSED;`
_UNUSED = re.compile(rb"\w[\s*]+\w+\s+(?P<macro>" + _CAPS + rb")(?=\s*[,)])")
_UNUSED_OLD = re.compile(
    rb"\b(?:int|char|long|short|float|double)\b[\s*]+(?!" + _KEYWORD + rb")\w+\s+(?P<macro>" + _CAPS + rb")(?=\s*;)"
)
# Those on lines of their own in a struct, before a member or as the last thing.
_IN_STRUCT = re.compile(
    rb"(?<=[;{}])\s*(?P<macro>(?:" + _CAPS + rb"(?:[ \t]*" + _CALL + rb")?[ \t\r]*\n\s*)+)(?=\}|\w+[\s*]+[\w(])"
)
# After the type: `int ZEXPORT f(void);`, `(APIENTRY *f)(void)`.
_CALLING = re.compile(
    rb"(?P<word>\b\w+)[\s*]+(?P<macro>" + _CAPS + rb"(?:\s*" + _CALL + rb")?)"
    rb"\s+\**[A-Za-z_]\w*\s*\([^;{}=]{0,2000}\)\s*(?=[;{])"
)  # fmt: skip
_POINTED = re.compile(rb"\(\s*(?P<macro>" + _CAPS + rb")\s*\*\s*\w+\s*\)\s*\(")
# After the declarator: `f(void) PRINTF(1, 2);`, `e[] INIT(= "x");`, `int n INIT(= 0);`.
_AFTER = re.compile(
    rb"(?:(?<=[])])\s*(?P<macro>" + _CAPS + rb"(?:\s*" + _CALL + rb")?)"
    rb"|(?<=\w)\s+(?P<init>" + _CAPS + rb"\s*\((?=\s*[={\"]|[^()[]*\b(?:[0-9]|NULL\b))(?:[^();]|" + _CALL + rb")*+\)))"
    rb"(?=\s*;|\s+" + _CAPS + rb")"
)  # fmt: skip
# `int f OF((int a));`
_PROTOTYPE = re.compile(rb"(?<=[\w)])\s+(?P<macro>" + _CAPS + rb"\s*\()\([^;{}]{0,2000}\)\s*(?P<close>\))(?=\s*;)")
# `BIT(name);` in a struct.
_MEMBER = re.compile(
    rb"(?<=[;{}])\s*(?P<macro>[A-Z][A-Z0-9_]{2,})\s*(?P<open>\()\s*[A-Za-z_]\w*\s*(?P<close>\))(?=\s*;)"
)
# `NAME DEPRECATED(1.2) = 3,` in an enum.
_MARKED = re.compile(rb"(?<=\w)\s+(?P<macro>" + _CAPS + rb"(?:\s*" + _CALL + rb")?)(?=\s*[=,}])")
_ELEMENT = re.compile(rb"(?:\A|(?<=[{,]))\s*([A-Za-z_]\w*)\s*(" + _CALL + rb")")
_ARGUMENT = re.compile(rb"(?:[^(),]|" + _CALL + rb")++")
_WORD = re.compile(rb"[A-Za-z_]\w*")
_FUNCTION_MACRO = re.compile(rb"\s*(?:#|%:)\s*define\s+(\w+)\(([^()]*)\)(?:\s|\\\n)*(\w+)(?!\s*##|\w)")
_STRUCTS = (b"struct", b"union")
# Words that stand before a type, so that capitals after one of them may be the type.
_QUALIFIERS = frozenset(
    b"static extern inline const volatile register typedef struct union enum class return else".split()
)


def declarations(lexis: Lexis, cpp: bool) -> bytes:
    """The source without bodies and without what hides declarations. Each line is where it was."""
    slim = Lexis(without_bodies(lexis), cpp)
    return _plain(slim, _parameters(lexis), cpp)


def _plain(lexis: Lexis, parameters: dict[bytes, int], cpp: bool) -> bytes:
    out = bytearray(lexis.skeleton)
    shown = bytearray(out)  # directives as spaces: no rule sees them
    for directive in lexis.directives:
        shown[directive.start : directive.end] = blank(bytes(out[directive.start : directive.end]))

    def put(start: int, end: int, text: bytes = b"") -> None:
        for at in (out, shown):
            at[start:end] = text + blank(bytes(at[start + len(text) : end]))

    for match in _ATTRIBUTE.finditer(bytes(shown)):
        put(*match.span())
    for match in _IN_HEAD.finditer(bytes(shown)):
        put(*match.span("macro"))
    aggregates = list(_aggregates(bytes(shown)))
    for start, end, word in aggregates:
        body = bytes(shown[start:end])
        if word == b"enum":
            for match in _MARKED.finditer(body + b"}"):
                put(start + match.start("macro"), start + match.end("macro"))
            body = bytes(shown[start:end])
            for element in _ELEMENT.finditer(body):
                first, last = _name_in(element, parameters)
                name = body[first:last] or b"_"
                put(start + element.start(1), start + element.end(2))
                put(start + first, start + first + len(name), name)
        elif word in _STRUCTS:
            for match in _IN_STRUCT.finditer(b";" + body + b"}"):
                put(start + match.start("macro") - 1, start + match.end("macro") - 1)
            body = bytes(shown[start:end])
            if not cpp:
                for match in _MEMBER.finditer(b";" + body):
                    put(start + match.start("macro") - 1, start + match.end("open") - 1, b"int")
                    put(start + match.start("close") - 1, start + match.end("close") - 1)
    for rule in (_ALONE, _BETWEEN, _UNUSED, _UNUSED_OLD, _POINTED):
        for match in rule.finditer(bytes(shown)):
            put(*match.span("macro"))
    for match in _PROTOTYPE.finditer(bytes(shown)):
        put(*match.span("macro"))
        put(*match.span("close"))
    for match in _AFTER.finditer(bytes(shown)):
        put(*match.span("init" if match["macro"] is None else "macro"))
    for match in _BEFORE.finditer(bytes(shown)):
        start, end = match.span("macro")
        # A storage class keeps the first line of the declaration where it was.
        word = b"static" if end - start >= 6 else b"const" if end - start == 5 else b""
        put(start, end, word)
    for match in _CALLING.finditer(bytes(shown)):
        if match["word"] not in _QUALIFIERS:
            put(*match.span("macro"))
    return bytes(out)


def _aggregates(text: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(start, end, word) of what stands in the braces of structs, unions and enums.

    Of structs in structs only the outermost, of enums only those that hold no braces, as C's do: together they have at
    most twice the bytes of the text.
    """
    stack: list[tuple[int, bytes]] = []
    begin = n_structs = last_start = 0
    for match in _BRACE.finditer(text):
        at = match.start()
        if match[0] == b"{":
            word = b""
            for token in _AGGREGATE.finditer(text, begin, at):
                word = token[1] or b""  # the last one counts, unless a parenthesis or initial value follows
            n_structs += word in _STRUCTS
            last_start = at + 1
            stack.append((last_start, word))
        elif match[0] == b"}" and stack:
            start, word = stack.pop()
            n_structs -= word in _STRUCTS
            if (word == b"enum" and start == last_start) or (word in _STRUCTS and n_structs == 0):
                yield start, at, word
        begin = at + 1


def _parameters(lexis: Lexis) -> dict[bytes, int]:
    """Macros whose text begins with one of their parameters, and which: `#define OPT(name, number) name = number`."""
    found: dict[bytes, int] = {}
    for directive in lexis.directives:
        if directive.word == b"define":
            match = _FUNCTION_MACRO.match(lexis.skeleton, directive.start, directive.end)
            if match is not None:
                names = [name.strip() for name in match[2].split(b",")]
                if match[3] in names:
                    found[match[1]] = names.index(match[3])
    return found


def _name_in(element: re.Match[bytes], parameters: dict[bytes, int]) -> tuple[int, int]:
    """Where the enumerator is that a macro makes, in the bytes of the enum; empty where nothing proves it."""
    arguments = _ARGUMENT.finditer(element.string, element.start(2) + 1, element.end(2) - 1)
    argument = next(islice(arguments, parameters.get(element[1], 99), None), None)
    name = None if argument is None else _WORD.search(element.string, argument.start(), argument.end())
    return (element.start(1), element.start(1)) if name is None else name.span()


def without_bodies(lexis: Lexis) -> bytes:
    """The source with nothing but newlines in bodies of functions and lists of initial values.

    Nothing there is a symbol, yet it is most of a file: to the parser, to the walk over the tree, and in the number
    of configurations that its #ifs make. It also keeps what is odd there from hiding what follows. The whole source
    where braces do not balance.
    """
    text, _ = next(lexis.configurations())
    keep: list[bytes] = []
    depth, body, begin, kept_to, block = 0, -1, 0, 0, 0
    for match in _BRACE.finditer(text):
        at, brace = match.start(), match[0]
        if brace == b"{":
            if body < 0 and _opens_body(text[begin:at]):
                body, opening, head_end = depth, at, at
            elif body < 0 and text[begin - 1 : begin] == b";" and not text[begin:at].strip():
                # Declarations of parameters go as well: they would read as variables.
                head_end = max((m.end() for m in _OLD_STYLE.finditer(text, block, at)), default=-1)
                if head_end > 0:
                    body, opening = depth, at
            block = at + 1
            depth += 1
        elif brace == b"}":
            depth -= 1
            if depth < 0:
                return lexis.source
            if depth == body:
                if _holds_whole_conditionals(lexis, head_end, at):
                    n_lines = lexis.source.count(b"\n", head_end, opening)
                    keep += (lexis.source[kept_to:head_end], b"\n" * n_lines, lexis.source[opening : opening + 1])
                    keep.append(b"\n" * lexis.source.count(b"\n", opening, at))
                    kept_to = at
                body = -1
            block = at + 1
        begin = at + 1
    return lexis.source if depth else b"".join((*keep, lexis.source[kept_to:]))


def _opens_body(head: bytes) -> bool:
    """Whether a brace after this text opens a body or initial values: rather no than yes."""
    head = _ATTRIBUTE.sub(b" ", head).strip()
    if head.endswith(b"="):
        return True
    if b"=" in head or not (_PARAMETERS.search(head) and _AFTER_PARAMETERS.search(head)):
        return False
    last = _TYPE_WORD.search(head)
    return last is None or _TYPED_HEAD.match(head, last.start()) is not None


def _holds_whole_conditionals(lexis: Lexis, start: int, end: int) -> bool:
    depth = 0
    directives = lexis.directives
    for directive in directives[bisect_left(directives, start, key=lambda d: d.start) :]:
        if directive.start >= end:
            break
        depth += directive.word.startswith(b"if") - (directive.word == b"endif")
        if depth < 0 or (depth == 0 and directive.word.startswith(b"el")):
            return False
    return depth == 0
