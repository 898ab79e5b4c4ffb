"""safecoder: JSON Lines as SafeCoder's data_train_val has them: sec-desc.jsonl and sec-new-desc.jsonl per split.

https://github.com/eth-sri/SafeCoder; sec-desc holds the CWEs that SVEN trains
on, sec-new-desc all others. A row is SVEN's with a description of what the
function does, which becomes the prompt: it is put together from the code
alone and says nothing of security. Nobody and no model has written it.
"""

from collections.abc import Iterator

from trustmine import samples
from trustmine.cparse import names, parameters
from trustmine.export import sven
from trustmine.export.files import JsonLines
from trustmine.export.rows import Pair
from trustmine.lines import split_lines
from trustmine.wording import listed

NAME, SOURCE = "safecoder", "pairs"
COLUMNS = {
    **sven.COLUMNS,
    "description": "what to write, by rule from the code: language, name, parameters, and what both versions call",
    "commit_msg": "the commit's message",
    "parent_commit": "full SHA of its first parent",
}
TYPES = sven.TYPES
open_file = JsonLines

EXPECTED = tuple(f"{split}/{name}.jsonl" for split in ("train", "val") for name in ("sec-desc", "sec-new-desc"))
MAX_CALLEES = 6  # a description is short


def place(pair: Pair) -> str:
    return f"{pair.split}/{'sec-desc' if pair.vul_type in sven.TRAINED else 'sec-new-desc'}.jsonl"


def rows(pair: Pair) -> Iterator[dict[str, object]]:
    """One row; raises LeftOut."""
    for row in sven.rows(pair):
        yield {**row, "description": describe(pair), "commit_msg": pair.message, "parent_commit": pair.parent}


def describe(pair: Pair) -> str:
    """One sentence: the function's language, name, parameters, and the functions that both versions call."""
    language = "C++" if samples.language(pair.old_path) == "cpp" else "C"
    taken = [samples.one_line(name) for name in parameters(pair.before.encode(), pair.old_path)]
    called = [name for name in _callees(pair.before, pair.old_path) if name in _callees(pair.after, pair.source.path)]
    takes = f" that takes {listed([f'`{name}`' for name in taken])}" if taken else ""
    calls = f"{' and' if taken else ' that'} calls {listed([f'`{name}`' for name in called[:MAX_CALLEES]])}"
    return (
        f"Write a {language} function named `{samples.one_line(pair.source.function)}`{takes}{calls if called else ''}."
    )


def _callees(code: str, path: str) -> list[str]:
    """Functions that it calls and does not define, in alphabetical order."""
    source = code.encode()
    found = names(source, 1, len(split_lines(source)), path)
    return [name.name for name in found if name.kind == "function" and not name.is_local]
