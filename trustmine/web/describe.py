"""What the pages say: metadata.yaml joined with the comments of schema.sql.

Tables, views and columns are described where they are defined and nowhere
else, so this reads schema.sql: the comment lines above a CREATE describe the
table or view, the comment behind a column describes the column. metadata.yaml
adds what is about the pages alone: facets, sort orders, labels, queries.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasette.utils import parse_metadata

from trustmine import resources

DATABASE = "trustmine"  # the database's name in every address, whatever its file is called
METADATA = Path(__file__).with_name("metadata.yaml")

_CREATE = re.compile(r"CREATE (TABLE|VIEW) (\w+) \(")
_COLUMN = re.compile(r' {4}"?(\w+)"?[ ,].*?-- (.+)')


@dataclass
class Described:
    """What schema.sql says about one table or view."""

    description: str
    columns: dict[str, str] = field(default_factory=dict)  # those with a comment, in the order of the schema


def descriptions(schema: str) -> dict[str, Described]:
    """Tables and views of a schema written as ours is, by name."""
    found: dict[str, Described] = {}
    above: list[str] = []
    inside: Described | None = None
    for line in schema.splitlines():
        if inside is not None:
            if line.startswith(")"):
                inside = None
            elif (column := _COLUMN.match(line)) and not column[1].isupper():  # CHECK, UNIQUE, ... are no columns
                inside.columns[column[1]] = column[2]
        elif create := _CREATE.match(line):
            inside = found[create[2]] = Described(" ".join(above))
        above = [*above, line.removeprefix("--").strip()] if line.startswith("--") else []
    return found


def metadata(file: Path) -> dict[str, Any]:
    """Everything datasette shows beside the rows of the database in `file`."""
    merged: dict[str, Any] = parse_metadata(METADATA.read_text(encoding="utf-8"))
    merged["databases"][DATABASE]["source"] = file.name
    tables = merged["databases"][DATABASE].setdefault("tables", {})
    for name, described in descriptions(resources.schema()).items():
        page = tables.setdefault(name, {})
        page["description"] = described.description
        page["columns"] = described.columns
    return merged
