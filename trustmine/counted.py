"""Which files of a patch count, and the part of the patch about them.

The one place that says what limits measure and what later stages show of a
commit: its message and the parts of its patch about counted files. With
`counted_files` = "all" that is the whole patch; with "source" it leaves out
what is no C or C++ source by its extension, and what `ignored_files` names:
tests, examples, generated files, version stamps. The stored patch stays whole.
"""

import functools
import re
from collections.abc import Sequence
from fnmatch import translate

from trustmine.config import Settings
from trustmine.records import Diff, DiffFile

SETTINGS = ("counted_files", "ignored_files", "extensions")  # what the functions below depend on, `own` aside

_HEADERS = (".h", ".hh", ".hpp", ".hxx", ".h++", ".inl", ".inc")
_FILE_PART = re.compile(r"^(?=diff --git )", re.MULTILINE)


def files(changed: Sequence[DiffFile], settings: Settings) -> tuple[DiffFile, ...]:
    """Those of a commit's files that count, by their path after the change."""
    if settings.counted_files == "all":
        return tuple(changed)
    return tuple(
        file
        for file in changed
        if file.new_path.endswith(settings.extensions) and not is_ignored(file.new_path, settings.ignored_files)
    )


def own(changed: Sequence[DiffFile], settings: Settings) -> tuple[DiffFile, ...]:
    """The counted files that a fix may be of: without headers that go beside a source file, if those do not count."""
    counted = files(changed, settings)
    if settings.headers == "beside":
        return tuple(file for file in counted if not file.new_path.lower().endswith(_HEADERS)) or counted
    return counted


def patch(diff: Diff, changed: Sequence[DiffFile], settings: Settings) -> str | None:
    """The parts of the patch about counted files, in its order; None if the patch was too large to be kept."""
    counted = files(changed, settings)
    if diff.patch is None or len(counted) == len(changed):
        return diff.patch
    wanted = {file.file_no for file in counted}
    return "".join(part for file, part in parts(diff.patch, changed) if file.file_no in wanted)


def parts(whole: str, changed: Sequence[DiffFile]) -> list[tuple[DiffFile, str]]:
    """Each file with its part of a whole patch. Raises ValueError if patch and files are not of one commit."""
    # Lines of a hunk begin with a mark, so only headers begin like this.
    sections = [section for section in _FILE_PART.split(whole) if section]
    found: list[tuple[DiffFile, str]] = []
    for file in changed:
        n = 2 if file.change == "typechange" else 1  # printed as deleted and added
        found.append((file, "".join(sections[:n])))
        del sections[:n]
    if sections or not all(part for _, part in found):
        raise ValueError("the stored patch does not have the parts of the stored files")
    return found


def text(message: str, counted_patch: str) -> str:
    """The commit text whose tokens are limited."""
    return f"{message}\n{counted_patch}"


def is_ignored(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of the patterns names the file or a folder above it, in any case.

    As in .gitignore: a pattern that ends in / is a folder's, one with another
    / counts from the root, any other is of a name at any depth.
    """
    names, folders = _compiled(patterns)
    path = path.lower()
    *above, name = path.split("/")
    if names.fullmatch(name) or names.fullmatch(path):
        return True
    return any(folders.fullmatch(part) or folders.fullmatch("/".join(above[: i + 1])) for i, part in enumerate(above))


@functools.cache
def _compiled(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of files, and of folders; those that count from the root match whole paths only."""
    lowered = [pattern.lower() for pattern in patterns]
    names = [translate(pattern.removeprefix("/")) for pattern in lowered if not pattern.endswith("/")]
    folders = [translate(pattern.strip("/")) for pattern in lowered if pattern.endswith("/")]
    return tuple(re.compile("|".join(some) or r"(?!)") for some in (names, folders))  # type: ignore[return-value]
