"""sven: JSON Lines as SVEN's data_train_val has them: train/cwe-787.jsonl, val/cwe-787.jsonl.

https://github.com/eth-sri/sven; its loader (sven/dataset.py) opens a file per
CWE that it trains on, so these are there even if empty. Functions stand
without white space at their end, as SVEN's do.
"""

from collections.abc import Iterator

from trustmine.export import charspans
from trustmine.export.files import JsonLines
from trustmine.export.rows import Pair

NAME, SOURCE = "sven", "pairs"
COLUMNS = {
    "func_name": "name of the function, before the fix",
    "func_src_before": "the vulnerable function",
    "func_src_after": "the fixed function",
    "line_changes": "`deleted` lines of before, `added` lines of after: line_no (from 1), char_start, char_end, line",
    "char_changes": "likewise for runs of characters: char_start, char_end, chars",
    "commit_link": "address of the commit without https://",
    "file_name": "path of the file after the fix",
    "vul_type": "CWE in lower case, three digits at least; `cwe-unknown` where nobody names one",
}
_SPAN = {"char_start": "int64", "char_end": "int64"}


def _changes(fields: dict[str, str]) -> dict[str, object]:
    span = [{"name": name, "dtype": dtype} for name, dtype in fields.items()]
    return {"struct": [{"name": "deleted", "list": span}, {"name": "added", "list": span}]}


# Types that a reader cannot guess from a file in which all lists are empty.
TYPES = {
    "line_changes": _changes({"line_no": "int64", **_SPAN, "line": "string"}),
    "char_changes": _changes({**_SPAN, "chars": "string"}),
}
open_file = JsonLines

# CWES_TRAINED of sven/constant.py.
TRAINED = ("cwe-089", "cwe-125", "cwe-078", "cwe-476", "cwe-416", "cwe-022", "cwe-787", "cwe-079", "cwe-190")
EXPECTED = tuple(f"{split}/{cwe}.jsonl" for split in ("train", "val") for cwe in TRAINED)


def place(pair: Pair) -> str:
    return f"{pair.split}/{pair.vul_type}.jsonl"


def rows(pair: Pair) -> Iterator[dict[str, object]]:
    """One row; raises LeftOut."""
    before, after = pair.before.rstrip(), pair.after.rstrip()
    address = pair.project_url.removeprefix("https://") or pair.source.repo
    yield {
        "func_name": pair.source.function,
        "func_src_before": before,
        "func_src_after": after,
        "line_changes": charspans.line_changes(before, after, pair.deleted, pair.added),
        "char_changes": charspans.char_changes(before, after),
        "commit_link": f"{address}/commit/{pair.source.commit}",
        "file_name": pair.source.path,
        "vul_type": pair.vul_type,
    }
