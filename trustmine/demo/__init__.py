"""A small C project with a history, to try trustmine on: the same SHAs everywhere.

Promises: commits depend on nothing but the files of this package, whatever
the machine, the user's git configuration or the time; every known fix can be
listed with its CWE. What the history says is in history/ and sources/, how it
is read in script.py.
"""

import csv
import functools
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trustmine.demo.script import Entry, read_script
from trustmine.errors import RepositoryError, TrustmineError

BRANCH = "main"

# Nothing of the user's: no configuration, no hooks, no GIT_DIR, no translations.
_CLEAN_ENV = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "HOME": os.devnull,
    "LC_ALL": "C",
}


@dataclass(frozen=True)
class KnownFix:
    """A commit of the demo that fixes a vulnerability."""

    commit: str  # full SHA
    cve: str  # '' where it has none
    cwe: str
    kind: str  # in words: heap buffer overflow, ...


def write_demo(path: Path) -> str:
    """Writes the demo repository to `path`, work tree and all; its HEAD.

    A folder that already is the demo repository is left as it is. Raises
    RepositoryError if anything else is there, or git is missing or fails.
    """
    head = demo_head()
    if path.is_dir() and any(path.iterdir()):
        if _present_head(path) == head:
            return head
        raise RepositoryError(
            "Cannot write the demo repository: the folder is not empty",
            str(path),
            "Give a new or empty folder, or remove this one",
        )
    if path.exists() and not path.is_dir():
        raise RepositoryError(
            "Cannot write the demo repository: there is a file of this name", str(path), "Give a new or empty folder"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RepositoryError(
            "Cannot write the demo repository", f"{path}: {error.strerror}", "Give a folder you may write to"
        ) from error
    _import(path)
    _git(path, "reset", "--quiet", "--hard", BRANCH)
    return head


def demo_head() -> str:
    """The SHA that HEAD has in every demo repository."""
    return list(demo_commits().values())[-1]


@functools.cache
def demo_commits() -> dict[str, str]:
    """Name in history/ -> SHA, oldest first; git computes them in a scratch folder."""
    with tempfile.TemporaryDirectory(prefix="trustmine-demo-") as scratch:
        return _import(Path(scratch))


def known_fixes(head: str) -> tuple[KnownFix, ...]:
    """The vulnerability fixes of the demo repository at `head`, oldest first.

    Raises RepositoryError if that is not the HEAD of this version's demo.
    """
    commits = demo_commits()
    if head != demo_head():
        raise RepositoryError(
            "Not the demo repository of this version of trustmine",
            f"HEAD is {head}, expected {demo_head()}",
            "Write it anew, to an empty folder",
        )
    return tuple(
        KnownFix(commits[entry.slug], entry.cve or "", entry.cwe, entry.kind or "")
        for entry in read_script()
        if entry.cwe
    )


def write_known_fixes(path: Path) -> int:
    """Writes the known fixes as a CSV file with columns commit, cve, cwe; how many there are. Raises TrustmineError."""
    fixes = known_fixes(demo_head())
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("commit", "cve", "cwe"))
            writer.writerows((fix.commit, fix.cve, fix.cwe) for fix in fixes)
    except OSError as error:
        hint = "Give a file in a folder that is there and that you may write to"
        raise TrustmineError("Cannot write the list of known fixes", f"{path}: {error.strerror}", hint) from error
    return len(fixes)


# -------------------------------------------------------------------------- git


def _import(folder: Path) -> dict[str, str]:
    """Initialises a repository in `folder` and imports the history; name -> SHA."""
    entries = read_script()
    # SHA-1 and files as they are, whatever this git's defaults; a template would bring hooks.
    _git(folder, "init", "--quiet", "--template=", "--object-format=sha1", f"--initial-branch={BRANCH}")
    _git(folder, "config", "core.autocrlf", "false")
    marks = folder.resolve() / ".git" / "demo-marks"
    _git(folder, "fast-import", "--quiet", f"--export-marks={marks}", stdin=_stream(entries))
    shas = dict(line.split() for line in marks.read_text(encoding="ascii").splitlines())
    marks.unlink()
    return {entry.slug: shas[f":{number}"] for number, entry in enumerate(entries, 1)}


def _stream(entries: tuple[Entry, ...]) -> bytes:
    """The history in the language of git fast-import."""
    numbers = {entry.slug: number for number, entry in enumerate(entries, 1)}
    trees = {entry.slug: entry.tree for entry in entries}
    out: list[bytes] = []
    for entry in entries:
        stamp = b"%s %d %s\n" % (entry.author, entry.time_s, entry.zone.encode())
        out.append(b"commit refs/heads/%s\nmark :%d\n" % (BRANCH.encode(), numbers[entry.slug]))
        out.append(b"author " + stamp + b"committer " + stamp)
        if entry.encoding:
            out.append(b"encoding %s\n" % entry.encoding.encode())
        out.append(_data(entry.message))
        for word, parent in zip((b"from", *[b"merge"] * len(entry.parents)), entry.parents, strict=False):
            out.append(b"%s :%d\n" % (word, numbers[parent]))
        before = trees[entry.parents[0]] if entry.parents else {}
        out.extend(b"D %s\n" % path.encode() for path in sorted(before.keys() - entry.tree.keys()))
        for path, content in sorted(entry.tree.items()):
            if before.get(path) != content:
                out.append(b"M 100644 inline %s\n" % path.encode() + _data(content))
        out.append(b"\n")
    return b"".join(out)


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


def _present_head(folder: Path) -> str | None:
    """HEAD of the repository whose work tree is `folder` itself; None if there is none."""
    if not (folder / ".git").exists():
        return None
    try:
        return _git(folder, "rev-parse", "--verify", "--quiet", "HEAD").decode("ascii").strip()
    except RepositoryError:
        return None


def _git(folder: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """Output of git in `folder`; raises RepositoryError."""
    command = ["git", "-C", str(folder), *arguments]
    environment = {"PATH": os.environ.get("PATH", os.defpath), **_CLEAN_ENV}
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, env=environment, check=True)
    except FileNotFoundError as error:
        raise RepositoryError("git is not installed", "no git on PATH", "Install git 2.29 or later") from error
    except subprocess.CalledProcessError as error:
        message = error.stderr.decode("utf-8", "replace").strip()
        raise RepositoryError(
            "git failed while writing the demo repository", f"{' '.join(command)}: {message}", "Is git 2.29 or later?"
        ) from error
    return done.stdout
