"""parquet: a folder that `datasets.load_dataset` opens: one Parquet file per split, every column with its type."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trustmine.export.files import DataFile, Parquet, arrow
from trustmine.export.messages import chat
from trustmine.export.rows import Example

NAME, SOURCE = "parquet", "instructions"
COLUMNS = {
    "instruction": "what to do",
    "input": "what is given: code, context, an explanation",
    "output": "what the model shall answer",
    "messages": "the same as a chat of two turns: `user` (instruction, empty line, input) and `assistant` (output)",
}
_LISTS = ("cve", "cwe", "cwe_by_model", "requests")  # separated by a space in other formats


def place(example: Example) -> str:
    return f"data/{example.split}-00000-of-00001.parquet"


def rows(example: Example) -> Iterator[dict[str, object]]:
    source: dict[str, Any] = dict(example.provenance())
    source |= {name: source[name].split() for name in _LISTS}
    source["date"] = datetime.date.fromisoformat(source["date"]) if source["date"] else None
    yield {
        "instruction": example.instruction,
        "input": example.input,
        "output": example.output,
        "messages": chat(example),
        **source,
    }


def open_file(path: Path) -> DataFile:
    pa = arrow()
    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    types = {"messages": turns, "date": pa.date32(), **dict.fromkeys(_LISTS, pa.list_(pa.string()))}
    names = [*COLUMNS, *Example.columns()]
    return Parquet(path, pa.schema([(name, types.get(name, pa.string())) for name in names]))
