"""Commits, patches, blobs and trees of a git repository; the only user of pygit2.

Patches are byte for byte what `git show --format= SHA` prints with no
configuration but the repository's attributes: git itself is asked, one
long-lived `git diff-tree` per GitRepo, which works ahead on what `expect`
announces. libgit2's patches differ in small ways (white space and form feeds
in `@@` lines, rename detection, the `index` line) and cost 2.3 times the CPU
time (curl's 19,352 commits with a keyword: 27.6 against 11.8 s, 2026-11). The
order of a history comes from `git rev-list`: libgit2 refuses commits with
malformed dates, of which old histories have some.

Nothing that a repository contains runs a program. Configuration and attribute
files outside the repository are not read. Importing this module sets
libgit2's options for the whole process. A GitRepo belongs to one process and
one thread.
"""

import contextlib
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pygit2
from pygit2.enums import ConfigLevel, FileMode, ObjectType, RepositoryOpenFlag

from trustmine import gitcli, patchtext, text
from trustmine.errors import RepositoryError
from trustmine.patchtext import Patch
from trustmine.records import CommitHeader

clone_bare = gitcli.clone_bare
fetch = gitcli.fetch

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
# git diff-tree keeps every commit that it was asked about: 140 MB after 10,000 answers on a history of a million
# commits, 370 MB after 200,000 (2026-11). A new one costs some milliseconds.
RENEW_AFTER = 10_000
_CACHE_BYTES = 128 << 20  # libgit2's cache of objects, per process
_CACHED_OBJECT_BYTES = 1 << 20  # largest blob or tree that goes into it

# Hashes are git's to check; re-hashing every object read halves the speed. With blobs and
# trees cached, a file that many commits leave alone is inflated once.
pygit2.settings.enable_strict_hash_verification(False)
pygit2.settings.cache_max_size(_CACHE_BYTES)
pygit2.settings.cache_object_limit(ObjectType.BLOB, _CACHED_OBJECT_BYTES)
pygit2.settings.cache_object_limit(ObjectType.TREE, _CACHED_OBJECT_BYTES)
# Who owns a folder matters to programs that run what its configuration names; we run nothing.
pygit2.settings.owner_validation = False
for _level in (ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.GLOBAL):
    pygit2.settings.search_path[_level] = ""

_REGULAR = ("100644", "100755", "100664")  # the last one stands in some old histories
_NOTHING: tuple[None, None] = (None, None)  # no file, no tree
_UNREADABLE = (KeyError, ValueError, OSError, pygit2.GitError)


class MissingObject(LookupError):
    """An object that a commit needs is not there or damaged: this row fails, the run goes on."""

    def __init__(self, kind: str, oid: str, path: str, cause: object, is_shallow: bool) -> None:
        hint = f"git -C {path} fetch --unshallow" if is_shallow else f"git -C {path} fsck"
        super().__init__(f"Cannot read {kind} {oid[:10]} in {path}\n  {cause}\n  Try: {hint}")


@dataclass(frozen=True, slots=True)
class FileChange:
    """What a commit did to one regular file. A path and oid are None where there is no such file."""

    old_path: bytes | None
    new_path: bytes | None
    old_oid: str | None
    new_oid: str | None


class GitRepo:
    """A repository on this machine, read only."""

    def __init__(self, repo: pygit2.Repository) -> None:
        self._repo = repo
        self.path = str(Path(repo.path).absolute())
        self._work_tree = str(Path(repo.workdir).absolute()) if repo.workdir else None
        common = Path(self.path, "commondir")  # there in a linked worktree
        self._common = Path(self.path, os.fsdecode(common.read_bytes().strip())) if common.exists() else Path(self.path)
        self._cut_off = self._boundary()
        self._diff_tree: gitcli.DiffTree | None = None
        self._n_answered = 0  # by the present process
        self._asked: deque[tuple[str, str]] = deque()  # commit and question, as long as they are not answered

    @classmethod
    def open(cls, path: str | Path) -> "GitRepo":
        """The repository in this folder (bare, or with a worktree), not in one above. Raises RepositoryError."""
        folder = Path(path).absolute()
        if not text.is_utf_8(str(folder)):
            what = "The repository's path is not UTF-8, so that it cannot be stored"
            raise RepositoryError(what, ascii(str(folder)), "Rename the folder, or make a link to it")
        if not folder.exists():
            raise RepositoryError("There is no such folder", str(folder), "Check the path")
        try:
            repo = pygit2.Repository(str(folder), RepositoryOpenFlag.NO_SEARCH)
            if repo.workdir and _has_no_worktree(repo):
                repo = pygit2.Repository(repo.path, RepositoryOpenFlag.NO_SEARCH | RepositoryOpenFlag.BARE)
            return cls(repo)
        except _UNREADABLE as error:
            words = str(error)
            if "objectformat" in words or "object format" in words:
                raise RepositoryError(
                    "The repository uses SHA-256 object names, which libgit2 cannot read",
                    f"{folder}: {words}",
                    "Use a SHA-1 clone of the project",
                ) from error
            if "extension" in words or "version" in words:
                hint = "Use a plain clone: git clone --ref-format=files"
                raise RepositoryError("libgit2 cannot read this format", f"{folder}: {words}", hint) from error
            if isinstance(error, KeyError) or "not found" in words.lower() or "could not find" in words.lower():
                hint = "Give the folder of a git repository, or a URL to clone"
                raise RepositoryError("This is not a git repository", str(folder), hint) from error
            raise RepositoryError(
                "Cannot open the repository", f"{folder}: {words}", "Check the rights on it, and: git fsck"
            ) from error

    def close(self) -> None:
        """End the helper process, if there is one."""
        if self._diff_tree is not None:
            self._diff_tree.close()
            self._diff_tree = None
        self._asked.clear()
        self._n_answered = 0

    @property
    def url(self) -> str | None:
        """remote.origin.url without user name and password; None if there is none."""
        try:
            url = self._repo.config["remote.origin.url"] or ""
        except _UNREADABLE:
            return None
        return gitcli.without_password(url) or None

    @property
    def default_name(self) -> str:
        """owner/name of the remote, else the folder's name."""
        url = self.url
        if url:
            host, _, path = ("", "", "")
            if "://" in url:
                with contextlib.suppress(ValueError):  # [ without ] is no address
                    parts = urlsplit(url)
                    host, path = parts.netloc, parts.path
            elif ":" in url and "/" not in url.split(":")[0]:  # user@host:owner/name
                host, _, path = url.partition(":")
            names = [name for name in path.removesuffix("/").removesuffix(".git").split("/") if name]
            if host and names:
                return "/".join(names[-2:])
        return Path(self._work_tree or self.path).name.removesuffix(".git") or "repository"

    @property
    def is_shallow(self) -> bool:
        return bool(self._cut_off)

    @property
    def is_empty(self) -> bool:
        """No branch or tag, and HEAD without a commit."""
        return self._repo.head_is_unborn and not any(True for _ in self._repo.references)

    def _boundary(self) -> frozenset[str]:
        try:
            return frozenset((self._common / "shallow").read_text(encoding="ascii").split())
        except FileNotFoundError:
            return frozenset()

    def resolve(self, ref: str) -> str:
        """Full SHA of the commit that a branch, tag or revision names. Raises RepositoryError."""
        if self.is_empty:
            raise RepositoryError("The repository has no commits yet", self.path, "Commit or fetch something first")
        try:
            return str(self._repo.revparse_single(ref).peel(pygit2.Commit).id)
        except (*_UNREADABLE, TypeError) as error:
            hint = f"See: git -C {self.path} branch --all; git -C {self.path} tag"
            raise RepositoryError(f"There is no commit {ref!r}", f"{self.path}: {error}", hint) from error

    def has(self, oid: str) -> bool:
        """Whether the object is there."""
        return self._repo.odb.exists(oid)

    def walk(self, tips: Sequence[str], hide: Sequence[str]) -> Iterator[CommitHeader]:
        """Commits reachable from `tips` but not from `hide`, parents before children.

        The same order for the same tips. Hidden commits that are gone (forced
        push, gc) are ignored. Raises RepositoryError at a missing or damaged object.
        """
        present = [sha for sha in hide if self.has(sha)]
        with self._readable():
            for sha, commit in gitcli.history(self.path, tips, present) if tips else ():
                yield _header(sha, commit, sha in self._cut_off)

    def first_parents(self, tip: str) -> list[str]:
        """The commit, its first parent, and so on to the root. Raises RepositoryError."""
        with self._readable():
            return gitcli.first_parents(self.path, tip)

    def changes(self, shas: Sequence[str]) -> Iterator[tuple[str, list[FileChange]]]:
        """What commits did to regular files, against their first parent; those that did nothing are left out.

        In the order given. Raises RepositoryError.
        """
        with self._readable():
            for sha, fields in gitcli.raw_changes(self.path, shas):
                yield sha, _file_changes(fields)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except LookupError as error:
            raise RepositoryError(
                f"The history of {self.path} cannot be read to its end",
                str(error),
                f"See: git -C {self.path} fsck; then fetch the missing objects or clone again",
            ) from error

    def is_cut_off(self, sha: str) -> bool:
        """Whether a shallow clone has left out the parents of this commit."""
        return sha in self._cut_off

    def commit_time_s(self, sha: str) -> int:
        """Raises MissingObject."""
        return _header(sha, self._read("commit", sha), False).commit_time_s

    def _read(self, kind: str, oid: str) -> bytes:
        try:
            found, data = self._repo.odb.read(oid)
        except _UNREADABLE as error:
            raise self._missing(kind, oid, error) from error
        if found != _TYPES[kind]:
            raise self._missing(kind, oid, "it is an object of another kind")
        return data

    def _missing(self, kind: str, oid: str, cause: object) -> MissingObject | RepositoryError:
        """Why an object cannot be read: this one is not there, or nothing is any more."""
        if not Path(self.path, "HEAD").exists():
            hint = "Put it back, or work on others with --repo; no row is blamed"
            return RepositoryError("The repository is gone", self.path, hint)
        return MissingObject(kind, oid, self.path, cause, self.is_shallow)

    def blob(self, oid: str) -> bytes:
        """Content of a blob. Raises MissingObject; RepositoryError if the whole repository is gone."""
        return self._read("blob", oid)

    def blob_oid(self, data: bytes) -> str:
        """The object name that git gives this content."""
        return str(pygit2.hash(data))

    def tree_changes(self, old: str | None, new: str) -> Iterator[tuple[bytes, str | None]]:
        """(path, blob oid) of the regular files that are new or other in commit `new`, (path, None) of those gone.

        Without `old`, all files are new. Reads only folders that differ. Raises MissingObject.
        """
        trees = [None if sha is None else _tree_of(self._read("commit", sha)) for sha in (old, new)]
        stack: list[tuple[bytes, str | None, str | None]] = [(b"", trees[0], trees[1])]
        while stack:
            prefix, *oids = stack.pop()
            before, after = (self._entries(oid) for oid in oids)
            for name in sorted(before.keys() | after.keys()):
                (was_file, was_tree), (is_file, is_tree) = before.get(name, _NOTHING), after.get(name, _NOTHING)
                if was_file != is_file:
                    yield prefix + name, is_file
                if was_tree != is_tree:
                    stack.append((prefix + name + b"/", was_tree, is_tree))

    def top_files(self, sha: str) -> dict[bytes, str]:
        """Name -> blob oid of the regular files at the top of a commit's tree. Raises MissingObject."""
        entries = self._entries(_tree_of(self._read("commit", sha)))
        return {name: oid for name, (oid, _) in entries.items() if oid is not None}

    def find_file(self, sha: str, path: bytes) -> str | None:
        """Blob oid of the regular file at this path in a commit's tree; None if there is none. Raises MissingObject."""
        *folders, name = path.split(b"/")
        tree: str | None = _tree_of(self._read("commit", sha))
        for folder in folders:
            tree = self._entries(tree).get(folder, _NOTHING)[1]
        return self._entries(tree).get(name, _NOTHING)[0]

    def _entries(self, oid: str | None) -> dict[bytes, tuple[str | None, str | None]]:
        """Name -> oid of a regular file, or oid of a tree; links and submodules are left out."""
        found: dict[bytes, tuple[str | None, str | None]] = {}
        for entry in () if oid is None else self._tree(oid):
            if entry.filemode == FileMode.TREE:
                found[entry.raw_name or b""] = (None, str(entry.id))
            elif entry.filemode in (FileMode.BLOB, FileMode.BLOB_EXECUTABLE):
                found[entry.raw_name or b""] = (str(entry.id), None)
        return found

    def _tree(self, oid: str) -> pygit2.Tree:
        try:
            if oid == EMPTY_TREE and not self.has(oid):
                raise KeyError("the empty tree is not stored")
            tree = self._repo[oid]
        except _UNREADABLE as error:
            raise self._missing("tree", oid, error) from error
        if not isinstance(tree, pygit2.Tree):
            raise self._missing("tree", oid, "it is an object of another kind")
        return tree

    # ------------------------------------------------------------------ patches

    def expect(self, shas: Sequence[str]) -> None:
        """Say which patches will be asked for next, in this order: git works on them meanwhile."""
        questions = []
        for sha in shas:
            with contextlib.suppress(MissingObject):  # told when it is asked for
                questions.append((sha, self._question(sha)))
        self._ask(questions)

    def patch(self, sha: str, max_chars: int) -> Patch:
        """The patch against the first parent (the empty tree for a root), as git prints it.

        A patch of `max_chars` characters or more is counted, not kept. Raises MissingObject.
        """
        while self._asked and self._asked[0][0] != sha and any(asked == sha for asked, _ in self._asked):
            self._answer(0)  # of a row that did not want it after all
        if not self._asked or self._asked[0][0] != sha:
            self._drop_asked()
            self._ask([(sha, self._question(sha))])
        patch = self._answer(max_chars)
        if patch is None:
            # Nothing is printed for a merge, or where nothing changed.
            trees = self._trees(sha)
            if trees.split(" ")[0] != trees.split(" ")[1]:
                self._drop_asked()
                self._ask([(sha, trees)])
                patch = self._answer(max_chars)
        return patch or patchtext.EMPTY

    def _drop_asked(self) -> None:
        """Make the next question the oldest."""
        if self._asked:
            self.close()

    def _ask(self, questions: Sequence[tuple[str, str]]) -> None:
        """Put questions, each with the commit it is about, behind those asked before."""
        if self._n_answered >= RENEW_AFTER and not self._asked:
            self.close()
        if self._diff_tree is None:
            self._diff_tree = gitcli.DiffTree(self.path, self._work_tree)
        self._asked.extend(questions)
        self._diff_tree.ask(question for _, question in questions)

    def _answer(self, max_chars: int) -> Patch | None:
        """The oldest patch asked for; None if git printed nothing."""
        assert self._diff_tree is not None, "asked before"
        sha, question = self._asked.popleft()
        self._n_answered += 1
        try:
            answer = self._diff_tree.answer(max_chars)
            if isinstance(answer, bytes):
                return patchtext.read(answer, max_chars) if answer.startswith(question.encode()) else None
            return patchtext.read_lines(answer, max_chars)
        except BaseException as error:
            self.close()  # the rest of its answer is still in the pipe
            if isinstance(error, LookupError):
                raise self._missing("blobs of commit", sha, f"git: {error}") from error
            raise

    def _question(self, sha: str) -> str:
        """How git is asked for the patch of a commit. Raises MissingObject."""
        return sha if sha not in self._cut_off else self._trees(sha)

    def _trees(self, sha: str) -> str:
        """The trees before and after a commit, as a question. Raises MissingObject."""
        commit = self._read("commit", sha)
        parents = _parents_of(commit)
        before = _tree_of(self._read("commit", parents[0])) if parents else EMPTY_TREE
        return f"{before} {_tree_of(commit)}"


def _file_changes(fields: Sequence[bytes]) -> list[FileChange]:
    """Links and submodules are no files."""
    found = []
    left = iter(fields)
    for field in left:
        old_mode, new_mode, old_oid, new_oid, status = field[1:].decode("ascii").split(" ")
        old_path = next(left)
        new_path = next(left) if status[0] in "RC" else old_path
        was, is_now = old_mode in _REGULAR, new_mode in _REGULAR
        if was or is_now:
            found.append(
                FileChange(
                    old_path if was and status[0] != "C" else None,
                    new_path if is_now else None,
                    old_oid if was and status[0] != "C" else None,
                    new_oid if is_now else None,
                )
            )
    return found


def _has_no_worktree(repo: pygit2.Repository) -> bool:
    """Whether libgit2 takes the folder above for a worktree only because the configuration does not say bare."""
    path = Path(repo.path)
    return path.name != ".git" and not (path / "commondir").exists() and "core.worktree" not in repo.config


_TYPES = {"commit": ObjectType.COMMIT, "blob": ObjectType.BLOB}


def _headers(commit: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Header lines as (key, value) and the message; continuation lines (signatures) are left out."""
    head, _, message = commit.partition(b"\n\n")
    pairs = [line.partition(b" ") for line in head.split(b"\n") if not line.startswith(b" ")]
    return [(key, value) for key, _, value in pairs], message


def _tree_of(commit: bytes) -> str:
    return commit[len(b"tree ") : len(b"tree ") + 40].decode("ascii", "replace")


def _parents_of(commit: bytes) -> tuple[str, ...]:
    return tuple(value.decode("ascii", "replace") for key, value in _headers(commit)[0] if key == b"parent")


def _header(sha: str, commit: bytes, is_shallow: bool) -> CommitHeader:
    """What ingest stores. Parents are those written in the commit, also where a shallow clone cut them off."""
    headers, raw = _headers(commit)
    first = dict(reversed(headers))
    parents = tuple(value.decode("ascii", "replace") for key, value in headers if key == b"parent")
    declared = first.get(b"encoding")
    message, encoding = text.decode(raw, declared.decode("ascii", "replace") if declared else None)
    return CommitHeader(
        sha=sha,
        parents=parents,
        author_time_s=_time(first.get(b"author", b"")),
        commit_time_s=_time(first.get(b"committer", b"")),
        message=message,
        encoding=encoding,
        is_boundary=is_shallow and bool(parents),
    )


def _time(signature: bytes) -> int:
    """Seconds since 1970 in "Name <mail> SECONDS ZONE"; 0 where they cannot be read, as git shows them."""
    seconds = signature.rpartition(b">")[2].split()[:1]
    return int(seconds[0]) if seconds and re.fullmatch(rb"-?[0-9]{1,17}", seconds[0]) else 0
