"""detection: JSON Lines with PrimeVul's fields: functions labelled vulnerable (1) or not (0).

https://github.com/DLVulDet/PrimeVul. The function before a fix is vulnerable,
the function after it is not; a function that stands in the export already,
white space and comments aside, is left out.
"""

import hashlib
from collections.abc import Iterator

from trustmine.export.files import JsonLines
from trustmine.export.rows import Pair
from trustmine.export.splits import normalised
from trustmine.lines import split_lines

NAME, SOURCE = "detection", "pairs"
COLUMNS = {
    "idx": "number, unique in the export",
    "project": "the repository's name without its owner",
    "commit_id": "full SHA of the fix",
    "project_url": "address of the repository, empty if it was not cloned from anywhere",
    "commit_url": "address of the commit, likewise",
    "commit_message": "the whole message",
    "target": "1: vulnerable (before the fix), 0: not (after it)",
    "func": "the function",
    "func_hash": "SHA-256 of `func`",
    "hash": "SHA-256 of the function without comments and white space",
    "size": "lines of `func`",
    "file_name": "path of the file, before or after",
    "file_hash": "git blob of that file",
    "cwe": "list of CWE identifiers",
    "cwe_source": "who names them: `label`, `message`, `model`, or nobody",
    "cve": "the first CVE, empty if none is known",
    "nvd_url": "its page",
    "repo": "the repository",
    "split": "the side it is on",
    "date": "of the commit, UTC; null if it is beyond the calendar",
    "licence": "SPDX expression of the file's licence at the commit, or `unknown`",
    "label_source": "who says it is a fix: `model`, or a list of known fixes",
    "made_by": "key in the manifest",
}
TYPES = {**{name: {"dtype": "int64"} for name in ("idx", "target", "size")}, "cwe": {"list": "string"}}
open_file = JsonLines


def place(pair: Pair) -> str:
    return f"{pair.split}.jsonl"


def rows(pair: Pair) -> Iterator[dict[str, object]]:
    """Two rows, or fewer."""
    source = pair.source
    cve = source.cve.split(" ")[0]
    for target, is_new, code, path, oid in (
        (1, pair.is_new_before, pair.before, pair.old_path, pair.pre_oid),
        (0, pair.is_new_after, pair.after, source.path, pair.post_oid),
    ):
        if is_new:
            yield {
                "idx": 2 * pair.number + 1 - target,
                "project": source.repo.rpartition("/")[2],
                "commit_id": source.commit,
                "project_url": pair.project_url,
                "commit_url": f"{pair.project_url}/commit/{source.commit}" if pair.project_url else "",
                "commit_message": pair.message,
                "target": target,
                "func": code,
                "func_hash": hashlib.sha256(code.encode()).hexdigest(),
                "hash": normalised(code, path),
                "size": len(split_lines(code)),
                "file_name": path,
                "file_hash": oid,
                "cwe": source.cwe.split(),
                "cwe_source": source.cwe_source,
                "cve": cve,
                "nvd_url": f"https://nvd.nist.gov/vuln/detail/{cve}" if cve else "",
                "repo": source.repo,
                "split": pair.split,
                "date": source.date or None,
                "licence": source.licence,
                "label_source": source.label_source,
                "made_by": source.made_by,
            }
