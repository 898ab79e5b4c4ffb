"""The files of an export, written row by row: JSON, JSON Lines, Parquet."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from trustmine.errors import TrustmineError

# Legal in JSON, but some readers of JSON Lines take them for the end of a line.
_LINE_ENDS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})
BATCH = 500  # rows per row group of Parquet


class DataFile(Protocol):
    """One file that is being written."""

    def add(self, row: Mapping[str, object]) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """One object per line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def add(self, row: Mapping[str, object]) -> None:
        self._file.write(_json(row) + "\n")

    def close(self) -> None:
        self._file.close()


class JsonArray:
    """One array of one object or more, each on a line of its own."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")
        self._before = "[\n"

    def add(self, row: Mapping[str, object]) -> None:
        self._file.write(self._before + _json(row))
        self._before = ",\n"

    def close(self) -> None:
        self._file.write("\n]\n")
        self._file.close()


class Parquet:
    """Columns with types, in row groups of BATCH rows."""

    def __init__(self, path: Path, schema: Any) -> None:
        self._schema = schema
        self._writer = parquet().ParquetWriter(str(path), schema, compression="zstd")
        self._rows: list[Mapping[str, object]] = []

    def add(self, row: Mapping[str, object]) -> None:
        self._rows.append(row)
        if len(self._rows) == BATCH:
            self._flush()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(arrow().Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def _json(row: Mapping[str, object]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS)


def arrow() -> Any:
    """The module pyarrow. Raises TrustmineError where it is not installed."""
    return _optional("pyarrow")


def parquet() -> Any:
    """The module pyarrow.parquet. Raises TrustmineError where it is not installed."""
    return _optional("pyarrow.parquet")


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TrustmineError(
            "Parquet files need the package pyarrow", str(error), "Try: pip install 'trustmine[parquet]'"
        ) from error
