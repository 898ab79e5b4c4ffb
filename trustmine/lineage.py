"""The earlier versions of the files of a tree, by the first-parent history.

From the differences of trees alone: no file is read. Renames are followed as
git finds them; a file that a merge brings in begins there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from trustmine.gitrepo import FileChange, GitRepo
from trustmine.text import decode


@dataclass(frozen=True, slots=True)
class Step:
    """A commit that changed the file: its place in the history, and the file before it, if there was one."""

    place: int
    path: bytes | None
    oid: str | None


@dataclass(frozen=True, slots=True)
class Lineage:
    """A file of the tree, and what its history has been, the newest step first."""

    path: bytes
    oid: str  # git blob
    steps: list[Step] = field(default_factory=list)

    def at(self, place: int) -> tuple[int, bytes | None, str | None]:
        """Steps newer than the commit at this place of the history, and path and blob of the file in its tree."""
        path: bytes | None = self.path
        oid: str | None = self.oid
        for n_newer, step in enumerate(self.steps):
            if step.place >= place:
                return n_newer, path, oid
            path, oid = step.path, step.oid
        return len(self.steps), path, oid


def lineages(
    repo: GitRepo,
    chain: Sequence[str],
    is_wanted: Callable[[str], bool],
    progress: Callable[[int], object] = lambda done: None,
) -> list[Lineage]:
    """Of the files in the tree of the history's newest commit that are wanted by their path, in order of their paths.

    `chain`: the history, the newest commit first, as GitRepo.first_parents has it. `progress` is told commits read.
    Raises RepositoryError, MissingObject.
    """
    found = [
        Lineage(path, oid)
        for path, oid in repo.tree_changes(None, chain[0])
        if oid is not None and is_wanted(decode(path)[0])
    ]
    held = {one.path: [one] for one in found}  # by the path in the version at hand; two files may have been one
    place = {sha: number for number, sha in enumerate(chain)}
    for sha, changes in repo.changes(chain):
        progress(place[sha] + 1)
        _follow(held, place[sha], changes)
    return sorted(found, key=lambda one: one.path)


def _follow(held: dict[bytes, list[Lineage]], place: int, changes: Sequence[FileChange]) -> None:
    moved: list[tuple[bytes, list[Lineage]]] = []
    for change in changes:
        ours = held.pop(change.new_path, None) if change.new_path is not None else None
        if ours is None:
            continue
        step = Step(place, change.old_path, change.old_oid)
        for one in ours:
            one.steps.append(step)
        if change.old_path is not None:
            moved.append((change.old_path, ours))
    for path, ours in moved:
        held.setdefault(path, []).extend(ours)
