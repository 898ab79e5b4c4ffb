"""sharegpt: JSON Lines; one chat per line with the keys `from` and `value`, as ShareGPT and its readers have them."""

from collections.abc import Iterator

from trustmine.export.files import JsonLines
from trustmine.export.rows import Example

NAME, SOURCE = "sharegpt", "instructions"
COLUMNS = {"conversations": "a chat of two turns: `human` (instruction, empty line, input) and `gpt` (output)"}
TYPES = {"conversations": {"list": [{"name": name, "dtype": "string"} for name in ("from", "value")]}}
open_file = JsonLines


def place(example: Example) -> str:
    return f"{example.split}.jsonl"


def rows(example: Example) -> Iterator[dict[str, object]]:
    turns = [{"from": "human", "value": example.asked}, {"from": "gpt", "value": example.output}]
    yield {"conversations": turns, **example.provenance()}
