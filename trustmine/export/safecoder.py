"""safecoder: JSON Lines as SafeCoder's data_train_val has them: sec-desc.jsonl and sec-new-desc.jsonl per split.

https://github.com/eth-sri/SafeCoder; sec-desc holds the CWEs that SVEN trains
on, sec-new-desc all others. A row is SVEN's with a description of what the
function does, which becomes the prompt; see description.py.
"""

from collections.abc import Iterator

from trustmine.export import sven
from trustmine.export.description import describe
from trustmine.export.files import JsonLines
from trustmine.export.rows import Pair

NAME, SOURCE = "safecoder", "pairs"
COLUMNS = {
    **sven.COLUMNS,
    "description": "what to write, by rule from the code: name, signature, what both versions call, comment",
    "commit_msg": "the commit's message",
    "parent_commit": "full SHA of its first parent",
}
TYPES = sven.TYPES
open_file = JsonLines

EXPECTED = tuple(f"{split}/{name}.jsonl" for split in ("train", "val") for name in ("sec-desc", "sec-new-desc"))


def place(pair: Pair) -> str:
    return f"{pair.split}/{'sec-desc' if pair.vul_type in sven.TRAINED else 'sec-new-desc'}.jsonl"


def rows(pair: Pair) -> Iterator[dict[str, object]]:
    """One row; raises LeftOut."""
    for row in sven.rows(pair):
        yield {**row, "description": describe(pair), "commit_msg": pair.message, "parent_commit": pair.parent}
