"""Which side each commit of an export is on, and which commits are left out.

Promises: a commit is on one side alone; no function (white space and comments
aside) and no CVE is on two; of cherry-picks and copies on other branches one
commit is kept, the first fix if there is one; no function is both vulnerable
and fixed. What is left out is counted by reason. The same rows give the same plan.

Sides: `bench` is what s1_1 put there (commits from the cutoff on that have a
CVE). The rest is `train`; or, by date, the oldest 80 % are `train`, then 10 %
`val` and 10 % `test`; or, by project, whole repositories go to these in about
the same shares.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from trustmine import text
from trustmine.cparse import strip_comments_and_space
from trustmine.export.provenance import cursor
from trustmine.patchid import patch_id
from trustmine.progress import Progress, quiet

SPLITS = ("train", "val", "test", "bench")
SPLIT_BY = ("date", "project")
TENTHS = (("train", 8), ("val", 1), ("test", 1))

# Why a commit is left out.
COPY = "copy_of_an_earlier_commit"  # the same patch, or the same function before and after
BOTH_WAYS = "function_labelled_both_ways"  # its fixed or benign function is what another commit fixes
FUNCTION = "function_in_another_split"  # bench, test and val keep what they share with train, in this order
CVE = "cve_in_another_split"
_FIXES = "SELECT commit_id FROM functions JOIN verdicts USING (commit_id) WHERE label = 'yes'"
REASONS = (COPY, BOTH_WAYS, FUNCTION, CVE)


class LeftOut(Exception):
    """A record that a format has no row for; its text is the reason, a word to count."""


@dataclass(frozen=True)
class Plan:
    """What an export takes."""

    split: Mapping[int, str]  # by commit id; commits that are left out are not in it
    first: frozenset[tuple[int, str]]  # (commit id, before or after): the first time that this function is seen
    dropped: Mapping[str, int]  # reason -> commits, in the order of REASONS
    dropped_of_bench: Mapping[str, int]  # those of them that would be in bench

    def only(self, side: str) -> "Plan":
        """The plan for one side. What is left out is bench's, or that of all other sides together."""
        of_bench = self.dropped_of_bench
        others = {reason: n - of_bench[reason] for reason, n in self.dropped.items()}
        split = {id: split for id, split in self.split.items() if split == side}
        return replace(self, split=split, dropped=of_bench if side == "bench" else others)


@dataclass(frozen=True, slots=True)
class _Commit:
    id: int
    repo: str
    is_bench: bool
    patch: str | None
    before: str | None  # hashes of the normalised function; None where there is none
    after: str | None
    cves: frozenset[str]
    benign: frozenset[str]  # hashes of functions that it made as they have stayed since

    @property
    def is_benign(self) -> bool:
        """Whether it only made what nobody had to change since."""
        return bool(self.benign) and self.before is None

    def shared(self) -> Iterable[tuple[str, str]]:
        """What may be on one side alone, with the reason to leave the commit out otherwise."""
        yield from ((FUNCTION, one) for one in (self.before, self.after, *sorted(self.benign)) if one is not None)
        yield from ((CVE, one) for one in sorted(self.cves))


def of_instructions(
    conn: sqlite3.Connection, split_by: str | None, repo: str | None = None, progress: Progress = quiet
) -> Plan:
    """The plan for all commits that have instructions; no repository: of all.

    Whatever the tasks that are exported, so that a commit is on the same side in each export.
    """
    commits = _commits(conn, "SELECT DISTINCT commit_id FROM instructions", repo, progress)
    return _plan([replace(commit, benign=_benign(conn, commit.id)) for commit in commits], split_by)


def of_pairs(
    conn: sqlite3.Connection, split_by: str | None, repo: str | None = None, progress: Progress = quiet
) -> Plan:
    """The plan for all fixes that have a function before and after."""
    return _plan(_commits(conn, _FIXES, repo, progress), split_by)


def of_functions(
    conn: sqlite3.Connection, split_by: str | None, repo: str | None = None, progress: Progress = quiet
) -> Plan:
    """The plan for these, and for all commits that made a benign function."""
    fixes = {commit_id for (commit_id,) in cursor(conn).execute(_FIXES)}
    commits = _commits(conn, f"{_FIXES} UNION SELECT since_commit_id FROM benign_functions", repo, progress)
    commits = [one if one.id in fixes else replace(one, before=None, after=None) for one in commits]
    return _plan([replace(commit, benign=_benign(conn, commit.id)) for commit in commits], split_by)


def normalised(code: str, path: str) -> str:
    """The same for functions that differ in white space and comments alone."""
    return hashlib.sha256(strip_comments_and_space(code.encode(), path)).hexdigest()


def _commits(conn: sqlite3.Connection, ids: str, repo: str | None, progress: Progress) -> list[_Commit]:
    """Those commits of the repository (None: of all), the oldest first."""
    ids = f"""SELECT commit_id FROM ({ids}) JOIN commits ON commits.id = commit_id JOIN repos ON repos.id = repo_id
              WHERE :repo IS NULL OR repos.name = :repo"""
    (total,) = cursor(conn).execute(f"SELECT count(*) FROM ({ids})", {"repo": repo}).fetchone()
    found = cursor(conn).execute(
        f"""SELECT c.id, r.name, 'bench' = coalesce(f.split,
                       (SELECT min(split) FROM instructions AS i WHERE i.commit_id = c.id)), d.patch, d.encoding,
                   f.old_path, f.pre_text, f.path, f.post_text
            FROM ({ids}) AS wanted JOIN commits AS c ON c.id = wanted.commit_id JOIN repos AS r ON r.id = c.repo_id
            LEFT JOIN diffs AS d ON d.commit_id = c.id LEFT JOIN functions AS f ON f.commit_id = c.id
            ORDER BY c.commit_time_s, r.name, c.sha""",
        {"repo": repo},
    )
    commits = []
    for commit_id, name, is_bench, patch, codec, old_path, before, path, after in found:
        made = _Commit(
            id=commit_id,
            repo=name,
            is_bench=bool(is_bench),
            patch=None if patch is None else patch_id(text.encode(patch, codec)),
            before=None if before is None else normalised(before, old_path),
            after=None if after is None else normalised(after, path),
            cves=_cves(conn, commit_id),
            benign=frozenset(),
        )
        commits.append(made)
        progress("planned", len(commits), total)
    return commits


def _cves(conn: sqlite3.Connection, commit_id: int) -> frozenset[str]:
    found = cursor(conn).execute(
        """SELECT value FROM identifiers WHERE commit_id = :id AND kind = 'CVE' UNION
           SELECT identifier FROM labels WHERE commit_id = :id AND label = 'yes' AND identifier LIKE 'CVE-%'""",
        {"id": commit_id},
    )
    return frozenset(value for (value,) in found)


def _benign(conn: sqlite3.Connection, commit_id: int) -> frozenset[str]:
    found = cursor(conn).execute("SELECT text, path FROM benign_functions WHERE since_commit_id = ?", (commit_id,))
    return frozenset(normalised(code, path) for code, path in found)


def _plan(commits: Sequence[_Commit], split_by: str | None) -> Plan:
    dropped: Counter[tuple[str, bool]] = Counter()  # reason, whether it would be in bench
    kept = _without_copies(commits, dropped)
    vulnerable = {commit.before for commit in kept if commit.before is not None}
    is_fine = [commit.after not in vulnerable and not commit.benign & vulnerable for commit in kept]
    fine = [commit for commit, keep in zip(kept, is_fine, strict=True) if keep]
    dropped.update((BOTH_WAYS, commit.is_bench) for commit, keep in zip(kept, is_fine, strict=True) if not keep)
    sides = _sides(fine, split_by)
    split: dict[int, str] = {}
    taken: dict[tuple[str, str], str] = {}  # key -> the side that has it
    for side in reversed(SPLITS):
        for commit in (one for one in fine if sides[one.id] == side):
            shared = next((key for key in commit.shared() if taken.get(key, side) != side), None)
            if shared is not None:
                dropped[shared[0], commit.is_bench] += 1
                continue
            split[commit.id] = side
            taken.update(dict.fromkeys(commit.shared(), side))
    of_bench = {reason: dropped[reason, True] for reason in REASONS}
    return Plan(
        split,
        _first(one for one in fine if one.id in split),
        {reason: of_bench[reason] + dropped[reason, False] for reason in REASONS},
        of_bench,
    )


def _without_copies(commits: Sequence[_Commit], dropped: Counter[tuple[str, bool]]) -> list[_Commit]:
    """One of each patch and of each pair of functions: the first fix, else the first with a benign function."""
    seen: set[tuple[str | None, ...]] = set()
    kept: set[int] = set()
    # Sorting keeps the order of time. What was undecided on one branch may be a known fix on another.
    for commit in sorted(commits, key=lambda one: (one.before is None, not one.is_benign)):
        keys: set[tuple[str | None, ...]] = set() if commit.patch is None else {(commit.patch,)}
        if commit.before is not None:
            keys |= {(commit.before, commit.after)}
        if keys & seen:
            dropped[COPY, commit.is_bench] += 1
        else:
            kept.add(commit.id)
        seen |= keys
    return [commit for commit in commits if commit.id in kept]


def _sides(commits: Sequence[_Commit], split_by: str | None) -> dict[int, str]:
    """The side of each commit, before anything is compared."""
    rest = [commit for commit in commits if not commit.is_bench]
    sides = {commit.id: "bench" for commit in commits if commit.is_bench}
    if split_by == "date":
        # What made a function that has lived long since then is old: fixes alone say where a side ends.
        n = sum(not commit.is_benign for commit in rest)
        n_train = -(-n * 8 // 10)
        n_val = (n - n_train) // 2
        number = 0
        for commit in rest:
            sides[commit.id] = "train" if number < n_train else "val" if number < n_train + n_val else "test"
            number += not commit.is_benign
    elif split_by == "project":
        size = Counter(commit.repo for commit in rest)
        side_of: dict[str, str] = {}
        filled: Counter[str] = Counter()
        # The largest first, each to the side that lacks most of its share.
        for repo in sorted(size, key=lambda repo: (-size[repo], repo)):
            side_of[repo] = max(TENTHS, key=lambda one: one[1] * len(rest) - 10 * filled[one[0]])[0]
            filled[side_of[repo]] += size[repo]
        sides |= {commit.id: side_of[commit.repo] for commit in rest}
    else:
        sides |= {commit.id: "train" for commit in rest}
    return sides


def _first(commits: Iterable[_Commit]) -> frozenset[tuple[int, str]]:
    seen: set[str] = set()
    first = set()
    for commit in commits:
        for which, function in (("before", commit.before), ("after", commit.after)):
            if function is not None and function not in seen:
                seen.add(function)
                first.add((commit.id, which))
    return frozenset(first)
