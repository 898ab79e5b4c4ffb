"""Commits, patches, blobs and trees of a git repository; the only user of pygit2.

Patches are byte for byte what `git show --format= SHA` of git 2.39
prints with no configuration but the repository's attributes. libgit2 alone
does not get there; this module mends

- the `index` line (git's abbreviation grows with the repository) and the rest
  of the header (quoted paths, the tab after a path with a space);
- white space before the 80th byte of the context in `@@` lines;

and asks one long-lived `git diff-tree` for the patches that libgit2 would
compute in another way: those with added and deleted files at once (rename
detection uses other fingerprints), files with a `diff` attribute, blobs with
form feeds (trimmed off context lines by libgit2), and very large files (which
git streams). The order of a history comes from `git rev-list`: libgit2 refuses
commits with malformed dates, of which old histories have some.

Compared with `git log -p` of git 2.39.5 on random commits: no patch differed
of 3,000 of curl (15 asked of git) and 999 of gpac (12 asked of git).

Nothing that a repository contains runs a program. Configuration and attribute
files outside the repository are not read. Importing this module sets
libgit2's options for the whole process. A GitRepo belongs to one process and
one thread.
"""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pygit2
from pygit2.enums import ConfigLevel, DeltaStatus, DiffOption, FileMode, ObjectType, RepositoryOpenFlag

from trustmine import gitcli, patchtext, text
from trustmine.errors import RepositoryError
from trustmine.patchtext import NO_OID, Patch, PatchBuilder, Side
from trustmine.records import CommitHeader

clone_bare = gitcli.clone_bare
fetch = gitcli.fetch

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_LARGE_BYTES = 8 << 20  # blobs from this size on (before and after together) are left to git, which streams
_CACHE_BYTES = 128 << 20  # libgit2's cache of objects, per process
_CACHED_OBJECT_BYTES = 1 << 20  # largest blob or tree that goes into it

# Hashes are git's to check; re-hashing every object read halves the speed. With blobs and
# trees cached, the image after one commit is at hand when it is the image before the next.
pygit2.settings.enable_strict_hash_verification(False)
pygit2.settings.cache_max_size(_CACHE_BYTES)
pygit2.settings.cache_object_limit(ObjectType.BLOB, _CACHED_OBJECT_BYTES)
pygit2.settings.cache_object_limit(ObjectType.TREE, _CACHED_OBJECT_BYTES)
# Who owns a folder matters to programs that run what its configuration names; we run nothing.
pygit2.settings.owner_validation = False
for _level in (ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.GLOBAL):
    pygit2.settings.search_path[_level] = ""

_CHANGES = {DeltaStatus.ADDED: "added", DeltaStatus.DELETED: "deleted", DeltaStatus.MODIFIED: "modified"}
_NOTHING: tuple[None, None] = (None, None)  # no file, no tree
_UNREADABLE = (KeyError, ValueError, OSError, pygit2.GitError)


class MissingObject(LookupError):
    """An object that a commit needs is not there or damaged: this row fails, the run goes on."""

    def __init__(self, kind: str, oid: str, path: str, cause: object, is_shallow: bool) -> None:
        hint = f"git -C {path} fetch --unshallow" if is_shallow else f"git -C {path} fsck"
        super().__init__(f"Cannot read {kind} {oid[:10]} in {path}\n  {cause}\n  Try: {hint}")


class GitRepo:
    """A repository on this machine, read only."""

    def __init__(self, repo: pygit2.Repository) -> None:
        self._repo = repo
        self.path = str(Path(repo.path).absolute())
        self._work_tree = str(Path(repo.workdir).absolute()) if repo.workdir else None
        common = Path(self.path, "commondir")  # there in a linked worktree
        self._common = Path(self.path, os.fsdecode(common.read_bytes().strip())) if common.exists() else Path(self.path)
        self._has_attributes = self._work_tree is not None or (self._common / "info" / "attributes").exists()
        self._diff_tree: gitcli.DiffTree | None = None
        self._n_digits = 0
        self._abbreviated = functools.lru_cache(4096)(self._abbreviate)

    @classmethod
    def open(cls, path: str | Path) -> "GitRepo":
        """The repository in this folder (bare, or with a worktree), not in one above. Raises RepositoryError."""
        folder = Path(path).absolute()
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
        return bool(self._boundary())

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
        boundary = self._boundary()
        present = [sha for sha in hide if self.has(sha)]
        try:
            for sha in gitcli.history(self.path, tips, present) if tips else ():
                yield _header(sha, self._read("commit", sha), sha in boundary)
        except LookupError as error:
            raise RepositoryError(
                f"The history of {self.path} cannot be read to its end",
                str(error),
                f"See: git -C {self.path} fsck; then fetch the missing objects or clone again",
            ) from error

    def _read(self, kind: str, oid: str) -> bytes:
        try:
            found, data = self._repo.odb.read(oid)
        except _UNREADABLE as error:
            raise MissingObject(kind, oid, self.path, error, self.is_shallow) from error
        if found != _TYPES[kind]:
            raise MissingObject(kind, oid, self.path, "it is an object of another kind", self.is_shallow)
        return data

    def blob(self, oid: str) -> bytes:
        """Content of a blob. Raises MissingObject."""
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
            raise MissingObject("tree", oid, self.path, error, self.is_shallow) from error
        if not isinstance(tree, pygit2.Tree):
            raise MissingObject("tree", oid, self.path, "it is an object of another kind", self.is_shallow)
        return tree

    # ------------------------------------------------------------------ patches

    def patch(self, sha: str, max_chars: int) -> Patch:
        """The patch against the first parent (the empty tree for a root), as git prints it.

        A patch of `max_chars` characters or more is counted, not kept. Raises MissingObject.
        """
        commit = self._read("commit", sha)
        parents = _parents_of(commit)
        old_tree = _tree_of(self._read("commit", parents[0])) if parents else EMPTY_TREE
        new_tree = _tree_of(commit)
        builder = PatchBuilder(max_chars)
        if old_tree == new_tree:
            return builder.build()
        if not self._n_digits:
            self._n_digits = gitcli.abbreviation(self.path, sha)
        try:
            if self._by_libgit2(old_tree, new_tree, builder):
                return builder.build()
        except _UNREADABLE as error:
            raise MissingObject("blobs of commit", sha, self.path, error, self.is_shallow) from error
        return self._by_git(sha, old_tree, new_tree, max_chars)

    def _by_libgit2(self, old_tree: str, new_tree: str, builder: PatchBuilder) -> bool:
        """Fill the builder; False if this patch is one of those that libgit2 makes in another way."""
        options = DiffOption.INDENT_HEURISTIC
        if new_tree == EMPTY_TREE:
            diff = self._tree(old_tree).diff_to_tree(flags=options)
        elif old_tree == EMPTY_TREE:
            diff = self._tree(new_tree).diff_to_tree(flags=options, swap=True)
        else:
            diff = self._tree(old_tree).diff_to_tree(self._tree(new_tree), flags=options)
        statuses = {delta.status for delta in diff.deltas}
        if not statuses <= _CHANGES.keys() or {DeltaStatus.ADDED, DeltaStatus.DELETED} <= statuses:
            return False
        for number, patch in enumerate(diff, 1):
            if patch is None:
                return False
            delta, is_binary = patch.delta, bool(patch.delta.is_binary)
            old, new = _side(delta.old_file), _side(delta.new_file)
            if self._has_attributes and self._repo.get_attr(new.path, "diff") is not None:
                return False
            if delta.old_file.size + delta.new_file.size >= _LARGE_BYTES:
                return False
            data = b"" if old.oid == new.oid else patch.data
            start = data.find(patchtext.FIRST_HUNK)
            hunks = data[start + 1 :] if start >= 0 else b""
            if hunks and self._has_form_feed(old):
                return False
            abbreviated = self._abbreviated(old.oid), self._abbreviated(new.oid)
            builder.add(patchtext.file_patch(old, new, abbreviated, hunks, is_binary))
            counts = patchtext.counted(hunks)
            builder.files.append(patchtext.facts(number, _CHANGES[delta.status], old, new, is_binary, counts))
        return True

    def _has_form_feed(self, side: Side) -> bool:
        """Whether a line of it may end in white space that git keeps and libgit2 trims."""
        if not side.mode or side.mode == patchtext.SUBMODULE:
            return False
        blob = self._repo[side.oid]  # from libgit2's cache: it has just been compared
        return isinstance(blob, pygit2.Blob) and (b"\f" in blob.data or b"\v" in blob.data)

    def _by_git(self, sha: str, old_tree: str, new_tree: str, max_chars: int) -> Patch:
        if self._diff_tree is None:
            self._diff_tree = gitcli.DiffTree(self.path, self._work_tree)
        builder = PatchBuilder(max_chars)
        try:
            patchtext.read_git(self._diff_tree.lines(old_tree, new_tree), builder)
        except BaseException as error:
            self.close()  # the rest of its answer is still in the pipe
            if isinstance(error, LookupError):
                raise MissingObject("blobs of commit", sha, self.path, f"git: {error}", self.is_shallow) from error
            raise
        return builder.build()

    def _abbreviate(self, oid: str) -> str:
        """As many digits as git prints: more than usual where another object begins alike."""
        for n_digits in range(self._n_digits, len(oid)):
            try:
                if str(self._repo.expand_id(oid[:n_digits])) == oid:
                    return oid[:n_digits]
            except KeyError:  # no object at all: a submodule's commit, or no file
                return oid[:n_digits]
            except ValueError:  # several
                continue
        return oid


def _has_no_worktree(repo: pygit2.Repository) -> bool:
    """Whether libgit2 takes the folder above for a worktree only because the configuration does not say bare."""
    path = Path(repo.path)
    return path.name != ".git" and not (path / "commondir").exists() and "core.worktree" not in repo.config


_TYPES = {"commit": ObjectType.COMMIT, "blob": ObjectType.BLOB}


def _side(file: pygit2.DiffFile) -> Side:
    oid = str(file.id)
    return Side(file.raw_path, oid, 0 if oid == NO_OID else int(file.mode))


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
    if not seconds or not seconds[0].lstrip(b"-").isdigit() or len(seconds[0]) > 18:
        return 0
    return int(seconds[0])
