"""Are definitions found where universal-ctags finds them?

For random commits of C files the tree of the parent is given to ctags, the
independent judge. Names that functions of the commit's file use, that these
functions do not declare themselves, and that ctags finds defined somewhere in
the tree, are asked of DefinitionFinder, as s2_1 does, with the kind that the
parser gives their use. A name that ctags knows only as another kind of thing
(`len` used as a variable, defined as a member) is not asked.

    python benchmarks/definitions.py REPO [--commits N] [--names N] [--seed N] [--show]

Expected are all definitions that ctags has in the first of these places that
has any: the file itself, the headers that it includes and those they include,
the rest of the tree. What lies in the body of a function counts in the file
itself alone. A name is

    right            the expected are all among the candidates, and the first candidate is one of them
    incomplete       the first candidate is expected, but not all expected are candidates
    found elsewhere  the first candidate is not expected
    missing          there is no candidate, or declarations only

An answer is invented if its lines do not hold the name as a word. How many of
the candidates ctags does not know is said, since ctags errs too: --show
prints them and every name that is not right. Needs git and universal-ctags.
Exits with 1 if fewer than 95 % are right or any answer is invented.
"""

import argparse
import json
import posixpath
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common import machine, need, table

from trustmine import cparse
from trustmine.definitions import KINDS, Definition, DefinitionFinder
from trustmine.gitrepo import GitRepo
from trustmine.lines import LineRange, cut_lines
from trustmine.trees import is_c

MIN_SHARE = 0.95
FUNCTIONS = 20  # of the commit's file, whose names are drawn from
LIMIT = 10_000  # candidates asked for: all
# What ctags calls what the finder calls.
OURS = {
    "function": "function",
    "macro": "macro",
    "enumerator": "constant",
    "enum": "enum",
    "struct": "struct",
    "class": "struct",
    "union": "union",
    "typedef": "typedef",
    "member": "member",
    "variable": "variable",
}
CTAGS = (
    "--output-format=json",
    "--languages=C,C++",
    "--map-C++=-.h",
    "--map-C=+.h",
    "--fields=+neK",
    "-L",
    "-",
    "-f",
    "-",
)
INCLUDE = re.compile(rb"^[ \t]*#[ \t]*include[ \t]*[\"<]([^\">\n]+)[\">]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Tag:
    """A definition as ctags has it."""

    path: str
    line: int
    last_line: int
    kind: str
    is_local: bool  # in the body of a function


@dataclass
class Tree:
    """A commit's tree on the disk, and what ctags finds in it; goes from commit to commit by what differs."""

    repo: GitRepo
    folder: Path
    sha: str | None = None
    oids: dict[str, str] = field(default_factory=dict)
    tags: dict[str, dict[str, list[Tag]]] = field(default_factory=dict)  # path -> name -> tags

    def move_to(self, sha: str) -> None:
        changed: list[str] = []
        for raw, oid in self.repo.tree_changes(self.sha, sha):
            path = raw.decode("utf-8", "replace")
            self.tags.pop(path, None)
            self.oids.pop(path, None)
            if oid is not None:
                self.oids[path] = oid
                if is_c(path) and "\n" not in path:
                    changed.append(path)
        for path in changed:
            place = self.folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(self.repo.blob(self.oids[path]))
        self.sha = sha
        names = "".join(path + "\n" for path in changed).encode()
        out = subprocess.run(
            [need("ctags", "universal-ctags"), *CTAGS], cwd=self.folder, input=names, capture_output=True, check=True
        ).stdout
        found = [json.loads(line) for line in out.decode("utf-8", "replace").splitlines()]
        bodies: dict[str, list[tuple[int, int]]] = {}
        for tag in found:
            if tag.get("kind") == "function" and "end" in tag:
                bodies.setdefault(tag["path"], []).append((tag["line"], tag["end"]))
        for tag in found:
            if tag.get("kind") in OURS and not tag["name"].startswith("__anon"):
                line, path = tag["line"], tag["path"]
                kind = OURS[tag["kind"]]
                is_local = kind != "macro" and any(first < line <= last for first, last in bodies.get(path, ()))
                name = tag["name"].rpartition("::")[2]
                one = Tag(path, line, tag.get("end", line), kind, is_local)
                self.tags.setdefault(path, {}).setdefault(name, []).append(one)

    def headers(self, path: str, source: bytes) -> list[str]:
        """What a file includes, and what that includes."""
        by_base: dict[str, list[str]] = {}
        for other in self.oids:
            by_base.setdefault(posixpath.basename(other), []).append(other)
        found: dict[str, None] = {}
        queue = [(path, source)]
        for place, text in queue:
            for written in INCLUDE.findall(text):
                header = self._resolved(written.decode("utf-8", "replace"), place, by_base)
                if header is not None and header != path and header not in found:
                    found[header] = None
                    queue.append((header, self.repo.blob(self.oids[header])))
        return list(found)

    def _resolved(self, written: str, includer: str, by_base: dict[str, list[str]]) -> str | None:
        beside = posixpath.normpath(posixpath.join(posixpath.dirname(includer), written))
        if beside in self.oids:
            return beside
        end = re.sub(r"^(\.\./)+", "", posixpath.normpath(written))
        fitting = [p for p in by_base.get(posixpath.basename(end), ()) if f"/{p}".endswith(f"/{end}")]

        def steps(other: str) -> tuple[int, str]:
            one, two = (posixpath.dirname(p).split("/") for p in (includer, other))
            shared = next(
                (i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two))
            )
            return len(one) + len(two) - 2 * shared, other

        return min(fitting, key=steps, default=None)


def commits(repo: GitRepo, n: int, seed: int) -> list[tuple[str, str]]:
    """(parent, path) of random commits that modify a C file, in the order of the history."""

    def git(*args: str) -> list[str]:
        return subprocess.run(
            ["git", "-C", repo.path, *args], capture_output=True, check=True, text=True, errors="replace"
        ).stdout.splitlines()

    shas = git("rev-list", "--no-merges", "--min-parents=1", "HEAD", "--", "*.c")
    order = {sha: place for place, sha in enumerate(shas)}
    found: list[tuple[int, str, str]] = []
    random.Random(seed).shuffle(shas)
    for sha in shas:
        lines = git("diff-tree", "-r", "--no-commit-id", "--diff-filter=M", "--name-only", sha)
        if paths := [path for path in lines if path.endswith(".c")]:
            found.append((order[sha], sha, paths[0]))
        if len(found) == n:
            break
    return [(git("rev-parse", f"{sha}^1")[0], path) for _, sha, path in sorted(found)]


def uses(source: bytes, path: str, rng: random.Random) -> dict[str, str]:
    """Name -> kind of what functions of a file use and do not declare themselves."""
    functions = list(cparse.functions(source, path))
    rng.shuffle(functions)
    found: dict[str, str] = {}
    for function in functions[:FUNCTIONS]:
        text = cut_lines(source, LineRange(function.first_line, function.last_line))
        for name in cparse.names(text, 1, function.last_line, path):
            if not name.is_local and name.kind != "label":
                found.setdefault(name.name, name.kind)
    return found


def expected(name: str, kind: str, path: str, headers: Sequence[str], tree: Tree) -> list[Tag]:
    """All definitions of ctags in the first place that has any."""
    rest = (p for p in tree.tags if p != path and p not in set(headers))
    for paths in ([path], headers, rest):
        tags = [t for p in paths for t in tree.tags.get(p, {}).get(name, ()) if t.kind in KINDS[kind]]
        if found := [tag for tag in tags if not tag.is_local or paths == [path]]:
            return found
    return []


def holds(definition: Definition, tag: Tag) -> bool:
    return definition.path == tag.path and definition.first_line <= tag.line <= definition.last_line


def verdict(tags: Sequence[Tag], found: Sequence[Definition]) -> str:
    if not found or found[0].is_declaration_only:
        return "missing"
    if not any(holds(found[0], tag) for tag in tags):
        return "found elsewhere"
    return "right" if all(any(holds(d, tag) for d in found) for tag in tags) else "incomplete"


def asked(
    finder: DefinitionFinder, tree: Tree, sha: str, path: str, n_names: int, rng: random.Random
) -> Iterator[tuple[str, str, list[Tag], tuple[Definition, ...], float]]:
    """(name, kind, expected, found, seconds) of random names that the file uses."""
    source = tree.repo.blob(tree.oids[path])
    headers = tree.headers(path, source)
    left = list(uses(source, path, rng).items())
    rng.shuffle(left)
    n = 0
    for name, kind in left:
        tags = expected(name, kind, path, headers, tree)
        if tags:
            started = time.perf_counter()
            found = finder.find(name, kind, path, sha, source, LIMIT).nearest
            yield name, kind, tags, found, time.perf_counter() - started
            n += 1
        if n == n_names:
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--commits", type=int, default=20)
    parser.add_argument("--names", type=int, default=50, help="per commit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="print every name that is not right")
    args = parser.parse_args()
    repo = GitRepo.open(args.repo)
    rng = random.Random(args.seed)
    finder = DefinitionFinder(repo)
    counts: Counter[str] = Counter()
    by_kind: dict[str, Counter[str]] = {}
    times_ms: list[float] = []
    tree_s: list[float] = []
    n_candidates = n_unknown = n_invented = n_spans = n_same_spans = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(repo, Path(folder))
        for sha, path in commits(repo, args.commits, args.seed):
            tree.move_to(sha)
            started = time.perf_counter()
            finder.news(sha)
            tree_s.append(time.perf_counter() - started)
            for name, kind, tags, found, seconds in asked(finder, tree, sha, path, args.names, rng):
                times_ms.append(seconds * 1000)
                said = verdict(tags, found)
                counts[said] += 1
                by_kind.setdefault(kind, Counter())[said] += 1
                if said != "right" and args.show:
                    places = [(d.path, d.first_line, d.last_line, d.kind) for d in found[:3]]
                    wanted = [(t.path, t.line, t.kind) for t in tags if not any(holds(d, t) for d in found)]
                    print(f"{said}: {name} ({kind}) in {path} of {sha[:10]}: ctags {wanted[:3]}, found {places}")
                for definition in found:
                    n_candidates += 1
                    of_name = tree.tags.get(definition.path, {}).get(name, [])
                    fitting = [tag for tag in of_name if holds(definition, tag)]
                    is_invented = re.search(rb"\b%b\b" % re.escape(name.encode()), definition.text) is None
                    n_invented += is_invented
                    if not fitting:
                        n_unknown += 1
                        if args.show:
                            where = f"{definition.path}:{definition.first_line} {definition.kind}"
                            word = "invented" if is_invented else "not in ctags"
                            print(f"{word}: {name} ({kind}) of {sha[:10]}: {where}: {definition.text[:90]!r}")
                    elif definition.kind == "function":
                        n_spans += 1
                        n_same_spans += any(tag.last_line == definition.last_line for tag in fitting)
    n = counts.total()
    share = counts["right"] / n if n else 0.0
    words = ("right", "incomplete", "found elsewhere", "missing")
    print(f"{repo.default_name}, {args.commits} commits, seed {args.seed}; {machine()}\n")
    rows = [
        (kind, of_kind.total(), *(of_kind[word] for word in words), f"{of_kind['right'] / of_kind.total():.1%}")
        for kind, of_kind in sorted(by_kind.items())
    ]
    rows.append(("all", n, *(counts[word] for word in words), f"{share:.1%}"))
    print(table(("used as", "names", *words, "share right"), rows))
    print(f"{n_candidates:,} candidates: {n_unknown:,} not known to ctags, {n_invented:,} invented. ", end="")
    print(f"Of {n_spans:,} functions {n_same_spans:,} end on the same line as in ctags.")
    if times_ms:
        print(
            f"First tree {tree_s[0]:.2f} s, later trees {statistics.median(tree_s[1:] or tree_s):.2f} s (median), "
            f"a name {statistics.median(times_ms):.1f} ms (median), {max(times_ms):.0f} ms at most."
        )
    return 0 if share >= MIN_SHARE and n_invented == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
