"""alpaca: one JSON array; instruction, input and output as Stanford Alpaca named them."""

from trustmine.export.rows import Example

NAME = "alpaca"
FILE_SUFFIX = ".json"
BEFORE, BETWEEN, AFTER = "[\n", ",\n", "\n]\n"


def row(example: Example) -> dict[str, object]:
    """The object that stands for one example."""
    return {
        "instruction": example.instruction,
        "input": example.input,
        "output": example.output,
        **example.provenance(),
    }
