"""detection: JSON Lines with PrimeVul's fields: functions labelled vulnerable (1) or not (0).

https://github.com/DLVulDet/PrimeVul. The function before a fix is vulnerable,
the function after it is not, nor are the long-lived functions that `trustmine
benign` chose. A function that stands in the export already, white space and
comments aside, is left out.
"""

import hashlib
from collections.abc import Iterator

from trustmine.export.files import JsonLines
from trustmine.export.rows import Benign, Pair
from trustmine.export.splits import normalised
from trustmine.lines import split_lines

NAME, SOURCE = "detection", "functions"
COLUMNS = {
    "idx": "number, unique in the export",
    "project": "the repository's name without its owner",
    "commit_id": "full SHA of the fix; of a benign function: of the commit that made it what it is",
    "project_url": "address of the repository, empty if it was not cloned from anywhere",
    "commit_url": "address of the commit, likewise",
    "commit_message": "the whole message",
    "target": "1: vulnerable (before the fix), 0: not (after it, or long-lived)",
    "func": "the function",
    "func_hash": "SHA-256 of `func`",
    "hash": "SHA-256 of the function without comments and white space",
    "size": "lines of `func`",
    "file_name": "path of the file, before or after",
    "file_hash": "git blob of that file",
    "cwe": "list of CWE identifiers, all that are known of the commit; those of the first source that names any",
    "cwe_source": "who names them: `label`, `message`, `model`, or nobody",
    "cve": "the first CVE, empty if none is known",
    "nvd_url": "its page",
    "repo": "the repository",
    "split": "the side it is on",
    "date": "of the commit, UTC; null if it is beyond the calendar",
    "licence": "SPDX expression of the file's licence at the commit, or `unknown`",
    "label_source": "who says it is a fix: `model`, or a list of known fixes; `lifespan`: a benign function",
    "n_commits": "of a benign function: commits of the first-parent history since it is as it is; else 0",
    "n_changes": "of these, how many changed its file",
    "made_by": "key in the manifest",
}
TYPES = {
    **{name: {"dtype": "int64"} for name in ("idx", "target", "size", "n_commits", "n_changes")},
    "cwe": {"list": "string"},
}
open_file = JsonLines


def place(record: Pair | Benign) -> str:
    return f"{record.split}.jsonl"


def rows(record: Pair | Benign) -> Iterator[dict[str, object]]:
    """Two rows of a pair, or fewer; one of a benign function."""
    if isinstance(record, Benign):
        yield _row(record, 0, record.code, record.source.path, record.oid, (record.n_commits, record.n_changes))
        return
    pair, source = record, record.source
    for target, is_new, code, path, oid in (
        (1, pair.is_new_before, pair.before, pair.old_path, pair.pre_oid),
        (0, pair.is_new_after, pair.after, source.path, pair.post_oid),
    ):
        if is_new:
            yield _row(pair, target, code, path, oid, (0, 0))


def _row(
    record: Pair | Benign, target: int, code: str, path: str, oid: str, lived: tuple[int, int]
) -> dict[str, object]:
    """`lived` is n_commits and n_changes."""
    source = record.source
    cve = source.cve.split(" ")[0]
    return {
        "idx": 2 * record.number + 1 - target,
        "project": source.repo.rpartition("/")[2],
        "commit_id": source.commit,
        "project_url": record.project_url,
        "commit_url": f"{record.project_url}/commit/{source.commit}" if record.project_url else "",
        "commit_message": record.message,
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
        "split": record.split,
        "date": source.date or None,
        "licence": source.licence,
        "label_source": source.label_source,
        "n_commits": lived[0],
        "n_changes": lived[1],
        "made_by": source.made_by,
    }
