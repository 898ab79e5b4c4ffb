"""Structured answers: the grammar that a completion must follow, and its parser.

Grammars are GBNF, see llama.cpp's grammars/README.md; answers that are JSON
have a JSON Schema too, for engines that know no GBNF. Every choice in them is
written as a tree of characters, because a sampler's cost grows with the
number of alternatives that are open at once. Parsers are pure: they return a
typed answer or raise Unparsable with a countable reason, and do not rely on
the grammar having been in force. Whether an answer was cut off is best known
to the engine, so take the text from `finished(completion)`.
"""

import bisect
import functools
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence

from trustmine.records import Completion

# Longest part of a name that elements_grammar lets a model write, and parts joined by ::
# (C11 5.2.4.1 asks compilers for 63 significant characters; 0.1 % of names in curl are longer than 40).
MAX_NAME_CHARS = 64
MAX_NAME_PARTS = 4
# llama.cpp refuses repetitions above 2000.
MAX_STRING_CHARS = 2_000

_NAME = re.compile(r"~?[A-Za-z_][A-Za-z0-9_]*(?:::~?[A-Za-z_][A-Za-z0-9_]*)*")
_RANGES = re.compile(r"[1-9][0-9]*-[1-9][0-9]*(?:, ?[1-9][0-9]*-[1-9][0-9]*)*")
LINES = "Lines:"  # what stands before them after a sentence
_BEFORE_LINES = re.compile(r"\**lines:\**", re.IGNORECASE)  # as models write it that no grammar holds
_CWE = re.compile(r"CWE-[1-9][0-9]{0,4}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Unparsable(ValueError):
    """The completion is not an answer; `reason` is short and countable."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def finished(completion: Completion) -> str:
    """The text of a completion that came to its end; raises Unparsable("truncated")."""
    if completion.finish_reason == "length":
        raise Unparsable("truncated")
    return completion.text


# ----------------------------------------------------------------------- line ranges


def line_ranges_grammar(ranges: Sequence[tuple[int, int]], max_ranges: int) -> str:
    """`none`, or 1 to max_ranges of `ranges` as `12-15, 20-20`, ascending and not overlapping.

    Lines count from 1, first-last inclusive.
    """
    rules = _Rules()
    return rules.text(_line_ranges(ranges, max_ranges, rules))


def _line_ranges(ranges: Sequence[tuple[int, int]], max_ranges: int, rules: "_Rules") -> str:
    """Expression for the form of line_ranges_grammar."""
    starts = sorted({first for first, _ in ranges})
    lasts = {start: sorted({last for first, last in ranges if first == start}) for start in starts}
    made: dict[tuple[int, int], str] = {}

    def from_start(at: int, left: int) -> str:
        """Rule for 1 to `left` ranges, the first beginning at starts[at] or later."""
        if (at, left) not in made:
            leaves = {str(start): functools.partial(from_last, start, left) for start in starts[at:]}
            made[at, left] = _number_tree(leaves, rules, left)
        return made[at, left]

    def from_last(start: int, left: int) -> str:
        leaves = {str(last): functools.partial(after, last, left) for last in lasts[start]}
        return f'"-" {_number_tree(leaves, rules, (start, left))}'

    def after(last: int, left: int) -> str:
        at = bisect.bisect_right(starts, last)
        return '""' if left == 1 or at == len(starts) else f'("" | ", " {from_start(at, left - 1)})'

    return f'"none" | {from_start(0, max_ranges)}' if starts and max_ranges > 0 else '"none"'


def located_grammar(ranges: Sequence[tuple[int, int]], max_ranges: int, max_chars: int, min_chars: int = 1) -> str:
    """A sentence of min_chars to max_chars, then `Lines: ` and what line_ranges_grammar allows.

    The sentence is one line without control characters, and of colons holds
    only C++'s, so that `Lines:` always is the end of it.
    """
    _check_lengths(min_chars, max_chars)
    rules = _Rules()
    char = rules.add(r'[^:\x00-\x1F\x7F-\x9F] | "::"')
    sentence = rf"[^:\x00-\x20\x7F-\x9F\xA0] {char}{{{min_chars - 1},{max_chars - 1}}}"
    lines = _line_ranges(ranges, max_ranges, rules)
    return rules.text(rf'{sentence} ("\n" | " ") "{LINES} " ({lines})')


def parse_line_ranges(text: str, allowed: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The ranges named, ascending; () for `none`.

    Raises Unparsable: empty, not_line_ranges, not_allowed, out_of_order.
    """
    answer = text.strip()
    if not answer:
        raise Unparsable("empty")
    if answer == "none":
        return ()
    if not _RANGES.fullmatch(answer):
        raise Unparsable("not_line_ranges")
    parts = [part.strip().split("-") for part in answer.split(",")]
    # A number longer than this is no line, and int() refuses very long ones.
    if any(len(number) > 9 for part in parts for number in part):
        raise Unparsable("not_allowed")
    ranges = tuple((int(first), int(last)) for first, last in parts)
    if not set(ranges) <= set(allowed):
        raise Unparsable("not_allowed")
    if any(later[0] <= earlier[1] for earlier, later in itertools.pairwise(ranges)):
        raise Unparsable("out_of_order")
    return ranges


def parse_located(text: str, allowed: Sequence[tuple[int, int]]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The sentence before the last `Lines:`, on one line, and the ranges after it, as parse_line_ranges reads them.

    Raises Unparsable: empty, no_lines, no_sentence, control_characters, and the reasons of parse_line_ranges.
    """
    if not text.strip():
        raise Unparsable("empty")
    marks = list(_BEFORE_LINES.finditer(text))
    if not marks:
        raise Unparsable("no_lines")
    sentence = " ".join(text[: marks[-1].start()].split())
    if not sentence:
        raise Unparsable("no_sentence")
    if _CONTROL.search(sentence):
        raise Unparsable("control_characters")
    return sentence, parse_line_ranges(text[marks[-1].end() :].strip().removesuffix("."), allowed)


# -------------------------------------------------------------------------- elements


def elements_grammar(max_elements: int, kinds: Sequence[str]) -> str:
    """A JSON list of 0 to max_elements objects {"name": identifier, "kind": one of kinds}."""
    rules = _Rules()
    kind = " | ".join(_literal(json.dumps(kind, ensure_ascii=False)) for kind in kinds)
    part = rules.add(f"[A-Za-z_] [A-Za-z0-9_]{{0,{MAX_NAME_CHARS - 1}}}")
    name = rules.add(f'"~"? {part} ("::" "~"? {part}){{0,{MAX_NAME_PARTS - 1}}}')
    item = rules.add(
        f'{_literal("{" + chr(34) + "name" + chr(34) + ": " + chr(34))} {name} "\\", \\"kind\\": " ({kind}) "}}"'
    )
    more = f'(", " {item}){{0,{max_elements - 1}}}' if max_elements > 1 else ""
    return rules.text(f'"[" ({item} {more})? "]"')


def elements_schema(max_elements: int, kinds: Sequence[str]) -> str:
    """The same form as a JSON Schema, for engines that know no GBNF; it lets names be any string."""
    item = _object({"name": {"type": "string"}, "kind": {"type": "string", "enum": list(kinds)}})
    return json.dumps({"type": "array", "items": item, "maxItems": max_elements})


def parse_elements(text: str) -> tuple[tuple[str, str], ...]:
    """(name, kind) of each element in the order given, repetitions included.

    Raises Unparsable: empty, truncated, not_json, not_elements, not_a_name.
    """
    answer = _json(text)
    if not isinstance(answer, list):
        raise Unparsable("not_elements")
    elements = []
    for item in answer:
        if not isinstance(item, dict) or item.keys() != {"name", "kind"}:
            raise Unparsable("not_elements")
        name, kind = item["name"], item["kind"]
        if not isinstance(name, str) or not isinstance(kind, str):
            raise Unparsable("not_elements")
        if not _NAME.fullmatch(name):
            raise Unparsable("not_a_name")
        elements.append((name, kind))
    return tuple(elements)


# ---------------------------------------------------------------------- explanations


def explanation_grammar(max_chars: int, cwes: Sequence[str], min_chars: int = 1) -> str:
    """{"root_cause": string, "impact": string, "cwe": one of cwes or null}, strings of min_chars to max_chars.

    Strings hold any Unicode but control characters, and begin with something
    other than a space. max_chars is at most MAX_STRING_CHARS.
    """
    _check_lengths(min_chars, max_chars)
    rules = _Rules()
    escape = r'"\\" ["\\/]'
    first = rules.add(rf'[^"\\\x00-\x20\x7F-\x9F\xA0] | {escape}')
    char = rules.add(rf'[^"\\\x00-\x1F\x7F-\x9F] | {escape}')
    string = rules.add(rf'"\"" {first} {char}{{{min_chars - 1},{max_chars - 1}}} "\""')
    numbers = _number_tree({cwe.removeprefix("CWE-"): lambda: '""' for cwe in cwes}, rules, "cwe")
    cwe = rf'"null" | "\"CWE-" {numbers} "\""'
    return rules.text(rf'"{{\"root_cause\": " {string} ", \"impact\": " {string} ", \"cwe\": " ({cwe}) "}}"')


def explanation_schema(cwes: Sequence[str]) -> str:
    """The same form as a JSON Schema, for engines that know no GBNF; it leaves lengths open."""
    cwe = {"type": ["string", "null"], "enum": [*cwes, None]}
    return json.dumps(_object({"root_cause": {"type": "string"}, "impact": {"type": "string"}, "cwe": cwe}))


def parse_explanation(text: str) -> tuple[str, str, str | None]:
    """(root cause, impact, CWE or None), without surrounding space.

    Raises Unparsable: empty, truncated, not_json, not_explanation, control_characters, not_a_cwe.
    """
    answer = _json(text)
    if not isinstance(answer, dict) or answer.keys() != {"root_cause", "impact", "cwe"}:
        raise Unparsable("not_explanation")
    root_cause, impact, cwe = answer["root_cause"], answer["impact"], answer["cwe"]
    if not isinstance(root_cause, str) or not isinstance(impact, str):
        raise Unparsable("not_explanation")
    if _CONTROL.search(root_cause) or _CONTROL.search(impact):
        raise Unparsable("control_characters")
    if not root_cause.strip() or not impact.strip():
        raise Unparsable("not_explanation")
    if cwe is not None and (not isinstance(cwe, str) or not _CWE.fullmatch(cwe)):
        raise Unparsable("not_a_cwe")
    return root_cause.strip(), impact.strip(), cwe


# --------------------------------------------------------------------------- choices


def choice_grammar(n: int) -> str:
    """A number from 0 (none of them) to n."""
    rules = _Rules()
    return rules.text(_number_tree({str(number): lambda: '""' for number in range(n + 1)}, rules, ()))


def parse_choice(text: str, n: int | None = None) -> int:
    """The number chosen; 0 for none. Raises Unparsable: empty, not_a_number, not_a_candidate (above n)."""
    answer = text.strip()
    if not answer:
        raise Unparsable("empty")
    if not re.fullmatch(r"0|[1-9][0-9]{0,8}", answer):
        raise Unparsable("not_a_number")
    choice = int(answer)
    if n is not None and choice > n:
        raise Unparsable("not_a_candidate")
    return choice


# -------------------------------------------------------------- GBNF and JSON Schema


class _Rules:
    """Numbered grammar rules; the same expression is the same rule."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self.trees: dict[object, str] = {}

    def add(self, expression: str) -> str:
        """Name of the rule for this expression."""
        return self._names.setdefault(expression, f"r{len(self._names)}")

    def text(self, root: str) -> str:
        """The whole grammar."""
        return "".join([f"root ::= {root}\n", *(f"{name} ::= {text}\n" for text, name in self._names.items())])


def _check_lengths(min_chars: int, max_chars: int) -> None:
    """Raises ValueError for a text that no grammar can express."""
    if not 1 <= min_chars <= max_chars <= MAX_STRING_CHARS:
        raise ValueError(f"lengths must be 1 to {MAX_STRING_CHARS} and ascend, not {min_chars} to {max_chars}")


def _number_tree(leaves: Mapping[str, Callable[[], str]], rules: _Rules, key: object, prefix: str = "") -> str:
    """Rule that matches one of the numbers in `leaves`, digit by digit, and then what its leaf says.

    Leaves with the same `key` say the same about a number. Then the tree for
    "from n on" differs from the next one only along the digits of n: the rest
    is shared, which keeps a few hundred such trees small.
    """
    place = (key, prefix, tuple(leaves))
    if place not in rules.trees:
        branches: dict[str, dict[str, Callable[[], str]]] = {}
        alternatives = []
        for number, leaf in leaves.items():
            if number == prefix:
                alternatives.append(leaf())
            else:
                branches.setdefault(number[len(prefix)], {})[number] = leaf
        for digit, below in sorted(branches.items()):
            alternatives.append(f'"{digit}" {_number_tree(below, rules, key, prefix + digit)}')
        rules.trees[place] = rules.add(" | ".join(alternatives))
    return rules.trees[place]


def _literal(text: str) -> str:
    """The text as a GBNF literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _object(properties: Mapping[str, object]) -> dict[str, object]:
    """JSON Schema of an object with exactly these properties."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _json(text: str) -> object:
    """The one JSON value that the text is. Raises Unparsable: empty, truncated, not_json."""
    answer = text.strip()
    if not answer:
        raise Unparsable("empty")
    try:
        return json.loads(answer)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(answer) or error.msg.startswith("Unterminated string")
        raise Unparsable("truncated" if cut else "not_json") from error
    except (RecursionError, ValueError) as error:  # nested thousands deep, or a number of thousands of digits
        raise Unparsable("not_json") from error
