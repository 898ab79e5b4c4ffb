"""Is the function around a hunk the right one? Asked of an independent judge, Universal Ctags.

    python benchmarks/functions.py REPO [--limit N] [--db FILE] [--wide] [--verbose]

Takes every commit of a repository that passes s0_2 under the default settings
and changes one file by one hunk, also those that only add or only delete;
with --wide every C or C++ file that a commit past s0_1 changes by one hunk,
whatever else the commit changes (vim's commits hardly ever change one file).
The function before and after is found by the code that s1_1 uses and held
against what ctags says of the same two files. Needs ctags (5.9 or newer, with
JSON). A database with rows past s0_2 can be given; else a temporary one is
made. Ends with exit code 1 if less than PROMISED of the hunks are right.

A hunk counts as in a function where ctags has, on both sides, one function
around the lines that it touches there. Touched are changed lines; where a
change leaves none on one side, the lines before and after the gap. A lambda
is part of the function around it, for us and for this comparison.

Right means that, on both sides:

- the name is ctags' name: the last part of a qualified one, white space and
  template arguments left out;
- the last line is ctags' last line (field "end");
- the first line is where the signature starts. ctags tells the line of the
  name. From there back, code up to the nearest of `;`, `{`, `}`, an access
  specifier's colon, a directive other than #if, #else and #endif, or a line
  with nothing on it belongs to the signature (comments and those directives
  count as nothing, but do not end it), and the first line has to be exactly
  the first of that;
- byte positions and lines of ours agree, and pre-image + patch is the
  post-image by git's hash.
"""

import argparse
import json
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import cast

from common import ROOT, machine, need, table, timed, trustmine

sys.path.insert(0, str(ROOT))

from trustmine import fixes, patches, text
from trustmine.changed_function import function_pair
from trustmine.config import Settings
from trustmine.cparse import Function, Outline, outline
from trustmine.gitrepo import GitRepo
from trustmine.lines import LineRange
from trustmine.patches import FilePatch, Hunk
from trustmine.stages import STAGES

PROMISED = 0.99
NEITHER, ONLY_OURS = "no function by either", "a function by us alone"
BATCH = 300  # commits whose files one run of ctags reads

_HIDDEN = re.compile(
    rb"""^[ \t]*\#[ \t]*(?:if|el|endif)(?:\\\r?\n|[^\n])*+
    | /\*.*?(?:\*/|\Z) | //(?:\\\r?\n|[^\n])*+
    | "(?:\\\r?\n|\\.|[^"\\\n])*+" | (?<![0-9A-Fa-f])'(?:\\\r?\n|\\.|[^'\\\n])*+' """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_ENDS_BEFORE = re.compile(
    rb"""[;{}] | \*/ | ^[ \t\r\f\v]*\#(?:\\\r?\n|[^\n])*+$ | ^[ \t\r\f\v]*\n
    | \b(?:public|private|protected|signals|slots)\s*:(?!:)""",
    re.VERBOSE | re.MULTILINE,
)
_TEMPLATE_ARGUMENTS = re.compile(r"<[^<>]*>")


@dataclass(frozen=True, slots=True)
class Change:
    """A commit of one hunk in one file."""

    sha: str
    old_path: str
    new_path: str
    old_oid: str
    new_oid: str
    patch: FilePatch


@dataclass(frozen=True, slots=True)
class Tag:
    """What ctags says of a function."""

    name: str
    line: int  # of the name
    end: int


@dataclass(frozen=True, slots=True)
class Case:
    """A hunk that is in a function by the judge, and what is wrong with our answer; None if nothing is."""

    change: Change
    wrong: str | None
    ours: str
    judges: str


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("repo", type=Path, help="a git repository with its history")
    parser.add_argument("--db", type=Path, help="a database that has this repository's rows past s0_2")
    parser.add_argument("--limit", type=int, help="at most this many hunks, evenly over the history")
    parser.add_argument("--wide", action="store_true", help="one-hunk files of all commits past s0_1")
    parser.add_argument("--verbose", action="store_true", help="list every disagreement")
    arguments = parser.parse_args()
    ctags = need("ctags", "universal-ctags")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        db = arguments.db or _make_database(arguments.repo, Path(folder))
        changes, n_commits = _changes(db, arguments.wide, arguments.limit)
        counts: Counter[str] = Counter()
        for case in _judged(GitRepo.open(arguments.repo), changes, ctags, Path(folder)):
            counts[case.wrong or "right"] += 1
            if arguments.verbose and case.wrong not in (None, NEITHER):
                print(f"{case.wrong}: {case.change.sha} {case.change.new_path}")
                print(f"    ours:  {case.ours}\n    ctags: {case.judges}")
    outside = counts.pop(NEITHER, 0)
    only_ours = counts.pop(ONLY_OURS, 0)
    n_judged, n_right = counts.total(), counts.pop("right", 0)
    share = n_right / n_judged if n_judged else 0.0
    rows: list[tuple[str, object]] = [
        (f"commits past {'s0_1' if arguments.wide else 's0_2'}", n_commits),
        ("hunks looked at", len(changes)),
        (NEITHER, outside),
        (ONLY_OURS, only_ours),
        ("in a function by ctags", n_judged),
        ("right", n_right),
        *((f"wrong: {reason}", n) for reason, n in counts.most_common()),
        ("share right", f"{share:.2%}"),
    ]
    print(
        table(
            ("what", arguments.repo.resolve().parent.name if arguments.repo.name == "repo" else arguments.repo.name),
            rows,
        )
    )
    print(f"{time.perf_counter() - started:.0f} s; {machine()}; {_version(ctags)}")
    sys.exit(0 if share >= PROMISED else 1)


def _make_database(repo: Path, folder: Path) -> Path:
    db = folder / "functions.db"
    timed(trustmine("ingest", str(repo.resolve()), "--db", str(db)), cwd=folder)
    for stage in ("s0_1", "s0_2"):
        timed(trustmine("advance", "--stage", stage, "--db", str(db)), cwd=folder)
    return db


def _changes(db: Path, wide: bool, limit: int | None) -> tuple[list[Change], int]:
    """The files changed by one hunk, oldest first, and how many commits were looked at."""
    names = list(STAGES)
    passed = names[names.index("s0_1" if wide else "s0_2") :]
    settings = Settings()
    conn = sqlite3.connect(f"file:{db}?mode=ro", uri=True)
    marks = ", ".join("?" * len(passed))
    (n_commits,) = conn.execute(f"SELECT count(*) FROM commits WHERE status IN ({marks})", passed).fetchone()
    keys = [
        (commit_id, file_no)
        for commit_id, file_no, path in conn.execute(
            f"""SELECT id, file_no, new_path
                FROM commits JOIN diffs ON diffs.commit_id = id JOIN diff_files ON diff_files.commit_id = id
                WHERE status IN ({marks}) AND n_hunks = 1 AND change IN ('modified', 'renamed', 'copied')
                  AND NOT is_binary AND NOT is_submodule AND patch IS NOT NULL
                ORDER BY id, file_no""",
            passed,
        )
        if path.endswith(settings.extensions)
    ]
    if limit is not None and limit < len(keys):
        keys = [keys[i * len(keys) // limit] for i in range(limit)]
    found = []
    for commit_id, file_no in keys:
        sha, old_path, new_path, old_oid, new_oid, patch, encoding = conn.execute(
            """SELECT sha, old_path, new_path, old_oid, new_oid, patch, encoding
               FROM commits JOIN diffs ON diffs.commit_id = id JOIN diff_files ON diff_files.commit_id = id
               WHERE id = ? AND file_no = ?""",
            (commit_id, file_no),
        ).fetchone()
        parsed = patches.parse(text.encode(patch, encoding))[file_no - 1]
        found.append(Change(sha, old_path, new_path, old_oid, new_oid, parsed))
    conn.close()
    return found, n_commits


def _judged(repo: GitRepo, changes: Sequence[Change], ctags: str, folder: Path) -> Iterator[Case]:
    """Every change with what is wrong about our answer."""

    @lru_cache(maxsize=64)  # what one commit leaves, the next one to the file finds
    def outlined(oid: str, path: str) -> Outline:
        return outline(repo.blob(oid), path)

    at = iter(changes)
    while batch := list(islice(at, BATCH)):
        files = {key for c in batch for key in ((c.old_oid, c.old_path), (c.new_oid, c.new_path))}
        tags = _tags(repo, files, ctags, folder)
        for change in batch:
            pre, image = repo.blob(change.old_oid), repo.blob(change.new_oid)
            (hunk,) = change.patch.hunks
            post = patches.apply(pre, change.patch)
            old_tags, new_tags = tags[change.old_oid, change.old_path], tags[change.new_oid, change.new_path]
            old_touched, new_touched = touched(hunk)
            judges = (innermost(old_tags, pre, old_touched), innermost(new_tags, image, new_touched))
            old, new = outlined(change.old_oid, change.old_path), outlined(change.new_oid, change.new_path)
            edits = fixes.edits(change.patch.hunks)
            pair = function_pair(old, new, edits, edits, is_one_place=True)
            ours = pair if isinstance(pair, str) else " -> ".join(map(_shown, pair))
            said = " -> ".join("none" if tag is None else f"{tag.name} {first}-{tag.end}" for tag, first in judges)
            if judges[0][0] is None or judges[1][0] is None:
                yield Case(change, NEITHER if isinstance(pair, str) else ONLY_OURS, ours, said)
            elif post != image or repo.blob_oid(post) != change.new_oid:
                yield Case(change, "pre-image + patch is not the post-image", ours, said)
            elif isinstance(pair, str):
                yield Case(change, pair, ours, said)
            else:
                named = cast("tuple[tuple[Tag, int], ...]", judges)  # both have a tag here
                wrong = [difference(*side) for side in zip(pair, named, (pre, image), strict=True)]
                yield Case(change, next((w for w in wrong if w), None), ours, said)


def _tags(repo: GitRepo, files: set[tuple[str, str]], ctags: str, folder: Path) -> dict[tuple[str, str], list[Tag]]:
    """The functions of these blobs, read by one run of ctags."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        names: dict[str, tuple[str, str]] = {}
        for number, (oid, path) in enumerate(sorted(files)):
            file = f"{name}/{number}{Path(path).suffix}"
            Path(file).write_bytes(repo.blob(oid))
            names[file] = (oid, path)
        command = [
            ctags,
            "--options=NONE",
            "--output-format=json",
            "--fields=+neKS",
            "--languages=C,C++",
            "-f",
            "-",
            "-L",
            "-",
        ]
        found = subprocess.run(command, input="\n".join(names).encode(), capture_output=True, check=True)
        result: dict[tuple[str, str], list[Tag]] = {key: [] for key in files}
        for line in found.stdout.decode("utf-8", "replace").splitlines():
            tag = json.loads(line)
            is_lambda = tag["name"].startswith("__anon")
            if tag.get("kind") == "function" and "end" in tag and not is_lambda:
                result[names[tag["path"]]].append(Tag(tag["name"], tag["line"], tag["end"]))
    return result


def touched(hunk: Hunk) -> tuple[LineRange, LineRange]:
    """First and last line that the hunk touches, before and after.

    A run of changes without lines on one side touches there the lines before
    and after it.
    """
    at = [hunk.old_start + (hunk.old_lines == 0), hunk.new_start + (hunk.new_lines == 0)]
    spans: tuple[list[int], list[int]] = ([], [])
    kinds = [line[:1] for line in hunk.lines if line[:1] in (b" ", b"-", b"+")]
    i = 0
    while i < len(kinds):
        if kinds[i] == b" ":
            at = [at[0] + 1, at[1] + 1]
            i += 1
            continue
        run = 0
        while i + run < len(kinds) and kinds[i + run] != b" ":
            run += 1
        counts = (kinds[i : i + run].count(b"-"), kinds[i : i + run].count(b"+"))
        for side in (0, 1):
            n = counts[side]
            spans[side].extend((at[side], at[side] + n - 1) if n else (at[side] - 1, at[side]))
            at[side] += n
        i += run
    old, new = (LineRange(min(span), max(span)) for span in spans)
    return old, new


def innermost(tags: Sequence[Tag], source: bytes, lines: LineRange) -> tuple[Tag | None, int]:
    """The function around these lines, by the judge, and the line where its signature starts."""
    around = [tag for tag in tags if tag.line <= lines.last_line <= tag.end]
    code = _HIDDEN.sub(_hidden, source) if around else b""
    held = [(tag, start) for tag in around if (start := signature_line(code, tag.line)) <= lines.first_line]
    return min(held, key=lambda one: one[0].end - one[0].line, default=(None, 0))


def signature_line(code: bytes, name_line: int) -> int:
    """The line where the signature starts whose name is on this line, in a source as `_hidden` leaves it."""
    starts = [0, *(match.end() for match in re.finditer(rb"\n", code))]
    first = max(0, name_line - 60)
    code = code[starts[first] : starts[name_line - 1]]
    ends = [match.end() for match in _ENDS_BEFORE.finditer(code)]
    start = ends[-1] if ends else 0
    rest = code[start:].replace(b"\x01", b" ")
    leading = len(rest) - len(rest.lstrip())
    return first + 1 + code.count(b"\n", 0, start) + rest.count(b"\n", 0, leading)


def _hidden(match: re.Match[bytes]) -> bytes:
    """A literal as underscores; a comment or directive as a byte that is neither code nor white space."""
    return re.sub(rb"[^\n]", b"_" if match[0][:1] in b"\"'" else b"\x01", match[0])


def difference(ours: Function, judge: tuple[Tag, int], source: bytes) -> str | None:
    """What is wrong with a function of ours; None if it is the judge's."""
    tag, start = judge
    if (plain(ours.name), ours.last_line) != (plain(tag.name), tag.end):
        return "last line" if plain(ours.name) == plain(tag.name) else "name"
    if ours.first_line != start:
        return "first line"
    lines = tuple(source.count(b"\n", 0, at) + 1 for at in (ours.start_byte, ours.end_byte - 1))
    return None if lines == (ours.first_line, ours.last_line) else "bytes and lines disagree"


def plain(name: str) -> str:
    """The last part of a qualified name, without white space and template arguments."""
    if "operator" not in name:
        while (shorter := _TEMPLATE_ARGUMENTS.sub("", name)) != name:
            name = shorter
    head, operator, symbol = name.partition("operator")
    last = operator + symbol if operator else head.rpartition("::")[2]
    return "".join(last.split())


def _shown(function: Function) -> str:
    return f"{function.name} {function.first_line}-{function.last_line}"


def _version(ctags: str) -> str:
    said = subprocess.run([ctags, "--version"], capture_output=True, text=True, check=True).stdout
    return said.partition(",")[0]


if __name__ == "__main__":
    main()
