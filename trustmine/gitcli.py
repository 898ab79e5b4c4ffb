"""The git program: for network work, the order of histories, and the patches that libgit2 gets wrong.

Promises: arguments are lists, never a shell; nothing that a repository says
(configuration, attributes, hooks, replace refs) runs a program or changes
what is printed; no password prompt ever waits. Network commands see the
user's own configuration (proxy, credentials), reading commands see none.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from trustmine.errors import RepositoryError

PROTOCOLS = "file:git:http:https:ssh"  # not ext::, which runs any program
CHUNK = 1 << 16  # longest piece of a line, bytes

# Each undoes a setting of the repository that would run a program or change the output.
_NEUTRAL = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.abbrev": "auto",
    "core.quotePath": "true",
    "diff.renameLimit": "1000",
    "diff.indentHeuristic": "true",
    "diff.suppressBlankEmpty": "false",
    "diff.interHunkContext": "0",
    "diff.orderFile": os.devnull,
    "safe.directory": "*",
}
# What a clone made by `clone_bare` has in its configuration; no key here can run a program.
_CLONE_KEYS = re.compile(
    r"core\.(repositoryformatversion|filemode|bare|ignorecase|precomposeunicode|symlinks)|remote\.origin\.(url|fetch)"
)


def _environment(*, network: bool) -> dict[str, str]:
    if network:
        # Variables that point git elsewhere must not leak in; those of the user's transport stay.
        drop = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_TEMPLATE_DIR")
        env = {name: value for name, value in os.environ.items() if name not in drop}
        return env | {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": PROTOCOLS, "LC_ALL": "C"}
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return env | {
        "GIT_ALLOW_PROTOCOL": "none",  # a partial clone must not fetch what is missing
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_GRAFT_FILE": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
        "XDG_CONFIG_HOME": os.devnull,  # holds git/attributes
        "HOME": os.devnull,
    }


def _command(git_dir: str, work_tree: str | None) -> list[str]:
    settings = [part for name, value in _NEUTRAL.items() for part in ("-c", f"{name}={value}")]
    place = ["--git-dir", git_dir] + (["--work-tree", work_tree] if work_tree else ["-c", "core.bare=true"])
    return ["git", *place, *settings]


def abbreviation(git_dir: str, sha: str) -> int:
    """How many hex digits git abbreviates object names of this repository to.

    It grows with the number of objects. Names that need more digits to be
    unique get more; the shortest of several names shows the rule.
    """
    command = [*_command(git_dir, None), "rev-list", "--max-count=16", "--abbrev-commit", sha]
    done = subprocess.run(command, env=_environment(network=False), capture_output=True, check=False)
    # A damaged history can end the list early: what was printed before is good.
    names = done.stdout.split()
    if not names:
        raise RepositoryError(
            f"git cannot read commit {sha[:10]}",
            f"{git_dir}: {done.stderr.decode(errors='replace').strip()}",
            f"Try: git --git-dir {git_dir} fsck",
        )
    return min(map(len, names))


def history(git_dir: str, tips: Sequence[str], hide: Sequence[str]) -> Iterator[str]:
    """SHAs reachable from `tips` but not from `hide`, parents before children. Raises LookupError with git's words."""
    command = [*_command(git_dir, None), "rev-list", "--topo-order", "--reverse", "--stdin"]
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as errors:
        asked.write("".join([f"{sha}\n" for sha in tips] + [f"^{sha}\n" for sha in hide]).encode())
        asked.seek(0)
        process = subprocess.Popen(
            command, env=_environment(network=False), stdin=asked, stdout=subprocess.PIPE, stderr=errors
        )
        try:
            if process.stdout is None:
                raise RuntimeError("git rev-list was started without a pipe")
            for line in process.stdout:
                yield line.decode("ascii").rstrip("\n")
            if process.wait():
                errors.seek(0)
                raise LookupError(errors.read().decode(errors="replace").strip())
        finally:
            _stop(process, errors)


class DiffTree:
    """One long-lived `git diff-tree` that is asked for many patches."""

    def __init__(self, git_dir: str, work_tree: str | None) -> None:
        options = ["-r", "--raw", "--patch", "--find-renames", "--no-ext-diff", "--no-textconv", "--no-color"]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [*_command(git_dir, work_tree), "diff-tree", "--stdin", *options],
            cwd=work_tree,
            env=_environment(network=False),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self.close = weakref.finalize(self, _stop, self._process, self._errors)

    def lines(self, old_tree: str, new_tree: str) -> Iterator[bytes]:
        """Lines of the raw list, an empty line, and lines of the patch; a line over CHUNK bytes comes in pieces.

        Must be read to the end. Raises LookupError with git's words where an
        object is missing; this object is of no use then.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("git diff-tree was started without pipes")
        pair = f"{old_tree} {new_tree}\n".encode()
        with contextlib.suppress(BrokenPipeError):  # it died: reading says why
            # A line that names no object is echoed, and no line of a patch starts like it.
            stdin.write(pair + b"end\n")
            stdin.flush()
        if stdout.readline() != pair:
            raise LookupError(self._failure())
        starts = True
        while line := stdout.readline(CHUNK):
            if starts and line == b"end\n":
                return
            starts = line.endswith(b"\n")
            yield line
        raise LookupError(self._failure())

    def _failure(self) -> str:
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip() or "git diff-tree gave no answer"


def _stop(process: "subprocess.Popen[bytes]", errors: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, errors):
        if pipe is not None:
            with contextlib.suppress(OSError):  # unsent bytes to a process that is gone
                pipe.close()


def clone_bare(url: str, folder: str | Path) -> None:
    """Clone branches and tags of a URL or path into a new bare repository.

    The folder appears only when the clone is whole. Raises RepositoryError.
    """
    target = Path(folder)
    if target.exists():
        raise RepositoryError("The folder for the clone is already there", str(target), "Remove it, or fetch into it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as part:
        work = Path(part) / "clone"
        arguments = ["clone", "--bare", "--quiet", "--template=", "--", url, str(work)]
        _network(
            ["git", "-c", f"core.hooksPath={os.devnull}", *arguments], f"Cannot clone {without_password(url)}", url
        )
        shutil.move(work, target)


def fetch(folder: str | Path) -> None:
    """Bring a clone made by `clone_bare` up to date, forced pushes and deletions included.

    Refuses a folder whose configuration holds more than such a clone's: it
    could name programs to run. Raises RepositoryError.
    """
    base = ["git", "--git-dir", str(folder), "-c", f"core.hooksPath={os.devnull}", "-c", "core.fsmonitor=false"]
    what = f"Cannot fetch into {folder}"
    listed = _network([*base, "config", "--local", "--includes", "--name-only", "--list"], what, None)
    odd = [key for key in listed.splitlines() if not _CLONE_KEYS.fullmatch(key)]
    if odd:
        raise RepositoryError(what, f"its config sets {', '.join(odd)}", "Fetch by hand, or remove it to clone again")
    refspecs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
    options = ["--quiet", "--prune", "--no-auto-maintenance", "--no-recurse-submodules", "--no-write-fetch-head"]
    _network([*base, "fetch", *options, "--", "origin", *refspecs], what, None)


def _network(command: list[str], what: str, url: str | None) -> str:
    done = subprocess.run(
        command, env=_environment(network=True), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        words = (done.stderr.decode(errors="replace").strip() or f"git ended with {done.returncode}").splitlines()[0]
        if url is not None:
            words = words.replace(url, without_password(url))
        raise RepositoryError(what, f"git: {words}", "Check the address, the network and your access rights")
    return done.stdout.decode(errors="replace")


def without_password(url: str) -> str:
    """The URL without a user's name and password, so that it can be stored and shown."""
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/@]*@", r"\1", url)
