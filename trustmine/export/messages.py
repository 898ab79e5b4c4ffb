"""messages: JSON Lines; one chat per line, as chat templates take it.

Instruction and input are one turn of the user: templates of several models
know no system turn.
"""

from trustmine.export.rows import Example

NAME = "messages"
FILE_SUFFIX = ".jsonl"
BEFORE, BETWEEN, AFTER = "", "\n", "\n"


def row(example: Example) -> dict[str, object]:
    """The object that stands for one example."""
    asked = f"{example.instruction}\n\n{example.input}" if example.input else example.instruction
    return {
        "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": example.output}],
        **example.provenance(),
    }
