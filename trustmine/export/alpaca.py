"""alpaca: one JSON array; instruction, input and output as Stanford Alpaca named them."""

from collections.abc import Iterator
from pathlib import Path

from trustmine.export.files import DataFile, JsonArray
from trustmine.export.rows import Example

NAME, SOURCE = "alpaca", "instructions"
COLUMNS = {
    "instruction": "what to do",
    "input": "what is given: code, context, an explanation",
    "output": "what the model shall answer",
}
TYPES: dict[str, dict[str, object]] = {}


def place(example: Example) -> str:
    return f"{example.split}.json"


def rows(example: Example) -> Iterator[dict[str, object]]:
    yield {
        "instruction": example.instruction,
        "input": example.input,
        "output": example.output,
        **example.provenance(),
    }


def open_file(path: Path) -> DataFile:
    return JsonArray(path)
