"""messages: JSON Lines; one chat per line, as chat templates take it."""

from collections.abc import Iterator

from trustmine.export.files import JsonLines
from trustmine.export.rows import Example

NAME, SOURCE = "messages", "instructions"
COLUMNS = {"messages": "a chat of two turns: `user` (instruction, empty line, input) and `assistant` (output)"}
TURNS = {"list": [{"name": name, "dtype": "string"} for name in ("role", "content")]}
TYPES = {"messages": TURNS}
open_file = JsonLines


def place(example: Example) -> str:
    return f"{example.split}.jsonl"


def rows(example: Example) -> Iterator[dict[str, object]]:
    yield {"messages": chat(example), **example.provenance()}


def chat(example: Example) -> list[dict[str, str]]:
    """The two turns."""
    return [{"role": "user", "content": example.asked}, {"role": "assistant", "content": example.output}]
