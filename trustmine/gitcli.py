"""The git program: for network work, histories and patches.

Promises: arguments are lists, never a shell; nothing that a repository says
(configuration, attributes, hooks, replace refs) runs a program or changes
what is printed; no password prompt ever waits. Network commands see the
user's own configuration (proxy, credentials), reading commands see none.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from trustmine.errors import RepositoryError

PROTOCOLS = "file:git:http:https:ssh"  # not ext::, which runs any program
CHUNK = 1 << 16  # longest piece of a line, bytes
PIPE_BYTES = 1 << 20  # asked of the system for a pipe, and read at once: git works ahead by this much
MAX_SENT = 500  # questions under way: with 86 bytes each they fit in a pipe of 64 KiB, so writing never waits
END = b"end"

# Each undoes a setting of the repository that would run a program or change the output.
_NEUTRAL = {
    "advice.graftFileDeprecated": "false",  # said because GIT_GRAFT_FILE turns grafts off
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.abbrev": "auto",
    "core.quotePath": "true",
    # Memory stays flat however large the packs are; on curl this costs no time.
    "core.packedGitWindowSize": "8m",
    "core.packedGitLimit": "64m",
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
_ORIGIN = ("config", "--local", "--replace-all", "remote.origin.url")


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


def history(git_dir: str, tips: Sequence[str], hide: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """(SHA, commit object) of what is reachable from `tips` but not from `hide`, parents before children.

    One git lists, another one reads, and both are ahead of the caller. Raises
    LookupError with git's words.
    """
    command = [*_command(git_dir, None), "rev-list", "--topo-order", "--reverse", "--stdin"]
    environment = _environment(network=False)
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as errors:
        asked.write("".join([f"{sha}\n" for sha in tips] + [f"^{sha}\n" for sha in hide]).encode())
        asked.seek(0)
        lister = subprocess.Popen(command, env=environment, stdin=asked, stdout=subprocess.PIPE, stderr=errors)
        reader = subprocess.Popen(
            [*_command(git_dir, None), "cat-file", "--batch", "--buffer"],
            env=environment,
            stdin=lister.stdout,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=PIPE_BYTES,
        )
        try:
            if lister.stdout is None or reader.stdout is None:
                raise RuntimeError("git was started without pipes")
            lister.stdout.close()  # the reader's now
            while head := reader.stdout.readline():
                sha, kind, *size = head.split()
                if kind != b"commit":
                    raise LookupError(head.decode(errors="replace").strip())
                yield sha.decode("ascii"), reader.stdout.read(int(size[0]))
                reader.stdout.read(1)
            if lister.wait() or reader.wait():
                errors.seek(0)
                raise LookupError(errors.read().decode(errors="replace").strip())
        finally:
            _stop(lister)
            _stop(reader)


def first_parents(git_dir: str, tip: str) -> list[str]:
    """The commit, its first parent, and so on to the root. Raises LookupError with git's words."""
    return _output(git_dir, ["rev-list", "--first-parent", tip, "--"]).decode("ascii").split()


def raw_changes(git_dir: str, shas: Sequence[str]) -> Iterator[tuple[str, list[bytes]]]:
    """(SHA, fields of `git diff-tree --raw -z`) of commits against their first parent, in their order.

    The fields of one file are `:mode mode oid oid status`, its path and, if it was renamed, its new path. Commits that
    change nothing are left out. Raises LookupError with git's words.
    """
    options = ["--stdin", "-r", "--root", "--raw", "-z", "--no-abbrev", "--find-renames", "--diff-merges=first-parent"]
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as errors:
        asked.write("".join(f"{sha}\n" for sha in shas).encode())
        asked.seek(0)
        process = subprocess.Popen(
            [*_command(git_dir, None), "diff-tree", *options],
            env=_environment(network=False),
            stdin=asked,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            if process.stdout is None:
                raise RuntimeError("git was started without a pipe")
            sha, fields, n_paths = b"", list[bytes](), 0
            for field in _fields(process.stdout):
                if n_paths:  # a path may read like anything
                    n_paths -= 1
                    fields.append(field)
                elif field.startswith(b":"):
                    n_paths = 2 if field.rpartition(b" ")[2][:1] in (b"R", b"C") else 1
                    fields.append(field)
                else:
                    if fields:
                        yield sha.decode("ascii"), fields
                    sha, fields = field, []
            if process.wait():
                errors.seek(0)
                raise LookupError(errors.read().decode(errors="replace").strip())
            if fields:
                yield sha.decode("ascii"), fields
        finally:
            _stop(process)


def _fields(stream: IO[bytes]) -> Iterator[bytes]:
    """What stands between NUL bytes."""
    rest = b""
    while more := stream.read(PIPE_BYTES):
        *fields, rest = (rest + more).split(b"\0")
        yield from fields


def _output(git_dir: str, arguments: Sequence[str]) -> bytes:
    """What a reading command prints. Raises LookupError with git's words."""
    done = subprocess.run(
        [*_command(git_dir, None), *arguments],
        env=_environment(network=False),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise LookupError(done.stderr.decode(errors="replace").strip())
    return done.stdout


class DiffTree:
    """One long-lived `git diff-tree` that is asked for many patches and works ahead of who reads them."""

    def __init__(self, git_dir: str, work_tree: str | None) -> None:
        options = ["-r", "--root", "--raw", "--patch", "--find-renames"]
        options += ["--no-ext-diff", "--no-textconv", "--no-color"]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [*_command(git_dir, work_tree), "diff-tree", "--stdin", *options],
            cwd=work_tree,
            # Without an index git does not take the worktree's file for a blob that it thinks is the same.
            env={**_environment(network=False), "GIT_INDEX_FILE": f"{git_dir}/no-index"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("git diff-tree was started without pipes")
        self._stdin, self._stdout = stdin, stdout
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):  # more than this user may have
                fcntl.fcntl(stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._data, self._at = b"\n", 0  # read but not used; an answer begins after a newline
        self._unsent: deque[str] = deque()
        self._n_sent = 0
        self.close = weakref.finalize(self, _stop, self._process, self._errors)

    def ask(self, questions: Iterable[str]) -> None:
        """Put questions behind those asked before: a commit's SHA, or two trees with a space between."""
        self._unsent.extend(questions)
        self._send()

    def _send(self) -> None:
        if not self._unsent or self._n_sent > MAX_SENT // 2:
            return
        lines = []
        while self._unsent and self._n_sent < MAX_SENT:
            # A line that names no object is echoed, and no line of an answer starts like it.
            lines.append(f"{self._unsent.popleft()}\n{END.decode()}\n")
            self._n_sent += 1
        with contextlib.suppress(BrokenPipeError):  # it died: reading says why
            self._stdin.write("".join(lines).encode())
            self._stdin.flush()

    def answer(self, limit: int) -> bytes | Iterator[bytes]:
        """To the oldest question: its first line is the question, or it is empty if git has no answer.

        Then the raw list, an empty line, and the patch. An answer of `limit`
        bytes or more comes as an iterator over its lines, which must be read
        to the end; a line over CHUNK bytes comes in pieces. Raises LookupError
        with git's words where an object is missing; this object is of no use
        then.
        """
        piece, is_whole = self._read(limit)
        return piece if is_whole else self._lines(piece, limit)

    def _lines(self, piece: bytes, limit: int) -> Iterator[bytes]:
        rest, is_whole = piece, False
        while True:
            *lines, rest = rest.split(b"\n")
            yield from (line + b"\n" for line in lines)
            if is_whole:
                return
            if len(rest) > CHUNK:
                yield rest
                rest = b""
            piece, is_whole = self._read(limit)
            rest += piece

    def _read(self, limit: int) -> tuple[bytes, bool]:
        """What comes up to the end of the answer; or a part of it, and False, if that is `limit` bytes or more."""
        mark = b"\n" + END + b"\n"
        seen = self._at
        while (found := self._data.find(mark, seen)) < 0:
            if len(self._data) - self._at > limit + len(mark):
                cut = len(self._data) - len(mark)  # the end may have begun
                piece, self._data, self._at = self._data[self._at + 1 : cut + 1], self._data[cut:], 0
                return piece, False
            more = os.read(self._stdout.fileno(), PIPE_BYTES)
            if not more:
                raise LookupError(self._failure())
            seen = max(len(self._data) - self._at - len(mark), 0)
            self._data, self._at = self._data[self._at :] + more, 0
        piece, self._at = self._data[self._at + 1 : found + 1], found + len(mark) - 1
        self._n_sent -= 1
        self._send()
        return piece, True

    def _failure(self) -> str:
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").split("\n")
        return "; ".join(filter(None, words)) or "git diff-tree gave no answer"


def _stop(process: "subprocess.Popen[bytes]", errors: IO[bytes] | None = None) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, errors):
        if pipe is not None:
            with contextlib.suppress(OSError):  # unsent bytes to a process that is gone
                pipe.close()


def clone_bare(url: str, folder: str | Path) -> None:
    """Clone branches and tags of a URL or path into a new bare repository.

    The folder appears only when the clone is whole. Its configuration keeps the
    URL without name and password. Raises RepositoryError.
    """
    target = Path(folder)
    if target.exists():
        raise RepositoryError("The folder for the clone is already there", str(target), "Remove it, or fetch into it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as part:
        work = Path(part) / "clone"
        arguments = ["clone", "--bare", "--quiet", "--template=", "--", url, str(work)]
        what = f"Cannot clone {without_password(url)}"
        _network(["git", "-c", f"core.hooksPath={os.devnull}", *arguments], what, url)
        if without_password(url) != url:
            _network(["git", "--git-dir", str(work), *_ORIGIN, without_password(url)], what, url)
        shutil.move(work, target)


def fetch(folder: str | Path, url: str) -> None:
    """Bring a clone of this URL made by `clone_bare` up to date, forced pushes and deletions included.

    Name and password are those of the URL given; the clone keeps none. Refuses
    a clone of another address, and a folder whose configuration holds more than
    such a clone's: it could name programs to run. Raises RepositoryError.
    """
    base = ["git", "--git-dir", str(folder), "-c", f"core.hooksPath={os.devnull}", "-c", "core.fsmonitor=false"]
    what = f"Cannot fetch into {folder}"
    listed = _network([*base, "config", "--local", "--includes", "--null", "--list"], what, url)
    config = dict(entry.partition("\n")[::2] for entry in listed.split("\0") if entry)
    odd = [key for key in config if not _CLONE_KEYS.fullmatch(key)]
    if odd:
        raise RepositoryError(what, f"its config sets {', '.join(odd)}", "Fetch by hand, or remove it to clone again")
    origin = config.get("remote.origin.url", "")
    if address(origin) != address(url):
        where = f"it is a clone of {without_password(origin)}, not of {without_password(url)}"
        raise RepositoryError(what, where, "Set another folder for clones (cache), or remove this one to clone again")
    if without_password(origin) != origin:  # a clone of trustmine before it left them out
        _network([*base, *_ORIGIN, without_password(origin)], what, url)
    refspecs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
    options = ["--quiet", "--prune", "--no-auto-maintenance", "--no-recurse-submodules", "--no-write-fetch-head"]
    _network([*base, "fetch", *options, "--", url, *refspecs], what, url)


def _network(command: list[str], what: str, url: str) -> str:
    done = subprocess.run(
        command, env=_environment(network=True), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        words = (done.stderr.decode(errors="replace").strip() or f"git ended with {done.returncode}").splitlines()[0]
        # git may also name a part of the URL: the one that it wants a password for.
        words = re.sub(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s]*@", r"\1", words.replace(url, without_password(url)))
        raise RepositoryError(what, f"git: {words}", "Check the address, the network and your access rights")
    return done.stdout.decode(errors="replace")


def without_password(url: str) -> str:
    """The URL without a user's name and password, so that it can be stored and shown."""
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/]*@", r"\1", url)


def address(url: str) -> str:
    """What all ways to ask for the same thing have in common: no scheme, no user, no slash at the end."""
    return re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*://", "", without_password(url)).rstrip("/")
